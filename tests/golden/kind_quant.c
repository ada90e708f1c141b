/* golden quant: every block type widened bit for bit and every written one no worse than recorded (ggml/; bnb4bit/, kind_bnb.c), and whole GGUF files (gguf/,
 * kind_gguf.c). The other folders of quant hold formats that the library does not read yet. */
#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "golden/golden.h"
#include "tensor/quantise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* figures.json says each type's number in GGUF files, its block length and bytes. Empty text: they agree. */
static void compare_facts(const sl_json *figures, const char *name, const sl_type_info *info, char *text, size_t size) {
    const struct { const char *key; int value; } facts[] = {
        {"ggml_type", info->ggml_id}, {"block", info->block}, {"bytes_per_block", info->bytes},
    };
    text[0] = '\0';
    for (int i = 0; i < 3; i++) {
        int64_t expected;
        if (!sl_json_int64(sl_json_get(sl_json_get(figures, name), facts[i].key), &expected))
            snprintf(text, size, "figures.json has no %s for it", facts[i].key);
        else if (expected != facts[i].value)
            snprintf(text, size, "%s is %d, should be %lld", facts[i].key, facts[i].value, (long long)expected);
    }
}

/* One type: <name>.packed widened must be the bytes of <name>.dequant. */
static void check_type(golden *g, const sl_safetensors *file, const sl_json *figures, const sl_tensor *packed) {
    char name[64], expected_name[80], facts[128];
    sl_type type;
    uint64_t bytes;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(packed->name, "."), packed->name);
    snprintf(expected_name, sizeof expected_name, "%s.dequant", name);
    const sl_tensor *expected = sl_safetensors_get(file, expected_name);
    if (!sl_type_from_name(name, &type) || !sl_type_get(type)->to_float) {
        golden_fail(g, name, "unknown type");
        return;
    }
    if (!expected || expected->type != SL_F32 || !sl_type_bytes(type, expected->n_elements, &bytes)
        || bytes != packed->bytes) {
        golden_fail(g, name, "reference values are missing or do not match the packed bytes");
        return;
    }
    compare_facts(figures, name, sl_type_get(type), facts, sizeof facts);
    if (facts[0]) {
        golden_fail(g, name, "%s", facts);
        return;
    }
    float *out = malloc(expected->bytes);
    if (!out) {
        golden_fail(g, name, "out of memory");
        return;
    }
    sl_type_get(type)->to_float(packed->data, out, expected->n_elements);
    uint64_t differing = 0;
    for (uint64_t i = 0; i < expected->n_elements; i++)
        differing += memcmp(&out[i], (const char *)expected->data + 4 * i, 4) != 0;
    if (differing) golden_fail(g, name, "%llu of %llu values differ", (unsigned long long)differing,
                               (unsigned long long)expected->n_elements);
    else golden_pass(g, name, "%llu values bit-exact", (unsigned long long)expected->n_elements);
    free(out);
}

/* ---------------------------------------------------------------- writers */

/* Root mean square error of a tensor quantised without importance and widened again; negative: out of memory. */
static double error_of(sl_type type, const sl_tensor *x) {
    uint64_t bytes = 0;
    double sum = 0;
    sl_type_bytes(type, x->n_elements, &bytes);
    uint8_t *blocks = malloc(bytes);
    float *in = malloc(x->bytes), *out = malloc(x->bytes);
    bool fits = blocks && in && out;
    if (fits) {
        memcpy(in, x->data, x->bytes);
        sl_quantise_rows(type, in, x->shape[0], x->shape[1], NULL, blocks);
        sl_type_get(type)->to_float(blocks, out, x->n_elements);
        for (uint64_t i = 0; i < x->n_elements; i++) sum += ((double)in[i] - out[i]) * ((double)in[i] - out[i]);
    }
    free(blocks);
    free(in);
    free(out);
    return fits ? sqrt(sum / (double)x->n_elements) : -1;
}

