/* sllm show: what a model is. */
#include "cli/commands.h"

#include "base/json.h"
#include "cli/speed.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct show_values {
    bool json, template, tensors, pull, cpu, measure;
    int threads;
    const char *kernels;
} show_values;

/* ---------------------------------------------------------------- description */

/* One line a member: scalars as they are, arrays of scalars on one line, objects indented. The template is left to
 * --template: it is long. */
static void print_member(cli_app *app, const sl_json *member, int indent) {
    sl_buffer value = {0};
    char label[96];
    snprintf(label, sizeof label, "%*s%s", indent, "", member->key ? member->key : "");
    bool is_word = label[indent] >= 'a' && label[indent] <= 'z'; /* and not the name of a type, as in Q4_1 */
    for (char *c = label + indent; is_word && *c; c++)
        if (*c == '_') *c = ' ';
    if (member->type == SL_JSON_OBJECT) {
        cli_printf(app, "%s\n", label);
        for (const sl_json *child = member->first; child; child = child->next) print_member(app, child, indent + 2);
        return;
    }
    bool is_template = member->key && !strcmp(member->key, "chat_template") && member->type == SL_JSON_STRING;
    if (is_template) sl_buffer_printf(&value, "yes, %zu bytes (--template prints it)", member->length);
    else if (member->type == SL_JSON_STRING && !memchr(member->text, '\n', member->length))
        sl_buffer_append(&value, member->text, member->length);
    else sl_json_write_value(&value, member);
    cli_printf(app, "%-28s ", label);
    if (value.data) cli_print_safe(app, value.data, value.length);
    cli_printf(app, "\n");
    sl_buffer_free(&value);
}

static int print_template(cli_app *app, const char *name, const sl_json *root) {
    const sl_json *source = sl_json_get(root, "chat_template");
    if (!source || source->type != SL_JSON_STRING) return cli_failure(app, "%s has no chat template", name);
    if (app->stdout_is_terminal) cli_print_safe(app, source->text, source->length);
    else cli_write(app, source->text, source->length);
    return cli_write(app, "\n", 1) ? CLI_OK : CLI_FAILURE;
}

static int describe(cli_app *app, const char *name, const show_values *values, const char *text) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL;
    int status = CLI_OK;
    if (sl_json_parse(&arena, text, strlen(text), "description", &root, &error)) status = cli_error(app, &error);
    else if (values->template) status = print_template(app, name, root);
    else if (values->json) cli_printf(app, "%s\n", text);
    else
        for (const sl_json *member = root->first; member; member = member->next) print_member(app, member, 0);
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- tensors */

static int list_tensors(cli_app *app, const char *path, bool json) {
    sllm_error error = {0};
    sllm_tensor_file *file = NULL;
    sllm_tensor_info info;
    sl_buffer out = {0};
    int status = CLI_OK;
    if (sllm_tensor_file_open(path, &file, &error)) return cli_error(app, &error);
    if (json) sl_buffer_puts(&out, "{\"tensors\":[");
    for (size_t i = 0, n = sllm_tensor_file_count(file); !status && i < n; i++) {
        char shape[160], bytes[32];
        if (sllm_tensor_file_info(file, i, &info, &error)) {
            status = cli_error(app, &error);
            break;
        }
        cli_format_shape(&info, shape);
        cli_format_bytes(info.bytes, bytes);
        if (!json) {
            cli_printf(app, "%-44s %-8s %-20s %10s\n", info.name, info.type, shape, bytes);
            continue;
        }
        sl_json_comma(&out);
        sl_buffer_putc(&out, '{');
        sl_json_put_string(&out, "name", info.name);
        sl_json_put_string(&out, "type", info.type);
        sl_json_key(&out, "shape");
        sl_buffer_puts(&out, shape);
        sl_json_put_int(&out, "bytes", (int64_t)info.bytes);
        sl_buffer_putc(&out, '}');
    }
    if (json) sl_buffer_puts(&out, "]}");
    if (!status && json) status = cli_put_json(app, &out);
    sl_buffer_free(&out);
    sllm_tensor_file_close(file);
    return status;
}

/* Weights are mapped and bound, which checks them, but not read. A file without weights, or with a network that cannot run
 * here, is still worth describing: the reason is printed and the rest is shown. */
static sllm_status load(cli_app *app, const char *path, sllm_model **model, sllm_error *error) {
    sllm_model_params params;
    sllm_model_params_init(&params);
    params.n_threads = 1;
    sllm_status status = sllm_model_load(path, &params, model, error);
    if (!status || status == SLLM_ERROR_MEMORY || status == SLLM_ERROR_IO) return status;
    sllm_error reason = *error;
    params.vocab_only = true;
    status = sllm_model_load(path, &params, model, error);
    if (!status) fprintf(stderr, "sllm: %s: note: %s\n", app->command->name, reason.message);
    return status;
}

