/* Every operation of ops.h in every table that this machine can run, against double precision computed here; and the
 * promise that a result does not depend on tokens, rows or threads computed together. */
#include "base/pool.h"
#include "base/rng.h"
#include "tensor/codes.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon", "neon_dot"};
enum { N_SETS = sizeof sets / sizeof *sets };

static sl_rng rng;
static int least_sets = 1; /* fewer: a set that should have run did not */
static bool emulated;      /* some shapes less: an emulated processor is 50 times slower */

static float uniform(void) { return (float)(2.0 * sl_rng_uniform(&rng) - 1.0); }

static float *random_floats(size_t n, float scale) {
    float *x = malloc(n * sizeof *x + 4);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = scale * (uniform() + uniform() + uniform());
    return x;
}

/* Runs check for every set of kernels that the machine has. */
static void each_set(void (*check)(const char *set)) {
    int ran = 0;
    for (int i = 0; i < N_SETS; i++) {
        sllm_error error = {0};
        sllm_status status = sl_kernels_choose(sets[i], &error);
        if (status == SLLM_ERROR_UNSUPPORTED) {
            print_message("skipped %s: %s\n", sets[i], error.message);
            continue;
        }
        assert_int_equal(status, SLLM_OK);
        assert_string_equal(sl_kernels_name(), sets[i]);
        check(sets[i]);
        ran++;
    }
    assert_true(ran >= least_sets);
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

/* ---------------------------------------------------------------- weights */

/* Where a type keeps its f16 scales, so that random blocks hold sensible ones. */
static const struct { sl_type type; int at[2]; } f16_fields[] = {
    {SL_Q4_0, {0, -1}}, {SL_Q4_1, {0, 2}}, {SL_Q5_0, {0, -1}}, {SL_Q5_1, {0, 2}},
    {SL_Q8_0, {0, -1}}, {SL_Q8_1, {0, -1}},
    {SL_Q2_K, {80, 82}}, {SL_Q3_K, {108, -1}}, {SL_Q4_K, {0, 2}}, {SL_Q5_K, {0, 2}}, {SL_Q6_K, {208, -1}},
    {SL_IQ1_S, {0, -1}}, {SL_IQ2_XXS, {0, -1}}, {SL_IQ2_XS, {0, -1}}, {SL_IQ2_S, {0, -1}}, {SL_IQ3_XXS, {0, -1}},
    {SL_IQ3_S, {0, -1}}, {SL_IQ4_NL, {0, -1}}, {SL_IQ4_XS, {0, -1}}, {SL_TQ1_0, {52, -1}}, {SL_TQ2_0, {64, -1}},
};

static void put_f16(uint8_t *at, float value) {
    uint16_t h = sl_f32_to_f16(value);
    memcpy(at, &h, 2);
}

/* Random codes with sensible scales; floats for the float types. */
static uint8_t *random_weights(sl_type type, size_t n) {
    const sl_type_info *info = sl_type_get(type);
    size_t bytes = n / info->block * info->bytes;
    uint8_t *w = malloc(bytes);
    assert_non_null(w);
    if (!info->is_quantised) {
        for (size_t i = 0; i < n; i++) {
            float f = uniform();
            double d = f;
            uint16_t half = type == SL_F16 ? sl_f32_to_f16(f) : sl_f32_to_bf16(f);
            const void *value = type == SL_F32 ? (void *)&f : type == SL_F64 ? (void *)&d : (void *)&half;
            memcpy(w + i * info->bytes, value, info->bytes);
        }
        return w;
    }
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)sl_rng_next(&rng);
    for (uint8_t *block = w; block < w + bytes; block += info->bytes) {
        for (size_t f = 0; f < sizeof f16_fields / sizeof *f16_fields; f++)
            for (int k = 0; k < 2 && f16_fields[f].type == type; k++)
                if (f16_fields[f].at[k] >= 0) put_f16(block + f16_fields[f].at[k], 0.02f * uniform());
        float d = 0.02f * uniform();
        if (type == SL_Q8_K || sl_float_book(type)) memcpy(block, &d, 4);
        if (type == SL_IQ1_M) block[55] = (uint8_t)(0x20 | (block[55] & 0x8f)); /* top nibble of the scattered f16 */
        if (type == SL_MXFP4) block[0] = (uint8_t)(118 + block[0] % 8);
        if (type == SL_NVFP4)
            for (int i = 0; i < 4; i++) block[i] %= 0x50;
    }
    return w;
}

