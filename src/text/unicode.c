#include "text/unicode.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define P SL_CHAR_PUNCTUATION
#define S SL_CHAR_SYMBOL
#define W SL_CHAR_SPACE
#define N SL_CHAR_NUMBER
#define U SL_CHAR_UPPER
#define L SL_CHAR_LOWER
const uint8_t sl_ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, W, W, W, W, W, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    W, P, P, P, S, P, P, P, P, P, P, S, P, P, P, P, N, N, N, N, N, N, N, N, N, N, P, P, S, S, S, P,
    P, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, P, P, P, S, P,
    S, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, S, P, S, 0,
};
#undef P
#undef S
#undef W
#undef N
#undef U
#undef L

bool sl_unicode_is_space(uint32_t c) {
    if (c < 0x80) return sl_ascii_class[c] == SL_CHAR_SPACE;
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

sl_char_class sl_unicode_class(uint32_t c) {
    if (c < 0x80) return sl_ascii_class[c];
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return SL_CHAR_UPPER;
    case UTF8PROC_CATEGORY_LL: return SL_CHAR_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return SL_CHAR_LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return SL_CHAR_MARK;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return SL_CHAR_NUMBER;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return SL_CHAR_PUNCTUATION;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return SL_CHAR_SYMBOL;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return SL_CHAR_SPACE;
    default: return c == 0x85 ? SL_CHAR_SPACE : SL_CHAR_OTHER;
    }
}

bool sl_unicode_is_control(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS: return true;
    default: return false;
    }
}

bool sl_unicode_is_punctuation(uint32_t c) { return sl_unicode_class(c) == SL_CHAR_PUNCTUATION; }
bool sl_unicode_is_mark(uint32_t c) { return sl_unicode_class(c) == SL_CHAR_MARK; }

bool sl_unicode_is_nonspacing(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN;
}

bool sl_unicode_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC: return true;
    default: /* joiners, and the symbols that are Other_Alphabetic: circled, squared and negative letters */
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
               (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    }
}

/* Characters of categories M, P and Cf that were assigned between Unicode 9 and 15 (DerivedAge.txt). */
static const struct { uint32_t first, last; } recent[] = {
    {0x61D, 0x61D}, {0x7FD, 0x7FD}, {0x890, 0x891}, {0x898, 0x89F}, {0x8CA, 0x8E2}, {0x9FD, 0x9FE}, {0xA76, 0xA76},
    {0xAFA, 0xAFF}, {0xB55, 0xB55}, {0xC04, 0xC04}, {0xC3C, 0xC3C}, {0xC77, 0xC77}, {0xC84, 0xC84}, {0xCF3, 0xCF3},
    {0xD00, 0xD00}, {0xD3B, 0xD3C}, {0xD81, 0xD81}, {0xEBA, 0xEBA}, {0xECE, 0xECE}, {0x1715, 0x1715},
    {0x180F, 0x180F}, {0x1ABF, 0x1ACE}, {0x1B7D, 0x1B7E}, {0x1CF7, 0x1CF7}, {0x1DF6, 0x1DFB}, {0x2E43, 0x2E4F},
    {0x2E52, 0x2E5D}, {0xA82C, 0xA82C}, {0xA8C5, 0xA8C5}, {0xA8FF, 0xA8FF}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAD},
    {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F55, 0x10F59}, {0x10F82, 0x10F89}, {0x11070, 0x11070},
    {0x11073, 0x11074}, {0x110C2, 0x110C2}, {0x110CD, 0x110CD}, {0x11145, 0x11146}, {0x111CE, 0x111CF},
    {0x1123E, 0x1123E}, {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x11435, 0x11446}, {0x1144B, 0x1144F},
    {0x1145A, 0x1145B}, {0x1145D, 0x1145E}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1182C, 0x1183B},
    {0x11930, 0x11935}, {0x11937, 0x11938}, {0x1193B, 0x1193E}, {0x11940, 0x11940}, {0x11942, 0x11946},
    {0x119D1, 0x119D7}, {0x119DA, 0x119E0}, {0x119E2, 0x119E2}, {0x119E4, 0x119E4}, {0x11A01, 0x11A0A},
    {0x11A33, 0x11A39}, {0x11A3B, 0x11A47}, {0x11A51, 0x11A5B}, {0x11A8A, 0x11A9C}, {0x11A9E, 0x11AA2},
    {0x11B00, 0x11B09}, {0x11C2F, 0x11C36}, {0x11C38, 0x11C3F}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71},
    {0x11C92, 0x11CA7}, {0x11CA9, 0x11CB6}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D},
    {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D8A, 0x11D8E}, {0x11D90, 0x11D91}, {0x11D93, 0x11D97},
    {0x11EF3, 0x11EF8}, {0x11F00, 0x11F01}, {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F4F},
    {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x13430, 0x13440}, {0x13447, 0x13455}, {0x16E97, 0x16E9A},
    {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE2, 0x16FE2}, {0x16FE4, 0x16FE4}, {0x16FF0, 0x16FF1},
    {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46}, {0x1E000, 0x1E006}, {0x1E008, 0x1E018}, {0x1E01B, 0x1E021},
    {0x1E023, 0x1E024}, {0x1E026, 0x1E02A}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E944, 0x1E94A}, {0x1E95E, 0x1E95F},
};

