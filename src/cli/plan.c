/* sllm plan: the memory a model will take and how fast it will be, before it is loaded. */
#include "cli/commands.h"

#include "base/json.h"
#include "cli/speed.h"

#include <stddef.h>
#include <string.h>

typedef struct plan_values {
    int ctx, batch, prompt, threads, kv_type;
    bool exact, json, pull, measure;
    const char *type;
} plan_values;

typedef struct plan_job {
    cli_app *app;
    const plan_values *values;
    const char *path;
    sllm_machine_speed speed;
    sl_buffer json;
} plan_job;

static void put_plan(sl_buffer *out, const sllm_plan *plan) {
    sl_json_put_int(out, "weights_bytes", (int64_t)plan->weights_bytes);
    sl_json_put_int(out, "kv_bytes", (int64_t)plan->kv_bytes);
    sl_json_put_int(out, "work_bytes", (int64_t)plan->work_bytes);
    sl_json_put_int(out, "vocabulary_bytes", (int64_t)plan->vocabulary_bytes);
    sl_json_put_int(out, "program_bytes", (int64_t)plan->program_bytes);
    sl_json_put_int(out, "total_bytes", (int64_t)plan->total_bytes);
    sl_json_put_int(out, "memory_free", (int64_t)plan->memory_free);
    sl_json_put_int(out, "memory_total", (int64_t)plan->memory_total);
    sl_json_put_int(out, "ctx", plan->n_ctx);
    sl_json_put_int(out, "ctx_train", plan->n_ctx_train);
    sl_json_put_int(out, "batch", plan->n_batch);
    sl_json_put_bool(out, "fits", plan->fits);
    sl_json_put_int(out, "prompt_tokens", plan->n_prompt);
    sl_json_put_int(out, "token_bytes", (int64_t)plan->token_bytes);
    sl_json_put_double(out, "tokens_per_second", plan->tokens_per_second);
    sl_json_put_double(out, "prompt_tokens_per_second", plan->prompt_tokens_per_second);
    sl_json_put_double(out, "time_to_first_token_s", plan->time_to_first_token_s);
}

static void print_plan(cli_app *app, const char *type, const sllm_plan *plan) {
    char weights[32], kv[32], rest[32], total[32];
    cli_format_bytes(plan->weights_bytes, weights);
    cli_format_bytes(plan->kv_bytes, kv);
    cli_format_bytes(plan->work_bytes + plan->vocabulary_bytes + plan->program_bytes, rest);
    cli_format_bytes(plan->total_bytes, total);
    cli_printf(app, "%-9s %10s %10s %10s %10s %-7s %10.1f %10.0f %9.2f s\n", type, weights, kv, rest, total,
               plan->fits ? "fits" : "too big", plan->tokens_per_second, plan->prompt_tokens_per_second,
               plan->time_to_first_token_s);
}

static int make_plan(plan_job *job, const char *type, sllm_plan *plan) {
    const plan_values *v = job->values;
    sllm_plan_params wanted = {.type = type, .n_ctx = v->ctx, .n_batch = v->batch, .n_prompt = v->prompt,
                               .n_threads = v->threads, .exact = v->exact, .kv_type = (sllm_kv_type)v->kv_type,
                               .speed = &job->speed};
    sllm_error error = {0};
    sllm_status failed = sllm_model_plan(job->path, &wanted, plan, &error);
    if (failed == SLLM_ERROR_CONTEXT) return cli_usage(job->app, "--ctx %d: %s", v->ctx, error.message);
    return failed ? cli_error(job->app, &error) : CLI_OK;
}

static int plan_types(plan_job *job) {
    int status = CLI_OK;
    if (job->values->json) sl_json_key(&job->json, "quantisations"), sl_buffer_putc(&job->json, '[');
    for (const char *const *type = sllm_plan_types(); !status && *type; type++) {
        sllm_plan plan;
        status = make_plan(job, *type, &plan);
        if (status) break;
        if (!job->values->json) {
            print_plan(job->app, *type, &plan);
            continue;
        }
        sl_json_comma(&job->json);
        sl_buffer_putc(&job->json, '{');
        sl_json_put_string(&job->json, "type", *type);
        put_plan(&job->json, &plan);
        sl_buffer_putc(&job->json, '}');
    }
    if (job->values->json) sl_buffer_putc(&job->json, ']');
    return status;
}

