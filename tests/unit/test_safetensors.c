/* Safetensors: reading, sharded and not, writing, and files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "unit/fail_alloc.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* header with its length before it and `data` bytes 0, 1, 2... after it; malloc'd to the exact size. */
static unsigned char *file_of(const char *header, size_t data, size_t *size) {
    uint64_t length = strlen(header);
    unsigned char *file = malloc(8 + length + data);
    assert_non_null(file);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data; i++) file[8 + length + i] = (unsigned char)i;
    *size = 8 + length + data;
    return file;
}

static const char valid[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                            "\"b\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[24,28]},"
                            "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                            "\"none\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[28,28]},"
                            "\"scalar\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[28,29]}}  ";
enum { VALID_DATA = 29 };

static void reads_tensors(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = file_of(valid, VALID_DATA, &size);
    const unsigned char *tensors = data + size - VALID_DATA;
    sl_safetensors *file;
    sllm_error error = {0};
    if (sl_safetensors_open_memory(data, size, &file, &error)) fail_msg("%s", error.message);
    assert_int_equal(sl_safetensors_count(file), 4);
    assert_int_equal(sl_safetensors_file_bytes(file), size);
    assert_string_equal(sl_json_string(sl_json_get(sl_safetensors_metadata(file), "format")), "pt");
    const sl_tensor *a = sl_safetensors_get(file, "a");
    assert_non_null(a);
    assert_int_equal(a->type, SL_F32);
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 3);
    assert_int_equal(a->n_elements, 6);
    assert_int_equal(a->bytes, 24);
    assert_ptr_equal(a->data, tensors);
    assert_ptr_equal(sl_safetensors_get(file, "b")->data, tensors + 24);
    assert_int_equal(sl_safetensors_get(file, "b")->type, SL_I16);
    assert_int_equal(sl_safetensors_get(file, "none")->n_elements, 0);
    assert_int_equal(sl_safetensors_get(file, "scalar")->n_elements, 1);
    assert_int_equal(sl_safetensors_get(file, "scalar")->n_dims, 0);
    assert_null(sl_safetensors_get(file, "__metadata__"));
    assert_null(sl_safetensors_get(file, "c"));
    sl_safetensors_close(file);
    free(data);
}

static void knows_every_type(void **state) {
    (void)state;
    static const struct { const char *name; sl_type type; int bytes; } types[] = {
        {"F64", SL_F64, 8}, {"F32", SL_F32, 4}, {"F16", SL_F16, 2}, {"BF16", SL_BF16, 2}, {"I64", SL_I64, 8},
        {"I32", SL_I32, 4}, {"I16", SL_I16, 2}, {"I8", SL_I8, 1},   {"U8", SL_U8, 1},     {"BOOL", SL_BOOL, 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char header[128];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 types[i].name, 3 * types[i].bytes);
        size_t size;
        unsigned char *data = file_of(header, 3 * (size_t)types[i].bytes, &size);
        sl_safetensors *file;
        sllm_error error = {0};
        if (sl_safetensors_open_memory(data, size, &file, &error)) fail_msg("%s", error.message);
        assert_int_equal(sl_safetensors_at(file, 0)->type, types[i].type);
        sl_safetensors_close(file);
        free(data);
    }
}

/* ---- lies */

static void expect_failure(const char *header, size_t data_size, sllm_status wanted, const char *text) {
    size_t size;
    unsigned char *data = file_of(header, data_size, &size);
    sl_safetensors *file;
    sllm_error error = {0};
    sllm_status status = sl_safetensors_open_memory(data, size, &file, &error);
    assert_null(file);
    if (status != wanted || error.status != wanted || !strstr(error.message, text))
        fail_msg("wanted %d '%s', got %d '%s'", wanted, text, status, error.message);
    free(data);
}

/* One tensor "w" whose description is `body`, over `data` bytes. */
static void expect_bad_tensor(const char *body, size_t data, sllm_status wanted, const char *text) {
    char header[1024];
    snprintf(header, sizeof header, "{\"w\":%s}", body);
    expect_failure(header, data, wanted, text);
}

