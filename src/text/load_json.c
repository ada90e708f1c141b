/* A tokenizer from a tokenizer.json (Hugging Face tokenizers): vocabulary, merges, added tokens, and what
 * tokenizer_config.json says about special tokens. `truncation` and `padding` are settings of a data loader, not of the
 * text's meaning, and are left to the caller. */
#include "text/load_json.h"
#include "text/load_files.h"

#include "base/error.h"
#include "base/map.h"

#include <stdlib.h>
#include <string.h>

typedef struct loader {
    sl_tokenizer *tokenizer;
    const sl_json *root, *model;
    const sl_tokenizer_settings *settings;
    sl_json_steps steps;
    sllm_error *error;
} loader;

/* ---------------------------------------------------------------- vocabulary */

/* Ids may have holes, but not so many that a small file asks for a large table. */
static sllm_status check_id(const loader *l, int64_t id, size_t n_tokens) {
    if (id >= 0 && (uint64_t)id < 4 * (uint64_t)n_tokens + (1 << 16) && id < INT32_MAX / 4) return SLLM_OK;
    return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: token id %lld is out of range for %zu tokens",
                   (long long)id, n_tokens);
}

static const sl_json *vocab_of(const loader *l) { return sl_json_get(l->model, "vocab"); }

static sllm_status find_size(const loader *l, int32_t *size) {
    const sl_json *vocab = vocab_of(l), *added = sl_json_get(l->root, "added_tokens");
    size_t n = (vocab ? vocab->length : 0) + (added && added->type == SL_JSON_ARRAY ? added->length : 0);
    int64_t most = vocab && vocab->type == SL_JSON_ARRAY ? (int64_t)vocab->length - 1 : -1, id;
    sllm_status status = SLLM_OK;
    if (!vocab || (vocab->type != SL_JSON_ARRAY && vocab->type != SL_JSON_OBJECT))
        return sl_fail(l->error, SLLM_ERROR_FORMAT,
                       "tokenizer.json: model.vocab is missing or neither an object nor an array");
    for (const sl_json *item = vocab->type == SL_JSON_OBJECT ? vocab->first : NULL; item; item = item->next) {
        if (!sl_json_int64(item, &id))
            return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.vocab: an id is not an integer");
        if ((status = check_id(l, id, n)) != SLLM_OK) return status;
        if (id > most) most = id;
    }
    for (const sl_json *item = added && added->type == SL_JSON_ARRAY ? added->first : NULL; item; item = item->next) {
        if (!sl_json_int64(sl_json_get(item, "id"), &id))
            return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: added_tokens: an entry without an integer id");
        if ((status = check_id(l, id, n)) != SLLM_OK) return status;
        if (id > most) most = id;
    }
    if (most >= INT32_MAX / 4) return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: too many tokens");
    *size = (int32_t)(most + 1);
    if (*size == 0) return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.vocab is empty");
    return SLLM_OK;
}

static sllm_status load_vocab(loader *l) {
    const sl_json *vocab = vocab_of(l);
    int32_t size;
    sllm_status status = find_size(l, &size);
    if (status != SLLM_OK) return status;
    bool scored = vocab->type == SL_JSON_ARRAY, fallback = false;
    sl_json_bool(sl_json_get(l->model, "byte_fallback"), &fallback);
    if ((status = sl_vocab_init(&l->tokenizer->vocab, size, scored, l->error)) != SLLM_OK) return status;
    int64_t id = 0;
    for (const sl_json *item = vocab->first; item; item = item->next) {
        const char *text = item->key;
        size_t length = item->key_length;
        double score = 0;
        if (scored) {
            const sl_json *piece = sl_json_at(item, 0);
            if (!piece || piece->type != SL_JSON_STRING || !sl_json_double(sl_json_at(item, 1), &score))
                return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.vocab[%lld] is not [piece, score]",
                               (long long)id);
            if (score != score)
                return sl_fail(l->error, SLLM_ERROR_FORMAT,
                               "tokenizer.json: model.vocab[%lld]: the score is not a number", (long long)id);
            text = piece->text;
            length = piece->length;
        } else {
            sl_json_int64(item, &id);
        }
        int type = fallback && sl_byte_of_token(text, length) >= 0 ? SL_TOKEN_BYTE : SL_TOKEN_NORMAL;
        if (!sl_vocab_set(&l->tokenizer->vocab, (int32_t)id, text, length, type, (float)score))
            return sl_fail_memory(l->error, "the vocabulary", length);
        id++;
    }
    return SLLM_OK;
}

