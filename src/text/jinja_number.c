/* Numbers as Python has them: unbounded integers, floats whose text reads back, floor division, rounding half to even.
 * Rendering runs under the "C" locale (template.c), so printf and strtod know one decimal point only. */
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_STR_DIGITS = 4300 }; /* sys.get_int_max_str_digits() */

static int64_t small(jinja_value v) { return v.type == JINJA_BOOL ? v.as.boolean : v.as.integer; }

double sl_jinja_to_double(jinja *j, jinja_value v) {
    if (v.type == JINJA_FLOAT) return v.as.number;
    if (v.type != JINJA_BIG) return (double)small(v);
    double number = sl_jinja_big_to_double(v.as.big);
    if (isinf(number)) sl_jinja_fail(j, "OverflowError", "int too large to convert to float");
    return number;
}

jinja_value sl_jinja_float_to_int(jinja *j, double value) {
    if (isnan(value)) sl_jinja_fail(j, "ValueError", "cannot convert float NaN to integer");
    if (isinf(value)) sl_jinja_fail(j, "OverflowError", "cannot convert float infinity to integer");
    value = trunc(value);
    if (fabs(value) < 9e18) return sl_jinja_int((int64_t)value);
    return sl_jinja_big_from_double(j, value);
}

int64_t sl_jinja_index(jinja *j, jinja_value v) {
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (v.type == JINJA_BIG) return v.as.big->negative ? INT64_MIN : INT64_MAX;
    if (v.type == JINJA_INT || v.type == JINJA_BOOL) return small(v);
    sl_jinja_fail(j, "TypeError", "'%s' object cannot be interpreted as an integer", sl_jinja_type_name(v));
}

/* ---------------------------------------------------------------- order */

static int order(double a, double b) { return isnan(a) || isnan(b) ? 2 : a < b ? -1 : a > b; }

/* An integer against a float, exactly. */
static int order_mixed(jinja *j, jinja_value integer, double number) {
    if (isnan(number)) return 2;
    if (isinf(number)) return number > 0 ? -1 : 1;
    double whole = floor(number);
    jinja_value floored = fabs(whole) < 9e18 ? sl_jinja_int((int64_t)whole) : sl_jinja_big_from_double(j, whole);
    int against = sl_jinja_order_numbers(j, integer, floored);
    return against ? against : number > whole ? -1 : 0;
}

int sl_jinja_order_numbers(jinja *j, jinja_value a, jinja_value b) {
    if (a.type == JINJA_FLOAT && b.type == JINJA_FLOAT) return order(a.as.number, b.as.number);
    if (a.type == JINJA_FLOAT) {
        int reversed = order_mixed(j, b, a.as.number);
        return reversed == 2 ? 2 : -reversed;
    }
    if (b.type == JINJA_FLOAT) return order_mixed(j, a, b.as.number);
    if (a.type == JINJA_BIG || b.type == JINJA_BIG) return sl_jinja_big_compare(j, a, b);
    return small(a) < small(b) ? -1 : small(a) > small(b);
}

/* ---------------------------------------------------------------- arithmetic */

static noreturn void fail_zero(jinja *j, const char *message) { sl_jinja_fail(j, "ZeroDivisionError", "%s", message); }

static jinja_value divide_integers(jinja *j, jinja_operator op, jinja_value a, jinja_value b) {
    if (b.type != JINJA_BIG && !small(b))
        fail_zero(j, op == JINJA_DIV ? "division by zero" : "integer division or modulo by zero");
    if (op == JINJA_DIV) {
        double x = sl_jinja_to_double(j, a), y = sl_jinja_to_double(j, b);
        return sl_jinja_float(x / y);
    }
    jinja_value quotient, remainder;
    if (a.type != JINJA_BIG && b.type != JINJA_BIG && small(a) != INT64_MIN) {
        int64_t x = small(a), y = small(b), q = x / y, r = x % y;
        if (r && (r < 0) != (y < 0)) q--, r += y;
        return sl_jinja_int(op == JINJA_MOD ? r : q);
    }
    sl_jinja_big_divide(j, a, b, &quotient, &remainder);
    return op == JINJA_MOD ? remainder : quotient;
}

static double float_modulo(double a, double b) {
    double r = fmod(a, b);
    if (r != 0) return (r < 0) != (b < 0) ? r + b : r;
    return copysign(0.0, b);
}

