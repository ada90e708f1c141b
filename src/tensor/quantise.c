#include "tensor/quantise.h"

#include "base/cpu.h"
#include "tensor/codes.h"
#include "tensor/quantise_table.h"

#include <string.h>

static const sl_quantise_table *table(void) {
#if defined(__x86_64__)
    if (sl_cpu_features()->avx2) return &sl_quantise_avx2;
#endif
    return &sl_quantise_plain;
}

bool sl_type_is_written(sl_type type) {
    return type == SL_F32 || type == SL_F16 || type == SL_BF16 ||
           ((unsigned)type < SL_TYPE_COUNT && sl_quantise_plain.block[type]);
}

static void to_floats(sl_type type, const float *x, size_t n, uint8_t *out) {
    if (type == SL_F32) memcpy(out, x, n * sizeof *x);
    for (size_t i = 0; type != SL_F32 && i < n; i++) {
        uint16_t bits = type == SL_F16 ? sl_f32_to_f16(x[i]) : sl_f32_to_bf16(x[i]);
        memcpy(out + 2 * i, &bits, 2);
    }
}

static float mean_square(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return (float)(sum / (double)n);
}

void sl_quantise_rows(sl_type type, const float *x, int64_t rows, int64_t n, const float *importance, void *out) {
    const sl_type_info *info = sl_type_get(type);
    const sl_quantise_table *t = table();
    uint8_t *block = out;
    float w[SL_MAX_BLOCK];
    if (!info->is_quantised) {
        to_floats(type, x, (size_t)(rows * n), block);
        return;
    }
    for (int64_t r = 0; r < rows; r++, x += n) {
        float square = importance ? mean_square(x, n) : 0;
        for (int64_t i = 0; i < n; i += info->block, block += info->bytes) {
            if (importance) t->weights(x + i, importance + i, square, info->block, w);
            t->block[type](x + i, importance ? w : NULL, block);
        }
    }
}
