/* The parts a tokenizer is made of; seen only inside text/. A loader (load_*.c) fills an sl_tokenizer; encode.c and
 * decode.c run it:
 *
 *   text -> added tokens cut out -> normaliser steps -> pre-tokeniser steps
 *        -> model (BPE, SPM, Unigram, WordPiece) -> ids
 *
 * Every text on this way is valid UTF-8, and steps cut it between characters only: none checks again. Invalid input is
 * mended at the entry (encode.c); what a file could bring in (a character map, a token, a pattern) is checked when it
 * is loaded or where it matches.
 *
 * The order and the meaning of every step follow the `tokenizer.json` format of Hugging Face tokenizers; a GGUF file is
 * read as the tokenizer.json it was converted from. */
#ifndef SL_TEXT_PARTS_H
#define SL_TEXT_PARTS_H

#include "base/arena.h"
#include "base/buffer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

/* ---------------------------------------------------------------- strings and lookups */

typedef struct sl_span {
    uint32_t offset, length;
} sl_span;

/* From byte strings to ids; open addressing, keys live in the vocabulary's pool. */
typedef struct sl_strings {
    struct { uint32_t tag; int32_t id; } *slots; /* id -1: empty */
    size_t mask, count;
    uint64_t seed;
} sl_strings;

static inline uint64_t sl_hash_mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* An odd number that cannot be foreseen: tables hash by it, since a file may choose its strings and ids such that they
 * collide under any known one. */
uint64_t sl_hash_seed(void);

static inline uint64_t sl_hash_bytes(const char *key, size_t length, uint64_t seed) {
    uint64_t h = seed ^ (length * 0x9E3779B97F4A7C15u), word = 0;
    for (; length > 8; length -= 8, key += 8) {
        __builtin_memcpy(&word, key, 8);
        h = sl_hash_mix(h ^ word, 0xA0761D6478BD642Fu);
    }
    word = 0;
    if (length == 8) {
        __builtin_memcpy(&word, key, 8);
    } else if (length >= 4) {
        uint32_t low, high;
        __builtin_memcpy(&low, key, 4);
        __builtin_memcpy(&high, key + length - 4, 4);
        word = (uint64_t)high << 32 | low;
    } else if (length) {
        word = (uint64_t)(unsigned char)key[0] << 16 | (uint64_t)(unsigned char)key[length >> 1] << 8 |
               (unsigned char)key[length - 1];
    }
    return sl_hash_mix(h ^ word, 0xE7037ED1A0B428DBu);
}

/* A trie over bytes: (node, byte) -> node, the root's children in a table of their own. Longest-prefix search. */
typedef struct sl_trie {
    struct { uint64_t key; uint32_t child; } *edges; /* key: node << 8 | byte, plus 1; 0: empty */
    size_t mask, n_edges;
    uint64_t seed;
    int32_t *values; /* [n_nodes] id that ends here, -1: none */
    size_t n_nodes, capacity;
    uint32_t root[256]; /* child of the root, 0: none */
} sl_trie;

bool sl_trie_add(sl_trie *trie, const char *key, size_t length, int32_t value); /* false: out of memory. length > 0 */
void sl_trie_free(sl_trie *trie);
static inline uint32_t sl_trie_step(const sl_trie *trie, uint32_t node, unsigned char byte) { /* 0: no such child */
    if (node == 0) return trie->root[byte];
    uint64_t key = ((uint64_t)node << 8 | byte) + 1;
    for (size_t i = sl_hash_mix(key, trie->seed) & trie->mask;; i = (i + 1) & trie->mask) {
        if (trie->edges[i].key == key) return trie->edges[i].child;
        if (!trie->edges[i].key) return 0;
    }
}
/* Bytes of the longest key that begins text, and its value; 0 when none does. */
size_t sl_trie_longest(const sl_trie *trie, const char *text, size_t length, int32_t *value);

/* ---------------------------------------------------------------- vocabulary */