/* ---------------------------------------------------------------- the processor */

static int put_cpu(cli_app *app, const sllm_machine_speed *speed) {
    sl_buffer out = {0};
    bool can_run;
    sl_buffer_putc(&out, '{');
    cli_put_machine(&out, speed);
    sl_json_key(&out, "kernels");
    sl_buffer_putc(&out, '[');
    for (int i = 0; sllm_kernels_known(i, &can_run); i++) {
        sl_json_comma(&out);
        sl_buffer_putc(&out, '{');
        sl_json_put_string(&out, "name", sllm_kernels_known(i, NULL));
        sl_json_put_bool(&out, "can_run", can_run);
        sl_buffer_putc(&out, '}');
    }
    sl_buffer_puts(&out, "]}");
    return cli_put_json(app, &out);
}

static int show_cpu(cli_app *app, const show_values *values) {
    sllm_machine_speed speed;
    bool can_run;
    int status = cli_machine_speed(app, values->threads, values->measure ? CLI_SPEED_AGAIN : CLI_SPEED_KEPT, &speed);
    if (status) return status;
    if (values->json) return put_cpu(app, &speed);
    cli_print_machine(app, &speed);
    cli_printf(app, "%-20s", "kernels known");
    for (int i = 0; sllm_kernels_known(i, &can_run); i++)
        cli_printf(app, " %s%s", sllm_kernels_known(i, NULL), can_run ? "" : " (not on this processor)");
    cli_printf(app, "\n%-20s --kernels NAME where a command has it, or SLLM_CPU=NAME for any\n", "to force them");
    return CLI_OK;
}

static int run_show(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const show_values *values = given;
    sllm_error error = {0};
    sllm_model *model = NULL;
    char *path = NULL, *text = NULL;
    if (values->kernels && sllm_kernels_force(values->kernels, &error))
        return cli_usage(app, "--kernels: %s", error.message);
    if (values->cpu && n_arguments) return cli_usage(app, "--cpu shows this machine; leave out MODEL %s", arguments[0]);
    if (values->cpu) return show_cpu(app, values);
    if (!n_arguments) return cli_usage(app, "which MODEL? (or --cpu for the processor)");
    if (values->template && (values->tensors || values->json))
        return cli_usage(app, "--template prints the template alone; leave out --tensors and --json");
    int status = cli_resolve(app, arguments[0], values->pull, &path);
    if (!status && values->tensors) {
        status = list_tensors(app, path, values->json);
    } else if (!status) {
        if (load(app, path, &model, &error) || sllm_model_describe(model, &text, &error)) status = cli_error(app, &error);
        else status = describe(app, arguments[0], values, text);
    }
    sllm_free(text);
    sllm_free(path);
    sllm_model_free(model);
    return status;
}

static const cli_option show_options[] = {
    {"json", 0, CLI_FLAG, .offset = offsetof(show_values, json), .help = "Print one JSON object"},
    {"template", 0, CLI_FLAG, .offset = offsetof(show_values, template), .help = "Print the chat template alone"},
    {"tensors", 0, CLI_FLAG, .offset = offsetof(show_values, tensors),
     .help = "List the tensors: name, type, shape, size"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(show_values, pull),
     .help = "Download MODEL first when it is a name that is not in the cache"},
    {0},
};
static const cli_option cpu_options[] = {
    {"cpu", 0, CLI_FLAG, .offset = offsetof(show_values, cpu),
     .help = "Show this machine instead of a model: the processor's features, the kernels that there are and that are in "
             "use, memory, and what was measured"},
    {"measure", 0, CLI_FLAG, .offset = offsetof(show_values, measure),
     .help = "Measure again, in place of what was measured before"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(show_values, threads),
     .help = "Measure with so many threads; without it all that the process may use"},
    {"kernels", 0, CLI_TEXT, "NAME", .offset = offsetof(show_values, kernels),
     .help = "Use these kernels (auto, or a name that --cpu lists) in place of the best ones"},
    {0},
};
static const cli_group show_groups[] = {{"Options", show_options, 0}, {"The processor", cpu_options, 0}, {0}};

const cli_command cli_command_show = {
    .name = "show", .arguments = "MODEL|--cpu",
    .summary = "Print a model's architecture, size, types, context, template, special tokens and licence",
    .groups = show_groups, .values_size = sizeof(show_values), .max_arguments = 1, .run = run_show,
};
