/* The handle: parameters, catalogue, progress; and pulling, which is a matter of finding the source. */
#include "hub/hub.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* share/catalogue.json, built in (scripts/embed.cmake) */
extern const unsigned char sl_catalogue_json[];
extern const size_t sl_catalogue_json_size;

/* ---------------------------------------------------------------- progress */

bool sl_hub_progress(sllm_hub *hub, const char *what, uint64_t done, uint64_t total, bool now) {
    double clock = sl_clock();
    if (hub->cancelled || !hub->on_progress) return !hub->cancelled;
    if (!now && what == hub->what && clock - hub->last_progress < 0.1) return true;
    hub->last_progress = clock;
    hub->what = what;
    if (!hub->on_progress(hub->user, what, done, total)) hub->cancelled = true;
    return !hub->cancelled;
}

bool sl_hub_sleep(sllm_hub *hub, double seconds) {
    double end = sl_clock() + seconds;
    for (double left; (left = end - sl_clock()) > 0;) {
        if (!sl_hub_progress(hub, hub->what ? hub->what : "waiting", 0, 0, false)) return false;
        double slice = left < 0.1 ? left : 0.1;
        nanosleep(&(struct timespec){.tv_nsec = (long)(slice * 1e9)}, NULL);
    }
    return true;
}

sllm_status sl_hub_cancelled(const char *what, sllm_error *error) {
    return sl_fail(error, SLLM_ERROR_CANCELLED, "%s: cancelled; what arrived is kept and the next pull continues there",
                   what);
}

/* ---------------------------------------------------------------- opening */

enum { TOKEN_LIMIT = 4096 };

/* Reads the file, of which only its owner may know the content, into text: checked and read through one descriptor, so
 * that it is one file. */
static sllm_status read_private(const char *path, char text[TOKEN_LIMIT + 1], sllm_error *error) {
    struct stat info;
    size_t length = 0;
    ssize_t n = 1;
    sllm_status status = SLLM_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sl_fail_errno(error, "open", path);
    if (fstat(fd, &info) < 0) status = sl_fail_errno(error, "stat", path);
    else if (!S_ISREG(info.st_mode)) status = sl_fail(error, SLLM_ERROR_IO, "%s: not a regular file", path);
    else if (info.st_mode & (S_IRWXG | S_IRWXO))
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: others can read this token file: `chmod 600 %s`", path, path);
    while (!status && n && length <= TOKEN_LIMIT) {
        n = read(fd, text + length, TOKEN_LIMIT + 1 - length);
        if (n > 0) length += (size_t)n;
        else if (n < 0 && errno != EINTR) status = sl_fail_errno(error, "read", path);
    }
    close(fd);
    if (!status && (length > TOKEN_LIMIT || memchr(text, 0, length)))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: at most %d bytes of text are expected", path, TOKEN_LIMIT);
    text[status ? 0 : length] = 0;
    return status;
}

static sllm_status read_token(sllm_hub *hub, const char *path, sllm_error *error) {
    char text[TOKEN_LIMIT + 1];
    sllm_status status = read_private(path, text, error);
    if (status) {
        explicit_bzero(text, sizeof text);
        return sl_error_prefix(error, status, "token file");
    }
    size_t start = strspn(text, " \t\r\n"), length = strcspn(text + start, " \t\r\n");
    size_t rest = start + length + strspn(text + start + length, " \t\r\n");
    bool ok = length && !text[rest];
    for (size_t i = start; i < start + length; i++)
        if (text[i] < 0x21 || text[i] > 0x7e) ok = false; /* it becomes part of a header */
    if (!ok)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: a token file holds one line of printable characters", path);
    else if (!(hub->token = sl_arena_copy(&hub->arena, text + start, length)))
        status = sl_fail_memory(error, path, length);
    explicit_bzero(text, sizeof text);
    return status;
}

static const char *copy_without_slash(sl_arena *arena, const char *text) {
    size_t length = strlen(text);
    while (length > 1 && text[length - 1] == '/') length--;
    return sl_arena_copy(arena, text, length);
}

static sllm_status open_catalogue(sllm_hub *hub, const char *path, sllm_error *error) {
    if (!path)
        return sl_catalogue_load(hub, (const char *)sl_catalogue_json, sl_catalogue_json_size, "built-in catalogue",
                                 error);
    sl_buffer text = {0};
    sllm_status status = sl_file_read(path, SL_HUB_JSON_LIMIT, &text, error);
    if (!status) status = sl_catalogue_load(hub, text.data, text.length, path, error);
    sl_buffer_free(&text);
    return status;
}

static sllm_status check_params(const sllm_hub_params *params, sllm_error *error) {
    if (!params || !params->cache_dir || !params->cache_dir[0])
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "cache_dir: a folder for the model cache must be given");
    if (strlen(params->cache_dir) > SL_HUB_PATH - 1536)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "cache_dir: at most %d bytes", SL_HUB_PATH - 1536);
    if (params->stall_seconds < 0 || params->stall_seconds > 86400)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "stall_seconds %d: 0 (30 seconds) to 86400", params->stall_seconds);
    if (params->retries < -1 || params->retries > 1000)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "retries %d: -1 (none), 0 (5) to 1000", params->retries);
    return SLLM_OK;
}

