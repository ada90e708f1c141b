#include "train/backward_int.h"

#include "base/error.h"
#include "model/families.h"

#include <stdlib.h>
#include <string.h>

enum { LOGITS_BYTES = 1 << 26, ROWS_A_TASK = 8 };

/* ---------------------------------------------------------------- memory */

typedef struct sizes {
    size_t embd, wide, qkv, ff, out, rank, experts, used;
} sizes;

static bool widest(void *user, const sl_product_place *place) {
    sizes *s = user;
    if (place->slot != SL_SLOT_OUTPUT && (size_t)place->w.shape[0] > s->out) s->out = (size_t)place->w.shape[0];
    return true;
}

static sizes sizes_of(const sl_model *model, const sl_adapter *adapter) {
    const sl_config *c = &model->config;
    sizes s = {.embd = (size_t)c->n_embd, .qkv = ((size_t)c->n_heads + 2 * (size_t)c->n_kv_heads) * (size_t)c->head_dim};
    size_t heads = (size_t)c->n_heads * (size_t)c->head_dim;
    s.wide = heads > s.embd ? heads : s.embd;
    s.ff = (size_t)c->n_ff;
    if ((size_t)c->n_ff_expert > s.ff && c->n_experts) s.ff = (size_t)c->n_ff_expert;
    if ((size_t)c->n_ff_shared > s.ff && c->n_experts) s.ff = (size_t)c->n_ff_shared;
    s.rank = (size_t)adapter->max_rank;
    s.experts = (size_t)c->n_experts;
    s.used = s.experts ? (size_t)c->n_experts_used : 0;
    sl_products_each(model, widest, &s);
    return s;
}

static bool has_gains(const sl_adapter *a) {
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i].gain) return true;
    return false;
}

/* Lays the buffers out from `base` (NULL: only counts) and returns the bytes they take. */
static uint64_t lay_out(sl_backward *b, const sizes *s, bool gains, char *base) {
    size_t n = (size_t)b->n_rows, routes = n * s->used, floats = sizeof(float);
    uint64_t total = 0, threads = (uint64_t)sl_pool_threads(b->model->pool);
    size_t widest_in = s->wide > s->ff ? s->wide : s->ff;
    const struct { void **place; uint64_t bytes; } parts[] = {
        {(void **)&b->products.tile, SL_TILE_FLOATS * floats > widest_in * floats ? SL_TILE_FLOATS * floats : widest_in * floats},
        {(void **)&b->products.low, 2 * n * s->rank * floats},
        {(void **)&b->products.scaled, gains ? n * s->out * floats : 0},
        {(void **)&b->sums, b->n_sums * floats},
        {(void **)&b->keys, 2 * n * sizeof *b->keys},
        {(void **)&b->products.dropped, n * widest_in * floats},
        {(void **)&b->stream, n * s->embd * floats},
        {(void **)&b->y, n * s->wide * floats},
        {(void **)&b->dy, n * s->wide * floats},
        {(void **)&b->qkv, n * s->qkv * floats},
        {(void **)&b->d_qkv, n * s->qkv * floats},
        {(void **)&b->hidden, 2 * n * s->ff * floats},
        {(void **)&b->d_hidden, 2 * n * s->ff * floats},
        {(void **)&b->h, n * s->ff * floats},
        {(void **)&b->dh, n * s->ff * floats},
        {(void **)&b->delta, n * s->embd * floats},
        {(void **)&b->d_delta, n * s->embd * floats},
        {(void **)&b->blocks, b->model->exact ? 0 : sl_act_bytes((int64_t)n, (int64_t)widest_in)},
        {(void **)&b->routes, 4 * routes * sizeof(int32_t)},
        {(void **)&b->route_weights, (3 * routes + 2 * n * s->experts) * floats},
        {(void **)&b->gather, s->experts ? 3 * n * s->embd * floats : 0},
        {(void **)&b->logits, (uint64_t)b->logit_rows * (uint64_t)b->model->config.n_vocab * floats},
        {(void **)&b->capped, b->model->config.final_softcap > 0 ? threads * (uint64_t)b->model->config.n_vocab * floats : 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].place = parts[i].bytes ? base + total : NULL;
        total += (parts[i].bytes + 63) / 64 * 64;
    }
    return total;
}

