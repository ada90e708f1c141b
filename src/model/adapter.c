#include "model/adapter.h"

#include "base/error.h"
#include "model/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the list */

typedef struct counting {
    bool (*wants)(void *user, const sl_product_place *place);
    void *user;
    sl_adapter *adapter;
    int rank;
    float scale;
    bool dora, failed;
} counting;

static bool count(void *user, const sl_product_place *place) {
    counting *c = user;
    c->adapter->n += c->wants(c->user, place);
    return true;
}

/* Room for the list and its index. */
static bool make_room(const sl_model *model, sl_adapter *a) {
    const sl_config *c = &model->config;
    a->n_experts = c->n_experts > 0 ? c->n_experts : 1;
    a->list = sl_arena_array(&a->arena, a->n ? a->n : 1, sizeof *a->list);
    a->places = sl_arena_array(&a->arena, ((size_t)c->n_layers + 1) * SL_SLOT_COUNT * (size_t)a->n_experts, sizeof *a->places);
    a->n = 0;
    return a->list && a->places;
}

static sl_lora *add(sl_adapter *a, const sl_product_place *place, int rank, float scale, bool dora) {
    int64_t rows = place->w.shape[0], columns = place->w.shape[1];
    sl_lora *l = &a->list[a->n];
    *l = (sl_lora){.slot = place->slot, .layer = place->layer, .expert = place->expert, .rank = rank, .n_in = columns, .n_out = rows,
                   .scale = scale};
    l->a = sl_arena_array(&a->arena, (size_t)(rank * columns), sizeof *l->a);
    l->b = sl_arena_array(&a->arena, (size_t)(rows * rank), sizeof *l->b);
    if (dora) l->magnitude = sl_arena_array(&a->arena, (size_t)rows, sizeof *l->magnitude);
    if (dora) l->gain = sl_arena_array(&a->arena, (size_t)rows, sizeof *l->gain);
    if (!l->a || !l->b || (dora && (!l->magnitude || !l->gain))) return NULL;
    if (rank > a->max_rank) a->max_rank = rank;
    size_t index = ((size_t)place->layer * SL_SLOT_COUNT + (size_t)place->slot) * (size_t)a->n_experts + (size_t)place->expert;
    a->places[index] = (int32_t)++a->n;
    return l;
}

sllm_status sl_adapter_begin(const sl_model *model, const char *path, size_t n, sl_adapter **adapter, sllm_error *error) {
    sl_adapter *a = calloc(1, sizeof *a);
    *adapter = NULL;
    if (!a) return sl_fail_memory(error, "the adapter", sizeof *a);
    a->n = n;
    a->path = sl_arena_copy(&a->arena, path, strlen(path));
    if (!a->path || !make_room(model, a)) {
        sl_adapter_free(a);
        return sl_fail_memory(error, "the adapter", 0);
    }
    *adapter = a;
    return SLLM_OK;
}

sl_lora *sl_adapter_add(sl_adapter *a, const sl_product_place *place, int rank, float scale, bool dora) {
    return add(a, place, rank, scale, dora);
}

static bool append(void *user, const sl_product_place *place) {
    counting *c = user;
    if (!c->wants(c->user, place)) return true;
    c->failed = !add(c->adapter, place, c->rank, c->scale, c->dora);
    return !c->failed;
}

sllm_status sl_adapter_new(const sl_model *model, int rank, float scale, bool dora,
                           bool (*wants)(void *user, const sl_product_place *place), void *user, sl_adapter **adapter, sllm_error *error) {
    sl_adapter none = {0};
    counting c = {wants, user, &none, rank, scale, dora, false};
    sl_products_each(model, count, &c);
    sllm_status status = sl_adapter_begin(model, "", none.n, adapter, error);
    if (status) return status;
    c.adapter = *adapter;
    sl_products_each(model, append, &c);
    if (!c.failed) return SLLM_OK;
    sl_adapter_free(*adapter);
    *adapter = NULL;
    return sl_fail_memory(error, "the adapter", 0);
}

void sl_adapter_free(sl_adapter *a) {
    if (!a) return;
    sl_arena_free(&a->arena);
    free(a);
}

/* ---------------------------------------------------------------- gains */

typedef struct gains {
    const sl_product_place *place;
    const sl_lora *lora;
    _Atomic bool failed;
} gains;

