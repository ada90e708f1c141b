/* The GGUF reader: what it gives back, and that no declared number is believed. Damaged files are built in memory, one
 * lying field at a time; each pattern of the published parser vulnerabilities has its case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "format/gguf.h"
#include "unit/fail_alloc.h"
#include "unit/gguf_builder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_Q8_0 = 8, TYPE_I8 = 24 };

static const float values[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/* A small valid file with every metadata type and two tensors. */
static unsigned char *small_file(uint32_t version, size_t *size) {
    static const char *const tokens[] = {"<s>", "", "a\xc3\xa9"};
    gguf_builder b = {.version = version};
    gguf_put_string(&b, "general.architecture", "llama");
    gguf_put_u8(&b, "t.u8", 200);
    gguf_put_i8(&b, "t.i8", -100);
    gguf_put_u16(&b, "t.u16", 60000);
    gguf_put_i16(&b, "t.i16", -30000);
    gguf_put_u32(&b, "t.u32", 4000000000u);
    gguf_put_i32(&b, "t.i32", -2000000000);
    gguf_put_u64(&b, "t.u64", UINT64_MAX);
    gguf_put_i64(&b, "t.i64", INT64_MIN);
    gguf_put_f32(&b, "t.f32", 0.5f);
    gguf_put_f64(&b, "t.f64", -0.1);
    gguf_put_bool(&b, "t.yes", true);
    gguf_put_bool(&b, "t.no", false);
    gguf_put_strings(&b, "t.tokens", tokens, 3);
    gguf_put_array(&b, "t.shorts", GGUF_I16, 3, (int16_t[]){-1, 0, 300}, 6);
    gguf_put_array(&b, "t.none", GGUF_F32, 0, "", 0);
    gguf_put_array(&b, "t.flags", GGUF_BOOL, 2, "\1\0", 2);
    sl_buffer nested = {0}; /* [[7], [8, 9]] */
    gguf_number(&nested, GGUF_U8, 4), gguf_number(&nested, 1, 8), gguf_bytes(&nested, "\7", 1);
    gguf_number(&nested, GGUF_U8, 4), gguf_number(&nested, 2, 8), gguf_bytes(&nested, "\10\11", 2);
    gguf_put_array(&b, "t.nested", GGUF_ARRAY, 2, nested.data, nested.length);
    sl_buffer_free(&nested);
    gguf_add_tensor(&b, "token_embd.weight", TYPE_F32, 2, (uint64_t[]){4, 3}, values, sizeof values);
    gguf_add_tensor(&b, "blk.0.attn_norm.weight", TYPE_F32, 1, (uint64_t[]){2}, values + 3, 8);
    return gguf_build(&b, size);
}

static void expect_open(const unsigned char *data, size_t size, sl_gguf **gguf) {
    sllm_error error = {0};
    sllm_status status = sl_gguf_open_memory(data, size, gguf, &error);
    if (status) fail_msg("did not open: %s", error.message);
}

/* Builds what is in b and expects this status and message. */
static void expect_failure(gguf_builder *b, sllm_status wanted, const char *text) {
    size_t size;
    unsigned char *data = gguf_build(b, &size);
    sl_gguf *gguf = NULL;
    sllm_error error = {0};
    sllm_status status = sl_gguf_open_memory(data, size, &gguf, &error);
    assert_null(gguf);
    if (status != wanted || error.status != wanted || !strstr(error.message, text))
        fail_msg("wanted %d '%s', got %d '%s'", wanted, text, status, error.message);
    free(data);
}

/* ---- what it gives back */

