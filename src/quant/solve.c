#include "quant/solve.h"

#include "base/error.h"
#include "quant/solve_int.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_A_TASK = 32, MOST_CHUNKS = 128 };

/* ---------------------------------------------------------------- rows */

void sl_solve_rows(const sl_solve_matrix *m, int64_t first, int64_t n, float *out) {
    int64_t columns = m->source.shape[1];
    sl_tensor_read(&m->source, (uint64_t)(first * columns), (size_t)(n * columns), out);
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

static sl_solve_meeting *meeting_of(sl_solve *s, sl_slot slot, int expert) {
    for (int i = 0; i < s->n_meetings; i++)
        if (s->meetings[i].slot == slot && s->meetings[i].expert == expert) return &s->meetings[i];
    return NULL;
}

/* Which matrices are to be solved, and which inputs must be seen for that. */
static sllm_status list_meetings(sl_solve *s, sllm_error *error) {
    for (int i = 0; i < s->n_matrices; i++) {
        sl_solve_matrix *m = &s->matrices[i];
        sl_target target;
        if (!s->params.target(s->params.user, m->source.data, &target)) continue;
        if (!sl_solved_new(&m->out, target, m->source.shape[0], m->source.shape[1]))
            return sl_fail_memory(error, "a block's quantised matrices", 0);
        if (!meeting_of(s, m->meets, m->expert))
            s->meetings[s->n_meetings++] = (sl_solve_meeting){.slot = m->meets, .expert = m->expert, .gram = {.n = m->source.shape[1]}};
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- computing the block */

static void observe(void *user, sl_slot slot, int layer, int expert, const float *x, int64_t n, int64_t width, size_t stride) {
    sl_solve *s = user;
    sl_solve_meeting *m = meeting_of(s, slot, expert);
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
        sl_kv_truncate(s->timeline.kv, 0);
        status = sl_forward(s->model, s->timeline.work, s->timeline.kv, s->ids + (size_t)i * SL_SOLVE_CTX, SL_SOLVE_CTX, &p, error);
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
        sl_solve_meeting *m = &s->meetings[s->params.method == SL_METHOD_AWQ ? s->n_meetings - 1 - k : k];
        uint64_t bytes = (uint64_t)m->gram.n * (uint64_t)m->gram.n * sizeof(float);
        if (m->solved) continue;
        if (n && used + bytes > (s->params.gram_bytes ? s->params.gram_bytes : SL_SOLVE_GRAMS)) break; /* in order: what comes later may depend on it */
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

sllm_status sl_solve_exchange(sl_solve *s, sl_solve_matrix *m, sllm_error *error) {
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

sllm_status sl_solve_one(sl_solve *s, sl_solve_matrix *m, const sl_gptq *gptq, const float *importance, sllm_error *error) {
    solving j = {.s = s, .gptq = gptq, .importance = importance, .m = m};
    int64_t tasks = (m->source.shape[0] + ROWS_A_TASK - 1) / ROWS_A_TASK;
    sl_pool_run(s->model->pool, tasks, solve_task, &j);
    return atomic_load(&j.failed) ? sl_fail_memory(error, "solving a matrix", 0) : SLLM_OK;
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

/* An input that is not finite shows on the diagonal. */
static bool is_finite(const sl_gram *g) {
    for (int64_t i = 0; i < g->n; i++)
        if (!isfinite(g->h[i * g->n + i])) return false;
    return true;
}

static sllm_status run_passes(sl_solve *s, int layer, sllm_error *error) {
    sllm_status status = SLLM_OK;
    while (begin_pass(s, &status, error)) {
        status = compute(s, layer, false, error);
        for (int k = 0; k < s->n_meetings && !status; k++) {
            sl_solve_meeting *m = &s->meetings[s->params.method == SL_METHOD_AWQ ? s->n_meetings - 1 - k : k];
            if (!m->in_pass) continue;
            if (!is_finite(&m->gram))
                status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: inputs of block %d are not finite numbers on this text: weights are damaged, "
                                 "or the arithmetic overflows", s->model->path, layer);
            if (status) break;
            status = s->params.method == SL_METHOD_AWQ ? sl_solve_awq(s, layer, m, error) : sl_solve_gptq(s, m, error);
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
        if (s->matrices[i].out.rows && !s->matrices[i].half) status = sl_solve_exchange(s, &s->matrices[i], error);
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

sl_solve_counts sl_solve_count(const sl_solve *s) { return s ? s->counts : (sl_solve_counts){0}; }

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
    *out = NULL;
    if (!s) return sl_fail_memory(error, "solving", sizeof *s);
    s->model = model;
    s->params = *params;
    sllm_status status = sl_blas_get(&s->blas, error);
    if (!status) status = choose_text(s, error);
    if (!status) status = sl_timeline_open(&s->timeline, model, SL_SOLVE_CTX, model->weights->only_f32, error);
    if (!status) status = compute(s, -1, true, error);
    if (status) sl_solve_free(s);
    else *out = s;
    return status;
}

void sl_solve_free(sl_solve *s) {
    if (!s) return;
    leave_block(s);
    sl_timeline_close(&s->timeline);
    free(s->ids);
    free(s->stream);
    free(s->rows);
    free(s);
}
