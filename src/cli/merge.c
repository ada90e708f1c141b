/* sllm merge: an adapter made a part of the model's file. */
#include "cli/commands.h"

#include "base/json.h"
#include "base/number.h"
#include "cli/progress.h"
#include "sllm_train.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct merge_values {
    const char *out, *type, *text;
    float limit, weight;
    int threads;
    bool any_base, json, pull;
} merge_values;

/** The decimal number that was written: 0.05, not the float beside it. */
static double decimal(float x) {
    char digits[32];
    snprintf(digits, sizeof(digits), "%.7g", (double)x);
    return strtod(digits, NULL);
}

static double number(const sl_json *root, const char *key) {
    double value = 0;
    sl_json_double(sl_json_get(root, key), &value);
    return value;
}

static int show(cli_app *app, const char *report, const char *out) {
    sl_arena arena = {0};
    const sl_json *root;
    sllm_error error = {0};
    char before[32], after[32];
    int status = CLI_OK;
    if (sl_json_parse(&arena, report, strlen(report), "report", &root, &error)) {
        status = cli_error(app, &error);
    } else {
        cli_format_bytes((uint64_t)number(root, "bytes_in"), before);
        cli_format_bytes((uint64_t)number(root, "bytes_out"), after);
        cli_printf(app, "%s: %.0f matrices merged, %s -> %s\n", out, number(root, "merged"), before, after);
        cli_printf(app, "  from the live adapter: KL divergence mean %.6f, largest %.4f nats; same likeliest token %.2f %%\n",
                   number(root, "mean_kld"), number(root, "max_kld"), 100 * number(root, "top1_agreement"));
    }
    sl_arena_free(&arena);
    return status;
}

static int run_merge(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const merge_values *v = given;
    sllm_merge_params p;
    sllm_error error = {0};
    sl_buffer text = {0};
    char *path = NULL, *report = NULL;
    float weights[8];
    if (n_arguments < 2 || n_arguments > 9 || !v->out) return cli_usage(app, "give a MODEL, one adapter or more, and -o OUT.gguf");
    for (int i = 1; i < n_arguments; i++) weights[i - 1] = v->weight;
    sllm_merge_params_init(&p);
    p.type = v->type;
    p.limit = v->limit > 0 ? decimal(v->limit) : -1;
    p.n_threads = v->threads;
    p.on_progress = cli_progress;
    cli_termination_watch();
    int status = v->text ? cli_read_file(app, v->text, &text) : CLI_OK;
    if (v->text) p.text = text.data ? text.data : "", p.text_length = text.length;
    if (!status) status = cli_resolve(app, arguments[0], v->pull, &path);
    cli_progress_begin(app, true);
    if (!status) {
        sllm_status failed = sllm_merge(path, (const char *const *)(void *)(arguments + 1), weights, (size_t)n_arguments - 1, v->any_base, v->out, &p,
                                        &report, &error);
        cli_progress_end();
        if (v->json && report) cli_printf(app, "%s\n", report);
        if (failed) status = cli_error(app, &error);
        else if (!v->json) status = show(app, report, v->out);
        if (status == CLI_USAGE && report) status = CLI_FAILURE; /* refused: nothing was wrong with the command line */
    }
    sl_buffer_free(&text);
    sllm_free(path);
    sllm_free(report);
    return status;
}

static const cli_option merge_options[] = {
    {"output", 'o', CLI_TEXT, "OUT.gguf", .offset = offsetof(merge_values, out), .help = "The file to write"},
    {"type", 't', CLI_TEXT, "TYPE", .offset = offsetof(merge_values, type),
     .help = "f32, f16 or bf16 for the merged matrices; without it the types that they are stored in"},
    {"limit", 0, CLI_FLOAT, "X", "0.05", 0, 100, .offset = offsetof(merge_values, limit),
     .help = "Mean KL divergence from the live adapter, in nats a token, above which nothing is written; 0: none"},
    {"text", 0, CLI_TEXT, "FILE", .offset = offsetof(merge_values, text), .help = "Text to compare them on; without it a short one of several kinds"},
    {"weight", 0, CLI_FLOAT, "X", "1", -100, 100, .offset = offsetof(merge_values, weight), .help = "What the adapters count"},
    {"any-base", 0, CLI_FLAG, .offset = offsetof(merge_values, any_base), .help = "Take an adapter that was made on another model"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(merge_values, threads), .help = "Threads; without it all that the process may use"},
    {"json", 0, CLI_FLAG, .offset = offsetof(merge_values, json), .help = "Print the report as one JSON object"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(merge_values, pull), .help = "Download MODEL first when it is a name that is not in the cache"},
    {0},
};
static const cli_group merge_groups[] = {{"Options", merge_options, 0}, {0}};

const cli_command cli_command_merge = {
    .name = "merge",
    .arguments = "MODEL ADAPTER...",
    .summary = "Make an adapter a part of the model's file",
    .details = "MODEL is a GGUF file. The merged matrices keep their types, or become floats; the file is then compared with the live "
               "adapter, and is written only where its answers are near enough.",
    .groups = merge_groups,
    .values_size = sizeof(merge_values),
    .min_arguments = 0,
    .max_arguments = 9,
    .run = run_merge,
};
