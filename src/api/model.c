/* The public functions over the model room: loading, what a model is, and what it will take. */
#include "api/handles.h"
#include "base/buffer.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "infer/infill.h"
#include "model/families.h"
#include "model/kv.h"
#include "model/plan.h"
#include "model/weights.h"
#include "tensor/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sllm_model_params_init(sllm_model_params *params) {
    if (params) *params = (sllm_model_params){0};
}

sllm_status sllm_model_load(const char *path, const sllm_model_params *params, sllm_model **model, sllm_error *error) {
    sl_model *loaded = NULL;
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_load: model is NULL");
    *model = NULL;
    if (!path) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_load: path is NULL");
    if (error) *error = (sllm_error){0};
    sllm_status status = sl_model_load(path, params, &loaded, error);
    *model = sl_model_public(loaded);
    return status;
}

void sllm_model_free(sllm_model *model) { sl_model_free(sl_model_of(model)); }

/* ---------------------------------------------------------------- what it is */

static bool tensors_of(const sl_model *m, sl_tensors *tensors) {
    *tensors = (sl_tensors){m->gguf, m->checkpoint ? m->checkpoint->weights : NULL};
    return tensors->gguf || tensors->safetensors;
}

/* Elements of each type among the tensors. */
static void count_types(const sl_model *m, uint64_t elements[SL_TYPE_COUNT], uint64_t *bytes, size_t *n) {
    sl_tensors tensors;
    memset(elements, 0, SL_TYPE_COUNT * sizeof *elements);
    *bytes = 0;
    *n = tensors_of(m, &tensors) ? sl_tensors_count(&tensors) : 0;
    for (size_t i = 0; i < *n; i++) {
        const sl_tensor *t = sl_tensors_at(&tensors, i);
        elements[t->type] += t->n_elements;
        *bytes += t->bytes;
    }
}

void sllm_model_get_info(const sllm_model *model, sllm_model_info *info) {
    if (!info) return;
    *info = (sllm_model_info){.path = "", .format = "", .name = "", .family = "", .licence = "", .element_type = ""};
    if (!model) return;
    const sl_model *m = sl_model_of_const(model);
    const sl_config *c = &m->config;
    uint64_t elements[SL_TYPE_COUNT], most = 0;
    size_t n_tensors;
    *info = (sllm_model_info){.path = m->path, .name = c->name, .licence = c->licence, .family = c->family_name,
                              .element_type = "", .n_params = c->n_params, .n_layers = c->n_layers, .n_embd = c->n_embd,
                              .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
                              .n_ff = c->n_ff, .n_experts = c->n_experts, .n_experts_used = c->n_experts_used,
                              .n_ctx_train = c->n_ctx_train, .sliding_window = c->sliding_window, .exact = m->exact,
                              .has_template = m->chat_template_source != NULL};
    info->format = m->gguf ? "gguf" : m->checkpoint ? "safetensors" : "tokenizer";
    if (m->gguf) info->file_bytes = sl_gguf_file_bytes(m->gguf);
    else if (m->checkpoint && m->checkpoint->weights) info->file_bytes = sl_safetensors_file_bytes(m->checkpoint->weights);
    info->n_vocab = c->n_vocab ? c->n_vocab : m->tokenizer ? sl_tokenizer_size(m->tokenizer) : 0;
    count_types(m, elements, &info->tensor_bytes, &n_tensors);
    for (int type = 0; type < SL_TYPE_COUNT && !c->n_params; type++) /* vocab_only: nothing has been bound */
        info->n_params += (int64_t)elements[type];
    for (int type = 0; type < SL_TYPE_COUNT; type++)
        if (elements[type] > most) {
            most = elements[type];
            info->element_type = sl_type_get((sl_type)type)->name;
        }
    info->can_infill = m->tokenizer && sl_infill_can(m->tokenizer);
}

static void describe_architecture(sl_buffer *out, const sllm_model_info *info, const sl_config *c) {
    sl_json_put_int(out, "parameters", info->n_params);
    sl_json_put_int(out, "layers", info->n_layers);
    sl_json_put_int(out, "embedding", info->n_embd);
    sl_json_put_int(out, "heads", info->n_heads);
    sl_json_put_int(out, "kv_heads", info->n_kv_heads);
    sl_json_put_int(out, "head_dim", info->head_dim);
    sl_json_put_int(out, "feed_forward", info->n_ff);
    sl_json_put_int(out, "vocabulary", info->n_vocab);
    if (info->n_experts) {
        sl_json_put_int(out, "experts", info->n_experts);
        sl_json_put_int(out, "experts_used", info->n_experts_used);
    }
    sl_json_put_int(out, "context", info->n_ctx_train);
    if (info->sliding_window) sl_json_put_int(out, "sliding_window", info->sliding_window);
    if (!c->family) return;
    static const char *const scalings[] = {"none", "linear", "dynamic", "llama3", "yarn", "longrope"};
    sl_json_put_bool(out, "tied_embeddings", c->tied);
    sl_json_put_float(out, "norm_epsilon", c->norm_eps);
    if (c->rope_dim) {
        sl_json_put_float(out, "rope_base", c->rope_base);
        sl_json_put_string(out, "rope_scaling", c->rope_freqs ? "llama3" : scalings[c->rope_scaling]);
    }
}

