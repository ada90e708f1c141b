/* A host program may set a locale whose decimal mark is a comma: what is read and written stays the same. The locale is
 * made for the test by localedef, and removed again; where that is not to be had the tests say that they are skipped. */
#include "base/json.h"
#include "base/number.h"
#include "unit/tiny_model.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHECKPOINT SLLM_SOURCE_DIR "/tests/golden/data/models/phi3-longrope"

static char folder[64];
static bool has_comma;

static int set_up(void **state) {
    char command[256];
    (void)state;
    snprintf(folder, sizeof folder, "test-locale-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 --no-archive ./%s/de_DE.UTF-8 >%s/log 2>&1", folder,
             folder);
    int made = system(command);
    setenv("LOCPATH", folder, 1);
    has_comma = !made && setlocale(LC_ALL, "de_DE.UTF-8") && !strcmp(localeconv()->decimal_point, ",");
    setlocale(LC_ALL, "C");
    return 0;
}

static int tear_down(void **state) {
    char command[128];
    (void)state;
    setlocale(LC_ALL, "C");
    snprintf(command, sizeof command, "rm -rf ./%s", folder);
    return system(command);
}

static void use_comma(void) {
    if (!has_comma) {
        print_message("skipped: localedef makes no de_DE.UTF-8 here\n");
        skip();
    }
    assert_non_null(setlocale(LC_ALL, "de_DE.UTF-8"));
}

static void numbers_keep_their_point(void **state) {
    (void)state;
    use_comma();
    sl_arena arena = {0};
    sl_buffer out = {0};
    const sl_json *root;
    double value;
    char *end;
    assert_int_equal(sl_json_parse(&arena, "0.00125", 7, "test", &root, NULL), SLLM_OK);
    assert_true(sl_json_double(root, &value));
    assert_true(value == 0.00125);
    assert_true(sl_strtof("2.5x", &end) == 2.5f);
    assert_string_equal(end, "x");
    sl_json_write_double(&out, 0.1);
    sl_json_put_float(&out, "a", 1.5f);
    sl_buffer_putc(&out, 0);
    assert_string_equal(out.data, "0.1,\"a\":1.5");
    assert_string_equal(localeconv()->decimal_point, ","); /* the program's own locale stands */
    sl_buffer_free(&out);
    sl_arena_free(&arena);
    setlocale(LC_ALL, "C");
}

/* A checkpoint's configuration is JSON with fractions: its description and its logits, the same in both locales. */
static void models_are_the_same(void **state) {
    (void)state;
    static const int32_t ids[] = {1, 2, 3, 4};
    char *described[2];
    float *logits[2];
    size_t bytes = 0;
    use_comma();
    for (int i = 0; i < 2; i++) {
        sllm_model *model;
        sllm_model_info info;
        setlocale(LC_ALL, i ? "de_DE.UTF-8" : "C");
        assert_int_equal(sllm_model_load(CHECKPOINT, NULL, &model, NULL), SLLM_OK);
        sllm_model_get_info(model, &info);
        sllm_session *session = tiny_session(model, 16);
        bytes = 4 * (size_t)info.n_vocab * sizeof(float);
        logits[i] = test_malloc(bytes);
        assert_int_equal(sllm_session_all_logits(session, ids, 4, logits[i], NULL), SLLM_OK);
        assert_int_equal(sllm_model_describe(model, &described[i], NULL), SLLM_OK);
        sllm_session_free(session);
        sllm_model_free(model);
    }
    assert_string_equal(described[0], described[1]);
    assert_memory_equal(logits[0], logits[1], bytes);
    for (int i = 0; i < 2; i++) {
        sllm_free(described[i]);
        test_free(logits[i]);
    }
    setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_keep_their_point),
        cmocka_unit_test(models_are_the_same),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
