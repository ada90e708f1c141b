/* Rounding of a group of activations for the NEON tables; the same bits as every other table's (kernels_table.h). */
#ifndef SL_TENSOR_ROUND_NEON_H
#define SL_TENSOR_ROUND_NEON_H

#include "tensor/kernels_table.h"

#include <math.h>
#include <string.h>

/* Squared distances of v * factor from whole numbers: eight lanes in two vectors, summed as kernels_table.h says. */
VINLINE float round_error(const float32x4_t v[8], float factor) {
    float32x4_t sums[2] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        float32x4_t y = vmulq_n_f32(v[i], factor), error = vsubq_f32(y, vrndnq_f32(y)); /* nearest, ties to even */
        sums[i % 2] = vaddq_f32(sums[i % 2], vmulq_f32(error, error));
    }
    return vf_sum(vaddq_f32(sums[0], sums[1]));
}

/* The first of the tries with the smallest error. */
VINLINE float best_levels(const float32x4_t v[8], float amax) {
    float best = 0.0f, least = INFINITY;
    for (int k = 0; k < SL_ROUND_TRIES; k++) {
        float levels = sl_round_levels(k), error = round_error(v, levels / amax) * (1.0f / (levels * levels));
        bool better = k == 0 || error < least;
        least = better ? error : least;
        best = better ? levels : best;
    }
    return best;
}

/* Group of 32 at x, the last one padded by the caller. */
VINLINE void round_group(const float *x, int8_t *codes, float *scale, int32_t *sum32, int16_t *sum16, float *shift) {
    float32x4_t v[8];
    uint32x4_t tops = vdupq_n_u32(0);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        tops = vmaxq_u32(tops, vreinterpretq_u32_f32(vabsq_f32(v[i]))); /* as integers: NaN and infinity win */
    }
    uint32_t top = vmaxvq_u32(tops);
    float amax;
    memcpy(&amax, &top, 4);
    if (top >= 0x7f800000 || amax < SL_ROUND_MIN) {
        memset(codes, 0, 32);
        *scale = top >= 0x7f800000 ? NAN : 0.0f;
        *shift = *scale;
        *sum32 = sum16[0] = sum16[1] = 0;
        return;
    }
    int32x4_t q[8];
    float levels = best_levels(v, amax);
    for (int i = 0; i < 8; i++) q[i] = vcvtnq_s32_f32(vmulq_n_f32(v[i], levels / amax));
    for (int h = 0; h < 2; h++) {
        const int32x4_t *half = q + 4 * h;
        sum16[h] = (int16_t)vaddvq_s32(vaddq_s32(vaddq_s32(half[0], half[1]), vaddq_s32(half[2], half[3])));
        int16x8_t low = vcombine_s16(vmovn_s32(half[0]), vmovn_s32(half[1]));
        int16x8_t high = vcombine_s16(vmovn_s32(half[2]), vmovn_s32(half[3]));
        vst1q_s8(codes + 16 * h, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    *sum32 = sum16[0] + sum16[1];
    *scale = amax / levels;
    *shift = *scale * (float)*sum32;
}

#endif
