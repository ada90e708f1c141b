/* Builds small GGUF files in memory, valid ones and ones that lie. For tests only.
 *
 *     gguf_builder b = {0};
 *     gguf_put_string(&b, "general.architecture", "llama");
 *     gguf_add_tensor(&b, "token_embd.weight", 0, 2, (uint64_t[]){4, 3}, values, sizeof values);
 *     size_t size;
 *     unsigned char *file = gguf_build(&b, &size);   // malloc'd to exactly `size`: a sanitizer sees reads past it
 */
#ifndef TESTS_GGUF_BUILDER_H
#define TESTS_GGUF_BUILDER_H

#include "base/buffer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gguf_builder {
    uint32_t version;            /* 0: 3 */
    uint64_t alignment;          /* 0: 32. The caller puts general.alignment itself where it differs */
    uint64_t n_entries, n_tensors;
    uint64_t claim_entries, claim_tensors; /* != 0: written to the header in place of the truth */
    sl_buffer entries, infos, data;
} gguf_builder;

enum { GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_U64,
       GGUF_I64, GGUF_F64 };

__attribute__((unused)) static void gguf_bytes(sl_buffer *out, const void *data, size_t size) {
    if (!sl_buffer_append(out, data, size)) abort(); /* a test without memory cannot go on */
}

__attribute__((unused)) static void gguf_number(sl_buffer *out, uint64_t value, size_t size) {
    gguf_bytes(out, &value, size); /* little-endian machines only, as the format */
}

__attribute__((unused)) static void gguf_text(sl_buffer *out, const void *text, size_t length) {
    gguf_number(out, length, 8);
    gguf_bytes(out, text, length);
}

/* A metadata entry with its value as raw bytes. */
__attribute__((unused)) static void gguf_put(gguf_builder *b, const char *key, uint32_t type, const void *value,
                                             size_t size) {
    gguf_text(&b->entries, key, strlen(key));
    gguf_number(&b->entries, type, 4);
    gguf_bytes(&b->entries, value, size);
    b->n_entries++;
}

#define GGUF_PUT(name, ctype, gguf_type) \
    __attribute__((unused)) static void gguf_put_##name(gguf_builder *b, const char *key, ctype value) { \
        gguf_put(b, key, gguf_type, &value, sizeof value); \
    }
GGUF_PUT(u8, uint8_t, GGUF_U8)
GGUF_PUT(i8, int8_t, GGUF_I8)
GGUF_PUT(u16, uint16_t, GGUF_U16)
GGUF_PUT(i16, int16_t, GGUF_I16)
GGUF_PUT(u32, uint32_t, GGUF_U32)
GGUF_PUT(i32, int32_t, GGUF_I32)
GGUF_PUT(u64, uint64_t, GGUF_U64)
GGUF_PUT(i64, int64_t, GGUF_I64)
GGUF_PUT(f32, float, GGUF_F32)
GGUF_PUT(f64, double, GGUF_F64)
GGUF_PUT(bool, bool, GGUF_BOOL)
#undef GGUF_PUT

__attribute__((unused)) static void gguf_put_string(gguf_builder *b, const char *key, const char *value) {
    sl_buffer raw = {0};
    gguf_text(&raw, value, strlen(value));
    gguf_put(b, key, GGUF_STRING, raw.data, raw.length);
    sl_buffer_free(&raw);
}

/* An array of `count` items given as raw bytes; `count` may lie. */
__attribute__((unused)) static void gguf_put_array(gguf_builder *b, const char *key, uint32_t item_type, uint64_t count,
                                                   const void *items, size_t size) {
    sl_buffer raw = {0};
    gguf_number(&raw, item_type, 4);
    gguf_number(&raw, count, 8);
    gguf_bytes(&raw, items, size);
    gguf_put(b, key, GGUF_ARRAY, raw.data, raw.length);
    sl_buffer_free(&raw);
}

__attribute__((unused)) static void gguf_put_strings(gguf_builder *b, const char *key, const char *const *items,
                                                     size_t count) {
    sl_buffer raw = {0};
    for (size_t i = 0; i < count; i++) gguf_text(&raw, items[i], strlen(items[i]));
    gguf_put_array(b, key, GGUF_STRING, count, raw.data, raw.length);
    sl_buffer_free(&raw);
}

/* A tensor's description alone; dims innermost first, as the file has them. */
__attribute__((unused)) static void gguf_describe_tensor(gguf_builder *b, const char *name, uint32_t ggml_type,
                                                         uint32_t n_dims, const uint64_t *dims, uint64_t offset) {
    gguf_text(&b->infos, name, strlen(name));
    gguf_number(&b->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) gguf_number(&b->infos, dims[i], 8);
    gguf_number(&b->infos, ggml_type, 4);
    gguf_number(&b->infos, offset, 8);
    b->n_tensors++;
}

__attribute__((unused)) static void gguf_pad(gguf_builder *b, sl_buffer *out) {
    while (out->length % (b->alignment ? b->alignment : 32)) gguf_number(out, 0, 1);
}

__attribute__((unused)) static void gguf_add_tensor(gguf_builder *b, const char *name, uint32_t ggml_type,
                                                    uint32_t n_dims, const uint64_t *dims, const void *data,
                                                    size_t size) {
    gguf_pad(b, &b->data);
    gguf_describe_tensor(b, name, ggml_type, n_dims, dims, b->data.length);
    gguf_bytes(&b->data, data, size);
}

/* The file's bytes; frees what the builder holds. */
__attribute__((unused)) static unsigned char *gguf_build(gguf_builder *b, size_t *size) {
    sl_buffer out = {0};
    gguf_bytes(&out, "GGUF", 4);
    gguf_number(&out, b->version ? b->version : 3, 4);
    gguf_number(&out, b->claim_tensors ? b->claim_tensors : b->n_tensors, 8);
    gguf_number(&out, b->claim_entries ? b->claim_entries : b->n_entries, 8);
    gguf_bytes(&out, b->entries.data, b->entries.length);
    gguf_bytes(&out, b->infos.data, b->infos.length);
    if (b->n_tensors) gguf_pad(b, &out);
    gguf_bytes(&out, b->data.data, b->data.length);
    unsigned char *exact = malloc(out.length);
    if (!exact) abort();
    memcpy(exact, out.data, out.length);
    *size = out.length;
    sl_buffer_free(&out);
    sl_buffer_free(&b->entries);
    sl_buffer_free(&b->infos);
    sl_buffer_free(&b->data);
    *b = (gguf_builder){0};
    return exact;
}

__attribute__((unused)) static void gguf_build_file(gguf_builder *b, const char *path) {
    size_t size;
    unsigned char *data = gguf_build(b, &size);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
    free(data);
}

#endif
