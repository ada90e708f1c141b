/* Micro-benchmark of attention: multiply-adds per second of a prompt's last rows, and bytes of keys and values read per
 * second by one query, for each KV type, at some depth.
 *
 *     build/bench/attention [--kernels NAME] [--head-dim N] [--group N] [--depth N] [TYPE...]
 *
 * One thread, its processor time. A prompt: tiles of 48 queries of one key/value head over all pages of the depth. One
 * query: the heads of a group over the pages of as many key/value heads as exceed the last-level cache.
 */
#include "base/rng.h"
#include "common.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    int head_dim, group, depth;
} options;

enum { TILE = 48, MAX_RUNS = 101 };
static const double MIN_SECONDS = 0.3;
static const size_t COLD_BYTES = (size_t)96 << 20;

typedef struct memory {
    char *keys, *values;
    float *q, *states, *scratch;
    size_t key_bytes, value_bytes, n_pages;
} memory;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *get(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p) return p;
    fprintf(stderr, "attention: no memory for %zu bytes\n", bytes);
    exit(1);
}

static memory fill(const options *o, sl_kv_type type) {
    sl_rng rng;
    memory m = {.key_bytes = sl_kv_tile_bytes(type, o->head_dim, false),
                .value_bytes = sl_kv_tile_bytes(type, o->head_dim, true)};
    float *x = get((size_t)o->head_dim * 4);
    sl_rng_seed(&rng, 1);
    m.n_pages = COLD_BYTES / (m.key_bytes + m.value_bytes) + (size_t)o->depth / SL_PAGE + 1;
    m.keys = get(m.n_pages * m.key_bytes);
    m.values = get(m.n_pages * m.value_bytes);
    m.q = get((size_t)(TILE * o->head_dim) * 4);
    m.states = get((size_t)(TILE * sl_attend_width(o->head_dim)) * 4);
    m.scratch = get(2 * SL_PAGE * (size_t)sl_kv_width(o->head_dim) * 4);
    for (int i = 0; i < TILE * o->head_dim; i++) m.q[i] = (float)sl_rng_uniform(&rng) - 0.5f;
    for (int j = 0; j < SL_PAGE; j++) {
        for (int i = 0; i < o->head_dim; i++) x[i] = (float)sl_rng_uniform(&rng) - 0.5f;
        sl_kv_store_key(type, m.keys, j, x, o->head_dim);
        sl_kv_store_value(type, m.values, j, x, o->head_dim);
    }
    for (size_t p = 1; p < m.n_pages; p++) {
        memcpy(m.keys + p * m.key_bytes, m.keys, m.key_bytes);
        memcpy(m.values + p * m.value_bytes, m.values, m.value_bytes);
    }
    free(x);
    return m;
}

static void empty(memory *m) {
    free(m->keys);
    free(m->values);
    free(m->q);
    free(m->states);
    free(m->scratch);
}

/* Median seconds of `rows` queries over the depth's pages; `cold`: other pages every time. */
static double time_rows(const options *o, sl_kv_type type, const memory *m, int rows, bool cold) {
    sl_attend_task task = {.type = type, .head_dim = o->head_dim, .scale = 0.125f, .scratch = m->scratch};
    sl_attend_row row[TILE];
    double seconds[MAX_RUNS], total = 0;
    size_t page = 0, pages = (size_t)o->depth / SL_PAGE;
    int runs = 0, width = sl_attend_width(o->head_dim);
    for (; runs < MAX_RUNS && (total < MIN_SECONDS || runs < 5); runs++) {
        int repeats = cold ? 16 : 1;
        double start = now();
        for (int i = 0; i < repeats; i++) {
            for (int r = 0; r < rows; r++) {
                row[r] = (sl_attend_row){m->q + r * o->head_dim, m->states + r * width, ~(uint64_t)0};
                sl_attend_clear(row[r].state, o->head_dim);
            }
            if (!cold || page + pages > m->n_pages) page = 0;
            for (size_t p = 0; p < pages; p++, page++) {
                task.keys = m->keys + page * m->key_bytes;
                task.values = m->values + page * m->value_bytes;
                task.next = page + 1 < m->n_pages ? m->keys + (page + 1) * m->key_bytes : NULL;
                sl_attend_page(&task, row, rows);
            }
        }
        seconds[runs] = (now() - start) / repeats;
        total += seconds[runs] * repeats;
    }
    qsort(seconds, (size_t)runs, sizeof *seconds, compare);
    return seconds[runs / 2];
}

static void measure(const options *o, sl_kv_type type) {
    if (!sl_kv_type_holds(type, o->head_dim)) return;
    memory m = fill(o, type);
    double many = time_rows(o, type, &m, TILE, false), one = time_rows(o, type, &m, o->group, true);
    double work = 2.0 * o->head_dim * o->depth, pages = o->depth / (double)SL_PAGE;
    printf("%-6s %12.1f G/s %12.1f GB/s %8.1f G/s\n", sl_kv_type_name(type), work * TILE / many / 1e9,
           pages * (double)(m.key_bytes + m.value_bytes) / one / 1e9, work * o->group / one / 1e9);
    empty(&m);
}

static int number(const char *option, const char *text) {
    return (int)bench_number("attention", option, text, 1 << 17);
}

int main(int argc, char **argv) {
    options o = {.head_dim = 64, .group = 3, .depth = 4096};
    sllm_error error = {0};
    int arg = 1;
    for (; arg < argc && argv[arg][0] == '-'; arg += 2) {
        const char *name = argv[arg], *value = arg + 1 < argc ? argv[arg + 1] : NULL;
        if (!strcmp(name, "--head-dim")) o.head_dim = number(name, value);
        else if (!strcmp(name, "--group")) o.group = number(name, value);
        else if (!strcmp(name, "--depth")) o.depth = number(name, value) / SL_PAGE * SL_PAGE;
        else if (strcmp(name, "--kernels") || !value || sl_kernels_choose(value, &error)) {
            fprintf(stderr, "attention: %s: %s\n", name, *error.message ? error.message : "unknown, or has no value");
            return 2;
        }
    }
    if (o.group > TILE || !o.depth) {
        fprintf(stderr, "attention: a group has at most %d heads, a depth at least %d positions\n", TILE, SL_PAGE);
        return 2;
    }
    printf("%s, 1 thread, heads of %d, %d a group, depth %d\n%-6s %16s %22s\n", sl_kernels_name(), o.head_dim, o.group,
           o.depth, "type", "48 queries", "one query's group");
    for (int type = SL_KV_F32; type <= SL_KV_Q4_0; type++) {
        bool asked = arg == argc;
        for (int i = arg; i < argc; i++) asked |= !strcmp(argv[i], sl_kv_type_name((sl_kv_type)type));
        if (asked) measure(&o, (sl_kv_type)type);
    }
    return 0;
}
