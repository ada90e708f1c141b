/* What the cache holds: resolve, list, remove, verify. No network here. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/text.h"

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

/* Whether there is a manifest of this id, damaged ones included: SLLM_OK, or SLLM_ERROR_NOT_FOUND. */
static sllm_status has_manifest(sllm_hub *hub, const char *id, sllm_error *error) {
    sl_manifest manifest;
    sllm_status status = sl_manifest_read(hub, id, &manifest, error);
    if (!status) sl_manifest_free(&manifest);
    return status == SLLM_ERROR_FORMAT ? SLLM_OK : status;
}

/* The id of MODEL's manifest: by catalogue name (whichever source was pulled), hf: name, or id. */
static sllm_status find_id(sllm_hub *hub, const char *model, char id[SL_HUB_ID], sllm_error *error) {
    sl_source source;
    sllm_status status = SLLM_ERROR_NOT_FOUND;
    const sl_json *entry = sl_catalogue_find(hub, model);
    for (size_t i = 0; entry && status == SLLM_ERROR_NOT_FOUND && sl_source_of_entry(entry, i, &source); i++) {
        snprintf(id, SL_HUB_ID, "%s", source.id);
        status = has_manifest(hub, id, error);
    }
    if (entry) return status;
    if (sl_name_is_hf(model)) {
        status = sl_source_find(hub, model, &source, error);
        snprintf(id, SL_HUB_ID, "%s", status ? "" : source.id);
        return status ? status : has_manifest(hub, id, error);
    }
    if (!sl_name_is_safe_path(model) || strchr(model, '/') || strlen(model) >= SL_HUB_ID) return status;
    snprintf(id, SL_HUB_ID, "%s", model);
    return has_manifest(hub, id, error);
}

/* Reads a manifest and takes the lock of its files. What was read before the lock may be gone or another by now, so it
 * is read once more. The caller gives both back with close_manifest. */
static sllm_status open_locked(sllm_hub *hub, const char *id, sl_manifest *manifest, int *lock, sllm_error *error) {
    char place[SL_HUB_ID], now[SL_HUB_ID];
    *lock = -1;
    sllm_status status = sl_manifest_read(hub, id, manifest, error);
    while (!status) {
        sl_cache_place(manifest->path, place);
        sl_manifest_free(manifest);
        status = sl_cache_lock(hub, place, lock, error);
        if (status) return status;
        status = sl_manifest_read(hub, id, manifest, error);
        if (!status) sl_cache_place(manifest->path, now);
        if (!status && !strcmp(place, now)) return SLLM_OK;
        sl_cache_unlock(hub, place, *lock);
        *lock = -1;
    }
    return status;
}

