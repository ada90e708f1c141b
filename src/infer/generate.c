#include "infer/generate.h"

#include "base/clock.h"
#include "base/error.h"
#include "infer/speculate.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- parameters */

sllm_status sl_generate_check(const sllm_generate_params *p, int32_t n_vocab, sllm_error *error) {
    sllm_status status = sl_sampler_check(&p->sampler, n_vocab, error);
    if (status) return status;
    if (p->max_new_tokens < 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "max_new_tokens is %d: it must be 0 or more", p->max_new_tokens);
    if (p->n_logprobs < -1 || p->n_logprobs > 100)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_logprobs is %d: it must lie in [-1, 100]", p->n_logprobs);
    if (p->n_keep < 0) return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_keep is %d: it must be 0 or more", p->n_keep);
    if (p->overflow < SLLM_OVERFLOW_ERROR || p->overflow > SLLM_OVERFLOW_SHIFT)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "overflow is %d: it must be one of sllm_overflow", (int)p->overflow);
    if (p->reasoning < SLLM_REASONING_SHOW || p->reasoning > SLLM_REASONING_HIDE)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "reasoning is %d: it must be one of sllm_reasoning",
                       (int)p->reasoning);
    if (p->speculation < SLLM_SPECULATION_OFF || p->speculation > SLLM_SPECULATION_DRAFT)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "speculation is %d: it must be one of sllm_speculation",
                       (int)p->speculation);
    if (p->speculation == SLLM_SPECULATION_DRAFT && !p->draft)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "speculation is DRAFT but draft, the session of a small model, is NULL");
    if (p->n_choices > 0 && !p->choices)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: n_choices is %zu but choices is NULL", p->n_choices);
    if (p->n_choices > 0 && p->n_stop > 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "stop and choices are both given: an answer that is exactly one choice has no stop strings");
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the loop */

/* What one generation works with. */
typedef struct run {
    sl_session *session;
    sl_cancel cancel;
    sl_turn turn;
    sl_speculator speculator;
    float *rows; /* [SL_TURN_ROWS, n_vocab] when several logits were wanted at once */
} run;

/* Makes the session hold what is wanted. *logits: [want.n_logits, n_vocab], good until the session changes. */
static sllm_status compute(run *r, const sl_want *want, const float **logits, sllm_error *error) {
    sllm_status status;
    if (r->turn.phase == SL_TURN_PROMPT)
        status = sl_session_sync(r->session, want->ids, want->n, r->cancel, &r->turn.out->reused_tokens, error);
    else if (want->n_logits == 1) {
        sl_session_truncate(r->session, want->keep);
        status = sl_session_append(r->session, want->ids, want->n, r->cancel, error);
    } else {
        size_t bytes = SL_TURN_ROWS * (size_t)r->session->model->config.n_vocab * sizeof *r->rows;
        if (!r->rows) r->rows = malloc(bytes);
        if (!r->rows) return sl_fail_memory(error, "computing several tokens at once", bytes);
        *logits = r->rows;
        return sl_session_rows(r->session, want->keep, want->ids, want->n, r->rows, r->cancel, error);
    }
    *logits = sl_session_logits(r->session);
    return status;
}

static sllm_status step(run *r, sllm_error *error) {
    sl_want want;
    const float *logits;
    const sllm_generation *out = r->turn.out;
    sllm_status status = sl_speculator_propose(&r->speculator, &r->turn, r->cancel, error);
    double began = sl_clock();
    bool answers = r->turn.phase == SL_TURN_ANSWER;
    size_t accepted = out->accepted_tokens;
    sl_turn_want(&r->turn, &want);
    if (!status) status = compute(r, &want, &logits, error);
    double seconds = sl_clock() - began;
    if (!status) status = sl_turn_take(&r->turn, logits, error);
    if (!status && answers && want.n == want.n_logits)
        sl_speculator_note(&r->speculator, want.n - 1, out->accepted_tokens - accepted, seconds);
    return status;
}

sllm_status sl_generate(sl_session *session, const int32_t *ids, size_t n, const sllm_generate_params *params,
                        sllm_generation *out, sllm_error *error) {
    run r = {.session = session, .cancel = {params->is_cancelled, params->user}};
    if (params->speculation == SLLM_SPECULATION_DRAFT && params->draft == session) {
        *out = (sllm_generation){.choice = -1};
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "draft is the session itself: it must be one of its own");
    }
    size_t rows = session->rows, draft_rows = params->draft ? params->draft->rows : 0;
    sllm_status status =
        sl_turn_begin(&r.turn, session->model, sl_session_capacity(session), ids, n, params, out, error);
    if (!status) status = sl_speculator_init(&r.speculator, params, error);
    while (!status && !r.turn.done) status = step(&r, error);
    if (status == SLLM_ERROR_CANCELLED) { /* what was made so far is the result */
        if (error) *error = (sllm_error){0};
        sl_turn_cancel(&r.turn);
        status = SLLM_OK;
    }
    if (!status) status = sl_turn_finish(&r.turn, error);
    /* proposals that were not drawn do not stay */
    if (!status && r.turn.phase == SL_TURN_ANSWER) sl_session_truncate(session, r.turn.keep);
    out->rows = session->rows - rows;
    if (params->draft) out->draft_rows = params->draft->rows - draft_rows;
    sl_speculator_free(&r.speculator);
    sl_turn_free(&r.turn);
    free(r.rows);
    if (status) sl_generation_free(out);
    return status;
}

void sl_generation_free(sllm_generation *generation) {
    free(generation->text);
    free(generation->reasoning);
    free(generation->ids);
    free(generation->logprobs);
    free(generation->alternatives);
    free(generation->choice_probabilities);
    *generation = (sllm_generation){.choice = -1};
}
