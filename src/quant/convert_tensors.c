#include "quant/convert.h"

#include "base/error.h"
#include "model/families.h"
#include "model/rope.h"
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sl_convert_item *add(sl_convert_list *l, sl_slot slot, int layer, const char *suffix) {
    char name[128];
    const char *pattern = sl_gguf_slots[slot], *mark = strstr(pattern, "{L}");
    if (l->n == l->capacity) {
        size_t more = l->capacity ? 2 * l->capacity : 256;
        sl_convert_item *items = realloc(l->items, more * sizeof *items);
        if (!items) {
            l->failed = true;
            return NULL;
        }
        l->items = items;
        l->capacity = more;
    }
    int n = mark ? snprintf(name, sizeof name, "%.*s%d%s%s", (int)(mark - pattern), pattern, layer, mark + 3, suffix)
                 : snprintf(name, sizeof name, "%s%s", pattern, suffix);
    char *copy = sl_arena_copy(&l->arena, name, (size_t)n);
    if (!copy) {
        l->failed = true;
        return NULL;
    }
    l->items[l->n] = (sl_convert_item){.out = {.name = copy}};
    return &l->items[l->n++];
}

static void add_vector(sl_convert_list *l, sl_slot slot, int layer, const char *suffix, const float *values, int64_t n) {
    sl_convert_item *item = values ? add(l, slot, layer, suffix) : NULL;
    if (!item) return;
    item->vector = values;
    item->out.type = SL_F32;
    item->out.n_dims = 1;
    item->out.shape[0] = n;
}

/* F64, NF4 and FP4 have no place in these files; everything else keeps its type unless another is asked for. */
static sl_type type_of(const sl_tensor *w, sl_type wanted) {
    if (wanted != SL_TYPE_COUNT) return wanted;
    return w->type == SL_F64 || sl_type_get(w->type)->ggml_id < 0 ? SL_F32 : w->type;
}

static sl_convert_item *add_matrix(sl_convert_list *l, sl_slot slot, int layer, const sl_tensor *w, sl_type type) {
    sl_convert_item *item = w->data ? add(l, slot, layer, ".weight") : NULL;
    if (!item) return NULL;
    const char *name = item->out.name;
    item->out = *w;
    item->out.name = name;
    item->out.type = type_of(w, type);
    item->matrices = w;
    item->n_matrices = 1;
    return item;
}

static void add_linear(sl_convert_list *l, sl_slot slot, int layer, const sl_linear *linear, sl_type type) {
    if (!linear->w.data) return;
    add_matrix(l, slot, layer, &linear->w, type);
    add_vector(l, slot, layer, ".bias", linear->bias, linear->w.shape[0]);
}

/* q or k: rows of rotated pairs (j, j + half) become neighbours where GGUF's architecture turns neighbours. */
static void add_rotated(sl_convert_list *l, const sl_model *m, sl_slot slot, int layer, const sl_linear *linear, int heads,
                        sl_type type) {
    size_t before = l->n;
    add_linear(l, slot, layer, linear, type);
    bool turns = m->config.family->gguf_interleaved || !m->config.family->gguf[0]; /* mistral is written as llama */
    for (size_t i = before; i < l->n && turns && !m->config.rope_interleaved; i++) {
        l->items[i].heads = heads;
        l->items[i].rotated = m->config.rope_dim;
    }
}

static void add_experts(sl_convert_list *l, sl_slot slot, int layer, const sl_expert_matrices *e, int n, sl_type type) {
    if (!e->w) return;
    sl_convert_item *item = add_matrix(l, slot, layer, e->w, type);
    if (!item || e->stacked) return;
    item->n_matrices = n;
    item->out.n_dims = 3;
    item->out.shape[2] = e->w->shape[1];
    item->out.shape[1] = e->w->shape[0];
    item->out.shape[0] = n;
}

