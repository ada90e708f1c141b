#include "train/learner.h"

#include "base/error.h"
#include "model/families.h"
#include "model/forward.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

struct sl_learner {
    sl_model *model;
    sl_adapters set;
    const sl_adapters *before;
    int rank_before;
    sl_work *work;
    sl_kv_pool *pages;
    sl_kv **timelines;       /* [n_examples + 1]; the last: what all examples begin with */
    sl_part *parts;          /* [n_examples + 1] that, where it is computed once, and the examples */
    sl_sequence *sequences;  /* [n_examples + 1] */
    int n_sequences, prefix; /* positions computed once; 0: none */
    sl_label *labels;        /* [n_rows] */
    sl_tape *tape;
    sl_backward *backward;
    float *dx;               /* [n_rows, n_embd] */
    sl_dropout dropout;
    uint64_t first_key;
    int n_rows, n_examples;
};

static bool has_gains(const sl_adapter *a) {
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i].gain) return true;
    return false;
}

static sllm_status make(sl_learner *l, sl_adapter *adapter, sllm_error *error) {
    sl_model *m = l->model;
    sl_kv_type type;
    size_t n = (size_t)l->n_examples, widest = 1;
    for (size_t i = 0; i < adapter->n; i++) widest = (size_t)adapter->list[i].n_in > widest ? (size_t)adapter->list[i].n_in : widest;
    l->set.dropped = malloc(SL_CHUNK * widest * sizeof *l->set.dropped);
    l->timelines = calloc(n + 1, sizeof *l->timelines);
    l->parts = calloc(n + 1, sizeof *l->parts);
    l->sequences = calloc(n + 1, sizeof *l->sequences);
    l->labels = calloc((size_t)l->n_rows, sizeof *l->labels);
    l->dx = malloc((size_t)l->n_rows * (size_t)m->config.n_embd * sizeof *l->dx);
    if (!l->set.dropped || !l->timelines || !l->parts || !l->sequences || !l->labels || !l->dx) return sl_fail_memory(error, "a batch", 0);
    sllm_status status = sl_kv_type_choose(&m->config, SLLM_KV_AUTO, m->exact, m->weights->only_f32, &type, error);
    if (!status) status = sl_work_new(m, &l->work, error);
    if (!status) status = sl_kv_pool_new(m, type, (l->n_rows + SL_PAGE - 1) / SL_PAGE + 2 * l->n_examples + 1, &l->pages, error);
    int longest = !m->config.family->rope && l->n_rows > m->config.n_ctx_train ? m->config.n_ctx_train : l->n_rows;
    for (size_t i = 0; i <= n && !status; i++) status = sl_kv_new(l->pages, longest, &l->timelines[i], error);
    if (!status) status = sl_tape_new(&m->config, l->n_rows, !m->exact, has_gains(adapter), &l->tape, error);
    if (!status) status = sl_backward_new(m, adapter, l->n_rows, &l->backward, error);
    return status;
}

sllm_status sl_learner_new(sl_model *model, sl_adapter *adapter, int n_rows, int n_examples, sl_learner **learner, sllm_error *error) {
    sl_learner *l = calloc(1, sizeof *l);
    *learner = NULL;
    if (!l) return sl_fail_memory(error, "learning", sizeof *l);
    *l = (sl_learner){.model = model, .set = {.n = 1, .items = {adapter}, .weights = {1}}, .before = model->adapters,
                      .rank_before = model->adapter_rank, .n_rows = n_rows, .n_examples = n_examples};
    model->adapters = &l->set;
    if (adapter->max_rank > model->adapter_rank) model->adapter_rank = adapter->max_rank;
    sllm_status status = make(l, adapter, error);
    if (status) sl_learner_free(l);
    else *learner = l;
    return status;
}

void sl_learner_free(sl_learner *l) {
    if (!l) return;
    for (int i = 0; l->timelines && i <= l->n_examples; i++) sl_kv_free(l->timelines[i]);
    sl_kv_pool_free(l->pages);
    sl_work_free(l->work);
    sl_tape_free(l->tape);
    sl_backward_free(l->backward);
    l->model->adapters = l->before;
    l->model->adapter_rank = l->rank_before;
    free(l->set.dropped);
    free(l->timelines);
    free(l->parts);
    free(l->sequences);
    free(l->labels);
    free(l->dx);
    free(l);
}

void sl_learner_drop(sl_learner *l, float p, uint64_t seed, uint64_t first_key) {
    l->dropout = (sl_dropout){p, seed};
    l->first_key = first_key;
}

int sl_example_labels(const sl_example *e) {
    int n = 0;
    for (int i = 1; i < e->n; i++) n += e->labels[i] != SL_NO_LABEL;
    return n;
}

/* ---------------------------------------------------------------- what examples begin with */

enum { LEAST_PREFIX = 16 };

static int least(int a, int b) { return a < b ? a : b; }

/* Positions that may be computed once of an example: no label may be predicted from them. */
static int sharable(const sl_example *e) {
    int n = 1;
    while (n < e->n && e->labels[n] == SL_NO_LABEL) n++;
    return n - 1;
}

