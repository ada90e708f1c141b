/* The operations of ops.h: choosing the table, splitting products over threads, and handing the rest to the table. */
#include "tensor/ops.h"

#include "base/cpu.h"
#include "base/error.h"
#include "tensor/kernels_table.h"
#include "tensor/pack.h"
#include "tensor/panel.h"

#include <stdatomic.h>
#include <string.h>

/* ---------------------------------------------------------------- the table */

static _Atomic(const sl_kernels *) chosen; /* NULL until the first call; any thread stores the same pointer */

static bool can_run(const sl_kernels *table) {
#if defined(__x86_64__)
    const sl_cpu *cpu = sl_cpu_features();
    bool avx2 = cpu->avx2 && cpu->fma && cpu->f16c;
    if (table == &sl_kernels_avx2) return avx2;
    if (table == &sl_kernels_avx512)
        return avx2 && cpu->avx512f && cpu->avx512bw && cpu->avx512vl && cpu->avx512vnni; /* VNNI implies DQ */
#elif defined(__aarch64__)
    const sl_cpu *cpu = sl_cpu_features();
    if (table == &sl_kernels_neon) return cpu->neon;
    if (table == &sl_kernels_neon_dot) return cpu->neon && cpu->dotprod;
#endif
    return table == &sl_kernels_scalar;
}

/* Best first; those behind `scalar` only by name: the NEON tables have not run on hardware yet, only compiled and under
 * emulation (.ci/run). They come first when such a run is in bench/SPEED.md. */
static const sl_kernels *const tables[] = {
#if defined(__x86_64__)
    &sl_kernels_avx512, &sl_kernels_avx2, &sl_kernels_scalar,
#elif defined(__aarch64__)
    &sl_kernels_scalar, &sl_kernels_neon_dot, &sl_kernels_neon,
#else
    &sl_kernels_scalar,
#endif
};
#if defined(__x86_64__)
#define SETS "auto, scalar, avx2 or avx512"
#elif defined(__aarch64__)
#define SETS "auto, scalar, neon or neon_dot"
#else
#define SETS "auto or scalar"
#endif
enum { N_TABLES = sizeof tables / sizeof *tables };

const sl_kernels *sl_kernels_get(void) {
    const sl_kernels *table = atomic_load_explicit(&chosen, memory_order_acquire);
    if (table) return table;
    for (int i = 0; i < N_TABLES && !table; i++)
        if (can_run(tables[i])) table = tables[i];
    atomic_store_explicit(&chosen, table, memory_order_release);
    return table;
}

const char *sl_kernels_name(void) { return sl_kernels_get()->name; }

sllm_status sl_kernels_choose(const char *name, sllm_error *error) {
    if (!strcmp(name, "auto")) {
        atomic_store_explicit(&chosen, NULL, memory_order_release);
        return SLLM_OK;
    }
    for (int i = 0; i < N_TABLES; i++) {
        if (strcmp(tables[i]->name, name)) continue;
        if (!can_run(tables[i]))
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "kernels '%s': this processor lacks the instructions; "
                           "'auto' takes the best it has", name);
        atomic_store_explicit(&chosen, tables[i], memory_order_release);
        return SLLM_OK;
    }
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "kernels '%s': unknown here; use " SETS, name);
}

const char *sl_kernels_known(int index, bool *can) {
    if (index < 0 || index >= N_TABLES) return NULL;
    *can = can_run(tables[index]);
    return tables[index]->name;
}

/* ---------------------------------------------------------------- rounded activations */

size_t sl_act_bytes(int64_t n_tokens, int64_t n) { return (size_t)n_tokens * sl_rounded_bytes(n); }

static void round_chunk(void *user, int64_t token, int thread) {
    (void)thread;
    const sl_act *act = user;
    sl_kernels_get()->round_row(act->x + (size_t)token * act->stride, act->n,
                                (char *)act->blocks + (size_t)token * sl_rounded_bytes(act->n));
}

void sl_act_round(sl_pool *pool, sl_act *act) {
    if (!act->blocks) return;
    sl_pool_run(act->n_tokens < 4 ? NULL : pool, act->n_tokens, round_chunk, act); /* few: not worth waking anybody */
}

/* ---------------------------------------------------------------- products */

typedef struct product_run {
    sl_product product;
    void (*kernel)(const sl_product *p, int64_t r0, int64_t r1, int64_t t0, int64_t t1);
    int64_t rows, tokens, row_step, token_step, row_chunks;
    int64_t chunks; /* row_chunks times the chunks of tokens */
} product_run;

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Tokens whose activations of n bytes each stay in a core's second-level cache while all rows pass: whole tiles of every
 * table (3 and 8 tokens at once). */
static int64_t token_block(int64_t row_bytes) {
    enum { CACHE = 1 << 18, TILE = 24 };
    int64_t fit = CACHE / (row_bytes ? row_bytes : 1) / TILE * TILE;
    return fit < 2 * TILE ? 2 * TILE : fit;
}

/* Chunks small enough that a thread which loses its core delays the others little, large enough to be worth taking:
 * about 2^17 multiply-adds, rows in whole panels of 16 (64 where wide activations would else be read too often).
 * Neighbouring chunks share their tokens. */