/* Python's float floor division: exact where floor(a / b) would round up. */
static double float_floor_divide(double a, double b) {
    double r = fmod(a, b), quotient = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) quotient -= 1;
    if (quotient == 0) return copysign(0.0, a / b);
    double floored = floor(quotient);
    return quotient - floored > 0.5 ? floored + 1 : floored;
}

static jinja_value float_power(jinja *j, double a, double b) {
    if (a == 0 && b < 0) fail_zero(j, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        sl_jinja_fail(j, "TypeError", "complex numbers are not supported");
    double result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b)) sl_jinja_fail(j, "OverflowError", "Numerical result out of range");
    return sl_jinja_float(result);
}

static jinja_value float_arithmetic(jinja *j, jinja_operator op, double a, double b) {
    switch (op) {
    case JINJA_ADD: return sl_jinja_float(a + b);
    case JINJA_SUB: return sl_jinja_float(a - b);
    case JINJA_MUL: return sl_jinja_float(a * b);
    case JINJA_POW: return float_power(j, a, b);
    default: break;
    }
    if (b == 0) {
        fail_zero(j, op == JINJA_DIV   ? "float division by zero"
                     : op == JINJA_MOD ? "float modulo"
                                       : "float floor division by zero");
    }
    if (op == JINJA_DIV) return sl_jinja_float(a / b);
    return sl_jinja_float(op == JINJA_MOD ? float_modulo(a, b) : float_floor_divide(a, b));
}

static jinja_value integer_power(jinja *j, jinja_value a, jinja_value b) {
    if (sl_jinja_big_negative(b)) return float_power(j, sl_jinja_to_double(j, a), sl_jinja_to_double(j, b));
    if (b.type == JINJA_BIG) {
        int64_t base = a.type == JINJA_BIG ? 2 : small(a);
        if (base > 1 || base < -1) sl_jinja_fail_limit(j, "steps", j->step_limit);
        jinja_value q, odd;
        sl_jinja_big_divide(j, b, sl_jinja_int(2), &q, &odd);
        return sl_jinja_int(base == -1 && !odd.as.integer ? 1 : base);
    }
    return sl_jinja_big_power(j, a, small(b));
}

jinja_value sl_jinja_arithmetic(jinja *j, jinja_operator op, jinja_value a, jinja_value b) {
    if (a.type == JINJA_FLOAT || b.type == JINJA_FLOAT)
        return float_arithmetic(j, op, sl_jinja_to_double(j, a), sl_jinja_to_double(j, b));
    bool both_small = a.type != JINJA_BIG && b.type != JINJA_BIG;
    int64_t result;
    switch (op) {
    case JINJA_ADD:
        if (both_small && !__builtin_add_overflow(small(a), small(b), &result)) return sl_jinja_int(result);
        return sl_jinja_big_add(j, a, b, false);
    case JINJA_SUB:
        if (both_small && !__builtin_sub_overflow(small(a), small(b), &result)) return sl_jinja_int(result);
        return sl_jinja_big_add(j, a, b, true);
    case JINJA_MUL:
        if (both_small && !__builtin_mul_overflow(small(a), small(b), &result)) return sl_jinja_int(result);
        return sl_jinja_big_multiply(j, a, b);
    case JINJA_POW: return integer_power(j, a, b);
    default: return divide_integers(j, op, a, b);
    }
}

jinja_value sl_jinja_negate(jinja *j, jinja_value v, bool plus) {
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (!jinja_is_number(v))
        sl_jinja_fail(j, "TypeError", "bad operand type for unary %s: '%s'", plus ? "+" : "-", sl_jinja_type_name(v));
    if (v.type == JINJA_FLOAT) return sl_jinja_float(plus ? v.as.number : -v.as.number);
    if (plus) return v.type == JINJA_BOOL ? sl_jinja_int(v.as.boolean) : v;
    if (v.type == JINJA_BIG || small(v) == INT64_MIN) return sl_jinja_big_negate(j, v);
    return sl_jinja_int(-small(v));
}

/* ---------------------------------------------------------------- text */

void sl_jinja_write_int(jinja_text *out, jinja_value v) {
    if (v.type != JINJA_BIG) {
        sl_jinja_text_printf(out, "%lld", (long long)small(v));
        return;
    }
    if (v.as.big->length > MAX_STR_DIGITS / 9)
        sl_jinja_fail(out->j, "ValueError", "Exceeds the limit (4300 digits) for integer string conversion");
    if (v.as.big->negative) sl_jinja_text_putc(out, '-');
    sl_jinja_big_digits(out, v, 10);
}

