/* Loaders of the forms of tokenizer files; each takes the texts of the files that lie together in a folder. */
#ifndef SL_TEXT_LOAD_FILES_H
#define SL_TEXT_LOAD_FILES_H

#include "base/json.h"
#include "text/parts.h"

/* The texts, borrowed; data NULL: there is no such file. */
typedef struct sl_tokenizer_files {
    const char *name;     /* of the main file */
    sl_buffer text;       /* the main file */
    sl_buffer merges;     /* merges.txt */
    sl_buffer config;     /* tokenizer_config.json */
    sl_buffer specials;   /* special_tokens_map.json */
    sl_buffer added;      /* added_tokens.json: text -> id */
    sl_buffer model;      /* config.json, the model's: model_type where tokenizer_config.json names no class */
} sl_tokenizer_files;

/* Hands the files to the loader of their kind, by the main one's name and content. */
sllm_status sl_tokenizer_from_files(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error);

/* The JSON files beside the main one, parsed; NULL: absent. */
typedef struct sl_tokenizer_settings {
    sl_arena arena;
    const sl_json *config, *specials, *added, *model;
} sl_tokenizer_settings;
sllm_status sl_tokenizer_settings_read(const sl_tokenizer_files *files, sl_tokenizer_settings *settings,
                                       sllm_error *error);
void sl_tokenizer_settings_free(sl_tokenizer_settings *settings);
/* "bos_token" and the like: tokenizer_config.json's, else special_tokens_map.json's; a string or an object's "content".
 * NULL: neither file names one. */
const sl_json *sl_tokenizer_setting(const sl_tokenizer_settings *settings, const char *key);
/* tokenizer_class of tokenizer_config.json, else "", never NULL. */
const char *sl_tokenizer_class(const sl_tokenizer_settings *settings);
/* model_type of config.json, else "", never NULL. */
const char *sl_tokenizer_model_type(const sl_tokenizer_settings *settings);

/* Sets the special ids that the settings name; without tokenizer_config.json and special_tokens_map.json, BOS and EOS
 * that are not known yet by their well-known names. Needs sl_added_index. */
void sl_tokenizer_apply_settings(sl_tokenizer *tokenizer, const sl_tokenizer_settings *settings);

/* tokenizer.json; tokenizer_config.json and special_tokens_map.json say which tokens are BOS, EOS... Without them,
 * tokens with well-known names are taken. */
sllm_status sl_load_json(const char *text, size_t length, const sl_tokenizer_settings *settings,
                         sl_tokenizer **tokenizer, sllm_error *error);
/* SentencePiece's tokenizer.model, a protocol buffer (sentencepiece_model.proto): BPE and Unigram. */
sllm_status sl_load_sentencepiece(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                                  sl_tokenizer **tokenizer, sllm_error *error);
/* vocab.json and merges.txt (GPT-2); the class or the model's type says which pre-tokeniser. */
sllm_status sl_load_vocab_merges(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                                 sl_tokenizer **tokenizer, sllm_error *error);
/* vocab.txt (BERT). */
sllm_status sl_load_vocab_txt(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                              sl_tokenizer **tokenizer, sllm_error *error);
/* Lines of "base64 rank" (tiktoken): pattern and special tokens follow from config.json's model_type, the class or the
 * file's name. */
sllm_status sl_load_tiktoken(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                             sl_tokenizer **tokenizer, sllm_error *error);
bool sl_is_tiktoken(const char *text, size_t length);

#endif
