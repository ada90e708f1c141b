#include "infer/generate.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "infer/answer.h"
#include "infer/choices.h"
#include "infer/continuation.h"
#include "infer/logprobs.h"
#include "infer/sampler.h"

#include <stdlib.h>
#include <string.h>

/* What one generation works with. */
typedef struct run {
    sl_session *session;
    const sl_model *model;
    const sllm_generate_params *params;
    sllm_generation *out;
    sl_cancel cancel;
    sl_sampler *sampler;
    sl_answer answer;
    sl_choices *choices;
    sl_constraint *constraint; /* NULL: anything may come. Not owned */
    uint64_t *mask;            /* [n_vocab bits] with a constraint */
    sl_ids history;            /* prompt as used, then the answer */
    size_t n_prompt;           /* of the history */
    size_t room;               /* tokens that out's arrays hold */
    double start, prompt_done, first, last; /* seconds */
} run;

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
    if (p->n_choices > 0 && !p->choices)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: n_choices is %zu but choices is NULL", p->n_choices);
    if (p->n_choices > 0 && p->n_stop > 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "stop and choices are both given: an answer that is exactly one choice has no stop strings");
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the context */

/* Copies the prompt into the history, without what the overflow policy drops. */
static sllm_status fit_prompt(run *r, const int32_t *ids, size_t n, sllm_error *error) {
    size_t capacity = sl_session_capacity(r->session), keep = (size_t)r->params->n_keep;
    size_t room = (size_t)r->params->max_new_tokens;
    if (r->params->overflow != SLLM_OVERFLOW_ERROR && keep > capacity / 2)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_keep is %zu: it must be at most half of the context of %zu", keep,
                       capacity);
    size_t drop = 0;
    bool may_drop = r->params->overflow != SLLM_OVERFLOW_ERROR && capacity > 1;
    bool fits = n < capacity || (n == capacity && room == 0);
    if (!fits && !may_drop)
        return sl_fail(error, SLLM_ERROR_CONTEXT,
                       "the prompt has %zu tokens and the context %zu, which leaves no room for an answer: "
                       "shorten it, make the context larger, or ask for an overflow policy",
                       n, capacity);
    if (room > capacity / 2) room = capacity / 2;
    /* Shifting makes room for an answer when it comes to that. */
    bool too_long = r->params->overflow == SLLM_OVERFLOW_SHIFT ? !fits : n > capacity - room;
    if (may_drop && too_long) drop = n - (capacity - room);
    r->out->dropped_tokens = drop;
    if (drop == 0) keep = 0;
    sllm_status status = sl_ids_append(&r->history, ids, keep, error);
    if (!status) status = sl_ids_append(&r->history, ids + keep + drop, n - keep - drop, error);
    r->n_prompt = r->history.length;
    return status;
}

/* Makes room behind a full context: the older half of what may go is dropped, the rest computed at its new place. */
static sllm_status shift(run *r, sllm_error *error) {
    size_t length = sl_session_length(r->session), keep = (size_t)r->params->n_keep;
    if (keep > length) keep = length;
    size_t drop = (length - keep + 1) / 2, reused;
    const int32_t *held = sl_kv_ids(r->session->kv);
    sl_ids kept = {0};
    sllm_status status = sl_ids_append(&kept, held, keep, error);
    if (!status) status = sl_ids_append(&kept, held + keep + drop, length - keep - drop, error);
    if (!status && kept.length == 0)
        status = sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %zu tokens is too small to shift",
                         sl_session_capacity(r->session));
    if (!status) status = sl_session_sync(r->session, kept.data, kept.length, r->cancel, &reused, error);
    if (!status) r->out->dropped_tokens += drop;
    free(kept.data);
    return status;
}

/* ---------------------------------------------------------------- set-up */

