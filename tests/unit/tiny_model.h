/* The tiny model that tests of sessions and generation run on: random weights, routed experts, a byte-level vocabulary
 * of 320 tokens. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include "sllm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#define TINY_MODEL SLLM_SOURCE_DIR "/tests/golden/data/quant/gguf/qwen2-moe/qwen2-moe-Q8_0.gguf"

static inline sllm_model *tiny_model(int n_threads) {
    sllm_model_params params;
    sllm_model *model;
    sllm_error error = {0};
    sllm_model_params_init(&params);
    params.n_threads = n_threads;
    if (sllm_model_load(TINY_MODEL, &params, &model, &error)) fail_msg("%s", error.message);
    return model;
}

static inline sllm_session *tiny_session(sllm_model *model, int n_ctx) {
    sllm_session_params params = {.n_ctx = n_ctx};
    sllm_session *session;
    sllm_error error = {0};
    if (sllm_session_new(model, &params, &session, &error)) fail_msg("%s", error.message);
    return session;
}

#endif
