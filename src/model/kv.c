#include "model/kv.h"

#include "base/checked.h"
#include "base/error.h"
#include "model/families.h"
#include "model/rope.h"
#include "model/weights.h"

#include <stdlib.h>

sl_kv_type sl_kv_type_for(bool exact, bool only_f32_weights) {
    return exact || only_f32_weights ? SL_KV_F32 : SL_KV_F16;
}

/* Bytes of keys, or of values, alone; UINT64_MAX when they cannot be counted. */
static uint64_t half_bytes(const sl_config *config, int n_ctx, sl_kv_type type) {
    uint64_t bytes = (uint64_t)config->n_layers * (uint64_t)config->n_kv_heads; /* bounded by sl_config_check */
    if (!sl_mul_u64(bytes, (uint64_t)config->head_dim * sl_kv_type_bytes(type), &bytes)) return UINT64_MAX;
    if (!sl_mul_u64(bytes, (uint64_t)n_ctx, &bytes)) return UINT64_MAX;
    return bytes;
}

uint64_t sl_kv_bytes(const sl_config *config, int n_ctx, sl_kv_type type) {
    uint64_t bytes = half_bytes(config, n_ctx, type);
    uint64_t rest = sizeof(sl_kv) + (uint64_t)n_ctx * sizeof(int32_t);
    return sl_mul_u64(bytes, 2, &bytes) && sl_add_u64(bytes, rest, &bytes) ? bytes : UINT64_MAX;
}

sllm_status sl_kv_new(const sl_model *model, int n_ctx, sl_kv **kv, sllm_error *error) {
    const sl_config *c = &model->config;
    *kv = NULL;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights and cannot compute");
    if (n_ctx < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a context of %d positions; need at least 1", n_ctx);
    if (!c->family->rope && n_ctx > c->n_ctx_train)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %d positions, but the model has learned only %d", n_ctx,
                       c->n_ctx_train);
    sl_kv_type type = sl_kv_type_for(model->exact, model->weights->only_f32);
    uint64_t bytes = sl_kv_bytes(c, n_ctx, type), half = half_bytes(c, n_ctx, type);
    sl_kv *new = bytes < SIZE_MAX ? calloc(1, sizeof *new) : NULL;
    if (!new) return sl_fail_memory(error, "the KV cache", (size_t)bytes);
    *new = (sl_kv){.type = type, .n_ctx = n_ctx};
    new->row_bytes = (size_t)c->head_dim * sl_kv_type_bytes(type);
    new->head_bytes = (size_t)n_ctx * new->row_bytes;
    new->layer_bytes = (size_t)c->n_kv_heads * new->head_bytes;
    new->ids = malloc((size_t)n_ctx * sizeof *new->ids);
    new->k = malloc((size_t)half); /* pages are touched as the timeline grows */
    new->v = malloc((size_t)half);
    if (!new->ids || !new->k || !new->v) {
        sl_kv_free(new);
        return sl_fail_memory(error, "the KV cache", (size_t)bytes);
    }
    *kv = new;
    return SLLM_OK;
}

void sl_kv_free(sl_kv *kv) {
    if (!kv) return;
    free(kv->ids);
    free(kv->k);
    free(kv->v);
    free(kv);
}

int sl_kv_length(const sl_kv *kv) { return kv->length; }
int sl_kv_capacity(const sl_kv *kv) { return kv->n_ctx; }
const int32_t *sl_kv_ids(const sl_kv *kv) { return kv->ids; }

bool sl_kv_survives(const sl_kv *kv, const sl_config *config, int n) {
    return sl_rope_regime(config, n) == kv->regime;
}

void sl_kv_truncate(sl_kv *kv, int n) {
    if (n >= 0 && n < kv->length) kv->length = n;
}
