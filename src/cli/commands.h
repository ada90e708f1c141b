/* Every command's row, one per file of src/cli. */
#ifndef SLLM_CLI_COMMANDS_H
#define SLLM_CLI_COMMANDS_H

#include "cli/cli.h"

extern const cli_command cli_command_run;        /* run.c */
extern const cli_command cli_command_help;       /* help.c */

#endif
