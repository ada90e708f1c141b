#include "text/export_json.h"

#include "base/error.h"
#include "base/json.h"
#include "text/export_int.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- steps */

static void put_raw(sl_buffer *out, const char *key, const char *json) {
    sl_json_key(out, key);
    sl_buffer_puts(out, json);
}

static void put_text(sl_buffer *out, const char *key, const char *text, size_t length) {
    sl_json_key(out, key);
    sl_json_write_string(out, text, length);
}

/* Those that GGUF's names stand for: NFC; a blank put before; U+2581 for blanks. */
static bool put_normalizer(const sl_tokenizer *t, sl_buffer *out) {
    sl_json_key(out, "normalizer");
    if (!t->n_normalize) sl_buffer_puts(out, "null");
    else sl_buffer_puts(out, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (size_t i = 0; i < t->n_normalize; i++) {
        const sl_normalize_step *s = &t->normalize[i];
        sl_json_comma(out);
        if (s->kind == SL_NORMALIZE_FORM && s->form == SL_NFC) {
            sl_buffer_puts(out, "{\"type\":\"NFC\"}");
        } else if (s->kind == SL_NORMALIZE_PREPEND) {
            sl_buffer_puts(out, "{\"type\":\"Prepend\"");
            put_text(out, "prepend", s->content, s->content_length);
            sl_buffer_putc(out, '}');
        } else if (s->kind == SL_NORMALIZE_REPLACE && s->pattern) {
            sl_buffer_puts(out, "{\"type\":\"Replace\",\"pattern\":{");
            put_text(out, "String", s->pattern, s->pattern_length);
            sl_buffer_putc(out, '}');
            put_text(out, "content", s->content, s->content_length);
            sl_buffer_putc(out, '}');
        } else {
            return false;
        }
    }
    if (t->n_normalize) sl_buffer_puts(out, "]}");
    return true;
}

static bool put_pre_tokenizer(const sl_tokenizer *t, sl_buffer *out) {
    size_t n = 0;
    sl_json_key(out, "pre_tokenizer");
    if (!t->bpe.byte_level) {
        sl_buffer_puts(out, "null");
        return t->n_split == 0;
    }
    const char *const *patterns = sl_pretokenizer_patterns(t->pre, &n);
    sl_buffer_puts(out, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (size_t i = 0; patterns && i < n; i++) {
        sl_json_comma(out);
        sl_buffer_puts(out, "{\"type\":\"Split\",\"pattern\":{");
        put_text(out, "Regex", patterns[i], strlen(patterns[i]));
        sl_buffer_puts(out, "},\"behavior\":\"Isolated\",\"invert\":false}");
    }
    sl_json_comma(out);
    sl_buffer_puts(out, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]}");
    return patterns != NULL;
}

static void put_decoder(const sl_tokenizer *t, sl_buffer *out) {
    bool strips = false;
    for (size_t i = 0; i < t->n_normalize; i++) strips |= t->normalize[i].kind == SL_NORMALIZE_PREPEND;
    if (t->bpe.byte_level)
        put_raw(out, "decoder", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}");
    else
        put_raw(out, "decoder", strips ? "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
                "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
                : "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},"
                "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}");
}

/* ---------------------------------------------------------------- added tokens and affixes */

static void put_added(const sl_tokenizer *t, int32_t id, bool special, bool normalized, bool lstrip, bool rstrip, sl_buffer *out) {
    size_t length;
    const char *text = sl_export_text(t, id, &length);
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_int(out, "id", id);
    put_text(out, "content", text, length);
    sl_json_put_bool(out, "single_word", false);
    sl_json_put_bool(out, "lstrip", lstrip);
    sl_json_put_bool(out, "rstrip", rstrip);
    sl_json_put_bool(out, "normalized", normalized);
    sl_json_put_bool(out, "special", special);
    sl_buffer_putc(out, '}');
}

/* By id. SentencePiece's user-defined pieces are cut out of the normalised text. */
static bool put_all_added(const sl_tokenizer *t, sl_buffer *out) {
    const sl_added **by_id = calloc((size_t)t->vocab.size + 1, sizeof *by_id);
    if (!by_id) return false;
    for (size_t i = 0; i < t->added.n; i++) by_id[t->added.items[i].id] = &t->added.items[i];
    sl_json_key(out, "added_tokens");
    sl_buffer_putc(out, '[');
    for (int32_t id = 0; id < t->vocab.size; id++) {
        const sl_added *item = by_id[id];
        if (item) put_added(t, id, item->special, item->normalized, item->lstrip, item->rstrip, out);
        else if (t->bpe.has_user && t->vocab.types[id] == SL_TOKEN_USER) put_added(t, id, false, true, false, false, out);
    }
    sl_buffer_putc(out, ']');
    free(by_id);
    return true;
}

static void put_affix(const sl_tokenizer *t, const int32_t *ids, size_t n, sl_buffer *out) {
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *text = sl_export_text(t, ids[i], &length);
        sl_json_comma(out);
        sl_buffer_puts(out, "{\"SpecialToken\":{");
        put_text(out, "id", text, length);
        sl_buffer_puts(out, ",\"type_id\":0}}");
    }
}

