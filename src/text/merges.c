/* The table of merges from pairs of strings. Finding three strings and placing one pair takes some ten reads of memory
 * that no cache holds: 280,000 times for Llama 3. So merges are taken a batch at a time, each read asked for
 * (prefetched) for the whole batch before the first is waited for. */
#include "base/error.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 64

typedef struct item {
    const char *left, *right; /* as the file writes them */
    size_t left_length, right_length;
    sl_span key[3]; /* left, right and both joined, as the vocabulary's keys; in `bytes` */
    uint64_t hash[3];
    int32_t id[3];
    uint32_t rank;
} item;

struct sl_merges {
    sl_tokenizer *tokenizer;
    const char *what;
    sl_buffer bytes;
    size_t n;
    item items[BATCH];
};

sl_merges *sl_merges_new(sl_tokenizer *tokenizer, size_t count, const char *what, sllm_error *error) {
    sl_merges *merges = malloc(sizeof *merges);
    if (!merges || !sl_pairs_init(&tokenizer->bpe.pairs, count)) {
        free(merges);
        sl_fail_memory(error, "merges", count * sizeof(sl_pair));
        return NULL;
    }
    merges->tokenizer = tokenizer;
    merges->what = what;
    merges->bytes = (sl_buffer){.limit = UINT32_MAX};
    merges->n = 0;
    return merges;
}

void sl_merges_free(sl_merges *merges) {
    if (merges) sl_buffer_free(&merges->bytes);
    free(merges);
}

/* Appends text in the spelling of the vocabulary's keys; *plain: it has one. */
static bool put_key(sl_merges *merges, const char *text, size_t length, bool *plain) {
    sl_buffer *bytes = &merges->bytes;
    size_t n = length;
    if (!sl_buffer_reserve(bytes, length + 1)) return false;
    if (!merges->tokenizer->bpe.byte_level) memcpy(bytes->data + bytes->length, text, length);
    else if (!sl_bytes_of_letters(text, length, bytes->data + bytes->length, &n)) *plain = false, n = 0;
    bytes->length += n;
    return true;
}

/* The right half without the prefix of a continuation, which the joined token does not have in its middle. */
static const char *joined_part(const sl_bpe *bpe, const char *right, size_t *length) {
    if (!bpe->prefix || *length < bpe->prefix_length || memcmp(right, bpe->prefix, bpe->prefix_length)) return right;
    *length -= bpe->prefix_length;
    return right + bpe->prefix_length;
}

static bool put_keys(sl_merges *merges, item *it) {
    const sl_bpe *bpe = &merges->tokenizer->bpe;
    size_t rest = it->right_length, start = merges->bytes.length;
    const char *joined = joined_part(bpe, it->right, &rest);
    bool plain = true;
    if (!put_key(merges, it->left, it->left_length, &plain)) return false;
    size_t middle = merges->bytes.length;
    if (!put_key(merges, it->right, it->right_length, &plain)) return false;
    size_t end = merges->bytes.length, whole = start;
    if (joined != it->right) {
        whole = end;
        if (!put_key(merges, it->left, it->left_length, &plain) || !put_key(merges, joined, rest, &plain)) return false;
    }
    it->key[0] = (sl_span){(uint32_t)start, (uint32_t)(middle - start)};
    it->key[1] = (sl_span){(uint32_t)middle, (uint32_t)(end - middle)};
    it->key[2] = (sl_span){(uint32_t)whole, (uint32_t)(merges->bytes.length - whole)};
    if (!plain) it->key[0].length = it->key[1].length = it->key[2].length = 0;
    return true;
}