static sllm_status prepare_choices(run *r, sllm_error *error) {
    const sllm_generate_params *p = r->params;
    if (!r->model->tokenizer)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "choices need a tokenizer, which this model comes without");
    sllm_status status = sl_choices_new(r->model->tokenizer, r->history.data, r->history.length, p->choices,
                                        p->n_choices, &r->choices, error);
    if (status) return status;
    size_t longest = sl_choices_longest(r->choices), capacity = sl_session_capacity(r->session);
    if (longest > (size_t)p->max_new_tokens)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: the longest has %zu tokens but max_new_tokens is %d",
                       longest, p->max_new_tokens);
    if (longest > capacity - r->history.length)
        return sl_fail(error, SLLM_ERROR_CONTEXT,
                       "choices: the longest has %zu tokens, and the prompt leaves %zu of the context of %zu", longest,
                       capacity - r->history.length, capacity);
    r->constraint = &r->choices->constraint;
    size_t words = ((size_t)r->model->config.n_vocab + 63) / 64;
    r->mask = calloc(words, sizeof *r->mask);
    return r->mask ? SLLM_OK : sl_fail_memory(error, "preparing choices", words * sizeof *r->mask);
}

static sllm_status prepare(run *r, const int32_t *ids, size_t n, sllm_error *error) {
    /* Where a choice has been made before, the loop only follows it. */
    static const sllm_sampler_params follow = {
        .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .dry_base = 1};
    const sl_tokenizer *tokenizer = r->model->tokenizer;
    sllm_status status = fit_prompt(r, ids, n, error);
    if (!status)
        status = sl_sampler_new(tokenizer, r->model->config.n_vocab,
                                r->params->n_choices > 0 ? &follow : &r->params->sampler, &r->sampler, error);
    if (!status) status = sl_answer_init(&r->answer, tokenizer, r->params, r->history.data, r->history.length, error);
    if (!status && r->params->n_choices > 0) status = prepare_choices(r, error);
    return status;
}

/* Computes the prompt, and with choices decides. */
static sllm_status start(run *r, sllm_error *error) {
    sllm_generation *out = r->out;
    sllm_status status = SLLM_OK;
    size_t reused;
    if (r->choices) {
        status = sl_choices_score(r->choices, r->session, r->history.data, r->n_prompt, r->cancel, &out->reused_tokens,
                                  error);
        if (status) return status;
        out->choice_probabilities = malloc(r->choices->n * sizeof(double));
        if (!out->choice_probabilities)
            return sl_fail_memory(error, "giving the choices' probabilities", r->choices->n * 8);
        memcpy(out->choice_probabilities, r->choices->probabilities, r->choices->n * sizeof(double));
        sl_rng rng;
        sl_rng_seed(&rng, r->params->sampler.seed);
        out->choice = (int)sl_choices_pick(r->choices, r->params->sampler.temperature, &rng);
    }
    status = sl_session_sync(r->session, r->history.data, r->n_prompt, r->cancel, &reused, error);
    if (!r->choices) out->reused_tokens = reused;
    if (!status) r->prompt_done = sl_clock();
    return status;
}

/* ---------------------------------------------------------------- one token */

static bool is_end(const sl_model *model, int32_t id) {
    for (size_t i = 0; i < model->n_end_ids; i++)
        if (model->end_ids[i] == id) return true;
    return false;
}

/* The stop string that is exactly this special token, whose text never shows in the answer; NULL: none. */
static const char *stop_of_token(const run *r, int32_t id) {
    const sl_tokenizer *tokenizer = r->model->tokenizer;
    if (!r->params->n_stop || !tokenizer || !sl_tokenizer_is_special(tokenizer, id)) return NULL;
    const char *text = sl_tokenizer_text(tokenizer, id);
    for (size_t i = 0; text && i < r->params->n_stop; i++)
        if (!strcmp(r->params->stop[i], text)) return r->params->stop[i];
    return NULL;
}

