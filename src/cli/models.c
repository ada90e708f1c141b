/* sllm models: the catalogue. */
#include "cli/commands.h"
#include "cli/hub.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

typedef struct models_values {
    cli_hub_values hub;
    const char *task, *licence, *language, *family;
    bool commercial, runnable;
} models_values;

typedef struct models_job {
    const models_values *values;
    const sl_json *cached; /* what `list` reports */
    size_t n_shown;
} models_job;

/* ---------------------------------------------------------------- filters */

static bool holds_text(const char *text, const char *part) {
    size_t n = strlen(part);
    for (; *text; text++)
        if (!strncasecmp(text, part, n)) return true;
    return n == 0;
}

static bool any_holds(const sl_json *array, const char *part) {
    for (const sl_json *item = array ? array->first : NULL; item; item = item->next)
        if (sl_json_string(item) && holds_text(sl_json_string(item), part)) return true;
    return false;
}

/* Languages are whole codes: "de" is not in "code". */
static bool has_language(const sl_json *array, const char *language) {
    for (const sl_json *item = array ? array->first : NULL; item; item = item->next) {
        const char *text = sl_json_string(item);
        if (text && (!strcasecmp(text, language) || !strcmp(text, "multilingual"))) return true;
    }
    return false;
}

/* Commercial use is allowed, perhaps with conditions (which are shown). */
static bool is_commercial(const sl_json *licence) {
    const sl_json *use = sl_json_get(licence, "commercial_use");
    bool allowed = false;
    return sl_json_bool(use, &allowed) ? allowed : use != NULL;
}

static bool is_wanted(const models_values *v, const sl_json *entry) {
    const sl_json *licence = sl_json_get(entry, "licence");
    bool runnable = true;
    sl_json_bool(sl_json_get(entry, "runnable"), &runnable);
    if (v->task && !any_holds(sl_json_get(entry, "tasks"), v->task)) return false;
    if (v->licence && !holds_text(cli_json_text(licence, "id"), v->licence) &&
        !holds_text(cli_json_text(licence, "name"), v->licence))
        return false;
    if (v->language && !has_language(sl_json_get(entry, "languages"), v->language)) return false;
    if (v->family && strcasecmp(cli_json_text(entry, "family"), v->family) != 0) return false;
    return (!v->commercial || is_commercial(licence)) && (!v->runnable || runnable);
}

/* ---------------------------------------------------------------- printing */

static bool is_cached(const sl_json *cached, const char *name) {
    for (const sl_json *item = cached ? cached->first : NULL; item; item = item->next) {
        bool partial = true;
        if (!strcmp(cli_json_text(item, "name"), name) && sl_json_bool(sl_json_get(item, "partial"), &partial) &&
            !partial)
            return true;
    }
    return false;
}

static const char *permission(const sl_json *licence, const char *what, const char *conditions) {
    bool allowed = false;
    const sl_json *value = sl_json_get(licence, what);
    if (!sl_json_bool(value, &allowed)) return conditions;
    return allowed ? "yes" : "no";
}

static void print_row(cli_app *app, const sl_json *entry, models_job *job) {
    const sl_json *licence = sl_json_get(entry, "licence");
    const char *name = cli_json_text(entry, "name");
    char parameters[32], languages[64];
    int64_t count = 0, context = 0;
    bool runnable = true;
    sl_json_int64(sl_json_get(entry, "parameters"), &count);
    sl_json_int64(sl_json_get(entry, "context"), &context);
    sl_json_bool(sl_json_get(entry, "runnable"), &runnable);
    cli_format_count(count, parameters);
    cli_json_join(sl_json_get(entry, "languages"), 4, languages, sizeof languages);
    if (!job->n_shown++)
        cli_printf(app, "%-20s %7s %8s  %-18s %-6s %-6s %-6s %-6s %s\n", "name", "size", "context", "licence", "use",
                   "share", "tune", "here", "languages");
    cli_printf(app, "%-20s %7s %8lld  %-18s %-6s %-6s %-6s %-6s %s%s\n", name, parameters, (long long)context,
               cli_json_text(licence, "id"), permission(licence, "commercial_use", "cond."),
               permission(licence, "redistribution", "cond."), permission(licence, "fine_tuning", "cond."),
               is_cached(job->cached, name) ? "yes" : "-", languages, runnable ? "" : " (cannot run yet)");
}

static void print_sources(cli_app *app, const sl_json *sources) {
    for (const sl_json *source = sources ? sources->first : NULL; source; source = source->next) {
        char packages[512];
        if (!strcmp(cli_json_text(source, "kind"), "pip")) {
            cli_json_join(sl_json_get(source, "packages"), 0, packages, sizeof packages);
            cli_printf(app, "%-16s pip: %s\n", "source", packages);
        } else {
            const char *file = cli_json_text(source, "file");
            cli_printf(app, "%-16s hf:%s%s%s\n", "source", cli_json_text(source, "repo"), file[0] ? "/" : "", file);
        }
    }
}

