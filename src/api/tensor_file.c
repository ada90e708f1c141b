/* The public view of files as named tensors, over GGUF, safetensors and checkpoint folders. */
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/number.h"
#include "format/checkpoint.h"
#include "format/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BLOCK = 256, /* elements of the largest block in the table of types */
    SHOWN_ITEMS = 8, /* of a long array in the metadata */
    LONG_ARRAY = 64
};

struct sllm_tensor_file {
    sl_gguf *gguf; /* one of the three */
    sl_safetensors *safetensors;
    sl_checkpoint *checkpoint;
    const sl_safetensors *tensors; /* of the file or the folder */
};

static sllm_status fail_null(sllm_error *error, const char *function, const char *parameter) {
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %s is NULL", function, parameter);
}

static bool begins_with_gguf(const char *path) {
    char magic[4];
    FILE *file = sl_path_is_file(path) ? fopen(path, "rb") : NULL;
    bool is = file && fread(magic, 1, 4, file) == 4 && (!memcmp(magic, "GGUF", 4) || !memcmp(magic, "FUGG", 4));
    if (file) fclose(file);
    return is;
}

sllm_status sllm_tensor_file_open(const char *path, sllm_tensor_file **out, sllm_error *error) {
    sllm_status status;
    if (!out) return fail_null(error, __func__, "file");
    *out = NULL;
    if (!path) return fail_null(error, __func__, "path");
    sllm_tensor_file *file = calloc(1, sizeof *file);
    if (!file) return sl_fail_memory(error, path, 0);
    size_t length = strlen(path);
    if (sl_path_is_directory(path)) {
        status = sl_checkpoint_open(path, false, &file->checkpoint, error);
        if (!status) file->tensors = file->checkpoint->weights;
    } else if (begins_with_gguf(path) || (length > 5 && !strcmp(path + length - 5, ".gguf"))) {
        status = sl_gguf_open(path, &file->gguf, error);
    } else {
        status = sl_safetensors_open(path, &file->safetensors, error);
        file->tensors = file->safetensors;
    }
    if (status) sllm_tensor_file_close(file);
    else *out = file;
    return status;
}

void sllm_tensor_file_close(sllm_tensor_file *file) {
    if (!file) return;
    sl_gguf_close(file->gguf);
    sl_safetensors_close(file->safetensors);
    sl_checkpoint_close(file->checkpoint);
    free(file);
}

size_t sllm_tensor_file_count(const sllm_tensor_file *file) {
    if (!file) return 0;
    return file->gguf ? sl_gguf_tensor_count(file->gguf) : sl_safetensors_count(file->tensors);
}

static const sl_tensor *tensor_at(const sllm_tensor_file *file, size_t index) {
    return file->gguf ? sl_gguf_tensor_at(file->gguf, index) : sl_safetensors_at(file->tensors, index);
}

ptrdiff_t sllm_tensor_file_find(const sllm_tensor_file *file, const char *name) {
    if (!file || !name) return -1;
    const sl_tensor *tensor = file->gguf ? sl_gguf_tensor(file->gguf, name) : sl_safetensors_get(file->tensors, name);
    return tensor ? tensor - tensor_at(file, 0) : -1; /* both keep their tensors in one array */
}

sllm_status sllm_tensor_file_info(const sllm_tensor_file *file, size_t index, sllm_tensor_info *info,
                                  sllm_error *error) {
    if (info) *info = (sllm_tensor_info){0};
    if (!file || !info) return fail_null(error, __func__, file ? "info" : "file");
    if (index >= sllm_tensor_file_count(file))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor %zu of %zu: no such index", index,
                       sllm_tensor_file_count(file));
    const sl_tensor *tensor = tensor_at(file, index);
    *info = (sllm_tensor_info){.name = tensor->name,
                               .type = sl_type_get(tensor->type)->name,
                               .n_dims = tensor->n_dims,
                               .n_elements = tensor->n_elements,
                               .bytes = tensor->bytes};
    memcpy(info->shape, tensor->shape, sizeof info->shape);
    return SLLM_OK;
}

/* ---- reading elements */

