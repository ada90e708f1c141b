/* The tokenizer as a whole: building it step by step, asking it, freeing it. */
#include "text/tokenizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- building */

sl_tokenizer *sl_tokenizer_new(sllm_error *error) {
    sl_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) sl_fail_memory(error, "a tokenizer", sizeof *tokenizer);
    for (int i = 0; tokenizer && i < SL_SPECIAL_COUNT; i++) tokenizer->special[i] = -1;
    return tokenizer;
}

sllm_status sl_add_normalize(sl_tokenizer *tokenizer, sl_normalize_step step, sllm_error *error) {
    if (tokenizer->n_normalize == SL_MAX_STEPS) {
        sl_regex_free(step.regex);
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer: more than %d normaliser steps", SL_MAX_STEPS);
    }
    tokenizer->normalize[tokenizer->n_normalize++] = step;
    return SLLM_OK;
}

sllm_status sl_add_split(sl_tokenizer *tokenizer, sl_split_step step, sllm_error *error) {
    sl_split_step *last = tokenizer->n_split ? &tokenizer->split[tokenizer->n_split - 1] : NULL;
    /* Single digits, then GPT-2's pattern: one scanner does both. */
    if (last && tokenizer->n_split == 1 && last->kind == SL_SPLIT_DIGITS && last->individual &&
        step.kind == SL_SPLIT_SCAN && step.scan.kind == SL_SCAN_GPT2) {
        *last = step;
        last->scan.isolate_digits = true;
        return SLLM_OK;
    }
    if (tokenizer->n_split == SL_MAX_STEPS) {
        sl_regex_free(step.regex);
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer: more than %d pre-tokeniser steps", SL_MAX_STEPS);
    }
    tokenizer->split[tokenizer->n_split++] = step;
    return SLLM_OK;
}

sllm_status sl_add_decode(sl_tokenizer *tokenizer, sl_decode_step step, sllm_error *error) {
    if (tokenizer->n_decode == SL_MAX_STEPS) {
        sl_regex_free(step.regex);
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer: more than %d decoder steps", SL_MAX_STEPS);
    }
    tokenizer->decode[tokenizer->n_decode++] = step;
    return SLLM_OK;
}

sllm_status sl_add_pattern(sl_tokenizer *tokenizer, const char *pattern, size_t length, sl_behaviour behaviour,
                           bool invert, sllm_error *error) {
    sl_split_step step = {.kind = SL_SPLIT_SCAN, .behaviour = behaviour, .invert = invert};
    if (behaviour == SL_ISOLATED || (behaviour == SL_REMOVED && invert)) {
        if (sl_scan_of_pattern(pattern, length, &step.scan)) return sl_add_split(tokenizer, step, error);
        if (length == 5 && !memcmp(pattern, "\\p{N}", 5)) {
            step.kind = SL_SPLIT_DIGITS;
            step.individual = true;
            step.behaviour = SL_ISOLATED;
            return sl_add_split(tokenizer, step, error);
        }
    }
    step.kind = SL_SPLIT_REGEX;
    sllm_status status = sl_regex_compile(pattern, length, "tokenizer: pre-tokeniser", &step.regex, error);
    return status == SLLM_OK ? sl_add_split(tokenizer, step, error) : status;
}

sllm_status sl_added_add(sl_tokenizer *tokenizer, sl_added item, sllm_error *error) {
    sl_added_tokens *added = &tokenizer->added;
    if (added->n == added->capacity) {
        size_t capacity = added->capacity ? added->capacity * 2 : 64;
        sl_added *items = realloc(added->items, capacity * sizeof *items);
        if (!items) return sl_fail_memory(error, "added tokens", capacity * sizeof *items);
        added->items = items;
        added->capacity = capacity;
    }
    added->items[added->n++] = item;
    return SLLM_OK;
}

/* Matches text against a token in the form that the normaliser gives it. */
static sllm_status added_normal_key(sl_tokenizer *tokenizer, const char *text, size_t length, sl_buffer *key,
                                    sllm_error *error) {
    sl_buffer next = {0};
    if (!sl_buffer_append(key, text, length)) return sl_fail_memory(error, "added tokens", length);
    for (size_t i = 0; i < tokenizer->n_normalize; i++) {
        next.length = 0;
        sllm_status status = sl_normalize(&tokenizer->normalize[i], NULL, key->data, key->length, &next, error);
        if (status != SLLM_OK) {
            sl_buffer_free(&next);
            return status;
        }
        sl_buffer swapped = *key;
        *key = next;
        next = swapped;
    }
    sl_buffer_free(&next);
    return SLLM_OK;
}

