/* What solve.c and awq.c share: the matrices of the block that is being solved. */
#ifndef SL_QUANT_SOLVE_INT_H
#define SL_QUANT_SOLVE_INT_H

#include "model/model.h"
#include "model/weights.h"
#include "quant/gram.h"
#include "quant/solved.h"

typedef struct sl_solve_matrix {
    sl_tensor *bound;    /* the model's, which computes with `half` once the matrix is solved */
    sl_tensor source;    /* [rows, columns] */
    sl_slot slot;        /* of its name: Q, UP, ... */
    sl_slot meets;       /* of the inputs that it shares with others (sl_forward_params.observe) */
    int expert;          /* -1: none */
    sl_solved out;
    float *row_scale;    /* [rows] or NULL: the matrix that is quantised is source * row_scale * column_scale */
    float *column_scale; /* [columns] or NULL */
    uint16_t *half;      /* [rows, columns] f16 of the result, column_scale taken out again where inputs keep theirs */
} sl_solve_matrix;

/* Rows [first, first + n) with their scales, into out [n, columns]. */
void sl_solve_rows(const sl_solve_matrix *m, int64_t first, int64_t n, float *out);

/* Scales [columns] of the inputs that these matrices share, by which their columns are multiplied and the inputs divided,
 * such that the error of their outputs is least: powers from 0 to 1 of the inputs' root mean square are tried. gram:
 * mirrored. tied [columns] or NULL: columns of one number share their scale. False: out of memory.
 * Source: Lin et al. 2023, "AWQ: Activation-aware Weight Quantization". */
bool sl_awq_search(const sl_gram *gram, const sl_blas *blas, sl_pool *pool, sl_solve_matrix *const *matrices, int n_matrices,
                   const int32_t *tied, float *scales);

#endif
