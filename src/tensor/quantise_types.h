/* The quantisers, a block at a time. Included by quantise_plain.c and quantise_avx2.c, which give SL_QUANTISE_TABLE.
 * x: the block's elements; w: their weights, or NULL. Blocks are laid out as types_basic.c and types_k.c say. */
#include "tensor/bnb.h"
#include "tensor/codes.h"
#include "tensor/quantise.h"
#include "tensor/quantise_search.h"
#include "tensor/quantise_table.h"

#include <math.h>

/* ---------------------------------------------------------------- storing */

/* To f16 and back; what is beyond its range is cut to it. */
LANES float half_of(float x, uint16_t *bits) {
    if (!(x < 65504.0f)) x = 65504.0f;
    if (!(x > -65504.0f)) x = -65504.0f;
    *bits = v_half(x);
    return v_of_half(*bits);
}

static void store_half(uint8_t *p, uint16_t bits) {
    p[0] = (uint8_t)bits;
    p[1] = (uint8_t)(bits >> 8);
}

static void store_codes(sl_type type, uint8_t *block, const float *q, int n) {
    int8_t codes[SL_MAX_BLOCK];
    for (int i = 0; i < n; i++) codes[i] = (int8_t)q[i];
    sl_block_set_codes(type, block, codes);
}

/* The layouts of 32 four- and five-bit codes, as codes_pack.c has them, without the way through integers in memory. */
LANES void store_nibbles(uint8_t *qs, const float *q, int offset) {
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((((int)q[i] + offset) & 15) | ((int)q[i + 16] + offset) << 4);
}

LANES void store_fives(uint8_t *qh, uint8_t *qs, const float *q, int offset) {
    uint32_t high = 0;
    for (int i = 0; i < 32; i++) high |= (uint32_t)(((int)q[i] + offset) >> 4 & 1) << i;
    memcpy(qh, &high, 4);
    store_nibbles(qs, q, offset);
}

LANES void store_32(sl_type type, uint8_t *block, const float *q) {
    if (type == SL_Q4_0) store_nibbles(block + 2, q, 8);
    else if (type == SL_Q4_1) store_nibbles(block + 4, q, 0);
    else if (type == SL_Q5_0) store_fives(block + 2, block + 6, q, 16);
    else if (type == SL_Q5_1) store_fives(block + 4, block + 8, q, 0);
    else store_codes(type, block, q, 32);
}

static int nearest_int(float x, int low, int high) {
    if (!(x > (float)low)) return low;
    if (!(x < (float)high)) return high;
    return (int)lrintf(x);
}

/* ---------------------------------------------------------------- 32 elements, one f16 scale */

/* Where the element of largest size is made to stand: at either end of the codes, or a little beyond or within. */
static const float targets_4[] = {-8, -8.7f, 7.4f};
static const float targets_4w[] = {-8, -7.1f, -7.4f, -7.7f, -8.3f, -8.6f, -8.9f, -9.3f, -6.7f, 7, 6.6f, 7.3f, 7.6f, 7.9f,
                                   8.3f, -9.8f, 8.8f, 6.2f, -6.2f};
static const float targets_5[] = {-16, -15.5f, 15.3f};
static const float targets_5w[] = {-16, -15.1f, -15.4f, -15.7f, -16.3f, -16.6f, -16.9f, -17.4f, 15, 14.6f, 15.3f, 15.6f,
                                   15.9f, 16.4f, 14.2f, -14.6f, -18};
static const float targets_iq4[] = {-127, 113, -122, 118, -132, 108, -117, 123};
static const float targets_iq4w[] = {-127, 113, -121, -124, -130, -134, -138, -117, 110, 116, 119, 123, 107, 128, 103, -113};

/* The f16 scale near d whose error is least; codes into q. */
LANES float settle(grid g, const float *x, const float *w, float d, uint16_t *bits, float *q) {
    float stored = half_of(d, bits), error = scale_error(g, 4, x, w, stored, q), other[32];
    v8 xq = v_set(0), qq = v_set(0);
    for (int k = 0; k < 4; k++) { /* once more least squares, now for the codes that the stored scale gives */
        v8 code = v_load(q + 8 * k), a = w ? weight_of(w, k) * code : code;
        xq += a * v_load(x + 8 * k);
        qq += a * code;
    }
    uint16_t next;
    float square = v_sum(qq), again = half_of(square > 0 ? v_sum(xq) / square : 0, &next);
    if (next == *bits || again == 0) return stored;
    if (scale_error(g, 4, x, w, again, other) >= error) return stored;
    memcpy(q, other, sizeof other);
    *bits = next;
    return again;
}

