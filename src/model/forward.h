/* The inside of the forward pass: scratch, and what its parts (forward.c, attention.c, experts.c) hand each other. */
#ifndef SL_MODEL_FORWARD_H
#define SL_MODEL_FORWARD_H

#include "model/kv.h"
#include "model/model.h"
#include "model/operators.h"
#include "model/weights.h"

enum { SL_CHUNK = 256 }; /* tokens computed together at most; results do not depend on it */

struct sl_work {
    int chunk;      /* tokens a chunk; lowering it is allowed at any time (tests do) */
    int n_threads;  /* of the model's pool: one row of scratch each */
    int n_ctx;
    float *x;       /* [chunk, n_embd] residual stream */
    float *y;       /* [chunk, max(n_embd, n_heads * head_dim)] normalised input, then attention's output */
    float *qkv;     /* [chunk, (n_heads + 2 n_kv_heads) * head_dim] */
    float *hidden;  /* [chunk, 2 n_ff] gate and up; the activated values replace the front of each row */
    float *delta;   /* [chunk, n_embd] what is about to join the residual stream */
    void *blocks;   /* rounded activations; NULL in exact arithmetic */
    float *gather;  /* [2, chunk, n_embd] rows of one expert, in and out */
    float *router;  /* [chunk, n_experts] */
    int32_t *route_ids;   /* [chunk, n_experts_used] */
    float *route_weights; /* [chunk, n_experts_used] */
    int32_t *route_rows;  /* [2, chunk] tokens of one expert, and which of their routes it is */
    float *scores;  /* [n_threads, n_ctx] */
    float *mix;     /* [n_threads, head_dim] partial sums of block-sparse attention */
    int64_t regime; /* of the frequencies below; -1: none yet */
    float *frequencies[2];   /* [rope_dim / 2] shared, local */
    float frequency_factor[2];
    float *angles[2];        /* [chunk, 2, rope_dim / 2] of the current chunk */
};

/* One chunk on its way through the operator list. */
typedef struct sl_run {
    const sl_model *model;
    const sl_config *config;
    const sl_weights *weights;
    sl_work *work;
    sl_kv *kv;
    sl_arithmetic arithmetic;
    int first, n;                 /* positions [first, first + n) */
    const sl_op *op;
    const sl_block *block;        /* of the current operator's layer */
    const sl_layer_config *layer;
} sl_run;

/* Calls task(run, t) for each token t of the chunk, over the pool when there are several. */
void sl_run_tokens(sl_run *run, void (*task)(const sl_run *run, int t, int thread));

/* The prepared activations of rows [n, width], `stride` floats apart: rounded when `w` asks for it. */
sl_act sl_run_activations(const sl_run *run, const float *rows, int64_t n, int64_t width, size_t stride, bool rounds);
/* Whether products with w round their activations in this run. */
bool sl_run_rounds(const sl_run *run, const sl_tensor *w);
/* hidden [n, 2 * n_ff]: act(gate) * up, or act(up), into the front of each row. */
void sl_run_activate(sl_run *run, int n, int n_ff);

/* Operators that live in files of their own. */
void sl_run_rotate(sl_run *run);  /* attention.c */
void sl_run_attend(sl_run *run);
void sl_run_route(sl_run *run);   /* experts.c */
void sl_run_experts(sl_run *run);
void sl_run_shared(sl_run *run);

#endif
