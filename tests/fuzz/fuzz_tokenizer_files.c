/* The older forms of tokenizer files from outside: SentencePiece's tokenizer.model, vocab.json with merges.txt,
 * vocab.txt, *.tiktoken. The first line of the input names the file, the second is a text; then come the file and, each
 * behind a line "--" of its own, merges.txt and tokenizer_config.json. */
#include "round_trip.h"
#include "text/load_files.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts off what stands before the next `end`; false: there is none, and the rest is taken. */
static bool cut(const char **at, size_t *left, const char *end, sl_buffer *part) {
    const char *found = *left ? memmem(*at, *left, end, strlen(end)) : NULL;
    part->data = (char *)*at;
    part->length = found ? (size_t)(found - *at) : *left;
    size_t used = part->length + (found ? strlen(end) : 0);
    *at += used;
    *left -= used;
    if (!part->length) part->data = NULL;
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *at = (const char *)data;
    char name[64];
    sl_buffer line, text;
    sl_tokenizer_files files = {.name = name};
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    if (!cut(&at, &size, "\n", &line) || !cut(&at, &size, "\n", &text) || line.length >= sizeof name) return 0;
    if (line.length) memcpy(name, line.data, line.length);
    name[line.length] = 0;
    if (cut(&at, &size, "\n--\n", &files.text) && cut(&at, &size, "\n--\n", &files.merges))
        cut(&at, &size, "\n--\n", &files.config);
    if (!files.text.length) return 0;
    if (sl_tokenizer_from_files(&files, &tokenizer, &error) != SLLM_OK) {
        if (tokenizer || !error.message[0]) abort();
        return 0;
    }
    try_tokenizer(tokenizer, text.data ? text.data : "", text.length);
    sl_tokenizer_free(tokenizer);
    return 0;
}
