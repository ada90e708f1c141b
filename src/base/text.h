/* Small questions about NUL-terminated text. */
#ifndef SL_BASE_TEXT_H
#define SL_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool sl_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* A file name with something before its extension: ".lock" alone has none. */
static inline bool sl_has_extension(const char *name, const char *extension) {
    return strlen(name) > strlen(extension) && sl_ends_with(name, extension);
}

#endif
