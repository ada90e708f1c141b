#include "eval/classification.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Everything over the labels that occur or are asked for. */
typedef struct counts {
    const char **labels; /* [k] reported */
    const char **all;    /* [m] all that occur, sorted */
    size_t k, m;
    int64_t *matrix;     /* [k, k] reported: true, predicted */
    int64_t *whole;      /* [m, m] */
    int64_t *hits, *predicted, *truth; /* [k] */
    size_t n;
    int64_t right;
    double zero_division;
    bool all_reported;
} counts;

typedef struct scores {
    double precision, recall, f1;
    int64_t support;
} scores;

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The place of a label in a list; -1: not there. */
static int64_t place_of(const char *const *list, size_t n, const char *label) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], label)) return (int64_t)i;
    return -1;
}

static size_t sorted_union(const char *const *a, const char *const *b, size_t n, const char **out) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++) out[2 * i] = a[i], out[2 * i + 1] = b[i];
    qsort(out, 2 * n, sizeof *out, by_text);
    for (size_t i = 0; i < 2 * n; i++)
        if (!m || strcmp(out[m - 1], out[i])) out[m++] = out[i];
    return m;
}

static bool count(counts *c, const char *const *truth, const char *const *predicted) {
    c->matrix = calloc(c->k * c->k + 1, sizeof *c->matrix);
    c->whole = calloc(c->m * c->m + 1, sizeof *c->whole);
    c->hits = calloc(3 * c->k + 1, sizeof *c->hits);
    if (!c->matrix || !c->whole || !c->hits) return false;
    c->predicted = c->hits + c->k;
    c->truth = c->predicted + c->k;
    for (size_t i = 0; i < c->n; i++) {
        int64_t t = place_of(c->labels, c->k, truth[i]), p = place_of(c->labels, c->k, predicted[i]);
        bool same = !strcmp(truth[i], predicted[i]);
        c->right += same;
        if (t >= 0) c->truth[t]++;
        if (p >= 0) c->predicted[p]++;
        if (t >= 0 && same) c->hits[t]++;
        if (t >= 0 && p >= 0) c->matrix[(size_t)t * c->k + (size_t)p]++;
        c->whole[(size_t)place_of(c->all, c->m, truth[i]) * c->m + (size_t)place_of(c->all, c->m, predicted[i])]++;
    }
    c->all_reported = true;
    for (size_t i = 0; i < c->m; i++) c->all_reported &= place_of(c->labels, c->k, c->all[i]) >= 0;
    return true;
}

static double ratio(const counts *c, int64_t a, int64_t b) { return b ? (double)a / (double)b : c->zero_division; }

static scores scores_of(const counts *c, int64_t hits, int64_t predicted, int64_t truth) {
    return (scores){ratio(c, hits, predicted), ratio(c, hits, truth), ratio(c, 2 * hits, predicted + truth), truth};
}

/* ---------------------------------------------------------------- averages */

static scores micro_of(const counts *c) {
    int64_t hits = 0, predicted = 0, truth = 0;
    for (size_t i = 0; i < c->k; i++) hits += c->hits[i], predicted += c->predicted[i], truth += c->truth[i];
    return scores_of(c, hits, predicted, truth);
}

/* Of all labels alike, or each as often as it is true. */
static scores mean_of(const counts *c, bool weighted) {
    scores sum = {0};
    double weights = 0;
    for (size_t i = 0; i < c->k; i++) {
        scores s = scores_of(c, c->hits[i], c->predicted[i], c->truth[i]);
        double w = weighted ? (double)c->truth[i] : 1;
        sum.precision += w * s.precision;
        sum.recall += w * s.recall;
        sum.f1 += w * s.f1;
        sum.support += s.support;
        weights += w;
    }
    if (weights == 0) return (scores){c->zero_division, c->zero_division, c->zero_division, sum.support};
    return (scores){sum.precision / weights, sum.recall / weights, sum.f1 / weights, sum.support};
}

/* ---------------------------------------------------------------- coefficients, over all labels that occur */

static void sums_of(const counts *c, size_t i, double *truth, double *predicted) {
    *truth = *predicted = 0;
    for (size_t k = 0; k < c->m; k++) {
        *truth += (double)c->whole[i * c->m + k];
        *predicted += (double)c->whole[k * c->m + i];
    }
}

static double balanced_accuracy(const counts *c) {
    double sum = 0, truth, predicted;
    int n = 0;
    for (size_t i = 0; i < c->m; i++) {
        sums_of(c, i, &truth, &predicted);
        if (truth > 0) sum += (double)c->whole[i * c->m + i] / truth, n++;
    }
    return n ? sum / n : NAN;
}

