/* Batches: argument checks, then one call into infer/engine.h. */
#include "api/handles.h"
#include "base/error.h"
#include "infer/engine.h"

void sllm_batch_params_init(sllm_batch_params *params) {
    if (params) *params = (sllm_batch_params){0};
}

/* Pages for kv_bytes, or by what is free: never more than n_sequences contexts of `context` pages can use. */
static int pages_for(uint64_t kv_bytes, uint64_t page_bytes, int context, int n_sequences) {
    uint64_t most = (uint64_t)context * (uint64_t)n_sequences;
    if (kv_bytes == 0) {
        sllm_machine machine;
        sllm_machine_info(&machine);
        kv_bytes = machine.memory_free > 0 ? machine.memory_free / 2 : UINT64_MAX;
    }
    uint64_t pages = kv_bytes / (page_bytes > 0 ? page_bytes : 1);
    if (pages > most) pages = most;
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
                              params->no_prefix_cache};
    uint64_t page_bytes;
    int context;
    sllm_status status = sl_engine_check(sl_model_of(model), &given, &page_bytes, &context, error);
    if (status) return status;
    given.n_pages = pages_for(params->kv_bytes, page_bytes, context, given.n_sequences);
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
    sl_engine_step(batch, &left);
    if (more) *more = left;
    return SLLM_OK;
}

void sllm_batch_wait(sllm_batch *batch, double seconds) {
    if (batch) sl_engine_wait(batch, seconds);
}

void sllm_batch_get_stats(sllm_batch *batch, sllm_batch_stats *stats) {
    if (!stats) return;
    *stats = (sllm_batch_stats){0};
    if (batch) sl_engine_stats(batch, stats);
}
