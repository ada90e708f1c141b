/* config.json: the Hub's older style (rope_theta, rope_scaling, torch_dtype) and that of transformers 5
 * (rope_parameters, dtype, layer_types). What an absent key means is taken from transformers' configuration classes. */
#include "base/error.h"
#include "model/config.h"
#include "model/families.h"
#include "model/packed.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Reading stops at the first error: once `status` is set, every getter returns its default. */
typedef struct reader {
    const sl_json *root;   /* the whole file */
    const sl_json *object; /* the text model's part of it */
    const sl_family *family;
    sl_arena *arena;
    sl_config *config;
    sllm_error *error;
    sllm_status status;
} reader;

static bool is_null(const sl_json *value) { return !value || value->type == SL_JSON_NULL; }

/* The first of the NULL-terminated `keys` that object has with a value; *key is its name for messages. */
static const sl_json *first_of(const sl_json *object, const char *const *keys, const char **key) {
    for (; *keys; keys++) {
        const sl_json *value = sl_json_get(object, *keys);
        *key = *keys;
        if (!is_null(value)) return value;
    }
    return NULL;
}

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int get_int(reader *r, const sl_json *object, const char *const *keys, int fallback) {
    const char *key;
    const sl_json *value = first_of(object, keys, &key);
    if (r->status || !value) return fallback;
    int64_t number;
    if (!sl_json_int64(value, &number) || number < 0 || number > INT_MAX) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a whole number in 0..%d", key, INT_MAX);
        return fallback;
    }
    return (int)number;
}

static double get_double(reader *r, const sl_json *object, const char *const *keys, double fallback) {
    const char *key;
    const sl_json *value = first_of(object, keys, &key);
    double number;
    if (r->status || !value) return fallback;
    if (!sl_json_double(value, &number) || !isfinite(number) || fabs(number) > 1e30) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a finite number", key);
        return fallback;
    }
    return number;
}

static bool get_bool(reader *r, const sl_json *object, const char *key, bool fallback) {
    const sl_json *value = sl_json_get(object, key);
    bool result = fallback;
    if (r->status || is_null(value)) return fallback;
    if (!sl_json_bool(value, &result))
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is neither true nor false", key);
    return r->status ? fallback : result;
}

static const char *get_string(reader *r, const sl_json *object, const char *key, const char *fallback) {
    const sl_json *value = sl_json_get(object, key);
    if (r->status || is_null(value)) return fallback;
    const char *text = sl_json_string(value);
    if (!text) r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a string", key);
    return text ? text : fallback;
}

/* An array of exactly n items, or NULL when absent (or after an error). */
static const sl_json *get_list(reader *r, const sl_json *object, const char *key, size_t n) {
    const sl_json *value = sl_json_get(object, key);
    if (r->status || is_null(value)) return NULL;
    if (value->type != SL_JSON_ARRAY || value->length != n) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a list of %zu items", key, n);
        return NULL;
    }
    return value;
}

static const float *get_factors(reader *r, const sl_json *object, const char *key, int n) {
    const sl_json *list = get_list(r, object, key, (size_t)n);
    if (!list) return NULL;
    float *factors = sl_arena_array(r->arena, (size_t)n, sizeof *factors);
    if (!factors) r->status = sl_fail_memory(r->error, key, (size_t)n * sizeof *factors);
    for (int i = 0; factors && i < n; i++) {
        double number;
        if (!sl_json_double(list->items[i], &number)) {
            r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "item %d of %s is not a number", i, key);
            return NULL;
        }
        factors[i] = (float)number;
    }
    return factors;
}

/* ---------------------------------------------------------------- family */

