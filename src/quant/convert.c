#include "quant/convert.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/packed.h"
#include "model/weights.h"
#include "quant/finite.h"
#include "tensor/quantise.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK_FLOATS = 1 << 16, CHUNKS_A_WRITE = 32 };

/* ---------------------------------------------------------------- the source's hash */

typedef struct hashing {
    const sl_convert_params *params;
    uint64_t before; /* bytes of files that are done */
    uint64_t total;
} hashing;

static bool on_hash(void *user, uint64_t done, uint64_t total) {
    const hashing *h = user;
    (void)total;
    return !h->params->on_progress || h->params->on_progress(h->params->user, "reading", h->before + done, h->total);
}

/* SHA-256 of the one file of weights that was opened; of several: of their digests, in the order of opening. */
static sllm_status hash_source(const sl_safetensors *file, const sl_convert_params *params, char hex[65], sllm_error *error) {
    hashing h = {.params = params, .total = sl_safetensors_file_bytes(file)};
    sl_buffer all = {0};
    sllm_status status = SLLM_OK;
    const char *path;
    for (size_t i = 0; (path = sl_safetensors_path(file, i)) && !status; i++) {
        sl_mapping one;
        status = sl_sha256_file(path, hex, on_hash, &h, error);
        sl_buffer_printf(&all, "%s\n", hex);
        if (status || sl_mapping_open(path, &one, error)) break;
        h.before += one.size;
        sl_mapping_close(&one);
    }
    if (!status && sl_safetensors_path(file, 1)) sl_sha256_hex(all.data ? all.data : "", all.length, hex);
    if (!status && all.failed) status = sl_fail_memory(error, "the source's digests", 0);
    sl_buffer_free(&all);
    return status;
}

/* ---------------------------------------------------------------- sources that others have quantised */

/* Matrices that loading joined lie in memory, the others in the files. */
static bool is_joined(const sl_model *m, const sl_convert_item *item) {
    for (int i = 0; i < item->n_matrices; i++)
        if (!sl_safetensors_holds(m->checkpoint->weights, item->matrices[i].data)) return true;
    return false;
}

static sllm_status check_quantised(const sl_model *m, const sl_convert_list *list, bool allowed, sl_convert_result *result,
                                   sllm_error *error) {
    const sl_convert_item *first = NULL;
    char kind[64];
    size_t kept = 0;
    if (!m->joined) return SLLM_OK;
    sl_packed_describe(sl_packed_config(m->checkpoint), kind);
    for (size_t i = 0; i < list->n; i++) {
        const sl_convert_item *item = &list->items[i];
        if (!item->n_matrices || !is_joined(m, item)) continue;
        bool is_kept = item->matrices->type == item->out.type && sl_type_get(item->out.type)->is_quantised;
        if (is_kept) kept++;
        else if (!result->n_requantised++) first = item;
    }
    if (kept) sl_buffer_printf(&result->warnings, "%zu matrices are quantised (%s) and keep their values exactly\n", kept, kind);
    if (!first || allowed) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: is quantised already (%s; %zu tensors, the first is %s): GGUF would hold them as %s, "
                   "with their errors; start from the original, or ask for --requantize", m->path, kind, result->n_requantised,
                   first->out.name, sl_type_get(first->out.type)->name);
}

/* ---------------------------------------------------------------- rows */

typedef struct converting {
    const sl_model *model;
    const sl_convert_params *params;
    sl_convert_result *result;
    sl_gguf_claim claim;
    sl_gguf_writer *writer;
    uint8_t *out;            /* rows as they will be written */
    float **scratch;         /* [threads] */
    size_t row_floats;       /* room of each: CHUNK_FLOATS or the longest row */
    uint64_t done;
} converting;

typedef struct rows {
    converting *c;
    const sl_convert_item *item;
    int64_t columns, matrix_rows; /* of one source */
    int64_t first, n, chunk_rows;
    uint64_t out_bytes;           /* of a row */
    uint64_t bad[CHUNKS_A_WRITE], n_bad[CHUNKS_A_WRITE]; /* first element that is not finite, plus 1; how many */
} rows;

