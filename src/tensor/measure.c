#include "tensor/measure.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/pool.h"
#include "tensor/kernels_table.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RUNS = 6, SYNC_RUNS = 200, CHUNKS_A_THREAD = 4 };
static const uint64_t CHUNK_BYTES = 1 << 20;
static const uint64_t LEAST_BYTES = 96 << 20, MOST_BYTES = 192 << 20; /* read in one run */
static const double RUN_SECONDS = 3e-3; /* of a loop in registers */

typedef struct measuring {
    const sl_kernels *kernels;
    sl_pool *pool;
    unsigned char *data;
    uint64_t bytes;
    int64_t rounds; /* of one chunk */
    int64_t (*loop)(int64_t rounds);
} measuring;

/* ---------------------------------------------------------------- memory */

/* Four times the last-level cache, so that at most a quarter of a run can come from it; within reason (a virtual machine
 * is told of caches that it shares with others). */
static uint64_t bytes_to_read(void) {
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    uint64_t bytes = cache > 0 ? (uint64_t)cache * 4 : 0;
    bytes = bytes < LEAST_BYTES ? LEAST_BYTES : bytes > MOST_BYTES ? MOST_BYTES : bytes;
    return bytes / CHUNK_BYTES * CHUNK_BYTES;
}

static void write_chunk(void *user, int64_t chunk, int thread) {
    const measuring *m = user;
    (void)thread;
    memset(m->data + (uint64_t)chunk * CHUNK_BYTES, 1 + (int)(chunk % 100), CHUNK_BYTES);
}

static void read_chunk(void *user, int64_t chunk, int thread) {
    const measuring *m = user;
    (void)thread;
    m->kernels->read_bytes(m->data + (uint64_t)chunk * CHUNK_BYTES, CHUNK_BYTES);
}

/* Bytes a second that one thread (pool NULL) or the pool reads, best of RUNS. */
static double read_speed(measuring *m, sl_pool *pool) {
    int64_t chunks = (int64_t)(m->bytes / CHUNK_BYTES);
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        double start = sl_clock();
        if (pool) sl_pool_run(pool, chunks, read_chunk, m);
        else
            for (int64_t c = 0; c < chunks; c++) read_chunk(m, c, 0);
        double speed = (double)m->bytes / (sl_clock() - start);
        best = speed > best ? speed : best;
    }
    return best;
}

static sllm_status measure_reading(measuring *m, sllm_machine_speed *speed, sllm_error *error) {
    m->bytes = bytes_to_read();
    void *memory = MAP_FAILED;
    for (; m->bytes >= LEAST_BYTES; m->bytes = m->bytes / 2 / CHUNK_BYTES * CHUNK_BYTES) {
        memory = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory != MAP_FAILED) break;
    }
    if (memory == MAP_FAILED) return sl_fail_memory(error, "measuring this machine's memory", LEAST_BYTES);
    madvise(memory, m->bytes, MADV_HUGEPAGE); /* a wish: without huge pages the figure is a little lower */
    m->data = memory;
    sl_pool_run(m->pool, (int64_t)(m->bytes / CHUNK_BYTES), write_chunk, m);
    speed->read_1 = read_speed(m, NULL);
    speed->read_n = read_speed(m, m->pool);
    if (speed->read_n < speed->read_1) speed->read_n = speed->read_1; /* one thread alone can be used, too */
    munmap(memory, m->bytes);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- arithmetic */

static void loop_chunk(void *user, int64_t chunk, int thread) {
    const measuring *m = user;
    (void)chunk, (void)thread;
    m->loop(m->rounds);
}

/* Rounds that take a thread about RUN_SECONDS / CHUNKS_A_THREAD. */
static int64_t rounds_for(int64_t (*loop)(int64_t rounds)) {
    for (int64_t rounds = 256;; rounds *= 2) {
        double start = sl_clock();
        loop(rounds);
        if (sl_clock() - start > RUN_SECONDS / CHUNKS_A_THREAD / 2 || rounds > 1 << 28) return rounds;
    }
}

/* Multiply-adds a second of the loop on one thread and on all. */
static void measure_loop(measuring *m, int64_t (*loop)(int64_t rounds), double *one, double *all) {
    int n = sl_pool_threads(m->pool);
    m->loop = loop;
    m->rounds = rounds_for(loop);
    *one = *all = 0;
    for (int run = 0; run < RUNS; run++) {
        double start = sl_clock();
        double done = (double)loop(m->rounds), seconds = sl_clock() - start;
        if (done / seconds > *one) *one = done / seconds;
        start = sl_clock();
        sl_pool_run(m->pool, (int64_t)CHUNKS_A_THREAD * n, loop_chunk, m);
        seconds = sl_clock() - start;
        if (done * CHUNKS_A_THREAD * n / seconds > *all) *all = done * CHUNKS_A_THREAD * n / seconds;
    }
    if (*all < *one) *all = *one;
}

static void no_work(void *user, int64_t chunk, int thread) { (void)user, (void)chunk, (void)thread; }

/* Seconds of a job of the pool that has nothing to do, the mean of the quickest series. */
static double sync_seconds(const measuring *m) {
    double best = 1;
    for (int run = 0; run < RUNS; run++) {
        double start = sl_clock();
        for (int i = 0; i < SYNC_RUNS; i++) sl_pool_run(m->pool, 2 * (int64_t)sl_pool_threads(m->pool), no_work, NULL);
        double seconds = (sl_clock() - start) / SYNC_RUNS;
        best = seconds < best ? seconds : best;
    }
    return best;
}

sllm_status sl_measure(int n_threads, sllm_machine_speed *speed, sllm_error *error) {
    measuring m = {.kernels = sl_kernels_get()};
    sllm_machine_speed made = {.n_threads = n_threads};
    sllm_status status = sl_pool_new(n_threads, &m.pool, error);
    if (status) return status;
    status = measure_reading(&m, &made, error);
    if (!status) {
        measure_loop(&m, m.kernels->peak_int8, &made.int8_1, &made.int8_n);
        measure_loop(&m, m.kernels->peak_f32, &made.f32_1, &made.f32_n);
        made.sync_s = sync_seconds(&m);
        *speed = made;
    }
    sl_pool_free(m.pool);
    return status;
}
