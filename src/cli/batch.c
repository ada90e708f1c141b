/* sllm batch: a file of prompts, a file of answers. */
#include "cli/batch.h"

#include "cli/answer.h"
#include "cli/commands.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/sha256.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_LEFT = 9999 * 3600 }; /* seconds that the progress tells at most */

typedef struct batch_values {
    cli_prompt_values prompt; /* file and examples */
    cli_answer_values answer;
    cli_sampling_values sampling;
    cli_model_values model;
    const char *in, *out, *choices;
    int parallel, speculate;
    bool raw, strict, restart, no_prefix_cache, quiet, json;
} batch_values;

typedef struct batch batch;

/* A line on its way from the input to the output. */
typedef struct job {
    batch *owner;
    size_t number; /* of the line, from 1 */
    cli_batch_line line;
    sl_buffer out; /* the line of the output, when done */
    bool done, failed;
    char message[1024]; /* when failed */
} job;

struct batch {
    cli_app *app;
    const batch_values *values;
    const char *name; /* MODEL as given */
    sl_buffer form_text, examples, template_options, identity;
    cli_form form;
    cli_choices choices;
    cli_batch_input input;
    cli_batch_output output;
    cli_batch_defaults defaults;
    cli_ask ask;
    sllm_model *model;
    sllm_batch *engine;
    job **jobs;       /* [window] a ring: those read and not yet written, in order */
    size_t window, first, n_jobs;
    size_t n_read;    /* lines of the input so far */
    size_t n_resumed; /* lines that the output held at the beginning */
    size_t n_errors;
    bool input_ended;
    size_t broke_at;  /* the line at which something failed that is no fault of a line; 0: nothing has */
    char why[1024];
    double began, printed;
};

/* ---------------------------------------------------------------- what must be the same to go on */

static void put_field(sl_buffer *out, const cli_option *option, const void *field) {
    const cli_texts *texts = field;
    sl_buffer value = {0};
    switch (option->kind) {
    case CLI_FLAG: sl_buffer_puts(&value, *(const bool *)field ? "on" : "off"); break;
    case CLI_INT: sl_buffer_printf(&value, "%d", *(const int *)field); break;
    case CLI_FLOAT: sl_json_write_double(&value, (double)*(const float *)field); break;
    case CLI_TEXT: sl_buffer_puts(&value, *(const char *const *)field ? *(const char *const *)field : ""); break;
    case CLI_TEXTS:
        for (size_t i = 0; i < texts->n; i++) sl_buffer_printf(&value, "%s%s", i ? ", " : "", texts->items[i]);
        break;
    case CLI_WORD: sl_buffer_puts(&value, option->words[*(const int *)field]); break;
    case CLI_SEED: return; /* the output's state holds the seed that was used */
    }
    sl_json_put_string(out, option->name, value.data ? value.data : "");
    if (value.failed) out->failed = true;
    sl_buffer_free(&value);
}

static void put_fields(sl_buffer *out, const cli_option *options, const void *values) {
    for (; options->name; options++) put_field(out, options, (const char *)values + options->offset);
}

static void put_hash(sl_buffer *out, const char *key, const sl_buffer *text) {
    char hex[65] = "none";
    if (text->length) sl_sha256_hex(text->data, text->length, hex);
    sl_json_put_string(out, key, hex);
}

/* What the answers depend on, each under the name that a message calls it by. Not how many are computed at once, by how
 * many threads, or with what guesses: these change no answer. */
