/* The forward pass: embeds a chunk of tokens, runs the operator list over it, and computes the logits asked for. */
#include "model/forward.h"

#include "base/checked.h"
#include "base/error.h"
#include "model/families.h"
#include "model/rope.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- scratch */

/* Lays the buffers out from `base` (NULL: only counts) and returns the bytes they take. */
static uint64_t lay_out(sl_work *w, const sl_config *c, int chunk, int n_ctx, int n_threads, bool exact, char *base) {
    sl_op_sizes s;
    uint64_t total = 0;
    sl_ops_sizes(c, chunk, exact, &s);
    size_t half = (size_t)c->rope_dim / 2, n = (size_t)chunk;
    const struct { void **place; uint64_t bytes; } parts[] = {
        {(void **)&w->x, s.x * sizeof(float)},
        {(void **)&w->y, s.y * sizeof(float)},
        {(void **)&w->qkv, s.qkv * sizeof(float)},
        {(void **)&w->hidden, s.hidden * sizeof(float)},
        {(void **)&w->delta, s.delta * sizeof(float)},
        {(void **)&w->blocks, s.blocks},
        {(void **)&w->gather, s.gather * sizeof(float)},
        {(void **)&w->router, s.router * sizeof(float)},
        {(void **)&w->route_ids, s.routes * sizeof(int32_t)},
        {(void **)&w->route_weights, s.routes * sizeof(float)},
        {(void **)&w->route_rows, s.routes ? 2 * n * sizeof(int32_t) : 0},
        {(void **)&w->scores, (uint64_t)n_threads * (uint64_t)n_ctx * sizeof(float)},
        {(void **)&w->mix, (uint64_t)n_threads * (uint64_t)c->head_dim * sizeof(float)},
        {(void **)&w->frequencies[0], half * sizeof(float)},
        {(void **)&w->frequencies[1], half * sizeof(float)},
        {(void **)&w->angles[0], n * 2 * half * sizeof(float)},
        {(void **)&w->angles[1], c->rope_local_base > 0 ? n * 2 * half * sizeof(float) : 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].place = parts[i].bytes ? base + total : NULL;
        total += (parts[i].bytes + 63) / 64 * 64;
    }
    return total;
}

static int chunk_for(int n_ctx) { return n_ctx < SL_CHUNK ? n_ctx : SL_CHUNK; }

uint64_t sl_work_bytes(const sl_config *config, int n_ctx, int n_threads, bool exact) {
    sl_work none = {0};
    return sizeof none + lay_out(&none, config, chunk_for(n_ctx), n_ctx, n_threads, exact, NULL);
}

