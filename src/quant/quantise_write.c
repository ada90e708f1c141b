/* The tensors of a plan, one after the other: rows are widened, checked and quantised by all threads into a buffer of
 * bounded size, which is written before the next rows are read. */
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "format/gguf_write.h"
#include "quant/finite.h"
#include "quant/quantise.h"
#include "tensor/quantise.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    CHUNK_FLOATS = 1 << 15,   /* of f32 scratch a thread and a chunk, unless a row is longer */
    BUFFER_FLOATS = 1 << 22   /* values that are quantised between two writes, unless a row is longer */
};

typedef struct writing {
    const sl_quantise_params *params;
    const char *path;
    sl_pool *pool;
    sl_gguf_writer *writer;
    sl_quantise_result *result;
    float **scratch;        /* [threads] */
    size_t scratch_floats;  /* of each */
    uint8_t *out;
    size_t out_bytes;
    uint64_t done, total;   /* bytes of sources */
} writing;

/* Some rows of one tensor on their way; chunks of rows belong to one expert's matrix each. */
typedef struct portion {
    writing *w;
    const sl_quantise_item *item;
    int64_t columns, rows;       /* of the tensor, all matrices together */
    int64_t matrix_rows;         /* rows of one matrix */
    int64_t first, n;            /* rows of this portion */
    int64_t chunk_rows;
    uint64_t in_bytes, out_bytes; /* of a row */
    uint64_t *bad;               /* [chunks] the first element that is not finite, plus 1; 0: none */
    uint64_t *n_bad;             /* [chunks] how many */
} portion;

/* ---------------------------------------------------------------- values that are not finite */

static sllm_status refuse_nonfinite(const portion *p, uint64_t element, sllm_error *error) {
    const sl_tensor *t = p->item->source;
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number (row %" PRIu64
                   ", column %" PRIu64 "): the file is damaged or its training failed; --allow-nonfinite makes such values 0",
                   p->w->path, t->name, element / (uint64_t)p->columns, element % (uint64_t)p->columns);
}

sllm_status sl_quantise_check_finite(const sl_quantise_plan *plan, sl_pool *pool, sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < plan->n && !status; i++) {
        const sl_tensor *t = plan->items[i].source;
        if (sl_type_get(t->type)->is_float) status = sl_check_finite(plan->path, t, false, pool, error);
        sl_mapping_let_go(t->data, t->bytes);
    }
    return status;
}

/* ---------------------------------------------------------------- rows */

static const float *importance_of(const portion *p, int64_t row) {
    if (!p->w->params->importance) return NULL;
    bool stack = p->item->source->n_dims > 2;
    return sl_importance_get(p->w->params->importance, p->item->source->name, stack ? (int)(row / p->matrix_rows) : 0,
                             p->columns);
}

static void quantise_chunk(void *user, int64_t chunk, int thread) {
    portion *p = user;
    int64_t row = p->first + chunk * p->chunk_rows, end = p->first + p->n;
    if (row + p->chunk_rows < end) end = row + p->chunk_rows;
    float *x = p->w->scratch[thread];
    while (row < end) { /* as many rows at once as fit the scratch and stay in one matrix */
        int64_t n = (int64_t)p->w->scratch_floats / p->columns, left = p->matrix_rows - row % p->matrix_rows;
        if (n > left) n = left;
        if (n > end - row) n = end - row;
        size_t count = (size_t)(n * p->columns);
        sl_tensor_read(p->item->source, (uint64_t)(row * p->columns), count, x);
        uint64_t first, bad = sl_clear_nonfinite(x, count, &first);
        if (bad && !p->n_bad[chunk]) p->bad[chunk] = (uint64_t)(row * p->columns) + first;
        p->n_bad[chunk] += bad;
        sl_quantise_rows(p->item->type, x, n, p->columns, importance_of(p, row),
                         p->w->out + (uint64_t)(row - p->first) * p->out_bytes);
        row += n;
    }
}

