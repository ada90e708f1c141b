#include "quant/export.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "format/folder_write.h"
#include "format/safetensors.h"
#include "quant/finite.h"
#include "tensor/quantise.h"
#include "text/export_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_FLOATS = 1 << 20 };

typedef struct exporting {
    const sl_model *model;
    const sl_export_params *params;
    sl_export_result *result;
    sl_export_list list;
    sl_safetensors_writer *writer;
    uint64_t total; /* bytes of tensors to be written */
    sllm_error *error;
} exporting;

/* ---------------------------------------------------------------- tensors */

static sllm_status write_floats(exporting *e, const sl_export_item *item, float *x, size_t n) {
    uint64_t bytes = 0, first;
    uint64_t bad = sl_clear_nonfinite(x, n, &first);
    if (bad && !e->params->allow_nonfinite)
        return sl_fail(e->error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number; --allow-nonfinite makes such "
                       "values 0", e->model->path, item->out.name);
    e->result->n_nonfinite += bad;
    sl_type_bytes(item->out.type, n, &bytes);
    void *out = malloc((size_t)bytes);
    if (!out) return sl_fail_memory(e->error, item->out.name, (size_t)bytes);
    sl_quantise_rows(item->out.type, x, 1, (int64_t)n, NULL, out);
    sllm_status status = sl_safetensors_writer_write(e->writer, out, (size_t)bytes, e->error);
    free(out);
    return status;
}

static sllm_status write_vector(exporting *e, const sl_export_item *item) {
    float *x = malloc((size_t)item->out.n_elements * sizeof *x), *at = x;
    if (!x) return sl_fail_memory(e->error, item->out.name, 0);
    for (int i = 0; i < item->n_vectors; at += item->lengths[i++])
        for (int64_t k = 0; k < item->lengths[i]; k++)
            at[k] = item->vectors[i][sl_export_row(item->heads[i], item->rotated, k, item->lengths[i])] - item->less;
    sllm_status status = write_floats(e, item, x, (size_t)item->out.n_elements);
    free(x);
    return status;
}

typedef struct rows {
    const sl_tensor *w;
    int heads, rotated;
    int64_t first;
    float *x;
} rows;

static void read_row(void *user, int64_t i, int thread) {
    const rows *r = user;
    int64_t columns = r->w->shape[1], from = sl_export_row(r->heads, r->rotated, r->first + i, r->w->shape[0]);
    (void)thread;
    sl_tensor_read(r->w, (uint64_t)(from * columns), (size_t)columns, r->x + i * columns);
}

static bool goes_on(const exporting *e) {
    return !e->params->on_progress || e->params->on_progress(e->params->user, "converting", e->result->bytes_out, e->total);
}

static sllm_status write_rows(exporting *e, const sl_export_item *item) {
    int64_t columns = item->matrices[0].shape[1], most = ROWS_FLOATS / columns > 0 ? ROWS_FLOATS / columns : 1;
    float *x = malloc((size_t)(most * columns) * sizeof *x);
    sllm_status status = x ? SLLM_OK : sl_fail_memory(e->error, item->out.name, 0);
    for (int m = 0; m < item->n_matrices && !status; m++) {
        rows r = {.w = &item->matrices[m], .heads = item->heads[m], .rotated = item->rotated, .x = x};
        for (; r.first < r.w->shape[0] && !status; r.first += most) {
            int64_t left = r.w->shape[0] - r.first, n = left < most ? left : most;
            sl_pool_run(e->model->pool, n, read_row, &r);
            status = write_floats(e, item, x, (size_t)(n * columns));
        }
    }
    free(x);
    return status;
}

/* GPT-2 stores its matrices [in, out]; they are small. */
static sllm_status write_turned(exporting *e, const sl_export_item *item) {
    size_t n = (size_t)item->out.n_elements;
    int64_t columns = item->matrices[0].shape[1], all = item->out.shape[1], row = 0;
    float *x = malloc(2 * n * sizeof *x), *turned = x + n;
    if (!x) return sl_fail_memory(e->error, item->out.name, n);
    for (int m = 0; m < item->n_matrices; m++) {
        const sl_tensor *w = &item->matrices[m];
        sl_tensor_read(w, 0, (size_t)w->n_elements, x + row * columns);
        row += w->shape[0];
    }
    for (int64_t r = 0; r < all; r++)
        for (int64_t c = 0; c < columns; c++) turned[c * all + r] = x[r * columns + c];
    sllm_status status = write_floats(e, item, turned, n);
    free(x);
    return status;
}

static sllm_status write_tensors(exporting *e) {
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < e->list.n && !status; i++) {
        const sl_export_item *item = &e->list.items[i];
        if (!goes_on(e)) return sl_fail(e->error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", item->out.name);
        status = !item->n_matrices ? write_vector(e, item) : item->turned ? write_turned(e, item) : write_rows(e, item);
        e->result->bytes_out += item->out.bytes;
        for (int m = 0; m < item->n_matrices; m++) sl_mapping_let_go(item->matrices[m].data, item->matrices[m].bytes);
    }
    return status;
}

/* ---------------------------------------------------------------- the source */