/* The source's row that stands at row `r` of a matrix whose heads are turned: pair (j, j + half) becomes (2j, 2j + 1). */
static int64_t source_row(const sl_convert_item *item, int64_t r, int64_t n_rows) {
    if (!item->heads) return r;
    int64_t size = n_rows / item->heads, head = r / size, at = r % size;
    if (at >= item->rotated) return r;
    return head * size + at % 2 * (item->rotated / 2) + at / 2;
}

static void convert_chunk(void *user, int64_t chunk, int thread) {
    rows *j = user;
    float *x = j->c->scratch[thread];
    int64_t from = j->first + chunk * j->chunk_rows, end = j->first + j->n;
    if (from + j->chunk_rows < end) end = from + j->chunk_rows;
    for (int64_t r = from; r < end; r++) {
        int64_t matrix = j->item->n_matrices > 1 ? r / j->matrix_rows : 0, within = r - matrix * j->matrix_rows;
        const sl_tensor *w = &j->item->matrices[matrix];
        float *row = x + (r - from) * j->columns;
        sl_tensor_read(w, (uint64_t)(source_row(j->item, within, j->matrix_rows) * j->columns), (size_t)j->columns, row);
        uint64_t first, bad = sl_clear_nonfinite(row, (size_t)j->columns, &first);
        if (bad && !j->n_bad[chunk]) j->bad[chunk] = (uint64_t)(r * j->columns) + first;
        j->n_bad[chunk] += bad;
    }
    sl_quantise_rows(j->item->out.type, x, end - from, j->columns, NULL,
                     j->c->out + (uint64_t)(from - j->first) * j->out_bytes);
}

static sllm_status check_finite(rows *j, int64_t chunks, sllm_error *error) {
    for (int64_t i = 0; i < chunks; i++) {
        if (j->n_bad[i] && !j->c->params->allow_nonfinite)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number (row %" PRIu64
                           ", column %" PRIu64 "); --allow-nonfinite makes such values 0", j->c->model->path, j->item->out.name,
                           (j->bad[i] - 1) / (uint64_t)j->columns, (j->bad[i] - 1) % (uint64_t)j->columns);
        j->c->result->n_nonfinite += j->n_bad[i];
    }
    return SLLM_OK;
}

static bool goes_on(const converting *c) {
    const sl_convert_params *p = c->params;
    return !p->on_progress || p->on_progress(p->user, "converting", c->done, c->result->bytes_out);
}

static sllm_status write_matrix(converting *c, const sl_convert_item *item, sllm_error *error) {
    const sl_tensor *t = &item->out;
    rows j = {.c = c, .item = item, .columns = t->shape[t->n_dims - 1]};
    int64_t total = (int64_t)(t->n_elements / (uint64_t)j.columns);
    j.matrix_rows = item->n_matrices > 1 ? item->matrices[0].shape[0] : total;
    j.chunk_rows = CHUNK_FLOATS / j.columns > 0 ? CHUNK_FLOATS / j.columns : 1;
    sl_type_bytes(t->type, (uint64_t)j.columns, &j.out_bytes);
    for (j.first = 0; j.first < total; j.first += j.n) {
        j.n = total - j.first < CHUNKS_A_WRITE * j.chunk_rows ? total - j.first : CHUNKS_A_WRITE * j.chunk_rows;
        int64_t chunks = (j.n + j.chunk_rows - 1) / j.chunk_rows;
        if (!goes_on(c)) return sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", t->name);
        memset(j.bad, 0, sizeof j.bad);
        memset(j.n_bad, 0, sizeof j.n_bad);
        sl_pool_run(c->model->pool, chunks, convert_chunk, &j);
        sllm_status status = check_finite(&j, chunks, error);
        if (!status) status = sl_gguf_writer_write(c->writer, c->out, (size_t)((uint64_t)j.n * j.out_bytes), error);
        if (status) return status;
        c->done += (uint64_t)j.n * j.out_bytes;
    }
    return SLLM_OK;
}

