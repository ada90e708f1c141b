#include "quant/folder.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "format/folder_write.h"
#include "model/packed.h"
#include "model/weights.h"
#include "quant/finite.h"
#include "quant/folder_int.h"
#include "tensor/quantise.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const size_t CONFIG_LIMIT = 1u << 26;

const char *sl_folder_dtype(sl_type type) { return type == SL_BF16 ? "bfloat16" : type == SL_F16 ? "float16" : "float32"; }

/* ---------------------------------------------------------------- what is written */

bool sl_folder_part(sl_folder *f, sl_folder_item *item, const char *cut, const char *suffix, sl_type type, int64_t rows, int64_t columns) {
    size_t length = strlen(item->source->name) - strlen(cut), more = strlen(suffix);
    char *name = sl_arena_alloc(&f->arena, length + more + 1);
    sl_tensor *t = &item->parts[item->n_parts++];
    if (!name) return false;
    memcpy(name, item->source->name, length);
    memcpy(name + length, suffix, more + 1);
    *t = (sl_tensor){.name = name, .type = type, .n_dims = columns ? 2 : 1, .shape = {rows, columns}};
    t->n_elements = (uint64_t)rows * (uint64_t)(columns ? columns : 1);
    return sl_type_bytes(type, t->n_elements, &t->bytes);
}

static bool is_bnb(const sl_folder *f) { return f->params->format == SL_FOLDER_NF4 || f->params->format == SL_FOLDER_FP4; }

static sllm_status add_parts(sl_folder *f, sl_folder_item *item) {
    if (item->is_quantised) return is_bnb(f) ? sl_folder_bnb_parts(f, item) : sl_folder_ints_parts(f, item);
    item->parts[0] = *item->source;
    item->n_parts = 1;
    return SLLM_OK;
}

static sl_folder_item *item_of(sl_folder *f, const void *data) {
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].source->data == data) return &f->items[i];
    return NULL;
}

/* The matrices of the blocks; not the router, which decides more than it weighs, nor stacks of experts, for which these
 * layouts have no names. bitsandbytes quantises modules that are products, and transformers' experts are none: it stacks
 * them while loading, and finds no form for packed ones. */
static bool mark(void *user, int layer, sl_tensor *w) {
    sl_folder *f = user;
    sl_folder_item *item = w->n_dims == 2 ? item_of(f, w->data) : NULL;
    if (!item) return true;
    if (is_bnb(f) && strstr(item->source->name, ".experts.")) {
        f->result->n_experts_kept++;
        return true;
    }
    item->is_quantised = true;
    item->layer = layer;
    return true;
}

/* Norms and biases that AWQ's scales go into; by the names that the file gives them. */
static const struct { sl_slot named, solved; bool bias; } vectors[] = {
    {SL_SLOT_ATTN_NORM, SL_SLOT_ATTN_NORM, false}, {SL_SLOT_ATTN_NORM, SL_SLOT_ATTN_NORM, true},
    {SL_SLOT_FFN_NORM, SL_SLOT_FFN_NORM, false}, {SL_SLOT_FFN_NORM, SL_SLOT_FFN_NORM, true},
    {SL_SLOT_V, SL_SLOT_V, true}, {SL_SLOT_QKV, SL_SLOT_QKV, true}, {SL_SLOT_UP, SL_SLOT_UP, true}, {SL_SLOT_GATE_UP, SL_SLOT_UP, true},
};

static void mark_vectors(sl_folder *f) {
    for (int i = 0; f->params->method == SL_METHOD_AWQ && i < f->model->config.n_layers; i++)
        for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) {
            const sl_tensor *t = sl_weights_find(f->model, vectors[k].named, i, vectors[k].bias ? ".bias" : ".weight");
            sl_folder_item *item = t ? item_of(f, t->data) : NULL;
            if (!item) continue;
            item->layer = i;
            item->vector = (int)k;
        }
}

