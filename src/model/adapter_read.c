/* PEFT's adapter folders: adapter_config.json says how, adapter_model.safetensors holds base_model.model.NAME.lora_A.weight,
 * .lora_B.weight and, for DoRA, .lora_magnitude_vector, NAME being the module's name in the checkpoint; matrices saved whole stand
 * under base_model.model.NAME.weight. */
#include "model/adapter.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096, KEY_SIZE = SL_NAME_SIZE + 64, CONFIG_LIMIT = 1 << 22 };

typedef struct reader {
    const sl_model *model;
    const sl_json *config;
    sl_safetensors *file;
    sl_adapter *adapter;
    sl_arena arena;      /* the configuration */
    bool *used;          /* [tensors] has it found its place? */
    bool dora, rslora;
    int64_t alpha;
    const char *path;
    sllm_error *error;
    sllm_status status;
} reader;

/* ---------------------------------------------------------------- the configuration */

static bool is_set(const sl_json *v) {
    bool flag;
    if (!v || v->type == SL_JSON_NULL) return false;
    if (sl_json_bool(v, &flag)) return flag;
    return v->type == SL_JSON_STRING || (v->type != SL_JSON_NUMBER && v->length > 0);
}

/* Settings that change what is computed and that are not known here. */
static sllm_status check_config(reader *r) {
    static const char *const unknown[] = {"alora_invocation_tokens", "lora_bias", "use_bdlora", "use_qalora", "layer_replication",
                                          "megatron_config", "trainable_token_indices", "target_parameters", "arrow_config",
                                          "velora_config", "monteclora_config"};
    const char *kind = sl_json_string(sl_json_get(r->config, "peft_type")), *bias = sl_json_string(sl_json_get(r->config, "bias"));
    if (!kind || strcmp(kind, "LORA"))
        return sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s: adapter_config.json: peft_type '%s' is not known; LORA is", r->path, kind ? kind : "?");
    if (bias && strcmp(bias, "none"))
        return sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s: adapter_config.json: trained biases ('%s') are not known", r->path, bias);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (is_set(sl_json_get(r->config, unknown[i])))
            return sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s: adapter_config.json: '%s' is not known", r->path, unknown[i]);
    sl_json_bool(sl_json_get(r->config, "use_dora"), &r->dora);
    sl_json_bool(sl_json_get(r->config, "use_rslora"), &r->rslora);
    if (!sl_json_int64(sl_json_get(r->config, "lora_alpha"), &r->alpha))
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "%s: adapter_config.json: lora_alpha is missing or no whole number", r->path);
    return SLLM_OK;
}

/* A key of alpha_pattern is a module's name, its end after a dot, or a regular expression for either. */
static bool names_module(reader *r, const char *key, const char *module) {
    char pattern[KEY_SIZE];
    regex_t regex;
    int n = snprintf(pattern, sizeof pattern, "^(.*\\.)?(%s)$", key);
    if (n < 0 || (size_t)n >= sizeof pattern || regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB)) {
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s: adapter_config.json: alpha_pattern '%.80s' is no regular expression", r->path, key);
        return false;
    }
    bool found = !regexec(&regex, module, 0, NULL, 0);
    regfree(&regex);
    return found;
}

static double alpha_of(reader *r, const char *module) {
    const sl_json *patterns = sl_json_get(r->config, "alpha_pattern");
    for (const sl_json *p = patterns ? patterns->first : NULL; p && !r->status; p = p->next) {
        double alpha;
        if (names_module(r, p->key, module) && sl_json_double(p, &alpha)) return alpha;
    }
    return (double)r->alpha;
}

/* ---------------------------------------------------------------- tensors */

static const sl_tensor *find(reader *r, const char *module, const char *suffix) {
    char key[KEY_SIZE];
    int n = snprintf(key, sizeof key, "base_model.model.%s%s", module, suffix);
    const sl_tensor *t = n > 0 && (size_t)n < sizeof key ? sl_safetensors_get(r->file, key) : NULL;
    if (t) r->used[t - sl_safetensors_at(r->file, 0)] = true;
    return t;
}

static bool module_of(const reader *r, sl_slot slot, int layer, int expert, char out[SL_NAME_SIZE]) {
    return sl_weights_name(r->model->config.family->names, slot, layer, expert, "", out);
}

static void fail_shape(reader *r, const sl_tensor *t, int64_t rows, int64_t columns) {
    r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s: tensor %s: [%lld, %lld] is needed for this model, in floats", r->path, t->name,
                        (long long)rows, (long long)columns);
}

static bool fits(reader *r, const sl_tensor *t, int64_t rows, int64_t columns) {
    uint64_t n = (uint64_t)rows * (uint64_t)columns;
    bool good = t->n_elements == n && sl_type_get(t->type)->is_float && !sl_type_get(t->type)->is_quantised &&
                (t->n_dims == 1 ? columns == 1 : t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == columns);
    if (!good) fail_shape(r, t, rows, columns);
    return good;
}

/* A tensor [rows, columns] with its rows where the model's are (place) or as they stand (NULL). */
static void read_rows(reader *r, const sl_tensor *t, const sl_product_place *place, int64_t rows, int64_t columns, float *out) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t from = place ? sl_product_source_row(r->model, place, i) : i;
        sl_tensor_read(t, (uint64_t)(from * columns), (size_t)columns, out + i * columns);
        for (int64_t c = 0; c < columns; c++)
            if (!isfinite(out[i * columns + c])) {
                r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number", r->path, t->name);
                return;
            }
    }
}

