/* The integers of GPTQ and AWQ checkpoints: value = (code - zero) * scale, for groups of a row's columns. */
#ifndef SL_QUANT_INT_GRID_H
#define SL_QUANT_INT_GRID_H

#include "sllm.h"

typedef struct sl_int_grid {
    int bits;        /* 4 or 8 */
    int64_t group;   /* columns that share a scale; a whole row's at most */
    bool symmetric;  /* zero in the middle of the codes */
} sl_int_grid;

typedef struct sl_int_group {
    float scale;     /* an f16 number, > 0 */
    int zero;        /* 0 .. 2^bits - 1 */
} sl_int_group;

/* The group for x [n] whose squared error, weighted by w [n] (NULL: 1), is least among ranges from the whole one down to
 * half of it. */
sl_int_group sl_int_grid_fit(sl_int_grid grid, const float *x, const float *w, int64_t n);
int sl_int_grid_code(sl_int_grid grid, sl_int_group group, float x);

#endif
