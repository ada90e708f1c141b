/* sllm tokenize and sllm detokenize: text to ids and back. */
#include "cli/commands.h"

#include "base/error.h"
#include "base/json.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct tokenize_values {
    bool jsonl, special, add_special, json;
} tokenize_values;

typedef struct detokenize_values {
    bool jsonl, skip_special;
} detokenize_values;

/* What a line of --jsonl works with. */
typedef struct line_job {
    cli_app *app;
    void *user;
    /* Writes the answer to a line into *out. A status: the line is at fault. */
    sllm_status (*answer)(void *user, const char *what, const sl_buffer *line, sl_buffer *out, sllm_error *error);
} line_job;

/* A line out for every line in, so that lines stay side by side: one at fault gives {"error": {"line", "message"}}, and
 * the exit status says at the end that there were such. A file gets full buffers; a pipe may be a conversation with
 * another program, which waits for the answer to each line. */
static int each_line(const line_job *job) {
    cli_app *app = job->app;
    struct stat info;
    bool is_file = fstat(STDIN_FILENO, &info) == 0 && S_ISREG(info.st_mode);
    cli_reader reader = {.fd = STDIN_FILENO};
    sl_buffer line = {0}, out = {0};
    int status = CLI_OK, number = 0, at_fault = 0, more = 0;
    while (!status && !app->output_errno && (more = cli_read_line(app, &reader, "standard input", &line)) == 1) {
        sllm_error error = {0};
        char what[64];
        snprintf(what, sizeof what, "line %d", ++number);
        out.length = 0;
        sllm_status failed = job->answer(job->user, what, &line, &out, &error);
        if (failed) {
            at_fault++;
            out.length = 0;
            sl_buffer_puts(&out, "{\"error\":{");
            sl_json_put_int(&out, "line", number);
            sl_json_put_string(&out, "message", error.message);
            sl_buffer_puts(&out, "}}");
        }
        sl_buffer_putc(&out, '\n');
        if (failed == SLLM_ERROR_MEMORY || out.failed) status = cli_failure(app, "%s: out of memory", what);
        else cli_printf(app, "%s", out.data);
        if (!status && !is_file && !cli_write(app, "", 0)) status = CLI_FAILURE;
    }
    sl_buffer_free(&line);
    sl_buffer_free(&out);
    if (!status && more < 0) status = CLI_FAILURE;
    if (!status && at_fault)
        status = cli_failure(app, "%d of %d lines are at fault; their lines say why", at_fault, number);
    return status;
}

/* ---------------------------------------------------------------- tokenize */

typedef struct tokenize_job {
    cli_app *app;
    const sllm_model *model;
    unsigned flags;
    sl_buffer out;
} tokenize_job;

static void write_ids(sl_buffer *out, const sllm_tokens *tokens) {
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < tokens->n; i++) sl_buffer_printf(out, i ? ",%d" : "%d", tokens->ids[i]);
    sl_buffer_putc(out, ']');
}

static sllm_status tokenize_line(void *user, const char *what, const sl_buffer *line, sl_buffer *out,
                                 sllm_error *error) {
    const tokenize_job *job = user;
    sl_arena arena = {0};
    sllm_tokens tokens = {0};
    const sl_json *text = NULL;
    sllm_status status = sl_json_parse(&arena, line->data ? line->data : "", line->length, what, &text, error);
    if (!status && text->type != SL_JSON_STRING)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: must be a JSON string", what);
    if (!status) status = sllm_tokenize(job->model, text->text, text->length, job->flags, &tokens, error);
    if (!status) write_ids(out, &tokens);
    sllm_tokens_free(&tokens);
    sl_arena_free(&arena);
    return status;
}

/* What the id stands for: its bytes, or the vocabulary's text where it alone has none (special tokens do). */
static void write_piece(tokenize_job *job, int32_t id, sl_buffer *out) {
    char *text = NULL;
    size_t length = 0;
    const char *token = sllm_token_text(job->model, id);
    if (sllm_detokenize(job->model, &id, 1, false, &text, &length, NULL) == SLLM_OK && length)
        sl_json_write_string(out, text, length);
    else sl_json_write_string(out, token ? token : "", token ? strlen(token) : 0);
    sllm_free(text);
}

