/* GPTQ, AWQ and what they stand on: sums of outer products, their factor, integer groups. */
#include "base/cpu.h"
#include "base/rng.h"
#include "quant/gptq.h"
#include "quant/gram.h"
#include "quant/solve_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COLUMNS = 256, ROWS = 24, TOKENS = 600 };

static const sl_blas *blas;
static float x[TOKENS * COLUMNS], w[ROWS * COLUMNS];

static float uniform(sl_rng *rng) { return (float)sl_rng_uniform(rng); }

static int setup(void **state) {
    sl_rng rng;
    (void)state;
    if (sl_blas_get(&blas, NULL)) return 0; /* every test says that it is skipped */
    sl_rng_seed(&rng, 7);
    float source[TOKENS][8];
    for (int t = 0; t < TOKENS; t++)
        for (int k = 0; k < 8; k++) source[t][k] = uniform(&rng) - 0.5f;
    for (int c = 0; c < COLUMNS; c++) { /* inputs of different sizes that go together, as a model's do */
        float mix[8], size = expf(3 * (uniform(&rng) - 0.5f));
        for (int k = 0; k < 8; k++) mix[k] = uniform(&rng) - 0.5f;
        for (int t = 0; t < TOKENS; t++) {
            float sum = 0.3f * (uniform(&rng) - 0.5f);
            for (int k = 0; k < 8; k++) sum += mix[k] * source[t][k];
            x[t * COLUMNS + c] = size * sum;
        }
    }
    for (int i = 0; i < ROWS * COLUMNS; i++) w[i] = uniform(&rng) + uniform(&rng) - 1;
    return 0;
}

static void need_blas(void) {
    if (!blas || !blas->sgemm) skip();
}

static sl_gram gram_of(sl_pool *pool, bool mirrored) {
    sl_gram g;
    assert_int_equal(sl_gram_new(&g, COLUMNS, NULL), SLLM_OK);
    sl_gram_add(&g, blas, pool, x, 400, COLUMNS);
    sl_gram_add(&g, blas, pool, x + 400 * COLUMNS, TOKENS - 400, COLUMNS);
    if (mirrored) sl_gram_mirror(&g);
    return g;
}

/* The sum is the sum, whatever the number of threads. */
static void test_gram(void **state) {
    sl_pool *pool;
    (void)state;
    need_blas();
    assert_int_equal(sl_pool_new(3, &pool, NULL), SLLM_OK);
    sl_gram a = gram_of(NULL, true), b = gram_of(pool, true);
    assert_memory_equal(a.h, b.h, sizeof(float) * COLUMNS * COLUMNS);
    assert_true(a.count == TOKENS);
    for (int i = 0; i < COLUMNS; i += 17)
        for (int j = 0; j < COLUMNS; j += 13) {
            double sum = 0;
            for (int t = 0; t < TOKENS; t++) sum += (double)x[t * COLUMNS + i] * (double)x[t * COLUMNS + j];
            assert_true(fabs(sum - (double)a.h[i * COLUMNS + j]) < 1e-3 * (1 + fabs(sum)));
        }
    sl_gram_free(&a);
    sl_gram_free(&b);
    sl_pool_free(pool);
}

/* U^T U times the damped matrix is the identity, in the given order of columns too. */
static void check_factor(const int32_t *order) {
    sl_gram h = gram_of(NULL, true), u = gram_of(NULL, true);
    static float scratch[COLUMNS * COLUMNS], inverse[COLUMNS * COLUMNS];
    double mean = 0, worst = 0;
    assert_true(sl_gram_factor(&u, blas, 0.01f, order, scratch));
    for (int i = 0; i < COLUMNS; i++) mean += (double)h.h[i * COLUMNS + i] / COLUMNS;
    for (int i = 0; i < COLUMNS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k <= (i < j ? i : j); k++) sum += (double)u.h[k * COLUMNS + i] * (double)u.h[k * COLUMNS + j];
            inverse[i * COLUMNS + j] = (float)sum;
        }
    for (int i = 0; i < COLUMNS; i += 5)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k < COLUMNS; k++) {
                int a = order ? order[k] : k, b = order ? order[j] : j;
                double v = (double)h.h[a * COLUMNS + b] + (a == b ? 0.01 * mean : 0);
                sum += (double)inverse[i * COLUMNS + k] * v;
            }
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    assert_true(worst < 5e-3);
    sl_gram_free(&h);
    sl_gram_free(&u);
}

