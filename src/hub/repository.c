/* A Hugging Face-style repository: the hub lists its files, we pick those that make a model, and fetch them one by one.
 * The list comes from /api/models/OWNER/REPO[/revision/REVISION]?blobs=true, which names the commit, each file's size
 * and, for large files, its SHA-256; a file's content from /OWNER/REPO/resolve/COMMIT/FILE. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "hub/download.h"
#include "hub/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define INDEX "model.safetensors.index.json" /* which part of a checkpoint holds which tensor */

typedef struct remote_file {
    const char *path;   /* in the repository, checked */
    uint64_t bytes;     /* UINT64_MAX: not said */
    const char *sha256; /* "" not said */
    bool chosen;
} remote_file;

typedef struct repository {
    sllm_hub *hub;
    const sl_source *source;
    sl_arena arena;
    const char *commit; /* or the revision asked for, when the hub does not say */
    remote_file *files; /* [n] */
    size_t n, n_chosen;
    const char *load; /* the path in the repository that is loaded; "" the folder */
    int parts;        /* of a safetensors checkpoint; 0: it is model.safetensors */
} repository;

/* ---------------------------------------------------------------- names */

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);
    return n > m && !strcasecmp(text + n - m, ending);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The files beside the weights that make a checkpoint: configuration, tokenizer, template, licence. */
static bool is_companion(const char *path) {
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "vocab.json",
                                        "vocab.txt",
                                        "merges.txt",
                                        "tekken.json",
                                        "spiece.model",
                                        "sentencepiece.bpe.model",
                                        INDEX};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i])) return true;
    return !strchr(path, '/') &&
           (ends_with(path, ".tiktoken") || !strncmp(path, "LICENSE", 7) || !strncmp(path, "NOTICE", 6));
}

/* ---------------------------------------------------------------- listing */

static bool is_hex(const char *text, size_t length) {
    return text && strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

static void read_file_entry(const sl_json *item, remote_file *file) {
    const sl_json *large = sl_json_get(item, "lfs");
    const char *sha256 = sl_json_string(sl_json_get(large, "sha256"));
    int64_t bytes;
    if (!sha256) sha256 = sl_json_string(sl_json_get(large, "oid"));
    *file = (remote_file){sl_json_string(sl_json_get(item, "rfilename")), UINT64_MAX, is_hex(sha256, 64) ? sha256 : "",
                          false};
    const sl_json *size = sl_json_get(large, "size");
    if (!size) size = sl_json_get(item, "size");
    if (sl_json_int64(size, &bytes) && bytes >= 0) file->bytes = (uint64_t)bytes;
}

/* A file whose name could not be stored is left out, unless the model may need it: then what is pulled would not be
 * the whole model. */
static sllm_status check_name(const repository *repo, const remote_file *file, bool *usable, sllm_error *error) {
    const sl_hf_name *name = &repo->source->hf;
    if (!file->path)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "hf:%s/%s: a file in the hub's list has no usable name (\"rfilename\")", name->owner,
                       name->repo);
    *usable = sl_name_is_safe_path(file->path);
    if (*usable || !(ends_with(file->path, ".gguf") || ends_with(file->path, ".safetensors") ||
                     is_companion(base_name(file->path))))
        return SLLM_OK;
    char shown[200];
    snprintf(shown, sizeof shown, "%s", file->path);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return sl_fail(error, SLLM_ERROR_FORMAT, "hf:%s/%s: the hub lists a file of a name that is not stored here: %s",
                   name->owner, name->repo, shown);
}

