/* Reading files and standard input whole. */
#include "cli/cli.h"

#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_LIMIT = 256 << 20 };

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
