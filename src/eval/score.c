#include "eval/score.h"

#include "base/clock.h"
#include "base/error.h"
#include "eval/divergence.h"
#include "model/timeline.h"
#include "model/weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64 }; /* positions whose logits are in memory at once */

/* One model at work on the chunks. */
typedef struct reader {
    const sl_model *model;
    sl_timeline timeline;
    int32_t *chunk; /* [n_ctx] */
    float *logits;  /* [ROWS, n_vocab] */
    double seconds;
} reader;

static void close_reader(reader *r) {
    sl_timeline_close(&r->timeline);
    free(r->chunk);
    free(r->logits);
}

static sllm_status open_reader(reader *r, const sl_model *model, int n_ctx, sllm_error *error) {
    *r = (reader){.model = model};
    if (!model->weights) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights");
    r->chunk = malloc((size_t)n_ctx * sizeof *r->chunk);
    r->logits = malloc((size_t)ROWS * (size_t)model->config.n_vocab * sizeof *r->logits);
    if (!r->chunk || !r->logits) return sl_fail_memory(error, "the logits of a chunk", 0);
    return sl_timeline_open(&r->timeline, model, n_ctx, model->weights->only_f32, error);
}

/* Reads positions [from, from + n) of the chunk; logits of all of them when `scored`. */
static sllm_status read_rows(reader *r, int from, int n, bool scored, sllm_error *error) {
    sl_forward_params params = {.logits = scored ? r->logits : NULL, .all_logits = true};
    double began = sl_clock();
    sllm_status status = sl_forward(r->model, r->timeline.work, r->timeline.kv, r->chunk + from, n, &params, error);
    r->seconds += sl_clock() - began;
    return status;
}

/* ---------------------------------------------------------------- chunks */

typedef struct scoring {
    reader *readers;               /* [n_readers]; the first is what the others are compared with */
    int n_readers;
    const int32_t *ids;
    int n_ctx, n_chunks, n_scored; /* scored positions of a chunk: n_ctx / 2 ... n_ctx - 2 */
    sl_divergence *rows;           /* [max(1, n_readers - 1), n_rows] */
    int64_t n_rows;                /* n_chunks * n_scored */
    int64_t at;                    /* of rows, of the positions in memory */
    int first;                     /* their first position in the chunk */
    atomic_int spoilt;             /* the reader, plus 1, one of whose logits was not finite; 0: none */
} scoring;

static bool are_finite(const float *x, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] - x[i]; /* 0, or NaN */
    return sum == 0;
}

static void score_row(void *user, int64_t row, int thread) {
    scoring *s = user;
    const reader *a = &s->readers[0];
    size_t n = (size_t)a->model->config.n_vocab, from = (size_t)row * n;
    int32_t next = a->chunk[s->first + row + 1];
    (void)thread;
    for (int i = 0; i < s->n_readers; i++)
        if (!are_finite(s->readers[i].logits + from, n)) {
            atomic_store(&s->spoilt, i + 1);
            return;
        }
    for (int i = s->n_readers > 1; i < s->n_readers; i++)
        s->rows[(i ? i - 1 : 0) * s->n_rows + s->at + row] =
            sl_divergence_of(a->logits + from, s->readers[i].logits + from, (int)n, next);
}