static void refuses_lying_headers(void **state) {
    (void)state;
    static const uint64_t lies[] = {29, 100000000, 100000001, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        size_t size;
        unsigned char *data = file_of("{}                    ", 6, &size); /* 22 + 6 bytes after the length */
        memcpy(data, &lies[i], 8);
        sl_safetensors *file;
        sllm_error error = {0};
        assert_int_equal(sl_safetensors_open_memory(data, size, &file, &error), SLLM_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "the header claims"));
        free(data);
    }
    expect_failure("", 0, SLLM_ERROR_FORMAT, "does not begin with '{'");
    expect_failure("[]", 0, SLLM_ERROR_FORMAT, "does not begin with '{'");
    expect_failure(" {}", 0, SLLM_ERROR_FORMAT, "does not begin with '{'");
    expect_failure("{", 0, SLLM_ERROR_FORMAT, "safetensors in memory");
    expect_failure("{} x", 0, SLLM_ERROR_FORMAT, "safetensors in memory");
    expect_failure("{\"__metadata__\":3}", 0, SLLM_ERROR_FORMAT, "__metadata__");
    expect_failure("{\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, SLLM_ERROR_FORMAT,
                   "name is empty");
    expect_failure("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, SLLM_ERROR_FORMAT,
                   "holds a NUL");
    expect_failure("{}", 1, SLLM_ERROR_FORMAT, "the last 1 bytes belong to no tensor");
}

static void refuses_lying_tensors(void **state) {
    (void)state;
    const sllm_status format = SLLM_ERROR_FORMAT;
    expect_bad_tensor("3", 0, format, "tensor 'w'");
    expect_bad_tensor("{}", 0, format, "\"dtype\"");
    expect_bad_tensor("{\"dtype\":7,\"shape\":[],\"data_offsets\":[0,4]}", 4, format, "\"dtype\"");
    expect_bad_tensor("{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}", 4, SLLM_ERROR_UNSUPPORTED,
                      "tensor 'w': element type \"F8_E4M3\"");
    expect_bad_tensor("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", 4, format, "\"shape\"");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}", 4, format, "\"shape\"");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}", 4, format, "dimension 0");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1,1.0],\"data_offsets\":[0,4]}", 4, format, "dimension 1");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}", 4, format,
                      "dimension 0");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}", 4,
                      SLLM_ERROR_UNSUPPORTED, "9 dimensions");
    /* products that wrap: 2^32 * 2^32, 2^62 * 4 bytes, and a zero that must not hide one */
    expect_bad_tensor("{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}", 0, format,
                      "overflows");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}", 0, format,
                      "do not take");
    expect_bad_tensor(
        "{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4611686018427387904,0],\"data_offsets\":[0,0]}", 0, format,
        "overflows");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}", 4, format, "data_offsets");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}", 4, format, "span 4 bytes");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}", 8, format, "span 8 bytes");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 7, format,
                      "tensor 'w': needs 8 bytes at offset 0");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775800,9223372036854775804]}", 4,
                      format, "but the file ends at");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}", 8, format,
                      "4 bytes before tensor 'w' belong to no tensor");
    expect_bad_tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", 9, format,
                      "the last 5 bytes belong to no tensor");
    expect_failure("{\"v\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                   "\"w\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[2,5]}}", 5, format, "'v' and 'w' overlap");
    expect_failure("{\"w\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                   "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}", 5, format, "'w' is there twice");
}

/* A header of a megabyte of open brackets must neither recurse nor be kept. */
static void bounds_nesting(void **state) {
    (void)state;
    enum { DEPTH = 1 << 20 };
    char *header = malloc(DEPTH + 1);
    assert_non_null(header);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEPTH - 5);
    header[DEPTH] = 0;
    expect_failure(header, 0, SLLM_ERROR_FORMAT, "safetensors in memory");
    free(header);
}

/* ---- damage everywhere */

