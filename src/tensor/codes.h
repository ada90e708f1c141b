/* Every quantised type seen as one thing: small integer codes, a float scale for each group of 16 or 32 of them, and
 * for some types a float minimum a group:
 *
 *     value = scale[group] * code            types without minimums
 *     value = scale[group] * code + min[group]
 *
 * each operation rounded to f32. For every type of the GGUF format this gives the reference dequantiser's bits, so one
 * unpacker a type serves to_float, packing and, where no faster one is written, the kernels.
 *
 * NF4 and FP4 are the exception: their code books are of floats, which integers only approximate. to_float, and with it
 * `exact` arithmetic, takes the book itself; `fast` arithmetic takes integers, NF4's off by 0.0017 of the block's largest
 * value (root mean square; activations, rounded to 8 bits, are off by as much, and NF4 itself by 0.04).
 */
#ifndef SL_TENSOR_CODES_H
#define SL_TENSOR_CODES_H

#include "tensor/types.h"

#include <string.h>

enum { SL_MAX_BLOCK = 256, SL_MAX_GROUPS = 16 }; /* elements, groups a block */

typedef struct sl_codes {
    /* One format block at `block` (any alignment) into codes [info->block], scales and mins [info->block / group].
     * mins is written only when has_min. */
    void (*unpack)(const uint8_t *block, int8_t *codes, float *scales, float *mins);
    uint8_t group;  /* elements that share a scale: 16 or 32 */
    uint8_t offset; /* 0 <= code + offset <= top where top is not 0 */
    uint8_t top;    /* largest code + offset; 0: codes take all of [-128, 127] */
    bool has_min;
} sl_codes;

/* The one list of quantised types: the tables of types.c and the constants of the kernels are made from it.
 *
 *     type     name      id  block bytes group offset top has_min */
#define SL_QUANTISED(X) \
    X(Q4_0,    q4_0,      2,  32,  18, 32,  8,  15, false) \
    X(Q4_1,    q4_1,      3,  32,  20, 32,  0,  15, true) \
    X(Q5_0,    q5_0,      6,  32,  22, 32, 16,  31, false) \
    X(Q5_1,    q5_1,      7,  32,  24, 32,  0,  31, true) \
    X(Q8_0,    q8_0,      8,  32,  34, 32,  0,   0, false) \
    X(Q8_1,    q8_1,      9,  32,  36, 32,  0,   0, false) \
    X(Q2_K,    q2_k,     10, 256,  84, 16,  0,   3, true) \
    X(Q3_K,    q3_k,     11, 256, 110, 16,  4,   7, false) \
    X(Q4_K,    q4_k,     12, 256, 144, 32,  0,  15, true) \
    X(Q5_K,    q5_k,     13, 256, 176, 32,  0,  31, true) \
    X(Q6_K,    q6_k,     14, 256, 210, 16, 32,  63, false) \
    X(Q8_K,    q8_k,     15, 256, 292, 32,  0,   0, false) \
    X(IQ2_XXS, iq2_xxs,  16, 256,  66, 32, 43,  86, false) \
    X(IQ2_XS,  iq2_xs,   17, 256,  74, 16, 43,  86, false) \
    X(IQ3_XXS, iq3_xxs,  18, 256,  98, 32, 62, 124, false) \
    X(IQ1_S,   iq1_s,    19, 256,  50, 32,  9,  18, false) \
    X(IQ4_NL,  iq4_nl,   20,  32,  18, 32,  0,   0, false) \
    X(IQ3_S,   iq3_s,    21, 256, 110, 32, 15,  30, false) \
    X(IQ2_S,   iq2_s,    22, 256,  82, 16, 43,  86, false) \
    X(IQ4_XS,  iq4_xs,   23, 256, 136, 32,  0,   0, false) \
    X(IQ1_M,   iq1_m,    29, 256,  56, 16,  9,  18, false) \
    X(TQ1_0,   tq1_0,    34, 256,  54, 32,  1,   2, false) \
    X(TQ2_0,   tq2_0,    35, 256,  66, 32,  1,   3, false) \
    X(MXFP4,   mxfp4,    39,  32,  17, 32, 12,  24, false) \
    X(NVFP4,   nvfp4,    40,  64,  36, 16, 12,  24, false) \
    X(NF4,     nf4,      -1,  64,  36, 32,  0,   0, false) \
    X(FP4,     fp4,      -1,  64,  36, 32,  0,   0, false)

/* NULL for float and integer types. */
const sl_codes *sl_type_codes(sl_type type);

/* The blocks of the GGUF format, named as there. Little-endian; read them through memcpy-like helpers only. */
void sl_unpack_q4_0(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q4_1(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q5_0(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q5_1(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q8_0(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q8_1(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q2_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q3_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q4_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q5_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q6_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_q8_k(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq1_s(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq1_m(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq2_xxs(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq2_xs(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq2_s(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq3_xxs(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq3_s(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq4_nl(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_iq4_xs(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_tq1_0(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_tq2_0(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_mxfp4(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_nvfp4(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_nf4(const uint8_t *block, int8_t *codes, float *scales, float *mins);
void sl_unpack_fp4(const uint8_t *block, int8_t *codes, float *scales, float *mins);

/* Six-bit scales and minimums of Q4_K and Q5_K: 8 + 8 of them in 12 bytes. */
void sl_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);
/* Sixteen six-bit scales of Q3_K in 12 bytes, 32 subtracted. */
void sl_q3_k_scales(const uint8_t packed[12], int8_t scales[16]);
/* Values of the four-bit code books. */
extern const int8_t sl_iq4_values[16];
extern const int8_t sl_fp4_values[16]; /* E2M1 doubled, Open Compute Project MX specification 1.0 */
float sl_e8m0_half(uint8_t e);         /* 2^(e - 128): the scale of doubled E2M1 values */
/* NormalFloat 4 (Dettmers et al. 2023, "QLoRA", appendix E): its values, and the nearest multiples of SL_NF4_UNIT, the unit
 * of eight bits at which they are nearest. */
extern const float sl_nf4_values[16];
extern const int8_t sl_nf4_codes[16];
#define SL_NF4_UNIT (1.0f / 112.03f)
/* The same for bitsandbytes' FP4: sign, and a magnitude whose codes are in no order. All but the smallest, 1/192, are
 * multiples of the unit. */
extern const float sl_bnb_fp4_values[16];
extern const int8_t sl_bnb_fp4_codes[16];
#define SL_FP4_UNIT (1.0f / 96.0f)
/* The book of either type; NULL for others. */
static inline const float *sl_float_book(sl_type type) {
    return type == SL_NF4 ? sl_nf4_values : type == SL_FP4 ? sl_bnb_fp4_values : NULL;
}

static inline uint16_t sl_load_u16(const void *p) { const uint8_t *b = p; return (uint16_t)(b[0] | b[1] << 8); }
static inline uint32_t sl_load_u32(const void *p) {
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}
static inline float sl_load_f32(const void *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}
/* Index of element i of an NF4 or FP4 block: the high nibble first. */
static inline unsigned sl_nf4_index(const uint8_t *block, int i) {
    return block[4 + i / 2] >> (i % 2 ? 0 : 4) & 15u;
}

#endif
