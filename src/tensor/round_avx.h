/* Rounding of a group of activations for the x86 tables, on eight lanes in both: the order of the errors' sum
 * (kernels_table.h) is theirs. */
#ifndef SL_TENSOR_ROUND_AVX_H
#define SL_TENSOR_ROUND_AVX_H

#include "tensor/kernels_table.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* Codes of a group whose largest value becomes `levels`, and the squared error, summed as kernels_table.h says. */
VINLINE float round_error(const __m256 v[4], float amax, float levels, __m256i q[4]) {
    __m256 factor = _mm256_set1_ps(levels / amax), scale = _mm256_set1_ps(amax / levels), sum = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor)); /* nearest, ties to even */
        __m256 error = _mm256_sub_ps(v[i], _mm256_mul_ps(_mm256_cvtepi32_ps(q[i]), scale));
        sum = _mm256_add_ps(sum, _mm256_mul_ps(error, error));
    }
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Group of 32 at x, the last one padded by the caller. Same bits as the scalar table's. */
VINLINE void round_group(const float *x, int8_t *codes, float *scale, int32_t *sum32, int32_t *sum16, float *shift) {
    __m256i magnitude = _mm256_set1_epi32(0x7fffffff), top = _mm256_setzero_si256();
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
        *scale = bits >= 0x7f800000 ? NAN : 0.0f;
        *shift = *scale;
        *sum32 = sum16[0] = sum16[1] = 0;
        return;
    }
    __m256i q[4];
    float least = INFINITY, levels = 0;
    for (int k = 0; k < SL_ROUND_TRIES; k++) {
        __m256i codes_k[4];
        float error = round_error(v, amax, sl_round_levels(k), codes_k);
        if (k && !(error < least)) continue;
        least = error;
        levels = sl_round_levels(k);
        memcpy(q, codes_k, sizeof q);
    }
    __m256i first = _mm256_add_epi32(q[0], q[1]), second = _mm256_add_epi32(q[2], q[3]);
    __m256i both = _mm256_hadd_epi32(first, second); /* per half: two of the first, two of the second */
    both = _mm256_hadd_epi32(both, both);
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    sum16[0] = _mm_cvtsi128_si32(sums);
    sum16[1] = _mm_extract_epi32(sums, 1);
    *sum32 = sum16[0] + sum16[1];
    *scale = amax / levels;
    *shift = *scale * (float)*sum32;
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)codes, bytes);
}

#endif
