#include "quant/sensitivity.h"

#include "base/error.h"
#include "eval/divergence.h"
#include "model/timeline.h"
#include "model/weights.h"
#include "tensor/quantise.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAST_TOKENS = 64, MOST_TOKENS = 128, /* of text that a divergence is measured on */
    LOGITS_FLOATS = 1 << 25,              /* of the source's answers that are kept */
    SAMPLE_FLOATS = 1 << 20               /* weights of a tensor whose errors are summed, at most */
};
static const double WORK = 1e13; /* products that all measurements together may take: a few minutes on two cores */

typedef struct meter {
    sl_model *model;
    const sl_quantise_plan *plan;
    const sl_quantise_params *params;
    const int32_t *ids;
    int n;              /* tokens */
    sl_timeline timeline;
    float *base, *now;  /* [n, n_vocab] logits of the source, and of the changed model */
    double *positions;  /* [n] divergence of each */
    int *group;         /* [plan->n] tensors measured together; -1: none */
    int n_groups;
    double *loss;       /* [n_groups] measured */
    double *error;      /* [plan->n, SL_TYPE_COUNT] weighted squared error of a type; negative: not computed */
    float **changed;    /* [plan->n] a group's quantised tensors, widened */
    sllm_error *failure;
} meter;

/* ---------------------------------------------------------------- divergence */

static void diverge(void *user, int64_t t, int thread) {
    meter *m = user;
    int n = m->model->config.n_vocab;
    (void)thread;
    m->positions[t] = sl_divergence_of(m->base + t * n, m->now + t * n, n, 0).kld;
}

static sllm_status compute(meter *m, float *logits) {
    sl_forward_params params = {.logits = logits, .all_logits = true};
    sl_kv_truncate(m->timeline.kv, 0);
    return sl_forward(m->model, m->timeline.work, m->timeline.kv, m->ids, m->n, &params, m->failure);
}

/* ---------------------------------------------------------------- tensors in the bound model */

typedef struct swap {
    const void *from, *to;
    sl_type type;
} swap;

static bool swap_tensor(void *user, int layer, sl_tensor *w) {
    const swap *s = user;
    (void)layer;
    if (w->data != s->from) return true;
    w->data = s->to;
    w->type = s->type;
    return true;
}

/* Every place of the model that holds the data `from` now holds `to` of `type`. */
static void swap_everywhere(sl_weights *w, const sl_config *c, const void *from, sl_type type, const void *to) {
    swap s = {from, to, type};
    swap_tensor(&s, -1, &w->embed);
    swap_tensor(&s, -1, &w->output);
    sl_weights_each(w, c, swap_tensor, &s);
}

bool sl_sensitivity_chooses(const sl_quantise_item *item) {
    return item->changes && !item->is_fixed && sl_role_is_quantised(item->role, item->source->n_dims);
}

/* ---------------------------------------------------------------- errors of types */

typedef struct rows_job {
    const meter *m;
    const sl_quantise_item *item;
    sl_type type;
    int64_t columns, matrix_rows, rows_a_chunk, step; /* every step-th chunk is looked at */
    double *sums;       /* [chunks] or NULL */
    float *widened;     /* all rows as quantised, or NULL */
    bool failed;
} rows_job;

static void rows_chunk(void *user, int64_t chunk, int thread) {
    rows_job *j = user;
    const sl_tensor *t = j->item->source;
    int64_t rows = (int64_t)t->n_elements / j->columns, row = chunk * j->step * j->rows_a_chunk;
    int64_t n = rows - row < j->rows_a_chunk ? rows - row : j->rows_a_chunk;
    size_t count = (size_t)(n * j->columns);
    uint64_t out_bytes = 0;
    (void)thread;
    sl_type_bytes(j->type, count, &out_bytes);
    float *x = malloc(2 * count * sizeof *x), *y = j->widened ? j->widened + row * j->columns : x ? x + count : NULL;
    void *blocks = malloc(out_bytes);
    if (!x || !blocks) {
        j->failed = true;
    } else {
        const float *weight = j->m->params->importance
            ? sl_importance_get(j->m->params->importance, t->name, t->n_dims > 2 ? (int)(row / j->matrix_rows) : 0,
                                j->columns) : NULL;
        sl_tensor_read(t, (uint64_t)(row * j->columns), count, x);
        sl_quantise_rows(j->type, x, n, j->columns, weight, blocks);
        sl_type_get(j->type)->to_float(blocks, y, count);
        double sum = 0;
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < j->columns; c++) {
                double d = x[r * j->columns + c] - y[r * j->columns + c];
                sum += d * d * (weight ? (double)weight[c] : 1.0);
            }
        j->sums[chunk] = sum;
    }
    free(blocks);
    free(x);
}

