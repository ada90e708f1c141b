/* Mixture of experts (Shazeer et al. 2017, arXiv 1701.06538; Mixtral, arXiv 2401.04088): each token goes to its few
 * most probable experts. An expert is computed for the tokens that chose it, all at once; a token's sum runs over its
 * experts in the order of their numbers, so that it does not depend on the other tokens. */
#include "model/forward.h"

#include <math.h>
#include <string.h>

int sl_best_left(const float *p, int n, const int32_t *chosen, int n_chosen) {
    int best = -1;
    for (int e = 0; e < n; e++) {
        bool taken = false;
        for (int i = 0; i < n_chosen; i++) taken |= chosen[i] == e;
        if (!taken && (best < 0 || p[e] > p[best] || (isnan(p[best]) && !isnan(p[e])))) best = e;
    }
    return best;
}

static void route_token(const sl_run *run, int t, int thread) {
    const sl_config *c = run->config;
    int used = c->n_experts_used;
    float *p = run->work->router + (size_t)t * (size_t)c->n_experts;
    int32_t *ids = run->work->route_ids + (size_t)t * (size_t)used;
    float *weights = run->work->route_weights + (size_t)t * (size_t)used, sum = 0;
    (void)thread;
    sl_softmax(p, c->n_experts);
    for (int i = 0; i < used; i++) {
        ids[i] = sl_best_left(p, c->n_experts, ids, i);
        weights[i] = p[ids[i]];
        sum += weights[i];
    }
    for (int i = 0; c->experts_renormalise && i < used; i++) weights[i] /= sum;
}

void sl_run_route(sl_run *run) {
    const sl_config *c = run->config;
    sl_act act = sl_run_activations(run, run->work->y, run->n, c->n_embd, (size_t)c->n_embd, false);
    /* in f32 whatever the arithmetic: a rounded router could choose other experts */
    sl_matmul(run->model->pool, SL_EXACT, &run->block->router.w, -1, &act, run->block->router.bias, run->work->router,
              (size_t)c->n_experts);
    sl_run_tokens(run, route_token);
}

/* The tokens that chose expert e, into rows; which of their routes it was, into routes. */
static int tokens_of(const sl_run *run, int e, int32_t *rows, int32_t *routes) {
    int used = run->config->n_experts_used, n = 0;
    for (int t = 0; t < run->n; t++)
        for (int i = 0; i < used; i++)
            if (run->work->route_ids[t * used + i] == e) {
                rows[n] = t;
                routes[n++] = t * used + i;
            }
    return n;
}

static const sl_tensor *matrix_of(const sl_expert_matrices *m, int e, int64_t *index) {
    *index = m->stacked ? e : -1;
    return m->stacked ? m->w : &m->w[e];
}

static void product(sl_run *run, const sl_expert_matrices *m, int e, const sl_act *act, float *out, size_t stride) {
    int64_t index;
    const sl_tensor *w = matrix_of(m, e, &index);
    sl_matmul(run->model->pool, run->arithmetic, w, index, act, NULL, out, stride);
}

static bool rounds(const sl_run *run, const sl_expert_matrices *m, int e) {
    int64_t index;
    return sl_run_rounds(run, matrix_of(m, e, &index));
}

