/* A *.tiktoken file (openai/tiktoken) is ranks alone: two adjacent tokens merge when their joined bytes are a token,
 * lowest rank first, which is BPE by score. Pattern and special tokens are not in the file: the published ones of the
 * encoding. */
#include "base/error.h"
#include "text/load_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- lines */

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One line "base64 rank"; false when it is not. bytes: [>= length] */
static bool read_line(const char *line, size_t length, char *bytes, size_t *n, int64_t *rank) {
    uint32_t bits = 0;
    int n_bits = 0;
    size_t i = 0;
    *n = 0;
    for (; i < length && base64_value(line[i]) >= 0; i++) {
        bits = bits << 6 | (uint32_t)base64_value(line[i]);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            bytes[(*n)++] = (char)(bits >> n_bits);
        }
    }
    while (i < length && line[i] == '=') i++;
    if (!*n || i >= length || line[i] != ' ') return false;
    int64_t value = 0;
    size_t digits = 0;
    for (i++; i < length && line[i] >= '0' && line[i] <= '9' && digits < 9; i++, digits++)
        value = value * 10 + (line[i] - '0');
    *rank = value;
    return digits && (i == length || line[i] == '\r');
}

bool sl_is_tiktoken(const char *text, size_t length) {
    char bytes[256];
    size_t n;
    int64_t rank;
    const char *end = memchr(text, '\n', length < sizeof bytes ? length : sizeof bytes);
    return end && read_line(text, (size_t)(end - text), bytes, &n, &rank);
}

/* Ranks into the vocabulary, spelled in the byte alphabet; vocab NULL: only looks. *most: the highest rank. */
static sllm_status read_ranks(sl_vocab *vocab, const sl_buffer *text, int64_t *most, sllm_error *error) {
    sl_buffer bytes = {0}, letters = {0};
    sllm_status status = SLLM_OK;
    size_t line = 0;
    *most = -1;
    for (size_t at = 0; at < text->length && status == SLLM_OK; line++) {
        const char *end = memchr(text->data + at, '\n', text->length - at);
        size_t n = end ? (size_t)(end - text->data) - at : text->length - at, length;
        int64_t rank;
        bytes.length = letters.length = 0;
        if (!sl_buffer_reserve(&bytes, n + 1)) {
            status = sl_fail_memory(error, "the vocabulary", n);
        } else if (n && !read_line(text->data + at, n, bytes.data, &length, &rank)) {
            status = sl_fail(error, SLLM_ERROR_FORMAT, "line %zu is not \"base64 rank\"", line + 1);
        } else if (n) {
            if (rank > *most) *most = rank;
            if (rank > (int64_t)(text->length / 4) + 1024)
                status =
                    sl_fail(error, SLLM_ERROR_FORMAT, "line %zu: rank %lld is out of range", line + 1, (long long)rank);
            else if (vocab && (!sl_letters_of_bytes(bytes.data, length, &letters) ||
                               !sl_vocab_set(vocab, (int32_t)rank, letters.data, letters.length, SL_TOKEN_NORMAL,
                                             -(float)rank)))
                status = sl_fail_memory(error, "the vocabulary", length);
        }
        at += n + 1;
    }
    sl_buffer_free(&bytes);
    sl_buffer_free(&letters);
    if (status == SLLM_OK && *most < 0) return sl_fail(error, SLLM_ERROR_FORMAT, "no ranks");
    return status;
}

/* ---------------------------------------------------------------- encodings */

/* `count` special tokens from id `at` on (-1: behind the one before; the first of all behind the ranks); a name with %d
 * is numbered from `first` on. */
typedef struct special_run {
    const char *name;
    int64_t at;
    int first, count;
} special_run;

typedef struct encoding {
    const char *names; /* model types, a part of the class, a part of the file's name; separated by blanks */
    const char *pre;
    special_run special[20];
} encoding;

#define ONE(name, at) {name, at, 0, 1}

