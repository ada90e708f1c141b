/* Folders of tokenizer files: which loader is taken, which settings count, which special tokens follow. What ids are
 * right is settled by the golden data (tests/golden/tokenizer_forms.c). */
#include "unit/fail_alloc.h"

#include "base/file.h"
#include "text/load_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---------------------------------------------------------------- a folder of files */

typedef struct folder {
    char path[512];
    const char *names[8];
    size_t n;
} folder;

static folder make_folder(void) {
    folder f = {0};
    const char *base = getenv("TMPDIR");
    snprintf(f.path, sizeof f.path, "%s/sllm-test-XXXXXX", base && *base ? base : P_tmpdir);
    assert_non_null(mkdtemp(f.path));
    return f;
}

static void put(folder *f, const char *name, const char *text) {
    char path[600];
    sllm_error error = {0};
    f->names[f->n++] = name;
    assert_true(sl_path_join(path, sizeof path, f->path, name));
    assert_int_equal(sl_file_write(path, text, strlen(text), &error), SLLM_OK);
}

static void remove_folder(folder *f) {
    char path[600];
    for (size_t i = 0; i < f->n; i++)
        if (sl_path_join(path, sizeof path, f->path, f->names[i])) unlink(path);
    rmdir(f->path);
}

static sl_tokenizer *load(folder *f) {
    sl_tokenizer *tokenizer;
    sllm_error error = {0};
    if (sl_tokenizer_from_path(f->path, &tokenizer, &error) != SLLM_OK) fail_msg("%s", error.message);
    remove_folder(f);
    return tokenizer;
}

static void refuse(folder *f, sllm_status wanted, const char *named) {
    sl_tokenizer *tokenizer = (sl_tokenizer *)1;
    sllm_error error = {0};
    assert_int_equal(sl_tokenizer_from_path(f->path, &tokenizer, &error), wanted);
    assert_null(tokenizer);
    if (!strstr(error.message, named)) fail_msg("\"%s\" does not name %s", error.message, named);
    remove_folder(f);
}

static void check_token(const sl_tokenizer *tokenizer, int32_t id, const char *text) {
    const char *got = sl_tokenizer_text(tokenizer, id);
    if (!got || strcmp(got, text)) fail_msg("token %d is %s, not %s", id, got ? got : "absent", text);
    assert_true(sl_tokenizer_is_special(tokenizer, id));
}

static void check_special(const sl_tokenizer *tokenizer, sl_special which, const char *text) {
    int32_t id = sl_tokenizer_special(tokenizer, which);
    const char *got = id < 0 ? NULL : sl_tokenizer_text(tokenizer, id);
    if (text ? !got || strcmp(got, text) : id >= 0)
        fail_msg("special token %d is %s, not %s", (int)which, got ? got : "absent", text ? text : "absent");
}

/* ---------------------------------------------------------------- tiktoken */

/* Ranks that say nothing, but as many as cl100k_base has: one byte each, then what no text holds. */
static void put_ranks(folder *f, const char *name, int n) {
    sl_buffer out = {0};
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < n; i++) {
        if (i < 256) sl_buffer_printf(&out, "%c%c== %d\n", letters[i >> 2], letters[(i & 3) << 4], i);
        else sl_buffer_printf(&out, "/%c%c%c %d\n", letters[i >> 12 & 63], letters[i >> 6 & 63], letters[i & 63], i);
    }
    assert_non_null(out.data);
    put(f, name, out.data);
    sl_buffer_free(&out);
}