static void find_family(reader *r) {
    char known[512];
    const char *model_type = get_string(r, r->object, "model_type", NULL);
    const sl_json *classes = sl_json_get(r->object, "architectures");
    const char *class = sl_json_string(sl_json_at(classes ? classes : sl_json_get(r->root, "architectures"), 0));
    if (r->status) return;
    if (!model_type && r->object != r->root) model_type = sl_json_string(sl_json_get(r->root, "model_type"));
    r->family = model_type ? sl_family_by_hf(model_type) : class ? sl_family_by_class(class) : NULL;
    if (!r->family) {
        sl_family_list(false, known, sizeof known);
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "unknown architecture '%.60s'; known are %s",
                            model_type ? model_type : class ? class : "(none given)", known);
    } else if (r->family->kind == SL_ENCODER) {
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED,
                            "'%s' is an encoder; encoders are not supported yet, only models that generate text",
                            r->family->name);
    } else {
        snprintf(r->config->family_name, sizeof r->config->family_name, "%s",
                 model_type ? model_type : r->family->hf[0]);
    }
}

/* ---------------------------------------------------------------- parts */

static void read_sizes(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const sl_family *f = r->family;
    c->n_vocab = get_int(r, o, KEYS("vocab_size"), f->defaults.n_vocab);
    c->n_embd = get_int(r, o, KEYS("hidden_size", "n_embd"), f->defaults.n_embd);
    c->n_layers = get_int(r, o, KEYS("num_hidden_layers", "n_layer"), f->defaults.n_layers);
    c->n_heads = get_int(r, o, KEYS("num_attention_heads", "n_head"), f->defaults.n_heads);
    c->n_kv_heads = get_int(r, o, KEYS("num_key_value_heads"),
                            f->defaults.n_kv_heads && sl_json_get(o, "num_key_value_heads") == NULL
                                ? f->defaults.n_kv_heads : c->n_heads);
    c->n_ctx_train = get_int(r, o, KEYS("max_position_embeddings", "n_positions"), f->defaults.n_ctx_train);
    c->norm_eps = (float)get_double(r, o, KEYS("rms_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
                                    f->defaults.norm_eps);
    c->head_dim = get_int(r, o, KEYS("head_dim"), f->defaults.head_dim);
    if (!r->status && !c->head_dim) {
        if (c->n_heads < 1 || c->n_embd % c->n_heads)
            r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "hidden_size %d does not divide into %d heads "
                                "(num_attention_heads)", c->n_embd, c->n_heads);
        else
            c->head_dim = c->n_embd / c->n_heads;
    }
    c->n_ff = get_int(r, o, KEYS("intermediate_size", "n_inner", "ff_intermediate_size"), f->defaults.n_ff);
    if (!r->status && !c->n_ff && c->n_embd <= INT_MAX / 4) c->n_ff = 4 * c->n_embd; /* gpt2's n_inner: null */
    /* A multimodal model's own class ties where its file is silent, whatever the text part says; weights.c unties
     * again where the checkpoint holds an output matrix. */
    c->tied = get_bool(r, r->root, "tie_word_embeddings", r->root != o || f->defaults.tied);
}

static void read_activation(reader *r) {
    static const struct { const char *name; sl_activation value; } names[] = {
        {"silu", SL_ACT_SILU},           {"swish", SL_ACT_SILU},
        {"gelu_pytorch_tanh", SL_ACT_GELU_TANH}, {"gelu_new", SL_ACT_GELU_TANH},
        {"gelu_fast", SL_ACT_GELU_TANH}, {"gelu", SL_ACT_GELU_ERF},
        {"gegelu", SL_ACT_GEGELU},       {"relu", SL_ACT_RELU},
    };
    const char *key;
    /* gemma's hidden_act is a left-over: hidden_activation alone counts */
    const char *const *keys = r->family->attention_scalar ? KEYS("hidden_activation")
                                                          : KEYS("hidden_act", "activation_function");
    const sl_json *value = first_of(r->object, keys, &key);
    r->config->activation = r->family->activation;
    if (r->status || !value) return;
    const char *name = sl_json_string(value);
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++) {
        bool fits = (names[i].value == SL_ACT_GEGELU) == (r->family->activation == SL_ACT_GEGELU);
        if (!strcmp(name, names[i].name) && fits) {
            r->config->activation = names[i].value;
            return;
        }
    }
    r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s '%.60s' is not an activation that '%s' can have", key,
                        name ? name : "(not a string)", r->family->name);
}

