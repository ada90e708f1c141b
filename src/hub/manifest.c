/* Manifests: one small JSON file per cached model that says what belongs to it and what its checksums are; the lock
 * that keeps two processes from changing the same files at once; and the paths of the cache. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- paths */

sllm_status sl_cache_path(const sllm_hub *hub, const char *relative, char out[SL_HUB_PATH], sllm_error *error) {
    int n = snprintf(out, SL_HUB_PATH, "%s/%s", hub->cache_dir, relative);
    if (n > 0 && n < SL_HUB_PATH - 32) return SLLM_OK; /* room for ".partial.etag" */
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.200s...: the path of the model cache is too long", hub->cache_dir);
}

sllm_status sl_make_folders(const char *path, sllm_error *error) {
    char copy[SL_HUB_PATH];
    if (strlen(path) >= sizeof copy) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.200s...: path too long", path);
    snprintf(copy, sizeof copy, "%s", path);
    for (char *c = copy + 1;; c++) {
        if (*c && *c != '/') continue;
        char kept = *c;
        *c = 0;
        if (mkdir(copy, 0755) < 0 && errno != EEXIST && !sl_path_is_directory(copy))
            return sl_fail_errno(error, "make the folder", copy);
        if (!kept) break;
        *c = kept;
    }
    if (sl_path_is_directory(path)) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_IO, "%s: a folder is needed here, but something else has that name", path);
}

sllm_status sl_make_parent(const char *path, sllm_error *error) {
    char folder[SL_HUB_PATH];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return SLLM_OK;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return sl_make_folders(folder, error);
}