void sl_jinja_write_float(jinja_text *out, double value) {
    if (!isfinite(value)) {
        sl_jinja_text_puts(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    char text[40];
    int digits = 15; /* every double of up to 15 digits survives; more are tried only when they are needed */
    for (; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
        if (strtod(text, NULL) == value) break;
    }
    char *mark = strchr(text, 'e');
    int exponent = atoi(mark + 1);
    char kept[24];
    size_t n = 0;
    for (const char *p = text; p < mark; p++)
        if (*p >= '0' && *p <= '9') kept[n++] = *p;
    while (n > 1 && kept[n - 1] == '0') n--;
    if (value < 0 || (value == 0 && signbit(value))) sl_jinja_text_putc(out, '-');
    if (exponent < -4 || exponent >= 16) {
        sl_jinja_text_putc(out, kept[0]);
        if (n > 1) sl_jinja_text_putc(out, '.');
        sl_jinja_text_append(out, kept + 1, n - 1);
        sl_jinja_text_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        sl_jinja_text_puts(out, "0.");
        sl_jinja_text_fill(out, "0", 1, -exponent - 1);
        sl_jinja_text_append(out, kept, n);
    } else {
        size_t whole = (size_t)exponent + 1;
        sl_jinja_text_append(out, kept, n < whole ? n : whole);
        if (n < whole) sl_jinja_text_fill(out, "0", 1, (int64_t)(whole - n));
        sl_jinja_text_putc(out, '.');
        if (n > whole) sl_jinja_text_append(out, kept + whole, n - whole);
        else sl_jinja_text_putc(out, '0');
    }
}

/* Text without the white space around it and with decimal digits of any script as ASCII, as int() and float() read it.
 */
static jinja_text plain_digits(jinja *j, const char *text, size_t length) {
    jinja_text out = {.j = j};
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        uint32_t code;
        at += sl_utf8_decode(text + at, length - at, &code, NULL);
        if (sl_jinja_is_space(code)) {
            if (!out.length) continue;
            code = ' ';
        } else if (code >= 0x80 && utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_ND) {
            uint32_t zero = code; /* the digits of a script are ten neighbours */
            while (code - zero < 9 && utf8proc_category((utf8proc_int32_t)(zero - 1)) == UTF8PROC_CATEGORY_ND) zero--;
            code = '0' + (code - zero) % 10;
        }
        sl_jinja_text_code(&out, code);
        if (code != ' ') kept = out.length;
    }
    out.length = kept;
    sl_jinja_text_putc(&out, 0); /* there is data even where nothing is left */
    out.length--;
    return out;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

jinja_value sl_jinja_parse_int(jinja *j, const char *text, size_t length, int base) {
    jinja_text clean = plain_digits(j, text, length);
    const char *p = clean.data, *end = clean.data + clean.length;
    bool negative = false, any_base = base == 0;
    if (p < end && (*p == '-' || *p == '+')) negative = *p++ == '-';
    if (end - p >= 2 && *p == '0') {
        int marked = (p[1] | 0x20) == 'x' ? 16 : (p[1] | 0x20) == 'o' ? 8 : (p[1] | 0x20) == 'b' ? 2 : 0;
        if (marked && (base == 0 || base == marked)) {
            base = marked;
            any_base = false;
            p += 2;
            if (p < end && *p == '_') p++;
        }
    }
    if (base == 0) base = 10;
    if (base < 2 || base > 36) sl_jinja_fail(j, "ValueError", "int() base must be >= 2 and <= 36, or 0");
    char *digits = sl_jinja_alloc(j, clean.length + 1);
    size_t n = 0;
    bool digit_before = false;
    for (; p < end; p++) {
        if (*p == '_' && digit_before && p + 1 < end) {
            digit_before = false;
            continue;
        }
        if (digit_of(*p) >= base) return sl_jinja_missing;
        digits[n++] = *p;
        digit_before = true;
    }
    if (!n || !digit_before) return sl_jinja_missing;
    size_t zeros = 0;
    while (zeros < n - 1 && digits[zeros] == '0') zeros++;
    if (any_base && zeros + (digits[0] == '0') > 0 && n > 1 && !(zeros == n - 1 && digits[n - 1] == '0'))
        return sl_jinja_missing;
    if ((base & (base - 1)) && n > MAX_STR_DIGITS)
        sl_jinja_fail(j, "ValueError", "Exceeds the limit (4300 digits) for integer string conversion");
    if (n < 19 && base == 10) {
        int64_t value = 0;
        for (size_t i = 0; i < n; i++) value = value * 10 + (digits[i] - '0');
        return sl_jinja_int(negative ? -value : value);
    }
    return sl_jinja_big_parse(j, digits, n, base, negative);
}

bool sl_jinja_parse_float(jinja *j, const char *text, size_t length, double *out) {
    jinja_text clean = plain_digits(j, text, length), digits = {.j = j};
    size_t at = 0;
    if (at < clean.length && (clean.data[at] == '-' || clean.data[at] == '+')) at++;
    bool word = at < clean.length && (clean.data[at] | 0x20) >= 'a';
    for (size_t i = 0; i < clean.length; i++) {
        char c = clean.data[i];
        if (c == '_') { /* between digits only */
            if (!i || i + 1 == clean.length || digit_of(clean.data[i - 1]) > 9 || digit_of(clean.data[i + 1]) > 9)
                return false;
            continue;
        }
        if (!c || (!word && !strchr("0123456789.eE+-", c))) return false;
        sl_jinja_text_putc(&digits, c);
    }
    if (!digits.length) return false;
    sl_jinja_text_putc(&digits, 0);
    if (word) {
        static const char *const words[] = {"inf", "infinity", "nan"};
        bool known = false;
        for (size_t i = 0; i < 3; i++) {
            const char *a = digits.data + at, *b = words[i];
            while (*a && (*a | 0x20) == *b) a++, b++;
            known = known || (!*a && !*b);
        }
        if (!known) return false;
    }
    char *end;
    *out = strtod(digits.data, &end);
    return end == digits.data + digits.length - 1 && end > digits.data;
}

/* ---------------------------------------------------------------- rounding */

/* Python's round(float, n) goes through the correctly rounded decimal text. */
static double round_decimal(double value, int64_t digits) {
    if (!isfinite(value) || digits > 323) return value;
    if (digits < -308) return copysign(0.0, value);
    if (digits >= 0) {
        char text[800];
        snprintf(text, sizeof text, "%.*f", (int)digits, value);
        return strtod(text, NULL);
    }
    double unit = pow(10, (double)-digits), scaled = value / unit, rounded = round(scaled);
    if (fabs(scaled - rounded) == 0.5) rounded = 2 * round(scaled / 2);
    return rounded * unit;
}

jinja_value sl_jinja_round(jinja *j, jinja_value v, jinja_value digits) {
    if (!jinja_is_number(v)) {
        if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
        sl_jinja_fail(j, "TypeError", "type %s doesn't define __round__ method", sl_jinja_type_name(v));
    }
    if (v.type == JINJA_FLOAT) {
        if (digits.type == JINJA_NONE) return sl_jinja_float_to_int(j, nearbyint(v.as.number));
        double rounded = round_decimal(v.as.number, sl_jinja_index(j, digits));
        if (isinf(rounded) && isfinite(v.as.number))
            sl_jinja_fail(j, "OverflowError", "rounded value too large to represent");
        return sl_jinja_float(rounded);
    }
    int64_t n = digits.type == JINJA_NONE ? 0 : sl_jinja_index(j, digits);
    if (v.type == JINJA_BOOL) v = sl_jinja_int(v.as.boolean);
    if (n >= 0) return v;
    if (n < -400) return sl_jinja_int(0);
    jinja_value unit = sl_jinja_big_power(j, sl_jinja_int(10), -n), quotient, remainder;
    sl_jinja_big_divide(j, v, unit, &quotient, &remainder);
    int half = sl_jinja_order_numbers(j, sl_jinja_arithmetic(j, JINJA_MUL, remainder, sl_jinja_int(2)), unit);
    jinja_value odd = sl_jinja_arithmetic(j, JINJA_MOD, quotient, sl_jinja_int(2));
    if (half > 0 || (half == 0 && odd.as.integer))
        quotient = sl_jinja_arithmetic(j, JINJA_ADD, quotient, sl_jinja_int(1));
    return sl_jinja_arithmetic(j, JINJA_MUL, quotient, unit);
}
