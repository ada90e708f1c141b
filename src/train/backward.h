/* The backward pass: the operator list walked from its end, on what the tape holds; and the loss that it begins with. */
#ifndef SL_TRAIN_BACKWARD_H
#define SL_TRAIN_BACKWARD_H

#include "train/gradients.h"
#include "train/tape.h"

typedef struct sl_backward sl_backward;

/* adapter: what is trained, the only one of the model's timelines; it and the model outlive this. n_rows: tokens of a batch at most.
 * SLLM_ERROR_UNSUPPORTED: OpenBLAS is not installed; DoRA on the output matrix. */
sllm_status sl_backward_new(const sl_model *model, sl_adapter *adapter, int n_rows, sl_backward **backward, sllm_error *error);
void sl_backward_free(sl_backward *backward); /* NULL is allowed */

/* Gradients so far, of adapter->list[i]; sums until they are cleared. */
const sl_lora_grad *sl_backward_grads(const sl_backward *backward);
void sl_backward_clear(sl_backward *backward);
/* What the forward dropped (NULL: nothing), and the keys [n_rows] of its tokens, for the caller to fill. */
void sl_backward_drop(sl_backward *backward, const sl_dropout *dropout);
uint64_t *sl_backward_keys(sl_backward *backward);

/* The token that follows a row. */
typedef struct sl_label {
    int row;
    int32_t id;
} sl_label;

/* Cross entropy of labels [n], rows rising, each times `scale`; its gradient at the end of the blocks into dx [rows, n_embd], which is
 * cleared first; NULL: the loss alone. The logits are computed for some rows at a time and never exist for all. *loss: the sum, scaled. */
sllm_status sl_backward_loss(sl_backward *backward, const sl_tape *tape, const sl_label *labels, int n, double scale, float *dx, double *loss,
                             sllm_error *error);

/* dx [rows, n_embd]: the gradient behind the last block becomes that of the embeddings; the adapter's are added to the grads.
 * sequences: what the rows are. `visit`, which may be NULL, sees dx behind block `layer` (-1: of the embeddings). */
sllm_status sl_backward_run(sl_backward *backward, const sl_tape *tape, const sl_sequence *sequences, int n_sequences, float *dx,
                            void (*visit)(void *user, int layer, const float *dx, int n), void *user, sllm_error *error);

/* Bytes that sl_backward_new allocates. */
uint64_t sl_backward_bytes(const sl_model *model, const sl_adapter *adapter, int n_rows);

#endif
