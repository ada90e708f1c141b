/* sllm template: what a chat template makes of messages. */
#include "cli/commands.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct template_values {
    const char *messages, *tools, *documents, *now, *dir;
    cli_texts arguments;
    bool no_generation_prompt, continue_final, jsonl;
} template_values;

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* ---------------------------------------------------------------- options of a rendering, as JSON */

static void put_value(sl_buffer *out, const char *key, const sl_json *value) {
    if (!value) return;
    sl_json_key(out, key);
    sl_json_write_value(out, value);
}

static void case_options(const sl_json *test, const char *now, sl_buffer *out) {
    static const char *const fields[] = {"tools", "documents", "add_generation_prompt", "continue_final_message",
                                         "kwargs"};
    sl_buffer_putc(out, '{');
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const sl_json *value = sl_json_get(test, fields[i]);
        if (value && value->type != SL_JSON_NULL) put_value(out, fields[i], value);
    }
    if (now) sl_json_put_string(out, "now", now);
    sl_buffer_putc(out, '}');
}

/* ---------------------------------------------------------------- cases, one a line */

enum { TEMPLATE_LIMIT = 64 << 20 };

/* {"error":{"type","message"}}: type is TemplateError for raise_exception, whose text is the whole message; otherwise
 * the word before the message's first colon ("UndefinedError: ..."), or Error. */
static void put_error(sl_buffer *out, const sllm_error *error) {
    const char *message = error->message;
    size_t word = 0;
    char type[64] = "TemplateError";
    if (!error->raised) {
        while (is_letter(message[word])) word++;
        bool named = word && word < sizeof type && message[word] == ':' && message[word + 1] == ' ';
        snprintf(type, sizeof type, "%.*s", named ? (int)word : 5, named ? message : "Error");
        if (named) message += word + 2;
    }
    sl_buffer_puts(out, "{\"error\":{");
    sl_json_put_string(out, "type", type);
    sl_json_put_string(out, "message", message);
    if (error->line) sl_json_put_int(out, "line", error->line);
    sl_buffer_puts(out, "}}\n");
}

/* Renders one case into *out. A status: the case itself was at fault (no template of that name, no messages). */
static sllm_status render_case(const template_values *values, const sl_json *test, const char *what, sl_buffer *out,
                               sllm_error *error) {
    sl_buffer source = {0}, messages = {0}, options = {0};
    char path[4096], name[256], *text = NULL;
    size_t length = 0;
    const char *wanted = sl_json_string(sl_json_get(test, "template"));
    const sl_json *list = sl_json_get(test, "messages");
    if (!wanted || strchr(wanted, '/') || strlen(wanted) + 7 > sizeof name)
        return sl_fail(error, SLLM_ERROR_FORMAT, "InputError: %s: /template: must name a file of %s without its .jinja",
                       what, values->dir);
    if (!list) return sl_fail(error, SLLM_ERROR_FORMAT, "InputError: %s: /messages: is missing", what);
    snprintf(name, sizeof name, "%s.jinja", wanted);
    if (!sl_path_join(path, sizeof path, values->dir, name))
        return sl_fail(error, SLLM_ERROR_FORMAT, "InputError: %s: the path is too long", what);
    sllm_status status = sl_file_read(path, TEMPLATE_LIMIT, &source, error);
    if (status) return sl_error_prefix(error, status, "InputError: %s", what);
    sl_json_write_value(&messages, list);
    case_options(test, values->now, &options);
    if (messages.failed || options.failed) {
        status = sl_fail_memory(error, what, 0);
    } else if (sllm_template_render_text(source.data ? source.data : "", source.length, messages.data, options.data, &text,
                                         &length, error)) {
        put_error(out, error);
    } else {
        sl_buffer_puts(out, "{\"text\":");
        sl_json_write_string(out, text, length);
        sl_buffer_puts(out, "}\n");
    }
    sllm_free(text);
    sl_buffer_free(&source);
    sl_buffer_free(&messages);
    sl_buffer_free(&options);
    return status;
}

/* A line out for every line in, so that lines stay side by side: a case at fault gives an error of type InputError, and the
 * exit status says at the end that there were such. */