static void read_biases(reader *r) {
    const sl_family *f = r->family;
    const char *attention_key = f->bias_key ? f->bias_key : "attention_bias";
    const char *mlp_key = f->bias_key ? f->bias_key : "mlp_bias";
    sl_bias_rule attention = get_bool(r, r->object, attention_key, f->bias_default) ? SL_BIAS_ALWAYS : SL_BIAS_NEVER;
    sl_bias_rule mlp = get_bool(r, r->object, mlp_key, f->bias_default) ? SL_BIAS_ALWAYS : SL_BIAS_NEVER;
    r->config->bias_qkv = f->bias_qkv == SL_BIAS_SAID ? attention : f->bias_qkv;
    r->config->bias_out = f->bias_out == SL_BIAS_SAID ? attention : f->bias_out;
    r->config->bias_mlp = f->bias_mlp == SL_BIAS_SAID ? mlp : f->bias_mlp;
}

static void read_scales(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const sl_family *f = r->family;
    c->embed_scale = f->embed_sqrt ? sqrtf((float)c->n_embd) : 1;
    c->logit_scale = 1;
    double per_head = f->attention_scalar ? get_double(r, o, KEYS("query_pre_attn_scalar"), 256) : c->head_dim;
    c->attention_scale = (float)(1 / sqrt(per_head));
    if (f->conv1d) { /* GPT-2's own keys */
        if (!get_bool(r, o, "scale_attn_weights", true)) c->attention_scale = 1;
        c->scale_by_layer = get_bool(r, o, "scale_attn_by_inverse_layer_idx", false);
    }
    if (get_bool(r, o, "use_bidirectional_attention", false))
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "use_bidirectional_attention is not supported");
    bool has_cap = sl_json_get(o, "attn_logit_softcapping"), has_final = sl_json_get(o, "final_logit_softcapping");
    if (f->defaults.attention_softcap > 0) /* gemma 3 has the key too, but no cap on attention */
        c->attention_softcap = (float)get_double(r, o, KEYS("attn_logit_softcapping"),
                                                 has_cap ? 0 : f->defaults.attention_softcap); /* null: none */
    if (f->attention_scalar) /* the gemmas */
        c->final_softcap = (float)get_double(r, o, KEYS("final_logit_softcapping"),
                                             has_final ? 0 : f->defaults.final_softcap);
}

/* Mu-parametrisation, block-sparse pattern and gegelu of Phi-3-small (its published configuration class). */
static void read_phi3small(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    double embed = get_double(r, o, KEYS("mup_embedding_multiplier"), 10);
    double width = get_double(r, o, KEYS("mup_width_multiplier"), 8);
    if (embed > 0) c->embed_scale = (float)embed;
    if (width != 0) c->logit_scale = (float)(1 / width);
    if (get_bool(r, o, "mup_use_scaling", true))
        c->attention_scale = (float)(get_double(r, o, KEYS("mup_attn_multiplier"), 1) / c->head_dim);
    if (is_null(sl_json_get(o, "ff_intermediate_size")) && !is_null(sl_json_get(o, "ff_dim_multiplier"))) {
        int64_t n = (int64_t)get_int(r, o, KEYS("ff_dim_multiplier"), 1) * (c->n_embd / 3) * 2;
        if (get_bool(r, o, "gegelu_pad_to_256", true)) n = (n + 255) / 256 * 256;
        c->n_ff = n > INT_MAX ? INT_MAX : (int)n;
    }
    c->gegelu_limit = (float)get_double(r, o, KEYS("gegelu_limit"), 20);
    c->sparse_block = get_int(r, o, KEYS("blocksparse_block_size"), 64);
    c->sparse_local = get_int(r, o, KEYS("blocksparse_num_local_blocks"), 16);
    c->sparse_stride = get_int(r, o, KEYS("blocksparse_vert_stride"), 8);
    c->sparse_homo = get_bool(r, o, "blocksparse_homo_head_pattern", false);
}