/* Fills the mask. False: the text is complete and nothing may go on from it. */
static bool fill_mask(run *r) {
    if (!r->constraint) return true;
    int32_t n_vocab = r->model->config.n_vocab;
    size_t words = ((size_t)n_vocab + 63) / 64;
    memset(r->mask, 0, words * sizeof *r->mask);
    r->constraint->ops->mask(r->constraint, r->mask, n_vocab);
    if (!r->constraint->ops->is_complete(r->constraint)) return true;
    bool any = false;
    for (size_t i = 0; i < words; i++) any = any || r->mask[i];
    for (size_t i = 0; i < r->model->n_end_ids; i++) {
        int32_t id = r->model->end_ids[i];
        if (id >= 0 && id < n_vocab) r->mask[id / 64] |= (uint64_t)1 << (id % 64);
    }
    return any;
}

/* Makes room for one token more in out's arrays. */
static sllm_status grow(run *r, sllm_error *error) {
    sllm_generation *out = r->out;
    if (out->completion_tokens < r->room) return SLLM_OK;
    size_t room = r->room < 32 ? 32 : r->room * 2, bytes;
    size_t wide = r->params->n_logprobs > 0 ? (size_t)r->params->n_logprobs : 0;
    if (!sl_mul_size(room, sizeof(sllm_alternative) * (wide + 1), &bytes))
        return sl_fail_memory(error, "generating", SIZE_MAX);
    int32_t *ids = realloc(out->ids, room * sizeof *ids);
    if (!ids) return sl_fail_memory(error, "generating", room * sizeof *ids);
    out->ids = ids;
    if (r->params->n_logprobs >= 0) {
        float *logprobs = realloc(out->logprobs, room * sizeof *logprobs);
        if (!logprobs) return sl_fail_memory(error, "keeping log-probabilities", room * sizeof *logprobs);
        out->logprobs = logprobs;
    }
    if (wide > 0) {
        sllm_alternative *more = realloc(out->alternatives, room * wide * sizeof *more);
        if (!more) return sl_fail_memory(error, "keeping log-probabilities", room * wide * sizeof *more);
        out->alternatives = more;
    }
    r->room = room;
    return SLLM_OK;
}

/* Writes the token down and sends it on its way to the caller. */
static sllm_status record(run *r, int32_t id, const float *logits, sllm_error *error) {
    sllm_generation *out = r->out;
    sllm_event event = {.id = id};
    sllm_status status = grow(r, error);
    if (!status) status = sl_ids_push(&r->history, id, error);
    if (status) return status;
    size_t at = out->completion_tokens++;
    out->ids[at] = id;
    if (r->params->n_logprobs >= 0) {
        size_t n_vocab = (size_t)r->model->config.n_vocab, k = (size_t)r->params->n_logprobs;
        double log_sum = sl_log_sum_exp(logits, n_vocab);
        event.logprob = out->logprobs[at] = (float)(logits[id] - log_sum);
        if (k > 0) {
            sl_top_logprobs(logits, n_vocab, log_sum, &out->alternatives[at * k], k);
            event.alternatives = &out->alternatives[at * k];
            while (event.n_alternatives < k && event.alternatives[event.n_alternatives].id >= 0) event.n_alternatives++;
        }
    }
    return sl_answer_push(&r->answer, &event, error);
}

/* Puts the last token into the session, so that the next can be drawn. *full: there is no place for more. */
static sllm_status advance(run *r, bool *full, sllm_error *error) {
    sllm_status status = SLLM_OK;
    *full = false;
    if (sl_session_length(r->session) + 1 >= sl_session_capacity(r->session)) {
        *full = r->params->overflow != SLLM_OVERFLOW_SHIFT;
        if (*full) return SLLM_OK;
        status = shift(r, error);
    }
    if (!status) status = sl_session_append(r->session, &r->history.data[r->history.length - 1], 1, r->cancel, error);
    return status;
}

