#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMB = 1000000000 };

static jinja_big *new_big(jinja *j, size_t length) {
    size_t bytes;
    if (__builtin_mul_overflow(length, sizeof(uint32_t), &bytes) || bytes > SIZE_MAX / 2)
        sl_jinja_fail_limit(j, "memory, bytes", j->arena->limit);
    jinja_big *made = sl_jinja_alloc(j, sizeof(jinja_big) + bytes);
    made->length = length;
    return made;
}

static void trim(jinja_big *a) {
    while (a->length && !a->limbs[a->length - 1]) a->length--;
}

/* The number as a big, small ones widened. */
static const jinja_big *widen(jinja *j, jinja_value v) {
    if (v.type == JINJA_BIG) return v.as.big;
    int64_t value = v.type == JINJA_BOOL ? v.as.boolean : v.as.integer;
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    jinja_big *made = new_big(j, 3);
    made->negative = value < 0;
    for (int i = 0; i < 3; i++, magnitude /= LIMB) made->limbs[i] = (uint32_t)(magnitude % LIMB);
    trim(made);
    return made;
}

/* A JINJA_INT when it fits. */
static jinja_value narrow(jinja_big *a) {
    trim(a);
    if (a->length <= 3) {
        unsigned __int128 magnitude = 0;
        for (size_t i = a->length; i-- > 0;) magnitude = magnitude * LIMB + a->limbs[i];
        if (magnitude <= INT64_MAX) return sl_jinja_int(a->negative ? -(int64_t)magnitude : (int64_t)magnitude);
        if (a->negative && magnitude == (unsigned __int128)INT64_MAX + 1) return sl_jinja_int(INT64_MIN);
    }
    return (jinja_value){.type = JINJA_BIG, .as.big = a};
}

bool sl_jinja_big_negative(jinja_value a) {
    if (a.type == JINJA_BIG) return a.as.big->negative;
    return a.type == JINJA_INT && a.as.integer < 0;
}

