/* The filter pprint: Python's pprint.pformat — dict keys in order, and one item a line where 80 columns do not hold the
 * whole. (Long strings are not folded, which Python does.) */
#include "text/jinja.h"

#include <string.h>

enum { WIDTH = 80 };

static jinja_value sorted(jinja *j, jinja_value v) {
    sl_jinja_enter(j);
    if (v.type == JINJA_DICT && v.as.dict->length) {
        size_t n = v.as.dict->length;
        jinja_value made = sl_jinja_dict_new(j), *keys = sl_jinja_array(j, n, sizeof *keys),
                    *values = sl_jinja_array(j, n, sizeof *values);
        bool same = true; /* keys of several types have no order of their own: they stay as they are */
        for (size_t i = 0; i < n; i++) {
            keys[i] = v.as.dict->keys[i];
            values[i] = sorted(j, v.as.dict->values[i]);
            same = same && (jinja_is_str(keys[i]) || jinja_is_number(keys[i])) &&
                   jinja_is_str(keys[i]) == jinja_is_str(keys[0]);
        }
        if (same) sl_jinja_sort(j, values, keys, n, false);
        for (size_t i = 0; i < n; i++) sl_jinja_dict_set(j, made.as.dict, keys[i], values[i]);
        v = made;
    } else if (jinja_is_sequence(v)) {
        jinja_value made = sl_jinja_list_new(j, v.as.list->length);
        for (size_t i = 0; i < v.as.list->length; i++)
            sl_jinja_list_push(j, made.as.list, sorted(j, v.as.list->items[i]));
        made.type = v.type;
        v = made;
    }
    sl_jinja_leave(j);
    return v;
}

/* indent: columns before the value; allowance: characters that must follow on its last line. */
static void write_value(jinja_text *out, jinja_value v, int64_t indent, int64_t allowance) {
    jinja_text line = {.j = out->j};
    sl_jinja_write_repr(&line, v);
    size_t n = v.type == JINJA_DICT ? v.as.dict->length : jinja_is_sequence(v) ? v.as.list->length : 0;
    jinja_value text = sl_jinja_text_value(&line);
    if (!n || (int64_t)text.as.string->chars <= WIDTH - indent - allowance) {
        sl_jinja_text_append(out, line.data, line.length);
        return;
    }
    const char *marks = v.type == JINJA_DICT ? "{}" : v.type == JINJA_LIST ? "[]" : "()";
    bool one = v.type == JINJA_TUPLE && n == 1;
    sl_jinja_enter(out->j);
    sl_jinja_text_putc(out, marks[0]);
    for (size_t i = 0; i < n; i++) {
        int64_t column = indent + 1, room = i + 1 == n ? allowance + 1 + one : 1;
        if (i) sl_jinja_text_puts(out, ",\n");
        if (i) sl_jinja_text_fill(out, " ", 1, column);
        if (v.type == JINJA_DICT) {
            jinja_text key = {.j = out->j};
            sl_jinja_write_repr(&key, v.as.dict->keys[i]);
            sl_jinja_text_puts(&key, ": ");
            jinja_value key_text = sl_jinja_text_value(&key);
            sl_jinja_write_str(out, key_text);
            write_value(out, v.as.dict->values[i], column + (int64_t)key_text.as.string->chars, room);
        } else {
            write_value(out, v.as.list->items[i], column, room);
        }
    }
    if (one) sl_jinja_text_putc(out, ',');
    sl_jinja_text_putc(out, marks[1]);
    sl_jinja_leave(out->j);
}

void sl_jinja_pprint(jinja_text *out, jinja_value v) { write_value(out, sorted(out->j, v), 0, 0); }
