/* Progress of long work on standard error: on a terminal one line that is written over, with rate and time left;
 * otherwise a line now and then. One work at a time. */
#ifndef SLLM_CLI_PROGRESS_H
#define SLLM_CLI_PROGRESS_H

#include "cli/cli.h"

/* quick: the steps may take no time at all; off a terminal they are then told only once they last. */
void cli_progress_begin(const cli_app *app, bool quick);
/* For the library's callbacks. `what` names the step, done and total count bytes, or what `user`, a string such as
 * "tokens", names where it is not NULL; total 0: unknown. False once Ctrl-C was pressed. */
bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
/* Ends a line that stands unfinished, so that a message can follow. */
void cli_progress_end(void);

#endif
