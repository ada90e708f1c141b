/* Products of quantised weights with rounded activations, over the vector names of simd_*.h: included by the tables of
 * kernels that have them. A lane is a row (panel.h), so there are no horizontal sums.
 *
 * Two shapes of the same sum (its order is in kernels_table.h, so both give the same bits):
 *   few tokens   codes are unpacked into registers and multiplied with each token; memory sets the speed.
 *   many tokens  CHUNK columns of a panel are unpacked once into a tile of bytes in L1, and multiplied with TOKENS
 *                tokens at a time. Every type becomes the same tile, also those without panels and rows that have not
 *                been packed. Sums wait in y between column chunks.
 */
#ifndef SL_TENSOR_KERNELS_PANEL_H
#define SL_TENSOR_KERNELS_PANEL_H

#include "tensor/kernels_table.h"
#include "tensor/panel.h"

#include <string.h>

enum { CHUNK = 512, ROWS = SL_PANEL_ROWS, FEW = 4, SOME = (TOKENS + 1) / 2 };

/* ---------------------------------------------------------------- constants of a type, folded by the compiler */

#define FORM_CASE(TYPE, name, id, block, bytes, group_, offset_, top_, has_min_) \
    case SL_##TYPE: return (sl_codes){NULL, group_, offset_, top_, has_min_};
VINLINE sl_codes form_of(sl_type type) {
    switch (type) {
        SL_QUANTISED(FORM_CASE)
        default: return (sl_codes){0};
    }
}

/* ---------------------------------------------------------------- a group of 32 columns from a panel */

/* Vector v of 64 bytes. */
VINLINE vint part_of(const uint8_t *bytes, int v) { return vi_load(bytes + v * (SL_WORD_BYTES / VECTORS)); }

/* The bits that 5- and 6-bit codes have beyond a nibble, of word w, in place. */
VINLINE vint upper_bits(int bits, const vint planes[2], int w) {
    if (bits == 5) return vi_and(vi_shift(planes[0], w - 4), vi_set1_8(0x10));
    return vi_and(vi_shift(planes[w / 4], 2 * (w % 4) - 4), vi_set1_8(0x30));
}

VINLINE vint narrow_word(int bits, const vint planes[3], int w) {
    vint low = vi_and(vi_shift(planes[w / 4], 2 * (w % 4)), vi_set1_8(3));
    return bits == 2 ? low : vi_or(low, vi_and(vi_shift(planes[2], w - 2), vi_set1_8(4)));
}

/* The eight words of a group, vector v of each, ready to be multiplied. */
VINLINE void unpack_group(sl_type type, const uint8_t *codes, int v, vint w[8]) {
    sl_panel_form f = sl_panel_form_of(type);
    sl_codes form = form_of(type);
    if (f.bits == 8) {
#pragma GCC unroll 8
        for (int q = 0; q < 8; q++) w[q] = ready_codes(form, part_of(codes + 64 * q, v));
        return;
    }
    if (f.bits < 4) {
        vint planes[3];
        for (int i = 0; i < f.bits; i++) planes[i] = part_of(codes + 64 * i, v);
#pragma GCC unroll 8
        for (int q = 0; q < 8; q++) w[q] = narrow_word(f.bits, planes, q);
        return;
    }
    vint planes[2], mask = vi_set1_8(15);
    for (int i = 0; i < f.bits - 4; i++) planes[i] = part_of(codes + 256 + 64 * i, v);
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        vint both = part_of(codes + 64 * q, v);
        w[q] = vi_and(both, mask);
        w[q + 4] = vi_and(vi_shift(both, 4), mask);
    }
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        if (f.bits > 4) w[q] = vi_or(w[q], upper_bits(f.bits, planes, q));
        if (f.book) w[q] = vi_look_up(f.book, w[q]);
        if (f.book && form.top) w[q] = vi_add8(w[q], vi_set1_8(form.offset));
        if (f.book) w[q] = ready_codes(form, w[q]);
    }
}

