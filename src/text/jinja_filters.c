/* Filters on single values, and the table of all filters. */
#include "text/jinja_int.h"

#include <math.h>
#include <string.h>

#define GIVEN(v) ((v).type != JINJA_MISSING && (v).type != JINJA_NONE)

static void no_arguments(jinja *j, const char *name, const jinja_args *args) {
    sl_jinja_bind(j, name, args, NULL, 0, 0, NULL);
}

static jinja_value filter_abs(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "abs", args);
    if (v.type == JINJA_UNDEFINED || !jinja_is_number(v))
        sl_jinja_fail(j, "TypeError", "bad operand type for abs(): '%s'", sl_jinja_type_name(v));
    if (v.type == JINJA_FLOAT) return sl_jinja_float(fabs(v.as.number));
    return sl_jinja_negate(j, v, !sl_jinja_big_negative(v));
}

static jinja_value filter_attr(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value name;
    sl_jinja_bind(j, "attr", args, (const char *const[]){"name"}, 1, 1, &name);
    if (!jinja_is_str(name))
        sl_jinja_fail(j, "TypeError", "attribute name must be string, not '%s'", sl_jinja_type_name(name));
    jinja_value found = sl_jinja_python_attribute(j, v, name.as.string);
    return found.type == JINJA_MISSING ? sl_jinja_undefined_attribute(j, v, name) : found;
}

static jinja_value filter_default(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    sl_jinja_bind(j, "default", args, (const char *const[]){"default_value", "boolean"}, 2, 0, a);
    bool falsy = a[1].type != JINJA_MISSING && sl_jinja_truth(j, a[1]) && !sl_jinja_truth(j, v);
    if (v.type != JINJA_UNDEFINED && !falsy) return v;
    return a[0].type == JINJA_MISSING ? sl_jinja_literal(j, "") : a[0];
}

static jinja_value filter_length(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "length", args);
    return sl_jinja_int(sl_jinja_length(j, v));
}

static jinja_value filter_string(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "string", args);
    return sl_jinja_to_str(j, v);
}

static jinja_value filter_tojson(jinja *j, jinja_value v, const jinja_args *args) {
    return sl_jinja_tojson(j, v, args);
}

/* int(value), Python's; MISSING where it raises ValueError or TypeError. */
static jinja_value to_int(jinja *j, jinja_value v, int base) {
    if (jinja_is_int(v)) return sl_jinja_negate(j, v, true);
    if (v.type == JINJA_FLOAT && isfinite(v.as.number)) return sl_jinja_float_to_int(j, v.as.number);
    if (v.type == JINJA_FLOAT && isinf(v.as.number))
        sl_jinja_float_to_int(j, v.as.number); /* OverflowError, not caught */
    if (jinja_is_str(v) || v.type == JINJA_BYTES) {
        if (base != 0 && (base < 2 || base > 36)) return sl_jinja_missing;
        return sl_jinja_parse_int(j, v.as.string->data, v.as.string->length, base);
    }
    return sl_jinja_missing;
}

static jinja_value filter_int(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    double number;
    sl_jinja_bind(j, "int", args, (const char *const[]){"default", "base"}, 2, 0, a);
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    int64_t base = a[1].type == JINJA_MISSING ? 10 : sl_jinja_index(j, a[1]);
    jinja_value whole = to_int(j, v, base < 0 || base > 36 ? 99 : (int)base);
    if (whole.type != JINJA_MISSING) return whole;
    if (jinja_is_str(v) && sl_jinja_parse_float(j, v.as.string->data, v.as.string->length, &number) && isfinite(number))
        return sl_jinja_float_to_int(j, number);
    return a[0].type == JINJA_MISSING ? sl_jinja_int(0) : a[0];
}

static jinja_value filter_float(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value fallback;
    double number;
    sl_jinja_bind(j, "float", args, (const char *const[]){"default"}, 1, 0, &fallback);
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (jinja_is_number(v)) return sl_jinja_float(sl_jinja_to_double(j, v));
    if ((jinja_is_str(v) || v.type == JINJA_BYTES) &&
        sl_jinja_parse_float(j, v.as.string->data, v.as.string->length, &number))
        return sl_jinja_float(number);
    return fallback.type == JINJA_MISSING ? sl_jinja_float(0) : fallback;
}

