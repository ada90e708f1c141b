#include "cli/answer.h"

#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define SAMPLING(field) .offset = offsetof(cli_sampling_values, field)
#define ANSWER(field) .offset = offsetof(cli_answer_values, field)
#define INT_LIMIT 2147483647.0

const cli_option cli_sampling_options[] = {
    {"temperature", 't', CLI_FLOAT, "T", "0.7", 0, 100, SAMPLING(temperature),
     .help = "Spread of the draw; 0 takes the likeliest token, the same text every time"},
    {"greedy", 'g', CLI_FLAG, SAMPLING(greedy), .help = "Take the likeliest token always; the same as --temperature 0"},
    {"top-p", 0, CLI_FLOAT, "P", "0.9", 0, 1, true, SAMPLING(top_p),
     .help = "Keep the likeliest tokens that together reach probability P; 1: all"},
    {"top-k", 0, CLI_INT, "K", "0", 0, INT_LIMIT, SAMPLING(top_k), .help = "Keep the K likeliest tokens; 0: all"},
    {"min-p", 0, CLI_FLOAT, "P", "0", 0, 1, false, true, SAMPLING(min_p),
     .help = "Drop tokens less likely than P times the likeliest; 0: none"},
    {"typical-p", 0, CLI_FLOAT, "P", "1", 0, 1, true, SAMPLING(typical_p),
     .help = "Keep tokens of typical information up to probability P (locally typical sampling); 1: all"},
    {"repetition-penalty", 0, CLI_FLOAT, "R", "1", 0, 100, true, SAMPLING(repetition_penalty),
     .help = "Divide the logits of tokens seen before by R; 1: off"},
    {"presence-penalty", 0, CLI_FLOAT, "A", "0", -2, 2, SAMPLING(presence_penalty),
     .help = "Lower the logits of tokens seen before by A"},
    {"frequency-penalty", 0, CLI_FLOAT, "A", "0", -2, 2, SAMPLING(frequency_penalty),
     .help = "Lower the logits of tokens seen before by A for each time"},
    {"penalty-last-n", 0, CLI_INT, "N", "64", -1, INT_LIMIT, SAMPLING(penalty_last_n),
     .help = "Tokens the three penalties look back at; -1: all, 0: none"},
    {"dry-multiplier", 0, CLI_FLOAT, "M", "0", 0, 1000, SAMPLING(dry_multiplier),
     .help = "Strength of the penalty on continuing a repeated passage (DRY); 0: off"},
    {"dry-base", 0, CLI_FLOAT, "B", "1.75", 1, 1000, SAMPLING(dry_base),
     .help = "The DRY penalty is M * B^(length of the passage - allowed length)"},
    {"dry-allowed-length", 0, CLI_INT, "N", "2", 0, 1000, SAMPLING(dry_allowed_length),
     .help = "Passages up to N tokens may repeat freely"},
    {"dry-last-n", 0, CLI_INT, "N", "-1", -1, INT_LIMIT, SAMPLING(dry_last_n),
     .help = "Tokens DRY looks back at; -1: the whole context"},
    {"logit-bias", 0, CLI_TEXTS, "TOKEN=BIAS", SAMPLING(logit_bias),
     .help = "Add BIAS to the logit of a token, given by id or by text; -inf forbids it"},
    {"seed", 's', CLI_SEED, "N", SAMPLING(seed),
     .help = "The same seed, prompt and options give the same text; drawn at random when not given"},
    {0},
};

static const char *const overflow_words[] = {"error", "truncate", "shift", NULL};   /* as sllm_overflow */
static const char *const reasoning_words[] = {"show", "hide", "off", NULL};         /* as cli_reasoning */

