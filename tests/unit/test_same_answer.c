/* The same answer: a sequence's logits have the same bits whatever the chunk, the threads, the other sequences computed
 * with it, and whether its beginning was computed or shared; for every kind of block, every KV type and every table of
 * kernels that this machine runs. */
#include "model/forward.h"
#include "tensor/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA SLLM_SOURCE_DIR "/tests/golden/data/"
#define SHARED SLLM_SOURCE_DIR "/../shared/golden/"

/* Lengths go beyond a span of 512 positions, a window, longrope's original context. */
static const struct { const char *path; bool exact; int length; bool all_types; } models[] = {
    {DATA "models/llama32", true, 1100, true},
    {DATA "models/gemma3-text", true, 560, true},
    {DATA "models/mixtral", true, 150, false},
    {DATA "models/phi3-longrope", true, 150, false},
    {DATA "models/phi4-mini", true, 560, false},
    {DATA "models/gpt2", true, 60, false},
    {SHARED "models/phi3-small", true, 560, false},
    {SHARED "models/starcoder2", true, 150, false},
    {DATA "quant/gguf/smollm3-p4/smollm3-p4-Q8_0.gguf", false, 560, false},
    {DATA "quant/gguf/mistral-swa/mistral-swa-Q8_0.gguf", false, 560, false},
    {DATA "quant/gguf/qwen2-moe/qwen2-moe-Q8_0.gguf", false, 150, false},
};
enum { N_MODELS = sizeof models / sizeof *models, LONGEST = 1100 };

typedef struct engine {
    sl_model *model;
    sl_work *work;
    sl_kv_pool *pool;
} engine;

static engine open_engine(const char *path, bool exact, int n_threads, sllm_kv_type type, int n_pages) {
    engine e = {0};
    sllm_error error = {0};
    sllm_model_params params = {.exact = exact, .n_threads = n_threads};
    sl_kv_type chosen = SL_KV_F32;
    if (sl_model_load(path, &params, &e.model, &error) ||
        sl_kv_type_choose(&e.model->config, type, exact, e.model->weights->only_f32, &chosen, &error) ||
        sl_work_new(e.model, &e.work, &error) || sl_kv_pool_new(e.model, chosen, n_pages, &e.pool, &error))
        fail_msg("%s", error.message);
    return e;
}

static void close_engine(engine *e) {
    sl_kv_pool_free(e->pool);
    sl_work_free(e->work);
    sl_model_free(e->model);
}

static void assert_same(const engine *e, const float *a, const float *b, const char *what, const char *path) {
    if (memcmp(a, b, (size_t)e->model->config.n_vocab * sizeof *a)) fail_msg("%s: %s changes the logits", path, what);
}

/* The kinds of keys and values that model m is tried with. */
static int types_of(size_t m, sllm_kv_type *types) {
    static const sllm_kv_type all[] = {SLLM_KV_AUTO, SLLM_KV_F32, SLLM_KV_F16, SLLM_KV_Q8_0, SLLM_KV_Q4_0};
    memcpy(types, all, sizeof all);
    return models[m].all_types ? 5 : 1;
}

/* Calls check for every table of kernels that runs here. */
static void each_table(void (*check)(const char *table)) {
    static const char *const tables[] = {"scalar", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!sl_kernels_choose(tables[i], NULL)) check(tables[i]);
    sl_kernels_choose("auto", NULL);
}

/* ---------------------------------------------------------------- chunks, threads */

/* The logits of the last two of n ids, handed over in calls of which the last has two. */
static void feed(engine *e, int chunk, const int32_t *ids, int n, float *logits) {
    sllm_error error = {0};
    sl_kv *kv = NULL;
    sl_forward_params none = {0}, both = {.logits = logits, .all_logits = true};
    e->work->chunk = chunk;
    assert_int_equal(sl_kv_new(e->pool, n, &kv, &error), SLLM_OK);
    if (sl_forward(e->model, e->work, kv, ids, n - 2, &none, &error) ||
        sl_forward(e->model, e->work, kv, ids + n - 2, 2, &both, &error))
        fail_msg("%s", error.message);
    sl_kv_free(kv);
    e->work->chunk = SL_CHUNK;
}

