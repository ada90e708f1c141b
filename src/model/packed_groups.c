/* GPTQ and AWQ: integers of 4 or 8 bits, eight (four) to a word, with a scale and a zero for each group of inputs and each
 * output: W[o, i] = (q[i, o] - zero[g, o]) * scale[g, o].
 *
 * GPTQ packs q along the inputs, low bits first, and stores zero - 1 ("gptq_v2": zero); g_idx says each input's group.
 * AWQ's gemm layout packs q and zeros along the outputs: nibble k of a word is output 0 2 4 6 1 3 5 7 [k] of its eight. */
#include "base/error.h"
#include "model/packed_int.h"
#include "tensor/codes.h"
#include "tensor/quantise.h"

#include <stdatomic.h>
#include <string.h>

typedef struct groups {
    const uint32_t *q, *zeros;
    const uint8_t *scales;     /* f16 [n_groups, n_out] */
    const int32_t *index;      /* [n_in] group of each input; NULL: in order */
    int64_t n_in, n_out, n_groups, group;
    int bits, zero_offset;
    bool awq, sorted;
    sl_tensor *out;
    atomic_bool overflows;     /* a code that Q8_0 cannot hold */
} groups;

static int nibble_of(int64_t o) { /* where AWQ keeps output o of its eight */
    static const int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return place[o % 8];
}

static int code_at(const groups *g, int64_t i, int64_t o) {
    uint32_t mask = (1u << g->bits) - 1;
    if (g->awq) return (int)(g->q[i * (g->n_out / 8) + o / 8] >> (4 * nibble_of(o)) & mask);
    int per = 32 / g->bits;
    return (int)(g->q[i / per * g->n_out + o] >> (g->bits * (int)(i % per)) & mask);
}

static int zero_at(const groups *g, int64_t group, int64_t o) {
    uint32_t mask = (1u << g->bits) - 1;
    int per = 32 / g->bits, place = g->awq ? nibble_of(o) : (int)(o % per);
    return (int)(g->zeros[group * (g->n_out / per) + o / per] >> (g->bits * place) & mask) + g->zero_offset;
}

static int64_t group_of(const groups *g, int64_t i) { return g->index ? g->index[i] : i / g->group; }

/* ---------------------------------------------------------------- rows */

static void float_row(void *user, int64_t o, int thread) {
    const groups *g = user;
    float *row = (float *)(void *)((char *)(uintptr_t)g->out->data + (size_t)(o * g->n_in) * sizeof(float));
    (void)thread;
    for (int64_t i = 0; i < g->n_in; i++) {
        int64_t group = group_of(g, i);
        float scale = sl_f16_to_f32(sl_load_u16(g->scales + 2 * (group * g->n_out + o)));
        row[i] = (float)(code_at(g, i, o) - zero_at(g, group, o)) * scale;
    }
}

/* Blocks of 32 inputs of one group: its scale, and q - zero as codes. */
static void block_row(void *user, int64_t o, int thread) {
    groups *g = user;
    const sl_type_info *info = sl_type_get(g->out->type);
    uint8_t *block = (uint8_t *)(uintptr_t)g->out->data + (size_t)(o * (g->n_in / 32)) * info->bytes;
    (void)thread;
    for (int64_t i = 0; i < g->n_in; i += 32, block += info->bytes) {
        int64_t group = group_of(g, i);
        int8_t codes[32];
        int zero = zero_at(g, group, o);
        memcpy(block, g->scales + 2 * (group * g->n_out + o), 2);
        for (int k = 0; k < 32; k++) {
            int code = code_at(g, i + k, o) - zero;
            if (code < -128 || code > 127) atomic_store(&g->overflows, true);
            codes[k] = (int8_t)code;
        }
        sl_block_set_codes(g->out->type, block, codes);
    }
}

/* ---------------------------------------------------------------- checks */

static sllm_status check_shape(const sl_packed_reader *r, const char *base, const char *part, const sl_tensor *t, sl_type type,
                               int64_t rows, int64_t columns) {
    if (!t) return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s%s is missing", base, part);
    if (t->type == type && t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == columns) return SLLM_OK;
    return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s%s is not %s [%lld, %lld]", base, part, sl_type_get(type)->name,
                   (long long)rows, (long long)columns);
}

