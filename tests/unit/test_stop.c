/* Stop strings and reasoning marks over streamed text: however the text is cut into pieces, what comes out is the same,
 * and never holds a part of a stop string. */
#include "base/rng.h"
#include "infer/reasoning.h"
#include "infer/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---------------------------------------------------------------- stop strings */

/* What should come out, the plain way: the first byte at which some stop string ends, the longest that ends there. */
static size_t expected_stop(const char *text, const char *const *stops, size_t n, ptrdiff_t *found) {
    for (size_t end = 1; end <= strlen(text); end++) {
        *found = -1;
        for (size_t i = 0; i < n; i++) {
            size_t length = strlen(stops[i]);
            if (length > end || memcmp(text + end - length, stops[i], length) != 0) continue;
            if (*found < 0 || length > strlen(stops[*found])) *found = (ptrdiff_t)i;
        }
        if (*found >= 0) return end - strlen(stops[*found]);
    }
    *found = -1;
    return strlen(text);
}

/* Is text[0..length) followed, from some place within it, by the beginning of a stop string that reaches its end? */
static size_t must_hold(const char *text, size_t length, const char *const *stops, size_t n) {
    for (size_t from = 0; from < length; from++)
        for (size_t i = 0; i < n; i++)
            if (length - from < strlen(stops[i]) && memcmp(text + from, stops[i], length - from) == 0)
                return length - from;
    return 0;
}

/* Feeds text in random pieces and compares with the plain way. */
static void stream(const char *text, const char *const *stops, size_t n, sl_rng *rng) {
    sl_stop stop;
    sl_buffer out = {0};
    ptrdiff_t found = -1, wanted;
    size_t length = strlen(text), at = 0, cut = expected_stop(text, stops, n, &wanted);
    assert_int_equal(sl_stop_init(&stop, stops, n, NULL), SLLM_OK);
    while (at < length && found < 0) {
        size_t piece = 1 + sl_rng_next(rng) % 4;
        if (piece > length - at) piece = length - at;
        assert_int_equal(sl_stop_push(&stop, text + at, piece, &out, &found, NULL), SLLM_OK);
        at += piece;
        /* All that is certain is out, and nothing else. */
        if (found < 0) assert_int_equal(out.length, at - must_hold(text, at, stops, n));
    }
    if (found < 0) assert_int_equal(sl_stop_finish(&stop, &out, NULL), SLLM_OK);
    assert_int_equal(found, wanted);
    assert_int_equal(out.length, cut);
    if (cut > 0) assert_memory_equal(out.data, text, cut);
    sl_buffer_free(&out);
    sl_stop_free(&stop);
}

static void stop_strings_by_hand(void **state) {
    (void)state;
    sl_rng rng;
    sl_rng_seed(&rng, 1);
    static const char *const stops[] = {"\n\nUser:", "</s>", "\xe2\x82\xac\xe2\x82\xac"};
    for (int i = 0; i < 50; i++) {
        stream("Hello\n\nUser: hi", stops, 3, &rng);
        stream("Hello\n\n\nUser: hi", stops, 3, &rng);
        stream("a < b </ c </s", stops, 3, &rng);
        stream("ten \xe2\x82\xac and \xe2\x82\xac\xe2\x82\xac more", stops, 3, &rng);
        stream("nothing here", NULL, 0, &rng);
        stream("", stops, 3, &rng);
    }
}

static void stop_strings_at_random(void **state) {
    (void)state;
    sl_rng rng;
    sl_rng_seed(&rng, 2);
    for (int round = 0; round < 4000; round++) {
        char text[40], strings[3][8];
        const char *stops[3];
        size_t n = 1 + sl_rng_next(&rng) % 3, length = sl_rng_next(&rng) % 39;
        for (size_t i = 0; i < length; i++) text[i] = "ab"[sl_rng_next(&rng) % 2];
        text[length] = 0;
        for (size_t i = 0; i < n; i++) {
            size_t m = 1 + sl_rng_next(&rng) % 7;
            for (size_t k = 0; k < m; k++) strings[i][k] = "ab"[sl_rng_next(&rng) % 2];
            strings[i][m] = 0;
            stops[i] = strings[i];
        }
        stream(text, stops, n, &rng);
    }
}

