/* Vector names for AVX2 + FMA + F16C, and the integer inner loops of kernels_codes.h for it. */
#ifndef SL_TENSOR_SIMD_AVX2_H
#define SL_TENSOR_SIMD_AVX2_H

#include "tensor/codes.h"

#include <immintrin.h>

#define LANES 8
enum { PANEL = 8, TOKENS = 4 };   /* kernels_codes.h: rows of a panel, tokens at once */
enum { TILE_ROWS = 4, TILE_TOKENS = 2 }; /* kernels_float.h */

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
VINLINE __m128 vf_quarter(vfloat v) { /* the first step of vf_sum */
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
VINLINE float vf_sum(vfloat v) {
    __m128 x = vf_quarter(v);
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
/* Four vectors' sums, each added in the order of vf_sum. */
VINLINE __m128 vf_sum4(const vfloat v[4]) {
    __m128 a = vf_quarter(v[0]), b = vf_quarter(v[1]), c = vf_quarter(v[2]), d = vf_quarter(v[3]);
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)); /* a02 b02 a13 b13 */
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}
VINLINE void vf_store_sum4(float *p, float factor, const vfloat v[4]) {
    _mm_storeu_ps(p, _mm_mul_ps(_mm_set1_ps(factor), vf_sum4(v)));
}
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
VINLINE vfloat vi_to_vf(vint a) { return _mm256_cvtepi32_ps(a); }

/* ---------------------------------------------------------------- integer dot products
 * maddubs multiplies unsigned by signed bytes and adds pairs in 16 bits, saturating at 32767. Codes up to 127 times
 * activations up to 127 fit; types that use all signed values give their sign to the activation instead. */

VINLINE int code_offset(sl_codes form) { return form.top ? form.offset : 0; }
VINLINE vint stored_codes(sl_codes form, vint codes) { (void)form; return codes; }

VINLINE vint pairs(sl_codes form, vint codes, vint x) {
    if (form.top) return _mm256_maddubs_epi16(codes, x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
}

/* Pair sums that can be added in 16 bits before they must be widened: 2 * 127 * top each. */
VINLINE int words_in_16_bits(sl_codes form) {
    return form.top == 0 || form.top > 63 ? 1 : form.top > 31 ? 2 : form.top > 15 ? 4 : 8;
}

/* Eight sums of four neighbouring products: 32 codes of a row times 32 activations. */
VINLINE vint dot32(sl_codes form, vint codes, vint x) {
    return _mm256_madd_epi16(pairs(form, codes, x), _mm256_set1_epi16(1));
}

/* Two such products added lane by lane. */
VINLINE vint dot64(sl_codes form, vint codes, vint x, vint codes2, vint x2) {
    if (words_in_16_bits(form) == 1) return _mm256_add_epi32(dot32(form, codes, x), dot32(form, codes2, x2));
    vint sums = _mm256_add_epi16(pairs(form, codes, x), pairs(form, codes2, x2));
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

/* `words` 4-column words of 8 interleaved rows times the same columns of n tokens. */
VINLINE void dot_group(sl_codes form, const uint8_t *codes, const int8_t *const x[], int column, int words, int n,
                       vint dots[]) {
    int step = words_in_16_bits(form) < words ? words_in_16_bits(form) : words;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) dots[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int q = 0; q < words; q += step) {
        vint narrow[TOKENS];
#pragma GCC unroll 8
        for (int s = 0; s < step; s++) {
            vint w = _mm256_loadu_si256((const __m256i *)(const void *)(codes + (q + s) * PANEL * 4));
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                int32_t word;
                __builtin_memcpy(&word, x[i] + column + 4 * (q + s), 4);
                vint product = pairs(form, w, _mm256_set1_epi32(word));
                narrow[i] = s ? _mm256_add_epi16(narrow[i], product) : product;
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(narrow[i], _mm256_set1_epi16(1)));
    }
}

#endif
