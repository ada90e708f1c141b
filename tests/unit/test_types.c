/* The table of element types: facts of the GGUF format, bit-exact widening against reference vectors, conversions. */
#include "format/safetensors.h"
#include "tensor/codes.h"
#include "tensor/types.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Every type's reference rows (quantised by llama.cpp, widened by gguf-py), a cut of the shared golden data. */
#define VECTORS SLLM_SOURCE_DIR "/tests/golden/data/quant/ggml/vectors.safetensors"

static void test_vectors(void **state) {
    (void)state;
    sl_safetensors *file = NULL;
    sllm_error error = {0};
    if (sl_safetensors_open(VECTORS, &file, &error) != SLLM_OK) fail_msg("%s", error.message);
    int checked = 0;
    for (size_t i = 0; i < sl_safetensors_count(file); i++) {
        const sl_tensor *packed = sl_safetensors_at(file, i);
        char name[64];
        int length = (int)strcspn(packed->name, ".");
        if (strcmp(packed->name + length, ".packed")) continue;
        snprintf(name, sizeof name, "%.*s", length, packed->name);
        sl_type type;
        assert_true(sl_type_from_name(name, &type));
        strcat(name, ".dequant");
        const sl_tensor *expected = sl_safetensors_get(file, name);
        assert_non_null(expected);
        uint64_t bytes;
        assert_true(sl_type_bytes(type, expected->n_elements, &bytes));
        assert_int_equal(bytes, packed->bytes);
        float *out = malloc(expected->bytes);
        assert_non_null(out);
        sl_type_get(type)->to_float(packed->data, out, expected->n_elements);
        if (memcmp(out, expected->data, expected->bytes)) fail_msg("%s: widened values differ", name);
        free(out);
        checked++;
    }
    assert_int_equal(checked, 25);
    sl_safetensors_close(file);
}

/* Types without reference vectors: their blocks are built by hand. */
static void test_q8_1_and_q8_k(void **state) {
    (void)state;
    uint8_t q8_1[36] = {0}, q8_k[292] = {0};
    float out[256], d = 0.375f;
    uint16_t half = sl_f32_to_f16(0.5f);
    memcpy(q8_1, &half, 2);
    memcpy(q8_k, &d, 4);
    for (int i = 0; i < 32; i++) q8_1[4 + i] = (uint8_t)(8 * i - 128);
    for (int i = 0; i < 256; i++) q8_k[4 + i] = (uint8_t)(i - 128);
    sl_type_get(SL_Q8_1)->to_float(q8_1, out, 32);
    for (int i = 0; i < 32; i++) assert_true(out[i] == 0.5f * (float)(8 * i - 128));
    sl_type_get(SL_Q8_K)->to_float(q8_k, out, 256);
    for (int i = 0; i < 256; i++) assert_true(out[i] == 0.375f * (float)(i - 128));
}

/* NF4's integers are the nearest multiples of its unit. */
static void test_nf4_book(void **state) {
    (void)state;
    double squares = 0.0;
    for (int i = 0; i < 16; i++) {
        double error = fabs(sl_nf4_codes[i] * (double)SL_NF4_UNIT - (double)sl_nf4_values[i]);
        assert_true(error <= 0.5 * (double)SL_NF4_UNIT);
        squares += error * error;
    }
    assert_true(sqrt(squares / 16.0) < 0.00172);
}

/* The ranges that kernels rely on, over random blocks. */
static void test_code_ranges(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_codes *form = sl_type_codes((sl_type)type);
        const sl_type_info *info = sl_type_get((sl_type)type);
        assert_int_equal(form != NULL, info->is_quantised);
        if (!form) continue;
        assert_true(info->block <= SL_MAX_BLOCK && info->block / form->group <= SL_MAX_GROUPS);
        int low = 127, high = -128;
        for (int round = 0; round < 500; round++) {
            uint8_t block[292];
            int8_t codes[SL_MAX_BLOCK];
            float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
            for (int i = 0; i < info->bytes; i++) block[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
            form->unpack(block, codes, scales, mins);
            for (int i = 0; i < info->block; i++) {
                low = codes[i] < low ? codes[i] : low;
                high = codes[i] > high ? codes[i] : high;
            }
        }
        if (form->top && (low + form->offset < 0 || high + form->offset > form->top))
            fail_msg("%s: codes from %d to %d", info->name, low, high);
    }
}