static sllm_status list_files(repository *repo, sllm_error *error) {
    const sl_hf_name *name = &repo->source->hf;
    const sl_json *root;
    char url[1200];
    snprintf(url, sizeof url, "%s/api/models/%s/%s%s%s?blobs=true", repo->hub->endpoint, name->owner, name->repo,
             name->revision[0] ? "/revision/" : "", name->revision);
    sllm_status status = sl_http_get_json(repo->hub, url, &repo->arena, &root, error);
    if (status) return status;
    const sl_json *siblings = sl_json_get(root, "siblings");
    if (!siblings || siblings->type != SL_JSON_ARRAY || siblings->length > 100000)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%.300s: the answer holds no list of files (\"siblings\")", url);
    repo->commit = sl_json_string(sl_json_get(root, "sha"));
    if (!is_hex(repo->commit, 40)) repo->commit = name->revision[0] ? name->revision : "main";
    repo->files = sl_arena_array(&repo->arena, siblings->length + 1, sizeof *repo->files);
    if (!repo->files) return sl_fail_memory(error, "list of files", 0);
    for (const sl_json *item = siblings->first; item && !status; item = item->next) {
        bool usable = false;
        read_file_entry(item, &repo->files[repo->n]);
        status = check_name(repo, &repo->files[repo->n], &usable, error);
        if (usable) repo->n++;
    }
    return status;
}

/* ---------------------------------------------------------------- choosing */

/* "...-00002-of-00005.gguf": part 2 of 5; both 1 for a file that is not split. The prefix is what parts share. */
static void split_part(const char *path, const char *ending, int *part, int *parts, size_t *prefix) {
    size_t n = strlen(path), tail = strlen("-00001-of-00001") + strlen(ending);
    *part = *parts = 1;
    *prefix = n;
    if (n <= tail) return;
    const char *numbers = path + n - tail;
    for (size_t i = 0; i < 15; i++)
        if ("-ddddd-of-ddddd"[i] == 'd' ? numbers[i] < '0' || numbers[i] > '9' : numbers[i] != "-ddddd-of-ddddd"[i])
            return;
    *part = atoi(numbers + 1);
    *parts = atoi(numbers + 10);
    *prefix = n - tail;
}

static void choose(repository *repo, remote_file *file) {
    if (!file->chosen) repo->n_chosen++;
    file->chosen = true;
}

/* All parts of a split file, each once. SLLM_ERROR_FORMAT when one is not there. */
static sllm_status choose_parts(repository *repo, const remote_file *one, const char *ending, sllm_error *error) {
    int part, parts, found = 0;
    size_t prefix;
    split_part(one->path, ending, &part, &parts, &prefix);
    bool *seen = sl_arena_array(&repo->arena, (size_t)parts + 1, sizeof *seen);
    if (!seen) return sl_fail_memory(error, one->path, (size_t)parts);
    memset(seen, 0, ((size_t)parts + 1) * sizeof *seen);
    for (size_t i = 0; i < repo->n; i++) {
        remote_file *file = &repo->files[i];
        int other, others;
        size_t other_prefix;
        split_part(file->path, ending, &other, &others, &other_prefix);
        if (others != parts || other < 1 || other > parts || seen[other] || other_prefix != prefix ||
            strncmp(file->path, one->path, prefix) || !ends_with(file->path, ending))
            continue;
        if (other == 1) repo->load = file->path;
        choose(repo, file);
        seen[other] = true;
        found++;
    }
    if (found == parts) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: %d of its %d parts are in the repository", one->path, found, parts);
}

/* A GGUF file with all its parts. */
static sllm_status choose_gguf(repository *repo, remote_file *wanted, sllm_error *error) {
    int part, parts;
    size_t prefix;
    split_part(wanted->path, ".gguf", &part, &parts, &prefix);
    repo->load = wanted->path;
    if (parts == 1) return choose(repo, wanted), SLLM_OK;
    return choose_parts(repo, wanted, ".gguf", error);
}

/* A model of its own: not the image projector or the importance matrix that lie beside models. */
static bool is_gguf_model(const remote_file *file) {
    const char *name = base_name(file->path);
    int part, parts;
    size_t prefix;
    if (!ends_with(name, ".gguf") || !strncasecmp(name, "mmproj", 6) || !strncasecmp(name, "imatrix", 7)) return false;
    split_part(file->path, ".gguf", &part, &parts, &prefix);
    return part == 1;
}

static remote_file *find_file(repository *repo, const char *path) {
    for (size_t i = 0; i < repo->n; i++)
        if (!strcmp(repo->files[i].path, path)) return &repo->files[i];
    return NULL;
}

