/* A tokenizer from a folder or a file, whichever of the known forms is there. */
#include "base/error.h"
#include "base/file.h"
#include "text/load_files.h"

#include <string.h>

#define MAX_FILE ((size_t)512 << 20) /* unpacked; the largest published tokenizer.json has 33 MB */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

/* The file `name` beside `path`; an absent one leaves the buffer empty. */
static sllm_status read_beside(const char *path, const char *name, sl_buffer *out, sllm_error *error) {
    char folder[4096], full[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", path);
    memcpy(folder, path, n);
    folder[n] = 0;
    if (!sl_path_join(full, sizeof full, slash ? (n ? folder : "/") : ".", name) || !sl_path_is_file(full)) return SLLM_OK;
    return sl_file_read(full, MAX_FILE, out, error);
}

/* Reads the files that belong together and hands them to the loader of their kind. */
static sllm_status load_file(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    sl_buffer text = {0}, config = {0}, other = {0};
    sllm_status status = sl_file_read_gz(path, MAX_FILE, &text, error);
    if (status == SLLM_OK) status = read_beside(path, "tokenizer_config.json", &config, error);
    if (status == SLLM_OK) {
        const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        sl_tokenizer_files files = {.name = name, .text = text.data, .length = text.length, .config = config.data,
                                    .config_length = config.length};
        bool is_json = ends_with(name, ".json") || ends_with(name, ".json.gz");
        if (!text.length) {
            status = sl_fail(error, SLLM_ERROR_FORMAT, "the file is empty");
        } else if (!strcmp(name, "vocab.json")) {
            status = read_beside(path, "merges.txt", &other, error);
            if (status == SLLM_OK && !other.length)
                status = sl_fail(error, SLLM_ERROR_NOT_FOUND, "vocab.json needs the merges.txt that belongs to it");
            files.other = other.data;
            files.other_length = other.length;
            if (status == SLLM_OK) status = sl_load_vocab_merges(&files, tokenizer, error);
        } else if (is_json) {
            status = sl_tokenizer_from_json(text.data, text.length, config.data, config.length, tokenizer, error);
        } else if (ends_with(name, ".txt")) {
            status = sl_load_vocab_txt(&files, tokenizer, error);
        } else if (ends_with(name, ".tiktoken") || sl_is_tiktoken(text.data, text.length)) {
            status = sl_load_tiktoken(&files, tokenizer, error);
        } else {
            status = sl_load_sentencepiece(&files, tokenizer, error);
        }
    }
    sl_buffer_free(&text);
    sl_buffer_free(&config);
    sl_buffer_free(&other);
    return status == SLLM_OK ? status : sl_error_prefix(error, status, "%s", path);
}

sllm_status sl_tokenizer_from_path(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.json.gz", "tokenizer.model", "vocab.json", "vocab.txt",
                                        "qwen.tiktoken", "cl100k_base.tiktoken", "o200k_base.tiktoken", "tokenizer.tiktoken"};
    *tokenizer = NULL;
    if (sl_path_is_file(path)) return load_file(path, tokenizer, error);
    if (!sl_path_is_directory(path))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: no such file or folder", path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char full[4096];
        if (sl_path_join(full, sizeof full, path, names[i]) && sl_path_is_file(full)) return load_file(full, tokenizer, error);
    }
    return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                   "%s: no tokenizer: looked for tokenizer.json[.gz], tokenizer.model, vocab.json with merges.txt, vocab.txt and "
                   "*.tiktoken (qwen, cl100k_base, o200k_base)", path);
}
