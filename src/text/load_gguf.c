/* A tokenizer from the tokenizer.ggml.* metadata of a GGUF file. The file says less than the tokenizer.json it was made
 * from (no normaliser, no flags of added tokens); what is missing follows from the model and pre-tokeniser names. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* What the metadata says beyond the vocabulary. */
typedef struct metadata {
    const sl_gguf *gguf;
    sllm_error *error;
    const char *model, *pre, *architecture;
    size_t model_length, pre_length, architecture_length;
    int64_t n_tokens;
} metadata;

static bool is(const char *text, size_t length, const char *name) {
    return strlen(name) == length && !memcmp(text, name, length);
}

/* An array of `type`, or absent. */
static sllm_status get_array(const metadata *m, const char *key, sl_gguf_type type, sl_gguf_value *value, bool *found) {
    *found = sl_gguf_find(m->gguf, key, value);
    if (!*found) return SLLM_OK;
    if (value->type != SL_GGUF_ARRAY || value->array.type != type)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: not an array of %s", key,
                       type == SL_GGUF_STRING ? "strings" : type == SL_GGUF_F32 ? "f32" : "i32");
    return SLLM_OK;
}

static sllm_status get_bool(const metadata *m, const char *key, bool *out) {
    sllm_error error = {0};
    if (!sl_gguf_get_bool(m->gguf, key, out, &error) && error.status != SLLM_OK) {
        if (m->error) *m->error = error;
        return error.status;
    }
    return SLLM_OK;
}

/* A token id; absent (and 2^32 - 1, which some converters write for "none") leaves *out alone. */
static sllm_status get_id(const metadata *m, const char *key, int32_t *out) {
    sllm_error error = {0};
    int64_t value;
    if (!sl_gguf_get_int(m->gguf, key, &value, &error)) {
        if (error.status != SLLM_OK && m->error) *m->error = error;
        return error.status;
    }
    if (value == UINT32_MAX || value == -1) return SLLM_OK;
    if (value < 0 || value >= m->n_tokens)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: %lld is outside the vocabulary of %lld tokens", key,
                       (long long)value, (long long)m->n_tokens);
    *out = (int32_t)value;
    return SLLM_OK;
}

/* ---------------------------------------------------------------- vocabulary */

static sllm_status check_count(const metadata *m, const char *key, uint64_t count) {
    if (count == (uint64_t)m->n_tokens) return SLLM_OK;
    return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: %llu entries for %lld tokens", key, (unsigned long long)count,
                   (long long)m->n_tokens);
}

/* WordPiece: the converter marked word starts with U+2581 and dropped the "##" of the rest. Both are put back. */
static bool set_wordpiece(sl_vocab *vocab, int32_t id, const char *text, size_t length, int type) {
    if (type == SL_TOKEN_CONTROL) return sl_vocab_set(vocab, id, text, length, type, 0);
    if (length > 3 && !memcmp(text, "\xE2\x96\x81", 3)) return sl_vocab_set(vocab, id, text + 3, length - 3, type, 0);
    sl_buffer marked = {0};
    bool ok = sl_buffer_append(&marked, "##", 2) && sl_buffer_append(&marked, text, length) &&
              sl_vocab_set(vocab, id, marked.data, marked.length, type, 0);
    sl_buffer_free(&marked);
    return ok;
}