static int make_identity(batch *b) {
    const batch_values *v = b->values;
    sl_buffer *out = &b->identity;
    sllm_machine machine;
    sllm_error error = {0};
    char model[65];
    if (sllm_model_fingerprint(b->model, model, &error)) return cli_error(b->app, &error);
    sllm_machine_info(&machine);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "input", b->input.sha256);
    sl_json_put_string(out, "model", model);
    sl_json_put_string(out, "version of sllm", sllm_version());
    sl_json_put_string(out, "kernels", machine.kernels);
    put_hash(out, "prompt file", &b->form_text);
    put_hash(out, "examples file", &b->examples);
    sl_json_put_string(out, "choices", v->choices ? v->choices : "");
    sl_json_put_string(out, "raw", v->raw ? "on" : "off");
    put_fields(out, cli_answer_options, &v->answer);
    put_fields(out, cli_sampling_options, &v->sampling);
    put_field(out, &(cli_option){.name = "ctx", .kind = CLI_INT}, &v->model.ctx);
    put_field(out, &(cli_option){.name = "exact", .kind = CLI_FLAG}, &v->model.exact);
    put_field(out, &(cli_option){.name = "kv-type", .kind = CLI_WORD, .words = cli_kv_types}, &v->model.kv_type);
    sl_buffer_putc(out, '}');
    return out->failed ? cli_failure(b->app, "out of memory") : CLI_OK;
}

/* ---------------------------------------------------------------- progress */

static void print_progress(batch *b, bool final) {
    if (b->values->quiet) return;
    bool terminal = b->app->stderr_is_terminal;
    double now = sl_clock(), seconds = now - b->began;
    if (!final && now - b->printed < (terminal ? 0.2 : 10)) return;
    b->printed = now;
    sllm_batch_stats stats;
    sllm_batch_get_stats(b->engine, &stats);
    size_t made = b->output.n_lines - b->n_resumed, left = b->input.n_lines - b->output.n_lines;
    double rate = seconds > 0 ? (double)made / seconds : 0;
    fprintf(stderr, "%ssllm: batch: %zu of %zu lines, %.2f lines/s, %.0f tokens/s", terminal ? "\r\x1b[K" : "",
            b->output.n_lines, b->input.n_lines, rate,
            seconds > 0 ? (double)stats.completion_tokens / seconds : 0);
    if (rate > 0 && left > 0) {
        double estimate = (double)left / rate + 0.5; /* of a slow beginning it may be any number */
        unsigned s = estimate < LONGEST_LEFT ? (unsigned)estimate : LONGEST_LEFT;
        if (s >= 3600) fprintf(stderr, ", %u:%02u:%02u left", s / 3600, s / 60 % 60, s % 60);
        else fprintf(stderr, ", %u:%02u left", s / 60, s % 60);
    }
    if (!terminal || final) putc('\n', stderr);
    fflush(stderr);
}

/* ---------------------------------------------------------------- one line */

static void free_job(job *j) {
    cli_batch_line_free(&j->line);
    sl_buffer_free(&j->out);
    free(j);
}

static void begin_out(job *j) {
    sl_buffer_putc(&j->out, '{');
    sl_json_put_int(&j->out, "line", (int64_t)j->number);
    if (!j->line.id) return;
    sl_json_key(&j->out, "id");
    sl_buffer_puts(&j->out, j->line.id);
}

static void fail_job(job *j, const sllm_error *error) {
    snprintf(j->message, sizeof j->message, "%s", error->message);
    begin_out(j);
    sl_json_key(&j->out, "error");
    sl_buffer_putc(&j->out, '{');
    sl_json_put_int(&j->out, "line", (int64_t)j->number);
    sl_json_put_string(&j->out, "message", j->message);
    sl_buffer_puts(&j->out, "}}\n");
    j->done = j->failed = true;
}

/* Ends the run at a failure that another attempt may not meet: it must not become the line's answer. */
static void break_off(job *j, const sllm_error *error) {
    batch *b = j->owner;
    if (b->broke_at && b->broke_at < j->number) return;
    b->broke_at = j->number;
    snprintf(b->why, sizeof b->why, "%s", error->message);
}

/* What a line may be to blame for once it was read and found right: that it does not fit, or leaves nothing to draw. */
static bool is_fault_of_request(sllm_status status) {
    return status == SLLM_ERROR_ARGUMENT || status == SLLM_ERROR_CONTEXT || status == SLLM_ERROR_UNSUPPORTED;
}

