/* The vocabulary: texts, pieces (the bytes a token stands for), and the tables that find tokens by string. */
#include "base/error.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

sllm_status sl_vocab_init(sl_vocab *vocab, int32_t size, bool with_scores, sllm_error *error) {
    size_t n = size > 0 ? (size_t)size : 1;
    vocab->texts = calloc(n, sizeof *vocab->texts);
    vocab->pieces = calloc(n, sizeof *vocab->pieces);
    vocab->types = calloc(n, 1);
    vocab->scores = with_scores ? calloc(n, sizeof *vocab->scores) : NULL;
    if (!vocab->texts || !vocab->pieces || !vocab->types || (with_scores && !vocab->scores))
        return sl_fail_memory(error, "the vocabulary", n * (2 * sizeof(sl_span) + 5));
    vocab->size = size;
    vocab->keys = vocab->texts;
    vocab->pool.limit = UINT32_MAX;
    return sl_buffer_append(&vocab->pool, "", 1) ? SLLM_OK : sl_fail_memory(error, "the vocabulary", 1);
}

static bool pool_add(sl_buffer *pool, const char *text, size_t length, sl_span *span) {
    span->offset = (uint32_t)pool->length;
    span->length = (uint32_t)length;
    if (!sl_buffer_reserve(pool, length + 1)) return false;
    memcpy(pool->data + pool->length, text, length);
    pool->data[pool->length + length] = 0;
    pool->length += length + 1;
    return true;
}

bool sl_vocab_set(sl_vocab *vocab, int32_t id, const char *text, size_t length, int type, float score) {
    vocab->types[id] = (uint8_t)type;
    if (vocab->scores) vocab->scores[id] = score;
    return pool_add(&vocab->pool, text, length, &vocab->texts[id]);
}

/* Appends the bytes that text stands for with U+2581 as a blank. */
static bool pool_add_sentence(sl_buffer *pool, sl_span text, sl_span *piece) {
    piece->offset = (uint32_t)pool->length;
    if (!sl_buffer_reserve(pool, text.length + 1)) return false;
    const char *from = pool->data + text.offset;
    char *to = pool->data + pool->length, *begin = to;
    for (size_t i = 0; i < text.length;) {
        if (text.length - i >= 3 && !memcmp(from + i, "\xE2\x96\x81", 3)) {
            *to++ = ' ';
            i += 3;
        } else {
            *to++ = from[i++];
        }
    }
    *to = 0;
    piece->length = (uint32_t)(to - begin);
    pool->length += piece->length + 1;
    return true;
}

/* Fills pieces[id]. *letters: the text is in the byte alphabet. */
static bool make_piece(sl_vocab *vocab, int32_t id, sl_spelling spelling, const char *prefix, bool *letters) {
    sl_span text = vocab->texts[id], *piece = &vocab->pieces[id];
    sl_buffer *pool = &vocab->pool;
    int type = vocab->types[id];
    *letters = true;
    *piece = text;
    if (type == SL_TOKEN_ABSENT) return true;
    switch (spelling) {
    case SL_SPELLING_PLAIN: return true;
    case SL_SPELLING_LETTERS:
    case SL_SPELLING_BYTE_LEVEL: {
        if (!sl_buffer_reserve(pool, text.length + 1)) return false;
        size_t n;
        char *out = pool->data + pool->length;
        *letters = sl_bytes_of_letters(pool->data + text.offset, text.length, out, &n);
        /* An added token stands for itself even where it could be read as bytes (deepseek-coder's U+00FC). */
        if (!*letters || ((type == SL_TOKEN_CONTROL || type == SL_TOKEN_USER) && n != text.length)) {
            *letters = false;
            return true;
        }
        piece->length = (uint32_t)n;
        if (n == text.length) return true; /* ASCII: the text itself */
        piece->offset = (uint32_t)pool->length;
        out[n] = 0;
        pool->length += n + 1;
        return true;
    }
    case SL_SPELLING_SENTENCE: {
        int byte = type == SL_TOKEN_BYTE ? sl_byte_of_token(pool->data + text.offset, text.length) : -1;
        if (byte >= 0) return pool_add(pool, (char[]){(char)byte}, 1, piece);
        if (type == SL_TOKEN_CONTROL || !memchr(pool->data + text.offset, 0xE2, text.length)) return true;
        return pool_add_sentence(pool, text, piece);
    }
    case SL_SPELLING_WORDPIECE: {
        size_t n = prefix ? strlen(prefix) : 0;
        const char *data = pool->data + text.offset;
        if (type == SL_TOKEN_CONTROL) return true;
        if (n && text.length > n && !memcmp(data, prefix, n)) {
            piece->offset += (uint32_t)n;
            piece->length -= (uint32_t)n;
            return true;
        }
        if (!sl_buffer_reserve(pool, text.length + 2)) return false;
        piece->offset = (uint32_t)pool->length;
        piece->length = text.length + 1;
        pool->data[pool->length] = ' ';
        memcpy(pool->data + pool->length + 1, pool->data + text.offset, text.length + 1);
        pool->length += text.length + 2;
        return true;
    }
    }
    return true;
}

sllm_status sl_vocab_index(sl_vocab *vocab, sl_spelling spelling, const char *prefix, sllm_error *error) {
    vocab->keys = spelling == SL_SPELLING_BYTE_LEVEL ? vocab->pieces : vocab->texts;
    size_t n = (size_t)vocab->size, n_others = 0;
    uint8_t *other = calloc(n ? n : 1, 1);
    bool ok = other && sl_strings_init(&vocab->by_key, n);
    for (int32_t id = 0; ok && id < vocab->size; id++) {
        bool letters;
        ok = make_piece(vocab, id, spelling, prefix, &letters);
        if (vocab->types[id] == SL_TOKEN_ABSENT) continue;
        other[id] = !letters && spelling == SL_SPELLING_BYTE_LEVEL;
        n_others += other[id];
    }
    ok = ok && sl_strings_init(&vocab->by_text, n_others);
    for (int32_t id = 0; ok && id < vocab->size; id++) {
        if (vocab->types[id] == SL_TOKEN_ABSENT) continue;
        if (other[id]) {
            sl_strings_put(&vocab->by_text, vocab->pool.data, vocab->texts, id);
            continue;
        }
        if (vocab->keys[id].length > vocab->longest) vocab->longest = vocab->keys[id].length;
        sl_strings_put(&vocab->by_key, vocab->pool.data, vocab->keys, id);
    }
    free(other);
    return ok ? SLLM_OK : sl_fail_memory(error, "the vocabulary's index", n * 16);
}

void sl_vocab_free(sl_vocab *vocab) {
    sl_buffer_free(&vocab->pool);
    free(vocab->texts);
    free(vocab->pieces);
    free(vocab->types);
    free(vocab->scores);
    free(vocab->by_key.slots);
    free(vocab->by_text.slots);
    memset(vocab, 0, sizeof *vocab);
}
