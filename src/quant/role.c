#include "quant/role.h"

#include <stdlib.h>
#include <string.h>

/* The number at *text, which it passes; -1: there is none that fits. */
static int number(const char **text) {
    char *end;
    if (**text < '0' || **text > '9') return -1;
    long value = strtol(*text, &end, 10);
    *text = end;
    return value < 1000000 ? (int)value : -1;
}

/* Does `name` begin with a slot's pattern? The rest is then in *rest. */
static bool matches(const char *pattern, const char *name, int *layer, const char **rest) {
    *layer = -1;
    while (*pattern) {
        if (!strncmp(pattern, "{L}", 3)) {
            if ((*layer = number(&name)) < 0) return false;
            pattern += 3;
        } else if (*pattern++ != *name++) {
            return false;
        }
    }
    *rest = name;
    return true;
}

sl_role sl_role_of(const char *gguf_name) {
    for (int slot = 0; slot < SL_SLOT_COUNT; slot++) {
        int layer;
        const char *rest;
        if (!sl_gguf_slots[slot] || !matches(sl_gguf_slots[slot], gguf_name, &layer, &rest)) continue;
        if (!strcmp(rest, ".weight")) return (sl_role){(sl_slot)slot, layer, true};
        if (!strcmp(rest, ".bias")) return (sl_role){(sl_slot)slot, layer, false};
    }
    return (sl_role){SL_SLOT_COUNT, -1, false};
}

bool sl_role_is_quantised(sl_role role, int n_dims) {
    if (!role.weight || n_dims < 2) return false;
    switch (role.slot) {
    case SL_SLOT_EMBED: case SL_SLOT_OUTPUT: case SL_SLOT_Q: case SL_SLOT_K: case SL_SLOT_V: case SL_SLOT_QKV:
    case SL_SLOT_ATTN_OUT: case SL_SLOT_GATE: case SL_SLOT_UP: case SL_SLOT_GATE_UP: case SL_SLOT_DOWN:
    case SL_SLOT_EXPERT_GATE: case SL_SLOT_EXPERT_UP: case SL_SLOT_EXPERT_DOWN: case SL_SLOT_SHARED_GATE:
    case SL_SLOT_SHARED_UP: case SL_SLOT_SHARED_DOWN:
        return true;
    default:
        return false;
    }
}
