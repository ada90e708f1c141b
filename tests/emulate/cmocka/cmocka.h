/* The part of cmocka's interface that the tests of the kernels use, for targets that have no cmocka: each test runs, a
 * failed check ends it, and the exit status is the number that failed. Included once a program, as cmocka's header. */
#ifndef SL_TESTS_EMULATE_CMOCKA_H
#define SL_TESTS_EMULATE_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf cm_failed;

__attribute__((format(printf, 3, 4))) static _Noreturn inline void cm_fail(const char *file, int line,
                                                                           const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    longjmp(cm_failed, 1);
}

#define fail_msg(...) cm_fail(__FILE__, __LINE__, __VA_ARGS__)
#define print_message(...) printf(__VA_ARGS__)
#define cm_check(condition) ((condition) ? (void)0 : fail_msg("not so: %s", #condition))

#define assert_true(condition) cm_check(condition)
#define assert_false(condition) cm_check(!(condition))
#define assert_null(pointer) cm_check((pointer) == NULL)
#define assert_non_null(pointer) cm_check((pointer) != NULL)
#define assert_string_equal(a, b) cm_check(!strcmp(a, b))
#define assert_memory_equal(a, b, size) cm_check(!memcmp(a, b, size))
#define assert_int_equal(a, b) cm_int_equal(__FILE__, __LINE__, (uintmax_t)(a), (uintmax_t)(b), #a)
static inline void cm_int_equal(const char *file, int line, uintmax_t a, uintmax_t b, const char *what) {
    if (a != b) cm_fail(file, line, "%s is %jd, should be %jd", what, (intmax_t)a, (intmax_t)b);
}

#define cmocka_unit_test(function) {#function, function}
#define cmocka_run_group_tests(tests, setup, teardown) cm_run(tests, sizeof(tests) / sizeof *(tests))
static inline int cm_run(const struct CMUnitTest tests[], size_t count) {
    static volatile int failed; /* kept over longjmp */
    for (volatile size_t i = 0; i < count; i++) {
        void *state = NULL;
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        bool passed = !setjmp(cm_failed);
        if (passed) tests[i].run(&state);
        failed = failed + !passed;
        printf("[ %s ] %s\n", passed ? "      OK" : " FAILED ", tests[i].name);
    }
    printf("%zu tests, %d failed\n", count, failed);
    return failed;
}

#endif
