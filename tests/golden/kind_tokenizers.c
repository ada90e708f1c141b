/* tokenizers: every vocabulary of DIR, from its GGUF file and from its tokenizer.json, against the reference's ids. One
 * line a vocabulary and check; DIR/README.md says what the truth is where references disagree. */
#include "golden/tokenizer_forms.h"

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A .jsonl file, its lines parsed. */
typedef struct lines {
    sl_arena arena;
    sl_buffer text;
    const sl_json **items;
    size_t n;
} lines;

static void lines_free(lines *l) {
    sl_arena_free(&l->arena);
    sl_buffer_free(&l->text);
    free(l->items);
    memset(l, 0, sizeof *l);
}

static bool lines_read(lines *l, const char *directory, const char *folder, const char *name) {
    char path[4096];
    sllm_error error = {0};
    memset(l, 0, sizeof *l);
    snprintf(path, sizeof path, "%s/%s%s", directory, folder, name);
    if (sl_file_read(path, (size_t)1 << 30, &l->text, &error) != SLLM_OK) return false;
    size_t capacity = 0;
    for (size_t at = 0; at < l->text.length;) {
        const char *end = memchr(l->text.data + at, '\n', l->text.length - at);
        size_t length = end ? (size_t)(end - l->text.data) - at : l->text.length - at;
        if (length) {
            if (l->n == capacity) {
                capacity = capacity ? capacity * 2 : 1024;
                l->items = realloc(l->items, capacity * sizeof *l->items);
                if (!l->items) abort();
            }
            if (sl_json_parse(&l->arena, l->text.data + at, length, path, &l->items[l->n], &error) != SLLM_OK) {
                printf("%s line %zu: %s\n", path, l->n + 1, error.message);
                return false;
            }
            l->n++;
        }
        at += length + 1;
    }
    return true;
}

static bool same_ids(const sl_json *wanted, const int32_t *ids, size_t n) {
    if (!wanted || wanted->type != SL_JSON_ARRAY || wanted->length != n) return false;
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        if (!sl_json_int64(wanted->items[i], &id) || id != ids[i]) return false;
    }
    return true;
}

/* One check of one tokenizer: counts, and the first case that failed. */
typedef struct check {
    char name[160];
    size_t right, total;
    char first[400];
} check;

static void check_begin(check *c, const char *name, const char *what) {
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s %s", name, what);
}

static void check_count(check *c, bool ok, const char *what, size_t which, const char *got, size_t length) {
    c->total++;
    c->right += ok;
    if (!ok && !c->first[0])
        snprintf(c->first, sizeof c->first, "; first: %s %zu, got %.*s", what, which,
                 (int)(length < 300 ? length : 300), got);
}

static void check_end(golden *g, const check *c) {
    if (c->right == c->total && c->total) golden_pass(g, c->name, "%zu of %zu", c->right, c->total);
    else golden_fail(g, c->name, "%zu of %zu%s", c->right, c->total, c->first);
}

