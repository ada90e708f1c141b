/* The command line: what every subcommand shares.
 *
 * Two tables drive it. A command is one row of `cli_commands` (commands.c); an option is one row of a `cli_option`
 * table beside the command that reads it. From these rows come the parser, validation, `--help`, the man page and
 * docs/cli.md, so none of them can disagree with another.
 *
 * A command owns a struct of values. Its option groups say at which offset their fields lie, so that a group (sampling,
 * model loading) can be shared by commands whose structs embed the group's struct.
 *
 * Exit status: CLI_OK, CLI_FAILURE, CLI_USAGE, CLI_INTERRUPTED. Every failure prints one line on standard error,
 * "sllm: COMMAND: what, where, what would work". Only main.c reads the environment.
 */
#ifndef SLLM_CLI_H
#define SLLM_CLI_H

#include "base/buffer.h"
#include "sllm.h"
#include "sllm_hub.h"

#include <stdio.h>
#include <sys/types.h>

enum { CLI_OK = 0, CLI_FAILURE = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

/* ---------------------------------------------------------------- option tables */

typedef enum cli_kind {
    CLI_FLAG,  /* bool; takes no value */
    CLI_INT,   /* int */
    CLI_FLOAT, /* float */
    CLI_SEED,  /* cli_seed, 0 to 2^64-1, and whether it was given */
    CLI_TEXT,  /* const char *, NULL when neither given nor defaulted */
    CLI_TEXTS, /* cli_texts: may be given many times */
    CLI_WORD   /* int: index into `words` */
} cli_kind;

typedef struct cli_seed {
    bool given;
    uint64_t value;
} cli_seed;

typedef struct cli_texts {
    const char **items; /* [n], in the order given; the strings are argv's */
    size_t n;
} cli_texts;

typedef struct cli_option {
    const char *name; /* "top-k" for --top-k; NULL ends a table */
    char letter;      /* 't' for -t; 0: none */
    cli_kind kind;
    const char *argument;     /* what the help calls the value: "N", "FILE"; NULL for flags and words */
    const char *fallback;     /* default, parsed like a given value; NULL: zero, false or NULL */
    double min, max;          /* numbers only, inclusive unless said otherwise below; both 0: any */
    bool min_open, max_open;  /* min, max themselves are excluded */
    const char *const *words; /* CLI_WORD: the values allowed, NULL-terminated */
    const char *help;         /* one sentence or two, no final stop */
    size_t offset;            /* of the field in the group's struct */
} cli_option;

typedef struct cli_group {
    const char *title;         /* heading in the help: "Sampling" */
    const cli_option *options; /* ends with name NULL; a group with options NULL ends a list of groups */
    size_t offset;             /* of the group's struct in the command's values */
} cli_group;

/* ---------------------------------------------------------------- commands */

typedef struct cli_app cli_app;

typedef struct cli_command {
    const char *name;
    const char *arguments; /* usage after the options: "MODEL [PROMPT]"; NULL: none */
    const char *summary;   /* one line for the list of commands */
    const char *details;   /* paragraphs for `sllm help NAME`, separated by blank lines; may be NULL */
    const cli_group *groups; /* NULL: no options but --help */
    size_t values_size;      /* of the struct handed to `run` */
    int min_arguments, max_arguments; /* max -1: any number */
    /* Returns the exit status. Whatever it printed on standard output is flushed and checked by the caller. */
    int (*run)(cli_app *app, const void *values, int n_arguments, char **arguments);
} cli_command;

extern const cli_command *const cli_commands[]; /* NULL-terminated, in the order of the help */
const cli_command *cli_command_find(const char *name);

/* What main.c found in the environment, and the command that runs. */
struct cli_app {
    const cli_command *command; /* NULL while none is chosen */
    const char *cache_dir;      /* $XDG_CACHE_HOME/sllm or ~/.cache/sllm; NULL when neither variable is set */
    const char *models_dir;     /* cache_dir/models; NULL likewise */
    int columns;                /* width of the terminal, 80 when unknown */
    bool colour;                /* standard output is a terminal and NO_COLOR is not set */
    bool stdin_is_terminal, stdout_is_terminal, stderr_is_terminal;
    int output_errno;           /* first failure to write to standard output, 0: none */
};

/* ---------------------------------------------------------------- parsing (options.c) */

/* Parses argv[0..argc) against the command's table into values (zeroed, then defaults, then what is given). Arguments
 * that are not options are collected in arguments [argc], their number in *n_arguments; "--" ends the options.
 * CLI_OK, or CLI_USAGE after printing the one line that says what is wrong. *help: --help or -h was there. */
int cli_parse(cli_app *app, int argc, char **argv, void *values, char **arguments, int *n_arguments, bool *help);
/* Sets one option of the running command by name, as `--name text` would; flags take on or off. `text` is borrowed by
 * values of kind CLI_TEXT and CLI_TEXTS. CLI_OK, or CLI_USAGE after printing what is wrong. */
int cli_option_set(const cli_app *app, const char *name, const char *text, void *values);
/* Copies values into `to` (values_size bytes) with lists of its own, so that cli_option_set may change the copy.
 * False: out of memory; `to` may then be given to cli_values_free all the same. */
bool cli_values_copy(const cli_command *command, const void *values, void *to);
/* Frees what cli_parse or cli_values_copy allocated inside values. */
void cli_values_free(const cli_command *command, void *values);
/* The range an option takes in words, "" when there is none: "from 0 to 1", "above 0". */
void cli_option_range(const cli_option *option, char *out, size_t size);
/* The command's usage: "sllm run [options] MODEL [PROMPT]". */
void cli_command_usage(const cli_command *command, char *out, size_t size);
/* The nearest of names [n] to `name` (Damerau-Levenshtein), or NULL when none is near enough to be meant. */
const char *cli_nearest(const char *name, const char *const *names, size_t n);

/* ---------------------------------------------------------------- help (help.c) */

void cli_help_all(const cli_app *app, FILE *out);
void cli_help_command(const cli_app *app, const cli_command *command, FILE *out);
void cli_help_markdown(FILE *out); /* docs/cli.md */
void cli_help_man(FILE *out);      /* sllm.1 */

/* ---------------------------------------------------------------- output and errors (output.c) */

/* Prints "sllm: COMMAND: message" (one line; control characters of the message are escaped) and returns CLI_USAGE or
 * CLI_FAILURE. */
int cli_usage(const cli_app *app, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_failure(const cli_app *app, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for an error of the library: CLI_INTERRUPTED when it was cancelled by an interrupt, CLI_USAGE when a
 * parameter was out of range (SLLM_ERROR_ARGUMENT), CLI_FAILURE otherwise. */
int cli_error(const cli_app *app, const sllm_error *error);

/* Writes to standard output and flushes. False when that failed (closed pipe, full disk): stop working then; the end of
 * main reports it and makes the exit status CLI_FAILURE (quietly for a closed pipe). */
bool cli_write(cli_app *app, const char *text, size_t length);
/* printf to standard output, unflushed. */
void cli_printf(cli_app *app, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Writes a buffer and a newline, frees it; CLI_FAILURE with its line when memory ran out while it was filled. */
int cli_put_json(cli_app *app, sl_buffer *json);
/* Flushes standard output; the exit status to use in place of `status`. */
int cli_finish_output(cli_app *app, int status);
/* Text for a terminal: control characters other than newline and tab are written \xNN. */
void cli_print_safe(cli_app *app, const char *text, size_t length);
/* "98.4 MB" (powers of ten, as file managers and download pages count). */
void cli_format_bytes(uint64_t bytes, char out[32]);
/* The way back, for options: "3.2GB" (powers of ten), "900 MiB" (of two), "1000000". False: no size. */
bool cli_parse_bytes(const char *text, uint64_t *bytes);

/* ---------------------------------------------------------------- interrupts (interrupt.c) */

/* From here on Ctrl-C sets a flag instead of killing; a second one kills. */
void cli_interrupt_watch(void);
/* The same for SIGTERM and SIGHUP too: commands that have unfinished files to take care of. */
void cli_termination_watch(void);
/* 128 + the signal's number, as shells say it: the exit status of a command that was interrupted. */
int cli_interrupt_status(void);
bool cli_interrupted(void);
void cli_interrupt_clear(void); /* forgets the first Ctrl-C, so that the next sets the flag again */

/* ---------------------------------------------------------------- models (load.c) */

/* Options of every command that loads weights. */
typedef struct cli_model_values {
    int threads, ctx;
    int kv_type; /* sllm_kv_type */
    int load_in; /* sllm_four_bit */
    bool exact, pull, double_quant, any_base;
    cli_texts adapters; /* FOLDER or FOLDER=WEIGHT */
} cli_model_values;
extern const char *const cli_kv_types[]; /* words of --kv-type, as sllm_kv_type */
extern const cli_option cli_model_options[];

/* Parameters for sllm_hub_open that this machine's environment gives: cache, progress on standard error. Strings are
 * borrowed from app. CLI_FAILURE with its line when there is no place for the cache. */
int cli_hub_params(cli_app *app, sllm_hub_params *params);
/* MODEL into a path that sllm_model_load takes. `pull`: download it when it is a name not in the cache; without it that
 * is an error saying `sllm pull NAME`. The caller frees *path with sllm_free. */
int cli_resolve(cli_app *app, const char *name, bool pull, char **path);
/* What else will take memory once a model computes. */
typedef struct cli_beside {
    int n_sequences; /* that it computes at once; 0: 1 */
    uint64_t bytes;  /* of another model, which is loaded and has not been used yet */
} cli_beside;

/* Resolves and loads. values NULL (vocabulary only) or the command's. A model that will not fit the memory that is free
 * is refused. */
int cli_load_beside(cli_app *app, const char *name, const cli_model_values *values, const cli_beside *beside,
                    sllm_model **model);
int cli_load(cli_app *app, const char *name, const cli_model_values *values, bool vocab_only, sllm_model **model);

/* A tensor file by path; a name that is no path is resolved as a MODEL. */
int cli_open_tensors(cli_app *app, const char *name, sllm_tensor_file **file);
/* "[49152, 576]" */
void cli_format_shape(const sllm_tensor_info *info, char out[160]);
/* Whether read_f32 (true) or read_i64 (false) reads this type. */
bool cli_is_float_type(const char *type);

/* ---------------------------------------------------------------- input (input.c) */

/* Reads a whole file ("-": standard input) of at most 256 MiB into *buffer. CLI_OK or CLI_FAILURE with its line. */
int cli_read_file(cli_app *app, const char *path, sl_buffer *buffer);
/* read(2) that waits for input and returns -1 with errno EINTR once Ctrl-C was pressed (cli_interrupted). */
ssize_t cli_read(int fd, void *bytes, size_t size);

/* Lines of a file descriptor. Initialise with {.fd = ...}. */
typedef struct cli_reader {
    int fd;
    size_t at, end; /* bytes[at, end) are read but not given out */
    char bytes[16384];
} cli_reader;

/* The next line without its newline into *line (emptied first). 1: a line, 0: the end, -1: failed, its line printed. A
 * line longer than 64 MiB is a failure. `what` names the source in messages. */
int cli_read_line(cli_app *app, cli_reader *reader, const char *what, sl_buffer *line);
/* Does the file's name say that it holds a JSON value a line? */
bool cli_is_jsonl(const char *path);
/* CLI_OK when text is UTF-8; otherwise CLI_FAILURE after saying at which byte of `what` it is not. */
int cli_check_utf8(cli_app *app, const char *what, const char *text, size_t length);

#endif
