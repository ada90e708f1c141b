/* Samplers: argument checks, then one call into infer/sampler.h. */
#include "api/handles.h"
#include "base/error.h"
#include "infer/sampler.h"

void sllm_sampler_params_init(sllm_sampler_params *params) {
    if (!params) return;
    *params = (sllm_sampler_params){.temperature = 0.7f, .top_p = 0.9f, .typical_p = 1, .repetition_penalty = 1,
                                    .penalty_last_n = 64, .dry_base = 1.75f, .dry_allowed_length = 2, .dry_last_n = -1};
}

sllm_status sllm_sampler_params_check(const sllm_sampler_params *params, int n_vocab, sllm_error *error) {
    if (!params) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_params_check: params is NULL");
    return sl_sampler_check(params, n_vocab, error);
}

sllm_status sllm_sampler_new(const sllm_model *model, const sllm_sampler_params *params, sllm_sampler **sampler,
                             sllm_error *error) {
    if (!sampler) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_new: sampler is NULL");
    *sampler = NULL;
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_new: model is NULL");
    sllm_sampler_params defaults;
    sllm_sampler_params_init(&defaults);
    const sl_model *m = sl_model_of_const(model);
    if (m->config.n_vocab <= 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_new: %s is a vocabulary without a model", m->path);
    return sl_sampler_new(m->tokenizer, m->config.n_vocab, params ? params : &defaults, sampler, error);
}

void sllm_sampler_free(sllm_sampler *sampler) { sl_sampler_free(sampler); }

sllm_status sllm_sampler_draw(sllm_sampler *sampler, const float *logits, const int32_t *history, size_t n_history,
                              int32_t *id, sllm_error *error) {
    if (!id) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_draw: id is NULL");
    *id = 0;
    if (!sampler || !logits || (!history && n_history > 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_sampler_draw: %s is NULL",
                       !sampler ? "sampler" : !logits ? "logits" : "history");
    for (size_t i = 0; i < n_history; i++)
        if (history[i] < 0 || history[i] >= sampler->n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT,
                           "sllm_sampler_draw: history[%zu] is %d: the vocabulary is [0, %d)", i, history[i],
                           sampler->n_vocab);
    return sl_sampler_draw(sampler, logits, NULL, history, n_history, id, error);
}
