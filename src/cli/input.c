/* Reading files and standard input whole. */
#include "cli/cli.h"

#include "base/file.h"
#include "base/text.h"
#include "base/utf8.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_LIMIT = 256 << 20, LINE_LIMIT = 64 << 20 };

ssize_t cli_read(int fd, void *bytes, size_t size) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    for (;;) {
        if (cli_interrupted()) {
            errno = EINTR;
            return -1;
        }
        if (poll(&wait, 1, -1) < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        ssize_t n = read(fd, bytes, size);
        if (n >= 0 || errno != EINTR) return n;
    }
}

static int read_failure(cli_app *app, const char *what) {
    if (errno == EINTR && cli_interrupted()) {
        cli_failure(app, "interrupted");
        return CLI_INTERRUPTED;
    }
    return cli_failure(app, "%s: %s", what, strerror(errno));
}

static int read_stdin(cli_app *app, sl_buffer *buffer) {
    char chunk[16384];
    for (;;) {
        ssize_t n = cli_read(STDIN_FILENO, chunk, sizeof chunk);
        if (n == 0) return CLI_OK;
        if (n < 0) return read_failure(app, "standard input");
        if (buffer->length + (size_t)n > INPUT_LIMIT)
            return cli_failure(app, "standard input: longer than %d MiB; give less text", INPUT_LIMIT >> 20);
        if (!sl_buffer_append(buffer, chunk, (size_t)n))
            return cli_failure(app, "out of memory while reading standard input");
    }
}

int cli_read_file(cli_app *app, const char *path, sl_buffer *buffer) {
    sllm_error error = {0};
    if (!strcmp(path, "-")) return read_stdin(app, buffer);
    return sl_file_read(path, INPUT_LIMIT, buffer, &error) ? cli_error(app, &error) : CLI_OK;
}

/* Moves bytes up to the next newline, or all there are, into *line. True: the newline was there. */
static bool take_line(cli_reader *reader, sl_buffer *line) {
    const char *begin = reader->bytes + reader->at;
    size_t there = reader->end - reader->at;
    const char *newline = there ? memchr(begin, '\n', there) : NULL;
    size_t n = newline ? (size_t)(newline - begin) : there;
    sl_buffer_append(line, begin, n);
    reader->at += newline ? n + 1 : n;
    return newline != NULL;
}

int cli_read_line(cli_app *app, cli_reader *reader, const char *what, sl_buffer *line) {
    line->length = 0;
    while (!take_line(reader, line)) {
        ssize_t n = cli_read(reader->fd, reader->bytes, sizeof reader->bytes);
        if (n < 0) {
            read_failure(app, what);
            return -1;
        }
        if (line->length > LINE_LIMIT) {
            cli_failure(app, "%s: a line is longer than %d MiB", what, LINE_LIMIT >> 20);
            return -1;
        }
        reader->at = 0;
        reader->end = (size_t)n;
        if (n == 0 && line->length == 0) return 0;
        if (n == 0) break; /* a last line without a newline counts */
    }
    if (!line->failed) return 1;
    cli_failure(app, "out of memory while reading %s", what);
    return -1;
}

int cli_check_utf8(cli_app *app, const char *what, const char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        uint32_t code_point;
        bool valid = true;
        size_t taken = sl_utf8_decode(text + i, length - i, &code_point, &valid);
        if (!valid)
            return cli_failure(app, "%s is not UTF-8: byte 0x%02x at offset %zu; convert it first, e.g. with "
                                    "iconv -f LATIN1 -t UTF-8", what, (unsigned char)text[i], i);
        i += taken;
    }
    return CLI_OK;
}

bool cli_is_jsonl(const char *path) { return sl_ends_with(path, ".jsonl"); }
