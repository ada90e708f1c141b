/* Speculation: guessing the next tokens, so that several are computed in one forward (turn.h says why the answer stays
 * the same). Two ways to guess:
 *
 * - Look-up: what followed the last tokens when they stood together before, in the prompt or the answer (prompt look-up
 *   decoding, A. Saxena 2023; Yang et al. 2023, arXiv 2304.04487). Costs nothing to try.
 * - A draft: a smaller model of the same vocabulary draws them, with the very random numbers that the big one will use
 *   (Leviathan et al. 2023, arXiv 2211.17192, where the big model's check keeps the distribution; here the answer).
 *
 * How many are guessed is decided anew for every token from what was measured in this answer: how often guesses were
 * right, and how much longer a forward of so many rows takes than one of one row. Guesses must pay for themselves: they
 * are made when half of the time saved so far covers the loss if they are wrong, and otherwise from an allowance. So a
 * text that cannot be guessed costs at most, in forwards of one row (which a row beside others never exceeds):
 *
 * - look-up: 1, and 3 for every 100 tokens of the answer;
 * - a draft: 2, and 2 for every 100 tokens, its own time for guesses included; and for catching up (its prefill of the
 *   prompt, and later of tokens that were made without it) 3 for every 100 tokens that the answer may have.
 *
 * Catching up is paid once and is no part of the price of a guess. What it will take is reckoned from its first two
 * pieces of 16 tokens; where that is too much, the draft stands aside for the rest of the answer. What is not bounded:
 * these 32 rows; the draft's first guess, whose price is not known before; and an answer that ends long before
 * max_new_tokens has paid the catching up of a long one. All rows are counted: sllm_generation's rows, draft_rows. */
#ifndef SL_INFER_SPECULATE_H
#define SL_INFER_SPECULATE_H

#include "infer/session.h"
#include "infer/turn.h"

enum { SL_SPECULATE_KINDS = 4 }; /* of guesses, by how sure they are: matches of 2, 3, and more tokens; the draft's */

typedef struct sl_speculator {
    sllm_speculation way;
    sl_session *draft;       /* not owned */
    sl_sampler *draws;       /* of the draft */
    bool stands_aside;       /* the draft cannot follow (its context, a token it lacks, its price): no more guesses */
    double (*clock)(void);   /* seconds; sl_clock, but in tests */
    double right[SL_SPECULATE_KINDS];     /* how often a guess of this kind is, running average */
    double seconds[SL_TURN_ROWS + 1];     /* of a forward of so many rows, running average; 0: not measured */
    double slope;            /* a further row's time in forwards of one row, running average */
    double draft_seconds;    /* of one guess of the draft, running average */
    double saved;            /* by guesses so far, less their cost, in forwards of one row */
    double lost;             /* rows computed for nothing, and the draft's time for guesses, in forwards of one row */
    double expected;         /* tokens that the answer may have */
    double caught_up;        /* the draft's time for catching up that its share of `expected` paid, in forwards */
    int pieces;              /* of catching up, so far */
    double row_seconds;      /* of a row of the quickest of them */
    size_t tokens, since;    /* of the answer; since the last guess */
    int kind;                /* of the guess under way */
} sl_speculator;

/* params: speculation and draft, and the sampler for the draft's draws. Free with sl_speculator_free, also when
 * zeroed. */
sllm_status sl_speculator_init(sl_speculator *speculator, const sllm_generate_params *params, sllm_error *error);
void sl_speculator_free(sl_speculator *speculator);

/* Guesses into the turn's next want, or does not. Fails only as the draft's forward does, without harm to the turn. */
sllm_status sl_speculator_propose(sl_speculator *speculator, sl_turn *turn, sl_cancel cancel, sllm_error *error);
/* After a want of 1 + proposed rows was taken: its forward took `seconds` (0: it was not alone in its forward), and
 * `accepted` of the guesses were drawn. */
void sl_speculator_note(sl_speculator *speculator, size_t proposed, size_t accepted, double seconds);

/* What followed the longest earlier occurrence of the last tokens of ids [n] (2 to 16 of them; of equally long ones the
 * latest): a pointer into ids, *length of them up to `most`; *match: tokens alike. NULL: they never stood so. */
const int32_t *sl_speculate_lookup(const int32_t *ids, size_t n, size_t most, size_t *length, size_t *match);

/* SLLM_ERROR_ARGUMENT naming the first token that both vocabularies have and that differs. Entries that only pad a
 * matrix, and those behind the end of the shorter vocabulary, are no tokens that both have. */
sllm_status sl_speculate_check(const sl_model *model, const sl_model *draft, sllm_error *error);

#endif