sllm_status sl_added_index(sl_tokenizer *tokenizer, sllm_error *error) {
    sl_added_tokens *added = &tokenizer->added;
    const sl_vocab *vocab = &tokenizer->vocab;
    added->special = calloc(vocab->size > 0 ? (size_t)vocab->size : 1, 1);
    if (!added->special) return sl_fail_memory(error, "added tokens", (size_t)vocab->size);
    for (size_t i = 0; i < added->n; i++) {
        const sl_added *item = &added->items[i];
        sl_span span = vocab->texts[item->id];
        if (item->special) added->special[item->id] = 1;
        const char *text = vocab->pool.data + span.offset;
        /* A token that is not UTF-8 (a GGUF file may hold one) is in no text: it must not be found in a character. */
        if (!span.length || !sl_utf8_is_valid(text, span.length)) continue;
        bool ok;
        if (item->normalized && tokenizer->n_normalize) {
            sl_buffer key = {0};
            sllm_status status = added_normal_key(tokenizer, text, span.length, &key, error);
            ok = status != SLLM_OK || !key.length || sl_trie_add(&added->normal, key.data, key.length, (int32_t)i);
            sl_buffer_free(&key);
            if (status != SLLM_OK) return status;
            added->normal_plain |= !item->special;
        } else {
            ok = sl_trie_add(&added->raw, text, span.length, (int32_t)i);
            added->raw_plain |= !item->special;
        }
        if (!ok) return sl_fail_memory(error, "added tokens", span.length);
    }
    return SLLM_OK;
}

/* Markers that end a turn or a text, as model families write them. */
static const char *const end_names[] = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|endoftext|>", "<|end_of_text|>",
    "<|eot|>", "<|eom|>", "<|EOT|>", "<|END_OF_TURN_TOKEN|>", "<|end_of_turn|>", "<EOT>", "<_EOT>", "<|return|>",
    "<|call|>", "<|endofprompt|>", "<|user_end|>", "<|role_end|>", "[EOT]", "[EOS]", "</s>", "<eos>",
    "<|end_of_sentence|>", ("<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"),
    "<end_of_utterance>", "[|endofturn|]", "<|eos|>",
};

/* Fill-in-the-middle markers, in the order prefix, suffix, middle. */
static const char *const infill_names[][3] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}, {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"}, {"<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"},
    {("<\xEF\xBD\x9C" "fim\xE2\x96\x81" "begin\xEF\xBD\x9C>"),
     ("<\xEF\xBD\x9C" "fim\xE2\x96\x81hole\xEF\xBD\x9C>"),
     ("<\xEF\xBD\x9C" "fim\xE2\x96\x81" "end\xEF\xBD\x9C>")},
    {"<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"},
    {"\xE2\x96\x81<PRE>", "\xE2\x96\x81<SUF>", "\xE2\x96\x81<MID>"},
    {"<PRE>", "<SUF>", "<MID>"}, {"[PREFIX]", "[SUFFIX]", "[MIDDLE]"},
};

/* A marker that is a special token, or at least one that no text is taken apart into. */
static int32_t find_marker(const sl_tokenizer *tokenizer, const char *name) {
    int32_t id = sl_tokenizer_find(tokenizer, name, strlen(name));
    if (id < 0) return -1;
    int type = tokenizer->vocab.types[id];
    return tokenizer->added.special[id] || type == SL_TOKEN_USER || type == SL_TOKEN_UNUSED ||
           (type == SL_TOKEN_NORMAL && name[0] != '[' && tokenizer->kind == SL_MODEL_SPM) ? id : -1;
}

/* A family's markers count together; Codestral has no middle one. */
static void find_infill(sl_tokenizer *tokenizer) {
    int32_t *special = tokenizer->special;
    for (size_t i = 0; i < sizeof infill_names / sizeof *infill_names && special[SL_SPECIAL_FIM_PREFIX] < 0; i++) {
        int32_t prefix = find_marker(tokenizer, infill_names[i][0]);
        int32_t suffix = find_marker(tokenizer, infill_names[i][1]);
        if (prefix < 0 || suffix < 0) continue;
        special[SL_SPECIAL_FIM_PREFIX] = prefix;
        special[SL_SPECIAL_FIM_SUFFIX] = suffix;
        special[SL_SPECIAL_FIM_MIDDLE] = find_marker(tokenizer, infill_names[i][2]);
    }
}

