/* What config_hf.c and config_gguf.c share: the checks on every value, and two formulas. */
#include "base/error.h"
#include "model/config.h"
#include "model/families.h"

#include <math.h>

/* Bounds that no real model reaches and that keep every product of sizes far from overflow. */
enum {
    MAX_LAYERS = 1024,
    MAX_WIDTH = 1 << 20,   /* n_embd, n_ff, heads x head_dim */
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 28,
    MAX_EXPERTS = 4096
};

double sl_yarn_attention_factor(double factor, double mscale, double mscale_all_dim) {
    if (factor <= 1) return 1;
    double log_factor = 0.1 * log(factor);
    if (mscale != 0 && mscale_all_dim != 0) return (mscale * log_factor + 1) / (mscale_all_dim * log_factor + 1);
    return log_factor + 1;
}

double sl_longrope_attention_factor(double factor, double original_ctx) {
    return factor <= 1 ? 1 : sqrt(1 + log(factor) / log(original_ctx));
}

static sllm_status check_sizes(const sl_config *c, sllm_error *error) {
    /* each with its key in config.json and in GGUF */
    const struct { const char *name; int value, limit; } sizes[] = {
        {"number of layers (num_hidden_layers, block_count)", c->n_layers, MAX_LAYERS},
        {"embedding width (hidden_size, embedding_length)", c->n_embd, MAX_WIDTH},
        {"number of heads (num_attention_heads, attention.head_count)", c->n_heads, MAX_HEADS},
        {"number of key/value heads (num_key_value_heads, attention.head_count_kv)", c->n_kv_heads, MAX_HEADS},
        {"head width (head_dim, attention.key_length)", c->head_dim, MAX_HEAD_DIM},
        {"feed-forward width (intermediate_size, feed_forward_length)", c->n_ff, MAX_WIDTH},
        {"vocabulary size (vocab_size)", c->n_vocab, MAX_VOCAB},
        {"context length (max_position_embeddings, context_length)", c->n_ctx_train, MAX_CONTEXT},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].limit)
            return sl_fail(error, SLLM_ERROR_FORMAT, "the %s is %d; it must lie in 1..%d", sizes[i].name,
                           sizes[i].value, sizes[i].limit);
    if (c->n_heads % c->n_kv_heads)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%d attention heads (num_attention_heads, attention.head_count) "
                       "cannot share %d key/value heads evenly", c->n_heads, c->n_kv_heads);
    if ((int64_t)c->n_heads * c->head_dim > MAX_WIDTH)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%d heads of width %d are wider than %d", c->n_heads, c->head_dim,
                       MAX_WIDTH);
    if (c->sliding_window < 0)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the sliding window is %d; it must not be negative",
                       c->sliding_window);
    return SLLM_OK;
}

static sllm_status check_numbers(const sl_config *c, sllm_error *error) {
    const struct { const char *name; float value; bool zero; } positive[] = {
        {"norm epsilon (rms_norm_eps, layer_norm_epsilon)", c->norm_eps, true},
        {"embedding scale", c->embed_scale, false},
        {"attention scale (query_pre_attn_scalar, attention.scale)", c->attention_scale, false},
        {"attention soft cap", c->attention_softcap, true},
        {"final soft cap", c->final_softcap, true},   {"logit scale", c->logit_scale, false},
        {"gegelu limit", c->gegelu_limit, true},      {"query temperature scale", c->temperature_scale, true},
    };
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (!isfinite(positive[i].value) || positive[i].value < 0 || (positive[i].value == 0 && !positive[i].zero))
            return sl_fail(error, SLLM_ERROR_FORMAT, "the %s is %g; it must be a %s number", positive[i].name,
                           (double)positive[i].value, positive[i].zero ? "non-negative" : "positive");
    if (c->temperature_scale > 0 && c->temperature_ctx < 1)
        return sl_fail(error, SLLM_ERROR_FORMAT, "query temperature scaling needs the original context length");
    return SLLM_OK;
}

static sllm_status check_factors(const char *name, const float *factors, int n, sllm_error *error) {
    for (int i = 0; factors && i < n; i++)
        if (!isfinite(factors[i]) || factors[i] <= 0)
            return sl_fail(error, SLLM_ERROR_FORMAT, "item %d of the %s is %g; it must be a positive number", i, name,
                           (double)factors[i]);
    return SLLM_OK;
}

