/* sllm bench: how fast a model's forward passes are here, and what share of the machine that is. */
#include "cli/commands.h"

#include "base/clock.h"
#include "base/json.h"
#include "cli/speed.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ITEMS = 64 };

typedef struct bench_values {
    int threads, prompt, generate, repeat, kv_type;
    const char *depth, *batch, *kernels;
    cli_seed seed;
    bool exact, pull, json, csv;
} bench_values;

typedef struct bench_job {
    cli_app *app;
    const bench_values *values;
    sllm_machine_speed speed;
    sllm_model_info info;
    sl_buffer json;
    int n_rows;
} bench_job;

/* ---------------------------------------------------------------- lists */

/* "0,512,4096" into list [MOST_ITEMS]. CLI_OK, or CLI_USAGE after saying what is wrong. */
static int read_list(cli_app *app, const char *option, const char *text, int least, int *list, size_t *n) {
    *n = 0;
    for (const char *at = text; *at || !*n;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || value < least || value > 1 << 24)
            return cli_usage(app, "--%s %s: must be numbers from %d to %d with commas between them", option, text, least,
                             1 << 24);
        if (*n == MOST_ITEMS) return cli_usage(app, "--%s: at most %d numbers", option, MOST_ITEMS);
        list[(*n)++] = (int)value;
        at = *end ? end + 1 : end;
        if (*end && !*at) return cli_usage(app, "--%s %s: a number is missing after the last comma", option, text);
    }
    return CLI_OK;
}

/* Without --depth: 0, 512 and 4096, as far as the model's context holds them and what follows. */
static size_t default_depths(const bench_values *v, int n_ctx_train, int *list) {
    static const int wanted[] = {0, 512, 4096};
    int longest = v->prompt > v->generate ? v->prompt : v->generate;
    size_t n = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (i == 0 || wanted[i] <= n_ctx_train - longest) list[n++] = wanted[i];
    return n;
}

/* ---------------------------------------------------------------- rows */

typedef struct bench_figures {
    double each, least, most, read, read_share, int8, int8_share, f32, f32_share;
    sllm_memory memory;
} bench_figures;

static bench_figures figures_of(const bench_job *job, const sllm_bench_row *row) {
    const sllm_machine_speed *m = &job->speed;
    double tokens = (double)row->n_batch * row->n_tokens, s = row->seconds;
    bench_figures f = {.each = row->n_tokens / s, .least = tokens / row->seconds_most,
                       .most = tokens / row->seconds_least, .read = (double)row->bytes / s,
                       .int8 = (double)row->int8_macs / s, .f32 = (double)row->f32_macs / s};
    f.read_share = f.read / m->read_n;
    f.int8_share = f.int8 / m->int8_n;
    f.f32_share = f.f32 / m->f32_n;
    sllm_memory_info(&f.memory);
    return f;
}

static const char *test_name(const sllm_bench_row *row) { return row->generate ? "generate" : "prompt"; }

static void print_head(bench_job *job) {
    const sllm_model_info *info = &job->info;
    char bytes[32];
    cli_format_bytes(info->file_bytes, bytes);
    cli_print_machine(job->app, &job->speed);
    cli_printf(job->app, "%-20s %s, %s, %.1f M parameters, %s, %s\n", "model", info->path, info->element_type,
               (double)info->n_params / 1e6, bytes, info->exact ? "exact" : "fast");
}

static void print_row(bench_job *job, const sllm_bench_row *row, const bench_figures *f) {
    char peak[32];
    cli_format_bytes(f->memory.peak, peak);
    if (!job->n_rows) print_head(job);
    if (!job->n_rows)
        cli_printf(job->app, "\n%-8s %6s %5s %6s %10s %9s %15s %7s %5s %8s %5s %9s  %s\n", "test", "depth", "batch",
                   "tokens", "tokens/s", "each", "least..most", "GB/s", "read", "int8 G/s", "int8", "peak", "logits");
    cli_printf(job->app, "%-8s %6d %5d %6d %10.1f %9.1f %7.1f..%-6.1f %7.1f %4.0f%% %8.1f %4.0f%% %9s  %016" PRIx64 "\n",
               test_name(row), row->depth, row->n_batch, row->n_tokens, row->tokens_per_second, f->each, f->least,
               f->most, f->read / 1e9, 100 * f->read_share, f->int8 / 1e9, 100 * f->int8_share, peak, row->logits_hash);
}