/* Scale and minimum of group g of a block, rows of vector v, for types with groups of 32. */
VINLINE void scales_of(sl_type type, const uint8_t *head, int g, int v, vfloat *scale, vfloat *min) {
    sl_panel_form f = sl_panel_form_of(type);
    const uint8_t *d = head + 2 * LANES * v, *m = d + 2 * ROWS, *bytes = head + 16 * g + LANES * v;
    int n_groups = f.block / f.group;
    *min = vf_zero();
    switch (f.head) {
    case SL_HEAD_F16: *scale = vf_from_f16(d); break;
    case SL_HEAD_F16_MIN: *scale = vf_from_f16(d), *min = vf_from_f16(m); break;
    case SL_HEAD_BF16: *scale = vf_from_bf16(d); break;
    case SL_HEAD_NF4:
        *scale = vf_mul(vf_load((const float *)(const void *)head + LANES * v), vf_set1(SL_NF4_UNIT));
        break;
    case SL_HEAD_FP4:
        *scale = vf_mul(vf_load((const float *)(const void *)head + LANES * v), vf_set1(SL_FP4_UNIT));
        break;
    case SL_HEAD_I8: *scale = vf_mul(vf_from_f16(d), vi_to_vf(vi_from_i8(bytes + 32))); break;
    case SL_HEAD_U8_MIN:
        *scale = vf_mul(vf_from_f16(d), vi_to_vf(vi_from_u8(bytes + 64)));
        *min = vf_negate(vf_mul(vf_from_f16(m), vi_to_vf(vi_from_u8(bytes + 64 + 16 * n_groups))));
        break;
    default: *scale = vf_zero(); break; /* not with groups of 32 */
    }
}

/* What the two groups of 16 in group-of-32 g have, for types with factors (panel.h). */
typedef struct two_scales {
    vint scales[2]; /* vi_factor of the integers */
    vint pair;      /* both minimums, or both scales times the offset */
    vfloat d, m;    /* m negated */
} two_scales;

VINLINE two_scales factors_of(sl_type type, const uint8_t *head, int g, int v) {
    sl_panel_form f = sl_panel_form_of(type);
    const uint8_t *d = head + 2 * LANES * v, *bytes = head + 32 * g + LANES * v;
    two_scales out = {.d = vf_from_f16(d), .m = vf_zero()};
    vint pair[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        bool has_min = f.head == SL_HEAD_U4_MIN;
        vint scale = has_min ? vi_from_nibbles(bytes + 64 + 16 * h, false) : vi_from_i8(bytes + 32 + 16 * h);
        out.scales[h] = vi_factor(scale);
        pair[h] = has_min ? vi_from_nibbles(bytes + 64 + 16 * h, true)
                          : vi_left(scale, __builtin_ctz((unsigned)form_of(type).offset));
    }
    out.pair = vi_pair(pair[0], pair[1]);
    if (f.head == SL_HEAD_U4_MIN) out.m = vf_negate(vf_from_f16(d + 2 * ROWS));
    return out;
}

/* The groups' sums, in the order of kernels_table.h, each operation rounded. `offset` of the codes, with form's saying
 * whether there is one. */
VINLINE vfloat add_group(sl_codes form, int offset, vfloat sum, vint dot, vfloat scale, vfloat min, int32_t x_sum,
                         float x_scale, float x_shift) {
    if (!form.has_min && code_offset(form)) dot = vi_sub(dot, vi_set1(offset * x_sum));
    sum = vf_add(sum, vf_mul(vi_to_vf(dot), vf_mul(scale, vf_set1(x_scale))));
    return form.has_min ? vf_add(sum, vf_mul(min, vf_set1(x_shift))) : sum;
}

VINLINE vfloat add_factored(bool has_min, vfloat sum, vint dot, vint pair_dot, vfloat d, vfloat m, float x_scale) {
    if (!has_min) dot = vi_sub(dot, pair_dot);
    sum = vf_add(sum, vf_mul(vi_to_vf(dot), vf_mul(d, vf_set1(x_scale))));
    return has_min ? vf_add(sum, vf_mul(vi_to_vf(pair_dot), vf_mul(m, vf_set1(x_scale)))) : sum;
}

/* ---------------------------------------------------------------- few tokens */

/* Bytes of a panel that are asked for before they are needed: a panel is one stream, but its pages are too short for the
 * processor's own prefetching to reach the memory's speed. */
enum { AHEAD = 2048 };