/* ---------------------------------------------------------------- products */

/* Squared error of a group rounded so that its largest value becomes `levels`, in the order that kernels_table.h gives. */
static float round_error(const float *x, int64_t n, float amax, float levels) {
    volatile float lanes[8] = {0}, square; /* volatile: rounded at every step, never fused */
    for (int64_t i = 0; i < n; i++) {
        volatile float y = x[i] * (levels / amax), error = y - rintf(y);
        square = error * error;
        lanes[i % 8] = lanes[i % 8] + square;
    }
    float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    return sum * (1.0f / (levels * levels));
}

/* The activation as `fast` sees it: multiples of amax / levels of its group of 32, levels from 127 down to 123.5 by halves. */
static void round_reference(const float *x, int64_t n, double *out) {
    for (int64_t b = 0; b < n; b += 32) {
        int64_t end = b + 32 < n ? b + 32 : n;
        float amax = 0.0f, levels = 127;
        for (int64_t i = b; i < end; i++) amax = fmaxf(amax, fabsf(x[i]));
        for (float other = 126.5f; other >= 123.5f; other -= 0.5f)
            if (round_error(x + b, end - b, amax, other) < round_error(x + b, end - b, amax, levels)) levels = other;
        for (int64_t i = b; i < end; i++)
            out[i] = amax > 0.0f ? rint((double)(x[i] * (levels / amax))) * (double)amax / (double)levels : 0.0;
    }
}

/* The weights as `fast` sees them: scale * code + minimum. The type's own values, but for NF4, whose book integers only
 * approximate. */
static void widen_codes(sl_type type, const uint8_t *block, double *out, size_t n) {
    const sl_type_info *info = sl_type_get(type);
    const sl_codes *form = sl_type_codes(type);
    for (size_t i = 0; i < n; i += info->block, block += info->bytes) {
        int8_t codes[SL_MAX_BLOCK];
        float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS] = {0};
        form->unpack(block, codes, scales, mins);
        for (int k = 0; k < info->block; k++)
            out[i + (size_t)k] = (double)scales[k / form->group] * codes[k] + (double)mins[k / form->group];
    }
}

typedef struct problem {
    sl_tensor w;
    sl_act act;
    float *x, *bias, *widened;
    double *as_fast; /* NULL for float types */
    int64_t rows, n, tokens, experts;
} problem;

static problem new_problem(sl_type type, int64_t experts, int64_t rows, int64_t n, int64_t tokens) {
    problem p = {.rows = rows, .n = n, .tokens = tokens, .experts = experts};
    size_t elements = (size_t)((experts ? experts : 1) * rows * n);
    p.w = (sl_tensor){.name = "w", .type = type, .n_dims = experts ? 3 : 2, .data = random_weights(type, elements),
                      .n_elements = elements};
    int64_t shape[3] = {experts, rows, n};
    memcpy(p.w.shape, experts ? shape : shape + 1, sizeof(int64_t) * (size_t)p.w.n_dims);
    p.widened = malloc(elements * sizeof(float));
    sl_type_get(type)->to_float(p.w.data, p.widened, elements);
    if (sl_type_codes(type)) {
        p.as_fast = malloc(elements * sizeof *p.as_fast);
        assert_non_null(p.as_fast);
        widen_codes(type, p.w.data, p.as_fast, elements);
        for (size_t i = 0; i < elements && !sl_float_book(type); i++)
            assert_true(fabs(p.as_fast[i] - (double)p.widened[i]) <= 1e-6 * fabs((double)p.widened[i]) + 1e-8);
    }
    size_t stride = (size_t)n + 3;
    p.x = random_floats(stride * (size_t)tokens, 2.0f);
    p.bias = random_floats((size_t)rows, 1.0f);
    p.act = (sl_act){.x = p.x, .stride = stride, .n_tokens = tokens, .n = n, .blocks = malloc(sl_act_bytes(tokens, n))};
    assert_non_null(p.act.blocks);
    return p;
}

static void free_problem(problem *p) {
    free((void *)p->w.data);
    free(p->x);
    free(p->bias);
    free(p->widened);
    free(p->as_fast);
    free(p->act.blocks);
}

