/* Vector names for AVX-512 (F BW VL DQ) with VNNI, and the integer inner loops of kernels_panel.h for it. */
#ifndef SL_TENSOR_SIMD_AVX512_H
#define SL_TENSOR_SIMD_AVX512_H

#include "tensor/codes.h"

#include <immintrin.h>

#define LANES 16
enum { VECTORS = 1, TOKENS = 8 }; /* kernels_panel.h: vectors to a word of 16 rows, tokens of a tile at once */
enum { TILE_ROWS = 4, TILE_TOKENS = 4 }; /* kernels_float.h */

#define VINLINE static inline __attribute__((always_inline))

VINLINE void prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

typedef __m512 vfloat;
typedef __m512i vint;

VINLINE vfloat vf_zero(void) { return _mm512_setzero_ps(); }
VINLINE vfloat vf_set1(float x) { return _mm512_set1_ps(x); }
VINLINE vfloat vf_load(const float *p) { return _mm512_loadu_ps(p); }
VINLINE void vf_store(float *p, vfloat v) { _mm512_storeu_ps(p, v); }
VINLINE vfloat vf_add(vfloat a, vfloat b) { return _mm512_add_ps(a, b); }
VINLINE vfloat vf_sub(vfloat a, vfloat b) { return _mm512_sub_ps(a, b); }
VINLINE vfloat vf_mul(vfloat a, vfloat b) { return _mm512_mul_ps(a, b); }
VINLINE vfloat vf_div(vfloat a, vfloat b) { return _mm512_div_ps(a, b); }
VINLINE vfloat vf_fma(vfloat a, vfloat b, vfloat c) { return _mm512_fmadd_ps(a, b, c); }
VINLINE vfloat vf_max(vfloat a, vfloat b) { return _mm512_max_ps(a, b); } /* b when either is NaN */
VINLINE vfloat vf_min(vfloat a, vfloat b) { return _mm512_min_ps(a, b); }
VINLINE vfloat vf_round(vfloat a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VINLINE vfloat vf_abs(vfloat a) { return _mm512_abs_ps(a); }
/* a < b ? x : y */
VINLINE vfloat vf_where_less(vfloat a, vfloat b, vfloat x, vfloat y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
/* 2^n for whole n in [-126, 127] */
VINLINE vfloat vf_power2(vfloat n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
VINLINE __m128 vf_quarter(vfloat v) { /* sums of lanes alike modulo 4 */
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#include "tensor/simd_x86.h" /* vf_sum, from vf_quarter */
VINLINE vsum vs_add(vsum s, vfloat v) {
    return _mm256_add_ps(_mm256_add_ps(s, _mm512_castps512_ps256(v)), _mm512_extractf32x8_ps(v, 1));
}
VINLINE vsum vs_add_squares(vsum s, vfloat v) {
    __m256 low = _mm512_castps512_ps256(v), high = _mm512_extractf32x8_ps(v, 1);
    return _mm256_fmadd_ps(high, high, _mm256_fmadd_ps(low, low, s));
}
VINLINE vfloat vf_from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
VINLINE void vf_to_f16(void *p, vfloat v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
VINLINE vfloat vf_from_bf16(const void *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
VINLINE vint vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
VINLINE vint vi_sub(vint a, vint b) { return _mm512_sub_epi32(a, b); }
VINLINE vint vi_left(vint a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
/* Two numbers of 16 bits a lane: a in the lower half. */
VINLINE vint vi_pair(vint a, vint b) {
    return _mm512_or_si512(_mm512_and_si512(a, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(b, 16));
}
/* First of each pair times x[0] + second times x[1]. */
VINLINE vint vi_pair_dot(vint pair, const int16_t x[2]) {
    int32_t both;
    __builtin_memcpy(&both, x, 4);
    return _mm512_madd_epi16(pair, _mm512_set1_epi32(both));
}
VINLINE vfloat vi_to_vf(vint a) { return _mm512_cvtepi32_ps(a); }

VINLINE vint vi_load(const void *p) { return _mm512_loadu_si512(p); }
VINLINE void vi_store(void *p, vint v) { _mm512_storeu_si512(p, v); }
VINLINE vint vi_and(vint a, vint b) { return _mm512_and_si512(a, b); }
VINLINE vint vi_or(vint a, vint b) { return _mm512_or_si512(a, b); }
VINLINE vint vi_add8(vint a, vint b) { return _mm512_add_epi8(a, b); }
VINLINE vint vi_set1_8(int x) { return _mm512_set1_epi8((char)x); }
/* Bytes moved right by n bits, n < 0: left; bits that cross into a neighbour are the caller's to mask. */
VINLINE vint vi_shift(vint v, int n) {
    return n < 0 ? _mm512_slli_epi16(v, (unsigned)-n) : _mm512_srli_epi16(v, (unsigned)n);
}
/* table[index] for each byte, indices 0..15 */
VINLINE vint vi_look_up(const int8_t table[16], vint index) {
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), index);
}
/* The same four bytes in every lane */
VINLINE vint vi_word(const int8_t *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}
/* LANES bytes, or their low or high nibbles, a lane each */
VINLINE vint vi_from_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)); }
VINLINE vint vi_from_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)); }
VINLINE vint vi_from_nibbles(const uint8_t *p, bool high) {
    return high ? _mm512_srli_epi32(vi_from_u8(p), 4) : _mm512_and_si512(vi_from_u8(p), _mm512_set1_epi32(15));
}
VINLINE vfloat vf_negate(vfloat v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }

/* kernels_peak.h */
#define OPAQUE(v) __asm__ volatile("" : "+v"(v)) /* any value, as far as the compiler can tell */
/* sum + four neighbouring products of unsigned w and signed x. */
VINLINE vint vi_dot4(vint sum, vint w, vint x) { return _mm512_dpbusd_epi32(sum, w, x); }

/* ---------------------------------------------------------------- integer dot products
 * VNNI multiplies unsigned by signed bytes and adds four products in 32 bits. Types that use all signed values are
 * stored with 128 added, which the sums of activations take out again. */

VINLINE int code_offset(sl_codes form) { return form.top ? form.offset : 128; }
/* Unpacked codes in the form that the products below multiply. */
VINLINE vint ready_codes(sl_codes form, vint codes) {
    return form.top ? codes : _mm512_xor_si512(codes, _mm512_set1_epi8((char)0x80));
}

/* Factors of the products of 16 columns each, where a type has them. */
VINLINE vint vi_factor(vint f) { return f; }
VINLINE vint two_factors(vint a, vint b, vint fa, vint fb) {
    return _mm512_add_epi32(_mm512_mullo_epi32(a, fa), _mm512_mullo_epi32(b, fb));
}

/* Two chains, since a product waits five cycles for the one before it. */
VINLINE vint add_words(const vint w[], const int8_t *x, int words) {
    vint even = _mm512_setzero_si512(), odd = even;
#pragma GCC unroll 4
    for (int q = 0; q < words; q += 2) {
        even = _mm512_dpbusd_epi32(even, w[q], vi_word(x + 4 * q));
        odd = _mm512_dpbusd_epi32(odd, w[q + 1], vi_word(x + 4 * q + 4));
    }
    return _mm512_add_epi32(even, odd);
}

/* Eight words of 16 rows, in registers, times 32 columns of one token: a row a lane. factors NULL: none. */
VINLINE vint dot_words(sl_codes form, const vint w[8], const int8_t *x, const vint *factors) {
    (void)form;
    if (!factors) return add_words(w, x, 8);
    return two_factors(add_words(w, x, 4), add_words(w + 4, x + 16, 4), factors[0], factors[1]);
}

VINLINE void add_tile(const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      vint dots[VECTORS][TOKENS]) {
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) dots[0][i] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int q = 0; q < words; q++) {
        vint w = vi_load(codes + 64 * q);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            dots[0][i] = _mm512_dpbusd_epi32(dots[0][i], w, vi_word(x[i] + column + 4 * q));
    }
}

/* The same for words that lie in memory, 64 bytes each, as factors do, and n tokens. */
VINLINE void dot_tile(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      const int32_t (*factors)[16], vint dots[VECTORS][TOKENS]) {
    vint second[VECTORS][TOKENS];
    (void)form;
    add_tile(codes, x, column, factors ? 4 : words, n, dots);
    if (!factors) return;
    add_tile(codes + 4 * 64, x, column + 16, 4, n, second);
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) dots[0][i] = two_factors(dots[0][i], second[0][i], vi_load(factors[0]), vi_load(factors[1]));
}

#endif