sllm_status sl_tokenizer_finish(sl_tokenizer *tokenizer, sllm_error *error) {
    size_t most = tokenizer->n_end_ids + sizeof end_names / sizeof *end_names + 1;
    int32_t *ids = realloc(tokenizer->end_ids, most * sizeof *ids);
    if (!ids) return sl_fail_memory(error, "end tokens", most * sizeof *ids);
    tokenizer->end_ids = ids;
    find_infill(tokenizer);
    for (size_t i = 0; i <= sizeof end_names / sizeof *end_names; i++) {
        bool named = i < sizeof end_names / sizeof *end_names;
        int32_t id = named ? sl_tokenizer_find(tokenizer, end_names[i], strlen(end_names[i]))
                           : tokenizer->special[SL_SPECIAL_EOS];
        if (id < 0) continue;
        int type = tokenizer->vocab.types[id];
        if (named && !tokenizer->added.special[id] && type != SL_TOKEN_USER) continue;
        bool known = false;
        for (size_t k = 0; k < tokenizer->n_end_ids; k++) known = known || ids[k] == id;
        if (!known) ids[tokenizer->n_end_ids++] = id;
    }
    return SLLM_OK;
}

void sl_tokenizer_free(sl_tokenizer *tokenizer) {
    if (!tokenizer) return;
    for (size_t i = 0; i < tokenizer->n_normalize; i++) sl_regex_free(tokenizer->normalize[i].regex);
    for (size_t i = 0; i < tokenizer->n_split; i++) sl_regex_free(tokenizer->split[i].regex);
    for (size_t i = 0; i < tokenizer->n_decode; i++) sl_regex_free(tokenizer->decode[i].regex);
    free(tokenizer->added.items);
    free(tokenizer->added.special);
    sl_trie_free(&tokenizer->added.raw);
    sl_trie_free(&tokenizer->added.normal);
    free(tokenizer->bpe.pairs.slots);
    free(tokenizer->bpe.pairs.filter);
    free(tokenizer->bpe.neighbours);
    sl_trie_free(&tokenizer->bpe.user);
    sl_trie_free(&tokenizer->unigram.trie);
    free(tokenizer->end_ids);
    sl_vocab_free(&tokenizer->vocab);
    sl_arena_free(&tokenizer->arena);
    free(tokenizer);
}

/* ---------------------------------------------------------------- asking */

int32_t sl_tokenizer_special(const sl_tokenizer *tokenizer, sl_special which) {
    return which >= 0 && which < SL_SPECIAL_COUNT ? tokenizer->special[which] : -1;
}

const int32_t *sl_tokenizer_end_ids(const sl_tokenizer *tokenizer, size_t *n) {
    *n = tokenizer->n_end_ids;
    return tokenizer->end_ids;
}

int32_t sl_tokenizer_size(const sl_tokenizer *tokenizer) { return tokenizer->vocab.size; }

static bool exists(const sl_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocab.size && tokenizer->vocab.types[id] != SL_TOKEN_ABSENT;
}

const char *sl_tokenizer_text(const sl_tokenizer *tokenizer, int32_t id) {
    return exists(tokenizer, id) ? tokenizer->vocab.pool.data + tokenizer->vocab.texts[id].offset : NULL;
}

const char *sl_tokenizer_piece(const sl_tokenizer *tokenizer, int32_t id, size_t *length) {
    *length = 0;
    if (!exists(tokenizer, id)) return NULL;
    *length = tokenizer->vocab.pieces[id].length;
    return tokenizer->vocab.pool.data + tokenizer->vocab.pieces[id].offset;
}

bool sl_tokenizer_is_special(const sl_tokenizer *tokenizer, int32_t id) {
    return exists(tokenizer, id) && tokenizer->added.special[id];
}

int32_t sl_tokenizer_find(const sl_tokenizer *tokenizer, const char *text, size_t length) {
    const sl_vocab *vocab = &tokenizer->vocab;
    int32_t id = sl_strings_find(&vocab->by_text, vocab->pool.data, vocab->texts, text, length);
    if (id >= 0) return id;
    if (vocab->keys == vocab->texts) return sl_vocab_find(vocab, text, length);
    /* Byte-level: the table is by bytes, the question by letters. */
    char small[256], *bytes = length <= sizeof small ? small : malloc(length);
    size_t n;
    if (!bytes) return -1;
    if (sl_bytes_of_letters(text, length, bytes, &n)) id = sl_vocab_find(vocab, bytes, n);
    if (bytes != small) free(bytes);
    return id;
}

const char *sl_tokenizer_kind(const sl_tokenizer *tokenizer) {
    static const char *const names[] = {"bpe", "spm", "unigram", "wordpiece", "wordlevel"};
    return names[tokenizer->kind];
}

const char *sl_tokenizer_pre(const sl_tokenizer *tokenizer) { return tokenizer->pre; }

bool sl_tokenizer_adds_bos(const sl_tokenizer *tokenizer) {
    int32_t bos = tokenizer->special[SL_SPECIAL_BOS];
    return bos >= 0 && tokenizer->n_prefix && tokenizer->prefix[0] == bos;
}
