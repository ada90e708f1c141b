/* Expressions. */
#include "text/jinja.h"

#include <string.h>

jinja_value sl_jinja_lookup(jinja *j, jinja_scope *scope, int name) {
    for (; scope->parent; scope = scope->parent)
        for (int i = scope->length; i-- > 0;)
            if (scope->names[i] == name) return scope->values[i];
    (void)j;
    return scope->values[name];
}

static jinja_value eval_name(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value value = sl_jinja_lookup(j, scope, node->name);
    return value.type == JINJA_MISSING ? sl_jinja_undefined_name(j, node->value) : value;
}

static jinja_value eval_items(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value list = sl_jinja_list_new(j, node->n_items);
    for (size_t i = 0; i < node->n_items; i++)
        sl_jinja_list_push(j, list.as.list, sl_jinja_eval(j, scope, node->items[i]));
    if (node->kind == JINJA_TUPLE_EXPR) list.type = JINJA_TUPLE;
    return list;
}

static jinja_value eval_dict(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value dict = sl_jinja_dict_new(j);
    for (size_t i = 0; i < node->n_items; i++) {
        jinja_value key = sl_jinja_eval(j, scope, node->items[i]);
        sl_jinja_dict_set(j, dict.as.dict, key, sl_jinja_eval(j, scope, node->other[i]));
    }
    return dict;
}

static jinja_value eval_or_none(jinja *j, jinja_scope *scope, const jinja_node *node) {
    return node ? sl_jinja_eval(j, scope, node) : sl_jinja_none;
}

static jinja_value eval_item(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value object = sl_jinja_eval(j, scope, node->a);
    if (node->b->kind != JINJA_SLICE) {
        jinja_value key = sl_jinja_eval(j, scope, node->b);
        j->line = node->line;
        return sl_jinja_get_item(j, object, key);
    }
    jinja_value start = eval_or_none(j, scope, node->b->a), stop = eval_or_none(j, scope, node->b->b);
    jinja_value step = eval_or_none(j, scope, node->b->c);
    j->line = node->line;
    if (node->flag && object.type != JINJA_UNDEFINED && !sl_jinja_can_slice(object, start, stop, step))
        return sl_jinja_undefined_hint(j, "the object has no slices");
    return sl_jinja_get_slice(j, object, start, stop, step);
}

/* *args and **kwargs join what is there. */
static void add_dynamic(jinja *j, jinja_args *args, jinja_value positional, jinja_value keywords) {
    if (positional.type != JINJA_MISSING) {
        jinja_value list = sl_jinja_collect(j, positional);
        size_t n = args->length + list.as.list->length;
        jinja_value *items = sl_jinja_array(j, n, sizeof *items);
        if (args->length) memcpy(items, args->items, args->length * sizeof *items);
        if (list.as.list->length)
            memcpy(items + args->length, list.as.list->items, list.as.list->length * sizeof *items);
        args->items = items;
        args->length = n;
    }
    if (keywords.type == JINJA_MISSING) return;
    if (keywords.type != JINJA_DICT) {
        if (keywords.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, keywords);
        sl_jinja_fail(j, "TypeError", "argument after ** must be a mapping, not %s", sl_jinja_type_name(keywords));
    }
    const jinja_dict *dict = keywords.as.dict;
    size_t n = args->named + dict->length + 1;
    jinja_value *names = sl_jinja_array(j, n, sizeof *names), *values = sl_jinja_array(j, n, sizeof *values);
    if (args->named) {
        memcpy(names, args->names, args->named * sizeof *names);
        memcpy(values, args->values, args->named * sizeof *values);
    }
    size_t at = args->named;
    for (size_t i = 0; i < dict->length; i++) {
        if (!jinja_is_str(dict->keys[i])) sl_jinja_fail(j, "TypeError", "keywords must be strings");
        for (size_t k = 0; k < args->named; k++)
            if (sl_jinja_equal(j, names[k], dict->keys[i]))
                sl_jinja_fail(j, "TypeError", "got multiple values for a keyword argument");
        names[at] = dict->keys[i];
        values[at++] = dict->values[i];
    }
    args->names = names;
    args->values = values;
    args->named = at;
}

