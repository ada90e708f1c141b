#include "infer/prefix.h"

size_t sl_prefix_common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b) {
    size_t most = n_a < n_b ? n_a : n_b, n = 0;
    while (n < most && a[n] == b[n]) n++;
    return n;
}

static void drop(sl_prefix_cache *cache, int at) {
    sl_kv_free(cache->entries[at].kv);
    cache->entries[at] = cache->entries[--cache->n];
}

void sl_prefix_clear(sl_prefix_cache *cache) {
    while (cache->n > 0) drop(cache, cache->n - 1);
}

static size_t common_with(const sl_kv *kv, const int32_t *ids, size_t n) {
    return sl_prefix_common(sl_kv_ids(kv), (size_t)sl_kv_length(kv), ids, n);
}

void sl_prefix_add(sl_prefix_cache *cache, sl_kv *kv) {
    const int32_t *ids = sl_kv_ids(kv);
    size_t n = (size_t)sl_kv_length(kv);
    for (int i = cache->n - 1; i >= 0; i--) {
        const sl_kv *other = cache->entries[i].kv;
        if (common_with(other, ids, n) == (size_t)sl_kv_length(other)) drop(cache, i);
    }
    if (cache->n == SL_PREFIX_MOST) sl_prefix_evict(cache);
    cache->entries[cache->n++] = (struct sl_prefix_entry){kv, ++cache->uses};
}

const sl_kv *sl_prefix_find(sl_prefix_cache *cache, const int32_t *ids, size_t n, size_t *length) {
    struct sl_prefix_entry *best = NULL;
    *length = 0;
    for (int i = 0; i < cache->n; i++) {
        size_t common = common_with(cache->entries[i].kv, ids, n);
        if (common > *length) *length = common, best = &cache->entries[i];
    }
    if (!best) return NULL;
    best->used = ++cache->uses;
    return best->kv;
}

bool sl_prefix_evict(sl_prefix_cache *cache) {
    int oldest = 0;
    if (cache->n == 0) return false;
    for (int i = 1; i < cache->n; i++)
        if (cache->entries[i].used < cache->entries[oldest].used) oldest = i;
    drop(cache, oldest);
    return true;
}

int sl_prefix_yield(const sl_prefix_cache *cache) {
    const sl_kv *all[SL_PREFIX_MOST];
    for (int i = 0; i < cache->n; i++) all[i] = cache->entries[i].kv;
    return sl_kv_pages_held(all, cache->n);
}