static void describe_tensors(sl_buffer *out, const sl_model *m) {
    uint64_t elements[SL_TYPE_COUNT], bytes;
    size_t n;
    count_types(m, elements, &bytes, &n);
    sl_json_key(out, "tensors");
    sl_buffer_puts(out, "{");
    sl_json_put_int(out, "count", (int64_t)n);
    sl_json_put_int(out, "bytes", (int64_t)bytes);
    sl_json_key(out, "elements_by_type");
    sl_buffer_puts(out, "{");
    for (int type = 0; type < SL_TYPE_COUNT; type++)
        if (elements[type]) sl_json_put_int(out, sl_type_get((sl_type)type)->name, (int64_t)elements[type]);
    sl_buffer_puts(out, "}}");
}

static void describe_tokenizer(sl_buffer *out, const sl_model *m) {
    static const char *const names[SL_SPECIAL_COUNT] = {"bos", "eos", "unk", "pad", "sep", "cls", "mask", "fim_prefix",
                                                        "fim_suffix", "fim_middle"};
    sl_json_key(out, "tokenizer");
    if (!m->tokenizer) {
        sl_buffer_puts(out, "null");
        return;
    }
    sl_buffer_puts(out, "{");
    sl_json_put_string(out, "kind", sl_tokenizer_kind(m->tokenizer));
    sl_json_put_string(out, "pre", sl_tokenizer_pre(m->tokenizer));
    sl_json_put_int(out, "size", sl_tokenizer_size(m->tokenizer));
    sl_json_put_bool(out, "adds_bos", sl_tokenizer_adds_bos(m->tokenizer));
    sl_json_key(out, "special_tokens");
    sl_buffer_puts(out, "{");
    for (int i = 0; i < SL_SPECIAL_COUNT; i++) {
        int32_t id = sl_tokenizer_special(m->tokenizer, (sl_special)i);
        if (id < 0) continue;
        sl_json_key(out, names[i]);
        sl_buffer_puts(out, "{");
        sl_json_put_int(out, "id", id);
        sl_json_put_string(out, "text", sl_tokenizer_text(m->tokenizer, id));
        sl_buffer_puts(out, "}");
    }
    sl_buffer_puts(out, "}");
    sl_json_key(out, "end_tokens");
    sl_buffer_puts(out, "[");
    for (size_t i = 0; i < m->n_end_ids; i++) {
        sl_json_comma(out);
        sl_buffer_puts(out, "{");
        sl_json_put_int(out, "id", m->end_ids[i]);
        sl_json_put_string(out, "text", sl_tokenizer_text(m->tokenizer, m->end_ids[i]));
        sl_buffer_puts(out, "}");
    }
    sl_buffer_puts(out, "]}");
}

static void describe_template(sl_buffer *out, const sl_model *m) {
    sl_json_key(out, "chat_template");
    if (!m->chat_template_source) {
        sl_buffer_puts(out, "null");
        return;
    }
    sl_json_write_string(out, m->chat_template_source, m->chat_template_length);
    if (m->chat_template_error) sl_json_put_string(out, "chat_template_error", m->chat_template_error);
}

sllm_status sllm_model_describe(const sllm_model *model, char **json, sllm_error *error) {
    if (json) *json = NULL;
    if (!model || !json)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_describe: %s is NULL", model ? "json" : "model");
    const sl_model *m = sl_model_of_const(model);
    sllm_model_info info;
    sl_buffer out = {0};
    sllm_model_get_info(model, &info);
    sl_buffer_puts(&out, "{");
    sl_json_put_string(&out, "path", info.path);
    sl_json_put_string(&out, "format", info.format);
    sl_json_put_string(&out, "name", info.name);
    sl_json_put_string(&out, "family", info.family);
    if (m->config.family) sl_json_put_string(&out, "family_title", m->config.family->title);
    sl_json_put_string(&out, "licence", info.licence);
    sl_json_put_string(&out, "element_type", info.element_type);
    sl_json_put_int(&out, "file_bytes", (int64_t)info.file_bytes);
    describe_architecture(&out, &info, &m->config);
    describe_tensors(&out, m);
    describe_tokenizer(&out, m);
    describe_template(&out, m);
    if (m->checkpoint && m->checkpoint->generation_config) {
        sl_json_key(&out, "generation_config");
        sl_json_write_value(&out, m->checkpoint->generation_config);
    }
    sl_buffer_puts(&out, "}");
    *json = sl_buffer_take(&out, NULL);
    return *json ? SLLM_OK : sl_fail_memory(error, "the model's description", 0);
}

