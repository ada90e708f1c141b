/* The parts of `sllm batch`: what a line asks for (batch_line.c), and the two files, of which the one that is written
 * can be continued (batch_file.c). */
#ifndef SLLM_CLI_BATCH_H
#define SLLM_CLI_BATCH_H

#include "cli/cli.h"
#include "cli/prompt.h"

#include "base/arena.h"

/* ---------------------------------------------------------------- lines */

/* What holds for every line. All borrowed. */
typedef struct cli_batch_defaults {
    sllm_generate_params params;
    const cli_form *form; /* the prompt file; NULL: lines bring their prompts */
    const char *system;   /* --system, or NULL */
    const char *examples; /* few-shot turns as items of a JSON array, "" when there are none */
    bool raw;             /* prompts are texts, not conversations */
    int n_vocab;
} cli_batch_defaults;

/* What one line asks for. */
typedef struct cli_batch_line {
    sl_arena arena;     /* holds what params points to, and id */
    const char *id;     /* the line's "id" as JSON text, NULL: none */
    sl_buffer prompt;   /* raw: the text; else the messages, a JSON array */
    sllm_generate_params params;
} cli_batch_line;

/* Reads text [length], one line of the input. The message of an error names the field as a JSON pointer. *line must be
 * freed in any case; its id is there also after an error, when the line had one. */
sllm_status cli_batch_line_read(const cli_batch_defaults *defaults, const char *text, size_t length,
                                cli_batch_line *line, sllm_error *error);
void cli_batch_line_free(cli_batch_line *line);
/* Whether a field of this name sets something, so that no slot may be called so. */
bool cli_batch_is_parameter(const char *name, size_t length);

/* ---------------------------------------------------------------- the input */

/* A file, which is read as it goes, or what a pipe holds. */
typedef struct cli_batch_input {
    cli_app *app;
    const char *name;
    cli_reader reader;
    sl_buffer piped;   /* all of a pipe */
    size_t at;         /* in piped */
    bool is_piped;
    uint64_t size;     /* of a file, when its lines were counted */
    size_t n_lines, n_given;
    char sha256[65];
} cli_batch_input;

/* path "-": standard input. Counts the lines. Both return an exit status; the close is needed only after CLI_OK. */
int cli_batch_input_open(cli_app *app, const char *path, cli_batch_input *input);
void cli_batch_input_close(cli_batch_input *input);
/* The next line, as cli_read_line; never more than were counted, and fewer are a failure: the file was changed. */
int cli_batch_input_next(cli_batch_input *input, sl_buffer *line);
/* At the end: fails when the file is not as long as it was, so that what was answered is not what it holds. */
int cli_batch_input_check(const cli_batch_input *input);

/* ---------------------------------------------------------------- the output */

/* A line out for every line in, in their order. Beside a regular file PATH stands PATH.state, which says what it
 * answers: the input's SHA-256, the model, the options, the seed. */
typedef struct cli_batch_output {
    cli_app *app;
    const char *path;
    int fd;            /* -1: standard output */
    bool continues;    /* a regular file, which can be gone on with; else a pipe or a device */
    size_t n_lines;    /* there already, complete */
    size_t n_errors;   /* of these */
} cli_batch_output;

/* Opens path ("-": standard output; of a pipe it waits for the reader) and leaves only complete lines in it. identity: an
 * object of strings; when the file holds something, each must be the one it was made with, and *seed becomes that one's
 * unless seed_given. `restart` empties the file instead. */
int cli_batch_output_open(cli_app *app, const char *path, const cli_batch_input *input, const sl_buffer *identity,
                          bool restart, bool seed_given, uint64_t *seed, cli_batch_output *output);
/* Writes one whole line, text [length] with its newline, through to the operating system. */
int cli_batch_output_write(cli_batch_output *output, const char *text, size_t length);
/* The exit status to use in place of `status`: the file is brought to the disk. */
int cli_batch_output_close(cli_batch_output *output, int status);

#endif
