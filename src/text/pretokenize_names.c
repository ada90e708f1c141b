/* What a GGUF file's `tokenizer.ggml.pre` stands for: the patterns, normaliser and flags of the tokenizer.json files
 * that carry the name (the published patterns of the model families; a name groups all that split alike). */
#include "base/error.h"
#include "text/parts.h"

#include <string.h>

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_LIKE(numbers) \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" BLANKS
#define LLAMA3 LLAMA3_LIKE("\\p{N}{1,3}")
#define QWEN2 LLAMA3_LIKE("\\p{N}")
#define QWEN35 \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" BLANKS
#define UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(tail, numbers) \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPERS "*" LOWERS "+" tail \
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPERS "+" LOWERS "*" tail "|" numbers \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" BLANKS
#define GPT4O CASED(CONTRACTIONS "?", "\\p{N}{1,3}")
#define TEKKEN CASED("", "\\p{N}")
#define DEEPSEEK3 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|" \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*" BLANKS
#define CJK_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define CJK_HANGUL "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
#define DIGIT "\\p{N}"

enum { NFC = 1, IGNORE_MERGES = 2, ADDS_BOS = 4, ADDS_SEP = 8, SENTENCE = 16 };

typedef struct named {
    const char *names; /* separated by blanks */
    const char *patterns[6];
    unsigned flags;
} named;

/* deepseek-llm lists the letters of cased scripts by range. */
#define DEEPSEEK_LETTERS \
    "[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}" \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}" \
    "\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}" \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}" \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}" \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}" \
    "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}" \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}" \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}" \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}" \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}" \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}" \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}" \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}]+"

static const named table[] = {
    {"gpt-2 gpt2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum mpt jais trillion "
     "granite-docling exaone4", {GPT2}, 0},
    {"modern-bert olmo", {GPT2}, NFC},
    {"jina-v1-en jina-v2-code roberta-bpe", {GPT2}, ADDS_BOS | ADDS_SEP},
    {"starcoder refact codeshell smollm command-r exaone minerva-7b mellum2", {DIGIT, GPT2}, 0},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {LLAMA3},
     IGNORE_MERGES | ADDS_BOS},
    {"dbrx smaug-bpe chatglm-bpe", {LLAMA3}, 0},
    {"glm4 glm5", {LLAMA3}, IGNORE_MERGES},
    {"minicpm5", {"\\p{N}{1,3}", LLAMA3_LIKE("\\p{N}+")}, IGNORE_MERGES},
    {"jais-2",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
      "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|"
      "\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}, 0},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez", {QWEN2}, NFC},
    {"hunyuan solar-open grok-2", {QWEN2}, 0},
    {"qwen35", {QWEN35}, NFC},
    {"ufakzeka", {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" BLANKS}, NFC},
    {"seed-coder",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" BLANKS}, 0},
    {"bailingmoe bailingmoe2 llada-moe",
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|"
      "\\s+(?!\\S)|\\s+"}, 0},
    {"exaone-moe",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
      "[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}, 0},
    {"laguna", {"[^\\n]+|[\\n]+", QWEN2}, 0},
    {"gpt-4o llama4 kanana2 talkie minimax-m2 gpt-oss", {GPT4O}, 0},
    {"granite-embed-multi-97m", {GPT4O}, IGNORE_MERGES},
    {"tekken", {TEKKEN}, IGNORE_MERGES | ADDS_BOS},
    {"tiny_aya cohere2moe", {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT4O}, 0},
    {"deepseek-llm",
     {"[\\r\\n]", "\\s?" DEEPSEEK_LETTERS,
      "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", "\\s+$",
      CJK_HANGUL, DIGIT}, 0},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_HANGUL, DIGIT}, 0},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", {"\\p{N}{1,3}", CJK_KANA, DEEPSEEK3}, 0},
    {"spark2_5",
     {"\\p{N}{1,3}", CJK_KANA,
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}"
      "\\p{S}]+|"
      "[\\r\\n]|\\s+(?!\\S)|\\s+", DIGIT}, 0},
    {"youtu",
     {"[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}"
      "\\x{ff1a}"
      "\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|" CJK_KANA,
      CASED(CONTRACTIONS "?", "\\p{N}")}, IGNORE_MERGES},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}, 0},
    {"poro-chat bloom gpt3-finnish", {BLOOM}, 0},
    {"viking", {BLOOM, DIGIT}, 0},
    {"chameleon",
     {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", DIGIT, "[\\p{P}!-/:-@\\[-`{-~]",
      GPT2}, ADDS_BOS},
    {"superbpe", {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}, 0},
    {"gemma4 granite-embed-multi-311m sarvam-moe", {NULL}, SENTENCE},
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, 0},
};

/* True when `name` is one of the blank-separated words of names. */
static bool listed(const char *names, const char *name, size_t length) {
    for (const char *at = names; length && *at;) {
        size_t n = strcspn(at, " ");
        if (n == length && !memcmp(at, name, n)) return true;
        at += n + (at[n] == ' ');
    }
    return false;
}

static sllm_status apply(sl_tokenizer *tokenizer, const named *row, sllm_error *error) {
    sllm_status status = SLLM_OK;
    tokenizer->bpe.ignore_merges = row->flags & IGNORE_MERGES;
    if (row->flags & NFC)
        status = sl_add_normalize(tokenizer, (sl_normalize_step){.kind = SL_NORMALIZE_FORM, .form = SL_NFC}, error);
    if (row->flags & SENTENCE) { /* characters, U+2581 for blanks, no cutting: the whole text is one word */
        tokenizer->bpe.byte_level = false;
        tokenizer->bpe.byte_fallback = tokenizer->bpe.fuse_unk = true;
        sl_normalize_step blanks = {.kind = SL_NORMALIZE_REPLACE, .pattern = " ", .pattern_length = 1,
                                    .content = "\xE2\x96\x81", .content_length = 3};
        return sl_add_normalize(tokenizer, blanks, error);
    }
    for (size_t i = 0; i < sizeof row->patterns / sizeof *row->patterns && row->patterns[i] && status == SLLM_OK; i++)
        status = sl_add_pattern(tokenizer, row->patterns[i], strlen(row->patterns[i]), SL_ISOLATED, false, error);
    return status;
}

const char *const *sl_pretokenizer_patterns(const char *name, size_t *n) {
    if (!*name) name = "default";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!listed(table[i].names, name, strlen(name))) continue;
        for (*n = 0; *n < sizeof table[i].patterns / sizeof *table[i].patterns && table[i].patterns[*n];) ++*n;
        return table[i].patterns;
    }
    return NULL;
}

sllm_status sl_pretokenizer_named(sl_tokenizer *tokenizer, const char *name, size_t length, bool *adds_bos,
                                  bool *adds_sep, sllm_error *error) {
    if (!length) {
        name = "default";
        length = 7;
    }
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!listed(table[i].names, name, length)) continue;
        *adds_bos = table[i].flags & ADDS_BOS;
        *adds_sep = table[i].flags & ADDS_SEP;
        return apply(tokenizer, &table[i], error);
    }
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "tokenizer.ggml.pre: the pre-tokeniser '%.*s' is not known",
                   (int)(length < 80 ? length : 80), name);
}
