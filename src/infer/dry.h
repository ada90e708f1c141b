/* DRY, "don't repeat yourself": a token that would go on with a repetition is penalised, more the longer the repetition
 * is. As published by p-e-w in text-generation-webui, pull request 5677. */
#ifndef SL_INFER_DRY_H
#define SL_INFER_DRY_H

#include "sllm.h"
#include "text/tokenizer.h"

/* Tokens that a repetition is not followed across: the ids that end "\n", ":", "\"" and "*" in a text. */
#define SL_DRY_BREAKERS 4
typedef struct sl_dry_breakers {
    int32_t ids[SL_DRY_BREAKERS];
    int n;
} sl_dry_breakers;

sllm_status sl_dry_breakers_find(const sl_tokenizer *tokenizer, sl_dry_breakers *breakers, sllm_error *error);

/* Subtracts multiplier * base ^ (match - allowed_length) from the logit of each token that has followed the
 * same `match` >= allowed_length tokens which end the history now. Matches are followed for 50 tokens, or for
 * allowed_length + 25 where that is more.
 * history [n]; longest [n_vocab] is scratch, zero before and after. */
void sl_dry_apply(const sllm_sampler_params *params, const sl_dry_breakers *breakers, const int32_t *history, size_t n,
                  uint32_t *longest, float *logits);

#endif
