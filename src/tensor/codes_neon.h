/* Products of quantised weights with rounded activations for the NEON tables, straight from the blocks of the file: four
 * rows at once are unpacked by the type's scalar unpacker, a block at a time, and multiplied with every token; a lane is
 * a row, and each row adds its groups in order (kernels_table.h). */
#ifndef SL_TENSOR_CODES_NEON_H
#define SL_TENSOR_CODES_NEON_H

#include "tensor/kernels_table.h"

#include <string.h>

/* One format block of four rows: codes a row, scales and mins with a row a lane. */
typedef struct four_blocks {
    int8_t codes[4][SL_MAX_BLOCK];
    float scales[SL_MAX_GROUPS][4], mins[SL_MAX_GROUPS][4];
} four_blocks;

static void unpack_four(const sl_codes *form, int groups, const uint8_t *const rows[4], size_t at, four_blocks *out) {
    for (int r = 0; r < 4; r++) {
        float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
        form->unpack(rows[r] + at, out->codes[r], scales, mins);
        for (int g = 0; g < groups; g++) {
            out->scales[g][r] = scales[g];
            if (form->has_min) out->mins[g][r] = mins[g];
        }
    }
}

/* `groups` groups of a block, whose first column is `column`, added to four rows' sums. */
VINLINE vfloat add_blocks(const sl_codes *form, int groups, const four_blocks *w, const sl_rounded *a, int64_t column,
                          vfloat sum) {
    for (int g = 0; g < groups; g++, column += form->group) {
        vint dots[4];
        for (int r = 0; r < 4; r++) {
            dots[r] = vi_set1(0);
            for (int i = 0; i < form->group; i += 16)
                dots[r] = dot16(dots[r], vld1q_s8(w->codes[r] + g * form->group + i), vld1q_s8(a->codes + column + i));
        }
        float x_scale = a->scale[column / 32];
        vfloat scale = vf_mul(vf_load(w->scales[g]), vf_set1(x_scale));
        sum = vf_add(sum, vf_mul(vi_to_vf(sum_rows(dots)), scale));
        if (!form->has_min) continue;
        int32_t total = form->group == 32 ? a->sum32[column / 32] : a->sum16[column / 16];
        sum = vf_add(sum, vf_mul(vf_load(w->mins[g]), vf_set1(x_scale * (float)total)));
    }
    return sum;
}

/* `count` <= 4 rows from r on, tokens [t0, t1). The sums wait in y between blocks. */
static void four_rows(const sl_product *p, int64_t r, int count, int64_t t0, int64_t t1) {
    const sl_type_info *info = sl_type_get(p->type);
    const sl_codes *form = sl_type_codes(p->type);
    int groups = info->block / form->group;
    const uint8_t *rows[4];
    float bias[4] = {0};
    four_blocks w;
    for (int i = 0; i < 4; i++) rows[i] = p->w + (size_t)(r + (i < count ? i : 0)) * p->row_bytes; /* spares are dropped */
    if (p->bias) memcpy(bias, p->bias + r, (size_t)count * 4);
    for (int64_t column = 0; column < p->n; column += info->block) {
        bool last = column + info->block == p->n;
        unpack_four(form, groups, rows, (size_t)(column / info->block) * info->bytes, &w);
        for (int64_t t = t0; t < t1; t++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, t);
            float *y = p->y + (size_t)t * p->y_stride + r, lanes[4] = {0};
            if (column) memcpy(lanes, y, (size_t)count * 4);
            vfloat sum = add_blocks(form, groups, &w, &a, column, vf_load(lanes));
            vf_store(lanes, last && p->bias ? vf_add(sum, vf_load(bias)) : sum);
            memcpy(y, lanes, (size_t)count * 4);
        }
    }
}

static void matmul_codes(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    for (int64_t r = r0; r < r1; r += 4) four_rows(p, r, r1 - r < 4 ? (int)(r1 - r) : 4, t0, t1);
}

#endif