static sllm_status check_range(const sllm_tensor_file *file, size_t index, uint64_t first, size_t n,
                               sllm_error *error) {
    if (index >= sllm_tensor_file_count(file))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor %zu of %zu: no such index", index,
                       sllm_tensor_file_count(file));
    const sl_tensor *tensor = tensor_at(file, index);
    if (first > tensor->n_elements || n > tensor->n_elements - first)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "tensor '%s': elements %" PRIu64 " and %zu more are asked for; it has %" PRIu64, tensor->name,
                       first, n, tensor->n_elements);
    return SLLM_OK;
}

sllm_status sllm_tensor_file_read_f32(const sllm_tensor_file *file, size_t index, uint64_t first, size_t n, float *out,
                                      sllm_error *error) {
    if (!file || (!out && n > 0)) return fail_null(error, __func__, file ? "out" : "file");
    sllm_status status = check_range(file, index, first, n, error);
    if (status) return status;
    const sl_tensor *tensor = tensor_at(file, index);
    const sl_type_info *type = sl_type_get(tensor->type);
    if (!type->is_float || !type->to_float)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor '%s' holds %s, not floats", tensor->name, type->name);
    float block[MAX_BLOCK];
    while (n) {
        const char *at = (const char *)tensor->data + first / type->block * type->bytes;
        size_t skip = first % type->block, done;
        if (!skip && n >= type->block) { /* whole blocks go straight to the caller */
            done = n - n % type->block;
            type->to_float(at, out, done);
        } else {
            done = n < type->block - skip ? n : type->block - skip;
            type->to_float(at, block, type->block);
            memcpy(out, block + skip, done * sizeof *out);
        }
        first += done;
        out += done;
        n -= done;
    }
    return SLLM_OK;
}

sllm_status sllm_tensor_file_read_i64(const sllm_tensor_file *file, size_t index, uint64_t first, size_t n,
                                      int64_t *out, sllm_error *error) {
    if (!file || (!out && n > 0)) return fail_null(error, __func__, file ? "out" : "file");
    sllm_status status = check_range(file, index, first, n, error);
    if (status) return status;
    const sl_tensor *tensor = tensor_at(file, index);
    const sl_type_info *type = sl_type_get(tensor->type);
    const unsigned char *at = (const unsigned char *)tensor->data + first * type->bytes;
    for (size_t i = 0; i < n; i++, at += type->bytes) {
        int16_t i16;
        int32_t i32;
        switch (tensor->type) {
        case SL_U8: case SL_BOOL: out[i] = *at; break;
        case SL_I8: out[i] = (int8_t)*at; break;
        case SL_I16: memcpy(&i16, at, 2); out[i] = i16; break;
        case SL_I32: memcpy(&i32, at, 4); out[i] = i32; break;
        case SL_I64: memcpy(&out[i], at, 8); break;
        default:
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor '%s' holds %s, not integers", tensor->name, type->name);
        }
    }
    return SLLM_OK;
}

/* ---- metadata */

static void write_value(sl_buffer *out, const sl_gguf_value *value);

/* The shortest text that reads back as the same float: 1e-05, not 9.999999747378752e-06. */
static void write_f32(sl_buffer *out, double value) {
    char text[SL_NUMBER_SIZE] = "null";
    if (isfinite(value)) sl_format_float(text, (float)value);
    sl_buffer_puts(out, text);
}

/* A long array becomes {"length": n, "first": [...]}. */
static void write_array(sl_buffer *out, const sl_gguf_value *array) {
    const unsigned char *cursor = array->array.data;
    sl_gguf_value item;
    bool is_long = array->array.count > LONG_ARRAY;
    if (is_long) sl_buffer_printf(out, "{\"length\":%" PRIu64 ",\"first\":", array->array.count);
    sl_buffer_putc(out, '[');
    for (uint64_t i = 0; (!is_long || i < SHOWN_ITEMS) && sl_gguf_array_next(array, &cursor, &item); i++) {
        sl_json_comma(out);
        write_value(out, &item);
    }
    sl_buffer_puts(out, is_long ? "]}" : "]");
}

