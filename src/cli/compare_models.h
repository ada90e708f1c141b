/* The part of `sllm compare` that measures two models on a text. */
#ifndef SLLM_CLI_COMPARE_MODELS_H
#define SLLM_CLI_COMPARE_MODELS_H

#include "cli/cli.h"

typedef struct cli_compare_text {
    const char *text, *html; /* files */
    int chunks;
    bool json, both;         /* both: once in fast and once in exact arithmetic */
    const cli_model_values *model;
} cli_compare_text;

/* Prints how b differs from a on the text. */
int cli_compare_models(cli_app *app, const char *a, const char *b, const cli_compare_text *options);

#endif
