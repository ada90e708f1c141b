#include "base/rng.h"

void sl_rng_seed(sl_rng *rng, uint64_t seed) {
    for (int i = 0; i < 4; i++) { /* splitmix64, so that nearby seeds give unrelated states */
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        rng->s[i] = z ^ z >> 31;
    }
}

static uint64_t rotate_left(uint64_t x, int k) { return x << k | x >> (64 - k); }

uint64_t sl_rng_next(sl_rng *rng) {
    uint64_t *s = rng->s, result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double sl_rng_uniform(sl_rng *rng) { return (double)(sl_rng_next(rng) >> 11) * 0x1p-53; }
