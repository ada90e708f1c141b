#include "infer/speculate.h"

#include "base/clock.h"
#include "base/error.h"
#include "infer/prefix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MATCH_LEAST = 2, MATCH_MOST = 16, RETRY_AFTER = 32, KIND_DRAFT = SL_SPECULATE_KINDS - 1 };

/* A draft's catching up is computed in pieces, the first of them small: they show what the rest will take. */
enum { CATCH_UP_FIRST = 16, CATCH_UP_PIECE = 256, CATCH_UP_TRIED = 2 };

/* Allowed losses in forwards, by kind of guess: so many to begin with, where it is likely right, and so many for each
 * token of the answer. speculate.h adds them up. */
static const double ALLOWANCE[SL_SPECULATE_KINDS] = {0, 0, 1, 2};
static const double ALLOWANCE_A_TOKEN[SL_SPECULATE_KINDS] = {0.03, 0.03, 0.03, 0.02};
/* What catching up may take, in forwards for each token that the answer may have. */
static const double CATCH_UP = 0.03;
/* Of the time saved so far so much may be put at risk. */
static const double STAKE = 0.5;
/* Where it pays, it must pay by this much: measured times are not exact. */
static const double MARGIN = 1.05;

/* ---------------------------------------------------------------- life */

sllm_status sl_speculator_init(sl_speculator *s, const sllm_generate_params *p, sllm_error *error) {
    *s = (sl_speculator){.way = p->speculation, .draft = p->draft, .clock = sl_clock, .slope = 0.4,
                         .right = {0.4, 0.6, 0.8, 0.7}, .since = RETRY_AFTER};
    if (s->way != SLLM_SPECULATION_DRAFT) return SLLM_OK;
    const sl_model *model = s->draft->model;
    sllm_sampler_params sampler = p->sampler;
    /* A bias on ids that only the big model has (rows that pad its matrix) has no place here. */
    for (size_t i = 0; i < p->sampler.n_bias; i++)
        if (p->sampler.bias[i].id >= model->config.n_vocab) sampler.n_bias = 0;
    return sl_sampler_new(model->tokenizer, model->config.n_vocab, &sampler, &s->draws, error);
}

void sl_speculator_free(sl_speculator *s) {
    sl_sampler_free(s->draws);
    *s = (sl_speculator){0};
}

/* The text of a token; NULL where the vocabulary has none there, or only fills its matrix up ("[PAD151936]"). */
static const char *real_text(const sl_tokenizer *tokenizer, int32_t id) {
    char padding[24];
    const char *text = id < sl_tokenizer_size(tokenizer) ? sl_tokenizer_text(tokenizer, id) : NULL;
    snprintf(padding, sizeof padding, "[PAD%d]", id);
    return text && *text && strcmp(text, padding) != 0 ? text : NULL;
}

sllm_status sl_speculate_check(const sl_model *model, const sl_model *draft, sllm_error *error) {
    const sl_tokenizer *a = model->tokenizer, *b = draft->tokenizer;
    if (!a || !b)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s has no tokenizer, so its tokens cannot be compared",
                       a ? draft->path : model->path);
    int32_t n_a = sl_tokenizer_size(a), n_b = sl_tokenizer_size(b), n = n_a < n_b ? n_a : n_b;
    for (int32_t id = 0; id < n; id++) {
        const char *x = real_text(a, id), *y = real_text(b, id);
        if (!x || !y || !strcmp(x, y)) continue;
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "the draft %s has another vocabulary than %s: token %d is '%.40s' there and '%.40s' here; "
                       "take a smaller model of the same family",
                       draft->path, model->path, id, y, x);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- look-up */

const int32_t *sl_speculate_lookup(const int32_t *ids, size_t n, size_t most, size_t *length, size_t *match) {
    const int32_t *best = NULL;
    *match = MATCH_LEAST - 1;
    *length = 0;
    if (n < MATCH_LEAST + 1) return NULL;
    const int32_t last = ids[n - 1];
    for (size_t end = n - 1; end >= MATCH_LEAST && *match < MATCH_MOST; end--) { /* ids[end - 1] as the last */
        if (ids[end - 1] != last) continue;
        size_t same = 1;
        while (same < end && same < MATCH_MOST && ids[end - 1 - same] == ids[n - 1 - same]) same++;
        if (same > *match) *match = same, best = ids + end;
    }
    if (!best) return NULL;
    size_t there = (size_t)(ids + n - best);
    *length = there < most ? there : most;
    return best;
}

