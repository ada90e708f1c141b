/* Text to measure or calibrate on, as token ids. */
#ifndef SL_EVAL_TEXT_IDS_H
#define SL_EVAL_TEXT_IDS_H

#include "model/model.h"

/* The ids of text [length], UTF-8; with `jsonl` every line is an object with "text", or with "messages" that go through
 * the model's chat template, one after the other. At least so many tokens must come of it: SLLM_ERROR_ARGUMENT gives both
 * counts. The caller frees *ids. */
sllm_status sl_text_ids(const sl_model *model, const char *text, size_t length, bool jsonl, int at_least,
                               int32_t **ids, size_t *n, sllm_error *error);

#endif
