/* Products of quantised weights with rounded activations, for the x86 tables: included by kernels_avx2.c and
 * kernels_avx512.c, each of which first includes its simd_*.h (vector names, PANEL, TOKENS, the two inner loops).
 *
 * Two shapes of the same sum (its order is in kernels_table.h, so both give the same bits):
 *   few tokens   eight rows at once straight from their blocks; the eight integer sums of a group are brought into one
 *                vector, so that a lane is a row and every row adds its groups in order.
 *   many tokens  PANEL rows x CHUNK columns are unpacked once into bytes, interleaved so that a lane is a row, and
 *                multiplied with TOKENS activations at a time from registers. Sums wait in y between column chunks.
 */
#ifndef SL_TENSOR_KERNELS_CODES_H
#define SL_TENSOR_KERNELS_CODES_H

#include "tensor/kernels_table.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { SPAN = 256, SPAN_GROUPS = SPAN / 16, CHUNK = 512 };

/* ---------------------------------------------------------------- constants of a type, folded by the compiler */

#define FORM_CASE(TYPE, name, id, block, bytes, group_, offset_, top_, has_min_) \
    case SL_##TYPE: return (sl_codes){NULL, group_, offset_, top_, has_min_};
INLINE sl_codes form_of(sl_type type) {
    switch (type) {
        SL_QUANTISED(FORM_CASE)
        default: return (sl_codes){0};
    }
}

/* Types whose codes are unpacked with vector instructions below; the others go through their scalar unpacker. */
INLINE bool has_vector_codes(sl_type type) {
    return type == SL_Q4_0 || type == SL_Q4_1 || type == SL_Q5_0 || type == SL_Q5_1 || type == SL_Q8_0
           || type == SL_Q4_K || type == SL_Q5_K || type == SL_Q6_K || type == SL_IQ4_NL;
}

/* Eight rows' scales and minimums for 256 columns, lane = row, and for scalar-unpacked types their codes. */
typedef struct span {
    float scales[SPAN_GROUPS][8], mins[SPAN_GROUPS][8];
    int8_t codes[8][SPAN];
} span;

/* ---------------------------------------------------------------- 32 codes of one row */

INLINE __m256i nibbles_to_bytes(const uint8_t *qs) {
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)qs);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(packed), _mm_srli_epi16(packed, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* Bit i of the 32 becomes byte i: 16 or 0. */
INLINE __m256i bits_to_16(const uint8_t *qh) {
    uint32_t bits;
    memcpy(&bits, qh, 4);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits),
                                         _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    __m256i select = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

INLINE __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Bits [shift, shift + n) of each byte, mask = 2^n - 1. */
INLINE __m256i bit_field(__m256i v, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)mask));
}

/* Codes of group-of-32 `b` of a row: code + offset where the type has a top, else the signed code. */
INLINE __m256i codes_of(sl_type type, const uint8_t *row, int64_t b) {
    const uint8_t *k;
    int j = (int)(b % 8);
    switch (type) {
        case SL_Q4_0: return nibbles_to_bytes(row + b * 18 + 2);
        case SL_Q4_1: return nibbles_to_bytes(row + b * 20 + 4);
        case SL_Q5_0: return _mm256_or_si256(nibbles_to_bytes(row + b * 22 + 6), bits_to_16(row + b * 22 + 2));
        case SL_Q5_1: return _mm256_or_si256(nibbles_to_bytes(row + b * 24 + 8), bits_to_16(row + b * 24 + 4));
        case SL_Q8_0: return load32(row + b * 34 + 2);
        case SL_IQ4_NL: {
            __m128i table = _mm_loadu_si128((const __m128i *)(const void *)sl_iq4_values);
            return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles_to_bytes(row + b * 18 + 2));
        }
        case SL_Q4_K:
            k = row + b / 8 * 144;
            return bit_field(load32(k + 16 + j / 2 * 32), j % 2 * 4, 15);
        case SL_Q5_K:
            k = row + b / 8 * 176;
            return _mm256_or_si256(bit_field(load32(k + 48 + j / 2 * 32), j % 2 * 4, 15),
                                   _mm256_slli_epi16(bit_field(load32(k + 16), j, 1), 4));
        case SL_Q6_K:
            k = row + b / 8 * 210;
            return _mm256_or_si256(bit_field(load32(k + j / 4 * 64 + j % 2 * 32), j % 4 / 2 * 4, 15),
                                   _mm256_slli_epi16(bit_field(load32(k + 128 + j / 4 * 32), j % 4 * 2, 3), 4));
        default: return _mm256_setzero_si256();
    }
}

