/* sllm logits: the logits of every position of given token sequences, for comparison with a reference. */
#include "cli/commands.h"

#include "base/checked.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct logits_values {
    const char *ids, *out;
    bool fast, pull;
    int threads;
} logits_values;

typedef struct logits_job {
    cli_app *app;
    sllm_model *model;
    sllm_session *session;
    sllm_tensor_file *in;
    size_t input;        /* index of input_ids */
    size_t n_rows, n_ids; /* input_ids: [n_rows, n_ids] */
    int n_vocab;
    sllm_tensor_writer *writer;
    int64_t *wide;       /* [n_ids] as the file has them */
    int32_t *ids;        /* [n_ids] */
    float *logits;       /* [n_ids, n_vocab] */
} logits_job;

static int open_input(logits_job *job, const char *path) {
    sllm_error error = {0};
    sllm_tensor_info info;
    if (sllm_tensor_file_open(path, &job->in, &error)) return cli_error(job->app, &error);
    ptrdiff_t index = sllm_tensor_file_find(job->in, "input_ids");
    if (index < 0) return cli_failure(job->app, "%s: holds no tensor input_ids", path);
    job->input = (size_t)index;
    if (sllm_tensor_file_info(job->in, job->input, &info, &error)) return cli_error(job->app, &error);
    if (info.n_dims != 2 || info.shape[0] < 1 || info.shape[1] < 1)
        return cli_failure(job->app, "%s: input_ids: must have two dimensions [n, T] of at least 1", path);
    job->n_rows = (size_t)info.shape[0];
    job->n_ids = (size_t)info.shape[1];
    return CLI_OK;
}

static int prepare(logits_job *job, const char *out) {
    sllm_error error = {0};
    sllm_model_info info;
    sllm_session_params params = {0};
    size_t bytes = 0;
    sllm_model_get_info(job->model, &info);
    job->n_vocab = info.n_vocab;
    if (job->n_ids > INT32_MAX || !sl_mul_size(job->n_ids, (size_t)info.n_vocab, &bytes) ||
        !sl_mul_size(bytes, 4, &bytes))
        return cli_failure(job->app, "input_ids: %zu positions are too many", job->n_ids);
    params.n_ctx = (int)job->n_ids;
    if (sllm_session_new(job->model, &params, &job->session, &error)) return cli_error(job->app, &error);
    job->wide = calloc(job->n_ids, sizeof *job->wide);
    job->ids = calloc(job->n_ids, sizeof *job->ids);
    job->logits = malloc(bytes);
    if (!job->wide || !job->ids || !job->logits)
        return cli_failure(job->app, "out of memory for %zu x %d logits", job->n_ids, info.n_vocab);
    int64_t shape[3] = {(int64_t)job->n_rows, (int64_t)job->n_ids, info.n_vocab};
    if (sllm_tensor_writer_new(out, "logits", shape, 3, &job->writer, &error)) return cli_error(job->app, &error);
    return CLI_OK;
}

static int compute_row(logits_job *job, size_t row) {
    sllm_error error = {0};
    sllm_status failed =
        sllm_tensor_file_read_i64(job->in, job->input, row * job->n_ids, job->n_ids, job->wide, &error);
    if (failed) return cli_error(job->app, &error);
    for (size_t i = 0; i < job->n_ids; i++) {
        if (job->wide[i] < 0 || job->wide[i] >= job->n_vocab)
            return cli_failure(job->app, "input_ids[%zu, %zu] = %lld: outside the vocabulary (0 to %d)", row, i,
                               (long long)job->wide[i], job->n_vocab - 1);
        job->ids[i] = (int32_t)job->wide[i];
    }
    failed = sllm_session_all_logits(job->session, job->ids, job->n_ids, job->logits, &error);
    if (!failed)
        failed = sllm_tensor_writer_write(job->writer, job->logits, job->n_ids * (size_t)job->n_vocab, &error);
    return failed ? cli_error(job->app, &error) : CLI_OK;
}

static int write_rows(logits_job *job) {
    sllm_error error = {0};
    for (size_t row = 0; row < job->n_rows; row++) {
        int status = compute_row(job, row);
        if (status) return status;
        if (cli_interrupted()) {
            cli_failure(job->app, "interrupted after %zu of %zu rows; nothing was written", row + 1, job->n_rows);
            return CLI_INTERRUPTED;
        }
    }
    sllm_tensor_writer *writer = job->writer;
    job->writer = NULL; /* _finish frees it */
    return sllm_tensor_writer_finish(writer, &error) ? cli_error(job->app, &error) : CLI_OK;
}

static bool same_file(const char *a, const char *b) {
    struct stat first, second;
    return !stat(a, &first) && !stat(b, &second) && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static int run_logits(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const logits_values *values = given;
    logits_job job = {.app = app};
    cli_model_values load = {.threads = values->threads, .exact = !values->fast, .pull = values->pull};
    (void)n_arguments;
    if (!values->ids || !values->out)
        return cli_usage(app, "give --ids IN.safetensors and --out OUT.safetensors");
    if (same_file(values->ids, values->out))
        return cli_usage(app, "--ids and --out are the same file: %s", values->out);
    cli_interrupt_watch();
    int status = open_input(&job, values->ids);
    if (!status) status = cli_load(app, arguments[0], &load, false, &job.model);
    if (!status) status = prepare(&job, values->out);
    if (!status) status = write_rows(&job);
    if (job.writer) sllm_tensor_writer_abandon(job.writer);
    free(job.wide);
    free(job.ids);
    free(job.logits);
    sllm_session_free(job.session);
    sllm_model_free(job.model);
    sllm_tensor_file_close(job.in);
    return status;
}

static const cli_option logits_options[] = {
    {"ids", 'i', CLI_TEXT, "FILE", .offset = offsetof(logits_values, ids),
     .help = "Safetensors file with the tensor input_ids [n, T] of integers"},
    {"out", 'o', CLI_TEXT, "FILE", .offset = offsetof(logits_values, out),
     .help = "Safetensors file to write: logits [n, T, V] as F32; it appears when complete"},
    {"fast", 0, CLI_FLAG, .offset = offsetof(logits_values, fast),
     .help = "Round activations to 8 bits as in ordinary use; without it 32-bit activations and sums"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(logits_values, threads),
     .help = "Threads of one forward pass; without it all that the process may use"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(logits_values, pull),
     .help = "Download MODEL first when it is a name that is not in the cache"},
    {0},
};
static const cli_group logits_groups[] = {{"Options", logits_options, 0}, {0}};

const cli_command cli_command_logits = {
    .name = "logits",
    .arguments = "MODEL",
    .summary = "Write the logits of given token sequences to a file",
    .groups = logits_groups,
    .values_size = sizeof(logits_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_logits,
};