static const encoding encodings[] = {
    {"phi3small Phi3Small", "dbrx", /* cl100k_base's ranks with Microsoft's special tokens */
     {ONE("<|dummy_id_2|>", 100256), ONE("<|endoftext|>", -1), ONE("<|fim_prefix|>", -1), ONE("<|fim_middle|>", -1),
      ONE("<|fim_suffix|>", -1), ONE("<|system|>", -1), ONE("<|user|>", -1), ONE("<|assistant|>", -1),
      {"<|dummy_id_%d|>", -1, 0, 2}, ONE("<|end|>", -1), {"<|dummy_id_%d|>", -1, 3, 9}, ONE("<|endofprompt|>", -1),
      {"<|dummy_id_%d|>", -1, 12, 75}}},
    {"qwen QWen", "qwen2",
     {ONE("<|endoftext|>", -1), ONE("<|im_start|>", -1), ONE("<|im_end|>", -1), {"<|extra_%d|>", -1, 0, 205}}},
    {"llama llama3 tokenizer.model", "llama3", /* Llama 3's original file */
     {ONE("<|begin_of_text|>", -1), ONE("<|end_of_text|>", -1), {"<|reserved_special_token_%d|>", -1, 0, 4},
      ONE("<|start_header_id|>", -1), ONE("<|end_header_id|>", -1), ONE("<|reserved_special_token_4|>", -1),
      ONE("<|eot_id|>", -1), {"<|reserved_special_token_%d|>", -1, 5, 246}}},
    {"cl100k", "dbrx",
     {ONE("<|endoftext|>", 100257), ONE("<|fim_prefix|>", -1), ONE("<|fim_middle|>", -1), ONE("<|fim_suffix|>", -1),
      ONE("<|endofprompt|>", 100276)}},
    {"o200k", "gpt-4o", {ONE("<|endoftext|>", 199999), ONE("<|endofprompt|>", 200018)}},
    {"gpt2 p50k r50k", "gpt-2", {ONE("<|endoftext|>", 50256)}},
};

/* True when one of the blank-separated words of names is text, or (part) stands in it. */
static bool any_word(const char *names, const char *text, bool part) {
    for (const char *at = names; *at && *text;) {
        size_t n = strcspn(at, " ");
        if (part ? memmem(text, strlen(text), at, n) != NULL : strlen(text) == n && !memcmp(text, at, n)) return true;
        at += n + (at[n] == ' ');
    }
    return false;
}

/* The model's type says most; then the tokenizer's class, then the file's name. */
static const encoding *find_encoding(const sl_tokenizer_settings *settings, const char *file) {
    const char *texts[] = {sl_tokenizer_model_type(settings), sl_tokenizer_class(settings), file};
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++)
            if (any_word(encodings[i].names, texts[k], k > 0)) return &encodings[i];
    return NULL;
}

/* The next special token of a walk over an encoding's runs. */
typedef struct special_walk {
    size_t run;
    int done;
    int64_t id; /* of the token */
    char name[64];
} special_walk;

static bool next_special(const encoding *e, special_walk *walk) {
    const special_run *run = &e->special[walk->run];
    if (run->name && walk->done == run->count) {
        walk->done = 0;
        walk->run++;
        run++;
    }
    if (walk->run == sizeof e->special / sizeof *e->special || !run->name) return false;
    walk->id = !walk->done && run->at >= 0 ? run->at : walk->id + 1;
    const char *number = strstr(run->name, "%d");
    if (number)
        snprintf(walk->name, sizeof walk->name, "%.*s%d%s", (int)(number - run->name), run->name,
                 run->first + walk->done, number + 2);
    else
        snprintf(walk->name, sizeof walk->name, "%s", run->name);
    walk->done++;
    return true;
}

/* ---------------------------------------------------------------- the whole */

static sllm_status set_special(sl_tokenizer *tokenizer, int64_t id, const char *text, size_t length, bool special,
                               sllm_error *error) {
    int type = special ? SL_TOKEN_CONTROL : SL_TOKEN_USER;
    if (!sl_vocab_set(&tokenizer->vocab, (int32_t)id, text, length, type, 0))
        return sl_fail_memory(error, "special tokens", length);
    return sl_added_add(tokenizer, (sl_added){.id = (int32_t)id, .special = special}, error);
}

