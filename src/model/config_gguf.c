/* GGUF metadata ("<architecture>.*" keys, ggml's docs/gguf.md). A GGUF file says less than a checkpoint; where it is
 * silent the family's rules, which are what the converter and llama.cpp assume, fill in. */
#include "base/error.h"
#include "model/config.h"
#include "model/families.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Reading stops at the first error: once `status` is set, every getter returns its default. */
typedef struct reader {
    const sl_gguf *gguf;
    const sl_family *family;
    char architecture[48];
    sl_arena *arena;
    sl_config *config;
    sllm_error *error;
    sllm_status status;
} reader;

/* "<architecture>.<suffix>" into key [128]. */
static const char *key_of(const reader *r, const char *suffix, char key[128]) {
    snprintf(key, 128, "%s.%s", r->architecture, suffix);
    return key;
}

static void take_error(reader *r, const sllm_error *error) {
    r->status = error->status;
    if (r->error) *r->error = *error;
}

static int get_int(reader *r, const char *suffix, int fallback) {
    char key[128];
    int64_t value;
    sllm_error error = {0};
    if (r->status) return fallback;
    if (!sl_gguf_get_int(r->gguf, key_of(r, suffix, key), &value, &error)) {
        if (error.status) take_error(r, &error);
        return fallback;
    }
    if (value < 0 || value > INT_MAX) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is %lld; it must lie in 0..%d", key, (long long)value,
                            INT_MAX);
        return fallback;
    }
    return (int)value;
}

static int require_int(reader *r, const char *suffix) {
    char key[128];
    int value = get_int(r, suffix, -1);
    if (value >= 0 || r->status) return value;
    r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "the key %s is missing", key_of(r, suffix, key));
    return 0;
}

static double get_float(reader *r, const char *suffix, double fallback) {
    char key[128];
    double value;
    sllm_error error = {0};
    if (r->status) return fallback;
    if (!sl_gguf_get_float(r->gguf, key_of(r, suffix, key), &value, &error)) {
        if (error.status) take_error(r, &error);
        return fallback;
    }
    if (!isfinite(value) || fabs(value) > 1e30) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a finite number", key);
        return fallback;
    }
    return value;
}

static bool get_bool(reader *r, const char *suffix, bool fallback) {
    char key[128];
    bool value;
    sllm_error error = {0};
    if (r->status) return fallback;
    if (sl_gguf_get_bool(r->gguf, key_of(r, suffix, key), &value, &error)) return value;
    if (error.status) take_error(r, &error);
    return fallback;
}

/* A string value into out [size]; false when absent or too long. `key` is whole. */
static bool get_string(reader *r, const char *key, char *out, size_t size) {
    const char *text;
    size_t length;
    sllm_error error = {0};
    out[0] = 0;
    if (r->status) return false;
    if (!sl_gguf_get_string(r->gguf, key, &text, &length, &error)) {
        if (error.status) take_error(r, &error);
        return false;
    }
    if (length >= size || memchr(text, 0, length)) return false;
    memcpy(out, text, length);
    out[length] = 0;
    return true;
}

/* A one-dimensional tensor of n floats copied into the arena; NULL: absent. */
static const float *get_vector(reader *r, const char *slot, int n) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", slot);
    const sl_tensor *tensor = sl_gguf_tensor(r->gguf, name);
    if (r->status || !tensor) return NULL;
    if (tensor->n_dims != 1 || tensor->shape[0] != n || tensor->type != SL_F32) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s is not a list of %d F32 values", name, n);
        return NULL;
    }
    float *copy = sl_arena_array(r->arena, (size_t)n, sizeof *copy);
    if (!copy) r->status = sl_fail_memory(r->error, name, (size_t)n * sizeof *copy);
    else memcpy(copy, tensor->data, (size_t)n * sizeof *copy);
    return copy;
}

/* ---------------------------------------------------------------- parts */