/* Largest |y - reference| over the sum of |terms|. */
static double product_error(const problem *p, int64_t expert, bool rounded, const float *y, size_t y_stride) {
    double worst = 0.0, *x = malloc((size_t)p->n * sizeof *x);
    int64_t from = (expert > 0 ? expert : 0) * p->rows * p->n;
    for (int64_t t = 0; t < p->tokens; t++) {
        const float *row = p->x + (size_t)t * p->act.stride;
        for (int64_t i = 0; i < p->n; i++) x[i] = row[i];
        if (rounded) round_reference(row, p->n, x);
        for (int64_t r = 0; r < p->rows; r++) {
            double sum = p->bias[r], size = fabs(sum);
            for (int64_t i = 0; i < p->n; i++) {
                int64_t at = from + r * p->n + i;
                double term = (rounded ? p->as_fast[at] : (double)p->widened[at]) * x[i];
                sum += term;
                size += fabs(term);
            }
            double error = fabs(y[(size_t)t * y_stride + (size_t)r] - sum) / size;
            if (!(error <= worst)) worst = error;
        }
    }
    free(x);
    return worst;
}

static void check_products(const char *set) {
    sl_pool *pool = NULL;
    assert_int_equal(sl_pool_new(2, &pool, NULL), SLLM_OK);
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_type_info *info = sl_type_get((sl_type)type);
        if (!info->is_float) continue;
        int64_t n = info->block == 1 ? 1061 : info->block == 256 ? 768 : 576, tokens[] = {1, 3, 21};
        for (int k = 0; k < 3; k++)
            for (int arithmetic = SL_EXACT; arithmetic <= SL_FAST; arithmetic++) {
                problem p = new_problem((sl_type)type, 3, 37, n, tokens[k]);
                size_t y_stride = 41;
                float *y = random_floats(y_stride * (size_t)tokens[k], 1.0f);
                if (arithmetic == SL_FAST) sl_act_round(pool, &p.act);
                sl_matmul(pool, (sl_arithmetic)arithmetic, &p.w, 2, &p.act, p.bias, y, y_stride);
                double error = product_error(&p, 2, arithmetic == SL_FAST && info->is_quantised, y, y_stride);
                if (!(error < 5e-7))
                    fail_msg("%s %s %s, %d tokens: relative error %g", set, info->name,
                             arithmetic == SL_FAST ? "fast" : "exact", (int)tokens[k], error);
                free(y);
                free_problem(&p);
            }
    }
    sl_pool_free(pool);
}

static void test_products(void **state) {
    (void)state;
    each_set(check_products);
}

/* y for the first `tokens` tokens in runs of `step`, with `threads` threads. */
static float *product_in_steps(problem *p, sl_arithmetic arithmetic, int64_t step, int threads) {
    sl_pool *pool = NULL;
    assert_int_equal(sl_pool_new(threads, &pool, NULL), SLLM_OK);
    float *y = calloc((size_t)(p->rows * p->tokens), sizeof *y);
    assert_non_null(y);
    for (int64_t t = 0; t < p->tokens; t += step) {
        sl_act part = p->act;
        part.x += (size_t)t * p->act.stride;
        part.n_tokens = p->tokens - t < step ? p->tokens - t : step;
        sl_act_round(pool, &part);
        sl_matmul(pool, arithmetic, &p->w, -1, &part, p->bias, y + t * p->rows, (size_t)p->rows);
    }
    sl_pool_free(pool);
    return y;
}

static void check_identity(const char *set) {
    bool scalar = !strcmp(set, "scalar");
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_type_info *info = sl_type_get((sl_type)type);
        if (!info->is_float) continue;
        for (int arithmetic = SL_EXACT; arithmetic <= SL_FAST; arithmetic++) {
            int64_t n = info->block == 1 ? 1100 + 20 * arithmetic : 1280; /* 1120: whole vectors; 1100: not */
            problem p = new_problem((sl_type)type, 0, scalar || emulated ? 35 : 131, n, emulated ? 23 : 70);
            float *one = product_in_steps(&p, (sl_arithmetic)arithmetic, 1, 1);
            const int64_t steps[] = {5, 7, 64, 70};
            for (int s = 0; s < 4; s += emulated ? 2 : 1)
                for (int threads = 1; threads <= 3; threads += emulated ? 2 : 1) {
                    float *many = product_in_steps(&p, (sl_arithmetic)arithmetic, steps[s], threads);
                    if (memcmp(one, many, (size_t)(p.rows * p.tokens) * sizeof *one))
                        fail_msg("%s %s: one token and %d tokens differ with %d threads", set, info->name,
                                 (int)steps[s], threads);
                    free(many);
                }
            free(one);
            free_problem(&p);
        }
    }
}

