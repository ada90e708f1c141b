#include "cli/chat.h"

#include "base/file.h"
#include "base/utf8.h"

#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000 };

struct cli_line_source {
    cli_app *app;
    EditLine *editor; /* NULL: plain lines */
    History *history;
    char history_path[4096]; /* "": none */
    const char *prompt;
    bool cancelled;       /* Ctrl-C ended the line being read */
    bool was_cancelled;   /* and the one before was cancelled while empty */
    sl_buffer line;
    cli_reader reader; /* plain lines */
};

/* ---------------------------------------------------------------- line editing */

static char *prompt_of(EditLine *editor) {
    cli_line_source *source = NULL;
    el_get(editor, EL_CLIENTDATA, &source);
    return (char *)source->prompt;
}

/* One character for libedit. Its own reader retries a read that a signal interrupted, which would lose Ctrl-C: here an
 * interrupt ends the line as Return does, and `cancelled` tells the two apart. */
static int read_character(EditLine *editor, wchar_t *character) {
    cli_line_source *source = NULL;
    char bytes[4];
    uint32_t code_point = 0;
    el_get(editor, EL_CLIENTDATA, &source);
    for (size_t n = 0; n < sizeof bytes;) {
        ssize_t got = cli_read(STDIN_FILENO, bytes + n, 1);
        if (got < 0 && cli_interrupted()) {
            source->cancelled = true;
            cli_interrupt_clear();
            *character = L'\n';
            return 1;
        }
        if (got <= 0) return (int)got;
        if (!sl_utf8_incomplete(bytes, ++n)) {
            sl_utf8_decode(bytes, n, &code_point, NULL);
            break;
        }
    }
    *character = (wchar_t)code_point;
    return 1;
}

static void open_history(cli_line_source *source) {
    HistEvent event;
    source->history = history_init();
    if (!source->history) return;
    history(source->history, &event, H_SETSIZE, HISTORY_LINES);
    history(source->history, &event, H_SETUNIQUE, 1);
    el_set(source->editor, EL_HIST, history, source->history);
    const char *directory = source->app->cache_dir;
    if (!directory || !sl_path_join(source->history_path, sizeof source->history_path, directory, "chat_history"))
        return;
    history(source->history, &event, H_LOAD, source->history_path);
}

