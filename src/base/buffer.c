#include "base/buffer.h"

#include "base/checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool sl_buffer_reserve(sl_buffer *buffer, size_t extra) {
    size_t needed;
    if (buffer->failed) return false;
    if (!sl_add_size(buffer->length, extra, &needed) || (buffer->limit && needed > buffer->limit) ||
        !sl_add_size(needed, 1, &needed))
        return !(buffer->failed = true);
    if (needed <= buffer->capacity) return true;
    size_t capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
    while (capacity < needed) capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    char *data = realloc(buffer->data, capacity);
    if (!data) return !(buffer->failed = true);
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool sl_buffer_append(sl_buffer *buffer, const void *data, size_t length) {
    if (!sl_buffer_reserve(buffer, length)) return false;
    if (length) memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    buffer->data[buffer->length] = 0;
    return true;
}

bool sl_buffer_puts(sl_buffer *buffer, const char *text) { return sl_buffer_append(buffer, text, strlen(text)); }

bool sl_buffer_putc(sl_buffer *buffer, char c) { return sl_buffer_append(buffer, &c, 1); }

bool sl_buffer_printf(sl_buffer *buffer, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    bool ok = length >= 0 && sl_buffer_reserve(buffer, (size_t)length);
    if (ok) {
        vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    } else {
        buffer->failed = true;
    }
    va_end(again);
    return ok;
}

char *sl_buffer_take(sl_buffer *buffer, size_t *length) {
    char *data = NULL;
    if (sl_buffer_reserve(buffer, 0)) { /* an empty buffer still gives an empty string */
        data = buffer->data;
        data[buffer->length] = 0;
        if (length) *length = buffer->length;
    } else {
        free(buffer->data);
        if (length) *length = 0;
    }
    size_t limit = buffer->limit;
    *buffer = (sl_buffer){.limit = limit};
    return data;
}

void sl_buffer_free(sl_buffer *buffer) {
    free(buffer->data);
    *buffer = (sl_buffer){.limit = buffer->limit};
}
