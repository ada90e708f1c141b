/* A model's configuration as a config.json: the way back from config_hf.c. */
#include "quant/export.h"

#include "base/error.h"
#include "base/json.h"
#include "model/rope.h"
#include "quant/convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    const sl_config *c;
    const sl_family *f;
    sl_buffer *out;
} writer;

static void put_strings(const writer *w, const char *key, const char *const *items, size_t n) {
    sl_json_key(w->out, key);
    sl_buffer_putc(w->out, '[');
    for (size_t i = 0; i < n; i++) {
        sl_json_comma(w->out);
        sl_json_write_string(w->out, items[i], strlen(items[i]));
    }
    sl_buffer_putc(w->out, ']');
}

/* With a point: transformers refuses a whole number where a float is meant. Shortest text that reads back as the float. */
static void put_float(sl_buffer *out, const char *key, double value) {
    char text[40];
    int digits = 6;
    sl_json_key(out, key);
    do snprintf(text, sizeof text, "%.*g", digits, value);
    while ((float)strtod(text, NULL) != (float)value && ++digits <= 9);
    sl_buffer_puts(out, text);
    if (!strpbrk(text, ".e")) sl_buffer_puts(out, ".0");
}

static void put_floats(sl_buffer *out, const char *key, const float *items, int n) {
    sl_json_key(out, key);
    sl_buffer_putc(out, '[');
    for (int i = 0; i < n; i++) {
        sl_json_comma(out);
        sl_buffer_printf(out, "%.9g", (double)items[i]);
    }
    sl_buffer_putc(out, ']');
}

/* ---------------------------------------------------------------- sizes and kinds */

static void put_sizes(const writer *w) {
    const sl_config *c = w->c;
    bool gpt2 = w->f->conv1d;
    sl_json_put_int(w->out, "vocab_size", c->n_vocab);
    sl_json_put_int(w->out, gpt2 ? "n_embd" : "hidden_size", c->n_embd);
    sl_json_put_int(w->out, gpt2 ? "n_inner" : "intermediate_size", c->n_ff);
    sl_json_put_int(w->out, gpt2 ? "n_layer" : "num_hidden_layers", c->n_layers);
    sl_json_put_int(w->out, gpt2 ? "n_head" : "num_attention_heads", c->n_heads);
    if (!gpt2) {
        sl_json_put_int(w->out, "num_key_value_heads", c->n_kv_heads);
        sl_json_put_int(w->out, "head_dim", c->head_dim);
    }
    sl_json_put_int(w->out, gpt2 ? "n_positions" : "max_position_embeddings", c->n_ctx_train);
    put_float(w->out, gpt2 ? "layer_norm_epsilon" : c->norm == SL_NORM_LAYER ? "norm_epsilon" : "rms_norm_eps", c->norm_eps);
    sl_json_put_bool(w->out, "tie_word_embeddings", c->tied);
}

static void put_activation(const writer *w) {
    static const char *const names[] = {
        [SL_ACT_SILU] = "silu", [SL_ACT_GELU_TANH] = "gelu_pytorch_tanh", [SL_ACT_GELU_ERF] = "gelu", [SL_ACT_RELU] = "relu",
        [SL_ACT_GEGELU] = "gegelu",
    };
    const char *name = w->f->conv1d && w->c->activation == SL_ACT_GELU_TANH ? "gelu_new" : names[w->c->activation];
    if (w->f->attention_scalar) sl_json_put_string(w->out, "hidden_activation", name);
    else sl_json_put_string(w->out, w->f->conv1d ? "activation_function" : "hidden_act", name);
}

static void put_biases(const writer *w) {
    const sl_config *c = w->c;
    const sl_family *f = w->f;
    if (f->bias_qkv == SL_BIAS_SAID || f->bias_out == SL_BIAS_SAID)
        sl_json_put_bool(w->out, f->bias_key ? f->bias_key : "attention_bias",
                         (f->bias_qkv == SL_BIAS_SAID ? c->bias_qkv : c->bias_out) == SL_BIAS_ALWAYS);
    if (f->bias_mlp == SL_BIAS_SAID && !f->bias_key) sl_json_put_bool(w->out, "mlp_bias", c->bias_mlp == SL_BIAS_ALWAYS);
}

static void put_scales(const writer *w) {
    const sl_config *c = w->c;
    if (w->f->attention_scalar) {
        double per_head = 1 / ((double)c->attention_scale * (double)c->attention_scale);
        bool whole = fabs(per_head - rint(per_head)) < 1e-4 * per_head;
        if (whole) sl_json_put_int(w->out, "query_pre_attn_scalar", (int64_t)rint(per_head));
        else put_float(w->out, "query_pre_attn_scalar", per_head);
        if (c->attention_softcap > 0) put_float(w->out, "attn_logit_softcapping", c->attention_softcap);
        else sl_json_put_string(w->out, "attn_logit_softcapping", NULL);
        if (c->final_softcap > 0) put_float(w->out, "final_logit_softcapping", c->final_softcap);
        else sl_json_put_string(w->out, "final_logit_softcapping", NULL);
    }
    if (!w->f->conv1d) return;
    sl_json_put_bool(w->out, "scale_attn_weights", c->attention_scale != 1);
    sl_json_put_bool(w->out, "scale_attn_by_inverse_layer_idx", c->scale_by_layer);
}