/* Group b of the row (group g of its block) times n tokens. */
VINLINE void add_columns(sl_type type, const uint8_t *block, int g, int64_t b, const sl_rounded a[], int n,
                         vfloat sums[VECTORS][FEW]) {
    sl_panel_form f = sl_panel_form_of(type);
    sl_codes form = form_of(type);
    const uint8_t *codes = block + f.head_bytes + g * f.group_bytes;
#pragma GCC unroll 8
    for (int k = 0; k < f.group_bytes; k += 64) prefetch(codes + AHEAD + k);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        vint w[8];
        unpack_group(type, codes, v, w);
        if (sl_panel_has_factors(f)) {
            two_scales of = factors_of(type, block, g, v);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                vint dot = dot_words(form, w, a[i].codes + 32 * b, of.scales);
                vint pair_dot = vi_pair_dot(of.pair, a[i].sum16 + 2 * b);
                sums[v][i] = add_factored(form.has_min, sums[v][i], dot, pair_dot, of.d, of.m, a[i].scale[b]);
            }
        } else {
            vfloat scale, min;
            scales_of(type, block, g, v, &scale, &min);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                vint dot = dot_words(form, w, a[i].codes + 32 * b, NULL);
                sums[v][i] = add_group(form, code_offset(form), sums[v][i], dot, scale, min, a[i].sum32[b], a[i].scale[b],
                                       a[i].shift[b]);
            }
        }
    }
}

/* One panel, whose first row is r, times tokens [t, t + count), count <= n; what is missing to the constant n is the last
 * one again, whose results are dropped. */
VINLINE void few_panel(sl_type type, const sl_product *p, const uint8_t *block, int64_t r, int rows, int64_t t,
                       int count, int n) {
    sl_panel_form f = sl_panel_form_of(type);
    sl_rounded a[FEW];
    vfloat sums[VECTORS][FEW];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        a[i] = sl_rounded_at(p->blocks, p->n, t + (i < count ? i : count - 1));
        for (int v = 0; v < VECTORS; v++) sums[v][i] = vf_zero();
    }
    for (int64_t b = 0; b < p->n / 32; b += f.block / 32, block += sl_panel_block_bytes(f))
        for (int g = 0; g < f.block / 32; g++) add_columns(type, block, g, b + g, a, n, sums);
#pragma GCC unroll 4
    for (int i = 0; i < n && i < count; i++) {
        float out[ROWS], *y = p->y + (size_t)(t + i) * p->y_stride + r;
        for (int v = 0; v < VECTORS; v++) vf_store(out + LANES * v, sums[v][i]);
        for (int j = 0; j < rows; j++) y[j] = p->bias ? out[j] + p->bias[r + j] : out[j];
    }
}

VINLINE void few_tokens(sl_type type, const sl_product *p, int64_t r0, int64_t r1, int64_t t, int count, int n) {
    sl_panel_form f = sl_panel_form_of(type);
    size_t panel_bytes = (size_t)(p->n / f.block) * (size_t)sl_panel_block_bytes(f);
    for (int64_t r = r0; r < r1; r += ROWS)
        few_panel(type, p, p->panels + (size_t)(r / ROWS) * panel_bytes, r, r1 - r < ROWS ? (int)(r1 - r) : ROWS, t,
                  count, n);
}

/* ---------------------------------------------------------------- many tokens */

/* Words of CHUNK columns, ready to be multiplied; scales and mins [scale group][row]. With factors: scales and mins
 * hold d and -m of 32 columns each, factors the integer scales, pairs what two_scales says. */
typedef struct tile {
    const uint8_t *next; /* where the next tile's panel lies; NULL: not in panels */
    int next_bytes;
    _Alignas(64) uint8_t codes[CHUNK * ROWS];
    _Alignas(64) float scales[CHUNK / 16][ROWS];
    _Alignas(64) float mins[CHUNK / 16][ROWS];
    _Alignas(64) int32_t factors[CHUNK / 16][ROWS];
    _Alignas(64) int32_t pairs[CHUNK / 32][ROWS];
} tile;

/* Scales of group-of-32 b of the tile, group g of its block, rows of vector v. */
VINLINE void fill_scales(sl_type type, const uint8_t *block, int g, int b, int v, tile *out) {
    vfloat scale, min;
    if (sl_panel_has_factors(sl_panel_form_of(type))) {
        two_scales of = factors_of(type, block, g, v);
        for (int h = 0; h < 2; h++) vi_store(out->factors[2 * b + h] + LANES * v, of.scales[h]);
        vi_store(out->pairs[b] + LANES * v, of.pair);
        scale = of.d;
        min = of.m;
    } else {
        scales_of(type, block, g, v, &scale, &min);
    }
    vf_store(out->scales[b] + LANES * v, scale);
    if (form_of(type).has_min) vf_store(out->mins[b] + LANES * v, min);
}

