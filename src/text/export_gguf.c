#include "text/export_gguf.h"

#include "base/error.h"
#include "text/export_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- vocabulary */

typedef struct lists {
    const char **texts;
    size_t *lengths;
    int32_t *types;
    float *scores;
    sl_arena arena;
} lists;

static sllm_status make_lists(const sl_tokenizer *t, int32_t n, lists *l, sllm_error *error) {
    l->texts = sl_arena_array(&l->arena, (size_t)n, sizeof *l->texts);
    l->lengths = sl_arena_array(&l->arena, (size_t)n, sizeof *l->lengths);
    l->types = sl_arena_array(&l->arena, (size_t)n, sizeof *l->types);
    l->scores = sl_arena_array(&l->arena, (size_t)n, sizeof *l->scores);
    if (!l->texts || !l->lengths || !l->types || !l->scores) return sl_fail_memory(error, "the vocabulary", 0);
    for (int32_t id = 0; id < n; id++) {
        char name[32];
        if (id < t->vocab.size && t->vocab.types[id] != SL_TOKEN_ABSENT) {
            l->texts[id] = sl_export_text(t, id, &l->lengths[id]);
            l->types[id] = t->vocab.types[id];
            if (l->types[id] == SL_TOKEN_NORMAL && id == t->special[SL_SPECIAL_UNK] && t->bpe.unk == id) l->types[id] = SL_TOKEN_UNKNOWN;
            if (t->vocab.scores) l->scores[id] = t->vocab.scores[id];
            continue;
        }
        l->lengths[id] = (size_t)snprintf(name, sizeof name, "[PAD%d]", (int)id);
        l->texts[id] = sl_arena_copy(&l->arena, name, l->lengths[id]);
        l->types[id] = SL_TOKEN_UNUSED;
        if (!l->texts[id]) return sl_fail_memory(error, "the vocabulary", 0);
    }
    return SLLM_OK;
}

static sllm_status put_merges(const sl_tokenizer *t, sl_gguf_fields *fields, sllm_error *error) {
    size_t n, length;
    sl_pair *list = sl_export_merges(t, &n);
    const char **texts = calloc(n ? n : 1, sizeof *texts);
    size_t *offsets = calloc(n ? n : 1, sizeof *offsets), *lengths = calloc(n ? n : 1, sizeof *lengths);
    sl_buffer all = {0};
    for (size_t i = 0; list && texts && offsets && lengths && i < n; i++) {
        const char *text = sl_export_text(t, sl_pair_left(&list[i]), &length);
        offsets[i] = all.length;
        sl_buffer_append(&all, text, length);
        sl_buffer_putc(&all, ' ');
        text = sl_export_text(t, sl_pair_right(&list[i]), &length);
        sl_buffer_append(&all, text, length);
        lengths[i] = all.length - offsets[i];
    }
    bool fits = list && texts && offsets && lengths && !all.failed;
    for (size_t i = 0; fits && i < n; i++) texts[i] = all.data + offsets[i];
    if (fits) sl_gguf_put_strings(fields, "tokenizer.ggml.merges", texts, lengths, n);
    sl_buffer_free(&all);
    free(list);
    free(texts);
    free(offsets);
    free(lengths);
    return fits ? SLLM_OK : sl_fail_memory(error, "the merges", 0);
}

