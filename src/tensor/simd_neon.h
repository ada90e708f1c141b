/* Vector names for NEON (aarch64), and the integer inner loops of kernels_panel.h: with the dot-product instructions where
 * the including file is compiled for them (kernels_neon_dot.c), without them elsewhere. */
#ifndef SL_TENSOR_SIMD_NEON_H
#define SL_TENSOR_SIMD_NEON_H

#include "tensor/codes.h"

#include <arm_neon.h>

#define LANES 4
enum { VECTORS = 4, TOKENS = 4 }; /* kernels_panel.h: vectors to a word of 16 rows, tokens of a tile at once */
enum { TILE_ROWS = 4, TILE_TOKENS = 4 }; /* kernels_float.h */

#define VINLINE static inline __attribute__((always_inline))

VINLINE void prefetch(const void *p) { __builtin_prefetch(p); }

typedef float32x4_t vfloat;
typedef int32x4_t vint;

VINLINE vfloat vf_zero(void) { return vdupq_n_f32(0.0f); }
VINLINE vfloat vf_set1(float x) { return vdupq_n_f32(x); }
VINLINE vfloat vf_load(const float *p) { return vld1q_f32(p); }
VINLINE void vf_store(float *p, vfloat v) { vst1q_f32(p, v); }
VINLINE vfloat vf_add(vfloat a, vfloat b) { return vaddq_f32(a, b); }
VINLINE vfloat vf_sub(vfloat a, vfloat b) { return vsubq_f32(a, b); }
VINLINE vfloat vf_mul(vfloat a, vfloat b) { return vmulq_f32(a, b); }
VINLINE vfloat vf_div(vfloat a, vfloat b) { return vdivq_f32(a, b); }
VINLINE vfloat vf_fma(vfloat a, vfloat b, vfloat c) { return vfmaq_f32(c, a, b); }
/* Compared and chosen, since NEON's own give NaN when either is NaN. */
VINLINE vfloat vf_max(vfloat a, vfloat b) { return vbslq_f32(vcgtq_f32(a, b), a, b); } /* b when either is NaN */
VINLINE vfloat vf_min(vfloat a, vfloat b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
VINLINE vfloat vf_round(vfloat a) { return vrndnq_f32(a); }
VINLINE vfloat vf_abs(vfloat a) { return vabsq_f32(a); }
/* a < b ? x : y */
VINLINE vfloat vf_where_less(vfloat a, vfloat b, vfloat x, vfloat y) { return vbslq_f32(vcltq_f32(a, b), x, y); }
/* 2^n for whole n in [-126, 127] */
VINLINE vfloat vf_power2(vfloat n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
VINLINE float vf_sum(vfloat v) { /* (0 + 2) + (1 + 3) */
    float32x2_t two = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
typedef vfloat vsum; /* over the elements of a row */
VINLINE vsum vs_zero(void) { return vf_zero(); }
VINLINE vsum vs_add(vsum s, vfloat v) { return vf_add(s, v); }
VINLINE vsum vs_add_squares(vsum s, vfloat v) { return vf_fma(v, v, s); }
VINLINE float vs_total(vsum s) { return vf_sum(s); }
VINLINE float32x4_t vf_halves(vfloat a, vfloat b) { /* the first step of vf_sum, of both */
    return vcombine_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)), vadd_f32(vget_low_f32(b), vget_high_f32(b)));
}
/* out[i] = vf_sum(v[i]), four at once. */
VINLINE void vf_sum4(const vfloat v[4], float out[4]) {
    vst1q_f32(out, vpaddq_f32(vf_halves(v[0], v[1]), vf_halves(v[2], v[3])));
}
VINLINE vfloat vf_from_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
VINLINE void vf_to_f16(void *p, vfloat v) { vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(v))); }
VINLINE vfloat vf_from_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
VINLINE vint vi_set1(int32_t x) { return vdupq_n_s32(x); }
VINLINE vint vi_sub(vint a, vint b) { return vsubq_s32(a, b); }
VINLINE vint vi_left(vint a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
/* Two numbers of 16 bits a lane: a in the lower half. */
VINLINE vint vi_pair(vint a, vint b) { return vsliq_n_s32(a, b, 16); }
/* First of each pair times x[0] + second times x[1]. */
VINLINE vint vi_pair_dot(vint pair, const int16_t x[2]) {
    int32_t both;
    __builtin_memcpy(&both, x, 4);
    int16x8_t p = vreinterpretq_s16_s32(pair), q = vreinterpretq_s16_s32(vdupq_n_s32(both));
    return vpaddq_s32(vmull_s16(vget_low_s16(p), vget_low_s16(q)), vmull_high_s16(p, q));
}
VINLINE vfloat vi_to_vf(vint a) { return vcvtq_f32_s32(a); }

VINLINE vint vi_from_bytes(int8x16_t v) { return vreinterpretq_s32_s8(v); }
VINLINE int8x16_t vi_bytes(vint v) { return vreinterpretq_s8_s32(v); }
VINLINE vint vi_load(const void *p) { return vi_from_bytes(vld1q_s8(p)); }
VINLINE void vi_store(void *p, vint v) { vst1q_s8(p, vi_bytes(v)); }
VINLINE vint vi_and(vint a, vint b) { return vandq_s32(a, b); }
VINLINE vint vi_or(vint a, vint b) { return vorrq_s32(a, b); }
VINLINE vint vi_add8(vint a, vint b) { return vi_from_bytes(vaddq_s8(vi_bytes(a), vi_bytes(b))); }
VINLINE vint vi_set1_8(int x) { return vi_from_bytes(vdupq_n_s8((int8_t)x)); }
/* Bytes moved right by n bits, n < 0: left. */
VINLINE vint vi_shift(vint v, int n) {
    return vreinterpretq_s32_u8(vshlq_u8(vreinterpretq_u8_s32(v), vdupq_n_s8((int8_t)-n)));
}
/* table[index] for each byte, indices 0..15 */
VINLINE vint vi_look_up(const int8_t table[16], vint index) {
    return vi_from_bytes(vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s32(index)));
}
/* LANES bytes, or their low or high nibbles, a lane each */
VINLINE uint16x4_t four_bytes(const uint8_t *p) {
    uint32_t word;
    __builtin_memcpy(&word, p, 4);
    return vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word))));
}
VINLINE vint vi_from_u8(const uint8_t *p) { return vreinterpretq_s32_u32(vmovl_u16(four_bytes(p))); }
VINLINE vint vi_from_i8(const uint8_t *p) {
    int32x4_t high = vreinterpretq_s32_u32(vshll_n_u16(four_bytes(p), 16)); /* the sign bit is bit 23 */
    return vshrq_n_s32(vshlq_n_s32(high, 8), 24);
}
VINLINE vint vi_from_nibbles(const uint8_t *p, bool high) {
    return high ? vshrq_n_s32(vi_from_u8(p), 4) : vandq_s32(vi_from_u8(p), vdupq_n_s32(15));
}
VINLINE vfloat vf_negate(vfloat v) { return vnegq_f32(v); }

