/* Ground floor: JSON, buffers, maps, UTF-8, files, random numbers, checksums. */
#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "unit/fail_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

static void test_error_is_one_line(void **state) {
    (void)state;
    sllm_error error;
    assert_int_equal(sl_fail(&error, SLLM_ERROR_FORMAT, "a\nb\x1b[2J"), SLLM_ERROR_FORMAT);
    assert_string_equal(error.message, "a b [2J");
    assert_int_equal(sl_error_prefix(&error, SLLM_ERROR_FORMAT, "file %d", 3), SLLM_ERROR_FORMAT);
    assert_string_equal(error.message, "file 3: a b [2J");
    assert_int_equal(sl_fail(NULL, SLLM_ERROR_IO, "x"), SLLM_ERROR_IO);
}

static void test_arena(void **state) {
    (void)state;
    sl_arena arena = {.limit = 1000};
    unsigned char *a = sl_arena_alloc(&arena, 10), *b = sl_arena_alloc(&arena, 900);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal((uintptr_t)b % 16, 0);
    for (int i = 0; i < 900; i++) assert_int_equal(b[i], 0);
    assert_null(sl_arena_alloc(&arena, 100));
    assert_null(sl_arena_array(&arena, SIZE_MAX / 2, 3));
    sl_arena_free(&arena);
    assert_non_null(sl_arena_alloc(&arena, 100));
    sl_arena_free(&arena);
}

static void test_map(void **state) {
    (void)state;
    sl_map map = {.seed = 42};
    static char keys[5000][8];
    uint64_t value = 7;
    assert_false(sl_map_get(&map, "x", 1, &value));
    for (int i = 0; i < 5000; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        assert_true(sl_map_put(&map, keys[i], strlen(keys[i]), (uint64_t)i));
    }
    for (int i = 0; i < 5000; i++) {
        assert_true(sl_map_get(&map, keys[i], strlen(keys[i]), &value));
        assert_int_equal(value, i);
    }
    assert_true(sl_map_put(&map, "k7", 2, 99));
    assert_int_equal(map.count, 5000);
    assert_true(sl_map_get(&map, "k7", 2, &value));
    assert_int_equal(value, 99);
    assert_false(sl_map_get(&map, "k", 1, &value));
    assert_false(sl_map_get(&map, "k7\0", 3, &value));
    sl_map_free(&map);
}

/* Parses and writes back. */
static void assert_json(const char *text, size_t length, const char *expected) {
    sl_arena arena = {0};
    sl_buffer out = {0};
    const sl_json *root;
    sllm_error error;
    assert_int_equal(sl_json_parse(&arena, text, length, "test", &root, &error), SLLM_OK);
    sl_json_write_value(&out, root);
    assert_string_equal(out.data, expected);
    sl_buffer_free(&out);
    sl_arena_free(&arena);
}

