#include "base/file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* Opens a regular file for reading; a FIFO or device could block or never end. */
static sllm_status open_regular(const char *path, int *descriptor, size_t *size, sllm_error *error) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sl_fail_errno(error, "open", path);
    if (fstat(fd, &status) < 0) {
        sllm_status failed = sl_fail_errno(error, "stat", path);
        close(fd);
        return failed;
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return sl_fail(error, SLLM_ERROR_IO, "%s: not a regular file%s", path,
                       S_ISDIR(status.st_mode) ? " but a folder" : "");
    }
    *descriptor = fd;
    *size = (size_t)status.st_size;
    return SLLM_OK;
}

sllm_status sl_mapping_open(const char *path, sl_mapping *mapping, sllm_error *error) {
    int fd;
    size_t size;
    *mapping = (sl_mapping){0};
    sllm_status status = open_regular(path, &fd, &size, error);
    if (status) return status;
    if (!size) {
        close(fd);
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the file is empty", path);
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) status = sl_fail_errno(error, "map", path);
    else *mapping = (sl_mapping){data, size};
    close(fd);
    return status;
}

void sl_mapping_let_go(const void *data, uint64_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)data + page - 1) & ~(page - 1), to = ((uintptr_t)data + size) & ~(page - 1);
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

void sl_mapping_close(sl_mapping *mapping) {
    if (mapping->data) munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (sl_mapping){0};
}

sllm_status sl_file_read(const char *path, size_t limit, sl_buffer *buffer, sllm_error *error) {
    int fd;
    size_t size;
    sllm_status status = open_regular(path, &fd, &size, error);
    if (status) return status;
    if (size > limit)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: %zu bytes, but at most %zu are expected here", path, size, limit);
    else if (!sl_buffer_reserve(buffer, size))
        status = sl_fail_memory(error, path, size);
    while (!status && size) {
        ssize_t n = read(fd, buffer->data + buffer->length, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = sl_fail_errno(error, "read", path);
        if (n <= 0) break; /* shrunk meanwhile: what is there counts */
        buffer->length += (size_t)n;
        size -= (size_t)n;
    }
    if (!status) buffer->data[buffer->length] = 0;
    close(fd);
    return status;
}

/* One step of unpacking; what it gave is appended. *ended: the member that is being read is complete. */
static sllm_status inflate_step(z_stream *stream, const char *path, sl_buffer *out, bool *ended, sllm_error *error) {
    enum { STEP = 1 << 18 };
    if (!sl_buffer_reserve(out, STEP)) return sl_fail_memory(error, path, STEP);
    stream->next_out = (Bytef *)out->data + out->length;
    stream->avail_out = STEP;
    int code = inflate(stream, Z_NO_FLUSH);
    out->length += STEP - stream->avail_out;
    out->data[out->length] = 0;
    *ended = code == Z_STREAM_END;
    if (code == Z_BUF_ERROR || (code == Z_OK && !stream->avail_in && stream->avail_out))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the gzip data end too early", path);
    if (code == Z_MEM_ERROR) return sl_fail_memory(error, path, 0);
    if (code != Z_OK && !*ended) return sl_fail(error, SLLM_ERROR_FORMAT, "%s: damaged gzip data", path);
    return SLLM_OK;
}

/* A gzip file is one member after another, and its content theirs put together (RFC 1952, section 2.2). */
static sllm_status gunzip(const char *path, const sl_buffer *packed, size_t limit, sl_buffer *out, sllm_error *error) {
    z_stream stream = {.next_in = (Bytef *)packed->data, .avail_in = (uInt)packed->length};
    if (inflateInit2(&stream, 15 + 16) != Z_OK) return sl_fail_memory(error, path, 0);
    sllm_status status = SLLM_OK;
    size_t start = out->length;
    bool ended = false;
    while (!status && !(ended && !stream.avail_in)) {
        if (ended && (stream.avail_in < 2 || memcmp(stream.next_in, "\x1f\x8b", 2)))
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: %u bytes after the gzip data are not gzip data", path,
                             stream.avail_in);
        else if (ended && inflateReset(&stream) != Z_OK) status = sl_fail_memory(error, path, 0);
        if (!status) status = inflate_step(&stream, path, out, &ended, error);
        if (!status && out->length - start > limit)
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: unpacks to more than %zu bytes", path, limit);
    }
    inflateEnd(&stream);
    return status;
}

sllm_status sl_file_read_gz(const char *path, size_t limit, sl_buffer *buffer, sllm_error *error) {
    sl_buffer packed = {0};
    if (limit > UINT32_MAX) limit = UINT32_MAX; /* zlib counts input in 32 bits */
    sllm_status status = sl_file_read(path, limit, &packed, error);
    if (!status && packed.length >= 2 && !memcmp(packed.data, "\x1f\x8b", 2))
        status = gunzip(path, &packed, limit, buffer, error);
    else if (!status && !sl_buffer_append(buffer, packed.data, packed.length))
        status = sl_fail_memory(error, path, packed.length);
    sl_buffer_free(&packed);
    return status;
}