/* While it is read also for its text and for what the template makes of it. */
static bool is_fault_of_line(sllm_status status) {
    return is_fault_of_request(status) || status == SLLM_ERROR_FORMAT || status == SLLM_ERROR_TEMPLATE;
}

static void on_done(void *user, sllm_status status, sllm_generation *answer, const sllm_error *error) {
    job *j = user;
    if (status == SLLM_ERROR_CANCELLED) return; /* the batch ends before the line was reached: it is not done */
    if (status && !is_fault_of_request(status)) {
        break_off(j, error);
        return;
    }
    if (status) {
        fail_job(j, error);
        return;
    }
    begin_out(j);
    cli_put_answer(&j->out, &j->line.params, answer);
    sl_buffer_puts(&j->out, "}\n");
    sllm_generation_free(answer);
    j->done = true;
}

static sllm_status tokenize_job(const batch *b, const job *j, sllm_tokens *tokens, sllm_error *error) {
    const sl_buffer *prompt = &j->line.prompt;
    if (b->values->raw)
        return sllm_tokenize(b->model, prompt->data, prompt->length, SLLM_TOKENIZE_SPECIAL | SLLM_TOKENIZE_ADD, tokens,
                             error);
    char *text = NULL;
    size_t length = 0;
    sllm_status status =
        sllm_template_render(b->model, prompt->data, b->template_options.data, &text, &length, error);
    /* the template writes its own beginning-of-sequence token, so none is added */
    if (!status) status = sllm_tokenize(b->model, text, length, SLLM_TOKENIZE_SPECIAL, tokens, error);
    sllm_free(text);
    return status;
}

/* Reads what a line asks for and adds it to the engine; a line at fault is done at once. */
static void start_job(batch *b, job *j, const sl_buffer *text) {
    sllm_error error = {0};
    sllm_tokens tokens = {0};
    sllm_generate_params *params = &j->line.params;
    sllm_status status =
        cli_batch_line_read(&b->defaults, text->data ? text->data : "", text->length, &j->line, &error);
    if (!status) status = tokenize_job(b, j, &tokens, &error);
    params->user = j;
    if (!status) status = sllm_batch_add(b->engine, tokens.ids, tokens.n, params, on_done, NULL, &error);
    if (status && is_fault_of_line(status)) fail_job(j, &error);
    else if (status) break_off(j, &error);
    sllm_tokens_free(&tokens);
}

/* ---------------------------------------------------------------- all lines */

/* Reads on while the window has room. */
static int read_lines(batch *b) {
    sl_buffer text = {0};
    int status = CLI_OK, more = 1;
    while (!status && !b->input_ended && !b->broke_at && b->n_jobs < b->window && !cli_interrupted() &&
           (more = cli_batch_input_next(&b->input, &text)) == 1) {
        uint64_t seed = b->ask.params.sampler.seed + b->n_read; /* lines of the same prompt shall differ */
        if (++b->n_read <= b->n_resumed) continue;
        job *j = calloc(1, sizeof *j);
        if (!j) {
            status = cli_failure(b->app, "out of memory");
            break;
        }
        j->owner = b, j->number = b->n_read;
        b->defaults.params.sampler.seed = seed;
        b->jobs[(b->first + b->n_jobs++) % b->window] = j;
        start_job(b, j, &text);
        /* behind a line at fault nothing will be written */
        if (j->failed && b->values->strict) b->input_ended = true;
    }
    if (more == 0) b->input_ended = true;
    if (more < 0) status = cli_interrupted() ? CLI_INTERRUPTED : CLI_FAILURE;
    sl_buffer_free(&text);
    return status;
}

