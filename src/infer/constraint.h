/* The constraint seam: what says which tokens may come next. Choices use it first; grammars and schemas follow. */
#ifndef SL_INFER_CONSTRAINT_H
#define SL_INFER_CONSTRAINT_H

#include "sllm.h"
#include "text/tokenizer.h"

typedef struct sl_constraint sl_constraint;
typedef struct sl_constraint_ops {
    /* Sets bit i of mask [(n_vocab + 63) / 64] for every token that may come now. */
    void (*mask)(const sl_constraint *constraint, uint64_t *mask, int32_t n_vocab);
    /* Takes a token in; false when it was not allowed. */
    bool (*accept)(sl_constraint *constraint, int32_t id);
    /* True when the text so far is complete (an end token may come). */
    bool (*is_complete)(const sl_constraint *constraint);
    void (*free)(sl_constraint *constraint);
} sl_constraint_ops;
struct sl_constraint {
    const sl_constraint_ops *ops;
};

#endif
