/* llama.cpp's imatrix files. GGUF form: general.type "imatrix", imatrix.chunk_count, imatrix.chunk_size,
 * imatrix.datasets, and for each tensor NAME.in_sum2 [matrices, columns] and NAME.counts [matrices, 1], all f32. Older
 * form: a count of entries, each a name, a number of chunks and the sums of their mean squares. */
#include "quant/importance_int.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "format/gguf_write.h"

#include <stdlib.h>
#include <string.h>

static const char sum_suffix[] = ".in_sum2", count_suffix[] = ".counts";

/* ---------------------------------------------------------------- GGUF */

static sllm_status read_entry(sl_importance *im, const sl_gguf *gguf, const sl_tensor *sums, sllm_error *error) {
    size_t length = strlen(sums->name) - (sizeof sum_suffix - 1);
    char name[256];
    sl_importance_entry *e;
    if (length + sizeof count_suffix > sizeof name)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the name of %.80s... is too long", sums->name);
    memcpy(name, sums->name, length);
    memcpy(name + length, count_suffix, sizeof count_suffix);
    const sl_tensor *counts = sl_gguf_tensor(gguf, name);
    int64_t columns = sums->n_dims ? sums->shape[sums->n_dims - 1] : 0;
    if (!counts || sums->type != SL_F32 || counts->type != SL_F32 || columns < 1 ||
        counts->n_elements != sums->n_elements / (uint64_t)columns || counts->n_elements > 65536)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s and %s do not fit together", sums->name, name);
    sllm_status status = sl_importance_add(im, name, length, columns, (int)counts->n_elements, &e, error);
    if (status) return status;
    memcpy(e->sums, sums->data, sums->bytes);
    memcpy(e->counts, counts->data, counts->bytes);
    return SLLM_OK;
}

static sllm_status read_gguf(sl_importance *im, const sl_gguf *gguf, sllm_error *error) {
    const char *type;
    size_t length;
    if (!sl_gguf_get_string(gguf, "general.type", &type, &length, NULL) || length != 7 || memcmp(type, "imatrix", 7))
        return sl_fail(error, SLLM_ERROR_FORMAT, "not an importance file: general.type is not \"imatrix\"");
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < sl_gguf_tensor_count(gguf) && !status; i++) {
        const sl_tensor *t = sl_gguf_tensor_at(gguf, i);
        if (sl_ends_with(t->name, sum_suffix)) status = read_entry(im, gguf, t, error);
    }
    int64_t value;
    if (sl_gguf_get_int(gguf, "imatrix.chunk_count", &value, NULL) && value > 0 && value < INT32_MAX) im->n_chunks = (int)value;
    if (sl_gguf_get_int(gguf, "imatrix.chunk_size", &value, NULL) && value > 0 && value < INT32_MAX) im->chunk_size = (int)value;
    return status;
}

/* ---------------------------------------------------------------- the older form */

typedef struct cursor {
    const unsigned char *at, *end;
} cursor;

static bool take(cursor *c, void *out, size_t n) {
    if ((size_t)(c->end - c->at) < n) return false;
    memcpy(out, c->at, n);
    c->at += n;
    return true;
}

static sllm_status read_old_entry(sl_importance *im, cursor *c, int index, sllm_error *error) {
    int32_t length, n_calls, n_values;
    sl_importance_entry *e;
    if (!take(c, &length, 4) || length < 1 || length > 255 || c->end - c->at < length)
        return sl_fail(error, SLLM_ERROR_FORMAT, "entry %d: its name passes the end of the file", index);
    const char *name = (const char *)c->at;
    c->at += length;
    if (!take(c, &n_calls, 4) || !take(c, &n_values, 4) || n_calls < 1 || n_values < 1 ||
        (c->end - c->at) / 4 < n_values)
        return sl_fail(error, SLLM_ERROR_FORMAT, "entry %d (%.*s): its values pass the end of the file", index, length, name);
    sllm_status status = sl_importance_add(im, name, (size_t)length, n_values, 1, &e, error);
    if (status) return status;
    take(c, e->sums, (size_t)n_values * 4);
    e->counts[0] = (float)n_calls;
    return SLLM_OK;
}

static sllm_status read_old(sl_importance *im, const uint8_t *data, size_t size, sllm_error *error) {
    cursor c = {data, data + size};
    int32_t n;
    sllm_status status = SLLM_OK;
    if (!take(&c, &n, 4) || n < 1 || n > 1000000)
        return sl_fail(error, SLLM_ERROR_FORMAT, "neither a GGUF file nor an older importance file");
    for (int i = 0; i < n && !status; i++) status = read_old_entry(im, &c, i, error);
    return status;
}

