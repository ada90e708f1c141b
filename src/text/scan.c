/* The published pre-tokeniser patterns, written out by hand: one pass over the text, classes looked up once a
 * character. Each is tested against its regular expression on random strings (tests/unit/test_tokenizer.c). */
#include "text/parts.h"

#include <string.h>

/* What the patterns distinguish, as bits so that "one of" is a mask. */
enum { OTHER = 1, SPACE = 2, NUMBER = 4, UPPER = 8, LOWER = 16, LETTER = 32, MARK = 64 };
enum { LETTERS = UPPER | LOWER | LETTER };

static const uint8_t class_bits[] = {
    [SL_CHAR_OTHER] = OTHER, [SL_CHAR_PUNCTUATION] = OTHER, [SL_CHAR_SYMBOL] = OTHER, [SL_CHAR_SPACE] = SPACE,
    [SL_CHAR_NUMBER] = NUMBER, [SL_CHAR_MARK] = MARK, [SL_CHAR_UPPER] = UPPER, [SL_CHAR_LOWER] = LOWER,
    [SL_CHAR_LETTER] = LETTER};

/* Class bits of the character at `at` and, in *next, where the following one begins. */
static inline unsigned class_at(const char *text, size_t at, size_t *next) {
    unsigned char c = (unsigned char)text[at];
    if (c < 0x80) {
        *next = at + 1;
        return class_bits[sl_ascii_class[c]];
    }
    *next = at;
    uint32_t code_point = sl_utf8_next(text, next);
    return class_bits[sl_unicode_class(code_point)];
}

/* The end of the run of characters whose class is in mask. */
static inline size_t run_of(const char *text, size_t length, size_t at, unsigned mask) {
    size_t next;
    while (at < length && (class_at(text, at, &next) & mask)) at = next;
    return at;
}

/* 's 't 'm 'd 're 've 'll at text[at] == '\''; the end of it, or 0. With `fold`, case does not matter, and neither
 * does U+017F for s, which case folding makes equal to it. */
static size_t contraction(const char *text, size_t length, size_t at, bool fold) {
    if (at + 1 >= length) return 0;
    unsigned char a = (unsigned char)text[at + 1], b = at + 2 < length ? (unsigned char)text[at + 2] : 0;
    if (fold) {
        if (a == 0xC5 && b == 0xBF) return at + 3;
        if (a >= 'A' && a <= 'Z') a |= 0x20;
        if (b >= 'A' && b <= 'Z') b |= 0x20;
    }
    switch (a) {
    case 's': case 't': case 'm': case 'd': return at + 2;
    case 'r': case 'v': return b == 'e' ? at + 3 : 0;
    case 'l': return b == 'l' ? at + 3 : 0;
    default: return 0;
    }
}

/* \s+(?!\S)|\s+ for the run of white space [at, end): all of it at the end of the text, else all but its last
 * character, which goes with what follows. */
static size_t blank_piece(const char *text, size_t length, size_t at, size_t end) {
    if (end == length) return end;
    size_t last = end - 1;
    while (last > at && ((unsigned char)text[last] & 0xC0) == 0x80) last--;
    return last > at ? last : end;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+   (openai/gpt-2) */
static size_t scan_gpt2(const sl_scan *scan, const char *text, size_t length, size_t at) {
    size_t next, end;
    unsigned class = class_at(text, at, &next);
    if (text[at] == '\'' && (end = contraction(text, length, at, false))) return end;
    if (scan->isolate_digits) {
        if (class == NUMBER) return next;
        if (class == SPACE) { /* a digit after the blanks ends the text that the pattern sees */
            end = run_of(text, length, at, SPACE);
            if (end < length && (class_at(text, end, &next) & NUMBER)) return end;
            class_at(text, at, &next);
        }
    }
    if (text[at] == ' ' && next < length) {
        size_t after;
        unsigned following = class_at(text, next, &after);
        if (following != SPACE) {
            class = following;
            next = after;
        }
    }
    if (class & LETTERS) return run_of(text, length, next, LETTERS);
    if (class & NUMBER) return run_of(text, length, next, NUMBER);
    if (class & (OTHER | MARK)) return run_of(text, length, next, OTHER | MARK);
    return blank_piece(text, length, at, run_of(text, length, at, SPACE));
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at white space. */
static size_t blanks_and_lines(const char *text, size_t length, size_t at) {
    size_t end = at, next, line = 0;
    while (end < length && class_at(text, end, &next) == SPACE) {
        if (text[end] == '\n' || text[end] == '\r') line = next;
        end = next;
    }
    return line ? line : blank_piece(text, length, at, end);
}

/*  ?[^\s\p{L}\p{N}]+[\r\n]* from a character of that class; with slash, [\r\n/]*. */
static size_t marks_and_lines(const char *text, size_t length, size_t at, unsigned mask, bool slash) {
    at = run_of(text, length, at, mask);
    while (at < length && (text[at] == '\r' || text[at] == '\n' || (slash && text[at] == '/'))) at++;
    return at;
}

static size_t number_piece(const sl_scan *scan, const char *text, size_t length, size_t at) {
    size_t next;
    if (!scan->digits) return run_of(text, length, at, NUMBER);
    for (int n = 1; n < scan->digits && at < length && (class_at(text, at, &next) & NUMBER); n++) at = next;
    return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * (Llama 3; with one digit Qwen 2; with marks as letters Qwen 3.5) */
static size_t scan_llama3(const sl_scan *scan, const char *text, size_t length, size_t at) {
    size_t next, end, after;
    unsigned letters = scan->marks ? LETTERS | MARK : LETTERS, others = OTHER | (scan->marks ? 0 : MARK);
    unsigned class = class_at(text, at, &next);
    if (class & letters) {
        /* Qwen 3.5: [^\r\n\p{L}\p{N}]? may take a mark, which is also a letter here: the same run either way. */
        return run_of(text, length, next, letters);
    }
    if (class == NUMBER) return number_piece(scan, text, length, next);
    char c = text[at];
    if (c == '\'' && scan->contractions && (end = contraction(text, length, at, true))) return end;
    if (next < length && c != '\r' && c != '\n') {
        unsigned following = class_at(text, next, &after);
        if (following & letters) return run_of(text, length, after, letters);
        if (c == ' ' && (following & others)) return marks_and_lines(text, length, after, others, scan->slash);
    }
    if (class & others) return marks_and_lines(text, length, next, others, scan->slash);
    return blanks_and_lines(text, length, at);
}

size_t sl_scan_next(const sl_scan *scan, const char *text, size_t length, size_t at) {
    switch (scan->kind) {
    case SL_SCAN_LLAMA3: return scan_llama3(scan, text, length, at);
    default: return scan_gpt2(scan, text, length, at);
    }
}

bool sl_scan_of_pattern(const char *pattern, size_t length, sl_scan *scan) {
    static const struct { const char *pattern; sl_scan scan; } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", {.kind = SL_SCAN_GPT2}},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         {.kind = SL_SCAN_LLAMA3, .digits = 3, .contractions = true}},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         {.kind = SL_SCAN_LLAMA3, .digits = 1, .contractions = true}},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]"
         "+[\\r\\n]*|"
         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         {.kind = SL_SCAN_LLAMA3, .digits = 1, .contractions = true, .marks = true}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].pattern) == length && !memcmp(known[i].pattern, pattern, length)) {
            *scan = known[i].scan;
            return true;
        }
    }
    return false;
}
