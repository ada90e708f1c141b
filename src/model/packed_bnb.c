/* bitsandbytes: four bits with the largest value of each block of the flat matrix, which may itself be quantised, and
 * LLM.int8's rows. The shape and block sizes stand as JSON in a tensor of bytes. */
#include "base/error.h"
#include "model/packed_int.h"
#include "tensor/bnb.h"
#include "tensor/codes.h"

#include <math.h>
#include <string.h>

typedef struct bnb {
    const uint8_t *codes;
    const float *absmax;  /* [n_blocks] */
    float map[16];
    int64_t rows, columns, block;
    sl_tensor *out;
} bnb;

static void float_row(void *user, int64_t row, int thread) {
    const bnb *b = user;
    float *out = (float *)(void *)((char *)(uintptr_t)b->out->data + (size_t)(row * b->columns) * sizeof(float));
    (void)thread;
    for (int64_t c = 0; c < b->columns; c++) {
        int64_t i = row * b->columns + c;
        out[c] = b->map[b->codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * b->absmax[i / b->block];
    }
}

static void block_row(void *user, int64_t row, int thread) {
    const bnb *b = user;
    uint8_t *out = (uint8_t *)(uintptr_t)b->out->data + (size_t)(row * (b->columns / 64)) * sl_type_get(SL_NF4)->bytes;
    (void)thread;
    for (int64_t c = 0; c < b->columns; c += 64, out += sl_type_get(SL_NF4)->bytes) {
        int64_t i = row * b->columns + c;
        memcpy(out, &b->absmax[i / b->block], 4);
        memcpy(out + 4, b->codes + i / 2, 32);
    }
}

/* ---------------------------------------------------------------- the state */

typedef struct state {
    int64_t rows, columns, block, nested_block;
    double offset;
} state;

static sllm_status read_state(const sl_packed_reader *r, const char *base, state *s) {
    const sl_tensor *t = sl_packed_part(r, base, ".weight.quant_state.bitsandbytes__nf4");
    if (!t) t = sl_packed_part(r, base, ".weight.quant_state.bitsandbytes__fp4");
    if (!t || t->type != SL_U8 || t->bytes > 4096)
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.weight.quant_state.bitsandbytes__* is missing or no text", base);
    const sl_json *root, *shape;
    sllm_status status = sl_json_parse(r->arena, t->data, (size_t)t->bytes, t->name, &root, r->error);
    if (status) return status;
    shape = sl_json_get(root, "shape");
    *s = (state){0};
    bool good = shape && shape->type == SL_JSON_ARRAY && shape->length == 2 && sl_json_int64(sl_json_at(shape, 0), &s->rows) &&
                sl_json_int64(sl_json_at(shape, 1), &s->columns) && sl_json_int64(sl_json_get(root, "blocksize"), &s->block) &&
                s->rows > 0 && s->columns > 0 && s->rows < 1 << 28 && s->columns < 1 << 28 && s->block > 0 && s->block <= 1 << 20;
    if (sl_json_get(root, "nested_blocksize"))
        good = good && sl_json_int64(sl_json_get(root, "nested_blocksize"), &s->nested_block) && s->nested_block > 0 &&
               sl_json_double(sl_json_get(root, "nested_offset"), &s->offset);
    return good ? SLLM_OK : sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s does not describe a matrix", t->name);
}

static sllm_status missing(const sl_packed_reader *r, const char *base, const char *part) {
    return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.weight%s is missing, or its size does not fit", base, part);
}

/* The largest values as f32, in the arena. */
static sllm_status read_absmax(const sl_packed_reader *r, const char *base, const state *s, uint64_t n, const float **out) {
    const sl_tensor *t = sl_packed_part(r, base, ".weight.absmax");
    float *values = sl_arena_array(r->arena, (size_t)n, sizeof *values);
    if (!values) return sl_fail_memory(r->error, base, (size_t)n * sizeof *values);
    *out = values;
    if (t && t->type == SL_F32 && t->n_elements == n) {
        memcpy(values, t->data, (size_t)t->bytes);
        return SLLM_OK;
    }
    const sl_tensor *nested = sl_packed_part(r, base, ".weight.nested_absmax"), *map = sl_packed_part(r, base, ".weight.nested_quant_map");
    if (!t || t->type != SL_U8 || t->n_elements != n || !s->nested_block) return missing(r, base, ".absmax");
    uint64_t blocks = (n + (uint64_t)s->nested_block - 1) / (uint64_t)s->nested_block;
    if (!nested || nested->type != SL_F32 || nested->n_elements != blocks) return missing(r, base, ".nested_absmax");
    if (!map || map->type != SL_F32 || map->n_elements != 256) return missing(r, base, ".nested_quant_map");
    for (uint64_t i = 0; i < n; i++) {
        uint8_t code = ((const uint8_t *)t->data)[i];
        values[i] = sl_load_f32((const uint8_t *)map->data + 4 * code) *
                    sl_load_f32((const uint8_t *)nested->data + 4 * (i / (uint64_t)s->nested_block)) + (float)s->offset;
    }
    return SLLM_OK;
}

sllm_status sl_packed_bnb4(const sl_packed_reader *r, const char *base, sl_tensor *out) {
    const sl_tensor *codes = sl_packed_part(r, base, ".weight"), *map = sl_packed_part(r, base, ".weight.quant_map");
    state s;
    sllm_status status = read_state(r, base, &s);
    if (status) return status;
    uint64_t n = (uint64_t)s.rows * (uint64_t)s.columns, blocks = (n + (uint64_t)s.block - 1) / (uint64_t)s.block;
    if (codes->bytes != (n + 1) / 2) return missing(r, base, "");
    if (!map || map->type != SL_F32 || map->n_elements != 16) return missing(r, base, ".quant_map");
    bnb b = {.codes = codes->data, .rows = s.rows, .columns = s.columns, .block = s.block, .out = out};
    memcpy(b.map, map->data, sizeof b.map);
    status = read_absmax(r, base, &s, blocks, &b.absmax);
    if (status) return status;
    sl_type type = SL_F32; /* where no type of ours has this book, or blocks do not fit rows */
    for (int i = 0; i < 2 && s.columns % 64 == 0 && s.block % 64 == 0; i++)
        if (!memcmp(b.map, sl_float_book(i ? SL_FP4 : SL_NF4), 16 * sizeof(float))) type = i ? SL_FP4 : SL_NF4;
    status = sl_packed_make(r, base, type, s.rows, s.columns, out);
    if (!status) sl_pool_run(r->pool, s.rows, type != SL_F32 ? block_row : float_row, &b);
    return status;
}

/* ---------------------------------------------------------------- LLM.int8 */

typedef struct int8_rows {
    const int8_t *codes;
    const uint8_t *tops; /* f32 [rows] */
    int64_t columns;
    sl_tensor *out;
} int8_rows;

static void int8_row(void *user, int64_t row, int thread) {
    const int8_rows *j = user;
    float *out = (float *)(void *)((char *)(uintptr_t)j->out->data + (size_t)(row * j->columns) * sizeof(float));
    float top = sl_load_f32(j->tops + 4 * row);
    (void)thread;
    for (int64_t c = 0; c < j->columns; c++) out[c] = (float)j->codes[row * j->columns + c] * top / 127.0f;
}

sllm_status sl_packed_bnb8(const sl_packed_reader *r, const char *base, sl_tensor *out) {
    const sl_tensor *codes = sl_packed_part(r, base, ".weight"), *tops = sl_packed_part(r, base, ".SCB");
    const sl_tensor *format = sl_packed_part(r, base, ".weight_format");
    if (codes->n_dims != 2) return missing(r, base, "");
    if (tops->type != SL_F32 || tops->n_elements != (uint64_t)codes->shape[0])
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.SCB is not F32 [%lld]", base, (long long)codes->shape[0]);
    if (format && (format->type != SL_U8 || format->n_elements != 1 || *(const uint8_t *)format->data))
        return sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "tensor %s.weight_format: only rows one after the other (0) are read", base);
    int8_rows j = {.codes = codes->data, .tops = tops->data, .columns = codes->shape[1], .out = out};
    sllm_status status = sl_packed_make(r, base, SL_F32, codes->shape[0], codes->shape[1], out);
    if (!status) sl_pool_run(r->pool, codes->shape[0], int8_row, &j);
    return status;
}