static size_t show_ids(char *out, size_t size, const sl_ids *ids) {
    size_t n = 0;
    for (size_t i = 0; i < ids->length && n + 16 < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%d ", ids->data[i]);
    return n;
}

/* ---------------------------------------------------------------- checks */

typedef struct subject {
    const sl_tokenizer *tokenizer;
    sl_tokenizer_cache *cache;
    const char *name;
    const lines *corpus, *ids;
} subject;

static bool encode(const subject *s, const char *text, size_t length, unsigned flags, sl_ids *ids) {
    sllm_error error = {0};
    ids->length = 0;
    return sl_tokenizer_encode(s->tokenizer, s->cache, text, length, flags, ids, &error) == SLLM_OK;
}

/* Phi-3's "</s>": what SentencePiece does (lc) is as good as what Hugging Face does. And unigram-small with special
 * tokens parsed: `sp` is left out where Hugging Face's two modes agree, although `ids` is then SentencePiece's, which
 * reads no "<unk>" or "<pad>" from a text; what parsing gives is in `lc_sp` (and the same in `hf`). */
static bool either_accepted(const subject *s, const sl_json *text, const sl_json *row, bool special) {
    if (special && strstr(s->name, "unigram")) return sl_json_get(row, "hf") && !sl_json_get(row, "sp");
    return strstr(s->name, "phi-3") && memmem(text->text, text->length, "</s>", 4);
}

static void check_ids(golden *g, const subject *s, bool special, const char *what) {
    check c;
    sl_ids ids = {0};
    char shown[400];
    check_begin(&c, s->name, what);
    for (size_t i = 0; i < s->ids->n && i < s->corpus->n; i++) {
        const sl_json *text = sl_json_get(s->corpus->items[i], "text"), *row = s->ids->items[i];
        const sl_json *wanted = sl_json_get(row, "sp"), *other = sl_json_get(row, special ? "lc_sp" : "lc");
        if (!special || !wanted) wanted = sl_json_get(row, "ids");
        bool ok = encode(s, text->text, text->length, special ? SLLM_TOKENIZE_SPECIAL : 0, &ids) &&
                  (same_ids(wanted, ids.data, ids.length) ||
                   (other && either_accepted(s, text, row, special) && same_ids(other, ids.data, ids.length)));
        check_count(&c, ok, "string", i, shown, show_ids(shown, sizeof shown, &ids));
    }
    check_end(g, &c);
    free(ids.data);
}

/* The prefix and suffix of meta.json around the plain ids. */
static void check_add(golden *g, const subject *s, const sl_json *meta) {
    check c;
    sl_ids ids = {0}, plain = {0};
    char shown[400];
    const sl_json *prefix = sl_json_get(meta, "hf_prefix"), *suffix = sl_json_get(meta, "hf_suffix");
    if (!prefix || !suffix) return;
    check_begin(&c, s->name, "add");
    for (size_t i = 0; i < s->ids->n && i < s->corpus->n; i++) {
        const sl_json *text = sl_json_get(s->corpus->items[i], "text");
        bool ok = encode(s, text->text, text->length, 0, &plain) &&
                  encode(s, text->text, text->length, SLLM_TOKENIZE_ADD, &ids) &&
                  ids.length == prefix->length + plain.length + suffix->length;
        const int32_t *middle = ok && ids.length ? ids.data + prefix->length : NULL;
        if (middle)
            ok = same_ids(prefix, ids.data, prefix->length) &&
                 (!plain.length || !memcmp(middle, plain.data, plain.length * sizeof *middle)) &&
                 same_ids(suffix, middle + plain.length, suffix->length);
        check_count(&c, ok, "string", i, shown, show_ids(shown, sizeof shown, &ids));
    }
    check_end(g, &c);
    free(ids.data);
    free(plain.data);
}

static sl_ids ids_of(const sl_json *array) {
    sl_ids ids = {.data = calloc(array->length + 1, sizeof *ids.data),
                  .length = array->length,
                  .capacity = array->length + 1};
    for (size_t i = 0; ids.data && i < array->length; i++) {
        int64_t id = 0;
        sl_json_int64(array->items[i], &id);
        ids.data[i] = (int32_t)id;
    }
    return ids;
}

static bool equals(const sl_buffer *got, const char *text, size_t length) {
    return got->length == length && (!length || !memcmp(got->data, text, length));
}

static int hex(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }

/* llama.cpp's bytes, written in hex; incomplete characters as U+FFFD. */
static bool equals_hex(const sl_buffer *got, const sl_json *text) {
    sl_buffer bytes = {0}, lossy = {0};
    for (size_t k = 0; k + 1 < text->length; k += 2)
        sl_buffer_putc(&bytes, (char)(hex(text->text[k]) << 4 | hex(text->text[k + 1])));
    bool ok = sl_utf8_append_lossy(&lossy, bytes.data ? bytes.data : "", bytes.length) &&
              equals(got, lossy.data, lossy.length);
    sl_buffer_free(&bytes);
    sl_buffer_free(&lossy);
    return ok;
}

static bool decode(const subject *s, const sl_ids *ids, bool skip, sl_buffer *out) {
    sllm_error error = {0};
    out->length = 0;
    return sl_tokenizer_decode(s->tokenizer, ids->data, ids->length, skip, out, &error) == SLLM_OK;
}

/* Every push must hand out whole characters; the concatenation must be what decode gives. */
static bool stream(const subject *s, const sl_ids *ids, bool skip, sl_buffer *out, bool *halves) {
    sl_decoder *decoder;
    sllm_error error = {0};
    out->length = 0;
    if (sl_decoder_new(s->tokenizer, skip, &decoder, &error) != SLLM_OK) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < ids->length; i++) {
        size_t before = out->length;
        ok = sl_decoder_push(decoder, ids->data[i], out, &error) == SLLM_OK;
        if (out->length > before && (((unsigned char)out->data[before] & 0xC0) == 0x80)) *halves = true;
        for (size_t k = out->length > before + 4 ? out->length - 4 : before; k < out->length; k++) {
            unsigned char byte = (unsigned char)out->data[k];
            size_t width = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
            if (k + width > out->length) *halves = true;
        }
    }
    ok = ok && sl_decoder_finish(decoder, out, &error) == SLLM_OK;
    sl_decoder_free(decoder);
    return ok;
}

