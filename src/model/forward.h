/* The inside of the forward pass: scratch, and what its parts (forward.c, attention.c, experts.c) hand each other. */
#ifndef SL_MODEL_FORWARD_H
#define SL_MODEL_FORWARD_H

#include "model/kv.h"
#include "model/model.h"
#include "model/operators.h"
#include "model/weights.h"

enum { SL_CHUNK = 512 }; /* tokens computed together at most; results do not depend on it */

/* Rows [row, row + n) of a chunk: positions [first, first + n) of one timeline. */
typedef struct sl_segment {
    sl_kv *kv;
    int row, n, first;
    int slot; /* of sl_work's frequencies */
} sl_segment;

/* The rotary frequencies of one regime. Longrope has two: a chunk may mix timelines of both. */
typedef struct sl_frequencies {
    int64_t regime;    /* -1: none yet */
    float *values[2];  /* [rope_dim / 2] shared, local */
    float factor[2];
} sl_frequencies;

/* Queries that attention takes at once: rows [first, first + n) of a segment, counted token by token and, in a token,
 * over the heads of a key/value head. */
typedef struct sl_tile {
    int segment, first, n;
} sl_tile;

enum {
    SL_TILE_ROWS = 48,  /* of a tile at most */
    SL_SPLIT_SPANS = 16 /* spans of a long timeline that one query's heads may be split over at once */
};

struct sl_work {
    int chunk;      /* tokens a chunk; lowering it is allowed at any time (tests do) */
    int n_threads;  /* of the model's pool: one row of scratch each */
    float *x;       /* [chunk, n_embd] residual stream */
    float *y;       /* [chunk, max(n_embd, n_heads * head_dim)] normalised input, then attention's output */
    float *qkv;     /* [chunk, (n_heads + 2 n_kv_heads) * head_dim] */
    float *hidden;  /* [chunk, 2 n_ff] gate and up; the activated values replace the front of each row */
    float *delta;   /* [chunk, n_embd] what is about to join the residual stream */
    void *blocks;   /* rounded activations; NULL in exact arithmetic */
    float *gather;  /* [2, chunk, n_embd] rows of one expert, in and out */
    float *router;  /* [chunk, n_experts] */
    float *low;     /* [chunk, model->adapter_rank] */
    int32_t *route_ids;   /* [chunk, n_experts_used] */
    float *route_weights; /* [chunk, n_experts_used] */
    int32_t *route_rows;  /* [2, chunk] tokens of one expert, and which of their routes it is */
    sl_segment *segments; /* [chunk] of the current chunk */
    int32_t *segment_of;  /* [chunk] row -> segment */
    int32_t *wanted;      /* [chunk] rows whose logits are asked for */
    sl_tile *pieces;      /* [chunk] tokens of one page: rows [first, first + n) of the chunk */
    sl_tile *tiles;       /* [chunk * (heads a group / SL_TILE_ROWS + 1)] */
    float *states;        /* [SL_SPLIT_SPANS * n_heads, sl_attend_width] of split timelines */
    float *attend;        /* [n_threads, ...] a tile's states, and room to widen keys and values */
    sl_frequencies frequencies[2];
    float *angles[2];     /* [chunk, 2, rope_dim / 2] of the current chunk: shared, local */
};

/* One chunk on its way through the operator list. */
typedef struct sl_run {
    const sl_model *model;
    const sl_config *config;
    const sl_weights *weights;
    sl_work *work;
    sl_arithmetic arithmetic;
    int n, n_segments, n_wanted;  /* rows, and what they are (work->segments, wanted) */
    int n_tiles, n_pieces;
    bool rotates_late;            /* in SL_OP_ATTEND (attention.c) */
    const sl_forward_params *params;
    const sl_op *op;
    const sl_block *block;        /* of the current operator's layer */
    const sl_layer_config *layer;
} sl_run;

