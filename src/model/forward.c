/* The forward pass: embeds a chunk of tokens, runs the operator list over it, and computes the logits asked for. */
#include "model/forward.h"

#include "base/checked.h"
#include "base/error.h"
#include "model/adapter.h"
#include "model/families.h"
#include "model/rope.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- scratch */

/* Lays the buffers out from `base` (NULL: only counts) and returns the bytes they take. */
static uint64_t lay_out(sl_work *w, const sl_config *c, int chunk, int n_threads, bool exact, int rank, char *base) {
    sl_op_sizes s;
    uint64_t total = 0;
    sl_ops_sizes(c, chunk, exact, &s);
    size_t half = (size_t)c->rope_dim / 2, n = (size_t)chunk, heads = (size_t)c->n_heads;
    const struct { void **place; uint64_t bytes; } parts[] = {
        {(void **)&w->x, s.x * sizeof(float)},
        {(void **)&w->y, s.y * sizeof(float)},
        {(void **)&w->qkv, s.qkv * sizeof(float)},
        {(void **)&w->hidden, s.hidden * sizeof(float)},
        {(void **)&w->delta, s.delta * sizeof(float)},
        {(void **)&w->blocks, s.blocks},
        {(void **)&w->gather, s.gather * sizeof(float)},
        {(void **)&w->router, s.router * sizeof(float)},
        {(void **)&w->low, n * (size_t)rank * sizeof(float)},
        {(void **)&w->route_ids, s.routes * sizeof(int32_t)},
        {(void **)&w->route_weights, s.routes * sizeof(float)},
        {(void **)&w->route_rows, s.routes ? 2 * n * sizeof(int32_t) : 0},
        {(void **)&w->segments, n * sizeof *w->segments},
        {(void **)&w->segment_of, n * sizeof *w->segment_of},
        {(void **)&w->wanted, n * sizeof *w->wanted},
        {(void **)&w->pieces, n * sizeof *w->pieces},
        {(void **)&w->tiles, n * (size_t)(c->n_heads / c->n_kv_heads / SL_TILE_ROWS + 1) * sizeof *w->tiles},
        {(void **)&w->states, (uint64_t)SL_SPLIT_SPANS * heads * (size_t)sl_attend_width(c->head_dim) * sizeof(float)},
        {(void **)&w->attend, (uint64_t)n_threads * sl_attend_scratch(c) * sizeof(float)},
        {(void **)&w->frequencies[0].values[0], half * sizeof(float)},
        {(void **)&w->frequencies[0].values[1], half * sizeof(float)},
        {(void **)&w->frequencies[1].values[0], half * sizeof(float)},
        {(void **)&w->frequencies[1].values[1], half * sizeof(float)},
        {(void **)&w->angles[0], n * 2 * half * sizeof(float)},
        {(void **)&w->angles[1], c->rope_local_base > 0 ? n * 2 * half * sizeof(float) : 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].place = parts[i].bytes ? base + total : NULL;
        total += (parts[i].bytes + 63) / 64 * 64;
    }
    return total;
}

uint64_t sl_work_bytes(const sl_config *config, int n_threads, bool exact) {
    sl_work none = {0};
    return sizeof none + lay_out(&none, config, SL_CHUNK, n_threads, exact, 0, NULL);
}

sllm_status sl_work_new(const sl_model *model, sl_work **work, sllm_error *error) {
    const sl_config *c = &model->config;
    *work = NULL;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights and cannot compute");
    sl_work counted = {.chunk = SL_CHUNK, .n_threads = sl_pool_threads(model->pool),
                       .frequencies = {{.regime = -1}, {.regime = -1}}};
    uint64_t bytes = lay_out(&counted, c, counted.chunk, counted.n_threads, model->exact, model->adapter_rank, NULL);
    sl_work *new = malloc(sizeof *new);
    void *memory = NULL; /* the first buffer, x, is where it begins */
    if (!new || bytes > SIZE_MAX || posix_memalign(&memory, 64, (size_t)bytes)) {
        free(new);
        return sl_fail_memory(error, "the working memory of a session", (size_t)bytes);
    }
    *new = counted;
    lay_out(new, c, new->chunk, new->n_threads, model->exact, model->adapter_rank, memory);
    *work = new;
    return SLLM_OK;
}

