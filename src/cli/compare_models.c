#include "cli/compare_models.h"

#include "base/file.h"
#include "base/json.h"
#include "cli/progress.h"
#include "sllm_eval.h"

#include <string.h>

enum { WORST = 10 };

/* ---------------------------------------------------------------- the table */

static double number(const sl_json *root, const char *key) {
    double value = 0;
    sl_json_double(sl_json_get(root, key), &value);
    return value;
}

static const char *text_of(const sl_json *root, const char *key) {
    const char *text = sl_json_string(sl_json_get(root, key));
    return text ? text : "";
}

/* The tensors with the largest relative error. */
static void print_worst(cli_app *app, const sl_json *root) {
    const sl_json *list = sl_json_get(root, "tensors"), *worst[WORST] = {0};
    size_t n = 0, differing = 0;
    for (const sl_json *t = list ? list->first : NULL; t; t = t->next) {
        double error = number(t, "relative_error");
        size_t at = n;
        if (!(error > 0)) continue;
        differing++;
        while (at > 0 && number(worst[at - 1], "relative_error") < error) at--;
        if (at >= WORST) continue;
        if (n < WORST) n++;
        memmove(worst + at + 1, worst + at, (n - 1 - at) * sizeof *worst);
        worst[at] = t;
    }
    if (*text_of(root, "tensors_note")) cli_printf(app, "\n%s\n", text_of(root, "tensors_note"));
    if (!n) return;
    cli_printf(app, "\n%zu tensors differ; the largest errors:\n", differing);
    for (size_t i = 0; i < n; i++)
        cli_printf(app, "  %-36s %6s -> %-6s relative %.5f  largest %.4g\n", text_of(worst[i], "name"),
                   text_of(worst[i], "type_a"), text_of(worst[i], "type_b"), number(worst[i], "relative_error"),
                   number(worst[i], "max_error"));
}

static void print_table(cli_app *app, const sl_json *r) {
    char a[32], b[32];
    cli_format_bytes((uint64_t)number(r, "bytes_a"), a);
    cli_format_bytes((uint64_t)number(r, "bytes_b"), b);
    cli_printf(app, "%-26s %14s %14s\n%-26s %14s %14s\n", "", "A", "B", "size", a, b);
    cli_printf(app, "%-26s %14.4f %14.4f\n", "perplexity", number(r, "perplexity_a"), number(r, "perplexity_b"));
    cli_printf(app, "%-26s %14.4f %14.4f\n", "  standard error", number(r, "perplexity_a_standard_error"),
               number(r, "perplexity_b_standard_error"));
    cli_printf(app, "%-26s %14.0f %14.0f\n", "tokens/s", number(r, "tokens_per_second_a"), number(r, "tokens_per_second_b"));
    cli_printf(app, "KL divergence of B from A  mean %.6f +/- %.6f, median %.6f, 99 %% %.6f, largest %.6f nats\n",
               number(r, "mean_kld"), number(r, "mean_kld_standard_error"), number(r, "median_kld"), number(r, "p99_kld"),
               number(r, "max_kld"));
    cli_printf(app, "same likeliest token       %.2f +/- %.2f %%\n", 100 * number(r, "top1_agreement"),
               100 * number(r, "top1_agreement_standard_error"));
    cli_printf(app, "%s arithmetic, %.0f positions in %.0f chunks of %.0f tokens\n", text_of(r, "arithmetic"),
               number(r, "scored"), number(r, "chunks"), number(r, "n_ctx"));
}

/* ---------------------------------------------------------------- measuring */

/* One arithmetic; *json and *html are the caller's to free. */
static int measure(cli_app *app, const char *const names[2], const cli_compare_text *o, bool exact, const sl_buffer *text,
                   char **json, char **html) {
    sllm_model *models[2] = {0};
    sllm_error error = {0};
    sllm_eval_params params;
    cli_model_values load = *o->model;
    int status = CLI_OK;
    load.exact = exact;
    for (int i = 0; i < 2 && !status; i++) {
        load.adapters = i ? o->model->adapters : (cli_texts){0}; /* of B: A is the measure */
        status = cli_load(app, names[i], &load, false, &models[i]);
    }
    sllm_eval_params_init(&params);
    params.n_ctx = o->model->ctx;
    params.n_chunks = o->chunks;
    params.text_name = o->text;
    params.jsonl = cli_is_jsonl(o->text);
    params.on_progress = cli_progress;
    params.user = "tokens";
    cli_progress_begin(app, true);
    if (!status && sllm_compare(models[0], models[1], text->data, text->length, &params, json, html, &error)) {
        cli_progress_end();
        status = cli_error(app, &error);
    }
    cli_progress_end();
    for (int i = 0; i < 2; i++) sllm_model_free(models[i]);
    return status;
}

/* The report; with `more` the other arithmetic's stands in it as "exact". */
static int show(cli_app *app, const cli_compare_text *o, char *json, const char *more) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL, *other = NULL;
    int status = CLI_OK;
    if (o->json) {
        size_t length = strlen(json);
        if (more) json[length - 1] = 0; /* the closing brace */
        cli_printf(app, more ? "%s,\"exact\":%s}\n" : "%s\n", json, more);
        return CLI_OK;
    }
    if (sl_json_parse(&arena, json, strlen(json), "report", &root, &error) ||
        (more && sl_json_parse(&arena, more, strlen(more), "report", &other, &error)))
        status = cli_error(app, &error);
    if (!status) print_table(app, root);
    if (!status && other) cli_printf(app, "\n"), print_table(app, other);
    if (!status) print_worst(app, root);
    sl_arena_free(&arena);
    return status;
}

int cli_compare_models(cli_app *app, const char *a, const char *b, const cli_compare_text *o) {
    const char *names[2] = {a, b};
    char *json = NULL, *more = NULL, *html = NULL;
    sllm_error error = {0};
    sl_buffer text = {0};
    int status = cli_read_file(app, o->text, &text);
    if (!status) status = measure(app, names, o, o->model->exact, &text, &json, o->html ? &html : NULL);
    if (!status && o->both && !o->model->exact) status = measure(app, names, o, true, &text, &more, NULL);
    if (!status && html && sl_file_write(o->html, html, strlen(html), &error)) status = cli_error(app, &error);
    if (!status) status = show(app, o, json, more);
    sl_buffer_free(&text);
    sllm_free(json);
    sllm_free(more);
    sllm_free(html);
    return status;
}
