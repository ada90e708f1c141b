#include "quant/int_grid.h"

#include "tensor/types.h"

#include <math.h>

int sl_int_grid_code(sl_int_grid grid, sl_int_group group, float x) {
    float y = rintf(x / group.scale) + (float)group.zero, top = (float)((1 << grid.bits) - 1);
    return (int)(y < 0 ? 0 : y > top ? top : y);
}

static sl_int_group group_of(sl_int_grid grid, float low, float high) {
    int top = (1 << grid.bits) - 1;
    float width = grid.symmetric ? 2 * fmaxf(-low, high) : high - low;
    float scale = sl_f16_to_f32(sl_f32_to_f16(fminf(width / (float)top, 65504)));
    if (!(scale > 0)) scale = sl_f16_to_f32(1);
    float zero = grid.symmetric ? (float)((top + 1) / 2) : rintf(-low / scale);
    return (sl_int_group){scale, (int)(zero < 0 ? 0 : zero > (float)top ? (float)top : zero)};
}

static double error_of(sl_int_grid grid, sl_int_group group, const float *x, const float *w, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float e = x[i] - (float)(sl_int_grid_code(grid, group, x[i]) - group.zero) * group.scale;
        sum += (double)(e * e) * (w ? (double)w[i] : 1.0);
    }
    return sum;
}

sl_int_group sl_int_grid_fit(sl_int_grid grid, const float *x, const float *w, int64_t n) {
    float low = 0, high = 0; /* 0 is always among the values */
    for (int64_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    sl_int_group best = group_of(grid, low, high);
    double least = error_of(grid, best, x, w, n);
    for (int k = 1; k <= 20; k++) {
        float part = 1 - 0.025f * (float)k;
        sl_int_group g = group_of(grid, low * part, high * part);
        double e = error_of(grid, g, x, w, n);
        if (!(e < least)) continue;
        least = e;
        best = g;
    }
    return best;
}
