/* The methods of str that look for, cut and join text. Those about case are in jinja_case.c. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>

static jinja_value keep_markup(jinja_value made, jinja_value like) {
    made.markup = like.markup;
    return made;
}

static const jinja_string *text_argument(jinja *j, jinja_value v, const char *method) {
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (!jinja_is_str(v)) sl_jinja_fail(j, "TypeError", "%s() needs a str, not '%s'", method, sl_jinja_type_name(v));
    return v.as.string;
}

static bool given(jinja_value v) { return v.type != JINJA_MISSING && v.type != JINJA_NONE; }

/* Python's str methods take their arguments by position unless said otherwise. */
static void bind_positional(jinja *j, const char *name, const jinja_args *args, size_t n, size_t required,
                            jinja_value *out) {
    static const char *const parameters[] = {"1", "2", "3"};
    if (args->named) sl_jinja_fail(j, "TypeError", "str.%s() takes no keyword arguments", name);
    sl_jinja_bind(j, name, args, parameters, n, required, out);
}

/* ---------------------------------------------------------------- strip */

static bool strips(const jinja_string *chars, uint32_t code) {
    if (!chars) return sl_jinja_is_space(code);
    for (size_t at = 0; at < chars->length;) {
        uint32_t other;
        at += sl_utf8_decode(chars->data + at, chars->length - at, &other, NULL);
        if (other == code) return true;
    }
    return false;
}

jinja_value sl_jinja_strip(jinja *j, jinja_value v, jinja_value what, bool left, bool right) {
    const jinja_string *s = v.as.string, *chars = given(what) ? text_argument(j, what, "strip") : NULL;
    size_t from = 0, to = s->length;
    uint32_t code;
    while (left && from < to) {
        size_t n = sl_utf8_decode(s->data + from, to - from, &code, NULL);
        if (!strips(chars, code)) break;
        from += n;
    }
    while (right && to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)s->data[start] & 0xC0) == 0x80) start--;
        sl_utf8_decode(s->data + start, to - start, &code, NULL);
        if (!strips(chars, code)) break;
        to = start;
    }
    return keep_markup(sl_jinja_str(j, s->data + from, to - from), v);
}

static jinja_value strip(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value chars;
    bind_positional(j, "strip", args, 1, 0, &chars);
    return sl_jinja_strip(j, self, chars, true, true);
}
static jinja_value lstrip(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value chars;
    bind_positional(j, "lstrip", args, 1, 0, &chars);
    return sl_jinja_strip(j, self, chars, true, false);
}
static jinja_value rstrip(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value chars;
    bind_positional(j, "rstrip", args, 1, 0, &chars);
    return sl_jinja_strip(j, self, chars, false, true);
}

/* ---------------------------------------------------------------- finding */

static const char *find_bytes(const char *text, size_t length, const jinja_string *what) {
    return what->length <= length ? memmem(text, length, what->data, what->length) : NULL;
}

static const char *find_last(const char *text, size_t length, const jinja_string *what) {
    if (what->length > length) return NULL;
    for (const char *p = text + (length - what->length);; p--) {
        if (!memcmp(p, what->data, what->length)) return p;
        if (p == text) return NULL;
    }
}

/* The bytes [*from, *to) of the characters start..stop, Python's slice rules; false when start lies beyond stop. */
static bool span(jinja *j, const jinja_string *s, jinja_value start, jinja_value stop, size_t *from, size_t *to) {
    int64_t length = (int64_t)s->chars, a = given(start) ? sl_jinja_index(j, start) : 0,
            b = given(stop) ? sl_jinja_index(j, stop) : length;
    if (a < 0) a = a < -length ? 0 : a + length;
    if (b < 0) b = b < -length ? 0 : b + length;
    if (b > length) b = length;
    if (a > b) return false;
    *from = sl_jinja_char_offset(s, (size_t)a);
    *to = sl_jinja_char_offset(s, (size_t)b);
    return true;
}

static size_t chars_before(const jinja_string *s, size_t bytes) {
    if (s->chars == s->length) return bytes;
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) n += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    return n;
}