/* decode(ids) of the corpus: the text itself, or `dec`; where that is not the text and llama.cpp's is, llama.cpp's. */
static void check_round_trip(golden *g, const subject *s) {
    check whole, streamed;
    sl_buffer out = {0};
    check_begin(&whole, s->name, "decode");
    check_begin(&streamed, s->name, "stream");
    for (size_t i = 0; i < s->ids->n && i < s->corpus->n; i++) {
        const sl_json *row = s->ids->items[i], *text = sl_json_get(s->corpus->items[i], "text");
        const sl_json *dec = sl_json_get(row, "dec"), *other = sl_json_get(row, "lc_dec");
        sl_ids ids = ids_of(sl_json_get(row, "ids"));
        const sl_json *wanted = dec ? dec : text;
        const sl_json *t = other ? sl_json_get(other, "t") : NULL;
        bool invertible = strcmp(sl_tokenizer_kind(s->tokenizer), "wordpiece"); /* lower case, lost blanks */
        if (invertible && dec && t && t->length == text->length && !memcmp(t->text, text->text, t->length))
            wanted = text;
        bool ok = decode(s, &ids, false, &out) && equals(&out, wanted->text, wanted->length), halves = false;
        check_count(&whole, ok, "string", i, out.data ? out.data : "", out.length);
        ok = stream(s, &ids, false, &out, &halves) && equals(&out, wanted->text, wanted->length) && !halves;
        check_count(&streamed, ok, "string", i, out.data ? out.data : "", out.length);
        free(ids.data);
    }
    check_end(g, &whole);
    check_end(g, &streamed);
    sl_buffer_free(&out);
}

/* Token sequences of decode/: with and without special tokens, whole and streamed. Where an added token is a character
 * that could be read as a byte, the reference breaks it and llama.cpp's text is the right one (see DIR/README.md). */
