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

/* The one matmul entry. y[t * y_stride + r] = sum_c w[r, c] * x[t, c] (+ bias[r] when not NULL), for all rows
 * of w: [rows, columns] or, with `expert` >= 0, of w[expert]. pool NULL: the caller alone. Threads over rows and tokens.
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
    bool adds; /* y += in place of y =; f32 activations only */
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

/* ---------------------------------------------------------------- keys and values
 *
 * Keys and values lie in pages of SL_PAGE positions. In a page, a head of a layer has one tile of keys, across
 * ([head_dim][SL_PAGE]: a vector's lanes are keys, so scores need no horizontal sums), and one of values, along
 * ([SL_PAGE][sl_kv_width]). Quantised tiles begin with their scales (f16, one per position and SL_KV_GROUP dimensions:
 * keys [group][SL_PAGE], values [SL_PAGE][group]), then the codes; pages.c has the details. */
enum { SL_PAGE = 64, SL_SPAN = 8 * SL_PAGE, SL_KV_GROUP = 32 };
typedef enum sl_kv_type { SL_KV_F32, SL_KV_F16, SL_KV_Q8_0, SL_KV_Q4_0 } sl_kv_type;
const char *sl_kv_type_name(sl_kv_type type);
bool sl_kv_type_holds(sl_kv_type type, int head_dim); /* q8_0 and q4_0: only heads that SL_KV_GROUP divides */
/* Values of a row of f32 or f16: head_dim, padded with zeros to whole vectors of every table. */
static inline int sl_kv_width(int head_dim) { return (head_dim + 15) / 16 * 16; }
size_t sl_kv_tile_bytes(sl_kv_type type, int head_dim, bool values);
size_t sl_kv_scale_bytes(sl_kv_type type, int head_dim); /* of a tile, before its codes */
/* x [head_dim] into position `slot` of a tile. */
void sl_kv_store_key(sl_kv_type type, void *tile, int slot, const float *x, int head_dim);
void sl_kv_store_value(sl_kv_type type, void *tile, int slot, const float *x, int head_dim);
/* One stored number, widened: for tests and plain kernels. */
float sl_kv_key_at(sl_kv_type type, const void *tile, int slot, int d, int head_dim);
float sl_kv_value_at(sl_kv_type type, const void *tile, int slot, int d, int head_dim);

/* Attention with online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867; tiled: Dao et al. 2022, arXiv
 * 2205.14135). A query's state is the largest score so far, the sum of p = e^(score - largest), and sum p v. One order,
 * whatever is computed together: pages of a span (SL_SPAN positions, aligned) one after the other into a state that
 * began empty; the spans' states merged in order. So a long timeline may be split over threads by spans. */
enum { SL_STATE_MAX, SL_STATE_SUM, SL_STATE_MIX = 16 };
static inline int sl_attend_width(int head_dim) { return SL_STATE_MIX + sl_kv_width(head_dim); } /* floats of a state */

typedef struct sl_attend_row {
    const float *q;   /* [head_dim] */
    float *state;     /* [sl_attend_width], 64-byte aligned */
    uint64_t visible; /* bit j: position j of the page is seen; never 0 */
} sl_attend_row;

typedef struct sl_attend_task {
    sl_kv_type type;
    int head_dim;
    float scale, softcap; /* score = softcap of (scale * q.k), 0: none */
    const void *keys, *values;
    const void *next;     /* the keys that come after this page, for few rows to ask for; NULL: none */
    float *scratch;       /* [2, SL_PAGE, sl_kv_width] for quantised types */
} sl_attend_task;

void sl_attend_clear(float *state, int head_dim);
/* Adds one page to the states of queries of the heads that share its tiles. Positions that no row sees are not read
 * as values. */
void sl_attend_page(const sl_attend_task *task, const sl_attend_row *rows, int n_rows);
void sl_attend_merge(float *state, const float *later, int head_dim); /* of the span behind state's */
void sl_attend_finish(const float *state, int head_dim, float *out);  /* out [head_dim] */

#endif
