/* Rows of floats for the vector tables: rounding of activations, norms, softmax, activations, attention. A row's last
 * part goes through a zero-padded vector, so that an element meets the same operations wherever it stands. */
#ifndef SL_TENSOR_KERNELS_ROWS_H
#define SL_TENSOR_KERNELS_ROWS_H

#include "tensor/kernels_table.h"

#include <math.h>
#include <string.h>

/* load_tail of kernels_float.h is the reading half of this. */
VINLINE vfloat load_some(const float *p, int64_t n) { return n >= LANES ? vf_load(p) : load_tail(p, n); }
VINLINE void store_some(float *p, vfloat v, int64_t n) {
    if (n >= LANES) {
        vf_store(p, v);
        return;
    }
    float lanes[LANES];
    vf_store(lanes, v);
    memcpy(p, lanes, (size_t)n * 4);
}

/* ---------------------------------------------------------------- functions of a vector */

/* e^x: Cody and Waite's reduction to |r| <= ln(2) / 2, Taylor terms to r^7 (the next is 5e-9), below 1 ulp but for the
 * rounding of the sums. 0 below -87.3, e^88 above 88; NaN stays. */
VINLINE vfloat v_exp(vfloat x) {
    vfloat clamped = vf_max(vf_set1(-87.3f), vf_min(vf_set1(88.0f), x));
    vfloat n = vf_round(vf_mul(clamped, vf_set1(1.44269504088896341f)));
    vfloat r = vf_fma(n, vf_set1(-0.693359375f), clamped);
    r = vf_fma(n, vf_set1(2.12194440054690583e-4f), r);
    vfloat p = vf_set1(1.0f / 5040);
    p = vf_fma(p, r, vf_set1(1.0f / 720));
    p = vf_fma(p, r, vf_set1(1.0f / 120));
    p = vf_fma(p, r, vf_set1(1.0f / 24));
    p = vf_fma(p, r, vf_set1(1.0f / 6));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(vf_mul(r, r), p, r);
    p = vf_add(p, vf_set1(1.0f));
    return vf_where_less(x, vf_set1(-87.3f), vf_zero(), vf_mul(p, vf_power2(n)));
}

/* 1 / (1 + e^-x) */
VINLINE vfloat v_sigmoid(vfloat x) {
    return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), v_exp(vf_sub(vf_zero(), x))));
}