void sl_work_free(sl_work *work) {
    if (!work) return;
    free(work->x);
    free(work);
}

/* ---------------------------------------------------------------- helpers of the operators */

enum { TOKENS_A_TASK = 4 };

typedef struct token_tasks {
    const sl_run *run;
    void (*task)(const sl_run *run, int t, int thread);
} token_tasks;

static void some_tokens(void *user, int64_t chunk, int thread) {
    const token_tasks *tasks = user;
    int first = (int)chunk * TOKENS_A_TASK, end = first + TOKENS_A_TASK;
    for (int t = first; t < end && t < tasks->run->n; t++) tasks->task(tasks->run, t, thread);
}

void sl_run_tokens(sl_run *run, void (*task)(const sl_run *run, int t, int thread)) {
    token_tasks tasks = {run, task};
    int chunks = (run->n + TOKENS_A_TASK - 1) / TOKENS_A_TASK;
    if (chunks == 1) some_tokens(&tasks, 0, 0); /* not worth waking anyone */
    else sl_pool_run(run->model->pool, chunks, some_tokens, &tasks);
}

bool sl_run_rounds(const sl_run *run, const sl_tensor *w) {
    return run->arithmetic == SL_FAST && w->data && sl_type_get(w->type)->is_quantised;
}

sl_act sl_run_activations(const sl_run *run, const float *rows, int64_t n, int64_t width, size_t stride, bool rounds) {
    sl_act act = {.x = rows, .stride = stride, .n_tokens = n, .n = width, .blocks = rounds ? run->work->blocks : NULL};
    if (rounds) sl_act_round(run->model->pool, &act);
    return act;
}

static void linear(sl_run *run, sl_slot slot, const sl_linear *l, const sl_act *act, float *y, size_t stride) {
    sl_matmul(run->model->pool, run->arithmetic, &l->w, -1, act, l->bias, y, stride);
    sl_run_adapt(run, slot, 0, NULL, run->n, act->x, act->stride, l->bias, y, stride);
}

/* ---------------------------------------------------------------- normalise, join */

static void norm_row(const sl_config *c, float *y, const float *x, const float *weight, const float *bias) {
    if (c->norm == SL_NORM_RMS) sl_rms_norm(y, x, weight, c->n_embd, c->norm_eps);
    else sl_layer_norm(y, x, weight, bias, c->n_embd, c->norm_eps);
}

static void norm_token(const sl_run *run, int t, int thread) {
    const sl_block *b = run->block;
    size_t row = (size_t)t * (size_t)run->config->n_embd;
    bool attention = run->op->kind == SL_OP_ATTN_NORM;
    (void)thread;
    norm_row(run->config, run->work->y + row, run->work->x + row, attention ? b->attn_norm : b->ffn_norm,
             attention ? b->attn_norm_bias : b->ffn_norm_bias);
}

static void run_norm(sl_run *run) {
    size_t width = (size_t)run->config->n_embd;
    sl_run_record(run, run->op->kind == SL_OP_ATTN_NORM ? SL_TAPE_BLOCK : SL_TAPE_MIDDLE, run->work->x, width, width);
    sl_run_tokens(run, norm_token);
}

static void join_token(const sl_run *run, int t, int thread) {
    const sl_config *c = run->config;
    size_t row = (size_t)t * (size_t)c->n_embd;
    const float *post = run->op->kind == SL_OP_ATTN_OUT ? run->block->attn_post_norm : run->block->ffn_post_norm;
    float *delta = run->work->delta + row;
    (void)thread;
    if (post) norm_row(c, delta, delta, post, NULL);
    sl_add(run->work->x + row, delta, c->n_embd);
}