enum { /* GGUF's token types; a JSON loader sets NORMAL, BYTE and, for added tokens, CONTROL or USER */
    SL_TOKEN_ABSENT = 0, SL_TOKEN_NORMAL = 1, SL_TOKEN_UNKNOWN = 2, SL_TOKEN_CONTROL = 3, SL_TOKEN_USER = 4,
    SL_TOKEN_UNUSED = 5, SL_TOKEN_BYTE = 6
};

typedef struct sl_vocab {
    int32_t size;
    sl_buffer pool;      /* every text and every piece, each NUL-terminated */
    sl_span *texts;      /* [size] as the file writes it */
    sl_span *pieces;     /* [size] the bytes it stands for in a text */
    const sl_span *keys; /* [size] texts or pieces: what the model looks words up by */
    uint8_t *types;      /* [size] SL_TOKEN_* */
    float *scores;       /* [size] or NULL */
    sl_strings by_key;   /* tokens a model may produce */
    sl_strings by_text;  /* the others (added tokens with characters outside the byte alphabet...) */
    size_t longest;      /* bytes of the longest key */
} sl_vocab;

static inline const char *sl_vocab_key(const sl_vocab *vocab, int32_t id, size_t *length) {
    *length = vocab->keys[id].length;
    return vocab->pool.data + vocab->keys[id].offset;
}

bool sl_strings_init(sl_strings *strings, size_t count); /* false: out of memory */
/* Maps the string of `spans[id]` to id; a later id replaces an earlier one with the same string. */
void sl_strings_put(sl_strings *strings, const char *pool, const sl_span *spans, int32_t id);
int32_t sl_strings_find(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                        size_t length);
/* The same where sl_hash_bytes(key, length, strings->seed) is known; the table is not empty. */
int32_t sl_strings_find_hashed(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                               size_t length, uint64_t hash);
static inline int32_t sl_vocab_find(const sl_vocab *vocab, const char *key, size_t length) {
    if (length > vocab->longest) return -1;
    return sl_strings_find(&vocab->by_key, vocab->pool.data, vocab->keys, key, length);
}

/* Room for `size` tokens (all absent). Fails on memory. */
sllm_status sl_vocab_init(sl_vocab *vocab, int32_t size, bool with_scores, sllm_error *error);
/* Stores text as token id. False: out of memory (or past 4 GiB of text). */
bool sl_vocab_set(sl_vocab *vocab, int32_t id, const char *text, size_t length, int type, float score);
/* Computes pieces by the model's spelling and fills the lookup tables. Call once, after the last sl_vocab_set. */
typedef enum sl_spelling {
    SL_SPELLING_BYTE_LEVEL, /* GPT-2's printable stand-ins for bytes; lookups are by raw bytes */
    SL_SPELLING_LETTERS,    /* the same stand-ins, but the words arrive in them too: lookups are by text */
    SL_SPELLING_SENTENCE,   /* U+2581 for blank, <0xNN> for bytes; lookups are by text */
    SL_SPELLING_WORDPIECE,  /* continuation prefix; lookups are by text */
    SL_SPELLING_PLAIN       /* as written */
} sl_spelling;
sllm_status sl_vocab_index(sl_vocab *vocab, sl_spelling spelling, const char *continuing_prefix, sllm_error *error);
void sl_vocab_free(sl_vocab *vocab);

/* The byte for which GPT-2's byte-level alphabet writes code point c, or -1. */
int sl_byte_of_letter(uint32_t code_point);
/* Turns text of that alphabet into bytes at out [>= length]; false when a character is outside it. */
bool sl_bytes_of_letters(const char *text, size_t length, char *out, size_t *n);
/* The other way round: appends the letters of bytes. False: out of memory. */
bool sl_letters_of_bytes(const char *bytes, size_t length, sl_buffer *out);
/* The byte that a token text <0xNN> stands for, or -1. */
int sl_byte_of_token(const char *text, size_t length);

