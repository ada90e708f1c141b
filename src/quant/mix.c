#include "quant/mix.h"

#include <strings.h>

/* When a rule counts; L is the block's number of n. */
typedef enum when {
    ALWAYS,
    GQA_4,         /* at least four query heads share a key/value head: the matrix is small */
    NO_GQA_4,
    MORE_BITS,     /* L in the first or last eighth, and every third between: where errors hurt most */
    FIRST_TWO, FIRST_FOUR,
    FIRST_EIGHTH, FIRST_SIXTEENTH,
    FIRST_EIGHTH_BLIND,  /* the first eighth, without importance */
    FIRST_EIGHTH_GUIDED, /* the first eighth, with importance */
    EIGHT_EXPERTS,
    NOT_EIGHT_EXPERTS
} when;

/* The first rule of a role that counts gives the type. */
typedef struct rule {
    sl_slot slot;
    when when;
    sl_type type;
} rule;

enum { MAX_RULES = 8 };
struct sl_mix {
    const char *name;
    int file_type;
    sl_type base;
    rule rules[MAX_RULES]; /* ends with a rule of type SL_F32 */
};

#define V SL_SLOT_V
#define QKV SL_SLOT_QKV
#define OUT SL_SLOT_ATTN_OUT
#define DOWN SL_SLOT_DOWN

static const sl_mix mixes[] = {
    {"F32", 0, SL_F32, {{0}}},
    {"F16", 1, SL_F16, {{0}}},
    {"BF16", 32, SL_BF16, {{0}}},
    {"Q8_0", 7, SL_Q8_0, {{0}}},
    {"Q6_K", 18, SL_Q6_K, {{0}}},
    {"Q5_K_M", 17, SL_Q5_K, {{V, MORE_BITS, SL_Q6_K}, {QKV, MORE_BITS, SL_Q6_K}, {DOWN, MORE_BITS, SL_Q6_K}}},
    {"Q5_K_S", 16, SL_Q5_K, {{0}}},
    {"Q4_K_M", 15, SL_Q4_K, {{V, MORE_BITS, SL_Q6_K}, {QKV, MORE_BITS, SL_Q6_K},
                             {DOWN, MORE_BITS, SL_Q6_K}, {OUT, EIGHT_EXPERTS, SL_Q5_K}}},
    {"Q4_K_S", 14, SL_Q4_K, {{V, FIRST_FOUR, SL_Q5_K}, {QKV, FIRST_FOUR, SL_Q5_K}, {DOWN, FIRST_EIGHTH, SL_Q5_K},
                             {OUT, EIGHT_EXPERTS, SL_Q5_K}}},
    {"Q3_K_L", 13, SL_Q3_K, {{V, ALWAYS, SL_Q5_K}, {QKV, ALWAYS, SL_Q5_K}, {DOWN, ALWAYS, SL_Q5_K},
                             {OUT, NOT_EIGHT_EXPERTS, SL_Q5_K}}},
    {"Q3_K_M", 12, SL_Q3_K, {{V, FIRST_TWO, SL_Q5_K}, {V, ALWAYS, SL_Q4_K}, {QKV, FIRST_TWO, SL_Q5_K},
                             {QKV, ALWAYS, SL_Q4_K}, {DOWN, FIRST_SIXTEENTH, SL_Q5_K}, {DOWN, ALWAYS, SL_Q4_K},
                             {OUT, EIGHT_EXPERTS, SL_Q5_K}, {OUT, ALWAYS, SL_Q4_K}}},
    {"Q3_K_S", 11, SL_Q3_K, {{OUT, EIGHT_EXPERTS, SL_Q5_K}}},
    {"Q2_K", 10, SL_Q2_K, {{V, GQA_4, SL_Q4_K}, {V, NO_GQA_4, SL_Q3_K}, {QKV, GQA_4, SL_Q4_K},
                           {QKV, NO_GQA_4, SL_Q3_K}, {DOWN, ALWAYS, SL_Q3_K}, {OUT, EIGHT_EXPERTS, SL_Q5_K},
                           {OUT, ALWAYS, SL_Q3_K}}},
    {"Q4_0", 2, SL_Q4_0, {{DOWN, FIRST_EIGHTH_GUIDED, SL_Q4_1}}},
    {"Q4_1", 3, SL_Q4_1, {{0}}},
    {"Q5_0", 8, SL_Q5_0, {{DOWN, FIRST_EIGHTH_GUIDED, SL_Q5_1}}},
    {"Q5_1", 9, SL_Q5_1, {{0}}},
    {"IQ4_NL", 25, SL_IQ4_NL, {{V, GQA_4, SL_Q5_K}, {QKV, GQA_4, SL_Q5_K}, {DOWN, FIRST_EIGHTH_BLIND, SL_Q5_K},
                               {OUT, EIGHT_EXPERTS, SL_Q5_K}}},
    {"IQ4_XS", 30, SL_IQ4_XS, {{V, GQA_4, SL_Q5_K}, {QKV, GQA_4, SL_Q5_K}, {DOWN, FIRST_EIGHTH_BLIND, SL_Q5_K},
                               {OUT, EIGHT_EXPERTS, SL_Q5_K}}},
    {"MXFP4", 38, SL_MXFP4, {{0}}},
};

