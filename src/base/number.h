/* Numbers as files and JSON write them, with a decimal point whatever locale the program has set. */
#ifndef SL_BASE_NUMBER_H
#define SL_BASE_NUMBER_H

#include <stddef.h>

/* strtod and strtof of the C locale: *end (may be NULL) is the first byte not read. */
double sl_strtod(const char *text, char **end);
float sl_strtof(const char *text, char **end);

/* The fewest digits, 6 to 17 (9 for a float), that read back as the same finite value, without trailing zeros: "0.1",
 * "1e-05". SL_NUMBER_SIZE bytes hold every number. */
enum { SL_NUMBER_SIZE = 40 };
void sl_format_double(char *text, double value);
void sl_format_float(char *text, float value);

#endif
