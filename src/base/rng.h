/* Random numbers that are the same on every machine: xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64. */
#ifndef SL_BASE_RNG_H
#define SL_BASE_RNG_H

#include <stdint.h>

typedef struct sl_rng {
    uint64_t s[4];
} sl_rng;

void sl_rng_seed(sl_rng *rng, uint64_t seed);
uint64_t sl_rng_next(sl_rng *rng);
double sl_rng_uniform(sl_rng *rng); /* [0, 1), 53 bits */

#endif