/* ---------------------------------------------------------------- products */

static void run_qkv(sl_run *run) {
    const sl_config *c = run->config;
    const sl_linear *qkv = run->block->qkv;
    bool rounds = false;
    sl_run_observe(run, SL_SLOT_QKV, -1, run->work->y, run->n, c->n_embd, (size_t)c->n_embd);
    for (int i = 0; i < 3; i++) rounds |= sl_run_rounds(run, &qkv[i].w);
    sl_act act = sl_run_activations(run, run->work->y, run->n, c->n_embd, (size_t)c->n_embd, rounds);
    size_t stride = ((size_t)c->n_heads + 2 * (size_t)c->n_kv_heads) * (size_t)c->head_dim;
    sl_matmul_item items[3];
    float *out = run->work->qkv;
    int n = 0;
    for (; n < 3 && qkv[n].w.data; n++) {
        items[n] = (sl_matmul_item){.w = &qkv[n].w, .expert = -1, .bias = qkv[n].bias, .y = out, .y_stride = stride};
        out += qkv[n].w.shape[0];
    }
    sl_matmul_all(run->model->pool, run->arithmetic, items, n, &act);
    static const sl_slot slots[3] = {SL_SLOT_Q, SL_SLOT_K, SL_SLOT_V};
    for (int i = 0; i < n; i++)
        sl_run_adapt(run, n == 1 ? SL_SLOT_QKV : slots[i], 0, NULL, run->n, act.x, act.stride, items[i].bias, items[i].y, stride);
    sl_run_record(run, SL_TAPE_QKV, run->work->qkv, stride, stride);
}

static void run_attn_out(sl_run *run) {
    const sl_config *c = run->config;
    size_t width = (size_t)c->n_heads * (size_t)c->head_dim;
    const sl_linear *l = &run->block->attn_out;
    sl_run_record(run, SL_TAPE_ATTENTION, run->work->y, width, width);
    sl_run_observe(run, SL_SLOT_ATTN_OUT, -1, run->work->y, run->n, (int64_t)width, width);
    sl_act act = sl_run_activations(run, run->work->y, run->n, (int64_t)width, width, sl_run_rounds(run, &l->w));
    linear(run, SL_SLOT_ATTN_OUT, l, &act, run->work->delta, (size_t)c->n_embd);
    sl_run_record(run, SL_TAPE_ATTN_DELTA, run->work->delta, (size_t)c->n_embd, (size_t)c->n_embd);
    sl_run_tokens(run, join_token);
}

static void run_gate_up(sl_run *run) {
    const sl_config *c = run->config;
    const sl_block *b = run->block;
    size_t ff = (size_t)c->n_ff;
    sl_run_observe(run, SL_SLOT_UP, -1, run->work->y, run->n, c->n_embd, (size_t)c->n_embd);
    bool rounds = sl_run_rounds(run, &b->gate.w) || sl_run_rounds(run, &b->up.w);
    sl_act act = sl_run_activations(run, run->work->y, run->n, c->n_embd, (size_t)c->n_embd, rounds);
    bool split = b->gate.w.data;
    float *gate = run->work->hidden, *up = gate + (split ? ff : 0);
    const sl_matmul_item items[] = {
        {.w = &b->up.w, .expert = -1, .bias = b->up.bias, .y = up, .y_stride = 2 * ff},
        {.w = &b->gate.w, .expert = -1, .bias = b->gate.bias, .y = gate, .y_stride = 2 * ff},
    };
    sl_matmul_all(run->model->pool, run->arithmetic, items, split ? 2 : 1, &act);
    sl_run_adapt(run, !split && c->family->gated ? SL_SLOT_GATE_UP : SL_SLOT_UP, 0, NULL, run->n, act.x, act.stride, b->up.bias, up, 2 * ff);
    if (split) sl_run_adapt(run, SL_SLOT_GATE, 0, NULL, run->n, act.x, act.stride, b->gate.bias, gate, 2 * ff);
    sl_run_record(run, SL_TAPE_HIDDEN, run->work->hidden, c->family->gated ? 2 * ff : ff, 2 * ff);
    sl_run_activate(run, run->n, c->n_ff);
}

