/* Text to ids and back: byte-level BPE, SentencePiece-style BPE with byte fallback, Unigram, WordPiece. */
#ifndef SL_TEXT_TOKENIZER_H
#define SL_TEXT_TOKENIZER_H

#include "base/buffer.h"
#include "format/gguf.h"
#include "sllm.h"

typedef struct sl_tokenizer sl_tokenizer; /* immutable after loading; encode and decode are thread-safe */

/* From tokenizer.ggml.* metadata. An unknown model or pre-tokeniser is SLLM_ERROR_UNSUPPORTED naming it. */
sllm_status sl_tokenizer_from_gguf(const sl_gguf *gguf, sl_tokenizer **tokenizer, sllm_error *error);
/* From the text of a tokenizer.json. `config_json` is tokenizer_config.json's text or NULL (bos/eos, add_bos_token...).
 * */
sllm_status sl_tokenizer_from_json(const char *text, size_t length, const char *config_json, size_t config_length,
                                   sl_tokenizer **tokenizer, sllm_error *error);
/* From a folder or file: tokenizer.json[.gz], else tokenizer.model (SentencePiece), vocab.json + merges.txt, vocab.txt,
 * *.tiktoken. SLLM_ERROR_NOT_FOUND lists what was looked for. */
sllm_status sl_tokenizer_from_path(const char *path, sl_tokenizer **tokenizer, sllm_error *error);
void sl_tokenizer_free(sl_tokenizer *tokenizer);

/* A growing array of ids. */
typedef struct sl_ids {
    int32_t *data;
    size_t length, capacity;
} sl_ids;

/* Working memory and word cache of one thread; optional but worth having for repeated text. */
typedef struct sl_tokenizer_cache sl_tokenizer_cache;
sllm_status sl_tokenizer_cache_new(const sl_tokenizer *tokenizer, sl_tokenizer_cache **cache, sllm_error *error);
void sl_tokenizer_cache_free(sl_tokenizer_cache *cache);

/* Appends the ids of text to *ids. flags: SLLM_TOKENIZE_*. cache may be NULL. */
sllm_status sl_tokenizer_encode(const sl_tokenizer *tokenizer, sl_tokenizer_cache *cache, const char *text,
                                size_t length, unsigned flags, sl_ids *ids, sllm_error *error);
/* Appends the text of ids to *out (incomplete UTF-8 as U+FFFD). */
sllm_status sl_tokenizer_decode(const sl_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                                sl_buffer *out, sllm_error *error);

/* Streaming: push appends to *out what is certain now. */
typedef struct sl_decoder sl_decoder;
sllm_status sl_decoder_new(const sl_tokenizer *tokenizer, bool skip_special, sl_decoder **decoder, sllm_error *error);
sllm_status sl_decoder_push(sl_decoder *decoder, int32_t id, sl_buffer *out, sllm_error *error);
/* Appends what was held back. More may be pushed afterwards: it decodes as going on from there, not as a new text. */
sllm_status sl_decoder_finish(sl_decoder *decoder, sl_buffer *out, sllm_error *error);
void sl_decoder_reset(sl_decoder *decoder);
void sl_decoder_free(sl_decoder *decoder);

typedef enum sl_special {
    SL_SPECIAL_BOS, SL_SPECIAL_EOS, SL_SPECIAL_UNK, SL_SPECIAL_PAD, SL_SPECIAL_SEP, SL_SPECIAL_CLS, SL_SPECIAL_MASK,
    SL_SPECIAL_FIM_PREFIX, SL_SPECIAL_FIM_SUFFIX, SL_SPECIAL_FIM_MIDDLE, SL_SPECIAL_COUNT
} sl_special;
int32_t sl_tokenizer_special(const sl_tokenizer *tokenizer, sl_special which); /* -1: none */
/* Tokens that end an answer: EOS, EOT/EOM, and the chat markers known to end turns (<|im_end|>, <|eot_id|>,
 * <end_of_turn>, <|end|>, ...) where the vocabulary holds them as special. Borrowed. */
const int32_t *sl_tokenizer_end_ids(const sl_tokenizer *tokenizer, size_t *n);
int32_t sl_tokenizer_size(const sl_tokenizer *tokenizer);
const char *sl_tokenizer_text(const sl_tokenizer *tokenizer,
                              int32_t id); /* as the vocabulary writes it; NULL: no such id */
/* The raw bytes that id adds to a text (after byte-level / byte-fallback decoding, "▁" as blank), for constraints. */
const char *sl_tokenizer_piece(const sl_tokenizer *tokenizer, int32_t id, size_t *length);
bool sl_tokenizer_is_special(const sl_tokenizer *tokenizer, int32_t id);
int32_t sl_tokenizer_find(const sl_tokenizer *tokenizer, const char *text, size_t length); /* -1: none */
const char *sl_tokenizer_kind(const sl_tokenizer *tokenizer); /* "bpe", "spm", "unigram", "wordpiece" */
const char *sl_tokenizer_pre(const sl_tokenizer *tokenizer);  /* the pre-tokeniser's name, "" when none */
bool sl_tokenizer_adds_bos(const sl_tokenizer *tokenizer);

#endif
