/* From logits to a token: the chain documented at sllm_sampler_params (include/sllm.h), in that order.
 *
 *     logits -> allowed by the constraint -> bias -> penalties -> DRY -> [temperature 0: argmax]
 *            -> top_k -> typical_p -> top_p -> min_p -> temperature -> draw
 *
 * top_k, typical_p, top_p and min_p read the distribution at temperature 1, renormalised over what the filter before
 * left; the temperature shapes only what survives. Everywhere a tie goes to the lower id. */
#ifndef SL_INFER_SAMPLER_H
#define SL_INFER_SAMPLER_H

#include "base/rng.h"
#include "infer/dry.h"
#include "sllm.h"
#include "text/tokenizer.h"

/* A token that the filters look at. */
typedef struct sl_candidate {
    int32_t id;
    float logit;
    double weight; /* exp(logit - largest logit): the probability but for a common factor */
    double key;    /* what the filter at work orders by */
} sl_candidate;

/* The public sllm_sampler is this struct; one thread at a time. */
typedef struct sllm_sampler sl_sampler;
struct sllm_sampler {
    sllm_sampler_params params; /* bias points into `bias` */
    sllm_logit_bias *bias;
    int32_t n_vocab;
    sl_dry_breakers breakers;
    sl_rng rng;
    float *logits;     /* [n_vocab] working copy */
    float *weights;    /* [n_vocab] exp(logit - max), or with the temperature applied */
    uint32_t *counts;  /* [n_vocab] how often a token stands in the penalty window; zero between draws */
    sl_candidate *candidates; /* [n_vocab] room; the first n_candidates survived the last draw's filters */
    size_t n_candidates;      /* 0 after a greedy draw or one without filters */
};

/* SLLM_ERROR_ARGUMENT naming the first parameter out of range and its range. */
sllm_status sl_sampler_check(const sllm_sampler_params *params, int32_t n_vocab, sllm_error *error);

/* tokenizer gives DRY its sequence breakers; NULL: none. The parameters are checked and copied. */
sllm_status sl_sampler_new(const sl_tokenizer *tokenizer, int32_t n_vocab, const sllm_sampler_params *params,
                           sl_sampler **sampler, sllm_error *error);
void sl_sampler_free(sl_sampler *sampler);

/* Draws from logits [n_vocab]. allowed: bit i set when token i may come, [(n_vocab + 63) / 64], NULL: all may.
 * history [n_history]: the tokens so far, every id in the vocabulary. SLLM_ERROR_FORMAT when a logit is NaN or
 * +infinity (a damaged model), SLLM_ERROR_ARGUMENT when nothing is left to draw from. */
sllm_status sl_sampler_draw(sl_sampler *sampler, const float *logits, const uint64_t *allowed, const int32_t *history,
                            size_t n_history, int32_t *id, sllm_error *error);

/* The filters on their own, in select.c. Each keeps candidates[0, returned) of candidates [n]; the kept ones stand most
 * likely first. n >= 1, and at least one is kept. */
void sl_candidates_sort(sl_candidate *candidates, size_t n);                      /* by logit, then by lower id */
size_t sl_keep_typical(sl_candidate *candidates, size_t n, double p);             /* any order in */
size_t sl_keep_top_p(const sl_candidate *candidates, size_t n, double p, double total); /* total: sum of all weights */
size_t sl_keep_min_p(const sl_candidate *candidates, size_t n, double p);

/* weights[i] = exp((logits[i] - max) * scale) for [n], each to 3e-7 relative (0 below exp(-87)); returns their sum,
 * added in one fixed order. max: the largest logit, finite; -infinity gives 0. */
double sl_exp_weights(const float *logits, float *weights, size_t n, float max, float scale);

/* The index of the largest of x [n >= 1], the first at a tie. */
int32_t sl_largest(const float *x, size_t n);

/* A logit below which nothing can be among the `count` most likely tokens (count 0: not asked), or among those that
 * make up `mass` of the weights (as sl_exp_weights gives them with scale 1; only asked when count is 0). -infinity:
 * keep all. */
float sl_prune_threshold(const float *logits, const float *weights, size_t n, float max, size_t count, double mass);

#endif
