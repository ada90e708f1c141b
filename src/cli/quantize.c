/* sllm quantize: a GGUF file in smaller types. */
#include "cli/commands.h"

#include "base/file.h"
#include "base/json.h"
#include "cli/progress.h"
#include "sllm_quant.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct quantize_values {
    const char *type, *method, *budget, *calibrate, *importance, *importance_out, *split;
    cli_texts tensors;
    float bits;
    int threads, group_size;
    bool act_order, double_quant, keep_output, pure, requantize, allow_nonfinite, json, list, pull;
} quantize_values;

/* ---------------------------------------------------------------- output */

static int print_list(cli_app *app) {
    const char *const *types = sllm_quantize_types();
    for (size_t i = 0; types[i]; i++) cli_printf(app, "%s\n", types[i]);
    types = sllm_quantize_folder_types();
    for (size_t i = 0; types[i]; i++) cli_printf(app, "%s\n", types[i]);
    return CLI_OK;
}

static int64_t number_of(const sl_json *root, const char *key) {
    int64_t n = 0;
    sl_json_int64(sl_json_get(root, key), &n);
    return n;
}

static bool same(const sl_json *a, const sl_json *b, const char *key) {
    return !strcmp(sl_json_string(sl_json_get(a, key)), sl_json_string(sl_json_get(b, key)));
}

/* One line for all tensors of a width that asked for one type and took another; --json names each. */
static void print_fallbacks(cli_app *app, const sl_json *root) {
    const sl_json *list = sl_json_get(root, "fallbacks");
    for (size_t i = 0; list && i < list->length; i++) {
        const sl_json *f = list->items[i];
        size_t before = 0, count = 0;
        for (size_t k = 0; k < list->length; k++) {
            const sl_json *g = list->items[k];
            if (!same(f, g, "wanted") || number_of(f, "columns") != number_of(g, "columns")) continue;
            if (k < i) before++;
            count++;
        }
        if (before) continue;
        cli_printf(app, "  %zu tensor%s (%s%s): rows of %lld values hold no blocks of %s, so %s\n", count,
                   count == 1 ? "" : "s", sl_json_string(sl_json_get(f, "name")), count == 1 ? "" : ", ...",
                   (long long)number_of(f, "columns"), sl_json_string(sl_json_get(f, "wanted")),
                   sl_json_string(sl_json_get(f, "type")));
    }
}

static void print_notes(const sl_json *root) {
    const sl_json *list = sl_json_get(root, "warnings");
    for (const sl_json *w = list ? list->first : NULL; w; w = w->next) fprintf(stderr, "sllm: quantize: note: %s\n", w->text);
}

/* What a method left to plain rounding. */
static void print_solved(cli_app *app, const sl_json *root) {
    static const struct { const char *key, *why; } rounded[] = {
        {"rounded_unreached", "the text never came to them"},
        {"rounded_singular", "their inputs on the text have no inverse"},
        {"rounded_plain", "the method has nothing for them"},
    };
    if (!sl_json_get(root, "solved")) return;
    cli_printf(app, "  %lld matrices by the method\n", (long long)number_of(root, "solved"));
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
        if (number_of(root, rounded[i].key))
            cli_printf(app, "  %lld matrices only rounded: %s\n", (long long)number_of(root, rounded[i].key), rounded[i].why);
}

static void print_report(cli_app *app, const sl_json *root, const char *out) {
    char before[32], after[32];
    double bits = 0, kld = -1;
    cli_format_bytes((uint64_t)number_of(root, "bytes_in"), before);
    cli_format_bytes((uint64_t)number_of(root, "bytes_out"), after);
    sl_json_double(sl_json_get(root, "bits_per_weight"), &bits);
    print_notes(root);
    if (sl_json_get(root, "quantized")) {
        cli_printf(app, "%s: %s -> %s, %lld matrices quantised, %lld tensors as they were\n", out, before, after,
                   (long long)number_of(root, "quantized"), (long long)number_of(root, "copied"));
        if (number_of(root, "experts_kept"))
            cli_printf(app, "  %lld matrices of experts among these: bitsandbytes has no form for them\n", (long long)number_of(root, "experts_kept"));
        print_solved(app, root);
        return;
    }
    cli_printf(app, "%s: %s -> %s, %.2f bits a weight\n", out, before, after, bits);
    const sl_json *types = sl_json_get(root, "types");
    for (const sl_json *t = types ? types->first : NULL; t; t = t->next)
        cli_printf(app, "  %6s  %.*s\n", t->key, (int)t->length, t->text);
    if (sl_json_double(sl_json_get(root, "expected_kld"), &kld))
        cli_printf(app, "  expected KL divergence %.5f nats a token (`sllm compare` measures it)\n", kld);
    print_fallbacks(app, root);
    print_solved(app, root);
    if (number_of(root, "without_importance"))
        cli_printf(app, "  %lld tensors (the first is %s) have no importance in the file\n", (long long)number_of(root, "without_importance"),
                   sl_json_string(sl_json_get(root, "first_without_importance")));
    if (number_of(root, "requantized"))
        cli_printf(app, "  %lld tensors were quantised already: their errors add up\n",
                   (long long)number_of(root, "requantized"));
    if (number_of(root, "nonfinite"))
        cli_printf(app, "  %lld values were not finite and are 0 now\n", (long long)number_of(root, "nonfinite"));
    if (number_of(root, "resumed"))
        cli_printf(app, "  %lld tensors were there from an earlier, interrupted run\n",
                   (long long)number_of(root, "resumed"));
}

