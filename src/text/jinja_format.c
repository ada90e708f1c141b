/* "{} {name:>8}".format(...): the format string syntax and the format specification mini-language of Python. */
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- format specifications */

typedef struct spec {
    char fill[4];
    size_t fill_length;
    char align, sign, grouping, type; /* 0: not given */
    bool alternate, no_minus_zero;
    int64_t width, precision; /* -1: not given */
} spec;

static bool is_align(char c) { return c && strchr("<>=^", c); }

static int64_t read_count(jinja *j, const char **p, const char *end) {
    int64_t n = -1;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p) {
        if (n > INT64_MAX / 10 - 1) sl_jinja_fail(j, "ValueError", "Too many decimal digits in format string");
        n = (n < 0 ? 0 : n * 10) + (**p - '0');
    }
    return n;
}

static spec parse_spec(jinja *j, const char *p, size_t length, bool number) {
    spec s = {.fill = " ", .fill_length = 1, .width = -1, .precision = -1};
    const char *end = p + length;
    bool filled = false;
    if (length) {
        uint32_t code;
        size_t n = sl_utf8_decode(p, length, &code, NULL);
        if (n < length && is_align(p[n])) {
            memcpy(s.fill, p, n);
            s.fill_length = n;
            filled = true;
            s.align = p[n];
            p += n + 1;
        } else if (is_align(*p)) {
            s.align = *p++;
        }
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) s.sign = *p++;
    if (p < end && *p == 'z') s.no_minus_zero = true, p++;
    if (p < end && *p == '#') s.alternate = true, p++;
    if (p < end && *p == '0' && !filled) {
        s.fill[0] = '0';
        if (!s.align && number) s.align = '=';
        p++;
    }
    s.width = read_count(j, &p, end);
    if (p < end && (*p == ',' || *p == '_')) s.grouping = *p++;
    if (p < end && *p == '.') {
        p++;
        s.precision = read_count(j, &p, end);
        if (s.precision < 0) sl_jinja_fail(j, "ValueError", "Format specifier missing precision");
    }
    if (p < end) s.type = *p++;
    if (p < end) sl_jinja_fail(j, "ValueError", "Invalid format specifier");
    return s;
}

static void pad(jinja_text *out, const spec *s, jinja_value text, char align) {
    if (align == '^') align = 'f';
    sl_jinja_write_str(out, sl_jinja_align(out->j, text, s->width, s->fill, s->fill_length, align));
}

static void format_text(jinja_text *out, const spec *s, jinja_value v) {
    jinja *j = out->j;
    if (s->sign) sl_jinja_fail(j, "ValueError", "Sign not allowed in string format specifier");
    if (s->alternate) sl_jinja_fail(j, "ValueError", "Alternate form (#) not allowed in string format specifier");
    if (s->no_minus_zero)
        sl_jinja_fail(j, "ValueError", "Negative zero coercion (z) not allowed in string format specifier");
    if (s->align == '=')
        sl_jinja_fail(j, "ValueError", "'=' alignment not allowed in string format specifier");
    if (s->grouping) sl_jinja_fail(j, "ValueError", "Cannot specify '%c' with 's'.", s->grouping);
    if (s->precision >= 0 && s->precision < (int64_t)v.as.string->chars)
        v = sl_jinja_substring(j, v.as.string, 0, (size_t)s->precision);
    pad(out, s, v, s->align && s->align != '=' ? s->align : '<');
}

/* digits with `grouping` between every `each` of them, and zeros before so that at least `least` characters come out.
 */
static void group(jinja_text *out, const char *digits, size_t length, char grouping, size_t each, int64_t least) {
    if (!grouping) {
        sl_jinja_text_fill(out, "0", 1, least - (int64_t)length);
        sl_jinja_text_append(out, digits, length);
        return;
    }
    size_t total = length;
    while ((int64_t)(total + (total - 1) / each) < least) total++;
    for (size_t i = 0; i < total; i++) {
        if (i && (total - i) % each == 0) sl_jinja_text_putc(out, grouping);
        sl_jinja_text_putc(out, i < total - length ? '0' : digits[i - (total - length)]);
    }
}

