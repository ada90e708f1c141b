/* Micro-benchmark of the one matmul entry: for each element type, the weights' bytes read per second and the
 * multiply-adds per second, for one token and for many.
 *
 *     build/bench/matmul [--kernels NAME] [--threads N] [--rows N] [--columns N] [--tokens N] [--exact] [--unpacked]
 *                        [TYPE...]
 *
 * Each figure is the median of repeated runs; with one thread, of its processor time, so that a busy neighbour counts
 * less. One token reads a set of matrices larger than the last-level cache one
 * after the other, as a model does; many tokens read one matrix again and again.
 */
#include "base/clock.h"
#include "base/pool.h"
#include "common.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    int threads;
    int64_t rows, columns, tokens;
    sl_arithmetic arithmetic;
    bool packed;
} options;

enum { MAX_RUNS = 201 };
static const double MIN_SECONDS = 0.3;
static const uint64_t COLD_BYTES = 192u << 20;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds since some moment: of the thread's own processor time where it does all the work. */
static double now(int threads) {
    struct timespec t;
    if (threads > 1) return sl_clock();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Median seconds of one product over the first n_matrices of a stack, which are taken in turn. */
static double time_product(sl_pool *pool, const options *o, const sl_tensor *w, int64_t n_matrices, int64_t tokens,
                           const float *x, float *y) {
    sl_act act = {.x = x, .stride = (size_t)o->columns, .n_tokens = tokens, .n = o->columns};
    act.blocks = malloc(sl_act_bytes(tokens, o->columns));
    if (!act.blocks) return 0.0;
    sl_act_round(pool, &act);
    double seconds[MAX_RUNS], total = 0.0;
    int runs = 0;
    for (int64_t m = 0; runs < MAX_RUNS && (total < MIN_SECONDS || runs < 5); runs++) {
        double start = now(o->threads);
        int64_t batch = tokens == 1 ? 8 : 1; /* one product alone is too short to time */
        for (int64_t i = 0; i < batch; i++, m++)
            sl_matmul(pool, o->arithmetic, w, m % n_matrices, &act, NULL, y, (size_t)o->rows);
        seconds[runs] = (now(o->threads) - start) / (double)batch;
        total += seconds[runs] * (double)batch;
    }
    free(act.blocks);
    qsort(seconds, (size_t)runs, sizeof *seconds, compare);
    return seconds[runs / 2];
}

/* Packs all matrices, as a model does at first use; the seconds it takes for each byte of the file's form. */
static double pack_all(sl_pool *pool, sl_packer *packer, sl_tensor *w) {
    if (sl_packer_add(packer, w, false, NULL) != SLLM_OK || sl_packer_reserve(packer, NULL) != SLLM_OK) return 0.0;
    double start = sl_clock();
    for (int64_t i = 0; i < w->shape[0]; i++) sl_packed_get(pool, w, i);
    return (sl_clock() - start) / (double)((uint64_t)w->shape[0] * w->bytes);
}

static int measure(sl_pool *pool, const options *o, sl_type type) {
    const sl_type_info *info = sl_type_get(type);
    sl_tensor w = {.type = type, .n_dims = 3, .shape = {1, o->rows, o->columns}};
    if (!info->is_float || o->columns % info->block || !sl_type_bytes(type, (uint64_t)(o->rows * o->columns), &w.bytes))
        return 0;
    uint64_t n_matrices = COLD_BYTES / w.bytes + 1;
    sl_packer *packer = NULL;
    w.shape[0] = (int64_t)n_matrices;
    unsigned char *data = malloc(n_matrices * w.bytes);
    float *x = malloc((size_t)(o->tokens * o->columns) * sizeof *x);
    float *y = malloc((size_t)(o->tokens * o->rows) * sizeof *y);
    if (data && x && y && sl_packer_new(&packer, NULL) == SLLM_OK) {
        bench_fill(type, data, n_matrices * w.bytes);
        for (int64_t i = 0; i < o->tokens * o->columns; i++) x[i] = (float)(i % 31) - 15.0f;
        w.data = data;
        double packing = o->packed ? pack_all(pool, packer, &w) : 0.0;
        double one = time_product(pool, o, &w, w.shape[0], 1, x, y);
        double many = time_product(pool, o, &w, 1, o->tokens, x, y), size = (double)(o->rows * o->columns);
        printf("%-8s %8.1f GB/s %8.1f G/s %12.1f G/s", info->name, (double)w.bytes / one / 1e9, size / one / 1e9,
               size * (double)o->tokens / many / 1e9);
        if (w.packed) printf(" %12.1f GB/s", 1e-9 / packing);
        printf("\n");
        fflush(stdout);
    } else {
        fprintf(stderr, "matmul: no memory for %s\n", info->name);
    }
    sl_packer_free(packer);
    free(data);
    free(x);
    free(y);
    return !(data && x && y);
}

static int64_t number(const char *option, const char *text) {
    return bench_number("matmul", option, text, (1 << 20) - 1);
}

int main(int argc, char **argv) {
    options o = {.threads = 2, .rows = 1536, .columns = 1536, .tokens = 512, .arithmetic = SL_FAST, .packed = true};
    sllm_error error = {0};
    int arg = 1;
    for (; arg < argc && !strncmp(argv[arg], "--", 2); arg++) {
        const char *name = argv[arg];
        if (!strcmp(name, "--exact")) o.arithmetic = SL_EXACT;
        else if (!strcmp(name, "--unpacked")) o.packed = false;
        else if (!strcmp(name, "--kernels") && arg + 1 < argc) {
            if (sl_kernels_choose(argv[++arg], &error) == SLLM_OK) continue;
            fprintf(stderr, "matmul: %s\n", error.message);
            return 2;
        } else if (!strcmp(name, "--threads")) o.threads = (int)number(name, argv[++arg]);
        else if (!strcmp(name, "--rows")) o.rows = number(name, argv[++arg]);
        else if (!strcmp(name, "--columns")) o.columns = number(name, argv[++arg]);
        else if (!strcmp(name, "--tokens")) o.tokens = number(name, argv[++arg]);
        else {
            fprintf(stderr, "matmul: unknown option %s\n", name);
            return 2;
        }
    }
    sl_pool *pool = NULL;
    if (sl_pool_new(o.threads, &pool, &error) != SLLM_OK) {
        fprintf(stderr, "matmul: %s\n", error.message);
        return 1;
    }
    printf("%s, %d threads, %lld x %lld, %s\n%-8s %22s %21s %17s\n", sl_kernels_name(), o.threads, (long long)o.rows,
           (long long)o.columns, o.arithmetic == SL_FAST ? "fast" : "exact", "type", "1 token", "many tokens", "packing");
    int failed = 0;
    for (int t = 0; t < SL_TYPE_COUNT && arg == argc; t++) failed |= measure(pool, &o, (sl_type)t);
    for (; arg < argc; arg++) {
        sl_type type;
        if (sl_type_from_name(argv[arg], &type)) failed |= measure(pool, &o, type);
        else failed = 1, fprintf(stderr, "matmul: unknown type %s\n", argv[arg]);
    }
    sl_pool_free(pool);
    return failed;
}