static void check_sequences(golden *g, const subject *s, const lines *rows) {
    check checks[4];
    static const char *const names[] = {"decode-seq", "decode-seq-skip", "stream-seq", "stream-seq-skip"};
    sl_buffer out = {0};
    for (int k = 0; k < 4; k++) check_begin(&checks[k], s->name, names[k]);
    for (size_t i = 0; i < rows->n; i++) {
        const sl_json *row = rows->items[i], *text = sl_json_get(row, "text"), *skip = sl_json_get(row, "skip");
        const sl_json *other = sl_json_get(row, "lc_hex");
        sl_ids ids = ids_of(sl_json_get(row, "ids"));
        bool broken = false;
        for (size_t k = 0; k < ids.length; k++) {
            const char *token = sl_tokenizer_text(s->tokenizer, ids.data[k]);
            size_t length = token ? strlen(token) : 0, piece_length;
            const char *piece = sl_tokenizer_piece(s->tokenizer, ids.data[k], &piece_length);
            broken |= length == 2 && (unsigned char)token[0] >= 0xC2 && piece_length == 2 && !memcmp(piece, token, 2) &&
                      !strcmp(sl_tokenizer_kind(s->tokenizer), "bpe") && strstr(s->name, "deepseek");
        }
        for (int k = 0; k < 4; k++) {
            const sl_json *wanted = (k & 1) && skip ? skip : text;
            bool halves = false, ok = k < 2 ? decode(s, &ids, k & 1, &out) : stream(s, &ids, k & 1, &out, &halves);
            ok = ok && !halves &&
                 (equals(&out, wanted->text, wanted->length) || (broken && other && equals_hex(&out, other)));
            check_count(&checks[k], ok, "sequence", i, out.data ? out.data : "", out.length);
        }
        free(ids.data);
    }
    for (int k = 0; k < 4; k++) check_end(g, &checks[k]);
    sl_buffer_free(&out);
}

/* Invalid UTF-8: the ids of the text with U+FFFD, or llama.cpp's byte-exact ones. */
static void check_bytes(golden *g, const subject *s, const lines *inputs, const lines *rows) {
    check c;
    sl_ids ids = {0};
    char shown[400];
    check_begin(&c, s->name, "bytes");
    for (size_t i = 0; i < rows->n && i < inputs->n; i++) {
        const sl_json *text = sl_json_get(inputs->items[i], "hex");
        char *bytes = malloc(text->length / 2 + 1); /* exact size, so that a sanitizer sees reads past the end */
        for (size_t k = 0; bytes && k < text->length / 2; k++)
            bytes[k] = (char)(hex(text->text[2 * k]) << 4 | hex(text->text[2 * k + 1]));
        bool ok = bytes && encode(s, bytes, text->length / 2, 0, &ids) &&
                  (same_ids(sl_json_get(rows->items[i], "ids"), ids.data, ids.length) ||
                   same_ids(sl_json_get(rows->items[i], "lc"), ids.data, ids.length));
        check_count(&c, ok, "bytes", i, shown, show_ids(shown, sizeof shown, &ids));
        free(bytes);
    }
    check_end(g, &c);
    free(ids.data);
}

/* ---------------------------------------------------------------- a vocabulary */

typedef struct folder {
    const char *directory;
    lines corpus, bytes;
    const sl_json *meta;
} folder;

static void run(golden *g, const folder *f, const sl_tokenizer *tokenizer, const char *shown, const char *truth,
                bool sequences) {
    char file[256];
    lines ids, rows = {0};
    snprintf(file, sizeof file, "%s.jsonl", truth);
    if (!lines_read(&ids, f->directory, "ids/", file)) {
        golden_skip(g, shown, "no ids/%s", file);
        lines_free(&ids);
        return;
    }
    sllm_error error = {0};
    subject s = {.tokenizer = tokenizer, .name = shown, .corpus = &f->corpus, .ids = &ids};
    if (sl_tokenizer_cache_new(tokenizer, &s.cache, &error) != SLLM_OK) s.cache = NULL;
    check_ids(g, &s, false, "ids");
    check_ids(g, &s, true, "sp");
    check_ids(g, &s, false, "ids-again"); /* with the words in the cache */
    check_round_trip(g, &s);
    const sl_json *meta = f->meta ? sl_json_get(f->meta, truth) : NULL;
    if (meta) check_add(g, &s, meta);
    if (sequences && lines_read(&rows, f->directory, "decode/", file)) check_sequences(g, &s, &rows);
    lines_free(&rows);
    if (lines_read(&rows, f->directory, "ids_bytes/", file)) check_bytes(g, &s, &f->bytes, &rows);
    lines_free(&rows);
    sl_tokenizer_cache_free(s.cache);
    lines_free(&ids);
}

