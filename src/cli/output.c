/* Standard output that notices when nobody can receive it, and errors of one line. */
#include "cli/cli.h"

#include "base/number.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---------------------------------------------------------------- errors */

/* A message is one line whatever file name or template text is in it: control characters become \n, \t or \xNN. */
static void put_line(FILE *out, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '\n') fputs("\\n", out);
        else if (*c == '\t') fputs("\\t", out);
        else if (*c < 0x20 || *c == 0x7f) fprintf(out, "\\x%02x", *c);
        else putc(*c, out);
    }
    putc('\n', out);
}

static void complain(const cli_app *app, const char *format, va_list list) {
    char message[2048];
    vsnprintf(message, sizeof message, format, list);
    fflush(stdout); /* what was said before the error comes before it */
    fprintf(stderr, app->command ? "sllm: %s: " : "sllm: ", app->command ? app->command->name : "");
    put_line(stderr, message);
}

int cli_usage(const cli_app *app, const char *format, ...) {
    va_list list;
    va_start(list, format);
    complain(app, format, list);
    va_end(list);
    return CLI_USAGE;
}

int cli_failure(const cli_app *app, const char *format, ...) {
    va_list list;
    va_start(list, format);
    complain(app, format, list);
    va_end(list);
    return CLI_FAILURE;
}

int cli_error(const cli_app *app, const sllm_error *error) {
    if (error->status == SLLM_ERROR_CANCELLED && cli_interrupted()) {
        cli_failure(app, "interrupted");
        return CLI_INTERRUPTED;
    }
    cli_failure(app, "%s", error->message[0] ? error->message : sllm_status_name(error->status));
    return error->status == SLLM_ERROR_ARGUMENT ? CLI_USAGE : CLI_FAILURE;
}

/* ---------------------------------------------------------------- standard output */

static bool remember_failure(cli_app *app, bool ok) {
    if (!ok && !app->output_errno) app->output_errno = errno ? errno : EIO;
    return app->output_errno == 0;
}

bool cli_write(cli_app *app, const char *text, size_t length) {
    if (app->output_errno) return false;
    errno = 0;
    bool ok = fwrite(text, 1, length, stdout) == length;
    return remember_failure(app, ok && fflush(stdout) == 0);
}

void cli_printf(cli_app *app, const char *format, ...) {
    va_list list;
    if (app->output_errno) return;
    errno = 0;
    va_start(list, format);
    int n = vprintf(format, list);
    va_end(list);
    remember_failure(app, n >= 0);
}

int cli_put_json(cli_app *app, sl_buffer *json) {
    size_t length = 0;
    char *text = sl_buffer_putc(json, '\n') ? sl_buffer_take(json, &length) : NULL;
    sl_buffer_free(json);
    if (!text) return cli_failure(app, "out of memory while writing JSON");
    bool ok = cli_write(app, text, length);
    free(text);
    return ok ? CLI_OK : CLI_FAILURE;
}

int cli_finish_output(cli_app *app, int status) {
    errno = 0;
    remember_failure(app, fflush(stdout) == 0 && !ferror(stdout));
    if (!app->output_errno) return status;
    if (app->output_errno != EPIPE) /* a reader that has had enough is no news to the user */
        cli_failure(app, "standard output: %s", strerror(app->output_errno));
    return status == CLI_INTERRUPTED ? status : CLI_FAILURE;
}

void cli_print_safe(cli_app *app, const char *text, size_t length) {
    sl_buffer out = {0};
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) sl_buffer_printf(&out, "\\x%02x", c);
        else sl_buffer_putc(&out, (char)c);
    }
    if (out.data) cli_printf(app, "%s", out.data);
    sl_buffer_free(&out);
}

void cli_format_bytes(uint64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.95 && unit + 1 < sizeof units / sizeof *units) value /= 1000, unit++;
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

bool cli_parse_bytes(const char *text, uint64_t *bytes) {
    static const struct { const char *name; double factor; } units[] = {
        {"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
        {"KIB", 0x1p10}, {"MIB", 0x1p20}, {"GIB", 0x1p30}, {"TIB", 0x1p40}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9},
    };
    size_t used = strspn(text, "0123456789.");
    char number[32], *end;
    if (!used || used >= sizeof number) return false;
    memcpy(number, text, used);
    number[used] = 0;
    double value = sl_strtod(number, &end);
    if (*end) return false;
    for (text += used; *text == ' ';) text++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcasecmp(text, units[i].name)) continue;
        value *= units[i].factor;
        if (!(value >= 0 && value < 0x1p63)) return false;
        *bytes = (uint64_t)value;
        return true;
    }
    return false;
}