/* ---------------------------------------------------------------- scales of eight rows */

/* A 16-bit float at the same place of eight rows. */
INLINE __m256 f16_of_rows(const uint8_t *const rows[8], int64_t at) {
    __m128i halves = _mm_setr_epi16((short)sl_load_u16(rows[0] + at), (short)sl_load_u16(rows[1] + at),
                                    (short)sl_load_u16(rows[2] + at), (short)sl_load_u16(rows[3] + at),
                                    (short)sl_load_u16(rows[4] + at), (short)sl_load_u16(rows[5] + at),
                                    (short)sl_load_u16(rows[6] + at), (short)sl_load_u16(rows[7] + at));
    return _mm256_cvtph_ps(halves);
}

/* Types of 32: block b's f16 at its start, and a minimum after it. */
INLINE void basic_scales(sl_type type, const uint8_t *const rows[8], int64_t b0, int n, span *s) {
    int64_t bytes = type == SL_Q4_1 ? 20 : type == SL_Q5_0 ? 22 : type == SL_Q5_1 ? 24 : type == SL_Q8_0 ? 34 : 18;
    for (int g = 0; g < n; g++) {
        _mm256_storeu_ps(s->scales[g], f16_of_rows(rows, (b0 + g) * bytes));
        if (form_of(type).has_min) _mm256_storeu_ps(s->mins[g], f16_of_rows(rows, (b0 + g) * bytes + 2));
    }
}

INLINE void k_scales(sl_type type, const uint8_t *const rows[8], int64_t b0, span *s) {
    int64_t bytes = type == SL_Q4_K ? 144 : 176;
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = rows[r] + b0 / 8 * bytes;
        uint8_t sub[8], sub_min[8];
        sl_k_scales(block + 4, sub, sub_min);
        float d = _cvtsh_ss(sl_load_u16(block)), dmin = _cvtsh_ss(sl_load_u16(block + 2));
        for (int g = 0; g < 8; g++) {
            s->scales[g][r] = d * (float)sub[g];
            s->mins[g][r] = -(dmin * (float)sub_min[g]);
        }
    }
}

INLINE void q6_k_scales(const uint8_t *const rows[8], int64_t b0, span *s) {
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = rows[r] + b0 / 8 * 210;
        float d = _cvtsh_ss(sl_load_u16(block + 208));
        for (int g = 0; g < 16; g++) s->scales[g][r] = d * (float)(int8_t)block[192 + g];
    }
}

/* Any type, by its scalar unpacker; codes too. */
static void unpacked_span(sl_type type, const uint8_t *const rows[8], int64_t b0, int n, span *s) {
    const sl_type_info *info = sl_type_get(type);
    const sl_codes *form = sl_type_codes(type);
    int groups = info->block / form->group;
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = rows[r] + b0 * 32 / info->block * info->bytes;
        for (int c = 0, g = 0; c < 32 * n; c += info->block, g += groups, block += info->bytes) {
            float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
            form->unpack(block, s->codes[r] + c, scales, mins);
            for (int i = 0; i < groups; i++) {
                s->scales[g + i][r] = scales[i];
                if (form->has_min) s->mins[g + i][r] = mins[i];
            }
        }
    }
}

