/* The forward pass: the same bits however a timeline is cut into chunks, threads and calls; errors change nothing;
 * every allocation may fail. The models are those under tests/golden/data, one of each kind of block. */
#include "base/file.h"
#include "model/forward.h"
#include "unit/fail_alloc.h"

#include <dirent.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA SLLM_SOURCE_DIR "/tests/golden/data/"

enum { N_CTX = 96, LENGTH = 70 }; /* longer than phi4-mini's original context of 32 and every window */

static const struct { const char *path; bool exact; } models[] = {
    {DATA "models/mistral-headdim-f16", true}, {DATA "models/gemma3-text", true},
    {DATA "models/mixtral", true},             {DATA "models/phi4-mini", true},
    {DATA "models/mixtral", false},            {DATA "quant/gguf/smollm3-p4/smollm3-p4-Q8_0.gguf", false},
    {DATA "quant/gguf/mistral-swa/mistral-swa-Q8_0.gguf", false},
};

typedef struct engine {
    sl_model *model;
    sl_work *work;
    sl_kv_pool *pool;
    sl_kv *kv;
} engine;

enum { N_PAGES = (N_CTX + SL_PAGE - 1) / SL_PAGE };

static sl_kv_type type_of(const sl_model *model) {
    sl_kv_type type = SL_KV_F32;
    sl_kv_type_choose(&model->config, SLLM_KV_AUTO, model->exact, model->weights->only_f32, &type, NULL);
    return type;
}

static engine open_engine(const char *path, bool exact, int n_threads) {
    engine e = {0};
    sllm_error error = {0};
    sllm_model_params params = {.exact = exact, .n_threads = n_threads};
    if (sl_model_load(path, &params, &e.model, &error)) fail_msg("%s", error.message);
    assert_int_equal(sl_work_new(e.model, &e.work, &error), SLLM_OK);
    assert_int_equal(sl_kv_pool_new(e.model, type_of(e.model), N_PAGES, &e.pool, &error), SLLM_OK);
    assert_int_equal(sl_kv_new(e.pool, N_CTX, &e.kv, &error), SLLM_OK);
    return e;
}

static void close_engine(engine *e) {
    sl_kv_free(e->kv);
    sl_kv_pool_free(e->pool);
    sl_work_free(e->work);
    sl_model_free(e->model);
}

static void make_ids(const engine *e, int32_t *ids) {
    uint32_t state = 12345;
    for (int i = 0; i < LENGTH; i++) {
        state = state * 1664525 + 1013904223;
        ids[i] = (int32_t)(state >> 8) % e->model->config.n_vocab;
    }
}

/* Logits of the last of ids [n], handed over `step` at a time. */
static void feed(engine *e, const int32_t *ids, int n, int step, float *logits) {
    sllm_error error = {0};
    sl_forward_params params = {.logits = logits};
    for (int i = 0; i < n; i += step) {
        int some = n - i < step ? n - i : step;
        if (sl_forward(e->model, e->work, e->kv, ids + i, some, &params, &error)) fail_msg("%s", error.message);
    }
}

static void assert_same(const engine *e, const float *a, const float *b, const char *what, const char *path) {
    if (memcmp(a, b, (size_t)e->model->config.n_vocab * sizeof *a)) fail_msg("%s: %s changes the logits", path, what);
}

/* ---------------------------------------------------------------- the same bits */

static void test_chunks_and_threads(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        int32_t ids[LENGTH];
        float *first = NULL, *again = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            engine e = open_engine(models[m].path, models[m].exact, threads);
            size_t n_vocab = (size_t)e.model->config.n_vocab;
            make_ids(&e, ids);
            if (!first) {
                first = malloc(n_vocab * sizeof *first);
                again = malloc(n_vocab * sizeof *again);
                feed(&e, ids, LENGTH, LENGTH, first);
                for (size_t i = 0; i < n_vocab; i++) assert_true(isfinite(first[i]));
            }
            static const int chunks[] = {64, 17, 5, 1};
            for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
                sl_kv_truncate(e.kv, 0);
                e.work->chunk = chunks[i];
                feed(&e, ids, LENGTH, LENGTH, again);
                assert_same(&e, first, again, "the chunk size", models[m].path);
            }
            close_engine(&e);
        }
        free(first);
        free(again);
    }
}

