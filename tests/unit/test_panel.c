/* Packed weights: every table packs the same bytes, rows come back bit by bit, and a product of packed weights is the
 * product of the rows they were made from, whatever the table, the number of tokens and of threads. */
#include "base/pool.h"
#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/kernels_table.h"
#include "tensor/ops.h"
#include "tensor/pack.h"
#include "tensor/panel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon", "neon_dot"};
enum { N_SETS = sizeof sets / sizeof *sets, ROWS = 37, COLUMNS = 1280, TOKENS = 21 };

static int least_sets = 1; /* fewer tables here than the first argument says: one that should have run did not */

/* Where a block keeps its f16 scale; a minimum follows it. */
static int scale_at(sl_type type) {
    switch (type) {
    case SL_Q6_K: return 208;
    case SL_Q3_K: return 108;
    case SL_Q2_K: return 80;
    case SL_TQ1_0: return 52;
    case SL_TQ2_0: return 64;
    default: return 0;
    }
}

/* Random codes; exponents of floats kept small, so that no scale is infinite or not a number. */
static uint8_t *random_rows(sl_type type, size_t elements) {
    const sl_type_info *info = sl_type_get(type);
    size_t bytes = elements / info->block * info->bytes;
    uint8_t *w = malloc(bytes);
    sl_rng rng;
    assert_non_null(w);
    sl_rng_seed(&rng, (uint64_t)type + 1);
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)sl_rng_next(&rng);
    for (uint8_t *block = w; block < w + bytes; block += info->bytes) {
        int at = scale_at(type);
        block[at + 1] &= 0xab; /* the top bits of an f16 scale, and of the minimum behind it */
        if (sl_type_codes(type)->has_min) block[at + 3] &= 0xab;
        if (sl_float_book(type)) block[3] &= 0xbf; /* of an f32 */
        if (type == SL_MXFP4) block[0] = (uint8_t)(100 + block[0] % 40);
    }
    return w;
}

static bool has_panels(int type) {
    return sl_type_get((sl_type)type)->is_quantised && sl_panel_form_of((sl_type)type).head != SL_HEAD_NONE;
}

static void test_packing(void **state) {
    (void)state;
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        if (!has_panels(type)) continue;
        size_t row_bytes = COLUMNS / sl_type_get((sl_type)type)->block * sl_type_get((sl_type)type)->bytes;
        size_t panel_bytes = sl_panel_bytes((sl_type)type, COLUMNS);
        assert_true(sl_panel_bytes((sl_type)type, 256) <= SL_PANEL_256);
        uint8_t *w = random_rows((sl_type)type, (size_t)ROWS * COLUMNS);
        uint8_t *expected = malloc(panel_bytes), *panel = malloc(panel_bytes);
        float row[COLUMNS], widened[COLUMNS];
        const int counts[] = {16, 5};
        for (int k = 0; k < 2; k++) {
            sl_panel_pack((sl_type)type, w, row_bytes, counts[k], COLUMNS, expected);
            for (int r = 0; r < counts[k]; r++) {
                sl_type_get((sl_type)type)->to_float(w + (size_t)r * row_bytes, widened, COLUMNS);
                sl_panel_to_float((sl_type)type, expected, r, COLUMNS, row);
                if (memcmp(row, widened, sizeof row)) fail_msg("%s: row %d", sl_type_get((sl_type)type)->name, r);
            }
            for (int s = 0; s < N_SETS; s++) {
                if (sl_kernels_choose(sets[s], NULL) != SLLM_OK) continue;
                memset(panel, 0xee, panel_bytes);
                sl_kernels_get()->pack((sl_type)type, w, row_bytes, counts[k], COLUMNS, panel);
                if (memcmp(panel, expected, panel_bytes))
                    fail_msg("%s packs %s otherwise", sets[s], sl_type_get((sl_type)type)->name);
            }
        }
        free(w);
        free(expected);
        free(panel);
    }
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