static void find_family(reader *r) {
    char known[512];
    if (!get_string(r, "general.architecture", r->architecture, sizeof r->architecture)) {
        if (!r->status) r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "the key general.architecture is missing");
        return;
    }
    bool experts = get_int(r, "expert_count", 0) > 0;
    r->family = sl_family_by_gguf(r->architecture, experts);
    if (r->status) return;
    if (!r->family) {
        sl_family_list(true, known, sizeof known);
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "unknown architecture '%s'%s; known are %s",
                            r->architecture, experts ? " with experts" : "", known);
    } else if (r->family->kind == SL_ENCODER) {
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED,
                            "'%s' is an encoder; encoders are not supported yet, only models that generate text",
                            r->family->name);
    }
    snprintf(r->config->family_name, sizeof r->config->family_name, "%s", r->architecture);
}

static void read_sizes(reader *r) {
    sl_config *c = r->config;
    c->n_layers = require_int(r, "block_count");
    c->n_embd = require_int(r, "embedding_length");
    c->n_heads = require_int(r, "attention.head_count");
    c->n_kv_heads = get_int(r, "attention.head_count_kv", c->n_heads);
    c->n_ff = require_int(r, "feed_forward_length");
    c->n_ctx_train = require_int(r, "context_length");
    const char *eps = c->norm == SL_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    c->norm_eps = (float)get_float(r, eps, r->family->defaults.norm_eps);
    bool even = c->n_heads > 0 && c->n_embd % c->n_heads == 0;
    c->head_dim = get_int(r, "attention.key_length", even ? c->n_embd / c->n_heads : 0);
    if (!r->status && get_int(r, "attention.value_length", c->head_dim) != c->head_dim)
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "values and keys of different width are not supported");
    const sl_tensor *embed = sl_gguf_tensor(r->gguf, "token_embd.weight");
    if (r->status) return;
    if (embed && (embed->n_dims != 2 || embed->shape[0] > INT_MAX)) {
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor token_embd.weight is not a matrix");
        return;
    }
    c->n_vocab = embed ? (int)embed->shape[0] : require_int(r, "vocab_size");
    c->tied = !sl_gguf_tensor(r->gguf, "output.weight");
}

/* No key tells: block 0 decides for all. */
static void read_biases(reader *r) {
    const sl_family *f = r->family;
    const sl_gguf *g = r->gguf;
    bool qkv = sl_gguf_tensor(g, "blk.0.attn_q.bias") || sl_gguf_tensor(g, "blk.0.attn_qkv.bias");
    bool out = sl_gguf_tensor(g, "blk.0.attn_output.bias"), mlp = sl_gguf_tensor(g, "blk.0.ffn_up.bias");
    r->config->bias_qkv = f->bias_qkv != SL_BIAS_SAID ? f->bias_qkv : qkv ? SL_BIAS_ALWAYS : SL_BIAS_NEVER;
    r->config->bias_out = f->bias_out != SL_BIAS_SAID ? f->bias_out : out ? SL_BIAS_ALWAYS : SL_BIAS_NEVER;
    r->config->bias_mlp = f->bias_mlp != SL_BIAS_SAID ? f->bias_mlp : mlp ? SL_BIAS_ALWAYS : SL_BIAS_NEVER;
}

static void read_scales(reader *r) {
    sl_config *c = r->config;
    const sl_family *f = r->family;
    c->embed_scale = f->embed_sqrt ? sqrtf((float)c->n_embd) : 1;
    c->logit_scale = 1;
    /* The file has no query_pre_attn_scalar; only the 27B models (46 and 62 layers) differ from the width of a head. */
    bool is_27b = f->attention_scalar && c->n_layers == (f->head_norms ? 62 : 46) && c->n_heads > 0;
    double per_head = is_27b ? (double)c->n_embd / c->n_heads : c->head_dim;
    c->attention_scale = (float)get_float(r, "attention.scale", per_head > 0 ? 1 / sqrt(per_head) : 1);
    c->attention_softcap = (float)get_float(r, "attn_logit_softcapping", f->defaults.attention_softcap);
    c->final_softcap = (float)get_float(r, "final_logit_softcapping", f->defaults.final_softcap);
}

