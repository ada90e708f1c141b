/* A model as a list of coarse operators, compiled once from its configuration. The forward pass runs the list, the
 * memory plan sizes it, so that they cannot disagree; a backward pass will walk it in reverse. Residual stream x and
 * the operators' buffers belong to sl_work (forward.h).
 *
 * A block that is not attention (a state-space or recurrent block) is another kind here with its run function in
 * forward.c: the list, not the code around it, says what a block consists of. */
#ifndef SL_MODEL_OPERATORS_H
#define SL_MODEL_OPERATORS_H

#include "model/config.h"

typedef enum sl_op_kind {
    SL_OP_ATTN_NORM, /* y = norm(x), rounded once for the three products */
    SL_OP_QKV,       /* qkv = W y + b */
    SL_OP_ROTATE,    /* head norms and rotary embedding on q and k; k and v into the cache (a single
                        token leaves both to SL_OP_ATTEND, where a head is one item) */
    SL_OP_ATTEND,    /* y = attention(q, cache), rounded */
    SL_OP_ATTN_OUT,  /* x += post_norm(W y + b) */
    SL_OP_FFN_NORM,  /* y = norm(x), rounded */
    SL_OP_GATE_UP,   /* h = act(W_gate y) * (W_up y), rounded */
    SL_OP_DOWN,      /* x += post_norm(W h + b) */
    SL_OP_ROUTE,     /* the experts of each token and their weights */
    SL_OP_EXPERTS,   /* x += sum of weight * expert(y), experts in order */
    SL_OP_SHARED,    /* x += sigmoid(w . y) * shared expert(y) */
    SL_OP_COUNT
} sl_op_kind;

typedef struct sl_op {
    sl_op_kind kind;
    int layer;
    bool ends_block; /* x is complete after this operator */
} sl_op;

/* The list into ops [limit]; returns its length, which may exceed limit (call with NULL, 0 to size it). */
size_t sl_ops_compile(const sl_config *config, sl_op *ops, size_t limit);

/* Buffers the list needs for one chunk of n tokens, in floats or bytes: the largest any operator asks for. */
typedef struct sl_op_sizes {
    size_t x;       /* floats: [n, n_embd] */
    size_t y;       /* floats: [n, max(n_embd, n_heads * head_dim)] */
    size_t qkv;     /* floats: [n, (n_heads + 2 n_kv_heads) * head_dim] */
    size_t hidden;  /* floats: [n, 2 * widest feed-forward part] */
    size_t delta;   /* floats: [n, n_embd] */
    size_t blocks;  /* bytes: rounded activations of the widest input */
    size_t gather;  /* floats: [2, n, n_embd], rows of one expert in and out; 0 without experts */
    size_t routes;  /* tokens x experts used; 0 without experts */
    size_t router;  /* floats: [n, n_experts] */
} sl_op_sizes;

void sl_ops_sizes(const sl_config *config, int n, bool exact, sl_op_sizes *sizes);

#endif