bool sl_unicode_is_recent(uint32_t c) {
    size_t low = 0, high = sizeof recent / sizeof *recent;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > recent[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < sizeof recent / sizeof *recent && c >= recent[low].first;
}
bool sl_unicode_is_plain(const char *text, size_t length) {
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        memcpy(&word, text + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    for (; i < length; i++)
        if ((unsigned char)text[i] >= 0xCC) return false; /* 0xCC 0x80 is U+0300, the first combining mark */
    return true;
}

/* Stable sort by canonical combining class of each run of non-starters (class > 0) in cps [n]. */
static bool reorder_marks(int32_t *cps, size_t n) {
    int32_t *scratch = NULL;
    size_t scratch_size = 0;
    for (size_t i = 0; i < n;) {
        if (utf8proc_get_property(cps[i])->combining_class == 0) { i++; continue; }
        size_t end = i + 1;
        bool sorted = true;
        int previous = utf8proc_get_property(cps[i])->combining_class;
        for (; end < n; end++) {
            int ccc = utf8proc_get_property(cps[end])->combining_class;
            if (ccc == 0) break;
            if (ccc < previous) sorted = false;
            previous = ccc;
        }
        if (!sorted) {
            size_t at[257] = {0}, run = end - i;
            if (run > scratch_size) {
                int32_t *grown = realloc(scratch, run * sizeof *grown);
                if (!grown) { free(scratch); return false; }
                scratch = grown;
                scratch_size = run;
            }
            for (size_t k = i; k < end; k++) at[utf8proc_get_property(cps[k])->combining_class + 1]++;
            for (int c = 0; c < 256; c++) at[c + 1] += at[c];
            for (size_t k = i; k < end; k++) scratch[at[utf8proc_get_property(cps[k])->combining_class]++] = cps[k];
            memcpy(cps + i, scratch, run * sizeof *cps);
        }
        i = end;
    }
    free(scratch);
    return true;
}

bool sl_unicode_normalize(sl_buffer *out, const char *text, size_t length, sl_normal_form form) {
    /* A code point decomposes to at most 18 (U+FDFA, compatibility) or 4 (canonical): grow as needed. */
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == SL_NFKC || form == SL_NFKD) options |= UTF8PROC_COMPAT;
    size_t capacity = length + 32, n = 0;
    int32_t *cps = malloc(capacity * sizeof *cps);
    bool ok = cps != NULL;
    for (size_t i = 0; ok && i < length;) {
        if (capacity - n < 32) {
            int32_t *grown = realloc(cps, (capacity * 2) * sizeof *cps);
            if (!grown) { ok = false; break; }
            cps = grown;
            capacity *= 2;
        }
        uint32_t c = sl_utf8_next(text, &i);
        int boundary = 0;
        utf8proc_ssize_t k = c < 0x80 ? 0
                                      : utf8proc_decompose_char((int32_t)c, cps + n, (utf8proc_ssize_t)(capacity - n),
                                                                options, &boundary);
        if (k <= 0 || k > (utf8proc_ssize_t)(capacity - n)) { cps[n++] = (int32_t)c; continue; }
        n += (size_t)k;
    }
    ok = ok && reorder_marks(cps, n);
    if (ok && (form == SL_NFC || form == SL_NFKC)) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(cps, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (k >= 0) n = (size_t)k;
    }
    ok = ok && sl_buffer_reserve(out, n);
    for (size_t i = 0; ok && i < n; i++) {
        char bytes[4];
        ok = sl_buffer_append(out, bytes, sl_utf8_encode((uint32_t)cps[i], bytes));
    }
    free(cps);
    return ok;
}

bool sl_unicode_lowercase(sl_buffer *out, const char *text, size_t length) {
    bool ok = sl_buffer_reserve(out, length);
    for (size_t i = 0; ok && i < length;) {
        uint32_t c = sl_utf8_next(text, &i);
        if (c < 0x80) {
            ok = sl_buffer_putc(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
        } else if (c == 0x130) { /* the one code point whose lower case is two */
            ok = sl_buffer_append(out, "i\xCC\x87", 3);
        } else {
            char bytes[4];
            ok = sl_buffer_append(out, bytes, sl_utf8_encode((uint32_t)utf8proc_tolower((int32_t)c), bytes));
        }
    }
    return ok;
}
