#include "quant/gptq.h"

#include "tensor/codes.h"
#include "tensor/quantise.h"

#include <math.h>
#include <stdlib.h>

enum { BATCH = 128 }; /* columns whose errors reach the later ones together */

/* The codes that a format has. */
typedef struct code_set {
    const int8_t *book; /* [16], sorted or not; NULL: the integers low .. high */
    float low, high;
} code_set;

static code_set codes_of(const sl_solved *out) {
    if (out->target.type == SL_TYPE_COUNT) return (code_set){NULL, 0, (float)((1 << out->target.grid.bits) - 1)};
    if (out->target.type == SL_IQ4_NL || out->target.type == SL_IQ4_XS) return (code_set){sl_iq4_values, 0, 0};
    if (out->target.type == SL_MXFP4) return (code_set){sl_fp4_values, 0, 0};
    const sl_codes *c = sl_type_codes(out->target.type);
    if (!c->top) return (code_set){NULL, -127, 127};
    return (code_set){NULL, -(float)c->offset, (float)(c->top - c->offset)};
}

static float nearest_code(code_set set, float y) {
    if (!set.book) return rintf(y < set.low ? set.low : y > set.high ? set.high : y);
    float best = set.book[0];
    for (int i = 1; i < 16; i++)
        if (fabsf(y - set.book[i]) < fabsf(y - best)) best = set.book[i];
    return best;
}

/* Rows on their way: all but w in the order in which columns are done. */
typedef struct batch {
    const sl_gptq *g;
    const sl_solved *out;
    code_set set;
    int64_t first, rows;
    float *w;             /* [rows, n] */
    float *scale, *min;   /* [rows, n]: value = scale * code + min */
    float *error;         /* [rows, BATCH] */
    float *weights;       /* [n] importance in order; NULL: 1 */
    int16_t *codes;       /* [rows, n] */
} batch;

static int64_t column_of(const sl_gptq *g, int64_t at) { return g->order ? g->order[at] : at; }

/* ---------------------------------------------------------------- scales */

/* One block of a type: fitted to x, kept in the output; its scales for columns [0, block). */
static void fit_block(const batch *b, int64_t row, int64_t column, const float *x, float *scale, float *min) {
    const sl_type_info *info = sl_type_get(b->out->target.type);
    const sl_codes *how = sl_type_codes(b->out->target.type);
    const float *importance = b->g->importance ? b->g->importance + column : NULL;
    uint8_t *block = b->out->blocks + (size_t)((b->first + row) * (b->g->n / info->block) + column / info->block) * info->bytes;
    int8_t codes[SL_MAX_BLOCK];
    float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS] = {0};
    sl_quantise_rows(b->out->target.type, x, 1, info->block, importance, block);
    how->unpack(block, codes, scales, mins);
    for (int i = 0; i < info->block; i++) {
        scale[i] = scales[i / how->group];
        min[i] = how->has_min ? mins[i / how->group] : 0;
    }
}

static void fit_group(const batch *b, int64_t row, int64_t at) {
    const sl_solved *out = b->out;
    int64_t n = b->g->n - at < out->target.grid.group ? b->g->n - at : out->target.grid.group, group = at / out->target.grid.group;
    float *x = b->w + row * b->g->n + at;
    sl_int_group fit = sl_int_grid_fit(out->target.grid, x, b->weights ? b->weights + at : NULL, n);
    int64_t place = (b->first + row) * out->n_groups + group;
    out->scales[place] = fit.scale;
    out->zeros[place] = (uint8_t)fit.zero;
    for (int64_t i = 0; i < n; i++) {
        b->scale[row * b->g->n + at + i] = fit.scale;
        b->min[row * b->g->n + at + i] = -(float)fit.zero * fit.scale;
    }
}

/* Blocks stay where they are though columns are done in another order: their scales are fixed first. */
static void fit_all_blocks(const batch *b, float *scratch) {
    const sl_gptq *g = b->g;
    int block = sl_type_get(b->out->target.type)->block;
    float *scale = scratch, *min = scale + g->n, *w = min + g->n;
    for (int64_t r = 0; r < b->rows; r++) {
        float *row = b->w + r * g->n;
        for (int64_t c = 0; c < g->n; c += block) fit_block(b, r, c, row + c, scale + c, min + c);
        memcpy(w, row, (size_t)g->n * sizeof *w);
        for (int64_t i = 0; i < g->n; i++) {
            int64_t c = g->order[i];
            row[i] = w[c];
            b->scale[r * g->n + i] = scale[c];
            b->min[r * g->n + i] = min[c];
        }
    }
}