/* The weighted squared error of a tensor in `type`, of a sample of its rows; `widened` non-NULL: of all, kept there. */
static double error_of(const meter *m, const sl_quantise_item *item, sl_type type, float *widened) {
    const sl_tensor *t = item->source;
    rows_job j = {.m = m, .item = item, .type = type, .columns = t->shape[t->n_dims - 1],
                  .matrix_rows = t->shape[t->n_dims - 2], .widened = widened, .step = 1};
    j.rows_a_chunk = 1;
    while (j.rows_a_chunk * 2 * j.columns <= 1 << 14 && j.matrix_rows % (j.rows_a_chunk * 2) == 0) j.rows_a_chunk *= 2;
    int64_t chunks = (int64_t)t->n_elements / j.columns / j.rows_a_chunk;
    if (!widened && t->n_elements > SAMPLE_FLOATS) j.step = (int64_t)(t->n_elements / SAMPLE_FLOATS);
    int64_t seen = (chunks + j.step - 1) / j.step;
    j.sums = calloc((size_t)seen, sizeof *j.sums);
    if (!j.sums) return -1;
    sl_pool_run(m->model->pool, seen, rows_chunk, &j);
    double sum = 0;
    for (int64_t i = 0; i < seen; i++) sum += j.sums[i];
    free(j.sums);
    return j.failed ? -1 : sum * (double)chunks / (double)seen;
}

/* ---------------------------------------------------------------- groups */

static double products_a_token(const meter *m) {
    double sum = 0;
    for (size_t i = 0; i < m->plan->n; i++)
        if (sl_role_is_quantised(m->plan->items[i].role, m->plan->items[i].source->n_dims))
            sum += 2.0 * (double)m->plan->items[i].source->n_elements;
    return sum;
}

/* Tensors of one role in `band` neighbouring layers are measured together; band 1: each by itself. */
static int make_groups(meter *m, int band) {
    int bands = m->model->config.n_layers / band + 2;
    int *known = malloc(sizeof *known * (size_t)(SL_SLOT_COUNT * bands));
    if (!known) return -1;
    for (int i = 0; i < SL_SLOT_COUNT * bands; i++) known[i] = -1;
    m->n_groups = 0;
    for (size_t i = 0; i < m->plan->n; i++) {
        const sl_quantise_item *item = &m->plan->items[i];
        m->group[i] = -1;
        if (!sl_sensitivity_chooses(item) || item->role.layer >= m->model->config.n_layers) continue;
        int *g = &known[(int)item->role.slot * bands + (item->role.layer < 0 ? 0 : 1 + item->role.layer / band)];
        if (*g < 0) *g = m->n_groups++;
        m->group[i] = *g;
    }
    free(known);
    return m->n_groups;
}

/* Tokens and groups such that all measurements together stay within WORK. */
static sllm_status size_work(meter *m, size_t n_ids) {
    int64_t limit = LOGITS_FLOATS / m->model->config.n_vocab;
    double each = products_a_token(m);
    int most = n_ids < MOST_TOKENS ? (int)n_ids : MOST_TOKENS, band = 1;
    if (limit < most) most = limit > LEAST_TOKENS ? (int)limit : LEAST_TOKENS;
    for (;; band *= 2) {
        if (make_groups(m, band) < 0) return sl_fail_memory(m->failure, "the groups of tensors", 0);
        double tokens = WORK / (each * (m->n_groups ? m->n_groups : 1));
        if (tokens < LEAST_TOKENS && band < m->model->config.n_layers) continue;
        m->n = tokens > most ? most : tokens < LEAST_TOKENS ? LEAST_TOKENS : (int)tokens;
        return SLLM_OK;
    }
}