static void chunks_and_threads(size_t m, sllm_kv_type type, const char *table) {
    static const int chunks[] = {512, 64, 7, 1};
    int32_t ids[LONGEST];
    float *first = NULL, *again = NULL;
    int n = type == SLLM_KV_AUTO ? models[m].length : 100;
    if (!strcmp(table, "scalar") && n > 100) n = 100; /* slow, and spans are the same code */
    for (int threads = 1; threads <= 3; threads++) {
        engine e = open_engine(models[m].path, models[m].exact, threads, type, LONGEST / SL_PAGE + 1);
        size_t n_vocab = (size_t)e.model->config.n_vocab;
        uint32_t state = 99;
        for (int i = 0; i < n; i++)
            ids[i] = (int32_t)((state = state * 1664525 + 1013904223) >> 8) % e.model->config.n_vocab;
        if (!first) {
            first = malloc(2 * n_vocab * sizeof *first);
            again = malloc(2 * n_vocab * sizeof *again);
            feed(&e, 512, ids, n, first);
            for (size_t i = 0; i < 2 * n_vocab; i++) assert_true(isfinite(first[i]));
        }
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            feed(&e, chunks[i], ids, n, again);
            if (memcmp(first, again, 2 * n_vocab * sizeof *first))
                fail_msg("%s, %s, KV type %d, %d threads: chunks of %d have other logits", models[m].path, table, type,
                         threads, chunks[i]);
        }
        close_engine(&e);
    }
    free(first);
    free(again);
}

static void all_chunks_and_threads(const char *table) {
    for (size_t m = 0; m < N_MODELS; m++) {
        sllm_kv_type types[5];
        if (access(models[m].path, R_OK)) continue; /* the shared reference models are not everywhere */
        for (int i = 0, n = types_of(m, types); i < n; i++) chunks_and_threads(m, types[i], table);
    }
}

static void test_chunks_and_threads(void **state) {
    (void)state;
    each_table(all_chunks_and_threads);
}

/* ---------------------------------------------------------------- many sequences at once */

enum { MANY = 32, LONG = 90 };

/* Sequence i's tokens: all begin alike, so that prefixes can be shared. */
static void make_sequence(const engine *e, int i, int32_t *ids, int n) {
    uint32_t state = 777;
    for (int j = 0; j < n; j++) {
        if (j == LONG / 2) state += (uint32_t)i * 7919;
        state = state * 1664525 + 1013904223;
        ids[j] = (int32_t)(state >> 8) % e->model->config.n_vocab;
    }
}

static int length_of(int i) { return 1 + i * 37 % (LONG - 3); }

/* The logits of the last `n_last` positions of ids [n], computed alone. */
static void alone(engine *e, const int32_t *ids, int n, int n_last, float *logits) {
    size_t n_vocab = (size_t)e->model->config.n_vocab;
    sllm_error error = {0};
    sl_kv *kv = NULL;
    assert_int_equal(sl_kv_new(e->pool, n, &kv, &error), SLLM_OK);
    if (n > n_last) {
        float *none = malloc(n_vocab * sizeof *none);
        sl_forward_params last = {.logits = none};
        if (sl_forward(e->model, e->work, kv, ids, n - n_last, &last, &error)) fail_msg("%s", error.message);
        free(none);
    }
    sl_forward_params all = {.logits = logits, .all_logits = true};
    if (sl_forward(e->model, e->work, kv, ids + n - n_last, n_last, &all, &error)) fail_msg("%s", error.message);
    sl_kv_free(kv);
}

