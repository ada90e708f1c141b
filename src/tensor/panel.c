/* Packing and unpacking of panels in plain C: the reference for the vector tables' packers, and what reads single rows. */
#include "tensor/panel.h"

#include <string.h>

size_t sl_panel_bytes(sl_type type, int64_t n) {
    sl_panel_form f = sl_panel_form_of(type);
    return f.head == SL_HEAD_NONE ? 0 : (size_t)(n / f.block) * (size_t)sl_panel_block_bytes(f);
}

static int groups_of(sl_panel_form f) { return f.block / f.group; }

/* ---------------------------------------------------------------- heads */

/* Where a block keeps its f16 scale and minimum. */
static void float_places(sl_type type, int *scale, int *minimum) {
    *scale = type == SL_Q6_K ? 208 : type == SL_Q3_K ? 108 : type == SL_Q2_K ? 80 : 0;
    *minimum = *scale + 2;
}

/* Integer scales and minimums of one row's block of 256, [groups] each. */
static void integer_scales(sl_type type, const uint8_t *block, uint8_t *scales, uint8_t *mins) {
    switch (type) {
    case SL_Q4_K:
    case SL_Q5_K: sl_k_scales(block + 4, scales, mins); break;
    case SL_Q2_K: memcpy(scales, block, 16); break; /* both nibbles as they are */
    case SL_Q3_K: sl_q3_k_scales(block + 96, (int8_t *)scales); break;
    case SL_Q6_K: memcpy(scales, block + 192, 16); break;
    case SL_IQ4_XS: {
        uint32_t high = sl_load_u16(block + 2), low = sl_load_u32(block + 4);
        for (int g = 0; g < 8; g++) scales[g] = (uint8_t)(((low >> (4 * g) & 15) | (high >> (2 * g) & 3) << 4) - 32);
        break;
    }
    default: break;
    }
}

static void put_half(uint8_t *at, uint16_t bits) { memcpy(at, &bits, sizeof bits); }

/* Types of 32 columns with the f16 scale, and minimum, at a block's start: small blocks, so there are many heads. */
static void pack_plain_head(const uint8_t *block, size_t row_bytes, int n_rows, bool has_min, uint8_t *head) {
    for (int r = 0; r < n_rows; r++, block += row_bytes) {
        memcpy(head + 2 * r, block, 2);
        if (has_min) memcpy(head + 32 + 2 * r, block + 2, 2);
    }
}

void sl_panel_pack_head(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t b, uint8_t *head) {
    sl_panel_form f = sl_panel_form_of(type);
    size_t block_bytes = sl_type_get(type)->bytes;
    int scale_at, min_at, groups = groups_of(f);
    bool has_min = sl_type_codes(type)->has_min;
    if (n_rows < SL_PANEL_ROWS) memset(head, 0, (size_t)f.head_bytes);
    if (f.head == SL_HEAD_F16 || f.head == SL_HEAD_F16_MIN) {
        pack_plain_head(rows + (size_t)b * block_bytes, row_bytes, n_rows, has_min, head);
        return;
    }
    float_places(type, &scale_at, &min_at);
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *block = rows + (size_t)r * row_bytes + (size_t)b * block_bytes;
        uint8_t scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS], *bytes = head + (has_min ? 64 : 32) + r;
        if (f.head == SL_HEAD_NF4 || f.head == SL_HEAD_FP4) {
            memcpy(head + 4 * r, block, 4);
            continue;
        }
        if (f.head == SL_HEAD_BF16) {
            put_half(head + 2 * r, sl_f32_to_bf16(sl_e8m0_half(block[0])));
            continue;
        }
        put_half(head + 2 * r, sl_load_u16(block + scale_at));
        if (has_min) put_half(head + 32 + 2 * r, sl_load_u16(block + min_at));
        integer_scales(type, block, scales, mins);
        for (int g = 0; g < groups; g++) bytes[16 * g] = scales[g];
        for (int g = 0; f.head == SL_HEAD_U8_MIN && g < groups; g++) bytes[16 * (groups + g)] = mins[g];
    }
}