static void test_calls_and_truncation(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        int32_t ids[LENGTH];
        engine e = open_engine(models[m].path, models[m].exact, 2);
        size_t n_vocab = (size_t)e.model->config.n_vocab;
        float *fresh = malloc(n_vocab * sizeof *fresh), *other = malloc(n_vocab * sizeof *other);
        float *brief = malloc(n_vocab * sizeof *brief);
        make_ids(&e, ids);
        feed(&e, ids, LENGTH, LENGTH, fresh);
        sl_kv_truncate(e.kv, 0);
        feed(&e, ids, 20, 20, brief);
        feed(&e, ids + 20, LENGTH - 20, 1, other); /* crosses phi4-mini's regimes upwards */
        assert_same(&e, fresh, other, "feeding tokens one by one", models[m].path);
        sl_kv_truncate(e.kv, 19);
        feed(&e, ids + 19, 1, 1, other); /* and downwards */
        assert_same(&e, brief, other, "truncation", models[m].path);
        feed(&e, ids + 20, LENGTH - 20, 13, other);
        assert_same(&e, fresh, other, "appending again", models[m].path);
        assert_int_equal(sl_kv_length(e.kv), LENGTH);
        assert_memory_equal(sl_kv_ids(e.kv), ids, sizeof ids);
        free(fresh);
        free(other);
        free(brief);
        close_engine(&e);
    }
}

static void test_all_logits(void **state) {
    int32_t ids[LENGTH];
    engine e = open_engine(DATA "models/mixtral", true, 2);
    size_t n_vocab = (size_t)e.model->config.n_vocab;
    float *all = malloc(LENGTH * n_vocab * sizeof *all), *one = malloc(n_vocab * sizeof *one);
    sl_forward_params params = {.logits = all, .all_logits = true};
    (void)state;
    make_ids(&e, ids);
    e.work->chunk = 16;
    feed(&e, ids, 10, 10, one);
    assert_int_equal(sl_forward(e.model, e.work, e.kv, ids + 10, LENGTH - 10, &params, NULL), SLLM_OK);
    sl_kv_truncate(e.kv, 0);
    for (int i = 0; i < LENGTH; i++) {
        feed(&e, ids + i, 1, 1, one);
        if (i >= 10) assert_same(&e, one, all + (size_t)(i - 10) * n_vocab, "asking for all logits", "mixtral");
    }
    free(all);
    free(one);
    close_engine(&e);
}

/* ---------------------------------------------------------------- refusals */

static bool after_some(void *user) { return --*(int *)user < 0; }

