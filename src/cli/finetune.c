/* sllm finetune: an adapter learned on the file that serves. */
#include "cli/commands.h"

#include "base/json.h"
#include "base/number.h"
#include "cli/progress.h"
#include "sllm_train.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct finetune_values {
    const char *data, *out, *resume, *target, *schedule, *format, *over_long, *preset;
    int rank, batch, accumulation, seed, max_length, keep, log_every;
    float alpha, dropout, epochs, learning_rate, warmup, weight_decay, max_grad_norm, eval_split;
    bool rslora, dora, prompt_loss, no_end, json;
    cli_model_values model;
} finetune_values;

typedef struct watching {
    cli_app *app;
    int log_every;
    double loss, best_eval; /* sums since the last line */
    int n;
} watching;

/* ---------------------------------------------------------------- what is shown */

static void duration(double seconds, char out[32]) {
    int s = (int)(seconds + 0.5);
    if (s >= 3600) snprintf(out, 32, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, 32, "%d:%02d", s / 60, s % 60);
}

/* A line every so many steps, and at the end of each pass over the data. */
static bool on_step(void *user, const sllm_train_event *e) {
    watching *w = user;
    char left[32], memory[32];
    w->loss += e->loss;
    w->n++;
    bool measured = !isnan(e->eval_loss), due = e->step % w->log_every == 0 || measured || e->step == e->total_steps || e->step == 1;
    if (due) {
        cli_progress_end();
        duration(e->seconds_left, left);
        cli_format_bytes(e->memory_bytes, memory);
        fprintf(stderr, "step %lld of %lld  epoch %.2f  loss %.4f", (long long)e->step, (long long)e->total_steps, e->epoch, w->loss / w->n);
        if (measured) fprintf(stderr, "  held out %.4f", e->eval_loss);
        fprintf(stderr, "  rate %.2e  %.0f tokens/s  %s  %s left\n", e->learning_rate, e->tokens_per_second, memory, left);
        w->loss = 0;
        w->n = 0;
    }
    char steps[] = "steps";
    if (isatty(STDERR_FILENO)) cli_progress(steps, "learning", (uint64_t)e->step, (uint64_t)e->total_steps);
    return !cli_interrupted();
}

static void on_note(void *user, const char *note) {
    (void)user;
    cli_progress_end();
    fprintf(stderr, "sllm: finetune: note: %s\n", note);
}

static int64_t number(const sl_json *root, const char *key) {
    int64_t n = 0;
    sl_json_int64(sl_json_get(root, key), &n);
    return n;
}

/* The first example as the model will see it: what is learned stands between brackets. */
static void print_example(cli_app *app, const sl_json *example) {
    bool inside = false;
    cli_printf(app, "\nThe first example; [[what is learned]]:\n");
    for (const sl_json *t = example ? example->first : NULL; t; t = t->next) {
        bool learned = false;
        sl_json_bool(sl_json_get(t, "learned"), &learned);
        if (learned != inside) cli_printf(app, "%s", learned ? "[[" : "]]");
        inside = learned;
        cli_printf(app, "%s", sl_json_string(sl_json_get(t, "text")) ? sl_json_string(sl_json_get(t, "text")) : "");
    }
    cli_printf(app, "%s\n\n", inside ? "]]" : "");
}

static void print_plan(cli_app *app, const sl_json *root) {
    char bytes[32];
    int64_t trainable = number(root, "trainable"), total = number(root, "total");
    cli_format_bytes((uint64_t)number(root, "bytes"), bytes);
    cli_printf(app, "trainable params: %lld || all params: %lld || trainable%%: %.4f\n", (long long)trainable, (long long)total,
               100.0 * (double)trainable / (double)total);
    cli_printf(app, "%lld examples to learn, %lld held out, %lld tokens of which %lld are learned, the longest %lld; %lld steps\n",
               (long long)number(root, "examples"), (long long)number(root, "eval_examples"), (long long)number(root, "tokens"),
               (long long)number(root, "labels"), (long long)number(root, "longest"), (long long)number(root, "steps"));
    if (number(root, "truncated")) cli_printf(app, "%lld examples were truncated\n", (long long)number(root, "truncated"));
    if (number(root, "split")) cli_printf(app, "%lld examples were split\n", (long long)number(root, "split"));
    cli_printf(app, "learning takes %s of memory beside the model\n", bytes);
    print_example(app, sl_json_get(root, "example"));
}