/* What was typed is nobody else's business: the folder is made 0700 and the file 0600 from its first byte. */
static void save_history(cli_line_source *source) {
    HistEvent event;
    if (!source->history || !source->history_path[0]) return;
    mode_t mask = umask(077);
    for (char *slash = strchr(source->history_path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(source->history_path, 0700);
        *slash = '/';
    }
    history(source->history, &event, H_SAVE, source->history_path);
    chmod(source->history_path, 0600);
    umask(mask);
}

static bool open_editor(cli_line_source *source) {
    source->editor = el_init("sllm", stdin, stdout, stderr);
    if (!source->editor) return false;
    el_set(source->editor, EL_CLIENTDATA, source);
    el_set(source->editor, EL_PROMPT, prompt_of);
    el_set(source->editor, EL_EDITOR, "emacs");
    el_set(source->editor, EL_GETCFN, read_character);
    el_set(source->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    open_history(source);
    return true;
}

cli_line_source *cli_line_open(cli_app *app) {
    cli_line_source *source = calloc(1, sizeof *source);
    bool ok = source != NULL;
    if (source) source->app = app, source->reader.fd = STDIN_FILENO;
    if (source && app->stdin_is_terminal && app->stdout_is_terminal) ok = open_editor(source);
    if (ok) return source;
    cli_failure(app, "out of memory while preparing the terminal");
    free(source);
    return NULL;
}

void cli_line_close(cli_line_source *source) {
    if (!source) return;
    if (source->editor) {
        save_history(source);
        el_end(source->editor);
    }
    if (source->history) history_end(source->history);
    sl_buffer_free(&source->line);
    free(source);
}

/* ---------------------------------------------------------------- one line */

static cli_line read_edited(cli_line_source *source) {
    int length = 0;
    source->cancelled = false;
    const char *text = el_gets(source->editor, &length);
    if (source->cancelled) {
        bool empty = !text || length <= 1; /* the newline alone */
        bool again = empty && source->was_cancelled;
        source->was_cancelled = empty;
        return again ? CLI_LINE_END : CLI_LINE_CANCELLED;
    }
    source->was_cancelled = false;
    if (!text || length <= 0) {
        cli_write(source->app, "\n", 1);
        return CLI_LINE_END;
    }
    if (text[length - 1] == '\n') length--;
    source->line.length = 0;
    sl_buffer_append(&source->line, text, (size_t)length);
    return CLI_LINE_TEXT;
}

static cli_line read_plain(cli_line_source *source) {
    int more = cli_read_line(source->app, &source->reader, "standard input", &source->line);
    if (more > 0) return CLI_LINE_TEXT;
    return more < 0 ? CLI_LINE_FAILED : CLI_LINE_END;
}

static cli_line read_line(cli_line_source *source, const char *prompt) {
    source->prompt = prompt;
    cli_line got = source->editor ? read_edited(source) : read_plain(source);
    if (got != CLI_LINE_TEXT || !source->line.failed) return got;
    cli_failure(source->app, "out of memory while reading a line");
    return CLI_LINE_FAILED;
}

/* ---------------------------------------------------------------- a message */

static bool ends_with(const sl_buffer *text, const char *end) {
    size_t n = strlen(end);
    return text->length >= n && !memcmp(text->data + text->length - n, end, n);
}

/* The lines after an opening """ up to one that ends with """. */
static cli_line read_block(cli_line_source *source, sl_buffer *text) {
    for (bool first = true;; first = false) {
        if (!first) sl_buffer_putc(text, '\n');
        cli_line got = read_line(source, "... ");
        if (got == CLI_LINE_END) {
            cli_failure(source->app, "the input ended inside \"\"\"; close it with \"\"\"");
            return CLI_LINE_FAILED;
        }
        if (got != CLI_LINE_TEXT) return got;
        bool last = ends_with(&source->line, "\"\"\"");
        if (last) source->line.length -= 3;
        sl_buffer_append(text, source->line.data, source->line.length);
        if (last) return CLI_LINE_TEXT;
    }
}

static void remember(cli_line_source *source, const sl_buffer *text) {
    HistEvent event;
    if (source->history && text->length && !memchr(text->data, '\n', text->length))
        history(source->history, &event, H_ENTER, text->data);
}

cli_line cli_line_read(cli_line_source *source, sl_buffer *text) {
    text->length = 0;
    cli_line got = read_line(source, "> ");
    if (got != CLI_LINE_TEXT) return got;
    sl_buffer_append(text, source->line.data ? source->line.data : "", source->line.length);
    if (text->length >= 3 && !memcmp(text->data, "\"\"\"", 3)) {
        bool closed = text->length >= 6 && ends_with(text, "\"\"\"");
        memmove(text->data, text->data + 3, text->length - 3);
        text->length -= closed ? 6 : 3;
        if (!closed && text->length) sl_buffer_putc(text, '\n');
        if (!closed) got = read_block(source, text);
    } else {
        while (got == CLI_LINE_TEXT && ends_with(text, "\\")) {
            text->data[text->length - 1] = '\n';
            got = read_line(source, "... ");
            if (got == CLI_LINE_TEXT)
                sl_buffer_append(text, source->line.data ? source->line.data : "", source->line.length);
            if (got == CLI_LINE_END) got = CLI_LINE_TEXT, text->length--; /* nothing follows the backslash */
        }
    }
    if (!sl_buffer_append(text, "", 0)) {
        cli_failure(source->app, "out of memory while reading a message");
        return CLI_LINE_FAILED;
    }
    if (text->length) text->data[text->length] = 0;
    if (got == CLI_LINE_TEXT) remember(source, text);
    return got;
}
