/* sllm run: one prompt, one answer (or several, or a choice). */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/prompt.h"

#include "base/clock.h"
#include "base/json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct run_values {
    cli_prompt_values prompt;
    cli_answer_values answer;
    cli_sampling_values sampling;
    cli_speculation_values speculation;
    cli_model_values model;
    const char *choices, *suffix;
    bool raw, json;
    int n, logprobs;
} run_values;

typedef struct run {
    cli_app *app;
    const run_values *values;
    const char *name; /* MODEL as given */
    sllm_model *model;
    sllm_session *session;
    sl_buffer messages; /* the conversation as JSON, unless --raw or --suffix */
    sllm_tokens tokens; /* the prompt */
    cli_ask ask;
    cli_draft draft;
    cli_choices choices;
    double load_s;
} run;

/* ---------------------------------------------------------------- choices */

static void print_choices(const run *r, const sllm_generation *answer) {
    if (!answer->choice_probabilities) return;
    for (size_t i = 0; i < r->choices.n; i++)
        fprintf(stderr, "%8.6f  %s\n", answer->choice_probabilities[i], r->choices.items[i]);
}

/* ---------------------------------------------------------------- tables and JSON */

/* A token's text on its line, padded to width: a vocabulary is a file's text, and control bytes in it are only
 * named. */
static void print_token_text(const char *text, int width) {
    int n = 0;
    for (; text && *text; text++) {
        unsigned char c = (unsigned char)*text;
        n += c < 0x20 || c == 0x7f ? fprintf(stderr, "\\x%02x", c) : putc(c, stderr) != EOF;
    }
    fprintf(stderr, "%*s", n < width ? width - n : 0, "");
}

/* One line a token: its log probability, and the likeliest beside it. */
static void print_logprobs(const run *r, const sllm_generation *answer) {
    int k = r->values->logprobs;
    if (k < 0 || !answer->logprobs) return;
    for (size_t i = 0; i < answer->completion_tokens; i++) {
        fprintf(stderr, "%6d %9.4f  ", answer->ids[i], (double)answer->logprobs[i]);
        print_token_text(sllm_token_text(r->model, answer->ids[i]), 16);
        for (int j = 0; j < k && answer->alternatives; j++) {
            const sllm_alternative *other = &answer->alternatives[i * (size_t)k + (size_t)j];
            if (other->id < 0) break;
            fputs("  ", stderr);
            print_token_text(sllm_token_text(r->model, other->id), 0);
            fprintf(stderr, " %.4f", (double)other->logprob);
        }
        putc('\n', stderr);
    }
}

static void put_token(const run *r, sl_buffer *out, int32_t id, double logprob) {
    sl_json_put_int(out, "id", id);
    sl_json_put_string(out, "token", sllm_token_text(r->model, id));
    sl_json_put_double(out, "logprob", logprob);
}

static void put_logprobs(const run *r, const sllm_generation *answer, sl_buffer *out) {
    size_t k = r->values->logprobs > 0 ? (size_t)r->values->logprobs : 0;
    sl_json_key(out, "logprobs");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < answer->completion_tokens; i++) {
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        put_token(r, out, answer->ids[i], (double)answer->logprobs[i]);
        sl_json_key(out, "top");
        sl_buffer_putc(out, '[');
        for (size_t j = 0; answer->alternatives && j < k; j++) {
            const sllm_alternative *other = &answer->alternatives[i * k + j];
            if (other->id < 0) break;
            sl_json_comma(out);
            sl_buffer_putc(out, '{');
            put_token(r, out, other->id, (double)other->logprob);
            sl_buffer_putc(out, '}');
        }
        sl_buffer_puts(out, "]}");
    }
    sl_buffer_putc(out, ']');
}

/* rows: tokens computed, the prompt's included; a plain answer has one for each token of the prompt that was not reused
 * and of the answer but the last. */
static void put_speculation(const sllm_generation *answer, sl_buffer *out) {
    sl_json_key(out, "speculation");
    sl_buffer_putc(out, '{');
    sl_json_put_int(out, "proposed", (int64_t)answer->proposed_tokens);
    sl_json_put_int(out, "accepted", (int64_t)answer->accepted_tokens);
    sl_json_put_int(out, "rows", (int64_t)answer->rows);
    sl_json_put_int(out, "draft_rows", (int64_t)answer->draft_rows);
    sl_buffer_putc(out, '}');
}

static void put_answer(const run *r, const sllm_generation *answer, sl_buffer *out) {
    cli_put_answer(out, &r->ask.params, answer);
    sl_json_key(out, "ids");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < answer->completion_tokens; i++) sl_buffer_printf(out, i ? ",%d" : "%d", answer->ids[i]);
    sl_buffer_putc(out, ']');
    sl_json_put_int(out, "reused_tokens", (int64_t)answer->reused_tokens);
    sl_json_put_double(out, "time_to_first_token_s", answer->time_to_first_token_s);
    sl_json_put_double(out, "prompt_tokens_per_second", answer->prompt_tokens_per_second);
    sl_json_put_double(out, "tokens_per_second", answer->tokens_per_second);
    if (r->ask.params.speculation) put_speculation(answer, out);
    if (answer->logprobs) put_logprobs(r, answer, out);
}

