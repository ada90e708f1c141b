/* The table of commands. A command lives in a file of its own; here is its row. */
#include "cli/commands.h"

#include <string.h>

const cli_command *const cli_commands[] = {
    &cli_command_run,
    &cli_command_chat,
    &cli_command_batch,
    &cli_command_models,
    &cli_command_choose,
    &cli_command_pull,
    &cli_command_list,
    &cli_command_rm,
    &cli_command_verify,
    &cli_command_doctor,
    &cli_command_show,
    &cli_command_plan,
    &cli_command_bench,
    &cli_command_convert,
    &cli_command_quantize,
    &cli_command_finetune,
    &cli_command_merge,
    &cli_command_eval,
    &cli_command_tokenize,
    &cli_command_detokenize,
    &cli_command_template,
    &cli_command_logits,
    &cli_command_inspect,
    &cli_command_compare,
    &cli_command_perplexity,
    &cli_command_help,
    NULL,
};

const cli_command *cli_command_find(const char *name) {
    for (size_t i = 0; cli_commands[i]; i++)
        if (!strcmp(cli_commands[i]->name, name)) return cli_commands[i];
    return NULL;
}