/* ---------------------------------------------------------------- how many */

/* A running average that one slow moment (a core lost to others) moves only so far. */
static void average(double *of, double value) {
    if (*of == 0) *of = value;
    else *of += 0.2 * (fmin(value, 3 * *of) - *of);
}

/* A forward of 1 + k rows, in forwards of one row. */
static double cost(const sl_speculator *s, size_t k) {
    double one = s->seconds[1], measured = s->seconds[1 + k];
    double guessed = 1 + s->slope * (double)k;
    return one > 0 && measured > 0 ? fmax(measured / one, 1) : guessed;
}

/* One guess of the draft, in forwards of one row. */
static double draft_cost(const sl_speculator *s) {
    if (s->way != SLLM_SPECULATION_DRAFT) return 0;
    return s->seconds[1] > 0 && s->draft_seconds > 0 ? s->draft_seconds / s->seconds[1] : 0.3;
}

/* Catching up that takes so many forwards has its share of the answer, or is covered by time saved before. */
static bool may_catch_up(const sl_speculator *s, double forwards) {
    return s->caught_up + forwards < CATCH_UP * s->expected + STAKE * fmax(s->saved, 0);
}

static void pay_catch_up(sl_speculator *s, double forwards) {
    double share = fmin(forwards, fmax(CATCH_UP * s->expected - s->caught_up, 0));
    s->caught_up += share;
    s->saved -= forwards - share;
}

/* What k wrong guesses would lose is covered, by time saved before or by the allowance. */
static bool covered(const sl_speculator *s, int kind, size_t k) {
    double draft = draft_cost(s) * (double)k;
    if (STAKE * s->saved >= cost(s, k) - 1 + draft) return true;
    return s->lost + (double)k + draft <= ALLOWANCE[kind] + ALLOWANCE_A_TOKEN[kind] * (double)s->tokens;
}

/* The number of guesses, at most `most`, that promises the most tokens a second; 0 where none pays. */
static size_t choose(const sl_speculator *s, int kind, size_t most) {
    double expected = 1, chance = 1, best = MARGIN;
    size_t chosen = 0;
    for (size_t k = 1; k <= most; k++) {
        expected += chance *= s->right[kind];
        double speed = expected / (cost(s, k) + draft_cost(s) * (double)k);
        if (speed > best && covered(s, kind, k)) best = speed, chosen = k;
    }
    /* Where none pays one is tried now and then: the text may have changed. */
    if (chosen == 0 && most > 0 && s->since >= RETRY_AFTER && covered(s, kind, 1)) return 1;
    return chosen;
}

/* ---------------------------------------------------------------- guesses */

static void propose_lookup(sl_speculator *s, sl_turn *turn, size_t most) {
    size_t length, match;
    const int32_t *ids = sl_speculate_lookup(turn->history.data, turn->history.length, most, &length, &match);
    if (!ids) return;
    s->kind = match > 3 ? 2 : (int)match - MATCH_LEAST;
    sl_turn_propose(turn, ids, choose(s, s->kind, length));
}

/* Makes the draft hold all of ids [n] but the last position or two, which the next guess computes. The price of this is
 * no guess's: it is paid once for what was said without the draft. Where it is too much the draft stands aside. */
static sllm_status catch_up(sl_speculator *s, const int32_t *ids, size_t n, sl_cancel cancel, sllm_error *error) {
    double one = s->seconds[1];
    size_t held = sl_session_length(s->draft), at = sl_prefix_common(sl_kv_ids(s->draft->kv), held, ids, n - 1);
    sllm_status status = SLLM_OK;
    for (size_t i = at; i < n; i++)
        if (ids[i] >= s->draft->model->config.n_vocab) s->stands_aside = true; /* a token that the draft lacks */
    while (!status && !s->stands_aside && n - at > 2) {
        bool tried = s->pieces >= CATCH_UP_TRIED; /* the first may still lay out weights */
        size_t left = n - 1 - at, piece = tried ? CATCH_UP_PIECE : CATCH_UP_FIRST;
        if (piece > left) piece = left;
        if (!may_catch_up(s, tried ? s->row_seconds * (double)left / one : 0)) {
            s->stands_aside = true;
            break;
        }
        double began = s->clock();
        sl_session_truncate(s->draft, at);
        status = sl_session_append(s->draft, ids + at, piece, cancel, error);
        double seconds = s->clock() - began, row = seconds / (double)piece;
        pay_catch_up(s, seconds / one);
        s->row_seconds = s->pieces++ == 0 ? row : fmin(row, s->row_seconds);
        at += piece;
    }
    if (!s->stands_aside) sl_session_truncate(s->draft, at);
    return status;
}

