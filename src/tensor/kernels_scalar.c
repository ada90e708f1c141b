/* The reference for every operation, in plain C: what the other tables are tested against and what runs anywhere. */
#include "tensor/kernels_table.h"
#include "tensor/panel.h"

#include <math.h>
#include <string.h>

/* Nearest integer, ties to even, for |x| < 2^22: the sum has no fraction bits left. */
static int32_t nearest(float x) {
    float shifted = x + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    return bits - 0x4b400000;
}

static uint32_t magnitude_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits & 0x7fffffff;
}

/* The code for the largest value that leaves the smallest squared error (kernels_table.h). */
static float best_levels(const float *x, int64_t n, float amax) {
    float best = 0.0f, least = INFINITY;
    for (int k = 0; k < SL_ROUND_TRIES; k++) {
        float levels = sl_round_levels(k), factor = levels / amax, lanes[8] = {0};
        for (int64_t i = 0; i < n; i++) {
            float y = x[i] * factor, error = y - (float)nearest(y);
            lanes[i % 8] += error * error;
        }
        float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
        sum *= 1.0f / (levels * levels);
        if (k && !(sum < least)) continue;
        least = sum;
        best = levels;
    }
    return best;
}

static void round_row(const float *x, int64_t n, void *out) {
    sl_rounded row = sl_rounded_at(out, n, 0);
    int8_t *codes = (int8_t *)row.codes;
    float *scale = (float *)row.scale;
    float *shift = (float *)row.shift;
    int32_t *sum32 = (int32_t *)row.sum32;
    int16_t *sum16 = (int16_t *)row.sum16;
    for (int64_t b = 0; b < (n + 31) / 32; b++) {
        int64_t count = n - 32 * b < 32 ? n - 32 * b : 32;
        uint32_t top = 0; /* compared as integers, so that an infinity or NaN wins */
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits = magnitude_bits(x[32 * b + i]);
            top = bits > top ? bits : top;
        }
        float amax;
        memcpy(&amax, &top, 4);
        bool finite = top < 0x7f800000, usable = finite && amax >= SL_ROUND_MIN;
        float levels = usable ? best_levels(x + 32 * b, count, amax) : 0.0f, factor = levels / amax;
        scale[b] = usable ? amax / levels : finite ? 0.0f : NAN;
        for (int i = 0; i < 32; i++)
            codes[32 * b + i] = usable && i < count ? (int8_t)nearest(x[32 * b + i] * factor) : 0;
        for (int h = 0; h < 2; h++) {
            sum16[2 * b + h] = 0;
            for (int i = 0; i < 16; i++) sum16[2 * b + h] = (int16_t)(sum16[2 * b + h] + codes[32 * b + 16 * h + i]);
        }
        sum32[b] = sum16[2 * b] + sum16[2 * b + 1];
        shift[b] = scale[b] * (float)sum32[b];
    }
}

/* Adds one format block's groups of a row to *sum, in the order that kernels_table.h fixes. `first` is the block's
 * first column. */
static void add_block(const sl_codes *form, int n_codes, const int8_t *codes, const float *scales, const float *mins,
                      const sl_rounded *a, int64_t first, float *sum) {
    for (int c = 0, g = 0; c < n_codes; c += form->group, g++) {
        int64_t column = first + c;
        int32_t dot = 0;
        for (int i = 0; i < form->group; i++) dot += codes[c + i] * a->codes[column + i];
        float scale = a->scale[column / 32];
        float term = (float)dot * (scales[g] * scale);
        *sum += term;
        if (!form->has_min) continue;
        int32_t total = form->group == 32 ? a->sum32[column / 32] : a->sum16[column / 16];
        float shift = mins[g] * (scale * (float)total);
        *sum += shift;
    }
}

/* The same for 32 columns whose halves have integer scales. */
static void add_factored(const int8_t codes[32], const sl_panel_factors *f, bool has_min, const sl_rounded *a,
                         int64_t column, float *sum) {
    const int16_t *totals = a->sum16 + column / 16;
    float scale = a->scale[column / 32];
    int32_t dot = 0;
    for (int i = 0; i < 32; i++) dot += f->scale[i / 16] * codes[i] * a->codes[column + i];
    float term = (float)dot * (f->d * scale);
    *sum += term;
    if (!has_min) return;
    float shift = (float)(f->minimum[0] * totals[0] + f->minimum[1] * totals[1]) * (-f->m * scale);
    *sum += shift;
}

