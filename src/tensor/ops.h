/* The operations of a forward pass, on the CPU. The table is chosen once (kernels.h) and the model names operations,
 * never an instruction set: a device is another table.
 *
 * One order of summation per output element: no result depends on how many tokens, rows, threads or requests are
 * computed together. Work is split over rows, heads and tokens, never over a reduction.
 */
#ifndef SL_TENSOR_OPS_H
#define SL_TENSOR_OPS_H

#include "base/pool.h"
#include "tensor/tensor.h"

/* How a forward runs its products. */
typedef enum sl_arithmetic {
    SL_EXACT, /* f32 activations, weights widened exactly */
    SL_FAST   /* activations rounded to int8 per 32 with an f32 scale where the weight is quantised */
} sl_arithmetic;

/* Activations x [n_tokens, n] prepared once for the products that share them (q, k, v; gate, up). The f32 rows are
 * borrowed; the rounded form lives in `blocks`, sized by sl_act_bytes. */
typedef struct sl_act {
    const float *x;
    size_t stride;    /* floats between rows of x, >= n */
    int64_t n_tokens, n;
    void *blocks;     /* rounded form, or NULL when every weight that uses it is a float type or arithmetic is EXACT */
} sl_act;

/* Bytes of `blocks` for n_tokens rows of n elements. */
size_t sl_act_bytes(int64_t n_tokens, int64_t n);
/* Rounds act->x into act->blocks (which the caller has set); a no-op when blocks is NULL. n need not divide by 32. */
void sl_act_round(sl_pool *pool, sl_act *act);

/* The one matmul entry. y[t * y_stride + r] = sum_c w[r, c] * x[t, c] (+ bias[r] when not NULL), for rows
 * [row0, row0 + n_rows) of w: [rows, columns] or, with `expert` >= 0, of w[expert]. Threads over rows and tokens.
 * w->shape's last dimension must equal act->n; any float or quantised type. */
void sl_matmul(sl_pool *pool, sl_arithmetic arithmetic, const sl_tensor *w, int64_t expert, const sl_act *act,
               const float *bias, float *y, size_t y_stride);

/* One of several products that share their activations. Fields as sl_matmul's parameters. */
typedef struct sl_matmul_item {
    const sl_tensor *w;
    int64_t expert;
    const float *bias;
    float *y;
    size_t y_stride;
} sl_matmul_item;

enum { SL_MATMUL_ITEMS = 4 };

/* All of items [n_items <= SL_MATMUL_ITEMS] with the same activations, as one job of the pool: one synchronisation for q, k and v. */
void sl_matmul_all(sl_pool *pool, sl_arithmetic arithmetic, const sl_matmul_item *items, int n_items,
                   const sl_act *act);

/* Row `row` of a matrix widened to f32: out [columns]. (Embedding look-up.) */
void sl_row(const sl_tensor *w, int64_t row, float *out);

/* Single-row operations: callers thread over rows. */
void sl_rms_norm(float *y, const float *x, const float *weight, int64_t n, float eps); /* y = x / rms(x) * weight; weight NULL: 1 */
void sl_layer_norm(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps);
void sl_softmax(float *x, int64_t n); /* in place; max subtracted; sum in f32 in index order of the lanes */
void sl_silu_mul(float *y, const float *gate, const float *up, int64_t n);      /* y = silu(gate) * up */
void sl_gelu_tanh_mul(float *y, const float *gate, const float *up, int64_t n); /* up NULL: y = gelu(gate) */
void sl_gelu_erf_mul(float *y, const float *gate, const float *up, int64_t n);  /* up NULL: y = gelu(gate) */
void sl_add(float *y, const float *x, int64_t n);          /* y += x */
void sl_scale(float *y, float factor, int64_t n);          /* y *= factor */
void sl_softcap(float *y, float cap, int64_t n);           /* y = cap * tanh(y / cap) */

/* Attention over keys and values of one head, as stored in the KV cache. */
typedef enum sl_kv_type { SL_KV_F32, SL_KV_F16 } sl_kv_type;
size_t sl_kv_type_bytes(sl_kv_type type);
void sl_kv_store(sl_kv_type type, void *out, const float *x, int64_t n);
/* scores[j] = scale * q . k[j] for j in [0, n): k rows are `stride` bytes apart, head_dim values each. */
void sl_kv_scores(sl_kv_type type, float *scores, const float *q, const void *k, size_t stride, int64_t n,
                  int64_t head_dim, float scale);
/* out[d] = sum_j p[j] * v[j][d]; the order over j depends on nothing but n. */
void sl_kv_mix(sl_kv_type type, float *out, const float *p, const void *v, size_t stride, int64_t n, int64_t head_dim);

#endif
