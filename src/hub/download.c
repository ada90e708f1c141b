#include "hub/download.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "hub/http.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct transfer {
    sllm_hub *hub;
    sl_download *job;
    char partial[SL_HUB_PATH + 16], etag_path[SL_HUB_PATH + 32];
    int fd;
    uint64_t offset;     /* bytes in the partial file */
    uint64_t furthest;   /* the largest offset reached: going beyond it is progress */
    char etag[256];      /* of what the partial file holds; "" unknown */
    bool began;          /* this answer's first bytes were looked at */
    bool joined;         /* the partial file comes from more than one answer */
    bool start_again;    /* this answer shows that the partial file is of another version */
    sllm_status refused; /* why the body was refused, with its message in *error */
    sllm_error *error;
} transfer;

/* ---------------------------------------------------------------- the partial file */

static sllm_status truncate_partial(transfer *at) {
    at->offset = 0;
    at->joined = false;
    at->etag[0] = 0;
    unlink(at->etag_path);
    if (ftruncate(at->fd, 0) == 0 && lseek(at->fd, 0, SEEK_SET) == 0) return SLLM_OK;
    return sl_fail_errno(at->error, "truncate", at->partial);
}

/* An ETag can stand in If-Range when it is strong (RFC 9110, section 13.1.5). */
static bool is_strong(const char *etag) { return etag[0] == '"'; }

static void read_etag(transfer *at) {
    sl_buffer text = {0};
    at->etag[0] = 0;
    if (!sl_file_read(at->etag_path, sizeof at->etag - 1, &text, NULL) && text.data)
        snprintf(at->etag, sizeof at->etag, "%s", text.data);
    for (const char *c = at->etag; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) at->etag[0] = 0; /* it becomes part of a header */
    sl_buffer_free(&text);
}

