#include "model/plan.h"

#include "base/checked.h"
#include "base/error.h"
#include "model/families.h"
#include "tensor/types.h"

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

typedef struct tally {
    const sl_config *config;
    const mix *mix;
    uint64_t bytes;
    bool overflow; /* more bytes than can be counted */
} tally;

static void vector(tally *t, int64_t n) {
    if (!sl_add_u64(t->bytes, (uint64_t)n * sizeof(float), &t->bytes)) t->overflow = true;
}

static void matrix(tally *t, sl_type type, int64_t rows, int64_t columns) {
    uint64_t row = 0;
    sl_type_bytes(fitting(type, columns), (uint64_t)columns, &row);
    if (!sl_mul_u64((uint64_t)rows, row, &row) || !sl_add_u64(t->bytes, row, &t->bytes)) t->overflow = true;
}

static void attention(tally *t, int layer) {
    const sl_config *c = t->config;
    const mix *m = t->mix;
    int64_t width = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    if (c->family->qkv != SL_SPLIT) {
        matrix(t, m->fused, width + 2 * kv, c->n_embd);
    } else {
        matrix(t, m->base, width + kv, c->n_embd);
        matrix(t, holds(m->value_when, layer, c->n_layers) ? m->value : m->base, kv, c->n_embd);
    }
    matrix(t, m->attn_out, c->n_embd, width);
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
        matrix(t, m->base, inputs * c->n_ff, c->n_embd);
        matrix(t, down, c->n_embd, c->n_ff);
        if (c->bias_mlp == SL_BIAS_ALWAYS) vector(t, inputs * c->n_ff + c->n_embd);
        return;
    }
    matrix(t, m->base, inputs * c->n_ff_expert * c->n_experts, c->n_embd);
    matrix(t, down, (int64_t)c->n_embd * c->n_experts, c->n_ff_expert);
    vector(t, (int64_t)c->n_experts * c->n_embd);
    if (!c->n_ff_shared) return;
    matrix(t, m->base, inputs * c->n_ff_shared, c->n_embd);
    matrix(t, down, c->n_embd, c->n_ff_shared);
    vector(t, c->n_embd);
}

sllm_status sl_plan_weights(const sl_config *c, const char *type, uint64_t *bytes, sllm_error *error) {
    tally t = {.config = c};
    for (int i = 0; i < N_MIXES; i++)
        if (!strcasecmp(mixes[i].name, type)) t.mix = &mixes[i];
    if (!t.mix) {
        char known[256] = "";
        for (int i = 0; i < N_MIXES; i++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
        }
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "unknown type '%.40s'; known are %s", type, known);
    }
    int64_t norm = (c->norm == SL_NORM_LAYER ? 2 : 1) * (int64_t)c->n_embd;
    int norms = c->family->norm_place == SL_NORM_SANDWICH ? 4 : 2;
    matrix(&t, c->tied ? t.mix->output : t.mix->base, c->n_vocab, c->n_embd);
    if (!c->tied) matrix(&t, t.mix->output, c->n_vocab, c->n_embd);
    if (!c->family->rope) vector(&t, (int64_t)c->n_ctx_train * c->n_embd);
    vector(&t, norm);
    if (c->rope_scaling == SL_ROPE_LLAMA3 || c->rope_freqs) vector(&t, c->rope_dim / 2);
    if (c->rope_scaling == SL_ROPE_LONGROPE) vector(&t, 2 * (c->rope_dim / 2));
    for (int i = 0; i < c->n_layers; i++) {
        attention(&t, i);
        feed_forward(&t, i);
        vector(&t, norms * norm);
    }
    if (t.overflow)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the configuration's %d layers of %d experts by %d take more bytes "
                       "than can be counted", c->n_layers, c->n_experts, c->n_embd);
    *bytes = t.bytes;
    return SLLM_OK;
}