const cli_option cli_answer_options[] = {
    {"system", 'S', CLI_TEXT, "TEXT", ANSWER(system), .help = "The system message"},
    {"max-new-tokens", 'm', CLI_INT, "N", "200", 0, INT_LIMIT, ANSWER(max_new_tokens),
     .help = "End the answer after N tokens"},
    {"stop", 0, CLI_TEXTS, "TEXT", ANSWER(stop), .help = "End the answer before TEXT"},
    {"ignore-end", 0, CLI_FLAG, ANSWER(ignore_end), .help = "Go on past the model's end tokens, up to N tokens"},
    {"reasoning", 0, CLI_WORD, .fallback = "show", .words = reasoning_words, ANSWER(reasoning),
     .help = "Show what the model thinks between its reasoning marks, hide it, or ask the template to switch it off "
             "(enable_thinking=false)"},
    {"template-arg", 0, CLI_TEXTS, "KEY=VALUE", ANSWER(template_args),
     .help = "Variable for the chat template; VALUE is JSON or else a string"},
    {"overflow", 0, CLI_WORD, .fallback = "error", .words = overflow_words, ANSWER(overflow),
     .help = "When the tokens do not fit the context: an error, drop the oldest of the prompt, or drop the older half "
             "also while generating"},
    {"keep", 0, CLI_INT, "N", "0", 0, INT_LIMIT, ANSWER(keep),
     .help = "Leading tokens that --overflow truncate and shift never drop"},
    {0},
};

const char *const cli_speculate_words[] = {"off", "lookup", NULL};

const cli_option cli_speculation_options[] = {
    {"speculate", 0, CLI_WORD, .fallback = "off", .words = cli_speculate_words,
     .offset = offsetof(cli_speculation_values, speculate),
     .help = "Guess the next tokens from what followed the last ones before, and compute them at once: faster where an "
             "answer repeats its prompt or itself. Changes no answer"},
    {"draft", 0, CLI_TEXT, "MODEL", .offset = offsetof(cli_speculation_values, draft),
     .help = "Let a smaller model of the same vocabulary guess. Changes no answer"},
    {0},
};

/* ---------------------------------------------------------------- parameters */

/* TOKEN of --logit-bias: an id, the token as the vocabulary writes it, or text that is exactly one token. */
static int find_token(cli_app *app, const sllm_model *model, const char *text, int32_t *id) {
    sllm_error error = {0};
    sllm_tokens tokens = {0};
    sllm_model_info info;
    char *end = NULL;
    sllm_model_get_info(model, &info);
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (*text && !*end) {
        if (errno || number < 0 || number >= info.n_vocab)
            return cli_usage(app, "--logit-bias: id %s is outside the vocabulary (0 to %d)", text, info.n_vocab - 1);
        *id = (int32_t)number;
        return CLI_OK;
    }
    *id = sllm_token_id(model, text);
    if (*id >= 0) return CLI_OK;
    if (sllm_tokenize(model, text, strlen(text), SLLM_TOKENIZE_SPECIAL, &tokens, &error)) return cli_error(app, &error);
    size_t n = tokens.n;
    if (n == 1) *id = tokens.ids[0];
    sllm_tokens_free(&tokens);
    if (n == 1) return CLI_OK;
    return cli_usage(app, "--logit-bias: '%s' is %zu tokens, not one; `sllm tokenize` shows ids", text, n);
}

static int read_bias(cli_app *app, const sllm_model *model, const char *given, sllm_logit_bias *out) {
    const char *equals = strrchr(given, '=');
    char *end = NULL, token[256];
    if (!equals || equals == given || (size_t)(equals - given) >= sizeof token)
        return cli_usage(app, "--logit-bias %s: must be ID=BIAS or TEXT=BIAS", given);
    out->bias = strtof(equals + 1, &end);
    if (end == equals + 1 || *end || isnan(out->bias) || out->bias == INFINITY)
        return cli_usage(app, "--logit-bias %s: '%s' must be a number or -inf", given, equals + 1);
    snprintf(token, sizeof token, "%.*s", (int)(equals - given), given);
    return find_token(app, model, token, &out->id);
}

static int read_biases(cli_ask *ask, const sllm_model *model, const cli_texts *given) {
    if (given->n == 0) return CLI_OK;
    ask->bias = calloc(given->n, sizeof *ask->bias);
    if (!ask->bias) return cli_failure(ask->app, "out of memory");
    for (size_t i = 0; i < given->n; i++) {
        int status = read_bias(ask->app, model, given->items[i], &ask->bias[i]);
        if (status) return status;
    }
    ask->params.sampler.bias = ask->bias;
    ask->params.sampler.n_bias = given->n;
    return CLI_OK;
}

/* 32 bits: a seed that JSON readers with 53-bit numbers keep, and that is short to type again. */
static uint64_t random_seed(void) {
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = (uint32_t)time(NULL);
    return seed;
}