static int64_t find_in(jinja *j, jinja_value self, const jinja_args *args, const char *name, bool last) {
    jinja_value v[3];
    size_t from, to;
    bind_positional(j, name, args, 3, 1, v);
    const jinja_string *s = self.as.string, *what = text_argument(j, v[0], name);
    if (!span(j, s, v[1], v[2], &from, &to)) return -1;
    sl_jinja_charge(j, (uint64_t)(to - from) / 64 * (last ? what->length / 16 + 1 : 1));
    const char *found = (last ? find_last : find_bytes)(s->data + from, to - from, what);
    return found ? (int64_t)chars_before(s, (size_t)(found - s->data)) : -1;
}

static jinja_value find(jinja *j, jinja_value self, const jinja_args *args) {
    return sl_jinja_int(find_in(j, self, args, "find", false));
}
static jinja_value rfind(jinja *j, jinja_value self, const jinja_args *args) {
    return sl_jinja_int(find_in(j, self, args, "rfind", true));
}
static jinja_value index_of(jinja *j, jinja_value self, const jinja_args *args) {
    int64_t at = find_in(j, self, args, "index", false);
    if (at < 0) sl_jinja_fail(j, "ValueError", "substring not found");
    return sl_jinja_int(at);
}
static jinja_value last_index_of(jinja *j, jinja_value self, const jinja_args *args) {
    int64_t at = find_in(j, self, args, "rindex", true);
    if (at < 0) sl_jinja_fail(j, "ValueError", "substring not found");
    return sl_jinja_int(at);
}

static jinja_value count(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v[3];
    size_t from, to;
    int64_t n = 0;
    bind_positional(j, "count", args, 3, 1, v);
    const jinja_string *s = self.as.string, *what = text_argument(j, v[0], "count");
    if (!span(j, s, v[1], v[2], &from, &to)) return sl_jinja_int(0);
    if (!what->length) return sl_jinja_int((int64_t)(chars_before(s, to) - chars_before(s, from)) + 1);
    sl_jinja_charge(j, (to - from) / 64);
    for (const char *p = s->data + from, *end = s->data + to; (p = find_bytes(p, (size_t)(end - p), what));
         p += what->length)
        n++;
    return sl_jinja_int(n);
}

static bool matches_at(const jinja_string *s, size_t from, size_t to, const jinja_string *what, bool end) {
    if (what->length > to - from) return false;
    return !memcmp(s->data + (end ? to - what->length : from), what->data, what->length);
}

static jinja_value begins_or_ends(jinja *j, jinja_value self, const jinja_args *args, const char *name, bool end) {
    jinja_value v[3];
    size_t from, to;
    bind_positional(j, name, args, 3, 1, v);
    const jinja_string *s = self.as.string;
    if (v[0].type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v[0]);
    if (v[0].type != JINJA_TUPLE && !jinja_is_str(v[0]))
        sl_jinja_fail(j, "TypeError", "%s first arg must be str or a tuple of str, not %s", name,
                      sl_jinja_type_name(v[0]));
    bool inside = span(j, s, v[1], v[2], &from, &to);
    if (jinja_is_str(v[0])) return sl_jinja_bool(inside && matches_at(s, from, to, v[0].as.string, end));
    for (size_t i = 0; i < v[0].as.list->length; i++)
        if (matches_at(s, inside ? from : 0, inside ? to : 0, text_argument(j, v[0].as.list->items[i], name), end) &&
            inside)
            return sl_jinja_true;
    return sl_jinja_false;
}
static jinja_value startswith(jinja *j, jinja_value self, const jinja_args *args) {
    return begins_or_ends(j, self, args, "startswith", false);
}
static jinja_value endswith(jinja *j, jinja_value self, const jinja_args *args) {
    return begins_or_ends(j, self, args, "endswith", true);
}

/* ---------------------------------------------------------------- cutting */