/* True when token id has exactly this text. */
static bool is_token(const sl_vocab *vocab, int64_t id, const sl_json *content) {
    sl_span span = vocab->texts[id];
    return vocab->types[id] != SL_TOKEN_ABSENT && span.length == content->length &&
           !memcmp(vocab->pool.data + span.offset, content->text, content->length);
}

/* The id under which the model's vocabulary already has the text of an added token, or `id`. *map is filled when
 * needed. */
static sllm_status model_id(const loader *l, const sl_json *content, sl_map *map, int64_t *id) {
    const sl_json *vocab = vocab_of(l);
    uint64_t known, index = 0;
    if (is_token(&l->tokenizer->vocab, *id, content)) return SLLM_OK;
    if (!map->slots && vocab->length && !sl_map_reserve(map, vocab->length))
        return sl_fail_memory(l->error, "added tokens", 0);
    for (const sl_json *item = map->count ? NULL : vocab->first; item; item = item->next, index++) {
        const sl_json *piece = vocab->type == SL_JSON_ARRAY ? sl_json_at(item, 0) : NULL;
        int64_t value = (int64_t)index;
        if (!piece) sl_json_int64(item, &value);
        if (!sl_map_put(map, piece ? piece->text : item->key, piece ? piece->length : item->key_length,
                        (uint64_t)value))
            return sl_fail_memory(l->error, "added tokens", 0);
    }
    if (map->count && sl_map_get(map, content->text, content->length, &known)) *id = (int64_t)known;
    return SLLM_OK;
}

/* Added tokens: an id of the model's vocabulary or one behind it. A text that the model has goes by the model's id, as
 * in the reference. */
static sllm_status add_tokens(loader *l, sl_map *map) {
    const sl_json *list = sl_json_get(l->root, "added_tokens");
    sl_vocab *vocab = &l->tokenizer->vocab;
    for (const sl_json *item = list && list->type == SL_JSON_ARRAY ? list->first : NULL; item; item = item->next) {
        const sl_json *content = sl_json_get(item, "content");
        int64_t id = -1;
        sl_added added = {.normalized = true};
        sl_json_int64(sl_json_get(item, "id"), &id);
        if (!content || content->type != SL_JSON_STRING)
            return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: added token %lld has no \"content\"",
                           (long long)id);
        sl_json_bool(sl_json_get(item, "special"), &added.special);
        added.normalized = !added.special;
        sl_json_bool(sl_json_get(item, "normalized"), &added.normalized);
        sl_json_bool(sl_json_get(item, "lstrip"), &added.lstrip);
        sl_json_bool(sl_json_get(item, "rstrip"), &added.rstrip);
        sl_json_bool(sl_json_get(item, "single_word"), &added.single_word);
        sllm_status status = model_id(l, content, map, &id);
        if (status != SLLM_OK) return status;
        added.id = (int32_t)id;
        int type = added.special ? SL_TOKEN_CONTROL : SL_TOKEN_USER;
        if (is_token(vocab, id, content)) vocab->types[id] = (uint8_t)type;
        else if (!sl_vocab_set(vocab, added.id, content->text, content->length, type, 0))
            return sl_fail_memory(l->error, "added tokens", content->length);
        status = sl_added_add(l->tokenizer, added, l->error);
        if (status != SLLM_OK) return status;
    }
    return SLLM_OK;
}

static sllm_status load_added(loader *l) {
    sl_map map = {.seed = (uint64_t)(uintptr_t)l->tokenizer};
    sllm_status status = add_tokens(l, &map);
    sl_map_free(&map);
    return status;
}

/* ---------------------------------------------------------------- byte-pair encoding */

static sllm_status merge_parts(const loader *l, const sl_json *merge, size_t rank, const char **left,
                               size_t *left_length, const char **right, size_t *right_length) {
    const sl_json *a = sl_json_at(merge, 0), *b = sl_json_at(merge, 1);
    if (a && b && a->type == SL_JSON_STRING && b->type == SL_JSON_STRING && merge->length == 2) {
        *left = a->text;
        *left_length = a->length;
        *right = b->text;
        *right_length = b->length;
        return SLLM_OK;
    }
    const char *blank =
        merge->type == SL_JSON_STRING && merge->length > 2 ? memchr(merge->text + 1, ' ', merge->length - 2) : NULL;
    if (!blank)
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.merges[%zu] is not two tokens", rank);
    *left = merge->text;
    *left_length = (size_t)(blank - merge->text);
    *right = blank + 1;
    *right_length = merge->length - *left_length - 1;
    return SLLM_OK;
}

