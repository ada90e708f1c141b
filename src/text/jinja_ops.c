/* Python's operations on values of any type: truth, equality, order, membership, length, hash, and the binary
 * operators. */
#include "text/jinja_int.h"

#include <math.h>
#include <string.h>

const char *sl_jinja_type_name(jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED: return "Undefined";
    case JINJA_NONE: return "NoneType";
    case JINJA_BOOL: return "bool";
    case JINJA_INT:
    case JINJA_BIG: return "int";
    case JINJA_FLOAT: return "float";
    case JINJA_STRING: return v.markup ? "Markup" : "str";
    case JINJA_BYTES: return "bytes";
    case JINJA_LIST: return "list";
    case JINJA_TUPLE: return v.group ? "_GroupTuple" : "tuple";
    case JINJA_DICT: return "dict";
    case JINJA_VIEW:
        return v.as.view->what == JINJA_KEYS       ? "dict_keys"
               : v.as.view->what == JINJA_VALUES   ? "dict_values"
               : v.as.view->what == JINJA_ITEM_SET ? "set"
                                                   : "dict_items";
    case JINJA_RANGE: return "range";
    case JINJA_ITERATOR: return v.as.iterator->type;
    case JINJA_NAMESPACE: return "TemplateNamespace";
    case JINJA_FUNCTION: return "builtin_function_or_method";
    case JINJA_MACRO: return "Macro";
    case JINJA_LOOP: return "LoopContext";
    case JINJA_CYCLER: return "Cycler";
    case JINJA_JOINER: return "Joiner";
    case JINJA_TEMPLATE: return "TemplateReference";
    }
    return "object";
}

bool sl_jinja_has_length(jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_UNDEFINED:
    case JINJA_STRING:
    case JINJA_BYTES:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
    case JINJA_VIEW:
    case JINJA_RANGE:
    case JINJA_LOOP: return true;
    default: return false;
    }
}

int64_t sl_jinja_length(jinja *j, jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_UNDEFINED: return 0;
    case JINJA_STRING: return (int64_t)v.as.string->chars;
    case JINJA_BYTES: return (int64_t)v.as.string->length;
    case JINJA_LIST:
    case JINJA_TUPLE: return (int64_t)v.as.list->length;
    case JINJA_DICT: return (int64_t)v.as.dict->length;
    case JINJA_VIEW: return (int64_t)v.as.view->dict->length;
    case JINJA_RANGE: return v.as.range->length;
    case JINJA_LOOP: {
        jinja_string name = {"length", 6, 6};
        return sl_jinja_index(j, sl_jinja_loop_attribute(j, v, &name));
    }
    default: sl_jinja_fail(j, "TypeError", "object of type '%s' has no len()", sl_jinja_type_name(v));
    }
}

bool sl_jinja_truth(jinja *j, jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE: return false;
    case JINJA_BOOL: return v.as.boolean;
    case JINJA_INT: return v.as.integer != 0;
    case JINJA_FLOAT: return v.as.number != 0;
    default: return !sl_jinja_has_length(v) || sl_jinja_length(j, v) != 0;
    }
}

bool sl_jinja_is_callable(jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_UNDEFINED: /* Undefined defines __call__, which fails */
    case JINJA_FUNCTION:
    case JINJA_MACRO:
    case JINJA_LOOP:
    case JINJA_JOINER: return true;
    default: return false;
    }
}

/* ---------------------------------------------------------------- equality and hash */

static bool equal_lists(jinja *j, const jinja_list *a, const jinja_list *b) {
    if (a->length != b->length) return false;
    for (size_t i = 0; i < a->length; i++)
        if (!sl_jinja_equal(j, a->items[i], b->items[i])) return false;
    return true;
}

static bool equal_dicts(jinja *j, const jinja_dict *a, const jinja_dict *b) {
    if (a->length != b->length) return false;
    for (size_t i = 0; i < a->length; i++) {
        const jinja_value *other = sl_jinja_dict_get(j, b, a->keys[i]);
        if (!other || !sl_jinja_equal(j, a->values[i], *other)) return false;
    }
    return true;
}

static jinja_value view_value(const jinja_view *view) { return (jinja_value){.type = JINJA_VIEW, .as.view = view}; }

