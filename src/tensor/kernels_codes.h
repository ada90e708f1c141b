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

#define BYTES_CASE(TYPE, name, id, block, bytes, ...) case SL_##TYPE: return bytes;
#define FORM_CASE(TYPE, name, id, block, bytes, group_, offset_, top_, has_min_) \
    case SL_##TYPE: return (sl_codes){NULL, group_, offset_, top_, has_min_};
INLINE sl_codes form_of(sl_type type) {
    switch (type) {
        SL_QUANTISED(FORM_CASE)
        default: return (sl_codes){0};
    }
}

/* Blocks of 256 with vector code below. */
INLINE bool is_k(sl_type type) {
    return type == SL_Q2_K || type == SL_Q3_K || type == SL_Q4_K || type == SL_Q5_K || type == SL_Q6_K
           || type == SL_IQ4_XS;
}

/* Types whose codes are unpacked with vector instructions below; the others go through their scalar unpacker. */
INLINE bool has_vector_codes(sl_type type) {
    return type == SL_Q4_0 || type == SL_Q4_1 || type == SL_Q5_0 || type == SL_Q5_1 || type == SL_Q8_0
           || type == SL_IQ4_NL || type == SL_MXFP4 || is_k(type);
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
    __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), which);
    __m256i select = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

INLINE __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Bits [shift, shift + n) of each byte, mask = 2^n - 1. */
INLINE __m256i bit_field(__m256i v, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)mask));
}

/* Nibbles to the values of a four-bit code book. */
INLINE __m256i look_up(const int8_t table[16], __m256i nibbles) {
    __m128i values = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles);
}

/* 0..12 and -12..0 to 0..24, as the type's offset asks. */
INLINE __m256i fp4_codes(__m256i nibbles) {
    return _mm256_add_epi8(look_up(sl_fp4_values, nibbles), _mm256_set1_epi8(12));
}

/* Bytes of a block of a vector-unpacked type, and where its codes begin. */
INLINE int64_t block_bytes(sl_type type) {
    switch (type) {
        SL_QUANTISED(BYTES_CASE)
        default: return 0;
    }
}
INLINE int codes_at(sl_type type) {
    switch (type) {
        case SL_Q4_1: return 4;
        case SL_Q5_0: return 6;
        case SL_Q5_1: return 8;
        case SL_MXFP4: return 1;
        default: return 2; /* an f16 scale, then the codes */
    }
}

/* Codes of group-of-32 `b` of a row: code + offset where the type has a top, else the signed code. */
INLINE __m256i codes_of(sl_type type, const uint8_t *row, int64_t b) {
    const uint8_t *block = row + (is_k(type) ? b / 8 : b) * block_bytes(type), *qs = block + codes_at(type);
    int j = (int)(b % 8);
    switch (type) {
        case SL_Q4_0:
        case SL_Q4_1: return nibbles_to_bytes(qs);
        case SL_Q5_0:
        case SL_Q5_1: return _mm256_or_si256(nibbles_to_bytes(qs), bits_to_16(qs - 4));
        case SL_Q8_0: return load32(qs);
        case SL_IQ4_NL: return look_up(sl_iq4_values, nibbles_to_bytes(qs));
        case SL_MXFP4: return fp4_codes(nibbles_to_bytes(qs));
        case SL_IQ4_XS: return look_up(sl_iq4_values, nibbles_to_bytes(block + 8 + 16 * j));
        case SL_Q2_K: return bit_field(load32(block + 16 + j / 4 * 32), j % 4 * 2, 3);
        case SL_Q3_K:
            return _mm256_or_si256(bit_field(load32(block + 32 + j / 4 * 32), j % 4 * 2, 3),
                                   _mm256_slli_epi16(bit_field(load32(block), j, 1), 2));
        case SL_Q4_K: return bit_field(load32(block + 16 + j / 2 * 32), j % 2 * 4, 15);
        case SL_Q5_K:
            return _mm256_or_si256(bit_field(load32(block + 48 + j / 2 * 32), j % 2 * 4, 15),
                                   _mm256_slli_epi16(bit_field(load32(block + 16), j, 1), 4));
        case SL_Q6_K:
            return _mm256_or_si256(bit_field(load32(block + j / 4 * 64 + j % 2 * 32), j % 4 / 2 * 4, 15),
                                   _mm256_slli_epi16(bit_field(load32(block + 128 + j / 4 * 32), j % 4 * 2, 3), 4));
        default: return _mm256_setzero_si256();
    }
}

/* ---------------------------------------------------------------- scales of eight rows */

/* Eight rows of eight 4-byte words -> eight vectors with a row a lane. */
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