static void bad_stop_strings_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"fine", "", "\xff", NULL};
    for (size_t i = 1; i < 4; i++) {
        const char *pair[] = {bad[0], bad[i]};
        sl_stop stop;
        sllm_error error = {0};
        assert_int_equal(sl_stop_init(&stop, pair, 2, &error), SLLM_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "string 2"));
    }
    sl_stop stop;
    assert_int_equal(sl_stop_init(&stop, bad, SL_STOP_MAX + 1, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_stop_init(&stop, NULL, 1, NULL), SLLM_ERROR_ARGUMENT);
}

/* ---------------------------------------------------------------- reasoning */

static void split(const char *prompt, const char *text, const char *thought, const char *answer, bool seen) {
    sl_rng rng;
    sl_rng_seed(&rng, 3);
    for (int round = 0; round < 30; round++) {
        sl_reasoning reasoning;
        sl_buffer thoughts = {0}, answers = {0};
        sl_reasoning_init(&reasoning, prompt, strlen(prompt));
        for (size_t at = 0, length = strlen(text); at < length;) {
            size_t piece = 1 + sl_rng_next(&rng) % (round ? 5 : 1);
            if (piece > length - at) piece = length - at;
            assert_int_equal(sl_reasoning_push(&reasoning, text + at, piece, &thoughts, &answers, NULL), SLLM_OK);
            at += piece;
        }
        assert_int_equal(sl_reasoning_finish(&reasoning, &thoughts, &answers, NULL), SLLM_OK);
        assert_string_equal(thoughts.data ? thoughts.data : "", thought);
        assert_string_equal(answers.data ? answers.data : "", answer);
        assert_int_equal(reasoning.seen, seen);
        sl_reasoning_free(&reasoning);
        sl_buffer_free(&thoughts);
        sl_buffer_free(&answers);
    }
}

static void reasoning_is_split_off(void **state) {
    (void)state;
    split("", "<think>\nhm, 2 + 2\n</think>\n\nFour.", "hm, 2 + 2\n", "Four.", true);
    split("", "\n <think>x</think>y", "x", "y", true);
    split("", "[THINK]a </think> b[/THINK]c", "a </think> b", "c", true);
    split("", "<seed:think>1 < 2</seed:think>yes", "1 < 2", "yes", true);
    split("", "<think></think>Four.", "", "Four.", true);
    split("", "Four.", "", "Four.", false);
    split("", "  <th", "", "  <th", false);
    split("", "<thin air>", "", "<thin air>", false);
    split("", "The mark <think> begins, </think> ends.", "", "The mark <think> begins, </think> ends.", false);
    split("", "<think>a</think>b<think>c</think>", "a", "b<think>c</think>", true);
    split("", "<think>never closed </thin", "never closed </thin", "", true);
    split("", "", "", "", false);
}

static void the_prompt_may_open_the_block(void **state) {
    (void)state;
    split("<|im_start|>assistant\n<think>\n", "\nwell</think>\nyes", "well", "yes", true);
    split("<think>", "well", "well", "", true);
    /* Qwen3 with thinking off writes an empty block, which is closed. */
    split("<|im_start|>assistant\n<think>\n\n</think>\n\n", "yes", "", "yes", false);
    split("<think> is a mark", "yes", "", "yes", false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_strings_by_hand),         cmocka_unit_test(stop_strings_at_random),
        cmocka_unit_test(bad_stop_strings_are_refused), cmocka_unit_test(reasoning_is_split_off),
        cmocka_unit_test(the_prompt_may_open_the_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
