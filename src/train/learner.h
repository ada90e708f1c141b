/* A model, an adapter that learns, and what one step of learning takes: forward with its tape, loss, backward. */
#ifndef SL_TRAIN_LEARNER_H
#define SL_TRAIN_LEARNER_H

#include "train/backward.h"

enum { SL_NO_LABEL = -100 }; /* as transformers has it */

/* ids [n], and at each position the id that is to be predicted there (from the positions before it), or SL_NO_LABEL. */
typedef struct sl_example {
    const int32_t *ids, *labels;
    int n;
} sl_example;

typedef struct sl_learner sl_learner;

/* model: its timelines are computed with the adapter from now on, so it must have none yet; both outlive the learner. n_rows: tokens of
 * a micro-batch at most; n_examples: how many may share one. */
sllm_status sl_learner_new(sl_model *model, sl_adapter *adapter, int n_rows, int n_examples, sl_learner **learner, sllm_error *error);
void sl_learner_free(sl_learner *learner); /* the model is as it was before; NULL is allowed */

/* Dropout of what the adapter sees in sl_learner_add from now on; p 0: none. The example `first_key` + i has keys of its own: what is
 * dropped depends on seed and key alone. */
void sl_learner_drop(sl_learner *learner, float p, uint64_t seed, uint64_t first_key);

/* How many positions of an example are labelled: what a loss is divided by. */
int sl_example_labels(const sl_example *example);

/* How many of examples [n], n >= 1, may go into one call: as many as fit its rows. Positions that all of them begin with, and from
 * which nothing is to be predicted, are computed once, forward and backward: the gradients are the same sums. (With dropout those
 * positions lose the same values for all.) */
int sl_learner_fits(const sl_learner *learner, const sl_example *examples, int n);

/* Adds the gradients of examples [n], each labelled position's cross entropy times `scale`; *loss: their sum, scaled. visit as in
 * sl_backward_run. */
sllm_status sl_learner_add(sl_learner *learner, const sl_example *examples, int n, double scale, double *loss,
                           void (*visit)(void *user, int layer, const float *dx, int n), void *user, sllm_error *error);
/* The same sum, without gradients. */
sllm_status sl_learner_loss(sl_learner *learner, const sl_example *examples, int n, double scale, double *loss, sllm_error *error);

sl_backward *sl_learner_backward(sl_learner *learner); /* gradients and their clearing */
const sl_tape *sl_learner_tape(const sl_learner *learner);

#endif