/* Groups of 32 [b0, b0 + n) of eight rows, b0 a multiple of 8, n <= 8. */
INLINE void load_span(sl_type type, const uint8_t *const rows[8], int64_t b0, int n, span *s) {
    if (!has_vector_codes(type)) unpacked_span(type, rows, b0, n, s);
    else if (type == SL_Q4_K || type == SL_Q5_K) k_scales(type, rows, b0, s);
    else if (type == SL_Q6_K) q6_k_scales(rows, b0, s);
    else basic_scales(type, rows, b0, n, s);
}

/* Codes of group b of row r, as codes_of. */
INLINE __m256i span_codes(sl_type type, const uint8_t *const rows[8], const span *s, int64_t b0, int j, int r) {
    if (has_vector_codes(type)) return codes_of(type, rows[r], b0 + j);
    __m256i codes = load32(s->codes[r] + 32 * j);
    return _mm256_add_epi8(codes, _mm256_set1_epi8((char)form_of(type).offset));
}

/* ---------------------------------------------------------------- few tokens */

/* sum + integer dot * (scale * x scale) [+ min * (x scale * x sum)], each rounded. */
INLINE __m256 add_group(sl_codes form, __m256 sum, __m256i dot, const span *s, int g, float x_scale, int32_t x_sum) {
    int offset = code_offset(form);
    if (offset) dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(offset * x_sum));
    __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(s->scales[g]), _mm256_set1_ps(x_scale));
    sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale));
    if (!form.has_min) return sum;
    return _mm256_add_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(s->mins[g]), _mm256_set1_ps(x_scale * (float)x_sum)));
}

/* Eight rows times one token. */
INLINE __m256 eight_rows(sl_type type, const uint8_t *const rows[8], const sl_rounded *a, int64_t groups) {
    sl_codes form = form_of(type);
    __m256 sum = _mm256_setzero_ps();
    span s;
    for (int64_t b0 = 0; b0 < groups; b0 += 8) {
        int n = groups - b0 < 8 ? (int)(groups - b0) : 8;
        load_span(type, rows, b0, n, &s);
        for (int j = 0; j < n; j++) {
            int64_t b = b0 + j;
            __m256i x = load32(a->codes + 32 * b), v[8];
            for (int r = 0; r < 8; r++) v[r] = dot32(form, span_codes(type, rows, &s, b0, j, r), x);
            __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
            __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
            __m256i first = _mm256_permute2x128_si256(low, high, 0x20); /* columns 0..15, lane = row */
            __m256i second = _mm256_permute2x128_si256(low, high, 0x31);
            if (form.group == 32) {
                sum = add_group(form, sum, _mm256_add_epi32(first, second), &s, j, a->scale[b], a->sum32[b]);
            } else {
                sum = add_group(form, sum, first, &s, 2 * j, a->scale[b], a->sum16[2 * b]);
                sum = add_group(form, sum, second, &s, 2 * j + 1, a->scale[b], a->sum16[2 * b + 1]);
            }
        }
    }
    return sum;
}

/* Pointers to rows [r, r + 8); past the end the last row again, whose results are dropped. */
INLINE void row_pointers(const sl_product *p, int64_t r, int64_t r1, const uint8_t *rows[8]) {
    for (int i = 0; i < 8; i++) rows[i] = p->w + (size_t)(r + i < r1 ? r + i : r1 - 1) * p->row_bytes;
}

INLINE void few_tokens(sl_type type, const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    for (int64_t r = r0; r < r1; r += 8) {
        const uint8_t *rows[8];
        row_pointers(p, r, r1, rows);
        size_t count = r1 - r < 8 ? (size_t)(r1 - r) : 8;
        for (int64_t t = t0; t < t1; t++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, t);
            float out[8];
            _mm256_storeu_ps(out, eight_rows(type, rows, &a, p->n / 32));
            float *y = p->y + (size_t)t * p->y_stride + r;
            for (size_t i = 0; i < count; i++) y[i] = p->bias ? out[i] + p->bias[(size_t)r + i] : out[i];
        }
    }
}

