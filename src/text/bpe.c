/* Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909), in its two forms:
 *
 * - by merge list: the adjacent pair of tokens with the lowest rank is merged first, leftmost among equals;
 * - by score (SentencePiece's BPE): the adjacent pair whose joined text is the piece with the best score.
 *
 * Short words are merged by scanning for the best pair; long ones with a heap, so that a word of a million letters
 * takes n log n. A text that no pre-tokeniser cuts (SentencePiece vocabularies) is cut here where that provably changes
 * nothing: between two characters that do not stand next to each other in any token, no merge can ever reach across. */
#include "base/error.h"
#include "text/work.h"

#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX
#define SCAN_LIMIT 48 /* symbols up to which scanning beats the heap */

/* ---------------------------------------------------------------- pairs */

bool sl_pairs_init(sl_pairs *pairs, size_t count) {
    size_t capacity = 16;
    if (count > SIZE_MAX / 64) return false;
    while (capacity < count + count / 2) capacity *= 2;
    size_t bits = 1024;
    while (bits < count * 8 && bits < (size_t)1 << 22) bits *= 2;
    pairs->slots = calloc(capacity, sizeof *pairs->slots);
    pairs->filter = calloc(bits / 64, sizeof *pairs->filter);
    pairs->mask = capacity - 1;
    pairs->filter_mask = bits - 1;
    pairs->count = 0;
    pairs->seed = sl_hash_seed();
    return pairs->slots && pairs->filter;
}

void sl_pairs_put(sl_pairs *pairs, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    uint64_t hash = sl_hash_mix(key, pairs->seed);
    size_t i = hash & pairs->mask, bit = (hash >> 24) & pairs->filter_mask;
    pairs->filter[bit / 64] |= (uint64_t)1 << (bit % 64);
    while (pairs->slots[i].key && pairs->slots[i].key != key) i = (i + 1) & pairs->mask;
    pairs->count += !pairs->slots[i].key;
    pairs->slots[i] = (sl_pair){key, rank, id};
}

/* A score as an unsigned number that is smaller for a better score. */
static uint32_t rank_of_score(float score) {
    uint32_t bits;
    memcpy(&bits, &score, 4);
    uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~ordered;
}

/* ---------------------------------------------------------------- preparation */

static inline size_t neighbour_bit(const sl_bpe *bpe, uint32_t left, uint32_t right) {
    return sl_hash_mix(((uint64_t)left << 32 | right) ^ 0x2545F4914F6CDD1Du, 0x9E3779B97F4A7C15u) & bpe->neighbour_mask;
}

/* Marks every two characters that stand next to each other in some token. */
static bool collect_neighbours(sl_tokenizer *tokenizer) {
    sl_bpe *bpe = &tokenizer->bpe;
    const sl_vocab *vocab = &tokenizer->vocab;
    size_t bits = 1 << 16;
    while (bits < (size_t)vocab->size * 32 && bits < (size_t)1 << 24) bits *= 2;
    bpe->neighbours = calloc(bits / 64, 8);
    if (!bpe->neighbours) return false;
    bpe->neighbour_mask = bits - 1;
    for (int32_t id = 0; id < vocab->size; id++) {
        int type = vocab->types[id];
        if (type == SL_TOKEN_ABSENT || type == SL_TOKEN_CONTROL || type == SL_TOKEN_BYTE) continue;
        size_t length;
        const char *text = sl_vocab_key(vocab, id, &length);
        uint32_t before = 0;
        for (size_t i = 0; i < length;) {
            /* A token that is not valid UTF-8 matches no valid text. */
            if (i + sl_utf8_width((unsigned char)text[i]) > length) break;
            size_t start = i;
            uint32_t c = sl_utf8_next(text, &i);
            if (start) {
                size_t bit = neighbour_bit(bpe, before, c);
                bpe->neighbours[bit / 64] |= (uint64_t)1 << (bit % 64);
            }
            before = c;
        }
    }
    return true;
}