/* ---------------------------------------------------------------- added tokens */

typedef struct sl_added {
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} sl_added;

typedef struct sl_added_tokens {
    sl_added *items;
    size_t n, capacity;
    sl_trie raw, normal;    /* value: index in items; matched before and after normalising; UTF-8 */
    bool raw_plain, normal_plain; /* the trie holds a token that is not special: it matters in text mode too */
    uint8_t *special;       /* [vocabulary size] 1: a special token */
} sl_added_tokens;

/* ---------------------------------------------------------------- normaliser and pre-tokeniser steps */

typedef struct sl_regex sl_regex; /* a compiled PCRE2 pattern; immutable */
/* Compiles a pattern written for Oniguruma or Rust's regex (tokenizer.json); `what` names it in messages. */
sllm_status sl_regex_compile(const char *pattern, size_t length, const char *what, sl_regex **regex, sllm_error *error);
void sl_regex_free(sl_regex *regex);
/* First match in text [length] at or after `from`. 1: found, 0: none, < 0: failed (memory or a match limit). */
int sl_regex_find(const sl_regex *regex, void *scratch, const char *text, size_t length, size_t from, size_t *start,
                  size_t *end);
void *sl_regex_scratch_new(void); /* match memory of one thread; NULL: out of memory */
void sl_regex_scratch_free(void *scratch);

typedef enum sl_normalize_kind {
    SL_NORMALIZE_FORM,          /* NFC, NFD, NFKC, NFKD */
    SL_NORMALIZE_LOWERCASE,
    SL_NORMALIZE_STRIP_ACCENTS, /* drops marks */
    SL_NORMALIZE_STRIP,
    SL_NORMALIZE_REPLACE,
    SL_NORMALIZE_PREPEND,
    SL_NORMALIZE_BERT,
    SL_NORMALIZE_CHARSMAP,      /* SentencePiece's compiled map */
    SL_NORMALIZE_NMT,
    SL_NORMALIZE_BYTE_LEVEL,    /* bytes to letters */
    SL_NORMALIZE_SENTENCEPIECE  /* SentencePiece's whole normaliser: map, white space, dummy prefix, U+2581 */
} sl_normalize_kind;

/* SentencePiece's precompiled_charsmap: a double-array trie and a blob of NUL-terminated replacements. */
typedef struct sl_charsmap {
    const uint32_t *units;
    size_t n_units;
    const char *texts;
    size_t n_texts;
} sl_charsmap;
/* Points into blob [size], which must outlive it and be 4-byte aligned. */
sllm_status sl_charsmap_open(const unsigned char *blob, size_t size, sl_charsmap *map, sllm_error *error);

typedef struct sl_normalize_step {
    sl_normalize_kind kind;
    sl_normal_form form;
    bool left, right, blanks_only;                           /* STRIP: of U+0020 alone or of all white space */
    bool clean_text, chinese, strip_accents, lowercase;      /* BERT */
    bool dummy_prefix, escape, collapse;                     /* SENTENCEPIECE */
    const char *pattern, *content;                           /* REPLACE (string), PREPEND */
    size_t pattern_length, content_length;
    sl_regex *regex;                                         /* REPLACE (regex) */
    sl_charsmap charsmap;
    const sl_trie *keep;                                     /* SENTENCEPIECE: user-defined pieces stay as they are */
} sl_normalize_step;

typedef enum sl_split_kind {
    SL_SPLIT_SCAN,        /* a published pattern, written by hand */
    SL_SPLIT_REGEX,
    SL_SPLIT_STRING,
    SL_SPLIT_DIGITS,
    SL_SPLIT_PUNCTUATION,
    SL_SPLIT_WHITESPACE,  /* \w+|[^\w\s]+ */
    SL_SPLIT_WHITESPACE_ONLY,
    SL_SPLIT_BERT,
    SL_SPLIT_METASPACE,
    SL_SPLIT_DELIMITER,
    SL_SPLIT_FIXED,
    SL_SPLIT_PREFIX_SPACE, /* ByteLevel's add_prefix_space */
    SL_SPLIT_LETTERS      /* bytes become letters of GPT-2's alphabet */
} sl_split_kind;

