#include "quant/solve_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POWERS = 21, ROWS_A_TASK = 16, TASKS_A_MATRIX = 8 };

typedef struct search {
    const sl_gram *gram;
    const sl_blas *blas;
    sl_solve_matrix *const *matrices;
    float *scales;      /* [POWERS, columns] */
    float *importance;  /* [POWERS, columns] of the scaled columns */
    double *losses;     /* [POWERS, n_matrices, TASKS_A_MATRIX] */
    int n_matrices;
    bool failed;
} search;

/* Root mean squares; columns that are tied take that of all of them. */
static bool sizes_of(const sl_gram *gram, const int32_t *tied, float *sizes) {
    int64_t n = gram->n;
    double *sums = calloc((size_t)n * 2, sizeof *sums), *counts = sums + n, count = gram->count > 0 ? gram->count : 1;
    if (!sums) return false;
    for (int64_t c = 0; c < n; c++) {
        int64_t at = tied ? tied[c] : c;
        sums[at] += (double)gram->h[c * n + c] / count;
        counts[at]++;
    }
    for (int64_t c = 0; c < n; c++) {
        int64_t at = tied ? tied[c] : c;
        sizes[c] = (float)sqrt(sums[at] / counts[at]);
    }
    free(sums);
    return true;
}

static void fill_scales(search *s, const float *sizes) {
    int64_t n = s->gram->n;
    for (int p = 0; p < POWERS; p++) {
        float *scale = s->scales + p * n, low = INFINITY, high = 0;
        for (int64_t c = 0; c < n; c++) {
            scale[c] = sizes[c] > 1e-8f ? powf(sizes[c], (float)p / (POWERS - 1)) : 1;
            low = fminf(low, scale[c]);
            high = fmaxf(high, scale[c]);
        }
        float middle = sqrtf(low * high);
        for (int64_t c = 0; c < n; c++) {
            scale[c] = fminf(fmaxf(scale[c] / middle, 1e-3f), 1e3f);
            float square = s->gram->h[c * n + c] / (scale[c] * scale[c]);
            s->importance[p * n + c] = square;
        }
    }
}

/* The error of some rows' outputs with one power. */
static double loss_of(search *s, const sl_solve_matrix *m, const float *scale, const float *importance, int64_t first, int64_t rows) {
    int64_t n = s->gram->n;
    size_t all = (size_t)(rows * n);
    float *w = malloc(3 * all * sizeof *w), *scaled = w + all, *product = scaled + all;
    sl_solved out;
    if (!w || !sl_solved_new(&out, m->out.target, rows, n)) {
        s->failed = true;
        free(w);
        return 0;
    }
    sl_solve_rows(m, first, rows, w);
    for (size_t i = 0; i < all; i++) scaled[i] = w[i] * scale[i % (size_t)n];
    sl_solved_round(&out, scaled, importance, 0, rows);
    sl_solved_read(&out, 0, rows, scaled);
    for (size_t i = 0; i < all; i++) scaled[i] = scaled[i] / scale[i % (size_t)n] - w[i];
    s->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, (int)rows, (int)n, (int)n, 1, scaled, (int)n, s->gram->h, (int)n, 0,
                   product, (int)n);
    double sum = 0;
    for (size_t i = 0; i < all; i++) sum += (double)scaled[i] * product[i];
    sl_solved_free(&out);
    free(w);
    return sum;
}

/* Rows of a task: a run of neighbours, the runs spread over the matrix. */
static void task(void *user, int64_t chunk, int thread) {
    search *s = user;
    int64_t part = chunk % TASKS_A_MATRIX, matrix = chunk / TASKS_A_MATRIX % s->n_matrices;
    int64_t power = chunk / TASKS_A_MATRIX / s->n_matrices, n = s->gram->n;
    const sl_solve_matrix *m = s->matrices[matrix];
    int64_t rows = m->source.shape[0], first = rows * part / TASKS_A_MATRIX, left = rows * (part + 1) / TASKS_A_MATRIX - first;
    (void)thread;
    if (left > ROWS_A_TASK) left = ROWS_A_TASK;
    if (left > 0)
        s->losses[chunk] = (double)rows * loss_of(s, m, s->scales + power * n, s->importance + power * n, first, left) / (double)left;
}

bool sl_awq_search(const sl_gram *gram, const sl_blas *blas, sl_pool *pool, sl_solve_matrix *const *matrices, int n_matrices,
                   const int32_t *tied, float *scales) {
    int64_t n = gram->n, tasks = TASKS_A_MATRIX * n_matrices;
    search s = {.gram = gram, .blas = blas, .matrices = matrices, .n_matrices = n_matrices};
    s.scales = malloc((size_t)n * (2 * POWERS + 1) * sizeof *s.scales);
    s.losses = calloc((size_t)(POWERS * tasks), sizeof *s.losses);
    if (s.scales && s.losses) {
        float *sizes = s.scales + 2 * POWERS * n;
        s.importance = s.scales + POWERS * n;
        s.failed = !sizes_of(gram, tied, sizes);
        if (!s.failed) fill_scales(&s, sizes);
        if (!s.failed) sl_pool_run(pool, POWERS * tasks, task, &s);
        double least = INFINITY;
        for (int p = 0; p < POWERS; p++) {
            double loss = 0;
            for (int64_t i = 0; i < tasks; i++) loss += s.losses[p * tasks + i];
            if (!(loss < least)) continue;
            least = loss;
            memcpy(scales, s.scales + p * n, (size_t)n * sizeof *scales);
        }
        if (least == INFINITY)
            for (int64_t c = 0; c < n; c++) scales[c] = 1;
    } else s.failed = true;
    free(s.scales);
    free(s.losses);
    return !s.failed;
}
