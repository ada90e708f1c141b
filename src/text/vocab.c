/* The vocabulary: texts, pieces (the bytes a token stands for), and the tables that find tokens by string. */
#include "base/checked.h"
#include "base/error.h"
#include "base/map.h"
#include "base/utf8.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- strings -> ids */

uint64_t sl_hash_seed(void) { return sl_hash_mix(sl_map_seed_random() ^ 0xA0761D6478BD642Fu, 0x9E3779B97F4A7C15u) | 1; }

bool sl_strings_init(sl_strings *strings, size_t count) {
    size_t capacity = 16, needed;
    if (!sl_mul_size(count, 2, &needed)) return false;
    while (capacity < needed) capacity *= 2;
    strings->slots = malloc(capacity * sizeof *strings->slots);
    if (!strings->slots) return false;
    memset(strings->slots, 0xFF, capacity * sizeof *strings->slots);
    strings->mask = capacity - 1;
    strings->count = 0;
    strings->seed = sl_hash_seed();
    return true;
}

void sl_strings_put(sl_strings *strings, const char *pool, const sl_span *spans, int32_t id) {
    const char *key = pool + spans[id].offset;
    uint32_t length = spans[id].length;
    uint64_t hash = sl_hash_bytes(key, length, strings->seed);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & strings->mask;; i = (i + 1) & strings->mask) {
        int32_t other = strings->slots[i].id;
        if (other < 0) {
            strings->slots[i].tag = tag;
            strings->slots[i].id = id;
            strings->count++;
            return;
        }
        if (strings->slots[i].tag == tag && spans[other].length == length &&
            !memcmp(pool + spans[other].offset, key, length)) {
            strings->slots[i].id = id;
            return;
        }
    }
}

int32_t sl_strings_find(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                        size_t length) {
    if (!strings->slots) return -1;
    return sl_strings_find_hashed(strings, pool, spans, key, length, sl_hash_bytes(key, length, strings->seed));
}

int32_t sl_strings_find_hashed(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                               size_t length, uint64_t hash) {
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & strings->mask;; i = (i + 1) & strings->mask) {
        int32_t id = strings->slots[i].id;
        if (id < 0) return -1;
        if (strings->slots[i].tag == tag && spans[id].length == length && !memcmp(pool + spans[id].offset, key, length))
            return id;
    }
}

/* ---------------------------------------------------------------- trie */

static bool trie_grow_edges(sl_trie *trie) {
    size_t capacity = trie->edges ? (trie->mask + 1) * 2 : 64;
    void *memory = calloc(capacity, sizeof *trie->edges);
    if (!memory) return false;
    sl_trie old = *trie;
    trie->edges = memory;
    trie->mask = capacity - 1;
    for (size_t k = 0; old.edges && k <= old.mask; k++) {
        if (!old.edges[k].key) continue;
        size_t i = sl_hash_mix(old.edges[k].key, trie->seed) & trie->mask;
        while (trie->edges[i].key) i = (i + 1) & trie->mask;
        trie->edges[i] = old.edges[k];
    }
    free(old.edges);
    return true;
}

static uint32_t trie_new_node(sl_trie *trie) {
    if (trie->n_nodes == trie->capacity) {
        size_t capacity = trie->capacity ? trie->capacity * 2 : 64;
        if (capacity > INT32_MAX) return 0;
        int32_t *values = realloc(trie->values, capacity * sizeof *values);
        if (!values) return 0;
        trie->values = values;
        trie->capacity = capacity;
    }
    trie->values[trie->n_nodes] = -1;
    return (uint32_t)trie->n_nodes++;
}

bool sl_trie_add(sl_trie *trie, const char *key, size_t length, int32_t value) {
    if (!trie->n_nodes) {
        trie->seed = sl_hash_seed();
        trie_new_node(trie); /* the root */
        if (!trie->n_nodes || !trie_grow_edges(trie)) return false;
    }
    uint32_t node = 0;
    for (size_t k = 0; k < length; k++) {
        unsigned char byte = (unsigned char)key[k];
        uint32_t child = sl_trie_step(trie, node, byte);
        if (!child) {
            if ((trie->n_edges + 1) * 2 > trie->mask && !trie_grow_edges(trie)) return false;
            child = trie_new_node(trie);
            if (!child) return false;
            if (node == 0) {
                trie->root[byte] = child;
            } else {
                uint64_t edge = ((uint64_t)node << 8 | byte) + 1;
                size_t i = sl_hash_mix(edge, trie->seed) & trie->mask;
                while (trie->edges[i].key) i = (i + 1) & trie->mask;
                trie->edges[i].key = edge;
                trie->edges[i].child = child;
                trie->n_edges++;
            }
        }
        node = child;
    }
    trie->values[node] = value;
    return true;
}

void sl_trie_free(sl_trie *trie) {
    free(trie->edges);
    free(trie->values);
    memset(trie, 0, sizeof *trie);
}

size_t sl_trie_longest(const sl_trie *trie, const char *text, size_t length, int32_t *value) {
    uint32_t node = 0;
    size_t best = 0;
    for (size_t k = 0; k < length; k++) {
        node = sl_trie_step(trie, node, (unsigned char)text[k]);
        if (!node) break;
        if (trie->values[node] >= 0) {
            best = k + 1;
            *value = trie->values[node];
        }
    }
    return best;
}

/* ---------------------------------------------------------------- spellings of bytes */

/* GPT-2 writes printable Latin-1 bytes as themselves and the 68 others as U+0100 + n, in byte order
 * (openai/gpt-2, encoder.py, bytes_to_unicode). */
int sl_byte_of_letter(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    uint32_t n = c - 0x100;
    if (n <= 0x20) return (int)n;
    if (n <= 0x21 + 0xA0 - 0x7F) return (int)(0x7F + n - 0x21);
    return 0xAD;
}

bool sl_bytes_of_letters(const char *text, size_t length, char *out, size_t *n) {
    size_t written = 0;
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x80) {
            if (c < 0x21 || c > 0x7E) return false;
            out[written++] = (char)c;
            i++;
            continue;
        }
        /* the alphabet's other letters are U+00A1..U+0143: two bytes, lead C2..C5 */
        if (c < 0xC2 || c > 0xC5 || i + 1 >= length || ((unsigned char)text[i + 1] & 0xC0) != 0x80) return false;
        int byte = sl_byte_of_letter((uint32_t)(c & 0x1F) << 6 | ((unsigned char)text[i + 1] & 0x3F));
        if (byte < 0) return false;
        out[written++] = (char)byte;
        i += 2;
    }
    *n = written;
    return true;
}

bool sl_letters_of_bytes(const char *bytes, size_t length, sl_buffer *out) {
    char letters[256][2];
    uint8_t widths[256] = {0};
    for (uint32_t c = 0x21; c <= 0x143; c++) {
        int byte = sl_byte_of_letter(c);
        char encoded[4];
        if (byte < 0) continue;
        widths[byte] = (uint8_t)sl_utf8_encode(c, encoded);
        memcpy(letters[byte], encoded, 2);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        sl_buffer_append(out, letters[byte], widths[byte]);
    }
    return !out->failed;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

int sl_byte_of_token(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* ---------------------------------------------------------------- vocabulary */

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
