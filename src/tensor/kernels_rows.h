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

/* round_group comes with the vector names: it works on eight lanes whatever LANES is. */
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
                    (int32_t *)row.sum16 + 2 * b);
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

/* ---------------------------------------------------------------- attention */

static void kv_store_f16(void *out, const float *x, int64_t n) {
    uint16_t *halves = out;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_to_f16(halves + i, vf_load(x + i));
    for (; i < n; i++) halves[i] = sl_f32_to_f16(x[i]);
}

/* Values [i, i + LANES) of a stored row of n, zeros after the end. */
VINLINE vfloat load_kv(sl_kv_type type, const char *row, int64_t i, int64_t n) {
    if (type == SL_KV_F32) return load_some((const float *)(const void *)row + i, n - i);
    if (n - i >= LANES) return vf_from_f16(row + 2 * i);
    uint16_t lanes[LANES] = {0};
    memcpy(lanes, row + 2 * i, (size_t)(n - i) * 2);
    return vf_from_f16(lanes);
}

/* Four keys at once, or one: four sums in flight hide the latency of each, and share a reduction. */
VINLINE void score_keys(sl_kv_type type, float *scores, const float *q, const char *k, size_t stride, int keys,
                        int64_t head_dim, float factor) {
    vfloat sums[4];
#pragma GCC unroll 4
    for (int j = 0; j < keys; j++) sums[j] = vf_zero();
    for (int64_t i = 0; i < head_dim; i += LANES) {
        vfloat v = load_some(q + i, head_dim - i);
#pragma GCC unroll 4
        for (int j = 0; j < keys; j++)
            sums[j] = vf_fma(v, load_kv(type, k + (size_t)j * stride, i, head_dim), sums[j]);
    }
    if (keys == 4) vf_store_sum4(scores, factor, sums);
    else scores[0] = factor * vf_sum(sums[0]);
}

VINLINE void score_all(sl_kv_type type, float *scores, const float *q, const char *k, size_t stride, int64_t n,
                       int64_t head_dim, float factor) {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) score_keys(type, scores + j, q, k + (size_t)j * stride, stride, 4, head_dim, factor);
    for (; j < n; j++) score_keys(type, scores + j, q, k + (size_t)j * stride, stride, 1, head_dim, factor);
}

static void kv_scores(sl_kv_type type, float *scores, const float *q, const void *k, size_t stride, int64_t n,
                      int64_t head_dim, float factor) {
    if (type == SL_KV_F32) score_all(SL_KV_F32, scores, q, k, stride, n, head_dim, factor);
    else score_all(SL_KV_F16, scores, q, k, stride, n, head_dim, factor);
}

/* `vectors` neighbouring vectors of the output in registers while all positions pass. Even and odd positions have sums
 * of their own, added at the end: one sum would wait for itself at every position. */
VINLINE void mix_columns(sl_kv_type type, float *out, const float *p, const char *v, size_t stride, int64_t n,
                         int64_t first, int64_t head_dim, int vectors) {
    vfloat even[4], odd[4];
#pragma GCC unroll 4
    for (int c = 0; c < vectors; c++) even[c] = odd[c] = vf_zero();
    for (int64_t j = 0; j < n; j += 2) {
        const char *row = v + (size_t)j * stride, *next = row + stride;
        vfloat weight = vf_set1(p[j]);
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++)
            even[c] = vf_fma(weight, load_kv(type, row, first + c * LANES, head_dim), even[c]);
        if (j + 1 == n) break;
        weight = vf_set1(p[j + 1]);
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++)
            odd[c] = vf_fma(weight, load_kv(type, next, first + c * LANES, head_dim), odd[c]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < vectors; c++)
        store_some(out + first + c * LANES, vf_add(even[c], odd[c]), head_dim - first - c * LANES);
}

VINLINE void mix_all(sl_kv_type type, float *out, const float *p, const char *v, size_t stride, int64_t n,
                     int64_t head_dim) {
    int64_t i = 0;
    for (; i + 4 * LANES <= head_dim; i += 4 * LANES) mix_columns(type, out, p, v, stride, n, i, head_dim, 4);
    for (; i < head_dim; i += LANES) mix_columns(type, out, p, v, stride, n, i, head_dim, 1);
}

static void kv_mix(sl_kv_type type, float *out, const float *p, const void *v, size_t stride, int64_t n,
                   int64_t head_dim) {
    if (type == SL_KV_F32) mix_all(SL_KV_F32, out, p, v, stride, n, head_dim);
    else mix_all(SL_KV_F16, out, p, v, stride, n, head_dim);
}

#endif
