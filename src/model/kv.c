#include "model/kv.h"

#include "base/checked.h"
#include "base/error.h"
#include "model/families.h"
#include "model/rope.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int pages_of(int n) { return n / SL_PAGE + (n % SL_PAGE != 0); }

/* ---------------------------------------------------------------- the type */

sllm_status sl_kv_type_choose(const sl_config *config, sllm_kv_type asked, bool exact, bool only_f32_weights,
                              sl_kv_type *type, sllm_error *error) {
    if (asked < SLLM_KV_AUTO || asked > SLLM_KV_Q4_0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "KV cache type %d: the types are auto, f32, f16, q8_0 and q4_0",
                       (int)asked);
    if (asked == SLLM_KV_AUTO) *type = exact || only_f32_weights ? SL_KV_F32 : SL_KV_F16;
    else *type = (sl_kv_type)(asked - SLLM_KV_F32);
    if (!sl_kv_type_holds(*type, config->head_dim))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "KV cache type %s: needs heads whose size %d divides, and this "
                       "model's are of %d; use f16 or f32", sl_kv_type_name(*type), SL_KV_GROUP, config->head_dim);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the pool */

/* Sizes of a page; false when they cannot be counted. */
static bool size_pages(const sl_config *c, sl_kv_pool *pool) {
    uint64_t heads = (uint64_t)c->n_kv_heads, bytes;
    pool->key_bytes = sl_kv_tile_bytes(pool->type, c->head_dim, false);
    pool->value_bytes = sl_kv_tile_bytes(pool->type, c->head_dim, true);
    if (!sl_mul_u64(heads, pool->key_bytes + pool->value_bytes, &bytes)) return false;
    pool->layer_bytes = (size_t)bytes;
    if (!sl_mul_u64(bytes, (uint64_t)c->n_layers, &bytes) || bytes > SIZE_MAX) return false;
    pool->page_bytes = (size_t)bytes;
    return true;
}

uint64_t sl_kv_pool_bytes(const sl_config *config, sl_kv_type type, int n_pages) {
    sl_kv_pool pool = {.type = type};
    uint64_t bytes, rest = sizeof pool + (uint64_t)n_pages * (sizeof *pool.refs + sizeof *pool.free);
    if (!size_pages(config, &pool) || !sl_mul_u64(pool.page_bytes, (uint64_t)n_pages, &bytes)) return UINT64_MAX;
    return sl_add_u64(bytes, rest, &bytes) ? bytes : UINT64_MAX;
}

static uint64_t timeline_bytes(int n_ctx) {
    return sizeof(sl_kv) + ((uint64_t)n_ctx + (uint64_t)pages_of(n_ctx)) * sizeof(int32_t);
}

uint64_t sl_kv_bytes(const sl_config *config, int n_ctx, sl_kv_type type) {
    uint64_t bytes = sl_kv_pool_bytes(config, type, pages_of(n_ctx));
    return sl_add_u64(bytes, timeline_bytes(n_ctx), &bytes) ? bytes : UINT64_MAX;
}

/* Huge pages where there is much: reading keys touches a new small page every few hundred multiply-adds. */
static void *reserve(uint64_t bytes) {
    enum { HUGE_PAGE = 1 << 21 };
    void *memory = NULL;
    bool huge = bytes >= 2 * HUGE_PAGE;
    if (posix_memalign(&memory, huge ? HUGE_PAGE : 64, (size_t)bytes)) return NULL;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(memory, (size_t)bytes, MADV_HUGEPAGE); /* a refusal changes nothing */
#endif
    return memory;
}

