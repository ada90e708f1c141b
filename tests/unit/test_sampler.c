/* The sampler against an independent reference: every step of the chain written again the slow way, in double, with
 * full sorts, from the definitions in include/sllm.h and the papers named there. */
#include "infer/logprobs.h"
#include "infer/sampler.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static sllm_sampler_params plain(void) {
    return (sllm_sampler_params){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1,
                                 .penalty_last_n = 64, .dry_base = 1.75f, .dry_allowed_length = 2, .dry_last_n = -1};
}

static sl_sampler *make(sllm_sampler_params params, int32_t n_vocab) {
    sl_sampler *sampler;
    sllm_error error = {0};
    if (sl_sampler_new(NULL, n_vocab, &params, &sampler, &error)) fail_msg("%s", error.message);
    return sampler;
}

/* A bell-shaped variable, well enough, from the tested generator's uniform. */
static double bell(sl_rng *rng) {
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += sl_rng_uniform(rng);
    return sum - 6;
}

/* ---------------------------------------------------------------- the reference */

typedef struct item {
    int id;
    double logit, p, key;
} item;

static int by_p(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : (x->id > y->id) - (x->id < y->id);
}

static int by_surprise(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : by_p(a, b);
}

static void softmax(item *items, int n, double temperature) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) max = fmax(max, items[i].logit);
    for (int i = 0; i < n; i++) sum += items[i].p = exp((items[i].logit - max) / temperature);
    for (int i = 0; i < n; i++) items[i].p /= sum;
}

static int cut(const item *items, int n, double p) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if ((sum += items[i].p) >= p) return i + 1;
    return n;
}

static void reference_penalties(const sllm_sampler_params *p, const int32_t *history, size_t n_history, double *logits,
                                int n) {
    for (int id = 0; id < n; id++) {
        int count = 0;
        for (size_t i = 0; i < n_history; i++)
            if (p->penalty_last_n < 0 || n_history - i <= (size_t)p->penalty_last_n) count += history[i] == id;
        if (count == 0) continue;
        logits[id] = logits[id] > 0 ? logits[id] / p->repetition_penalty : logits[id] * p->repetition_penalty;
        logits[id] -= p->presence_penalty + count * (double)p->frequency_penalty;
    }
}

static bool breaker(const sl_dry_breakers *b, int32_t id) {
    for (int i = 0; i < b->n; i++)
        if (b->ids[i] == id) return true;
    return false;
}

/* For each token: the longest ending of the history that occurs earlier with this token behind it, no breaker in. */
static void reference_dry(const sllm_sampler_params *p, const sl_dry_breakers *b, const int32_t *history,
                          size_t n_history, double *logits, int n) {
    if (p->dry_last_n >= 0 && n_history > (size_t)p->dry_last_n) {
        history += n_history - (size_t)p->dry_last_n;
        n_history = (size_t)p->dry_last_n;
    }
    for (int id = 0; id < n; id++) {
        int longest = 0;
        if (breaker(b, id)) continue;
        for (size_t at = 1; at < n_history; at++) {
            if (history[at] != id) continue;
            for (int length = 1; length <= 50 && (size_t)length <= at; length++) {
                bool same = true;
                for (int k = 1; k <= length; k++)
                    same = same && history[at - (size_t)k] == history[n_history - (size_t)k] &&
                           !breaker(b, history[n_history - (size_t)k]);
                if (same && length > longest) longest = length;
            }
        }
        if (longest > 0 && longest >= p->dry_allowed_length)
            logits[id] -= p->dry_multiplier * pow(p->dry_base, longest - p->dry_allowed_length);
    }
}

