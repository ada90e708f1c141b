/* Keys and values as pages hold them: the layout of a tile, and how a position is written into it. Written once for all
 * tables, so that what is stored has the same bits on every machine. */
#include "tensor/kernels_table.h"
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

enum { GROUP = SL_KV_GROUP };

const char *sl_kv_type_name(sl_kv_type type) {
    static const char *const names[] = {"f32", "f16", "q8_0", "q4_0"};
    return names[type];
}

bool sl_kv_type_holds(sl_kv_type type, int head_dim) { return type <= SL_KV_F16 || head_dim % GROUP == 0; }

/* Bytes of the codes of n values. */
static size_t code_bytes(sl_kv_type type, size_t n) {
    switch (type) {
    case SL_KV_F32: return n * 4;
    case SL_KV_F16: return n * 2;
    case SL_KV_Q8_0: return n;
    case SL_KV_Q4_0: return n / 2;
    }
    return 0;
}

size_t sl_kv_scale_bytes(sl_kv_type type, int head_dim) {
    return type <= SL_KV_F16 ? 0 : (size_t)(head_dim / GROUP) * SL_PAGE * 2;
}

size_t sl_kv_tile_bytes(sl_kv_type type, int head_dim, bool values) {
    int width = values && type <= SL_KV_F16 ? sl_kv_width(head_dim) : head_dim;
    return sl_kv_scale_bytes(type, head_dim) + code_bytes(type, (size_t)width * SL_PAGE);
}

/* Codes of a group of 32 and its scale, which comes back as the half-precision number that is stored: NaN when a value
 * is not finite. q8_0 as ggml has it, but that codes are taken with the stored scale; q4_0 gives its -8 to the value of
 * the largest magnitude. */
static uint16_t quantise(sl_kv_type type, const float *x, int8_t codes[GROUP]) {
    float amax = 0, extreme = 0;
    bool finite = true;
    for (int i = 0; i < GROUP; i++) {
        finite = finite && isfinite(x[i]);
        if (fabsf(x[i]) > amax) amax = fabsf(x[i]), extreme = x[i];
    }
    uint16_t stored = sl_f32_to_f16(finite ? type == SL_KV_Q8_0 ? amax / 127 : extreme / -8 : NAN);
    float scale = sl_f16_to_f32(stored), factor = isfinite(scale) && scale != 0 ? 1 / scale : 0;
    float low = type == SL_KV_Q8_0 ? -127 : -8, high = type == SL_KV_Q8_0 ? 127 : 7;
    for (int i = 0; i < GROUP; i++) {
        float code = finite ? rintf(x[i] * factor) : 0;
        codes[i] = (int8_t)(code < low ? low : code > high ? high : code);
    }
    return stored;
}

static void put_u16(uint8_t *at, uint16_t value) { memcpy(at, &value, 2); }

/* Keys lie across: [head_dim][SL_PAGE]; two dimensions share a byte of q4_0, the even one in its low half. */
static void store_key_codes(sl_kv_type type, uint8_t *tile, int slot, const float *x, int head_dim) {
    uint8_t *codes = tile + sl_kv_scale_bytes(type, head_dim);
    int8_t group[GROUP];
    for (int g = 0; g < head_dim / GROUP; g++) {
        put_u16(tile + 2 * (g * SL_PAGE + slot), quantise(type, x + g * GROUP, group));
        for (int i = 0; type == SL_KV_Q8_0 && i < GROUP; i++)
            codes[(g * GROUP + i) * SL_PAGE + slot] = (uint8_t)group[i];
        for (int i = 0; type == SL_KV_Q4_0 && i < GROUP; i += 2)
            codes[(g * GROUP + i) / 2 * SL_PAGE + slot] = (uint8_t)((group[i] + 8) | (group[i + 1] + 8) << 4);
    }
}

/* Values lie along: [SL_PAGE][head_dim]; dimensions i and i + 16 of a group share a byte of q4_0. */
static void store_value_codes(sl_kv_type type, uint8_t *tile, int slot, const float *x, int head_dim) {
    uint8_t *codes = tile + sl_kv_scale_bytes(type, head_dim) + code_bytes(type, (size_t)slot * (size_t)head_dim);
    int8_t group[GROUP];
    for (int g = 0; g < head_dim / GROUP; g++) {
        put_u16(tile + 2 * (slot * (head_dim / GROUP) + g), quantise(type, x + g * GROUP, group));
        if (type == SL_KV_Q8_0) memcpy(codes + g * GROUP, group, GROUP);
        for (int i = 0; type == SL_KV_Q4_0 && i < GROUP / 2; i++)
            codes[g * GROUP / 2 + i] = (uint8_t)((group[i] + 8) | (group[i + GROUP / 2] + 8) << 4);
    }
}

enum { PIECE = 256 }; /* values converted to halves at once */

