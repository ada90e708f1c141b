/* Tokenizers: hand-written scanners against their regular expressions, hostile vocabularies, long inputs, streaming,
 * failed allocations. What ids are right is settled by the golden data (tests/golden/kind_tokenizers.c). */
#include "unit/fail_alloc.h"

#include "base/file.h"
#include "base/utf8.h"
#include "text/parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static sl_buffer read_case(const char *name) {
    char path[1024];
    sl_buffer text = {0};
    sllm_error error = {0};
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/fuzz_tokenizer_json/%s", SLLM_SOURCE_DIR, name);
    assert_int_equal(sl_file_read(path, 1 << 24, &text, &error), SLLM_OK);
    return text;
}

/* The tokenizer of a case file, whose first line is a text. */
static sl_tokenizer *load_case(const char *name) {
    sl_buffer text = read_case(name);
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    const char *json = strchr(text.data, '\n') + 1;
    if (sl_tokenizer_from_json(json, text.length - (size_t)(json - text.data), NULL, 0, &tokenizer, &error) != SLLM_OK)
        fail_msg("%s: %s", name, error.message);
    sl_buffer_free(&text);
    return tokenizer;
}

static uint64_t random_state = 88172645463325252u;
static uint32_t random_below(uint32_t n) { /* xorshift64: the same strings in every run */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % n;
}

/* ---------------------------------------------------------------- scanners */

/* Characters of every class and all that patterns name, so that random strings reach every branch. */
static size_t random_text(char *out, size_t characters) {
    static const char *const pieces[] = {
        "a", "b", "S", "T", "s", "t", "m", "d", "re", "ve", "ll", "LL", "'", "'", "'s", "'\xC5\xBF", " ", " ", "  ",
        "\n", "\r", "\t", "1", "2", "34", "\xD9\xA3", "\xE2\x85\xA7", ".", ",", "/", "!", "-", "_", "\xC3\xA9",
        "\xC3\x89", "\xC7\x85", "\xCA\xB0", "\xE4\xB8\xAD", "\xED\x95\x9C", "\xE0\xA4\x95", "\xE0\xA4\xBF", "\xCC\x81",
        "\xE2\x83\xA3", "\xC2\xA0", "\xC2\x85", "\xE3\x80\x80", "\xE2\x80\xA8", "\xF0\x9F\x98\x80", "\xE2\x80\x8D",
        "\xE2\x80\x8B", "\xEF\xBB\xBF", "\xE1\xA0\x8E", "<", "|", "$"};
    size_t n = 0;
    for (size_t i = 0; i < characters; i++) {
        const char *piece = pieces[random_below(sizeof pieces / sizeof *pieces)];
        memcpy(out + n, piece, strlen(piece));
        n += strlen(piece);
    }
    return n;
}

static void compare_scanner(const char *pattern, bool isolate_digits) {
    sl_regex *regex;
    sl_scan scan;
    sllm_error error = {0};
    void *scratch = sl_regex_scratch_new();
    char text[512];
    assert_true(sl_scan_of_pattern(pattern, strlen(pattern), &scan));
    assert_int_equal(sl_regex_compile(pattern, strlen(pattern), "test", &regex, &error), SLLM_OK);
    scan.isolate_digits = isolate_digits;
    for (int round = 0; round < 40000; round++) {
        size_t length = random_text(text, 1 + random_below(14));
        for (size_t at = 0; at < length;) {
            size_t limit = length, start, end, got = sl_scan_next(&scan, text, length, at);
            if (isolate_digits) { /* the pattern sees the text up to the next digit, or one digit */
                limit = at;
                while (limit < length) {
                    size_t next = limit;
                    bool digit = sl_unicode_class(sl_utf8_next(text, &next)) == SL_CHAR_NUMBER;
                    if (digit && limit > at) break;
                    limit = next;
                    if (digit) break;
                }
            }
            assert_int_equal(sl_regex_find(regex, scratch, text, limit, at, &start, &end), 1);
            if (start != at || end != got)
                fail_msg("'%.*s' at %zu: scanner ends at %zu, pattern at %zu", (int)length, text, at, got, end);
            at = got;
        }
    }
    sl_regex_scratch_free(scratch);
    sl_regex_free(regex);
}

#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static void scanners_equal_their_patterns(void **state) {
    (void)state;
    compare_scanner("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", false);
    compare_scanner("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", true);
    compare_scanner(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL,
        false);
    compare_scanner(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL, false);
    compare_scanner(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]"
        "+[\\r\\n]*" TAIL,
        false);
}

/* ---------------------------------------------------------------- patterns */

