#include "infer/session.h"

#include "base/error.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

sllm_status sl_session_new(const sl_model *model, int n_ctx, sllm_kv_type kv_type, sl_session **session,
                           sllm_error *error) {
    *session = NULL;
    int trained = model->config.n_ctx_train;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "%s: loaded without weights (vocab_only), so it cannot run a session", model->path);
    if (n_ctx < 0 || n_ctx > trained)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_ctx is %d: %s was trained for contexts of 1 to %d tokens (0: %d)",
                       n_ctx, model->path, trained, trained < 4096 ? trained : 4096);
    if (n_ctx == 0) n_ctx = trained < 4096 ? trained : 4096;
    sl_kv_type type;
    sllm_status status =
        sl_kv_type_choose(&model->config, kv_type, model->exact, model->weights->only_f32, &type, error);
    if (status) return status;
    sl_session *s = calloc(1, sizeof *s);
    if (!s) return sl_fail_memory(error, "making a session", sizeof *s);
    s->model = model;
    size_t bytes = (size_t)model->config.n_vocab * sizeof *s->logits;
    s->logits = malloc(bytes);
    status = s->logits ? SLLM_OK : sl_fail_memory(error, "making a session's logits", bytes);
    if (!status) status = sl_kv_pool_new(model, type, (n_ctx + SL_PAGE - 1) / SL_PAGE, &s->pool, error);
    if (!status) status = sl_kv_new(s->pool, n_ctx, &s->kv, error);
    if (!status) status = sl_work_new(model, &s->work, error);
    if (status) {
        sl_session_free(s);
        return status;
    }
    *session = s;
    return SLLM_OK;
}

void sl_session_free(sl_session *session) {
    if (!session) return;
    sl_kv_free(session->kv);
    sl_kv_pool_free(session->pool);
    sl_work_free(session->work);
    free(session->logits);
    free(session);
}

size_t sl_session_length(const sl_session *session) { return (size_t)sl_kv_length(session->kv); }
size_t sl_session_capacity(const sl_session *session) { return (size_t)sl_kv_capacity(session->kv); }
const float *sl_session_logits(const sl_session *session) { return session->has_logits ? session->logits : NULL; }

/* Would ids [n] behind `length` positions fit, and are they tokens? */
static sllm_status check_ids(const sl_session *s, size_t length, const int32_t *ids, size_t n, sllm_error *error) {
    size_t capacity = sl_session_capacity(s);
    if (n > capacity - length)
        return sl_fail(error, SLLM_ERROR_CONTEXT,
                       "%zu tokens after %zu do not fit the context of %zu: shorten the text or enlarge the context",
                       n, length, capacity);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->model->config.n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "token %zu is %d: the vocabulary is [0, %d)", i, ids[i],
                           s->model->config.n_vocab);
    return SLLM_OK;
}

/* ids [n >= 1] after what the session holds; both checked. logits: s->logits or [n, n_vocab]. */
static sllm_status compute(sl_session *s, const int32_t *ids, size_t n, bool all, float *logits, sl_cancel cancel,
                           sllm_error *error) {
    sl_forward_params params = {
        .logits = logits, .all_logits = all, .is_cancelled = cancel.is_cancelled, .user = cancel.user};
    s->has_logits = false;
    size_t length = sl_session_length(s);
    bool survives = sl_kv_survives(s->kv, &s->model->config, (int)(length + n)); /* or all is computed again */
    sllm_status status = sl_forward(s->model, s->work, s->kv, ids, (int)n, &params, error);
    if (!status || status == SLLM_ERROR_CANCELLED) s->rows += sl_session_length(s) - (survives ? length : 0);
    return status;
}

sllm_status sl_session_append(sl_session *s, const int32_t *ids, size_t n, sl_cancel cancel, sllm_error *error) {
    sllm_status status = check_ids(s, sl_session_length(s), ids, n, error);
    if (status || n == 0) return status;
    status = compute(s, ids, n, false, s->logits, cancel, error);
    s->has_logits = !status;
    return status;
}

sllm_status sl_session_sync(sl_session *s, const int32_t *ids, size_t n, sl_cancel cancel, size_t *n_reused,
                            sllm_error *error) {
    *n_reused = 0;
    sllm_status status = check_ids(s, 0, ids, n, error);
    if (status) return status;
    const int32_t *held = sl_kv_ids(s->kv);
    size_t length = sl_session_length(s), common = 0;
    while (common < n && common < length && held[common] == ids[common]) common++;
    if (common == n && length == n && s->has_logits) {
        *n_reused = n;
        return SLLM_OK;
    }
    if (common == n) common--; /* the last position again, for its logits */
    sl_session_truncate(s, common);
    if (sl_kv_survives(s->kv, &s->model->config, (int)n)) *n_reused = common;
    return sl_session_append(s, ids + common, n - common, cancel, error);
}

sllm_status sl_session_rows(sl_session *s, size_t keep, const int32_t *ids, size_t n, float *logits, sl_cancel cancel,
                            sllm_error *error) {
    sllm_status status = check_ids(s, keep, ids, n, error);
    if (status) return status;
    sl_session_truncate(s, keep);
    return compute(s, ids, n, true, logits, cancel, error);
}

void sl_session_truncate(sl_session *s, size_t n) {
    if (n >= sl_session_length(s)) return;
    sl_kv_truncate(s->kv, (int)n);
    s->has_logits = false;
}

sllm_status sl_session_all_logits(sl_session *s, const int32_t *ids, size_t n, float *logits, sllm_error *error) {
    sllm_status status = check_ids(s, 0, ids, n, error);
    if (status) return status;
    sl_session_truncate(s, 0);
    status = compute(s, ids, n, true, logits, (sl_cancel){0}, error);
    if (status) return status;
    size_t n_vocab = (size_t)s->model->config.n_vocab;
    memcpy(s->logits, logits + (n - 1) * n_vocab, n_vocab * sizeof *logits);
    s->has_logits = true;
    return SLLM_OK;
}
