/* Statements, macros and loops. */
#include "text/jinja.h"

#include <string.h>

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static flow exec_body(jinja *j, jinja_scope *scope, jinja_node *const *body, size_t n);

/* ---------------------------------------------------------------- scopes and output */

jinja_scope *sl_jinja_scope_new(jinja *j, jinja_scope *parent) {
    jinja_scope *scope = sl_jinja_alloc(j, sizeof *scope);
    scope->parent = parent;
    return scope;
}

void sl_jinja_scope_set(jinja *j, jinja_scope *scope, int name, jinja_value value) {
    if (!scope->parent) {
        scope->values[name] = value;
        return;
    }
    for (int i = 0; i < scope->length; i++) {
        if (scope->names[i] != name) continue;
        scope->values[i] = value;
        return;
    }
    if (scope->length == scope->capacity) {
        int capacity = scope->capacity ? scope->capacity * 2 : 4;
        int *names = sl_jinja_array(j, (size_t)capacity, sizeof *names);
        jinja_value *values = sl_jinja_array(j, (size_t)capacity, sizeof *values);
        if (scope->length) {
            memcpy(names, scope->names, (size_t)scope->length * sizeof *names);
            memcpy(values, scope->values, (size_t)scope->length * sizeof *values);
        }
        scope->names = names;
        scope->values = values;
        scope->capacity = capacity;
    }
    scope->names[scope->length] = name;
    scope->values[scope->length++] = value;
}

void sl_jinja_emit(jinja *j, const char *data, size_t length) {
    if (j->capture) {
        sl_jinja_text_append(j->capture, data, length);
        return;
    }
    if (length > j->output_limit - j->output_bytes) sl_jinja_fail_limit(j, "output, bytes", j->output_limit);
    j->output_bytes += length;
    if (!sl_buffer_append(j->out, data, length)) sl_jinja_fail_memory(j, length);
}

static void emit_value(jinja *j, jinja_value value) {
    if (jinja_is_str(value)) {
        sl_jinja_emit(j, value.as.string->data, value.as.string->length);
        return;
    }
    jinja_text text = {.j = j};
    sl_jinja_write_str(&text, value);
    sl_jinja_emit(j, text.data, text.length);
}

/* Runs the body with its output kept: the text. A break or continue inside drops what was kept. */
static flow capture(jinja *j, jinja_scope *scope, jinja_node *const *body, size_t n, jinja_value *made) {
    jinja_text text = {.j = j}, *outer = j->capture;
    j->capture = &text;
    flow result = exec_body(j, scope, body, n);
    j->capture = outer;
    *made = sl_jinja_text_value(&text);
    return result;
}

/* ---------------------------------------------------------------- assignment */

