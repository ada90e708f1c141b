/* A GGUF file written again with other element types: which type each tensor takes (plan), and the writing, tensor by
 * tensor, by all threads, in bounded memory. */
#ifndef SL_QUANT_QUANTISE_H
#define SL_QUANT_QUANTISE_H

#include "base/arena.h"
#include "base/buffer.h"
#include "base/pool.h"
#include "format/gguf_write.h"
#include "quant/importance.h"
#include "quant/mix.h"
#include "quant/solve.h"

/* --tensor PATTERN=TYPE. The pattern is a shell's ("blk.*.ffn_down*"), matched against the whole name, with or without
 * ".weight". */
typedef struct sl_type_rule {
    const char *pattern;
    sl_type type;
} sl_type_rule;

typedef struct sl_quantise_params {
    const sl_mix *mix;
    const sl_type_rule *rules; /* [n_rules], the first that matches counts, before the mix */
    size_t n_rules;
    bool keep_output;          /* the output matrix (the embedding where tied) stays as it is */
    bool pure;                 /* every matrix takes the mix's base type */
    bool requantise;           /* tensors that are quantised already may be quantised again */
    bool allow_nonfinite;      /* NaN and infinities become 0 in place of being refused */
    const sl_importance *importance; /* NULL: none */
    sl_method method;                /* GPTQ and AWQ: `solve` is asked for the tensors of blocks, which come in order then */
    sl_solve *solve;                 /* NULL with SL_METHOD_ROUND */
    uint64_t split_bytes;            /* 0: one file */
    const sl_gguf_claim *claim;      /* of the file to be written */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* false cancels */
    void *user;
} sl_quantise_params;

typedef struct sl_quantise_item {
    const sl_tensor *source;
    sl_role role;
    sl_type wanted; /* before the shape was looked at */
    sl_type type;   /* what is written */
    bool changes;   /* otherwise the bytes are copied */
    bool is_fixed;  /* by a rule: no search gives it another type */
} sl_quantise_item;

typedef struct sl_quantise_plan {
    const sl_gguf *source;
    const char *path;        /* of the source */
    bool was_quantised;      /* by others, before its matrices were widened (convert.h) */
    sl_mix_model model;
    sl_quantise_item *items; /* [n], in the file's order; with a method, what belongs to no block first, then block by block */
    size_t n;
    sl_arena arena;
} sl_quantise_plan;

/* Chooses the types. SLLM_ERROR_ARGUMENT: a rule that matches no tensor, or whose type the shape cannot hold, or that gives a
 * vector a type; a file that is quantised already without `requantise` (the message names the first tensor and how many there
 * are); importance of another model. The plan borrows the file. */
sllm_status sl_quantise_plan_new(const sl_gguf *source, const char *path, const sl_quantise_params *params,
                                 sl_quantise_plan *plan, sllm_error *error);
void sl_quantise_plan_free(sl_quantise_plan *plan);
/* Gives item i another type (fallback included) once the search has chosen it. */
void sl_quantise_plan_set(sl_quantise_plan *plan, size_t i, sl_type type);
/* What sl_solve_params.target asks of a plan (user). */
bool sl_quantise_plan_target(void *plan, const void *data, sl_target *target);
/* Quantised before, in this form or another. */
bool sl_quantise_was_quantised(const sl_quantise_plan *plan, const sl_quantise_item *item);
uint64_t sl_quantise_item_bytes(const sl_quantise_item *item); /* as written */
uint64_t sl_quantise_plan_bytes(const sl_quantise_plan *plan); /* of all tensors as written */

/* What came of it. */
typedef struct sl_quantise_result {
    uint64_t bytes_in, bytes_out; /* of the files */
    uint64_t n_weights;           /* of tensors that were quantised or kept as matrices */
    uint64_t n_nonfinite;         /* values that were made 0 */
    size_t n_requantised;         /* tensors quantised from a quantised form */
    sl_solve_counts solved;       /* with a method */
    size_t n_unweighted;          /* tensors quantised without importance though there is some for others */
    const char *unweighted;       /* the name of the first; the source's */
    size_t n_resumed;             /* tensors that an earlier run had finished */
} sl_quantise_result;

/* SLLM_ERROR_FORMAT names the tensor and element of the first value that is not finite. */
sllm_status sl_quantise_check_finite(const sl_quantise_plan *plan, sl_pool *pool, sllm_error *error);

/* Writes the file. SLLM_ERROR_FORMAT names the tensor and element of a value that is not finite; SLLM_ERROR_CANCELLED and
 * a full disk leave the unfinished file for a later run with the same arguments. */
sllm_status sl_quantise_write(const sl_quantise_plan *plan, const sl_quantise_params *params, const char *recipe,
                              const char *out_path, sl_pool *pool, sl_quantise_result *result, sllm_error *error);

#endif
