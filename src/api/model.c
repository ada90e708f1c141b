/* The public functions over the model room: loading, what a model is, and what it will take. */
#include "api/handles.h"
#include "base/buffer.h"
#include "base/checked.h"
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
#include <strings.h>

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

void sllm_plan_params_init(sllm_plan_params *params) {
    if (params) *params = (sllm_plan_params){0};
}

/* What a plan is made from: the headers of a file, or a model that is loaded. */
typedef struct subject {
    const sl_config *config;
    sl_tensors tensors;
    bool exact;
    int n_threads;
} subject;

static bool only_f32(const sl_tensors *tensors) {
    for (size_t i = 0; i < sl_tensors_count(tensors); i++) {
        const sl_tensor *t = sl_tensors_at(tensors, i);
        if (t->n_dims > 1 && t->type != SL_F32 && t->type != SL_F64) return false;
    }
    return true;
}

static sllm_status choose_sizes(const sl_config *c, const sllm_plan_params *p, sllm_plan *plan, sllm_error *error) {
    if (p->n_ctx < 0 || p->n_batch < 0 || p->n_prompt < 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a plan for %d sequences of %d positions and prompts of %d; need at "
                       "least 1 of each", p->n_batch, p->n_ctx, p->n_prompt);
    *plan = (sllm_plan){.n_ctx_train = c->n_ctx_train, .n_batch = p->n_batch ? p->n_batch : 1};
    plan->n_ctx = p->n_ctx ? p->n_ctx : c->n_ctx_train < 4096 ? c->n_ctx_train : 4096;
    if (plan->n_ctx > c->n_ctx_train)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %d positions is more than the %d the model was "
                       "trained for", plan->n_ctx, c->n_ctx_train);
    plan->n_prompt = p->n_prompt ? p->n_prompt : plan->n_ctx < 512 ? plan->n_ctx : 512;
    if (plan->n_prompt > plan->n_ctx)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "a prompt of %d tokens is more than the context of %d",
                       plan->n_prompt, plan->n_ctx);
    return SLLM_OK;
}

static sllm_status plan_bytes(const subject *s, const sl_footprint *f, sl_kv_type kv_type, sllm_plan *plan,
                              sllm_error *error) {
    const sl_config *c = s->config;
    uint64_t one = sl_kv_bytes(c, plan->n_ctx, kv_type), batch = (uint64_t)plan->n_batch;
    uint64_t logits = (uint64_t)c->n_vocab * sizeof(float);
    plan->weights_bytes = f->weights_bytes;
    plan->work_bytes = sl_work_bytes(c, s->n_threads, s->exact);
    plan->vocabulary_bytes = sl_plan_vocabulary_bytes(c->n_vocab);
    plan->program_bytes = sl_plan_program_bytes();
    bool fits = sl_mul_u64(one, batch, &plan->kv_bytes) && sl_mul_u64(logits, batch, &logits) &&
                sl_add_u64(plan->work_bytes, logits, &plan->work_bytes) && !f->overflow;
    const uint64_t parts[] = {plan->weights_bytes, plan->kv_bytes, plan->work_bytes, plan->vocabulary_bytes,
                              plan->program_bytes};
    for (size_t i = 0; i < sizeof parts / sizeof *parts && fits; i++)
        fits = sl_add_u64(plan->total_bytes, parts[i], &plan->total_bytes);
    if (fits) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d sequences of %d positions take more bytes than can be counted",
                   plan->n_batch, plan->n_ctx);
}

static void plan_speed(const subject *s, const sl_footprint *f, sl_kv_type kv_type, const sllm_machine_speed *speed,
                       sllm_plan *plan) {
    const sl_config *c = s->config;
    int position = plan->n_prompt < plan->n_ctx ? plan->n_prompt : plan->n_ctx - 1;
    plan->token_bytes = sl_footprint_bytes(f, c, plan->n_batch, plan->n_batch) +
                        (uint64_t)plan->n_batch * sl_attention_bytes(c, kv_type, position);
    if (!speed || !(speed->read_n > 0 && speed->int8_n > 0 && speed->f32_n > 0)) return;
    plan->tokens_per_second = sl_plan_generate_speed(f, c, kv_type, position, plan->n_batch, speed);
    plan->prompt_tokens_per_second = sl_plan_prompt_speed(f, c, plan->n_prompt, speed);
    plan->time_to_first_token_s = plan->n_prompt / plan->prompt_tokens_per_second;
}

static sllm_status make_plan(const subject *s, const sllm_plan_params *p, sllm_plan *plan, sllm_error *error) {
    sl_kv_type kv_type;
    sl_footprint f;
    sllm_machine machine;
    sllm_plan made;
    bool narrow = p->type ? strcasecmp(p->type, "f32") != 0 : !only_f32(&s->tensors);
    sllm_status status = choose_sizes(s->config, p, &made, error);
    if (!status) status = sl_kv_type_choose(s->config, p->kv_type, s->exact, !narrow, &kv_type, error);
    if (!status && p->type) status = sl_plan_weights(s->config, p->type, s->exact, &f, error);
    else if (!status) sl_plan_tensors(&s->tensors, s->config, s->exact, &f);
    if (!status) status = plan_bytes(s, &f, kv_type, &made, error);
    if (status) return status;
    plan_speed(s, &f, kv_type, p->speed, &made);
    sllm_machine_info(&machine);
    made.memory_free = machine.memory_free;
    made.memory_total = machine.memory_total;
    made.fits = made.total_bytes <= made.memory_free;
    *plan = made;
    return SLLM_OK;
}

sllm_status sllm_model_plan(const char *path, const sllm_plan_params *params, sllm_plan *plan, sllm_error *error) {
    static const sllm_plan_params defaults = {0};
    const sllm_plan_params *p = params ? params : &defaults;
    sl_arena arena = {0};
    sl_gguf *gguf = NULL;
    sl_checkpoint *checkpoint = NULL;
    sl_config config = {0};
    sllm_status status;
    if (plan) *plan = (sllm_plan){0};
    if (!path || !plan)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_plan: %s is NULL", path ? "plan" : "path");
    if (error) *error = (sllm_error){0};
    if (sl_path_is_directory(path)) {
        status = sl_checkpoint_open(path, false, &checkpoint, error);
        if (!status) status = sl_config_from_json(checkpoint->config, &arena, &config, error);
    } else {
        status = sl_gguf_open(path, &gguf, error);
        if (!status) status = sl_config_from_gguf(gguf, &arena, &config, error);
    }
    if (!status) {
        subject s = {&config, {gguf, checkpoint ? checkpoint->weights : NULL}, p->exact, p->n_threads};
        if (!s.n_threads) s.n_threads = sl_cpu_count();
        status = make_plan(&s, p, plan, error);
    }
    sl_checkpoint_close(checkpoint);
    sl_gguf_close(gguf);
    sl_arena_free(&arena);
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
    subject s = {&m->config, {0}, m->exact, sl_pool_threads(m->pool)};
    tensors_of(m, &s.tensors);
    return make_plan(&s, p, plan, error);
}

const char *const *sllm_plan_types(void) { return sl_plan_types(); }