static void test_factor(void **state) {
    int32_t order[COLUMNS];
    (void)state;
    need_blas();
    for (int i = 0; i < COLUMNS; i++) order[i] = (i * 37 + 11) % COLUMNS;
    check_factor(NULL);
    check_factor(order);
}

/* A matrix that is not positive definite gets more damping; one of zeros is none of the solver's business but works. */
static void test_factor_of_nothing(void **state) {
    sl_gram g;
    (void)state;
    need_blas();
    assert_int_equal(sl_gram_new(&g, 64, NULL), SLLM_OK);
    assert_true(sl_gram_factor(&g, blas, 0.01f, NULL, NULL));
    for (int i = 0; i < 64; i++) assert_true(fabsf(g.h[i * 65] - 10) < 1e-3f); /* 1 / sqrt(0.01) */
    sl_gram_free(&g);
}

/* Sum over tokens and rows of (W x - Q x)^2. */
static double output_error(const sl_solved *s, const float *column_scale) {
    static float q[ROWS * COLUMNS];
    double sum = 0;
    sl_solved_read(s, 0, ROWS, q);
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < TOKENS; t += 3) {
            double e = 0;
            for (int c = 0; c < COLUMNS; c++) {
                float v = column_scale ? q[r * COLUMNS + c] / column_scale[c] : q[r * COLUMNS + c];
                e += (double)(v - w[r * COLUMNS + c]) * (double)x[t * COLUMNS + c];
            }
            sum += e * e;
        }
    return sum;
}

static double solve_error(sl_target target, bool act_order) {
    sl_gram g = gram_of(NULL, true);
    static float rows[ROWS * COLUMNS], importance[COLUMNS], scratch[COLUMNS * COLUMNS];
    int32_t order[COLUMNS];
    sl_solved out;
    for (int i = 0; i < COLUMNS; i++) {
        importance[i] = g.h[i * (COLUMNS + 1)];
        order[i] = i;
    }
    for (int i = 0; i < COLUMNS; i++) /* selection: the largest first */
        for (int j = i + 1; j < COLUMNS; j++)
            if (importance[order[j]] > importance[order[i]]) {
                int32_t t = order[i];
                order[i] = order[j];
                order[j] = t;
            }
    assert_true(sl_gram_factor(&g, blas, 0.01f, act_order ? order : NULL, scratch));
    sl_gptq gptq = {.blas = blas, .factor = g.h, .order = act_order ? order : NULL, .importance = importance, .n = COLUMNS};
    assert_true(sl_solved_new(&out, target, ROWS, COLUMNS));
    memcpy(rows, w, sizeof w);
    assert_true(sl_gptq_rows(&gptq, rows, 0, 10, &out) && sl_gptq_rows(&gptq, rows + 10 * COLUMNS, 10, ROWS - 10, &out));
    if (act_order && target.type == SL_TYPE_COUNT) {
        out.group_of = malloc(COLUMNS * sizeof *out.group_of);
        assert_non_null(out.group_of);
        for (int i = 0; i < COLUMNS; i++) out.group_of[order[i]] = (int32_t)(i / out.target.grid.group);
    }
    double error = output_error(&out, NULL);
    sl_solved_free(&out);
    sl_gram_free(&g);
    return error;
}

static double round_error(sl_target target, const float *importance) {
    sl_solved out;
    assert_true(sl_solved_new(&out, target, ROWS, COLUMNS));
    sl_solved_round(&out, w, importance, 0, ROWS);
    double error = output_error(&out, NULL);
    sl_solved_free(&out);
    return error;
}