/* Writes those that are done, up to the first that is not. */
static int write_lines(batch *b) {
    while (b->n_jobs > 0 && b->jobs[b->first]->done) {
        job *j = b->jobs[b->first];
        if (j->failed && b->values->strict)
            return cli_failure(b->app, "%s: line %zu: %s; the lines before it are written", b->input.name, j->number,
                               j->message);
        if (j->out.failed) return cli_failure(b->app, "out of memory at line %zu", j->number);
        int status = cli_batch_output_write(&b->output, j->out.data, j->out.length);
        if (status) return status;
        b->output.n_lines++;
        b->n_errors += j->failed;
        b->first = (b->first + 1) % b->window;
        b->n_jobs--;
        free_job(j);
    }
    return CLI_OK;
}

static const char *way_on(const batch *b) {
    return b->output.continues ? "; the same command goes on from there" : "";
}

static bool is_interrupted(void *user) {
    (void)user;
    return cli_interrupted();
}

static int answer_lines(batch *b) {
    int status = CLI_OK;
    bool more;
    while (!status && !(b->input_ended && b->n_jobs == 0)) {
        status = read_lines(b);
        if (!status && cli_interrupted()) status = CLI_INTERRUPTED;
        if (!status && !b->broke_at && sllm_batch_step(b->engine, &more, NULL)) status = CLI_INTERRUPTED;
        int written = write_lines(b); /* what is complete, also when it ends here */
        if (!status) status = written;
        if (!status && b->broke_at)
            status = cli_failure(b->app, "line %zu could not be answered: %s; %zu lines are written%s", b->broke_at,
                                 b->why, b->output.n_lines, way_on(b));
        if (!status) print_progress(b, false);
    }
    return status;
}

/* ---------------------------------------------------------------- the whole */

static int check_values(cli_app *app, const batch_values *v) {
    if (!v->in) return cli_usage(app, "no input; give --in FILE.jsonl (- for standard input)");
    if (!v->out) return cli_usage(app, "no output; give --out FILE.jsonl (- for standard output)");
    if (v->json && !strcmp(v->out, "-"))
        return cli_usage(app, "--json and --out -: both write standard output; give one");
    if (v->restart && !strcmp(v->out, "-")) return cli_usage(app, "--restart has no place with --out -");
    if (v->raw && v->answer.system)
        return cli_usage(app, "--system has no place with --raw, which uses no chat template");
    if (v->raw && v->prompt.examples)
        return cli_usage(app, "--examples has no place with --raw, which uses no chat template");
    if (v->raw && v->answer.template_args.n)
        return cli_usage(app, "--template-arg has no place with --raw, which uses no chat template");
    if (v->choices && v->answer.stop.n) return cli_usage(app, "--stop has no place with --choices: a choice is exact");
    if (v->prompt.file && !strcmp(v->prompt.file, "-") && !strcmp(v->in, "-"))
        return cli_usage(app, "--in and --prompt-file are both standard input; give a file for one");
    return CLI_OK;
}

/* The prompt file with its slots; a slot may not be called as a parameter is. */
static int read_form(batch *b) {
    const char *file = b->values->prompt.file;
    if (!file) return CLI_OK;
    int status = cli_read_file(b->app, file, &b->form_text);
    if (!status) status = cli_check_utf8(b->app, file, b->form_text.data ? b->form_text.data : "", b->form_text.length);
    if (!status && b->form_text.length && b->form_text.data[b->form_text.length - 1] == '\n') b->form_text.length--;
    const char *text = b->form_text.data ? b->form_text.data : "";
    if (!status) status = cli_form_parse(b->app, file, text, b->form_text.length, &b->form);
    for (size_t i = 0; !status && i < b->form.n; i++) {
        const cli_piece *piece = &b->form.pieces[i];
        if (piece->slot && cli_batch_is_parameter(piece->text, piece->length))
            status = cli_failure(b->app, "%s: line %d: slot {{%.*s}} has the name of a parameter; call it otherwise",
                                 file, piece->line, (int)piece->length, piece->text);
    }
    return status;
}