static sllm_status write_portion(portion *p, sllm_error *error) {
    int64_t chunks = (p->n + p->chunk_rows - 1) / p->chunk_rows;
    memset(p->bad, 0, (size_t)chunks * sizeof *p->bad);
    memset(p->n_bad, 0, (size_t)chunks * sizeof *p->n_bad);
    sl_pool_run(p->w->pool, chunks, quantise_chunk, p);
    for (int64_t c = 0; c < chunks; c++) {
        if (p->n_bad[c] && !p->w->params->allow_nonfinite) return refuse_nonfinite(p, p->bad[c] - 1, error);
        p->w->result->n_nonfinite += p->n_bad[c];
    }
    return sl_gguf_writer_write(p->w->writer, p->w->out, (size_t)((uint64_t)p->n * p->out_bytes), error);
}

static bool goes_on(writing *w, uint64_t done) {
    return !w->params->on_progress || w->params->on_progress(w->params->user, "quantising", w->done + done, w->total);
}

static sllm_status quantise_tensor(writing *w, const sl_quantise_item *item, sllm_error *error) {
    const sl_tensor *t = item->source;
    portion p = {.w = w, .item = item, .columns = t->shape[t->n_dims - 1],
                 .matrix_rows = t->n_dims > 1 ? t->shape[t->n_dims - 2] : 1};
    p.rows = (int64_t)(t->n_elements / (uint64_t)p.columns);
    sl_type_bytes(t->type, (uint64_t)p.columns, &p.in_bytes);
    sl_type_bytes(item->type, (uint64_t)p.columns, &p.out_bytes);
    p.chunk_rows = CHUNK_FLOATS / p.columns > 0 ? CHUNK_FLOATS / p.columns : 1;
    int64_t rows_at_once = BUFFER_FLOATS / p.columns > 0 ? BUFFER_FLOATS / p.columns : 1;
    p.bad = calloc((size_t)(rows_at_once / p.chunk_rows + 2), 2 * sizeof *p.bad);
    if (!p.bad) return sl_fail_memory(error, t->name, 0);
    p.n_bad = p.bad + rows_at_once / p.chunk_rows + 2;
    sllm_status status = SLLM_OK;
    for (p.first = 0; p.first < p.rows && !status; p.first += p.n) {
        p.n = p.rows - p.first < rows_at_once ? p.rows - p.first : rows_at_once;
        if (!goes_on(w, (uint64_t)p.first * p.in_bytes))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", t->name);
        else
            status = write_portion(&p, error);
        if (!w->params->importance || item->role.slot != SL_SLOT_EMBED)
            sl_mapping_let_go((const uint8_t *)t->data + (uint64_t)p.first * p.in_bytes, (uint64_t)p.n * p.in_bytes);
    }
    free(p.bad);
    return status;
}

/* Values that are not finite are no better where nothing is rounded. Floats can be made 0; a block with a scale that is not
 * finite cannot be told from its neighbours' and is refused. */
static sllm_status copy_tensor(writing *w, const sl_quantise_item *item, sllm_error *error) {
    const uint64_t step = 16u << 20;
    const sl_tensor *t = item->source;
    const sl_type_info *info = sl_type_get(t->type);
    sllm_status status = info->is_float ? sl_check_finite(w->path, t, !info->is_quantised, w->pool, error) : SLLM_OK;
    if (status && w->params->allow_nonfinite && !info->is_quantised && sl_type_is_written(t->type)) {
        if (error) *error = (sllm_error){0};
        return quantise_tensor(w, item, error);
    }
    for (uint64_t at = 0; at < t->bytes && !status; at += step) {
        uint64_t n = t->bytes - at < step ? t->bytes - at : step;
        if (!goes_on(w, at)) return sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted at tensor %s", t->name);
        status = sl_gguf_writer_write(w->writer, (const uint8_t *)t->data + at, (size_t)n, error);
        sl_mapping_let_go((const uint8_t *)t->data + at, n);
    }
    return status;
}

/* ---------------------------------------------------------------- what a solver gave */

/* A norm or a bias that took scales up. */
static sllm_status write_vector(writing *w, const sl_quantise_item *item, const float *values, sllm_error *error) {
    sl_quantise_rows(item->type, values, 1, (int64_t)item->source->n_elements, NULL, w->out);
    return sl_gguf_writer_write(w->writer, w->out, (size_t)sl_quantise_item_bytes(item), error);
}

