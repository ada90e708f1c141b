/* Generation: argument checks, then one call into infer/. */
#include "api/handles.h"
#include "base/error.h"
#include "infer/generate.h"
#include "infer/infill.h"
#include "infer/speculate.h"

const char *sllm_finish_name(sllm_finish finish) {
    switch (finish) {
    case SLLM_FINISH_STOP: return "stop";
    case SLLM_FINISH_LENGTH: return "length";
    case SLLM_FINISH_CANCELLED: return "cancelled";
    }
    return "unknown";
}

void sllm_generate_params_init(sllm_generate_params *params) {
    if (!params) return;
    *params = (sllm_generate_params){.max_new_tokens = 200, .n_logprobs = -1};
    sllm_sampler_params_init(&params->sampler);
}

sllm_status sllm_draft_check(const sllm_model *model, const sllm_model *draft, sllm_error *error) {
    if (!model || !draft)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_draft_check: %s is NULL", model ? "draft" : "model");
    return sl_speculate_check(sl_model_of_const(model), sl_model_of_const(draft), error);
}

sllm_status sllm_generate(sllm_session *session, const int32_t *ids, size_t n, const sllm_generate_params *params,
                          sllm_generation *out, sllm_error *error) {
    if (!out) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_generate: out is NULL");
    *out = (sllm_generation){.choice = -1};
    if (!session) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_generate: session is NULL");
    if (!ids && n > 0) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_generate: ids is NULL");
    if (n == 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_generate: the prompt is empty; it needs at least one token");
    sllm_generate_params defaults;
    sllm_generate_params_init(&defaults);
    return sl_generate(session, ids, n, params ? params : &defaults, out, error);
}

void sllm_generation_free(sllm_generation *generation) {
    if (generation) sl_generation_free(generation);
}

sllm_status sllm_infill_tokens(const sllm_model *model, const char *prefix, size_t prefix_length, const char *suffix,
                               size_t suffix_length, sllm_tokens *tokens, sllm_error *error) {
    if (!tokens) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_infill_tokens: tokens is NULL");
    *tokens = (sllm_tokens){0};
    if (!model || (!prefix && prefix_length > 0) || (!suffix && suffix_length > 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_infill_tokens: %s is NULL",
                       !model ? "model" : !prefix ? "prefix" : "suffix");
    const sl_tokenizer *tokenizer = sl_model_of_const(model)->tokenizer;
    if (!tokenizer)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: no tokenizer comes with this model",
                       sl_model_of_const(model)->path);
    sl_ids ids = {0};
    sllm_status status = sl_infill_encode(tokenizer, prefix ? prefix : "", prefix_length, suffix ? suffix : "",
                                          suffix_length, &ids, error);
    *tokens = (sllm_tokens){ids.data, ids.length};
    if (status) sllm_tokens_free(tokens);
    return status;
}
