/* The older forms of tokenizer files: vocab.json + merges.txt, vocab.txt, *.tiktoken, tokenizer.model. Each is written
 * into a temporary folder from a vocabulary whose ids are known, loaded from there, and held against those ids. */
#include "golden/tokenizer_forms.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- a folder of files */

typedef struct folder {
    char path[512];
    const char *files[8];
    size_t n;
} folder;

static bool folder_make(folder *f) {
    const char *base = getenv("TMPDIR");
    memset(f, 0, sizeof *f);
    snprintf(f->path, sizeof f->path, "%s/sllm-golden-XXXXXX", base && *base ? base : P_tmpdir);
    return mkdtemp(f->path) != NULL;
}

static void folder_put(folder *f, const char *name, const sl_buffer *text) {
    char path[600];
    sllm_error error = {0};
    f->files[f->n++] = name;
    if (text->failed || !sl_path_join(path, sizeof path, f->path, name) ||
        sl_file_write(path, text->data, text->length, &error) != SLLM_OK) abort();
}

static void folder_put_text(folder *f, const char *name, const char *text) {
    folder_put(f, name, &(sl_buffer){.data = (char *)text, .length = strlen(text)});
}

static void folder_remove(folder *f) {
    char path[600];
    for (size_t i = 0; i < f->n; i++)
        if (sl_path_join(path, sizeof path, f->path, f->files[i])) unlink(path);
    rmdir(f->path);
}

static void check_folder(golden *g, folder *f, const char *shown, const char *truth, bool sequences) {
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    if (sl_tokenizer_from_path(f->path, &tokenizer, &error) != SLLM_OK) golden_fail(g, shown, "%s", error.message);
    else golden_check_tokenizer(g, tokenizer, shown, truth, sequences);
    sl_tokenizer_free(tokenizer);
    folder_remove(f);
}

/* ---------------------------------------------------------------- from a tokenizer.json */

typedef struct source {
    sl_arena arena;
    sl_buffer text;
    const sl_json *root, *vocab;
} source;

static bool source_read(source *s, const char *directory, const char *name) {
    char path[4096];
    sllm_error error = {0};
    memset(s, 0, sizeof *s);
    snprintf(path, sizeof path, "%s/tokenizer_json/%s", directory, name);
    if (sl_file_read_gz(path, (size_t)1 << 30, &s->text, &error) != SLLM_OK) return false;
    if (sl_json_parse(&s->arena, s->text.data, s->text.length, name, &s->root, &error) != SLLM_OK) return false;
    s->vocab = sl_json_get_path(s->root, "model.vocab");
    return s->vocab != NULL;
}

static void source_free(source *s) {
    sl_arena_free(&s->arena);
    sl_buffer_free(&s->text);
}

/* merges.txt as published: a first line with a version, then "left right". */
static void write_merges(sl_buffer *out, const sl_json *merges) {
    sl_buffer_puts(out, "#version: 0.2\n");
    for (const sl_json *item = merges->first; item; item = item->next) {
        const sl_json *left = sl_json_at(item, 0), *right = sl_json_at(item, 1);
        if (left) {
            sl_buffer_append(out, left->text, left->length);
            sl_buffer_putc(out, ' ');
        } else {
            right = item;
        }
        sl_buffer_append(out, right->text, right->length);
        sl_buffer_putc(out, '\n');
    }
}

/* The tokens of a tokenizer.json's "added_tokens" as tokenizer_config.json lists them. */
static void write_config(sl_buffer *out, const char *class, const sl_json *added) {
    sl_buffer_printf(out, "{\"tokenizer_class\":\"%s\",\"added_tokens_decoder\":{", class);
    for (const sl_json *item = added->first; item; item = item->next) {
        int64_t id = 0;
        char key[24];
        sl_json_int64(sl_json_get(item, "id"), &id);
        snprintf(key, sizeof key, "%lld", (long long)id);
        sl_json_key(out, key);
        sl_json_write_value(out, item);
    }
    sl_buffer_puts(out, "}}");
}

static void vocab_merges(golden *g, const char *directory, const char *name, const char *truth, const char *class) {
    source s;
    folder f;
    sl_buffer vocab = {0}, merges = {0}, config = {0};
    char shown[128];
    if (source_read(&s, directory, name) && folder_make(&f)) {
        sl_json_write_value(&vocab, s.vocab);
        write_merges(&merges, sl_json_get_path(s.root, "model.merges"));
        folder_put(&f, "vocab.json", &vocab);
        folder_put(&f, "merges.txt", &merges);
        if (class) {
            write_config(&config, class, sl_json_get(s.root, "added_tokens"));
            folder_put(&f, "tokenizer_config.json", &config);
        }
        snprintf(shown, sizeof shown, "%s/vocab.json+merges.txt%s", truth, class ? "+config" : "");
        check_folder(g, &f, shown, truth, true);
    }
    sl_buffer_free(&vocab);
    sl_buffer_free(&merges);
    sl_buffer_free(&config);
    source_free(&s);
}

static void vocab_txt(golden *g, const char *directory) {
    source s;
    folder f;
    sl_buffer out = {0};
    if (source_read(&s, directory, "minilm.json") && folder_make(&f)) {
        const sl_json **lines = calloc(s.vocab->length, sizeof *lines);
        if (!lines) abort();
        for (const sl_json *item = s.vocab->first; item; item = item->next) {
            int64_t id;
            if (!sl_json_int64(item, &id) || id < 0 || (size_t)id >= s.vocab->length) abort();
            lines[id] = item;
        }
        for (size_t id = 0; id < s.vocab->length; id++) {
            sl_buffer_append(&out, lines[id]->key, lines[id]->key_length);
            sl_buffer_putc(&out, '\n');
        }
        free(lines);
        folder_put(&f, "vocab.txt", &out);
        folder_put_text(&f, "tokenizer_config.json",
                        "{\"do_lower_case\": true, \"tokenizer_class\": \"BertTokenizer\"}");
        check_folder(g, &f, "minilm/vocab.txt", "bert-bge", false);
    }
    sl_buffer_free(&out);
    source_free(&s);
}

