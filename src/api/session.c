/* Sessions: argument checks, then one call into infer/session.h. */
#include "api/handles.h"
#include "base/error.h"
#include "infer/session.h"

sllm_status sllm_session_new(sllm_model *model, const sllm_session_params *params, sllm_session **session,
                             sllm_error *error) {
    if (!session) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_session_new: session is NULL");
    *session = NULL;
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_session_new: model is NULL");
    const sllm_session_params defaults = {0};
    if (!params) params = &defaults;
    return sl_session_new(sl_model_of(model), params->n_ctx, params->kv_type, session, error);
}

void sllm_session_free(sllm_session *session) { sl_session_free(session); }

static sllm_status check(const sllm_session *session, const int32_t *ids, size_t n, const char *function,
                         sllm_error *error) {
    if (!session) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: session is NULL", function);
    if (!ids && n > 0) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: ids is NULL", function);
    return SLLM_OK;
}

static sllm_status check_some(const sllm_session *session, const int32_t *ids, size_t n, const char *function,
                              sllm_error *error) {
    sllm_status status = check(session, ids, n, function, error);
    if (!status && n == 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: there are no ids; at least one is needed", function);
    return status;
}

sllm_status sllm_session_sync(sllm_session *session, const int32_t *ids, size_t n, size_t *n_reused,
                              sllm_error *error) {
    size_t reused = 0;
    if (n_reused) *n_reused = 0;
    sllm_status status = check_some(session, ids, n, __func__, error);
    if (!status) status = sl_session_sync(session, ids, n, (sl_cancel){0}, &reused, error);
    if (!status && n_reused) *n_reused = reused;
    return status;
}

sllm_status sllm_session_append(sllm_session *session, const int32_t *ids, size_t n, sllm_error *error) {
    sllm_status status = check(session, ids, n, __func__, error);
    return status ? status : sl_session_append(session, ids, n, (sl_cancel){0}, error);
}

sllm_status sllm_session_truncate(sllm_session *session, size_t n, sllm_error *error) {
    sllm_status status = check(session, NULL, 0, __func__, error);
    if (status) return status;
    if (n > sl_session_length(session))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_session_truncate: n is %zu but the session holds %zu tokens",
                       n, sl_session_length(session));
    sl_session_truncate(session, n);
    return SLLM_OK;
}

size_t sllm_session_length(const sllm_session *session) { return session ? sl_session_length(session) : 0; }
size_t sllm_session_capacity(const sllm_session *session) { return session ? sl_session_capacity(session) : 0; }
const int32_t *sllm_session_ids(const sllm_session *session) { return session ? sl_kv_ids(session->kv) : NULL; }
const float *sllm_session_logits(const sllm_session *session) { return session ? sl_session_logits(session) : NULL; }

sllm_status sllm_session_all_logits(sllm_session *session, const int32_t *ids, size_t n, float *logits,
                                    sllm_error *error) {
    sllm_status status = check_some(session, ids, n, __func__, error);
    if (!status && !logits) status = sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_session_all_logits: logits is NULL");
    return status ? status : sl_session_all_logits(session, ids, n, logits, error);
}