/* Group-of-32 `group` of a panel's block, row `row`, times tokens [t0, t1); y is the first token's sum. */
static void add_panel_group(const sl_product *p, const uint8_t *block, int group, int row, int64_t column, int64_t t0,
                            int64_t t1, float *y) {
    const sl_codes *form = sl_type_codes(p->type);
    bool has_factors = sl_panel_has_factors(sl_panel_form_of(p->type));
    sl_panel_factors factors = {0};
    int8_t codes[32];
    float scales[2], mins[2];
    sl_panel_unpack(p->type, block, group, row, codes, scales, mins);
    if (has_factors) factors = sl_panel_factors_of(p->type, block, group, row);
    for (int64_t t = t0; t < t1; t++, y += p->y_stride) {
        sl_rounded a = sl_rounded_at(p->blocks, p->n, t);
        if (has_factors) add_factored(codes, &factors, form->has_min, &a, column, y);
        else add_block(form, 32, codes, scales, mins, &a, column, y);
    }
}

/* One row of p, from its panel or as it lies in the file, times tokens [t0, t1). */
static void packed_row(const sl_product *p, int64_t r, int64_t t0, int64_t t1) {
    sl_panel_form f = sl_panel_form_of(p->type);
    const uint8_t *panel = p->panels + (size_t)(r / SL_PANEL_ROWS) * sl_panel_bytes(p->type, p->n);
    for (int64_t column = 0; column < p->n; column += 32)
        add_panel_group(p, panel + column / f.block * sl_panel_block_bytes(f), (int)(column % f.block / 32),
                        (int)(r % SL_PANEL_ROWS), column, t0, t1, &p->y[(size_t)t0 * p->y_stride + r]);
}

/* A type with factors, from its rows: block by block through a panel of one row. */
static void factored_row(const sl_product *p, int64_t r, int64_t t0, int64_t t1) {
    const sl_type_info *info = sl_type_get(p->type);
    const uint8_t *block = p->w + (size_t)r * p->row_bytes;
    uint8_t panel[SL_PANEL_256];
    for (int64_t column = 0; column < p->n; column += 32) {
        int64_t within = column % info->block;
        if (!within) sl_panel_pack(p->type, block + column / info->block * info->bytes, p->row_bytes, 1, info->block, panel);
        add_panel_group(p, panel, (int)(within / 32), 0, column, t0, t1, &p->y[(size_t)t0 * p->y_stride + r]);
    }
}

static void file_row(const sl_product *p, int64_t r, int64_t t0, int64_t t1) {
    const sl_type_info *info = sl_type_get(p->type);
    const sl_codes *form = sl_type_codes(p->type);
    const uint8_t *block = p->w + (size_t)r * p->row_bytes;
    int8_t codes[SL_MAX_BLOCK];
    float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
    for (int64_t column = 0; column < p->n; column += info->block, block += info->bytes) {
        form->unpack(block, codes, scales, mins);
        for (int64_t t = t0; t < t1; t++) {
            sl_rounded a = sl_rounded_at(p->blocks, p->n, t);
            add_block(form, info->block, codes, scales, mins, &a, column, &p->y[(size_t)t * p->y_stride + r]);
        }
    }
}

static void matmul_codes(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    for (int64_t r = r0; r < r1; r++) {
        for (int64_t t = t0; t < t1; t++) p->y[(size_t)t * p->y_stride + r] = 0.0f;
        if (p->panels) packed_row(p, r, t0, t1);
        else if (sl_panel_has_factors(sl_panel_form_of(p->type))) factored_row(p, r, t0, t1);
        else file_row(p, r, t0, t1);
        if (p->bias)
            for (int64_t t = t0; t < t1; t++) p->y[(size_t)t * p->y_stride + r] += p->bias[r];
    }
}