static void print_csv(bench_job *job, const sllm_bench_row *row, const bench_figures *f) {
    if (!job->n_rows)
        cli_printf(job->app, "test,depth,batch,tokens,repeat,tokens_per_second,least,most,gb_per_second,read_share,"
                             "int8_g_per_second,int8_share,f32_g_per_second,f32_share,peak_bytes,logits_hash\n");
    cli_printf(job->app, "%s,%d,%d,%d,%d,%.2f,%.2f,%.2f,%.3f,%.4f,%.3f,%.4f,%.3f,%.4f,%" PRIu64 ",%016" PRIx64 "\n",
               test_name(row), row->depth, row->n_batch, row->n_tokens, row->n_repeat, row->tokens_per_second, f->least,
               f->most, f->read / 1e9, f->read_share, f->int8 / 1e9, f->int8_share, f->f32 / 1e9, f->f32_share,
               f->memory.peak, row->logits_hash);
}

static void put_row(bench_job *job, const sllm_bench_row *row, const bench_figures *f) {
    sl_buffer *out = &job->json;
    char hash[32];
    snprintf(hash, sizeof hash, "%016" PRIx64, row->logits_hash);
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "test", test_name(row));
    sl_json_put_int(out, "depth", row->depth);
    sl_json_put_int(out, "batch", row->n_batch);
    sl_json_put_int(out, "tokens", row->n_tokens);
    sl_json_put_int(out, "repeat", row->n_repeat);
    sl_json_put_double(out, "tokens_per_second", row->tokens_per_second);
    sl_json_put_double(out, "tokens_per_second_each", f->each);
    sl_json_put_double(out, "tokens_per_second_least", f->least);
    sl_json_put_double(out, "tokens_per_second_most", f->most);
    sl_json_put_double(out, "seconds", row->seconds);
    sl_json_put_int(out, "bytes", (int64_t)row->bytes);
    sl_json_put_double(out, "gb_per_second", f->read / 1e9);
    sl_json_put_double(out, "read_share", f->read_share);
    sl_json_put_double(out, "int8_g_per_second", f->int8 / 1e9);
    sl_json_put_double(out, "int8_share", f->int8_share);
    sl_json_put_double(out, "f32_g_per_second", f->f32 / 1e9);
    sl_json_put_double(out, "f32_share", f->f32_share);
    sl_json_put_int(out, "peak_bytes", (int64_t)f->memory.peak);
    sl_json_put_int(out, "anonymous_bytes", (int64_t)f->memory.anonymous);
    sl_json_put_int(out, "file_bytes", (int64_t)f->memory.file);
    sl_json_put_string(out, "logits_hash", hash);
    sl_buffer_putc(out, '}');
}

static bool on_row(void *user, const sllm_bench_row *row) {
    bench_job *job = user;
    bench_figures f = figures_of(job, row);
    if (job->values->json) put_row(job, row, &f);
    else if (job->values->csv) print_csv(job, row, &f);
    else print_row(job, row, &f);
    job->n_rows++;
    if (!job->values->json) fflush(stdout);
    else if (job->app->stderr_is_terminal)
        fprintf(stderr, "%s, depth %d, batch %d: %.1f tokens/s\n", test_name(row), row->depth, row->n_batch,
                row->tokens_per_second);
    return !job->app->output_errno;
}

static bool is_cancelled(void *user) {
    (void)user;
    return cli_interrupted();
}

/* ---------------------------------------------------------------- the command */

static void put_head(bench_job *job, const sllm_model_info *info) {
    sl_buffer *out = &job->json;
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "version", sllm_version());
    cli_put_machine(out, &job->speed);
    sl_json_put_string(out, "model", info->path);
    sl_json_put_string(out, "element_type", info->element_type);
    sl_json_put_int(out, "parameters", info->n_params);
    sl_json_put_string(out, "arithmetic", info->exact ? "exact" : "fast");
    sl_json_put_string(out, "kv_type", cli_kv_types[job->values->kv_type]);
    sl_json_key(out, "results");
    sl_buffer_putc(out, '[');
}

/* Interrupted, what was measured is printed all the same. */
static int measure(bench_job *job, const sllm_model *model) {
    const bench_values *v = job->values;
    int depths[MOST_ITEMS], batches[MOST_ITEMS], status = CLI_OK;
    sllm_bench_params params = {.n_prompt = v->prompt, .n_generate = v->generate, .depths = depths, .batches = batches,
                                .n_repeat = v->repeat, .kv_type = (sllm_kv_type)v->kv_type, .seed = v->seed.value,
                                .on_row = on_row, .is_cancelled = is_cancelled, .user = job};
    sllm_model_info info;
    sllm_error error = {0};
    sllm_model_get_info(model, &info);
    if (v->depth) status = read_list(job->app, "depth", v->depth, 0, depths, &params.n_depths);
    else params.n_depths = default_depths(v, info.n_ctx_train, depths);
    if (!status) status = read_list(job->app, "batch", v->batch, 1, batches, &params.n_batches);
    if (status) return status;
    job->info = info;
    if (v->json) put_head(job, &info);
    sllm_status failed = sllm_bench(model, &params, &error);
    if (failed == SLLM_ERROR_CONTEXT) return cli_usage(job->app, "%s", error.message);
    if (failed == SLLM_ERROR_CANCELLED && job->app->output_errno) return CLI_FAILURE;
    if (failed && failed != SLLM_ERROR_CANCELLED) return cli_error(job->app, &error);
    if (v->json) sl_buffer_puts(&job->json, "]}"), status = cli_put_json(job->app, &job->json);
    return failed ? cli_error(job->app, &error) : status;
}

