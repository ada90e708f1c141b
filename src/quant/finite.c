#include "quant/finite.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

uint64_t sl_clear_nonfinite(float *x, size_t n, uint64_t *first) {
    uint32_t carried = 0;
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++) { /* no branch, and nothing that SSE2 lacks: this loop sees every weight */
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        carried |= (bits & 0x7fffffff) + 0x00800000; /* an exponent of ones carries into the sign's place */
    }
    *first = 0;
    for (size_t i = 0; carried >> 31 && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        if ((bits & 0x7fffffff) < 0x7f800000) continue;
        if (!count++) *first = i + 1;
        x[i] = 0;
    }
    return count;
}

typedef struct scan {
    const sl_tensor *t;
    int64_t columns;
    _Atomic uint64_t first; /* element, plus 1; 0: none */
} scan;

static void scan_row(void *user, int64_t row, int thread) {
    scan *s = user;
    uint64_t first, seen;
    float *x = malloc((size_t)s->columns * sizeof *x);
    (void)thread;
    if (!x) return; /* what cannot be looked at here fails where it is solved */
    sl_tensor_read(s->t, (uint64_t)(row * s->columns), (size_t)s->columns, x);
    if (sl_clear_nonfinite(x, (size_t)s->columns, &first)) {
        first += (uint64_t)(row * s->columns);
        for (seen = atomic_load(&s->first); !seen || first < seen;)
            if (atomic_compare_exchange_weak(&s->first, &seen, first)) break;
    }
    free(x);
}

sllm_status sl_check_finite(const char *path, const sl_tensor *t, bool can_clear, sl_pool *pool, sllm_error *error) {
    scan s = {.t = t, .columns = t->n_dims ? t->shape[t->n_dims - 1] : 1};
    if (!t->n_elements || !s.columns) return SLLM_OK;
    sl_pool_run(pool, (int64_t)(t->n_elements / (uint64_t)s.columns), scan_row, &s);
    uint64_t first = atomic_load(&s.first);
    if (!first) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor %s holds a value that is not a finite number (row %" PRIu64 ", column %"
                   PRIu64 "): the file is damaged or its training failed%s", path, t->name, (first - 1) / (uint64_t)s.columns,
                   (first - 1) % (uint64_t)s.columns, can_clear ? "; --allow-nonfinite makes such values 0" : "");
}