/* What can be read before the model is loaded, so that a mistake shows at once. */
static int read_files(batch *b) {
    const batch_values *v = b->values;
    int status = read_form(b);
    if (!status && v->choices) status = cli_choices_split(b->app, v->choices, &b->choices);
    if (!status) status = cli_prompt_examples(b->app, &v->prompt, &b->examples);
    if (!status && !v->raw) status = cli_template_options(b->app, &v->answer, &b->template_options);
    if (!status && v->answer.system)
        status = cli_check_utf8(b->app, "--system", v->answer.system, strlen(v->answer.system));
    if (!status && b->examples.failed) status = cli_failure(b->app, "out of memory");
    return status;
}

static int load(batch *b) {
    const batch_values *v = b->values;
    sllm_error error = {0};
    sllm_model_info info;
    int status = cli_load_beside(b->app, b->name, &v->model, &(cli_beside){.n_sequences = v->parallel}, &b->model);
    if (!status) status = cli_ask_init(&b->ask, b->app, b->model, &v->sampling, &v->answer);
    if (status) return status;
    sllm_model_get_info(b->model, &info);
    if (!v->raw && !info.has_template)
        return cli_failure(b->app, "%s has no chat template (a base model?); --raw continues the prompts as they stand",
                           info.path);
    b->ask.params.on_event = NULL;
    b->ask.params.is_cancelled = NULL;
    b->ask.params.choices = (const char *const *)b->choices.items;
    b->ask.params.n_choices = b->choices.n;
    if (v->speculate) b->ask.params.speculation = SLLM_SPECULATION_LOOKUP;
    b->defaults = (cli_batch_defaults){.params = b->ask.params, .form = v->prompt.file ? &b->form : NULL,
                                       .system = v->answer.system, .raw = v->raw, .n_vocab = info.n_vocab};
    b->defaults.examples = b->examples.data ? b->examples.data : "";
    sllm_batch_params params = {.n_ctx = v->model.ctx, .n_sequences = v->parallel,
                                .kv_type = (sllm_kv_type)v->model.kv_type, .no_prefix_cache = v->no_prefix_cache,
                                .is_cancelled = is_interrupted};
    b->window = 16 * (size_t)v->parallel < 64 ? 64 : 16 * (size_t)v->parallel;
    b->jobs = calloc(b->window, sizeof *b->jobs);
    if (!b->jobs) return cli_failure(b->app, "out of memory");
    sllm_status failed = sllm_batch_new(b->model, &params, &b->engine, &error);
    if (failed == SLLM_ERROR_MEMORY) return cli_failure(b->app, "%s (--parallel, --ctx)", error.message);
    return failed ? cli_error(b->app, &error) : CLI_OK;
}

static int put_summary(batch *b, double seconds) {
    sl_buffer out = {0};
    sllm_batch_stats stats;
    sllm_batch_get_stats(b->engine, &stats);
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "model", b->name);
    sl_json_put_int(&out, "lines", (int64_t)b->input.n_lines);
    sl_json_put_int(&out, "written", (int64_t)b->output.n_lines);
    sl_json_put_int(&out, "resumed", (int64_t)b->n_resumed);
    sl_json_put_int(&out, "errors", (int64_t)b->n_errors);
    sl_json_put_int(&out, "prompt_tokens", (int64_t)stats.prompt_tokens);
    sl_json_put_int(&out, "reused_tokens", (int64_t)stats.reused_tokens);
    sl_json_put_int(&out, "completion_tokens", (int64_t)stats.completion_tokens);
    sl_json_put_int(&out, "parallel", b->values->parallel);
    sl_json_key(&out, "seed");
    sl_buffer_printf(&out, "%llu", (unsigned long long)b->ask.params.sampler.seed);
    sl_json_put_double(&out, "seconds", seconds);
    sl_json_put_double(&out, "tokens_per_second", seconds > 0 ? (double)stats.completion_tokens / seconds : 0);
    sl_buffer_putc(&out, '}');
    return cli_put_json(b->app, &out);
}

