/* tokenizer.json from outside, and texts through what it builds: loading, encoding in every mode, decoding whole and
 * streamed must neither crash nor disagree. The first line of the input is a text, the rest the tokenizer.json. */
#include "text/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const sl_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, bool skip) {
    sl_ids ids = {0};
    sl_buffer whole = {0}, streamed = {0};
    sl_decoder *decoder = NULL;
    sllm_error error = {0};
    if (sl_tokenizer_encode(tokenizer, NULL, text, length, flags, &ids, &error) != SLLM_OK) goto done;
    if (sl_tokenizer_decode(tokenizer, ids.data, ids.length, skip, &whole, &error) != SLLM_OK) goto done;
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    if (!line) return 0;
    size_t length = (size_t)(line - text);
    if (sl_tokenizer_from_json(line + 1, size - length - 1, NULL, 0, &tokenizer, &error) != SLLM_OK) return 0;
    for (unsigned flags = 0; flags < 4; flags++) round_trip(tokenizer, text, length, flags, flags & 1);
    for (int32_t id = 0; id < sl_tokenizer_size(tokenizer); id++) {
        size_t n;
        sl_tokenizer_piece(tokenizer, id, &n);
        round_trip(tokenizer, sl_tokenizer_text(tokenizer, id) ? sl_tokenizer_text(tokenizer, id) : "", 0, 0, false);
    }
    sl_tokenizer_free(tokenizer);
    return 0;
}
