#include "infer/continuation.h"

#include "base/checked.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

/* Tokens looked back at: a character is at most four byte tokens, and one whole character settles the state. */
enum { LOOK_BACK = 8 };

sllm_status sl_ids_append(sl_ids *ids, const int32_t *more, size_t n, sllm_error *error) {
    size_t needed, bytes;
    if (n == 0) return SLLM_OK;
    if (!sl_add_size(ids->length, n, &needed)) return sl_fail_memory(error, "collecting tokens", SIZE_MAX);
    if (needed > ids->capacity) {
        size_t capacity = ids->capacity < 64 ? 64 : ids->capacity;
        while (capacity < needed) capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
        int32_t *data = sl_mul_size(capacity, sizeof *data, &bytes) ? realloc(ids->data, bytes) : NULL;
        if (!data) return sl_fail_memory(error, "collecting tokens", capacity * sizeof *data);
        ids->data = data;
        ids->capacity = capacity;
    }
    memcpy(ids->data + ids->length, more, n * sizeof *more);
    ids->length = needed;
    return SLLM_OK;
}

sllm_status sl_ids_push(sl_ids *ids, int32_t id, sllm_error *error) { return sl_ids_append(ids, &id, 1, error); }

sllm_status sl_decoder_follow(sl_decoder *decoder, const sl_tokenizer *tokenizer, const int32_t *before, size_t n,
                              sllm_error *error) {
    size_t first = n;
    while (first > 0 && n - first < LOOK_BACK && before[first - 1] < sl_tokenizer_size(tokenizer) &&
           !sl_tokenizer_is_special(tokenizer, before[first - 1]))
        first--;
    if (first == n) return SLLM_OK;
    sl_buffer shown = {0};
    sllm_status status = SLLM_OK;
    for (size_t i = first; i < n && !status; i++) status = sl_decoder_push(decoder, before[i], &shown, error);
    /* What it holds back, a byte token at the end, belongs to the tokens before: out with it. The decoder can go on. */
    if (!status) status = sl_decoder_finish(decoder, &shown, error);
    sl_buffer_free(&shown);
    return status;
}

/* Do ids [n], behind `before`, read as text? */
static sllm_status reads_as(const sl_tokenizer *tokenizer, const int32_t *before, size_t n_before, const int32_t *ids,
                            size_t n, const char *text, size_t length, bool *same, sllm_error *error) {
    sl_decoder *decoder = NULL;
    sl_buffer decoded = {0};
    sllm_status status = sl_decoder_new(tokenizer, true, &decoder, error);
    if (!status) status = sl_decoder_follow(decoder, tokenizer, before, n_before, error);
    for (size_t i = 0; i < n && !status; i++) status = sl_decoder_push(decoder, ids[i], &decoded, error);
    if (!status) status = sl_decoder_finish(decoder, &decoded, error);
    if (!status && decoded.failed) status = sl_fail_memory(error, "decoding a continuation", length);
    *same = !status && decoded.length == length && (length == 0 || memcmp(decoded.data, text, length) == 0);
    sl_buffer_free(&decoded);
    sl_decoder_free(decoder);
    return status;
}

/* The tokens of text as they stand behind a line break: those of "\n" + text without those of "\n". None when the two
 * do not separate. */
static sllm_status encode_behind_break(const sl_tokenizer *tokenizer, const char *text, size_t length, sl_ids *ids,
                                       sllm_error *error) {
    sl_ids lone = {0};
    sl_buffer anchored = {0};
    ids->length = 0;
    sllm_status status = sl_tokenizer_encode(tokenizer, NULL, "\n", 1, 0, &lone, error);
    sl_buffer_putc(&anchored, '\n');
    sl_buffer_append(&anchored, text, length);
    if (!status && anchored.failed) status = sl_fail_memory(error, "encoding a continuation", length);
    if (!status) status = sl_tokenizer_encode(tokenizer, NULL, anchored.data, anchored.length, 0, ids, error);
    if (!status) {
        bool separate = lone.length > 0 && ids->length >= lone.length &&
                        memcmp(ids->data, lone.data, lone.length * sizeof *lone.data) == 0;
        size_t rest = separate ? ids->length - lone.length : 0;
        if (rest > 0) memmove(ids->data, ids->data + lone.length, rest * sizeof *ids->data);
        ids->length = rest;
    }
    sl_buffer_free(&anchored);
    free(lone.data);
    return status;
}

sllm_status sl_encode_continuation(const sl_tokenizer *tokenizer, const int32_t *before, size_t n_before,
                                   const char *text, size_t length, sl_ids *ids, bool *exact, sllm_error *error) {
    sl_ids plain = {0}, behind = {0};
    bool plain_reads = false, behind_reads = false;
    sllm_status status = sl_tokenizer_encode(tokenizer, NULL, text, length, 0, &plain, error);
    if (!status)
        status = reads_as(tokenizer, before, n_before, plain.data, plain.length, text, length, &plain_reads, error);
    if (!status && !plain_reads) {
        status = encode_behind_break(tokenizer, text, length, &behind, error);
        if (!status)
            status =
                reads_as(tokenizer, before, n_before, behind.data, behind.length, text, length, &behind_reads, error);
    }
    const sl_ids *best = behind_reads ? &behind : &plain;
    if (!status) status = sl_ids_append(ids, best->data, best->length, error);
    *exact = plain_reads || behind_reads;
    free(plain.data);
    free(behind.data);
    return status;
}
