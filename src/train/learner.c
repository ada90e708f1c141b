#include "train/learner.h"

#include "base/error.h"
#include "model/families.h"
#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

struct sl_learner {
    sl_model *model;
    sl_adapters set;
    const sl_adapters *before;
    int rank_before;
    sl_work *work;
    sl_kv_pool *pages;
    sl_kv **timelines;       /* [n_examples] */
    sl_part *parts;
    sl_sequence *sequences;
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
    l->timelines = calloc(n, sizeof *l->timelines);
    l->parts = calloc(n, sizeof *l->parts);
    l->sequences = calloc(n, sizeof *l->sequences);
    l->labels = calloc((size_t)l->n_rows, sizeof *l->labels);
    l->dx = malloc((size_t)l->n_rows * (size_t)m->config.n_embd * sizeof *l->dx);
    if (!l->set.dropped || !l->timelines || !l->parts || !l->sequences || !l->labels || !l->dx) return sl_fail_memory(error, "a batch", 0);
    sllm_status status = sl_kv_type_choose(&m->config, SLLM_KV_AUTO, m->exact, m->weights->only_f32, &type, error);
    if (!status) status = sl_work_new(m, &l->work, error);
    if (!status) status = sl_kv_pool_new(m, type, (l->n_rows + SL_PAGE - 1) / SL_PAGE + l->n_examples, &l->pages, error);
    int longest = !m->config.family->rope && l->n_rows > m->config.n_ctx_train ? m->config.n_ctx_train : l->n_rows;
    for (size_t i = 0; i < n && !status; i++) status = sl_kv_new(l->pages, longest, &l->timelines[i], error);
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
    for (int i = 0; l->timelines && i < l->n_examples; i++) sl_kv_free(l->timelines[i]);
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

/* The examples as parts of one forward, their rows, and what is to be predicted where. */
static sllm_status lay_out(sl_learner *l, const sl_example *examples, int n, int *n_labels, sllm_error *error) {
    int row = 0;
    *n_labels = 0;
    if (n > l->n_examples) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d examples at once; there is room for %d", n, l->n_examples);
    for (int i = 0; i < n; row += examples[i++].n) {
        const sl_example *e = &examples[i];
        if (e->n < 1 || e->n > l->n_rows - row)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "an example of %d tokens does not fit a batch of %d", e->n, l->n_rows);
        sl_kv_truncate(l->timelines[i], 0);
        l->timelines[i]->key = (l->first_key + (uint64_t)i) << 24; /* an example has fewer tokens */
        for (int t = 0; t < e->n; t++) sl_backward_keys(l->backward)[row + t] = l->timelines[i]->key + (uint64_t)t;
        l->sequences[i] = (sl_sequence){row, e->n};
        l->parts[i] = (sl_part){.kv = l->timelines[i], .ids = e->ids, .n = e->n};
        for (int t = 0; t + 1 < e->n; t++)
            if (e->labels[t + 1] != SL_NO_LABEL) l->labels[(*n_labels)++] = (sl_label){row + t, e->labels[t + 1]};
    }
    return SLLM_OK;
}

static sllm_status forward(sl_learner *l, const sl_example *examples, int n, int *n_labels, sllm_error *error) {
    const sl_forward_params params = {.record = sl_tape_record, .user = l->tape};
    sllm_status status = lay_out(l, examples, n, n_labels, error);
    sl_tape_begin(l->tape);
    if (!status && n) status = sl_forward_batch(l->model, l->work, l->parts, n, &params, error);
    for (int i = 0; i < n && i < l->n_examples; i++) sl_kv_truncate(l->timelines[i], 0);
    return status;
}

sllm_status sl_learner_add(sl_learner *l, const sl_example *examples, int n, double scale, double *loss,
                           void (*visit)(void *user, int layer, const float *dx, int n), void *user, sllm_error *error) {
    int n_labels;
    l->set.dropout = l->dropout.p > 0 ? &l->dropout : NULL;
    sl_backward_drop(l->backward, l->set.dropout);
    sllm_status status = forward(l, examples, n, &n_labels, error);
    if (!status) status = sl_backward_loss(l->backward, l->tape, l->labels, n_labels, scale, l->dx, loss, error);
    if (!status && n_labels) status = sl_backward_run(l->backward, l->tape, l->sequences, n, l->dx, visit, user, error);
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
