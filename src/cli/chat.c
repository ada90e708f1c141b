/* sllm chat: a conversation. The session keeps what it computed, so a turn costs its own tokens only. */
#include "cli/chat.h"

#include "cli/answer.h"
#include "cli/commands.h"

#include "base/arena.h"
#include "base/file.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_values {
    cli_answer_values answer;
    cli_sampling_values sampling;
    cli_speculation_values speculation;
    cli_model_values model;
    const char *load;
} chat_values;

typedef struct chat {
    cli_app *app;
    const char *name;   /* MODEL as given */
    chat_values values; /* a copy that /set changes */
    sl_arena kept;      /* strings that /set put into values */
    sllm_model *model;
    sllm_session *session;
    cli_draft draft;
    cli_log log;
    const char *file;   /* where log was last loaded from or saved to, in kept; or NULL */
    cli_line_source *lines;
    bool quit, failed;  /* failed: some turn or command did, which a script wants to know */
    uint64_t seed;      /* of the next answer; counts up so that /regen gives another text */
    struct {
        size_t turns, prompt, reused, completion, proposed, accepted;
        double first_s, per_second;
    } stats; /* turns: answers so far; the others of the last one */
} chat;

/* ---------------------------------------------------------------- turns */

static const char context_hint[] =
    "/undo drops the last turn, --ctx N gives more room, /set overflow shift forgets the oldest";

static void keep_stats(chat *c, const sllm_generation *answer) {
    c->stats.turns++;
    c->stats.prompt = answer->prompt_tokens;
    c->stats.reused = answer->reused_tokens;
    c->stats.completion = answer->completion_tokens;
    c->stats.proposed = answer->proposed_tokens;
    c->stats.accepted = answer->accepted_tokens;
    c->stats.first_s = answer->time_to_first_token_s;
    c->stats.per_second = answer->tokens_per_second;
    if (answer->dropped_tokens)
        fprintf(stderr, "sllm: chat: dropped %zu of the oldest tokens to fit the context\n", answer->dropped_tokens);
}

static int generate(chat *c, const sllm_tokens *tokens, sllm_generation *answer) {
    cli_ask ask;
    int status = cli_ask_init(&ask, c->app, c->model, &c->values.sampling, &c->values.answer);
    ask.context_hint = context_hint;
    ask.params.sampler.seed = c->seed;
    cli_speculate(&c->values.speculation, &c->draft, &ask.params);
    if (!status) status = cli_ask_run(&ask, c->session, tokens, answer);
    if (!status || status == CLI_INTERRUPTED) c->seed++;
    cli_ask_free(&ask);
    return status;
}

/* Answers the log, which ends with the user's message, and appends the answer. An interrupt ends the answer, and what
 * was said so far stays in the conversation. False: nothing was appended. */
static bool answer_turn(chat *c) {
    sl_buffer messages = {0};
    sllm_tokens tokens = {0};
    sllm_generation answer = {0};
    bool added = false;
    cli_log_write(&c->log, &messages);
    int status = messages.failed ? cli_failure(c->app, "out of memory") : CLI_OK;
    if (!status) status = cli_render_chat(c->app, c->model, messages.data, &c->values.answer, &tokens);
    if (!status) status = generate(c, &tokens, &answer);
    if (!status || (status == CLI_INTERRUPTED && answer.text_length)) {
        keep_stats(c, &answer);
        added = cli_log_add(&c->log, "assistant", answer.text, answer.text_length, answer.reasoning);
        if (!added) cli_failure(c->app, "out of memory");
    } else if (status != CLI_INTERRUPTED) {
        c->failed = true;
    }
    cli_interrupt_clear();
    sllm_generation_free(&answer);
    sllm_tokens_free(&tokens);
    sl_buffer_free(&messages);
    return added;
}

static void user_turn(chat *c, const char *text, size_t length) {
    if (cli_check_utf8(c->app, "the message", text, length)) {
        c->failed = true;
        return;
    }
    if (!cli_log_add(&c->log, "user", text, length, NULL)) {
        c->failed = cli_failure(c->app, "out of memory") != CLI_OK;
        return;
    }
    if (!answer_turn(c)) cli_log_drop(&c->log); /* the conversation stays as it was */
}

/* ---------------------------------------------------------------- commands */

