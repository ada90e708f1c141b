/* What Jinja's compiler refuses, and what a macro's body needs: one walk over the finished tree. */
#include "text/jinja.h"

typedef struct place {
    bool soft;    /* inside an `if`: unknown filters and tests fail only when they are reached */
    bool in_loop; /* break and continue may stand here */
} place;

static void check(jinja *j, jinja_program *program, jinja_node *node, place at);

static void check_all(jinja *j, jinja_program *program, jinja_node **nodes, size_t n, place at) {
    for (size_t i = 0; i < n; i++) check(j, program, nodes[i], at);
}

static void check_entry(jinja *j, const jinja_node *node, place at) {
    if (node->entry || at.soft) return;
    j->line = node->line;
    const jinja_string *name = node->value.as.string;
    sl_jinja_fail(j, "TemplateAssertionError", "No %s named '%.*s'.", node->kind == JINJA_FILTER ? "filter" : "test",
                  (int)name->length, name->data);
}

/* ---------------------------------------------------------------- names that a body uses */

typedef struct wanted {
    const jinja_program *program;
    const char *text[3];
    bool found[3], stored[3];
} wanted;

static void look(jinja *j, wanted *w, const jinja_node *node, bool store);

static void look_all(jinja *j, wanted *w, jinja_node *const *nodes, size_t n, bool store) {
    for (size_t i = 0; i < n; i++) look(j, w, nodes[i], store);
}

static void look_name(wanted *w, int name, bool store) {
    for (int i = 0; i < 3; i++) {
        if (!w->text[i] || !sl_jinja_string_is(w->program->names[name], w->text[i])) continue;
        if (store) w->stored[i] = true;
        else if (!w->stored[i]) w->found[i] = true;
    }
}

/* Walks in the order in which Jinja visits the children; a name that is stored first is an ordinary variable. */
static void look(jinja *j, wanted *w, const jinja_node *node, bool store) {
    if (!node || node->kind == JINJA_BLOCK) return;
    sl_jinja_enter(j);
    if (node->kind == JINJA_NAME) {
        look_name(w, node->name, store);
    } else {
        bool is_target = node->kind == JINJA_FOR || node->kind == JINJA_SET || node->kind == JINJA_SET_BLOCK;
        if (node->kind == JINJA_MACRO_DEF || node->kind == JINJA_CALL_BLOCK)
            for (size_t i = 0; i < node->n_names; i++) look_name(w, node->names[i], true);
        look(j, w, node->a, is_target || store);
        look_all(j, w, node->items, node->n_items, node->kind == JINJA_WITH || store);
        look(j, w, node->b, false);
        if (node->kind == JINJA_FOR) {
            look_all(j, w, node->body, node->n_body, false);
            look_all(j, w, node->other, node->n_other, false);
            look(j, w, node->c, false);
        } else {
            look(j, w, node->c, false);
            look_all(j, w, node->other, node->n_other, false);
            look_all(j, w, node->body, node->n_body, false);
        }
    }
    sl_jinja_leave(j);
}

static void check_macro(jinja *j, jinja_program *program, jinja_node *node) {
    wanted w = {.program = program, .text = {"caller", "kwargs", "varargs"}};
    look_all(j, &w, node->body, node->n_body, false);
    node->uses_caller = w.found[0];
    node->uses_kwargs = w.found[1];
    node->uses_varargs = w.found[2];
    for (size_t i = 0; i < node->n_names; i++) {
        if (sl_jinja_string_is(program->names[node->names[i]], "kwargs")) node->uses_kwargs = false;
        if (sl_jinja_string_is(program->names[node->names[i]], "varargs")) node->uses_varargs = false;
        if (!sl_jinja_string_is(program->names[node->names[i]], "caller") || !node->uses_caller) continue;
        j->line = node->line;
        if (i < node->n_names - node->n_other)
            sl_jinja_fail(j, "TemplateAssertionError",
                          "the special \"caller\" argument must be omitted or be given a default");
    }
}

/* A `for` whose body assigns to `loop`. */
static void check_loop_name(jinja *j, const jinja_program *program, const jinja_node *node) {
    wanted w = {.program = program, .text = {"loop"}};
    look(j, &w, node, false);
    j->line = node->line;
    if (w.stored[0])
        sl_jinja_fail(j, "TemplateAssertionError", "Can't assign to special loop variable in for-loop target");
}

