/* A checkpoint folder as a GGUF file.
 *
 * The source is loaded as for running it, so that every tensor has been bound to its role and its shape checked; what is
 * written is what would be computed with. Rows of q and k are put in the order that GGUF's llama-type rotation wants,
 * experts are stacked, norms and biases are f32. What the format has no standard key for is written under sllm.* and
 * read back by config_gguf.c. */
#ifndef SL_QUANT_CONVERT_H
#define SL_QUANT_CONVERT_H

#include "base/arena.h"
#include "base/buffer.h"
#include "format/gguf_write.h"
#include "model/model.h"

typedef struct sl_convert_params {
    sl_type type;         /* of matrices: F32, F16, BF16; SL_TYPE_COUNT: as in the source */
    const char *pre;      /* pre-tokeniser's name; NULL: found by trial */
    bool allow_nonfinite; /* NaN and infinities become 0 in place of being refused */
    bool requantise;      /* matrices that others have quantised may be widened (to f32 without a type) */
    uint64_t split_bytes; /* 0: one file */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* bytes; false cancels; or NULL */
    void *user;
} sl_convert_params;

typedef struct sl_convert_result {
    uint64_t bytes_in, bytes_out; /* of tensors */
    size_t n_tensors, n_resumed;
    size_t n_requantised;         /* tensors that others had quantised and that are not kept as they were */
    uint64_t n_nonfinite;
    char source_sha256[65];
    sl_buffer warnings;           /* lines; the caller frees */
} sl_convert_result;

/* model: loaded from the folder with its weights. SLLM_ERROR_UNSUPPORTED: a family or a setting that a GGUF file cannot
 * say; the message names it. SLLM_ERROR_ARGUMENT: matrices that others have quantised and that no GGUF type holds exactly,
 * without `requantise`; those that one does hold keep their values. */
sllm_status sl_convert(sl_model *model, const char *recipe, const char *out_path, const sl_convert_params *params,
                       sl_convert_result *result, sllm_error *error);

/* ---------------------------------------------------------------- its parts */

/* One tensor to be written. */
typedef struct sl_convert_item {
    sl_tensor out;               /* name, type and shape */
    const sl_tensor *matrices;   /* [n_matrices] sources of a matrix or a stack; NULL: */
    int n_matrices;
    const float *vector;         /* ... f32 values in memory */
    int heads, rotated;          /* > 0: rows are put in the order of rotated pairs, head by head (of out's rows) */
} sl_convert_item;

typedef struct sl_convert_list {
    sl_convert_item *items;
    size_t n, capacity;
    sl_arena arena;              /* names */
    bool failed;                 /* out of memory */
} sl_convert_list;

/* Every tensor of the model. */
sllm_status sl_convert_tensors(const sl_model *model, sl_type type, sl_convert_list *list, sllm_error *error);
void sl_convert_list_free(sl_convert_list *list);

/* "<architecture>.*", general.* and the chat template. */
sllm_status sl_convert_fields(const sl_model *model, const sl_convert_params *params, sl_gguf_fields *fields,
                              sl_buffer *warnings, sllm_error *error);
/* Whether the written file says the same as the source; otherwise *what names the first setting that differs. */
bool sl_convert_same(const sl_config *source, const sl_config *written, const char **what);

#endif
