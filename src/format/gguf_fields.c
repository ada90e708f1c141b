/* Metadata of a GGUF file being put together. */
#include "format/gguf_write.h"

#include <string.h>

static void put_u32(sl_buffer *out, uint32_t value) { sl_buffer_append(out, &value, 4); }
static void put_u64(sl_buffer *out, uint64_t value) { sl_buffer_append(out, &value, 8); }

static void put_text(sl_buffer *out, const char *text, size_t length) {
    put_u64(out, length);
    sl_buffer_append(out, text, length);
}

static void begin(sl_gguf_fields *fields, const char *key, sl_gguf_type type) {
    put_text(&fields->bytes, key, strlen(key));
    put_u32(&fields->bytes, (uint32_t)type);
    fields->count++;
}

static void begin_array(sl_gguf_fields *fields, const char *key, sl_gguf_type type, uint64_t count) {
    begin(fields, key, SL_GGUF_ARRAY);
    put_u32(&fields->bytes, (uint32_t)type);
    put_u64(&fields->bytes, count);
}

void sl_gguf_put_u16(sl_gguf_fields *fields, const char *key, uint16_t value) {
    begin(fields, key, SL_GGUF_U16);
    sl_buffer_append(&fields->bytes, &value, 2);
}

void sl_gguf_put_u32(sl_gguf_fields *fields, const char *key, uint32_t value) {
    begin(fields, key, SL_GGUF_U32);
    put_u32(&fields->bytes, value);
}

void sl_gguf_put_i32(sl_gguf_fields *fields, const char *key, int32_t value) {
    begin(fields, key, SL_GGUF_I32);
    put_u32(&fields->bytes, (uint32_t)value);
}

void sl_gguf_put_u64(sl_gguf_fields *fields, const char *key, uint64_t value) {
    begin(fields, key, SL_GGUF_U64);
    put_u64(&fields->bytes, value);
}

void sl_gguf_put_f32(sl_gguf_fields *fields, const char *key, float value) {
    begin(fields, key, SL_GGUF_F32);
    sl_buffer_append(&fields->bytes, &value, 4);
}

void sl_gguf_put_bool(sl_gguf_fields *fields, const char *key, bool value) {
    begin(fields, key, SL_GGUF_BOOL);
    sl_buffer_putc(&fields->bytes, value ? 1 : 0);
}

void sl_gguf_put_string(sl_gguf_fields *fields, const char *key, const char *text, size_t length) {
    begin(fields, key, SL_GGUF_STRING);
    put_text(&fields->bytes, text, length);
}

void sl_gguf_put_strings(sl_gguf_fields *fields, const char *key, const char *const *items, const size_t *lengths,
                         size_t count) {
    begin_array(fields, key, SL_GGUF_STRING, count);
    for (size_t i = 0; i < count; i++) put_text(&fields->bytes, items[i], lengths ? lengths[i] : strlen(items[i]));
}

void sl_gguf_put_i32s(sl_gguf_fields *fields, const char *key, const int32_t *items, size_t count) {
    begin_array(fields, key, SL_GGUF_I32, count);
    sl_buffer_append(&fields->bytes, items, count * sizeof *items);
}

void sl_gguf_put_f32s(sl_gguf_fields *fields, const char *key, const float *items, size_t count) {
    begin_array(fields, key, SL_GGUF_F32, count);
    sl_buffer_append(&fields->bytes, items, count * sizeof *items);
}

void sl_gguf_put_bools(sl_gguf_fields *fields, const char *key, const bool *items, size_t count) {
    begin_array(fields, key, SL_GGUF_BOOL, count);
    for (size_t i = 0; i < count; i++) sl_buffer_putc(&fields->bytes, items[i] ? 1 : 0);
}

void sl_gguf_put_value(sl_gguf_fields *fields, const char *key, const sl_gguf_value *value) {
    float single = 0;
    uint32_t item;
    switch (value->type) {
    case SL_GGUF_STRING:
        sl_gguf_put_string(fields, key, value->string.data, value->string.length);
        return;
    case SL_GGUF_ARRAY: /* the items stand in the source as they will stand here */
        item = (uint32_t)value->array.type;
        begin(fields, key, SL_GGUF_ARRAY);
        put_u32(&fields->bytes, item);
        put_u64(&fields->bytes, value->array.count);
        sl_buffer_append(&fields->bytes, value->array.data, (size_t)(value->array.end - value->array.data));
        return;
    default: break;
    }
    static const uint8_t widths[] = {[SL_GGUF_U8] = 1, [SL_GGUF_I8] = 1, [SL_GGUF_U16] = 2, [SL_GGUF_I16] = 2,
                                     [SL_GGUF_U32] = 4, [SL_GGUF_I32] = 4, [SL_GGUF_F32] = 4, [SL_GGUF_BOOL] = 1,
                                     [SL_GGUF_U64] = 8, [SL_GGUF_I64] = 8, [SL_GGUF_F64] = 8};
    begin(fields, key, value->type);
    single = (float)value->f;
    if (value->type == SL_GGUF_F32) sl_buffer_append(&fields->bytes, &single, 4);
    else sl_buffer_append(&fields->bytes, &value->u, widths[value->type]); /* little-endian: the low bytes */
}

void sl_gguf_fields_free(sl_gguf_fields *fields) {
    sl_buffer_free(&fields->bytes);
    fields->count = 0;
}
