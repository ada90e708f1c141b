#include "format/folder_write.h"

#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

static bool is_empty(const char *path) {
    int n = 0;
    DIR *directory = opendir(path);
    while (directory && readdir(directory)) n++;
    if (directory) closedir(directory);
    return directory && n == 2;
}

/* Where the folder is to stand: "x/" and "x/." are x, and a link to an empty folder is that folder. */
static sllm_status find_place(sl_folder_writer *w, const char *out, sllm_error *error) {
    struct stat s;
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') length--;
    if (length + 32 >= sizeof w->out) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", out);
    snprintf(w->out, sizeof w->out, "%.*s", (int)length, out);
    if (lstat(w->out, &s)) return errno == ENOENT ? SLLM_OK : sl_fail_errno(error, "look at", out);
    char *real = is_empty(w->out) ? realpath(w->out, NULL) : NULL;
    if (!real) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: is there already; a checkpoint folder is not written over another", out);
    bool fits = strlen(real) + 32 < sizeof w->out;
    snprintf(w->out, sizeof w->out, "%s", real);
    free(real);
    return fits ? SLLM_OK : sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", out);
}

/* Not mkdtemp: its folders are private to the user, and undoing that needs the process's umask, which cannot be read
 * without changing it. */
sllm_status sl_folder_writer_begin(sl_folder_writer *w, const char *out, sllm_error *error) {
    w->part[0] = 0;
    sllm_status status = find_place(w, out, error);
    if (status) return status;
    for (int i = 0; i < 100; i++) {
        char part[SL_FOLDER_PATH + 48];
        snprintf(part, sizeof part, "%s.part-%ld-%d", w->out, (long)getpid(), i);
        if (!mkdir(part, 0777)) {
            memcpy(w->part, part, strlen(part) + 1);
            return SLLM_OK;
        }
        if (errno != EEXIST) break;
    }
    return sl_fail_errno(error, "make the folder", out);
}

bool sl_folder_writer_path(const sl_folder_writer *w, const char *name, char path[SL_FOLDER_PATH]) {
    return sl_path_join(path, SL_FOLDER_PATH, w->part, name);
}

sllm_status sl_folder_writer_file(const sl_folder_writer *w, const char *name, const void *data, size_t size, sllm_error *error) {
    char path[SL_FOLDER_PATH];
    if (!sl_folder_writer_path(w, name, path)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the path of %s is too long", name);
    return sl_file_write(path, size ? data : "", size, error);
}

sllm_status sl_folder_writer_copy(const sl_folder_writer *w, const char *name, const char *from, sllm_error *error) {
    char path[SL_FOLDER_PATH];
    sl_output out;
    ssize_t n = 0;
    if (!sl_folder_writer_path(w, name, path)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the path of %s is too long", name);
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    char *bytes = malloc(COPY_BYTES);
    sllm_status status = fd < 0 ? sl_fail_errno(error, "open", from) : bytes ? SLLM_OK : sl_fail_memory(error, name, COPY_BYTES);
    if (!status) status = sl_output_open(&out, path, error);
    bool opened = !status;
    while (!status && (n = read(fd, bytes, COPY_BYTES)) != 0) {
        if (n > 0) status = sl_output_write(&out, bytes, (size_t)n, error);
        else if (errno != EINTR) status = sl_fail_errno(error, "read", from);
    }
    if (!status) status = sl_output_finish(&out, error);
    else if (opened) sl_output_abandon(&out);
    if (fd >= 0) close(fd);
    free(bytes);
    return status;
}

void sl_folder_writer_abandon(sl_folder_writer *w) {
    char path[SL_FOLDER_PATH];
    if (!w->part[0]) return;
    DIR *directory = opendir(w->part);
    for (const struct dirent *e; directory && (e = readdir(directory));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && sl_path_join(path, sizeof path, w->part, e->d_name)) unlink(path);
    if (directory) closedir(directory);
    rmdir(w->part);
    w->part[0] = 0;
}

sllm_status sl_folder_writer_finish(sl_folder_writer *w, sllm_error *error) {
    if (!rename(w->part, w->out)) {
        w->part[0] = 0;
        return SLLM_OK;
    }
    sllm_status status = sl_fail_errno(error, "rename", w->part);
    sl_folder_writer_abandon(w);
    return status;
}
