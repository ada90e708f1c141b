/* How two distributions over a vocabulary differ, from their logits. */
#ifndef SL_EVAL_DIVERGENCE_H
#define SL_EVAL_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sl_divergence {
    double kld;         /* sum P (ln P - ln Q), nats; from 0 up but for rounding */
    double ln_p, ln_q;  /* of the token that follows */
    bool same_top;      /* do both find the same token likeliest (the first of equals)? */
} sl_divergence;

/* p, q: logits [n]; `next` in [0, n). Sums in f64 over parts summed in f32. */
sl_divergence sl_divergence_of(const float *p, const float *q, int n, int32_t next);
/* ln P of one token. */
double sl_log_probability(const float *p, int n, int32_t next);

#endif
