/* golden quant/gptq_awq and quant/bnb_models: folders that others quantised. Joined matrices must be the reference's
 * dequantised ones within 1e-6, logits in exact arithmetic within 5e-4; in fast arithmetic the model must run. */
#include "base/file.h"
#include "golden/golden.h"
#include "golden/reference.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS 1e-6
#define LOGITS 5e-4

static const sl_tensor *find(const sl_model *m, const char *name) {
    sl_tensors tensors = sl_tensors_of(m);
    char full[512];
    bool whole = strlen(name) > 7 && !strcmp(name + strlen(name) - 7, ".weight"); /* both spellings occur */
    snprintf(full, sizeof full, whole ? "%s" : "%s.weight", name);
    for (size_t i = 0; i < sl_tensors_count(&tensors); i++)
        if (!strcmp(sl_tensors_at(&tensors, i)->name, full)) return sl_tensors_at(&tensors, i);
    return NULL;
}

/* Largest difference of the matrices the reference dequantised; infinite when one is missing. *n: how many. */
static double compare_weights(const sl_model *m, const sl_safetensors *expected, int *n) {
    static const char prefix[] = "dequant.";
    double worst = 0;
    *n = 0;
    for (size_t i = 0; i < sl_safetensors_count(expected); i++) {
        const sl_tensor *want = sl_safetensors_at(expected, i);
        if (strncmp(want->name, prefix, sizeof prefix - 1)) continue;
        const sl_tensor *got = find(m, want->name + sizeof prefix - 1);
        bool fits = got && want->type == SL_F32 && got->n_elements == want->n_elements && got->shape[0] == want->shape[0];
        float *values = fits ? malloc(want->bytes) : NULL;
        if (!values) return INFINITY;
        sl_type_get(got->type)->to_float(got->data, values, want->n_elements);
        double d = max_difference(values, want->data, want->n_elements);
        worst = d > worst ? d : worst;
        free(values);
        (*n)++;
    }
    return worst;
}

static double compare_logits(engine *e, const sl_safetensors *expected, sllm_error *error) {
    int64_t rows, columns, n_vocab = e->model->config.n_vocab;
    double worst = INFINITY;
    int32_t *ids = reference_ids(expected, "input_ids", &rows, &columns);
    const float *want = ids ? reference_floats(expected, "logits", (uint64_t)(rows * columns * n_vocab)) : NULL;
    float *got = want ? malloc((size_t)(columns * n_vocab) * sizeof *got) : NULL;
    for (int64_t i = 0; got && i < rows; i++) {
        if (engine_logits(e, ids + i * columns, (int)columns, got, NULL, NULL, error)) {
            worst = INFINITY;
            break;
        }
        double d = max_difference(got, want + i * columns * n_vocab, (size_t)(columns * n_vocab));
        worst = i == 0 || d > worst ? d : worst;
    }
    free(got);
    free(ids);
    return worst;
}

static void one_folder(golden *g, const char *path, const char *name) {
    char file[4096], label[256];
    sllm_error error = {0};
    sl_safetensors *expected = NULL;
    engine e;
    if (!sl_path_is_directory(path) || !sl_path_join(file, sizeof file, path, "expected.safetensors")) return;
    if (sl_safetensors_open(file, &expected, &error)) {
        golden_fail(g, name, "%s", error.message);
        return;
    }
    for (int fast = 0; fast < 2; fast++) {
        snprintf(label, sizeof label, "%s %s", name, fast ? "fast" : "exact");
        if (!engine_open(&e, path, !fast, 256, &error)) {
            golden_fail(g, label, "%s", error.message);
            continue;
        }
        int n = 0;
        double weights = fast ? 0 : compare_weights(e.model, expected, &n), logits = compare_logits(&e, expected, &error);
        bool good = fast ? logits < 5 : n > 0 && weights <= WEIGHTS && logits <= LOGITS;
        (good ? golden_pass : golden_fail)(g, label, "%d weights %.1e, logits %.1e %s", n, weights, logits, error.message);
        engine_close(&e);
    }
    sl_safetensors_close(expected);
}

void golden_packed(golden *g, const char *directory) { golden_each(directory, one_folder, g); }
