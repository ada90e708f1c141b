/* The lexer. White space control is Jinja's (environment options trim_blocks and lstrip_blocks on, one newline at the
 * end of the template dropped): "Whitespace Control" in the template designer documentation. */
#include "text/jinja_lex.h"

#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

typedef struct lexer {
    jinja *j;
    const char *text;
    size_t length, at;
    int line;
    jinja_token *tokens;
    size_t n, capacity;
    char *balance; /* the closing brackets that are awaited */
    size_t n_balance, balance_capacity;
    bool line_starting; /* the text before the data at hand ends with a newline */
} lexer;

static noreturn void fail(lexer *x, const char *message) {
    x->j->line = x->line;
    sl_jinja_fail(x->j, "TemplateSyntaxError", "%s", message);
}

static void push(lexer *x, jinja_token_kind kind, int line, jinja_value value) {
    if (x->n == x->capacity) {
        size_t capacity = x->capacity ? x->capacity * 2 : 256;
        jinja_token *tokens = sl_jinja_array(x->j, capacity, sizeof *tokens);
        if (x->n) memcpy(tokens, x->tokens, x->n * sizeof *tokens);
        x->tokens = tokens;
        x->capacity = capacity;
    }
    x->tokens[x->n++] = (jinja_token){kind, line, value};
}

static bool looking_at(const lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return x->length - at >= n && !memcmp(x->text + at, what, n);
}

/* The position after the white space at `at`. */
static size_t skip_space(const lexer *x, size_t at) {
    while (at < x->length) {
        uint32_t code;
        size_t n = sl_utf8_decode(x->text + at, x->length - at, &code, NULL);
        if (!sl_jinja_is_space(code)) break;
        at += n;
    }
    return at;
}

/* The end of text [from, to) without its trailing white space. */
static size_t trim_end(const lexer *x, size_t from, size_t to) {
    while (to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)x->text[start] & 0xC0) == 0x80) start--;
        uint32_t code;
        sl_utf8_decode(x->text + start, to - start, &code, NULL);
        if (!sl_jinja_is_space(code)) break;
        to = start;
    }
    return to;
}

static void count_lines(lexer *x, size_t from, size_t to) {
    for (const char *p = x->text + from, *end = x->text + to; (p = memchr(p, '\n', (size_t)(end - p))); p++) x->line++;
}

static void advance(lexer *x, size_t to) {
    count_lines(x, x->at, to);
    if (to > x->at) x->line_starting = x->text[to - 1] == '\n';
    x->at = to;
}

/* The data before a tag, after lstrip_blocks or the tag's sign had their way. `block`: not a variable tag. */
static void push_data(lexer *x, size_t from, size_t to, char sign, bool block) {
    size_t end = to;
    if (sign == '-') {
        end = trim_end(x, from, to);
    } else if (sign != '+' && block) {
        size_t line_start = to;
        while (line_start > from && x->text[line_start - 1] != '\n') line_start--;
        if ((line_start > from || x->line_starting) && line_start < to && skip_space(x, line_start) >= to)
            end = line_start;
    }
    if (end > from) push(x, JINJA_T_DATA, x->line, sl_jinja_str(x->j, x->text + from, end - from));
}

/* After "%}" or "#}": trim_blocks takes one newline. */
static size_t after_block(const lexer *x, size_t at) { return at < x->length && x->text[at] == '\n' ? at + 1 : at; }

/* Is there `[+-]? close` at `at`? *after: the position behind it, white space control applied. */
static bool closes(const lexer *x, size_t at, const char *close, size_t *after) {
    char sign = 0;
    if (at < x->length && (x->text[at] == '+' || x->text[at] == '-')) sign = x->text[at++];
    if (!looking_at(x, at, close)) return false;
    *after = at + 2;
    if (sign == '-') *after = skip_space(x, *after);
    else if (!sign) *after = after_block(x, *after);
    return true;
}

static void lex_comment(lexer *x) {
    for (size_t at = x->at; at < x->length; at++) {
        const char *next = memchr(x->text + at, '#', x->length - at);
        if (!next) break;
        at = (size_t)(next - x->text);
        size_t start = at > x->at && (x->text[at - 1] == '-' || x->text[at - 1] == '+') ? at - 1 : at, after;
        if (!closes(x, start, "#}", &after)) continue;
        advance(x, after);
        return;
    }
    fail(x, "Missing end of comment tag");
}

