/* What a MODEL argument may look like. Names are hostile: they come from command lines, catalogues and servers, and
 * become file names. */
#include "hub/hub.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

bool sl_name_is_safe_path(const char *path) {
    size_t part = 0, length = strlen(path);
    if (!length || length > 1024) return false;
    for (size_t i = 0; i <= length; i++) {
        unsigned char c = (unsigned char)path[i];
        if (c == '/' || !c) {
            const char *start = path + i - part;
            bool dots = (part == 1 && start[0] == '.') || (part == 2 && !memcmp(start, "..", 2));
            if (!part || part > 200 || dots) return false;
            part = 0;
        } else {
            if (c < 0x20 || c == 0x7f || c == '\\') return false;
            part++;
        }
    }
    return true;
}

bool sl_name_is_hf(const char *text) { return !strncmp(text, "hf:", 3); }

/* Owner and repository: letters, digits, '-', '_', '.'; neither "--" (it separates the parts of a folder's name) nor
 * ".." nor a dot or dash in front, as the hub itself demands. */
static bool is_repo_part(const char *text, size_t length, size_t limit) {
    if (!length || length >= limit || text[0] == '.' || text[0] == '-') return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i], next = i + 1 < length ? text[i + 1] : 0;
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!word && c != '-' && c != '.') return false;
        if ((c == '-' && next == '-') || (c == '.' && next == '.')) return false;
    }
    return true;
}

static bool is_revision(const char *text) {
    if (!sl_name_is_safe_path(text) || text[0] == '-' || text[0] == '.') return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") == strlen(text);
}

static void copy_part(char *out, const char *text, size_t length) {
    memcpy(out, text, length);
    out[length] = 0;
}

sllm_status sl_hf_parse(const char *text, sl_hf_name *name, sllm_error *error) {
    static const char form[] = "the form is hf:OWNER/REPO[/FILE.gguf][@REVISION]";
    *name = (sl_hf_name){0};
    if (!sl_name_is_hf(text) || strlen(text) > 900)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.80s: not the name of a hub repository; %s", text, form);
    const char *owner = text + 3, *at = strrchr(owner, '@');
    const char *end = at ? at : owner + strlen(owner);
    const char *slash = memchr(owner, '/', (size_t)(end - owner));
    if (!slash) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a repository is OWNER/REPO; %s", text, form);
    const char *repo = slash + 1, *file = memchr(repo, '/', (size_t)(end - repo));
    size_t owner_length = (size_t)(slash - owner), repo_length = (size_t)((file ? file : end) - repo);
    if (!is_repo_part(owner, owner_length, sizeof name->owner) || !is_repo_part(repo, repo_length, sizeof name->repo))
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "%s: OWNER and REPO are letters, digits, '-', '_' and '.', at most 96 each; %s", text, form);
    copy_part(name->owner, owner, owner_length);
    copy_part(name->repo, repo, repo_length);
    if (file) {
        size_t length = (size_t)(end - ++file);
        if (length && length < sizeof name->file) copy_part(name->file, file, length);
        if (!length || !sl_name_is_safe_path(name->file))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the file must be a plain path inside the repository; %s",
                           text, form);
    }
    if (at) {
        if (strlen(at + 1) < sizeof name->revision) copy_part(name->revision, at + 1, strlen(at + 1));
        if (!is_revision(name->revision))
            return sl_fail(error, SLLM_ERROR_ARGUMENT,
                           "%s: a revision is a branch, tag or commit of letters, digits, '.', '_', '-', '/'; %s", text,
                           form);
    }
    return SLLM_OK;
}

static sllm_status check_fit(int written, size_t size, const char *what, sllm_error *error) {
    if (written >= 0 && (size_t)written < size) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.120s...: the name is too long for the cache", what);
}

sllm_status sl_hf_write(const sl_hf_name *name, char *text, size_t size, sllm_error *error) {
    int n = snprintf(text, size, "hf:%s/%s%s%s%s%s", name->owner, name->repo, name->file[0] ? "/" : "", name->file,
                     name->revision[0] ? "@" : "", name->revision);
    return check_fit(n, size, name->repo, error);
}

/* '/' may not stand in a file name; "--" cannot stand in owner or repository, so the parts stay apart. */
static void join_slashes(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (; *text && n + 3 < size; text++) {
        if (*text == '/') out[n++] = '-';
        out[n++] = *text == '/' ? '-' : *text;
    }
    out[n] = 0;
}

sllm_status sl_hf_folder(const sl_hf_name *name, char *folder, size_t size, sllm_error *error) {
    char revision[260] = "";
    join_slashes(name->revision, revision, sizeof revision);
    int n = snprintf(folder, size, "%s--%s%s%s", name->owner, name->repo, revision[0] ? "@" : "", revision);
    return check_fit(n, size, name->repo, error);
}

sllm_status sl_hf_id(const sl_hf_name *name, char *id, size_t size, sllm_error *error) {
    char folder[SL_HUB_ID], file[1030] = "";
    sllm_status status = sl_hf_folder(name, folder, sizeof folder, error);
    if (status) return status;
    join_slashes(name->file, file, sizeof file);
    int n = snprintf(id, size, "%s%s%s", folder, file[0] ? "--" : "", file);
    return check_fit(n, size, name->repo, error);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

int sl_name_distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    int rows[3][LONGEST + 1]; /* row i % 3 is that of a's first i letters */
    size_t na = strlen(a), nb = strlen(b);
    if (na > LONGEST || nb > LONGEST) return 1000;
    for (size_t j = 0; j <= nb; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            char ca = lower(a[i - 1]), cb = lower(b[j - 1]);
            int best = above[j - 1] + (ca != cb);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && ca == lower(b[j - 2]) && lower(a[i - 2]) == cb && two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}
