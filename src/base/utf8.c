#include "base/utf8.h"

size_t sl_utf8_decode(const char *text, size_t length, uint32_t *code_point, bool *valid) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned lead = s[0], low = 0x80, high = 0xbf;
    size_t extra;
    uint32_t c;
    bool ok = true;
    size_t used = 1;
    if (lead < 0x80) {
        c = lead;
        extra = 0;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
        c = lead & 0x1f;
        extra = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        c = lead & 0x0f;
        extra = 2;
        if (lead == 0xe0) low = 0xa0;  /* overlong */
        if (lead == 0xed) high = 0x9f; /* surrogates */
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        c = lead & 0x07;
        extra = 3;
        if (lead == 0xf0) low = 0x90;  /* overlong */
        if (lead == 0xf4) high = 0x8f; /* beyond U+10FFFF */
    } else {
        c = 0;
        extra = 0;
        ok = false;
    }
    for (; ok && extra; extra--, used++) {
        if (used >= length || s[used] < low || s[used] > high) {
            ok = false;
            break;
        }
        c = c << 6 | (s[used] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *code_point = ok ? c : 0xfffd;
    if (valid) *valid = ok;
    return used;
}

size_t sl_utf8_encode(uint32_t c, char out[4]) {
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The first offset at or after `at` where text is not valid, or length. */
static size_t first_invalid(const char *text, size_t at, size_t length) {
    while (at < length) {
        if ((unsigned char)text[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t c;
        bool valid;
        size_t n = sl_utf8_decode(text + at, length - at, &c, &valid);
        if (!valid) return at;
        at += n;
    }
    return length;
}

bool sl_utf8_is_valid(const char *text, size_t length) { return first_invalid(text, 0, length) == length; }

size_t sl_utf8_incomplete(const char *text, size_t length) {
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char c = (unsigned char)text[length - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t needs = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xc2 && c <= 0xdf ? 2 : 1;
        if (needs <= back) return 0;
        /* A start that no continuation can mend is not incomplete but wrong. */
        uint32_t code_point;
        return sl_utf8_decode(text + length - back, back, &code_point, NULL) == back ? back : 0;
    }
    return 0;
}

bool sl_utf8_append_lossy(sl_buffer *out, const char *text, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t bad = first_invalid(text, at, length);
        if (!sl_buffer_append(out, text + at, bad - at)) return false;
        if (bad == length) break;
        uint32_t c;
        at = bad + sl_utf8_decode(text + bad, length - bad, &c, NULL);
        if (!sl_buffer_append(out, "\xef\xbf\xbd", 3)) return false;
    }
    return !out->failed;
}

void sl_utf8_make_line(sl_buffer *text) {
    sl_buffer clean = {.failed = text->failed};
    if (!sl_utf8_append_lossy(&clean, text->data ? text->data : "", text->length)) clean.failed = true;
    for (size_t i = 0; i < clean.length; i++)
        if ((unsigned char)clean.data[i] < 0x20 || clean.data[i] == 0x7f) clean.data[i] = ' ';
    sl_buffer_free(text);
    *text = clean;
}