static void copy_sampling(sllm_sampler_params *to, const cli_sampling_values *from) {
    to->temperature = from->greedy ? 0 : from->temperature;
    to->top_k = from->top_k;
    to->top_p = from->top_p;
    to->min_p = from->min_p;
    to->typical_p = from->typical_p;
    to->repetition_penalty = from->repetition_penalty;
    to->presence_penalty = from->presence_penalty;
    to->frequency_penalty = from->frequency_penalty;
    to->penalty_last_n = from->penalty_last_n;
    to->dry_multiplier = from->dry_multiplier;
    to->dry_base = from->dry_base;
    to->dry_allowed_length = from->dry_allowed_length;
    to->dry_last_n = from->dry_last_n;
    to->seed = from->seed.given ? from->seed.value : random_seed();
}

/* ---------------------------------------------------------------- choices */

void cli_choices_free(cli_choices *choices) {
    for (size_t i = 0; i < choices->n; i++) free(choices->items[i]);
    free(choices->items);
    *choices = (cli_choices){0};
}

int cli_choices_split(cli_app *app, const char *list, cli_choices *out) {
    out->items = calloc(strlen(list) + 2, sizeof *out->items);
    if (!out->items) return cli_failure(app, "out of memory");
    for (const char *c = list;;) {
        sl_buffer choice = {0};
        for (; *c && *c != ','; c++) {
            if (c[0] == '\\' && c[1] == ',') c++;
            sl_buffer_putc(&choice, *c);
        }
        if (choice.length == 0) return cli_usage(app, "--choices %s: a choice is empty; write a,b,c", list);
        for (size_t i = 0; i < out->n; i++)
            if (choice.data && !strcmp(out->items[i], choice.data)) {
                sl_buffer_free(&choice);
                return cli_usage(app, "--choices %s: '%s' is there twice", list, out->items[i]);
            }
        out->items[out->n] = sl_buffer_take(&choice, NULL);
        if (!out->items[out->n]) return cli_failure(app, "out of memory");
        out->n++;
        if (!*c++) return CLI_OK;
    }
}

/* ---------------------------------------------------------------- speculation */

/* What `model` will take in a session of n_ctx, but for what loading it has taken already. */
static uint64_t still_to_take(const sllm_model *model, size_t n_ctx, int kv_type) {
    sllm_plan_params wanted = {.n_ctx = (int)n_ctx, .kv_type = (sllm_kv_type)kv_type};
    sllm_plan plan;
    if (sllm_model_plan_loaded(model, &wanted, &plan, NULL)) return 0;
    return plan.total_bytes - plan.vocabulary_bytes - plan.program_bytes;
}

int cli_draft_load(cli_app *app, const cli_speculation_values *values, const cli_model_values *how,
                   const sllm_model *model, const sllm_session *session, cli_draft *draft) {
    sllm_error error = {0};
    sllm_model_info info;
    if (!values->draft) return CLI_OK;
    if (values->speculate) return cli_usage(app, "--speculate lookup and --draft: give one way to guess");
    size_t n_ctx = sllm_session_capacity(session);
    cli_beside beside = {.bytes = still_to_take(model, n_ctx, how->kv_type)};
    cli_model_values plain = *how;
    plain.adapters = (cli_texts){0}; /* they are the model's, not the draft's */
    int status = cli_load_beside(app, values->draft, &plain, &beside, &draft->model);
    if (status) return status;
    if (sllm_draft_check(model, draft->model, &error)) return cli_error(app, &error);
    sllm_model_get_info(draft->model, &info);
    sllm_session_params params = {.n_ctx = n_ctx < (size_t)info.n_ctx_train ? (int)n_ctx : info.n_ctx_train,
                                  .kv_type = (sllm_kv_type)how->kv_type};
    return sllm_session_new(draft->model, &params, &draft->session, &error) ? cli_error(app, &error) : CLI_OK;
}

void cli_draft_free(cli_draft *draft) {
    sllm_session_free(draft->session);
    sllm_model_free(draft->model);
    *draft = (cli_draft){0};
}