sllm_status sl_bpe_prepare(sl_tokenizer *tokenizer, sllm_error *error) {
    sl_bpe *bpe = &tokenizer->bpe;
    const sl_vocab *vocab = &tokenizer->vocab;
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        size_t length = 1;
        if (bpe->byte_level) {
            text[0] = (char)byte;
        } else {
            static const char digits[] = "0123456789ABCDEF";
            memcpy(text, "<0x00>", 6);
            text[3] = digits[byte >> 4];
            text[4] = digits[byte & 15];
            length = 6;
        }
        bpe->bytes[byte] = sl_vocab_find(vocab, text, length);
    }
    if (!bpe->byte_level && !bpe->prefix && !bpe->suffix) {
        if (!collect_neighbours(tokenizer)) return sl_fail_memory(error, "the vocabulary's neighbours", 0);
        bpe->cuts = true;
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- merging */

typedef struct merger {
    const sl_tokenizer *tokenizer;
    sl_scratch *work;
    const char *word;
} merger;

static inline void pair_of(const merger *m, sl_symbol *a, const sl_symbol *b) {
    const sl_bpe *bpe = &m->tokenizer->bpe;
    a->rank = NO_RANK;
    if (bpe->by_score) {
        const sl_vocab *vocab = &m->tokenizer->vocab;
        if (a->frozen || b->frozen) return;
        int32_t id = sl_vocab_find(vocab, m->word + a->start, (size_t)a->length + b->length);
        if (id < 0 || vocab->types[id] == SL_TOKEN_CONTROL || vocab->types[id] == SL_TOKEN_UNKNOWN ||
            vocab->types[id] == SL_TOKEN_BYTE) return;
        a->rank = rank_of_score(vocab->scores[id]);
        a->merged = id;
        if (a->rank == NO_RANK) a->rank--;
    } else if (a->id >= 0 && b->id >= 0) {
        const sl_pair *pair = sl_pairs_find(&bpe->pairs, a->id, b->id);
        if (!pair) return;
        a->rank = pair->rank;
        a->merged = pair->id;
    }
}

/* Symbols [n] lie next to each other in memory and stay so: merged ones are closed up. */
static size_t merge_short(const merger *m, sl_symbol *symbols, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) pair_of(m, &symbols[i], &symbols[i + 1]);
    while (n > 1) {
        size_t best = 0;
        uint32_t rank = symbols[0].rank;
        for (size_t i = 1; i + 1 < n; i++) {
            if (symbols[i].rank < rank) {
                rank = symbols[i].rank;
                best = i;
            }
        }
        if (rank == NO_RANK) break;
        symbols[best].id = symbols[best].merged;
        symbols[best].length += symbols[best + 1].length;
        n--;
        memmove(&symbols[best + 1], &symbols[best + 2], (n - best - 1) * sizeof *symbols);
        if (best + 1 < n) pair_of(m, &symbols[best], &symbols[best + 1]);
        if (best > 0) pair_of(m, &symbols[best - 1], &symbols[best]);
    }
    return n;
}

/* A binary heap of rank << 32 | position: the best pair first, leftmost among equals. */
static bool heap_push(sl_scratch *work, uint64_t entry) {
    if (work->heap_length == work->heap_capacity &&
        !sl_grow(&work->heap, &work->heap_capacity, work->heap_length + 1, sizeof *work->heap)) return false;
    size_t i = work->heap_length++;
    for (; i > 0 && work->heap[(i - 1) / 2] > entry; i = (i - 1) / 2) work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = entry;
    return true;
}

static uint64_t heap_pop(sl_scratch *work) {
    uint64_t top = work->heap[0], last = work->heap[--work->heap_length];
    size_t n = work->heap_length, i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && work->heap[child + 1] < work->heap[child]) child++;
        if (work->heap[child] >= last) break;
        work->heap[i] = work->heap[child];
    }
    if (n) work->heap[i] = last;
    return top;
}

