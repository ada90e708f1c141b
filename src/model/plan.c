#include "model/plan.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "model/families.h"
#include "model/forward.h"
#include "tensor/pack.h"
#include "tensor/types.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Which roles a mix treats apart, and how: the rule says for which blocks the wider type holds. */
typedef enum when { NEVER, ALWAYS, MORE_BITS, FIRST_EIGHTH, FIRST_FOUR } when;

typedef struct mix {
    const char *name;
    sl_type base, value, down, attn_out, fused, output; /* fused: q, k and v in one matrix */
    when value_when, down_when;
} mix;

#define SINGLE(name, type) {name, type, type, type, type, type, type, NEVER, NEVER}
#define LEGACY(name, type) {name, type, type, type, type, type, SL_Q6_K, NEVER, NEVER}

/* The mixes of llama.cpp's quantiser, as facts about the files it makes. */
static const mix mixes[] = {
    SINGLE("f32", SL_F32),
    SINGLE("f16", SL_F16),
    SINGLE("bf16", SL_BF16),
    SINGLE("q8_0", SL_Q8_0),
    SINGLE("q6_k", SL_Q6_K),
    {"q5_k_m", SL_Q5_K, SL_Q6_K, SL_Q6_K, SL_Q5_K, SL_Q6_K, SL_Q6_K, MORE_BITS, MORE_BITS},
    LEGACY("q5_k_s", SL_Q5_K),
    LEGACY("q5_1", SL_Q5_1),
    LEGACY("q5_0", SL_Q5_0),
    {"q4_k_m", SL_Q4_K, SL_Q6_K, SL_Q6_K, SL_Q4_K, SL_Q5_K, SL_Q6_K, MORE_BITS, MORE_BITS},
    {"q4_k_s", SL_Q4_K, SL_Q5_K, SL_Q5_K, SL_Q4_K, SL_Q4_K, SL_Q6_K, FIRST_FOUR, FIRST_EIGHTH},
    LEGACY("q4_1", SL_Q4_1),
    LEGACY("q4_0", SL_Q4_0),
    {"iq4_nl", SL_IQ4_NL, SL_Q5_K, SL_Q5_K, SL_IQ4_NL, SL_IQ4_NL, SL_Q6_K, NEVER, FIRST_EIGHTH},
    {"iq4_xs", SL_IQ4_XS, SL_Q5_K, SL_Q5_K, SL_IQ4_XS, SL_IQ4_XS, SL_Q6_K, NEVER, FIRST_EIGHTH},
    {"q3_k_m", SL_Q3_K, SL_Q4_K, SL_Q4_K, SL_Q4_K, SL_Q4_K, SL_Q6_K, ALWAYS, ALWAYS},
    {"q2_k", SL_Q2_K, SL_Q4_K, SL_Q3_K, SL_Q3_K, SL_Q3_K, SL_Q6_K, ALWAYS, ALWAYS},
};

enum { N_MIXES = sizeof mixes / sizeof *mixes };

static const char *const names[N_MIXES + 1] = {
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
    "iq4_nl", "iq4_xs", "q3_k_m", "q2_k", NULL,
};

const char *const *sl_plan_types(void) { return names; }

static bool holds(when rule, int layer, int n_layers) {
    int eighth = n_layers / 8;
    switch (rule) {
    case NEVER: return false;
    case ALWAYS: return true;
    case MORE_BITS: return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
    case FIRST_EIGHTH: return layer < eighth;
    case FIRST_FOUR: return layer < 4;
    }
    return false;
}

/* The type a matrix gets when its rows do not divide into the wanted type's blocks. */
static sl_type fitting(sl_type type, int64_t columns) {
    if (columns % sl_type_get(type)->block == 0) return type;
    switch (type) {
    case SL_Q6_K: type = SL_Q8_0; break;
    case SL_Q5_K: type = SL_Q5_1; break;
    case SL_Q4_K: type = SL_Q5_0; break;
    default: type = SL_IQ4_NL; break;
    }
    return columns % sl_type_get(type)->block == 0 ? type : SL_F16;
}

/* How a forward uses a matrix: multiplied for every token, for logits, by the tokens routed to it, or a row looked up. */
typedef enum use { BODY, HEAD, EXPERT, LOOKED_UP } use;

/* Rows looked up come from the file page by page, with their neighbours; a text uses so much of a large table. */
enum { LOOKED_UP_BYTES = 4 << 20 };

