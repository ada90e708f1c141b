/* Divergence of distributions, against values computed in f64 by numpy: log-softmax of both rows, then
 * sum(exp(lp) * (lp - lq)). */
#include "eval/divergence.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void near(double a, double b, double limit) {
    if (!(fabs(a - b) <= limit)) fail_msg("%.12g is not %.12g", a, b);
}

static void test_small(void **state) {
    static const float p[] = {1.0f, 2.0f, 3.0f, 4.0f, -5.0f}, q[] = {1.5f, 2.0f, 2.5f, 4.5f, -40.0f};
    (void)state;
    sl_divergence d = sl_divergence_of(p, q, 5, 2);
    near(d.kld, 0.07979986963192165, 1e-7);
    near(d.ln_p, -1.4402691607366545, 1e-7);
    near(d.ln_q, -2.2368155424308167, 1e-7);
    assert_true(d.same_top);
    near(sl_log_probability(p, 5, 2), -1.4402691607366545, 1e-7);
}

/* logits 10 sin(i) and 10 sin(i) + cos(3 i) / 2, as floats, for i in [0, 5003): no multiple of any width. */
static void test_large(void **state) {
    static float p[5003], q[5003];
    (void)state;
    for (int i = 0; i < 5003; i++) {
        p[i] = (float)(10 * sin(i));
        q[i] = (float)(10 * sin(i) + cos(3.0 * i) / 2);
    }
    sl_divergence d = sl_divergence_of(p, q, 5003, 4711);
    near(d.kld, 0.05197879615651216, 1e-7);
    near(d.ln_p, -26.295362019311657, 1e-6);
    near(d.ln_q, -26.607064292253206, 1e-6);
}

static void test_same(void **state) {
    static float p[1000];
    (void)state;
    for (int i = 0; i < 1000; i++) p[i] = (float)(i % 37) - 80.0f * (i % 2);
    sl_divergence d = sl_divergence_of(p, p, 1000, 5);
    near(d.kld, 0, 1e-12);
    assert_true(d.same_top);
    assert_true(d.ln_p == d.ln_q);
}

static void test_certain(void **state) {
    static const float p[] = {0, -1000, -1000, -1000}, q[] = {-1000, 0, -1000, -1000};
    (void)state;
    sl_divergence d = sl_divergence_of(p, q, 4, 0);
    near(d.kld, 1000, 1e-3);
    assert_false(d.same_top);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_large), cmocka_unit_test(test_same),
                                       cmocka_unit_test(test_certain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
