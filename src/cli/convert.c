/* sllm convert: a checkpoint folder as a GGUF file. */
#include "cli/commands.h"

#include "base/json.h"
#include "cli/progress.h"
#include "sllm_quant.h"

#include <stddef.h>
#include <string.h>

typedef struct convert_values {
    const char *out, *type, *pre, *split;
    int threads;
    bool requantize, allow_nonfinite, json, pull;
} convert_values;

static int show_report(cli_app *app, const char *report, const char *out) {
    sl_arena arena = {0};
    const sl_json *root;
    sllm_error error = {0};
    char bytes[32];
    int64_t n = 0, tensors = 0, resumed = 0, requantized = 0;
    if (sl_json_parse(&arena, report, strlen(report), "report", &root, &error)) {
        sl_arena_free(&arena);
        return cli_error(app, &error);
    }
    sl_json_int64(sl_json_get(root, "bytes_out"), &n);
    sl_json_int64(sl_json_get(root, "tensors"), &tensors);
    sl_json_int64(sl_json_get(root, "resumed"), &resumed);
    cli_format_bytes((uint64_t)n, bytes);
    cli_printf(app, "%s: %lld tensors, %s\n", out, (long long)tensors, bytes);
    sl_json_int64(sl_json_get(root, "requantized"), &requantized);
    if (requantized) cli_printf(app, "  %lld of them were quantised: their errors stay\n", (long long)requantized);
    if (resumed) cli_printf(app, "  %lld of them were there from an earlier, interrupted run\n", (long long)resumed);
    const sl_json *list = sl_json_get(root, "warnings");
    for (const sl_json *w = list ? list->first : NULL; w; w = w->next) fprintf(stderr, "sllm: convert: note: %s\n", w->text);
    sl_arena_free(&arena);
    return CLI_OK;
}

static int run_convert(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const convert_values *v = given;
    sllm_convert_params params;
    sllm_error error = {0};
    char *path = NULL, *report = NULL;
    (void)n_arguments;
    sllm_convert_params_init(&params);
    if (!v->out) return cli_usage(app, "give -o OUT.gguf, or a folder to make of a GGUF file");
    if (v->split && (!cli_parse_bytes(v->split, &params.split_bytes) || !params.split_bytes))
        return cli_usage(app, "--split %s: not a size such as 2GB", v->split);
    params.type = v->type;
    params.pre = v->pre;
    params.allow_nonfinite = v->allow_nonfinite;
    params.requantize = v->requantize;
    params.n_threads = v->threads;
    params.on_progress = cli_progress;
    cli_termination_watch();
    int status = cli_resolve(app, arguments[0], v->pull, &path);
    cli_progress_begin(app, true);
    if (!status) {
        sllm_status failed = sllm_convert(path, v->out, &params, &report, &error);
        cli_progress_end();
        if (failed) status = cli_error(app, &error);
        else if (v->json) cli_printf(app, "%s\n", report);
        else status = show_report(app, report, v->out);
    }
    sllm_free(report);
    sllm_free(path);
    return status;
}

static const cli_option convert_options[] = {
    {"output", 'o', CLI_TEXT, "PATH", .offset = offsetof(convert_values, out),
     .help = "The GGUF file to write; from a GGUF file: the folder to make"},
    {"type", 't', CLI_TEXT, "TYPE", .offset = offsetof(convert_values, type),
     .help = "f32, f16 or bf16 for the matrices; without it as in the source"},
    {"pre", 0, CLI_TEXT, "NAME", .offset = offsetof(convert_values, pre),
     .help = "GGUF's name of the pre-tokeniser; without it the name is found by trial"},
    {"split", 0, CLI_TEXT, "SIZE", .offset = offsetof(convert_values, split),
     .help = "Write parts of at most SIZE, NAME-00001-of-0000N.gguf"},
    {"requantize", 0, CLI_FLAG, .offset = offsetof(convert_values, requantize),
     .help = "Accept a source that is quantised already; its errors stay"},
    {"allow-nonfinite", 0, CLI_FLAG, .offset = offsetof(convert_values, allow_nonfinite),
     .help = "Make NaN and infinite weights 0 in place of refusing them"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(convert_values, threads),
     .help = "Threads; without it all that the process may use"},
    {"json", 0, CLI_FLAG, .offset = offsetof(convert_values, json), .help = "Print the report as one JSON object"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(convert_values, pull),
     .help = "Download SOURCE first when it is a name that is not in the cache"},
    {0},
};
static const cli_group convert_groups[] = {{"Options", convert_options, 0}, {0}};

const cli_command cli_command_convert = {
    .name = "convert",
    .arguments = "SOURCE",
    .summary = "Write a checkpoint folder as a GGUF file, or a GGUF file as a folder",
    .details = "SOURCE is a Hugging Face folder: config.json, safetensors, tokenizer. The file holds all of it, with the "
               "chat template, the licence, the source's SHA-256 and what was done, and runs in llama.cpp too. What GGUF has no "
               "standard key for (windows of single layers, layers without rotary embedding) is written under sllm.* and read "
               "back; a model that the format cannot say is refused.\n\n"
               "SOURCE may also be a GGUF file of f32, f16 or bf16: PATH is then a folder that transformers reads, with a "
               "config.json, a tokenizer.json and safetensors made from the file.\n\n"
               "PATH appears when it is complete. A GGUF file whose run was interrupted is gone on with when it is started again with the "
               "same arguments; until then what is finished is in PATH.part. A folder begins anew.",
    .groups = convert_groups,
    .values_size = sizeof(convert_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_convert,
};
