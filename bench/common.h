/* What the measuring programs share: numbers on the command line, and weights to multiply. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include "base/rng.h"
#include "tensor/types.h"

#include <stdio.h>
#include <stdlib.h>

/* The value of an option, 1 to most; otherwise says so and ends the program. */
static inline int64_t bench_number(const char *program, const char *option, const char *text, int64_t most) {
    char *end;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (text && *end == '\0' && value > 0 && value <= most) return value;
    fprintf(stderr, "%s: %s needs a number from 1 to %lld\n", program, option, (long long)most);
    exit(2);
}

/* Whole blocks of a type, without infinities and without tiny numbers in any scale, which would take the processor
 * hundreds of cycles each and which no trained file has. */
static inline void bench_fill(sl_type type, unsigned char *data, uint64_t bytes) {
    sl_rng rng;
    sl_rng_seed(&rng, 1);
    for (uint64_t i = 0; i < bytes; i++) data[i] = (unsigned char)((sl_rng_next(&rng) & 0x0b) | 0x30);
    for (uint64_t i = 0; i < bytes && type == SL_MXFP4; i += sl_type_get(type)->bytes) data[i] = 120; /* its exponent */
}

#endif
