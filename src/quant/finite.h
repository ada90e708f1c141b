/* Values of weights that are not finite: found, and made 0 where that was asked for. */
#ifndef SL_QUANT_FINITE_H
#define SL_QUANT_FINITE_H

#include "base/pool.h"
#include "tensor/tensor.h"

/* How many of x [n] are NaN or infinite; they become 0. *first: index of the first, plus 1. */
uint64_t sl_clear_nonfinite(float *x, size_t n, uint64_t *first);
/* SLLM_ERROR_FORMAT names file, tensor and place of the first value that is not finite, and where it can be made 0 how. */
sllm_status sl_check_finite(const char *path, const sl_tensor *t, bool can_clear, sl_pool *pool, sllm_error *error);

#endif