static void test_refusals(void **state) {
    int32_t ids[LENGTH], wrong[2] = {1, -1};
    sllm_error error = {0};
    engine e = open_engine(DATA "models/mistral-headdim-f16", true, 1);
    int left = 2 * e.model->config.n_layers; /* asked before each block of each chunk */
    float *before = malloc((size_t)e.model->config.n_vocab * sizeof *before);
    float *after = malloc((size_t)e.model->config.n_vocab * sizeof *after);
    sl_forward_params cancelling = {.is_cancelled = after_some, .user = &left};
    sl_kv *kv = NULL;
    sl_kv_pool *pool = NULL;
    (void)state;
    make_ids(&e, ids);
    feed(&e, ids, 30, 30, before);
    assert_int_equal(sl_forward(e.model, e.work, e.kv, wrong, 2, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "token 1 is -1"));
    wrong[1] = e.model->config.n_vocab;
    assert_int_equal(sl_forward(e.model, e.work, e.kv, wrong, 2, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward(e.model, e.work, e.kv, ids, 0, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_forward(e.model, e.work, e.kv, ids, N_CTX - 29, NULL, &error), SLLM_ERROR_CONTEXT);
    assert_int_equal(sl_kv_length(e.kv), 30);
    e.work->chunk = 8;
    assert_int_equal(sl_forward(e.model, e.work, e.kv, ids + 30, 40, &cancelling, &error), SLLM_ERROR_CANCELLED);
    assert_int_equal(sl_kv_length(e.kv), 46); /* two chunks were finished */
    assert_true(e.model->config.n_layers > 1);
    left = 2 * e.model->config.n_layers - 1; /* before the last block of the second */
    sl_kv_truncate(e.kv, 30);
    assert_int_equal(sl_forward(e.model, e.work, e.kv, ids + 30, 40, &cancelling, &error), SLLM_ERROR_CANCELLED);
    assert_int_equal(sl_kv_length(e.kv), 38);
    sl_kv_truncate(e.kv, 29);
    feed(&e, ids + 29, 1, 1, after);
    assert_same(&e, before, after, "a refused call", "mistral");
    assert_int_equal(sl_kv_new(e.pool, 0, &kv, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_kv_pool_new(e.model, SL_KV_F16, 0, &pool, &error), SLLM_ERROR_ARGUMENT);
    assert_null(kv);
    assert_null(pool);
    free(before);
    free(after);
    close_engine(&e);
}

/* A folder with mistral-headdim-f16's weights and its configuration with `from` replaced by `to`. */
static sllm_status load_changed(const char *from, const char *to, sllm_error *error) {
    char folder[] = "/tmp/sllm-test-XXXXXX", path[128], target[128];
    sl_buffer text = {0}, changed = {0};
    sl_model *model = NULL;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(sl_file_read(DATA "models/mistral-headdim-f16/config.json", 1 << 20, &text, NULL), SLLM_OK);
    char *at = strstr(text.data, from);
    assert_non_null(at);
    sl_buffer_append(&changed, text.data, (size_t)(at - text.data));
    sl_buffer_puts(&changed, to);
    sl_buffer_puts(&changed, at + strlen(from));
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(sl_file_write(path, changed.data, changed.length, NULL), SLLM_OK);
    snprintf(target, sizeof target, "%s/model.safetensors", folder);
    assert_int_equal(symlink(DATA "models/mistral-headdim-f16/model.safetensors", target), 0);
    *error = (sllm_error){0};
    sllm_status status = sl_model_load(folder, NULL, &model, error);
    sl_model_free(model);
    unlink(path);
    unlink(target);
    rmdir(folder);
    sl_buffer_free(&text);
    sl_buffer_free(&changed);
    return status;
}

static void test_weights_must_fit(void **state) {
    static const struct { const char *from, *to, *says; } cases[] = {
        {"\"intermediate_size\": 160", "\"intermediate_size\": 128", "mlp.gate_proj.weight has the shape [160, 64]"},
        {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "model.layers.3.input_layernorm.weight is missing"},
        {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", "model.layers.2."},
        {"\"vocab_size\": 320", "\"vocab_size\": 321", "calls for [321, 64]"},
        {"\"model_type\": \"mistral\"", "\"model_type\": \"qwen2\"", "q_proj.bias is missing"},
    };
    sllm_error error;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sllm_status status = load_changed(cases[i].from, cases[i].to, &error);
        if (status != SLLM_ERROR_FORMAT || !strstr(error.message, cases[i].says))
            fail_msg("%s gave %d '%s'", cases[i].to, status, error.message);
    }
    assert_int_equal(load_changed("\"vocab_size\": 320", "\"vocab_size\": 320", &error), SLLM_OK);
    /* the stored output matrix counts: golden data smollm3-untied-relu has the values */
    assert_int_equal(load_changed("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", &error), SLLM_OK);
}

static void test_paths(void **state) {
    static const struct { const char *path; sllm_status status; const char *says; } cases[] = {
        {"", SLLM_ERROR_ARGUMENT, "no model"},
        {DATA "no-such-thing.gguf", SLLM_ERROR_NOT_FOUND, "no-such-thing.gguf"},
        {DATA "weights.bin", SLLM_ERROR_UNSUPPORTED, "run code"},
        {DATA "models/mixtral/model.safetensors", SLLM_ERROR_ARGUMENT, "folder"},
        {DATA "models/mixtral/config.json", SLLM_ERROR_ARGUMENT, "no network"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sllm_error error = {0};
        sl_model *model = NULL;
        sllm_status status = sl_model_load(cases[i].path, NULL, &model, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].says))
            fail_msg("%s gave %d '%s'", cases[i].path, status, error.message);
        assert_null(model);
    }
    sllm_model_params params = {.n_threads = 1000};
    sl_model *model = NULL;
    assert_int_equal(sl_model_load(DATA "models/mixtral", &params, &model, NULL), SLLM_ERROR_ARGUMENT);
}

/* ---------------------------------------------------------------- memory */

/* Loads, computes and frees; every allocation made on the way counts. */
static sllm_status whole_life(const char *path, sllm_error *error) {
    sllm_model_params params = {.exact = true, .n_threads = 2};
    sl_model *model = NULL;
    sl_work *work = NULL;
    sl_kv_pool *pool = NULL;
    sl_kv *kv = NULL;
    const int32_t ids[5] = {1, 2, 3, 4, 5};
    sllm_status status = sl_model_load(path, &params, &model, error);
    if (!status) status = sl_work_new(model, &work, error);
    if (!status) status = sl_kv_pool_new(model, type_of(model), 1, &pool, error);
    if (!status) status = sl_kv_new(pool, 32, &kv, error);
    if (!status) status = sl_forward(model, work, kv, ids, 5, NULL, error);
    sl_kv_free(kv);
    sl_kv_pool_free(pool);
    sl_work_free(work);
    sl_model_free(model);
    return status;
}

static void test_allocation_failures(void **state) {
    static const char *const paths[] = {DATA "models/mixtral", DATA "models/phi4-mini",
                                        DATA "quant/gguf/smollm3-p4/smollm3-p4-Q8_0.gguf"};
    (void)state;
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            long n = 0;
            bool hit;
            do {
                sllm_error error = {0};
                long step = n < 300 ? 1 : n / 100; /* all the early ones, then a sample: a vocabulary makes very many */
                fail_alloc_arm(n += step, sticky);
                sllm_status status = whole_life(paths[p], &error);
                hit = fail_alloc_disarm();
                if (status != (hit ? SLLM_ERROR_MEMORY : SLLM_OK))
                    fail_msg("%s, allocation %ld: %d '%s'", paths[p], n, status, error.message);
            } while (hit);
            assert_true(n > 10);
        }
    }
}