static void read_experts(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const sl_family *f = r->family;
    if (!f->experts) return;
    c->n_experts = get_int(r, o, KEYS("num_local_experts", "num_experts"), f->defaults.n_experts);
    c->n_experts_used = get_int(r, o, KEYS("num_experts_per_tok"), f->defaults.n_experts_used);
    c->n_ff_expert = get_int(r, o, KEYS("moe_intermediate_size"),
                             f->defaults.n_ff_expert ? f->defaults.n_ff_expert : c->n_ff);
    c->n_ff_shared = get_int(r, o, KEYS("shared_expert_intermediate_size"), f->defaults.n_ff_shared);
    c->experts_renormalise = f->experts_renormalise || get_bool(r, o, "norm_topk_prob", false);
}

/* ---------------------------------------------------------------- rotary embedding */

static sl_rope_scaling scaling_type(reader *r, const sl_json *rope) {
    static const struct { const char *name; sl_rope_scaling value; } types[] = {
        {"default", SL_ROPE_NONE}, {"linear", SL_ROPE_LINEAR}, {"dynamic", SL_ROPE_DYNAMIC}, {"llama3", SL_ROPE_LLAMA3},
        {"yarn", SL_ROPE_YARN}, {"longrope", SL_ROPE_LONGROPE}, {"su", SL_ROPE_LONGROPE},
    };
    const char *name = get_string(r, rope, "rope_type", get_string(r, rope, "type", "default"));
    bool is_phi3 = !strcmp(r->family->name, "phi3"); /* early Phi-3 files say "yarn" and mean longrope */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(name, types[i].name))
            return is_phi3 && types[i].value == SL_ROPE_YARN ? SL_ROPE_LONGROPE : types[i].value;
    if (!r->status)
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "rotary scaling '%.60s' is not supported; supported are "
                            "default, linear, dynamic, llama3, yarn and longrope", name);
    return SL_ROPE_NONE;
}

static void read_scaling(reader *r, const sl_json *rope) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const char *original = "original_max_position_embeddings";
    int within = get_int(r, rope, KEYS(original), c->n_ctx_train), by_class = r->family->defaults.rope_original_ctx;
    c->rope_original_ctx = get_int(r, o, KEYS(original), by_class ? by_class : within);
    double by_length = c->rope_original_ctx > 0 ? (double)c->n_ctx_train / c->rope_original_ctx : 0;
    bool needs_factor = c->rope_scaling != SL_ROPE_YARN && c->rope_scaling != SL_ROPE_LONGROPE;
    double factor = get_double(r, rope, KEYS("factor"), needs_factor ? 0 : by_length);
    c->rope_factor = (float)factor;
    c->rope_low_freq = (float)get_double(r, rope, KEYS("low_freq_factor"), 0);
    c->rope_high_freq = (float)get_double(r, rope, KEYS("high_freq_factor"), 0);
    if (c->rope_scaling == SL_ROPE_DYNAMIC) { /* here max_position_embeddings is the length before scaling */
        c->rope_original_ctx = c->n_ctx_train;
        double longer = factor * c->n_ctx_train;
        if (longer > c->n_ctx_train && longer < (1 << 28)) c->n_ctx_train = (int)longer;
    } else if (c->rope_scaling == SL_ROPE_YARN) {
        double fast = get_double(r, rope, KEYS("beta_fast"), 32), slow = get_double(r, rope, KEYS("beta_slow"), 1);
        c->yarn_beta_fast = fast != 0 ? (float)fast : 32; /* 0 counts as absent */
        c->yarn_beta_slow = slow != 0 ? (float)slow : 1;
        c->yarn_truncate = get_bool(r, rope, "truncate", true);
        double derived = sl_yarn_attention_factor(factor, get_double(r, rope, KEYS("mscale"), 0),
                                                  get_double(r, rope, KEYS("mscale_all_dim"), 0));
        c->rope_attention_factor = (float)get_double(r, rope, KEYS("attention_factor"), derived);
        double longer = factor * c->rope_original_ctx;
        if (longer > c->n_ctx_train && longer < (1 << 28)) c->n_ctx_train = (int)longer;
    } else if (c->rope_scaling == SL_ROPE_LONGROPE) {
        c->rope_long = get_factors(r, rope, "long_factor", c->rope_dim / 2);
        c->rope_short = get_factors(r, rope, "short_factor", c->rope_dim / 2);
        double derived = sl_longrope_attention_factor(factor, c->rope_original_ctx);
        c->rope_attention_factor = (float)get_double(r, rope, KEYS("attention_factor"), derived);
        c->rope_attention_factor_short = c->rope_attention_factor;
        if (r->family->block_sparse) { /* phi3-small: a factor for each regime, 1 for the short one when not given */
            double big = get_double(r, rope, KEYS("long_mscale"), 0);
            double small = get_double(r, rope, KEYS("short_mscale"), 0);
            c->rope_attention_factor = (float)(big > 0 ? big : derived);
            c->rope_attention_factor_short = (float)(small > 0 ? small : 1);
        }
    }
}

