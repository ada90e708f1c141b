#include "infer/sampler.h"

#include "base/error.h"
#include "model/plan.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- parameters */

/* A parameter that must lie in [low, high], or in (low, high] / [low, high) where an end is open. */
typedef struct range {
    const char *name;
    double value, low, high;
    bool low_open, high_open;
} range;

static sllm_status check_range(const range *r, sllm_error *error) {
    /* Written so that NaN fails every comparison. */
    bool above = r->low_open ? r->value > r->low : r->value >= r->low;
    bool below = r->high_open ? r->value < r->high : r->value <= r->high;
    if (above && below) return SLLM_OK;
    if (isinf(r->high))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s is %g: it must be a finite number %s %g", r->name, r->value,
                       r->low_open ? "above" : "of at least", r->low);
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s is %g: it must lie in %c%g, %g%c", r->name, r->value,
                   r->low_open ? '(' : '[', r->low, r->high, r->high_open ? ')' : ']');
}

static sllm_status check_bias(const sllm_sampler_params *params, int32_t n_vocab, sllm_error *error) {
    if (params->n_bias > 0 && !params->bias)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "logit_bias: n_bias is %zu but bias is NULL", params->n_bias);
    if (params->n_bias > (size_t)n_vocab)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "logit_bias: %zu entries for a vocabulary of %d tokens",
                       params->n_bias, n_vocab);
    for (size_t i = 0; i < params->n_bias; i++) {
        const sllm_logit_bias *entry = &params->bias[i];
        if (entry->id < 0 || entry->id >= n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "logit_bias: token %d is outside the vocabulary [0, %d)",
                           entry->id, n_vocab);
        if (isnan(entry->bias) || entry->bias == INFINITY)
            return sl_fail(error, SLLM_ERROR_ARGUMENT,
                           "logit_bias: the bias of token %d is %g: a number is needed, or -infinity to forbid it",
                           entry->id, (double)entry->bias);
    }
    return SLLM_OK;
}

sllm_status sl_sampler_check(const sllm_sampler_params *params, int32_t n_vocab, sllm_error *error) {
    const range ranges[] = {
        {"temperature", params->temperature, 0, INFINITY, false, true},
        {"top_k", params->top_k, 0, INT32_MAX, false, false},
        {"top_p", params->top_p, 0, 1, true, false},
        {"min_p", params->min_p, 0, 1, false, true},
        {"typical_p", params->typical_p, 0, 1, true, false},
        {"repetition_penalty", params->repetition_penalty, 0, INFINITY, true, true},
        {"presence_penalty", params->presence_penalty, -2, 2, false, false},
        {"frequency_penalty", params->frequency_penalty, -2, 2, false, false},
        {"penalty_last_n", params->penalty_last_n, -1, INT32_MAX, false, false},
        {"dry_multiplier", params->dry_multiplier, 0, INFINITY, false, true},
        {"dry_base", params->dry_base, 1, INFINITY, false, true},
        {"dry_allowed_length", params->dry_allowed_length, 0, 1000, false, false},
        {"dry_last_n", params->dry_last_n, -1, INT32_MAX, false, false},
    };
    if (n_vocab < 1)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_vocab is %d: it must be at least 1", n_vocab);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        sllm_status status = check_range(&ranges[i], error);
        if (status) return status;
    }
    return check_bias(params, n_vocab, error);
}

/* ---------------------------------------------------------------- life */

_Static_assert(sizeof(sl_candidate) + 3 * sizeof(float) == SL_PLAN_SAMPLER, "a plan counts a sampler's four arrays");