static const sl_target targets[] = {
    {SL_Q4_0, {0}}, {SL_Q4_1, {0}}, {SL_Q5_0, {0}}, {SL_Q5_1, {0}}, {SL_Q8_0, {0}}, {SL_Q2_K, {0}}, {SL_Q3_K, {0}}, {SL_Q4_K, {0}},
    {SL_Q5_K, {0}}, {SL_Q6_K, {0}}, {SL_IQ4_NL, {0}}, {SL_IQ4_XS, {0}}, {SL_MXFP4, {0}},
    {SL_TYPE_COUNT, {4, 64, true}}, {SL_TYPE_COUNT, {4, 128, false}}, {SL_TYPE_COUNT, {8, 1 << 20, true}},
};

/* What the method is for: the outputs are nearer to the true ones than rounding's, for every kind of code. */
static void test_gptq(void **state) {
    (void)state;
    need_blas();
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        double rounded = round_error(targets[i], NULL), plain = solve_error(targets[i], false), ordered = solve_error(targets[i], true);
        if (!(plain < 0.7 * rounded) || !(ordered < 0.7 * rounded))
            fail_msg("%s %d: rounding %g, solved %g, in order of size %g",
                     targets[i].type == SL_TYPE_COUNT ? "integers" : sl_type_get(targets[i].type)->name, targets[i].grid.bits, rounded,
                     plain, ordered);
    }
}

static void test_awq(void **state) {
    (void)state;
    need_blas();
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        sl_gram g = gram_of(NULL, true);
        sl_solve_matrix m = {.source = {.type = SL_F32, .n_dims = 2, .shape = {ROWS, COLUMNS}, .data = w, .n_elements = ROWS * COLUMNS}};
        sl_solve_matrix *list[] = {&m};
        static float scales[COLUMNS], rows[ROWS * COLUMNS], diagonal[COLUMNS], importance[COLUMNS];
        assert_true(sl_solved_new(&m.out, targets[i], ROWS, COLUMNS));
        assert_true(sl_awq_search(&g, blas, NULL, list, 1, NULL, scales));
        m.column_scale = scales;
        sl_solve_rows(&m, 0, ROWS, rows);
        for (int c = 0; c < COLUMNS; c++) {
            diagonal[c] = g.h[c * (COLUMNS + 1)];
            importance[c] = diagonal[c] / (scales[c] * scales[c]);
        }
        sl_solved_round(&m.out, rows, importance, 0, ROWS);
        double scaled = output_error(&m.out, scales), rounded = round_error(targets[i], diagonal);
        if (!(scaled < 1.02 * rounded)) /* every third token is looked at: a hair may be lost where nothing is gained */
            fail_msg("%s %d: rounding %g, scaled %g", targets[i].type == SL_TYPE_COUNT ? "integers" : sl_type_get(targets[i].type)->name,
                     targets[i].grid.bits, rounded, scaled);
        sl_solved_free(&m.out);
        sl_gram_free(&g);
    }
}

/* Columns that are tied have one scale. */
static void test_ties(void **state) {
    sl_solve_matrix m = {.source = {.type = SL_F32, .n_dims = 2, .shape = {ROWS, COLUMNS}, .data = w, .n_elements = ROWS * COLUMNS}};
    sl_solve_matrix *list[] = {&m};
    float scales[COLUMNS];
    int32_t tied[COLUMNS];
    (void)state;
    need_blas();
    sl_gram g = gram_of(NULL, true);
    for (int i = 0; i < COLUMNS; i++) tied[i] = i / 64 / 2 * 64 + i % 64;
    assert_true(sl_solved_new(&m.out, targets[0], ROWS, COLUMNS));
    assert_true(sl_awq_search(&g, blas, NULL, list, 1, tied, scales));
    for (int i = 0; i < COLUMNS; i++) assert_true(scales[i] == scales[i / 128 * 128 + i % 64]);
    assert_true(scales[0] != scales[1]);
    sl_solved_free(&m.out);
    sl_gram_free(&g);
}