static bool subset(jinja *j, jinja_value a, jinja_value b) {
    jinja_iterator *it = sl_jinja_iterate(j, a);
    jinja_value item;
    while (sl_jinja_next(j, it, &item))
        if (!sl_jinja_contains(j, item, b)) return false;
    return true;
}

static bool is_set(jinja_value v) { return v.type == JINJA_VIEW && v.as.view->what != JINJA_VALUES; }

/* keys() and items() are sets. */
static bool equal_views(jinja *j, const jinja_view *a, const jinja_view *b) {
    if (a->what == JINJA_VALUES || b->what == JINJA_VALUES) return a == b;
    if (a->dict->length != b->dict->length) return false;
    if (a->what != b->what) return subset(j, view_value(a), view_value(b));
    for (size_t i = 0; i < a->dict->length; i++) {
        const jinja_value *other = sl_jinja_dict_get(j, b->dict, a->dict->keys[i]);
        if (!other || (a->what == JINJA_ITEMS && !sl_jinja_equal(j, a->dict->values[i], *other))) return false;
    }
    return true;
}

static bool equal_ranges(const jinja_range *a, const jinja_range *b) {
    if (a->length != b->length) return false;
    return !a->length || (a->start == b->start && (a->length == 1 || a->step == b->step));
}

static bool equal_deep(jinja *j, jinja_value a, jinja_value b) {
    sl_jinja_enter(j);
    sl_jinja_charge(j, 1);
    bool equal = a.type == JINJA_DICT   ? equal_dicts(j, a.as.dict, b.as.dict)
                 : a.type == JINJA_VIEW ? equal_views(j, a.as.view, b.as.view)
                                        : equal_lists(j, a.as.list, b.as.list);
    sl_jinja_leave(j);
    return equal;
}

bool sl_jinja_equal(jinja *j, jinja_value a, jinja_value b) {
    if (jinja_is_number(a) && jinja_is_number(b)) return sl_jinja_order_numbers(j, a, b) == 0;
    if (a.type != b.type) return false;
    switch ((jinja_type)a.type) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE: return true;
    case JINJA_STRING:
    case JINJA_BYTES:
        return a.as.string->length == b.as.string->length &&
               !memcmp(a.as.string->data, b.as.string->data, a.as.string->length);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
    case JINJA_VIEW: return a.as.list == b.as.list || equal_deep(j, a, b);
    case JINJA_RANGE: return equal_ranges(a.as.range, b.as.range);
    case JINJA_FUNCTION:
        return a.as.function == b.as.function ||
               (a.as.function->call == b.as.function->call && a.as.function->self.type == b.as.function->self.type &&
                a.as.function->self.as.list == b.as.function->self.as.list);
    default: return a.as.list == b.as.list; /* identity */
    }
}

static uint64_t mix(uint64_t h) { /* the finaliser of splitmix64 */
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

static uint64_t hash_bytes(uint64_t seed, const char *data, size_t length) {
    uint64_t h = mix(seed ^ length);
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        h = mix(h ^ word);
    }
    uint64_t tail = 0;
    if (length) memcpy(&tail, data, length);
    return mix(h ^ tail);
}

/* Equal numbers hash alike, whatever their type. */
static uint64_t hash_number(jinja *j, jinja_value v) {
    if (v.type == JINJA_FLOAT) {
        double number = v.as.number;
        if (!isfinite(number) || number != floor(number))
            return hash_bytes(j->hash_seed, (const char *)&number, sizeof number);
        v = sl_jinja_float_to_int(j, number);
    }
    if (v.type == JINJA_BIG)
        return hash_bytes(j->hash_seed, (const char *)v.as.big->limbs, v.as.big->length * sizeof *v.as.big->limbs);
    return mix(j->hash_seed ^ (uint64_t)(v.type == JINJA_BOOL ? v.as.boolean : v.as.integer));
}

