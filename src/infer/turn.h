/* One answer being made, apart from whoever computes its logits: a session alone (generate.c) or an engine that drives
 * many (engine.c). The contract is sllm_generate's in include/sllm.h, with what generate.h adds to it.
 *
 * The driver's part is a dialogue. While the turn is not done, sl_turn_want says what the timeline must hold next and
 * of which positions it wants the logits; the driver makes it so, in as many pieces as it likes, and hands the logits
 * to sl_turn_take. How it came by them (alone, in a batch, from a cache) shows nowhere in the answer.
 *
 *     sl_turn_begin; while (!turn.done) { [sl_turn_propose;] sl_turn_want; ... sl_turn_take; } sl_turn_finish
 *
 * Proposals (speculation): a driver that guesses the next tokens may have them computed together with the last one.
 * Each token is still drawn from the model's own logits, one draw a token in the same order; a proposal that was drawn
 * saves a step, and behind the first that was not the timeline is cut. So the answer is the same bytes with and
 * without, be it greedy or sampled. The idea is Leviathan et al. 2023 (arXiv 2211.17192), who accept by a ratio of
 * probabilities and so keep the distribution; drawing with the same random numbers keeps the very answer. */
#ifndef SL_INFER_TURN_H
#define SL_INFER_TURN_H

#include "infer/answer.h"
#include "infer/choices.h"
#include "infer/sampler.h"
#include "model/model.h"

enum { SL_TURN_PROPOSALS = 8, SL_TURN_ROWS = SL_TURN_PROPOSALS + 1 };

typedef enum sl_turn_phase {
    SL_TURN_PROMPT, /* the prompt is wanted */
    SL_TURN_SCORE,  /* with choices: each choice's tokens behind it */
    SL_TURN_AGAIN,  /* with choices: the prompt's last token again, now that one is chosen */
    SL_TURN_ANSWER
} sl_turn_phase;

/* What the timeline must hold: its first `keep` positions as they are, then ids [n >= 1]; and the logits of the last
 * n_logits of these, 1..SL_TURN_ROWS. When that is more than 1, n is n_logits. */
typedef struct sl_want {
    size_t keep;
    const int32_t *ids; /* borrowed until the turn changes */
    size_t n, n_logits;
} sl_want;

typedef struct sl_turn {
    const sl_model *model;
    const sllm_generate_params *params; /* borrowed, with what it points to */
    sllm_generation *out;
    size_t capacity;           /* positions of the timeline */
    sl_turn_phase phase;
    bool done;
    sl_sampler *sampler;
    sl_answer answer;
    sl_choices *choices;
    sl_constraint *constraint; /* NULL: anything may come. Not owned */
    uint64_t *mask;            /* [n_vocab bits] with a constraint */
    sl_ids history;            /* prompt as used, then the answer */
    size_t n_prompt;           /* of the history */
    size_t shifted;            /* the timeline is the history without these, which stood behind the first n_keep */
    size_t keep;               /* positions of the timeline whose computation holds good */
    int32_t step[SL_TURN_ROWS]; /* the last token, then the proposals */
    size_t n_proposals;
    bool has_drawn;            /* `drawn` is what the next draw will give */
    int32_t drawn;
    size_t room;               /* tokens that out's arrays hold */
    double start, prompt_done, first, last; /* seconds */
} sl_turn;

/* Checks params; ids [n >= 1] as sllm_generate takes them, all in the vocabulary. *out is filled as the answer comes
 * and belongs to the caller. After a failure *turn may only be given to sl_turn_free. */
sllm_status sl_turn_begin(sl_turn *turn, const sl_model *model, size_t capacity, const int32_t *ids, size_t n,
                          const sllm_generate_params *params, sllm_generation *out, sllm_error *error);
void sl_turn_free(sl_turn *turn); /* also of a zeroed turn; not *out */

void sl_turn_want(sl_turn *turn, sl_want *want);
/* May come before sl_turn_take with the same logits: does the part of its work that touches nothing but the turn, and
 * calls nobody, so that turns of one thread can do it in several at once. */
sllm_status sl_turn_draw_ahead(sl_turn *turn, const float *logits, sllm_error *error);
/* logits [want.n_logits, n_vocab]. A failure ends the turn without an answer. */
sllm_status sl_turn_take(sl_turn *turn, const float *logits, sllm_error *error);
/* Ends the answer where it stands, as a callback that said no would. */
void sl_turn_cancel(sl_turn *turn);
/* When done: hands over the texts. The generation in *out is whole then. */
sllm_status sl_turn_finish(sl_turn *turn, sllm_error *error);

/* Most tokens that a proposal may have now; 0 where the next want is not one token, and under a constraint. */
size_t sl_turn_proposable(const sl_turn *turn);
/* Adds ids [n <= sl_turn_proposable] to the next want. Those outside the vocabulary and all behind are left out. */
void sl_turn_propose(sl_turn *turn, const int32_t *ids, size_t n);
/* Positions that the timeline will have at most, what is wanted of it included. */
size_t sl_turn_longest(const sl_turn *turn);

#endif