static bool read_place(void *user, const sl_product_place *place) {
    reader *r = user;
    char module[SL_NAME_SIZE];
    if (!module_of(r, place->slot, place->layer, place->expert, module)) return true;
    const sl_tensor *a = find(r, module, ".lora_A.weight"), *b = find(r, module, ".lora_B.weight");
    const sl_tensor *m = find(r, module, ".lora_magnitude_vector");
    if (!a && !b && !m) return true;
    if (!a || !b || (m != NULL) != r->dora) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s: %s has not all of its lora_A, lora_B%s", r->path, module,
                            r->dora ? ", lora_magnitude_vector" : "");
        return false;
    }
    int64_t rank = a->n_dims == 2 ? a->shape[0] : 0, rows = place->w.shape[0], columns = place->w.shape[1];
    if (rank < 1 || rank > 4096) fail_shape(r, a, 1, columns);
    if (r->status || !fits(r, a, rank, columns) || !fits(r, b, rows, rank) || (m && !fits(r, m, rows, 1))) return false;
    double alpha = alpha_of(r, module);
    if (r->status) return false;
    sl_lora *l = sl_adapter_add(r->adapter, place, (int)rank, (float)(alpha / (r->rslora ? sqrt((double)rank) : (double)rank)), m != NULL);
    if (!l) r->status = sl_fail_memory(r->error, r->path, 0);
    if (!r->status) read_rows(r, a, NULL, rank, columns, l->a);
    if (!r->status) read_rows(r, b, place, rows, rank, l->b);
    if (!r->status && m) read_rows(r, m, place, rows, 1, l->magnitude);
    return !r->status;
}

/* The embedding or the output matrix, saved whole. */
static void read_whole(reader *r, sl_slot slot, const sl_tensor *own, sl_tensor *out) {
    char module[SL_NAME_SIZE];
    const sl_tensor *t = !r->status && module_of(r, slot, 0, 0, module) ? find(r, module, ".weight") : NULL;
    if (!t || !fits(r, t, own->shape[0], own->shape[1])) return;
    float *values = sl_arena_alloc(&r->adapter->arena, (size_t)t->n_elements * sizeof *values);
    if (!values) {
        r->status = sl_fail_memory(r->error, t->name, (size_t)t->n_elements * sizeof *values);
        return;
    }
    read_rows(r, t, NULL, own->shape[0], own->shape[1], values);
    *out = (sl_tensor){.name = own->name, .type = SL_F32, .n_dims = 2, .shape = {own->shape[0], own->shape[1]}, .data = values,
                       .n_elements = t->n_elements, .bytes = t->n_elements * sizeof *values};
}

/* A tensor that has no place would be a change that is left out without a word. */
static void check_used(reader *r) {
    for (size_t i = 0; !r->status && i < sl_safetensors_count(r->file); i++)
        if (!r->used[i])
            r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s: tensor %s belongs to no product of this model (%s): the adapter is of "
                                "another base, or of a kind that is not known", r->path, sl_safetensors_at(r->file, i)->name,
                                r->model->config.family->title);
}

/* ---------------------------------------------------------------- the whole */

static sllm_status open_folder(reader *r) {
    char path[PATH_SIZE];
    sl_buffer text = {0};
    if (!sl_path_join(path, sizeof path, r->path, "adapter_config.json")) return sl_fail(r->error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", r->path);
    sllm_status status = sl_file_read(path, CONFIG_LIMIT, &text, r->error);
    if (!status) status = sl_json_parse(&r->arena, text.data, text.length, path, &r->config, r->error);
    sl_buffer_free(&text);
    if (!status) status = check_config(r);
    if (!status && sl_path_join(path, sizeof path, r->path, "adapter_model.safetensors")) status = sl_safetensors_open(path, &r->file, r->error);
    return status;
}

sllm_status sl_adapter_read(const sl_model *model, const char *path, sl_adapter **adapter, sllm_error *error) {
    reader r = {.model = model, .path = path, .error = error};
    *adapter = NULL;
    if (!model->weights) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights");
    r.status = open_folder(&r);
    if (!r.status && !(r.used = sl_arena_array(&r.arena, sl_safetensors_count(r.file) + 1, sizeof *r.used)))
        r.status = sl_fail_memory(error, path, 0);
    if (!r.status) r.status = sl_adapter_begin(model, path, sl_safetensors_count(r.file), &r.adapter, error);
    if (!r.status) sl_products_each(model, read_place, &r);
    if (!r.status) read_whole(&r, SL_SLOT_EMBED, &model->weights->embed, &r.adapter->embed);
    if (!r.status) read_whole(&r, SL_SLOT_OUTPUT, &model->weights->output, &r.adapter->output);
    check_used(&r);
    if (!r.status && !sl_adapter_update_gains(model, r.adapter)) r.status = sl_fail_memory(error, path, 0);
    sl_safetensors_close(r.file);
    sl_arena_free(&r.arena);
    if (r.status) sl_adapter_free(r.adapter);
    else *adapter = r.adapter;
    return r.status;
}