static void reads_every_type(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        size_t size;
        unsigned char *data = small_file(version, &size);
        sl_gguf *gguf;
        expect_open(data, size, &gguf);
        assert_int_equal(sl_gguf_version(gguf), version);
        assert_int_equal(sl_gguf_file_bytes(gguf), size);
        assert_int_equal(sl_gguf_metadata_count(gguf), 18);
        sllm_error error = {0};
        int64_t i;
        double f;
        bool flag;
        const char *text;
        size_t length;
        assert_true(sl_gguf_get_int(gguf, "t.u8", &i, &error) && i == 200);
        assert_true(sl_gguf_get_int(gguf, "t.i8", &i, &error) && i == -100);
        assert_true(sl_gguf_get_int(gguf, "t.u16", &i, &error) && i == 60000);
        assert_true(sl_gguf_get_int(gguf, "t.i16", &i, &error) && i == -30000);
        assert_true(sl_gguf_get_int(gguf, "t.u32", &i, &error) && i == 4000000000);
        assert_true(sl_gguf_get_int(gguf, "t.i32", &i, &error) && i == -2000000000);
        assert_true(sl_gguf_get_int(gguf, "t.i64", &i, &error) && i == INT64_MIN);
        assert_true(sl_gguf_get_float(gguf, "t.f32", &f, &error) && f == 0.5);
        assert_true(sl_gguf_get_float(gguf, "t.f64", &f, &error) && f == -0.1);
        assert_true(sl_gguf_get_float(gguf, "t.i8", &f, &error) && f == -100);
        assert_true(sl_gguf_get_float(gguf, "t.u64", &f, &error) && f == 18446744073709551616.0);
        assert_true(sl_gguf_get_bool(gguf, "t.yes", &flag, &error) && flag);
        assert_true(sl_gguf_get_bool(gguf, "t.no", &flag, &error) && !flag);
        assert_true(sl_gguf_get_string(gguf, "general.architecture", &text, &length, &error));
        assert_int_equal(length, 5);
        assert_memory_equal(text, "llama", 5);
        assert_int_equal(error.status, SLLM_OK);
        sl_gguf_close(gguf);
        free(data);
    }
}

static void typed_access_says_what_is_wrong(void **state) {
    (void)state;
    size_t size, length;
    unsigned char *data = small_file(3, &size);
    sl_gguf *gguf;
    expect_open(data, size, &gguf);
    sllm_error error = {0};
    int64_t i = 7;
    double f;
    bool flag;
    const char *text;
    assert_false(sl_gguf_get_int(gguf, "absent", &i, &error));
    assert_int_equal(error.status, SLLM_OK);
    assert_false(sl_gguf_get_int(gguf, "t.u64", &i, &error)); /* does not fit */
    assert_int_equal(error.status, SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "t.u64"));
    error.status = SLLM_OK;
    assert_false(sl_gguf_get_int(gguf, "t.f32", &i, &error));
    assert_non_null(strstr(error.message, "'t.f32' is of type f32"));
    assert_false(sl_gguf_get_int(gguf, "t.yes", &i, NULL));
    assert_false(sl_gguf_get_float(gguf, "t.tokens", &f, &error));
    assert_non_null(strstr(error.message, "array"));
    assert_false(sl_gguf_get_bool(gguf, "t.u8", &flag, &error));
    assert_false(sl_gguf_get_string(gguf, "t.u8", &text, &length, &error));
    assert_int_equal(i, 7);
    sl_gguf_close(gguf);
    free(data);
}

static void walks_arrays(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = small_file(3, &size);
    sl_gguf *gguf;
    expect_open(data, size, &gguf);
    sl_gguf_value array, item, inner;
    assert_true(sl_gguf_find(gguf, "t.tokens", &array));
    const unsigned char *cursor = array.array.data;
    static const char *const tokens[] = {"<s>", "", "a\xc3\xa9"};
    for (int i = 0; i < 3; i++) {
        assert_true(sl_gguf_array_next(&array, &cursor, &item));
        assert_int_equal(item.string.length, strlen(tokens[i]));
        assert_memory_equal(item.string.data, tokens[i], item.string.length);
    }
    assert_false(sl_gguf_array_next(&array, &cursor, &item));
    assert_true(sl_gguf_find(gguf, "t.shorts", &array));
    cursor = array.array.data;
    static const int64_t shorts[] = {-1, 0, 300};
    for (int i = 0; i < 3; i++)
        assert_true(sl_gguf_array_next(&array, &cursor, &item) && item.i == shorts[i] && item.type == SL_GGUF_I16);
    assert_false(sl_gguf_array_next(&array, &cursor, &item));
    assert_true(sl_gguf_find(gguf, "t.none", &array));
    cursor = array.array.data;
    assert_false(sl_gguf_array_next(&array, &cursor, &item));
    assert_true(sl_gguf_find(gguf, "t.nested", &array));
    cursor = array.array.data;
    assert_true(sl_gguf_array_next(&array, &cursor, &item));
    assert_true(sl_gguf_array_next(&array, &cursor, &item));
    const unsigned char *inside = item.array.data;
    assert_true(sl_gguf_array_next(&item, &inside, &inner) && inner.u == 8);
    assert_true(sl_gguf_array_next(&item, &inside, &inner) && inner.u == 9);
    assert_false(sl_gguf_array_next(&item, &inside, &inner));
    assert_false(sl_gguf_array_next(&array, &cursor, &item));
    sl_gguf_close(gguf);
    free(data);
}