static bool push_pair(const merger *m, sl_symbol *symbols, int32_t i) {
    if (symbols[i].next < 0) {
        symbols[i].rank = NO_RANK;
        return true;
    }
    pair_of(m, &symbols[i], &symbols[symbols[i].next]);
    return symbols[i].rank == NO_RANK || heap_push(m->work, (uint64_t)symbols[i].rank << 32 | (uint32_t)i);
}

/* The same with a heap; what is left is linked from symbol 0 through `next`. False: out of memory. An entry is stale
 * when its symbol's pair has another rank by now (a dead symbol has none). */
static bool merge_long(const merger *m, sl_symbol *symbols, size_t n) {
    m->work->heap_length = 0;
    for (size_t i = 0; i < n; i++) {
        symbols[i].previous = (int32_t)i - 1;
        symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
        if (!push_pair(m, symbols, (int32_t)i)) return false;
    }
    while (m->work->heap_length) {
        uint64_t entry = heap_pop(m->work);
        int32_t i = (int32_t)(uint32_t)entry;
        sl_symbol *left = &symbols[i];
        if (left->rank != entry >> 32) continue;
        sl_symbol *right = &symbols[left->next];
        left->id = left->merged;
        left->length += right->length;
        left->next = right->next;
        right->rank = NO_RANK;
        if (left->next >= 0) symbols[left->next].previous = i;
        if (!push_pair(m, symbols, i)) return false;
        if (left->previous >= 0 && !push_pair(m, symbols, left->previous)) return false;
    }
    return true;
}

/* ---------------------------------------------------------------- symbols to ids */

static bool put_id(sl_ids *ids, int32_t id) {
    if (ids->length == ids->capacity && !sl_ids_reserve(ids, 1)) return false;
    ids->data[ids->length++] = id;
    return true;
}

/* SentencePiece: bytes of a text without a piece, or one unknown for a run of them. */
static bool put_unknown(const sl_bpe *bpe, const char *text, size_t length, sl_ids *ids, bool *after_unknown) {
    if (bpe->byte_fallback) {
        bool all = true;
        for (size_t k = 0; k < length; k++) all = all && bpe->bytes[(unsigned char)text[k]] >= 0;
        for (size_t k = 0; all && k < length; k++)
            if (!put_id(ids, bpe->bytes[(unsigned char)text[k]])) return false;
        if (all) return true;
    }
    if (bpe->unk < 0) return true;
    bool fused = *after_unknown && bpe->fuse_unk;
    *after_unknown = true;
    return fused || put_id(ids, bpe->unk);
}

/* An unused piece is taken apart again along the merges that made it (SentencePiece, bpe_model.cc): since the word is
 * at hand, its parts are found by merging it anew without the last step. The depth is bounded by the pieces' length. */
static bool put_piece(const merger *m, const sl_symbol *symbol, sl_ids *ids, bool *after_unknown, int depth);

static bool put_unused(const merger *m, const sl_symbol *symbol, sl_ids *ids, bool *after_unknown, int depth) {
    const sl_vocab *vocab = &m->tokenizer->vocab;
    const char *text = m->word + symbol->start;
    uint32_t best_rank = NO_RANK;
    size_t best = 0;
    for (size_t cut = sl_utf8_width((unsigned char)text[0]); cut < symbol->length;
         cut += sl_utf8_width((unsigned char)text[cut])) {
        int32_t left = sl_vocab_find(vocab, text, cut), right = sl_vocab_find(vocab, text + cut, symbol->length - cut);
        if (left < 0 || right < 0) continue;
        uint32_t a = rank_of_score(vocab->scores[left]), b = rank_of_score(vocab->scores[right]);
        uint32_t rank = a > b ? a : b; /* the parts that could be made first */
        if (rank < best_rank) {
            best_rank = rank;
            best = cut;
        }
    }
    if (!best) return put_id(ids, symbol->id);
    sl_symbol parts[2] = {{.start = symbol->start, .length = (uint32_t)best},
                          {.start = symbol->start + (uint32_t)best, .length = symbol->length - (uint32_t)best}};
    for (int i = 0; i < 2; i++) {
        parts[i].id = sl_vocab_find(vocab, m->word + parts[i].start, parts[i].length);
        if (!put_piece(m, &parts[i], ids, after_unknown, depth + 1)) return false;
    }
    return true;
}