static int show_report(cli_app *app, const char *report, const char *out) {
    sl_arena arena = {0};
    const sl_json *root;
    sllm_error error = {0};
    int status = CLI_OK;
    if (sl_json_parse(&arena, report, strlen(report), "report", &root, &error)) status = cli_error(app, &error);
    else print_report(app, root, out);
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- the command */

/* The steps before the writing count no bytes. */
static bool on_step(void *user, const char *what, uint64_t done, uint64_t total) {
    char tokens[] = "tokens", tensors[] = "tensors";
    (void)user;
    bool counts_bytes = !strcmp(what, "quantising") || !strcmp(what, "converting") || !strcmp(what, "reading");
    if (counts_bytes) return cli_progress(NULL, what, done, total);
    bool counts_tokens = !strcmp(what, "calibrating") || !strcmp(what, "solving");
    return cli_progress(counts_tokens ? tokens : tensors, what, done, total);
}

static int fill(cli_app *app, const quantize_values *v, sllm_quantize_params *p) {
    sllm_quantize_params_init(p);
    p->type = v->type;
    p->rules = v->tensors.items;
    p->n_rules = v->tensors.n;
    p->method = v->method;
    p->act_order = v->act_order;
    p->group_size = v->group_size;
    p->double_quant = v->double_quant;
    p->keep_output = v->keep_output;
    p->pure = v->pure;
    p->requantize = v->requantize;
    p->allow_nonfinite = v->allow_nonfinite;
    p->bits = v->bits;
    p->importance = v->importance;
    p->importance_out = v->importance_out;
    p->n_threads = v->threads;
    p->on_progress = on_step;
    if (v->type && (v->budget || v->bits > 0))
        return cli_usage(app, "--type and a budget: a budget chooses the types itself");
    if (!v->type && !v->budget && v->bits <= 0)
        return cli_usage(app, "give --type TYPE (--list names them), --budget SIZE or --bits N");
    if (v->importance_out && !v->calibrate) return cli_usage(app, "--importance-out needs --calibrate TEXT");
    if (v->budget && (!cli_parse_bytes(v->budget, &p->budget_bytes) || !p->budget_bytes))
        return cli_usage(app, "--budget %s: not a size such as 3.2GB or 900MiB", v->budget);
    if (v->importance_out && sl_path_is_same(v->importance_out, v->calibrate))
        return cli_usage(app, "--importance-out %s: is the text of --calibrate, which would be replaced", v->importance_out);
    if (v->split && (!cli_parse_bytes(v->split, &p->split_bytes) || !p->split_bytes))
        return cli_usage(app, "--split %s: not a size such as 2GB", v->split);
    return CLI_OK;
}

static int run_quantize(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const quantize_values *v = given;
    sllm_quantize_params params;
    sllm_error error = {0};
    sl_buffer text = {0};
    char *path = NULL, *report = NULL;
    if (v->list) return print_list(app);
    if (n_arguments != 2) return cli_usage(app, "give a source and the file to write: %s quantize IN OUT", "sllm");
    int status = fill(app, v, &params);
    if (status) return status;
    cli_termination_watch();
    status = cli_resolve(app, arguments[0], v->pull, &path);
    cli_progress_begin(app, true);
    if (!status && v->calibrate) {
        status = cli_read_file(app, v->calibrate, &text);
        params.calibration = text.data ? text.data : "";
        params.calibration_length = text.length;
        params.calibration_name = v->calibrate;
        params.calibration_jsonl = cli_is_jsonl(v->calibrate);
    }
    if (!status) {
        sllm_status failed = sllm_quantize(path, arguments[1], &params, &report, &error);
        cli_progress_end();
        if (failed) status = cli_error(app, &error);
        else if (v->json) cli_printf(app, "%s\n", report);
        else status = show_report(app, report, arguments[1]);
    }
    sl_buffer_free(&text);
    sllm_free(report);
    sllm_free(path);
    return status;
}

static const cli_option quantize_options[] = {
    {"type", 't', CLI_TEXT, "TYPE", .offset = offsetof(quantize_values, type),
     .help = "Type or mix of types: q4_k_m, q8_0, iq4_xs, nf4, int4, ... (--list)"},
    {"list", 0, CLI_FLAG, .offset = offsetof(quantize_values, list), .help = "Name the types and stop"},
    {"tensor", 0, CLI_TEXTS, "PATTERN=TYPE", .offset = offsetof(quantize_values, tensors),
     .help = "Type of the tensors whose names match a shell pattern, as in 'blk.*.ffn_down=q6_k'; the first that matches "
             "counts"},
    {"method", 0, CLI_TEXT, "NAME", .offset = offsetof(quantize_values, method),
     .help = "round (the default); gptq: each column's error is made up for by the columns after it; awq: inputs are scaled so "
             "that the columns that matter round better. Both need --calibrate"},
    {"act-order", 0, CLI_FLAG, .offset = offsetof(quantize_values, act_order),
     .help = "With gptq and int4 or int8: columns of large inputs first, which is better and slower to run; GGUF types are always "
             "solved so"},
    {"group-size", 0, CLI_INT, "N", NULL, 32, 1 << 20, .offset = offsetof(quantize_values, group_size),
     .help = "For int4 and int8: columns that share a scale (128)"},
    {"double-quant", 0, CLI_FLAG, .offset = offsetof(quantize_values, double_quant),
     .help = "For nf4 and fp4: the blocks' scales in 8 bits too"},
    {"keep-output", 0, CLI_FLAG, .offset = offsetof(quantize_values, keep_output),
     .help = "Leave the matrix that makes the logits as it is"},
    {"pure", 0, CLI_FLAG, .offset = offsetof(quantize_values, pure),
     .help = "One type for every matrix, no mix by role and layer"},
    {"budget", 0, CLI_TEXT, "SIZE", .offset = offsetof(quantize_values, budget),
     .help = "Choose the type of each tensor by measured sensitivity so that the file takes at most SIZE (3.2GB, 900MiB); "
             "needs --calibrate"},
    {"bits", 0, CLI_FLOAT, "N", NULL, 0, 32, .offset = offsetof(quantize_values, bits),
     .help = "The same, as bits per weight of all matrices together, those of --tensor and --keep-output included"},
    {"calibrate", 0, CLI_TEXT, "FILE", .offset = offsetof(quantize_values, calibrate),
     .help = "Text, or .jsonl with \"text\" or \"messages\" a line, on which to measure which weights matter"},
    {"importance", 0, CLI_TEXT, "FILE", .offset = offsetof(quantize_values, importance),
     .help = "Importance measured before (llama.cpp's imatrix files are read too)"},
    {"importance-out", 0, CLI_TEXT, "FILE", .offset = offsetof(quantize_values, importance_out),
     .help = "Write what --calibrate measured, for later runs and for llama-quantize"},
    {"requantize", 0, CLI_FLAG, .offset = offsetof(quantize_values, requantize),
     .help = "Accept a source that is quantised already, and the errors of both"},
    {"allow-nonfinite", 0, CLI_FLAG, .offset = offsetof(quantize_values, allow_nonfinite),
     .help = "Make NaN and infinite weights 0 in place of refusing them"},
    {"split", 0, CLI_TEXT, "SIZE", .offset = offsetof(quantize_values, split),
     .help = "Write parts of at most SIZE, NAME-00001-of-0000N.gguf"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(quantize_values, threads),
     .help = "Threads; without it all that the process may use"},
    {"json", 0, CLI_FLAG, .offset = offsetof(quantize_values, json), .help = "Print the report as one JSON object"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(quantize_values, pull),
     .help = "Download IN first when it is a name that is not in the cache"},
    {0},
};
static const cli_group quantize_groups[] = {{"Options", quantize_options, 0}, {0}};

const cli_command cli_command_quantize = {
    .name = "quantize",
    .arguments = "IN OUT",
    .summary = "Write a model in smaller types",
    .details = "IN is a GGUF file of f16, bf16 or f32 weights, or a checkpoint folder (which is converted to OUT.part.source first, for as "
               "long as it is needed), OUT the GGUF file to write. The types nf4, fp4 (bitsandbytes), int4 and int8 (GPTQ's "
               "layout; AWQ's with --method awq) make a checkpoint folder OUT from a checkpoint folder IN.\n\n"
               "A mix such as q4_k_m gives each tensor a type by its role and layer, as the name "
               "promises everywhere. Where rows are no multiple of a type's block, the next type that fits is taken: Q4_K "
               "becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0, Q2_K and Q3_K Q4_0, IQ4_XS IQ4_NL; the report lists these tensors.\n\n"
               "OUT appears when it is complete. A GGUF file whose run was interrupted is gone on with when it is started again with the "
               "same arguments; until then what is finished is in OUT.part. A folder begins anew.",
    .groups = quantize_groups,
    .values_size = sizeof(quantize_values),
    .min_arguments = 0,
    .max_arguments = 2,
    .run = run_quantize,
};
