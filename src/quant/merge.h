/* Adapters made a part of a model: a GGUF file whose products are what the live ones compute. */
#ifndef SL_QUANT_MERGE_H
#define SL_QUANT_MERGE_H

#include "format/gguf_write.h"
#include "model/adapter.h"

typedef struct sl_merge_params {
    sl_type type;           /* of the merged matrices: F32, F16, BF16; SL_TYPE_COUNT: as they are stored */
    const char *recipe;     /* what is added to the file's record */
    const sl_gguf_claim *claim; /* of the file to be written */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* bytes; false cancels; or NULL */
    void *user;
} sl_merge_params;

/* model: loaded `exact` from a GGUF file, with what it is computed with (model->adapters). *n_merged: matrices changed.
 * SLLM_ERROR_UNSUPPORTED: a matrix whose type is not written, or a replaced output matrix where the file has none of its own. */
sllm_status sl_merge_write(const sl_model *model, const char *out, const sl_merge_params *params, size_t *n_merged, sllm_error *error);

#endif
