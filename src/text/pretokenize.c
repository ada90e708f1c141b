/* The pre-tokeniser steps of tokenizer.json: each cuts every piece it is given into smaller ones. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/work.h"

#include <string.h>

static bool keep(sl_scratch *work, size_t offset, size_t length) {
    if (!length) return true;
    if (work->n_next == work->next_capacity &&
        !sl_grow(&work->next_pieces, &work->next_capacity, work->n_next + 1, sizeof *work->next_pieces)) return false;
    work->next_pieces[work->n_next++] = (sl_piece){offset, length};
    return true;
}

/* Joins matches and the text between them to pieces as the behaviour asks. Segments arrive in order. */
typedef struct splitter {
    sl_scratch *work;
    sl_behaviour behaviour;
    size_t base;         /* offset of the piece being cut */
    size_t open, closed; /* [open, closed): a piece under construction, relative to base */
    bool open_match;     /* that piece is (ends in) a match */
} splitter;

static bool flush(splitter *s) {
    bool ok = keep(s->work, s->base + s->open, s->closed - s->open);
    s->open = s->closed;
    return ok;
}

static bool segment(splitter *s, size_t start, size_t end, bool match) {
    if (start == end) return true;
    bool ok = true;
    switch (s->behaviour) {
    case SL_REMOVED:
        s->open = start;
        s->closed = match ? start : end;
        ok = flush(s);
        s->open = s->closed = end;
        return ok;
    case SL_ISOLATED:
        s->open = start;
        s->closed = end;
        return flush(s);
    case SL_CONTIGUOUS:
        if (s->open < s->closed && s->open_match != match) ok = flush(s);
        s->closed = end;
        break;
    case SL_MERGED_PREVIOUS: /* a match joins the text before it, unless that is a match already */
        if (!match || s->open_match) ok = flush(s);
        s->closed = end;
        break;
    case SL_MERGED_NEXT: /* a match joins the text after it */
        if (match || !s->open_match) ok = flush(s);
        s->closed = end;
        break;
    }
    s->open_match = match;
    return ok;
}

static sllm_status split_regex(const sl_split_step *step, sl_scratch *work, splitter *s, const char *text,
                               size_t length, sllm_error *error) {
    if (!work->regex && !(work->regex = sl_regex_scratch_new())) return sl_fail_memory(error, "matching a pattern", 0);
    size_t done = 0, from = 0;
    while (from <= length) {
        size_t start, end;
        int found = sl_regex_find(step->regex, work->regex, text, length, from, &start, &end);
        if (found < 0)
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                           "the pre-tokeniser's pattern gave up on this text (PCRE2 error %d)", found);
        if (!found) break;
        if (end == start) { /* an empty match cuts nothing; look on behind the next character */
            if (start >= length) break;
            from = start + sl_utf8_width((unsigned char)text[start]);
            /* a cut at an empty match still separates its neighbours when pieces are isolated */
            if (start > done && step->behaviour == SL_ISOLATED) {
                if (!segment(s, done, start, step->invert)) return sl_fail_memory(error, "tokenising", length);
                done = start;
            }
            continue;
        }
        if (!segment(s, done, start, step->invert) || !segment(s, start, end, !step->invert))
            return sl_fail_memory(error, "tokenising", length);
        done = from = end;
    }
    if (!segment(s, done, length, step->invert) || !flush(s)) return sl_fail_memory(error, "tokenising", length);
    return SLLM_OK;
}

static bool split_string(const sl_split_step *step, splitter *s, const char *text, size_t length) {
    size_t done = 0;
    while (done < length && step->length) {
        const char *hit = memmem(text + done, length - done, step->text, step->length);
        if (!hit) break;
        size_t start = (size_t)(hit - text);
        if (!segment(s, done, start, step->invert) || !segment(s, start, start + step->length, !step->invert))
            return false;
        done = start + step->length;
    }
    return segment(s, done, length, step->invert) && flush(s);
}

/* BERT's punctuation: category P as of the Unicode version that the reference knows, and all of ASCII's symbols. */
static bool is_punctuation(uint32_t c) {
    if (c < 0x80) return sl_ascii_class[c] == SL_CHAR_SYMBOL || sl_ascii_class[c] == SL_CHAR_PUNCTUATION;
    return sl_unicode_is_punctuation(c) && !sl_unicode_is_recent(c);
}

/* What a character is to a step that cuts by class: 0 is text between matches, each other value a class of its own. */
static int class_for(const sl_split_step *step, uint32_t c) {
    switch (step->kind) {
    case SL_SPLIT_DIGITS: return sl_unicode_class(c) == SL_CHAR_NUMBER;
    case SL_SPLIT_PUNCTUATION: return is_punctuation(c);
    case SL_SPLIT_WHITESPACE_ONLY: return sl_unicode_is_space(c);
    case SL_SPLIT_BERT:
        if (sl_unicode_is_space(c)) return 1;
        return is_punctuation(c) ? 2 : 0;
    case SL_SPLIT_WHITESPACE:
        if (sl_unicode_is_space(c)) return 1;
        return sl_unicode_is_word(c) ? 0 : 2;
    default: {
        uint32_t delimiter;
        return sl_utf8_decode(step->text, step->length, &delimiter, NULL) == step->length && delimiter == c;
    }
    }
}