static jinja_value filter_round(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    sl_jinja_bind(j, "round", args, (const char *const[]){"precision", "method"}, 2, 0, a);
    if (a[0].type == JINJA_MISSING) a[0] = sl_jinja_int(0);
    bool ceiling = sl_jinja_string_is(a[1], "ceil");
    if (a[1].type == JINJA_MISSING || sl_jinja_string_is(a[1], "common")) return sl_jinja_round(j, v, a[0]);
    if (!ceiling && !sl_jinja_string_is(a[1], "floor"))
        sl_jinja_fail(j, "FilterArgumentError", "method must be common, ceil or floor");
    jinja_value unit = sl_jinja_binary(j, JINJA_POW, sl_jinja_int(10), a[0]),
                scaled = sl_jinja_binary(j, JINJA_MUL, v, unit);
    if (!jinja_is_number(scaled))
        sl_jinja_fail(j, "TypeError", "must be real number, not %s", sl_jinja_type_name(scaled));
    if (scaled.type == JINJA_FLOAT)
        scaled = sl_jinja_float_to_int(j, ceiling ? ceil(scaled.as.number) : floor(scaled.as.number));
    return sl_jinja_binary(j, JINJA_DIV, scaled, unit);
}

static jinja_value filter_filesizeformat(jinja *j, jinja_value v, const jinja_args *args) {
    static const char *const prefixes[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
    jinja_value binary;
    double bytes = 0;
    sl_jinja_bind(j, "filesizeformat", args, (const char *const[]){"binary"}, 1, 0, &binary);
    bool by_1024 = binary.type != JINJA_MISSING && sl_jinja_truth(j, binary);
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (jinja_is_number(v)) bytes = sl_jinja_to_double(j, v);
    else if (!jinja_is_str(v))
        sl_jinja_fail(j, "TypeError", "float() argument must be a string or a real number, not '%s'",
                      sl_jinja_type_name(v));
    else if (!sl_jinja_parse_float(j, v.as.string->data, v.as.string->length, &bytes))
        sl_jinja_fail(j, "ValueError", "could not convert string to float");
    jinja_text out = {.j = j};
    double base = by_1024 ? 1024 : 1000, unit = base;
    if (bytes == 1) return sl_jinja_literal(j, "1 Byte");
    if (bytes < base) {
        sl_jinja_write_int(&out, sl_jinja_float_to_int(j, bytes));
        sl_jinja_text_puts(&out, " Bytes");
        return sl_jinja_text_value(&out);
    }
    int i = 0;
    for (unit = base * base; i < 7 && !(bytes < unit); i++) unit *= base;
    sl_jinja_text_printf(&out, "%.1f %s%s", base * bytes / unit, by_1024 && !i ? "K" : prefixes[i],
                         by_1024 ? "iB" : "B");
    return sl_jinja_text_value(&out);
}

static jinja_value filter_pprint(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "pprint", args);
    jinja_text out = {.j = j};
    sl_jinja_pprint(&out, v);
    return sl_jinja_text_value(&out);
}

static jinja_value filter_random(jinja *j, jinja_value v, const jinja_args *args) {
    (void)v;
    no_arguments(j, "random", args);
    sl_jinja_fail(j, "TemplateRuntimeError",
                  "the filter 'random' is not supported: a template gives the same text every time");
}

static const jinja_filter value_filters[] = {
    {"tojson", filter_tojson}, {"length", filter_length}, {"default", filter_default},
    {"string", filter_string}, {"int", filter_int},       {"float", filter_float},
    {"d", filter_default},     {"count", filter_length},  {"abs", filter_abs},
    {"attr", filter_attr},     {"round", filter_round},   {"filesizeformat", filter_filesizeformat},
    {"pprint", filter_pprint}, {"random", filter_random}, {NULL, NULL}};

const jinja_filter *sl_jinja_find_filter(const char *name, size_t length) {
    const jinja_filter *const tables[] = {value_filters, sl_jinja_sequence_filters, sl_jinja_text_filters,
                                          sl_jinja_html_filters};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const jinja_filter *filter = tables[t]; filter->name; filter++)
            if (strlen(filter->name) == length && !memcmp(filter->name, name, length)) return filter;
    return NULL;
}
