/* Regular expressions of tokenizer.json, which are written for Oniguruma, run by PCRE2. The two agree on nearly all of
 * what such patterns use; what differs is rewritten here. */
#include "base/error.h"
#include "text/parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct sl_regex {
    pcre2_code *code;
    bool jit;
};

/* White_Space, which PCRE2's \s (with UCP) is but for U+180E. */
#define SPACE_SET                                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Bytes of the POSIX class ("[:alpha:]") that begins at pattern[at] inside a character class; 0: there is none. */
static size_t posix_class(const char *pattern, size_t length, size_t at) {
    size_t end = at + 2;
    if (at + 1 >= length || pattern[at + 1] != ':') return 0;
    while (end < length && (pattern[end] == '^' || (pattern[end] >= 'a' && pattern[end] <= 'z'))) end++;
    return end + 1 < length && pattern[end] == ':' && pattern[end + 1] == ']' ? end + 2 - at : 0;
}

/* \s and \S to White_Space; \h (a hexadecimal digit in Oniguruma). Sets within a class ("[a[b]]", "[a&&b]") are literal
 * characters to PCRE2, so they are refused. */
static sllm_status translate(const char *pattern, size_t length, const char *what, sl_buffer *out, sllm_error *error) {
    bool in_class = false;
    for (size_t i = 0; i < length; i++) {
        char c = pattern[i];
        if (c == '\\' && i + 1 < length) {
            char e = pattern[++i];
            if (e == 's') sl_buffer_puts(out, in_class ? SPACE_SET : "[" SPACE_SET "]");
            else if (e == 'S' && !in_class) sl_buffer_puts(out, "[^" SPACE_SET "]");
            else if (e == 'h') sl_buffer_puts(out, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
            else sl_buffer_append(out, pattern + i - 1, 2);
            continue;
        }
        size_t posix = c == '[' && in_class ? posix_class(pattern, length, i) : 0;
        if (posix) {
            sl_buffer_append(out, pattern + i, posix);
            i += posix - 1;
            continue;
        }
        if (c == '[' && in_class)
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                           "%s: a class within a class ([a[b]]) in a pattern is not supported; write a bracket as \\[",
                           what);
        if (c == '&' && in_class && i + 1 < length && pattern[i + 1] == '&')
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: intersection (&&) in a pattern is not supported", what);
        if (c == '[') {
            in_class = true;
            sl_buffer_putc(out, c);
            if (i + 1 < length && pattern[i + 1] == '^') sl_buffer_putc(out, pattern[++i]);
            if (i + 1 < length && pattern[i + 1] == ']') { sl_buffer_puts(out, "\\]"); i++; }
            continue;
        }
        if (c == ']') in_class = false;
        sl_buffer_putc(out, c);
    }
    return out->failed ? sl_fail_memory(error, what, length) : SLLM_OK;
}

sllm_status sl_regex_compile(const char *pattern, size_t length, const char *what, sl_regex **regex,
                             sllm_error *error) {
    *regex = NULL;
    sl_buffer text = {0};
    sl_regex *made = calloc(1, sizeof *made);
    sllm_status status;
    int code = 0;
    PCRE2_SIZE at = 0;
    status = made ? translate(pattern, length, what, &text, error) : sl_fail_memory(error, what, length);
    if (status != SLLM_OK) goto done;
    /* \C would match a byte, and cut characters. */
    made->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.length,
                               PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!made->code && code == PCRE2_ERROR_NOMEMORY) {
        status = sl_fail_memory(error, what, length);
    } else if (!made->code) {
        char message[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        status =
            sl_fail(error, SLLM_ERROR_FORMAT, "%s: the pattern does not compile: %s at %zu", what, message, (size_t)at);
    } else {
        made->jit = pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE) == 0; /* without it, the interpreter runs */
    }
done:
    sl_buffer_free(&text);
    if (status == SLLM_OK) *regex = made;
    else sl_regex_free(made);
    return status;
}

void sl_regex_free(sl_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free(regex);
}

typedef struct regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} regex_scratch;

void *sl_regex_scratch_new(void) {
    regex_scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch) return NULL;
    scratch->data = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, NULL);
    if (!scratch->data || !scratch->context || !scratch->stack) {
        sl_regex_scratch_free(scratch);
        return NULL;
    }
    pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    return scratch;
}

void sl_regex_scratch_free(void *memory) {
    regex_scratch *scratch = memory;
    if (!scratch) return;
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    free(scratch);
}

int sl_regex_find(const sl_regex *regex, void *memory, const char *text, size_t length, size_t from, size_t *start,
                  size_t *end) {
    regex_scratch *scratch = memory;
    int found = regex->jit ? pcre2_jit_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK,
                                             scratch->data, scratch->context)
                           : pcre2_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, scratch->data,
                                         scratch->context);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    if (found < 0) return found;
    PCRE2_SIZE *ends = pcre2_get_ovector_pointer(scratch->data);
    *start = ends[0];
    *end = ends[1];
    if (*start < from) *start = from; /* \K in a lookbehind can move it back */
    if (*end < *start) *end = *start; /* \K in a lookahead can turn them round */
    return 1;
}
