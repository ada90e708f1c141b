/* Batches: argument checks, then one call into infer/engine.h. */
#include "api/handles.h"
#include "base/checked.h"
#include "base/error.h"
#include "infer/engine.h"

void sllm_batch_params_init(sllm_batch_params *params) {
    if (params) *params = (sllm_batch_params){0};
}

/* What a batch takes of the memory, in bytes. */
typedef struct needs {
    uint64_t free;      /* 0: not known */
    uint64_t model;     /* weights in the form that is multiplied, the program: what is not there yet */
    uint64_t sequences; /* scratch, logits, and a sampler for each */
    uint64_t kv;        /* keys and values: as many as are asked for, at least of one context */
} needs;

static sllm_status count_needs(const sllm_model *model, const sl_engine_params *p, uint64_t kv, needs *out,
                               sllm_error *error) {
    sllm_plan_params wanted = {.n_ctx = p->n_ctx, .n_batch = p->n_sequences, .kv_type = p->kv_type};
    sllm_plan plan;
    sllm_status status = sllm_model_plan_loaded(model, &wanted, &plan, error);
    if (status) return status;
    uint64_t whole = plan.total_bytes - plan.kv_bytes - plan.work_bytes;
    sllm_memory memory;
    sllm_memory_info(&memory);
    *out = (needs){plan.memory_free, whole > memory.anonymous ? whole - memory.anonymous : 0,
                   plan.work_bytes, kv};
    return SLLM_OK;
}

static sllm_status check_needs(const needs *n, int n_sequences, sllm_error *error) {
    const double mib = 1 << 20;
    uint64_t sum = n->model;
    bool fits = sl_add_u64(sum, n->sequences, &sum) && sl_add_u64(sum, n->kv, &sum) && sum <= n->free;
    if (fits || !n->free) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_MEMORY, "%d sequences at once need %.0f MiB of memory (the model %.0f, "
                   "scratch, logits and samplers %.0f, keys and values %.0f) and %.0f MiB are free; take fewer at once, a "
                   "smaller context or less for keys and values", n_sequences, (double)sum / mib, (double)n->model / mib,
                   (double)n->sequences / mib, (double)n->kv / mib, (double)n->free / mib);
}

/* Bytes of keys and values that are needed: kv_bytes as far as n_sequences contexts can use them, at least one context. */
static uint64_t kv_needed(uint64_t kv_bytes, uint64_t context_bytes, int n_sequences) {
    uint64_t most;
    if (!sl_mul_u64(context_bytes, (uint64_t)n_sequences, &most)) most = UINT64_MAX;
    return kv_bytes < context_bytes ? context_bytes : kv_bytes < most ? kv_bytes : most;
}

/* Pages: what is needed, or without kv_bytes by what is free beside the rest, as far as all sequences can use it. */
static int pages_for(uint64_t kv_bytes, const needs *n, uint64_t page_bytes, int context, int n_sequences) {
    uint64_t left = n->free - n->model - n->sequences, half = n->free / 2, bytes = n->kv;
    if (kv_bytes == 0) bytes = kv_needed(!n->free ? UINT64_MAX : left < half ? left : half, n->kv, n_sequences);
    uint64_t pages = bytes / (page_bytes > 0 ? page_bytes : 1);
    if (pages < (uint64_t)context) pages = (uint64_t)context;
    return pages < INT32_MAX ? (int)pages : INT32_MAX;
}

sllm_status sllm_batch_new(sllm_model *model, const sllm_batch_params *params, sllm_batch **batch, sllm_error *error) {
    if (!batch) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_batch_new: batch is NULL");
    *batch = NULL;
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_batch_new: model is NULL");
    sllm_batch_params defaults;
    sllm_batch_params_init(&defaults);
    if (!params) params = &defaults;
    sl_engine_params given = {params->n_ctx, params->n_sequences, params->n_rows, 0, params->kv_type,
                              params->no_prefix_cache, {params->is_cancelled, params->user}};
    uint64_t page_bytes;
    int context;
    sllm_status status = sl_engine_check(sl_model_of(model), &given, &page_bytes, &context, error);
    needs needed;
    uint64_t kv = status ? 0 : kv_needed(params->kv_bytes, page_bytes * (uint64_t)context, given.n_sequences);
    if (!status) status = count_needs(model, &given, kv, &needed, error);
    if (!status) status = check_needs(&needed, given.n_sequences, error);
    if (status) return status;
    given.n_pages = pages_for(params->kv_bytes, &needed, page_bytes, context, given.n_sequences);
    return sl_engine_new(sl_model_of(model), &given, batch, error);
}

void sllm_batch_free(sllm_batch *batch) { sl_engine_free(batch); }

sllm_status sllm_batch_add(sllm_batch *batch, const int32_t *ids, size_t n, const sllm_generate_params *params,
                           sllm_batch_done done, uint64_t *id, sllm_error *error) {
    if (id) *id = 0;
    if (!batch || !done || (!ids && n > 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_batch_add: %s is NULL",
                       !batch ? "batch" : !done ? "done" : "ids");
    if (n == 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_batch_add: the prompt is empty; it needs at least one token");
    sllm_generate_params defaults;
    sllm_generate_params_init(&defaults);
    return sl_engine_add(batch, ids, n, params ? params : &defaults, done, id, error);
}

bool sllm_batch_cancel(sllm_batch *batch, uint64_t id) { return batch && sl_engine_cancel(batch, id); }

sllm_status sllm_batch_step(sllm_batch *batch, bool *more, sllm_error *error) {
    bool left = false;
    if (more) *more = false;
    if (!batch) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_batch_step: batch is NULL");
    sllm_status status = sl_engine_step(batch, &left, error);
    if (more) *more = left;
    return status;
}

void sllm_batch_wait(sllm_batch *batch, double seconds) {
    if (batch) sl_engine_wait(batch, seconds);
}

void sllm_batch_get_stats(sllm_batch *batch, sllm_batch_stats *stats) {
    if (!stats) return;
    *stats = (sllm_batch_stats){0};
    if (batch) sl_engine_stats(batch, stats);
}