static float sum_lanes(const float lane[8]) {
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* Eight lanes, as the compiler can keep them in any vector registers. */
static float dot_float(const float *w, const float *x, int64_t n) {
    float lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++) lane[l] += w[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++) lane[l] += w[i + l] * x[i + l];
    return sum_lanes(lane);
}

static void matmul_float(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1) {
    const sl_type_info *info = sl_type_get(p->type);
    float w[SL_FLOAT_CHUNK];
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *row = p->w + (size_t)r * p->row_bytes;
        for (int64_t c = 0; c < p->n; c += SL_FLOAT_CHUNK) {
            int64_t count = p->n - c < SL_FLOAT_CHUNK ? p->n - c : SL_FLOAT_CHUNK;
            info->to_float(row + (size_t)(c / info->block) * info->bytes, w, (size_t)count);
            for (int64_t t = t0; t < t1; t++) {
                float *y = &p->y[(size_t)t * p->y_stride + r];
                float part = dot_float(w, p->x + (size_t)t * p->x_stride + c, count);
                *y = c || p->adds ? *y + part : part;
            }
        }
        if (p->bias)
            for (int64_t t = t0; t < t1; t++) p->y[(size_t)t * p->y_stride + r] += p->bias[r];
    }
}

static void rms_norm(float *y, const float *x, const float *weight, int64_t n, float eps) {
    float factor = 1.0f / sqrtf(dot_float(x, x, n) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = weight ? x[i] * factor * weight[i] : x[i] * factor;
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps) {
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    float mean = (float)(sum / (double)n);
    for (int64_t i = 0; i < n; i++) squares += (double)(x[i] - mean) * (x[i] - mean);
    float factor = 1.0f / sqrtf((float)(squares / (double)n) + eps);
    for (int64_t i = 0; i < n; i++) {
        float value = (x[i] - mean) * factor;
        if (weight) value *= weight[i];
        y[i] = bias ? value + bias[i] : value;
    }
}

static void softmax(float *x, int64_t n) {
    float top = -INFINITY, lane[8] = {0};
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - top);
        lane[i % 8] += x[i];
    }
    float factor = 1.0f / sum_lanes(lane);
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float value = gate[i] / (1.0f + expf(-gate[i]));
        y[i] = up ? value * up[i] : value;
    }
}

/* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3): no cancellation for negative x. */
static void gelu_tanh_mul(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float x = gate[i], u = 0.7978845608f * x * (1.0f + 0.044715f * x * x);
        float value = x / (1.0f + expf(-2.0f * u));
        y[i] = up ? value * up[i] : value;
    }
}

static void gelu_erf_mul(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float value = 0.5f * gate[i] * erfcf(gate[i] * -0.70710678f);
        y[i] = up ? value * up[i] : value;
    }
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void scale(float *y, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] *= factor;
}

static void softcap(float *y, float cap, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = cap * tanhf(y[i] / cap);
}

static void kv_store_f16(void *out, const float *x, int64_t n) {
    uint16_t *halves = out;
    for (int64_t i = 0; i < n; i++) halves[i] = sl_f32_to_f16(x[i]);
}

/* Positions [lo, hi) of the page's tiles, widened into scratch laid out like f32 tiles. */
static void widen_tiles(const sl_attend_task *task, int lo, int hi, float **keys, float **values) {
    int d = task->head_dim, width = sl_kv_width(d);
    *keys = task->scratch;
    *values = task->scratch + (size_t)width * SL_PAGE;
    for (int i = 0; i < d; i++)
        for (int j = lo; j < hi; j++) (*keys)[i * SL_PAGE + j] = sl_kv_key_at(task->type, task->keys, j, i, d);
    for (int j = lo; j < hi; j++)
        for (int i = 0; i < d; i++) (*values)[j * width + i] = sl_kv_value_at(task->type, task->values, j, i, d);
}

