/* The searches for scales and minimums. All minimise sum w (x - value)^2 over a group of 8 * n8 elements; w NULL is 1.
 *
 * For given codes the best scale (and minimum) is a least-squares solution; for a given scale the best codes are the
 * nearest ones. Candidates for the scale are tried on that footing, and what is kept in fewer bits (f16, six bits) is
 * rounded before its error is judged.
 */
#ifndef SL_TENSOR_QUANTISE_SEARCH_H
#define SL_TENSOR_QUANTISE_SEARCH_H

#include "tensor/quantise_lanes.h"
#include "tensor/types.h"

/* The values that codes stand for: integers of [low, high], or a book. */
typedef enum levels { LEVELS_INTEGERS, LEVELS_IQ4, LEVELS_FP4 } levels;

typedef struct grid {
    levels levels;
    float low, high; /* of the values */
} grid;

static const float iq4_steps[15] = {23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24};

/* The value of the grid that is nearest to y. */
LANES v8 nearest(grid g, v8 y) {
    if (g.levels == LEVELS_INTEGERS) return v_round(v_min(v_max(y, v_set(g.low)), v_set(g.high)));
    if (g.levels == LEVELS_IQ4) {
        v8 value = v_set(-127);
        float at = -127;
        for (int k = 0; k < 15; k++) {
            v8i above = y > v_set(at + 0.5f * iq4_steps[k]);
            value += (v8)(above & (v8i)v_set(iq4_steps[k]));
            at += iq4_steps[k];
        }
        return value;
    }
    /* 0 1 2 3 4 6 8 12: steps of one, from 4 on of two, from 8 on of four */
    v8 size = v_abs(y);
    v8 step = v_pick(size > v_set(8), v_set(4), v_pick(size > v_set(4), v_set(2), v_set(1)));
    v8 part = v_pick(size > v_set(8), v_set(0.25f), v_pick(size > v_set(4), v_set(0.5f), v_set(1)));
    v8 value = v_round(v_min(size, v_set(12)) * part) * step;
    return (v8)((v8i)value | ((v8i)y & (v8i)v_set(-0.0f) & (value > v_set(0))));
}

LANES v8 weight_of(const float *w, int k) { return w ? v_load(w + 8 * k) : v_set(1); }

/* ---------------------------------------------------------------- one scale */

typedef struct sums {
    float xq, qq; /* sum w x q, sum w q q */
} sums;

LANES sums sums_of(grid g, int n8, const float *x, const float *w, float inverse) {
    v8 xq = v_set(0), qq = v_set(0), scale = v_set(inverse);
    for (int k = 0; k < n8; k++) {
        v8 v = v_load(x + 8 * k), q = nearest(g, v * scale), wq = w ? weight_of(w, k) * q : q;
        xq += wq * v;
        qq += wq * q;
    }
    return (sums){v_sum(xq), v_sum(qq)};
}

/* The error with the scale d; codes (values of the grid) into q where it is not NULL. */
LANES float scale_error(grid g, int n8, const float *x, const float *w, float d, float *q) {
    v8 error = v_set(0), inverse = v_set(d != 0 ? 1 / d : 0), scale = v_set(d);
    for (int k = 0; k < n8; k++) {
        v8 v = v_load(x + 8 * k), code = nearest(g, v * inverse), e = v - code * scale;
        if (q) v_store(q + 8 * k, code);
        error += weight_of(w, k) * e * e;
    }
    return v_sum(error);
}

/* The element of largest size, with its sign. */
LANES float extreme(int n8, const float *x) {
    v8 top = v_load(x), bottom = top;
    for (int k = 1; k < n8; k++) {
        top = v_max(top, v_load(x + 8 * k));
        bottom = v_min(bottom, v_load(x + 8 * k));
    }
    float a = v_top(top), b = v_bottom(bottom);
    return a > -b ? a : b;
}

