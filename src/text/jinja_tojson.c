/* tojson as transformers defines it: json.dumps(value, ensure_ascii, indent, separators, sort_keys). */
#include "base/utf8.h"
#include "text/jinja.h"

#include <math.h>
#include <string.h>

typedef struct style {
    bool ascii, sort;
    const jinja_string *indent;     /* NULL: one line */
    const jinja_string *item, *key; /* separators */
} style;

static void write_value(jinja_text *out, const style *s, jinja_value v, int64_t level);

static void write_string(jinja_text *out, const style *s, const jinja_string *text) {
    sl_jinja_text_putc(out, '"');
    for (size_t at = 0; at < text->length;) {
        uint32_t code;
        size_t n = sl_utf8_decode(text->data + at, text->length - at, &code, NULL);
        const char *escape = code == '"'    ? "\\\""
                             : code == '\\' ? "\\\\"
                             : code == '\n' ? "\\n"
                             : code == '\r' ? "\\r"
                             : code == '\t' ? "\\t"
                             : code == '\b' ? "\\b"
                             : code == '\f' ? "\\f"
                                            : NULL;
        if (escape) sl_jinja_text_puts(out, escape);
        else if (code < 0x20 || (s->ascii && code >= 0x7f && code < 0x10000 && code != 0x7f))
            sl_jinja_text_printf(out, "\\u%04x", (unsigned)code);
        else if (s->ascii && code >= 0x10000) {
            sl_jinja_text_printf(out, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((code - 0x10000) >> 10)),
                                 (unsigned)(0xdc00 + (code & 0x3ff)));
        } else sl_jinja_text_append(out, text->data + at, n);
        at += n;
    }
    sl_jinja_text_putc(out, '"');
}

static void write_float(jinja_text *out, double value) {
    if (isfinite(value)) sl_jinja_write_float(out, value);
    else sl_jinja_text_puts(out, isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
}

static void new_line(jinja_text *out, const style *s, int64_t level) {
    if (!s->indent) return;
    sl_jinja_text_putc(out, '\n');
    sl_jinja_text_fill(out, s->indent->data, s->indent->length, level);
}

static void write_list(jinja_text *out, const style *s, const jinja_list *list, int64_t level) {
    sl_jinja_text_putc(out, '[');
    for (size_t i = 0; i < list->length; i++) {
        if (i) sl_jinja_text_append(out, s->item->data, s->item->length);
        new_line(out, s, level + 1);
        write_value(out, s, list->items[i], level + 1);
    }
    if (list->length) new_line(out, s, level);
    sl_jinja_text_putc(out, ']');
}

/* Keys become strings the way json does it. */
static void write_key(jinja_text *out, const style *s, jinja_value key) {
    if (key.type == JINJA_STRING) {
        write_string(out, s, key.as.string);
        return;
    }
    if (key.type != JINJA_NONE && !jinja_is_number(key))
        sl_jinja_fail(out->j, "TypeError", "keys must be str, int, float, bool or None, not %s",
                      sl_jinja_type_name(key));
    sl_jinja_text_putc(out, '"');
    write_value(out, s, key, 0);
    sl_jinja_text_putc(out, '"');
}

static void write_dict(jinja_text *out, const style *s, const jinja_dict *dict, int64_t level) {
    jinja *j = out->j;
    jinja_value *keys = dict->keys, *values = dict->values;
    if (s->sort && dict->length) {
        keys = sl_jinja_array(j, dict->length, sizeof *keys);
        values = sl_jinja_array(j, dict->length, sizeof *values);
        memcpy(keys, dict->keys, dict->length * sizeof *keys);
        memcpy(values, dict->values, dict->length * sizeof *values);
        sl_jinja_sort(j, values, keys, dict->length, false);
    }
    sl_jinja_text_putc(out, '{');
    for (size_t i = 0; i < dict->length; i++) {
        if (i) sl_jinja_text_append(out, s->item->data, s->item->length);
        new_line(out, s, level + 1);
        write_key(out, s, keys[i]);
        sl_jinja_text_append(out, s->key->data, s->key->length);
        write_value(out, s, values[i], level + 1);
    }
    if (dict->length) new_line(out, s, level);
    sl_jinja_text_putc(out, '}');
}

static void write_value(jinja_text *out, const style *s, jinja_value v, int64_t level) {
    sl_jinja_enter(out->j);
    sl_jinja_charge(out->j, 1);
    switch ((jinja_type)v.type) {
    case JINJA_NONE: sl_jinja_text_puts(out, "null"); break;
    case JINJA_BOOL: sl_jinja_text_puts(out, v.as.boolean ? "true" : "false"); break;
    case JINJA_INT:
    case JINJA_BIG: sl_jinja_write_int(out, v); break;
    case JINJA_FLOAT: write_float(out, v.as.number); break;
    case JINJA_STRING: write_string(out, s, v.as.string); break;
    case JINJA_LIST:
    case JINJA_TUPLE: write_list(out, s, v.as.list, level); break;
    case JINJA_DICT: write_dict(out, s, v.as.dict, level); break;
    default: sl_jinja_fail(out->j, "TypeError", "Object of type %s is not JSON serializable", sl_jinja_type_name(v));
    }
    sl_jinja_leave(out->j);
}

static const jinja_string *separator(jinja *j, jinja_value v) {
    if (!jinja_is_str(v))
        sl_jinja_fail(j, "TypeError", "separators must be a pair of str, not '%s'", sl_jinja_type_name(v));
    return v.as.string;
}

jinja_value sl_jinja_tojson(jinja *j, jinja_value value, const jinja_args *args) {
    jinja_value v[4];
    sl_jinja_bind(j, "tojson", args, (const char *const[]){"ensure_ascii", "indent", "separators", "sort_keys"}, 4, 0,
                  v);
    style s = {.ascii = v[0].type != JINJA_MISSING && sl_jinja_truth(j, v[0]),
               .sort = v[3].type != JINJA_MISSING && sl_jinja_truth(j, v[3])};
    if (v[1].type == JINJA_STRING) {
        s.indent = v[1].as.string;
    } else if (v[1].type != JINJA_MISSING && v[1].type != JINJA_NONE) {
        jinja_text blanks = {.j = j};
        sl_jinja_text_fill(&blanks, " ", 1, sl_jinja_index(j, v[1]));
        s.indent = sl_jinja_text_value(&blanks).as.string;
    }
    s.item = sl_jinja_literal(j, s.indent ? "," : ", ").as.string;
    s.key = sl_jinja_literal(j, ": ").as.string;
    if (v[2].type != JINJA_MISSING && v[2].type != JINJA_NONE) {
        jinja_value pair = sl_jinja_collect(j, v[2]);
        if (pair.as.list->length != 2) sl_jinja_fail(j, "ValueError", "separators must be a pair");
        s.item = separator(j, pair.as.list->items[0]);
        s.key = separator(j, pair.as.list->items[1]);
    }
    jinja_text out = {.j = j};
    write_value(&out, &s, value, 0);
    return sl_jinja_text_value(&out);
}