/* The long way: tokens that are found by their text alone (sl_vocab.by_text), and the error when there is none. */
static sllm_status find_slowly(const sl_merges *merges, item *it, sllm_error *error) {
    const sl_tokenizer *tokenizer = merges->tokenizer;
    size_t rest = it->right_length;
    const char *right = joined_part(&tokenizer->bpe, it->right, &rest);
    sl_buffer whole = {0};
    if (!sl_buffer_append(&whole, it->left, it->left_length) || !sl_buffer_append(&whole, right, rest)) {
        sl_buffer_free(&whole);
        return sl_fail_memory(error, "merges", it->left_length + rest);
    }
    const char *texts[3] = {it->left, it->right, whole.data};
    size_t lengths[3] = {it->left_length, it->right_length, whole.length};
    sllm_status status = SLLM_OK;
    for (int k = 0; k < 3 && status == SLLM_OK; k++) {
        it->id[k] = sl_tokenizer_find(tokenizer, texts[k], lengths[k]);
        if (it->id[k] < 0)
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s[%u]: \"%.*s\" is not in the vocabulary", merges->what,
                             it->rank, (int)(lengths[k] < 80 ? lengths[k] : 80), texts[k]);
    }
    sl_buffer_free(&whole);
    return status;
}

static void ask_for_tokens(sl_merges *merges) {
    const sl_vocab *vocab = &merges->tokenizer->vocab;
    const sl_strings *table = &vocab->by_key;
    for (size_t i = 0; i < merges->n; i++)
        for (int k = 0; k < 3; k++) {
            item *it = &merges->items[i];
            it->hash[k] = sl_hash_bytes(merges->bytes.data + it->key[k].offset, it->key[k].length, table->seed);
            __builtin_prefetch(&table->slots[it->hash[k] & table->mask]);
        }
    for (size_t i = 0; i < merges->n; i++)
        for (int k = 0; k < 3; k++) {
            int32_t id = table->slots[merges->items[i].hash[k] & table->mask].id;
            merges->items[i].id[k] = id;
            if (id >= 0) __builtin_prefetch(&vocab->keys[id]);
        }
    for (size_t i = 0; i < merges->n; i++)
        for (int k = 0; k < 3; k++) {
            int32_t id = merges->items[i].id[k];
            if (id >= 0) __builtin_prefetch(vocab->pool.data + vocab->keys[id].offset);
        }
}

static sllm_status flush(sl_merges *merges, sllm_error *error) {
    const sl_vocab *vocab = &merges->tokenizer->vocab;
    sl_pairs *pairs = &merges->tokenizer->bpe.pairs;
    ask_for_tokens(merges);
    for (size_t i = 0; i < merges->n; i++) {
        item *it = &merges->items[i];
        bool found = true;
        for (int k = 0; k < 3; k++) {
            it->id[k] = it->key[k].length ? sl_strings_find_hashed(&vocab->by_key, vocab->pool.data, vocab->keys,
                                                                   merges->bytes.data + it->key[k].offset,
                                                                   it->key[k].length, it->hash[k])
                                          : -1;
            found = found && it->id[k] >= 0;
        }
        sllm_status status = found ? SLLM_OK : find_slowly(merges, it, error);
        if (status != SLLM_OK) return status;
        sl_pairs_prefetch(pairs, it->id[0], it->id[1]);
    }
    for (size_t i = 0; i < merges->n; i++) {
        const item *it = &merges->items[i];
        sl_pairs_put(pairs, it->id[0], it->id[1], it->rank, it->id[2]);
    }
    merges->n = 0;
    merges->bytes.length = 0;
    return SLLM_OK;
}

sllm_status sl_merges_add(sl_merges *merges, uint32_t rank, const char *left, size_t left_length, const char *right,
                          size_t right_length, sllm_error *error) {
    item *it = &merges->items[merges->n++];
    *it = (item){.left = left, .right = right, .left_length = left_length, .right_length = right_length, .rank = rank};
    if (!put_keys(merges, it)) return sl_fail_memory(error, "merges", left_length + right_length);
    return merges->n == BATCH ? flush(merges, error) : SLLM_OK;
}

sllm_status sl_merges_finish(sl_merges *merges, sllm_error *error) { return flush(merges, error); }