static void put_experts(const writer *w) {
    const sl_config *c = w->c;
    bool dense = false;
    if (!c->n_experts) return;
    sl_json_put_int(w->out, !strcmp(w->f->name, "mixtral") ? "num_local_experts" : "num_experts", c->n_experts);
    sl_json_put_int(w->out, "num_experts_per_tok", c->n_experts_used);
    sl_json_put_int(w->out, "moe_intermediate_size", c->n_ff_expert);
    if (c->n_ff_shared) sl_json_put_int(w->out, "shared_expert_intermediate_size", c->n_ff_shared);
    if (!w->f->experts_renormalise) sl_json_put_bool(w->out, "norm_topk_prob", c->experts_renormalise);
    for (int i = 0; i < c->n_layers; i++) dense |= !c->layers[i].moe;
    if (!dense) return;
    sl_json_key(w->out, "mlp_only_layers");
    sl_buffer_putc(w->out, '[');
    for (int i = 0; i < c->n_layers; i++)
        if (!c->layers[i].moe) {
            sl_json_comma(w->out);
            sl_buffer_printf(w->out, "%d", i);
        }
    sl_buffer_putc(w->out, ']');
}

/* ---------------------------------------------------------------- layers */

static void put_layers(const writer *w) {
    const sl_config *c = w->c;
    int window = 0;
    for (int i = 0; i < c->n_layers; i++) window = c->layers[i].window ? c->layers[i].window : window;
    if (w->f->window == SL_WINDOW_NONE) window = 0;
    if (w->f->window != SL_WINDOW_NONE) {
        if (window) sl_json_put_int(w->out, "sliding_window", window);
        else sl_json_put_string(w->out, "sliding_window", NULL);
    }
    bool optional = w->f->window == SL_WINDOW_UPPER || w->f->window == SL_WINDOW_LOWER_EVEN || w->f->window == SL_WINDOW_NO_ROPE;
    if (optional) sl_json_put_bool(w->out, "use_sliding_window", window > 0);
    if (w->f->no_rope_every) {
        sl_json_key(w->out, "no_rope_layers");
        sl_buffer_putc(w->out, '[');
        for (int i = 0; i < c->n_layers; i++) {
            sl_json_comma(w->out);
            sl_buffer_puts(w->out, c->layers[i].rope ? "1" : "0");
        }
        sl_buffer_putc(w->out, ']');
    }
    if (w->f->window == SL_WINDOW_NONE || w->f->window == SL_WINDOW_ALL || !window) return;
    sl_json_key(w->out, "layer_types");
    sl_buffer_putc(w->out, '[');
    for (int i = 0; i < c->n_layers; i++) {
        sl_json_comma(w->out);
        sl_buffer_puts(w->out, c->layers[i].window ? "\"sliding_attention\"" : "\"full_attention\"");
    }
    sl_buffer_putc(w->out, ']');
}

/* ---------------------------------------------------------------- rotary embedding */

/* Divisors that come as a tensor are Llama 3's scaling; its numbers are found by trial. False: they are not. */
static bool find_llama3(const sl_config *c, sl_config *found) {
    int half = c->rope_dim / 2;
    float *plain = malloc((size_t)half * 2 * sizeof *plain), *scaled = plain + half, factor;
    bool same = false;
    if (!plain) return false;
    *found = *c;
    found->rope_freqs = NULL;
    found->rope_scaling = SL_ROPE_NONE;
    sl_rope_frequencies(found, 0, false, plain, &factor);
    found->rope_scaling = SL_ROPE_LLAMA3;
    found->rope_factor = 1;
    found->rope_low_freq = 1;
    found->rope_high_freq = 4;
    for (int j = 0; j < half; j++) found->rope_factor = fmaxf(found->rope_factor, c->rope_freqs[j]);
    for (int original = 32; original <= 1 << 20 && !same; original *= 2) {
        found->rope_original_ctx = original;
        sl_rope_frequencies(found, 0, false, scaled, &factor);
        same = true;
        for (int j = 0; j < half && same; j++) same = fabsf(plain[j] / scaled[j] - c->rope_freqs[j]) <= 1e-4f * c->rope_freqs[j];
    }
    free(plain);
    return same;
}