/* The survivors most likely first, p at the sampler's temperature. Returns how many. */
static int reference_chain(const sllm_sampler_params *p, const double *logits, int n, item *items) {
    for (int i = 0; i < n; i++) items[i] = (item){.id = i, .logit = logits[i]};
    qsort(items, (size_t)n, sizeof *items, by_p);
    while (n > 0 && items[n - 1].logit == -INFINITY) n--;
    if (p->top_k > 0 && p->top_k < n) n = p->top_k;
    if (p->typical_p < 1) {
        double entropy = 0;
        softmax(items, n, 1);
        for (int i = 0; i < n; i++) entropy -= items[i].p > 0 ? items[i].p * log(items[i].p) : 0;
        for (int i = 0; i < n; i++) items[i].key = items[i].p > 0 ? fabs(-log(items[i].p) - entropy) : INFINITY;
        qsort(items, (size_t)n, sizeof *items, by_surprise);
        n = cut(items, n, p->typical_p);
        qsort(items, (size_t)n, sizeof *items, by_p);
    }
    softmax(items, n, 1);
    if (p->top_p < 1) n = cut(items, n, p->top_p);
    int kept = 1;
    while (kept < n && items[kept].p >= p->min_p * items[0].p) kept++;
    softmax(items, kept, p->temperature);
    return kept;
}

/* ---------------------------------------------------------------- tests of the chain */

/* One random case: the survivors must be the reference's, with the reference's probabilities. */
static void compare_case(const sllm_sampler_params *params, int n, double spread, uint64_t seed) {
    sl_rng rng;
    sl_rng_seed(&rng, seed);
    float *logits = malloc((size_t)n * sizeof *logits);
    double *widened = malloc((size_t)n * sizeof *widened);
    item *items = malloc((size_t)n * sizeof *items);
    /* Every fifth logit repeats an earlier one, so that ties are frequent. */
    for (int i = 0; i < n; i++) logits[i] = i % 5 == 4 ? logits[i - 3] : (float)(bell(&rng) * spread);
    for (int i = 0; i < n; i++) widened[i] = logits[i];
    int expected = reference_chain(params, widened, n, items);

    sl_sampler *sampler = make(*params, n);
    int32_t id;
    assert_int_equal(sl_sampler_draw(sampler, logits, NULL, NULL, 0, &id, NULL), SLLM_OK);
    assert_int_equal(sampler->n_candidates, expected);
    double total = 0;
    for (int i = 0; i < expected; i++) total += sampler->candidates[i].weight;
    bool drawn = false;
    for (int i = 0; i < expected; i++) {
        assert_int_equal(sampler->candidates[i].id, items[i].id);
        assert_true(fabs(sampler->candidates[i].weight / total - items[i].p) < 1e-12);
        drawn = drawn || items[i].id == id;
    }
    assert_true(drawn);
    sl_sampler_free(sampler);
    free(logits);
    free(widened);
    free(items);
}

static void filters_equal_the_reference(void **state) {
    (void)state;
    static const struct { int top_k; float typical, top_p, min_p, temperature; } settings[] = {
        {40, 1, 1, 0, 1},         {1, 1, 1, 0, 0.7f},       {0, 1, 0.9f, 0, 0.7f},       {0, 1, 0.5f, 0, 1},
        {0, 1, 0.999f, 0, 2},     {0, 1, 1, 0.05f, 1},      {0, 1, 1, 0.5f, 0.3f},       {0, 0.9f, 1, 0, 1},
        {0, 0.2f, 1, 0, 1},       {50, 0.9f, 0.9f, 0.01f, 0.8f}, {0, 1, 0.95f, 0.02f, 1}, {100000, 1, 0.9f, 0, 1},
        {3, 1, 0.99f, 0, 1},      {0, 0.7f, 0.8f, 0, 1.3f}, {0, 1, 1e-6f, 0, 1},         {0, 1, 1, 0.999f, 1},
    };
    static const int sizes[] = {1, 2, 7, 320, 5000};
    static const double spreads[] = {0.01, 1, 4, 30};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t d = 0; d < sizeof spreads / sizeof *spreads; d++) {
                sllm_sampler_params params = plain();
                params.top_k = settings[i].top_k;
                params.typical_p = settings[i].typical;
                params.top_p = settings[i].top_p;
                params.min_p = settings[i].min_p;
                params.temperature = settings[i].temperature;
                if (params.top_k >= sizes[s] && params.top_p == 1 && params.min_p == 0 && params.typical_p == 1)
                    continue; /* no filter is left: drawn from the whole vocabulary */
                compare_case(&params, sizes[s], spreads[d], i * 100 + s * 10 + d);
            }
}

