#include "infer/turn.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "infer/continuation.h"
#include "infer/generate.h"
#include "infer/logprobs.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- beginning */

/* Copies the prompt into the history, without what the overflow policy drops. */
static sllm_status fit_prompt(sl_turn *t, const int32_t *ids, size_t n, sllm_error *error) {
    size_t capacity = t->capacity, keep = (size_t)t->params->n_keep;
    size_t room = (size_t)t->params->max_new_tokens;
    if (t->params->overflow != SLLM_OVERFLOW_ERROR && keep > capacity / 2)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_keep is %zu: it must be at most half of the context of %zu", keep,
                       capacity);
    size_t drop = 0;
    bool may_drop = t->params->overflow != SLLM_OVERFLOW_ERROR && capacity > 1;
    bool fits = n < capacity || (n == capacity && room == 0);
    if (!fits && !may_drop)
        return sl_fail(error, SLLM_ERROR_CONTEXT,
                       "the prompt has %zu tokens and the context %zu, which leaves no room for an answer: "
                       "shorten it, make the context larger, or ask for an overflow policy",
                       n, capacity);
    if (room > capacity / 2) room = capacity / 2;
    /* Shifting makes room for an answer when it comes to that. */
    bool too_long = t->params->overflow == SLLM_OVERFLOW_SHIFT ? !fits : n > capacity - room;
    if (may_drop && too_long) drop = n - (capacity - room);
    t->out->dropped_tokens = drop;
    if (drop == 0) keep = 0;
    sllm_status status = sl_ids_append(&t->history, ids, keep, error);
    if (!status) status = sl_ids_append(&t->history, ids + keep + drop, n - keep - drop, error);
    t->n_prompt = t->history.length;
    return status;
}

static sllm_status prepare_choices(sl_turn *t, sllm_error *error) {
    const sllm_generate_params *p = t->params;
    if (!t->model->tokenizer)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "choices need a tokenizer, which this model comes without");
    sllm_status status = sl_choices_new(t->model->tokenizer, t->history.data, t->history.length, p->choices,
                                        p->n_choices, &t->choices, error);
    if (status) return status;
    size_t longest = sl_choices_longest(t->choices), capacity = t->capacity;
    if (longest > (size_t)p->max_new_tokens)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: the longest has %zu tokens but max_new_tokens is %d",
                       longest, p->max_new_tokens);
    if (longest > capacity - t->history.length)
        return sl_fail(error, SLLM_ERROR_CONTEXT,
                       "choices: the longest has %zu tokens, and the prompt leaves %zu of the context of %zu", longest,
                       capacity - t->history.length, capacity);
    t->constraint = &t->choices->constraint;
    size_t words = ((size_t)t->model->config.n_vocab + 63) / 64;
    t->mask = calloc(words, sizeof *t->mask);
    return t->mask ? SLLM_OK : sl_fail_memory(error, "preparing choices", words * sizeof *t->mask);
}

static sllm_status prepare(sl_turn *t, const int32_t *ids, size_t n, sllm_error *error) {
    /* Where a choice has been made before, the draws only follow it. */
    static const sllm_sampler_params follow = {
        .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .dry_base = 1};
    const sl_tokenizer *tokenizer = t->model->tokenizer;
    sllm_status status = fit_prompt(t, ids, n, error);
    if (!status)
        status = sl_sampler_new(tokenizer, t->model->config.n_vocab,
                                t->params->n_choices > 0 ? &follow : &t->params->sampler, &t->sampler, error);
    if (!status) status = sl_answer_init(&t->answer, tokenizer, t->params, t->history.data, t->history.length, error);
    if (!status && t->params->n_choices > 0) status = prepare_choices(t, error);
    return status;
}

sllm_status sl_turn_begin(sl_turn *t, const sl_model *model, size_t capacity, const int32_t *ids, size_t n,
                          const sllm_generate_params *params, sllm_generation *out, sllm_error *error) {
    *out = (sllm_generation){.choice = -1, .finish = SLLM_FINISH_LENGTH, .prompt_tokens = n};
    *t = (sl_turn){.model = model, .params = params, .out = out, .capacity = capacity, .start = sl_clock()};
    sllm_status status = sl_generate_check(params, model->config.n_vocab, error);
    return status ? status : prepare(t, ids, n, error);
}

void sl_turn_free(sl_turn *t) {
    sl_sampler_free(t->sampler);
    sl_answer_free(&t->answer);
    sl_choices_free(t->choices);
    free(t->mask);
    free(t->history.data);
    *t = (sl_turn){0};
}

/* ---------------------------------------------------------------- what is wanted */

static size_t timeline_length(const sl_turn *t) { return t->history.length - t->shifted; }

