/* A GGUF file, or the parts of a split put together, and access to what it holds. Parsing is in gguf_part.c. */
#include "format/gguf.h"

#include "base/error.h"
#include "format/gguf_part.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUFFIX = sizeof "-00001-of-00002.gguf" - 1 };

struct sl_gguf {
    char *path;          /* as given */
    sl_gguf_part *parts; /* metadata are those of the first */
    size_t n_parts;
    sl_tensor *tensors;  /* of all parts */
    size_t n_tensors;
    sl_map names;        /* tensor name -> index in tensors */
};

void sl_gguf_close(sl_gguf *gguf) {
    if (!gguf) return;
    for (size_t i = 0; i < gguf->n_parts; i++) sl_gguf_part_close(&gguf->parts[i]);
    sl_map_free(&gguf->names);
    free(gguf->parts);
    free(gguf->tensors);
    free(gguf->path);
    free(gguf);
}

static sllm_status gguf_new(const char *path, sl_gguf **out, sllm_error *error) {
    sl_gguf *gguf = calloc(1, sizeof *gguf);
    if (gguf) gguf->path = strdup(path);
    if (gguf) gguf->parts = calloc(1, sizeof *gguf->parts);
    if (!gguf || !gguf->path || !gguf->parts) {
        sl_gguf_close(gguf);
        return sl_fail_memory(error, path, 0);
    }
    gguf->n_parts = 1;
    gguf->parts[0].path = gguf->path;
    gguf->names.seed = sl_map_seed_random();
    *out = gguf;
    return SLLM_OK;
}

/* ---- splits: NAME-00001-of-0000N.gguf, with split.no, split.count and split.tensors.count in each part */

/* Reads "-00002-of-00003.gguf" at the end of a path. */
static bool split_name(const char *path, int *number, int *count, size_t *stem) {
    size_t length = strlen(path);
    if (length < SUFFIX) return false;
    const char *s = path + length - SUFFIX;
    for (int i = 0; i < SUFFIX; i++) {
        bool digit = (i >= 1 && i < 6) || (i >= 10 && i < 15);
        if (digit ? s[i] < '0' || s[i] > '9' : s[i] != "-00000-of-00000.gguf"[i]) return false;
    }
    *number = atoi(s + 1);
    *count = atoi(s + 10);
    *stem = length - SUFFIX;
    return true;
}

static sllm_status split_number(const sl_gguf_part *part, const char *key, int64_t *out, sllm_error *error) {
    const sl_gguf_value *value = sl_gguf_part_find(part, key);
    if (!value) return SLLM_OK;
    bool is_signed = value->type == SL_GGUF_I32 || value->type == SL_GGUF_I64 || value->type == SL_GGUF_I16;
    bool is_unsigned = value->type == SL_GGUF_U16 || value->type == SL_GGUF_U32 || value->type == SL_GGUF_U64;
    if ((!is_signed && !is_unsigned) || (is_unsigned && value->u > INT64_MAX) || (is_signed && value->i < 0))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%s' is not a count", part->path, key);
    *out = is_signed ? value->i : (int64_t)value->u;
    return SLLM_OK;
}

typedef struct split_info {
    int64_t number, count, n_tensors; /* from metadata; number counts from 0; -1: not there */
} split_info;

static sllm_status split_read(const sl_gguf_part *part, split_info *info, sllm_error *error) {
    *info = (split_info){-1, -1, -1};
    sllm_status status = split_number(part, "split.no", &info->number, error);
    if (!status) status = split_number(part, "split.count", &info->count, error);
    if (!status) status = split_number(part, "split.tensors.count", &info->n_tensors, error);
    return status;
}

static sllm_status open_part(sl_gguf_part *part, const char *path, sllm_error *error) {
    part->path = path;
    sllm_status status = sl_mapping_open(path, &part->mapping, error);
    if (status) return status;
    part->data = part->mapping.data;
    part->size = part->mapping.size;
    return sl_gguf_part_parse(part, error);
}