/* No allocation a token: a computed timeline goes on although every allocation fails. */
static void test_no_allocation(void **state) {
    int32_t ids[LENGTH];
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        engine e = open_engine(models[m].path, models[m].exact, 2);
        float *logits = malloc((size_t)e.model->config.n_vocab * sizeof *logits);
        sl_forward_params params = {.logits = logits};
        make_ids(&e, ids);
        feed(&e, ids, 10, 10, logits);
        fail_alloc_arm(1, true);
        sllm_status status = sl_forward(e.model, e.work, e.kv, ids + 10, LENGTH - 10, &params, NULL);
        bool hit = fail_alloc_disarm();
        assert_int_equal(status, SLLM_OK);
        assert_false(hit);
        free(logits);
        close_engine(&e);
    }
}

/* What the plan promises is what is allocated, to the byte. */
static void test_planned_bytes(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        sllm_model_params params = {.exact = models[m].exact};
        sllm_error error = {0};
        sllm_plan plan;
        engine e = {0};
        sllm_plan_params wanted = {.n_ctx = N_CTX, .n_batch = 3, .exact = models[m].exact};
        assert_int_equal(sllm_model_plan(models[m].path, &wanted, &plan, &error), SLLM_OK);
        if (sl_model_load(models[m].path, &params, &e.model, &error)) fail_msg("%s", error.message);
        size_t start = fail_alloc_asked();
        assert_int_equal(sl_work_new(e.model, &e.work, &error), SLLM_OK);
        size_t work = fail_alloc_asked() - start;
        assert_int_equal(sl_kv_pool_new(e.model, type_of(e.model), N_PAGES, &e.pool, &error), SLLM_OK);
        assert_int_equal(sl_kv_new(e.pool, N_CTX, &e.kv, &error), SLLM_OK);
        size_t kv = fail_alloc_asked() - start - work;
        size_t logits = (size_t)e.model->config.n_vocab * sizeof(float); /* a session keeps those of one position */
        assert_int_equal(plan.kv_bytes, 3 * kv);
        wanted.n_batch = 1;
        assert_int_equal(sllm_model_plan(models[m].path, &wanted, &plan, &error), SLLM_OK);
        assert_int_equal(plan.work_bytes, work + logits);
        close_engine(&e);
    }
}

