#include "format/folder_write.h"

#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sllm_status check_free(const char *out, sllm_error *error) {
    struct stat s;
    int n = 0;
    if (lstat(out, &s)) return errno == ENOENT ? SLLM_OK : sl_fail_errno(error, "look at", out);
    DIR *directory = S_ISDIR(s.st_mode) ? opendir(out) : NULL;
    while (directory && readdir(directory)) n++;
    if (directory) closedir(directory);
    if (directory && n == 2) return SLLM_OK; /* an empty one is replaced */
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: is there already; a checkpoint folder is not written over another", out);
}

sllm_status sl_folder_writer_begin(sl_folder_writer *w, const char *out, sllm_error *error) {
    size_t length = strlen(out);
    w->part[0] = 0;
    while (length > 1 && out[length - 1] == '/') length--;
    if (length + 16 >= sizeof w->part) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", out);
    snprintf(w->out, sizeof w->out, "%.*s", (int)length, out);
    sllm_status status = check_free(w->out, error);
    if (status) return status;
    memcpy(w->part, out, length);
    memcpy(w->part + length, ".part-XXXXXX", sizeof ".part-XXXXXX");
    if (mkdtemp(w->part)) return SLLM_OK;
    status = sl_fail_errno(error, "make the folder", w->out);
    w->part[0] = 0;
    return status;
}

bool sl_folder_writer_path(const sl_folder_writer *w, const char *name, char path[SL_FOLDER_PATH]) {
    return sl_path_join(path, SL_FOLDER_PATH, w->part, name);
}

sllm_status sl_folder_writer_file(const sl_folder_writer *w, const char *name, const void *data, size_t size, sllm_error *error) {
    char path[SL_FOLDER_PATH];
    if (!sl_folder_writer_path(w, name, path)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the path of %s is too long", name);
    return sl_file_write(path, size ? data : "", size, error);
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
    mode_t mask = umask(0);
    umask(mask);
    if (!chmod(w->part, 0777 & ~mask) && !rename(w->part, w->out)) {
        w->part[0] = 0;
        return SLLM_OK;
    }
    sllm_status status = sl_fail_errno(error, "rename", w->part);
    sl_folder_writer_abandon(w);
    return status;
}
