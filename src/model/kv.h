/* The inside of a KV cache, for the forward pass. */
#ifndef SL_MODEL_KV_H
#define SL_MODEL_KV_H

#include "model/model.h"

/* Keys and values lie [layer][kv head][position][head_dim], so that one head's keys are one run of memory. */
struct sl_kv {
    sl_kv_type type;
    int n_ctx, length;
    int64_t regime;   /* rotary regime the keys were computed in (rope.h) */
    int32_t *ids;     /* [n_ctx] */
    unsigned char *k, *v;
    size_t row_bytes; /* one position of one head */
    size_t head_bytes, layer_bytes;
};

static inline unsigned char *sl_kv_at(unsigned char *base, const sl_kv *kv, int layer, int head, int position) {
    return base + (size_t)layer * kv->layer_bytes + (size_t)head * kv->head_bytes + (size_t)position * kv->row_bytes;
}

/* How a model keeps keys and values: f32 in exact arithmetic and where no weight is narrower, f16 otherwise. */
sl_kv_type sl_kv_type_for(bool exact, bool only_f32_weights);

#endif
