#include "quant/solved.h"

#include "tensor/quantise.h"

#include <stdlib.h>

static uint64_t row_bytes(const sl_solved *s) {
    uint64_t bytes = 0;
    sl_type_bytes(s->target.type, (uint64_t)s->columns, &bytes);
    return bytes;
}

bool sl_solved_new(sl_solved *s, sl_target target, int64_t rows, int64_t columns) {
    *s = (sl_solved){.target = target, .rows = rows, .columns = columns};
    if (target.type != SL_TYPE_COUNT) {
        s->blocks = malloc((size_t)(row_bytes(s) * (uint64_t)rows));
        return s->blocks != NULL;
    }
    if (s->target.grid.group > columns || s->target.grid.group < 1) s->target.grid.group = columns;
    s->n_groups = (columns + s->target.grid.group - 1) / s->target.grid.group;
    s->codes = malloc((size_t)(rows * columns));
    s->scales = malloc((size_t)(rows * s->n_groups) * sizeof *s->scales);
    s->zeros = malloc((size_t)(rows * s->n_groups));
    if (s->codes && s->scales && s->zeros) return true;
    sl_solved_free(s);
    return false;
}

void sl_solved_free(sl_solved *s) {
    free(s->blocks);
    free(s->codes);
    free(s->scales);
    free(s->zeros);
    free(s->group_of);
    *s = (sl_solved){0};
}

void sl_solved_round(const sl_solved *s, const float *w, const float *importance, int64_t first, int64_t rows) {
    if (s->target.type != SL_TYPE_COUNT) {
        sl_quantise_rows(s->target.type, w, rows, s->columns, importance, s->blocks + (uint64_t)first * row_bytes(s));
        return;
    }
    const sl_int_grid grid = s->target.grid;
    for (int64_t r = first; r < first + rows; r++, w += s->columns)
        for (int64_t g = 0; g < s->n_groups; g++) {
            int64_t from = g * grid.group, n = s->columns - from < grid.group ? s->columns - from : grid.group;
            sl_int_group fit = sl_int_grid_fit(grid, w + from, importance ? importance + from : NULL, n);
            s->scales[r * s->n_groups + g] = fit.scale;
            s->zeros[r * s->n_groups + g] = (uint8_t)fit.zero;
            for (int64_t i = from; i < from + n; i++)
                s->codes[r * s->columns + i] = (uint8_t)sl_int_grid_code(grid, fit, w[i]);
        }
}

void sl_solved_read(const sl_solved *s, int64_t first, int64_t rows, float *w) {
    if (s->target.type != SL_TYPE_COUNT) {
        sl_type_get(s->target.type)->to_float(s->blocks + (uint64_t)first * row_bytes(s), w, (size_t)(rows * s->columns));
        return;
    }
    for (int64_t r = first; r < first + rows; r++, w += s->columns)
        for (int64_t i = 0; i < s->columns; i++) {
            int64_t place = r * s->n_groups + (s->group_of ? s->group_of[i] : i / s->target.grid.group);
            w[i] = (float)((int)s->codes[r * s->columns + i] - (int)s->zeros[place]) * s->scales[place];
        }
}