static int logit_rows(const sl_model *model, int n_rows) {
    int rows = (int)(LOGITS_BYTES / sizeof(float) / (size_t)model->config.n_vocab);
    if (rows < 16) rows = 16;
    return rows < n_rows ? rows : n_rows;
}

static size_t count_sums(const sl_adapter *a) {
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        const sl_lora *l = &a->list[i];
        n += (size_t)l->rank * (size_t)(l->n_in + l->n_out) + (l->magnitude ? (size_t)l->n_out : 0);
    }
    return n;
}

uint64_t sl_backward_bytes(const sl_model *model, const sl_adapter *adapter, int n_rows) {
    sl_backward b = {.model = model, .n_rows = n_rows, .n_sums = count_sums(adapter), .logit_rows = logit_rows(model, n_rows)};
    sizes s = sizes_of(model, adapter);
    return lay_out(&b, &s, has_gains(adapter), NULL);
}

static void point_at_sums(sl_backward *b) {
    float *at = b->sums;
    for (size_t i = 0; i < b->adapter->n; i++) {
        const sl_lora *l = &b->adapter->list[i];
        b->grads[i].a = at;
        at += (size_t)l->rank * (size_t)l->n_in;
        b->grads[i].b = at;
        at += (size_t)l->rank * (size_t)l->n_out;
        if (!l->magnitude) continue;
        b->grads[i].magnitude = at;
        at += l->n_out;
    }
}

/* ---------------------------------------------------------------- products by slot */

static size_t index_of(const sl_backward *b, int layer, sl_slot slot, int expert) {
    return ((size_t)layer * SL_SLOT_COUNT + (size_t)slot) * (size_t)b->adapter->n_experts + (size_t)expert;
}

static bool count_place(void *user, const sl_product_place *place) {
    (void)place;
    ++*(size_t *)user;
    return true;
}

static bool note_place(void *user, const sl_product_place *place) {
    sl_backward *b = user;
    b->places[b->n_places++] = *place;
    b->place_of[index_of(b, place->layer, place->slot, place->expert)] = (int32_t)b->n_places;
    return true;
}

static bool list_places(sl_backward *b) {
    size_t n = 0;
    sl_products_each(b->model, count_place, &n);
    b->places = calloc(n, sizeof *b->places);
    b->place_of = calloc(((size_t)b->model->config.n_layers + 1) * SL_SLOT_COUNT * (size_t)b->adapter->n_experts, sizeof *b->place_of);
    if (!b->places || !b->place_of) return false;
    sl_products_each(b->model, note_place, b);
    return true;
}

const sl_product_place *sl_backward_place(const sl_backward *b, int layer, sl_slot slot, int expert) {
    int32_t at = b->place_of[index_of(b, layer, slot, expert)];
    return at ? &b->places[at - 1] : NULL;
}

const sl_lora *sl_backward_lora(const sl_backward *b, const sl_product_place *place, const sl_lora_grad **grad) {
    const sl_lora *l = sl_adapter_find(b->adapter, place->layer, place->slot, place->expert);
    *grad = l ? &b->grads[l - b->adapter->list] : NULL;
    return l;
}

void sl_backward_product(sl_backward *b, sl_slot slot, int expert, int n, const float *x, size_t x_stride, const float *y, size_t y_stride,
                         const float *dy, size_t dy_stride, float *dx, size_t dx_stride) {
    const sl_product_place *place = sl_backward_place(b, b->layer, slot, expert);
    const sl_lora_grad *grad;
    if (!place) return;
    const sl_lora *lora = sl_backward_lora(b, place, &grad);
    sl_product_backward(&b->products, place, lora, grad, n, x, x_stride, y, y_stride, dy, dy_stride, dx, dx_stride);
}

