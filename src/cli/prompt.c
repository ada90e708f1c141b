#include "cli/prompt.h"

#include "base/json.h"
#include "cli/answer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const cli_option cli_prompt_options[] = {
    {"prompt-file", 'f', CLI_TEXT, "FILE", .offset = offsetof(cli_prompt_values, file),
     .help = "Take the prompt from FILE; {{key}} in it is a slot, \\{{ writes {{ itself"},
    {"set", 0, CLI_TEXTS, "KEY=VALUE", .offset = offsetof(cli_prompt_values, set),
     .help = "Fill the slot {{KEY}} of the prompt file"},
    {"stdin", 0, CLI_FLAG, .offset = offsetof(cli_prompt_values, wait),
     .help = "Wait for a pipe on standard input as long as it takes; beside a prompt its first byte is else waited for "
             "10 seconds"},
    {"examples", 0, CLI_TEXT, "FILE.jsonl", .offset = offsetof(cli_prompt_values, examples),
     .help =
         "Few-shot examples before the prompt, one a line: {\"input\": TEXT, \"output\": TEXT}, or with a prompt file "
         "{\"set\": {KEY: TEXT}, \"output\": TEXT}"},
    {0},
};

/* ---------------------------------------------------------------- slots */

static int line_of(const char *text, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

static bool is_key_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
}

static bool add_piece(cli_form *form, const char *text, size_t length, bool slot, int line) {
    if (length == 0) return true;
    cli_piece *pieces = realloc(form->pieces, (form->n + 1) * sizeof *pieces);
    if (!pieces) return false;
    form->pieces = pieces;
    form->pieces[form->n++] = (cli_piece){text, length, line, slot};
    return true;
}

/* The slot that begins at text[*at] with "{{"; moves *at behind its "}}". */
static int add_slot(cli_app *app, cli_form *form, const char *text, size_t length, size_t *at) {
    size_t begin = *at + 2, end;
    while (begin < length && text[begin] == ' ') begin++;
    for (end = begin; end < length && is_key_byte(text[end]);) end++;
    size_t close = end;
    while (close < length && text[close] == ' ') close++;
    if (end == begin || close + 1 >= length || text[close] != '}' || text[close + 1] != '}')
        return cli_failure(app, "%s: line %d: a slot is written {{key}} with letters, digits, _ - . in the key; "
                                "write \\{{ for the braces themselves", form->file, line_of(text, *at));
    if (!add_piece(form, text + begin, end - begin, true, line_of(text, *at)))
        return cli_failure(app, "out of memory while reading %s", form->file);
    *at = close + 2;
    return CLI_OK;
}

int cli_form_parse(cli_app *app, const char *file, const char *text, size_t length, cli_form *form) {
    int status = CLI_OK;
    size_t from = 0; /* of the text not yet in a piece */
    bool ok = true;
    *form = (cli_form){.file = file};
    for (size_t i = 0; !status && ok && i < length;) {
        bool braces = i + 1 < length && text[i] == '{' && text[i + 1] == '{';
        bool escaped = i + 2 < length && text[i] == '\\' && text[i + 1] == '{' && text[i + 2] == '{';
        if (escaped || braces) ok = add_piece(form, text + from, i - from, false, 0);
        if (escaped) from = i + 1, i += 3; /* the braces are text, the backslash is not */
        else if (braces) status = ok ? add_slot(app, form, text, length, &i) : CLI_OK, from = i;
        else i++;
    }
    if (!status && ok) ok = add_piece(form, text + from, length - from, false, 0);
    if (!ok) status = cli_failure(app, "out of memory while reading %s", file);
    if (status) cli_form_free(form);
    return status;
}

void cli_form_free(cli_form *form) {
    free(form->pieces);
    *form = (cli_form){0};
}

bool cli_form_has_slot(const cli_form *form, const char *key, size_t length) {
    for (size_t i = 0; i < form->n; i++)
        if (form->pieces[i].slot && form->pieces[i].length == length && !memcmp(form->pieces[i].text, key, length))
            return true;
    return false;
}

/* The value of a slot among values [n] of "key=value", NULL when none was given; a later value wins. */
static const char *find_value(const cli_piece *slot, const char *const *values, size_t n) {
    for (size_t i = n; i-- > 0;)
        if (!strncmp(values[i], slot->text, slot->length) && values[i][slot->length] == '=')
            return values[i] + slot->length + 1;
    return NULL;
}

