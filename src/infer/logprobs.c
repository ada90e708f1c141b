#include "infer/logprobs.h"

#include <math.h>

double sl_log_sum_exp(const float *logits, size_t n) {
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) max = logits[i] > max ? logits[i] : max;
    if (max == -INFINITY) return -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Insertion into a short sorted list: k is at most a hundred, and after the first tokens hardly any enters it. */
void sl_top_logprobs(const float *logits, size_t n, double log_sum, sllm_alternative *out, size_t k) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        float logit = logits[i];
        if (k == 0 || isnan(logit) || (count == k && !(logit > out[k - 1].logprob))) continue;
        size_t at = count < k ? count++ : k - 1;
        for (; at > 0 && logit > out[at - 1].logprob; at--) out[at] = out[at - 1];
        out[at] = (sllm_alternative){.id = (int32_t)i, .logprob = logit};
    }
    for (size_t i = 0; i < count; i++) out[i].logprob = (float)(out[i].logprob - log_sum);
    for (size_t i = count; i < k; i++) out[i] = (sllm_alternative){.id = -1, .logprob = -INFINITY};
}
