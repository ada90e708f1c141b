/* The machine's measured figures: every table has the loops, they do the work that they count, and the figures stand in
 * the relations that any machine gives. */
#include "base/clock.h"
#include "tensor/kernels_table.h"
#include "tensor/measure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon", "neon_dot"};

static void loops_count_what_they_do(const sl_kernels *kernels) {
    enum { BYTES = 1 << 16 };
    char *data = calloc(1, BYTES);
    assert_non_null(data);
    assert_int_equal(kernels->read_bytes(data, BYTES), BYTES);
    assert_int_equal(kernels->peak_int8(20), 2 * kernels->peak_int8(10));
    assert_int_equal(kernels->peak_f32(20), 2 * kernels->peak_f32(10));
    free(data);
    /* A loop that the compiler had emptied would take no longer for a hundred times the rounds. */
    double times[2][2];
    for (int i = 0; i < 2; i++) {
        int64_t rounds = i ? 2000000 : 20000;
        double start = sl_clock();
        kernels->peak_int8(rounds);
        times[i][0] = sl_clock() - start;
        start = sl_clock();
        kernels->peak_f32(rounds);
        times[i][1] = sl_clock() - start;
    }
    assert_true(times[1][0] > 5 * times[0][0] || times[1][0] > 1e-3);
    assert_true(times[1][1] > 5 * times[0][1] || times[1][1] > 1e-3);
}

static void test_figures(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        sllm_machine_speed speed;
        sllm_error error = {0};
        if (sl_kernels_choose(sets[i], &error)) continue;
        loops_count_what_they_do(sl_kernels_get());
        assert_int_equal(sl_measure(2, &speed, &error), SLLM_OK);
        assert_int_equal(speed.n_threads, 2);
        assert_true(speed.read_1 > 1e8 && speed.read_n >= speed.read_1 && speed.read_n < 1e13);
        assert_true(speed.int8_1 > 1e7 && speed.int8_n >= speed.int8_1 && speed.int8_n < 1e14);
        assert_true(speed.f32_1 > 1e7 && speed.f32_n >= speed.f32_1 && speed.f32_n < 1e14);
        assert_true(speed.sync_s > 0 && speed.sync_s < 0.1);
    }
    assert_int_equal(sl_kernels_choose("auto", NULL), SLLM_OK);
}

static void test_bad_threads(void **state) {
    (void)state;
    sllm_machine_speed speed;
    sllm_error error = {0};
    static const int wrong[] = {-1, 513, 10000};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sllm_machine_measure(wrong[i], &speed, &error), SLLM_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "512"));
        assert_true(speed.read_1 == 0 && speed.n_threads == 0);
    }
    assert_int_equal(sllm_machine_measure(1, NULL, &error), SLLM_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_figures), cmocka_unit_test(test_bad_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
