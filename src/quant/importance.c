#include "quant/importance_int.h"

#include "base/error.h"
#include "base/utf8.h"
#include "model/timeline.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- entries */

sllm_status sl_importance_new(sl_importance **importance, sllm_error *error) {
    *importance = calloc(1, sizeof **importance);
    if (!*importance) return sl_fail_memory(error, "importance", sizeof **importance);
    (*importance)->names.seed = sl_map_seed_random();
    return SLLM_OK;
}

void sl_importance_free(sl_importance *importance) {
    if (!importance) return;
    sl_map_free(&importance->names);
    sl_arena_free(&importance->arena);
    free(importance->entries);
    free(importance);
}

sllm_status sl_importance_add(sl_importance *im, const char *name, size_t length, int64_t n_columns, int n_matrices,
                              sl_importance_entry **entry, sllm_error *error) {
    uint64_t other;
    if (sl_map_get(&im->names, name, length, &other))
        return sl_fail(error, SLLM_ERROR_FORMAT, "importance of %.*s is there twice", (int)length, name);
    if (im->n == im->capacity) {
        size_t more = im->capacity ? 2 * im->capacity : 256;
        sl_importance_entry *list = realloc(im->entries, more * sizeof *list);
        if (!list) return sl_fail_memory(error, "importance", more * sizeof *list);
        im->entries = list;
        im->capacity = more;
    }
    size_t values = (size_t)n_matrices * (size_t)n_columns;
    sl_importance_entry e = {.n_columns = n_columns, .n_matrices = n_matrices};
    e.name = sl_arena_copy(&im->arena, name, length);
    e.sums = sl_arena_array(&im->arena, values, sizeof(float));
    e.counts = sl_arena_array(&im->arena, (size_t)n_matrices, sizeof(float));
    e.means = sl_arena_array(&im->arena, values, sizeof(float));
    if (!e.name || !e.sums || !e.counts || !e.means || !sl_map_put(&im->names, e.name, length, im->n))
        return sl_fail_memory(error, "importance", 2 * values * sizeof(float));
    im->entries[im->n] = e;
    *entry = &im->entries[im->n++];
    return SLLM_OK;
}

sllm_status sl_importance_finish(sl_importance *im, sllm_error *error) {
    for (size_t i = 0; i < im->n; i++) {
        sl_importance_entry *e = &im->entries[i];
        for (int m = 0; m < e->n_matrices; m++) {
            for (int64_t c = 0; c < e->n_columns; c++) {
                float sum = e->sums[m * e->n_columns + c], mean = e->counts[m] > 0 ? sum / e->counts[m] : 0;
                if (!(sum >= 0) || !(e->counts[m] >= 0) || !isfinite(mean))
                    return sl_fail(error, SLLM_ERROR_FORMAT, "importance of %s, matrix %d, column %lld is no finite number "
                                   "from 0 up", e->name, m, (long long)c);
                e->means[m * e->n_columns + c] = mean;
            }
        }
    }
    return SLLM_OK;
}

const float *sl_importance_get(const sl_importance *im, const char *name, int expert, int64_t n_columns) {
    uint64_t index;
    if (!sl_map_get(&im->names, name, strlen(name), &index)) return NULL;
    const sl_importance_entry *e = &im->entries[index];
    if (e->n_columns != n_columns) return NULL;
    int m = e->n_matrices == 1 ? 0 : expert;
    return m >= 0 && m < e->n_matrices && e->counts[m] > 0 ? e->means + m * n_columns : NULL;
}

bool sl_importance_columns(const sl_importance *im, const char *name, int64_t *n_columns) {
    uint64_t index;
    if (!sl_map_get(&im->names, name, strlen(name), &index)) return false;
    *n_columns = im->entries[index].n_columns;
    return true;
}

/* ---------------------------------------------------------------- measuring */

/* The matrices that meet the same inputs, and the sums of those. */
typedef struct meeting {
    double *sums;   /* [n_matrices, width] */
    double *counts; /* [n_matrices] */
    int64_t width;
    int n_matrices;
} meeting;

typedef struct collector {
    const sl_model *model;
    meeting *meetings; /* [n_layers + 1, SL_SLOT_COUNT]; the last row is the output matrix's */
    sl_arena arena;
    bool failed;
} collector;

typedef struct square_job {
    double *sums;
    const float *x;
    int64_t n, width;
    size_t stride;
} square_job;

enum { COLUMNS_A_TASK = 256 };