LANES void one_scale(sl_type type, grid g, const float *x, const float *w, const float *targets, int n, uint8_t *out) {
    float q[32];
    uint16_t bits;
    settle(g, x, w, best_scale(g, 4, x, w, targets, n), &bits, q);
    store_half(out, bits);
    store_32(type, out, q);
}

#define TARGETS(plain, weighted) w ? (weighted) : (plain), w ? (int)(sizeof(weighted) / 4) : (int)(sizeof(plain) / 4)
/* Both forms compiled by themselves, so that the unweighted one multiplies by no weights. */
#define EITHER(call_plain, call_weighted) if (w) call_weighted; else call_plain

static void block_q4_0(const float *x, const float *w, uint8_t *out) {
    const grid g = {LEVELS_INTEGERS, -8, 7};
    EITHER(one_scale(SL_Q4_0, g, x, NULL, targets_4, 3, out),
           one_scale(SL_Q4_0, g, x, w, targets_4w, sizeof targets_4w / 4, out));
}

static void block_q5_0(const float *x, const float *w, uint8_t *out) {
    const grid g = {LEVELS_INTEGERS, -16, 15};
    EITHER(one_scale(SL_Q5_0, g, x, NULL, targets_5, 3, out),
           one_scale(SL_Q5_0, g, x, w, targets_5w, sizeof targets_5w / 4, out));
}

static void block_iq4_nl(const float *x, const float *w, uint8_t *out) {
    one_scale(SL_IQ4_NL, (grid){LEVELS_IQ4, -127, 113}, x, w, TARGETS(targets_iq4, targets_iq4w), out);
}

/* So many levels that only the rounding of the scale is worth a look: its neighbours in f16. */
static void block_q8_0(const float *x, const float *w, uint8_t *out) {
    const grid g = {LEVELS_INTEGERS, -127, 127};
    float peak = extreme(4, x), q[3][32];
    uint16_t bits;
    half_of((peak < 0 ? -peak : peak) / 127, &bits);
    int best = 0;
    float least = 0;
    for (int k = 0; k < 3; k++) {
        int b = bits + (k == 2 ? -1 : k);
        if (b < 0 || b > 0x7bff) continue;
        float e = scale_error(g, 4, x, w, sl_f16_to_f32((uint16_t)b), q[k]);
        if (k && !(e < least)) continue;
        least = e;
        best = k;
    }
    store_half(out, (uint16_t)(bits + (best == 2 ? -1 : best)));
    int8_t codes[32];
    for (int i = 0; i < 32; i++) codes[i] = (int8_t)q[best][i];
    memcpy(out + 2, codes, 32);
}

/* ---------------------------------------------------------------- 32 elements, f16 scale and minimum */

static const float stretch[] = {-0.2f, -0.7f};
static const float stretch_w[] = {0, -0.2f, -0.4f, -0.6f, -0.8f, -1, -1.3f, -1.6f, 0.2f, 0.4f, 0.6f, 0.8f, 1, 1.3f};

/* Rounds scale and minimum to f16, each given the other, as long as that helps. */
LANES void settle_affine(float top, const float *x, const float *w, int turns, affine a, uint16_t bits[2], float *q) {
    float least = -1, other[32];
    for (int turn = 0; turn < turns; turn++) {
        uint16_t b[2];
        affine r;
        r.d = half_of(a.d, &b[0]);
        r.m = half_of(a.m, &b[1]);
        float e = affine_error(top, 4, x, w, r, other);
        if (turn && !(e < least)) break;
        least = e;
        memcpy(bits, b, sizeof b);
        memcpy(q, other, sizeof other);
        if (r.d == 0 || turn + 1 == turns) break;
        affine_sums s = affine_sums_of(top, 4, x, w, 1 / r.d, r.m);
        if (!(s.w > 0)) break;
        if (turn == 0) affine_solve(s, false, &a);
        a.m = (s.x - half_of(a.d, &b[0]) * s.q) / s.w;
        if (!(a.d > 0)) break;
    }
}

