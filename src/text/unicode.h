/* Unicode as the tokenizers need it: classes of characters, normal forms, case. Tables: utf8proc. */
#ifndef SL_TEXT_UNICODE_H
#define SL_TEXT_UNICODE_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The classes that pre-tokenisers tell apart. White space is the White_Space property (what \s means in the patterns of
 * published tokenizers), not category Z. */
typedef enum sl_char_class {
    SL_CHAR_OTHER,       /* nothing of the below: C categories but controls that are white space, unassigned */
    SL_CHAR_PUNCTUATION, /* P* */
    SL_CHAR_SYMBOL,      /* S* */
    SL_CHAR_SPACE,
    SL_CHAR_NUMBER,      /* N* */
    SL_CHAR_MARK,        /* M* */
    SL_CHAR_UPPER,       /* Lu, Lt */
    SL_CHAR_LOWER,       /* Ll */
    SL_CHAR_LETTER       /* Lm, Lo: letters without case */
} sl_char_class;

sl_char_class sl_unicode_class(uint32_t code_point);
extern const uint8_t sl_ascii_class[128]; /* sl_char_class of the first 128 code points */

bool sl_unicode_is_space(uint32_t code_point);       /* White_Space */
bool sl_unicode_is_control(uint32_t code_point);     /* Cc, Cf, Co, Cs: what BERT's clean_text drops */
bool sl_unicode_is_punctuation(uint32_t code_point); /* P* */
bool sl_unicode_is_word(uint32_t code_point);        /* \w of a regular expression: Alphabetic, M, Nd, Pc, joiners */
bool sl_unicode_is_nonspacing(uint32_t code_point);  /* Mn */
bool sl_unicode_is_mark(uint32_t code_point);        /* M* */
/* A mark, punctuation or format character that came after Unicode 8, whose tables the reference implementation of
 * BERT's normaliser and of the Punctuation step carries: there it is none of these yet. */
bool sl_unicode_is_recent(uint32_t code_point);

typedef enum sl_normal_form { SL_NFC, SL_NFD, SL_NFKC, SL_NFKD } sl_normal_form;

/* Appends the normal form of text, which must be valid UTF-8. Linear in its length also for long runs of combining
 * marks (their reordering is a counting sort; Unicode Standard Annex 15). False: out of memory. */
bool sl_unicode_normalize(sl_buffer *out, const char *text, size_t length, sl_normal_form form);
/* True when text surely is its own NFC already (no code point beyond U+02FF): lets the caller skip the work. */
bool sl_unicode_is_plain(const char *text, size_t length);

/* Appends text in lower case, as Rust's str::to_lowercase (full mapping of U+0130, no final sigma unless asked). */
bool sl_unicode_lowercase(sl_buffer *out, const char *text, size_t length);

/* The next code point of text that is known to be valid UTF-8; moves *at beyond it. */
static inline uint32_t sl_utf8_next(const char *text, size_t *at) {
    const unsigned char *p = (const unsigned char *)text + *at;
    if (p[0] < 0x80) { *at += 1; return p[0]; }
    if (p[0] < 0xE0) { *at += 2; return (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F); }
    if (p[0] < 0xF0) { *at += 3; return (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F); }
    *at += 4;
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
}

/* Bytes of the character that begins with byte c in valid UTF-8. */
static inline size_t sl_utf8_width(unsigned char c) { return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4; }

#endif