/* The norm of row r of W + scale B A, and what the magnitude makes of it. */
static void gain_of_row(void *user, int64_t r, int thread) {
    gains *g = user;
    const sl_lora *l = g->lora;
    float *w = malloc((size_t)l->n_in * sizeof *w);
    double sum = 0;
    (void)thread;
    if (!w) {
        g->failed = true;
        return;
    }
    sl_product_row(g->place, r, w);
    for (int k = 0; k < l->rank; k++) {
        float factor = l->scale * l->b[r * l->rank + k];
        for (int64_t c = 0; c < l->n_in; c++) w[c] += factor * l->a[k * l->n_in + c];
    }
    for (int64_t c = 0; c < l->n_in; c++) sum += (double)w[c] * (double)w[c];
    l->gain[r] = sum > 0 ? (float)((double)l->magnitude[r] / sqrt(sum)) : 0;
    free(w);
}

typedef struct updating {
    const sl_model *model;
    const sl_adapter *adapter;
    bool failed;
} updating;

static bool update_place(void *user, const sl_product_place *place) {
    updating *u = user;
    const sl_lora *l = sl_adapter_find(u->adapter, place->layer, place->slot, place->expert);
    if (!l || !l->magnitude) return true;
    gains g = {.place = place, .lora = l};
    sl_pool_run(u->model->pool, l->n_out, gain_of_row, &g);
    u->failed = g.failed;
    return !u->failed;
}

bool sl_adapter_update_gains(const sl_model *model, sl_adapter *adapter) {
    updating u = {model, adapter, false};
    sl_products_each(model, update_place, &u);
    return !u.failed;
}

/* ---------------------------------------------------------------- several together */

static bool replaces(const sl_adapter *a) { return a->embed.data || a->output.data; }

static bool exclude_each_other(const sl_adapter *a, const sl_adapter *b) {
    if ((a->embed.data && b->embed.data) || (a->output.data && b->output.data)) return true;
    for (size_t i = 0; i < a->n; i++) {
        const sl_lora *x = &a->list[i], *y = sl_adapter_find(b, x->layer, x->slot, x->expert);
        if (y && (x->gain || y->gain)) return true;
    }
    return false;
}

sllm_status sl_adapters_check(const sl_adapters *s, sllm_error *error) {
    if (s->n < 0 || s->n > SL_ADAPTERS) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d adapters; up to %d at once", s->n, SL_ADAPTERS);
    for (int i = 0; i < s->n; i++) {
        const sl_adapter *a = s->items[i];
        bool has_gains = false;
        for (size_t k = 0; k < a->n; k++) has_gains |= a->list[k].gain != NULL;
        if (!isfinite(s->weights[i])) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the weight is not a finite number", a->path);
        if (s->weights[i] != 1 && (has_gains || replaces(a)))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %s cannot be weighted", a->path,
                           has_gains ? "DoRA's magnitudes" : "matrices that are replaced whole");
        for (int k = 0; k < i; k++)
            if (exclude_each_other(a, s->items[k]))
                return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s and %s: both replace a matrix or set the magnitudes of one", s->items[k]->path, a->path);
    }
    return SLLM_OK;
}

sllm_status sl_model_own_adapter(sl_model *model, sl_adapter *adapter, float weight, sllm_error *error) {
    sl_adapters *own = model->own_adapters ? model->own_adapters : calloc(1, sizeof *own);
    if (!own) return sl_fail_memory(error, "the adapters", sizeof *own);
    model->own_adapters = own;
    if (own->n == SL_ADAPTERS) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %d adapters at once are the most", adapter->path, SL_ADAPTERS);
    own->items[own->n] = adapter;
    own->weights[own->n++] = weight;
    sllm_status status = sl_adapters_check(own, error);
    if (status) own->n--;
    else if (adapter->max_rank > model->adapter_rank) model->adapter_rank = adapter->max_rank;
    if (own->n) model->adapters = own;
    return status;
}

void sl_model_free_adapters(sl_model *model) {
    for (int i = 0; model->own_adapters && i < model->own_adapters->n; i++) sl_adapter_free((sl_adapter *)(uintptr_t)model->own_adapters->items[i]);
    free(model->own_adapters);
}

/* ---------------------------------------------------------------- computing */

enum { ALONE = 1 << 16 };

/* Rows of one product and the set that they are computed with. */
typedef struct adapted {
    const sl_lora *lora;
    const float *bias;
    float *y;
    size_t stride;
    int n;
} adapted;

static void apply_gain(void *user, int64_t t, int thread) {
    const adapted *d = user;
    float *y = d->y + (size_t)t * d->stride;
    (void)thread;
    for (int64_t r = 0; r < d->lora->n_out; r++) {
        float bias = d->bias ? d->bias[r] : 0;
        y[r] = (y[r] - bias) * d->lora->gain[r] + bias;
    }
}