/* prefix, whole digits (grouped) and the rest ("." and decimals, exponent, "%"), in the field. */
static void put_number(jinja_text *out, const spec *s, const char *prefix, const char *whole, size_t n, size_t each,
                       const char *rest, size_t rest_length) {
    jinja_text number = {.j = out->j};
    bool fills_zeros = s->align == '=' && s->fill[0] == '0' && s->fill_length == 1;
    int64_t least = fills_zeros ? s->width - (int64_t)(strlen(prefix) + rest_length) : 0;
    if (s->width > INT32_MAX / 2) sl_jinja_fail_limit(out->j, "memory, bytes", out->j->arena->limit);
    if (s->align == '=' && !fills_zeros) {
        group(&number, whole, n, s->grouping, each, 0);
        sl_jinja_text_puts(out, prefix);
        sl_jinja_text_fill(out, s->fill, s->fill_length,
                           s->width - (int64_t)(strlen(prefix) + number.length + rest_length));
        sl_jinja_text_append(out, number.data, number.length);
        sl_jinja_text_append(out, rest, rest_length);
        return;
    }
    sl_jinja_text_puts(&number, prefix);
    group(&number, whole, n, s->grouping, each, least);
    sl_jinja_text_append(&number, rest, rest_length);
    pad(out, s, sl_jinja_text_value(&number), s->align && s->align != '=' ? s->align : '>');
}

static const char *sign_of(const spec *s, bool negative) {
    return negative ? "-" : s->sign == '+' ? "+" : s->sign == ' ' ? " " : "";
}

static void format_integer(jinja_text *out, const spec *s, jinja_value v) {
    jinja *j = out->j;
    jinja_text digits = {.j = j};
    char prefix[4];
    if (s->precision >= 0) sl_jinja_fail(j, "ValueError", "Precision not allowed in integer format specifier");
    if (s->no_minus_zero)
        sl_jinja_fail(j, "ValueError", "Negative zero coercion (z) not allowed in integer format specifier");
    if (s->type == 'c') {
        if (s->sign || s->alternate || s->grouping)
            sl_jinja_fail(j, "ValueError", "Sign not allowed with integer format specifier 'c'");
        int64_t code = sl_jinja_index(j, v);
        if (code < 0 || code > 0x10ffff) sl_jinja_fail(j, "OverflowError", "%%c arg not in range(0x110000)");
        sl_jinja_text_code(&digits, (uint32_t)code);
        pad(out, s, sl_jinja_text_value(&digits), s->align && s->align != '=' ? s->align : '<');
        return;
    }
    int base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    if (s->grouping == ',' && base != 10) sl_jinja_fail(j, "ValueError", "Cannot specify ',' with '%c'.", s->type);
    if (s->grouping && s->type == 'n') sl_jinja_fail(j, "ValueError", "Cannot specify '%c' with 'n'.", s->grouping);
    sl_jinja_big_digits(&digits, v, base);
    if (s->type == 'X')
        for (size_t i = 0; i < digits.length; i++)
            if (digits.data[i] >= 'a') digits.data[i] = (char)(digits.data[i] - 32);
    snprintf(prefix, sizeof prefix, "%s%s%.1s", sign_of(s, sl_jinja_big_negative(v)),
             s->alternate && base != 10 ? "0" : "", s->alternate && base != 10 ? (char[]){s->type, 0} : "");
    put_number(out, s, prefix, digits.data, digits.length, base == 10 ? 3 : 4, "", 0);
}

