/* Models over text: perplexity, and how far one model's answers are from another's.
 *
 * The text is cut into chunks of n_ctx tokens, each read from its beginning (a BOS in place of its first token where the
 * model adds one); the second half of a chunk is scored, so that every scored token has half a chunk of context at least.
 * This is the convention of llama.cpp's perplexity tool, with which figures can be compared. */
#ifndef SL_EVAL_SCORE_H
#define SL_EVAL_SCORE_H

#include "model/model.h"

typedef struct sl_score_params {
    int n_ctx;    /* tokens a chunk, >= 8 */
    int n_chunks; /* at most; 0: all that the text has */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* tokens; false cancels; or NULL */
    void *user;
} sl_score_params;

typedef struct sl_perplexity {
    double mean_nll, nll_error; /* nats a token, and its standard error */
    int64_t n_scored, n_read;   /* tokens */
    int n_chunks;
    double seconds;             /* of the forwards */
} sl_perplexity;

/* ids [n]. SLLM_ERROR_ARGUMENT: fewer tokens than a chunk (both counts are named), or a bad n_ctx. SLLM_ERROR_FORMAT: logits
 * that are not finite (the model's path is named). */
sllm_status sl_perplexity_measure(const sl_model *model, const int32_t *ids, size_t n, const sl_score_params *params,
                                  sl_perplexity *result, sllm_error *error);

typedef struct sl_comparison {
    sl_perplexity a, b;
    int64_t n;           /* scored positions */
    float *kld;          /* [n] in rising order; the caller frees */
    double mean_kld, kld_error;  /* nats, and its standard error */
    double top1, top1_error;     /* share of positions with the same likeliest token */
    double mean_dln, dln_error;  /* mean of ln Q - ln P of the token that follows */
    double rms_dp;               /* root of the mean square of Q - P of it */
} sl_comparison;

/* KL divergence of each of others [n_others], n_others >= 1, from a on the same text; results [n_others]. All must have the
 * vocabulary size of a (SLLM_ERROR_ARGUMENT). After a failure the `kld` of results that were filled are still the caller's. */
sllm_status sl_compare_measure(const sl_model *a, const sl_model *const *others, int n_others, const int32_t *ids, size_t n,
                               const sl_score_params *params, sl_comparison *results, sllm_error *error);
/* The value below which a share of the positions lie, 0 <= share <= 1: linear between neighbours. */
double sl_comparison_quantile(const sl_comparison *c, double share);

#endif