/* ---------------------------------------------------------------- the whole */

sllm_status sl_importance_read_memory(const void *data, size_t size, sl_importance **importance, sllm_error *error) {
    sl_gguf *gguf = NULL;
    *importance = NULL;
    sllm_status status = sl_importance_new(importance, error);
    if (!status && size >= 4 && !memcmp(data, "GGUF", 4)) {
        status = sl_gguf_open_memory(data, size, &gguf, error);
        if (!status) status = read_gguf(*importance, gguf, error);
    } else if (!status) {
        status = read_old(*importance, data, size, error);
    }
    if (!status && !(*importance)->n) status = sl_fail(error, SLLM_ERROR_FORMAT, "holds no importance of any tensor");
    if (!status) status = sl_importance_finish(*importance, error);
    if (status && *importance) {
        sl_importance_free(*importance);
        *importance = NULL;
    }
    sl_gguf_close(gguf);
    return status;
}

sllm_status sl_importance_read(const char *path, sl_importance **importance, sllm_error *error) {
    sl_mapping file = {0};
    *importance = NULL;
    sllm_status status = sl_mapping_open(path, &file, error);
    if (status) return status;
    status = sl_importance_read_memory(file.data, file.size, importance, error);
    sl_mapping_close(&file);
    return status ? sl_error_prefix(error, status, "%s", path) : SLLM_OK;
}

static sllm_status write_tensors(const sl_importance *im, const sl_gguf_claim *claim, const sl_gguf_fields *fields, sllm_error *error) {
    const sl_gguf_writer_params params = {.claim = claim};
    const char *path = claim->path;
    sl_gguf_writer *writer = NULL;
    sl_arena names = {0};
    size_t done;
    sl_tensor *tensors = sl_arena_array(&names, 2 * im->n, sizeof *tensors);
    sllm_status status = tensors ? SLLM_OK : sl_fail_memory(error, path, 0);
    for (size_t i = 0; i < im->n && !status; i++) {
        const sl_importance_entry *e = &im->entries[i];
        size_t size = strlen(e->name) + sizeof sum_suffix;
        char *sum = sl_arena_alloc(&names, size), *count = sl_arena_alloc(&names, size);
        if (!sum || !count) {
            status = sl_fail_memory(error, path, size);
            break;
        }
        snprintf(sum, size, "%s%s", e->name, sum_suffix);
        snprintf(count, size, "%s%s", e->name, count_suffix);
        tensors[2 * i] = (sl_tensor){.name = sum, .type = SL_F32, .n_dims = 2, .shape = {e->n_matrices, e->n_columns}};
        tensors[2 * i + 1] = (sl_tensor){.name = count, .type = SL_F32, .n_dims = 2, .shape = {e->n_matrices, 1}};
    }
    if (!status) status = sl_gguf_writer_new(path, fields, tensors, 2 * im->n, &params, &writer, &done, error);
    for (size_t i = 0; i < im->n && !status; i++) {
        const sl_importance_entry *e = &im->entries[i];
        size_t matrices = (size_t)e->n_matrices;
        status = sl_gguf_writer_write(writer, e->sums, matrices * (size_t)e->n_columns * sizeof(float), error);
        if (!status) status = sl_gguf_writer_write(writer, e->counts, matrices * sizeof(float), error);
    }
    sl_arena_free(&names);
    if (!status) return sl_gguf_writer_finish(writer, error);
    sl_gguf_writer_abandon(writer, false);
    return status;
}

sllm_status sl_importance_write(const sl_importance *im, const sl_gguf_claim *claim, sllm_error *error) {
    sl_gguf_fields fields = {0};
    const char *dataset = im->dataset ? im->dataset : "text";
    sl_gguf_put_string(&fields, "general.type", "imatrix", 7);
    sl_gguf_put_strings(&fields, "imatrix.datasets", &dataset, NULL, 1);
    sl_gguf_put_u32(&fields, "imatrix.chunk_count", (uint32_t)im->n_chunks);
    sl_gguf_put_u32(&fields, "imatrix.chunk_size", (uint32_t)im->chunk_size);
    sllm_status status = write_tensors(im, claim, &fields, error);
    sl_gguf_fields_free(&fields);
    return status;
}