static int show_plan(cli_app *app, const finetune_values *v, sllm_model *model, const sl_buffer *data, const sllm_train_params *params) {
    sl_arena arena = {0};
    const sl_json *root;
    sllm_error error = {0};
    char *json = NULL;
    int status = CLI_OK;
    if (sllm_finetune_plan(model, data->data ? data->data : "", data->length, params, &json, &error)) return cli_error(app, &error);
    if (v->json) cli_printf(app, "%s\n", json);
    else if (sl_json_parse(&arena, json, strlen(json), "plan", &root, &error)) status = cli_error(app, &error);
    else print_plan(app, root);
    cli_write(app, "", 0); /* also a file sees what will be done before it is */
    sl_arena_free(&arena);
    sllm_free(json);
    return status;
}

/* ---------------------------------------------------------------- settings */

/* 0.05f as 0.05: what the user wrote stands in the records. */
static double plain(float x) {
    char text[40];
    snprintf(text, sizeof text, "%.7g", (double)x);
    return sl_strtod(text, NULL);
}

static void fill(const finetune_values *v, sllm_train_params *p) {
    sllm_train_params_init(p);
    p->rank = v->rank;
    p->alpha = plain(v->alpha);
    p->dropout = plain(v->dropout);
    p->rslora = v->rslora;
    p->dora = v->dora;
    p->target = v->target;
    p->batch = v->batch;
    p->accumulation = v->accumulation;
    p->epochs = plain(v->epochs);
    p->learning_rate = plain(v->learning_rate);
    p->warmup = plain(v->warmup);
    p->schedule = v->schedule;
    p->weight_decay = plain(v->weight_decay);
    p->max_grad_norm = v->max_grad_norm > 0 ? plain(v->max_grad_norm) : -1;
    p->seed = (uint64_t)v->seed;
    p->format = v->format;
    p->prompt_loss = v->prompt_loss;
    p->no_end = v->no_end;
    p->max_length = v->max_length;
    p->over_long = v->over_long;
    p->eval_split = plain(v->eval_split);
    p->keep = v->keep;
}

/* What a plain script over PEFT and transformers' Trainer does, but for what the user has set. */
static void fill_peft(sllm_train_params *p) {
    if (!p->target) p->target = "q_proj,v_proj";
    if (!p->schedule) p->schedule = "linear";
    if (!p->format) p->format = "plain";
    if (!p->over_long) p->over_long = "truncate";
    if (!p->max_length) p->max_length = 512;
    p->warmup = 0;
    p->prompt_loss = p->no_end = true;
}

/* The settings that run.json holds, in place of those of the command line; texts are borrowed from root. */
static bool read_settings(const sl_json *root, sllm_train_params *p, cli_model_values *how, const char **model, const char **data) {
    const sl_json *s = sl_json_get(root, "settings");
    const struct { const char *key; double *out; } doubles[] = {
        {"alpha", &p->alpha}, {"dropout", &p->dropout}, {"epochs", &p->epochs}, {"learning_rate", &p->learning_rate}, {"warmup", &p->warmup},
        {"weight_decay", &p->weight_decay}, {"max_grad_norm", &p->max_grad_norm}, {"eval_split", &p->eval_split}};
    const struct { const char *key; int *out; } ints[] = {
        {"rank", &p->rank}, {"batch", &p->batch}, {"accumulation", &p->accumulation}, {"max_length", &p->max_length}};
    const struct { const char *key; const char **out; } texts[] = {
        {"target", &p->target}, {"schedule", &p->schedule}, {"format", &p->format}, {"over_long", &p->over_long}, {"model", model}, {"data", data}};
    bool good = s != NULL;
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) good &= sl_json_double(sl_json_get(s, doubles[i].key), doubles[i].out);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) *ints[i].out = (int)number(s, ints[i].key);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) good &= (*texts[i].out = sl_json_string(sl_json_get(s, texts[i].key))) != NULL;
    p->seed = (uint64_t)number(s, "seed");
    sl_json_bool(sl_json_get(s, "rslora"), &p->rslora);
    sl_json_bool(sl_json_get(s, "dora"), &p->dora);
    sl_json_bool(sl_json_get(s, "prompt_loss"), &p->prompt_loss);
    sl_json_bool(sl_json_get(s, "no_end"), &p->no_end);
    sl_json_bool(sl_json_get(s, "exact"), &how->exact);
    return good;
}

/* ---------------------------------------------------------------- the command */

