#include "cli/progress.h"

#include "base/clock.h"

#include <string.h>

enum { QUIET = 2 }; /* seconds */

/* Lives in static storage because callbacks may outlast the call that began them (an open hub). */
static struct progress {
    char what[256];
    double began, printed;
    uint64_t began_at;
    bool terminal, quick, ended, open; /* open: the cursor stands behind an unfinished line */
} progress;

void cli_progress_begin(const cli_app *app, bool quick) {
    progress = (struct progress){.terminal = app->stderr_is_terminal, .quick = quick};
}

static void format(uint64_t n, const char *unit, char out[32]) {
    if (unit) snprintf(out, 32, "%llu %.8s", (unsigned long long)n, unit);
    else cli_format_bytes(n, out);
}

static void print(const char *unit, const char *what, uint64_t done, uint64_t total, double seconds) {
    char have[32], all[32], rate[32];
    double per_second = seconds > 0 ? (double)(done - progress.began_at) / seconds : 0;
    progress.open = progress.terminal;
    if (!done && !total) { /* nothing to count yet: say what is going on, where it can be wiped away again */
        if (progress.terminal) fprintf(stderr, "\r\x1b[K%s", what), fflush(stderr);
        return;
    }
    format(done, unit, have);
    format(total, unit, all);
    format((uint64_t)per_second, unit, rate);
    fprintf(stderr, progress.terminal ? "\r\x1b[K%s: %s" : "%s: %s", what, have);
    if (total) fprintf(stderr, " of %s (%.0f %%)", all, 100.0 * (double)done / (double)total);
    if (per_second > 0) fprintf(stderr, ", %s/s", rate);
    if (per_second > 0 && total > done) {
        unsigned left = (unsigned)((double)(total - done) / per_second + 0.5);
        fprintf(stderr, ", %u:%02u left", left / 60, left % 60);
    }
    if (!progress.terminal || (total && done >= total)) {
        putc('\n', stderr);
        progress.open = false;
    }
    fflush(stderr);
}

bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    double now = sl_clock(), interval = progress.terminal ? 0.1 : 10; /* a log gets a line now and then */
    bool is_new = strncmp(progress.what, what, sizeof progress.what - 1) != 0, is_last = total && done >= total;
    if (is_new) {
        snprintf(progress.what, sizeof progress.what, "%s", what);
        progress.began = now, progress.began_at = done, progress.printed = 0, progress.ended = false;
    }
    if (progress.quick && !progress.terminal && now - progress.began < QUIET) return !cli_interrupted();
    if (is_new || (is_last && !progress.ended) || (!is_last && now - progress.printed >= interval)) {
        print(user, what, done, total, now - progress.began);
        progress.printed = now;
        progress.ended = is_last; /* the line that says 100 % comes once */
    }
    return !cli_interrupted();
}

void cli_progress_end(void) {
    if (progress.open) fputs("\r\x1b[K", stderr), fflush(stderr);
    progress.open = false;
}