/* p [lo, hi) of one row from its scores; returns the factor for what the state holds. */
static float weigh_scores(const sl_attend_task *task, const sl_attend_row *row, int lo, int hi, float *p) {
    float old = row->state[SL_STATE_MAX], top = old, lane[8] = {0};
    for (int j = lo; j < hi; j++) {
        p[j] *= task->scale;
        if (task->softcap > 0) p[j] = task->softcap * tanhf(p[j] / task->softcap);
        if (!(row->visible >> j & 1)) p[j] = -INFINITY;
        top = p[j] > top ? p[j] : top;
    }
    for (int j = lo; j < hi; j++) {
        p[j] = expf(p[j] - top);
        lane[j % 8] += p[j];
    }
    float factor = expf(old - top);
    row->state[SL_STATE_MAX] = top;
    row->state[SL_STATE_SUM] = row->state[SL_STATE_SUM] * factor + sum_lanes(lane);
    return factor;
}

static void attend_page(const sl_attend_task *task, const sl_attend_row *rows, int n_rows) {
    int d = task->head_dim, width = sl_kv_width(d);
    uint64_t seen = 0;
    for (int r = 0; r < n_rows; r++) seen |= rows[r].visible;
    float *keys, *values;
    widen_tiles(task, __builtin_ctzll(seen), SL_PAGE - __builtin_clzll(seen), &keys, &values);
    for (int r = 0; r < n_rows; r++) {
        int lo = __builtin_ctzll(rows[r].visible), hi = SL_PAGE - __builtin_clzll(rows[r].visible);
        float p[SL_PAGE] = {0}, *mix = rows[r].state + SL_STATE_MIX;
        for (int i = 0; i < d; i++)
            for (int j = lo; j < hi; j++) p[j] += rows[r].q[i] * keys[i * SL_PAGE + j];
        float factor = weigh_scores(task, &rows[r], lo, hi, p);
        for (int i = 0; i < d; i++) mix[i] *= factor;
        for (int j = lo; j < hi; j++)
            for (int i = 0; i < d; i++) mix[i] += p[j] * values[j * width + i];
    }
}

/* ---------------------------------------------------------------- measuring (measure.h) */

/* The memory may have changed, as far as the compiler can tell. */
#define OPAQUE_MEMORY(p) __asm__ volatile("" : : "r"(p) : "memory")

enum { PEAK_WIDTH = 256 };

static int64_t peak_int8(int64_t rounds) {
    int8_t w[PEAK_WIDTH], x[PEAK_WIDTH];
    uint32_t sum = 0; /* wraps: only the time counts */
    for (int i = 0; i < PEAK_WIDTH; i++) w[i] = (int8_t)i, x[i] = (int8_t)-i;
    for (int64_t r = 0; r < rounds; r++) {
        OPAQUE_MEMORY(w);
        for (int i = 0; i < PEAK_WIDTH; i++) sum += (uint32_t)(w[i] * x[i]);
    }
    OPAQUE_MEMORY(&sum);
    return rounds * PEAK_WIDTH;
}

static int64_t peak_f32(int64_t rounds) {
    float w[PEAK_WIDTH], x[PEAK_WIDTH], lane[8] = {0};
    for (int i = 0; i < PEAK_WIDTH; i++) w[i] = 1.0f / (float)(i + 1), x[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++) {
        OPAQUE_MEMORY(w);
        for (int i = 0; i < PEAK_WIDTH; i++) lane[i % 8] += w[i] * x[i];
    }
    OPAQUE_MEMORY(lane);
    return rounds * PEAK_WIDTH;
}

static uint64_t read_bytes(const void *data, uint64_t bytes) {
    const uint64_t *p = data;
    uint64_t n = bytes / 32, sum = 0;
    for (uint64_t i = 0; i < n; i++, p += 4) sum ^= p[0] ^ p[1] ^ p[2] ^ p[3];
    OPAQUE_MEMORY(&sum);
    return n * 32;
}

const sl_kernels sl_kernels_scalar = {
    .name = "scalar", .round_row = round_row, .pack = sl_panel_pack, .matmul_codes = matmul_codes, .matmul_float = matmul_float,
    .rms_norm = rms_norm, .layer_norm = layer_norm, .softmax = softmax, .silu_mul = silu_mul,
    .peak_int8 = peak_int8, .peak_f32 = peak_f32, .read_bytes = read_bytes,
    .gelu_tanh_mul = gelu_tanh_mul, .gelu_erf_mul = gelu_erf_mul, .add = add, .scale = scale, .softcap = softcap,
    .kv_store_f16 = kv_store_f16, .attend_page = attend_page,
};