static void put_in_order(const batch *b, float *scratch) {
    const sl_gptq *g = b->g;
    for (int64_t r = 0; r < b->rows; r++) {
        memcpy(scratch, b->w + r * g->n, (size_t)g->n * sizeof *scratch);
        for (int64_t i = 0; i < g->n; i++) b->w[r * g->n + i] = scratch[g->order[i]];
    }
}

/* ---------------------------------------------------------------- columns */

static void begin_column(const batch *b, int64_t row, int64_t at) {
    bool types = b->out->target.type != SL_TYPE_COUNT;
    if (!types && at % b->out->target.grid.group == 0) fit_group(b, row, at);
    if (types && !b->g->order && at % sl_type_get(b->out->target.type)->block == 0) {
        int64_t place = row * b->g->n + at;
        fit_block(b, row, at, b->w + place, b->scale + place, b->min + place);
    }
}

/* Columns [from, to) of one row, one after the other. */
static void do_row(const batch *b, int64_t row, int64_t from, int64_t to) {
    int64_t n = b->g->n;
    float *w = b->w + row * n, *error = b->error + row * BATCH;
    const float *scale = b->scale + row * n, *min = b->min + row * n;
    for (int64_t j = from; j < to; j++) {
        begin_column(b, row, j);
        const float *u = b->g->factor + j * n;
        float code = nearest_code(b->set, scale[j] != 0 ? (w[j] - min[j]) / scale[j] : 0);
        float e = (w[j] - (scale[j] * code + min[j])) / u[j];
        b->codes[row * n + j] = (int16_t)code;
        error[j - from] = e;
        for (int64_t k = j + 1; k < to; k++) w[k] -= e * u[k];
    }
}

static void store(const batch *b) {
    const sl_gptq *g = b->g;
    int8_t row[SL_MAX_BLOCK];
    if (b->out->target.type == SL_TYPE_COUNT) {
        for (int64_t r = 0; r < b->rows; r++)
            for (int64_t i = 0; i < g->n; i++)
                b->out->codes[(b->first + r) * g->n + column_of(g, i)] = (uint8_t)b->codes[r * g->n + i];
        return;
    }
    const sl_type_info *info = sl_type_get(b->out->target.type);
    int16_t *natural = (int16_t *)(void *)b->scale; /* which has served */
    uint8_t *block = b->out->blocks + (size_t)(b->first * (g->n / info->block)) * info->bytes;
    for (int64_t r = 0; r < b->rows; r++) {
        for (int64_t i = 0; i < g->n; i++) natural[column_of(g, i)] = b->codes[r * g->n + i];
        for (int64_t c = 0; c < g->n; c += info->block, block += info->bytes) {
            for (int i = 0; i < info->block; i++) row[i] = (int8_t)natural[c + i];
            sl_block_set_codes(b->out->target.type, block, row);
        }
    }
}

bool sl_gptq_rows(const sl_gptq *g, float *w, int64_t first, int64_t rows, const sl_solved *out) {
    batch b = {.g = g, .out = out, .set = codes_of(out), .first = first, .rows = rows, .w = w};
    size_t all = (size_t)(rows * g->n);
    float *floats = malloc((2 * all + (size_t)rows * BATCH + 4 * (size_t)g->n) * sizeof *floats);
    b.codes = malloc(all * sizeof *b.codes);
    if (!floats || !b.codes) {
        free(floats);
        free(b.codes);
        return false;
    }
    b.scale = floats;
    b.min = b.scale + all;
    b.error = b.min + all;
    float *scratch = b.error + (size_t)rows * BATCH;
    if (g->importance && out->target.type == SL_TYPE_COUNT) {
        b.weights = scratch + 3 * g->n;
        for (int64_t i = 0; i < g->n; i++) b.weights[i] = g->importance[column_of(g, i)];
    }
    if (g->order && out->target.type != SL_TYPE_COUNT) fit_all_blocks(&b, scratch);
    else if (g->order) put_in_order(&b, scratch);
    for (int64_t from = 0; from < g->n; from += BATCH) {
        int64_t to = from + BATCH < g->n ? from + BATCH : g->n;
        for (int64_t r = 0; r < rows; r++) do_row(&b, r, from, to);
        if (to < g->n)
            g->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, (int)rows, (int)(g->n - to), (int)(to - from), -1, b.error,
                           BATCH, g->factor + from * g->n + to, (int)g->n, 1, w + to, (int)g->n);
    }
    store(&b);
    free(b.codes);
    free(floats);
    return true;
}

bool sl_gptq_can_write(sl_type type) { return type != SL_NF4 && type != SL_FP4 && sl_type_is_written(type) && sl_type_codes(type) != NULL; }
