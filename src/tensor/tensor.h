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

/* Elements [first, first + n) widened to out [n]; both multiples of the type's block. Of what lies at `data`: matrices whose
 * rows were given up are read by sl_row. */
static inline void sl_tensor_read(const sl_tensor *t, uint64_t first, size_t n, float *out) {
    uint64_t offset = 0;
    sl_type_bytes(t->type, first, &offset);
    sl_type_get(t->type)->to_float((const unsigned char *)t->data + offset, out, n);
}

#endif
