/* The steps of a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder. The format is the serialisation of
 * Hugging Face tokenizers; a component that is not known is an error that names it. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/load_json.h"

#include <string.h>

#define MAX_NESTING 8

/* ---------------------------------------------------------------- reading members */

static bool type_is(const sl_json *step, const char *name) {
    const char *type = sl_json_string(sl_json_get(step, "type"));
    return type && !strcmp(type, name);
}

static bool flag(const sl_json *step, const char *key, bool otherwise) {
    bool value = otherwise;
    const sl_json *member = sl_json_get(step, key);
    return member && sl_json_bool(member, &value) ? value : otherwise;
}

static size_t count_of(const sl_json *step, const char *key) {
    int64_t value = 0;
    return sl_json_int64(sl_json_get(step, key), &value) && value > 0 && value < INT32_MAX ? (size_t)value : 0;
}

/* A string member, copied into the tokenizer's arena. */
static sllm_status text_of(sl_tokenizer *tokenizer, const sl_json *step, const char *key, const char *otherwise,
                           const char **text, size_t *length, sllm_error *error) {
    const sl_json *member = sl_json_get(step, key);
    if (!member || member->type == SL_JSON_NULL) {
        *text = otherwise;
        *length = otherwise ? strlen(otherwise) : 0;
        return otherwise ? SLLM_OK : sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: a step lacks its \"%s\"", key);
    }
    if (member->type != SL_JSON_STRING)
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: \"%s\" of a step is not a string", key);
    *text = sl_arena_copy(&tokenizer->arena, member->text, member->length);
    *length = member->length;
    return *text ? SLLM_OK : sl_fail_memory(error, "tokenizer.json", member->length);
}

static sllm_status unknown(const sl_json *step, const char *what, sllm_error *error) {
    const char *type = sl_json_string(sl_json_get(step, "type"));
    if (!type) return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: a %s without a \"type\"", what);
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "tokenizer.json: %s \"%.80s\" is not supported", what, type);
}

/* {"String": s} or {"Regex": r}; an older file writes the string alone. */
static sllm_status pattern_of(sl_tokenizer *tokenizer, const sl_json *step, bool *is_regex, const char **text,
                              size_t *length, sllm_error *error) {
    const sl_json *pattern = sl_json_get(step, "pattern"), *member = pattern;
    *is_regex = false;
    if (pattern && pattern->type == SL_JSON_OBJECT) {
        member = sl_json_get(pattern, "String");
        if (!member) {
            member = sl_json_get(pattern, "Regex");
            *is_regex = true;
        }
    }
    if (!member || member->type != SL_JSON_STRING)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "tokenizer.json: a pattern is neither {\"String\": ...} nor {\"Regex\": ...}");
    *text = sl_arena_copy(&tokenizer->arena, member->text, member->length);
    *length = member->length;
    return *text ? SLLM_OK : sl_fail_memory(error, "tokenizer.json", member->length);
}

/* ---------------------------------------------------------------- normaliser */

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static sllm_status charsmap_of(sl_tokenizer *tokenizer, const sl_json *step, sl_charsmap *map, sllm_error *error) {
    const sl_json *member = sl_json_get(step, "precompiled_charsmap");
    if (!member || member->type != SL_JSON_STRING)
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: Precompiled without \"precompiled_charsmap\"");
    unsigned char *blob = sl_arena_alloc(&tokenizer->arena, member->length / 4 * 3 + 4);
    if (!blob) return sl_fail_memory(error, "the character map", member->length);
    size_t n = 0;
    uint32_t bits = 0;
    int n_bits = 0;
    for (size_t i = 0; i < member->length && member->text[i] != '='; i++) {
        int value = base64_value(member->text[i]);
        if (value < 0)
            return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: precompiled_charsmap is not base64 at %zu", i);
        bits = bits << 6 | (uint32_t)value;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            blob[n++] = (unsigned char)(bits >> n_bits);
        }
    }
    if (!n) return SLLM_OK; /* an empty map changes nothing */
    return sl_charsmap_open(blob, n, map, error);
}

