/* How fast this library tokenises: one thread, one vocabulary, texts from a file of JSON strings (one a line).
 *
 *   tokenize VOCABULARY TEXTS.jsonl [ROUNDS]
 *
 * Driven by tokenizer_speed.py, which measures Hugging Face tokenizers in turn: reads a line "first" or "again" from standard
 * input, tokenises all texts once, and answers with seconds, bytes and ids. "first" starts with an empty word cache. */
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Processor time of this thread: other work on the machine does not count. */
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

typedef struct texts {
    const sl_json **items;
    size_t n, bytes;
    sl_arena arena;
} texts;

static bool read_texts(const char *path, texts *t) {
    sl_buffer file = {0};
    sllm_error error = {0};
    if (sl_file_read(path, (size_t)1 << 30, &file, &error) != SLLM_OK) return false;
    size_t capacity = 0;
    for (size_t at = 0; at < file.length;) {
        const char *end = memchr(file.data + at, '\n', file.length - at);
        size_t n = end ? (size_t)(end - file.data) - at : file.length - at;
        if (n) {
            if (t->n == capacity) {
                capacity = capacity ? capacity * 2 : 1024;
                t->items = realloc(t->items, capacity * sizeof *t->items);
                if (!t->items) return false;
            }
            if (sl_json_parse(&t->arena, file.data + at, n, path, &t->items[t->n], &error) != SLLM_OK) return false;
            t->bytes += t->items[t->n++]->length;
        }
        at += n + 1;
    }
    sl_buffer_free(&file);
    return t->n > 0;
}

static sllm_status load(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    sl_gguf *gguf;
    if (!strstr(path, ".gguf")) return sl_tokenizer_from_path(path, tokenizer, error);
    sllm_status status = sl_gguf_open(path, &gguf, error);
    if (status != SLLM_OK) return status;
    double start = seconds();
    status = sl_tokenizer_from_gguf(gguf, tokenizer, error);
    fprintf(stderr, "loaded in %.1f ms\n", (seconds() - start) * 1e3);
    sl_gguf_close(gguf);
    return status;
}

int main(int argc, char **argv) {
    texts t = {0};
    sl_tokenizer *tokenizer;
    sl_tokenizer_cache *cache = NULL;
    sllm_error error = {0};
    char line[32];
    if (argc < 3 || !read_texts(argv[2], &t)) {
        fprintf(stderr, "usage: tokenize VOCABULARY TEXTS.jsonl\n");
        return 2;
    }
    if (load(argv[1], &tokenizer, &error) != SLLM_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    sl_ids ids = {0};
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "first", 5) || !cache) {
            sl_tokenizer_cache_free(cache);
            if (sl_tokenizer_cache_new(tokenizer, &cache, &error) != SLLM_OK) return 1;
        }
        size_t n_ids = 0;
        double start = seconds();
        for (size_t i = 0; i < t.n; i++) {
            ids.length = 0;
            if (sl_tokenizer_encode(tokenizer, cache, t.items[i]->text, t.items[i]->length, 0, &ids, &error) !=
                SLLM_OK) {
                fprintf(stderr, "%s\n", error.message);
                return 1;
            }
            n_ids += ids.length;
        }
        printf("%.9f %zu %zu\n", seconds() - start, t.bytes, n_ids);
        fflush(stdout);
    }
    free(ids.data);
    free(t.items);
    sl_arena_free(&t.arena);
    sl_tokenizer_cache_free(cache);
    sl_tokenizer_free(tokenizer);
    return 0;
}