static void push_part(jinja *j, jinja_value list, jinja_value of, const char *from, const char *to) {
    sl_jinja_list_push(j, list.as.list, keep_markup(sl_jinja_str(j, from, (size_t)(to - from)), of));
}

static size_t space_at(const char *p, const char *end) {
    uint32_t code;
    size_t n = sl_utf8_decode(p, (size_t)(end - p), &code, NULL);
    return sl_jinja_is_space(code) ? n : 0;
}

static size_t space_before(const char *start, const char *p) {
    const char *at = p - 1;
    while (at > start && ((unsigned char)*at & 0xC0) == 0x80) at--;
    return space_at(at, p);
}

static jinja_value split_space(jinja *j, jinja_value self, int64_t limit) {
    jinja_value list = sl_jinja_list_new(j, 0);
    const char *p = self.as.string->data, *end = p + self.as.string->length;
    for (size_t n;;) {
        while (p < end && (n = space_at(p, end))) p += n;
        if (p == end) return list;
        const char *word = p;
        if (limit >= 0 && (int64_t)list.as.list->length == limit) {
            while (end > word && (n = space_before(word, end))) end -= n;
            push_part(j, list, self, word, end);
            return list;
        }
        while (p < end && !space_at(p, end)) p++;
        push_part(j, list, self, word, p);
    }
}

static void reverse_list(jinja_list *list) {
    for (size_t a = 0, b = list->length; a + 1 < b; a++) {
        jinja_value swap = list->items[a];
        list->items[a] = list->items[--b];
        list->items[b] = swap;
    }
}

static jinja_value rsplit_space(jinja *j, jinja_value self, int64_t limit) {
    jinja_value list = sl_jinja_list_new(j, 0);
    const char *start = self.as.string->data, *end = start + self.as.string->length;
    for (size_t n;;) {
        while (end > start && (n = space_before(start, end))) end -= n;
        if (end == start) break;
        const char *word = end;
        if (limit >= 0 && (int64_t)list.as.list->length == limit) {
            while (start < end && (n = space_at(start, end))) start += n;
            push_part(j, list, self, start, end);
            break;
        }
        while (word > start && !space_before(start, word)) word--;
        push_part(j, list, self, word, end);
        end = word;
    }
    reverse_list(list.as.list);
    return list;
}

static jinja_value split_text(jinja *j, jinja_value self, const jinja_string *separator, int64_t limit,
                              bool from_right) {
    jinja_value list = sl_jinja_list_new(j, 0);
    const char *start = self.as.string->data, *end = start + self.as.string->length, *found;
    if (!separator->length) sl_jinja_fail(j, "ValueError", "empty separator");
    sl_jinja_charge(j, self.as.string->length / 64 * (from_right ? separator->length / 16 + 1 : 1));
    while (limit < 0 || (int64_t)list.as.list->length < limit) {
        found = (from_right ? find_last : find_bytes)(start, (size_t)(end - start), separator);
        if (!found) break;
        if (from_right) {
            push_part(j, list, self, found + separator->length, end);
            end = found;
        } else {
            push_part(j, list, self, start, found);
            start = found + separator->length;
        }
    }
    push_part(j, list, self, start, end);
    if (from_right) reverse_list(list.as.list);
    return list;
}

static jinja_value split_any(jinja *j, jinja_value self, const jinja_args *args, bool from_right) {
    jinja_value v[2];
    sl_jinja_bind(j, from_right ? "rsplit" : "split", args, (const char *const[]){"sep", "maxsplit"}, 2, 0, v);
    int64_t limit = v[1].type == JINJA_MISSING ? -1 : sl_jinja_index(j, v[1]);
    if (!given(v[0])) return (from_right ? rsplit_space : split_space)(j, self, limit);
    return split_text(j, self, text_argument(j, v[0], "split"), limit, from_right);
}
static jinja_value split(jinja *j, jinja_value self, const jinja_args *args) { return split_any(j, self, args, false); }
static jinja_value rsplit(jinja *j, jinja_value self, const jinja_args *args) { return split_any(j, self, args, true); }