static int show_tokens(tokenize_job *job, const char *text, size_t length, bool json) {
    sllm_error error = {0};
    sllm_tokens tokens = {0};
    sl_buffer *out = &job->out;
    if (sllm_tokenize(job->model, text, length, job->flags, &tokens, &error)) return cli_error(job->app, &error);
    if (json) {
        sl_buffer_puts(out, "{\"ids\":");
        write_ids(out, &tokens);
        sl_buffer_puts(out, ",\"pieces\":[");
    }
    for (size_t i = 0; i < tokens.n; i++) {
        if (json) sl_json_comma(out);
        else sl_buffer_printf(out, "%8d  ", tokens.ids[i]);
        write_piece(job, tokens.ids[i], out);
        if (!json) sl_buffer_putc(out, '\n');
    }
    if (json) sl_buffer_puts(out, "]}\n");
    sllm_tokens_free(&tokens);
    if (out->failed) return cli_failure(job->app, "out of memory");
    return cli_write(job->app, out->data ? out->data : "", out->length) ? CLI_OK : CLI_FAILURE;
}

static int run_tokenize(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const tokenize_values *values = given;
    sllm_model *model = NULL;
    sl_buffer text = {0};
    if (values->jsonl && (values->json || n_arguments > 1))
        return cli_usage(app, "--jsonl reads strings from standard input; leave out %s",
                         values->json ? "--json" : "the text");
    int status = cli_load(app, arguments[0], NULL, true, &model);
    tokenize_job job = {.app = app, .model = model};
    job.flags = (values->special ? SLLM_TOKENIZE_SPECIAL : 0) | (values->add_special ? SLLM_TOKENIZE_ADD : 0);
    if (!status && values->jsonl) {
        status = each_line(&(line_job){app, &job, tokenize_line});
    } else if (!status && n_arguments > 1) {
        status = show_tokens(&job, arguments[1], strlen(arguments[1]), values->json);
    } else if (!status) {
        status = cli_read_file(app, "-", &text);
        if (!status) status = show_tokens(&job, text.data ? text.data : "", text.length, values->json);
    }
    sl_buffer_free(&job.out);
    sl_buffer_free(&text);
    sllm_model_free(model);
    return status;
}

static const cli_option tokenize_options[] = {
    {"jsonl", 0, CLI_FLAG, .offset = offsetof(tokenize_values, jsonl),
     .help = "One JSON string a line in, one JSON array of ids a line out; a line at fault gives "
             "{\"error\": {\"line\": ..., \"message\": ...}}"},
    {"special", 0, CLI_FLAG, .offset = offsetof(tokenize_values, special),
     .help = "Special tokens written in the text become those tokens; without it they stay text"},
    {"add-special", 0, CLI_FLAG, .offset = offsetof(tokenize_values, add_special),
     .help = "Add the prefix and suffix (BOS, EOS, [CLS] ...) that the vocabulary asks for"},
    {"json", 0, CLI_FLAG, .offset = offsetof(tokenize_values, json),
     .help = "Print {\"ids\": [...], \"pieces\": [...]}"},
    {0},
};
static const cli_group tokenize_groups[] = {{"Options", tokenize_options, 0}, {0}};

const cli_command cli_command_tokenize = {
    .name = "tokenize",
    .arguments = "MODEL [TEXT]",
    .summary = "Show the tokens of a text",
    .details =
        "MODEL may also be a vocabulary-only GGUF or a tokenizer.json[.gz]. Without TEXT standard input is "
        "read; its bytes count as they are, a newline at the end included, and invalid UTF-8 is read as "
        "U+FFFD.",
    .groups = tokenize_groups,
    .values_size = sizeof(tokenize_values),
    .min_arguments = 1,
    .max_arguments = 2,
    .run = run_tokenize,
};

/* ---------------------------------------------------------------- detokenize */

typedef struct id_list {
    int32_t *ids;
    size_t n, capacity;
} id_list;

typedef struct detokenize_job {
    cli_app *app;
    const sllm_model *model;
    bool skip_special;
    id_list list;
} detokenize_job;

static sllm_status add_id(id_list *list, const char *what, const char *text, size_t length, sllm_error *error) {
    char number[32], *end = NULL;
    snprintf(number, sizeof number, "%.*s", (int)(length < sizeof number ? length : sizeof number - 1), text);
    errno = 0;
    long long id = strtoll(number, &end, 10);
    if (length == 0 || length >= sizeof number || *end || errno || id < 0 || id > INT32_MAX)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: '%s' is not a token id", what, number);
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) return sl_fail_memory(error, what, capacity * sizeof *ids);
        list->ids = ids, list->capacity = capacity;
    }
    list->ids[list->n++] = (int32_t)id;
    return SLLM_OK;
}

