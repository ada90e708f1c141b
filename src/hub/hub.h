/* The hub from inside: one handle, and the parts it is made of.
 *
 *   name.c       what a MODEL argument may look like; near names
 *   catalogue.c  the data file of known models, checked once when it is opened
 *   shape.c      the configuration of a model that is not here
 *   tasks.c      what models are good for, in a controlled vocabulary
 *   choose.c     ranking the catalogue for a task and a machine
 *   manifest.c   one small JSON file per cached model, and its lock
 *   cache.c      resolve, list, remove, verify
 *   http.c       one GET through libcurl: redirects, token, limits
 *   download.c   one file, resumed until it is whole and its checksum is right
 *   repository.c a Hugging Face-style repository: which files make a model
 *   process.c    a child process whose output is kept and which can be cancelled
 *   pip.c        a model from Python packages
 *   doctor.c     what may be wrong with this machine
 *
 * The cache is a folder:
 *   FILE                       a model of one file that came from packages
 *   OWNER--REPO[@REVISION]/... files of a hub repository
 *   *.partial, *.partial.etag  a transfer that has not ended, and what it would continue
 *   manifests/ID.json          what a model consists of, with checksums
 *   manifests/PLACE.lock       while the files of PLACE, the first part of their paths, are being changed: two models
 *                              of one repository (hf:O/R and hf:O/R/FILE) may share files
 */
#ifndef SL_HUB_HUB_H
#define SL_HUB_HUB_H

#include "base/arena.h"
#include "base/json.h"
#include "sllm_hub.h"

enum {
    SL_HUB_PATH = 4096,          /* bytes of the longest path that is handled */
    SL_HUB_ID = 224,             /* bytes of a manifest's id: ID.json.partial must be a file name */
    SL_HUB_JSON_LIMIT = 32 << 20 /* bytes of catalogue, manifest or hub answer that are read */
};

struct sllm_hub {
    sl_arena arena; /* the strings below and the catalogue */
    const char *cache_dir;
    const char *endpoint; /* no slash at the end */
    char *token;          /* NULL: none; wiped at the end */
    const char *python;
    int stall_seconds, retries;
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void *user;
    double last_progress; /* sl_clock of the last call */
    const char *what;     /* of that call */
    bool cancelled;
    const sl_json *catalogue; /* root object, checked */
    const sl_json *models;    /* its array of entries */
    void *curl;               /* CURL handle, made at the first request and kept for its connections */
};

/* Tells the caller's callback, at most ten times a second unless `now`. False once it has asked to stop. */
bool sl_hub_progress(sllm_hub *hub, const char *what, uint64_t done, uint64_t total, bool now);
/* Waits, asking the callback every tenth of a second; false when it asked to stop. */
bool sl_hub_sleep(sllm_hub *hub, double seconds);
sllm_status sl_hub_cancelled(const char *what, sllm_error *error); /* SLLM_ERROR_CANCELLED with its line */

/* ---------------------------------------------------------------- names (name.c) */

/* True for a relative path without empty, "." or ".." parts, control characters or backslashes, each part at most 200
 * bytes and the whole at most 1,024: one that cannot leave the folder it is joined to. */
bool sl_name_is_safe_path(const char *path);

/* hf:OWNER/REPO[/FILE][@REVISION] */
typedef struct sl_hf_name {
    char owner[97], repo[97];
    char file[513];     /* "" when the whole repository is meant */
    char revision[129]; /* "" when none is given: the repository's default branch */
} sl_hf_name;

bool sl_name_is_hf(const char *text);
/* SLLM_ERROR_ARGUMENT naming the part that is wrong. */
sllm_status sl_hf_parse(const char *text, sl_hf_name *name, sllm_error *error);
/* The name written back, and the cache's names for it: folder "OWNER--REPO[@REVISION]", id the same with "--FILE". */
sllm_status sl_hf_write(const sl_hf_name *name, char *text, size_t size, sllm_error *error);
sllm_status sl_hf_folder(const sl_hf_name *name, char *folder, size_t size, sllm_error *error);
sllm_status sl_hf_id(const sl_hf_name *name, char *id, size_t size, sllm_error *error);

/* Edits (insert, delete, replace, swap neighbours) from a to b, letters' case ignored; 1,000 for names over 64 bytes.
 * Optimal string alignment, Boytsov 2011 (doi 10.1145/1963190.1963191), section 2.2. */
int sl_name_distance(const char *a, const char *b);

/* ---------------------------------------------------------------- catalogue (catalogue.c) */

