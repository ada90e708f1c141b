/* What a model's file says about its shape, in one form whatever the file format, and the family it belongs to. */
#ifndef SL_MODEL_CONFIG_H
#define SL_MODEL_CONFIG_H

#include "base/arena.h"
#include "format/gguf.h"
#include "base/json.h"
#include "sllm.h"

typedef struct sl_family sl_family; /* families.h: the table */

typedef enum sl_norm { SL_NORM_RMS, SL_NORM_LAYER } sl_norm;
typedef enum sl_activation { SL_ACT_SILU, SL_ACT_GELU_TANH, SL_ACT_GELU_ERF, SL_ACT_GEGELU } sl_activation;
typedef enum sl_rope_scaling { SL_ROPE_NONE, SL_ROPE_LINEAR, SL_ROPE_DYNAMIC, SL_ROPE_LLAMA3, SL_ROPE_YARN, SL_ROPE_LONGROPE } sl_rope_scaling;

/* Per layer, what differs between layers. */
typedef struct sl_layer_config {
    int window;       /* sliding window: a query at p sees keys p-window+1 .. p; 0: all */
    bool rope;        /* false: no rotary embedding in this layer (smollm3, and positions elsewhere) */
    bool local_rope;  /* uses rope_local_base (gemma3 sliding layers) */
    bool block_sparse; /* phi3-small's pattern */
    bool moe;         /* routed experts in place of the plain MLP */
} sl_layer_config;

typedef struct sl_config {
    const sl_family *family;
    char family_name[48];  /* the file's own: "llama", "qwen2_moe", ... */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx_train;
    sl_norm norm;
    float norm_eps;
    sl_activation activation;
    bool norm_plus_one;    /* weights stored as w - 1 (gemma checkpoints; GGUF stores them + 1) */
    bool tied;             /* output matrix is the embedding */

    float embed_scale;     /* 1: none */
    float attention_scale; /* factor on q.k */
    float attention_softcap, final_softcap; /* 0: none */
    float logit_scale;     /* 1: none */
    int sliding_window;    /* as in the file, 0: none */

    int rope_dim;          /* rotated values per head, 0: no rotary embedding */
    bool rope_interleaved; /* pairs (2j, 2j+1) in place of (j, j + rope_dim/2): llama-type GGUF files */
    float rope_base, rope_local_base; /* local 0: none */
    sl_rope_scaling rope_scaling;
    float rope_factor, rope_low_freq, rope_high_freq; /* linear; llama3 */
    float yarn_beta_fast, yarn_beta_slow, rope_attention_factor; /* attention_factor multiplies cos and sin; 0: derive */
    int rope_original_ctx;
    const float *rope_long, *rope_short; /* [rope_dim/2] longrope factors */
    const float *rope_freqs;             /* [rope_dim/2] divisors given by a tensor (GGUF llama3) */
    float temperature_scale; int temperature_ctx; /* llama-4 query scaling: 1 + beta * ln(1 + floor(p / ctx)); 0: none */

    int n_experts, n_experts_used, n_ff_expert, n_ff_shared;
    bool experts_renormalise; /* divide the chosen probabilities by their sum */

    int sparse_block, sparse_local, sparse_stride; bool sparse_homo; /* phi3-small */
    float gegelu_limit;

    sl_layer_config *layers; /* [n_layers] */
    char name[128], licence[96];
    int64_t n_params;
} sl_config;

#endif