/* Compiles pattern; where that works, it matches all of text. */
static void check_pattern(const char *pattern, sllm_status wanted, const char *text) {
    sl_regex *regex;
    sllm_error error = {0};
    size_t start, end;
    sllm_status status = sl_regex_compile(pattern, strlen(pattern), "test", &regex, &error);
    if (status != wanted) fail_msg("%s: status %d (%s)", pattern, status, error.message);
    if (status != SLLM_OK) return;
    void *scratch = sl_regex_scratch_new();
    if (sl_regex_find(regex, scratch, text, strlen(text), 0, &start, &end) != 1 || start || end != strlen(text))
        fail_msg("%s does not match all of '%s'", pattern, text);
    sl_regex_scratch_free(scratch);
    sl_regex_free(regex);
}

/* What Oniguruma and PCRE2 read differently is rewritten or refused. */
static void patterns_mean_what_oniguruma_reads(void **state) {
    (void)state;
    check_pattern("[a[bc]]+", SLLM_ERROR_UNSUPPORTED, NULL);
    check_pattern("[^a-z&&[^b]]", SLLM_ERROR_UNSUPPORTED, NULL);
    check_pattern("[a-z&&b]", SLLM_ERROR_UNSUPPORTED, NULL);
    check_pattern("[[:alpha:][b]]", SLLM_ERROR_UNSUPPORTED, NULL);
    check_pattern("[[:", SLLM_ERROR_UNSUPPORTED, NULL);
    check_pattern("a&&b", SLLM_OK, "a&&b");
    check_pattern("[&]&", SLLM_OK, "&&");
    check_pattern("[a\\[b]+", SLLM_OK, "a[b");
    check_pattern("[[:alpha:]\\s]+", SLLM_OK, "a \xE3\x80\x80" "b");
    check_pattern("[[:^alpha:]\\h]+", SLLM_OK, "1a");
    check_pattern("[]a]+[b]", SLLM_OK, "a]b");
}

/* ---------------------------------------------------------------- unicode */

static void check_form(sl_normal_form form, const char *text, const char *wanted) {
    sl_buffer out = {0};
    assert_true(sl_unicode_normalize(&out, text, strlen(text), form));
    assert_int_equal(out.length, strlen(wanted));
    assert_memory_equal(out.data, wanted, out.length);
    sl_buffer_free(&out);
}

static void normal_forms(void **state) { /* examples of Unicode Standard Annex 15 */
    (void)state;
    check_form(SL_NFC, "e\xCC\x81", "\xC3\xA9");
    check_form(SL_NFD, "\xC3\xA9", "e\xCC\x81");
    check_form(SL_NFKC, "\xEF\xAC\x81", "fi");
    check_form(SL_NFKD, "\xC2\xB5", "\xCE\xBC");
    check_form(SL_NFD, "\xEA\xB0\x81", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8");         /* Hangul */
    check_form(SL_NFC, "a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81");                     /* marks change places */
    check_form(SL_NFC, "\xE1\xBA\x9B\xCC\xA3", "\xE1\xBA\x9B\xCC\xA3");                 /* figure 6 */
    check_form(SL_NFKC, "\xE1\xBA\x9B\xCC\xA3", "\xE1\xB9\xA9");
}

/* ---------------------------------------------------------------- tables */

/* Which keys of a table collide must not follow from the file: tables of the same keys lie differently. */
static void tables_cannot_be_foreseen(void **state) {
    (void)state;
    sl_pairs pairs[2] = {0};
    sl_trie tries[2] = {0};
    for (int k = 0; k < 2; k++) {
        assert_true(sl_pairs_init(&pairs[k], 256));
        for (int32_t i = 0; i < 256; i++) sl_pairs_put(&pairs[k], i, i + 1, (uint32_t)i, i + 2);
        for (int i = 0; i < 256; i++) assert_true(sl_trie_add(&tries[k], (char[]){'a', 'b', (char)i}, 3, i));
        for (int32_t i = 0; i < 256; i++) {
            int32_t value = -1;
            const sl_pair *pair = sl_pairs_find(&pairs[k], i, i + 1);
            assert_true(pair && pair->id == i + 2);
            assert_int_equal(sl_trie_longest(&tries[k], (char[]){'a', 'b', (char)i, 'c'}, 4, &value), 3);
            assert_int_equal(value, i);
        }
    }
    assert_int_equal(pairs[0].mask, pairs[1].mask);
    assert_memory_not_equal(pairs[0].slots, pairs[1].slots, (pairs[0].mask + 1) * sizeof *pairs[0].slots);
    assert_int_equal(tries[0].mask, tries[1].mask);
    assert_memory_not_equal(tries[0].edges, tries[1].edges, (tries[0].mask + 1) * sizeof *tries[0].edges);
    for (int k = 0; k < 2; k++) {
        free(pairs[k].slots);
        free(pairs[k].filter);
        sl_trie_free(&tries[k]);
    }
}

/* ---------------------------------------------------------------- long inputs */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void long_inputs_take_linear_time(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level", "sentence", "wordpiece", "unigram"};
    static const char *const units[] = {"a",    " ",  "ab", "hell", "<", "\xCC\x80\xCC\x96", "\xE4\xB8\xAD",
                                        "\xFF", "\n", "1",  "'"};
    size_t size = 1 << 20;
    char *text = malloc(size);
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        sl_tokenizer *tokenizer = load_case(names[k]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t width = strlen(units[u]);
            sl_ids ids = {0};
            sllm_error error = {0};
            for (size_t i = 0; i < size; i++) text[i] = units[u][i % width];
            double start = seconds();
            assert_int_equal(
                sl_tokenizer_encode(tokenizer, NULL, text, size - size % width, SLLM_TOKENIZE_SPECIAL, &ids, &error),
                SLLM_OK);
            if (seconds() - start > 10)
                fail_msg("%s: 1 MB of '%s' takes %.1f s", names[k], units[u], seconds() - start);
            free(ids.data);
        }
        sl_tokenizer_free(tokenizer);
    }
    free(text);
}