/* ---------------------------------------------------------------- many tokens */

/* codes[(column / 4) * PANEL + row][column % 4], ready for the inner loop; scales and mins [group][row]. */
typedef struct panel {
    _Alignas(64) uint8_t codes[CHUNK * PANEL];
    _Alignas(64) float scales[CHUNK / 16][PANEL];
    _Alignas(64) float mins[CHUNK / 16][PANEL];
} panel;

/* 8 rows of eight 4-byte words -> eight vectors with a row a lane. */
INLINE void transpose_words(__m256i v[8]) {
    __m256i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

/* Fills lanes [lane, lane + 8) of the panel with groups of 32 [b0, b0 + n) of eight rows. */
INLINE void pack_rows(sl_type type, const uint8_t *const rows[8], int64_t b0, int n, int lane, panel *out) {
    sl_codes form = form_of(type);
    span s;
    int per32 = 32 / form.group;
    for (int done = 0; done < n; done += 8) {
        int count = n - done < 8 ? n - done : 8;
        load_span(type, rows, b0 + done, count, &s);
        for (int g = 0; g < count * per32; g++) {
            memcpy(&out->scales[done * per32 + g][lane], s.scales[g], 32);
            if (form.has_min) memcpy(&out->mins[done * per32 + g][lane], s.mins[g], 32);
        }
        for (int j = 0; j < count; j++) {
            __m256i v[8];
            for (int r = 0; r < 8; r++) v[r] = stored_codes(form, span_codes(type, rows, &s, b0 + done, j, r));
            transpose_words(v);
            for (int q = 0; q < 8; q++)
                _mm256_storeu_si256((__m256i *)(void *)(out->codes + (size_t)(((done + j) * 8 + q) * PANEL + lane) * 4),
                                    v[q]);
        }
    }
}

/* Where a column chunk finds its activations and leaves its sums, for up to TOKENS tokens. */
typedef struct tile {
    const int8_t *codes[TOKENS];
    const float *scales[TOKENS];
    const int32_t *sums[TOKENS]; /* of 32 or 16, as the type's groups */
    float *y[TOKENS];
    const float *bias; /* NULL unless this is the last chunk */
    int rows, groups;  /* valid rows; groups of the type in this chunk */
    bool first;
} tile;

INLINE vfloat load_sums(const tile *t, int i) {
    if (t->first) return vf_zero();
    if (t->rows == PANEL) return vf_load(t->y[i]);
    float lanes[PANEL] = {0};
    memcpy(lanes, t->y[i], (size_t)t->rows * 4);
    return vf_load(lanes);
}

INLINE void store_sums(const tile *t, int i, vfloat sums) {
    float lanes[PANEL] = {0};
    if (t->rows == PANEL) {
        vf_store(t->y[i], t->bias ? vf_add(sums, vf_load(t->bias)) : sums);
        return;
    }
    if (t->bias) {
        memcpy(lanes, t->bias, (size_t)t->rows * 4);
        sums = vf_add(sums, vf_load(lanes));
    }
    vf_store(lanes, sums);
    memcpy(t->y[i], lanes, (size_t)t->rows * 4);
}

/* The inner loop: one panel times n tokens (n a constant). */
INLINE void multiply_tile(sl_codes form, const panel *w, const tile *t, int n) {
    vfloat sums[TOKENS];
    int offset = code_offset(form), words = form.group / 4, per32 = 32 / form.group;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) sums[i] = load_sums(t, i);
    for (int g = 0; g < t->groups; g++) {
        vint dots[TOKENS];
        dot_group(form, w->codes + (size_t)g * words * PANEL * 4, t->codes, g * form.group, words, n, dots);
        vfloat scale = vf_load(w->scales[g]);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            float x_scale = t->scales[i][g / per32];
            int32_t x_sum = t->sums[i][g];
            vint dot = offset ? vi_sub(dots[i], vi_set1(offset * x_sum)) : dots[i];
            sums[i] = vf_add(sums[i], vf_mul(vi_to_vf(dot), vf_mul(scale, vf_set1(x_scale))));
            if (form.has_min)
                sums[i] = vf_add(sums[i], vf_mul(vf_load(w->mins[g]), vf_set1(x_scale * (float)x_sum)));
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) store_sums(t, i, sums[i]);
}

