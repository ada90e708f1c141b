#include "train/tape.h"

#include "base/error.h"
#include "model/families.h"

#include <stdlib.h>
#include <string.h>

struct sl_tape {
    size_t widths[SL_TAPE_POINTS];
    size_t offsets[SL_TAPE_POINTS]; /* of a point in a row of a block, in elements */
    size_t row;                     /* elements of a row of a block */
    int n_layers, n_rows, at;
    size_t size;                    /* of an element */
    unsigned char *memory;          /* [n_layers, n_rows, row], then END [n_rows, n_embd] */
};

static void size_points(sl_tape *t, const sl_config *c, bool deltas) {
    size_t embd = (size_t)c->n_embd, heads = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    t->widths[SL_TAPE_BLOCK] = t->widths[SL_TAPE_MIDDLE] = t->widths[SL_TAPE_END] = embd;
    t->widths[SL_TAPE_QKV] = heads + 2 * kv;
    t->widths[SL_TAPE_ATTENTION] = heads;
    t->widths[SL_TAPE_HIDDEN] = (size_t)c->n_ff * (c->family->gated ? 2 : 1);
    if (deltas || c->family->norm_place == SL_NORM_SANDWICH) t->widths[SL_TAPE_ATTN_DELTA] = t->widths[SL_TAPE_FFN_DELTA] = embd;
    for (int p = 0; p < SL_TAPE_END; p++) {
        t->offsets[p] = t->row;
        t->row += t->widths[p];
    }
}

static uint64_t bytes_of(const sl_tape *t) {
    return ((uint64_t)t->n_layers * t->row + t->widths[SL_TAPE_END]) * (uint64_t)t->n_rows * t->size;
}

static sl_tape shape_of(const sl_config *c, int n_rows, bool halves, bool deltas) {
    sl_tape t = {.n_layers = c->n_layers, .n_rows = n_rows, .size = halves ? 2 : 4};
    size_points(&t, c, deltas);
    return t;
}

uint64_t sl_tape_bytes(const sl_config *config, int n_rows, bool halves, bool deltas) {
    sl_tape t = shape_of(config, n_rows, halves, deltas);
    return bytes_of(&t);
}

sllm_status sl_tape_new(const sl_config *config, int n_rows, bool halves, bool deltas, sl_tape **tape, sllm_error *error) {
    sl_tape *t = malloc(sizeof *t);
    *tape = NULL;
    if (!t) return sl_fail_memory(error, "a tape", sizeof *t);
    *t = shape_of(config, n_rows, halves, deltas);
    uint64_t bytes = bytes_of(t);
    t->memory = bytes < SIZE_MAX ? malloc((size_t)bytes) : NULL;
    if (!t->memory) {
        free(t);
        return sl_fail_memory(error, "what the backward pass needs of the forward", (size_t)bytes);
    }
    *tape = t;
    return SLLM_OK;
}

void sl_tape_free(sl_tape *t) {
    if (!t) return;
    free(t->memory);
    free(t);
}

void sl_tape_begin(sl_tape *t) { t->at = 0; }
int sl_tape_rows(const sl_tape *t) { return t->at; }
size_t sl_tape_width(const sl_tape *t, sl_tape_point point) { return t->widths[point]; }

static unsigned char *place_of(const sl_tape *t, sl_tape_point point, int layer, int row) {
    size_t block = (size_t)t->n_rows * t->row;
    size_t element = point == SL_TAPE_END ? (size_t)t->n_layers * block + (size_t)row * t->widths[point]
                                          : (size_t)layer * block + (size_t)t->n_rows * t->offsets[point] + (size_t)row * t->widths[point];
    return t->memory + element * t->size;
}

/* To the nearest, ties to even; NaN stays one. */
static uint16_t half_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void sl_tape_record(void *user, sl_tape_point point, int layer, const float *rows, int n, size_t width, size_t stride) {
    sl_tape *t = user;
    int room = t->n_rows - t->at < n ? t->n_rows - t->at : n;
    for (int i = 0; t->widths[point] == width && i < room; i++) {
        unsigned char *out = place_of(t, point, layer, t->at + i);
        const float *row = rows + (size_t)i * stride;
        if (t->size == 4) memcpy(out, row, width * 4);
        else for (size_t k = 0; k < width; k++) ((uint16_t *)(void *)out)[k] = half_of(row[k]);
    }
    if (point == SL_TAPE_END) t->at += room;
}

void sl_tape_read(const sl_tape *t, sl_tape_point point, int layer, int first, int n, float *out, size_t stride) {
    size_t width = t->widths[point];
    for (int i = 0; i < n; i++) {
        const unsigned char *in = place_of(t, point, layer, first + i);
        float *row = out + (size_t)i * stride;
        if (t->size == 4) {
            memcpy(row, in, width * 4);
            continue;
        }
        for (size_t k = 0; k < width; k++) {
            uint32_t bits = (uint32_t)((const uint16_t *)(const void *)in)[k] << 16;
            memcpy(&row[k], &bits, 4);
        }
    }
}
