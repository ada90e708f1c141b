/* The two files of `sllm batch`. */
#include "cli/batch.h"

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIPE_LIMIT = 256 << 20, STATE_LIMIT = 1 << 20 };

/* ---------------------------------------------------------------- the input */

static int read_pipe(cli_batch_input *input) {
    char chunk[16384];
    for (;;) {
        ssize_t n = cli_read(input->reader.fd, chunk, sizeof chunk);
        if (n < 0 && cli_interrupted()) return CLI_INTERRUPTED;
        if (n < 0) return cli_failure(input->app, "%s: %s", input->name, strerror(errno));
        if (n == 0) break;
        if (input->piped.length + (size_t)n > PIPE_LIMIT)
            return cli_failure(input->app, "%s: a pipe may hold %d MiB; put more into a file", input->name,
                               PIPE_LIMIT >> 20);
        if (!sl_buffer_append(&input->piped, chunk, (size_t)n)) return cli_failure(input->app, "out of memory");
    }
    const char *bytes = input->piped.data ? input->piped.data : "";
    sl_sha256_hex(bytes, input->piped.length, input->sha256);
    return CLI_OK;
}

typedef struct counting {
    uint64_t size;
    size_t n_newlines;
    char last;
} counting;

static bool count_data(void *user, const void *data, size_t size) {
    counting *c = user;
    const char *at = data, *end = at + size;
    if (size) c->last = end[-1];
    c->size += size;
    while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) c->n_newlines++, at++;
    return !cli_interrupted();
}

static size_t lines_counted(const counting *c) { return c->n_newlines + (c->size > 0 && c->last != '\n'); }

static void count_pipe(cli_batch_input *input) {
    counting counted = {0};
    if (input->piped.length) count_data(&counted, input->piped.data, input->piped.length);
    input->n_lines = lines_counted(&counted);
}

/* Counts and hashes in one look, and comes back to the beginning. */
static int count_file(cli_batch_input *input) {
    counting counted = {0};
    sllm_error error = {0};
    int fd = input->reader.fd;
    if (sl_sha256_read(fd, input->name, input->sha256, count_data, &counted, &error))
        return cli_error(input->app, &error);
    if (lseek(fd, 0, SEEK_SET) < 0) return cli_failure(input->app, "%s: %s", input->name, strerror(errno));
    input->size = counted.size;
    input->n_lines = lines_counted(&counted);
    return cli_batch_input_check(input);
}

int cli_batch_input_open(cli_app *app, const char *path, cli_batch_input *input) {
    bool is_stdin = !strcmp(path, "-");
    struct stat info;
    *input = (cli_batch_input){.app = app, .name = is_stdin ? "standard input" : path};
    input->reader.fd = is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (input->reader.fd < 0 || fstat(input->reader.fd, &info)) {
        int status = cli_failure(app, "%s: %s", input->name, strerror(errno));
        if (input->reader.fd >= 0) close(input->reader.fd);
        return status;
    }
    int status = CLI_OK;
    if (S_ISDIR(info.st_mode)) status = cli_failure(app, "%s: is a folder; a file of JSON lines is needed", path);
    input->is_piped = is_stdin || !S_ISREG(info.st_mode);
    if (!status) status = input->is_piped ? read_pipe(input) : count_file(input);
    if (!status && input->is_piped) count_pipe(input);
    if (status) cli_batch_input_close(input);
    return status;
}

void cli_batch_input_close(cli_batch_input *input) {
    close(input->reader.fd);
    sl_buffer_free(&input->piped);
}

int cli_batch_input_check(const cli_batch_input *input) {
    struct stat info;
    if (input->is_piped) return CLI_OK;
    if (fstat(input->reader.fd, &info)) return cli_failure(input->app, "%s: %s", input->name, strerror(errno));
    if ((uint64_t)info.st_size == input->size) return CLI_OK;
    return cli_failure(input->app, "%s was changed while it was read: %llu bytes, and now %llu", input->name,
                       (unsigned long long)input->size, (unsigned long long)info.st_size);
}