/* `extra` slots are left free behind the keywords, for the caller of a call block. */
void sl_jinja_eval_args(jinja *j, jinja_scope *scope, const jinja_node *node, jinja_args *args, size_t extra) {
    *args = (jinja_args){.length = node->n_items, .named = node->n_names};
    if (node->n_items) args->items = sl_jinja_array(j, node->n_items, sizeof *args->items);
    for (size_t i = 0; i < node->n_items; i++) args->items[i] = sl_jinja_eval(j, scope, node->items[i]);
    if (node->n_names + extra) {
        args->names = sl_jinja_array(j, node->n_names + extra, sizeof *args->names);
        args->values = sl_jinja_array(j, node->n_names + extra, sizeof *args->values);
    }
    for (size_t i = 0; i < node->n_names; i++) {
        args->names[i] = j->program->names[node->names[i]];
        args->values[i] = sl_jinja_eval(j, scope, node->other[i]);
    }
    if (!node->b && !node->c) return;
    jinja_value positional = node->b ? sl_jinja_eval(j, scope, node->b) : sl_jinja_missing;
    add_dynamic(j, args, positional, node->c ? sl_jinja_eval(j, scope, node->c) : sl_jinja_missing);
}

static jinja_value eval_call(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_args args;
    jinja_value callee = sl_jinja_eval(j, scope, node->a);
    sl_jinja_eval_args(j, scope, node, &args, 0);
    j->line = node->line;
    return sl_jinja_call(j, callee, &args);
}

jinja_value sl_jinja_call(jinja *j, jinja_value callee, const jinja_args *args) {
    switch ((jinja_type)callee.type) {
    case JINJA_FUNCTION: return callee.as.function->call(j, callee.as.function->self, args);
    case JINJA_MACRO: return sl_jinja_call_macro(j, callee.as.macro, args);
    case JINJA_LOOP: {
        static const char *const parameters[] = {"iterable"};
        jinja_value source;
        sl_jinja_bind(j, "loop", args, parameters, 1, 1, &source);
        return sl_jinja_call_loop(j, callee.as.loop, source);
    }
    case JINJA_JOINER: {
        jinja_value separator = callee.as.joiner->used ? callee.as.joiner->separator : sl_jinja_literal(j, "");
        sl_jinja_bind(j, "joiner", args, NULL, 0, 0, NULL);
        callee.as.joiner->used = true;
        return separator;
    }
    case JINJA_UNDEFINED: sl_jinja_fail_undefined(j, callee);
    default: sl_jinja_fail(j, "TypeError", "'%s' object is not callable", sl_jinja_type_name(callee));
    }
}

/* One filter, then the next: a chain nests in `a`; the innermost NULL stands for `value`. */
jinja_value sl_jinja_filter_value(jinja *j, jinja_scope *scope, const jinja_node *node, jinja_value value) {
    jinja_args args;
    if (node->a && value.type != JINJA_MISSING && node->a->kind == JINJA_FILTER)
        value = sl_jinja_filter_value(j, scope, node->a, value);
    else if (node->a) value = sl_jinja_eval(j, scope, node->a);
    const jinja_filter *filter = node->entry;
    j->line = node->line;
    if (!filter)
        sl_jinja_fail(j, "TemplateRuntimeError", "No filter named '%.*s' found.", (int)node->value.as.string->length,
                      node->value.as.string->data);
    sl_jinja_eval_args(j, scope, node, &args, 0);
    j->line = node->line;
    return filter->call(j, value, &args);
}

static jinja_value eval_test(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_args args;
    jinja_value value = sl_jinja_eval(j, scope, node->a);
    const jinja_test *test = node->entry;
    j->line = node->line;
    if (!test)
        sl_jinja_fail(j, "TemplateRuntimeError", "No test named '%.*s' found.", (int)node->value.as.string->length,
                      node->value.as.string->data);
    sl_jinja_eval_args(j, scope, node, &args, 0);
    j->line = node->line;
    return sl_jinja_bool(test->call(j, value, &args));
}