static void finds_tensors(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = small_file(3, &size);
    sl_gguf *gguf;
    expect_open(data, size, &gguf);
    assert_int_equal(sl_gguf_tensor_count(gguf), 2);
    const sl_tensor *tensor = sl_gguf_tensor(gguf, "token_embd.weight");
    assert_non_null(tensor);
    assert_ptr_equal(tensor, sl_gguf_tensor_at(gguf, 0));
    assert_string_equal(tensor->name, "token_embd.weight");
    assert_int_equal(tensor->type, SL_F32);
    assert_int_equal(tensor->n_dims, 2);
    assert_int_equal(tensor->shape[0], 3); /* the file says 4, 3: columns first */
    assert_int_equal(tensor->shape[1], 4);
    assert_int_equal(tensor->n_elements, 12);
    assert_int_equal(tensor->bytes, 48);
    assert_memory_equal(tensor->data, values, 48);
    tensor = sl_gguf_tensor(gguf, "blk.0.attn_norm.weight");
    assert_memory_equal(tensor->data, values + 3, 8);
    assert_null(sl_gguf_tensor(gguf, "blk.0.attn_norm"));
    sl_gguf_close(gguf);
    free(data);
}

static void vocabulary_only_and_alignment(void **state) {
    (void)state;
    gguf_builder b = {0};
    size_t size;
    sl_gguf *gguf;
    unsigned char *data = gguf_build(&b, &size); /* 24 bytes: nothing at all is still a valid file */
    expect_open(data, size, &gguf);
    assert_int_equal(sl_gguf_tensor_count(gguf), 0);
    assert_null(sl_gguf_tensor(gguf, "x"));
    sl_gguf_close(gguf);
    free(data);
    for (uint32_t alignment = 1; alignment <= 4096; alignment *= 64) {
        b = (gguf_builder){.alignment = alignment};
        gguf_put_u32(&b, "general.alignment", alignment);
        gguf_add_tensor(&b, "a", TYPE_I8, 1, (uint64_t[]){3}, "abc", 3);
        gguf_add_tensor(&b, "b", TYPE_I8, 1, (uint64_t[]){3}, "def", 3);
        data = gguf_build(&b, &size);
        expect_open(data, size, &gguf);
        assert_memory_equal(sl_gguf_tensor(gguf, "b")->data, "def", 3);
        sl_gguf_close(gguf);
        free(data);
    }
}

/* ---- lies */

static void refuses_other_files(void **state) {
    (void)state;
    sl_gguf *gguf;
    sllm_error error = {0};
    assert_int_equal(sl_gguf_open_memory("GGML\3\0\0\0", 8, &gguf, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "not a GGUF file"));
    assert_int_equal(sl_gguf_open_memory("GGUF\1\0\0\0", 8, &gguf, &error), SLLM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "version 1;"));
    assert_int_equal(sl_gguf_open_memory("GGUF\4\0\0\0", 8, &gguf, &error), SLLM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "version 4;"));
    assert_int_equal(sl_gguf_open_memory("GGUF\0\0\0\3", 8, &gguf, &error), SLLM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "big-endian"));
    assert_int_equal(sl_gguf_open_memory("FUGG\0\0\0\3", 8, &gguf, &error), SLLM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "big-endian"));
    assert_int_equal(sl_gguf_open("/nonexistent/model.gguf", &gguf, &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "/nonexistent/model.gguf"));
    assert_int_equal(sl_gguf_open("/", &gguf, &error), SLLM_ERROR_IO);
}

/* Counts and lengths that wrap an allocation: CVE-2024-32878, CVE-2025-53630, CVE-2026-27940. */
static void refuses_lying_counts(void **state) {
    (void)state;
    static const uint64_t lies[] = {3, 1000, UINT32_MAX, (uint64_t)1 << 32, UINT64_MAX / 112, UINT64_MAX / 64 + 1,
                                    INT64_MAX, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        gguf_builder b = {.claim_entries = lies[i]};
        gguf_put_u32(&b, "a", 1);
        expect_failure(&b, SLLM_ERROR_FORMAT, "metadata entries");
        b.claim_tensors = lies[i];
        gguf_add_tensor(&b, "a", TYPE_I8, 1, (uint64_t[]){1}, "x", 1);
        if (lies[i] > 3) expect_failure(&b, SLLM_ERROR_FORMAT, "tensors, more than fit");
        else expect_failure(&b, SLLM_ERROR_FORMAT, "");
    }
}

