/* Checkpoint folders: which files count, which are refused, and the same seen through the public sllm_tensor_file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/checkpoint.h"
#include "unit/fail_alloc.h"
#include "unit/gguf_builder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/test_checkpoint.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static void empty_folder(const char *path) {
    DIR *directory = opendir(path);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char inner[1024];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (sl_path_is_directory(inner)) empty_folder(inner), rmdir(inner);
        else unlink(inner);
    }
    closedir(directory);
}

static int remove_folder(void **state) {
    (void)state;
    empty_folder(folder);
    return rmdir(folder);
}

static void put(const char *name, const char *text) {
    assert_int_equal(sl_file_write(in_folder(name), text, strlen(text), NULL), SLLM_OK);
}

/* A safetensors file of one f32 tensor `w` [2,3] = 1..6. */
static void put_weights(const char *name) {
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const sl_tensor tensor = {.name = "w", .type = SL_F32, .n_dims = 2, .shape = {2, 3}};
    sl_safetensors_writer *writer;
    assert_int_equal(sl_safetensors_writer_new(in_folder(name), &tensor, 1, &writer, NULL), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_write(writer, values, sizeof values, NULL), SLLM_OK);
    assert_int_equal(sl_safetensors_writer_finish(writer, NULL), SLLM_OK);
}

static sl_checkpoint *open_folder(bool vocab_only) {
    sl_checkpoint *checkpoint;
    sllm_error error = {0};
    if (sl_checkpoint_open(folder, vocab_only, &checkpoint, &error)) fail_msg("%s", error.message);
    return checkpoint;
}

static void expect_failure(sllm_status wanted, const char *text) {
    sl_checkpoint *checkpoint;
    sllm_error error = {0};
    sllm_status status = sl_checkpoint_open(folder, false, &checkpoint, &error);
    assert_null(checkpoint);
    if (status != wanted || !strstr(error.message, text))
        fail_msg("wanted %d '%s', got %d '%s'", wanted, text, status, error.message);
}

static void opens_a_folder(void **state) {
    (void)state;
    put("config.json", "{\"model_type\":\"llama\"}");
    put("generation_config.json", "{\"eos_token_id\":[1,2]}");
    put("special_tokens_map.json", "{\"bos_token\":\"<s>\"}");
    sl_checkpoint *checkpoint = open_folder(true); /* no weights yet, and none asked for */
    assert_null(checkpoint->weights);
    sl_checkpoint_close(checkpoint);
    put_weights("model.safetensors");
    put_weights("expected.safetensors");
    put("pytorch_model.bin", "pickle"); /* beside safetensors it does no harm */
    checkpoint = open_folder(false);
    assert_string_equal(sl_json_string(sl_json_get(checkpoint->config, "model_type")), "llama");
    assert_int_equal(sl_json_get(checkpoint->generation_config, "eos_token_id")->length, 2);
    assert_string_equal(sl_json_string(sl_json_get(checkpoint->special_tokens_map, "bos_token")), "<s>");
    assert_null(checkpoint->tokenizer_config);
    assert_null(checkpoint->chat_template);
    assert_int_equal(sl_safetensors_count(checkpoint->weights), 1);
    assert_string_equal(checkpoint->path, folder);
    sl_checkpoint_close(checkpoint);
    bool failed = true;
    for (long n = 1; failed; n++) {
        sllm_error error = {0};
        fail_alloc_arm(n, true);
        sllm_status status = sl_checkpoint_open(folder, false, &checkpoint, &error);
        failed = fail_alloc_disarm();
        assert_int_equal(status, failed ? SLLM_ERROR_MEMORY : SLLM_OK);
        sl_checkpoint_close(checkpoint);
    }
}

static void finds_the_weights(void **state) {
    (void)state;
    put("config.json", "{}");
    expect_failure(SLLM_ERROR_NOT_FOUND, "no weights in this folder");
    put_weights("adapter_model.safetensors");
    expect_failure(SLLM_ERROR_NOT_FOUND, "an adapter");
    put_weights("expected.safetensors"); /* reference outputs, not weights */
    unlink(in_folder("adapter_model.safetensors"));
    expect_failure(SLLM_ERROR_NOT_FOUND, "no weights in this folder");
    put("tiny.gguf", "GGUF");
    expect_failure(SLLM_ERROR_NOT_FOUND, "it holds tiny.gguf");
    put_weights("other.safetensors");
    sl_checkpoint_close(open_folder(false));
    put_weights("another.safetensors");
    expect_failure(SLLM_ERROR_FORMAT, "several safetensors files (another.safetensors, other.safetensors)");
    put("model.safetensors.index.json", "{\"weight_map\":{\"w\":\"other.safetensors\"}}");
    sl_checkpoint_close(open_folder(false));
    put("model.safetensors", "damaged");
    expect_failure(SLLM_ERROR_FORMAT, "model.safetensors");
}