static sllm_status open_next_part(sl_gguf *gguf, size_t index, const split_info *first, size_t stem,
                                  sllm_error *error) {
    size_t size = stem + SUFFIX + 1;
    char *path = sl_arena_alloc(&gguf->parts[index].arena, size);
    gguf->n_parts = index + 1;
    if (!path) return sl_fail_memory(error, gguf->path, size);
    snprintf(path, size, "%.*s-%05zu-of-%05" PRId64 ".gguf", (int)stem, gguf->path, index + 1, first->count);
    if (!sl_path_is_file(path))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: part %zu of %" PRId64 " is missing: %s", gguf->path, index + 1,
                       first->count, path);
    split_info info;
    sllm_status status = open_part(&gguf->parts[index], path, error);
    if (!status) status = split_read(&gguf->parts[index], &info, error);
    if (status) return status;
    if (info.number != (int64_t)index || info.count != first->count || info.n_tensors != first->n_tensors)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: does not belong to %s: split.no, split.count and split.tensors.count are %" PRId64
                       ", %" PRId64 ", %" PRId64 " where %zu, %" PRId64 ", %" PRId64 " are needed",
                       path, gguf->path, info.number, info.count, info.n_tensors, index, first->count,
                       first->n_tensors);
    return SLLM_OK;
}

/* Checks the first part against its name and opens the others. */
static sllm_status open_split(sl_gguf *gguf, const split_info *first, sllm_error *error) {
    int number = 0, count = 0;
    size_t stem = 0;
    bool named = split_name(gguf->path, &number, &count, &stem);
    if (named && number > 1)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "%s: this is part %d of %d; open the first one, %.*s-00001-of-%05d.gguf", gguf->path, number,
                       count, (int)stem, gguf->path, count);
    if (!named || number != 1 || first->number != 0 || first->count != count)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: a split GGUF file whose name does not match what it holds (split.no %" PRId64
                       ", split.count %" PRId64 "): the first part must be named NAME-00001-of-%05" PRId64 ".gguf",
                       gguf->path, first->number, first->count, first->count < 0 ? count : first->count);
    sl_gguf_part *parts = realloc(gguf->parts, (size_t)count * sizeof *parts);
    if (!parts) return sl_fail_memory(error, gguf->path, 0);
    gguf->parts = parts;
    memset(parts + 1, 0, (size_t)(count - 1) * sizeof *parts);
    sllm_status status = SLLM_OK;
    for (size_t i = 1; i < (size_t)count && !status; i++) status = open_next_part(gguf, i, first, stem, error);
    return status;
}

/* ---- putting together */

static sllm_status collect_tensors(sl_gguf *gguf, sllm_error *error) {
    size_t total = 0;
    for (size_t i = 0; i < gguf->n_parts; i++) total += gguf->parts[i].n_tensors;
    gguf->tensors = calloc(total ? total : 1, sizeof *gguf->tensors);
    if (!gguf->tensors || !sl_map_reserve(&gguf->names, total)) return sl_fail_memory(error, gguf->path, 0);
    for (size_t i = 0; i < gguf->n_parts; i++) {
        const sl_gguf_part *part = &gguf->parts[i];
        for (size_t j = 0; j < part->n_tensors; j++) {
            const sl_tensor *tensor = &part->tensors[j];
            size_t length = strlen(tensor->name);
            uint64_t other;
            if (sl_map_get(&gguf->names, tensor->name, length, &other))
                return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s' is there twice", part->path, tensor->name);
            if (!sl_map_put(&gguf->names, tensor->name, length, gguf->n_tensors))
                return sl_fail_memory(error, gguf->path, 0);
            gguf->tensors[gguf->n_tensors++] = *tensor;
        }
    }
    return SLLM_OK;
}

sllm_status sl_gguf_open(const char *path, sl_gguf **out, sllm_error *error) {
    sl_gguf *gguf;
    split_info split;
    int number = 0, count = 0;
    size_t stem;
    *out = NULL;
    sllm_status status = gguf_new(path, &gguf, error);
    if (status) return status;
    status = open_part(&gguf->parts[0], gguf->path, error);
    if (!status) status = split_read(&gguf->parts[0], &split, error);
    bool is_split = !status && (split.count > 1 || split.number > 0 ||
                                (split_name(path, &number, &count, &stem) && count > 1));
    if (is_split) status = open_split(gguf, &split, error);
    if (!status) status = collect_tensors(gguf, error);
    if (is_split && !status && split.n_tensors >= 0 && (uint64_t)split.n_tensors != gguf->n_tensors)
        status = sl_fail(error, SLLM_ERROR_FORMAT,
                         "%s: split.tensors.count is %" PRId64 " but the parts hold %zu tensors", path,
                         split.n_tensors, gguf->n_tensors);
    if (status) sl_gguf_close(gguf);
    else *out = gguf;
    return status;
}

