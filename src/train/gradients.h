/* The pieces of a backward pass, one for each operator of the forward: given the gradient of what came out, that of what went in.
 * Rows are tokens; everything is f32. */
#ifndef SL_TRAIN_GRADIENTS_H
#define SL_TRAIN_GRADIENTS_H

#include "model/adapter.h"
#include "tensor/blas.h"

/* dx += the norm's gradient: y = norm(x) * weight (+ bias). x, dy, dx [n]; weight [n] or NULL. dx may be dy. */
void sl_norm_backward(const sl_config *config, const float *x, const float *weight, const float *dy, int64_t n, float *dx);
void sl_rms_norm_backward(const float *x, const float *weight, const float *dy, int64_t n, float eps, float *dx); /* dx += */

/* hidden [2 n_ff] or [n_ff]: gate and up before the activation, as the tape has them; dh [n_ff] of the activated values. Both
 * activated values into h [n_ff] and gradients into d_hidden, which may not be hidden. */
void sl_activation_backward(const sl_config *config, const float *hidden, const float *dh, int n_ff, float *h, float *d_hidden);

/* Gradients of one product's adapter: NULL where nothing is trained. */
typedef struct sl_lora_grad {
    float *a, *b, *magnitude;
} sl_lora_grad;

/* What products need beside their operands; of one thread at a time. */
typedef struct sl_products_backward {
    sl_pool *pool;
    const sl_blas *blas;
    float *tile;    /* [SL_TILE_FLOATS] rows of a matrix, widened */
    float *low;     /* [2, n_rows, max rank] */
    float *scaled;  /* [n_rows, widest output] with DoRA; NULL */
    const sl_dropout *dropout; /* NULL: none */
    const uint64_t *keys;      /* [n_rows] of the tokens at hand */
    float *dropped;            /* [n_rows, widest input] with dropout */
} sl_products_backward;

enum { SL_TILE_FLOATS = 1 << 18, SL_TILE_TOKENS = 128 };

/* y = w x (+ lora): dx [n, columns] += dy [n, rows] w, and the adapter's part; its gradients are added to grad. x: the inputs, for
 * the adapter's gradients; y: what came out, with bias, for DoRA's (else NULL). lora, grad may be NULL. */
void sl_product_backward(const sl_products_backward *b, const sl_product_place *place, const sl_lora *lora, const sl_lora_grad *grad, int n,
                         const float *x, size_t x_stride, const float *y, size_t y_stride, const float *dy, size_t dy_stride, float *dx,
                         size_t dx_stride);

/* One sequence: rows [first, first + length) of a batch are its positions from `prefix` on. Its first `prefix` positions, 0 for most,
 * are those of the sequence before it that has no prefix: what several sequences begin with is computed once. */
typedef struct sl_sequence {
    int first, length, prefix;
} sl_sequence;

/* Attention and what brings q, k and v into place: from qkv [n, width] as the products gave them, out and d_out [n, n_heads * head_dim]
 * to d_qkv [n, width]. False: out of memory. Source: Dao et al. 2022, arXiv 2205.14135 (tiled backward). */
bool sl_attention_backward(const sl_model *model, const sl_blas *blas, int layer, const sl_sequence *sequences, int n_sequences,
                           const float *qkv, const float *out, const float *d_out, float *d_qkv);

#endif
