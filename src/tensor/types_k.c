/* The K types: 256 elements a block, integer scales for sub-blocks of 16 or 32, f16 scales for the whole; and the
 * ternary types TQ1_0 and TQ2_0, which share their block length. */
#include "tensor/codes.h"

#include <string.h>

typedef struct { uint8_t scales[16], qs[64]; uint16_t d, dmin; } q2_k;
typedef struct { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } q3_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qs[128]; } q4_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } q5_k;
typedef struct { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; } q6_k;
typedef struct { float d; int8_t qs[256]; int16_t sums[16]; } q8_k; /* sums of 16 codes, not needed to widen */
typedef struct { uint8_t qs[48], qh[4]; uint16_t d; } tq1_0;
typedef struct { uint8_t qs[64]; uint16_t d; } tq2_0;
_Static_assert(sizeof(q2_k) == 84, "Q2_K");
_Static_assert(sizeof(q3_k) == 110, "Q3_K");
_Static_assert(sizeof(q4_k) == 144, "Q4_K");
_Static_assert(sizeof(q5_k) == 176, "Q5_K");
_Static_assert(sizeof(q6_k) == 210, "Q6_K");
_Static_assert(sizeof(q8_k) == 292, "Q8_K");
_Static_assert(sizeof(tq1_0) == 54, "TQ1_0");
_Static_assert(sizeof(tq2_0) == 66, "TQ2_0");
#define AT(type, field) (block + offsetof(type, field))

static float f16_at(const uint8_t *p) { return sl_f16_to_f32(sl_load_u16(p)); }

void sl_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]) {
    for (int i = 0; i < 4; i++) {
        scales[i] = packed[i] & 63;
        mins[i] = packed[i + 4] & 63;
        scales[i + 4] = (uint8_t)((packed[i + 8] & 15) | (packed[i] >> 6) << 4);
        mins[i + 4] = (uint8_t)((packed[i + 8] >> 4) | (packed[i + 4] >> 6) << 4);
    }
}

void sl_q3_k_scales(const uint8_t packed[12], int8_t scales[16]) {
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        int high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        scales[i] = (int8_t)((low | high << 4) - 32);
    }
}

/* out[32 s + k] = in[k] >> (step * s) & mask, for `streams` streams of 32 elements in the same 32 bytes. */
static void bit_streams(const uint8_t *in, int streams, int step, uint8_t mask, int8_t *out) {
    for (int s = 0; s < streams; s++)
        for (int k = 0; k < 32; k++) out[32 * s + k] = (int8_t)(in[k] >> (step * s) & mask);
}

/* Four streams of two bits from each of two times 32 bytes. */
static void two_bits(const uint8_t *qs, int8_t *codes) {
    bit_streams(qs, 4, 2, 3, codes);
    bit_streams(qs + 32, 4, 2, 3, codes + 128);
}

/* Two streams of nibbles from each of four times 32 bytes. */
static void nibbles(const uint8_t *qs, int8_t *codes) {
    for (int i = 0; i < 4; i++) bit_streams(qs + 32 * i, 2, 4, 15, codes + 64 * i);
}

void sl_unpack_q2_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    float d = f16_at(AT(q2_k, d)), dmin = f16_at(AT(q2_k, dmin));
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(AT(q2_k, scales)[g] & 15);
        mins[g] = -(dmin * (float)(AT(q2_k, scales)[g] >> 4));
    }
    two_bits(AT(q2_k, qs), codes);
}

void sl_unpack_q3_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(q3_k, d));
    int8_t sub[16];
    sl_q3_k_scales(AT(q3_k, scales), sub);
    for (int g = 0; g < 16; g++) scales[g] = d * (float)sub[g];
    int8_t high[256];
    two_bits(AT(q3_k, qs), codes);
    bit_streams(AT(q3_k, hmask), 8, 1, 1, high);
    for (int i = 0; i < 256; i++) codes[i] = (int8_t)(codes[i] + 4 * high[i] - 4);
}

static void k_scales(const uint8_t *d, const uint8_t *packed, float *scales, float *mins) {
    uint8_t sub[8], sub_min[8];
    float f = f16_at(d), fmin = f16_at(d + 2);
    sl_k_scales(packed, sub, sub_min);
    for (int g = 0; g < 8; g++) {
        scales[g] = f * (float)sub[g];
        mins[g] = -(fmin * (float)sub_min[g]);
    }
}

void sl_unpack_q4_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    k_scales(AT(q4_k, d), AT(q4_k, scales), scales, mins);
    nibbles(AT(q4_k, qs), codes);
}

void sl_unpack_q5_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    k_scales(AT(q5_k, d), AT(q5_k, scales), scales, mins);
    int8_t high[256];
    nibbles(AT(q5_k, qs), codes);
    bit_streams(AT(q5_k, qh), 8, 1, 1, high);
    for (int i = 0; i < 256; i++) codes[i] = (int8_t)(codes[i] | high[i] << 4);
}

void sl_unpack_q6_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(q6_k, d));
    for (int g = 0; g < 16; g++) scales[g] = d * (float)(int8_t)AT(q6_k, scales)[g];
    int8_t high[256];
    two_bits(AT(q6_k, qh), high);
    for (int i = 0; i < 4; i++) { /* 64 bytes a half: low nibbles are its first 64 elements, high ones the rest */
        int8_t *out = codes + i / 2 * 128 + i % 2 * 64;
        for (int k = 0; k < 64; k++) out[k] = (int8_t)(AT(q6_k, ql)[i / 2 * 64 + k] >> (i % 2 * 4) & 15);
    }
    for (int i = 0; i < 256; i++) codes[i] = (int8_t)((codes[i] | high[i] << 4) - 32);
}

void sl_unpack_q8_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = sl_load_f32(AT(q8_k, d));
    for (int g = 0; g < 8; g++) scales[g] = d;
    memcpy(codes, AT(q8_k, qs), 256);
}

/* A byte holds base-3 digits as a fixed-point fraction of 243/256: digit d is the integer part of 3 times what is left
 * after multiplying by 3^d modulo 256. `count` bytes give `digits` runs of count elements. */
static void ternary(const uint8_t *in, int count, int digits, int8_t *out) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    for (int d = 0; d < digits; d++)
        for (int k = 0; k < count; k++) out[d * count + k] = (int8_t)(((uint8_t)(in[k] * power[d]) * 3 >> 8) - 1);
}

void sl_unpack_tq1_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(tq1_0, d));
    for (int g = 0; g < 8; g++) scales[g] = d;
    ternary(AT(tq1_0, qs), 32, 5, codes);
    ternary(AT(tq1_0, qs) + 32, 16, 5, codes + 160);
    ternary(AT(tq1_0, qh), 4, 4, codes + 240);
}

void sl_unpack_tq2_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(tq2_0, d));
    for (int g = 0; g < 8; g++) scales[g] = d;
    two_bits(AT(tq2_0, qs), codes);
    for (int i = 0; i < 256; i++) codes[i]--;
}
