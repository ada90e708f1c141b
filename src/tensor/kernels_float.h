/* Products with f32 activations, for the vector tables: weights widened to f32, a tile of rows and tokens held in
 * registers. Order of summation: LANES lanes over the columns of a chunk, a tree, chunks in order (kernels_table.h). */
#ifndef SL_TENSOR_KERNELS_FLOAT_H
#define SL_TENSOR_KERNELS_FLOAT_H

#include "tensor/kernels_table.h"

#include <string.h>

/* n <= SL_FLOAT_CHUNK columns, the first of them at `in`, widened into out and padded with zeros to whole vectors. */
static void widen_columns(sl_type type, const uint8_t *in, int64_t n, float *out) {
    const sl_type_info *info = sl_type_get(type);
    int64_t i = 0;
    if (type == SL_F16)
        for (; i + LANES <= n; i += LANES) vf_store(out + i, vf_from_f16(in + 2 * i));
    else if (type == SL_BF16)
        for (; i + LANES <= n; i += LANES) vf_store(out + i, vf_from_bf16(in + 2 * i));
    if (i < n) info->to_float(in + (size_t)(i / info->block) * info->bytes, out + i, (size_t)(n - i));
    for (i = n; i % LANES; i++) out[i] = 0.0f;
}

VINLINE vfloat load_tail(const float *p, int64_t n) {
    float lanes[LANES] = {0};
    memcpy(lanes, p, (size_t)n * 4);
    return vf_load(lanes);
}

/* LANES weights from column i of a chunk of a row stored as F32, F16 or BF16. */
VINLINE vfloat load_weights(sl_type type, const uint8_t *row, int64_t i) {
    if (type == SL_F16) return vf_from_f16(row + 2 * i);
    if (type == SL_BF16) return vf_from_bf16(row + 2 * i);
    return vf_load((const float *)(const void *)(row + 4 * i));
}

_Static_assert(TILE_ROWS == 4, "vf_sum4");

typedef float tile_sums[TILE_TOKENS][TILE_ROWS];

/* LANES columns from i on; `left` of them are there. Where `ahead` is not 0, 16-bit rows so many bytes further are asked
 * for on the way: the processor does not foresee four short streams (F32 rows are long enough; asking for them too halved
 * their speed). */
VINLINE void add_lanes(sl_type type, const uint8_t *const w[], const float *const x[], int64_t i, int64_t left,
                       int n_tokens, size_t ahead, vfloat sums[TILE_TOKENS][TILE_ROWS]) {
    vfloat xs[TILE_TOKENS];
#pragma GCC unroll 4
    for (int t = 0; t < n_tokens; t++) xs[t] = left >= LANES ? vf_load(x[t] + i) : load_tail(x[t] + i, left);
#pragma GCC unroll 4
    for (int r = 0; r < TILE_ROWS; r++) {
        vfloat ws = load_weights(type, w[r], i);
        if (ahead) prefetch(w[r] + ahead + 2 * i);
#pragma GCC unroll 4
        for (int t = 0; t < n_tokens; t++) sums[t][r] = vf_fma(ws, xs[t], sums[t][r]);
    }
}

