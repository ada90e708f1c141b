/* What the fuzz targets of tokenizers do with one that loaded. */
#ifndef TESTS_ROUND_TRIP_H
#define TESTS_ROUND_TRIP_H

#include "base/utf8.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Text to ids and back, whole and streamed: the two must agree. The ids lie in the vocabulary, the text is UTF-8. */
static inline void round_trip(const sl_tokenizer *tokenizer, const char *text, size_t length, unsigned flags,
                              bool skip) {
    sl_ids ids = {0};
    sl_buffer whole = {0}, streamed = {0};
    sl_decoder *decoder = NULL;
    sllm_error error = {0};
    if (sl_tokenizer_encode(tokenizer, NULL, text, length, flags, &ids, &error) != SLLM_OK) goto done;
    for (size_t i = 0; i < ids.length; i++)
        if (ids.data[i] < 0 || ids.data[i] >= sl_tokenizer_size(tokenizer)) abort();
    if (sl_tokenizer_decode(tokenizer, ids.data, ids.length, skip, &whole, &error) != SLLM_OK) goto done;
    if (whole.length && !sl_utf8_is_valid(whole.data, whole.length)) abort();
    if (sl_decoder_new(tokenizer, skip, &decoder, &error) != SLLM_OK) goto done;
    for (size_t i = 0; i < ids.length; i++)
        if (sl_decoder_push(decoder, ids.data[i], &streamed, &error) != SLLM_OK) goto done;
    if (sl_decoder_finish(decoder, &streamed, &error) != SLLM_OK) goto done;
    if (whole.length != streamed.length || (whole.length && memcmp(whole.data, streamed.data, whole.length))) abort();
done:
    sl_decoder_free(decoder);
    free(ids.data);
    sl_buffer_free(&whole);
    sl_buffer_free(&streamed);
}

/* A text in every mode, and every token by itself. */
static inline void try_tokenizer(const sl_tokenizer *tokenizer, const char *text, size_t length) {
    sl_buffer out = {0};
    sllm_error error = {0};
    for (unsigned flags = 0; flags < 4; flags++) round_trip(tokenizer, text, length, flags, flags & 1);
    for (int32_t id = 0; id < sl_tokenizer_size(tokenizer); id++) {
        size_t n;
        const char *piece = sl_tokenizer_piece(tokenizer, id, &n), *name = sl_tokenizer_text(tokenizer, id);
        if (!piece != !name) abort();
        out.length = 0;
        sl_tokenizer_decode(tokenizer, &id, 1, false, &out, &error);
        if (piece) round_trip(tokenizer, piece, n, SLLM_TOKENIZE_SPECIAL, false);
    }
    for (int which = 0; which < SL_SPECIAL_COUNT; which++) {
        int32_t id = sl_tokenizer_special(tokenizer, (sl_special)which);
        if (id < -1 || id >= sl_tokenizer_size(tokenizer)) abort();
    }
    sl_buffer_free(&out);
}

#endif