sllm_status sl_work_new(const sl_model *model, int n_ctx, sl_work **work, sllm_error *error) {
    const sl_config *c = &model->config;
    *work = NULL;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights and cannot compute");
    if (n_ctx < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a context of %d positions; need at least 1", n_ctx);
    sl_work counted = {.chunk = chunk_for(n_ctx), .n_threads = sl_pool_threads(model->pool), .n_ctx = n_ctx,
                       .regime = -1};
    uint64_t bytes = lay_out(&counted, c, counted.chunk, n_ctx, counted.n_threads, model->exact, NULL);
    sl_work *new = malloc(sizeof *new);
    void *memory = NULL; /* the first buffer, x, is where it begins */
    if (!new || bytes > SIZE_MAX || posix_memalign(&memory, 64, (size_t)bytes)) {
        free(new);
        return sl_fail_memory(error, "the working memory of a session", (size_t)bytes);
    }
    *new = counted;
    lay_out(new, c, new->chunk, n_ctx, new->n_threads, model->exact, memory);
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

static void linear(sl_run *run, const sl_linear *l, const sl_act *act, float *y, size_t stride) {
    sl_matmul(run->model->pool, run->arithmetic, &l->w, -1, act, l->bias, y, stride);
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

static void run_norm(sl_run *run) { sl_run_tokens(run, norm_token); }

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
    for (int i = 0; i < 3; i++) rounds |= sl_run_rounds(run, &qkv[i].w);
    sl_act act = sl_run_activations(run, run->work->y, run->n, c->n_embd, (size_t)c->n_embd, rounds);
    size_t stride = ((size_t)c->n_heads + 2 * (size_t)c->n_kv_heads) * (size_t)c->head_dim;
    float *out = run->work->qkv;
    for (int i = 0; i < 3 && qkv[i].w.data; i++) {
        linear(run, &qkv[i], &act, out, stride);
        out += qkv[i].w.shape[0];
    }
}

static void run_attn_out(sl_run *run) {
    const sl_config *c = run->config;
    size_t width = (size_t)c->n_heads * (size_t)c->head_dim;
    const sl_linear *l = &run->block->attn_out;
    sl_act act = sl_run_activations(run, run->work->y, run->n, (int64_t)width, width, sl_run_rounds(run, &l->w));
    linear(run, l, &act, run->work->delta, (size_t)c->n_embd);
    sl_run_tokens(run, join_token);
}

static void run_gate_up(sl_run *run) {
    const sl_config *c = run->config;
    const sl_block *b = run->block;
    size_t ff = (size_t)c->n_ff;
    bool rounds = sl_run_rounds(run, &b->gate.w) || sl_run_rounds(run, &b->up.w);
    sl_act act = sl_run_activations(run, run->work->y, run->n, c->n_embd, (size_t)c->n_embd, rounds);
    if (b->gate.w.data) linear(run, &b->gate, &act, run->work->hidden, 2 * ff);
    linear(run, &b->up, &act, run->work->hidden + (b->gate.w.data ? ff : 0), 2 * ff);
    sl_run_activate(run, run->n, c->n_ff);
}

static void run_down(sl_run *run) {
    const sl_config *c = run->config;
    const sl_linear *l = &run->block->down;
    sl_act act = sl_run_activations(run, run->work->hidden, run->n, c->n_ff, 2 * (size_t)c->n_ff,
                                    sl_run_rounds(run, &l->w));
    linear(run, l, &act, run->work->delta, (size_t)c->n_embd);
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

static void embed_token(const sl_run *run, int t, int thread) {
    const sl_config *c = run->config;
    const sl_weights *w = run->weights;
    size_t row = (size_t)t * (size_t)c->n_embd;
    (void)thread;
    sl_row(&w->embed, run->kv->ids[run->first + t], run->work->x + row);
    if (c->embed_scale != 1) sl_scale(run->work->x + row, c->embed_scale, c->n_embd);
    if (!w->positions.data) return;
    sl_row(&w->positions, run->first + t, run->work->delta + row);
    sl_add(run->work->x + row, run->work->delta + row, c->n_embd);
}

static void prepare_angles(sl_run *run) {
    const sl_config *c = run->config;
    sl_work *work = run->work;
    if (!c->rope_dim) return;
    for (int local = 0; local <= (c->rope_local_base > 0); local++) {
        if (work->regime != run->kv->regime)
            sl_rope_frequencies(c, run->kv->regime, local, work->frequencies[local], &work->frequency_factor[local]);
        sl_rope_table(work->frequencies[local], c->rope_dim / 2, work->frequency_factor[local], run->first, run->n,
                      work->angles[local]);
    }
    work->regime = run->kv->regime;
}

static void run_chunk(sl_run *run, const sl_forward_params *params) {
    prepare_angles(run);
    sl_run_tokens(run, embed_token);
    if (params->tap) params->tap(params->user, -1, run->first, run->n, run->work->x);
    for (size_t i = 0; i < run->weights->n_ops; i++) {
        run->op = &run->weights->ops[i];
        run->block = &run->weights->blocks[run->op->layer];
        run->layer = &run->config->layers[run->op->layer];
        operators[run->op->kind](run);
        if (run->op->ends_block && params->tap)
            params->tap(params->user, run->op->layer, run->first, run->n, run->work->x);
    }
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

static void final_norm_token(const sl_run *run, int t, int thread) {
    size_t row = (size_t)t * (size_t)run->config->n_embd;
    (void)thread;
    norm_row(run->config, run->work->y + row, run->work->x + row, run->weights->final_norm,
             run->weights->final_norm_bias);
}

/* Logits of the chunk's tokens from `from` on, into out [n - from, n_vocab]. */
static void run_logits(sl_run *run, int from, float *out) {
    const sl_config *c = run->config;
    sl_run rows = *run;
    sl_work shifted = *run->work;
    shifted.x += (size_t)from * (size_t)c->n_embd;
    rows.work = &shifted;
    rows.n = run->n - from;
    sl_run_tokens(&rows, final_norm_token);
    sl_act act = sl_run_activations(&rows, shifted.y, rows.n, c->n_embd, (size_t)c->n_embd,
                                    sl_run_rounds(run, &run->weights->output));
    sl_matmul(run->model->pool, run->arithmetic, &run->weights->output, -1, &act, NULL, out, (size_t)c->n_vocab);
    if (c->logit_scale != 1 || c->final_softcap > 0) {
        logit_task task = {c, out, (int64_t)rows.n * c->n_vocab};
        sl_pool_run(run->model->pool, (task.n + LOGITS_A_TASK - 1) / LOGITS_A_TASK, finish_logits, &task);
    }
    for (int t = 0; t < rows.n; t++)
        for (size_t i = 0; i < run->model->n_unused_ids; i++)
            out[(size_t)t * (size_t)c->n_vocab + (size_t)run->model->unused_ids[i]] = -FLT_MAX;
}

/* ---------------------------------------------------------------- entry */

static sllm_status check(const sl_model *model, const sl_work *work, const sl_kv *kv, const int32_t *ids, int n,
                         sllm_error *error) {
    if (n < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d tokens to compute; need at least 1", n);
    if (n > kv->n_ctx - kv->length)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "%d tokens after %d do not fit the context of %d positions", n,
                       kv->length, kv->n_ctx);
    if (work->n_ctx < kv->n_ctx)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "working memory for %d positions cannot serve a context of %d",
                       work->n_ctx, kv->n_ctx);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= model->config.n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "token %d is %d, outside the vocabulary of %d", i, ids[i],
                           model->config.n_vocab);
    return SLLM_OK;
}

sllm_status sl_forward(const sl_model *model, sl_work *work, sl_kv *kv, const int32_t *ids, int n,
                       const sl_forward_params *params, sllm_error *error) {
    static const sl_forward_params nothing;
    sllm_status status = check(model, work, kv, ids, n, error);
    if (status) return status;
    if (!params) params = &nothing;
    const sl_config *c = &model->config;
    int before = kv->length, total = before + n;
    int64_t regime = sl_rope_regime(c, total);
    if (regime != kv->regime) kv->length = 0; /* keys of another regime are of no use */
    kv->regime = regime;
    memmove(kv->ids + before, ids, (size_t)n * sizeof *ids); /* the caller may hand over sl_kv_ids itself */
    sl_run run = {.model = model, .config = c, .weights = model->weights, .work = work, .kv = kv,
                  .arithmetic = model->exact ? SL_EXACT : SL_FAST};
    while (kv->length < total) {
        if (params->is_cancelled && params->is_cancelled(params->user))
            return sl_fail(error, SLLM_ERROR_CANCELLED, "cancelled after %d of %d positions", kv->length, total);
        run.first = kv->length;
        run.n = total - run.first < work->chunk ? total - run.first : work->chunk;
        run_chunk(&run, params);
        int end = run.first + run.n, first_wanted = params->all_logits ? before : total - 1;
        if (params->logits && end > first_wanted) {
            int from = first_wanted > run.first ? first_wanted - run.first : 0;
            size_t row = (size_t)(run.first + from - first_wanted);
            run_logits(&run, from, params->logits + row * (size_t)c->n_vocab);
        }
        kv->length = end;
    }
    return SLLM_OK;
}