/* How many positions all examples share, from the beginning; 0: too few to be worth it, or another rotary regime. */
static int shared_prefix(const sl_config *c, const sl_example *examples, int n) {
    int shared = n > 1 ? sharable(&examples[0]) : 0;
    for (int i = 1; i < n && shared >= LEAST_PREFIX; i++) {
        int same = 0, limit = least(shared, sharable(&examples[i]));
        while (same < limit && examples[i].ids[same] == examples[0].ids[same]) same++;
        shared = same;
    }
    for (int i = 0; i < n && shared; i++)
        if (sl_rope_regime(c, shared) != sl_rope_regime(c, examples[i].n)) shared = 0;
    return shared >= LEAST_PREFIX ? shared : 0;
}

static int64_t rows_of(const sl_config *c, const sl_example *examples, int n) {
    int shared = shared_prefix(c, examples, n);
    int64_t rows = shared;
    for (int i = 0; i < n; i++) rows += examples[i].n - shared;
    return rows;
}

int sl_learner_fits(const sl_learner *l, const sl_example *examples, int n) {
    int fit = least(1, n);
    while (fit < n && fit < l->n_examples && rows_of(&l->model->config, examples, fit + 1) <= l->n_rows) fit++;
    return fit;
}

/* ---------------------------------------------------------------- forward */

/* A part of the batch: positions [from, from + n) of ids, on a timeline, from row *row on. */
static void add_part(sl_learner *l, sl_kv *kv, const int32_t *ids, int from, int n, int *row) {
    int i = l->n_sequences++;
    l->sequences[i] = (sl_sequence){*row, n, from};
    l->parts[i] = (sl_part){.kv = kv, .ids = ids + from, .n = n};
    for (int t = 0; t < n; t++) sl_backward_keys(l->backward)[*row + t] = kv->key + (uint64_t)(from + t);
    *row += n;
}

static uint64_t key_of(const sl_learner *l, int i) { return (l->first_key + (uint64_t)i) << 24; /* an example has fewer tokens */ }

/* The examples as parts of a forward, their rows, and what is to be predicted where. */
static sllm_status lay_out(sl_learner *l, const sl_example *examples, int n, int *n_labels, sllm_error *error) {
    int row = 0;
    *n_labels = l->n_sequences = 0;
    if (n > l->n_examples) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d examples at once; there is room for %d", n, l->n_examples);
    for (int i = 0; i < n; i++)
        if (examples[i].n < 1) return sl_fail(error, SLLM_ERROR_ARGUMENT, "an example without tokens");
    if (rows_of(&l->model->config, examples, n) > l->n_rows)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d examples do not fit a batch of %d tokens", n, l->n_rows);
    l->prefix = shared_prefix(&l->model->config, examples, n);
    l->timelines[l->n_examples]->key = key_of(l, 0);
    if (l->prefix) add_part(l, l->timelines[l->n_examples], examples[0].ids, 0, l->prefix, &row);
    for (int i = 0; i < n; i++) {
        const sl_example *e = &examples[i];
        int first = row - l->prefix;
        l->timelines[i]->key = key_of(l, i);
        add_part(l, l->timelines[i], e->ids, l->prefix, e->n - l->prefix, &row);
        for (int t = l->prefix; t + 1 < e->n; t++)
            if (e->labels[t + 1] != SL_NO_LABEL) l->labels[(*n_labels)++] = (sl_label){first + t, e->labels[t + 1]};
    }
    return SLLM_OK;
}

/* What all begin with first; the timelines of the examples then begin with its pages. */
static sllm_status forward(sl_learner *l, const sl_example *examples, int n, int *n_labels, sllm_error *error) {
    const sl_forward_params params = {.record = sl_tape_record, .user = l->tape};
    for (int i = 0; i <= l->n_examples; i++) sl_kv_truncate(l->timelines[i], 0);
    sllm_status status = lay_out(l, examples, n, n_labels, error);
    int from = l->prefix > 0;
    sl_tape_begin(l->tape);
    if (!status && from) status = sl_forward_batch(l->model, l->work, l->parts, 1, &params, error);
    for (int i = 0; i < n && from && !status; i++) status = sl_kv_fork(l->timelines[l->n_examples], l->prefix, l->timelines[i], error);
    if (!status && n) status = sl_forward_batch(l->model, l->work, l->parts + from, n, &params, error);
    for (int i = 0; i <= l->n_examples; i++) sl_kv_truncate(l->timelines[i], 0);
    return status;
}

sllm_status sl_learner_add(sl_learner *l, const sl_example *examples, int n, double scale, double *loss,
                           void (*visit)(void *user, int layer, const float *dx, int n), void *user, sllm_error *error) {
    int n_labels;
    l->set.dropout = l->dropout.p > 0 ? &l->dropout : NULL;
    sl_backward_drop(l->backward, l->set.dropout);
    sllm_status status = forward(l, examples, n, &n_labels, error);
    if (!status) status = sl_backward_loss(l->backward, l->tape, l->labels, n_labels, scale, l->dx, loss, error);
    if (!status && n_labels) status = sl_backward_run(l->backward, l->tape, l->sequences, l->n_sequences, l->dx, visit, user, error);
    return status;
}

sllm_status sl_learner_loss(sl_learner *l, const sl_example *examples, int n, double scale, double *loss, sllm_error *error) {
    int n_labels;
    l->set.dropout = NULL;
    sllm_status status = forward(l, examples, n, &n_labels, error);
    return status ? status : sl_backward_loss(l->backward, l->tape, l->labels, n_labels, scale, NULL, loss, error);
}

sl_backward *sl_learner_backward(sl_learner *l) { return l->backward; }
const sl_tape *sl_learner_tape(const sl_learner *l) { return l->tape; }
