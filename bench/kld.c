/* The mean KL divergence of many files from one, the base read once: bench/quantize.py's measure.
 *
 *     bench_kld TEXT CHUNKS N_CTX BASE FILE...       a line of JSON for each file */
#include "base/file.h"
#include "eval/score.h"
#include "eval/text_ids.h"

#include <stdio.h>
#include <stdlib.h>

static int fail(const sllm_error *error) {
    fprintf(stderr, "bench_kld: %s\n", error->message);
    return 1;
}

static int measure(const char *text, const sl_score_params *params, int n, char **paths) {
    sl_model **models = calloc((size_t)n, sizeof *models);
    sl_comparison *results = calloc((size_t)n, sizeof *results);
    sllm_model_params load = {0};
    sllm_error error = {0};
    sl_buffer bytes = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (!models || !results || sl_file_read(text, 1u << 30, &bytes, &error)) return fail(&error);
    for (int i = 0; i < n; i++)
        if (sl_model_load(paths[i], &load, &models[i], &error)) return fail(&error);
    if (sl_text_ids(models[0], bytes.data, bytes.length, false, params->n_ctx, &ids, &n_ids, &error)) return fail(&error);
    if (sl_compare_measure(models[0], (const sl_model *const *)models + 1, n - 1, ids, n_ids, params, results, &error))
        return fail(&error);
    for (int i = 1; i < n; i++) {
        const sl_comparison *c = &results[i - 1];
        printf("{\"file\":\"%s\",\"mean_kld\":%.8g,\"standard_error\":%.8g,\"p99\":%.8g,\"top1\":%.6f,\"nll_a\":%.8f,"
               "\"nll_b\":%.8f}\n", paths[i], c->mean_kld, c->kld_error, sl_comparison_quantile(c, 0.99), c->top1,
               c->a.mean_nll, c->b.mean_nll);
        free(c->kld);
    }
    for (int i = 0; i < n; i++) sl_model_free(models[i]);
    sl_buffer_free(&bytes);
    free(ids);
    free(results);
    free(models);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: bench_kld TEXT CHUNKS N_CTX BASE FILE...\n");
        return 2;
    }
    sl_score_params params = {.n_chunks = atoi(argv[2]), .n_ctx = atoi(argv[3])};
    return measure(argv[1], &params, argc - 4, argv + 4);
}
