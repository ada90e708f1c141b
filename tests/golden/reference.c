#include "golden/reference.h"

#include "base/file.h"
#include "model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool engine_open(engine *e, const char *path, bool exact, int n_ctx, sllm_error *error) {
    sllm_model_params params = {.exact = exact};
    *e = (engine){0};
    if (!sl_model_load(path, &params, &e->model, error) && engine_start(e, n_ctx, error)) return true;
    engine_close(e);
    return false;
}

bool engine_start(engine *e, int n_ctx, sllm_error *error) {
    const sl_model *m = e->model;
    sl_kv_type type;
    e->n_ctx = n_ctx < m->config.n_ctx_train ? n_ctx : m->config.n_ctx_train;
    return !sl_kv_type_choose(&m->config, SLLM_KV_AUTO, m->exact, m->weights->only_f32, &type, error) &&
           !sl_work_new(m, &e->work, error) &&
           !sl_kv_pool_new(m, type, (e->n_ctx + SL_PAGE - 1) / SL_PAGE, &e->pool, error) &&
           !sl_kv_new(e->pool, e->n_ctx, &e->kv, error);
}

void engine_close(engine *e) {
    sl_kv_free(e->kv);
    sl_kv_pool_free(e->pool);
    sl_work_free(e->work);
    sl_model_free(e->model);
    *e = (engine){0};
}

sllm_status engine_logits(engine *e, const int32_t *ids, int n, float *logits,
                          void (*tap)(void *user, int layer, int first, int n, const float *x), void *user,
                          sllm_error *error) {
    sl_forward_params params = {.logits = logits, .all_logits = true, .tap = tap, .user = user};
    sl_kv_truncate(e->kv, 0);
    return sl_forward(e->model, e->work, e->kv, ids, n, &params, error);
}

sllm_status engine_greedy(engine *e, const int32_t *prompt, int n_prompt, int n_new, int32_t *tokens,
                          sllm_error *error) {
    int n_vocab = e->model->config.n_vocab;
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    sl_forward_params params = {.logits = logits};
    sl_kv_truncate(e->kv, 0);
    sllm_status status = sl_forward(e->model, e->work, e->kv, prompt, n_prompt, &params, error);
    for (int i = 0; i < n_new && !status; i++) {
        tokens[i] = argmax(logits, n_vocab);
        if (i + 1 < n_new) status = sl_forward(e->model, e->work, e->kv, &tokens[i], 1, &params, error);
    }
    free(logits);
    return status;
}

int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

double max_difference(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}

double rms_difference(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (double)n);
}

int32_t *reference_ids(const sl_safetensors *file, const char *name, int64_t *rows, int64_t *columns) {
    const sl_tensor *t = sl_safetensors_get(file, name);
    if (!t || t->n_dims < 1 || t->n_dims > 2 || (t->type != SL_I64 && t->type != SL_I32)) return NULL;
    *rows = t->n_dims == 2 ? t->shape[0] : 1;
    *columns = t->shape[t->n_dims - 1];
    int32_t *ids = malloc((size_t)t->n_elements * sizeof *ids);
    for (uint64_t i = 0; ids && i < t->n_elements; i++) {
        int64_t wide = 0;
        if (t->type == SL_I64) memcpy(&wide, (const char *)t->data + 8 * i, 8);
        else memcpy(&ids[i], (const char *)t->data + 4 * i, 4);
        if (t->type == SL_I64) ids[i] = (int32_t)wide;
    }
    return ids;
}

const float *reference_floats(const sl_safetensors *file, const char *name, uint64_t n) {
    const sl_tensor *t = sl_safetensors_get(file, name);
    return t && t->type == SL_F32 && t->n_elements == n ? t->data : NULL;
}

int32_t *json_ids(const sl_json *list, int *n) {
    if (!list || list->type != SL_JSON_ARRAY) return NULL;
    int32_t *ids = malloc((list->length + 1) * sizeof *ids);
    for (size_t i = 0; ids && i < list->length; i++) {
        int64_t id = -1;
        if (!sl_json_int64(list->items[i], &id)) {
            free(ids);
            return NULL;
        }
        ids[i] = (int32_t)id;
    }
    *n = (int)list->length;
    return ids;
}

const sl_json *json_file(sl_arena *arena, const char *directory, const char *name) {
    char path[4096];
    sl_buffer text = {0};
    const sl_json *root = NULL;
    sllm_error error = {0};
    if (!sl_path_join(path, sizeof path, directory, name) || sl_file_read(path, 64 << 20, &text, &error) ||
        sl_json_parse(arena, text.data, text.length, path, &root, &error))
        root = NULL;
    sl_buffer_free(&text);
    return root;
}
