#include "infer/answer.h"

#include "base/error.h"
#include "infer/continuation.h"

#include <string.h>

/* The prompt's last tokens are looked at for an open reasoning block; the longest mark takes fewer. */
enum { PROMPT_TAIL = 32 };

static sllm_status find_open_block(sl_answer *a, const int32_t *prompt, size_t n, sllm_error *error) {
    size_t first = n > PROMPT_TAIL ? n - PROMPT_TAIL : 0;
    sl_buffer tail = {0};
    sllm_status status = SLLM_OK;
    for (size_t i = first; i < n && !status; i++) /* ids the vocabulary lacks (padding rows) have no text */
        if (prompt[i] < sl_tokenizer_size(a->tokenizer))
            status = sl_tokenizer_decode(a->tokenizer, &prompt[i], 1, false, &tail, error);
    if (!status && tail.failed) status = sl_fail_memory(error, "reading the prompt's end", 0);
    if (!status) sl_reasoning_init(&a->reasoning, tail.data ? tail.data : "", tail.length);
    sl_buffer_free(&tail);
    return status;
}

sllm_status sl_answer_init(sl_answer *a, const sl_tokenizer *tokenizer, const sllm_generate_params *params,
                           const int32_t *prompt, size_t n, sllm_error *error) {
    *a = (sl_answer){.tokenizer = tokenizer, .params = params, .stopped = -1, .splits = params->n_choices == 0};
    sllm_status status = sl_stop_init(&a->stop, params->stop, params->n_stop, error);
    if (!status && !tokenizer && params->n_stop > 0)
        status =
            sl_fail(error, SLLM_ERROR_UNSUPPORTED, "stop strings need a tokenizer, which this model comes without");
    /* The texts exist even when nothing comes, so that an empty answer is "" and not NULL. */
    if (!status && !sl_buffer_append(&a->text, "", 0)) status = sl_fail_memory(error, "starting an answer", 1);
    if (!status && tokenizer) {
        status = sl_decoder_new(tokenizer, true, &a->decoder, error);
        if (!status) status = sl_decoder_follow(a->decoder, tokenizer, prompt, n, error);
        if (!status && a->splits) status = find_open_block(a, prompt, n, error);
    }
    if (status) sl_answer_free(a);
    return status;
}

void sl_answer_free(sl_answer *a) {
    sl_decoder_free(a->decoder);
    sl_stop_free(&a->stop);
    sl_reasoning_free(&a->reasoning);
    sl_buffer_free(&a->decoded);
    sl_buffer_free(&a->passed);
    sl_buffer_free(&a->step_thought);
    sl_buffer_free(&a->step_text);
    sl_buffer_free(&a->text);
    sl_buffer_free(&a->thought);
    *a = (sl_answer){0};
}

/* ---------------------------------------------------------------- one step */

static void clear_step(sl_answer *a) {
    a->decoded.length = a->passed.length = a->step_thought.length = a->step_text.length = 0;
}

/* The token's text. A special token has none, but a reasoning mark must be seen by the splitter. */
static sllm_status decode_token(sl_answer *a, int32_t id, sllm_error *error) {
    if (!a->tokenizer || id >= sl_tokenizer_size(a->tokenizer)) return SLLM_OK; /* a padding row of the matrix */
    sllm_status status = sl_decoder_push(a->decoder, id, &a->decoded, error);
    const char *text = sl_tokenizer_text(a->tokenizer, id);
    if (!status && a->splits && text && sl_tokenizer_is_special(a->tokenizer, id) && sl_reasoning_is_mark(text))
        sl_buffer_puts(&a->decoded, text);
    if (!status && a->decoded.failed) status = sl_fail_memory(error, "decoding the answer", 0);
    return status;
}

/* Sends one event; after the first of a step the token's own fields are blank. */
static void send(sl_answer *a, sllm_event *event, const sl_buffer *text, bool reasoning) {
    event->text = text->length > 0 ? text->data : "";
    event->length = text->length;
    event->reasoning = reasoning;
    if (a->params->on_event && !a->cancelled && !a->params->on_event(a->params->user, event)) a->cancelled = true;
    *event = (sllm_event){.id = -1};
}

/* Collects the step's texts and sends its events: reasoning first, as it was written first. */
static sllm_status send_step(sl_answer *a, const sllm_event *token, bool final, sllm_error *error) {
    sllm_event event = token ? *token : (sllm_event){.id = -1};
    bool only_thought =
        a->step_text.length == 0 && (a->step_thought.length > 0 || a->reasoning.state == SL_REASONING_INSIDE);
    sl_buffer_append(&a->thought, a->step_thought.data, a->step_thought.length);
    sl_buffer_append(&a->text, a->step_text.data, a->step_text.length);
    if (a->thought.failed || a->text.failed) return sl_fail_memory(error, "collecting the answer", a->text.length);
    bool hidden = a->params->reasoning == SLLM_REASONING_HIDE;
    if (!hidden && (a->step_thought.length > 0 || (only_thought && !final))) send(a, &event, &a->step_thought, true);
    if (a->step_text.length > 0 || (!only_thought && !final)) {
        event.reasoning = false;
        send(a, &event, &a->step_text, false);
    }
    return SLLM_OK;
}

/* passed -> step_thought and step_text. */
static sllm_status split(sl_answer *a, sllm_error *error) {
    if (a->splits)
        return sl_reasoning_push(&a->reasoning, a->passed.data, a->passed.length, &a->step_thought, &a->step_text,
                                 error);
    return sl_buffer_append(&a->step_text, a->passed.data, a->passed.length)
               ? SLLM_OK
               : sl_fail_memory(error, "collecting the answer", a->passed.length);
}

sllm_status sl_answer_push(sl_answer *a, const sllm_event *token, sllm_error *error) {
    clear_step(a);
    sllm_status status = decode_token(a, token->id, error);
    if (!status) status = sl_stop_push(&a->stop, a->decoded.data, a->decoded.length, &a->passed, &a->stopped, error);
    if (!status) status = split(a, error);
    return status ? status : send_step(a, token, false, error);
}

sllm_status sl_answer_finish(sl_answer *a, sllm_error *error) {
    clear_step(a);
    sllm_status status = SLLM_OK;
    if (a->stopped < 0) { /* behind a stop string nothing counts */
        if (a->decoder) status = sl_decoder_finish(a->decoder, &a->decoded, error);
        if (!status && a->decoded.failed) status = sl_fail_memory(error, "decoding the answer", 0);
        if (!status)
            status = sl_stop_push(&a->stop, a->decoded.data, a->decoded.length, &a->passed, &a->stopped, error);
        if (!status && a->stopped < 0) status = sl_stop_finish(&a->stop, &a->passed, error);
    }
    if (!status) status = split(a, error);
    if (!status && a->splits) status = sl_reasoning_finish(&a->reasoning, &a->step_thought, &a->step_text, error);
    return status ? status : send_step(a, NULL, true, error);
}
