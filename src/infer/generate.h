/* Generation: the loop that draws tokens after a prompt until something ends it. The contract is sllm_generate's in
 * include/sllm.h; here is what it leaves open:
 *
 * - The prompt and the answer together never pass n_ctx, so that a next turn can begin with them.
 * - Afterwards the session holds the prompt and the answer but for its last token, after which nothing had to be
 *   computed (after an end token: all of the answer). The next turn's synchronisation computes that one first.
 * - TRUNCATE_START drops only when the prompt does not fit, and then leaves room for max_new_tokens, though for no more
 *   than half of the context. SHIFT drops the older half of what follows the first n_keep tokens and computes the rest
 *   afresh at its new positions. For both n_keep must be at most half of the context.
 * - With choices the sampler's temperature and seed choose among them; its other parameters do not apply. */
#ifndef SL_INFER_GENERATE_H
#define SL_INFER_GENERATE_H

#include "infer/session.h"

/* SLLM_ERROR_ARGUMENT naming the parameter and its range. */
sllm_status sl_generate_check(const sllm_generate_params *params, int32_t n_vocab, sllm_error *error);

/* ids [n], n >= 1; params checked here. On failure *out owns nothing; the session holds what was computed. */
sllm_status sl_generate(sl_session *session, const int32_t *ids, size_t n, const sllm_generate_params *params,
                        sllm_generation *out, sllm_error *error);
void sl_generation_free(sllm_generation *generation);

#endif