size_t sl_turn_longest(const sl_turn *t) {
    if (t->choices) return t->n_prompt + sl_choices_longest(t->choices);
    size_t room = t->capacity - t->n_prompt, most = (size_t)t->params->max_new_tokens;
    return t->n_prompt + (most < room ? most : room);
}

size_t sl_turn_proposable(const sl_turn *t) {
    if (t->done || t->phase != SL_TURN_ANSWER || t->constraint || t->keep + 1 != timeline_length(t)) return 0;
    size_t most = SL_TURN_PROPOSALS;
    /* A draw behind the last proposal must still be one that the answer has room for. */
    size_t answer = (size_t)t->params->max_new_tokens - t->out->completion_tokens - 1;
    size_t context = t->capacity - timeline_length(t) - 1;
    if (most > answer) most = answer;
    if (most > context) most = context;
    /* Where a longer timeline turns its keys otherwise, one token alone would not have been computed so. */
    const sl_config *c = &t->model->config;
    return sl_rope_regime(c, (int)(t->keep + 1 + most)) == sl_rope_regime(c, (int)(t->keep + 1)) ? most : 0;
}

void sl_turn_propose(sl_turn *t, const int32_t *ids, size_t n) {
    for (t->n_proposals = 0; t->n_proposals < n; t->n_proposals++) {
        int32_t id = ids[t->n_proposals];
        if (id < 0 || id >= t->model->config.n_vocab) return;
        t->step[1 + t->n_proposals] = id;
    }
}

void sl_turn_want(sl_turn *t, sl_want *want) {
    const int32_t *history = t->history.data;
    switch (t->phase) {
    case SL_TURN_PROMPT: *want = (sl_want){0, history, t->n_prompt, 1}; return;
    case SL_TURN_SCORE:
        sl_choices_want(t->choices, SL_TURN_ROWS, &want->keep, &want->ids, &want->n);
        want->keep += t->n_prompt;
        want->n_logits = want->n;
        return;
    case SL_TURN_AGAIN: *want = (sl_want){t->n_prompt - 1, history + t->n_prompt - 1, 1, 1}; return;
    case SL_TURN_ANSWER: break;
    }
    if (t->n_proposals > 0) {
        t->step[0] = history[t->history.length - 1];
        *want = (sl_want){t->keep, t->step, 1 + t->n_proposals, 1 + t->n_proposals};
    } else {
        *want = (sl_want){t->keep, history + t->keep + t->shifted, timeline_length(t) - t->keep, 1};
    }
}

/* ---------------------------------------------------------------- one token */

static bool is_end(const sl_model *model, int32_t id) {
    for (size_t i = 0; i < model->n_end_ids; i++)
        if (model->end_ids[i] == id) return true;
    return false;
}

/* The stop string that is exactly this special token, whose text never shows in the answer; NULL: none. */
static const char *stop_of_token(const sl_turn *t, int32_t id) {
    const sl_tokenizer *tokenizer = t->model->tokenizer;
    if (!t->params->n_stop || !tokenizer || !sl_tokenizer_is_special(tokenizer, id)) return NULL;
    const char *text = sl_tokenizer_text(tokenizer, id);
    for (size_t i = 0; text && i < t->params->n_stop; i++)
        if (!strcmp(t->params->stop[i], text)) return t->params->stop[i];
    return NULL;
}

/* Fills the mask. False: the text is complete and nothing may go on from it. */
static bool fill_mask(sl_turn *t) {
    if (!t->constraint) return true;
    int32_t n_vocab = t->model->config.n_vocab;
    size_t words = ((size_t)n_vocab + 63) / 64;
    memset(t->mask, 0, words * sizeof *t->mask);
    t->constraint->ops->mask(t->constraint, t->mask, n_vocab);
    if (!t->constraint->ops->is_complete(t->constraint)) return true;
    bool any = false;
    for (size_t i = 0; i < words; i++) any = any || t->mask[i];
    for (size_t i = 0; i < t->model->n_end_ids; i++) {
        int32_t id = t->model->end_ids[i];
        if (id >= 0 && id < n_vocab) t->mask[id / 64] |= (uint64_t)1 << (id % 64);
    }
    return any;
}

/* Makes room for one token more in out's arrays. */
static sllm_status grow(sl_turn *t, sllm_error *error) {
    sllm_generation *out = t->out;
    if (out->completion_tokens < t->room) return SLLM_OK;
    size_t room = t->room < 32 ? 32 : t->room * 2, bytes;
    size_t wide = t->params->n_logprobs > 0 ? (size_t)t->params->n_logprobs : 0;
    if (!sl_mul_size(room, sizeof(sllm_alternative) * (wide + 1), &bytes))
        return sl_fail_memory(error, "generating", SIZE_MAX);
    int32_t *ids = realloc(out->ids, room * sizeof *ids);
    if (!ids) return sl_fail_memory(error, "generating", room * sizeof *ids);
    out->ids = ids;
    if (t->params->n_logprobs >= 0) {
        float *logprobs = realloc(out->logprobs, room * sizeof *logprobs);
        if (!logprobs) return sl_fail_memory(error, "keeping log-probabilities", room * sizeof *logprobs);
        out->logprobs = logprobs;
    }
    if (wide > 0) {
        sllm_alternative *more = realloc(out->alternatives, room * wide * sizeof *more);
        if (!more) return sl_fail_memory(error, "keeping log-probabilities", room * wide * sizeof *more);
        out->alternatives = more;
    }
    t->room = room;
    return SLLM_OK;
}