static void refuses_lying_strings(void **state) {
    (void)state;
    static const uint64_t lies[] = {5, UINT32_MAX, INT64_MAX, UINT64_MAX - 7, UINT64_MAX}; /* length + 1 wraps to 0 */
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint64_t raw[3] = {lies[i]};
        gguf_builder b = {0};
        gguf_put(&b, "text", GGUF_STRING, raw, 12);
        expect_failure(&b, SLLM_ERROR_FORMAT, "metadata 'text'");
        gguf_put_array(&b, "texts", GGUF_STRING, 1, raw, 12);
        expect_failure(&b, SLLM_ERROR_FORMAT, "metadata 'texts'");
        gguf_bytes(&b.entries, raw, 24); /* as a key's length */
        b.n_entries = 1;
        expect_failure(&b, SLLM_ERROR_FORMAT, "name of metadata entry 0");
        gguf_bytes(&b.infos, raw, 24); /* as a tensor name's length */
        gguf_bytes(&b.infos, values, 8);
        b.n_tensors = 1;
        expect_failure(&b, SLLM_ERROR_FORMAT, "name of tensor 0");
    }
}

static void refuses_lying_arrays(void **state) {
    (void)state;
    static const uint64_t lies[] = {3, UINT32_MAX, (uint64_t)1 << 61, (uint64_t)1 << 62, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
        for (uint32_t type = GGUF_U8; type <= GGUF_F64; type++) {
            gguf_builder b = {0};
            gguf_put_array(&b, "many", type, lies[i], "\0", 2);
            expect_failure(&b, SLLM_ERROR_FORMAT, "metadata 'many'");
        }
}

static void refuses_bad_values(void **state) {
    (void)state;
    gguf_builder b = {0};
    gguf_put(&b, "k", 13, "\0\0\0\0", 4);
    expect_failure(&b, SLLM_ERROR_FORMAT, "unknown value type 13");
    gguf_put(&b, "k", UINT32_MAX, "\0\0\0\0", 4); /* an index beyond a table of types */
    expect_failure(&b, SLLM_ERROR_FORMAT, "unknown value type 4294967295");
    gguf_put_array(&b, "k", 99, 1, "\0\0\0\0", 4);
    expect_failure(&b, SLLM_ERROR_FORMAT, "unknown array item type 99");
    gguf_put(&b, "k", GGUF_BOOL, "\2", 1);
    expect_failure(&b, SLLM_ERROR_FORMAT, "neither 0 nor 1");
    gguf_put_array(&b, "k", GGUF_BOOL, 3, "\0\1\377", 3);
    expect_failure(&b, SLLM_ERROR_FORMAT, "neither 0 nor 1");
    gguf_put_u8(&b, "twice", 1);
    gguf_put_u8(&b, "other", 1);
    gguf_put_u8(&b, "twice", 1);
    expect_failure(&b, SLLM_ERROR_FORMAT, "'twice' is there twice");
    gguf_put_u64(&b, "", 1);
    expect_failure(&b, SLLM_ERROR_FORMAT, "name of metadata entry 0");
    gguf_text(&b.entries, "a\0b", 3), gguf_number(&b.entries, GGUF_U8, 4), gguf_number(&b.entries, 0, 1);
    b.n_entries = 1;
    expect_failure(&b, SLLM_ERROR_FORMAT, "holds a NUL");
    gguf_put_u8(&b, "\xff\xfe", 1);
    expect_failure(&b, SLLM_ERROR_FORMAT, "not UTF-8");
    sl_buffer deep = {0}; /* thousands of arrays inside one another */
    for (int i = 0; i < 5000; i++) gguf_number(&deep, GGUF_ARRAY, 4), gguf_number(&deep, 1, 8);
    gguf_put(&b, "deep", GGUF_ARRAY, deep.data, deep.length);
    sl_buffer_free(&deep);
    expect_failure(&b, SLLM_ERROR_FORMAT, "nest deeper");
}

static void refuses_bad_alignment(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 3, 33, 1 << 21, UINT32_MAX, (uint32_t)1 << 31};
    gguf_builder b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gguf_put_u32(&b, "general.alignment", bad[i]);
        expect_failure(&b, SLLM_ERROR_FORMAT, "power of two");
    }
    gguf_put_u64(&b, "general.alignment", 32);
    expect_failure(&b, SLLM_ERROR_FORMAT, "'general.alignment' is of type u64");
    gguf_put_string(&b, "general.alignment", "32");
    expect_failure(&b, SLLM_ERROR_FORMAT, "of type string");
}

