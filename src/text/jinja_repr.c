/* str() and repr() of every type, and pprint's layout. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

/* Python picks single quotes unless the text holds some and no double ones. */
void jinja_write_code_repr(jinja_text *out, const char *data, size_t length) {
    bool single = length && memchr(data, '\'', length), twice = length && memchr(data, '"', length);
    char quote = single && !twice ? '"' : '\'';
    jinja_text_putc(out, quote);
    for (size_t at = 0; at < length;) {
        uint32_t code;
        size_t n = sl_utf8_decode(data + at, length - at, &code, NULL);
        if (code == (uint32_t)quote || code == '\\') {
            jinja_text_putc(out, '\\');
            jinja_text_putc(out, (char)code);
        } else if (code == '\n') jinja_text_puts(out, "\\n");
        else if (code == '\r') jinja_text_puts(out, "\\r");
        else if (code == '\t') jinja_text_puts(out, "\\t");
        else if (jinja_is_printable(code)) jinja_text_append(out, data + at, n);
        else jinja_text_printf(out, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
        at += n;
    }
    jinja_text_putc(out, quote);
}

static void write_bytes(jinja_text *out, const jinja_string *s) {
    bool single = s->length && memchr(s->data, '\'', s->length), twice = s->length && memchr(s->data, '"', s->length);
    char quote = single && !twice ? '"' : '\'';
    jinja_text_putc(out, 'b');
    jinja_text_putc(out, quote);
    for (size_t i = 0; i < s->length; i++) {
        unsigned char c = (unsigned char)s->data[i];
        if (c == (unsigned char)quote || c == '\\') jinja_text_printf(out, "\\%c", c);
        else if (c == '\n') jinja_text_puts(out, "\\n");
        else if (c == '\r') jinja_text_puts(out, "\\r");
        else if (c == '\t') jinja_text_puts(out, "\\t");
        else if (c >= 0x20 && c < 0x7f) jinja_text_putc(out, (char)c);
        else jinja_text_printf(out, "\\x%02x", c);
    }
    jinja_text_putc(out, quote);
}

static void write_list(jinja_text *out, jinja_value v) {
    const jinja_list *list = v.as.list;
    bool tuple = v.type == JINJA_TUPLE;
    jinja_text_putc(out, tuple ? '(' : '[');
    for (size_t i = 0; i < list->length; i++) {
        if (i) jinja_text_puts(out, ", ");
        jinja_write_repr(out, list->items[i]);
    }
    if (tuple && list->length == 1) jinja_text_putc(out, ',');
    jinja_text_putc(out, tuple ? ')' : ']');
}

static void write_dict(jinja_text *out, jinja_dict *dict) {
    if (dict->in_repr) {
        jinja_text_puts(out, "{...}");
        return;
    }
    dict->in_repr = true;
    jinja_text_putc(out, '{');
    for (size_t i = 0; i < dict->length; i++) {
        if (i) jinja_text_puts(out, ", ");
        jinja_write_repr(out, dict->keys[i]);
        jinja_text_puts(out, ": ");
        jinja_write_repr(out, dict->values[i]);
    }
    jinja_text_putc(out, '}');
    dict->in_repr = false;
}

static void write_view(jinja_text *out, jinja_value v) {
    jinja_value items = jinja_collect(out->j, v);
    jinja_text_puts(out, jinja_type_name(v));
    jinja_text_putc(out, '(');
    write_list(out, items);
    jinja_text_putc(out, ')');
}

static void write_range(jinja_text *out, const jinja_range *range) {
    jinja_text_printf(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) jinja_text_printf(out, ", %lld", (long long)range->step);
    jinja_text_putc(out, ')');
}

static void write_object(jinja_text *out, jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_MACRO: {
        const jinja_node *node = v.as.macro->node;
        jinja_text_puts(out, "<Macro ");
        if (node->name >= 0) jinja_write_repr(out, out->j->program->names[node->name]);
        else jinja_text_puts(out, "'caller'");
        jinja_text_putc(out, '>');
        break;
    }
    case JINJA_LOOP:
        jinja_text_printf(out, "<LoopContext %lld/%lld>", (long long)v.as.loop->index0 + 1, (long long)jinja_length(out->j, v));
        break;
    case JINJA_FUNCTION: jinja_text_printf(out, "<built-in function %s>", v.as.function->name); break;
    default: jinja_text_printf(out, "<%s object>", jinja_type_name(v));
    }
}

void jinja_write_repr(jinja_text *out, jinja_value v) {
    jinja_enter(out->j);
    jinja_charge(out->j, 1);
    switch ((jinja_type)v.type) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED: jinja_text_puts(out, "Undefined"); break;
    case JINJA_NONE: jinja_text_puts(out, "None"); break;
    case JINJA_BOOL: jinja_text_puts(out, v.as.boolean ? "True" : "False"); break;
    case JINJA_INT:
    case JINJA_BIG: jinja_write_int(out, v); break;
    case JINJA_FLOAT: jinja_write_float(out, v.as.number); break;
    case JINJA_STRING:
        if (v.markup) jinja_text_puts(out, "Markup(");
        jinja_write_code_repr(out, v.as.string->data, v.as.string->length);
        if (v.markup) jinja_text_putc(out, ')');
        break;
    case JINJA_BYTES: write_bytes(out, v.as.string); break;
    case JINJA_LIST:
    case JINJA_TUPLE: write_list(out, v); break;
    case JINJA_DICT: write_dict(out, v.as.dict); break;
    case JINJA_NAMESPACE:
        jinja_text_puts(out, "<Namespace ");
        write_dict(out, v.as.dict);
        jinja_text_putc(out, '>');
        break;
    case JINJA_VIEW: write_view(out, v); break;
    case JINJA_RANGE: write_range(out, v.as.range); break;
    default: write_object(out, v);
    }
    jinja_leave(out->j);
}

void jinja_write_str(jinja_text *out, jinja_value v) {
    if (v.type == JINJA_STRING) jinja_text_append(out, v.as.string->data, v.as.string->length);
    else if (v.type != JINJA_UNDEFINED) jinja_write_repr(out, v);
}

jinja_value jinja_to_str(jinja *j, jinja_value v) {
    if (v.type == JINJA_STRING) return v;
    jinja_text text = {.j = j};
    jinja_write_str(&text, v);
    return jinja_text_value(&text);
}
