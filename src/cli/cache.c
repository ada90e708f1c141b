/* sllm list, rm and verify: what the cache holds. */
#include "cli/commands.h"
#include "cli/hub.h"

#include <stddef.h>
#include <string.h>

static const cli_group cache_groups[] = {{"Options", cli_hub_options, 0}, {0}};

/* ---------------------------------------------------------------- list */

static void print_listed(cli_app *app, const sl_json *item, void *user) {
    size_t *n = user;
    char size[32];
    int64_t bytes = 0;
    bool partial = false;
    const char *verified = cli_json_text(item, "verified");
    sl_json_int64(sl_json_get(item, "bytes"), &bytes);
    sl_json_bool(sl_json_get(item, "partial"), &partial);
    cli_format_bytes((uint64_t)bytes, size);
    if (!(*n)++) cli_printf(app, "%-28s %10s  %-20s  %s\n", "name", "size", "verified", "path");
    cli_printf(app, "%-28s %10s  %-20s  %s\n", cli_json_text(item, "name"), size,
               partial       ? "unfinished"
               : verified[0] ? verified
                             : "never",
               cli_json_text(item, "path"));
}

static int run_list(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const cli_hub_values *values = given;
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    char *text = NULL;
    size_t n = 0;
    (void)n_arguments, (void)arguments;
    int status = cli_hub_open(app, values, NULL, &hub);
    if (status) return status;
    if (sllm_hub_list(hub, &text, &error)) status = cli_error(app, &error);
    else status = cli_hub_report(app, values, text, print_listed, &n);
    if (!status && !n && !values->json)
        fprintf(stderr, "the model cache is empty: `sllm pull smollm2` gets a small model\n");
    sllm_hub_close(hub);
    return status;
}

const cli_command cli_command_list = {
    .name = "list",
    .arguments = "",
    .summary = "List the models in the cache",
    .groups = cache_groups,
    .values_size = sizeof(cli_hub_values),
    .run = run_list,
};

/* ---------------------------------------------------------------- rm */

static int run_rm(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const cli_hub_values *values = given;
    sllm_hub *hub = NULL;
    sl_buffer out = {0};
    int status = cli_hub_open(app, values, NULL, &hub);
    sl_buffer_putc(&out, '[');
    for (int i = 0; i < n_arguments && !status; i++) {
        sllm_error error = {0};
        uint64_t bytes = 0;
        char size[32];
        if (sllm_hub_remove(hub, arguments[i], &bytes, &error)) {
            status = cli_hub_error(app, &error);
            break;
        }
        cli_format_bytes(bytes, size);
        if (!values->json) cli_printf(app, "%s removed, %s freed\n", arguments[i], size);
        sl_json_comma(&out);
        sl_buffer_putc(&out, '{');
        sl_json_put_string(&out, "name", arguments[i]);
        sl_json_put_int(&out, "bytes", (int64_t)bytes);
        sl_buffer_putc(&out, '}');
    }
    sl_buffer_putc(&out, ']');
    if (!status && values->json) status = cli_put_json(app, &out);
    sl_buffer_free(&out);
    sllm_hub_close(hub);
    return status;
}

const cli_command cli_command_rm = {
    .name = "rm",
    .arguments = "MODEL...",
    .summary = "Remove models from the cache",
    .details = "Unfinished downloads of the model are removed too.",
    .groups = cache_groups,
    .values_size = sizeof(cli_hub_values),
    .min_arguments = 1,
    .max_arguments = -1,
    .run = run_rm,
};

/* ---------------------------------------------------------------- verify */

/* States that are a complaint stand out. */
static const char *state_word(const char *state) {
    static const char *const words[][2] = {{"ok", "ok"},
                                           {"unfinished", "unfinished"},
                                           {"damaged", "DAMAGED"},
                                           {"missing", "MISSING"},
                                           {"manifest damaged", "NO RECORD"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(state, words[i][0])) return words[i][1];
    return "UNREADABLE";
}

static void print_verified(cli_app *app, const sl_json *item, void *user) {
    const char *actual = cli_json_text(item, "actual"), *expected = cli_json_text(item, "expected");
    const char *state = cli_json_text(item, "state");
    (void)user;
    cli_printf(app, "%-10s %-28s %s\n", state_word(state), cli_json_text(item, "name"), cli_json_text(item, "file"));
    if (!strcmp(state, "damaged"))
        cli_printf(app, "%-10s sha256 %s, expected %s\n", "", actual, expected[0] ? expected : "(none recorded)");
}

static int run_verify(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const cli_hub_values *values = given;
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    char *text = NULL;
    int status = cli_hub_open(app, values, NULL, &hub);
    if (status) return status;
    sllm_status verified = sllm_hub_verify(hub, n_arguments ? arguments[0] : NULL, &text, &error);
    if (text) status = cli_hub_report(app, values, text, print_verified, NULL);
    if (verified) status = cli_hub_error(app, &error);
    sllm_hub_close(hub);
    return status;
}

const cli_command cli_command_verify = {
    .name = "verify",
    .arguments = "[MODEL]",
    .summary = "Compare the checksums of cached models with those recorded at download",
    .details = "Without MODEL: all. The exit status is 1 when a file differs or a record is damaged; an unfinished "
               "download is neither.",
    .groups = cache_groups,
    .values_size = sizeof(cli_hub_values),
    .max_arguments = 1,
    .run = run_verify,
};