static sllm_status open_copy(const unsigned char *data, size_t size) {
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    sl_safetensors *file;
    sllm_error error = {0};
    sllm_status status = sl_safetensors_open_memory(copy, size, &file, &error);
    volatile unsigned char sum = 0;
    if (status) {
        assert_null(file);
        assert_int_equal(error.status, status);
    } else {
        for (size_t i = 0; i < sl_safetensors_count(file); i++) {
            const sl_tensor *tensor = sl_safetensors_at(file, i);
            for (uint64_t j = 0; j < tensor->bytes; j++) sum += ((const unsigned char *)tensor->data)[j];
        }
    }
    (void)sum;
    sl_safetensors_close(file);
    free(copy);
    return status;
}

static void truncated_anywhere_is_an_error(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = file_of(valid, VALID_DATA, &size);
    for (size_t n = 0; n < size; n++) assert_int_equal(open_copy(data, n), SLLM_ERROR_FORMAT);
    assert_int_equal(open_copy(data, size), SLLM_OK);
    free(data);
}

static void flipped_bytes_never_crash(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = file_of(valid, VALID_DATA, &size);
    for (size_t at = 0; at < size - VALID_DATA; at++) {
        unsigned char old = data[at];
        for (int bit = 0; bit < 8; bit++) {
            data[at] = old ^ (unsigned char)(1 << bit);
            open_copy(data, size);
        }
        data[at] = old;
    }
    assert_int_equal(open_copy(data, size), SLLM_OK);
    free(data);
}

static void failed_allocations_are_errors(void **state) {
    (void)state;
    size_t size;
    unsigned char *data = file_of(valid, VALID_DATA, &size);
    for (int sticky = 0; sticky < 2; sticky++) {
        bool failed = true;
        for (long n = 1; failed; n++) {
            sl_safetensors *file;
            sllm_error error = {0};
            fail_alloc_arm(n, sticky);
            sllm_status status = sl_safetensors_open_memory(data, size, &file, &error);
            failed = fail_alloc_disarm();
            assert_int_equal(status, failed ? SLLM_ERROR_MEMORY : SLLM_OK);
            sl_safetensors_close(file);
            assert_true(n < 1000);
        }
    }
    free(data);
}

/* ---- files */

static char folder[64];

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/test_safetensors.XXXXXX");
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

static int files_in_folder(void) {
    DIR *directory = opendir(folder);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(directory));) n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

static void put_file(const char *name, const void *data, size_t size) {
    assert_int_equal(sl_file_write(in_folder(name), data, size, NULL), SLLM_OK);
}

/* A shard with one U8 tensor of three bytes. */
static void put_shard(const char *name, const char *tensor) {
    char header[256];
    size_t size;
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", tensor);
    unsigned char *data = file_of(header, 3, &size);
    put_file(name, data, size);
    free(data);
}

static void expect_index(const char *index, sllm_status wanted, const char *text) {
    sl_safetensors *file;
    sllm_error error = {0};
    put_file("m.safetensors.index.json", index, strlen(index));
    sllm_status status = sl_safetensors_open(in_folder("m.safetensors.index.json"), &file, &error);
    if (status != wanted || !strstr(error.message, text))
        fail_msg("%s: wanted %d '%s', got %d '%s'", index, wanted, text, status, error.message);
    sl_safetensors_close(file);
}

