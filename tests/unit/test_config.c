/* Configurations: what transformers assumes where a file is silent, and that every damaged value is refused by name. */
#include "base/buffer.h"
#include "base/json.h"
#include "model/config.h"
#include "model/families.h"
#include "model/plan.h"
#include "model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---------------------------------------------------------------- config.json */

static sllm_status read_json(const char *text, sl_arena *arena, sl_config *config, sllm_error *error) {
    const sl_json *root = NULL;
    *error = (sllm_error){0};
    assert_int_equal(sl_json_parse(arena, text, strlen(text), "test", &root, error), SLLM_OK);
    return sl_config_from_json(root, arena, config, error);
}

/* A small Llama with `extra` members at the end (the last of two equal keys wins). */
static sllm_status read_llama(const char *extra, sl_config *config, sl_arena *arena, sllm_error *error) {
    char text[2048];
    snprintf(text, sizeof text, "{\"model_type\": \"llama\", \"vocab_size\": 320, \"hidden_size\": 64, "
             "\"intermediate_size\": 160, \"num_hidden_layers\": 3, \"num_attention_heads\": 4, "
             "\"num_key_value_heads\": 2, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5%s%s}",
             *extra ? ", " : "", extra);
    return read_json(text, arena, config, error);
}

static void test_defaults(void **state) {
    sl_arena arena = {0};
    sl_config c;
    sllm_error error;
    (void)state;
    assert_int_equal(read_llama("", &c, &arena, &error), SLLM_OK);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.rope_dim, 16);
    assert_false(c.tied);
    assert_true(c.rope_base == 10000 && c.attention_scale == 0.25f && c.activation == SL_ACT_SILU);
    assert_int_equal(c.bias_qkv, SL_BIAS_NEVER);

    /* the published text part of a multimodal Gemma 3 leaves most keys out */
    assert_int_equal(read_json("{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", "
                               "\"hidden_size\": 2560, \"intermediate_size\": 10240, \"num_hidden_layers\": 34, "
                               "\"sliding_window\": 1024, \"rope_scaling\": {\"factor\": 8.0, "
                               "\"rope_type\": \"linear\"}}}", &arena, &c, &error), SLLM_OK);
    assert_int_equal(c.n_heads, 8);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.n_vocab, 262208);
    assert_true(c.tied && c.norm_plus_one && c.rope_base == 1e6f && c.rope_local_base == 1e4f);
    assert_int_equal(c.rope_scaling, SL_ROPE_LINEAR);
    assert_int_equal(c.layers[0].window, 1024);
    assert_int_equal(c.layers[5].window, 0);
    assert_true(c.layers[0].local_rope && !c.layers[5].local_rope);

    /* null takes the window away, absence does not */
    assert_int_equal(read_json("{\"model_type\": \"mistral\", \"sliding_window\": null}", &arena, &c, &error), SLLM_OK);
    assert_int_equal(c.layers[0].window, 0);
    assert_int_equal(read_json("{\"model_type\": \"mistral\"}", &arena, &c, &error), SLLM_OK);
    assert_int_equal(c.layers[0].window, 4096);
    /* qwen2 says a window and that it is not used */
    assert_int_equal(read_json("{\"model_type\": \"qwen2\", \"sliding_window\": 8, \"use_sliding_window\": false}",
                               &arena, &c, &error), SLLM_OK);
    assert_int_equal(c.layers[31].window, 0);
    /* dynamic scaling: the file's length is the one before scaling */
    assert_int_equal(read_llama("\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", &c, &arena, &error),
                     SLLM_OK);
    assert_int_equal(c.rope_original_ctx, 512);
    assert_int_equal(c.n_ctx_train, 1024);
    sl_arena_free(&arena);
}

static void test_transformers_5(void **state) {
    sl_arena arena = {0};
    sl_config c;
    sllm_error error;
    (void)state;
    assert_int_equal(read_json("{\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 2, "
                               "\"layer_types\": [\"full_attention\", \"sliding_attention\"], "
                               "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 5e5, "
                               "\"rope_type\": \"default\"}, \"sliding_attention\": {\"rope_theta\": 7e3}}}",
                               &arena, &c, &error), SLLM_OK);
    assert_true(c.rope_base == 5e5f && c.rope_local_base == 7e3f);
    assert_int_equal(c.layers[0].window, 0);
    assert_int_equal(c.layers[1].window, 4096);
    assert_int_equal(read_llama("\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"llama3\", \"factor\": 8, "
                                "\"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                                "\"original_max_position_embeddings\": 64}",
                                &c, &arena, &error), SLLM_OK);
    assert_int_equal(c.rope_scaling, SL_ROPE_LLAMA3);
    assert_int_equal(c.rope_original_ctx, 64);
    sl_arena_free(&arena);
}