static void phi3_small_has_its_own_special_tokens(void **state) {
    (void)state;
    folder f = make_folder();
    put_ranks(&f, "cl100k_base.tiktoken", 100256);
    put(&f, "config.json", "{\"model_type\": \"phi3small\"}");
    sl_tokenizer *tokenizer = load(&f);
    static const struct { int32_t id; const char *text; } wanted[] = { /* from the published tokenizer */
        {100256, "<|dummy_id_2|>"}, {100257, "<|endoftext|>"}, {100258, "<|fim_prefix|>"}, {100259, "<|fim_middle|>"},
        {100260, "<|fim_suffix|>"}, {100261, "<|system|>"}, {100262, "<|user|>"}, {100263, "<|assistant|>"},
        {100264, "<|dummy_id_0|>"}, {100265, "<|dummy_id_1|>"}, {100266, "<|end|>"}, {100267, "<|dummy_id_3|>"},
        {100275, "<|dummy_id_11|>"}, {100276, "<|endofprompt|>"}, {100277, "<|dummy_id_12|>"},
        {100351, "<|"
                 "dummy_id_86|>"}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) check_token(tokenizer, wanted[i].id, wanted[i].text);
    assert_int_equal(sl_tokenizer_size(tokenizer), 100352);
    check_special(tokenizer, SL_SPECIAL_BOS, "<|endoftext|>");
    check_special(tokenizer, SL_SPECIAL_EOS, "<|endoftext|>");
    check_special(tokenizer, SL_SPECIAL_FIM_PREFIX, "<|fim_prefix|>");
    check_special(tokenizer, SL_SPECIAL_FIM_SUFFIX, "<|fim_suffix|>");
    check_special(tokenizer, SL_SPECIAL_FIM_MIDDLE, "<|fim_middle|>");
    assert_false(sl_tokenizer_adds_bos(tokenizer));
    sl_tokenizer_free(tokenizer);
}

static void tiktoken_encodings_follow_from_model_or_name(void **state) {
    (void)state;
    folder f = make_folder();
    put_ranks(&f, "cl100k_base.tiktoken", 300);
    sl_tokenizer *tokenizer = load(&f);
    check_token(tokenizer, 100257, "<|endoftext|>");
    check_token(tokenizer, 100260, "<|fim_suffix|>");
    check_token(tokenizer, 100276, "<|endofprompt|>");
    assert_null(sl_tokenizer_text(tokenizer, 100261));
    sl_tokenizer_free(tokenizer);

    f = make_folder();
    put_ranks(&f, "ranks.tiktoken", 300);
    put(&f, "tokenizer_config.json", "{\"tokenizer_class\": \"QWenTokenizer\"}");
    tokenizer = load(&f);
    check_token(tokenizer, 300, "<|endoftext|>");
    check_token(tokenizer, 302, "<|im_end|>");
    check_token(tokenizer, 303, "<|extra_0|>");
    assert_int_equal(sl_tokenizer_size(tokenizer), 508);
    sl_tokenizer_free(tokenizer);

    f = make_folder();
    put_ranks(&f, "tokenizer.model", 300);
    tokenizer = load(&f);
    check_token(tokenizer, 300, "<|begin_of_text|>");
    check_token(tokenizer, 309, "<|eot_id|>");
    check_token(tokenizer, 555, "<|reserved_special_token_250|>");
    assert_int_equal(sl_tokenizer_size(tokenizer), 556);
    assert_true(sl_tokenizer_adds_bos(tokenizer));
    sl_tokenizer_free(tokenizer);

    f = make_folder();
    put_ranks(&f, "ranks.tiktoken", 300);
    refuse(&f, SLLM_ERROR_UNSUPPORTED, "model_type");
    f = make_folder();
    put(&f, "qwen.tiktoken", "QQ== 0\nnonsense\n");
    refuse(&f, SLLM_ERROR_FORMAT, "line 2");
}

/* ---------------------------------------------------------------- special tokens of a tokenizer.json */

#define TOKENIZER(added) \
    "{\"added_tokens\":[" added "],\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"}," \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}"
#define ADDED(id, text) "{\"id\":" #id ",\"content\":\"" text "\",\"special\":true}"

