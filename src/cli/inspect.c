/* sllm inspect: what a tensor file holds, with the figures that show a damaged or strange tensor at a glance. */
#include "cli/commands.h"

#include "base/json.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 65536, FIRST_VALUES = 8 };

typedef struct inspect_values {
    const char *tensor;
    bool metadata, headers, json;
} inspect_values;

typedef struct statistics {
    double min, max, mean, std;
    uint64_t not_finite; /* NaN and infinities; the other figures leave them out */
    double first[FIRST_VALUES];
    size_t n_first;
} statistics;

typedef struct inspect_job {
    cli_app *app;
    const inspect_values *values;
    sllm_tensor_file *file;
    float *floats;      /* [CHUNK] */
    int64_t *integers;  /* [CHUNK] */
    sl_buffer json;
} inspect_job;

/* ---------------------------------------------------------------- figures */

/* Welford's running mean and squared distance, so that a large mean does not swallow a small spread. */
typedef struct running {
    uint64_t n;
    double mean, squares;
} running;

static void add_value(statistics *s, running *r, double value) {
    if (s->n_first < FIRST_VALUES) s->first[s->n_first++] = value;
    if (!isfinite(value)) {
        s->not_finite++;
        return;
    }
    if (r->n == 0 || value < s->min) s->min = value;
    if (r->n == 0 || value > s->max) s->max = value;
    r->n++;
    double distance = value - r->mean;
    r->mean += distance / (double)r->n;
    r->squares += distance * (value - r->mean);
}

static int measure(inspect_job *job, size_t index, const sllm_tensor_info *info, statistics *s) {
    sllm_error error = {0};
    running r = {0};
    bool is_float = cli_is_float_type(info->type);
    *s = (statistics){0};
    for (uint64_t at = 0; at < info->n_elements; at += CHUNK) {
        size_t n = info->n_elements - at < CHUNK ? (size_t)(info->n_elements - at) : CHUNK;
        sllm_status failed = is_float ? sllm_tensor_file_read_f32(job->file, index, at, n, job->floats, &error)
                                      : sllm_tensor_file_read_i64(job->file, index, at, n, job->integers, &error);
        if (failed) return cli_error(job->app, &error);
        for (size_t i = 0; i < n; i++) add_value(s, &r, is_float ? (double)job->floats[i] : (double)job->integers[i]);
    }
    s->mean = r.mean;
    s->std = r.n ? sqrt(r.squares / (double)r.n) : 0;
    return CLI_OK;
}

/* ---------------------------------------------------------------- tensors */

static void put_tensor(inspect_job *job, const sllm_tensor_info *info, const statistics *s) {
    sl_buffer *out = &job->json;
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "name", info->name);
    sl_json_put_string(out, "type", info->type);
    sl_json_key(out, "shape");
    sl_buffer_putc(out, '[');
    for (int i = 0; i < info->n_dims; i++) sl_buffer_printf(out, i ? ",%lld" : "%lld", (long long)info->shape[i]);
    sl_buffer_putc(out, ']');
    sl_json_put_int(out, "elements", (int64_t)info->n_elements);
    sl_json_put_int(out, "bytes", (int64_t)info->bytes);
    if (s) {
        sl_json_put_double(out, "min", s->min);
        sl_json_put_double(out, "max", s->max);
        sl_json_put_double(out, "mean", s->mean);
        sl_json_put_double(out, "std", s->std);
        sl_json_put_int(out, "not_finite", (int64_t)s->not_finite);
        sl_json_key(out, "first");
        sl_buffer_putc(out, '[');
        for (size_t i = 0; i < s->n_first; i++) sl_json_comma(out), sl_json_write_double(out, s->first[i]);
        sl_buffer_putc(out, ']');
    }
    sl_buffer_putc(out, '}');
}

static void print_tensor(inspect_job *job, const sllm_tensor_info *info, const statistics *s) {
    char shape[160];
    cli_format_shape(info, shape);
    cli_printf(job->app, "%-44s %-8s %-20s", info->name, info->type, shape);
    if (s) cli_printf(job->app, " %11.4g %11.4g %11.4g %11.4g", s->min, s->max, s->mean, s->std);
    if (s && s->not_finite) cli_printf(job->app, "  %llu not finite", (unsigned long long)s->not_finite);
    cli_printf(job->app, "\n");
    if (!s || !job->values->tensor) return;
    cli_printf(job->app, "first:");
    for (size_t i = 0; i < s->n_first; i++) cli_printf(job->app, " %.9g", s->first[i]);
    cli_printf(job->app, "\n");
}

