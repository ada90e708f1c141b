/* The gradient of attention, tile by tile: 64 queries against 64 keys, whose weights are computed again from q and k; no matrix of all
 * queries by all keys exists. One key/value head of one sequence, with those that begin with it, is one task. */
#include "train/gradients.h"

#include "model/forward.h"
#include "model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = SL_PAGE };

typedef struct attention {
    const sl_model *model;
    const sl_blas *blas;
    const sl_block *block;
    const sl_layer_config *how;
    const sl_sequence *sequences;
    int n_sequences;
    const int *roots;   /* [n_roots] sequences without a prefix */
    const float *qkv, *out, *d_out;
    float *d_qkv;
    sl_places places;
    float scale;
    int longest;        /* positions, prefix included */
    float *angles;   /* [n_roots, longest, rope_dim]: cos and sin; NULL: no rotation */
    float *scratch;  /* [threads, scratch_floats] */
    size_t scratch_floats;
} attention;

/* One task's memory. */
typedef struct head {
    const attention *a;
    const sl_sequence *s, *root; /* the sequence at hand, and the one that its prefix is */
    const float *angles; /* [length, rope_dim] */
    int g;
    float *k, *v, *dk, *dv;          /* [longest, d] */
    float *q, *dq, *d_out;           /* [TILE, d] */
    float *p, *dp;                   /* [TILE, TILE] */
    float top[TILE], sum[TILE], dot[TILE];
} head;

static size_t floats_of(int longest, int d) { return 4 * (size_t)longest * (size_t)d + 3 * TILE * (size_t)d + 2 * TILE * TILE; }

/* ---------------------------------------------------------------- rows into place, and back */

static void place_row(const head *h, float *row, const float *raw, const float *norm, int position) {
    const sl_config *c = &h->a->model->config;
    if (norm) sl_rms_norm(row, raw, norm, c->head_dim, c->norm_eps);
    else memcpy(row, raw, (size_t)c->head_dim * sizeof *row);
    if (h->angles) sl_rope_rotate(row, h->angles + (size_t)position * (size_t)c->rope_dim, c->rope_dim / 2, c->rope_interleaved);
}

/* The transpose of sl_rope_rotate: the other way round. */
static void rotate_back(float *d, const float *angles, int half, bool interleaved) {
    for (int j = 0; j < half; j++) {
        float *x = &d[interleaved ? 2 * j : j], *y = &d[interleaved ? 2 * j + 1 : j + half], a = *x, b = *y;
        *x = a * angles[j] + b * angles[half + j];
        *y = b * angles[j] - a * angles[half + j];
    }
}

/* d: the gradient of the placed row, which it spoils; the raw row's into out. */
static void unplace_row(const head *h, float *d, const float *raw, const float *norm, int position, float *out) {
    const sl_config *c = &h->a->model->config;
    if (h->angles) rotate_back(d, h->angles + (size_t)position * (size_t)c->rope_dim, c->rope_dim / 2, c->rope_interleaved);
    if (!norm) {
        memcpy(out, d, (size_t)c->head_dim * sizeof *d);
        return;
    }
    memset(out, 0, (size_t)c->head_dim * sizeof *out);
    sl_rms_norm_backward(raw, norm, d, c->head_dim, c->norm_eps, out);
}

/* The batch's row of position t. */
static size_t row_of(const head *h, int t) {
    return (size_t)(t < h->s->prefix ? h->root->first + t : h->s->first + t - h->s->prefix);
}
static size_t row_at(const head *h, int t) { return row_of(h, t) * h->a->places.row; }
static size_t key_at(const head *h, int t) { return row_at(h, t) + h->a->places.k + (size_t)h->g * h->a->places.kv_group; }
static size_t value_at(const head *h, int t) { return row_at(h, t) + h->a->places.v + (size_t)h->g * h->a->places.kv_group; }

/* ---------------------------------------------------------------- one tile */

static int end_of(const head *h) { return h->s->prefix + h->s->length; }