/* Bytes of the line boundary at p, 0: none there. */
static size_t line_end(const char *p, const char *end) {
    uint32_t code;
    size_t n = sl_utf8_decode(p, (size_t)(end - p), &code, NULL);
    if (code == '\r') return p + 1 < end && p[1] == '\n' ? 2 : 1;
    bool is = (code >= 10 && code <= 12) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
              code == 0x2029;
    return is ? n : 0;
}

jinja_value sl_jinja_splitlines(jinja *j, jinja_value self, bool keep_ends) {
    jinja_value list = sl_jinja_list_new(j, 0);
    const char *p = self.as.string->data, *end = p + self.as.string->length;
    while (p < end) {
        const char *line = p;
        size_t n = 0;
        while (p < end && !(n = line_end(p, end))) p++;
        push_part(j, list, self, line, keep_ends ? p + n : p);
        p += n;
    }
    return list;
}

static jinja_value splitlines(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value keep;
    sl_jinja_bind(j, "splitlines", args, (const char *const[]){"keepends"}, 1, 0, &keep);
    return sl_jinja_splitlines(j, self, keep.type != JINJA_MISSING && sl_jinja_index(j, keep) != 0);
}

static jinja_value partition_any(jinja *j, jinja_value self, const jinja_args *args, bool last) {
    jinja_value v, parts[3];
    bind_positional(j, last ? "rpartition" : "partition", args, 1, 1, &v);
    const jinja_string *s = self.as.string, *separator = text_argument(j, v, "partition");
    if (!separator->length) sl_jinja_fail(j, "ValueError", "empty separator");
    const char *found = (last ? find_last : find_bytes)(s->data, s->length, separator), *end = s->data + s->length;
    if (found) {
        parts[0] = keep_markup(sl_jinja_str(j, s->data, (size_t)(found - s->data)), self);
        parts[1] = keep_markup(v, self);
        parts[2] = keep_markup(sl_jinja_str(j, found + separator->length, (size_t)(end - found) - separator->length),
                               self);
    } else {
        parts[0] = parts[1] = parts[2] = keep_markup(sl_jinja_literal(j, ""), self);
        parts[last ? 2 : 0] = self;
    }
    return sl_jinja_tuple(j, 3, parts);
}
static jinja_value partition(jinja *j, jinja_value self, const jinja_args *args) {
    return partition_any(j, self, args, false);
}
static jinja_value rpartition(jinja *j, jinja_value self, const jinja_args *args) {
    return partition_any(j, self, args, true);
}

static jinja_value removeprefix(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    bind_positional(j, "removeprefix", args, 1, 1, &v);
    const jinja_string *s = self.as.string, *prefix = text_argument(j, v, "removeprefix");
    if (!matches_at(s, 0, s->length, prefix, false)) return self;
    return keep_markup(sl_jinja_str(j, s->data + prefix->length, s->length - prefix->length), self);
}
static jinja_value removesuffix(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    bind_positional(j, "removesuffix", args, 1, 1, &v);
    const jinja_string *s = self.as.string, *suffix = text_argument(j, v, "removesuffix");
    if (!matches_at(s, 0, s->length, suffix, true)) return self;
    return keep_markup(sl_jinja_str(j, s->data, s->length - suffix->length), self);
}

/* ---------------------------------------------------------------- joining and replacing */

static jinja_value join(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    bind_positional(j, "join", args, 1, 1, &v);
    if (!sl_jinja_is_iterable(v)) sl_jinja_fail(j, "TypeError", "can only join an iterable");
    jinja_value list = sl_jinja_collect(j, v);
    jinja_text out = {.j = j};
    for (size_t i = 0; i < list.as.list->length; i++) {
        jinja_value item = list.as.list->items[i];
        if (!jinja_is_str(item))
            sl_jinja_fail(j, "TypeError", "sequence item %zu: expected str instance, %s found", i,
                          sl_jinja_type_name(item));
        if (i) sl_jinja_write_str(&out, self);
        sl_jinja_write_str(&out, self.markup && !item.markup ? sl_jinja_escape(j, item) : item);
    }
    return keep_markup(sl_jinja_text_value(&out), self);
}