static sllm_status score_chunk(scoring *s, int chunk, sllm_error *error) {
    int half = s->n_ctx / 2;
    sllm_status status = SLLM_OK;
    for (int i = 0; i < s->n_readers && !status; i++) {
        reader *r = &s->readers[i];
        const sl_tokenizer *t = r->model->tokenizer;
        memcpy(r->chunk, s->ids + (size_t)chunk * (size_t)s->n_ctx, (size_t)s->n_ctx * sizeof *r->chunk);
        if (t && sl_tokenizer_adds_bos(t)) r->chunk[0] = sl_tokenizer_special(t, SL_SPECIAL_BOS);
        sl_kv_truncate(r->timeline.kv, 0);
        status = read_rows(r, 0, half, false, error);
    }
    for (int done = 0; done < s->n_scored && !status; done += ROWS) {
        int n = s->n_scored - done < ROWS ? s->n_scored - done : ROWS;
        for (int i = 0; i < s->n_readers && !status; i++) status = read_rows(&s->readers[i], half + done, n, true, error);
        if (status) break;
        s->first = half + done;
        s->at = (int64_t)chunk * s->n_scored + done;
        sl_pool_run(s->readers[0].model->pool, n, score_row, s);
        int spoilt = atomic_load(&s->spoilt);
        if (spoilt)
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: its answers are not finite numbers (chunk %d of the text), so there is "
                             "nothing to measure: weights are damaged, or the arithmetic overflows", s->readers[spoilt - 1].model->path,
                             chunk + 1);
    }
    return status;
}

static sllm_status check(const scoring *s, size_t n, const sl_score_params *p, sllm_error *error) {
    for (int i = 0; i < s->n_readers; i++) {
        int limit = s->readers[i].model->config.n_ctx_train;
        if (p->n_ctx < 8 || (limit > 0 && p->n_ctx > limit))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "chunks of %d tokens; need 8 to %d, the model's context", p->n_ctx,
                           limit);
    }
    if (n < (size_t)p->n_ctx)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the text has %zu tokens; at least one chunk of %d is needed", n, p->n_ctx);
    return SLLM_OK;
}

/* Scores the whole text with s->n_readers models; their models are set, the rest is made here. */
static sllm_status run(scoring *s, const int32_t *ids, size_t n, const sl_score_params *p, sllm_error *error) {
    sllm_status status = check(s, n, p, error);
    if (status) return status;
    size_t chunks = n / (size_t)p->n_ctx;
    if (p->n_chunks > 0 && chunks > (size_t)p->n_chunks) chunks = (size_t)p->n_chunks;
    if (chunks > 1 << 20) chunks = 1 << 20;
    s->ids = ids;
    s->n_ctx = p->n_ctx;
    s->n_chunks = (int)chunks;
    s->n_scored = p->n_ctx - p->n_ctx / 2 - 1;
    s->n_rows = (int64_t)s->n_chunks * s->n_scored;
    size_t lists = s->n_readers > 1 ? (size_t)s->n_readers - 1 : 1;
    s->rows = calloc((size_t)s->n_rows * lists, sizeof *s->rows);
    if (!s->rows) return sl_fail_memory(error, "the scores", (size_t)s->n_rows * lists * sizeof *s->rows);
    for (int i = 0; i < s->n_readers && !status; i++)
        status = open_reader(&s->readers[i], s->readers[i].model, p->n_ctx, error);
    uint64_t total = chunks * (uint64_t)p->n_ctx;
    for (int c = 0; c < s->n_chunks && !status; c++) {
        if (p->on_progress && !p->on_progress(p->user, "scoring", (uint64_t)c * (uint64_t)p->n_ctx, total))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted after %d of %d chunks", c, s->n_chunks);
        else status = score_chunk(s, c, error);
    }
    if (!status && p->on_progress) p->on_progress(p->user, "scoring", total, total);
    return status;
}

static void finish(scoring *s) {
    for (int i = 0; i < s->n_readers; i++) close_reader(&s->readers[i]);
    free(s->rows);
}

/* ---------------------------------------------------------------- figures */

typedef struct average {
    double mean, error; /* standard error of the mean */
} average;

static average average_of(const sl_divergence *rows, int64_t n, double (*value)(const sl_divergence *row)) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += value(&rows[i]);
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = value(&rows[i]) - mean;
        squares += d * d;
    }
    return (average){mean, n > 1 ? sqrt(squares / ((double)n - 1) / (double)n) : 0};
}

