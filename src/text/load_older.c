/* vocab.json + merges.txt and vocab.txt are read as the tokenizer.json they would become: the text of one is written and
 * parsed. A *.tiktoken file is ranks alone: two adjacent tokens merge when their joined bytes are a token, lowest rank
 * first (openai/tiktoken), which is BPE by score. */
#include "base/error.h"
#include "base/json.h"
#include "text/load_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "added_tokens": [...] from tokenizer_config.json's added_tokens_decoder ("id": {content, special, ...}). */
static void write_added(sl_buffer *out, const sl_json *config) {
    const sl_json *list = config ? sl_json_get(config, "added_tokens_decoder") : NULL;
    sl_json_key(out, "added_tokens");
    sl_buffer_putc(out, '[');
    for (const sl_json *item = list ? list->first : NULL; item; item = item->next) {
        char *end;
        long long id = strtoll(item->key, &end, 10);
        if (item->type != SL_JSON_OBJECT || end == item->key || *end) continue;
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        sl_json_put_int(out, "id", id);
        for (const sl_json *member = item->first; member; member = member->next) {
            if (!strcmp(member->key, "id")) continue;
            sl_json_key(out, member->key);
            sl_json_write_value(out, member);
        }
        sl_buffer_putc(out, '}');
    }
    sl_buffer_putc(out, ']');
}

static void write_merges(sl_buffer *out, const char *text, size_t length) {
    sl_json_key(out, "merges");
    sl_buffer_putc(out, '[');
    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t n = end ? (size_t)(end - text) - at : length - at;
        size_t used = n && text[at + n - 1] == '\r' ? n - 1 : n;
        bool version = at == 0 && used >= 9 && !memcmp(text, "#version:", 9);
        if (used && !version) {
            sl_json_comma(out);
            sl_json_write_string(out, text + at, used);
        }
        at += n + 1;
    }
    sl_buffer_putc(out, ']');
}

static sllm_status parse_config(const sl_tokenizer_files *files, sl_arena *arena, const sl_json **config, sllm_error *error) {
    *config = NULL;
    if (!files->config) return SLLM_OK;
    return sl_json_parse(arena, files->config, files->config_length, "tokenizer_config.json", config, error);
}

/* Parses what was written, as a tokenizer.json. */
static sllm_status load_written(const sl_tokenizer_files *files, sl_buffer *json, sl_tokenizer **tokenizer, sllm_error *error) {
    sllm_status status = json->failed ? sl_fail_memory(error, "the tokenizer", json->length)
                                      : sl_tokenizer_from_json(json->data, json->length, files->config, files->config_length,
                                                               tokenizer, error);
    sl_buffer_free(json);
    return status;
}

sllm_status sl_load_vocab_merges(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error) {
    static const char qwen2[] =
        "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
        "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}"
        "\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";
    static const char gpt2[] = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    sl_arena arena = {0};
    sl_buffer json = {0};
    const sl_json *config;
    sllm_status status = parse_config(files, &arena, &config, error);
    if (status == SLLM_OK) {
        const char *class = config ? sl_json_string(sl_json_get(config, "tokenizer_class")) : NULL;
        sl_buffer_putc(&json, '{');
        write_added(&json, config);
        sl_buffer_printf(&json, ",%s,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":",
                         class && !strncmp(class, "Qwen", 4) ? qwen2 : gpt2);
        sl_buffer_append(&json, files->text, files->length);
        write_merges(&json, files->other, files->other_length);
        sl_buffer_puts(&json, "}}");
        status = load_written(files, &json, tokenizer, error);
    }
    sl_arena_free(&arena);
    return status;
}

