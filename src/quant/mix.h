/* Mixes: names such as q4_k_m that stand for a type by a tensor's role and layer. The allocations are those of
 * llama.cpp's file types of the same names, so that a user gets the file the name promises; as data.
 */
#ifndef SL_QUANT_MIX_H
#define SL_QUANT_MIX_H

#include "quant/role.h"
#include "tensor/types.h"

typedef struct sl_mix sl_mix;

/* By name, "q4_k_m" or "Q4_K_M"; a type's own name is the mix whose base it is. NULL: unknown. */
const sl_mix *sl_mix_find(const char *name);
const sl_mix *sl_mix_at(size_t index); /* NULL past the end */
const char *sl_mix_name(const sl_mix *mix);
sl_type sl_mix_base(const sl_mix *mix);
int sl_mix_file_type(const sl_mix *mix); /* of general.file_type; -1: none is defined */

/* What a mix looks at beside the tensor. */
typedef struct sl_mix_model {
    int n_layers;
    int gqa;         /* query heads a key/value head */
    int n_experts;   /* 0: none */
    bool tied;       /* no output matrix: the embedding is one too */
    bool importance; /* is there any? */
} sl_mix_model;

/* The type the mix gives a tensor of this role; shapes are looked at by sl_mix_fallback. */
sl_type sl_mix_type(const sl_mix *mix, const sl_mix_model *model, sl_role role, int64_t columns);

/* The type in whose blocks rows of so many columns can be stored: `type` itself, or the next one by the rule
 * Q2_K, Q3_K -> Q4_0; IQ4_XS -> IQ4_NL; Q4_K -> Q5_0; Q5_K -> Q5_1; Q6_K -> Q8_0; anything else -> F16. */
sl_type sl_mix_fallback(sl_type type, int64_t columns);

#endif
