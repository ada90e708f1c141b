#include "base/pool.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A job is published by a new generation in `state`, together with the bit that says it is open. Workers that are awake
 * enter it (count themselves into `state`), take chunks until none is left, and leave. The caller takes chunks too,
 * closes the job, and waits only for those who entered: a worker that lost its core before it could enter is not waited
 * for, so a busy machine slows a job by the share that is stolen and never to a crawl. Every thread is dealt a share of
 * the chunks, neighbours of each other, so that what it reads is one stream of memory (a sixth faster than taking turns,
 * bench/SPEED.md); whoever has finished its own helps with the others'. Waits spin for SPINS polls (some 20 to 100
 * microseconds by what a processor takes for a pause: longer than an operator of a forward pass, far shorter than a
 * scheduler's slice), then sleep on a futex.
 *
 * A worker that loses its core inside a job keeps the caller waiting for a scheduler's slice, milliseconds. Where another
 * process wants the core all the time this happens again and again, and two threads are slower than one (bench/SPEED.md).
 * So a worker to which it happens a second time SOON after the first rests: first for REST_LEAST, twice as long each time
 * that it comes back to the same, at most for REST_MOST, after which a core that is free again is found out. */
enum { SPINS = 4000 };
static const double SOON = 0.02, REST_LEAST = 0.02, REST_MOST = 0.32; /* seconds */

/* state: generation << 11 | open << 10 | workers inside. */
enum { INSIDE = (1 << 10) - 1, OPEN = 1 << 10, GENERATION = 1 << 11 };

struct sl_pool {
    pthread_mutex_t owner; /* held while a caller's job runs */
    void (*work)(void *user, int64_t chunk, int thread);
    void *user;
    int n_shares; /* of this job: as many threads as have one */
    _Alignas(64) _Atomic uint32_t state;
    _Alignas(64) _Atomic uint32_t left; /* raised when the last worker leaves a closed job: the caller sleeps on it */
    _Alignas(64) _Atomic uint32_t sleepers;
    _Atomic uint32_t stop; /* 1: the end; those who rest sleep on it */
    int n_threads;
    struct worker {
        _Alignas(64) _Atomic int64_t next; /* of its share: anybody may take a chunk from it */
        int64_t end;
        sl_pool *pool;
        pthread_t thread;
        int index;
        atomic_bool inside;         /* of the job that is open or waited for */
        _Atomic double rests_until; /* by sl_clock, past or to come; 0: never lost its core */
        double rest;                /* length of the last one; the caller's */
    } workers[]; /* [n_threads], the first the caller's */
};

/* most NULL: however long it takes. */
static void futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *most) {
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, value, most, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_chunks(sl_pool *pool, int thread) {
    for (int i = 0; i < pool->n_shares; i++) {
        struct worker *owner = &pool->workers[(thread + i) % pool->n_shares];
        for (int64_t chunk; (chunk = atomic_fetch_add_explicit(&owner->next, 1, memory_order_relaxed)) < owner->end;)
            pool->work(pool->user, chunk, thread);
    }
}

static void deal(sl_pool *pool, int64_t n_chunks) {
    int n = pool->n_shares = n_chunks < pool->n_threads ? (int)n_chunks : pool->n_threads;
    int64_t each = n_chunks / n, more = n_chunks % n, first = 0; /* `more` shares have one more */
    for (int i = 0; i < n; i++) {
        atomic_store_explicit(&pool->workers[i].next, first, memory_order_relaxed);
        first = pool->workers[i].end = first + each + (i < more);
    }
}

static bool has_news(const sl_pool *pool, uint32_t state, uint32_t seen) {
    return ((state & OPEN) && state / GENERATION != seen) ||
           atomic_load_explicit(&pool->stop, memory_order_acquire);
}

/* Waits for an open job other than generation `seen`, or the end. */
static void wait_for_job(sl_pool *pool, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (has_news(pool, atomic_load_explicit(&pool->state, memory_order_acquire), seen)) return;
        relax();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    for (uint32_t state; !has_news(pool, state = atomic_load(&pool->state), seen);) futex_wait(&pool->state, state, NULL);
    atomic_fetch_sub(&pool->sleepers, 1);
}

/* Counts this worker into the open job, if there still is one. */
static bool enter(sl_pool *pool, uint32_t *seen) {
    uint32_t state = atomic_load(&pool->state);
    do {
        if (!(state & OPEN) || state / GENERATION == *seen) return false;
    } while (!atomic_compare_exchange_weak(&pool->state, &state, state + 1));
    *seen = state / GENERATION;
    return true;
}

static void leave(sl_pool *pool) {
    uint32_t state = atomic_fetch_sub(&pool->state, 1);
    if ((state & INSIDE) == 1 && !(state & OPEN)) {
        atomic_fetch_add(&pool->left, 1);
        futex_wake(&pool->left, 1);
    }
}

/* Sleeps through what is left of a worker's rest, or until the end; false: nothing was. */
static bool rest(struct worker *worker) {
    double until = atomic_load_explicit(&worker->rests_until, memory_order_relaxed);
    double left = until > 0.0 ? until - sl_clock() : 0.0; /* REST_MOST: below a second */
    if (left <= 0.0) return false;
    futex_wait(&worker->pool->stop, 0, &(struct timespec){.tv_nsec = (long)(1e9 * left)});
    return true;
}

static void *worker_main(void *argument) {
    struct worker *worker = argument;
    sl_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        wait_for_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) return NULL;
        if (rest(worker) || !enter(pool, &seen)) continue;
        atomic_store_explicit(&worker->inside, true, memory_order_release);
        take_chunks(pool, worker->index);
        atomic_store_explicit(&worker->inside, false, memory_order_release);
        leave(pool);
    }
}

