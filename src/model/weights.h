/* The tensors of a file bound to their roles. Matrices stay where they are mapped; vectors (norms, biases) are widened
 * to f32 in the model's arena. */
#ifndef SL_MODEL_WEIGHTS_H
#define SL_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "model/model.h"
#include "model/operators.h"
#include "tensor/pack.h"
#include "tensor/tensor.h"

/* The tensors of either format. */
typedef struct sl_tensors {
    const sl_gguf *gguf;              /* exactly one of the two */
    const sl_safetensors *safetensors;
    const sl_tensor *list; /* [n] in place of the file's own, where matrices were joined from parts (packed.h); or NULL */
    size_t n;
} sl_tensors;

sl_tensors sl_tensors_of(const sl_model *model); /* none with a bare tokenizer */
size_t sl_tensors_count(const sl_tensors *tensors);
const sl_tensor *sl_tensors_at(const sl_tensors *tensors, size_t index);

/* y = w x + bias. */
typedef struct sl_linear {
    sl_tensor w;       /* [rows, columns]; data NULL: the block has no such product */
    const float *bias; /* [rows] or NULL */
} sl_linear;

/* One matrix per expert: a stack [n_experts, rows, columns], or a list. */
typedef struct sl_expert_matrices {
    bool stacked;
    sl_tensor *w; /* one tensor when stacked, otherwise [n_experts] */
} sl_expert_matrices;

typedef struct sl_block {
    const float *attn_norm, *attn_norm_bias; /* [n_embd]; biases NULL for RMS norm */
    const float *attn_post_norm;             /* [n_embd] or NULL */
    const float *q_norm, *k_norm;            /* [head_dim] or NULL */
    sl_linear qkv[3];                        /* q, k, v; or all in the first, whose rows then are the three's */
    sl_linear attn_out;
    const float *ffn_norm, *ffn_norm_bias, *ffn_post_norm;
    sl_linear gate, up, down;                /* up alone when not gated; both in `up` when fused */
    sl_linear router;                        /* [n_experts, n_embd]; data NULL: a plain feed-forward block */
    sl_expert_matrices expert_gate, expert_up, expert_down;
    const float *shared_router;              /* [n_embd] or NULL */
    sl_linear shared_gate, shared_up, shared_down;
} sl_block;

typedef struct sl_weights {
    sl_tensor embed;     /* [n_vocab, n_embd] */
    sl_tensor positions; /* [n_ctx_train, n_embd]; data NULL: none */
    sl_tensor output;    /* [n_vocab, n_embd]; the embedding again where tied */
    const float *final_norm, *final_norm_bias;
    sl_block *blocks;    /* [n_layers] */
    sl_op *ops;          /* the operator list */
    size_t n_ops;
    bool only_f32;       /* no matrix is narrower than f32: the KV cache then stays f32 in `fast` too */
} sl_weights;

enum { SL_NAME_SIZE = 256 };
/* A slot's name in a table of names, with suffix (".weight" or ".bias"). False: the table has none. */
bool sl_weights_name(const char *const *names, sl_slot slot, int layer, int expert, const char *suffix, char out[SL_NAME_SIZE]);
/* The file's tensor of a slot (suffix ".weight" or ".bias"); NULL: it has none. */
const sl_tensor *sl_weights_find(const sl_model *model, sl_slot slot, int layer, const char *suffix);

/* Calls visit for each matrix of the blocks that is there, block by block: the linear ones, then experts (a stack once). Routers
 * are not among them. False from it ends the visits. */
void sl_weights_each(sl_weights *weights, const sl_config *config, bool (*visit)(void *user, int layer, sl_tensor *w), void *user);

/* Has every matrix that `fast` arithmetic multiplies packed at its first use (pack.h); the packer outlives the weights. */
sllm_status sl_weights_pack(sl_weights *weights, const sl_config *config, sl_packer *packer, sllm_error *error);

/* Matrices that were joined while loading are in memory once: when they are packed their rows are given up, which in memory
 * that is no file's means for good. The list of tensors [n] learns where their packed copies are; sl_row reads those. */
void sl_weights_note_packed(sl_weights *weights, const sl_config *config, sl_tensor *list, size_t n);

/* The float matrices of the blocks become `type`, NF4 or FP4, in the arena (rows of a multiple of 64 columns; others stay), with the
 * largest value of each 64 kept as f32 or, `nested`, as what bitsandbytes' double quantisation makes of it. */
sllm_status sl_weights_to_4bit(sl_weights *weights, const sl_config *config, sl_type type, sl_pool *pool, bool nested,
                               sl_arena *arena, sllm_error *error);

/* Binds every tensor that config->family calls for, checking name, shape and type. SLLM_ERROR_FORMAT names the tensor
 * and both shapes; a tensor that nothing uses is an error too, but for buffers known to be no parameters. Sets
 * config->n_params. `on_progress` may be NULL; false from it cancels. All memory comes from `arena`. */
sllm_status sl_weights_bind(const sl_tensors *tensors, sl_config *config, sl_arena *arena,
                            bool (*on_progress)(void *user, double fraction), void *user, sl_weights **weights,
                            sllm_error *error);

#endif