static sllm_status load_merges(loader *l, const sl_json *list) {
    sl_merges *merges = sl_merges_new(l->tokenizer, list->length, "tokenizer.json: model.merges", l->error);
    if (!merges) return SLLM_ERROR_MEMORY;
    sllm_status status = SLLM_OK;
    uint32_t rank = 0;
    for (const sl_json *merge = list->first; merge && status == SLLM_OK; merge = merge->next, rank++) {
        const char *left, *right;
        size_t left_length, right_length;
        status = merge_parts(l, merge, rank, &left, &left_length, &right, &right_length);
        if (status == SLLM_OK) status = sl_merges_add(merges, rank, left, left_length, right, right_length, l->error);
    }
    if (status == SLLM_OK) status = sl_merges_finish(merges, l->error);
    sl_merges_free(merges);
    return status;
}

/* A member that may be a string or null, copied. */
static sllm_status optional_text(loader *l, const char *key, const char **text, size_t *length) {
    const sl_json *member = sl_json_get(l->model, key);
    *text = NULL;
    *length = 0;
    if (!member || member->type != SL_JSON_STRING || !member->length) return SLLM_OK;
    *text = sl_arena_copy(&l->tokenizer->arena, member->text, member->length);
    *length = member->length;
    return *text ? SLLM_OK : sl_fail_memory(l->error, "tokenizer.json", member->length);
}

static sllm_status find_unknown(const loader *l, int32_t *id) {
    const sl_json *unk = sl_json_get(l->model, "unk_token");
    *id = -1;
    if (!unk || unk->type != SL_JSON_STRING) return SLLM_OK;
    *id = sl_tokenizer_find(l->tokenizer, unk->text, unk->length);
    if (*id < 0)
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.unk_token is not in the vocabulary");
    return SLLM_OK;
}

static sllm_status load_bpe(loader *l) {
    sl_tokenizer *tokenizer = l->tokenizer;
    sl_bpe *bpe = &tokenizer->bpe;
    const sl_json *merges = sl_json_get(l->model, "merges"), *dropout = sl_json_get(l->model, "dropout");
    double rate = 0;
    tokenizer->kind = SL_MODEL_BPE;
    if (dropout && sl_json_double(dropout, &rate) && rate != 0)
        return sl_fail(l->error, SLLM_ERROR_UNSUPPORTED,
                       "tokenizer.json: model.dropout %g makes ids random; set it to null", rate);
    if (!merges || merges->type != SL_JSON_ARRAY)
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.merges is missing");
    sl_json_bool(sl_json_get(l->model, "fuse_unk"), &bpe->fuse_unk);
    sl_json_bool(sl_json_get(l->model, "byte_fallback"), &bpe->byte_fallback);
    sl_json_bool(sl_json_get(l->model, "ignore_merges"), &bpe->ignore_merges);
    sllm_status status = optional_text(l, "continuing_subword_prefix", &bpe->prefix, &bpe->prefix_length);
    if (status == SLLM_OK) status = optional_text(l, "end_of_word_suffix", &bpe->suffix, &bpe->suffix_length);
    bpe->byte_level = l->steps.byte_level && !bpe->prefix && !bpe->suffix && !bpe->byte_fallback;
    if (status == SLLM_OK && l->steps.byte_level && !bpe->byte_level) { /* letters instead of bytes */
        l->steps.byte_level = false;
        l->steps.letters = true;
        status = sl_add_split(tokenizer, (sl_split_step){.kind = SL_SPLIT_LETTERS}, l->error);
    }
    if (status == SLLM_OK)
        status = sl_vocab_index(&tokenizer->vocab,
                                bpe->byte_level    ? SL_SPELLING_BYTE_LEVEL
                                : l->steps.letters ? SL_SPELLING_LETTERS
                                                   : SL_SPELLING_SENTENCE,
                                NULL, l->error);
    if (status == SLLM_OK) status = find_unknown(l, &bpe->unk);
    if (status == SLLM_OK) status = load_merges(l, merges);
    return status == SLLM_OK ? sl_bpe_prepare(tokenizer, l->error) : status;
}

/* ---------------------------------------------------------------- the other models */

/* ByteLevel before a model that looks words up whole: the words are letters. */
static sllm_status letters_if_bytes(loader *l) {
    if (!l->steps.byte_level) return SLLM_OK;
    l->steps.letters = true;
    return sl_add_split(l->tokenizer, (sl_split_step){.kind = SL_SPLIT_LETTERS}, l->error);
}

