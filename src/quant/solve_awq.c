/* The matrices of one input by AWQ: which scales can be taken up, by what, and the rounding. */
#include "base/error.h"
#include "quant/solve_int.h"

#include <stdlib.h>
#include <string.h>

static sllm_status new_vector(sl_solve *s, sl_slot slot, bool bias, const float *bound, int64_t n, float **values, sllm_error *error) {
    for (int i = 0; i < s->n_vectors; i++)
        if (s->vectors[i].slot == slot && s->vectors[i].bias == bias) {
            *values = s->vectors[i].values;
            return SLLM_OK;
        }
    *values = malloc((size_t)n * sizeof **values);
    if (!*values) return sl_fail_memory(error, "a norm", 0);
    memcpy(*values, bound, (size_t)n * sizeof **values);
    s->vectors[s->n_vectors++] = (sl_solve_vector){slot, bias, *values};
    return SLLM_OK;
}

static sllm_status divide_vector(sl_solve *s, sl_slot slot, bool bias, const float *bound, int64_t n, int64_t from, const float *scales,
                                 int64_t count, sllm_error *error) {
    float *values;
    if (!bound) return SLLM_OK;
    sllm_status status = new_vector(s, slot, bias, bound, n, &values, error);
    for (int64_t i = 0; !status && i < count; i++) values[from + i] /= scales[i];
    return status;
}

/* The rows [from, from + count) of a matrix, and of its bias, take the division. */
static sllm_status divide_rows(sl_solve *s, const sl_tensor *bound, const float *bias, int64_t from, const float *scales, int64_t count,
                               sllm_error *error) {
    for (int i = 0; i < s->n_matrices; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        int64_t rows = m->source.shape[0];
        if (m->bound != bound) continue;
        if (!m->row_scale) m->row_scale = malloc((size_t)rows * sizeof *m->row_scale);
        if (!m->row_scale) return sl_fail_memory(error, "the scales of rows", 0);
        for (int64_t r = 0; r < rows; r++) m->row_scale[r] = 1;
        for (int64_t r = 0; r < count; r++) m->row_scale[from + r] = 1 / scales[r];
        return divide_vector(s, m->slot, true, bias, rows, from, scales, count, error);
    }
    return SLLM_OK;
}

static bool is_solved(const sl_solve *s, const sl_tensor *bound) {
    for (int i = 0; i < s->n_matrices; i++)
        if (s->matrices[i].bound == bound) return s->matrices[i].out.rows > 0;
    return false;
}

/* Whether all that meets these inputs is to be quantised: one that stays as it is would meet divided inputs unprepared. */
static bool all_wanted(const sl_solve *s, const sl_solve_meeting *meets) {
    for (int i = 0; i < s->n_matrices; i++)
        if (s->matrices[i].meets == meets->slot && s->matrices[i].expert == meets->expert && !s->matrices[i].out.rows) return false;
    return true;
}

/* Whether something before these products can take the division of their inputs up. For attention's output that is v, whose
 * heads several query heads share: `tied` then says which columns go together. */
static bool can_scale(const sl_solve *s, const sl_block *b, sl_slot meets) {
    const sl_family *f = s->model->config.family;
    bool has_router = b->router.w.data != NULL;
    if (meets == SL_SLOT_QKV) return true;
    if (meets == SL_SLOT_UP) return !has_router;
    if (meets == SL_SLOT_ATTN_OUT)
        return f->qkv != SL_FUSED_GROUPED && is_solved(s, b->qkv[1].w.data ? &b->qkv[2].w : &b->qkv[0].w);
    if (meets == SL_SLOT_DOWN) return f->gated && f->gate_up != SL_FUSED_GROUPED && is_solved(s, &b->up.w);
    return false;
}

static int32_t *ties_of(const sl_config *c, int64_t n) {
    int32_t *tied = malloc((size_t)n * sizeof *tied);
    int group = c->n_heads / c->n_kv_heads;
    for (int64_t i = 0; tied && i < n; i++)
        tied[i] = (int32_t)(i / c->head_dim / group * c->head_dim + i % c->head_dim);
    return tied;
}

