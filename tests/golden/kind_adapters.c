/* golden/adapters: PEFT folders on golden/models. The logits with the adapter, computed live, must be transformers' within 5e-4,
 * without it the base's, and the greedy tokens the same. */
#include "golden/golden.h"
#include "golden/reference.h"

#include "base/file.h"
#include "model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 5e-4

/* Worst difference of the logits of all rows of input_ids. */
static double compare(engine *e, const sl_safetensors *expected, const char *logits, sllm_error *error) {
    int64_t rows, columns, n_vocab = e->model->config.n_vocab;
    int32_t *ids = reference_ids(expected, "input_ids", &rows, &columns);
    const float *want = ids ? reference_floats(expected, logits, (uint64_t)(rows * columns * n_vocab)) : NULL;
    float *got = want ? malloc((size_t)(columns * n_vocab) * sizeof *got) : NULL;
    double worst = got ? 0 : INFINITY;
    for (int64_t i = 0; got && i < rows; i++) {
        if (engine_logits(e, ids + i * columns, (int)columns, got, NULL, NULL, error)) worst = INFINITY;
        else worst = fmax(worst, max_difference(got, want + i * columns * n_vocab, (size_t)(columns * n_vocab)));
    }
    free(got);
    free(ids);
    return worst;
}

static int wrong_tokens(engine *e, const char *path, int *n, sllm_error *error) {
    sl_arena arena = {0};
    int wrong = 0;
    const sl_json *greedy = json_file(&arena, path, "greedy.json");
    const sl_json *prompts = sl_json_get(greedy, "prompts"), *tokens = sl_json_get(greedy, "tokens");
    *n = 0;
    for (size_t i = 0; prompts && tokens && i < prompts->length; i++, ++*n) {
        int n_prompt = 0, n_want = 0;
        int32_t *prompt = json_ids(sl_json_at(prompts, i), &n_prompt), *want = json_ids(sl_json_at(tokens, i), &n_want);
        int32_t *got = malloc(((size_t)n_want + 1) * sizeof *got);
        wrong += !prompt || !want || !got || engine_greedy(e, prompt, n_prompt, n_want, got, error) ||
                 memcmp(got, want, (size_t)n_want * sizeof *got);
        free(prompt);
        free(want);
        free(got);
    }
    sl_arena_free(&arena);
    return wrong;
}

static void check(golden *g, const char *path, const char *name, const char *base, const sl_safetensors *expected) {
    sllm_model_params params = {.exact = true};
    sllm_error error = {0};
    engine with = {0}, without = {0};
    sl_adapter *adapter = NULL;
    sl_adapters set = {.n = 1, .weights = {1}};
    if (!sl_model_load(base, &params, &with.model, &error) && !sl_adapter_read(with.model, path, &adapter, &error)) {
        set.items[0] = adapter;
        with.model->adapters = &set;
        with.model->adapter_rank = adapter->max_rank;
    }
    if (!adapter || sl_adapters_check(&set, &error) || !engine_start(&with, 256, &error) || !engine_open(&without, base, true, 256, &error)) {
        bool encoder = error.status == SLLM_ERROR_UNSUPPORTED && strstr(error.message, "encoder");
        (encoder ? golden_skip : golden_fail)(g, name, "%s", error.message);
    } else {
        int n, wrong = wrong_tokens(&with, path, &n, &error);
        double live = compare(&with, expected, "logits_adapter", &error), plain = compare(&without, expected, "logits_base", &error);
        bool good = live <= TOLERANCE && plain <= TOLERANCE && !wrong && n > 0;
        (good ? golden_pass : golden_fail)(g, name, "logits %.1e, without %.1e, greedy %d of %d %s", live, plain, n - wrong, n, error.message);
    }
    engine_close(&with);
    engine_close(&without);
    sl_adapter_free(adapter);
}

static void one_case(golden *g, const char *path, const char *name) {
    char file[4096], base[4096];
    sllm_error error = {0};
    sl_safetensors *expected = NULL;
    sl_arena arena = {0};
    const sl_json *config = json_file(&arena, path, "adapter_config.json");
    const char *relative = sl_json_string(sl_json_get(config, "base_model_name_or_path"));
    /* The paths were written seen from golden/adapters. */
    if (relative && sl_path_join(file, sizeof file, path, "expected.safetensors")) {
        int n = snprintf(base, sizeof base, "%s/%s", path, relative);
        if (n < 0 || (size_t)n >= sizeof base) golden_fail(g, name, "the path is too long");
        else if (sl_safetensors_open(file, &expected, &error)) golden_fail(g, name, "%s", error.message);
        else check(g, path, name, base, expected);
    }
    sl_safetensors_close(expected);
    sl_arena_free(&arena);
}

void golden_adapters(golden *g, const char *directory) {
    if (!golden_each(directory, one_case, g)) golden_fail(g, directory, "cannot be read");
}