static sllm_status check_endpoint(const char *endpoint, sllm_error *error) {
    bool web = !strncmp(endpoint, "https://", 8) || !strncmp(endpoint, "http://", 7);
    for (const char *c = endpoint; *c; c++)
        if (*c < 0x21 || *c > 0x7e || *c == '@' || *c == '?' || *c == '#') web = false;
    if (web && strlen(endpoint) < 512) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub address %.200s: https://HOST[:PORT][/PATH] is expected", endpoint);
}

sllm_status sllm_hub_open(const sllm_hub_params *params, sllm_hub **hub, sllm_error *error) {
    if (!hub) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub: a place for the handle must be given");
    *hub = NULL;
    sllm_status status = check_params(params, error);
    if (status) return status;
    sllm_hub *made = calloc(1, sizeof *made);
    if (!made) return sl_fail_memory(error, "hub", sizeof *made);
    made->stall_seconds = params->stall_seconds ? params->stall_seconds : 30;
    made->retries = params->retries == 0 ? 5 : params->retries < 0 ? 0 : params->retries;
    made->on_progress = params->on_progress;
    made->user = params->user;
    made->cache_dir = copy_without_slash(&made->arena, params->cache_dir);
    made->python = copy_without_slash(&made->arena, params->python ? params->python : "python3");
    status = open_catalogue(made, params->catalogue_path, error);
    if (!status) {
        const char *endpoint = params->endpoint;
        if (!endpoint) endpoint = sl_json_string(sl_json_get(made->catalogue, "endpoint"));
        status = check_endpoint(endpoint, error);
        made->endpoint = copy_without_slash(&made->arena, endpoint);
    }
    if (!status && params->token_path) status = read_token(made, params->token_path, error);
    if (!status && (!made->cache_dir || !made->python || !made->endpoint)) status = sl_fail_memory(error, "hub", 0);
    if (status) return sllm_hub_close(made), status;
    *hub = made;
    return SLLM_OK;
}

void sllm_hub_close(sllm_hub *hub) {
    if (!hub) return;
    if (hub->curl) curl_easy_cleanup(hub->curl);
    if (hub->token) explicit_bzero(hub->token, strlen(hub->token));
    sl_arena_free(&hub->arena);
    free(hub);
}

sllm_status sllm_hub_catalogue(sllm_hub *hub, const char *name, char **json, sllm_error *error) {
    if (json) *json = NULL;
    if (!hub || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and json must be given");
    const sl_json *entry = name ? sl_catalogue_find(hub, name) : NULL;
    if (name && !entry) {
        char near[400];
        sl_catalogue_near(hub, name, near, sizeof near);
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%.200s: not a name of the catalogue%s", name, near);
    }
    sl_buffer out = {0};
    sl_buffer_puts(&out, entry ? "[" : "");
    sl_json_write_value(&out, entry ? entry : hub->models);
    sl_buffer_puts(&out, entry ? "]" : "");
    if (out.failed) {
        sl_buffer_free(&out);
        return sl_fail_memory(error, "the catalogue", 0);
    }
    *json = sl_buffer_take(&out, NULL);
    return *json ? SLLM_OK : sl_fail_memory(error, "the catalogue", 0);
}

/* ---------------------------------------------------------------- pulling */

static sllm_status pull_locked(sllm_hub *hub, const sl_source *source, sllm_error *error) {
    sl_manifest manifest;
    sllm_status status = sl_manifest_read(hub, source->id, &manifest, error);
    bool whole = !status && sl_manifest_is_whole(hub, &manifest);
    if (!status) sl_manifest_free(&manifest);
    if (whole) return SLLM_OK;
    if (status == SLLM_ERROR_MEMORY) return status;
    if (error) *error = (sllm_error){0}; /* no manifest, or a damaged one: it is written anew */
    return source->pip ? sl_pip_pull(hub, source, error) : sl_repository_pull(hub, source, error);
}

sllm_status sllm_hub_pull(sllm_hub *hub, const char *model, char **path, sllm_error *error) {
    sl_source source;
    int lock = -1;
    if (path) *path = NULL;
    if (!hub || !model || !path) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub, model and path must be given");
    hub->cancelled = false;
    sllm_status status = sl_source_find(hub, model, &source, error);
    if (status) return status;
    status = sl_make_folders(hub->cache_dir, error);
    if (!status) status = sl_cache_lock(hub, source.place, &lock, error);
    if (!status) status = pull_locked(hub, &source, error);
    sl_cache_unlock(hub, source.place, lock);
    return status ? status : sllm_hub_resolve(hub, model, path, error);
}
