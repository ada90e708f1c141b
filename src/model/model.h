/* The network: configuration read from a file, the family that says what it means, weights bound to their roles, the
 * KV cache, and the forward pass. */
#ifndef SL_MODEL_MODEL_H
#define SL_MODEL_MODEL_H

#include "base/arena.h"
#include "base/pool.h"
#include "format/checkpoint.h"
#include "format/gguf.h"
#include "model/config.h"
#include "tensor/ops.h"
#include "tensor/pack.h"
#include "text/template.h"
#include "text/tokenizer.h"

/* A model with all that came in its file. Immutable after loading. */
typedef struct sl_model sl_model;
struct sl_model {
    char *path;
    sl_gguf *gguf;             /* exactly one of gguf, checkpoint, or neither for a bare tokenizer.json */
    sl_checkpoint *checkpoint;
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
    struct sl_weights *weights; /* bound tensors per block (weights.h); NULL with vocab_only */
    sl_arena arena;            /* strings, descriptors, small converted tensors */
};

sllm_status sl_model_load(const char *path, const sllm_model_params *params, sl_model **model, sllm_error *error);
void sl_model_free(sl_model *model);

/* The keys and values of one timeline, with its tokens. */
typedef struct sl_kv sl_kv;
sllm_status sl_kv_new(const sl_model *model, int n_ctx, sl_kv **kv, sllm_error *error);
void sl_kv_free(sl_kv *kv);
int sl_kv_length(const sl_kv *kv);
int sl_kv_capacity(const sl_kv *kv);
const int32_t *sl_kv_ids(const sl_kv *kv); /* [length] */
void sl_kv_truncate(sl_kv *kv, int n);     /* keeps the first n positions; n <= length */
/* Would the positions held stay as they are when they grow to n, or belong to another rotary regime (rope.h)? */
bool sl_kv_survives(const sl_kv *kv, const sl_config *config, int n);
uint64_t sl_kv_bytes(const sl_config *config, int n_ctx, sl_kv_type type); /* what sl_kv_new allocates */

/* Scratch for forwards; belongs to one thread at a time. */
typedef struct sl_work sl_work;
sllm_status sl_work_new(const sl_model *model, int n_ctx, sl_work **work, sllm_error *error);
void sl_work_free(sl_work *work);
/* What sl_work_new allocates for a model whose pool has n_threads. */
uint64_t sl_work_bytes(const sl_config *config, int n_ctx, int n_threads, bool exact);

/* What a forward is asked for. */
typedef struct sl_forward_params {
    float *logits;      /* all_logits: [n, n_vocab], else [n_vocab] of the last token; NULL: none */
    bool all_logits;
    /* Sees the residual stream x [n, n_embd] before block 0 (layer -1) and after each block. May be NULL. */
    void (*tap)(void *user, int layer, int first_position, int n, const float *x);
    bool (*is_cancelled)(void *user); /* asked between chunks; may be NULL */
    void *user;
} sl_forward_params;

/* Appends ids [n] to the timeline, in chunks, and computes. Ids must be in the vocabulary (SLLM_ERROR_ARGUMENT) and fit
 * (SLLM_ERROR_CONTEXT); nothing changes then. After SLLM_ERROR_CANCELLED the kv holds the chunks that were finished.
 * Where the rotary regime depends on the whole length (longrope) and changes, earlier positions are recomputed. */
sllm_status sl_forward(const sl_model *model, sl_work *work, sl_kv *kv, const int32_t *ids, int n,
                       const sl_forward_params *params, sllm_error *error);

#endif