static void run_down(sl_run *run) {
    const sl_config *c = run->config;
    const sl_linear *l = &run->block->down;
    sl_run_observe(run, SL_SLOT_DOWN, -1, run->work->hidden, run->n, c->n_ff, 2 * (size_t)c->n_ff);
    sl_act act = sl_run_activations(run, run->work->hidden, run->n, c->n_ff, 2 * (size_t)c->n_ff,
                                    sl_run_rounds(run, &l->w));
    linear(run, SL_SLOT_DOWN, l, &act, run->work->delta, (size_t)c->n_embd);
    sl_run_record(run, SL_TAPE_FFN_DELTA, run->work->delta, (size_t)c->n_embd, (size_t)c->n_embd);
    sl_run_tokens(run, join_token);
}

/* ---------------------------------------------------------------- activation */

/* Phi-3-small: u holds gate and linear part by turns; the gate is bounded above, the linear part on both sides,
 * infinite values are left alone. */
static void gegelu(float *u, int n, float limit) {
    for (int j = 0; j < n; j++) {
        float a = u[2 * j], b = u[2 * j + 1];
        if (limit > 0 && !isinf(a) && a > limit) a = limit;
        if (limit > 0 && !isinf(b)) b = b > limit ? limit : b < -limit ? -limit : b;
        u[j] = a / (1 + expf(-1.702f * a)) * (b + 1);
    }
}

static void silu(float *u, int n) {
    for (int j = 0; j < n; j++) u[j] /= 1 + expf(-u[j]);
}

/* up: NULL where the family has no gate. NaN stays NaN, as elsewhere. */
static void relu(float *gate, const float *up, int n) {
    for (int j = 0; j < n; j++) gate[j] = (gate[j] < 0 ? 0 : gate[j]) * (up ? up[j] : 1);
}

typedef struct activation_task {
    const sl_config *config;
    float *rows;
    int n, n_ff;
} activation_task;

static void activate_rows(void *user, int64_t chunk, int thread) {
    const activation_task *task = user;
    const sl_config *c = task->config;
    int end = (int)(chunk + 1) * TOKENS_A_TASK, ff = task->n_ff;
    (void)thread;
    for (int t = (int)chunk * TOKENS_A_TASK; t < end && t < task->n; t++) {
        float *gate = task->rows + (size_t)t * 2 * (size_t)ff, *up = c->family->gated ? gate + ff : NULL;
        switch (c->activation) {
        case SL_ACT_SILU:
            if (up) sl_silu_mul(gate, gate, up, ff);
            else silu(gate, ff);
            break;
        case SL_ACT_GELU_TANH: sl_gelu_tanh_mul(gate, gate, up, ff); break;
        case SL_ACT_GELU_ERF: sl_gelu_erf_mul(gate, gate, up, ff); break;
        case SL_ACT_RELU: relu(gate, up, ff); break;
        case SL_ACT_GEGELU: gegelu(gate, ff, c->gegelu_limit); break;
        }
    }
}

void sl_run_activate(sl_run *run, int n, int n_ff) {
    activation_task task = {run->config, run->work->hidden, n, n_ff};
    int chunks = (n + TOKENS_A_TASK - 1) / TOKENS_A_TASK;
    if (chunks == 1) activate_rows(&task, 0, 0);
    else sl_pool_run(run->model->pool, chunks, activate_rows, &task);
}

/* ---------------------------------------------------------------- one chunk */

