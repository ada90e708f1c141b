/* Compiling and rendering: the outside of the Jinja interpreter. */
#include "text/template.h"

#include "base/error.h"
#include "text/jinja.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct sl_template {
    sl_arena arena;
    jinja_program program;
    bool says_content; /* the source holds the word "content": transformers asks before it continues a message */
};

enum { COMPILE_MEMORY = 256 << 20, MAX_DEPTH = 400, NESTING_PER_CALL = 16, COMPILE_NESTING = 200 };

void sl_template_free(sl_template *tmpl) {
    if (!tmpl) return;
    sl_arena_free(&tmpl->arena);
    free(tmpl);
}

/* What longjmp returns over lives in *j and *tmpl, never in a register of this function. */
static sllm_status compile(jinja *j, sl_template *tmpl, const char *source, size_t length) {
    if (setjmp(j->on_failure)) return j->status;
    sl_jinja_parse(j, source, length, &tmpl->program);
    j->nesting_limit = 4000; /* the tree is no deeper than the parser let it be */
    sl_jinja_check(j, &tmpl->program);
    return SLLM_OK;
}

/* printf and strtod must see the "C" locale whatever the program chose; this is per thread. */
static sllm_status in_c_locale(sllm_status (*work)(void *), void *user, sllm_error *error) {
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c) return sl_fail_memory(error, "locale", 0);
    locale_t before = uselocale(c);
    sllm_status status = work(user);
    uselocale(before);
    freelocale(c);
    return status;
}

typedef struct compiling {
    const char *source;
    size_t length;
    sl_template *tmpl;
    sllm_error *error;
} compiling;

static sllm_status compile_work(void *user) {
    compiling *c = user;
    jinja *j = calloc(1, sizeof *j);
    if (!j) return sl_fail_memory(c->error, "chat template", sizeof *j);
    c->tmpl->arena.limit = COMPILE_MEMORY;
    j->arena = &c->tmpl->arena;
    j->error = c->error;
    j->nesting_limit = COMPILE_NESTING;
    sllm_status status = compile(j, c->tmpl, c->source, c->length);
    free(j);
    return status;
}

sllm_status sl_template_compile(const char *source, size_t length, sl_template **tmpl, sllm_error *error) {
    *tmpl = NULL;
    sl_template *made = calloc(1, sizeof *made);
    if (!made) return sl_fail_memory(error, "chat template", sizeof *made);
    made->says_content = memmem(source, length, "content", 7) != NULL;
    compiling c = {source, length, made, error};
    sllm_status status = in_c_locale(compile_work, &c, error);
    if (status != SLLM_OK) {
        sl_template_free(made);
        return status;
    }
    *tmpl = made;
    return SLLM_OK;
}

/* ---------------------------------------------------------------- rendering */

void sl_jinja_render(jinja *j, jinja_value variables) {
    const jinja_program *program = j->program;
    jinja_scope *scope = sl_jinja_scope_new(j, NULL);
    scope->values = sl_jinja_array(j, program->n_names, sizeof *scope->values);
    for (size_t i = 0; i < program->n_names; i++) {
        const jinja_value *given = sl_jinja_dict_get(j, variables.as.dict, program->names[i]);
        scope->values[i] = given ? *given : sl_jinja_global(j, program->names[i]);
        if (sl_jinja_string_is(program->names[i], "self")) scope->values[i].type = JINJA_TEMPLATE;
    }
    j->globals = scope;
    sl_jinja_run(j, program);
}

static sllm_status run(jinja *j, void (*work)(jinja *j, void *user), void *user) {
    if (setjmp(j->on_failure)) return j->status;
    work(j, user);
    return SLLM_OK;
}

typedef struct rendering {
    const sl_template *tmpl;
    const char *now;
    sl_template_limits limits;
    sl_buffer *out;
    sllm_error *error;
    void (*work)(jinja *j, void *user);
    void *user;
} rendering;

static sllm_status render_work(void *user) {
    rendering *r = user;
    const sl_template_limits *limits = &r->limits;
    sl_arena arena = {.limit = limits->memory_bytes ? limits->memory_bytes : (size_t)256 << 20};
    jinja *j = calloc(1, sizeof *j);
    if (!j) return sl_fail_memory(r->error, "chat template", sizeof *j);
    j->arena = &arena;
    j->error = r->error;
    j->program = &r->tmpl->program;
    j->out = r->out;
    j->now = r->now;
    j->step_limit = limits->steps ? limits->steps : 10000000;
    j->output_limit = limits->output_bytes ? limits->output_bytes : (size_t)64 << 20;
    j->call_limit = limits->depth > 0 ? limits->depth : 200;
    if (j->call_limit > MAX_DEPTH) j->call_limit = MAX_DEPTH;
    j->nesting_limit = j->call_limit * NESTING_PER_CALL;
    if (getrandom(&j->hash_seed, sizeof j->hash_seed, GRND_NONBLOCK) < 0) j->hash_seed = (uintptr_t)j;
    sllm_status status = run(j, r->work, r->user);
    sl_arena_free(&arena);
    free(j);
    return status;
}

sllm_status sl_jinja_work(const sl_template *tmpl, const char *now, const sl_template_limits *limits, sl_buffer *out,
                          sllm_error *error, void (*work)(jinja *j, void *user), void *user) {
    size_t before = out->length;
    sllm_error ignored;
    if (!error) error = &ignored;
    rendering r = {tmpl, now, {0}, out, error, work, user};
    if (limits) r.limits = *limits;
    sllm_status status = in_c_locale(render_work, &r, error);
    if (status != SLLM_OK && out->data) { /* nothing half-written stays */
        out->length = before;
        out->data[before] = 0;
    }
    return status;
}

static void render_json(jinja *j, void *user) {
    const sl_json *vars = user;
    sl_jinja_render(j, vars ? sl_jinja_from_json(j, vars) : sl_jinja_dict_new(j));
}

sllm_status sl_template_render(const sl_template *tmpl, const sl_json *vars, const char *now,
                               const sl_template_limits *limits, sl_buffer *out, sllm_error *error) {
    if (vars && vars->type != SL_JSON_OBJECT)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the variables of a template are a JSON object");
    return sl_jinja_work(tmpl, now, limits, out, error, render_json, (void *)vars);
}

bool sl_jinja_says_content(const sl_template *tmpl) { return tmpl->says_content; }