static void test_same_answer_over_tokens_and_threads(void **state) {
    (void)state;
    each_set(check_identity);
}

/* `fast` fixes every rounding, so that instruction sets agree to the bit. */
static void test_same_answer_over_sets(void **state) {
    (void)state;
    for (int type = 0; type < SL_TYPE_COUNT; type++) {
        const sl_type_info *info = sl_type_get((sl_type)type);
        if (!info->is_quantised) continue;
        problem p = new_problem((sl_type)type, 0, 29, 1280, 9);
        assert_int_equal(sl_kernels_choose("scalar", NULL), SLLM_OK);
        float *reference = product_in_steps(&p, SL_FAST, 9, 1);
        for (int i = 1; i < N_SETS; i++) {
            if (sl_kernels_choose(sets[i], NULL) != SLLM_OK) continue;
            for (int64_t step = 1; step < 10; step += 8) {
                float *y = product_in_steps(&p, SL_FAST, step, 1);
                if (memcmp(reference, y, (size_t)(p.rows * p.tokens) * sizeof *y))
                    fail_msg("%s: scalar and %s differ", info->name, sets[i]);
                free(y);
            }
        }
        free(reference);
        free_problem(&p);
    }
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

/* Groups that are zero, tiny, infinite or NaN, and a row that 32 does not divide. */
static void check_rounding(const char *set) {
    (void)set;
    enum { N = 150 };
    float x[N], y[1];
    for (int i = 0; i < N; i++) x[i] = uniform();
    for (int i = 0; i < 32; i++) x[i] = 0.0f;
    for (int i = 32; i < 64; i++) x[i] = 1e-38f;
    sl_act act = {.x = x, .stride = N, .n_tokens = 1, .n = N, .blocks = malloc(sl_act_bytes(1, N))};
    sl_act_round(NULL, &act);
    const int8_t *codes = act.blocks;
    for (int i = 0; i < 64; i++) assert_int_equal(codes[i], 0);
    for (int i = N; i < 160; i++) assert_int_equal(codes[i], 0);
    double reference[N];
    round_reference(x, N, reference);
    for (int i = 64; i < N; i++)
        assert_true((codes[i] > 0) == (reference[i] > 0) && (codes[i] < 0) == (reference[i] < 0));
    free(act.blocks);

    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (int k = 0; k < 3; k++) {
        problem p = new_problem(SL_Q4_0, 0, 1, 64, 1);
        p.x[40] = bad[k];
        sl_act_round(NULL, &p.act);
        sl_matmul(NULL, SL_FAST, &p.w, -1, &p.act, NULL, y, 1);
        assert_true(isnan(y[0])); /* never silently a number */
        free_problem(&p);
    }
}

static void test_rounding(void **state) {
    (void)state;
    each_set(check_rounding);
}

static void test_row(void **state) {
    (void)state;
    problem p = new_problem(SL_Q4_K, 0, 5, 512, 1);
    float row[512];
    sl_row(&p.w, 3, row);
    assert_memory_equal(row, p.widened + 3 * 512, sizeof row);
    free_problem(&p);
}

/* ---------------------------------------------------------------- rows */

static const int64_t lengths[] = {1, 7, 8, 15, 16, 17, 33, 64, 100, 576, 1031};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths, LONGEST = 1031 };

static void assert_close(const char *what, const char *set, int64_t n, int64_t i, double value, double expected,
                         double relative, double absolute) {
    if (fabs(value - expected) <= relative * fabs(expected) + absolute) return;
    fail_msg("%s (%s) of %d values: [%d] is %.9g, should be %.9g", what, set, (int)n, (int)i, value, expected);
}