static folder *current; /* golden_each hands no context through */

void golden_check_tokenizer(golden *g, const sl_tokenizer *tokenizer, const char *shown, const char *truth,
                            bool sequences) {
    run(g, current, tokenizer, shown, truth, sequences);
}

static void visit_gguf(golden *g, const char *path, const char *name) {
    const char *prefix = "ggml-vocab-", *base = strncmp(name, prefix, strlen(prefix)) ? name : name + strlen(prefix);
    const char *dot = strstr(base, ".gguf");
    char truth[128], shown[160];
    if (!dot) return;
    snprintf(truth, sizeof truth, "%.*s", (int)(dot - base), base);
    snprintf(shown, sizeof shown, "%s.gguf", truth);
    sl_gguf *gguf;
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    if (sl_gguf_open(path, &gguf, &error) != SLLM_OK) {
        golden_fail(g, shown, "%s", error.message);
        return;
    }
    if (sl_tokenizer_from_gguf(gguf, &tokenizer, &error) != SLLM_OK) golden_fail(g, shown, "%s", error.message);
    else run(g, current, tokenizer, shown, truth, true);
    sl_tokenizer_free(tokenizer);
    sl_gguf_close(gguf);
}

static void visit_json(golden *g, const char *path, const char *name) {
    const char *dot = strstr(name, ".json");
    char truth[128], shown[160];
    if (!dot) return;
    snprintf(truth, sizeof truth, "%.*s", (int)(dot - name), name);
    snprintf(shown, sizeof shown, "%s.json", truth);
    bool minilm = !strcmp(truth, "minilm");
    if (minilm) strcpy(truth, "bert-bge"); /* the same ids (DIR/README.md); another spelling of its unused tokens */
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    if (sl_tokenizer_from_path(path, &tokenizer, &error) != SLLM_OK) golden_fail(g, shown, "%s", error.message);
    else run(g, current, tokenizer, shown, truth, !minilm);
    sl_tokenizer_free(tokenizer);
}

static void visit_model(golden *g, const char *path, const char *name) {
    const char *dot = strstr(name, ".model");
    char truth[128];
    if (!dot || dot[6]) return;
    snprintf(truth, sizeof truth, "%.*s", (int)(dot - name), name);
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    if (sl_tokenizer_from_path(path, &tokenizer, &error) != SLLM_OK) golden_fail(g, name, "%s", error.message);
    else run(g, current, tokenizer, name, truth, true);
    sl_tokenizer_free(tokenizer);
}

void golden_tokenizers(golden *g, const char *directory) {
    folder f = {.directory = directory};
    sl_arena arena = {0};
    sl_buffer meta = {0};
    char path[4096];
    sllm_error error = {0};
    snprintf(path, sizeof path, "%s/meta.json", directory);
    if (sl_file_read(path, 1 << 26, &meta, &error) == SLLM_OK)
        sl_json_parse(&arena, meta.data, meta.length, path, &f.meta, &error);
    if (!lines_read(&f.corpus, directory, "", "corpus.jsonl")) {
        golden_fail(g, directory, "no corpus.jsonl");
    } else {
        lines_read(&f.bytes, directory, "", "corpus_bytes.jsonl");
        current = &f;
        snprintf(path, sizeof path, "%s/vocab", directory);
        golden_each(path, visit_gguf, g);
        snprintf(path, sizeof path, "%s/tokenizer_json", directory);
        golden_each(path, visit_json, g);
        golden_each(directory, visit_model, g);
        golden_tokenizer_forms(g, directory);
    }
    lines_free(&f.corpus);
    lines_free(&f.bytes);
    sl_buffer_free(&meta);
    sl_arena_free(&arena);
}