/* Ministral 3 without rotary parameters: the values its configuration class fills in. */
static void default_yarn(sl_config *c) {
    c->rope_scaling = SL_ROPE_YARN;
    c->rope_base = 1000000; /* whatever rope_theta says */
    c->rope_factor = 16;
    c->rope_original_ctx = c->temperature_ctx = 16384;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    c->yarn_truncate = true;
    c->temperature_scale = 0.1f;
}

static void read_rope(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const sl_family *f = r->family;
    c->rope_attention_factor = c->rope_attention_factor_short = 1;
    if (!f->rope) return;
    const sl_json *rope = sl_json_get(o, "rope_scaling"), *local = NULL;
    if (is_null(rope) || (rope->type == SL_JSON_OBJECT && !rope->length)) rope = sl_json_get(o, "rope_parameters");
    if (!is_null(rope) && rope->type != SL_JSON_OBJECT) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not an object", rope->key ? rope->key : "rope_scaling");
        return;
    }
    /* transformers 5: one object per kind of layer where these differ */
    const sl_json *full = sl_json_get(rope, "full_attention"), *sliding = sl_json_get(rope, "sliding_attention");
    if (full || sliding) {
        rope = is_null(full) ? NULL : full;
        local = is_null(sliding) ? NULL : sliding;
    }
    double theta = get_double(r, o, KEYS("rope_theta", "rope_embedding_base"), f->defaults.rope_base);
    double part = 1;
    if (f->partial_rope)
        part = get_double(r, rope, KEYS("partial_rotary_factor"), get_double(r, o, KEYS("partial_rotary_factor"), 1));
    c->rope_base = (float)get_double(r, rope, KEYS("rope_theta"), theta);
    c->rope_dim = part > 0 && part <= 1 ? (int)(c->head_dim * part) : -1;
    if (f->local_rope || local) {
        double local_theta = get_double(r, o, KEYS("rope_local_base_freq"), f->local_rope ? 10000 : theta);
        c->rope_local_base = (float)get_double(r, local, KEYS("rope_theta"), local_theta);
        sl_rope_scaling type = scaling_type(r, local);
        if (type == SL_ROPE_LINEAR) c->rope_local_factor = (float)get_double(r, local, KEYS("factor"), 0);
        bool fits = type == SL_ROPE_NONE || (type == SL_ROPE_LINEAR && c->rope_local_factor > 0);
        if (!fits && !r->status)
            r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "rotary scaling of sliding layers is supported as "
                                "'linear' with a positive factor only");
    }
    if (is_null(rope) && f->yarn_default) {
        default_yarn(c);
        return;
    }
    c->rope_scaling = scaling_type(r, rope);
    if (c->rope_scaling != SL_ROPE_NONE) read_scaling(r, rope);
    if (f->yarn_default) { /* Ministral 3's; other families may carry the key and do not use it */
        c->temperature_scale = (float)get_double(r, rope, KEYS("llama_4_scaling_beta"), 0);
        c->temperature_ctx = c->rope_original_ctx;
    }
    double position_scale = f->block_sparse ? get_double(r, o, KEYS("rope_position_scale"), 1) : 1;
    if (position_scale != 1 && c->rope_scaling == SL_ROPE_NONE) {
        c->rope_scaling = SL_ROPE_LINEAR;
        c->rope_factor = (float)(1 / position_scale);
    }
}