static void (*const operators[SL_OP_COUNT])(sl_run *run) = {
    [SL_OP_ATTN_NORM] = run_norm, [SL_OP_QKV] = run_qkv, [SL_OP_ROTATE] = sl_run_rotate,
    [SL_OP_ATTEND] = sl_run_attend, [SL_OP_ATTN_OUT] = run_attn_out,
    [SL_OP_FFN_NORM] = run_norm, [SL_OP_GATE_UP] = run_gate_up, [SL_OP_DOWN] = run_down,
    [SL_OP_ROUTE] = sl_run_route, [SL_OP_EXPERTS] = sl_run_experts, [SL_OP_SHARED] = sl_run_shared,
};

static const sl_tensor *embed_of(const sl_run *run, const sl_kv *kv) {
    for (int i = 0; kv->adapters && i < kv->adapters->n; i++)
        if (kv->adapters->items[i]->embed.data) return &kv->adapters->items[i]->embed;
    return &run->weights->embed;
}

static void embed_token(const sl_run *run, int t, int thread) {
    const sl_config *c = run->config;
    const sl_weights *w = run->weights;
    const sl_segment *segment = sl_segment_of(run, t);
    sl_work *work = run->work;
    const sl_frequencies *f = &work->frequencies[segment->slot];
    int position = sl_position(segment, t);
    size_t row = (size_t)t * (size_t)c->n_embd;
    (void)thread;
    sl_row(embed_of(run, segment->kv), segment->kv->ids[position], work->x + row);
    if (c->embed_scale != 1) sl_scale(work->x + row, c->embed_scale, c->n_embd);
    for (int local = 0; c->rope_dim && local <= (c->rope_local_base > 0); local++)
        sl_rope_table(f->values[local], c->rope_dim / 2, f->factor[local], position, 1,
                      work->angles[local] + (size_t)t * (size_t)c->rope_dim);
    if (!w->positions.data) return;
    sl_row(&w->positions, position, work->delta + row);
    sl_add(work->x + row, work->delta + row, c->n_embd);
}

static void tap(const sl_run *run, const sl_forward_params *params, int layer) {
    for (int i = 0; params->tap && i < run->n_segments; i++) {
        const sl_segment *s = &run->work->segments[i];
        params->tap(params->user, layer, s->first, s->n, run->work->x + (size_t)s->row * (size_t)run->config->n_embd);
    }
}

static bool is_cancelled(const sl_forward_params *params) {
    return params->is_cancelled && params->is_cancelled(params->user);
}

/* The chunk's rows of a stream that the caller keeps; one timeline, whose positions are the stream's rows. */
static void copy_stream(const sl_run *run, float *stream, bool out) {
    size_t width = (size_t)run->config->n_embd, n = (size_t)run->n * width;
    float *rows = stream + (size_t)run->work->segments[0].first * width;
    memcpy(out ? rows : run->work->x, out ? run->work->x : rows, n * sizeof *rows);
}

/* False: cancelled between two blocks. Nothing of the chunk counts then; its positions are computed again. */
static bool run_chunk(sl_run *run, const sl_forward_params *params) {
    sl_run_tiles(run);
    sl_run_tokens(run, embed_token);
    if (params->stream && params->block >= 0) copy_stream(run, params->stream, false);
    else tap(run, params, -1);
    for (size_t i = 0; i < run->weights->n_ops; i++) {
        run->op = &run->weights->ops[i];
        if (params->stream && run->op->layer != params->block) continue;
        run->block = &run->weights->blocks[run->op->layer];
        run->layer = &run->config->layers[run->op->layer];
        operators[run->op->kind](run);
        if (!run->op->ends_block) continue;
        tap(run, params, run->op->layer);
        if (i + 1 < run->weights->n_ops && is_cancelled(params)) return false;
    }
    sl_run_record(run, SL_TAPE_END, run->work->x, (size_t)run->config->n_embd, (size_t)run->config->n_embd);
    if (params->stream) copy_stream(run, params->stream, true);
    return true;
}

/* ---------------------------------------------------------------- logits */

enum { LOGITS_A_TASK = 8192 };

typedef struct logit_task {
    const sl_config *config;
    float *logits;
    int64_t n;
} logit_task;

