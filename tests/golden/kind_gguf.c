/* golden/quant/gguf: whole GGUF files made by llama.cpp's converter. Exact arithmetic must give the f32 logits of the
 * dequantised weights within 5e-4; fast arithmetic may be no further from them (root mean square) than llama.cpp is.
 * Where a file leaves out what its source model says (a sliding window), the target is what the file says. */
#include "golden/golden.h"
#include "golden/reference.h"

#include "base/file.h"
#include "model/plan.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 5e-4

typedef struct distance {
    double worst, rms;
} distance;

/* Distances of one file's logits from a reference; false: no such reference. */
static bool compare(engine *e, const sl_safetensors *expected, const char *ids_name, const char *logits_name,
                    distance *d, sllm_error *error) {
    int64_t rows, columns, n_vocab = e->model->config.n_vocab;
    int32_t *ids = reference_ids(expected, ids_name, &rows, &columns);
    const float *want = ids ? reference_floats(expected, logits_name, (uint64_t)(rows * columns * n_vocab)) : NULL;
    float *got = want ? malloc((size_t)(rows * columns * n_vocab) * sizeof *got) : NULL;
    *d = (distance){INFINITY, INFINITY};
    bool done = got != NULL;
    for (int64_t i = 0; done && i < rows; i++) {
        float *row = got + i * columns * n_vocab;
        done = !engine_logits(e, ids + i * columns, (int)columns, row, NULL, NULL, error);
    }
    if (done) {
        d->worst = max_difference(got, want, (size_t)(rows * columns * n_vocab));
        d->rms = rms_difference(got, want, (size_t)(rows * columns * n_vocab));
    }
    bool there = want != NULL;
    free(got);
    free(ids);
    return there;
}

/* What the plan of a quantised file says against the tensors of one that llama.cpp made; "" when they agree. */
static void check_plan(const sl_model *model, const char *type, char *says, size_t size) {
    sl_footprint planned = {0};
    uint64_t there = 0;
    sllm_error error = {0};
    sl_tensors tensors = {.gguf = model->gguf};
    says[0] = 0;
    for (size_t i = 0; i < sl_tensors_count(&tensors); i++) there += sl_tensors_at(&tensors, i)->bytes;
    if (sl_plan_weights(&model->config, type, false, &planned, &error) || planned.file_bytes != there)
        snprintf(says, size, "planned %llu bytes, the file has %llu: ", (unsigned long long)planned.file_bytes,
                 (unsigned long long)there);
}

static void one_file(golden *g, const char *folder, const char *type, const sl_json *info,
                     const sl_safetensors *expected) {
    char path[4096], name[128], target[96], shorter[96];
    const char *file = sl_json_string(sl_json_get(info, "file"));
    double llama = 0;
    sllm_error error = {0};
    engine e;
    snprintf(name, sizeof name, "gguf/%s", file ? file : type);
    snprintf(target, sizeof target, "%s.logits_file_f32", type);
    if (!sl_safetensors_get(expected, target)) snprintf(target, sizeof target, "%s.logits_dequant_f32", type);
    snprintf(shorter, sizeof shorter, "%s.logits_short_dequant_f32", type);
    if (!file || !sl_json_double(sl_json_get(info, "rms_diff_llama_cpp_vs_dequant"), &llama) ||
        !sl_path_join(path, sizeof path, folder, file)) {
        golden_fail(g, name, "info.json has no figures for it");
        return;
    }
    distance exact = {INFINITY, INFINITY}, brief, fast = exact;
    bool has_short = false, only_f32 = false;
    char plan[96] = "";
    if (engine_open(&e, path, true, 256, &error)) {
        only_f32 = e.model->weights->only_f32;
        check_plan(e.model, type, plan, sizeof plan);
        compare(&e, expected, "input_ids", target, &exact, &error);
        has_short = compare(&e, expected, "input_ids_short", shorter, &brief, &error);
        engine_close(&e);
    }
    if (!error.status && engine_open(&e, path, false, 256, &error)) {
        compare(&e, expected, "input_ids", target, &fast, &error);
        engine_close(&e);
    }
    /* f32 weights leave nothing to round: `fast` is f32 too, llama.cpp shows the noise of f32 sums, the exact limit
     * holds */
    bool fast_good = only_f32 ? fast.worst <= TOLERANCE : fast.rms <= llama;
    bool good = exact.worst <= TOLERANCE && (!has_short || brief.worst <= TOLERANCE) && fast_good && !*plan;
    char of_short[48] = "";
    if (has_short) snprintf(of_short, sizeof of_short, ", short %.1e", brief.worst);
    if (only_f32)
        (good ? golden_pass : golden_fail)(g, name, "%sexact %.1e%s; float weights: fast is f32 too, %.1e %s", plan,
                                           exact.worst, of_short, fast.worst, error.message);
    else
        (good ? golden_pass : golden_fail)(g, name, "%sexact %.1e%s, fast rms %.3e (llama.cpp %.3e, ratio %.3f) %s",
                                           plan, exact.worst, of_short, fast.rms, llama, fast.rms / llama,
                                           error.message);
}

static void one_folder(golden *g, const char *path, const char *name) {
    char file[4096];
    sl_arena arena = {0};
    sllm_error error = {0};
    sl_safetensors *expected = NULL;
    const sl_json *files = sl_json_get(json_file(&arena, path, "info.json"), "files");
    if (!files || !sl_path_join(file, sizeof file, path, "expected.safetensors")) {
        sl_arena_free(&arena);
        return;
    }
    if (sl_safetensors_open(file, &expected, &error)) golden_fail(g, name, "%s", error.message);
    for (const sl_json *f = expected ? files->first : NULL; f; f = f->next) one_file(g, path, f->key, f, expected);
    sl_safetensors_close(expected);
    sl_arena_free(&arena);
}

void golden_gguf(golden *g, const char *directory) {
    if (!golden_each(directory, one_folder, g)) golden_fail(g, directory, "cannot be read");
}
