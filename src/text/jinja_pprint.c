/* The filter pprint: Python's pprint.pformat at its defaults: dict keys in order, one item a line where 80 columns do
 * not hold the whole, and long strings in pieces that end behind white space. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

enum { WIDTH = 80 };

/* Where something is written. */
typedef struct place {
    int64_t indent;    /* columns before it */
    int64_t allowance; /* characters that must follow on its last line */
    int level;         /* containers around it */
} place;

/* ---------------------------------------------------------------- dict keys in order */

/* pprint orders keys that have no order by the names of their types; numbers share one, as they compare. */
static int64_t rank(jinja_value key) {
    return key.type == JINJA_NONE ? 0 : jinja_is_number(key) ? 1 : key.type == JINJA_STRING ? 2 : 3;
}

/* What a key sorts by. Tuples stay as they came: theirs may not be comparable. */
static jinja_value sort_key(jinja *j, jinja_value key) {
    jinja_value parts[2] = {sl_jinja_int(rank(key)), rank(key) == 3 ? sl_jinja_none : key};
    return sl_jinja_tuple(j, 2, parts);
}

static jinja_value sorted(jinja *j, jinja_value v);

static jinja_value sorted_dict(jinja *j, const jinja_dict *dict) {
    size_t n = dict->length;
    jinja_value made = sl_jinja_dict_new(j), *entries = sl_jinja_array(j, n, sizeof *entries),
                *keys = sl_jinja_array(j, n, sizeof *keys);
    for (size_t i = 0; i < n; i++) {
        jinja_value entry[2] = {dict->keys[i], sorted(j, dict->values[i])};
        entries[i] = sl_jinja_tuple(j, 2, entry);
        keys[i] = sort_key(j, dict->keys[i]);
    }
    sl_jinja_sort(j, entries, keys, n, false);
    for (size_t i = 0; i < n; i++)
        sl_jinja_dict_set(j, made.as.dict, entries[i].as.list->items[0], entries[i].as.list->items[1]);
    return made;
}

/* A container that pprint takes apart: groupby's tuples have a repr of their own and stay whole. */
static bool is_list(jinja_value v) { return jinja_is_sequence(v) && !v.group; }

static jinja_value sorted(jinja *j, jinja_value v) {
    sl_jinja_enter(j);
    if (v.type == JINJA_DICT && v.as.dict->length) {
        v = sorted_dict(j, v.as.dict);
    } else if (is_list(v)) {
        jinja_value made = sl_jinja_list_new(j, v.as.list->length);
        for (size_t i = 0; i < v.as.list->length; i++)
            sl_jinja_list_push(j, made.as.list, sorted(j, v.as.list->items[i]));
        made.type = v.type;
        v = made;
    }
    sl_jinja_leave(j);
    return v;
}

/* ---------------------------------------------------------------- strings in pieces */

static jinja_value repr_of(jinja *j, jinja_value v) {
    jinja_text text = {.j = j};
    sl_jinja_write_repr(&text, v);
    return sl_jinja_text_value(&text);
}
static int64_t columns(jinja_value text) { return (int64_t)text.as.string->chars; }

/* The end of the \S*\s* that begins at `at`. */
static size_t part_end(const jinja_string *line, size_t at) {
    for (bool spaces = false; at < line->length;) {
        uint32_t code;
        size_t n = sl_utf8_decode(line->data + at, line->length - at, &code, NULL);
        if (sl_jinja_is_space(code)) spaces = true;
        else if (spaces) break;
        at += n;
    }
    return at;
}

/* Folds one line of the string: reprs of as many parts as `width` holds; the last of all leaves `allowance` free. */
static void fold_line(jinja *j, jinja_list *pieces, const jinja_string *line, int64_t width, int64_t allowance) {
    jinja_value current = sl_jinja_missing;
    for (size_t from = 0, at = 0; at < line->length;) {
        size_t end = part_end(line, at);
        if (end == line->length) width -= allowance;
        sl_jinja_charge(j, 1);
        jinja_value candidate = repr_of(j, sl_jinja_str(j, line->data + from, end - from));
        if (columns(candidate) > width) {
            if (current.type != JINJA_MISSING) sl_jinja_list_push(j, pieces, current);
            if (from != at) candidate = repr_of(j, sl_jinja_str(j, line->data + at, end - at));
            from = at;
        }
        current = candidate;
        at = end;
    }
    if (current.type != JINJA_MISSING) sl_jinja_list_push(j, pieces, current);
}

static jinja_value bytes_between(jinja *j, const jinja_string *s, size_t from, size_t to) {
    jinja_value part = sl_jinja_str(j, s->data + from, to - from);
    part.type = JINJA_BYTES;
    return part;
}

