#include "format/gguf_write.h"

#include "base/error.h"
#include "base/file.h"
#include "base/map.h"
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALIGNMENT = 32, MAX_PARTS = 99999 };

/* One file of the result. */
typedef struct part {
    char *name, *temporary;  /* final, and while it grows */
    size_t first, count;     /* tensors */
    sl_buffer header;        /* all before the first tensor's data, padding included */
    uint64_t bytes;          /* of the whole file */
} part;

struct sl_gguf_writer {
    char *path;
    const sl_gguf_claim *claim; /* NULL: no journal */
    part *parts;
    size_t n_parts;
    uint64_t *sizes;         /* [count] bytes of each tensor */
    size_t count;
    size_t at;               /* the tensor that is being written, and its part */
    size_t part_at;
    uint64_t left;           /* of its bytes */
    int fd;
    size_t n_finished;
    sllm_status failed;
};

static uint64_t padded(uint64_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* ---------------------------------------------------------------- the journal */

/* First a line that says what is being written, then a dot for each finished tensor. What a crash of the machine left
 * is not taken up: the journal may then be ahead of the data. */
static void describe(const sl_gguf_writer *w, const char *recipe, sl_buffer *line) {
    char hex[65], boot[64] = "?";
    sl_buffer all = {0};
    for (size_t i = 0; i < w->n_parts; i++) sl_buffer_append(&all, w->parts[i].header.data, w->parts[i].header.length);
    sl_buffer_puts(&all, recipe ? recipe : "");
    sl_sha256_hex(all.data, all.length, hex);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file && fscanf(file, "%63s", boot) != 1) boot[0] = 0;
    if (file) fclose(file);
    if (all.failed) line->failed = true;
    sl_buffer_printf(line, "sllm unfinished GGUF %s %s\n", hex, boot);
    sl_buffer_free(&all);
}

/* How many tensors an earlier run finished of exactly this; the journal then goes on, otherwise, and without a recipe, it
 * begins anew. */
static sllm_status open_journal(sl_gguf_writer *w, const char *recipe, sllm_error *error) {
    sl_buffer line = {0}, there = {0};
    char bytes[4096];
    ssize_t n;
    int fd = w->claim->fd;
    sllm_status status = SLLM_OK;
    describe(w, recipe, &line);
    if (lseek(fd, 0, SEEK_SET) < 0) status = sl_fail_errno(error, "read", w->claim->journal);
    while (!status && (n = read(fd, bytes, sizeof bytes)) > 0) sl_buffer_append(&there, bytes, (size_t)n);
    if (!status && (line.failed || there.failed)) status = sl_fail_memory(error, w->claim->journal, 0);
    if (!status && recipe && there.length >= line.length && !memcmp(there.data, line.data, line.length))
        w->n_finished = there.length - line.length < w->count ? there.length - line.length : w->count;
    else if (!status && (ftruncate(fd, 0) < 0 || pwrite(fd, line.data, line.length, 0) != (ssize_t)line.length || lseek(fd, 0, SEEK_END) < 0))
        status = sl_fail_errno(error, "write", w->claim->journal);
    sl_buffer_free(&line);
    sl_buffer_free(&there);
    return status;
}

/* ---------------------------------------------------------------- the claim */

/* A folder or a device under the final name, or a file that may not be written, is refused before hours of work. */
static sllm_status check_target(const char *name, sllm_error *error) {
    struct stat s;
    if (stat(name, &s) < 0) return SLLM_OK;
    if (!S_ISREG(s.st_mode))
        return sl_fail(error, SLLM_ERROR_IO, "cannot write %s: it is there and is no regular file", name);
    return access(name, W_OK) < 0 ? sl_fail_errno(error, "write", name) : SLLM_OK;
}

/* The journal under its name, locked. One that its last owner removed while this run waited to open it is not under its
 * name any more. */