typedef enum sl_behaviour { SL_REMOVED, SL_ISOLATED, SL_MERGED_PREVIOUS, SL_MERGED_NEXT, SL_CONTIGUOUS } sl_behaviour;

/* Patterns with a hand-written scanner. */
typedef enum sl_scan_kind { SL_SCAN_GPT2, SL_SCAN_LLAMA3, SL_SCAN_GPT4O, SL_SCAN_KINDS } sl_scan_kind;
typedef struct sl_scan {
    sl_scan_kind kind;
    int digits;           /* longest run of digits in one piece; 0: no limit */
    bool marks;           /* LLAMA3: combining marks count as letters (qwen35) */
    bool slash;           /* GPT4O: "/" may follow punctuation with line ends */
    bool contractions;    /* LLAMA3, GPT4O: English contractions are pieces or end them */
    bool isolate_digits;  /* a step before it cut every digit off (GPT2) */
} sl_scan;

typedef struct sl_split_step {
    sl_split_kind kind;
    sl_behaviour behaviour;
    bool invert, individual;     /* REGEX, STRING; DIGITS */
    sl_scan scan;
    sl_regex *regex;
    const char *text;            /* STRING, DELIMITER, METASPACE's replacement */
    size_t length;               /* bytes of text; FIXED: characters */
    bool prepend, prepend_first, split; /* METASPACE */
} sl_split_step;

/* The end of the piece that begins at text[at]; length > at. text is valid UTF-8. */
size_t sl_scan_next(const sl_scan *scan, const char *text, size_t length, size_t at);
/* True when pattern is (a spelling of) one that has a hand-written scanner. */
bool sl_scan_of_pattern(const char *pattern, size_t length, sl_scan *scan);

typedef struct sl_piece {
    size_t offset, length;
} sl_piece;

/* ---------------------------------------------------------------- models */

typedef enum sl_model_kind {
    SL_MODEL_BPE,
    SL_MODEL_SPM,
    SL_MODEL_UNIGRAM,
    SL_MODEL_WORDPIECE,
    SL_MODEL_WORDLEVEL
} sl_model_kind;

/* (left id, right id) -> rank and merged id */
typedef struct sl_pair {
    uint64_t key; /* left << 32 | right, plus 1; 0: empty */
    uint32_t rank;
    int32_t id;
} sl_pair;

typedef struct sl_pairs {
    sl_pair *slots;
    size_t mask, count;
    uint64_t seed;
    uint64_t *filter; /* a bit for each pair's hash: most pairs asked for do not merge, and this fits a nearer cache */
    size_t filter_mask;
} sl_pairs;

bool sl_pairs_init(sl_pairs *pairs, size_t count);
void sl_pairs_put(sl_pairs *pairs, int32_t left, int32_t right, uint32_t rank, int32_t id); /* the last one wins */
static inline const sl_pair *sl_pairs_find(const sl_pairs *pairs, int32_t left, int32_t right) {
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1, hash = sl_hash_mix(key, pairs->seed);
    size_t bit = (hash >> 24) & pairs->filter_mask;
    if (!(pairs->filter[bit / 64] >> (bit % 64) & 1)) return NULL;
    for (size_t i = hash & pairs->mask;; i = (i + 1) & pairs->mask) {
        if (pairs->slots[i].key == key) return &pairs->slots[i];
        if (!pairs->slots[i].key) return NULL;
    }
}

/* Asks the memory for the place of a pair that sl_pairs_put will fill. */
static inline void sl_pairs_prefetch(const sl_pairs *pairs, int32_t left, int32_t right) {
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1, hash = sl_hash_mix(key, pairs->seed);
    __builtin_prefetch(&pairs->slots[hash & pairs->mask], 1);
    __builtin_prefetch(&pairs->filter[((hash >> 24) & pairs->filter_mask) / 64], 1);
}

