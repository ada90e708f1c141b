#include "model/weights.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/map.h"
#include "base/text.h"
#include "model/families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sl_tensors sl_tensors_of(const sl_model *m) {
    return (sl_tensors){m->gguf, m->checkpoint ? m->checkpoint->weights : NULL, m->joined, m->n_joined};
}

size_t sl_tensors_count(const sl_tensors *tensors) {
    if (tensors->list) return tensors->n;
    return tensors->gguf ? sl_gguf_tensor_count(tensors->gguf) : sl_safetensors_count(tensors->safetensors);
}

const sl_tensor *sl_tensors_at(const sl_tensors *tensors, size_t index) {
    if (tensors->list) return &tensors->list[index];
    return tensors->gguf ? sl_gguf_tensor_at(tensors->gguf, index) : sl_safetensors_at(tensors->safetensors, index);
}

/* How a checkpoint writes the names of the table: bare models leave the first part out, multimodal ones wrap it. */
typedef struct naming {
    const char *strip; /* removed from the front where a name begins with it ... */
    const char *add;   /* ... and this put there instead */
    const char *other; /* put before the names that do not begin with strip */
} naming;

static const naming namings[] = {
    {"", "", ""},
    {"model.", "", ""},
    {"transformer.", "", ""},
    {"", "language_model.", ""},
    {"model.", "model.language_model.", ""},
};

typedef struct binder {
    const sl_tensors *tensors;
    sl_config *config;
    const sl_family *family;
    const char *const *names;
    const naming *naming;
    sl_arena *arena;
    sl_weights *weights;
    sl_map index;  /* name -> position */
    bool *used;    /* [count] */
    sllm_error *error;
    sllm_status status; /* set once; later calls do nothing */
} binder;

enum { NAME_SIZE = SL_NAME_SIZE };

/* ---------------------------------------------------------------- names */

static void put(char *out, size_t *length, const char *text, size_t n) {
    for (size_t i = 0; i < n && *length + 1 < NAME_SIZE; i++) out[(*length)++] = text[i];
    out[*length] = 0;
}

/* The file's name of a slot, suffix (".weight" or ".bias") included, with block and expert numbers in place. */
static void expand(const binder *b, sl_slot slot, int layer, int expert, const char *suffix, char out[NAME_SIZE]) {
    const char *text = b->names[slot], *strip = b->naming->strip;
    size_t length = 0, n = strlen(strip);
    char number[16];
    bool stripped = !strncmp(text, strip, n);
    const char *front = stripped ? b->naming->add : b->naming->other;
    put(out, &length, front, strlen(front));
    for (text += stripped ? n : 0; *text;) {
        int value = !strncmp(text, "{L}", 3) ? layer : !strncmp(text, "{E}", 3) ? expert : -1;
        if (value < 0) {
            put(out, &length, text++, 1);
            continue;
        }
        put(out, &length, number, (size_t)snprintf(number, sizeof number, "%d", value));
        text += 3;
    }
    put(out, &length, suffix, strlen(suffix));
}

static const sl_tensor *find(binder *b, const char *name) {
    uint64_t index;
    if (!sl_map_get(&b->index, name, strlen(name), &index)) return NULL;
    b->used[index] = true;
    return sl_tensors_at(b->tensors, (size_t)index);
}

static bool has(const binder *b, sl_slot slot, int layer, const char *suffix) {
    char name[NAME_SIZE];
    uint64_t index;
    if (!b->names[slot]) return false;
    expand(b, slot, layer, 0, suffix, name);
    return sl_map_get(&b->index, name, strlen(name), &index);
}

static void choose_naming(binder *b) {
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        b->naming = &namings[i];
        if (has(b, SL_SLOT_EMBED, 0, ".weight")) return;
    }
    b->naming = &namings[0]; /* the message about the missing embedding then has the usual name */
}

/* ---------------------------------------------------------------- one tensor */

static void shape_text(const int64_t *shape, int n, char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < n && used < size; i++) {
        int w = snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
        if (w < 0) return;
        used += (size_t)w;
    }
}

