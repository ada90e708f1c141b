#include "quant/solve.h"

#include "base/error.h"
#include "model/kv.h"
#include "quant/gptq.h"
#include "quant/solve_int.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_A_TASK = 32, MAX_VECTORS = 16, MOST_CHUNKS = 128 };

/* Inputs that some matrices share. */
typedef struct meeting {
    sl_slot slot;
    int expert;
    sl_gram gram;
    bool wanted, solved, in_pass;
} meeting;

/* A norm or bias that takes a division up: written so, while the model goes on computing without scales. */
typedef struct vector {
    sl_slot slot;
    bool bias;
    float *values;
} vector;

struct sl_solve {
    sl_model *model;
    const sl_blas *blas;
    sl_solve_params params;
    int32_t *ids;             /* [n_chunks, SL_SOLVE_CTX] */
    int n_chunks;
    float *stream;            /* [n_chunks, SL_SOLVE_CTX, n_embd] before block `next` */
    float *rows;              /* [SL_SOLVE_CTX, n_embd]: a chunk that is computed for its statistics only */
    sl_kv_pool *pages;
    sl_kv *kv;
    sl_work *work;
    int next;
    sl_solve_matrix *matrices; /* of block next - 1, or of the one being solved */
    int n_matrices;
    meeting *meetings;
    int n_meetings;
    vector vectors[MAX_VECTORS];
    int n_vectors;
    struct { sl_expert_matrices *where; sl_expert_matrices before; sl_tensor *list; } stacks[3];
    int n_stacks;
    uint64_t done;            /* tokens times blocks */
};

/* ---------------------------------------------------------------- rows */

void sl_solve_rows(const sl_solve_matrix *m, int64_t first, int64_t n, float *out) {
    int64_t columns = m->source.shape[1];
    uint64_t offset = 0;
    sl_type_bytes(m->source.type, (uint64_t)(first * columns), &offset);
    sl_type_get(m->source.type)->to_float((const uint8_t *)m->source.data + offset, out, (size_t)(n * columns));
    for (int64_t r = 0; r < n && (m->row_scale || m->column_scale); r++)
        for (int64_t c = 0; c < columns; c++)
            out[r * columns + c] *= (m->row_scale ? m->row_scale[first + r] : 1) * (m->column_scale ? m->column_scale[c] : 1);
}

/* ---------------------------------------------------------------- the block's matrices */

static void add_matrix(sl_solve *s, sl_tensor *bound, sl_slot slot, sl_slot meets, int expert) {
    if (!bound->data || bound->n_dims != 2) return;
    s->matrices[s->n_matrices++] = (sl_solve_matrix){.bound = bound, .source = *bound, .slot = slot, .meets = meets, .expert = expert};
}

/* A stack becomes a list of matrices, so that each can be exchanged by itself. */
static sllm_status open_stack(sl_solve *s, sl_expert_matrices *e, sllm_error *error) {
    int n = s->model->config.n_experts;
    if (!e->w || !e->stacked) return SLLM_OK;
    sl_tensor *list = calloc((size_t)n, sizeof *list);
    if (!list) return sl_fail_memory(error, "the list of experts", 0);
    for (int i = 0; i < n; i++) {
        list[i] = *e->w;
        list[i].n_dims = 2;
        list[i].shape[0] = e->w->shape[1];
        list[i].shape[1] = e->w->shape[2];
        list[i].n_elements = e->w->n_elements / (uint64_t)n;
        list[i].bytes = e->w->bytes / (uint64_t)n;
        list[i].data = (const uint8_t *)e->w->data + (uint64_t)i * list[i].bytes;
        list[i].packed = NULL;
    }
    s->stacks[s->n_stacks].where = e;
    s->stacks[s->n_stacks].before = *e;
    s->stacks[s->n_stacks++].list = list;
    *e = (sl_expert_matrices){.stacked = false, .w = list};
    return SLLM_OK;
}

