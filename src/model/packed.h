/* Checkpoints whose matrices others have quantised, joined into element types of ours while loading.
 *
 *     gptq            qweight, qzeros, scales, g_idx   4 and 8 bits, groups, act-order; formats "gptq" and "gptq_v2"
 *     awq             qweight, qzeros, scales          4 bits, version "gemm"
 *     bitsandbytes    weight (U8), absmax, quant_map   NF4 and FP4, double quantised or not
 *                     weight (I8), SCB                 LLM.int8
 *
 * Where a type of ours holds a matrix exactly it stays quantised: (q - zero) * scale of GPTQ and AWQ is Q5_0, of 8 bits
 * Q8_0, bitsandbytes' NF4 is NF4 and its FP4 FP4. What none holds becomes F32: act-order (columns of one block have several
 * scales), LLM.int8's rows (f32 scales), rows that are no multiple of 32 (64). */
#ifndef SL_MODEL_PACKED_H
#define SL_MODEL_PACKED_H

#include "base/pool.h"
#include "format/checkpoint.h"

/* config.json's quantization_config; NULL: none (or null). */
const sl_json *sl_packed_config(const sl_checkpoint *checkpoint);
/* What it says in a few words: "GPTQ, 4 bits". */
void sl_packed_describe(const sl_json *quantization_config, char out[64]);
/* Is quantization_config one of these? SLLM_ERROR_UNSUPPORTED names what is not known of it. */
sllm_status sl_packed_check(const sl_json *quantization_config, sllm_error *error);

/* All tensors of the checkpoint, joined ones under N.weight in place of their parts: list [n], from the arena. Without
 * quantization_config they are the file's own. SLLM_ERROR_FORMAT names the tensor whose shape or contents do not fit. */
sllm_status sl_packed_tensors(const sl_checkpoint *checkpoint, sl_pool *pool, sl_arena *arena, sl_tensor **list,
                              size_t *n, sllm_error *error);

#endif