void sl_backward_forward(sl_backward *b, sl_slot slot, int expert, int n, const float *x, size_t x_stride, float *y, size_t y_stride) {
    const sl_product_place *place = sl_backward_place(b, b->layer, slot, expert);
    const sl_lora_grad *grad;
    if (!place || n < 1) return;
    bool rounds = !b->model->exact && sl_type_get(place->w.type)->is_quantised;
    sl_act act = {.x = x, .stride = x_stride, .n_tokens = n, .n = place->w.shape[1], .blocks = rounds ? b->blocks : NULL};
    if (rounds) sl_act_round(b->model->pool, &act);
    sl_matmul(b->model->pool, b->model->exact ? SL_EXACT : SL_FAST, &place->w, -1, &act, place->bias, y, y_stride);
    const sl_lora *lora = sl_backward_lora(b, place, &grad);
    if (lora && b->products.dropout) {
        sl_dropout_rows(b->model->pool, b->products.dropout, lora, b->products.keys, n, x, x_stride, lora->n_in, b->products.dropped);
        x = b->products.dropped;
        x_stride = (size_t)lora->n_in;
    }
    if (lora) sl_lora_apply(b->model->pool, lora, 1, n, x, x_stride, place->bias, y, y_stride, b->products.low);
}

/* ---------------------------------------------------------------- rows over the pool */

typedef struct norm_job {
    const sl_config *c;
    const float *x, *weight, *bias, *dy;
    float *out;
    int n;
} norm_job;

static void norm_rows(void *user, int64_t chunk, int thread) {
    const norm_job *j = user;
    size_t width = (size_t)j->c->n_embd;
    (void)thread;
    for (int t = (int)chunk * ROWS_A_TASK; t < (int)(chunk + 1) * ROWS_A_TASK && t < j->n; t++) {
        size_t row = (size_t)t * width;
        if (j->dy) sl_norm_backward(j->c, j->x + row, j->weight, j->dy + row, (int64_t)width, j->out + row);
        else if (j->c->norm == SL_NORM_RMS) sl_rms_norm(j->out + row, j->x + row, j->weight, (int64_t)width, j->c->norm_eps);
        else sl_layer_norm(j->out + row, j->x + row, j->weight, j->bias, (int64_t)width, j->c->norm_eps);
    }
}

void sl_backward_norm(sl_backward *b, const float *x, const float *weight, const float *bias, int n, float *y) {
    norm_job j = {&b->model->config, x, weight, bias, NULL, y, n};
    sl_pool_run(b->model->pool, (n + ROWS_A_TASK - 1) / ROWS_A_TASK, norm_rows, &j);
}

void sl_backward_norm_grad(sl_backward *b, const float *x, const float *weight, const float *dy, int n, float *dx) {
    norm_job j = {&b->model->config, x, weight, NULL, dy, dx, n};
    sl_pool_run(b->model->pool, (n + ROWS_A_TASK - 1) / ROWS_A_TASK, norm_rows, &j);
}

typedef struct activation_job {
    sl_backward *b;
    int n, n_ff;
} activation_job;

static void activation_rows(void *user, int64_t chunk, int thread) {
    const activation_job *j = user;
    const sl_config *c = &j->b->model->config;
    size_t ff = (size_t)j->n_ff, wide = c->family->gated ? 2 * ff : ff;
    (void)thread;
    for (int t = (int)chunk * ROWS_A_TASK; t < (int)(chunk + 1) * ROWS_A_TASK && t < j->n; t++)
        sl_activation_backward(c, j->b->hidden + (size_t)t * wide, j->b->dh + (size_t)t * ff, j->n_ff, j->b->h + (size_t)t * ff,
                               j->b->d_hidden + (size_t)t * wide);
}

/* hidden [n, 2 n_ff] (n_ff where not gated) and dh give h and d_hidden. */
void sl_backward_activation(sl_backward *b, int n, int n_ff) {
    activation_job j = {b, n, n_ff};
    sl_pool_run(b->model->pool, (n + ROWS_A_TASK - 1) / ROWS_A_TASK, activation_rows, &j);
}

typedef struct read_job {
    sl_backward *b;
    sl_tape_point point;
    float *out;
} read_job;