static void write_value(sl_buffer *out, const sl_gguf_value *value) {
    switch (value->type) {
    case SL_GGUF_U8: case SL_GGUF_U16: case SL_GGUF_U32: case SL_GGUF_U64:
        sl_buffer_printf(out, "%" PRIu64, value->u);
        break;
    case SL_GGUF_I8: case SL_GGUF_I16: case SL_GGUF_I32: case SL_GGUF_I64:
        sl_buffer_printf(out, "%" PRId64, value->i);
        break;
    case SL_GGUF_BOOL: sl_buffer_puts(out, value->u ? "true" : "false"); break;
    case SL_GGUF_F32: write_f32(out, value->f); break;
    case SL_GGUF_F64: sl_json_write_double(out, value->f); break;
    case SL_GGUF_STRING: sl_json_write_string(out, value->string.data, value->string.length); break;
    case SL_GGUF_ARRAY: write_array(out, value); break;
    }
}

static void write_gguf(sl_buffer *out, const sl_gguf *gguf) {
    sl_buffer_putc(out, '{');
    for (size_t i = 0; i < sl_gguf_metadata_count(gguf); i++) {
        const char *key;
        sl_gguf_value value;
        sl_gguf_metadata(gguf, i, &key, &value);
        sl_json_key(out, key);
        write_value(out, &value);
    }
    sl_buffer_putc(out, '}');
}

/* A folder's metadata are its configuration; a file's are its "__metadata__". */
static void write_safetensors(sl_buffer *out, const sllm_tensor_file *file) {
    const sl_json *metadata = file->checkpoint ? file->checkpoint->config : sl_safetensors_metadata(file->tensors);
    if (metadata) sl_json_write_value(out, metadata);
    else sl_buffer_puts(out, "{}");
}

sllm_status sllm_tensor_file_metadata(const sllm_tensor_file *file, char **json, sllm_error *error) {
    sl_buffer out = {0};
    size_t length;
    if (json) *json = NULL;
    if (!file || !json) return fail_null(error, __func__, file ? "json" : "file");
    if (file->gguf) write_gguf(&out, file->gguf);
    else write_safetensors(&out, file);
    *json = sl_buffer_take(&out, &length);
    return *json ? SLLM_OK : sl_fail_memory(error, "metadata", 0);
}

/* ---- writing */

struct sllm_tensor_writer {
    sl_safetensors_writer *file;
};

sllm_status sllm_tensor_writer_new(const char *path, const char *name, const int64_t *shape, int n_dims,
                                   sllm_tensor_writer **out, sllm_error *error) {
    sl_tensor tensor = {.name = name, .type = SL_F32, .n_dims = n_dims};
    if (!out) return fail_null(error, __func__, "writer");
    *out = NULL;
    if (!path || !name || (!shape && n_dims > 0))
        return fail_null(error, __func__, !path ? "path" : !name ? "name" : "shape");
    if (n_dims < 0 || n_dims > 8)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %d dimensions; 0 to 8 are possible", path, n_dims);
    for (int i = 0; i < n_dims; i++) tensor.shape[i] = shape[i];
    sllm_tensor_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return sl_fail_memory(error, path, 0);
    sllm_status status = sl_safetensors_writer_new(path, &tensor, 1, &writer->file, error);
    if (status) free(writer);
    else *out = writer;
    return status;
}

sllm_status sllm_tensor_writer_write(sllm_tensor_writer *writer, const float *values, size_t n, sllm_error *error) {
    if (!writer || (!values && n > 0)) return fail_null(error, __func__, writer ? "values" : "writer");
    if (n > SIZE_MAX / sizeof *values)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%zu values are more than memory can hold", n);
    return sl_safetensors_writer_write(writer->file, values, n * sizeof *values, error);
}

sllm_status sllm_tensor_writer_finish(sllm_tensor_writer *writer, sllm_error *error) {
    if (!writer) return fail_null(error, __func__, "writer");
    sllm_status status = sl_safetensors_writer_finish(writer->file, error);
    free(writer);
    return status;
}

void sllm_tensor_writer_abandon(sllm_tensor_writer *writer) {
    if (!writer) return;
    sl_safetensors_writer_abandon(writer->file);
    free(writer);
}
