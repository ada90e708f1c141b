/* Filling the caller's error record. */
#ifndef SL_BASE_ERROR_H
#define SL_BASE_ERROR_H

#include "sllm.h"

#include <stdarg.h>

/* Writes status and the formatted one-line message into *error (NULL allowed) and returns status, so that
 * `return sl_fail(error, SLLM_ERROR_FORMAT, "...")` is the one way to fail. */
sllm_status sl_fail(sllm_error *error, sllm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "out of memory" while doing `what`, for `bytes` bytes (0: not said). */
sllm_status sl_fail_memory(sllm_error *error, const char *what, size_t bytes);
/* errno's text for `path` while doing `what` ("open", "read", "map", ...). ENOENT becomes SLLM_ERROR_NOT_FOUND. */
sllm_status sl_fail_errno(sllm_error *error, const char *what, const char *path);
/* Puts "format: " before the message that is there. Keeps the status, which it returns. */
sllm_status sl_error_prefix(sllm_error *error, sllm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
