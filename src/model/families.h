/* The table of families: what a model's `model_type` or `general.architecture` means, as data. A family that differs
 * from the ones here only in these respects is one more row; code is needed only for a new operator (operators.h). */
#ifndef SL_MODEL_FAMILIES_H
#define SL_MODEL_FAMILIES_H

#include "model/config.h"

/* The roles a tensor can play. A name in a table leaves out ".weight" / ".bias"; "{L}" stands for the block's number
 * and "{E}" for the expert's. */
typedef enum sl_slot {
    SL_SLOT_EMBED,        /* [n_vocab, n_embd] */
    SL_SLOT_POSITIONS,    /* [n_ctx_train, n_embd], learned */
    SL_SLOT_FINAL_NORM,   /* [n_embd] */
    SL_SLOT_OUTPUT,       /* [n_vocab, n_embd]; absent where tied */
    SL_SLOT_ROPE_FREQS,   /* [rope_dim/2] divisors (GGUF) */
    SL_SLOT_ROPE_LONG,    /* [rope_dim/2] (GGUF) */
    SL_SLOT_ROPE_SHORT,   /* [rope_dim/2] (GGUF) */
    SL_SLOT_ATTN_NORM,    /* from here on once per block: [n_embd] before attention */
    SL_SLOT_ATTN_POST_NORM, /* [n_embd] on attention's output, before it joins the residual stream */
    SL_SLOT_Q,            /* [n_heads * head_dim, n_embd] */
    SL_SLOT_K,            /* [n_kv_heads * head_dim, n_embd] */
    SL_SLOT_V,            /* [n_kv_heads * head_dim, n_embd] */
    SL_SLOT_QKV,          /* the three in one: [(n_heads + 2 n_kv_heads) * head_dim, n_embd] */
    SL_SLOT_ATTN_OUT,     /* [n_embd, n_heads * head_dim] */
    SL_SLOT_Q_NORM,       /* [head_dim] */
    SL_SLOT_K_NORM,       /* [head_dim] */
    SL_SLOT_FFN_NORM,     /* [n_embd] */
    SL_SLOT_FFN_POST_NORM, /* [n_embd] */
    SL_SLOT_GATE,         /* [n_ff, n_embd] */
    SL_SLOT_UP,           /* [n_ff, n_embd] */
    SL_SLOT_GATE_UP,      /* both in one: [2 n_ff, n_embd] */
    SL_SLOT_DOWN,         /* [n_embd, n_ff] */
    SL_SLOT_ROUTER,       /* [n_experts, n_embd] */
    SL_SLOT_EXPERT_GATE,  /* [n_ff_expert, n_embd] each, or [n_experts, n_ff_expert, n_embd] stacked */
    SL_SLOT_EXPERT_UP,
    SL_SLOT_EXPERT_DOWN,  /* [n_embd, n_ff_expert] each, or stacked */
    SL_SLOT_SHARED_ROUTER, /* [1, n_embd]: gate of the shared expert */
    SL_SLOT_SHARED_GATE,  /* [n_ff_shared, n_embd] */
    SL_SLOT_SHARED_UP,
    SL_SLOT_SHARED_DOWN,  /* [n_embd, n_ff_shared] */
    SL_SLOT_COUNT
} sl_slot;

typedef const char *const sl_slot_names[SL_SLOT_COUNT]; /* NULL: the format or family has no such tensor */

typedef enum sl_family_kind {
    SL_DECODER, /* blocks of attention and a feed-forward part, causal */
    SL_ENCODER  /* bidirectional: known by name, refused for now */
} sl_family_kind;

typedef enum sl_norm_place {
    SL_NORM_PRE,     /* x += f(norm(x)) */
    SL_NORM_SANDWICH /* x += norm'(f(norm(x))) (gemma 2 and 3) */
} sl_norm_place;

/* Where q, k and v (gate and up) live. A fused matrix is one product; only the places of the heads (rows) differ. */
typedef enum sl_fusion {
    SL_SPLIT,
    SL_FUSED,        /* q rows, k rows, v rows; gate rows, up rows */
    SL_FUSED_GROUPED /* per key/value head: its q heads, then k, then v (phi3-small); gate and up rows interleaved */
} sl_fusion;