/* model-0000k-of-0000n.safetensors: n; 0 for any other name. */
static int parts_of_checkpoint(const char *path) {
    static const char ending[] = ".safetensors";
    int part, parts;
    size_t prefix, n = strlen(path);
    split_part(path, ending, &part, &parts, &prefix);
    bool is_part = prefix == 5 && !strncmp(path, "model", 5) && n > 12 && !strcmp(path + n - 12, ending);
    return is_part && part >= 1 && part <= parts ? parts : 0;
}

/* Weights at the top of the repository: one of model-0000k-of-0000n.safetensors, or model.safetensors, or NULL. The
 * parts come first, except where a whole file has no index beside it: the parts are then left over. */
static remote_file *find_safetensors(repository *repo) {
    remote_file *whole = find_file(repo, "model.safetensors");
    if (whole && !find_file(repo, INDEX)) return whole;
    for (size_t i = 0; i < repo->n; i++)
        if (parts_of_checkpoint(repo->files[i].path)) return &repo->files[i];
    return whole;
}

static sllm_status choose_checkpoint(repository *repo, remote_file *weights, sllm_error *error) {
    sllm_status status = SLLM_OK;
    remote_file *index = find_file(repo, INDEX);
    repo->parts = parts_of_checkpoint(weights->path);
    if (repo->parts) status = choose_parts(repo, weights, ".safetensors", error);
    else choose(repo, weights);
    if (!status && repo->parts > 1 && !index)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: the repository lacks %s, which says what is in which part",
                         weights->path, INDEX);
    if (status) return status;
    for (size_t i = 0; i < repo->n; i++)
        if (is_companion(repo->files[i].path)) choose(repo, &repo->files[i]);
    repo->load = "";
    if (index) { /* to the front: it is small, and may tell that the rest is not worth fetching */
        remote_file first = repo->files[0];
        repo->files[0] = *index;
        *index = first;
    }
    return SLLM_OK;
}

/* Several models, or none: the names that are there, so that one can be picked. */
static sllm_status explain_choice(repository *repo, size_t n_gguf, sllm_error *error) {
    const sl_hf_name *name = &repo->source->hf;
    sl_buffer list = {0};
    size_t shown = 0;
    sllm_status status;
    if (n_gguf) {
        for (size_t i = 0; i < repo->n; i++) {
            if (!is_gguf_model(&repo->files[i])) continue;
            if (list.length + strlen(repo->files[i].path) > 600) break;
            sl_buffer_printf(&list, "%s%s", shown++ ? ", " : "", repo->files[i].path);
        }
        status =
            sl_fail(error, SLLM_ERROR_ARGUMENT,
                    "hf:%s/%s holds %zu GGUF models: choose one, as hf:%s/%s/FILE.gguf: %s%s", name->owner, name->repo,
                    n_gguf, name->owner, name->repo, list.data ? list.data : "", shown < n_gguf ? ", ..." : "");
    } else if (find_file(repo, "adapter_model.safetensors")) {
        status = sl_fail(error, SLLM_ERROR_UNSUPPORTED, "hf:%s/%s is an adapter, not a model: pull the model it adapts",
                         name->owner, name->repo);
    } else {
        const char *pickle = NULL;
        for (size_t i = 0; i < repo->n && !pickle; i++)
            if (ends_with(repo->files[i].path, ".bin") || ends_with(repo->files[i].path, ".pth") ||
                ends_with(repo->files[i].path, ".pt"))
                pickle = repo->files[i].path;
        status = sl_fail(
            error, SLLM_ERROR_UNSUPPORTED,
            "hf:%s/%s has neither a GGUF file nor config.json with model*.safetensors%s%s%s", name->owner, name->repo,
            pickle ? "; its " : "", pickle ? pickle : "",
            pickle ? " is a pickle, whose loading may run code: it is never fetched (look for a safetensors revision)"
                   : "");
    }
    sl_buffer_free(&list);
    return status;
}