/* ---------------------------------------------------------------- from a GGUF file */

static void write_base64(sl_buffer *out, const char *bytes, size_t n) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++) bits = bits << 8 | (i + k < n ? (unsigned char)bytes[i + k] : 0);
        for (size_t k = 0; k < 4; k++) sl_buffer_putc(out, i + k <= n ? letters[bits >> (18 - 6 * k) & 63] : '=');
    }
}

static bool vocabulary(const char *directory, const char *name, sl_gguf **gguf, sl_tokenizer **tokenizer) {
    char path[4096];
    sllm_error error = {0};
    snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf", directory, name);
    *tokenizer = NULL;
    if (sl_gguf_open(path, gguf, &error) != SLLM_OK) return false;
    if (sl_tokenizer_from_gguf(*gguf, tokenizer, &error) == SLLM_OK) return true;
    sl_gguf_close(*gguf);
    return false;
}

/* Ranks are ids in these vocabularies; special tokens come behind them. */
static void tiktoken(golden *g, const char *directory, const char *truth, int32_t n_ranks, const char *file,
                     const char *config) {
    sl_gguf *gguf;
    sl_tokenizer *tokenizer;
    folder f;
    sl_buffer out = {0};
    char shown[128];
    if (!vocabulary(directory, truth, &gguf, &tokenizer) || !folder_make(&f)) return;
    for (int32_t id = 0; id < n_ranks; id++) {
        size_t length;
        const char *piece = sl_tokenizer_piece(tokenizer, id, &length);
        write_base64(&out, piece, length);
        sl_buffer_printf(&out, " %d\n", id);
    }
    sl_tokenizer_free(tokenizer);
    sl_gguf_close(gguf);
    folder_put(&f, file, &out);
    if (config) folder_put_text(&f, "config.json", config);
    sl_buffer_free(&out);
    snprintf(shown, sizeof shown, "%s/%s", truth, file);
    check_folder(g, &f, shown, truth, false);
}

static void put_varint(sl_buffer *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) sl_buffer_putc(out, (char)(value | 0x80));
    sl_buffer_putc(out, (char)value);
}

static void put_bytes(sl_buffer *out, int field, const char *bytes, size_t n) {
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, n);
    sl_buffer_append(out, bytes, n);
}

static void put_number(sl_buffer *out, int field, uint64_t value) {
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

/* A SentencePiece model (sentencepiece_model.proto): pieces, a trainer specification that says BPE with byte fallback,
 * a normaliser that adds a blank in front. */
static void write_model(sl_buffer *out, const sl_gguf *gguf, const sl_tokenizer *tokenizer) {
    sl_gguf_value scores, types, item;
    sl_buffer part = {0};
    if (!sl_gguf_find(gguf, "tokenizer.ggml.scores", &scores) ||
        !sl_gguf_find(gguf, "tokenizer.ggml.token_type", &types))
        abort();
    const unsigned char *score_at = scores.array.data, *type_at = types.array.data;
    for (int32_t id = 0; id < sl_tokenizer_size(tokenizer); id++) {
        const char *text = sl_tokenizer_text(tokenizer, id);
        part.length = 0;
        put_bytes(&part, 1, text, strlen(text));
        if (!sl_gguf_array_next(&scores, &score_at, &item)) abort();
        float score = (float)item.f;
        put_varint(&part, 2 << 3 | 5);
        sl_buffer_append(&part, &score, 4);
        if (!sl_gguf_array_next(&types, &type_at, &item)) abort();
        put_number(&part, 3, (uint64_t)item.i);
        put_bytes(out, 1, part.data, part.length);
    }
    part.length = 0;
    put_number(&part, 3, 2);
    put_number(&part, 35, 1);
    put_bytes(out, 2, part.data, part.length);
    part.length = 0;
    put_number(&part, 3, 1);
    put_number(&part, 4, 0);
    put_number(&part, 5, 1);
    put_bytes(out, 3, part.data, part.length);
    sl_buffer_free(&part);
}

static void sentencepiece(golden *g, const char *directory, const char *truth) {
    sl_gguf *gguf;
    sl_tokenizer *tokenizer;
    folder f;
    sl_buffer out = {0};
    char shown[128];
    if (!vocabulary(directory, truth, &gguf, &tokenizer) || !folder_make(&f)) return;
    write_model(&out, gguf, tokenizer);
    sl_tokenizer_free(tokenizer);
    sl_gguf_close(gguf);
    folder_put(&f, "tokenizer.model", &out);
    sl_buffer_free(&out);
    snprintf(shown, sizeof shown, "%s/tokenizer.model", truth);
    check_folder(g, &f, shown, truth, true);
}

void golden_tokenizer_forms(golden *g, const char *directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/vocab", directory);
    if (!sl_path_is_directory(path)) return;
    vocab_merges(g, directory, "gpt-2.json", "gpt-2", NULL);
    vocab_merges(g, directory, "qwen2.json.gz", "qwen2", "Qwen2Tokenizer");
    vocab_txt(g, directory);
    tiktoken(g, directory, "gpt-2", 50256, "r50k_base.tiktoken", NULL);
    tiktoken(g, directory, "qwen2", 151643, "any.tiktoken", "{\"model_type\": \"qwen\"}");
    tiktoken(g, directory, "llama-bpe", 128000, "tokenizer.model", NULL);
    sentencepiece(g, directory, "llama-spm");
}