/* "{%- raw -%}" at `at`? *after: behind it. */
static bool opens_raw(const lexer *x, size_t at, size_t *after) {
    at += 2;
    if (at < x->length && (x->text[at] == '-' || x->text[at] == '+')) at++;
    at = skip_space(x, at);
    if (!looking_at(x, at, "raw")) return false;
    at = skip_space(x, at + 3);
    if (looking_at(x, at, "%}")) *after = at + 2;
    else if (looking_at(x, at, "-%}")) *after = skip_space(x, at + 3);
    else return false;
    return true;
}

static void lex_raw(lexer *x) {
    for (size_t at = x->at; at < x->length; at++) {
        const char *next = memchr(x->text + at, '{', x->length - at);
        if (!next) break;
        at = (size_t)(next - x->text);
        if (!looking_at(x, at, "{%")) continue;
        size_t tag = at + 2, after;
        char sign = 0;
        if (tag < x->length && (x->text[tag] == '-' || x->text[tag] == '+')) sign = x->text[tag++];
        tag = skip_space(x, tag);
        if (!looking_at(x, tag, "endraw")) continue;
        if (!closes(x, skip_space(x, tag + 6), "%}", &after)) continue;
        push_data(x, x->at, at, sign, true);
        advance(x, after);
        return;
    }
    fail(x, "Missing end of raw directive");
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* digits with single underscores between them, from `at`; returns the position behind, or `at`. */
static size_t skip_digits(const lexer *x, size_t at) {
    size_t end = at;
    while (end < x->length) {
        if (is_digit(x->text[end])) end++;
        else if (x->text[end] == '_' && end > at && end + 1 < x->length && is_digit(x->text[end + 1])) end++;
        else break;
    }
    return end;
}

static size_t float_end(const lexer *x, size_t at) {
    if (at > 0 && x->text[at - 1] == '.') return at;
    size_t end = skip_digits(x, at), best = at;
    if (end == at) return at;
    if (end + 1 < x->length && x->text[end] == '.' && is_digit(x->text[end + 1])) best = end = skip_digits(x, end + 1);
    if (end < x->length && (x->text[end] == 'e' || x->text[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < x->length && (x->text[exponent] == '+' || x->text[exponent] == '-')) exponent++;
        size_t stop = skip_digits(x, exponent);
        if (stop > exponent) best = stop;
    }
    return best;
}

static size_t radix_end(const lexer *x, size_t at, const char *digits) {
    size_t end = at;
    while (end < x->length) {
        size_t digit = x->text[end] == '_' ? end + 1 : end;
        if (digit >= x->length || !x->text[digit] || !strchr(digits, x->text[digit])) break;
        end = digit + 1;
    }
    return end;
}

static size_t integer_end(const lexer *x, size_t at, int *base) {
    *base = 10;
    if (x->text[at] != '0') return skip_digits(x, at);
    char mark = at + 1 < x->length ? x->text[at + 1] | 0x20 : 0;
    const char *digits = mark == 'x' ? "0123456789abcdefABCDEF" : mark == 'o' ? "01234567" : mark == 'b' ? "01" : NULL;
    if (digits) {
        size_t end = radix_end(x, at + 2, digits);
        if (end > at + 2) {
            *base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
            return end;
        }
    }
    return radix_end(x, at + 1, "0");
}

static bool lex_number(lexer *x) {
    size_t end = float_end(x, x->at);
    bool is_float = end > x->at;
    int base = 10;
    if (!is_float) end = integer_end(x, x->at, &base);
    jinja_text digits = {.j = x->j};
    for (size_t i = x->at; i < end; i++)
        if (x->text[i] != '_') sl_jinja_text_putc(&digits, x->text[i]);
    if (is_float) {
        double value;
        if (!sl_jinja_parse_float(x->j, digits.data, digits.length, &value)) fail(x, "invalid number");
        push(x, JINJA_T_FLOAT, x->line, sl_jinja_float(value));
    } else {
        push(x, JINJA_T_INTEGER, x->line, sl_jinja_parse_int(x->j, digits.data, digits.length, base == 10 ? 10 : 0));
    }
    advance(x, end);
    return true;
}

static bool is_name_code(uint32_t code) {
    if (code < 0x80) return code == '_' || (code | 0x20) - 'a' < 26 || code - '0' < 10;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return sl_jinja_is_word(code) || category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_PC || code == 0xB7 || code == 0x387;
}

static bool lex_name(lexer *x) {
    size_t at = x->at;
    while (at < x->length) {
        uint32_t code;
        size_t n = sl_utf8_decode(x->text + at, x->length - at, &code, NULL);
        if (!is_name_code(code)) break;
        at += n;
    }
    if (at == x->at) return false;
    push(x, JINJA_T_NAME, x->line, sl_jinja_str(x->j, x->text + x->at, at - x->at));
    advance(x, at);
    return true;
}

static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \xHH, \uHHHH, \UHHHHHHHH: `digits` of them at *at. */
static void unescape_hex(lexer *x, jinja_text *out, const char *text, size_t length, size_t *at, int digits) {
    uint32_t code = 0;
    for (int i = 0; i < digits; i++, ++*at) {
        int value = *at < length ? hex_value(text[*at]) : -1;
        if (value < 0) fail(x, "truncated escape in a string");
        code = code << 4 | (uint32_t)value;
    }
    if (code > 0x10FFFF) fail(x, "illegal Unicode character in a string");
    sl_jinja_text_code(out, code);
}

/* Behind a backslash. Python encodes to ASCII with backslashes before it unescapes, so that a backslash before another
 * script's letter swallows the backslash of that letter's escape; the same text comes out here. */
static void unescape(lexer *x, jinja_text *out, const char *text, size_t length, size_t *at) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    unsigned char c = (unsigned char)text[*at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (c >= 0x80) {
        uint32_t code;
        *at += sl_utf8_decode(text + *at, length - *at, &code, NULL);
        sl_jinja_text_printf(out, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
        return;
    }
    ++*at;
    if (simple) sl_jinja_text_putc(out, to[simple - from]);
    else if (c == '\n') return;
    else if (c == 'x') unescape_hex(x, out, text, length, at, 2);
    else if (c == 'u') unescape_hex(x, out, text, length, at, 4);
    else if (c == 'U') unescape_hex(x, out, text, length, at, 8);
    else if (c == 'N') fail(x, "\\N{...} escapes are not supported: write \\uXXXX");
    else if (c >= '0' && c <= '7') {
        uint32_t code = c - '0';
        for (int i = 0; i < 2 && *at < length && text[*at] >= '0' && text[*at] <= '7'; i++, ++*at)
            code = code * 8 + (uint32_t)(text[*at] - '0');
        sl_jinja_text_code(out, code);
    } else {
        sl_jinja_text_putc(out, '\\');
        sl_jinja_text_putc(out, (char)c);
    }
}

static void lex_string(lexer *x) {
    char quote = x->text[x->at];
    size_t end = x->at + 1;
    bool escapes = false;
    while (end < x->length && x->text[end] != quote) {
        if (x->text[end] == '\\') escapes = true, end++;
        end++;
    }
    if (end >= x->length) fail(x, "unexpected char: a string that does not end");
    const char *text = x->text + x->at + 1;
    size_t length = end - x->at - 1;
    jinja_value value;
    if (escapes) {
        jinja_text out = {.j = x->j};
        for (size_t at = 0; at < length;) {
            if (text[at] != '\\') sl_jinja_text_putc(&out, text[at++]);
            else if (++at < length) unescape(x, &out, text, length, &at);
        }
        value = sl_jinja_text_value(&out);
    } else {
        value = sl_jinja_str(x->j, text, length);
    }
    push(x, JINJA_T_STRING, x->line, value);
    advance(x, end + 1);
}

static void balance(lexer *x, char c) {
    const char *open = strchr("({[", c);
    if (open) {
        if (x->n_balance == x->balance_capacity) {
            size_t capacity = x->balance_capacity ? x->balance_capacity * 2 : 64;
            char *stack = sl_jinja_alloc(x->j, capacity);
            if (x->n_balance) memcpy(stack, x->balance, x->n_balance);
            x->balance = stack;
            x->balance_capacity = capacity;
        }
        x->balance[x->n_balance++] = c == '(' ? ')' : c == '{' ? '}' : ']';
    } else {
        char message[48] = "unexpected ' '";
        message[12] = c;
        if (!x->n_balance) fail(x, message);
        char expected = x->balance[--x->n_balance];
        if (expected == c) return;
        memcpy(message + 14, ", expected ' '", 15);
        message[26] = expected;
        fail(x, message);
    }
}

static void lex_operator(lexer *x) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = x->text[x->at];
    size_t n = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two && !n; i++)
        if (looking_at(x, x->at, two[i])) n = 2;
    if (!n && c && strchr("+-/*%~[](){}><=.:|,;", c)) n = 1;
    if (!n) {
        uint32_t code;
        sl_utf8_decode(x->text + x->at, x->length - x->at, &code, NULL);
        x->j->line = x->line;
        sl_jinja_fail(x->j, "TemplateSyntaxError",
                      code > 0x20 && code < 0x7f ? "unexpected char '%c'" : "unexpected char U+%04X", (int)code);
    }
    if (n == 1 && strchr("(){}[]", c)) balance(x, c);
    push(x, JINJA_T_OPERATOR, x->line, sl_jinja_str(x->j, x->text + x->at, n));
    advance(x, x->at + n);
}

/* Inside "{{ }}" or "{% %}", up to and with the closing mark. */
static void lex_code(lexer *x, bool block) {
    while (x->at < x->length) {
        size_t after;
        char c = x->text[x->at];
        if (!x->n_balance) {
            bool closed = false;
            if (block) closed = closes(x, x->at, "%}", &after);
            else if (looking_at(x, x->at, "}}")) closed = true, after = x->at + 2;
            else if (looking_at(x, x->at, "-}}")) closed = true, after = skip_space(x, x->at + 3);
            if (closed) {
                push(x, block ? JINJA_T_BLOCK_END : JINJA_T_VARIABLE_END, x->line, sl_jinja_none);
                advance(x, after);
                return;
            }
        }
        size_t space = skip_space(x, x->at);
        if (space > x->at) advance(x, space);
        else if (is_digit(c)) lex_number(x);
        else if (c == '\'' || c == '"') lex_string(x);
        else if (!lex_name(x)) lex_operator(x);
    }
}

/* The next "{%", "{{" or "{#" from `at`; the length when there is none. */
static size_t find_tag(const lexer *x, size_t at) {
    while (at < x->length) {
        const char *brace = memchr(x->text + at, '{', x->length - at);
        if (!brace) break;
        at = (size_t)(brace - x->text);
        if (at + 1 < x->length && (brace[1] == '%' || brace[1] == '{' || brace[1] == '#')) return at;
        at++;
    }
    return x->length;
}

static void lex_root(lexer *x) {
    size_t tag = find_tag(x, x->at), after;
    if (tag == x->length) {
        if (tag > x->at) push(x, JINJA_T_DATA, x->line, sl_jinja_str(x->j, x->text + x->at, tag - x->at));
        advance(x, tag);
        return;
    }
    char what = x->text[tag + 1], sign = tag + 2 < x->length ? x->text[tag + 2] : 0;
    if (sign != '-' && sign != '+') sign = 0;
    push_data(x, x->at, tag, sign, what != '{');
    if (what == '%' && opens_raw(x, tag, &after)) {
        advance(x, after);
        lex_raw(x);
        return;
    }
    advance(x, tag);
    int line = x->line;
    advance(x, tag + (sign ? 3 : 2));
    if (what == '#') {
        lex_comment(x);
        return;
    }
    push(x, what == '%' ? JINJA_T_BLOCK_BEGIN : JINJA_T_VARIABLE_BEGIN, line, sl_jinja_none);
    lex_code(x, what == '%');
}

/* "\r\n" and "\r" become "\n"; one newline at the end goes. */
static void normalise(lexer *x, const char *source, size_t length) {
    char *text = sl_jinja_alloc(x->j, length + 1);
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r') {
            if (i + 1 < length && source[i + 1] == '\n') i++;
            text[n++] = '\n';
        } else {
            text[n++] = source[i];
        }
    }
    if (n && text[n - 1] == '\n') n--;
    x->text = text;
    x->length = n;
}

jinja_token *sl_jinja_tokenize(jinja *j, const char *source, size_t length) {
    lexer x = {.j = j, .line = 1, .line_starting = true};
    j->line = 1;
    if (!sl_utf8_is_valid(source, length)) fail(&x, "the template is not valid UTF-8");
    normalise(&x, source, length);
    while (x.at < x.length) lex_root(&x);
    push(&x, JINJA_T_END, x.line, sl_jinja_none);
    return x.tokens;
}