/* n columns, a multiple of the block, of a panel from its block on. */
VINLINE void tile_from_panel(sl_type type, const uint8_t *block, int n, tile *out) {
    sl_panel_form f = sl_panel_form_of(type);
    int per_block = f.block / 32;
    for (int b = 0; b < n / 32; b++) {
        int g = b % per_block;
        for (int v = 0; v < VECTORS; v++) {
            vint w[8];
            unpack_group(type, block + f.head_bytes + g * f.group_bytes, v, w);
#pragma GCC unroll 8
            for (int q = 0; q < 8; q++) vi_store(out->codes + 64 * (8 * b + q) + v * (64 / VECTORS), w[q]);
            fill_scales(type, block, g, b, v, out);
        }
        if (g == per_block - 1) block += sl_panel_block_bytes(f);
    }
}

/* The same for types without panels, from `rows` rows of the file, by the type's scalar unpacker. */
static void tile_from_rows(sl_type type, const uint8_t *w, size_t row_bytes, int rows, int n, tile *out) {
    const sl_type_info *info = sl_type_get(type);
    const sl_codes *form = sl_type_codes(type);
    int groups = info->block / form->group, offset = form->top ? form->offset : 0;
    memset(out, 0, sizeof *out);
    for (int r = 0; r < rows; r++) {
        const uint8_t *block = w + (size_t)r * row_bytes;
        for (int c = 0, g = 0; c < n; c += info->block, g += groups, block += info->bytes) {
            int8_t codes[SL_MAX_BLOCK];
            float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
            form->unpack(block, codes, scales, mins);
            for (int i = 0; i < info->block; i++)
                out->codes[64 * ((c + i) / 4) + 4 * r + i % 4] = (uint8_t)(codes[i] + offset);
            for (int i = 0; i < groups; i++) {
                out->scales[g + i][r] = scales[i];
                if (form->has_min) out->mins[g + i][r] = mins[i];
            }
        }
    }
    for (int at = 0; !form->top && at < n * ROWS; at += SL_WORD_BYTES / VECTORS)
        vi_store(out->codes + at, ready_codes(*form, vi_load(out->codes + at)));
}

/* Where a column chunk finds its activations and leaves its sums, for up to TOKENS tokens. */
typedef struct columns {
    const int8_t *codes[TOKENS];
    const float *scales[TOKENS], *shifts[TOKENS];
    const int32_t *sums32[TOKENS];
    const int16_t *sums16[TOKENS];
    float *y[TOKENS];
    const float *bias; /* NULL unless this is the last chunk */
    int rows, groups;  /* valid rows; groups of the type in this chunk, or of 32 columns with factors */
    int offset;        /* of the codes */
    bool first;
    const uint8_t *next; /* the part of the next tile's panel to ask for, */
    int lines;           /* so many lines of 64 bytes with every group */
} columns;

VINLINE vfloat load_sums(const columns *c, int v, int i) {
    if (c->first) return vf_zero();
    if (c->rows == ROWS) return vf_load(c->y[i] + LANES * v);
    float lanes[ROWS] = {0};
    memcpy(lanes, c->y[i], (size_t)c->rows * 4);
    return vf_load(lanes + LANES * v);
}

VINLINE void store_sums(const columns *c, int i, vfloat sums[VECTORS][TOKENS]) {
    float lanes[ROWS] = {0};
    if (c->bias) memcpy(lanes, c->bias, (size_t)c->rows * 4);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        vfloat sum = c->bias ? vf_add(sums[v][i], vf_load(lanes + LANES * v)) : sums[v][i];
        vf_store(c->rows == ROWS ? c->y[i] + LANES * v : lanes + LANES * v, sum);
    }
    if (c->rows < ROWS) memcpy(c->y[i], lanes, (size_t)c->rows * 4);
}

/* Group g of a tile: what its products with token i add, rows of vector v. */
VINLINE vfloat add_tile_group(sl_codes form, bool factored, const tile *w, const columns *c, int g, int v, int i, vint dot,
                              vfloat sum) {
    vfloat scale = vf_load(w->scales[g] + LANES * v), min = form.has_min ? vf_load(w->mins[g] + LANES * v) : vf_zero();
    if (factored) {
        vint pair_dot = vi_pair_dot(vi_load(w->pairs[g] + LANES * v), c->sums16[i] + 2 * g);
        return add_factored(form.has_min, sum, dot, pair_dot, scale, min, c->scales[i][g]);
    }
    if (form.group == 32)
        return add_group(form, c->offset, sum, dot, scale, min, c->sums32[i][g], c->scales[i][g], c->shifts[i][g]);
    return add_group(form, c->offset, sum, dot, scale, min, c->sums16[i][g], c->scales[i][g / 2], 0.0f); /* no minimums */
}