static int fill(cli_app *app, const cli_form *form, const char *const *values, size_t n, sl_buffer *out) {
    for (size_t i = 0; i < form->n; i++) {
        const cli_piece *piece = &form->pieces[i];
        const char *value = piece->slot ? find_value(piece, values, n) : NULL;
        int length = (int)piece->length;
        if (piece->slot && !value)
            return cli_usage(app, "%s: line %d: slot {{%.*s}} has no value; add --set %.*s=VALUE", form->file,
                             piece->line, length, piece->text, length, piece->text);
        if (piece->slot) sl_buffer_puts(out, value);
        else sl_buffer_append(out, piece->text, piece->length);
    }
    for (size_t i = 0; i < n; i++)
        if (!cli_form_has_slot(form, values[i], strcspn(values[i], "=")))
            return cli_usage(app, "%s has no slot {{%.*s}}", form->file, (int)strcspn(values[i], "="), values[i]);
    return out->failed ? cli_failure(app, "out of memory while filling %s", form->file) : CLI_OK;
}

int cli_prompt_fill(cli_app *app, const char *file, const char *text, size_t length, const char *const *values,
                    size_t n, sl_buffer *out) {
    cli_form form;
    for (size_t i = 0; i < n; i++)
        if (!strchr(values[i], '=') || values[i][0] == '=')
            return cli_usage(app, "--set %s: must be KEY=VALUE", values[i]);
    int status = cli_form_parse(app, file, text, length, &form);
    if (!status) status = fill(app, &form, values, n, out);
    cli_form_free(&form);
    return status;
}

/* ---------------------------------------------------------------- the user's text */

/* A terminal is not read: nobody expects a prompt that waits for Ctrl-D. Nor is /dev/null or a closed descriptor. */
static bool stdin_has_text(void) {
    struct stat status;
    if (fstat(STDIN_FILENO, &status)) return false;
    return S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode) || S_ISSOCK(status.st_mode);
}

/* Waits for the first byte or the end of standard input. False, and said so, when neither comes. */
static bool stdin_answers(cli_app *app) {
    enum { SILENT_S = 2, LIMIT_S = 10 };
    struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
    for (int tenths = 0; tenths < 10 * LIMIT_S && !cli_interrupted(); tenths++) {
        if (poll(&wait, 1, 100) > 0) return true;
        if (tenths == 10 * SILENT_S)
            fprintf(stderr, "sllm: %s: waiting for the rest of the prompt on standard input "
                    "(--stdin: as long as it takes)\n",
                    app->command->name);
    }
    if (cli_interrupted()) return true; /* the read that follows reports it */
    fprintf(stderr, "sllm: %s: nothing came on standard input in %d s; going on with the prompt that was given\n",
            app->command->name, LIMIT_S);
    return false;
}

static int append_stdin(cli_app *app, sl_buffer *prompt) {
    sl_buffer piped = {0};
    int status = cli_read_file(app, "-", &piped);
    if (!status) status = cli_check_utf8(app, "standard input", piped.data ? piped.data : "", piped.length);
    if (!status && piped.length && piped.data[piped.length - 1] == '\n') piped.length--;
    if (!status && piped.length) {
        if (prompt->length) sl_buffer_puts(prompt, "\n\n");
        sl_buffer_append(prompt, piped.data, piped.length);
    }
    sl_buffer_free(&piped);
    return status;
}

static int append_file(cli_app *app, const cli_prompt_values *values, sl_buffer *prompt) {
    sl_buffer text = {0};
    int status = cli_read_file(app, values->file, &text);
    if (!status) status = cli_check_utf8(app, values->file, text.data ? text.data : "", text.length);
    if (!status && text.length && text.data[text.length - 1] == '\n') text.length--; /* as editors end files */
    if (!status)
        status = cli_prompt_fill(app, values->file, text.data ? text.data : "", text.length, values->set.items,
                                 values->set.n, prompt);
    sl_buffer_free(&text);
    return status;
}

int cli_prompt_read(cli_app *app, const cli_prompt_values *values, const char *argument, sl_buffer *prompt) {
    int status = CLI_OK;
    bool file_is_stdin = values->file && !strcmp(values->file, "-");
    if (!values->file && values->set.n) return cli_usage(app, "--set fills the slots of a --prompt-file; give one");
    if (values->file) status = append_file(app, values, prompt);
    if (!status && argument) {
        status = cli_check_utf8(app, "the prompt", argument, strlen(argument));
        if (prompt->length) sl_buffer_puts(prompt, "\n\n");
        sl_buffer_puts(prompt, argument);
    }
    if (!status && !file_is_stdin && stdin_has_text() && (values->wait || !prompt->length || stdin_answers(app)))
        status = append_stdin(app, prompt);
    if (!status && prompt->failed) status = cli_failure(app, "out of memory while reading the prompt");
    if (!status && prompt->length == 0)
        status = cli_usage(app, "no prompt: give one as an argument, by a pipe, or with --prompt-file");
    return status;
}

