/* The normaliser steps of tokenizer.json, and SentencePiece's own normaliser (sentencepiece, normalizer.cc). */
#include "base/error.h"
#include "base/utf8.h"
#include "text/work.h"

#include <string.h>

/* ---------------------------------------------------------------- SentencePiece's compiled map */

sllm_status sl_charsmap_open(const unsigned char *blob, size_t size, sl_charsmap *map, sllm_error *error) {
    uint32_t trie_bytes;
    if (size < 4) return sl_fail(error, SLLM_ERROR_FORMAT, "precompiled_charsmap: %zu bytes are too few", size);
    memcpy(&trie_bytes, blob, 4);
    if (trie_bytes % 4 || trie_bytes > size - 4)
        return sl_fail(error, SLLM_ERROR_FORMAT, "precompiled_charsmap: a trie of %u bytes does not fit into %zu",
                       trie_bytes, size);
    map->units = (const uint32_t *)(const void *)(blob + 4);
    map->n_units = trie_bytes / 4;
    map->texts = (const char *)blob + 4 + trie_bytes;
    map->n_texts = size - 4 - trie_bytes;
    if (map->n_texts && map->texts[map->n_texts - 1] != 0)
        return sl_fail(error, SLLM_ERROR_FORMAT, "precompiled_charsmap: the last text does not end");
    if (!sl_utf8_is_valid(map->texts, map->n_texts))
        return sl_fail(error, SLLM_ERROR_FORMAT, "precompiled_charsmap: the replacements are not UTF-8");
    return SLLM_OK;
}

/* A character begins at text[at], or the text ends there. */
static bool is_boundary(const char *text, size_t length, size_t at) {
    return at >= length || ((unsigned char)text[at] & 0xC0) != 0x80;
}

/* Longest key that begins text, and its replacement; 0: none. The units are those of the Darts-clone double array:
 * bit 31 of a child marks a leaf's value, bits 10.. the offset (bit 9: shifted by 8), bits 0-7 and 31 the label.
 * A key or a replacement that would cut a character in two is passed over: every later step counts on UTF-8. */
static size_t charsmap_longest(const sl_charsmap *map, const char *text, size_t length, const char **replacement) {
    size_t best = 0, node = 0;
    if (!map->n_units) return 0;
    uint32_t unit = map->units[0];
    node ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        node ^= byte;
        if (!byte || node >= map->n_units) break;
        unit = map->units[node];
        if ((unit & ((1u << 31) | 0xFF)) != byte) break;
        node ^= (unit >> 10) << ((unit & (1u << 9)) >> 6);
        if (unit >> 8 & 1) {
            if (node >= map->n_units) break;
            uint32_t value = map->units[node] & 0x7FFFFFFFu;
            if (value >= map->n_texts) break;
            if (!is_boundary(text, length, i + 1) || !is_boundary(map->texts, map->n_texts, value)) continue;
            best = i + 1;
            *replacement = map->texts + value;
        }
    }
    return best;
}

/* One step of SentencePiece's normaliser: how much of text it takes and what that becomes. */
static size_t normalize_prefix(const sl_normalize_step *step, const char *text, size_t length, const char **out,
                               size_t *out_length) {
    int32_t id;
    size_t n = step->keep ? sl_trie_longest(step->keep, text, length, &id) : 0;
    if (n) {
        *out = text;
        *out_length = n;
        return n;
    }
    n = charsmap_longest(&step->charsmap, text, length, out);
    if (n) {
        *out_length = strlen(*out);
        return n;
    }
    *out = text;
    *out_length = sl_utf8_width((unsigned char)text[0]);
    return *out_length;
}