/* What belongs to no block, then block by block. */
static bool sort_by_block(sl_folder *f) {
    sl_folder_item *sorted = sl_arena_array(&f->arena, f->n, sizeof *sorted);
    size_t n = 0;
    for (int layer = -1; sorted && layer < f->model->config.n_layers; layer++)
        for (size_t i = 0; i < f->n; i++)
            if (f->items[i].layer == layer) sorted[n++] = f->items[i];
    if (sorted) f->items = sorted;
    return sorted != NULL;
}

static sllm_status list_items(sl_folder *f) {
    const sl_safetensors *file = f->model->checkpoint->weights;
    f->n = sl_safetensors_count(file);
    f->items = sl_arena_array(&f->arena, f->n, sizeof *f->items);
    if (!f->items) return sl_fail_memory(f->error, "the list of tensors", f->n * sizeof *f->items);
    for (size_t i = 0; i < f->n; i++) f->items[i] = (sl_folder_item){.source = sl_safetensors_at(file, i), .layer = -1, .vector = -1};
    sl_weights_each(f->model->weights, &f->model->config, mark, f);
    mark_vectors(f);
    if (!sort_by_block(f)) return sl_fail_memory(f->error, "the list of tensors", 0);
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < f->n && !status; i++) {
        sl_folder_item *item = &f->items[i];
        f->result->n_quantised += item->is_quantised;
        f->result->n_copied += !item->is_quantised;
        status = add_parts(f, item);
    }
    if (status) return sl_error_prefix(f->error, status, "%s", f->model->path);
    if (!f->result->n_quantised)
        status = sl_fail(f->error, SLLM_ERROR_UNSUPPORTED, "%s: none of its matrices can be quantised in this layout%s", f->model->path,
                         f->model->config.family->conv1d ? ": they are stored [in, out]" : "");
    return status;
}

static bool has_tensor(const sl_folder *f, const char *within) {
    size_t length = strlen(within);
    for (size_t i = 0; i < f->n; i++) {
        const char *at = strstr(f->items[i].source->name, within);
        if (at && at > f->items[i].source->name && at[-1] == '.' && !strcmp(at + length, ".weight")) return true;
    }
    return false;
}

int sl_folder_skipped(const sl_folder *f, char names[SL_FOLDER_SKIPPED][SL_NAME_SIZE]) {
    static const sl_slot slots[SL_FOLDER_SKIPPED] = {SL_SLOT_ROUTER, SL_SLOT_SHARED_ROUTER};
    int n = 0;
    for (size_t k = 0; f->model->config.n_experts > 0 && k < SL_FOLDER_SKIPPED; k++) {
        char *name = names[n];
        if (!sl_weights_name(f->model->config.family->names, slots[k], 0, 0, "", name)) continue;
        const char *mark = strstr(name, ".0."); /* after the block's number */
        if (mark) memmove(name, mark + 3, strlen(mark + 3) + 1);
        n += mark && has_tensor(f, name);
    }
    return n;
}

void sl_folder_put_skipped(const sl_folder *f, sl_buffer *out) {
    char names[SL_FOLDER_SKIPPED][SL_NAME_SIZE];
    int n = sl_folder_skipped(f, names);
    if (!n) {
        sl_buffer_puts(out, "null");
        return;
    }
    sl_buffer_puts(out, "[\"lm_head\"");
    for (int i = 0; i < n; i++) {
        sl_json_comma(out);
        sl_json_write_string(out, names[i], strlen(names[i]));
    }
    sl_buffer_putc(out, ']');
}

/* ---------------------------------------------------------------- tensors */

static sllm_status write_bytes(sl_folder *f, const sl_tensor *t) {
    const uint64_t step = 16u << 20;
    sllm_status status = SLLM_OK;
    for (uint64_t at = 0; at < t->bytes && !status; at += step)
        status = sl_safetensors_writer_write(f->writer, (const uint8_t *)t->data + at,
                                             (size_t)(t->bytes - at < step ? t->bytes - at : step), f->error);
    return status;
}