/* ---------------------------------------------------------------- constants */

static bool are_constant(jinja_node *const *nodes, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!nodes[i]->constant) return false;
    return true;
}

/* Filters that look at the context are not computed ahead. */
static bool needs_context(const jinja_node *filter) {
    static const char *const names[] = {"map", "select", "reject", "selectattr", "rejectattr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sl_jinja_string_is(filter->value, names[i])) return true;
    return false;
}

static bool is_constant(const jinja_node *node) {
    bool filter = node->kind == JINJA_FILTER, test = node->kind == JINJA_TEST;
    if (node->kind > JINJA_COMPARE || node->kind == JINJA_NAME || node->kind == JINJA_CALL) return false;
    if ((filter || test) && (!node->entry || (filter && (!node->a || needs_context(node))))) return false;
    return (!node->a || node->a->constant) && (!node->b || node->b->constant) && (!node->c || node->c->constant) &&
           are_constant(node->items, node->n_items) && are_constant(node->other, node->n_other);
}

/* A slice of what has none fails when it is reached but is undefined when Jinja computes it ahead: as what is written
 * out, or within another constant. */
static void fold_slice(jinja_node *node) {
    if (node && node->kind == JINJA_GETITEM && node->b->kind == JINJA_SLICE) node->flag = node->constant;
}

static void mark_constant(jinja_node *node) {
    node->constant = is_constant(node);
    if (!node->constant && node->kind != JINJA_OUTPUT) return;
    fold_slice(node->a);
    fold_slice(node->b);
    fold_slice(node->c);
    for (size_t i = 0; i < node->n_items; i++) fold_slice(node->items[i]);
    for (size_t i = 0; i < node->n_other; i++) fold_slice(node->other[i]);
}

/* ---------------------------------------------------------------- the walk */

static void check_for(jinja *j, jinja_program *program, jinja_node *node, place at) {
    check_loop_name(j, program, node);
    check(j, program, node->b, at);
    if (node->c) check(j, program, node->c, (place){0});
    check_all(j, program, node->body, node->n_body, (place){.in_loop = true});
    check_all(j, program, node->other, node->n_other, (place){.in_loop = at.in_loop});
}

static void check(jinja *j, jinja_program *program, jinja_node *node, place at) {
    place inner = {.in_loop = at.in_loop};
    if (!node) return;
    sl_jinja_enter(j);
    switch ((jinja_kind)node->kind) {
    case JINJA_FOR: check_for(j, program, node, at); break;
    case JINJA_BREAK:
    case JINJA_CONTINUE:
        j->line = node->line;
        if (!at.in_loop) sl_jinja_fail(j, "TemplateSyntaxError", "'break' and 'continue' belong inside a loop");
        break;
    case JINJA_MACRO_DEF:
    case JINJA_CALL_BLOCK:
        check_macro(j, program, node);
        check_all(j, program, node->other, node->n_other, (place){0});
        check_all(j, program, node->body, node->n_body, (place){0});
        check(j, program, node->a, at);
        break;
    case JINJA_IF:
    case JINJA_COND: at.soft = true; /* fall through */
    default:
        if (node->kind == JINJA_FILTER || node->kind == JINJA_TEST) check_entry(j, node, at);
        if (node->kind == JINJA_SCOPE && !node->a) check_macro(j, program, node);
        if (node->kind == JINJA_BLOCK || node->kind == JINJA_SCOPE) inner.in_loop = false; /* functions of their own */
        bool is_scope = node->kind == JINJA_WITH || node->kind == JINJA_SCOPE || node->kind == JINJA_BLOCK ||
                        node->kind == JINJA_FILTER_BLOCK || node->kind == JINJA_SET_BLOCK;
        check(j, program, node->a, at);
        check(j, program, node->b, is_scope ? inner : at);
        check(j, program, node->c, at);
        check_all(j, program, node->items, node->n_items, at);
        check_all(j, program, node->body, node->n_body, is_scope ? inner : at);
        check_all(j, program, node->other, node->n_other, at);
    }
    mark_constant(node);
    sl_jinja_leave(j);
}

void sl_jinja_check(jinja *j, jinja_program *program) {
    check_all(j, program, program->body, program->n_body, (place){0});
}
