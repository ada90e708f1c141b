/* sllm choose: which model of the catalogue for a task, on this machine. */
#include "cli/commands.h"
#include "cli/hub.h"
#include "cli/speed.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct choose_values {
    cli_hub_values hub;
    const char *task, *language, *ram;
    float latency;
    int prompt, answer, ctx, threads, most;
    bool commercial, measure;
} choose_values;

/* "4G", "512M", "4GiB", "3.5 GB" into bytes. False: something else. */
static bool read_size(const char *text, uint64_t *bytes) {
    static const struct { const char *unit; double factor; } units[] = {
        {"", 1}, {"B", 1}, {"k", 1e3}, {"kB", 1e3}, {"M", 1e6}, {"MB", 1e6}, {"G", 1e9}, {"GB", 1e9}, {"T", 1e12},
        {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
    };
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value > 0 && value < 1e15)) return false;
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcasecmp(end, units[i].unit) && value * units[i].factor >= 1 && value * units[i].factor < 1e18) {
            *bytes = (uint64_t)(value * units[i].factor);
            return true;
        }
    return false;
}

static double number_of(const sl_json *object, const char *key) {
    double value = 0;
    sl_json_double(sl_json_get(object, key), &value);
    return value;
}

static void print_reasons(cli_app *app, const sl_json *reasons) {
    for (const sl_json *one = reasons ? reasons->first : NULL; one; one = one->next)
        cli_printf(app, "    %s\n", sl_json_string(one) ? sl_json_string(one) : "");
}

static void print_chosen(cli_app *app, const sl_json *item, bool first) {
    char memory[32], parameters[32];
    const sl_json *use = sl_json_get(item, "commercial_use");
    bool flag = false, cached = false, is_flag = sl_json_bool(use, &flag);
    sl_json_bool(sl_json_get(item, "cached"), &cached);
    cli_format_bytes((uint64_t)number_of(item, "memory_bytes"), memory);
    cli_format_count((int64_t)number_of(item, "parameters"), parameters);
    if (first)
        cli_printf(app, "%-20s %7s %-7s %9s %9s %12s %9s  %-10s %s\n", "name", "size", "type", "memory", "tokens/s",
                   "first token", "answer", "commercial", "here");
    cli_printf(app, "%-20s %7s %-7s %9s %9.1f %10.2f s %7.1f s  %-10s %s\n", cli_json_text(item, "name"), parameters,
               cli_json_text(item, "type"), memory, number_of(item, "tokens_per_second"),
               number_of(item, "time_to_first_token_s"), number_of(item, "answer_s"),
               !is_flag ? "conditions" : flag ? "yes" : "no", cached ? "yes" : "-");
    print_reasons(app, sl_json_get(item, "reasons"));
}

static void print_report(cli_app *app, const choose_values *v, const sl_json *root) {
    char ram[32];
    int n = 0;
    const sl_json *chosen = sl_json_get(root, "chosen"), *left_out = sl_json_get(root, "left_out");
    cli_format_bytes((uint64_t)number_of(root, "ram_bytes"), ram);
    cli_printf(app, "%s, %s of memory, a prompt of %.0f and an answer of %.0f tokens; speeds are estimates for this "
               "machine\n\n", cli_json_text(root, "task"), ram, number_of(root, "prompt_tokens"),
               number_of(root, "answer_tokens"));
    for (const sl_json *item = chosen->first; item && n < v->most; item = item->next)
        print_chosen(app, item, n++ == 0);
    if (!chosen->length) cli_printf(app, "no model of the catalogue meets these conditions\n");
    if (chosen->length > (size_t)n) cli_printf(app, "... and %zu more (--most N)\n", chosen->length - (size_t)n);
    if (left_out->length) cli_printf(app, "\nleft out:\n");
    for (const sl_json *item = left_out->first; item; item = item->next) {
        const sl_json *reasons = sl_json_get(item, "reasons"), *last = NULL;
        for (const sl_json *one = reasons->first; one; one = one->next) last = one;
        const char *text = last ? sl_json_string(last) : NULL;
        cli_printf(app, "  %-20s %s\n", cli_json_text(item, "name"), text ? text : "");
    }
    cli_printf(app, "\nOrdered by %s.\n", cli_json_text(root, "evidence"));
}