static void put_special_ids(const sl_tokenizer *t, const int32_t *ids, size_t n, sl_buffer *out) {
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *text = sl_export_text(t, ids[i], &length);
        sl_json_comma(out);
        sl_json_write_string(out, text, length);
        sl_buffer_puts(out, ":{");
        put_text(out, "id", text, length);
        sl_buffer_printf(out, ",\"ids\":[%d],\"tokens\":[", (int)ids[i]);
        sl_json_write_string(out, text, length);
        sl_buffer_puts(out, "]}");
    }
}

static void put_post_processor(const sl_tokenizer *t, sl_buffer *out) {
    sl_json_key(out, "post_processor");
    if (!t->n_prefix && !t->n_suffix) {
        sl_buffer_puts(out, "null");
        return;
    }
    sl_buffer_puts(out, "{\"type\":\"TemplateProcessing\",\"single\":[");
    put_affix(t, t->prefix, t->n_prefix, out);
    sl_json_comma(out);
    sl_buffer_puts(out, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}");
    put_affix(t, t->suffix, t->n_suffix, out);
    sl_buffer_puts(out, "],\"pair\":[");
    put_affix(t, t->prefix, t->n_prefix, out);
    sl_json_comma(out);
    sl_buffer_puts(out, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}");
    put_affix(t, t->suffix, t->n_suffix, out);
    sl_buffer_puts(out, "],\"special_tokens\":{");
    put_special_ids(t, t->prefix, t->n_prefix, out);
    put_special_ids(t, t->suffix, t->n_suffix, out);
    sl_buffer_puts(out, "}}");
}

/* ---------------------------------------------------------------- the model */

typedef struct merge {
    int32_t left, right;
    float score; /* of what the two make */
} merge;

static int by_score(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left) : (x->right > y->right) - (x->right < y->right);
}

/* SentencePiece has no list of merges: any two tokens that make a third may join, the best score first. */
static merge *merges_of_scores(const sl_tokenizer *t, size_t *n) {
    size_t capacity = 1024;
    merge *list = malloc(capacity * sizeof *list);
    *n = 0;
    for (int32_t id = 0; list && id < t->vocab.size; id++) {
        size_t length;
        const char *text = sl_export_text(t, id, &length);
        if (t->vocab.types[id] != SL_TOKEN_NORMAL) continue;
        for (size_t cut = 1; list && cut < length; cut++) {
            if (((unsigned char)text[cut] & 0xC0) == 0x80) continue; /* inside a character */
            int32_t left = sl_vocab_find(&t->vocab, text, cut), right = sl_vocab_find(&t->vocab, text + cut, length - cut);
            if (left < 0 || right < 0) continue;
            if (*n == capacity) {
                merge *more = realloc(list, 2 * capacity * sizeof *list);
                if (!more) {
                    free(list);
                    return NULL;
                }
                list = more;
                capacity *= 2;
            }
            list[(*n)++] = (merge){left, right, t->vocab.scores[id]};
        }
    }
    if (list) qsort(list, *n, sizeof *list, by_score);
    return list;
}

static merge *merges_of(const sl_tokenizer *t, size_t *n) {
    if (t->bpe.by_score) return merges_of_scores(t, n);
    sl_pair *pairs = sl_export_merges(t, n);
    merge *list = malloc((*n ? *n : 1) * sizeof *list);
    for (size_t i = 0; pairs && list && i < *n; i++) list[i] = (merge){sl_pair_left(&pairs[i]), sl_pair_right(&pairs[i]), 0};
    if (!pairs) {
        free(list);
        list = NULL;
    }
    free(pairs);
    return list;
}

