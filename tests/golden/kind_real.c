/* golden/real: next-token distributions of real quantised files, computed in f32 by transformers. Divergence is over
 * the recorded 256 most likely tokens and the rest as one bucket: below 1e-6 on average in exact arithmetic, at most
 * 1.05 times llama.cpp's figure (the README's table) in fast. Greedy continuations must be the same in exact
 * arithmetic. */
#include "golden/golden.h"
#include "golden/reference.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOP = 256, N_CTX = 512 };
#define EXACT_LIMIT 1e-6
#define FAST_RATIO 1.05

/* Where a model of this name may lie: the cache, and build/models. */
static bool find_model(const char *directory, const char *file, char *path, size_t size) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char places[4][3072] = {"", "", "", ""};
    if (cache && *cache) snprintf(places[0], sizeof places[0], "%s/sllm/models", cache);
    if (home && *home) snprintf(places[1], sizeof places[1], "%s/.cache/sllm/models", home);
    snprintf(places[2], sizeof places[2], "%s/../../../build/models", directory);
    snprintf(places[3], sizeof places[3], "build/models");
    for (int i = 0; i < 4; i++)
        if (places[i][0] && sl_path_join(path, size, places[i], file) && sl_path_is_file(path)) return true;
    return false;
}

/* llama.cpp's mean divergence of a file, from the table in the folder's README; 0: not there. */
static double figure_of(const char *directory, const char *stem) {
    char path[4096];
    sl_buffer text = {0};
    double figure = 0;
    if (sl_path_join(path, sizeof path, directory, "README.md") && !sl_file_read(path, 1 << 20, &text, NULL)) {
        char row[300];
        snprintf(row, sizeof row, "| %s |", stem);
        const char *line = strstr(text.data, row);
        if (line) figure = strtod(line + strlen(row), NULL);
    }
    sl_buffer_free(&text);
    return figure;
}

/* KL divergence of the reference (N_TOP log probabilities and the rest) from logits [n_vocab]. */
static double divergence(const int32_t *ids, const float *logprobs, const float *logits, int n_vocab) {
    double largest = logits[argmax(logits, n_vocab)], sum = 0, kld = 0, rest_p = 1, rest_q = 1;
    for (int i = 0; i < n_vocab; i++) sum += exp(logits[i] - largest);
    for (int i = 0; i < N_TOP; i++) {
        double log_q = logits[ids[i]] - largest - log(sum), p = exp(logprobs[i]);
        kld += p * (logprobs[i] - log_q);
        rest_p -= p;
        rest_q -= exp(log_q);
    }
    if (rest_p > 1e-12) kld += rest_p * log(rest_p / fmax(rest_q, 1e-12));
    return kld;
}

typedef struct figures {
    double sum, worst;
    int n, same_top, greedy_wrong, n_greedy;
} figures;

static bool one_text(engine *e, const sl_safetensors *expected, int text, figures *f, sllm_error *error) {
    char name[64];
    int64_t rows, n = 0, top_n, n_greedy, n_vocab = e->model->config.n_vocab;
    snprintf(name, sizeof name, "text%d.input_ids", text);
    int32_t *ids = reference_ids(expected, name, &rows, &n);
    snprintf(name, sizeof name, "text%d.top_ids", text);
    int32_t *top = reference_ids(expected, name, &rows, &top_n);
    snprintf(name, sizeof name, "text%d.top_logprobs", text);
    const float *logprobs = reference_floats(expected, name, (uint64_t)n * N_TOP);
    snprintf(name, sizeof name, "text%d.greedy_ids", text);
    int32_t *greedy = reference_ids(expected, name, &rows, &n_greedy);
    float *logits = malloc((size_t)(n * n_vocab) * sizeof *logits);
    int32_t *got = greedy ? malloc((size_t)n_greedy * sizeof *got) : NULL;
    bool good = ids && top && logprobs && greedy && logits && got && n >= 24 && top_n == N_TOP &&
                !engine_logits(e, ids, (int)n, logits, NULL, NULL, error);
    for (int64_t t = 0; good && t < n; t++) {
        const float *row = logits + t * n_vocab;
        double d = divergence(top + t * N_TOP, logprobs + t * N_TOP, row, (int)n_vocab);
        f->sum += d;
        f->worst = fmax(f->worst, d);
        f->same_top += argmax(row, (int)n_vocab) == top[t * N_TOP];
        f->n++;
    }
    if (good && e->model->exact) {
        good = !engine_greedy(e, ids, 24, (int)n_greedy, got, error);
        f->n_greedy++;
        f->greedy_wrong += good && memcmp(got, greedy, (size_t)n_greedy * sizeof *got);
    }
    free(ids);
    free(top);
    free(greedy);
    free(logits);
    free(got);
    return good;
}

static void run(golden *g, const char *path, const char *stem, const sl_safetensors *expected, bool exact,
                double llama) {
    char name[256];
    sllm_error error = {0};
    figures f = {0};
    engine e;
    snprintf(name, sizeof name, "%s (%s)", stem, exact ? "exact" : "fast");
    bool done = engine_open(&e, path, exact, N_CTX, &error);
    for (int text = 0; done && text < 3; text++) done = one_text(&e, expected, text, &f, &error);
    engine_close(&e);
    double mean = f.sum / f.n, limit = exact ? EXACT_LIMIT : FAST_RATIO * llama;
    bool good = done && f.n && mean <= limit && !f.greedy_wrong;
    char greedy[48] = "";
    if (exact) snprintf(greedy, sizeof greedy, ", greedy %d of %d", f.n_greedy - f.greedy_wrong, f.n_greedy);
    (good ? golden_pass : golden_fail)(g, name, "mean KLD %.3e (limit %.3e), max %.1e, top-1 %.1f %% of %d%s %s", mean,
                                       limit, f.worst, 100.0 * f.same_top / (f.n ? f.n : 1), f.n, greedy,
                                       error.message);
}

static const char *folder; /* of the kind that runs now: golden_each hands over paths alone */

static void one_model(golden *g, const char *path, const char *name) {
    char file[300], model[4096], stem[256];
    sllm_error error = {0};
    sl_safetensors *expected = NULL;
    const char *end = strstr(name, ".safetensors");
    if (!end) return;
    snprintf(stem, sizeof stem, "%.*s", (int)(end - name), name);
    snprintf(file, sizeof file, "%s.gguf", stem);
    double llama = figure_of(folder, stem);
    if (!find_model(folder, file, model, sizeof model)) {
        golden_skip(g, stem, "%s is neither in the model cache nor in build/models", file);
    } else if (sl_safetensors_open(path, &expected, &error)) {
        golden_fail(g, stem, "%s", error.message);
    } else if (llama <= 0) {
        golden_fail(g, stem, "README.md has no figure for it");
    } else {
        run(g, model, stem, expected, true, llama);
        run(g, model, stem, expected, false, llama);
    }
    sl_safetensors_close(expected);
}

void golden_real(golden *g, const char *directory) {
    folder = directory;
    if (!golden_each(directory, one_model, g)) golden_fail(g, directory, "cannot be read");
}