static void large_vocabulary(void **state) {
    (void)state;
    sllm_sampler_params params = plain();
    params.top_p = 0.95f;
    compare_case(&params, 262144, 3, 1);
    params.top_p = 1;
    params.top_k = 64;
    compare_case(&params, 262144, 3, 2);
    params.top_k = 0;
    params.typical_p = 0.5f;
    compare_case(&params, 262144, 3, 3);
}

static void weights_are_exponentials(void **state) {
    (void)state;
    enum { N = 200001 };
    float *logits = malloc(N * sizeof *logits), *weights = malloc(N * sizeof *weights);
    double sum = 0;
    for (int i = 0; i < N; i++) logits[i] = (float)i * -5e-4f;
    double total = sl_exp_weights(logits, weights, N, 0, 1);
    for (int i = 0; i < N; i++) {
        double exact = exp(logits[i]);
        if (logits[i] > -87) assert_true(fabs(weights[i] - exact) <= 3e-7 * exact);
        else assert_true(weights[i] == 0);
        sum += exact;
    }
    assert_true(fabs(total - sum) < 1e-6 * sum);
    float low = -INFINITY, weight;
    assert_true(sl_exp_weights(&low, &weight, 1, 3, FLT_MAX) == 0);
    free(logits);
    free(weights);
}

static void penalties_equal_the_reference(void **state) {
    (void)state;
    enum { N = 24, HISTORY = 150 };
    static const struct {
        float repeat, presence, frequency, dry, base;
        int last_n, allowed, dry_last_n;
    } settings[] = {
        {1.3f, 0, 0, 0, 1.75f, 64, 2, -1},     {1, 0.5f, 0, 0, 1.75f, -1, 2, -1}, {1, 0, 0.25f, 0, 1.75f, 10, 2, -1},
        {0.8f, -1, 0.1f, 0, 1.75f, 20, 2, -1}, {1, 0, 0, 0.8f, 1.75f, 64, 2, -1}, {1, 0, 0, 0.5f, 1.1f, 64, 0, 40},
        {1.1f, 0.2f, 0.1f, 1, 2, -1, 1, -1},   {1.5f, 1, 1, 1, 1.75f, 0, 3, 0},   {1, 0, 0, 3, 1, 64, 5, 149},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        for (uint64_t seed = 0; seed < 60; seed++) {
            sl_rng rng;
            sl_rng_seed(&rng, seed * 31 + i);
            sllm_sampler_params p = plain();
            p.repetition_penalty = settings[i].repeat, p.presence_penalty = settings[i].presence;
            p.frequency_penalty = settings[i].frequency, p.penalty_last_n = settings[i].last_n;
            p.dry_multiplier = settings[i].dry, p.dry_base = settings[i].base;
            p.dry_allowed_length = settings[i].allowed, p.dry_last_n = settings[i].dry_last_n;
            sl_sampler *sampler = make(p, N);
            sampler->breakers = (sl_dry_breakers){{1, 3}, 2};
            int32_t history[HISTORY], id;
            uint64_t letters = 2 + seed % 4; /* few letters: long repetitions */
            if (seed % 7 == 0) letters = N;
            for (int k = 0; k < HISTORY; k++) history[k] = (int32_t)(sl_rng_next(&rng) % letters);
            if (seed % 5 == 0) /* a history that is one period again and again */
                for (int k = 6; k < HISTORY; k++) history[k] = history[k - 6];
            float logits[N];
            double expected[N];
            for (int k = 0; k < N; k++) expected[k] = logits[k] = (float)(bell(&rng) * 3);
            size_t n_history = seed % 3 ? HISTORY : seed % 11;
            reference_penalties(&p, history, n_history, expected, N);
            if (p.dry_multiplier > 0) reference_dry(&p, &sampler->breakers, history, n_history, expected, N);
            assert_int_equal(sl_sampler_draw(sampler, logits, NULL, history, n_history, &id, NULL), SLLM_OK);
            for (int k = 0; k < N; k++) {
                assert_true(fabs(sampler->logits[k] - expected[k]) <= 1e-5 * fmax(1, fabs(expected[k])));
                assert_int_equal(sampler->counts[k], 0);
            }
            sl_sampler_free(sampler);
        }
    }
}

