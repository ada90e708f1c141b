/* Choosing few out of very many: the sampler's filters without sorting a whole vocabulary. A histogram over the
 * distance from the largest logit says where the k-th token, or the p-th part of the probability, can lie at the
 * lowest; what lies below is left out, and only the rest is sorted and cut exactly. */
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* exp(x) for x <= 0 in float: 2^k * 2^f with f in [-1/2, 1/2] by its Taylor series to the sixth power, whose remainder
 * is below 1.2e-7. Written without branches so that the compiler can do several at once. */
static inline float exp_negative(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, kept in the low bits */
    float clamped = x > -87.0f ? x : -87.0f;
    float scaled = clamped * 1.44269504f;
    float rounded = scaled + shift;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    float k = rounded - shift;
    /* ln 2 in two parts, so that clamped - k ln 2 loses nothing. */
    float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;
    float sum = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666668e-2f
              + r * (8.3333338e-3f + r * 1.3888889e-3f)))));
    uint32_t exponent = (bits + 127u) << 23; /* shift's own bits leave through the top */
    float power;
    memcpy(&power, &exponent, sizeof power);
    return x > -87.0f ? sum * power : 0.0f;
}

double sl_exp_weights(const float *logits, float *weights, size_t n, float max, float scale) {
    enum { SUMS = 8 }; /* one sum would wait for itself at every step */
    double sums[SUMS] = {0}, total = 0;
    for (size_t i = 0; i < n; i++) weights[i] = exp_negative((logits[i] - max) * scale);
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (size_t j = 0; j < SUMS; j++) sums[j] += weights[i + j];
    for (; i < n; i++) sums[0] += weights[i];
    for (size_t j = 0; j < SUMS; j++) total += sums[j];
    return total;
}

int32_t sl_largest(const float *x, size_t n) {
    enum { LANES = 16 }; /* the largest without a branch, then where it is */
    float lanes[LANES], max = x[0];
    size_t i = 0;
    for (size_t j = 0; j < LANES; j++) lanes[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    for (size_t j = 0; j < LANES; j++) max = lanes[j] > max ? lanes[j] : max;
    for (i = 0; i < n && x[i] != max; i++) {}
    return i < n ? (int32_t)i : 0;
}

/* A histogram over a distance >= 0: sixteen buckets to one unit, and all from 32 on shares the last. */
enum { BUCKETS_PER_UNIT = 16, N_BUCKETS = 32 * BUCKETS_PER_UNIT + 1 };
typedef struct histogram {
    uint32_t counts[N_BUCKETS];
    double masses[N_BUCKETS];
} histogram;

static inline void histogram_add(histogram *h, double distance, double mass) {
    double place = distance * BUCKETS_PER_UNIT;
    int bucket = place < N_BUCKETS - 1 ? (int)place : N_BUCKETS - 1;
    h->counts[bucket]++;
    h->masses[bucket] += mass;
}

/* A distance beyond which nothing can be among the nearest `count`, or (count 0) the nearest that make up `mass`. */
static double histogram_edge(const histogram *h, size_t count, double mass) {
    uint64_t counted = 0;
    double gathered = 0;
    for (int bucket = 0; bucket < N_BUCKETS - 1; bucket++) {
        counted += h->counts[bucket];
        gathered += h->masses[bucket];
        /* The weights are good to 3e-7, and a distance is rounded: a margin of mass and of one bucket keeps what lies
         * at the edge inside. */
        if (count > 0 ? counted >= count : gathered >= mass * (1 + 1e-5))
            return (double)(bucket + 2) / BUCKETS_PER_UNIT;
    }
    return INFINITY;
}

float sl_prune_threshold(const float *logits, const float *weights, size_t n, float max, size_t count, double mass) {
    /* Nearly all of a large vocabulary is further away than this, and what is asked for is nearly always nearer. */
    const float near = 6.1e-6f; /* e^-12 */
    histogram h = {0};
    for (size_t i = 0; i < n; i++)
        if (weights[i] >= near) histogram_add(&h, max - logits[i], weights[i]);
    double edge = histogram_edge(&h, count, mass);
    if (edge <= 11) return (float)(max - edge);
    h = (histogram){0};
    for (size_t i = 0; i < n; i++) histogram_add(&h, max - logits[i], weights[i]);
    return (float)(max - histogram_edge(&h, count, mass));
}

static int by_logit(const void *a, const void *b) {
    const sl_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_key(const void *a, const void *b) {
    const sl_candidate *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return by_logit(a, b);
}

void sl_candidates_sort(sl_candidate *candidates, size_t n) { qsort(candidates, n, sizeof *candidates, by_logit); }

/* The shortest run from the front whose weights reach `wanted`; never empty. */
static size_t prefix_with_mass(const sl_candidate *candidates, size_t n, double wanted) {
    double mass = 0;
    for (size_t i = 0; i < n; i++) {
        mass += candidates[i].weight;
        if (mass >= wanted) return i + 1;
    }
    return n;
}

size_t sl_keep_top_p(const sl_candidate *candidates, size_t n, double p, double total) {
    return prefix_with_mass(candidates, n, p * total);
}

size_t sl_keep_min_p(const sl_candidate *candidates, size_t n, double p) {
    size_t kept = 1;
    while (kept < n && candidates[kept].weight >= p * candidates[0].weight) kept++;
    return kept;
}

size_t sl_keep_typical(sl_candidate *candidates, size_t n, double p) {
    double total = 0, entropy = 0;
    for (size_t i = 0; i < n; i++) total += candidates[i].weight;
    for (size_t i = 0; i < n; i++) {
        double probability = candidates[i].weight / total;
        if (probability > 0) entropy -= probability * log(probability);
    }
    for (size_t i = 0; i < n; i++) {
        double probability = candidates[i].weight / total;
        candidates[i].key = probability > 0 ? fabs(-log(probability) - entropy) : INFINITY;
    }
    histogram h = {0};
    for (size_t i = 0; i < n; i++) histogram_add(&h, candidates[i].key, candidates[i].weight);
    double edge = histogram_edge(&h, 0, p * total);
    size_t near = 0;
    for (size_t i = 0; i < n; i++)
        if (candidates[i].key <= edge) candidates[near++] = candidates[i];
    qsort(candidates, near, sizeof *candidates, by_key);
    size_t kept = prefix_with_mass(candidates, near, p * total);
    sl_candidates_sort(candidates, kept);
    return kept;
}