static int one_tensor(inspect_job *job, size_t index) {
    sllm_error error = {0};
    sllm_tensor_info info;
    statistics s;
    int status = CLI_OK;
    bool measured = !job->values->headers;
    if (sllm_tensor_file_info(job->file, index, &info, &error)) return cli_error(job->app, &error);
    if (measured) status = measure(job, index, &info, &s);
    if (status) return status;
    if (job->values->json) put_tensor(job, &info, measured ? &s : NULL);
    else print_tensor(job, &info, measured ? &s : NULL);
    return cli_interrupted() ? (cli_failure(job->app, "interrupted"), CLI_INTERRUPTED) : CLI_OK;
}

static int tensors(inspect_job *job, const char *name) {
    const inspect_values *values = job->values;
    int status = CLI_OK;
    if (!values->json)
        cli_printf(job->app, values->headers ? "%-44s %-8s shape\n" : "%-44s %-8s %-20s %11s %11s %11s %11s\n",
                   "tensor", "type", "shape", "min", "max", "mean", "std");
    if (values->tensor) {
        ptrdiff_t index = sllm_tensor_file_find(job->file, values->tensor);
        if (index < 0)
            return cli_failure(job->app, "%s: no tensor '%s'; `sllm inspect %s --headers` lists them", name,
                               values->tensor, name);
        return one_tensor(job, (size_t)index);
    }
    size_t n = sllm_tensor_file_count(job->file);
    for (size_t i = 0; !status && !job->app->output_errno && i < n; i++) status = one_tensor(job, i);
    return status;
}

/* ---------------------------------------------------------------- metadata */

static int print_metadata(inspect_job *job) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL;
    char *text = NULL;
    int status = CLI_OK;
    if (sllm_tensor_file_metadata(job->file, &text, &error) ||
        sl_json_parse(&arena, text, strlen(text), "metadata", &root, &error))
        status = cli_error(job->app, &error);
    if (!status && job->values->json) {
        sl_json_key(&job->json, "metadata");
        sl_json_write_value(&job->json, root);
    }
    for (const sl_json *member = root && !job->values->json ? root->first : NULL; member; member = member->next) {
        sl_buffer value = {0};
        sl_json_write_value(&value, member);
        cli_printf(job->app, "%-44s %s\n", member->key, value.data ? value.data : "");
        sl_buffer_free(&value);
    }
    sllm_free(text);
    sl_arena_free(&arena);
    return status;
}

static int run_inspect(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const inspect_values *values = given;
    inspect_job job = {.app = app, .values = values};
    (void)n_arguments;
    cli_interrupt_watch();
    int status = cli_open_tensors(app, arguments[0], &job.file);
    job.floats = calloc(CHUNK, sizeof *job.floats);
    job.integers = calloc(CHUNK, sizeof *job.integers);
    if (!status && (!job.floats || !job.integers)) status = cli_failure(app, "out of memory");
    if (values->json) sl_buffer_putc(&job.json, '{');
    if (!status && values->metadata) status = print_metadata(&job);
    bool wants_tensors = !values->metadata || values->tensor;
    if (values->json && wants_tensors) sl_json_key(&job.json, "tensors"), sl_buffer_putc(&job.json, '[');
    if (!status && wants_tensors) status = tensors(&job, arguments[0]);
    if (values->json) sl_buffer_puts(&job.json, wants_tensors ? "]}" : "}");
    if (!status && values->json) status = cli_put_json(app, &job.json);
    sl_buffer_free(&job.json);
    free(job.floats);
    free(job.integers);
    sllm_tensor_file_close(job.file);
    return status;
}

static const cli_option inspect_options[] = {
    {"tensor", 0, CLI_TEXT, "NAME", .offset = offsetof(inspect_values, tensor),
     .help = "This tensor only, with its first values"},
    {"metadata", 0, CLI_FLAG, .offset = offsetof(inspect_values, metadata),
     .help = "Print the file's metadata instead of its tensors"},
    {"headers", 0, CLI_FLAG, .offset = offsetof(inspect_values, headers),
     .help = "Names, types and shapes only, without reading the values"},
    {"json", 0, CLI_FLAG, .offset = offsetof(inspect_values, json), .help = "Print one JSON object"},
    {0},
};
static const cli_group inspect_groups[] = {{"Options", inspect_options, 0}, {0}};

const cli_command cli_command_inspect = {
    .name = "inspect",
    .arguments = "FILE",
    .summary = "List a file's tensors with their types, shapes and values' range",
    .details =
        "FILE is a GGUF or safetensors file, a checkpoint folder, or a MODEL. Figures are of the values as "
        "the model computes with them; NaN and infinities are counted apart.",
    .groups = inspect_groups,
    .values_size = sizeof(inspect_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_inspect,
};
