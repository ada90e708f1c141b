/* A GGUF file as a checkpoint folder: config.json, safetensors, tokenizer and template, as transformers read them. The way
 * back from convert.h. */
#ifndef SL_QUANT_EXPORT_H
#define SL_QUANT_EXPORT_H

#include "base/arena.h"
#include "base/buffer.h"
#include "model/model.h"
#include "model/weights.h"

typedef struct sl_export_params {
    sl_type type;         /* of all tensors: F32, F16, BF16; SL_TYPE_COUNT: the source's matrices', BF16 where those are quantised */
    bool requantise;      /* a source that is quantised already may be widened */
    bool allow_nonfinite; /* NaN and infinities become 0 in place of being refused */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* bytes; false cancels; or NULL */
    void *user;
} sl_export_params;

typedef struct sl_export_result {
    uint64_t bytes_in, bytes_out; /* of the file; of the folder's tensors */
    size_t n_tensors, n_requantised;
    uint64_t n_nonfinite;
    sl_buffer warnings;           /* lines; the caller frees */
} sl_export_result;

/* model: loaded from the file with its weights, not `exact` where it has a tokenizer to write. out: a folder that does not
 * exist or is empty; it appears when it is complete. SLLM_ERROR_ARGUMENT: a source that is quantised, without `requantise`.
 * SLLM_ERROR_UNSUPPORTED: a configuration or tokenizer that cannot be said. */
sllm_status sl_export_folder(const sl_model *model, const char *out, const sl_export_params *params, sl_export_result *result,
                             sllm_error *error);

/* ---------------------------------------------------------------- its parts */

enum { SL_EXPORT_SOURCES = 3 };

/* One tensor to be written: rows of up to three matrices one after the other, or a vector. */
typedef struct sl_export_item {
    sl_tensor out;                        /* name, type and shape */
    sl_tensor matrices[SL_EXPORT_SOURCES]; /* [n_matrices] rows of them; n_matrices 0: a vector */
    int n_matrices;
    const float *vectors[SL_EXPORT_SOURCES]; /* f32 values, of lengths: */
    int64_t lengths[SL_EXPORT_SOURCES];
    int n_vectors;
    float less;                           /* subtracted from a vector's values (gemma's norms) */
    int heads[SL_EXPORT_SOURCES], rotated; /* > 0: rows of the source stand in the order of rotated neighbours */
    bool turned;                          /* [in, out] (GPT-2) */
} sl_export_item;

typedef struct sl_export_list {
    sl_export_item *items;
    size_t n, capacity;
    sl_arena arena;
    bool failed;                          /* out of memory */
} sl_export_list;

/* The family that the folder is of: the model's, or Mistral (Ministral) where a file of Llama's architecture has windows in all
 * (some) layers. */
const sl_family *sl_export_family(const sl_config *config);
/* Every tensor of the folder; their type, and with it their sizes, is set afterwards. */
sllm_status sl_export_tensors(const sl_model *model, sl_export_list *list, sllm_error *error);
void sl_export_list_set_type(sl_export_list *list, sl_type type);
void sl_export_list_free(sl_export_list *list);
/* Row `r` of a source's matrix that becomes row `r` of the output's: (j, j + half) come from (2j, 2j + 1). */
int64_t sl_export_row(int heads, int rotated, int64_t r, int64_t n_rows);

/* config.json's text. What it says is read back and compared; SLLM_ERROR_UNSUPPORTED names what cannot be said. */
sllm_status sl_export_config(const sl_model *model, sl_type type, sl_buffer *out, sllm_error *error);

#endif