static int next_of_file(cli_batch_input *input, sl_buffer *line) {
    int more = cli_read_line(input->app, &input->reader, input->name, line);
    if (more != 0) return more;
    if (!cli_batch_input_check(input))
        cli_failure(input->app, "%s was changed while it was read: it has fewer lines", input->name);
    return -1;
}

int cli_batch_input_next(cli_batch_input *input, sl_buffer *line) {
    line->length = 0;
    if (input->n_given == input->n_lines) return 0;
    input->n_given++;
    if (!input->is_piped) return next_of_file(input, line);
    const char *begin = input->piped.data + input->at;
    size_t left = input->piped.length - input->at;
    const char *newline = memchr(begin, '\n', left);
    size_t n = newline ? (size_t)(newline - begin) : left;
    input->at += newline ? n + 1 : n;
    if (sl_buffer_append(line, begin, n)) return 1;
    cli_failure(input->app, "out of memory while reading %s", input->name);
    return -1;
}

/* ---------------------------------------------------------------- what an output answers */

static const char way_out[] = "--restart makes it anew, or give another --out";

static char *state_path(const char *path) {
    sl_buffer name = {0};
    sl_buffer_printf(&name, "%s.state", path);
    return sl_buffer_take(&name, NULL);
}

/* What stands at STATE must have been written here before it is written anew: never through a link, never over
 * something else that happens to be called so. */
static int check_old_state(cli_app *app, const char *state, const cli_batch_input *input) {
    struct stat info, other;
    sl_arena arena = {0};
    sl_buffer text = {0};
    const sl_json *root = NULL;
    if (lstat(state, &info))
        return errno == ENOENT ? CLI_OK : cli_failure(app, "%s: %s", state, strerror(errno));
    if (!input->is_piped && fstat(input->reader.fd, &other) == 0 && other.st_dev == info.st_dev &&
        other.st_ino == info.st_ino)
        return cli_usage(app, "--in %s is where --out keeps its state; give another --out", state);
    bool ours = S_ISREG(info.st_mode) && !sl_file_read(state, STATE_LIMIT, &text, NULL) &&
                !sl_json_parse(&arena, text.data ? text.data : "", text.length, state, &root, NULL) &&
                sl_json_string(sl_json_get(root, "input")) && sl_json_string(sl_json_get(root, "model")) &&
                sl_json_string(sl_json_get(root, "seed"));
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    if (ours) return CLI_OK;
    return cli_failure(app, "%s exists and was not written by this command, which keeps there what the output answers; "
                       "move it away, or give another --out", state);
}

/* Each string of `now` must be in `then`. */
static int compare_identity(cli_app *app, const char *path, const sl_json *then, const sl_json *now) {
    for (const sl_json *m = now->first; m; m = m->next) {
        const char *old = sl_json_string(sl_json_get(then, m->key)), *new = sl_json_string(m);
        if (old && new && !strcmp(old, new)) continue;
        return cli_failure(app, "%s was made with another %s (%s, now %s); %s", path, m->key, old ? old : "none",
                           new ? new : "none", way_out);
    }
    return CLI_OK;
}

/* The state of an output that holds something must fit; gives its seed. */
static int check_state(cli_app *app, const char *path, const char *state, const sl_buffer *identity, bool seed_given,
                       uint64_t *seed) {
    sl_arena arena = {0};
    sl_buffer text = {0};
    sllm_error error = {0};
    const sl_json *then = NULL, *now = NULL;
    int status = CLI_OK;
    sllm_status failed = sl_file_read(state, STATE_LIMIT, &text, &error);
    if (failed == SLLM_ERROR_NOT_FOUND)
        status = cli_failure(app, "%s exists, and there is no %s that says what it answers; %s", path, state, way_out);
    else if (failed || sl_json_parse(&arena, text.data ? text.data : "", text.length, state, &then, &error) ||
             sl_json_parse(&arena, identity->data, identity->length, "identity", &now, &error))
        status = cli_error(app, &error);
    if (!status) status = compare_identity(app, path, then, now);
    const char *old = status ? NULL : sl_json_string(sl_json_get(then, "seed"));
    char given[32];
    snprintf(given, sizeof given, "%llu", (unsigned long long)*seed);
    if (!status && (!old || (seed_given && strcmp(old, given) != 0)))
        status = cli_failure(app, "%s was made with another seed (%s, now %s); %s", path, old ? old : "none", given,
                             way_out);
    if (!status) *seed = strtoull(old, NULL, 10);
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    return status;
}