static void finish_logits(void *user, int64_t chunk, int thread) {
    const logit_task *task = user;
    int64_t first = chunk * LOGITS_A_TASK, left = task->n - first, n = left < LOGITS_A_TASK ? left : LOGITS_A_TASK;
    (void)thread;
    if (task->config->logit_scale != 1) sl_scale(task->logits + first, task->config->logit_scale, n);
    if (task->config->final_softcap > 0) sl_softcap(task->logits + first, task->config->final_softcap, n);
}

/* y [n_wanted, n_embd]: the rows whose logits are wanted, one behind the other. */
static void final_norm_row(const sl_run *run, int i, int thread) {
    size_t width = (size_t)run->config->n_embd;
    (void)thread;
    norm_row(run->config, run->work->y + (size_t)i * width, run->work->x + (size_t)run->work->wanted[i] * width,
             run->weights->final_norm, run->weights->final_norm_bias);
}

/* What the output matrix meets, of the wanted rows, into work->y [n_wanted, n_embd]. */
static void run_final_norm(const sl_run *run) {
    const sl_config *c = run->config;
    sl_run rows = *run;
    rows.n = run->n_wanted;
    sl_run_tokens(&rows, final_norm_row);
    sl_run_observe(run, SL_SLOT_OUTPUT, -1, run->work->y, rows.n, c->n_embd, (size_t)c->n_embd);
}

/* y [n, n_embd], normalised, times the output matrix of these adapters; blocks and low as in sl_work. */
static void multiply_output(const sl_model *m, const sl_adapters *set, const float *y, int n, void *blocks, float *low, float *out) {
    const sl_config *c = &m->config;
    const sl_tensor *w = &m->weights->output;
    for (int i = 0; set && i < set->n; i++)
        if (set->items[i]->output.data) w = &set->items[i]->output;
    bool rounds = !m->exact && sl_type_get(w->type)->is_quantised;
    sl_act act = {.x = y, .stride = (size_t)c->n_embd, .n_tokens = n, .n = c->n_embd, .blocks = rounds ? blocks : NULL};
    if (rounds) sl_act_round(m->pool, &act);
    sl_matmul(m->pool, m->exact ? SL_EXACT : SL_FAST, w, -1, &act, NULL, out, (size_t)c->n_vocab);
    for (int i = 0; set && i < set->n; i++) {
        const sl_lora *l = sl_adapter_find(set->items[i], c->n_layers, SL_SLOT_OUTPUT, 0);
        if (l) sl_lora_apply(m->pool, l, set->weights[i], n, y, act.stride, NULL, out, (size_t)c->n_vocab, low);
    }
}

static void finish_all_logits(const sl_model *m, int n, float *out) {
    const sl_config *c = &m->config;
    if (c->logit_scale != 1 || c->final_softcap > 0) {
        logit_task task = {c, out, (int64_t)n * c->n_vocab};
        sl_pool_run(m->pool, (task.n + LOGITS_A_TASK - 1) / LOGITS_A_TASK, finish_logits, &task);
    }
    for (int t = 0; t < n; t++)
        for (size_t i = 0; i < m->n_unused_ids; i++) out[(size_t)t * (size_t)c->n_vocab + (size_t)m->unused_ids[i]] = -FLT_MAX;
}

typedef struct final_rows {
    const sl_model *model;
    const float *x;
    float *y;
} final_rows;

static void final_norm_of(void *user, int64_t i, int thread) {
    const final_rows *f = user;
    const sl_weights *w = f->model->weights;
    size_t row = (size_t)i * (size_t)f->model->config.n_embd;
    (void)thread;
    norm_row(&f->model->config, f->y + row, f->x + row, w->final_norm, w->final_norm_bias);
}

void sl_logits_of(const sl_model *m, const sl_adapters *set, const float *x, int n, float *y, void *blocks, float *low, float *out) {
    final_rows f = {m, x, y};
    sl_pool_run(m->pool, n, final_norm_of, &f);
    multiply_output(m, set, y, n, blocks, low, out);
    finish_all_logits(m, n, out);
}

