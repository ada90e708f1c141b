/* Matrices quantised block by block with second-order statistics of real inputs, each block seeing what the quantised
 * blocks before it make of the text: GPTQ, and AWQ's scaling of inputs.
 *
 * The residual stream of the whole text is kept between blocks; a block is computed to gather statistics, its matrices are
 * solved, and it is computed once more with the results. In bounded memory: the stream and the statistics take at most
 * SL_SOLVE_STREAM and SL_SOLVE_GRAMS bytes each (one matrix's statistics at least), whatever the model's size. */
#ifndef SL_QUANT_SOLVE_H
#define SL_QUANT_SOLVE_H

#include "model/model.h"
#include "quant/solved.h"

#define SL_SOLVE_STREAM ((uint64_t)512 << 20)
#define SL_SOLVE_GRAMS ((uint64_t)768 << 20)

typedef enum sl_method { SL_METHOD_ROUND, SL_METHOD_GPTQ, SL_METHOD_AWQ } sl_method;

typedef struct sl_solve_params {
    sl_method method;      /* GPTQ or AWQ */
    bool act_order;        /* GPTQ: columns of large inputs first */
    const int32_t *ids;    /* [n_ids] real text, SL_SOLVE_CTX tokens at least */
    size_t n_ids;
    uint64_t gram_bytes;   /* of statistics at once, one matrix's at least; 0: SL_SOLVE_GRAMS */
    /* What the matrix whose bytes begin at `data` is to become; false: it stays. */
    bool (*target)(void *user, const void *data, sl_target *target);
    void *user;
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* tokens; false cancels; or NULL */
    void *progress_user;
} sl_solve_params;

#define SL_SOLVE_DAMP 0.01f /* GPTQ's damping, of the mean of the diagonal */
enum { SL_SOLVE_CTX = 512 };

typedef struct sl_solve sl_solve;

/* model: its matrices are exchanged while a block is solved and are what they were after sl_solve_free, so nobody else
 * may use it meanwhile. SLLM_ERROR_ARGUMENT: too little text. Later, from sl_solve_block, SLLM_ERROR_FORMAT: the model's
 * inputs are not finite on the text. */
sllm_status sl_solve_new(sl_model *model, const sl_solve_params *params, sl_solve **solve, sllm_error *error);
void sl_solve_free(sl_solve *solve); /* NULL is allowed */

/* How many matrices were done so far, and how. */
typedef struct sl_solve_counts {
    int solved;      /* by the method */
    int unreached;   /* rounded: the text never came to them (experts) */
    int singular;    /* GPTQ, rounded: statistics that have no factor */
    int plain;       /* GPTQ, rounded: their type has no solver; AWQ: nothing before them takes their scales up */
} sl_solve_counts;
sl_solve_counts sl_solve_count(const sl_solve *solve); /* NULL: zeros */

/* Solves block `layer`: all before it are solved first, if they were not. What an earlier block gave is gone then. */
sllm_status sl_solve_block(sl_solve *solve, int layer, sllm_error *error);
/* The result for the matrix whose bytes begin at `data`; NULL: it stays as it was. */
const sl_solved *sl_solve_matrix_of(const sl_solve *solve, const void *data);
/* A norm or bias that takes up scales (AWQ): its new values; NULL: it stays as it was. Norms as they are multiplied with. */
const float *sl_solve_vector_of(const sl_solve *solve, sl_slot slot, bool bias);

#endif