void sl_sync_parent(const char *path) {
    char folder[SL_HUB_PATH];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

uint64_t sl_free_space(const char *path) {
    struct statvfs space;
    if (statvfs(path, &space) < 0) return 0;
    return (uint64_t)space.f_bavail * space.f_frsize;
}

sllm_status sl_check_space(sllm_hub *hub, uint64_t bytes, sllm_error *error) {
    enum { MARGIN = 16 << 20 }; /* manifests, and not filling the disk to the last byte */
    uint64_t free_bytes = sl_free_space(hub->cache_dir);
    if (!free_bytes || (free_bytes >= MARGIN && free_bytes - MARGIN >= bytes)) return SLLM_OK;
    return sl_fail(
        error, SLLM_ERROR_IO,
        "%s: %.1f MB are needed but %.1f MB are free: make room (`sllm rm MODEL`) or put the cache elsewhere",
        hub->cache_dir, ((double)bytes + MARGIN) / 1e6, (double)free_bytes / 1e6);
}

void sl_time_text(char out[32]) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* ---------------------------------------------------------------- reading and writing */

static sllm_status manifest_path(sllm_hub *hub, const char *id, const char *ending, char out[SL_HUB_PATH],
                                 sllm_error *error) {
    char relative[SL_HUB_ID + 32];
    snprintf(relative, sizeof relative, "manifests/%s%s", id, ending);
    return sl_cache_path(hub, relative, out, error);
}

static const char *text_of(const sl_json *object, const char *key) {
    const char *text = sl_json_string(sl_json_get(object, key));
    return text ? text : "";
}

static bool read_files(sl_manifest *manifest, const sl_json *files) {
    if (!files || files->type != SL_JSON_ARRAY || files->length > 10000) return false;
    manifest->files = sl_arena_array(&manifest->arena, files->length + 1, sizeof *manifest->files);
    if (!manifest->files) return false;
    for (const sl_json *item = files->first; item; item = item->next) {
        sl_manifest_file *file = &manifest->files[manifest->n_files++];
        int64_t bytes;
        *file = (sl_manifest_file){text_of(item, "path"), UINT64_MAX, text_of(item, "sha256")};
        if (sl_json_int64(sl_json_get(item, "bytes"), &bytes) && bytes >= 0) file->bytes = (uint64_t)bytes;
        if (!sl_name_is_safe_path(file->path)) return false;
    }
    return true;
}

sllm_status sl_manifest_read(sllm_hub *hub, const char *id, sl_manifest *manifest, sllm_error *error) {
    char path[SL_HUB_PATH];
    sl_buffer text = {0};
    const sl_json *root = NULL;
    *manifest = (sl_manifest){0};
    sllm_status status = manifest_path(hub, id, ".json", path, error);
    if (!status) status = sl_file_read(path, SL_HUB_JSON_LIMIT, &text, error);
    if (!status) status = sl_json_parse(&manifest->arena, text.data, text.length, path, &root, error);
    sl_buffer_free(&text);
    if (status) return sl_manifest_free(manifest), status;
    manifest->id = sl_arena_copy(&manifest->arena, id, strlen(id));
    manifest->name = text_of(root, "name");
    manifest->source = text_of(root, "source");
    manifest->path = text_of(root, "path");
    manifest->commit = text_of(root, "commit");
    manifest->pulled = text_of(root, "pulled");
    manifest->verified = text_of(root, "verified");
    sl_json_bool(sl_json_get(root, "complete"), &manifest->complete);
    if (manifest->id && manifest->name[0] && sl_name_is_safe_path(manifest->path) &&
        read_files(manifest, sl_json_get(root, "files")))
        return SLLM_OK;
    sl_manifest_free(manifest);
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the manifest is damaged: pull the model again", path);
}

sllm_status sl_manifest_write(sllm_hub *hub, const sl_manifest *manifest, sllm_error *error) {
    char path[SL_HUB_PATH];
    sl_buffer out = {0};
    sllm_status status = manifest_path(hub, manifest->id, ".json", path, error);
    if (!status) status = sl_make_parent(path, error);
    if (status) return status;
    sl_buffer_puts(&out, "{");
    sl_json_put_int(&out, "version", 1);
    sl_json_put_string(&out, "name", manifest->name);
    sl_json_put_string(&out, "source", manifest->source);
    sl_json_put_string(&out, "path", manifest->path);
    sl_json_put_string(&out, "commit", manifest->commit);
    sl_json_put_string(&out, "pulled", manifest->pulled);
    sl_json_put_string(&out, "verified", manifest->verified);
    sl_json_put_bool(&out, "complete", manifest->complete);
    sl_json_key(&out, "files");
    sl_buffer_puts(&out, "[");
    for (size_t i = 0; i < manifest->n_files; i++) {
        const sl_manifest_file *file = &manifest->files[i];
        sl_json_comma(&out);
        sl_buffer_puts(&out, "\n{");
        sl_json_put_string(&out, "path", file->path);
        if (file->bytes != UINT64_MAX) sl_json_put_int(&out, "bytes", (int64_t)file->bytes);
        sl_json_put_string(&out, "sha256", file->sha256);
        sl_buffer_puts(&out, "}");
    }
    sl_buffer_puts(&out, "]}\n");
    if (out.failed) status = sl_fail_memory(error, path, 0);
    else status = sl_file_write(path, out.data, out.length, error);
    sl_buffer_free(&out);
    return status;
}

void sl_manifest_free(sl_manifest *manifest) {
    sl_arena_free(&manifest->arena);
    *manifest = (sl_manifest){0};
}

bool sl_manifest_is_whole(sllm_hub *hub, const sl_manifest *manifest) {
    char path[SL_HUB_PATH];
    if (!manifest->complete || !manifest->n_files) return false;
    for (size_t i = 0; i < manifest->n_files; i++) {
        struct stat status;
        if (sl_cache_path(hub, manifest->files[i].path, path, NULL) || stat(path, &status) < 0 ||
            !S_ISREG(status.st_mode) || (uint64_t)status.st_size != manifest->files[i].bytes)
            return false;
    }
    return true;
}

static int compare_ids(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

sllm_status sl_manifest_ids(sllm_hub *hub, sl_arena *arena, const char ***ids, size_t *n, sllm_error *error) {
    char path[SL_HUB_PATH];
    size_t capacity = 0;
    *ids = NULL, *n = 0;
    sllm_status status = sl_cache_path(hub, "manifests", path, error);
    if (status) return status;
    DIR *folder = opendir(path);
    if (!folder) return errno == ENOENT ? SLLM_OK : sl_fail_errno(error, "list", path);
    for (struct dirent *item; !status && (item = readdir(folder));) {
        size_t length = strlen(item->d_name);
        if (length < 6 || length - 5 >= SL_HUB_ID || strcmp(item->d_name + length - 5, ".json")) continue;
        if (*n == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            const char **larger = sl_arena_array(arena, capacity, sizeof *larger);
            if (larger && *n) memcpy(larger, *ids, *n * sizeof *larger);
            *ids = larger;
        }
        const char *id = *ids ? sl_arena_copy(arena, item->d_name, length - 5) : NULL;
        if (!id) status = sl_fail_memory(error, "the list of models", 0);
        else (*ids)[(*n)++] = id;
    }
    closedir(folder);
    if (!status && *n) qsort(*ids, *n, sizeof **ids, compare_ids);
    return status;
}

/* ---------------------------------------------------------------- lock */

void sl_cache_place(const char *relative, char place[SL_HUB_ID]) {
    snprintf(place, SL_HUB_ID, "%.*s", (int)strcspn(relative, "/"), relative);
}

/* The lock file may be removed by the process that had the lock while another waits for it: what counts is the file
 * that has the name now. */
static bool is_still_named(int fd, const char *path) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

sllm_status sl_cache_lock(sllm_hub *hub, const char *place, int *lock, sllm_error *error) {
    char path[SL_HUB_PATH];
    *lock = -1;
    sllm_status status = manifest_path(hub, place, ".lock", path, error);
    if (!status) status = sl_make_parent(path, error);
    while (!status) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) return sl_fail_errno(error, "lock", path);
        while (flock(fd, LOCK_EX | LOCK_NB) < 0 && !status) {
            if (errno != EWOULDBLOCK && errno != EINTR) status = sl_fail_errno(error, "lock", path);
            else if (!sl_hub_progress(hub, "waiting for another process that has this model", 0, 0, false) ||
                     !sl_hub_sleep(hub, 0.2))
                status = sl_hub_cancelled(place, error);
        }
        if (!status && is_still_named(fd, path)) {
            *lock = fd;
            return SLLM_OK;
        }
        close(fd);
    }
    return status;
}

void sl_cache_unlock(sllm_hub *hub, const char *place, int lock) {
    char path[SL_HUB_PATH];
    if (lock < 0) return;
    if (!manifest_path(hub, place, ".lock", path, NULL)) unlink(path);
    flock(lock, LOCK_UN); /* a child that was forked meanwhile holds the descriptor too */
    close(lock);
}
