/* The AVX-512 instructions that simd_avx512.h uses, on a processor with AVX2: a vector is two halves. Most instructions
 * are defined lane by lane, or within 128 bits, and so are two of their 256-bit namesakes; the others are plain loops.
 * Found before the compiler's header of this name by tests/emulate/kernels_avx512.c. A new instruction in simd_avx512.h
 * needs a line here. Meaning of each: Intel Intrinsics Guide. */
#ifndef SL_TESTS_EMULATE_IMMINTRIN_H
#define SL_TESTS_EMULATE_IMMINTRIN_H

#include_next <immintrin.h>

#include <stdint.h>
#include <string.h>

typedef struct { __m256 half[2]; } emu_ps;
typedef struct { __m256i half[2]; } emu_si;

/* The compiler's own types and functions of these names would need the real instructions. */
#define __m512 emu_ps
#define __m512i emu_si
#define EMU(type) static inline __attribute__((always_inline, unused)) type
#define EMU_BOTH(type, x0, x1) ((type){{x0, x1}})

#define EMU_UNARY(type, name, from, one) \
    EMU(type) emu_##name(from a) { return EMU_BOTH(type, one(a.half[0]), one(a.half[1])); }
#define EMU_BINARY(type, name, one) \
    EMU(type) emu_##name(type a, type b) { return EMU_BOTH(type, one(a.half[0], b.half[0]), one(a.half[1], b.half[1])); }
#define EMU_SHIFT(name, one) \
    EMU(emu_si) emu_##name(emu_si a, unsigned n) { return EMU_BOTH(emu_si, one(a.half[0], (int)n), one(a.half[1], (int)n)); }
/* Sixteen 32-bit lanes from sixteen narrower ones in 128 or 256 bits. */
#define EMU_WIDEN(type, name, from, one, low, high) \
    EMU(type) emu_##name(from a) { return EMU_BOTH(type, one(low), one(high)); }

/* ---------------------------------------------------------------- floats */

