#include "quant/merge.h"

#include "base/error.h"
#include "base/file.h"
#include "tensor/quantise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_FLOATS = 1 << 21 };

/* A tensor of the file, and the products in it: one, or the experts of a stack. */
typedef struct item {
    const sl_tensor *source;
    sl_type type;
    const sl_tensor *whole;      /* replaces it; NULL: none */
    size_t first_place, n_places;
} item;

typedef struct merging {
    const sl_model *model;
    const sl_merge_params *params;
    item *items;                 /* [n] in the file's order */
    sl_product_place *places;    /* [n_places] those that adapters change, by tensor */
    size_t n, n_places;
    sl_gguf_writer *writer;
    uint64_t done, total;
    sllm_error *error;
} merging;

/* ---------------------------------------------------------------- what changes */

static bool is_changed(const sl_adapters *set, const sl_product_place *p) {
    for (int i = 0; i < set->n; i++)
        if (sl_adapter_find(set->items[i], p->layer, p->slot, p->expert)) return true;
    return false;
}

static bool note(void *user, const sl_product_place *place) {
    merging *m = user;
    if (!is_changed(m->model->adapters, place)) return true;
    if (m->places) m->places[m->n_places] = *place;
    m->n_places++;
    return true;
}

static bool lies_in(const sl_tensor *t, const void *data) {
    const uint8_t *from = t->data, *at = data;
    return at >= from && at < from + t->bytes;
}

/* Which product each changed matrix is, tensor by tensor. */
static sllm_status list_items(merging *m) {
    const sl_gguf *gguf = m->model->gguf;
    const sl_adapters *set = m->model->adapters;
    sl_product_place *all;
    sl_products_each(m->model, note, m);
    m->n = sl_gguf_tensor_count(gguf);
    m->items = calloc(m->n, sizeof *m->items);
    all = calloc(m->n_places + 1, sizeof *all);
    m->places = calloc(m->n_places + 1, sizeof *m->places);
    if (!m->items || !all || !m->places) return free(all), sl_fail_memory(m->error, "the list of tensors", 0);
    sl_product_place *sorted = m->places;
    size_t n = m->n_places, at = 0;
    m->places = all;
    m->n_places = 0;
    sl_products_each(m->model, note, m);
    for (size_t i = 0; i < m->n; i++) {
        item *it = &m->items[i];
        *it = (item){.source = sl_gguf_tensor_at(gguf, i), .first_place = at};
        for (size_t k = 0; k < n; k++)
            if (lies_in(it->source, all[k].w.data)) sorted[at++] = all[k];
        it->n_places = at - it->first_place;
        for (int k = 0; k < set->n; k++) {
            const sl_tensor *embed = &set->items[k]->embed, *output = &set->items[k]->output;
            if (embed->data && it->source->data == m->model->weights->embed.data) it->whole = embed;
            if (output->data && it->source->data == m->model->weights->output.data) it->whole = output;
        }
        it->type = (it->n_places || it->whole) && m->params->type != SL_TYPE_COUNT ? m->params->type : it->source->type;
    }
    free(all);
    m->places = sorted;
    m->n_places = at;
    return SLLM_OK;
}

