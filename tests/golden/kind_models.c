/* golden/models: tiny folders of every decoder family. Exact arithmetic must give transformers' logits and hidden
 * states within 5e-4 and the same greedy tokens. */
#include "golden/golden.h"
#include "golden/reference.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 5e-4

typedef struct hidden {
    const sl_safetensors *expected;
    int n_embd;
    int64_t n_tokens;
    double worst;
} hidden;

/* Compares the residual stream of sequence 0 with hidden.embed and hidden.N. */
static void compare_hidden(void *user, int layer, int first, int n, const float *x) {
    hidden *h = user;
    char name[32];
    if (layer < 0) snprintf(name, sizeof name, "hidden.embed");
    else snprintf(name, sizeof name, "hidden.%d", layer);
    const float *want = reference_floats(h->expected, name, (uint64_t)h->n_tokens * (uint64_t)h->n_embd);
    size_t count = (size_t)n * (size_t)h->n_embd;
    double d = want ? max_difference(x, want + (size_t)first * (size_t)h->n_embd, count) : INFINITY;
    if (d > h->worst) h->worst = d;
}

/* Worst logit difference over all sequences of `ids_name`; negative: no such tensors. */
static double compare_logits(engine *e, const sl_safetensors *expected, const char *ids_name, const char *logits_name,
                             hidden *h, sllm_error *error) {
    int64_t rows, columns, n_vocab = e->model->config.n_vocab;
    double worst = -1;
    int32_t *ids = reference_ids(expected, ids_name, &rows, &columns);
    const float *want = ids ? reference_floats(expected, logits_name, (uint64_t)(rows * columns * n_vocab)) : NULL;
    float *got = want ? malloc((size_t)(columns * n_vocab) * sizeof *got) : NULL;
    for (int64_t i = 0; got && i < rows; i++) {
        if (h) h->n_tokens = columns;
        bool tapped = h && i == 0;
        if (engine_logits(e, ids + i * columns, (int)columns, got, tapped ? compare_hidden : NULL, h, error)) {
            worst = INFINITY;
            break;
        }
        double d = max_difference(got, want + i * columns * n_vocab, (size_t)(columns * n_vocab));
        if (d > worst) worst = d;
    }
    free(got);
    free(ids);
    return worst;
}

/* Counts the continuations of one part of greedy.json, and those that differ. */
static void compare_greedy(engine *e, const sl_json *part, int *n, int *wrong, sllm_error *error) {
    const sl_json *prompts = sl_json_get(part, "prompts"), *tokens = sl_json_get(part, "tokens");
    for (size_t i = 0; prompts && tokens && i < prompts->length; i++, (*n)++) {
        int n_prompt = 0, n_want = 0;
        int32_t *prompt = json_ids(sl_json_at(prompts, i), &n_prompt), *want = json_ids(sl_json_at(tokens, i), &n_want);
        int32_t *got = malloc(((size_t)n_want + 1) * sizeof *got);
        if (!prompt || !want || !got || engine_greedy(e, prompt, n_prompt, n_want, got, error) ||
            memcmp(got, want, (size_t)n_want * sizeof *got))
            (*wrong)++;
        free(prompt);
        free(want);
        free(got);
    }
}

static void check(golden *g, engine *e, const sl_safetensors *expected, const char *path, const char *name) {
    sl_arena arena = {0};
    sllm_error error = {0};
    hidden h = {.expected = expected, .n_embd = e->model->config.n_embd};
    int n = 0, wrong = 0;
    double logits = compare_logits(e, expected, "input_ids", "logits", &h, &error);
    double brief = compare_logits(e, expected, "input_ids_short", "logits_short", NULL, &error);
    const sl_json *greedy = json_file(&arena, path, "greedy.json");
    compare_greedy(e, greedy, &n, &wrong, &error);
    compare_greedy(e, sl_json_get(greedy, "long"), &n, &wrong, &error);
    compare_greedy(e, sl_json_get(greedy, "crossing"), &n, &wrong, &error);
    bool good = logits >= 0 && logits <= TOLERANCE && brief <= TOLERANCE && h.worst <= TOLERANCE && !wrong && n > 0;
    char shorter[48] = "";
    if (brief >= 0) snprintf(shorter, sizeof shorter, ", short %.1e", brief);
    (good ? golden_pass : golden_fail)(g, name, "logits %.1e%s, hidden %.1e, greedy %d of %d %s", logits, shorter,
                                       h.worst, n - wrong, n, error.message);
    sl_arena_free(&arena);
}

static void one_folder(golden *g, const char *path, const char *name) {
    char file[4096];
    sllm_error error = {0};
    sl_safetensors *expected = NULL;
    engine e;
    if (!sl_path_is_directory(path) || !sl_path_join(file, sizeof file, path, "expected.safetensors") ||
        !sl_path_is_file(file))
        return;
    if (sl_safetensors_open(file, &expected, &error)) {
        golden_fail(g, name, "%s", error.message);
    } else if (!engine_open(&e, path, true, 256, &error)) {
        bool encoder = error.status == SLLM_ERROR_UNSUPPORTED && strstr(error.message, "encoder");
        (encoder ? golden_skip : golden_fail)(g, name, "%s", error.message);
    } else {
        check(g, &e, expected, path, name);
        engine_close(&e);
    }
    sl_safetensors_close(expected);
}

void golden_models(golden *g, const char *directory) {
    char file[4096];
    if (sl_path_join(file, sizeof file, directory, "expected.safetensors") && sl_path_is_file(file))
        one_folder(g, directory, directory); /* a model's folder itself */
    else if (!golden_each(directory, one_folder, g))
        golden_fail(g, directory, "cannot be read");
}