/* Draws guesses [k] behind ids [n], *made of them. */
static sllm_status draw_guesses(sl_speculator *s, const int32_t *ids, size_t n, int32_t *guesses, size_t k,
                                size_t *made, sl_cancel cancel, sllm_error *error) {
    size_t held = sl_session_length(s->draft);
    double began = s->clock();
    sllm_status status = sl_session_append(s->draft, ids + held, n - held, cancel, error);
    while (!status && *made < k) {
        status = sl_sampler_draw(s->draws, sl_session_logits(s->draft), NULL, sl_kv_ids(s->draft->kv),
                                 sl_session_length(s->draft), &guesses[*made], error);
        if (!status && ++*made < k) status = sl_session_append(s->draft, &guesses[*made - 1], 1, cancel, error);
    }
    if (status) return status;
    double seconds = s->clock() - began, forwards = seconds / s->seconds[1];
    average(&s->draft_seconds, seconds / (double)k);
    s->saved -= forwards;
    s->lost += forwards;
    return SLLM_OK;
}

/* The draft goes on from the turn's history, and draws as the big model is about to. */
static sllm_status propose_draft(sl_speculator *s, sl_turn *turn, size_t most, sl_cancel cancel, sllm_error *error) {
    int32_t guesses[SL_TURN_PROPOSALS];
    const int32_t *ids = turn->history.data;
    size_t n = turn->history.length, made = 0, k;
    /* A timeline that was shifted is no longer the history. */
    if (turn->shifted > 0 || n + most > sl_session_capacity(s->draft)) s->stands_aside = true;
    if (s->stands_aside || s->seconds[1] == 0) return SLLM_OK; /* 0: what a token takes is not known yet */
    s->kind = KIND_DRAFT;
    s->expected = (double)(sl_turn_longest(turn) - turn->n_prompt);
    k = choose(s, KIND_DRAFT, most);
    if (k == 0) return SLLM_OK;
    sllm_status status = catch_up(s, ids, n, cancel, error);
    if (status || s->stands_aside) return status;
    s->since = 0;
    s->draws->rng = turn->sampler->rng;
    status = draw_guesses(s, ids, n, guesses, k, &made, cancel, error);
    if (!status) sl_turn_propose(turn, guesses, made);
    return status;
}

sllm_status sl_speculator_propose(sl_speculator *s, sl_turn *turn, sl_cancel cancel, sllm_error *error) {
    size_t most = sl_turn_proposable(turn);
    if (most == 0 || s->way == SLLM_SPECULATION_OFF) return SLLM_OK;
    if (s->way == SLLM_SPECULATION_LOOKUP) {
        propose_lookup(s, turn, most);
        return SLLM_OK;
    }
    sllm_status status = propose_draft(s, turn, most, cancel, error);
    if (status && status != SLLM_ERROR_CANCELLED) sl_error_prefix(error, status, "the draft model");
    return status;
}

/* ---------------------------------------------------------------- what became of them */

void sl_speculator_note(sl_speculator *s, size_t proposed, size_t accepted, double seconds) {
    double one = s->seconds[1], *right = &s->right[s->kind];
    s->tokens += accepted + 1;
    if (seconds > 0) average(&s->seconds[1 + proposed], seconds);
    if (proposed == 0) {
        s->since++;
        return;
    }
    s->since = 0;
    if (one > 0 && seconds > 0)
        s->slope += 0.2 * (fmin(fmax((seconds / one - 1) / (double)proposed, 0), 2) - s->slope);
    for (size_t i = 0; i < accepted; i++) *right += 0.1 * (1 - *right);
    if (accepted < proposed) *right -= 0.1 * *right;
    s->saved += (double)(accepted + 1) - cost(s, proposed);
    s->lost += (double)(proposed - accepted);
}
