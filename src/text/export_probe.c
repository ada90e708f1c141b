#include "text/export_int.h"

#include <stdlib.h>
#include <string.h>

/* What pre-tokenisers differ in: contractions and their case, runs of digits, blanks, line ends, punctuation before line
 * ends, slashes, letters of two cases in one word, marks, scripts without blanks. */
static const char probe[] =
    "Hello world, it's we'll I'M YOU'RE don't they'd he'Ve o'clock 1 12 123 1234 12345 3.14159 1,000,000 x2y33z444\n"
    "\n\n  two  three   four    five \t\ttabs\r\n\r\n end.\n\t indented /// a//b\n; }\n\n};\n\n!!!??? ... (a)[b]{c}<d> \"q\" `w`\n"
    "camelCaseWord HTTPServer iPhone XMLHttpRequest ABCdef abcDEF A1b2 __init__ foo_bar==baz!=qux x->y a+=b #define @user $5\n"
    "na\xc3\xafve caf\xc3\xa9 e\xcc\x81t\xc3\xa9 \xc3\x9c""ber stra\xc3\x9f""e \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 "
    "\xd0\xbc\xd0\xb8\xd1\x80 \xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c\xef\xbc\x81 "
    "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf \xec\x95\x88\xeb\x85\x95 \xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 "
    "\xe0\xb8\xaa\xe0\xb8\xa7\xe0\xb8\xb1\xe0\xb8\xaa\xe0\xb8\x94\xe0\xb8\xb5 \xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87 "
    "\xd9\xa1\xd9\xa2\xd9\xa3 \xc2\xbd\xc2\xb2 \xe2\x85\xa3 \xf0\x9f\x98\x80\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd \xe2\x82\xac""5 \xe2\x80\x9cquoted\xe2\x80\x9d \xe2\x80\xa6\n   trailing   ";

const char *sl_export_text(const sl_tokenizer *t, int32_t id, size_t *length) {
    *length = t->vocab.texts[id].length;
    return t->vocab.pool.data + t->vocab.texts[id].offset;
}

static int by_rank(const void *a, const void *b) {
    const sl_pair *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

sl_pair *sl_export_merges(const sl_tokenizer *t, size_t *n) {
    const sl_pairs *pairs = &t->bpe.pairs;
    sl_pair *list = malloc((pairs->count + 1) * sizeof *list);
    *n = 0;
    for (size_t i = 0; list && pairs->slots && i <= pairs->mask && *n < pairs->count; i++)
        if (pairs->slots[i].key) list[(*n)++] = pairs->slots[i];
    if (list) qsort(list, *n, sizeof *list, by_rank);
    return list;
}

static bool same_ids(const sl_tokenizer *a, const sl_tokenizer *b, unsigned flags) {
    sl_ids x = {0}, y = {0};
    bool same = !sl_tokenizer_encode(a, NULL, probe, sizeof probe - 1, flags, &x, NULL) &&
                !sl_tokenizer_encode(b, NULL, probe, sizeof probe - 1, flags, &y, NULL) && x.length == y.length &&
                !memcmp(x.data, y.data, x.length * sizeof *x.data);
    free(x.data);
    free(y.data);
    return same;
}

bool sl_export_same(const sl_tokenizer *a, const sl_tokenizer *b) {
    return same_ids(a, b, 0) && same_ids(a, b, SLLM_TOKENIZE_ADD);
}