static void read_rows(void *user, int64_t chunk, int thread) {
    const read_job *j = user;
    size_t width = sl_tape_width(j->b->tape, j->point);
    int first = (int)chunk * 64, n = j->b->n - first < 64 ? j->b->n - first : 64;
    (void)thread;
    sl_tape_read(j->b->tape, j->point, j->b->layer, first, n, j->out + (size_t)first * width, width);
}

/* A point of the layer, all rows, into out [n, its width]. */
static void read_tape(sl_backward *b, sl_tape_point point, float *out) {
    read_job j = {b, point, out};
    sl_pool_run(b->model->pool, (b->n + 63) / 64, read_rows, &j);
}

static void clear(float *x, int n, size_t width) { memset(x, 0, (size_t)n * width * sizeof *x); }

/* ---------------------------------------------------------------- a block, backwards */

/* The gradient of what a part added to the stream, before its norm where it has one: dx, or b->d_delta. */
static const float *through_post_norm(sl_backward *b, sl_tape_point point, const float *post, const float *dx, const float **delta) {
    size_t width = (size_t)b->model->config.n_embd;
    *delta = NULL;
    if (sl_tape_width(b->tape, point)) {
        read_tape(b, point, b->delta);
        *delta = b->delta;
    }
    if (!post) return dx;
    clear(b->d_delta, b->n, width);
    sl_backward_norm_grad(b, b->delta, post, dx, b->n, b->d_delta);
    return b->d_delta;
}

static void plain_feed_forward(sl_backward *b, const float *dx) {
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd, ff = (size_t)c->n_ff, wide = c->family->gated ? 2 * ff : ff;
    const float *down, *d = through_post_norm(b, SL_TAPE_FFN_DELTA, b->block->ffn_post_norm, dx, &down);
    bool split = b->block->gate.w.data != NULL;
    read_tape(b, SL_TAPE_HIDDEN, b->hidden);
    /* h is needed before dh for the adapter's gradients, and dh before d_hidden: the first pass gives h alone */
    clear(b->dh, b->n, ff);
    sl_backward_activation(b, b->n, c->n_ff);
    sl_backward_product(b, SL_SLOT_DOWN, 0, b->n, b->h, ff, down, embd, d, embd, b->dh, ff);
    sl_backward_activation(b, b->n, c->n_ff);
    sl_slot up = !split && c->family->gated ? SL_SLOT_GATE_UP : SL_SLOT_UP;
    size_t at = split ? ff : 0;
    sl_backward_product(b, up, 0, b->n, b->y, embd, b->hidden + at, wide, b->d_hidden + at, wide, b->dy, embd);
    if (split) sl_backward_product(b, SL_SLOT_GATE, 0, b->n, b->y, embd, b->hidden, wide, b->d_hidden, wide, b->dy, embd);
}

static void feed_forward(sl_backward *b, float *dx) {
    size_t embd = (size_t)b->model->config.n_embd;
    read_tape(b, SL_TAPE_MIDDLE, b->stream);
    sl_backward_norm(b, b->stream, b->block->ffn_norm, b->block->ffn_norm_bias, b->n, b->y);
    clear(b->dy, b->n, embd);
    if (b->model->config.layers[b->layer].moe) sl_backward_experts(b, dx);
    else plain_feed_forward(b, dx);
    sl_backward_norm_grad(b, b->stream, b->block->ffn_norm, b->dy, b->n, dx);
}

static void qkv_products(sl_backward *b) {
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd, width = sl_tape_width(b->tape, SL_TAPE_QKV), at = 0;
    static const sl_slot slots[3] = {SL_SLOT_Q, SL_SLOT_K, SL_SLOT_V};
    bool fused = !b->block->qkv[1].w.data;
    for (int i = 0; i < (fused ? 1 : 3); i++) {
        sl_backward_product(b, fused ? SL_SLOT_QKV : slots[i], 0, b->n, b->y, embd, b->qkv + at, width, b->d_qkv + at, width, b->dy, embd);
        at += (size_t)b->block->qkv[i].w.shape[0];
    }
}

