/* A session: one timeline of tokens with its keys, values and the logits of its last position. It owns the reuse of
 * what was computed: a caller says what the timeline shall hold, and only what differs is computed. */
#ifndef SL_INFER_SESSION_H
#define SL_INFER_SESSION_H

#include "model/model.h"
#include "sllm.h"

/* The public sllm_session is this struct; one thread at a time. */
typedef struct sllm_session sl_session;
struct sllm_session {
    const sl_model *model;
    sl_kv_pool *pool; /* of this session alone */
    sl_kv *kv;
    sl_work *work;
    float *logits; /* [n_vocab] of the last position, when has_logits */
    bool has_logits;
    size_t rows;   /* computed so far, those computed again included */
};

/* May a forward pass be cut short? Asked between chunks; either may be NULL. */
typedef struct sl_cancel {
    bool (*is_cancelled)(void *user);
    void *user;
} sl_cancel;

/* n_ctx 0: min(4096, n_ctx_train). SLLM_ERROR_ARGUMENT when it is negative or more than the model was trained for, when
 * the model was loaded without weights, or when its heads cannot be kept as kv_type. The model must outlive the
 * session. */
sllm_status sl_session_new(const sl_model *model, int n_ctx, sllm_kv_type kv_type, sl_session **session,
                           sllm_error *error);
void sl_session_free(sl_session *session);

/* See the functions of the same name in include/sllm.h. Ids outside the vocabulary are SLLM_ERROR_ARGUMENT and too many
 * SLLM_ERROR_CONTEXT before anything changes. After SLLM_ERROR_CANCELLED, or another failure of the forward, the
 * session holds what was computed, without logits. */
sllm_status sl_session_sync(sl_session *session, const int32_t *ids, size_t n, sl_cancel cancel, size_t *n_reused,
                            sllm_error *error);
sllm_status sl_session_append(sl_session *session, const int32_t *ids, size_t n, sl_cancel cancel, sllm_error *error);
/* Keeps the first `keep` positions, appends ids [n >= 1] and gives the logits of each: logits [n, n_vocab]. The session
 * has none of its own then. */
sllm_status sl_session_rows(sl_session *session, size_t keep, const int32_t *ids, size_t n, float *logits,
                            sl_cancel cancel, sllm_error *error);
void sl_session_truncate(sl_session *session, size_t n); /* n <= length */
sllm_status sl_session_all_logits(sl_session *session, const int32_t *ids, size_t n, float *logits, sllm_error *error);

size_t sl_session_length(const sl_session *session);
size_t sl_session_capacity(const sl_session *session);
const float *sl_session_logits(const sl_session *session); /* NULL: none */

#endif