/* The example of the original proposal: a repeated run of tokens is penalised by the length it would reach. */
static void dry_by_hand(void **state) {
    (void)state;
    sllm_sampler_params p = plain();
    p.dry_multiplier = 0.8f;
    const int32_t history[] = {5, 6, 7, 8, 9, 5, 6, 7};
    float logits[10] = {0};
    int32_t id;
    sl_sampler *sampler = make(p, 10);
    assert_int_equal(sl_sampler_draw(sampler, logits, NULL, history, 8, &id, NULL), SLLM_OK);
    for (int i = 0; i < 10; i++)
        assert_true(fabs(sampler->logits[i] - (i == 8 ? -0.8 * 1.75 : 0)) < 1e-6); /* matched 3, allowed 2 */
    sl_sampler_free(sampler);
}

/* A long allowed length still leaves longer repetitions to penalise: 121 tokens match, 120 are allowed. */
static void dry_beyond_a_long_allowed_length(void **state) {
    (void)state;
    enum { MATCH = 121 };
    sllm_sampler_params p = plain();
    p.dry_multiplier = 0.5f, p.dry_allowed_length = MATCH - 1;
    int32_t history[2 * MATCH + 1], id;
    float logits[200] = {0};
    for (int i = 0; i < MATCH; i++) history[i] = history[MATCH + 1 + i] = 10 + i;
    history[MATCH] = 7;
    sl_sampler *sampler = make(p, 200);
    assert_int_equal(sl_sampler_draw(sampler, logits, NULL, history, 2 * MATCH + 1, &id, NULL), SLLM_OK);
    for (int i = 0; i < 200; i++) assert_true(fabs(sampler->logits[i] - (i == 7 ? -0.5 * 1.75 : 0)) < 1e-6);
    sl_sampler_free(sampler);
}

/* ---------------------------------------------------------------- the draw */

/* Pearson's statistic of `draws` draws against p [n]; the limit is the 0.999 quantile by Wilson and Hilferty (1931). */
static void chi_square(sllm_sampler_params params, const float *logits, int n, int draws) {
    double widened[64], statistic = 0;
    item items[64];
    long counts[64] = {0};
    for (int i = 0; i < n; i++) widened[i] = logits[i];
    int kept = reference_chain(&params, widened, n, items);
    sl_sampler *sampler = make(params, n);
    for (int i = 0; i < draws; i++) {
        int32_t id;
        assert_int_equal(sl_sampler_draw(sampler, logits, NULL, NULL, 0, &id, NULL), SLLM_OK);
        counts[id]++;
    }
    for (int i = 0; i < kept; i++) {
        double expected = items[i].p * draws;
        statistic += (counts[items[i].id] - expected) * (counts[items[i].id] - expected) / expected;
        counts[items[i].id] = 0;
    }
    for (int i = 0; i < n; i++) assert_int_equal(counts[i], 0); /* nothing that the filters dropped */
    double k = kept - 1, root = 1 - 2 / (9 * k) + 3.09 * sqrt(2 / (9 * k));
    assert_true(statistic < k * root * root * root);
    sl_sampler_free(sampler);
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    float logits[30];
    for (int i = 0; i < 30; i++) logits[i] = (float)((i * 7 % 30) * 0.12);
    sllm_sampler_params params = plain();
    for (uint64_t seed = 1; seed <= 3; seed++) {
        params.seed = seed;
        params.temperature = 1, params.top_p = 1, params.top_k = 0;
        chi_square(params, logits, 30, 60000);
        params.temperature = 0.6f;
        chi_square(params, logits, 30, 60000);
        params.top_p = 0.8f;
        chi_square(params, logits, 30, 60000);
        params.top_k = 5, params.temperature = 1.5f;
        chi_square(params, logits, 30, 60000);
    }
}

