/* Packing of rows into panels (panel.h) for the NEON tables: codes of four rows are unpacked, transposed so that a word
 * holds four columns of all of them, and folded into the panel's planes. Writes the bytes of sl_panel_pack. */
#ifndef SL_TENSOR_PACK_NEON_H
#define SL_TENSOR_PACK_NEON_H

#include "tensor/panel.h"

/* Bits [shift, shift + n) of 16 bytes at p, mask = 2^n - 1. */
VINLINE uint8x16_t field(const uint8_t *p, int shift, int mask) {
    return vandq_u8(vshlq_u8(vld1q_u8(p), vdupq_n_s8((int8_t)-shift)), vdupq_n_u8((uint8_t)mask));
}

/* Bits 0..7 of two bytes become 16 bytes of 16 or 0. */
VINLINE uint8x16_t bits_to_16(const uint8_t *p) {
    uint8x16_t both = vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1]));
    uint8x16_t select = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    return vandq_u8(vtstq_u8(both, select), vdupq_n_u8(16));
}

/* Sixteen elements in pairs, the first of each in the high nibble. */
VINLINE uint8x16_t nibble_pairs(const uint8_t *p) {
    uint8x8_t packed = vld1_u8(p);
    uint8x8x2_t pairs = vzip_u8(vshr_n_u8(packed, 4), vand_u8(packed, vdup_n_u8(15)));
    return vcombine_u8(pairs.val[0], pairs.val[1]);
}

/* Stored codes of columns [16 * h, 16 * h + 16) of group-of-32 j of a block: code + offset, the index of a code book, or
 * the signed byte. */
VINLINE uint8x16_t stored_codes(sl_type type, const uint8_t *block, int j, int h) {
    switch (type) {
    case SL_Q4_0:
    case SL_IQ4_NL: return field(block + 2, 4 * h, 15);
    case SL_Q4_1: return field(block + 4, 4 * h, 15);
    case SL_MXFP4: return field(block + 1, 4 * h, 15);
    case SL_NF4:
    case SL_FP4: return nibble_pairs(block + 4 + 16 * j + 8 * h);
    case SL_Q5_0: return vorrq_u8(field(block + 6, 4 * h, 15), bits_to_16(block + 2 + 2 * h));
    case SL_Q5_1: return vorrq_u8(field(block + 8, 4 * h, 15), bits_to_16(block + 4 + 2 * h));
    case SL_Q8_0: return vld1q_u8(block + 2 + 16 * h);
    case SL_IQ4_XS: return field(block + 8 + 16 * j, 4 * h, 15);
    case SL_Q2_K: return field(block + 16 + j / 4 * 32 + 16 * h, j % 4 * 2, 3);
    case SL_Q3_K: /* the third bit set: nothing is taken away, which is code + 4 */
        return vorrq_u8(field(block + 32 + j / 4 * 32 + 16 * h, j % 4 * 2, 3),
                        vshlq_n_u8(field(block + 16 * h, j, 1), 2));
    case SL_Q4_K: return field(block + 16 + j / 2 * 32 + 16 * h, j % 2 * 4, 15);
    case SL_Q5_K:
        return vorrq_u8(field(block + 48 + j / 2 * 32 + 16 * h, j % 2 * 4, 15),
                        vshlq_n_u8(field(block + 16 + 16 * h, j, 1), 4));
    case SL_Q6_K:
        return vorrq_u8(field(block + j / 4 * 64 + j % 2 * 32 + 16 * h, j % 4 / 2 * 4, 15),
                        vshlq_n_u8(field(block + 128 + j / 4 * 32 + 16 * h, j % 4 * 2, 3), 4));
    default: return vdupq_n_u8(0);
    }
}

/* Four rows of four 4-byte words -> four words with a row a lane. */
VINLINE void transpose_words(const uint8x16_t rows[4], uint8x16_t words[4]) {
    uint32x4_t a = vreinterpretq_u32_u8(rows[0]), b = vreinterpretq_u32_u8(rows[1]);
    uint32x4_t c = vreinterpretq_u32_u8(rows[2]), d = vreinterpretq_u32_u8(rows[3]);
    uint64x2_t ab_even = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    uint64x2_t cd_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    words[0] = vreinterpretq_u8_u64(vtrn1q_u64(ab_even, cd_even));
    words[1] = vreinterpretq_u8_u64(vtrn1q_u64(ab_odd, cd_odd));
    words[2] = vreinterpretq_u8_u64(vtrn2q_u64(ab_even, cd_even));
    words[3] = vreinterpretq_u8_u64(vtrn2q_u64(ab_odd, cd_odd));
}

/* Bits [from, from + n) of `count` words from `first` on, side by side in the bytes of one plane. */
VINLINE uint8x16_t fold(const uint8x16_t w[8], int first, int count, int from, int n) {
    uint8x16_t sum = vdupq_n_u8(0), mask = vdupq_n_u8((uint8_t)((1 << n) - 1));
    for (int k = 0; k < count; k++) {
        uint8x16_t bits = vandq_u8(vshlq_u8(w[first + k], vdupq_n_s8((int8_t)-from)), mask);
        sum = vorrq_u8(sum, vshlq_u8(bits, vdupq_n_s8((int8_t)(n * k))));
    }
    return sum;
}

/* Eight words of four rows into their quarter of a group (16 of each 64 bytes). */
VINLINE void fold_group(int bits, const uint8x16_t w[8], uint8_t *out) {
    if (bits == 8) {
        for (int q = 0; q < 8; q++) vst1q_u8(out + 64 * q, w[q]);
    } else if (bits < 4) {
        for (int i = 0; i < 2; i++) vst1q_u8(out + 64 * i, fold(w, 4 * i, 4, 0, 2));
        if (bits == 3) vst1q_u8(out + 128, fold(w, 0, 8, 2, 1));
    } else {
        for (int q = 0; q < 4; q++)
            vst1q_u8(out + 64 * q, vorrq_u8(vandq_u8(w[q], vdupq_n_u8(15)), vshlq_n_u8(w[q + 4], 4)));
        if (bits == 5) vst1q_u8(out + 256, fold(w, 0, 8, 4, 1));
        for (int i = 0; bits == 6 && i < 2; i++) vst1q_u8(out + 256 + 64 * i, fold(w, 4 * i, 4, 4, 2));
    }
}

/* The panel of up to 16 rows; rows that are not there pack as zeros of the stored form. */
VINLINE void pack_type(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel) {
    sl_panel_form f = sl_panel_form_of(type);
    size_t block_bytes = sl_type_get(type)->bytes;
    for (int64_t b = 0; b < n / f.block; b++, panel += sl_panel_block_bytes(f)) {
        sl_panel_pack_head(type, rows, row_bytes, n_rows, b, panel);
        for (int g = 0; g < f.block / 32; g++)
            for (int quarter = 0; quarter < 4; quarter++) {
                uint8x16_t w[8];
                for (int h = 0; h < 2; h++) {
                    uint8x16_t codes[4];
                    for (int i = 0; i < 4; i++) {
                        size_t r = (size_t)(4 * quarter + i);
                        const uint8_t *block = rows + r * row_bytes + (size_t)b * block_bytes;
                        codes[i] = (int)r < n_rows ? stored_codes(type, block, g, h) : vdupq_n_u8(0);
                    }
                    transpose_words(codes, w + 4 * h);
                }
                fold_group(f.bits, w, panel + f.head_bytes + g * f.group_bytes + 16 * quarter);
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