static sllm_status choose_named(repository *repo, const char *file, sllm_error *error) {
    if (!ends_with(file, ".gguf"))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "%s: only GGUF files are pulled by name; a safetensors checkpoint is pulled whole, as hf:%s/%s",
                       file, repo->source->hf.owner, repo->source->hf.repo);
    remote_file *wanted = find_file(repo, file);
    if (wanted) return choose_gguf(repo, wanted, error);
    const char *near = NULL;
    int nearest = 1000;
    for (size_t i = 0; i < repo->n; i++) {
        int distance = is_gguf_model(&repo->files[i]) ? sl_name_distance(file, repo->files[i].path) : 1000;
        if (distance < nearest) nearest = distance, near = repo->files[i].path;
    }
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "hf:%s/%s has no file %s%s%s%s", repo->source->hf.owner,
                   repo->source->hf.repo, file, near ? " (is " : "", near ? near : "", near ? " meant?)" : "");
}

/* A folder with config.json and safetensors is a checkpoint, whatever else lies in it; otherwise the one GGUF file. */
static sllm_status choose_files(repository *repo, sllm_error *error) {
    size_t n_gguf = 0;
    remote_file *gguf = NULL;
    if (repo->source->hf.file[0]) return choose_named(repo, repo->source->hf.file, error);
    remote_file *weights = find_file(repo, "config.json") ? find_safetensors(repo) : NULL;
    if (weights) return choose_checkpoint(repo, weights, error);
    for (size_t i = 0; i < repo->n; i++)
        if (is_gguf_model(&repo->files[i])) gguf = &repo->files[i], n_gguf++;
    return n_gguf == 1 ? choose_gguf(repo, gguf, error) : explain_choice(repo, n_gguf, error);
}

/* ---------------------------------------------------------------- fetching */