/* A new file beside the target with the mode a user expects. Not mkstemp: its files are private to the user, and
 * undoing that needs the process's umask, which cannot be read without changing it. -1 with errno set on failure. */
static int open_beside(sl_output *output) {
    size_t size = strlen(output->target) + 32;
    int fd = -1;
    output->temporary = malloc(size);
    if (!output->temporary) {
        errno = ENOMEM;
        return -1;
    }
    for (int i = 0; fd < 0 && i < 100; i++) {
        snprintf(output->temporary, size, "%s.%ld-%d.tmp", output->target, (long)getpid(), i);
        fd = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) { /* the name is not ours to remove */
        int number = errno;
        free(output->temporary);
        output->temporary = NULL;
        errno = number;
    }
    return fd;
}

sllm_status sl_path_target(const char *path, char **target, sllm_error *error) {
    struct stat s;
    bool exists = !stat(path, &s);
    *target = NULL;
    if (!exists && !lstat(path, &s)) return sl_fail(error, SLLM_ERROR_IO, "cannot write %s: a symbolic link to nothing", path);
    /* A file that its owner made read-only stays as it is: rename would not ask. */
    if (exists && access(path, W_OK) < 0) return sl_fail_errno(error, "write", path);
    errno = ENOMEM; /* strdup need not say so */
    *target = exists ? realpath(path, NULL) : strdup(path);
    return *target ? SLLM_OK : sl_fail_errno(error, "write", path);
}

static sllm_status open_target(sl_output *output, const char *path, sllm_error *error) {
    struct stat old;
    bool exists = !stat(path, &old), is_direct = exists && !S_ISREG(old.st_mode);
    output->path = strdup(path);
    if (!output->path) return sl_fail_memory(error, path, strlen(path) + 1);
    if (is_direct) { /* a device, a FIFO: a file must not take its place */
        output->descriptor = open(path, O_WRONLY | O_CLOEXEC);
        return output->descriptor < 0 ? sl_fail_errno(error, "write", path) : SLLM_OK;
    }
    sllm_status status = sl_path_target(path, &output->target, error);
    if (status) return status;
    output->descriptor = open_beside(output);
    if (output->descriptor < 0) return sl_fail_errno(error, "write", path);
    if (exists && fchmod(output->descriptor, old.st_mode & 07777) < 0) return sl_fail_errno(error, "write", path);
    return SLLM_OK;
}

sllm_status sl_output_open(sl_output *output, const char *path, sllm_error *error) {
    *output = (sl_output){.descriptor = -1};
    sllm_status status = open_target(output, path, error);
    if (status) sl_output_abandon(output);
    return status;
}

sllm_status sl_output_write(sl_output *output, const void *data, size_t size, sllm_error *error) {
    const char *at = data;
    while (size) {
        ssize_t n = write(output->descriptor, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sl_fail_errno(error, "write", output->path);
        at += n;
        size -= (size_t)n;
    }
    return SLLM_OK;
}

sllm_status sl_output_finish(sl_output *output, sllm_error *error) {
    int fd = output->descriptor;
    bool failed = output->target && fsync(fd) < 0; /* devices and FIFOs know no fsync */
    if (!failed) {
        output->descriptor = -1;
        failed = close(fd) < 0;
    }
    failed = failed || (output->target && rename(output->temporary, output->target) < 0);
    sllm_status status = failed ? sl_fail_errno(error, "write", output->path) : SLLM_OK;
    if (!failed) {
        free(output->temporary);
        output->temporary = NULL; /* nothing to remove */
    }
    sl_output_abandon(output);
    return status;
}

void sl_output_abandon(sl_output *output) {
    if (output->descriptor >= 0) close(output->descriptor);
    if (output->temporary) unlink(output->temporary);
    free(output->temporary);
    free(output->target);
    free(output->path);
    *output = (sl_output){.descriptor = -1};
}

sllm_status sl_file_write(const char *path, const void *data, size_t size, sllm_error *error) {
    sl_output output;
    sllm_status status = sl_output_open(&output, path, error);
    if (status) return status;
    status = sl_output_write(&output, data, size, error);
    if (!status) return sl_output_finish(&output, error);
    sl_output_abandon(&output);
    return status;
}

bool sl_path_is_same(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool sl_path_is_directory(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

bool sl_path_is_file(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISREG(status.st_mode);
}

bool sl_path_join(char *out, size_t size, const char *directory, const char *name) {
    size_t length = strlen(directory);
    const char *slash = length && directory[length - 1] == '/' ? "" : "/";
    int n = snprintf(out, size, "%s%s%s", directory, slash, name);
    return n >= 0 && (size_t)n < size;
}
