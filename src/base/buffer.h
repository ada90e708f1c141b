/* A growing byte buffer. Once an append fails for lack of memory, `failed` stays set and later appends do nothing, so a
 * writer checks once at the end. `data` is always NUL-terminated beyond `length` after the first append. */
#ifndef SL_BASE_BUFFER_H
#define SL_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct sl_buffer {
    char *data;
    size_t length, capacity;
    size_t limit; /* 0: none; growing past it sets `failed` */
    bool failed;
} sl_buffer;

bool sl_buffer_append(sl_buffer *buffer, const void *data, size_t length);
bool sl_buffer_puts(sl_buffer *buffer, const char *text);
bool sl_buffer_putc(sl_buffer *buffer, char c);
bool sl_buffer_printf(sl_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool sl_buffer_reserve(sl_buffer *buffer, size_t extra);
/* Takes the data out (NUL-terminated, the caller frees); NULL when it failed. The buffer is empty afterwards. */
char *sl_buffer_take(sl_buffer *buffer, size_t *length);
void sl_buffer_free(sl_buffer *buffer);

#endif
