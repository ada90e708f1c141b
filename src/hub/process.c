#include "hub/process.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT_OUTPUT = 16 << 10 };

extern char **environ; /* handed on to the child, never read for settings */

/* The environment with TMPDIR replaced. The array is freed by the caller; *setting holds its one new string. */
static char **child_environment(const char *temporary, sl_buffer *setting) {
    size_t n = 0, kept = 0;
    while (environ && environ[n]) n++;
    char **list = calloc(n + 2, sizeof *list);
    if (!list) return NULL;
    for (size_t i = 0; i < n; i++)
        if (!temporary || strncmp(environ[i], "TMPDIR=", 7)) list[kept++] = environ[i];
    if (temporary && !sl_buffer_printf(setting, "TMPDIR=%s", temporary)) {
        free(list);
        return NULL;
    }
    if (temporary) list[kept++] = setting->data;
    return list;
}

static int spawn(const sl_process *process, char **environment, int output, pid_t *child) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed) return failed;
    if ((failed = posix_spawnattr_init(&attributes))) {
        posix_spawn_file_actions_destroy(&actions);
        return failed;
    }
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);
    /* a group of its own: a cancelled pull ends pip's children too, and Ctrl-C in the terminal is ours to handle */
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    failed = posix_spawnp(child, process->arguments[0], &actions, &attributes,
                          (char *const *)(uintptr_t)process->arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static void keep_tail(sl_buffer *output, const char *data, size_t n) {
    if (!output) return;
    sl_buffer_append(output, data, n);
    if (output->failed || output->length <= KEPT_OUTPUT) return;
    size_t extra = output->length - KEPT_OUTPUT;
    memmove(output->data, output->data + extra, KEPT_OUTPUT + 1);
    output->length = KEPT_OUTPUT;
}

/* Reads until every writer has closed the pipe. */
static sllm_status follow(sl_process *process, int input, sllm_error *error) {
    double began = sl_clock();
    char chunk[4096];
    for (;;) {
        struct pollfd wait = {.fd = input, .events = POLLIN};
        int ready = poll(&wait, 1, 100);
        if (ready > 0) {
            ssize_t n = read(input, chunk, sizeof chunk);
            if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return SLLM_OK;
            if (n > 0) keep_tail(process->output, chunk, (size_t)n);
        }
        if (process->keep_going && !process->keep_going(process->user))
            return sl_fail(error, SLLM_ERROR_CANCELLED, "%s: cancelled", process->arguments[0]);
        if (process->time_limit > 0 && sl_clock() - began > process->time_limit)
            return sl_fail(error, SLLM_ERROR_IO, "%s: no end after %.0f seconds", process->arguments[0],
                           process->time_limit);
    }
}

/* Asks politely, then kills: pip removes its temporary files when it may. */
static void end_group(pid_t child) {
    kill(-child, SIGTERM);
    for (int i = 0; i < 20; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child) break;
        usleep(50 * 1000);
    }
    kill(-child, SIGKILL);
}

sllm_status sl_process_run(sl_process *process, sllm_error *error) {
    int ends[2], result = 0;
    pid_t child = 0;
    sl_buffer setting = {0};
    if (pipe2(ends, O_CLOEXEC) < 0) return sl_fail_errno(error, "make a pipe for", process->arguments[0]);
    char **environment = child_environment(process->temporary, &setting);
    int failed = environment ? spawn(process, environment, ends[1], &child) : ENOMEM;
    free(environment);
    sl_buffer_free(&setting);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        errno = failed;
        return sl_fail_errno(error, "start", process->arguments[0]);
    }
    sllm_status status = follow(process, ends[0], error);
    if (status) end_group(child);
    close(ends[0]);
    while (waitpid(child, &result, 0) < 0 && errno == EINTR) continue;
    process->exit_code = WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
    return status;
}