/* One tensor that lies; the data are 32 bytes long. */
static void expect_bad_tensor(uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset, sllm_status status,
                              const char *text) {
    gguf_builder b = {0};
    gguf_describe_tensor(&b, "blk.0.attn_q.weight", type, n_dims, dims, offset);
    gguf_bytes(&b.data, "0123456789abcdef0123456789abcdef", 32);
    expect_failure(&b, status, text);
}

static void refuses_lying_tensors(void **state) {
    (void)state;
    const uint64_t big = (uint64_t)1 << 62, dims4[] = {4, 2, 1, 1};
    /* sizes past the end of the file: CVE-2026-7482 */
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){9}, 0, SLLM_ERROR_FORMAT,
                      "tensor 'blk.0.attn_q.weight': needs 36 bytes at offset 0");
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){8}, 32, SLLM_ERROR_FORMAT, "needs 32 bytes at offset 32");
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){1}, (uint64_t)1 << 40, SLLM_ERROR_FORMAT, "the file ends at");
    /* sums that wrap: data start + offset, offset + size */
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){8}, UINT64_MAX - 31, SLLM_ERROR_FORMAT, "the file ends at");
    expect_bad_tensor(TYPE_I8, 1, (uint64_t[]){INT64_MAX}, (uint64_t)1 << 63, SLLM_ERROR_FORMAT, "the file ends at");
    /* products that wrap, to zero and to small numbers: CVE-2025-53630 and the padding bypass */
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){big}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){big + 4}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_F32, 2, (uint64_t[]){big, 4}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_F32, 2, (uint64_t[]){(uint64_t)1 << 31, (uint64_t)1 << 31}, 0, SLLM_ERROR_FORMAT,
                      "overflows"); /* the elements fit 64 bits, their bytes do not */
    expect_bad_tensor(TYPE_I8, 2, (uint64_t[]){INT64_MAX, 2}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_I8, 4, (uint64_t[]){1 << 16, 1 << 16, 1 << 16, 1 << 16}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_Q8_0, 2, (uint64_t[]){32, (uint64_t)1 << 60}, 0, SLLM_ERROR_FORMAT, "overflows");
    expect_bad_tensor(TYPE_I8, 1, (uint64_t[]){(uint64_t)INT64_MAX + 1}, 0, SLLM_ERROR_FORMAT, "dimension 0 is");
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){UINT64_MAX}, 0, SLLM_ERROR_FORMAT, "dimension 0 is");
    expect_bad_tensor(TYPE_F32, 2, (uint64_t[]){4, 0}, 0, SLLM_ERROR_FORMAT, "dimension 1 is 0");
    /* a count of dimensions that overruns a fixed array */
    expect_bad_tensor(TYPE_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, SLLM_ERROR_FORMAT, "5 dimensions");
    gguf_builder b = {0};
    gguf_text(&b.infos, "t", 1), gguf_number(&b.infos, UINT32_MAX, 4), gguf_bytes(&b.infos, dims4, sizeof dims4);
    b.n_tensors = 1;
    expect_failure(&b, SLLM_ERROR_FORMAT, "4294967295 dimensions");
    expect_bad_tensor(TYPE_F32, 1, (uint64_t[]){4}, 4, SLLM_ERROR_FORMAT, "not a multiple of the alignment 32");
    expect_bad_tensor(TYPE_Q8_0, 1, (uint64_t[]){16}, 0, SLLM_ERROR_FORMAT, "blocks of 32");
    expect_bad_tensor(TYPE_Q8_0, 2, (uint64_t[]){16, 2}, 0, SLLM_ERROR_FORMAT, "blocks of 32");
    /* an element type beyond every table */
    expect_bad_tensor(9999, 1, (uint64_t[]){4}, 0, SLLM_ERROR_UNSUPPORTED, "unknown element type number 9999");
    expect_bad_tensor(UINT32_MAX, 1, (uint64_t[]){4}, 0, SLLM_ERROR_UNSUPPORTED, "number 4294967295");
    expect_bad_tensor(4, 1, (uint64_t[]){4}, 0, SLLM_ERROR_UNSUPPORTED, "number 4"); /* Q4_2, removed long ago */
}

