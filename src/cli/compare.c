/* sllm compare: how two models or files differ, in metadata, in tensors, and in what they predict. */
#include "cli/commands.h"

#include "base/file.h"
#include "base/json.h"
#include "cli/compare_models.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 65536 };

typedef struct compare_values {
    const char *text, *ids, *html;
    int chunks;
    bool json, all, both;
    cli_model_values model;
} compare_values;

typedef struct compare_job {
    cli_app *app;
    const compare_values *values;
    const char *names[2];
    sllm_tensor_file *files[2];
    float *chunk[2]; /* [CHUNK] each */
    sl_buffer json;
    size_t n_metadata, n_tensors; /* differing */
} compare_job;

/* ---------------------------------------------------------------- metadata */

/* A member that differs; NULL: absent on that side. */
static void report_member(compare_job *job, const char *key, const sl_json *a, const sl_json *b) {
    sl_buffer values[2] = {{0}, {0}};
    if (a) sl_json_write_value(&values[0], a);
    else sl_buffer_puts(&values[0], job->values->json ? "null" : "(absent)");
    if (b) sl_json_write_value(&values[1], b);
    else sl_buffer_puts(&values[1], job->values->json ? "null" : "(absent)");
    bool differs = !a || !b || values[0].failed || values[1].failed || strcmp(values[0].data, values[1].data) != 0;
    job->n_metadata += differs;
    if (differs && job->values->json) {
        sl_json_comma(&job->json);
        sl_buffer_putc(&job->json, '{');
        sl_json_put_string(&job->json, "key", key);
        sl_json_key(&job->json, "a");
        sl_buffer_puts(&job->json, values[0].data ? values[0].data : "null");
        sl_json_key(&job->json, "b");
        sl_buffer_puts(&job->json, values[1].data ? values[1].data : "null");
        sl_buffer_putc(&job->json, '}');
    } else if (differs) {
        cli_printf(job->app, "metadata %s: %s -> %s\n", key, values[0].data ? values[0].data : "",
                   values[1].data ? values[1].data : "");
    }
    sl_buffer_free(&values[0]);
    sl_buffer_free(&values[1]);
}

static int compare_metadata(compare_job *job) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *roots[2] = {0};
    int status = CLI_OK;
    for (int i = 0; !status && i < 2; i++) {
        char *text = NULL;
        if (sllm_tensor_file_metadata(job->files[i], &text, &error) ||
            sl_json_parse(&arena, text, strlen(text), "metadata", &roots[i], &error))
            status = cli_error(job->app, &error);
        sllm_free(text);
    }
    if (job->values->json) sl_json_key(&job->json, "metadata"), sl_buffer_putc(&job->json, '[');
    for (const sl_json *a = status ? NULL : roots[0]->first; a; a = a->next)
        report_member(job, a->key, a, sl_json_get(roots[1], a->key));
    for (const sl_json *b = status ? NULL : roots[1]->first; b; b = b->next)
        if (!sl_json_get(roots[0], b->key)) report_member(job, b->key, NULL, b);
    if (job->values->json) sl_buffer_putc(&job->json, ']');
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- tensors */

typedef struct difference {
    double max, rms;
} difference;

/* Values of two tensors of one shape; integers too large for float compare as rounded. */
static int subtract(compare_job *job, const size_t index[2], const sllm_tensor_info info[2], difference *out) {
    sllm_error error = {0};
    double squares = 0;
    *out = (difference){0};
    for (uint64_t at = 0; at < info[0].n_elements; at += CHUNK) {
        size_t n = info[0].n_elements - at < CHUNK ? (size_t)(info[0].n_elements - at) : CHUNK;
        for (int side = 0; side < 2; side++)
            if (sllm_tensor_file_read_f32(job->files[side], index[side], at, n, job->chunk[side], &error))
                return cli_error(job->app, &error);
        for (size_t i = 0; i < n; i++) {
            double distance = fabs((double)job->chunk[0][i] - (double)job->chunk[1][i]);
            bool same_bits = !memcmp(&job->chunk[0][i], &job->chunk[1][i], sizeof(float)); /* NaN equals itself here */
            if (same_bits) continue;
            if (!(distance <= out->max)) out->max = distance;
            squares += distance * distance;
        }
    }
    out->rms = info[0].n_elements ? sqrt(squares / (double)info[0].n_elements) : 0;
    return CLI_OK;
}

static bool same_shape(const sllm_tensor_info *a, const sllm_tensor_info *b) {
    return a->n_dims == b->n_dims && !memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape);
}