static sllm_status list_matrices(sl_solve *s, int layer, sllm_error *error) {
    const sl_config *c = &s->model->config;
    sl_block *b = &s->model->weights->blocks[layer];
    size_t most = 10 + 3 * (size_t)c->n_experts;
    s->matrices = calloc(most, sizeof *s->matrices);
    s->meetings = calloc(most, sizeof *s->meetings);
    if (!s->matrices || !s->meetings) return sl_fail_memory(error, "the block's matrices", 0);
    bool fused = !b->qkv[1].w.data;
    add_matrix(s, &b->qkv[0].w, fused ? SL_SLOT_QKV : SL_SLOT_Q, SL_SLOT_QKV, -1);
    add_matrix(s, &b->qkv[1].w, SL_SLOT_K, SL_SLOT_QKV, -1);
    add_matrix(s, &b->qkv[2].w, SL_SLOT_V, SL_SLOT_QKV, -1);
    add_matrix(s, &b->attn_out.w, SL_SLOT_ATTN_OUT, SL_SLOT_ATTN_OUT, -1);
    add_matrix(s, &b->gate.w, SL_SLOT_GATE, SL_SLOT_UP, -1);
    add_matrix(s, &b->up.w, SL_SLOT_UP, SL_SLOT_UP, -1);
    add_matrix(s, &b->down.w, SL_SLOT_DOWN, SL_SLOT_DOWN, -1);
    add_matrix(s, &b->shared_gate.w, SL_SLOT_SHARED_GATE, SL_SLOT_SHARED_UP, -1);
    add_matrix(s, &b->shared_up.w, SL_SLOT_SHARED_UP, SL_SLOT_SHARED_UP, -1);
    add_matrix(s, &b->shared_down.w, SL_SLOT_SHARED_DOWN, SL_SLOT_SHARED_DOWN, -1);
    sl_expert_matrices *const experts[] = {&b->expert_gate, &b->expert_up, &b->expert_down};
    for (int k = 0; k < 3; k++) {
        sllm_status status = open_stack(s, experts[k], error);
        if (status) return status;
        for (int e = 0; experts[k]->w && e < c->n_experts; e++)
            add_matrix(s, &experts[k]->w[e], SL_SLOT_EXPERT_GATE + (sl_slot)k, k < 2 ? SL_SLOT_EXPERT_UP : SL_SLOT_EXPERT_DOWN, e);
    }
    return SLLM_OK;
}

static meeting *meeting_of(sl_solve *s, sl_slot slot, int expert) {
    for (int i = 0; i < s->n_meetings; i++)
        if (s->meetings[i].slot == slot && s->meetings[i].expert == expert) return &s->meetings[i];
    return NULL;
}