/* Parses and checks the catalogue text into hub->catalogue. SLLM_ERROR_FORMAT names the entry and the field. */
sllm_status sl_catalogue_load(sllm_hub *hub, const char *text, size_t length, const char *what, sllm_error *error);
/* The entry with this name or alias (letters' case ignored); NULL: none. */
const sl_json *sl_catalogue_find(const sllm_hub *hub, const char *name);
/* "; near it: a, b" for an error message, "" when nothing is near. */
void sl_catalogue_near(const sllm_hub *hub, const char *name, char *out, size_t size);

/* ---------------------------------------------------------------- manifests (manifest.c) */

typedef struct sl_manifest_file {
    const char *path;   /* relative to the cache, checked */
    uint64_t bytes;     /* UINT64_MAX: not known yet */
    const char *sha256; /* 64 hexadecimal digits; "" when not known yet */
} sl_manifest_file;

typedef struct sl_manifest {
    sl_arena arena;                 /* everything below */
    const char *id, *name, *source; /* source: "pip:PACKAGE==VERSION ..." or "hf:OWNER/REPO@COMMIT" */
    const char *path;               /* what is loaded, relative to the cache: a file, or a folder */
    const char *commit;             /* "" for packages */
    const char *pulled, *verified;  /* UTC, "2026-01-15T09:30:00Z"; "" never */
    bool complete;
    sl_manifest_file *files; /* [n_files] */
    size_t n_files;
} sl_manifest;

/* SLLM_ERROR_NOT_FOUND when there is none; SLLM_ERROR_FORMAT when it is damaged. The caller frees it. */
sllm_status sl_manifest_read(sllm_hub *hub, const char *id, sl_manifest *manifest, sllm_error *error);
sllm_status sl_manifest_write(sllm_hub *hub, const sl_manifest *manifest, sllm_error *error);
void sl_manifest_free(sl_manifest *manifest);
/* Every file is there with its recorded size, and the manifest says complete. */
bool sl_manifest_is_whole(sllm_hub *hub, const sl_manifest *manifest);
/* Ids of all manifests, sorted, as an array of arena strings. */
sllm_status sl_manifest_ids(sllm_hub *hub, sl_arena *arena, const char ***ids, size_t *n, sllm_error *error);
void sl_time_text(char out[32]); /* now */

/* cache_dir + "/" + relative. SLLM_ERROR_ARGUMENT when too long. */
sllm_status sl_cache_path(const sllm_hub *hub, const char *relative, char out[SL_HUB_PATH], sllm_error *error);
/* Makes the folder and those above it, mode 0755. */
sllm_status sl_make_folders(const char *path, sllm_error *error);
/* The same for the folder that holds `path`. */
sllm_status sl_make_parent(const char *path, sllm_error *error);

/* Where in the cache the files of a path are: its first part, a repository's folder or a file of its own. */
void sl_cache_place(const char *relative, char place[SL_HUB_ID]);
/* Takes the exclusive lock of a place, waiting (cancellably) for another process that holds it. */
sllm_status sl_cache_lock(sllm_hub *hub, const char *place, int *lock, sllm_error *error);
void sl_cache_unlock(sllm_hub *hub, const char *place, int lock); /* removes the lock file */

/* ---------------------------------------------------------------- sources */

/* Where a MODEL comes from, and its id in the cache. */
typedef struct sl_source {
    const char *name;     /* canonical name, written to the manifest; borrowed */
    const sl_json *entry; /* catalogue entry, NULL for a bare hf: name */
    const sl_json *pip;   /* source object of kind "pip"; NULL: hf */
    sl_hf_name hf;
    char id[SL_HUB_ID];
    char place[SL_HUB_ID]; /* that of all its files, for the lock */
} sl_source;

/* The first source of a catalogue name, or an hf: name. SLLM_ERROR_NOT_FOUND with near names. */
sllm_status sl_source_find(sllm_hub *hub, const char *model, sl_source *source, sllm_error *error);
/* The index-th source of a catalogue entry; false when there are fewer. */
bool sl_source_of_entry(const sl_json *entry, size_t index, sl_source *source);

/* Pulls (lock held by the caller) and leaves the manifest complete. */
sllm_status sl_pip_pull(sllm_hub *hub, const sl_source *source, sllm_error *error);
sllm_status sl_repository_pull(sllm_hub *hub, const sl_source *source, sllm_error *error);

/* ---------------------------------------------------------------- space */

/* SLLM_ERROR_IO when the cache's file system has less than `bytes` free (and a little more). */
sllm_status sl_check_space(sllm_hub *hub, uint64_t bytes, sllm_error *error);
/* Free bytes for an unprivileged user, 0 when unknown. */
uint64_t sl_free_space(const char *path);
/* fsync of the folder that holds path, so that a rename survives a power cut. Best effort. */
void sl_sync_parent(const char *path);

#endif
