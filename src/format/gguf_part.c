/* Parsing one GGUF file. The layout is that of docs/gguf.md in the ggml repository:
 *
 *     "GGUF"  u32 version  u64 tensor count  u64 metadata count
 *     metadata: string key, u32 type, value                         (count times)
 *     tensors:  string name, u32 n_dims, u64 dims[], u32 type, u64 offset   (count times)
 *     padding to general.alignment, then the tensors' bytes
 *
 * Everything is little-endian; a string is u64 length and bytes. Nothing declared is believed: counts are bounded by
 * the bytes that are left before anything is allocated, and every sum and product is checked before it is compared. */
#include "format/gguf_part.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DIMS = 4,              /* the format's own limit today */
    MAX_KEY = 65535,           /* the format's own limit */
    MAX_NAME = 255,            /* the format says 64; converters have passed it */
    MAX_ALIGNMENT = 1 << 20,
    MAX_ARRAY_DEPTH = 4,       /* arrays of arrays: allowed by the format, used by nobody we know */
    MIN_ENTRY = 8 + 1 + 4 + 1, /* bytes: key length, one byte of key, type, the smallest value */
    MIN_TENSOR = 8 + 1 + 4 + 4 + 8, /* bytes: name length, one byte of name, n_dims, type, offset */
    DEFAULT_ALIGNMENT = 32
};

/* Bytes of a value of a fixed size; 0 for strings and arrays. */
static const uint8_t value_bytes[] = {
    [SL_GGUF_U8] = 1,  [SL_GGUF_I8] = 1,   [SL_GGUF_U16] = 2, [SL_GGUF_I16] = 2, [SL_GGUF_U32] = 4, [SL_GGUF_I32] = 4,
    [SL_GGUF_F32] = 4, [SL_GGUF_BOOL] = 1, [SL_GGUF_U64] = 8, [SL_GGUF_I64] = 8, [SL_GGUF_F64] = 8,
    [SL_GGUF_STRING] = 0, [SL_GGUF_ARRAY] = 0};
enum { TYPE_COUNT = sizeof value_bytes };

const char *sl_gguf_type_name(sl_gguf_type type) {
    static const char *const names[TYPE_COUNT] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                  "bool", "string", "array", "u64", "i64", "f64"};
    return (unsigned)type < TYPE_COUNT ? names[type] : "?";
}

/* ---- a cursor that cannot leave the file */

typedef struct cursor {
    const unsigned char *at, *end;
} cursor;

static size_t left(const cursor *c) { return (size_t)(c->end - c->at); }

static bool take(cursor *c, void *out, size_t bytes) {
    if (left(c) < bytes) return false;
    memcpy(out, c->at, bytes);
    c->at += bytes;
    return true;
}

static bool take_u32(cursor *c, uint32_t *out) { return take(c, out, sizeof *out); }
static bool take_u64(cursor *c, uint64_t *out) { return take(c, out, sizeof *out); }

static bool take_string(cursor *c, const char **data, uint64_t *length) {
    cursor saved = *c;
    if (!take_u64(c, length) || *length > left(c)) {
        *c = saved;
        return false;
    }
    *data = (const char *)c->at;
    c->at += *length;
    return true;
}

/* ---- values */

static void read_scalar(const unsigned char *at, sl_gguf_type type, sl_gguf_value *value) {
    union { uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64; int64_t i64;
            float f32; double f64; } raw;
    memcpy(&raw, at, value_bytes[type]);
    switch (type) {
    case SL_GGUF_U8: case SL_GGUF_BOOL: value->u = raw.u8; break;
    case SL_GGUF_U16: value->u = raw.u16; break;
    case SL_GGUF_U32: value->u = raw.u32; break;
    case SL_GGUF_U64: value->u = raw.u64; break;
    case SL_GGUF_I8: value->i = raw.i8; break;
    case SL_GGUF_I16: value->i = raw.i16; break;
    case SL_GGUF_I32: value->i = raw.i32; break;
    case SL_GGUF_I64: value->i = raw.i64; break;
    case SL_GGUF_F32: value->f = raw.f32; break;
    case SL_GGUF_F64: value->f = raw.f64; break;
    case SL_GGUF_STRING: case SL_GGUF_ARRAY: break;
    }
}

