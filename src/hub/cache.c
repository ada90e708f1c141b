/* What the cache holds: resolve, list, remove, verify. No network here. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- resolve */

static sllm_status give_path(const char *text, char **path, sllm_error *error) {
    *path = strdup(text);
    return *path ? SLLM_OK : sl_fail_memory(error, "path", strlen(text));
}

/* True when `model` is meant as a path rather than a name: it says so itself. */
static bool looks_like_path(const char *model) {
    size_t length = strlen(model);
    return strchr(model, '/') || model[0] == '.' || (length > 5 && !strcmp(model + length - 5, ".gguf"));
}

/* Whether this source of a model is in the cache; then *path is what to load. */
static sllm_status find_cached(sllm_hub *hub, const sl_source *source, char path[SL_HUB_PATH], bool *found,
                               sllm_error *error) {
    sl_manifest manifest;
    sllm_status status = sl_manifest_read(hub, source->id, &manifest, error);
    *found = false;
    if (!status) {
        *found = sl_manifest_is_whole(hub, &manifest);
        if (*found) status = sl_cache_path(hub, manifest.path, path, error);
        sl_manifest_free(&manifest);
        return status;
    }
    if (status == SLLM_ERROR_MEMORY || status == SLLM_ERROR_FORMAT) return status;
    if (!source->pip) return SLLM_OK;
    /* a file put there by hand: final names are only ever given to whole files */
    status = sl_cache_path(hub, source->id, path, error);
    *found = !status && sl_path_is_file(path);
    return status;
}

static sllm_status resolve_name(sllm_hub *hub, const char *model, char path[SL_HUB_PATH], sllm_error *error) {
    sl_source source;
    bool found = false;
    sllm_status status = sl_source_find(hub, model, &source, error);
    if (status) return status;
    status = find_cached(hub, &source, path, &found, error);
    for (size_t i = 1; source.entry && !status && !found && sl_source_of_entry(source.entry, i, &source); i++)
        status = find_cached(hub, &source, path, &found, error);
    if (status || found) return status;
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s is not in the model cache (%s): get it with `sllm pull %s`", model,
                   hub->cache_dir, model);
}

sllm_status sllm_hub_resolve(sllm_hub *hub, const char *model, char **path, sllm_error *error) {
    char found[SL_HUB_PATH];
    if (path) *path = NULL;
    if (!hub || !model || !path) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub, model and path must be given");
    if (!model[0]) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model's name is empty");
    if (sl_name_is_hf(model)) {
        sllm_status status = resolve_name(hub, model, found, error);
        return status ? status : give_path(found, path, error);
    }
    bool is_there = access(model, F_OK) == 0, is_known = sl_catalogue_find(hub, model) != NULL;
    if (is_there && (looks_like_path(model) || !is_known)) return give_path(model, path, error);
    if (is_known) {
        sllm_status status = resolve_name(hub, model, found, error);
        return status ? status : give_path(found, path, error);
    }
    /* a file of the cache by its own name */
    if (sl_name_is_safe_path(model) && !sl_cache_path(hub, model, found, NULL) && sl_path_is_file(found))
        return give_path(found, path, error);
    if (looks_like_path(model))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%.600s: no such file or folder%s", model,
                       strchr(model, '/') && model[0] != '/' && model[0] != '.' ? " (a hub repository is hf:OWNER/REPO)"
                                                                                : "");
    return resolve_name(hub, model, found, error);
}

/* ---------------------------------------------------------------- manifests by model */

/* The manifest of MODEL: by catalogue name (whichever source was pulled), hf: name, id, or the name `list` shows. */
static sllm_status find_manifest(sllm_hub *hub, const char *model, sl_manifest *manifest, sllm_error *error) {
    sl_source source;
    sllm_status status = SLLM_ERROR_NOT_FOUND;
    const sl_json *entry = sl_catalogue_find(hub, model);
    for (size_t i = 0; entry && status == SLLM_ERROR_NOT_FOUND && sl_source_of_entry(entry, i, &source); i++)
        status = sl_manifest_read(hub, source.id, manifest, error);
    if (!entry && sl_name_is_hf(model)) {
        status = sl_source_find(hub, model, &source, error);
        return status ? status : sl_manifest_read(hub, source.id, manifest, error);
    }
    if (!entry && sl_name_is_safe_path(model) && !strchr(model, '/') && strlen(model) < SL_HUB_ID)
        status = sl_manifest_read(hub, model, manifest, error);
    return status;
}