static void replace_between(jinja_text *out, const jinja_string *s, const jinja_string *to, int64_t limit) {
    int64_t n = 0;
    for (size_t at = 0; at <= s->length; n++) {
        if (limit < 0 || n < limit) sl_jinja_text_append(out, to->data, to->length);
        size_t end = at + 1;
        while (end < s->length && ((unsigned char)s->data[end] & 0xC0) == 0x80) end++;
        if (at < s->length) sl_jinja_text_append(out, s->data + at, (end < s->length ? end : s->length) - at);
        at = end;
    }
}

jinja_value sl_jinja_replace(jinja *j, jinja_value self, jinja_value from_value, jinja_value to_value, int64_t limit) {
    const jinja_string *s = self.as.string, *from = text_argument(j, from_value, "replace"),
                       *to = text_argument(j, to_value, "replace");
    if (self.markup && !to_value.markup) to = sl_jinja_escape(j, to_value).as.string;
    if (!limit) return self;
    jinja_text out = {.j = j};
    sl_jinja_charge(j, s->length / 64);
    if (!from->length) {
        replace_between(&out, s, to, limit);
        return keep_markup(sl_jinja_text_value(&out), self);
    }
    const char *p = s->data, *end = p + s->length, *found;
    for (int64_t n = 0; (limit < 0 || n < limit) && (found = find_bytes(p, (size_t)(end - p), from)); n++) {
        sl_jinja_text_append(&out, p, (size_t)(found - p));
        sl_jinja_text_append(&out, to->data, to->length);
        p = found + from->length;
    }
    if (p == s->data) return self;
    sl_jinja_text_append(&out, p, (size_t)(end - p));
    return keep_markup(sl_jinja_text_value(&out), self);
}

static jinja_value replace(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v[3];
    bind_positional(j, "replace", args, 3, 2, v);
    return sl_jinja_replace(j, self, v[0], v[1], v[2].type == JINJA_MISSING ? -1 : sl_jinja_index(j, v[2]));
}

/* ---------------------------------------------------------------- filling */

/* how: '<' text at the left, '>' at the right, '^' as str.center does, 'f' as format's '^'. */
jinja_value sl_jinja_align(jinja *j, jinja_value self, int64_t width, const char *fill, size_t fill_length, char how) {
    const jinja_string *s = self.as.string;
    int64_t room = width - (int64_t)s->chars, left = 0;
    if (width <= (int64_t)s->chars) return self;
    if (how == '>') left = room;
    else if (how == '^') left = room / 2 + (room & width & 1); /* CPython's rounding of the odd blank */
    else if (how == 'f') left = room / 2;
    jinja_text out = {.j = j};
    sl_jinja_text_fill(&out, fill, fill_length, left);
    sl_jinja_text_append(&out, s->data, s->length);
    sl_jinja_text_fill(&out, fill, fill_length, room - left);
    return keep_markup(sl_jinja_text_value(&out), self);
}

static jinja_value align(jinja *j, jinja_value self, const jinja_args *args, const char *name, char how) {
    jinja_value v[2];
    bind_positional(j, name, args, 2, 1, v);
    int64_t width = sl_jinja_index(j, v[0]);
    if (v[1].type == JINJA_MISSING) return sl_jinja_align(j, self, width, " ", 1, how);
    const jinja_string *fill = text_argument(j, v[1], name);
    if (fill->chars != 1) sl_jinja_fail(j, "TypeError", "The fill character must be exactly one character long");
    return sl_jinja_align(j, self, width, fill->data, fill->length, how);
}
static jinja_value center(jinja *j, jinja_value self, const jinja_args *args) {
    return align(j, self, args, "center", '^');
}
static jinja_value ljust(jinja *j, jinja_value self, const jinja_args *args) {
    return align(j, self, args, "ljust", '<');
}
static jinja_value rjust(jinja *j, jinja_value self, const jinja_args *args) {
    return align(j, self, args, "rjust", '>');
}