static void special_tokens_go_by_settings_then_by_name(void **state) {
    (void)state;
    static const char json[] = TOKENIZER(ADDED(2, "<s>") "," ADDED(3, "</s>") "," ADDED(4, "<fim_prefix>") ","
                                         ADDED(5, "<fim_suffix>") "," ADDED(6, "<fim_middle>") "," ADDED(7, "<end>"));
    folder f = make_folder();
    put(&f, "tokenizer.json", json);
    sl_tokenizer *tokenizer = load(&f);
    check_special(tokenizer, SL_SPECIAL_BOS, "<s>");
    check_special(tokenizer, SL_SPECIAL_EOS, "</s>");
    check_special(tokenizer, SL_SPECIAL_FIM_PREFIX, "<fim_prefix>");
    check_special(tokenizer, SL_SPECIAL_FIM_SUFFIX, "<fim_suffix>");
    check_special(tokenizer, SL_SPECIAL_FIM_MIDDLE, "<fim_middle>");
    sl_tokenizer_free(tokenizer);

    f = make_folder();
    put(&f, "tokenizer.json", json);
    put(&f, "special_tokens_map.json", "{\"eos_token\": {\"content\": \"<end>\"}, \"pad_token\": \"</s>\"}");
    tokenizer = load(&f);
    check_special(tokenizer, SL_SPECIAL_BOS, NULL); /* the files say what there is */
    check_special(tokenizer, SL_SPECIAL_EOS, "<end>");
    check_special(tokenizer, SL_SPECIAL_PAD, "</s>");
    sl_tokenizer_free(tokenizer);

    f = make_folder();
    put(&f, "tokenizer.json", json);
    put(&f, "special_tokens_map.json", "{\"eos_token\": \"<end>\", \"pad_token\": \"<end>\"}");
    put(&f, "tokenizer_config.json", "{\"eos_token\": \"</s>\", \"bos_token\": null}");
    tokenizer = load(&f);
    check_special(tokenizer, SL_SPECIAL_EOS, "</s>"); /* tokenizer_config.json comes first */
    check_special(tokenizer, SL_SPECIAL_PAD, "<end>");
    check_special(tokenizer, SL_SPECIAL_BOS, NULL);
    sl_tokenizer_free(tokenizer);
}

static void one_token_may_begin_and_end_a_text(void **state) {
    (void)state;
    folder f = make_folder();
    put(&f, "tokenizer.json", TOKENIZER(ADDED(2, "<|endoftext|>")));
    sl_tokenizer *tokenizer = load(&f); /* GPT-2 */
    check_special(tokenizer, SL_SPECIAL_BOS, "<|endoftext|>");
    check_special(tokenizer, SL_SPECIAL_EOS, "<|endoftext|>");
    sl_tokenizer_free(tokenizer);
    f = make_folder();
    put(&f, "tokenizer.json", TOKENIZER(ADDED(2, "<|endoftext|>") "," ADDED(3, "<|im_start|>")));
    tokenizer = load(&f); /* Qwen */
    check_special(tokenizer, SL_SPECIAL_BOS, NULL);
    check_special(tokenizer, SL_SPECIAL_EOS, "<|endoftext|>");
    sl_tokenizer_free(tokenizer);
}

/* ---------------------------------------------------------------- vocab.json and merges.txt */

static void roberta_wraps_its_texts(void **state) {
    (void)state;
    folder f = make_folder();
    sl_ids ids = {0};
    sllm_error error = {0};
    put(&f, "vocab.json", "{\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3,\"ab\":4,\"<mask>\":5,\"<x>\":6}");
    put(&f, "merges.txt", "#version: 0.2\r\na b\r\n");
    put(&f, "config.json", "{\"model_type\": \"roberta\"}");
    put(&f, "added_tokens.json", "{\"<new>\": 7}");
    sl_tokenizer *tokenizer = load(&f);
    assert_int_equal(sl_tokenizer_encode(tokenizer, NULL, "ab<new>a", 8, SLLM_TOKENIZE_ADD, &ids, &error), SLLM_OK);
    static const int32_t wanted[] = {0, 4, 7, 2, 1};
    assert_int_equal(ids.length, 5);
    assert_memory_equal(ids.data, wanted, sizeof wanted);
    assert_true(sl_tokenizer_is_special(tokenizer, 5));
    assert_false(sl_tokenizer_is_special(tokenizer, 6));
    assert_false(sl_tokenizer_is_special(tokenizer, 7));
    free(ids.data);
    sl_tokenizer_free(tokenizer);
}