static sllm_status not_cached(sllm_hub *hub, const char *model, sllm_error *error) {
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%.200s is not in the model cache (%s): `sllm list` shows what is",
                   model, hub->cache_dir);
}

/* ---------------------------------------------------------------- list */

static uint64_t size_on_disk(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
}

/* One damaged manifest must not hide the other models. */
static sllm_status list_damaged(sllm_hub *hub, const char *id, sl_buffer *out, sllm_error *error) {
    char path[SL_HUB_PATH], relative[SL_HUB_ID + 32];
    snprintf(relative, sizeof relative, "manifests/%s.json", id);
    sllm_status status = sl_cache_path(hub, relative, path, error);
    if (status) return status;
    sl_json_comma(out);
    sl_buffer_puts(out, "{");
    sl_json_put_string(out, "name", id);
    sl_json_put_string(out, "path", path);
    sl_json_put_int(out, "bytes", (int64_t)size_on_disk(path));
    sl_json_put_int(out, "files", 0);
    sl_json_put_string(out, "source", "a damaged manifest: pull the model again, or delete this file");
    sl_json_put_string(out, "verified", NULL);
    sl_json_put_bool(out, "partial", true);
    sl_buffer_puts(out, "}");
    return SLLM_OK;
}

static sllm_status list_one(sllm_hub *hub, const char *id, sl_buffer *out, sllm_error *error) {
    sl_manifest manifest;
    char path[SL_HUB_PATH];
    uint64_t bytes = 0;
    sllm_status status = sl_manifest_read(hub, id, &manifest, error);
    if (status == SLLM_ERROR_NOT_FOUND) return SLLM_OK; /* removed meanwhile */
    if (status == SLLM_ERROR_FORMAT) return list_damaged(hub, id, out, error);
    if (status) return status;
    for (size_t i = 0; i < manifest.n_files && !status; i++) {
        status = sl_cache_path(hub, manifest.files[i].path, path, error);
        uint64_t whole = status ? 0 : size_on_disk(path);
        if (!status && !whole) whole = size_on_disk(strcat(path, ".partial"));
        bytes += whole;
    }
    if (!status) status = sl_cache_path(hub, manifest.path, path, error);
    if (!status) {
        sl_json_comma(out);
        sl_buffer_puts(out, "{");
        sl_json_put_string(out, "name", manifest.name);
        sl_json_put_string(out, "path", path);
        sl_json_put_int(out, "bytes", (int64_t)bytes);
        sl_json_put_int(out, "files", (int64_t)manifest.n_files);
        sl_json_put_string(out, "source", manifest.source);
        sl_json_put_string(out, "verified", manifest.verified[0] ? manifest.verified : NULL);
        sl_json_put_bool(out, "partial", !sl_manifest_is_whole(hub, &manifest));
        sl_buffer_puts(out, "}");
    }
    sl_manifest_free(&manifest);
    return status;
}

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n > m && !strcmp(text + n - m, ending);
}

/* GGUF files in the cache's folder that no manifest knows: put there by hand. */
static void list_foreign(sllm_hub *hub, const char *const *ids, size_t n, sl_buffer *out) {
    DIR *folder = opendir(hub->cache_dir);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        char path[SL_HUB_PATH];
        bool known = !ends_with(item->d_name, ".gguf") || sl_cache_path(hub, item->d_name, path, NULL);
        for (size_t i = 0; i < n && !known; i++) known = !strcmp(ids[i], item->d_name);
        if (known || !sl_path_is_file(path)) continue;
        sl_json_comma(out);
        sl_buffer_puts(out, "{");
        sl_json_put_string(out, "name", item->d_name);
        sl_json_put_string(out, "path", path);
        sl_json_put_int(out, "bytes", (int64_t)size_on_disk(path));
        sl_json_put_int(out, "files", 1);
        sl_json_put_string(out, "source", "a file put into the cache by hand");
        sl_json_put_string(out, "verified", NULL);
        sl_json_put_bool(out, "partial", false);
        sl_buffer_puts(out, "}");
    }
    if (folder) closedir(folder);
}