static float f16_of(const uint8_t *p) { return sl_f16_to_f32(sl_load_u16(p)); }

/* Scale and minimum of a group of 32 (counted within the block) of one row. */
static void scale_of(sl_panel_form f, const uint8_t *head, int g, int row, float *scale, float *minimum) {
    const uint8_t *bytes = head + 16 * g + row;
    float d = f16_of(head + 2 * row);
    switch (f.head) {
    case SL_HEAD_NF4: *scale = sl_load_f32(head + 4 * row) * SL_NF4_UNIT; break;
    case SL_HEAD_FP4: *scale = sl_load_f32(head + 4 * row) * SL_FP4_UNIT; break;
    case SL_HEAD_F16_MIN: *minimum = f16_of(head + 32 + 2 * row); *scale = d; break;
    case SL_HEAD_BF16: *scale = sl_bf16_to_f32(sl_load_u16(head + 2 * row)); break;
    case SL_HEAD_I8: *scale = d * (float)(int8_t)bytes[32]; break;
    case SL_HEAD_U8_MIN:
        *scale = d * (float)bytes[64];
        *minimum = -(f16_of(head + 32 + 2 * row) * (float)bytes[64 + 16 * groups_of(f)]);
        break;
    default: *scale = d; break;
    }
}

sl_panel_factors sl_panel_factors_of(sl_type type, const uint8_t *block, int group, int row) {
    sl_panel_form f = sl_panel_form_of(type);
    sl_panel_factors out = {.d = f16_of(block + 2 * row)};
    if (f.head == SL_HEAD_U4_MIN) out.m = f16_of(block + 32 + 2 * row);
    for (int h = 0; h < 2; h++) {
        const uint8_t *byte = block + 16 * (2 * group + h) + row;
        out.scale[h] = f.head == SL_HEAD_U4_MIN ? byte[64] & 15 : (int8_t)byte[32];
        out.minimum[h] = f.head == SL_HEAD_U4_MIN ? byte[64] >> 4 : 0;
    }
    return out;
}

/* ---------------------------------------------------------------- codes */

/* Stored code i of 32 -> its bits into the zeroed 16-row group, and back. */
static void put_code(sl_panel_form f, uint8_t *group, int row, int i, unsigned code) {
    int w = i / 4, at = 4 * row + i % 4;
    if (f.bits == 8) {
        group[64 * w + at] = (uint8_t)code;
        return;
    }
    if (f.bits < 4) {
        group[64 * (w / 4) + at] |= (uint8_t)((code & 3) << 2 * (w % 4));
        if (f.bits == 3) group[128 + at] |= (uint8_t)((code >> 2 & 1) << w);
        return;
    }
    group[64 * (w % 4) + at] |= (uint8_t)((code & 15) << 4 * (w / 4));
    if (f.bits == 5) group[256 + at] |= (uint8_t)((code >> 4 & 1) << w);
    if (f.bits == 6) group[256 + 64 * (w / 4) + at] |= (uint8_t)((code >> 4 & 3) << 2 * (w % 4));
}

static unsigned get_code(sl_panel_form f, const uint8_t *group, int row, int i) {
    int w = i / 4, at = 4 * row + i % 4;
    if (f.bits == 8) return group[64 * w + at];
    if (f.bits < 4) {
        unsigned low = group[64 * (w / 4) + at] >> 2 * (w % 4) & 3;
        return f.bits == 3 ? low | (group[128 + at] >> w & 1u) << 2 : low;
    }
    unsigned low = group[64 * (w % 4) + at] >> 4 * (w / 4) & 15;
    if (f.bits == 5) return low | (group[256 + at] >> w & 1u) << 4;
    if (f.bits == 6) return low | (group[256 + 64 * (w / 4) + at] >> 2 * (w % 4) & 3u) << 4;
    return low;
}