static jinja_value zfill(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    bind_positional(j, "zfill", args, 1, 1, &v);
    const jinja_string *s = self.as.string;
    bool sign = s->length && (s->data[0] == '+' || s->data[0] == '-');
    int64_t width = sl_jinja_index(j, v);
    jinja_text out = {.j = j};
    if (width <= (int64_t)s->chars) return self;
    if (sign) sl_jinja_text_putc(&out, s->data[0]);
    sl_jinja_text_fill(&out, "0", 1, width - (int64_t)s->chars);
    sl_jinja_text_append(&out, s->data + sign, s->length - sign);
    return keep_markup(sl_jinja_text_value(&out), self);
}

static jinja_value expandtabs(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    sl_jinja_bind(j, "expandtabs", args, (const char *const[]){"tabsize"}, 1, 0, &v);
    int64_t size = v.type == JINJA_MISSING ? 8 : sl_jinja_index(j, v), column = 0;
    const jinja_string *s = self.as.string;
    jinja_text out = {.j = j};
    for (size_t i = 0; i < s->length; i++) {
        if (s->data[i] == '\t') {
            int64_t blanks = size > 0 ? size - column % size : 0;
            sl_jinja_text_fill(&out, " ", 1, blanks);
            column += blanks;
            continue;
        }
        sl_jinja_text_putc(&out, s->data[i]);
        if (s->data[i] == '\n' || s->data[i] == '\r') column = 0;
        else column += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    }
    return keep_markup(sl_jinja_text_value(&out), self);
}

/* ---------------------------------------------------------------- the rest */

static jinja_value encode(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v[2];
    sl_jinja_bind(j, "encode", args, (const char *const[]){"encoding", "errors"}, 2, 0, v);
    if (v[0].type != JINJA_MISSING) {
        static const char *const known[] = {"utf-8", "utf8", "UTF-8", "UTF8", "utf_8"};
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok = ok || sl_jinja_string_is(v[0], known[i]);
        bool ascii = (sl_jinja_string_is(v[0], "ascii") || sl_jinja_string_is(v[0], "latin-1")) &&
                     self.as.string->chars == self.as.string->length;
        if (!ok && !ascii) sl_jinja_fail(j, "LookupError", "str.encode() knows utf-8 only");
    }
    self.type = JINJA_BYTES;
    self.markup = false;
    return self;
}

static jinja_value format(jinja *j, jinja_value self, const jinja_args *args) { return sl_jinja_format(j, self, args); }

static jinja_value format_map(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value v;
    bind_positional(j, "format_map", args, 1, 1, &v);
    jinja_args mapped = {0};
    if (v.type != JINJA_DICT)
        sl_jinja_fail(j, "TypeError", "format_map() needs a dict, not '%s'", sl_jinja_type_name(v));
    mapped.names = v.as.dict->keys;
    mapped.values = v.as.dict->values;
    mapped.named = v.as.dict->length;
    return sl_jinja_format(j, self, &mapped);
}

const jinja_method sl_jinja_string_methods[] = {{"strip", strip},
                                                {"split", split},
                                                {"startswith", startswith},
                                                {"endswith", endswith},
                                                {"replace", replace},
                                                {"join", join},
                                                {"rstrip", rstrip},
                                                {"lstrip", lstrip},
                                                {"rsplit", rsplit},
                                                {"splitlines", splitlines},
                                                {"find", find},
                                                {"rfind", rfind},
                                                {"index", index_of},
                                                {"rindex", last_index_of},
                                                {"count", count},
                                                {"partition", partition},
                                                {"rpartition", rpartition},
                                                {"removeprefix", removeprefix},
                                                {"removesuffix", removesuffix},
                                                {"format", format},
                                                {"format_map", format_map},
                                                {"zfill", zfill},
                                                {"center", center},
                                                {"ljust", ljust},
                                                {"rjust", rjust},
                                                {"expandtabs", expandtabs},
                                                {"encode", encode},
                                                {NULL, NULL}};
