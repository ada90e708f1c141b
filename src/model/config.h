/* What a model's file says about its shape, in one form whatever the file format, and the family it belongs to. */
#ifndef SL_MODEL_CONFIG_H
#define SL_MODEL_CONFIG_H

#include "base/arena.h"
#include "base/json.h"
#include "format/gguf.h"
#include "sllm.h"

typedef struct sl_family sl_family; /* families.h: the table */

typedef enum sl_norm { SL_NORM_RMS, SL_NORM_LAYER } sl_norm;
typedef enum sl_activation {
    SL_ACT_SILU,
    SL_ACT_GELU_TANH,
    SL_ACT_GELU_ERF,
    SL_ACT_RELU,
    SL_ACT_GEGELU
} sl_activation;
typedef enum sl_rope_scaling {
    SL_ROPE_NONE,
    SL_ROPE_LINEAR,
    SL_ROPE_DYNAMIC,
    SL_ROPE_LLAMA3,
    SL_ROPE_YARN,
    SL_ROPE_LONGROPE
} sl_rope_scaling;

/* Whether the products of a part have a bias. SAID stands in families only: the file tells, a GGUF by block 0's
 * tensors. */
typedef enum sl_bias_rule {
    SL_BIAS_NEVER,
    SL_BIAS_ALWAYS,
    SL_BIAS_SAID
} sl_bias_rule;

/* Per layer, what differs between layers. */
typedef struct sl_layer_config {
    int window;        /* sliding window: a query at p sees keys p-window+1 .. p; 0: all */
    bool rope;         /* false: no rotary embedding in this layer (smollm3, and positions elsewhere) */
    bool local_rope;   /* uses rope_local_base (gemma3 sliding layers) */
    bool block_sparse; /* phi3-small's pattern */
    bool moe;          /* routed experts in place of the plain MLP */
} sl_layer_config;

typedef struct sl_config {
    const sl_family *family;
    char family_name[48]; /* the file's own: "llama", "qwen2_moe", ... */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx_train;
    sl_norm norm;
    float norm_eps;
    sl_activation activation;
    sl_bias_rule bias_qkv, bias_out, bias_mlp;
    bool norm_plus_one; /* weights stored as w - 1 (gemma checkpoints; GGUF stores them + 1) */
    bool tied;          /* output matrix is the embedding; GGUF: set once the tensors are known */

    float embed_scale;     /* 1: none */
    float attention_scale; /* factor on q.k ... */
    bool scale_by_layer;   /* ... divided by the layer's number, counted from 1 (a variant of gpt2) */
    float attention_softcap, final_softcap; /* 0: none */
    float logit_scale;     /* 1: none */
    int sliding_window;    /* as in the file, 0: none */

    int rope_dim;          /* rotated values per head, 0: no rotary embedding */
    bool rope_interleaved; /* pairs (2j, 2j+1) in place of (j, j + rope_dim/2): llama-type GGUF files */
    float rope_base, rope_local_base; /* local 0: none */
    float rope_local_factor; /* linear scaling of the local one, 0: none */
    sl_rope_scaling rope_scaling;
    float rope_factor, rope_low_freq, rope_high_freq; /* linear, dynamic, yarn, llama3; llama3 only */
    float yarn_beta_fast, yarn_beta_slow;
    bool yarn_truncate;    /* correction range rounded to whole dimensions */
    float rope_attention_factor;       /* multiplies cos and sin (yarn; longrope beyond the original context) */
    float rope_attention_factor_short; /* the same within the original context of longrope */
    int rope_original_ctx; /* llama3, yarn, longrope, dynamic: positions before scaling */
    const float *rope_long, *rope_short; /* [rope_dim/2] longrope factors; GGUF: bound with the tensors */
    const float *rope_freqs;             /* [rope_dim/2] divisors given by a tensor (GGUF llama3), or NULL */
    float temperature_scale; /* llama-4 query scaling: 1 + scale * ln(1 + floor(p / temperature_ctx)); 0: none */
    int temperature_ctx;

    int n_experts, n_experts_used, n_ff_expert, n_ff_shared; /* n_experts 0: none; n_ff_shared 0: no shared expert */
    bool experts_renormalise; /* divide the chosen probabilities by their sum */

    int sparse_block, sparse_local, sparse_stride; /* phi3-small: sizes in tokens, blocks, blocks */
    bool sparse_homo;
    float gegelu_limit; /* 0: none */

    sl_layer_config *layers; /* [n_layers] */
    char name[128], licence[96];
    int64_t n_params;
} sl_config;

/* Reads config.json's object (with its `text_config` when nested) into *config. Arrays come from `arena`. Absent keys
 * take the defaults of transformers' configuration classes. Every value is checked: SLLM_ERROR_FORMAT names the key,
 * SLLM_ERROR_UNSUPPORTED an architecture or feature that is not known. */
sllm_status sl_config_from_json(const sl_json *root, sl_arena *arena, sl_config *config, sllm_error *error);

/* The same from GGUF metadata (keys "<architecture>.*", ggml's docs/gguf.md). What GGUF leaves unsaid is filled in by
 * the family's rules. rope_freqs, rope_long and rope_short are set here from their tensors. */
sllm_status sl_config_from_gguf(const sl_gguf *gguf, sl_arena *arena, sl_config *config, sllm_error *error);

/* The checks both share, called by them last: sizes positive and bounded, heads divisible, rotary and expert values in
 * range; so that no later product of them overflows. */
sllm_status sl_config_check(const sl_config *config, sllm_error *error);

/* The ids of end-of-sequence tokens in a config.json or generation_config.json object ("eos_token_id": a number or a
 * list), written to ids [limit]. Returns how many; items that are no ids of the vocabulary are left out. */
size_t sl_config_end_ids(const sl_json *object, int n_vocab, int32_t *ids, size_t limit);

/* yarn's attention factor (Peng et al. 2023, arXiv 2309.00071, as transformers computes it): ratio of the two mscale
 * terms when both are given, otherwise 0.1 ln(factor) + 1. */
double sl_yarn_attention_factor(double factor, double mscale, double mscale_all_dim);
/* longrope's (Ding et al. 2024, arXiv 2402.13753): sqrt(1 + ln(factor) / ln(original)), 1 for factor <= 1. */
double sl_longrope_attention_factor(double factor, double original_ctx);

#endif