static sllm_status write_values(sl_folder *f, const sl_tensor *t, const float *values, float less) {
    int64_t n = (int64_t)t->n_elements;
    float *own = malloc((size_t)n * sizeof *own);
    void *out = malloc((size_t)t->bytes);
    sllm_status status = own && out ? SLLM_OK : sl_fail_memory(f->error, t->name, (size_t)t->bytes);
    for (int64_t i = 0; i < n && !status; i++) own[i] = values[i] - less;
    if (!status) sl_quantise_rows(t->type, own, 1, n, NULL, out);
    if (!status) status = sl_safetensors_writer_write(f->writer, out, (size_t)t->bytes, f->error);
    free(own);
    free(out);
    return status;
}

static sllm_status write_plain(sl_folder *f, const sl_folder_item *item) {
    int k = item->vector;
    const float *values = k >= 0 ? sl_solve_vector_of(f->solve, vectors[k].solved, vectors[k].bias) : NULL;
    if (!values) return write_bytes(f, item->source);
    return write_values(f, item->source, values, !vectors[k].bias && f->model->config.norm_plus_one ? 1 : 0);
}

static bool goes_on(const sl_folder *f, uint64_t done) {
    if (f->solve || !f->params->on_progress) return true; /* the solver tells how far it is */
    return f->params->on_progress(f->params->user, "quantising", done, f->result->bytes_in);
}