static void seeds_reproduce(void **state) {
    (void)state;
    float logits[100];
    for (int i = 0; i < 100; i++) logits[i] = (float)(i % 10) * 0.1f;
    sllm_sampler_params params = plain();
    int differences = 0;
    params.seed = 42;
    sl_sampler *a = make(params, 100), *b = make(params, 100);
    params.seed = 43;
    sl_sampler *c = make(params, 100);
    for (int i = 0; i < 200; i++) {
        int32_t x, y, z;
        sl_sampler_draw(a, logits, NULL, NULL, 0, &x, NULL);
        sl_sampler_draw(b, logits, NULL, NULL, 0, &y, NULL);
        sl_sampler_draw(c, logits, NULL, NULL, 0, &z, NULL);
        assert_int_equal(x, y);
        differences += x != z;
    }
    assert_true(differences > 100);
    sl_sampler_free(a);
    sl_sampler_free(b);
    sl_sampler_free(c);
}

static void greedy_ties_masks_and_bias(void **state) {
    (void)state;
    float logits[70] = {0};
    logits[3] = logits[66] = 2;
    sllm_sampler_params params = plain();
    params.temperature = 0;
    sl_sampler *sampler = make(params, 70);
    int32_t id;
    assert_int_equal(sl_sampler_draw(sampler, logits, NULL, NULL, 0, &id, NULL), SLLM_OK);
    assert_int_equal(id, 3);
    uint64_t mask[2] = {0, 0x7}; /* 64, 65, 66 */
    assert_int_equal(sl_sampler_draw(sampler, logits, mask, NULL, 0, &id, NULL), SLLM_OK);
    assert_int_equal(id, 66);
    mask[1] = 0;
    sllm_error error = {0};
    assert_int_equal(sl_sampler_draw(sampler, logits, mask, NULL, 0, &id, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "no token is left"));
    sl_sampler_free(sampler);

    const sllm_logit_bias bias[] = {{3, -INFINITY}, {66, -1.5f}, {9, 0.75f}};
    params.bias = bias, params.n_bias = 3;
    sampler = make(params, 70);
    assert_int_equal(sl_sampler_draw(sampler, logits, NULL, NULL, 0, &id, NULL), SLLM_OK);
    assert_int_equal(id, 9);
    sl_sampler_free(sampler);
}

static void damaged_logits_are_errors(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        float logits[5] = {1, 2, bad[i], 4, 5};
        sl_sampler *sampler = make(plain(), 5);
        sllm_error error = {0};
        int32_t id;
        assert_int_equal(sl_sampler_draw(sampler, logits, NULL, NULL, 0, &id, &error), SLLM_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "token 2"));
        sl_sampler_free(sampler);
    }
}

static void extremes_stay_finite(void **state) {
    (void)state;
    float logits[4] = {FLT_MAX, -FLT_MAX, 1, -INFINITY};
    const int32_t history[] = {0, 1, 2, 3};
    sllm_sampler_params params = plain();
    params.repetition_penalty = 1e-30f;
    params.dry_multiplier = 1e30f, params.dry_base = 1e30f, params.dry_allowed_length = 0;
    static const float temperatures[] = {1e-45f, 1e-10f, 1, 1e30f};
    for (int i = 0; i < 8; i++) {
        params.temperature = temperatures[i / 2];
        params.top_p = i % 2 ? 0.9f : 1;
        sl_sampler *sampler = make(params, 4);
        int32_t id = -1;
        assert_int_equal(sl_sampler_draw(sampler, logits, NULL, history, 4, &id, NULL), SLLM_OK);
        assert_in_range(id, 0, 2);
        sl_sampler_free(sampler);
    }
}