typedef struct tally {
    const sl_config *config;
    const mix *mix;
    bool exact;
    sl_footprint *out;
} tally;

static void add(tally *t, uint64_t *sum, uint64_t n) {
    if (!sl_add_u64(*sum, n, sum)) t->out->overflow = true;
}

static void vector(tally *t, int64_t n) {
    add(t, &t->out->weights_bytes, (uint64_t)n * sizeof(float));
    add(t, &t->out->file_bytes, (uint64_t)n * sizeof(float));
}

/* Multiply-adds of an expert are those of a token, which goes through n_experts_used of the n_experts. */
static void count_products(tally *t, use how, bool rounds, uint64_t elements) {
    const sl_config *c = t->config;
    if (how == EXPERT && c->n_experts > 0)
        elements = (uint64_t)((double)elements * c->n_experts_used / c->n_experts);
    add(t, how == HEAD ? &t->out->head_macs[rounds] : &t->out->body_macs[rounds], elements);
}

/* `rows` rows in panels of so many that belong together (an expert's), or fewer. */
static void count(tally *t, use how, sl_type type, int64_t rows, int64_t panel_rows, int64_t columns) {
    bool rounds = !t->exact && sl_type_get(type)->is_quantised;
    uint64_t bytes = 0, elements = 0, packed = rounds && how != LOOKED_UP && panel_rows > 0
                                                   ? sl_packed_bytes(type, panel_rows, columns) : 0;
    if (!sl_type_bytes(type, (uint64_t)columns, &bytes) || !sl_mul_u64((uint64_t)rows, bytes, &bytes) ||
        !sl_mul_u64((uint64_t)rows, (uint64_t)columns, &elements))
        t->out->overflow = true;
    add(t, &t->out->file_bytes, bytes);
    if (packed && !sl_mul_u64((uint64_t)(rows / panel_rows), packed, &bytes)) t->out->overflow = true;
    if (how == LOOKED_UP) {
        add(t, &t->out->weights_bytes, bytes < LOOKED_UP_BYTES ? bytes : LOOKED_UP_BYTES);
        return;
    }
    add(t, &t->out->weights_bytes, bytes);
    add(t, how == BODY ? &t->out->body_bytes : how == HEAD ? &t->out->head_bytes : &t->out->expert_bytes, bytes);
    count_products(t, how, rounds, elements);
}

static void matrix(tally *t, use how, sl_type type, int64_t rows, int64_t columns) {
    int64_t panel_rows = how == EXPERT && t->config->n_experts ? rows / t->config->n_experts : rows;
    count(t, how, fitting(type, columns), rows, panel_rows, columns);
}

static void attention(tally *t, int layer) {
    const sl_config *c = t->config;
    const mix *m = t->mix;
    int64_t width = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    if (c->family->qkv != SL_SPLIT) {
        matrix(t, BODY, m->fused, width + 2 * kv, c->n_embd);
    } else {
        matrix(t, BODY, m->base, width + kv, c->n_embd);
        matrix(t, BODY, holds(m->value_when, layer, c->n_layers) ? m->value : m->base, kv, c->n_embd);
    }
    matrix(t, BODY, m->attn_out, c->n_embd, width);
    if (c->bias_qkv == SL_BIAS_ALWAYS) vector(t, width + 2 * kv);
    if (c->bias_out == SL_BIAS_ALWAYS) vector(t, c->n_embd);
    if (c->family->head_norms) vector(t, 2 * c->head_dim);
}

static void feed_forward(tally *t, int layer) {
    const sl_config *c = t->config;
    const mix *m = t->mix;
    sl_type down = holds(m->down_when, layer, c->n_layers) ? m->down : m->base;
    int64_t inputs = c->family->gated ? 2 : 1;
    if (!c->layers[layer].moe) {
        matrix(t, BODY, m->base, inputs * c->n_ff, c->n_embd);
        matrix(t, BODY, down, c->n_embd, c->n_ff);
        if (c->bias_mlp == SL_BIAS_ALWAYS) vector(t, inputs * c->n_ff + c->n_embd);
        return;
    }
    matrix(t, EXPERT, m->base, inputs * c->n_ff_expert * c->n_experts, c->n_embd);
    matrix(t, EXPERT, down, (int64_t)c->n_embd * c->n_experts, c->n_ff_expert);
    vector(t, (int64_t)c->n_experts * c->n_embd);
    if (!c->n_ff_shared) return;
    matrix(t, BODY, m->base, inputs * c->n_ff_shared, c->n_embd);
    matrix(t, BODY, down, c->n_embd, c->n_ff_shared);
    vector(t, c->n_embd);
}