static void opens_shards(void **state) {
    (void)state;
    put_shard("s1.safetensors", "a");
    put_shard("s2.safetensors", "b");
    expect_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}", SLLM_OK, "");
    sl_safetensors *file;
    sllm_error error = {0};
    assert_int_equal(sl_safetensors_open(in_folder("m.safetensors.index.json"), &file, &error), SLLM_OK);
    assert_int_equal(sl_safetensors_count(file), 2);
    assert_memory_equal(sl_safetensors_get(file, "b")->data, "\0\1\2", 3);
    sl_safetensors_close(file);
    bool failed = true;
    for (long n = 1; failed; n++) {
        fail_alloc_arm(n, true);
        sllm_status status = sl_safetensors_open(in_folder("m.safetensors.index.json"), &file, &error);
        failed = fail_alloc_disarm();
        assert_int_equal(status, failed ? SLLM_ERROR_MEMORY : SLLM_OK);
        sl_safetensors_close(file);
    }
    expect_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}", SLLM_ERROR_NOT_FOUND,
                 "shard 's3.safetensors' is missing");
    expect_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\"}}", SLLM_ERROR_FORMAT,
                 "tensor 'b' is not in 's1.safetensors'");
    put_shard("s3.safetensors", "a"); /* a copy of `a` where the index does not look */
    expect_index("{\"weight_map\":{\"a\":\"s3.safetensors\",\"b\":\"s2.safetensors\"}}", SLLM_OK, "");
    expect_index("{}", SLLM_ERROR_FORMAT, "no \"weight_map\"");
    expect_index("{\"weight_map\":{}}", SLLM_ERROR_FORMAT, "no \"weight_map\"");
    expect_index("{\"weight_map\":[]}", SLLM_ERROR_FORMAT, "no \"weight_map\"");
    expect_index("[", SLLM_ERROR_FORMAT, "m.safetensors.index.json");
    expect_index("{\"weight_map\":{\"a\":3}}", SLLM_ERROR_FORMAT, "must name a file beside it for tensor 'a'");
    static const char *const bad[] = {"../s1.safetensors", "/etc/passwd", "x/../s1.safetensors", "..", ".", "",
                                      "s1.safetensors\\u0000", "..\\\\s1.safetensors"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char index[256];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
        expect_index(index, SLLM_ERROR_FORMAT, "must name a file beside it");
    }
    char damaged[64] = "\377\377";
    put_file("s2.safetensors", damaged, sizeof damaged);
    expect_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}", SLLM_ERROR_FORMAT,
                 "s2.safetensors");
}

