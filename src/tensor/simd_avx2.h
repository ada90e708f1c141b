/* Vector names for AVX2 + FMA + F16C, and the integer inner loops of kernels_panel.h for it. */
#ifndef SL_TENSOR_SIMD_AVX2_H
#define SL_TENSOR_SIMD_AVX2_H

#include "tensor/codes.h"

#include <immintrin.h>

#define LANES 8
enum { VECTORS = 2, TOKENS = 3 }; /* kernels_panel.h: vectors to a word of 16 rows, tokens of a tile at once */
enum { TILE_ROWS = 4, TILE_TOKENS = 3 }; /* kernels_float.h */

#define VINLINE static inline __attribute__((always_inline))

VINLINE void prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

typedef __m256 vfloat;
typedef __m256i vint;

VINLINE vfloat vf_zero(void) { return _mm256_setzero_ps(); }
VINLINE vfloat vf_set1(float x) { return _mm256_set1_ps(x); }
VINLINE vfloat vf_load(const float *p) { return _mm256_loadu_ps(p); }
VINLINE void vf_store(float *p, vfloat v) { _mm256_storeu_ps(p, v); }
VINLINE vfloat vf_add(vfloat a, vfloat b) { return _mm256_add_ps(a, b); }
VINLINE vfloat vf_sub(vfloat a, vfloat b) { return _mm256_sub_ps(a, b); }
VINLINE vfloat vf_mul(vfloat a, vfloat b) { return _mm256_mul_ps(a, b); }
VINLINE vfloat vf_div(vfloat a, vfloat b) { return _mm256_div_ps(a, b); }
VINLINE vfloat vf_fma(vfloat a, vfloat b, vfloat c) { return _mm256_fmadd_ps(a, b, c); }
VINLINE vfloat vf_max(vfloat a, vfloat b) { return _mm256_max_ps(a, b); } /* b when either is NaN */
VINLINE vfloat vf_min(vfloat a, vfloat b) { return _mm256_min_ps(a, b); }
VINLINE vfloat vf_round(vfloat a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VINLINE vfloat vf_abs(vfloat a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/* a < b ? x : y */
VINLINE vfloat vf_where_less(vfloat a, vfloat b, vfloat x, vfloat y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
/* 2^n for whole n in [-126, 127] */
VINLINE vfloat vf_power2(vfloat n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
VINLINE __m128 vf_quarter(vfloat v) { /* sums of lanes alike modulo 4 */
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
#include "tensor/simd_x86.h" /* vf_sum, from vf_quarter */
VINLINE vsum vs_add(vsum s, vfloat v) { return _mm256_add_ps(s, v); }
VINLINE vsum vs_add_squares(vsum s, vfloat v) { return _mm256_fmadd_ps(v, v, s); }
VINLINE vfloat vf_from_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
VINLINE void vf_to_f16(void *p, vfloat v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
VINLINE vfloat vf_from_bf16(const void *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
VINLINE vint vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
VINLINE vint vi_sub(vint a, vint b) { return _mm256_sub_epi32(a, b); }
VINLINE vint vi_left(vint a, int n) { return _mm256_slli_epi32(a, n); }
/* Two numbers of 16 bits a lane: a in the lower half. */
VINLINE vint vi_pair(vint a, vint b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }
/* First of each pair times x[0] + second times x[1]. */
VINLINE vint vi_pair_dot(vint pair, const int16_t x[2]) {
    int32_t both;
    __builtin_memcpy(&both, x, 4);
    return _mm256_madd_epi16(pair, _mm256_set1_epi32(both));
}
VINLINE vfloat vi_to_vf(vint a) { return _mm256_cvtepi32_ps(a); }

VINLINE vint vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
VINLINE void vi_store(void *p, vint v) { _mm256_storeu_si256((__m256i *)p, v); }
VINLINE vint vi_and(vint a, vint b) { return _mm256_and_si256(a, b); }
VINLINE vint vi_or(vint a, vint b) { return _mm256_or_si256(a, b); }
VINLINE vint vi_add8(vint a, vint b) { return _mm256_add_epi8(a, b); }
VINLINE vint vi_set1_8(int x) { return _mm256_set1_epi8((char)x); }
/* Bytes moved right by n bits, n < 0: left; bits that cross into a neighbour are the caller's to mask. */
VINLINE vint vi_shift(vint v, int n) { return n < 0 ? _mm256_slli_epi16(v, -n) : _mm256_srli_epi16(v, n); }
/* table[index] for each byte, indices 0..15 */
VINLINE vint vi_look_up(const int8_t table[16], vint index) {
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), index);
}
/* The same four bytes in every lane */
VINLINE vint vi_word(const int8_t *p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}
/* LANES bytes, or their low or high nibbles, a lane each */
VINLINE vint vi_from_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)); }
VINLINE vint vi_from_i8(const uint8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)); }
VINLINE vint vi_from_nibbles(const uint8_t *p, bool high) {
    return high ? _mm256_srli_epi32(vi_from_u8(p), 4) : _mm256_and_si256(vi_from_u8(p), _mm256_set1_epi32(15));
}
VINLINE vfloat vf_negate(vfloat v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* kernels_peak.h */
#define OPAQUE(v) __asm__ volatile("" : "+x"(v)) /* any value, as far as the compiler can tell */
/* sum + four neighbouring products of unsigned w and signed x. */
VINLINE vint vi_dot4(vint sum, vint w, vint x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

/* ---------------------------------------------------------------- integer dot products
 * maddubs multiplies unsigned by signed bytes and adds pairs in 16 bits, saturating at 32767. Codes up to 127 times
 * activations up to 127 fit; types that use all signed values give their sign to the activation instead. */

VINLINE int code_offset(sl_codes form) { return form.top ? form.offset : 0; }
/* Unpacked codes in the form that the products below multiply. */
VINLINE vint ready_codes(sl_codes form, vint codes) { (void)form; return codes; }

/* Sums are taken as they are written: left to itself the compiler turns chains of integer additions into trees, whose
 * leaves do not fit the registers. */
VINLINE void vi_in_order(vint *v) { __asm__("" : "+x"(*v)); }

/* *sum += v where the sum lies: the compiler would move it between registers at every step. */
VINLINE void vi_add16_to(vint *sum, vint v) { __asm__("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(v)); }
VINLINE void vi_add32_to(vint *sum, vint v) { __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(v)); }

VINLINE vint pairs(sl_codes form, vint codes, vint x) {
    if (form.top) return _mm256_maddubs_epi16(codes, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
}

/* Pair sums that can be added in 16 bits before they must be widened: 2 * 127 * top each. */
VINLINE int words_in_16_bits(sl_codes form) {
    return form.top == 0 || form.top > 63 ? 1 : form.top > 31 ? 2 : form.top > 15 ? 4 : 8;
}

VINLINE vint widen_pairs(vint sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

/* Factors of the products of 16 columns each, where a type has them, take the place of the ones: each twice in its lane. */
VINLINE vint vi_factor(vint f) { return vi_pair(f, f); }

VINLINE int words_at_once(sl_codes form, int words, bool factors) {
    int most = factors ? 4 : words;
    return words_in_16_bits(form) < most ? words_in_16_bits(form) : most;
}

/* Eight words of 8 rows, in registers, times 32 columns of one token: a row a lane. factors NULL: none. */
VINLINE vint dot_words(sl_codes form, const vint w[8], const int8_t *x, const vint *factors) {
    int step = words_at_once(form, 8, factors);
    vint dot = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int q = 0; q < 8; q += step) {
        vint narrow = pairs(form, w[q], vi_word(x + 4 * q));
#pragma GCC unroll 8
        for (int s = 1; s < step; s++) {
            narrow = _mm256_add_epi16(narrow, pairs(form, w[q + s], vi_word(x + 4 * (q + s))));
            vi_in_order(&narrow);
        }
        vint sums = factors ? _mm256_madd_epi16(narrow, factors[q / 4]) : widen_pairs(narrow);
        dot = q ? _mm256_add_epi32(dot, sums) : sums;
        vi_in_order(&dot);
    }
    return dot;
}

/* The same for 16 rows whose words lie in memory, 64 bytes each, as factors do, and n tokens. */
VINLINE void dot_tile(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                      const int32_t (*factors)[16], vint dots[VECTORS][TOKENS]) {
    int step = words_at_once(form, words, factors);
#pragma GCC unroll 8
    for (int q = 0; q < words; q += step) {
        vint narrow[VECTORS][TOKENS];
#pragma GCC unroll 8
        for (int s = 0; s < step; s++) {
            vint w[VECTORS] = {vi_load(codes + 64 * (q + s)), vi_load(codes + 64 * (q + s) + 32)};
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                vint word = vi_word(x[i] + column + 4 * (q + s));
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) {
                    vint product = pairs(form, w[v], word);
                    if (s) vi_add16_to(&narrow[v][i], product);
                    else narrow[v][i] = product;
                }
            }
        }
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                vint sums = factors ? _mm256_madd_epi16(narrow[v][i], vi_load(factors[q / 4] + LANES * v))
                                    : widen_pairs(narrow[v][i]);
                if (q) vi_add32_to(&dots[v][i], sums);
                else dots[v][i] = sums;
            }
    }
}

#endif