/* ---------------------------------------------------------------- what it will take */

/* The headers of a model: configuration, and the bytes of its tensors. */
typedef struct headers {
    sl_arena arena;
    sl_gguf *gguf;
    sl_checkpoint *checkpoint;
    sl_config config;
    uint64_t tensor_bytes;
    bool only_f32;
} headers;

static void headers_close(headers *h) {
    sl_checkpoint_close(h->checkpoint);
    sl_gguf_close(h->gguf);
    sl_arena_free(&h->arena);
}

static sllm_status headers_open(headers *h, const char *path, sllm_error *error) {
    sllm_status status;
    bool is_folder = sl_path_is_directory(path);
    if (is_folder) {
        status = sl_checkpoint_open(path, false, &h->checkpoint, error);
        if (!status) status = sl_config_from_json(h->checkpoint->config, &h->arena, &h->config, error);
    } else {
        status = sl_gguf_open(path, &h->gguf, error);
        if (!status) status = sl_config_from_gguf(h->gguf, &h->arena, &h->config, error);
    }
    if (status) return status;
    sl_tensors tensors = {h->gguf, is_folder ? h->checkpoint->weights : NULL};
    h->only_f32 = true;
    for (size_t i = 0; i < sl_tensors_count(&tensors); i++) {
        const sl_tensor *t = sl_tensors_at(&tensors, i);
        h->tensor_bytes += t->bytes;
        if (t->n_dims > 1 && t->type != SL_F32 && t->type != SL_F64) h->only_f32 = false;
    }
    return SLLM_OK;
}

static sllm_status plan_bytes(const headers *h, const char *type, bool exact, sllm_plan *plan, sllm_error *error) {
    const sl_config *c = &h->config;
    bool only_f32 = type ? !strcasecmp(type, "f32") : h->only_f32;
    sl_kv_type kv_type;
    sllm_status status = sl_kv_type_choose(c, SLLM_KV_AUTO, exact, only_f32, &kv_type, error);
    if (status) return status;
    uint64_t one = sl_kv_bytes(c, plan->n_ctx, kv_type), batch = (uint64_t)plan->n_batch;
    uint64_t work = sl_work_bytes(c, sl_cpu_count(), exact) + (uint64_t)c->n_vocab * sizeof(float);
    plan->weights_bytes = h->tensor_bytes;
    if (type) {
        status = sl_plan_weights(c, type, &plan->weights_bytes, error);
        if (status) return status;
    }
    if (__builtin_mul_overflow(one, batch, &plan->kv_bytes) || __builtin_mul_overflow(work, batch, &plan->work_bytes) ||
        __builtin_add_overflow(plan->kv_bytes, plan->work_bytes, &plan->total_bytes) ||
        __builtin_add_overflow(plan->total_bytes, plan->weights_bytes, &plan->total_bytes))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d sequences of %d positions take more bytes than can be counted",
                       plan->n_batch, plan->n_ctx);
    return SLLM_OK;
}

sllm_status sllm_model_plan(const char *path, const char *type, int n_ctx, int n_batch, bool exact, sllm_plan *plan,
                            sllm_error *error) {
    headers h = {0};
    sllm_machine machine;
    if (plan) *plan = (sllm_plan){0};
    if (!path || !plan)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_plan: %s is NULL", path ? "plan" : "path");
    if (error) *error = (sllm_error){0};
    if (n_ctx < 0 || n_batch < 1)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a plan for %d sequences of %d positions; need at least 1 of each",
                       n_batch, n_ctx);
    sllm_plan made = {.n_batch = n_batch};
    sllm_status status = headers_open(&h, path, error);
    if (!status) {
        made.n_ctx_train = h.config.n_ctx_train;
        made.n_ctx = n_ctx ? n_ctx : made.n_ctx_train < 4096 ? made.n_ctx_train : 4096;
        if (made.n_ctx > made.n_ctx_train)
            status = sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %d positions is more than the %d the model was "
                             "trained for", made.n_ctx, made.n_ctx_train);
    }
    if (!status) status = plan_bytes(&h, type, exact, &made, error);
    if (!status) {
        sllm_machine_info(&machine);
        made.memory_free = machine.memory_free;
        made.memory_total = machine.memory_total;
        made.fits = made.total_bytes <= made.memory_free;
        *plan = made;
    }
    headers_close(&h);
    return status;
}

const char *const *sllm_plan_types(void) { return sl_plan_types(); }