sllm_status sl_load_vocab_txt(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error) {
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    sl_arena arena = {0};
    sl_buffer json = {0}, vocab = {0};
    const sl_json *config;
    bool lowercase = true;
    int64_t ids[5] = {-1, -1, -1, -1, -1}, line = 0;
    sllm_status status = parse_config(files, &arena, &config, error);
    sl_buffer_putc(&vocab, '{');
    for (size_t at = 0; status == SLLM_OK && at < files->length; line++) {
        const char *end = memchr(files->text + at, '\n', files->length - at);
        size_t n = end ? (size_t)(end - files->text) - at : files->length - at;
        size_t used = n && files->text[at + n - 1] == '\r' ? n - 1 : n;
        for (int i = 0; i < 5; i++)
            if (used == strlen(specials[i]) && !memcmp(files->text + at, specials[i], used)) ids[i] = line;
        sl_json_comma(&vocab);
        sl_json_write_string(&vocab, files->text + at, used);
        sl_buffer_printf(&vocab, ":%lld", (long long)line);
        at += n + 1;
    }
    sl_buffer_putc(&vocab, '}');
    if (status == SLLM_OK && (ids[1] < 0 || ids[2] < 0 || ids[3] < 0))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "vocab.txt: not a WordPiece vocabulary: it lacks [UNK], [CLS] or [SEP]");
    if (status == SLLM_OK) {
        if (config) sl_json_bool(sl_json_get(config, "do_lower_case"), &lowercase);
        sl_buffer_puts(&json, "{\"added_tokens\":[");
        for (int i = 0; i < 5; i++) {
            if (ids[i] < 0) continue;
            sl_json_comma(&json);
            sl_buffer_printf(&json, "{\"id\":%lld,\"content\":\"%s\",\"special\":true,\"normalized\":false}", (long long)ids[i], specials[i]);
        }
        sl_buffer_printf(&json,
                         "],\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":%s},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
                         "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",%lld],\"cls\":[\"[CLS]\",%lld]},"
                         "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":\"WordPiece\","
                         "\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\"vocab\":",
                         lowercase ? "true" : "false", (long long)ids[3], (long long)ids[2]);
        sl_buffer_append(&json, vocab.data, vocab.length);
        sl_buffer_puts(&json, "}}");
        if (vocab.failed) json.failed = true;
        status = load_written(files, &json, tokenizer, error);
    }
    sl_buffer_free(&vocab);
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- tiktoken */

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
    for (i++; i < length && line[i] >= '0' && line[i] <= '9' && digits < 9; i++, digits++) value = value * 10 + (line[i] - '0');
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

/* The encodings whose patterns and special tokens are published; `at`: -1 puts the first behind the ranks. */
typedef struct encoding {
    const char *name, *pre;
    struct { const char *text; int64_t at; } special[6];
} encoding;