/* out: [n_wanted, n_vocab] */
static void run_logits(sl_run *run, float *out) {
    const sl_work *work = run->work;
    size_t width = (size_t)run->config->n_embd;
    run_final_norm(run);
    for (int from = 0, to; from < run->n_wanted; from = to) {
        const sl_adapters *set = sl_segment_of(run, work->wanted[from])->kv->adapters;
        for (to = from + 1; to < run->n_wanted && sl_segment_of(run, work->wanted[to])->kv->adapters == set;) to++;
        multiply_output(run->model, set, work->y + (size_t)from * width, to - from, work->blocks, work->low,
                        out + (size_t)from * (size_t)run->config->n_vocab);
    }
    finish_all_logits(run->model, run->n_wanted, out);
}

/* ---------------------------------------------------------------- what a chunk holds */

/* The slot with the frequencies of a regime; -1 when both hold others that this chunk uses already. */
static int slot_for(sl_run *run, int64_t regime) {
    const sl_config *c = run->config;
    sl_work *work = run->work;
    int slot = (int)(regime & 1);
    sl_frequencies *f = &work->frequencies[slot];
    if (f->regime == regime || !c->rope_dim) return slot;
    for (int i = 0; i < run->n_segments; i++)
        if (work->segments[i].slot == slot) return -1;
    for (int local = 0; local <= (c->rope_local_base > 0); local++)
        sl_rope_frequencies(c, regime, local, f->values[local], &f->factor[local]);
    f->regime = regime;
    return slot;
}

/* The next positions of a part as a segment of the chunk, as many as have room; false: none could be added. */
static bool add_segment(sl_run *run, const sl_part *part) {
    sl_work *work = run->work;
    sl_kv *kv = part->kv;
    int left = kv->target - kv->length, room = work->chunk - run->n, n = left < room ? left : room;
    int slot = n > 0 ? slot_for(run, kv->regime) : -1;
    if (slot < 0) return false;
    for (int i = 0; i < n; i++) {
        work->segment_of[run->n + i] = run->n_segments;
        if (kv->length + i >= kv->target - part->n_logits) work->wanted[run->n_wanted++] = run->n + i;
    }
    work->segments[run->n_segments++] =
        (sl_segment){.kv = kv, .row = run->n, .n = n, .first = kv->length, .slot = slot};
    run->n += n;
    return true;
}

/* Fills a chunk from parts *part on, and leaves *part at the first that is not finished with it. */
static void fill_chunk(sl_run *run, const sl_part *parts, int n_parts, int *part) {
    run->n = run->n_segments = run->n_wanted = 0;
    while (*part < n_parts && add_segment(run, &parts[*part])) {
        const sl_segment *last = &run->work->segments[run->n_segments - 1];
        if (last->first + last->n < last->kv->target) return; /* the chunk is full */
        ++*part;
    }
}

/* ---------------------------------------------------------------- entry */

static sllm_status check_part(const sl_model *model, const sl_part *part, const sl_part *first, sllm_error *error) {
    const sl_kv *kv = part->kv;
    if (part->n < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d tokens to compute; need at least 1", part->n);
    if (part->n_logits < 0 || part->n_logits > part->n)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "logits of %d positions of %d", part->n_logits, part->n);
    if (kv->pool != first->kv->pool || kv->pool->model != model)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the timeline belongs to another pool or model");
    if (kv->target) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a timeline may appear in one part only");
    if (part->n > kv->n_ctx - kv->length)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "%d tokens after %d do not fit the context of %d positions", part->n,
                       kv->length, kv->n_ctx);
    for (int i = 0; i < part->n; i++)
        if (part->ids[i] < 0 || part->ids[i] >= model->config.n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "token %d is %d, outside the vocabulary of %d", i, part->ids[i],
                           model->config.n_vocab);
    return SLLM_OK;
}