static int tile_rows(const head *h, int tile) {
    int left = end_of(h) - tile * TILE;
    return left < TILE ? left : TILE;
}

/* The keys of tile `keys` that query r of tile `queries` sees. */
static uint64_t visible(const head *h, int head_index, int queries, int r, int keys) {
    return sl_visible(&h->a->model->config, h->a->how, head_index, queries * TILE + r, keys);
}

/* Scores of a tile into p: scaled and capped; -INFINITY where a query does not see. False: nothing is seen. */
static bool scores(const head *h, int head_index, int queries, int keys) {
    const sl_config *c = &h->a->model->config;
    int n = tile_rows(h, queries), m = tile_rows(h, keys), d = c->head_dim;
    uint64_t seen[TILE], any = 0;
    for (int r = 0; r < n; r++) any |= seen[r] = visible(h, head_index, queries, r, keys);
    if (!any) return false;
    h->a->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_TURNED, n, m, d, h->a->scale, h->q, d, h->k + (size_t)keys * TILE * (size_t)d, d, 0,
                      h->p, TILE);
    for (int r = 0; r < n; r++)
        for (int j = 0; j < m; j++) {
            float *s = &h->p[r * TILE + j];
            if (!(seen[r] >> j & 1)) *s = -INFINITY;
            else if (c->attention_softcap > 0) *s = c->attention_softcap * tanhf(*s / c->attention_softcap);
        }
    return true;
}

/* The largest score and the sum of each query, over all tiles of keys. */
static void gather_sums(head *h, int head_index, int queries) {
    int n = tile_rows(h, queries);
    for (int r = 0; r < n; r++) h->top[r] = -INFINITY, h->sum[r] = 0;
    for (int keys = 0; keys <= queries; keys++) {
        int m = tile_rows(h, keys);
        if (!scores(h, head_index, queries, keys)) continue;
        for (int r = 0; r < n; r++) {
            float top = h->top[r], sum = 0;
            for (int j = 0; j < m; j++) top = fmaxf(top, h->p[r * TILE + j]);
            if (top == -INFINITY) continue;
            for (int j = 0; j < m; j++) sum += expf(h->p[r * TILE + j] - top);
            h->sum[r] = h->sum[r] * expf(h->top[r] - top) + sum;
            h->top[r] = top;
        }
    }
}

/* Gradients through one tile of keys. */
static void through_tile(head *h, int head_index, int queries, int keys) {
    const sl_config *c = &h->a->model->config;
    const sl_blas *blas = h->a->blas;
    int n = tile_rows(h, queries), m = tile_rows(h, keys), d = c->head_dim;
    size_t at = (size_t)keys * TILE * (size_t)d;
    float cap = c->attention_softcap;
    if (!scores(h, head_index, queries, keys)) return;
    blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_TURNED, n, m, d, 1, h->d_out, d, h->v + at, d, 0, h->dp, TILE);
    for (int r = 0; r < n; r++)
        for (int j = 0; j < m; j++) {
            float s = h->p[r * TILE + j], p = expf(s - h->top[r]) / h->sum[r];
            float ds = p * (h->dp[r * TILE + j] - h->dot[r]);
            if (cap > 0 && s != -INFINITY) ds *= 1 - (s / cap) * (s / cap);
            h->p[r * TILE + j] = p;
            h->dp[r * TILE + j] = ds * h->a->scale;
        }
    blas->sgemm(SL_BLAS_ROWS, SL_BLAS_TURNED, SL_BLAS_PLAIN, m, d, n, 1, h->p, TILE, h->d_out, d, 1, h->dv + at, d);
    blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, n, d, m, 1, h->dp, TILE, h->k + at, d, 1, h->dq, d);
    blas->sgemm(SL_BLAS_ROWS, SL_BLAS_TURNED, SL_BLAS_PLAIN, m, d, n, 1, h->dp, TILE, h->q, d, 1, h->dk + at, d);
}