static void refuses_pickle(void **state) {
    (void)state;
    static const char *const names[] = {"pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl",
                                        "pytorch_model-00001-of-00002.bin"};
    put("config.json", "{}");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put(names[i], "\x80\x02");
        expect_failure(SLLM_ERROR_UNSUPPORTED, names[i]);
        expect_failure(SLLM_ERROR_UNSUPPORTED, "run any code");
        expect_failure(SLLM_ERROR_UNSUPPORTED, "safetensors copy");
        unlink(in_folder(names[i]));
    }
}

static void says_what_is_wrong_with_json(void **state) {
    (void)state;
    expect_failure(SLLM_ERROR_NOT_FOUND, "no config.json");
    put("config.json", "");
    expect_failure(SLLM_ERROR_FORMAT, "config.json");
    put("config.json", "[]");
    expect_failure(SLLM_ERROR_FORMAT, "config.json: not a JSON object");
    put("config.json", "{\"a\":");
    expect_failure(SLLM_ERROR_FORMAT, "config.json");
    put("config.json", "{}");
    put("tokenizer_config.json", "nonsense");
    expect_failure(SLLM_ERROR_FORMAT, "tokenizer_config.json");
    put("tokenizer_config.json", "{\"chat_template\":3}");
    expect_failure(SLLM_ERROR_FORMAT, "\"chat_template\" is neither");
    sl_checkpoint *checkpoint;
    assert_int_equal(sl_checkpoint_open("/nonexistent", false, &checkpoint, NULL), SLLM_ERROR_NOT_FOUND);
}

static void expect_template(const char *wanted) {
    sl_checkpoint *checkpoint = open_folder(true);
    if (!wanted) {
        assert_null(checkpoint->chat_template);
    } else {
        assert_non_null(checkpoint->chat_template);
        assert_string_equal(checkpoint->chat_template, wanted);
        assert_int_equal(checkpoint->chat_template_length, strlen(wanted));
    }
    sl_checkpoint_close(checkpoint);
}

static void chooses_the_template(void **state) {
    (void)state;
    put("config.json", "{}");
    mkdir(in_folder("additional_chat_templates"), 0777);
    put("additional_chat_templates/tool_use.jinja", "ignored");
    expect_template(NULL);
    put("chat_template.json", "{\"chat_template\":\"from json\"}");
    expect_template("from json");
    put("tokenizer_config.json", "{\"chat_template\":null}");
    expect_template("from json");
    put("tokenizer_config.json", "{\"chat_template\":\"caf\\u00e9\"}");
    expect_template("caf\xc3\xa9");
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"no\"},"
                                 "{\"name\":\"default\",\"template\":\"yes\"}]}");
    expect_template("yes");
    put("chat_template.jinja", "{{ first }}\n");
    expect_template("{{ first }}\n");
    put("chat_template.jinja", "");
    expect_template("");
}

/* ---- through the public door */

static void public_view(void **state) {
    (void)state;
    put("config.json", "{\"model_type\":\"llama\"}");
    put_weights("model.safetensors");
    const char *const paths[] = {"", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        sllm_tensor_file *file;
        sllm_tensor_info info;
        sllm_error error = {0};
        char *json;
        float out[6];
        int64_t ids[1];
        if (sllm_tensor_file_open(in_folder(paths[i]), &file, &error)) fail_msg("%s", error.message);
        assert_int_equal(sllm_tensor_file_count(file), 1);
        assert_int_equal(sllm_tensor_file_find(file, "w"), 0);
        assert_int_equal(sllm_tensor_file_find(file, "v"), -1);
        assert_int_equal(sllm_tensor_file_info(file, 0, &info, &error), SLLM_OK);
        assert_string_equal(info.name, "w");
        assert_string_equal(info.type, "F32");
        assert_int_equal(info.shape[1], 3);
        assert_int_equal(sllm_tensor_file_info(file, 1, &info, &error), SLLM_ERROR_ARGUMENT);
        assert_int_equal(sllm_tensor_file_read_f32(file, 0, 4, 2, out, &error), SLLM_OK);
        assert_true(out[0] == 5 && out[1] == 6);
        assert_int_equal(sllm_tensor_file_read_f32(file, 0, 4, 3, out, &error), SLLM_ERROR_ARGUMENT);
        assert_int_equal(sllm_tensor_file_read_f32(file, 0, UINT64_MAX, 2, out, &error), SLLM_ERROR_ARGUMENT);
        assert_int_equal(sllm_tensor_file_read_f32(file, 9, 0, 1, out, &error), SLLM_ERROR_ARGUMENT);
        assert_int_equal(sllm_tensor_file_read_i64(file, 0, 0, 1, ids, &error), SLLM_ERROR_ARGUMENT);
        assert_int_equal(sllm_tensor_file_metadata(file, &json, &error), SLLM_OK);
        assert_string_equal(json, i ? "{\"format\":\"pt\"}" : "{\"model_type\":\"llama\"}");
        free(json);
        sllm_tensor_file_close(file);
    }
}

