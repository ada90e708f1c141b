#include "eval/tensor_error.h"

#include "tensor/ops.h"

#include <math.h>
#include <stdlib.h>

enum { VALUES_A_TASK = 1 << 15 };

typedef struct row_sums {
    double dd, aa, bb, ab, largest;
} row_sums;

typedef struct job {
    const sl_tensor *a, *b;
    int64_t columns, rows, rows_a_task;
    row_sums *sums; /* [tasks] */
    float *scratch; /* [threads, 2, rows_a_task * columns] */
} job;

/* Matrices that were joined in memory may be there in their packed form alone. */
static void read_rows(const sl_tensor *t, int64_t from, int64_t n, int64_t columns, float *out) {
    if (t->packed) {
        for (int64_t r = 0; r < n; r++) sl_row(t, from + r, out + r * columns);
        return;
    }
    sl_tensor_read(t, (uint64_t)(from * columns), (size_t)(n * columns), out);
}

static void add_rows(void *user, int64_t task, int thread) {
    job *j = user;
    int64_t from = task * j->rows_a_task, n = j->rows - from < j->rows_a_task ? j->rows - from : j->rows_a_task;
    size_t count = (size_t)(n * j->columns), room = (size_t)(j->rows_a_task * j->columns);
    float *x = j->scratch + 2 * room * (size_t)thread, *y = x + room;
    const sl_tensor *sides[2] = {j->a, j->b};
    row_sums s = {0};
    for (int i = 0; i < 2; i++) read_rows(sides[i], from, n, j->columns, i ? y : x);
    for (size_t i = 0; i < count; i++) {
        double a = x[i], b = y[i], d = a - b;
        s.dd += d * d;
        s.aa += a * a;
        s.bb += b * b;
        s.ab += a * b;
        s.largest = fabs(d) > s.largest ? fabs(d) : s.largest;
    }
    j->sums[task] = s;
}

bool sl_tensor_error_of(sl_pool *pool, const sl_tensor *a, const sl_tensor *b, sl_tensor_error *result) {
    job j = {.a = a, .b = b, .columns = a->n_dims ? a->shape[a->n_dims - 1] : 1};
    j.rows = (int64_t)(a->n_elements / (uint64_t)j.columns);
    j.rows_a_task = VALUES_A_TASK / j.columns > 0 ? VALUES_A_TASK / j.columns : 1;
    int64_t tasks = (j.rows + j.rows_a_task - 1) / j.rows_a_task;
    j.sums = calloc((size_t)tasks, sizeof *j.sums);
    j.scratch = malloc(2 * (size_t)(j.rows_a_task * j.columns) * (size_t)sl_pool_threads(pool) * sizeof(float));
    row_sums t = {0};
    bool fits = j.sums && j.scratch;
    if (fits) sl_pool_run(pool, tasks, add_rows, &j);
    for (int64_t i = 0; fits && i < tasks; i++) {
        t.dd += j.sums[i].dd;
        t.aa += j.sums[i].aa;
        t.bb += j.sums[i].bb;
        t.ab += j.sums[i].ab;
        t.largest = j.sums[i].largest > t.largest ? j.sums[i].largest : t.largest;
    }
    free(j.sums);
    free(j.scratch);
    *result = (sl_tensor_error){
        .rmse = sqrt(t.dd / (double)a->n_elements), .relative = t.aa > 0 ? sqrt(t.dd / t.aa) : t.dd > 0 ? INFINITY : 0,
        .largest = t.largest, .cosine = t.aa > 0 && t.bb > 0 ? t.ab / sqrt(t.aa * t.bb) : 1,
    };
    return fits;
}
