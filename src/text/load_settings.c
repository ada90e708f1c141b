/* What the small JSON files beside a vocabulary say: which tokens begin and end a text, which class wrote it. */
#include "base/error.h"
#include "text/load_files.h"

#include <string.h>

static sllm_status parse(sl_tokenizer_settings *settings, const sl_buffer *text, const char *name, const sl_json **root,
                         sllm_error *error) {
    *root = NULL;
    if (!text->data || !text->length) return SLLM_OK;
    return sl_json_parse(&settings->arena, text->data, text->length, name, root, error);
}

sllm_status sl_tokenizer_settings_read(const sl_tokenizer_files *files, sl_tokenizer_settings *settings,
                                       sllm_error *error) {
    sllm_status status = parse(settings, &files->config, "tokenizer_config.json", &settings->config, error);
    if (status == SLLM_OK)
        status = parse(settings, &files->specials, "special_tokens_map.json", &settings->specials, error);
    if (status == SLLM_OK) status = parse(settings, &files->added, "added_tokens.json", &settings->added, error);
    if (status == SLLM_OK) status = parse(settings, &files->model, "config.json", &settings->model, error);
    return status;
}

void sl_tokenizer_settings_free(sl_tokenizer_settings *settings) { sl_arena_free(&settings->arena); }

static const sl_json *content_of(const sl_json *object, const char *key) {
    const sl_json *member = object ? sl_json_get(object, key) : NULL;
    if (member && member->type == SL_JSON_OBJECT) member = sl_json_get(member, "content");
    return member && member->type == SL_JSON_STRING ? member : NULL;
}

const sl_json *sl_tokenizer_setting(const sl_tokenizer_settings *settings, const char *key) {
    const sl_json *found = content_of(settings->config, key);
    return found ? found : content_of(settings->specials, key);
}

static const char *name_of(const sl_json *object, const char *key) {
    const char *name = object ? sl_json_string(sl_json_get(object, key)) : NULL;
    return name ? name : "";
}

const char *sl_tokenizer_class(const sl_tokenizer_settings *settings) {
    return name_of(settings->config, "tokenizer_class");
}

const char *sl_tokenizer_model_type(const sl_tokenizer_settings *settings) {
    return name_of(settings->model, "model_type");
}

/* ---------------------------------------------------------------- special tokens */

/* The first of the names that is a special token of the vocabulary. */
static int32_t special_named(const sl_tokenizer *tokenizer, const char *const *names) {
    for (; *names; names++) {
        int32_t id = sl_tokenizer_find(tokenizer, *names, strlen(*names));
        if (id >= 0 && tokenizer->added.special[id]) return id;
    }
    return -1;
}

/* Names that families give to the token before and behind a text. GPT-2's single token does both; but where there are
 * chat markers (Qwen), nothing begins a text. */
static void well_known(sl_tokenizer *tokenizer) {
    static const char *const begin[] = {"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<BOS_TOKEN>",
                                        ("<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"), NULL};
    static const char *const end[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<EOS_TOKEN>",
                                      ("<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"), NULL};
    static const char *const both[] = {"<|endoftext|>", NULL}, *const turn[] = {"<|im_start|>", NULL};
    int32_t *special = tokenizer->special;
    if (special[SL_SPECIAL_BOS] < 0) special[SL_SPECIAL_BOS] = special_named(tokenizer, begin);
    if (special[SL_SPECIAL_EOS] < 0) special[SL_SPECIAL_EOS] = special_named(tokenizer, end);
    if (special[SL_SPECIAL_BOS] < 0 && special_named(tokenizer, turn) < 0)
        special[SL_SPECIAL_BOS] = special_named(tokenizer, both);
}

void sl_tokenizer_apply_settings(sl_tokenizer *tokenizer, const sl_tokenizer_settings *settings) {
    static const struct { const char *key; sl_special which; } keys[] = {
        {"bos_token", SL_SPECIAL_BOS}, {"eos_token", SL_SPECIAL_EOS}, {"unk_token", SL_SPECIAL_UNK},
        {"pad_token", SL_SPECIAL_PAD}, {"sep_token", SL_SPECIAL_SEP}, {"cls_token", SL_SPECIAL_CLS},
        {"mask_token", SL_SPECIAL_MASK}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const sl_json *text = sl_tokenizer_setting(settings, keys[i].key);
        int32_t id = text ? sl_tokenizer_find(tokenizer, text->text, text->length) : -1;
        if (id >= 0) tokenizer->special[keys[i].which] = id;
    }
    if (!settings->config && !settings->specials) well_known(tokenizer);
}
