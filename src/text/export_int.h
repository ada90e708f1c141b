/* What the writers of tokenizers share. */
#ifndef SL_TEXT_EXPORT_INT_H
#define SL_TEXT_EXPORT_INT_H

#include "text/parts.h"

const char *sl_export_text(const sl_tokenizer *tokenizer, int32_t id, size_t *length);
/* The merges in order of rank, *n of them; the caller frees. NULL: out of memory. */
sl_pair *sl_export_merges(const sl_tokenizer *tokenizer, size_t *n);
static inline int32_t sl_pair_left(const sl_pair *p) { return (int32_t)((p->key - 1) >> 32); }
static inline int32_t sl_pair_right(const sl_pair *p) { return (int32_t)(uint32_t)(p->key - 1); }

/* Whether both give the same ids for a text made to tell pre-tokenisers apart, with BOS and the like and without. */
bool sl_export_same(const sl_tokenizer *a, const sl_tokenizer *b);

#endif