static int teach(cli_app *app, const finetune_values *v, const char *name, const char *data_path, const char *out, const cli_model_values *how,
                 sllm_train_params *params) {
    sllm_model *model = NULL;
    sllm_error error = {0};
    sl_buffer data = {0};
    watching w = {.app = app, .log_every = v->log_every};
    int status = cli_read_file(app, data_path, &data);
    if (!status) status = cli_load(app, name, how, false, &model);
    params->model_name = name;
    params->data_name = data_path;
    params->on_step = on_step;
    params->on_note = on_note;
    params->user = &w;
    if (!status && !params->resume) status = show_plan(app, v, model, &data, params);
    if (!status) {
        cli_progress_begin(app, true);
        sllm_status failed = sllm_finetune(model, data.data ? data.data : "", data.length, out, params, &error);
        cli_progress_end();
        if (failed) status = cli_error(app, &error);
        else if (!v->json) cli_printf(app, "%s: the adapter; try it: sllm run %s --adapter %s\n", out, name, out);
    }
    sl_buffer_free(&data);
    sllm_model_free(model);
    return status;
}

static int go_on(cli_app *app, const finetune_values *v) {
    sl_arena arena = {0};
    sl_buffer text = {0}, path = {0};
    sllm_error error = {0};
    sllm_train_params params;
    cli_model_values how = v->model;
    const sl_json *root;
    const char *model, *data;
    sllm_train_params_init(&params);
    sl_buffer_printf(&path, "%s/run.json", v->resume);
    int status = path.failed ? cli_failure(app, "out of memory") : cli_read_file(app, path.data, &text);
    if (!status && sl_json_parse(&arena, text.data, text.length, path.data, &root, &error)) status = cli_error(app, &error);
    if (!status && !read_settings(root, &params, &how, &model, &data)) status = cli_failure(app, "%s: is no record of a run", path.data);
    params.keep = v->keep;
    params.resume = true;
    if (!status) status = teach(app, v, model, data, v->resume, &how, &params);
    sl_buffer_free(&text);
    sl_buffer_free(&path);
    sl_arena_free(&arena);
    return status;
}

static int run_finetune(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const finetune_values *v = given;
    sllm_train_params params;
    cli_termination_watch();
    if (v->resume && (n_arguments || v->data || v->out))
        return cli_usage(app, "--resume FOLDER goes on as the run was begun: it takes the model, the data and the settings from there");
    if (v->resume) return go_on(app, v);
    if (n_arguments != 1 || !v->data || !v->out) return cli_usage(app, "give a MODEL, --data FILE.jsonl and -o FOLDER, or --resume FOLDER");
    if (v->preset && strcmp(v->preset, "peft")) return cli_usage(app, "there is no preset '%s'; there is peft", v->preset);
    fill(v, &params);
    if (v->preset) fill_peft(&params);
    return teach(app, v, arguments[0], v->data, v->out, &v->model, &params);
}