LANES void scale_and_minimum(sl_type type, float top, const float *x, const float *w, uint8_t *out) {
    float q[32];
    uint16_t bits[2];
    affine wish = w ? best_affine(top, 4, x, w, false, stretch_w, sizeof stretch_w / 4, 2) : best_affine(top, 4, x, w, false, stretch, 2, 0);
    settle_affine(top, x, w, w ? 3 : 1, wish, bits, q);
    store_half(out, bits[0]);
    store_half(out + 2, bits[1]);
    store_32(type, out, q);
}

static void block_q4_1(const float *x, const float *w, uint8_t *out) {
    EITHER(scale_and_minimum(SL_Q4_1, 15, x, NULL, out), scale_and_minimum(SL_Q4_1, 15, x, w, out));
}

static void block_q5_1(const float *x, const float *w, uint8_t *out) {
    EITHER(scale_and_minimum(SL_Q5_1, 31, x, NULL, out), scale_and_minimum(SL_Q5_1, 31, x, w, out));
}

/* ---------------------------------------------------------------- 256 elements: integer scales and minimums */

/* What a super-block of scales and minimums has come to. */
typedef struct pair_state {
    float d, m;            /* stored: value = d * scale * code - m * min */
    uint16_t bits[2];
    int scale[16], min[16];
    float q[256], error;
} pair_state;

typedef struct pair_form {
    sl_type type;
    float top;             /* of the codes */
    int n8, groups, most;  /* vectors a group, groups, largest scale and minimum */
} pair_form;

/* The integer scale and minimum of a group whose values come nearest: those beside the rounded ones are tried too. */
LANES float settle_pair(pair_form f, const float *x, const float *w, affine wish, pair_state *s, int g) {
    int sc = nearest_int(s->d > 0 ? wish.d / s->d : 0, 0, f.most), mn = nearest_int(s->m > 0 ? -wish.m / s->m : 0, 0, f.most);
    float least = -1;
    for (int a = sc - 1; a <= sc + 1; a++) {
        for (int b = mn - 1; b <= mn + 1; b++) {
            if (a < 0 || b < 0 || a > f.most || b > f.most) continue;
            affine t = {s->d * (float)a, -(s->m * (float)b)};
            float e = affine_error(f.top, f.n8, x, w, t, NULL);
            if (least >= 0 && !(e < least)) continue;
            least = e;
            s->scale[g] = a;
            s->min[g] = b;
        }
    }
    affine t = {s->d * (float)s->scale[g], -(s->m * (float)s->min[g])};
    return affine_error(f.top, f.n8, x, w, t, s->q + 8 * f.n8 * g);
}

LANES void settle_pairs(pair_form f, const float *x, const float *w, const affine *wishes, float d, float m, pair_state *s) {
    s->d = half_of(d, &s->bits[0]);
    s->m = half_of(m, &s->bits[1]);
    s->error = 0;
    for (int g = 0; g < f.groups; g++)
        s->error += settle_pair(f, x + 8 * f.n8 * g, w ? w + 8 * f.n8 * g : NULL, wishes[g], s, g);
}

/* Least squares for the two floats, all integers given. False: no solution that could be stored. */
LANES bool refit_pairs(pair_form f, const float *x, const float *w, const pair_state *s, float *d, float *m) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int g = 0; g < f.groups; g++) {
        v8 sw = v_set(0), sx = sw, sq = sw, qq = sw, xq = sw;
        for (int k = 0; k < f.n8; k++) {
            int at = 8 * (f.n8 * g + k);
            v8 v = v_load(x + at), q = v_load(s->q + at), u = w ? v_load(w + at) : v_set(1);
            sw += u;
            sx += u * v;
            sq += u * q;
            qq += u * q * q;
            xq += u * v * q;
        }
        float sc = (float)s->scale[g], mn = (float)s->min[g];
        aa += sc * sc * v_sum(qq);
        ab -= sc * mn * v_sum(sq);
        bb += mn * mn * v_sum(sw);
        xa += sc * v_sum(xq);
        xb -= mn * v_sum(sx);
    }
    float det = aa * bb - ab * ab;
    if (bb == 0 && aa > 0) {
        *d = xa / aa;
        *m = s->m;
        return true;
    }
    if (!(det > 1e-6f * aa * bb)) return false;
    *d = (bb * xa - ab * xb) / det;
    *m = (aa * xb - ab * xa) / det;
    return *d > 0 && *m >= 0;
}

