/* A model quantised to NF4 or FP4 while it is loaded. */
#include "base/error.h"
#include "model/weights.h"
#include "tensor/bnb.h"
#include "tensor/codes.h"
#include "tensor/quantise.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 };

typedef struct job {
    const sl_tensor *from;
    sl_type type;
    uint8_t *to;
    int64_t columns;
    bool failed;
} job;

static void quantise_row(void *user, int64_t row, int thread) {
    job *j = user;
    float *x = malloc((size_t)j->columns * sizeof *x);
    (void)thread;
    if (!x) {
        j->failed = true; /* any thread may say so; it is read when all are done */
        return;
    }
    sl_tensor_read(j->from, (uint64_t)(row * j->columns), (size_t)j->columns, x);
    sl_quantise_rows(j->type, x, 1, j->columns, NULL, j->to + (size_t)(row * (j->columns / BLOCK)) * sl_type_get(j->type)->bytes);
    free(x);
}

/* The largest values of all blocks through eight bits and back. */
static bool nest(uint8_t *blocks, size_t n) {
    float map[256], offset, *tops = malloc(n * sizeof *tops);
    float *nested = malloc((n + SL_BNB_NESTED - 1) / SL_BNB_NESTED * sizeof *nested);
    uint8_t *codes = malloc(n);
    size_t bytes = sl_type_get(SL_NF4)->bytes; /* FP4's too */
    bool fits = tops && nested && codes;
    sl_bnb8_map(map);
    for (size_t i = 0; fits && i < n; i++) tops[i] = sl_load_f32(blocks + i * bytes);
    fits = fits && sl_bnb_nest(map, tops, n, codes, nested, &offset);
    if (fits) sl_bnb_unnest(map, codes, nested, offset, n, tops);
    for (size_t i = 0; fits && i < n; i++) memcpy(blocks + i * bytes, &tops[i], sizeof *tops);
    free(tops);
    free(nested);
    free(codes);
    return fits;
}

/* What the visits to the matrices share. */
typedef struct visit {
    sl_type type;
    sl_pool *pool;
    bool nested;
    sl_arena *arena;
    sllm_error *error;
    sllm_status status;
} visit;

static bool quantise(void *user, int layer, sl_tensor *w) {
    visit *v = user;
    int64_t columns = w->n_dims ? w->shape[w->n_dims - 1] : 0;
    uint64_t bytes = 0;
    (void)layer;
    if (columns % BLOCK || !sl_type_get(w->type)->is_float || sl_type_get(w->type)->is_quantised) return true;
    job j = {.from = w, .type = v->type, .columns = columns};
    bool fits = sl_type_bytes(v->type, w->n_elements, &bytes) && bytes <= SIZE_MAX && (j.to = sl_arena_alloc(v->arena, (size_t)bytes));
    if (fits) sl_pool_run(v->pool, (int64_t)(w->n_elements / (uint64_t)columns), quantise_row, &j);
    if (!fits || j.failed || (v->nested && !nest(j.to, (size_t)(w->n_elements / BLOCK)))) {
        v->status = sl_fail_memory(v->error, w->name, (size_t)bytes);
        return false;
    }
    w->data = j.to;
    w->type = v->type;
    w->bytes = bytes;
    return true;
}

sllm_status sl_weights_to_4bit(sl_weights *weights, const sl_config *config, sl_type type, sl_pool *pool, bool nested,
                               sl_arena *arena, sllm_error *error) {
    visit v = {type, pool, nested, arena, error, SLLM_OK};
    sl_weights_each(weights, config, quantise, &v);
    weights->only_f32 = false;
    return v.status;
}
