/* Filters for markup and URLs. Nothing is escaped unless a template asks for it. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

static void no_arguments(jinja *j, const char *name, const jinja_args *args) {
    sl_jinja_bind(j, name, args, NULL, 0, 0, NULL);
}

static jinja_value escape_text(jinja *j, jinja_value v) {
    const jinja_string *s = sl_jinja_to_str(j, v).as.string;
    jinja_text out = {.j = j};
    for (size_t i = 0; i < s->length; i++) {
        switch (s->data[i]) {
        case '&': sl_jinja_text_puts(&out, "&amp;"); break;
        case '<': sl_jinja_text_puts(&out, "&lt;"); break;
        case '>': sl_jinja_text_puts(&out, "&gt;"); break;
        case '"': sl_jinja_text_puts(&out, "&#34;"); break;
        case '\'': sl_jinja_text_puts(&out, "&#39;"); break;
        default: sl_jinja_text_putc(&out, s->data[i]);
        }
    }
    jinja_value escaped = sl_jinja_text_value(&out);
    escaped.markup = true;
    return escaped;
}

jinja_value sl_jinja_escape(jinja *j, jinja_value v) {
    return v.type == JINJA_STRING && v.markup ? v : escape_text(j, v);
}

static jinja_value filter_escape(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "escape", args);
    return sl_jinja_escape(j, v);
}
static jinja_value filter_forceescape(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "forceescape", args);
    return escape_text(j, v);
}
static jinja_value filter_safe(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "safe", args);
    v = sl_jinja_to_str(j, v);
    v.markup = true;
    return v;
}

/* ---------------------------------------------------------------- striptags */

/* The text without its comments and tags; it stays as it is from the first one on that does not close. */
static jinja_text drop_tags(jinja *j, const jinja_string *s) {
    jinja_text out = {.j = j};
    const char *p = s->data, *end = s->data + s->length;
    while (p < end) {
        const char *start = memchr(p, '<', (size_t)(end - p));
        if (!start) break;
        bool comment = end - start >= 4 && !memcmp(start, "<!--", 4);
        const char *stop = comment ? memmem(start + 4, (size_t)(end - start) - 4, "-->", 3)
                                   : memchr(start, '>', (size_t)(end - start));
        if (!stop) break;
        sl_jinja_text_append(&out, p, (size_t)(start - p));
        p = stop + (comment ? 3 : 1);
    }
    sl_jinja_text_append(&out, p, (size_t)(end - p));
    return out;
}

static jinja_value filter_striptags(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "striptags", args);
    const jinja_string *s = sl_jinja_to_str(j, v).as.string;
    jinja_text text = drop_tags(j, s), joined = {.j = j}, out = {.j = j};
    for (size_t at = 0; at < text.length;) { /* runs of white space become one blank */
        uint32_t code;
        size_t n = sl_utf8_decode(text.data + at, text.length - at, &code, NULL);
        if (!sl_jinja_is_space(code)) sl_jinja_text_append(&joined, text.data + at, n);
        else if (joined.length && joined.data[joined.length - 1] != ' ') sl_jinja_text_putc(&joined, ' ');
        at += n;
    }
    if (joined.length && joined.data[joined.length - 1] == ' ') joined.length--;
    for (size_t at = 0; at < joined.length;) {
        bool mark = joined.data[at] == '&';
        size_t n = mark ? sl_jinja_read_entity(joined.data + at + 1, joined.length - at - 1, &out) : 0;
        if (!n) sl_jinja_text_putc(&out, joined.data[at]);
        at += n + 1;
    }
    return sl_jinja_text_value(&out);
}

/* ---------------------------------------------------------------- URLs */

static void quote(jinja_text *out, jinja_value v, bool query) {
    const jinja_string *s = sl_jinja_to_str(out->j, v).as.string;
    for (size_t i = 0; i < s->length; i++) {
        unsigned char c = (unsigned char)s->data[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("_.-~", c)) ||
                     (c == '/' && !query);
        if (plain) sl_jinja_text_putc(out, (char)c);
        else if (c == ' ' && query) sl_jinja_text_putc(out, '+');
        else sl_jinja_text_printf(out, "%%%02X", c);
    }
}

static jinja_value filter_urlencode(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_text out = {.j = j};
    jinja_value item;
    no_arguments(j, "urlencode", args);
    if (jinja_is_str(v) || !sl_jinja_is_iterable(v)) {
        quote(&out, v, false);
        return sl_jinja_text_value(&out);
    }
    bool dict = v.type == JINJA_DICT;
    jinja_iterator *it = sl_jinja_iterate(j, v);
    for (size_t i = 0; sl_jinja_next(j, it, &item); i++) {
        jinja_value pair = dict ? sl_jinja_missing : sl_jinja_collect(j, item);
        if (!dict && pair.as.list->length != 2) sl_jinja_fail(j, "ValueError", "urlencode needs (key, value) pairs");
        if (i) sl_jinja_text_putc(&out, '&');
        quote(&out, dict ? item : pair.as.list->items[0], true);
        sl_jinja_text_putc(&out, '=');
        quote(&out, dict ? v.as.dict->values[i] : pair.as.list->items[1], true);
    }
    return sl_jinja_text_value(&out);
}

static jinja_value filter_xmlattr(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value autospace;
    sl_jinja_bind(j, "xmlattr", args, (const char *const[]){"autospace"}, 1, 0, &autospace);
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (v.type != JINJA_DICT)
        sl_jinja_fail(j, "AttributeError", "'%s' object has no attribute 'items'", sl_jinja_type_name(v));
    jinja_text out = {.j = j};
    bool space = autospace.type == JINJA_MISSING || sl_jinja_truth(j, autospace);
    for (size_t i = 0; i < v.as.dict->length; i++) {
        jinja_value key = v.as.dict->keys[i], value = v.as.dict->values[i];
        if (value.type == JINJA_NONE || value.type == JINJA_UNDEFINED) continue;
        if (!jinja_is_str(key)) sl_jinja_fail(j, "TypeError", "expected string, got '%s'", sl_jinja_type_name(key));
        for (size_t k = 0; k < key.as.string->length; k++)
            if (key.as.string->data[k] && strchr(" \t\n\r\f\v/>=", key.as.string->data[k]))
                sl_jinja_fail(j, "ValueError", "Invalid character in attribute name");
        if (out.length || space) sl_jinja_text_putc(&out, ' ');
        sl_jinja_write_str(&out, sl_jinja_escape(j, key));
        sl_jinja_text_puts(&out, "=\"");
        sl_jinja_write_str(&out, sl_jinja_escape(j, value));
        sl_jinja_text_putc(&out, '"');
    }
    return sl_jinja_text_value(&out);
}

const jinja_filter sl_jinja_html_filters[] = {{"escape", filter_escape},
                                              {"e", filter_escape},
                                              {"safe", filter_safe},
                                              {"forceescape", filter_forceescape},
                                              {"striptags", filter_striptags},
                                              {"urlencode", filter_urlencode},
                                              {"xmlattr", filter_xmlattr},
                                              {"urlize", sl_jinja_urlize},
                                              {NULL, NULL}};
