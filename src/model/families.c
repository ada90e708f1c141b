#include "model/families.h"

#include <stdio.h>
#include <string.h>

#define BLOCK "model.layers.{L}."

/* Attention and norms as Llama names them, shared by most tables below. */
#define LLAMA_FRAME \
    [SL_SLOT_EMBED] = "model.embed_tokens", [SL_SLOT_FINAL_NORM] = "model.norm", [SL_SLOT_OUTPUT] = "lm_head", \
    [SL_SLOT_ATTN_NORM] = BLOCK "input_layernorm"
#define LLAMA_QKV \
    [SL_SLOT_Q] = BLOCK "self_attn.q_proj", [SL_SLOT_K] = BLOCK "self_attn.k_proj", \
    [SL_SLOT_V] = BLOCK "self_attn.v_proj", [SL_SLOT_ATTN_OUT] = BLOCK "self_attn.o_proj"
#define LLAMA_HEAD_NORMS [SL_SLOT_Q_NORM] = BLOCK "self_attn.q_norm", [SL_SLOT_K_NORM] = BLOCK "self_attn.k_norm"
#define LLAMA_FFN_NORM [SL_SLOT_FFN_NORM] = BLOCK "post_attention_layernorm"
#define LLAMA_MLP \
    [SL_SLOT_GATE] = BLOCK "mlp.gate_proj", [SL_SLOT_UP] = BLOCK "mlp.up_proj", [SL_SLOT_DOWN] = BLOCK "mlp.down_proj"

static sl_slot_names llama_names = {LLAMA_FRAME, LLAMA_QKV, LLAMA_HEAD_NORMS, LLAMA_FFN_NORM, LLAMA_MLP};

static sl_slot_names gemma_names = {
    LLAMA_FRAME, LLAMA_QKV, LLAMA_HEAD_NORMS, LLAMA_MLP,
    [SL_SLOT_ATTN_POST_NORM] = BLOCK "post_attention_layernorm",
    [SL_SLOT_FFN_NORM] = BLOCK "pre_feedforward_layernorm",
    [SL_SLOT_FFN_POST_NORM] = BLOCK "post_feedforward_layernorm",
};

static sl_slot_names phi3_names = {
    LLAMA_FRAME, LLAMA_FFN_NORM,
    [SL_SLOT_QKV] = BLOCK "self_attn.qkv_proj", [SL_SLOT_ATTN_OUT] = BLOCK "self_attn.o_proj",
    [SL_SLOT_GATE_UP] = BLOCK "mlp.gate_up_proj", [SL_SLOT_DOWN] = BLOCK "mlp.down_proj",
};

static sl_slot_names phi3small_names = {
    LLAMA_FFN_NORM,
    [SL_SLOT_EMBED] = "model.embed_tokens", [SL_SLOT_FINAL_NORM] = "model.final_layernorm",
    [SL_SLOT_OUTPUT] = "lm_head", [SL_SLOT_ATTN_NORM] = BLOCK "input_layernorm",
    [SL_SLOT_QKV] = BLOCK "self_attn.query_key_value", [SL_SLOT_ATTN_OUT] = BLOCK "self_attn.dense",
    [SL_SLOT_GATE_UP] = BLOCK "mlp.up_proj", [SL_SLOT_DOWN] = BLOCK "mlp.down_proj",
};

static sl_slot_names starcoder2_names = {
    LLAMA_FRAME, LLAMA_QKV, LLAMA_FFN_NORM,
    [SL_SLOT_UP] = BLOCK "mlp.c_fc", [SL_SLOT_DOWN] = BLOCK "mlp.c_proj",
};

static sl_slot_names mixtral_names = {
    LLAMA_FRAME, LLAMA_QKV, LLAMA_FFN_NORM,
    [SL_SLOT_ROUTER] = BLOCK "block_sparse_moe.gate",
    [SL_SLOT_EXPERT_GATE] = BLOCK "block_sparse_moe.experts.{E}.w1",
    [SL_SLOT_EXPERT_UP] = BLOCK "block_sparse_moe.experts.{E}.w3",
    [SL_SLOT_EXPERT_DOWN] = BLOCK "block_sparse_moe.experts.{E}.w2",
};