static sllm_status check_source(exporting *e, sl_type *type) {
    const sl_tensor *first = NULL;
    *type = e->params->type;
    for (size_t i = 0; i < e->list.n; i++) {
        const sl_export_item *item = &e->list.items[i];
        int m = 0;
        while (m < item->n_matrices && !sl_type_get(item->matrices[m].type)->is_quantised) m++;
        if (m < item->n_matrices && !e->result->n_requantised++) first = &item->matrices[m];
    }
    if (first && !e->params->requantise)
        return sl_fail(e->error, SLLM_ERROR_ARGUMENT, "%s: is quantised already (%zu tensors; the first is %s, %s): a folder of it holds its "
                       "errors in a larger form; ask for --requantize to have it all the same", e->model->path, e->result->n_requantised,
                       first->name, sl_type_get(first->type)->name);
    if (*type == SL_TYPE_COUNT) *type = first ? SL_BF16 : e->model->weights->blocks[0].attn_out.w.type;
    if (*type != SL_F16 && *type != SL_BF16) *type = SL_F32;
    return SLLM_OK;
}

/* ---------------------------------------------------------------- files */

static sllm_status write_tokenizer(exporting *e, const sl_folder_writer *out) {
    sl_buffer json = {0}, config = {0};
    const sl_model *m = e->model;
    sllm_status status = SLLM_OK;
    if (!m->tokenizer) {
        sl_buffer_puts(&e->result->warnings, "the file has no tokenizer: the folder will compute, but read no text\n");
        return SLLM_OK;
    }
    status = sl_tokenizer_to_json(m->tokenizer, m->config.n_ctx_train, &json, &config, e->error);
    if (!status) status = sl_folder_writer_file(out, "tokenizer.json", json.data, json.length, e->error);
    if (!status) status = sl_folder_writer_file(out, "tokenizer_config.json", config.data, config.length, e->error);
    if (!status && m->chat_template_source)
        status = sl_folder_writer_file(out, "chat_template.jinja", m->chat_template_source, m->chat_template_length, e->error);
    sl_buffer_free(&json);
    sl_buffer_free(&config);
    return status ? sl_error_prefix(e->error, status, "%s", m->path) : SLLM_OK;
}

static sllm_status write_config(exporting *e, const sl_folder_writer *out, sl_type type) {
    sl_buffer text = {0};
    sllm_status status = sl_export_config(e->model, type, &text, e->error);
    if (status) status = sl_error_prefix(e->error, status, "%s", e->model->path);
    if (!status) status = sl_folder_writer_file(out, "config.json", text.data, text.length, e->error);
    sl_buffer_free(&text);
    return status;
}

/* The licence, where the file names one, in the place where folders say it. */
static sllm_status write_readme(exporting *e, const sl_folder_writer *out) {
    sl_buffer text = {0};
    if (!e->model->config.licence[0]) return SLLM_OK;
    const char *licence = e->model->config.licence;
    sl_buffer title = {0};
    sl_buffer_puts(&text, "---\nlicense: ");
    if (licence[strcspn(licence, ":#\"'\\{}[],&*!|>%@`\n\r\t")]) sl_json_write_string(&text, licence, strlen(licence)); /* is YAML */
    else sl_buffer_puts(&text, licence);
    sl_buffer_puts(&title, e->model->config.name);
    sl_utf8_make_line(&title);
    sl_buffer_puts(&text, "\n---\n");
    if (title.length) sl_buffer_printf(&text, "\n# %s\n", title.data);
    text.failed |= title.failed;
    sl_buffer_free(&title);
    sllm_status status = text.failed ? sl_fail_memory(e->error, "README.md", 0)
                                     : sl_folder_writer_file(out, "README.md", text.data, text.length, e->error);
    sl_buffer_free(&text);
    return status;
}

static sllm_status write_weights(exporting *e, const sl_folder_writer *out) {
    char path[SL_FOLDER_PATH];
    sl_tensor *all = calloc(e->list.n ? e->list.n : 1, sizeof *all);
    bool fits = all && sl_folder_writer_path(out, "model.safetensors", path);
    sllm_status status = fits ? SLLM_OK : sl_fail_memory(e->error, "the list of tensors", 0);
    for (size_t i = 0; i < e->list.n && !status; i++) {
        all[i] = e->list.items[i].out;
        e->total += all[i].bytes;
    }
    if (!status) status = sl_safetensors_writer_new(path, all, e->list.n, &e->writer, e->error);
    free(all);
    if (status) return status;
    status = write_tensors(e);
    if (!status) return sl_safetensors_writer_finish(e->writer, e->error);
    sl_safetensors_writer_abandon(e->writer);
    return status;
}

sllm_status sl_export_folder(const sl_model *model, const char *out, const sl_export_params *params, sl_export_result *result,
                             sllm_error *error) {
    exporting e = {.model = model, .params = params, .result = result, .error = error};
    sl_folder_writer writer = {0};
    sl_type type = SL_F32;
    *result = (sl_export_result){.bytes_in = model->gguf ? sl_gguf_file_bytes(model->gguf) : 0};
    sllm_status status = sl_export_tensors(model, &e.list, error);
    if (!status) status = check_source(&e, &type);
    if (!status) sl_export_list_set_type(&e.list, type);
    if (!status) status = sl_folder_writer_begin(&writer, out, error);
    if (!status) status = write_config(&e, &writer, type);
    if (!status) status = write_tokenizer(&e, &writer);
    if (!status) status = write_readme(&e, &writer);
    if (!status) status = write_weights(&e, &writer);
    if (status) sl_folder_writer_abandon(&writer);
    else status = sl_folder_writer_finish(&writer, error);
    result->n_tensors = e.list.n;
    if (!status && params->on_progress) params->on_progress(params->user, "converting", e.total, e.total);
    sl_export_list_free(&e.list);
    return status;
}
