#include "quant/gram.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STRIP = 128 };

sllm_status sl_gram_new(sl_gram *gram, int64_t n, sllm_error *error) {
    *gram = (sl_gram){.n = n, .h = calloc((size_t)n * (size_t)n, sizeof *gram->h)};
    return gram->h ? SLLM_OK : sl_fail_memory(error, "second-order statistics", (size_t)n * (size_t)n * sizeof *gram->h);
}

void sl_gram_free(sl_gram *gram) {
    free(gram->h);
    *gram = (sl_gram){0};
}

typedef struct adding {
    sl_gram *gram;
    const sl_blas *blas;
    const float *x;
    int64_t rows;
    size_t stride;
} adding;

static void add_strip(void *user, int64_t chunk, int thread) {
    const adding *a = user;
    int64_t n = a->gram->n, from = chunk * STRIP, to = from + STRIP < n ? from + STRIP : n;
    (void)thread;
    a->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_TURNED, SL_BLAS_PLAIN, (int)(to - from), (int)to, (int)a->rows, 1, a->x + from,
                   (int)a->stride, a->x, (int)a->stride, 1, a->gram->h + from * n, (int)n);
}

void sl_gram_add(sl_gram *gram, const sl_blas *blas, sl_pool *pool, const float *x, int64_t rows, size_t stride) {
    adding a = {gram, blas, x, rows, stride};
    sl_pool_run(pool, (gram->n + STRIP - 1) / STRIP, add_strip, &a);
    gram->count += (double)rows;
}

void sl_gram_mirror(sl_gram *gram) {
    int64_t n = gram->n;
    for (int64_t i = 0; i < n; i += 32) /* in tiles, for the cache's sake */
        for (int64_t j = 0; j <= i; j += 32)
            for (int64_t r = i; r < i + 32 && r < n; r++)
                for (int64_t c = j; c < j + 32 && c < r; c++) gram->h[c * n + r] = gram->h[r * n + c];
}

/* ---------------------------------------------------------------- the factor */

static void permute(float *h, int64_t n, const int32_t *order, float *scratch) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) scratch[i * n + j] = h[(int64_t)order[i] * n + order[j]];
    memcpy(h, scratch, (size_t)n * (size_t)n * sizeof *h);
}

/* Rows and columns backwards: in memory the whole array backwards. */
static void reverse(float *h, int64_t n) {
    for (int64_t i = 0, j = n * n - 1; i < j; i++, j--) {
        float t = h[i];
        h[i] = h[j];
        h[j] = t;
    }
}

/* Row-major memory is LAPACK's transposed: its upper triangle is our lower one. A matrix that is not positive definite
 * leaves the triangle changed, so the other one and the diagonal bring it back. */
static bool cholesky(const sl_blas *blas, float *h, int n, double add, const float *diagonal) {
    int info = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < i; j++) h[i * n + j] = h[j * n + i];
        h[i * n + i] = (float)((double)diagonal[i] + add);
    }
    blas->spotrf("U", &n, h, &n, &info);
    return info == 0;
}

/* With F = H backwards = L L^T, the inverse of L, backwards again, is the factor U: one factorisation and the inverse of a
 * triangle, in place of a factorisation, an inverse and another factorisation. */
bool sl_gram_factor(sl_gram *gram, const sl_blas *blas, float damp, const int32_t *order, float *scratch) {
    int64_t n = gram->n;
    int size = (int)n, info = 1;
    double mean = 0;
    float *h = gram->h, *diagonal = malloc((size_t)n * sizeof *diagonal);
    if (!diagonal) return false;
    if (order) permute(h, n, order, scratch);
    reverse(h, n);
    for (int64_t i = 0; i < n; i++) {
        if (!(h[i * n + i] > 0)) h[i * n + i] = 0;
        mean += (double)h[i * n + i] / (double)n;
    }
    if (!(mean > 0)) mean = 1;
    for (int64_t i = 0; i < n; i++) diagonal[i] = h[i * n + i];
    bool done = false;
    for (double d = damp; !done && d < 100; d *= 10) done = cholesky(blas, h, size, d * mean, diagonal);
    if (done) blas->strtri("U", "N", &size, h, &size, &info);
    reverse(h, n);
    free(diagonal);
    return done && info == 0;
}
