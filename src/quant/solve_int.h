/* What solve.c, which walks the blocks, and the two methods share. */
#ifndef SL_QUANT_SOLVE_INT_H
#define SL_QUANT_SOLVE_INT_H

#include "model/model.h"
#include "model/timeline.h"
#include "model/weights.h"
#include "quant/gptq.h"
#include "quant/gram.h"
#include "quant/solve.h"

typedef struct sl_solve_matrix {
    sl_tensor *bound;    /* the model's, which computes with `half` once the matrix is solved */
    sl_tensor source;    /* [rows, columns] */
    sl_slot slot;        /* of its name: Q, UP, ... */
    sl_slot meets;       /* of the inputs that it shares with others (sl_forward_params.observe) */
    int expert;          /* -1: none */
    sl_solved out;
    float *row_scale;    /* [rows] or NULL: the matrix that is quantised is source * row_scale * column_scale */
    float *column_scale; /* [columns] or NULL */
    uint16_t *half;      /* [rows, columns] f16 of the result, column_scale taken out again where inputs keep theirs */
} sl_solve_matrix;

enum { SL_SOLVE_VECTORS = 16 };

/* Inputs that some matrices share. */
typedef struct sl_solve_meeting {
    sl_slot slot;
    int expert;
    sl_gram gram;
    bool solved, in_pass;
} sl_solve_meeting;

/* A norm or bias that takes a division up: written so, while the model goes on computing without scales. */
typedef struct sl_solve_vector {
    sl_slot slot;
    bool bias;
    float *values;
} sl_solve_vector;

struct sl_solve {
    sl_model *model;
    const sl_blas *blas;
    sl_solve_params params;
    int32_t *ids;             /* [n_chunks, SL_SOLVE_CTX] */
    int n_chunks;
    float *stream;            /* [n_chunks, SL_SOLVE_CTX, n_embd] before block `next` */
    float *rows;              /* [SL_SOLVE_CTX, n_embd]: a chunk that is computed for its statistics only */
    sl_timeline timeline;
    int next;
    sl_solve_matrix *matrices; /* of block next - 1, or of the one being solved */
    int n_matrices;
    sl_solve_meeting *meetings;
    int n_meetings;
    sl_solve_vector vectors[SL_SOLVE_VECTORS];
    int n_vectors;
    struct { sl_expert_matrices *where; sl_expert_matrices before; sl_tensor *list; } stacks[3];
    int n_stacks;
    uint64_t done;            /* tokens times blocks */
    sl_solve_counts counts;
};

/* One matrix, its rows shared out: by the solver, or rounded (gptq NULL), weighted by importance [columns] (NULL: 1). */
sllm_status sl_solve_one(sl_solve *s, sl_solve_matrix *m, const sl_gptq *gptq, const float *importance, sllm_error *error);
/* From here on the model computes with the result. */
sllm_status sl_solve_exchange(sl_solve *s, sl_solve_matrix *m, sllm_error *error);
/* Every matrix that meets these inputs; their sums are complete. */
sllm_status sl_solve_gptq(sl_solve *s, sl_solve_meeting *meets, sllm_error *error);
sllm_status sl_solve_awq(sl_solve *s, int layer, sl_solve_meeting *meets, sllm_error *error);

/* Rows [first, first + n) with their scales, into out [n, columns]. */
void sl_solve_rows(const sl_solve_matrix *m, int64_t first, int64_t n, float *out);

/* Scales [columns] of the inputs that these matrices share, by which their columns are multiplied and the inputs divided,
 * such that the error of their outputs is least: powers from 0 to 1 of the inputs' root mean square are tried. gram:
 * mirrored. tied [columns] or NULL: columns of one number share their scale. False: out of memory.
 * Source: Lin et al. 2023, "AWQ: Activation-aware Weight Quantization". */
bool sl_awq_search(const sl_gram *gram, const sl_blas *blas, sl_pool *pool, sl_solve_matrix *const *matrices, int n_matrices,
                   const int32_t *tied, float *scales);

#endif