uint64_t sl_jinja_hash(jinja *j, jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_BIG:
    case JINJA_FLOAT: return hash_number(j, v);
    case JINJA_STRING:
    case JINJA_BYTES: return hash_bytes(j->hash_seed, v.as.string->data, v.as.string->length);
    case JINJA_TUPLE: {
        uint64_t h = j->hash_seed;
        sl_jinja_enter(j);
        for (size_t i = 0; i < v.as.list->length; i++) h = mix(h ^ sl_jinja_hash(j, v.as.list->items[i]));
        sl_jinja_leave(j);
        return h;
    }
    case JINJA_LIST:
    case JINJA_DICT: sl_jinja_fail(j, "TypeError", "unhashable type: '%s'", sl_jinja_type_name(v));
    case JINJA_VIEW:
        if (v.as.view->what != JINJA_VALUES)
            sl_jinja_fail(j, "TypeError", "unhashable type: '%s'", sl_jinja_type_name(v));
        return mix((uintptr_t)v.as.view);
    case JINJA_NONE: return mix(j->hash_seed + 1);
    case JINJA_UNDEFINED: return mix(j->hash_seed + 2);
    case JINJA_RANGE: return mix(j->hash_seed ^ (uint64_t)v.as.range->length);
    case JINJA_FUNCTION: return mix(j->hash_seed ^ (uintptr_t)v.as.function->call);
    default: return mix((uintptr_t)v.as.list);
    }
}

/* ---------------------------------------------------------------- order */

static noreturn void fail_order(jinja *j, jinja_value a, jinja_value b, const char *op) {
    if (a.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, a);
    if (b.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, b);
    sl_jinja_fail(j, "TypeError", "'%s' not supported between instances of '%s' and '%s'", op, sl_jinja_type_name(a),
                  sl_jinja_type_name(b));
}

static int order_bytes(const jinja_string *a, const jinja_string *b) {
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = shorter ? memcmp(a->data, b->data, shorter) : 0; /* UTF-8 sorts as its code points do */
    if (order) return order < 0 ? -1 : 1;
    return a->length < b->length ? -1 : a->length > b->length;
}

int sl_jinja_order(jinja *j, jinja_value a, jinja_value b, const char *op) {
    if (jinja_is_number(a) && jinja_is_number(b)) return sl_jinja_order_numbers(j, a, b);
    if (a.type != b.type) fail_order(j, a, b, op);
    if (a.type == JINJA_STRING || a.type == JINJA_BYTES) return order_bytes(a.as.string, b.as.string);
    if (!jinja_is_sequence(a)) fail_order(j, a, b, op);
    const jinja_list *x = a.as.list, *y = b.as.list;
    for (size_t i = 0; i < x->length && i < y->length; i++) {
        sl_jinja_charge(j, 1);
        if (sl_jinja_equal(j, x->items[i], y->items[i])) continue;
        sl_jinja_enter(j);
        int order = sl_jinja_order(j, x->items[i], y->items[i], op);
        sl_jinja_leave(j);
        return order;
    }
    return x->length < y->length ? -1 : x->length > y->length;
}

bool sl_jinja_less(jinja *j, jinja_value a, jinja_value b) { return sl_jinja_order(j, a, b, "<") == -1; }

/* ---------------------------------------------------------------- membership, comparison */

static bool contains_view(jinja *j, jinja_value item, const jinja_view *view) {
    if (view->what == JINJA_KEYS || view->what == JINJA_ITEM_SET) return sl_jinja_dict_get(j, view->dict, item) != NULL;
    if (view->what == JINJA_ITEMS) {
        if (item.type != JINJA_TUPLE || item.as.list->length != 2) return false;
        const jinja_value *value = sl_jinja_dict_get(j, view->dict, item.as.list->items[0]);
        return value && sl_jinja_equal(j, *value, item.as.list->items[1]);
    }
    for (size_t i = 0; i < view->dict->length; i++)
        if (sl_jinja_equal(j, view->dict->values[i], item)) return true;
    return false;
}

