/* Importance: how large the inputs are that each column of a matrix meets, as a mean of squares over real text. Kept in
 * llama.cpp's imatrix files: GGUF with NAME.in_sum2 and NAME.counts (written and read), and the older binary form
 * (read). */
#ifndef SL_QUANT_IMPORTANCE_H
#define SL_QUANT_IMPORTANCE_H

#include "format/gguf_write.h"
#include "model/model.h"

typedef struct sl_importance sl_importance;

/* Runs the model over ids [n] in chunks of n_ctx, n >= n_ctx; what is left over is not looked at, and where the model
 * adds a BOS it stands in place of each chunk's first token. The text is called `dataset` (may be NULL). on_progress,
 * which may be NULL, counts tokens; false cancels. */
sllm_status sl_importance_collect(const sl_model *model, const int32_t *ids, size_t n, int n_ctx, const char *dataset,
                                  bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total),
                                  void *user, sl_importance **importance, sllm_error *error);
/* SLLM_ERROR_FORMAT: damaged, or values that are negative or not finite. */
sllm_status sl_importance_read(const char *path, sl_importance **importance, sllm_error *error);
sllm_status sl_importance_read_memory(const void *data, size_t size, sl_importance **importance, sllm_error *error);
sllm_status sl_importance_write(const sl_importance *importance, const sl_gguf_claim *claim, sllm_error *error);
void sl_importance_free(sl_importance *importance); /* NULL is allowed */

/* Mean square [n_columns] of what meets the columns of a tensor (its name as in GGUF files), for expert 0 .. n - 1 of a
 * stack, otherwise 0. NULL: unknown tensor, another width, or an expert that the text never reached. */
const float *sl_importance_get(const sl_importance *importance, const char *tensor_name, int expert, int64_t n_columns);

/* The columns that the file knows a tensor with; false: not at all. */
bool sl_importance_columns(const sl_importance *importance, const char *tensor_name, int64_t *n_columns);

#endif