/* part[token][row] of a chunk; n_tokens and type are constants. Rows of w are readable up to a whole vector. */
VINLINE void multiply_floats(sl_type type, const uint8_t *const w[], const float *const x[], int64_t n, int n_tokens,
                             size_t ahead, tile_sums part) {
    vfloat sums[TILE_TOKENS][TILE_ROWS];
    int64_t i = 0;
#pragma GCC unroll 4
    for (int t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (int r = 0; r < TILE_ROWS; r++) sums[t][r] = vf_zero();
#pragma GCC unroll 4
    for (; i + LANES <= n; i += LANES) add_lanes(type, w, x, i, LANES, n_tokens, ahead, sums);
    if (i < n) add_lanes(type, w, x, i, n - i, n_tokens, ahead, sums);
#pragma GCC unroll 4
    for (int t = 0; t < n_tokens; t++) vf_sum4(sums[t], part[t]);
}

/* multiply_TYPE: n_tokens is 1 or TILE_TOKENS; ahead as add_lanes takes it, for one token of a 16-bit type. */
#define DEFINE_FLOATS(TYPE) \
    static void multiply_##TYPE(const uint8_t *const w[], const float *const x[], int64_t n, int n_tokens, size_t ahead, \
                                tile_sums part) { \
        if (n_tokens == TILE_TOKENS) multiply_floats(SL_##TYPE, w, x, n, TILE_TOKENS, 0, part); \
        else multiply_floats(SL_##TYPE, w, x, n, 1, SL_##TYPE == SL_F32 ? 0 : ahead, part); \
    }
DEFINE_FLOATS(F32)
DEFINE_FLOATS(F16)
DEFINE_FLOATS(BF16)

/* Part `pass` of `passes` of the `bytes` that each of the next tile's rows has in this chunk. The processor does not
 * foresee four streams as short, and a prompt would wait for each. */
static void ask_ahead(const uint8_t *next, size_t row_bytes, size_t bytes, int64_t pass, int64_t passes) {
    size_t lines = bytes / 64, from = lines * (size_t)pass / (size_t)passes;
    size_t to = lines * (size_t)(pass + 1) / (size_t)passes;
    for (int i = 0; i < TILE_ROWS; i++)
        for (size_t k = from; k < to; k++) prefetch(next + (size_t)i * row_bytes + 64 * k);
}

static void add_part(float *y, const float part[TILE_ROWS], int rows, bool first) {
    for (int i = 0; i < rows; i++) y[i] = first ? part[i] : y[i] + part[i];
}

/* Rows [r, r + rows), rows <= TILE_ROWS, columns [column, column + n) of one chunk; whether TILE_ROWS more rows follow.
 * Float weights are multiplied where they lie (16-bit ones converted on the way: written down first they would take twice
 * the first-level cache), others are widened, as is a row whose last vector would read past it. */
static void multiply_chunk(const sl_product *p, int64_t r, int rows, int64_t column, int64_t n, int64_t t0,
                           int64_t t1, bool more) {
    _Alignas(64) float widened[TILE_ROWS][SL_FLOAT_CHUNK];
    const sl_type_info *info = sl_type_get(p->type);
    const size_t block = (size_t)info->block, at = (size_t)column / block * info->bytes;
    const uint8_t *w[TILE_ROWS], *start = p->w + (size_t)r * p->row_bytes + at;
    const bool in_place = n % LANES == 0 && (p->type == SL_F32 || p->type == SL_F16 || p->type == SL_BF16);
    const sl_type type = in_place ? p->type : SL_F32;
    for (int i = 0; i < TILE_ROWS; i++) {
        int row = i < rows ? i : 0; /* results of the spare lanes are dropped */
        if (!in_place && i < rows) widen_columns(p->type, start + (size_t)i * p->row_bytes, n, widened[i]);
        w[i] = in_place ? start + (size_t)row * p->row_bytes : (const uint8_t *)widened[row];
    }
    const size_t next = TILE_ROWS * p->row_bytes, ahead = t1 - t0 < TILE_TOKENS ? next : 0;
    for (int64_t t = t0; t < t1;) {
        int tokens = t1 - t >= TILE_TOKENS ? TILE_TOKENS : 1;
        if (more && tokens == TILE_TOKENS)
            ask_ahead(start + next, p->row_bytes, (size_t)n / block * info->bytes, (t - t0) / TILE_TOKENS,
                      (t1 - t0) / TILE_TOKENS);
        const float *x[TILE_TOKENS];
        tile_sums part;
        for (int i = 0; i < tokens; i++) x[i] = p->x + (size_t)(t + i) * p->x_stride + column;
        if (type == SL_F16) multiply_F16(w, x, n, tokens, ahead, part);
        else if (type == SL_BF16) multiply_BF16(w, x, n, tokens, ahead, part);
        else multiply_F32(w, x, n, tokens, ahead, part);
        for (int j = 0; j < tokens; j++, t++) add_part(p->y + (size_t)t * p->y_stride + r, part[j], rows, column == 0 && !p->adds);
    }
}

static void add_bias(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    for (int64_t t = t0; p->bias && t < t1; t++)
        for (int64_t r = r0; r < r1; r++) p->y[(size_t)t * p->y_stride + r] += p->bias[r];
}

/* Columns before rows: a chunk's activations stay in the second-level cache while the rows pass. */
static void matmul_float(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    for (int64_t column = 0; column < p->n; column += SL_FLOAT_CHUNK) {
        int64_t n = p->n - column < SL_FLOAT_CHUNK ? p->n - column : SL_FLOAT_CHUNK;
        for (int64_t r = r0; r < r1; r += TILE_ROWS)
            multiply_chunk(p, r, r1 - r < TILE_ROWS ? (int)(r1 - r) : TILE_ROWS, column, n, t0, t1,
                           r + 2 * TILE_ROWS <= r1);
    }
    add_bias(p, r0, r1, t0, t1);
}

#endif
