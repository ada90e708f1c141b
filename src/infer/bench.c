#include "infer/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/rng.h"
#include "model/forward.h"
#include "model/plan.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_BATCH = 1024, MOST_REPEAT = 1000, WARM_TOKENS = 32 };

/* One case under way. */
typedef struct bench_case {
    const sl_model *model;
    const sllm_bench_params *params;
    sl_kv_type kv_type;
    sl_work *work;
    sl_kv_pool *pool;
    sl_kv **kvs;         /* [n_batch] */
    sl_part *parts;      /* [n_batch] */
    int32_t *ids;        /* [n_batch, length] */
    float *logits;       /* [n_batch, n_vocab] */
    double *seconds;     /* [n_repeat] */
    int depth, n_batch, n_tokens;
    bool generate;
} bench_case;

static int length_of(const bench_case *b) { return b->depth + b->n_tokens; }

/* ---------------------------------------------------------------- what is checked first */

static sllm_status check_list(const char *what, const int *list, size_t n, int least, int most, sllm_error *error) {
    if (!list || !n) return sl_fail(error, SLLM_ERROR_ARGUMENT, "there are no %s to measure at", what);
    for (size_t i = 0; i < n; i++)
        if (list[i] < least || list[i] > most)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %d is not from %d to %d", what, list[i], least, most);
    return SLLM_OK;
}

static sllm_status check(const sl_model *model, const sllm_bench_params *p, sllm_error *error) {
    int trained = model->config.n_ctx_train, longest = p->n_prompt > p->n_generate ? p->n_prompt : p->n_generate;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: loaded without weights (vocab_only); nothing to measure",
                       model->path);
    if (p->n_prompt < 0 || p->n_generate < 0 || longest == 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "a prompt of %d and %d generated tokens: one must be above 0",
                       p->n_prompt, p->n_generate);
    if (p->n_repeat < 1 || p->n_repeat > MOST_REPEAT)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d repetitions: 1 to %d are possible", p->n_repeat, MOST_REPEAT);
    sllm_status status = check_list("batches", p->batches, p->n_batches, 1, MOST_BATCH, error);
    if (!status) status = check_list("depths", p->depths, p->n_depths, 0, INT32_MAX, error);
    for (size_t i = 0; i < p->n_depths && !status; i++)
        if (longest > trained || p->depths[i] > trained - longest)
            status = sl_fail(error, SLLM_ERROR_CONTEXT, "a depth of %d and %d tokens more do not fit the model's context "
                             "of %d", p->depths[i], longest, trained);
    return status;
}

/* ---------------------------------------------------------------- memory of a case */

static int pages_of(int positions) { return (positions + SL_PAGE - 1) / SL_PAGE; }

static sllm_status check_memory(const bench_case *b, sllm_error *error) {
    sllm_machine machine;
    if (!b->n_tokens) return SLLM_OK;
    sl_machine_read(&machine);
    uint64_t one = sl_kv_pool_bytes(&b->model->config, b->kv_type, pages_of(length_of(b)));
    if (machine.memory_free == 0 || one <= machine.memory_free / (uint64_t)b->n_batch) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_MEMORY, "keys and values of %d sequences of %d positions take %.1f GB, but %.1f GB of "
                   "memory are free", b->n_batch, length_of(b), (double)one * b->n_batch / 1e9,
                   (double)machine.memory_free / 1e9);
}

/* Random tokens, the same ones for a sequence whatever the batch and the case. */
static void choose_ids(const bench_case *b) {
    for (int s = 0; s < b->n_batch; s++) {
        sl_rng rng;
        sl_rng_seed(&rng, b->params->seed + (uint64_t)s);
        for (int i = 0; i < length_of(b); i++)
            b->ids[(size_t)s * (size_t)length_of(b) + (size_t)i] =
                (int32_t)(sl_rng_next(&rng) % (uint64_t)b->model->config.n_vocab);
    }
}