/* Writes the token down and sends it on its way to the caller. */
static sllm_status record(sl_turn *t, int32_t id, const float *logits, sllm_error *error) {
    sllm_generation *out = t->out;
    sllm_event event = {.id = id};
    sllm_status status = grow(t, error);
    if (!status) status = sl_ids_push(&t->history, id, error);
    if (status) return status;
    size_t at = out->completion_tokens++;
    out->ids[at] = id;
    if (t->params->n_logprobs >= 0) {
        size_t n_vocab = (size_t)t->model->config.n_vocab, k = (size_t)t->params->n_logprobs;
        double log_sum = sl_log_sum_exp(logits, n_vocab);
        event.logprob = out->logprobs[at] = (float)(logits[id] - log_sum);
        if (k > 0) {
            sl_top_logprobs(logits, n_vocab, log_sum, &out->alternatives[at * k], k);
            event.alternatives = &out->alternatives[at * k];
            while (event.n_alternatives < k && event.alternatives[event.n_alternatives].id >= 0) event.n_alternatives++;
        }
    }
    return sl_answer_push(&t->answer, &event, error);
}

/* Makes room behind a full context: the older half of what may go is dropped, the rest is computed at its new place.
 * The last token drawn is not in the timeline yet. */
static sllm_status shift(sl_turn *t, sllm_error *error) {
    size_t length = timeline_length(t) - 1, fixed = (size_t)t->params->n_keep;
    if (fixed > length) fixed = length;
    size_t drop = (length - fixed + 1) / 2;
    if (drop == length)
        return sl_fail(error, SLLM_ERROR_CONTEXT, "a context of %zu tokens is too small to shift", t->capacity);
    t->keep = fixed;
    t->shifted += drop;
    t->out->dropped_tokens += drop;
    return SLLM_OK;
}

static sllm_status end(sl_turn *t, sllm_finish finish) {
    t->done = true;
    t->out->finish = finish;
    return SLLM_OK;
}

static sllm_status draw_id(sl_turn *t, const float *logits, int32_t *id, sllm_error *error) {
    return sl_sampler_draw(t->sampler, logits, t->constraint ? t->mask : NULL, t->history.data, t->history.length, id,
                           error);
}

sllm_status sl_turn_draw_ahead(sl_turn *t, const float *logits, sllm_error *error) {
    if (t->phase != SL_TURN_ANSWER || t->has_drawn) return SLLM_OK;
    sllm_status status = draw_id(t, logits, &t->drawn, error);
    t->has_drawn = !status;
    return status;
}

/* Draws one token from logits [n_vocab] and sees what follows from it. */
static sllm_status draw(sl_turn *t, const float *logits, sllm_error *error) {
    sllm_generation *out = t->out;
    const sllm_generate_params *p = t->params;
    int32_t id = t->drawn;
    sllm_status status = t->has_drawn ? SLLM_OK : draw_id(t, logits, &id, error);
    t->has_drawn = false;
    if (status) return status;
    t->last = sl_clock();
    if (out->completion_tokens == 0) t->first = t->last;
    if ((out->stop = stop_of_token(t, id))) return end(t, SLLM_FINISH_STOP);
    /* A constraint lets an end token come only where its text is complete, and then it is the end. */
    if (is_end(t->model, id) && (t->constraint || !p->ignore_end)) return end(t, SLLM_FINISH_STOP);
    if (t->constraint && !t->constraint->ops->accept(t->constraint, id))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the constraint refused token %d, which its mask allowed", id);
    status = record(t, id, logits, error);
    if (status) return status;
    if (t->answer.stopped >= 0 || !fill_mask(t)) return end(t, SLLM_FINISH_STOP);
    if (t->answer.cancelled || (p->is_cancelled && p->is_cancelled(p->user))) return end(t, SLLM_FINISH_CANCELLED);
    if (out->completion_tokens >= (size_t)p->max_new_tokens) return end(t, SLLM_FINISH_LENGTH);
    if (timeline_length(t) < t->capacity) return SLLM_OK;
    return p->overflow == SLLM_OVERFLOW_SHIFT ? shift(t, error) : end(t, SLLM_FINISH_LENGTH);
}

