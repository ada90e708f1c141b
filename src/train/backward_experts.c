/* The gradient of routed experts and of the shared one. Hidden values are computed again, by the products that the forward used. */
#include "train/backward_int.h"

#include "model/families.h"
#include "model/forward.h"

#include <math.h>
#include <string.h>

typedef struct routing {
    sl_backward *b;
    int used, experts;
    float *p;        /* [n, experts] probabilities */
    float *dz;       /* [n, experts] gradient of the router's logits */
    int32_t *ids;    /* [n, used] */
    float *weights;  /* [n, used] */
    float *d_weights; /* [n, used] */
} routing;

static routing routing_of(sl_backward *b) {
    const sl_config *c = &b->model->config;
    size_t routes = (size_t)b->n_rows * (size_t)c->n_experts_used;
    float *rows = b->route_weights + 3 * routes;
    return (routing){b, c->n_experts_used, c->n_experts, rows, rows + (size_t)b->n_rows * (size_t)c->n_experts, b->routes, b->route_weights,
                     b->route_weights + routes};
}

/* As the forward chooses (experts.c). */
static void choose(const routing *r, int t) {
    const sl_config *c = &r->b->model->config;
    const float *p = r->p + (size_t)t * (size_t)r->experts;
    int32_t *ids = r->ids + (size_t)t * (size_t)r->used;
    float *weights = r->weights + (size_t)t * (size_t)r->used, sum = 0;
    for (int i = 0; i < r->used; i++) {
        ids[i] = sl_best_left(p, r->experts, ids, i);
        weights[i] = p[ids[i]];
        sum += weights[i];
    }
    for (int i = 0; c->experts_renormalise && i < r->used; i++) weights[i] /= sum;
}

/* Gradients of the weights to those of the router's logits: through the division by their sum, and the softmax. */
static void through_router(const routing *r, int t) {
    const sl_config *c = &r->b->model->config;
    const float *p = r->p + (size_t)t * (size_t)r->experts, *dw = r->d_weights + (size_t)t * (size_t)r->used;
    const float *w = r->weights + (size_t)t * (size_t)r->used;
    const int32_t *ids = r->ids + (size_t)t * (size_t)r->used;
    float *dz = r->dz + (size_t)t * (size_t)r->experts, sum = 0, dot = 0, inner = 0;
    memset(dz, 0, (size_t)r->experts * sizeof *dz);
    for (int i = 0; i < r->used; i++) sum += p[ids[i]], dot += dw[i] * w[i];
    for (int i = 0; i < r->used; i++) dz[ids[i]] = c->experts_renormalise ? (dw[i] - dot) / sum : dw[i];
    for (int e = 0; e < r->experts; e++) inner += dz[e] * p[e];
    for (int e = 0; e < r->experts; e++) dz[e] = p[e] * (dz[e] - inner);
}

/* One expert, for the tokens that chose it. */
static void one_expert(const routing *r, int e, const float *dx) {
    sl_backward *b = r->b;
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd, ff = (size_t)c->n_ff_expert;
    float *in = b->gather, *out = in + (size_t)b->n_rows * embd, *d = out + (size_t)b->n_rows * embd;
    int32_t *rows = b->routes + 2 * (size_t)b->n_rows * (size_t)r->used, *routes = rows + (size_t)b->n_rows * (size_t)r->used;
    int n = 0;
    for (int t = 0; t < b->n; t++)
        for (int i = 0; i < r->used; i++)
            if (r->ids[t * r->used + i] == e) rows[n] = t, routes[n++] = t * r->used + i;
    if (!n) return;
    for (int i = 0; i < n; i++) {
        memcpy(in + (size_t)i * embd, b->y + (size_t)rows[i] * embd, embd * sizeof *in);
        b->keys[b->n_rows + i] = b->keys[rows[i]];
    }
    b->products.keys = b->keys + b->n_rows;
    sl_backward_forward(b, SL_SLOT_EXPERT_GATE, e, n, in, embd, b->hidden, 2 * ff);
    sl_backward_forward(b, SL_SLOT_EXPERT_UP, e, n, in, embd, b->hidden + ff, 2 * ff);
    memset(b->dh, 0, (size_t)n * ff * sizeof *b->dh);
    sl_backward_activation(b, n, c->n_ff_expert);
    sl_backward_forward(b, SL_SLOT_EXPERT_DOWN, e, n, b->h, ff, out, embd);
    for (int i = 0; i < n; i++) {
        const float *row = dx + (size_t)rows[i] * embd;
        float dot = 0, weight = r->weights[routes[i]];
        for (size_t k = 0; k < embd; k++) {
            dot += row[k] * out[(size_t)i * embd + k];
            d[(size_t)i * embd + k] = weight * row[k];
        }
        r->d_weights[routes[i]] = dot;
    }
    sl_backward_product(b, SL_SLOT_EXPERT_DOWN, e, n, b->h, ff, out, embd, d, embd, b->dh, ff);
    sl_backward_activation(b, n, c->n_ff_expert);
    memset(d, 0, (size_t)n * embd * sizeof *d);
    sl_backward_product(b, SL_SLOT_EXPERT_GATE, e, n, in, embd, b->hidden, 2 * ff, b->d_hidden, 2 * ff, d, embd);
    sl_backward_product(b, SL_SLOT_EXPERT_UP, e, n, in, embd, b->hidden + ff, 2 * ff, b->d_hidden + ff, 2 * ff, d, embd);
    for (int i = 0; i < n; i++) sl_add(b->dy + (size_t)rows[i] * embd, d + (size_t)i * embd, c->n_embd);
    b->products.keys = b->keys;
}