static bool put_piece(const merger *m, const sl_symbol *symbol, sl_ids *ids, bool *after_unknown, int depth) {
    const sl_bpe *bpe = &m->tokenizer->bpe;
    if (!bpe->by_score) {
        if (symbol->frozen && *after_unknown && bpe->fuse_unk) return true;
        *after_unknown = symbol->frozen;
        return put_id(ids, symbol->id);
    }
    if (symbol->id < 0) return put_unknown(bpe, m->word + symbol->start, symbol->length, ids, after_unknown);
    if (symbol->length > 1 && depth < 64 && m->tokenizer->vocab.types[symbol->id] == SL_TOKEN_UNUSED)
        return put_unused(m, symbol, ids, after_unknown, depth);
    *after_unknown = false;
    return put_id(ids, symbol->id);
}

/* ---------------------------------------------------------------- text to symbols */

static sl_symbol *add_symbol(sl_scratch *work, size_t *n, int32_t id, size_t start, size_t length) {
    if (*n == work->symbols_capacity &&
        !sl_grow(&work->symbols, &work->symbols_capacity, *n + 1, sizeof *work->symbols)) return NULL;
    sl_symbol *symbol = &work->symbols[(*n)++];
    *symbol = (sl_symbol){.id = id, .start = (uint32_t)start, .length = (uint32_t)length, .rank = NO_RANK};
    return symbol;
}

static bool symbols_of_bytes(const merger *m, size_t length, size_t *n) {
    const sl_bpe *bpe = &m->tokenizer->bpe;
    if (m->work->symbols_capacity < length &&
        !sl_grow(&m->work->symbols, &m->work->symbols_capacity, length, sizeof *m->work->symbols)) return false;
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->bytes[(unsigned char)m->word[i]];
        if (id < 0 && bpe->unk < 0) continue; /* a byte the vocabulary lacks is lost, as in the reference */
        if (id < 0 && bpe->fuse_unk && *n && m->work->symbols[*n - 1].id == bpe->unk) continue;
        if (!add_symbol(m->work, n, id < 0 ? bpe->unk : id, i, 1)) return false;
    }
    return true;
}

/* The token of one character with the prefix or suffix that its place in the word asks for. */
static int32_t find_affixed(const merger *m, size_t at, size_t width, bool first, bool last) {
    const sl_bpe *bpe = &m->tokenizer->bpe;
    size_t before = first || !bpe->prefix ? 0 : bpe->prefix_length,
           after = last && bpe->suffix ? bpe->suffix_length : 0;
    if (!before && !after) return sl_vocab_find(&m->tokenizer->vocab, m->word + at, width);
    char text[128];
    if (before + width + after > sizeof text) return -1;
    if (before) memcpy(text, bpe->prefix, before);
    memcpy(text + before, m->word + at, width);
    if (after) memcpy(text + before + width, bpe->suffix, after);
    return sl_vocab_find(&m->tokenizer->vocab, text, before + width + after);
}

