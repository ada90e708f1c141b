/* Filters on text. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

#define GIVEN(v) ((v).type != JINJA_MISSING && (v).type != JINJA_NONE)

static void no_arguments(jinja *j, const char *name, const jinja_args *args) { jinja_bind(j, name, args, NULL, 0, 0, NULL); }
static bool flag(jinja *j, jinja_value v) { return v.type != JINJA_MISSING && jinja_truth(j, v); }

static const jinja_string *need_text(jinja *j, jinja_value v, const char *filter) {
    if (v.type == JINJA_UNDEFINED) jinja_fail_undefined(j, v);
    if (!jinja_is_str(v)) jinja_fail(j, "TypeError", "the filter '%s' needs a str, not '%s'", filter, jinja_type_name(v));
    return v.as.string;
}

static jinja_value filter_upper(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "upper", args);
    return jinja_str_upper(j, jinja_to_str(j, v));
}
static jinja_value filter_lower(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "lower", args);
    return jinja_str_lower(j, jinja_to_str(j, v));
}
static jinja_value filter_capitalize(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "capitalize", args);
    return jinja_str_capitalize(j, jinja_to_str(j, v));
}

/* The first character after white space or -({[< goes to upper case, the rest of the word to lower. */
static jinja_value filter_title(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "title", args);
    const jinja_string *s = jinja_to_str(j, v).as.string;
    jinja_text out = {.j = j};
    for (size_t at = 0; at < s->length;) {
        uint32_t code;
        size_t word = at, n = sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool breaks = jinja_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code));
        if (breaks) {
            jinja_text_append(&out, s->data + at, n);
            at += n;
            continue;
        }
        for (at += n; at < s->length; at += n) {
            n = sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
            if (jinja_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code))) break;
        }
        size_t first = sl_utf8_decode(s->data + word, at - word, &code, NULL);
        jinja_write_str(&out, jinja_str_upper(j, jinja_str(j, s->data + word, first)));
        jinja_write_str(&out, jinja_str_lower(j, jinja_str(j, s->data + word + first, at - word - first)));
    }
    return jinja_text_value(&out);
}

static jinja_value filter_trim(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value chars;
    jinja_bind(j, "trim", args, (const char *const[]){"chars"}, 1, 0, &chars);
    return jinja_strip(j, jinja_to_str(j, v), chars, true, true);
}

static jinja_value filter_center(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value width;
    jinja_bind(j, "center", args, (const char *const[]){"width"}, 1, 0, &width);
    return jinja_align(j, jinja_to_str(j, v), width.type == JINJA_MISSING ? 80 : jinja_index(j, width), " ", 1, '^');
}

static jinja_value filter_replace(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    jinja_bind(j, "replace", args, (const char *const[]){"old", "new", "count"}, 3, 2, a);
    jinja_value s = jinja_to_str(j, v), from = jinja_to_str(j, a[0]), to = jinja_to_str(j, a[1]);
    s.markup = to.markup = false;
    return jinja_replace(j, s, from, to, GIVEN(a[2]) ? jinja_index(j, a[2]) : -1);
}

static jinja_value filter_format(jinja *j, jinja_value v, const jinja_args *args) {
    if (args->length && args->named)
        jinja_fail(j, "FilterArgumentError", "can't handle positional and keyword arguments at the same time");
    jinja_value values = jinja_tuple(j, args->length, args->items);
    if (args->named) {
        values = jinja_dict_new(j);
        for (size_t i = 0; i < args->named; i++) jinja_dict_set(j, values.as.dict, args->names[i], args->values[i]);
    }
    return jinja_percent(j, jinja_to_str(j, v), values);
}

static jinja_value filter_indent(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    jinja_bind(j, "indent", args, (const char *const[]){"width", "first", "blank"}, 3, 0, a);
    bool first = flag(j, a[1]), blank = flag(j, a[2]);
    need_text(j, v, "indent");
    jinja_text indention = {.j = j}, out = {.j = j};
    if (a[0].type == JINJA_STRING) jinja_write_str(&indention, a[0]);
    else jinja_text_fill(&indention, " ", 1, a[0].type == JINJA_MISSING ? 4 : jinja_index(j, a[0]));
    /* The newline that Jinja adds makes the empty line at the end count as one. */
    jinja_value text = jinja_binary(j, JINJA_ADD, v, jinja_literal(j, "\n")), lines = jinja_splitlines(j, text, false);
    for (size_t i = 0; i < lines.as.list->length; i++) {
        jinja_value line = lines.as.list->items[i];
        if (i) jinja_text_putc(&out, '\n');
        if (i ? blank || line.as.string->length : first) jinja_text_append(&out, indention.data, indention.length);
        jinja_write_str(&out, line);
    }
    jinja_value made = jinja_text_value(&out);
    made.markup = v.markup;
    return made;
}

static jinja_value filter_truncate(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[4];
    jinja_bind(j, "truncate", args, (const char *const[]){"length", "killwords", "end", "leeway"}, 4, 0, a);
    int64_t length = a[0].type == JINJA_MISSING ? 255 : jinja_index(j, a[0]), leeway = GIVEN(a[3]) ? jinja_index(j, a[3]) : 5;
    jinja_value end = a[2].type == JINJA_MISSING ? jinja_literal(j, "...") : a[2];
    int64_t end_length = jinja_length(j, end);
    if (length < end_length) jinja_fail(j, "AssertionError", "expected length >= %lld, got %lld", (long long)end_length, (long long)length);
    if (leeway < 0) jinja_fail(j, "AssertionError", "expected leeway >= 0, got %lld", (long long)leeway);
    int64_t total = jinja_length(j, v);
    if (total <= length || total - length <= leeway) return v;
    jinja_value cut = jinja_get_slice(j, v, jinja_none, jinja_int(length - end_length), jinja_none);
    if (flag(j, a[1])) return jinja_binary(j, JINJA_ADD, cut, end);
    const jinja_string *s = need_text(j, cut, "truncate");
    size_t kept = s->length;
    for (size_t i = s->length; i-- > 0;) {
        if (s->data[i] != ' ') continue;
        kept = i;
        break;
    }
    return jinja_binary(j, JINJA_ADD, jinja_str(j, s->data, kept), end);
}

static jinja_value filter_wordcount(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "wordcount", args);
    const jinja_string *s = jinja_to_str(j, v).as.string;
    int64_t n = 0;
    bool inside = false;
    for (size_t at = 0; at < s->length;) {
        uint32_t code;
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool word = jinja_is_word(code);
        n += word && !inside;
        inside = word;
    }
    return jinja_int(n);
}

const jinja_filter jinja_text_filters[] = {
    {"trim", filter_trim}, {"upper", filter_upper}, {"lower", filter_lower}, {"capitalize", filter_capitalize},
    {"title", filter_title}, {"replace", filter_replace}, {"indent", filter_indent}, {"center", filter_center},
    {"format", filter_format}, {"truncate", filter_truncate}, {"wordcount", filter_wordcount}, {NULL, NULL}};
