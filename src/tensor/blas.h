/* The few routines of OpenBLAS that the solvers and learning call. It is loaded at the first use: who does neither does not
 * pay for its start, which makes a thread a core. */
#ifndef SL_TENSOR_BLAS_H
#define SL_TENSOR_BLAS_H

#include "sllm.h"

enum { SL_BLAS_ROWS = 101, SL_BLAS_PLAIN = 111, SL_BLAS_TURNED = 112 }; /* CBLAS: row-major, no transpose, transpose */

typedef struct sl_blas {
    /* c [m, n] = alpha * op(a) op(b) + beta * c, as cblas_sgemm */
    void (*sgemm)(int order, int turn_a, int turn_b, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc);
    /* LAPACK: Cholesky factor, inverse of a triangle; columns first */
    void (*spotrf)(const char *triangle, const int *n, float *a, const int *lda, int *info);
    void (*strtri)(const char *triangle, const char *unit, const int *n, float *a, const int *lda, int *info);
    const char *core; /* the processor that its kernels are for, in its own words */
} sl_blas;

/* Threads of the caller's pool call it side by side, so it runs on one thread itself. SLLM_ERROR_UNSUPPORTED: it is not
 * installed. */
sllm_status sl_blas_get(const sl_blas **blas, sllm_error *error);

#endif