static sllm_status take_up(sl_solve *s, const sl_block *b, sl_slot meets, const float *scales, const int32_t *tied, int64_t n,
                           sllm_error *error) {
    const sl_config *c = &s->model->config;
    sllm_status status;
    if (meets == SL_SLOT_QKV || meets == SL_SLOT_UP) {
        bool attention = meets == SL_SLOT_QKV;
        sl_slot slot = attention ? SL_SLOT_ATTN_NORM : SL_SLOT_FFN_NORM;
        status = divide_vector(s, slot, false, attention ? b->attn_norm : b->ffn_norm, n, 0, scales, n, error);
        if (!status)
            status = divide_vector(s, slot, true, attention ? b->attn_norm_bias : b->ffn_norm_bias, n, 0, scales, n, error);
        return status;
    }
    if (meets == SL_SLOT_DOWN) return divide_rows(s, &b->up.w, b->up.bias, b->up.w.shape[0] - n, scales, n, error);
    int64_t kv = (int64_t)c->n_kv_heads * c->head_dim;
    float *rows = malloc((size_t)kv * sizeof *rows);
    if (!rows) return sl_fail_memory(error, "the scales of rows", 0);
    for (int64_t i = 0; i < n; i++) rows[tied[i]] = scales[i];
    const sl_linear *v = b->qkv[1].w.data ? &b->qkv[2] : &b->qkv[0];
    status = divide_rows(s, &v->w, v->bias, v->w.shape[0] - kv, rows, kv, error);
    free(rows);
    return status;
}

static sllm_status set_columns(sl_solve_matrix *m, const float *scales, sllm_error *error) {
    size_t bytes = (size_t)m->source.shape[1] * sizeof *scales;
    m->column_scale = malloc(bytes);
    if (!m->column_scale) return sl_fail_memory(error, "the scales of columns", 0);
    memcpy(m->column_scale, scales, bytes);
    return SLLM_OK;
}

/* Every matrix that meets these inputs, by AWQ: scales where they can be taken up, then rounding. */
sllm_status sl_solve_awq(sl_solve *s, int layer, sl_solve_meeting *meets, sllm_error *error) {
    sl_gram *g = &meets->gram;
    const sl_block *b = &s->model->weights->blocks[layer];
    size_t n = (size_t)g->n;
    sl_solve_matrix **own = malloc((size_t)s->n_matrices * sizeof *own);
    float *scales = malloc(2 * n * sizeof *scales), *importance = scales + n;
    int32_t *tied = meets->slot == SL_SLOT_ATTN_OUT ? ties_of(&s->model->config, g->n) : NULL;
    int n_own = 0;
    sllm_status status = own && scales && (tied || meets->slot != SL_SLOT_ATTN_OUT) ? SLLM_OK : sl_fail_memory(error, "scales", 0);
    for (int i = 0; i < s->n_matrices && !status; i++)
        if (s->matrices[i].meets == meets->slot && s->matrices[i].expert == meets->expert && s->matrices[i].out.rows)
            own[n_own++] = &s->matrices[i];
    for (size_t i = 0; i < n && !status; i++) scales[i] = 1;
    sl_gram_mirror(g);
    bool scaled = !status && g->count > 0 && all_wanted(s, meets) && can_scale(s, b, meets->slot);
    if (scaled && !sl_awq_search(g, s->blas, s->model->pool, own, n_own, tied, scales)) status = sl_fail_memory(error, "scales", 0);
    if (scaled && !status) status = take_up(s, b, meets->slot, scales, tied, g->n, error);
    for (size_t i = 0; i < n && !status; i++) importance[i] = g->h[i * n + i] / (scales[i] * scales[i]);
    *(scaled ? &s->counts.solved : g->count > 0 ? &s->counts.plain : &s->counts.unreached) += n_own;
    for (int i = 0; i < n_own && !status; i++) {
        if (scaled) status = set_columns(own[i], scales, error);
        if (!status) status = sl_solve_one(s, own[i], NULL, g->count > 0 ? importance : NULL, error);
    }
    free(tied);
    free(scales);
    free(own);
    return status;
}