/* Why a value could not be read; completes "metadata 'key': ...". */
typedef struct value_fault {
    char text[128];
} value_fault;

__attribute__((format(printf, 2, 3))) static bool fault(value_fault *out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->text, sizeof out->text, format, arguments);
    va_end(arguments);
    return false;
}

static bool take_value(cursor *c, uint32_t type, int depth, sl_gguf_value *value, value_fault *why);

/* Walks the items of an array to find its end; value->array.type and .count are set. */
static bool take_items(cursor *c, int depth, sl_gguf_value *value, value_fault *why) {
    uint64_t count = value->array.count;
    sl_gguf_type type = value->array.type;
    size_t size = value_bytes[type];
    value->array.data = c->at;
    if (count > left(c) / (size ? size : 8)) /* strings and arrays take at least eight bytes */
        return fault(why, "an array of %" PRIu64 " items does not fit into the file", count);
    if (size) {
        if (type == SL_GGUF_BOOL)
            for (uint64_t i = 0; i < count; i++)
                if (c->at[i] > 1) return fault(why, "a bool is neither 0 nor 1 but %d", c->at[i]);
        c->at += count * size;
    } else if (type == SL_GGUF_STRING) {
        const char *data;
        uint64_t length;
        for (uint64_t i = 0; i < count; i++)
            if (!take_string(c, &data, &length))
                return fault(why, "the string of array item %" PRIu64 " passes the end of the file", i);
    } else {
        sl_gguf_value inner;
        for (uint64_t i = 0; i < count; i++)
            if (!take_value(c, SL_GGUF_ARRAY, depth + 1, &inner, why)) return false;
    }
    value->array.end = c->at;
    return true;
}

static bool take_value(cursor *c, uint32_t type, int depth, sl_gguf_value *value, value_fault *why) {
    if (type >= TYPE_COUNT) return fault(why, "unknown value type %" PRIu32, type);
    *value = (sl_gguf_value){.type = (sl_gguf_type)type};
    if (value->type == SL_GGUF_STRING) {
        uint64_t length = 0;
        if (!take_string(c, &value->string.data, &length))
            return fault(why, "a string of %" PRIu64 " bytes passes the end of the file", length);
        value->string.length = length;
        return true;
    }
    if (value->type == SL_GGUF_ARRAY) {
        uint32_t item_type;
        if (depth == MAX_ARRAY_DEPTH) return fault(why, "arrays nest deeper than %d", MAX_ARRAY_DEPTH);
        if (!take_u32(c, &item_type) || !take_u64(c, &value->array.count))
            return fault(why, "the file ends inside the head of an array");
        if (item_type >= TYPE_COUNT) return fault(why, "unknown array item type %" PRIu32, item_type);
        value->array.type = (sl_gguf_type)item_type;
        return take_items(c, depth, value, why);
    }
    if (left(c) < value_bytes[type]) return fault(why, "the file ends inside a %s", sl_gguf_type_name(value->type));
    read_scalar(c->at, value->type, value);
    c->at += value_bytes[type];
    if (value->type == SL_GGUF_BOOL && value->u > 1)
        return fault(why, "a bool is neither 0 nor 1 but %" PRIu64, value->u);
    return true;
}

bool sl_gguf_array_next(const sl_gguf_value *array, const unsigned char **position, sl_gguf_value *item) {
    cursor c = {*position, array->array.end};
    value_fault why;
    if (c.at >= c.end) return false;
    if (!take_value(&c, array->array.type, 0, item, &why)) return false; /* not after open has walked the same bytes */
    *position = c.at;
    return true;
}

