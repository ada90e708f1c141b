/* vocab.json + merges.txt and vocab.txt are read as the tokenizer.json they would become: the text of one is written
 * and parsed. */
#include "base/error.h"
#include "base/map.h"
#include "text/load_files.h"

#include <stdlib.h>
#include <string.h>

/* Walks over the lines of a text, without their line ends; false at the end. */
static bool next_line(const sl_buffer *text, size_t *at, const char **line, size_t *length) {
    if (*at >= text->length) return false;
    const char *end = memchr(text->data + *at, '\n', text->length - *at);
    size_t n = end ? (size_t)(end - text->data) - *at : text->length - *at;
    *line = text->data + *at;
    *length = n && (*line)[n - 1] == '\r' ? n - 1 : n;
    *at += n + 1;
    return true;
}

static bool starts_with(const char *text, const char *start) { return !strncmp(text, start, strlen(start)); }

/* Parses what was written, as a tokenizer.json. */
static sllm_status load_written(sl_buffer *json, const sl_tokenizer_settings *settings, sl_tokenizer **tokenizer,
                                sllm_error *error) {
    sllm_status status = json->failed ? sl_fail_memory(error, "the tokenizer", json->length)
                                      : sl_load_json(json->data, json->length, settings, tokenizer, error);
    sl_buffer_free(json);
    return status;
}

/* ---------------------------------------------------------------- added tokens */

static void write_special(sl_buffer *out, int64_t id, const char *text, size_t length, bool special) {
    bool mask = length == 6 && !memcmp(text, "<mask>", 6); /* takes the blank before it (RoBERTa, BART) */
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_int(out, "id", id);
    sl_json_key(out, "content");
    sl_json_write_string(out, text, length);
    sl_json_put_bool(out, "special", special);
    sl_json_put_bool(out, "normalized", false);
    sl_json_put_bool(out, "lstrip", mask);
    sl_buffer_putc(out, '}');
}

/* "added_tokens_decoder": {"id": {content, special, ...}}, what newer files say in full. */
static void write_decoder(sl_buffer *out, const sl_json *list) {
    for (const sl_json *item = list->first; item; item = item->next) {
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
}

static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                    "sep_token", "cls_token", "mask_token"};
#define N_ROLES (sizeof roles / sizeof *roles)

static bool put_text(sl_map *map, const sl_json *item) {
    const sl_json *text = item && item->type == SL_JSON_OBJECT ? sl_json_get(item, "content") : item;
    return !text || text->type != SL_JSON_STRING || !text->length || sl_map_put(map, text->text, text->length, 1);
}

/* The texts that the settings give a role: these are special. Where they name none, the defaults of GPT-2's and
 * RoBERTa's tokenizers. False: out of memory. */
static bool collect_roles(const sl_tokenizer_settings *settings, sl_map *map) {
    static const char *const defaults[] = {"<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>"};
    const sl_json *files[] = {settings->config, settings->specials};
    bool ok = true;
    for (size_t i = 0; i < N_ROLES; i++) ok = ok && put_text(map, sl_tokenizer_setting(settings, roles[i]));
    bool silent = map->count == 0;
    for (size_t i = 0; silent && i < sizeof defaults / sizeof *defaults; i++)
        ok = ok && sl_map_put(map, defaults[i], strlen(defaults[i]), 1);
    for (int i = 0; i < 2; i++) {
        const sl_json *more = sl_json_get(files[i], "additional_special_tokens");
        for (const sl_json *item = more ? more->first : NULL; item; item = item->next) ok = ok && put_text(map, item);
    }
    return ok;
}