/* Each column is summed by one thread, over rows in order. */
static void add_squares(void *user, int64_t chunk, int thread) {
    const square_job *j = user;
    int64_t from = chunk * COLUMNS_A_TASK, to = from + COLUMNS_A_TASK < j->width ? from + COLUMNS_A_TASK : j->width;
    (void)thread;
    for (int64_t r = 0; r < j->n; r++) {
        const float *row = j->x + (size_t)r * j->stride;
        for (int64_t c = from; c < to; c++) j->sums[c] += (double)row[c] * (double)row[c];
    }
}

static void observe(void *user, sl_slot slot, int layer, int expert, const float *x, int64_t n, int64_t width,
                    size_t stride) {
    collector *k = user;
    const sl_config *c = &k->model->config;
    meeting *m = &k->meetings[(size_t)(layer < 0 ? c->n_layers : layer) * SL_SLOT_COUNT + (size_t)slot];
    int matrix = expert < 0 ? 0 : expert;
    if (!m->sums) {
        m->width = width;
        m->n_matrices = expert < 0 ? 1 : c->n_experts;
        m->sums = sl_arena_array(&k->arena, (size_t)m->n_matrices * (size_t)width, sizeof *m->sums);
        m->counts = sl_arena_array(&k->arena, (size_t)m->n_matrices, sizeof *m->counts);
        if (!m->sums || !m->counts) {
            k->failed = true;
            m->sums = NULL;
            return;
        }
    }
    square_job job = {m->sums + (int64_t)matrix * width, x, n, width, stride};
    sl_pool_run(k->model->pool, (width + COLUMNS_A_TASK - 1) / COLUMNS_A_TASK, add_squares, &job);
    m->counts[matrix] += (double)n;
}

/* Every matrix that meets the inputs of `slot`; ends with SL_SLOT_COUNT. */
static const sl_slot *served_by(sl_slot slot) {
    static const sl_slot qkv[] = {SL_SLOT_Q, SL_SLOT_K, SL_SLOT_V, SL_SLOT_QKV, SL_SLOT_COUNT};
    static const sl_slot up[] = {SL_SLOT_GATE, SL_SLOT_UP, SL_SLOT_COUNT};
    static const sl_slot experts[] = {SL_SLOT_EXPERT_GATE, SL_SLOT_EXPERT_UP, SL_SLOT_COUNT};
    static const sl_slot shared[] = {SL_SLOT_SHARED_GATE, SL_SLOT_SHARED_UP, SL_SLOT_COUNT};
    static const sl_slot out[] = {SL_SLOT_ATTN_OUT, SL_SLOT_COUNT}, down[] = {SL_SLOT_DOWN, SL_SLOT_COUNT};
    static const sl_slot expert_down[] = {SL_SLOT_EXPERT_DOWN, SL_SLOT_COUNT};
    static const sl_slot shared_down[] = {SL_SLOT_SHARED_DOWN, SL_SLOT_COUNT};
    static const sl_slot output[] = {SL_SLOT_OUTPUT, SL_SLOT_EMBED, SL_SLOT_COUNT};
    switch (slot) {
    case SL_SLOT_QKV: return qkv;
    case SL_SLOT_UP: return up;
    case SL_SLOT_ATTN_OUT: return out;
    case SL_SLOT_DOWN: return down;
    case SL_SLOT_EXPERT_UP: return experts;
    case SL_SLOT_EXPERT_DOWN: return expert_down;
    case SL_SLOT_SHARED_UP: return shared;
    case SL_SLOT_SHARED_DOWN: return shared_down;
    case SL_SLOT_OUTPUT: return output;
    default: return output + 2;
    }
}

/* "blk.7.ffn_down.weight"; the length. */
static int tensor_name(sl_slot slot, int layer, char *out, size_t size) {
    const char *pattern = sl_gguf_slots[slot], *mark = strstr(pattern, "{L}");
    if (!mark) return snprintf(out, size, "%s.weight", pattern);
    return snprintf(out, size, "%.*s%d%s.weight", (int)(mark - pattern), pattern, layer, mark + 3);
}

/* A file has only those of the names that its own tensors have. */
static bool is_there(const sl_model *model, sl_slot slot, const char *name) {
    if (model->gguf) return sl_gguf_tensor(model->gguf, name) && (slot != SL_SLOT_EMBED || model->config.tied);
    return slot != SL_SLOT_EMBED || model->config.tied;
}