static void bad_folders_are_named(void **state) {
    (void)state;
    folder f = make_folder();
    put(&f, "vocab.json", "{\"a\":0}");
    refuse(&f, SLLM_ERROR_NOT_FOUND, "merges.txt");
    f = make_folder();
    put(&f, "vocab.json", "{\"a\":0}");
    put(&f, "merges.txt", "a zz\n");
    refuse(&f, SLLM_ERROR_FORMAT, "\"zz\"");
    f = make_folder();
    put(&f, "vocab.json", "[1]");
    put(&f, "merges.txt", "a b\n");
    refuse(&f, SLLM_ERROR_FORMAT, "vocab.json");
    f = make_folder();
    put(&f, "vocab.txt", "a\nb\n");
    refuse(&f, SLLM_ERROR_FORMAT, "[UNK]");
    f = make_folder();
    put(&f, "tokenizer.model", "this is no protocol buffer");
    refuse(&f, SLLM_ERROR_FORMAT, "SentencePiece");
    f = make_folder();
    put(&f, "tokenizer.json", TOKENIZER(""));
    put(&f, "special_tokens_map.json", "{");
    refuse(&f, SLLM_ERROR_FORMAT, "special_tokens_map.json");
    f = make_folder();
    refuse(&f, SLLM_ERROR_NOT_FOUND, "*.tiktoken");
}

/* ---------------------------------------------------------------- vocabularies of GGUF files */

/* The tokenizer of a GGUF file of fuzz_vocab's corpus, whose first line is a text. */
static sl_tokenizer *load_vocabulary(const char *name, sllm_status wanted, sllm_error *error) {
    char path[1024];
    sl_buffer text = {0};
    sl_gguf *gguf;
    sl_tokenizer *tokenizer;
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/fuzz_vocab/%s", SLLM_SOURCE_DIR, name);
    assert_int_equal(sl_file_read(path, 1 << 20, &text, error), SLLM_OK);
    const char *file = strchr(text.data, '\n') + 1;
    assert_int_equal(sl_gguf_open_memory(file, text.length - (size_t)(file - text.data), &gguf, error), SLLM_OK);
    assert_int_equal(sl_tokenizer_from_gguf(gguf, &tokenizer, error), wanted);
    sl_gguf_close(gguf);
    sl_buffer_free(&text);
    return tokenizer;
}

/* A merge that names no token is refused from a GGUF file as from a tokenizer.json. */
static void bad_merges_of_gguf_are_named(void **state) {
    (void)state;
    sllm_error error = {0};
    load_vocabulary("bad_merge", SLLM_ERROR_FORMAT, &error);
    assert_non_null(strstr(error.message, "tokenizer.ggml.merges[0]: \"zz\""));
}

/* Encodes and decodes text, which must come back as `wanted`; returns the number of ids. */
static size_t check_round_trip(const sl_tokenizer *tokenizer, const char *text, const char *wanted) {
    sl_ids ids = {0};
    sl_buffer out = {0};
    sllm_error error = {0};
    assert_int_equal(sl_tokenizer_encode(tokenizer, NULL, text, strlen(text), SLLM_TOKENIZE_SPECIAL, &ids, &error),
                     SLLM_OK);
    assert_int_equal(sl_tokenizer_decode(tokenizer, ids.data, ids.length, false, &out, &error), SLLM_OK);
    assert_string_equal(out.data, wanted);
    size_t n = ids.length;
    free(ids.data);
    sl_buffer_free(&out);
    return n;
}

/* A character map from outside must leave the text UTF-8, on which every later step counts. */
static void charsmaps_do_not_cut_characters(void **state) {
    (void)state;
    sllm_error error = {0};
    sl_tokenizer *tokenizer = load_vocabulary("t5_charsmap", SLLM_OK, &error);
    assert_int_equal(check_round_trip(tokenizer, "A", "a"), 1); /* the map is read at all */
    sl_tokenizer_free(tokenizer);
    load_vocabulary("t5_charsmap_not_utf8", SLLM_ERROR_FORMAT, &error);
    assert_non_null(strstr(error.message, "precompiled_charsmap"));
    tokenizer = load_vocabulary("t5_charsmap_cuts_key", SLLM_OK, &error); /* C3 becomes "a", and A9 would be left */
    assert_int_equal(check_round_trip(tokenizer, "b\xC3\xA9", "b<unk>"), 3);
    sl_tokenizer_free(tokenizer);
    tokenizer = load_vocabulary("t5_charsmap_cuts_text", SLLM_OK, &error);
    assert_int_equal(check_round_trip(tokenizer, "bA", "b<unk>"), 3);
    sl_tokenizer_free(tokenizer);
}

