/* "text %d" % values: printf-style formatting as Python's str has it. */
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <math.h>
#include <string.h>

typedef struct directive {
    bool left, plus, blank, alternate, zero;
    int64_t width, precision; /* precision -1: not given */
    char type;
} directive;

typedef struct values {
    jinja *j;
    jinja_value all; /* what stands right of % */
    size_t used;
    bool by_name; /* all is a mapping and names were asked for */
} values;

static jinja_value next_value(values *v) {
    if (v->all.type == JINJA_TUPLE) {
        if (v->used >= v->all.as.list->length)
            sl_jinja_fail(v->j, "TypeError", "not enough arguments for format string");
        return v->all.as.list->items[v->used++];
    }
    if (v->used++) sl_jinja_fail(v->j, "TypeError", "not enough arguments for format string");
    return v->all;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* A number or "*" at *p. */
static int64_t read_number(values *v, const char **p, const char *end, bool *star_left) {
    int64_t n = 0;
    if (*p < end && **p == '*') {
        ++*p;
        jinja_value given = next_value(v);
        if (!jinja_is_int(given)) sl_jinja_fail(v->j, "TypeError", "* wants int");
        n = sl_jinja_index(v->j, given);
        if (n < 0 && star_left) {
            *star_left = true;
            n = n == INT64_MIN ? INT64_MAX : -n;
        }
        if (n < 0) n = 0;
    }
    for (; *p < end && is_digit(**p); ++*p) {
        if (n > INT32_MAX / 10) sl_jinja_fail(v->j, "ValueError", "a width or precision in the format is too large");
        n = n * 10 + (**p - '0');
    }
    return n;
}

/* Sign or prefix, then digits, in the width that was asked for. */
static void put_number(jinja_text *out, const directive *d, const char *prefix, const jinja_text *digits) {
    int64_t room = d->width - (int64_t)(strlen(prefix) + digits->length);
    bool zeros = d->zero && !d->left;
    if (!zeros && !d->left) sl_jinja_text_fill(out, " ", 1, room);
    sl_jinja_text_puts(out, prefix);
    if (zeros) sl_jinja_text_fill(out, "0", 1, room);
    sl_jinja_text_append(out, digits->data, digits->length);
    if (d->left) sl_jinja_text_fill(out, " ", 1, room);
}

static jinja_value to_integer(jinja *j, jinja_value v, char type) {
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (jinja_is_int(v)) return v;
    if (v.type == JINJA_FLOAT && (type == 'd' || type == 'i' || type == 'u'))
        return sl_jinja_float_to_int(j, v.as.number);
    sl_jinja_fail(j, "TypeError", "%%%c format: %s is required, not %s", type,
                  type == 'd' || type == 'i' || type == 'u' ? "a real number" : "an integer", sl_jinja_type_name(v));
}

static void put_integer(jinja_text *out, const directive *d, jinja_value v) {
    jinja *j = out->j;
    jinja_text digits = {.j = j}, bare = {.j = j};
    int base = d->type == 'x' || d->type == 'X' ? 16 : d->type == 'o' ? 8 : 10;
    v = to_integer(j, v, d->type);
    bool negative = sl_jinja_big_negative(v);
    sl_jinja_big_digits(&bare, v, base);
    if (d->precision > 100000) sl_jinja_fail_limit(j, "a number's digits", 100000);
    sl_jinja_text_fill(&digits, "0", 1, d->precision - (int64_t)bare.length);
    sl_jinja_text_append(&digits, bare.data, bare.length);
    if (d->type == 'X')
        for (size_t i = 0; i < digits.length; i++)
            if (digits.data[i] >= 'a') digits.data[i] = (char)(digits.data[i] - 32);
    char prefix[4] = "", *p = prefix;
    if (negative) *p++ = '-';
    else if (d->plus) *p++ = '+';
    else if (d->blank) *p++ = ' ';
    if (d->alternate && base != 10) {
        *p++ = '0';
        *p++ = d->type;
    }
    *p = 0;
    put_number(out, d, prefix, &digits);
}

static void put_float(jinja_text *out, const directive *d, jinja_value v) {
    jinja *j = out->j;
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (!jinja_is_number(v)) sl_jinja_fail(j, "TypeError", "must be real number, not %s", sl_jinja_type_name(v));
    double number = sl_jinja_to_double(j, v);
    bool negative = signbit(number) && !isnan(number);
    jinja_text digits = {.j = j};
    sl_jinja_write_float_as(&digits, fabs(number), d->type, d->precision, d->alternate);
    put_number(out, d, negative ? "-" : d->plus ? "+" : d->blank ? " " : "", &digits);
}

static void put_text(jinja_text *out, const directive *d, jinja_value text) {
    if (d->precision >= 0 && d->precision < (int64_t)text.as.string->chars)
        text = sl_jinja_substring(out->j, text.as.string, 0, (size_t)d->precision);
    sl_jinja_write_str(out, sl_jinja_align(out->j, text, d->width, " ", 1, d->left ? '<' : '>'));
}

static jinja_value to_char(jinja *j, jinja_value v) {
    if (jinja_is_str(v) && v.as.string->chars == 1) return v;
    if (!jinja_is_int(v)) sl_jinja_fail(j, "TypeError", "%%c requires int or char");
    int64_t code = sl_jinja_index(j, v);
    if (code < 0 || code > 0x10ffff) sl_jinja_fail(j, "OverflowError", "%%c arg not in range(0x110000)");
    jinja_text text = {.j = j};
    sl_jinja_text_code(&text, (uint32_t)code);
    return sl_jinja_text_value(&text);
}

static void put_value(jinja_text *out, const directive *d, jinja_value v, bool markup) {
    jinja *j = out->j;
    jinja_text text = {.j = j};
    switch (d->type) {
    case 's': put_text(out, d, markup ? sl_jinja_escape(j, v) : sl_jinja_to_str(j, v)); break;
    case 'r':
    case 'a':
        sl_jinja_write_repr(&text, v);
        put_text(out, d, sl_jinja_text_value(&text));
        break;
    case 'c': put_text(out, d, to_char(j, v)); break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': put_integer(out, d, v); break;
    default: put_float(out, d, v);
    }
}

/* "(name)" at *p: the value of that name. */
static jinja_value named_value(values *v, const char **p, const char *end) {
    const char *name = *p + 1;
    int depth = 1;
    for (++*p; *p < end && depth; ++*p) depth += **p == '(' ? 1 : **p == ')' ? -1 : 0;
    if (depth) sl_jinja_fail(v->j, "ValueError", "incomplete format key");
    if (v->all.type != JINJA_DICT) sl_jinja_fail(v->j, "TypeError", "format requires a mapping");
    jinja_value key = sl_jinja_str(v->j, name, (size_t)(*p - name) - 1);
    const jinja_value *found = sl_jinja_dict_get(v->j, v->all.as.dict, key);
    if (!found) sl_jinja_fail(v->j, "KeyError", "'%.*s'", (int)key.as.string->length, key.as.string->data);
    v->by_name = true;
    return *found;
}

static void read_flags(directive *d, const char **p, const char *end) {
    for (; *p < end; ++*p) {
        if (**p == '-') d->left = true;
        else if (**p == '+') d->plus = true;
        else if (**p == ' ') d->blank = true;
        else if (**p == '#') d->alternate = true;
        else if (**p == '0') d->zero = true;
        else return;
    }
}

/* One directive after its '%'; returns the position behind it. */
static const char *expand(jinja_text *out, values *v, const char *p, const char *end, bool markup) {
    directive d = {.precision = -1};
    if (p < end && *p == '%') {
        sl_jinja_text_putc(out, '%');
        return p + 1;
    }
    jinja_value value = sl_jinja_missing;
    if (p < end && *p == '(') value = named_value(v, &p, end);
    read_flags(&d, &p, end);
    d.width = read_number(v, &p, end, &d.left);
    if (p < end && *p == '.') {
        p++;
        d.precision = read_number(v, &p, end, NULL);
    }
    while (p < end && (*p == 'h' || *p == 'l' || *p == 'L')) p++;
    if (p == end) sl_jinja_fail(v->j, "ValueError", "incomplete format");
    d.type = *p++;
    if (!d.type || !strchr("sracdiuxXoeEfFgG", d.type))
        sl_jinja_fail(v->j, "ValueError", "unsupported format character '%c'",
                      d.type >= 0x20 && d.type < 0x7f ? d.type : '?');
    put_value(out, &d, value.type == JINJA_MISSING ? next_value(v) : value, markup);
    return p;
}

jinja_value sl_jinja_percent(jinja *j, jinja_value format, jinja_value arguments) {
    values v = {.j = j, .all = arguments};
    jinja_text out = {.j = j};
    const char *p = format.as.string->data, *end = p + format.as.string->length;
    while (p < end) {
        const char *mark = memchr(p, '%', (size_t)(end - p));
        sl_jinja_text_append(&out, p, (size_t)((mark ? mark : end) - p));
        if (!mark) break;
        p = expand(&out, &v, mark + 1, end, format.markup);
    }
    bool mapping = arguments.type == JINJA_DICT || arguments.type == JINJA_LIST || arguments.type == JINJA_UNDEFINED ||
                   arguments.type == JINJA_RANGE || arguments.type == JINJA_BYTES;
    size_t given = arguments.type == JINJA_TUPLE ? arguments.as.list->length : 1;
    if (v.used < given && !mapping)
        sl_jinja_fail(j, "TypeError", "not all arguments converted during string formatting");
    jinja_value made = sl_jinja_text_value(&out);
    made.markup = format.markup;
    return made;
}