static bool sentencepiece(const sl_normalize_step *step, const char *text, size_t length, sl_buffer *out) {
    const char *blank = step->escape ? "\xE2\x96\x81" : " ", *piece;
    size_t blank_length = step->escape ? 3 : 1, n, at = 0;
    if (step->collapse) {
        while (at < length) {
            size_t taken = normalize_prefix(step, text + at, length - at, &piece, &n);
            if (n != 1 || piece[0] != ' ') break;
            at += taken;
        }
    }
    if (at == length) return true;
    size_t begin = out->length;
    if (step->dummy_prefix) sl_buffer_append(out, blank, blank_length);
    bool after_blank = step->collapse;
    while (at < length && !out->failed) {
        at += normalize_prefix(step, text + at, length - at, &piece, &n);
        for (; after_blank && n && *piece == ' '; piece++, n--) continue;
        if (n) {
            bool ends_blank = false;
            for (size_t i = 0; i < n; i++) {
                ends_blank = piece[i] == ' ';
                if (ends_blank) sl_buffer_append(out, blank, blank_length);
                else sl_buffer_putc(out, piece[i]);
            }
            after_blank = ends_blank;
        }
        if (!step->collapse) after_blank = false;
    }
    if (step->collapse)
        while (out->length - begin >= blank_length &&
               !memcmp(out->data + out->length - blank_length, blank, blank_length))
            out->length -= blank_length;
    return !out->failed;
}

/* ---------------------------------------------------------------- the steps of tokenizer.json */

static bool charsmap_text(const sl_charsmap *map, const char *text, size_t length, sl_buffer *out) {
    const char *replacement;
    for (size_t at = 0; at < length;) {
        size_t n = charsmap_longest(map, text + at, length - at, &replacement);
        if (n) {
            sl_buffer_puts(out, replacement);
        } else {
            n = sl_utf8_width((unsigned char)text[at]);
            sl_buffer_append(out, text + at, n);
        }
        at += n;
    }
    return !out->failed;
}

static bool drop_marks(const char *text, size_t length, sl_buffer *out, bool nonspacing_only) {
    for (size_t at = 0; at < length;) {
        size_t here = at;
        uint32_t c = sl_utf8_next(text, &at);
        bool drop = c >= 0x300 && (nonspacing_only ? sl_unicode_is_nonspacing(c) : sl_unicode_is_mark(c)) &&
                    !sl_unicode_is_recent(c);
        if (!drop) sl_buffer_append(out, text + here, at - here);
    }
    return !out->failed;
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* google-research/bert, tokenization.py: clean_text, blanks around Chinese characters, accents, case. */
static bool bert(const sl_normalize_step *step, const char *text, size_t length, sl_buffer *out) {
    sl_buffer a = {0}, b = {0};
    for (size_t at = 0; at < length;) {
        size_t here = at;
        uint32_t c = sl_utf8_next(text, &at);
        bool blank = sl_unicode_is_space(c);
        if (step->clean_text) {
            bool line = c == '\t' || c == '\n' || c == '\r';
            if (c == 0 || c == 0xFFFD || (!line && sl_unicode_is_control(c) && !sl_unicode_is_recent(c))) continue;
            if (blank || line) {
                sl_buffer_putc(&a, ' ');
                continue;
            }
        }
        bool chinese = step->chinese && is_chinese(c);
        if (chinese) sl_buffer_putc(&a, ' ');
        sl_buffer_append(&a, text + here, at - here);
        if (chinese) sl_buffer_putc(&a, ' ');
    }
    bool ok = !a.failed;
    if (ok && step->strip_accents && a.length) {
        ok = sl_unicode_normalize(&b, a.data, a.length, SL_NFD);
        a.length = 0;
        ok = ok && drop_marks(b.data ? b.data : "", b.length, &a, true);
    }
    ok = ok && (step->lowercase ? sl_unicode_lowercase(out, a.data ? a.data : "", a.length)
                                : sl_buffer_append(out, a.data ? a.data : "", a.length));
    sl_buffer_free(&a);
    sl_buffer_free(&b);
    return ok;
}

/* Control and other characters that the NMT data preparation drops or turns into blanks. */
static bool nmt(const char *text, size_t length, sl_buffer *out) {
    for (size_t at = 0; at < length;) {
        size_t here = at;
        uint32_t c = sl_utf8_next(text, &at);
        if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) continue;
        if (c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
            c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD) {
            sl_buffer_putc(out, ' ');
            continue;
        }
        sl_buffer_append(out, text + here, at - here);
    }
    return !out->failed;
}