static sllm_status write_vector(converting *c, const sl_convert_item *item, sllm_error *error) {
    int64_t n = (int64_t)item->out.n_elements;
    float *values = malloc((size_t)n * sizeof *values);
    if (!values) return sl_fail_memory(error, item->out.name, 0);
    sllm_status status = SLLM_OK;
    for (int64_t i = 0; i < n && !status; i++) {
        values[i] = item->vector[source_row(item, i, n)];
        if (values[i] - values[i] == 0) continue;
        if (!c->params->allow_nonfinite)
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number (element %"
                             PRId64 "); --allow-nonfinite makes such values 0", c->model->path, item->out.name, i);
        values[i] = 0;
        c->result->n_nonfinite++;
    }
    if (!status) status = sl_gguf_writer_write(c->writer, values, (size_t)n * sizeof *values, error);
    c->done += (uint64_t)n * sizeof *values;
    free(values);
    return status;
}

/* ---------------------------------------------------------------- the file */

static sllm_status allocate(converting *c, const sl_convert_list *list, sllm_error *error) {
    int n_threads = sl_pool_threads(c->model->pool);
    c->row_floats = CHUNK_FLOATS;
    for (size_t i = 0; i < list->n; i++) {
        size_t columns = (size_t)list->items[i].out.shape[list->items[i].out.n_dims - 1];
        c->row_floats = columns > c->row_floats ? columns : c->row_floats;
    }
    c->out = malloc(c->row_floats * CHUNKS_A_WRITE * sizeof(float));
    c->scratch = calloc((size_t)n_threads, sizeof *c->scratch);
    bool fits = c->out && c->scratch;
    for (int i = 0; fits && i < n_threads; i++) fits = (c->scratch[i] = malloc(c->row_floats * sizeof(float))) != NULL;
    return fits ? SLLM_OK : sl_fail_memory(error, "converting", 0);
}

static sllm_status open_writer(converting *c, const sl_convert_list *list, const sl_gguf_fields *fields, const char *recipe,
                               const char *out_path, sllm_error *error) {
    sl_buffer identity = {0};
    sl_tensor *tensors = calloc(list->n, sizeof *tensors);
    for (size_t i = 0; tensors && i < list->n; i++) tensors[i] = list->items[i].out;
    sl_buffer_printf(&identity, "%s %s", c->result->source_sha256, recipe);
    sl_gguf_writer_params params = {.split_bytes = c->params->split_bytes, .recipe = identity.data, .claim = &c->claim};
    sllm_status status = tensors && !identity.failed ? SLLM_OK : sl_fail_memory(error, "the list of tensors", 0);
    if (!status)
        status = sl_gguf_writer_new(out_path, fields, tensors, list->n, &params, &c->writer, &c->result->n_resumed, error);
    free(tensors);
    sl_buffer_free(&identity);
    return status;
}

static sllm_status write_all(converting *c, const sl_convert_list *list, sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < list->n && !status; i++) {
        const sl_convert_item *item = &list->items[i];
        if (i < c->result->n_resumed) c->done += item->out.bytes;
        else status = item->vector ? write_vector(c, item, error) : write_matrix(c, item, error);
        for (int m = 0; m < item->n_matrices && c->model->checkpoint; m++)
            sl_safetensors_let_go(c->model->checkpoint->weights, item->matrices[m].data, item->matrices[m].bytes);
    }
    return status;
}

/* A file that says something else than its source is worse than none: the header is read back, with holes for tensors,
 * before the first of them is written. */