/* Eight scales of each of eight rows to out[group][row]. */
INLINE void store_transposed(const __m256 by_row[8], float out[][8]) {
    __m256i v[8];
    for (int r = 0; r < 8; r++) v[r] = _mm256_castps_si256(by_row[r]);
    transpose_words(v);
    for (int g = 0; g < 8; g++) _mm256_storeu_ps(out[g], _mm256_castsi256_ps(v[g]));
}

/* Four bytes at the same place of eight rows. */
INLINE __m256i words_of_rows(const uint8_t *const rows[8], int64_t at) {
    return _mm256_setr_epi32((int)sl_load_u32(rows[0] + at), (int)sl_load_u32(rows[1] + at),
                             (int)sl_load_u32(rows[2] + at), (int)sl_load_u32(rows[3] + at),
                             (int)sl_load_u32(rows[4] + at), (int)sl_load_u32(rows[5] + at),
                             (int)sl_load_u32(rows[6] + at), (int)sl_load_u32(rows[7] + at));
}

/* The 16-bit floats at the start of blocks and, after them, a second one where the type has minimums. */
INLINE void f16_of_rows(const uint8_t *const rows[8], int64_t at, float first[8], float *second) {
    __m256i words = words_of_rows(rows, at);
    __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff)), high = _mm256_srli_epi32(words, 16);
    __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8); /* eight firsts, eight seconds */
    _mm256_storeu_ps(first, _mm256_cvtph_ps(_mm256_castsi256_si128(halves)));
    if (second) _mm256_storeu_ps(second, _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
}

/* Types of 32: block b's f16 at its start, and a minimum after it; MXFP4's power of two. */
INLINE void basic_scales(sl_type type, const uint8_t *const rows[8], int64_t b0, int n, span *s) {
    for (int g = 0; g < n; g++) {
        int64_t at = (b0 + g) * block_bytes(type);
        if (type == SL_MXFP4)
            for (int r = 0; r < 8; r++) s->scales[g][r] = sl_e8m0_half(rows[r][at]);
        else f16_of_rows(rows, at, s->scales[g], form_of(type).has_min ? s->mins[g] : NULL);
    }
}

/* Eight bytes times d, each product rounded. */
INLINE __m256 scaled_bytes(uint64_t bytes, bool is_signed, float d) {
    __m128i v = _mm_cvtsi64_si128((long long)bytes);
    __m256i wide = is_signed ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(d));
}

INLINE uint64_t load_u64(const uint8_t *p) { return sl_load_u32(p) | (uint64_t)sl_load_u32(p + 4) << 32; }
INLINE float f16_at(const uint8_t *p) { return _cvtsh_ss(sl_load_u16(p)); }
INLINE __m256 negated(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* Q4_K, Q5_K: eight scales and minimums of six bits (sl_k_scales, four at a time). */
INLINE void k_scales(sl_type type, const uint8_t *const rows[8], int64_t b0, span *s) {
    __m256 scales[8], mins[8];
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = rows[r] + b0 / 8 * block_bytes(type);
        uint32_t a = sl_load_u32(block + 4), b = sl_load_u32(block + 8), c = sl_load_u32(block + 12);
        uint32_t scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
        uint32_t min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
        scales[r] = scaled_bytes((a & 0x3f3f3f3f) | (uint64_t)scale_high << 32, false, f16_at(block));
        mins[r] = negated(scaled_bytes((b & 0x3f3f3f3f) | (uint64_t)min_high << 32, false, f16_at(block + 2)));
    }
    store_transposed(scales, s->scales);
    store_transposed(mins, s->mins);
}

/* Q2_K, Q3_K, Q6_K: sixteen scales. */
INLINE void k16_scales(sl_type type, const uint8_t *const rows[8], int64_t b0, span *s) {
    for (int half = 0; half < 2; half++) {
        __m256 scales[8], mins[8];
        for (int r = 0; r < 8; r++) {
            const uint8_t *block = rows[r] + b0 / 8 * block_bytes(type);
            if (type == SL_Q6_K) {
                scales[r] = scaled_bytes(load_u64(block + 192 + 8 * half), true, f16_at(block + 208));
            } else if (type == SL_Q2_K) {
                uint64_t packed = load_u64(block + 8 * half), low = 0x0f0f0f0f0f0f0f0f;
                scales[r] = scaled_bytes(packed & low, false, f16_at(block + 80));
                mins[r] = negated(scaled_bytes(packed >> 4 & low, false, f16_at(block + 82)));
            } else {
                int8_t sub[16];
                sl_q3_k_scales(block + 96, sub);
                scales[r] = scaled_bytes(load_u64((const uint8_t *)sub + 8 * half), true, f16_at(block + 108));
            }
        }
        store_transposed(scales, s->scales + 8 * half);
        if (type == SL_Q2_K) store_transposed(mins, s->mins + 8 * half);
    }
}

