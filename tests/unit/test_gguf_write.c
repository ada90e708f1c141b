/* The GGUF writer: what is written reads back, an unfinished file is taken up, nothing half stands under the final name. */
#include "base/file.h"
#include "format/gguf.h"
#include "format/gguf_write.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TENSORS = 5, SPLIT = 650 /* three parts */ };
static char folder[] = "/tmp/sllm-gguf-XXXXXX";
static sl_tensor tensors[TENSORS];
static uint8_t bytes[TENSORS][4096];

static int set_up(void **state) {
    static const struct { const char *name; sl_type type; int64_t rows, columns; } given[TENSORS] = {
        {"a", SL_F32, 1, 7}, {"b.weight", SL_Q4_0, 3, 64}, {"c", SL_BF16, 5, 3}, {"d", SL_Q6_K, 2, 256}, {"e", SL_F16, 1, 1},
    };
    (void)state;
    if (!mkdtemp(folder)) return 1;
    for (int i = 0; i < TENSORS; i++) {
        sl_tensor *t = &tensors[i];
        *t = (sl_tensor){.name = given[i].name, .type = given[i].type, .n_dims = 2, .shape = {given[i].rows, given[i].columns}};
        t->n_elements = (uint64_t)(given[i].rows * given[i].columns);
        sl_type_bytes(t->type, t->n_elements, &t->bytes);
        for (uint64_t k = 0; k < t->bytes; k++) bytes[i][k] = (uint8_t)(k * 31 + (uint64_t)i);
    }
    return 0;
}

static const char *path_of(const char *name) {
    static char path[4][256];
    static int at;
    at = (at + 1) % 4;
    snprintf(path[at], sizeof path[at], "%s/%s", folder, name);
    return path[at];
}

static sl_gguf_fields fields_of(void) {
    static const char *const words[] = {"one", "two", ""};
    static const int32_t ids[] = {-1, 5};
    sl_gguf_fields f = {0};
    sl_gguf_put_string(&f, "general.architecture", "llama", 5);
    sl_gguf_put_u32(&f, "n", 7);
    sl_gguf_put_f32(&f, "x", 0.5f);
    sl_gguf_put_bool(&f, "yes", true);
    sl_gguf_put_strings(&f, "words", words, NULL, 3);
    sl_gguf_put_i32s(&f, "ids", ids, 2);
    return f;
}

/* Writes from *n_done up to tensor `end` (TENSORS: finishes). */
static sllm_status write_some(const char *path, const char *recipe, uint64_t split, int end, size_t *n_done) {
    sl_gguf_fields f = fields_of();
    sl_gguf_claim claim;
    sl_gguf_writer_params params = {.recipe = recipe, .split_bytes = split, .claim = &claim};
    sl_gguf_writer *w;
    sllm_error error = {0};
    sllm_status status = sl_gguf_claim_take(path, split > 0, &claim, &error);
    if (!status) status = sl_gguf_writer_new(path, &f, tensors, TENSORS, &params, &w, n_done, &error);
    sl_gguf_fields_free(&f);
    if (status) {
        sl_gguf_claim_drop(&claim);
        return status;
    }
    for (int i = (int)*n_done; i < end && !status; i++) {
        size_t half = (size_t)tensors[i].bytes / 2; /* in two portions */
        status = sl_gguf_writer_write(w, bytes[i], half, &error);
        if (!status) status = sl_gguf_writer_write(w, bytes[i] + half, (size_t)tensors[i].bytes - half, &error);
    }
    if (end == TENSORS && !status) status = sl_gguf_writer_finish(w, &error);
    else sl_gguf_writer_abandon(w, true);
    sl_gguf_claim_drop(&claim);
    return status;
}

