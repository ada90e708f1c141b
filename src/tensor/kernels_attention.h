/* Attention for the vector tables, a page at a time, over the vector names of simd_*.h: scores of a few queries with
 * LANES keys a vector, their exponentials, and the weighted sum of values with LANES dimensions a vector. Order of
 * summation: kernels_table.h. Needs kernels_rows.h. */
#ifndef SL_TENSOR_KERNELS_ATTENTION_H
#define SL_TENSOR_KERNELS_ATTENTION_H

#include "tensor/kernels_table.h"

#include <math.h>
#include <string.h>

enum {
    PAGE_VECTORS = SL_PAGE / LANES,
    QUERIES = 6,                         /* rows whose sums stay in registers together */
    BRIEF = 4,                             /* rows that use a tile so briefly that the next is asked for */
    WIDTH_STEP = 16 / LANES              /* vectors that divide every sl_kv_width */
};

/* Vectors beside so many rows: together with the operands they fill the registers, 16 where LANES is 8, else 32. */
#define VECTORS_BESIDE(rows) \
    (LANES == 8 ? ((rows) == 1 ? 8 : (rows) <= 3 ? 4 : 2) : LANES == 16 ? 4 : (rows) <= 3 ? 8 : 4)

/* LANES neighbouring numbers of a tile of f32 or f16. */
VINLINE vfloat tile_vector(sl_kv_type type, const void *at, size_t i) {
    return type == SL_KV_F16 ? vf_from_f16((const uint16_t *)at + i) : vf_load((const float *)at + i);
}

/* Few rows use a tile once and soon want the next, which the processor does not foresee beyond a few kilobytes: it is
 * asked for on the way, evenly, so that memory is never idle and never flooded. */
VINLINE void ask_for(const char *ahead, size_t bytes) {
    for (size_t i = 0; ahead && i < bytes; i += 64) __builtin_prefetch(ahead + i);
}

/* ---------------------------------------------------------------- quantised tiles, widened */

/* LANES codes of a quantised tile from the i-th byte on. */
VINLINE vfloat tile_codes(sl_kv_type type, const uint8_t *codes, int i, bool high) {
    if (type == SL_KV_Q8_0) return vi_to_vf(vi_from_i8(codes + i));
    return vf_sub(vi_to_vf(vi_from_nibbles(codes + i, high)), vf_set1(8.0f));
}

VINLINE void widen_key_rows(sl_kv_type type, const uint8_t *from, int head_dim, float *out) {
    const uint8_t *codes = from + sl_kv_scale_bytes(type, head_dim);
    for (int g = 0; g < head_dim / SL_KV_GROUP; g++)
        for (int j = 0; j < SL_PAGE; j += LANES) {
            vfloat scale = vf_from_f16(from + 2 * (g * SL_PAGE + j));
#pragma GCC unroll 8
            for (int d = g * SL_KV_GROUP; d < (g + 1) * SL_KV_GROUP; d++) {
                vfloat code = tile_codes(type, codes, (type == SL_KV_Q8_0 ? d : d / 2) * SL_PAGE + j, d % 2);
                vf_store(out + d * SL_PAGE + j, vf_mul(scale, code));
            }
        }
}

VINLINE void widen_value_rows(sl_kv_type type, const uint8_t *from, int head_dim, int lo, int hi, float *out) {
    const uint8_t *codes = from + sl_kv_scale_bytes(type, head_dim);
    int groups = head_dim / SL_KV_GROUP, half = SL_KV_GROUP / 2;
    float scales[LANES]; /* of the next LANES groups; as many can be read: the codes follow */
    for (int g = lo * groups; g < hi * groups; g++) {
        int ahead = (g - lo * groups) % LANES;
        if (ahead == 0) vf_store(scales, vf_from_f16(from + 2 * g));
        vfloat scale = vf_set1(scales[ahead]);
#pragma GCC unroll 8
        for (int i = 0; i < SL_KV_GROUP; i += LANES) {
            int byte = type == SL_KV_Q8_0 ? g * SL_KV_GROUP + i : g * half + i % half;
            vfloat code = tile_codes(type, codes, byte, i >= half);
            vf_store(out + g * SL_KV_GROUP + i, vf_mul(scale, code));
        }
    }
}

