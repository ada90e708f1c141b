/* The program: environment, the choice of a command, and the exit status. Nothing else reads the environment. */
#include "cli/cli.h"

#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NAMES_MAX = 64 };

typedef struct directories {
    char cache[4096], models[4096 + 16];
} directories;

/* https://specifications.freedesktop.org/basedir-spec: a relative XDG_CACHE_HOME is to be ignored. */
static void find_directories(cli_app *app, directories *where) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (cache && cache[0] == '/') n = snprintf(where->cache, sizeof where->cache, "%s/sllm", cache);
    else if (home && home[0] == '/') n = snprintf(where->cache, sizeof where->cache, "%s/.cache/sllm", home);
    if (n <= 0 || (size_t)n >= sizeof where->cache) return;
    snprintf(where->models, sizeof where->models, "%s/models", where->cache);
    app->cache_dir = where->cache;
    app->models_dir = where->models;
}

static int terminal_columns(void) {
    const char *columns = getenv("COLUMNS");
    int n = columns ? atoi(columns) : 0;
    struct winsize size = {0};
    if (n <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) n = size.ws_col;
    return n >= 40 && n <= 1000 ? n : 80;
}

static void read_environment(cli_app *app, directories *where) {
    const char *no_colour = getenv("NO_COLOR");
    find_directories(app, where);
    app->stdin_is_terminal = isatty(STDIN_FILENO);
    app->stdout_is_terminal = isatty(STDOUT_FILENO);
    app->stderr_is_terminal = isatty(STDERR_FILENO);
    app->colour = app->stdout_is_terminal && !(no_colour && *no_colour);
    app->columns = terminal_columns();
    /* Line editing needs to know where characters end; the rest of the program is UTF-8 whatever the locale. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

static int unknown_command(const cli_app *app, const char *name) {
    const char *names[NAMES_MAX];
    size_t n = 0;
    while (cli_commands[n] && n < NAMES_MAX) names[n] = cli_commands[n]->name, n++;
    const char *nearest = cli_nearest(name, names, n);
    if (nearest) return cli_usage(app, "unknown command '%s'; did you mean `sllm %s`?", name, nearest);
    return cli_usage(app, "unknown command '%s'; `sllm --help` lists the commands", name);
}

static int force_kernels(const cli_app *app) {
    const char *name = getenv("SLLM_CPU");
    sllm_error error = {0};
    if (!name || !*name || !sllm_kernels_force(name, &error)) return CLI_OK;
    return cli_usage(app, "SLLM_CPU=%s: %s", name, error.message);
}

/* argv: what follows the command's name. */
static int run_command(cli_app *app, int argc, char **argv) {
    const cli_command *command = app->command;
    void *values = calloc(1, command->values_size ? command->values_size : 1);
    char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    int n_arguments = 0, status = CLI_FAILURE;
    bool help = false;
    if (!values || !arguments) cli_failure(app, "out of memory");
    else status = cli_parse(app, argc, argv, values, arguments, &n_arguments, &help);
    if (status == CLI_OK && help) cli_help_command(app, command, stdout);
    else if (status == CLI_OK) status = force_kernels(app);
    if (status == CLI_OK && !help) status = command->run(app, values, n_arguments, arguments);
    if (values) cli_values_free(command, values);
    free(values);
    free(arguments);
    return status;
}

int main(int argc, char **argv) {
    cli_app app = {0};
    directories where;
    int status = CLI_OK;
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of write(), reported once, at the end */
    read_environment(&app, &where);
    if (argc < 2) {
        cli_help_all(&app, stderr);
        status = CLI_USAGE;
    } else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        cli_help_all(&app, stdout);
    } else if (!strcmp(argv[1], "--version")) {
        cli_printf(&app, "sllm %s\n", sllm_version());
    } else {
        app.command = cli_command_find(argv[1]);
        status = app.command ? run_command(&app, argc - 2, argv + 2) : unknown_command(&app, argv[1]);
    }
    status = cli_finish_output(&app, status);
    return status == CLI_INTERRUPTED ? cli_interrupt_status() : status;
}