static void check_file(const char *path) {
    sl_gguf *g;
    sl_gguf_value value;
    sllm_error error = {0};
    if (sl_gguf_open(path, &g, &error)) fail_msg("%s", error.message);
    assert_int_equal(sl_gguf_tensor_count(g), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const sl_tensor *t = sl_gguf_tensor(g, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->type, tensors[i].type);
        assert_memory_equal(t->shape, tensors[i].shape, 16);
        assert_memory_equal(t->data, bytes[i], (size_t)t->bytes);
    }
    assert_true(sl_gguf_find(g, "words", &value));
    assert_int_equal(value.array.count, 3);
    assert_true(sl_gguf_find(g, "n", &value) && value.u == 7);
    sl_gguf_close(g);
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static void test_whole(void **state) {
    size_t done;
    (void)state;
    const char *path = path_of("whole.gguf");
    assert_int_equal(write_some(path, NULL, 0, TENSORS, &done), SLLM_OK);
    assert_int_equal(done, 0);
    check_file(path);
    assert_false(exists(path_of("whole.gguf.part")));
}

static void test_split(void **state) {
    size_t done;
    (void)state;
    assert_int_equal(write_some(path_of("split.gguf"), "r", SPLIT, TENSORS, &done), SLLM_OK);
    check_file(path_of("split-00001-of-00003.gguf"));
    struct stat one;
    for (int i = 1; i <= 3; i++) { /* headers count */
        char name[64];
        snprintf(name, sizeof name, "split-%05d-of-00003.gguf", i);
        assert_int_equal(stat(path_of(name), &one), 0);
        assert_true(one.st_size <= SPLIT);
    }
    assert_false(exists(path_of("split.gguf")));
    assert_false(exists(path_of("split.gguf.part.journal")));
}

static void resume(const char *name, uint64_t split, const char *first_part) {
    size_t done;
    for (int stop = 1; stop < TENSORS; stop++) {
        assert_int_equal(write_some(path_of(name), "recipe", split, stop, &done), SLLM_OK);
        assert_false(exists(path_of(first_part)));
        assert_int_equal(write_some(path_of(name), "recipe", split, TENSORS, &done), SLLM_OK);
        assert_int_equal(done, stop);
        check_file(path_of(first_part));
        assert_int_equal(unlink(path_of(first_part)), 0);
    }
}

static void test_resume(void **state) {
    (void)state;
    resume("resume.gguf", 0, "resume.gguf");
    resume("parts.gguf", SPLIT, "parts-00001-of-00003.gguf");
}

static void test_other_recipe_begins_anew(void **state) {
    size_t done;
    (void)state;
    assert_int_equal(write_some(path_of("anew.gguf"), "one", 0, 3, &done), SLLM_OK);
    assert_int_equal(write_some(path_of("anew.gguf"), "two", 0, TENSORS, &done), SLLM_OK);
    assert_int_equal(done, 0);
    check_file(path_of("anew.gguf"));
}

static void test_cut_file_begins_anew(void **state) {
    size_t done;
    (void)state;
    assert_int_equal(write_some(path_of("cut.gguf"), "r", 0, 3, &done), SLLM_OK);
    assert_int_equal(truncate(path_of("cut.gguf.part"), 100), 0);
    assert_int_equal(write_some(path_of("cut.gguf"), "r", 0, TENSORS, &done), SLLM_OK);
    assert_int_equal(done, 0);
    check_file(path_of("cut.gguf"));
}

/* A disk that fills up, by a limit on the size of files. */
static void test_full_disk(void **state) {
    struct rlimit old, small;
    size_t done;
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 700;
    setrlimit(RLIMIT_FSIZE, &small);
    sllm_status status = write_some(path_of("full.gguf"), "r", 0, TENSORS, &done);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, SLLM_ERROR_IO);
    assert_false(exists(path_of("full.gguf")));
    assert_int_equal(write_some(path_of("full.gguf"), "r", 0, TENSORS, &done), SLLM_OK);
    assert_true(done > 0);
    check_file(path_of("full.gguf"));
}