static sllm_status check_rope(const sl_config *c, sllm_error *error) {
    if (!c->family->rope) return SLLM_OK;
    if (c->rope_dim < 2 || c->rope_dim > c->head_dim || c->rope_dim % 2)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%d values of each head of width %d are to be rotated (partial_rotary_factor, "
                       "rope.dimension_count); it must be an even number up to the width", c->rope_dim, c->head_dim);
    if (!isfinite(c->rope_base) || c->rope_base <= 1 || !isfinite(c->rope_local_base) || c->rope_local_base < 0)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the rotary base (rope_theta, rope.freq_base) is %g (local %g); "
                       "it must be more than 1", (double)c->rope_base, (double)c->rope_local_base);
    if (c->rope_scaling != SL_ROPE_NONE && c->rope_scaling != SL_ROPE_LONGROPE &&
        (!isfinite(c->rope_factor) || c->rope_factor <= 0))
        return sl_fail(error, SLLM_ERROR_FORMAT, "the rotary scaling factor (factor, rope.scaling.factor) is %g; "
                       "it must be positive", (double)c->rope_factor);
    bool needs_original = c->rope_scaling >= SL_ROPE_DYNAMIC;
    if (needs_original && (c->rope_original_ctx < 1 || c->rope_original_ctx > MAX_CONTEXT))
        return sl_fail(error, SLLM_ERROR_FORMAT, "the original context length is %d; rotary scaling needs 1..%d",
                       c->rope_original_ctx, MAX_CONTEXT);
    if (c->rope_scaling == SL_ROPE_LLAMA3 &&
        !(c->rope_low_freq > 0 && c->rope_high_freq > c->rope_low_freq && isfinite(c->rope_high_freq)))
        return sl_fail(error, SLLM_ERROR_FORMAT, "low_freq_factor %g and high_freq_factor %g: need 0 < low < high",
                       (double)c->rope_low_freq, (double)c->rope_high_freq);
    if (c->rope_scaling == SL_ROPE_DYNAMIC && c->rope_dim <= 2)
        return sl_fail(error, SLLM_ERROR_FORMAT, "dynamic rotary scaling needs more than 2 rotated values per head");
    if (c->rope_scaling == SL_ROPE_YARN && !(c->yarn_beta_fast > 0 && c->yarn_beta_slow > 0))
        return sl_fail(error, SLLM_ERROR_FORMAT, "yarn's beta_fast %g and beta_slow %g must be positive",
                       (double)c->yarn_beta_fast, (double)c->yarn_beta_slow);
    if (!isfinite(c->rope_attention_factor) || c->rope_attention_factor <= 0 ||
        !isfinite(c->rope_attention_factor_short) || c->rope_attention_factor_short <= 0)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the rotary attention factor is %g; it must be positive",
                       (double)c->rope_attention_factor);
    if (c->rope_scaling == SL_ROPE_LONGROPE && (!c->rope_long || !c->rope_short))
        return sl_fail(error, SLLM_ERROR_FORMAT, "longrope needs both lists of factors, long and short");
    sllm_status status = check_factors("long rotary factors", c->rope_long, c->rope_dim / 2, error);
    if (!status) status = check_factors("short rotary factors", c->rope_short, c->rope_dim / 2, error);
    if (!status) status = check_factors("rotary frequency divisors", c->rope_freqs, c->rope_dim / 2, error);
    return status;
}

static sllm_status check_experts(const sl_config *c, sllm_error *error) {
    if (!c->n_experts) return SLLM_OK;
    if (c->n_experts < 1 || c->n_experts > MAX_EXPERTS || c->n_experts_used < 1 || c->n_experts_used > c->n_experts)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%d experts (num_experts_per_tok, expert_used_count) of %d are to be "
                       "used; need 1..%d of at most %d", c->n_experts_used, c->n_experts, c->n_experts, MAX_EXPERTS);
    if (c->n_ff_expert < 1 || c->n_ff_expert > MAX_WIDTH || c->n_ff_shared < 0 || c->n_ff_shared > MAX_WIDTH)
        return sl_fail(error, SLLM_ERROR_FORMAT, "experts of width %d (shared: %d) must lie in 1..%d", c->n_ff_expert,
                       c->n_ff_shared, MAX_WIDTH);
    return SLLM_OK;
}

static sllm_status check_sparse(const sl_config *c, sllm_error *error) {
    const struct { const char *key; int value; } sizes[] = {{"blocksparse_block_size", c->sparse_block},
                                                            {"blocksparse_num_local_blocks", c->sparse_local},
                                                            {"blocksparse_vert_stride", c->sparse_stride}};
    for (size_t i = 0; c->family->block_sparse && i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > MAX_CONTEXT)
            return sl_fail(error, SLLM_ERROR_FORMAT, "block-sparse attention: %s is %d; it must lie in 1..%d",
                           sizes[i].key, sizes[i].value, MAX_CONTEXT);
    return SLLM_OK;
}

sllm_status sl_config_check(const sl_config *c, sllm_error *error) {
    sllm_status status = check_sizes(c, error);
    if (!status) status = check_numbers(c, error);
    if (!status) status = check_rope(c, error);
    if (!status) status = check_experts(c, error);
    return status ? status : check_sparse(c, error);
}