/* ---- names: metadata keys and tensor names */

/* Copies a name out, NUL-terminated. `what` and `index` say where it stands. */
static sllm_status take_name(sl_gguf_part *part, cursor *c, const char *what, uint64_t index, uint64_t limit,
                             const char **name, size_t *name_length, sllm_error *error) {
    const char *data;
    uint64_t length;
    size_t offset = (size_t)(c->at - part->data);
    if (left(c) < 8)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the file ends at the name of %s %" PRIu64, part->path, what,
                       index);
    memcpy(&length, c->at, 8);
    if (length > left(c) - 8 || length > limit || !length)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: the name of %s %" PRIu64 " (at byte %zu) claims %" PRIu64 " bytes; 1 to %" PRIu64
                       " are allowed and %zu are left in the file",
                       part->path, what, index, offset, length, limit, left(c) - 8);
    take_string(c, &data, &length);
    if (memchr(data, 0, length) || !sl_utf8_is_valid(data, length))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the name of %s %" PRIu64 " (at byte %zu) %s", part->path, what,
                       index, offset, memchr(data, 0, length) ? "holds a NUL byte" : "is not UTF-8");
    *name = sl_arena_copy(&part->arena, data, length);
    *name_length = length;
    return *name ? SLLM_OK : sl_fail_memory(error, part->path, length);
}

/* ---- metadata */

static sllm_status parse_entry(sl_gguf_part *part, cursor *c, size_t index, sllm_error *error) {
    sl_gguf_entry *entry = &part->entries[index];
    uint64_t other;
    size_t key_length;
    sllm_status status = take_name(part, c, "metadata entry", index, MAX_KEY, &entry->key, &key_length, error);
    if (status) return status;
    if (sl_map_get(&part->keys, entry->key, key_length, &other))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%.200s' is there twice (entries %" PRIu64 " and %zu)",
                       part->path, entry->key, other, index);
    if (!sl_map_put(&part->keys, entry->key, key_length, index)) return sl_fail_memory(error, part->path, 0);
    uint32_t type;
    value_fault why;
    if (!take_u32(c, &type))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%.200s': the file ends before its type", part->path,
                       entry->key);
    size_t offset = (size_t)(c->at - part->data);
    if (take_value(c, type, 0, &entry->value, &why)) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata '%.200s' (at byte %zu of %zu): %s", part->path, entry->key,
                   offset, part->size, why.text);
}

static sllm_status parse_metadata(sl_gguf_part *part, cursor *c, uint64_t count, sllm_error *error) {
    if (count > left(c) / MIN_ENTRY)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: the header claims %" PRIu64 " metadata entries, more than fit into the file", part->path,
                       count);
    part->entries = sl_arena_array(&part->arena, count, sizeof *part->entries);
    if (!part->entries || !sl_map_reserve(&part->keys, count)) return sl_fail_memory(error, part->path, 0);
    for (size_t i = 0; i < count; i++) {
        sllm_status status = parse_entry(part, c, i, error);
        if (status) return status;
        part->n_entries = i + 1;
    }
    return SLLM_OK;
}

static sllm_status find_alignment(sl_gguf_part *part, sllm_error *error) {
    const sl_gguf_value *value = sl_gguf_part_find(part, "general.alignment");
    part->alignment = DEFAULT_ALIGNMENT;
    if (!value) return SLLM_OK;
    if (value->type != SL_GGUF_U32)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: metadata 'general.alignment' is of type %s, not u32", part->path,
                       sl_gguf_type_name(value->type));
    if (!value->u || (value->u & (value->u - 1)) || value->u > MAX_ALIGNMENT)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: metadata 'general.alignment' is %" PRIu64 ", not a power of two up to %d", part->path,
                       value->u, MAX_ALIGNMENT);
    part->alignment = value->u;
    return SLLM_OK;
}