static sllm_status replace_of(sl_tokenizer *tokenizer, const sl_json *step, sl_normalize_step *out, sllm_error *error) {
    bool is_regex;
    out->kind = SL_NORMALIZE_REPLACE;
    sllm_status status = pattern_of(tokenizer, step, &is_regex, &out->pattern, &out->pattern_length, error);
    if (status == SLLM_OK)
        status = text_of(tokenizer, step, "content", NULL, &out->content, &out->content_length, error);
    if (status == SLLM_OK && is_regex)
        status = sl_regex_compile(out->pattern, out->pattern_length, "tokenizer.json: Replace", &out->regex, error);
    return status;
}

static sllm_status normalizer(sl_tokenizer *tokenizer, const sl_json *section, sl_json_steps *steps, int depth,
                              sllm_error *error) {
    static const struct { const char *name; sl_normal_form form; } forms[] = {
        {"NFC", SL_NFC}, {"NFD", SL_NFD}, {"NFKC", SL_NFKC}, {"NFKD", SL_NFKD}};
    sl_normalize_step step = {0};
    sllm_status status = SLLM_OK;
    if (!section || section->type == SL_JSON_NULL) return SLLM_OK;
    if (depth > MAX_NESTING) return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: normalizers nested too deep");
    if (type_is(section, "Sequence")) {
        const sl_json *list = sl_json_get(section, "normalizers");
        for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next)
            status = normalizer(tokenizer, item, steps, depth + 1, error);
        return status;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!type_is(section, forms[i].name)) continue;
        step.form = forms[i].form;
        return sl_add_normalize(tokenizer, step, error);
    }
    if (type_is(section, "Lowercase")) {
        step.kind = SL_NORMALIZE_LOWERCASE;
    } else if (type_is(section, "StripAccents")) {
        step.kind = SL_NORMALIZE_STRIP_ACCENTS;
    } else if (type_is(section, "Strip")) {
        step.kind = SL_NORMALIZE_STRIP;
        step.left = flag(section, "strip_left", true);
        step.right = flag(section, "strip_right", true);
        /* After Precompiled this is SentencePiece's removal of extra white space, which knows blanks only. */
        step.blanks_only =
            tokenizer->n_normalize && tokenizer->normalize[tokenizer->n_normalize - 1].kind == SL_NORMALIZE_CHARSMAP;
    } else if (type_is(section, "Replace")) {
        status = replace_of(tokenizer, section, &step, error);
    } else if (type_is(section, "Prepend")) {
        step.kind = SL_NORMALIZE_PREPEND;
        status = text_of(tokenizer, section, "prepend", NULL, &step.content, &step.content_length, error);
    } else if (type_is(section, "BertNormalizer")) {
        step.kind = SL_NORMALIZE_BERT;
        step.clean_text = flag(section, "clean_text", true);
        step.chinese = flag(section, "handle_chinese_chars", true);
        step.lowercase = flag(section, "lowercase", true);
        step.strip_accents = flag(section, "strip_accents", step.lowercase);
    } else if (type_is(section, "Precompiled")) {
        step.kind = SL_NORMALIZE_CHARSMAP;
        status = charsmap_of(tokenizer, section, &step.charsmap, error);
    } else if (type_is(section, "Nmt")) {
        step.kind = SL_NORMALIZE_NMT;
    } else if (type_is(section, "ByteLevel")) {
        step.kind = SL_NORMALIZE_BYTE_LEVEL;
        steps->letters = true;
    } else {
        return unknown(section, "normalizer", error);
    }
    return status == SLLM_OK ? sl_add_normalize(tokenizer, step, error) : status;
}

sllm_status sl_json_normalizer(sl_tokenizer *tokenizer, const sl_json *section, sl_json_steps *steps,
                               sllm_error *error) {
    return normalizer(tokenizer, section, steps, 0, error);
}

/* ---------------------------------------------------------------- pre-tokeniser */

static sllm_status behaviour_of(const sl_json *section, sl_behaviour otherwise, sl_behaviour *out, sllm_error *error) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    static const char *const older[] = {"removed", "isolated", "merged_with_previous", "merged_with_next",
                                        "contiguous"};
    const char *name = sl_json_string(sl_json_get(section, "behavior"));
    *out = otherwise;
    if (!name) return SLLM_OK;
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, names[i]) && strcmp(name, older[i])) continue;
        *out = (sl_behaviour)i;
        return SLLM_OK;
    }
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "tokenizer.json: behavior \"%.40s\" is not supported", name);
}

