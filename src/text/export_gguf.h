/* A tokenizer as GGUF metadata. */
#ifndef SL_TEXT_EXPORT_GGUF_H
#define SL_TEXT_EXPORT_GGUF_H

#include "format/gguf_write.h"
#include "text/tokenizer.h"

/* Appends tokenizer.ggml.*: model, pre, tokens, token_type, scores or merges, special ids, flags. n_vocab: rows of the
 * embedding; ids that the tokenizer does not have are written as unused "[PADn]", as converters do.
 *
 * GGUF has no room for a tokenizer.json's normaliser and pre-tokeniser; a name stands for them. The name is found by
 * trying: of the names this library knows, the first under which the metadata reads back to a tokenizer that gives the
 * same ids for a text made to tell pre-tokenisers apart. `pre` not NULL: this name, which must pass the same trial.
 * SLLM_ERROR_UNSUPPORTED: none passes, or GGUF has no such model (word level). */
sllm_status sl_tokenizer_to_gguf(const sl_tokenizer *tokenizer, int32_t n_vocab, const char *pre, sl_gguf_fields *fields,
                                 sllm_error *error);

#endif