static void refuses_lying_tensor_sets(void **state) {
    (void)state;
    gguf_builder b = {0};
    gguf_add_tensor(&b, "same", TYPE_I8, 1, (uint64_t[]){1}, "a", 1);
    gguf_add_tensor(&b, "same", TYPE_I8, 1, (uint64_t[]){1}, "b", 1);
    expect_failure(&b, SLLM_ERROR_FORMAT, "tensor 'same' is there twice");
    gguf_describe_tensor(&b, "first", TYPE_I8, 1, (uint64_t[]){33}, 0);
    gguf_describe_tensor(&b, "second", TYPE_I8, 1, (uint64_t[]){32}, 32);
    gguf_bytes(&b.data, values, 48), gguf_bytes(&b.data, values, 48);
    expect_failure(&b, SLLM_ERROR_FORMAT, "tensors 'first' and 'second' overlap");
    gguf_describe_tensor(&b, "outer", TYPE_I8, 1, (uint64_t[]){96}, 0); /* out of order, one inside the other */
    gguf_describe_tensor(&b, "inner", TYPE_I8, 1, (uint64_t[]){1}, 64);
    gguf_describe_tensor(&b, "twin", TYPE_I8, 1, (uint64_t[]){1}, 0);
    gguf_bytes(&b.data, values, 48), gguf_bytes(&b.data, values, 48);
    expect_failure(&b, SLLM_ERROR_FORMAT, "overlap");
    gguf_text(&b.infos, "a\0b", 3), gguf_bytes(&b.infos, values, 40);
    b.n_tensors = 1;
    expect_failure(&b, SLLM_ERROR_FORMAT, "name of tensor 0");
    gguf_put_u16(&b, "split.count", 2);
    expect_failure(&b, SLLM_ERROR_UNSUPPORTED, "one part of a split");
    gguf_put_i32(&b, "split.count", -2);
    expect_failure(&b, SLLM_ERROR_FORMAT, "'split.count' is not a count");
}

/* ---- damage everywhere */

/* Reads all that an open file offers; a sanitizer watches. Returns something that depends on every byte read. */
static uint64_t walk(const sl_gguf *gguf) {
    uint64_t sum = 0;
    for (size_t i = 0; i < sl_gguf_metadata_count(gguf); i++) {
        const char *key;
        sl_gguf_value value, item;
        sl_gguf_metadata(gguf, i, &key, &value);
        sum += strlen(key);
        if (value.type == SL_GGUF_STRING)
            for (size_t j = 0; j < value.string.length; j++) sum += (unsigned char)value.string.data[j];
        if (value.type != SL_GGUF_ARRAY) continue;
        uint64_t n = 0;
        for (const unsigned char *cursor = value.array.data; sl_gguf_array_next(&value, &cursor, &item); n++)
            sum += item.type;
        assert_int_equal(n, value.array.count);
    }
    for (size_t i = 0; i < sl_gguf_tensor_count(gguf); i++) {
        const sl_tensor *tensor = sl_gguf_tensor_at(gguf, i);
        assert_ptr_equal(sl_gguf_tensor(gguf, tensor->name), tensor);
        for (uint64_t j = 0; j < tensor->bytes; j++) sum += ((const unsigned char *)tensor->data)[j];
    }
    return sum;
}

/* Opens a copy that ends exactly at `size`. */
static sllm_status open_copy(const unsigned char *data, size_t size) {
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    sl_gguf *gguf;
    sllm_error error = {0};
    sllm_status status = sl_gguf_open_memory(copy, size, &gguf, &error);
    if (!status) walk(gguf);
    else assert_true(error.status == status && strstr(error.message, "GGUF"));
    sl_gguf_close(gguf);
    free(copy);
    return status;
}

static void truncated_anywhere_is_an_error(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = small_file(3, &size);
    for (size_t n = 0; n < size; n++) assert_int_equal(open_copy(data, n), SLLM_ERROR_FORMAT);
    assert_int_equal(open_copy(data, size), SLLM_OK);
    free(data);
}

static void flipped_bytes_never_crash(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = small_file(3, &size);
    for (size_t at = 0; at < size - 80; at++) { /* the last 80 bytes are tensor data */
        unsigned char old = data[at];
        for (int bit = 0; bit < 8; bit++) {
            data[at] = old ^ (unsigned char)(1 << bit);
            open_copy(data, size);
        }
        data[at] = 0xff;
        open_copy(data, size);
        data[at] = old;
    }
    assert_int_equal(open_copy(data, size), SLLM_OK);
    free(data);
}

