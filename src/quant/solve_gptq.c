/* The matrices of one input by GPTQ: the order of columns, the factor, the groups. */
#include "base/error.h"
#include "quant/solve_int.h"

#include <stdlib.h>

typedef struct column { float size; int32_t at; } column;

static int by_size(const void *a, const void *b) {
    const column *x = a, *y = b;
    return x->size != y->size ? (x->size < y->size ? 1 : -1) : (x->at > y->at) - (x->at < y->at);
}

/* Columns by falling diagonal; NULL: out of memory. The caller frees. */
static int32_t *order_of(const sl_gram *g) {
    column *columns = malloc((size_t)g->n * sizeof *columns);
    int32_t *order = malloc((size_t)g->n * sizeof *order);
    for (int64_t i = 0; columns && order && i < g->n; i++) columns[i] = (column){g->h[i * g->n + i], (int32_t)i};
    if (columns && order) qsort(columns, (size_t)g->n, sizeof *columns, by_size);
    for (int64_t i = 0; columns && order && i < g->n; i++) order[i] = columns[i].at;
    if (!columns) {
        free(order);
        order = NULL;
    }
    free(columns);
    return order;
}

/* The group of each column where groups were formed in another order. */
static bool note_groups(sl_solved *out, const int32_t *order, int64_t n) {
    if (!order || out->target.type != SL_TYPE_COUNT) return true;
    out->group_of = malloc((size_t)n * sizeof *out->group_of);
    for (int64_t i = 0; out->group_of && i < n; i++) out->group_of[order[i]] = (int32_t)(i / out->target.grid.group);
    return out->group_of != NULL;
}

static bool has_solver(const sl_solve_matrix *m) {
    return m->out.target.type == SL_TYPE_COUNT || sl_gptq_can_write(m->out.target.type);
}

/* Every matrix that meets these inputs, by GPTQ. */
sllm_status sl_solve_gptq(sl_solve *s, sl_solve_meeting *meets, sllm_error *error) {
    sl_gram *g = &meets->gram;
    size_t n = (size_t)g->n;
    int32_t *order = s->params.act_order ? order_of(g) : NULL;
    float *importance = malloc(n * sizeof *importance), *scratch = order ? malloc(n * n * sizeof *scratch) : NULL;
    sllm_status status = SLLM_OK;
    if (!importance || (s->params.act_order && (!order || !scratch))) status = sl_fail_memory(error, "the order of columns", 0);
    for (size_t i = 0; i < n && !status; i++) importance[i] = g->h[i * n + i] / (float)(g->count > 0 ? g->count : 1);
    sl_gram_mirror(g);
    bool solved = !status && g->count > 0 && sl_gram_factor(g, s->blas, SL_SOLVE_DAMP, order, scratch);
    sl_gptq gptq = {.blas = s->blas, .factor = g->h, .order = order, .importance = importance, .n = g->n};
    for (int i = 0; i < s->n_matrices && !status; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        if (m->meets != meets->slot || m->expert != meets->expert || !m->out.rows) continue;
        bool by_gptq = solved && has_solver(m);
        *(by_gptq ? &s->counts.solved : !has_solver(m) ? &s->counts.plain : g->count > 0 ? &s->counts.singular : &s->counts.unreached) += 1;
        if (by_gptq && !note_groups(&m->out, order, g->n)) status = sl_fail_memory(error, "the groups of columns", 0);
        if (!status) status = sl_solve_one(s, m, by_gptq ? &gptq : NULL, g->count > 0 ? importance : NULL, error);
        if (!status) status = sl_solve_exchange(s, m, error);
    }
    free(scratch);
    free(order);
    free(importance);
    return status;
}
