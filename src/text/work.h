/* The working memory of one encoding: grown on demand, kept between calls inside an sl_tokenizer_cache. */
#ifndef SL_TEXT_WORK_H
#define SL_TEXT_WORK_H

#include "text/parts.h"

/* A word and its ids, in one cache line. */
#define SL_WORD_BYTES 24
#define SL_WORD_IDS 8
typedef struct sl_word {
    uint64_t key[SL_WORD_BYTES / 8]; /* the word's bytes, padded with zeros */
    uint8_t length;                  /* 0: empty slot */
    uint8_t n_ids;
    uint16_t spare;
    uint32_t tag;
    int32_t ids[SL_WORD_IDS - 2];
} sl_word;
_Static_assert(sizeof(sl_word) == 56 || sizeof(sl_word) == 64, "a cached word fits a cache line");

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
    sl_word *words;        /* [words_mask + 1] or NULL: no word cache */
    size_t words_mask;
};

struct sl_tokenizer_cache {
    sl_scratch work;
};

void sl_scratch_free(sl_scratch *work);
/* Grows *memory of `capacity` items of `size` bytes to hold at least `count`. False: out of memory. */
bool sl_grow(void *memory, size_t *capacity, size_t count, size_t size);

#endif