/* ---------------------------------------------------------------- measuring */

/* The type that every tensor is measured with: four bits, or what its shape allows. */
static sl_type probe_type(const sl_quantise_item *item) {
    return sl_mix_fallback(SL_Q4_0, item->source->shape[item->source->n_dims - 1]);
}

static void release_group(meter *m) {
    for (size_t i = 0; i < m->plan->n; i++) {
        if (!m->changed[i]) continue;
        const sl_tensor *t = m->plan->items[i].source;
        swap_everywhere(m->model->weights, &m->model->config, m->changed[i], t->type, t->data);
        free(m->changed[i]);
        m->changed[i] = NULL;
    }
}

static sllm_status measure_group(meter *m, int group) {
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < m->plan->n && !status; i++) {
        const sl_quantise_item *item = &m->plan->items[i];
        if (m->group[i] != group) continue;
        m->changed[i] = malloc(item->source->n_elements * sizeof(float));
        sl_type probe = probe_type(item);
        double *e = &m->error[i * SL_TYPE_COUNT + (size_t)probe];
        *e = m->changed[i] ? error_of(m, item, probe, m->changed[i]) : -1;
        if (*e < 0) status = sl_fail_memory(m->failure, item->source->name, item->source->n_elements * sizeof(float));
        else swap_everywhere(m->model->weights, &m->model->config, item->source->data, SL_F32, m->changed[i]);
    }
    if (!status) status = compute(m, m->now);
    if (!status) {
        sl_pool_run(m->model->pool, m->n, diverge, m);
        double sum = 0;
        for (int t = 0; t < m->n; t++) sum += m->positions[t];
        m->loss[group] = sum > 0 ? sum / m->n : 0;
    }
    release_group(m);
    return status;
}

static bool goes_on(const meter *m, const char *what, int done, int total) {
    return !m->params->on_progress || m->params->on_progress(m->params->user, what, (uint64_t)done, (uint64_t)total);
}

static sllm_status measure_groups(meter *m) {
    sllm_status status = compute(m, m->base);
    for (int g = 0; g < m->n_groups && !status; g++) {
        if (!goes_on(m, "sensitivity", g, m->n_groups))
            return sl_fail(m->failure, SLLM_ERROR_CANCELLED, "interrupted while measuring sensitivity");
        status = measure_group(m, g);
    }
    return status;
}

/* ---------------------------------------------------------------- choices */

static int by_bytes(const void *a, const void *b) {
    const sl_choice *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return x->loss < y->loss ? -1 : x->loss > y->loss;
}

/* A type that the item could take: in GGUF files, with a writer, of blocks that divide its rows. */
static bool could_take(const sl_quantise_item *item, sl_type type) {
    const sl_type_info *info = sl_type_get(type);
    if (info->ggml_id < 0 || !sl_type_is_written(type) || item->source->shape[item->source->n_dims - 1] % info->block) return false;
    return info->is_quantised || (type == item->source->type && type != SL_F32);
}

uint64_t sl_sensitivity_least_bytes(const sl_quantise_item *item) {
    uint64_t least = item->source->bytes, bytes;
    for (int t = 0; t < SL_TYPE_COUNT; t++)
        if (could_take(item, (sl_type)t) && sl_type_bytes((sl_type)t, item->source->n_elements, &bytes) && bytes < least)
            least = bytes;
    return least;
}