/* The peak of memory shall be the model's, not that of measuring the machine (proc(5), clear_refs). */
static void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

static int run_bench(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const bench_values *v = given;
    bench_job job = {.app = app, .values = v};
    cli_model_values load = {.ctx = 1, .threads = v->threads, .exact = v->exact, .pull = v->pull};
    sllm_model *model = NULL;
    sllm_error error = {0};
    (void)n_arguments;
    if (v->json && v->csv) return cli_usage(app, "--json or --csv, not both");
    if (!v->prompt && !v->generate) return cli_usage(app, "--prompt 0 and --generate 0: nothing is left to measure");
    if (v->kernels && sllm_kernels_force(v->kernels, &error)) return cli_usage(app, "--kernels: %s", error.message);
    cli_interrupt_watch();
    int status = cli_load(app, arguments[0], &load, false, &model);
    if (!status) status = cli_machine_speed(app, v->threads, CLI_SPEED_BEST, &job.speed);
    forget_peak();
    if (!status) status = measure(&job, model);
    sl_buffer_free(&job.json);
    sllm_model_free(model);
    return status;
}

static const cli_option bench_options[] = {
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(bench_values, threads),
     .help = "Threads of one forward pass; without it all that the process may use"},
    {"prompt", 0, CLI_INT, "N", "512", 0, 1 << 24, .offset = offsetof(bench_values, prompt),
     .help = "Tokens of a prompt, of each sequence; 0: prompts are not measured"},
    {"generate", 0, CLI_INT, "N", "64", 0, 1 << 24, .offset = offsetof(bench_values, generate),
     .help = "Tokens that each sequence generates; 0: generation is not measured"},
    {"depth", 0, CLI_TEXT, "LIST", .offset = offsetof(bench_values, depth),
     .help = "Tokens already in the context, with commas; without it 0,512,4096 as far as the model's context goes"},
    {"batch", 0, CLI_TEXT, "LIST", "1,8", .offset = offsetof(bench_values, batch),
     .help = "Sequences computed together, with commas"},
    {"repeat", 'r', CLI_INT, "N", "3", 1, 1000, .offset = offsetof(bench_values, repeat),
     .help = "Runs of each case; the median counts, least and most are told"},
    {"kv-type", 0, CLI_WORD, NULL, "auto", .words = cli_kv_types, .offset = offsetof(bench_values, kv_type),
     .help = "How keys and values are kept"},
    {"exact", 0, CLI_FLAG, .offset = offsetof(bench_values, exact),
     .help = "Compute with 32-bit activations and sums instead of activations rounded to 8 bits"},
    {"kernels", 0, CLI_TEXT, "NAME", .offset = offsetof(bench_values, kernels),
     .help = "Use these kernels (auto, or a name that `sllm show --cpu` lists) in place of the best ones"},
    {"seed", 0, CLI_SEED, "N", "0", .offset = offsetof(bench_values, seed), .help = "Of the random tokens"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(bench_values, pull),
     .help = "Download MODEL first when it is a name that is not in the cache"},
    {"json", 0, CLI_FLAG, .offset = offsetof(bench_values, json), .help = "Print one JSON object"},
    {"csv", 0, CLI_FLAG, .offset = offsetof(bench_values, csv), .help = "Print comma-separated values, a line a case"},
    {0},
};
static const cli_group bench_groups[] = {{"Options", bench_options, 0}, {0}};

const cli_command cli_command_bench = {
    .name = "bench",
    .arguments = "MODEL",
    .summary = "Measure prompts and generation, and what share of this machine's peaks they reach",
    .details =
        "Only forward passes are timed: no sampling and no text. Of a prompt the logits of the last token are computed.\n\n"
        "tokens/s is of all sequences together. GB/s counts the weights, keys and values that a forward needs; read and "
        "int8 are shares of what this machine reads and multiplies at most, which is measured first (`sllm show --cpu`). "
        "logits is a hash of the first sequence's last logits. Rows of the same depth and number of tokens have the "
        "same hash, whatever the test, the threads, the sequences and the repetitions; by default prompts and generation "
        "differ in tokens (--prompt 64 --generate 64 compares them).",
    .groups = bench_groups,
    .values_size = sizeof(bench_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_bench,
};