static bool attention(sl_backward *b, const sl_sequence *sequences, int n_sequences, float *dx) {
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd, heads = (size_t)c->n_heads * (size_t)c->head_dim;
    const float *out, *d = through_post_norm(b, SL_TAPE_ATTN_DELTA, b->block->attn_post_norm, dx, &out);
    read_tape(b, SL_TAPE_ATTENTION, b->y);
    clear(b->dy, b->n, heads);
    sl_backward_product(b, SL_SLOT_ATTN_OUT, 0, b->n, b->y, heads, out, embd, d, embd, b->dy, heads);
    read_tape(b, SL_TAPE_QKV, b->qkv);
    if (!sl_attention_backward(b->model, b->products.blas, b->layer, sequences, n_sequences, b->qkv, b->y, b->dy, b->d_qkv)) return false;
    read_tape(b, SL_TAPE_BLOCK, b->stream);
    sl_backward_norm(b, b->stream, b->block->attn_norm, b->block->attn_norm_bias, b->n, b->y);
    clear(b->dy, b->n, embd);
    qkv_products(b);
    sl_backward_norm_grad(b, b->stream, b->block->attn_norm, b->dy, b->n, dx);
    return true;
}

sllm_status sl_backward_run(sl_backward *b, const sl_tape *tape, const sl_sequence *sequences, int n_sequences, float *dx,
                            void (*visit)(void *user, int layer, const float *dx, int n), void *user, sllm_error *error) {
    b->tape = tape;
    b->n = sl_tape_rows(tape);
    for (b->layer = b->model->config.n_layers - 1; b->layer >= 0; b->layer--) {
        if (visit) visit(user, b->layer, dx, b->n);
        b->block = &b->model->weights->blocks[b->layer];
        feed_forward(b, dx);
        if (!attention(b, sequences, n_sequences, dx)) return sl_fail_memory(error, "the gradient of attention", 0);
    }
    if (visit) visit(user, -1, dx, b->n);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- making */

sllm_status sl_backward_new(const sl_model *model, sl_adapter *adapter, int n_rows, sl_backward **backward, sllm_error *error) {
    const sl_lora *output = sl_adapter_find(adapter, model->config.n_layers, SL_SLOT_OUTPUT, 0);
    *backward = NULL;
    if (output && output->gain)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "the output matrix learns no magnitudes (DoRA): its logits are not kept");
    sl_backward *b = calloc(1, sizeof *b);
    if (!b) return sl_fail_memory(error, "the backward pass", sizeof *b);
    *b = (sl_backward){.model = model, .adapter = adapter, .n_rows = n_rows, .n_sums = count_sums(adapter), .logit_rows = logit_rows(model, n_rows)};
    b->set = (sl_adapters){.n = 1, .items = {adapter}, .weights = {1}};
    b->products.pool = model->pool;
    sllm_status status = sl_blas_get(&b->products.blas, error);
    sizes s = sizes_of(model, adapter);
    uint64_t bytes = lay_out(b, &s, has_gains(adapter), NULL);
    void *memory = NULL; /* the first buffer is where it begins */
    if (!status && (bytes > SIZE_MAX || posix_memalign(&memory, 64, (size_t)bytes))) status = sl_fail_memory(error, "the backward pass", (size_t)bytes);
    if (!status) {
        lay_out(b, &s, has_gains(adapter), memory);
        b->grads = calloc(adapter->n ? adapter->n : 1, sizeof *b->grads);
        if (!b->grads || !list_places(b)) status = sl_fail_memory(error, "the backward pass", 0);
    }
    if (status) {
        sl_backward_free(b);
        return status;
    }
    point_at_sums(b);
    sl_backward_clear(b);
    *backward = b;
    return SLLM_OK;
}

void sl_backward_free(sl_backward *b) {
    if (!b) return;
    free(b->products.tile);
    free(b->grads);
    free(b->places);
    free(b->place_of);
    free(b);
}

const sl_lora_grad *sl_backward_grads(const sl_backward *b) { return b->grads; }
void sl_backward_drop(sl_backward *b, const sl_dropout *dropout) {
    b->products.dropout = dropout;
    b->products.keys = b->keys;
}
uint64_t *sl_backward_keys(sl_backward *b) { return b->keys; }
void sl_backward_clear(sl_backward *b) { memset(b->sums, 0, b->n_sums * sizeof *b->sums); }
