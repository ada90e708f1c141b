/* Rounding of one group of activations with 256-bit vectors, for the x86 tables. The tries' errors are summed lane by
 * lane, brought together by transposition, and compared at once: no branch depends on the data. */
#ifndef SL_TENSOR_ROUND_AVX_H
#define SL_TENSOR_ROUND_AVX_H

#include "tensor/kernels_table.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* Squared distances of v * factor from whole numbers, eight lanes. */
VINLINE __m256 round_errors(const __m256 v[4], __m256 factor) {
    __m256 sum = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256 y = _mm256_mul_ps(v[i], factor);
        __m256 error = _mm256_sub_ps(y, _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        sum = _mm256_add_ps(sum, _mm256_mul_ps(error, error));
    }
    return sum;
}

/* Sums of four vectors, each in the order that kernels_table.h gives. */
VINLINE __m128 sum_lanes4(const __m256 v[4]) {
    __m128 q[4];
    for (int i = 0; i < 4; i++) q[i] = _mm_add_ps(_mm256_castps256_ps128(v[i]), _mm256_extractf128_ps(v[i], 1));
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(q[0], q[1]), _mm_unpackhi_ps(q[0], q[1]));
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(q[2], q[3]), _mm_unpackhi_ps(q[2], q[3]));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

/* The first of the tries with the smallest error. */
VINLINE int best_try(const __m256 v[4], float amax) {
    _Static_assert(SL_ROUND_TRIES == 8, "one lane a try");
    __m256 levels = _mm256_setr_ps(sl_round_levels(0), sl_round_levels(1), sl_round_levels(2), sl_round_levels(3),
                                   sl_round_levels(4), sl_round_levels(5), sl_round_levels(6), sl_round_levels(7));
    __m256 weight = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_mul_ps(levels, levels)), sums[8];
    _Alignas(32) float factors[8];
    _mm256_store_ps(factors, _mm256_div_ps(levels, _mm256_set1_ps(amax)));
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) sums[k] = round_errors(v, _mm256_broadcast_ss(&factors[k]));
    __m256 errors = _mm256_insertf128_ps(_mm256_castps128_ps256(sum_lanes4(sums)), sum_lanes4(sums + 4), 1);
    errors = _mm256_mul_ps(errors, weight);
    __m256 least = _mm256_min_ps(errors, _mm256_permute2f128_ps(errors, errors, 1));
    least = _mm256_min_ps(least, _mm256_shuffle_ps(least, least, 0x4e));
    least = _mm256_min_ps(least, _mm256_shuffle_ps(least, least, 0xb1));
    return __builtin_ctz((unsigned)_mm256_movemask_ps(_mm256_cmp_ps(errors, least, _CMP_EQ_OQ)));
}

/* Group of 32 at x, the last one padded by the caller. Same bits as the scalar table's. */
VINLINE void round_group(const float *x, int8_t *codes, float *scale, int32_t *sum32, int16_t *sum16, float *shift) {
    __m256i magnitude = _mm256_set1_epi32(0x7fffffff), top = _mm256_setzero_si256(), q[4];
    __m256 v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude)); /* NaN and infinity win */
    }
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    int32_t bits = _mm_cvtsi128_si32(t);
    float amax = _mm_cvtss_f32(_mm_castsi128_ps(t));
    if (bits >= 0x7f800000 || amax < SL_ROUND_MIN) {
        memset(codes, 0, 32);
        *scale = *shift = bits >= 0x7f800000 ? NAN : 0.0f;
        *sum32 = sum16[0] = sum16[1] = 0;
        return;
    }
    float levels = sl_round_levels(best_try(v, amax));
    __m256 factor = _mm256_set1_ps(levels / amax);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor)); /* nearest, ties to even */
    __m256i first = _mm256_add_epi32(q[0], q[1]), second = _mm256_add_epi32(q[2], q[3]);
    __m256i both = _mm256_hadd_epi32(first, second); /* per half: two of the first, two of the second */
    both = _mm256_hadd_epi32(both, both);
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    sum16[0] = (int16_t)_mm_cvtsi128_si32(sums);
    sum16[1] = (int16_t)_mm_extract_epi32(sums, 1);
    *sum32 = sum16[0] + sum16[1];
    *scale = amax / levels;
    *shift = *scale * (float)*sum32;
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)codes, bytes);
}

#endif