static sllm_status add_json_ids(id_list *list, const char *what, const char *text, size_t length, sllm_error *error) {
    sl_arena arena = {0};
    const sl_json *array = NULL;
    sllm_status status = sl_json_parse(&arena, text, length, what, &array, error);
    if (!status && array->type != SL_JSON_ARRAY)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: must be a JSON array of ids", what);
    for (size_t i = 0; !status && i < array->length; i++) {
        const sl_json *item = array->items[i];
        if (!sl_json_is_integer(item))
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: /%zu: is not an integer", what, i);
        else status = add_id(list, what, item->text, item->length, error);
    }
    sl_arena_free(&arena);
    return status;
}

static sllm_status detokenize_line(void *user, const char *what, const sl_buffer *line, sl_buffer *out,
                                   sllm_error *error) {
    detokenize_job *job = user;
    char *text = NULL;
    size_t length = 0;
    job->list.n = 0;
    sllm_status status = add_json_ids(&job->list, what, line->data ? line->data : "", line->length, error);
    if (!status) {
        status = sllm_detokenize(job->model, job->list.ids, job->list.n, job->skip_special, &text, &length, error);
        sl_error_prefix(error, status, "%s", what);
    }
    if (!status) sl_json_write_string(out, text, length);
    sllm_free(text);
    return status;
}

/* Ids separated by blanks and commas, or a JSON array. */
static int add_ids(detokenize_job *job, const char *what, const char *text) {
    static const char blanks[] = " \t\r\n,";
    sllm_error error = {0};
    sllm_status failed = SLLM_OK;
    text += strspn(text, blanks);
    if (*text == '[') failed = add_json_ids(&job->list, what, text, strlen(text), &error);
    else
        while (!failed && *text) {
            size_t length = strcspn(text, blanks);
            failed = add_id(&job->list, what, text, length, &error);
            text += length;
            text += strspn(text, blanks);
        }
    return failed ? cli_failure(job->app, "%s", error.message) : CLI_OK;
}

static int show_text(detokenize_job *job) {
    sllm_error error = {0};
    char *text = NULL;
    size_t length = 0;
    if (sllm_detokenize(job->model, job->list.ids, job->list.n, job->skip_special, &text, &length, &error))
        return cli_error(job->app, &error);
    if (job->app->stdout_is_terminal) cli_print_safe(job->app, text, length);
    else cli_write(job->app, text, length);
    sllm_free(text);
    return cli_write(job->app, "\n", 1) ? CLI_OK : CLI_FAILURE;
}

static int run_detokenize(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const detokenize_values *values = given;
    sllm_model *model = NULL;
    sl_buffer text = {0};
    if (values->jsonl && n_arguments > 1)
        return cli_usage(app, "--jsonl reads arrays from standard input; leave out the ids");
    int status = cli_load(app, arguments[0], NULL, true, &model);
    detokenize_job job = {.app = app, .model = model, .skip_special = values->skip_special};
    if (!status && values->jsonl) {
        status = each_line(&(line_job){app, &job, detokenize_line});
    } else if (!status) {
        for (int i = 1; !status && i < n_arguments; i++) status = add_ids(&job, "ids", arguments[i]);
        if (!status && n_arguments == 1) status = cli_read_file(app, "-", &text);
        if (!status && n_arguments == 1) status = add_ids(&job, "standard input", text.data ? text.data : "");
        if (!status) status = show_text(&job);
    }
    free(job.list.ids);
    sl_buffer_free(&text);
    sllm_model_free(model);
    return status;
}

static const cli_option detokenize_options[] = {
    {"jsonl", 0, CLI_FLAG, .offset = offsetof(detokenize_values, jsonl),
     .help = "One JSON array of ids a line in, one JSON string a line out; a line at fault gives "
             "{\"error\": {\"line\": ..., \"message\": ...}}"},
    {"skip-special", 0, CLI_FLAG, .offset = offsetof(detokenize_values, skip_special),
     .help = "Leave special tokens out"},
    {0},
};
static const cli_group detokenize_groups[] = {{"Options", detokenize_options, 0}, {0}};

const cli_command cli_command_detokenize = {
    .name = "detokenize",
    .arguments = "MODEL [ID...]",
    .summary = "Show the text of token ids",
    .details =
        "Ids are arguments, or standard input: numbers separated by blanks or commas, or a JSON array. MODEL "
        "may also be a vocabulary-only GGUF or a tokenizer.json[.gz].",
    .groups = detokenize_groups,
    .values_size = sizeof(detokenize_values),
    .min_arguments = 1,
    .max_arguments = -1,
    .run = run_detokenize,
};
