#include "train/adapter_write.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096, PARTS = 3 };

/* ---------------------------------------------------------------- the tensors */

typedef struct places {
    const sl_adapter *adapter;
    sl_product_place *list; /* [adapter->n] of each item */
} places;

static bool note_place(void *user, const sl_product_place *place) {
    places *p = user;
    const sl_lora *l = sl_adapter_find(p->adapter, place->layer, place->slot, place->expert);
    if (l) p->list[l - p->adapter->list] = *place;
    return true;
}

static sl_tensor declare(sl_arena *arena, const sl_model *model, const sl_lora *l, int part) {
    static const char *const suffixes[PARTS] = {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"};
    char module[SL_NAME_SIZE], name[SL_NAME_SIZE + 64];
    sl_weights_name(model->config.family->names, l->slot, l->layer, l->expert, "", module);
    int n = snprintf(name, sizeof name, "base_model.model.%s%s", module, suffixes[part]);
    sl_tensor t = {.name = sl_arena_copy(arena, name, (size_t)n), .type = SL_F32, .n_dims = part == 2 ? 1 : 2};
    t.shape[0] = part == 0 ? l->rank : l->n_out;
    t.shape[1] = part == 0 ? l->n_in : l->rank;
    t.n_elements = (uint64_t)t.shape[0] * (uint64_t)(part == 2 ? 1 : t.shape[1]);
    t.bytes = t.n_elements * sizeof(float);
    return t;
}

/* Rows of b (and magnitudes) where the checkpoint has them. */
static sllm_status write_rows(sl_safetensors_writer *writer, const sl_model *model, const sl_product_place *place, const float *values,
                              int64_t rows, int64_t columns, sllm_error *error) {
    float *out = malloc((size_t)(rows * columns) * sizeof *out);
    if (!out) return sl_fail_memory(error, "the adapter", 0);
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + sl_product_source_row(model, place, r) * columns, values + r * columns, (size_t)columns * sizeof *out);
    sllm_status status = sl_safetensors_writer_write(writer, out, (size_t)(rows * columns) * sizeof *out, error);
    free(out);
    return status;
}

static sllm_status write_item(sl_safetensors_writer *writer, const sl_model *model, const sl_product_place *place, const sl_lora *l,
                              sllm_error *error) {
    sllm_status status = sl_safetensors_writer_write(writer, l->a, (size_t)(l->rank * l->n_in) * sizeof *l->a, error);
    if (!status) status = write_rows(writer, model, place, l->b, l->n_out, l->rank, error);
    if (!status && l->magnitude) status = write_rows(writer, model, place, l->magnitude, l->n_out, 1, error);
    return status;
}

static sllm_status write_tensors(const sl_model *model, const sl_adapter *a, const char *path, sllm_error *error) {
    sl_arena arena = {0};
    sl_safetensors_writer *writer = NULL;
    places p = {a, sl_arena_array(&arena, a->n ? a->n : 1, sizeof *p.list)};
    sl_tensor *tensors = sl_arena_array(&arena, PARTS * (a->n ? a->n : 1), sizeof *tensors);
    sllm_status status = p.list && tensors ? SLLM_OK : sl_fail_memory(error, "the adapter", 0);
    size_t n = 0;
    for (size_t i = 0; i < a->n && !status; i++)
        for (int part = 0; part < (a->list[i].magnitude ? 3 : 2); part++) {
            tensors[n] = declare(&arena, model, &a->list[i], part);
            if (!tensors[n++].name) status = sl_fail_memory(error, "the adapter", 0);
        }
    if (!status) sl_products_each(model, note_place, &p);
    if (!status) status = sl_safetensors_writer_new(path, tensors, n, &writer, error);
    for (size_t i = 0; i < a->n && !status; i++) status = write_item(writer, model, &p.list[i], &a->list[i], error);
    if (!status) status = sl_safetensors_writer_finish(writer, error);
    else sl_safetensors_writer_abandon(writer);
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- the configuration */

/* target_modules: the last parts of the modules' names, each once. */
static void put_targets(const sl_model *model, const sl_adapter *a, sl_buffer *out) {
    char seen[SL_SLOT_COUNT][SL_NAME_SIZE];
    int n = 0;
    sl_json_key(out, "target_modules");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < a->n; i++) {
        char module[SL_NAME_SIZE];
        int k = 0;
        sl_weights_name(model->config.family->names, a->list[i].slot, a->list[i].layer, a->list[i].expert, "", module);
        const char *dot = strrchr(module, '.'), *last = dot ? dot + 1 : module;
        while (k < n && strcmp(seen[k], last)) k++;
        if (k < n || n == SL_SLOT_COUNT) continue;
        memcpy(seen[n++], last, strlen(last) + 1);
        sl_json_comma(out);
        sl_json_write_string(out, last, strlen(last));
    }
    sl_buffer_putc(out, ']');
}

