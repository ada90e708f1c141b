/* Eight floats at once, for the quantisers: compiled once for every x86 or ARM processor and once with AVX2, with the same
 * bits, since lanes are added in one order and products and sums are never fused. */
#ifndef SL_TENSOR_QUANTISE_LANES_H
#define SL_TENSOR_QUANTISE_LANES_H

#include "tensor/types.h"

#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define LANES static inline __attribute__((always_inline))

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));

LANES v8 v_load(const float *p) {
    v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES void v_store(float *p, v8 v) { memcpy(p, &v, sizeof v); }
LANES v8 v_set(float x) { return (v8){x, x, x, x, x, x, x, x}; }
LANES v8 v_pick(v8i mask, v8 a, v8 b) { return (v8)((mask & (v8i)a) | (~mask & (v8i)b)); }
#if defined(__AVX__)
LANES v8 v_min(v8 a, v8 b) { return (v8)_mm256_min_ps((__m256)a, (__m256)b); }
LANES v8 v_max(v8 a, v8 b) { return (v8)_mm256_max_ps((__m256)a, (__m256)b); }
#else
LANES v8 v_min(v8 a, v8 b) { return v_pick(a < b, a, b); }
LANES v8 v_max(v8 a, v8 b) { return v_pick(a > b, a, b); }
#endif
LANES v8 v_abs(v8 a) { return (v8)((v8i)a & 0x7fffffff); }
/* To the nearest integer, ties to even; |a| < 2^22. */
LANES v8 v_round(v8 a) {
    const v8 magic = v_set(12582912.0f);
    return (a + magic) - magic;
}
/* To f16, ties to even, and back; |x| <= 65504. */
#if defined(__F16C__)
LANES uint16_t v_half(float x) { return _cvtss_sh(x, 0); }
LANES float v_of_half(uint16_t bits) { return _cvtsh_ss(bits); }
#else
LANES uint16_t v_half(float x) { return sl_f32_to_f16(x); }
LANES float v_of_half(uint16_t bits) { return sl_f16_to_f32(bits); }
#endif
/* Across the lanes, in one order: (0 + 4) + (1 + 5) and (2 + 6) + (3 + 7). */
LANES v8 v_halves(v8 a) { return __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3); }
LANES v8 v_pairs(v8 a) { return __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6); }
LANES v8 v_quarters(v8 a) { return __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5); }
LANES float v_sum(v8 a) {
    a += v_halves(a);
    a += v_pairs(a);
    return a[0] + a[2];
}
LANES float v_top(v8 a) {
    a = v_max(a, v_halves(a));
    a = v_max(a, v_pairs(a));
    return v_max(a, v_quarters(a))[0];
}
LANES float v_bottom(v8 a) {
    a = v_min(a, v_halves(a));
    a = v_min(a, v_pairs(a));
    return v_min(a, v_quarters(a))[0];
}

#endif