EMU(emu_ps) emu_set1_ps(float x) { return EMU_BOTH(emu_ps, _mm256_set1_ps(x), _mm256_set1_ps(x)); }
EMU(emu_ps) emu_loadu_ps(const float *p) { return EMU_BOTH(emu_ps, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
EMU(void) emu_storeu_ps(float *p, emu_ps v) {
    _mm256_storeu_ps(p, v.half[0]);
    _mm256_storeu_ps(p + 8, v.half[1]);
}
EMU_BINARY(emu_ps, add_ps, _mm256_add_ps)
EMU_BINARY(emu_ps, sub_ps, _mm256_sub_ps)
EMU_BINARY(emu_ps, mul_ps, _mm256_mul_ps)
EMU_BINARY(emu_ps, div_ps, _mm256_div_ps)
EMU_BINARY(emu_ps, max_ps, _mm256_max_ps)
EMU_BINARY(emu_ps, min_ps, _mm256_min_ps)
EMU_BINARY(emu_ps, xor_ps, _mm256_xor_ps)
EMU(emu_ps) emu_fmadd_ps(emu_ps a, emu_ps b, emu_ps c) {
    return EMU_BOTH(emu_ps, _mm256_fmadd_ps(a.half[0], b.half[0], c.half[0]),
                    _mm256_fmadd_ps(a.half[1], b.half[1], c.half[1]));
}
EMU(__m256) emu_abs_half(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
EMU_UNARY(emu_ps, abs_ps, emu_ps, emu_abs_half)
EMU(__mmask16) emu_mask(__m256 low, __m256 high) {
    return (__mmask16)(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
}
EMU(emu_ps) emu_mask_blend_ps(__mmask16 k, emu_ps a, emu_ps b) { /* b where the bit is set */
    float x[16], y[16];
    emu_storeu_ps(x, a);
    emu_storeu_ps(y, b);
    for (int i = 0; i < 16; i++) x[i] = k >> i & 1 ? y[i] : x[i];
    return emu_loadu_ps(x);
}

#define _mm512_set1_ps emu_set1_ps
#define _mm512_setzero_ps() emu_set1_ps(0.0f)
#define _mm512_loadu_ps emu_loadu_ps
#define _mm512_storeu_ps emu_storeu_ps
#define _mm512_add_ps emu_add_ps
#define _mm512_sub_ps emu_sub_ps
#define _mm512_mul_ps emu_mul_ps
#define _mm512_div_ps emu_div_ps
#define _mm512_max_ps emu_max_ps
#define _mm512_min_ps emu_min_ps
#define _mm512_xor_ps emu_xor_ps
#define _mm512_fmadd_ps emu_fmadd_ps
#define _mm512_abs_ps emu_abs_ps
#define _mm512_mask_blend_ps emu_mask_blend_ps
#undef _mm512_roundscale_ps /* constants must stay constants; a scale of 2^0 is all that is used */
#undef _mm512_cmp_ps_mask
#undef _mm512_extractf32x8_ps
#define _mm512_roundscale_ps(a, how) \
    EMU_BOTH(emu_ps, _mm256_round_ps((a).half[0], how), _mm256_round_ps((a).half[1], how))
#define _mm512_cmp_ps_mask(a, b, how) \
    emu_mask(_mm256_cmp_ps((a).half[0], (b).half[0], how), _mm256_cmp_ps((a).half[1], (b).half[1], how))
#define _mm512_extractf32x8_ps(a, which) ((a).half[which])
#define _mm512_castps512_ps256(a) ((a).half[0])

/* ---------------------------------------------------------------- whole numbers */

EMU(emu_si) emu_set1_epi32(int x) { return EMU_BOTH(emu_si, _mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
EMU(emu_si) emu_set1_epi8(char x) { return EMU_BOTH(emu_si, _mm256_set1_epi8(x), _mm256_set1_epi8(x)); }
EMU(emu_si) emu_loadu_si512(const void *p) {
    emu_si v;
    memcpy(&v, p, 64);
    return v;
}
EMU(void) emu_storeu_si512(void *p, emu_si v) { memcpy(p, &v, 64); }
EMU_BINARY(emu_si, and_si512, _mm256_and_si256)
EMU_BINARY(emu_si, or_si512, _mm256_or_si256)
EMU_BINARY(emu_si, xor_si512, _mm256_xor_si256)
EMU_BINARY(emu_si, add_epi8, _mm256_add_epi8)
EMU_BINARY(emu_si, add_epi32, _mm256_add_epi32)
EMU_BINARY(emu_si, sub_epi32, _mm256_sub_epi32)
EMU_BINARY(emu_si, mullo_epi32, _mm256_mullo_epi32)
EMU_BINARY(emu_si, madd_epi16, _mm256_madd_epi16)
EMU_BINARY(emu_si, shuffle_epi8, _mm256_shuffle_epi8)
EMU_SHIFT(slli_epi16, _mm256_slli_epi16)
EMU_SHIFT(srli_epi16, _mm256_srli_epi16)
EMU_SHIFT(slli_epi32, _mm256_slli_epi32)
EMU_SHIFT(srli_epi32, _mm256_srli_epi32)
EMU(emu_si) emu_broadcast_i32x4(__m128i v) {
    return EMU_BOTH(emu_si, _mm256_broadcastsi128_si256(v), _mm256_broadcastsi128_si256(v));
}
/* Four products of unsigned a and signed b added to each 32-bit lane, without saturation. */
EMU(emu_si) emu_dpbusd_epi32(emu_si sum, emu_si a, emu_si b) {
    int32_t lanes[16];
    uint8_t x[64];
    int8_t y[64];
    memcpy(lanes, &sum, 64);
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 4; k++) lanes[i] += x[4 * i + k] * y[4 * i + k];
    return emu_loadu_si512(lanes);
}

#define _mm512_set1_epi32 emu_set1_epi32
#define _mm512_set1_epi8 emu_set1_epi8
#define _mm512_setzero_si512() emu_set1_epi32(0)
#define _mm512_loadu_si512 emu_loadu_si512
#define _mm512_storeu_si512 emu_storeu_si512
#define _mm512_and_si512 emu_and_si512
#define _mm512_or_si512 emu_or_si512
#define _mm512_xor_si512 emu_xor_si512
#define _mm512_add_epi8 emu_add_epi8
#define _mm512_add_epi32 emu_add_epi32
#define _mm512_sub_epi32 emu_sub_epi32
#define _mm512_mullo_epi32 emu_mullo_epi32
#define _mm512_madd_epi16 emu_madd_epi16
#define _mm512_shuffle_epi8 emu_shuffle_epi8
#undef _mm512_slli_epi16
#undef _mm512_srli_epi16
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#define _mm512_slli_epi16 emu_slli_epi16
#define _mm512_srli_epi16 emu_srli_epi16
#define _mm512_slli_epi32 emu_slli_epi32
#define _mm512_srli_epi32 emu_srli_epi32
#define _mm512_broadcast_i32x4 emu_broadcast_i32x4
#define _mm512_dpbusd_epi32 emu_dpbusd_epi32

/* ---------------------------------------------------------------- conversions */

EMU_UNARY(emu_ps, cvtepi32_ps, emu_si, _mm256_cvtepi32_ps)
EMU_UNARY(emu_si, cvtps_epi32, emu_ps, _mm256_cvtps_epi32)
EMU_WIDEN(emu_si, cvtepi8_epi32, __m128i, _mm256_cvtepi8_epi32, a, _mm_srli_si128(a, 8))
EMU_WIDEN(emu_si, cvtepu8_epi32, __m128i, _mm256_cvtepu8_epi32, a, _mm_srli_si128(a, 8))
EMU_WIDEN(emu_si, cvtepu16_epi32, __m256i, _mm256_cvtepu16_epi32, _mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1))
EMU_WIDEN(emu_ps, cvtph_ps, __m256i, _mm256_cvtph_ps, _mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1))
EMU_UNARY(emu_ps, castsi512_ps, emu_si, _mm256_castsi256_ps)

#define _mm512_cvtepi32_ps emu_cvtepi32_ps
#define _mm512_cvtps_epi32 emu_cvtps_epi32
#define _mm512_cvtepi8_epi32 emu_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emu_cvtepu8_epi32
#define _mm512_cvtepu16_epi32 emu_cvtepu16_epi32
#define _mm512_cvtph_ps emu_cvtph_ps
#define _mm512_castsi512_ps emu_castsi512_ps
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(a, how) /* exceptions raise nothing either way */ \
    _mm256_inserti128_si256(_mm256_castsi128_si256(_mm256_cvtps_ph((a).half[0], _MM_FROUND_TO_NEAREST_INT)), \
                            _mm256_cvtps_ph((a).half[1], _MM_FROUND_TO_NEAREST_INT), 1)

#endif
