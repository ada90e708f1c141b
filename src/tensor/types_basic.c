/* Types with one scale a block of 32 (or 16, or 64): Q4_0 ... Q8_1, IQ4_NL, the four-bit floats MXFP4 and NVFP4, and
 * bitsandbytes' NF4 and FP4. */
#include "tensor/codes.h"

#include <string.h>

/* Blocks, as laid out in the format. */
typedef struct { uint16_t d; uint8_t qs[16]; } q4_0;
typedef struct { uint16_t d, m; uint8_t qs[16]; } q4_1;
typedef struct { uint16_t d; uint8_t qh[4], qs[16]; } q5_0;
typedef struct { uint16_t d, m; uint8_t qh[4], qs[16]; } q5_1;
typedef struct { uint16_t d; int8_t qs[32]; } q8_0;
typedef struct { uint16_t d, s; int8_t qs[32]; } q8_1; /* s = d * sum of qs, not needed to widen */
typedef struct { uint8_t e, qs[16]; } mxfp4;
typedef struct { uint8_t d[4], qs[32]; } nvfp4;
/* bitsandbytes keeps the largest values and the codes (the first in the high nibble) in two tensors; a reader puts them
 * together, as one tensor of ours. Blocks of 128 columns and more are several of these with the same absmax. */
typedef struct { float absmax; uint8_t qs[32]; } nf4;
_Static_assert(sizeof(q4_0) == 18, "Q4_0");
_Static_assert(sizeof(q4_1) == 20, "Q4_1");
_Static_assert(sizeof(q5_0) == 22, "Q5_0");
_Static_assert(sizeof(q5_1) == 24, "Q5_1");
_Static_assert(sizeof(q8_0) == 34, "Q8_0");
_Static_assert(sizeof(q8_1) == 36, "Q8_1");
_Static_assert(sizeof(mxfp4) == 17, "MXFP4");
_Static_assert(sizeof(nvfp4) == 36, "NVFP4");
_Static_assert(sizeof(nf4) == 36, "NF4");
#define AT(type, field) (block + offsetof(type, field))

const int8_t sl_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const float sl_nf4_values[16] = {
    -1.0f, -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.18477343f, -0.0910500363f, 0.0f,
    0.0795802996f, 0.160930201f, 0.246112302f, 0.337915242f, 0.440709829f, 0.562617004f, 0.722956836f, 1.0f,
};
const int8_t sl_nf4_codes[16] = {-112, -78, -59, -44, -32, -21, -10, 0, 9, 18, 28, 38, 49, 63, 81, 112};
const int8_t sl_fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

const float sl_bnb_fp4_values[16] = {
    0.0f, 0.0052083333f, 0.6666666667f, 1.0f, 0.3333333333f, 0.5f, 0.1666666667f, 0.25f,
    -0.0f, -0.0052083333f, -0.6666666667f, -1.0f, -0.3333333333f, -0.5f, -0.1666666667f, -0.25f,
};
const int8_t sl_bnb_fp4_codes[16] = {0, 1, 64, 96, 32, 48, 16, 24, 0, -1, -64, -96, -32, -48, -16, -24};

static float f16_at(const uint8_t *p) { return sl_f16_to_f32(sl_load_u16(p)); }

/* Low nibbles are elements 0..15, high nibbles 16..31. */
static void nibbles(const uint8_t *qs, int offset, int8_t *codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = (int8_t)((qs[i] & 15) - offset);
        codes[i + 16] = (int8_t)((qs[i] >> 4) - offset);
    }
}

/* The same with a fifth bit for each element in qh. */
static void five_bits(const uint8_t *qs, const uint8_t *qh, int offset, int8_t *codes) {
    uint32_t high = sl_load_u32(qh);
    for (int i = 0; i < 16; i++) {
        codes[i] = (int8_t)(((qs[i] & 15) | ((high >> i & 1) << 4)) - offset);
        codes[i + 16] = (int8_t)(((qs[i] >> 4) | ((high >> (i + 16) & 1) << 4)) - offset);
    }
}

void sl_unpack_q4_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = f16_at(AT(q4_0, d));
    nibbles(AT(q4_0, qs), 8, codes);
}

void sl_unpack_q4_1(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    *scales = f16_at(AT(q4_1, d));
    *mins = f16_at(AT(q4_1, m));
    nibbles(AT(q4_1, qs), 0, codes);
}

void sl_unpack_q5_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = f16_at(AT(q5_0, d));
    five_bits(AT(q5_0, qs), AT(q5_0, qh), 16, codes);
}

void sl_unpack_q5_1(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    *scales = f16_at(AT(q5_1, d));
    *mins = f16_at(AT(q5_1, m));
    five_bits(AT(q5_1, qs), AT(q5_1, qh), 0, codes);
}

void sl_unpack_q8_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = f16_at(AT(q8_0, d));
    memcpy(codes, AT(q8_0, qs), 32);
}

void sl_unpack_q8_1(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = f16_at(AT(q8_1, d));
    memcpy(codes, AT(q8_1, qs), 32);
}

void sl_unpack_iq4_nl(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = f16_at(AT(q4_0, d)); /* laid out like Q4_0, codes index a table */
    for (int i = 0; i < 16; i++) {
        codes[i] = sl_iq4_values[AT(q4_0, qs)[i] & 15];
        codes[i + 16] = sl_iq4_values[AT(q4_0, qs)[i] >> 4];
    }
}

float sl_e8m0_half(uint8_t e) {
    uint32_t bits = e < 2 ? (uint32_t)0x00200000 << e : (uint32_t)(e - 1) << 23; /* below 2: subnormal */
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void sl_unpack_mxfp4(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    *scales = sl_e8m0_half(*AT(mxfp4, e));
    for (int i = 0; i < 16; i++) {
        codes[i] = sl_fp4_values[AT(mxfp4, qs)[i] & 15];
        codes[i + 16] = sl_fp4_values[AT(mxfp4, qs)[i] >> 4];
    }
}

/* Unsigned E4M3 (bias 7), halved because the code book is doubled; 0x7f (NaN) reads as 0, as in the reference. */
static float ue4m3_half(uint8_t x) {
    if (x == 0 || x == 0x7f) return 0.0f;
    int exponent = x >> 3 & 15, mantissa = x & 7;
    float f = exponent ? (float)(8 + mantissa) : (float)mantissa * 2.0f; /* in units of 2^(exponent - 10) */
    for (int e = exponent; e < 11; e++) f *= 0.5f;
    for (int e = 11; e < exponent; e++) f *= 2.0f;
    return f;
}

void sl_unpack_nvfp4(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    for (int g = 0; g < 4; g++) {
        const uint8_t *qs = AT(nvfp4, qs) + 8 * g;
        scales[g] = ue4m3_half(AT(nvfp4, d)[g]);
        for (int i = 0; i < 8; i++) {
            codes[16 * g + i] = sl_fp4_values[qs[i] & 15];
            codes[16 * g + i + 8] = sl_fp4_values[qs[i] >> 4];
        }
    }
}

void sl_unpack_nf4(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    scales[0] = scales[1] = sl_load_f32(AT(nf4, absmax)) * SL_NF4_UNIT;
    for (int i = 0; i < 64; i++) codes[i] = sl_nf4_codes[sl_nf4_index(block, i)];
}

void sl_unpack_fp4(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    scales[0] = scales[1] = sl_load_f32(AT(nf4, absmax)) * SL_FP4_UNIT; /* the block is NF4's, the book another */
    for (int i = 0; i < 64; i++) codes[i] = sl_bnb_fp4_codes[sl_nf4_index(block, i)];
}
