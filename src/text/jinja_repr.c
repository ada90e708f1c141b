/* str() and repr() of every type, and pprint's layout. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

/* Python picks single quotes unless the text holds some and no double ones. */
void sl_jinja_write_code_repr(jinja_text *out, const char *data, size_t length) {
    bool single = length && memchr(data, '\'', length), twice = length && memchr(data, '"', length);
    char quote = single && !twice ? '"' : '\'';
    sl_jinja_text_putc(out, quote);
    for (size_t at = 0; at < length;) {
        uint32_t code;
        size_t n = sl_utf8_decode(data + at, length - at, &code, NULL);
        if (code == (uint32_t)quote || code == '\\') {
            sl_jinja_text_putc(out, '\\');
            sl_jinja_text_putc(out, (char)code);
        } else if (code == '\n') sl_jinja_text_puts(out, "\\n");
        else if (code == '\r') sl_jinja_text_puts(out, "\\r");
        else if (code == '\t') sl_jinja_text_puts(out, "\\t");
        else if (sl_jinja_is_printable(code)) sl_jinja_text_append(out, data + at, n);
        else
            sl_jinja_text_printf(out,
                                 code < 0x100     ? "\\x%02x"
                                 : code < 0x10000 ? "\\u%04x"
                                                  : "\\U%08x",
                                 (unsigned)code);
        at += n;
    }
    sl_jinja_text_putc(out, quote);
}

static void write_bytes(jinja_text *out, const jinja_string *s) {
    bool single = s->length && memchr(s->data, '\'', s->length), twice = s->length && memchr(s->data, '"', s->length);
    char quote = single && !twice ? '"' : '\'';
    sl_jinja_text_putc(out, 'b');
    sl_jinja_text_putc(out, quote);
    for (size_t i = 0; i < s->length; i++) {
        unsigned char c = (unsigned char)s->data[i];
        if (c == (unsigned char)quote || c == '\\') sl_jinja_text_printf(out, "\\%c", c);
        else if (c == '\n') sl_jinja_text_puts(out, "\\n");
        else if (c == '\r') sl_jinja_text_puts(out, "\\r");
        else if (c == '\t') sl_jinja_text_puts(out, "\\t");
        else if (c >= 0x20 && c < 0x7f) sl_jinja_text_putc(out, (char)c);
        else sl_jinja_text_printf(out, "\\x%02x", c);
    }
    sl_jinja_text_putc(out, quote);
}

static void write_list(jinja_text *out, jinja_value v) {
    const jinja_list *list = v.as.list;
    bool tuple = v.type == JINJA_TUPLE;
    sl_jinja_text_putc(out, tuple ? '(' : '[');
    for (size_t i = 0; i < list->length; i++) {
        if (i) sl_jinja_text_puts(out, ", ");
        sl_jinja_write_repr(out, list->items[i]);
    }
    if (tuple && list->length == 1) sl_jinja_text_putc(out, ',');
    sl_jinja_text_putc(out, tuple ? ')' : ']');
}

static void write_dict(jinja_text *out, jinja_dict *dict) {
    if (dict->in_repr) {
        sl_jinja_text_puts(out, "{...}");
        return;
    }
    dict->in_repr = true;
    sl_jinja_text_putc(out, '{');
    for (size_t i = 0; i < dict->length; i++) {
        if (i) sl_jinja_text_puts(out, ", ");
        sl_jinja_write_repr(out, dict->keys[i]);
        sl_jinja_text_puts(out, ": ");
        sl_jinja_write_repr(out, dict->values[i]);
    }
    sl_jinja_text_putc(out, '}');
    dict->in_repr = false;
}

static void write_view(jinja_text *out, jinja_value v) {
    jinja_value items = sl_jinja_collect(out->j, v);
    if (v.as.view->what == JINJA_ITEM_SET && items.as.list->length) {
        for (size_t i = 0; i < items.as.list->length; i++) {
            sl_jinja_text_puts(out, i ? ", " : "{");
            sl_jinja_write_repr(out, items.as.list->items[i]);
        }
        sl_jinja_text_putc(out, '}');
        return;
    }
    sl_jinja_text_puts(out, sl_jinja_type_name(v));
    sl_jinja_text_putc(out, '(');
    if (v.as.view->what != JINJA_ITEM_SET) write_list(out, items);
    sl_jinja_text_putc(out, ')');
}

static void write_range(jinja_text *out, const jinja_range *range) {
    sl_jinja_text_printf(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) sl_jinja_text_printf(out, ", %lld", (long long)range->step);
    sl_jinja_text_putc(out, ')');
}

static void write_object(jinja_text *out, jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_MACRO: {
        const jinja_node *node = v.as.macro->node;
        sl_jinja_text_puts(out, "<Macro ");
        if (node->name >= 0) sl_jinja_write_repr(out, out->j->program->names[node->name]);
        else sl_jinja_text_puts(out, "anonymous"); /* the caller of a call block */
        sl_jinja_text_putc(out, '>');
        break;
    }
    case JINJA_LOOP:
        sl_jinja_text_printf(out, "<LoopContext %lld/%lld>", (long long)v.as.loop->index0 + 1,
                             (long long)sl_jinja_length(out->j, v));
        break;
    case JINJA_FUNCTION: sl_jinja_text_printf(out, "<built-in function %s>", v.as.function->name); break;
    default: sl_jinja_text_printf(out, "<%s object>", sl_jinja_type_name(v));
    }
}

void sl_jinja_write_repr(jinja_text *out, jinja_value v) {
    sl_jinja_enter(out->j);
    sl_jinja_charge(out->j, 1);
    switch ((jinja_type)v.type) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED: sl_jinja_text_puts(out, "Undefined"); break;
    case JINJA_NONE: sl_jinja_text_puts(out, "None"); break;
    case JINJA_BOOL: sl_jinja_text_puts(out, v.as.boolean ? "True" : "False"); break;
    case JINJA_INT:
    case JINJA_BIG: sl_jinja_write_int(out, v); break;
    case JINJA_FLOAT: sl_jinja_write_float(out, v.as.number); break;
    case JINJA_STRING:
        if (v.markup) sl_jinja_text_puts(out, "Markup(");
        sl_jinja_write_code_repr(out, v.as.string->data, v.as.string->length);
        if (v.markup) sl_jinja_text_putc(out, ')');
        break;
    case JINJA_BYTES: write_bytes(out, v.as.string); break;
    case JINJA_LIST:
    case JINJA_TUPLE: write_list(out, v); break;
    case JINJA_DICT: write_dict(out, v.as.dict); break;
    case JINJA_NAMESPACE:
        sl_jinja_text_puts(out, "<Namespace ");
        write_dict(out, v.as.dict);
        sl_jinja_text_putc(out, '>');
        break;
    case JINJA_VIEW: write_view(out, v); break;
    case JINJA_RANGE: write_range(out, v.as.range); break;
    default: write_object(out, v);
    }
    sl_jinja_leave(out->j);
}

void sl_jinja_write_str(jinja_text *out, jinja_value v) {
    if (v.type == JINJA_STRING) sl_jinja_text_append(out, v.as.string->data, v.as.string->length);
    else if (v.type != JINJA_UNDEFINED) sl_jinja_write_repr(out, v);
}

jinja_value sl_jinja_to_str(jinja *j, jinja_value v) {
    if (v.type == JINJA_STRING) return v;
    jinja_text text = {.j = j};
    sl_jinja_write_str(&text, v);
    return sl_jinja_text_value(&text);
}
