/* Binding arguments, and the functions that every template knows. */
#include "text/jinja.h"

static size_t parameter_index(jinja_value name, const char *const *parameters, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (sl_jinja_string_is(name, parameters[i])) return i;
    return n;
}

void sl_jinja_bind(jinja *j, const char *function, const jinja_args *args, const char *const *parameters, size_t n,
                   size_t required, jinja_value *out) {
    for (size_t i = 0; i < n; i++) out[i] = sl_jinja_missing;
    if (args->length > n)
        sl_jinja_fail(j, "TypeError", "%s() takes at most %zu argument%s (%zu given)", function, n, n == 1 ? "" : "s",
                      args->length);
    for (size_t i = 0; i < args->length; i++) out[i] = args->items[i];
    for (size_t i = 0; i < args->named; i++) {
        size_t at = parameter_index(args->names[i], parameters, n);
        const jinja_string *name = args->names[i].as.string;
        if (at == n)
            sl_jinja_fail(j, "TypeError", "%s() got an unexpected keyword argument '%.*s'", function, (int)name->length,
                          name->data);
        if (out[at].type != JINJA_MISSING)
            sl_jinja_fail(j, "TypeError", "%s() got multiple values for argument '%.*s'", function, (int)name->length,
                          name->data);
        out[at] = args->values[i];
    }
    for (size_t i = 0; i < required; i++)
        if (out[i].type == JINJA_MISSING)
            sl_jinja_fail(j, "TypeError", "%s() missing required argument '%s'", function, parameters[i]);
}

/* ---------------------------------------------------------------- range, dict, namespace */

enum { MAX_RANGE = 100000 }; /* jinja2.sandbox.MAX_RANGE */

static jinja_value global_range(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_value v[3];
    if (args->named) sl_jinja_fail(j, "TypeError", "range() takes no keyword arguments");
    sl_jinja_bind(j, "range", args, (const char *const[]){"start", "stop", "step"}, 3, 1, v);
    for (size_t i = 0; i < args->length; i++)
        if (v[i].type == JINJA_BIG) sl_jinja_fail(j, "OverflowError", "Range too big");
    int64_t start = args->length > 1 ? sl_jinja_index(j, v[0]) : 0;
    int64_t stop = sl_jinja_index(j, v[args->length > 1 ? 1 : 0]),
            step = args->length > 2 ? sl_jinja_index(j, v[2]) : 1;
    if (!step) sl_jinja_fail(j, "ValueError", "range() arg 3 must not be zero");
    __int128 distance = (__int128)stop - start, length = 0;
    if (step > 0 && distance > 0) length = (distance - 1) / step + 1;
    if (step < 0 && distance < 0) length = (-distance - 1) / -(__int128)step + 1;
    if (length > MAX_RANGE)
        sl_jinja_fail(j, "OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                      MAX_RANGE);
    jinja_range *range = sl_jinja_alloc(j, sizeof *range);
    *range = (jinja_range){start, stop, step, (int64_t)length};
    return (jinja_value){.type = JINJA_RANGE, .as.range = range};
}

static void update_from_pairs(jinja *j, jinja_dict *dict, jinja_value pairs) {
    jinja_value item;
    jinja_iterator *it = sl_jinja_iterate(j, pairs);
    for (size_t i = 0; sl_jinja_next(j, it, &item); i++) {
        if (!sl_jinja_is_iterable(item))
            sl_jinja_fail(j, "TypeError", "cannot convert dictionary update sequence element #%zu to a sequence", i);
        jinja_value pair = sl_jinja_collect(j, item);
        if (pair.as.list->length != 2)
            sl_jinja_fail(j, "ValueError", "dictionary update sequence element #%zu has length %zu; 2 is required", i,
                          pair.as.list->length);
        sl_jinja_dict_set(j, dict, pair.as.list->items[0], pair.as.list->items[1]);
    }
}

static jinja_value global_dict(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_value dict = sl_jinja_dict_new(j);
    if (args->length > 1) sl_jinja_fail(j, "TypeError", "dict expected at most 1 argument, got %zu", args->length);
    if (args->length && args->items[0].type == JINJA_DICT) {
        const jinja_dict *from = args->items[0].as.dict;
        for (size_t i = 0; i < from->length; i++) sl_jinja_dict_set(j, dict.as.dict, from->keys[i], from->values[i]);
    } else if (args->length) {
        if (args->items[0].type == JINJA_UNDEFINED)
            sl_jinja_fail_undefined(j, args->items[0]); /* dict() asks for .keys */
        update_from_pairs(j, dict.as.dict, args->items[0]);
    }
    for (size_t i = 0; i < args->named; i++) sl_jinja_dict_set(j, dict.as.dict, args->names[i], args->values[i]);
    return dict;
}

static jinja_value global_namespace(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value made = global_dict(j, self, args);
    for (size_t i = 0; i < made.as.dict->length; i++) {
        jinja_value key = made.as.dict->keys[i];
        if (jinja_is_str(key) && key.as.string->length && key.as.string->data[0] == '_')
            sl_jinja_fail(j, "SecurityError",
                          "Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
                          "'%.*s'. Please rename the attribute.",
                          (int)key.as.string->length, key.as.string->data);
    }
    made.type = JINJA_NAMESPACE;
    return made;
}

/* ---------------------------------------------------------------- the others */

static jinja_value global_cycler(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    if (args->named) sl_jinja_fail(j, "TypeError", "cycler() takes no keyword arguments");
    if (!args->length) sl_jinja_fail(j, "RuntimeError", "at least one item has to be provided");
    jinja_cycler *cycler = sl_jinja_alloc(j, sizeof *cycler);
    cycler->items = sl_jinja_tuple(j, args->length, args->items).as.list;
    return (jinja_value){.type = JINJA_CYCLER, .as.cycler = cycler};
}

static jinja_value global_joiner(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_joiner *joiner = sl_jinja_alloc(j, sizeof *joiner);
    sl_jinja_bind(j, "joiner", args, (const char *const[]){"sep"}, 1, 0, &joiner->separator);
    if (joiner->separator.type == JINJA_MISSING) joiner->separator = sl_jinja_literal(j, ", ");
    return (jinja_value){.type = JINJA_JOINER, .as.joiner = joiner};
}

static jinja_value global_raise(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_value message;
    sl_jinja_bind(j, "raise_exception", args, (const char *const[]){"message"}, 1, 1, &message);
    sl_jinja_raise(j, sl_jinja_to_str(j, message).as.string);
}

static jinja_value global_strftime(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_value format;
    sl_jinja_bind(j, "strftime_now", args, (const char *const[]){"format"}, 1, 1, &format);
    return sl_jinja_strftime(j, format);
}

static jinja_value global_lipsum(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self, (void)args;
    sl_jinja_fail(j, "TemplateRuntimeError", "lipsum() makes random text and is not supported");
}

jinja_value sl_jinja_global(jinja *j, jinja_value name) {
    static const struct {
        const char *name;
        jinja_builtin call;
    } globals[] = {{"range", global_range},           {"dict", global_dict},     {"namespace", global_namespace},
                   {"cycler", global_cycler},         {"joiner", global_joiner}, {"raise_exception", global_raise},
                   {"strftime_now", global_strftime}, {"lipsum", global_lipsum}};
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (sl_jinja_string_is(name, globals[i].name))
            return sl_jinja_bound(j, globals[i].name, globals[i].call, sl_jinja_none);
    return sl_jinja_missing;
}
