/* Ranking the catalogue for a task and a machine. Quality is what the makers published; memory and speed are planned. */
#include "hub/choose.h"

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "model/plan.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_REASONS = 8, REASON = 400 };

/* A model of the catalogue under consideration. */
typedef struct candidate {
    const sl_json *entry;
    size_t order;                /* in the catalogue */
    bool chosen, cached, stated; /* stated: its makers name the task */
    double standing, answer_s;
    char type[24];               /* of the file that counts */
    size_t source;               /* its index in "sources" */
    sllm_plan plan;
    char reasons[MOST_REASONS][REASON];
    int n_reasons;
} candidate;

typedef struct choice {
    sllm_hub *hub;
    const sllm_choose_params *params;
    const sl_task *task;
    uint64_t ram;
    int n_prompt, n_answer, n_ctx;
} choice;

static void because(candidate *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void because(candidate *c, const char *format, ...) {
    va_list list;
    if (c->n_reasons == MOST_REASONS) return;
    va_start(list, format);
    vsnprintf(c->reasons[c->n_reasons++], REASON, format, list);
    va_end(list);
}

static const char *text_of(const sl_json *object, const char *key) {
    const char *text = sl_json_string(sl_json_get(object, key));
    return text ? text : "";
}

static bool holds(const sl_json *array, const char *text) {
    for (const sl_json *item = array ? array->first : NULL; item; item = item->next)
        if (sl_json_string(item) && !strcasecmp(sl_json_string(item), text)) return true;
    return false;
}

/* ---------------------------------------------------------------- conditions of words */

static bool meets_task(const choice *ch, candidate *c) {
    const sl_json *tasks = sl_json_get(c->entry, "tasks");
    c->stated = holds(tasks, ch->task->name);
    if (c->stated) {
        because(c, "its makers name %s", ch->task->name);
        return true;
    }
    if (ch->task->general && holds(tasks, "chat")) {
        because(c, "a model that follows instructions; its makers do not name %s", ch->task->name);
        return true;
    }
    because(c, "not made for %s", ch->task->name);
    return false;
}

static bool meets_language(const choice *ch, candidate *c) {
    const sl_json *languages = sl_json_get(c->entry, "languages");
    const char *wanted = ch->params->language;
    if (!wanted || holds(languages, wanted)) return true;
    if (holds(languages, "multilingual")) {
        because(c, "multilingual; its makers do not list %s by itself", wanted);
        return true;
    }
    because(c, "its makers do not name the language %s", wanted);
    return false;
}

static bool meets_licence(const choice *ch, candidate *c) {
    const sl_json *licence = sl_json_get(c->entry, "licence"), *use = sl_json_get(licence, "commercial_use");
    bool allowed = false, is_flag = sl_json_bool(use, &allowed);
    if (is_flag && !allowed) {
        because(c, "%s: no commercial use. %s", text_of(licence, "name"), text_of(licence, "note"));
        return !ch->params->commercial;
    }
    if (is_flag) because(c, "%s: commercial use allowed", text_of(licence, "name"));
    else because(c, "%s: commercial use with conditions. %s", text_of(licence, "name"), text_of(licence, "note"));
    return true;
}

/* ---------------------------------------------------------------- files */

/* The plan type of a source by its file's name ("...-Q4_K_M.gguf"); a checkpoint is bf16, as all of the catalogue are. */
static void type_of_source(const sl_json *source, char *type, size_t size) {
    const char *file = text_of(source, "file");
    snprintf(type, size, "%s", file[0] ? "q4_k_m" : "bf16");
    size_t longest = 0;
    for (const char *const *known = sl_plan_types(); *known && file[0]; known++)
        for (const char *at = file; *at; at++)
            if (!strncasecmp(at, *known, strlen(*known)) && strlen(*known) > longest) {
                longest = strlen(*known);
                snprintf(type, size, "%s", *known);
            }
}

/* Is this very file of the model in the cache? Its headers then say more than the shape. */
static char *path_in_cache(const choice *ch, const sl_json *entry, size_t index) {
    sl_source source;
    sl_manifest manifest;
    char *path = NULL;
    if (!sl_source_of_entry(entry, index, &source) || sl_manifest_read(ch->hub, source.id, &manifest, NULL)) return NULL;
    bool whole = sl_manifest_is_whole(ch->hub, &manifest);
    sl_manifest_free(&manifest);
    if (whole && !sllm_hub_resolve(ch->hub, text_of(entry, "name"), &path, NULL)) return path;
    return NULL;
}

static sllm_status plan_source(const choice *ch, candidate *c, size_t index, sllm_error *error) {
    sllm_plan_params wanted = {.n_ctx = ch->n_ctx, .n_prompt = ch->n_prompt, .n_threads = ch->params->speed->n_threads,
                               .speed = ch->params->speed};
    sl_arena arena = {0};
    sl_config config = {0};
    char *path = path_in_cache(ch, c->entry, index);
    c->source = index;
    c->cached = path != NULL;
    type_of_source(sl_json_at(sl_json_get(c->entry, "sources"), index), c->type, sizeof c->type);
    sllm_status status;
    if (path) {
        status = sl_plan_file(path, &wanted, &c->plan, error);
    } else {
        wanted.type = c->type;
        status = sl_shape_config(c->entry, &arena, &config, error);
        sl_plan_subject subject = {.config = &config, .n_threads = wanted.n_threads};
        if (!status) status = sl_plan_make(&subject, &wanted, &c->plan, error);
    }
    if (!status) c->answer_s = c->plan.time_to_first_token_s + ch->n_answer / c->plan.tokens_per_second;
    sl_arena_free(&arena);
    free(path);
    return status;
}

static bool meets_numbers(const choice *ch, candidate *c, bool tell) {
    double latency = ch->params->latency_s;
    bool fits = c->plan.total_bytes <= ch->ram, quick = latency <= 0 || c->answer_s <= latency;
    if (!fits && tell)
        because(c, "as %s it takes %.1f GB and %.1f GB may be used", c->type, (double)c->plan.total_bytes / 1e9,
                (double)ch->ram / 1e9);
    if (!quick && tell)
        because(c, "as %s an answer of %d tokens to %d takes %.1f s and may take %.1f s", c->type, ch->n_answer,
                ch->n_prompt, c->answer_s, latency);
    return fits && quick;
}

/* Would it do in four bits, were there such a file? */
static void tell_of_quantised(const choice *ch, candidate *c) {
    sllm_plan_params wanted = {.type = "q4_k_m", .n_ctx = ch->n_ctx, .n_prompt = ch->n_prompt, .speed = ch->params->speed};
    candidate four = {.entry = c->entry, .type = "q4_k_m"};
    sl_arena arena = {0};
    sl_config config = {0};
    sl_plan_subject subject = {.config = &config, .n_threads = ch->params->speed->n_threads};
    if (!sl_shape_config(c->entry, &arena, &config, NULL) && !sl_plan_make(&subject, &wanted, &four.plan, NULL)) {
        four.answer_s = four.plan.time_to_first_token_s + ch->n_answer / four.plan.tokens_per_second;
        if (meets_numbers(ch, &four, false))
            because(c, "as q4_k_m it would take %.1f GB; the catalogue has no such file of it",
                    (double)four.plan.total_bytes / 1e9);
    }
    sl_arena_free(&arena);
}

/* Of the model's files the first that meets memory and time. */
static bool meets_machine(const choice *ch, candidate *c) {
    size_t n = sl_json_get(c->entry, "sources")->length;
    for (int tell = 0; tell < 2; tell++)
        for (size_t i = 0; i < n; i++) {
            sllm_error error = {0};
            if (plan_source(ch, c, i, &error)) {
                if (tell) because(c, "%s", error.message);
            } else if (meets_numbers(ch, c, tell)) {
                return true;
            }
        }
    tell_of_quantised(ch, c);
    return false;
}

static void consider(const choice *ch, candidate *c) {
    bool runnable = false;
    int64_t context = 0;
    sl_json_bool(sl_json_get(c->entry, "runnable"), &runnable);
    sl_json_int64(sl_json_get(c->entry, "context"), &context);
    c->standing = sl_task_standing(ch->task, ch->hub->models, c->entry);
    if (!runnable) because(c, "%s", text_of(c->entry, "note"));
    if (context < ch->n_ctx) because(c, "its context of %lld is less than %d", (long long)context, ch->n_ctx);
    if (!runnable || context < ch->n_ctx || !meets_task(ch, c) || !meets_language(ch, c) || !meets_licence(ch, c) ||
        !meets_machine(ch, c))
        return;
    c->chosen = true;
    because(c, "%.1f GB of the %.1f GB that may be used, as %s", (double)c->plan.total_bytes / 1e9, (double)ch->ram / 1e9,
            c->type);
    if (c->standing >= 0) because(c, "better than %.0f %% of the models with the same benchmarks", 100 * c->standing);
    else because(c, "no figures for this task were found that could be checked: it stands behind those that have some");
}

/* ---------------------------------------------------------------- the report */

static int64_t parameters_of(const candidate *c) {
    int64_t n = 0;
    sl_json_int64(sl_json_get(c->entry, "parameters"), &n);
    return n;
}

/* Chosen before left out; by standing, then size, then the catalogue's order. */
static int compare(const void *left, const void *right) {
    const candidate *a = left, *b = right;
    if (a->chosen != b->chosen) return a->chosen ? -1 : 1;
    if (a->chosen && a->standing != b->standing) return a->standing > b->standing ? -1 : 1;
    if (a->chosen && parameters_of(a) != parameters_of(b)) return parameters_of(a) > parameters_of(b) ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

static void put_reasons(sl_buffer *out, const candidate *c) {
    sl_json_key(out, "reasons");
    sl_buffer_putc(out, '[');
    for (int i = 0; i < c->n_reasons; i++) {
        sl_json_comma(out);
        sl_json_write_string(out, c->reasons[i], strlen(c->reasons[i]));
    }
    sl_buffer_putc(out, ']');
}

static void put_benchmarks(sl_buffer *out, const choice *ch, const candidate *c) {
    const sl_json *benchmarks = sl_json_get(c->entry, "benchmarks");
    sl_json_key(out, "benchmarks");
    sl_buffer_putc(out, '[');
    for (const char *const *family = ch->task->evidence; *family; family++)
        for (const sl_json *one = benchmarks->first; one; one = one->next) {
            if (!sl_benchmark_is(text_of(one, "name"), *family)) continue;
            sl_json_comma(out);
            sl_json_write_value(out, one);
            break;
        }
    sl_buffer_putc(out, ']');
}

static void put_chosen(sl_buffer *out, const choice *ch, const candidate *c, int rank) {
    const sl_json *licence = sl_json_get(c->entry, "licence");
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_int(out, "rank", rank);
    sl_json_put_string(out, "name", text_of(c->entry, "name"));
    sl_json_put_string(out, "title", text_of(c->entry, "title"));
    sl_json_put_int(out, "parameters", parameters_of(c));
    sl_json_put_string(out, "type", c->type);
    sl_json_key(out, "source");
    sl_json_write_value(out, sl_json_at(sl_json_get(c->entry, "sources"), c->source));
    sl_json_put_bool(out, "cached", c->cached);
    sl_json_put_int(out, "memory_bytes", (int64_t)c->plan.total_bytes);
    sl_json_put_double(out, "tokens_per_second", c->plan.tokens_per_second);
    sl_json_put_double(out, "prompt_tokens_per_second", c->plan.prompt_tokens_per_second);
    sl_json_put_double(out, "time_to_first_token_s", c->plan.time_to_first_token_s);
    sl_json_put_double(out, "answer_s", c->answer_s);
    sl_json_key(out, "standing");
    if (c->standing >= 0) sl_json_write_double(out, c->standing);
    else sl_buffer_puts(out, "null");
    put_benchmarks(out, ch, c);
    sl_json_put_string(out, "task", c->stated ? "stated" : "general");
    sl_json_put_string(out, "licence", text_of(licence, "id"));
    sl_json_key(out, "commercial_use");
    sl_json_write_value(out, sl_json_get(licence, "commercial_use"));
    put_reasons(out, c);
    sl_buffer_putc(out, '}');
}

static void put_report(sl_buffer *out, const choice *ch, const candidate *list, size_t n) {
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "task", ch->task->name);
    sl_json_put_int(out, "ram_bytes", (int64_t)ch->ram);
    sl_json_put_int(out, "ctx", ch->n_ctx);
    sl_json_put_int(out, "prompt_tokens", ch->n_prompt);
    sl_json_put_int(out, "answer_tokens", ch->n_answer);
    sl_json_put_string(out, "evidence", "benchmarks that the makers published (none measured here, and none of the "
                       "quantised file): the share of the catalogue's other models with the same benchmark that a model "
                       "is better than, averaged; settings differ between makers");
    sl_json_key(out, "chosen");
    sl_buffer_putc(out, '[');
    size_t i = 0;
    for (; i < n && list[i].chosen; i++) put_chosen(out, ch, &list[i], (int)i + 1);
    sl_buffer_putc(out, ']');
    sl_json_key(out, "left_out");
    sl_buffer_putc(out, '[');
    for (; i < n; i++) {
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        sl_json_put_string(out, "name", text_of(list[i].entry, "name"));
        put_reasons(out, &list[i]);
        sl_buffer_putc(out, '}');
    }
    sl_buffer_puts(out, "]}");
}

/* ---------------------------------------------------------------- arguments */

static bool is_language(const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if (!isalpha((unsigned char)text[i])) return false;
    return n == 2 || n == 3 || !strcasecmp(text, "code");
}

static sllm_status read_params(sllm_hub *hub, const sllm_choose_params *p, choice *ch, sllm_error *error) {
    char known[400];
    *ch = (choice){.hub = hub, .params = p, .task = sl_task_find(p->task ? p->task : "chat"), .ram = p->ram,
                   .n_prompt = p->n_prompt ? p->n_prompt : 512, .n_answer = p->n_answer ? p->n_answer : 128};
    sl_task_list(known, sizeof known);
    if (!ch->task)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "unknown task '%.60s'; known are %s", p->task, known);
    if (p->language && !is_language(p->language))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "language '%.40s': a code is needed, such as en, de or zh", p->language);
    if (!p->speed || !(p->speed->read_n > 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choosing needs the machine's figures (sllm_machine_measure)");
    if (ch->n_prompt < 1 || ch->n_answer < 1 || ch->n_prompt > 1 << 24 || ch->n_answer > 1 << 24 || p->n_ctx < 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a prompt of %d and an answer of %d tokens cannot be", ch->n_prompt,
                       ch->n_answer);
    ch->n_ctx = p->n_ctx ? p->n_ctx : ch->n_prompt + ch->n_answer;
    if (ch->n_ctx < ch->n_prompt + ch->n_answer)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a context of %d does not hold a prompt of %d and an answer of %d "
                       "tokens", ch->n_ctx, ch->n_prompt, ch->n_answer);
    if (ch->ram) return SLLM_OK;
    sllm_machine machine;
    sl_machine_read(&machine);
    ch->ram = machine.memory_free;
    return SLLM_OK;
}

sllm_status sllm_hub_choose(sllm_hub *hub, const sllm_choose_params *params, char **json, sllm_error *error) {
    choice ch;
    sl_buffer out = {0};
    size_t n = 0;
    if (json) *json = NULL;
    if (!hub || !params || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "hub, params and json must be given");
    sllm_status status = read_params(hub, params, &ch, error);
    if (status) return status;
    candidate *list = calloc(hub->models->length ? hub->models->length : 1, sizeof *list);
    if (!list) return sl_fail_memory(error, "the list of models", 0);
    for (const sl_json *entry = hub->models->first; entry; entry = entry->next, n++) {
        list[n].entry = entry, list[n].order = n;
        consider(&ch, &list[n]);
    }
    qsort(list, n, sizeof *list, compare);
    put_report(&out, &ch, list, n);
    free(list);
    *json = sl_buffer_take(&out, NULL);
    return *json ? SLLM_OK : sl_fail_memory(error, "the report", 0);
}