/* Writes the tensor if the solver has changed it; *written says so. Matrices of a stack were solved one by one. */
static sllm_status write_solved(writing *w, const sl_quantise_item *item, bool *written, sllm_error *error) {
    const sl_tensor *t = item->source;
    int64_t n = t->n_dims > 2 ? t->shape[0] : 1;
    *written = false;
    sllm_status status = sl_solve_block(w->params->solve, item->role.layer, error);
    if (status) return status;
    const float *values = sl_solve_vector_of(w->params->solve, item->role.slot, !item->role.weight);
    if (values && t->n_dims == 1) {
        *written = true;
        return write_vector(w, item, values, error);
    }
    for (int64_t i = 0; i < n && !status; i++) {
        const sl_solved *s = sl_solve_matrix_of(w->params->solve, (const uint8_t *)t->data + (uint64_t)i * (t->bytes / (uint64_t)n));
        if (!s) return SLLM_OK;
        *written = true;
        status = sl_gguf_writer_write(w->writer, s->blocks, (size_t)(sl_quantise_item_bytes(item) / (uint64_t)n), error);
    }
    if (*written) sl_mapping_let_go(t->data, t->bytes);
    return status;
}

/* ---------------------------------------------------------------- the file */

static sllm_status allocate(writing *w, const sl_quantise_plan *plan, sllm_error *error) {
    int n_threads = sl_pool_threads(w->pool);
    int64_t columns = 1;
    for (size_t i = 0; i < plan->n; i++) {
        const sl_tensor *t = plan->items[i].source;
        if (plan->items[i].changes && t->n_dims && t->shape[t->n_dims - 1] > columns) columns = t->shape[t->n_dims - 1];
    }
    w->scratch_floats = columns > CHUNK_FLOATS ? (size_t)columns : CHUNK_FLOATS;
    size_t most = columns > BUFFER_FLOATS ? (size_t)columns : BUFFER_FLOATS;
    w->out = malloc(most * sizeof(float));
    w->scratch = calloc((size_t)n_threads, sizeof *w->scratch);
    bool fits = w->out && w->scratch;
    for (int i = 0; fits && i < n_threads; i++) fits = (w->scratch[i] = malloc(w->scratch_floats * sizeof(float))) != NULL;
    return fits ? SLLM_OK : sl_fail_memory(error, "quantising", most * sizeof(float));
}

static void release(writing *w) {
    for (int i = 0; w->scratch && i < sl_pool_threads(w->pool); i++) free(w->scratch[i]);
    free(w->scratch);
    free(w->out);
}

/* All of the source's metadata but what describes its own storage, and what was done. */
static void put_fields(const sl_quantise_plan *plan, const sl_quantise_params *params, const char *recipe,
                       sl_gguf_fields *fields) {
    static const char *const own[] = {"general.file_type", "general.quantization_version", "general.alignment",
                                      "split.no", "split.count", "split.tensors.count", "sllm.recipe"};
    for (size_t i = 0; i < sl_gguf_metadata_count(plan->source); i++) {
        const char *key;
        sl_gguf_value value;
        bool skip = false;
        sl_gguf_metadata(plan->source, i, &key, &value);
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) skip |= !strcmp(own[k], key);
        if (!skip) sl_gguf_put_value(fields, key, &value);
    }
    int file_type = sl_mix_file_type(params->mix);
    sl_gguf_put_u32(fields, "general.quantization_version", 2);
    if (file_type >= 0) sl_gguf_put_u32(fields, "general.file_type", (uint32_t)file_type);
    const char *before;
    size_t length;
    sl_buffer text = {0};
    if (sl_gguf_get_string(plan->source, "sllm.recipe", &before, &length, NULL)) {
        sl_buffer_append(&text, before, length);
        sl_buffer_puts(&text, "; ");
    }
    sl_buffer_puts(&text, recipe);
    if (text.failed) fields->bytes.failed = true;
    else sl_gguf_put_string(fields, "sllm.recipe", text.data, text.length);
    sl_buffer_free(&text);
}

static void put_stat(sl_buffer *out, const char *path) {
    struct stat s;
    if (!stat(path, &s))
        sl_buffer_printf(out, "%lld %lld.%09ld %llu %llu ", (long long)s.st_size, (long long)s.st_mtim.tv_sec,
                         s.st_mtim.tv_nsec, (unsigned long long)s.st_ino, (unsigned long long)s.st_dev);
}