static const float k_stretch[] = {0, -0.2f, -0.4f, -0.6f, -0.8f, -1, 0.2f, 0.4f, 0.6f, 0.8f, -1.3f, 1.1f};
static const float k_stretch_2[] = {0, -0.1f, -0.2f, -0.3f, -0.4f, -0.5f, -0.6f, -0.75f, -0.9f, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f};

LANES void choose_pairs(pair_form f, const float *x, const float *w, pair_state *best) {
    affine wishes[16];
    float d = 0, m = 0;
    for (int g = 0; g < f.groups; g++) {
        const float *at = x + 8 * f.n8 * g, *u = w ? w + 8 * f.n8 * g : NULL;
        wishes[g] = f.top > 3 ? best_affine(f.top, f.n8, at, u, true, k_stretch, sizeof k_stretch / 4, 2)
                              : best_affine(f.top, f.n8, at, u, true, k_stretch_2, sizeof k_stretch_2 / 4, 2);
        d = wishes[g].d > d ? wishes[g].d : d;
        m = -wishes[g].m > m ? -wishes[g].m : m;
    }
    settle_pairs(f, x, w, wishes, d / (float)f.most, m / (float)f.most, best);
    for (int turn = 0; turn < 3; turn++) {
        pair_state next;
        if (!refit_pairs(f, x, w, best, &d, &m)) break;
        settle_pairs(f, x, w, wishes, d, m, &next);
        if (!(next.error < best->error)) break;
        *best = next;
    }
}

/* Six-bit scales and minimums of Q4_K and Q5_K in twelve bytes: sl_k_scales reads them. */
static void store_k_scales(uint8_t out[12], const int *scale, const int *min) {
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(scale[i] | (scale[i + 4] >> 4) << 6);
        out[i + 4] = (uint8_t)(min[i] | (min[i + 4] >> 4) << 6);
        out[i + 8] = (uint8_t)((scale[i + 4] & 15) | (min[i + 4] & 15) << 4);
    }
}

LANES void block_k(pair_form f, const float *x, const float *w, uint8_t *out) {
    pair_state s;
    choose_pairs(f, x, w, &s);
    store_half(out, s.bits[0]);
    store_half(out + 2, s.bits[1]);
    store_k_scales(out + 4, s.scale, s.min);
    store_codes(f.type, out, s.q, 256);
}

static void block_q4_k(const float *x, const float *w, uint8_t *out) {
    block_k((pair_form){SL_Q4_K, 15, 4, 8, 63}, x, w, out);
}

static void block_q5_k(const float *x, const float *w, uint8_t *out) {
    block_k((pair_form){SL_Q5_K, 31, 4, 8, 63}, x, w, out);
}

static void block_q2_k(const float *x, const float *w, uint8_t *out) {
    pair_state s;
    choose_pairs((pair_form){SL_Q2_K, 3, 2, 16, 15}, x, w, &s);
    for (int g = 0; g < 16; g++) out[g] = (uint8_t)(s.scale[g] | s.min[g] << 4);
    store_half(out + 80, s.bits[0]);
    store_half(out + 82, s.bits[1]);
    store_codes(SL_Q2_K, out, s.q, 256);
}

/* ---------------------------------------------------------------- 256 elements: integer scales */

typedef struct scales_state {
    float d;
    uint16_t bits;
    int scale[16];
    float q[256], error;
} scales_state;

typedef struct scales_form {
    sl_type type;
    grid grid;
    int n8, groups, low, high; /* vectors a group, groups, smallest and largest scale */
} scales_form;

LANES void settle_scales(scales_form f, const float *x, const float *w, const float *wishes, float d, scales_state *s) {
    s->d = half_of(d, &s->bits);
    s->error = 0;
    for (int g = 0; g < f.groups; g++) {
        const float *at = x + 8 * f.n8 * g, *u = w ? w + 8 * f.n8 * g : NULL;
        int middle = nearest_int(s->d != 0 ? wishes[g] / s->d : 0, f.low, f.high);
        float least = -1;
        for (int a = middle - 1; a <= middle + 1; a++) {
            if (a < f.low || a > f.high) continue;
            float e = scale_error(f.grid, f.n8, at, u, s->d * (float)a, NULL);
            if (least >= 0 && !(e < least)) continue;
            least = e;
            s->scale[g] = a;
        }
        s->error += scale_error(f.grid, f.n8, at, u, s->d * (float)s->scale[g], s->q + 8 * f.n8 * g);
    }
}