void cli_speculate(const cli_speculation_values *values, const cli_draft *draft, sllm_generate_params *params) {
    params->draft = draft->session;
    params->speculation = draft->session      ? SLLM_SPECULATION_DRAFT
                          : values->speculate ? SLLM_SPECULATION_LOOKUP
                                              : SLLM_SPECULATION_OFF;
}

/* ---------------------------------------------------------------- streaming */

static bool is_cancelled(void *user) {
    (void)user;
    return cli_interrupted();
}

/* Escape sequences that a model writes are shown, not obeyed, on a terminal; a pipe gets the bytes. */
static bool on_event(void *user, const sllm_event *event) {
    cli_ask *ask = user;
    cli_app *app = ask->app;
    if (cli_interrupted()) return false;
    if (ask->silent || event->length == 0) return true;
    if (event->reasoning != ask->in_reasoning) {
        ask->in_reasoning = event->reasoning;
        if (app->colour) cli_printf(app, event->reasoning ? "\x1b[2m" : "\x1b[22m");
    }
    ask->last_byte = event->text[event->length - 1];
    if (!app->stdout_is_terminal) return cli_write(app, event->text, event->length);
    cli_print_safe(app, event->text, event->length);
    return cli_write(app, "", 0);
}

int cli_ask_init(cli_ask *ask, cli_app *app, const sllm_model *model, const cli_sampling_values *sampling,
                 const cli_answer_values *answer) {
    sllm_error error = {0};
    sllm_model_info info;
    *ask = (cli_ask){.app = app};
    sllm_generate_params *params = &ask->params;
    sllm_generate_params_init(params);
    sllm_model_get_info(model, &info);
    copy_sampling(&params->sampler, sampling);
    params->max_new_tokens = answer->max_new_tokens;
    params->stop = answer->stop.items;
    params->n_stop = answer->stop.n;
    params->reasoning = answer->reasoning == CLI_REASONING_HIDE ? SLLM_REASONING_HIDE : SLLM_REASONING_SHOW;
    params->overflow = (sllm_overflow)answer->overflow;
    params->n_keep = answer->keep;
    params->ignore_end = answer->ignore_end;
    params->on_event = on_event;
    params->is_cancelled = is_cancelled;
    params->user = ask;
    for (size_t i = 0; i < params->n_stop; i++)
        if (!*params->stop[i]) return cli_usage(app, "--stop '': must not be empty");
    int status = read_biases(ask, model, &sampling->logit_bias);
    if (!status && sllm_sampler_params_check(&params->sampler, info.n_vocab, &error)) status = cli_error(app, &error);
    return status;
}

void cli_ask_free(cli_ask *ask) {
    free(ask->bias);
    ask->bias = NULL;
}

bool cli_context_is_full(const sllm_generate_params *params, const sllm_generation *answer) {
    return answer->finish == SLLM_FINISH_LENGTH && answer->completion_tokens < (size_t)params->max_new_tokens;
}

static void put_choices(sl_buffer *out, const sllm_generate_params *params, const sllm_generation *answer) {
    sl_json_put_string(out, "choice", answer->choice >= 0 ? params->choices[answer->choice] : NULL);
    sl_json_key(out, "choices");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < params->n_choices; i++) {
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        sl_json_put_string(out, "text", params->choices[i]);
        sl_json_put_double(out, "probability", answer->choice_probabilities[i]);
        sl_buffer_putc(out, '}');
    }
    sl_buffer_putc(out, ']');
}

void cli_put_answer(sl_buffer *out, const sllm_generate_params *params, const sllm_generation *answer) {
    sl_json_key(out, "text");
    sl_json_write_string(out, answer->text ? answer->text : "", answer->text_length);
    if (answer->reasoning) sl_json_put_string(out, "reasoning", answer->reasoning);
    sl_json_put_string(out, "finish_reason", sllm_finish_name(answer->finish));
    if (answer->stop) sl_json_put_string(out, "stop", answer->stop);
    sl_json_put_bool(out, "context_full", cli_context_is_full(params, answer));
    if (answer->choice_probabilities) put_choices(out, params, answer);
    sl_json_put_int(out, "prompt_tokens", (int64_t)answer->prompt_tokens);
    sl_json_put_int(out, "completion_tokens", (int64_t)answer->completion_tokens);
    sl_json_put_int(out, "dropped_tokens", (int64_t)answer->dropped_tokens);
    sl_json_key(out, "seed");
    sl_buffer_printf(out, "%llu", (unsigned long long)params->sampler.seed);
}

