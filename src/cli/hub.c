#include "cli/hub.h"

#include <stddef.h>
#include <string.h>

const cli_option cli_hub_options[] = {
    {"cache", 0, CLI_TEXT, "DIR", .offset = offsetof(cli_hub_values, cache),
     .help = "The model cache, in place of $XDG_CACHE_HOME/sllm/models"},
    {"catalogue", 0, CLI_TEXT, "FILE", .offset = offsetof(cli_hub_values, catalogue),
     .help = "A catalogue file, in place of the built-in one"},
    {"json", 0, CLI_FLAG, .offset = offsetof(cli_hub_values, json), .help = "Print JSON"},
    {0},
};

const cli_option cli_source_options[] = {
    {"endpoint", 0, CLI_TEXT, "URL", .offset = offsetof(cli_source_values, endpoint),
     .help = "Address of the hub, in place of the catalogue's"},
    {"token-file", 0, CLI_TEXT, "FILE", .offset = offsetof(cli_source_values, token_file),
     .help = "File that holds an access token; it is sent to the hub's own address only"},
    {"python", 0, CLI_TEXT, "FILE", .offset = offsetof(cli_source_values, python),
     .help = "Python interpreter whose pip fetches packages, in place of python3"},
    {"retries", 0, CLI_INT, "N", "5", 0, 1000, .offset = offsetof(cli_source_values, retries),
     .help = "Attempts after one that brought nothing; each continues where the last ended"},
    {"stall", 0, CLI_INT, "SECONDS", "30", 1, 86400, .offset = offsetof(cli_source_values, stall),
     .help = "A transfer that stands still for so long is tried again"},
    {0},
};

int cli_hub_open(cli_app *app, const cli_hub_values *values, const cli_source_values *source, sllm_hub **hub) {
    sllm_hub_params params;
    sllm_error error = {0};
    cli_app with_cache = *app;
    if (values->cache) with_cache.models_dir = values->cache;
    int status = cli_hub_params(&with_cache, &params);
    if (status) return status;
    params.catalogue_path = values->catalogue;
    if (source) {
        params.endpoint = source->endpoint;
        params.token_path = source->token_file;
        params.python = source->python;
        params.retries = source->retries ? source->retries : -1;
        params.stall_seconds = source->stall;
    }
    if (sllm_hub_open(&params, hub, &error)) return cli_error(app, &error);
    cli_interrupt_watch();
    return CLI_OK;
}

int cli_hub_error(const cli_app *app, const sllm_error *error) {
    if (app->stderr_is_terminal) fputs("\r\x1b[K", stderr);
    return cli_error(app, error);
}

int cli_hub_report(cli_app *app, const cli_hub_values *values, char *text,
                   void (*print)(cli_app *app, const sl_json *item, void *user), void *user) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL;
    int status = CLI_OK;
    if (values->json) cli_printf(app, "%s\n", text);
    else if (sl_json_parse(&arena, text, strlen(text), "report", &root, &error)) status = cli_error(app, &error);
    else
        for (const sl_json *item = root->first; item; item = item->next) print(app, item, user);
    sl_arena_free(&arena);
    sllm_free(text);
    return status;
}

const char *cli_json_text(const sl_json *object, const char *key) {
    const char *text = sl_json_string(sl_json_get(object, key));
    return text ? text : "";
}

void cli_json_join(const sl_json *array, size_t most, char *out, size_t size) {
    size_t length = 0, n = 0;
    out[0] = 0;
    if (!array || array->type != SL_JSON_ARRAY) return;
    for (const sl_json *item = array->first; item && length < size; item = item->next) {
        if (most && n == most) {
            snprintf(out + length, size - length, ", ...");
            return;
        }
        int written = snprintf(out + length, size - length, "%s%s", n++ ? ", " : "",
                               sl_json_string(item) ? sl_json_string(item) : "");
        if (written > 0) length += (size_t)written;
    }
}

void cli_format_count(int64_t count, char out[32]) {
    if (count >= 999500000) snprintf(out, 32, "%.1f B", (double)count / 1e9);
    else snprintf(out, 32, "%.0f M", (double)count / 1e6);
}
