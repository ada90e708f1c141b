/* What the two halves of the tokenizer.json loader share. */
#ifndef SL_TEXT_LOAD_JSON_H
#define SL_TEXT_LOAD_JSON_H

#include "base/json.h"
#include "text/parts.h"

/* How the steps of a tokenizer.json bear on the vocabulary. */
typedef struct sl_json_steps {
    bool byte_level;  /* the last pre-tokeniser step is ByteLevel: words are bytes */
    bool letters;     /* some other step writes bytes as letters: words are letters */
} sl_json_steps;

/* Each reads one section of the root object into the tokenizer; a missing or null section adds nothing. */
sllm_status sl_json_normalizer(sl_tokenizer *tokenizer, const sl_json *section, sl_json_steps *steps,
                               sllm_error *error);
sllm_status sl_json_pretokenizer(sl_tokenizer *tokenizer, const sl_json *section, sl_json_steps *steps,
                                 sllm_error *error);
sllm_status sl_json_decoder(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error);
sllm_status sl_json_postprocessor(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error);

#endif
