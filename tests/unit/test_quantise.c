/* The quantisers: what the golden figures do not say. */
#include "base/cpu.h"
#include "base/rng.h"
#include "tensor/bnb.h"
#include "tensor/codes.h"
#include "tensor/quantise.h"
#include "tensor/quantise_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 5, COLUMNS = 512, N = ROWS * COLUMNS };

static void fill(float *x, size_t n, uint64_t seed, float scale) {
    sl_rng rng;
    sl_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 6; k++) sum += (double)(sl_rng_next(&rng) >> 11) * 0x1p-53 - 0.5;
        x[i] = (float)sum * scale;
    }
}

static void quantise(sl_type type, const float *x, const float *importance, uint8_t *blocks, float *out) {
    sl_quantise_rows(type, x, ROWS, COLUMNS, importance, blocks);
    sl_type_get(type)->to_float(blocks, out, N);
}

static bool each(int t, sl_type *type) {
    *type = (sl_type)t;
    return sl_type_is_written(*type) && sl_type_get(*type)->is_quantised;
}

static void test_set_codes_undoes_unpack(void **state) {
    static float x[N];
    static uint8_t blocks[N * 4], before[N * 4];
    sl_type type;
    (void)state;
    fill(x, N, 1, 1);
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (!each(t, &type) || type == SL_FP4) continue; /* whose two zeros are one code */
        const sl_type_info *info = sl_type_get(type);
        size_t n = N / info->block;
        sl_quantise_rows(type, x, ROWS, COLUMNS, NULL, blocks);
        memcpy(before, blocks, n * info->bytes);
        for (size_t b = 0; b < n; b++) {
            int8_t codes[SL_MAX_BLOCK];
            float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
            sl_type_codes(type)->unpack(blocks + b * info->bytes, codes, scales, mins);
            sl_block_set_codes(type, blocks + b * info->bytes, codes);
        }
        if (memcmp(before, blocks, n * info->bytes)) fail_msg("%s: bytes differ", info->name);
    }
}

static void test_tables_agree(void **state) {
#if defined(__x86_64__)
    static float x[N], w[N];
    uint8_t a[512], b[512];
    (void)state;
    if (!sl_cpu_features()->avx2) skip();
    fill(x, N, 2, 3);
    fill(w, N, 3, 1);
    for (int i = 0; i < N; i++) w[i] = fabsf(w[i]);
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        const sl_type_info *info = sl_type_get((sl_type)t);
        if (!sl_quantise_plain.block[t]) continue;
        for (int i = 0; i + info->block <= N; i += info->block)
            for (int weighted = 0; weighted < 2; weighted++) {
                memset(a, 0, sizeof a);
                memset(b, 0, sizeof b);
                sl_quantise_plain.block[t](x + i, weighted ? w + i : NULL, a);
                sl_quantise_avx2.block[t](x + i, weighted ? w + i : NULL, b);
                if (memcmp(a, b, info->bytes)) fail_msg("%s at %d: tables differ", info->name, i);
            }
    }
#else
    (void)state;
    skip();
#endif
}

/* Zeros, constants, one value alone, tiny and huge numbers: finite, and near where the type can be near. */
static void test_odd_rows(void **state) {
    static float x[N], out[N];
    static uint8_t blocks[N * 4];
    static const float constants[] = {0, 1, -1, 1e-40f, -3e-7f, 4e4f, 1e30f, -1e30f};
    sl_type type;
    (void)state;
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (!each(t, &type)) continue;
        for (size_t k = 0; k < sizeof constants / sizeof *constants; k++) {
            for (int i = 0; i < N; i++) x[i] = i / COLUMNS == 1 ? (i % COLUMNS == 77 ? constants[k] : 0) : constants[k];
            quantise(type, x, NULL, blocks, out);
            for (int i = 0; i < N; i++) {
                if (!isfinite(out[i])) fail_msg("%s: %g becomes %g", sl_type_get(type)->name, x[i], out[i]);
                bool fits = fabsf(x[i]) > 1e-4f && fabsf(x[i]) < 2e5f && type != SL_Q2_K && type != SL_Q3_K;
                if (fits && fabsf(out[i] - x[i]) > 0.3f * fabsf(x[i]))
                    fail_msg("%s: %g becomes %g", sl_type_get(type)->name, x[i], out[i]);
                bool in_range = fabsf(constants[k]) > 1e-4f && fabsf(constants[k]) < 2e5f; /* of f16 scales */
                if (x[i] == 0 && in_range && fabsf(out[i]) > 0.1f * fabsf(constants[k]))
                    fail_msg("%s: 0 beside %g becomes %g", sl_type_get(type)->name, constants[k], out[i]);
            }
        }
    }
}