static void write_added(sl_buffer *out, const sl_tokenizer_settings *settings, const sl_json *vocab) {
    const sl_json *list = sl_json_get(settings->config, "added_tokens_decoder");
    sl_map special = {.seed = sl_map_seed_random()};
    sl_json_key(out, "added_tokens");
    sl_buffer_putc(out, '[');
    if (list && list->type == SL_JSON_OBJECT) {
        write_decoder(out, list);
    } else if (!collect_roles(settings, &special)) {
        out->failed = true;
    } else {
        const sl_json *added = settings->added && settings->added->type == SL_JSON_OBJECT ? settings->added : NULL;
        uint64_t one;
        int64_t id;
        for (const sl_json *item = vocab->first; item; item = item->next)
            if (sl_map_get(&special, item->key, item->key_length, &one) && sl_json_int64(item, &id))
                write_special(out, id, item->key, item->key_length, true);
        for (const sl_json *item = added ? added->first : NULL; item; item = item->next)
            if (sl_json_int64(item, &id))
                write_special(out, id, item->key, item->key_length,
                              sl_map_get(&special, item->key, item->key_length, &one));
    }
    sl_map_free(&special);
    sl_buffer_putc(out, ']');
}

/* ---------------------------------------------------------------- vocab.json and merges.txt */

static void write_merges(sl_buffer *out, const sl_buffer *merges) {
    const char *line;
    size_t length;
    sl_json_key(out, "merges");
    sl_buffer_putc(out, '[');
    for (size_t at = 0, n = 0; next_line(merges, &at, &line, &length); n++) {
        if (!length || (n == 0 && length >= 9 && !memcmp(line, "#version:", 9))) continue;
        sl_json_comma(out);
        sl_json_write_string(out, line, length);
    }
    sl_buffer_putc(out, ']');
}

/* What the tokenizer's class puts around a text: RoBERTa and BART always, GPT-2's class when it is told to. */
static void write_postprocessor(sl_buffer *out, const sl_tokenizer_settings *settings, const sl_json *vocab) {
    static const char *const wrapped[] = {"Roberta", "Bart", "Longformer", "LED",
                                          "roberta", "bart", "longformer", "led"};
    bool wraps = false, add_bos = false;
    int64_t begin, end;
    for (size_t i = 0; i < sizeof wrapped / sizeof *wrapped; i++)
        wraps = wraps || starts_with(*sl_tokenizer_class(settings) ? sl_tokenizer_class(settings)
                                                                   : sl_tokenizer_model_type(settings), wrapped[i]);
    if (wraps && sl_json_int64(sl_json_get(vocab, "<s>"), &begin) && sl_json_int64(sl_json_get(vocab, "</s>"), &end)) {
        sl_buffer_printf(out, ",\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",%lld],"
                         "\"cls\":[\"<s>\",%lld]}", (long long)end, (long long)begin);
        return;
    }
    const sl_json *bos = sl_tokenizer_setting(settings, "bos_token");
    const char *name = sl_json_string(bos);
    sl_json_bool(sl_json_get(settings->config, "add_bos_token"), &add_bos);
    if (!add_bos || !name || !sl_json_int64(sl_json_get(vocab, name), &begin)) return;
    sl_buffer_puts(
        out, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"bos\"}},"
             "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"bos\":");
    sl_buffer_printf(out, "{\"ids\":[%lld]}}}", (long long)begin);
}