static const cli_option finetune_options[] = {
    {"data", 0, CLI_TEXT, "FILE.jsonl", .offset = offsetof(finetune_values, data),
     .help = "Examples, one a line: {\"instruction\", \"input\", \"output\"}, {\"prompt\", \"completion\"}, {\"messages\"} or {\"text\"}"},
    {"output", 'o', CLI_TEXT, "FOLDER", .offset = offsetof(finetune_values, out), .help = "The adapter's folder, in PEFT's form"},
    {"resume", 0, CLI_TEXT, "FOLDER", .offset = offsetof(finetune_values, resume), .help = "Go on with the run in FOLDER from its last checkpoint"},
    {"format", 0, CLI_TEXT, "NAME", .offset = offsetof(finetune_values, format),
     .help = "How instructions become text: template (the model's own; the default), alpaca or plain"},
    {"max-length", 0, CLI_INT, "N", "0", 0, 1 << 24, .offset = offsetof(finetune_values, max_length),
     .help = "Tokens of an example at most; 0: 1024, or the model's context where that is shorter"},
    {"over-long", 0, CLI_TEXT, "WHAT", .offset = offsetof(finetune_values, over_long),
     .help = "What becomes of longer ones: refuse (the default), truncate or split; they are counted"},
    {"prompt-loss", 0, CLI_FLAG, .offset = offsetof(finetune_values, prompt_loss), .help = "Learn the prompts too, not the answers alone"},
    {"no-end", 0, CLI_FLAG, .offset = offsetof(finetune_values, no_end),
     .help = "Outputs outside a template end without the end-of-sequence token: the model does not learn to stop"},
    {"preset", 0, CLI_TEXT, "NAME", .offset = offsetof(finetune_values, preset),
     .help = "peft: what a plain script over PEFT does: q_proj and v_proj, linear without warmup, plain, 512 tokens, truncated, prompts "
             "learned, no end"},
    {"eval-split", 0, CLI_FLOAT, "X", "0.05", 0, 0.99, .offset = offsetof(finetune_values, eval_split),
     .help = "Share of the examples that is held out and measured after each pass"},
    {"json", 0, CLI_FLAG, .offset = offsetof(finetune_values, json), .help = "Print what will be done as one JSON object"},
    {"log-every", 0, CLI_INT, "N", "50", 1, 1 << 20, .offset = offsetof(finetune_values, log_every), .help = "Steps between two lines of progress"},
    {0},
};
static const cli_option adapter_options[] = {
    {"rank", 'r', CLI_INT, "N", "16", 1, 1024, .offset = offsetof(finetune_values, rank), .help = "Rank of the low-rank changes"},
    {"alpha", 0, CLI_FLOAT, "X", "0", 0, 1e6, .offset = offsetof(finetune_values, alpha), .help = "They are scaled by alpha / rank; 0: twice the rank"},
    {"dropout", 0, CLI_FLOAT, "P", "0.05", 0, 0.95, .offset = offsetof(finetune_values, dropout), .help = "Share of their inputs that is left out at random"},
    {"target", 0, CLI_TEXT, "NAMES", .offset = offsetof(finetune_values, target),
     .help = "Products that learn: all-linear (the default), or names as in q_proj,v_proj"},
    {"rslora", 0, CLI_FLAG, .offset = offsetof(finetune_values, rslora), .help = "Scale by alpha / sqrt(rank)"},
    {"dora", 0, CLI_FLAG, .offset = offsetof(finetune_values, dora), .help = "Learn the length of each row apart from its direction (DoRA)"},
    {0},
};
static const cli_option course_options[] = {
    {"batch", 0, CLI_INT, "N", "4", 1, 4096, .offset = offsetof(finetune_values, batch), .help = "Examples computed together"},
    {"accumulation", 0, CLI_INT, "N", "4", 1, 4096, .offset = offsetof(finetune_values, accumulation), .help = "Batches to a step"},
    {"epochs", 0, CLI_FLOAT, "N", "3", 0.001, 1e6, .offset = offsetof(finetune_values, epochs), .help = "Passes over the examples"},
    {"learning-rate", 0, CLI_FLOAT, "X", "2e-4", 0, 1, .offset = offsetof(finetune_values, learning_rate), .help = "The highest rate", .min_open = true},
    {"schedule", 0, CLI_TEXT, "NAME", .offset = offsetof(finetune_values, schedule), .help = "Its way down: cosine (the default), linear or constant"},
    {"warmup", 0, CLI_FLOAT, "X", "0.03", 0, 1, .offset = offsetof(finetune_values, warmup), .help = "Share of the steps on the way up"},
    {"weight-decay", 0, CLI_FLOAT, "X", "0", 0, 10, .offset = offsetof(finetune_values, weight_decay), .help = "AdamW's decay"},
    {"max-grad-norm", 0, CLI_FLOAT, "X", "1", 0, 1e9, .offset = offsetof(finetune_values, max_grad_norm), .help = "Longer gradients are shortened; 0: never"},
    {"seed", 0, CLI_INT, "N", "0", 0, 2147483647, .offset = offsetof(finetune_values, seed), .help = "Of the beginning, the order and what is dropped"},
    {"keep", 0, CLI_INT, "N", "2", 1, 1 << 20, .offset = offsetof(finetune_values, keep), .help = "Checkpoints kept beside the best"},
    {0},
};
static const cli_group finetune_groups[] = {
    {"Options", finetune_options, 0},
    {"Adapter", adapter_options, 0},
    {"Course", course_options, 0},
    {"Model", cli_model_options, offsetof(finetune_values, model)},
    {0},
};

const cli_command cli_command_finetune = {
    .name = "finetune",
    .arguments = "MODEL",
    .summary = "Teach a model with an adapter (LoRA, DoRA) on the file that serves",
    .details = "The model stays as it is, quantised or not; what is learned is an adapter beside it, in PEFT's form. Its products run "
               "through the kernels that answer (with --exact in f32). Losses are means over the learned tokens: those of the assistant's "
               "turns, or of the output.\n\n"
               "FOLDER holds metrics.jsonl (a line a step), a checkpoint for each pass, and at the end the adapter. Ctrl-C ends the run "
               "after a step with a checkpoint; --resume goes on from the last one, to the same bytes as a run that was not "
               "interrupted.",
    .groups = finetune_groups,
    .values_size = sizeof(finetune_values),
    .min_arguments = 0,
    .max_arguments = 1,
    .run = run_finetune,
};
