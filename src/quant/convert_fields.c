/* What a checkpoint's configuration is in GGUF keys: the way back from config_gguf.c. */
#include "quant/convert.h"

#include "base/error.h"
#include "base/file.h"
#include "model/families.h"
#include "model/weights.h"
#include "text/export_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { README_LIMIT = 1 << 20 };

typedef struct writer {
    sl_gguf_fields *fields;
    const char *arch;
} writer;

static const char *key_of(const writer *w, const char *suffix, char key[128]) {
    snprintf(key, 128, "%s.%s", w->arch, suffix);
    return key;
}

static void put_int(const writer *w, const char *suffix, int value) {
    char key[128];
    sl_gguf_put_u32(w->fields, key_of(w, suffix, key), (uint32_t)value);
}

static void put_float(const writer *w, const char *suffix, float value) {
    char key[128];
    sl_gguf_put_f32(w->fields, key_of(w, suffix, key), value);
}

static void put_text(const writer *w, const char *suffix, const char *value) {
    char key[128];
    sl_gguf_put_string(w->fields, key_of(w, suffix, key), value, strlen(value));
}

/* ---------------------------------------------------------------- general */

/* The licence that the folder's README declares between its first lines of "---"; false: none. */
static bool licence_of_readme(const char *folder, char out[96]) {
    char path[4096];
    sl_buffer text = {0};
    bool found = false;
    out[0] = 0;
    if (!sl_path_join(path, sizeof path, folder, "README.md") || !sl_path_is_file(path)) return false;
    if (sl_file_read(path, README_LIMIT, &text, NULL) || !text.data || strncmp(text.data, "---", 3)) text.length = 0;
    const char *end = text.length ? strstr(text.data + 3, "\n---") : NULL;
    const char *line = text.length ? strstr(text.data, "\nlicense:") : NULL;
    if (end && line && line < end) {
        const char *at = line + strlen("\nlicense:");
        at += strspn(at, " \t\"'");
        size_t n = strcspn(at, "\r\n\"'");
        while (n && at[n - 1] == ' ') n--;
        if (n && n < 96) {
            memcpy(out, at, n);
            out[n] = 0;
            found = true;
        }
    }
    sl_buffer_free(&text);
    return found;
}

static void put_general(const sl_model *m, sl_type type, sl_gguf_fields *fields, sl_buffer *warnings) {
    const sl_config *c = &m->config;
    char name[128], size[32], licence[96];
    size_t length = strlen(m->path);
    while (length && m->path[length - 1] == '/') length--;
    const char *slash = memrchr(m->path, '/', length), *base = slash ? slash + 1 : m->path;
    snprintf(name, sizeof name, "%s", c->name[0] ? c->name : "");
    if (!name[0]) snprintf(name, sizeof name, "%.*s", (int)(length - (size_t)(base - m->path)), base);
    double n = (double)c->n_params;
    if (n >= 1e9) snprintf(size, sizeof size, "%.1fB", n / 1e9);
    else snprintf(size, sizeof size, n >= 1e6 ? "%.0fM" : "%.0fK", n >= 1e6 ? n / 1e6 : n / 1e3);
    sl_gguf_put_string(fields, "general.type", "model", 5);
    sl_gguf_put_string(fields, "general.name", name, strlen(name));
    sl_gguf_put_string(fields, "general.size_label", size, strlen(size));
    if (c->licence[0]) sl_gguf_put_string(fields, "general.license", c->licence, strlen(c->licence));
    else if (licence_of_readme(m->path, licence)) sl_gguf_put_string(fields, "general.license", licence, strlen(licence));
    else sl_buffer_puts(warnings, "the folder does not say under which licence the model stands\n");
    sl_gguf_put_u32(fields, "general.file_type", type == SL_F32 ? 0 : type == SL_F16 ? 1 : 32);
    sl_gguf_put_u32(fields, "general.quantization_version", 2);
}

/* ---------------------------------------------------------------- the network */

static void put_scaling(const writer *w, const sl_config *c) {
    switch (c->rope_scaling) {
    case SL_ROPE_LINEAR:
        put_text(w, "rope.scaling.type", "linear");
        put_float(w, "rope.scaling.factor", c->rope_factor);
        break;
    case SL_ROPE_YARN:
        put_text(w, "rope.scaling.type", "yarn");
        put_float(w, "rope.scaling.factor", c->rope_factor);
        put_int(w, "rope.scaling.original_context_length", c->rope_original_ctx);
        put_float(w, "rope.scaling.yarn_beta_fast", c->yarn_beta_fast);
        put_float(w, "rope.scaling.yarn_beta_slow", c->yarn_beta_slow);
        put_float(w, "rope.scaling.attn_factor",
                  (float)(c->rope_attention_factor / sl_yarn_attention_factor(c->rope_factor, 0, 0)));
        break;
    case SL_ROPE_LONGROPE:
        put_text(w, "rope.scaling.type", "longrope");
        put_float(w, "rope.scaling.attn_factor", c->rope_attention_factor);
        put_int(w, "rope.scaling.original_context_length", c->rope_original_ctx);
        break;
    default: break;
    }
    if (c->temperature_scale > 0) {
        put_float(w, "attention.temperature_scale", c->temperature_scale);
        if (c->rope_scaling != SL_ROPE_YARN) put_int(w, "rope.scaling.original_context_length", c->temperature_ctx);
    }
}