/* ---------------------------------------------------------------- what callers see */

static void specials_and_affixes(void **state) {
    (void)state;
    sl_tokenizer *tokenizer = load_case("byte_level");
    sl_ids ids = {0};
    sl_buffer out = {0};
    sllm_error error = {0};
    int32_t end = sl_tokenizer_find(tokenizer, "<|end|>", 7), hello = sl_tokenizer_find(tokenizer, "hello", 5);
    assert_true(end >= 0 && hello >= 0);
    assert_true(sl_tokenizer_is_special(tokenizer, end));
    assert_int_equal(sl_tokenizer_encode(tokenizer, NULL, "hello<|end|>", 12, SLLM_TOKENIZE_SPECIAL | SLLM_TOKENIZE_ADD,
                                         &ids, &error),
                     SLLM_OK);
    assert_int_equal(ids.length, 3);
    assert_int_equal(ids.data[0], end);
    assert_int_equal(ids.data[1], hello);
    assert_int_equal(ids.data[2], end);
    assert_int_equal(sl_tokenizer_decode(tokenizer, ids.data, ids.length, true, &out, &error), SLLM_OK);
    assert_string_equal(out.data, "hello");
    ids.length = 0;
    assert_int_equal(sl_tokenizer_encode(tokenizer, NULL, "<|end|>", 7, 0, &ids, &error), SLLM_OK);
    assert_int_equal(ids.length, 7); /* stays text: one token a letter */
    assert_int_equal(sl_tokenizer_decode(tokenizer, &(int32_t){-1}, 1, false, &out, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_tokenizer_decode(tokenizer, &(int32_t){100000}, 1, false, &out, &error), SLLM_ERROR_ARGUMENT);
    assert_null(sl_tokenizer_text(tokenizer, -1));
    assert_null(sl_tokenizer_text(tokenizer, 100000));
    free(ids.data);
    sl_buffer_free(&out);
    sl_tokenizer_free(tokenizer);
}

static void streams_never_hand_out_half_a_character(void **state) {
    (void)state;
    sl_tokenizer *tokenizer = load_case("sentence");
    sl_decoder *decoder;
    sl_buffer out = {0}, whole = {0};
    sllm_error error = {0};
    assert_int_equal(sl_decoder_new(tokenizer, false, &decoder, &error), SLLM_OK);
    for (int round = 0; round < 2000; round++) {
        int32_t ids[24];
        size_t n = 1 + random_below(24);
        out.length = whole.length = 0;
        for (size_t i = 0; i < n; i++) {
            size_t before = out.length;
            ids[i] = (int32_t)random_below((uint32_t)sl_tokenizer_size(tokenizer));
            if (random_below(2)) ids[i] = 3 + (int32_t[]){0xE4, 0xB8, 0xAD, 0xF0}[random_below(4)];
            assert_int_equal(sl_decoder_push(decoder, ids[i], &out, &error), SLLM_OK);
            assert_true(out.length == before || sl_utf8_is_valid(out.data + before, out.length - before));
        }
        assert_int_equal(sl_decoder_finish(decoder, &out, &error), SLLM_OK);
        assert_int_equal(sl_tokenizer_decode(tokenizer, ids, n, false, &whole, &error), SLLM_OK);
        assert_int_equal(out.length, whole.length);
        if (out.length) assert_memory_equal(out.data, whole.data, out.length);
        sl_decoder_reset(decoder);
    }
    sl_decoder_free(decoder);
    sl_buffer_free(&out);
    sl_buffer_free(&whole);
    sl_tokenizer_free(tokenizer);
}

/* ---------------------------------------------------------------- bad files */

static void refuse(const char *json, sllm_status wanted, const char *named) {
    sl_tokenizer *tokenizer = (sl_tokenizer *)1;
    sllm_error error = {0};
    assert_int_equal(sl_tokenizer_from_json(json, strlen(json), NULL, 0, &tokenizer, &error), wanted);
    assert_null(tokenizer);
    if (!strstr(error.message, named)) fail_msg("\"%s\" does not name %s", error.message, named);
}

static void bad_files_are_named(void **state) {
    (void)state;
    refuse("[]", SLLM_ERROR_FORMAT, "model");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", SLLM_ERROR_FORMAT, "merges");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", SLLM_ERROR_FORMAT, "\"b\"");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", SLLM_ERROR_FORMAT, "merges[0]");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}", SLLM_ERROR_FORMAT,
           "2000000000");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", SLLM_ERROR_FORMAT, "-1");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", SLLM_ERROR_FORMAT, "empty");
    refuse("{\"model\":{\"type\":\"Telepathy\",\"vocab\":{\"a\":0}}}", SLLM_ERROR_UNSUPPORTED, "Telepathy");
    refuse(
        "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
        "\"merges\":[]}}",
        SLLM_ERROR_UNSUPPORTED, "UnicodeScripts");
    refuse(
        "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"////fwAA\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
        "\"merges\":[]}}",
        SLLM_ERROR_FORMAT, "precompiled_charsmap");
    refuse("{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
           SLLM_ERROR_UNSUPPORTED, "CTC");
    refuse("{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", SLLM_ERROR_UNSUPPORTED,
           "dropout");
    refuse(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},"
        "\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"a\":0},\"merges\":[]}}",
        SLLM_ERROR_FORMAT, "pattern");
    refuse(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\C\"},\"behavior\":\"Isolated\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
        SLLM_ERROR_FORMAT, "\\C");
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    assert_int_equal(sl_tokenizer_from_path(SLLM_SOURCE_DIR "/src", &tokenizer, &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "tokenizer.json"));
}

