/* The network: configuration read from a file, the family that says what it means, weights bound to their roles, the
 * KV cache, and the forward pass. */
#ifndef SL_MODEL_MODEL_H
#define SL_MODEL_MODEL_H

#include "base/arena.h"
#include "base/pool.h"
#include "format/checkpoint.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/families.h"
#include "tensor/ops.h"
#include "tensor/pack.h"
#include "text/template.h"
#include "text/tokenizer.h"

typedef struct sl_adapters sl_adapters; /* adapter.h */

/* A model with all that came in its file. Immutable after loading, but for the adapters, which are set before anything computes. */
typedef struct sl_model sl_model;
struct sl_model {
    char *path;
    sl_gguf *gguf;             /* exactly one of gguf, checkpoint, or neither for a bare tokenizer.json */
    sl_checkpoint *checkpoint;
    const sl_tensor *joined;   /* [n_joined] all tensors, where others had quantised them (packed.h); NULL: the file's own */
    size_t n_joined;
    sl_config config;
    sl_tokenizer *tokenizer;   /* NULL: the folder has none (golden test models); text functions then say so */
    sl_template *chat_template; /* NULL: none in the file. */
    char *chat_template_error; /* the compile error of a template that could not be compiled: reported on first use */
    char *chat_template_source;
    size_t chat_template_length;
    int32_t *end_ids;          /* config's and generation_config's eos ids, and the tokenizer's */
    size_t n_end_ids;
    int32_t *unused_ids;       /* ids whose logits are always the lowest finite float; NULL: none */
    size_t n_unused_ids;
    bool exact;
    sl_pool *pool;
    sl_packer *packer;         /* packed copies of the quantised matrices; NULL in exact arithmetic */
    const sl_adapters *adapters; /* what new timelines are computed with; NULL: nothing. Borrowed */
    sl_adapters *own_adapters; /* those that the model frees itself; NULL: none */
    int adapter_rank;          /* the largest that a timeline may bring: sl_work_new sizes its scratch by it */
    struct sl_weights *weights; /* bound tensors per block (weights.h); NULL with vocab_only */
    sl_arena arena;            /* strings, descriptors, small converted tensors */
};

sllm_status sl_model_load(const char *path, const sllm_model_params *params, sl_model **model, sllm_error *error);
void sl_model_free(sl_model *model);

/* ---------------------------------------------------------------- keys and values */

/* How a model keeps them: what is asked for, or f32 in exact arithmetic and where no weight is narrower, f16 otherwise.
 * SLLM_ERROR_ARGUMENT when heads of this size cannot be kept so. */
sllm_status sl_kv_type_choose(const sl_config *config, sllm_kv_type asked, bool exact, bool only_f32_weights,
                              sl_kv_type *type, sllm_error *error);

/* Memory for keys and values in pages of SL_PAGE positions, each of all layers. One thread at a time. The memory is
 * reserved at once and touched as pages are used. */
typedef struct sl_kv_pool sl_kv_pool;
sllm_status sl_kv_pool_new(const sl_model *model, sl_kv_type type, int n_pages, sl_kv_pool **pool, sllm_error *error);
void sl_kv_pool_free(sl_kv_pool *pool); /* all its timelines must be freed first */
int sl_kv_pool_unused(const sl_kv_pool *pool); /* pages that can still be taken */
uint64_t sl_kv_pool_bytes(const sl_config *config, sl_kv_type type, int n_pages); /* what sl_kv_pool_new allocates */

/* One timeline: its tokens, and the pages that hold their keys and values. Pages are taken as it grows and shared by
 * reference count; one that is shared is copied before it is written. The pool must outlive it. */
typedef struct sl_kv sl_kv;
sllm_status sl_kv_new(sl_kv_pool *pool, int n_ctx, sl_kv **kv, sllm_error *error);
void sl_kv_free(sl_kv *kv);
int sl_kv_length(const sl_kv *kv);
int sl_kv_capacity(const sl_kv *kv);
const int32_t *sl_kv_ids(const sl_kv *kv); /* [length] */
void sl_kv_truncate(sl_kv *kv, int n);     /* keeps the first n positions, n <= length; gives back the pages beyond */
/* Makes `to`, which must be empty and of the same pool, hold the first n positions of `from`: whole pages are shared, a
 * part of a page is copied. SLLM_ERROR_MEMORY when no page is unused, SLLM_ERROR_CONTEXT when n does not fit; `to` is
 * still empty then. */
sllm_status sl_kv_fork(const sl_kv *from, int n, sl_kv *to, sllm_error *error);
/* Pages that appending n positions will take from the pool, at most. */
int sl_kv_pages_needed(const sl_kv *kv, int n);
/* Pages that timelines [n] of one pool hold and no other: those that come back to it when all of them are freed. */
int sl_kv_pages_held(const sl_kv *const *timelines, int n);
/* Would the positions held stay as they are when they grow to n, or belong to another rotary regime (rope.h)? */
bool sl_kv_survives(const sl_kv *kv, const sl_config *config, int n);
/* What a timeline of n_ctx positions and a pool of its own allocate. */
uint64_t sl_kv_bytes(const sl_config *config, int n_ctx, sl_kv_type type);

