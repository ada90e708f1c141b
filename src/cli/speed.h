/* This machine's measured figures (sllm_machine_measure), kept in $XDG_CACHE_HOME/sllm/machine.json. */
#ifndef SLLM_CLI_SPEED_H
#define SLLM_CLI_SPEED_H

#include "cli/cli.h"

typedef enum cli_speed_use {
    CLI_SPEED_KEPT,  /* what was measured before with as many threads and the same kernels; measured when there is none */
    CLI_SPEED_BEST,  /* measured now, and what was better before stays: a busy moment does not lower the figures */
    CLI_SPEED_AGAIN  /* measured now, in place of what was before */
} cli_speed_use;

/* threads 0: all that the process may use. CLI_OK, or the exit status after its line was printed. A file of figures that
 * is damaged, or cannot be written, only means that they are measured again. */
int cli_machine_speed(cli_app *app, int threads, cli_speed_use use, sllm_machine_speed *speed);

/* "machine": {...} of a report, and the same for people. */
void cli_put_machine(sl_buffer *out, const sllm_machine_speed *speed);
void cli_print_machine(cli_app *app, const sllm_machine_speed *speed);

#endif