static void failed_allocations_are_errors(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = small_file(3, &size);
    for (int sticky = 0; sticky < 2; sticky++) {
        bool failed = true;
        for (long n = 1; failed; n++) {
            sl_gguf *gguf;
            sllm_error error = {0};
            fail_alloc_arm(n, sticky);
            sllm_status status = sl_gguf_open_memory(data, size, &gguf, &error);
            failed = fail_alloc_disarm();
            if (failed && status) assert_int_equal(status, SLLM_ERROR_MEMORY);
            else assert_int_equal(status, SLLM_OK);
            sl_gguf_close(gguf);
            assert_true(n < 1000);
        }
    }
    free(data);
}

/* A vocabulary of 128k tokens must not cost an allocation a token: opening it is a walk over its bytes. */
static void large_vocabularies_open_cheaply(void **state) {
    (void)state;
    enum { TOKENS = 128000 };
    gguf_builder b = {0};
    sl_buffer raw = {0};
    for (int i = 0; i < TOKENS; i++) {
        char text[16];
        gguf_text(&raw, text, (size_t)snprintf(text, sizeof text, "token%d", i));
    }
    gguf_put_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, TOKENS, raw.data, raw.length);
    sl_buffer_free(&raw);
    size_t size;
    unsigned char *data = gguf_build(&b, &size);
    sl_gguf *gguf;
    sllm_error error;
    fail_alloc_arm(30, true); /* the 30th allocation would fail */
    assert_int_equal(sl_gguf_open_memory(data, size, &gguf, &error), SLLM_OK);
    fail_alloc_disarm();
    sl_gguf_close(gguf);
    free(data);
}

/* ---- splits */

static char folder[64];

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/test_gguf.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    DIR *directory = opendir(folder);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.') unlink(in_folder(entry->d_name));
    closedir(directory);
    return rmdir(folder);
}

static void write_part(const char *name, int number, int count, int n_tensors, const char *tensor) {
    gguf_builder b = {0};
    if (!number) gguf_put_string(&b, "general.architecture", "llama");
    gguf_put_u16(&b, "split.no", (uint16_t)number);
    gguf_put_u16(&b, "split.count", (uint16_t)count);
    gguf_put_i32(&b, "split.tensors.count", n_tensors);
    if (tensor) gguf_add_tensor(&b, tensor, TYPE_F32, 1, (uint64_t[]){2}, values + number, 8);
    gguf_build_file(&b, in_folder(name));
}

static void expect_split(const char *name, sllm_status wanted, const char *text) {
    sl_gguf *gguf;
    sllm_error error = {0};
    sllm_status status = sl_gguf_open(in_folder(name), &gguf, &error);
    if (status != wanted || !strstr(error.message, text)) fail_msg("wanted '%s', got '%s'", text, error.message);
    sl_gguf_close(gguf);
}

