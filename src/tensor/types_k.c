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

void sl_unpack_q2_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    float d = f16_at(AT(q2_k, d)), dmin = f16_at(AT(q2_k, dmin));
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(AT(q2_k, scales)[g] & 15);
        mins[g] = -(dmin * (float)(AT(q2_k, scales)[g] >> 4));
    }
    for (int i = 0; i < 256; i++) /* two halves of 128; in each, bits 2j..2j+1 of 32 bytes are elements 32j.. */
        codes[i] = AT(q2_k, qs)[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

void sl_unpack_q3_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(q3_k, d));
    int8_t sub[16];
    sl_q3_k_scales(AT(q3_k, scales), sub);
    for (int g = 0; g < 16; g++) scales[g] = d * (float)sub[g];
    for (int i = 0; i < 256; i++) {
        int low = AT(q3_k, qs)[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        int high = AT(q3_k, hmask)[i % 32] >> (i / 32) & 1;
        codes[i] = (int8_t)(low + 4 * high - 4);
    }
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
    for (int i = 0; i < 256; i++) /* 32 bytes hold two sub-blocks: low nibbles, then high */
        codes[i] = AT(q4_k, qs)[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
}

void sl_unpack_q5_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    k_scales(AT(q5_k, d), AT(q5_k, scales), scales, mins);
    for (int i = 0; i < 256; i++)
        codes[i] = (int8_t)((AT(q5_k, qs)[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15)
                            | (AT(q5_k, qh)[i % 32] >> (i / 32) & 1) << 4);
}

void sl_unpack_q6_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(q6_k, d));
    for (int g = 0; g < 16; g++) scales[g] = d * (float)(int8_t)AT(q6_k, scales)[g];
    for (int i = 0; i < 256; i++) {
        int half = i / 128, j = i / 32 % 4, k = i % 32;
        int low = AT(q6_k, ql)[half * 64 + j % 2 * 32 + k] >> (j / 2 * 4) & 15;
        int high = AT(q6_k, qh)[half * 32 + k] >> (2 * j) & 3;
        codes[i] = (int8_t)((low | high << 4) - 32);
    }
}

void sl_unpack_q8_k(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d;
    memcpy(&d, AT(q8_k, d), 4);
    for (int g = 0; g < 8; g++) scales[g] = d;
    memcpy(codes, AT(q8_k, qs), 256);
}

/* A byte holds five base-3 digits as a fixed-point fraction of 243/256: digit n is the integer part of 3 times what is
 * left after multiplying by 3^n modulo 256. */
static int8_t ternary(uint8_t byte, int n) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * power[n]);
    return (int8_t)((rest * 3 >> 8) - 1);
}

void sl_unpack_tq1_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(tq1_0, d));
    for (int g = 0; g < 8; g++) scales[g] = d;
    for (int i = 0; i < 160; i++) codes[i] = ternary(AT(tq1_0, qs)[i % 32], i / 32);
    for (int i = 0; i < 80; i++) codes[160 + i] = ternary(AT(tq1_0, qs)[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) codes[240 + i] = ternary(AT(tq1_0, qh)[i % 4], i / 4);
}

void sl_unpack_tq2_0(const uint8_t *block, int8_t *codes, float *scales, float *mins) {
    (void)mins;
    float d = f16_at(AT(tq2_0, d));
    for (int g = 0; g < 8; g++) scales[g] = d;
    for (int i = 0; i < 256; i++)
        codes[i] = (int8_t)((AT(tq2_0, qs)[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) - 1);
}