static double weighted_error(const float *x, const float *y, const float *importance) {
    double sum = 0;
    for (int i = 0; i < N; i++) sum += importance[i % COLUMNS] * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sum;
}

static void test_importance_helps(void **state) {
    static float x[N], plain[N], guided[N], importance[COLUMNS];
    static uint8_t blocks[N * 4];
    sl_type type;
    (void)state;
    fill(x, N, 4, 1);
    fill(importance, COLUMNS, 5, 3);
    for (int i = 0; i < COLUMNS; i++) importance[i] = expf(2 * importance[i]);
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (!each(t, &type) || sl_float_book(type)) continue;
        quantise(type, x, NULL, blocks, plain);
        quantise(type, x, importance, blocks, guided);
        double a = weighted_error(x, plain, importance), b = weighted_error(x, guided, importance);
        if (b > a) fail_msg("%s: weighted error %g with importance, %g without", sl_type_get(type)->name, b, a);
    }
}

/* A column that text never reached, or one that overflows, must not spoil its block. */
static void test_odd_importance(void **state) {
    static float x[N], out[N], importance[COLUMNS];
    static uint8_t blocks[N * 4];
    static const float values[] = {0, 1e-38f, 3e38f};
    sl_type type;
    (void)state;
    fill(x, N, 6, 1);
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (!each(t, &type)) continue;
        for (int k = 0; k < 3; k++) {
            for (int i = 0; i < COLUMNS; i++) importance[i] = values[k];
            quantise(type, x, importance, blocks, out);
            for (int i = 0; i < N; i++)
                if (!(fabsf(out[i] - x[i]) < 1)) fail_msg("%s: %g becomes %g", sl_type_get(type)->name, x[i], out[i]);
        }
    }
}

/* The element type and bitsandbytes' own layout hold the same codes and largest values. */
static void test_nf4_and_fp4_are_bitsandbytes(void **state) {
    static float x[N], absmax[N / 64];
    static uint8_t blocks[N * 4], packed[N / 2];
    (void)state;
    fill(x, N, 7, 2);
    for (int kind = 0; kind < 2; kind++) {
        sl_quantise_rows(kind ? SL_FP4 : SL_NF4, x, ROWS, COLUMNS, NULL, blocks);
        sl_bnb4_quantise(kind ? SL_BNB_FP4 : SL_BNB_NF4, x, N, 64, packed, absmax);
        for (int b = 0; b < N / 64; b++) {
            assert_memory_equal(blocks + 36 * b, &absmax[b], 4);
            assert_memory_equal(blocks + 36 * b + 4, packed + 32 * b, 32);
        }
    }
}

static void test_floats(void **state) {
    float x[4] = {1.0f, -0.1f, 65504.0f, 1e-8f}, y[4];
    uint16_t bits[4];
    (void)state;
    sl_quantise_rows(SL_F32, x, 1, 4, NULL, y);
    assert_memory_equal(x, y, sizeof x);
    sl_quantise_rows(SL_BF16, x, 2, 2, NULL, bits);
    for (int i = 0; i < 4; i++) assert_int_equal(bits[i], sl_f32_to_bf16(x[i]));
    sl_quantise_rows(SL_F16, x, 1, 4, NULL, bits);
    for (int i = 0; i < 4; i++) assert_int_equal(bits[i], sl_f32_to_f16(x[i]));
    assert_false(sl_type_is_written(SL_IQ2_XS));
    assert_false(sl_type_is_written(SL_I32));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_codes_undoes_unpack), cmocka_unit_test(test_tables_agree), cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_importance_helps), cmocka_unit_test(test_odd_importance), cmocka_unit_test(test_floats),
        cmocka_unit_test(test_nf4_and_fp4_are_bitsandbytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