static const encoding encodings[] = {
    {"qwen", "qwen2", {{"<|endoftext|>", -1}, {"<|im_start|>", -1}, {"<|im_end|>", -1}}},
    {"cl100k", "dbrx", {{"<|endoftext|>", 100257}, {"<|fim_prefix|>", 100258}, {"<|fim_middle|>", 100259},
                        {"<|fim_suffix|>", 100260}, {"<|endofprompt|>", 100276}}},
    {"o200k", "gpt-4o", {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
    {"p50k", "gpt-2", {{"<|endoftext|>", 50256}}},
    {"r50k", "gpt-2", {{"<|endoftext|>", 50256}}},
    {"tokenizer.model", "llama3", {{NULL, 0}}}, /* Llama 3's original file */
};

static const char *const llama3_special[] = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>", "<|reserved_special_token_3|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|reserved_special_token_4|>", "<|eot_id|>"};

static sllm_status set_special(sl_tokenizer *tokenizer, int64_t id, const char *text, size_t length, bool special, sllm_error *error) {
    if (!sl_vocab_set(&tokenizer->vocab, (int32_t)id, text, length, special ? SL_TOKEN_CONTROL : SL_TOKEN_USER, 0))
        return sl_fail_memory(error, "special tokens", length);
    return sl_added_add(tokenizer, (sl_added){.id = (int32_t)id, .special = special}, error);
}

static sllm_status add_specials(sl_tokenizer *tokenizer, const encoding *e, int64_t n_ranks, const sl_json *config, sllm_error *error) {
    sllm_status status = SLLM_OK;
    const sl_json *list = config ? sl_json_get(config, "added_tokens_decoder") : NULL;
    int64_t next = n_ranks;
    for (size_t i = 0; i < 6 && e->special[i].text && status == SLLM_OK; i++) {
        int64_t id = e->special[i].at < 0 ? next++ : e->special[i].at;
        status = set_special(tokenizer, id, e->special[i].text, strlen(e->special[i].text), true, error);
    }
    for (int i = 0; !strcmp(e->pre, "llama3") && i < 256 && status == SLLM_OK; i++) {
        char name[40];
        if (i < 10) snprintf(name, sizeof name, "%s", llama3_special[i]);
        else snprintf(name, sizeof name, "<|reserved_special_token_%d|>", i - 5);
        status = set_special(tokenizer, n_ranks + i, name, strlen(name), true, error);
    }
    for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next) {
        const sl_json *content = sl_json_get(item, "content");
        char *end;
        long long id = strtoll(item->key, &end, 10);
        bool special = true;
        if (!content || content->type != SL_JSON_STRING || id < n_ranks || id >= tokenizer->vocab.size || *end) continue;
        sl_json_bool(sl_json_get(item, "special"), &special);
        status = set_special(tokenizer, id, content->text, content->length, special, error);
    }
    return status;
}

/* Ranks into the vocabulary; `letters` spells bytes as byte-level vocabularies do. *most: the highest rank. */
static sllm_status read_ranks(sl_vocab *vocab, const sl_tokenizer_files *files, int64_t *most, sllm_error *error) {
    sl_buffer bytes = {0}, letters = {0};
    sllm_status status = SLLM_OK;
    size_t line = 0;
    *most = -1;
    for (size_t at = 0; at < files->length && status == SLLM_OK; line++) {
        const char *end = memchr(files->text + at, '\n', files->length - at);
        size_t n = end ? (size_t)(end - files->text) - at : files->length - at, length;
        int64_t rank;
        bytes.length = letters.length = 0;
        if (!sl_buffer_reserve(&bytes, n + 1)) {
            status = sl_fail_memory(error, "the vocabulary", n);
        } else if (n && !read_line(files->text + at, n, bytes.data, &length, &rank)) {
            status = sl_fail(error, SLLM_ERROR_FORMAT, "line %zu is not \"base64 rank\"", line + 1);
        } else if (n) {
            if (rank > *most) *most = rank;
            if (rank > (int64_t)(files->length / 4) + 1024) status = sl_fail(error, SLLM_ERROR_FORMAT, "line %zu: rank %lld is out of range", line + 1, (long long)rank);
            else if (vocab && (!sl_letters_of_bytes(bytes.data, length, &letters) ||
                               !sl_vocab_set(vocab, (int32_t)rank, letters.data, letters.length, SL_TOKEN_NORMAL, -(float)rank)))
                status = sl_fail_memory(error, "the vocabulary", length);
        }
        at += n + 1;
    }
    sl_buffer_free(&bytes);
    sl_buffer_free(&letters);
    if (status == SLLM_OK && *most < 0) return sl_fail(error, SLLM_ERROR_FORMAT, "no ranks");
    return status;
}

static int64_t table_size(const encoding *e, int64_t n_ranks, const sl_json *config) {
    int64_t size = n_ranks + (strcmp(e->pre, "llama3") ? 8 : 256);
    const sl_json *list = config ? sl_json_get(config, "added_tokens_decoder") : NULL;
    for (size_t i = 0; i < 6 && e->special[i].text; i++)
        if (e->special[i].at >= size) size = e->special[i].at + 1;
    for (const sl_json *item = list ? list->first : NULL; item; item = item->next) {
        long long id = strtoll(item->key, NULL, 10);
        if (id >= size && id < size + 4096) size = id + 1;
    }
    return size;
}

static sllm_status load_tiktoken(sl_tokenizer *tokenizer, const encoding *e, const sl_tokenizer_files *files, const sl_json *config,
                                 sllm_error *error) {
    int64_t most;
    bool bos = false, sep = false;
    sllm_status status = read_ranks(NULL, files, &most, error);
    if (status == SLLM_OK) status = sl_vocab_init(&tokenizer->vocab, (int32_t)table_size(e, most + 1, config), true, error);
    if (status == SLLM_OK) status = read_ranks(&tokenizer->vocab, files, &most, error);
    if (status == SLLM_OK) status = add_specials(tokenizer, e, most + 1, config, error);
    if (status == SLLM_OK) status = sl_vocab_index(&tokenizer->vocab, SL_SPELLING_BYTE_LEVEL, NULL, error);
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
    if (bos && (tokenizer->special[SL_SPECIAL_BOS] = sl_tokenizer_find(tokenizer, "<|begin_of_text|>", 17)) >= 0)
        tokenizer->prefix[tokenizer->n_prefix++] = tokenizer->special[SL_SPECIAL_BOS];
    return sl_tokenizer_finish(tokenizer, error);
}

sllm_status sl_load_tiktoken(const sl_tokenizer_files *files, sl_tokenizer **tokenizer, sllm_error *error) {
    const encoding *e = NULL;
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings && !e; i++)
        if (strstr(files->name, encodings[i].name)) e = &encodings[i];
    if (!e)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "which tiktoken encoding this is does not follow from its name; known: qwen, "
                       "cl100k_base, o200k_base, p50k_base, r50k_base, Llama 3's tokenizer.model");
    sl_arena arena = {0};
    const sl_json *config;
    sllm_status status = parse_config(files, &arena, &config, error);
    sl_tokenizer *made = status == SLLM_OK ? calloc(1, sizeof *made) : NULL;
    if (status == SLLM_OK && !made) status = sl_fail_memory(error, "a tokenizer", sizeof *made);
    for (int i = 0; made && i < SL_SPECIAL_COUNT; i++) made->special[i] = -1;
    if (status == SLLM_OK) status = load_tiktoken(made, e, files, config, error);
    if (status == SLLM_OK) *tokenizer = made;
    else sl_tokenizer_free(made);
    sl_arena_free(&arena);
    return status;
}