static const mix *find_mix(const char *type) {
    for (int i = 0; i < N_MIXES; i++)
        if (!strcasecmp(mixes[i].name, type)) return &mixes[i];
    return NULL;
}

static sllm_status unknown_type(const char *type, sllm_error *error) {
    char known[256] = "";
    for (int i = 0; i < N_MIXES; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    }
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "unknown type '%.40s'; known are %s", type, known);
}

sllm_status sl_plan_weights(const sl_config *c, const char *type, bool exact, sl_footprint *footprint,
                            sllm_error *error) {
    *footprint = (sl_footprint){0};
    tally t = {.config = c, .mix = find_mix(type), .exact = exact, .out = footprint};
    if (!t.mix) return unknown_type(type, error);
    int64_t norm = (c->norm == SL_NORM_LAYER ? 2 : 1) * (int64_t)c->n_embd;
    int norms = c->family->norm_place == SL_NORM_SANDWICH ? 4 : 2;
    if (!c->tied) matrix(&t, LOOKED_UP, t.mix->base, c->n_vocab, c->n_embd);
    matrix(&t, HEAD, t.mix->output, c->n_vocab, c->n_embd);
    if (!c->family->rope) vector(&t, (int64_t)c->n_ctx_train * c->n_embd);
    vector(&t, norm);
    if (c->rope_scaling == SL_ROPE_LLAMA3 || c->rope_freqs) vector(&t, c->rope_dim / 2);
    if (c->rope_scaling == SL_ROPE_LONGROPE) vector(&t, 2 * (c->rope_dim / 2));
    for (int i = 0; i < c->n_layers; i++) {
        attention(&t, i);
        feed_forward(&t, i);
        vector(&t, norms * norm);
    }
    if (footprint->overflow)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the configuration's %d layers of %d experts by %d take more bytes "
                       "than can be counted", c->n_layers, c->n_experts, c->n_embd);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- a file's own tensors */

static bool is_named(const sl_tensor *t, const char *const names_of[], size_t n) {
    for (size_t i = 0; i < n; i++)
        if (sl_ends_with(t->name, names_of[i])) return true;
    return false;
}

static bool is_embedding(const sl_tensor *t) {
    static const char *const known[] = {"token_embd.weight", "embed_tokens.weight", "wte.weight"};
    return is_named(t, known, sizeof known / sizeof *known);
}

static bool is_positions(const sl_tensor *t) {
    static const char *const known[] = {"position_embd.weight", "wpe.weight"};
    return is_named(t, known, sizeof known / sizeof *known);
}

static bool is_output(const sl_tensor *t) {
    return !strcmp(t->name, "output.weight") || !strcmp(t->name, "lm_head.weight");
}

static use use_of(const sl_tensor *t, bool tied) {
    if (is_embedding(t)) return tied ? HEAD : LOOKED_UP;
    if (is_positions(t)) return LOOKED_UP;
    if (is_output(t)) return HEAD;
    return t->n_dims == 3 || strstr(t->name, ".experts.") ? EXPERT : BODY;
}

void sl_plan_tensors(const sl_tensors *tensors, const sl_config *config, bool exact, sl_footprint *footprint) {
    *footprint = (sl_footprint){0};
    tally t = {.config = config, .exact = exact, .out = footprint};
    bool has_output = false;
    size_t n = sl_tensors_count(tensors);
    for (size_t i = 0; i < n; i++) has_output |= is_output(sl_tensors_at(tensors, i));
    bool tied = !has_output || (tensors->safetensors && config->tied);
    for (size_t i = 0; i < n; i++) {
        const sl_tensor *w = sl_tensors_at(tensors, i);
        if (w->n_dims < 2) {
            vector(&t, (int64_t)w->n_elements);
            continue;
        }
        int64_t rows = w->shape[w->n_dims - 2], columns = w->shape[w->n_dims - 1];
        if (is_output(w) && tied) continue; /* a copy of the embedding that nothing reads */
        if (rows > 0 && columns > 0 && sl_type_get(w->type)->is_float)
            count(&t, use_of(w, tied), w->type, (int64_t)(w->n_elements / (uint64_t)columns), rows, columns);
    }
}