/* x += sigmoid(w . y) * shared(y) */
static void shared_expert(sl_backward *b, const float *dx) {
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd, ff = (size_t)c->n_ff_shared;
    float *out = b->gather, *d = out + (size_t)b->n_rows * embd;
    const float *w = b->block->shared_router;
    sl_backward_forward(b, SL_SLOT_SHARED_GATE, 0, b->n, b->y, embd, b->hidden, 2 * ff);
    sl_backward_forward(b, SL_SLOT_SHARED_UP, 0, b->n, b->y, embd, b->hidden + ff, 2 * ff);
    memset(b->dh, 0, (size_t)b->n * ff * sizeof *b->dh);
    sl_backward_activation(b, b->n, c->n_ff_shared);
    sl_backward_forward(b, SL_SLOT_SHARED_DOWN, 0, b->n, b->h, ff, out, embd);
    for (int t = 0; t < b->n; t++) {
        const float *y = b->y + (size_t)t * embd, *row = dx + (size_t)t * embd;
        float *dy = b->dy + (size_t)t * embd, dot = 0, dg = 0;
        for (size_t k = 0; k < embd; k++) dot += w[k] * y[k], dg += row[k] * out[(size_t)t * embd + k];
        float g = 1 / (1 + expf(-dot));
        for (size_t k = 0; k < embd; k++) {
            d[(size_t)t * embd + k] = g * row[k];
            dy[k] += dg * g * (1 - g) * w[k];
        }
    }
    sl_backward_product(b, SL_SLOT_SHARED_DOWN, 0, b->n, b->h, ff, out, embd, d, embd, b->dh, ff);
    sl_backward_activation(b, b->n, c->n_ff_shared);
    sl_backward_product(b, SL_SLOT_SHARED_GATE, 0, b->n, b->y, embd, b->hidden, 2 * ff, b->d_hidden, 2 * ff, b->dy, embd);
    sl_backward_product(b, SL_SLOT_SHARED_UP, 0, b->n, b->y, embd, b->hidden + ff, 2 * ff, b->d_hidden + ff, 2 * ff, b->dy, embd);
}

void sl_backward_experts(sl_backward *b, const float *dx) {
    const sl_config *c = &b->model->config;
    routing r = routing_of(b);
    const sl_product_place router = {.slot = SL_SLOT_ROUTER, .layer = b->layer, .w = b->block->router.w, .bias = b->block->router.bias};
    sl_act act = {.x = b->y, .stride = (size_t)c->n_embd, .n_tokens = b->n, .n = c->n_embd};
    sl_matmul(b->model->pool, SL_EXACT, &router.w, -1, &act, router.bias, r.p, (size_t)c->n_experts);
    for (int t = 0; t < b->n; t++) {
        sl_softmax(r.p + (size_t)t * (size_t)c->n_experts, c->n_experts);
        choose(&r, t);
    }
    for (int e = 0; e < c->n_experts; e++) one_expert(&r, e, dx);
    for (int t = 0; t < b->n; t++) through_router(&r, t);
    sl_product_backward(&b->products, &router, NULL, NULL, b->n, NULL, 0, NULL, 0, r.dz, (size_t)c->n_experts, b->dy, (size_t)c->n_embd);
    if (b->block->shared_router) shared_expert(b, dx);
}
