/* A checkpoint folder written again with its blocks' matrices in 4 or 8 bits, as bitsandbytes, GPTQ or AWQ lay them out:
 * what transformers and the engines of the Python stack read. The other files of the folder (not subfolders, hidden files
 * and weights in other forms) and its other tensors are copied. */
#ifndef SL_QUANT_FOLDER_H
#define SL_QUANT_FOLDER_H

#include "model/model.h"
#include "quant/solve.h"

typedef enum sl_folder_format {
    SL_FOLDER_NF4,  /* bitsandbytes: 64 values to a block, along the flat matrix */
    SL_FOLDER_FP4,
    SL_FOLDER_GPTQ, /* 4 or 8 bits, symmetric, "gptq" layout */
    SL_FOLDER_AWQ   /* 4 bits with zeros, "gemm" layout */
} sl_folder_format;

typedef struct sl_folder_params {
    sl_folder_format format;
    bool double_quant;      /* bitsandbytes: the largest values of blocks in 8 bits too */
    int bits;               /* GPTQ: 4 or 8 */
    int64_t group;          /* GPTQ, AWQ: columns that share a scale */
    sl_method method;       /* GPTQ, AWQ */
    bool act_order;
    const int32_t *ids;     /* [n_ids] text for the method */
    size_t n_ids;
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* bytes or tokens; false cancels */
    void *user;
} sl_folder_params;

typedef struct sl_folder_result {
    uint64_t bytes_in, bytes_out; /* of tensors */
    size_t n_quantised, n_copied; /* tensors */
    size_t n_experts_kept;        /* of the copied: experts' matrices, which bitsandbytes has no form for */
    sl_solve_counts solved;       /* with a method */
} sl_folder_result;

/* model: loaded from a folder of float weights. out: a folder that does not exist, or is empty; it appears when it is
 * complete. SLLM_ERROR_ARGUMENT: rows that are no multiple of the group, weights that are quantised already, `out` is
 * taken. SLLM_ERROR_UNSUPPORTED: a family whose matrices stand the other way round (GPT-2). SLLM_ERROR_FORMAT: a weight
 * that is not finite. */
sllm_status sl_quantise_folder(sl_model *model, const char *out, const sl_folder_params *params, sl_folder_result *result,
                               sllm_error *error);

#endif
