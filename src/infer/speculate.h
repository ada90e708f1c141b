/* Speculation: guessing the next tokens, so that several are computed in one forward (turn.h says why the answer stays the
 * same). Two ways to guess:
 *
 * - Look-up: what followed the last tokens when they stood together before, in the prompt or the answer (prompt look-up
 *   decoding, A. Saxena 2023; Yang et al. 2023, arXiv 2304.04487). Costs nothing to try.
 * - A draft: a smaller model of the same vocabulary draws them, with the very random numbers that the big one will use
 *   (Leviathan et al. 2023, arXiv 2211.17192, where the big model's check keeps the distribution; here the answer).
 *
 * How many are guessed is decided anew for every token from what was measured in this answer: how often guesses were
 * right, and how much longer a forward of so many rows takes than one of one row. Guesses must pay for themselves: one is
 * made when half of the time saved so far covers the loss if it is wrong, and otherwise only from an allowance of one row
 * (a draft: two) and one for every 33 tokens of the answer. So a text that cannot be guessed costs at most that. */
#ifndef SL_INFER_SPECULATE_H
#define SL_INFER_SPECULATE_H

#include "infer/session.h"
#include "infer/turn.h"

enum { SL_SPECULATE_KINDS = 4 }; /* of guesses, by how sure they are: matches of 2, 3, and more tokens; the draft's */

typedef struct sl_speculator {
    sllm_speculation way;
    sl_session *draft;       /* not owned */
    sl_sampler *draws;       /* of the draft */
    bool stands_aside;       /* the draft cannot follow (its context is too small): no more guesses */
    double right[SL_SPECULATE_KINDS];     /* how often a guess of this kind is, running average */
    double seconds[SL_TURN_ROWS + 1];     /* of a forward of so many rows, running average; 0: not measured */
    double slope;            /* a further row's time in forwards of one row, running average */
    double draft_seconds;    /* of one guess of the draft, running average */
    double saved;            /* by guesses so far, less their cost, in forwards of one row */
    double lost;             /* rows computed for nothing, and the draft's time in forwards of one row */
    size_t tokens, since;    /* of the answer; since the last guess */
    int kind;                /* of the guess under way */
    double guess_seconds;    /* what it took to make it */
} sl_speculator;

/* params: speculation and draft, and the sampler for the draft's draws. Free with sl_speculator_free, also when zeroed. */
sllm_status sl_speculator_init(sl_speculator *speculator, const sllm_generate_params *params, sllm_error *error);
void sl_speculator_free(sl_speculator *speculator);

/* Guesses into the turn's next want, or does not. Fails only as the draft's forward does, without harm to the turn. */
sllm_status sl_speculator_propose(sl_speculator *speculator, sl_turn *turn, sl_cancel cancel, sllm_error *error);
/* After a want of 1 + proposed rows was taken: its forward took `seconds`, and `accepted` of the guesses were drawn. */
void sl_speculator_note(sl_speculator *speculator, size_t proposed, size_t accepted, double seconds);

/* What followed the longest earlier occurrence of the last tokens of ids [n] (2 to 16 of them; of equally long ones the
 * latest): a pointer into ids, *length of them up to `most`; *match: tokens alike. NULL: they never stood so. */
const int32_t *sl_speculate_lookup(const int32_t *ids, size_t n, size_t most, size_t *length, size_t *match);

/* SLLM_ERROR_ARGUMENT naming the first token in which the two vocabularies differ. */
sllm_status sl_speculate_check(const sl_model *model, const sl_model *draft, sllm_error *error);

#endif