static int do_system(chat *c, const char *text) {
    int status = cli_check_utf8(c->app, "the system message", text, strlen(text));
    if (!status && !cli_log_set_system(&c->log, text)) status = cli_failure(c->app, "out of memory");
    return status;
}

static int do_undo(chat *c, const char *text) {
    (void)text;
    size_t n = c->log.n;
    while (n && strcmp(c->log.messages[n - 1].role, "user") != 0) n--;
    if (n == 0) return cli_failure(c->app, "/undo: there is no turn to undo");
    while (c->log.n >= n) cli_log_drop(&c->log);
    return CLI_OK;
}

static int do_regen(chat *c, const char *text) {
    (void)text;
    if (!cli_log_ends_with(&c->log, "assistant"))
        return cli_failure(c->app, "/regen: there is no answer to make again");
    struct cli_log_message old = c->log.messages[--c->log.n];
    if (answer_turn(c)) free(old.json);
    else c->log.messages[c->log.n++] = old; /* the array did not shrink: there is room for the old answer */
    return CLI_OK;
}

/* The file that the conversation was last loaded from or saved to may be overwritten without asking. */
static void keep_file(chat *c, const char *path) {
    char *copy = sl_arena_copy(&c->kept, path, strlen(path));
    if (copy) c->file = copy; /* without memory the next /save asks for /save! */
}

static int save(chat *c, const char *path, bool may_overwrite) {
    if (!*path) return cli_failure(c->app, "/save FILE: give the file's name");
    if (!c->log.n) return cli_failure(c->app, "/save %s: there is no message to save yet", path);
    if (!may_overwrite && sl_path_is_file(path) && (!c->file || strcmp(c->file, path) != 0))
        return cli_failure(c->app, "/save %s: the file exists; /save! %s overwrites it", path, path);
    int status = cli_log_save(c->app, &c->log, path);
    if (status) return status;
    keep_file(c, path);
    /* standard output holds the answers alone, which a script reads */
    fprintf(stderr, "sllm: chat: saved %zu message%s to %s\n", c->log.n, c->log.n == 1 ? "" : "s", path);
    return CLI_OK;
}

static int do_save(chat *c, const char *text) {
    return save(c, text, false);
}

static int do_overwrite(chat *c, const char *text) {
    return save(c, text, true);
}

static int do_load(chat *c, const char *text) {
    if (!*text) return cli_failure(c->app, "/load FILE: give the file's name");
    int status = cli_log_load(c->app, &c->log, text);
    if (status) return status;
    keep_file(c, text);
    if (c->lines) cli_printf(c->app, "loaded %zu message%s\n", c->log.n, c->log.n == 1 ? "" : "s");
    return CLI_OK;
}

static int do_stats(chat *c, const char *text) {
    (void)text;
    cli_printf(c->app, "%zu answers, %zu messages, %zu of %zu positions used\n", c->stats.turns, c->log.n,
               sllm_session_length(c->session), sllm_session_capacity(c->session));
    if (c->stats.turns)
        cli_printf(c->app, "last: %zu prompt tokens (%zu reused), %zu new, first after %.3f s, then %.1f tokens/s\n",
                   c->stats.prompt, c->stats.reused, c->stats.completion, c->stats.first_s, c->stats.per_second);
    if (c->stats.proposed)
        cli_printf(c->app, "guesses: %zu, %zu of them right\n", c->stats.proposed, c->stats.accepted);
    return CLI_OK;
}

static bool in_table(const cli_option *options, const char *name) {
    for (; options->name; options++)
        if (!strcmp(options->name, name)) return true;
    return false;
}

/* Puts the options back as they were before a refused value. Lists may have moved: they keep their place and lose the
 * new item. */
static void restore_values(chat *c, const chat_values *before) {
    chat_values now = c->values;
    c->values = *before;
    c->values.answer.stop.items = now.answer.stop.items;
    c->values.answer.template_args.items = now.answer.template_args.items;
    c->values.sampling.logit_bias.items = now.sampling.logit_bias.items;
}