static void put_model(const run *r, sl_buffer *out) {
    sllm_model_info info;
    sllm_model_get_info(r->model, &info);
    sl_json_put_string(out, "model", r->name);
    sl_json_put_string(out, "arithmetic", info.exact ? "exact" : "fast");
    sl_json_put_double(out, "load_s", r->load_s);
}

/* ---------------------------------------------------------------- the prompt's tokens */

static int check_values(cli_app *app, const run_values *v) {
    const char *plain = v->raw ? "--raw" : v->suffix ? "--suffix" : NULL;
    if (v->raw && v->suffix) return cli_usage(app, "--raw and --suffix: give one; neither uses the chat template");
    if (plain && v->answer.system)
        return cli_usage(app, "--system has no place with %s, which uses no chat template", plain);
    if (plain && v->prompt.examples)
        return cli_usage(app, "--examples has no place with %s, which uses no chat template", plain);
    if (plain && v->answer.template_args.n)
        return cli_usage(app, "--template-arg has no place with %s, which uses no chat template", plain);
    if (v->choices && v->answer.stop.n) return cli_usage(app, "--stop has no place with --choices: a choice is exact");
    return CLI_OK;
}

/* The conversation that the chat template gets: a JSON array. Read before the model is loaded, so that a mistake in it
 * shows at once. */
static int read_messages(run *r, const sl_buffer *prompt) {
    const run_values *v = r->values;
    int status = CLI_OK;
    sl_buffer_putc(&r->messages, '[');
    if (v->answer.system) {
        status = cli_check_utf8(r->app, "--system", v->answer.system, strlen(v->answer.system));
        cli_message_add(&r->messages, "system", v->answer.system, strlen(v->answer.system));
    }
    if (!status) status = cli_prompt_examples(r->app, &v->prompt, &r->messages);
    cli_message_add(&r->messages, "user", prompt->data, prompt->length);
    if (!status && !sl_buffer_putc(&r->messages, ']')) status = cli_failure(r->app, "out of memory");
    return status;
}

static int prompt_tokens(run *r, const sl_buffer *prompt) {
    const run_values *v = r->values;
    sllm_error error = {0};
    sllm_status failed;
    if (v->suffix)
        failed = sllm_infill_tokens(r->model, prompt->data, prompt->length, v->suffix, strlen(v->suffix), &r->tokens,
                                    &error);
    else if (v->raw)
        failed = sllm_tokenize(r->model, prompt->data, prompt->length, SLLM_TOKENIZE_SPECIAL | SLLM_TOKENIZE_ADD,
                               &r->tokens, &error);
    else return cli_render_chat(r->app, r->model, r->messages.data, &v->answer, &r->tokens);
    return failed ? cli_error(r->app, &error) : CLI_OK;
}

/* ---------------------------------------------------------------- answers */

static int answer_once(run *r, int index, sl_buffer *json) {
    const run_values *v = r->values;
    sllm_generation answer = {0};
    if (v->n > 1 && !v->json) cli_printf(r->app, "%s--- answer %d, seed %llu\n", index ? "\n" : "", index + 1,
                                         (unsigned long long)r->ask.params.sampler.seed);
    int status = cli_ask_run(&r->ask, r->session, &r->tokens, &answer);
    bool made = status == CLI_OK || status == CLI_INTERRUPTED;
    if (made && v->json) {
        if (v->n > 1) sl_json_comma(json), sl_buffer_putc(json, '{');
        put_answer(r, &answer, json);
        if (v->n > 1) sl_buffer_putc(json, '}');
    } else if (made) {
        print_choices(r, &answer);
        print_logprobs(r, &answer);
        if (answer.dropped_tokens)
            fprintf(stderr, "sllm: run: dropped %zu of the oldest tokens to fit the context (--ctx %zu)\n",
                    answer.dropped_tokens, sllm_session_capacity(r->session));
    }
    sllm_generation_free(&answer);
    return status;
}

/* Answers share the session, so the prompt is computed once. */
static int answer_all(run *r) {
    const run_values *v = r->values;
    sl_buffer json = {0};
    int status = CLI_OK;
    uint64_t seed = r->ask.params.sampler.seed;
    if (v->json) {
        sl_buffer_putc(&json, '{');
        put_model(r, &json);
        if (v->n > 1) sl_json_key(&json, "answers"), sl_buffer_putc(&json, '[');
    }
    for (int i = 0; !status && i < v->n; i++) {
        r->ask.params.sampler.seed = seed + (uint64_t)i;
        status = answer_once(r, i, &json);
    }
    if (v->json && (status == CLI_OK || status == CLI_INTERRUPTED)) {
        sl_buffer_puts(&json, v->n > 1 ? "]}" : "}");
        int written = cli_put_json(r->app, &json);
        if (!status) status = written;
    }
    sl_buffer_free(&json);
    return status;
}