/* Cuts between runs of a class, or around each character of a class that stands alone. */
static bool split_class(const sl_split_step *step, splitter *s, const char *text, size_t length) {
    size_t start = 0;
    int previous = -1;
    for (size_t at = 0; at < length;) {
        size_t here = at;
        int class = class_for(step, sl_utf8_next(text, &at));
        bool alone = false;
        switch (step->kind) {
        case SL_SPLIT_DIGITS: alone = class && step->individual; break;
        case SL_SPLIT_WHITESPACE: alone = false; break;
        default: alone = class != 0; break;
        }
        if (here > start && (class != previous || alone)) {
            bool drop = previous == 1 && (step->kind == SL_SPLIT_WHITESPACE || step->kind == SL_SPLIT_BERT);
            s->behaviour = drop ? SL_REMOVED : step->behaviour;
            bool match = previous != 0 && !(step->kind == SL_SPLIT_WHITESPACE && previous == 2);
            if (!segment(s, start, here, match)) return false;
            start = here;
        }
        previous = class;
    }
    bool drop = previous == 1 && (step->kind == SL_SPLIT_WHITESPACE || step->kind == SL_SPLIT_BERT);
    s->behaviour = drop ? SL_REMOVED : step->behaviour;
    bool match = previous != 0 && !(step->kind == SL_SPLIT_WHITESPACE && previous == 2);
    return segment(s, start, length, match) && flush(s);
}

static bool split_fixed(const sl_split_step *step, splitter *s, const char *text, size_t length) {
    size_t start = 0, count = 0;
    for (size_t at = 0; at < length;) {
        at += sl_utf8_width((unsigned char)text[at]);
        if (++count < step->length && at < length) continue;
        if (!segment(s, start, at, true)) return false;
        start = at;
        count = 0;
    }
    return true;
}

/* Steps that change the text: every piece is written anew behind the others. */
static bool rewrite_pieces(const sl_split_step *step, sl_scratch *work, bool first) {
    sl_buffer *out = &work->other;
    out->length = 0;
    for (size_t i = 0; i < work->n_pieces; i++) {
        const char *text = work->text.data + work->pieces[i].offset;
        size_t length = work->pieces[i].length, begin = out->length;
        if (step->kind == SL_SPLIT_PREFIX_SPACE || step->kind == SL_SPLIT_LETTERS) {
            bool letters = step->kind == SL_SPLIT_LETTERS;
            if (!letters && text[0] != ' ') sl_buffer_putc(out, ' ');
            if (letters) sl_letters_of_bytes(text, length, out);
            else sl_buffer_append(out, text, length);
            if (out->failed || !keep(work, begin, out->length - begin)) return false;
            continue;
        }
        bool marked = text[0] == ' ' || (length >= step->length && !memcmp(text, step->text, step->length));
        bool wanted = step->prepend && (!step->prepend_first || (first && i == 0 && work->pieces[i].offset == 0));
        if (wanted && !marked) sl_buffer_append(out, step->text, step->length);
        for (size_t k = 0; k < length;) {
            const char *blank = memchr(text + k, ' ', length - k);
            size_t end = blank ? (size_t)(blank - text) : length;
            sl_buffer_append(out, text + k, end - k);
            if (blank) sl_buffer_append(out, step->text, step->length);
            k = end + (blank != NULL);
        }
        if (out->failed) return false;
        splitter s = {.work = work, .behaviour = step->split ? SL_MERGED_NEXT : SL_CONTIGUOUS, .base = begin};
        sl_split_step cut = *step;
        if (!step->split) cut.length = 0;
        if (!split_string(&cut, &s, out->data + begin, out->length - begin)) return false;
    }
    sl_buffer swapped = work->text;
    work->text = work->other;
    work->other = swapped;
    return true;
}

static sllm_status run_step(const sl_split_step *step, sl_scratch *work, bool first, sllm_error *error) {
    work->n_next = 0;
    if (step->kind == SL_SPLIT_METASPACE || step->kind == SL_SPLIT_PREFIX_SPACE || step->kind == SL_SPLIT_LETTERS)
        return rewrite_pieces(step, work, first) ? SLLM_OK : sl_fail_memory(error, "tokenising", work->text.length);
    for (size_t i = 0; i < work->n_pieces; i++) {
        size_t offset = work->pieces[i].offset, length = work->pieces[i].length;
        const char *text = work->text.data + offset;
        splitter s = {.work = work, .behaviour = step->behaviour, .base = offset};
        bool ok = true;
        switch (step->kind) {
        case SL_SPLIT_SCAN:
            for (size_t at = 0, end; ok && at < length; at = end) {
                end = sl_scan_next(&step->scan, text, length, at);
                ok = keep(work, offset + at, end - at);
            }
            break;
        case SL_SPLIT_REGEX: {
            sllm_status status = split_regex(step, work, &s, text, length, error);
            if (status != SLLM_OK) return status;
            break;
        }
        case SL_SPLIT_STRING: ok = split_string(step, &s, text, length); break;
        case SL_SPLIT_FIXED: ok = split_fixed(step, &s, text, length); break;
        default: ok = split_class(step, &s, text, length); break;
        }
        if (!ok) return sl_fail_memory(error, "tokenising", length);
    }
    return SLLM_OK;
}

sllm_status sl_pretokenize(const sl_tokenizer *tokenizer, sl_scratch *work, bool first, sllm_error *error) {
    work->n_next = 0;
    if (!keep(work, 0, work->text.length)) return sl_fail_memory(error, "tokenising", work->text.length);
    for (size_t i = 0; i <= tokenizer->n_split; i++) {
        sl_piece *pieces = work->pieces;
        size_t capacity = work->pieces_capacity;
        work->pieces = work->next_pieces;
        work->n_pieces = work->n_next;
        work->pieces_capacity = work->next_capacity;
        work->next_pieces = pieces;
        work->next_capacity = capacity;
        if (i == tokenizer->n_split) break;
        sllm_status status = run_step(&tokenizer->split[i], work, first, error);
        if (status != SLLM_OK) return status;
    }
    return SLLM_OK;
}