/* One packed panel times all tokens. The forms differ in group, offset, top and has_min only, so that few copies of the
 * inner loop serve all types. */
INLINE void multiply_panel(sl_codes form, const sl_product *p, const panel *w, int64_t r, int rows, int64_t column,
                           int n_columns, int64_t t0, int64_t t1) {
    tile t = {.rows = rows, .groups = n_columns / form.group, .first = column == 0,
              .bias = p->bias && column + n_columns == p->n ? p->bias + r : NULL};
    for (int64_t token = t0; token < t1;) {
        int n = t1 - token >= TOKENS ? TOKENS : t1 - token >= 2 ? 2 : 1;
        for (int i = 0; i < n; i++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, token + i);
            t.codes[i] = a.codes + column;
            t.scales[i] = a.scale + column / 32;
            t.sums[i] = form.group == 32 ? a.sum32 + column / 32 : a.sum16 + column / 16;
            t.y[i] = p->y + (size_t)(token + i) * p->y_stride + r;
        }
        if (n == TOKENS) multiply_tile(form, w, &t, TOKENS);
        else if (n == 2) multiply_tile(form, w, &t, 2);
        else multiply_tile(form, w, &t, 1);
        token += n;
    }
}

typedef void panel_multiplier(const sl_product *p, const panel *w, int64_t r, int rows, int64_t column, int n_columns,
                              int64_t t0, int64_t t1);

INLINE void many_tokens(sl_type type, panel_multiplier *multiply, const sl_product *p, int64_t r0, int64_t r1,
                        int64_t t0, int64_t t1) {
    panel w;
    for (int64_t r = r0; r < r1; r += PANEL) {
        int rows = r1 - r < PANEL ? (int)(r1 - r) : PANEL;
        for (int64_t column = 0; column < p->n; column += CHUNK) {
            int n_columns = p->n - column < CHUNK ? (int)(p->n - column) : CHUNK;
            for (int lane = 0; lane < PANEL; lane += 8) {
                const uint8_t *pointers[8];
                row_pointers(p, r + lane < r1 ? r + lane : r1 - 1, r1, pointers);
                pack_rows(type, pointers, column / 32, n_columns / 32, lane, &w);
            }
            multiply(p, &w, r, rows, column, n_columns, t0, t1);
        }
    }
}

/* ---------------------------------------------------------------- one function a type */

/* Below this many tokens the interleaving costs more than it saves. */
enum { MANY = 6 };

#define DEFINE_TYPE(TYPE, name, id, block, bytes, group, offset, top, has_min) \
    static void multiply_##name(const sl_product *p, const panel *w, int64_t r, int rows, int64_t column, \
                                int n_columns, int64_t t0, int64_t t1) { \
        multiply_panel(form_of(SL_##TYPE), p, w, r, rows, column, n_columns, t0, t1); \
    } \
    static void codes_##name(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) { \
        if (t1 - t0 < MANY) few_tokens(SL_##TYPE, p, r0, r1, t0, t1); \
        else many_tokens(SL_##TYPE, multiply_##name, p, r0, r1, t0, t1); \
    }
SL_QUANTISED(DEFINE_TYPE)

#define TYPE_ROW(TYPE, name, ...) [SL_##TYPE] = codes_##name,
static void (*const codes_by_type[SL_TYPE_COUNT])(const sl_product *, int64_t, int64_t, int64_t, int64_t) = {
    SL_QUANTISED(TYPE_ROW)
};

static void matmul_codes(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    codes_by_type[p->type](p, r0, r1, t0, t1);
}

#endif