sllm_status sl_kv_pool_new(const sl_model *model, sl_kv_type type, int n_pages, sl_kv_pool **pool, sllm_error *error) {
    const sl_config *c = &model->config;
    *pool = NULL;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights and cannot compute");
    if (n_pages < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d pages of the KV cache; need at least 1", n_pages);
    if (!sl_kv_type_holds(type, c->head_dim)) /* says why */
        return sl_kv_type_choose(c, (sllm_kv_type)(type + SLLM_KV_F32), false, false, &type, error);
    uint64_t bytes = sl_kv_pool_bytes(c, type, n_pages);
    sl_kv_pool *new = bytes < SIZE_MAX ? calloc(1, sizeof *new) : NULL;
    if (!new) return sl_fail_memory(error, "the KV cache", (size_t)bytes);
    *new = (sl_kv_pool){.model = model, .type = type, .n_pages = n_pages, .n_free = n_pages};
    size_pages(c, new);
    new->refs = calloc((size_t)n_pages, sizeof *new->refs);
    new->free = malloc((size_t)n_pages * sizeof *new->free);
    new->memory = new->refs && new->free ? reserve((uint64_t)n_pages * new->page_bytes) : NULL;
    if (!new->memory) {
        sl_kv_pool_free(new);
        return sl_fail_memory(error, "the KV cache", (size_t)bytes);
    }
    for (int i = 0; i < n_pages; i++) new->free[i] = n_pages - 1 - i;
    *pool = new;
    return SLLM_OK;
}

void sl_kv_pool_free(sl_kv_pool *pool) {
    if (!pool) return;
    free(pool->refs);
    free(pool->free);
    free(pool->memory);
    free(pool);
}

int sl_kv_pool_unused(const sl_kv_pool *pool) { return pool->n_free; }

static int32_t take_page(sl_kv_pool *pool) {
    int32_t page = pool->free[--pool->n_free];
    pool->refs[page] = 1;
    return page;
}

static void give_page(sl_kv_pool *pool, int32_t page) {
    if (--pool->refs[page] == 0) pool->free[pool->n_free++] = page;
}

static void copy_page(sl_kv_pool *pool, int32_t to, int32_t from) {
    memcpy(pool->memory + (size_t)to * pool->page_bytes, pool->memory + (size_t)from * pool->page_bytes,
           pool->page_bytes);
}

/* ---------------------------------------------------------------- a timeline */

sllm_status sl_kv_new(sl_kv_pool *pool, int n_ctx, sl_kv **kv, sllm_error *error) {
    const sl_config *c = &pool->model->config;
    *kv = NULL;
    if (n_ctx < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a context of %d positions; need at least 1", n_ctx);
    if (!c->family->rope && n_ctx > c->n_ctx_train)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %d positions, but the model has learned only %d", n_ctx,
                       c->n_ctx_train);
    sl_kv *new = calloc(1, sizeof *new);
    if (!new) return sl_fail_memory(error, "a timeline", sizeof *new);
    *new = (sl_kv){.pool = pool, .n_ctx = n_ctx, .adapters = pool->model->adapters};
    new->ids = malloc((size_t)n_ctx * sizeof *new->ids);
    new->pages = malloc((size_t)pages_of(n_ctx) * sizeof *new->pages);
    if (!new->ids || !new->pages) {
        sl_kv_free(new);
        return sl_fail_memory(error, "a timeline", (size_t)timeline_bytes(n_ctx));
    }
    *kv = new;
    return SLLM_OK;
}

void sl_kv_free(sl_kv *kv) {
    if (!kv) return;
    sl_kv_truncate(kv, 0);
    free(kv->ids);
    free(kv->pages);
    free(kv);
}

int sl_kv_length(const sl_kv *kv) { return kv->length; }
int sl_kv_capacity(const sl_kv *kv) { return kv->n_ctx; }
const int32_t *sl_kv_ids(const sl_kv *kv) { return kv->ids; }

bool sl_kv_survives(const sl_kv *kv, const sl_config *config, int n) {
    return sl_rope_regime(config, n) == kv->regime;
}

void sl_kv_trim(sl_kv *kv) {
    int keep = pages_of(kv->length);
    while (kv->n_pages > keep) give_page(kv->pool, kv->pages[--kv->n_pages]);
}

void sl_kv_truncate(sl_kv *kv, int n) {
    if (n >= 0 && n < kv->length) kv->length = n;
    sl_kv_trim(kv);
}

sllm_status sl_kv_fork(const sl_kv *from, int n, sl_kv *to, sllm_error *error) {
    sl_kv_pool *pool = from->pool;
    if (to->pool != pool || to->length || n < 0 || n > from->length)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "forking %d of %d positions into a timeline of %d%s", n,
                       from->length, to->length, to->pool == pool ? "" : " of another pool");
    if (to->adapters != from->adapters)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a timeline cannot begin with what other adapters computed");
    if (n > to->n_ctx)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "%d positions do not fit the context of %d", n, to->n_ctx);
    int whole = n / SL_PAGE, part = n % SL_PAGE;
    if (part && !pool->n_free)
        return sl_fail(error, SLLM_ERROR_MEMORY, "all %d pages of the KV cache are in use", pool->n_pages);
    for (int i = 0; i < whole; i++) {
        to->pages[i] = from->pages[i];
        pool->refs[to->pages[i]]++;
    }
    if (part) {
        to->pages[whole] = take_page(pool);
        copy_page(pool, to->pages[whole], from->pages[whole]);
    }
    memcpy(to->ids, from->ids, (size_t)n * sizeof *to->ids);
    to->n_pages = whole + (part > 0);
    to->length = n;
    to->regime = from->regime;
    return SLLM_OK;
}

/* Is page i to be written by positions from `length` on (all of them when `anew`), and held by another too? */
static bool must_replace(const sl_kv *kv, int i, bool anew) {
    return kv->pool->refs[kv->pages[i]] > 1 && (anew || (i == kv->length / SL_PAGE && kv->length % SL_PAGE));
}

static int needed(const sl_kv *kv, int n, bool anew) {
    int pages = pages_of(kv->length + n) - kv->n_pages;
    if (pages < 0) pages = 0;
    for (int i = 0; i < kv->n_pages; i++) pages += must_replace(kv, i, anew);
    return pages;
}

int sl_kv_pages_needed(const sl_kv *kv, int n) {
    return needed(kv, n, !sl_kv_survives(kv, &kv->pool->model->config, kv->length + n));
}

int sl_kv_pages_held(const sl_kv *const *timelines, int n) {
    int pages = 0;
    for (int i = 0; i < n; i++) /* lets go, counts what nobody holds then, and takes hold again */
        for (int k = 0; k < timelines[i]->n_pages; k++)
            pages += --timelines[i]->pool->refs[timelines[i]->pages[k]] == 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < timelines[i]->n_pages; k++) timelines[i]->pool->refs[timelines[i]->pages[k]]++;
    return pages;
}

bool sl_kv_reserve(sl_kv *kv, int n, bool anew) {
    sl_kv_pool *pool = kv->pool;
    if (needed(kv, n, anew) > pool->n_free) return false;
    for (int i = 0; i < kv->n_pages; i++) {
        if (!must_replace(kv, i, anew)) continue;
        int32_t shared = kv->pages[i];
        kv->pages[i] = take_page(pool);
        if (!anew) copy_page(pool, kv->pages[i], shared);
        give_page(pool, shared);
    }
    int pages = pages_of(kv->length + n);
    while (kv->n_pages < pages) kv->pages[kv->n_pages++] = take_page(pool);
    return true;
}