static double nll_a(const sl_divergence *row) { return -row->ln_p; }
static double nll_b(const sl_divergence *row) { return -row->ln_q; }
static double kld_of(const sl_divergence *row) { return row->kld; }
static double top_of(const sl_divergence *row) { return row->same_top; }
static double dln_of(const sl_divergence *row) { return row->ln_q - row->ln_p; }
static double dp_of(const sl_divergence *row) {
    double d = exp(row->ln_q) - exp(row->ln_p);
    return d * d;
}

/* Of reader `which`, whose ln p is in `rows` as `nll` says. */
static sl_perplexity perplexity_of(const scoring *s, int which, const sl_divergence *rows,
                                   double (*nll)(const sl_divergence *row)) {
    average a = average_of(rows, s->n_rows, nll);
    return (sl_perplexity){
        .mean_nll = a.mean, .nll_error = a.error, .n_chunks = s->n_chunks, .seconds = s->readers[which].seconds,
        .n_scored = s->n_rows, .n_read = (int64_t)s->n_chunks * (s->n_ctx - 1),
    };
}

sllm_status sl_perplexity_measure(const sl_model *model, const int32_t *ids, size_t n, const sl_score_params *params,
                                  sl_perplexity *result, sllm_error *error) {
    reader one = {.model = model};
    scoring s = {.readers = &one, .n_readers = 1};
    sllm_status status = run(&s, ids, n, params, error);
    if (!status) *result = perplexity_of(&s, 0, s.rows, nll_a);
    finish(&s);
    return status;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static sllm_status summarise(const scoring *s, int which, sl_comparison *c, sllm_error *error) {
    const sl_divergence *rows = s->rows + (which - 1) * s->n_rows;
    *c = (sl_comparison){.a = perplexity_of(s, 0, rows, nll_a), .b = perplexity_of(s, which, rows, nll_b), .n = s->n_rows};
    average kld = average_of(rows, c->n, kld_of), top = average_of(rows, c->n, top_of), dln = average_of(rows, c->n, dln_of);
    c->mean_kld = kld.mean, c->kld_error = kld.error;
    c->top1 = top.mean, c->top1_error = top.error;
    c->mean_dln = dln.mean, c->dln_error = dln.error;
    c->rms_dp = sqrt(average_of(rows, c->n, dp_of).mean);
    c->kld = malloc((size_t)c->n * sizeof *c->kld);
    if (!c->kld) return sl_fail_memory(error, "the divergences", (size_t)c->n * sizeof *c->kld);
    for (int64_t i = 0; i < c->n; i++) c->kld[i] = (float)rows[i].kld;
    qsort(c->kld, (size_t)c->n, sizeof *c->kld, by_value);
    return SLLM_OK;
}

sllm_status sl_compare_measure(const sl_model *a, const sl_model *const *others, int n_others, const int32_t *ids, size_t n,
                               const sl_score_params *params, sl_comparison *results, sllm_error *error) {
    scoring s = {.n_readers = n_others + 1};
    for (int i = 0; i < n_others; i++)
        if (others[i]->config.n_vocab != a->config.n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "the models have vocabularies of %d and %d tokens, so their answers "
                           "cannot be compared", a->config.n_vocab, others[i]->config.n_vocab);
    s.readers = calloc((size_t)s.n_readers, sizeof *s.readers);
    if (!s.readers) return sl_fail_memory(error, "the models' readers", 0);
    for (int i = 0; i < s.n_readers; i++) s.readers[i].model = i ? others[i - 1] : a;
    sllm_status status = run(&s, ids, n, params, error);
    for (int i = 0; i < n_others && !status; i++) status = summarise(&s, i + 1, &results[i], error);
    finish(&s);
    free(s.readers);
    return status;
}

double sl_comparison_quantile(const sl_comparison *c, double share) {
    double at = share * (double)(c->n - 1);
    int64_t below = (int64_t)at, above = below + 1 < c->n ? below + 1 : below;
    return (double)c->kld[below] + (at - (double)below) * ((double)c->kld[above] - (double)c->kld[below]);
}
