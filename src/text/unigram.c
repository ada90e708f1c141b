/* Unigram (Kudo 2018, arXiv 1804.10959): the segmentation with the best sum of scores, by dynamic programming over byte
 * positions. Sums are rounded to float and ties broken exactly as in SentencePiece (unigram_model.cc, EncodeOptimized),
 * so that equal paths give the same ids. */
#include "base/error.h"
#include "text/work.h"

#include <float.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0f

sllm_status sl_unigram_prepare(sl_tokenizer *tokenizer, sllm_error *error) {
    sl_unigram *unigram = &tokenizer->unigram;
    const sl_vocab *vocab = &tokenizer->vocab;
    unigram->min_score = FLT_MAX;
    unigram->max_score = -FLT_MAX;
    for (int i = 0; i < 256; i++) unigram->bytes[i] = -1;
    for (int32_t id = 0; id < vocab->size; id++) {
        int type = vocab->types[id];
        sl_span span = vocab->texts[id];
        const char *text = vocab->pool.data + span.offset;
        if (type == SL_TOKEN_BYTE) {
            int byte = sl_byte_of_token(text, span.length);
            if (byte >= 0) unigram->bytes[byte] = id;
        }
        if (type == SL_TOKEN_NORMAL) {
            if (vocab->scores[id] < unigram->min_score) unigram->min_score = vocab->scores[id];
            if (vocab->scores[id] > unigram->max_score) unigram->max_score = vocab->scores[id];
        }
        if ((type == SL_TOKEN_NORMAL || type == SL_TOKEN_USER) && span.length &&
            !sl_trie_add(&unigram->trie, text, span.length, id))
            return sl_fail_memory(error, "the vocabulary's trie", 0);
    }
    return SLLM_OK;
}

static void reach(sl_node *node, double score, int32_t start, int32_t id) {
    if (node->start >= 0 && !(score > (double)node->score)) return;
    *node = (sl_node){(float)score, start, id};
}

/* Extends every piece that begins at `start`, a character of `width` bytes. */
static void extend(const sl_tokenizer *tokenizer, sl_node *nodes, const char *text, size_t length, size_t start,
                   size_t width) {
    const sl_unigram *unigram = &tokenizer->unigram;
    const sl_vocab *vocab = &tokenizer->vocab;
    float so_far = nodes[start].score;
    bool single = false;
    uint32_t node = 0;
    for (size_t at = start; at < length && unigram->trie.n_nodes;) {
        node = sl_trie_step(&unigram->trie, node, (unsigned char)text[at++]);
        if (!node) break;
        int32_t id = unigram->trie.values[node];
        if (id < 0) continue;
        /* A user-defined piece always wins; the sum is in double precision as in the original. */
        double score = vocab->types[id] == SL_TOKEN_USER ? (double)((float)(at - start) * unigram->max_score) - 0.1
                                                         : (double)vocab->scores[id];
        double sum = vocab->types[id] == SL_TOKEN_USER ? score + so_far : (double)(float)((float)score + so_far);
        reach(&nodes[at], sum, (int32_t)start, id);
        if (at - start == width) single = true;
    }
    if (!single) {
        float sum = (unigram->min_score - UNKNOWN_PENALTY) + so_far;
        reach(&nodes[start + width], (double)sum, (int32_t)start, -1);
    }
}

static bool put(sl_ids *ids, int32_t id) {
    if (!sl_ids_reserve(ids, 1)) return false;
    ids->data[ids->length++] = id;
    return true;
}

sllm_status sl_unigram_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                              sl_ids *ids, sllm_error *error) {
    const sl_unigram *unigram = &tokenizer->unigram;
    if (!length) return SLLM_OK;
    if (length > INT32_MAX / 4)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a text of %zu bytes is too long to tokenise at once: split it",
                       length);
    if (work->nodes_capacity <= length &&
        !sl_grow(&work->nodes, &work->nodes_capacity, length + 1, sizeof *work->nodes))
        return sl_fail_memory(error, "tokenising", length);
    sl_node *nodes = work->nodes;
    for (size_t i = 0; i <= length; i++) nodes[i] = (sl_node){0, -1, -1};
    nodes[0].start = 0;
    /* The text is UTF-8, so the last character ends where the text does. Were it not, the path must still end there:
     * no node lies behind it, and the way back starts from it. */
    for (size_t at = 0, width; at < length; at += width) {
        width = sl_utf8_width((unsigned char)text[at]);
        if (width > length - at) width = length - at;
        extend(tokenizer, nodes, text, length, at, width);
    }
    size_t n = 0;
    for (size_t at = length; at > 0; at = (size_t)nodes[at].start) {
        if (n == work->path_capacity && !sl_grow(&work->path, &work->path_capacity, n + 1, sizeof *work->path))
            return sl_fail_memory(error, "tokenising", length);
        work->path[n++] = (int32_t)at;
    }
    bool after_unknown = false, ok = true;
    while (ok && n-- > 0) {
        const sl_node *node = &nodes[work->path[n]];
        if (node->id >= 0) {
            ok = put(ids, node->id);
            after_unknown = false;
            continue;
        }
        bool bytes = unigram->byte_fallback;
        for (int32_t i = node->start; bytes && i < work->path[n]; i++)
            bytes = unigram->bytes[(unsigned char)text[i]] >= 0;
        for (int32_t i = node->start; bytes && ok && i < work->path[n]; i++)
            ok = put(ids, unigram->bytes[(unsigned char)text[i]]);
        if (bytes) continue;
        if (!after_unknown && unigram->unk >= 0) ok = put(ids, unigram->unk);
        after_unknown = true;
    }
    return ok ? SLLM_OK : sl_fail_memory(error, "tokenising", length);
}