static void test_refused(void **state) {
    static const struct { const char *extra, *says; sllm_status status; } cases[] = {
        {"\"hidden_size\": 0", "embedding width", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": -64", "hidden_size", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": 64.5", "hidden_size", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": \"64\"", "hidden_size", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": 66", "does not divide", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": 99999999999999999999", "hidden_size", SLLM_ERROR_FORMAT},
        {"\"hidden_size\": 2147483647", "does not divide", SLLM_ERROR_FORMAT},
        {"\"num_attention_heads\": 0", "heads", SLLM_ERROR_FORMAT},
        {"\"num_key_value_heads\": 3", "cannot share", SLLM_ERROR_FORMAT},
        {"\"num_key_value_heads\": 0", "key/value heads", SLLM_ERROR_FORMAT},
        {"\"num_hidden_layers\": 2000000000", "number of layers", SLLM_ERROR_FORMAT},
        {"\"head_dim\": 2000000000", "head width", SLLM_ERROR_FORMAT},
        {"\"head_dim\": 15", "rotated", SLLM_ERROR_FORMAT},
        {"\"vocab_size\": 0", "vocabulary", SLLM_ERROR_FORMAT},
        {"\"max_position_embeddings\": 0", "context length", SLLM_ERROR_FORMAT},
        {"\"rms_norm_eps\": -1", "epsilon", SLLM_ERROR_FORMAT},
        {"\"rms_norm_eps\": 1e300", "rms_norm_eps", SLLM_ERROR_FORMAT},
        {"\"rope_theta\": 0", "rotary base", SLLM_ERROR_FORMAT},
        {"\"rope_theta\": \"big\"", "rope_theta", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": 7", "not an object", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"linear\"}", "factor", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", "factor", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"spiral\", \"factor\": 2}", "spiral", SLLM_ERROR_UNSUPPORTED},
        {"\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 2}", "low_freq_factor", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"longrope\"}", "longrope", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}",
         "factor", SLLM_ERROR_FORMAT},
        {"\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,1], "
         "\"long_factor\": [1,1,1,0,1,1,1,1]}",
         "item 3", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"phi3\", \"partial_rotary_factor\": 2.0", "partial_rotary_factor", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"phi3\", \"partial_rotary_factor\": 0.01", "partial_rotary_factor", SLLM_ERROR_FORMAT},
        {"\"num_hidden_layers\": 1000000000", "num_hidden_layers", SLLM_ERROR_FORMAT},
        {"\"num_hidden_layers\": -3", "num_hidden_layers", SLLM_ERROR_FORMAT},
        {"\"num_hidden_layers\": [3]", "num_hidden_layers", SLLM_ERROR_FORMAT},
        {"\"num_attention_heads\": 0, \"head_dim\": 16", "num_attention_heads", SLLM_ERROR_FORMAT},
        {"\"intermediate_size\": -1", "intermediate_size", SLLM_ERROR_FORMAT},
        {"\"head_dim\": -16", "head_dim", SLLM_ERROR_FORMAT},
        {"\"rms_norm_eps\": \"NaN\"", "rms_norm_eps", SLLM_ERROR_FORMAT},
        {"\"hidden_act\": \"relu2\"", "relu2", SLLM_ERROR_UNSUPPORTED},
        {"\"hidden_act\": \"gegelu\"", "gegelu", SLLM_ERROR_UNSUPPORTED},
        {"\"attention_bias\": 1", "attention_bias", SLLM_ERROR_FORMAT},
        {"\"quantization_config\": {\"quant_method\": \"hqq\"}", "hqq", SLLM_ERROR_UNSUPPORTED},
        {"\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 3}", "3 bits", SLLM_ERROR_UNSUPPORTED},
        {"\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}", "groups of 0",
         SLLM_ERROR_FORMAT},
        {"\"quantization_config\": {\"quant_method\": \"gptq\", \"checkpoint_format\": \"marlin\"}", "marlin",
         SLLM_ERROR_UNSUPPORTED},
        {"\"quantization_config\": {\"quant_method\": \"awq\", \"version\": \"gemv\"}", "gemv", SLLM_ERROR_UNSUPPORTED},
        {"\"quantization_config\": {}", "quantization_config", SLLM_ERROR_UNSUPPORTED},
        {"\"model_type\": \"bert\"", "encoder", SLLM_ERROR_UNSUPPORTED},
        {"\"model_type\": \"mamba\"", "known are llama, mistral", SLLM_ERROR_UNSUPPORTED},
        {"\"model_type\": 5", "model_type", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"qwen3\", \"use_sliding_window\": true, \"layer_types\": [\"full_attention\"]",
         "layer_types", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"qwen3\", \"layer_types\": [\"full_attention\", \"linear_attention\", \"full_attention\"]",
         "linear_attention", SLLM_ERROR_UNSUPPORTED},
        {"\"model_type\": \"smollm3\", \"no_rope_layers\": [1, 1]", "no_rope_layers", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"mixtral\", \"num_experts_per_tok\": 9", "num_experts_per_tok", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"mixtral\", \"num_local_experts\": 100000", "experts", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"gemma3_text\", \"sliding_window_pattern\": 0", "sliding_window_pattern", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"gemma2\", \"query_pre_attn_scalar\": 0", "attention scale", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"gemma2\", \"query_pre_attn_scalar\": -4", "query_pre_attn_scalar", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"phi3small\", \"blocksparse_block_size\": 0", "blocksparse_block_size", SLLM_ERROR_FORMAT},
        {"\"model_type\": \"phi3small\", \"blocksparse_vert_stride\": 2147483647", "vert_stride", SLLM_ERROR_FORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_arena arena = {0};
        sl_config c;
        sllm_error error;
        sllm_status status = read_llama(cases[i].extra, &c, &arena, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].says))
            fail_msg("%s gave %d '%s'", cases[i].extra, status, error.message);
        sl_arena_free(&arena);
    }
}

