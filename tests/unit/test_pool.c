/* The thread pool: every chunk once, from one caller or two, with threads coming and going; a thread that is held up leaves
 * its share to the others and, when it is held up again and again, rests. */
#include "base/clock.h"
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

static void wait_until(const _Atomic int *word, int least, double seconds) {
    for (double end = sl_clock() + seconds; atomic_load(word) < least && sl_clock() < end;) usleep(50);
}

/* For two threads: the caller begins when the second has come, which is held in its first chunk until all others are done. */
typedef struct held_job {
    _Atomic int n_done, n_second; /* chunks; chunks that the second thread began */
    int order[CHUNKS];            /* of the caller's chunks */
    int64_t held_at;
} held_job;

static void held(void *user, int64_t chunk, int thread) {
    held_job *j = user;
    int n = atomic_load(&j->n_done);
    if (thread == 0) {
        if (n == 0) wait_until(&j->n_second, 1, 10.0);
        j->order[n] = (int)chunk;
    } else if (atomic_fetch_add(&j->n_second, 1) == 0) {
        j->held_at = chunk;
        wait_until(&j->n_done, CHUNKS - 1, 10.0);
    }
    atomic_fetch_add(&j->n_done, 1);
}

static void test_help_for_a_held_thread(void **state) {
    (void)state;
    const int second = (CHUNKS + 1) / 2; /* where its share begins */
    sl_pool *pool;
    held_job j = {0};
    assert_int_equal(sl_pool_new(2, &pool, NULL), SLLM_OK);
    sl_pool_run(pool, CHUNKS, held, &j);
    assert_int_equal(j.n_done, CHUNKS);
    assert_int_equal(j.n_second, 1);
    assert_int_equal(j.held_at, second);
    for (int i = 0; i < CHUNKS - 1; i++) assert_int_equal(j.order[i], i < second ? i : i + 1);
    sl_pool_free(pool);
}

static void asleep(void *user, int64_t chunk, int thread) {
    _Atomic int *came = user;
    if (thread == 0 && chunk == 0) wait_until(came, 1, 0.008);
    if (thread == 0) return;
    atomic_store(came, 1);
    usleep(5000);
}

/* Whether the second of two threads comes to a job within 8 ms; in it, it sleeps as one does whose core was taken. */
static bool second_comes(sl_pool *pool) {
    _Atomic int came = 0;
    sl_pool_run(pool, 2, asleep, &came);
    return atomic_load(&came);
}

static void test_rest(void **state) {
    (void)state;
    sl_pool *pool;
    assert_int_equal(sl_pool_new(2, &pool, NULL), SLLM_OK);
    int came = 0;
    for (int i = 0; i < 100; i++) came += second_comes(pool);
    assert_true(came < 50); /* without rests nearly always, even on a busy machine; with them, on a quiet one, about 7 times */
    double end = sl_clock() + 10.0;
    bool back = false;
    while (!back && sl_clock() < end) back = second_comes(pool);
    assert_true(back);
    sl_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_chunk_once),
        cmocka_unit_test(test_two_callers),
        cmocka_unit_test(test_help_for_a_held_thread),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_bad_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
