/* The tests behind `is`. */
#include "text/jinja_int.h"

#include <string.h>

static jinja_value argument(jinja *j, const char *name, const jinja_args *args) {
    jinja_value v;
    sl_jinja_bind(j, name, args, (const char *const[]){"other"}, 1, 1, &v);
    return v;
}

static void no_arguments(jinja *j, const char *name, const jinja_args *args) {
    sl_jinja_bind(j, name, args, NULL, 0, 0, NULL);
}

#define SIMPLE(test, expression) \
    static bool test_##test(jinja *j, jinja_value v, const jinja_args *args) { \
        no_arguments(j, #test, args); \
        return expression; \
    }
SIMPLE(defined, v.type != JINJA_UNDEFINED)
SIMPLE(undefined, v.type == JINJA_UNDEFINED)
SIMPLE(none, v.type == JINJA_NONE)
SIMPLE(boolean, v.type == JINJA_BOOL)
SIMPLE(true, v.type == JINJA_BOOL && v.as.boolean)
SIMPLE(false, v.type == JINJA_BOOL && !v.as.boolean)
SIMPLE(integer, v.type == JINJA_INT || v.type == JINJA_BIG)
SIMPLE(float, v.type == JINJA_FLOAT)
SIMPLE(number, jinja_is_number(v))
SIMPLE(string, jinja_is_str(v))
SIMPLE(mapping, v.type == JINJA_DICT)
SIMPLE(iterable, sl_jinja_is_iterable(v))
SIMPLE(callable, sl_jinja_is_callable(v))
SIMPLE(escaped, jinja_is_str(v) && v.markup)
SIMPLE(lower, sl_jinja_str_islower(sl_jinja_to_str(j, v)))
SIMPLE(upper, sl_jinja_str_isupper(sl_jinja_to_str(j, v)))

static bool test_sequence(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "sequence", args);
    switch ((jinja_type)v.type) { /* what has both a length and items */
    case JINJA_UNDEFINED:
    case JINJA_STRING:
    case JINJA_BYTES:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
    case JINJA_RANGE: return true;
    default: return false;
    }
}

static bool parity(jinja *j, jinja_value v, int64_t wanted) {
    jinja_value rest = sl_jinja_binary(j, JINJA_MOD, v, sl_jinja_int(2));
    return sl_jinja_equal(j, rest, sl_jinja_int(wanted));
}
static bool test_odd(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "odd", args);
    return parity(j, v, 1);
}
static bool test_even(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "even", args);
    return parity(j, v, 0);
}
static bool test_divisibleby(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value number;
    sl_jinja_bind(j, "divisibleby", args, (const char *const[]){"num"}, 1, 1, &number);
    return sl_jinja_equal(j, sl_jinja_binary(j, JINJA_MOD, v, number), sl_jinja_int(0));
}

static bool test_filter(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "filter", args);
    sl_jinja_hash(j, v); /* Python looks the value up in a dict: it must be hashable */
    return jinja_is_str(v) && sl_jinja_find_filter(v.as.string->data, v.as.string->length);
}
static bool test_test(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "test", args);
    sl_jinja_hash(j, v); /* Python looks the value up in a dict: it must be hashable */
    return jinja_is_str(v) && sl_jinja_find_test(v.as.string->data, v.as.string->length);
}

static bool test_sameas(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value other = argument(j, "sameas", args);
    if (v.type != other.type) return false;
    switch ((jinja_type)v.type) {
    case JINJA_NONE: return true;
    case JINJA_BOOL: return v.as.boolean == other.as.boolean;
    case JINJA_INT: /* CPython keeps the small ones once */
        return v.as.integer == other.as.integer && v.as.integer >= -5 && v.as.integer <= 256;
    case JINJA_FLOAT: return false;
    default: return v.as.list == other.as.list;
    }
}

static bool test_in(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value seq;
    sl_jinja_bind(j, "in", args, (const char *const[]){"seq"}, 1, 1, &seq);
    return sl_jinja_contains(j, v, seq);
}

#define COMPARISON(test, op) \
    static bool test_##test(jinja *j, jinja_value v, const jinja_args *args) { \
        if (args->named) sl_jinja_fail(j, "TypeError", "the test takes no keyword arguments"); \
        return sl_jinja_compare(j, op, v, argument(j, #test, args)); \
    }
COMPARISON(eq, JINJA_EQ)
COMPARISON(ne, JINJA_NE)
COMPARISON(lt, JINJA_LT)
COMPARISON(le, JINJA_LE)
COMPARISON(gt, JINJA_GT)
COMPARISON(ge, JINJA_GE)

const jinja_test *sl_jinja_find_test(const char *name, size_t length) {
    static const jinja_test tests[] = {{"defined", test_defined},
                                       {"undefined", test_undefined},
                                       {"none", test_none},
                                       {"string", test_string},
                                       {"mapping", test_mapping},
                                       {"iterable", test_iterable},
                                       {"sequence", test_sequence},
                                       {"boolean", test_boolean},
                                       {"true", test_true},
                                       {"false", test_false},
                                       {"integer", test_integer},
                                       {"float", test_float},
                                       {"number", test_number},
                                       {"callable", test_callable},
                                       {"escaped", test_escaped},
                                       {"lower", test_lower},
                                       {"upper", test_upper},
                                       {"odd", test_odd},
                                       {"even", test_even},
                                       {"divisibleby", test_divisibleby},
                                       {"filter", test_filter},
                                       {"test", test_test},
                                       {"sameas", test_sameas},
                                       {"in", test_in},
                                       {"==", test_eq},
                                       {"eq", test_eq},
                                       {"equalto", test_eq},
                                       {"!=", test_ne},
                                       {"ne", test_ne},
                                       {"<", test_lt},
                                       {"lt", test_lt},
                                       {"lessthan", test_lt},
                                       {"<=", test_le},
                                       {"le", test_le},
                                       {">", test_gt},
                                       {"gt", test_gt},
                                       {"greaterthan", test_gt},
                                       {">=", test_ge},
                                       {"ge", test_ge}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strlen(tests[i].name) == length && !memcmp(tests[i].name, name, length)) return &tests[i];
    return NULL;
}