/* Says how it ended. */
static int conclude(batch *b, int status) {
    bool whole = b->input_ended && b->n_jobs == 0;
    if (status == CLI_OK || status == CLI_INTERRUPTED) {
        print_progress(b, true);
        if (b->values->json) {
            int put = put_summary(b, sl_clock() - b->began);
            if (!status) status = put;
        }
    }
    if (status == CLI_INTERRUPTED)
        cli_failure(b->app, "interrupted after %zu of %zu lines%s", b->output.n_lines, b->input.n_lines,
                    way_on(b));
    if (status == CLI_OK && whole && b->n_errors)
        status = cli_failure(b->app, "%zu of %zu lines have errors, which their lines of %s say", b->n_errors,
                             b->output.n_lines, !strcmp(b->values->out, "-") ? "standard output" : b->values->out);
    return status;
}

static int answer_file(batch *b) {
    const batch_values *v = b->values;
    uint64_t *seed = &b->ask.params.sampler.seed;
    int status = make_identity(b);
    if (!status)
        status = cli_batch_output_open(b->app, v->out, &b->input, &b->identity, v->restart, v->sampling.seed.given,
                                       seed, &b->output);
    if (status) return status;
    b->n_resumed = b->output.n_lines;
    b->n_errors = b->output.n_errors;
    if (b->n_resumed > 0 && !v->quiet)
        fprintf(stderr, "sllm: batch: %zu of %zu lines are there already\n", b->n_resumed, b->input.n_lines);
    b->began = b->printed = sl_clock();
    status = answer_lines(b);
    if (!status) status = cli_batch_input_check(&b->input);
    status = conclude(b, status);
    return cli_batch_output_close(&b->output, status);
}

static int run_batch(cli_app *app, const void *given, int n_arguments, char **arguments) {
    (void)n_arguments;
    const batch_values *values = given;
    batch *b = calloc(1, sizeof *b); /* the reader's buffer is too large for some stacks */
    if (!b) return cli_failure(app, "out of memory");
    *b = (batch){.app = app, .values = values, .name = arguments[0]};
    cli_interrupt_watch();
    int status = check_values(app, values);
    if (!status) status = read_files(b);
    bool opened = false;
    if (!status) opened = !(status = cli_batch_input_open(app, values->in, &b->input));
    if (!status) status = load(b);
    if (!status) status = answer_file(b);
    sllm_batch_free(b->engine); /* those on their way are ended first: they hold their lines */
    for (size_t i = 0; i < b->n_jobs; i++) free_job(b->jobs[(b->first + i) % b->window]);
    if (opened) cli_batch_input_close(&b->input);
    free(b->jobs);
    cli_ask_free(&b->ask);
    cli_choices_free(&b->choices);
    cli_form_free(&b->form);
    sl_buffer_free(&b->form_text);
    sl_buffer_free(&b->examples);
    sl_buffer_free(&b->template_options);
    sl_buffer_free(&b->identity);
    sllm_model_free(b->model);
    free(b);
    return status;
}