bool sl_jinja_contains(jinja *j, jinja_value item, jinja_value container) {
    switch ((jinja_type)container.type) {
    case JINJA_STRING:
        if (item.type != JINJA_STRING) {
            sl_jinja_fail(j, "TypeError", "'in <string>' requires string as left operand, not %s",
                          sl_jinja_type_name(item));
        }
        sl_jinja_charge(j, container.as.string->length / 256);
        return memmem(container.as.string->data, container.as.string->length, item.as.string->data,
                      item.as.string->length) != NULL;
    case JINJA_LIST:
    case JINJA_TUPLE:
        sl_jinja_charge(j, container.as.list->length / 4);
        for (size_t i = 0; i < container.as.list->length; i++)
            if (sl_jinja_equal(j, container.as.list->items[i], item)) return true;
        return false;
    case JINJA_DICT: return sl_jinja_dict_get(j, container.as.dict, item) != NULL;
    case JINJA_VIEW: return contains_view(j, item, container.as.view);
    case JINJA_RANGE: {
        const jinja_range *range = container.as.range;
        if (!jinja_is_number(item)) return false;
        if (item.type == JINJA_FLOAT) {
            if (item.as.number != floor(item.as.number) || fabs(item.as.number) > 9e18) return false;
            item = sl_jinja_int((int64_t)item.as.number);
        }
        if (item.type == JINJA_BIG || !range->length) return false;
        __int128 offset = (__int128)sl_jinja_index(j, item) - range->start;
        return offset % range->step == 0 && offset / range->step >= 0 && offset / range->step < range->length;
    }
    default: break;
    }
    if (!sl_jinja_is_iterable(container))
        sl_jinja_fail(j, "TypeError", "argument of type '%s' is not iterable", sl_jinja_type_name(container));
    jinja_iterator *it = sl_jinja_iterate(j, container);
    jinja_value each;
    while (sl_jinja_next(j, it, &each))
        if (sl_jinja_equal(j, each, item)) return true;
    return false;
}

bool sl_jinja_compare(jinja *j, jinja_operator op, jinja_value a, jinja_value b) {
    static const char *const names[] = {[JINJA_LT] = "<", [JINJA_LE] = "<=", [JINJA_GT] = ">", [JINJA_GE] = ">="};
    switch (op) {
    case JINJA_EQ: return sl_jinja_equal(j, a, b);
    case JINJA_NE: return !sl_jinja_equal(j, a, b);
    case JINJA_IN: return sl_jinja_contains(j, a, b);
    case JINJA_NOT_IN: return !sl_jinja_contains(j, a, b);
    default: break;
    }
    if (is_set(a) && is_set(b)) {
        int64_t x = sl_jinja_length(j, a), y = sl_jinja_length(j, b);
        if (op == JINJA_LT || op == JINJA_LE) return (op == JINJA_LT ? x < y : x <= y) && subset(j, a, b);
        return (op == JINJA_GT ? x > y : x >= y) && subset(j, b, a);
    }
    int order = sl_jinja_order(j, a, b, names[op]);
    switch (op) {
    case JINJA_LT: return order == -1;
    case JINJA_LE: return order == -1 || order == 0;
    case JINJA_GT: return order == 1;
    default: return order == 1 || order == 0;
    }
}

/* ---------------------------------------------------------------- binary operators */

static jinja_value concat_strings(jinja *j, jinja_value a, jinja_value b) {
    bool markup = a.markup || b.markup;
    if (markup) { /* Markup escapes what joins it */
        if (!a.markup) a = sl_jinja_escape(j, a);
        if (!b.markup) b = sl_jinja_escape(j, b);
    }
    jinja_text text = {.j = j};
    text.data = sl_jinja_alloc(j, a.as.string->length + b.as.string->length);
    text.capacity = a.as.string->length + b.as.string->length;
    sl_jinja_text_append(&text, a.as.string->data, a.as.string->length);
    sl_jinja_text_append(&text, b.as.string->data, b.as.string->length);
    jinja_value joined = sl_jinja_text_value(&text);
    joined.markup = markup;
    return joined;
}

static jinja_value concat_lists(jinja *j, jinja_value a, jinja_value b) {
    size_t n = a.as.list->length, m = b.as.list->length;
    sl_jinja_charge(j, (n + m) / 16);
    jinja_value joined = sl_jinja_list_new(j, n + m);
    if (n) memcpy(joined.as.list->items, a.as.list->items, n * sizeof *joined.as.list->items);
    if (m) memcpy(joined.as.list->items + n, b.as.list->items, m * sizeof *joined.as.list->items);
    joined.as.list->length = n + m;
    joined.type = a.type;
    return joined;
}