static void opens_splits(void **state) {
    (void)state;
    write_part("m-00001-of-00003.gguf", 0, 3, 2, NULL); /* the first part may hold metadata only */
    write_part("m-00002-of-00003.gguf", 1, 3, 2, "a");
    expect_split("m-00001-of-00003.gguf", SLLM_ERROR_NOT_FOUND, "m-00003-of-00003.gguf");
    write_part("m-00003-of-00003.gguf", 2, 3, 2, "b");
    sl_gguf *gguf;
    sllm_error error = {0};
    assert_int_equal(sl_gguf_open(in_folder("m-00001-of-00003.gguf"), &gguf, &error), SLLM_OK);
    assert_int_equal(sl_gguf_tensor_count(gguf), 2);
    assert_memory_equal(sl_gguf_tensor(gguf, "b")->data, values + 2, 8);
    assert_memory_equal(sl_gguf_tensor(gguf, "a")->data, values + 1, 8);
    assert_int_equal(sl_gguf_metadata_count(gguf), 4);
    sl_gguf_close(gguf);
    bool failed = true;
    for (long n = 1; failed; n++) {
        fail_alloc_arm(n, true);
        sllm_status status = sl_gguf_open(in_folder("m-00001-of-00003.gguf"), &gguf, &error);
        failed = fail_alloc_disarm();
        assert_int_equal(status, failed ? SLLM_ERROR_MEMORY : SLLM_OK);
        sl_gguf_close(gguf);
    }
    expect_split("m-00002-of-00003.gguf", SLLM_ERROR_ARGUMENT, "open the first one");
    write_part("m-00003-of-00003.gguf", 2, 3, 2, "a");
    expect_split("m-00001-of-00003.gguf", SLLM_ERROR_FORMAT, "tensor 'a' is there twice");
    write_part("m-00003-of-00003.gguf", 1, 3, 2, "b");
    expect_split("m-00001-of-00003.gguf", SLLM_ERROR_FORMAT, "m-00003-of-00003.gguf: does not belong");
    write_part("m-00003-of-00003.gguf", 2, 3, 9, "b");
    expect_split("m-00001-of-00003.gguf", SLLM_ERROR_FORMAT, "does not belong");
    write_part("renamed.gguf", 0, 3, 2, NULL);
    expect_split("renamed.gguf", SLLM_ERROR_FORMAT, "must be named NAME-00001-of-00003.gguf");
    write_part("few-00001-of-00002.gguf", 0, 2, 5, "a");
    write_part("few-00002-of-00002.gguf", 1, 2, 5, "b");
    expect_split("few-00001-of-00002.gguf", SLLM_ERROR_FORMAT, "split.tensors.count is 5");
    write_part("one-00001-of-00001.gguf", 0, 1, 1, "a");
    expect_split("one-00001-of-00001.gguf", SLLM_OK, "");
    gguf_builder b = {0};
    gguf_build_file(&b, in_folder("bare-00001-of-00002.gguf")); /* named like a split, says nothing of one */
    expect_split("bare-00001-of-00002.gguf", SLLM_ERROR_FORMAT, "does not match what it holds");
}

/* ---- real files */

static int n_real;

static void open_real(const char *path) {
    sl_gguf *gguf;
    sllm_error error = {0};
    double start = sl_clock();
    sllm_status status = sl_gguf_open(path, &gguf, &error);
    double seconds = sl_clock() - start;
    if (status) fail_msg("%s", error.message);
    printf("%s: %zu metadata, %zu tensors, opened in %.2f ms\n", path, sl_gguf_metadata_count(gguf),
           sl_gguf_tensor_count(gguf), seconds * 1e3);
    walk(gguf);
    const char *text;
    size_t length;
    assert_true(sl_gguf_get_string(gguf, "general.architecture", &text, &length, &error));
    sl_gguf_close(gguf);
    n_real++;
}

static void open_all(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char inner[4096];
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || !sl_path_join(inner, sizeof inner, path, entry->d_name)) continue;
        if (sl_path_is_directory(inner)) open_all(inner);
        else if (length > 5 && !strcmp(entry->d_name + length - 5, ".gguf")) open_real(inner);
    }
    closedir(directory);
}

static void opens_real_files(void **state) {
    (void)state;
    open_all(SLLM_SOURCE_DIR "/tests/golden/data");
    open_all(SLLM_SOURCE_DIR "/../shared/golden/quant/gguf");
    open_all(SLLM_SOURCE_DIR "/../shared/golden/tokenizers/vocab");
    if (!n_real) {
        print_message("no GGUF files beside the source: nothing opened\n");
        skip();
    }
}

int main(int argc, char **argv) {
    if (argc > 1) { /* files and folders named by hand */
        for (int i = 1; i < argc; i++) {
            if (sl_path_is_directory(argv[i])) open_all(argv[i]);
            else open_real(argv[i]);
        }
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type),
        cmocka_unit_test(typed_access_says_what_is_wrong),
        cmocka_unit_test(walks_arrays),
        cmocka_unit_test(finds_tensors),
        cmocka_unit_test(vocabulary_only_and_alignment),
        cmocka_unit_test(refuses_other_files),
        cmocka_unit_test(refuses_lying_counts),
        cmocka_unit_test(refuses_lying_strings),
        cmocka_unit_test(refuses_lying_arrays),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_bad_alignment),
        cmocka_unit_test(refuses_lying_tensors),
        cmocka_unit_test(refuses_lying_tensor_sets),
        cmocka_unit_test(truncated_anywhere_is_an_error),
        cmocka_unit_test(flipped_bytes_never_crash),
        cmocka_unit_test(failed_allocations_are_errors),
        cmocka_unit_test(large_vocabularies_open_cheaply),
        cmocka_unit_test_setup_teardown(opens_splits, make_folder, remove_folder),
        cmocka_unit_test(opens_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