void sl_lora_apply(sl_pool *all, const sl_lora *l, float weight, int n, const float *x, size_t x_stride, const float *bias, float *y,
                   size_t y_stride, float *low) {
    int64_t work = (int64_t)n * l->rank * (l->n_in > l->n_out ? l->n_in : l->n_out);
    sl_pool *pool = work < ALONE ? NULL : all; /* not worth waking anyone */
    const sl_tensor a = {.type = SL_F32, .n_dims = 2, .shape = {l->rank, l->n_in}, .data = l->a};
    const sl_tensor b = {.type = SL_F32, .n_dims = 2, .shape = {l->n_out, l->rank}, .data = l->b};
    const sl_act in = {.x = x, .stride = x_stride, .n_tokens = n, .n = l->n_in};
    const sl_act mid = {.x = low, .stride = (size_t)l->rank, .n_tokens = n, .n = l->rank};
    sl_matmul(pool, SL_EXACT, &a, -1, &in, NULL, low, (size_t)l->rank);
    sl_scale(low, weight * l->scale, (int64_t)n * l->rank);
    const sl_matmul_item item = {.w = &b, .expert = -1, .y = y, .y_stride = y_stride, .adds = true};
    sl_matmul_all(pool, SL_EXACT, &item, 1, &mid);
    adapted d = {l, bias, y, y_stride, n};
    if (l->gain) sl_pool_run(pool, n, apply_gain, &d);
}

typedef struct drop_job {
    const sl_dropout *dropout;
    const uint64_t *keys;
    const float *x;
    float *out;
    size_t stride;
    int64_t width;
    uint64_t place;
} drop_job;

static uint64_t mix(uint64_t z) { /* splitmix64's last steps */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void drop_row(void *user, int64_t t, int thread) {
    const drop_job *j = user;
    const float *x = j->x + (size_t)t * j->stride;
    float *out = j->out + t * j->width, keep = 1 / (1 - j->dropout->p);
    uint32_t limit = (uint32_t)(j->dropout->p * 65536.0f + 0.5f);
    uint64_t start = mix(j->dropout->seed ^ mix(j->place ^ mix(j->keys[t])));
    (void)thread;
    for (int64_t c = 0; c < j->width; c++) { /* sixteen bits a column */
        if (c % 4 == 0) start += 0x9e3779b97f4a7c15u;
        uint32_t bits = (uint32_t)(mix(start) >> (c % 4 * 16)) & 0xffff;
        out[c] = bits < limit ? 0 : x[c] * keep;
    }
}

void sl_dropout_rows(sl_pool *pool, const sl_dropout *dropout, const sl_lora *lora, const uint64_t *keys, int n, const float *x,
                     size_t x_stride, int64_t width, float *out) {
    drop_job j = {dropout, keys, x, out, x_stride, width, ((uint64_t)lora->layer << 32) ^ ((uint64_t)lora->slot << 16) ^ (uint64_t)lora->expert};
    sl_pool_run(pool, n, drop_row, &j);
}

static const sl_adapters *set_of(const sl_run *run, const int32_t *rows, int i) {
    return sl_segment_of(run, rows ? rows[i] : i)->kv->adapters;
}

/* A token of a timeline that learns: the timeline's key and its position. */
static uint64_t key_of(const sl_run *run, int t) {
    const sl_segment *s = sl_segment_of(run, t);
    return s->kv->key + (uint64_t)sl_position(s, t);
}

void sl_run_adapt(const sl_run *run, sl_slot slot, int expert, const int32_t *rows, int n, const float *x, size_t x_stride,
                  const float *bias, float *y, size_t y_stride) {
    int layer = slot == SL_SLOT_OUTPUT ? run->config->n_layers : run->op->layer;
    for (int from = 0, to; from < n; from = to) {
        const sl_adapters *set = set_of(run, rows, from);
        for (to = from + 1; to < n && set_of(run, rows, to) == set;) to++;
        for (int i = 0; set && i < set->n; i++) {
            const sl_lora *l = sl_adapter_find(set->items[i], layer, slot, expert);
            const float *in = x + (size_t)from * x_stride;
            size_t in_stride = x_stride;
            if (l && set->dropout) {
                uint64_t keys[SL_CHUNK];
                for (int k = from; k < to; k++) keys[k - from] = key_of(run, rows ? rows[k] : k);
                sl_dropout_rows(run->model->pool, set->dropout, l, keys, to - from, in, x_stride, l->n_in, set->dropped);
                in = set->dropped;
                in_stride = (size_t)l->n_in;
            }
            if (l)
                sl_lora_apply(run->model->pool, l, set->weights[i], to - from, in, in_stride, bias, y + (size_t)from * y_stride, y_stride,
                              run->work->low);
        }
    }
}