static void test_int_grid(void **state) {
    sl_int_grid asymmetric = {4, 32, false}, symmetric = {4, 32, true};
    float values[32], huge[32] = {1e30f}, zeros[32] = {0};
    (void)state;
    for (int i = 0; i < 32; i++) values[i] = 2 + 0.25f * (float)(i % 16); /* 0 is among the values too: scale 0.3833 */
    sl_int_group g = sl_int_grid_fit(asymmetric, values, NULL, 32);
    assert_int_equal(g.zero, 0);
    for (int i = 0; i < 32; i++) {
        int code = sl_int_grid_code(asymmetric, g, values[i]);
        assert_true(code >= 0 && code <= 15 && fabsf((float)(code - g.zero) * g.scale - values[i]) < 0.6f * g.scale);
    }
    g = sl_int_grid_fit(symmetric, zeros, NULL, 32);
    assert_true(g.scale > 0 && g.zero == 8 && sl_int_grid_code(symmetric, g, 0) == 8);
    g = sl_int_grid_fit(symmetric, huge, NULL, 32);
    assert_true(isfinite(g.scale) && sl_int_grid_code(symmetric, g, 1e30f) == 15);
}

static bool all_to_q4(void *user, const void *data, sl_target *target) {
    (void)user;
    (void)data;
    *target = (sl_target){.type = SL_Q4_0};
    return true;
}

/* The blocks of every matrix of the model's first block, solved with so much memory for statistics. */
static sl_buffer solve_first_block(uint64_t gram_bytes) {
    static int32_t ids[SL_SOLVE_CTX * 2];
    const sllm_model_params load = {.n_threads = 2};
    sl_buffer all = {0};
    sl_model *model;
    sl_solve *solve;
    sllm_error error = {0};
    if (sl_model_load(SLLM_SOURCE_DIR "/tests/golden/data/models/mistral-headdim-f16", &load, &model, &error)) fail_msg("%s", error.message);
    assert_true(model->config.n_heads * model->config.head_dim > model->config.n_embd); /* or the order could not matter */
    for (int i = 0; i < 2 * SL_SOLVE_CTX; i++) ids[i] = (int32_t)((unsigned)i * 2654435761u >> 8) % model->config.n_vocab;
    sl_solve_params p = {.method = SL_METHOD_AWQ, .ids = ids, .n_ids = 2 * SL_SOLVE_CTX, .gram_bytes = gram_bytes, .target = all_to_q4};
    if (sl_solve_new(model, &p, &solve, &error) || sl_solve_block(solve, 0, &error)) fail_msg("%s", error.message);
    assert_true(sl_solve_count(solve).solved > 0);
    for (int i = 0; i < solve->n_matrices; i++) {
        const sl_solved *s = &solve->matrices[i].out;
        uint64_t bytes;
        assert_true(sl_type_bytes(SL_Q4_0, (uint64_t)(s->rows * s->columns), &bytes));
        sl_buffer_append(&all, s->blocks, (size_t)bytes);
    }
    sl_solve_free(solve);
    sl_model_free(model);
    return all;
}

/* AWQ goes backwards through a block, since what a product's inputs are divided by is taken up before it; where statistics
 * do not fit the memory at once, and a small one would still fit behind a large one, it must not be taken out of turn. */
static void test_passes_keep_the_order(void **state) {
    (void)state;
    need_blas();
    sl_buffer whole = solve_first_block(0);
    for (uint64_t n = 16; n <= 512; n += 16) {
        sl_buffer parts = solve_first_block(2 * n * n * sizeof(float));
        assert_int_equal(whole.length, parts.length);
        assert_memory_equal(whole.data, parts.data, whole.length);
        sl_buffer_free(&parts);
    }
    sl_buffer_free(&whole);
}

/* A processor newer than the library would be computed for as one of 2004, at an eighth of the speed. */
static void test_blas_uses_the_processor(void **state) {
    static const char *const old[] = {"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Atom", "Sandybridge", "Opteron",
                                      "Opteron_SSE3", "Barcelona", "Bobcat", "Bulldozer"};
    const sl_cpu *cpu = sl_cpu_features();
    (void)state;
    need_blas();
    if (!cpu->avx2 || !cpu->fma || getenv("OPENBLAS_CORETYPE")) skip();
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) assert_string_not_equal(blas->core, old[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blas_uses_the_processor),
        cmocka_unit_test(test_gram), cmocka_unit_test(test_factor), cmocka_unit_test(test_factor_of_nothing), cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_awq), cmocka_unit_test(test_ties), cmocka_unit_test(test_int_grid), cmocka_unit_test(test_passes_keep_the_order),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