static sllm_status load_tokens(sl_tokenizer *tokenizer, metadata *m) {
    sl_gguf_value tokens, types, scores, item;
    bool has_tokens, has_types, has_scores, wordpiece = is(m->model, m->model_length, "bert");
    sllm_status status = get_array(m, KEY("tokens"), SL_GGUF_STRING, &tokens, &has_tokens);
    if (status == SLLM_OK) status = get_array(m, KEY("token_type"), SL_GGUF_I32, &types, &has_types);
    if (status == SLLM_OK) status = get_array(m, KEY("scores"), SL_GGUF_F32, &scores, &has_scores);
    if (status != SLLM_OK) return status;
    if (!has_tokens || tokens.array.count == 0)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: missing or empty: this file has no vocabulary", KEY("tokens"));
    if (tokens.array.count > INT32_MAX / 4)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: %llu tokens are too many", KEY("tokens"),
                       (unsigned long long)tokens.array.count);
    m->n_tokens = (int64_t)tokens.array.count;
    if (has_types && (status = check_count(m, KEY("token_type"), types.array.count)) != SLLM_OK) return status;
    if (has_scores && (status = check_count(m, KEY("scores"), scores.array.count)) != SLLM_OK) return status;
    status = sl_vocab_init(&tokenizer->vocab, (int32_t)m->n_tokens, has_scores, m->error);
    if (status != SLLM_OK) return status;
    /* The strings lie in the file one behind the other, each with 8 bytes of length: what they need is known. */
    size_t bytes = (size_t)(tokens.array.end - tokens.array.data);
    if (bytes > UINT32_MAX / 2 || !sl_buffer_reserve(&tokenizer->vocab.pool, bytes))
        return sl_fail_memory(m->error, "the vocabulary", bytes);
    const unsigned char *token_at = tokens.array.data, *type_at = has_types ? types.array.data : NULL;
    const unsigned char *score_at = has_scores ? scores.array.data : NULL;
    for (int32_t id = 0; id < (int32_t)m->n_tokens; id++) {
        int type = SL_TOKEN_NORMAL;
        float score = 0;
        if (type_at && sl_gguf_array_next(&types, &type_at, &item))
            type = item.i >= 1 && item.i <= 6 ? (int)item.i : SL_TOKEN_NORMAL;
        if (score_at && sl_gguf_array_next(&scores, &score_at, &item)) score = (float)item.f;
        if (!sl_gguf_array_next(&tokens, &token_at, &item))
            return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: ends after %d strings", KEY("tokens"), id);
        if (score != score)
            return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: the score of token %d is not a number", KEY("scores"), id);
        bool ok = wordpiece ? set_wordpiece(&tokenizer->vocab, id, item.string.data, item.string.length, type)
                            : sl_vocab_set(&tokenizer->vocab, id, item.string.data, item.string.length, type, score);
        if (!ok)
            return sl_fail_memory(m->error, "the vocabulary", item.string.length);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- merges */

/* One merge "left right"; the blank is looked for from the second byte on, since a token may begin with one. */
static sllm_status add_merge(sl_merges *merges, const metadata *m, const char *text, size_t length, uint32_t rank) {
    const char *blank = length > 1 ? memchr(text + 1, ' ', length - 1) : NULL;
    if (!blank)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: entry %u is not two tokens with a blank between",
                       KEY("merges"), rank);
    size_t left = (size_t)(blank - text);
    return sl_merges_add(merges, rank, text, left, blank + 1, length - left - 1, m->error);
}

static sllm_status load_merges(sl_tokenizer *tokenizer, const metadata *m) {
    sl_gguf_value merges, item;
    bool found;
    sllm_status status = get_array(m, KEY("merges"), SL_GGUF_STRING, &merges, &found);
    if (status != SLLM_OK) return status;
    if (!found)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: missing: byte-pair encoding needs its merges", KEY("merges"));
    if (merges.array.count > INT32_MAX / 4)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: %llu merges are too many", KEY("merges"),
                       (unsigned long long)merges.array.count);
    sl_merges *list = sl_merges_new(tokenizer, (size_t)merges.array.count, KEY("merges"), m->error);
    if (!list) return SLLM_ERROR_MEMORY;
    const unsigned char *at = merges.array.data;
    for (uint32_t rank = 0; rank < merges.array.count && status == SLLM_OK; rank++) {
        if (!sl_gguf_array_next(&merges, &at, &item))
            status = sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: ends after %u strings", KEY("merges"), rank);
        else
            status = add_merge(list, m, item.string.data, item.string.length, rank);
    }
    if (status == SLLM_OK) status = sl_merges_finish(list, m->error);
    sl_merges_free(list);
    return status;
}

/* ---------------------------------------------------------------- special and added tokens */