static sllm_status open_case(bench_case *b, sllm_error *error) {
    size_t n = (size_t)b->n_batch, ids = n * (size_t)length_of(b), logits = n * (size_t)b->model->config.n_vocab;
    int pages = pages_of(length_of(b));
    if (pages > INT32_MAX / b->n_batch) return sl_fail_memory(error, "keys and values to measure with", SIZE_MAX);
    b->kvs = calloc(n, sizeof *b->kvs);
    b->parts = calloc(n, sizeof *b->parts);
    b->ids = malloc(ids * sizeof *b->ids);
    b->logits = malloc(logits * sizeof *b->logits);
    b->seconds = calloc((size_t)b->params->n_repeat, sizeof *b->seconds);
    if (!b->kvs || !b->parts || !b->ids || !b->logits || !b->seconds)
        return sl_fail_memory(error, "a case to measure", (ids + logits) * 4);
    sllm_status status = sl_work_new(b->model, &b->work, error);
    if (!status) status = sl_kv_pool_new(b->model, b->kv_type, pages * b->n_batch, &b->pool, error);
    for (int s = 0; s < b->n_batch && !status; s++) status = sl_kv_new(b->pool, length_of(b), &b->kvs[s], error);
    if (!status) choose_ids(b);
    return status;
}

static void close_case(bench_case *b) {
    for (int s = 0; b->kvs && s < b->n_batch; s++) sl_kv_free(b->kvs[s]);
    sl_kv_pool_free(b->pool);
    sl_work_free(b->work);
    free(b->kvs);
    free(b->parts);
    free(b->ids);
    free(b->logits);
    free(b->seconds);
}

/* ---------------------------------------------------------------- running */

static bool is_cancelled(void *user) {
    const sllm_bench_params *p = ((const bench_case *)user)->params;
    return p->is_cancelled && p->is_cancelled(p->user);
}

/* n more tokens of every sequence, from `first` on; logits of the last where wanted. */
static sllm_status forward(bench_case *b, int first, int n, bool wants_logits, sllm_error *error) {
    sl_forward_params params = {.logits = wants_logits ? b->logits : NULL, .is_cancelled = is_cancelled, .user = b};
    for (int s = 0; s < b->n_batch; s++)
        b->parts[s] = (sl_part){b->kvs[s], b->ids + (size_t)s * (size_t)length_of(b) + first, n, wants_logits};
    return sl_forward_batch(b->model, b->work, b->parts, b->n_batch, &params, error);
}

static void rewind_to_depth(bench_case *b) {
    for (int s = 0; s < b->n_batch; s++) sl_kv_truncate(b->kvs[s], b->depth);
}

static sllm_status run_once(bench_case *b, int n, sllm_error *error) {
    if (!b->generate) return forward(b, b->depth, n, true, error);
    sllm_status status = SLLM_OK;
    for (int i = 0; i < n && !status; i++) status = forward(b, b->depth + i, 1, true, error);
    return status;
}

/* The context before, and a run so that weights are laid out, threads awake and, for a prompt, all memory there: as
 * llama-bench does, a whole prompt, but only the beginning of a generation. */
static sllm_status warm_up(bench_case *b, sllm_error *error) {
    sllm_status status = b->depth ? forward(b, 0, b->depth, false, error) : SLLM_OK;
    if (!status) status = run_once(b, b->generate && b->n_tokens > WARM_TOKENS ? WARM_TOKENS : b->n_tokens, error);
    rewind_to_depth(b);
    return status;
}

static sllm_status run_all(bench_case *b, sllm_error *error) {
    sllm_status status = warm_up(b, error);
    for (int r = 0; r < b->params->n_repeat && !status; r++) {
        rewind_to_depth(b);
        double start = sl_clock();
        status = run_once(b, b->n_tokens, error);
        b->seconds[r] = sl_clock() - start;
    }
    return status;
}

/* ---------------------------------------------------------------- the row */

