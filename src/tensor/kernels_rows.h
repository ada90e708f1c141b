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
                    (int16_t *)row.sum16 + 2 * b, (float *)row.shift + b);
    }
}

/* ---------------------------------------------------------------- norms, softmax */

static void rms_norm(float *y, const float *x, const float *weight, int64_t n, float eps) {
    vsum squares = vs_zero();
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = load_some(x + i, n - i);
        squares = vs_add_squares(squares, v);
    }
    vfloat factor = vf_set1(1.0f / sqrtf(vs_total(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = vf_mul(load_some(x + i, n - i), factor);
        store_some(y + i, weight ? vf_mul(v, load_some(weight + i, n - i)) : v, n - i);
    }
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps) {
    vsum sum = vs_zero(), squares = vs_zero();
    for (int64_t i = 0; i < n; i += LANES) sum = vs_add(sum, load_some(x + i, n - i));
    float mean = vs_total(sum) / (float)n;
    for (int64_t i = 0; i < n; i += LANES) {
        float lanes[LANES] = {0};
        int64_t count = n - i < LANES ? n - i : LANES;
        vf_store(lanes, vf_sub(load_some(x + i, n - i), vf_set1(mean)));
        vfloat v = load_some(lanes, count); /* the padding is no longer zero: drop it */
        squares = vs_add_squares(squares, v);
    }
    vfloat factor = vf_set1(1.0f / sqrtf(vs_total(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) {
        vfloat v = vf_mul(vf_sub(load_some(x + i, n - i), vf_set1(mean)), factor);
        if (weight) v = vf_mul(v, load_some(weight + i, n - i));
        if (bias) v = vf_add(v, load_some(bias + i, n - i));
        store_some(y + i, v, n - i);
    }
}

static void softmax(float *x, int64_t n) {
    float top = -INFINITY;
    vfloat tops = vf_set1(-INFINITY);
    vsum sum = vs_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) tops = vf_max(vf_load(x + i), tops);
    float lanes[LANES];
    vf_store(lanes, tops);
    for (int l = 0; l < LANES; l++) top = lanes[l] > top ? lanes[l] : top;
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (i = 0; i < n; i += LANES) {
        store_some(x + i, v_exp(vf_sub(load_some(x + i, n - i), vf_set1(top))), n - i);
        sum = vs_add(sum, load_some(x + i, n - i));
    }
    vfloat factor = vf_set1(1.0f / vs_total(sum));
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
