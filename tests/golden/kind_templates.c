/* Chat templates: DIR/cases.jsonl over DIR/src, one line a template; DIR/jinja/cases.jsonl, one line for all. The clock
 * stands at the moment the reference was made. */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "golden/golden.h"
#include "text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char now[] = "2026-01-15T09:30:00";

typedef struct tally {
    int right, all;
} tally;

typedef struct counts {
    tally texts, raised, failures;
    double seconds;
    char first[600]; /* what went wrong first */
} counts;

static void note(counts *c, const char *format, const char *name, const char *got, const char *want) {
    if (!c->first[0]) snprintf(c->first, sizeof c->first, format, name, got, want);
}

/* Compares one outcome with the case's "expected" or "error". */
static void judge(counts *c, const sl_json *wanted, const char *name, sllm_status status, const sl_buffer *out,
                  const sllm_error *error) {
    const sl_json *text = sl_json_get(wanted, "expected"), *failure = sl_json_get(wanted, "error");
    const char *type = sl_json_string(sl_json_get(failure, "type"));
    bool raised = type && !strcmp(type, "TemplateError");
    tally *t = text ? &c->texts : raised ? &c->raised : &c->failures;
    bool ok;
    if (text) {
        ok = status == SLLM_OK && out->length == text->length &&
             (!text->length || !memcmp(out->data, text->text, text->length));
    } else if (raised) {
        const char *message = sl_json_string(sl_json_get(failure, "message"));
        ok = status != SLLM_OK && error->raised && message && !strcmp(error->message, message);
    } else {
        ok = status == SLLM_ERROR_TEMPLATE && !error->raised;
    }
    t->all++;
    t->right += ok;
    if (!ok)
        note(c, "; first: %s: got '%.200s', expected '%.200s'", name,
             status == SLLM_OK ? out->data ? out->data : "" : error->message,
             text ? text->text : sl_json_string(sl_json_get(failure, "message")));
}

static void report(golden *g, const char *name, const counts *c) {
    bool ok = c->texts.right == c->texts.all && c->raised.right == c->raised.all &&
              c->failures.right == c->failures.all;
    (ok ? golden_pass : golden_fail)(g, name, "texts %d of %d, raised %d of %d, failures %d of %d, %.0f ms%s",
                                     c->texts.right, c->texts.all, c->raised.right, c->raised.all, c->failures.right,
                                     c->failures.all, c->seconds * 1e3, c->first);
}

/* Calls visit for every line of a JSON Lines file. */
static bool each_line(const char *path, void (*visit)(const sl_json *line, void *user), void *user) {
    sl_buffer text = {0};
    sllm_error error;
    if (sl_file_read(path, (size_t)1 << 30, &text, &error) != SLLM_OK) {
        sl_buffer_free(&text);
        return false;
    }
    for (char *p = text.data, *end = text.data + text.length; p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p);
        sl_arena arena = {0};
        const sl_json *json;
        if (length && sl_json_parse(&arena, p, length, path, &json, &error) == SLLM_OK) visit(json, user);
        sl_arena_free(&arena);
        p += length + 1;
    }
    sl_buffer_free(&text);
    return true;
}

/* ---------------------------------------------------------------- chat templates */

typedef struct chat_state {
    golden *g;
    const char *directory;
    char name[256];
    sl_template *tmpl;
    counts counts;
} chat_state;

static void finish_template(chat_state *s) {
    if (s->name[0]) report(s->g, s->name, &s->counts);
    sl_template_free(s->tmpl);
    s->tmpl = NULL;
    memset(&s->counts, 0, sizeof s->counts);
}

static void start_template(chat_state *s, const char *name) {
    char path[4096];
    sl_buffer source = {0};
    sllm_error error = {0};
    finish_template(s);
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(path, sizeof path, "%s/src/%s.jinja", s->directory, name);
    if (sl_file_read(path, (size_t)16 << 20, &source, &error) == SLLM_OK)
        sl_template_compile(source.data, source.length, &s->tmpl, &error);
    if (!s->tmpl) snprintf(s->counts.first, sizeof s->counts.first, "; %.500s", error.message);
    sl_buffer_free(&source);
}

static void chat_case(const sl_json *json, void *user) {
    chat_state *s = user;
    const char *name = sl_json_string(sl_json_get(json, "template"));
    if (!name) return;
    if (strcmp(name, s->name)) start_template(s, name);
    sl_chat_request request = {.messages = sl_json_get(json, "messages"),
                               .tools = sl_json_get(json, "tools"),
                               .documents = sl_json_get(json, "documents"),
                               .kwargs = sl_json_get(json, "kwargs"),
                               .now = now};
    sl_json_bool(sl_json_get(json, "add_generation_prompt"), &request.add_generation_prompt);
    sl_json_bool(sl_json_get(json, "continue_final_message"), &request.continue_final_message);
    sl_buffer out = {0};
    sllm_error error = {0};
    double start = sl_clock();
    sllm_status status = s->tmpl ? sl_chat_render(s->tmpl, &request, &out, &error) : SLLM_ERROR_NOT_FOUND;
    s->counts.seconds += sl_clock() - start;
    const char *label = sl_json_string(sl_json_get(json, "case"));
    judge(&s->counts, json, label ? label : "?", status, &out, &error);
    sl_buffer_free(&out);
}

/* ---------------------------------------------------------------- small cases */

static void jinja_case(const sl_json *json, void *user) {
    counts *c = user;
    const sl_json *source = sl_json_get(json, "template");
    sl_template *tmpl;
    sl_buffer out = {0};
    sllm_error error = {0};
    if (!source) return;
    double start = sl_clock();
    sllm_status status = sl_template_compile(source->text, source->length, &tmpl, &error);
    if (status == SLLM_OK) status = sl_template_render(tmpl, sl_json_get(json, "vars"), now, NULL, &out, &error);
    c->seconds += sl_clock() - start;
    judge(c, json, source->text, status, &out, &error);
    sl_template_free(tmpl);
    sl_buffer_free(&out);
}

void golden_templates(golden *g, const char *directory) {
    char path[4096];
    chat_state s = {.g = g, .directory = directory};
    counts small = {0};
    snprintf(path, sizeof path, "%s/cases.jsonl", directory);
    if (each_line(path, chat_case, &s)) finish_template(&s);
    else golden_skip(g, "cases", "no %s", path);
    snprintf(path, sizeof path, "%s/jinja/cases.jsonl", directory);
    if (each_line(path, jinja_case, &small)) report(g, "jinja/cases", &small);
    else golden_skip(g, "jinja/cases", "no %s", path);
}