static sllm_status open_partial(transfer *at) {
    struct stat info;
    at->fd = open(at->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (at->fd < 0) return sl_fail_errno(at->error, "open", at->partial);
    if (fstat(at->fd, &info) < 0 || !S_ISREG(info.st_mode))
        return sl_fail(at->error, SLLM_ERROR_IO, "%s: not a regular file: remove it", at->partial);
    read_etag(at);
    bool can_prove = is_strong(at->etag) || at->job->sha256[0];
    if (info.st_size == 0 || !can_prove || (uint64_t)info.st_size > at->job->bytes) return truncate_partial(at);
    at->joined = true;
    at->offset = at->furthest = (uint64_t)info.st_size;
    return lseek(at->fd, 0, SEEK_END) < 0 ? sl_fail_errno(at->error, "seek in", at->partial) : SLLM_OK;
}

static sllm_status write_partial(transfer *at, const char *data, size_t n) {
    while (n) {
        ssize_t done = write(at->fd, data, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) {
            bool is_full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
            sl_fail_errno(at->error, "write", at->partial);
            if (is_full)
                sl_fail(at->error, SLLM_ERROR_IO,
                        "%s: no room for more (%llu bytes are kept): make room and pull again", at->partial,
                        (unsigned long long)at->offset);
            return SLLM_ERROR_IO;
        }
        data += done;
        n -= (size_t)done;
        at->offset += (uint64_t)done;
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- an answer */

/* What the hub says of the file when its list did not. */
static void learn(transfer *at, const sl_http_response *response) {
    sl_download *job = at->job;
    if (!job->sha256[0]) snprintf(job->sha256, sizeof job->sha256, "%s", response->linked_sha256);
    if (job->bytes != UINT64_MAX) return;
    job->bytes = response->linked_size;
    if (job->bytes == UINT64_MAX && response->code == 200) job->bytes = response->length;
    if (job->bytes == UINT64_MAX && response->code == 206 && response->has_range) job->bytes = response->range_total;
}

/* Looks at the headers before the first byte is written. False: do not take this body. */
static bool begin(transfer *at, const sl_http_response *response) {
    at->began = true;
    if (response->code == 206) {
        bool same = !at->etag[0] || !response->etag[0] || !strcmp(at->etag, response->etag);
        if (at->offset && response->has_range && response->range_start == at->offset && same) {
            learn(at, response);
            at->joined = true;
            return true;
        }
        at->start_again = true;
        return false;
    }
    /* 200: the whole file, because nothing was there, the version changed, or the server knows no ranges */
    if (at->offset && (at->refused = truncate_partial(at))) return false;
    learn(at, response);
    snprintf(at->etag, sizeof at->etag, "%s", response->etag);
    if (at->etag[0] && (at->refused = sl_file_write(at->etag_path, at->etag, strlen(at->etag), at->error)))
        return false;
    if (at->job->bytes != UINT64_MAX) at->refused = sl_check_space(at->hub, at->job->bytes, at->error);
    return !at->refused;
}

static bool on_body(void *user, const sl_http_response *response, const char *data, size_t n) {
    transfer *at = user;
    if (!at->began && !begin(at, response)) return false;
    if (at->offset > at->job->bytes || n > at->job->bytes - at->offset) {
        at->refused =
            sl_fail(at->error, SLLM_ERROR_FORMAT, "%s: the server sends more than the %llu bytes that the file has",
                    at->job->what, (unsigned long long)at->job->bytes);
        unlink(at->partial);
        unlink(at->etag_path);
        return false;
    }
    at->refused = write_partial(at, data, n);
    return !at->refused;
}

static bool keep_going(void *user) {
    transfer *at = user;
    const sl_download *job = at->job;
    uint64_t total = job->total;
    if (!total && !job->done_before && job->bytes != UINT64_MAX) total = job->bytes;
    return sl_hub_progress(at->hub, job->what, job->done_before + at->offset, total, false);
}

/* One request. *done: the file is whole as far as its size tells. SLLM_OK without *done: try again at once. */
static sllm_status attempt(transfer *at, sl_http_response *response, bool *done) {
    sl_http_request request = {.url = at->job->url,
                               .offset = at->offset,
                               .on_body = on_body,
                               .keep_going = keep_going,
                               .if_range = is_strong(at->etag) ? at->etag : NULL,
                               .user = at};
    at->began = at->start_again = false;
    at->refused = SLLM_OK;
    sllm_status status = sl_http_get(at->hub, &request, response, at->error);
    if (at->refused) return at->refused;
    if (!status && response->code != 416 && !at->began && !begin(at, response))
        status = at->refused; /* an empty body */
    if (!status && response->code == 416) {
        if (response->has_range && response->range_total == at->offset && at->job->bytes == UINT64_MAX) {
            *done = true;
            return SLLM_OK;
        }
        at->start_again = true; /* the file has become shorter than what is here */
    }
    if (at->start_again) return truncate_partial(at);
    if (status) return status;
    *done = at->job->bytes == UINT64_MAX || at->offset == at->job->bytes;
    if (*done) return SLLM_OK;
    response->may_retry = true;
    return sl_fail(at->error, SLLM_ERROR_NETWORK, "%s: the server ended the file after %llu of %llu bytes",
                   at->job->what, (unsigned long long)at->offset, (unsigned long long)at->job->bytes);
}

/* ---------------------------------------------------------------- until it is whole */

static sllm_status fetch(transfer *at) {
    bool done = at->offset == at->job->bytes;
    int failures = 0;
    while (!done) {
        sl_http_response response;
        sllm_status status = attempt(at, &response, &done);
        bool advanced = at->offset > at->furthest;
        if (advanced) at->furthest = at->offset;
        if (done) break;
        if (status && !response.may_retry) return status;
        failures = advanced ? 1 : failures + 1; /* attempts count while they bring nothing */
        if (failures > at->hub->retries) {
            if (!status)
                status = sl_fail(at->error, SLLM_ERROR_NETWORK, "%s: the file changes on the server", at->job->what);
            if (at->offset)
                sl_error_prefix(at->error, status, "%s: %llu bytes are kept, pull again to continue", at->job->what,
                                (unsigned long long)at->offset);
            return status;
        }
        if (status && !sl_hub_sleep(at->hub, sl_http_backoff(failures, &response)))
            return sl_hub_cancelled(at->job->what, at->error);
    }
    return SLLM_OK;
}

static bool on_check(void *user, uint64_t done, uint64_t total) {
    (void)done, (void)total; /* the bytes were counted when they came */
    return keep_going(user);
}

/* The checksum of what is in the file, not of what came: that is what will be loaded. *again: parts of two versions may
 * have been joined, so one more download from the start is fair. */
static sllm_status check(transfer *at, bool *again) {
    char hex[65];
    sllm_status status = sl_sha256_file(at->partial, hex, on_check, at, at->error);
    if (status == SLLM_ERROR_CANCELLED) return sl_hub_cancelled(at->job->what, at->error);
    if (status) return status;
    if (!at->job->sha256[0] || !strcmp(hex, at->job->sha256)) {
        memcpy(at->job->sha256, hex, sizeof hex);
        at->job->bytes = at->offset;
        return SLLM_OK;
    }
    if (at->joined && !*again) {
        *again = true;
        at->furthest = 0;
        return truncate_partial(at);
    }
    *again = false;
    unlink(at->partial);
    unlink(at->etag_path);
    return sl_fail(at->error, SLLM_ERROR_FORMAT,
                   "%s: the checksum is wrong (sha256 %s, the hub says %s): nothing was kept; a proxy or the server "
                   "alters the file",
                   at->job->what, hex, at->job->sha256);
}

static sllm_status finish(transfer *at) {
    if (fsync(at->fd) < 0) return sl_fail_errno(at->error, "write", at->partial);
    if (rename(at->partial, at->job->path) < 0) return sl_fail_errno(at->error, "rename", at->partial);
    unlink(at->etag_path);
    sl_sync_parent(at->job->path);
    return SLLM_OK;
}

sllm_status sl_download_file(sllm_hub *hub, sl_download *download, sllm_error *error) {
    sllm_error unused;
    transfer at = {.hub = hub, .job = download, .fd = -1, .error = error ? error : &unused};
    snprintf(at.partial, sizeof at.partial, "%s.partial", download->path);
    snprintf(at.etag_path, sizeof at.etag_path, "%s.partial.etag", download->path);
    sllm_status status = sl_make_parent(download->path, at.error);
    if (!status) status = open_partial(&at);
    bool again = false, was_again;
    do {
        was_again = again;
        if (!status) status = fetch(&at);
        if (!status) status = check(&at, &again);
    } while (!status && again && !was_again);
    if (!status) status = finish(&at);
    if (at.fd >= 0) close(at.fd);
    return status;
}