/* The inner loop: one tile times n tokens (n, form and factored constants; of the form all but the offset counts). */
VINLINE void multiply_tile(sl_codes form, bool factored, const tile *w, const columns *c, int n) {
    vfloat sums[VECTORS][TOKENS];
    int width = factored ? 32 : form.group, words = width / 4;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sums[v][i] = load_sums(c, v, i);
    for (int g = 0; g < c->groups; g++) {
        vint dots[VECTORS][TOKENS];
        for (int k = 0; k < c->lines; k++) prefetch(c->next + 64 * (g * c->lines + k));
        dot_tile(form, w->codes + (size_t)g * words * SL_WORD_BYTES, c->codes, g * width, words, n,
                 factored ? w->factors + 2 * g : NULL, dots);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sums[v][i] = add_tile_group(form, factored, w, c, g, v, i, dots[v][i], sums[v][i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) store_sums(c, i, sums);
}

/* Up to this many passes over a tile, the memory's time is worth hiding: the next tile's panel is asked for while this
 * one is multiplied. With more, arithmetic is all. */
enum { MEMORY_BOUND_PASSES = 4 };

/* Tokens of a pass when so many are left. */
VINLINE int tokens_at_once(int64_t left) { return left >= TOKENS ? TOKENS : left >= SOME ? SOME : 1; }

/* Lines of the next tile's panel to ask for with each of `groups` groups, so that the passes over all tokens ask for the
 * whole; 0: there are too many. */
VINLINE int lines_ahead(const tile *w, int64_t tokens, int groups) {
    int passes = 0;
    for (; tokens > 0 && passes <= MEMORY_BOUND_PASSES; passes++) tokens -= tokens_at_once(tokens);
    if (!w->next || passes > MEMORY_BOUND_PASSES) return 0;
    return (w->next_bytes / 64 + passes * groups - 1) / (passes * groups);
}

/* One tile times all tokens. */
VINLINE void multiply_tokens(sl_codes form, bool factored, int offset, const sl_product *p, const tile *w, int64_t r,
                             int rows, int64_t column, int n_columns, int64_t t0, int64_t t1) {
    columns c = {.rows = rows, .groups = n_columns / (factored ? 32 : form.group), .offset = offset, .first = column == 0,
                 .bias = p->bias && column + n_columns == p->n ? p->bias + r : NULL, .next = w->next};
    c.lines = lines_ahead(w, t1 - t0, c.groups);
    for (int64_t token = t0; token < t1;) {
        int n = tokens_at_once(t1 - token);
        for (int i = 0; i < n; i++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, token + i);
            c.codes[i] = a.codes + column;
            c.scales[i] = a.scale + column / 32;
            c.shifts[i] = a.shift + column / 32;
            c.sums32[i] = a.sum32 + column / 32;
            c.sums16[i] = a.sum16 + column / 16;
            c.y[i] = p->y + (size_t)(token + i) * p->y_stride + r;
        }
        if (n == TOKENS) multiply_tile(form, factored, w, &c, TOKENS);
        else if (n == SOME) multiply_tile(form, factored, w, &c, SOME);
        else multiply_tile(form, factored, w, &c, 1);
        if (c.lines) c.next += 64 * c.lines * c.groups;
        token += n;
    }
}

/* ---------------------------------------------------------------- one function a form */

/* What the inner loop distinguishes: codes by the largest (0: signed), columns that share a scale, minimums, factors.
 * Every type is one of these, with the next larger top.
 *
 *     name                  top group has_min factored */
#define FORMS(X) \
    X(signed_32,               0, 32, false, false) \
    X(nibble_32,              15, 32, false, false) \
    X(nibble_32_min,          15, 32, true,  false) \
    X(nibble_16_factors,      15, 16, false, true) \
    X(nibble_16_factors_min,  15, 16, true,  true) \
    X(five_32,                31, 32, false, false) \
    X(five_32_min,            31, 32, true,  false) \
    X(five_16,                31, 16, false, false) \
    X(six_16_factors,         63, 16, false, true) \
    X(seven_32,              127, 32, false, false) \
    X(seven_16,              127, 16, false, false)

typedef void tile_multiplier(int offset, const sl_product *p, const tile *w, int64_t r, int rows, int64_t column,
                             int n_columns, int64_t t0, int64_t t1);

#define DEFINE_FORM(name, top_, group_, has_min_, factored) \
    static void multiply_##name(int offset, const sl_product *p, const tile *w, int64_t r, int rows, int64_t column, \
                                int n_columns, int64_t t0, int64_t t1) { \
        sl_codes form = {NULL, group_, 0, top_, has_min_}; \
        form.offset = top_ ? 1 : 0; /* that there is one is all that a form says */ \
        multiply_tokens(form, factored, offset, p, w, r, rows, column, n_columns, t0, t1); \
    }