static sllm_status read_index(const sl_packed_reader *r, const char *base, groups *g) {
    const sl_tensor *t = sl_packed_part(r, base, ".g_idx");
    g->sorted = true;
    if (!t) return SLLM_OK;
    if (t->type != SL_I32 || t->n_elements != (uint64_t)g->n_in)
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.g_idx is not I32 [%lld]", base, (long long)g->n_in);
    int32_t *index = sl_arena_array(r->arena, (size_t)g->n_in, sizeof *index);
    if (!index) return sl_fail_memory(r->error, base, 0);
    memcpy(index, t->data, t->bytes);
    for (int64_t i = 0; i < g->n_in; i++) {
        if (index[i] < 0 || index[i] >= g->n_groups)
            return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.g_idx: input %lld is of group %d; there are %lld", base,
                           (long long)i, index[i], (long long)g->n_groups);
        if (index[i] != i / g->group) g->sorted = false;
    }
    g->index = index;
    return SLLM_OK;
}

static const void *aligned(const sl_packed_reader *r, const sl_tensor *t) {
    if ((uintptr_t)t->data % 4 == 0) return t->data;
    void *copy = sl_arena_alloc(r->arena, (size_t)t->bytes); /* a file may place its tensors anywhere */
    if (copy) memcpy(copy, t->data, (size_t)t->bytes);
    return copy;
}

static sllm_status write_rows(const sl_packed_reader *r, const char *base, groups *g) {
    bool whole = g->n_in % 32 == 0 && (g->group % 32 == 0 || g->n_groups == 1) && g->sorted;
    sl_type type = !whole ? SL_F32 : g->bits == 4 ? SL_Q5_0 : SL_Q8_0;
    sllm_status status = sl_packed_make(r, base, type, g->n_out, g->n_in, g->out);
    if (status) return status;
    sl_pool_run(r->pool, g->n_out, type == SL_F32 ? float_row : block_row, g);
    if (!atomic_load(&g->overflows)) return SLLM_OK;
    status = sl_packed_make(r, base, SL_F32, g->n_out, g->n_in, g->out); /* asymmetric 8 bits: no type of ours holds them */
    if (!status) sl_pool_run(r->pool, g->n_out, float_row, g);
    return status;
}

static sllm_status join(const sl_packed_reader *r, const char *base, groups *g) {
    const sl_tensor *q = sl_packed_part(r, base, ".qweight"), *zeros = sl_packed_part(r, base, ".qzeros");
    const sl_tensor *scales = sl_packed_part(r, base, ".scales");
    int64_t group = -1, per = 32 / g->bits;
    sl_json_int64(sl_json_get(r->config, "group_size"), &group);
    g->group = group < 0 ? g->n_in : group;
    g->n_groups = (g->n_in + g->group - 1) / g->group;
    sllm_status status = check_shape(r, base, ".qzeros", zeros, SL_I32, g->n_groups, g->n_out / per);
    if (!status) status = check_shape(r, base, ".scales", scales, SL_F16, g->n_groups, g->n_out);
    if (!status) status = read_index(r, base, g);
    if (status) return status;
    g->q = aligned(r, q);
    g->zeros = aligned(r, zeros);
    g->scales = scales->data;
    return g->q && g->zeros ? write_rows(r, base, g) : sl_fail_memory(r->error, base, 0);
}

static bool is_matrix(const sl_tensor *t) {
    return t->type == SL_I32 && t->n_dims == 2 && t->shape[0] > 0 && t->shape[1] > 0 && t->shape[0] < 1 << 28 && t->shape[1] < 1 << 28;
}

sllm_status sl_packed_gptq(const sl_packed_reader *r, const char *base, sl_tensor *out) {
    const sl_tensor *q = sl_packed_part(r, base, ".qweight");
    const char *format = sl_json_string(sl_json_get(r->config, "checkpoint_format"));
    int64_t bits = 4;
    sl_json_int64(sl_json_get(r->config, "bits"), &bits);
    if (!is_matrix(q) || (bits != 4 && bits != 8) || q->shape[1] % (32 / bits))
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.qweight is not I32 [inputs / %lld, outputs]", base,
                       (long long)(bits > 0 ? 32 / bits : 0));
    groups g = {.bits = (int)bits, .n_in = q->shape[0] * (32 / bits), .n_out = q->shape[1], .out = out,
                .zero_offset = format && !strcmp(format, "gptq_v2") ? 0 : 1};
    return join(r, base, &g);
}

sllm_status sl_packed_awq(const sl_packed_reader *r, const char *base, sl_tensor *out) {
    const sl_tensor *q = sl_packed_part(r, base, ".qweight");
    if (!is_matrix(q)) return sl_fail(r->error, SLLM_ERROR_FORMAT, "tensor %s.qweight is not I32 [inputs, outputs / 8]", base);
    groups g = {.bits = 4, .n_in = q->shape[0], .n_out = 8 * q->shape[1], .out = out, .awq = true};
    return join(r, base, &g);
}