/* ---------------------------------------------------------------- examples */

typedef struct examples {
    cli_app *app;
    const cli_prompt_values *values;
    sl_buffer file; /* text of the prompt file, empty when there is none */
    sl_buffer *messages;
    int line;
} examples;

static int bad_example(const examples *e, const char *what) {
    return cli_failure(e->app, "%s: line %d: %s", e->values->examples, e->line, what);
}

/* Values of "set" as "key=value" strings in the arena. */
static const char **set_values(sl_arena *arena, const sl_json *set) {
    const char **values = sl_arena_array(arena, set->length + 1, sizeof *values);
    size_t i = 0;
    if (!values) return NULL;
    for (const sl_json *member = set->first; member; member = member->next) {
        char *value = sl_arena_alloc(arena, member->key_length + member->length + 2);
        if (!value || member->type != SL_JSON_STRING || strlen(member->text) != member->length) return NULL;
        memcpy(value, member->key, member->key_length);
        value[member->key_length] = '=';
        memcpy(value + member->key_length + 1, member->text, member->length);
        values[i++] = value;
    }
    return values;
}

static int add_filled(examples *e, sl_arena *arena, const sl_json *set) {
    sl_buffer text = {0};
    if (!e->values->file)
        return bad_example(e, "\"set\" fills the slots of a --prompt-file; give one, or use \"input\"");
    const char **values = set_values(arena, set);
    if (!values) return bad_example(e, "the values of \"set\" must be strings without NUL");
    int status = cli_prompt_fill(e->app, e->values->file, e->file.data ? e->file.data : "", e->file.length, values,
                                 set->length, &text);
    if (!status) cli_message_add(e->messages, "user", text.data ? text.data : "", text.length);
    sl_buffer_free(&text);
    return status;
}

static int add_example(examples *e, sl_arena *arena, const char *text, size_t length) {
    const sl_json *root = NULL;
    sllm_error error = {0};
    char what[256];
    snprintf(what, sizeof what, "%s: line %d", e->values->examples, e->line);
    if (sl_json_parse(arena, text, length, what, &root, &error)) return cli_error(e->app, &error);
    const sl_json *input = sl_json_get(root, "input"), *set = sl_json_get(root, "set"),
                  *output = sl_json_get(root, "output");
    if (!output || output->type != SL_JSON_STRING) return bad_example(e, "\"output\" must be there and a string");
    if (!input == !set) return bad_example(e, "exactly one of \"input\" and \"set\" must be there");
    if (input && input->type != SL_JSON_STRING) return bad_example(e, "\"input\" must be a string");
    if (set && set->type != SL_JSON_OBJECT) return bad_example(e, "\"set\" must be an object of strings");
    int status = CLI_OK;
    if (input) cli_message_add(e->messages, "user", input->text, input->length);
    else status = add_filled(e, arena, set);
    cli_message_add(e->messages, "assistant", output->text, output->length);
    return status;
}

int cli_prompt_examples(cli_app *app, const cli_prompt_values *values, sl_buffer *messages) {
    examples e = {.app = app, .values = values, .messages = messages};
    sl_buffer line = {0};
    int status = CLI_OK, more = 0;
    if (!values->examples) return CLI_OK;
    cli_reader reader = {.fd = open(values->examples, O_RDONLY | O_CLOEXEC)};
    if (reader.fd < 0) return cli_failure(app, "%s: %s", values->examples, strerror(errno));
    if (values->file && !strcmp(values->file, "-"))
        status = cli_usage(app, "--examples needs --prompt-file to be a file, not standard input");
    else if (values->file) status = cli_read_file(app, values->file, &e.file);
    if (!status && e.file.length && e.file.data[e.file.length - 1] == '\n') e.file.length--;
    while (!status && (more = cli_read_line(app, &reader, values->examples, &line)) == 1) {
        sl_arena arena = {0};
        e.line++;
        if (line.length) status = add_example(&e, &arena, line.data, line.length);
        sl_arena_free(&arena);
    }
    close(reader.fd);
    sl_buffer_free(&line);
    sl_buffer_free(&e.file);
    return more < 0 ? CLI_FAILURE : status;
}
