/* What a tensor of a GGUF file is for, told by its name. */
#ifndef SL_QUANT_ROLE_H
#define SL_QUANT_ROLE_H

#include "model/families.h"

typedef struct sl_role {
    sl_slot slot; /* SL_SLOT_COUNT: none of the table; fused gate and up (phi3) counts as SL_SLOT_UP */
    int layer;    /* -1: belongs to no block */
    bool weight;  /* ".weight"; false: a bias or something else */
} sl_role;

sl_role sl_role_of(const char *gguf_name);

/* Whether quantising may touch it: a weight with rows, but no norm, no table of positions, no router, no list of
 * rotary factors. Tensors that the table does not know are left as they are. */
bool sl_role_is_quantised(sl_role role, int n_dims);

#endif