/* y [TOKENS, ROWS] in runs of `step` tokens. */
static void multiply(const sl_tensor *w, const float *x, const float *bias, int64_t step, int threads, float *y) {
    sl_pool *pool = NULL;
    void *blocks = malloc(sl_act_bytes(TOKENS, COLUMNS));
    assert_int_equal(sl_pool_new(threads, &pool, NULL), SLLM_OK);
    for (int64_t t = 0; t < TOKENS; t += step) {
        sl_act act = {.x = x + t * COLUMNS, .stride = COLUMNS, .n = COLUMNS, .blocks = blocks,
                      .n_tokens = TOKENS - t < step ? TOKENS - t : step};
        sl_act_round(pool, &act);
        sl_matmul(pool, SL_FAST, w, 1, &act, bias, y + t * ROWS, ROWS);
    }
    sl_pool_free(pool);
    free(blocks);
}

static void test_products(void **state) {
    (void)state;
    static float x[TOKENS * COLUMNS], expected[TOKENS * ROWS], y[TOKENS * ROWS], bias[ROWS];
    sl_rng rng;
    sl_rng_seed(&rng, 5);
    for (int i = 0; i < TOKENS * COLUMNS; i++) x[i] = (float)(sl_rng_uniform(&rng) - 0.5);
    for (int i = 0; i < ROWS; i++) bias[i] = (float)sl_rng_uniform(&rng);
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        if (!has_panels(type)) continue;
        const char *name = sl_type_get((sl_type)type)->name;
        uint8_t *data = random_rows((sl_type)type, (size_t)2 * ROWS * COLUMNS);
        sl_tensor w = {.type = (sl_type)type, .n_dims = 3, .shape = {2, ROWS, COLUMNS}, .data = data};
        assert_int_equal(sl_kernels_choose("scalar", NULL), SLLM_OK);
        multiply(&w, x, bias, 1, 1, expected);
        sl_packer *packer = NULL;
        assert_int_equal(sl_packer_new(&packer, NULL), SLLM_OK);
        assert_int_equal(sl_packer_add(packer, &w, false, NULL), SLLM_OK);
        assert_int_equal(sl_packer_reserve(packer, NULL), SLLM_OK);
        assert_null(sl_packed_peek(&w, 1));
        for (int s = 0; s < N_SETS; s++) {
            if (sl_kernels_choose(sets[s], NULL) != SLLM_OK) continue;
            for (int64_t step = 1; step <= TOKENS; step += step < 8 ? 1 : 13)
                for (int threads = 1; threads <= 2; threads++) {
                    memset(y, 0, sizeof y);
                    multiply(&w, x, bias, step, threads, y);
                    if (memcmp(y, expected, sizeof y)) fail_msg("%s, %s, %d tokens", sets[s], name, (int)step);
                }
        }
        assert_non_null(sl_packed_peek(&w, 1));
        assert_null(sl_packed_peek(&w, 0)); /* an expert that was not used costs nothing */
        sl_packer_free(packer);
        free(data);
    }
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

static void test_sets(void **state) {
    int sets_there = 0;
    (void)state;
    for (int s = 0; s < N_SETS; s++) sets_there += sl_kernels_choose(sets[s], NULL) == SLLM_OK;
    assert_true(sets_there >= least_sets);
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

/* Where the blocks of a type keep integer scales: {first, bytes}. */
static void integer_scales(sl_type type, int place[2]) {
    static const struct { sl_type type; int first, bytes; } places[] = {
        {SL_Q2_K, 0, 16}, {SL_Q3_K, 96, 12}, {SL_Q4_K, 4, 12}, {SL_Q5_K, 4, 12}, {SL_Q6_K, 192, 16},
    };
    place[0] = place[1] = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i].type == type) place[0] = places[i].first, place[1] = places[i].bytes;
}

