/* Exactly one of the given strings: the constraint seam's first user.
 *
 * The probability of a choice is well defined by its canonical tokens t_1..t_m (as the tokenizer writes it behind the
 * prompt): the probability that the model goes on from the prompt with just these, and then not with those of a longer
 * choice that begins with them,
 *
 *     p(choice) ~ prod_i p(t_i | prompt, t_1..t_{i-1}) * (1 - sum_u p(u | prompt, t_1..t_m)),
 *     u: the next tokens of the longer choices,
 *
 * normalised over the choices. The last factor is 1 unless a choice is the beginning of another ("1" and "10"); it
 * counts every way to end there, not the end token alone, as a prompt without turns ends an answer by other means. Ways
 * to write a choice in other tokens are not counted. Beginnings that choices share are computed once. */
#ifndef SL_INFER_CHOICES_H
#define SL_INFER_CHOICES_H

#include "base/rng.h"
#include "infer/constraint.h"

enum { SL_CHOICES_MAX = 65536 };

typedef struct sl_choices {
    sl_constraint constraint; /* must stay first: its operations get this struct */
    size_t n;
    sl_ids *ids;         /* [n] tokens of each choice */
    size_t *order;       /* [n] choices by their tokens, a beginning before what goes on from it */
    double *log_scores;  /* [n] before normalising */
    double *probabilities; /* [n] sum 1, after sl_choices_normalise */
    size_t rank, depth;    /* scoring: the next node, behind the first `depth` tokens of the rank-th choice in order */
    bool *alive;         /* [n] for the constraint: those that go with the tokens accepted */
    size_t position;     /* tokens accepted */
} sl_choices;

/* texts [n]: the choices, which will stand behind prompt [n_prompt]. SLLM_ERROR_ARGUMENT for an empty one, two that are
 * the same, or one that these tokens cannot write. Free with sl_choices_free. */
sllm_status sl_choices_new(const sl_tokenizer *tokenizer, const int32_t *prompt, size_t n_prompt,
                           const char *const *texts, size_t n, sl_choices **choices, sllm_error *error);
void sl_choices_free(sl_choices *choices);
size_t sl_choices_longest(const sl_choices *choices); /* in tokens */

/* Scoring is a dialogue with whoever computes. First sl_choices_take gets the one row of logits behind the prompt;
 * then, until sl_choices_scored, what sl_choices_want says: the timeline shall hold the prompt and `keep` tokens more
 * as it does, then ids [n], 1 <= n <= most, and sl_choices_take gets the logits of these n, [n, n_vocab].
 * SLLM_ERROR_FORMAT when the logits hold NaN. */
void sl_choices_want(const sl_choices *choices, size_t most, size_t *keep, const int32_t **ids, size_t *n);
sllm_status sl_choices_take(sl_choices *choices, const float *logits, size_t n, int32_t n_vocab, sllm_error *error);
bool sl_choices_scored(const sl_choices *choices);
/* When scored: the probabilities. */
sllm_status sl_choices_normalise(sl_choices *choices, sllm_error *error);

/* The most probable choice (the first of equals) at temperature 0, otherwise drawn with p^(1 / temperature); the
 * constraint then allows only that one. */
size_t sl_choices_pick(sl_choices *choices, double temperature, sl_rng *rng);

#endif
