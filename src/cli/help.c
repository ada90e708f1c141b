/* Help in three forms from the same tables: for the terminal, for docs/cli.md, and for the manual page. */
#include "cli/commands.h"

#include <stddef.h>
#include <string.h>

enum { INDENT = 30, PAGE_COLUMNS = 118 };

/* ---------------------------------------------------------------- terminal */

/* Prints text wrapped to `width`, the first line beginning at column `at`, the others at `indent`. */
static void print_wrapped(FILE *out, const char *text, int at, int indent, int width) {
    while (*text) {
        size_t word = strcspn(text, " \n");
        if (at > indent && at + 1 + (int)word > width) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            putc(' ', out);
            at++;
        }
        fwrite(text, 1, word, out);
        at += (int)word;
        text += word;
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n\n%*s", indent, "");
            at = indent;
        }
        text += strspn(text, " \n");
    }
    putc('\n', out);
}

/* "--top-k N" or "--reasoning show|hide|off" */
static void option_signature(const cli_option *option, char *out, size_t size) {
    int n = snprintf(out, size, "--%s", option->name);
    if (option->argument) n += snprintf(out + n, size - (size_t)n, " %s", option->argument);
    for (int i = 0; option->kind == CLI_WORD && option->words[i] && (size_t)n < size; i++)
        n += snprintf(out + n, size - (size_t)n, "%c%s", i ? '|' : ' ', option->words[i]);
}

/* "(default 0.7, from 0 to 100; repeatable)" in brackets, or "" */
static void option_facts(const cli_option *option, char *out, size_t size) {
    char range[96] = "";
    int n = 0;
    out[0] = 0;
    cli_option_range(option, range, sizeof range);
    if (option->fallback) n += snprintf(out + n, size - (size_t)n, "default %s", option->fallback);
    if (*range) n += snprintf(out + n, size - (size_t)n, "%s%s", n ? ", " : "", range);
    if (option->kind == CLI_TEXTS) snprintf(out + n, size - (size_t)n, "%srepeatable", n ? ", " : "");
}

static void print_option(const cli_app *app, const cli_option *option, FILE *out) {
    char signature[128], facts[192], text[1024];
    option_signature(option, signature, sizeof signature);
    option_facts(option, facts, sizeof facts);
    snprintf(text, sizeof text, *facts ? "%s (%s)" : "%s%s", option->help, facts);
    int at =
        option->letter ? fprintf(out, "  -%c, %s", option->letter, signature) : fprintf(out, "      %s", signature);
    if (at >= INDENT - 1) fprintf(out, "\n%*s", INDENT, "");
    else fprintf(out, "%*s", INDENT - at, "");
    print_wrapped(out, text, INDENT, INDENT, app->columns);
}

void cli_help_command(const cli_app *app, const cli_command *command, FILE *out) {
    char usage[128];
    cli_command_usage(command, usage, sizeof usage);
    fprintf(out, "usage: %s\n\n", usage);
    print_wrapped(out, command->summary, 0, 0, app->columns);
    if (command->details) {
        putc('\n', out);
        print_wrapped(out, command->details, 0, 0, app->columns);
    }
    for (const cli_group *group = command->groups; group && group->options; group++) {
        fprintf(out, "\n%s:\n", group->title);
        for (const cli_option *option = group->options; option->name; option++) print_option(app, option, out);
    }
}

void cli_help_all(const cli_app *app, FILE *out) {
    fprintf(out, "usage: sllm COMMAND [options] [arguments]\n\n"
                 "Small language models, end to end: run, prompt and inspect them on your own machine.\n\n");
    for (size_t i = 0; cli_commands[i]; i++) {
        int at = fprintf(out, "  %-12s  ", cli_commands[i]->name);
        print_wrapped(out, cli_commands[i]->summary, at, at, app->columns);
    }
    fprintf(out,
            "\n`sllm help COMMAND` or `sllm COMMAND --help` says more. MODEL is a name of `sllm models`, a GGUF file,\n"
            "a Hugging Face checkpoint folder, or hf:OWNER/REPO. Exit status: 0 done, 1 failed, 2 wrong usage,\n"
            "130 interrupted.\n");
}

/* ---------------------------------------------------------------- docs/cli.md */

static void markdown_cell(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '|') fputs("\\|", out);
        else putc(*text, out);
    }
}

static void markdown_command(const cli_command *command, FILE *out) {
    char usage[128];
    cli_command_usage(command, usage, sizeof usage);
    fprintf(out, "\n## sllm %s\n\n    %s\n\n%s.\n", command->name, usage, command->summary);
    if (command->details) {
        putc('\n', out);
        print_wrapped(out, command->details, 0, 0, PAGE_COLUMNS);
    }
    for (const cli_group *group = command->groups; group && group->options; group++) {
        fprintf(out, "\n%s:\n\n| option | meaning | values |\n|---|---|---|\n", group->title);
        for (const cli_option *option = group->options; option->name; option++) {
            char signature[128], facts[192];
            option_signature(option, signature, sizeof signature);
            option_facts(option, facts, sizeof facts);
            fputs("| `", out);
            if (option->letter) fprintf(out, "-%c`, `", option->letter);
            markdown_cell(signature, out);
            fputs("` | ", out);
            markdown_cell(option->help, out);
            fprintf(out, " | %s |\n", facts);
        }
    }
}