/* ---------------------------------------------------------------- what a forward asks for */

uint64_t sl_footprint_bytes(const sl_footprint *f, const sl_config *c, int n, int n_logits) {
    uint64_t bytes = f->body_bytes + (n_logits > 0 ? f->head_bytes : 0);
    if (!c->n_experts) return bytes;
    double missed = pow(1.0 - (double)c->n_experts_used / c->n_experts, n); /* an expert that no token chose */
    return bytes + (uint64_t)((double)f->expert_bytes * (1.0 - missed));
}

static int visible(const sl_layer_config *layer, int position) {
    return layer->window && layer->window < position + 1 ? layer->window : position + 1;
}

uint64_t sl_attention_bytes(const sl_config *c, sl_kv_type type, int position) {
    uint64_t page = sl_kv_pool_bytes(c, type, 2) - sl_kv_pool_bytes(c, type, 1), keys = 0;
    for (int i = 0; i < c->n_layers; i++) keys += (uint64_t)visible(&c->layers[i], position);
    return page / (uint64_t)c->n_layers * keys / SL_PAGE;
}

uint64_t sl_attention_macs(const sl_config *c, int position) {
    uint64_t keys = 0;
    for (int i = 0; i < c->n_layers; i++) keys += (uint64_t)visible(&c->layers[i], position);
    return 2 * keys * (uint64_t)c->n_heads * (uint64_t)c->head_dim;
}

/* ---------------------------------------------------------------- estimates */

/* Words, merges and their tables. Measured after loading alone: SmolLM2 (49k tokens), Gemma 3 (262k). */
enum { BYTES_A_TOKEN = 80 };
uint64_t sl_plan_vocabulary_bytes(int n_vocab) { return (uint64_t)(n_vocab > 0 ? n_vocab : 0) * BYTES_A_TOKEN; }

/* Text and data of program and libraries that a run touches, stacks, and what the C library keeps. */
uint64_t sl_plan_program_bytes(void) { return 13 << 20; }

/* Shares of the machine's peaks that forwards reach, as `sllm bench` shows them: of reading, for generation; of int8 and
 * f32 arithmetic, for prompts. OPERATOR_S: what one operator of a block costs beside its data. */
static const double READ_SHARE = 0.7, INT8_SHARE = 0.6, F32_SHARE = 0.5, OPERATOR_S = 2e-6;
enum { OPERATORS_A_BLOCK = 6 };

static double operators_s(const sl_config *c, const sllm_machine_speed *m) {
    return (OPERATORS_A_BLOCK * c->n_layers + 2) * (OPERATOR_S + m->sync_s);
}

static double compute_s(double f32, double int8, const sllm_machine_speed *m) {
    return f32 / (m->f32_n * F32_SHARE) + int8 / (m->int8_n * INT8_SHARE);
}

double sl_plan_generate_speed(const sl_footprint *f, const sl_config *c, sl_kv_type type, int position, int n_batch,
                              const sllm_machine_speed *m) {
    double n = n_batch, bytes = (double)sl_footprint_bytes(f, c, n_batch, n_batch) +
                                n * (double)sl_attention_bytes(c, type, position);
    double f32 = n * (double)(f->body_macs[0] + f->head_macs[0] + sl_attention_macs(c, position));
    double reading = bytes / (m->read_n * READ_SHARE);
    double computing = compute_s(f32, n * (double)(f->body_macs[1] + f->head_macs[1]), m);
    return n / ((reading > computing ? reading : computing) + operators_s(c, m));
}

double sl_plan_prompt_speed(const sl_footprint *f, const sl_config *c, int n, const sllm_machine_speed *m) {
    double chunks = ceil((double)n / SL_CHUNK), tokens = n;
    double reading = chunks * (double)sl_footprint_bytes(f, c, n < SL_CHUNK ? n : SL_CHUNK, 1) / (m->read_n * READ_SHARE);
    double attention = tokens * (double)sl_attention_macs(c, n / 2);
    double f32 = tokens * (double)f->body_macs[0] + (double)f->head_macs[0] + attention;
    double computing = compute_s(f32, tokens * (double)f->body_macs[1] + (double)f->head_macs[1], m);
    return tokens / ((reading > computing ? reading : computing) + chunks * operators_s(c, m));
}