static sl_slot_names qwen2_moe_names = {
    LLAMA_FRAME, LLAMA_QKV, LLAMA_FFN_NORM, LLAMA_MLP,
    [SL_SLOT_ROUTER] = BLOCK "mlp.gate",
    [SL_SLOT_EXPERT_GATE] = BLOCK "mlp.experts.{E}.gate_proj",
    [SL_SLOT_EXPERT_UP] = BLOCK "mlp.experts.{E}.up_proj",
    [SL_SLOT_EXPERT_DOWN] = BLOCK "mlp.experts.{E}.down_proj",
    [SL_SLOT_SHARED_ROUTER] = BLOCK "mlp.shared_expert_gate",
    [SL_SLOT_SHARED_GATE] = BLOCK "mlp.shared_expert.gate_proj",
    [SL_SLOT_SHARED_UP] = BLOCK "mlp.shared_expert.up_proj",
    [SL_SLOT_SHARED_DOWN] = BLOCK "mlp.shared_expert.down_proj",
};

static sl_slot_names gpt2_names = {
    [SL_SLOT_EMBED] = "transformer.wte", [SL_SLOT_POSITIONS] = "transformer.wpe",
    [SL_SLOT_FINAL_NORM] = "transformer.ln_f", [SL_SLOT_OUTPUT] = "lm_head",
    [SL_SLOT_ATTN_NORM] = "transformer.h.{L}.ln_1", [SL_SLOT_QKV] = "transformer.h.{L}.attn.c_attn",
    [SL_SLOT_ATTN_OUT] = "transformer.h.{L}.attn.c_proj", [SL_SLOT_FFN_NORM] = "transformer.h.{L}.ln_2",
    [SL_SLOT_UP] = "transformer.h.{L}.mlp.c_fc", [SL_SLOT_DOWN] = "transformer.h.{L}.mlp.c_proj",
};

sl_slot_names sl_gguf_slots = {
    [SL_SLOT_EMBED] = "token_embd", [SL_SLOT_POSITIONS] = "position_embd", [SL_SLOT_FINAL_NORM] = "output_norm",
    [SL_SLOT_OUTPUT] = "output", [SL_SLOT_ROPE_FREQS] = "rope_freqs", [SL_SLOT_ROPE_LONG] = "rope_factors_long",
    [SL_SLOT_ROPE_SHORT] = "rope_factors_short", [SL_SLOT_ATTN_NORM] = "blk.{L}.attn_norm",
    [SL_SLOT_ATTN_POST_NORM] = "blk.{L}.post_attention_norm", [SL_SLOT_Q] = "blk.{L}.attn_q",
    [SL_SLOT_K] = "blk.{L}.attn_k", [SL_SLOT_V] = "blk.{L}.attn_v", [SL_SLOT_QKV] = "blk.{L}.attn_qkv",
    [SL_SLOT_ATTN_OUT] = "blk.{L}.attn_output", [SL_SLOT_Q_NORM] = "blk.{L}.attn_q_norm",
    [SL_SLOT_K_NORM] = "blk.{L}.attn_k_norm", [SL_SLOT_FFN_NORM] = "blk.{L}.ffn_norm",
    [SL_SLOT_FFN_POST_NORM] = "blk.{L}.post_ffw_norm", [SL_SLOT_GATE] = "blk.{L}.ffn_gate",
    [SL_SLOT_UP] = "blk.{L}.ffn_up", [SL_SLOT_GATE_UP] = "blk.{L}.ffn_up", [SL_SLOT_DOWN] = "blk.{L}.ffn_down",
    [SL_SLOT_ROUTER] = "blk.{L}.ffn_gate_inp", [SL_SLOT_EXPERT_GATE] = "blk.{L}.ffn_gate_exps",
    [SL_SLOT_EXPERT_UP] = "blk.{L}.ffn_up_exps", [SL_SLOT_EXPERT_DOWN] = "blk.{L}.ffn_down_exps",
    [SL_SLOT_SHARED_ROUTER] = "blk.{L}.ffn_gate_inp_shexp", [SL_SLOT_SHARED_GATE] = "blk.{L}.ffn_gate_shexp",
    [SL_SLOT_SHARED_UP] = "blk.{L}.ffn_up_shexp", [SL_SLOT_SHARED_DOWN] = "blk.{L}.ffn_down_shexp",
};

