/* UTF-8, byte by byte. Normalisation and categories are in text/unicode.h. */
#ifndef SL_BASE_UTF8_H
#define SL_BASE_UTF8_H

#include "base/buffer.h"

#include <stdint.h>

/* Decodes the code point at text [length > 0] and returns the bytes it takes. An invalid sequence gives U+FFFD and the
 * length of its maximal subpart (Unicode 15, table 3-8), as Python's errors="replace" does. *valid may be NULL. */
size_t sl_utf8_decode(const char *text, size_t length, uint32_t *code_point, bool *valid);
size_t sl_utf8_encode(uint32_t code_point, char out[4]); /* bytes written; surrogates and > 10FFFF give U+FFFD */
bool sl_utf8_is_valid(const char *text, size_t length);
/* Bytes at the end of text that begin a character which is not complete yet (0..3). */
size_t sl_utf8_incomplete(const char *text, size_t length);
/* Appends text with every invalid part replaced by U+FFFD. */
bool sl_utf8_append_lossy(sl_buffer *out, const char *text, size_t length);
/* Text that came from outside (a file's name), as one line of valid UTF-8: invalid parts become U+FFFD, controls spaces. Sets
 * text->failed when out of memory. */
void sl_utf8_make_line(sl_buffer *text);

#endif
