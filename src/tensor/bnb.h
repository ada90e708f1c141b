/* bitsandbytes' number formats: 4-bit codes (NF4, FP4) and 8-bit dynamic codes with the largest value of each block, and
 * LLM.int8's rows. Blocks run over the flat elements of a tensor; the last may be short.
 * Sources: Dettmers et al. 2023, "QLoRA" (NF4, double quantisation); Dettmers 2016, "8-Bit Approximations for
 * Parallelism" (the dynamic map); Dettmers et al. 2022, "LLM.int8()"; the library's documented layouts. */
#ifndef SL_TENSOR_BNB_H
#define SL_TENSOR_BNB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sl_bnb4 { SL_BNB_NF4, SL_BNB_FP4 } sl_bnb4;

enum { SL_BNB_NESTED = 256 }; /* largest values that share one of their own, when they are quantised too */

const float *sl_bnb4_values(sl_bnb4 kind); /* [16] what the codes stand for, in [-1, 1] */
/* x [n] to codes, two a byte, the first in the high nibble: packed [(n + 1) / 2], absmax [ceil(n / block)]. */
void sl_bnb4_quantise(sl_bnb4 kind, const float *x, size_t n, size_t block, uint8_t *packed, float *absmax);
void sl_bnb4_dequantise(sl_bnb4 kind, const uint8_t *packed, const float *absmax, size_t n, size_t block, float *out);

/* The signed dynamic map of 8 bits: seven decades, each cut into twice as many parts as the one below. */
void sl_bnb8_map(float map[256]);
void sl_bnb8_quantise(const float map[256], const float *x, size_t n, size_t block, uint8_t *codes, float *absmax);
void sl_bnb8_dequantise(const float map[256], const uint8_t *codes, const float *absmax, size_t n, size_t block, float *out);

/* Double quantisation of absmax [n]: less their mean, in 8 bits and blocks of SL_BNB_NESTED. codes [n],
 * nested [ceil(n / SL_BNB_NESTED)]. False: out of memory. */
bool sl_bnb_nest(const float map[256], const float *absmax, size_t n, uint8_t *codes, float *nested, float *offset);
void sl_bnb_unnest(const float map[256], const uint8_t *codes, const float *nested, float offset, size_t n, float *absmax);

/* One row of LLM.int8: code = round(127 x / absmax); the way back is code * absmax / 127. */
void sl_bnb_int8_row(const float *x, size_t n, int8_t *codes, float *absmax);

#endif
