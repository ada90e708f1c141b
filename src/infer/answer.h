/* From drawn tokens to what the caller sees: whole characters (the decoder), never part of a stop string, reasoning
 * apart from the answer, as events and as the collected texts.
 *
 *     id -> decoder -> stop strings -> reasoning marks -> events, text, thought */
#ifndef SL_INFER_ANSWER_H
#define SL_INFER_ANSWER_H

#include "infer/reasoning.h"
#include "infer/stop.h"
#include "text/tokenizer.h"

typedef struct sl_answer {
    const sl_tokenizer *tokenizer; /* NULL: a model without one; there is no text then */
    const sllm_generate_params *params;
    sl_decoder *decoder;
    sl_stop stop;
    sl_reasoning reasoning;
    bool splits;      /* false with choices: the answer is one of them to the letter */
    ptrdiff_t stopped; /* index of the stop string found, -1 */
    bool cancelled;   /* the callback said so: no more events */
    sl_buffer decoded, passed;        /* of one step */
    sl_buffer step_thought, step_text; /* of one step */
    sl_buffer text, thought;           /* the whole */
} sl_answer;

/* prompt [n]: what the answer stands behind. Zeroed or made, *answer may be freed. */
sllm_status sl_answer_init(sl_answer *answer, const sl_tokenizer *tokenizer, const sllm_generate_params *params,
                           const int32_t *prompt, size_t n, sllm_error *error);
void sl_answer_free(sl_answer *answer);

/* Takes a token in. token: id, logprob and alternatives are set. Sends at least one event, but for hidden reasoning. */
sllm_status sl_answer_push(sl_answer *answer, const sllm_event *token, sllm_error *error);
/* The end: what was held back comes in a last event of id -1. */
sllm_status sl_answer_finish(sl_answer *answer, sllm_error *error);

#endif