/* tanh: an odd polynomial near 0 (Cephes tanhf), elsewhere 1 - 2 / (e^2|x| + 1) with the sign of x. */
VINLINE vfloat v_tanh(vfloat x) {
    vfloat a = vf_abs(x), z = vf_mul(x, x);
    vfloat p = vf_set1(-5.70498872745e-3f);
    p = vf_fma(p, z, vf_set1(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set1(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set1(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set1(-3.33332819422e-1f));
    vfloat near = vf_fma(vf_mul(p, z), x, x);
    vfloat far = vf_sub(vf_set1(1.0f), vf_div(vf_set1(2.0f), vf_add(v_exp(vf_add(a, a)), vf_set1(1.0f))));
    far = vf_where_less(x, vf_zero(), vf_sub(vf_zero(), far), far);
    return vf_where_less(a, vf_set1(0.625f), near, far);
}

/* The normal distribution's integral, erfc(-x / sqrt 2) / 2. For t >= 0, erfc(t) e^(t^2) (1 + 2t) is a polynomial in
 * (t - 2) / (t + 2) to 1.1e-8 (form: Shepherd and Laframboise, Math. Comp. 36, 1981; coefficients fitted for degree 10
 * on [0, 10.5]). */
VINLINE vfloat v_normal_integral(vfloat x) {
    static const float c[11] = {1.27697839f, -0.0927638979f, -0.166031412f, 0.1640531f, -0.0542044874f, -0.00804343506f,
                                0.0086361482f, 0.00126804985f, -0.00125241133f, -0.000357580546f, 3.00163676e-05f};
    vfloat t = vf_min(vf_set1(10.5f), vf_mul(vf_abs(x), vf_set1(0.707106781f)));
    vfloat s = vf_div(vf_sub(t, vf_set1(2.0f)), vf_add(t, vf_set1(2.0f)));
    vfloat p = vf_set1(c[10]);
#pragma GCC unroll 10
    for (int i = 9; i >= 0; i--) p = vf_fma(p, s, vf_set1(c[i]));
    vfloat tail = vf_mul(v_exp(vf_sub(vf_zero(), vf_mul(t, t))), vf_div(p, vf_fma(vf_set1(2.0f), t, vf_set1(1.0f))));
    tail = vf_mul(tail, vf_set1(0.5f)); /* for -|x| */
    return vf_where_less(vf_zero(), x, vf_sub(vf_set1(1.0f), tail), tail);
}

/* ---------------------------------------------------------------- rounding of activations */

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

static void round_row(const float *x, int64_t n, void *out) {
    sl_rounded row = sl_rounded_at(out, n, 0);
    for (int64_t b = 0; 32 * b < n; b++) {
        float padded[32] = {0};
        const float *group = x + 32 * b;
        if (n - 32 * b < 32) {
            memcpy(padded, group, (size_t)(n - 32 * b) * 4);
            group = padded;
        }
        round_group(group, (int8_t *)row.codes + 32 * b, (float *)row.scale + b, (int32_t *)row.sum32 + b,
                    (int32_t *)row.sum16 + 2 * b, (float *)row.shift + b);
    }
}

/* ---------------------------------------------------------------- norms, softmax */

static void rms_norm(float *y, const float *x, const float *weight, int64_t n, float eps) {
    vfloat squares = vf_zero();
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = load_some(x + i, n - i);
        squares = vf_fma(v, v, squares);
    }
    vfloat factor = vf_set1(1.0f / sqrtf(vf_sum(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = vf_mul(load_some(x + i, n - i), factor);
        store_some(y + i, weight ? vf_mul(v, load_some(weight + i, n - i)) : v, n - i);
    }
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps) {
    vfloat sum = vf_zero(), squares = vf_zero();
    for (int64_t i = 0; i < n; i += LANES) sum = vf_add(sum, load_some(x + i, n - i));
    float mean = vf_sum(sum) / (float)n;
    for (int64_t i = 0; i < n; i += LANES) {
        float lanes[LANES] = {0};
        int64_t count = n - i < LANES ? n - i : LANES;
        vf_store(lanes, vf_sub(load_some(x + i, n - i), vf_set1(mean)));
        vfloat v = load_some(lanes, count); /* the padding is no longer zero: drop it */
        squares = vf_fma(v, v, squares);
    }
    vfloat factor = vf_set1(1.0f / sqrtf(vf_sum(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = vf_mul(vf_sub(load_some(x + i, n - i), vf_set1(mean)), factor);
        if (weight) v = vf_mul(v, load_some(weight + i, n - i));
        if (bias) v = vf_add(v, load_some(bias + i, n - i));
        store_some(y + i, v, n - i);
    }
}

static void softmax(float *x, int64_t n) {
    float top = -INFINITY;
    vfloat tops = vf_set1(-INFINITY), sum = vf_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) tops = vf_max(vf_load(x + i), tops);
    float lanes[LANES];
    vf_store(lanes, tops);
    for (int l = 0; l < LANES; l++) top = lanes[l] > top ? lanes[l] : top;
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (i = 0; i < n; i += LANES) {
        store_some(x + i, v_exp(vf_sub(load_some(x + i, n - i), vf_set1(top))), n - i);
        sum = vf_add(sum, load_some(x + i, n - i));
    }
    vfloat factor = vf_set1(1.0f / vf_sum(sum));
    for (i = 0; i < n; i += LANES) store_some(x + i, vf_mul(load_some(x + i, n - i), factor), n - i);
}

/* ---------------------------------------------------------------- activations */

#define EACH_GATED(value) \
    for (int64_t i = 0; i < n; i += LANES) { \
        vfloat x = load_some(gate + i, n - i); \
        vfloat result = (value); \
        if (up) result = vf_mul(result, load_some(up + i, n - i)); \
        store_some(y + i, result, n - i); \
    }

static void silu_mul(float *y, const float *gate, const float *up, int64_t n) {
    EACH_GATED(vf_mul(x, v_sigmoid(x)))
}

/* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
VINLINE vfloat gelu_argument(vfloat x) {
    vfloat u = vf_mul(vf_set1(1.5957691216f), x);
    return vf_fma(vf_mul(u, vf_set1(0.044715f)), vf_mul(x, x), u);
}

static void gelu_tanh_mul(float *y, const float *gate, const float *up, int64_t n) {
    EACH_GATED(vf_mul(x, v_sigmoid(gelu_argument(x))))
}

static void gelu_erf_mul(float *y, const float *gate, const float *up, int64_t n) {
    EACH_GATED(vf_mul(x, v_normal_integral(x)))
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        store_some(y + i, vf_add(load_some(y + i, n - i), load_some(x + i, n - i)), n - i);
}

static void scale(float *y, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        store_some(y + i, vf_mul(load_some(y + i, n - i), vf_set1(factor)), n - i);
}

static void softcap(float *y, float cap, int64_t n) {
    vfloat c = vf_set1(cap);
    for (int64_t i = 0; i < n; i += LANES)
        store_some(y + i, vf_mul(c, v_tanh(vf_div(load_some(y + i, n - i), c))), n - i);
}

/* ---------------------------------------------------------------- keys and values */

static void kv_store_f16(void *out, const float *x, int64_t n) {
    uint16_t *halves = out;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_to_f16(halves + i, vf_load(x + i));
    for (; i < n; i++) halves[i] = sl_f32_to_f16(x[i]);
}

#endif