static void run_expert(sl_run *run, int e, int n, const int32_t *rows, const int32_t *routes) {
    const sl_config *c = run->config;
    const sl_block *b = run->block;
    sl_work *work = run->work;
    size_t width = (size_t)c->n_embd, ff = (size_t)c->n_ff_expert;
    float *in = work->gather, *out = work->gather + (size_t)work->chunk * width;
    for (int i = 0; i < n; i++) memcpy(in + (size_t)i * width, work->y + (size_t)rows[i] * width, width * sizeof *in);
    sl_run_observe(run, SL_SLOT_EXPERT_UP, e, in, n, c->n_embd, width);
    bool any = rounds(run, &b->expert_gate, e) || rounds(run, &b->expert_up, e);
    sl_act act = sl_run_activations(run, in, n, c->n_embd, width, any);
    product(run, &b->expert_gate, e, &act, work->hidden, 2 * ff);
    product(run, &b->expert_up, e, &act, work->hidden + ff, 2 * ff);
    sl_run_adapt(run, SL_SLOT_EXPERT_GATE, e, rows, n, in, width, NULL, work->hidden, 2 * ff);
    sl_run_adapt(run, SL_SLOT_EXPERT_UP, e, rows, n, in, width, NULL, work->hidden + ff, 2 * ff);
    sl_run_activate(run, n, c->n_ff_expert);
    sl_run_observe(run, SL_SLOT_EXPERT_DOWN, e, work->hidden, n, c->n_ff_expert, 2 * ff);
    act = sl_run_activations(run, work->hidden, n, c->n_ff_expert, 2 * ff, rounds(run, &b->expert_down, e));
    product(run, &b->expert_down, e, &act, out, width);
    sl_run_adapt(run, SL_SLOT_EXPERT_DOWN, e, rows, n, work->hidden, 2 * ff, NULL, out, width);
    for (int i = 0; i < n; i++) {
        float *sum = work->delta + (size_t)rows[i] * width, weight = work->route_weights[routes[i]];
        for (size_t j = 0; j < width; j++) sum[j] += weight * out[(size_t)i * width + j];
    }
}

void sl_run_experts(sl_run *run) {
    sl_work *work = run->work;
    size_t n = (size_t)run->n * (size_t)run->config->n_embd;
    int32_t *rows = work->route_rows, *routes = rows + work->chunk;
    memset(work->delta, 0, n * sizeof *work->delta);
    for (int e = 0; e < run->config->n_experts; e++) {
        int chose = tokens_of(run, e, rows, routes);
        if (chose) run_expert(run, e, chose, rows, routes);
    }
    sl_add(work->x, work->delta, (int64_t)n);
}

/* Qwen's shared expert: every token's, weighted by the sigmoid of a gate of its own. */
static void join_shared(const sl_run *run, int t, int thread) {
    size_t width = (size_t)run->config->n_embd;
    const float *y = run->work->y + (size_t)t * width;
    float *x = run->work->x + (size_t)t * width, *delta = run->work->delta + (size_t)t * width;
    float dot = 0;
    (void)thread;
    for (size_t j = 0; j < width; j++) dot += run->block->shared_router[j] * y[j];
    sl_scale(delta, 1 / (1 + expf(-dot)), (int64_t)width);
    sl_add(x, delta, (int64_t)width);
}

void sl_run_shared(sl_run *run) {
    const sl_config *c = run->config;
    const sl_block *b = run->block;
    sl_work *work = run->work;
    sl_pool *pool = run->model->pool;
    size_t ff = (size_t)c->n_ff_shared;
    sl_run_observe(run, SL_SLOT_SHARED_UP, -1, work->y, run->n, c->n_embd, (size_t)c->n_embd);
    bool any = sl_run_rounds(run, &b->shared_gate.w) || sl_run_rounds(run, &b->shared_up.w);
    sl_act act = sl_run_activations(run, work->y, run->n, c->n_embd, (size_t)c->n_embd, any);
    sl_matmul(pool, run->arithmetic, &b->shared_gate.w, -1, &act, NULL, work->hidden, 2 * ff);
    sl_matmul(pool, run->arithmetic, &b->shared_up.w, -1, &act, NULL, work->hidden + ff, 2 * ff);
    sl_run_adapt(run, SL_SLOT_SHARED_GATE, 0, NULL, run->n, act.x, act.stride, NULL, work->hidden, 2 * ff);
    sl_run_adapt(run, SL_SLOT_SHARED_UP, 0, NULL, run->n, act.x, act.stride, NULL, work->hidden + ff, 2 * ff);
    sl_run_activate(run, run->n, c->n_ff_shared);
    sl_run_observe(run, SL_SLOT_SHARED_DOWN, -1, work->hidden, run->n, c->n_ff_shared, 2 * ff);
    act = sl_run_activations(run, work->hidden, run->n, c->n_ff_shared, 2 * ff, sl_run_rounds(run, &b->shared_down.w));
    sl_matmul(pool, run->arithmetic, &b->shared_down.w, -1, &act, NULL, work->delta, (size_t)c->n_embd);
    sl_run_adapt(run, SL_SLOT_SHARED_DOWN, 0, NULL, run->n, act.x, act.stride, NULL, work->delta, (size_t)c->n_embd);
    sl_run_tokens(run, join_shared);
}
