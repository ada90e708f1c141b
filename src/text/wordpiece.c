/* WordPiece as in BERT (google-research/bert, tokenization.py): greedily the longest piece from the left; a word that
 * cannot be covered, or is too long, is unknown. And WordLevel: a word is a token or unknown. */
#include "base/error.h"
#include "text/work.h"

#include <string.h>

static bool put(sl_ids *ids, int32_t id) {
    if (id < 0) return true; /* no unknown token: nothing stands for the word */
    if (!sl_ids_reserve(ids, 1)) return false;
    ids->data[ids->length++] = id;
    return true;
}

sllm_status sl_wordpiece_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                                sl_ids *ids, sllm_error *error) {
    const sl_wordpiece *model = &tokenizer->wordpiece;
    const sl_vocab *vocab = &tokenizer->vocab;
    size_t before = ids->length, chars = 0;
    for (size_t i = 0; i < length && chars <= model->max_chars; i += sl_utf8_width((unsigned char)word[i])) chars++;
    if (chars > model->max_chars)
        return put(ids, model->unk) ? SLLM_OK : sl_fail_memory(error, "tokenising", length);
    sl_buffer *key = &work->other;
    for (size_t start = 0; start < length;) {
        size_t mark_length = start ? model->prefix_length : 0, end = length;
        key->length = 0;
        if (!sl_buffer_append(key, model->prefix, mark_length) || !sl_buffer_append(key, word + start, length - start))
            return sl_fail_memory(error, "tokenising", length);
        if (vocab->longest < mark_length + (end - start)) {
            end = vocab->longest > mark_length ? start + vocab->longest - mark_length : start;
            while (end > start && ((unsigned char)word[end] & 0xC0) == 0x80) end--;
        }
        int32_t id = -1;
        while (end > start) {
            id = sl_vocab_find(vocab, key->data, mark_length + (end - start));
            if (id >= 0) break;
            while (end > start && ((unsigned char)word[--end] & 0xC0) == 0x80) continue;
        }
        if (id < 0) {
            ids->length = before;
            return put(ids, model->unk) ? SLLM_OK : sl_fail_memory(error, "tokenising", length);
        }
        if (!put(ids, id)) return sl_fail_memory(error, "tokenising", length);
        start = end;
    }
    return SLLM_OK;
}

sllm_status sl_wordlevel_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                                sl_ids *ids, sllm_error *error) {
    (void)work;
    int32_t id = sl_vocab_find(&tokenizer->vocab, word, length);
    return put(ids, id >= 0 ? id : tokenizer->wordpiece.unk) ? SLLM_OK : sl_fail_memory(error, "tokenising", length);
}