static sllm_status load_special_ids(sl_tokenizer *tokenizer, const metadata *m) {
    static const struct { const char *key; sl_special which; } keys[] = {
        {KEY("bos_token_id"), SL_SPECIAL_BOS},
        {KEY("eos_token_id"), SL_SPECIAL_EOS},
        {KEY("unknown_token_id"), SL_SPECIAL_UNK},
        {KEY("padding_token_id"), SL_SPECIAL_PAD},
        {KEY("separator_token_id"), SL_SPECIAL_SEP},
        {KEY("seperator_token_id"), SL_SPECIAL_SEP}, /* the format's spelling */
        {KEY("cls_token_id"), SL_SPECIAL_CLS},
        {KEY("mask_token_id"), SL_SPECIAL_MASK},
        {KEY("prefix_token_id"), SL_SPECIAL_FIM_PREFIX},
        {KEY("suffix_token_id"), SL_SPECIAL_FIM_SUFFIX},
        {KEY("middle_token_id"), SL_SPECIAL_FIM_MIDDLE},
        {KEY("fim_pre_token_id"), SL_SPECIAL_FIM_PREFIX},
        {KEY("fim_suf_token_id"), SL_SPECIAL_FIM_SUFFIX},
        {KEY("fim_mid_token_id"), SL_SPECIAL_FIM_MIDDLE},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        sllm_status status = get_id(m, keys[i].key, &tokenizer->special[keys[i].which]);
        if (status != SLLM_OK) return status;
    }
    int32_t ends[2] = {-1, -1};
    sllm_status status = get_id(m, KEY("eot_token_id"), &ends[0]);
    if (status == SLLM_OK) status = get_id(m, KEY("eom_token_id"), &ends[1]);
    if (status != SLLM_OK) return status;
    tokenizer->end_ids = malloc(2 * sizeof *tokenizer->end_ids);
    if (!tokenizer->end_ids) return sl_fail_memory(m->error, "end tokens", 8);
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) tokenizer->end_ids[tokenizer->n_end_ids++] = ends[i];
    return SLLM_OK;
}

/* "[PAD151646]": a converter's filler for an id without a token. */
static bool is_filler(const char *text, size_t length, int32_t id) {
    char name[24];
    int n = snprintf(name, sizeof name, "[PAD%d]", id);
    return (size_t)n == length && !memcmp(text, name, length);
}

/* Control and user-defined tokens are the added tokens of the tokenizer.json. SentencePiece itself also has
 * user-defined pieces, which it cuts out of the normalised text: those of a model without dummy prefix, and any with a
 * blank. */
static sllm_status load_added(sl_tokenizer *tokenizer, const metadata *m, bool dummy_prefix) {
    const sl_vocab *vocab = &tokenizer->vocab;
    bool spm = tokenizer->kind == SL_MODEL_SPM, phi3 = spm && is(m->architecture, m->architecture_length, "phi3");
    for (int32_t id = 0; id < vocab->size; id++) {
        int type = vocab->types[id];
        if (type != SL_TOKEN_CONTROL && type != SL_TOKEN_USER && id != tokenizer->special[SL_SPECIAL_UNK]) continue;
        sl_span span = vocab->texts[id];
        const char *text = vocab->pool.data + span.offset;
        if (!span.length || is_filler(text, span.length, id)) continue;
        sl_added item = {.id = id, .special = type != SL_TOKEN_USER};
        if (spm && type == SL_TOKEN_USER && sl_utf8_is_valid(text, span.length) &&
            (!dummy_prefix || memmem(text, span.length, "\xE2\x96\x81", 3))) {
            if (!sl_trie_add(&tokenizer->bpe.user, text, span.length, id))
                return sl_fail_memory(m->error, "user-defined tokens", 0);
            tokenizer->bpe.has_user = true;
            continue;
        }
        /* Phi-3's chat markers take the blanks behind them. */
        if (phi3)
            item.rstrip = !is(text, span.length, "<s>") && !is(text, span.length, "<unk>") &&
                          !is(text, span.length, "<|endoftext|>");
        sllm_status status = sl_added_add(tokenizer, item, m->error);
        if (status != SLLM_OK) return status;
    }
    return sl_added_index(tokenizer, m->error);
}

static sllm_status affix(int32_t *list, size_t *n, int32_t id, const char *what, sllm_error *error) {
    if (id < 0) return sl_fail(error, SLLM_ERROR_FORMAT, "the vocabulary asks to add a %s token but names none", what);
    list[(*n)++] = id;
    return SLLM_OK;
}