static bool symbols_of_characters(const merger *m, size_t length, size_t *n) {
    const sl_bpe *bpe = &m->tokenizer->bpe;
    const sl_vocab *vocab = &m->tokenizer->vocab;
    for (size_t i = 0, width; i < length; i += width) {
        int32_t user;
        if (bpe->has_user && (width = sl_trie_longest(&bpe->user, m->word + i, length - i, &user))) {
            sl_symbol *symbol = add_symbol(m->work, n, user, i, width);
            if (!symbol) return false;
            symbol->frozen = true;
            continue;
        }
        width = sl_utf8_width((unsigned char)m->word[i]);
        int32_t id = find_affixed(m, i, width, i == 0, i + width == length);
        if (bpe->by_score && id >= 0 && vocab->types[id] != SL_TOKEN_NORMAL && vocab->types[id] != SL_TOKEN_USER &&
            vocab->types[id] != SL_TOKEN_UNUSED) id = -1;
        if (id < 0 && !bpe->by_score) {
            bool all = bpe->byte_fallback;
            for (size_t k = 0; all && k < width; k++) all = bpe->bytes[(unsigned char)m->word[i + k]] >= 0;
            for (size_t k = 0; all && k < width; k++)
                if (!add_symbol(m->work, n, bpe->bytes[(unsigned char)m->word[i + k]], i + k, 1)) return false;
            if (all || bpe->unk < 0) continue;
            sl_symbol *symbol = add_symbol(m->work, n, bpe->unk, i, width);
            if (!symbol) return false;
            symbol->frozen = true; /* put_piece fuses a run of unknowns */
            continue;
        }
        if (!add_symbol(m->work, n, id, i, width)) return false;
    }
    return true;
}

static bool merge_word(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length, sl_ids *ids,
                       bool *after_unknown) {
    merger m = {tokenizer, work, word};
    size_t n = 0;
    bool ok = tokenizer->bpe.byte_level ? symbols_of_bytes(&m, length, &n) : symbols_of_characters(&m, length, &n);
    if (!ok) return false;
    if (n <= SCAN_LIMIT) {
        n = merge_short(&m, work->symbols, n);
        for (size_t i = 0; ok && i < n; i++) ok = put_piece(&m, &work->symbols[i], ids, after_unknown, 0);
        return ok;
    }
    if (!merge_long(&m, work->symbols, n)) return false;
    for (int32_t i = 0; ok && i >= 0; i = work->symbols[i].next)
        ok = put_piece(&m, &work->symbols[i], ids, after_unknown, 0);
    return ok;
}

/* Byte-level words of up to SCAN_LIMIT bytes, by merge list: the common case, on small arrays of its own. */
static bool merge_bytes(const sl_bpe *bpe, const char *word, size_t length, sl_ids *ids) {
    int32_t id[SCAN_LIMIT], merged[SCAN_LIMIT];
    uint32_t rank[SCAN_LIMIT];
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        id[n] = bpe->bytes[(unsigned char)word[i]];
        n += id[n] >= 0; /* a byte the vocabulary lacks is lost, as in the reference */
    }
    for (size_t i = 0; i + 1 < n; i++) {
        const sl_pair *pair = sl_pairs_find(&bpe->pairs, id[i], id[i + 1]);
        rank[i] = pair ? pair->rank : NO_RANK;
        merged[i] = pair ? pair->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        id[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const sl_pair *pair = sl_pairs_find(&bpe->pairs, id[i], id[i + 1]);
            rank[i] = pair ? pair->rank : NO_RANK;
            merged[i] = pair ? pair->id : -1;
        }
    }
    if (!n) return true;
    if (ids->capacity - ids->length < n && !sl_ids_reserve(ids, n)) return false;
    memcpy(ids->data + ids->length, id, n * sizeof *id);
    ids->length += n;
    return true;
}

/* ---------------------------------------------------------------- words, cached */

/* What a short word is looked up by: its bytes, read twice over where eight do not divide them, and its length. */
typedef struct word_key {
    uint64_t low, high, hash;
} word_key;

static inline word_key key_of(const char *word, size_t length) {
    word_key key = {0};
    if (length >= 8) {
        memcpy(&key.low, word, 8);
        memcpy(&key.high, word + length - 8, 8);
    } else if (length >= 4) {
        uint32_t low, high;
        memcpy(&low, word, 4);
        memcpy(&high, word + length - 4, 4);
        key.low = low;
        key.high = high;
    } else {
        key.low = (uint64_t)(unsigned char)word[0] << 16 | (uint64_t)(unsigned char)word[length >> 1] << 8 |
                  (unsigned char)word[length - 1];
    }
    key.hash = sl_hash_mix(key.low ^ 0x9E3779B97F4A7C15u ^ (uint64_t)length << 56, key.high ^ 0xE7037ED1A0B428DBu);
    return key;
}