/* Prompts of all lengths together, then a token each beside new prompts, then forks of what was computed: everywhere the
 * logits of a sequence computed alone. */
static void batch_of(engine *e, int n, const char *path) {
    size_t n_vocab = (size_t)e->model->config.n_vocab;
    int32_t ids[MANY][LONG];
    sl_kv *kv[MANY] = {0}, *fork[MANY] = {0};
    sl_part parts[2 * MANY];
    sllm_error error = {0};
    float *many = malloc(2 * MANY * 3 * n_vocab * sizeof *many), *one = malloc(3 * n_vocab * sizeof *one);
    sl_forward_params params = {.logits = many};
    for (int i = 0; i < n; i++) {
        make_sequence(e, i, ids[i], LONG);
        assert_int_equal(sl_kv_new(e->pool, LONG, &kv[i], &error), SLLM_OK);
        assert_int_equal(sl_kv_new(e->pool, LONG, &fork[i], &error), SLLM_OK);
    }
    int n_parts = 0;
    for (int i = 0; i < n; i += 2) /* the even ones: prompts, the logits of up to two positions */
        parts[n_parts++] = (sl_part){kv[i], ids[i], length_of(i), length_of(i) > 1 ? 1 + i / 2 % 2 : 1};
    if (sl_forward_batch(e->model, e->work, parts, n_parts, &params, &error)) fail_msg("%s", error.message);
    size_t row = 0;
    for (int i = 0; i < n; i += 2) {
        int wanted = parts[i / 2].n_logits;
        alone(e, ids[i], length_of(i), wanted, one);
        if (memcmp(one, many + row * n_vocab, (size_t)wanted * n_vocab * sizeof *one))
            fail_msg("%s: prompt %d of %d in a batch has other logits", path, i, n);
        row += (size_t)wanted;
    }
    n_parts = 0;
    for (int i = 0; i < n; i++) /* the even ones go on by a token, the odd ones begin */
        parts[n_parts++] = i % 2 ? (sl_part){kv[i], ids[i], length_of(i), 1}
                                 : (sl_part){kv[i], ids[i] + length_of(i), 1, 1};
    if (sl_forward_batch(e->model, e->work, parts, n_parts, &params, &error)) fail_msg("%s", error.message);
    for (int i = 0; i < n; i++) {
        alone(e, ids[i], length_of(i) + (i % 2 == 0), 1, one);
        if (memcmp(one, many + (size_t)i * n_vocab, n_vocab * sizeof *one))
            fail_msg("%s: sequence %d of %d, a token beside prompts, has other logits", path, i, n);
    }
    int unused = sl_kv_pool_unused(e->pool);
    n_parts = 0;
    for (int i = 0; i < n; i++) { /* the last one's beginning, shared, and this one's own tokens behind it */
        int shared = sl_kv_length(kv[n - 1]) * (i + 1) / (n + 1);
        if (shared > LONG / 2) shared = LONG / 2;
        if (sl_kv_fork(kv[n - 1], shared, fork[i], &error)) fail_msg("%s", error.message);
        parts[n_parts++] = (sl_part){fork[i], ids[i] + shared, LONG - 1 - shared, 1};
    }
    if (sl_forward_batch(e->model, e->work, parts, n_parts, &params, &error)) fail_msg("%s", error.message);
    for (int i = 0; i < n; i++) {
        alone(e, ids[i], LONG - 1, 1, one);
        if (memcmp(one, many + (size_t)i * n_vocab, n_vocab * sizeof *one))
            fail_msg("%s: fork %d of %d has other logits", path, i, n);
    }
    for (int i = 0; i < n; i++) sl_kv_free(fork[i]);
    assert_int_equal(sl_kv_pool_unused(e->pool), unused);
    for (int i = 0; i < n; i++) { /* and the forks have changed nothing */
        int length = sl_kv_length(kv[i]);
        sl_part part = {kv[i], ids[i] + length, 1, 1};
        if (sl_forward_batch(e->model, e->work, &part, 1, &params, &error)) fail_msg("%s", error.message);
        alone(e, ids[i], length + 1, 1, one);
        assert_same(e, one, many, "having been forked", path);
        sl_kv_free(kv[i]);
    }
    free(many);
    free(one);
}