/* Draws until something ends it. SLLM_ERROR_CANCELLED: cut short. */
static sllm_status draw_all(run *r, sllm_error *error) {
    sllm_generation *out = r->out;
    sllm_status status = SLLM_OK;
    bool full = false;
    out->finish = SLLM_FINISH_LENGTH;
    fill_mask(r);
    while (!full && out->completion_tokens < (size_t)r->params->max_new_tokens) {
        const float *logits = sl_session_logits(r->session);
        int32_t id;
        status = sl_sampler_draw(r->sampler, logits, r->constraint ? r->mask : NULL, r->history.data, r->history.length,
                                 &id, error);
        if (status) return status;
        r->last = sl_clock();
        if (out->completion_tokens == 0) r->first = r->last;
        if ((out->stop = stop_of_token(r, id))) {
            out->finish = SLLM_FINISH_STOP;
            return SLLM_OK;
        }
        /* A constraint lets an end token come only where its text is complete, and then it is the end. */
        if (is_end(r->model, id) && (r->constraint || !r->params->ignore_end)) {
            out->finish = SLLM_FINISH_STOP;
            return SLLM_OK;
        }
        if (r->constraint && !r->constraint->ops->accept(r->constraint, id))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "the constraint refused token %d, which its mask allowed", id);
        status = record(r, id, logits, error);
        if (status) return status;
        if (r->answer.stopped >= 0 || !fill_mask(r)) {
            out->finish = SLLM_FINISH_STOP;
            return SLLM_OK;
        }
        if (r->answer.cancelled || (r->cancel.is_cancelled && r->cancel.is_cancelled(r->cancel.user)))
            return SLLM_ERROR_CANCELLED;
        if (out->completion_tokens < (size_t)r->params->max_new_tokens) status = advance(r, &full, error);
        if (status) return status;
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the whole */

/* Rates of what was really computed; 0 where there was nothing to measure. */
static void fill_timing(const run *r) {
    sllm_generation *out = r->out;
    double computed = (double)(r->n_prompt - out->reused_tokens);
    double prompt_s = r->prompt_done - r->start, answer_s = r->last - r->first;
    if (r->first > 0) out->time_to_first_token_s = r->first - r->start;
    if (r->prompt_done > 0 && prompt_s > 0) out->prompt_tokens_per_second = computed / prompt_s;
    if (out->completion_tokens > 1 && answer_s > 0)
        out->tokens_per_second = (double)(out->completion_tokens - 1) / answer_s;
}

static sllm_status finish(run *r, sllm_error *error) {
    sllm_generation *out = r->out;
    sllm_status status = sl_answer_finish(&r->answer, error);
    if (status) return status;
    if (r->answer.stopped >= 0) {
        out->stop = r->params->stop[r->answer.stopped];
        if (out->finish == SLLM_FINISH_LENGTH) out->finish = SLLM_FINISH_STOP;
    }
    if (r->answer.cancelled) out->finish = SLLM_FINISH_CANCELLED;
    out->text = sl_buffer_take(&r->answer.text, &out->text_length);
    if (!out->text) return sl_fail_memory(error, "handing over the answer", 0);
    if (r->answer.reasoning.seen) {
        size_t length;
        sl_buffer_append(&r->answer.thought, "", 0);
        out->reasoning = sl_buffer_take(&r->answer.thought, &length);
        if (!out->reasoning) return sl_fail_memory(error, "handing over the reasoning", 0);
    }
    fill_timing(r);
    return SLLM_OK;
}

sllm_status sl_generate(sl_session *session, const int32_t *ids, size_t n, const sllm_generate_params *params,
                        sllm_generation *out, sllm_error *error) {
    *out = (sllm_generation){.choice = -1, .prompt_tokens = n};
    run r = {.session = session, .model = session->model, .params = params, .out = out, .start = sl_clock(),
             .cancel = {params->is_cancelled, params->user}};
    sllm_status status = sl_generate_check(params, r.model->config.n_vocab, error);
    if (!status) status = prepare(&r, ids, n, error);
    if (!status) {
        status = start(&r, error);
        if (!status) status = draw_all(&r, error);
        if (status == SLLM_ERROR_CANCELLED) { /* what was made so far is the result */
            out->finish = SLLM_FINISH_CANCELLED;
            if (error) *error = (sllm_error){0};
            status = SLLM_OK;
        }
        if (!status) status = finish(&r, error);
    }
    sl_sampler_free(r.sampler);
    sl_answer_free(&r.answer);
    sl_choices_free(r.choices);
    free(r.mask);
    free(r.history.data);
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