static int plan_all(plan_job *job) {
    const plan_values *v = job->values;
    sllm_plan plan;
    int status = make_plan(job, v->type, &plan);
    if (status) return status;
    if (v->json) {
        sl_buffer_putc(&job->json, '{');
        sl_json_put_string(&job->json, "path", job->path);
        sl_json_put_string(&job->json, "type", v->type ? v->type : "file");
        put_plan(&job->json, &plan);
        cli_put_machine(&job->json, &job->speed);
    } else {
        char available[32];
        cli_format_bytes(plan.memory_free, available);
        cli_printf(job->app, "%s\ncontext %d of %d, %d sequence%s, %s of memory free; speeds are estimates for %d "
                   "thread%s, after a prompt of %d\n\n%-9s %10s %10s %10s %10s %-7s %10s %10s %11s\n", job->path,
                   plan.n_ctx, plan.n_ctx_train, plan.n_batch, plan.n_batch == 1 ? "" : "s", available,
                   job->speed.n_threads, job->speed.n_threads == 1 ? "" : "s", plan.n_prompt, "type", "weights",
                   "KV cache", "the rest", "total", "", "tokens/s", "prompt/s", "first token");
        print_plan(job->app, v->type ? v->type : "as it is", &plan);
    }
    if (!v->type) status = plan_types(job);
    if (status || !v->json) return status;
    sl_buffer_putc(&job->json, '}');
    return cli_put_json(job->app, &job->json);
}

static int run_plan(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const plan_values *values = given;
    plan_job job = {.app = app, .values = values};
    char *path = NULL;
    (void)n_arguments;
    int status = cli_resolve(app, arguments[0], values->pull, &path);
    job.path = path;
    if (!status)
        status = cli_machine_speed(app, values->threads, values->measure ? CLI_SPEED_AGAIN : CLI_SPEED_KEPT, &job.speed);
    if (!status) status = plan_all(&job);
    sl_buffer_free(&job.json);
    sllm_free(path);
    return status;
}

static const cli_option plan_options[] = {
    {"ctx", 'c', CLI_INT, "N", "0", 0, 1 << 24, .offset = offsetof(plan_values, ctx),
     .help = "Positions of the context; 0: the model's own, at most 4096"},
    {"batch", 'b', CLI_INT, "N", "1", 1, 65536, .offset = offsetof(plan_values, batch),
     .help = "Sequences held at once"},
    {"type", 0, CLI_TEXT, "TYPE", .offset = offsetof(plan_values, type),
     .help =
         "Plan as if the matrices had this type (q4_k_m, q8_0, f16 ...); without it the file's own and a table of all"},
    {"prompt", 0, CLI_INT, "N", "0", 0, 1 << 24, .offset = offsetof(plan_values, prompt),
     .help = "Tokens of the prompt whose time is told; 0: 512, or what the context holds"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(plan_values, threads),
     .help = "Threads of one forward pass; without it all that the process may use"},
    {"kv-type", 0, CLI_WORD, NULL, "auto", .words = cli_kv_types, .offset = offsetof(plan_values, kv_type),
     .help = "How keys and values are kept"},
    {"measure", 0, CLI_FLAG, .offset = offsetof(plan_values, measure),
     .help = "Measure this machine again first, in place of what was measured before"},
    {"exact", 0, CLI_FLAG, .offset = offsetof(plan_values, exact), .help = "Plan for 32-bit activations"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(plan_values, pull),
     .help = "Download MODEL first when it is a name that is not in the cache"},
    {"json", 0, CLI_FLAG, .offset = offsetof(plan_values, json), .help = "Print one JSON object"},
    {0},
};
static const cli_group plan_groups[] = {{"Options", plan_options, 0}, {0}};

const cli_command cli_command_plan = {
    .name = "plan",
    .arguments = "MODEL",
    .summary = "Say what memory a model will take, whether this machine has it, and how fast it will be",
    .details =
        "Reads headers only. Sizes are powers of ten: 1 MB is 1,000,000 bytes. Memory is what the process holds once the "
        "context is full: weights in the form that is multiplied, keys and values, and the rest (scratch, logits, "
        "vocabulary, program and libraries).\n\n"
        "Speeds are estimates from what this machine was measured to read and multiply (`sllm show --cpu`), for tokens "
        "generated after the prompt, for the prompt, and for the time to its first token, the model being loaded; "
        "`sllm bench` measures them.",
    .groups = plan_groups,
    .values_size = sizeof(plan_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_plan,
};
