/* The one table of element types. Everything that asks what a type is — readers, kernels, planner, `show` — asks here.
 *
 * Block layouts are the published facts of the GGUF format; every size is asserted at compile time in types_*.c. NF4 and
 * FP4 (bitsandbytes') are not of that format: their block is defined in types_basic.c.
 */
#ifndef SL_TENSOR_TYPES_H
#define SL_TENSOR_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sl_type {
    SL_F32, SL_F16, SL_BF16, SL_F64,
    SL_Q4_0, SL_Q4_1, SL_Q5_0, SL_Q5_1, SL_Q8_0, SL_Q8_1,
    SL_Q2_K, SL_Q3_K, SL_Q4_K, SL_Q5_K, SL_Q6_K, SL_Q8_K,
    SL_IQ1_S, SL_IQ1_M, SL_IQ2_XXS, SL_IQ2_XS, SL_IQ2_S, SL_IQ3_XXS, SL_IQ3_S, SL_IQ4_NL, SL_IQ4_XS,
    SL_TQ1_0, SL_TQ2_0, SL_MXFP4, SL_NVFP4, SL_NF4, SL_FP4,
    SL_I8, SL_I16, SL_I32, SL_I64, SL_U8, SL_BOOL, /* integers: stored and read, never multiplied */
    SL_TYPE_COUNT
} sl_type;

typedef struct sl_type_info {
    const char *name;    /* "Q4_K" */
    int ggml_id;         /* the number GGUF files use, -1: none */
    const char *safetensors_name; /* "BF16", NULL: none */
    uint16_t block;      /* elements a block */
    uint16_t bytes;      /* bytes a block */
    bool is_float;       /* widening to float is defined */
    bool is_quantised;   /* blocks of more than one element: `fast` arithmetic rounds activations for it */
    /* n elements, n a multiple of block, from blocks at `in` (any alignment) to out. Bit-exact; NULL for integers. */
    void (*to_float)(const void *in, float *out, size_t n);
} sl_type_info;

const sl_type_info *sl_type_get(sl_type type);                   /* never NULL for a valid type */
bool sl_type_from_ggml(int64_t ggml_id, sl_type *type);          /* false: unknown number */
bool sl_type_from_name(const char *name, sl_type *type);         /* "q4_k", "Q4_K", "BF16"; case does not matter */
bool sl_type_from_safetensors(const char *name, sl_type *type);
/* Bytes that n elements take in rows of `type`; false when n is no multiple of the block or the product overflows. */
bool sl_type_bytes(sl_type type, uint64_t n, uint64_t *bytes);

float sl_f16_to_f32(uint16_t h);
uint16_t sl_f32_to_f16(float f); /* round to nearest even */
float sl_bf16_to_f32(uint16_t h);
uint16_t sl_f32_to_bf16(float f); /* round to nearest even, NaN stays NaN */

#endif
