/* Text that goes on after tokens. A tokenizer writes a text's beginning in its own way (a SentencePiece vocabulary puts
 * a blank in front and takes it away again), which would be wrong in the middle of one. */
#ifndef SL_INFER_CONTINUATION_H
#define SL_INFER_CONTINUATION_H

#include "text/tokenizer.h"

/* Puts decoder in the state it has behind tokens before [n]: what is pushed next decodes as their continuation. After a
 * special token (a turn's header) a new text begins, and nothing is to be done. */
sllm_status sl_decoder_follow(sl_decoder *decoder, const sl_tokenizer *tokenizer, const int32_t *before, size_t n,
                              sllm_error *error);

/* Appends to *ids the tokens that continue before [n_before] with text [length]; special tokens in the text stay text.
 * *exact: they decode, there, to exactly the text. When no way to write it does, the plain encoding is appended. */
sllm_status sl_encode_continuation(const sl_tokenizer *tokenizer, const int32_t *before, size_t n_before,
                                   const char *text, size_t length, sl_ids *ids, bool *exact, sllm_error *error);

/* Appends one id. */
sllm_status sl_ids_push(sl_ids *ids, int32_t id, sllm_error *error);
sllm_status sl_ids_append(sl_ids *ids, const int32_t *more, size_t n, sllm_error *error);

#endif