static int do_set(chat *c, const char *text) {
    size_t length = strcspn(text, " ="), skip = length + strspn(text + length, " =");
    char *name = sl_arena_copy(&c->kept, text, length),
         *value = sl_arena_copy(&c->kept, text + skip, strlen(text + skip));
    chat_values before = c->values;
    cli_ask ask;
    if (!name || !value) return cli_failure(c->app, "out of memory");
    if (!*name || !*value)
        return cli_failure(c->app, "/set KEY VALUE: KEY is an option's name, as in /set temperature 0.2");
    if (!strcmp(name, "system")) return do_system(c, value);
    if (in_table(cli_model_options, name) || !strcmp(name, "load") || !strcmp(name, "draft"))
        return cli_failure(c->app, "/set %s: takes effect at the start only; leave and give --%s", name, name);
    if (cli_option_set(c->app, name, value, &c->values)) return CLI_FAILURE;
    int status = cli_ask_init(&ask, c->app, c->model, &c->values.sampling, &c->values.answer);
    cli_ask_free(&ask);
    if (status) restore_values(c, &before);
    if (!status && c->values.sampling.seed.given && !strcmp(name, "seed")) c->seed = c->values.sampling.seed.value;
    return status;
}

static int do_quit(chat *c, const char *text) {
    (void)text;
    c->quit = true;
    return CLI_OK;
}

static int do_help(chat *c, const char *text);

static const struct chat_command {
    const char *name, *argument, *help;
    int (*run)(chat *c, const char *text);
} chat_commands[] = {
    {"/system", "TEXT", "set the system message; without TEXT remove it", do_system},
    {"/undo", "", "drop the last turn", do_undo},
    {"/regen", "", "answer the last message again", do_regen},
    {"/save", "FILE", "write the conversation as JSON; another file that exists stays", do_save},
    {"/save!", "FILE", "the same, overwriting FILE", do_overwrite},
    {"/load", "FILE", "continue a saved conversation", do_load},
    {"/stats", "", "tokens, speed and room left", do_stats},
    {"/set", "KEY VALUE", "change an option: /set temperature 0.2", do_set},
    {"/help", "", "this list", do_help},
    {"/quit", "", "leave, as Ctrl-D does", do_quit},
};
enum { N_CHAT_COMMANDS = sizeof chat_commands / sizeof *chat_commands };

static int do_help(chat *c, const char *text) {
    (void)text;
    for (size_t i = 0; i < N_CHAT_COMMANDS; i++)
        cli_printf(c->app, "%-8s%-10s %s\n", chat_commands[i].name, chat_commands[i].argument, chat_commands[i].help);
    cli_printf(c->app,
               "A backslash at the end continues on the next line; \"\"\" begins and ends several lines; // writes a\n"
               "message that begins with /. Ctrl-C stops the answer.\n");
    return CLI_OK;
}

static int run_chat_command(chat *c, const char *line) {
    size_t length = strcspn(line, " \n");
    const char *names[N_CHAT_COMMANDS];
    char given[64];
    for (size_t i = 0; i < N_CHAT_COMMANDS; i++) {
        names[i] = chat_commands[i].name;
        if (strlen(names[i]) == length && !memcmp(names[i], line, length))
            return chat_commands[i].run(c, line + length + strspn(line + length, " \n"));
    }
    snprintf(given, sizeof given, "%.*s", (int)(length < sizeof given ? length : sizeof given - 1), line);
    const char *nearest = cli_nearest(given, names, N_CHAT_COMMANDS);
    if (nearest) return cli_failure(c->app, "no command %s; did you mean %s?", given, nearest);
    return cli_failure(c->app, "no command %s; /help lists them (// sends a message that begins with /)", given);
}

/* ---------------------------------------------------------------- the loop */

static void handle_line(chat *c, const sl_buffer *text) {
    const char *line = text->data;
    size_t length = text->length;
    if (length == 0) return;
    if (line[0] == '/' && (length < 2 || line[1] != '/')) {
        if (run_chat_command(c, line)) c->failed = true;
        cli_write(c->app, "", 0);
        return;
    }
    if (line[0] == '/') line++, length--;
    user_turn(c, line, length);
}

static int talk(chat *c) {
    sl_buffer text = {0};
    int status = CLI_OK;
    while (!c->quit && !status && !c->app->output_errno) {
        cli_line got = cli_line_read(c->lines, &text);
        if (got == CLI_LINE_END) break;
        if (got == CLI_LINE_FAILED) status = cli_interrupted() ? CLI_INTERRUPTED : CLI_FAILURE;
        if (got == CLI_LINE_TEXT) handle_line(c, &text);
    }
    sl_buffer_free(&text);
    return status;
}