/* The source as it is now: an unfinished file is taken up only if nothing of this has changed. A folder's GGUF form is made
 * anew for each run; the hash of its source is in the header. */
static void put_identity(sl_buffer *out, const sl_quantise_plan *plan, const char *recipe) {
    if (sl_path_is_directory(plan->path)) put_stat(out, plan->path);
    else for (size_t i = 0; sl_gguf_path(plan->source, i); i++) put_stat(out, sl_gguf_path(plan->source, i));
    sl_buffer_printf(out, "%s %s", plan->path, recipe);
}

static sllm_status open_writer(writing *w, const sl_quantise_plan *plan, const char *recipe, const char *out_path,
                               size_t *n_done, sllm_error *error) {
    sl_gguf_fields fields = {0};
    sl_buffer identity = {0};
    sl_gguf_writer_params params = {.split_bytes = w->params->split_bytes, .claim = w->params->claim, .source = plan->source};
    sl_tensor *tensors = calloc(plan->n, sizeof *tensors);
    put_fields(plan, w->params, recipe, &fields);
    put_identity(&identity, plan, recipe);
    for (size_t i = 0; tensors && i < plan->n; i++) {
        tensors[i] = *plan->items[i].source;
        tensors[i].type = plan->items[i].type;
        tensors[i].bytes = sl_quantise_item_bytes(&plan->items[i]);
    }
    params.recipe = identity.data;
    sllm_status status = SLLM_OK;
    if (!tensors || fields.bytes.failed || identity.failed) status = sl_fail_memory(error, "the file's header", 0);
    else status = sl_gguf_writer_new(out_path, &fields, tensors, plan->n, &params, &w->writer, n_done, error);
    free(tensors);
    sl_gguf_fields_free(&fields);
    sl_buffer_free(&identity);
    return status;
}

static void count_item(writing *w, const sl_quantise_plan *plan, const sl_quantise_item *item) {
    int64_t columns;
    w->result->n_requantised += sl_quantise_was_quantised(plan, item);
    if (!w->params->importance || !sl_type_get(item->type)->is_quantised) return;
    if (sl_importance_columns(w->params->importance, item->source->name, &columns)) return;
    if (!w->result->n_unweighted++) w->result->unweighted = item->source->name;
}

static sllm_status write_tensors(writing *w, const sl_quantise_plan *plan, size_t from, sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < plan->n && !status; i++) {
        const sl_quantise_item *item = &plan->items[i];
        bool written = false;
        if (i >= from && w->params->solve && item->role.layer >= 0) status = write_solved(w, item, &written, error);
        if (i >= from && !written && !status)
            status = item->changes ? quantise_tensor(w, item, error) : copy_tensor(w, item, error);
        w->done += item->source->bytes;
        if (!status && item->changes) count_item(w, plan, item);
    }
    return status;
}

sllm_status sl_quantise_write(const sl_quantise_plan *plan, const sl_quantise_params *params, const char *recipe,
                              const char *out_path, sl_pool *pool, sl_quantise_result *result, sllm_error *error) {
    writing w = {.params = params, .path = plan->path, .pool = pool, .result = result};
    size_t n_done = 0;
    *result = (sl_quantise_result){0};
    for (size_t i = 0; i < plan->n; i++) {
        const sl_tensor *t = plan->items[i].source;
        w.total += t->bytes;
        if (sl_role_is_quantised(plan->items[i].role, t->n_dims)) result->n_weights += t->n_elements;
    }
    result->bytes_in = sl_gguf_file_bytes(plan->source);
    sllm_status status = allocate(&w, plan, error);
    if (!status) status = open_writer(&w, plan, recipe, out_path, &n_done, error);
    result->n_resumed = n_done;
    if (!status) result->bytes_out = sl_gguf_writer_bytes(w.writer);
    if (!status) status = write_tensors(&w, plan, n_done, error);
    result->solved = sl_solve_count(params->solve);
    release(&w);
    if (!status && params->on_progress) params->on_progress(params->user, "quantising", w.total, w.total);
    if (!status) return sl_gguf_writer_finish(w.writer, error);
    bool keep = status == SLLM_ERROR_CANCELLED || status == SLLM_ERROR_IO;
    if (w.writer) sl_gguf_writer_abandon(w.writer, keep);
    return status;
}
