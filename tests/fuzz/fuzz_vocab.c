/* The vocabulary of a GGUF file from outside, and texts through the tokenizer it builds. The first line of the input is
 * a text, the rest the file. */
#include "round_trip.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
    sl_gguf *gguf;
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    if (!line) return 0;
    size_t length = (size_t)(line - text);
    if (sl_gguf_open_memory(line + 1, size - length - 1, &gguf, &error) != SLLM_OK) return 0;
    if (sl_tokenizer_from_gguf(gguf, &tokenizer, &error) == SLLM_OK) {
        sl_gguf_close(gguf); /* the tokenizer stands by itself */
        try_tokenizer(tokenizer, text, length);
        sl_tokenizer_free(tokenizer);
        return 0;
    }
    if (tokenizer || !error.message[0]) abort();
    sl_gguf_close(gguf);
    return 0;
}