static int prepare(chat *c) {
    sllm_error error = {0};
    sllm_session_params params = {.n_ctx = c->values.model.ctx, .kv_type = (sllm_kv_type)c->values.model.kv_type};
    sllm_model_info info;
    cli_ask ask = {0};
    int status = cli_load(c->app, c->name, &c->values.model, false, &c->model);
    if (status) return status;
    sllm_model_get_info(c->model, &info);
    if (!info.has_template)
        return cli_failure(
            c->app, "%s has no chat template (a base model?); `sllm run --raw` continues a text as it stands", c->name);
    status = cli_ask_init(&ask, c->app, c->model, &c->values.sampling, &c->values.answer);
    c->seed = ask.params.sampler.seed;
    cli_ask_free(&ask);
    if (!status && sllm_session_new(c->model, &params, &c->session, &error)) status = cli_error(c->app, &error);
    if (!status)
        status = cli_draft_load(c->app, &c->values.speculation, &c->values.model, c->model, c->session, &c->draft);
    if (!status && c->values.load) status = cli_log_load(c->app, &c->log, c->values.load);
    if (!status && c->values.load) keep_file(c, c->values.load);
    if (!status && c->values.answer.system) status = do_system(c, c->values.answer.system);
    if (!status) c->lines = cli_line_open(c->app);
    return status || c->lines ? status : CLI_FAILURE;
}

static int run_chat(cli_app *app, const void *given, int n_arguments, char **arguments) {
    chat c = {.app = app, .name = arguments[0]};
    (void)n_arguments;
    bool interactive = app->stdin_is_terminal && app->stdout_is_terminal;
    int status = CLI_FAILURE;
    cli_interrupt_watch();
    if (!cli_values_copy(app->command, given, &c.values)) cli_failure(app, "out of memory");
    else status = prepare(&c);
    if (!status && interactive)
        cli_printf(app, "%s, context %zu. /help lists the commands, Ctrl-D leaves.\n", c.name,
                   sllm_session_capacity(c.session));
    if (!status) cli_write(app, "", 0);
    if (!status) status = talk(&c);
    if (!status && c.failed && !interactive) status = CLI_FAILURE;
    cli_line_close(c.lines);
    cli_log_free(&c.log);
    sllm_session_free(c.session);
    cli_draft_free(&c.draft);
    sllm_model_free(c.model);
    cli_values_free(app->command, &c.values);
    sl_arena_free(&c.kept);
    return status;
}

static const cli_option chat_options[] = {
    {"load", 'l', CLI_TEXT, "FILE", .offset = offsetof(chat_values, load),
     .help = "Continue a saved conversation: {\"messages\": [...]} or a bare array in the OpenAI form"},
    {0},
};

static const cli_group chat_groups[] = {
    {"Conversation", chat_options, 0},
    {"Answer", cli_answer_options, offsetof(chat_values, answer)},
    {"Sampling", cli_sampling_options, offsetof(chat_values, sampling)},
    {"Speculation", cli_speculation_options, offsetof(chat_values, speculation)},
    {"Model", cli_model_options, offsetof(chat_values, model)},
    {0},
};

const cli_command cli_command_chat = {
    .name = "chat",
    .arguments = "MODEL",
    .summary = "Talk with a model, turn by turn",
    .details =
        "Ctrl-C stops the answer, not the program; at the prompt it drops the line, and twice on an empty "
        "line it leaves, as Ctrl-D and /quit do. Commands: /system TEXT, /undo, /regen, /save FILE (/save! "
        "FILE overwrites), /load FILE, /stats, /set KEY VALUE (any option of "
        "Answer, Sampling and Speculation), /help. A backslash at the end of a "
        "line continues it; \"\"\" begins and ends a message of several lines; // begins a message that "
        "starts with a slash.\n\n"
        "Without a terminal each line of standard input is a message or a command; the exit status is then 1 "
        "when any of them failed. The history of typed lines is kept in the cache folder, readable by its "
        "owner only.",
    .groups = chat_groups,
    .values_size = sizeof(chat_values),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_chat,
};