static sllm_status load_affixes(sl_tokenizer *tokenizer, const metadata *m, bool bos, bool eos, bool sep) {
    sllm_status status = get_bool(m, KEY("add_bos_token"), &bos);
    if (status == SLLM_OK) status = get_bool(m, KEY("add_eos_token"), &eos);
    if (status == SLLM_OK) status = get_bool(m, KEY("add_sep_token"), &sep);
    const int32_t *special = tokenizer->special;
    bool bert = tokenizer->kind == SL_MODEL_WORDPIECE;
    if (status == SLLM_OK && bos)
        status = affix(tokenizer->prefix, &tokenizer->n_prefix,
                       bert && special[SL_SPECIAL_CLS] >= 0 ? special[SL_SPECIAL_CLS] : special[SL_SPECIAL_BOS], "BOS",
                       m->error);
    if (status == SLLM_OK && eos)
        status = affix(tokenizer->suffix, &tokenizer->n_suffix, special[SL_SPECIAL_EOS], "EOS", m->error);
    if (status == SLLM_OK && sep)
        status = affix(tokenizer->suffix, &tokenizer->n_suffix, special[SL_SPECIAL_SEP], "SEP", m->error);
    return status;
}

/* ---------------------------------------------------------------- models */

static sllm_status add_sentence_decoder(sl_tokenizer *tokenizer, bool strip, sllm_error *error) {
    sl_decode_step blank = {
        .kind = SL_DECODE_REPLACE, .pattern = "\xE2\x96\x81", .pattern_length = 3, .content = " ", .content_length = 1};
    sllm_status status = sl_add_decode(tokenizer, blank, error);
    if (status == SLLM_OK) status = sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_BYTE_FALLBACK}, error);
    if (status == SLLM_OK) status = sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_FUSE}, error);
    if (status == SLLM_OK && strip)
        status = sl_add_decode(
            tokenizer, (sl_decode_step){.kind = SL_DECODE_STRIP, .content = " ", .content_length = 1, .start = 1},
            error);
    return status;
}

/* "gpt2": byte-level BPE, the pre-tokeniser by name. */
static sllm_status load_bpe(sl_tokenizer *tokenizer, metadata *m) {
    bool adds_bos = false, adds_sep = false;
    tokenizer->kind = SL_MODEL_BPE;
    tokenizer->bpe.byte_level = true;
    tokenizer->bpe.unk = -1;
    sllm_status status = sl_pretokenizer_named(tokenizer, m->pre, m->pre_length, &adds_bos, &adds_sep, m->error);
    if (status == SLLM_OK)
        status =
            sl_vocab_index(&tokenizer->vocab, tokenizer->bpe.byte_level ? SL_SPELLING_BYTE_LEVEL : SL_SPELLING_SENTENCE,
                           NULL, m->error);
    if (status == SLLM_OK) status = load_merges(tokenizer, m);
    if (status == SLLM_OK && tokenizer->bpe.byte_fallback) tokenizer->bpe.unk = tokenizer->special[SL_SPECIAL_UNK];
    if (status == SLLM_OK) status = sl_bpe_prepare(tokenizer, m->error);
    if (status == SLLM_OK) status = load_added(tokenizer, m, false);
    if (status == SLLM_OK)
        status = load_affixes(tokenizer, m, adds_bos && tokenizer->special[SL_SPECIAL_BOS] >= 0, false, adds_sep);
    if (status != SLLM_OK) return status;
    if (!tokenizer->bpe.byte_level) return add_sentence_decoder(tokenizer, false, m->error);
    return sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_BYTE_LEVEL}, m->error);
}

