/* Codes of a matrix chosen one column after the other, each column's error made up for by the columns still to come.
 * Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
 * (Cholesky form, lazy batches of columns, columns of large inputs first). */
#ifndef SL_QUANT_GPTQ_H
#define SL_QUANT_GPTQ_H

#include "tensor/blas.h"
#include "quant/solved.h"

typedef struct sl_gptq {
    const sl_blas *blas;
    const float *factor;     /* [n, n] of sl_gram_factor, in the order below */
    const int32_t *order;    /* [n] columns in the order in which they are done; NULL: as they stand. Integers: groups are
                              * of this order; types: blocks stay, and their scales are fixed beforehand */
    const float *importance; /* [n] weights of columns for the fit of scales, as they stand; NULL: 1 */
    int64_t n;
} sl_gptq;

/* Rows [first, first + rows) of the matrix, given in w [rows, n] (overwritten). One thread; callers share rows out.
 * False: out of memory. */
bool sl_gptq_rows(const sl_gptq *g, float *w, int64_t first, int64_t rows, const sl_solved *out);

/* Whether there is a solver for the type: its blocks keep codes apart from scales (F16, NF4 do not). */
bool sl_gptq_can_write(sl_type type);

#endif
