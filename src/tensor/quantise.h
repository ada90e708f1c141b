/* Rows of floats into blocks of an element type: the way back from to_float. Deterministic; one thread: callers share
 * rows out. Where a type leaves a choice (scales, minimums, codes), the squared error of the block is made small,
 * each element's weighted by its column's importance where one is given. */
#ifndef SL_TENSOR_QUANTISE_H
#define SL_TENSOR_QUANTISE_H

#include "tensor/types.h"

/* Whether there is a writer for the type: F32, F16, BF16, and the quantised types that `sllm quantize` names. */
bool sl_type_is_written(sl_type type);

/* x: [rows, n], finite, n a multiple of the type's block. importance: [n], >= 0, finite, shared by all rows (mean square
 * of the activations that meet each column), or NULL. out: rows * sl_type_bytes(type, n) bytes, row after row. A value
 * beyond what the type can hold (f16 scales) is clamped to its range. */
void sl_quantise_rows(sl_type type, const float *x, int64_t rows, int64_t n, const float *importance, void *out);

/* Replaces the codes of one block, [info->block] of them as codes.h's unpack gives them, and keeps its scales and
 * minimums: for methods that choose codes by other means (GPTQ). Types of sl_type_is_written with codes only; codes must
 * be in the type's range, or in its book. */
void sl_block_set_codes(sl_type type, uint8_t *block, const int8_t *codes);

#endif