static int render_cases(cli_app *app, const template_values *values) {
    cli_reader reader = {.fd = STDIN_FILENO};
    sl_buffer line = {0}, out = {0};
    int status = CLI_OK, number = 0, at_fault = 0, more = 0;
    while (!status && !app->output_errno && (more = cli_read_line(app, &reader, "standard input", &line)) == 1) {
        sl_arena arena = {0};
        sllm_error error = {0};
        const sl_json *test = NULL;
        char what[64];
        snprintf(what, sizeof what, "line %d", ++number);
        out.length = 0;
        sllm_status failed = sl_json_parse(&arena, line.data, line.length, what, &test, &error);
        if (failed) sl_error_prefix(&error, failed, "InputError");
        else failed = render_case(values, test, what, &out, &error);
        if (failed) at_fault++, put_error(&out, &error);
        if (failed == SLLM_ERROR_MEMORY || out.failed) status = cli_failure(app, "%s: out of memory", what);
        if (!status) cli_printf(app, "%s", out.data);
        sl_arena_free(&arena);
    }
    sl_buffer_free(&line);
    sl_buffer_free(&out);
    if (!status && at_fault)
        status = cli_failure(app, "%d of %d cases could not be read; their lines say InputError and why", at_fault, number);
    return more < 0 ? CLI_FAILURE : status;
}

/* ---------------------------------------------------------------- one conversation */

/* Parses a JSON file into the arena; path NULL leaves *value NULL. */
static int read_json(cli_app *app, sl_arena *arena, const char *path, const sl_json **value) {
    sl_buffer text = {0};
    sllm_error error = {0};
    if (!path) return CLI_OK;
    int status = cli_read_file(app, path, &text);
    if (!status && sl_json_parse(arena, text.data ? text.data : "", text.length, path, value, &error))
        status = cli_error(app, &error);
    sl_buffer_free(&text);
    return status;
}

static int put_arguments(cli_app *app, const cli_texts *arguments, sl_arena *arena, sl_buffer *out) {
    sl_json_key(out, "kwargs");
    sl_buffer_putc(out, '{');
    for (size_t i = 0; i < arguments->n; i++) {
        const char *given = arguments->items[i], *equals = strchr(given, '=');
        const sl_json *value = NULL;
        if (!equals || equals == given) return cli_usage(app, "--arg %s: must be KEY=VALUE", given);
        char *key = sl_arena_copy(arena, given, (size_t)(equals - given));
        if (!key) return cli_failure(app, "out of memory");
        sl_json_key(out, key);
        if (sl_json_parse(arena, equals + 1, strlen(equals + 1), "value", &value, NULL) == SLLM_OK)
            sl_json_write_value(out, value);
        else sl_json_write_string(out, equals + 1, strlen(equals + 1));
    }
    sl_buffer_putc(out, '}');
    return CLI_OK;
}

static int write_request(cli_app *app, const template_values *values, sl_arena *arena, sl_buffer *messages,
                         sl_buffer *options) {
    const sl_json *root = NULL, *tools = NULL, *documents = NULL;
    int status = read_json(app, arena, values->messages, &root);
    if (!status) status = read_json(app, arena, values->tools, &tools);
    if (!status) status = read_json(app, arena, values->documents, &documents);
    if (status) return status;
    if (root->type == SL_JSON_OBJECT && !tools) tools = sl_json_get(root, "tools");
    if (root->type == SL_JSON_OBJECT) root = sl_json_get(root, "messages");
    if (!root || root->type != SL_JSON_ARRAY)
        return cli_failure(app, "%s: must be an array of messages or an object with \"messages\"", values->messages);
    sl_json_write_value(messages, root);
    sl_buffer_putc(options, '{');
    put_value(options, "tools", tools);
    put_value(options, "documents", documents);
    sl_json_put_bool(options, "add_generation_prompt", !values->no_generation_prompt && !values->continue_final);
    sl_json_put_bool(options, "continue_final_message", values->continue_final);
    if (values->now) sl_json_put_string(options, "now", values->now);
    status = put_arguments(app, &values->arguments, arena, options);
    sl_buffer_putc(options, '}');
    if (!status && (messages->failed || options->failed)) status = cli_failure(app, "out of memory");
    return status;
}