/* info[i] NULL: the tensor is absent on that side; d NULL: values were not compared. */
static void report_tensor(compare_job *job, const sllm_tensor_info *a, const sllm_tensor_info *b, const difference *d) {
    const sllm_tensor_info *sides[2] = {a, b};
    char shapes[2][160];
    sl_buffer *out = &job->json;
    for (int i = 0; i < 2; i++)
        if (sides[i]) cli_format_shape(sides[i], shapes[i]);
    if (!job->values->json) {
        cli_printf(job->app, "%-44s", a ? a->name : b->name);
        if (!a || !b) cli_printf(job->app, " only in %s", job->names[a ? 0 : 1]);
        else if (!d && !same_shape(a, b)) cli_printf(job->app, " %s -> %s", shapes[0], shapes[1]);
        else
            cli_printf(job->app, " %s%s%s", a->type, strcmp(a->type, b->type) ? " -> " : "",
                       strcmp(a->type, b->type) ? b->type : "");
        if (d) cli_printf(job->app, "  max %.6g  rms %.6g", d->max, d->rms);
        cli_printf(job->app, "\n");
        return;
    }
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "name", a ? a->name : b->name);
    for (int i = 0; i < 2; i++) {
        sl_json_put_string(out, i ? "type_b" : "type_a", sides[i] ? sides[i]->type : NULL);
        sl_json_key(out, i ? "shape_b" : "shape_a");
        sl_buffer_puts(out, sides[i] ? shapes[i] : "null");
    }
    if (d) sl_json_put_double(out, "max_difference", d->max), sl_json_put_double(out, "rms_difference", d->rms);
    sl_buffer_putc(out, '}');
}

static int compare_tensor(compare_job *job, size_t index_a) {
    sllm_error error = {0};
    sllm_tensor_info info[2];
    difference d = {0};
    if (sllm_tensor_file_info(job->files[0], index_a, &info[0], &error)) return cli_error(job->app, &error);
    ptrdiff_t index_b = sllm_tensor_file_find(job->files[1], info[0].name);
    if (index_b < 0) {
        job->n_tensors++;
        report_tensor(job, &info[0], NULL, NULL);
        return CLI_OK;
    }
    if (sllm_tensor_file_info(job->files[1], (size_t)index_b, &info[1], &error)) return cli_error(job->app, &error);
    bool comparable =
        same_shape(&info[0], &info[1]) && cli_is_float_type(info[0].type) && cli_is_float_type(info[1].type);
    size_t index[2] = {index_a, (size_t)index_b};
    int status = comparable ? subtract(job, index, info, &d) : CLI_OK;
    if (status) return status;
    bool differs = strcmp(info[0].type, info[1].type) != 0 || !same_shape(&info[0], &info[1]) || d.max != 0;
    job->n_tensors += differs;
    if (differs || job->values->all) report_tensor(job, &info[0], &info[1], comparable ? &d : NULL);
    if (!cli_interrupted()) return CLI_OK;
    cli_failure(job->app, "interrupted");
    return CLI_INTERRUPTED;
}

static int compare_tensors(compare_job *job) {
    sllm_error error = {0};
    int status = CLI_OK;
    if (job->values->json) sl_json_key(&job->json, "tensors"), sl_buffer_putc(&job->json, '[');
    for (size_t i = 0, n = sllm_tensor_file_count(job->files[0]); !status && i < n; i++)
        status = compare_tensor(job, i);
    for (size_t i = 0, n = sllm_tensor_file_count(job->files[1]); !status && i < n; i++) {
        sllm_tensor_info info;
        if (sllm_tensor_file_info(job->files[1], i, &info, &error)) return cli_error(job->app, &error);
        if (sllm_tensor_file_find(job->files[0], info.name) >= 0) continue;
        job->n_tensors++;
        report_tensor(job, NULL, &info, NULL);
    }
    if (job->values->json) sl_buffer_putc(&job->json, ']');
    return status;
}

/* ---------------------------------------------------------------- predictions */

typedef struct prediction {
    size_t positions;
    double max, rms, kl, top1; /* kl: mean KL(A || B) in nats; top1: share of positions with the same likeliest token */
} prediction;

/* Logarithm of the sum of exponentials; *top: the largest value's index. */
static double log_sum(const float *logits, int n, int *top) {
    double sum = 0;
    *top = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[*top]) *top = i;
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - (double)logits[*top]);
    return (double)logits[*top] + log(sum);
}