void cli_help_markdown(FILE *out) {
    fputs(
        "# The command line\n\n"
        "Written by `sllm help --markdown` from the tables that also parse the options; a test keeps it current.\n\n"
        "MODEL is a name of `sllm models`, a GGUF file (of a split one, the first part), a Hugging Face checkpoint\n"
        "folder, or `hf:OWNER/REPO[/FILE.gguf]`. Every command takes `--help`. `--name value` and `--name=value` are "
        "the\n"
        "same; `--` ends the options.\n\n"
        "Exit status: 0 done, 1 failed (also when standard output was closed or full), 2 wrong usage, 130 "
        "interrupted.\n"
        "An error is one line on standard error: `sllm: COMMAND: what, where, what would work`.\n\n"
        "Environment: `XDG_CACHE_HOME` or `HOME` (the cache is `$XDG_CACHE_HOME/sllm` or `~/.cache/sllm`), `SLLM_CPU`\n"
        "(`auto`, `scalar`, `avx2`, `avx512`, `neon`, `neon_dot`: the kernels to use), `COLUMNS`, `NO_COLOR`.\n",
        out);
    for (size_t i = 0; cli_commands[i]; i++) markdown_command(cli_commands[i], out);
}

/* ---------------------------------------------------------------- sllm.1 */

/* Text for roff: backslashes, dashes that are typed, and a control character at the start of a line. */
static void roff_text(const char *text, FILE *out) {
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", out);
        if (*text == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            text++;
            line_start = true;
            continue;
        }
        if (*text == '\\') fputs("\\e", out);
        else if (*text == '-') fputs("\\-", out);
        else putc(*text, out);
        line_start = *text == '\n';
    }
}

static void man_command(const cli_command *command, FILE *out) {
    fprintf(out, ".SH SLLM ");
    for (const char *c = command->name; *c; c++) putc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, out);
    fprintf(out, "\n.B sllm %s\n[options] ", command->name);
    if (command->arguments) roff_text(command->arguments, out);
    fputs("\n.PP\n", out);
    roff_text(command->summary, out);
    fputs(".\n", out);
    if (command->details) {
        fputs(".PP\n", out);
        roff_text(command->details, out);
        putc('\n', out);
    }
    for (const cli_group *group = command->groups; group && group->options; group++) {
        fprintf(out, ".SS %s\n", group->title);
        for (const cli_option *option = group->options; option->name; option++) {
            char signature[128], facts[192];
            option_signature(option, signature, sizeof signature);
            option_facts(option, facts, sizeof facts);
            fputs(".TP\n.B ", out);
            if (option->letter) fprintf(out, "\\-%c, ", option->letter);
            roff_text(signature, out);
            putc('\n', out);
            roff_text(option->help, out);
            fprintf(out, *facts ? " (%s)\n" : "%s\n", facts);
        }
    }
}

void cli_help_man(FILE *out) {
    fprintf(
        out,
        ".TH SLLM 1 \"\" \"sllm %s\" \"User commands\"\n.SH NAME\nsllm \\- small language models, end to end\n"
        ".SH SYNOPSIS\n.B sllm\nCOMMAND [options] [arguments]\n.SH DESCRIPTION\n"
        "Runs, prompts and inspects small language models on the processor. MODEL is a name of\n.BR \"sllm models\" ,\n"
        "a GGUF file, a Hugging Face checkpoint folder, or hf:OWNER/REPO.\n",
        sllm_version());
    for (size_t i = 0; cli_commands[i]; i++) man_command(cli_commands[i], out);
    fputs(".SH ENVIRONMENT\n.TP\n.B XDG_CACHE_HOME, HOME\nPlace of the cache: $XDG_CACHE_HOME/sllm or ~/.cache/sllm.\n"
          ".TP\n.B SLLM_CPU\nKernels to use: auto, scalar, avx2, avx512, neon, neon_dot.\n"
          ".TP\n.B COLUMNS, NO_COLOR\nWidth of the terminal; no colours when set.\n"
          ".SH EXIT STATUS\n0 done, 1 failed (also when standard output was closed or full), 2 wrong usage,\n130 "
          "interrupted.\n",
          out);
}

/* ---------------------------------------------------------------- sllm help */

typedef struct help_values {
    bool markdown, man;
} help_values;

static int run_help(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const help_values *values = given;
    if (values->markdown) {
        cli_help_markdown(stdout);
    } else if (values->man) {
        cli_help_man(stdout);
    } else if (n_arguments == 0) {
        cli_help_all(app, stdout);
    } else {
        const cli_command *command = cli_command_find(arguments[0]);
        if (!command) return cli_usage(app, "no command '%s'; `sllm help` lists them", arguments[0]);
        cli_help_command(app, command, stdout);
    }
    return CLI_OK;
}

static const cli_option help_options[] = {
    {"markdown", 0, CLI_FLAG, .offset = offsetof(help_values, markdown),
     .help = "Print the reference page docs/cli.md"},
    {"man", 0, CLI_FLAG, .offset = offsetof(help_values, man), .help = "Print the manual page sllm.1"},
    {0},
};
static const cli_group help_groups[] = {{"Options", help_options, 0}, {0}};

const cli_command cli_command_help = {
    .name = "help", .arguments = "[COMMAND]", .summary = "Explain a command and its options",
    .groups = help_groups, .values_size = sizeof(help_values), .max_arguments = 1, .run = run_help,
};
