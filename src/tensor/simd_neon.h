/* Vector names for NEON (aarch64), and the integer inner loops of codes_neon.h: with the dot-product instructions where
 * the including file is compiled for them (kernels_neon_dot.c), without them elsewhere. */
#ifndef SL_TENSOR_SIMD_NEON_H
#define SL_TENSOR_SIMD_NEON_H

#include "tensor/codes.h"

#include <arm_neon.h>

#define LANES 4
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
/* factor times four vectors' sums, each added in the order of vf_sum. */
VINLINE void vf_store_sum4(float *p, float factor, const vfloat v[4]) {
    for (int i = 0; i < 4; i++) p[i] = factor * vf_sum(v[i]);
}
VINLINE vfloat vf_from_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
VINLINE void vf_to_f16(void *p, vfloat v) { vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(v))); }
VINLINE vfloat vf_from_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
VINLINE vint vi_set1(int32_t x) { return vdupq_n_s32(x); }
VINLINE vint vi_sub(vint a, vint b) { return vsubq_s32(a, b); }
VINLINE vfloat vi_to_vf(vint a) { return vcvtq_f32_s32(a); }

/* ---------------------------------------------------------------- integer dot products */

/* Four sums of 16 products of a group: sum + the lanes' shares of codes . x. */
VINLINE vint dot16(vint sum, int8x16_t codes, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, codes, x);
#else
    /* two products of at most 128 * 127 fit in 16 bits */
    int16x8_t pairs = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
    return vpadalq_s16(sum, vmlal_high_s8(pairs, codes, x));
#endif
}

/* The sums of four vectors, one a lane. */
VINLINE vint sum_rows(const vint v[4]) { return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])); }

#endif
