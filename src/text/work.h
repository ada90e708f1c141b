/* The working memory of one encoding: grown on demand, kept between calls inside an sl_tokenizer_cache. */
#ifndef SL_TEXT_WORK_H
#define SL_TEXT_WORK_H

#include "text/parts.h"

/* Word caches. Short words (up to 16 bytes, at most three ids) lie two to a cache line; a newer word takes the first
 * place of its line and moves the other to the second. Longer ones, and those of more ids, are kept in one growing text
 * that starts over when full. */
#define SL_WORD_BYTES 16
#define SL_WORD_IDS 3
typedef struct sl_word {
    uint64_t low, high; /* the word's first and last eight bytes (or fewer; see word_key) */
    uint8_t length;     /* 0: empty */
    uint8_t n_ids;
    int32_t ids[SL_WORD_IDS];
} sl_word;
_Static_assert(sizeof(sl_word) == 32, "two words to a cache line");

#define SL_LONG_BYTES 8192   /* longest word that is kept */
#define SL_LONG_SLOTS 4096
#define SL_LONG_TEXT (1 << 20)
typedef struct sl_long_word {
    uint64_t hash;
    uint32_t offset; /* in long_text: the ids, then the bytes */
    uint16_t length, n_ids; /* length 0: empty */
} sl_long_word;

/* One symbol of a word being merged: a doubly linked list in an array. */
typedef struct sl_symbol {
    int32_t id;          /* -1: no token */
    uint32_t start, length; /* its bytes in the word */
    int32_t next, previous; /* -1: none */
    uint32_t rank;       /* of the pair with the next one; UINT32_MAX: cannot merge */
    int32_t merged;      /* the id that pair would become */
    bool frozen;
} sl_symbol;

typedef struct sl_node { /* Unigram's lattice: the best way to reach a byte position */
    float score;
    int32_t start, id;
} sl_node;

struct sl_scratch {
    sl_buffer text, other; /* the text after the steps so far, and where the next step writes */
    sl_buffer valid;       /* the input with U+FFFD for invalid parts */
    sl_piece *pieces, *next_pieces;
    size_t n_pieces, pieces_capacity, n_next, next_capacity;
    sl_symbol *symbols;
    size_t symbols_capacity;
    uint64_t *heap;
    size_t heap_length, heap_capacity;
    sl_node *nodes;
    size_t nodes_capacity;
    int32_t *path;
    size_t path_capacity;
    void *regex;
    sl_word *words;        /* [2 * (words_mask + 1)], a line each two; NULL: no word cache */
    size_t words_mask;
    sl_long_word *long_words; /* [SL_LONG_SLOTS] */
    char *long_text;       /* [SL_LONG_TEXT] */
    size_t long_used;
};

struct sl_tokenizer_cache {
    sl_scratch work;
};

void sl_scratch_free(sl_scratch *work);
/* Grows *memory of `capacity` items of `size` bytes to hold at least `count`. False: out of memory. */
bool sl_grow(void *memory, size_t *capacity, size_t count, size_t size);

#endif