/* No type's error may exceed the recorded one; *lower counts those that are below it on both tensors. */
static void check_writer(golden *g, const sl_safetensors *inputs, const sl_json *figure, sl_type type, int *lower) {
    static const char *const names[] = {"gaussian", "student_t4"};
    char label[64], key[64];
    double ours[2], recorded[2];
    snprintf(label, sizeof label, "%s written", sl_type_get(type)->name);
    for (int i = 0; i < 2; i++) {
        const sl_tensor *x = sl_safetensors_get(inputs, names[i]);
        snprintf(key, sizeof key, "rmse_%s", names[i]);
        if (!x || x->type != SL_F32 || x->n_dims != 2 || !sl_json_double(sl_json_get(figure, key), &recorded[i])) {
            golden_fail(g, label, "no %s or no %s", names[i], key);
            return;
        }
        ours[i] = error_of(type, x);
    }
    bool good = ours[0] >= 0 && ours[0] <= recorded[0] && ours[1] >= 0 && ours[1] <= recorded[1];
    *lower += good && ours[0] < recorded[0] && ours[1] < recorded[1];
    (good ? golden_pass : golden_fail)(g, label, "RMSE %.3f and %.3f of the recorded", ours[0] / recorded[0],
                                       ours[1] / recorded[1]);
}

static void check_writers(golden *g, const char *directory, const sl_json *figures) {
    char path[4096];
    sl_safetensors *inputs = NULL;
    sllm_error error = {0};
    int n = 0, lower = 0;
    if (!sl_path_join(path, sizeof path, directory, "inputs.safetensors") || sl_safetensors_open(path, &inputs, &error)) {
        golden_fail(g, "writers", "%s", error.message);
        return;
    }
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        const sl_json *figure = sl_json_get(figures, sl_type_get((sl_type)t)->name);
        if (!figure || !sl_type_get((sl_type)t)->is_quantised || !sl_type_is_written((sl_type)t)) continue;
        n++;
        check_writer(g, inputs, figure, (sl_type)t, &lower);
    }
    (2 * lower >= n && n ? golden_pass : golden_fail)(g, "writers", "%d of %d types below the recorded error", lower, n);
    sl_safetensors_close(inputs);
}

static void check_types(golden *g, const char *directory) {
    char path[4096];
    sl_safetensors *file = NULL;
    sl_arena arena = {0};
    sl_buffer text = {0};
    const sl_json *figures = NULL;
    sllm_error error = {0};
    if (!sl_path_join(path, sizeof path - 16, directory, "vectors.safetensors")) {
        golden_fail(g, directory, "path too long");
        return;
    }
    sllm_status status = sl_safetensors_open(path, &file, &error);
    sl_path_join(path, sizeof path, directory, "figures.json");
    if (status == SLLM_OK) status = sl_file_read(path, 1 << 20, &text, &error);
    if (status == SLLM_OK) status = sl_json_parse(&arena, text.data, text.length, path, &figures, &error);
    if (status != SLLM_OK) golden_fail(g, directory, "%s", error.message);
    for (size_t i = 0; status == SLLM_OK && i < sl_safetensors_count(file); i++) {
        const sl_tensor *tensor = sl_safetensors_at(file, i);
        const char *kind = strchr(tensor->name, '.');
        if (kind && !strcmp(kind, ".packed")) check_type(g, file, figures, tensor);
    }
    sl_safetensors_close(file);
    if (status == SLLM_OK) {
        sl_path_join(path, sizeof path, directory, "inputs.safetensors");
        if (sl_path_is_file(path)) check_writers(g, directory, figures);
        else golden_skip(g, "writers", "no inputs.safetensors");
    }
    sl_buffer_free(&text);
    sl_arena_free(&arena);
}

/* A case is a folder or a data file; cases.json describes its neighbours. */
static void skip_case(golden *g, const char *path, const char *name) {
    if (strcmp(name, "cases.json")) golden_skip(g, path, "this format is not read yet");
}

void golden_quant(golden *g, const char *directory) {
    static const char *const packed[] = {"bnb_models", "gptq_awq"}, *const later[] = {"gguf_lora"};
    char path[4096];
    if (sl_path_join(path, sizeof path, directory, "ggml") && sl_path_is_directory(path)) check_types(g, path);
    else golden_fail(g, directory, "holds no folder ggml");
    if (sl_path_join(path, sizeof path, directory, "gguf") && sl_path_is_directory(path)) golden_gguf(g, path);
    if (sl_path_join(path, sizeof path, directory, "bnb4bit") && sl_path_is_directory(path)) golden_bnb(g, path);
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++)
        if (sl_path_join(path, sizeof path, directory, packed[i]) && sl_path_is_directory(path)) golden_packed(g, path);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (sl_path_join(path, sizeof path, directory, later[i]) && sl_path_is_directory(path))
            golden_each(path, skip_case, g);
}