/* Index into the code book of element i of a row's block. */
static unsigned index_of(sl_type type, const uint8_t *block, int i) {
    if (sl_float_book(type)) return sl_nf4_index(block, i);
    const uint8_t *nibbles = block + (type == SL_MXFP4 ? 1 : type == SL_IQ4_NL ? 2 : 8 + 16 * (i / 32));
    return nibbles[i % 16] >> (i % 32 < 16 ? 0 : 4) & 15;
}

static void pack_codes(sl_type type, sl_panel_form f, const uint8_t *block, int row, uint8_t *groups) {
    const sl_codes *form = sl_type_codes(type);
    int8_t codes[SL_MAX_BLOCK];
    float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
    int offset = form->top ? form->offset : 0;
    form->unpack(block, codes, scales, mins);
    for (int i = 0; i < f.block; i++) {
        unsigned code = (unsigned)(codes[i] + offset) & 255;
        if (f.book) code = index_of(type, block, i);
        put_code(f, groups + i / 32 * f.group_bytes, row, i % 32, code);
    }
}

void sl_panel_pack(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel) {
    sl_panel_form f = sl_panel_form_of(type);
    size_t block_bytes = sl_type_get(type)->bytes;
    for (int64_t b = 0; b < n / f.block; b++, panel += sl_panel_block_bytes(f)) {
        sl_panel_pack_head(type, rows, row_bytes, n_rows, b, panel);
        memset(panel + f.head_bytes, 0, (size_t)(sl_panel_block_bytes(f) - f.head_bytes));
        for (int r = 0; r < n_rows; r++)
            pack_codes(type, f, rows + (size_t)r * row_bytes + (size_t)b * block_bytes, r, panel + f.head_bytes);
    }
}

void sl_panel_unpack(sl_type type, const uint8_t *block, int group, int row, int8_t codes[32], float scales[2],
                     float mins[2]) {
    sl_panel_form f = sl_panel_form_of(type);
    const sl_codes *form = sl_type_codes(type);
    const uint8_t *bytes = block + f.head_bytes + group * f.group_bytes;
    for (int i = 0; i < 32; i++) {
        unsigned code = get_code(f, bytes, row, i);
        codes[i] = f.book ? f.book[code] : (int8_t)((int)code - (form->top ? form->offset : 0));
    }
    if (!sl_panel_has_factors(f)) {
        scale_of(f, block, group, row, scales, mins);
        return;
    }
    sl_panel_factors factors = sl_panel_factors_of(type, block, group, row);
    for (int h = 0; h < 2; h++) {
        scales[h] = factors.d * (float)factors.scale[h];
        mins[h] = -(factors.m * (float)factors.minimum[h]);
    }
}

/* By the float book, as the type's to_float. */
static void book_to_float(sl_panel_form f, const float *book, const uint8_t *panel, int row, int64_t n, float *out) {
    for (int64_t column = 0; column < n; column++) {
        const uint8_t *block = panel + column / f.block * sl_panel_block_bytes(f);
        const uint8_t *group = block + f.head_bytes + column % f.block / 32 * f.group_bytes;
        out[column] = book[get_code(f, group, row, (int)(column % 32))] * sl_load_f32(block + 4 * row);
    }
}

void sl_panel_to_float(sl_type type, const uint8_t *panel, int row, int64_t n, float *out) {
    sl_panel_form f = sl_panel_form_of(type);
    bool has_min = sl_type_codes(type)->has_min;
    if (sl_float_book(type)) {
        book_to_float(f, sl_float_book(type), panel, row, n, out);
        return;
    }
    for (int64_t column = 0; column < n; column += 32) {
        int8_t codes[32];
        float scales[2], mins[2];
        sl_panel_unpack(type, panel + column / f.block * sl_panel_block_bytes(f), (int)(column % f.block / 32), row,
                        codes, scales, mins);
        for (int i = 0; i < 32; i++) {
            float value = scales[i / f.group] * (float)codes[i];
            out[column + i] = has_min ? value + mins[i / f.group] : value;
        }
    }
}
