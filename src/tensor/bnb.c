#include "tensor/bnb.h"

#include "tensor/codes.h"

#include <math.h>
#include <stdlib.h>

static const uint8_t fp4_order[8] = {0, 1, 6, 7, 4, 5, 2, 3}; /* codes of rising magnitudes */

const float *sl_bnb4_values(sl_bnb4 kind) { return kind == SL_BNB_NF4 ? sl_nf4_values : sl_bnb_fp4_values; }

static uint8_t nf4_code(float y) {
    uint8_t at = 0;
    for (int k = 0; k < 15; k++) at = (uint8_t)(at + (y > (sl_nf4_values[k] + sl_nf4_values[k + 1]) * 0.5f));
    return at;
}

static uint8_t fp4_code(float y) {
    float size = fabsf(y);
    int at = 0;
    for (int k = 0; k < 7; k++) { /* a tie goes up, as the library lets it: to the larger size below zero */
        float middle = (sl_bnb_fp4_values[fp4_order[k]] + sl_bnb_fp4_values[fp4_order[k + 1]]) * 0.5f;
        at += size > middle || (y < 0 && size == middle);
    }
    if (at == 0) return y > 0 ? 8 : 0; /* the library's choice of zero */
    return (uint8_t)(fp4_order[at] | (y < 0 ? 8 : 0));
}

static float largest_of(const float *x, size_t n) {
    float top = 0;
    for (size_t i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    return top;
}

void sl_bnb4_quantise(sl_bnb4 kind, const float *x, size_t n, size_t block, uint8_t *packed, float *absmax) {
    for (size_t i = 0; i < (n + 1) / 2; i++) packed[i] = 0;
    for (size_t b = 0; b * block < n; b++) {
        size_t from = b * block, count = n - from < block ? n - from : block;
        float top = absmax[b] = largest_of(x + from, count), inverse = top > 0 ? 1 / top : 0;
        for (size_t i = from; i < from + count; i++) {
            float y = x[i] * inverse;
            unsigned code = kind == SL_BNB_NF4 ? nf4_code(y) : fp4_code(y);
            packed[i / 2] = (uint8_t)(packed[i / 2] | code << (i % 2 ? 0 : 4));
        }
    }
    if (n % 2) /* the nibble that nobody reads holds what a zero would */
        packed[n / 2] = (uint8_t)(packed[n / 2] | (kind == SL_BNB_NF4 ? nf4_code(0) : fp4_code(0)));
}

void sl_bnb4_dequantise(sl_bnb4 kind, const uint8_t *packed, const float *absmax, size_t n, size_t block, float *out) {
    const float *values = sl_bnb4_values(kind);
    for (size_t i = 0; i < n; i++) out[i] = values[packed[i / 2] >> (i % 2 ? 0 : 4) & 15] * absmax[i / block];
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Boundary k of `parts` from 0.1 to 1, rounded as the library's framework rounds: from the nearer end, once. */
static float boundary(int parts, int k) {
    float step = (1.0f - 0.1f) / (float)parts;
    return (float)(k < (parts + 1) / 2 ? (double)0.1f + (double)step * k : 1.0 - (double)step * (parts - k));
}

void sl_bnb8_map(float map[256]) {
    int n = 0;
    for (int decade = 0; decade < 7; decade++) {
        int parts = 1 << decade;
        float scale = (float)pow(10, decade - 6);
        for (int k = 0; k < parts; k++) {
            float value = scale * ((boundary(parts, k) + boundary(parts, k + 1)) / 2);
            map[n++] = value;
            map[n++] = -value;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    qsort(map, (size_t)n, sizeof *map, by_value);
}

/* The nearest of the sorted map. */
static uint8_t nearest(const float map[256], float y) {
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (y < map[middle]) high = middle;
        else low = middle;
    }
    return (uint8_t)(y - map[low] > map[high] - y ? high : low);
}

void sl_bnb8_quantise(const float map[256], const float *x, size_t n, size_t block, uint8_t *codes, float *absmax) {
    for (size_t b = 0; b * block < n; b++) {
        size_t from = b * block, count = n - from < block ? n - from : block;
        float top = absmax[b] = largest_of(x + from, count), inverse = top > 0 ? 1 / top : 0;
        for (size_t i = from; i < from + count; i++) codes[i] = nearest(map, x[i] * inverse);
    }
}

void sl_bnb8_dequantise(const float map[256], const uint8_t *codes, const float *absmax, size_t n, size_t block, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = map[codes[i]] * absmax[i / block];
}

bool sl_bnb_nest(const float map[256], const float *absmax, size_t n, uint8_t *codes, float *nested, float *offset) {
    float *centred = malloc((n ? n : 1) * sizeof *centred);
    double sum = 0;
    if (!centred) return false;
    for (size_t i = 0; i < n; i++) sum += absmax[i];
    *offset = n ? (float)(sum / (double)n) : 0;
    for (size_t i = 0; i < n; i++) centred[i] = absmax[i] - *offset;
    sl_bnb8_quantise(map, centred, n, SL_BNB_NESTED, codes, nested);
    free(centred);
    return true;
}

void sl_bnb_unnest(const float map[256], const uint8_t *codes, const float *nested, float offset, size_t n, float *absmax) {
    for (size_t i = 0; i < n; i++) absmax[i] = map[codes[i]] * nested[i / SL_BNB_NESTED] + offset;
}

void sl_bnb_int8_row(const float *x, size_t n, int8_t *codes, float *absmax) {
    float top = *absmax = largest_of(x, n), scale = top > 0 ? 127 / top : 0;
    for (size_t i = 0; i < n; i++) codes[i] = (int8_t)lrintf(x[i] * scale);
}