static void writes_what_it_reads(void **state) {
    (void)state;
    static const float matrix[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t ids[2] = {-1, 7};
    const sl_tensor declared[] = {
        {.name = "matrix \"\xc3\xa9\"", .type = SL_F32, .n_dims = 2, .shape = {2, 3}},
        {.name = "empty", .type = SL_F16, .n_dims = 2, .shape = {0, 3}},
        {.name = "ids", .type = SL_I64, .n_dims = 1, .shape = {2}},
    };
    sl_safetensors_writer *writer;
    sllm_error error = {0};
    if (sl_safetensors_writer_new(in_folder("out.safetensors"), declared, 3, &writer, &error))
        fail_msg("%s", error.message);
    assert_int_equal(sl_safetensors_writer_write(writer, matrix, 12, &error), SLLM_OK); /* row by row */
    assert_int_equal(sl_safetensors_writer_write(writer, matrix + 3, 12, &error), SLLM_OK);
    assert_false(sl_path_is_file(in_folder("out.safetensors"))); /* not before it is whole */
    assert_int_equal(sl_safetensors_writer_write(writer, ids, 16, &error), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_finish(writer, &error), SLLM_OK);
    assert_int_equal(files_in_folder(), 1);
    sl_safetensors *file;
    if (sl_safetensors_open(in_folder("out.safetensors"), &file, &error)) fail_msg("%s", error.message);
    assert_int_equal(sl_safetensors_count(file), 3);
    const sl_tensor *tensor = sl_safetensors_get(file, declared[0].name);
    assert_non_null(tensor);
    assert_memory_equal(tensor->data, matrix, sizeof matrix);
    assert_int_equal((uintptr_t)tensor->data % 8, 0);
    assert_memory_equal(sl_safetensors_get(file, "ids")->data, ids, sizeof ids);
    sl_safetensors_close(file);
}

static void writer_refuses(const sl_tensor *tensors, size_t count, sllm_status wanted, const char *text) {
    sl_safetensors_writer *writer;
    sllm_error error = {0};
    assert_int_equal(sl_safetensors_writer_new(in_folder("out.safetensors"), tensors, count, &writer, &error), wanted);
    assert_null(writer);
    if (!strstr(error.message, text)) fail_msg("%s", error.message);
}

static void a_failed_write_leaves_nothing(void **state) {
    (void)state;
    const sl_tensor one = {.name = "t", .type = SL_F32, .n_dims = 1, .shape = {4}};
    const sl_tensor twice[] = {one, one}, quantised = {.name = "t", .type = SL_Q8_0, .n_dims = 1, .shape = {32}};
    const sl_tensor huge = {.name = "t", .type = SL_F32, .n_dims = 2, .shape = {INT64_MAX, 4}};
    const sl_tensor reserved = {.name = "__metadata__", .type = SL_F32, .n_dims = 1, .shape = {4}};
    writer_refuses(twice, 2, SLLM_ERROR_ARGUMENT, "declared twice");
    writer_refuses(&quantised, 1, SLLM_ERROR_UNSUPPORTED, "no element type Q8_0");
    writer_refuses(&huge, 1, SLLM_ERROR_ARGUMENT, "out of range");
    writer_refuses(&reserved, 1, SLLM_ERROR_ARGUMENT, "cannot be named");
    sl_safetensors_writer *writer;
    sllm_error error = {0};
    float values[5] = {0};
    const char *path = in_folder("out.safetensors");
    assert_int_equal(sl_safetensors_writer_new(path, &one, 1, &writer, &error), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_write(writer, values, 12, &error), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_finish(writer, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "4 of the declared bytes were never written"));
    assert_int_equal(sl_safetensors_writer_new(path, &one, 1, &writer, &error), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_write(writer, values, 20, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_safetensors_writer_write(writer, values, 16, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_safetensors_writer_finish(writer, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_safetensors_writer_new(path, &one, 1, &writer, &error), SLLM_OK);
    sl_safetensors_writer_abandon(writer);
    assert_int_equal(sl_safetensors_writer_new("/nonexistent/out", &one, 1, &writer, &error), SLLM_ERROR_NOT_FOUND);
    bool failed = true;
    for (long n = 1; failed; n++) {
        fail_alloc_arm(n, true);
        sllm_status status = sl_safetensors_writer_new(path, &one, 1, &writer, &error);
        failed = fail_alloc_disarm();
        assert_int_equal(status, failed ? SLLM_ERROR_MEMORY : SLLM_OK);
        sl_safetensors_writer_abandon(writer);
    }
    assert_int_equal(files_in_folder(), 0);
}

/* A full disk, as a limit on the size of files. The old file stays. */
static void a_full_disk_is_an_error(void **state) {
    (void)state;
    enum { MEGABYTE = 1 << 20 };
    const sl_tensor one = {.name = "t", .type = SL_U8, .n_dims = 1, .shape = {MEGABYTE}};
    struct rlimit old, small;
    sl_safetensors_writer *writer;
    sllm_error error = {0};
    char *bytes = calloc(1, MEGABYTE);
    assert_non_null(bytes);
    put_file("out.safetensors", "old", 3);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = MEGABYTE / 2;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    sllm_status made = sl_safetensors_writer_new(in_folder("out.safetensors"), &one, 1, &writer, &error);
    sllm_status written = made ? made : sl_safetensors_writer_write(writer, bytes, MEGABYTE, &error);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(made, SLLM_OK);
    assert_int_equal(written, SLLM_ERROR_IO);
    assert_non_null(strstr(error.message, "out.safetensors: cannot write"));
    assert_int_equal(sl_safetensors_writer_finish(writer, &error), SLLM_ERROR_IO);
    assert_int_equal(files_in_folder(), 1);
    struct stat status;
    assert_int_equal(stat(in_folder("out.safetensors"), &status), 0);
    assert_int_equal(status.st_size, 3);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_tensors),
        cmocka_unit_test(knows_every_type),
        cmocka_unit_test(refuses_lying_headers),
        cmocka_unit_test(refuses_lying_tensors),
        cmocka_unit_test(bounds_nesting),
        cmocka_unit_test(truncated_anywhere_is_an_error),
        cmocka_unit_test(flipped_bytes_never_crash),
        cmocka_unit_test(failed_allocations_are_errors),
        cmocka_unit_test_setup_teardown(opens_shards, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(writes_what_it_reads, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_failed_write_leaves_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_full_disk_is_an_error, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
