/* A tokenizer as the files of a checkpoint folder. */
#ifndef SL_TEXT_EXPORT_JSON_H
#define SL_TEXT_EXPORT_JSON_H

#include "text/tokenizer.h"

/* Appends the texts of tokenizer.json and tokenizer_config.json. The tokenizer came from a GGUF file: byte-level BPE whose
 * pre-tokeniser has a name, or SentencePiece's BPE, whose merges are made from the scores. What was written is read back, and
 * must give the same ids for a text made to tell tokenizers apart. SLLM_ERROR_UNSUPPORTED: it does not, or there is no
 * writer for this kind. */
sllm_status sl_tokenizer_to_json(const sl_tokenizer *tokenizer, int n_ctx, sl_buffer *json, sl_buffer *config, sllm_error *error);

#endif