INLINE void iq4_xs_scales(const uint8_t *const rows[8], int64_t b0, span *s) {
    __m256 scales[8];
    for (int r = 0; r < 8; r++) {
        const uint8_t *block = rows[r] + b0 / 8 * 136;
        uint32_t high = sl_load_u16(block + 2), low = sl_load_u32(block + 4);
        int8_t sub[8];
        for (int g = 0; g < 8; g++) sub[g] = (int8_t)((int)((low >> (4 * g) & 15) | (high >> (2 * g) & 3) << 4) - 32);
        scales[r] = scaled_bytes(load_u64((const uint8_t *)sub), true, f16_at(block));
    }
    store_transposed(scales, s->scales);
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
    else if (type == SL_IQ4_XS) iq4_xs_scales(rows, b0, s);
    else if (is_k(type)) k16_scales(type, rows, b0, s);
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

/* Eight vectors, one a row, to two: lane = row, the sums of each vector's lower and upper half. */
INLINE void sum_rows(const __m256i v[8], __m256i *lower, __m256i *upper) {
    __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    *lower = _mm256_permute2x128_si256(a, b, 0x20);
    *upper = _mm256_permute2x128_si256(a, b, 0x31);
}

/* Group of 32 `b0 + j` of eight rows. */
INLINE __m256 add_one(sl_type type, __m256 sum, const uint8_t *const rows[8], const span *s, int64_t b0, int j,
                      const sl_rounded *a) {
    sl_codes form = form_of(type);
    int64_t b = b0 + j;
    __m256i x = load32(a->codes + 32 * b), v[8], first, second; /* columns 0..15, 16..31 */
    for (int r = 0; r < 8; r++) v[r] = dot32(form, span_codes(type, rows, s, b0, j, r), x);
    sum_rows(v, &first, &second);
    if (form.group == 32)
        return add_group(form, sum, _mm256_add_epi32(first, second), s, j, a->scale[b], a->sum32[b]);
    sum = add_group(form, sum, first, s, 2 * j, a->scale[b], a->sum16[2 * b]);
    return add_group(form, sum, second, s, 2 * j + 1, a->scale[b], a->sum16[2 * b + 1]);
}

/* Types whose codes come in pairs of groups cheaply, see below. */
INLINE bool has_pairs(sl_type type) {
    return type == SL_Q4_0 || type == SL_Q4_1 || type == SL_Q5_0 || type == SL_Q5_1 || type == SL_Q8_0
           || type == SL_IQ4_NL || type == SL_MXFP4 || type == SL_Q4_K || type == SL_Q5_K;
}

/* 16 bytes of two places in the halves of one vector. */
INLINE __m256i load16_twice(const uint8_t *p, const uint8_t *q) {
    __m128i lower = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(lower), _mm_loadu_si128((const __m128i *)(const void *)q), 1);
}

/* The fifth bits of 16 columns of two groups, as 16 or 0; qh words in the halves, `byte` the first of two bytes. */
INLINE __m256i fifth_bits(__m256i words, int byte) {
    __m128i which = _mm_set_epi64x((byte + 1) * 0x0101010101010101, byte * 0x0101010101010101);
    __m256i spread = _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(which));
    __m256i select = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

/* Codes of groups b and b + 1 (b even): columns 0..15 of both in the halves of *head, 16..31 in *tail. A dot product
 * then leaves each group's sum in a half, and one reduction serves two groups. */
INLINE void pair_of(sl_type type, const uint8_t *row, int64_t b, __m256i *head, __m256i *tail) {
    __m256i mask = _mm256_set1_epi8(15);
    if (is_k(type)) { /* both groups lie in the nibbles of the same 32 bytes */
        const uint8_t *block = row + b / 8 * block_bytes(type), *qs = block + (type == SL_Q4_K ? 16 : 48) + b % 8 * 16;
        __m256i shift = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
        *head = _mm256_and_si256(_mm256_srlv_epi32(load16_twice(qs, qs), shift), mask);
        *tail = _mm256_and_si256(_mm256_srlv_epi32(load16_twice(qs + 16, qs + 16), shift), mask);
        if (type == SL_Q4_K) return;
        int j = (int)(b % 8);
        __m256i bit = _mm256_setr_epi32(j, j, j, j, j + 1, j + 1, j + 1, j + 1), one = _mm256_set1_epi8(1);
        __m256i h = _mm256_and_si256(_mm256_srlv_epi32(load16_twice(block + 16, block + 16), bit), one);
        __m256i t = _mm256_and_si256(_mm256_srlv_epi32(load16_twice(block + 32, block + 32), bit), one);
        *head = _mm256_or_si256(*head, _mm256_slli_epi16(h, 4));
        *tail = _mm256_or_si256(*tail, _mm256_slli_epi16(t, 4));
        return;
    }
    const uint8_t *p = row + b * block_bytes(type) + codes_at(type), *q = p + block_bytes(type);
    __m256i packed = load16_twice(p, q);
    if (type == SL_Q8_0) {
        *head = packed;
        *tail = load16_twice(p + 16, q + 16);
        return;
    }
    *head = _mm256_and_si256(packed, mask);
    *tail = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
    if (type == SL_Q5_0 || type == SL_Q5_1) {
        int lower = (int)sl_load_u32(p - 4), upper = (int)sl_load_u32(q - 4);
        __m256i words = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_cvtsi32_si128(lower)),
                                                _mm_cvtsi32_si128(upper), 1);
        *head = _mm256_or_si256(*head, fifth_bits(words, 0));
        *tail = _mm256_or_si256(*tail, fifth_bits(words, 2));
    } else if (type == SL_IQ4_NL) {
        *head = look_up(sl_iq4_values, *head);
        *tail = look_up(sl_iq4_values, *tail);
    } else if (type == SL_MXFP4) {
        *head = fp4_codes(*head);
        *tail = fp4_codes(*tail);
    }
}