static void test_json_keeps(void **state) {
    (void)state;
#define JSON(in, out) assert_json(in, sizeof in - 1, out)
    JSON("123456789012345678901234567890", "123456789012345678901234567890");
    JSON(" -0.10e+5 ", "-0.10e+5");
    JSON("\"a\\u0000b\"", "\"a\\u0000b\"");
    JSON("null", "null");
    JSON("[1,{\"a\":[],\"b\":{}},true]", "[1,{\"a\":[],\"b\":{}},true]");
    JSON("\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"");
    JSON("\"\\ud83d!\"", "\"\xef\xbf\xbd!\"");
    JSON("\"\\ude00\\ud83d\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    JSON("\"\\\\ud83d\"", "\"\\\\ud83d\"");
    JSON("\"\\ud83d\\ud83d\\ude00\"", "\"\xef\xbf\xbd\xf0\x9f\x98\x80\"");
}

static void test_json_access(void **state) {
    (void)state;
    sl_arena arena = {0};
    const sl_json *root;
    const char text[] = "{\"a\":{\"b\":[1,2.5,\"x\\u0000\"]},\"n\":9223372036854775808,\"a2\":1,\"a2\":2}";
    int64_t n;
    double d;
    assert_int_equal(sl_json_parse(&arena, text, sizeof text - 1, "t", &root, NULL), SLLM_OK);
    const sl_json *b = sl_json_get_path(root, "a.b");
    assert_int_equal(b->length, 3);
    assert_true(sl_json_int64(sl_json_at(b, 0), &n) && n == 1);
    assert_false(sl_json_int64(sl_json_at(b, 1), &n));
    assert_true(sl_json_double(sl_json_at(b, 1), &d) && d == 2.5);
    assert_null(sl_json_string(sl_json_at(b, 2)));
    assert_null(sl_json_at(b, 3));
    assert_false(sl_json_int64(sl_json_get(root, "n"), &n));
    assert_true(sl_json_int64(sl_json_get(root, "a2"), &n) && n == 2);
    assert_null(sl_json_get(root, "zzz"));
    assert_null(sl_json_get(NULL, "a"));
    sl_arena_free(&arena);
}

static void test_json_refuses(void **state) {
    (void)state;
    static char deep[1200];
    memset(deep, '[', 600);
    memset(deep + 600, ']', 600);
    struct { const char *text; size_t length; const char *says; } cases[] = {
        {"", 0, "t: line 1"},         {"{\"a\":}", 6, "line 1"},     {"[1,\n 2,,]", 9, "line 2"},
        {"\"\xff\"", 3, "t: line 1"},  {"1 2", 3, "t: line 1"},       {deep, sizeof deep, "deeper than 512"},
        {"\"\\u12\"", 6, "t: line 1"}, {"nul", 3, "t"},               {"[1", 2, "t"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_arena arena = {0};
        const sl_json *root;
        sllm_error error;
        assert_int_equal(sl_json_parse(&arena, cases[i].text, cases[i].length, "t", &root, &error), SLLM_ERROR_FORMAT);
        assert_null(root);
        assert_non_null(strstr(error.message, cases[i].says));
        sl_arena_free(&arena);
    }
}

static void test_json_out_of_memory(void **state) {
    (void)state;
    const char text[] = "{\"k\":[\"text \\n with escapes\",12345,{\"deep\":[[[]]]}]}";
    bool done = false;
    for (long n = 1; !done; n++) {
        sl_arena arena = {0};
        const sl_json *root;
        sllm_error error;
        fail_alloc_arm(n, true);
        sllm_status status = sl_json_parse(&arena, text, sizeof text - 1, "t", &root, &error);
        done = !fail_alloc_disarm();
        assert_int_equal(status, done ? SLLM_OK : SLLM_ERROR_MEMORY);
        sl_arena_free(&arena);
        assert_true(n < 1000);
    }
}

static void test_doubles(void **state) {
    (void)state;
    double values[] = {0.1, 1e300, -2.5, 1.0 / 3, 123456789, 5e-324, 0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        sl_buffer out = {0};
        sl_json_write_double(&out, values[i]);
        assert_true(strtod(out.data, NULL) == values[i]);
        sl_buffer_free(&out);
    }
}

static void test_utf8(void **state) {
    (void)state;
    /* Python: bytes.decode("utf-8", "replace") */
    struct { const char *in, *out; } cases[] = {
        {"a\xffz", "a\xef\xbf\xbdz"},
        {"\xe2\x82", "\xef\xbf\xbd"},                          /* one maximal subpart */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate: three */
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xf5\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_buffer out = {0};
        assert_true(sl_utf8_append_lossy(&out, cases[i].in, strlen(cases[i].in)));
        assert_string_equal(out.data, cases[i].out);
        sl_buffer_free(&out);
    }
    assert_int_equal(sl_utf8_incomplete("a\xf0\x9f\x98", 4), 3);
    assert_int_equal(sl_utf8_incomplete("a\xf0\x9f\x98\x80", 5), 0);
    assert_int_equal(sl_utf8_incomplete("\xe0\x80", 2), 0); /* overlong: nothing can complete it */
    assert_int_equal(sl_utf8_incomplete("\x80\x80", 2), 0);
    for (uint32_t c = 0; c < 0x110000; c += 7) {
        char text[4];
        uint32_t back;
        size_t n = sl_utf8_encode(c, text);
        assert_int_equal(sl_utf8_decode(text, n, &back, NULL), n);
        assert_int_equal(back, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    }
}

static void test_files(void **state) {
    (void)state;
    char folder[] = "/tmp/sllm-base-XXXXXX", path[64];
    sl_buffer text = {0};
    sl_mapping mapping;
    sllm_error error;
    assert_non_null(mkdtemp(folder));
    assert_true(sl_path_join(path, sizeof path, folder, "f"));
    assert_int_equal(sl_mapping_open(path, &mapping, &error), SLLM_ERROR_NOT_FOUND);
    assert_int_equal(sl_file_write(path, "hello", 5, &error), SLLM_OK);
    assert_int_equal(sl_file_write(path, "world", 5, &error), SLLM_OK);
    assert_int_equal(sl_file_read(path, 100, &text, &error), SLLM_OK);
    assert_string_equal(text.data, "world");
    assert_int_equal(sl_file_read(path, 4, &text, &error), SLLM_ERROR_FORMAT);
    char hex[65];
    assert_int_equal(sl_sha256_file(path, hex, NULL, NULL, &error), SLLM_OK);
    assert_string_equal(hex, "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7"); /* sha256sum */
    assert_int_equal(sl_mapping_open(folder, &mapping, &error), SLLM_ERROR_IO);

    gzFile gz = gzopen(path, "wb");
    gzputs(gz, "packed text");
    gzclose(gz);
    text.length = 0;
    assert_int_equal(sl_file_read_gz(path, 1000, &text, &error), SLLM_OK);
    assert_string_equal(text.data, "packed text");
    gz = gzopen(path, "ab"); /* a second member */
    gzputs(gz, " and more");
    gzclose(gz);
    text.length = 0;
    assert_int_equal(sl_file_read_gz(path, 1000, &text, &error), SLLM_OK);
    assert_string_equal(text.data, "packed text and more");
    FILE *file = fopen(path, "ab");
    fputs("x", file);
    fclose(file);
    assert_int_equal(sl_file_read_gz(path, 1000, &text, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "after the gzip data"));
    assert_int_equal(truncate(path, 15), 0);
    assert_int_equal(sl_file_read_gz(path, 1000, &text, &error), SLLM_ERROR_FORMAT);
    assert_int_equal(sl_file_write("/dev/full/x", "a", 1, &error), SLLM_ERROR_NOT_FOUND);
    sl_buffer_free(&text);
    unlink(path);
    rmdir(folder);
}

static void test_rng(void **state) {
    (void)state;
    sl_rng a, b;
    sl_rng_seed(&a, 1);
    sl_rng_seed(&b, 1);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double u = sl_rng_uniform(&a);
        assert_true(u >= 0 && u < 1 && u == sl_rng_uniform(&b));
        sum += u;
    }
    assert_true(sum / 100000 > 0.495 && sum / 100000 < 0.505);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_is_one_line), cmocka_unit_test(test_arena),
        cmocka_unit_test(test_map),               cmocka_unit_test(test_json_keeps),
        cmocka_unit_test(test_json_access),       cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_json_out_of_memory), cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_utf8),              cmocka_unit_test(test_files),
        cmocka_unit_test(test_rng),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
