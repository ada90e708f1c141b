/* How vocabularies spell bytes: in GPT-2's alphabet, one printable letter each, or as <0xNN>. */
#include "base/utf8.h"
#include "text/parts.h"

#include <string.h>

/* GPT-2 writes printable Latin-1 bytes as themselves and the 68 others as U+0100 + n, in byte order
 * (openai/gpt-2, encoder.py, bytes_to_unicode). */
int sl_byte_of_letter(uint32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    uint32_t n = c - 0x100;
    if (n <= 0x20) return (int)n;
    if (n <= 0x21 + 0xA0 - 0x7F) return (int)(0x7F + n - 0x21);
    return 0xAD;
}

bool sl_bytes_of_letters(const char *text, size_t length, char *out, size_t *n) {
    size_t written = 0;
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x80) {
            if (c < 0x21 || c > 0x7E) return false;
            out[written++] = (char)c;
            i++;
            continue;
        }
        /* the alphabet's other letters are U+00A1..U+0143: two bytes, lead C2..C5 */
        if (c < 0xC2 || c > 0xC5 || i + 1 >= length || ((unsigned char)text[i + 1] & 0xC0) != 0x80) return false;
        int byte = sl_byte_of_letter((uint32_t)(c & 0x1F) << 6 | ((unsigned char)text[i + 1] & 0x3F));
        if (byte < 0) return false;
        out[written++] = (char)byte;
        i += 2;
    }
    *n = written;
    return true;
}

bool sl_letters_of_bytes(const char *bytes, size_t length, sl_buffer *out) {
    char letters[256][2];
    uint8_t widths[256] = {0};
    for (uint32_t c = 0x21; c <= 0x143; c++) {
        int byte = sl_byte_of_letter(c);
        char encoded[4];
        if (byte < 0) continue;
        widths[byte] = (uint8_t)sl_utf8_encode(c, encoded);
        memcpy(letters[byte], encoded, 2);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        sl_buffer_append(out, letters[byte], widths[byte]);
    }
    return !out->failed;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

int sl_byte_of_token(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}
