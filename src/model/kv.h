/* The inside of a KV pool and its timelines, for the forward pass. */
#ifndef SL_MODEL_KV_H
#define SL_MODEL_KV_H

#include "model/model.h"

/* Page i begins at memory + i * page_bytes and holds [layer][K, V][kv head] tiles (tensor/ops.h) of SL_PAGE positions.
 * The memory is reserved at once and touched as pages are used; the page given back last is taken first. */
struct sl_kv_pool {
    const sl_model *model;
    sl_kv_type type;
    int n_pages, n_free;
    int32_t *refs;   /* [n_pages] timelines that hold the page; 0: free */
    int32_t *free;   /* [n_pages] stack of free pages, n_free of them */
    unsigned char *memory;
    size_t key_bytes, value_bytes; /* a tile */
    size_t layer_bytes, page_bytes;
};

/* Between forwards a timeline holds exactly the pages of its `length` positions. */
struct sl_kv {
    sl_kv_pool *pool;
    int n_ctx, length, n_pages;
    int target;      /* length after the forward under way; 0: none */
    const sl_adapters *adapters; /* what it is computed with; NULL: the model alone */
    uint64_t key;    /* of its first token, for dropout (adapter.h); trainers set it */
    int64_t regime;  /* rotary regime the keys were computed in (rope.h) */
    int32_t *ids;    /* [n_ctx] */
    int32_t *pages;  /* [n_ctx / SL_PAGE, rounded up] */
};

static inline unsigned char *sl_kv_keys(const sl_kv *kv, int layer, int head, int page) {
    const sl_kv_pool *pool = kv->pool;
    return pool->memory + (size_t)kv->pages[page] * pool->page_bytes + (size_t)layer * pool->layer_bytes +
           (size_t)head * pool->key_bytes;
}
static inline unsigned char *sl_kv_values(const sl_kv *kv, int layer, int head, int page) {
    const sl_kv_pool *pool = kv->pool;
    size_t keys = (size_t)pool->model->config.n_kv_heads * pool->key_bytes;
    return pool->memory + (size_t)kv->pages[page] * pool->page_bytes + (size_t)layer * pool->layer_bytes + keys +
           (size_t)head * pool->value_bytes;
}

/* Takes the pages that n more positions need, so that writing them changes no other timeline: a page that is shared is
 * copied, or, when `anew` says that positions from 0 on will be written again, replaced. False, and nothing has
 * changed, when the pool has too few (sl_kv_pages_needed). */
bool sl_kv_reserve(sl_kv *kv, int n, bool anew);
/* Gives back what lies beyond `length`. */
void sl_kv_trim(sl_kv *kv);

#endif