/* The encoding's special tokens, then those of tokenizer_config.json behind the ranks. */
static sllm_status add_specials(sl_tokenizer *tokenizer, const encoding *e, int64_t n_ranks, const sl_json *list,
                                sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (special_walk walk = {.id = n_ranks - 1}; status == SLLM_OK && next_special(e, &walk);)
        status = set_special(tokenizer, walk.id, walk.name, strlen(walk.name), true, error);
    for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next) {
        const sl_json *content = sl_json_get(item, "content");
        char *end;
        long long id = strtoll(item->key, &end, 10);
        bool special = true;
        if (!content || content->type != SL_JSON_STRING || id < n_ranks || id >= tokenizer->vocab.size || *end)
            continue;
        sl_json_bool(sl_json_get(item, "special"), &special);
        status = set_special(tokenizer, id, content->text, content->length, special, error);
    }
    return status;
}

static int64_t table_size(const encoding *e, int64_t n_ranks, const sl_json *list) {
    int64_t size = n_ranks;
    for (special_walk walk = {.id = n_ranks - 1}; next_special(e, &walk);)
        if (walk.id >= size) size = walk.id + 1;
    for (const sl_json *item = list ? list->first : NULL; item; item = item->next) {
        long long id = strtoll(item->key, NULL, 10);
        if (id >= size && id < size + 4096) size = id + 1;
    }
    return size;
}

static sllm_status load(sl_tokenizer *tokenizer, const encoding *e, const sl_tokenizer_files *files,
                        const sl_tokenizer_settings *settings, sllm_error *error) {
    const sl_json *list = settings->config ? sl_json_get(settings->config, "added_tokens_decoder") : NULL;
    sl_vocab *vocab = &tokenizer->vocab;
    int64_t most;
    bool bos = false, sep = false;
    if (list && list->type != SL_JSON_OBJECT) list = NULL;
    sllm_status status = read_ranks(NULL, &files->text, &most, error);
    if (status == SLLM_OK) status = sl_vocab_init(vocab, (int32_t)table_size(e, most + 1, list), true, error);
    if (status == SLLM_OK) status = read_ranks(vocab, &files->text, &most, error);
    if (status == SLLM_OK) status = add_specials(tokenizer, e, most + 1, list, error);
    if (status == SLLM_OK) status = sl_vocab_index(vocab, SL_SPELLING_BYTE_LEVEL, NULL, error);
    if (status == SLLM_OK) status = sl_pretokenizer_named(tokenizer, e->pre, strlen(e->pre), &bos, &sep, error);
    if (status != SLLM_OK) return status;
    snprintf(tokenizer->pre, sizeof tokenizer->pre, "%s", e->pre);
    tokenizer->kind = SL_MODEL_BPE;
    tokenizer->bpe.byte_level = tokenizer->bpe.by_score = tokenizer->bpe.ignore_merges = true;
    tokenizer->bpe.unk = -1;
    status = sl_bpe_prepare(tokenizer, error);
    if (status == SLLM_OK) status = sl_added_index(tokenizer, error);
    if (status == SLLM_OK) status = sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_BYTE_LEVEL}, error);
    if (status != SLLM_OK) return status;
    sl_tokenizer_apply_settings(tokenizer, settings);
    if (bos && tokenizer->special[SL_SPECIAL_BOS] >= 0)
        tokenizer->prefix[tokenizer->n_prefix++] = tokenizer->special[SL_SPECIAL_BOS];
    return sl_tokenizer_finish(tokenizer, error);
}

sllm_status sl_load_tiktoken(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                             sl_tokenizer **tokenizer, sllm_error *error) {
    const encoding *e = find_encoding(settings, files->name);
    if (!e)
        return sl_fail(
            error, SLLM_ERROR_UNSUPPORTED,
            "which tiktoken encoding this is follows neither from config.json's "
            "model_type (known: qwen, phi3small, llama, gpt2) nor from the file's name (known: qwen, cl100k, "
            "o200k, p50k, r50k, Llama 3's tokenizer.model)");
    sl_tokenizer *made = sl_tokenizer_new(error);
    if (!made) return SLLM_ERROR_MEMORY;
    sllm_status status = load(made, e, files, settings, error);
    if (status == SLLM_OK) *tokenizer = made;
    else sl_tokenizer_free(made);
    return status;
}