static void put_rope(const writer *w, const sl_config *c) {
    if (!c->rope_dim) return;
    put_int(w, "rope.dimension_count", c->rope_dim);
    put_float(w, "rope.freq_base", c->rope_base);
    if (c->rope_local_base > 0) put_float(w, "rope.freq_base_swa", c->rope_local_base);
    put_scaling(w, c);
}

static void put_attention(const writer *w, const sl_config *c) {
    put_int(w, "attention.head_count", c->n_heads);
    put_int(w, "attention.head_count_kv", c->n_kv_heads);
    put_int(w, "attention.key_length", c->head_dim);
    put_int(w, "attention.value_length", c->head_dim);
    put_float(w, c->norm == SL_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", c->norm_eps);
    if (c->sliding_window > 0) put_int(w, "attention.sliding_window", c->sliding_window);
    if (fabs(c->attention_scale * sqrt(c->head_dim) - 1) > 1e-6 || c->family->attention_scalar)
        put_float(w, "attention.scale", c->attention_scale);
    if (c->attention_softcap > 0) put_float(w, "attn_logit_softcapping", c->attention_softcap);
    if (c->final_softcap > 0) put_float(w, "final_logit_softcapping", c->final_softcap);
}

static void put_experts(const writer *w, const sl_config *c) {
    char key[128];
    if (!c->n_experts) return;
    put_int(w, "expert_count", c->n_experts);
    put_int(w, "expert_used_count", c->n_experts_used);
    put_int(w, "expert_feed_forward_length", c->n_ff_expert);
    if (c->n_ff_shared) put_int(w, "expert_shared_feed_forward_length", c->n_ff_shared);
    if (c->experts_renormalise != c->family->experts_renormalise)
        sl_gguf_put_bool(w->fields, key_of(w, "expert_weights_norm", key), c->experts_renormalise);
}

/* What differs from layer to layer, for readers that look: GGUF leaves it to rules that not every model keeps. */
static sllm_status put_layers(const writer *w, const sl_config *c, sllm_error *error) {
    size_t n = (size_t)c->n_layers;
    int32_t *windows = calloc(n, sizeof *windows);
    bool *ropes = calloc(n, sizeof *ropes), any_window = false, all_rope = true;
    for (size_t i = 0; windows && ropes && i < n; i++) {
        windows[i] = c->layers[i].window;
        ropes[i] = c->layers[i].rope;
        any_window |= windows[i] > 0;
        all_rope &= ropes[i] || !c->rope_dim;
    }
    if (windows && ropes && (any_window || c->sliding_window > 0)) sl_gguf_put_i32s(w->fields, "sllm.layers.window", windows, n);
    if (windows && ropes && !all_rope) sl_gguf_put_bools(w->fields, "sllm.layers.rope", ropes, n);
    bool failed = !windows || !ropes;
    free(windows);
    free(ropes);
    return failed ? sl_fail_memory(error, "the layers' settings", 0) : SLLM_OK;
}

/* Gemma's windows are part of its architecture; for the others llama.cpp attends to everything. */
static void note_windows(const sl_config *c, sl_buffer *warnings) {
    int window = 0, no_rope = 0;
    for (int i = 0; i < c->n_layers; i++) {
        window = c->layers[i].window ? c->layers[i].window : window;
        no_rope += c->rope_dim && !c->layers[i].rope && (i + 1) % 4;
    }
    if (window && c->family->norm_place != SL_NORM_SANDWICH)
        sl_buffer_printf(warnings, "layers attend to the last %d tokens only, which llama.cpp does not know of this architecture: beyond so "
                         "many tokens it will compute otherwise\n", window);
    if (no_rope)
        sl_buffer_puts(warnings, "layers without rotary embedding are others than llama.cpp takes for granted: it will compute otherwise\n");
}

static sllm_status check_family(const sl_config *c, sllm_error *error) {
    const sl_family *f = c->family;
    if (f->block_sparse || f->qkv == SL_FUSED_GROUPED)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "GGUF has no architecture for %s", f->title);
    if (c->rope_scaling == SL_ROPE_DYNAMIC)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "GGUF has no words for dynamic rope scaling");
    if (c->activation != f->activation)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "GGUF has no words for an activation other than its architecture's own");
    return SLLM_OK;
}