/* ENDPOINT/OWNER/REPO/resolve/COMMIT/FILE, the file's name percent-encoded. */
static sllm_status file_url(const repository *repo, const char *path, sl_buffer *url, sllm_error *error) {
    sl_buffer_printf(url, "%s/%s/%s/resolve/%s/", repo->hub->endpoint, repo->source->hf.owner, repo->source->hf.repo,
                     repo->commit);
    for (const unsigned char *c = (const unsigned char *)path; *c; c++) {
        bool plain =
            (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-._~/", *c);
        sl_buffer_printf(url, plain ? "%c" : "%%%02X", *c);
    }
    return url->failed ? sl_fail_memory(error, "address", 0) : SLLM_OK;
}

/* One manifest file per chosen file, in the repository's order. */
static sllm_status fill_manifest(repository *repo, sl_manifest *manifest, sllm_error *error) {
    char folder[SL_HUB_ID], text[1024], name[900];
    sl_arena *arena = &manifest->arena;
    sllm_status status = sl_hf_folder(&repo->source->hf, folder, sizeof folder, error);
    if (!status && !repo->source->entry) status = sl_hf_write(&repo->source->hf, name, sizeof name, error);
    if (status) return status;
    manifest->id = repo->source->id;
    manifest->name = repo->source->entry ? repo->source->name : sl_arena_copy(arena, name, strlen(name));
    manifest->commit = repo->commit;
    manifest->pulled = manifest->verified = "";
    int n = snprintf(text, sizeof text, "hf:%s/%s@%s", repo->source->hf.owner, repo->source->hf.repo, repo->commit);
    manifest->source = sl_arena_copy(arena, text, (size_t)n);
    manifest->files = sl_arena_array(arena, repo->n_chosen, sizeof *manifest->files);
    bool ok = manifest->name && manifest->source && manifest->files;
    for (size_t i = 0; i < repo->n && ok; i++) {
        if (!repo->files[i].chosen) continue;
        char path[SL_HUB_ID + 1100];
        n = snprintf(path, sizeof path, "%s/%s", folder, repo->files[i].path);
        const char *copy = sl_arena_copy(arena, path, (size_t)n);
        manifest->files[manifest->n_files++] =
            (sl_manifest_file){copy, repo->files[i].bytes, ""}; /* no checksum: not here yet */
        if (repo->load == repo->files[i].path) manifest->path = copy;
        ok = copy && sl_name_is_safe_path(copy);
    }
    if (ok && !manifest->path) manifest->path = sl_arena_copy(arena, folder, strlen(folder));
    return ok && manifest->path ? SLLM_OK
                                : sl_fail(error, SLLM_ERROR_MEMORY, "hf:%s/%s: file names too long, or out of memory",
                                          repo->source->hf.owner, repo->source->hf.repo);
}

static bool on_check(void *user, uint64_t done, uint64_t total) {
    repository *repo = user;
    return sl_hub_progress(repo->hub, "checking what is there", done, total, false);
}

/* Takes over from an earlier pull what it recorded of files that are still the same on the hub: same checksum, or, for
 * small files without one, same commit. A recorded checksum says that the file is in the cache, whole. */
static void keep_records(const repository *repo, const sl_manifest *before, sl_manifest *manifest) {
    size_t index = 0;
    for (size_t i = 0; i < repo->n; i++) {
        if (!repo->files[i].chosen) continue;
        sl_manifest_file *file = &manifest->files[index++];
        const char *expected = repo->files[i].sha256;
        for (size_t k = 0; k < before->n_files; k++) {
            const sl_manifest_file *old = &before->files[k];
            if (strcmp(old->path, file->path) || !old->sha256[0]) continue;
            if (expected[0] ? !strcmp(old->sha256, expected) : !strcmp(before->commit, repo->commit)) *file = *old;
        }
    }
}

/* True when the file is in the cache already, in this version: recorded, or its checksum says so. */
static sllm_status is_present(repository *repo, const sl_manifest_file *file, const remote_file *remote,
                              const char *path, char sha256[65], bool *present, sllm_error *error) {
    struct stat info;
    *present = false;
    if (stat(path, &info) < 0 || !S_ISREG(info.st_mode)) return SLLM_OK;
    if (file->bytes != UINT64_MAX && (uint64_t)info.st_size != file->bytes) return SLLM_OK;
    if (file->sha256[0]) {
        snprintf(sha256, 65, "%s", file->sha256);
        *present = true;
        return SLLM_OK;
    }
    if (!remote->sha256[0]) return SLLM_OK;
    sllm_status status = sl_sha256_file(path, sha256, on_check, repo, error);
    *present = !status && !strcmp(sha256, remote->sha256);
    return status;
}

static sllm_status fetch_file(repository *repo, sl_manifest *manifest, sl_manifest_file *file,
                              const remote_file *remote, uint64_t done_before, uint64_t total, sllm_error *error) {
    char path[SL_HUB_PATH], sha256[65] = "";
    sl_buffer url = {0};
    struct stat info;
    bool present = false;
    sllm_status status = sl_cache_path(repo->hub, file->path, path, error);
    if (!status) status = is_present(repo, file, remote, path, sha256, &present, error);
    if (!status && present && stat(path, &info) == 0) file->bytes = (uint64_t)info.st_size;
    if (!status && !present) {
        status = file_url(repo, remote->path, &url, error);
        sl_download job = {.url = url.data,
                           .what = remote->path,
                           .path = path,
                           .bytes = remote->bytes,
                           .done_before = done_before,
                           .total = total};
        snprintf(job.sha256, sizeof job.sha256, "%s", remote->sha256);
        if (!status) status = sl_download_file(repo->hub, &job, error);
        if (!status) file->bytes = job.bytes, memcpy(sha256, job.sha256, sizeof sha256);
        sl_buffer_free(&url);
    }
    if (!status && !(file->sha256 = sl_arena_copy(&manifest->arena, sha256, strlen(sha256))))
        status = sl_fail_memory(error, "manifest", 0);
    return status;
}

/* Every file that the index names is among those that are pulled. */
static sllm_status check_index(const repository *repo, const sl_manifest_file *file, sllm_error *error) {
    char path[SL_HUB_PATH];
    sl_buffer text = {0};
    sl_arena arena = {0};
    const sl_json *root = NULL;
    sllm_status status = sl_cache_path(repo->hub, file->path, path, error);
    if (!status) status = sl_file_read(path, SL_HUB_JSON_LIMIT, &text, error);
    if (!status) status = sl_json_parse(&arena, text.data, text.length, path, &root, error);
    const sl_json *map = sl_json_get(root, "weight_map");
    if (!status && (!map || map->type != SL_JSON_OBJECT || !map->first))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: it has no object \"weight_map\"", path);
    for (const sl_json *item = status ? NULL : map->first; item && !status; item = item->next) {
        const char *name = sl_json_string(item);
        bool whole = name && !repo->parts && !strcmp(name, "model.safetensors");
        if (!whole && !(name && repo->parts && parts_of_checkpoint(name) == repo->parts))
            status = sl_fail(error, SLLM_ERROR_FORMAT,
                             "hf:%s/%s: its %s names the file %.200s, which is not one of the checkpoint's",
                             repo->source->hf.owner, repo->source->hf.repo, INDEX, name ? name : "(no text)");
    }
    sl_arena_free(&arena);
    sl_buffer_free(&text);
    return status;
}

