/* What the commands about models share: options that say where models come from, opening the hub, and tables. */
#ifndef SLLM_CLI_HUB_H
#define SLLM_CLI_HUB_H

#include "cli/cli.h"

#include "base/json.h"

typedef struct cli_hub_values {
    const char *cache, *catalogue;
    bool json;
} cli_hub_values;
extern const cli_option cli_hub_options[]; /* --cache, --catalogue, --json */

typedef struct cli_source_values {
    const char *endpoint, *token_file, *python;
    int retries, stall;
} cli_source_values;
extern const cli_option cli_source_options[]; /* --endpoint, --token-file, --python, --retries, --stall */

/* Opens the hub as the options say (source may be NULL) and watches for Ctrl-C. CLI_OK, or the exit status after its
 * line was printed. */
int cli_hub_open(cli_app *app, const cli_hub_values *values, const cli_source_values *source, sllm_hub **hub);

/* cli_error after ending the line of a progress display. */
int cli_hub_error(const cli_app *app, const sllm_error *error);

/* Prints the library's report `text` as it is with --json; otherwise parses it and hands each item of its array to
 * `print`. Frees text. */
int cli_hub_report(cli_app *app, const cli_hub_values *values, char *text,
                   void (*print)(cli_app *app, const sl_json *item, void *user), void *user);

/* The text of a member, "" when absent. */
const char *cli_json_text(const sl_json *object, const char *key);
/* "en, fr, de"; `most` items, then "...". 0: all. */
void cli_json_join(const sl_json *array, size_t most, char *out, size_t size);
/* "135 M", "8.2 B" */
void cli_format_count(int64_t count, char out[32]);

#endif