static void public_view_of_gguf(void **state) {
    (void)state;
    static const float f32[4] = {0.5f, -1, 2, 3};
    static const int32_t i32[3] = {-7, 8, INT32_MIN};
    uint8_t q8[2 * 34]; /* two Q8_0 blocks of codes -16..15, with scales 0.5 (f16 0x3800) and 2 (0x4000) */
    for (int block = 0; block < 2; block++) {
        memcpy(q8 + 34 * block, block ? "\0\x40" : "\0\x38", 2);
        for (int i = 0; i < 32; i++) q8[34 * block + 2 + i] = (uint8_t)(int8_t)(i - 16);
    }
    gguf_builder b = {0};
    gguf_put_string(&b, "name", "q\"");
    gguf_put_f32(&b, "eps", 1e-5f);
    gguf_put_i8(&b, "minus", -3);
    gguf_put_bool(&b, "yes", true);
    uint8_t counting[100];
    for (int i = 0; i < 100; i++) counting[i] = (uint8_t)i;
    gguf_put_array(&b, "long", GGUF_U8, 100, counting, 100);
    gguf_add_tensor(&b, "f", 0, 1, (uint64_t[]){4}, f32, sizeof f32);
    gguf_add_tensor(&b, "q", 8, 2, (uint64_t[]){32, 2}, q8, sizeof q8);
    gguf_add_tensor(&b, "i", 26, 1, (uint64_t[]){3}, i32, sizeof i32);
    gguf_build_file(&b, in_folder("m.gguf"));
    sllm_tensor_file *file;
    sllm_error error = {0};
    if (sllm_tensor_file_open(in_folder("m.gguf"), &file, &error)) fail_msg("%s", error.message);
    float out[64];
    int64_t ids[3];
    ptrdiff_t q = sllm_tensor_file_find(file, "q"), i = sllm_tensor_file_find(file, "i");
    for (uint64_t first = 0; first < 64; first++) /* every range, across the border of the blocks too */
        for (size_t n = 0; n <= 64 - first; n++) {
            assert_int_equal(sllm_tensor_file_read_f32(file, (size_t)q, first, n, out, &error), SLLM_OK);
            for (size_t k = 0; k < n; k++) {
                int at = (int)(first + k);
                assert_true(out[k] == (at < 32 ? 0.5f : 2.0f) * (float)(at % 32 - 16));
            }
        }
    assert_int_equal(sllm_tensor_file_read_i64(file, (size_t)i, 0, 3, ids, &error), SLLM_OK);
    assert_true(ids[0] == -7 && ids[1] == 8 && ids[2] == INT32_MIN);
    assert_int_equal(sllm_tensor_file_read_f32(file, (size_t)i, 0, 3, out, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tensor 'i' holds I32"));
    assert_int_equal(sllm_tensor_file_read_i64(file, (size_t)q, 0, 3, ids, &error), SLLM_ERROR_ARGUMENT);
    char *json;
    assert_int_equal(sllm_tensor_file_metadata(file, &json, &error), SLLM_OK);
    assert_string_equal(json, "{\"name\":\"q\\\"\",\"eps\":1e-05,\"minus\":-3,\"yes\":true,\"long\":{\"length\":100,"
                              "\"first\":[0,1,2,3,4,5,6,7]}}");
    free(json);
    sllm_tensor_file_close(file);
}

static void public_writer(void **state) {
    (void)state;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    static const int64_t shape[] = {1, 2, 3};
    sllm_tensor_writer *writer;
    sllm_tensor_file *file;
    sllm_error error = {0};
    float out[6];
    assert_int_equal(sllm_tensor_writer_new(in_folder("out.safetensors"), "logits", shape, 3, &writer, &error),
                     SLLM_OK);
    assert_int_equal(sllm_tensor_writer_write(writer, values, 3, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_writer_write(writer, values + 3, 3, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_writer_finish(writer, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_file_open(in_folder("out.safetensors"), &file, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_file_read_f32(file, 0, 0, 6, out, &error), SLLM_OK);
    assert_memory_equal(out, values, sizeof values);
    sllm_tensor_file_close(file);
    assert_int_equal(sllm_tensor_writer_new(in_folder("no.safetensors"), "t", shape, 9, &writer, &error),
                     SLLM_ERROR_ARGUMENT);
    assert_null(writer);
    assert_int_equal(sllm_tensor_writer_new(in_folder("no.safetensors"), "t", shape, 3, &writer, &error), SLLM_OK);
    sllm_tensor_writer_abandon(writer);
    assert_false(sl_path_is_file(in_folder("no.safetensors")));
}

/* ---- real files */

/* The same model in both formats must be the same numbers, in the same shape; `halved`: rounded to f16 in the GGUF. */
static void expect_same(const sllm_tensor_file *gguf, const char *a, const sllm_tensor_file *folder_file, const char *b,
                        bool halved) {
    ptrdiff_t i = sllm_tensor_file_find(gguf, a), j = sllm_tensor_file_find(folder_file, b);
    sllm_tensor_info x, y;
    sllm_error error = {0};
    assert_int_equal(sllm_tensor_file_info(gguf, (size_t)i, &x, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_file_info(folder_file, (size_t)j, &y, &error), SLLM_OK);
    assert_int_equal(x.n_dims, y.n_dims);
    assert_memory_equal(x.shape, y.shape, sizeof x.shape);
    assert_string_equal(x.type, halved ? "F16" : "F32");
    float *p = malloc(x.n_elements * sizeof *p), *q = malloc(y.n_elements * sizeof *q);
    assert_true(p && q);
    assert_int_equal(sllm_tensor_file_read_f32(gguf, (size_t)i, 0, x.n_elements, p, &error), SLLM_OK);
    assert_int_equal(sllm_tensor_file_read_f32(folder_file, (size_t)j, 0, y.n_elements, q, &error), SLLM_OK);
    for (uint64_t k = 0; k < x.n_elements; k++)
        assert_true(p[k] == (halved ? sl_f16_to_f32(sl_f32_to_f16(q[k])) : q[k]));
    free(p);
    free(q);
}

static void formats_agree(void **state) {
    (void)state;
    sllm_tensor_file *gguf = NULL, *safetensors = NULL;
    sllm_error error = {0};
    if (sllm_tensor_file_open(SLLM_SOURCE_DIR "/tests/golden/data/quant/gguf/gpt2/gpt2-f16.gguf", &gguf, &error) ||
        sllm_tensor_file_open(SLLM_SOURCE_DIR "/tests/golden/data/models/gpt2", &safetensors, &error))
        fail_msg("%s", error.message);
    expect_same(gguf, "token_embd.weight", safetensors, "transformer.wte.weight", true);
    expect_same(gguf, "position_embd.weight", safetensors, "transformer.wpe.weight", false);
    expect_same(gguf, "blk.1.attn_norm.weight", safetensors, "transformer.h.1.ln_1.weight", false);
    sllm_tensor_file_close(gguf);
    sllm_tensor_file_close(safetensors);
}

static int open_all(const char *path) {
    int n = 0;
    DIR *directory = opendir(path);
    if (!directory) return 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char inner[4096], config[4200];
        if (entry->d_name[0] == '.' || !sl_path_join(inner, sizeof inner, path, entry->d_name)) continue;
        if (!sl_path_join(config, sizeof config, inner, "config.json") || !sl_path_is_file(config)) continue;
        sl_checkpoint *checkpoint;
        sllm_error error = {0};
        if (sl_checkpoint_open(inner, false, &checkpoint, &error)) fail_msg("%s", error.message);
        assert_true(sl_safetensors_count(checkpoint->weights) > 10);
        assert_non_null(sl_json_get(checkpoint->config, "model_type"));
        sl_checkpoint_close(checkpoint);
        n++;
    }
    closedir(directory);
    return n;
}

static void opens_real_folders(void **state) {
    (void)state;
    int n = open_all(SLLM_SOURCE_DIR "/tests/golden/data/models") +
            open_all(SLLM_SOURCE_DIR "/../shared/golden/models") +
            open_all(SLLM_SOURCE_DIR "/../shared/golden/quant/bnb_models");
    print_message("%d model folders opened\n", n);
    if (!n) skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(opens_a_folder, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(finds_the_weights, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_pickle, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(says_what_is_wrong_with_json, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(chooses_the_template, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(public_view, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(public_view_of_gguf, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(public_writer, make_folder, remove_folder),
        cmocka_unit_test(formats_agree),
        cmocka_unit_test(opens_real_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