static void read_scaling(reader *r) {
    sl_config *c = r->config;
    char key[128], type[32];
    c->rope_factor = (float)get_float(r, "rope.scaling.factor", get_float(r, "rope.scale_linear", 1));
    c->rope_original_ctx = get_int(r, "rope.scaling.original_context_length", c->n_ctx_train);
    c->rope_long = get_vector(r, "rope_factors_long", c->rope_dim / 2);
    c->rope_short = get_vector(r, "rope_factors_short", c->rope_dim / 2);
    c->rope_freqs = get_vector(r, "rope_freqs", c->rope_dim / 2);
    bool said = get_string(r, key_of(r, "rope.scaling.type", key), type, sizeof type);
    if (!said) snprintf(type, sizeof type, "%s", c->rope_long ? "longrope" : c->rope_factor != 1 ? "linear" : "none");
    if (!strcmp(type, "none") && c->rope_long) snprintf(type, sizeof type, "longrope");
    if (!strcmp(type, "none")) {
        c->rope_scaling = SL_ROPE_NONE;
    } else if (!strcmp(type, "linear")) {
        c->rope_scaling = SL_ROPE_LINEAR;
    } else if (!strcmp(type, "longrope")) {
        c->rope_scaling = SL_ROPE_LONGROPE;
        double ratio = c->rope_original_ctx > 0 ? (double)c->n_ctx_train / c->rope_original_ctx : 1;
        double factor = get_float(r, "rope.scaling.attn_factor",
                                  sl_longrope_attention_factor(ratio, c->rope_original_ctx));
        c->rope_attention_factor = c->rope_attention_factor_short = (float)factor;
    } else if (!strcmp(type, "yarn")) {
        c->rope_scaling = SL_ROPE_YARN;
        c->yarn_beta_fast = (float)get_float(r, "rope.scaling.yarn_beta_fast", 32);
        c->yarn_beta_slow = (float)get_float(r, "rope.scaling.yarn_beta_slow", 1);
        c->yarn_truncate = true;
        double all = get_float(r, "rope.scaling.yarn_log_multiplier", 0);
        double factor = sl_yarn_attention_factor(c->rope_factor, all != 0 ? 1 : 0, all);
        c->rope_attention_factor = (float)(get_float(r, "rope.scaling.attn_factor", 1) * factor);
    } else if (!r->status) {
        r->status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "%s '%s' is not supported; supported are none, linear, "
                            "yarn and longrope", key, type);
    }
}

static void read_rope(reader *r) {
    sl_config *c = r->config;
    const sl_family *f = r->family;
    c->rope_attention_factor = c->rope_attention_factor_short = 1;
    if (!f->rope) return;
    c->rope_interleaved = f->gguf_interleaved;
    c->rope_base = (float)get_float(r, "rope.freq_base", f->defaults.rope_base);
    c->rope_dim = get_int(r, "rope.dimension_count", c->head_dim);
    if (f->local_rope) c->rope_local_base = (float)get_float(r, "rope.freq_base_swa", 10000);
    if (c->rope_dim > 0 && c->rope_dim <= c->head_dim) read_scaling(r);
    c->temperature_scale = (float)get_float(r, "attention.temperature_scale", 0);
    c->temperature_ctx = c->rope_original_ctx;
}

static void read_experts(reader *r) {
    sl_config *c = r->config;
    const sl_family *f = r->family;
    if (!f->experts) return;
    c->n_experts = require_int(r, "expert_count");
    c->n_experts_used = require_int(r, "expert_used_count");
    int each = f->defaults.n_ff_expert && c->n_experts_used > 0 ? c->n_ff / c->n_experts_used : c->n_ff;
    c->n_ff_expert = get_int(r, "expert_feed_forward_length", each);
    c->n_ff_shared = f->defaults.n_ff_shared ? get_int(r, "expert_shared_feed_forward_length", c->n_ff) : 0;
    c->experts_renormalise = get_bool(r, "expert_weights_norm", f->experts_renormalise);
}