/* "llama": SentencePiece's BPE. */
static sllm_status load_spm(sl_tokenizer *tokenizer, metadata *m) {
    bool prefix = true;
    tokenizer->kind = SL_MODEL_SPM;
    sl_bpe *bpe = &tokenizer->bpe;
    bpe->by_score = bpe->byte_fallback = bpe->fuse_unk = true;
    bpe->unk = tokenizer->special[SL_SPECIAL_UNK];
    if (!tokenizer->vocab.scores)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: missing: a 'llama' vocabulary is ordered by scores",
                       KEY("scores"));
    sllm_status status = get_bool(m, KEY("add_space_prefix"), &prefix);
    if (status == SLLM_OK) status = sl_vocab_index(&tokenizer->vocab, SL_SPELLING_SENTENCE, NULL, m->error);
    if (status == SLLM_OK) status = sl_bpe_prepare(tokenizer, m->error);
    if (status == SLLM_OK && prefix)
        status = sl_add_normalize(
            tokenizer,
            (sl_normalize_step){.kind = SL_NORMALIZE_PREPEND, .content = "\xE2\x96\x81", .content_length = 3},
            m->error);
    if (status == SLLM_OK)
        status = sl_add_normalize(tokenizer,
                                  (sl_normalize_step){.kind = SL_NORMALIZE_REPLACE,
                                                      .pattern = " ",
                                                      .pattern_length = 1,
                                                      .content = "\xE2\x96\x81",
                                                      .content_length = 3},
                                  m->error);
    if (status == SLLM_OK) status = load_added(tokenizer, m, prefix);
    if (status == SLLM_OK) status = load_affixes(tokenizer, m, tokenizer->special[SL_SPECIAL_BOS] >= 0, false, false);
    return status == SLLM_OK ? add_sentence_decoder(tokenizer, prefix, m->error) : status;
}

/* "bert": WordPiece. */
static sllm_status load_wordpiece(sl_tokenizer *tokenizer, metadata *m) {
    bool lowercase = true, strip = true;
    tokenizer->kind = SL_MODEL_WORDPIECE;
    tokenizer->wordpiece = (sl_wordpiece){.unk = tokenizer->special[SL_SPECIAL_UNK], .prefix = "##", .prefix_length = 2,
                                          .max_chars = 100};
    sllm_status status = get_bool(m, KEY("normalizer.lowercase"), &lowercase);
    strip = lowercase;
    if (status == SLLM_OK) status = get_bool(m, KEY("normalizer.strip_accents"), &strip);
    if (status == SLLM_OK)
        status = sl_add_normalize(tokenizer,
                                  (sl_normalize_step){.kind = SL_NORMALIZE_BERT,
                                                      .clean_text = true,
                                                      .chinese = true,
                                                      .strip_accents = strip,
                                                      .lowercase = lowercase},
                                  m->error);
    if (status == SLLM_OK)
        status = sl_add_split(tokenizer, (sl_split_step){.kind = SL_SPLIT_BERT, .behaviour = SL_ISOLATED}, m->error);
    if (status == SLLM_OK) status = sl_vocab_index(&tokenizer->vocab, SL_SPELLING_WORDPIECE, "##", m->error);
    if (status == SLLM_OK) status = load_added(tokenizer, m, false);
    if (status == SLLM_OK) status = load_affixes(tokenizer, m, true, false, true);
    if (status != SLLM_OK) return status;
    return sl_add_decode(
        tokenizer, (sl_decode_step){.kind = SL_DECODE_WORDPIECE, .pattern = "##", .pattern_length = 2, .cleanup = true},
        m->error);
}