/* A block of `code` bytes, its integer scales of `scale` bytes, its float scales and minimums 1/64 or near. */
static void extreme_block(sl_type type, uint8_t code, uint8_t scale, uint8_t *block) {
    int at = scale_at(type), place[2];
    const float d = 1.0f / 64.0f;
    uint16_t half = sl_f32_to_f16(d);
    memset(block, code, sl_type_get(type)->bytes);
    integer_scales(type, place);
    memset(block + place[0], scale, (size_t)place[1]);
    if (type == SL_Q8_K || sl_float_book(type)) memcpy(block, &d, 4);
    else if (type == SL_MXFP4) block[0] = 121;
    else if (type == SL_NVFP4) memset(block, 0x38, 4);
    else if (type == SL_IQ1_M) block[55] = (uint8_t)(0x20 | (block[55] & 0x0f)); /* the exponent of its scattered f16 */
    else memcpy(block + at, &half, 2);
    if (sl_type_codes(type)->has_min) memcpy(block + at + 2, &half, 2);
}

/* One pattern in every table, packed, against the scalar table's rows. */
static void check_extreme(sl_type type, const uint8_t *data, const float *x, int pattern, float *expected) {
    static float y[TOKENS * ROWS];
    sl_tensor w = {.type = type, .n_dims = 3, .shape = {2, ROWS, COLUMNS}, .data = data};
    sl_packer *packer = NULL;
    assert_int_equal(sl_kernels_choose("scalar", NULL), SLLM_OK);
    multiply(&w, x, NULL, TOKENS, 1, expected);
    assert_int_equal(sl_packer_new(&packer, NULL), SLLM_OK);
    assert_int_equal(sl_packer_add(packer, &w, false, NULL), SLLM_OK);
    assert_int_equal(sl_packer_reserve(packer, NULL), SLLM_OK);
    for (int s = 0; s < N_SETS; s++) {
        if (sl_kernels_choose(sets[s], NULL) != SLLM_OK) continue;
        for (int64_t step = 1; step <= TOKENS; step += 20) {
            multiply(&w, x, NULL, step, 1, y);
            for (int i = 0; i < TOKENS * ROWS; i++)
                if (memcmp(&y[i], &expected[i], 4))
                    fail_msg("%s, %s, pattern %d: %g, not %g", sets[s], sl_type_get(type)->name, pattern, y[i], expected[i]);
        }
    }
    sl_packer_free(packer);
}

/* The largest codes and integer scales of either sign times the largest activations of either sign, everywhere: what sums
 * of 16 bits must hold, and the scalar table's must be the sums of the widened weights. Random ones stay far below. */
static void test_largest_sums(void **state) {
    (void)state;
    static float x[TOKENS * COLUMNS], expected[TOKENS * ROWS], widened[COLUMNS];
    static const uint8_t bytes[] = {0xff, 0x00, 0x80, 0x7f};
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_type_info *info = sl_type_get((sl_type)type);
        int place[2], blocks = info->is_quantised ? 2 * ROWS * COLUMNS / info->block : 0;
        if (!blocks) continue;
        uint8_t *data = malloc((size_t)blocks * info->bytes);
        assert_non_null(data);
        integer_scales((sl_type)type, place);
        for (int pattern = 0; pattern < (place[1] ? 32 : 8); pattern++) {
            for (int i = 0; i < TOKENS * COLUMNS; i++) x[i] = pattern % 8 < 4 ? 1.0f : -1.0f;
            for (int b = 0; b < blocks; b++)
                extreme_block((sl_type)type, bytes[pattern % 4], bytes[pattern / 8], data + (size_t)b * info->bytes);
            check_extreme((sl_type)type, data, x, pattern, expected);
            double sum = 0.0, size = 0.0;
            info->to_float(data, widened, COLUMNS);
            for (int i = 0; i < COLUMNS; i++) sum += (double)widened[i] * (double)x[0], size += fabs((double)widened[i]);
            double allowed = sl_float_book(type) ? 4e-3 : 1e-6; /* its integers are approximate (codes.h) */
            assert_true(fabs(expected[0] - sum) <= allowed * size);
        }
        free(data);
    }
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_packing), cmocka_unit_test(test_products),
                                       cmocka_unit_test(test_largest_sums), cmocka_unit_test(test_sets)};
    if (argc > 1) least_sets = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