static sllm_status load_unigram(loader *l) {
    sl_tokenizer *tokenizer = l->tokenizer;
    int64_t unk = -1;
    tokenizer->kind = SL_MODEL_UNIGRAM;
    const sl_json *unk_id = sl_json_get(l->model, "unk_id");
    if (!tokenizer->vocab.scores)
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: a Unigram vocabulary is a list of [piece, score]");
    if (unk_id && unk_id->type != SL_JSON_NULL &&
        (!sl_json_int64(unk_id, &unk) || unk < 0 || unk >= tokenizer->vocab.size))
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.unk_id is outside the vocabulary");
    tokenizer->unigram.unk = (int32_t)unk;
    sl_json_bool(sl_json_get(l->model, "byte_fallback"), &tokenizer->unigram.byte_fallback);
    /* The unknown piece is not a piece of any text (SentencePiece keeps it apart). */
    if (unk >= 0 && tokenizer->vocab.types[unk] == SL_TOKEN_NORMAL) tokenizer->vocab.types[unk] = SL_TOKEN_UNKNOWN;
    sllm_status status = letters_if_bytes(l);
    if (status == SLLM_OK)
        status = sl_vocab_index(&tokenizer->vocab, l->steps.letters ? SL_SPELLING_LETTERS : SL_SPELLING_SENTENCE, NULL,
                                l->error);
    return status == SLLM_OK ? sl_unigram_prepare(tokenizer, l->error) : status;
}

static sllm_status load_words(loader *l, bool pieces) {
    sl_tokenizer *tokenizer = l->tokenizer;
    sl_wordpiece *model = &tokenizer->wordpiece;
    int64_t most = 100;
    tokenizer->kind = pieces ? SL_MODEL_WORDPIECE : SL_MODEL_WORDLEVEL;
    sllm_status status = optional_text(l, "continuing_subword_prefix", &model->prefix, &model->prefix_length);
    if (status == SLLM_OK && !model->prefix) model->prefix = "";
    if (sl_json_get(l->model, "max_input_chars_per_word") &&
        (!sl_json_int64(sl_json_get(l->model, "max_input_chars_per_word"), &most) || most < 0))
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.max_input_chars_per_word is not a count");
    model->max_chars = (size_t)most;
    if (status == SLLM_OK) status = letters_if_bytes(l);
    if (status == SLLM_OK)
        status = sl_vocab_index(&tokenizer->vocab,
                                l->steps.letters ? SL_SPELLING_LETTERS
                                : pieces         ? SL_SPELLING_WORDPIECE
                                                 : SL_SPELLING_PLAIN,
                                model->prefix, l->error);
    return status == SLLM_OK ? find_unknown(l, &model->unk) : status;
}

