/* The option parser: reads a command's table and fills its struct of values. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 128 };

/* ---------------------------------------------------------------- near names */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Damerau-Levenshtein distance with adjacent swaps (optimal string alignment); a name longer than 47 counts as far. */
static size_t edit_distance(const char *a, const char *b) {
    enum { LONGEST = 47 };
    size_t n = strlen(a), m = strlen(b), d[LONGEST + 1][LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return LONGEST;
    for (size_t i = 0; i <= n; i++) d[i][0] = i;
    for (size_t j = 0; j <= m; j++) d[0][j] = j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            d[i][j] = smaller(smaller(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = smaller(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[n][m];
}

const char *cli_nearest(const char *name, const char *const *names, size_t n) {
    const char *nearest = NULL;
    size_t length = strlen(name), best = length < 4 ? 2 : length / 3 + 2; /* one typing error in short words */
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(name, names[i]);
        /* what is left out at the end ("--temp") is a likelier slip than its length says */
        if (length >= 3 && !strncmp(name, names[i], length)) distance = 1;
        bool shorter = nearest && distance == best && strlen(names[i]) < strlen(nearest);
        if (distance < best || shorter) best = distance, nearest = names[i];
    }
    return nearest;
}

/* ---------------------------------------------------------------- the table */

/* Visits every option of a command; find by name [length] or, when name is NULL, by letter. */
static const cli_option *find_option(const cli_command *command, const char *name, size_t length, char letter,
                                     size_t *offset) {
    for (const cli_group *group = command->groups; group && group->options; group++)
        for (const cli_option *option = group->options; option->name; option++) {
            bool found = name ? strlen(option->name) == length && !memcmp(option->name, name, length)
                              : letter && option->letter == letter;
            if (!found) continue;
            *offset = group->offset + option->offset;
            return option;
        }
    return NULL;
}

static int unknown_option(const cli_app *app, const char *name, size_t length) {
    const char *names[NAMES_MAX] = {"help"};
    size_t n = 1;
    for (const cli_group *group = app->command->groups; group && group->options; group++)
        for (const cli_option *option = group->options; option->name && n < NAMES_MAX; option++)
            names[n++] = option->name;
    char given[64];
    snprintf(given, sizeof given, "%.*s", (int)(length < sizeof given ? length : sizeof given - 1), name);
    const char *nearest = cli_nearest(given, names, n);
    if (nearest) return cli_usage(app, "unknown option --%s; did you mean --%s?", given, nearest);
    return cli_usage(app, "unknown option --%s; `sllm help %s` lists the options", given, app->command->name);
}

void cli_option_range(const cli_option *option, char *out, size_t size) {
    bool has_min = option->min > -INFINITY, has_max = option->max < INFINITY;
    out[0] = 0;
    if (option->kind != CLI_INT && option->kind != CLI_FLOAT) return;
    if (option->min == 0 && option->max == 0) return;
    if (has_min && has_max && !option->min_open && !option->max_open)
        snprintf(out, size, "from %.10g to %.10g", option->min, option->max);
    else if (has_min && has_max)
        snprintf(out, size, "%s %.10g and %s %.10g", option->min_open ? "above" : "at least", option->min,
                 option->max_open ? "below" : "at most", option->max);
    else if (has_min)
        snprintf(out, size, "%s %.10g", option->min_open ? "above" : "at least", option->min);
    else if (has_max)
        snprintf(out, size, "%s %.10g", option->max_open ? "below" : "at most", option->max);
}

void cli_command_usage(const cli_command *command, char *out, size_t size) {
    bool has_arguments = command->arguments && *command->arguments;
    snprintf(out, size, "sllm %s [options]%s%s", command->name, has_arguments ? " " : "",
             has_arguments ? command->arguments : "");
}

/* ---------------------------------------------------------------- values */

static bool in_range(const cli_option *option, double value) {
    if (isnan(value)) return false;
    if (option->min == 0 && option->max == 0) return true;
    if (option->min_open ? value <= option->min : value < option->min) return false;
    return option->max_open ? value < option->max : value <= option->max;
}

static int bad_number(const cli_app *app, const cli_option *option, const char *text, const char *what) {
    char range[96];
    cli_option_range(option, range, sizeof range);
    return cli_usage(app, "--%s %s: must be %s%s%s", option->name, *text ? text : "''", what, *range ? " " : "", range);
}

static int set_number(const cli_app *app, const cli_option *option, const char *text, void *field) {
    char *end = NULL;
    errno = 0;
    if (option->kind == CLI_INT) {
        long long value = strtoll(text, &end, 10);
        bool whole = end != text && !*end && errno == 0;
        if (!whole || !in_range(option, (double)value) || value < INT32_MIN || value > INT32_MAX)
            return bad_number(app, option, text, "a whole number");
        *(int *)field = (int)value;
    } else if (option->kind == CLI_SEED) {
        unsigned long long value = strtoull(text, &end, 10);
        if (end == text || *end || errno || strchr(text, '-'))
            return bad_number(app, option, text, "a whole number from 0 to 18446744073709551615");
        *(cli_seed *)field = (cli_seed){true, value};
    } else {
        double value = strtod(text, &end);
        /* strtod reads hexadecimal too, which nobody means here */
        if (end == text || *end || strpbrk(text, "xX") || !isfinite(value) || !in_range(option, value))
            return bad_number(app, option, text, "a number");
        *(float *)field = (float)value;
    }
    return CLI_OK;
}

static int set_word(const cli_app *app, const cli_option *option, const char *text, int *field) {
    sl_buffer all = {0};
    for (int i = 0; option->words[i]; i++) {
        if (!strcmp(option->words[i], text)) {
            *field = i;
            sl_buffer_free(&all);
            return CLI_OK;
        }
        sl_buffer_printf(&all, "%s%s", i ? ", " : "", option->words[i]);
    }
    int status = cli_usage(app, "--%s %s: must be one of %s", option->name, text, all.data ? all.data : "");
    sl_buffer_free(&all);
    return status;
}

static int append_text(const cli_app *app, cli_texts *list, const char *text) {
    const char **items = realloc(list->items, (list->n + 1) * sizeof *items);
    if (!items) return cli_failure(app, "out of memory while reading the options");
    list->items = items;
    list->items[list->n++] = text;
    return CLI_OK;
}

static int set_value(const cli_app *app, const cli_option *option, const char *text, void *field) {
    switch (option->kind) {
    case CLI_FLAG: *(bool *)field = true; return CLI_OK;
    case CLI_INT:
    case CLI_FLOAT:
    case CLI_SEED: return set_number(app, option, text, field);
    case CLI_TEXT: *(const char **)field = text; return CLI_OK;
    case CLI_TEXTS: return append_text(app, field, text);
    case CLI_WORD: return set_word(app, option, text, field);
    }
    return CLI_FAILURE;
}

static int set_defaults(const cli_app *app, char *values) {
    for (const cli_group *group = app->command->groups; group && group->options; group++)
        for (const cli_option *option = group->options; option->name; option++) {
            if (!option->fallback) continue;
            int status = set_value(app, option, option->fallback, values + group->offset + option->offset);
            if (status) return status;
        }
    return CLI_OK;
}

bool cli_values_copy(const cli_command *command, const void *values, void *to) {
    bool ok = true;
    memcpy(to, values, command->values_size);
    for (const cli_group *group = command->groups; group && group->options; group++)
        for (const cli_option *option = group->options; option->name; option++) {
            if (option->kind != CLI_TEXTS) continue;
            cli_texts *list = (cli_texts *)((char *)to + group->offset + option->offset);
            const char **items = list->n ? malloc(list->n * sizeof *items) : NULL;
            if (items) memcpy(items, list->items, list->n * sizeof *items);
            else if (list->n) ok = false, list->n = 0;
            list->items = items;
        }
    return ok;
}

void cli_values_free(const cli_command *command, void *values) {
    for (const cli_group *group = command->groups; group && group->options; group++)
        for (const cli_option *option = group->options; option->name; option++) {
            if (option->kind != CLI_TEXTS) continue;
            cli_texts *list = (cli_texts *)((char *)values + group->offset + option->offset);
            free(list->items);
            *list = (cli_texts){0};
        }
}

int cli_option_set(const cli_app *app, const char *name, const char *text, void *values) {
    size_t offset = 0;
    const cli_option *option = find_option(app->command, name, strlen(name), 0, &offset);
    if (!option) return unknown_option(app, name, strlen(name));
    if (option->kind == CLI_FLAG) {
        bool on = !strcmp(text, "on") || !strcmp(text, "true");
        if (!on && strcmp(text, "off") != 0 && strcmp(text, "false") != 0)
            return cli_usage(app, "--%s %s: must be on or off", name, text);
        *(bool *)((char *)values + offset) = on;
        return CLI_OK;
    }
    return set_value(app, option, text, (char *)values + offset);
}

/* ---------------------------------------------------------------- parsing */

/* One option at argv[*i]; moves *i past the value it takes. */
static int parse_option(const cli_app *app, int argc, char **argv, int *i, char *values, bool *help) {
    const char *given = argv[*i], *value = NULL;
    const cli_option *option = NULL;
    size_t offset = 0;
    if (given[1] == '-') {
        const char *name = given + 2, *equals = strchr(name, '=');
        size_t length = equals ? (size_t)(equals - name) : strlen(name);
        if (length == 4 && !memcmp(name, "help", 4)) { *help = true; return CLI_OK; }
        option = find_option(app->command, name, length, 0, &offset);
        if (!option) return unknown_option(app, name, length);
        if (equals) value = equals + 1;
    } else {
        if (given[1] == 'h') { *help = true; return CLI_OK; }
        option = find_option(app->command, NULL, 0, given[1], &offset);
        if (!option)
            return cli_usage(app, "unknown option %s; `sllm help %s` lists the options (write -- before text that "
                                  "begins with a dash)", given, app->command->name);
        if (given[2]) value = given + 2;
    }
    if (option->kind == CLI_FLAG) {
        if (value) return cli_usage(app, "--%s takes no value; leave out '%s'", option->name, value);
        return set_value(app, option, NULL, values + offset);
    }
    if (!value) {
        if (*i + 1 >= argc)
            return cli_usage(app, "--%s needs a value: --%s %s", option->name, option->name,
                             option->argument ? option->argument : "WORD");
        value = argv[++*i];
    }
    return set_value(app, option, value, values + offset);
}

int cli_parse(cli_app *app, int argc, char **argv, void *values, char **arguments, int *n_arguments, bool *help) {
    const cli_command *command = app->command;
    bool options_ended = false;
    int status = set_defaults(app, values);
    *n_arguments = 0;
    for (int i = 0; !status && i < argc; i++) {
        bool is_option = !options_ended && argv[i][0] == '-' && argv[i][1];
        if (is_option && !strcmp(argv[i], "--")) options_ended = true;
        else if (is_option) status = parse_option(app, argc, argv, &i, values, help);
        else arguments[(*n_arguments)++] = argv[i];
    }
    if (status || *help) return status;
    char usage[128];
    cli_command_usage(command, usage, sizeof usage);
    if (*n_arguments < command->min_arguments) return cli_usage(app, "too few arguments; usage: %s", usage);
    if (command->max_arguments >= 0 && *n_arguments > command->max_arguments)
        return cli_usage(app, "unexpected argument '%s'; usage: %s (quote text that holds blanks)",
                         arguments[command->max_arguments], usage);
    return CLI_OK;
}
