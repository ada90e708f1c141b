/* The prefix cache: timelines of answers that are over, kept so that a prompt that begins as one of them need not be
 * computed from its start. A timeline in here is never written again; its pages are shared with those made from it, and
 * come back to the pool when the last of them lets go. */
#ifndef SL_INFER_PREFIX_H
#define SL_INFER_PREFIX_H

#include "model/model.h"

enum { SL_PREFIX_MOST = 256 }; /* timelines, so that looking through them stays cheap beside a forward */

typedef struct sl_prefix_cache {
    struct sl_prefix_entry {
        sl_kv *kv;
        uint64_t used; /* time of the last use, in uses */
    } entries[SL_PREFIX_MOST];
    int n;
    uint64_t uses;
} sl_prefix_cache;

void sl_prefix_clear(sl_prefix_cache *cache);
/* Takes kv over. Timelines that it begins with go: it serves for them. */
void sl_prefix_add(sl_prefix_cache *cache, sl_kv *kv);
/* The timeline that shares the most tokens with ids [n], *length of them; NULL when none shares one. Borrowed until the
 * cache changes. */
const sl_kv *sl_prefix_find(sl_prefix_cache *cache, const int32_t *ids, size_t n, size_t *length);
/* Frees the timeline that was not used for the longest time. False: there is none. */
bool sl_prefix_evict(sl_prefix_cache *cache);
/* Pages that come back to the pool when all is evicted. */
int sl_prefix_yield(const sl_prefix_cache *cache);

/* Tokens that two lists begin with alike. */
size_t sl_prefix_common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b);

#endif