static bool windowed(const sl_family *f, int layer, int pattern) {
    switch (f->gguf_window) {
    case SL_WINDOW_ALL:
    case SL_WINDOW_TYPES: return true;
    case SL_WINDOW_ALTERNATE: return layer % 2 == 0;
    case SL_WINDOW_PATTERN: return (layer + 1) % pattern != 0;
    default: return false;
    }
}

/* Settings of single layers that `sllm convert` writes where the rules above would give others: a list of n_layers
 * windows (i32, 0: none) and one of bools. */
static void read_own_layers(reader *r) {
    sl_config *c = r->config;
    sl_gguf_value list, item;
    static const char *const keys[] = {"sllm.layers.window", "sllm.layers.rope"};
    for (int k = 0; k < 2; k++) {
        sl_gguf_type type = k ? SL_GGUF_BOOL : SL_GGUF_I32;
        if (!sl_gguf_find(r->gguf, keys[k], &list)) continue;
        if (list.type != SL_GGUF_ARRAY || list.array.type != type || list.array.count != (uint64_t)c->n_layers) {
            r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "%s is not a list of %d %s", keys[k], c->n_layers,
                                k ? "bools" : "i32");
            return;
        }
        const unsigned char *at = list.array.data;
        for (int i = 0; i < c->n_layers && sl_gguf_array_next(&list, &at, &item); i++) {
            sl_layer_config *layer = &c->layers[i];
            if (k) layer->rope = item.u && c->rope_dim;
            else layer->window = item.i > 0 && item.i < INT32_MAX ? (int)item.i : 0;
            if (!k) layer->local_rope = layer->window > 0 && c->rope_local_base > 0;
        }
    }
}

static void read_layers(reader *r) {
    sl_config *c = r->config;
    const sl_family *f = r->family;
    size_t n = (size_t)c->n_layers;
    if (f->gguf_window != SL_WINDOW_NONE)
        c->sliding_window = get_int(r, "attention.sliding_window", f->defaults.window);
    int pattern = get_int(r, "attention.sliding_window_pattern", 6);
    if (!r->status && pattern < 1)
        r->status = sl_fail(r->error, SLLM_ERROR_FORMAT, "attention.sliding_window_pattern must be positive");
    if (r->status) return;
    c->layers = sl_arena_array(r->arena, n, sizeof *c->layers);
    if (!c->layers) {
        r->status = sl_fail_memory(r->error, "the layers' configuration", n * sizeof *c->layers);
        return;
    }
    for (int i = 0; i < c->n_layers; i++) {
        sl_layer_config *layer = &c->layers[i];
        bool local = windowed(f, i, pattern);
        layer->rope = c->rope_dim && !(f->no_rope_every && (i + 1) % f->no_rope_every == 0);
        layer->window = local ? c->sliding_window : 0;
        layer->local_rope = local && c->rope_local_base > 0;
        layer->moe = c->n_experts > 0;
    }
    read_own_layers(r);
}

sllm_status sl_config_from_gguf(const sl_gguf *gguf, sl_arena *arena, sl_config *config, sllm_error *error) {
    *config = (sl_config){0};
    reader r = {.gguf = gguf, .arena = arena, .config = config, .error = error};
    find_family(&r);
    if (r.status) return r.status;
    config->family = r.family;
    config->norm = r.family->norm;
    config->activation = r.family->activation;
    read_biases(&r);
    get_string(&r, "general.name", config->name, sizeof config->name);
    get_string(&r, "general.license", config->licence, sizeof config->licence);
    read_sizes(&r);
    if (!r.status) read_scales(&r);
    if (!r.status) read_rope(&r);
    read_experts(&r);
    if (!r.status) r.status = sl_config_check(config, error); /* before n_layers sizes an allocation */
    if (!r.status) read_layers(&r);
    if (!r.status) r.status = sl_config_check(config, error);
    return r.status;
}
