/* A whole plan: memory of all parts, and the speed that a machine will have. */
#include "base/checked.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "format/checkpoint.h"
#include "model/model.h"
#include "model/packed.h"
#include "model/plan.h"

#include <string.h>
#include <strings.h>

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

/* Logits and samplers. One sequence is a session with a row of logits, whose draws touch little of the sampler. */
static bool answers_bytes(const sl_config *c, int n_batch, uint64_t *bytes) {
    uint64_t row = (uint64_t)c->n_vocab * sizeof(float), sampler = (uint64_t)c->n_vocab * SL_PLAN_SAMPLER, logits;
    if (n_batch == 1) {
        *bytes = row;
        return true;
    }
    return sl_mul_u64(row, (uint64_t)n_batch + SL_PLAN_SPARE_ROWS, &logits) &&
           sl_mul_u64(sampler, (uint64_t)n_batch, &sampler) && sl_add_u64(logits, sampler, bytes);
}

static sllm_status plan_bytes(const sl_plan_subject *s, const sl_footprint *f, sl_kv_type kv_type, sllm_plan *plan,
                              sllm_error *error) {
    const sl_config *c = s->config;
    uint64_t one = sl_kv_bytes(c, plan->n_ctx, kv_type), answers;
    plan->weights_bytes = f->weights_bytes;
    plan->work_bytes = sl_work_bytes(c, s->n_threads, s->exact);
    plan->vocabulary_bytes = sl_plan_vocabulary_bytes(c->n_vocab);
    plan->program_bytes = sl_plan_program_bytes();
    bool fits = sl_mul_u64(one, (uint64_t)plan->n_batch, &plan->kv_bytes) &&
                answers_bytes(c, plan->n_batch, &answers) &&
                sl_add_u64(plan->work_bytes, answers, &plan->work_bytes) && !f->overflow;
    const uint64_t parts[] = {plan->weights_bytes, plan->kv_bytes, plan->work_bytes, plan->vocabulary_bytes,
                              plan->program_bytes};
    for (size_t i = 0; i < sizeof parts / sizeof *parts && fits; i++)
        fits = sl_add_u64(plan->total_bytes, parts[i], &plan->total_bytes);
    if (fits) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d sequences of %d positions take more bytes than can be counted",
                   plan->n_batch, plan->n_ctx);
}

static void plan_speed(const sl_plan_subject *s, const sl_footprint *f, sl_kv_type kv_type, const sllm_machine_speed *speed,
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

sllm_status sl_plan_make(const sl_plan_subject *s, const sllm_plan_params *p, sllm_plan *plan, sllm_error *error) {
    sl_kv_type kv_type;
    sl_footprint f;
    sllm_plan made;
    bool narrow = p->type ? strcasecmp(p->type, "f32") != 0 : !only_f32(&s->tensors);
    sllm_status status = choose_sizes(s->config, p, &made, error);
    if (!status) status = sl_kv_type_choose(s->config, p->kv_type, s->exact, !narrow, &kv_type, error);
    if (!status && p->type) status = sl_plan_weights(s->config, p->type, s->exact, &f, error);
    else if (!status) sl_plan_tensors(&s->tensors, s->config, s->exact, &f);
    if (!status) status = plan_bytes(s, &f, kv_type, &made, error);
    if (status) return status;
    plan_speed(s, &f, kv_type, p->speed, &made);
    *plan = made;
    return SLLM_OK;
}

sllm_status sl_plan_file(const char *path, const sllm_plan_params *p, sllm_plan *plan, sllm_error *error) {
    sl_arena arena = {0};
    sl_gguf *gguf = NULL;
    sl_checkpoint *checkpoint = NULL;
    sl_config config = {0};
    sllm_status status;
    if (sl_path_is_directory(path)) {
        status = sl_checkpoint_open(path, false, &checkpoint, error);
        if (!status) status = sl_config_from_json(checkpoint->config, &arena, &config, error);
    } else {
        status = sl_gguf_open(path, &gguf, error);
        if (!status) status = sl_config_from_gguf(gguf, &arena, &config, error);
    }
    sl_tensors tensors = {.gguf = gguf, .safetensors = checkpoint ? checkpoint->weights : NULL};
    if (!status && checkpoint && sl_packed_config(checkpoint)) { /* types are known once joined */
        sl_tensor *list;
        status = sl_packed_tensors(checkpoint, NULL, &arena, &list, &tensors.n, error);
        tensors.list = list;
    }
    if (!status) {
        sl_plan_subject s = {&config, tensors, p->exact, p->n_threads};
        if (!s.n_threads) s.n_threads = sl_cpu_count();
        status = sl_plan_make(&s, p, plan, error);
    }
    sl_checkpoint_close(checkpoint);
    sl_gguf_close(gguf);
    sl_arena_free(&arena);
    return status;
}