static void close_manifest(sllm_hub *hub, sl_manifest *manifest, int lock) {
    char place[SL_HUB_ID];
    sl_cache_place(manifest->path, place);
    sl_cache_unlock(hub, place, lock);
    sl_manifest_free(manifest);
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

/* GGUF files in the cache's folder that no manifest knows: put there by hand. */
static void list_foreign(sllm_hub *hub, const char *const *ids, size_t n, sl_buffer *out) {
    DIR *folder = opendir(hub->cache_dir);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        char path[SL_HUB_PATH];
        bool known = !sl_has_extension(item->d_name, ".gguf") || sl_cache_path(hub, item->d_name, path, NULL);
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

static bool has_file(const sl_manifest *manifest, const char *path) {
    for (size_t i = 0; i < manifest->n_files; i++)
        if (!strcmp(manifest->files[i].path, path)) return true;
    return false;
}

/* Marks those files that other models have too: hf:O/R and hf:O/R/FILE share theirs. The others' manifests cannot gain
 * such a file meanwhile, since it lies in the place that is locked. */
static sllm_status find_shared(sllm_hub *hub, const sl_manifest *manifest, bool *shared, sllm_error *error) {
    sl_arena arena = {0};
    const char **ids;
    size_t n;
    sllm_status status = sl_manifest_ids(hub, &arena, &ids, &n, error);
    for (size_t k = 0; k < n && !status; k++) {
        sl_manifest other;
        if (!strcmp(ids[k], manifest->id)) continue;
        sllm_status read = sl_manifest_read(hub, ids[k], &other, error);
        if (read == SLLM_ERROR_MEMORY) status = read;
        if (read) continue; /* a damaged one has to be pulled again anyway */
        for (size_t i = 0; i < manifest->n_files; i++)
            if (has_file(&other, manifest->files[i].path)) shared[i] = true;
        sl_manifest_free(&other);
    }
    sl_arena_free(&arena);
    return status;
}

static sllm_status remove_files(sllm_hub *hub, sl_manifest *manifest, uint64_t *freed, sllm_error *error) {
    static const char *const endings[] = {"", ".partial", ".partial.etag"};
    char path[SL_HUB_PATH], ending[SL_HUB_PATH + 16];
    bool *shared = sl_arena_array(&manifest->arena, manifest->n_files + 1, sizeof *shared);
    if (!shared) return sl_fail_memory(error, "manifest", manifest->n_files);
    memset(shared, 0, manifest->n_files + 1);
    sllm_status status = find_shared(hub, manifest, shared, error);
    for (size_t i = 0; i < manifest->n_files && !status; i++) {
        if (shared[i]) continue;
        status = sl_cache_path(hub, manifest->files[i].path, path, error);
        for (size_t k = 0; k < 3 && !status; k++) {
            snprintf(ending, sizeof ending, "%s%s", path, endings[k]);
            status = remove_file(ending, freed, error);
        }
        if (!status) remove_empty_parents(hub, manifest->files[i].path);
    }
    return status;
}

/* Without a manifest: a file put there by hand, under its own name or the catalogue's. */
static sllm_status remove_foreign(sllm_hub *hub, const char *model, uint64_t *freed, sllm_error *error) {
    sl_source source;
    char path[SL_HUB_PATH];
    int lock;
    bool known = sl_catalogue_find(hub, model) && !sl_source_find(hub, model, &source, NULL) && source.pip;
    const char *file = known ? source.id : model;
    if (!sl_name_is_safe_path(file) || strchr(file, '/') || !sl_has_extension(file, ".gguf") ||
        sl_cache_path(hub, file, path, NULL) || !sl_path_is_file(path))
        return not_cached(hub, model, error);
    sllm_status status = sl_cache_lock(hub, file, &lock, error);
    if (!status) status = remove_file(path, freed, error);
    sl_cache_unlock(hub, file, lock);
    return status;
}

static sllm_status remove_model(sllm_hub *hub, const char *id, uint64_t *freed, sllm_error *error) {
    sl_manifest manifest;
    char path[SL_HUB_PATH], relative[SL_HUB_ID + 32];
    int lock;
    sllm_status status = open_locked(hub, id, &manifest, &lock, error);
    if (status) return status;
    status = remove_files(hub, &manifest, freed, error);
    snprintf(relative, sizeof relative, "manifests/%s.json", id);
    if (!status) status = sl_cache_path(hub, relative, path, error);
    if (!status) status = remove_file(path, freed, error);
    close_manifest(hub, &manifest, lock);
    return status;
}

sllm_status sllm_hub_remove(sllm_hub *hub, const char *model, uint64_t *bytes, sllm_error *error) {
    char id[SL_HUB_ID];
    uint64_t freed = 0;
    if (bytes) *bytes = 0;
    if (!hub || !model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and model must be given");
    hub->cancelled = false;
    sllm_status status = find_id(hub, model, id, error);
    if (status == SLLM_ERROR_NOT_FOUND) {
        status = remove_foreign(hub, model, &freed, error);
    } else if (!status) {
        status = remove_model(hub, id, &freed, error);
        if (status == SLLM_ERROR_NOT_FOUND) status = not_cached(hub, model, error); /* another process was faster */
    }
    if (bytes) *bytes = freed;
    return status;
}

/* ---------------------------------------------------------------- verify */

typedef struct verification {
    sllm_hub *hub;
    sl_buffer out;
    size_t n_bad;     /* files */
    size_t n_damaged; /* manifests */
    const char *what; /* file being read */
} verification;

static bool on_verify(void *user, uint64_t done, uint64_t total) {
    verification *all = user;
    return sl_hub_progress(all->hub, all->what, done, total, done == total);
}

static void report(verification *all, const char *name, const char *file, const char *state, const char *expected,
                   const char *actual) {
    sl_json_comma(&all->out);
    sl_buffer_puts(&all->out, "{");
    sl_json_put_string(&all->out, "name", name);
    sl_json_put_string(&all->out, "file", file);
    sl_json_put_string(&all->out, "state", state);
    sl_json_put_bool(&all->out, "ok", !strcmp(state, "ok"));
    sl_json_put_string(&all->out, "expected", expected[0] ? expected : NULL);
    sl_json_put_string(&all->out, "actual", actual[0] ? actual : NULL);
    sl_buffer_puts(&all->out, "}");
}

static sllm_status verify_file(verification *all, const char *name, const sl_manifest_file *file, bool *is_good,
                               sllm_error *error) {
    char path[SL_HUB_PATH], hex[65] = "";
    all->what = file->path;
    sllm_status status = sl_cache_path(all->hub, file->path, path, error);
    if (!status) status = sl_sha256_file(path, hex, on_verify, all, error);
    if (status == SLLM_ERROR_CANCELLED || status == SLLM_ERROR_MEMORY) return status;
    bool ok = !status && !strcmp(hex, file->sha256);
    const char *state = ok ? "ok" : !status ? "damaged" : status == SLLM_ERROR_NOT_FOUND ? "missing" : "unreadable";
    report(all, name, path, state, file->sha256, hex);
    if (!ok) all->n_bad++, *is_good = false;
    return SLLM_OK;
}

static sllm_status verify_files(verification *all, sl_manifest *manifest, sllm_error *error) {
    bool is_good = true;
    char now[32];
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < manifest->n_files && !status; i++)
        status = verify_file(all, manifest->name, &manifest->files[i], &is_good, error);
    if (status || !is_good) return status;
    sl_time_text(now);
    manifest->verified = now;
    return sl_manifest_write(all->hub, manifest, error);
}

/* A manifest that cannot be read is reported: it must not hide how the other models are. */
static sllm_status report_manifest(verification *all, const char *id, sllm_error *error) {
    char path[SL_HUB_PATH], relative[SL_HUB_ID + 32];
    snprintf(relative, sizeof relative, "manifests/%s.json", id);
    sllm_status status = sl_cache_path(all->hub, relative, path, error);
    if (status) return status;
    report(all, id, path, "manifest damaged", "", "");
    all->n_damaged++;
    return SLLM_OK;
}

/* An interrupted pull, or one that is going on: not looked into, and not waited for. */
static sllm_status report_unfinished(verification *all, const char *id, bool *unfinished, sllm_error *error) {
    sl_manifest manifest;
    char path[SL_HUB_PATH];
    sllm_status status = sl_manifest_read(all->hub, id, &manifest, error);
    if (status) return status;
    *unfinished = !manifest.complete;
    if (*unfinished) status = sl_cache_path(all->hub, manifest.path, path, error);
    if (*unfinished && !status) report(all, manifest.name, path, "unfinished", "", "");
    sl_manifest_free(&manifest);
    return status;
}

/* The lock is held while the files are read: neither can they be removed meanwhile, nor the manifest of a removed model
 * be written back. */
static sllm_status verify_model(verification *all, const char *id, sllm_error *error) {
    sl_manifest manifest;
    int lock;
    bool unfinished = false;
    sllm_status status = report_unfinished(all, id, &unfinished, error);
    if (!status && unfinished) return SLLM_OK;
    if (!status) status = open_locked(all->hub, id, &manifest, &lock, error);
    if (status == SLLM_ERROR_FORMAT) return report_manifest(all, id, error);
    if (status) return status;
    if (manifest.complete) status = verify_files(all, &manifest, error);
    else status = report_unfinished(all, id, &unfinished, error); /* since we looked */
    close_manifest(all->hub, &manifest, lock);
    return status;
}

static sllm_status verify_all(verification *all, sllm_error *error) {
    sl_arena arena = {0};
    const char **ids;
    size_t n;
    sllm_status status = sl_manifest_ids(all->hub, &arena, &ids, &n, error);
    for (size_t i = 0; i < n && !status; i++) {
        status = verify_model(all, ids[i], error);
        if (status == SLLM_ERROR_NOT_FOUND) status = SLLM_OK; /* removed meanwhile */
    }
    sl_arena_free(&arena);
    return status;
}

/* What the whole comes to, the report being written. */
static sllm_status judge(const verification *all, sllm_error *error) {
    if (all->n_bad)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%zu file%s of the cache differ%s from what was downloaded: remove the model and pull it again",
                       all->n_bad, all->n_bad == 1 ? "" : "s", all->n_bad == 1 ? "s" : "");
    if (all->n_damaged)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%zu manifest%s of the cache %s damaged: pull the model again",
                       all->n_damaged, all->n_damaged == 1 ? "" : "s", all->n_damaged == 1 ? "is" : "are");
    return SLLM_OK;
}

sllm_status sllm_hub_verify(sllm_hub *hub, const char *model, char **json, sllm_error *error) {
    verification all = {.hub = hub};
    char id[SL_HUB_ID];
    sllm_status status;
    if (json) *json = NULL;
    if (!hub || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and json must be given");
    hub->cancelled = false;
    sl_buffer_puts(&all.out, "[");
    if (model) {
        status = find_id(hub, model, id, error);
        if (!status) status = verify_model(&all, id, error);
        if (status == SLLM_ERROR_NOT_FOUND) status = not_cached(hub, model, error);
    } else {
        status = verify_all(&all, error);
    }
    sl_buffer_puts(&all.out, "]");
    if (status) return sl_buffer_free(&all.out), status;
    status = give_json(&all.out, json, error);
    return status ? status : judge(&all, error);
}