static const cli_option batch_options[] = {
    {"in", 'i', CLI_TEXT, "FILE.jsonl", .offset = offsetof(batch_values, in),
     .help = "The lines to answer; - is standard input"},
    {"out", 'o', CLI_TEXT, "FILE.jsonl", .offset = offsetof(batch_values, out),
     .help = "Where the answers go, a line for each; a file that this command has begun is continued, a pipe or device "
             "only written. - is standard output"},
    {"prompt-file", 'f', CLI_TEXT, "FILE", .offset = offsetof(batch_values, prompt) + offsetof(cli_prompt_values, file),
     .help = "Make each prompt of FILE, its slots {{key}} filled from the line's fields; \\{{ writes {{ itself"},
    {"examples", 0, CLI_TEXT, "FILE.jsonl",
     .offset = offsetof(batch_values, prompt) + offsetof(cli_prompt_values, examples),
     .help = "Few-shot examples before each prompt, as for `sllm run`"},
    {"choices", 0, CLI_TEXT, "A,B,C", .offset = offsetof(batch_values, choices),
     .help = "Every answer is exactly one of these (\\, for a comma), with the probability of each"},
    {"raw", 0, CLI_FLAG, .offset = offsetof(batch_values, raw),
     .help = "Continue the prompts as they stand, without the chat template; special tokens in them count"},
    {"parallel", 'p', CLI_INT, "N", "8", 1, 1024, .offset = offsetof(batch_values, parallel),
     .help = "Answers computed at once at most; fewer when their contexts would take more than half of the free "
             "memory. Changes no answer"},
    {"no-prefix-cache", 0, CLI_FLAG, .offset = offsetof(batch_values, no_prefix_cache),
     .help = "Compute every prompt whole, though another began as it does. Changes no answer"},
    {"speculate", 0, CLI_WORD, .fallback = "off", .words = cli_speculate_words,
     .offset = offsetof(batch_values, speculate),
     .help = "Guess the next tokens of an answer that is computed alone (--parallel 1, the last one) from what followed "
             "the last ones before. Changes no answer"},
    {"strict", 0, CLI_FLAG, .offset = offsetof(batch_values, strict),
     .help = "Stop at the first line that is at fault; without it its line of the output says what is wrong"},
    {"restart", 0, CLI_FLAG, .offset = offsetof(batch_values, restart),
     .help = "Begin anew, and lose what the output holds"},
    {"quiet", 'q', CLI_FLAG, .offset = offsetof(batch_values, quiet), .help = "No progress on standard error"},
    {"json", 0, CLI_FLAG, .offset = offsetof(batch_values, json),
     .help = "Print one JSON object at the end: lines, errors, tokens, speed"},
    {0},
};

static const cli_group batch_groups[] = {
    {"Batch", batch_options, 0},
    {"Answer", cli_answer_options, offsetof(batch_values, answer)},
    {"Sampling", cli_sampling_options, offsetof(batch_values, sampling)},
    {"Model", cli_model_options, offsetof(batch_values, model)},
    {0},
};

const cli_command cli_command_batch = {
    .name = "batch",
    .arguments = "MODEL",
    .summary = "Answer a file of prompts, many at once",
    .details =
        "A line of the input is a JSON object with \"prompt\" (a text) or \"messages\" (the OpenAI form), and with "
        "--prompt-file the fields that fill its slots. It may hold \"id\", which comes back; \"system\"; and in place "
        "of the options temperature, top_p, top_k, min_p, typical_p, repetition_penalty, presence_penalty, "
        "frequency_penalty, penalty_last_n, dry_multiplier, dry_base, dry_allowed_length, dry_last_n, seed, "
        "max_new_tokens, ignore_end, stop (a text or an array) and choices (an array). Any other field is an error.\n\n"
        "The output has a line for each line of the input, in the same order: {\"line\": N, \"id\": ..., "
        "\"text\": ..., \"finish_reason\": ..., \"prompt_tokens\": ..., \"completion_tokens\": ..., ...}, or "
        "{\"line\": N, \"error\": {\"line\": N, \"message\": ...}}; the exit status is then 1. An answer is the same "
        "bytes as that of `sllm run` with this seed, whatever is computed beside it. Line N draws with the seed plus "
        "N - 1.\n\n"
        "A line is written when it and all before it are done, so what a kill can lose is what was being computed. The "
        "same command then goes on where the output ends. FILE.jsonl.state beside it holds the input's SHA-256, the "
        "model's fingerprint, the version, the options and the seed; when any of them has changed, going on is refused.",
    .groups = batch_groups,
    .values_size = sizeof(batch_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_batch,
};
