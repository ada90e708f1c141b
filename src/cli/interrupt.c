/* Ctrl-C as a flag. The handler's flag is the program's one mutable global: a signal can reach nothing else. */
#include "cli/cli.h"

#include <signal.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

void cli_interrupt_watch(void) {
    /* SA_RESETHAND: the second Ctrl-C finds the default action and kills. SA_RESTART: a write that the terminal holds up
     * goes on instead of losing text; readers wait in poll(), which is never restarted, so that they notice. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool cli_interrupted(void) { return interrupted != 0; }

void cli_interrupt_clear(void) {
    interrupted = 0;
    cli_interrupt_watch();
}