static sllm_status replace(const sl_normalize_step *step, sl_scratch *work, const char *text, size_t length,
                           sl_buffer *out, sllm_error *error) {
    void *scratch = work ? work->regex : NULL;
    if (step->regex && !scratch) {
        scratch = sl_regex_scratch_new();
        if (!scratch) return sl_fail_memory(error, "matching a pattern", 0);
        if (work) work->regex = scratch;
    }
    sllm_status status = SLLM_OK;
    size_t done = 0, from = 0;
    while (from <= length) {
        size_t start, end;
        if (step->regex) {
            int found = sl_regex_find(step->regex, scratch, text, length, from, &start, &end);
            if (found < 0) {
                status = sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                                 "the normaliser's pattern gave up on this text (PCRE2 error %d)", found);
                break;
            }
            if (!found) break;
        } else {
            const char *hit =
                step->pattern_length ? memmem(text + from, length - from, step->pattern, step->pattern_length) : NULL;
            if (!hit) break;
            start = (size_t)(hit - text);
            end = start + step->pattern_length;
        }
        sl_buffer_append(out, text + done, start - done);
        sl_buffer_append(out, step->content, step->content_length);
        done = end;
        from = end > start ? end : start < length ? start + sl_utf8_width((unsigned char)text[start]) : length + 1;
    }
    sl_buffer_append(out, text + done, length - done);
    if (step->regex && !work) sl_regex_scratch_free(scratch);
    if (status == SLLM_OK && out->failed) return sl_fail_memory(error, "normalising", length);
    return status;
}

static bool strips(const sl_normalize_step *step, uint32_t c) {
    return step->blanks_only ? c == ' ' : sl_unicode_is_space(c);
}

static bool strip(const sl_normalize_step *step, const char *text, size_t length, sl_buffer *out) {
    size_t from = 0, to = length;
    while (step->left && from < to) {
        size_t next = from;
        if (!strips(step, sl_utf8_next(text, &next))) break;
        from = next;
    }
    while (step->right && to > from) {
        size_t before = to;
        while (before > from && ((unsigned char)text[--before] & 0xC0) == 0x80) continue;
        size_t next = before;
        if (!strips(step, sl_utf8_next(text, &next))) break;
        to = before;
    }
    return sl_buffer_append(out, text + from, to - from);
}

sllm_status sl_normalize(const sl_normalize_step *step, sl_scratch *work, const char *text, size_t length,
                         sl_buffer *out, sllm_error *error) {
    bool ok = sl_buffer_reserve(out, length + 4);
    if (!ok) return sl_fail_memory(error, "normalising", length);
    switch (step->kind) {
    case SL_NORMALIZE_FORM: ok = sl_unicode_normalize(out, text, length, step->form); break;
    case SL_NORMALIZE_LOWERCASE: ok = sl_unicode_lowercase(out, text, length); break;
    case SL_NORMALIZE_STRIP_ACCENTS: ok = drop_marks(text, length, out, false); break;
    case SL_NORMALIZE_STRIP: ok = strip(step, text, length, out); break;
    case SL_NORMALIZE_REPLACE: return replace(step, work, text, length, out, error);
    case SL_NORMALIZE_PREPEND:
        ok = (!length || sl_buffer_append(out, step->content, step->content_length)) &&
             sl_buffer_append(out, text, length);
        break;
    case SL_NORMALIZE_BERT: ok = bert(step, text, length, out); break;
    case SL_NORMALIZE_CHARSMAP: ok = charsmap_text(&step->charsmap, text, length, out); break;
    case SL_NORMALIZE_NMT: ok = nmt(text, length, out); break;
    case SL_NORMALIZE_BYTE_LEVEL: ok = sl_letters_of_bytes(text, length, out); break;
    case SL_NORMALIZE_SENTENCEPIECE: ok = sentencepiece(step, text, length, out); break;
    }
    return ok ? SLLM_OK : sl_fail_memory(error, "normalising", length);
}