/* Qwen2 normalises and cuts digits apart; GPT-2, RoBERTa, OPT, Phi and CodeGen are as GPT-2. */
static const char *steps_of(const sl_tokenizer_settings *settings) {
    static const char qwen2[] =
        "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":[{\"type\":\"Split\","
        "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
        " ?[^\\\\s\\\\p{L}"
        "\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\","
        "\"invert\":false},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";
    static const char gpt2[] = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    static const char gpt2_blank[] = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}";
    bool blank = false;
    const char *class = sl_tokenizer_class(settings);
    if (starts_with(class, "Qwen") || (!*class && starts_with(sl_tokenizer_model_type(settings), "qwen"))) return qwen2;
    sl_json_bool(sl_json_get(settings->config, "add_prefix_space"), &blank);
    return blank ? gpt2_blank : gpt2;
}

sllm_status sl_load_vocab_merges(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                                 sl_tokenizer **tokenizer, sllm_error *error) {
    sl_arena arena = {0};
    sl_buffer json = {0};
    const sl_json *vocab;
    sllm_status status = sl_json_parse(&arena, files->text.data, files->text.length, "vocab.json", &vocab, error);
    if (status == SLLM_OK && vocab->type != SL_JSON_OBJECT)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "vocab.json: not an object from tokens to ids");
    if (status == SLLM_OK) {
        sl_buffer_putc(&json, '{');
        write_added(&json, settings, vocab);
        sl_buffer_putc(&json, ',');
        sl_buffer_puts(&json, steps_of(settings));
        write_postprocessor(&json, settings, vocab);
        sl_buffer_puts(&json, ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":");
        sl_buffer_append(&json, files->text.data, files->text.length);
        write_merges(&json, &files->merges);
        sl_buffer_puts(&json, "}}");
        status = load_written(&json, settings, tokenizer, error);
    }
    sl_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- vocab.txt */

static const char *const bert_tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
enum { BERT_PAD, BERT_UNK, BERT_CLS, BERT_SEP, BERT_MASK, N_BERT_TOKENS };

/* "vocab": a line's number is its token's id. */
static void write_lines(sl_buffer *out, const sl_buffer *text, int64_t ids[N_BERT_TOKENS]) {
    const char *line;
    size_t length;
    int64_t id = 0;
    sl_buffer_putc(out, '{');
    for (size_t at = 0; next_line(text, &at, &line, &length); id++) {
        for (int i = 0; i < N_BERT_TOKENS; i++)
            if (length == strlen(bert_tokens[i]) && !memcmp(line, bert_tokens[i], length)) ids[i] = id;
        sl_json_comma(out);
        sl_json_write_string(out, line, length);
        sl_buffer_printf(out, ":%lld", (long long)id);
    }
    sl_buffer_putc(out, '}');
}

/* BertNormalizer with the settings that tokenizer_config.json may change. */
static void write_bert_normalizer(sl_buffer *out, const sl_json *config) {
    bool lowercase = true, chinese = true, strip;
    sl_json_bool(sl_json_get(config, "do_lower_case"), &lowercase);
    sl_json_bool(sl_json_get(config, "tokenize_chinese_chars"), &chinese);
    sl_buffer_puts(out, ",\"normalizer\":{\"type\":\"BertNormalizer\"");
    sl_json_put_bool(out, "clean_text", true);
    sl_json_put_bool(out, "handle_chinese_chars", chinese);
    if (sl_json_bool(sl_json_get(config, "strip_accents"), &strip)) sl_json_put_bool(out, "strip_accents", strip);
    sl_json_put_bool(out, "lowercase", lowercase);
    sl_buffer_putc(out, '}');
}

sllm_status sl_load_vocab_txt(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                              sl_tokenizer **tokenizer, sllm_error *error) {
    sl_buffer json = {0}, vocab = {0};
    int64_t ids[N_BERT_TOKENS] = {-1, -1, -1, -1, -1};
    write_lines(&vocab, &files->text, ids);
    if (ids[BERT_UNK] < 0 || ids[BERT_CLS] < 0 || ids[BERT_SEP] < 0) {
        sl_buffer_free(&vocab);
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "vocab.txt: not a WordPiece vocabulary: it lacks [UNK], [CLS] or [SEP]");
    }
    sl_buffer_puts(&json, "{\"added_tokens\":[");
    for (int i = 0; i < N_BERT_TOKENS; i++)
        if (ids[i] >= 0) write_special(&json, ids[i], bert_tokens[i], strlen(bert_tokens[i]), true);
    sl_buffer_putc(&json, ']');
    write_bert_normalizer(&json, settings->config);
    sl_buffer_puts(
        &json, ",\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":\"BertProcessing\",");
    sl_buffer_printf(&json, "\"sep\":[\"[SEP]\",%lld],\"cls\":[\"[CLS]\",%lld]},", (long long)ids[BERT_SEP],
                     (long long)ids[BERT_CLS]);
    sl_buffer_puts(&json, "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":"
                   "\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","
                   "\"max_input_chars_per_word\":100,\"vocab\":");
    sl_buffer_append(&json, vocab.data, vocab.length);
    sl_buffer_puts(&json, "}}");
    json.failed |= vocab.failed;
    sl_buffer_free(&vocab);
    return load_written(&json, settings, tokenizer, error);
}