static sllm_status keep_meeting(collector *k, sl_importance *im, sl_slot slot, int layer, const meeting *m,
                                sllm_error *error) {
    for (const sl_slot *s = served_by(slot); *s != SL_SLOT_COUNT; s++) {
        char name[96];
        sl_importance_entry *e;
        int length = tensor_name(*s, layer, name, sizeof name);
        if (!is_there(k->model, *s, name)) continue;
        sllm_status status = sl_importance_add(im, name, (size_t)length, m->width, m->n_matrices, &e, error);
        if (status) return status;
        for (int64_t i = 0; i < m->n_matrices * m->width; i++) e->sums[i] = (float)m->sums[i];
        for (int i = 0; i < m->n_matrices; i++) e->counts[i] = (float)m->counts[i];
    }
    return SLLM_OK;
}

static sllm_status keep_all(collector *k, sl_importance *im, sllm_error *error) {
    int n_layers = k->model->config.n_layers;
    sllm_status status = k->failed ? sl_fail_memory(error, "the sums of squares", 0) : SLLM_OK;
    for (int layer = 0; layer <= n_layers && !status; layer++) {
        for (int slot = 0; slot < SL_SLOT_COUNT && !status; slot++) {
            const meeting *m = &k->meetings[(size_t)layer * SL_SLOT_COUNT + (size_t)slot];
            if (m->sums) status = keep_meeting(k, im, (sl_slot)slot, layer, m, error);
        }
    }
    return status ? status : sl_importance_finish(im, error);
}

static sllm_status run_chunks(collector *k, const int32_t *ids, int n_chunks, int n_ctx,
                              bool (*on_progress)(void *, const char *, uint64_t, uint64_t), void *user, sllm_error *error) {
    const sl_model *model = k->model;
    bool bos = model->tokenizer && sl_tokenizer_adds_bos(model->tokenizer);
    sl_timeline t = {0};
    int32_t *chunk = malloc((size_t)n_ctx * sizeof *chunk);
    const sl_forward_params params = {.observe = observe, .user = k};
    sllm_status status = chunk ? SLLM_OK : sl_fail_memory(error, "a chunk of text", 0);
    if (!status) status = sl_timeline_open(&t, model, n_ctx, model->weights->only_f32, error);
    for (int i = 0; i < n_chunks && !status; i++) {
        memcpy(chunk, ids + (size_t)i * (size_t)n_ctx, (size_t)n_ctx * sizeof *chunk);
        if (bos) chunk[0] = sl_tokenizer_special(model->tokenizer, SL_SPECIAL_BOS);
        sl_kv_truncate(t.kv, 0);
        if (on_progress && !on_progress(user, "calibrating", (uint64_t)i * (uint64_t)n_ctx, (uint64_t)n_chunks * (uint64_t)n_ctx))
            status = sl_fail(error, SLLM_ERROR_CANCELLED, "interrupted while calibrating");
        else status = sl_forward(model, t.work, t.kv, chunk, n_ctx, &params, error);
    }
    if (!status && on_progress) on_progress(user, "calibrating", (uint64_t)n_chunks * (uint64_t)n_ctx, (uint64_t)n_chunks * (uint64_t)n_ctx);
    sl_timeline_close(&t);
    free(chunk);
    return status;
}

static sllm_status note_dataset(sl_importance *im, const char *dataset, sllm_error *error) {
    sl_buffer line = {0};
    sl_buffer_puts(&line, dataset ? dataset : "text");
    sl_utf8_make_line(&line);
    if (!line.failed) im->dataset = sl_arena_copy(&im->arena, line.data, line.length);
    sl_buffer_free(&line);
    return im->dataset ? SLLM_OK : sl_fail_memory(error, "a name", 0);
}

sllm_status sl_importance_collect(const sl_model *model, const int32_t *ids, size_t n, int n_ctx, const char *dataset,
                                  bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total),
                                  void *user, sl_importance **importance, sllm_error *error) {
    collector k = {.model = model};
    *importance = NULL;
    if (n < (size_t)n_ctx || n / (size_t)n_ctx > INT32_MAX)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%zu tokens are too few to calibrate on: at least %d are needed", n, n_ctx);
    k.meetings = sl_arena_array(&k.arena, ((size_t)model->config.n_layers + 1) * SL_SLOT_COUNT, sizeof *k.meetings);
    sllm_status status = k.meetings ? sl_importance_new(importance, error) : sl_fail_memory(error, "the sums of squares", 0);
    if (!status) {
        (*importance)->chunk_size = n_ctx;
        (*importance)->n_chunks = (int)(n / (size_t)n_ctx);
        status = note_dataset(*importance, dataset, error);
    }
    if (!status)
        status = run_chunks(&k, ids, (*importance)->n_chunks, n_ctx, on_progress, user, error);
    if (!status) status = keep_all(&k, *importance, error);
    sl_arena_free(&k.arena);
    if (status) {
        sl_importance_free(*importance);
        *importance = NULL;
    }
    return status;
}