/* Hands the buffer over as the caller's text. */
static sllm_status give_json(sl_buffer *out, char **json, sllm_error *error) {
    *json = out->failed ? NULL : sl_buffer_take(out, NULL);
    sl_buffer_free(out);
    return *json ? SLLM_OK : sl_fail_memory(error, "the report", 0);
}

sllm_status sllm_hub_list(sllm_hub *hub, char **json, sllm_error *error) {
    sl_arena arena = {0};
    sl_buffer out = {0};
    const char **ids;
    size_t n;
    if (json) *json = NULL;
    if (!hub || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and json must be given");
    sllm_status status = sl_manifest_ids(hub, &arena, &ids, &n, error);
    sl_buffer_puts(&out, "[");
    for (size_t i = 0; i < n && !status; i++) status = list_one(hub, ids[i], &out, error);
    if (!status) list_foreign(hub, ids, n, &out);
    sl_buffer_puts(&out, "]");
    sl_arena_free(&arena);
    if (status) return sl_buffer_free(&out), status;
    return give_json(&out, json, error);
}

/* ---------------------------------------------------------------- remove */

static sllm_status remove_file(const char *path, uint64_t *freed, sllm_error *error) {
    uint64_t size = size_on_disk(path);
    if (unlink(path) < 0) return errno == ENOENT ? SLLM_OK : sl_fail_errno(error, "remove", path);
    *freed += size;
    return SLLM_OK;
}

/* Removes the folders above a file of the cache while they are empty, the cache itself excepted. */
static void remove_empty_parents(const sllm_hub *hub, const char *relative) {
    char part[1100], path[SL_HUB_PATH];
    snprintf(part, sizeof part, "%s", relative);
    for (char *slash; (slash = strrchr(part, '/'));) {
        *slash = 0;
        if (sl_cache_path(hub, part, path, NULL) || rmdir(path) < 0) return;
    }
}

static sllm_status remove_files(sllm_hub *hub, const sl_manifest *manifest, uint64_t *freed, sllm_error *error) {
    static const char *const endings[] = {"", ".partial", ".partial.etag"};
    char path[SL_HUB_PATH], ending[SL_HUB_PATH + 16];
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < manifest->n_files && !status; i++) {
        status = sl_cache_path(hub, manifest->files[i].path, path, error);
        for (size_t k = 0; k < 3 && !status; k++) {
            snprintf(ending, sizeof ending, "%s%s", path, endings[k]);
            status = remove_file(ending, freed, error);
        }
        if (!status) remove_empty_parents(hub, manifest->files[i].path);
    }
    return status;
}