static void fail_shape(binder *b, const sl_tensor *t, const int64_t *shape, int n) {
    char found[160], expected[160];
    shape_text(t->shape, t->n_dims, found, sizeof found);
    shape_text(shape, n, expected, sizeof expected);
    b->status = sl_fail(b->error, SLLM_ERROR_FORMAT, "tensor %.200s has the shape [%s]; the configuration calls for "
                        "[%s]", t->name, found, expected);
}

/* The tensor of a slot with exactly this shape and a type that can be widened; NULL after an error. */
static const sl_tensor *require(binder *b, sl_slot slot, int layer, int expert, const char *suffix,
                                const int64_t *shape, int n_dims) {
    char name[NAME_SIZE];
    if (b->status) return NULL;
    if (!b->names[slot]) {
        b->status = sl_fail(b->error, SLLM_ERROR_UNSUPPORTED, "the family '%s' has no tensor name for what this "
                            "configuration asks for (role %d)", b->family->name, (int)slot);
        return NULL;
    }
    expand(b, slot, layer, expert, suffix, name);
    const sl_tensor *t = find(b, name);
    if (!t) {
        b->status = sl_fail(b->error, SLLM_ERROR_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    if (!sl_type_get(t->type)->is_float) {
        b->status = sl_fail(b->error, SLLM_ERROR_FORMAT, "tensor %s holds %s values, which are no weights", name,
                            sl_type_get(t->type)->name);
        return NULL;
    }
    if (t->n_dims != n_dims || memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape)) {
        fail_shape(b, t, shape, n_dims);
        return NULL;
    }
    return t;
}

/* A vector of n values widened to f32, plus `add`. [1, n] counts as [n]. */
static const float *vector(binder *b, sl_slot slot, int layer, const char *suffix, int64_t n, float add) {
    int64_t row[2] = {1, n};
    bool is_row = false;
    char name[NAME_SIZE];
    uint64_t index;
    if (b->status) return NULL;
    if (b->names[slot]) {
        expand(b, slot, layer, 0, suffix, name);
        if (sl_map_get(&b->index, name, strlen(name), &index)) {
            const sl_tensor *t = sl_tensors_at(b->tensors, (size_t)index);
            is_row = t->n_dims == 2 && t->shape[0] == 1;
        }
    }
    const sl_tensor *t = require(b, slot, layer, 0, suffix, is_row ? row : row + 1, is_row ? 2 : 1);
    if (!t) return NULL;
    float *values = sl_arena_array(b->arena, (size_t)n, sizeof *values);
    if (!values) {
        b->status = sl_fail_memory(b->error, "norms and biases", (size_t)n * sizeof *values);
        return NULL;
    }
    sl_type_get(t->type)->to_float(t->data, values, (size_t)n);
    for (int64_t i = 0; add != 0 && i < n; i++) values[i] += add;
    return values;
}

/* A matrix stored [in, out] (GPT-2's Conv1D), turned round into the arena. */
static void transposed(binder *b, sl_tensor *w, sl_slot slot, int layer, int64_t rows, int64_t columns) {
    const sl_tensor *t = require(b, slot, layer, 0, ".weight", (int64_t[]){columns, rows}, 2);
    if (!t) return;
    const sl_type_info *type = sl_type_get(t->type);
    if (type->block != 1) {
        b->status = sl_fail(b->error, SLLM_ERROR_UNSUPPORTED, "tensor %.200s is stored [in, out] as %s, which cannot "
                            "be transposed", t->name, type->name);
        return;
    }
    size_t width = type->bytes;
    unsigned char *out = sl_arena_array(b->arena, (size_t)rows * (size_t)columns, width);
    const unsigned char *in = t->data;
    if (!out) {
        b->status = sl_fail_memory(b->error, "a transposed matrix", (size_t)t->bytes);
        return;
    }
    for (int64_t c = 0; c < columns; c++)
        for (int64_t r = 0; r < rows; r++)
            memcpy(out + (size_t)(r * columns + c) * width, in + (size_t)(c * rows + r) * width, width);
    *w = *t;
    w->shape[0] = rows;
    w->shape[1] = columns;
    w->data = out;
}

static void matrix(binder *b, sl_tensor *w, sl_slot slot, int layer, int64_t rows, int64_t columns) {
    const sl_tensor *t = require(b, slot, layer, 0, ".weight", (int64_t[]){rows, columns}, 2);
    if (t) *w = *t;
}

static void linear(binder *b, sl_linear *l, sl_slot slot, int layer, int64_t rows, int64_t columns, sl_bias_rule rule) {
    if (b->family->conv1d && b->tensors->safetensors) transposed(b, &l->w, slot, layer, rows, columns);
    else matrix(b, &l->w, slot, layer, rows, columns);
    if (!b->status && rule == SL_BIAS_ALWAYS) l->bias = vector(b, slot, layer, ".bias", rows, 0);
}

static void norm(binder *b, const float **weight, const float **bias, sl_slot slot, int layer, int64_t n) {
    *weight = vector(b, slot, layer, ".weight", n, b->config->norm_plus_one ? 1 : 0);
    if (b->config->norm == SL_NORM_LAYER) *bias = vector(b, slot, layer, ".bias", n, 0);
}

static void experts(binder *b, sl_expert_matrices *m, sl_slot slot, int layer, int64_t rows, int64_t columns) {
    int n = b->config->n_experts;
    m->stacked = b->names[slot] && !strstr(b->names[slot], "{E}");
    m->w = sl_arena_array(b->arena, m->stacked ? 1 : (size_t)n, sizeof *m->w);
    if (!m->w && !b->status) b->status = sl_fail_memory(b->error, "the list of experts", 0);
    for (int e = 0; e < (m->stacked ? 1 : n) && !b->status; e++) {
        const int64_t shape[] = {n, rows, columns};
        const sl_tensor *t = m->stacked ? require(b, slot, layer, 0, ".weight", shape, 3)
                                        : require(b, slot, layer, e, ".weight", shape + 1, 2);
        if (t) m->w[e] = *t;
    }
}

/* ---------------------------------------------------------------- blocks */

static void bind_attention(binder *b, sl_block *block, int i) {
    const sl_config *c = b->config;
    int64_t width = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    norm(b, &block->attn_norm, &block->attn_norm_bias, SL_SLOT_ATTN_NORM, i, c->n_embd);
    /* GGUF has names for both forms: what the file holds decides there */
    bool fused = b->names[SL_SLOT_QKV] && (!b->names[SL_SLOT_Q] || has(b, SL_SLOT_QKV, i, ".weight"));
    if (fused) {
        linear(b, &block->qkv[0], SL_SLOT_QKV, i, width + 2 * kv, c->n_embd, c->bias_qkv);
    } else {
        linear(b, &block->qkv[0], SL_SLOT_Q, i, width, c->n_embd, c->bias_qkv);
        linear(b, &block->qkv[1], SL_SLOT_K, i, kv, c->n_embd, c->bias_qkv);
        linear(b, &block->qkv[2], SL_SLOT_V, i, kv, c->n_embd, c->bias_qkv);
    }
    linear(b, &block->attn_out, SL_SLOT_ATTN_OUT, i, c->n_embd, width, c->bias_out);
    if (b->family->head_norms) {
        const float *none;
        norm(b, &block->q_norm, &none, SL_SLOT_Q_NORM, i, c->head_dim);
        norm(b, &block->k_norm, &none, SL_SLOT_K_NORM, i, c->head_dim);
    }
}

static void bind_feed_forward(binder *b, sl_block *block, int i) {
    const sl_config *c = b->config;
    const sl_family *f = b->family;
    if (f->gated && f->gate_up != SL_SPLIT) {
        linear(b, &block->up, SL_SLOT_GATE_UP, i, 2 * (int64_t)c->n_ff, c->n_embd, c->bias_mlp);
    } else {
        if (f->gated) linear(b, &block->gate, SL_SLOT_GATE, i, c->n_ff, c->n_embd, c->bias_mlp);
        linear(b, &block->up, SL_SLOT_UP, i, c->n_ff, c->n_embd, c->bias_mlp);
    }
    linear(b, &block->down, SL_SLOT_DOWN, i, c->n_embd, c->n_ff, c->bias_mlp);
}

static void bind_experts(binder *b, sl_block *block, int i) {
    const sl_config *c = b->config;
    linear(b, &block->router, SL_SLOT_ROUTER, i, c->n_experts, c->n_embd, SL_BIAS_NEVER);
    experts(b, &block->expert_gate, SL_SLOT_EXPERT_GATE, i, c->n_ff_expert, c->n_embd);
    experts(b, &block->expert_up, SL_SLOT_EXPERT_UP, i, c->n_ff_expert, c->n_embd);
    experts(b, &block->expert_down, SL_SLOT_EXPERT_DOWN, i, c->n_embd, c->n_ff_expert);
    if (!c->n_ff_shared) return;
    block->shared_router = vector(b, SL_SLOT_SHARED_ROUTER, i, ".weight", c->n_embd, 0);
    linear(b, &block->shared_gate, SL_SLOT_SHARED_GATE, i, c->n_ff_shared, c->n_embd, SL_BIAS_NEVER);
    linear(b, &block->shared_up, SL_SLOT_SHARED_UP, i, c->n_ff_shared, c->n_embd, SL_BIAS_NEVER);
    linear(b, &block->shared_down, SL_SLOT_SHARED_DOWN, i, c->n_embd, c->n_ff_shared, SL_BIAS_NEVER);
}

static void bind_block(binder *b, int i) {
    const sl_config *c = b->config;
    sl_block *block = &b->weights->blocks[i];
    const float *none;
    bind_attention(b, block, i);
    norm(b, &block->ffn_norm, &block->ffn_norm_bias, SL_SLOT_FFN_NORM, i, c->n_embd);
    if (c->layers[i].moe) bind_experts(b, block, i);
    else bind_feed_forward(b, block, i);
    if (b->family->norm_place == SL_NORM_SANDWICH) {
        norm(b, &block->attn_post_norm, &none, SL_SLOT_ATTN_POST_NORM, i, c->n_embd);
        norm(b, &block->ffn_post_norm, &none, SL_SLOT_FFN_POST_NORM, i, c->n_embd);
    }
}

/* ---------------------------------------------------------------- the whole */

/* A tied checkpoint may store the output matrix all the same. Where it is the embedding once more, the copy is left
 * out; where it differs the configuration is wrong and the stored matrix counts, as in transformers. */
static void bind_tied(binder *b) {
    const sl_tensor *embed = &b->weights->embed, *output = NULL;
    char name[NAME_SIZE];
    b->weights->output = *embed;
    if (!has(b, SL_SLOT_OUTPUT, 0, ".weight")) return;
    expand(b, SL_SLOT_OUTPUT, 0, 0, ".weight", name);
    output = find(b, name);
    if (output->type == embed->type && output->bytes == embed->bytes &&
        !memcmp(output->data, embed->data, embed->bytes))
        return;
    b->config->tied = false;
    matrix(b, &b->weights->output, SL_SLOT_OUTPUT, 0, b->config->n_vocab, b->config->n_embd);
}

static void bind_ends(binder *b) {
    sl_config *c = b->config;
    sl_weights *w = b->weights;
    matrix(b, &w->embed, SL_SLOT_EMBED, 0, c->n_vocab, c->n_embd);
    if (!b->family->rope) matrix(b, &w->positions, SL_SLOT_POSITIONS, 0, c->n_ctx_train, c->n_embd);
    norm(b, &w->final_norm, &w->final_norm_bias, SL_SLOT_FINAL_NORM, 0, c->n_embd);
    if (!c->tied) {
        matrix(b, &w->output, SL_SLOT_OUTPUT, 0, c->n_vocab, c->n_embd);
    } else if (!b->status) {
        bind_tied(b);
    }
}

/* Buffers that checkpoints carry and that are no parameters, and the parts of multimodal models that text leaves
 * out. */
static bool is_ignorable(const binder *b, const char *name) {
    static const char *const buffers[] = {".rotary_emb.inv_freq", ".attn.masked_bias", ".rotary_emb.original_inv_freq"};
    static const char *const other_parts[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                              "model.multi_modal_projector."};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (sl_ends_with(name, buffers[i])) return true;
    if (b->family->conv1d && sl_ends_with(name, ".attn.bias")) return true; /* the causal mask of older GPT-2 files */
    bool is_nested = !strcmp(b->naming->add, "language_model.") || !strcmp(b->naming->add, "model.language_model.");
    for (size_t i = 0; is_nested && i < sizeof other_parts / sizeof *other_parts; i++)
        if (!strncmp(name, other_parts[i], strlen(other_parts[i]))) return true;
    static const char *const gguf_extra[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                             "rope_factors_short.weight"};
    for (size_t i = 0; b->tensors->gguf && i < sizeof gguf_extra / sizeof *gguf_extra; i++)
        if (!strcmp(name, gguf_extra[i])) return true; /* config_gguf.c has read them */
    return false;
}

static void account(binder *b) {
    size_t n = sl_tensors_count(b->tensors);
    b->config->n_params = 0;
    b->weights->only_f32 = true;
    for (size_t i = 0; i < n && !b->status; i++) {
        const sl_tensor *t = sl_tensors_at(b->tensors, i);
        if (!b->used[i] && !is_ignorable(b, t->name))
            b->status = sl_fail(b->error, SLLM_ERROR_FORMAT, "tensor %.200s is not part of a '%s' model with this "
                                "configuration", t->name, b->family->name);
        if (!b->used[i]) continue;
        b->config->n_params += (int64_t)t->n_elements;
        if (t->n_dims > 1 && t->type != SL_F32 && t->type != SL_F64) b->weights->only_f32 = false;
    }
}

static sllm_status index_tensors(binder *b) {
    size_t n = sl_tensors_count(b->tensors);
    b->index.seed = (uint64_t)(sl_clock() * 1e9) ^ (uint64_t)(uintptr_t)b;
    b->used = calloc(n ? n : 1, sizeof *b->used);
    bool fits = b->used && sl_map_reserve(&b->index, n);
    for (size_t i = 0; fits && i < n; i++) {
        const char *name = sl_tensors_at(b->tensors, i)->name;
        fits = sl_map_put(&b->index, name, strlen(name), i);
    }
    return fits ? SLLM_OK : sl_fail_memory(b->error, "the index of tensors", n * sizeof(sl_map_slot));
}

static sllm_status allocate(binder *b) {
    sl_config *c = b->config;
    sl_weights *w = sl_arena_alloc(b->arena, sizeof *w);
    size_t n_ops = sl_ops_compile(c, NULL, 0);
    if (w) w->blocks = sl_arena_array(b->arena, (size_t)c->n_layers, sizeof *w->blocks);
    if (w) w->ops = sl_arena_array(b->arena, n_ops, sizeof *w->ops);
    if (!w || !w->blocks || !w->ops)
        return sl_fail_memory(b->error, "the blocks' descriptors", (size_t)c->n_layers * sizeof *w->blocks);
    w->n_ops = sl_ops_compile(c, w->ops, n_ops);
    b->weights = w;
    return SLLM_OK;
}

sllm_status sl_weights_bind(const sl_tensors *tensors, sl_config *config, sl_arena *arena,
                            bool (*on_progress)(void *user, double fraction), void *user, sl_weights **weights,
                            sllm_error *error) {
    binder b = {.tensors = tensors, .config = config, .family = config->family, .arena = arena, .error = error};
    b.names = tensors->gguf ? sl_gguf_slots : config->family->names;
    *weights = NULL;
    b.status = index_tensors(&b);
    if (!b.status) b.status = allocate(&b);
    if (!b.status) {
        b.naming = &namings[0];
        if (tensors->safetensors) choose_naming(&b);
        bind_ends(&b);
    }
    for (int i = 0; i < config->n_layers && !b.status; i++) {
        bind_block(&b, i);
        if (!b.status && on_progress && !on_progress(user, (double)(i + 1) / config->n_layers))
            b.status = sl_fail(error, SLLM_ERROR_CANCELLED, "loading was cancelled");
    }
    if (!b.status) account(&b);
    sl_map_free(&b.index);
    free(b.used);
    if (!b.status) *weights = b.weights;
    return b.status;
}

static const sl_tensor *named(const sl_tensors *tensors, const char *name) {
    for (size_t i = 0; i < sl_tensors_count(tensors); i++)
        if (!strcmp(sl_tensors_at(tensors, i)->name, name)) return sl_tensors_at(tensors, i);
    return NULL;
}

bool sl_weights_name(const char *const *names, sl_slot slot, int layer, int expert, const char *suffix, char out[SL_NAME_SIZE]) {
    binder b = {.names = names, .naming = &namings[0]};
    if (!names[slot]) return false;
    expand(&b, slot, layer, expert, suffix, out);
    return true;
}

const sl_tensor *sl_weights_find(const sl_model *model, sl_slot slot, int layer, const char *suffix) {
    sl_tensors tensors = sl_tensors_of(model);
    binder b = {.names = tensors.gguf ? sl_gguf_slots : model->config.family->names, .naming = &namings[0]};
    char name[NAME_SIZE];
    if (!b.names[slot]) return NULL;
    for (size_t i = 0; !tensors.gguf && i < sizeof namings / sizeof *namings; i++) {
        b.naming = &namings[i];
        expand(&b, SL_SLOT_EMBED, 0, 0, ".weight", name);
        if (named(&tensors, name)) break;
    }
    expand(&b, slot, layer, 0, suffix, name);
    return named(&tensors, name);
}

/* ---------------------------------------------------------------- every matrix */

void sl_weights_each(sl_weights *weights, const sl_config *config, bool (*visit)(void *user, int layer, sl_tensor *w), void *user) {
    for (int i = 0; i < config->n_layers; i++) {
        sl_block *b = &weights->blocks[i];
        sl_linear *const linears[] = {&b->qkv[0], &b->qkv[1], &b->qkv[2], &b->attn_out, &b->gate, &b->up, &b->down,
                                      &b->shared_gate, &b->shared_up, &b->shared_down};
        sl_expert_matrices *const experts[] = {&b->expert_gate, &b->expert_up, &b->expert_down};
        for (size_t k = 0; k < sizeof linears / sizeof *linears; k++)
            if (linears[k]->w.data && !visit(user, i, &linears[k]->w)) return;
        for (size_t k = 0; k < sizeof experts / sizeof *experts; k++)
            for (int e = 0; experts[k]->w && e < (experts[k]->stacked ? 1 : config->n_experts); e++)
                if (!visit(user, i, &experts[k]->w[e])) return;
    }
}

/* ---------------------------------------------------------------- packing */

typedef struct packing {
    sl_packer *packer;
    sllm_error *error;
    sllm_status status;
} packing;

static bool add_matrix(void *user, int layer, sl_tensor *w) {
    packing *p = user;
    (void)layer;
    p->status = sl_packer_add(p->packer, w, true, p->error);
    return !p->status;
}

sllm_status sl_weights_pack(sl_weights *weights, const sl_config *config, sl_packer *packer, sllm_error *error) {
    packing p = {packer, error, SLLM_OK};
    sl_weights_each(weights, config, add_matrix, &p);
    if (!p.status && weights->output.data) add_matrix(&p, -1, &weights->output);
    if (weights->embed.data == weights->output.data) weights->embed.packed = weights->output.packed;
    return p.status ? p.status : sl_packer_reserve(packer, error);
}

typedef struct joined {
    sl_tensor *list;
    size_t n;
} joined;

static bool note_packed(void *user, int layer, sl_tensor *w) {
    const joined *j = user;
    (void)layer;
    for (size_t i = 0; w->packed && i < j->n; i++)
        if (j->list[i].data == w->data) j->list[i].packed = w->packed;
    return true;
}

void sl_weights_note_packed(sl_weights *weights, const sl_config *config, sl_tensor *list, size_t n) {
    joined j = {list, n};
    sl_weights_each(weights, config, note_packed, &j);
}
