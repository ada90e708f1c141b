#include "base/sha256.h"

#include "base/error.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void to_hex(const unsigned char digest[crypto_hash_sha256_BYTES], char hex[65]) {
    sodium_bin2hex(hex, 65, digest, crypto_hash_sha256_BYTES);
}

void sl_sha256_hex(const void *data, size_t size, char hex[65]) {
    unsigned char digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, data, size);
    to_hex(digest, hex);
}

sllm_status sl_sha256_file(const char *path, char hex[65],
                           bool (*on_progress)(void *user, uint64_t done, uint64_t total), void *user,
                           sllm_error *error) {
    enum { CHUNK = 1 << 20 };
    unsigned char digest[crypto_hash_sha256_BYTES], *chunk = NULL;
    crypto_hash_sha256_state state;
    uint64_t done = 0, total;
    sllm_status status = SLLM_OK;
    FILE *file = fopen(path, "rbe");
    if (!file) return sl_fail_errno(error, "open", path);
    fseek(file, 0, SEEK_END);
    total = (uint64_t)ftell(file);
    rewind(file);
    if (!(chunk = malloc(CHUNK))) status = sl_fail_memory(error, "checksum", CHUNK);
    crypto_hash_sha256_init(&state);
    for (size_t n; !status && (n = fread(chunk, 1, CHUNK, file)) > 0;) {
        crypto_hash_sha256_update(&state, chunk, n);
        done += n;
        if (on_progress && !on_progress(user, done, total))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "%s: checksum cancelled", path);
    }
    if (!status && ferror(file)) status = sl_fail_errno(error, "read", path);
    crypto_hash_sha256_final(&state, digest);
    if (!status) to_hex(digest, hex);
    free(chunk);
    fclose(file);
    return status;
}

sllm_status sl_sha256_read(int fd, const char *name, char hex[65],
                           bool (*on_data)(void *user, const void *data, size_t size), void *user, sllm_error *error) {
    enum { CHUNK = 1 << 18 };
    unsigned char digest[crypto_hash_sha256_BYTES], *chunk = malloc(CHUNK);
    crypto_hash_sha256_state state;
    sllm_status status = SLLM_OK;
    ssize_t n = 1;
    if (!chunk) return sl_fail_memory(error, "checksum", CHUNK);
    crypto_hash_sha256_init(&state);
    while (!status && n != 0) {
        n = read(fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            status = sl_fail_errno(error, "read", name);
            break;
        }
        crypto_hash_sha256_update(&state, chunk, (unsigned long long)n);
        if (on_data && !on_data(user, chunk, (size_t)n))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "%s: checksum cancelled", name);
    }
    crypto_hash_sha256_final(&state, digest);
    if (!status) to_hex(digest, hex);
    free(chunk);
    return status;
}
