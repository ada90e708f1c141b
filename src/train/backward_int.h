/* What backward.c and its parts (backward_experts.c, loss.c) share. */
#ifndef SL_TRAIN_BACKWARD_INT_H
#define SL_TRAIN_BACKWARD_INT_H

#include "train/backward.h"

struct sl_backward {
    const sl_model *model;
    sl_adapter *adapter;
    sl_adapters set;          /* the adapter alone, weight 1 */
    sl_products_backward products;
    sl_product_place *places; /* [n_places] all products */
    int32_t *place_of;        /* [n_layers + 1, SL_SLOT_COUNT, experts] index plus 1 */
    size_t n_places;
    sl_lora_grad *grads;      /* [adapter->n] into `sums` */
    float *sums;              /* [n_sums] all gradients */
    size_t n_sums;
    uint64_t *keys;           /* [n_rows] of the batch's tokens, [n_rows] more of one expert's */
    int n_rows;
    float *stream;            /* [n_rows, n_embd] the stream before a part of a block */
    float *y, *dy;            /* [n_rows, widest of n_embd, n_heads * head_dim] */
    float *qkv, *d_qkv;       /* [n_rows, qkv width] */
    float *hidden, *d_hidden; /* [n_rows, 2 widest feed-forward part] */
    float *h, *dh;            /* [n_rows, widest feed-forward part] */
    float *delta, *d_delta;   /* [n_rows, n_embd] */
    void *blocks;             /* rounded activations; NULL in exact arithmetic */
    int32_t *routes;          /* [4, n_rows * n_experts_used], with experts */
    float *route_weights;     /* [3, n_rows * n_experts_used], and router rows [2, n_rows, n_experts] behind them */
    float *gather;            /* [3, n_rows, n_embd], with experts */
    float *logits;            /* [logit_rows, n_vocab] */
    float *capped;            /* [threads, n_vocab] a row of logits as it was, where they are capped */
    int logit_rows;
    /* of the run under way */
    const sl_tape *tape;
    int n, layer;
    const sl_block *block;
};

const sl_product_place *sl_backward_place(const sl_backward *b, int layer, sl_slot slot, int expert); /* NULL: none */
const sl_lora *sl_backward_lora(const sl_backward *b, const sl_product_place *place, const sl_lora_grad **grad);
/* sl_product_backward of a slot of the layer, with its adapter. A slot without a product is passed over. */
void sl_backward_product(sl_backward *b, sl_slot slot, int expert, int n, const float *x, size_t x_stride, const float *y, size_t y_stride,
                         const float *dy, size_t dy_stride, float *dx, size_t dx_stride);
/* A product computed again, as the forward did. */
void sl_backward_forward(sl_backward *b, sl_slot slot, int expert, int n, const float *x, size_t x_stride, float *y, size_t y_stride);
/* Rows through norm, or norm's gradient added: over the pool. */
void sl_backward_norm(sl_backward *b, const float *x, const float *weight, const float *bias, int n, float *y);
void sl_backward_norm_grad(sl_backward *b, const float *x, const float *weight, const float *dy, int n, float *dx);
void sl_backward_activation(sl_backward *b, int n, int n_ff);

/* The routed and the shared expert: b->stream is the stream before, dx [n, n_embd] the gradient behind; dy gets that of the
 * normalised input b->y. backward_experts.c */
void sl_backward_experts(sl_backward *b, const float *dx);

#endif