/* ---------------------------------------------------------------- ids that no text may contain */

/* phi3-small's reference model beside a tokenizer that names the ids 300 to 307. */
static void test_unused_ids(void **state) {
    static const char source[] = SLLM_SOURCE_DIR "/../shared/golden/models/phi3-small/";
    static const char *const names[] = {"<|dummy_id_0|>", "<|fim_prefix|>", "<|end|>", "<|dummy_id_86|>",
                                        "<|dummy_id_|>", "<|endofprompt|>", "<|dummy_id_1x|>", "<|fim_suffix|>"};
    static const bool masked[] = {true, true, false, true, false, true, false, true};
    static const char *const files[] = {"config.json", "model.safetensors"};
    char folder[] = "/tmp/sllm-test-XXXXXX", from[1024], to[128], vocab[128];
    sllm_error error = {0};
    sl_buffer json = {0};
    (void)state;
    snprintf(from, sizeof from, "%sconfig.json", source);
    if (access(from, R_OK)) {
        print_message("no phi3-small reference model: skipped\n");
        skip();
    }
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s%s", source, files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    sl_buffer_puts(&json, "{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
    for (int i = 0; i < 300; i++) sl_buffer_printf(&json, "%s\"t%d\": %d", i ? ", " : "", i, i);
    sl_buffer_puts(&json, "}}, \"added_tokens\": [");
    for (int i = 0; i < 8; i++)
        sl_buffer_printf(&json, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true}", i ? ", " : "", 300 + i,
                         names[i]);
    sl_buffer_puts(&json, "]}");
    snprintf(vocab, sizeof vocab, "%s/tokenizer.json", folder);
    float logits[2][320], plain[2][320];
    const int32_t ids[2] = {3, 4};
    for (int with = 0; with < 2; with++) {
        sl_forward_params params = {.logits = with ? logits[0] : plain[0], .all_logits = true};
        if (with) assert_int_equal(sl_file_write(vocab, json.data, json.length, NULL), SLLM_OK);
        engine e = open_engine(folder, true, 1);
        assert_int_equal(e.model->n_unused_ids, with ? 5 : 0);
        assert_int_equal(sl_forward(e.model, e.work, e.kv, ids, 2, &params, &error), SLLM_OK);
        close_engine(&e);
    }
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 320; i++) {
            bool is_masked = i >= 300 && i < 308 && masked[i - 300];
            assert_true(logits[t][i] == (is_masked ? -FLT_MAX : plain[t][i]));
        }
    for (size_t i = 0; i < 2; i++) {
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        unlink(to);
    }
    unlink(vocab);
    rmdir(folder);
    sl_buffer_free(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_and_threads), cmocka_unit_test(test_calls_and_truncation),
        cmocka_unit_test(test_all_logits),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_weights_must_fit),   cmocka_unit_test(test_paths),
        cmocka_unit_test(test_allocation_failures), cmocka_unit_test(test_no_allocation),
        cmocka_unit_test(test_planned_bytes),       cmocka_unit_test(test_unused_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