static sllm_status lock_journal(sl_gguf_claim *claim, sllm_error *error) {
    for (int i = 0; i < 100; i++) {
        struct stat ours, named;
        claim->fd = open(claim->journal, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (claim->fd < 0) return sl_fail_errno(error, "write", claim->path);
        if (flock(claim->fd, LOCK_EX | LOCK_NB) < 0) break;
        if (!fstat(claim->fd, &ours) && !stat(claim->journal, &named) && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev)
            return SLLM_OK;
        close(claim->fd);
        claim->fd = -1;
    }
    if (claim->fd >= 0) close(claim->fd);
    claim->fd = -1;
    return sl_fail(error, SLLM_ERROR_IO, "%s: another run is writing this file", claim->path);
}

sllm_status sl_gguf_claim_take(const char *path, bool is_split, sl_gguf_claim *claim, sllm_error *error) {
    *claim = (sl_gguf_claim){.fd = -1, .path = strdup(path)};
    sllm_status status = claim->path ? SLLM_OK : sl_fail_memory(error, path, 0);
    if (!status && !is_split) status = check_target(path, error);
    if (!status && !is_split) status = sl_path_target(path, &claim->target, error);
    if (!status && is_split && !(claim->target = strdup(path))) status = sl_fail_memory(error, path, 0);
    size_t size = claim->target ? strlen(claim->target) + sizeof ".part.journal" : 0;
    if (!status && !(claim->journal = malloc(size))) status = sl_fail_memory(error, path, size);
    if (!status) {
        snprintf(claim->journal, size, "%s.part.journal", claim->target);
        status = lock_journal(claim, error);
    }
    if (status) sl_gguf_claim_drop(claim);
    return status;
}

void sl_gguf_claim_drop(sl_gguf_claim *claim) {
    struct stat s;
    if (claim->journal && claim->fd >= 0) {
        if (!fstat(claim->fd, &s) && !s.st_size && s.st_nlink) unlink(claim->journal); /* nothing was begun */
        close(claim->fd);
    }
    free(claim->path);
    free(claim->target);
    free(claim->journal);
    *claim = (sl_gguf_claim){.fd = -1};
}

/* ---------------------------------------------------------------- headers */

static void put_tensor(sl_buffer *out, const sl_tensor *t, uint64_t offset) {
    uint64_t length = strlen(t->name);
    uint32_t n_dims = (uint32_t)t->n_dims, type = (uint32_t)sl_type_get(t->type)->ggml_id;
    sl_buffer_append(out, &length, 8);
    sl_buffer_append(out, t->name, length);
    sl_buffer_append(out, &n_dims, 4);
    for (int d = t->n_dims; d-- > 0;) sl_buffer_append(out, &t->shape[d], 8);
    sl_buffer_append(out, &type, 4);
    sl_buffer_append(out, &offset, 8);
}

static void put_split(sl_gguf_fields *fields, size_t index, size_t n_parts, size_t count) {
    sl_gguf_put_u16(fields, "split.no", (uint16_t)index);
    sl_gguf_put_u16(fields, "split.count", (uint16_t)n_parts);
    sl_gguf_put_i32(fields, "split.tensors.count", (int32_t)count);
}

static sllm_status build_header(sl_gguf_writer *w, size_t index, const sl_gguf_fields *fields, const sl_tensor *tensors,
                                sllm_error *error) {
    part *p = &w->parts[index];
    sl_gguf_fields all = {0};
    if (index == 0) {
        sl_buffer_append(&all.bytes, fields->bytes.data, fields->bytes.length);
        all.count = fields->count;
    }
    if (w->n_parts > 1) put_split(&all, index, w->n_parts, w->count);
    uint32_t version = 3;
    uint64_t n = p->count, offset = 0;
    sl_buffer_puts(&p->header, "GGUF");
    sl_buffer_append(&p->header, &version, 4);
    sl_buffer_append(&p->header, &n, 8);
    sl_buffer_append(&p->header, &all.count, 8);
    sl_buffer_append(&p->header, all.bytes.data, all.bytes.length);
    for (size_t i = p->first; i < p->first + p->count; i++) {
        put_tensor(&p->header, &tensors[i], offset);
        offset += padded(w->sizes[i]);
    }
    while (!p->header.failed && p->header.length % ALIGNMENT) sl_buffer_putc(&p->header, 0);
    p->bytes = p->header.length + offset;
    bool failed = p->header.failed || all.bytes.failed;
    sl_gguf_fields_free(&all);
    return failed ? sl_fail_memory(error, "the header of a GGUF file", 0) : SLLM_OK;
}

/* What a part's header takes before its tensors are described; `metadata`: of the model, in the first part only. */
static uint64_t least_header(uint64_t metadata) {
    sl_gguf_fields fields = {0};
    put_split(&fields, 0, 0, 0);
    uint64_t bytes = 24 + metadata + fields.bytes.length + ALIGNMENT;
    sl_gguf_fields_free(&fields);
    return bytes;
}

/* Which tensors go to which part: as many as fit it, with their descriptions. */
static sllm_status divide(sl_gguf_writer *w, const sl_tensor *tensors, uint64_t metadata, uint64_t split_bytes, sllm_error *error) {
    uint64_t used = least_header(metadata);
    w->parts = calloc(split_bytes && w->count ? w->count : 1, sizeof *w->parts);
    if (!w->parts) return sl_fail_memory(error, "the parts of a GGUF file", 0);
    w->n_parts = 1;
    for (size_t i = 0; i < w->count; i++) {
        part *p = &w->parts[w->n_parts - 1];
        uint64_t bytes = padded(w->sizes[i]) + 24 + strlen(tensors[i].name) + 8 * (uint64_t)tensors[i].n_dims;
        if (split_bytes && p->count && used + bytes > split_bytes) {
            p = &w->parts[w->n_parts++];
            p->first = i;
            used = least_header(0);
        }
        p->count++;
        used += bytes;
    }
    if (w->n_parts <= MAX_PARTS && w->n_parts <= UINT16_MAX) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: would take %zu parts; choose larger ones", w->path, w->n_parts);
}

static sllm_status name_parts(sl_gguf_writer *w, sllm_error *error) {
    static const char suffix[] = ".gguf";
    const char *path = w->claim ? w->claim->target : w->path;
    size_t length = strlen(path), stem = length, size = length + 48;
    if (length >= sizeof suffix - 1 && !strcmp(path + length - (sizeof suffix - 1), suffix)) stem -= sizeof suffix - 1;
    for (size_t i = 0; i < w->n_parts; i++) {
        part *p = &w->parts[i];
        p->name = malloc(size);
        p->temporary = malloc(size + 8);
        if (!p->name || !p->temporary) return sl_fail_memory(error, w->path, size);
        if (w->n_parts == 1) snprintf(p->name, size, "%s", path);
        else snprintf(p->name, size, "%.*s-%05zu-of-%05zu.gguf", (int)stem, path, i + 1, w->n_parts);
        snprintf(p->temporary, size + 8, "%s.part", p->name);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- files */

static sllm_status write_fully(sl_gguf_writer *w, const void *data, size_t size, sllm_error *error) {
    const char *at = data, *name = w->parts[w->part_at].name;
    while (size) {
        ssize_t n = write(w->fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && w->claim && w->n_finished) {
            return w->failed = sl_fail(error, SLLM_ERROR_IO, "cannot write %s: %s; %s keeps what is finished, and the same "
                                       "command goes on from there", name, strerror(errno),
                                       w->parts[w->part_at].temporary);
        }
        if (n < 0) return w->failed = sl_fail_errno(error, "write", name);
        at += n;
        size -= (size_t)n;
    }
    return SLLM_OK;
}

/* Opens the file of the current part; `offset` > 0: as an earlier run left it, cut there. */
static sllm_status open_part(sl_gguf_writer *w, uint64_t offset, sllm_error *error) {
    const part *p = &w->parts[w->part_at];
    w->fd = open(p->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | (offset ? 0 : O_TRUNC), 0666);
    if (w->fd < 0) return w->failed = sl_fail_errno(error, "write", p->name);
    if (!offset) return write_fully(w, p->header.data, p->header.length, error);
    if (ftruncate(w->fd, (off_t)offset) < 0 || lseek(w->fd, (off_t)offset, SEEK_SET) < 0)
        return w->failed = sl_fail_errno(error, "write", p->name);
    return SLLM_OK;
}

static uint64_t offset_of(const sl_gguf_writer *w, const part *p, size_t tensor) {
    uint64_t offset = p->header.length;
    for (size_t i = p->first; i < tensor; i++) offset += padded(w->sizes[i]);
    return offset;
}

/* Are the parts of an earlier run as long as its journal says? */
static bool is_intact(const sl_gguf_writer *w) {
    struct stat s;
    for (size_t i = 0; i < w->n_parts && w->parts[i].first < w->n_finished; i++) {
        const part *p = &w->parts[i];
        size_t end = p->first + p->count < w->n_finished ? p->first + p->count : w->n_finished;
        if (stat(p->temporary, &s) < 0 || !S_ISREG(s.st_mode) || (uint64_t)s.st_size < offset_of(w, p, end)) return false;
    }
    return true;
}

static sllm_status close_part(sl_gguf_writer *w, sllm_error *error) {
    int fd = w->fd;
    w->fd = -1;
    bool failed = fsync(fd) < 0;
    if (close(fd) < 0 || failed) return w->failed = sl_fail_errno(error, "write", w->parts[w->part_at].name);
    return SLLM_OK;
}

/* Moves on to the next tensor that has bytes, and to its part. */
static sllm_status advance(sl_gguf_writer *w, sllm_error *error) {
    sllm_status status = SLLM_OK;
    while (!status && w->at < w->count && !w->left) {
        static const char zeros[ALIGNMENT];
        status = write_fully(w, zeros, (size_t)(padded(w->sizes[w->at]) - w->sizes[w->at]), error);
        if (status) break;
        w->at++;
        w->n_finished = w->at;
        if (w->claim && write(w->claim->fd, ".", 1) != 1) status = w->failed = sl_fail_errno(error, "write", w->claim->journal);
        const part *p = &w->parts[w->part_at];
        if (status || w->at == w->count) break;
        if (w->at >= p->first + p->count) {
            status = close_part(w, error);
            w->part_at++;
            if (!status) status = open_part(w, 0, error);
        }
        w->left = w->sizes[w->at];
    }
    return status;
}

/* ---------------------------------------------------------------- the whole */

static sllm_status measure(sl_gguf_writer *w, const sl_tensor *tensors, sllm_error *error) {
    sl_map names = {.seed = 1};
    sllm_status status = SLLM_OK;
    uint64_t other;
    w->sizes = calloc(w->count ? w->count : 1, sizeof *w->sizes);
    if (!w->sizes || !sl_map_reserve(&names, w->count)) status = sl_fail_memory(error, "the list of tensors", 0);
    for (size_t i = 0; i < w->count && !status; i++) {
        const sl_tensor *t = &tensors[i];
        uint64_t columns = t->n_dims ? (uint64_t)t->shape[t->n_dims - 1] : 1, n = 1;
        for (int d = 0; d < t->n_dims; d++) n *= (uint64_t)t->shape[d];
        const sl_type_info *info = sl_type_get(t->type);
        if (info->ggml_id < 0 || columns % info->block || !sl_type_bytes(t->type, n, &w->sizes[i]))
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor %s: a GGUF file cannot hold it as %s", t->name, info->name);
        else if (t->n_dims > 4 || sl_map_get(&names, t->name, strlen(t->name), &other))
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "tensor %s: %s", t->name,
                             t->n_dims > 4 ? "has more than four dimensions" : "is there twice");
        else if (!sl_map_put(&names, t->name, strlen(t->name), i)) status = sl_fail_memory(error, t->name, 0);
    }
    sl_map_free(&names);
    return status;
}

static sllm_status check_source(const sl_gguf_writer *w, const sl_gguf *source, sllm_error *error) {
    const char *path;
    for (size_t i = 0; source && i < w->n_parts; i++)
        for (size_t k = 0; (path = sl_gguf_path(source, k)); k++)
            if (sl_path_is_same(w->parts[i].name, path))
                return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: is the source itself, which would be replaced: give another name",
                               w->parts[i].name);
    return SLLM_OK;
}

static sllm_status start(sl_gguf_writer *w, const sl_gguf_writer_params *params, sllm_error *error) {
    const char *recipe = params->recipe;
    sllm_status status = check_source(w, params->source, error);
    for (size_t i = 0; i < w->n_parts && !status; i++) status = check_target(w->parts[i].name, error);
    if (!status && w->claim) status = open_journal(w, recipe, error);
    if (!status && w->n_finished && !is_intact(w)) { /* the files are gone, or somebody cut them */
        w->n_finished = 0;
        if (ftruncate(w->claim->fd, 0) < 0) return w->failed = sl_fail_errno(error, "write", w->claim->journal);
        status = open_journal(w, recipe, error);
    }
    if (status) return w->failed = status;
    w->at = w->n_finished;
    while (w->part_at + 1 < w->n_parts && w->at >= w->parts[w->part_at + 1].first) w->part_at++;
    if (w->at < w->count) w->left = w->sizes[w->at];
    const part *p = &w->parts[w->part_at];
    status = open_part(w, w->at > p->first ? offset_of(w, p, w->at) : 0, error);
    return status || !w->count || w->left ? status : advance(w, error);
}

static void release(sl_gguf_writer *w) {
    if (w->fd >= 0) close(w->fd);
    for (size_t i = 0; w->parts && i < w->n_parts; i++) {
        free(w->parts[i].name);
        free(w->parts[i].temporary);
        sl_buffer_free(&w->parts[i].header);
    }
    free(w->parts);
    free(w->sizes);
    free(w->path);
    free(w);
}

sllm_status sl_gguf_writer_new(const char *path, const sl_gguf_fields *fields, const sl_tensor *tensors, size_t count,
                               const sl_gguf_writer_params *params, sl_gguf_writer **writer, size_t *n_done,
                               sllm_error *error) {
    *writer = NULL;
    *n_done = 0;
    sl_gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return sl_fail_memory(error, path, sizeof *w);
    w->fd = -1;
    w->claim = params->claim;
    w->count = count;
    w->path = strdup(path);
    sllm_status status = w->path && !fields->bytes.failed ? measure(w, tensors, error) : sl_fail_memory(error, path, 0);
    if (!status) status = divide(w, tensors, fields->bytes.length, params->split_bytes, error);
    if (!status) status = name_parts(w, error);
    for (size_t i = 0; i < w->n_parts && !status; i++) status = build_header(w, i, fields, tensors, error);
    if (!status) status = start(w, params, error);
    if (status) {
        release(w); /* what another run is writing, or left, is not ours to remove */
        return status;
    }
    *n_done = w->n_finished;
    *writer = w;
    return SLLM_OK;
}

sllm_status sl_gguf_writer_write(sl_gguf_writer *w, const void *data, size_t bytes, sllm_error *error) {
    const char *at = data;
    if (w->failed) return sl_fail(error, w->failed, "%s: an earlier write failed", w->path);
    while (bytes) {
        if (w->at >= w->count)
            return w->failed = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %zu bytes more than the tensors take", w->path, bytes);
        size_t n = w->left < bytes ? (size_t)w->left : bytes;
        sllm_status status = write_fully(w, at, n, error);
        at += n;
        bytes -= n;
        w->left -= n;
        if (!status && !w->left) status = advance(w, error);
        if (status) return w->failed = status;
    }
    return SLLM_OK;
}

sllm_status sl_gguf_writer_finish(sl_gguf_writer *w, sllm_error *error) {
    sllm_status status = w->failed;
    if (status) sl_fail(error, status, "%s: not written, because an earlier write failed", w->path);
    else if (w->at < w->count)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %zu of %zu tensors were not written", w->path, w->count - w->at,
                         w->count);
    else status = close_part(w, error);
    /* The last part first: a split is opened by its first, which then finds the others in place. */
    for (size_t i = w->n_parts; i-- > 0 && !status;)
        if (rename(w->parts[i].temporary, w->parts[i].name) < 0) status = sl_fail_errno(error, "write", w->parts[i].name);
    if (status) {
        sl_gguf_writer_abandon(w, true);
        return status;
    }
    if (w->claim) unlink(w->claim->journal);
    release(w);
    return SLLM_OK;
}

void sl_gguf_writer_abandon(sl_gguf_writer *w, bool keep) {
    if (!w) return;
    if (!keep || !w->claim || !w->n_finished) {
        for (size_t i = 0; i < w->n_parts && i <= w->part_at; i++) unlink(w->parts[i].temporary);
        if (w->claim) unlink(w->claim->journal);
    }
    release(w);
}

uint64_t sl_gguf_writer_bytes(const sl_gguf_writer *w) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->n_parts; i++) bytes += w->parts[i].bytes;
    return bytes;
}