/* a, b: logits [positions, n_vocab] */
static void compare_logits(const float *a, const float *b, int n_vocab, prediction *p) {
    double squares = 0;
    for (size_t t = 0; t < p->positions; t++, a += n_vocab, b += n_vocab) {
        int top_a, top_b;
        double z_a = log_sum(a, n_vocab, &top_a), z_b = log_sum(b, n_vocab, &top_b), kl = 0;
        for (int i = 0; i < n_vocab; i++) {
            double distance = (double)a[i] - (double)b[i], log_a = (double)a[i] - z_a;
            if (!(fabs(distance) <= p->max)) p->max = fabs(distance);
            squares += distance * distance;
            kl += exp(log_a) * (log_a - ((double)b[i] - z_b));
        }
        p->kl += kl;
        p->top1 += top_a == top_b;
    }
    p->kl /= (double)p->positions;
    p->top1 /= (double)p->positions;
    p->rms = sqrt(squares / ((double)p->positions * n_vocab));
}

/* Token ids of --ids. */
static int read_tokens(compare_job *job, sllm_tokens *tokens) {
    const char *given = job->values->ids;
    tokens->ids = calloc(strlen(given) / 2 + 1, sizeof *tokens->ids); /* at least one digit and a comma each */
    if (!tokens->ids) return cli_failure(job->app, "out of memory");
    for (const char *c = given; *c;) {
        char *end = NULL;
        long id = strtol(c, &end, 10);
        if (end == c || id < 0 || id > INT32_MAX || (*end && *end != ',') || (*end && !end[1]))
            return cli_usage(job->app, "--ids %s: must be ids separated by commas", given);
        tokens->ids[tokens->n++] = (int32_t)id;
        c = *end ? end + 1 : end;
    }
    return CLI_OK;
}

/* Logits [n, n_vocab] of one model; the caller frees *logits. */
static int predict(compare_job *job, sllm_model *model, const sllm_tokens *tokens, int n_vocab, float **logits) {
    sllm_error error = {0};
    sllm_session *session = NULL;
    sllm_session_params params = {.n_ctx = job->values->model.ctx ? job->values->model.ctx : (int)tokens->n,
                                  .kv_type = (sllm_kv_type)job->values->model.kv_type};
    int status = CLI_OK;
    *logits = calloc(tokens->n * (size_t)n_vocab, sizeof **logits);
    if (!*logits)
        return cli_failure(job->app, "out of memory for %zu x %d logits; give a shorter text", tokens->n, n_vocab);
    if (sllm_session_new(model, &params, &session, &error) ||
        sllm_session_all_logits(session, tokens->ids, tokens->n, *logits, &error))
        status = cli_error(job->app, &error);
    sllm_session_free(session);
    return status;
}

static void report_prediction(compare_job *job, const prediction *p) {
    if (!job->values->json) {
        cli_printf(job->app,
                   "predictions at %zu positions: logits max %.6g  rms %.6g, KL %.6g, same likeliest token %.2f %%\n",
                   p->positions, p->max, p->rms, p->kl, 100 * p->top1);
        return;
    }
    sl_json_key(&job->json, "predictions");
    sl_buffer_putc(&job->json, '{');
    sl_json_put_int(&job->json, "positions", (int64_t)p->positions);
    sl_json_put_double(&job->json, "max_difference", p->max);
    sl_json_put_double(&job->json, "rms_difference", p->rms);
    sl_json_put_double(&job->json, "kl", p->kl);
    sl_json_put_double(&job->json, "top1_agreement", p->top1);
    sl_buffer_putc(&job->json, '}');
}

static int compare_predictions(compare_job *job) {
    sllm_model *models[2] = {0};
    sllm_model_info info[2];
    sllm_tokens tokens = {0};
    float *logits[2] = {0};
    int status = CLI_OK;
    for (int i = 0; !status && i < 2; i++) {
        status = cli_load(job->app, job->names[i], &job->values->model, false, &models[i]);
        if (!status) sllm_model_get_info(models[i], &info[i]);
    }
    if (!status && info[0].n_vocab != info[1].n_vocab)
        status = cli_failure(job->app, "vocabularies of %d and %d tokens: predictions cannot be compared",
                             info[0].n_vocab, info[1].n_vocab);
    if (!status) status = read_tokens(job, &tokens);
    if (!status && tokens.n == 0) status = cli_usage(job->app, "no tokens to compare predictions on");
    for (int i = 0; !status && i < 2; i++) status = predict(job, models[i], &tokens, info[0].n_vocab, &logits[i]);
    if (!status) {
        prediction p = {.positions = tokens.n};
        compare_logits(logits[0], logits[1], info[0].n_vocab, &p);
        report_prediction(job, &p);
    }
    sllm_tokens_free(&tokens);
    for (int i = 0; i < 2; i++) {
        free(logits[i]);
        sllm_model_free(models[i]);
    }
    return status;
}