static int compare_magnitude(const jinja_big *a, const jinja_big *b) {
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    for (size_t i = a->length; i-- > 0;)
        if (a->limbs[i] != b->limbs[i]) return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

static jinja_big *add_magnitude(jinja *j, const jinja_big *a, const jinja_big *b) {
    size_t length = (a->length > b->length ? a->length : b->length) + 1;
    jinja_big *sum = new_big(j, length);
    uint32_t carry = 0;
    for (size_t i = 0; i < length; i++) {
        carry += (i < a->length ? a->limbs[i] : 0) + (i < b->length ? b->limbs[i] : 0);
        sum->limbs[i] = carry % LIMB;
        carry /= LIMB;
    }
    return sum;
}

/* |a| - |b|, |a| >= |b| */
static jinja_big *subtract_magnitude(jinja *j, const jinja_big *a, const jinja_big *b) {
    jinja_big *difference = new_big(j, a->length);
    int64_t borrow = 0;
    for (size_t i = 0; i < a->length; i++) {
        int64_t limb = (int64_t)a->limbs[i] - (i < b->length ? b->limbs[i] : 0) - borrow;
        borrow = limb < 0;
        difference->limbs[i] = (uint32_t)(limb + (borrow ? LIMB : 0));
    }
    return difference;
}

jinja_value sl_jinja_big_add(jinja *j, jinja_value left, jinja_value right, bool subtract) {
    const jinja_big *a = widen(j, left), *b = widen(j, right);
    sl_jinja_charge(j, (a->length + b->length) / 16);
    bool b_negative = b->negative != subtract;
    jinja_big *result;
    if (a->negative == b_negative) {
        result = add_magnitude(j, a, b);
        result->negative = a->negative;
    } else if (compare_magnitude(a, b) >= 0) {
        result = subtract_magnitude(j, a, b);
        result->negative = a->negative;
    } else {
        result = subtract_magnitude(j, b, a);
        result->negative = b_negative;
    }
    return narrow(result);
}

static jinja_big *multiply(jinja *j, const jinja_big *a, const jinja_big *b) {
    sl_jinja_charge(j, (uint64_t)a->length * b->length / 16);
    jinja_big *product = new_big(j, a->length + b->length);
    for (size_t i = 0; i < a->length; i++) {
        uint64_t carry = 0;
        for (size_t k = 0; k < b->length || carry; k++) {
            uint64_t limb = product->limbs[i + k] + carry;
            if (k < b->length) limb += (uint64_t)a->limbs[i] * b->limbs[k];
            product->limbs[i + k] = (uint32_t)(limb % LIMB);
            carry = limb / LIMB;
        }
    }
    product->negative = a->negative != b->negative;
    trim(product);
    return product;
}

jinja_value sl_jinja_big_multiply(jinja *j, jinja_value a, jinja_value b) {
    return narrow(multiply(j, widen(j, a), widen(j, b)));
}

/* Divides in place by a small number, returns the remainder. */
static uint32_t divide_small(jinja_big *a, uint32_t divisor) {
    uint64_t remainder = 0;
    for (size_t i = a->length; i-- > 0;) {
        remainder = remainder * LIMB + a->limbs[i];
        a->limbs[i] = (uint32_t)(remainder / divisor);
        remainder %= divisor;
    }
    trim(a);
    return (uint32_t)remainder;
}

static jinja_big *copy(jinja *j, const jinja_big *a, size_t extra) {
    jinja_big *made = new_big(j, a->length + extra);
    memcpy(made->limbs, a->limbs, a->length * sizeof *a->limbs);
    made->negative = a->negative;
    return made;
}

static void scale(jinja_big *a, uint32_t factor) {
    uint64_t carry = 0;
    for (size_t i = 0; i < a->length; i++) {
        carry += (uint64_t)a->limbs[i] * factor;
        a->limbs[i] = (uint32_t)(carry % LIMB);
        carry /= LIMB;
    }
}

/* |a| / |b| by long division (Knuth, The Art of Computer Programming 2, 4.3.1, algorithm D), |b| >= 2 limbs. */
static jinja_big *divide_long(jinja *j, const jinja_big *a, const jinja_big *b, jinja_big **remainder) {
    size_t n = b->length, m = a->length - n;
    uint32_t factor = LIMB / (b->limbs[n - 1] + 1);
    jinja_big *u = copy(j, a, 1), *v = copy(j, b, 0), *quotient = new_big(j, m + 1);
    scale(u, factor);
    scale(v, factor);
    for (size_t at = m + 1; at-- > 0;) {
        uint64_t top = (uint64_t)u->limbs[at + n] * LIMB + u->limbs[at + n - 1];
        uint64_t guess = top / v->limbs[n - 1], rest = top % v->limbs[n - 1];
        while (guess >= LIMB || guess * v->limbs[n - 2] > rest * LIMB + u->limbs[at + n - 2]) {
            guess--;
            rest += v->limbs[n - 1];
            if (rest >= LIMB) break;
        }
        int64_t borrow = 0;
        uint64_t carry = 0;
        for (size_t i = 0; i <= n; i++) {
            carry += i < n ? guess * v->limbs[i] : 0;
            int64_t limb = (int64_t)u->limbs[at + i] - (int64_t)(carry % LIMB) - borrow;
            carry /= LIMB;
            borrow = limb < 0;
            u->limbs[at + i] = (uint32_t)(limb + (borrow ? LIMB : 0));
        }
        if (borrow) { /* the guess was one too large */
            guess--;
            uint32_t over = 0;
            for (size_t i = 0; i <= n; i++) {
                over += u->limbs[at + i] + (i < n ? v->limbs[i] : 0);
                u->limbs[at + i] = over % LIMB;
                over /= LIMB;
            }
        }
        quotient->limbs[at] = (uint32_t)guess;
    }
    trim(u);
    divide_small(u, factor);
    *remainder = u;
    return quotient;
}

void sl_jinja_big_divide(jinja *j, jinja_value left, jinja_value right, jinja_value *quotient, jinja_value *remainder) {
    const jinja_big *a = widen(j, left), *b = widen(j, right);
    jinja_big *q, *r;
    if (compare_magnitude(a, b) < 0) {
        q = new_big(j, 0);
        r = copy(j, a, 0);
    } else if (b->length == 1) {
        q = copy(j, a, 0);
        r = new_big(j, 1);
        r->limbs[0] = divide_small(q, b->limbs[0]);
    } else {
        sl_jinja_charge(j, (uint64_t)(a->length - b->length + 1) * b->length / 16);
        q = divide_long(j, a, b, &r);
    }
    trim(r);
    q->negative = a->negative != b->negative;
    r->negative = a->negative;
    *quotient = narrow(q);
    *remainder = narrow(r);
    if (r->length && a->negative != b->negative) { /* floor */
        *quotient = sl_jinja_big_add(j, *quotient, sl_jinja_int(1), true);
        *remainder = sl_jinja_big_add(j, *remainder, right, false);
    }
}

jinja_value sl_jinja_big_power(jinja *j, jinja_value base, int64_t exponent) {
    const jinja_big *square = widen(j, base), *result = widen(j, sl_jinja_int(1));
    if (!square->length) return sl_jinja_int(exponent == 0);
    if (square->length == 1 && square->limbs[0] == 1) return sl_jinja_int(square->negative && exponent % 2 ? -1 : 1);
    for (; exponent; exponent /= 2) {
        if (exponent % 2) result = multiply(j, result, square);
        if (exponent > 1) square = multiply(j, square, square);
    }
    return narrow(copy(j, result, 0));
}

jinja_value sl_jinja_big_negate(jinja *j, jinja_value a) {
    jinja_big *made = copy(j, widen(j, a), 0);
    made->negative = !made->negative;
    return narrow(made);
}

int sl_jinja_big_compare(jinja *j, jinja_value left, jinja_value right) {
    const jinja_big *a = widen(j, left), *b = widen(j, right);
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    int order = compare_magnitude(a, b);
    return a->negative ? -order : order;
}

double sl_jinja_big_to_double(const jinja_big *a) {
    /* strtod rounds correctly; beyond 40 limbs (360 digits) every number is infinite. */
    if (a->length > 40) return a->negative ? -HUGE_VAL : HUGE_VAL;
    char digits[40 * 9 + 2], *at = digits;
    if (a->negative) *at++ = '-';
    for (size_t i = a->length; i-- > 0;) at += snprintf(at, 10, "%09u", (unsigned)a->limbs[i]);
    *at = 0;
    return strtod(digits, NULL);
}

jinja_value sl_jinja_big_from_double(jinja *j, double whole) {
    char digits[330];
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(whole));
    return sl_jinja_big_parse(j, digits, (size_t)n, 10, whole < 0);
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 0x20) - 'a' + 10;
}

