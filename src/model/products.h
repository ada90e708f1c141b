/* The matrix products of a model, one by one, whatever the file's form: what an adapter, a trainer or a merge speaks of. */
#ifndef SL_MODEL_PRODUCTS_H
#define SL_MODEL_PRODUCTS_H

#include "model/model.h"
#include "model/weights.h"

/* y = w x + bias. The name that checkpoints give it is sl_weights_name(family->names, slot, layer, expert, ...). */
typedef struct sl_product_place {
    sl_slot slot;      /* Q, K, V or QKV where fused; GATE, UP or GATE_UP; ...; OUTPUT (layer n_layers) */
    int layer, expert; /* expert 0 where there are none */
    sl_tensor w;       /* [rows, columns]; of an expert in a stack its part, without packed copies */
    const float *bias; /* [rows] or NULL */
} sl_product_place;

/* Calls visit for each product of the blocks, in the order of computation, then for the output matrix. Routers are not among them.
 * False from it ends the visits. */
void sl_products_each(const sl_model *model, bool (*visit)(void *user, const sl_product_place *place), void *user);

/* The row of the checkpoint's matrix that stands at row r of the model's: llama-type GGUF files keep the rows of q and k in the order
 * of rotated neighbours. */
int64_t sl_product_source_row(const sl_model *model, const sl_product_place *place, int64_t r);

/* Row r widened to f32: out [columns]. */
void sl_product_row(const sl_product_place *place, int64_t r, float *out);

#endif