/* ---------------------------------------------------------------- computing */

/* Scratch for forwards; belongs to one thread at a time. */
typedef struct sl_work sl_work;
sllm_status sl_work_new(const sl_model *model, sl_work **work, sllm_error *error);
void sl_work_free(sl_work *work);
/* What sl_work_new allocates for a model whose pool has n_threads. */
uint64_t sl_work_bytes(const sl_config *config, int n_threads, bool exact);

/* What of a block a backward pass cannot compute again without repeating its products. */
typedef enum sl_tape_point {
    SL_TAPE_BLOCK,      /* [n_embd] the residual stream before the block */
    SL_TAPE_QKV,        /* [(n_heads + 2 n_kv_heads) * head_dim] q, k and v as the products gave them */
    SL_TAPE_ATTENTION,  /* [n_heads * head_dim] attention's output */
    SL_TAPE_ATTN_DELTA, /* [n_embd] its product, before it joins the stream */
    SL_TAPE_MIDDLE,     /* [n_embd] the residual stream before the feed-forward part */
    SL_TAPE_HIDDEN,     /* [2 n_ff], [n_ff] where not gated: gate and up before the activation; plain feed-forward parts only */
    SL_TAPE_FFN_DELTA,  /* [n_embd] the down product, before it joins the stream; plain feed-forward parts only */
    SL_TAPE_END,        /* [n_embd] the residual stream behind the last block (layer n_layers) */
    SL_TAPE_POINTS
} sl_tape_point;

/* What a forward is asked for. */
typedef struct sl_forward_params {
    float *logits;      /* NULL: none. sl_forward: all_logits [n, n_vocab], else [n_vocab] of the last token;
                         * sl_forward_batch: [sum of n_logits, n_vocab], in the order of parts */
    bool all_logits;    /* sl_forward only */
    /* Sees the residual stream x [n, n_embd] before block 0 (layer -1) and after each block, once for each timeline of
     * a chunk. May be NULL. */
    void (*tap)(void *user, int layer, int first_position, int n, const float *x);
    /* Sees the inputs of products before they are rounded: x [n, width], `stride` floats apart, of block `layer` (-1: the
     * output matrix) and, where `expert` is not -1, of that expert. Products that share their inputs come as one: QKV for
     * q, k and v, UP for gate and up. OUTPUT comes for the positions whose logits are wanted; from sl_forward without
     * logits, for all: the norm is computed, the product is not. May be NULL. */
    void (*observe)(void *user, sl_slot slot, int layer, int expert, const float *x, int64_t n, int64_t width,
                    size_t stride);
    /* Keeps what a backward pass will need: rows [n, width], `stride` floats apart, of a chunk's tokens, at each point of block
     * `layer`; SL_TAPE_END comes once for each chunk, behind the last block. May be NULL. */
    void (*record)(void *user, sl_tape_point point, int layer, const float *rows, int n, size_t width, size_t stride);
    /* Not NULL: only block `block` is computed, from the residual stream x [n, n_embd] that is given here and into the
     * same; block -1: only the embedding, into it. sl_forward only, an empty timeline, no logits. */
    float *stream;
    int block;
    bool (*is_cancelled)(void *user); /* asked between chunks and between their blocks; may be NULL */
    void *user;
} sl_forward_params;

/* One sequence's share of a forward. */
typedef struct sl_part {
    sl_kv *kv;
    const int32_t *ids; /* [n], n >= 1: appended to the timeline */
    int n;
    int n_logits;       /* of how many of them, the last ones, the logits are wanted: 0 to n */
} sl_part;

/* Computes all parts together, rows of all sequences mixed in chunks. The timelines must be of one pool, each in one
 * part only. What a sequence computes does not depend on the others, nor on chunks or threads, bit for bit. Ids must be
 * in the vocabulary (SLLM_ERROR_ARGUMENT), fit the context (SLLM_ERROR_CONTEXT) and find pages (SLLM_ERROR_MEMORY);
 * nothing changes otherwise. After SLLM_ERROR_CANCELLED each timeline holds what was finished. Where the rotary regime
 * depends on the whole length (longrope) and changes, earlier positions are computed again. */
sllm_status sl_forward_batch(const sl_model *model, sl_work *work, const sl_part *parts, int n_parts,
                             const sl_forward_params *params, sllm_error *error);
/* The same for one timeline. */
sllm_status sl_forward(const sl_model *model, sl_work *work, sl_kv *kv, const int32_t *ids, int n,
                       const sl_forward_params *params, sllm_error *error);

#endif
