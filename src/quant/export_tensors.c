#include "quant/export.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

const sl_family *sl_export_family(const sl_config *c) {
    int windows = 0;
    if (strcmp(c->family->name, "llama")) return c->family;
    for (int i = 0; i < c->n_layers; i++) windows += c->layers[i].window > 0;
    return !windows ? c->family : sl_family_by_hf(windows == c->n_layers ? "mistral" : "ministral");
}

int64_t sl_export_row(int heads, int rotated, int64_t r, int64_t n_rows) {
    if (!heads) return r;
    int64_t size = n_rows / heads, head = r / size, at = r % size, half = rotated / 2;
    if (at >= rotated) return r;
    return head * size + (at < half ? 2 * at : 2 * (at - half) + 1);
}

typedef struct lister {
    const sl_model *m;
    const sl_family *family;
    sl_export_list *list;
} lister;

static sl_export_item *add(lister *l, sl_slot slot, int layer, int expert, const char *suffix) {
    sl_export_list *list = l->list;
    char name[SL_NAME_SIZE];
    if (!sl_weights_name(l->family->names, slot, layer, expert, suffix, name)) return NULL;
    if (list->n == list->capacity) {
        size_t more = list->capacity ? 2 * list->capacity : 256;
        sl_export_item *items = realloc(list->items, more * sizeof *items);
        list->failed |= !items;
        if (!items) return NULL;
        list->items = items;
        list->capacity = more;
    }
    char *copy = sl_arena_copy(&list->arena, name, strlen(name));
    list->failed |= !copy;
    if (!copy) return NULL;
    list->items[list->n] = (sl_export_item){.out = {.name = copy}};
    return &list->items[list->n++];
}

static void add_vector(lister *l, sl_slot slot, int layer, const char *suffix, const float *values, int64_t n, bool is_norm) {
    sl_export_item *item = values ? add(l, slot, layer, 0, suffix) : NULL;
    if (!item) return;
    item->vectors[item->n_vectors] = values;
    item->lengths[item->n_vectors++] = n;
    item->less = is_norm && l->family->norm_plus_one ? 1 : 0;
    item->out.n_dims = 1;
    item->out.shape[0] = n;
}

static void add_norm(lister *l, sl_slot slot, int layer, const float *weight, const float *bias, int64_t n) {
    add_vector(l, slot, layer, ".weight", weight, n, true);
    add_vector(l, slot, layer, ".bias", bias, n, false);
}

static sl_export_item *add_matrix(lister *l, sl_slot slot, int layer, int expert, const sl_tensor *w) {
    sl_export_item *item = w->data ? add(l, slot, layer, expert, ".weight") : NULL;
    if (!item) return NULL;
    item->matrices[item->n_matrices++] = *w;
    item->out.n_dims = 2;
    item->out.shape[0] = w->shape[0];
    item->out.shape[1] = w->shape[1];
    return item;
}

/* Rows [from, from + n) of w. */
static sl_tensor slice(const sl_tensor *w, int64_t from, int64_t n) {
    sl_tensor t = *w;
    uint64_t offset = 0;
    sl_type_bytes(w->type, (uint64_t)(from * w->shape[1]), &offset);
    t.data = (const uint8_t *)w->data + offset;
    t.shape[0] = n;
    t.n_elements = (uint64_t)(n * w->shape[1]);
    sl_type_bytes(w->type, t.n_elements, &t.bytes);
    return t;
}

/* One or several products written as one; `heads` of those whose rows are turned. */
static void add_linears(lister *l, sl_slot slot, int layer, const sl_linear *const *parts, const int *heads, int n) {
    sl_export_item *item = NULL;
    for (int i = 0; i < n; i++) {
        if (i == 0) item = add_matrix(l, slot, layer, 0, &parts[0]->w);
        else if (item) item->matrices[item->n_matrices++] = parts[i]->w;
        if (!item) return;
        if (i) item->out.shape[0] += parts[i]->w.shape[0];
        item->heads[i] = heads ? heads[i] : 0;
    }
    item->rotated = l->m->config.rope_dim;
    if (l->family->conv1d) {
        int64_t rows = item->out.shape[0];
        item->turned = true;
        item->out.shape[0] = item->out.shape[1];
        item->out.shape[1] = rows;
    }
    if (!parts[0]->bias) return;
    add_vector(l, slot, layer, ".bias", parts[0]->bias, parts[0]->w.shape[0], false);
    sl_export_item *bias = &l->list->items[l->list->n - 1];
    bias->heads[0] = heads ? heads[0] : 0;
    bias->rotated = l->m->config.rope_dim;
    for (int i = 1; i < n; i++) {
        bias->vectors[i] = parts[i]->bias;
        bias->lengths[i] = parts[i]->w.shape[0];
        bias->heads[i] = heads ? heads[i] : 0;
        bias->out.shape[0] += bias->lengths[i];
        bias->n_vectors++;
    }
}

static void add_linear(lister *l, sl_slot slot, int layer, const sl_linear *part) {
    if (part->w.data) add_linears(l, slot, layer, &part, NULL, 1);
}

/* A part of a fused product as a product of its own. */
static sl_linear part_of(const sl_linear *whole, int64_t from, int64_t n) {
    return (sl_linear){.w = slice(&whole->w, from, n), .bias = whole->bias ? whole->bias + from : NULL};
}

