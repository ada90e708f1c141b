/* Asking a model and showing its answer: what `sllm run` and `sllm chat` share. */
#ifndef SLLM_CLI_ANSWER_H
#define SLLM_CLI_ANSWER_H

#include "cli/cli.h"

typedef struct cli_sampling_values {
    float temperature, top_p, min_p, typical_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    float dry_multiplier, dry_base;
    int top_k, penalty_last_n, dry_allowed_length, dry_last_n;
    bool greedy;
    cli_seed seed;
    cli_texts logit_bias;
} cli_sampling_values;
extern const cli_option cli_sampling_options[];

typedef enum cli_reasoning { CLI_REASONING_SHOW, CLI_REASONING_HIDE, CLI_REASONING_OFF } cli_reasoning;

typedef struct cli_answer_values {
    const char *system;
    int max_new_tokens, overflow, keep;
    int reasoning; /* cli_reasoning */
    cli_texts stop, template_args;
    bool ignore_end;
} cli_answer_values;
extern const cli_option cli_answer_options[];

typedef struct cli_speculation_values {
    int speculate; /* 0: off, 1: look-up */
    const char *draft; /* MODEL, or NULL */
} cli_speculation_values;
extern const char *const cli_speculate_words[];
extern const cli_option cli_speculation_options[];

/* Parameters of one generation with what they borrow. Made by cli_ask_init, freed by cli_ask_free. */
typedef struct cli_ask {
    cli_app *app;
    sllm_generate_params params;
    sllm_logit_bias *bias;
    bool silent;       /* nothing is written while generating (--json) */
    const char *context_hint; /* what to do when the tokens do not fit the context; may be NULL */
    bool in_reasoning; /* the terminal is dimmed */
    char last_byte;    /* of what was written; 0: nothing yet */
} cli_ask;

/* Checks the values against the model. CLI_OK, or the exit status after printing what is wrong. The seed is drawn from
 * the operating system when none was given. */
int cli_ask_init(cli_ask *ask, cli_app *app, const sllm_model *model, const cli_sampling_values *sampling,
                 const cli_answer_values *answer);
void cli_ask_free(cli_ask *ask);
/* The answer ended because the context was full, not because max_new_tokens was reached. cli_ask_run says so on
 * standard error. */
bool cli_context_is_full(const sllm_generate_params *params, const sllm_generation *answer);
/* What an answer is, as members of a JSON object under construction: text, how it ended, choices, tokens, seed. The
 * same bytes whenever the answer is: nothing of how long it took or what was reused. */
void cli_put_answer(sl_buffer *out, const sllm_generate_params *params, const sllm_generation *answer);

/* Generates after ids, writing the text as it comes, and ends it with a newline. Returns the exit status:
 * CLI_INTERRUPTED after Ctrl-C (*out holds what was made so far). The caller frees *out. */
int cli_ask_run(cli_ask *ask, sllm_session *session, const sllm_tokens *tokens, sllm_generation *out);

/* The list of --choices: "a,b,c"; a comma that belongs to a choice is written "\,". Free with cli_choices_free. */
typedef struct cli_choices {
    char **items; /* [n] */
    size_t n;
} cli_choices;
int cli_choices_split(cli_app *app, const char *list, cli_choices *choices);
void cli_choices_free(cli_choices *choices);

/* The small model of --draft with its session; empty without. */
typedef struct cli_draft {
    sllm_model *model;
    sllm_session *session;
} cli_draft;
/* Loads what --draft names, checks that it has the vocabulary of `model`, and gives it a session as long as
 * `session`. */
int cli_draft_load(cli_app *app, const cli_speculation_values *values, const cli_model_values *how,
                   const sllm_model *model, const sllm_session *session, cli_draft *draft);
void cli_draft_free(cli_draft *draft);
void cli_speculate(const cli_speculation_values *values, const cli_draft *draft, sllm_generate_params *params);

/* Messages as a JSON array under construction: {"role": role, "content": text}. */
void cli_message_add(sl_buffer *messages, const char *role, const char *text, size_t length);
/* What --template-arg and --reasoning off say to sllm_template_render: an object, appended to out. */
int cli_template_options(cli_app *app, const cli_answer_values *values, sl_buffer *out);
/* Renders messages (a whole JSON array) with the model's chat template and tokenises the text. A model without one is
 * a failure that names --raw. The caller frees *tokens. */
int cli_render_chat(cli_app *app, const sllm_model *model, const char *messages, const cli_answer_values *values,
                    sllm_tokens *tokens);

#endif
