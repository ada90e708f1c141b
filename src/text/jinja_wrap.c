/* The filter wordwrap: Python's textwrap.wrap on every line, tabs and other white space left as they are. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>
#include <utf8proc.h>

typedef struct wrapper {
    jinja *j;
    const uint32_t *text; /* the line's code points */
    size_t length;
    int64_t width;
    bool break_words, break_hyphens;
    size_t *chunks; /* [n + 1] where the pieces begin, the last: the end */
    size_t n;
    jinja_text *out;
    const jinja_string *newline;
    bool any; /* a line was written already */
} wrapper;

static bool is_blank(uint32_t c) { return c == ' ' || (c >= 9 && c <= 13); }
static bool is_letter(const wrapper *w, size_t i) {
    return i < w->length && sl_jinja_is_word(w->text[i]) &&
           utf8proc_category((utf8proc_int32_t)w->text[i]) != UTF8PROC_CATEGORY_ND;
}
static bool is_word_or_mark(const wrapper *w, size_t i) {
    return i < w->length &&
           (sl_jinja_is_word(w->text[i]) || (w->text[i] < 0x80 && w->text[i] && strchr("!\"'&.,?", (int)w->text[i])));
}
static bool is_dash(const wrapper *w, size_t i) { return i < w->length && w->text[i] == '-'; }

/* Two dashes or more at i, then a word: the position of the word, 0 otherwise. */
static size_t em_dash(const wrapper *w, size_t i) {
    size_t end = i;
    while (is_dash(w, end)) end++;
    return end - i >= 2 && end < w->length && sl_jinja_is_word(w->text[end]) ? end : 0;
}

/* May the word break behind the hyphen at i? Two letters (or letter, hyphen, mark) before and two letters after. */
static bool breaks_after_hyphen(const wrapper *w, size_t i) {
    bool before = (i >= 2 && is_letter(w, i - 2) && is_letter(w, i - 1)) ||
                  (i >= 3 && is_letter(w, i - 3) && is_dash(w, i - 2) && is_word_or_mark(w, i - 1));
    return before && is_letter(w, i + 1) && (is_letter(w, i + 2) || (is_dash(w, i + 2) && is_letter(w, i + 3)));
}

/* The end of the piece that begins at i (textwrap's wordsep_re). */
static size_t piece_end(const wrapper *w, size_t i) {
    size_t end = i;
    if (is_blank(w->text[i])) {
        while (end < w->length && is_blank(w->text[end])) end++;
        return end;
    }
    if (!w->break_hyphens) {
        while (end < w->length && !is_blank(w->text[end])) end++;
        return end;
    }
    if (i && is_word_or_mark(w, i - 1) && (end = em_dash(w, i))) return end;
    for (end = i + 1; end < w->length && !is_blank(w->text[end]); end++) {
        if (is_dash(w, end) && breaks_after_hyphen(w, end)) return end + 1;
        if (is_word_or_mark(w, end - 1) && em_dash(w, end)) return end;
    }
    return end;
}

static void split(wrapper *w) {
    w->chunks = sl_jinja_array(w->j, w->length + 1, sizeof *w->chunks);
    w->n = 0;
    for (size_t i = 0; i < w->length; i = piece_end(w, i)) w->chunks[w->n++] = i;
    w->chunks[w->n] = w->length;
}

static bool blank_piece(const wrapper *w, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (!sl_jinja_is_space(w->text[i])) return false;
    return true;
}

/* How much of a word that is too long goes on this line. */
static size_t cut_word(const wrapper *w, size_t from, size_t to, size_t room) {
    if (!w->break_hyphens || to - from <= room) return from + room < to ? from + room : to;
    bool other = false;
    size_t best = 0;
    for (size_t i = from; i < from + room; i++) {
        if (is_dash(w, i) && other) best = i + 1;
        other = other || !is_dash(w, i);
    }
    return best ? best : from + room;
}

static void write_line(wrapper *w, size_t from, size_t to) {
    if (w->any) sl_jinja_text_append(w->out, w->newline->data, w->newline->length);
    w->any = true;
    for (size_t i = from; i < to; i++) sl_jinja_text_code(w->out, w->text[i]);
}

/* Pieces are neighbours, so a line is one stretch [start, at). */
static void wrap(wrapper *w) {
    size_t i = 0, width = (size_t)w->width;
    bool first = true;
    while (i < w->n) {
        if (!first && blank_piece(w, w->chunks[i], w->chunks[i + 1]) && ++i == w->n) break;
        size_t start = w->chunks[i], at = start, last = start; /* last: where the line's last piece begins */
        for (; i < w->n && w->chunks[i + 1] - start <= width; i++) {
            last = w->chunks[i];
            at = w->chunks[i + 1];
        }
        if (i < w->n && w->chunks[i + 1] - w->chunks[i] > width) {
            if (w->break_words) {
                size_t cut = cut_word(w, at, w->chunks[i + 1], width - (at - start));
                if (cut > at) last = at;
                w->chunks[i] = at = cut;
                if (cut == w->chunks[i + 1]) i++;
            } else if (at == start) {
                last = start;
                at = w->chunks[++i];
            }
        }
        if (blank_piece(w, last, at)) at = last;
        if (at > start) {
            write_line(w, start, at);
            first = false;
        }
    }
}

static void wrap_line(wrapper *w, const jinja_string *line) {
    uint32_t *text = sl_jinja_array(w->j, line->length + 1, sizeof *text);
    w->length = 0;
    for (size_t at = 0; at < line->length;)
        at += sl_utf8_decode(line->data + at, line->length - at, &text[w->length++], NULL);
    w->text = text;
    w->any = false;
    sl_jinja_charge(w->j, line->length / 16);
    split(w);
    wrap(w);
}

jinja_value sl_jinja_wordwrap(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[4];
    sl_jinja_bind(j, "wordwrap", args,
                  (const char *const[]){"width", "break_long_words", "wrapstring", "break_on_hyphens"}, 4, 0, a);
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (!jinja_is_str(v))
        sl_jinja_fail(j, "AttributeError", "'%s' object has no attribute 'splitlines'", sl_jinja_type_name(v));
    jinja_text out = {.j = j};
    bool given = a[2].type != JINJA_MISSING && a[2].type != JINJA_NONE;
    wrapper w = {.j = j, .out = &out, .width = a[0].type == JINJA_MISSING ? 79 : sl_jinja_index(j, a[0])};
    w.break_words = a[1].type == JINJA_MISSING || sl_jinja_truth(j, a[1]);
    w.break_hyphens = a[3].type == JINJA_MISSING || sl_jinja_truth(j, a[3]);
    if (given && !jinja_is_str(a[2])) sl_jinja_fail(j, "TypeError", "wrapstring must be a str");
    w.newline = given ? a[2].as.string : sl_jinja_literal(j, "\n").as.string;
    jinja_value lines = sl_jinja_splitlines(j, v, false);
    for (size_t i = 0; i < lines.as.list->length; i++) {
        if (w.width <= 0) sl_jinja_fail(j, "ValueError", "invalid width %lld (must be > 0)", (long long)w.width);
        if (i) sl_jinja_text_append(&out, w.newline->data, w.newline->length);
        wrap_line(&w, lines.as.list->items[i].as.string);
    }
    return sl_jinja_text_value(&out);
}
