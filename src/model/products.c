#include "model/products.h"

#include "tensor/ops.h"

typedef struct walk {
    const sl_model *model;
    bool (*visit)(void *user, const sl_product_place *place);
    void *user;
    bool ended;
} walk;

static void add(walk *w, sl_slot slot, int layer, int expert, const sl_tensor *matrix, const float *bias) {
    if (w->ended || !matrix->data) return;
    sl_product_place place = {slot, layer, expert, *matrix, bias};
    w->ended = !w->visit(w->user, &place);
}

static void add_linear(walk *w, sl_slot slot, int layer, const sl_linear *l) { add(w, slot, layer, 0, &l->w, l->bias); }

static void add_expert(walk *w, sl_slot slot, int layer, int expert, const sl_expert_matrices *m) {
    if (!m->w) return;
    sl_tensor t = m->stacked ? *m->w : m->w[expert];
    if (m->stacked) {
        t.n_dims = 2;
        t.shape[0] = m->w->shape[1];
        t.shape[1] = m->w->shape[2];
        t.n_elements /= (uint64_t)m->w->shape[0];
        t.bytes /= (uint64_t)m->w->shape[0];
        t.data = (const uint8_t *)m->w->data + (size_t)expert * t.bytes;
        t.packed = NULL;
    }
    add(w, slot, layer, expert, &t, NULL);
}

static void walk_block(walk *w, int layer) {
    const sl_config *c = &w->model->config;
    const sl_block *b = &w->model->weights->blocks[layer];
    bool fused = !b->qkv[1].w.data, split = b->gate.w.data != NULL;
    add_linear(w, fused ? SL_SLOT_QKV : SL_SLOT_Q, layer, &b->qkv[0]);
    add_linear(w, SL_SLOT_K, layer, &b->qkv[1]);
    add_linear(w, SL_SLOT_V, layer, &b->qkv[2]);
    add_linear(w, SL_SLOT_ATTN_OUT, layer, &b->attn_out);
    add_linear(w, SL_SLOT_GATE, layer, &b->gate);
    add_linear(w, !split && c->family->gated ? SL_SLOT_GATE_UP : SL_SLOT_UP, layer, &b->up);
    add_linear(w, SL_SLOT_DOWN, layer, &b->down);
    for (int e = 0; e < c->n_experts; e++) {
        add_expert(w, SL_SLOT_EXPERT_GATE, layer, e, &b->expert_gate);
        add_expert(w, SL_SLOT_EXPERT_UP, layer, e, &b->expert_up);
        add_expert(w, SL_SLOT_EXPERT_DOWN, layer, e, &b->expert_down);
    }
    add_linear(w, SL_SLOT_SHARED_GATE, layer, &b->shared_gate);
    add_linear(w, SL_SLOT_SHARED_UP, layer, &b->shared_up);
    add_linear(w, SL_SLOT_SHARED_DOWN, layer, &b->shared_down);
}

void sl_products_each(const sl_model *model, bool (*visit)(void *user, const sl_product_place *place), void *user) {
    walk w = {model, visit, user, false};
    for (int i = 0; i < model->config.n_layers && !w.ended; i++) walk_block(&w, i);
    add(&w, SL_SLOT_OUTPUT, model->config.n_layers, 0, &model->weights->output, NULL);
}

int64_t sl_product_source_row(const sl_model *model, const sl_product_place *place, int64_t r) {
    const sl_config *c = &model->config;
    if (!model->gguf || !c->rope_interleaved || (place->slot != SL_SLOT_Q && place->slot != SL_SLOT_K)) return r;
    int64_t size = c->head_dim, head = r / size, at = r % size;
    if (at >= c->rope_dim) return r;
    return head * size + at % 2 * (c->rope_dim / 2) + at / 2; /* (2j, 2j + 1) come from (j, j + half) */
}

void sl_product_row(const sl_product_place *place, int64_t r, float *out) { sl_row(&place->w, r, out); }
