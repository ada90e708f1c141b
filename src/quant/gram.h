/* Sums of outer products of inputs: the second-order statistics that GPTQ and AWQ weigh errors with. */
#ifndef SL_QUANT_GRAM_H
#define SL_QUANT_GRAM_H

#include "base/pool.h"
#include "tensor/blas.h"

typedef struct sl_gram {
    float *h;      /* [n, n], row-major: sum of x x^T; below and on the diagonal until sl_gram_mirror */
    int64_t n;
    double count;  /* inputs summed */
} sl_gram;

sllm_status sl_gram_new(sl_gram *gram, int64_t n, sllm_error *error);
void sl_gram_free(sl_gram *gram); /* of a zero gram: nothing */
/* x [rows, n], `stride` floats apart. The sum does not depend on the number of threads. */
void sl_gram_add(sl_gram *gram, const sl_blas *blas, sl_pool *pool, const float *x, int64_t rows, size_t stride);
void sl_gram_mirror(sl_gram *gram); /* fills what lies above the diagonal */

/* The upper triangle U [n, n] with U^T U = (H + damping)^-1 in place of h; what lies below is not to be read. h must be
 * mirrored. Damping is `damp` of the diagonal's mean, ten times as much for each time that the matrix is found not to be
 * positive definite. order [n] or NULL: rows and columns are taken in this order first; scratch [n, n] is needed then.
 * False: it never was. */
bool sl_gram_factor(sl_gram *gram, const sl_blas *blas, float damp, const int32_t *order, float *scratch);

#endif
