/* Measuring a model: checks of arguments, then infer/bench.h. */
#include "api/handles.h"
#include "base/error.h"
#include "infer/bench.h"

void sllm_bench_params_init(sllm_bench_params *params) {
    static const int zero = 0, one = 1;
    if (params)
        *params = (sllm_bench_params){.n_prompt = 512, .n_generate = 64, .depths = &zero, .n_depths = 1, .batches = &one,
                                      .n_batches = 1, .n_repeat = 3};
}

sllm_status sllm_bench(const sllm_model *model, const sllm_bench_params *params, sllm_error *error) {
    sllm_bench_params defaults;
    sllm_bench_params_init(&defaults);
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_bench: model is NULL");
    if (error) *error = (sllm_error){0};
    return sl_bench(sl_model_of_const(model), params ? params : &defaults, error);
}