static void all_batches(const char *table) {
    for (size_t m = 0; m < N_MODELS; m++) {
        sllm_kv_type types[5];
        if (access(models[m].path, R_OK) || models[m].length < LONG) continue;
        for (int i = 0, n = types_of(m, types); i < n; i++) {
            engine e = open_engine(models[m].path, models[m].exact, 2, types[i], 2 * (MANY + 1) * (LONG / SL_PAGE + 1));
            batch_of(&e, 1, models[m].path);
            batch_of(&e, 8, models[m].path);
            if (types[i] == SLLM_KV_AUTO && strcmp(table, "scalar")) batch_of(&e, MANY, models[m].path);
            assert_int_equal(sl_kv_pool_unused(e.pool), 2 * (MANY + 1) * (LONG / SL_PAGE + 1));
            close_engine(&e);
        }
    }
}

static void test_batches(void **state) {
    (void)state;
    each_table(all_batches);
}

/* ---------------------------------------------------------------- pages */

enum { SHARED_LENGTH = 140 };

/* What is shared is never written: a timeline that is cut in the middle of a shared page, and goes on, copies it. */
static void test_shared_pages(void **state) {
    int32_t ids[SHARED_LENGTH], other[SHARED_LENGTH];
    engine e = open_engine(DATA "models/llama32", true, 1, SLLM_KV_AUTO, 8);
    size_t n_vocab = (size_t)e.model->config.n_vocab;
    float *logits = malloc(n_vocab * sizeof *logits), *one = malloc(n_vocab * sizeof *one);
    sl_forward_params params = {.logits = logits};
    sllm_error error = {0};
    sl_kv *a, *b;
    (void)state;
    make_sequence(&e, 0, ids, SHARED_LENGTH);
    make_sequence(&e, 1, other, SHARED_LENGTH);
    assert_int_equal(sl_kv_new(e.pool, SHARED_LENGTH, &a, &error), SLLM_OK);
    assert_int_equal(sl_kv_new(e.pool, SHARED_LENGTH, &b, &error), SLLM_OK);
    assert_int_equal(sl_kv_pages_needed(a, 128), 2);
    assert_int_equal(sl_forward(e.model, e.work, a, ids, 128, &params, &error), SLLM_OK);
    assert_int_equal(sl_kv_pool_unused(e.pool), 6);
    assert_int_equal(sl_kv_pages_needed(a, 1), 1);
    assert_int_equal(sl_kv_fork(a, 128, b, &error), SLLM_OK);
    assert_int_equal(sl_kv_pool_unused(e.pool), 6);
    assert_int_equal(sl_kv_fork(a, 1, b, &error), SLLM_ERROR_ARGUMENT); /* not empty */
    sl_kv_truncate(a, 100);
    assert_int_equal(sl_kv_pages_needed(a, 10), 1); /* a copy */
    assert_int_equal(sl_forward(e.model, e.work, a, other + 100, 20, &params, &error), SLLM_OK);
    assert_int_equal(sl_kv_pool_unused(e.pool), 5);
    memcpy(other, ids, 100 * sizeof *ids);
    alone(&e, other, 120, 1, one);
    assert_same(&e, one, logits, "writing behind a shared part", "llama32");
    assert_int_equal(sl_forward(e.model, e.work, b, ids + 128, 2, &params, &error), SLLM_OK);
    alone(&e, ids, 130, 1, one);
    assert_same(&e, one, logits, "another's writing", "llama32");
    sl_kv_free(a);
    sl_kv_free(b);
    assert_int_equal(sl_kv_pool_unused(e.pool), 8);
    free(logits);
    free(one);
    close_engine(&e);
}

