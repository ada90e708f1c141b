/* Reading files and standard input whole. */
#include "cli/cli.h"

#include "base/file.h"
#include "base/utf8.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_LIMIT = 256 << 20, LINE_LIMIT = 64 << 20 };

static int read_stdin(cli_app *app, sl_buffer *buffer) {
    char chunk[65536];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
        if (n == 0) return CLI_OK;
        if (n < 0 && errno == EINTR && !cli_interrupted()) continue;
        if (n < 0 && errno == EINTR) {
            cli_failure(app, "interrupted");
            return CLI_INTERRUPTED;
        }
        if (n < 0) return cli_failure(app, "standard input: %s", strerror(errno));
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

int cli_read_line(cli_app *app, FILE *in, const char *what, sl_buffer *line) {
    line->length = 0;
    errno = 0;
    for (int c; (c = getc_unlocked(in)) != EOF;) {
        if (c == '\n') return sl_buffer_append(line, "", 0) ? 1 : (cli_failure(app, "out of memory"), -1);
        if (line->length >= LINE_LIMIT) {
            cli_failure(app, "%s: a line is longer than %d MiB", what, LINE_LIMIT >> 20);
            return -1;
        }
        if (!sl_buffer_putc(line, (char)c)) {
            cli_failure(app, "out of memory while reading %s", what);
            return -1;
        }
    }
    if (ferror(in)) {
        if (errno == EINTR && cli_interrupted()) cli_failure(app, "interrupted");
        else cli_failure(app, "%s: %s", what, strerror(errno));
        return -1;
    }
    return line->length > 0; /* a last line without a newline counts */
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
