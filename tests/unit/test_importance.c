/* Importance files: what is written reads back, the older form is read, damage is refused. Choosing types by budget. */
#include "base/buffer.h"
#include "base/file.h"
#include "quant/importance_int.h"
#include "quant/mix.h"
#include "quant/sensitivity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/sllm-importance-XXXXXX";

static int set_up(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 || close(fd) < 0;
}

static int tear_down(void **state) {
    (void)state;
    return unlink(path);
}

static void test_round_trip(void **state) {
    sl_importance *im, *again;
    sl_importance_entry *e;
    sllm_error error = {0};
    (void)state;
    assert_int_equal(sl_importance_new(&im, &error), SLLM_OK);
    assert_int_equal(sl_importance_add(im, "blk.0.ffn_down_exps.weight", 26, 3, 2, &e, &error), SLLM_OK);
    for (int i = 0; i < 3; i++) e->sums[i] = (float)(i + 1);
    e->counts[0] = 2; /* the second expert was never reached */
    assert_int_equal(sl_importance_add(im, "blk.0.ffn_down_exps.weight", 26, 3, 2, &e, &error), SLLM_ERROR_FORMAT);
    assert_int_equal(sl_importance_finish(im, &error), SLLM_OK);
    im->n_chunks = 3, im->chunk_size = 512;
    sl_gguf_claim claim;
    assert_int_equal(sl_gguf_claim_take(path, false, &claim, &error), SLLM_OK);
    assert_int_equal(sl_importance_write(im, &claim, &error), SLLM_OK);
    sl_gguf_claim_drop(&claim);
    assert_int_equal(sl_importance_read(path, &again, &error), SLLM_OK);
    const float *means = sl_importance_get(again, "blk.0.ffn_down_exps.weight", 0, 3);
    assert_non_null(means);
    assert_true(means[0] == 0.5f && means[1] == 1.0f && means[2] == 1.5f);
    assert_null(sl_importance_get(again, "blk.0.ffn_down_exps.weight", 1, 3));
    assert_null(sl_importance_get(again, "blk.0.ffn_down_exps.weight", 2, 3));
    assert_null(sl_importance_get(again, "blk.0.ffn_down_exps.weight", 0, 4));
    assert_null(sl_importance_get(again, "other", 0, 3));
    assert_int_equal(again->chunk_size, 512);
    sl_importance_free(im);
    sl_importance_free(again);
}

static void put_int(sl_buffer *out, int32_t value) { sl_buffer_append(out, &value, 4); }

/* One entry of the older form: a name, chunks, values. */
static void put_old(sl_buffer *out, const char *name, int32_t calls, int32_t n, float value) {
    put_int(out, (int32_t)strlen(name));
    sl_buffer_puts(out, name);
    put_int(out, calls);
    put_int(out, n);
    for (int i = 0; i < n; i++) sl_buffer_append(out, &value, 4);
}

static sllm_status read_bytes(const sl_buffer *bytes, size_t n, sl_importance **im, sllm_error *error) {
    *error = (sllm_error){0};
    assert_int_equal(sl_file_write(path, bytes->data, n, error), SLLM_OK);
    return sl_importance_read(path, im, error);
}

static void test_old_form(void **state) {
    sl_buffer bytes = {0};
    sl_importance *im;
    sllm_error error;
    (void)state;
    put_int(&bytes, 2);
    put_old(&bytes, "blk.0.attn_q.weight", 4, 5, 8);
    put_old(&bytes, "output.weight", 1, 2, 3);
    assert_int_equal(read_bytes(&bytes, bytes.length, &im, &error), SLLM_OK);
    assert_true(sl_importance_get(im, "blk.0.attn_q.weight", 0, 5)[4] == 2.0f);
    sl_importance_free(im);
    for (size_t n = 0; n < bytes.length; n++) { /* cut anywhere */
        assert_int_not_equal(read_bytes(&bytes, n, &im, &error), SLLM_OK);
        assert_null(im);
    }
    for (size_t i = 0; i < bytes.length; i++) { /* and with any byte damaged: no crash */
        bytes.data[i] = (char)~bytes.data[i];
        if (!read_bytes(&bytes, bytes.length, &im, &error)) sl_importance_free(im);
        bytes.data[i] = (char)~bytes.data[i];
    }
    sl_buffer_free(&bytes);
}