/* Draws behind each row of logits [n, n_vocab], as long as what is drawn is what was proposed. */
static sllm_status draw_rows(sl_turn *t, const float *logits, size_t n, sllm_error *error) {
    t->n_proposals = 0;
    for (size_t i = 0;; i++) {
        sllm_status status = draw(t, logits + i * (size_t)t->model->config.n_vocab, error);
        if (status || t->done || i + 1 == n || t->history.data[t->history.length - 1] != t->step[1 + i]) return status;
        t->keep++; /* the proposal's position is the answer's */
        t->out->accepted_tokens++;
    }
}

/* ---------------------------------------------------------------- phases */

static sllm_status begin_answer(sl_turn *t, const float *logits, sllm_error *error) {
    t->phase = SL_TURN_ANSWER;
    t->prompt_done = sl_clock();
    fill_mask(t);
    if (t->params->max_new_tokens == 0) return end(t, SLLM_FINISH_LENGTH);
    return draw_rows(t, logits, 1, error);
}

/* All choices are scored: makes one of them the answer. */
static sllm_status decide(sl_turn *t, sllm_error *error) {
    sl_choices *c = t->choices;
    sllm_status status = sl_choices_normalise(c, error);
    if (status) return status;
    t->out->choice_probabilities = malloc(c->n * sizeof(double));
    if (!t->out->choice_probabilities) return sl_fail_memory(error, "giving the choices' probabilities", c->n * 8);
    memcpy(t->out->choice_probabilities, c->probabilities, c->n * sizeof(double));
    sl_rng rng;
    sl_rng_seed(&rng, t->params->sampler.seed);
    t->out->choice = (int)sl_choices_pick(c, t->params->sampler.temperature, &rng);
    t->phase = SL_TURN_AGAIN;
    return SLLM_OK;
}

static sllm_status score(sl_turn *t, const float *logits, size_t n, sllm_error *error) {
    sllm_status status = sl_choices_take(t->choices, logits, n, t->model->config.n_vocab, error);
    if (status) return status;
    t->phase = SL_TURN_SCORE;
    return sl_choices_scored(t->choices) ? decide(t, error) : SLLM_OK;
}

sllm_status sl_turn_take(sl_turn *t, const float *logits, sllm_error *error) {
    sl_want want;
    sl_turn_want(t, &want);
    switch (t->phase) {
    case SL_TURN_PROMPT:
        t->keep = t->n_prompt;
        return t->choices ? score(t, logits, 1, error) : begin_answer(t, logits, error);
    case SL_TURN_SCORE: return score(t, logits, want.n_logits, error);
    case SL_TURN_AGAIN: return begin_answer(t, logits, error);
    case SL_TURN_ANSWER: break;
    }
    t->keep = want.keep + want.n - t->n_proposals; /* the proposals' positions are kept as they are drawn */
    t->out->proposed_tokens += t->n_proposals;
    return draw_rows(t, logits, want.n_logits, error);
}

void sl_turn_cancel(sl_turn *t) { end(t, SLLM_FINISH_CANCELLED); }

/* ---------------------------------------------------------------- the end */

/* Rates of what was really computed; 0 where there was nothing to measure. */
static void fill_timing(const sl_turn *t) {
    sllm_generation *out = t->out;
    double computed = (double)(t->n_prompt - out->reused_tokens);
    double prompt_s = t->prompt_done - t->start, answer_s = t->last - t->first;
    if (t->first > 0) out->time_to_first_token_s = t->first - t->start;
    if (t->prompt_done > 0 && prompt_s > 0) out->prompt_tokens_per_second = computed / prompt_s;
    if (out->completion_tokens > 1 && answer_s > 0)
        out->tokens_per_second = (double)(out->completion_tokens - 1) / answer_s;
}

sllm_status sl_turn_finish(sl_turn *t, sllm_error *error) {
    sllm_generation *out = t->out;
    sllm_status status = sl_answer_finish(&t->answer, error);
    if (status) return status;
    if (t->answer.stopped >= 0) {
        out->stop = t->params->stop[t->answer.stopped];
        if (out->finish == SLLM_FINISH_LENGTH) out->finish = SLLM_FINISH_STOP;
    }
    if (t->answer.cancelled) out->finish = SLLM_FINISH_CANCELLED;
    out->text = sl_buffer_take(&t->answer.text, &out->text_length);
    if (!out->text) return sl_fail_memory(error, "handing over the answer", 0);
    if (t->answer.reasoning.seen) {
        size_t length;
        sl_buffer_append(&t->answer.thought, "", 0);
        out->reasoning = sl_buffer_take(&t->answer.thought, &length);
        if (!out->reasoning) return sl_fail_memory(error, "handing over the reasoning", 0);
    }
    fill_timing(t);
    return SLLM_OK;
}
