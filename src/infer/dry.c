#include "infer/dry.h"

#include <math.h>
#include <stdlib.h>

/* Beyond these the penalty is out of any logit's reach, and the scan would only cost time. */
enum { LONGEST_MATCH = 50, BEYOND_ALLOWED = 25 };

sllm_status sl_dry_breakers_find(const sl_tokenizer *tokenizer, sl_dry_breakers *breakers, sllm_error *error) {
    /* The letter in front makes the tokenizer write the mark as it stands inside a text. */
    static const char *const texts[SL_DRY_BREAKERS] = {"a\n", "a:", "a\"", "a*"};
    sl_ids ids = {0};
    sllm_status status = SLLM_OK;
    breakers->n = 0;
    for (int i = 0; i < SL_DRY_BREAKERS && !status; i++) {
        ids.length = 0;
        status = sl_tokenizer_encode(tokenizer, NULL, texts[i], 2, 0, &ids, error);
        if (!status && ids.length > 0) breakers->ids[breakers->n++] = ids.data[ids.length - 1];
    }
    free(ids.data);
    return status;
}

static bool breaks(const sl_dry_breakers *breakers, int32_t id) {
    for (int i = 0; i < breakers->n; i++)
        if (breakers->ids[i] == id) return true;
    return false;
}

/* How many tokens before and with position i equal those that end the history; the last of each are known to. */
static uint32_t match_length(const sl_dry_breakers *breakers, const int32_t *history, size_t n, size_t i,
                             uint32_t limit) {
    uint32_t length = 1;
    while (length < limit && length <= i) {
        int32_t previous = history[n - 1 - length];
        if (history[i - length] != previous || breaks(breakers, previous)) break;
        length++;
    }
    return length;
}

void sl_dry_apply(const sllm_sampler_params *params, const sl_dry_breakers *breakers, const int32_t *history, size_t n,
                  uint32_t *longest, float *logits) {
    if (params->dry_multiplier == 0 || params->dry_last_n == 0) return;
    if (params->dry_last_n > 0 && n > (size_t)params->dry_last_n) {
        history += n - (size_t)params->dry_last_n;
        n = (size_t)params->dry_last_n;
    }
    if (n < 2 || breaks(breakers, history[n - 1])) return;
    int32_t last = history[n - 1];
    uint32_t limit = (uint32_t)params->dry_allowed_length + BEYOND_ALLOWED;
    if (limit < LONGEST_MATCH) limit = LONGEST_MATCH;
    for (size_t i = 0; i + 1 < n; i++) {
        if (history[i] != last || breaks(breakers, history[i + 1])) continue;
        uint32_t length = match_length(breakers, history, n, i, limit);
        if (length > longest[history[i + 1]]) longest[history[i + 1]] = length;
    }
    for (size_t i = 1; i < n; i++) { /* each penalised token once: its entry is cleared on the way */
        uint32_t length = longest[history[i]];
        longest[history[i]] = 0;
        if (length == 0 || length < (uint32_t)params->dry_allowed_length) continue;
        double penalty =
            (double)params->dry_multiplier * pow(params->dry_base, (double)length - params->dry_allowed_length);
        logits[history[i]] = (float)(logits[history[i]] - penalty);
    }
}