/* The defaults are those of the configuration classes of transformers 5.23; phi3-small's are its published file's. */
static const sl_family families[] = {
    {.name = "llama", .title = "Llama 1-3, Code Llama, SmolLM, TinyLlama", .hf = {"llama"},
     .hf_class = {"LlamaForCausalLM"}, .gguf = {"llama"}, .gated = true, .bias_qkv = SL_BIAS_SAID,
     .bias_out = SL_BIAS_SAID, .bias_mlp = SL_BIAS_SAID, .rope = true, .gguf_interleaved = true,
     .gguf_window = SL_WINDOW_ALL, .names = llama_names,
     .defaults = {.n_vocab = 32000, .n_embd = 4096, .n_ff = 11008, .n_layers = 32, .n_heads = 32,
                  .n_ctx_train = 2048, .norm_eps = 1e-6, .rope_base = 10000}},
    {.name = "mistral", .title = "Mistral 7B", .hf = {"mistral"}, .hf_class = {"MistralForCausalLM"}, .gated = true,
     .rope = true, .window = SL_WINDOW_ALL, .names = llama_names,
     .defaults = {.n_vocab = 32000, .n_embd = 4096, .n_ff = 14336, .n_layers = 32, .n_heads = 32, .n_kv_heads = 8,
                  .n_ctx_train = 131072, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000}},
    {.name = "ministral", .title = "Ministral 8B", .hf = {"ministral"}, .hf_class = {"MinistralForCausalLM"},
     .gated = true, .rope = true, .window = SL_WINDOW_TYPES, .names = llama_names,
     .defaults = {.n_vocab = 32000, .n_embd = 4096, .n_ff = 14336, .n_layers = 32, .n_heads = 32, .n_kv_heads = 8,
                  .n_ctx_train = 131072, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000}},
    {.name = "ministral3", .title = "Ministral 3", .hf = {"ministral3"}, .hf_class = {"Ministral3ForCausalLM"},
     .gguf = {"mistral3"}, .gated = true, .rope = true, .yarn_default = true, .gguf_interleaved = true,
     .window = SL_WINDOW_ALL, .gguf_window = SL_WINDOW_ALL, .names = llama_names,
     .defaults = {.n_vocab = 131072, .n_embd = 4096, .n_ff = 14336, .n_layers = 34, .n_heads = 32, .n_kv_heads = 8,
                  .head_dim = 128, .n_ctx_train = 262144, .norm_eps = 1e-5, .rope_base = 1000000}},
    {.name = "mixtral", .title = "Mixtral", .hf = {"mixtral"}, .hf_class = {"MixtralForCausalLM"}, .gguf = {"llama"},
     .gated = true, .rope = true, .gguf_interleaved = true, .window = SL_WINDOW_ALL, .gguf_window = SL_WINDOW_ALL,
     .experts = true, .experts_renormalise = true, .names = mixtral_names,
     .defaults = {.n_vocab = 32000, .n_embd = 4096, .n_ff = 14336, .n_layers = 32, .n_heads = 32, .n_kv_heads = 8,
                  .n_ctx_train = 131072, .norm_eps = 1e-5, .rope_base = 1000000, .n_experts = 8,
                  .n_experts_used = 2}},
    {.name = "phi3", .title = "Phi-3 mini and medium, Phi-3.5, Phi-4, Phi-4 mini", .hf = {"phi3"},
     .hf_class = {"Phi3ForCausalLM"}, .gguf = {"phi3"}, .gated = true, .qkv = SL_FUSED, .gate_up = SL_FUSED,
     .rope = true, .partial_rope = true, .window = SL_WINDOW_ALL, .gguf_window = SL_WINDOW_ALL, .names = phi3_names,
     .defaults = {.n_vocab = 32064, .n_embd = 3072, .n_ff = 8192, .n_layers = 32, .n_heads = 32,
                  .n_ctx_train = 4096, .rope_original_ctx = 4096, .norm_eps = 1e-5, .rope_base = 10000}},
    {.name = "phi3small", .title = "Phi-3 small", .hf = {"phi3small"}, .hf_class = {"Phi3SmallForCausalLM"},
     .norm = SL_NORM_LAYER, .activation = SL_ACT_GEGELU, .gated = true, .qkv = SL_FUSED_GROUPED,
     .gate_up = SL_FUSED_GROUPED, .bias_qkv = SL_BIAS_ALWAYS, .bias_out = SL_BIAS_ALWAYS, .bias_mlp = SL_BIAS_ALWAYS,
     .rope = true, .block_sparse = true, .masks_unused = true, .names = phi3small_names,
     .defaults = {.n_vocab = 100352, .n_embd = 4096, .n_ff = 14336, .n_layers = 32, .n_heads = 32, .n_kv_heads = 8,
                  .n_ctx_train = 8192, .norm_eps = 1e-5, .rope_base = 1000000, .tied = true}},
    {.name = "gemma2", .title = "Gemma 2", .hf = {"gemma2"}, .hf_class = {"Gemma2ForCausalLM"}, .gguf = {"gemma2"},
     .norm_place = SL_NORM_SANDWICH, .norm_plus_one = true, .activation = SL_ACT_GELU_TANH, .gated = true,
     .bias_qkv = SL_BIAS_SAID, .bias_out = SL_BIAS_SAID, .rope = true, .embed_sqrt = true,
     .window = SL_WINDOW_ALTERNATE, .gguf_window = SL_WINDOW_ALTERNATE, .attention_scalar = true,
     .names = gemma_names,
     .defaults = {.n_vocab = 256000, .n_embd = 2304, .n_ff = 9216, .n_layers = 26, .n_heads = 8, .n_kv_heads = 4,
                  .head_dim = 256, .n_ctx_train = 8192, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000,
                  .attention_softcap = 50, .final_softcap = 30, .tied = true}},
    {.name = "gemma3", .title = "Gemma 3", .hf = {"gemma3_text", "gemma3"},
     .hf_class = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"}, .gguf = {"gemma3"},
     .norm_place = SL_NORM_SANDWICH, .norm_plus_one = true, .head_norms = true, .activation = SL_ACT_GELU_TANH,
     .gated = true, .bias_qkv = SL_BIAS_SAID, .bias_out = SL_BIAS_SAID, .rope = true, .local_rope = true,
     .embed_sqrt = true, .window = SL_WINDOW_PATTERN, .gguf_window = SL_WINDOW_PATTERN, .attention_scalar = true,
     .names = gemma_names,
     .defaults = {.n_vocab = 262208, .n_embd = 2304, .n_ff = 9216, .n_layers = 26, .n_heads = 8, .n_kv_heads = 4,
                  .head_dim = 256, .n_ctx_train = 131072, .window = 4096, .norm_eps = 1e-6, .rope_base = 1000000,
                  .tied = true}},
    {.name = "qwen2", .title = "Qwen 2 and 2.5", .hf = {"qwen2"}, .hf_class = {"Qwen2ForCausalLM"}, .gguf = {"qwen2"},
     .gated = true, .bias_qkv = SL_BIAS_ALWAYS, .rope = true, .window = SL_WINDOW_UPPER, .names = llama_names,
     .defaults = {.n_vocab = 151936, .n_embd = 4096, .n_ff = 22016, .n_layers = 32, .n_heads = 32, .n_kv_heads = 32,
                  .n_ctx_train = 32768, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000}},
    {.name = "qwen3", .title = "Qwen 3", .hf = {"qwen3"}, .hf_class = {"Qwen3ForCausalLM"}, .gguf = {"qwen3"},
     .head_norms = true, .gated = true, .bias_qkv = SL_BIAS_SAID, .bias_out = SL_BIAS_SAID, .rope = true,
     .window = SL_WINDOW_UPPER, .names = llama_names,
     .defaults = {.n_vocab = 151936, .n_embd = 4096, .n_ff = 22016, .n_layers = 32, .n_heads = 32, .n_kv_heads = 32,
                  .head_dim = 128, .n_ctx_train = 32768, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000}},
    {.name = "qwen2_moe", .title = "Qwen 1.5 and 2 MoE", .hf = {"qwen2_moe"}, .hf_class = {"Qwen2MoeForCausalLM"},
     .gguf = {"qwen2moe"}, .gated = true, .bias_qkv = SL_BIAS_SAID, .bias_key = "qkv_bias", .bias_default = true,
     .rope = true, .window = SL_WINDOW_LOWER_EVEN,
     .experts = true, .names = qwen2_moe_names,
     .defaults = {.n_vocab = 151936, .n_embd = 2048, .n_ff = 5632, .n_layers = 24, .n_heads = 16, .n_kv_heads = 16,
                  .n_ctx_train = 32768, .window = 4096, .norm_eps = 1e-6, .rope_base = 10000, .n_experts = 60,
                  .n_experts_used = 4, .n_ff_expert = 1408, .n_ff_shared = 5632}},
    {.name = "starcoder2", .title = "StarCoder2", .hf = {"starcoder2"}, .hf_class = {"Starcoder2ForCausalLM"},
     .gguf = {"starcoder2"}, .norm = SL_NORM_LAYER, .activation = SL_ACT_GELU_TANH, .bias_qkv = SL_BIAS_SAID,
     .bias_out = SL_BIAS_SAID, .bias_mlp = SL_BIAS_SAID, .bias_key = "use_bias", .bias_default = true, .rope = true,
     .window = SL_WINDOW_ALL, .gguf_window = SL_WINDOW_ALL, .names = starcoder2_names,
     .defaults = {.n_vocab = 49152, .n_embd = 3072, .n_ff = 12288, .n_layers = 30, .n_heads = 24, .n_kv_heads = 2,
                  .n_ctx_train = 4096, .norm_eps = 1e-5, .rope_base = 10000, .tied = true}},
    {.name = "smollm3", .title = "SmolLM3", .hf = {"smollm3"}, .hf_class = {"SmolLM3ForCausalLM"}, .gguf = {"smollm3"},
     .gated = true, .bias_qkv = SL_BIAS_SAID, .bias_out = SL_BIAS_SAID, .bias_mlp = SL_BIAS_SAID, .rope = true,
     .gguf_interleaved = true, .no_rope_every = 4, .window = SL_WINDOW_NO_ROPE, .names = llama_names,
     .defaults = {.n_vocab = 128256, .n_embd = 2048, .n_ff = 11008, .n_layers = 36, .n_heads = 16, .n_kv_heads = 4,
                  .n_ctx_train = 32768, .norm_eps = 1e-6, .rope_base = 2000000, .tied = true}},
    {.name = "gpt2", .title = "GPT-2, DistilGPT2", .hf = {"gpt2"}, .hf_class = {"GPT2LMHeadModel"}, .gguf = {"gpt2"},
     .norm = SL_NORM_LAYER, .activation = SL_ACT_GELU_TANH, .qkv = SL_FUSED, .conv1d = true,
     .bias_qkv = SL_BIAS_ALWAYS, .bias_out = SL_BIAS_ALWAYS, .bias_mlp = SL_BIAS_ALWAYS, .names = gpt2_names,
     .defaults = {.n_vocab = 50257, .n_embd = 768, .n_layers = 12, .n_heads = 12, .n_ctx_train = 1024,
                  .norm_eps = 1e-5, .tied = true}},
    {.name = "bert", .title = "BERT, MiniLM", .hf = {"bert"}, .hf_class = {"BertModel"}, .gguf = {"bert"},
     .kind = SL_ENCODER},
    {.name = "distilbert", .title = "DistilBERT", .hf = {"distilbert"},
     .hf_class = {"DistilBertForSequenceClassification", "DistilBertForTokenClassification"}, .kind = SL_ENCODER},
};

