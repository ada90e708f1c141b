/* Text to ids: added tokens, normaliser, pre-tokeniser, model, prefix and suffix. */
#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"
#include "text/work.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- memory */

bool sl_grow(void *memory, size_t *capacity, size_t count, size_t size) {
    void **items = memory;
    size_t wanted = *capacity ? *capacity : 16, bytes;
    while (wanted < count)
        if (!sl_mul_size(wanted, 2, &wanted)) return false;
    if (wanted == *capacity && !sl_mul_size(wanted, 2, &wanted)) return false;
    if (!sl_mul_size(wanted, size, &bytes)) return false;
    void *grown = realloc(*items, bytes);
    if (!grown) return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

bool sl_ids_reserve(sl_ids *ids, size_t extra) {
    size_t wanted;
    if (!sl_add_size(ids->length, extra, &wanted)) return false;
    return wanted <= ids->capacity || sl_grow(&ids->data, &ids->capacity, wanted, sizeof *ids->data);
}

void sl_scratch_free(sl_scratch *work) {
    sl_buffer_free(&work->text);
    sl_buffer_free(&work->other);
    sl_buffer_free(&work->valid);
    free(work->pieces);
    free(work->next_pieces);
    free(work->symbols);
    free(work->heap);
    free(work->nodes);
    free(work->path);
    sl_regex_scratch_free(work->regex);
    free(work->words);
    free(work->long_words);
    free(work->long_text);
    memset(work, 0, sizeof *work);
}

#define CACHE_LINES 16384       /* 1 MiB: stays in a second-level cache */
#define SMALL_CACHE_LINES 1024  /* for one long text without a cache of the caller's */
#define SMALL_CACHE_FROM 16384  /* bytes of text from which that pays */

static bool words_new(sl_scratch *work, const sl_tokenizer *tokenizer, size_t lines) {
    if (tokenizer->kind != SL_MODEL_BPE && tokenizer->kind != SL_MODEL_SPM) return true;
    work->words = aligned_alloc(64, lines * 64);
    work->long_words = calloc(SL_LONG_SLOTS, sizeof *work->long_words);
    work->long_text = malloc(SL_LONG_TEXT); /* touched as it fills */
    work->words_mask = lines - 1;
    if (!work->words || !work->long_words || !work->long_text) return false;
    memset(work->words, 0, lines * 64);
    return true;
}

sllm_status sl_tokenizer_cache_new(const sl_tokenizer *tokenizer, sl_tokenizer_cache **cache, sllm_error *error) {
    *cache = calloc(1, sizeof **cache);
    if (!*cache || !words_new(&(*cache)->work, tokenizer, CACHE_LINES)) {
        sl_tokenizer_cache_free(*cache);
        *cache = NULL;
        return sl_fail_memory(error, "the tokenizer's cache", CACHE_LINES * 64);
    }
    return SLLM_OK;
}

void sl_tokenizer_cache_free(sl_tokenizer_cache *cache) {
    if (!cache) return;
    sl_scratch_free(&cache->work);
    free(cache);
}

/* ---------------------------------------------------------------- model */

static sllm_status encode_word(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                               sl_ids *ids, sllm_error *error) {
    switch (tokenizer->kind) {
    case SL_MODEL_BPE:
    case SL_MODEL_SPM: return sl_bpe_encode(tokenizer, work, word, length, ids, error);
    case SL_MODEL_UNIGRAM: return sl_unigram_encode(tokenizer, work, word, length, ids, error);
    case SL_MODEL_WORDPIECE: return sl_wordpiece_encode(tokenizer, work, word, length, ids, error);
    case SL_MODEL_WORDLEVEL: return sl_wordlevel_encode(tokenizer, work, word, length, ids, error);
    }
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "the tokenizer's model has no encoder");
}