LANES float refit_scales(scales_form f, const float *x, const float *w, const scales_state *s) {
    float xq = 0, qq = 0;
    for (int g = 0; g < f.groups; g++) {
        v8 a = v_set(0), b = a;
        for (int k = 0; k < f.n8; k++) {
            int at = 8 * (f.n8 * g + k);
            v8 q = v_load(s->q + at), u = w ? v_load(w + at) * q : q;
            a += u * v_load(x + at);
            b += u * q;
        }
        xq += (float)s->scale[g] * v_sum(a);
        qq += (float)s->scale[g] * (float)s->scale[g] * v_sum(b);
    }
    return qq > 0 ? xq / qq : 0;
}

LANES void choose_scales(scales_form f, const float *x, const float *w, const float *targets, int n, scales_state *best) {
    float wishes[16], peak = 0;
    for (int g = 0; g < f.groups; g++) {
        wishes[g] = best_scale(f.grid, f.n8, x + 8 * f.n8 * g, w ? w + 8 * f.n8 * g : NULL, targets, n);
        if (fabsf(wishes[g]) > fabsf(peak)) peak = wishes[g];
    }
    settle_scales(f, x, w, wishes, peak / (float)f.low, best); /* the largest scale at the longer end ... */
    static const float stretches[] = {-1, 0.94f, -0.94f};      /* ... or at the other, or cut off a little */
    for (int i = 0; i < (w ? 3 : 1); i++) {
        scales_state other;
        settle_scales(f, x, w, wishes, stretches[i] * peak / (float)f.low, &other);
        if (other.error < best->error) *best = other;
    }
    for (int turn = 0; turn < 3; turn++) {
        scales_state next;
        float d = refit_scales(f, x, w, best);
        if (d == 0) break;
        settle_scales(f, x, w, wishes, d, &next);
        if (!(next.error < best->error)) break;
        *best = next;
    }
}

static const float targets_3[] = {-4, -3.5f, -3.7f, -4.3f, -4.6f, 3, 3.3f, 3.5f, -3.2f, 2.8f, 3.8f};
static const float targets_3w[] = {-4, -3.5f, -3.65f, -3.8f, -4.2f, -4.4f, -4.6f, -4.8f, -3.3f, -3.1f, 3, 3.2f, 3.4f, 3.6f,
                                   2.8f, 2.6f, 3.8f, 4.0f, -5.2f};
static const float targets_6[] = {-32, -31.4f, -31.7f, -32.4f, 31, 31.4f, -30.6f};
static const float targets_6w[] = {-32, -31.2f, -31.5f, -31.7f, -32.3f, -32.6f, -33, 31, 30.6f, 31.3f, 31.6f, 32, -30.5f};

static void block_q3_k(const float *x, const float *w, uint8_t *out) {
    scales_state s;
    choose_scales((scales_form){SL_Q3_K, {LEVELS_INTEGERS, -4, 3}, 2, 16, -32, 31}, x, w, TARGETS(targets_3, targets_3w), &s);
    memset(out + 96, 0, 12);
    for (int g = 0; g < 16; g++) { /* sl_q3_k_scales reads them */
        int raised = s.scale[g] + 32;
        out[96 + g % 8] = (uint8_t)(out[96 + g % 8] | (raised & 15) << (g < 8 ? 0 : 4));
        out[104 + g % 4] = (uint8_t)(out[104 + g % 4] | (raised >> 4) << (2 * (g / 4)));
    }
    store_half(out + 108, s.bits);
    store_codes(SL_Q3_K, out, s.q, 256);
}

static void block_q6_k(const float *x, const float *w, uint8_t *out) {
    scales_state s;
    choose_scales((scales_form){SL_Q6_K, {LEVELS_INTEGERS, -32, 31}, 2, 16, -128, 127}, x, w, TARGETS(targets_6, targets_6w),
                  &s);
    for (int g = 0; g < 16; g++) out[192 + g] = (uint8_t)s.scale[g];
    store_half(out + 208, s.bits);
    store_codes(SL_Q6_K, out, s.q, 256);
}

