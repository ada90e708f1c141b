/* sllm eval classify: accuracy and the per-class report of a model that answers with labels. */
#include "cli/commands.h"

#include "base/json.h"
#include "cli/progress.h"
#include "sllm_eval.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LABELS = 1024 };

typedef struct eval_values {
    const char *data, *labels, *format;
    float min_accuracy;
    bool baseline, free_answers, json;
    cli_model_values model;
} eval_values;

/* "a,b,c" in place; how many. */
static size_t split_labels(char *text, const char **labels) {
    size_t n = 0;
    for (char *at = strtok(text, ","); at && n < MOST_LABELS; at = strtok(NULL, ",")) labels[n++] = at;
    return n;
}

static double number(const sl_json *root, const char *key) {
    double value = 0;
    sl_json_double(sl_json_get(root, key), &value);
    return value;
}

/* ---------------------------------------------------------------- the table */

static void print_row(cli_app *app, const char *name, const sl_json *row) {
    cli_printf(app, "%24s %10.4f %10.4f %10.4f %8.0f\n", name, number(row, "precision"), number(row, "recall"), number(row, "f1-score"),
               number(row, "support"));
}

static void print_report(cli_app *app, const sl_json *root, const sl_json *before) {
    const sl_json *report = sl_json_get(root, "report");
    cli_printf(app, "%24s %10s %10s %10s %8s\n", "", "precision", "recall", "f1-score", "support");
    for (const sl_json *row = report ? report->first : NULL; row; row = row->next)
        if (row->type == SL_JSON_OBJECT) print_row(app, row->key, row);
    cli_printf(app, "\naccuracy %.4f of %.0f, macro F1 %.4f, Matthews %.4f, %.1f examples/s\n", number(root, "accuracy"), number(root, "n"),
               number(sl_json_get(root, "macro"), "f1"), number(root, "matthews"), number(root, "examples_per_second"));
    if (before)
        cli_printf(app, "without the adapter: accuracy %.4f, macro F1 %.4f\n", number(before, "accuracy"),
                   number(sl_json_get(before, "macro"), "f1"));
}

/* ---------------------------------------------------------------- measuring */

static int measure(cli_app *app, const eval_values *v, const char *name, bool plain, const sl_buffer *data, const char *const *labels,
                   size_t n_labels, char **json) {
    cli_model_values how = v->model;
    sllm_model *model = NULL;
    sllm_error error = {0};
    sllm_classify_params p;
    if (plain) how.adapters = (cli_texts){0};
    int status = cli_load(app, name, &how, false, &model);
    sllm_classify_params_init(&p);
    p.labels = labels;
    p.n_labels = n_labels;
    p.free_answers = v->free_answers;
    p.format = v->format;
    p.data_name = v->data;
    p.on_progress = cli_progress;
    p.user = "questions";
    cli_progress_begin(app, true);
    if (!status && sllm_eval_classify(model, data->data ? data->data : "", data->length, &p, json, &error)) {
        cli_progress_end();
        status = cli_error(app, &error);
    }
    cli_progress_end();
    sllm_model_free(model);
    return status;
}

/* Prints, and compares with --min-accuracy. */
static int show(cli_app *app, const eval_values *v, char *json, const char *before) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL, *other = NULL;
    int status = CLI_OK;
    if (sl_json_parse(&arena, json, strlen(json), "report", &root, &error) ||
        (before && sl_json_parse(&arena, before, strlen(before), "report", &other, &error)))
        status = cli_error(app, &error);
    double accuracy = number(root, "accuracy");
    if (!status && v->json) {
        if (before) json[strlen(json) - 1] = 0; /* the closing brace */
        cli_printf(app, before ? "%s,\"baseline\":%s}\n" : "%s\n", json, before);
    } else if (!status) {
        print_report(app, root, other);
    }
    sl_arena_free(&arena);
    if (!status && accuracy < (double)v->min_accuracy)
        status = cli_failure(app, "the accuracy is %.4f, below --min-accuracy %g", accuracy, (double)v->min_accuracy);
    return status;
}

static int run_eval(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const eval_values *v = given;
    const char *labels[MOST_LABELS];
    char *json = NULL, *before = NULL, *text = NULL;
    sl_buffer data = {0};
    size_t n = 0;
    if (n_arguments != 2 || strcmp(arguments[0], "classify") || !v->data)
        return cli_usage(app, "give what to measure, a MODEL and --data FILE.jsonl: sllm eval classify MODEL --data FILE.jsonl");
    if (v->baseline && !v->model.adapters.n) return cli_usage(app, "--baseline measures the model without its --adapter, which is not given");
    cli_interrupt_watch();
    int status = cli_read_file(app, v->data, &data);
    if (!status && v->labels && !(text = strdup(v->labels))) status = cli_failure(app, "out of memory");
    if (!status && text) n = split_labels(text, labels);
    if (!status && v->baseline) status = measure(app, v, arguments[1], true, &data, labels, n, &before);
    if (!status) status = measure(app, v, arguments[1], false, &data, labels, n, &json);
    if (!status) status = show(app, v, json, before);
    sl_buffer_free(&data);
    free(text);
    sllm_free(json);
    sllm_free(before);
    return status;
}

static const cli_option eval_options[] = {
    {"data", 0, CLI_TEXT, "FILE.jsonl", .offset = offsetof(eval_values, data),
     .help = "Questions, one a line: {\"instruction\", \"input\", \"output\"} or {\"text\", \"label\"}"},
    {"labels", 0, CLI_TEXT, "A,B,C", .offset = offsetof(eval_values, labels), .help = "What the answer is one of; without it the outputs of the data"},
    {"free", 0, CLI_FLAG, .offset = offsetof(eval_values, free_answers),
     .help = "Let the model answer freely; case, blanks and a full stop around the answer do not count"},
    {"format", 0, CLI_TEXT, "NAME", .offset = offsetof(eval_values, format),
     .help = "How questions become prompts, as in finetune: template (the default), alpaca or plain"},
    {"baseline", 0, CLI_FLAG, .offset = offsetof(eval_values, baseline), .help = "Measure the model without its adapter, too"},
    {"min-accuracy", 0, CLI_FLOAT, "X", "0", 0, 1, .offset = offsetof(eval_values, min_accuracy), .help = "Fail (exit status 1) below this accuracy"},
    {"json", 0, CLI_FLAG, .offset = offsetof(eval_values, json), .help = "Print one JSON object"},
    {0},
};
static const cli_group eval_groups[] = {
    {"Options", eval_options, 0},
    {"Model", cli_model_options, offsetof(eval_values, model)},
    {0},
};

const cli_command cli_command_eval = {
    .name = "eval",
    .arguments = "classify MODEL",
    .summary = "Measure a model that answers with labels: accuracy, precision, recall, F1",
    .details = "Each question is asked by itself, greedily; the answer is one of the labels unless --free. The report is that of "
               "scikit-learn's classification_report.",
    .groups = eval_groups,
    .values_size = sizeof(eval_values),
    .min_arguments = 0,
    .max_arguments = 2,
    .run = run_eval,
};