void sl_kv_store_key(sl_kv_type type, void *tile, int slot, const float *x, int head_dim) {
    if (type > SL_KV_F16) {
        store_key_codes(type, tile, slot, x, head_dim);
        return;
    }
    if (type == SL_KV_F32) {
        float *at = (float *)tile + slot;
        for (int i = 0; i < head_dim; i++) at[(size_t)i * SL_PAGE] = x[i];
        return;
    }
    uint16_t *at = (uint16_t *)tile + slot, halves[PIECE];
    for (int first = 0; first < head_dim; first += PIECE) {
        int n = head_dim - first < PIECE ? head_dim - first : PIECE;
        sl_kernels_get()->kv_store_f16(halves, x + first, n);
        for (int i = 0; i < n; i++) at[(size_t)(first + i) * SL_PAGE] = halves[i];
    }
}

void sl_kv_store_value(sl_kv_type type, void *tile, int slot, const float *x, int head_dim) {
    if (type > SL_KV_F16) {
        store_value_codes(type, tile, slot, x, head_dim);
        return;
    }
    size_t row = code_bytes(type, (size_t)sl_kv_width(head_dim)), used = code_bytes(type, (size_t)head_dim);
    char *at = (char *)tile + (size_t)slot * row;
    if (type == SL_KV_F32) memcpy(at, x, used);
    else sl_kernels_get()->kv_store_f16(at, x, head_dim);
    memset(at + used, 0, row - used);
}

/* ---------------------------------------------------------------- the way back */

static float scale_at(const uint8_t *tile, int index) {
    uint16_t half;
    memcpy(&half, tile + 2 * index, 2);
    return sl_f16_to_f32(half);
}

static float key_at(sl_kv_type type, const uint8_t *tile, const uint8_t *codes, int d, int slot, int head_dim) {
    (void)head_dim;
    if (type == SL_KV_F32) return ((const float *)(const void *)tile)[d * SL_PAGE + slot];
    if (type == SL_KV_F16) return sl_f16_to_f32(((const uint16_t *)(const void *)tile)[d * SL_PAGE + slot]);
    float scale = scale_at(tile, d / GROUP * SL_PAGE + slot);
    if (type == SL_KV_Q8_0) return scale * (float)(int8_t)codes[d * SL_PAGE + slot];
    return scale * (float)((codes[d / 2 * SL_PAGE + slot] >> (d % 2 * 4) & 15) - 8);
}

float sl_kv_key_at(sl_kv_type type, const void *tile, int slot, int d, int head_dim) {
    return key_at(type, tile, (const uint8_t *)tile + sl_kv_scale_bytes(type, head_dim), d, slot, head_dim);
}

float sl_kv_value_at(sl_kv_type type, const void *tile, int slot, int d, int head_dim) {
    size_t i = (size_t)slot * (size_t)sl_kv_width(head_dim) + (size_t)d;
    if (type == SL_KV_F32) return ((const float *)tile)[i];
    if (type == SL_KV_F16) return sl_f16_to_f32(((const uint16_t *)tile)[i]);
    const uint8_t *codes = (const uint8_t *)tile + sl_kv_scale_bytes(type, head_dim) +
                           code_bytes(type, (size_t)slot * (size_t)head_dim);
    float scale = scale_at(tile, slot * (head_dim / GROUP) + d / GROUP);
    if (type == SL_KV_Q8_0) return scale * (float)(int8_t)codes[d];
    uint8_t both = codes[d / GROUP * (GROUP / 2) + d % (GROUP / 2)];
    return scale * (float)((d % GROUP < GROUP / 2 ? both & 15 : both >> 4) - 8);
}

/* ---------------------------------------------------------------- attention */

void sl_attend_clear(float *state, int head_dim) {
    memset(state, 0, (size_t)sl_attend_width(head_dim) * sizeof *state);
    state[SL_STATE_MAX] = -INFINITY;
}

void sl_attend_page(const sl_attend_task *task, const sl_attend_row *rows, int n_rows) {
    sl_kernels_get()->attend_page(task, rows, n_rows);
}

void sl_attend_merge(float *state, const float *later, int head_dim) {
    if (later[SL_STATE_SUM] == 0) return; /* saw no key */
    if (state[SL_STATE_SUM] == 0) {
        memcpy(state, later, (size_t)sl_attend_width(head_dim) * sizeof *state);
        return;
    }
    float a = state[SL_STATE_MAX], b = later[SL_STATE_MAX], top = a > b ? a : b;
    float first = expf(a - top), second = expf(b - top);
    state[SL_STATE_MAX] = top;
    state[SL_STATE_SUM] = state[SL_STATE_SUM] * first + later[SL_STATE_SUM] * second;
    for (int i = SL_STATE_MIX; i < SL_STATE_MIX + head_dim; i++) state[i] = state[i] * first + later[i] * second;
}

void sl_attend_finish(const float *state, int head_dim, float *out) {
    float factor = 1 / state[SL_STATE_SUM];
    for (int i = 0; i < head_dim; i++) out[i] = state[SL_STATE_MIX + i] * factor;
}