static sllm_status split_of(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error) {
    sl_split_step step = {.kind = SL_SPLIT_STRING, .invert = flag(section, "invert", false)};
    bool is_regex;
    sllm_status status = behaviour_of(section, SL_ISOLATED, &step.behaviour, error);
    if (status == SLLM_OK) status = pattern_of(tokenizer, section, &is_regex, &step.text, &step.length, error);
    if (status != SLLM_OK) return status;
    if (is_regex) return sl_add_pattern(tokenizer, step.text, step.length, step.behaviour, step.invert, error);
    return sl_add_split(tokenizer, step, error);
}

static sllm_status byte_level_of(sl_tokenizer *tokenizer, const sl_json *section, bool last, sl_json_steps *steps,
                                 sllm_error *error) {
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    sllm_status status = SLLM_OK;
    if (flag(section, "add_prefix_space", true))
        status = sl_add_split(tokenizer, (sl_split_step){.kind = SL_SPLIT_PREFIX_SPACE}, error);
    if (status == SLLM_OK && flag(section, "use_regex", true))
        status = sl_add_pattern(tokenizer, gpt2, sizeof gpt2 - 1, SL_ISOLATED, false, error);
    if (status != SLLM_OK) return status;
    if (last && !steps->letters) {
        steps->byte_level = true;
        return SLLM_OK;
    }
    steps->letters = true;
    return sl_add_split(tokenizer, (sl_split_step){.kind = SL_SPLIT_LETTERS}, error);
}

static sllm_status metaspace_of(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error) {
    sl_split_step step = {
        .kind = SL_SPLIT_METASPACE, .behaviour = SL_MERGED_NEXT, .split = flag(section, "split", true)};
    const char *scheme = sl_json_string(sl_json_get(section, "prepend_scheme"));
    step.prepend = flag(section, "add_prefix_space", true);
    if (scheme) {
        step.prepend = strcmp(scheme, "never") != 0;
        step.prepend_first = !strcmp(scheme, "first");
    }
    sllm_status status = text_of(tokenizer, section, "replacement", "\xE2\x96\x81", &step.text, &step.length, error);
    if (status == SLLM_OK && !step.length)
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: Metaspace with an empty replacement");
    return status == SLLM_OK ? sl_add_split(tokenizer, step, error) : status;
}

static sllm_status pretokenizer(sl_tokenizer *tokenizer, const sl_json *section, bool last, sl_json_steps *steps,
                                int depth, sllm_error *error) {
    sl_split_step step = {.behaviour = SL_ISOLATED};
    sllm_status status = SLLM_OK;
    if (!section || section->type == SL_JSON_NULL) return SLLM_OK;
    if (depth > MAX_NESTING) return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: pre-tokenizers nested too deep");
    if (type_is(section, "Sequence")) {
        const sl_json *list = sl_json_get(section, "pretokenizers");
        for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next)
            status = pretokenizer(tokenizer, item, last && !item->next, steps, depth + 1, error);
        return status;
    }
    if (type_is(section, "ByteLevel")) return byte_level_of(tokenizer, section, last, steps, error);
    if (type_is(section, "Split")) return split_of(tokenizer, section, error);
    if (type_is(section, "Metaspace")) return metaspace_of(tokenizer, section, error);
    if (type_is(section, "Digits")) {
        step.kind = SL_SPLIT_DIGITS;
        step.individual = flag(section, "individual_digits", false);
    } else if (type_is(section, "Whitespace")) {
        step.kind = SL_SPLIT_WHITESPACE;
    } else if (type_is(section, "WhitespaceSplit")) {
        step.kind = SL_SPLIT_WHITESPACE_ONLY;
        step.behaviour = SL_REMOVED;
    } else if (type_is(section, "Punctuation")) {
        step.kind = SL_SPLIT_PUNCTUATION;
        status = behaviour_of(section, SL_ISOLATED, &step.behaviour, error);
    } else if (type_is(section, "BertPreTokenizer")) {
        step.kind = SL_SPLIT_BERT;
    } else if (type_is(section, "CharDelimiterSplit")) {
        step.kind = SL_SPLIT_DELIMITER;
        step.behaviour = SL_REMOVED;
        status = text_of(tokenizer, section, "delimiter", NULL, &step.text, &step.length, error);
        if (status == SLLM_OK && !step.length)
            return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: CharDelimiterSplit without a character");
    } else if (type_is(section, "FixedLength")) {
        step.kind = SL_SPLIT_FIXED;
        step.length = sl_json_get(section, "length") ? count_of(section, "length") : 5;
        if (!step.length)
            return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: FixedLength needs a length of at least 1");
    } else {
        return unknown(section, "pre-tokenizer", error);
    }
    return status == SLLM_OK ? sl_add_split(tokenizer, step, error) : status;
}

