/* Between kind_tokenizers.c, which checks a tokenizer, and tokenizer_forms.c, which makes some more to check. */
#ifndef TESTS_TOKENIZER_FORMS_H
#define TESTS_TOKENIZER_FORMS_H

#include "golden/golden.h"
#include "text/tokenizer.h"

/* Compares with the reference data of `truth`; `sequences`: those of decode/ too. */
void golden_check_tokenizer(golden *g, const sl_tokenizer *tokenizer, const char *shown, const char *truth, bool sequences);
/* The older forms of tokenizer files, rewritten from the vocabularies of a golden/tokenizers folder. */
void golden_tokenizer_forms(golden *g, const char *directory);

#endif