static void print_entry(cli_app *app, const sl_json *entry, void *user) {
    models_job *job = user;
    const sl_json *licence = sl_json_get(entry, "licence");
    char text[1024], parameters[32];
    int64_t count = 0, context = 0;
    sl_json_int64(sl_json_get(entry, "parameters"), &count);
    sl_json_int64(sl_json_get(entry, "context"), &context);
    cli_format_count(count, parameters);
    cli_json_join(sl_json_get(entry, "aliases"), 0, text, sizeof text);
    cli_printf(app, "%s (%s)%s%s\n", cli_json_text(entry, "title"), cli_json_text(entry, "name"),
               text[0] ? ", also " : "", text);
    cli_printf(app, "%-16s %s\n%-16s %s (%lld)\n%-16s %lld tokens\n", "family", cli_json_text(entry, "family"),
               "parameters", parameters, (long long)count, "context", (long long)context);
    cli_json_join(sl_json_get(entry, "languages"), 0, text, sizeof text);
    cli_printf(app, "%-16s %s\n", "languages", text);
    cli_json_join(sl_json_get(entry, "tasks"), 0, text, sizeof text);
    cli_printf(app, "%-16s %s\n", "tasks", text);
    if (cli_json_text(entry, "note")[0]) cli_printf(app, "%-16s %s\n", "note", cli_json_text(entry, "note"));
    cli_printf(app, "%-16s %s, %s\n%-16s %s\n%-16s %s\n%-16s %s\n", "licence", cli_json_text(licence, "name"),
               cli_json_text(licence, "url"), "  commercial use",
               permission(licence, "commercial_use", "with conditions"), "  redistribution",
               permission(licence, "redistribution", "with conditions"), "  fine-tuning",
               permission(licence, "fine_tuning", "with conditions"));
    if (cli_json_text(licence, "note")[0])
        cli_printf(app, "%-16s %s\n", "  conditions", cli_json_text(licence, "note"));
    const sl_json *benchmarks = sl_json_get(entry, "benchmarks");
    for (const sl_json *one = benchmarks ? benchmarks->first : NULL; one; one = one->next) {
        const char *setting = cli_json_text(one, "setting");
        cli_printf(app, "%-16s %s %s%s%s (%s)\n", one == benchmarks->first ? "published" : "",
                   cli_json_text(one, "name"), sl_json_get(one, "value")->text, setting[0] ? ", " : "", setting,
                   cli_json_text(one, "source"));
    }
    print_sources(app, sl_json_get(entry, "sources"));
    cli_printf(app, "%-16s %s\n", "in the cache", is_cached(job->cached, cli_json_text(entry, "name")) ? "yes" : "no");
}

/* ---------------------------------------------------------------- the command */

static int show_all(cli_app *app, const sl_json *root, models_job *job) {
    sl_buffer json = {0};
    sl_buffer_putc(&json, '[');
    for (const sl_json *entry = root->first; entry; entry = entry->next) {
        if (!is_wanted(job->values, entry)) continue;
        if (job->values->hub.json) sl_json_comma(&json), sl_json_write_value(&json, entry);
        else print_row(app, entry, job);
    }
    sl_buffer_putc(&json, ']');
    if (job->values->hub.json) return cli_put_json(app, &json);
    sl_buffer_free(&json);
    if (job->n_shown)
        cli_printf(app,
                   "\nuse, share, tune: commercial use, redistribution and fine-tuning under the licence; cond.: with "
                   "conditions, which `sllm models NAME` says.\n");
    else fprintf(stderr, "no model of the catalogue fits these conditions\n");
    return CLI_OK;
}

static int run_models(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const models_values *values = given;
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    sl_arena arena = {0};
    models_job job = {.values = values};
    char *text = NULL, *list = NULL;
    const sl_json *root = NULL;
    int status = cli_hub_open(app, &values->hub, NULL, &hub);
    if (status) return status;
    if (sllm_hub_catalogue(hub, n_arguments ? arguments[0] : NULL, &text, &error)) status = cli_error(app, &error);
    if (!status && !sllm_hub_list(hub, &list, NULL))
        sl_json_parse(&arena, list, strlen(list), "list", &job.cached, NULL);
    if (!status && n_arguments) {
        status = cli_hub_report(app, &values->hub, text, print_entry, &job);
        text = NULL;
    } else if (!status) {
        if (sl_json_parse(&arena, text, strlen(text), "catalogue", &root, &error)) status = cli_error(app, &error);
        else status = show_all(app, root, &job);
    }
    sllm_free(text);
    sllm_free(list);
    sl_arena_free(&arena);
    sllm_hub_close(hub);
    return status;
}

static const cli_option models_options[] = {
    {"task", 0, CLI_TEXT, "WORD", .offset = offsetof(models_values, task),
     .help = "Only models for this task (chat, code, reasoning, tool calling ...)"},
    {"licence", 0, CLI_TEXT, "WORD", .offset = offsetof(models_values, licence),
     .help = "Only models whose licence has this in its name (apache, mit ...)"},
    {"commercial", 0, CLI_FLAG, .offset = offsetof(models_values, commercial),
     .help = "Only models that may be used commercially, be it with conditions"},
    {"language", 0, CLI_TEXT, "CODE", .offset = offsetof(models_values, language),
     .help = "Only models for this language (en, fr, zh ...)"},
    {"family", 0, CLI_TEXT, "NAME", .offset = offsetof(models_values, family), .help = "Only models of this family"},
    {"runnable", 0, CLI_FLAG, .offset = offsetof(models_values, runnable),
     .help = "Only models that this build can run"},
    {0},
};
static const cli_group models_groups[] = {{"Which models", models_options, 0},
                                          {"Options", cli_hub_options, offsetof(models_values, hub)},
                                          {0}};

const cli_command cli_command_models = {
    .name = "models",
    .arguments = "[NAME]",
    .summary = "List the models of the catalogue, or say all about one",
    .details = "The benchmark figures are what the models' makers published, each with its source.",
    .groups = models_groups,
    .values_size = sizeof(models_values),
    .max_arguments = 1,
    .run = run_models,
};