sllm_status sllm_hub_remove(sllm_hub *hub, const char *model, uint64_t *bytes, sllm_error *error) {
    sl_manifest manifest;
    char path[SL_HUB_PATH], relative[SL_HUB_ID + 32];
    uint64_t freed = 0;
    int lock = -1;
    if (bytes) *bytes = 0;
    if (!hub || !model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and model must be given");
    hub->cancelled = false;
    sllm_status status = find_manifest(hub, model, &manifest, error);
    if (status == SLLM_ERROR_NOT_FOUND) {
        sl_source source; /* no manifest: a file put there by hand, under its own name or the catalogue's */
        const char *file = sl_catalogue_find(hub, model) && !sl_source_find(hub, model, &source, NULL) && source.pip
                               ? source.id
                               : model;
        if (!sl_name_is_safe_path(file) || strchr(file, '/') || !ends_with(file, ".gguf") ||
            sl_cache_path(hub, file, path, NULL) || !sl_path_is_file(path))
            return not_cached(hub, model, error);
        status = remove_file(path, &freed, error);
        if (bytes) *bytes = freed;
        return status;
    }
    if (status) return status;
    status = sl_cache_lock(hub, manifest.id, &lock, error);
    if (!status) status = remove_files(hub, &manifest, &freed, error);
    snprintf(relative, sizeof relative, "manifests/%s.json", manifest.id);
    if (!status) status = sl_cache_path(hub, relative, path, error);
    if (!status) status = remove_file(path, &freed, error);
    sl_cache_unlock(hub, manifest.id, lock);
    sl_manifest_free(&manifest);
    if (bytes) *bytes = freed;
    return status;
}

/* ---------------------------------------------------------------- verify */

typedef struct verification {
    sllm_hub *hub;
    sl_buffer out;
    size_t n_bad;
    const char *what; /* file being read */
} verification;

static bool on_verify(void *user, uint64_t done, uint64_t total) {
    verification *all = user;
    return sl_hub_progress(all->hub, all->what, done, total, done == total);
}

static sllm_status verify_file(verification *all, const char *name, const sl_manifest_file *file, bool *is_good,
                               sllm_error *error) {
    char path[SL_HUB_PATH], hex[65] = "";
    all->what = file->path;
    sllm_status status = sl_cache_path(all->hub, file->path, path, error);
    if (!status) status = sl_sha256_file(path, hex, on_verify, all, error);
    if (status == SLLM_ERROR_CANCELLED || status == SLLM_ERROR_MEMORY) return status;
    bool ok = !status && !strcmp(hex, file->sha256);
    sl_json_comma(&all->out);
    sl_buffer_puts(&all->out, "{");
    sl_json_put_string(&all->out, "name", name);
    sl_json_put_string(&all->out, "file", path);
    sl_json_put_bool(&all->out, "ok", ok);
    sl_json_put_string(&all->out, "expected", file->sha256[0] ? file->sha256 : NULL);
    sl_json_put_string(&all->out, "actual", hex[0] ? hex : NULL);
    sl_buffer_puts(&all->out, "}");
    if (!ok) all->n_bad++, *is_good = false;
    return SLLM_OK;
}

static sllm_status verify_manifest(verification *all, sl_manifest *manifest, sllm_error *error) {
    bool is_good = true;
    char now[32];
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < manifest->n_files && !status; i++)
        status = verify_file(all, manifest->name, &manifest->files[i], &is_good, error);
    if (status || !is_good || !manifest->complete) return status;
    sl_time_text(now);
    manifest->verified = now;
    return sl_manifest_write(all->hub, manifest, error);
}

static sllm_status verify_all(verification *all, sllm_error *error) {
    sl_arena arena = {0};
    const char **ids;
    size_t n;
    sllm_status status = sl_manifest_ids(all->hub, &arena, &ids, &n, error);
    for (size_t i = 0; i < n && !status; i++) {
        sl_manifest manifest;
        status = sl_manifest_read(all->hub, ids[i], &manifest, error);
        if (!status) status = verify_manifest(all, &manifest, error);
        sl_manifest_free(&manifest);
    }
    sl_arena_free(&arena);
    return status;
}

sllm_status sllm_hub_verify(sllm_hub *hub, const char *model, char **json, sllm_error *error) {
    verification all = {.hub = hub};
    sllm_status status;
    if (json) *json = NULL;
    if (!hub || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and json must be given");
    hub->cancelled = false;
    sl_buffer_puts(&all.out, "[");
    if (model) {
        sl_manifest manifest = {0};
        status = find_manifest(hub, model, &manifest, error);
        if (status == SLLM_ERROR_NOT_FOUND) status = not_cached(hub, model, error);
        if (!status) status = verify_manifest(&all, &manifest, error);
        sl_manifest_free(&manifest);
    } else {
        status = verify_all(&all, error);
    }
    sl_buffer_puts(&all.out, "]");
    if (status) return sl_buffer_free(&all.out), status;
    status = give_json(&all.out, json, error);
    if (status || !all.n_bad) return status;
    return sl_fail(error, SLLM_ERROR_FORMAT,
                   "%zu file%s of the cache differ%s from what was downloaded: remove the model and pull it again",
                   all.n_bad, all.n_bad == 1 ? "" : "s", all.n_bad == 1 ? "s" : "");
}
