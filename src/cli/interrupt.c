/* Ctrl-C, and where a command asks for it the signals that end it, as a flag. The handler's flag is the program's one mutable global: a signal can reach nothing else. */
#include "cli/cli.h"

#include <signal.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    interrupted = signal_number;
}

static void watch(int signal_number) {
    /* SA_RESETHAND: the second Ctrl-C finds the default action and kills. SA_RESTART: a write that the terminal holds up
     * goes on instead of losing text; readers wait in poll(), which is never restarted, so that they notice. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

void cli_interrupt_watch(void) { watch(SIGINT); }

void cli_termination_watch(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction now;
        if (!sigaction(signals[i], NULL, &now) && now.sa_handler != SIG_IGN) watch(signals[i]); /* nohup stays nohup */
    }
}

int cli_interrupt_status(void) { return 128 + (interrupted ? interrupted : SIGINT); }

bool cli_interrupted(void) { return interrupted != 0; }

void cli_interrupt_clear(void) {
    interrupted = 0;
    cli_interrupt_watch();
}