static jinja_value eval_condition(jinja *j, jinja_scope *scope, const jinja_node *node) {
    if (sl_jinja_truth(j, sl_jinja_eval(j, scope, node->a))) return sl_jinja_eval(j, scope, node->b);
    if (node->c) return sl_jinja_eval(j, scope, node->c);
    j->line = node->line;
    return sl_jinja_undefined_hint(j, "the inline if-expression evaluated to false and no else section was defined.");
}

static jinja_value eval_concat(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_text text = {.j = j};
    for (size_t i = 0; i < node->n_items; i++) {
        jinja_value part = sl_jinja_eval(j, scope, node->items[i]);
        j->line = node->line;
        sl_jinja_write_str(&text, part);
    }
    return sl_jinja_text_value(&text);
}

static jinja_value eval_comparison(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value left = sl_jinja_eval(j, scope, node->a);
    for (size_t i = 0; i < node->n_items; i++) {
        jinja_value right = sl_jinja_eval(j, scope, node->items[i]);
        j->line = node->line;
        if (!sl_jinja_compare(j, (jinja_operator)node->ops[i], left, right)) return sl_jinja_false;
        left = right;
    }
    return sl_jinja_true;
}

static jinja_value eval_attribute(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value object = sl_jinja_eval(j, scope, node->a);
    j->line = node->line;
    return sl_jinja_get_attribute(j, object, node->value);
}

static jinja_value eval_binary(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value a = sl_jinja_eval(j, scope, node->a), b = sl_jinja_eval(j, scope, node->b);
    j->line = node->line;
    return sl_jinja_binary(j, (jinja_operator)node->op, a, b);
}

static jinja_value eval_logic(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value a = sl_jinja_eval(j, scope, node->a);
    if (sl_jinja_truth(j, a) == (node->kind == JINJA_OR)) return a;
    return sl_jinja_eval(j, scope, node->b);
}

static jinja_value eval_any(jinja *j, jinja_scope *scope, const jinja_node *node) {
    switch ((jinja_kind)node->kind) {
    case JINJA_CONST: return node->value;
    case JINJA_NAME: return eval_name(j, scope, node);
    case JINJA_TUPLE_EXPR:
    case JINJA_LIST_EXPR: return eval_items(j, scope, node);
    case JINJA_DICT_EXPR: return eval_dict(j, scope, node);
    case JINJA_GETATTR: return eval_attribute(j, scope, node);
    case JINJA_GETITEM: return eval_item(j, scope, node);
    case JINJA_CALL: return eval_call(j, scope, node);
    case JINJA_FILTER: return sl_jinja_filter_value(j, scope, node, sl_jinja_missing);
    case JINJA_TEST: return eval_test(j, scope, node);
    case JINJA_COND: return eval_condition(j, scope, node);
    case JINJA_AND:
    case JINJA_OR: return eval_logic(j, scope, node);
    case JINJA_NOT: return sl_jinja_bool(!sl_jinja_truth(j, sl_jinja_eval(j, scope, node->a)));
    case JINJA_NEG:
    case JINJA_POS: return sl_jinja_negate(j, sl_jinja_eval(j, scope, node->a), node->kind == JINJA_POS);
    case JINJA_BINARY: return eval_binary(j, scope, node);
    case JINJA_CONCAT: return eval_concat(j, scope, node);
    case JINJA_COMPARE: return eval_comparison(j, scope, node);
    default: sl_jinja_fail(j, "TemplateRuntimeError", "not an expression");
    }
}

jinja_value sl_jinja_eval(jinja *j, jinja_scope *scope, const jinja_node *node) {
    if (node->kind == JINJA_CONST) return node->value;
    sl_jinja_enter(j);
    sl_jinja_charge(j, 1);
    j->line = node->line;
    jinja_value value = eval_any(j, scope, node);
    sl_jinja_leave(j);
    return value;
}
