/* uselocale is per thread, so that a program's other threads see nothing of it. glibc and musl answer newlocale for "C"
 * with a constant of their own: nothing is allocated, and nothing need be kept between calls. */
#include "base/number.h"

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct c_locale {
    locale_t c, before;
} c_locale;

static c_locale enter(void) {
    c_locale l = {.c = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    if (l.c) l.before = uselocale(l.c);
    return l;
}

static void leave(c_locale l) {
    if (!l.c) return;
    uselocale(l.before);
    freelocale(l.c);
}

double sl_strtod(const char *text, char **end) {
    c_locale l = enter();
    double value = strtod(text, end);
    leave(l);
    return value;
}

float sl_strtof(const char *text, char **end) {
    c_locale l = enter();
    float value = strtof(text, end);
    leave(l);
    return value;
}

static void format(char *text, double value, bool is_float) {
    c_locale l = enter();
    for (int digits = 6; digits <= (is_float ? 9 : 17); digits++) {
        snprintf(text, SL_NUMBER_SIZE, "%.*g", digits, value);
        if (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) break;
    }
    leave(l);
}

void sl_format_double(char *text, double value) { format(text, value, false); }
void sl_format_float(char *text, float value) { format(text, (double)value, true); }
