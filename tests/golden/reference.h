/* What the kinds that compute logits share: reference tensors, distances, greedy continuations. */
#ifndef TESTS_GOLDEN_REFERENCE_H
#define TESTS_GOLDEN_REFERENCE_H

#include "base/json.h"
#include "format/safetensors.h"
#include "model/model.h"

/* A model with one timeline, as the kinds use it. */
typedef struct engine {
    sl_model *model;
    sl_work *work;
    sl_kv_pool *pool;
    sl_kv *kv;
    int n_ctx;
} engine;

/* n_ctx positions, or as many as the model has; false, with *error filled, when it cannot be opened. */
bool engine_open(engine *e, const char *path, bool exact, int n_ctx, sllm_error *error);
/* The timeline of a model that is loaded (e->model); what was made of it before a failure engine_close frees. */
bool engine_start(engine *e, int n_ctx, sllm_error *error);
void engine_close(engine *e);

/* Logits [n, n_vocab] of ids on an emptied timeline; `tap` may be NULL. */
sllm_status engine_logits(engine *e, const int32_t *ids, int n, float *logits,
                          void (*tap)(void *user, int layer, int first, int n, const float *x), void *user,
                          sllm_error *error);
/* The n_new most likely tokens one after another, after prompt; end tokens are not obeyed. */
sllm_status engine_greedy(engine *e, const int32_t *prompt, int n_prompt, int n_new, int32_t *tokens, sllm_error *error);

/* Index of the largest value, the lowest at a tie. */
int argmax(const float *x, int n);
double max_difference(const float *a, const float *b, size_t n); /* infinite when one is NaN */
double rms_difference(const float *a, const float *b, size_t n);

/* int32 copy of an integer tensor (any integer type); NULL when there is none such. The caller frees. */
int32_t *reference_ids(const sl_safetensors *file, const char *name, int64_t *rows, int64_t *columns);
/* The f32 values of a tensor with this many elements, or NULL. Borrowed. */
const float *reference_floats(const sl_safetensors *file, const char *name, uint64_t n);
/* A JSON list of ids; NULL when it is not one. The caller frees. */
int32_t *json_ids(const sl_json *list, int *n);
/* A parsed JSON file in the arena; NULL when absent or damaged. */
const sl_json *json_file(sl_arena *arena, const char *directory, const char *name);

#endif
