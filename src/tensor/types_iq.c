/* The IQ types: 256 elements a block, vectors of 8 or 4 elements taken from a published lattice (iq_tables.c), signs
 * apart; and IQ4_XS, a four-bit table with scales for 32 elements. */
#include "tensor/codes.h"
#include "tensor/iq_tables.h"

typedef struct { uint16_t d; uint8_t qs[32]; uint16_t qh[8]; } iq1_s;
typedef struct { uint8_t qs[32], qh[16], scales[8]; } iq1_m;
typedef struct { uint16_t d; uint16_t qs[32]; } iq2_xxs;
typedef struct { uint16_t d, qs[32]; uint8_t scales[8]; } iq2_xs;
typedef struct { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; } iq2_s;
typedef struct { uint16_t d; uint8_t qs[64], scales_signs[32]; } iq3_xxs;
typedef struct { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; } iq3_s;
typedef struct { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } iq4_xs;
_Static_assert(sizeof(iq1_s) == 50, "IQ1_S");
_Static_assert(sizeof(iq1_m) == 56, "IQ1_M");
_Static_assert(sizeof(iq2_xxs) == 66, "IQ2_XXS");
_Static_assert(sizeof(iq2_xs) == 74, "IQ2_XS");
_Static_assert(sizeof(iq2_s) == 82, "IQ2_S");
_Static_assert(sizeof(iq3_xxs) == 98, "IQ3_XXS");
_Static_assert(sizeof(iq3_s) == 110, "IQ3_S");
_Static_assert(sizeof(iq4_xs) == 136, "IQ4_XS");
#define AT(type, field) (block + offsetof(type, field))

static float f16_at(const uint8_t *p) { return sl_f16_to_f32(sl_load_u16(p)); }

/* Seven stored sign bits; the eighth makes their number even. */
static unsigned even_signs(unsigned seven) {
    return seven | (unsigned)__builtin_parity(seven) << 7;
}

/* Byte k of the vectors below is element k: eight small integers in one word, as no sum leaves its byte. */
#define EACH_BYTE(b) ((b) * UINT64_C(0x0101010101010101))

static void store_vector(uint64_t bytes, int n, int8_t *codes) {
    for (int k = 0; k < n; k++) codes[k] = (int8_t)(uint8_t)(bytes >> (8 * k));
}

/* Eight two-bit levels to eight bytes. */
static uint64_t two_bit_levels(uint64_t word) {
    word = (word | word << 24) & UINT64_C(0x000000ff000000ff);
    word = (word | word << 12) & UINT64_C(0x000f000f000f000f);
    return (word | word << 6) & EACH_BYTE(3);
}

/* Changes the sign of byte k (1..127) where bit k of signs is set. */
static uint64_t with_signs(uint64_t bytes, unsigned signs) {
    uint64_t bits = EACH_BYTE((uint64_t)(signs & 255)) & UINT64_C(0x8040201008040201);
    uint64_t ones = (bits + EACH_BYTE(0x7f)) >> 7 & EACH_BYTE(1);
    return (bytes ^ ones * 255) + ones;
}

/* Eight elements of an IQ2 lattice with their signs: levels 8, 25, 43. */
static void iq2_vector(unsigned word, unsigned signs, int8_t *codes) {
    uint64_t level = two_bit_levels(word);
    store_vector(with_signs(EACH_BYTE(8) + level * 17 + (level >> 1 & EACH_BYTE(1)), signs), 8, codes);
}

static float iq2_scale(float d, unsigned s) { return d * (0.5f + (float)s) * 0.25f; }

void sl_unpack_iq2_xxs(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq2_xxs, d));
    for (int g = 0; g < 8; g++) { /* 8 bytes: four lattice indices, then 4 x 7 sign bits and a 4-bit scale */
        const uint8_t *q = AT(iq2_xxs, qs) + 8 * g;
        uint32_t rest = sl_load_u32(q + 4);
        scales[g] = iq2_scale(d, rest >> 28);
        for (int v = 0; v < 4; v++)
            iq2_vector(sl_iq2_xxs_grid[q[v]], even_signs(rest >> (7 * v) & 127), codes + 32 * g + 8 * v);
    }
}

void sl_unpack_iq2_xs(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq2_xs, d));
    for (int g = 0; g < 16; g++) scales[g] = iq2_scale(d, AT(iq2_xs, scales)[g / 2] >> (g % 2 * 4) & 15);
    for (int v = 0; v < 32; v++) {
        unsigned q = sl_load_u16(AT(iq2_xs, qs) + 2 * v);
        iq2_vector(sl_iq2_xs_grid[q & 511], even_signs(q >> 9), codes + 8 * v);
    }
}

void sl_unpack_iq2_s(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq2_s, d));
    for (int g = 0; g < 16; g++) scales[g] = iq2_scale(d, AT(iq2_s, scales)[g / 2] >> (g % 2 * 4) & 15);
    for (int v = 0; v < 32; v++) {
        unsigned high = AT(iq2_s, qh)[v / 4] >> (v % 4 * 2) & 3;
        iq2_vector(sl_iq2_s_grid[AT(iq2_s, qs)[v] | high << 8], AT(iq2_s, signs)[v], codes + 8 * v);
    }
}

