/* The parts of `sllm chat`: where lines come from (chat_line.c) and the conversation (chat_log.c). */
#ifndef SLLM_CLI_CHAT_H
#define SLLM_CLI_CHAT_H

#include "cli/cli.h"

/* ---------------------------------------------------------------- lines */

typedef struct cli_line_source cli_line_source;

typedef enum cli_line {
    CLI_LINE_TEXT,      /* a message, perhaps of several lines */
    CLI_LINE_CANCELLED, /* Ctrl-C at the prompt: what was typed is dropped */
    CLI_LINE_END,       /* Ctrl-D, Ctrl-C twice, the end of the pipe */
    CLI_LINE_FAILED     /* its line is printed */
} cli_line;

/* With line editing and history (cache_dir/chat_history, mode 0600) when standard input and output are terminals;
 * otherwise plain lines. NULL after printing why. */
cli_line_source *cli_line_open(cli_app *app);
void cli_line_close(cli_line_source *source);
/* Reads the next message into *text (emptied first). A trailing backslash continues on the next line; lines between
 * """ and """ are one message. */
cli_line cli_line_read(cli_line_source *source, sl_buffer *text);

/* ---------------------------------------------------------------- the conversation */

/* Messages in the OpenAI form, each kept as its JSON text so that what was loaded is saved and rendered unchanged. */
typedef struct cli_log {
    struct cli_log_message {
        char *json;
        char role[16];
    } *messages; /* [n] */
    size_t n;
} cli_log;

void cli_log_free(cli_log *log);
/* Appends {"role", "content"}, and "reasoning_content" unless reasoning is NULL. False: out of memory. */
bool cli_log_add(cli_log *log, const char *role, const char *text, size_t length, const char *reasoning);
/* Makes `text` the system message at the beginning; an empty text removes it. False: out of memory. */
bool cli_log_set_system(cli_log *log, const char *text);
/* True when the last message has this role. */
bool cli_log_ends_with(const cli_log *log, const char *role);
/* Removes and frees the last message. */
void cli_log_drop(cli_log *log);
/* The JSON array of all messages, appended to out. */
void cli_log_write(const cli_log *log, sl_buffer *out);
/* {"messages": [...]} through a temporary file. */
int cli_log_save(cli_app *app, const cli_log *log, const char *path);
/* Replaces the log by the file's messages: an object with "messages" or a bare array. Every message is checked; an
 * error names the place in the file ("/messages/3/role") and leaves the log as it was. */
int cli_log_load(cli_app *app, cli_log *log, const char *path);

#endif