/* Nor must a token that is part of a character: it is found in no text. */
static void half_characters_are_not_found(void **state) {
    (void)state;
    static const char text[] = "ab\xF0\x9F\x98\x80\xE4\xB8\xAD \xF0\x9F\x98\x80";
    static const char *const names[] = {"llama_half_characters", "llama_half_characters_no_prefix"};
    sllm_error error = {0};
    for (size_t i = 0; i < 2; i++) {
        sl_tokenizer *tokenizer = load_vocabulary(names[i], SLLM_OK, &error);
        /* "ab" with the blank before it or without, then each byte by itself */
        assert_int_equal(check_round_trip(tokenizer, text, text), 1 + 4 + 3 + 1 + 4);
        int32_t half = sl_tokenizer_find(tokenizer, "\x9F\x98\x80", 3);
        sl_buffer out = {0};
        assert_int_equal(sl_tokenizer_decode(tokenizer, &half, 1, false, &out, &error), SLLM_OK);
        assert_string_equal(out.data, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
        sl_buffer_free(&out);
        sl_tokenizer_free(tokenizer);
    }
}

/* ---------------------------------------------------------------- memory */

/* Every allocation of a loader fails once: SLLM_ERROR_MEMORY each time, and nothing leaks (the sanitizers see to that).
 * PCRE2 may do without the memory for machine code. */
static sllm_status load_bytes(const char *name, const char *text, size_t length, const char *merges) {
    sl_tokenizer_files files = {.name = name, .text = {.data = (char *)text, .length = length}};
    sl_tokenizer *tokenizer = NULL;
    sllm_error error = {0};
    if (merges) files.merges = (sl_buffer){.data = (char *)merges, .length = strlen(merges)};
    sllm_status status = sl_tokenizer_from_files(&files, &tokenizer, &error);
    sl_tokenizer_free(tokenizer);
    return status;
}

static void fail_each_allocation(const char *name, const char *text, size_t length, const char *merges) {
    assert_int_equal(load_bytes(name, text, length, merges), SLLM_OK);
    bool hit = true;
    for (long n = 1; hit; n++) {
        fail_alloc_arm(n, false);
        sllm_status status = load_bytes(name, text, length, merges);
        hit = fail_alloc_disarm();
        if (hit && status != SLLM_ERROR_MEMORY && status != SLLM_OK)
            fail_msg("%s: allocation %ld gives status %d", name, n, status);
        if (!hit) assert_true(n > 10);
    }
}

static void failed_allocations_are_reported(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"tokenizer.model", "bpe_model"}, {"tokenizer.model", "unigram_model"},
                                           {"vocab.txt", "vocab_txt"}, {"qwen.tiktoken", "tiktoken_qwen"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[1024];
        sl_buffer text = {0};
        sllm_error error = {0};
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/fuzz_tokenizer_files/%s", SLLM_SOURCE_DIR, cases[i][1]);
        assert_int_equal(sl_file_read(path, 1 << 20, &text, &error), SLLM_OK);
        const char *file = strchr(strchr(text.data, '\n') + 1, '\n') + 1; /* behind the name and a text */
        fail_each_allocation(cases[i][0], file, text.length - (size_t)(file - text.data), NULL);
        sl_buffer_free(&text);
    }
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3}";
    fail_each_allocation("vocab.json", vocab, strlen(vocab), "a b\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phi3_small_has_its_own_special_tokens),
        cmocka_unit_test(tiktoken_encodings_follow_from_model_or_name),
        cmocka_unit_test(special_tokens_go_by_settings_then_by_name),
        cmocka_unit_test(one_token_may_begin_and_end_a_text),
        cmocka_unit_test(roberta_wraps_its_texts),
        cmocka_unit_test(bad_folders_are_named),
        cmocka_unit_test(bad_merges_of_gguf_are_named),
        cmocka_unit_test(charsmaps_do_not_cut_characters), cmocka_unit_test(half_characters_are_not_found),
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