/* Four three-bit levels to four bytes. */
static uint64_t three_bit_levels(unsigned word) {
    return (word & 7) | (word >> 3 & 7) << 8 | (word >> 6 & 7) << 16 | (word >> 9 & 7) << 24;
}

/* Four elements of the IQ3_XXS lattice: levels 4, 12 ... 52, 62. */
static void iq3_xxs_vector(unsigned word, unsigned signs, int8_t *codes) {
    uint64_t level = three_bit_levels(word), last = (level + EACH_BYTE(1)) >> 3 & EACH_BYTE(1);
    store_vector(with_signs(EACH_BYTE(4) + level * 8 + last * 2, signs), 4, codes);
}

/* Four elements of the IQ3_S lattice: levels 1, 3 ... 15. */
static void iq3_s_vector(unsigned word, unsigned signs, int8_t *codes) {
    store_vector(with_signs(EACH_BYTE(1) + three_bit_levels(word) * 2, signs), 4, codes);
}

void sl_unpack_iq3_xxs(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq3_xxs, d));
    for (int g = 0; g < 8; g++) {
        uint32_t rest = sl_load_u32(AT(iq3_xxs, scales_signs) + 4 * g);
        scales[g] = d * (0.5f + (float)(rest >> 28)) * 0.5f;
        for (int v = 0; v < 8; v++) {
            unsigned signs = even_signs(rest >> (7 * (v / 2)) & 127) >> (v % 2 * 4);
            iq3_xxs_vector(sl_iq3_xxs_grid[AT(iq3_xxs, qs)[8 * g + v]], signs, codes + 32 * g + 4 * v);
        }
    }
}

void sl_unpack_iq3_s(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq3_s, d));
    for (int g = 0; g < 8; g++) {
        scales[g] = d * (float)(1 + 2 * (AT(iq3_s, scales)[g / 2] >> (g % 2 * 4) & 15));
        for (int v = 0; v < 8; v++) {
            unsigned high = AT(iq3_s, qh)[g] >> v & 1, signs = AT(iq3_s, signs)[4 * g + v / 2] >> (v % 2 * 4);
            iq3_s_vector(sl_iq3_s_grid[AT(iq3_s, qs)[8 * g + v] | high << 8], signs, codes + 32 * g + 4 * v);
        }
    }
}

/* Eight elements -1, 0, 1 of the IQ1 lattice shifted by +-1/8, in eighths. The bias of 128 keeps bytes positive. */
static void iq1_vector(unsigned word, bool down, int8_t *codes) {
    uint64_t biased = two_bit_levels(word) * 8 + EACH_BYTE(128 - 8);
    biased = down ? biased - EACH_BYTE(1) : biased + EACH_BYTE(1);
    store_vector(biased ^ EACH_BYTE(128), 8, codes);
}

void sl_unpack_iq1_s(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq1_s, d));
    for (int g = 0; g < 8; g++) {
        unsigned qh = sl_load_u16(AT(iq1_s, qh) + 2 * g);
        scales[g] = d * (float)(2 * (qh >> 12 & 7) + 1) * 0.125f;
        for (int v = 0; v < 4; v++) {
            unsigned index = AT(iq1_s, qs)[4 * g + v] | (qh >> (3 * v) & 7) << 8;
            iq1_vector(sl_iq1_grid[index], qh >> 15, codes + 32 * g + 8 * v);
        }
    }
}

void sl_unpack_iq1_m(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    unsigned words[4], bits = 0; /* the f16 scale is spread over the top nibbles of the four scale words */
    for (int i = 0; i < 4; i++) {
        words[i] = sl_load_u16(AT(iq1_m, scales) + 2 * i);
        bits |= words[i] >> 12 << (4 * i);
    }
    float d = sl_f16_to_f32((uint16_t)bits);
    for (int g = 0; g < 16; g++) scales[g] = d * (float)(2 * (words[g / 4] >> (g % 4 * 3) & 7) + 1) * 0.125f;
    for (int v = 0; v < 32; v++) {
        unsigned qh = AT(iq1_m, qh)[v / 2] >> (v % 2 * 4) & 15;
        iq1_vector(sl_iq1_grid[AT(iq1_m, qs)[v] | (qh & 7) << 8], qh >> 3, codes + 8 * v);
    }
}

void sl_unpack_iq4_xs(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(iq4_xs, d));
    unsigned high = sl_load_u16(AT(iq4_xs, scales_h));
    for (int g = 0; g < 8; g++) {
        int low = AT(iq4_xs, scales_l)[g / 2] >> (g % 2 * 4) & 15;
        scales[g] = d * (float)((low | (int)(high >> (2 * g) & 3) << 4) - 32);
        for (int i = 0; i < 16; i++) {
            uint8_t q = AT(iq4_xs, qs)[16 * g + i];
            codes[32 * g + i] = sl_iq4_values[q & 15];
            codes[32 * g + i + 16] = sl_iq4_values[q >> 4];
        }
    }
}
