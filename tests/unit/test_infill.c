/* Fill in the middle: the tokens that vocabularies of code models were trained with, around the two texts' own tokens.
 * Needs the shared golden vocabularies. */
#include "sllm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define VOCABULARIES SLLM_SOURCE_DIR "/../shared/golden/tokenizers/vocab/ggml-vocab-"

static const char *const prefix = "def add(a, b):\n    return ", *const suffix = "\n\nprint(add(1, 2))";

static sllm_model *load(const char *name) {
    char path[512];
    sllm_model_params params;
    sllm_model *model;
    sllm_error error = {0};
    snprintf(path, sizeof path, "%s%s.gguf", VOCABULARIES, name);
    sllm_model_params_init(&params);
    params.vocab_only = true;
    if (sllm_model_load(path, &params, &model, &error)) fail_msg("%s", error.message);
    return model;
}

/* What was encoded must be [bos] marks[0] prefix marks[1] suffix marks[2]. */
static void around(const char *name, bool bos, const char *const marks[3]) {
    sllm_model *model = load(name);
    sllm_tokens tokens, text;
    sllm_error error = {0};
    if (sllm_infill_tokens(model, prefix, strlen(prefix), suffix, strlen(suffix), &tokens, &error))
        fail_msg("%s: %s", name, error.message);
    const char *const texts[] = {prefix, suffix};
    size_t at = 0;
    if (bos) assert_int_equal(tokens.ids[at++], sllm_token_bos(model));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tokens.ids[at++], sllm_token_id(model, marks[i]));
        if (i == 2) break;
        assert_int_equal(sllm_tokenize(model, texts[i], strlen(texts[i]), 0, &text, NULL), SLLM_OK);
        assert_true(at + text.n < tokens.n);
        assert_memory_equal(tokens.ids + at, text.ids, text.n * sizeof *text.ids);
        at += text.n;
        sllm_tokens_free(&text);
    }
    assert_int_equal(at, tokens.n);
    sllm_tokens_free(&tokens);
    sllm_model_free(model);
}

static void code_models_fill_in(void **state) {
    (void)state;
    around("starcoder", false, (const char *const[]){"<fim_prefix>", "<fim_suffix>", "<fim_middle>"});
    around("refact", false, (const char *const[]){"<fim_prefix>", "<fim_suffix>", "<fim_middle>"});
    static const char *const deepseek[] = {"<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>",
                                           "<\uff5cfim\u2581end\uff5c>"};
    around("deepseek-coder", true, deepseek);
}

static void others_say_so(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2", "llama-spm"};
    for (int i = 0; i < 2; i++) {
        sllm_model *model = load(names[i]);
        sllm_tokens tokens;
        sllm_error error = {0};
        assert_int_equal(sllm_infill_tokens(model, "a", 1, "b", 1, &tokens, &error), SLLM_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, "middle"));
        assert_null(tokens.ids);
        assert_int_equal(sllm_infill_tokens(model, NULL, 1, "b", 1, &tokens, NULL), SLLM_ERROR_ARGUMENT);
        sllm_model_free(model);
    }
}

int main(void) {
    if (access(VOCABULARIES "starcoder.gguf", R_OK) != 0) {
        printf("skipped: the shared golden vocabularies are not there\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(code_models_fill_in), cmocka_unit_test(others_say_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