/* ---------------------------------------------------------------- a head */

/* Queries of the prefix in a tile are another sequence's: zeros here, which give nothing. */
static void one_query_tile(head *h, int head_index, int tile) {
    const attention *a = h->a;
    const sl_config *c = &a->model->config;
    int n = tile_rows(h, tile), d = c->head_dim, own = h->s->prefix > tile * TILE ? h->s->prefix - tile * TILE : 0;
    size_t width = (size_t)c->n_heads * (size_t)d;
    memset(h->q, 0, (size_t)own * (size_t)d * sizeof *h->q);
    memset(h->d_out, 0, (size_t)own * (size_t)d * sizeof *h->d_out);
    memset(h->dot, 0, sizeof h->dot);
    for (int r = own; r < n; r++) {
        int position = tile * TILE + r;
        size_t row = row_of(h, position) * width + (size_t)head_index * (size_t)d;
        float *q = h->q + (size_t)r * (size_t)d, *dot = &h->dot[r];
        place_row(h, q, a->qkv + row_at(h, position) + sl_place_of_q(&a->places, head_index), a->block->q_norm, position);
        if (c->temperature_scale > 0) sl_scale(q, sl_query_temperature(c, position), d);
        memcpy(h->d_out + (size_t)r * (size_t)d, a->d_out + row, (size_t)d * sizeof(float));
        *dot = 0;
        for (int i = 0; i < d; i++) *dot += a->d_out[row + (size_t)i] * a->out[row + (size_t)i];
    }
    memset(h->dq, 0, (size_t)n * (size_t)d * sizeof *h->dq);
    gather_sums(h, head_index, tile);
    for (int keys = 0; keys <= tile; keys++) through_tile(h, head_index, tile, keys);
    for (int r = own; r < n; r++) {
        int position = tile * TILE + r;
        size_t at = row_at(h, position) + sl_place_of_q(&a->places, head_index);
        float *dq = h->dq + (size_t)r * (size_t)d;
        if (c->temperature_scale > 0) sl_scale(dq, sl_query_temperature(c, position), d);
        unplace_row(h, dq, a->qkv + at, a->block->q_norm, position, a->d_qkv + at);
    }
}

/* Keys and values of positions [from, end) into place, their gradients cleared. */
static void begin_keys(head *h, int from) {
    const attention *a = h->a;
    size_t d = (size_t)a->model->config.head_dim, n = (size_t)(end_of(h) - from) * d;
    for (int t = from; t < end_of(h); t++) {
        place_row(h, h->k + (size_t)t * d, a->qkv + key_at(h, t), a->block->k_norm, t);
        memcpy(h->v + (size_t)t * d, a->qkv + value_at(h, t), d * sizeof(float));
    }
    memset(h->dk + (size_t)from * d, 0, n * sizeof *h->dk);
    memset(h->dv + (size_t)from * d, 0, n * sizeof *h->dv);
}

static void all_queries(head *h) {
    const attention *a = h->a;
    for (int i = 0; i < a->places.heads_a_group; i++)
        for (int t = h->s->prefix / TILE; t * TILE < end_of(h); t++) one_query_tile(h, h->g * a->places.heads_a_group + i, t);
}

static void end_keys(head *h, int from) {
    const attention *a = h->a;
    size_t d = (size_t)a->model->config.head_dim;
    for (int t = from; t < end_of(h); t++) {
        unplace_row(h, h->dk + (size_t)t * d, a->qkv + key_at(h, t), a->block->k_norm, t, a->d_qkv + key_at(h, t));
        memcpy(a->d_qkv + value_at(h, t), h->dv + (size_t)t * d, d * sizeof(float));
    }
}