/* The best scale where the element of largest size is made to stand at each of targets [n] (in codes); 0: all zeros. */
LANES float best_scale(grid g, int n8, const float *x, const float *w, const float *targets, int n) {
    float peak = extreme(n8, x), best = 0, score = 0;
    if (peak == 0 || !(1 / peak < 1e30f && 1 / peak > -1e30f)) return 0;
    for (int c = 0; c < n; c++) {
        sums s = sums_of(g, n8, x, w, targets[c] / peak);
        if (s.qq > 0 && s.xq * s.xq > score * s.qq) {
            score = s.xq * s.xq / s.qq;
            best = s.xq / s.qq;
        }
    }
    return best;
}

/* ---------------------------------------------------------------- scale and minimum */

typedef struct affine {
    float d, m; /* value = d * code + m */
} affine;

typedef struct affine_sums {
    float w, x, q, qq, xq; /* sums of w, w x, w q, w q q, w x q */
} affine_sums;

LANES affine_sums affine_sums_of(float top, int n8, const float *x, const float *w, float inverse, float m) {
    v8 sw = v_set(0), sx = sw, sq = sw, qq = sw, xq = sw, scale = v_set(inverse), from = v_set(m);
    for (int k = 0; k < n8; k++) {
        v8 v = v_load(x + 8 * k), a = weight_of(w, k);
        v8 q = v_round(v_min(v_max((v - from) * scale, v_set(0)), v_set(top))), aq = a * q, ax = a * v;
        sw += a;
        sx += ax;
        sq += aq;
        qq += aq * q;
        xq += aq * v;
    }
    return (affine_sums){v_sum(sw), v_sum(sx), v_sum(sq), v_sum(qq), v_sum(xq)};
}

/* Least squares for these codes; `negative`: m may not be above 0. What the fit takes from the error is returned. */
LANES float affine_solve(affine_sums s, bool negative, affine *out) {
    float det = s.w * s.qq - s.q * s.q;
    *out = (affine){0, 0};
    if (det > 0) {
        out->d = (s.w * s.xq - s.x * s.q) / det;
        out->m = (s.qq * s.x - s.q * s.xq) / det;
    }
    if (negative && (out->m > 0 || det <= 0)) {
        out->m = 0;
        out->d = s.qq > 0 ? s.xq / s.qq : 0;
    }
    float d = out->d, m = out->m;
    return 2 * (d * s.xq + m * s.x) - (d * d * s.qq + 2 * d * m * s.q + m * m * s.w);
}

LANES float affine_error(float top, int n8, const float *x, const float *w, affine a, float *q) {
    v8 error = v_set(0), inverse = v_set(a.d != 0 ? 1 / a.d : 0), d = v_set(a.d), m = v_set(a.m);
    for (int k = 0; k < n8; k++) {
        v8 v = v_load(x + 8 * k), code = v_round(v_min(v_max((v - m) * inverse, v_set(0)), v_set(top)));
        v8 e = v - (d * code + m);
        if (q) v_store(q + 8 * k, code);
        error += weight_of(w, k) * e * e;
    }
    return v_sum(error);
}

/* Candidates stretch the grid by (top + offsets[c]) / top; then codes and fit are taken in turns. */
LANES affine best_affine(float top, int n8, const float *x, const float *w, bool negative, const float *offsets, int n,
                         int turns) {
    v8 low = v_load(x), high = low;
    for (int k = 1; k < n8; k++) {
        low = v_min(low, v_load(x + 8 * k));
        high = v_max(high, v_load(x + 8 * k));
    }
    float min = v_bottom(low), max = v_top(high), gain = 0;
    if (negative && min > 0) min = 0;
    affine best = {(max - min) / top, min};
    if (!(max - min > 1e-30f)) return (affine){0, min};
    for (int c = 0; c < n; c++) {
        affine a;
        float g = affine_solve(affine_sums_of(top, n8, x, w, (top + offsets[c]) / (max - min), min), negative, &a);
        if ((c && !(g > gain)) || !(a.d > 0)) continue;
        gain = g;
        best = a;
    }
    for (int t = 0; t < turns; t++) {
        affine a;
        float g = affine_solve(affine_sums_of(top, n8, x, w, 1 / best.d, best.m), negative, &a);
        if (!(g > gain) || !(a.d > 0)) break;
        gain = g;
        best = a;
    }
    return best;
}

#endif