/* ---------------------------------------------------------------- layers */

static bool windowed_by_rule(reader *r, int layer, int pattern, int max_window_layers, bool has_rope) {
    switch (r->family->window) {
    case SL_WINDOW_ALL:
    case SL_WINDOW_TYPES: return true;
    case SL_WINDOW_ALTERNATE: return layer % 2 == 0;
    case SL_WINDOW_PATTERN: return (layer + 1) % pattern != 0;
    case SL_WINDOW_UPPER: return layer >= max_window_layers;
    case SL_WINDOW_LOWER_EVEN: return layer % 2 == 0 && layer < max_window_layers;
    case SL_WINDOW_NO_ROPE: return !has_rope;
    case SL_WINDOW_NONE: break;
    }
    return false;
}

static int read_window(reader *r) {
    const sl_json *o = r->object;
    sl_window_rule rule = r->family->window;
    bool optional = rule == SL_WINDOW_UPPER || rule == SL_WINDOW_LOWER_EVEN ||
                    (rule == SL_WINDOW_NO_ROPE && is_null(sl_json_get(o, "layer_types")));
    if (rule == SL_WINDOW_NONE || (optional && !get_bool(r, o, "use_sliding_window", false))) return 0;
    int absent = sl_json_get(o, "sliding_window") ? 0 : r->family->defaults.window; /* null: no window */
    return get_int(r, o, KEYS("sliding_window"), absent);
}

/* True when item `layer` of layer_types says sliding. */
static bool sliding_type(reader *r, const sl_json *types, int layer) {
    const char *type = sl_json_string(types->items[layer]);
    if (type && !strcmp(type, "sliding_attention")) return true;
    if (!type || strcmp(type, "full_attention"))
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "layer_types: layer %d is '%.60s'; supported are "
                            "full_attention and sliding_attention", layer, type ? type : "(not a string)");
    return false;
}