/* A root, and the sequences that begin with it: their gradients of its keys add up before they are its own. */
static void one_head(void *user, int64_t item, int thread) {
    const attention *a = user;
    const sl_config *c = &a->model->config;
    int d = c->head_dim, which = (int)(item / c->n_kv_heads), root = a->roots[which];
    float *memory = a->scratch + (size_t)thread * a->scratch_floats;
    size_t all = (size_t)a->longest * (size_t)d, tile = TILE * (size_t)d;
    head h = {.a = a, .root = &a->sequences[root], .g = (int)(item % c->n_kv_heads), .k = memory, .v = memory + all, .dk = memory + 2 * all,
              .dv = memory + 3 * all, .q = memory + 4 * all, .dq = memory + 4 * all + tile, .d_out = memory + 4 * all + 2 * tile,
              .p = memory + 4 * all + 3 * tile, .dp = memory + 4 * all + 3 * tile + TILE * TILE};
    if (a->angles) h.angles = a->angles + (size_t)which * (size_t)a->longest * (size_t)c->rope_dim;
    h.s = h.root;
    begin_keys(&h, 0);
    for (int i = root + 1; i < a->n_sequences && a->sequences[i].prefix; i++) {
        h.s = &a->sequences[i];
        begin_keys(&h, h.s->prefix);
        all_queries(&h);
        end_keys(&h, h.s->prefix);
    }
    h.s = h.root;
    all_queries(&h);
    end_keys(&h, 0);
}

/* ---------------------------------------------------------------- the whole */

/* Rotation of a root's positions and of those behind it. */
static bool make_angles(attention *a, int n_roots) {
    const sl_config *c = &a->model->config;
    if (!a->how->rope || !c->rope_dim) return true;
    a->angles = malloc((size_t)n_roots * (size_t)a->longest * (size_t)c->rope_dim * sizeof *a->angles);
    float *frequencies = malloc((size_t)c->rope_dim * sizeof *frequencies), factor;
    for (int i = 0; a->angles && frequencies && i < n_roots; i++) {
        int length = a->sequences[a->roots[i]].length;
        for (int k = a->roots[i] + 1; k < a->n_sequences && a->sequences[k].prefix; k++)
            if (a->sequences[k].prefix + a->sequences[k].length > length) length = a->sequences[k].prefix + a->sequences[k].length;
        sl_rope_frequencies(c, sl_rope_regime(c, length), a->how->local_rope, frequencies, &factor);
        sl_rope_table(frequencies, c->rope_dim / 2, factor, 0, length, a->angles + (size_t)i * (size_t)a->longest * (size_t)c->rope_dim);
    }
    bool good = a->angles && frequencies;
    free(frequencies);
    return good;
}

bool sl_attention_backward(const sl_model *model, const sl_blas *blas, int layer, const sl_sequence *sequences, int n_sequences,
                           const float *qkv, const float *out, const float *d_out, float *d_qkv) {
    const sl_config *c = &model->config;
    attention a = {.model = model, .blas = blas, .block = &model->weights->blocks[layer], .how = &c->layers[layer], .sequences = sequences,
                   .n_sequences = n_sequences, .qkv = qkv, .out = out, .d_out = d_out, .d_qkv = d_qkv, .places = sl_places_of(c)};
    int n_roots = 0, *roots = malloc((size_t)n_sequences * sizeof *roots);
    a.scale = c->scale_by_layer ? c->attention_scale / (float)(layer + 1) : c->attention_scale;
    for (int i = 0; i < n_sequences; i++) {
        int length = sequences[i].prefix + sequences[i].length;
        a.longest = length > a.longest ? length : a.longest;
        if (roots && !sequences[i].prefix) roots[n_roots++] = i;
    }
    a.roots = roots;
    a.scratch_floats = floats_of(a.longest, c->head_dim);
    a.scratch = malloc((size_t)sl_pool_threads(model->pool) * a.scratch_floats * sizeof *a.scratch);
    bool good = roots && a.scratch && make_angles(&a, n_roots);
    if (good) sl_pool_run(model->pool, (int64_t)n_roots * c->n_kv_heads, one_head, &a);
    free(a.scratch);
    free(a.angles);
    free(roots);
    return good;
}