sllm_status sl_json_pretokenizer(sl_tokenizer *tokenizer, const sl_json *section, sl_json_steps *steps,
                                 sllm_error *error) {
    return pretokenizer(tokenizer, section, true, steps, 0, error);
}

/* ---------------------------------------------------------------- decoder */

static sllm_status decoder(sl_tokenizer *tokenizer, const sl_json *section, int depth, sllm_error *error) {
    sl_decode_step step = {0};
    sllm_status status = SLLM_OK;
    if (!section || section->type == SL_JSON_NULL) return SLLM_OK;
    if (depth > MAX_NESTING) return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: decoders nested too deep");
    if (type_is(section, "Sequence")) {
        const sl_json *list = sl_json_get(section, "decoders");
        for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next)
            status = decoder(tokenizer, item, depth + 1, error);
        return status;
    }
    if (type_is(section, "ByteLevel")) {
        step.kind = SL_DECODE_BYTE_LEVEL;
    } else if (type_is(section, "ByteFallback")) {
        step.kind = SL_DECODE_BYTE_FALLBACK;
    } else if (type_is(section, "Fuse")) {
        step.kind = SL_DECODE_FUSE;
    } else if (type_is(section, "Metaspace")) {
        const char *scheme = sl_json_string(sl_json_get(section, "prepend_scheme"));
        step.kind = SL_DECODE_METASPACE;
        step.prepend = scheme ? strcmp(scheme, "never") != 0 : flag(section, "add_prefix_space", true);
        status = text_of(tokenizer, section, "replacement", "\xE2\x96\x81", &step.pattern, &step.pattern_length, error);
    } else if (type_is(section, "WordPiece")) {
        step.kind = SL_DECODE_WORDPIECE;
        step.cleanup = flag(section, "cleanup", true);
        status = text_of(tokenizer, section, "prefix", "##", &step.pattern, &step.pattern_length, error);
    } else if (type_is(section, "BPEDecoder")) {
        step.kind = SL_DECODE_BPE;
        status = text_of(tokenizer, section, "suffix", "</w>", &step.pattern, &step.pattern_length, error);
    } else if (type_is(section, "Strip")) {
        step.kind = SL_DECODE_STRIP;
        step.start = count_of(section, "start");
        step.stop = count_of(section, "stop");
        status = text_of(tokenizer, section, "content", NULL, &step.content, &step.content_length, error);
    } else if (type_is(section, "Replace")) {
        bool is_regex;
        step.kind = SL_DECODE_REPLACE;
        status = pattern_of(tokenizer, section, &is_regex, &step.pattern, &step.pattern_length, error);
        if (status == SLLM_OK)
            status = text_of(tokenizer, section, "content", NULL, &step.content, &step.content_length, error);
        if (status == SLLM_OK && is_regex)
            status = sl_regex_compile(step.pattern, step.pattern_length, "tokenizer.json: decoder Replace", &step.regex,
                                      error);
    } else {
        return unknown(section, "decoder", error);
    }
    return status == SLLM_OK ? sl_add_decode(tokenizer, step, error) : status;
}

/* What a streaming decoder can do: steps on single tokens, one ByteFallback among them, then Fuse, then a strip at the
 * beginning of the whole text. ByteLevel and BPEDecoder see all tokens at once and stand alone. */
static sllm_status check_decoder(const sl_tokenizer *tokenizer, sllm_error *error) {
    bool fused = false, alone = false;
    int fallbacks = 0;
    size_t others = 0;
    for (size_t i = 0; i < tokenizer->n_decode; i++) {
        const sl_decode_step *step = &tokenizer->decode[i];
        bool one_character = step->pattern_length && !step->regex &&
                             sl_utf8_width((unsigned char)step->pattern[0]) == step->pattern_length;
        switch (step->kind) {
        case SL_DECODE_BYTE_LEVEL:
        case SL_DECODE_BPE: alone = true; continue;
        case SL_DECODE_FUSE: fused = true; continue;
        case SL_DECODE_BYTE_FALLBACK: fallbacks++; others += fused; break;
        case SL_DECODE_STRIP: others += fused && (step->stop || i + 1 < tokenizer->n_decode); break;
        case SL_DECODE_REPLACE: others += fused && !one_character; break;
        default: others += fused; break;
        }
        others += alone;
    }
    if (others || fallbacks > 1 || (alone && tokenizer->n_decode > 1 + (size_t)fused))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "tokenizer.json: this sequence of decoders is not supported");
    return SLLM_OK;
}