static jinja_value repeat(jinja *j, jinja_value v, int64_t times) {
    if (times < 0) times = 0;
    if (v.type == JINJA_STRING || v.type == JINJA_BYTES) {
        jinja_text text = {.j = j};
        sl_jinja_text_fill(&text, v.as.string->data, v.as.string->length, times);
        jinja_value repeated = sl_jinja_text_value(&text);
        repeated.markup = v.markup;
        repeated.type = v.type;
        return repeated;
    }
    size_t n = v.as.list->length, total;
    if (__builtin_mul_overflow(n, (size_t)times, &total)) sl_jinja_fail_limit(j, "memory, bytes", j->arena->limit);
    jinja_value repeated = sl_jinja_list_new(j, total);
    for (size_t i = 0; i < total; i++) repeated.as.list->items[i] = v.as.list->items[i % n];
    repeated.as.list->length = total;
    repeated.type = v.type;
    return repeated;
}

static noreturn void fail_operands(jinja *j, jinja_operator op, jinja_value a, jinja_value b) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (a.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, a);
    if (b.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, b);
    if (op == JINJA_ADD && a.type == JINJA_STRING)
        sl_jinja_fail(j, "TypeError", "can only concatenate str (not \"%s\") to str", sl_jinja_type_name(b));
    if (op == JINJA_ADD && jinja_is_sequence(a))
        sl_jinja_fail(j, "TypeError", "can only concatenate %s (not \"%s\") to %s", sl_jinja_type_name(a),
                      sl_jinja_type_name(b), sl_jinja_type_name(a));
    sl_jinja_fail(j, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'", names[op], sl_jinja_type_name(a),
                  sl_jinja_type_name(b));
}

static bool repeats(jinja_value v) { return v.type == JINJA_STRING || v.type == JINJA_BYTES || jinja_is_sequence(v); }

/* keys() - anything and anything - keys(); a set itself takes no more than sets. */
static jinja_value subtract_sets(jinja *j, jinja_value a, jinja_value b) {
    jinja_view *set = sl_jinja_alloc(j, sizeof *set);
    set->what = JINJA_ITEM_SET;
    set->dict = sl_jinja_dict_new(j).as.dict;
    jinja_dict *without = sl_jinja_dict_new(j).as.dict;
    jinja_iterator *it = sl_jinja_iterate(j, b);
    jinja_value item;
    while (sl_jinja_next(j, it, &item)) sl_jinja_dict_set(j, without, item, sl_jinja_none);
    it = sl_jinja_iterate(j, a);
    while (sl_jinja_next(j, it, &item))
        if (!sl_jinja_dict_get(j, without, item)) sl_jinja_dict_set(j, set->dict, item, sl_jinja_none);
    return (jinja_value){.type = JINJA_VIEW, .as.view = set};
}

static bool is_dict_view(jinja_value v) { return is_set(v) && v.as.view->what != JINJA_ITEM_SET; }

jinja_value sl_jinja_binary(jinja *j, jinja_operator op, jinja_value a, jinja_value b) {
    if (jinja_is_number(a) && jinja_is_number(b)) return sl_jinja_arithmetic(j, op, a, b);
    if (op == JINJA_MOD && a.type == JINJA_STRING) {
        /* Undefined on the right takes the operation, as its __rmod__ is asked only after str's; str formats it. */
        return sl_jinja_percent(j, a, b);
    }
    if (op == JINJA_ADD) {
        if (a.type == JINJA_STRING && b.type == JINJA_STRING) return concat_strings(j, a, b);
        if (a.type == b.type && jinja_is_sequence(a)) return concat_lists(j, a, b);
    }
    if (op == JINJA_MUL) {
        if (repeats(a) && jinja_is_int(b)) return repeat(j, a, sl_jinja_index(j, b));
        if (repeats(b) && jinja_is_int(a)) return repeat(j, b, sl_jinja_index(j, a));
    }
    if (op == JINJA_SUB && a.type != JINJA_UNDEFINED && b.type != JINJA_UNDEFINED &&
        (is_dict_view(a) || is_dict_view(b) || (is_set(a) && is_set(b))))
        return subtract_sets(j, a, b);
    fail_operands(j, op, a, b);
}