jinja_value sl_jinja_big_parse(jinja *j, const char *digits, size_t length, int base, bool negative) {
    jinja_big *made = new_big(j, base == 10 ? length / 9 + 1 : length * 2 / 9 + 2);
    made->negative = negative;
    if (base == 10) {
        for (size_t i = 0; i < length; i++) {
            uint32_t *limb = &made->limbs[(length - 1 - i) / 9];
            *limb = *limb * 10 + (uint32_t)(digits[i] - '0');
        }
    } else {
        sl_jinja_charge(j, length * made->length / 64);
        size_t used = 0;
        for (size_t i = 0; i < length; i++) {
            uint64_t carry = (uint64_t)digit_value(digits[i]);
            for (size_t k = 0; k < used || carry; k++) {
                if (k == used) used++;
                carry += (uint64_t)made->limbs[k] * (uint32_t)base;
                made->limbs[k] = (uint32_t)(carry % LIMB);
                carry /= LIMB;
            }
        }
    }
    return narrow(made);
}

void sl_jinja_big_digits(jinja_text *out, jinja_value v, int base) {
    const jinja_big *a = widen(out->j, v);
    if (!a->length) {
        sl_jinja_text_putc(out, '0');
    } else if (base == 10) {
        sl_jinja_text_printf(out, "%u", (unsigned)a->limbs[a->length - 1]);
        for (size_t i = a->length - 1; i-- > 0;) sl_jinja_text_printf(out, "%09u", (unsigned)a->limbs[i]);
    } else {
        jinja_big *rest = copy(out->j, a, 0);
        size_t from = out->length;
        while (rest->length) {
            sl_jinja_charge(out->j, rest->length / 16);
            sl_jinja_text_putc(out, "0123456789abcdef"[divide_small(rest, (uint32_t)base)]);
        }
        for (size_t lo = from, hi = out->length - 1; lo < hi; lo++, hi--) {
            char c = out->data[lo];
            out->data[lo] = out->data[hi];
            out->data[hi] = c;
        }
    }
}