static void block_iq4_xs(const float *x, const float *w, uint8_t *out) {
    scales_state s;
    unsigned high = 0;
    choose_scales((scales_form){SL_IQ4_XS, {LEVELS_IQ4, -127, 113}, 4, 8, -32, 31}, x, w, TARGETS(targets_iq4, targets_iq4w),
                  &s);
    memset(out + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        unsigned raised = (unsigned)(s.scale[g] + 32);
        out[4 + g / 2] = (uint8_t)(out[4 + g / 2] | (raised & 15) << (g % 2 * 4));
        high |= raised >> 4 << (2 * g);
    }
    store_half(out, s.bits);
    store_half(out + 2, (uint16_t)high);
    store_codes(SL_IQ4_XS, out, s.q, 256);
}

/* ---------------------------------------------------------------- code books with other scales */

/* The power of two by the Open Compute Project's rule, or the one above or below it. */
LANES void mxfp4(const float *x, const float *w, uint8_t *out) {
    const grid g = {LEVELS_FP4, -12, 12};
    float peak = fabsf(extreme(4, x)), least = -1, q[32], best[32] = {0};
    int exponent = 0, chosen = 0;
    if (peak > 0) {
        frexpf(peak, &exponent); /* peak in [2^(exponent - 1), 2^exponent); the largest value is 6 = 1.5 * 2^2 */
        exponent += 124;
        for (int e = exponent - 1; e <= exponent + 1; e++) {
            if (e < 0 || e > 254) continue;
            float error = scale_error(g, 4, x, w, sl_e8m0_half((uint8_t)e), q);
            if (least >= 0 && !(error < least)) continue;
            least = error;
            chosen = e;
            memcpy(best, q, sizeof best);
        }
    }
    out[0] = (uint8_t)chosen;
    store_codes(SL_MXFP4, out, best, 32);
}

static void block_mxfp4(const float *x, const float *w, uint8_t *out) { EITHER(mxfp4(x, NULL, out), mxfp4(x, w, out)); }

/* bitsandbytes' rule: the largest value, and the nearest of the book; `exact` arithmetic reads the book's own floats. */
static void block_nf4(const float *x, const float *w, uint8_t *out) {
    float peak = 0;
    (void)w;
    for (int i = 0; i < 64; i++) peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
    float inverse = peak > 0 && 1 / peak < 3e38f ? 1 / peak : 0;
    memcpy(out, &peak, 4);
    uint8_t index[64];
    for (int i = 0; i < 64; i++) {
        float y = x[i] * inverse;
        int at = 0;
        for (int k = 0; k < 15; k++) at += y > (sl_nf4_values[k] + sl_nf4_values[k + 1]) * 0.5f;
        index[i] = (uint8_t)at;
    }
    for (int i = 0; i < 32; i++) out[4 + i] = (uint8_t)(index[2 * i] << 4 | index[2 * i + 1]);
}

static void block_fp4(const float *x, const float *w, uint8_t *out) {
    float peak;
    (void)w;
    sl_bnb4_quantise(SL_BNB_FP4, x, 64, 64, out + 4, &peak);
    memcpy(out, &peak, 4);
}

/* ---------------------------------------------------------------- the table */

/* How much an element's error counts: its column's importance, and more where the element itself is large, since
 * importance is an average over many inputs. */
static void weights_of(const float *x, const float *importance, float mean_square, int n, float *w) {
    double total = 0;
    for (int i = 0; i < n; i++) {
        w[i] = importance[i] * sqrtf(mean_square + x[i] * x[i]);
        total += (double)w[i];
    }
    /* around 1, so that no sum of them under- or overflows; columns that were never reached all count alike */
    bool fits = total > 0 && total < 1e300;
    double factor = fits ? (double)n / total : 0;
    for (int i = 0; i < n; i++) w[i] = fits ? (float)((double)w[i] * factor) : 1;
}

const sl_quantise_table SL_QUANTISE_TABLE = {
    weights_of,
    {[SL_Q4_0] = block_q4_0, [SL_Q4_1] = block_q4_1, [SL_Q5_0] = block_q5_0, [SL_Q5_1] = block_q5_1,
     [SL_Q8_0] = block_q8_0, [SL_Q2_K] = block_q2_k, [SL_Q3_K] = block_q3_k, [SL_Q4_K] = block_q4_k,
     [SL_Q5_K] = block_q5_k, [SL_Q6_K] = block_q6_k, [SL_IQ4_NL] = block_iq4_nl, [SL_IQ4_XS] = block_iq4_xs,
     [SL_MXFP4] = block_mxfp4, [SL_NF4] = block_nf4,
     [SL_FP4] = block_fp4},
};