static sllm_status check(const merging *m) {
    const sl_adapters *set = m->model->adapters;
    bool tied = m->model->weights->output.data == m->model->weights->embed.data;
    for (int k = 0; k < set->n; k++)
        if (tied && (set->items[k]->output.data || set->items[k]->embed.data || sl_adapter_find(set->items[k], m->model->config.n_layers, SL_SLOT_OUTPUT, 0)))
            return sl_fail(m->error, SLLM_ERROR_UNSUPPORTED, "%s: changes the embedding or the output matrix alone, and in this file they are one",
                           set->items[k]->path);
    for (size_t i = 0; i < m->n; i++)
        if ((m->items[i].n_places || m->items[i].whole) && !sl_type_is_written(m->items[i].type))
            return sl_fail(m->error, SLLM_ERROR_UNSUPPORTED, "tensor %s: %s is read and not written; --type f16 merges into floats",
                           m->items[i].source->name, sl_type_get(m->items[i].type)->name);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- rows */

typedef struct rows {
    const merging *m;
    const item *it;
    const sl_product_place *place; /* NULL: replaced whole */
    int64_t first;                 /* row of the place's matrix */
    int64_t columns;
    uint64_t row_bytes;
    uint8_t *out;
} rows;

/* Row r of the merged matrix: gain (W + sum of weight scale B A). */
static void merge_row(const rows *j, int64_t r, float *x) {
    const sl_adapters *set = j->m->model->adapters;
    if (!j->place) {
        sl_tensor_read(j->it->whole, (uint64_t)(r * j->columns), (size_t)j->columns, x);
        return;
    }
    sl_tensor_read(&j->place->w, (uint64_t)(r * j->columns), (size_t)j->columns, x);
    for (int i = 0; i < set->n; i++) {
        const sl_lora *l = sl_adapter_find(set->items[i], j->place->layer, j->place->slot, j->place->expert);
        if (!l) continue;
        for (int k = 0; k < l->rank; k++) {
            float factor = set->weights[i] * l->scale * l->b[r * l->rank + k];
            for (int64_t c = 0; c < j->columns; c++) x[c] += factor * l->a[k * j->columns + c];
        }
        for (int64_t c = 0; l->gain && c < j->columns; c++) x[c] *= l->gain[r];
    }
}

static void one_row(void *user, int64_t i, int thread) {
    const rows *j = user;
    float *x = malloc((size_t)j->columns * sizeof *x);
    (void)thread;
    if (!x) {
        memset(j->out + (uint64_t)i * j->row_bytes, 0, (size_t)j->row_bytes); /* refused when the result is compared */
        return;
    }
    merge_row(j, j->first + i, x);
    sl_quantise_rows(j->it->type, x, 1, j->columns, NULL, j->out + (uint64_t)i * j->row_bytes);
    free(x);
}

static sllm_status write_matrix(merging *m, const item *it, const sl_product_place *place, int64_t n_rows, int64_t columns) {
    int64_t step = ROWS_FLOATS / columns > 0 ? ROWS_FLOATS / columns : 1;
    rows j = {.m = m, .it = it, .place = place, .columns = columns};
    sl_type_bytes(it->type, (uint64_t)columns, &j.row_bytes);
    j.out = malloc((size_t)((uint64_t)step * j.row_bytes));
    sllm_status status = j.out ? SLLM_OK : sl_fail_memory(m->error, it->source->name, 0);
    for (; j.first < n_rows && !status; j.first += step) {
        int64_t n = n_rows - j.first < step ? n_rows - j.first : step;
        sl_pool_run(m->model->pool, n, one_row, &j);
        status = sl_gguf_writer_write(m->writer, j.out, (size_t)((uint64_t)n * j.row_bytes), m->error);
    }
    free(j.out);
    return status;
}

static sllm_status write_item(merging *m, const item *it) {
    const sl_tensor *t = it->source;
    int64_t columns = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    sllm_status status = SLLM_OK;
    if (m->params->on_progress && !m->params->on_progress(m->params->user, "merging", m->done, m->total))
        return sl_fail(m->error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", t->name);
    m->done += t->bytes;
    if (it->whole) return write_matrix(m, it, NULL, t->shape[0], columns);
    if (!it->n_places) return sl_gguf_writer_write(m->writer, t->data, (size_t)t->bytes, m->error);
    /* of a stack every expert is a place, changed or not: those that are not are widened and stored again, exactly */
    int64_t n = t->n_dims > 2 ? t->shape[0] : 1, matrix = (int64_t)(t->bytes / (uint64_t)n);
    for (int64_t e = 0; e < n && !status; e++) {
        const uint8_t *data = (const uint8_t *)t->data + e * matrix;
        const sl_product_place *place = NULL;
        for (size_t k = 0; k < it->n_places; k++)
            if (m->places[it->first_place + k].w.data == data) place = &m->places[it->first_place + k];
        if (place) status = write_matrix(m, it, place, place->w.shape[0], columns);
        else if (it->type == t->type) status = sl_gguf_writer_write(m->writer, data, (size_t)matrix, m->error);
        else status = sl_fail(m->error, SLLM_ERROR_UNSUPPORTED, "tensor %s: only some of its experts are changed: merge without --type", t->name);
    }
    return status;
}

/* ---------------------------------------------------------------- the file */

static void put_fields(const merging *m, sl_gguf_fields *fields) {
    const sl_gguf *gguf = m->model->gguf;
    static const char *const own[] = {"general.alignment", "split.no", "split.count", "split.tensors.count", "sllm.recipe"};
    const char *before;
    size_t length;
    sl_buffer text = {0};
    for (size_t i = 0; i < sl_gguf_metadata_count(gguf); i++) {
        const char *key;
        sl_gguf_value value;
        bool skip = false;
        sl_gguf_metadata(gguf, i, &key, &value);
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) skip |= !strcmp(own[k], key);
        if (!skip) sl_gguf_put_value(fields, key, &value);
    }
    if (sl_gguf_get_string(gguf, "sllm.recipe", &before, &length, NULL)) {
        sl_buffer_append(&text, before, length);
        sl_buffer_puts(&text, "; ");
    }
    sl_buffer_puts(&text, m->params->recipe);
    if (text.failed) fields->bytes.failed = true;
    else sl_gguf_put_string(fields, "sllm.recipe", text.data, text.length);
    sl_buffer_free(&text);
}

static sllm_status open_writer(merging *m, const char *out) {
    sl_gguf_fields fields = {0};
    sl_gguf_writer_params params = {.claim = m->params->claim, .source = m->model->gguf};
    size_t done;
    sl_tensor *tensors = calloc(m->n, sizeof *tensors);
    put_fields(m, &fields);
    for (size_t i = 0; tensors && i < m->n; i++) {
        tensors[i] = *m->items[i].source;
        tensors[i].type = m->items[i].type;
        sl_type_bytes(tensors[i].type, tensors[i].n_elements, &tensors[i].bytes);
        m->total += m->items[i].source->bytes;
    }
    sllm_status status = tensors && !fields.bytes.failed ? SLLM_OK : sl_fail_memory(m->error, "the file's header", 0);
    if (!status) status = sl_gguf_writer_new(out, &fields, tensors, m->n, &params, &m->writer, &done, m->error);
    free(tensors);
    sl_gguf_fields_free(&fields);
    return status;
}

sllm_status sl_merge_write(const sl_model *model, const char *out, const sl_merge_params *params, size_t *n_merged, sllm_error *error) {
    merging m = {.model = model, .params = params, .error = error};
    *n_merged = 0;
    if (!model->gguf) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: adapters are merged into GGUF files; `sllm convert` makes one of a folder", model->path);
    if (!model->adapters || !model->adapters->n) return sl_fail(error, SLLM_ERROR_ARGUMENT, "there is no adapter to merge");
    sllm_status status = list_items(&m);
    if (!status) status = check(&m);
    if (!status) status = open_writer(&m, out);
    for (size_t i = 0; i < m.n && !status; i++) {
        status = write_item(&m, &m.items[i]);
        *n_merged += m.items[i].n_places + (m.items[i].whole != NULL);
    }
    if (!status) status = sl_gguf_writer_finish(m.writer, error);
    else sl_gguf_writer_abandon(m.writer, false);
    free(m.items);
    free(m.places);
    return status;
}
