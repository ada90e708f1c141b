/* A matrix as it is after quantising: blocks of an element type, or the integers of GPTQ and AWQ checkpoints. */
#ifndef SL_QUANT_SOLVED_H
#define SL_QUANT_SOLVED_H

#include "quant/int_grid.h"
#include "tensor/types.h"

/* What a matrix is to become. */
typedef struct sl_target {
    sl_type type;       /* SL_TYPE_COUNT: integers as `grid` says */
    sl_int_grid grid;   /* a group longer than a row is the row */
} sl_target;

typedef struct sl_solved {
    sl_target target;
    int64_t rows, columns;
    uint8_t *blocks;    /* of a type: row after row */
    uint8_t *codes;     /* integers: [rows, columns] ... */
    float *scales;      /* [rows, n_groups] f16 numbers */
    uint8_t *zeros;     /* [rows, n_groups] */
    int32_t *group_of;  /* [columns] group of each; NULL: in order */
    int64_t n_groups;
} sl_solved;

/* Room for the result. False: out of memory. */
bool sl_solved_new(sl_solved *solved, sl_target target, int64_t rows, int64_t columns);
void sl_solved_free(sl_solved *solved);

/* Rows [first, first + rows), given as w [rows, columns]: every weight to the nearest code, scales that make the error
 * small, weighted by importance [columns] (NULL: 1). One thread; callers share rows out. */
void sl_solved_round(const sl_solved *solved, const float *w, const float *importance, int64_t first, int64_t rows);
/* What rows [first, first + rows) stand for, into w [rows, columns]. */
void sl_solved_read(const sl_solved *solved, int64_t first, int64_t rows, float *w);

#endif
