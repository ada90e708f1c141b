/* SHA-256 (libsodium) over memory and files. */
#ifndef SL_BASE_SHA256_H
#define SL_BASE_SHA256_H

#include "sllm.h"

void sl_sha256_hex(const void *data, size_t size, char hex[65]);
/* on_progress may be NULL; false cancels (SLLM_ERROR_CANCELLED). */
sllm_status sl_sha256_file(const char *path, char hex[65],
                           bool (*on_progress)(void *user, uint64_t done, uint64_t total), void *user,
                           sllm_error *error);

/* Of what descriptor fd still holds. on_data may be NULL; it sees each piece, and false cancels. name: for messages. */
sllm_status sl_sha256_read(int fd, const char *name, char hex[65],
                           bool (*on_data)(void *user, const void *data, size_t size), void *user, sllm_error *error);

#endif