static void put_rope_scaling(const writer *w, const sl_config *c) {
    static const char *const names[] = {
        [SL_ROPE_LINEAR] = "linear", [SL_ROPE_DYNAMIC] = "dynamic", [SL_ROPE_LLAMA3] = "llama3", [SL_ROPE_YARN] = "yarn",
        [SL_ROPE_LONGROPE] = "longrope",
    };
    sl_buffer *out = w->out;
    sl_json_key(out, "rope_scaling");
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "rope_type", names[c->rope_scaling]);
    if (c->rope_scaling != SL_ROPE_LONGROPE) put_float(out, "factor", c->rope_factor);
    if (c->rope_scaling == SL_ROPE_LLAMA3) {
        put_float(out, "low_freq_factor", c->rope_low_freq);
        put_float(out, "high_freq_factor", c->rope_high_freq);
    }
    if (c->rope_scaling == SL_ROPE_LLAMA3 || c->rope_scaling == SL_ROPE_YARN)
        sl_json_put_int(out, "original_max_position_embeddings", c->rope_original_ctx);
    if (c->rope_scaling == SL_ROPE_YARN) {
        put_float(out, "beta_fast", c->yarn_beta_fast);
        put_float(out, "beta_slow", c->yarn_beta_slow);
        sl_json_put_bool(out, "truncate", c->yarn_truncate);
        put_float(out, "attention_factor", c->rope_attention_factor);
    }
    if (c->rope_scaling == SL_ROPE_LONGROPE) {
        put_floats(out, "long_factor", c->rope_long, c->rope_dim / 2);
        put_floats(out, "short_factor", c->rope_short, c->rope_dim / 2);
        put_float(out, "attention_factor", c->rope_attention_factor);
    }
    if (c->temperature_scale > 0) put_float(out, "llama_4_scaling_beta", c->temperature_scale);
    sl_buffer_putc(out, '}');
}

static sllm_status put_rope(const writer *w, sllm_error *error) {
    const sl_config *c = w->c;
    sl_config found = *c;
    if (!w->f->rope) return SLLM_OK;
    if (c->rope_scaling == SL_ROPE_NONE && c->rope_freqs && !find_llama3(c, &found))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "its divisors of rotary frequencies are not Llama 3's, and config.json "
                       "has no words for others");
    put_float(w->out, "rope_theta", c->rope_base);
    if (c->rope_local_base > 0) put_float(w->out, "rope_local_base_freq", c->rope_local_base);
    if (w->f->partial_rope) put_float(w->out, "partial_rotary_factor", (double)c->rope_dim / c->head_dim);
    if (found.rope_scaling == SL_ROPE_LONGROPE) sl_json_put_int(w->out, "original_max_position_embeddings", c->rope_original_ctx);
    if (found.rope_scaling != SL_ROPE_NONE) put_rope_scaling(w, &found);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the whole */

/* Null where there is none: the classes' own defaults are of other vocabularies. */
static void put_id(sl_buffer *out, const char *key, int32_t id) {
    if (id >= 0) sl_json_put_int(out, key, id);
    else sl_json_put_string(out, key, NULL);
}

static void put_ids(const sl_model *m, sl_buffer *out) {
    put_id(out, "bos_token_id", m->tokenizer ? sl_tokenizer_special(m->tokenizer, SL_SPECIAL_BOS) : -1);
    put_id(out, "pad_token_id", m->tokenizer ? sl_tokenizer_special(m->tokenizer, SL_SPECIAL_PAD) : -1);
    if (m->n_end_ids < 2) {
        put_id(out, "eos_token_id", m->n_end_ids ? m->end_ids[0] : -1);
        return;
    }
    sl_json_key(out, "eos_token_id");
    for (size_t i = 0; i < m->n_end_ids; i++) sl_buffer_printf(out, "%s%d", i ? "," : "[", (int)m->end_ids[i]);
    sl_buffer_putc(out, ']');
}

/* What was written says the same as the source. */
static sllm_status read_back(const sl_model *m, const sl_buffer *text, sllm_error *error) {
    sl_arena arena = {0};
    const sl_json *root;
    sl_config config;
    const char *what;
    sllm_status status = sl_json_parse(&arena, text->data, text->length, "config.json", &root, error);
    if (!status) status = sl_config_from_json(root, &arena, &config, error);
    if (!status) {
        sl_config source = m->config;
        if (source.tied) config.tied = source.tied;
        if (!sl_convert_same(&config, &source, &what))
            status = sl_fail(error, SLLM_ERROR_UNSUPPORTED, "a config.json of '%s' cannot say what this file says: %s",
                             config.family->name, what);
    }
    sl_arena_free(&arena);
    return status;
}

sllm_status sl_export_config(const sl_model *m, sl_type type, sl_buffer *out, sllm_error *error) {
    writer w = {&m->config, sl_export_family(&m->config), out};
    sl_buffer_putc(out, '{');
    put_strings(&w, "architectures", w.f->hf_class, 1);
    sl_json_put_string(out, "model_type", w.f->hf[0]);
    put_sizes(&w);
    put_activation(&w);
    put_biases(&w);
    put_scales(&w);
    put_experts(&w);
    put_layers(&w);
    sllm_status status = put_rope(&w, error);
    if (status) return status;
    put_ids(m, out);
    sl_json_put_string(out, "torch_dtype", type == SL_BF16 ? "bfloat16" : type == SL_F16 ? "float16" : "float32");
    sl_buffer_puts(out, "}\n");
    return out->failed ? sl_fail_memory(error, "config.json", out->length) : read_back(m, out, error);
}