static void test_end_ids(void **state) {
    sl_arena arena = {0};
    const sl_json *root;
    int32_t ids[4];
    const char *text = "{\"eos_token_id\": [2, 5, -1, 400, \"x\"]}";
    (void)state;
    assert_int_equal(sl_json_parse(&arena, text, strlen(text), "test", &root, NULL), SLLM_OK);
    assert_int_equal(sl_config_end_ids(root, 320, ids, 4), 2);
    assert_int_equal(ids[1], 5);
    assert_int_equal(sl_config_end_ids(root, 320, ids, 1), 1);
    assert_int_equal(sl_config_end_ids(NULL, 320, ids, 4), 0);
    sl_arena_free(&arena);
}

/* ---------------------------------------------------------------- GGUF */

static void put_bytes(sl_buffer *b, uint64_t value, int n) {
    for (int i = 0; i < n; i++) sl_buffer_putc(b, (char)(value >> (8 * i)));
}

static void put_text(sl_buffer *b, const char *text) {
    put_bytes(b, strlen(text), 8);
    sl_buffer_puts(b, text);
}

typedef struct pair {
    const char *key, *text; /* text NULL: the number */
    double number;
} pair;

/* A file without tensors from pairs; integers are written as u32, or i32 when negative, and others as
 * f32. A later equal key replaces. */
static sllm_status read_gguf(const pair *pairs, size_t n, sl_config *config, sl_arena *arena, sllm_error *error) {
    sl_buffer b = {0};
    sl_gguf *gguf = NULL;
    sl_buffer_puts(&b, "GGUF");
    put_bytes(&b, 3, 4);
    put_bytes(&b, 0, 8);
    put_bytes(&b, n, 8);
    for (size_t i = 0; i < n; i++) {
        put_text(&b, pairs[i].key);
        float f = (float)pairs[i].number;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        bool whole = pairs[i].number == floor(pairs[i].number);
        put_bytes(&b, pairs[i].text ? 8 : !whole ? 6 : pairs[i].number < 0 ? 5 : 4, 4);
        if (pairs[i].text) put_text(&b, pairs[i].text);
        else put_bytes(&b, whole ? (uint32_t)(int64_t)pairs[i].number : bits, 4);
    }
    *error = (sllm_error){0};
    sllm_status status = sl_gguf_open_memory(b.data, b.length, &gguf, error);
    if (!status) status = sl_config_from_gguf(gguf, arena, config, error);
    sl_gguf_close(gguf);
    sl_buffer_free(&b);
    return status;
}