/* ---- tensors */

/* Elements and bytes of a tensor whose type and reversed shape are set. */
static sllm_status measure(const sl_gguf_part *part, sl_tensor *tensor, sllm_error *error) {
    uint64_t columns = tensor->n_dims ? (uint64_t)tensor->shape[tensor->n_dims - 1] : 1, row_bytes;
    uint64_t rows = 1;
    bool fits = true;
    for (int i = 0; i + 1 < tensor->n_dims; i++) fits = fits && sl_mul_u64(rows, (uint64_t)tensor->shape[i], &rows);
    const sl_type_info *type = sl_type_get(tensor->type);
    if (columns % type->block)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: tensor '%s': rows of %" PRIu64 " elements are not a multiple of %s's blocks of %d",
                       part->path, tensor->name, columns, type->name, type->block);
    fits = fits && sl_type_bytes(tensor->type, columns, &row_bytes) && sl_mul_u64(row_bytes, rows, &tensor->bytes) &&
           sl_mul_u64(rows, columns, &tensor->n_elements) && tensor->n_elements <= INT64_MAX;
    if (!fits)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s': the product of its dimensions overflows",
                       part->path, tensor->name);
    return SLLM_OK;
}

/* *offset counts from the start of the data, which is known only after the last description. */
static sllm_status parse_tensor(sl_gguf_part *part, cursor *c, size_t index, uint64_t *offset, sllm_error *error) {
    sl_tensor *tensor = &part->tensors[index];
    uint32_t n_dims, type;
    uint64_t dims[MAX_DIMS];
    size_t length;
    sllm_status status = take_name(part, c, "tensor", index, MAX_NAME, &tensor->name, &length, error);
    if (status) return status;
    if (!take_u32(c, &n_dims))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s': the file ends inside its description", part->path,
                       tensor->name);
    if (n_dims > MAX_DIMS)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s': %" PRIu32 " dimensions; the format knows up to %d",
                       part->path, tensor->name, n_dims, MAX_DIMS);
    if (!take(c, dims, n_dims * sizeof *dims) || !take_u32(c, &type) || !take_u64(c, offset))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s': the file ends inside its description", part->path,
                       tensor->name);
    tensor->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        if (!dims[i] || dims[i] > INT64_MAX)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%s': dimension %" PRIu32 " is %" PRIu64, part->path,
                           tensor->name, i, dims[i]);
        tensor->shape[n_dims - 1 - i] = (int64_t)dims[i];
    }
    if (!sl_type_from_ggml(type, &tensor->type))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: tensor '%s': unknown element type number %" PRIu32,
                       part->path, tensor->name, type);
    return measure(part, tensor, error);
}

/* Turns an offset into a pointer, once it is aligned and its extent lies in the file. */
static sllm_status place(const sl_gguf_part *part, sl_tensor *tensor, uint64_t offset, uint64_t data_start,
                         sllm_error *error) {
    uint64_t begin, end;
    if (offset % part->alignment)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: tensor '%s': offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, part->path,
                       tensor->name, offset, part->alignment);
    if (!sl_add_u64(data_start, offset, &begin) || !sl_add_u64(begin, tensor->bytes, &end) || end > part->size)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: tensor '%s': needs %" PRIu64 " bytes at offset %" PRIu64
                       " of the data, which begin at %" PRIu64
                       ", but the file ends at %zu: it is damaged or was not downloaded whole",
                       part->path, tensor->name, tensor->bytes, offset, data_start, part->size);
    tensor->data = part->data + begin;
    return SLLM_OK;
}

static int by_address(const void *a, const void *b) {
    const sl_tensor *x = *(const sl_tensor *const *)a, *y = *(const sl_tensor *const *)b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return x < y ? -1 : x > y;
}

