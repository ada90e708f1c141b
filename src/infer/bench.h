/* Measuring a model's forward passes: prompts and generation, at some depth of context, one or many sequences. */
#ifndef SL_INFER_BENCH_H
#define SL_INFER_BENCH_H

#include "model/model.h"
#include "sllm.h"

/* See sllm_bench in include/sllm.h; params are checked here. */
sllm_status sl_bench(const sl_model *model, const sllm_bench_params *params, sllm_error *error);

#endif