static void split(product_run *run, int threads, bool rounded) {
    enum { CHUNK_WORK = 1 << 17 };
    int64_t block = token_block(run->product.n * (rounded ? 1 : 4)), unit = !rounded && run->tokens > 8 ? 64 : SL_PANEL_ROWS;
    run->token_step = run->tokens < block + block / 2 ? run->tokens : block;
    int64_t row_work = run->product.n * run->token_step;
    int64_t step = row_work > 0 ? CHUNK_WORK / row_work : unit;
    if (run->rows < 4 * threads * unit) unit = SL_PANEL_ROWS;
    run->row_step = divide_up(step > 0 ? step : 1, unit) * unit;
    run->row_chunks = divide_up(run->rows, run->row_step);
    if (run->row_chunks < 4 * threads && run->token_step > 64) /* few rows: more chunks from the tokens */
        run->token_step = divide_up(divide_up(run->token_step, divide_up(4 * threads, run->row_chunks)), 24) * 24;
    run->chunks = run->row_chunks * divide_up(run->tokens, run->token_step);
}

static void prepare(product_run *run, sl_pool *pool, sl_arithmetic arithmetic, const sl_matmul_item *item,
                    const sl_act *act) {
    const sl_tensor *w = item->w;
    const sl_type_info *info = sl_type_get(w->type);
    const sl_kernels *kernels = sl_kernels_get();
    bool rounded = arithmetic == SL_FAST && info->is_quantised && act->blocks;
    *run = (product_run){.rows = w->shape[w->n_dims - 2], .tokens = act->n_tokens,
                         .kernel = rounded ? kernels->matmul_codes : kernels->matmul_float};
    size_t row_bytes = (size_t)(act->n / info->block) * info->bytes;
    run->product = (sl_product){.type = w->type, .w = w->data, .row_bytes = row_bytes, .n = act->n, .x = act->x,
                                .x_stride = act->stride, .blocks = act->blocks, .bias = item->bias, .y = item->y,
                                .y_stride = item->y_stride, .adds = item->adds};
    if (item->expert >= 0) run->product.w += (size_t)item->expert * (size_t)run->rows * row_bytes;
    if (run->tokens < 1 || run->rows < 1) return; /* no chunks */
    if (rounded) run->product.panels = sl_packed_get(pool, w, item->expert);
    split(run, sl_pool_threads(pool), rounded);
}

typedef struct product_list {
    product_run runs[SL_MATMUL_ITEMS];
    int n;
} product_list;

static void product_chunk(void *user, int64_t chunk, int thread) {
    const product_list *list = user;
    const product_run *run = list->runs;
    (void)thread;
    for (; chunk >= run->chunks; run++) chunk -= run->chunks;
    int64_t r0 = chunk % run->row_chunks * run->row_step, t0 = chunk / run->row_chunks * run->token_step;
    int64_t r1 = r0 + run->row_step < run->rows ? r0 + run->row_step : run->rows;
    int64_t t1 = t0 + run->token_step < run->tokens ? t0 + run->token_step : run->tokens;
    run->kernel(&run->product, r0, r1, t0, t1);
}

void sl_matmul_all(sl_pool *pool, sl_arithmetic arithmetic, const sl_matmul_item *items, int n_items,
                   const sl_act *act) {
    product_list list = {.n = n_items};
    int64_t chunks = 0;
    for (int i = 0; i < n_items; i++) {
        prepare(&list.runs[i], pool, arithmetic, &items[i], act);
        chunks += list.runs[i].chunks;
    }
    sl_pool_run(pool, chunks, product_chunk, &list);
}

void sl_matmul(sl_pool *pool, sl_arithmetic arithmetic, const sl_tensor *w, int64_t expert, const sl_act *act,
               const float *bias, float *y, size_t y_stride) {
    sl_matmul_item item = {.w = w, .expert = expert, .bias = bias, .y = y, .y_stride = y_stride};
    sl_matmul_all(pool, arithmetic, &item, 1, act);
}

void sl_row(const sl_tensor *w, int64_t row, float *out) {
    const sl_type_info *info = sl_type_get(w->type);
    int64_t n = w->shape[w->n_dims - 1];
    size_t row_bytes = (size_t)(n / info->block) * info->bytes;
    const uint8_t *panels = sl_packed_peek(w, -1);
    if (panels) /* the file's pages have been given back: reading one would bring its neighbours too */
        sl_panel_to_float(w->type, panels + (size_t)(row / SL_PANEL_ROWS) * sl_panel_bytes(w->type, n),
                          (int)(row % SL_PANEL_ROWS), n, out);
    else info->to_float((const char *)w->data + (size_t)row * row_bytes, out, (size_t)n);
}

/* ---------------------------------------------------------------- rows */

void sl_rms_norm(float *y, const float *x, const float *weight, int64_t n, float eps) {
    sl_kernels_get()->rms_norm(y, x, weight, n, eps);
}
void sl_layer_norm(float *y, const float *x, const float *weight, const float *bias, int64_t n, float eps) {
    sl_kernels_get()->layer_norm(y, x, weight, bias, n, eps);
}
void sl_softmax(float *x, int64_t n) { sl_kernels_get()->softmax(x, n); }
void sl_silu_mul(float *y, const float *gate, const float *up, int64_t n) {
    sl_kernels_get()->silu_mul(y, gate, up, n);
}
void sl_gelu_tanh_mul(float *y, const float *gate, const float *up, int64_t n) {
    sl_kernels_get()->gelu_tanh_mul(y, gate, up, n);
}
void sl_gelu_erf_mul(float *y, const float *gate, const float *up, int64_t n) {
    sl_kernels_get()->gelu_erf_mul(y, gate, up, n);
}
void sl_add(float *y, const float *x, int64_t n) { sl_kernels_get()->add(y, x, n); }
void sl_scale(float *y, float factor, int64_t n) { sl_kernels_get()->scale(y, factor, n); }
void sl_softcap(float *y, float cap, int64_t n) { sl_kernels_get()->softcap(y, cap, n); }
