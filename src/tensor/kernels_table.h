/* The table behind ops.h, one filled by each kernels_*.c, and the layout of rounded activations that they share. */
#ifndef SL_TENSOR_KERNELS_TABLE_H
#define SL_TENSOR_KERNELS_TABLE_H

#include "tensor/codes.h"
#include "tensor/kernels.h"

/* One token's rounded activations: n elements padded with zeros to whole groups of 32.
 *
 *     int8_t  codes[32 * groups]
 *     float   scale[groups]     amax / levels; NaN when an element is not finite
 *     int32_t sum32[groups]     sum of 32 codes
 *     int16_t sum16[2 * groups] sums of 16
 *     float   shift[groups]     scale * (float)sum32: what a minimum is multiplied with
 */
typedef struct sl_rounded {
    const int8_t *codes;
    const float *scale, *shift;
    const int32_t *sum32;
    const int16_t *sum16;
} sl_rounded;

static inline size_t sl_rounded_bytes(int64_t n) {
    size_t groups = (size_t)(n + 31) / 32;
    return (groups * 48 + 63) & ~(size_t)63;
}

static inline sl_rounded sl_rounded_at(const void *blocks, int64_t n, int64_t token) {
    size_t groups = (size_t)(n + 31) / 32;
    const char *p = (const char *)blocks + (size_t)token * sl_rounded_bytes(n);
    return (sl_rounded){(const int8_t *)p, (const float *)(const void *)(p + groups * 32),
                        (const float *)(const void *)(p + groups * 44), (const int32_t *)(const void *)(p + groups * 36),
                        (const int16_t *)(const void *)(p + groups * 40)};
}

/* A group's largest value becomes one of 127, 126.5, ... 123.5 units: the one that leaves the smallest squared error, the
 * largest at a tie. On tiny models this takes a tenth off the distance from the unrounded logits. So that every table
 * chooses alike, the error of a try with `levels` units is, each operation rounded, the sum of the squares of
 * y - nearest(y), y = x * (levels / amax), times 1 / (levels * levels); element i is summed into lane i % 8, then
 * ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). */
enum { SL_ROUND_TRIES = 8 };
static inline float sl_round_levels(int attempt) { return 127.0f - 0.5f * (float)attempt; }

/* Below this the reciprocal of the scale would overflow; such a group rounds to zeros. */
#define SL_ROUND_MIN 1e-30f

/* A product y[t * y_stride + r] = w[r] . x[t] + bias[r]; kernels compute rows [r0, r1) for tokens [t0, t1). */
typedef struct sl_product {
    sl_type type;
    const uint8_t *w;  /* row 0; row r is row_bytes * r further */
    size_t row_bytes;
    const uint8_t *panels; /* the same rows packed (panel.h), or NULL: kernels then work from w */
    int64_t n;         /* columns */
    const float *x;    /* f32 activations, x_stride floats between tokens */
    size_t x_stride;
    const void *blocks; /* rounded activations */
    const float *bias; /* NULL: none */
    float *y;
    size_t y_stride;
    bool adds;         /* y +=; matmul_float only */
} sl_product;

/* The order of summation, the same in every table and for every shape:
 *
 * matmul_codes: groups of 16 or 32 columns in order. A group adds  (float)(integer dot) * (w scale * x scale)  and
 * then, for types with minimums,  w min * (x scale * (float)(sum of x codes)),  each operation rounded, no fused ones.
 * Q2_K, Q3_K and Q6_K (sl_panel_has_factors), whose groups of 16 have integer scales s (and minimums n) under one float
 * d (and m), add 32 columns at once: (float)(s0 * dot0 + s1 * dot1) * (d * x scale)  and then
 * (float)(n0 * sum0 + n1 * sum1) * (-m * x scale). The integers are exact as floats: Q6_K's largest is 2 * 16 * 32 * 127 *
 * 128, 0.8 % below 2^24.
 * So all tables give the same bits.
 *
 * matmul_float: lanes over columns within chunks of 1024, reduced by a tree, the chunks added in order. Lanes and fused
 * operations differ between tables.
 *
 * attend_page: a score is one chain over the dimensions in order, times scale; p in lanes over the page's keys, added
 * in the order of vectors, then a tree; sum p v one chain over the keys in order, that begins with state * e^(old - new
 * largest score). Keys that are not visible have p = 0 and are not read as values outside a row's first and last.
 */
struct sl_kernels {
    const char *name;
    void (*round_row)(const float *x, int64_t n, void *out); /* out: one token of sl_rounded */
    /* As sl_panel_pack, and the same bytes. */
    void (*pack)(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel);
    void (*matmul_codes)(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1);
    void (*matmul_float)(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1);
    void (*rms_norm)(float *y, const float *x, const float *weight, int64_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps);
    void (*softmax)(float *x, int64_t n);
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n);
    void (*gelu_tanh_mul)(float *y, const float *gate, const float *up, int64_t n);
    void (*gelu_erf_mul)(float *y, const float *gate, const float *up, int64_t n);
    void (*add)(float *y, const float *x, int64_t n);
    void (*scale)(float *y, float factor, int64_t n);
    void (*softcap)(float *y, float cap, int64_t n);
    void (*kv_store_f16)(void *out, const float *x, int64_t n);
    void (*attend_page)(const sl_attend_task *task, const sl_attend_row *rows, int n_rows);
    /* For measure.h. Multiply-adds done in so many rounds, in registers; bytes read of the data. */
    int64_t (*peak_int8)(int64_t rounds);
    int64_t (*peak_f32)(int64_t rounds);
    uint64_t (*read_bytes)(const void *data, uint64_t bytes);
};

enum { SL_FLOAT_CHUNK = 1024 }; /* columns of matmul_float summed before a reduction */

extern const sl_kernels sl_kernels_scalar;
#if defined(__x86_64__)
extern const sl_kernels sl_kernels_avx2, sl_kernels_avx512;
#elif defined(__aarch64__)
extern const sl_kernels sl_kernels_neon, sl_kernels_neon_dot;
#endif

#endif