static void test_refused_values(void **state) {
    static const float bad[] = {-1, 1.0f / 0.0f, 0.0f / 0.0f};
    sl_importance *im;
    sllm_error error;
    (void)state;
    for (int i = 0; i < 3; i++) {
        sl_buffer bytes = {0};
        put_int(&bytes, 1);
        put_old(&bytes, "x", 1, 3, bad[i]);
        assert_int_equal(read_bytes(&bytes, bytes.length, &im, &error), SLLM_ERROR_FORMAT);
        sl_buffer_free(&bytes);
    }
}

static void test_choosing(void **state) {
    static const sl_choices choices[] = {
        {.items = {{SL_Q4_0, 10, 8.0}, {SL_Q5_0, 14, 2.0}, {SL_Q8_0, 20, 0.1}}, .n = 3},
        {.n = 0},
        {.items = {{SL_Q4_0, 100, 1.0}, {SL_Q8_0, 200, 0.5}}, .n = 2},
    };
    int chosen[3];
    uint64_t least;
    (void)state;
    assert_false(sl_choose_types(choices, 3, 109, chosen, &least));
    assert_int_equal(least, 110);
    assert_true(sl_choose_types(choices, 3, 110, chosen, &least));
    assert_true(chosen[0] == 0 && chosen[2] == 0);
    assert_true(sl_choose_types(choices, 3, 114, chosen, &least));
    assert_true(chosen[0] == 1 && chosen[2] == 0);
    assert_true(sl_choose_types(choices, 3, 219, chosen, &least));
    assert_true(chosen[0] == 2 && chosen[2] == 0);
    assert_true(sl_choose_types(choices, 3, 220, chosen, &least));
    assert_true(chosen[0] == 2 && chosen[2] == 1);
}

static void test_mixes(void **state) {
    const sl_mix_model llama = {.n_layers = 32, .gqa = 4}, tied = {.n_layers = 30, .gqa = 3, .tied = true};
    const sl_mix *m = sl_mix_find("q4_k_m");
    (void)state;
    assert_non_null(m);
    assert_ptr_equal(m, sl_mix_find("Q4_K"));
    assert_null(sl_mix_find("q7_k"));
    assert_int_equal(sl_mix_type(m, &llama, sl_role_of("output.weight"), 4096), SL_Q6_K);
    assert_int_equal(sl_mix_type(m, &llama, sl_role_of("token_embd.weight"), 4096), SL_Q4_K);
    assert_int_equal(sl_mix_type(m, &tied, sl_role_of("token_embd.weight"), 576), SL_Q8_0);
    assert_int_equal(sl_mix_type(m, &llama, sl_role_of("blk.0.ffn_down.weight"), 4096), SL_Q6_K);
    assert_int_equal(sl_mix_type(m, &llama, sl_role_of("blk.5.ffn_down.weight"), 4096), SL_Q4_K);
    assert_int_equal(sl_mix_type(m, &llama, sl_role_of("blk.6.attn_v.weight"), 4096), SL_Q6_K);
    assert_int_equal(sl_mix_fallback(SL_Q4_K, 576), SL_Q5_0);
    assert_int_equal(sl_mix_fallback(SL_Q6_K, 576), SL_Q8_0);
    assert_int_equal(sl_mix_fallback(SL_Q4_K, 30), SL_F16);
    assert_int_equal(sl_mix_fallback(SL_Q4_K, 512), SL_Q4_K);
    assert_false(sl_role_is_quantised(sl_role_of("blk.0.attn_norm.weight"), 1));
    assert_false(sl_role_is_quantised(sl_role_of("blk.0.ffn_gate_inp.weight"), 2));
    assert_true(sl_role_is_quantised(sl_role_of("blk.12.ffn_gate_exps.weight"), 3));
    assert_int_equal(sl_role_of("blk.12.ffn_gate_exps.weight").layer, 12);
    assert_int_equal(sl_role_of("blk.x.ffn_up.weight").slot, SL_SLOT_COUNT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_old_form),
                                       cmocka_unit_test(test_refused_values), cmocka_unit_test(test_choosing),
                                       cmocka_unit_test(test_mixes)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