static void add_block(sl_convert_list *l, const sl_model *m, int i, sl_type type) {
    const sl_config *c = &m->config;
    const sl_block *b = &m->weights->blocks[i];
    add_vector(l, SL_SLOT_ATTN_NORM, i, ".weight", b->attn_norm, c->n_embd);
    add_vector(l, SL_SLOT_ATTN_NORM, i, ".bias", b->attn_norm_bias, c->n_embd);
    if (!b->qkv[1].w.data) {
        add_linear(l, SL_SLOT_QKV, i, &b->qkv[0], type);
    } else {
        add_rotated(l, m, SL_SLOT_Q, i, &b->qkv[0], c->n_heads, type);
        add_rotated(l, m, SL_SLOT_K, i, &b->qkv[1], c->n_kv_heads, type);
        add_linear(l, SL_SLOT_V, i, &b->qkv[2], type);
    }
    add_vector(l, SL_SLOT_Q_NORM, i, ".weight", b->q_norm, c->head_dim);
    add_vector(l, SL_SLOT_K_NORM, i, ".weight", b->k_norm, c->head_dim);
    add_linear(l, SL_SLOT_ATTN_OUT, i, &b->attn_out, type);
    add_vector(l, SL_SLOT_ATTN_POST_NORM, i, ".weight", b->attn_post_norm, c->n_embd);
    add_vector(l, SL_SLOT_FFN_NORM, i, ".weight", b->ffn_norm, c->n_embd);
    add_vector(l, SL_SLOT_FFN_NORM, i, ".bias", b->ffn_norm_bias, c->n_embd);
    add_linear(l, SL_SLOT_GATE, i, &b->gate, type);
    add_linear(l, SL_SLOT_UP, i, &b->up, type);
    add_linear(l, SL_SLOT_DOWN, i, &b->down, type);
    add_linear(l, SL_SLOT_ROUTER, i, &b->router, SL_F32); /* decides which experts run: small, and kept whole */
    add_experts(l, SL_SLOT_EXPERT_GATE, i, &b->expert_gate, c->n_experts, type);
    add_experts(l, SL_SLOT_EXPERT_UP, i, &b->expert_up, c->n_experts, type);
    add_experts(l, SL_SLOT_EXPERT_DOWN, i, &b->expert_down, c->n_experts, type);
    add_vector(l, SL_SLOT_SHARED_ROUTER, i, ".weight", b->shared_router, c->n_embd);
    if (b->shared_router && l->n) { /* a matrix of one row, as converters write it */
        sl_tensor *t = &l->items[l->n - 1].out;
        t->n_dims = 2;
        t->shape[1] = t->shape[0];
        t->shape[0] = 1;
    }
    add_linear(l, SL_SLOT_SHARED_GATE, i, &b->shared_gate, type);
    add_linear(l, SL_SLOT_SHARED_UP, i, &b->shared_up, type);
    add_linear(l, SL_SLOT_SHARED_DOWN, i, &b->shared_down, type);
    add_vector(l, SL_SLOT_FFN_POST_NORM, i, ".weight", b->ffn_post_norm, c->n_embd);
}

/* Divisors of the rotary frequencies: Llama 3's scaling is told by a tensor. */
static void add_frequencies(sl_convert_list *l, const sl_model *m) {
    const sl_config *c = &m->config;
    int half = c->rope_dim / 2;
    if (c->rope_scaling == SL_ROPE_LONGROPE) {
        add_vector(l, SL_SLOT_ROPE_LONG, 0, ".weight", c->rope_long, half);
        add_vector(l, SL_SLOT_ROPE_SHORT, 0, ".weight", c->rope_short, half);
    }
    if (c->rope_scaling != SL_ROPE_LLAMA3) return;
    float *scaled = sl_arena_array(&l->arena, (size_t)half, sizeof *scaled);
    float *plain = sl_arena_array(&l->arena, (size_t)half, sizeof *plain), factor;
    sl_config none = *c;
    none.rope_scaling = SL_ROPE_NONE;
    if (!scaled || !plain) {
        l->failed = true;
        return;
    }
    sl_rope_frequencies(c, 0, false, scaled, &factor);
    sl_rope_frequencies(&none, 0, false, plain, &factor);
    for (int i = 0; i < half; i++) plain[i] /= scaled[i];
    add_vector(l, SL_SLOT_ROPE_FREQS, 0, ".weight", plain, half);
}

sllm_status sl_convert_tensors(const sl_model *m, sl_type type, sl_convert_list *l, sllm_error *error) {
    const sl_weights *w = m->weights;
    int64_t width = m->config.n_embd;
    *l = (sl_convert_list){0};
    add_frequencies(l, m); /* first: reading the configuration back needs them, and nothing else of the data */
    add_matrix(l, SL_SLOT_EMBED, 0, &w->embed, type);
    add_matrix(l, SL_SLOT_POSITIONS, 0, &w->positions, SL_F32);
    for (int i = 0; i < m->config.n_layers; i++) add_block(l, m, i, type);
    add_vector(l, SL_SLOT_FINAL_NORM, 0, ".weight", w->final_norm, width);
    add_vector(l, SL_SLOT_FINAL_NORM, 0, ".bias", w->final_norm_bias, width);
    if (w->output.data != w->embed.data) add_matrix(l, SL_SLOT_OUTPUT, 0, &w->output, type);
    for (size_t i = 0; i < l->n; i++) {
        sl_tensor *t = &l->items[i].out;
        t->n_elements = 1;
        for (int d = 0; d < t->n_dims; d++) t->n_elements *= (uint64_t)t->shape[d];
        sl_type_bytes(t->type, t->n_elements, &t->bytes);
        t->packed = NULL;
    }
    return l->failed ? sl_fail_memory(error, "the list of tensors", 0) : SLLM_OK;
}

void sl_convert_list_free(sl_convert_list *l) {
    free(l->items);
    sl_arena_free(&l->arena);
    *l = (sl_convert_list){0};
}