/* ---------------------------------------------------------------- the command */

static int compare(compare_job *job) {
    const compare_values *v = job->values;
    int status = CLI_OK;
    for (int i = 0; !status && i < 2; i++) {
        status = cli_open_tensors(job->app, job->names[i], &job->files[i]);
        job->chunk[i] = calloc(CHUNK, sizeof *job->chunk[i]);
        if (!status && !job->chunk[i]) status = cli_failure(job->app, "out of memory");
    }
    if (v->json) sl_buffer_putc(&job->json, '{');
    if (!status) status = compare_metadata(job);
    if (!status) status = compare_tensors(job);
    if (!status && v->ids) status = compare_predictions(job);
    if (status) return status;
    if (!v->json) {
        cli_printf(job->app, "%zu metadata keys and %zu tensors differ\n", job->n_metadata, job->n_tensors);
        return CLI_OK;
    }
    sl_json_put_bool(&job->json, "equal", job->n_metadata == 0 && job->n_tensors == 0);
    sl_buffer_putc(&job->json, '}');
    return cli_put_json(job->app, &job->json);
}

static int run_compare(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const compare_values *values = given;
    compare_job job = {.app = app, .values = values, .names = {arguments[0], arguments[1]}};
    (void)n_arguments;
    if (values->text && values->ids) return cli_usage(app, "--text and --ids: give one");
    if (!values->text && (values->html || values->both || values->chunks))
        return cli_usage(app, "--html, --chunks and --both-arithmetics need --text FILE");
    cli_interrupt_watch();
    if (values->text) {
        cli_compare_text options = {values->text, values->html, values->chunks, values->json, values->both, &values->model};
        return cli_compare_models(app, arguments[0], arguments[1], &options);
    }
    int status = compare(&job);
    for (int i = 0; i < 2; i++) {
        sllm_tensor_file_close(job.files[i]);
        free(job.chunk[i]);
    }
    sl_buffer_free(&job.json);
    return status;
}

static const cli_option compare_options[] = {
    {"text", 0, CLI_TEXT, "FILE", .offset = offsetof(compare_values, text),
     .help = "Measure how B's predictions differ from A's on FILE's text (.jsonl: \"text\" or \"messages\" a line), and the "
             "error of each tensor"},
    {"chunks", 0, CLI_INT, "N", NULL, 0, 1 << 20, .offset = offsetof(compare_values, chunks),
     .help = "With --text: read at most N chunks; 0: all of the text"},
    {"both-arithmetics", 0, CLI_FLAG, .offset = offsetof(compare_values, both),
     .help = "With --text: measure with activations rounded to 8 bits and again with 32-bit ones"},
    {"html", 0, CLI_TEXT, "FILE", .offset = offsetof(compare_values, html),
     .help = "With --text: write the report as a page with plots, too"},
    {"ids", 0, CLI_TEXT, "I,J,K", .offset = offsetof(compare_values, ids),
     .help = "Compare also what the two models predict at every position of these token ids"},
    {"all", 0, CLI_FLAG, .offset = offsetof(compare_values, all), .help = "List equal tensors too"},
    {"json", 0, CLI_FLAG, .offset = offsetof(compare_values, json), .help = "Print one JSON object"},
    {0},
};
static const cli_group compare_groups[] = {
    {"Options", compare_options, 0},
    {"Model", cli_model_options, offsetof(compare_values, model)},
    {0},
};

const cli_command cli_command_compare = {
    .name = "compare",
    .arguments = "A B",
    .summary = "Show how two models or tensor files differ",
    .details =
        "A and B are models, GGUF or safetensors files, or checkpoint folders. Tensors of one name and shape "
        "are compared value by value, whatever their types. With --ids: the largest and the root "
        "mean square difference of the logits, the mean KL divergence of B from A in nats, and how often the "
        "likeliest token is the same.\n\n"
        "With --text another report: perplexity of both, the KL divergence of B from A over real text (mean, 99 %, largest), "
        "how often the likeliest token is the same, the error of each tensor, sizes and speeds. Chunks are read and scored "
        "as `sllm perplexity` does.",
    .groups = compare_groups,
    .values_size = sizeof(compare_values),
    .min_arguments = 2,
    .max_arguments = 2,
    .run = run_compare,
};
