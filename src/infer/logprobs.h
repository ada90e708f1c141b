/* The model's own distribution, before any sampling: log-softmax of the raw logits, in double. */
#ifndef SL_INFER_LOGPROBS_H
#define SL_INFER_LOGPROBS_H

#include "sllm.h"

/* log(sum_i exp(logits[i])) over [n], so that log p(i) = logits[i] - this. Logits of -infinity count nothing; a NaN
 * gives NaN. */
double sl_log_sum_exp(const float *logits, size_t n);

/* The k most likely ids, most likely first, a tie to the lower id: out [k]. Places beyond n get id -1 and log p
 * -infinity. log_sum as above; NaN logits are never taken. */
void sl_top_logprobs(const float *logits, size_t n, double log_sum, sllm_alternative *out, size_t k);

#endif