typedef struct sl_bpe {
    bool byte_level;      /* symbols begin as bytes; otherwise as characters */
    bool by_score;        /* SPM: the pair whose joined text has the best score; no merge list */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool cuts;            /* a text may be cut where no token holds the two neighbours (see bpe.c) */
    int32_t unk;          /* -1: none */
    int32_t bytes[256];   /* token of each byte: byte_level's alphabet or the fallback tokens; -1: none */
    sl_pairs pairs;
    uint64_t *neighbours; /* bit set over pairs of characters that stand next to each other in some token */
    size_t neighbour_mask;
    const char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
    size_t prefix_length, suffix_length;
    sl_trie user;         /* SPM: pieces that are cut out first and never merged; UTF-8 */
    bool has_user, has_unused;
} sl_bpe;

typedef struct sl_unigram {
    sl_trie trie;
    int32_t unk;
    float min_score, max_score;
    bool byte_fallback;
    int32_t bytes[256];
} sl_unigram;

typedef struct sl_wordpiece {
    int32_t unk;
    const char *prefix; /* of a continuation, "##" */
    size_t prefix_length;
    size_t max_chars;   /* longer words are unknown */
} sl_wordpiece;

/* ---------------------------------------------------------------- decoder */

typedef enum sl_decode_kind {
    SL_DECODE_REPLACE, SL_DECODE_BYTE_FALLBACK, SL_DECODE_FUSE, SL_DECODE_STRIP, SL_DECODE_BYTE_LEVEL,
    SL_DECODE_METASPACE, SL_DECODE_WORDPIECE, SL_DECODE_BPE
} sl_decode_kind;

typedef struct sl_decode_step {
    sl_decode_kind kind;
    const char *pattern, *content; /* REPLACE; WORDPIECE's prefix, METASPACE's replacement, BPE's suffix: pattern */
    size_t pattern_length, content_length;
    sl_regex *regex;
    size_t start, stop;            /* STRIP: characters `content` taken off at either end */
    bool cleanup, prepend;         /* WORDPIECE; METASPACE drops the first blank */
} sl_decode_step;

/* ---------------------------------------------------------------- the whole */

#define SL_MAX_STEPS 32
#define SL_MAX_AFFIX 16

struct sl_tokenizer {
    sl_arena arena;      /* strings of the steps */
    sl_vocab vocab;
    sl_added_tokens added;
    sl_normalize_step normalize[SL_MAX_STEPS];
    size_t n_normalize;
    sl_split_step split[SL_MAX_STEPS];
    size_t n_split;
    sl_model_kind kind;
    sl_bpe bpe; /* BPE, SPM */
    sl_unigram unigram;
    sl_wordpiece wordpiece;
    sl_decode_step decode[SL_MAX_STEPS];
    size_t n_decode;
    int32_t prefix[SL_MAX_AFFIX], suffix[SL_MAX_AFFIX];
    size_t n_prefix, n_suffix;
    int32_t special[SL_SPECIAL_COUNT];
    int32_t *end_ids;
    size_t n_end_ids;
    char pre[64];
};

/* An empty tokenizer without special ids; NULL: out of memory, and *error says so. */
sl_tokenizer *sl_tokenizer_new(sllm_error *error);

/* What one encoding works with; kept between calls in a cache. */
typedef struct sl_scratch sl_scratch;

/* Appending ids; false: out of memory. */
bool sl_ids_reserve(sl_ids *ids, size_t extra);

/* Model encoders: append the ids of one word [length bytes of valid UTF-8]. */
sllm_status sl_bpe_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length, sl_ids *ids,
                          sllm_error *error);
/* The words that the pre-tokeniser's only step, a scanner, cuts text into. */
sllm_status sl_bpe_encode_scan(const sl_tokenizer *tokenizer, sl_scratch *work, const sl_scan *scan, const char *text,
                               size_t length, sl_ids *ids, sllm_error *error);