static bool listed(const char *const names[3], const char *name) {
    for (int i = 0; i < 3 && names[i]; i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}

const sl_family *sl_family_at(size_t index) {
    return index < sizeof families / sizeof *families ? &families[index] : NULL;
}

const sl_family *sl_family_by_hf(const char *model_type) {
    for (size_t i = 0; sl_family_at(i); i++)
        if (listed(families[i].hf, model_type)) return &families[i];
    return NULL;
}

const sl_family *sl_family_by_class(const char *architecture) {
    for (size_t i = 0; sl_family_at(i); i++)
        if (listed(families[i].hf_class, architecture)) return &families[i];
    return NULL;
}

const sl_family *sl_family_by_gguf(const char *architecture, bool experts) {
    for (size_t i = 0; sl_family_at(i); i++)
        if (families[i].experts == experts && listed(families[i].gguf, architecture)) return &families[i];
    return NULL;
}

void sl_family_list(bool gguf, char *out, size_t size) {
    size_t used = 0;
    if (size) out[0] = 0;
    for (size_t i = 0; sl_family_at(i); i++) {
        const char *const *names = gguf ? families[i].gguf : families[i].hf;
        if (families[i].kind != SL_DECODER || !names[0] ||
            (gguf && families[i].experts && sl_family_by_gguf(names[0], false)))
            continue;
        int n = snprintf(out + used, size - used, "%s%s", used ? ", " : "", names[0]);
        if (n < 0 || (size_t)n >= size - used) return;
        used += (size_t)n;
    }
}