static inline const sl_word *find_word(const sl_scratch *work, const word_key *key, size_t length) {
    const sl_word *line = work->words + 2 * (key->hash & work->words_mask);
    if (line[0].low == key->low && line[0].high == key->high && line[0].length == length) return &line[0];
    if (line[1].low == key->low && line[1].high == key->high && line[1].length == length) return &line[1];
    return NULL;
}

static bool keep_word(sl_scratch *work, const word_key *key, size_t length, const int32_t *ids, size_t n) {
    sl_word *line = work->words + 2 * (key->hash & work->words_mask);
    if (n > SL_WORD_IDS) return false;
    line[1] = line[0];
    line[0] = (sl_word){.low = key->low, .high = key->high, .length = (uint8_t)length, .n_ids = (uint8_t)n};
    memcpy(line[0].ids, ids, n * sizeof *ids);
    return true;
}

static bool put_long(sl_scratch *work, const char *word, size_t length, uint64_t hash, sl_ids *ids, bool *found) {
    const sl_long_word *slot = &work->long_words[hash % SL_LONG_SLOTS];
    const char *kept = work->long_text + slot->offset;
    *found =
        slot->length == length && slot->hash == hash && !memcmp(kept + slot->n_ids * sizeof *ids->data, word, length);
    if (!*found) return true;
    if (ids->capacity - ids->length < slot->n_ids && !sl_ids_reserve(ids, slot->n_ids)) return false;
    memcpy(ids->data + ids->length, kept, slot->n_ids * sizeof *ids->data);
    ids->length += slot->n_ids;
    return true;
}

static void keep_long(sl_scratch *work, const char *word, size_t length, uint64_t hash, const int32_t *ids, size_t n) {
    size_t bytes = (n * sizeof *ids + length + 3) & ~(size_t)3;
    if (n > UINT16_MAX || bytes > SL_LONG_TEXT / 4) return;
    if (work->long_used + bytes > SL_LONG_TEXT) {
        memset(work->long_words, 0, SL_LONG_SLOTS * sizeof *work->long_words);
        work->long_used = 0;
    }
    work->long_words[hash % SL_LONG_SLOTS] =
        (sl_long_word){hash, (uint32_t)work->long_used, (uint16_t)length, (uint16_t)n};
    memcpy(work->long_text + work->long_used, ids, n * sizeof *ids);
    memcpy(work->long_text + work->long_used + n * sizeof *ids, word, length);
    work->long_used += bytes;
}

static bool encode_anew(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length, sl_ids *ids,
                        bool *after_unknown) {
    const sl_bpe *bpe = &tokenizer->bpe;
    int32_t whole = bpe->ignore_merges ? sl_vocab_find(&tokenizer->vocab, word, length) : -1;
    if (whole >= 0) return put_id(ids, whole);
    if (bpe->byte_level && !bpe->by_score && bpe->unk < 0 && length <= SCAN_LIMIT)
        return merge_bytes(bpe, word, length, ids);
    return merge_word(tokenizer, work, word, length, ids, after_unknown);
}

/* A word that is not among the short ones kept. */
static bool encode_missing(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                           const word_key *key, sl_ids *ids, bool *after_unknown) {
    if (!work->words || length > SL_LONG_BYTES || *after_unknown)
        return encode_anew(tokenizer, work, word, length, ids, after_unknown);
    bool is_short = length <= SL_WORD_BYTES, found;
    uint64_t hash = is_short ? key->hash : sl_hash_bytes(word, length, 0x2545F4914F6CDD1Du);
    size_t before = ids->length;
    if (!put_long(work, word, length, hash, ids, &found)) return false;
    if (found) return true;
    if (!encode_anew(tokenizer, work, word, length, ids, after_unknown)) return false;
    size_t n = ids->length - before;
    if (*after_unknown || !n) return true;
    if (!is_short || !keep_word(work, key, length, ids->data + before, n))
        keep_long(work, word, length, hash, ids->data + before, n);
    return true;
}

