/* Fill-in-the-middle: prefix, suffix, then the model writes the middle ("PSM" order, Bavarian et al. 2022,
 * arXiv 2207.14255). */
#ifndef SL_INFER_INFILL_H
#define SL_INFER_INFILL_H

#include "text/tokenizer.h"

/* Appends to *ids: [bos] PREFIX prefix SUFFIX suffix MIDDLE, with the vocabulary's own three tokens; special tokens in
 * the texts stay text. SLLM_ERROR_UNSUPPORTED when it has no such tokens. */
sllm_status sl_infill_encode(const sl_tokenizer *tokenizer, const char *prefix, size_t prefix_length,
                             const char *suffix, size_t suffix_length, sl_ids *ids, sllm_error *error);
/* Could sl_infill_encode work? */
bool sl_infill_can(const sl_tokenizer *tokenizer);

#endif