static void check_norms(const char *set) {
    for (int k = 0; k < N_LENGTHS; k++) {
        int64_t n = lengths[k];
        float *x = random_floats((size_t)n, 3.0f), *weight = random_floats((size_t)n, 1.0f);
        float *bias = random_floats((size_t)n, 1.0f), y[LONGEST], plain[LONGEST];
        double squares = 0.0, mean = 0.0, variance = 0.0;
        for (int64_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
        for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
        for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
        double rms = sqrt(squares / (double)n + 1e-5), deviation = sqrt(variance + 1e-5);
        sl_rms_norm(y, x, weight, n, 1e-5f);
        sl_rms_norm(plain, x, NULL, n, 1e-5f);
        for (int64_t i = 0; i < n; i++) {
            assert_close("rms_norm", set, n, i, y[i], x[i] / rms * weight[i], 1e-6, 0);
            assert_close("rms_norm without weight", set, n, i, plain[i], x[i] / rms, 1e-6, 0);
        }
        sl_layer_norm(y, x, weight, bias, n, 1e-5f);
        for (int64_t i = 0; i < n && n > 1; i++)
            assert_close("layer_norm", set, n, i, y[i], (x[i] - mean) / deviation * weight[i] + bias[i], 2e-6, 3e-6);
        free(x);
        free(weight);
        free(bias);
    }
}

static void check_softmax(const char *set) {
    for (int k = 0; k < N_LENGTHS; k++) {
        int64_t n = lengths[k];
        float *x = random_floats((size_t)n, 8.0f);
        if (n > 8) x[n / 2] = -INFINITY; /* a masked position */
        double top = -INFINITY, sum = 0.0, expected[LONGEST], distance[LONGEST];
        for (int64_t i = 0; i < n; i++) top = fmax(top, x[i]);
        for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
        for (int64_t i = 0; i < n; i++) expected[i] = exp(x[i] - top) / sum;
        for (int64_t i = 0; i < n; i++) distance[i] = isinf(x[i]) ? 0.0 : top - x[i];
        sl_softmax(x, n);
        for (int64_t i = 0; i < n; i++) /* the distance from the maximum is itself rounded to f32 */
            assert_close("softmax", set, n, i, x[i], expected[i], 1e-6 + 1.2e-7 * distance[i], 1e-37);
        free(x);
    }
}

static double silu(double x) { return x / (1.0 + exp(-x)); }
static double gelu_tanh(double x) { return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }
static double gelu_erf(double x) { return 0.5 * x * erfc(-x * sqrt(0.5)); }

static void check_gate(const char *set, const char *what, void (*op)(float *, const float *, const float *, int64_t),
                       double (*reference)(double), bool without_up) {
    for (int k = 0; k < N_LENGTHS; k++) {
        int64_t n = lengths[k];
        float *gate = random_floats((size_t)n, 2.0f), *up = random_floats((size_t)n, 1.0f), y[LONGEST];
        if (n > 16) gate[3] = 60.0f, gate[5] = -60.0f, gate[9] = 0.0f, gate[11] = 1e-6f;
        op(y, gate, up, n);
        for (int64_t i = 0; i < n; i++)
            assert_close(what, set, n, i, y[i], reference(gate[i]) * up[i], 2e-6, 1e-7 * fabs(up[i]));
        if (without_up) op(y, gate, NULL, n);
        for (int64_t i = 0; i < n && without_up; i++)
            assert_close(what, set, n, i, y[i], reference(gate[i]), 2e-6, 1e-7);
        free(gate);
        free(up);
    }
}

static void check_activations(const char *set) {
    check_gate(set, "silu", sl_silu_mul, silu, false);
    check_gate(set, "gelu_tanh", sl_gelu_tanh_mul, gelu_tanh, true);
    check_gate(set, "gelu_erf", sl_gelu_erf_mul, gelu_erf, true);
    for (int k = 0; k < N_LENGTHS; k++) {
        int64_t n = lengths[k];
        float *x = random_floats((size_t)n, 30.0f), *y = random_floats((size_t)n, 30.0f), z[LONGEST];
        memcpy(z, y, (size_t)n * 4);
        sl_add(z, x, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == y[i] + x[i]);
        sl_scale(z, 0.3f, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == (y[i] + x[i]) * 0.3f);
        sl_softcap(y, 30.0f, n);
        sl_softcap(x, 50.0f, n);
        free(x);
        free(y);
        y = random_floats((size_t)n, 30.0f);
        memcpy(z, y, (size_t)n * 4);
        sl_softcap(z, 30.0f, n);
        for (int64_t i = 0; i < n; i++)
            assert_close("softcap", set, n, i, z[i], 30.0 * tanh((double)y[i] / 30.0), 1e-6, 0);
        free(y);
    }
}

/* The vector exponential over its whole range, through a two-element softmax: e^x / (1 + e^x). */
static void check_exponential(const char *set) {
    for (float x = -87.0f; x <= 0.0f; x += 0.0137f) {
        float pair[2] = {0.0f, x};
        sl_softmax(pair, 2);
        assert_close("exp", set, 2, 1, pair[1], exp(x) / (1.0 + exp(x)), 3.6e-7, 0); /* 2 ulp and two roundings */
    }
}

/* Attention of some rows over two pages against a plain sum in doubles over what the tiles hold. */
static void check_pages(const char *set, sl_kv_type type, int dim, int n) {
    enum { ROWS = 7, POSITIONS = 2 * SL_PAGE };
    int width = sl_attend_width(dim);
    size_t key_bytes = sl_kv_tile_bytes(type, dim, false), value_bytes = sl_kv_tile_bytes(type, dim, true);
    float *x = random_floats((size_t)(dim * POSITIONS), 1.0f), *v = random_floats((size_t)(dim * POSITIONS), 1.0f);
    float *q = random_floats((size_t)(dim * ROWS), 2.0f);
    float *states = aligned_alloc(64, (size_t)((ROWS + 1) * width) * 4);
    float *scratch = aligned_alloc(64, 2 * SL_PAGE * (size_t)sl_kv_width(dim) * 4);
    uint8_t *keys = aligned_alloc(64, 2 * key_bytes), *values = aligned_alloc(64, 2 * value_bytes);
    memset(keys, 0xff, 2 * key_bytes); /* positions that are not stored hold NaN */
    memset(values, 0xff, 2 * value_bytes);
    for (int j = 0; j < n; j++) {
        sl_kv_store_key(type, keys + (size_t)(j / SL_PAGE) * key_bytes, j % SL_PAGE, x + j * dim, dim);
        sl_kv_store_value(type, values + (size_t)(j / SL_PAGE) * value_bytes, j % SL_PAGE, v + j * dim, dim);
    }
    sl_attend_row rows[ROWS];
    uint64_t visible[ROWS][2];
    for (int r = 0; r < ROWS; r++) { /* a causal edge, a window, holes */
        int last = n - 1 - r > 0 ? n - 1 - r : 0, first = r == 3 && last > 40 ? last - 40 : 0;
        sl_attend_clear(states + r * width, dim);
        visible[r][0] = visible[r][1] = 0;
        for (int j = first; j <= last; j++)
            if (r != 5 || j % 3 == 0) visible[r][j / SL_PAGE] |= (uint64_t)1 << (j % SL_PAGE);
    }
    sl_attend_task task = {.type = type, .head_dim = dim, .scale = 1 / sqrtf((float)dim), .scratch = scratch,
                           .softcap = dim == 80 ? 5.0f : 0};
    for (int page = 0; page < 2; page++) {
        int some = 0;
        task.keys = keys + (size_t)page * key_bytes;
        task.values = values + (size_t)page * value_bytes;
        for (int r = 0; r < ROWS; r++)
            if (visible[r][page])
                rows[some++] = (sl_attend_row){q + r * dim, states + r * width, visible[r][page]};
        if (some) sl_attend_page(&task, rows, some);
    }
    for (int r = 0; r < ROWS; r++) {
        float out[256], *alone = states + ROWS * width;
        double p[POSITIONS], sum = 0;
        for (int j = 0; j < n; j++) {
            double score = 0;
            for (int i = 0; i < dim; i++)
                score += (double)q[r * dim + i] *
                         sl_kv_key_at(type, keys + (size_t)(j / SL_PAGE) * key_bytes, j % SL_PAGE, i, dim);
            score *= task.scale;
            if (task.softcap > 0) score = task.softcap * tanh(score / task.softcap);
            p[j] = visible[r][j / SL_PAGE] >> j % SL_PAGE & 1 ? exp(score) : 0;
            sum += p[j];
        }
        sl_attend_finish(states + r * width, dim, out);
        for (int i = 0; i < dim; i++) {
            double mix = 0, size = 0;
            for (int j = 0; j < n; j++) {
                double value = sl_kv_value_at(type, values + (size_t)(j / SL_PAGE) * value_bytes, j % SL_PAGE, i, dim);
                mix += p[j] / sum * value;
                size += p[j] / sum * fabs(value);
            }
            assert_close("attention", set, n, i, out[i], mix, 0, 1e-5 * size);
        }
        sl_attend_clear(alone, dim); /* the same bits without the other rows */
        for (int page = 0; page < 2; page++) {
            if (!visible[r][page]) continue;
            task.keys = keys + (size_t)page * key_bytes;
            task.values = values + (size_t)page * value_bytes;
            sl_attend_page(&task, &(sl_attend_row){q + r * dim, alone, visible[r][page]}, 1);
        }
        assert_memory_equal(alone, states + r * width, (size_t)(SL_STATE_MIX + dim) * 4);
    }
    free(x);
    free(v);
    free(q);
    free(states);
    free(scratch);
    free(keys);
    free(values);
}

/* What is stored is within half a step of what was to be stored. */
static void check_stored(const char *set, sl_kv_type type) {
    enum { DIM = 64 };
    float *x = random_floats(DIM, 1.0f);
    uint8_t *tile = aligned_alloc(64, sl_kv_tile_bytes(SL_KV_F32, DIM, true));
    double step = type == SL_KV_F32 ? 0 : type == SL_KV_F16 ? 1.0 / 1024 : type == SL_KV_Q8_0 ? 1.01 / 254 : 1.01 / 8;
    for (int slot = 0; slot < SL_PAGE; slot += 9)
        for (int values = 0; values < 2; values++) {
            if (values) sl_kv_store_value(type, tile, slot, x, DIM);
            else sl_kv_store_key(type, tile, slot, x, DIM);
            for (int i = 0; i < DIM; i++) {
                double amax = 0;
                for (int j = i / 32 * 32; j < i / 32 * 32 + 32; j++) amax = fmax(amax, fabs((double)x[j]));
                float held = values ? sl_kv_value_at(type, tile, slot, i, DIM)
                                    : sl_kv_key_at(type, tile, slot, i, DIM);
                assert_close(values ? "stored value" : "stored key", set, slot, i, held, (double)x[i], 0, step * amax);
            }
        }
    free(x);
    free(tile);
}

static void check_attention(const char *set) {
    static const int dims[] = {8, 20, 64, 80, 96, 128, 256}, positions[] = {1, 3, 64, 65, 128};
    for (int type = SL_KV_F32; type <= SL_KV_Q4_0; type++) {
        check_stored(set, (sl_kv_type)type);
        for (int d = 0; d < 7; d++)
            for (int k = 0; k < 5; k++)
                if (sl_kv_type_holds((sl_kv_type)type, dims[d]))
                    check_pages(set, (sl_kv_type)type, dims[d], positions[k]);
    }
}

static void check_rows(const char *set) {
    check_norms(set);
    check_softmax(set);
    check_activations(set);
    check_exponential(set);
    check_attention(set);
}

static void test_rows(void **state) {
    (void)state;
    each_set(check_rows);
}

static void test_choice(void **state) {
    (void)state;
    sllm_error error = {0};
    assert_int_equal(sl_kernels_choose("sse9", &error), SLLM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "sse9"));
    assert_int_equal(sl_kernels_choose("scalar", &error), SLLM_OK);
    assert_string_equal(sl_kernels_name(), "scalar");
    assert_int_equal(sl_kernels_choose("auto", &error), SLLM_OK);
#if defined(__aarch64__)
    assert_string_equal(sl_kernels_name(), "scalar"); /* until a run on hardware is in bench/SPEED.md */
#endif
}

/* An argument says that this processor is emulated, and how many sets must run on it. */
int main(int argc, char **argv) {
    emulated = argc > 1;
    if (emulated) least_sets = atoi(argv[1]);
    sl_rng_seed(&rng, 7);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_same_answer_over_sets),
        cmocka_unit_test(test_same_answer_over_tokens_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