static void add_attention(lister *l, int i, const sl_block *b) {
    const sl_config *c = &l->m->config;
    int64_t width = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    bool fused = !b->qkv[1].w.data;
    sl_linear q = fused ? part_of(&b->qkv[0], 0, width) : b->qkv[0], k = fused ? part_of(&b->qkv[0], width, kv) : b->qkv[1];
    sl_linear v = fused ? part_of(&b->qkv[0], width + kv, kv) : b->qkv[2];
    const sl_linear *const all[3] = {&q, &k, &v};
    const int heads[3] = {c->rope_interleaved ? c->n_heads : 0, c->rope_interleaved ? c->n_kv_heads : 0, 0};
    if (l->family->qkv == SL_FUSED) {
        add_linears(l, SL_SLOT_QKV, i, all, heads, 3);
    } else {
        add_linears(l, SL_SLOT_Q, i, all, heads, 1);
        add_linears(l, SL_SLOT_K, i, all + 1, heads + 1, 1);
        add_linears(l, SL_SLOT_V, i, all + 2, heads + 2, 1);
    }
    add_linear(l, SL_SLOT_ATTN_OUT, i, &b->attn_out);
}

static void add_feed_forward(lister *l, int i, const sl_block *b) {
    const sl_config *c = &l->m->config;
    bool fused = l->family->gated && !b->gate.w.data;
    sl_linear gate = fused ? part_of(&b->up, 0, c->n_ff) : b->gate, up = fused ? part_of(&b->up, c->n_ff, c->n_ff) : b->up;
    const sl_linear *const both[2] = {&gate, &up};
    if (l->family->gated && l->family->gate_up == SL_FUSED) {
        add_linears(l, SL_SLOT_GATE_UP, i, both, NULL, 2);
    } else {
        if (l->family->gated) add_linear(l, SL_SLOT_GATE, i, &gate);
        add_linear(l, SL_SLOT_UP, i, &up);
    }
    add_linear(l, SL_SLOT_DOWN, i, &b->down);
}

static void add_experts(lister *l, sl_slot slot, int i, const sl_expert_matrices *e) {
    for (int k = 0; e->w && k < l->m->config.n_experts; k++) {
        sl_tensor t = e->stacked ? *e->w : e->w[k];
        if (e->stacked) {
            int64_t rows = e->w->shape[1];
            t.n_dims = 2;
            t.shape[0] = rows * e->w->shape[0];
            t.shape[1] = e->w->shape[2];
            t = slice(&t, k * rows, rows);
        }
        add_matrix(l, slot, i, k, &t);
    }
}

static void add_block(lister *l, int i) {
    const sl_config *c = &l->m->config;
    const sl_block *b = &l->m->weights->blocks[i];
    add_norm(l, SL_SLOT_ATTN_NORM, i, b->attn_norm, b->attn_norm_bias, c->n_embd);
    add_attention(l, i, b);
    add_norm(l, SL_SLOT_Q_NORM, i, b->q_norm, NULL, c->head_dim);
    add_norm(l, SL_SLOT_K_NORM, i, b->k_norm, NULL, c->head_dim);
    add_norm(l, SL_SLOT_ATTN_POST_NORM, i, b->attn_post_norm, NULL, c->n_embd);
    add_norm(l, SL_SLOT_FFN_NORM, i, b->ffn_norm, b->ffn_norm_bias, c->n_embd);
    add_norm(l, SL_SLOT_FFN_POST_NORM, i, b->ffn_post_norm, NULL, c->n_embd);
    if (b->up.w.data) add_feed_forward(l, i, b);
    add_linear(l, SL_SLOT_ROUTER, i, &b->router);
    add_experts(l, SL_SLOT_EXPERT_GATE, i, &b->expert_gate);
    add_experts(l, SL_SLOT_EXPERT_UP, i, &b->expert_up);
    add_experts(l, SL_SLOT_EXPERT_DOWN, i, &b->expert_down);
    add_vector(l, SL_SLOT_SHARED_ROUTER, i, ".weight", b->shared_router, c->n_embd, false);
    if (b->shared_router && l->list->n) { /* a matrix of one row */
        sl_tensor *t = &l->list->items[l->list->n - 1].out;
        t->n_dims = 2;
        t->shape[1] = t->shape[0];
        t->shape[0] = 1;
    }
    add_linear(l, SL_SLOT_SHARED_GATE, i, &b->shared_gate);
    add_linear(l, SL_SLOT_SHARED_UP, i, &b->shared_up);
    add_linear(l, SL_SLOT_SHARED_DOWN, i, &b->shared_down);
}

sllm_status sl_export_tensors(const sl_model *m, sl_export_list *list, sllm_error *error) {
    const sl_weights *w = m->weights;
    lister l = {m, sl_export_family(&m->config), list};
    *list = (sl_export_list){0};
    add_matrix(&l, SL_SLOT_EMBED, 0, 0, &w->embed);
    add_matrix(&l, SL_SLOT_POSITIONS, 0, 0, &w->positions);
    for (int i = 0; i < m->config.n_layers; i++) add_block(&l, i);
    add_norm(&l, SL_SLOT_FINAL_NORM, 0, w->final_norm, w->final_norm_bias, m->config.n_embd);
    if (w->output.data != w->embed.data) add_matrix(&l, SL_SLOT_OUTPUT, 0, 0, &w->output);
    return list->failed ? sl_fail_memory(error, "the list of tensors", 0) : SLLM_OK;
}

void sl_export_list_set_type(sl_export_list *list, sl_type type) {
    for (size_t i = 0; i < list->n; i++) {
        sl_tensor *t = &list->items[i].out;
        t->type = type;
        t->n_elements = 1;
        for (int d = 0; d < t->n_dims; d++) t->n_elements *= (uint64_t)t->shape[d];
        sl_type_bytes(t->type, t->n_elements, &t->bytes);
    }
}

void sl_export_list_free(sl_export_list *list) {
    free(list->items);
    sl_arena_free(&list->arena);
    *list = (sl_export_list){0};
}
