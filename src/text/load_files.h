/* Loaders of the older forms of tokenizer files; each takes their text. */
#ifndef SL_TEXT_LOAD_FILES_H
#define SL_TEXT_LOAD_FILES_H

#include "text/parts.h"

typedef struct sl_tokenizer_files {
    const char *name; /* of the main file */
    const char *text;
    size_t length;
    const char *other; /* merges.txt */
    size_t other_length;
    const char *config; /* tokenizer_config.json or NULL */
    size_t config_length;
} sl_tokenizer_files;

/* SentencePiece's tokenizer.model, a protocol buffer (sentencepiece_model.proto): BPE and Unigram. */
sllm_status sl_load_sentencepiece(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error);
/* vocab.json and merges.txt (GPT-2); the class in tokenizer_config.json says which pre-tokeniser. */
sllm_status sl_load_vocab_merges(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error);
/* vocab.txt (BERT). */
sllm_status sl_load_vocab_txt(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error);
/* Lines of "base64 rank" (tiktoken); the file's name says which pattern and special tokens. */
sllm_status sl_load_tiktoken(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error);
bool sl_is_tiktoken(const char *text, size_t length);

#endif
