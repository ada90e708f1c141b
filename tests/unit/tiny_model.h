/* The tiny model that tests of sessions and generation run on: random weights, a byte-level vocabulary of 320 tokens. It
 * is looked for in the repository first, then among the shared golden data beside it. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include "sllm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static inline const char *tiny_model_path(void) {
    static const char *const paths[] = {
        SLLM_SOURCE_DIR "/tests/golden/data/quant/gguf/llama32/llama32-Q8_0.gguf",
        SLLM_SOURCE_DIR "/../shared/golden/quant/gguf/llama32/llama32-Q8_0.gguf",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (access(paths[i], R_OK) == 0) return paths[i];
    return NULL;
}

/* Ends the test program as skipped when the model is not there. */
static inline void tiny_model_needed(void) {
    if (tiny_model_path()) return;
    printf("skipped: llama32-Q8_0.gguf is neither in tests/golden/data nor among the shared golden data\n");
    exit(77);
}

static inline sllm_model *tiny_model(int n_threads) {
    sllm_model_params params;
    sllm_model *model;
    sllm_error error = {0};
    sllm_model_params_init(&params);
    params.n_threads = n_threads;
    if (sllm_model_load(tiny_model_path(), &params, &model, &error)) fail_msg("%s", error.message);
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
