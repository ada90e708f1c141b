/* The thread pool: every chunk once, from one caller or two, with threads coming and going. */
#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHUNKS = 97 };

typedef struct job {
    _Atomic int done[CHUNKS];
    int n_threads;
} job;

static void count(void *user, int64_t chunk, int thread) {
    job *j = user;
    if (thread < 0 || thread >= j->n_threads) abort();
    atomic_fetch_add(&j->done[chunk], 1);
}

static void run_jobs(sl_pool *pool, int rounds) {
    for (int round = 0; round < rounds; round++) {
        job j = {.n_threads = sl_pool_threads(pool)};
        int n = round % CHUNKS;
        sl_pool_run(pool, n, count, &j);
        for (int i = 0; i < CHUNKS; i++)
            if (j.done[i] != (i < n)) abort(); /* also called from plain threads, where cmocka must not be used */
        if (round % 500 == 0) usleep(1000);    /* let the workers fall asleep */
    }
}

static void test_every_chunk_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        sl_pool *pool;
        assert_int_equal(sl_pool_new(threads, &pool, NULL), SLLM_OK);
        run_jobs(pool, 3000);
        sl_pool_free(pool);
    }
}

static void *second_caller(void *pool) {
    run_jobs(pool, 3000);
    return NULL;
}

static void test_two_callers(void **state) {
    (void)state;
    sl_pool *pool;
    pthread_t thread;
    assert_int_equal(sl_pool_new(3, &pool, NULL), SLLM_OK);
    assert_int_equal(pthread_create(&thread, NULL, second_caller, pool), 0);
    run_jobs(pool, 3000);
    pthread_join(thread, NULL);
    sl_pool_free(pool);
}

static void test_bad_counts(void **state) {
    (void)state;
    sl_pool *pool;
    sllm_error error;
    assert_int_equal(sl_pool_new(0, &pool, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_pool_new(10000, &pool, &error), SLLM_ERROR_ARGUMENT);
    assert_null(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_chunk_once),
        cmocka_unit_test(test_two_callers),
        cmocka_unit_test(test_bad_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