/* Which layers see only a window. Where the file gives `layer_types`, these decide instead, but for NONE and ALL. */
typedef enum sl_window_rule {
    SL_WINDOW_NONE,      /* no layer, whatever the file says */
    SL_WINDOW_ALL,       /* every layer, when the file gives a window; layer_types is not read (mistral) */
    SL_WINDOW_TYPES,     /* every layer, unless layer_types says otherwise (ministral) */
    SL_WINDOW_ALTERNATE, /* layers 0, 2, 4, ... (gemma 2) */
    SL_WINDOW_PATTERN,   /* all but every n-th, n = sliding_window_pattern, default 6 (gemma 3) */
    SL_WINDOW_UPPER,     /* with use_sliding_window: layers from max_window_layers on (qwen 2 and 3) */
    SL_WINDOW_LOWER_EVEN, /* with use_sliding_window: even layers below max_window_layers (qwen2_moe) */
    SL_WINDOW_NO_ROPE    /* with use_sliding_window: the layers without rotary embedding (smollm3) */
} sl_window_rule;

struct sl_family {
    const char *name;      /* the name in our tables and messages */
    const char *title;     /* for people: "Llama 2/3, Code Llama, SmolLM" */
    const char *hf[3];     /* `model_type` values of config.json, NULL-terminated */
    const char *hf_class[3]; /* `architectures` entries, for a config.json without model_type */
    const char *gguf[3];   /* `general.architecture` values */
    sl_family_kind kind;

    sl_norm norm;
    sl_norm_place norm_place;
    bool norm_plus_one;    /* checkpoints store w - 1 (GGUF stores w) */
    bool head_norms;       /* RMS norm of each q and k head before the rotary embedding */
    sl_activation activation; /* when the file does not say */
    bool gated;            /* act(gate) * up; false: act(up) */
    sl_fusion qkv, gate_up;
    bool conv1d;           /* checkpoints store matrices [in, out] (gpt2) */
    sl_bias_rule bias_qkv, bias_out, bias_mlp;
    const char *bias_key;  /* the key of config.json that rules the SAID ones; NULL: attention_bias and mlp_bias */
    bool bias_default;     /* where that key is absent */

    bool rope;             /* false: learned positions (gpt2) */
    bool gguf_interleaved; /* GGUF rotates pairs (2j, 2j+1): the converter permutes q and k rows */
    int no_rope_every;     /* n: layers n-1, 2n-1, ... have no rotary embedding (smollm3); 0: all have */
    bool yarn_default;     /* config.json without rotary parameters means Ministral 3's yarn */
    bool partial_rope;     /* partial_rotary_factor counts: only the first part of a head is rotated (phi3) */
    bool local_rope;       /* windowed layers use a base of their own, unscaled (gemma 3) */
    bool embed_sqrt;       /* embeddings are multiplied by sqrt(n_embd) */
    sl_window_rule window, gguf_window; /* GGUF files say less: qwen2's window is dropped by the converter */
    bool experts;          /* the feed-forward part may be routed */
    bool experts_renormalise; /* the default: chosen probabilities divided by their sum */
    bool attention_scalar; /* config.json's query_pre_attn_scalar replaces head_dim in 1/sqrt(head_dim) */
    bool block_sparse;     /* phi3-small's attention pattern and mup scalings */
    bool masks_unused;     /* the logits of ids that the tokenizer names as unused are masked (phi3-small) */

    /* What transformers assumes where config.json is silent; 0: required, or as the comment says. */
    struct {
        int n_vocab, n_embd, n_ff, n_layers, n_heads;
        int n_kv_heads;    /* 0: n_heads */
        int head_dim;      /* 0: n_embd / n_heads */
        int n_ctx_train, window;
        int rope_original_ctx; /* counts before the one among the rotary parameters (phi3); 0: none */
        double norm_eps, rope_base, attention_softcap, final_softcap;
        bool tied;
        int n_experts, n_experts_used, n_ff_expert, n_ff_shared;
    } defaults;

    const char *const *names; /* [SL_SLOT_COUNT], in safetensors */
};

/* NULL: unknown. */
const sl_family *sl_family_by_hf(const char *model_type);
const sl_family *sl_family_by_class(const char *architecture);
/* One GGUF architecture may stand for two families: "llama" with experts is mixtral. */
const sl_family *sl_family_by_gguf(const char *architecture, bool experts);
const sl_family *sl_family_at(size_t index); /* NULL past the end: for tables in documentation and messages */
/* The names of all decoder families in GGUF (gguf true) or config.json, separated by ", ", into out [size]. */
void sl_family_list(bool gguf, char *out, size_t size);

/* The names GGUF gives the roles, the same for every family; fused and stacked forms are separate slots. */
extern sl_slot_names sl_gguf_slots;

#endif