/* A text that is normalised: through the pre-tokeniser to the model. */
static sllm_status encode_pieces(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                                 bool first, sl_ids *ids, sllm_error *error) {
    sllm_status status = SLLM_OK;
    if (!length) return SLLM_OK;
    if (tokenizer->n_split == 0) return encode_word(tokenizer, work, text, length, ids, error);
    if (tokenizer->n_split == 1 && tokenizer->split[0].kind == SL_SPLIT_SCAN && tokenizer->kind == SL_MODEL_BPE &&
        !tokenizer->bpe.cuts) /* the usual case, without a list */
        return sl_bpe_encode_scan(tokenizer, work, &tokenizer->split[0].scan, text, length, ids, error);
    if (text != work->text.data) {
        work->text.length = 0;
        if (!sl_buffer_append(&work->text, text, length)) return sl_fail_memory(error, "tokenising", length);
    }
    work->text.length = length;
    status = sl_pretokenize(tokenizer, work, first, error);
    for (size_t i = 0; status == SLLM_OK && i < work->n_pieces; i++)
        status =
            encode_word(tokenizer, work, work->text.data + work->pieces[i].offset, work->pieces[i].length, ids, error);
    return status;
}

/* ---------------------------------------------------------------- added tokens */

/* Where an added token was found. */
typedef struct hit {
    size_t start, end;
    int32_t id;
} hit;

/* The next added token in text from *from on, leftmost and longest, with the blanks it takes; false: none. Matches of
 * special tokens are passed over in text mode, as one piece of text each. */
static bool find_added(const sl_tokenizer *tokenizer, const sl_trie *trie, const char *text, size_t length,
                       size_t *from, bool special, hit *found) {
    const sl_added_tokens *added = &tokenizer->added;
    for (size_t at = *from; at < length;) {
        int32_t index;
        size_t n = trie->root[(unsigned char)text[at]] ? sl_trie_longest(trie, text + at, length - at, &index) : 0;
        if (!n) {
            at++;
            continue;
        }
        const sl_added *token = &added->items[index];
        size_t start = at, end = at + n;
        at = end;
        if (token->special && !special) continue;
        if (token->single_word) {
            size_t before = start, after = end;
            while (before > 0 && ((unsigned char)text[--before] & 0xC0) == 0x80) continue;
            uint32_t left = 0, right = 0;
            if (start > 0) left = sl_utf8_next(text, &before);
            if (end < length) right = sl_utf8_next(text, &after);
            if ((start > 0 && sl_unicode_is_word(left)) || (end < length && sl_unicode_is_word(right))) continue;
        }
        if (token->lstrip) {
            while (start > *from) {
                size_t before = start;
                while (before > *from && ((unsigned char)text[--before] & 0xC0) == 0x80) continue;
                size_t next = before;
                if (!sl_unicode_is_space(sl_utf8_next(text, &next))) break;
                start = before;
            }
        }
        if (token->rstrip) {
            for (size_t next = end; next < length && sl_unicode_is_space(sl_utf8_next(text, &next)); end = next)
                continue;
        }
        *found = (hit){start, end, token->id};
        return true;
    }
    return false;
}

static bool put_id(sl_ids *ids, int32_t id) {
    if (!sl_ids_reserve(ids, 1)) return false;
    ids->data[ids->length++] = id;
    return true;
}

/* A text between added tokens that are matched as written: normalised, then cut at those matched in normal form. */
static sllm_status encode_segment(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                                  bool first, bool special, sl_ids *ids, sllm_error *error) {
    if (!length) return SLLM_OK;
    for (size_t i = 0; i < tokenizer->n_normalize; i++) {
        const sl_normalize_step *step = &tokenizer->normalize[i];
        if (step->kind == SL_NORMALIZE_FORM && step->form == SL_NFC && sl_unicode_is_plain(text, length)) continue;
        work->other.length = 0;
        sllm_status status = sl_normalize(step, work, text, length, &work->other, error);
        if (status != SLLM_OK) return status;
        sl_buffer swapped = work->text;
        work->text = work->other;
        work->other = swapped;
        text = work->text.data;
        length = work->text.length;
        if (!length) return SLLM_OK;
    }
    const sl_trie *trie = &tokenizer->added.normal;
    if (!trie->n_nodes || (!special && !tokenizer->added.normal_plain))
        return encode_pieces(tokenizer, work, text, length, first, ids, error);
    /* The pre-tokeniser works in work->text, so the normalised text moves out of its way. */
    sl_buffer own = {0};
    if (!sl_buffer_append(&own, text, length)) return sl_fail_memory(error, "tokenising", length);
    sllm_status status = SLLM_OK;
    size_t done = 0;
    for (hit found; status == SLLM_OK && find_added(tokenizer, trie, own.data, length, &done, special, &found);) {
        status = encode_pieces(tokenizer, work, own.data + done, found.start - done, first && done == 0, ids, error);
        if (status == SLLM_OK && !put_id(ids, found.id)) status = sl_fail_memory(error, "tokenising", length);
        done = found.end;
    }
    if (status == SLLM_OK)
        status = encode_pieces(tokenizer, work, own.data + done, length - done, first && done == 0, ids, error);
    sl_buffer_free(&own);
    return status;
}