sllm_status sl_json_decoder(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error) {
    sllm_status status = decoder(tokenizer, section, 0, error);
    return status == SLLM_OK ? check_decoder(tokenizer, error) : status;
}

/* ---------------------------------------------------------------- post-processor */

static sllm_status put_affix(sl_tokenizer *tokenizer, bool before, size_t at, const sl_json *id, sllm_error *error) {
    int32_t *list = before ? tokenizer->prefix : tokenizer->suffix;
    size_t *n = before ? &tokenizer->n_prefix : &tokenizer->n_suffix;
    int64_t value;
    if (!sl_json_int64(id, &value) || value < 0 || value >= tokenizer->vocab.size)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "tokenizer.json: the post-processor names a token outside the vocabulary");
    if (*n == SL_MAX_AFFIX)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "tokenizer.json: the post-processor adds more than %d tokens",
                       SL_MAX_AFFIX);
    memmove(list + at + 1, list + at, (*n - at) * sizeof *list);
    list[at] = (int32_t)value;
    (*n)++;
    return SLLM_OK;
}

/* A template around sequence A; what an earlier processor added stays inside. */
static sllm_status template_of(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error) {
    const sl_json *single = sl_json_get(section, "single"), *specials = sl_json_get(section, "special_tokens");
    bool before = true;
    size_t n_before = 0;
    if (!single || single->type != SL_JSON_ARRAY)
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: TemplateProcessing without \"single\"");
    for (const sl_json *item = single->first; item; item = item->next) {
        const sl_json *special = sl_json_get(item, "SpecialToken");
        if (!special) {
            if (!before || !sl_json_get(item, "Sequence"))
                return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                               "tokenizer.json: TemplateProcessing repeats its sequence");
            before = false;
            continue;
        }
        const char *name = sl_json_string(sl_json_get(special, "id"));
        const sl_json *ids = name && specials ? sl_json_get(sl_json_get(specials, name), "ids") : NULL;
        if (!ids || ids->type != SL_JSON_ARRAY)
            return sl_fail(error, SLLM_ERROR_FORMAT,
                           "tokenizer.json: TemplateProcessing names a special token without ids");
        for (const sl_json *id = ids->first; id; id = id->next) {
            sllm_status status = put_affix(tokenizer, before, before ? n_before : tokenizer->n_suffix, id, error);
            if (status != SLLM_OK) return status;
            n_before += before;
        }
    }
    return SLLM_OK;
}

static sllm_status postprocessor(sl_tokenizer *tokenizer, const sl_json *section, int depth, sllm_error *error) {
    sllm_status status = SLLM_OK;
    if (!section || section->type == SL_JSON_NULL || type_is(section, "ByteLevel")) return SLLM_OK;
    if (depth > MAX_NESTING)
        return sl_fail(error, SLLM_ERROR_FORMAT, "tokenizer.json: post-processors nested too deep");
    if (type_is(section, "Sequence")) {
        const sl_json *list = sl_json_get(section, "processors");
        for (const sl_json *item = list ? list->first : NULL; item && status == SLLM_OK; item = item->next)
            status = postprocessor(tokenizer, item, depth + 1, error);
        return status;
    }
    if (type_is(section, "TemplateProcessing")) return template_of(tokenizer, section, error);
    if (type_is(section, "BertProcessing") || type_is(section, "RobertaProcessing")) {
        status = put_affix(tokenizer, true, 0, sl_json_at(sl_json_get(section, "cls"), 1), error);
        if (status != SLLM_OK) return status;
        return put_affix(tokenizer, false, tokenizer->n_suffix, sl_json_at(sl_json_get(section, "sep"), 1), error);
    }
    return unknown(section, "post-processor", error);
}

sllm_status sl_json_postprocessor(sl_tokenizer *tokenizer, const sl_json *section, sllm_error *error) {
    return postprocessor(tokenizer, section, 0, error);
}