static void put_config(const sl_model *model, const sl_adapter *a, const sl_adapter_form *f, sl_buffer *out) {
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "base_model_name_or_path", f->base);
    sl_json_put_string(out, "bias", "none");
    sl_json_put_bool(out, "fan_in_fan_out", model->config.family->conv1d);
    sl_json_put_bool(out, "inference_mode", true);
    if (f->alpha == floor(f->alpha)) sl_json_put_int(out, "lora_alpha", (int64_t)f->alpha);
    else sl_json_put_double(out, "lora_alpha", f->alpha);
    sl_json_put_double(out, "lora_dropout", f->dropout);
    sl_json_put_string(out, "peft_type", "LORA");
    sl_json_put_int(out, "r", f->rank);
    put_targets(model, a, out);
    sl_json_put_string(out, "task_type", "CAUSAL_LM");
    sl_json_put_bool(out, "use_dora", f->dora);
    sl_json_put_bool(out, "use_rslora", f->rslora);
    sl_buffer_puts(out, "}\n");
}

sllm_status sl_adapter_write(const sl_model *model, const sl_adapter *adapter, const sl_adapter_form *form, const char *folder,
                             sllm_error *error) {
    char path[PATH_SIZE];
    sl_buffer config = {0};
    if (!sl_path_join(path, sizeof path, folder, "adapter_model.safetensors")) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", folder);
    sllm_status status = write_tensors(model, adapter, path, error);
    if (!status && form->own && sl_path_join(path, sizeof path, folder, "sllm.json")) status = sl_file_write(path, form->own, strlen(form->own), error);
    put_config(model, adapter, form, &config);
    if (!status && config.failed) status = sl_fail_memory(error, "adapter_config.json", 0);
    if (!status && sl_path_join(path, sizeof path, folder, "adapter_config.json")) status = sl_file_write(path, config.data, config.length, error);
    sl_buffer_free(&config);
    return status;
}

/* ---------------------------------------------------------------- beginning */

typedef struct norms {
    const sl_product_place *place;
    const sl_lora *lora;
    _Atomic bool failed;
} norms;

static void norm_of_row(void *user, int64_t r, int thread) {
    norms *n = user;
    float *w = malloc((size_t)n->lora->n_in * sizeof *w);
    double sum = 0;
    (void)thread;
    if (!w) {
        n->failed = true;
        return;
    }
    sl_product_row(n->place, r, w);
    for (int64_t c = 0; c < n->lora->n_in; c++) sum += (double)w[c] * (double)w[c];
    n->lora->magnitude[r] = (float)sqrt(sum);
    n->lora->gain[r] = 1;
    free(w);
}

typedef struct beginning {
    const sl_model *model;
    sl_adapter *adapter;
    bool failed;
} beginning;

static bool set_magnitudes(void *user, const sl_product_place *place) {
    beginning *b = user;
    const sl_lora *l = sl_adapter_find(b->adapter, place->layer, place->slot, place->expert);
    if (!l || !l->magnitude) return true;
    norms n = {.place = place, .lora = l};
    sl_pool_run(b->model->pool, l->n_out, norm_of_row, &n);
    b->failed = n.failed;
    return !b->failed;
}

bool sl_adapter_begin_values(const sl_model *model, sl_adapter *adapter, uint64_t seed) {
    beginning b = {model, adapter, false};
    sl_rng rng;
    sl_rng_seed(&rng, seed);
    for (size_t i = 0; i < adapter->n; i++) {
        sl_lora *l = &adapter->list[i];
        double bound = 1 / sqrt((double)l->n_in);
        for (int64_t k = 0; k < l->rank * l->n_in; k++) l->a[k] = (float)((2 * sl_rng_uniform(&rng) - 1) * bound);
        memset(l->b, 0, (size_t)(l->n_out * l->rank) * sizeof *l->b);
    }
    sl_products_each(model, set_magnitudes, &b);
    return !b.failed;
}