static void assign_attribute(jinja *j, jinja_scope *scope, const jinja_node *target, jinja_value value) {
    jinja_value object = sl_jinja_lookup(j, scope, target->name);
    if (object.type != JINJA_NAMESPACE)
        sl_jinja_fail(j, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
    const jinja_string *name = target->value.as.string;
    if (name->length && name->data[0] == '_')
        sl_jinja_fail(j, "SecurityError",
                      "Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
                      "'%.*s'. Please rename the attribute.",
                      (int)name->length, name->data);
    sl_jinja_dict_set(j, object.as.dict, target->value, value);
}

static void assign(jinja *j, jinja_scope *scope, const jinja_node *target, jinja_value value) {
    if (target->kind == JINJA_NAME) {
        sl_jinja_scope_set(j, scope, target->name, value);
    } else if (target->kind == JINJA_NSREF) {
        assign_attribute(j, scope, target, value);
    } else {
        jinja_iterator *it = sl_jinja_iterate(j, value);
        jinja_value item;
        jinja_value *items = sl_jinja_array(j, target->n_items, sizeof *items);
        for (size_t i = 0; i < target->n_items; i++)
            if (!sl_jinja_next(j, it, &items[i]))
                sl_jinja_fail(j, "ValueError", "not enough values to unpack (expected %zu, got %zu)", target->n_items,
                              i);
        if (sl_jinja_next(j, it, &item))
            sl_jinja_fail(j, "ValueError", "too many values to unpack (expected %zu)", target->n_items);
        for (size_t i = 0; i < target->n_items; i++) assign(j, scope, target->items[i], items[i]);
    }
}

/* ---------------------------------------------------------------- loops */

static bool next_matching(jinja *j, jinja_iterator *it, jinja_value *item) {
    const jinja_node *node = it->data;
    while (sl_jinja_next(j, it->inner, item)) {
        it->scope->length = 0;
        assign(j, it->scope, node->a, *item);
        if (sl_jinja_truth(j, sl_jinja_eval(j, it->scope, node->c))) return true;
    }
    return false;
}

/* for ... if: a generator that tests each item in a scope of its own. */
static jinja_value filtered(jinja *j, jinja_scope *scope, const jinja_node *node, jinja_value source) {
    jinja_iterator *it;
    jinja_value generator = sl_jinja_generator(j, "generator", next_matching, &it);
    it->inner = sl_jinja_iterate(j, source);
    it->scope = sl_jinja_scope_new(j, scope);
    it->data = node;
    return generator;
}

static bool loop_next(jinja *j, jinja_loop *loop, jinja_value *item) {
    if (loop->after.type != JINJA_MISSING) {
        *item = loop->after;
        loop->after = sl_jinja_missing;
    } else if (!sl_jinja_next(j, loop->iterator, item)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = *item;
    return true;
}

static int name_of(jinja *j, const char *text) {
    for (size_t i = 0; i < j->program->n_names; i++)
        if (sl_jinja_string_is(j->program->names[i], text)) return (int)i;
    return -1;
}

static void run_loop(jinja *j, jinja_scope *outer, const jinja_node *node, jinja_value source, int64_t depth0) {
    if (node->c) source = filtered(j, outer, node, source);
    jinja_loop *loop = sl_jinja_alloc(j, sizeof *loop);
    *loop = (jinja_loop){.source = source,
                         .index0 = -1,
                         .length = -1,
                         .depth0 = depth0,
                         .scope = outer,
                         .node = node->flag ? node : NULL};
    loop->iterator = sl_jinja_iterate(j, source);
    jinja_value loop_value = {.type = JINJA_LOOP, .as.loop = loop}, item;
    jinja_scope *scope = sl_jinja_scope_new(j, outer);
    bool completed = false; /* Jinja leaves `else` out once a body ran to its end: break and continue do not count */
    while (loop_next(j, loop, &item)) {
        sl_jinja_charge(j, 1);
        scope->length = 0;
        sl_jinja_scope_set(j, scope, node->name, loop_value);
        assign(j, scope, node->a, item);
        flow result = exec_body(j, scope, node->body, node->n_body);
        if (result == FLOW_BREAK) break;
        if (result == FLOW_ON) completed = true;
    }
    if (!completed && node->n_other) exec_body(j, sl_jinja_scope_new(j, outer), node->other, node->n_other);
}

static void exec_for(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_value source = sl_jinja_eval(j, scope, node->b);
    j->line = node->line;
    run_loop(j, scope, node, source, 0);
}

static void enter_call(jinja *j) {
    if (++j->calls > j->call_limit) sl_jinja_fail_limit(j, "depth of macro calls", (uint64_t)j->call_limit);
}

jinja_value sl_jinja_call_loop(jinja *j, jinja_loop *loop, jinja_value source) {
    if (!loop->node)
        sl_jinja_fail(j, "TypeError", "The loop must have the 'recursive' marker to be called recursively.");
    jinja_text text = {.j = j}, *outer = j->capture;
    enter_call(j);
    j->capture = &text;
    run_loop(j, loop->scope, loop->node, source, loop->depth0 + 1);
    j->capture = outer;
    j->calls--;
    return sl_jinja_text_value(&text);
}

static jinja_value peek(jinja *j, jinja_loop *loop) {
    if (loop->after.type == JINJA_MISSING && !sl_jinja_next(j, loop->iterator, &loop->after))
        loop->after = sl_jinja_missing;
    return loop->after;
}

/* len() of what is looped over; a generator is read to its end. */
static int64_t loop_length(jinja *j, jinja_loop *loop) {
    if (loop->length >= 0) return loop->length;
    if (sl_jinja_has_length(loop->source)) return loop->length = sl_jinja_length(j, loop->source);
    jinja_value rest = sl_jinja_list_new(j, 0), item;
    while (sl_jinja_next(j, loop->iterator, &item)) sl_jinja_list_push(j, rest.as.list, item);
    loop->iterator = sl_jinja_iterate(j, rest);
    return loop->length = (int64_t)rest.as.list->length + loop->index0 + 1 + (loop->after.type != JINJA_MISSING);
}

static jinja_value loop_cycle(jinja *j, jinja_value self, const jinja_args *args) {
    if (args->named) sl_jinja_fail(j, "TypeError", "cycle() takes no keyword arguments");
    if (!args->length) sl_jinja_fail(j, "TypeError", "no items for cycling given");
    return args->items[(uint64_t)self.as.loop->index0 % args->length];
}

static jinja_value loop_changed(jinja *j, jinja_value self, const jinja_args *args) {
    if (args->named) sl_jinja_fail(j, "TypeError", "changed() takes no keyword arguments");
    jinja_value value = sl_jinja_tuple(j, args->length, args->items);
    if (self.as.loop->changed.type != JINJA_MISSING && sl_jinja_equal(j, self.as.loop->changed, value))
        return sl_jinja_false;
    self.as.loop->changed = value;
    return sl_jinja_true;
}

jinja_value sl_jinja_loop_attribute(jinja *j, jinja_value self, const jinja_string *attribute) {
    jinja_loop *loop = self.as.loop;
    jinja_value name = {.type = JINJA_STRING, .as.string = attribute};
    if (sl_jinja_string_is(name, "index")) return sl_jinja_int(loop->index0 + 1);
    if (sl_jinja_string_is(name, "index0")) return sl_jinja_int(loop->index0);
    if (sl_jinja_string_is(name, "first")) return sl_jinja_bool(loop->index0 == 0);
    if (sl_jinja_string_is(name, "last")) return sl_jinja_bool(peek(j, loop).type == JINJA_MISSING);
    if (sl_jinja_string_is(name, "length")) return sl_jinja_int(loop_length(j, loop));
    if (sl_jinja_string_is(name, "revindex")) return sl_jinja_int(loop_length(j, loop) - loop->index0);
    if (sl_jinja_string_is(name, "revindex0")) return sl_jinja_int(loop_length(j, loop) - loop->index0 - 1);
    if (sl_jinja_string_is(name, "depth")) return sl_jinja_int(loop->depth0 + 1);
    if (sl_jinja_string_is(name, "depth0")) return sl_jinja_int(loop->depth0);
    if (sl_jinja_string_is(name, "previtem"))
        return loop->index0 == 0 ? sl_jinja_undefined_hint(j, "there is no previous item") : loop->before;
    if (sl_jinja_string_is(name, "nextitem")) {
        jinja_value next = peek(j, loop);
        return next.type == JINJA_MISSING ? sl_jinja_undefined_hint(j, "there is no next item") : next;
    }
    if (sl_jinja_string_is(name, "cycle")) return sl_jinja_bound(j, "cycle", loop_cycle, self);
    if (sl_jinja_string_is(name, "changed")) return sl_jinja_bound(j, "changed", loop_changed, self);
    return sl_jinja_missing;
}

/* ---------------------------------------------------------------- macros */

static jinja_value make_macro(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_macro *macro = sl_jinja_alloc(j, sizeof *macro);
    *macro = (jinja_macro){node, scope};
    return (jinja_value){.type = JINJA_MACRO, .as.macro = macro};
}

/* Takes a keyword out of the arguments; MISSING when it was not given. */
static jinja_value take_keyword(jinja *j, jinja_args *args, jinja_value name) {
    for (size_t i = 0; i < args->named; i++) {
        if (!sl_jinja_equal(j, args->names[i], name)) continue;
        jinja_value value = args->values[i];
        for (size_t k = i + 1; k < args->named; k++) {
            args->names[k - 1] = args->names[k];
            args->values[k - 1] = args->values[k];
        }
        args->named--;
        return value;
    }
    return sl_jinja_missing;
}

static void set_by_text(jinja *j, jinja_scope *scope, const char *name, jinja_value value) {
    int index = name_of(j, name);
    if (index >= 0) sl_jinja_scope_set(j, scope, index, value);
}

/* What is left after the parameters took theirs goes to caller, kwargs and varargs where the body names them. */
static void bind_rest(jinja *j, const jinja_node *node, jinja_scope *scope, jinja_args *rest, const jinja_args *args,
                      bool has_caller) {
    const char *name = node->name >= 0 ? j->program->names[node->name].as.string->data : "caller";
    int length = node->name >= 0 ? (int)j->program->names[node->name].as.string->length : 6;
    if (node->uses_caller && !has_caller) {
        jinja_value caller = take_keyword(j, rest, sl_jinja_literal(j, "caller"));
        if (caller.type == JINJA_MISSING || caller.type == JINJA_NONE)
            caller = sl_jinja_undefined_hint(j, "No caller defined");
        set_by_text(j, scope, "caller", caller);
    }
    if (node->uses_kwargs) {
        jinja_value kwargs = sl_jinja_dict_new(j);
        for (size_t i = 0; i < rest->named; i++) sl_jinja_dict_set(j, kwargs.as.dict, rest->names[i], rest->values[i]);
        set_by_text(j, scope, "kwargs", kwargs);
    } else if (rest->named) {
        sl_jinja_fail(j, "TypeError", "macro '%.*s' takes no keyword argument '%.*s'", length, name,
                      (int)rest->names[0].as.string->length, rest->names[0].as.string->data);
    }
    size_t taken = node->n_names < args->length ? node->n_names : args->length;
    if (node->uses_varargs) {
        set_by_text(j, scope, "varargs",
                    sl_jinja_tuple(j, args->length - taken, args->items ? args->items + taken : NULL));
    } else if (args->length > taken) {
        sl_jinja_fail(j, "TypeError", "macro '%.*s' takes not more than %zu argument(s)", length, name, node->n_names);
    }
}

static void bind_parameters(jinja *j, const jinja_node *node, jinja_scope *scope, const jinja_args *args) {
    jinja_args rest = *args;
    bool has_caller = false;
    rest.names = sl_jinja_array(j, args->named, sizeof *rest.names);
    rest.values = sl_jinja_array(j, args->named, sizeof *rest.values);
    if (args->named) {
        memcpy(rest.names, args->names, args->named * sizeof *rest.names);
        memcpy(rest.values, args->values, args->named * sizeof *rest.values);
    }
    jinja_value *given = sl_jinja_array(j, node->n_names, sizeof *given);
    for (size_t i = 0; i < node->n_names; i++) {
        jinja_value name = j->program->names[node->names[i]];
        has_caller = has_caller || sl_jinja_string_is(name, "caller");
        given[i] = i < args->length ? args->items[i] : take_keyword(j, &rest, name);
    }
    bind_rest(j, node, scope, &rest, args, has_caller);
    size_t first_default = node->n_names - node->n_other;
    for (size_t i = 0; i < node->n_names; i++) {
        jinja_value value = given[i];
        if (value.type == JINJA_MISSING && i >= first_default)
            value = sl_jinja_eval(j, scope, node->other[i - first_default]);
        if (value.type == JINJA_MISSING) {
            jinja_text hint = {.j = j};
            sl_jinja_text_puts(&hint, "parameter ");
            sl_jinja_write_repr(&hint, j->program->names[node->names[i]]);
            sl_jinja_text_puts(&hint, " was not provided");
            sl_jinja_text_putc(&hint, 0);
            value = sl_jinja_undefined_hint(j, hint.data);
        }
        sl_jinja_scope_set(j, scope, node->names[i], value);
    }
}

jinja_value sl_jinja_call_macro(jinja *j, const jinja_macro *macro, const jinja_args *args) {
    const jinja_node *node = macro->node;
    int line = j->line;
    enter_call(j);
    sl_jinja_enter(j);
    jinja_scope *scope = sl_jinja_scope_new(j, macro->scope);
    bind_parameters(j, node, scope, args);
    jinja_value text;
    capture(j, scope, node->body, node->n_body, &text);
    sl_jinja_leave(j);
    j->calls--;
    j->line = line;
    return text;
}

static jinja_value call_block(jinja *j, jinja_value self, const jinja_args *args) {
    const jinja_node *node = j->program->blocks[self.as.integer];
    int line = j->line;
    sl_jinja_bind(j, "block", args, NULL, 0, 0, NULL);
    enter_call(j);
    jinja_value text;
    capture(j, sl_jinja_scope_new(j, j->globals), node->body, node->n_body, &text);
    j->calls--;
    j->line = line;
    return text;
}

jinja_value sl_jinja_block_reference(jinja *j, jinja_value name) {
    for (size_t i = 0; i < j->program->n_blocks; i++)
        if (sl_jinja_equal(j, j->program->names[j->program->blocks[i]->name], name))
            return sl_jinja_bound(j, "block", call_block, sl_jinja_int((int64_t)i));
    return sl_jinja_missing;
}

static void exec_call_block(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_args args;
    jinja_value callee = sl_jinja_eval(j, scope, node->a->a);
    sl_jinja_eval_args(j, scope, node->a, &args, 1);
    jinja_value caller = sl_jinja_literal(j, "caller"), *names = sl_jinja_array(j, args.named + 1, sizeof *names);
    jinja_value *values = sl_jinja_array(j, args.named + 1, sizeof *values);
    if (args.named) {
        memcpy(names, args.names, args.named * sizeof *names);
        memcpy(values, args.values, args.named * sizeof *values);
    }
    names[args.named] = caller;
    values[args.named++] = make_macro(j, scope, node);
    args.names = names;
    args.values = values;
    j->line = node->line;
    emit_value(j, sl_jinja_call(j, callee, &args));
}

/* ---------------------------------------------------------------- statements */

static flow exec_with(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_scope *inner = sl_jinja_scope_new(j, scope);
    for (size_t i = 0; i < node->n_items; i++)
        assign(j, inner, node->items[i], sl_jinja_eval(j, scope, node->other[i]));
    return exec_body(j, inner, node->body, node->n_body);
}

static flow exec_set_block(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_scope *inner = sl_jinja_scope_new(j, scope);
    jinja_value text;
    flow result = capture(j, inner, node->body, node->n_body, &text);
    if (result != FLOW_ON) return result;
    if (node->b) text = sl_jinja_filter_value(j, inner, node->b, text);
    assign(j, scope, node->a, text);
    return FLOW_ON;
}

/* "generation" is a call block whose caller is called with nothing, and so are its kwargs and varargs. */
static void exec_scope(jinja *j, jinja_scope *scope, const jinja_node *node) {
    jinja_scope *inner = sl_jinja_scope_new(j, scope);
    if (node->a && sl_jinja_truth(j, sl_jinja_eval(j, scope, node->a)))
        sl_jinja_fail(j, "TemplateRuntimeError", "autoescape is not supported in chat templates");
    if (node->uses_caller) set_by_text(j, inner, "caller", sl_jinja_undefined_hint(j, "No caller defined"));
    if (node->uses_kwargs) set_by_text(j, inner, "kwargs", sl_jinja_dict_new(j));
    if (node->uses_varargs) set_by_text(j, inner, "varargs", sl_jinja_tuple(j, 0, NULL));
    exec_body(j, inner, node->body, node->n_body);
}

static flow exec_if(jinja *j, jinja_scope *scope, const jinja_node *node) {
    for (;;) {
        if (sl_jinja_truth(j, sl_jinja_eval(j, scope, node->a))) return exec_body(j, scope, node->body, node->n_body);
        if (node->n_other != 1 || node->other[0]->kind != JINJA_IF)
            return exec_body(j, scope, node->other, node->n_other);
        node = node->other[0]; /* elif: no deeper, however many */
    }
}

static flow exec(jinja *j, jinja_scope *scope, const jinja_node *node) {
    switch ((jinja_kind)node->kind) {
    case JINJA_DATA: sl_jinja_emit(j, node->value.as.string->data, node->value.as.string->length); break;
    case JINJA_OUTPUT:
        for (size_t i = 0; i < node->n_items; i++) emit_value(j, sl_jinja_eval(j, scope, node->items[i]));
        break;
    case JINJA_IF: return exec_if(j, scope, node);
    case JINJA_FOR: exec_for(j, scope, node); break;
    case JINJA_SET: assign(j, scope, node->a, sl_jinja_eval(j, scope, node->b)); break;
    case JINJA_SET_BLOCK: return exec_set_block(j, scope, node);
    case JINJA_MACRO_DEF: sl_jinja_scope_set(j, scope, node->name, make_macro(j, scope, node)); break;
    case JINJA_CALL_BLOCK: exec_call_block(j, scope, node); break;
    case JINJA_FILTER_BLOCK: {
        jinja_scope *inner = sl_jinja_scope_new(j, scope);
        jinja_value text;
        flow result = capture(j, inner, node->body, node->n_body, &text);
        if (result != FLOW_ON) return result;
        emit_value(j, sl_jinja_filter_value(j, inner, node->b, text));
        break;
    }
    case JINJA_WITH: return exec_with(j, scope, node);
    case JINJA_BLOCK:
        exec_body(j, sl_jinja_scope_new(j, node->flag ? scope : j->globals), node->body, node->n_body);
        break;
    case JINJA_SCOPE: exec_scope(j, scope, node); break;
    case JINJA_BREAK: return FLOW_BREAK;
    case JINJA_CONTINUE: return FLOW_CONTINUE;
    default:
        sl_jinja_fail(j, "TypeError", "{%% %.*s %%} needs other templates, and a chat template has none",
                      (int)node->value.as.string->length, node->value.as.string->data);
    }
    return FLOW_ON;
}

static flow exec_body(jinja *j, jinja_scope *scope, jinja_node *const *body, size_t n) {
    flow result = FLOW_ON;
    sl_jinja_enter(j);
    for (size_t i = 0; i < n && result == FLOW_ON; i++) {
        sl_jinja_charge(j, 1);
        j->line = body[i]->line;
        result = exec(j, scope, body[i]);
    }
    sl_jinja_leave(j);
    return result;
}

void sl_jinja_run(jinja *j, const jinja_program *program) { exec_body(j, j->globals, program->body, program->n_body); }
