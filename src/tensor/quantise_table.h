/* The quantisers of one instruction set. All tables give the same bits. */
#ifndef SL_TENSOR_QUANTISE_TABLE_H
#define SL_TENSOR_QUANTISE_TABLE_H

#include "tensor/types.h"

typedef struct sl_quantise_table {
    /* Weights of n elements of a row, from their columns' importance and the row's mean square. */
    void (*weights)(const float *x, const float *importance, float mean_square, int n, float *w);
    void (*block[SL_TYPE_COUNT])(const float *x, const float *w, uint8_t *out); /* NULL: no quantiser */
} sl_quantise_table;

extern const sl_quantise_table sl_quantise_plain;
#if defined(__x86_64__)
extern const sl_quantise_table sl_quantise_avx2;
#endif

#endif