sllm_status sl_unigram_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *text, size_t length,
                              sl_ids *ids, sllm_error *error);
sllm_status sl_wordpiece_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                                sl_ids *ids, sllm_error *error);
sllm_status sl_wordlevel_encode(const sl_tokenizer *tokenizer, sl_scratch *work, const char *word, size_t length,
                                sl_ids *ids, sllm_error *error);

/* Normalises text in place of work->text (see encode.c) / runs the pre-tokeniser steps over it. */
sllm_status sl_normalize(const sl_normalize_step *step, sl_scratch *work, const char *text, size_t length,
                         sl_buffer *out, sllm_error *error);
sllm_status sl_pretokenize(const sl_tokenizer *tokenizer, sl_scratch *work, bool first, sllm_error *error);

/* Fills tokenizer->bpe.pairs from a file's list of merges, after sl_vocab_index. A merge of or into a string that is no
 * token is SLLM_ERROR_FORMAT, from whatever file: Hugging Face tokenizers refuse such a tokenizer.json, and a GGUF file
 * is read as the tokenizer.json it was made from. (llama.cpp joins the texts all the same and then spells the result in
 * bytes, which is no tokenisation the model was trained on.) `what` names the list in messages. The strings of
 * sl_merges_add must stay until sl_merges_finish. */
typedef struct sl_merges sl_merges;
sl_merges *sl_merges_new(sl_tokenizer *tokenizer, size_t count, const char *what, sllm_error *error); /* NULL: memory */
sllm_status sl_merges_add(sl_merges *merges, uint32_t rank, const char *left, size_t left_length, const char *right,
                          size_t right_length, sllm_error *error);
sllm_status sl_merges_finish(sl_merges *merges, sllm_error *error);
void sl_merges_free(sl_merges *merges);

/* BPE's tables from the vocabulary: byte tokens, neighbours. The merges come before. */
sllm_status sl_bpe_prepare(sl_tokenizer *tokenizer, sllm_error *error);
sllm_status sl_unigram_prepare(sl_tokenizer *tokenizer, sllm_error *error);

/* Added tokens: collected by loaders, then indexed once. */
sllm_status sl_added_add(sl_tokenizer *tokenizer, sl_added item, sllm_error *error);
sllm_status sl_added_index(sl_tokenizer *tokenizer, sllm_error *error);

/* Well-known names of end-of-turn tokens -> end_ids, of fill-in-the-middle markers -> special ids still unknown; called
 * when the vocabulary and special ids are there. */
sllm_status sl_tokenizer_finish(sl_tokenizer *tokenizer, sllm_error *error);

/* The pre-tokeniser, normaliser and flags that a GGUF `tokenizer.ggml.pre` name stands for (pretokenize_names.c). */
sllm_status sl_pretokenizer_named(sl_tokenizer *tokenizer, const char *name, size_t length, bool *adds_bos,
                                  bool *adds_sep, sllm_error *error);
/* The patterns of a name's steps, each isolated: [*n] strings, in the regular expressions of tokenizer.json; NULL: unknown. */
const char *const *sl_pretokenizer_patterns(const char *name, size_t *n);

/* Step builders shared by the loaders; SLLM_ERROR_FORMAT when there are more than SL_MAX_STEPS. */
sllm_status sl_add_normalize(sl_tokenizer *tokenizer, sl_normalize_step step, sllm_error *error);
sllm_status sl_add_split(sl_tokenizer *tokenizer, sl_split_step step, sllm_error *error);
sllm_status sl_add_decode(sl_tokenizer *tokenizer, sl_decode_step step, sllm_error *error);
/* A split by pattern: by hand-written scanner where there is one, else PCRE2. */
sllm_status sl_add_pattern(sl_tokenizer *tokenizer, const char *pattern, size_t length, sl_behaviour behaviour,
                           bool invert, sllm_error *error);

#endif
