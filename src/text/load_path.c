/* A tokenizer from a folder or a file, whichever of the known forms is there. */
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "text/load_files.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define MAX_FILE ((size_t)512 << 20) /* unpacked; the largest published tokenizer.json has 33 MB */

/* The file `name` beside `path`; an absent one leaves the buffer empty. */
static sllm_status read_beside(const char *path, const char *name, sl_buffer *out, sllm_error *error) {
    char folder[4096], full[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", path);
    memcpy(folder, path, n);
    folder[n] = 0;
    if (!sl_path_join(full, sizeof full, slash ? (n ? folder : "/") : ".", name) || !sl_path_is_file(full))
        return SLLM_OK;
    return sl_file_read(full, MAX_FILE, out, error);
}

/* The main file and the small ones beside it. */
static sllm_status read_files(const char *path, sl_tokenizer_files *files, sllm_error *error) {
    const struct { const char *name; sl_buffer *text; } others[] = {
        {"tokenizer_config.json", &files->config}, {"special_tokens_map.json", &files->specials},
        {"added_tokens.json", &files->added}, {"config.json", &files->model}};
    const char *slash = strrchr(path, '/');
    files->name = slash ? slash + 1 : path;
    sllm_status status = sl_file_read_gz(path, MAX_FILE, &files->text, error);
    if (status == SLLM_OK && !files->text.length) status = sl_fail(error, SLLM_ERROR_FORMAT, "the file is empty");
    for (size_t i = 0; i < sizeof others / sizeof *others && status == SLLM_OK; i++)
        status = read_beside(path, others[i].name, others[i].text, error);
    if (status != SLLM_OK || strcmp(files->name, "vocab.json")) return status;
    status = read_beside(path, "merges.txt", &files->merges, error);
    if (status != SLLM_OK || files->merges.length) return status;
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "vocab.json needs the merges.txt that belongs to it");
}

sllm_status sl_tokenizer_from_files(const sl_tokenizer_files *files, sl_tokenizer **tokenizer,
                                    sllm_error *error) {
    sl_tokenizer_settings settings = {0};
    const char *name = files->name;
    sllm_status status = sl_tokenizer_settings_read(files, &settings, error);
    if (status != SLLM_OK) {
        sl_tokenizer_settings_free(&settings);
        return status;
    }
    if (!strcmp(name, "vocab.json"))
        status = sl_load_vocab_merges(files, &settings, tokenizer, error);
    else if (sl_ends_with(name, ".json") || sl_ends_with(name, ".json.gz"))
        status = sl_load_json(files->text.data, files->text.length, &settings, tokenizer, error);
    else if (sl_ends_with(name, ".txt"))
        status = sl_load_vocab_txt(files, &settings, tokenizer, error);
    else if (sl_ends_with(name, ".tiktoken") || sl_is_tiktoken(files->text.data, files->text.length))
        status = sl_load_tiktoken(files, &settings, tokenizer, error);
    else
        status = sl_load_sentencepiece(files, &settings, tokenizer, error);
    sl_tokenizer_settings_free(&settings);
    return status;
}

static sllm_status load_file(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    sl_tokenizer_files files = {0};
    sllm_status status = read_files(path, &files, error);
    if (status == SLLM_OK) status = sl_tokenizer_from_files(&files, tokenizer, error);
    sl_buffer *all[] = {&files.text, &files.merges, &files.config, &files.specials, &files.added, &files.model};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) sl_buffer_free(all[i]);
    return status == SLLM_OK ? status : sl_error_prefix(error, status, "%s", path);
}

/* The first file *.tiktoken of a folder, by name. */
static bool find_tiktoken(const char *folder, char *full, size_t size) {
    char best[256] = "";
    DIR *directory = opendir(folder);
    if (!directory) return false;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (sl_ends_with(entry->d_name, ".tiktoken") && strlen(entry->d_name) < sizeof best &&
            (!*best || strcmp(entry->d_name, best) < 0)) snprintf(best, sizeof best, "%s", entry->d_name);
    closedir(directory);
    return *best && sl_path_join(full, size, folder, best) && sl_path_is_file(full);
}

sllm_status sl_tokenizer_from_path(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.json.gz", "tokenizer.model", "vocab.json",
                                        "vocab.txt"};
    char full[4096];
    *tokenizer = NULL;
    if (sl_path_is_file(path)) return load_file(path, tokenizer, error);
    if (!sl_path_is_directory(path))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: no such file or folder", path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sl_path_join(full, sizeof full, path, names[i]) && sl_path_is_file(full))
            return load_file(full, tokenizer, error);
    if (find_tiktoken(path, full, sizeof full)) return load_file(full, tokenizer, error);
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: no tokenizer: looked for tokenizer.json[.gz], tokenizer.model, "
                   "vocab.json with merges.txt, vocab.txt and *.tiktoken", path);
}
