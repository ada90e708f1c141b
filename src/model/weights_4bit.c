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
    uint64_t offset = 0;
    float *x = malloc((size_t)j->columns * sizeof *x);
    (void)thread;
    if (!x) {
        j->failed = true; /* any thread may say so; it is read when all are done */
        return;
    }
    sl_type_bytes(j->from->type, (uint64_t)(row * j->columns), &offset);
    sl_type_get(j->from->type)->to_float((const uint8_t *)j->from->data + offset, x, (size_t)j->columns);
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

static sllm_status quantise(sl_tensor *w, sl_type type, sl_pool *pool, bool nested, sl_arena *arena, sllm_error *error) {
    int64_t columns = w->n_dims ? w->shape[w->n_dims - 1] : 0;
    uint64_t bytes = 0;
    if (!w->data || columns % BLOCK || !sl_type_get(w->type)->is_float || sl_type_get(w->type)->is_quantised) return SLLM_OK;
    if (!sl_type_bytes(type, w->n_elements, &bytes) || bytes > SIZE_MAX) return sl_fail_memory(error, w->name, 0);
    job j = {.from = w, .type = type, .to = sl_arena_alloc(arena, (size_t)bytes), .columns = columns};
    if (!j.to) return sl_fail_memory(error, w->name, (size_t)bytes);
    sl_pool_run(pool, (int64_t)(w->n_elements / (uint64_t)columns), quantise_row, &j);
    if (j.failed || (nested && !nest(j.to, (size_t)(w->n_elements / BLOCK)))) return sl_fail_memory(error, w->name, 0);
    w->data = j.to;
    w->type = type;
    w->bytes = bytes;
    return SLLM_OK;
}

sllm_status sl_weights_to_4bit(sl_weights *weights, const sl_config *config, sl_type type, sl_pool *pool, bool nested,
                               sl_arena *arena, sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (int i = 0; i < config->n_layers && !status; i++) {
        sl_block *b = &weights->blocks[i];
        sl_linear *const linears[] = {&b->qkv[0], &b->qkv[1], &b->qkv[2], &b->attn_out, &b->gate, &b->up, &b->down,
                                      &b->shared_gate, &b->shared_up, &b->shared_down};
        sl_expert_matrices *const experts[] = {&b->expert_gate, &b->expert_up, &b->expert_down};
        for (size_t k = 0; k < sizeof linears / sizeof *linears && !status; k++)
            status = quantise(&linears[k]->w, type, pool, nested, arena, error);
        for (size_t k = 0; k < 3; k++)
            for (int e = 0; experts[k]->w && e < (experts[k]->stacked ? 1 : config->n_experts) && !status; e++)
                status = quantise(&experts[k]->w[e], type, pool, nested, arena, error);
    }
    weights->only_f32 = false;
    return status;
}