static int report(cli_app *app, const choose_values *v, const char *text) {
    sl_arena arena = {0};
    sllm_error error = {0};
    const sl_json *root = NULL;
    int status = CLI_OK;
    if (v->hub.json) cli_printf(app, "%s\n", text);
    else if (sl_json_parse(&arena, text, strlen(text), "report", &root, &error)) status = cli_error(app, &error);
    else print_report(app, v, root);
    sl_arena_free(&arena);
    return status;
}

static int run_choose(cli_app *app, const void *given, int n_arguments, char **arguments) {
    const choose_values *v = given;
    sllm_machine_speed speed;
    sllm_choose_params params = {.task = v->task, .language = v->language, .latency_s = v->latency, .n_prompt = v->prompt,
                                 .n_answer = v->answer, .n_ctx = v->ctx, .commercial = v->commercial, .speed = &speed};
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    char *text = NULL;
    (void)n_arguments, (void)arguments;
    if (v->ram && !read_size(v->ram, &params.ram))
        return cli_usage(app, "--ram %s: must be a size, such as 4G, 512M or 4GiB", v->ram);
    int status = cli_hub_open(app, &v->hub, NULL, &hub);
    if (!status) status = cli_machine_speed(app, v->threads, v->measure ? CLI_SPEED_AGAIN : CLI_SPEED_KEPT, &speed);
    if (!status && sllm_hub_choose(hub, &params, &text, &error)) status = cli_error(app, &error);
    if (!status) status = report(app, v, text);
    sllm_free(text);
    sllm_hub_close(hub);
    return status;
}

static const cli_option choose_options[] = {
    {"task", 0, CLI_TEXT, "TASK", "chat", .offset = offsetof(choose_values, task),
     .help = "What it is for: chat, question answering, summarisation, rewriting, translation, classification, "
             "extraction, reasoning, code, fill in the middle, tool calling, text continuation, embeddings; or a usual other word"},
    {"language", 0, CLI_TEXT, "CODE", .offset = offsetof(choose_values, language),
     .help = "Only models whose makers name this language (en, fr, zh ...) or call them multilingual"},
    {"ram", 0, CLI_TEXT, "SIZE", .offset = offsetof(choose_values, ram),
     .help = "Memory that the process may take: 4G, 512M (powers of ten), 4GiB; without it what is free"},
    {"latency", 0, CLI_FLOAT, "SECONDS", "0", 0, 1e9, .offset = offsetof(choose_values, latency),
     .help = "Most seconds until the whole answer is there, prompt included, the model being loaded; 0: any"},
    {"prompt", 0, CLI_INT, "N", "512", 1, 1 << 24, .offset = offsetof(choose_values, prompt),
     .help = "Tokens of the prompt that latency is told for"},
    {"answer", 0, CLI_INT, "N", "128", 1, 1 << 24, .offset = offsetof(choose_values, answer),
     .help = "Tokens of the answer that latency is told for"},
    {"ctx", 'c', CLI_INT, "N", "0", 0, 1 << 24, .offset = offsetof(choose_values, ctx),
     .help = "Positions of the context that memory is planned for; 0: prompt and answer"},
    {"commercial", 0, CLI_FLAG, .offset = offsetof(choose_values, commercial),
     .help = "Only models that may be used commercially, be it with conditions"},
    {"most", 0, CLI_INT, "N", "10", 1, 1000, .offset = offsetof(choose_values, most), .help = "Models shown (JSON has all)"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(choose_values, threads),
     .help = "Threads of one forward pass; without it all that the process may use"},
    {"measure", 0, CLI_FLAG, .offset = offsetof(choose_values, measure),
     .help = "Measure this machine again first, in place of what was measured before"},
    {0},
};
static const cli_group choose_groups[] = {{"Conditions", choose_options, 0},
                                          {"Options", cli_hub_options, offsetof(choose_values, hub)},
                                          {0}};

const cli_command cli_command_choose = {
    .name = "choose",
    .arguments = "",
    .summary = "Rank the catalogue for a task, a language, a licence, and the memory and speed of this machine",
    .details =
        "Quality is what the models' makers published, each with its source in --json; it was not measured here, and a "
        "quantised file does a little worse. Memory and speed are planned from this machine's measured figures (`sllm show "
        "--cpu`): for a model in the cache from its own headers, for others from the sizes that the catalogue knows. "
        "A licence's conditions are summed up; the licence decides, and this is not legal advice.",
    .groups = choose_groups,
    .values_size = sizeof(choose_values),
    .max_arguments = 0,
    .run = run_choose,
};
