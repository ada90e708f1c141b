/* Sessions: whatever is reused, appended or cut, the logits are bit for bit those of a fresh computation. */
#include "infer/session.h"
#include "unit/tiny_model.h"

#include <string.h>

enum { N_VOCAB = 320, N_CTX = 64 };

static sllm_model *model;

static int set_up(void **state) {
    (void)state;
    model = tiny_model(1);
    sllm_model_info info;
    sllm_model_get_info(model, &info);
    assert_int_equal(info.n_vocab, N_VOCAB);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sllm_model_free(model);
    return 0;
}

/* ids[i] from a fixed sequence. */
static void fill(int32_t *ids, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((seed = seed * 1103515245u + 12345u) >> 16) % N_VOCAB;
}

/* The session's logits must be those of a session that has only ever seen ids. */
static void as_if_fresh(const sllm_session *session, const int32_t *ids, size_t n) {
    sllm_session *fresh = tiny_session(model, N_CTX);
    assert_int_equal(sllm_session_sync(fresh, ids, n, NULL, NULL), SLLM_OK);
    assert_int_equal(sllm_session_length(session), n);
    assert_memory_equal(sllm_session_ids(session), ids, n * sizeof *ids);
    assert_non_null(sllm_session_logits(session));
    assert_memory_equal(sllm_session_logits(session), sllm_session_logits(fresh), N_VOCAB * sizeof(float));
    sllm_session_free(fresh);
}

static void sync_keeps_the_common_prefix(void **state) {
    (void)state;
    int32_t a[40], b[40];
    size_t reused = 99;
    fill(a, 40, 1);
    memcpy(b, a, sizeof b);
    fill(b + 25, 15, 2);
    b[25] = (a[25] + 1) % N_VOCAB;
    sllm_session *session = tiny_session(model, N_CTX);
    assert_null(sllm_session_logits(session));
    assert_int_equal(sllm_session_sync(session, a, 30, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 0);
    assert_int_equal(sllm_session_sync(session, a, 40, &reused, NULL), SLLM_OK); /* extends */
    assert_int_equal(reused, 30);
    as_if_fresh(session, a, 40);
    assert_int_equal(sllm_session_sync(session, a, 40, &reused, NULL), SLLM_OK); /* nothing to do */
    assert_int_equal(reused, 40);
    as_if_fresh(session, a, 40);
    assert_int_equal(sllm_session_sync(session, b, 40, &reused, NULL), SLLM_OK); /* differs at 25 */
    assert_int_equal(reused, 25);
    as_if_fresh(session, b, 40);
    assert_int_equal(sllm_session_sync(session, b, 10, &reused, NULL), SLLM_OK); /* shorter: the last one again */
    assert_int_equal(reused, 9);
    as_if_fresh(session, b, 10);
    sllm_session_free(session);
}

static void append_and_truncate(void **state) {
    (void)state;
    int32_t ids[40];
    fill(ids, 40, 3);
    sllm_session *session = tiny_session(model, N_CTX);
    assert_int_equal(sllm_session_append(session, ids, 7, NULL), SLLM_OK);
    for (size_t i = 7; i < 12; i++) assert_int_equal(sllm_session_append(session, ids + i, 1, NULL), SLLM_OK);
    assert_int_equal(sllm_session_append(session, ids + 12, 28, NULL), SLLM_OK);
    as_if_fresh(session, ids, 40);
    assert_int_equal(sllm_session_append(session, NULL, 0, NULL), SLLM_OK);
    assert_int_equal(sllm_session_truncate(session, 40, NULL), SLLM_OK);
    as_if_fresh(session, ids, 40);
    assert_int_equal(sllm_session_truncate(session, 20, NULL), SLLM_OK);
    assert_null(sllm_session_logits(session));
    assert_int_equal(sllm_session_append(session, ids + 20, 3, NULL), SLLM_OK);
    as_if_fresh(session, ids, 23);
    assert_int_equal(sllm_session_truncate(session, 24, NULL), SLLM_ERROR_ARGUMENT);
    sllm_session_free(session);
}

static void every_position(void **state) {
    (void)state;
    int32_t ids[30];
    fill(ids, 30, 4);
    float *rows = malloc(30 * N_VOCAB * sizeof *rows);
    sllm_session *session = tiny_session(model, N_CTX), *other = tiny_session(model, N_CTX);
    assert_int_equal(sllm_session_append(session, ids + 5, 3, NULL), SLLM_OK); /* must not matter */
    assert_int_equal(sllm_session_all_logits(session, ids, 30, rows, NULL), SLLM_OK);
    as_if_fresh(session, ids, 30);
    for (size_t n = 1; n <= 30; n++) {
        assert_int_equal(sllm_session_sync(other, ids, n, NULL, NULL), SLLM_OK);
        assert_memory_equal(rows + (n - 1) * N_VOCAB, sllm_session_logits(other), N_VOCAB * sizeof *rows);
    }
    sllm_session_free(session);
    sllm_session_free(other);
    free(rows);
}

static void what_does_not_fit_changes_nothing(void **state) {
    (void)state;
    int32_t ids[N_CTX + 1];
    sllm_error error = {0};
    fill(ids, N_CTX + 1, 5);
    sllm_session *session = tiny_session(model, N_CTX);
    assert_int_equal(sllm_session_capacity(session), N_CTX);
    assert_int_equal(sllm_session_sync(session, ids, 10, NULL, NULL), SLLM_OK);
    assert_int_equal(sllm_session_sync(session, ids, N_CTX + 1, NULL, &error), SLLM_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "64"));
    assert_int_equal(sllm_session_append(session, ids, N_CTX - 9, NULL), SLLM_ERROR_CONTEXT);
    assert_int_equal(sllm_session_append(session, ids, SIZE_MAX, NULL), SLLM_ERROR_CONTEXT);
    const int32_t bad[] = {ids[0], ids[1], N_VOCAB}, negative[] = {-1};
    assert_int_equal(sllm_session_sync(session, bad, 3, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "320"));
    assert_int_equal(sllm_session_append(session, negative, 1, NULL), SLLM_ERROR_ARGUMENT);
    as_if_fresh(session, ids, 10);
    assert_int_equal(sllm_session_sync(session, ids, N_CTX, NULL, NULL), SLLM_OK); /* exactly full */
    assert_int_equal(sllm_session_append(session, ids, 1, NULL), SLLM_ERROR_CONTEXT);
    as_if_fresh(session, ids, N_CTX);
    sllm_session_free(session);
}

