/* What the kinds of golden data share: reporting one line a case. */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>

typedef struct golden {
    int passed, failed, skipped;
    bool verbose;
} golden;

/* Each prints "ok|FAIL|skipped  CASE  detail" and counts. */
void golden_pass(golden *g, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void golden_fail(golden *g, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void golden_skip(golden *g, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Calls visit for every entry of a directory in name order ("." and ".." left out). False when it cannot be read. */
bool golden_each(const char *directory, void (*visit)(golden *g, const char *path, const char *name), golden *g);

/* One function per kind; `directory` is like golden/KIND. */
void golden_models(golden *g, const char *directory);
void golden_quant(golden *g, const char *directory);
void golden_gguf(golden *g, const char *directory); /* quant/gguf: whole files of every family, called by golden_quant */
void golden_bnb(golden *g, const char *directory); /* quant/bnb4bit, called by golden_quant */
void golden_packed(golden *g, const char *directory); /* quant/gptq_awq and bnb_models, called by golden_quant */
void golden_tokenizers(golden *g, const char *directory);
void golden_templates(golden *g, const char *directory);
void golden_adapters(golden *g, const char *directory);
void golden_training(golden *g, const char *directory);
void golden_metrics(golden *g, const char *directory);
void golden_real(golden *g, const char *directory);

#endif