/* Groups b0 + j and b0 + j + 1 of eight rows. */
INLINE __m256 add_two(sl_type type, __m256 sum, const uint8_t *const rows[8], const span *s, int64_t b0, int j,
                      const sl_rounded *a) {
    sl_codes form = form_of(type);
    int64_t b = b0 + j;
    __m256i x = load32(a->codes + 32 * b), x2 = load32(a->codes + 32 * b + 32), v[8], first, second;
    __m256i x_head = _mm256_permute2x128_si256(x, x2, 0x20), x_tail = _mm256_permute2x128_si256(x, x2, 0x31);
    for (int r = 0; r < 8; r++) {
        __m256i head, tail;
        pair_of(type, rows[r], b, &head, &tail);
        v[r] = dot64(form, head, x_head, tail, x_tail);
    }
    sum_rows(v, &first, &second);
    sum = add_group(form, sum, first, s, j, a->scale[b], a->sum32[b]);
    return add_group(form, sum, second, s, j + 1, a->scale[b + 1], a->sum32[b + 1]);
}

/* Eight rows times one token. `ahead`: bytes from these rows to those that come next. Eight short streams at once are
 * more than the processor's own prefetching follows, so the same columns of the next rows are asked for here. */
INLINE __m256 eight_rows(sl_type type, const uint8_t *const rows[8], const sl_rounded *a, int64_t groups,
                         size_t ahead) {
    __m256 sum = _mm256_setzero_ps();
    span s;
    size_t span_bytes = (size_t)(is_k(type) ? 1 : 8) * (size_t)block_bytes(type);
    for (int64_t b0 = 0; b0 < groups; b0 += 8) {
        for (int r = 0; has_vector_codes(type) && r < 8; r++)
            for (size_t k = 0; k < span_bytes; k += 64)
                _mm_prefetch((const char *)rows[r] + ahead + (size_t)(b0 / 8) * span_bytes + k, _MM_HINT_T0);
        int n = groups - b0 < 8 ? (int)(groups - b0) : 8, j = 0;
        load_span(type, rows, b0, n, &s);
        for (; has_pairs(type) && j + 2 <= n; j += 2) sum = add_two(type, sum, rows, &s, b0, j, a);
        for (; j < n; j++) sum = add_one(type, sum, rows, &s, b0, j, a);
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
            _mm256_storeu_ps(out, eight_rows(type, rows, &a, p->n / 32, 8 * p->row_bytes));
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

/* One packed panel times all tokens. */
INLINE void multiply_panel(sl_codes form, const sl_product *p, const panel *w, int64_t r, int rows, int64_t column,
                           int n_columns, int64_t t0, int64_t t1) {
    tile t = {.rows = rows, .groups = n_columns / form.group, .first = column == 0,
              .bias = p->bias && column + n_columns == p->n ? p->bias + r : NULL};
    for (int64_t token = t0; token < t1;) {
        int n = t1 - token >= TOKENS ? TOKENS : t1 - token >= TOKENS / 2 ? TOKENS / 2 : 1;
        for (int i = 0; i < n; i++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, token + i);
            t.codes[i] = a.codes + column;
            t.scales[i] = a.scale + column / 32;
            t.sums[i] = form.group == 32 ? a.sum32 + column / 32 : a.sum16 + column / 16;
            t.y[i] = p->y + (size_t)(token + i) * p->y_stride + r;
        }
        if (n == TOKENS) multiply_tile(form, w, &t, TOKENS);
        else if (n == TOKENS / 2) multiply_tile(form, w, &t, TOKENS / 2);
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
enum { MANY = 3 };

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
