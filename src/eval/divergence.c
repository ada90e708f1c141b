#include "eval/divergence.h"

#include <math.h>
#include <string.h>

enum { LANES = 8, PART = 512 };

/* e^x for x <= 0, within 2e-7 relatively, 0 below -87: by 2^k e^r with |r| <= ln 2 / 2 and a polynomial of degree 6 (Taylor);
 * written so that compilers make vectors of it, which calls to expf prevent. */
static inline float exponential(float x) {
    float clamped = x < -87.0f ? -87.0f : x;
    float k = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest integer */
    float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;   /* ln 2 in two parts */
    float y = 1 + r * (1 + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    int32_t bits = ((int32_t)k + 127) * (1 << 23);
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.0f ? 0 : y * scale;
}

/* The largest value; the first place of it in *at. */
static float largest(const float *x, int n, int *at) {
    float lanes[LANES];
    int whole = n / LANES * LANES;
    for (int l = 0; l < LANES; l++) lanes[l] = x[l < n ? l : 0];
    for (int i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    float top = lanes[0];
    for (int l = 1; l < LANES; l++) top = lanes[l] > top ? lanes[l] : top;
    for (int i = whole; i < n; i++) top = x[i] > top ? x[i] : top;
    *at = 0;
    for (int i = 0; i < n; i++) {
        if (x[i] != top) continue;
        *at = i;
        break;
    }
    return top;
}

typedef struct part_sums {
    double p, q, shifted; /* sums of e^a, e^b, e^a (a - b) */
} part_sums;

static void add_part(const float *p, const float *q, int n, float p_top, float q_top, part_sums *sums) {
    float sp[LANES] = {0}, sq[LANES] = {0}, sd[LANES] = {0};
    int whole = n / LANES * LANES;
    for (int i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float a = p[i + l] - p_top, b = q[i + l] - q_top, e = exponential(a);
            sp[l] += e;
            sq[l] += exponential(b);
            sd[l] += e * (a - b);
        }
    for (int i = whole; i < n; i++) {
        float a = p[i] - p_top, b = q[i] - q_top, e = exponential(a);
        sp[0] += e;
        sq[0] += exponential(b);
        sd[0] += e * (a - b);
    }
    for (int l = 0; l < LANES; l++) {
        sums->p += sp[l];
        sums->q += sq[l];
        sums->shifted += sd[l];
    }
}

sl_divergence sl_divergence_of(const float *p, const float *q, int n, int32_t next) {
    int p_at, q_at;
    float p_top = largest(p, n, &p_at), q_top = largest(q, n, &q_at);
    part_sums s = {0, 0, 0};
    for (int i = 0; i < n; i += PART) add_part(p + i, q + i, n - i < PART ? n - i : PART, p_top, q_top, &s);
    double lp = log(s.p), lq = log(s.q);
    return (sl_divergence){
        .kld = s.shifted / s.p + lq - lp,
        .ln_p = (double)p[next] - (double)p_top - lp,
        .ln_q = (double)q[next] - (double)q_top - lq,
        .same_top = p_at == q_at,
    };
}

double sl_log_probability(const float *p, int n, int32_t next) {
    return sl_divergence_of(p, p, n, next).ln_p;
}