static sllm_status verify(const converting *c, const sl_convert_list *list, const sl_gguf_fields *fields,
                          sllm_error *error) {
    static const sl_gguf_writer_params whole = {0};
    sl_gguf_writer *writer = NULL;
    sl_gguf *gguf = NULL;
    sl_arena arena = {0};
    sl_buffer name = {0}, part = {0};
    sl_config config;
    const char *what;
    size_t done;
    sl_tensor *tensors = calloc(list->n, sizeof *tensors);
    sl_buffer_printf(&name, "%s.part.check", c->claim.target);
    sl_buffer_printf(&part, "%s.part.check.part", c->claim.target);
    for (size_t i = 0; tensors && i < list->n; i++) tensors[i] = list->items[i].out;
    sllm_status status = tensors && !name.failed && !part.failed ? SLLM_OK : sl_fail_memory(error, "the list of tensors", 0);
    if (!status) status = sl_gguf_writer_new(name.data, fields, tensors, list->n, &whole, &writer, &done, error);
    for (size_t i = 0; i < list->n && list->items[i].vector && !status; i++)
        status = sl_gguf_writer_write(writer, list->items[i].vector, (size_t)list->items[i].out.bytes, error);
    if (!status && truncate(part.data, (off_t)sl_gguf_writer_bytes(writer)) < 0) status = sl_fail_errno(error, "write", part.data);
    if (!status) status = sl_gguf_open(part.data, &gguf, error);
    if (!status) status = sl_config_from_gguf(gguf, &arena, &config, error);
    if (!status && !sl_convert_same(&c->model->config, &config, &what))
        status = sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: a GGUF file cannot say what this model's configuration says: %s",
                         c->model->path, what);
    sl_gguf_close(gguf);
    sl_arena_free(&arena);
    if (writer) sl_gguf_writer_abandon(writer, false);
    sl_buffer_free(&name);
    sl_buffer_free(&part);
    free(tensors);
    return status;
}

static sllm_status put_fields(converting *c, const char *recipe, sl_gguf_fields *fields, sllm_error *error) {
    sllm_status status = sl_convert_fields(c->model, c->params, fields, &c->result->warnings, error);
    if (status) return sl_error_prefix(error, status, "%s", c->model->path);
    sl_gguf_put_string(fields, "sllm.source.sha256", c->result->source_sha256, strlen(c->result->source_sha256));
    sl_gguf_put_string(fields, "sllm.recipe", recipe, strlen(recipe));
    if (c->model->joined) { /* widened matrices do not show it any more */
        char kind[64];
        sl_packed_describe(sl_packed_config(c->model->checkpoint), kind);
        sl_gguf_put_string(fields, "sllm.source.quantization", kind, strlen(kind));
    }
    return fields->bytes.failed ? sl_fail_memory(error, "the metadata", 0) : SLLM_OK;
}

sllm_status sl_convert(sl_model *model, const char *recipe, const char *out_path, const sl_convert_params *params,
                       sl_convert_result *result, sllm_error *error) {
    converting c = {.model = model, .params = params, .result = result};
    sl_convert_list list = {0};
    sl_gguf_fields fields = {0};
    *result = (sl_convert_result){0};
    sllm_status status = sl_gguf_claim_take(out_path, params->split_bytes > 0, &c.claim, error);
    if (!status) status = sl_convert_tensors(model, params->type, &list, error);
    for (size_t i = 0; i < list.n; i++) result->bytes_out += list.items[i].out.bytes;
    result->n_tensors = list.n;
    result->bytes_in = sl_safetensors_file_bytes(model->checkpoint->weights);
    if (!status) status = check_quantised(model, &list, params->requantise, result, error);
    if (!status) status = hash_source(model->checkpoint->weights, params, result->source_sha256, error);
    if (!status) status = put_fields(&c, recipe, &fields, error);
    if (!status) status = verify(&c, &list, &fields, error);
    if (!status) status = allocate(&c, &list, error);
    if (!status) status = open_writer(&c, &list, &fields, recipe, out_path, error);
    if (!status) status = write_all(&c, &list, error);
    if (!status) status = sl_gguf_writer_finish(c.writer, error);
    else sl_gguf_writer_abandon(c.writer, status == SLLM_ERROR_CANCELLED || status == SLLM_ERROR_IO);
    sl_gguf_claim_drop(&c.claim);
    if (!status && params->on_progress) params->on_progress(params->user, "converting", result->bytes_out, result->bytes_out);
    for (int i = 0; c.scratch && i < sl_pool_threads(model->pool); i++) free(c.scratch[i]);
    free(c.scratch);
    free(c.out);
    sl_convert_list_free(&list);
    sl_gguf_fields_free(&fields);
    return status;
}
