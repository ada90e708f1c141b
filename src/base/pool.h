/* A pool of threads made once. Work is a range of chunks; each thread begins with its share of them and then takes from
 * the others' (from the front, as they do: only there are a thread's reads not one stream), so a thread that loses its core
 * slows the whole by its share only; one that loses it again and again rests for a while. Waits spin briefly and then
 * sleep. */
#ifndef SL_BASE_POOL_H
#define SL_BASE_POOL_H

#include "sllm.h"

typedef struct sl_pool sl_pool;

/* n_threads counts the calling thread; 1 makes no thread. */
sllm_status sl_pool_new(int n_threads, sl_pool **pool, sllm_error *error);
void sl_pool_free(sl_pool *pool);
int sl_pool_threads(const sl_pool *pool); /* NULL: the caller alone, 1 */

/* Calls work(user, chunk, thread) once for every chunk in [0, n_chunks), thread in [0, sl_pool_threads). Returns when
 * all are done. When another thread is using the pool, or pool is NULL, the caller does all chunks itself as thread 0 —
 * so per-thread scratch must belong to the caller, never to the pool. What a chunk computes may not depend on which
 * thread runs it, nor on the order of chunks. */
void sl_pool_run(sl_pool *pool, int64_t n_chunks, void (*work)(void *user, int64_t chunk, int thread), void *user);

#endif
