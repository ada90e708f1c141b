#include "quant/sensitivity.h"

#include <stdlib.h>

/* The step to a larger choice that saves most loss a byte, as far as the room allows; -1: there is none. */
static int best_step(const sl_choices *c, int at, uint64_t room, double *gain) {
    int best = -1;
    *gain = 0;
    for (int k = at + 1; k < c->n; k++) {
        uint64_t more = c->items[k].bytes - c->items[at].bytes;
        double rate = (c->items[at].loss - c->items[k].loss) / (double)more;
        if (more > room || rate <= *gain) continue;
        best = k;
        *gain = rate;
    }
    return best;
}

bool sl_choose_types(const sl_choices *choices, size_t n_tensors, uint64_t budget, int *chosen, uint64_t *least) {
    uint64_t used = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        chosen[i] = 0;
        if (choices[i].n) used += choices[i].items[0].bytes;
    }
    *least = used;
    if (used > budget) return false;
    for (;;) {
        size_t tensor = 0;
        int step = -1;
        double best = 0;
        for (size_t i = 0; i < n_tensors; i++) {
            double gain;
            int k = choices[i].n ? best_step(&choices[i], chosen[i], budget - used, &gain) : -1;
            if (k < 0 || gain <= best) continue;
            best = gain;
            tensor = i;
            step = k;
        }
        if (step < 0) return true;
        used += choices[tensor].items[step].bytes - choices[tensor].items[chosen[tensor]].bytes;
        chosen[tensor] = step;
    }
}
