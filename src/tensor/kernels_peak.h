/* Loops that only measure what the machine can do at most (measure.h), written over the vector names of a simd_*.h that
 * is included before: vf_*, vi_*, vi_dot4 and OPAQUE. */
#ifndef SL_TENSOR_KERNELS_PEAK_H
#define SL_TENSOR_KERNELS_PEAK_H

#include "tensor/kernels_table.h"

/* Three vectors of codes by two of activations, all in registers, as the products' inner loops do. The codes are made
 * opaque in every round, or the compiler would multiply once and add often. */
static int64_t peak_int8(int64_t rounds) {
    vint w0 = vi_set1(0x03020100), w1 = vi_set1(0x03020101), w2 = vi_set1(0x03020102);
    vint x0 = vi_set1(0x01ff01ff), x1 = vi_set1(0x01ff01fe);
    vint a = vi_set1(0), b = a, c = a, d = a, e = a, f = a;
    for (int64_t r = 0; r < rounds; r++) {
        OPAQUE(w0);
        OPAQUE(w1);
        OPAQUE(w2);
        a = vi_dot4(a, w0, x0), b = vi_dot4(b, w0, x1);
        OPAQUE(a);
        OPAQUE(b); /* in this order: all products first would not fit the registers */
        c = vi_dot4(c, w1, x0), d = vi_dot4(d, w1, x1);
        OPAQUE(c);
        OPAQUE(d);
        e = vi_dot4(e, w2, x0), f = vi_dot4(f, w2, x1);
        OPAQUE(e);
        OPAQUE(f);
    }
    return rounds * 6 * (int64_t)sizeof(vint);
}

/* Ten chains of fused multiply-adds: as many as latency times units of today's processors. */
static int64_t peak_f32(int64_t rounds) {
    vfloat a = vf_set1(0.5f), b = vf_set1(0.25f), sums[10];
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) sums[i] = vf_set1((float)i);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 10
        for (int i = 0; i < 10; i++) {
            sums[i] = vf_fma(a, sums[i], b);
            OPAQUE(sums[i]);
        }
    }
    return rounds * 10 * LANES;
}

static uint64_t read_bytes(const void *data, uint64_t bytes) {
    enum { WIDTH = sizeof(vint), STEP = 8 * WIDTH };
    const char *p = data;
    uint64_t n = bytes / STEP;
    for (uint64_t i = 0; i < n; i++, p += STEP) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            vint v = vi_load(p + j * WIDTH);
            OPAQUE(v); /* loaded, and not needed any more */
        }
    }
    return n * STEP;
}

#endif
