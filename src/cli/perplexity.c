/* sllm perplexity: how well a model predicts a text. */
#include "cli/commands.h"

#include "base/json.h"
#include "cli/progress.h"
#include "sllm_eval.h"

#include <stddef.h>
#include <string.h>

typedef struct perplexity_values {
    const char *text;
    int chunks;
    bool json;
    cli_model_values model;
} perplexity_values;

static int report(cli_app *app, const perplexity_values *v, const char *model, const sllm_perplexity_result *r) {
    const char *arithmetic = r->exact ? "exact" : "fast";
    sl_buffer json = {0};
    if (!v->json) {
        cli_printf(app, "perplexity %.4f +/- %.4f  (%lld of %lld tokens scored, %d chunks, %s arithmetic, %.0f tokens/s)\n",
                   r->perplexity, r->standard_error, (long long)r->scored, (long long)r->tokens, r->chunks, arithmetic,
                   r->tokens_per_second);
        return CLI_OK;
    }
    sl_buffer_putc(&json, '{');
    sl_json_put_string(&json, "model", model);
    sl_json_put_string(&json, "text", v->text);
    sl_json_put_double(&json, "perplexity", r->perplexity);
    sl_json_put_double(&json, "standard_error", r->standard_error);
    sl_json_put_double(&json, "mean_nll", r->mean_nll);
    sl_json_put_int(&json, "tokens", r->tokens);
    sl_json_put_int(&json, "scored", r->scored);
    sl_json_put_int(&json, "chunks", r->chunks);
    sl_json_put_double(&json, "seconds", r->seconds);
    sl_json_put_double(&json, "tokens_per_second", r->tokens_per_second);
    sl_json_put_string(&json, "arithmetic", arithmetic);
    sl_buffer_putc(&json, '}');
    return cli_put_json(app, &json);
}

static int run_perplexity(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const perplexity_values *v = given;
    sllm_model *model = NULL;
    sllm_perplexity_result result;
    sllm_error error = {0};
    sl_buffer text = {0};
    (void)n_arguments;
    if (!v->text) return cli_usage(app, "give --text FILE");
    cli_interrupt_watch();
    int status = cli_read_file(app, v->text, &text);
    if (!status) status = cli_load(app, arguments[0], &v->model, false, &model);
    if (!status) {
        sllm_eval_params params;
        sllm_eval_params_init(&params);
        params.n_ctx = v->model.ctx;
        params.n_chunks = v->chunks;
        params.text_name = v->text;
        params.jsonl = cli_is_jsonl(v->text);
        params.on_progress = cli_progress;
        params.user = "tokens";
        cli_progress_begin(app, true);
        sllm_status failed = sllm_perplexity(model, text.data, text.length, &params, &result, &error);
        cli_progress_end();
        status = failed ? cli_error(app, &error) : report(app, v, arguments[0], &result);
    }
    sl_buffer_free(&text);
    sllm_model_free(model);
    return status;
}

static const cli_option perplexity_options[] = {
    {"text", 0, CLI_TEXT, "FILE", .offset = offsetof(perplexity_values, text),
     .help = "UTF-8 text, or .jsonl with \"text\" or \"messages\" a line"},
    {"chunks", 0, CLI_INT, "N", NULL, 0, 1 << 20, .offset = offsetof(perplexity_values, chunks),
     .help = "Read at most N chunks; 0: all of the text"},
    {"json", 0, CLI_FLAG, .offset = offsetof(perplexity_values, json), .help = "Print one JSON object"},
    {0},
};
static const cli_group perplexity_groups[] = {
    {"Options", perplexity_options, 0},
    {"Model", cli_model_options, offsetof(perplexity_values, model)},
    {0},
};

const cli_command cli_command_perplexity = {
    .name = "perplexity",
    .arguments = "MODEL",
    .summary = "Measure how well a model predicts a text",
    .details = "The text is read in chunks of --ctx tokens (without it 512); the second half of each chunk is scored, as "
               "llama.cpp's tool of this name does, so that figures can be compared. Smaller is better.",
    .groups = perplexity_groups,
    .values_size = sizeof(perplexity_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_perplexity,
};