/* "t5": Unigram with SentencePiece's normaliser. */
static sllm_status load_unigram(sl_tokenizer *tokenizer, metadata *m) {
    sl_normalize_step step = {.kind = SL_NORMALIZE_SENTENCEPIECE, .dummy_prefix = true, .escape = true};
    sl_gguf_value map;
    tokenizer->kind = SL_MODEL_UNIGRAM;
    tokenizer->unigram.unk = tokenizer->special[SL_SPECIAL_UNK];
    if (!tokenizer->vocab.scores)
        return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: missing: a 't5' vocabulary is ordered by scores",
                       KEY("scores"));
    sllm_status status = get_bool(m, KEY("add_space_prefix"), &step.dummy_prefix);
    if (status == SLLM_OK) status = get_bool(m, KEY("remove_extra_whitespaces"), &step.collapse);
    if (status == SLLM_OK && sl_gguf_find(m->gguf, KEY("precompiled_charsmap"), &map)) {
        if (map.type != SL_GGUF_ARRAY || (map.array.type != SL_GGUF_I8 && map.array.type != SL_GGUF_U8))
            return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: not an array of bytes", KEY("precompiled_charsmap"));
        unsigned char *copy = sl_arena_alloc(&tokenizer->arena, (size_t)map.array.count + 1);
        if (!copy) return sl_fail_memory(m->error, "the character map", (size_t)map.array.count);
        memcpy(copy, map.array.data, (size_t)map.array.count);
        status = sl_charsmap_open(copy, (size_t)map.array.count, &step.charsmap, m->error);
    }
    if (status == SLLM_OK) status = sl_add_normalize(tokenizer, step, m->error);
    if (status == SLLM_OK) status = sl_vocab_index(&tokenizer->vocab, SL_SPELLING_SENTENCE, NULL, m->error);
    if (status == SLLM_OK) status = sl_unigram_prepare(tokenizer, m->error);
    if (status == SLLM_OK) status = load_added(tokenizer, m, step.dummy_prefix);
    if (status == SLLM_OK) status = load_affixes(tokenizer, m, false, true, false);
    return status == SLLM_OK ? sl_add_decode(tokenizer,
                                             (sl_decode_step){.kind = SL_DECODE_METASPACE,
                                                              .pattern = "\xE2\x96\x81",
                                                              .pattern_length = 3,
                                                              .prepend = step.dummy_prefix},
                                             m->error)
                             : status;
}

static sllm_status load(sl_tokenizer *tokenizer, metadata *m) {
    sllm_error error = {0};
    if (!sl_gguf_get_string(m->gguf, KEY("model"), &m->model, &m->model_length, &error)) /* absent: computes all the same */
        return sl_fail(m->error, error.status ? SLLM_ERROR_FORMAT : SLLM_ERROR_NOT_FOUND, "%s: missing or not a string: this file has no tokenizer",
                       KEY("model"));
    if (!sl_gguf_get_string(m->gguf, KEY("pre"), &m->pre, &m->pre_length, &error)) m->pre = "", m->pre_length = 0;
    if (error.status != SLLM_OK) return sl_fail(m->error, SLLM_ERROR_FORMAT, "%s: not a string", KEY("pre"));
    if (!sl_gguf_get_string(m->gguf, "general.architecture", &m->architecture, &m->architecture_length, &error))
        m->architecture = "", m->architecture_length = 0;
    sllm_status status = load_tokens(tokenizer, m);
    if (status == SLLM_OK) status = load_special_ids(tokenizer, m);
    if (status != SLLM_OK) return status;
    bool gemma4 = is(m->model, m->model_length, "gemma4");
    if (gemma4) m->pre = "gemma4", m->pre_length = 6;
    snprintf(tokenizer->pre, sizeof tokenizer->pre, "%.*s", (int)(m->pre_length < 63 ? m->pre_length : 63), m->pre);
    if (gemma4 || is(m->model, m->model_length, "gpt2")) status = load_bpe(tokenizer, m);
    else if (is(m->model, m->model_length, "llama")) status = load_spm(tokenizer, m);
    else if (is(m->model, m->model_length, "bert")) status = load_wordpiece(tokenizer, m);
    else if (is(m->model, m->model_length, "t5")) status = load_unigram(tokenizer, m);
    else
        return sl_fail(m->error, SLLM_ERROR_UNSUPPORTED,
                       "%s: '%.*s' is not supported; known: gpt2, llama, gemma4, bert, t5", KEY("model"),
                       (int)(m->model_length < 80 ? m->model_length : 80), m->model);
    return status == SLLM_OK ? sl_tokenizer_finish(tokenizer, m->error) : status;
}

sllm_status sl_tokenizer_from_gguf(const sl_gguf *gguf, sl_tokenizer **tokenizer, sllm_error *error) {
    *tokenizer = NULL;
    sl_tokenizer *made = sl_tokenizer_new(error);
    if (!made) return SLLM_ERROR_MEMORY;
    metadata m = {.gguf = gguf, .error = error};
    sllm_status status = load(made, &m);
    if (status == SLLM_OK) *tokenizer = made;
    else sl_tokenizer_free(made);
    return status;
}