sllm_status sl_sampler_new(const sl_tokenizer *tokenizer, int32_t n_vocab, const sllm_sampler_params *params,
                           sl_sampler **sampler, sllm_error *error) {
    *sampler = NULL;
    sllm_status status = sl_sampler_check(params, n_vocab, error);
    if (status) return status;
    size_t n = (size_t)n_vocab;
    sl_sampler *s = calloc(1, sizeof *s);
    if (!s) return sl_fail_memory(error, "making a sampler", sizeof *s);
    s->params = *params;
    s->n_vocab = n_vocab;
    s->logits = malloc(n * sizeof *s->logits);
    s->weights = malloc(n * sizeof *s->weights);
    s->counts = calloc(n, sizeof *s->counts);
    s->candidates = malloc(n * sizeof *s->candidates);
    s->bias = malloc((params->n_bias + 1) * sizeof *s->bias);
    if (!s->logits || !s->weights || !s->counts || !s->candidates || !s->bias) {
        status = sl_fail_memory(error, "making a sampler", n * (sizeof(sl_candidate) + 12));
        goto fail;
    }
    if (params->n_bias > 0) memcpy(s->bias, params->bias, params->n_bias * sizeof *s->bias);
    s->params.bias = s->bias;
    sl_rng_seed(&s->rng, params->seed);
    if (tokenizer && params->dry_multiplier > 0) status = sl_dry_breakers_find(tokenizer, &s->breakers, error);
    if (status) goto fail;
    *sampler = s;
    return SLLM_OK;
fail:
    sl_sampler_free(s);
    return status;
}

void sl_sampler_free(sl_sampler *sampler) {
    if (!sampler) return;
    free(sampler->logits);
    free(sampler->weights);
    free(sampler->counts);
    free(sampler->candidates);
    free(sampler->bias);
    free(sampler);
}

/* ---------------------------------------------------------------- changing the logits */

/* Copies the logits that may be drawn, the others as -infinity. */
static sllm_status take_logits(sl_sampler *s, const float *logits, const uint64_t *allowed, sllm_error *error) {
    size_t n = (size_t)s->n_vocab;
    int bad = 0;
    for (size_t i = 0; i < n; i++) bad |= !(logits[i] < INFINITY);
    if (bad) {
        size_t i = 0;
        while (logits[i] < INFINITY) i++;
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "the logit of token %zu is %g: the model's weights or input are damaged", i, (double)logits[i]);
    }
    if (!allowed) {
        memcpy(s->logits, logits, n * sizeof *logits);
        return SLLM_OK;
    }
    for (size_t i = 0; i < n; i++) s->logits[i] = allowed[i / 64] >> (i % 64) & 1 ? logits[i] : -INFINITY;
    return SLLM_OK;
}

/* Back to float without becoming +infinity, which would leave no differences to weigh. */
static float bounded(double logit) { return logit > FLT_MAX ? FLT_MAX : (float)logit; }

static void apply_penalties(sl_sampler *s, const int32_t *history, size_t n) {
    const sllm_sampler_params *p = &s->params;
    if (p->repetition_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0) return;
    if (p->penalty_last_n >= 0 && n > (size_t)p->penalty_last_n) {
        history += n - (size_t)p->penalty_last_n;
        n = (size_t)p->penalty_last_n;
    }
    for (size_t i = 0; i < n; i++) s->counts[history[i]]++;
    for (size_t i = 0; i < n; i++) {
        uint32_t count = s->counts[history[i]];
        if (count == 0) continue; /* seen already */
        s->counts[history[i]] = 0;
        double logit = s->logits[history[i]];
        logit = logit > 0 ? logit / p->repetition_penalty : logit * p->repetition_penalty;
        logit -= (double)p->presence_penalty + (double)count * p->frequency_penalty;
        s->logits[history[i]] = bounded(logit);
    }
}

/* ---------------------------------------------------------------- the filters */

static bool filters(const sl_sampler *s) {
    const sllm_sampler_params *p = &s->params;
    return (p->top_k > 0 && p->top_k < s->n_vocab) || p->typical_p < 1 || p->top_p < 1 || p->min_p > 0;
}

/* A logit below which no candidate survives top_k, top_p and min_p, so that it need not be collected. top_k and
 * typical_p change the distribution that the later filters see: then only what the first of them asks for may be left
 * out. */
static float first_threshold(const sl_sampler *s, size_t top_k, float max, double total) {
    const sllm_sampler_params *p = &s->params;
    size_t n = (size_t)s->n_vocab;
    if (top_k > 0) return sl_prune_threshold(s->logits, s->weights, n, max, top_k, 0);
    if (p->typical_p < 1) return -INFINITY;
    float threshold = -INFINITY;
    if (p->top_p < 1) threshold = sl_prune_threshold(s->logits, s->weights, n, max, 0, p->top_p * total);
    if (p->min_p > 0) threshold = fmaxf(threshold, max + logf(p->min_p) - 0.01f);
    return threshold;
}

