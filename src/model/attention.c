/* Attention: q, k and v of a chunk are brought into place (head norms, rotary embedding, cache), then every query of
 * every head looks at the keys it may see. A query's result depends on its position only, never on which other tokens
 * are computed with it. */
#include "model/families.h"
#include "model/forward.h"
#include "model/rope.h"

#include <math.h>

enum { TILE = 16 }; /* queries of one head that one thread takes at once */

/* Where a row of the q/k/v product holds head h (k and v: key/value head g), in floats. */
typedef struct places {
    size_t row, q_group, q_head, k, v, kv_group;
    int heads_a_group;
} places;

static places places_of(const sl_config *c) {
    size_t d = (size_t)c->head_dim, heads = (size_t)c->n_heads, kv = (size_t)c->n_kv_heads, r = heads / kv;
    places p = {.row = (heads + 2 * kv) * d, .q_head = d, .heads_a_group = (int)r};
    if (c->family->qkv == SL_FUSED_GROUPED) {
        p.q_group = p.kv_group = (r + 2) * d;
        p.k = r * d;
        p.v = (r + 1) * d;
    } else {
        p.q_group = r * d;
        p.kv_group = d;
        p.k = heads * d;
        p.v = (heads + kv) * d;
    }
    return p;
}

static float *q_of(const places *p, float *row, int h) {
    return row + (size_t)(h / p->heads_a_group) * p->q_group + (size_t)(h % p->heads_a_group) * p->q_head;
}

/* Llama 4's scaling of queries by position, which Ministral 3 uses. */
static float temperature(const sl_config *c, int position) {
    return 1 + c->temperature_scale * logf(1 + floorf((float)position / (float)c->temperature_ctx));
}

static void rotate_token(const sl_run *run, int t, int thread) {
    const sl_config *c = run->config;
    const sl_block *block = run->block;
    sl_kv *kv = run->kv;
    places p = places_of(c);
    int half = c->rope_dim / 2, d = c->head_dim, position = run->first + t, layer = run->op->layer;
    float *row = run->work->qkv + (size_t)t * p.row;
    const float *angles = run->layer->rope
                              ? run->work->angles[run->layer->local_rope] + (size_t)t * (size_t)c->rope_dim : NULL;
    (void)thread;
    for (int h = 0; h < c->n_heads; h++) {
        float *q = q_of(&p, row, h);
        if (block->q_norm) sl_rms_norm(q, q, block->q_norm, d, c->norm_eps);
        if (angles) sl_rope_rotate(q, angles, half, c->rope_interleaved);
        if (c->temperature_scale > 0) sl_scale(q, temperature(c, position), d);
    }
    for (int g = 0; g < c->n_kv_heads; g++) {
        float *k = row + p.k + (size_t)g * p.kv_group, *v = row + p.v + (size_t)g * p.kv_group;
        if (block->k_norm) sl_rms_norm(k, k, block->k_norm, d, c->norm_eps);
        if (angles) sl_rope_rotate(k, angles, half, c->rope_interleaved);
        sl_kv_store(kv->type, sl_kv_at(kv->k, kv, layer, g, position), k, d);
        sl_kv_store(kv->type, sl_kv_at(kv->v, kv, layer, g, position), v, d);
    }
}

void sl_run_rotate(sl_run *run) { sl_run_tokens(run, rotate_token); }

/* ---------------------------------------------------------------- the keys a query sees */

/* Keys [from, to). */
static void attend_range(const sl_run *run, const float *q, int g, int from, int to, float *scores) {
    const sl_config *c = run->config;
    sl_kv *kv = run->kv;
    float scale = c->scale_by_layer ? c->attention_scale / (float)(run->op->layer + 1) : c->attention_scale;
    sl_kv_scores(kv->type, scores, q, sl_kv_at(kv->k, kv, run->op->layer, g, from), kv->row_bytes, to - from,
                 c->head_dim, scale);
}

static void attend_dense(const sl_run *run, const float *q, int g, int position, float *scores, float *out) {
    const sl_config *c = run->config;
    sl_kv *kv = run->kv;
    int window = run->layer->window, from = window && position >= window ? position - window + 1 : 0;
    int64_t n = position + 1 - from;
    attend_range(run, q, g, from, position + 1, scores);
    if (c->attention_softcap > 0) sl_softcap(scores, c->attention_softcap, n);
    sl_softmax(scores, n);
    sl_kv_mix(kv->type, out, scores, sl_kv_at(kv->v, kv, run->op->layer, g, from), kv->row_bytes, n, c->head_dim);
}

/* The next run of allowed key blocks for head h, from block *block on; false when there is none up to the query's own.
 * Phi-3-small: the last `local` blocks, and every stride-th block of the past, shifted from head to head. */
static bool next_blocks(const sl_config *c, int h, int own, int *block, int *end) {
    int64_t step = c->sparse_homo ? 0 : c->sparse_stride / c->n_heads > 1 ? c->sparse_stride / c->n_heads : 1;
    int64_t shift = h * step + 1;
    int b = *block;
    while (b <= own && own - b >= c->sparse_local && (b + shift) % c->sparse_stride) b++;
    if (b > own) return false;
    *block = b;
    while (b <= own && (own - b < c->sparse_local || (b + shift) % c->sparse_stride == 0)) b++;
    *end = b;
    return true;
}

static void attend_sparse(const sl_run *run, const float *q, int h, int g, int position, float *scores, float *partial,
                          float *out) {
    const sl_config *c = run->config;
    sl_kv *kv = run->kv;
    int size = c->sparse_block, own = position / size, end;
    int64_t n = 0;
    for (int b = 0; next_blocks(c, h, own, &b, &end); b = end) {
        int from = b * size, to = end > own ? position + 1 : end * size;
        attend_range(run, q, g, from, to, scores + n);
        n += to - from;
    }
    sl_softmax(scores, n);
    n = 0;
    for (int b = 0; next_blocks(c, h, own, &b, &end); b = end) {
        int from = b * size, to = end > own ? position + 1 : end * size;
        float *sum = n ? partial : out;
        sl_kv_mix(kv->type, sum, scores + n, sl_kv_at(kv->v, kv, run->op->layer, g, from), kv->row_bytes, to - from,
                  c->head_dim);
        if (n) sl_add(out, partial, c->head_dim);
        n += to - from;
    }
}

static void attend_tile(void *user, int64_t item, int thread) {
    const sl_run *run = user;
    const sl_config *c = run->config;
    sl_work *work = run->work;
    places p = places_of(c);
    int h = (int)(item % c->n_heads), first = (int)(item / c->n_heads) * TILE, g = h / p.heads_a_group;
    int end = first + TILE < run->n ? first + TILE : run->n;
    float *scores = work->scores + (size_t)thread * (size_t)work->n_ctx;
    float *partial = work->mix + (size_t)thread * (size_t)c->head_dim;
    size_t width = (size_t)c->n_heads * (size_t)c->head_dim;
    for (int t = first; t < end; t++) {
        const float *q = q_of(&p, work->qkv + (size_t)t * p.row, h);
        float *out = work->y + (size_t)t * width + (size_t)h * (size_t)c->head_dim;
        if (run->layer->block_sparse) attend_sparse(run, q, h, g, run->first + t, scores, partial, out);
        else attend_dense(run, q, g, run->first + t, scores, out);
    }
}

void sl_run_attend(sl_run *run) {
    int64_t tiles = (run->n + TILE - 1) / TILE;
    sl_pool_run(run->model->pool, tiles * run->config->n_heads, attend_tile, run);
}