/* All parts checked, and kv->target set in each; on failure in none. */
static sllm_status check(const sl_model *model, const sl_part *parts, int n_parts, sllm_error *error) {
    sllm_status status = SLLM_OK;
    int64_t pages = 0;
    int n = 0;
    if (n_parts < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "nothing to compute");
    for (; n < n_parts && !(status = check_part(model, &parts[n], parts, error)); n++) {
        parts[n].kv->target = parts[n].kv->length + parts[n].n;
        pages += sl_kv_pages_needed(parts[n].kv, parts[n].n);
    }
    const sl_kv_pool *pool = parts->kv->pool;
    if (!status && pages > pool->n_free)
        status = sl_fail(error, SLLM_ERROR_MEMORY, "%lld pages of %d positions are needed, and %d of the KV cache's %d "
                         "are unused", (long long)pages, SL_PAGE, pool->n_free, pool->n_pages);
    for (int i = 0; status && i < n; i++) parts[i].kv->target = 0;
    return status;
}

/* Takes the pages of a part and notes its ids. Keys of another rotary regime are of no use: all are computed again. */
static void begin_part(const sl_config *c, const sl_part *part) {
    sl_kv *kv = part->kv;
    int64_t regime = sl_rope_regime(c, kv->target);
    bool anew = regime != kv->regime;
    sl_kv_reserve(kv, part->n, anew); /* cannot fail: counted before */
    memmove(kv->ids + kv->length, part->ids, (size_t)part->n * sizeof *kv->ids); /* may be sl_kv_ids itself */
    kv->regime = regime;
    if (anew) kv->length = 0;
}

static sllm_status run_parts(sl_run *run, const sl_part *parts, int n_parts, const sl_forward_params *params,
                             sllm_error *error) {
    float *logits = params->logits;
    for (int part = 0, done = 0; part < n_parts; done += run->n) {
        if (is_cancelled(params))
            return sl_fail(error, SLLM_ERROR_CANCELLED, "cancelled after %d positions", done);
        fill_chunk(run, parts, n_parts, &part);
        if (!run_chunk(run, params))
            return sl_fail(error, SLLM_ERROR_CANCELLED, "cancelled after %d positions", done);
        if (!logits && params->observe && run->n_wanted) run_final_norm(run);
        if (logits && run->n_wanted) {
            run_logits(run, logits);
            logits += (size_t)run->n_wanted * (size_t)run->config->n_vocab;
        }
        for (int i = 0; i < run->n_segments; i++) run->work->segments[i].kv->length += run->work->segments[i].n;
    }
    return SLLM_OK;
}

sllm_status sl_forward_batch(const sl_model *model, sl_work *work, const sl_part *parts, int n_parts,
                             const sl_forward_params *params, sllm_error *error) {
    static const sl_forward_params nothing;
    sllm_status status = check(model, parts, n_parts, error);
    if (status) return status;
    for (int i = 0; i < n_parts; i++) begin_part(&model->config, &parts[i]);
    if (!params) params = &nothing;
    sl_run run = {.model = model, .config = &model->config, .weights = model->weights, .work = work, .params = params,
                  .arithmetic = model->exact ? SL_EXACT : SL_FAST};
    status = run_parts(&run, parts, n_parts, params, error);
    for (int i = 0; i < n_parts; i++) {
        parts[i].kv->target = 0;
        sl_kv_trim(parts[i].kv);
    }
    return status;
}

sllm_status sl_forward(const sl_model *model, sl_work *work, sl_kv *kv, const int32_t *ids, int n,
                       const sl_forward_params *params, sllm_error *error) {
    sl_part part = {.kv = kv, .ids = ids, .n = n};
    if (params && params->logits && n > 0) part.n_logits = params->all_logits ? n : 1;
    else if (params && params->observe && !params->stream && n > 0) part.n_logits = n;
    return sl_forward_batch(model, work, &part, 1, params, error);
}
