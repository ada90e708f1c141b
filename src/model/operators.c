#include "model/operators.h"

#include "model/families.h"
#include "tensor/ops.h"

static const sl_op_kind attention_part[] = {SL_OP_ATTN_NORM, SL_OP_QKV, SL_OP_ROTATE, SL_OP_ATTEND, SL_OP_ATTN_OUT};
static const sl_op_kind plain_part[] = {SL_OP_FFN_NORM, SL_OP_GATE_UP, SL_OP_DOWN};
static const sl_op_kind expert_part[] = {SL_OP_FFN_NORM, SL_OP_ROUTE, SL_OP_EXPERTS};
static const sl_op_kind shared_part[] = {SL_OP_FFN_NORM, SL_OP_ROUTE, SL_OP_EXPERTS, SL_OP_SHARED};

typedef struct list {
    sl_op *ops;
    size_t length, limit;
} list;

static void append(list *l, const sl_op_kind *kinds, size_t n, int layer, bool ends_block) {
    for (size_t i = 0; i < n; i++, l->length++)
        if (l->length < l->limit)
            l->ops[l->length] = (sl_op){.kind = kinds[i], .layer = layer, .ends_block = ends_block && i + 1 == n};
}

#define APPEND(l, part, layer, ends) append(l, part, sizeof part / sizeof *part, layer, ends)

size_t sl_ops_compile(const sl_config *config, sl_op *ops, size_t limit) {
    list l = {ops, 0, limit};
    for (int i = 0; i < config->n_layers; i++) {
        APPEND(&l, attention_part, i, false);
        if (!config->layers[i].moe) APPEND(&l, plain_part, i, true);
        else if (!config->n_ff_shared) APPEND(&l, expert_part, i, true);
        else APPEND(&l, shared_part, i, true);
    }
    return l.length;
}

static void at_least(size_t *size, size_t value) {
    if (*size < value) *size = value;
}

/* Sizes cannot overflow: sl_config_check bounds every width by 2^20, and n is a chunk. */
static void size_op(const sl_config *c, const sl_op *op, size_t n, bool exact, sl_op_sizes *s) {
    size_t width = (size_t)c->n_heads * (size_t)c->head_dim, kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    size_t embd = (size_t)c->n_embd, ff = 0, input = embd;
    switch (op->kind) {
    case SL_OP_ATTN_NORM:
    case SL_OP_FFN_NORM: at_least(&s->y, n * embd); break;
    case SL_OP_QKV:
    case SL_OP_ROTATE: at_least(&s->qkv, n * (width + 2 * kv)); break;
    case SL_OP_ATTEND: at_least(&s->y, n * width), input = width; break;
    case SL_OP_ATTN_OUT: input = width; break;
    case SL_OP_GATE_UP:
    case SL_OP_DOWN: ff = (size_t)c->n_ff; break;
    case SL_OP_EXPERTS: ff = (size_t)c->n_ff_expert, at_least(&s->gather, 2 * n * embd); break;
    case SL_OP_SHARED: ff = (size_t)c->n_ff_shared; break;
    case SL_OP_ROUTE:
        at_least(&s->router, n * (size_t)c->n_experts);
        at_least(&s->routes, n * (size_t)c->n_experts_used);
        break;
    case SL_OP_COUNT: break;
    }
    at_least(&s->hidden, 2 * n * ff);
    at_least(&s->delta, n * embd);
    at_least(&s->x, n * embd);
    if (ff > input) input = ff;
    if (!exact) at_least(&s->blocks, sl_act_bytes((int64_t)n, (int64_t)input));
}

void sl_ops_sizes(const sl_config *config, int n, bool exact, sl_op_sizes *sizes) {
    *sizes = (sl_op_sizes){0};
    sl_op block[16]; /* one layer at a time: the longest block has fewer operators */
    for (int i = 0; i < config->n_layers; i++) {
        sl_config one = *config;
        one.n_layers = 1;
        one.layers = config->layers + i;
        size_t n_ops = sl_ops_compile(&one, block, sizeof block / sizeof *block);
        for (size_t j = 0; j < n_ops; j++) size_op(config, &block[j], (size_t)n, exact, sizes);
    }
}