/* ---------------------------------------------------------------- integer dot products
 * Codes are signed bytes, and code + offset is at most 127, so every type multiplies alike. */

VINLINE int code_offset(sl_codes form) { return form.top ? form.offset : 0; }
/* Unpacked codes in the form that the products below multiply. */
VINLINE vint ready_codes(sl_codes form, vint codes) { (void)form; return codes; }

/* The same four bytes in every lane */
VINLINE int8x16_t word_of(const int8_t *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

/* Factors of the products of 16 columns each, where a type has them. */
VINLINE vint vi_factor(vint f) { return f; }
VINLINE vint two_factors(vint a, vint b, vint fa, vint fb) { return vmlaq_s32(vmulq_s32(a, fa), b, fb); }

#if defined(__ARM_FEATURE_DOTPROD)

/* sum + the products of four neighbouring bytes with word `lane` of x. (The instruction wants a constant.) */
VINLINE vint dot_lane(vint sum, vint w, int8x16_t x, int lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, vi_bytes(w), x, 0);
    case 1: return vdotq_laneq_s32(sum, vi_bytes(w), x, 1);
    case 2: return vdotq_laneq_s32(sum, vi_bytes(w), x, 2);
    default: return vdotq_laneq_s32(sum, vi_bytes(w), x, 3);
    }
}