static bool put_word(const sl_word *word, sl_ids *ids) {
    if (ids->capacity - ids->length < SL_WORD_IDS && !sl_ids_reserve(ids, SL_WORD_IDS)) return false;
    memcpy(ids->data + ids->length, word->ids, sizeof word->ids);
    ids->length += word->n_ids;
    return true;
}

static bool encode_word(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length, sl_ids *ids,
                        bool *after_unknown) {
    word_key key = {0};
    if (length <= SL_WORD_BYTES && work->words && !*after_unknown) {
        key = key_of(word, length);
        const sl_word *kept = find_word(work, &key, length);
        if (kept) return put_word(kept, ids);
    }
    return encode_missing(tokenizer, work, word, length, &key, ids, after_unknown);
}

/* Words are cut and their places in the cache asked for a batch at a time, so that memory answers while others are cut.
 * */
#define BATCH 32

sllm_status sl_bpe_encode_scan(const sl_tokenizer *tokenizer, sl_scratch *work, const sl_scan *scan, const char *text,
                               size_t length, sl_ids *ids, sllm_error *error) {
    struct { const char *word; size_t length; word_key key; } batch[BATCH];
    for (size_t at = 0; at < length;) {
        size_t n = 0;
        for (; n < BATCH && at < length; n++) {
            size_t end = sl_scan_next(scan, text, length, at);
            batch[n].word = text + at;
            batch[n].length = end - at;
            at = end;
            if (batch[n].length > SL_WORD_BYTES || !work->words) continue;
            batch[n].key = key_of(batch[n].word, batch[n].length);
            __builtin_prefetch(work->words + 2 * (batch[n].key.hash & work->words_mask));
        }
        for (size_t i = 0; i < n; i++) {
            bool after_unknown = false, is_short = batch[i].length <= SL_WORD_BYTES && work->words;
            const sl_word *kept = is_short ? find_word(work, &batch[i].key, batch[i].length) : NULL;
            if (batch[i].length > INT32_MAX / 2)
                return sl_fail(error, SLLM_ERROR_ARGUMENT,
                               "a word of %zu bytes is too long to tokenise: split the text", batch[i].length);
            if (kept ? !put_word(kept, ids)
                     : !encode_missing(tokenizer, work, batch[i].word, batch[i].length, &batch[i].key, ids,
                                       &after_unknown))
                return sl_fail_memory(error, "tokenising", length);
        }
    }
    return SLLM_OK;
}

sllm_status sl_bpe_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length, sl_ids *ids,
                          sllm_error *error) {
    const sl_bpe *bpe = &tokenizer->bpe;
    bool after_unknown = false;
    if (length > INT32_MAX / 2)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a word of %zu bytes is too long to tokenise: split the text",
                       length);
    if (!bpe->cuts) {
        if (!encode_word(tokenizer, work, word, length, ids, &after_unknown))
            return sl_fail_memory(error, "tokenising", length);
        return SLLM_OK;
    }
    size_t start = 0, at = 0;
    uint32_t before = 0;
    while (at < length) {
        size_t here = at;
        uint32_t c = sl_utf8_next(word, &at);
        if (here > start) {
            size_t bit = neighbour_bit(bpe, before, c);
            if (!(bpe->neighbours[bit / 64] >> (bit % 64) & 1)) {
                if (!encode_word(tokenizer, work, word + start, here - start, ids, &after_unknown))
                    return sl_fail_memory(error, "tokenising", length);
                start = here;
            }
        }
        before = c;
    }
    if (start < length && !encode_word(tokenizer, work, word + start, length - start, ids, &after_unknown))
        return sl_fail_memory(error, "tokenising", length);
    return SLLM_OK;
}
