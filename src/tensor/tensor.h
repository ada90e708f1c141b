/* A tensor: a type, a shape, and a pointer to memory that somebody else owns (a mapped file or an arena). */
#ifndef SL_TENSOR_TENSOR_H
#define SL_TENSOR_TENSOR_H

#include "tensor/types.h"

typedef struct sl_tensor {
    const char *name; /* as in its file; borrowed */
    sl_type type;
    int n_dims;       /* 0..8; 0 is a scalar */
    int64_t shape[8]; /* outermost first: a matrix is [rows, columns], columns contiguous; an expert stack [n, rows, columns] */
    const void *data; /* row-major, any alignment */
    uint64_t n_elements, bytes;
    struct sl_packed *packed; /* [1], or [n] of an expert stack (pack.h); NULL: multiplied as it lies */
} sl_tensor;

#endif