static void stop_workers(sl_pool *pool, int started) {
    atomic_store(&pool->stop, 1);
    futex_wake(&pool->stop, INT_MAX);
    atomic_fetch_add(&pool->state, GENERATION); /* so that a worker about to sleep on the old state does not */
    futex_wake(&pool->state, INT_MAX);
    for (int i = 1; i < started; i++) pthread_join(pool->workers[i].thread, NULL);
}

sllm_status sl_pool_new(int n_threads, sl_pool **out, sllm_error *error) {
    *out = NULL;
    if (n_threads < 1 || n_threads > 512)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d threads: 1 to 512 are possible", n_threads);
    size_t bytes = sizeof(sl_pool) + (size_t)n_threads * sizeof(struct worker);
    sl_pool *pool = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!pool) return sl_fail_memory(error, "thread pool", bytes);
    memset(pool, 0, bytes);
    pool->n_threads = n_threads;
    pthread_mutex_init(&pool->owner, NULL);
    for (int i = 1; i < n_threads; i++) {
        pool->workers[i].pool = pool;
        pool->workers[i].index = i;
        int failed = pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]);
        if (failed) {
            stop_workers(pool, i);
            pthread_mutex_destroy(&pool->owner);
            free(pool);
            return sl_fail(error, SLLM_ERROR_MEMORY, "cannot start thread %d of %d: %s", i + 1, n_threads,
                           strerror(failed));
        }
    }
    *out = pool;
    return SLLM_OK;
}

void sl_pool_free(sl_pool *pool) {
    if (!pool) return;
    stop_workers(pool, pool->n_threads);
    pthread_mutex_destroy(&pool->owner);
    free(pool);
}

int sl_pool_threads(const sl_pool *pool) { return pool ? pool->n_threads : 1; }

static bool is_empty(sl_pool *pool) { return !(atomic_load(&pool->state) & INSIDE); }

/* Whether a worker has had no processor time for a moment: it runs on no core. */
static bool lost_its_core(const struct worker *worker) {
    clockid_t clock;
    struct timespec before, after;
    if (pthread_getcpuclockid(worker->thread, &clock) || clock_gettime(clock, &before)) return false;
    for (int i = 0; i < SPINS / 16; i++) relax();
    return !clock_gettime(clock, &after) && after.tv_sec == before.tv_sec && after.tv_nsec == before.tv_nsec;
}

/* The caller waits for a worker that has lost its core: it rests when this is not the first time. */
static void let_rest(struct worker *worker) {
    double now = sl_clock(), last = atomic_load_explicit(&worker->rests_until, memory_order_relaxed);
    if (last == 0.0 || now - last >= worker->rest + SOON) worker->rest = 0.0;
    else if (worker->rest == 0.0) worker->rest = REST_LEAST;
    else if (worker->rest < REST_MOST) worker->rest *= 2.0;
    atomic_store_explicit(&worker->rests_until, now + worker->rest, memory_order_relaxed);
}

static void wait_for_workers(sl_pool *pool) {
    for (int i = 0; i < SPINS; i++) {
        if (is_empty(pool)) return;
        relax();
    }
    for (int i = 1; i < pool->n_threads; i++)
        if (atomic_load_explicit(&pool->workers[i].inside, memory_order_acquire) && lost_its_core(&pool->workers[i]))
            let_rest(&pool->workers[i]);
    for (;;) {
        uint32_t left = atomic_load(&pool->left);
        if (is_empty(pool)) return;
        futex_wait(&pool->left, left, NULL);
    }
}

void sl_pool_run(sl_pool *pool, int64_t n_chunks, void (*work)(void *user, int64_t chunk, int thread), void *user) {
    if (!pool || n_chunks <= 1 || pool->n_threads == 1 || pthread_mutex_trylock(&pool->owner)) {
        for (int64_t chunk = 0; chunk < n_chunks; chunk++) work(user, chunk, 0);
        return;
    }
    pool->work = work;
    pool->user = user;
    deal(pool, n_chunks);
    atomic_fetch_add(&pool->state, GENERATION | OPEN); /* closed and empty before, so this opens the next generation */
    if (atomic_load(&pool->sleepers)) futex_wake(&pool->state, INT_MAX);
    take_chunks(pool, 0);
    atomic_fetch_sub(&pool->state, OPEN);
    wait_for_workers(pool);
    pthread_mutex_unlock(&pool->owner);
}