/* Two chains, since a product waits for the one before it. */
VINLINE vint add_words(sl_codes form, const vint w[], const int8_t *x, int words) {
    vint even = vi_set1(0), odd = even;
    (void)form;
#pragma GCC unroll 2
    for (int q = 0; q < words; q += 4) {
        int8x16_t sixteen = vld1q_s8(x + 4 * q);
        even = dot_lane(even, w[q], sixteen, 0);
        odd = dot_lane(odd, w[q + 1], sixteen, 1);
        even = dot_lane(even, w[q + 2], sixteen, 2);
        odd = dot_lane(odd, w[q + 3], sixteen, 3);
    }
    return vaddq_s32(even, odd);
}

VINLINE void add_tile(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      vint dots[VECTORS][TOKENS]) {
    (void)form;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) dots[v][i] = vi_set1(0);
#pragma GCC unroll 2
    for (int q = 0; q < words; q += 4) {
        int8x16_t sixteen[TOKENS];
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) sixteen[i] = vld1q_s8(x[i] + column + 4 * q);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                vint w = vi_load(codes + 64 * (q + k) + 16 * v);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) dots[v][i] = dot_lane(dots[v][i], w, sixteen[i], k);
            }
    }
}

#else

/* Products that can be added in 16 bits before they must be widened: 127 * 128, or 127 * top, each. */
VINLINE int words_in_16_bits(sl_codes form) { return form.top == 0 || form.top > 63 ? 2 : form.top > 31 ? 4 : 8; }

/* Products of bytes with a word, added to 16-bit sums: the lower and the upper eight bytes. */
VINLINE void add_products(int16x8_t sums[2], int8x16_t w, int8x16_t word, bool first) {
    if (first) {
        sums[0] = vmull_s8(vget_low_s8(w), vget_low_s8(word));
        sums[1] = vmull_high_s8(w, word);
    } else {
        sums[0] = vmlal_s8(sums[0], vget_low_s8(w), vget_low_s8(word));
        sums[1] = vmlal_high_s8(sums[1], w, word);
    }
}

VINLINE vint widen_products(const int16x8_t sums[2]) { return vpaddq_s32(vpaddlq_s16(sums[0]), vpaddlq_s16(sums[1])); }

VINLINE vint add_words(sl_codes form, const vint w[], const int8_t *x, int words) {
    int step = words_in_16_bits(form) < words ? words_in_16_bits(form) : words;
    vint dot = vi_set1(0);
#pragma GCC unroll 4
    for (int q = 0; q < words; q += step) {
        int16x8_t sums[2];
#pragma GCC unroll 8
        for (int s = 0; s < step; s++) add_products(sums, vi_bytes(w[q + s]), word_of(x + 4 * (q + s)), s == 0);
        dot = vaddq_s32(dot, widen_products(sums));
    }
    return dot;
}

VINLINE void add_tile(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      vint dots[VECTORS][TOKENS]) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        vint w[8];
#pragma GCC unroll 8
        for (int q = 0; q < words; q++) w[q] = vi_load(codes + 64 * q + 16 * v);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) dots[v][i] = add_words(form, w, x[i] + column, words);
    }
}

#endif

/* Eight words of 4 rows, in registers, times 32 columns of one token: a row a lane. factors NULL: none. */
VINLINE vint dot_words(sl_codes form, const vint w[8], const int8_t *x, const vint *factors) {
    if (!factors) return add_words(form, w, x, 8);
    return two_factors(add_words(form, w, x, 4), add_words(form, w + 4, x + 16, 4), factors[0], factors[1]);
}

/* The same for 16 rows whose words lie in memory, 64 bytes each, as factors do, and n tokens. */
VINLINE void dot_tile(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      const int32_t (*factors)[16], vint dots[VECTORS][TOKENS]) {
    vint second[VECTORS][TOKENS];
    add_tile(form, codes, x, column, factors ? 4 : words, n, dots);
    if (!factors) return;
    add_tile(form, codes + 4 * 64, x, column + 16, 4, n, second);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            dots[v][i] = two_factors(dots[v][i], second[v][i], vi_load(factors[0] + LANES * v),
                                     vi_load(factors[1] + LANES * v));
}

/* ---------------------------------------------------------------- kernels_peak.h */

#define OPAQUE(v) __asm__ volatile("" : "+w"(v)) /* any value, as far as the compiler can tell */
/* sum + four neighbouring products. */
VINLINE vint vi_dot4(vint sum, vint w, vint x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, vi_bytes(w), vi_bytes(x));
#else
    int16x8_t sums[2];
    add_products(sums, vi_bytes(w), vi_bytes(x), true);
    return vaddq_s32(sum, widen_products(sums));
#endif
}

#endif