void sl_jinja_write_float_as(jinja_text *out, double value, char type, int64_t precision, bool alternate) {
    char format[8];
    if (precision < 0) precision = 6;
    if (precision > 100000) sl_jinja_fail_limit(out->j, "a number's digits", 100000);
    if (!isfinite(value)) {
        bool upper = type < 'a' && type != '%';
        sl_jinja_text_puts(out, isnan(value) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
        return;
    }
    snprintf(format, sizeof format, "%%%s.*%c", alternate ? "#" : "", type);
    size_t room = (size_t)precision + 330;
    char *digits = sl_jinja_alloc(out->j, room);
    int n = snprintf(digits, room, format, (int)precision, value);
    sl_jinja_text_append(out, digits, (size_t)n);
}

/* Python's format(float) without a type: repr, or with a precision like 'g' but with one decimal at least. */
static void write_general(jinja_text *out, double value, int64_t precision) {
    if (precision < 0) {
        sl_jinja_write_float(out, value);
        return;
    }
    char text[400];
    int digits = precision > 300 ? 300 : precision < 1 ? 1 : (int)precision;
    snprintf(text, sizeof text, "%.*e", digits - 1, value);
    const char *mark = strchr(text, 'e');
    int exponent = 0;
    if (mark) sscanf(mark + 1, "%d", &exponent);
    size_t from = out->length;
    if (mark && (exponent < -4 || exponent >= digits - 0)) {
        sl_jinja_write_float_as(out, value, 'g', digits, false);
        return;
    }
    sl_jinja_write_float_as(out, value, 'g', digits, false);
    if (exponent >= digits - 1 && isfinite(value) && !memchr(out->data + from, '.', out->length - from)) {
        out->length = from; /* no room for the decimal: as an exponent */
        jinja_text e = {.j = out->j};
        sl_jinja_write_float_as(&e, value, 'e', digits - 1, false);
        const char *p = memchr(e.data, 'e', e.length);
        size_t kept = p ? (size_t)(p - e.data) : e.length;
        if (memchr(e.data, '.', kept)) {
            while (kept && e.data[kept - 1] == '0') kept--;
            if (kept && e.data[kept - 1] == '.') kept--;
        }
        sl_jinja_text_append(out, e.data, kept);
        if (p) sl_jinja_text_append(out, p, e.length - (size_t)(p - e.data));
    } else if (isfinite(value) && !memchr(out->data + from, '.', out->length - from) &&
               !memchr(out->data + from, 'e', out->length - from)) {
        sl_jinja_text_puts(out, ".0");
    }
}

static bool is_zero(const char *digits, size_t length) {
    for (size_t i = 0; i < length && (digits[i] | 0x20) != 'e'; i++)
        if (digits[i] != '0' && digits[i] != '.') return false;
    return true;
}

static void format_float(jinja_text *out, const spec *s, jinja_value v) {
    jinja *j = out->j;
    double number = sl_jinja_to_double(j, v);
    bool negative = signbit(number) && !isnan(number);
    jinja_text digits = {.j = j};
    if (s->type == 0) write_general(&digits, fabs(number), s->precision);
    else if (s->type == '%') sl_jinja_write_float_as(&digits, fabs(number) * 100, 'f', s->precision, s->alternate);
    else sl_jinja_write_float_as(&digits, fabs(number), s->type == 'n' ? 'g' : s->type, s->precision, s->alternate);
    if (s->no_minus_zero && is_zero(digits.data, digits.length)) negative = false;
    if (s->type == '%') sl_jinja_text_putc(&digits, '%');
    size_t whole = 0;
    while (whole < digits.length && digits.data[whole] >= '0' && digits.data[whole] <= '9') whole++;
    if (!whole) whole = digits.length; /* inf, nan */
    put_number(out, s, sign_of(s, negative), digits.data, whole, 3, digits.data + whole, digits.length - whole);
}

void sl_jinja_format_value(jinja_text *out, jinja_value v, const char *text, size_t length) {
    jinja *j = out->j;
    if (!length || v.type == JINJA_UNDEFINED) {
        if (length) sl_jinja_fail(j, "TypeError", "unsupported format string passed to Undefined.__format__");
        sl_jinja_write_str(out, v);
        return;
    }
    if (!jinja_is_str(v) && !jinja_is_number(v))
        sl_jinja_fail(j, "TypeError", "unsupported format string passed to %s.__format__", sl_jinja_type_name(v));
    spec s = parse_spec(j, text, length, jinja_is_number(v));
    bool integer = s.type && strchr("bcdoxXn", s.type), real = s.type && strchr("eEfFgGn%", s.type);
    if (jinja_is_str(v) ? s.type && s.type != 's' : s.type && !integer && !real)
        sl_jinja_fail(j, "ValueError", "Unknown format code '%c' for object of type '%s'",
                      s.type >= 0x20 && s.type < 0x7f ? s.type : '?', sl_jinja_type_name(v));
    if (jinja_is_str(v)) format_text(out, &s, v);
    else if (v.type == JINJA_FLOAT && integer && s.type != 'n')
        sl_jinja_fail(j, "ValueError", "Unknown format code '%c' for object of type 'float'", s.type);
    else if (v.type == JINJA_FLOAT || (real && s.type != 'n')) format_float(out, &s, v);
    else format_integer(out, &s, v);
}

/* ---------------------------------------------------------------- replacement fields */

typedef struct formatter {
    jinja *j;
    const jinja_args *args;
    int64_t next; /* automatic numbering; -1: the fields are numbered by hand */
    bool markup;
} formatter;

static void expand(formatter *f, jinja_text *out, const char *p, const char *end, int depth);

static jinja_value first_value(formatter *f, const char *name, size_t length) {
    bool digits = true;
    for (size_t i = 0; i < length; i++) digits = digits && name[i] >= '0' && name[i] <= '9';
    if (!digits) {
        for (size_t i = 0; i < f->args->named; i++) {
            const jinja_value key = f->args->names[i];
            if (jinja_is_str(key) && key.as.string->length == length && !memcmp(key.as.string->data, name, length))
                return f->args->values[i];
        }
        sl_jinja_fail(f->j, "KeyError", "'%.*s'", (int)length, name);
    }
    int64_t index = 0;
    if (!length) {
        if (f->next < 0)
            sl_jinja_fail(f->j, "ValueError",
                          "cannot switch from manual field specification to automatic field numbering");
        index = f->next++;
    } else {
        if (f->next > 0)
            sl_jinja_fail(f->j, "ValueError",
                          "cannot switch from automatic field numbering to manual field specification");
        f->next = -1;
        for (size_t i = 0; i < length; i++) {
            if (index > INT32_MAX) sl_jinja_fail(f->j, "ValueError", "Too many decimal digits in format string");
            index = index * 10 + (name[i] - '0');
        }
    }
    if (index >= (int64_t)f->args->length)
        sl_jinja_fail(f->j, "IndexError", "Replacement index %lld out of range for positional args tuple",
                      (long long)index);
    return f->args->items[index];
}

/* name, .attribute and [key] in turn, under the sandbox's rules. */
static jinja_value field_value(formatter *f, const char *p, const char *end) {
    const char *start = p;
    while (p < end && *p != '.' && *p != '[') p++;
    jinja_value value = first_value(f, start, (size_t)(p - start));
    while (p < end) {
        bool attribute = *p++ == '.';
        start = p;
        while (p < end && (attribute ? *p != '.' && *p != '[' : *p != ']')) p++;
        if (p == start) sl_jinja_fail(f->j, "ValueError", "Empty attribute in format string");
        jinja_value name = sl_jinja_str(f->j, start, (size_t)(p - start));
        if (attribute) {
            value = sl_jinja_get_attribute(f->j, value, name);
            continue;
        }
        if (p == end) sl_jinja_fail(f->j, "ValueError", "Missing ']' in format string");
        p++;
        if (p < end && *p != '.' && *p != '[')
            sl_jinja_fail(f->j, "ValueError", "Only '.' or '[' may follow ']' in format field specifier");
        bool digits = true;
        for (size_t i = 0; i < name.as.string->length; i++)
            digits = digits && name.as.string->data[i] >= '0' && name.as.string->data[i] <= '9';
        value = sl_jinja_get_item(
            f->j, value, digits ? sl_jinja_parse_int(f->j, name.as.string->data, name.as.string->length, 10) : name);
    }
    return value;
}

/* The end of a field whose '{' was read: the matching '}'. */
static const char *field_end(formatter *f, const char *p, const char *end) {
    bool bracket = false;
    for (int depth = 1; p < end; p++) {
        if (*p == '[' && depth == 1) bracket = true;
        else if (*p == ']') bracket = false;
        else if (bracket) continue;
        else if (*p == '{') depth++;
        else if (*p == '}' && !--depth) return p;
    }
    sl_jinja_fail(f->j, "ValueError", "expected '}' before end of string");
}

static void expand_field(formatter *f, jinja_text *out, const char *p, const char *end, int depth) {
    const char *name = p;
    char conversion = 0;
    jinja *j = f->j;
    for (bool bracket = false; p < end && (bracket || (*p != '!' && *p != ':')); p++) {
        if (*p == '[') bracket = true;
        else if (*p == ']') bracket = false;
        else if (*p == '{') sl_jinja_fail(j, "ValueError", "unexpected '{' in field name");
    }
    const char *name_end = p;
    if (p < end && *p == '!') {
        if (++p == end) sl_jinja_fail(j, "ValueError", "unmatched '{' in format spec");
        conversion = *p++;
        if (p < end && *p != ':') sl_jinja_fail(j, "ValueError", "expected ':' after conversion specifier");
    }
    jinja_value value = field_value(f, name, name_end);
    jinja_text spec_text = {.j = j}, converted = {.j = j};
    if (conversion == 'r' || conversion == 'a') {
        sl_jinja_write_repr(&converted, value);
        value = sl_jinja_text_value(&converted);
    } else if (conversion == 's') {
        value = sl_jinja_to_str(j, value);
    } else if (conversion) {
        sl_jinja_fail(j, "ValueError", "Unknown conversion specifier");
    }
    if (p < end) expand(f, &spec_text, p + 1, end, depth - 1);
    if (f->markup) {
        jinja_text plain = {.j = j};
        sl_jinja_format_value(&plain, value, spec_text.data, spec_text.length);
        sl_jinja_write_str(
            out, value.type == JINJA_STRING && value.markup ? value : sl_jinja_escape(j, sl_jinja_text_value(&plain)));
    } else {
        sl_jinja_format_value(out, value, spec_text.data, spec_text.length);
    }
}

static void expand(formatter *f, jinja_text *out, const char *p, const char *end, int depth) {
    if (depth < 0) sl_jinja_fail(f->j, "ValueError", "Max string recursion exceeded");
    while (p < end) {
        char c = *p++;
        bool twice = p < end && *p == c;
        if (c != '{' && c != '}') {
            sl_jinja_text_putc(out, c);
        } else if (twice) {
            sl_jinja_text_putc(out, c);
            p++;
        } else if (c == '}') {
            sl_jinja_fail(f->j, "ValueError", "Single '}' encountered in format string");
        } else {
            if (p == end) sl_jinja_fail(f->j, "ValueError", "Single '{' encountered in format string");
            const char *stop = field_end(f, p, end);
            expand_field(f, out, p, stop, depth);
            p = stop + 1;
        }
    }
}

jinja_value sl_jinja_format(jinja *j, jinja_value format, const jinja_args *args) {
    formatter f = {.j = j, .args = args, .markup = format.markup};
    jinja_text out = {.j = j};
    expand(&f, &out, format.as.string->data, format.as.string->data + format.as.string->length, 1);
    jinja_value made = sl_jinja_text_value(&out);
    made.markup = format.markup;
    return made;
}
