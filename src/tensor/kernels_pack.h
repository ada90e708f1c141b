/* Packing of rows into panels (panel.h) with 256-bit vectors, for the x86 tables: codes of eight rows are unpacked,
 * transposed so that a word holds four columns of all of them, and folded into the panel's planes. Writes the bytes of
 * sl_panel_pack. */
#ifndef SL_TENSOR_KERNELS_PACK_H
#define SL_TENSOR_KERNELS_PACK_H

#include "tensor/panel.h"

#include <immintrin.h>
#include <string.h>

#define PINLINE static inline __attribute__((always_inline))

PINLINE __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

PINLINE __m256i nibbles_to_bytes(const uint8_t *qs) {
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)qs);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(packed), _mm_srli_epi16(packed, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* Elements in pairs, the first of each in the high nibble. */
PINLINE __m256i nibble_pairs(const uint8_t *qs) {
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)qs), mask = _mm_set1_epi8(15);
    __m128i high = _mm_and_si128(_mm_srli_epi16(packed, 4), mask), low = _mm_and_si128(packed, mask);
    return _mm256_set_m128i(_mm_unpackhi_epi8(high, low), _mm_unpacklo_epi8(high, low));
}

/* Bit i of the 32 becomes byte i: 16 or 0. */
PINLINE __m256i bits_to_16(const uint8_t *qh) {
    __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)sl_load_u32(qh)), which);
    __m256i select = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, select), select);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

/* Bits [shift, shift + n) of each byte, mask = 2^n - 1. */
PINLINE __m256i bit_field(__m256i v, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)mask));
}

/* Stored codes of group-of-32 j of a block: code + offset, the index of a code book, or the signed byte. */
PINLINE __m256i stored_codes(sl_type type, const uint8_t *block, int j) {
    switch (type) {
    case SL_Q4_0:
    case SL_IQ4_NL: return nibbles_to_bytes(block + 2);
    case SL_Q4_1: return nibbles_to_bytes(block + 4);
    case SL_MXFP4: return nibbles_to_bytes(block + 1);
    case SL_NF4:
    case SL_FP4: return nibble_pairs(block + 4 + 16 * j);
    case SL_Q5_0: return _mm256_or_si256(nibbles_to_bytes(block + 6), bits_to_16(block + 2));
    case SL_Q5_1: return _mm256_or_si256(nibbles_to_bytes(block + 8), bits_to_16(block + 4));
    case SL_Q8_0: return load32(block + 2);
    case SL_IQ4_XS: return nibbles_to_bytes(block + 8 + 16 * j);
    case SL_Q2_K: return bit_field(load32(block + 16 + j / 4 * 32), j % 4 * 2, 3);
    case SL_Q3_K: /* the third bit set: nothing is taken away, which is code + 4 */
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

/* Eight rows of eight 4-byte words -> eight vectors with a row a lane. */
PINLINE void transpose_words(__m256i v[8]) {
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

PINLINE void store32(uint8_t *p, __m256i v) { _mm256_storeu_si256((__m256i *)(void *)p, v); }

/* Field `from` of n bits of words [4i, 4i + 4), side by side in the bytes of one plane. */
PINLINE __m256i fold_pairs(const __m256i w[8], int i, int from) {
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++)
        sum = _mm256_or_si256(sum, _mm256_slli_epi16(bit_field(w[4 * i + k], from, 3), 2 * k));
    return sum;
}

/* Bit `from` of the eight words, side by side. */
PINLINE __m256i fold_bits(const __m256i w[8], int from) {
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < 8; k++)
        sum = _mm256_or_si256(sum, _mm256_slli_epi16(bit_field(w[k], from, 1), k));
    return sum;
}

/* Eight words of eight rows into their half of a group (32 of each 64 bytes). */
PINLINE void fold_group(int bits, const __m256i w[8], uint8_t *out) {
    __m256i mask = _mm256_set1_epi8(15);
    if (bits == 8) {
        for (int q = 0; q < 8; q++) store32(out + 64 * q, w[q]);
    } else if (bits < 4) {
        for (int i = 0; i < 2; i++) store32(out + 64 * i, fold_pairs(w, i, 0));
        if (bits == 3) store32(out + 128, fold_bits(w, 2));
    } else {
        for (int q = 0; q < 4; q++)
            store32(out + 64 * q, _mm256_or_si256(_mm256_and_si256(w[q], mask),
                                                  _mm256_slli_epi16(_mm256_and_si256(w[q + 4], mask), 4)));
        if (bits == 5) store32(out + 256, fold_bits(w, 4));
        for (int i = 0; bits == 6 && i < 2; i++) store32(out + 256 + 64 * i, fold_pairs(w, i, 4));
    }
}

/* The panel of up to 16 rows; rows that are not there pack as zeros of the stored form. */
PINLINE void pack_type(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel) {
    sl_panel_form f = sl_panel_form_of(type);
    size_t block_bytes = sl_type_get(type)->bytes;
    for (int64_t b = 0; b < n / f.block; b++, panel += sl_panel_block_bytes(f)) {
        sl_panel_pack_head(type, rows, row_bytes, n_rows, b, panel);
        for (int g = 0; g < f.block / 32; g++)
            for (int half = 0; half < 2; half++) {
                __m256i w[8];
                for (int i = 0; i < 8; i++) {
                    int r = 8 * half + i;
                    w[i] = r < n_rows ? stored_codes(type, rows + (size_t)r * row_bytes + (size_t)b * block_bytes, g)
                                      : _mm256_setzero_si256();
                }
                transpose_words(w);
                fold_group(f.bits, w, panel + f.head_bytes + g * f.group_bytes + 32 * half);
            }
    }
}

#define PACK_CASE(TYPE) case SL_##TYPE: pack_type(SL_##TYPE, rows, row_bytes, n_rows, n, panel); break;
static void pack(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel) {
    switch (type) {
        SL_PANEL_TYPES(PACK_CASE)
        default: break;
    }
}

#endif