sllm_status sl_gguf_open_memory(const void *data, size_t size, sl_gguf **out, sllm_error *error) {
    sl_gguf *gguf;
    split_info split;
    *out = NULL;
    sllm_status status = gguf_new("GGUF in memory", &gguf, error);
    if (status) return status;
    gguf->parts[0].data = data;
    gguf->parts[0].size = size;
    status = sl_gguf_part_parse(&gguf->parts[0], error);
    if (!status) status = split_read(&gguf->parts[0], &split, error);
    if (!status && split.count > 1)
        status = sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: one part of a split; open it by its path", gguf->path);
    if (!status) status = collect_tensors(gguf, error);
    if (status) sl_gguf_close(gguf);
    else *out = gguf;
    return status;
}

/* ---- access */

uint32_t sl_gguf_version(const sl_gguf *gguf) { return gguf->parts[0].version; }

const char *sl_gguf_path(const sl_gguf *gguf, size_t part) {
    return part < gguf->n_parts ? gguf->parts[part].path : NULL;
}

uint64_t sl_gguf_file_bytes(const sl_gguf *gguf) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < gguf->n_parts; i++) bytes += gguf->parts[i].size;
    return bytes;
}

size_t sl_gguf_metadata_count(const sl_gguf *gguf) { return gguf->parts[0].n_entries; }

void sl_gguf_metadata(const sl_gguf *gguf, size_t index, const char **key, sl_gguf_value *value) {
    *key = gguf->parts[0].entries[index].key;
    *value = gguf->parts[0].entries[index].value;
}

bool sl_gguf_find(const sl_gguf *gguf, const char *key, sl_gguf_value *value) {
    const sl_gguf_value *found = sl_gguf_part_find(&gguf->parts[0], key);
    if (found) *value = *found;
    return found;
}

static bool wrong_type(const sl_gguf *gguf, const char *key, const sl_gguf_value *value, const char *wanted,
                       sllm_error *error) {
    sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%s' is of type %s; %s is needed", gguf->path, key,
            sl_gguf_type_name(value->type), wanted);
    return false;
}

bool sl_gguf_get_int(const sl_gguf *gguf, const char *key, int64_t *out, sllm_error *error) {
    sl_gguf_value value;
    if (!sl_gguf_find(gguf, key, &value)) return false;
    switch (value.type) {
    case SL_GGUF_I8: case SL_GGUF_I16: case SL_GGUF_I32: case SL_GGUF_I64:
        *out = value.i;
        return true;
    case SL_GGUF_U8: case SL_GGUF_U16: case SL_GGUF_U32: case SL_GGUF_U64:
        if (value.u > INT64_MAX) {
            sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%s' is %" PRIu64 ", out of range", gguf->path, key,
                    value.u);
            return false;
        }
        *out = (int64_t)value.u;
        return true;
    default:
        return wrong_type(gguf, key, &value, "an integer", error);
    }
}

bool sl_gguf_get_float(const sl_gguf *gguf, const char *key, double *out, sllm_error *error) {
    sl_gguf_value value;
    if (!sl_gguf_find(gguf, key, &value)) return false;
    switch (value.type) {
    case SL_GGUF_F32: case SL_GGUF_F64:
        *out = value.f;
        return true;
    case SL_GGUF_I8: case SL_GGUF_I16: case SL_GGUF_I32: case SL_GGUF_I64:
        *out = (double)value.i;
        return true;
    case SL_GGUF_U8: case SL_GGUF_U16: case SL_GGUF_U32: case SL_GGUF_U64:
        *out = (double)value.u;
        return true;
    default:
        return wrong_type(gguf, key, &value, "a number", error);
    }
}

bool sl_gguf_get_bool(const sl_gguf *gguf, const char *key, bool *out, sllm_error *error) {
    sl_gguf_value value;
    if (!sl_gguf_find(gguf, key, &value)) return false;
    if (value.type != SL_GGUF_BOOL) return wrong_type(gguf, key, &value, "bool", error);
    *out = value.u;
    return true;
}

bool sl_gguf_get_string(const sl_gguf *gguf, const char *key, const char **out, size_t *length, sllm_error *error) {
    sl_gguf_value value;
    if (!sl_gguf_find(gguf, key, &value)) return false;
    if (value.type != SL_GGUF_STRING) return wrong_type(gguf, key, &value, "a string", error);
    *out = value.string.data;
    *length = value.string.length;
    return true;
}

size_t sl_gguf_tensor_count(const sl_gguf *gguf) { return gguf->n_tensors; }
const sl_tensor *sl_gguf_tensor_at(const sl_gguf *gguf, size_t index) { return &gguf->tensors[index]; }

const sl_tensor *sl_gguf_tensor(const sl_gguf *gguf, const char *name) {
    uint64_t index;
    return sl_map_get(&gguf->names, name, strlen(name), &index) ? &gguf->tensors[index] : NULL;
}
