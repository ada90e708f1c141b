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
#include "model/packed.h"
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
    *tensors = sl_tensors_of(m);
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

/* How others quantised the folder: an adapter made on one kind is told from another by this. */
static void describe_quantisation(sl_buffer *out, const sl_model *m) {
    const sl_json *config = m->checkpoint ? sl_packed_config(m->checkpoint) : NULL;
    if (!config) return;
    sl_json_key(out, "quantization_config");
    sl_json_write_value(out, config);
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
    describe_quantisation(&out, m);
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

void sllm_plan_params_init(sllm_plan_params *params) {
    if (params) *params = (sllm_plan_params){0};
}

static void add_memory(sllm_plan *plan) {
    sllm_machine machine;
    sllm_machine_info(&machine);
    plan->memory_free = machine.memory_free;
    plan->memory_total = machine.memory_total;
    plan->fits = plan->total_bytes <= plan->memory_free;
}

sllm_status sllm_model_plan(const char *path, const sllm_plan_params *params, sllm_plan *plan, sllm_error *error) {
    static const sllm_plan_params defaults = {0};
    if (plan) *plan = (sllm_plan){0};
    if (!path || !plan)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_plan: %s is NULL", path ? "plan" : "path");
    if (error) *error = (sllm_error){0};
    sllm_status status = sl_plan_file(path, params ? params : &defaults, plan, error);
    if (!status) add_memory(plan);
    return status;
}

sllm_status sllm_model_plan_loaded(const sllm_model *model, const sllm_plan_params *params, sllm_plan *plan,
                                   sllm_error *error) {
    static const sllm_plan_params defaults = {0};
    const sllm_plan_params *p = params ? params : &defaults;
    if (plan) *plan = (sllm_plan){0};
    if (!model || !plan)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_plan_loaded: %s is NULL", model ? "plan" : "model");
    const sl_model *m = sl_model_of_const(model);
    if (!m->weights) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: loaded without weights; nothing to plan", m->path);
    if (p->type) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a loaded model has its own types, not '%s'", p->type);
    sl_plan_subject subject = {.config = &m->config, .exact = m->exact, .n_threads = sl_pool_threads(m->pool)};
    tensors_of(m, &subject.tensors);
    sllm_status status = sl_plan_make(&subject, p, plan, error);
    if (!status) add_memory(plan);
    return status;
}

const char *const *sllm_plan_types(void) { return sl_plan_types(); }
