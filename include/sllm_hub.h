/* sllm_hub: the catalogue of models, the model cache, and downloads.
 *
 * The caller says where things are (sllm_hub_params); the library itself looks up no environment variable. What it
 * stands on does: libcurl takes its proxies from https_proxy, http_proxy, all_proxy and no_proxy (not for addresses of
 * this machine), a `python` without a slash is searched for in PATH, and the pip that it runs inherits the environment.
 * All strings are borrowed from the hub unless "the caller frees" is written. One hub belongs to one thread at a time.
 */
#ifndef SLLM_HUB_H
#define SLLM_HUB_H

#include "sllm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sllm_hub sllm_hub;

typedef struct sllm_hub_params {
    const char *cache_dir;      /* the model cache, e.g. ~/.cache/sllm/models; made on demand */
    const char *catalogue_path; /* a catalogue file; NULL: the one built into the library */
    const char *endpoint;       /* hub address; NULL: the catalogue's default */
    const char *token_path;     /* file holding an access token, readable by its owner only (mode 600); NULL: none.
                                   Its content is sent to `endpoint` only */
    const char *python;         /* interpreter for `-m pip`; NULL: "python3" */
    int stall_seconds;          /* a transfer slower than 1 byte/s for so long is retried; 0: 30 */
    int retries;                /* attempts after one that brought nothing, each resuming; -1: none, 0: 5 */
    /* Called at most ten times a second and once at the end. total 0: unknown. false cancels. */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total);
    void *user;
} sllm_hub_params;

SLLM_API sllm_status sllm_hub_open(const sllm_hub_params *params, sllm_hub **hub, sllm_error *error);
SLLM_API void sllm_hub_close(sllm_hub *hub);

/* The catalogue as JSON: an array of entries (name, family, parameters, context, languages, licence with what it
 * allows, tasks, benchmarks with source, sources). name NULL: all. Caller frees. */
SLLM_API sllm_status sllm_hub_catalogue(sllm_hub *hub, const char *name, char **json, sllm_error *error);

/* Turns MODEL (catalogue name, GGUF file, checkpoint folder, hf: name) into a path that sllm_model_load takes, without
 * the network. A name of the catalogue wins over a file or folder of that name; ./NAME is always a path. A file's own
 * name finds it in the cache too. SLLM_ERROR_NOT_FOUND says how to get it ("sllm pull NAME") or lists near names.
 * Caller frees *path. */
SLLM_API sllm_status sllm_hub_resolve(sllm_hub *hub, const char *model, char **path, sllm_error *error);

/* Downloads MODEL (catalogue name, hf:owner/repo[/file.gguf][@revision]) into the cache unless it is there, verifies
 * it, and gives its path as _resolve does. Of a repository: its safetensors checkpoint when it has one, otherwise its
 * one GGUF file; SLLM_ERROR_ARGUMENT lists the files when there are several. Interrupted transfers resume; nothing
 * half-written has the final name. A second process that pulls from the same repository waits for the first. */
SLLM_API sllm_status sllm_hub_pull(sllm_hub *hub, const char *model, char **path, sllm_error *error);

/* What the cache holds, as a JSON array: name, path, bytes, files, source, verified (last time, or null), partial.
 * Caller frees. */
SLLM_API sllm_status sllm_hub_list(sllm_hub *hub, char **json, sllm_error *error);
/* Removes a cached model, its partial files included; a file that another cached model has too (hf:o/r and
 * hf:o/r/file.gguf) stays until that one goes. *bytes (may be NULL): what was freed. */
SLLM_API sllm_status sllm_hub_remove(sllm_hub *hub, const char *model, uint64_t *bytes, sllm_error *error);
/* Recomputes checksums against those recorded at download. model NULL: all. The report is a JSON array of {name, file,
 * state, ok, expected, actual}, where state is "ok", "damaged", "missing" or "unreadable" for a file of a whole model,
 * "unfinished" for a model whose pull did not end (or goes on), and "manifest damaged" for one whose manifest cannot be
 * read; ok says whether state is "ok". SLLM_ERROR_FORMAT (report still given) unless all are ok or unfinished. Waits
 * for a process that removes the model. Caller frees. */
SLLM_API sllm_status sllm_hub_verify(sllm_hub *hub, const char *model, char **json, sllm_error *error);

/* What a model is chosen for. Zeroes and NULL: no such condition, or the default. */
typedef struct sllm_choose_params {
    const char *task;      /* one of sllm_choose_tasks or a synonym: "classification", "code" ...; NULL: chat */
    const char *language;  /* ISO 639-1 code */
    uint64_t ram;          /* bytes that the process may take; 0: what is free */
    double latency_s;      /* seconds until an answer of n_answer tokens to a prompt of n_prompt is whole */
    int n_prompt, n_answer; /* 0: 512 and 128 */
    int n_ctx;             /* positions that memory is planned for; 0: n_prompt + n_answer */
    bool commercial;       /* licences that allow commercial use, be it with conditions */
    const sllm_machine_speed *speed; /* must be given */
} sllm_choose_params;

/* Ranks the catalogue: an object with `task`, `ram_bytes`, `evidence` (how models are ordered), `chosen`, an array,
 * best first, of {rank, name, title, parameters, type, source, cached, memory_bytes, tokens_per_second,
 * prompt_tokens_per_second, time_to_first_token_s, answer_s, standing, benchmarks, licence, task, reasons}, and
 * `left_out`, of {name, reasons}. Models in the cache are planned from their headers, others from the catalogue's
 * shapes. Of a model's files the first that meets the conditions counts. SLLM_ERROR_ARGUMENT names what is unknown or
 * out of range. Caller frees. */
SLLM_API sllm_status sllm_hub_choose(sllm_hub *hub, const sllm_choose_params *params, char **json, sllm_error *error);

/* Checks machine, libraries, cache and permissions: a JSON array of {check, ok, detail, advice}. Caller frees. */
SLLM_API sllm_status sllm_hub_doctor(sllm_hub *hub, char **json, sllm_error *error);

#ifdef __cplusplus
}
#endif
#endif