/* Longrope computes again where the regime changes: what others share stays as it is. */
static void test_shared_regimes(void **state) {
    int32_t ids[LONG];
    engine e = open_engine(DATA "models/phi3-longrope", true, 2, SLLM_KV_AUTO, 8);
    size_t n_vocab = (size_t)e.model->config.n_vocab;
    float *logits = malloc(2 * n_vocab * sizeof *logits), *one = malloc(n_vocab * sizeof *one);
    sl_forward_params params = {.logits = logits};
    sllm_error error = {0};
    sl_kv *a, *b;
    (void)state;
    make_sequence(&e, 0, ids, LONG);
    assert_int_equal(sl_kv_new(e.pool, LONG, &a, &error), SLLM_OK);
    assert_int_equal(sl_kv_new(e.pool, LONG, &b, &error), SLLM_OK);
    assert_int_equal(sl_forward(e.model, e.work, a, ids, 20, &params, &error), SLLM_OK);
    assert_int_equal(sl_kv_fork(a, 20, b, &error), SLLM_OK);
    const sl_part parts[] = {{a, ids + 20, 60, 1}, {b, ids + 20, 1, 1}}; /* a grows beyond 32 positions, b does not */
    assert_int_equal(sl_forward_batch(e.model, e.work, parts, 2, &params, &error), SLLM_OK);
    alone(&e, ids, 80, 1, one);
    assert_same(&e, one, logits, "another regime beside it", "phi3-longrope");
    alone(&e, ids, 21, 1, one);
    assert_same(&e, one, logits + n_vocab, "another regime beside it", "phi3-longrope");
    sl_kv_free(a);
    sl_kv_free(b);
    free(logits);
    free(one);
    close_engine(&e);
}