static void test_arguments(void **state) {
    sl_gguf_fields f = {0};
    sl_gguf_writer_params params = {0};
    sl_gguf_writer *w;
    size_t done;
    sllm_error error = {0};
    sl_tensor twice[2] = {tensors[0], tensors[0]}, odd = tensors[1];
    (void)state;
    odd.shape[1] = 33;
    assert_int_equal(sl_gguf_writer_new(path_of("x.gguf"), &f, twice, 2, &params, &w, &done, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_new(path_of("x.gguf"), &f, &odd, 1, &params, &w, &done, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_gguf_writer_new(folder, &f, tensors, 1, &params, &w, &done, &error), SLLM_ERROR_IO);
    assert_int_equal(sl_gguf_writer_new(path_of("no/x.gguf"), &f, tensors, 1, &params, &w, &done, &error), SLLM_ERROR_NOT_FOUND);
    assert_int_equal(sl_gguf_writer_new(path_of("x.gguf"), &f, tensors, 1, &params, &w, &done, &error), SLLM_OK);
    assert_int_equal(sl_gguf_writer_finish(w, &error), SLLM_ERROR_ARGUMENT);
    assert_false(exists(path_of("x.gguf")));
    assert_false(exists(path_of("x.gguf.part")));
}

/* One run at a time, from the claim on; nothing is left of one that was not used. A link's target is what is replaced. */
static void test_claim(void **state) {
    sl_gguf_claim one, two;
    size_t done;
    sllm_error error = {0};
    struct stat s;
    (void)state;
    assert_int_equal(sl_gguf_claim_take(path_of("claim.gguf"), false, &one, &error), SLLM_OK);
    assert_int_equal(sl_gguf_claim_take(path_of("claim.gguf"), false, &two, &error), SLLM_ERROR_IO);
    sl_gguf_claim_drop(&one);
    assert_false(exists(path_of("claim.gguf.part.journal")));
    assert_int_equal(sl_gguf_claim_take(folder, false, &one, &error), SLLM_ERROR_IO);
    assert_int_equal(sl_gguf_claim_take(path_of("no/x.gguf"), false, &one, &error), SLLM_ERROR_NOT_FOUND);
    assert_null(strstr(error.message, "journal"));
    assert_int_equal(symlink("claim.gguf", path_of("link.gguf")), 0);
    assert_int_equal(sl_gguf_claim_take(path_of("link.gguf"), false, &one, &error), SLLM_ERROR_IO);
    assert_int_equal(write_some(path_of("claim.gguf"), "r", 0, TENSORS, &done), SLLM_OK);
    assert_int_equal(write_some(path_of("link.gguf"), NULL, 0, TENSORS, &done), SLLM_OK);
    assert_int_equal(lstat(path_of("link.gguf"), &s), 0);
    assert_true(S_ISLNK(s.st_mode));
    check_file(path_of("claim.gguf"));
}

/* A source must not be replaced by what is made of it, under whichever name. */
static void test_source(void **state) {
    sl_gguf_fields f = fields_of();
    sl_gguf_claim claim;
    sl_gguf *source;
    sl_gguf_writer *w;
    size_t done;
    sllm_error error = {0};
    (void)state;
    assert_int_equal(write_some(path_of("own.gguf"), "r", SPLIT, TENSORS, &done), SLLM_OK);
    assert_int_equal(sl_gguf_open(path_of("own-00001-of-00003.gguf"), &source, &error), SLLM_OK);
    assert_int_equal(sl_gguf_claim_take(path_of("own.gguf"), true, &claim, &error), SLLM_OK);
    sl_gguf_writer_params params = {.split_bytes = SPLIT, .claim = &claim, .source = source};
    assert_int_equal(sl_gguf_writer_new(path_of("own.gguf"), &f, tensors, TENSORS, &params, &w, &done, &error), SLLM_ERROR_ARGUMENT);
    sl_gguf_claim_drop(&claim);
    sl_gguf_close(source);
    sl_gguf_fields_free(&f);
    check_file(path_of("own-00001-of-00003.gguf"));
}

static int tear_down(void **state) {
    char command[300];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole), cmocka_unit_test(test_split), cmocka_unit_test(test_resume),
        cmocka_unit_test(test_other_recipe_begins_anew), cmocka_unit_test(test_cut_file_begins_anew),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_arguments), cmocka_unit_test(test_claim),
        cmocka_unit_test(test_source),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