/* Merging by score gives the order of the merges when a token's score falls with the first rank that makes it. */
static sllm_status scores_of_merges(const sl_tokenizer *t, float *scores, int32_t n_vocab, sllm_error *error) {
    size_t n;
    sl_pair *list = sl_export_merges(t, &n);
    if (!list) return sl_fail_memory(error, "the merges", 0);
    for (size_t i = n; i-- > 0;)
        if (list[i].id < n_vocab) scores[list[i].id] = -(float)(i + 1);
    free(list);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- one form */

/* How the vocabulary is written: `model` of GGUF, the pre-tokeniser's name, and whether a blank is put before a text. */
typedef struct form {
    const char *model, *pre;
    bool merges, scores, prefix;
} form;

static void put_specials(const sl_tokenizer *t, sl_gguf_fields *fields) {
    static const struct { sl_special which; const char *key; } rows[] = {
        {SL_SPECIAL_BOS, "tokenizer.ggml.bos_token_id"}, {SL_SPECIAL_EOS, "tokenizer.ggml.eos_token_id"},
        {SL_SPECIAL_UNK, "tokenizer.ggml.unknown_token_id"}, {SL_SPECIAL_PAD, "tokenizer.ggml.padding_token_id"},
        {SL_SPECIAL_SEP, "tokenizer.ggml.seperator_token_id"}, {SL_SPECIAL_CLS, "tokenizer.ggml.cls_token_id"},
        {SL_SPECIAL_MASK, "tokenizer.ggml.mask_token_id"}, {SL_SPECIAL_FIM_PREFIX, "tokenizer.ggml.fim_pre_token_id"},
        {SL_SPECIAL_FIM_SUFFIX, "tokenizer.ggml.fim_suf_token_id"}, {SL_SPECIAL_FIM_MIDDLE, "tokenizer.ggml.fim_mid_token_id"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (t->special[rows[i].which] >= 0) sl_gguf_put_u32(fields, rows[i].key, (uint32_t)t->special[rows[i].which]);
}

static bool ends_with_eos(const sl_tokenizer *t) {
    for (size_t i = 0; i < t->n_suffix; i++)
        if (t->suffix[i] == t->special[SL_SPECIAL_EOS]) return true;
    return false;
}

static sllm_status put_form(const sl_tokenizer *t, int32_t n_vocab, const form *f, sl_gguf_fields *fields, sllm_error *error) {
    lists l = {0};
    sllm_status status = make_lists(t, n_vocab, &l, error);
    if (!status && f->scores && !t->vocab.scores) status = scores_of_merges(t, l.scores, n_vocab, error);
    if (!status) {
        sl_gguf_put_string(fields, "tokenizer.ggml.model", f->model, strlen(f->model));
        sl_gguf_put_string(fields, "tokenizer.ggml.pre", f->pre, strlen(f->pre));
        sl_gguf_put_strings(fields, "tokenizer.ggml.tokens", l.texts, l.lengths, (size_t)n_vocab);
        if (f->scores) sl_gguf_put_f32s(fields, "tokenizer.ggml.scores", l.scores, (size_t)n_vocab);
        sl_gguf_put_i32s(fields, "tokenizer.ggml.token_type", l.types, (size_t)n_vocab);
        if (f->merges) status = put_merges(t, fields, error);
        put_specials(t, fields);
        sl_gguf_put_bool(fields, "tokenizer.ggml.add_bos_token", sl_tokenizer_adds_bos(t));
        sl_gguf_put_bool(fields, "tokenizer.ggml.add_eos_token", ends_with_eos(t));
        if (!f->merges) sl_gguf_put_bool(fields, "tokenizer.ggml.add_space_prefix", f->prefix);
    }
    sl_arena_free(&l.arena);
    if (!status && fields->bytes.failed) status = sl_fail_memory(error, "the vocabulary", 0);
    return status;
}

/* ---------------------------------------------------------------- the trial */

/* Does the metadata read back to a tokenizer that gives the same ids? */
static bool passes(const sl_tokenizer *t, const sl_gguf_fields *fields) {
    sl_buffer file = {0};
    sl_gguf *gguf = NULL;
    sl_tokenizer *again = NULL;
    uint32_t version = 3;
    uint64_t none = 0;
    sl_buffer_puts(&file, "GGUF");
    sl_buffer_append(&file, &version, 4);
    sl_buffer_append(&file, &none, 8);
    sl_buffer_append(&file, &fields->count, 8);
    sl_buffer_append(&file, fields->bytes.data, fields->bytes.length);
    bool same = !file.failed && !sl_gguf_open_memory(file.data, file.length, &gguf, NULL) &&
                !sl_tokenizer_from_gguf(gguf, &again, NULL) && sl_export_same(t, again);
    sl_tokenizer_free(again);
    sl_gguf_close(gguf);
    sl_buffer_free(&file);
    return same;
}

/* Writes a form; true when it stays, because it passes. */
static bool try_form(const sl_tokenizer *t, int32_t n_vocab, const form *f, sl_gguf_fields *fields, sllm_status *status,
                     sllm_error *error) {
    sl_gguf_fields trial = {0};
    *status = put_form(t, n_vocab, f, &trial, error);
    bool good = !*status && passes(t, &trial);
    if (good) {
        sl_buffer_append(&fields->bytes, trial.bytes.data, trial.bytes.length);
        fields->count += trial.count;
    }
    sl_gguf_fields_free(&trial);
    return good;
}

/* Names in the order in which families use them; each stands for a row of pretokenize_names.c. */
static const char *const names[] = {
    "llama-bpe", "qwen2", "smollm", "gpt-2", "gpt-4o", "tekken", "starcoder", "gemma4", "olmo", "dbrx", "glm4", "deepseek-llm",
    "deepseek-coder", "deepseek-v3", "falcon", "qwen35", "hunyuan", "seed-coder", "bailingmoe", "exaone-moe", "minicpm5", "jais-2",
    "bloom", "viking", "tiny_aya", "granite-embed-multi-97m", "chameleon", "superbpe", "youtu", "roberta-bpe", "default", NULL,
};

sllm_status sl_tokenizer_to_gguf(const sl_tokenizer *t, int32_t n_vocab, const char *pre, sl_gguf_fields *fields,
                                 sllm_error *error) {
    sllm_status status = SLLM_OK;
    bool bpe = t->kind == SL_MODEL_BPE || t->kind == SL_MODEL_SPM, sentence = bpe && !t->bpe.byte_level;
    if (!bpe && t->kind != SL_MODEL_UNIGRAM)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "a GGUF file for a decoder has no room for this kind of tokenizer (%s)",
                       sl_tokenizer_kind(t));
    if (t->vocab.size > n_vocab)
        return sl_fail(error, SLLM_ERROR_FORMAT, "the tokenizer has %d tokens and the embedding %d rows", t->vocab.size, n_vocab);
    for (int prefix = 0; (sentence || !bpe) && prefix < 2; prefix++) {
        form f = {bpe ? "llama" : "t5", "default", false, true, prefix};
        if ((!pre || !strcmp(pre, "default")) && try_form(t, n_vocab, &f, fields, &status, error)) return SLLM_OK;
        if (status) return status;
    }
    for (size_t i = 0; bpe && !t->bpe.by_score && names[i]; i++) {
        form f = {"gpt2", pre ? pre : names[i], true, false, false};
        if (try_form(t, n_vocab, &f, fields, &status, error)) return SLLM_OK;
        if (status || pre) break;
    }
    if (status) return status;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s%s%s the ids of this tokenizer: a GGUF file of it would split text "
                   "otherwise than the model was taught", pre ? "the pre-tokeniser '" : "no pre-tokeniser that GGUF has a name for "
                   "gives", pre ? pre : "", pre ? "' does not give" : "");
}