/* Bytes fold at any multiple of four. */
static void fold_bytes(jinja *j, jinja_list *pieces, jinja_value v, place at) {
    const jinja_string *s = v.as.string;
    jinja_value current = sl_jinja_missing;
    int64_t width = WIDTH - at.indent;
    for (size_t from = 0, i = 0; i < s->length; i += 4) {
        size_t end = s->length - i < 4 ? s->length : i + 4;
        if (i == s->length / 4 * 4) width -= at.allowance;
        jinja_value candidate = repr_of(j, bytes_between(j, s, from, end));
        if (columns(candidate) > width) {
            if (current.type != JINJA_MISSING) sl_jinja_list_push(j, pieces, current);
            if (from != i) candidate = repr_of(j, bytes_between(j, s, i, end));
            from = i;
        }
        current = candidate;
    }
    sl_jinja_list_push(j, pieces, current);
}

static void fold_text(jinja *j, jinja_list *pieces, jinja_value v, place at) {
    const jinja_list *lines = sl_jinja_splitlines(j, v, true).as.list;
    for (size_t i = 0; i < lines->length; i++) {
        jinja_value line = lines->items[i], text = repr_of(j, line);
        int64_t allowance = i + 1 == lines->length ? at.allowance : 0;
        if (columns(text) <= WIDTH - at.indent - allowance) sl_jinja_list_push(j, pieces, text);
        else fold_line(j, pieces, line.as.string, WIDTH - at.indent, allowance);
    }
}

/* Adjacent literals, one a line; in parentheses when nothing else is around. */
static void write_text(jinja_text *out, jinja_value v, place at) {
    jinja *j = out->j;
    jinja_value pieces = sl_jinja_list_new(j, 0);
    if (!at.level) at.indent++, at.allowance++;
    if (v.type == JINJA_BYTES) fold_bytes(j, pieces.as.list, v, at);
    else fold_text(j, pieces.as.list, v, at);
    bool alone = pieces.as.list->length == 1 && v.type == JINJA_STRING;
    if (!at.level && !alone) sl_jinja_text_putc(out, '(');
    for (size_t i = 0; i < pieces.as.list->length; i++) {
        if (i) sl_jinja_text_putc(out, '\n');
        if (i) sl_jinja_text_fill(out, " ", 1, at.indent);
        sl_jinja_write_str(out, pieces.as.list->items[i]);
    }
    if (!at.level && !alone) sl_jinja_text_putc(out, ')');
}

/* ---------------------------------------------------------------- containers */

static void write_value(jinja_text *out, jinja_value v, place at);

static void write_container(jinja_text *out, jinja_value v, place at) {
    size_t n = v.type == JINJA_DICT ? v.as.dict->length : v.as.list->length;
    const char *marks = v.type == JINJA_DICT ? "{}" : v.type == JINJA_LIST ? "[]" : "()";
    bool one = v.type == JINJA_TUPLE && n == 1;
    int64_t column = at.indent + 1;
    sl_jinja_text_putc(out, marks[0]);
    for (size_t i = 0; i < n; i++) {
        place inner = {column, i + 1 == n ? at.allowance + 1 + one : 1, at.level + 1};
        if (i) sl_jinja_text_puts(out, ",\n");
        if (i) sl_jinja_text_fill(out, " ", 1, column);
        if (v.type == JINJA_DICT) {
            jinja_value key = repr_of(out->j, v.as.dict->keys[i]);
            sl_jinja_write_str(out, key);
            sl_jinja_text_puts(out, ": ");
            inner.indent += columns(key) + 2;
            write_value(out, v.as.dict->values[i], inner);
        } else {
            write_value(out, v.as.list->items[i], inner);
        }
    }
    if (one) sl_jinja_text_putc(out, ',');
    sl_jinja_text_putc(out, marks[1]);
}

static void write_value(jinja_text *out, jinja_value v, place at) {
    jinja_value text = repr_of(out->j, v);
    bool fits = columns(text) <= WIDTH - at.indent - at.allowance;
    sl_jinja_enter(out->j);
    bool is_text = (v.type == JINJA_STRING && !v.markup && v.as.string->length) ||
                   (v.type == JINJA_BYTES && v.as.string->length > 4);
    if (!fits && is_text) write_text(out, v, at);
    else if (!fits && (v.type == JINJA_DICT || is_list(v)) && sl_jinja_length(out->j, v)) write_container(out, v, at);
    else sl_jinja_write_str(out, text);
    sl_jinja_leave(out->j);
}

void sl_jinja_pprint(jinja_text *out, jinja_value v) { write_value(out, sorted(out->j, v), (place){0}); }
