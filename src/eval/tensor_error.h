/* How far the tensors of one model file are from another's. */
#ifndef SL_EVAL_TENSOR_ERROR_H
#define SL_EVAL_TENSOR_ERROR_H

#include "base/pool.h"
#include "tensor/tensor.h"

typedef struct sl_tensor_error {
    double rmse;       /* root mean square of a - b */
    double relative;   /* rmse / root mean square of a; 0 where both are zero */
    double largest;    /* of |a - b| */
    double cosine;     /* of the angle between them; 1 where either is zero */
} sl_tensor_error;

/* Of two float or quantised tensors of one shape; row by row, over the pool. False: out of memory. */
bool sl_tensor_error_of(sl_pool *pool, const sl_tensor *a, const sl_tensor *b, sl_tensor_error *result);

#endif
