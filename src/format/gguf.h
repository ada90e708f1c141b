/* GGUF v2 and v3, mapped read-only; every declared size is checked against the file before it is used.
 * Format: the GGUF specification in the ggml repository (docs/gguf.md). */
#ifndef SL_FORMAT_GGUF_H
#define SL_FORMAT_GGUF_H

#include "base/buffer.h"
#include "sllm.h"
#include "tensor/tensor.h"

typedef enum sl_gguf_type {
    SL_GGUF_U8, SL_GGUF_I8, SL_GGUF_U16, SL_GGUF_I16, SL_GGUF_U32, SL_GGUF_I32, SL_GGUF_F32, SL_GGUF_BOOL,
    SL_GGUF_STRING, SL_GGUF_ARRAY, SL_GGUF_U64, SL_GGUF_I64, SL_GGUF_F64
} sl_gguf_type;

/* A metadata value; borrowed from the file. */
typedef struct sl_gguf_value {
    sl_gguf_type type;
    union {
        uint64_t u;   /* unsigned types, bool */
        int64_t i;    /* signed types */
        double f;
        struct { const char *data; size_t length; } string; /* not NUL-terminated */
        struct { sl_gguf_type type; uint64_t count; const unsigned char *data, *end; } array;
    };
} sl_gguf_value;

typedef struct sl_gguf sl_gguf;

/* Opens a file, or all parts of a split when path is the first part (NAME-00001-of-0000N.gguf); any other part is an
 * error that names the first. The whole header, every string and every tensor's extent is validated here. */
sllm_status sl_gguf_open(const char *path, sl_gguf **gguf, sllm_error *error);
/* The same over memory that outlives the handle (tests, fuzzing). */
sllm_status sl_gguf_open_memory(const void *data, size_t size, sl_gguf **gguf, sllm_error *error);
void sl_gguf_close(sl_gguf *gguf);

uint32_t sl_gguf_version(const sl_gguf *gguf);
uint64_t sl_gguf_file_bytes(const sl_gguf *gguf); /* all parts */
const char *sl_gguf_path(const sl_gguf *gguf, size_t part); /* of the file, or of one part of a split; NULL: there is none */
size_t sl_gguf_metadata_count(const sl_gguf *gguf);
/* Entry `index` < count; the key is NUL-terminated and borrowed. */
void sl_gguf_metadata(const sl_gguf *gguf, size_t index, const char **key, sl_gguf_value *value);
bool sl_gguf_find(const sl_gguf *gguf, const char *key, sl_gguf_value *value);

/* Typed access. Each returns false when the key is absent; when it is there with another type, *error is filled (its
 * status is then not SLLM_OK) and false returned. Callers set error->status = SLLM_OK before a series of these. */
bool sl_gguf_get_int(const sl_gguf *gguf, const char *key, int64_t *out, sllm_error *error); /* any integer type */
bool sl_gguf_get_float(const sl_gguf *gguf, const char *key, double *out, sllm_error *error); /* any number */
bool sl_gguf_get_bool(const sl_gguf *gguf, const char *key, bool *out, sllm_error *error);
bool sl_gguf_get_string(const sl_gguf *gguf, const char *key, const char **out, size_t *length, sllm_error *error);

/* Iterating an array value: the items in order; `cursor` starts as array.data. False at the end. An item may be an
 * array itself and is walked in the same way. */
bool sl_gguf_array_next(const sl_gguf_value *array, const unsigned char **cursor, sl_gguf_value *item);

size_t sl_gguf_tensor_count(const sl_gguf *gguf);
const sl_tensor *sl_gguf_tensor_at(const sl_gguf *gguf, size_t index); /* shapes already reversed: outermost first */
const sl_tensor *sl_gguf_tensor(const sl_gguf *gguf, const char *name); /* NULL: absent */

#endif