/* ---------------------------------------------------------------- memory */

/* Every allocation of loading, encoding and decoding fails once: SLLM_ERROR_MEMORY each time, and nothing leaks (the
 * sanitizers see to that). PCRE2 falls back to its interpreter when compiling to machine code fails, so such a failure
 * may also go unnoticed. */
static sllm_status run_case(const char *json, size_t length, const char *text, size_t text_length) {
    sl_tokenizer *tokenizer = NULL;
    sl_tokenizer_cache *cache = NULL;
    sllm_error error = {0};
    sl_ids ids = {0};
    sl_buffer out = {0};
    sllm_status status = sl_tokenizer_from_json(json, length, NULL, 0, &tokenizer, &error);
    if (status == SLLM_OK) status = sl_tokenizer_cache_new(tokenizer, &cache, &error);
    if (status == SLLM_OK)
        status = sl_tokenizer_encode(tokenizer, cache, text, text_length, SLLM_TOKENIZE_SPECIAL | SLLM_TOKENIZE_ADD,
                                     &ids, &error);
    if (status == SLLM_OK) status = sl_tokenizer_decode(tokenizer, ids.data, ids.length, false, &out, &error);
    sl_buffer_free(&out);
    free(ids.data);
    sl_tokenizer_cache_free(cache);
    sl_tokenizer_free(tokenizer);
    return status;
}

static void failed_allocations_are_reported(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level", "sentence", "wordpiece", "unigram", "split"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        sl_buffer text = read_case(names[k]);
        const char *json = strchr(text.data, '\n') + 1;
        size_t length = text.length - (size_t)(json - text.data), text_length = (size_t)(json - text.data) - 1;
        assert_int_equal(run_case(json, length, text.data, text_length), SLLM_OK);
        bool hit = true;
        for (long n = 1; hit; n++) {
            fail_alloc_arm(n, false);
            sllm_status status = run_case(json, length, text.data, text_length);
            hit = fail_alloc_disarm();
            if (hit && status != SLLM_ERROR_MEMORY && status != SLLM_OK)
                fail_msg("%s: allocation %ld gives status %d", names[k], n, status);
        }
        sl_buffer_free(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanners_equal_their_patterns), cmocka_unit_test(normal_forms),
        cmocka_unit_test(patterns_mean_what_oniguruma_reads), cmocka_unit_test(tables_cannot_be_foreseen),
        cmocka_unit_test(specials_and_affixes), cmocka_unit_test(streams_never_hand_out_half_a_character),
        cmocka_unit_test(bad_files_are_named), cmocka_unit_test(long_inputs_take_linear_time),
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