static sllm_status load_model(loader *l) {
    const char *type = sl_json_string(sl_json_get(l->model, "type"));
    if (!type) { /* older files do not say */
        const sl_json *vocab = vocab_of(l);
        type = sl_json_get(l->model, "merges") ? "BPE" : vocab && vocab->type == SL_JSON_ARRAY ? "Unigram"
               : sl_json_get(l->model, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
    }
    bool array = vocab_of(l)->type == SL_JSON_ARRAY;
    if (array != !strcmp(type, "Unigram"))
        return sl_fail(l->error, SLLM_ERROR_FORMAT, "tokenizer.json: model.vocab does not fit the model \"%.40s\"",
                       type);
    if (!strcmp(type, "BPE")) return load_bpe(l);
    if (!strcmp(type, "Unigram")) return load_unigram(l);
    if (!strcmp(type, "WordPiece")) return load_words(l, true);
    if (!strcmp(type, "WordLevel")) return load_words(l, false);
    return sl_fail(l->error, SLLM_ERROR_UNSUPPORTED,
                   "tokenizer.json: model \"%.40s\" is not supported; known: BPE, Unigram, WordPiece, WordLevel", type);
}

/* ---------------------------------------------------------------- tokenizer_config.json */

/* add_bos_token and add_eos_token count where the tokenizer's class builds its template from them (Llama, Gemma); other
 * classes go by the post-processor alone. */
static sllm_status apply_config(loader *l) {
    sl_tokenizer *tokenizer = l->tokenizer;
    const char *class = sl_tokenizer_class(l->settings);
    sl_tokenizer_apply_settings(tokenizer, l->settings);
    if (strncmp(class, "Llama", 5) && strncmp(class, "CodeLlama", 9) && strncmp(class, "Gemma", 5)) return SLLM_OK;
    for (int end = 0; end < 2; end++) {
        bool add;
        int32_t id = tokenizer->special[end ? SL_SPECIAL_EOS : SL_SPECIAL_BOS];
        int32_t *list = end ? tokenizer->suffix : tokenizer->prefix;
        size_t *n = end ? &tokenizer->n_suffix : &tokenizer->n_prefix;
        if (id < 0 || !sl_json_bool(sl_json_get(l->settings->config, end ? "add_eos_token" : "add_bos_token"), &add))
            continue;
        bool there = *n && list[end ? *n - 1 : 0] == id;
        if (add == there) continue;
        if (add && *n == SL_MAX_AFFIX)
            return sl_fail(l->error, SLLM_ERROR_UNSUPPORTED, "tokenizer_config.json: too many tokens to add");
        if (add) {
            memmove(list + !end, list, *n * sizeof *list);
            list[end ? *n : 0] = id;
            (*n)++;
        } else {
            (*n)--;
            memmove(list, list + !end, *n * sizeof *list);
        }
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the file */

static sllm_status load(loader *l) {
    sl_tokenizer *tokenizer = l->tokenizer;
    l->model = sl_json_get(l->root, "model");
    if (!l->model || l->model->type != SL_JSON_OBJECT)
        return sl_fail(l->error, SLLM_ERROR_FORMAT,
                       "tokenizer.json: there is no \"model\": this is not a tokenizer.json");
    sllm_status status = load_vocab(l);
    if (status == SLLM_OK) status = load_added(l);
    if (status == SLLM_OK)
        status = sl_json_normalizer(tokenizer, sl_json_get(l->root, "normalizer"), &l->steps, l->error);
    if (status == SLLM_OK)
        status = sl_json_pretokenizer(tokenizer, sl_json_get(l->root, "pre_tokenizer"), &l->steps, l->error);
    if (status == SLLM_OK) status = sl_json_decoder(tokenizer, sl_json_get(l->root, "decoder"), l->error);
    for (size_t i = 0; i < tokenizer->n_decode; i++) /* tokens are letters even where no step makes them of bytes */
        if (tokenizer->decode[i].kind == SL_DECODE_BYTE_LEVEL && !l->steps.byte_level) l->steps.letters = true;
    if (status == SLLM_OK) status = load_model(l);
    if (status == SLLM_OK) status = sl_added_index(tokenizer, l->error);
    if (status == SLLM_OK) status = sl_json_postprocessor(tokenizer, sl_json_get(l->root, "post_processor"), l->error);
    if (status == SLLM_OK && tokenizer->kind == SL_MODEL_BPE) tokenizer->special[SL_SPECIAL_UNK] = tokenizer->bpe.unk;
    if (status == SLLM_OK && tokenizer->kind == SL_MODEL_UNIGRAM)
        tokenizer->special[SL_SPECIAL_UNK] = tokenizer->unigram.unk;
    if (status == SLLM_OK && tokenizer->kind >= SL_MODEL_WORDPIECE)
        tokenizer->special[SL_SPECIAL_UNK] = tokenizer->wordpiece.unk;
    if (status == SLLM_OK) status = apply_config(l);
    return status == SLLM_OK ? sl_tokenizer_finish(tokenizer, l->error) : status;
}

sllm_status sl_load_json(const char *text, size_t length, const sl_tokenizer_settings *settings,
                         sl_tokenizer **tokenizer, sllm_error *error) {
    sl_arena arena = {0};
    loader l = {.settings = settings, .error = error};
    sllm_status status = sl_json_parse(&arena, text, length, "tokenizer.json", &l.root, error);
    if (status == SLLM_OK) {
        l.tokenizer = sl_tokenizer_new(error);
        status = l.tokenizer ? load(&l) : SLLM_ERROR_MEMORY;
    }
    if (status == SLLM_OK) *tokenizer = l.tokenizer;
    else sl_tokenizer_free(l.tokenizer);
    sl_arena_free(&arena);
    return status;
}

sllm_status sl_tokenizer_from_json(const char *text, size_t length, const char *config_json, size_t config_length,
                                   sl_tokenizer **tokenizer, sllm_error *error) {
    sl_tokenizer_settings settings = {0};
    *tokenizer = NULL;
    sllm_status status = SLLM_OK;
    if (config_json)
        status = sl_json_parse(&settings.arena, config_json, config_length, "tokenizer_config.json", &settings.config,
                               error);
    if (status == SLLM_OK) status = sl_load_json(text, length, &settings, tokenizer, error);
    sl_tokenizer_settings_free(&settings);
    return status;
}