/* Fowler, Noll and Vo's hash, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/). */
static uint64_t hash(const void *data, size_t size) {
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Work of one run. Keys and values are counted once a token in generation and once a chunk in prompts, where a tile of
 * queries reads them together. */
static void count_work(const bench_case *b, sllm_bench_row *row) {
    const sl_config *c = &b->model->config;
    sl_tensors tensors = sl_tensors_of(b->model);
    sl_footprint f;
    sl_plan_tensors(&tensors, c, b->model->exact, &f);
    uint64_t batch = (uint64_t)b->n_batch, rows = batch * (uint64_t)b->n_tokens, step = SL_CHUNK / b->n_batch;
    uint64_t logits = b->generate ? rows : batch;
    int forwards = b->generate ? b->n_tokens : (int)((rows + SL_CHUNK - 1) / SL_CHUNK);
    int together = b->generate ? b->n_batch : rows < SL_CHUNK ? (int)rows : SL_CHUNK;
    row->bytes = (uint64_t)forwards * sl_footprint_bytes(&f, c, together, b->generate ? b->n_batch : 0);
    if (!b->generate) row->bytes += f.head_bytes;
    for (int i = 0; i < b->n_tokens; i++) {
        row->f32_macs += batch * sl_attention_macs(c, b->depth + i);
        if (b->generate || (step && (uint64_t)(i + 1) % step == 0) || i + 1 == b->n_tokens)
            row->bytes += batch * sl_attention_bytes(c, b->kv_type, b->depth + i);
    }
    row->f32_macs += rows * f.body_macs[0] + logits * f.head_macs[0];
    row->int8_macs += rows * f.body_macs[1] + logits * f.head_macs[1];
}

static void make_row(const bench_case *b, sllm_bench_row *row) {
    int n = b->params->n_repeat;
    *row = (sllm_bench_row){.generate = b->generate, .depth = b->depth, .n_batch = b->n_batch, .n_tokens = b->n_tokens,
                            .n_repeat = n};
    qsort(b->seconds, (size_t)n, sizeof *b->seconds, compare);
    row->seconds = n % 2 ? b->seconds[n / 2] : (b->seconds[n / 2 - 1] + b->seconds[n / 2]) / 2;
    row->seconds_least = b->seconds[0];
    row->seconds_most = b->seconds[n - 1];
    row->tokens_per_second = (double)b->n_batch * b->n_tokens / row->seconds;
    row->logits_hash = hash(b->logits, (size_t)b->model->config.n_vocab * sizeof *b->logits);
    count_work(b, row);
}

static sllm_status measure_case(const bench_case *wanted, sllm_error *error) {
    bench_case b = *wanted;
    sllm_bench_row row;
    if (!b.n_tokens) return SLLM_OK;
    sllm_status status = open_case(&b, error);
    if (!status) status = run_all(&b, error);
    if (!status) {
        make_row(&b, &row);
        if (b.params->on_row && !b.params->on_row(b.params->user, &row))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "measuring was cancelled");
    }
    close_case(&b);
    return status;
}

/* Depths in order, in each the batches, in each the prompt and then generation. */
static sllm_status each_case(bench_case b, sllm_status (*step)(const bench_case *b, sllm_error *error),
                             sllm_error *error) {
    const sllm_bench_params *p = b.params;
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < 2 * p->n_depths * p->n_batches && !status; i++) {
        b.generate = i % 2;
        b.n_batch = p->batches[i / 2 % p->n_batches];
        b.depth = p->depths[i / 2 / p->n_batches];
        b.n_tokens = b.generate ? p->n_generate : p->n_prompt;
        status = step(&b, error);
    }
    return status;
}

sllm_status sl_bench(const sl_model *model, const sllm_bench_params *p, sllm_error *error) {
    bench_case b = {.model = model, .params = p};
    sllm_status status = check(model, p, error);
    if (!status)
        status = sl_kv_type_choose(&model->config, p->kv_type, model->exact, model->weights->only_f32, &b.kv_type, error);
    if (!status) status = each_case(b, check_memory, error);
    return status ? status : each_case(b, measure_case, error);
}