static sllm_status write_tensors(sl_folder *f) {
    sllm_status status = SLLM_OK;
    uint64_t done = 0;
    for (size_t i = 0; i < f->n && !status; i++) {
        const sl_folder_item *item = &f->items[i];
        if (!goes_on(f, done)) return sl_fail(f->error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", item->source->name);
        if (f->solve && item->layer >= 0) status = sl_solve_block(f->solve, item->layer, f->error);
        if (!status && item->is_quantised) status = is_bnb(f) ? sl_folder_bnb_write(f, item) : sl_folder_ints_write(f, item);
        else if (!status) status = write_plain(f, item);
        done += item->source->bytes;
        sl_safetensors_let_go(f->model->checkpoint->weights, item->source->data, item->source->bytes);
    }
    return status;
}

/* ---------------------------------------------------------------- the other files */

static bool is_copied(const char *name) {
    static const char *const weights[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json", ".h5", ".msgpack", ".onnx"};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (sl_ends_with(name, weights[i])) return false;
    return name[0] != '.' && strcmp(name, "config.json");
}

static sllm_status copy_files(const sl_folder *f, const sl_folder_writer *out) {
    char from[SL_FOLDER_PATH];
    sllm_status status = SLLM_OK;
    DIR *directory = opendir(f->model->checkpoint->path);
    if (!directory) return sl_fail_errno(f->error, "open", f->model->checkpoint->path);
    for (const struct dirent *e; !status && (e = readdir(directory));) {
        if (!is_copied(e->d_name)) continue;
        if (!sl_path_join(from, sizeof from, f->model->checkpoint->path, e->d_name))
            status = sl_fail(f->error, SLLM_ERROR_ARGUMENT, "the path of %s is too long", e->d_name);
        if (status || !sl_path_is_file(from)) continue;
        status = sl_folder_writer_copy(out, e->d_name, from, f->error);
    }
    closedir(directory);
    return status;
}

/* config.json as it stands, with quantization_config before its last brace. */
static sllm_status write_config(const sl_folder *f, const sl_folder_writer *writer) {
    char from[SL_FOLDER_PATH];
    sl_buffer text = {0}, out = {0};
    if (!sl_path_join(from, sizeof from, f->model->checkpoint->path, "config.json"))
        return sl_fail(f->error, SLLM_ERROR_ARGUMENT, "the path of config.json is too long");
    sllm_status status = sl_file_read(from, CONFIG_LIMIT, &text, f->error);
    size_t end = text.length;
    while (end && text.data[end - 1] != '}') end--;
    if (!status && end) { /* it was parsed when the model was loaded: an object, not empty */
        sl_buffer_append(&out, text.data, end - 1);
        while (out.length && strchr(" \t\r\n", out.data[out.length - 1])) out.length--;
        sl_buffer_puts(&out, ",\n  \"quantization_config\": ");
        if (is_bnb(f)) sl_folder_bnb_config(f, &out);
        else sl_folder_ints_config(f, &out);
        sl_buffer_puts(&out, "\n}\n");
        status = out.failed ? sl_fail_memory(f->error, "config.json", 0)
                            : sl_folder_writer_file(writer, "config.json", out.data, out.length, f->error);
    }
    sl_buffer_free(&text);
    sl_buffer_free(&out);
    return status;
}

/* ---------------------------------------------------------------- the folder */

static sllm_status check_source(const sl_folder *f) {
    const sl_model *m = f->model;
    if (!m->checkpoint || !m->weights)
        return sl_fail(f->error, SLLM_ERROR_ARGUMENT, "%s: folders of this kind are made from checkpoint folders", m->path);
    if (sl_packed_config(m->checkpoint))
        return sl_fail(f->error, SLLM_ERROR_ARGUMENT, "%s: is quantised already: quantise the f16 or bf16 original", m->path);
    return SLLM_OK;
}

static bool target(void *user, const void *data, sl_target *out) {
    const sl_folder_item *item = item_of(user, data);
    *out = sl_folder_ints_target(user);
    return item && item->is_quantised;
}

static sllm_status begin_solving(sl_folder *f) {
    const sl_folder_params *p = f->params;
    sl_solve_params solve = {.method = p->method, .act_order = p->act_order, .ids = p->ids, .n_ids = p->n_ids, .target = target,
                             .user = f, .on_progress = p->on_progress, .progress_user = p->user};
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < f->n && !status; i++)
        if (sl_type_get(f->items[i].source->type)->is_float) {
            const sl_tensor *t = f->items[i].source;
            status = sl_check_finite(f->model->path, t, false, f->model->pool, f->error);
            sl_safetensors_let_go(f->model->checkpoint->weights, t->data, t->bytes);
        }
    if (!status && p->method != SL_METHOD_ROUND) status = sl_solve_new(f->model, &solve, &f->solve, f->error);
    return status;
}

static sllm_status open_writer(sl_folder *f, const sl_folder_writer *out) {
    char path[SL_FOLDER_PATH];
    size_t n = 0;
    sl_tensor *all = sl_arena_array(&f->arena, f->n * SL_FOLDER_PARTS, sizeof *all);
    if (!all || !sl_folder_writer_path(out, "model.safetensors", path)) return sl_fail_memory(f->error, "the list of tensors", 0);
    for (size_t i = 0; i < f->n; i++) {
        f->result->bytes_in += f->items[i].source->bytes;
        for (int k = 0; k < f->items[i].n_parts; k++) f->result->bytes_out += (all[n++] = f->items[i].parts[k]).bytes;
    }
    return sl_safetensors_writer_new(path, all, n, &f->writer, f->error);
}

static sllm_status write_folder(sl_folder *f, const sl_folder_writer *out) {
    sllm_status status = copy_files(f, out); /* what is quick, and can fail, first */
    if (!status) status = write_config(f, out);
    if (!status) status = open_writer(f, out);
    if (!status) status = begin_solving(f);
    if (!status) status = write_tensors(f);
    if (!status) return sl_safetensors_writer_finish(f->writer, f->error);
    if (f->writer) sl_safetensors_writer_abandon(f->writer);
    return status;
}

sllm_status sl_quantise_folder(sl_model *model, const char *out, const sl_folder_params *params, sl_folder_result *result,
                               sllm_error *error) {
    sl_folder f = {.model = model, .params = params, .result = result, .error = error};
    sl_folder_writer writer;
    *result = (sl_folder_result){0};
    sllm_status status = check_source(&f);
    if (!status) status = list_items(&f);
    if (!status) {
        status = sl_folder_writer_begin(&writer, out, error);
        if (!status) status = write_folder(&f, &writer);
        if (status) sl_folder_writer_abandon(&writer);
        else status = sl_folder_writer_finish(&writer, error);
    }
    if (!status && params->on_progress) params->on_progress(params->user, "quantising", result->bytes_in, result->bytes_in);
    result->solved = sl_solve_count(f.solve);
    sl_solve_free(f.solve);
    sl_arena_free(&f.arena);
    return status;
}
