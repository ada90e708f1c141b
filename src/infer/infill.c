#include "infer/infill.h"

#include "base/error.h"
#include "infer/continuation.h"

#include <string.h>

typedef struct infill_tokens {
    int32_t prefix, suffix, middle;
} infill_tokens;

/* How vocabularies write the three where no metadata names them: StarCoder and Granite, SantaCoder, Qwen2.5-Coder and
 * CodeGemma, Code Llama (whose tokens begin with SentencePiece's blank), DeepSeek-Coder. */
static const char *const spellings[][3] = {
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"},
    {"<PRE>", "<SUF>", "<MID>"},
    {"<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"},
};

static bool find_tokens(const sl_tokenizer *tokenizer, infill_tokens *out) {
    out->prefix = sl_tokenizer_special(tokenizer, SL_SPECIAL_FIM_PREFIX);
    out->suffix = sl_tokenizer_special(tokenizer, SL_SPECIAL_FIM_SUFFIX);
    out->middle = sl_tokenizer_special(tokenizer, SL_SPECIAL_FIM_MIDDLE);
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        if (out->prefix >= 0 && out->suffix >= 0 && out->middle >= 0) return true;
        out->prefix = sl_tokenizer_find(tokenizer, spellings[i][0], strlen(spellings[i][0]));
        out->suffix = sl_tokenizer_find(tokenizer, spellings[i][1], strlen(spellings[i][1]));
        out->middle = sl_tokenizer_find(tokenizer, spellings[i][2], strlen(spellings[i][2]));
    }
    return out->prefix >= 0 && out->suffix >= 0 && out->middle >= 0;
}

bool sl_infill_can(const sl_tokenizer *tokenizer) {
    infill_tokens tokens;
    return find_tokens(tokenizer, &tokens);
}

sllm_status sl_infill_encode(const sl_tokenizer *tokenizer, const char *prefix, size_t prefix_length,
                             const char *suffix, size_t suffix_length, sl_ids *ids, sllm_error *error) {
    infill_tokens tokens;
    if (!find_tokens(tokenizer, &tokens))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "this model cannot fill in the middle: its vocabulary has no prefix, suffix and middle tokens "
                       "(code models such as starcoder2, qwen2.5-coder or codellama have)");
    int32_t bos = sl_tokenizer_special(tokenizer, SL_SPECIAL_BOS);
    sllm_status status = SLLM_OK;
    bool exact;
    if (bos >= 0 && sl_tokenizer_adds_bos(tokenizer)) status = sl_ids_push(ids, bos, error);
    if (!status) status = sl_ids_push(ids, tokens.prefix, error);
    if (!status) status = sl_tokenizer_encode(tokenizer, NULL, prefix, prefix_length, 0, ids, error);
    if (!status) status = sl_ids_push(ids, tokens.suffix, error);
    /* The suffix goes on from the middle, so it must not begin like a text of its own: what stands before it here, a
     * line break, has no part in its tokens. */
    int32_t line_break = sl_tokenizer_find(tokenizer, "<0x0A>", 6);
    if (!status && suffix_length > 0)
        status =
            sl_encode_continuation(tokenizer, &line_break, line_break >= 0, suffix, suffix_length, ids, &exact, error);
    if (!status) status = sl_ids_push(ids, tokens.middle, error);
    return status;
}
