/* sllm doctor: what may be wrong with this machine, and what to do about it. */
#include "cli/commands.h"
#include "cli/hub.h"

#include <stddef.h>
#include <string.h>

typedef struct doctor_values {
    cli_hub_values hub;
    cli_source_values source;
} doctor_values;

typedef struct doctor_count {
    int checks, bad;
} doctor_count;

static void print_check(cli_app *app, const sl_json *item, void *user) {
    doctor_count *count = user;
    const char *advice = cli_json_text(item, "advice");
    bool ok = false;
    sl_json_bool(sl_json_get(item, "ok"), &ok);
    count->checks++;
    count->bad += !ok;
    cli_printf(app, "%-4s %-20s %s\n", ok ? "ok" : "!!", cli_json_text(item, "check"), cli_json_text(item, "detail"));
    if (!ok && advice[0]) cli_printf(app, "     -> %s\n", advice);
}

static int run_doctor(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const doctor_values *values = given;
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    doctor_count count = {0};
    char *text = NULL;
    (void)n_arguments, (void)arguments;
    int status = cli_hub_open(app, &values->hub, &values->source, &hub);
    if (status) return status;
    if (sllm_hub_doctor(hub, &text, &error)) status = cli_hub_error(app, &error);
    else status = cli_hub_report(app, &values->hub, text, print_check, &count);
    if (!status && !values->hub.json) cli_printf(app, "\n%d checks, %d with advice\n", count.checks, count.bad);
    sllm_hub_close(hub);
    return status;
}

static const cli_group doctor_groups[] = {{"Options", cli_hub_options, offsetof(doctor_values, hub)},
                                          {"Where models come from", cli_source_options,
                                           offsetof(doctor_values, source)},
                                          {0}};

const cli_command cli_command_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "Check machine, libraries, cache and permissions, and say what to do",
    .groups = doctor_groups,
    .values_size = sizeof(doctor_values),
    .run = run_doctor,
};