enum { N_GOOD = 12 };
static const pair good[N_GOOD] = {
    {"general.architecture", "llama", 0},     {"llama.block_count", NULL, 3},
    {"llama.embedding_length", NULL, 64},     {"llama.attention.head_count", NULL, 4},
    {"llama.feed_forward_length", NULL, 160}, {"llama.context_length", NULL, 512},
    {"llama.vocab_size", NULL, 320},          {"llama.attention.head_count_kv", NULL, 2},
    {"llama.attention.layer_norm_rms_epsilon", NULL, 1e-5}, {"llama.rope.freq_base", NULL, 500000.5},
    {"general.license", "apache-2.0", 0},     {"llama.rope.dimension_count", NULL, 16},
};

static void test_gguf(void **state) {
    sl_arena arena = {0};
    sl_config c;
    sllm_error error;
    (void)state;
    assert_int_equal(read_gguf(good, N_GOOD, &c, &arena, &error), SLLM_OK);
    assert_true(c.rope_interleaved && c.rope_base == 500000.5f && c.rope_dim == 16 && c.head_dim == 16);
    assert_int_equal(c.n_vocab, 320);
    assert_string_equal(c.licence, "apache-2.0");
    sl_arena_free(&arena);
}

static void test_gguf_refused(void **state) {
    static const struct { pair change; const char *says; sllm_status status; } cases[] = {
        {{"general.architecture", "bert", 0}, "encoder", SLLM_ERROR_UNSUPPORTED},
        {{"general.architecture", "rwkv7", 0}, "known are llama, mistral3", SLLM_ERROR_UNSUPPORTED},
        {{"llama.block_count", NULL, 0}, "number of layers", SLLM_ERROR_FORMAT},
        {{"llama.block_count", "three", 0}, "llama.block_count", SLLM_ERROR_FORMAT},
        {{"llama.embedding_length", NULL, 4294967295.0}, "llama.embedding_length", SLLM_ERROR_FORMAT},
        {{"llama.attention.head_count", NULL, 0}, "heads", SLLM_ERROR_FORMAT},
        {{"llama.attention.head_count_kv", NULL, 3}, "cannot share", SLLM_ERROR_FORMAT},
        {{"llama.context_length", NULL, 4e9}, "llama.context_length", SLLM_ERROR_FORMAT},
        {{"llama.vocab_size", NULL, 0}, "vocabulary", SLLM_ERROR_FORMAT},
        {{"llama.rope.freq_base", NULL, -0.5}, "rotary base", SLLM_ERROR_FORMAT},
        {{"llama.rope.freq_base", NULL, -7}, "rope.freq_base", SLLM_ERROR_FORMAT},
        {{"llama.block_count", NULL, 1e9}, "block_count", SLLM_ERROR_FORMAT},
        {{"llama.block_count", NULL, -1}, "llama.block_count", SLLM_ERROR_FORMAT},
        {{"llama.attention.head_count", NULL, 0}, "attention.head_count", SLLM_ERROR_FORMAT},
        {{"llama.attention.head_count_kv", NULL, 0}, "attention.head_count_kv", SLLM_ERROR_FORMAT},
        {{"llama.feed_forward_length", NULL, 0}, "feed_forward_length", SLLM_ERROR_FORMAT},
        {{"llama.rope.dimension_count", NULL, 15}, "rope.dimension_count", SLLM_ERROR_FORMAT},
        {{"llama.rope.dimension_count", NULL, 18}, "rope.dimension_count", SLLM_ERROR_FORMAT},
        {{"llama.rope.dimension_count", NULL, 0}, "rope.dimension_count", SLLM_ERROR_FORMAT},
        {{"llama.attention.layer_norm_rms_epsilon", NULL, NAN}, "llama.attention.layer_norm_rms_epsilon",
         SLLM_ERROR_FORMAT},
        {{"llama.attention.layer_norm_rms_epsilon", NULL, -0.5}, "layer_norm_epsilon", SLLM_ERROR_FORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pair pairs[N_GOOD];
        sl_arena arena = {0};
        sl_config c;
        sllm_error error;
        memcpy(pairs, good, sizeof pairs);
        for (int j = 0; j < N_GOOD; j++)
            if (!strcmp(pairs[j].key, cases[i].change.key)) pairs[j] = cases[i].change;
        sllm_status status = read_gguf(pairs, N_GOOD, &c, &arena, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].says))
            fail_msg("%s gave %d '%s'", cases[i].change.key, status, error.message);
        sl_arena_free(&arena);
    }
    /* a mixture of experts: more of them used than there are */
    pair experts[N_GOOD + 2];
    memcpy(experts, good, sizeof good);
    experts[N_GOOD] = (pair){"llama.expert_count", NULL, 4};
    experts[N_GOOD + 1] = (pair){"llama.expert_used_count", NULL, 5};
    sl_arena arena = {0};
    sl_config config;
    sllm_error error;
    assert_int_equal(read_gguf(experts, N_GOOD + 2, &config, &arena, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expert_used_count"));
    sl_arena_free(&arena);
    for (int missing = 0; missing < 7; missing++) { /* the keys that must be there */
        pair pairs[N_GOOD];
        size_t n = 0;
        for (int j = 0; j < N_GOOD; j++)
            if (j != missing) pairs[n++] = good[j];
        assert_int_equal(read_gguf(pairs, n, &config, &arena, &error), SLLM_ERROR_FORMAT);
        assert_non_null(strstr(error.message, good[missing].key));
        sl_arena_free(&arena);
    }
}

/* ---------------------------------------------------------------- rotary regimes and plan */

static void test_regimes(void **state) {
    sl_arena arena = {0};
    sl_config c;
    sllm_error error;
    float a[8], b[8], factor;
    (void)state;
    assert_int_equal(read_llama("\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", &c, &arena, &error),
                     SLLM_OK);
    assert_int_equal(sl_rope_regime(&c, 512), 0);
    assert_int_equal(sl_rope_regime(&c, 513), 513);
    /* transformers: base * (factor * length / original - (factor - 1)) ^ (dim / (dim - 2)) */
    sl_rope_frequencies(&c, 768, false, a, &factor);
    double base = 10000 * pow(2.0 * 768 / 512 - 1, 16.0 / 14);
    for (int j = 0; j < 8; j++) assert_true(fabs(a[j] * pow(base, 2.0 * j / 16) - 1) < 1e-6);
    sl_rope_frequencies(&c, 0, false, b, &factor);
    for (int j = 0; j < 8; j++) assert_true(fabs(b[j] * pow(10000, 2.0 * j / 16) - 1) < 1e-6);
    sl_arena_free(&arena);
}

static void test_plan(void **state) {
    sl_arena arena = {0};
    sl_config c;
    sllm_error error;
    sl_footprint f32, q8, q4;
    (void)state;
    assert_int_equal(read_llama("", &c, &arena, &error), SLLM_OK);
    assert_int_equal(sl_plan_weights(&c, "f32", false, &f32, &error), SLLM_OK);
    assert_int_equal(sl_plan_weights(&c, "Q8_0", false, &q8, &error), SLLM_OK);
    assert_int_equal(sl_plan_weights(&c, "q4_k_m", false, &q4, &error), SLLM_OK);
    /* embedding and output, then per block q, k, v, o, gate, up, down and two norms, and the final norm */
    uint64_t matrices = 2 * 320 * 64 + 3 * (64 * 64 * 2 + 32 * 64 * 2 + 160 * 64 * 3), norms = 7 * 64;
    assert_int_equal(f32.file_bytes, 4 * (matrices + norms));
    assert_int_equal(q8.file_bytes, matrices / 32 * 34 + 4 * norms);
    /* of the embedding only some rows are looked up; the output and the blocks are multiplied, once a token */
    assert_int_equal(f32.weights_bytes, f32.file_bytes);
    assert_int_equal(f32.head_bytes, 4 * 320 * 64);
    assert_int_equal(f32.body_bytes, 4 * (matrices - 2 * 320 * 64));
    assert_int_equal(f32.head_macs[0], 320 * 64);
    assert_int_equal(f32.body_macs[0], matrices - 2 * 320 * 64);
    assert_int_equal(q8.body_macs[1], f32.body_macs[0]);
    assert_int_equal(q8.body_macs[0], 0);
    assert_true(q4.file_bytes < q8.file_bytes);
    assert_int_equal(sl_plan_weights(&c, "q9", false, &q4, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "q4_k_m"));
    for (const char *const *name = sl_plan_types(); *name; name++)
        assert_int_equal(sl_plan_weights(&c, *name, false, &q4, &error), SLLM_OK);
    c.n_vocab = c.n_ff = INT32_MAX; /* n_embd 2^31 - 1 too: more bytes in a layer than 2^64 */
    c.n_embd = INT32_MAX;
    assert_int_equal(sl_plan_weights(&c, "f32", false, &q4, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "layers"));
    sl_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_transformers_5), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_end_ids),  cmocka_unit_test(test_gguf),           cmocka_unit_test(test_gguf_refused),
        cmocka_unit_test(test_regimes),  cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