static int write_state(cli_app *app, const char *state, const sl_buffer *identity, uint64_t seed) {
    sl_buffer text = {0};
    sllm_error error = {0};
    sl_buffer_append(&text, identity->data, identity->length - 1); /* without the closing brace */
    sl_buffer_printf(&text, ",\"seed\":\"%llu\"}\n", (unsigned long long)seed);
    int status = text.failed ? cli_failure(app, "out of memory") : CLI_OK;
    if (!status && sl_file_write(state, text.data, text.length, &error)) status = cli_error(app, &error);
    sl_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- the output */

static int io_failure(const cli_batch_output *out) {
    if (errno == EPIPE)
        return cli_failure(out->app, "%s: nobody reads it any more; %zu lines were written", out->path, out->n_lines);
    return cli_failure(out->app, "%s: %s", out->path, strerror(errno));
}

/* Cuts what stands behind the last newline: a line that was not finished. */
static int cut_partial_line(const cli_batch_output *out, off_t size) {
    char chunk[4096];
    off_t end = 0;
    for (off_t at = size; at > 0 && !end;) {
        off_t from = at > (off_t)sizeof chunk ? at - (off_t)sizeof chunk : 0;
        ssize_t n = pread(out->fd, chunk, (size_t)(at - from), from);
        if (n != at - from) return io_failure(out);
        while (n > 0 && chunk[n - 1] != '\n') n--;
        end = n > 0 ? from + n : 0;
        at = from;
    }
    return end < size && ftruncate(out->fd, end) ? io_failure(out) : CLI_OK;
}

static int check_line(cli_batch_output *out, const sl_buffer *text) {
    sl_arena arena = {0};
    const sl_json *root = NULL;
    int64_t number = 0;
    bool ok = sl_json_parse(&arena, text->data ? text->data : "", text->length, "line", &root, NULL) == SLLM_OK &&
              sl_json_int64(sl_json_get(root, "line"), &number) && number == (int64_t)out->n_lines + 1;
    if (ok && sl_json_get(root, "error")) out->n_errors++;
    sl_arena_free(&arena);
    if (ok) return out->n_lines++, CLI_OK;
    return cli_failure(out->app, "%s: line %zu is not one that this command wrote; %s", out->path, out->n_lines + 1,
                       way_out);
}

/* Counts the lines that are there and stands behind them. */
static int check_lines(cli_batch_output *out, const cli_batch_input *input) {
    cli_reader *reader = calloc(1, sizeof *reader);
    sl_buffer line = {0};
    int status = CLI_OK, more = 0;
    if (!reader) return cli_failure(out->app, "out of memory");
    reader->fd = out->fd;
    while (!status && (more = cli_read_line(out->app, reader, out->path, &line)) == 1) status = check_line(out, &line);
    if (more < 0) status = cli_interrupted() ? CLI_INTERRUPTED : CLI_FAILURE;
    if (!status && out->n_lines > input->n_lines)
        status = cli_failure(out->app, "%s has %zu lines but %s only %zu; %s", out->path, out->n_lines, input->name,
                             input->n_lines, way_out);
    sl_buffer_free(&line);
    free(reader);
    return status;
}

/* A regular file: continued, or begun. */
static int prepare_file(cli_batch_output *out, const cli_batch_input *input, const sl_buffer *identity, bool restart,
                        bool seed_given, uint64_t *seed) {
    struct stat info, other;
    if (flock(out->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return cli_failure(out->app, "%s: another process is writing it", out->path);
    if (fstat(out->fd, &info)) return io_failure(out); /* only now: whoever had the lock may have written */
    if (!input->is_piped && fstat(input->reader.fd, &other) == 0 && other.st_dev == info.st_dev &&
        other.st_ino == info.st_ino)
        return cli_usage(out->app, "--in and --out are the same file, %s", out->path);
    char *state = state_path(out->path);
    if (!state) return cli_failure(out->app, "out of memory");
    bool begins = restart || info.st_size == 0;
    int status = begins ? check_old_state(out->app, state, input) : CLI_OK;
    if (!status && begins && ftruncate(out->fd, 0)) status = io_failure(out);
    else if (!status && begins) status = write_state(out->app, state, identity, *seed);
    else if (!status) status = check_state(out->app, out->path, state, identity, seed_given, seed);
    if (!status && !begins) status = cut_partial_line(out, info.st_size);
    if (!status && !begins) status = check_lines(out, input);
    free(state);
    return status;
}

/* A pipe or a device, for writing alone: of a pipe opened for both this process would be a reader, and nobody would say
 * when the real one is gone. Waits for a reader so that Ctrl-C ends it. */
static int open_stream(cli_batch_output *out) {
    const struct timespec moment = {0, 50 * 1000 * 1000};
    while ((out->fd = open(out->path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC)) < 0 && errno == ENXIO) {
        struct stat info;
        if (cli_interrupted()) {
            cli_failure(out->app, "interrupted; nothing has opened %s for reading", out->path);
            return CLI_INTERRUPTED;
        }
        if (stat(out->path, &info) || !S_ISFIFO(info.st_mode)) { /* a device that is not there, a socket */
            errno = ENXIO;
            return io_failure(out);
        }
        nanosleep(&moment, NULL);
    }
    int flags = out->fd < 0 ? -1 : fcntl(out->fd, F_GETFL);
    return flags < 0 || fcntl(out->fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? io_failure(out) : CLI_OK;
}

static int open_output(cli_batch_output *out) {
    struct stat info;
    bool exists = stat(out->path, &info) == 0;
    if (exists && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return open_stream(out);
    out->fd = open(out->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (out->fd < 0 || fstat(out->fd, &info)) return io_failure(out);
    out->continues = S_ISREG(info.st_mode);
    if (out->continues) return CLI_OK;
    return cli_failure(out->app, "%s was a file and is one no more", out->path);
}

int cli_batch_output_open(cli_app *app, const char *path, const cli_batch_input *input, const sl_buffer *identity,
                          bool restart, bool seed_given, uint64_t *seed, cli_batch_output *out) {
    *out = (cli_batch_output){.app = app, .path = path, .fd = -1};
    if (!strcmp(path, "-")) return CLI_OK;
    int status = open_output(out);
    if (!status && out->continues) status = prepare_file(out, input, identity, restart, seed_given, seed);
    if (status && out->fd >= 0) close(out->fd);
    return status;
}

int cli_batch_output_write(cli_batch_output *out, const char *text, size_t length) {
    if (out->fd < 0) return cli_write(out->app, text, length) ? CLI_OK : CLI_FAILURE;
    while (length > 0) {
        ssize_t n = write(out->fd, text, length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_failure(out);
        text += n, length -= (size_t)n;
    }
    return CLI_OK;
}

int cli_batch_output_close(cli_batch_output *out, int status) {
    if (out->fd < 0) return status;
    bool ok = fsync(out->fd) == 0 || errno == EINVAL || errno == EROFS; /* a pipe or a device has no disk */
    int failed = errno;
    ok = close(out->fd) == 0 && ok;
    errno = failed;
    return ok || status ? status : io_failure(out);
}