static void test_names_and_numbers(void **state) {
    (void)state;
    static const struct { const char *name; int ggml_id; } facts[] = {
        {"F32", 0}, {"F16", 1}, {"Q4_0", 2}, {"Q8_0", 8}, {"Q6_K", 14}, {"IQ4_XS", 23}, {"I32", 26}, {"F64", 28},
        {"IQ1_M", 29}, {"BF16", 30}, {"TQ2_0", 35}, {"MXFP4", 39}, {"NVFP4", 40},
    };
    sl_type type, other;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        assert_true(sl_type_from_ggml(facts[i].ggml_id, &type));
        assert_string_equal(sl_type_get(type)->name, facts[i].name);
        assert_true(sl_type_from_name(facts[i].name, &other) && other == type);
    }
    const int64_t unknown[] = {-1, 4, 5, 31, 36, 41, 1000, INT64_MAX, INT64_MIN}; /* removed, or never given */
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) assert_false(sl_type_from_ggml(unknown[i], &type));
    assert_true(sl_type_from_name("q4_k", &type) && type == SL_Q4_K);
    assert_true(sl_type_from_name("nf4", &type) && type == SL_NF4 && sl_type_get(type)->ggml_id == -1);
    assert_false(sl_type_from_name("Q4", &type));
    assert_true(sl_type_from_safetensors("BF16", &type) && type == SL_BF16);
    assert_false(sl_type_from_safetensors("Q4_0", &type));
    assert_false(sl_type_from_safetensors("bf16", &type));
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        const sl_type_info *info = sl_type_get((sl_type)t);
        assert_non_null(info);
        assert_true(info->name && info->block && info->bytes && info->is_float == (info->to_float != NULL));
    }
}

static void test_bytes(void **state) {
    (void)state;
    uint64_t bytes = 0;
    assert_true(sl_type_bytes(SL_Q4_K, 512, &bytes) && bytes == 288);
    assert_false(sl_type_bytes(SL_Q4_K, 511, &bytes));
    assert_true(sl_type_bytes(SL_F32, UINT64_MAX / 4, &bytes));
    assert_false(sl_type_bytes(SL_F32, UINT64_MAX / 4 + 1, &bytes));
    assert_false(sl_type_bytes(SL_TYPE_COUNT, 32, &bytes));
}

/* All 65,536 halves against ldexp, and back. */
static void test_f16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
        float f = sl_f16_to_f32((uint16_t)h);
        if (exponent == 31 && mantissa) {
            assert_true(isnan(f) && isnan(sl_f16_to_f32(sl_f32_to_f16(f))));
            continue;
        }
        double expected = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        if (exponent == 31) expected = INFINITY;
        assert_true(f == (float)(h & 0x8000 ? -expected : expected));
        assert_int_equal(sl_f32_to_f16(f), h);
    }
}

/* Nearest even: between each half and the next, the middle and its neighbours. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = sl_f16_to_f32((uint16_t)h), high = sl_f16_to_f32((uint16_t)(h + 1)), middle = (low + high) / 2;
        assert_int_equal(sl_f32_to_f16(middle), h + (h & 1));
        assert_int_equal(sl_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(sl_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(sl_f32_to_f16(-middle), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(sl_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(sl_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(sl_f32_to_f16(1e-10f), 0);
}

static void test_bf16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sl_bf16_to_f32((uint16_t)h);
        if (isnan(f)) assert_true(isnan(sl_bf16_to_f32(sl_f32_to_bf16(f))));
        else assert_int_equal(sl_f32_to_bf16(f), h);
    }
    assert_int_equal(sl_f32_to_bf16(1.00390625f), 0x3f80);  /* 1 + 2^-8: half way, to even */
    assert_int_equal(sl_f32_to_bf16(1.01171875f), 0x3f82);  /* 1 + 3 * 2^-8: half way, to even */
    assert_int_equal(sl_f32_to_bf16(3.4e38f), 0x7f80);      /* rounds to infinity */
    assert_true(isnan(sl_bf16_to_f32(sl_f32_to_bf16(NAN))));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_numbers),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_nf4_book),
        cmocka_unit_test(test_code_ranges),
        cmocka_unit_test(test_q8_1_and_q8_k),
        cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