static inline const sl_segment *sl_segment_of(const sl_run *run, int t) {
    return &run->work->segments[run->work->segment_of[t]];
}
static inline int sl_position(const sl_segment *segment, int t) { return segment->first + t - segment->row; }

/* Floats of one thread's `attend`. */
size_t sl_attend_scratch(const sl_config *config);
/* Cuts the segments into work->tiles and pieces. */
void sl_run_tiles(sl_run *run);

/* Calls task(run, t) for each token t of the chunk, over the pool when there are several. */
void sl_run_tokens(sl_run *run, void (*task)(const sl_run *run, int t, int thread));

/* The prepared activations of rows [n, width], `stride` floats apart: rounded when `w` asks for it. */
sl_act sl_run_activations(const sl_run *run, const float *rows, int64_t n, int64_t width, size_t stride, bool rounds);
/* Whether products with w round their activations in this run. */
bool sl_run_rounds(const sl_run *run, const sl_tensor *w);
/* hidden [n, 2 * n_ff]: act(gate) * up, or act(up), into the front of each row. */
void sl_run_activate(sl_run *run, int n, int n_ff);

/* Shows x to who asked to see the inputs of products (model.h). */
static inline void sl_run_observe(const sl_run *run, sl_slot slot, int expert, const float *x, int64_t n, int64_t width,
                                  size_t stride) {
    if (run->params->observe)
        run->params->observe(run->params->user, slot, slot == SL_SLOT_OUTPUT ? -1 : run->op->layer, expert, x, n, width,
                             stride);
}

/* What the timelines' adapters (adapter.h) make of y [n], the product of x [n] with the matrix of a slot: rows [n] are rows of the
 * chunk, rising; NULL: 0 .. n - 1. bias as the product added it, or NULL. */
void sl_run_adapt(const sl_run *run, sl_slot slot, int expert, const int32_t *rows, int n, const float *x, size_t x_stride,
                  const float *bias, float *y, size_t y_stride);

static inline void sl_run_record(const sl_run *run, sl_tape_point point, const float *rows, size_t width, size_t stride) {
    if (run->params->record)
        run->params->record(run->params->user, point, point == SL_TAPE_END ? run->config->n_layers : run->op->layer, rows, run->n, width,
                            stride);
}

/* Where a row of the q/k/v product holds head h (k and v: key/value head g), in floats. */
typedef struct sl_places {
    size_t row, q_group, q_head, k, v, kv_group;
    int heads_a_group;
} sl_places;
sl_places sl_places_of(const sl_config *config);
static inline size_t sl_place_of_q(const sl_places *p, int h) {
    return (size_t)(h / p->heads_a_group) * p->q_group + (size_t)(h % p->heads_a_group) * p->q_head;
}
/* Llama 4's scaling of queries by position, which Ministral 3 uses. */
float sl_query_temperature(const sl_config *config, int position);
/* Which positions of a page the query of a head at `position` sees, a bit each. */
uint64_t sl_visible(const sl_config *config, const sl_layer_config *layer, int head, int position, int page);

/* Logits [n, n_vocab] of rows x [n, n_embd] of the residual stream behind the last block, as the forward computes them; y [n, n_embd]:
 * what the output matrix meets. blocks (sl_act_bytes(n, n_embd)) may be NULL in exact arithmetic; low [n, rank of the adapters]. */
void sl_logits_of(const sl_model *model, const sl_adapters *adapters, const float *x, int n, float *y, void *blocks, float *low, float *out);

/* Operators that live in files of their own. */
void sl_run_rotate(sl_run *run);  /* attention.c */
void sl_run_attend(sl_run *run);
void sl_run_route(sl_run *run);   /* experts.c */
void sl_run_experts(sl_run *run);
void sl_run_shared(sl_run *run);

/* The most probable expert of p [n] not among chosen [n_chosen]; NaN never wins over a number, and the lowest number wins a tie. */
int sl_best_left(const float *p, int n, const int32_t *chosen, int n_chosen);

#endif
