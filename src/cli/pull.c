/* sllm pull: a model into the cache. */
#include "cli/commands.h"
#include "cli/hub.h"

#include <stddef.h>
#include <string.h>

typedef struct pull_values {
    cli_hub_values hub;
    cli_source_values source;
} pull_values;

static int print_pulled(cli_app *app, const pull_values *values, const char *name, const char *path) {
    sl_buffer out = {0};
    if (!values->hub.json) {
        cli_printf(app, "%s\n", path);
        return CLI_OK;
    }
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "name", name);
    sl_json_put_string(&out, "path", path);
    sl_buffer_putc(&out, '}');
    return cli_put_json(app, &out);
}

static int run_pull(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const pull_values *values = given;
    sllm_hub *hub = NULL;
    int status = cli_hub_open(app, &values->hub, &values->source, &hub);
    for (int i = 0; i < n_arguments && !status; i++) {
        sllm_error error = {0};
        char *path = NULL;
        if (sllm_hub_pull(hub, arguments[i], &path, &error)) status = cli_hub_error(app, &error);
        else status = print_pulled(app, values, arguments[i], path);
        sllm_free(path);
    }
    sllm_hub_close(hub);
    return status;
}

static const cli_group pull_groups[] = {{"Options", cli_hub_options, offsetof(pull_values, hub)},
                                        {"Where from", cli_source_options, offsetof(pull_values, source)},
                                        {0}};

const cli_command cli_command_pull = {
    .name = "pull",
    .arguments = "MODEL...",
    .summary = "Download models into the cache",
    .details = "MODEL is a name of the catalogue (`sllm models`), hf:OWNER/REPO (its one GGUF file, or its safetensors "
               "checkpoint), or hf:OWNER/REPO/FILE.gguf (with all parts when it is split); @REVISION at the end picks "
               "a branch, "
               "tag or commit.\n\n"
               "An interrupted pull continues where it ended when it is run again. A file gets its name only when its "
               "size and "
               "checksum are right. Prints the path of each model.",
    .groups = pull_groups,
    .values_size = sizeof(pull_values),
    .min_arguments = 1,
    .max_arguments = -1,
    .run = run_pull,
};
