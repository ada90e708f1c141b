#include "cli/chat.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

void cli_log_free(cli_log *log) {
    for (size_t i = 0; i < log->n; i++) free(log->messages[i].json);
    free(log->messages);
    *log = (cli_log){0};
}

/* Takes json (NULL: allocation failed before). */
static bool append(cli_log *log, const char *role, char *json) {
    struct cli_log_message *messages = json ? realloc(log->messages, (log->n + 1) * sizeof *messages) : NULL;
    if (!messages) {
        free(json);
        return false;
    }
    log->messages = messages;
    log->messages[log->n] = (struct cli_log_message){.json = json};
    snprintf(log->messages[log->n].role, sizeof log->messages->role, "%s", role);
    log->n++;
    return true;
}

static char *message_json(const char *role, const char *text, size_t length, const char *reasoning) {
    sl_buffer json = {0};
    sl_buffer_putc(&json, '{');
    sl_json_put_string(&json, "role", role);
    sl_json_key(&json, "content");
    sl_json_write_string(&json, text, length);
    if (reasoning) sl_json_put_string(&json, "reasoning_content", reasoning);
    sl_buffer_putc(&json, '}');
    char *taken = sl_buffer_take(&json, NULL);
    sl_buffer_free(&json);
    return taken;
}

bool cli_log_add(cli_log *log, const char *role, const char *text, size_t length, const char *reasoning) {
    return append(log, role, message_json(role, text, length, reasoning));
}

bool cli_log_set_system(cli_log *log, const char *text) {
    bool there = log->n && !strcmp(log->messages[0].role, "system");
    if (*text) {
        char *json = message_json("system", text, strlen(text), NULL);
        if (!json) return false;
        if (there) {
            free(log->messages[0].json);
            log->messages[0].json = json;
            return true;
        }
        if (!append(log, "system", json)) return false;
        struct cli_log_message last = log->messages[log->n - 1];
        memmove(log->messages + 1, log->messages, (log->n - 1) * sizeof last);
        log->messages[0] = last;
    } else if (there) {
        free(log->messages[0].json);
        log->n--;
        memmove(log->messages, log->messages + 1, log->n * sizeof *log->messages);
    }
    return true;
}

bool cli_log_ends_with(const cli_log *log, const char *role) {
    return log->n && !strcmp(log->messages[log->n - 1].role, role);
}

void cli_log_drop(cli_log *log) {
    if (log->n) free(log->messages[--log->n].json);
}

void cli_log_write(const cli_log *log, sl_buffer *out) {
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < log->n; i++) {
        sl_json_comma(out);
        sl_buffer_puts(out, log->messages[i].json);
    }
    sl_buffer_putc(out, ']');
}

/* ---------------------------------------------------------------- files */

int cli_log_save(cli_app *app, const cli_log *log, const char *path) {
    sl_buffer out = {0};
    sllm_error error = {0};
    int status = CLI_OK;
    sl_buffer_puts(&out, "{\"messages\": [");
    for (size_t i = 0; i < log->n; i++) sl_buffer_printf(&out, "%s\n  %s", i ? "," : "", log->messages[i].json);
    if (!sl_buffer_puts(&out, log->n ? "\n]}\n" : "]}\n")) status = cli_failure(app, "out of memory while saving");
    else if (sl_file_write(path, out.data, out.length, &error)) status = cli_error(app, &error);
    sl_buffer_free(&out);
    return status;
}

/* Checks one message; `place` is its JSON pointer. */
static int check_message(cli_app *app, const char *path, const char *place, const sl_json *message) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    if (message->type != SL_JSON_OBJECT) return cli_failure(app, "%s: %s: must be an object", path, place);
    const char *role = sl_json_string(sl_json_get(message, "role"));
    bool known = false;
    for (size_t i = 0; role && i < sizeof roles / sizeof *roles; i++) known |= !strcmp(role, roles[i]);
    if (!known)
        return cli_failure(app, "%s: %s/role: must be one of system, developer, user, assistant, tool", path, place);
    const sl_json *content = sl_json_get(message, "content"), *calls = sl_json_get(message, "tool_calls");
    if (!content && !calls) return cli_failure(app, "%s: %s/content: is missing", path, place);
    if (calls && calls->type != SL_JSON_ARRAY)
        return cli_failure(app, "%s: %s/tool_calls: must be an array", path, place);
    if (content && content->type != SL_JSON_STRING && content->type != SL_JSON_ARRAY && content->type != SL_JSON_NULL)
        return cli_failure(app, "%s: %s/content: must be a string, an array of parts, or null", path, place);
    for (size_t i = 0; content && content->type == SL_JSON_ARRAY && i < content->length; i++)
        if (!sl_json_string(sl_json_get(content->items[i], "type")))
            return cli_failure(app, "%s: %s/content/%zu/type: must be a string", path, place, i);
    return CLI_OK;
}

static int load_messages(cli_app *app, cli_log *log, const char *path, const sl_json *root) {
    bool is_bare = root->type == SL_JSON_ARRAY;
    const sl_json *messages = is_bare ? root : sl_json_get(root, "messages");
    if (!messages || messages->type != SL_JSON_ARRAY)
        return cli_failure(app, "%s: /messages: must be an array of messages", path);
    for (size_t i = 0; i < messages->length; i++) {
        const sl_json *message = messages->items[i];
        sl_buffer json = {0};
        char place[64];
        snprintf(place, sizeof place, "%s/%zu", is_bare ? "" : "/messages", i);
        int status = check_message(app, path, place, message);
        if (status) return status;
        sl_json_write_value(&json, message);
        char *text = sl_buffer_take(&json, NULL);
        sl_buffer_free(&json);
        if (!append(log, sl_json_string(sl_json_get(message, "role")), text))
            return cli_failure(app, "%s: out of memory", path);
    }
    return CLI_OK;
}

int cli_log_load(cli_app *app, cli_log *log, const char *path) {
    sl_buffer text = {0};
    sl_arena arena = {0};
    const sl_json *root = NULL;
    sllm_error error = {0};
    cli_log loaded = {0};
    int status = cli_read_file(app, path, &text);
    if (!status && sl_json_parse(&arena, text.data ? text.data : "", text.length, path, &root, &error))
        status = cli_error(app, &error);
    if (!status) status = load_messages(app, &loaded, path, root);
    if (!status) {
        cli_log_free(log);
        *log = loaded;
    } else {
        cli_log_free(&loaded);
    }
    sl_arena_free(&arena);
    sl_buffer_free(&text);
    return status;
}