static void test_refusals(void **state) {
    int32_t ids[LONG];
    engine e = open_engine(DATA "models/llama32", true, 1, SLLM_KV_AUTO, 2);
    sllm_error error = {0};
    sl_kv *a, *b;
    (void)state;
    make_sequence(&e, 0, ids, LONG);
    assert_int_equal(sl_kv_new(e.pool, LONG, &a, &error), SLLM_OK);
    assert_int_equal(sl_kv_new(e.pool, LONG, &b, &error), SLLM_OK);
    const sl_part twice[] = {{a, ids, 5, 0}, {a, ids, 5, 0}}, many[] = {{a, ids, 5, 0}, {b, ids, 65, 0}};
    const sl_part wanted[] = {{a, ids, 5, 6}}, bad[] = {{a, ids, 5, 0}, {b, (int32_t[]){-1}, 1, 0}};
    assert_int_equal(sl_forward_batch(e.model, e.work, twice, 2, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward_batch(e.model, e.work, wanted, 1, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward_batch(e.model, e.work, bad, 2, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward_batch(e.model, e.work, bad, 0, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward_batch(e.model, e.work, many, 2, NULL, &error), SLLM_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "3 pages"));
    assert_int_equal(sl_kv_length(a) + sl_kv_length(b), 0);
    assert_int_equal(sl_kv_pool_unused(e.pool), 2);
    assert_int_equal(sl_forward_batch(e.model, e.work, many, 1, NULL, &error), SLLM_OK); /* nothing is left behind */
    sl_kv_free(a);
    sl_kv_free(b);
    close_engine(&e);
}

/* ---------------------------------------------------------------- KV types */

static void test_types(void **state) {
    enum { N = 300 };
    static const double limits[] = {0, 2e-3, 3e-2, 0.4}; /* of the logits' size */
    int32_t ids[N];
    float *exact = NULL, *held = NULL;
    (void)state;
    for (int type = SLLM_KV_F32; type <= SLLM_KV_Q4_0; type++) {
        engine e = open_engine(DATA "models/llama32", true, 2, (sllm_kv_type)type, N / SL_PAGE + 1);
        size_t n = 2 * (size_t)e.model->config.n_vocab;
        for (int i = 0; i < N; i++) ids[i] = i * 7919 % e.model->config.n_vocab;
        if (!exact) exact = malloc(n * sizeof *exact), held = malloc(n * sizeof *held);
        feed(&e, 64, ids, N, type == SLLM_KV_F32 ? exact : held);
        double error = 0, spread = 0;
        for (size_t i = 0; type > SLLM_KV_F32 && i < n; i++) {
            error += ((double)held[i] - exact[i]) * ((double)held[i] - exact[i]);
            spread += (double)exact[i] * exact[i];
        }
        if (type > SLLM_KV_F32 && !(error > 0 && sqrt(error / spread) < limits[type - SLLM_KV_F32]))
            fail_msg("KV type %d is %g of the logits away", type, sqrt(error / spread));
        close_engine(&e);
    }
    free(exact);
    free(held);
    sllm_error error = {0};
    sl_model *model = NULL;
    sl_kv_pool *pool = NULL;
    sl_kv_type type;
    assert_int_equal(sl_model_load(DATA "models/gemma3-left-over-keys", NULL, &model, &error), SLLM_OK); /* heads of 16 */
    assert_int_equal(sl_kv_type_choose(&model->config, SLLM_KV_Q8_0, false, false, &type, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "q8_0"));
    assert_int_equal(sl_kv_pool_new(model, SL_KV_Q4_0, 1, &pool, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "of 16"));
    assert_int_equal(sl_kv_type_choose(&model->config, (sllm_kv_type)9, false, false, &type, &error),
                     SLLM_ERROR_ARGUMENT);
    sl_model_free(model);
}

/* A quantised model answers with the same bits on AVX2 and on AVX-512: integer products are exact, and sums over a row take
 * eight lanes in both. (Matrices of floats are summed in as many lanes as there are.) */
static void test_tables_agree(void **state) {
    enum { N = 200 };
    static const char *const tables[] = {"avx2", "avx512"}, *const paths[] = {
        DATA "quant/gguf/llama32/llama32-Q8_0.gguf", DATA "quant/gguf/llama32/llama32-Q4_K_M.gguf",
        DATA "quant/gguf/mistral-swa/mistral-swa-Q8_0.gguf", DATA "quant/gguf/smollm3-p4/smollm3-p4-Q8_0.gguf",
        DATA "quant/gguf/gpt2/gpt2-Q8_0.gguf",
    };
    int32_t ids[N];
    (void)state;
    if (sl_kernels_choose("avx512", NULL)) skip();
    for (size_t k = 0; k < sizeof paths / sizeof *paths; k++) {
        float *logits[2];
        for (int t = 0; t < 2; t++) {
            assert_int_equal(sl_kernels_choose(tables[t], NULL), SLLM_OK);
            engine e = open_engine(paths[k], false, 2, SLLM_KV_AUTO, N / SL_PAGE + 1);
            size_t n = 2 * (size_t)e.model->config.n_vocab;
            int length = e.model->config.n_ctx_train < N ? e.model->config.n_ctx_train : N;
            for (int i = 0; i < length; i++) ids[i] = i * 7919 % e.model->config.n_vocab;
            logits[t] = malloc(n * sizeof *logits[t]);
            feed(&e, 64, ids, length, logits[t]);
            if (t == 1) assert_same(&e, logits[0], logits[1], "the table of kernels", paths[k]);
            close_engine(&e);
        }
        free(logits[0]);
        free(logits[1]);
    }
    sl_kernels_choose("auto", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_agree),
        cmocka_unit_test(test_chunks_and_threads), cmocka_unit_test(test_batches), cmocka_unit_test(test_shared_pages),
        cmocka_unit_test(test_shared_regimes),     cmocka_unit_test(test_refusals), cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