static int render_one(cli_app *app, const template_values *values, const char *name) {
    sl_arena arena = {0};
    sl_buffer messages = {0}, options = {0};
    sllm_error error = {0};
    sllm_model *model = NULL;
    char *text = NULL;
    size_t length = 0;
    int status = write_request(app, values, &arena, &messages, &options);
    if (!status) status = cli_load(app, name, NULL, true, &model);
    if (!status && sllm_template_render(model, messages.data, options.data, &text, &length, &error))
        status = error.raised ? cli_failure(app, "the template refuses the messages: %s", error.message)
                              : cli_error(app, &error);
    if (!status) cli_write(app, text, length);
    if (!status && app->stdout_is_terminal) cli_write(app, "\n", 1);
    sllm_free(text);
    sllm_model_free(model);
    sl_buffer_free(&messages);
    sl_buffer_free(&options);
    sl_arena_free(&arena);
    return status;
}

/* YYYY-MM-DDTHH:MM:SS, checked here so that a mistake shows also with a template that never asks for the time. */
static bool is_time(const char *text) {
    struct tm parts;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    return end && !*end;
}

static int run_template(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const template_values *values = given;
    if (values->now && !is_time(values->now))
        return cli_usage(app, "--now %s: must be YYYY-MM-DDTHH:MM:SS", values->now);
    if (values->dir) {
        if (!values->jsonl) return cli_usage(app, "--dir renders cases from standard input; add --jsonl");
        if (n_arguments) return cli_usage(app, "MODEL and --dir: give one");
        return render_cases(app, values);
    }
    if (values->jsonl) return cli_usage(app, "--jsonl needs --dir DIR, the folder of NAME.jinja files");
    if (!n_arguments)
        return cli_usage(app, "no MODEL; usage: sllm template MODEL --messages FILE, or --dir DIR --jsonl");
    if (!values->messages) return cli_usage(app, "no messages; give --messages FILE (- for standard input)");
    return render_one(app, values, arguments[0]);
}

static const cli_option template_options[] = {
    {"messages", 'm', CLI_TEXT, "FILE", .offset = offsetof(template_values, messages),
     .help = "The conversation: a JSON array in the OpenAI form, or an object with \"messages\"; - is standard input"},
    {"tools", 0, CLI_TEXT, "FILE", .offset = offsetof(template_values, tools),
     .help = "Tool definitions, a JSON array"},
    {"documents", 0, CLI_TEXT, "FILE", .offset = offsetof(template_values, documents),
     .help = "Documents, a JSON array"},
    {"arg", 0, CLI_TEXTS, "KEY=VALUE", .offset = offsetof(template_values, arguments),
     .help = "Variable for the template; VALUE is JSON or else a string"},
    {"no-generation-prompt", 0, CLI_FLAG, .offset = offsetof(template_values, no_generation_prompt),
     .help = "End after the last message, without the opening of an answer"},
    {"continue", 0, CLI_FLAG, .offset = offsetof(template_values, continue_final),
     .help = "Leave the last message open, for the model to continue"},
    {"now", 0, CLI_TEXT, "TIME", .offset = offsetof(template_values, now),
     .help = "The clock of strftime_now, YYYY-MM-DDTHH:MM:SS; the local time when not given"},
    {"dir", 0, CLI_TEXT, "DIR", .offset = offsetof(template_values, dir),
     .help = "Folder of NAME.jinja files for --jsonl"},
    {"jsonl", 0, CLI_FLAG, .offset = offsetof(template_values, jsonl),
     .help = "Render a case a line: {\"template\": NAME, \"messages\": [...], ...}; a line out is {\"text\": ...} or "
             "{\"error\": {\"type\": ..., \"message\": ...}}"},
    {0},
};
static const cli_group template_groups[] = {{"Options", template_options, 0}, {0}};

const cli_command cli_command_template = {
    .name = "template",
    .arguments = "[MODEL]",
    .summary = "Render messages with a model's chat template",
    .details =
        "A case of --jsonl may also hold tools, documents, add_generation_prompt, continue_final_message and "
        "kwargs. The error's type is TemplateError when the template called raise_exception, whose text is "
        "the message.",
    .groups = template_groups,
    .values_size = sizeof(template_values),
    .max_arguments = 1,
    .run = run_template,
};