static sllm_status encode_text(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                               bool special, sl_ids *ids, sllm_error *error) {
    const sl_added_tokens *added = &tokenizer->added;
    if (!added->raw.n_nodes || (!special && !added->raw_plain))
        return encode_segment(tokenizer, work, text, length, true, special, ids, error);
    sllm_status status = SLLM_OK;
    size_t done = 0;
    for (hit found; find_added(tokenizer, &added->raw, text, length, &done, special, &found);) {
        status = encode_segment(tokenizer, work, text + done, found.start - done, done == 0, special, ids, error);
        if (status != SLLM_OK) return status;
        if (!put_id(ids, found.id)) return sl_fail_memory(error, "tokenising", length);
        done = found.end;
    }
    return encode_segment(tokenizer, work, text + done, length - done, done == 0, special, ids, error);
}

/* ---------------------------------------------------------------- the entry */

static bool is_valid_utf8(const char *text, size_t length) {
    size_t i = 0;
    for (; i + 32 <= length; i += 32) {
        uint64_t w[4];
        memcpy(w, text + i, 32);
        if ((w[0] | w[1] | w[2] | w[3]) & 0x8080808080808080u) break;
    }
    return i == length || sl_utf8_is_valid(text + i, length - i);
}

static sllm_status encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                          unsigned flags, sl_ids *ids, sllm_error *error) {
    if (!is_valid_utf8(text, length)) {
        work->valid.length = 0;
        if (!sl_utf8_append_lossy(&work->valid, text, length)) return sl_fail_memory(error, "tokenising", length);
        text = work->valid.data;
        length = work->valid.length;
    }
    bool add = flags & SLLM_TOKENIZE_ADD;
    for (size_t i = 0; add && i < tokenizer->n_prefix; i++)
        if (!put_id(ids, tokenizer->prefix[i])) return sl_fail_memory(error, "tokenising", length);
    sllm_status status = encode_text(tokenizer, work, text, length, flags & SLLM_TOKENIZE_SPECIAL, ids, error);
    for (size_t i = 0; status == SLLM_OK && add && i < tokenizer->n_suffix; i++)
        if (!put_id(ids, tokenizer->suffix[i])) return sl_fail_memory(error, "tokenising", length);
    return status;
}

sllm_status sl_tokenizer_encode(const sl_tokenizer *tokenizer, sl_tokenizer_cache *cache, const char *text,
                                size_t length, unsigned flags, sl_ids *ids, sllm_error *error) {
    size_t before = ids->length;
    sllm_status status;
    if (cache) {
        status = encode(tokenizer, &cache->work, text, length, flags, ids, error);
        /* A buffer that failed once would stay failed. */
        if (status == SLLM_ERROR_MEMORY) {
            sl_buffer_free(&cache->work.text);
            sl_buffer_free(&cache->work.other);
            sl_buffer_free(&cache->work.valid);
        }
    } else {
        sl_scratch work = {0};
        bool ok = length < SMALL_CACHE_FROM || words_new(&work, tokenizer, SMALL_CACHE_LINES);
        status = ok ? encode(tokenizer, &work, text, length, flags, ids, error)
                    : sl_fail_memory(error, "tokenising", SMALL_CACHE_LINES * 64);
        sl_scratch_free(&work);
    }
    if (status != SLLM_OK) ids->length = before;
    return status;
}
