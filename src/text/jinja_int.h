/* Integers without bound, for the few that leave 64 bits. */
#ifndef SL_TEXT_JINJA_INT_H
#define SL_TEXT_JINJA_INT_H

#include "text/jinja.h"

/* Magnitude in base 10^9, least significant limb first, no leading zero limb: templates print numbers far more often
 * than they compute with large ones, and decimal limbs make printing and parsing linear. */
typedef struct jinja_big {
    bool negative;
    size_t length;
    uint32_t limbs[];
} jinja_big;

/* a and b are JINJA_INT, JINJA_BIG or JINJA_BOOL; results are JINJA_INT where they fit. Division by zero must be
 * excluded by the caller; both divisions floor, as Python's do. */
jinja_value sl_jinja_big_add(jinja *j, jinja_value a, jinja_value b, bool subtract);
jinja_value sl_jinja_big_multiply(jinja *j, jinja_value a, jinja_value b);
void sl_jinja_big_divide(jinja *j, jinja_value a, jinja_value b, jinja_value *quotient, jinja_value *remainder);
jinja_value sl_jinja_big_power(jinja *j, jinja_value base, int64_t exponent); /* exponent >= 0 */
jinja_value sl_jinja_big_negate(jinja *j, jinja_value a);
int sl_jinja_big_compare(jinja *j, jinja_value a, jinja_value b); /* -1, 0, 1 */
double sl_jinja_big_to_double(const jinja_big *a);                /* HUGE_VAL when too large; rounds to nearest */
jinja_value sl_jinja_big_from_double(jinja *j, double whole);     /* a whole number */
/* digits [length] in base 2..36, all valid. */
jinja_value sl_jinja_big_parse(jinja *j, const char *digits, size_t length, int base, bool negative);
/* The magnitude in base 2, 8, 10 or 16 (lower case). */
void sl_jinja_big_digits(jinja_text *out, jinja_value a, int base);
bool sl_jinja_big_negative(jinja_value a);

#endif
