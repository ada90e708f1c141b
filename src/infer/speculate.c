#include "infer/speculate.h"

#include "base/clock.h"
#include "base/error.h"

#include <math.h>
#include <string.h>

enum { MATCH_LEAST = 2, MATCH_MOST = 16, RETRY_AFTER = 32, KIND_DRAFT = SL_SPECULATE_KINDS - 1 };

/* Allowed losses in rows: so many to begin with, where a guess of that kind is likely right, and so many for each token. */
static const double ALLOWANCE[SL_SPECULATE_KINDS] = {0, 0, 1, 2}, ALLOWANCE_A_TOKEN = 0.03;
/* Of the time saved so far so much may be put at risk. */
static const double STAKE = 0.5;
/* Where it pays, it must pay by this much: measured times are not exact. */
static const double MARGIN = 1.05;

/* ---------------------------------------------------------------- life */

sllm_status sl_speculator_init(sl_speculator *s, const sllm_generate_params *p, sllm_error *error) {
    *s = (sl_speculator){.way = p->speculation, .draft = p->draft, .slope = 0.4,
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

sllm_status sl_speculate_check(const sl_model *model, const sl_model *draft, sllm_error *error) {
    const sl_tokenizer *a = model->tokenizer, *b = draft->tokenizer;
    if (!a || !b)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s has no tokenizer, so its tokens cannot be compared",
                       a ? draft->path : model->path);
    int32_t n_a = sl_tokenizer_size(a), n_b = sl_tokenizer_size(b), n = n_a < n_b ? n_a : n_b;
    for (int32_t id = 0; id < n; id++) {
        const char *x = sl_tokenizer_text(a, id), *y = sl_tokenizer_text(b, id);
        if (x == y || (x && y && !strcmp(x, y))) continue;
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "the draft %s has another vocabulary than %s: token %d is '%.40s' there and '%.40s' here; take a "
                       "smaller model of the same family",
                       draft->path, model->path, id, y ? y : "", x ? x : "");
    }
    if (n_a == n_b) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT,
                   "the draft %s has another vocabulary than %s: %d tokens, and %d here; token %d is the first that one "
                   "lacks",
                   draft->path, model->path, n_b, n_a, n);
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

/* What k wrong guesses would lose is covered, by time saved before or by the allowance. */
static bool covered(const sl_speculator *s, int kind, size_t k) {
    double draft = draft_cost(s) * (double)k;
    if (STAKE * s->saved >= cost(s, k) - 1 + draft) return true;
    return s->lost + (double)k + draft <= ALLOWANCE[kind] + ALLOWANCE_A_TOKEN * (double)s->tokens;
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
    if (chosen == 0 && most > 0 && s->since >= RETRY_AFTER && covered(s, kind, 1)) return 1; /* the text may have changed */
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

/* The draft goes on from the turn's history, and draws as the big model is about to. */
static sllm_status propose_draft(sl_speculator *s, sl_turn *turn, size_t most, sl_cancel cancel, sllm_error *error) {
    int32_t guesses[SL_TURN_PROPOSALS];
    size_t n = turn->history.length, reused, k, made = 0;
    /* A timeline that was shifted is no longer the history. */
    if (turn->shifted > 0 || n + most > sl_session_capacity(s->draft)) s->stands_aside = true;
    if (s->stands_aside) return SLLM_OK;
    s->kind = KIND_DRAFT;
    k = choose(s, KIND_DRAFT, most);
    if (k == 0) return SLLM_OK;
    s->draws->rng = turn->sampler->rng;
    sllm_status status = sl_session_sync(s->draft, turn->history.data, n, cancel, &reused, error);
    while (!status && made < k) {
        status = sl_sampler_draw(s->draws, sl_session_logits(s->draft), NULL, sl_kv_ids(s->draft->kv),
                                 sl_session_length(s->draft), &guesses[made], error);
        if (!status && ++made < k) status = sl_session_append(s->draft, &guesses[made - 1], 1, cancel, error);
    }
    if (!status) sl_turn_propose(turn, guesses, made);
    return status;
}

sllm_status sl_speculator_propose(sl_speculator *s, sl_turn *turn, sl_cancel cancel, sllm_error *error) {
    size_t most = sl_turn_proposable(turn);
    sllm_status status = SLLM_OK;
    s->guess_seconds = 0;
    if (most == 0 || s->way == SLLM_SPECULATION_OFF) return SLLM_OK;
    if (s->way == SLLM_SPECULATION_LOOKUP) {
        propose_lookup(s, turn, most);
    } else {
        double began = sl_clock();
        status = propose_draft(s, turn, most, cancel, error);
        if (status && status != SLLM_ERROR_CANCELLED) sl_error_prefix(error, status, "the draft model");
        if (turn->n_proposals > 0) s->guess_seconds = sl_clock() - began;
    }
    return status;
}

/* ---------------------------------------------------------------- what became of them */

/* A running average that one slow moment (a core lost to others) moves only so far. */
static void average(double *of, double value) {
    if (*of == 0) *of = value;
    else *of += 0.2 * (fmin(value, 3 * *of) - *of);
}

void sl_speculator_note(sl_speculator *s, size_t proposed, size_t accepted, double seconds) {
    s->tokens += accepted + 1;
    average(&s->seconds[1 + proposed], seconds);
    if (proposed == 0) {
        s->since++;
        return;
    }
    double one = s->seconds[1], *right = &s->right[s->kind];
    s->since = 0;
    if (one > 0) s->slope += 0.2 * (fmin(fmax((seconds / one - 1) / (double)proposed, 0), 2) - s->slope);
    for (size_t i = 0; i < accepted; i++) *right += 0.1 * (1 - *right);
    if (accepted < proposed) *right -= 0.1 * *right;
    if (s->guess_seconds > 0) average(&s->draft_seconds, s->guess_seconds / (double)proposed);
    double draft = draft_cost(s) * (double)proposed;
    s->saved += (double)(accepted + 1) - cost(s, proposed) - draft;
    s->lost += (double)(proposed - accepted) + draft;
}