static sllm_status fill_choices(meter *m, size_t i, double group_error, sl_choices *c) {
    const sl_quantise_item *item = &m->plan->items[i];
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        sl_choice *x = &c->items[c->n];
        if (!could_take(item, (sl_type)t)) continue;
        double e = sl_type_get((sl_type)t)->is_quantised ? error_of(m, item, (sl_type)t, NULL) : 0;
        if (e < 0) return sl_fail_memory(m->failure, item->source->name, 0);
        *x = (sl_choice){.type = (sl_type)t, .loss = group_error > 0 ? m->loss[m->group[i]] * e / group_error : 0};
        sl_type_bytes((sl_type)t, item->source->n_elements, &x->bytes);
        c->n++;
    }
    qsort(c->items, (size_t)c->n, sizeof *c->items, by_bytes);
    int kept = 0;
    for (int k = 0; k < c->n; k++) /* what costs as much and is no better is never chosen */
        if (!kept || c->items[k].loss < c->items[kept - 1].loss) c->items[kept++] = c->items[k];
    c->n = kept;
    return SLLM_OK;
}

static sllm_status fill_all(meter *m, sl_choices *choices) {
    double *totals = calloc((size_t)m->n_groups + 1, sizeof *totals);
    sllm_status status = totals ? SLLM_OK : sl_fail_memory(m->failure, "the tensors' errors", 0);
    for (size_t i = 0; i < m->plan->n && !status; i++)
        if (m->group[i] >= 0)
            totals[m->group[i]] += m->error[i * SL_TYPE_COUNT + (size_t)probe_type(&m->plan->items[i])];
    for (size_t i = 0; i < m->plan->n && !status; i++) {
        if (m->group[i] < 0) continue;
        if (!goes_on(m, "errors of types", (int)i, (int)m->plan->n))
            status = sl_fail(m->failure, SLLM_ERROR_CANCELLED, "interrupted while comparing types");
        else status = fill_choices(m, i, totals[m->group[i]], &choices[i]);
    }
    free(totals);
    return status;
}

/* ---------------------------------------------------------------- the whole */

static sllm_status prepare(meter *m, size_t n_ids) {
    const sl_config *c = &m->model->config;
    for (size_t i = 0; i < m->plan->n; i++)
        if (sl_sensitivity_chooses(&m->plan->items[i]) && sl_type_get(m->plan->items[i].source->type)->is_quantised)
            return sl_fail(m->failure, SLLM_ERROR_ARGUMENT, "tensor %s is quantised already: what its errors cost can only "
                           "be measured from an f16, bf16 or f32 file", m->plan->items[i].source->name);
    m->group = calloc(m->plan->n, sizeof *m->group);
    m->changed = calloc(m->plan->n, sizeof *m->changed);
    m->error = calloc(m->plan->n * SL_TYPE_COUNT, sizeof *m->error);
    if (!m->group || !m->changed || !m->error) return sl_fail_memory(m->failure, "the tensors' errors", 0);
    sllm_status status = size_work(m, n_ids);
    if (status) return status;
    size_t floats = (size_t)m->n * (size_t)c->n_vocab;
    m->loss = calloc((size_t)m->n_groups + 1, sizeof *m->loss);
    m->positions = calloc((size_t)m->n, sizeof *m->positions);
    m->base = malloc(floats * sizeof *m->base);
    m->now = malloc(floats * sizeof *m->now);
    if (!m->loss || !m->positions || !m->base || !m->now)
        return sl_fail_memory(m->failure, "the answers to compare", 2 * floats * sizeof *m->base);
    return sl_timeline_open(&m->timeline, m->model, m->n, true, m->failure);
}

static void finish(meter *m) {
    sl_timeline_close(&m->timeline);
    free(m->group);
    free(m->changed);
    free(m->error);
    free(m->loss);
    free(m->positions);
    free(m->base);
    free(m->now);
}

sllm_status sl_sensitivity_measure(sl_model *model, const sl_quantise_plan *plan, const sl_quantise_params *params,
                                   const int32_t *ids, size_t n, sl_choices *choices, sllm_error *error) {
    meter m = {.model = model, .plan = plan, .params = params, .ids = ids, .failure = error};
    if (n < LEAST_TOKENS)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the text has %zu tokens; measuring sensitivity needs %d at least", n,
                       LEAST_TOKENS);
    memset(choices, 0, plan->n * sizeof *choices);
    sllm_status status = prepare(&m, n);
    if (!status) status = measure_groups(&m);
    if (!status) status = fill_all(&m, choices);
    finish(&m);
    return status;
}
