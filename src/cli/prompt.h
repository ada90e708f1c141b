/* The prompt of `sllm run`: argument, pipe, prompt file with slots, few-shot examples. */
#ifndef SLLM_CLI_PROMPT_H
#define SLLM_CLI_PROMPT_H

#include "cli/cli.h"

typedef struct cli_prompt_values {
    const char *file, *examples;
    cli_texts set;
    bool wait;
} cli_prompt_values;
extern const cli_option cli_prompt_options[];

/* A prompt file's text in pieces: what stands as it is, and slots, whose text is the key. Pieces point into the
 * text. */
typedef struct cli_piece {
    const char *text;
    size_t length;
    int line; /* of a slot */
    bool slot;
} cli_piece;
typedef struct cli_form {
    const char *file; /* its name, for messages */
    cli_piece *pieces; /* [n] */
    size_t n;
} cli_form;
/* A {{ that is no slot is a failure that names its line. Free with cli_form_free, which takes a zeroed one too. */
int cli_form_parse(cli_app *app, const char *file, const char *text, size_t length, cli_form *form);
void cli_form_free(cli_form *form);
bool cli_form_has_slot(const cli_form *form, const char *key, size_t length);

/* Fills the slots {{key}} of a prompt file's text from `values` [n] of "key=value". `\{{` writes `{{` itself. A slot
 * without a value, a value without a slot, and a {{ that no slot follows are errors that name line and key. Values are
 * put in as they are: braces in a value are not slots. */
int cli_prompt_fill(cli_app *app, const char *file, const char *text, size_t length, const char *const *values,
                    size_t n, sl_buffer *out);

/* The user's text: the filled prompt file or the argument (NULL: none), and after a blank line what standard input
 * holds when it is a pipe or a file. One newline at the end of the pipe is dropped. With an argument or a prompt file
 * the first byte of a pipe is waited for 10 s only, and said so (a program started by another often inherits a pipe
 * that nobody writes to or closes); --stdin waits as long as it takes. Empty is a usage error. */
int cli_prompt_read(cli_app *app, const cli_prompt_values *values, const char *argument, sl_buffer *prompt);

/* Appends the turns of --examples to messages: each line {"input": TEXT, "output": TEXT}, or, with a prompt file,
 * {"set": {KEY: TEXT, ...}, "output": TEXT} whose user turn is the prompt file filled with these values. */
int cli_prompt_examples(cli_app *app, const cli_prompt_values *values, sl_buffer *messages);

#endif