/* Bytes still to come: of chosen files, less what lies in the cache. SIZE unknown counts as nothing. */
static uint64_t missing_bytes(const repository *repo, const sl_manifest *manifest, uint64_t *total) {
    char path[SL_HUB_PATH + 16];
    uint64_t missing = 0;
    bool known = true;
    *total = 0;
    for (size_t i = 0; i < manifest->n_files; i++) {
        struct stat info;
        uint64_t bytes = manifest->files[i].bytes, have = 0;
        if (bytes == UINT64_MAX || bytes > (UINT64_MAX >> 8)) {
            known = false;
            continue;
        }
        if (!sl_cache_path(repo->hub, manifest->files[i].path, path, NULL)) {
            if (stat(path, &info) == 0 || stat(strcat(path, ".partial"), &info) == 0) have = (uint64_t)info.st_size;
        }
        *total += bytes;
        missing += have < bytes ? bytes - have : 0;
    }
    if (!known) *total = 0;
    return missing;
}

static sllm_status fetch_all(repository *repo, sl_manifest *manifest, sllm_error *error) {
    uint64_t total, done = 0;
    size_t index = 0;
    const char *last = manifest->name;
    sllm_status status = sl_check_space(repo->hub, missing_bytes(repo, manifest, &total), error);
    for (size_t i = 0; i < repo->n && !status; i++) {
        if (!repo->files[i].chosen) continue;
        status = fetch_file(repo, manifest, &manifest->files[index], &repo->files[i], done, total, error);
        if (!status && !strcmp(repo->files[i].path, INDEX)) status = check_index(repo, &manifest->files[index], error);
        if (!status) done += manifest->files[index++].bytes;
        last = repo->files[i].path;
        if (!status) status = sl_manifest_write(repo->hub, manifest, error); /* an interruption forgets nothing */
    }
    if (!status) sl_hub_progress(repo->hub, last, done, done, true);
    return status;
}

sllm_status sl_repository_pull(sllm_hub *hub, const sl_source *source, sllm_error *error) {
    repository repo = {.hub = hub, .source = source};
    sl_manifest before = {0}, manifest = {0};
    char now[32];
    sllm_status status = list_files(&repo, error);
    if (!status) status = choose_files(&repo, error);
    if (!status) status = fill_manifest(&repo, &manifest, error);
    if (!status) sl_manifest_read(hub, source->id, &before, NULL); /* of an interrupted or older pull; may be absent */
    if (!status && before.commit) keep_records(&repo, &before, &manifest);
    if (!status) status = sl_manifest_write(hub, &manifest, error);
    if (!status) status = fetch_all(&repo, &manifest, error);
    if (!status) {
        sl_time_text(now);
        manifest.pulled = manifest.verified = now;
        manifest.complete = true;
        status = sl_manifest_write(hub, &manifest, error);
    }
    sl_manifest_free(&before);
    sl_manifest_free(&manifest);
    sl_arena_free(&repo.arena);
    return status;
}