/* Collects the candidates that top_k, typical_p, top_p and min_p leave. s->logits: max is the largest. */
static void select_candidates(sl_sampler *s, float max) {
    const sllm_sampler_params *p = &s->params;
    size_t n = (size_t)s->n_vocab, top_k = p->top_k > 0 && p->top_k < s->n_vocab ? (size_t)p->top_k : 0;
    double total = sl_exp_weights(s->logits, s->weights, n, max, 1);
    float threshold = first_threshold(s, top_k, max, total);
    sl_candidate *c = s->candidates;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(s->logits[i] >= threshold) || s->logits[i] == -INFINITY) continue;
        c[kept++] = (sl_candidate){(int32_t)i, s->logits[i], exp((double)s->logits[i] - max), 0};
    }
    if (top_k > 0 || p->typical_p >= 1) sl_candidates_sort(c, kept);
    if (top_k > 0 && kept > top_k) kept = top_k;
    if (p->typical_p < 1) kept = sl_keep_typical(c, kept, p->typical_p);
    if (p->top_p < 1) {
        if (top_k > 0 || p->typical_p < 1) { /* no longer the total of the whole vocabulary */
            total = 0;
            for (size_t i = 0; i < kept; i++) total += c[i].weight;
        }
        kept = sl_keep_top_p(c, kept, p->top_p, total);
    }
    if (p->min_p > 0) kept = sl_keep_min_p(c, kept, p->min_p);
    s->n_candidates = kept;
}

/* ---------------------------------------------------------------- the draw */

/* One of the candidates, most likely first, in proportion to exp(logit / temperature). */
static int32_t draw_candidate(sl_sampler *s) {
    sl_candidate *c = s->candidates;
    double total = 0, max = c[0].logit;
    for (size_t i = 0; i < s->n_candidates; i++) {
        c[i].weight = exp(((double)c[i].logit - max) / s->params.temperature);
        total += c[i].weight;
    }
    double left = sl_rng_uniform(&s->rng) * total;
    size_t last = 0;
    for (size_t i = 0; i < s->n_candidates; i++) {
        if (c[i].weight == 0) continue;
        last = i;
        left -= c[i].weight;
        if (left < 0) break;
    }
    return c[last].id;
}

/* The same from the whole vocabulary, in the order of ids. */
static int32_t draw_any(sl_sampler *s, float max) {
    size_t n = (size_t)s->n_vocab;
    float scale = fminf(1 / s->params.temperature, FLT_MAX); /* 1 / the smallest temperatures overflows */
    double left = sl_rng_uniform(&s->rng) * sl_exp_weights(s->logits, s->weights, n, max, scale);
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->weights[i] == 0) continue;
        last = i;
        left -= s->weights[i];
        if (left < 0) break;
    }
    return (int32_t)last;
}

sllm_status sl_sampler_draw(sl_sampler *s, const float *logits, const uint64_t *allowed, const int32_t *history,
                            size_t n_history, int32_t *id, sllm_error *error) {
    *id = -1;
    s->n_candidates = 0;
    sllm_status status = take_logits(s, logits, allowed, error);
    if (status) return status;
    for (size_t i = 0; i < s->params.n_bias; i++) {
        float *logit = &s->logits[s->bias[i].id];
        *logit = bounded((double)*logit + s->bias[i].bias);
    }
    apply_penalties(s, history, n_history);
    sl_dry_apply(&s->params, &s->breakers, history, n_history, s->counts, s->logits);

    int32_t best = sl_largest(s->logits, (size_t)s->n_vocab);
    if (s->logits[best] == -INFINITY)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "no token is left to draw: logit_bias or the penalties forbid all that may come next");
    if (s->params.temperature == 0) {
        *id = best;
    } else if (filters(s)) {
        select_candidates(s, s->logits[best]);
        *id = draw_candidate(s);
    } else {
        *id = draw_any(s, s->logits[best]);
    }
    return SLLM_OK;
}
