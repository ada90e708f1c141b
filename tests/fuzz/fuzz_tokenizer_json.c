/* tokenizer.json from outside, and texts through what it builds: loading, encoding in every mode, decoding whole and
 * streamed must neither crash nor disagree. The first line of the input is a text, the rest the tokenizer.json. */
#include "round_trip.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    if (!line) return 0;
    size_t length = (size_t)(line - text);
    if (sl_tokenizer_from_json(line + 1, size - length - 1, NULL, 0, &tokenizer, &error) != SLLM_OK) return 0;
    try_tokenizer(tokenizer, text, length);
    sl_tokenizer_free(tokenizer);
    return 0;
}