static int prepare(run *r) {
    const run_values *v = r->values;
    sllm_error error = {0};
    sllm_session_params params = {.n_ctx = v->model.ctx, .kv_type = (sllm_kv_type)v->model.kv_type};
    double began = sl_clock();
    int status = cli_load(r->app, r->name, &v->model, false, &r->model);
    if (status) return status;
    r->load_s = sl_clock() - began;
    status = cli_ask_init(&r->ask, r->app, r->model, &v->sampling, &v->answer);
    if (status) return status;
    r->ask.silent = v->json;
    r->ask.params.choices = (const char *const *)r->choices.items;
    r->ask.params.n_choices = r->choices.n;
    r->ask.params.n_logprobs = v->logprobs;
    if (sllm_session_new(r->model, &params, &r->session, &error)) return cli_error(r->app, &error);
    status = cli_draft_load(r->app, &v->speculation, &v->model, r->model, r->session, &r->draft);
    cli_speculate(&v->speculation, &r->draft, &r->ask.params);
    return status;
}

static int run_run(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const run_values *values = given;
    run r = {.app = app, .values = values, .name = arguments[0]};
    sl_buffer prompt = {0};
    cli_interrupt_watch();
    int status = check_values(app, values);
    if (!status && values->choices) status = cli_choices_split(app, values->choices, &r.choices);
    if (!status) status = cli_prompt_read(app, &values->prompt, n_arguments > 1 ? arguments[1] : NULL, &prompt);
    if (!status && !values->raw && !values->suffix) status = read_messages(&r, &prompt);
    if (!status) status = prepare(&r);
    if (!status) status = prompt_tokens(&r, &prompt);
    if (!status) status = answer_all(&r);
    sl_buffer_free(&prompt);
    sl_buffer_free(&r.messages);
    sllm_tokens_free(&r.tokens);
    cli_ask_free(&r.ask);
    sllm_session_free(r.session);
    cli_draft_free(&r.draft);
    sllm_model_free(r.model);
    cli_choices_free(&r.choices);
    return status;
}

static const cli_option run_options[] = {
    {"raw", 0, CLI_FLAG, .offset = offsetof(run_values, raw),
     .help = "Continue the text as it stands, without the chat template; special tokens in it count"},
    {"suffix", 0, CLI_TEXT, "TEXT", .offset = offsetof(run_values, suffix),
     .help = "Fill in the middle between the prompt and TEXT, for code models that have the tokens"},
    {"choices", 0, CLI_TEXT, "A,B,C", .offset = offsetof(run_values, choices),
     .help =
         "The answer is exactly one of these (\\, for a comma); the probability of each is printed on standard error"},
    {"n", 'n', CLI_INT, "N", "1", 1, 1000, .offset = offsetof(run_values, n),
     .help = "Make N answers, with the seeds seed, seed+1, ..."},
    {"logprobs", 0, CLI_INT, "K", "-1", -1, 100, .offset = offsetof(run_values, logprobs),
     .help = "Print each token's log probability and the K likeliest beside it on standard error, or in the JSON; -1: "
             "none"},
    {"json", 0, CLI_FLAG, .offset = offsetof(run_values, json),
     .help = "Print one JSON object at the end instead of the text as it comes"},
    {0},
};

static const cli_group run_groups[] = {
    {"Prompt", cli_prompt_options, offsetof(run_values, prompt)},
    {"Answer", cli_answer_options, offsetof(run_values, answer)},
    {"More about the answer", run_options, 0},
    {"Sampling", cli_sampling_options, offsetof(run_values, sampling)},
    {"Speculation", cli_speculation_options, offsetof(run_values, speculation)},
    {"Model", cli_model_options, offsetof(run_values, model)},
    {0},
};

const cli_command cli_command_run = {
    .name = "run",
    .arguments = "MODEL [PROMPT]",
    .summary = "Answer a prompt, streaming the text",
    .details =
        "The prompt is the prompt file, then PROMPT, then what a pipe or file on standard input holds, with "
        "blank lines between. It becomes the user's turn of the model's chat template; --raw leaves the "
        "template out.\n\n"
        "Few-shot examples become turns before it. With a prompt file \"Translate: {{text}}\", a line of "
        "--examples is {\"set\": {\"text\": \"good morning\"}, \"output\": \"bonjour\"}; without one, "
        "{\"input\": \"good morning\", \"output\": \"bonjour\"}.\n\n"
        "Ctrl-C ends the answer with exit status 130; a second one kills. The same seed, prompt and options "
        "give the same text for any number of threads.",
    .groups = run_groups,
    .values_size = sizeof(run_values),
    .min_arguments = 1,
    .max_arguments = 2,
    .run = run_run,
};
