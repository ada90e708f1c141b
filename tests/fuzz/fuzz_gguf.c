/* GGUF: opens the bytes as a file and, where that works, reads all that a loader would read. */
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* so that no read is optimised away */

static void touch(const void *data, uint64_t size) {
    for (uint64_t i = 0; i < size; i++) sink += ((const unsigned char *)data)[i];
}

static void walk_value(const sl_gguf_value *value) {
    sl_gguf_value item;
    uint64_t n = 0;
    if (value->type == SL_GGUF_STRING) touch(value->string.data, value->string.length);
    if (value->type != SL_GGUF_ARRAY) return;
    for (const unsigned char *cursor = value->array.data; sl_gguf_array_next(value, &cursor, &item); n++)
        walk_value(&item);
    if (n != value->array.count) abort();
}

static void walk_metadata(const sl_gguf *gguf) {
    for (size_t i = 0; i < sl_gguf_metadata_count(gguf); i++) {
        const char *key, *text;
        sl_gguf_value value;
        int64_t integer;
        double number;
        bool flag;
        size_t length;
        sllm_error error = {0};
        sl_gguf_metadata(gguf, i, &key, &value);
        walk_value(&value);
        if (!sl_gguf_find(gguf, key, &value)) abort();
        sl_gguf_get_int(gguf, key, &integer, &error);
        sl_gguf_get_float(gguf, key, &number, &error);
        sl_gguf_get_bool(gguf, key, &flag, &error);
        if (sl_gguf_get_string(gguf, key, &text, &length, &error)) touch(text, length);
    }
}

/* Reads every byte, and widens the first row. */
static void walk_tensor(const sl_tensor *tensor) {
    const sl_type_info *type = sl_type_get(tensor->type);
    uint64_t row = tensor->n_dims ? (uint64_t)tensor->shape[tensor->n_dims - 1] : 1;
    touch(tensor->data, tensor->bytes);
    float *out = type->to_float && row <= tensor->n_elements && row < 1 << 20 ? malloc(row * sizeof *out) : NULL;
    if (out) type->to_float(tensor->data, out, row);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sl_gguf *gguf;
    sllm_error error = {0};
    if (sl_gguf_open_memory(data, size, &gguf, &error)) {
        if (gguf || !error.message[0]) abort();
        return 0;
    }
    walk_metadata(gguf);
    for (size_t i = 0; i < sl_gguf_tensor_count(gguf); i++) {
        const sl_tensor *tensor = sl_gguf_tensor_at(gguf, i);
        if (sl_gguf_tensor(gguf, tensor->name) != tensor) abort();
        walk_tensor(tensor);
    }
    sl_gguf_close(gguf);
    return 0;
}