FORMS(DEFINE_FORM)

static tile_multiplier *multiplier_of(sl_type type) {
    const sl_codes *form = sl_type_codes(type);
    bool has_factors = sl_panel_has_factors(sl_panel_form_of(type));
    int top = !form->top ? 0 : form->top <= 15 ? 15 : form->top <= 31 ? 31 : form->top <= 63 ? 63 : 127;
#define FORM_ROW(name, top_, group_, has_min_, factored) \
    if (top == top_ && form->group == group_ && form->has_min == has_min_ && has_factors == factored) \
        return multiply_##name;
    FORMS(FORM_ROW)
    return NULL;
}

/* ---------------------------------------------------------------- one function a type */

#define DEFINE_TYPE(TYPE) \
    static void few_##TYPE(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int n) { \
        if (n == 1) few_tokens(SL_##TYPE, p, r0, r1, t0, 1, 1); \
        else if (n == 2) few_tokens(SL_##TYPE, p, r0, r1, t0, 2, 2); \
        else few_tokens(SL_##TYPE, p, r0, r1, t0, n, 4); \
    } \
    static void fill_##TYPE(const uint8_t *block, int n, tile *out) { tile_from_panel(SL_##TYPE, block, n, out); }
SL_PANEL_TYPES(DEFINE_TYPE)

#define FEW_ROW(TYPE) [SL_##TYPE] = few_##TYPE,
#define FILL_ROW(TYPE) [SL_##TYPE] = fill_##TYPE,
static void (*const few_by_type[SL_TYPE_COUNT])(const sl_product *, int64_t, int64_t, int64_t, int) = {
    SL_PANEL_TYPES(FEW_ROW)
};
static void (*const fill_by_type[SL_TYPE_COUNT])(const uint8_t *, int, tile *) = { SL_PANEL_TYPES(FILL_ROW) };

static void pack(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel);

/* Columns [column, column + n) of 16 rows from r on, wherever they come from. `small` holds a chunk's panel. */
static void fill_tile(const sl_product *p, int64_t r, int rows, int64_t column, int n, uint8_t *small, tile *out) {
    sl_panel_form f = sl_panel_form_of(p->type);
    const sl_type_info *info = sl_type_get(p->type);
    const uint8_t *w = p->w + (size_t)r * p->row_bytes + (size_t)(column / info->block) * info->bytes;
    out->next = NULL;
    if (f.head == SL_HEAD_NONE) {
        tile_from_rows(p->type, w, p->row_bytes, rows, n, out);
    } else if (p->panels) {
        size_t blocks = (size_t)(r / ROWS) * (size_t)(p->n / f.block) + (size_t)(column / f.block);
        const uint8_t *panel = p->panels + blocks * (size_t)sl_panel_block_bytes(f);
        fill_by_type[p->type](panel, n, out);
        out->next_bytes = (int)(n / f.block * sl_panel_block_bytes(f));
        out->next = panel + out->next_bytes;
    } else {
        pack(p->type, w, p->row_bytes, rows, n, small);
        fill_by_type[p->type](small, n, out);
    }
}

static void many_tokens(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    const sl_codes *form = sl_type_codes(p->type);
    tile_multiplier *multiply = multiplier_of(p->type);
    tile w;
    _Alignas(64) uint8_t small[CHUNK / 256 * SL_PANEL_256];
    for (int64_t r = r0; r < r1; r += ROWS) {
        int rows = r1 - r < ROWS ? (int)(r1 - r) : ROWS;
        for (int64_t column = 0; column < p->n; column += CHUNK) {
            int n_columns = p->n - column < CHUNK ? (int)(p->n - column) : CHUNK;
            fill_tile(p, r, rows, column, n_columns, small, &w);
            multiply(code_offset(*form), p, &w, r, rows, column, n_columns, t0, t1);
        }
    }
}

static void matmul_codes(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    if (p->panels && t1 - t0 <= FEW) few_by_type[p->type](p, r0, r1, t0, (int)(t1 - t0));
    else many_tokens(p, r0, r1, t0, t1);
}

#endif