static bool now(void *user) {
    (void)user;
    return true;
}

static void cancelling_leaves_a_usable_session(void **state) {
    (void)state;
    int32_t ids[40];
    size_t reused;
    fill(ids, 40, 6);
    sllm_session *session = tiny_session(model, N_CTX);
    assert_int_equal(sl_session_sync(session, ids, 40, (sl_cancel){now, NULL}, &reused, NULL), SLLM_ERROR_CANCELLED);
    assert_null(sllm_session_logits(session));
    assert_in_range(sllm_session_length(session), 0, 39);
    assert_int_equal(sllm_session_sync(session, ids, 40, NULL, NULL), SLLM_OK);
    as_if_fresh(session, ids, 40);
    sllm_session_free(session);
}

static void arguments_are_checked(void **state) {
    (void)state;
    sllm_error error = {0};
    sllm_session *session = (sllm_session *)1;
    sllm_model_info info;
    sllm_model_get_info(model, &info);
    sllm_session_params params = {.n_ctx = info.n_ctx_train + 1};
    assert_int_equal(sllm_session_new(model, &params, &session, &error), SLLM_ERROR_ARGUMENT);
    assert_null(session);
    assert_non_null(strstr(error.message, "n_ctx"));
    params.n_ctx = -1;
    assert_int_equal(sllm_session_new(model, &params, &session, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_session_new(NULL, NULL, &session, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_session_new(model, NULL, NULL, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_session_sync(NULL, NULL, 0, NULL, NULL), SLLM_ERROR_ARGUMENT);
    session = tiny_session(model, 0);
    assert_int_equal(sllm_session_capacity(session), info.n_ctx_train < 4096 ? info.n_ctx_train : 4096);
    assert_int_equal(sllm_session_sync(session, NULL, 3, NULL, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_session_sync(session, (int32_t[]){1}, 0, NULL, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_session_all_logits(session, (int32_t[]){1}, 1, NULL, NULL), SLLM_ERROR_ARGUMENT);
    sllm_session_free(session);
    sllm_session_free(NULL);

    sllm_model_params vocabulary;
    sllm_model *words;
    sllm_model_params_init(&vocabulary);
    vocabulary.vocab_only = true;
    assert_int_equal(sllm_model_load(TINY_MODEL, &vocabulary, &words, NULL), SLLM_OK);
    assert_int_equal(sllm_session_new(words, NULL, &session, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "vocab_only"));
    sllm_model_free(words);
}

/* Each way to keep keys and values is another answer, and reuse gives it bit for bit. */
static void kv_types(void **state) {
    (void)state;
    int32_t ids[40];
    float plain[N_VOCAB];
    sllm_model *narrow;
    sllm_error error = {0};
    assert_int_equal(sllm_model_load(SLLM_SOURCE_DIR "/tests/golden/data/models/llama32", NULL, &narrow, NULL), SLLM_OK);
    for (int i = 0; i < 40; i++) ids[i] = 1 + i;
    for (int type = SLLM_KV_F32; type <= SLLM_KV_Q4_0; type++) {
        sllm_session_params params = {.n_ctx = 64, .kv_type = (sllm_kv_type)type};
        sllm_session *session, *fresh;
        assert_int_equal(sllm_session_new(narrow, &params, &session, &error), SLLM_OK);
        assert_int_equal(sllm_session_new(narrow, &params, &fresh, &error), SLLM_OK);
        assert_int_equal(sllm_session_sync(session, ids + 5, 30, NULL, NULL), SLLM_OK);
        assert_int_equal(sllm_session_sync(session, ids, 40, NULL, NULL), SLLM_OK);
        assert_int_equal(sllm_session_truncate(session, 20, NULL), SLLM_OK);
        assert_int_equal(sllm_session_sync(session, ids, 40, NULL, NULL), SLLM_OK);
        assert_int_equal(sllm_session_sync(fresh, ids, 40, NULL, NULL), SLLM_OK);
        assert_memory_equal(sllm_session_logits(session), sllm_session_logits(fresh), sizeof plain);
        if (type == SLLM_KV_F32) memcpy(plain, sllm_session_logits(fresh), sizeof plain);
        else assert_memory_not_equal(sllm_session_logits(session), plain, sizeof plain);
        sllm_session_free(session);
        sllm_session_free(fresh);
    }
    sllm_session_params bad = {.n_ctx = 64, .kv_type = (sllm_kv_type)7};
    sllm_session *none;
    assert_int_equal(sllm_session_new(narrow, &bad, &none, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "q4_0"));
    bad.kv_type = SLLM_KV_Q8_0;
    assert_int_equal(sllm_session_new(model, &bad, &none, &error), SLLM_ERROR_ARGUMENT); /* heads of 16 */
    assert_non_null(strstr(error.message, "32 divides"));
    assert_null(none);
    sllm_model_free(narrow);
}

/* LongRoPE has other frequencies beyond 32 positions of this model: crossing over, forth or back, reuses nothing. */
static void what_is_computed_again_is_not_reused(void **state) {
    (void)state;
    sllm_model *longrope;
    int32_t ids[40];
    size_t reused = 99;
    for (int i = 0; i < 40; i++) ids[i] = 1 + i;
    assert_int_equal(sllm_model_load(SLLM_SOURCE_DIR "/tests/golden/data/models/phi3-longrope", NULL, &longrope, NULL),
                     SLLM_OK);
    sllm_session *session = tiny_session(longrope, 64);
    assert_int_equal(sllm_session_sync(session, ids, 20, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 0);
    assert_int_equal(sllm_session_sync(session, ids, 30, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 20);
    assert_int_equal(sllm_session_sync(session, ids, 38, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 0);
    assert_int_equal(sllm_session_sync(session, ids, 40, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 38);
    assert_int_equal(sllm_session_sync(session, ids, 25, &reused, NULL), SLLM_OK);
    assert_int_equal(reused, 0);
    sllm_session_free(session);
    sllm_model_free(longrope);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_computed_again_is_not_reused), cmocka_unit_test(kv_types),
        cmocka_unit_test(sync_keeps_the_common_prefix),      cmocka_unit_test(append_and_truncate),
        cmocka_unit_test(every_position),                    cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(cancelling_leaves_a_usable_session), cmocka_unit_test(arguments_are_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