static void likeliest_tokens_in_order(void **state) {
    (void)state;
    static const float logits[] = {1, 3, NAN, 3, -INFINITY, 2, 3, 1};
    static const int32_t order[] = {1, 3, 6, 5, 0, 7, 4, -1, -1}; /* ties by lower id; NaN is never taken */
    for (size_t k = 0; k <= 9; k++) {
        sllm_alternative out[9];
        sl_top_logprobs(logits, 8, 4, out, k);
        for (size_t i = 0; i < k; i++) {
            assert_int_equal(out[i].id, order[i]);
            assert_true(out[i].logprob == (order[i] < 0 ? -INFINITY : logits[order[i]] - 4));
        }
    }
    static const float far[] = {1000, 1000, -INFINITY};
    assert_true(fabs(sl_log_sum_exp(far, 3) - (1000 + log(2))) < 1e-12);
    assert_true(sl_log_sum_exp(far + 2, 1) == -INFINITY);
}

/* ---------------------------------------------------------------- parameters */

static void refused(sllm_sampler_params params, const char *name) {
    sllm_error error = {0};
    assert_int_equal(sl_sampler_check(&params, 100, &error), SLLM_ERROR_ARGUMENT);
    if (!strstr(error.message, name)) fail_msg("\"%s\" does not name %s", error.message, name);
}

#define REFUSE(field, value)             \
    do {                                 \
        sllm_sampler_params p_ = plain(); \
        p_.field = (value);              \
        refused(p_, #field);             \
    } while (0)

static void parameters_out_of_range_are_named(void **state) {
    (void)state;
    sllm_sampler_params good = plain();
    assert_int_equal(sl_sampler_check(&good, 100, NULL), SLLM_OK);
    REFUSE(temperature, NAN);
    REFUSE(temperature, -0.1f);
    REFUSE(temperature, INFINITY);
    REFUSE(top_k, -1);
    REFUSE(top_p, 0);
    REFUSE(top_p, 1.01f);
    REFUSE(top_p, NAN);
    REFUSE(min_p, 1);
    REFUSE(min_p, -0.01f);
    REFUSE(typical_p, 0);
    REFUSE(repetition_penalty, 0);
    REFUSE(repetition_penalty, INFINITY);
    REFUSE(presence_penalty, 2.5f);
    REFUSE(frequency_penalty, -3);
    REFUSE(penalty_last_n, -2);
    REFUSE(dry_multiplier, -1);
    REFUSE(dry_base, 0.5f);
    REFUSE(dry_allowed_length, -1);
    REFUSE(dry_allowed_length, 1001);
    REFUSE(dry_last_n, -2);
    const sllm_logit_bias outside = {100, 1}, nan = {1, NAN}, forced = {1, INFINITY};
    const sllm_logit_bias *entries[] = {&outside, &nan, &forced, NULL};
    for (int i = 0; i < 4; i++) {
        good.bias = entries[i], good.n_bias = 1;
        refused(good, "logit_bias");
    }
    good.bias = &outside, good.n_bias = SIZE_MAX;
    refused(good, "logit_bias");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_equal_the_reference), cmocka_unit_test(large_vocabulary),
        cmocka_unit_test(weights_are_exponentials),    cmocka_unit_test(penalties_equal_the_reference),
        cmocka_unit_test(dry_beyond_a_long_allowed_length),
        cmocka_unit_test(dry_by_hand),                 cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(seeds_reproduce),             cmocka_unit_test(greedy_ties_masks_and_bias),
        cmocka_unit_test(damaged_logits_are_errors),   cmocka_unit_test(extremes_stay_finite),
        cmocka_unit_test(likeliest_tokens_in_order), cmocka_unit_test(parameters_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