static void read_layers(reader *r) {
    sl_config *c = r->config;
    const sl_json *o = r->object;
    const sl_family *f = r->family;
    size_t n = (size_t)c->n_layers;
    c->sliding_window = read_window(r);
    bool reads_types = f->window != SL_WINDOW_NONE && f->window != SL_WINDOW_ALL;
    const sl_json *types = reads_types ? get_list(r, o, "layer_types", n) : NULL;
    const sl_json *ropes = f->no_rope_every ? get_list(r, o, "no_rope_layers", n) : NULL;
    int no_rope_every = get_int(r, o, KEYS("no_rope_layer_interval"), f->no_rope_every);
    int pattern = get_int(r, o, KEYS("sliding_window_pattern"), 6);
    int max_window_layers = get_int(r, o, KEYS("max_window_layers"), 28);
    int dense_every = get_int(r, o, KEYS("dense_attention_every_n_layers"), 0);
    int sparse_step = get_int(r, o, KEYS("decoder_sparse_step"), 1);
    const sl_json *mlp_only = sl_json_get(o, "mlp_only_layers");
    if (!r->status && (pattern < 1 || sparse_step < 1))
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT,
                            "sliding_window_pattern and decoder_sparse_step must be positive");
    if (r->status) return;
    c->layers = sl_arena_array(r->arena, n, sizeof *c->layers);
    if (!c->layers) {
        r->status = sl_fail_memory(r->error, "the layers' configuration", n * sizeof *c->layers);
        return;
    }
    for (int i = 0; i < c->n_layers && !r->status; i++) {
        sl_layer_config *layer = &c->layers[i];
        int64_t flag = 1;
        if (ropes && !sl_json_int64(ropes->items[i], &flag))
            r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "no_rope_layers: item %d is not a whole number", i);
        bool every = no_rope_every && f->no_rope_every && (i + 1) % no_rope_every == 0;
        layer->rope = c->rope_dim && (ropes ? flag != 0 : !every);
        bool windowed = types ? sliding_type(r, types, i)
                              : windowed_by_rule(r, i, pattern, max_window_layers, layer->rope);
        layer->window = windowed ? c->sliding_window : 0;
        layer->local_rope = windowed && c->rope_local_base > 0;
        layer->block_sparse = f->block_sparse && !(dense_every && (i + 1) % dense_every == 0);
        layer->moe = c->n_experts > 0 && (i + 1) % sparse_step == 0;
        for (size_t j = 0; mlp_only && mlp_only->type == SL_JSON_ARRAY && j < mlp_only->length; j++)
            if (sl_json_int64(mlp_only->items[j], &flag) && flag == i) layer->moe = false;
    }
}

/* ---------------------------------------------------------------- entry */

sllm_status sl_config_from_json(const sl_json *root, sl_arena *arena, sl_config *config, sllm_error *error) {
    *config = (sl_config){0};
    reader r = {.root = root, .object = root, .arena = arena, .config = config, .error = error};
    if (!root || root->type != SL_JSON_OBJECT) return sl_fail(error, SLLM_ERROR_FORMAT, "not a JSON object");
    const sl_json *text = sl_json_get(root, "text_config");
    if (text && text->type == SL_JSON_OBJECT) r.object = text;
    find_family(&r);
    if (r.status) return r.status;
    const sl_json *quantised = sl_json_get(root, "quantization_config");
    if (!is_null(quantised)) {
        sllm_status status = sl_packed_check(quantised, error);
        if (status) return status;
    }
    config->family = r.family;
    config->norm = r.family->norm;
    config->norm_plus_one = r.family->norm_plus_one;
    const char *name = get_string(&r, root, "_name_or_path", "");
    snprintf(config->name, sizeof config->name, "%s", name);
    read_sizes(&r);
    read_activation(&r);
    read_biases(&r);
    if (!r.status) read_scales(&r);
    if (!r.status && r.family->block_sparse) read_phi3small(&r);
    read_experts(&r);
    if (!r.status) read_rope(&r);
    if (!r.status) r.status = sl_config_check(config, error); /* before n_layers sizes an allocation */
    if (!r.status) read_layers(&r);
    if (!r.status) r.status = sl_config_check(config, error);
    return r.status;
}

size_t sl_config_end_ids(const sl_json *object, int n_vocab, int32_t *ids, size_t limit) {
    const sl_json *value = sl_json_get(object, "eos_token_id");
    size_t n = 0;
    int64_t id;
    if (!value && object) value = sl_json_get(sl_json_get(object, "text_config"), "eos_token_id");
    if (!value) return 0;
    if (value->type != SL_JSON_ARRAY) {
        if (limit && sl_json_int64(value, &id) && id >= 0 && id < n_vocab) ids[n++] = (int32_t)id;
        return n;
    }
    for (size_t i = 0; i < value->length && n < limit; i++)
        if (sl_json_int64(value->items[i], &id) && id >= 0 && id < n_vocab) ids[n++] = (int32_t)id;
    return n;
}