/* Which matrices are to be solved, and which inputs must be seen for that. */
static sllm_status list_meetings(sl_solve *s, sllm_error *error) {
    for (int i = 0; i < s->n_matrices; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        sl_target target;
        meeting *meets = meeting_of(s, m->meets, m->expert);
        if (!s->params.target(s->params.user, m->source.data, m->source.shape[0], m->source.shape[1], &target)) continue;
        if (!sl_solved_new(&m->out, target, m->source.shape[0], m->source.shape[1]))
            return sl_fail_memory(error, "a block's quantised matrices", 0);
        if (!meets) {
            meets = &s->meetings[s->n_meetings++];
            *meets = (meeting){.slot = m->meets, .expert = m->expert, .gram = {.n = m->source.shape[1]}};
        }
        meets->wanted = true;
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- computing the block */

static void observe(void *user, sl_slot slot, int layer, int expert, const float *x, int64_t n, int64_t width, size_t stride) {
    sl_solve *s = user;
    meeting *m = meeting_of(s, slot, expert);
    (void)layer;
    (void)width;
    if (m && m->in_pass) sl_gram_add(&m->gram, s->blas, s->model->pool, x, n, stride);
}

static bool goes_on(sl_solve *s) {
    uint64_t total = (uint64_t)s->n_chunks * SL_SOLVE_CTX * (uint64_t)s->model->config.n_layers;
    return !s->params.on_progress || s->params.on_progress(s->params.progress_user, "solving", s->done < total ? s->done : total, total);
}

/* All of the text through block `layer` (-1: the embedding). keep: what comes out replaces the stream. */
static sllm_status compute(sl_solve *s, int layer, bool keep, sllm_error *error) {
    sl_forward_params p = {.block = layer, .observe = keep ? NULL : observe, .user = s};
    size_t floats = (size_t)SL_SOLVE_CTX * (size_t)s->model->config.n_embd;
    sllm_status status = SLLM_OK;
    for (int i = 0; i < s->n_chunks && !status; i++) {
        float *chunk = s->stream + (size_t)i * floats;
        p.stream = keep ? chunk : s->rows;
        if (!keep) memcpy(s->rows, chunk, floats * sizeof *chunk);
        if (!goes_on(s)) return sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted while solving block %d", layer);
        sl_kv_truncate(s->kv, 0);
        status = sl_forward(s->model, s->work, s->kv, s->ids + (size_t)i * SL_SOLVE_CTX, SL_SOLVE_CTX, &p, error);
        if (keep && layer >= 0) s->done += SL_SOLVE_CTX;
    }
    return status;
}

/* As many meetings as fit the memory; false: all are solved. AWQ goes backwards, since the scale of a product's inputs is
 * taken up by the rows of the matrix before it. */
static bool begin_pass(sl_solve *s, sllm_status *status, sllm_error *error) {
    uint64_t used = 0;
    int n = 0;
    for (int k = 0; k < s->n_meetings && !*status; k++) {
        meeting *m = &s->meetings[s->params.method == SL_METHOD_AWQ ? s->n_meetings - 1 - k : k];
        uint64_t bytes = (uint64_t)m->gram.n * (uint64_t)m->gram.n * sizeof(float);
        if (m->solved || (n && used + bytes > SL_SOLVE_GRAMS)) continue;
        *status = sl_gram_new(&m->gram, m->gram.n, error);
        m->in_pass = true;
        used += bytes;
        n++;
    }
    return n > 0 && !*status;
}

/* ---------------------------------------------------------------- solving */

typedef struct solving {
    sl_solve *s;
    const sl_gptq *gptq;         /* NULL: rounding */
    const float *importance;     /* [columns] */
    const sl_solve_matrix *m;
    atomic_bool failed;
} solving;

static void solve_task(void *user, int64_t chunk, int thread) {
    solving *j = user;
    int64_t rows = j->m->source.shape[0], columns = j->m->source.shape[1], first = chunk * ROWS_A_TASK;
    int64_t n = rows - first < ROWS_A_TASK ? rows - first : ROWS_A_TASK;
    float *w = malloc((size_t)(n * columns) * sizeof *w);
    (void)thread;
    if (w) {
        sl_solve_rows(j->m, first, n, w);
        if (!j->gptq) sl_solved_round(&j->m->out, w, j->importance, first, n);
        else if (!sl_gptq_rows(j->gptq, w, first, n, &j->m->out)) atomic_store(&j->failed, true);
    } else {
        atomic_store(&j->failed, true);
    }
    free(w);
}

/* The result as the model is to compute with: f16, its columns' scales taken out, since inputs are scaled by the norm or the
 * rows before, which the model keeps as they are for this. */
static void widen_task(void *user, int64_t row, int thread) {
    solving *j = user;
    const sl_solve_matrix *m = j->m;
    int64_t columns = m->source.shape[1];
    float *w = malloc((size_t)columns * sizeof *w);
    (void)thread;
    if (!w) {
        atomic_store(&j->failed, true);
        return;
    }
    sl_solved_read(&m->out, row, 1, w);
    for (int64_t c = 0; c < columns; c++) {
        float v = w[c] / (m->column_scale ? m->column_scale[c] : 1) / (m->row_scale ? m->row_scale[row] : 1);
        m->half[row * columns + c] = sl_f32_to_f16(fminf(fmaxf(v, -65504), 65504));
    }
    free(w);
}

static sllm_status exchange(sl_solve *s, sl_solve_matrix *m, sllm_error *error) {
    solving j = {.s = s, .m = m};
    m->half = malloc((size_t)m->source.n_elements * sizeof *m->half);
    if (m->half) sl_pool_run(s->model->pool, m->source.shape[0], widen_task, &j);
    if (!m->half || atomic_load(&j.failed)) return sl_fail_memory(error, "a quantised matrix", 0);
    m->bound->data = m->half;
    m->bound->type = SL_F16;
    m->bound->bytes = m->source.n_elements * 2;
    m->bound->packed = NULL;
    return SLLM_OK;
}

static sllm_status solve_matrix(sl_solve *s, sl_solve_matrix *m, const sl_gptq *gptq, const float *importance, sllm_error *error) {
    solving j = {.s = s, .gptq = gptq, .importance = importance, .m = m};
    int64_t tasks = (m->source.shape[0] + ROWS_A_TASK - 1) / ROWS_A_TASK;
    sl_pool_run(s->model->pool, tasks, solve_task, &j);
    return atomic_load(&j.failed) ? sl_fail_memory(error, "solving a matrix", 0) : SLLM_OK;
}

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
static sllm_status solve_gptq(sl_solve *s, meeting *meets, sllm_error *error) {
    sl_gram *g = &meets->gram;
    size_t n = (size_t)g->n;
    int32_t *order = s->params.act_order ? order_of(g) : NULL;
    float *importance = malloc(n * sizeof *importance), *scratch = order ? malloc(n * n * sizeof *scratch) : NULL;
    sllm_status status = SLLM_OK;
    if (!importance || (s->params.act_order && (!order || !scratch))) status = sl_fail_memory(error, "the order of columns", 0);
    for (size_t i = 0; i < n && !status; i++) importance[i] = g->h[i * n + i] / (float)(g->count > 0 ? g->count : 1);
    sl_gram_mirror(g);
    bool solved = !status && g->count > 0 && sl_gram_factor(g, s->blas, s->params.damp > 0 ? s->params.damp : 0.01f, order, scratch);
    sl_gptq gptq = {.blas = s->blas, .factor = g->h, .order = order, .importance = importance, .n = g->n};
    for (int i = 0; i < s->n_matrices && !status; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        if (m->meets != meets->slot || m->expert != meets->expert || !m->out.rows) continue;
        bool by_gptq = solved && has_solver(m);
        if (by_gptq && !note_groups(&m->out, order, g->n)) status = sl_fail_memory(error, "the groups of columns", 0);
        if (!status) status = solve_matrix(s, m, by_gptq ? &gptq : NULL, g->count > 0 ? importance : NULL, error);
        if (!status) status = exchange(s, m, error);
    }
    free(scratch);
    free(order);
    free(importance);
    return status;
}

/* ---------------------------------------------------------------- scales of inputs */

static sllm_status new_vector(sl_solve *s, sl_slot slot, bool bias, const float *bound, int64_t n, float **values, sllm_error *error) {
    for (int i = 0; i < s->n_vectors; i++)
        if (s->vectors[i].slot == slot && s->vectors[i].bias == bias) {
            *values = s->vectors[i].values;
            return SLLM_OK;
        }
    *values = malloc((size_t)n * sizeof **values);
    if (!*values) return sl_fail_memory(error, "a norm", 0);
    memcpy(*values, bound, (size_t)n * sizeof **values);
    s->vectors[s->n_vectors++] = (vector){slot, bias, *values};
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

static sllm_status take_up(sl_solve *s, const sl_block *b, sl_slot meets, const float *scales, const int32_t *tied, int64_t n, sllm_error *error) {
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
static sllm_status solve_awq(sl_solve *s, int layer, meeting *meets, sllm_error *error) {
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
    bool scaled = !status && g->count > 0 && can_scale(s, b, meets->slot);
    if (scaled && !sl_awq_search(g, s->blas, s->model->pool, own, n_own, tied, scales)) status = sl_fail_memory(error, "scales", 0);
    if (scaled && !status) status = take_up(s, b, meets->slot, scales, tied, g->n, error);
    for (size_t i = 0; i < n && !status; i++) importance[i] = g->h[i * n + i] / (scales[i] * scales[i]);
    for (int i = 0; i < n_own && !status; i++) {
        if (scaled) status = set_columns(own[i], scales, error);
        if (!status) status = solve_matrix(s, own[i], NULL, g->count > 0 ? importance : NULL, error);
    }
    free(tied);
    free(scales);
    free(own);
    return status;
}

/* ---------------------------------------------------------------- one block */

/* The model as it was, and nothing left of the block. */
static void leave_block(sl_solve *s) {
    for (int i = 0; i < s->n_matrices; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        *m->bound = m->source;
        sl_solved_free(&m->out);
        free(m->row_scale);
        free(m->column_scale);
        free(m->half);
    }
    for (int i = 0; i < s->n_meetings; i++) sl_gram_free(&s->meetings[i].gram);
    for (int i = 0; i < s->n_vectors; i++) free(s->vectors[i].values);
    while (s->n_stacks) {
        s->n_stacks--;
        *s->stacks[s->n_stacks].where = s->stacks[s->n_stacks].before;
        free(s->stacks[s->n_stacks].list);
    }
    free(s->matrices);
    free(s->meetings);
    s->matrices = NULL;
    s->meetings = NULL;
    s->n_matrices = s->n_meetings = s->n_vectors = 0;
}

static sllm_status run_passes(sl_solve *s, int layer, sllm_error *error) {
    sllm_status status = SLLM_OK;
    while (begin_pass(s, &status, error)) {
        status = compute(s, layer, false, error);
        for (int k = 0; k < s->n_meetings && !status; k++) {
            meeting *m = &s->meetings[s->params.method == SL_METHOD_AWQ ? s->n_meetings - 1 - k : k];
            if (!m->in_pass) continue;
            status = s->params.method == SL_METHOD_AWQ ? solve_awq(s, layer, m, error) : solve_gptq(s, m, error);
            m->in_pass = false;
            m->solved = true;
            int64_t n = m->gram.n;
            sl_gram_free(&m->gram);
            m->gram.n = n;
        }
        if (status) break;
    }
    return status;
}

/* AWQ's passes see the block as it was; GPTQ has exchanged matrices as they were solved. */
static sllm_status exchange_all(sl_solve *s, sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (int i = 0; i < s->n_matrices && !status; i++)
        if (s->matrices[i].out.rows && !s->matrices[i].half) status = exchange(s, &s->matrices[i], error);
    return status;
}

static sllm_status next_block(sl_solve *s, sllm_error *error) {
    int layer = s->next++;
    leave_block(s);
    sllm_status status = list_matrices(s, layer, error);
    if (!status) status = list_meetings(s, error);
    if (!status) status = run_passes(s, layer, error);
    if (!status) status = exchange_all(s, error);
    if (!status) status = compute(s, layer, true, error);
    return status;
}

sllm_status sl_solve_block(sl_solve *s, int layer, sllm_error *error) {
    sllm_status status = SLLM_OK;
    while (s->next <= layer && !status) status = next_block(s, error);
    return status;
}

const sl_solved *sl_solve_matrix_of(const sl_solve *s, const void *data) {
    for (int i = 0; i < s->n_matrices; i++)
        if (s->matrices[i].source.data == data && s->matrices[i].out.rows) return &s->matrices[i].out;
    return NULL;
}

const float *sl_solve_vector_of(const sl_solve *s, sl_slot slot, bool bias) {
    for (int i = 0; i < s->n_vectors; i++)
        if (s->vectors[i].slot == slot && s->vectors[i].bias == bias) return s->vectors[i].values;
    return NULL;
}

/* ---------------------------------------------------------------- the text */

/* Chunks spread evenly over the text, as many as the memory for the stream allows. */
static sllm_status choose_text(sl_solve *s, sllm_error *error) {
    const sl_model *m = s->model;
    bool bos = m->tokenizer && sl_tokenizer_adds_bos(m->tokenizer);
    size_t all = s->params.n_ids / SL_SOLVE_CTX, floats = (size_t)SL_SOLVE_CTX * (size_t)m->config.n_embd;
    size_t fits = (size_t)(SL_SOLVE_STREAM / sizeof(float)) / floats;
    if (!all)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%zu tokens are too few to solve with: at least %d are needed", s->params.n_ids,
                       SL_SOLVE_CTX);
    size_t n = all < MOST_CHUNKS ? all : MOST_CHUNKS;
    if (n > fits) n = fits ? fits : 1;
    s->n_chunks = (int)n;
    s->ids = malloc(n * SL_SOLVE_CTX * sizeof *s->ids);
    s->stream = malloc(n * floats * sizeof *s->stream);
    s->rows = malloc(floats * sizeof *s->rows);
    if (!s->ids || !s->stream || !s->rows) return sl_fail_memory(error, "the residual stream", n * floats * sizeof *s->stream);
    for (size_t i = 0; i < n; i++) {
        int32_t *chunk = s->ids + i * SL_SOLVE_CTX;
        memcpy(chunk, s->params.ids + i * all / n * SL_SOLVE_CTX, SL_SOLVE_CTX * sizeof *chunk);
        if (bos) chunk[0] = sl_tokenizer_special(m->tokenizer, SL_SPECIAL_BOS);
    }
    return SLLM_OK;
}

sllm_status sl_solve_new(sl_model *model, const sl_solve_params *params, sl_solve **out, sllm_error *error) {
    sl_solve *s = calloc(1, sizeof *s);
    sl_kv_type type;
    *out = NULL;
    if (!s) return sl_fail_memory(error, "solving", sizeof *s);
    s->model = model;
    s->params = *params;
    sllm_status status = sl_blas_get(&s->blas, error);
    if (!status) status = choose_text(s, error);
    if (!status) status = sl_kv_type_choose(&model->config, SLLM_KV_AUTO, model->exact, model->weights->only_f32, &type, error);
    if (!status) status = sl_kv_pool_new(model, type, (SL_SOLVE_CTX + SL_PAGE - 1) / SL_PAGE, &s->pages, error);
    if (!status) status = sl_kv_new(s->pages, SL_SOLVE_CTX, &s->kv, error);
    if (!status) status = sl_work_new(model, &s->work, error);
    if (!status) status = compute(s, -1, true, error);
    if (status) sl_solve_free(s);
    else *out = s;
    return status;
}

void sl_solve_free(sl_solve *s) {
    if (!s) return;
    leave_block(s);
    sl_work_free(s->work);
    if (s->kv) sl_kv_free(s->kv);
    if (s->pages) sl_kv_pool_free(s->pages);
    free(s->ids);
    free(s->stream);
    free(s->rows);
    free(s);
}