sllm_status sl_convert_fields(const sl_model *m, const sl_convert_params *params, sl_gguf_fields *fields,
                              sl_buffer *warnings, sllm_error *error) {
    const sl_config *c = &m->config;
    writer w = {fields, c->family->gguf[0] ? c->family->gguf[0] : "llama"};
    sllm_status status = check_family(c, error);
    if (status) return status;
    sl_gguf_put_string(fields, "general.architecture", w.arch, strlen(w.arch));
    put_general(m, params->type != SL_TYPE_COUNT ? params->type : m->weights->embed.type, fields, warnings);
    put_int(&w, "block_count", c->n_layers);
    put_int(&w, "context_length", c->n_ctx_train);
    put_int(&w, "embedding_length", c->n_embd);
    put_int(&w, "feed_forward_length", c->n_ff);
    put_int(&w, "vocab_size", c->n_vocab);
    put_attention(&w, c);
    put_rope(&w, c);
    put_experts(&w, c);
    status = put_layers(&w, c, error);
    if (status) return status;
    note_windows(c, warnings);
    if (!m->tokenizer) sl_buffer_puts(warnings, "the folder has no tokenizer: the file will compute, but read no text\n");
    else status = sl_tokenizer_to_gguf(m->tokenizer, c->n_vocab, params->pre, fields, error);
    if (!status && m->chat_template_source)
        sl_gguf_put_string(fields, "tokenizer.chat_template", m->chat_template_source, m->chat_template_length);
    return status;
}

/* ---------------------------------------------------------------- is it the same? */

static bool near(double a, double b) { return fabs(a - b) <= 1e-6 * (fabs(a) + fabs(b)); }

bool sl_convert_same(const sl_config *a, const sl_config *b, const char **what) {
    const struct { const char *name; double a, b; } numbers[] = {
        {"layers", a->n_layers, b->n_layers}, {"hidden size", a->n_embd, b->n_embd}, {"heads", a->n_heads, b->n_heads},
        {"key/value heads", a->n_kv_heads, b->n_kv_heads}, {"head size", a->head_dim, b->head_dim}, {"feed-forward size", a->n_ff, b->n_ff},
        {"vocabulary size", a->n_vocab, b->n_vocab}, {"norm", a->norm, b->norm}, {"norm epsilon", a->norm_eps, b->norm_eps},
        {"activation", a->activation, b->activation}, {"embedding scale", a->embed_scale, b->embed_scale},
        {"attention scale", a->attention_scale, b->attention_scale}, {"attention by layer", a->scale_by_layer, b->scale_by_layer},
        {"attention soft cap", a->attention_softcap, b->attention_softcap}, {"logit soft cap", a->final_softcap, b->final_softcap},
        {"logit scale", a->logit_scale, b->logit_scale}, {"rotary size", a->rope_dim, b->rope_dim}, {"rotary base", a->rope_base, b->rope_base},
        {"rotary base of windowed layers", a->rope_local_base, b->rope_local_base},
        {"rotary scaling of windowed layers", a->rope_local_factor, b->rope_local_factor},
        {"rotary scaling", a->rope_scaling == SL_ROPE_LLAMA3 ? SL_ROPE_NONE : a->rope_scaling, b->rope_scaling},
        {"temperature scaling", a->temperature_scale, b->temperature_scale}, {"experts", a->n_experts, b->n_experts},
        {"experts used", a->n_experts_used, b->n_experts_used}, {"expert size", a->n_ff_expert, b->n_ff_expert},
        {"shared expert size", a->n_ff_shared, b->n_ff_shared}, {"expert weights", a->experts_renormalise, b->experts_renormalise},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *what = numbers[i].name;
        if (!near(numbers[i].a, numbers[i].b)) return false;
    }
    if (a->rope_scaling == SL_ROPE_YARN) {
        *what = "yarn";
        if (a->yarn_truncate != b->yarn_truncate || !near(a->rope_attention_factor, b->rope_attention_factor) ||
            !near(a->rope_factor, b->rope_factor) || a->rope_original_ctx != b->rope_original_ctx)
            return false;
    }
    if (a->rope_scaling == SL_ROPE_LONGROPE) {
        *what = "longrope";
        if (!near(a->rope_attention_factor, b->rope_attention_factor) || a->rope_original_ctx != b->rope_original_ctx ||
            !near(a->rope_attention_factor_short, b->rope_attention_factor_short))
            return false;
    }
    *what = "windows and rotary embedding of the layers";
    for (int i = 0; i < a->n_layers; i++) {
        const sl_layer_config *x = &a->layers[i], *y = &b->layers[i];
        if (x->window != y->window || x->rope != y->rope || x->local_rope != y->local_rope || x->moe != y->moe) return false;
    }
    return true;
}