int cli_ask_run(cli_ask *ask, sllm_session *session, const sllm_tokens *tokens, sllm_generation *out) {
    sllm_error error = {0};
    cli_app *app = ask->app;
    ask->in_reasoning = false;
    ask->last_byte = 0;
    *out = (sllm_generation){0};
    sllm_status failed = sllm_generate(session, tokens->ids, tokens->n, &ask->params, out, &error);
    if (ask->in_reasoning && app->colour) cli_printf(app, "\x1b[22m");
    bool line_is_open = ask->last_byte ? ask->last_byte != '\n' : !failed;
    if (!ask->silent && line_is_open) cli_write(app, "\n", 1);
    if (failed == SLLM_ERROR_CONTEXT && ask->context_hint)
        return cli_failure(app, "%s; %s", error.message, ask->context_hint);
    if (failed) return cli_error(app, &error);
    if (cli_interrupted()) return CLI_INTERRUPTED;
    if (cli_context_is_full(&ask->params, out))
        fprintf(stderr, "sllm: %s: the answer stops here because the context of %zu positions is full; --ctx N gives "
                "more, --overflow shift goes on\n", app->command->name, sllm_session_capacity(session));
    return app->output_errno ? CLI_FAILURE : CLI_OK;
}

/* ---------------------------------------------------------------- chat template */

void cli_message_add(sl_buffer *messages, const char *role, const char *text, size_t length) {
    sl_json_comma(messages);
    sl_buffer_putc(messages, '{');
    sl_json_put_string(messages, "role", role);
    sl_json_key(messages, "content");
    sl_json_write_string(messages, text, length);
    sl_buffer_putc(messages, '}');
}

/* "key": VALUE for one KEY=VALUE of --template-arg. */
static int write_template_arg(cli_app *app, const char *given, sl_buffer *out) {
    sl_arena arena = {0};
    const sl_json *value = NULL;
    const char *equals = strchr(given, '=');
    char key[128];
    if (!equals || equals == given || (size_t)(equals - given) >= sizeof key)
        return cli_usage(app, "--template-arg %s: must be KEY=VALUE", given);
    snprintf(key, sizeof key, "%.*s", (int)(equals - given), given);
    sl_json_key(out, key);
    if (sl_json_parse(&arena, equals + 1, strlen(equals + 1), "value", &value, NULL) == SLLM_OK)
        sl_json_write_value(out, value);
    else
        sl_json_write_string(out, equals + 1, strlen(equals + 1));
    sl_arena_free(&arena);
    return CLI_OK;
}

int cli_template_options(cli_app *app, const cli_answer_values *values, sl_buffer *out) {
    int status = CLI_OK;
    sl_buffer_puts(out, "{\"kwargs\":{");
    if (values->reasoning == CLI_REASONING_OFF) sl_json_put_bool(out, "enable_thinking", false);
    for (size_t i = 0; !status && i < values->template_args.n; i++)
        status = write_template_arg(app, values->template_args.items[i], out);
    sl_buffer_puts(out, "}}");
    return !status && out->failed ? cli_failure(app, "out of memory") : status;
}

int cli_render_chat(cli_app *app, const sllm_model *model, const char *messages, const cli_answer_values *values,
                    sllm_tokens *tokens) {
    sllm_error error = {0};
    sllm_model_info info;
    sl_buffer options = {0};
    char *text = NULL;
    size_t length = 0;
    sllm_model_get_info(model, &info);
    if (!info.has_template)
        return cli_failure(
            app, "%s has no chat template (a base model?); `sllm run --raw` continues a text as it stands", info.path);
    int status = cli_template_options(app, values, &options);
    if (!status && sllm_template_render(model, messages, options.data, &text, &length, &error)) {
        if (error.raised)
            status = cli_failure(app, "the model's chat template refuses the messages: %s", error.message);
        else status = cli_error(app, &error);
    }
    /* the template writes its own beginning-of-sequence token, so none is added */
    if (!status && sllm_tokenize(model, text, length, SLLM_TOKENIZE_SPECIAL, tokens, &error))
        status = cli_error(app, &error);
    sllm_free(text);
    sl_buffer_free(&options);
    return status;
}