/* out: [head_dim][SL_PAGE] */
static void widen_keys(sl_kv_type type, const uint8_t *from, int head_dim, float *out) {
    if (type == SL_KV_Q8_0) widen_key_rows(SL_KV_Q8_0, from, head_dim, out);
    else widen_key_rows(SL_KV_Q4_0, from, head_dim, out);
}

/* Positions [lo, hi); out: [SL_PAGE][head_dim] */
static void widen_values(sl_kv_type type, const uint8_t *from, int head_dim, int lo, int hi, float *out) {
    if (type == SL_KV_Q8_0) widen_value_rows(SL_KV_Q8_0, from, head_dim, lo, hi, out);
    else widen_value_rows(SL_KV_Q4_0, from, head_dim, lo, hi, out);
}

/* ---------------------------------------------------------------- scores */


/* p[row][key] = q . k for `vectors` vectors of keys from `first` on; rows and vectors are constants. What `ahead` names
 * is asked for on the way, `step` bytes a dimension: NULL for none. */
VINLINE void score_keys(sl_kv_type type, const void *keys, int head_dim, const sl_attend_row *row, int rows, int first,
                        int vectors, const char *ahead, size_t step, float p[][SL_PAGE]) {
    vfloat sums[QUERIES][8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sums[r][v] = vf_zero();
    for (int d = 0; d < head_dim; d++) {
        vfloat k[8];
        ask_for(ahead ? ahead + (size_t)d * step : NULL, step);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) k[v] = tile_vector(type, keys, (size_t)(d * SL_PAGE + first + v * LANES));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vfloat q = vf_set1(row[r].q[d]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sums[r][v] = vf_fma(q, k[v], sums[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) vf_store(p[r] + first + v * LANES, sums[r][v]);
}

/* ---------------------------------------------------------------- softmax */

VINLINE int first_seen(uint64_t visible) { return __builtin_ctzll(visible); }
VINLINE int end_seen(uint64_t visible) { return SL_PAGE - __builtin_clzll(visible); }

/* The largest lane; NaN loses against a number. */
VINLINE float largest(vfloat v) {
    float lane[LANES];
    vf_store(lane, v);
    for (int step = LANES / 2; step; step /= 2)
        for (int l = 0; l < step; l++) lane[l] = lane[l + step] > lane[l] ? lane[l + step] : lane[l];
    return lane[0];
}

/* p [lo, hi) of one row from its scores, whole vectors, and the row's largest score. Returns old - new largest: what
 * becomes the factor. Bounds of a page that is wholly visible are constants, so that it stays in registers. */
VINLINE float weigh_between(const sl_attend_task *task, const sl_attend_row *row, int lo, int hi, float *p,
                            float *sum) {
    float old = row->state[SL_STATE_MAX];
    vfloat s[PAGE_VECTORS], scale = vf_set1(task->scale), cap = vf_set1(task->softcap);
    vfloat tops = vf_set1(old);
    vsum sums = vs_zero();
    bool whole = row->visible == ~(uint64_t)0;
#pragma GCC unroll 16
    for (int i = 0; i < hi - lo; i++) s[i] = vf_mul(scale, vf_load(p + (lo + i) * LANES));
    if (task->softcap > 0)
        for (int i = 0; i < hi - lo; i++) s[i] = vf_mul(cap, v_tanh(vf_div(s[i], cap)));
    if (!whole) {
        for (int i = 0; i < hi - lo; i++) vf_store(p + (lo + i) * LANES, s[i]);
        for (uint64_t hidden = ~row->visible; hidden; hidden &= hidden - 1) p[__builtin_ctzll(hidden)] = -INFINITY;
        for (int i = 0; i < hi - lo; i++) s[i] = vf_load(p + (lo + i) * LANES);
    }
#pragma GCC unroll 16
    for (int i = 0; i < hi - lo; i++) tops = vf_max(s[i], tops);
    float top = largest(tops);
#pragma GCC unroll 16
    for (int i = 0; i < hi - lo; i++) {
        s[i] = v_exp(vf_sub(s[i], vf_set1(top)));
        vf_store(p + (lo + i) * LANES, s[i]);
        sums = vs_add(sums, s[i]);
    }
    *sum = vs_total(sums);
    row->state[SL_STATE_MAX] = top;
    return old - top;
}

static float weigh(const sl_attend_task *task, const sl_attend_row *row, float *p, float *sum) {
    if (row->visible == ~(uint64_t)0) return weigh_between(task, row, 0, PAGE_VECTORS, p, sum);
    int lo = first_seen(row->visible) / LANES, hi = (end_seen(row->visible) + LANES - 1) / LANES;
    return weigh_between(task, row, lo, hi, p, sum);
}

/* All rows of a block: their p, and the states scaled to the new largest scores. */
static void weigh_block(const sl_attend_task *task, const sl_attend_row *row, int rows, float p[][SL_PAGE]) {
    float factors[8] = {0}, sums[QUERIES];
    for (int r = 0; r < rows; r++) factors[r] = weigh(task, &row[r], p[r], &sums[r]);
    for (int i = 0; i < 8; i += LANES) {
        float lanes[LANES] = {0};
        memcpy(lanes, factors + i, sizeof(float) * (LANES < 8 ? LANES : 8));
        vf_store(lanes, v_exp(vf_load(lanes)));
        memcpy(factors + i, lanes, sizeof(float) * (LANES < 8 ? LANES : 8));
    }
    for (int r = 0; r < rows; r++) {
        float *state = row[r].state;
        vfloat factor = vf_set1(factors[r]);
        state[SL_STATE_SUM] = state[SL_STATE_SUM] * factors[r] + sums[r];
        if (factors[r] == 1) continue;
        for (int i = SL_STATE_MIX; i < SL_STATE_MIX + sl_kv_width(task->head_dim); i += LANES)
            vf_store(state + i, vf_mul(vf_load(state + i), factor));
    }
}

/* ---------------------------------------------------------------- the mix of values */

/* state += sum of p v over positions [lo, hi), `vectors` vectors of dimensions from `first` on. */
VINLINE void mix_dimensions(sl_kv_type type, const void *values, int width, const sl_attend_row *row, int rows,
                            int first, int vectors, int lo, int hi, const char *ahead, size_t step,
                            float p[][SL_PAGE]) {
    vfloat sums[QUERIES][8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sums[r][v] = vf_load(row[r].state + SL_STATE_MIX + first + v * LANES);
    for (int j = lo; j < hi; j++) {
        vfloat x[8];
        ask_for(ahead ? ahead + (size_t)j * step : NULL, step);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) x[v] = tile_vector(type, values, (size_t)(j * width + first + v * LANES));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vfloat weight = vf_set1(p[r][j]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sums[r][v] = vf_fma(weight, x[v], sums[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) vf_store(row[r].state + SL_STATE_MIX + first + v * LANES, sums[r][v]);
}

VINLINE void mix_rows(sl_kv_type type, const void *values, int width, const sl_attend_row *row, int rows, int lo,
                      int hi, const char *ahead, size_t bytes, float p[][SL_PAGE]) {
    int first = 0, step = VECTORS_BESIDE(rows) * LANES;
    for (; first + step <= width; first += step) {
        mix_dimensions(type, values, width, row, rows, first, VECTORS_BESIDE(rows), lo, hi, ahead, bytes, p);
        if (ahead) ahead += bytes * SL_PAGE;
    }
    for (; first < width; first += WIDTH_STEP * LANES)
        mix_dimensions(type, values, width, row, rows, first, WIDTH_STEP, lo, hi, NULL, 0, p);
}

/* ---------------------------------------------------------------- a block of rows */

/* Each row's positions in order: those before the first that all see, those that all see, those behind. */
VINLINE void attend_rows(sl_kv_type type, const sl_attend_task *task, const void *keys, const void *values,
                         const sl_attend_row *row, int rows) {
    _Alignas(64) float p[QUERIES][SL_PAGE];
    int width = sl_kv_width(task->head_dim), span = VECTORS_BESIDE(rows) * LANES;
    int lo = 0, hi = SL_PAGE, lowest = SL_PAGE, highest = 0;
    for (int r = 0; r < rows; r++) {
        int first = first_seen(row[r].visible), end = end_seen(row[r].visible);
        lo = first > lo ? first : lo;
        hi = end < hi ? end : hi;
        lowest = first < lowest ? first : lowest;
        highest = end > highest ? end : highest;
    }
    bool in_place = rows <= BRIEF && values == task->values;
    const char *ahead = in_place ? values : NULL;
    size_t step = (type == SL_KV_F16 ? 2 : 4) * (size_t)span; /* bytes of a tile over the iterations of all passes */
    for (int first = lowest / span * span; first < highest; first += span) {
        score_keys(type, keys, task->head_dim, row, rows, first, VECTORS_BESIDE(rows), ahead, step, p);
        if (ahead) ahead += step * (size_t)task->head_dim;
    }
    ahead = in_place ? task->next : NULL;
    weigh_block(task, row, rows, p);
    if (lo > hi) lo = hi = lowest; /* no position that all see */
    for (int r = 0; rows > 1 && lo < hi && r < rows; r++)
        if (first_seen(row[r].visible) < lo)
            mix_rows(type, values, width, &row[r], 1, first_seen(row[r].visible), lo, NULL, 0, p + r);
    if (lo < hi)
        mix_rows(type, values, width, row, rows, lo, hi, ahead, step, p);
    for (int r = 0; rows > 1 && r < rows; r++) {
        int from = lo < hi ? hi : first_seen(row[r].visible);
        if (end_seen(row[r].visible) > from)
            mix_rows(type, values, width, &row[r], 1, from, end_seen(row[r].visible), NULL, 0, p + r);
    }
}

VINLINE void attend_all(sl_kv_type type, const sl_attend_task *task, const void *keys, const void *values,
                        const sl_attend_row *row, int n) {
    for (; n >= 6; row += 6, n -= 6) attend_rows(type, task, keys, values, row, 6);
    switch (n) {
    case 5: attend_rows(type, task, keys, values, row, 5); break;
    case 4: attend_rows(type, task, keys, values, row, 4); break;
    case 3: attend_rows(type, task, keys, values, row, 3); break;
    case 2: attend_rows(type, task, keys, values, row, 2); break;
    case 1: attend_rows(type, task, keys, values, row, 1); break;
    default: break;
    }
}

static void attend_page(const sl_attend_task *task, const sl_attend_row *rows, int n_rows) {
    if (task->type == SL_KV_F16) {
        attend_all(SL_KV_F16, task, task->keys, task->values, rows, n_rows);
        return;
    }
    if (task->type == SL_KV_F32) {
        attend_all(SL_KV_F32, task, task->keys, task->values, rows, n_rows);
        return;
    }
    uint64_t seen = 0;
    for (int r = 0; r < n_rows; r++) seen |= rows[r].visible;
    float *keys = task->scratch, *values = keys + (size_t)task->head_dim * SL_PAGE;
    if (n_rows <= BRIEF) {
        ask_for(task->values, sl_kv_tile_bytes(task->type, task->head_dim, true));
        ask_for(task->next, sl_kv_tile_bytes(task->type, task->head_dim, false));
    }
    widen_keys(task->type, task->keys, task->head_dim, keys);
    widen_values(task->type, task->values, task->head_dim, first_seen(seen), end_seen(seen), values);
    attend_all(SL_KV_F32, task, keys, values, rows, n_rows);
}

#endif