static bool put_merges(const sl_tokenizer *t, sl_buffer *out) {
    size_t n, length;
    merge *list = merges_of(t, &n);
    sl_json_key(out, "merges");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; list && i < n; i++) {
        sl_buffer_puts(out, i ? ",[" : "[");
        const char *text = sl_export_text(t, list[i].left, &length);
        sl_json_write_string(out, text, length);
        sl_buffer_putc(out, ',');
        text = sl_export_text(t, list[i].right, &length);
        sl_json_write_string(out, text, length);
        sl_buffer_putc(out, ']');
    }
    sl_buffer_putc(out, ']');
    free(list);
    return list != NULL;
}

static bool put_model(const sl_tokenizer *t, sl_buffer *out) {
    size_t length;
    sl_json_key(out, "model");
    sl_buffer_puts(out, "{\"type\":\"BPE\",\"dropout\":null");
    if (t->bpe.unk >= 0) {
        const char *text = sl_export_text(t, t->bpe.unk, &length);
        put_text(out, "unk_token", text, length);
    } else {
        put_raw(out, "unk_token", "null");
    }
    put_raw(out, "continuing_subword_prefix", "null");
    put_raw(out, "end_of_word_suffix", "null");
    sl_json_put_bool(out, "fuse_unk", t->bpe.fuse_unk);
    sl_json_put_bool(out, "byte_fallback", t->bpe.byte_fallback);
    sl_json_put_bool(out, "ignore_merges", t->bpe.ignore_merges);
    sl_json_key(out, "vocab");
    sl_buffer_putc(out, '{');
    bool first = true;
    for (int32_t id = 0; id < t->vocab.size; id++) {
        if (t->vocab.types[id] == SL_TOKEN_ABSENT) continue;
        const char *text = sl_export_text(t, id, &length);
        if (!first) sl_buffer_putc(out, ',');
        first = false;
        sl_json_write_string(out, text, length);
        sl_buffer_printf(out, ":%d", (int)id);
    }
    sl_buffer_putc(out, '}');
    bool fits = put_merges(t, out);
    sl_buffer_putc(out, '}');
    return fits;
}

/* ---------------------------------------------------------------- the whole */

static void put_config(const sl_tokenizer *t, int n_ctx, sl_buffer *out) {
    static const struct { sl_special which; const char *key; } rows[] = {
        {SL_SPECIAL_BOS, "bos_token"}, {SL_SPECIAL_EOS, "eos_token"}, {SL_SPECIAL_UNK, "unk_token"}, {SL_SPECIAL_PAD, "pad_token"},
    };
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "tokenizer_class", "PreTrainedTokenizerFast");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t length;
        if (t->special[rows[i].which] < 0) continue;
        const char *text = sl_export_text(t, t->special[rows[i].which], &length);
        put_text(out, rows[i].key, text, length);
    }
    sl_json_put_int(out, "model_max_length", n_ctx);
    sl_json_put_bool(out, "clean_up_tokenization_spaces", false);
    sl_buffer_puts(out, "}\n");
}

static bool reads_back(const sl_tokenizer *t, const sl_buffer *json, const sl_buffer *config, sllm_error *error) {
    sl_tokenizer *again = NULL;
    bool same = !sl_tokenizer_from_json(json->data, json->length, config->data, config->length, &again, error) && sl_export_same(t, again);
    sl_tokenizer_free(again);
    return same;
}

sllm_status sl_tokenizer_to_json(const sl_tokenizer *t, int n_ctx, sl_buffer *json, sl_buffer *config, sllm_error *error) {
    sllm_error cause = {0};
    bool known = t->kind == SL_MODEL_BPE || t->kind == SL_MODEL_SPM;
    sl_buffer_puts(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null");
    if (known && !put_all_added(t, json)) return sl_fail_memory(error, "the added tokens", 0);
    known = known && put_normalizer(t, json) && put_pre_tokenizer(t, json);
    if (!known)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "a tokenizer.json is not written for this kind of tokenizer (%s%s%s)",
                       sl_tokenizer_kind(t), t->pre[0] ? ", " : "", t->pre);
    put_post_processor(t, json);
    put_decoder(t, json);
    if (!put_model(t, json)) return sl_fail_memory(error, "the merges", 0);
    sl_buffer_puts(json, "}\n");
    put_config(t, n_ctx, config);
    if (json->failed || config->failed) return sl_fail_memory(error, "tokenizer.json", json->length);
    if (reads_back(t, json, config, &cause)) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "the tokenizer of this file cannot be said as a tokenizer.json that gives the same "
                   "ids%s%s", cause.message[0] ? ": " : "", cause.message);
}
