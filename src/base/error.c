#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* One line always: a message that quotes a file's text must not break the terminal or a log. */
static void one_line(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

static void set(sllm_error *error, sllm_status status, const char *format, va_list arguments) {
    error->status = status;
    error->raised = false;
    error->line = 0;
    vsnprintf(error->message, sizeof error->message, format, arguments);
    one_line(error->message);
}

sllm_status sl_fail(sllm_error *error, sllm_status status, const char *format, ...) {
    if (!error) return status;
    va_list arguments;
    va_start(arguments, format);
    set(error, status, format, arguments);
    va_end(arguments);
    return status;
}

sllm_status sl_fail_memory(sllm_error *error, const char *what, size_t bytes) {
    if (bytes) return sl_fail(error, SLLM_ERROR_MEMORY, "out of memory: %s needs %zu bytes", what, bytes);
    return sl_fail(error, SLLM_ERROR_MEMORY, "out of memory: %s", what);
}

sllm_status sl_fail_errno(sllm_error *error, const char *what, const char *path) {
    int number = errno;
    sllm_status status = number == ENOENT || number == ENOTDIR ? SLLM_ERROR_NOT_FOUND
                         : number == ENOMEM                    ? SLLM_ERROR_MEMORY
                                                               : SLLM_ERROR_IO;
    char text[128] = "";
    const char *reason = strerror_r(number, text, sizeof text); /* the GNU form returns the text */
    return sl_fail(error, status, "%s: cannot %s: %s", path, what, reason);
}

sllm_status sl_error_prefix(sllm_error *error, sllm_status status, const char *format, ...) {
    if (!error || status == SLLM_OK) return status;
    char prefix[sizeof error->message], whole[sizeof error->message + sizeof prefix + 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    one_line(prefix);
    snprintf(whole, sizeof whole, "%s: %s", prefix, error->message);
    whole[sizeof error->message - 1] = 0;
    memcpy(error->message, whole, strlen(whole) + 1);
    return status;
}