/* A type's own name, where several mixes share the base. */
static const struct { const char *name, *mix; } aliases[] = {
    {"Q5_K", "Q5_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q3_K", "Q3_K_M"},
};

const sl_mix *sl_mix_at(size_t index) { return index < sizeof mixes / sizeof *mixes ? &mixes[index] : NULL; }
const char *sl_mix_name(const sl_mix *mix) { return mix->name; }
sl_type sl_mix_base(const sl_mix *mix) { return mix->base; }
int sl_mix_file_type(const sl_mix *mix) { return mix->file_type; }

const sl_mix *sl_mix_find(const char *name) {
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcasecmp(aliases[i].name, name)) name = aliases[i].mix;
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++)
        if (!strcasecmp(mixes[i].name, name)) return &mixes[i];
    return NULL;
}

static bool counts(when rule_when, const sl_mix_model *m, int layer) {
    int n = m->n_layers, eighth = n / 8;
    switch (rule_when) {
    case ALWAYS: return true;
    case GQA_4: return m->gqa >= 4;
    case NO_GQA_4: return m->gqa < 4;
    case MORE_BITS: return layer < eighth || layer >= 7 * n / 8 || (layer - eighth) % 3 == 2;
    case FIRST_TWO: return layer < 2;
    case FIRST_FOUR: return layer < 4;
    case FIRST_EIGHTH: return layer < eighth;
    case FIRST_SIXTEENTH: return layer < n / 16;
    case FIRST_EIGHTH_BLIND: return layer < eighth && !m->importance;
    case FIRST_EIGHTH_GUIDED: return layer < eighth && m->importance;
    case EIGHT_EXPERTS: return m->n_experts == 8;
    case NOT_EIGHT_EXPERTS: return m->n_experts != 8;
    }
    return false;
}

/* The matrix that makes logits: six bits at least, since every token's choice passes through it. */
static sl_type output_type(sl_type base, int64_t columns) {
    const sl_type_info *info = sl_type_get(base);
    if (!info->is_quantised) return base;
    return columns % info->block || base == SL_Q8_0 || base == SL_MXFP4 ? SL_Q8_0 : SL_Q6_K;
}

/* Experts and shared experts take the rules of the plain feed-forward part. */
static sl_slot plain_slot(sl_slot slot) {
    return slot == SL_SLOT_EXPERT_DOWN || slot == SL_SLOT_SHARED_DOWN ? DOWN : slot;
}

sl_type sl_mix_type(const sl_mix *mix, const sl_mix_model *model, sl_role role, int64_t columns) {
    if (role.slot == SL_SLOT_OUTPUT || (role.slot == SL_SLOT_EMBED && model->tied))
        return output_type(mix->base, columns);
    if (!sl_type_get(mix->base)->is_quantised) return mix->base;
    if (model->n_experts == 8 && (role.slot == V || role.slot == QKV || role.slot == SL_SLOT_K)) return SL_Q8_0;
    for (int i = 0; i < MAX_RULES && mix->rules[i].type != SL_F32; i++)
        if (mix->rules[i].slot == plain_slot(role.slot) && counts(mix->rules[i].when, model, role.layer))
            return mix->rules[i].type;
    return mix->base;
}

sl_type sl_mix_fallback(sl_type type, int64_t columns) {
    if (columns % sl_type_get(type)->block == 0) return type;
    sl_type smaller;
    switch (type) {
    case SL_Q2_K: case SL_Q3_K: smaller = SL_Q4_0; break;
    case SL_IQ4_XS: smaller = SL_IQ4_NL; break;
    case SL_Q4_K: smaller = SL_Q5_0; break;
    case SL_Q5_K: smaller = SL_Q5_1; break;
    case SL_Q6_K: smaller = SL_Q8_0; break;
    default: smaller = SL_F16; break;
    }
    return columns % sl_type_get(smaller)->block ? SL_F16 : smaller;
}
