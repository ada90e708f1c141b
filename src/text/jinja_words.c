/* Filters on text. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

#define GIVEN(v) ((v).type != JINJA_MISSING && (v).type != JINJA_NONE)

static void no_arguments(jinja *j, const char *name, const jinja_args *args) {
    sl_jinja_bind(j, name, args, NULL, 0, 0, NULL);
}
static bool flag(jinja *j, jinja_value v) { return v.type != JINJA_MISSING && sl_jinja_truth(j, v); }

static const jinja_string *need_text(jinja *j, jinja_value v, const char *filter) {
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (!jinja_is_str(v))
        sl_jinja_fail(j, "TypeError", "the filter '%s' needs a str, not '%s'", filter, sl_jinja_type_name(v));
    return v.as.string;
}

static jinja_value filter_upper(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "upper", args);
    return sl_jinja_str_upper(j, sl_jinja_to_str(j, v));
}
static jinja_value filter_lower(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "lower", args);
    return sl_jinja_str_lower(j, sl_jinja_to_str(j, v));
}
static jinja_value filter_capitalize(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "capitalize", args);
    return sl_jinja_str_capitalize(j, sl_jinja_to_str(j, v));
}

/* The first character after white space or -({[< goes to upper case, the rest of the word to lower. */
static jinja_value filter_title(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "title", args);
    const jinja_string *s = sl_jinja_to_str(j, v).as.string;
    jinja_text out = {.j = j};
    for (size_t at = 0; at < s->length;) {
        uint32_t code;
        size_t word = at, n = sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool breaks = sl_jinja_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code));
        if (breaks) {
            sl_jinja_text_append(&out, s->data + at, n);
            at += n;
            continue;
        }
        for (at += n; at < s->length; at += n) {
            n = sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
            if (sl_jinja_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code))) break;
        }
        size_t first = sl_utf8_decode(s->data + word, at - word, &code, NULL);
        sl_jinja_write_str(&out, sl_jinja_str_upper(j, sl_jinja_str(j, s->data + word, first)));
        sl_jinja_write_str(&out, sl_jinja_str_lower(j, sl_jinja_str(j, s->data + word + first, at - word - first)));
    }
    return sl_jinja_text_value(&out);
}

static jinja_value filter_trim(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value chars;
    sl_jinja_bind(j, "trim", args, (const char *const[]){"chars"}, 1, 0, &chars);
    return sl_jinja_strip(j, sl_jinja_to_str(j, v), chars, true, true);
}

static jinja_value filter_center(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value width;
    sl_jinja_bind(j, "center", args, (const char *const[]){"width"}, 1, 0, &width);
    return sl_jinja_align(j, sl_jinja_to_str(j, v), width.type == JINJA_MISSING ? 80 : sl_jinja_index(j, width), " ", 1,
                          '^');
}

static jinja_value filter_replace(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    sl_jinja_bind(j, "replace", args, (const char *const[]){"old", "new", "count"}, 3, 2, a);
    jinja_value s = sl_jinja_to_str(j, v), from = sl_jinja_to_str(j, a[0]), to = sl_jinja_to_str(j, a[1]);
    s.markup = to.markup = false;
    return sl_jinja_replace(j, s, from, to, GIVEN(a[2]) ? sl_jinja_index(j, a[2]) : -1);
}

static jinja_value filter_format(jinja *j, jinja_value v, const jinja_args *args) {
    if (args->length && args->named)
        sl_jinja_fail(j, "FilterArgumentError", "can't handle positional and keyword arguments at the same time");
    jinja_value values = sl_jinja_tuple(j, args->length, args->items);
    if (args->named) {
        values = sl_jinja_dict_new(j);
        for (size_t i = 0; i < args->named; i++) sl_jinja_dict_set(j, values.as.dict, args->names[i], args->values[i]);
    }
    return sl_jinja_percent(j, sl_jinja_to_str(j, v), values);
}

static jinja_value filter_indent(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    sl_jinja_bind(j, "indent", args, (const char *const[]){"width", "first", "blank"}, 3, 0, a);
    bool first = flag(j, a[1]), blank = flag(j, a[2]);
    need_text(j, v, "indent");
    jinja_text indention = {.j = j}, out = {.j = j};
    if (a[0].type == JINJA_STRING) sl_jinja_write_str(&indention, a[0]);
    else sl_jinja_text_fill(&indention, " ", 1, a[0].type == JINJA_MISSING ? 4 : sl_jinja_index(j, a[0]));
    /* The newline that Jinja adds makes the empty line at the end count as one. */
    jinja_value text = sl_jinja_binary(j, JINJA_ADD, v, sl_jinja_literal(j, "\n")),
                lines = sl_jinja_splitlines(j, text, false);
    for (size_t i = 0; i < lines.as.list->length; i++) {
        jinja_value line = lines.as.list->items[i];
        if (i) sl_jinja_text_putc(&out, '\n');
        if (i ? blank || line.as.string->length : first) sl_jinja_text_append(&out, indention.data, indention.length);
        sl_jinja_write_str(&out, line);
    }
    jinja_value made = sl_jinja_text_value(&out);
    made.markup = v.markup;
    return made;
}

static jinja_value filter_truncate(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[4];
    sl_jinja_bind(j, "truncate", args, (const char *const[]){"length", "killwords", "end", "leeway"}, 4, 0, a);
    int64_t length = a[0].type == JINJA_MISSING ? 255 : sl_jinja_index(j, a[0]),
            leeway = GIVEN(a[3]) ? sl_jinja_index(j, a[3]) : 5;
    jinja_value end = a[2].type == JINJA_MISSING ? sl_jinja_literal(j, "...") : a[2];
    int64_t end_length = sl_jinja_length(j, end);
    if (length < end_length)
        sl_jinja_fail(j, "AssertionError", "expected length >= %lld, got %lld", (long long)end_length,
                      (long long)length);
    if (leeway < 0) sl_jinja_fail(j, "AssertionError", "expected leeway >= 0, got %lld", (long long)leeway);
    int64_t total = sl_jinja_length(j, v);
    if (total <= length || total - length <= leeway) return v;
    jinja_value cut = sl_jinja_get_slice(j, v, sl_jinja_none, sl_jinja_int(length - end_length), sl_jinja_none);
    if (flag(j, a[1])) return sl_jinja_binary(j, JINJA_ADD, cut, end);
    const jinja_string *s = need_text(j, cut, "truncate");
    size_t kept = s->length;
    for (size_t i = s->length; i-- > 0;) {
        if (s->data[i] != ' ') continue;
        kept = i;
        break;
    }
    return sl_jinja_binary(j, JINJA_ADD, sl_jinja_str(j, s->data, kept), end);
}

static jinja_value filter_wordcount(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "wordcount", args);
    const jinja_string *s = sl_jinja_to_str(j, v).as.string;
    int64_t n = 0;
    bool inside = false;
    for (size_t at = 0; at < s->length;) {
        uint32_t code;
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool word = sl_jinja_is_word(code);
        n += word && !inside;
        inside = word;
    }
    return sl_jinja_int(n);
}

const jinja_filter sl_jinja_text_filters[] = {{"trim", filter_trim},
                                              {"upper", filter_upper},
                                              {"lower", filter_lower},
                                              {"capitalize", filter_capitalize},
                                              {"title", filter_title},
                                              {"replace", filter_replace},
                                              {"indent", filter_indent},
                                              {"center", filter_center},
                                              {"format", filter_format},
                                              {"truncate", filter_truncate},
                                              {"wordcount", filter_wordcount},
                                              {"wordwrap", sl_jinja_wordwrap},
                                              {NULL, NULL}};