static sllm_status check_overlap(sl_gguf_part *part, sllm_error *error) {
    const sl_tensor **sorted = sl_arena_array(&part->arena, part->n_tensors, sizeof *sorted);
    if (!sorted) return sl_fail_memory(error, part->path, 0);
    for (size_t i = 0; i < part->n_tensors; i++) sorted[i] = &part->tensors[i];
    qsort(sorted, part->n_tensors, sizeof *sorted, by_address);
    for (size_t i = 1; i < part->n_tensors; i++)
        if ((uintptr_t)sorted[i - 1]->data + sorted[i - 1]->bytes > (uintptr_t)sorted[i]->data)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensors '%s' and '%s' overlap", part->path,
                           sorted[i - 1]->name, sorted[i]->name);
    return SLLM_OK;
}

static sllm_status parse_tensors(sl_gguf_part *part, cursor *c, uint64_t count, sllm_error *error) {
    if (!count) return SLLM_OK; /* a vocabulary-only file, or the first part of a split */
    if (count > left(c) / MIN_TENSOR)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: the header claims %" PRIu64 " tensors, more than fit into the file", part->path, count);
    part->tensors = sl_arena_array(&part->arena, count, sizeof *part->tensors);
    uint64_t *offsets = sl_arena_array(&part->arena, count, sizeof *offsets);
    if (!part->tensors || !offsets) return sl_fail_memory(error, part->path, 0);
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < count && !status; i++) status = parse_tensor(part, c, i, &offsets[i], error);
    uint64_t header = (uint64_t)(c->at - part->data);
    uint64_t data_start = (header + part->alignment - 1) / part->alignment * part->alignment;
    for (size_t i = 0; i < count && !status; i++)
        status = place(part, &part->tensors[i], offsets[i], data_start, error);
    if (status) return status;
    part->n_tensors = count;
    return check_overlap(part, error);
}

/* ---- the whole */

static sllm_status parse_version(sl_gguf_part *part, cursor *c, sllm_error *error) {
    char magic[4];
    if (!take(c, magic, 4) || (memcmp(magic, "GGUF", 4) && memcmp(magic, "FUGG", 4)))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: not a GGUF file: it does not begin with \"GGUF\"", part->path);
    if (!take_u32(c, &part->version))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the file ends inside the GGUF header", part->path);
    uint32_t swapped = __builtin_bswap32(part->version);
    if (magic[0] == 'F' || (part->version > 0xffff && swapped <= 0xffff))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "%s: a big-endian GGUF file (version %" PRIu32 "); this build reads little-endian ones",
                       part->path, swapped);
    if (part->version == 1)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "%s: GGUF version 1; versions 2 and 3 are read: convert the model again", part->path);
    if (part->version != 2 && part->version != 3)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: GGUF version %" PRIu32 "; versions 2 and 3 are read",
                       part->path, part->version);
    return SLLM_OK;
}

sllm_status sl_gguf_part_parse(sl_gguf_part *part, sllm_error *error) {
    cursor c = {part->data, part->data + part->size};
    uint64_t n_tensors = 0, n_entries = 0;
    part->keys.seed = sl_map_seed_random();
    sllm_status status = parse_version(part, &c, error);
    if (!status && (!take_u64(&c, &n_tensors) || !take_u64(&c, &n_entries)))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: the file ends inside the GGUF header", part->path);
    if (!status) status = parse_metadata(part, &c, n_entries, error);
    if (!status) status = find_alignment(part, error);
    if (!status) status = parse_tensors(part, &c, n_tensors, error);
    return status;
}

const sl_gguf_value *sl_gguf_part_find(const sl_gguf_part *part, const char *key) {
    uint64_t index;
    return sl_map_get(&part->keys, key, strlen(key), &index) ? &part->entries[index].value : NULL;
}

void sl_gguf_part_close(sl_gguf_part *part) {
    sl_map_free(&part->keys);
    sl_arena_free(&part->arena);
    sl_mapping_close(&part->mapping);
}