static double matthews(const counts *c) {
    double n = (double)c->n, cross = 0, predicted_squares = 0, true_squares = 0, truth, predicted;
    for (size_t i = 0; i < c->m; i++) {
        sums_of(c, i, &truth, &predicted);
        cross += truth * predicted;
        predicted_squares += predicted * predicted;
        true_squares += truth * truth;
    }
    double below = (n * n - predicted_squares) * (n * n - true_squares);
    return below > 0 ? ((double)c->right * n - cross) / sqrt(below) : 0;
}

static double cohen_kappa(const counts *c) {
    double n = (double)c->n, expected = 0, truth, predicted;
    for (size_t i = 0; i < c->m; i++) {
        sums_of(c, i, &truth, &predicted);
        expected += truth * predicted / n;
    }
    return n > expected ? 1 - (n - (double)c->right) / (n - expected) : NAN;
}

/* ---------------------------------------------------------------- the object */

static void put_scores(sl_buffer *out, const char *key, const scores *s, const char *f1, bool support) {
    sl_json_key(out, key);
    sl_buffer_putc(out, '{');
    sl_json_put_double(out, "precision", s->precision);
    sl_json_put_double(out, "recall", s->recall);
    sl_json_put_double(out, f1, s->f1);
    if (support) sl_json_put_int(out, "support", s->support);
    sl_buffer_putc(out, '}');
}

static void put_report(const counts *c, sl_buffer *out) {
    scores micro = micro_of(c), macro = mean_of(c, false), weighted = mean_of(c, true);
    sl_json_key(out, "report");
    sl_buffer_putc(out, '{');
    for (size_t i = 0; i < c->k; i++) {
        scores s = scores_of(c, c->hits[i], c->predicted[i], c->truth[i]);
        put_scores(out, c->labels[i], &s, "f1-score", true);
    }
    if (c->all_reported) sl_json_put_double(out, "accuracy", (double)c->right / (double)c->n);
    else put_scores(out, "micro avg", &micro, "f1-score", true);
    put_scores(out, "macro avg", &macro, "f1-score", true);
    put_scores(out, "weighted avg", &weighted, "f1-score", true);
    sl_buffer_putc(out, '}');
    put_scores(out, "micro", &micro, "f1", false);
    put_scores(out, "macro", &macro, "f1", false);
    put_scores(out, "weighted", &weighted, "f1", false);
}

static void put_confusion(const counts *c, sl_buffer *out) {
    sl_json_key(out, "confusion_labels");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < c->k; i++) sl_json_comma(out), sl_json_write_string(out, c->labels[i], strlen(c->labels[i]));
    sl_buffer_putc(out, ']');
    sl_json_key(out, "confusion");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < c->k; i++) {
        sl_json_comma(out);
        sl_buffer_putc(out, '[');
        for (size_t k = 0; k < c->k; k++) sl_json_comma(out), sl_buffer_printf(out, "%lld", (long long)c->matrix[i * c->k + k]);
        sl_buffer_putc(out, ']');
    }
    sl_buffer_putc(out, ']');
}

bool sl_classification_report(const char *const *truth, const char *const *predicted, size_t n, const char *const *labels, size_t n_labels,
                              double zero_division, sl_buffer *out) {
    counts c = {.n = n, .zero_division = zero_division};
    c.all = malloc((2 * n + 1) * sizeof *c.all);
    c.labels = malloc((2 * n + n_labels + 1) * sizeof *c.labels);
    bool good = c.all && c.labels;
    if (good) {
        c.m = sorted_union(truth, predicted, n, c.all);
        c.k = labels ? n_labels : c.m;
        memcpy(c.labels, labels ? labels : c.all, c.k * sizeof *c.labels);
        good = count(&c, truth, predicted);
    }
    if (good) {
        sl_buffer_putc(out, '{');
        sl_json_put_double(out, "accuracy", (double)c.right / (double)n);
        put_report(&c, out);
        put_confusion(&c, out);
        sl_json_put_double(out, "balanced_accuracy", balanced_accuracy(&c));
        sl_json_put_double(out, "matthews", matthews(&c));
        sl_json_put_double(out, "cohen_kappa", cohen_kappa(&c));
        sl_buffer_putc(out, '}');
    }
    free(c.all);
    free(c.labels);
    free(c.matrix);
    free(c.whole);
    free(c.hits);
    return good && !out->failed;
}
