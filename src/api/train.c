/* The public functions that teach, and that add what was learned to a model. */
#include "sllm_train.h"

#include "api/handles.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTH = 1024, RECORD_LIMIT = 1 << 20, PATH_SIZE = 4096 };

void sllm_train_params_init(sllm_train_params *params) {
    if (params) *params = (sllm_train_params){.dropout = -1, .warmup = -1, .eval_split = -1};
}

static sllm_train_params with_defaults(const sl_model *m, const sllm_train_params *given) {
    sllm_train_params p = *given;
    int limit = m->config.n_ctx_train;
    if (!p.rank) p.rank = 16;
    if (p.alpha == 0) p.alpha = 2.0 * p.rank;
    if (p.dropout < 0) p.dropout = 0.05;
    if (!p.batch) p.batch = 4;
    if (!p.accumulation) p.accumulation = 4;
    if (p.epochs == 0) p.epochs = 3;
    if (p.learning_rate == 0) p.learning_rate = 2e-4;
    if (p.warmup < 0) p.warmup = 0.03;
    if (p.max_grad_norm == 0) p.max_grad_norm = 1;
    if (!p.max_length) p.max_length = limit > 0 && limit < MAX_LENGTH ? limit : MAX_LENGTH;
    if (p.eval_split < 0) p.eval_split = 0.05;
    if (!p.keep) p.keep = 2;
    if (!p.model_name) p.model_name = m->path;
    if (!p.data_name) p.data_name = "data";
    return p;
}

static sllm_status check(const sl_model *m, const char *data, size_t length, const sllm_train_params *params, sllm_error *error) {
    if (!m || !params || (!data && length)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a model, data and settings are needed");
    if (!m->weights) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model was loaded without weights");
    if (m->adapters) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the model has an adapter already: merge it, or teach the model alone");
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the plan */

static void put_example(const sl_trainer *t, sl_buffer *out) {
    const sl_example *e = &t->data.examples[t->train[0]];
    sl_json_key(out, "example");
    sl_buffer_putc(out, '[');
    for (int i = 0; i < e->n; i++) {
        size_t length = 0;
        const char *text = sl_tokenizer_piece(t->model->tokenizer, e->ids[i], &length);
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        sl_json_key(out, "text");
        sl_json_write_string(out, text ? text : "", length);
        sl_json_put_bool(out, "learned", e->labels[i] != SL_NO_LABEL && i > 0);
        sl_buffer_putc(out, '}');
    }
    sl_buffer_putc(out, ']');
}

static int64_t trainable(const sl_trainer *t) {
    int64_t n = 0;
    for (size_t i = 0; i < t->adapter->n; i++) {
        const sl_lora *l = &t->adapter->list[i];
        n += l->rank * (l->n_in + l->n_out) + (l->magnitude ? l->n_out : 0);
    }
    return n;
}

static sllm_status put_plan(const sl_trainer *t, char **json, sllm_error *error) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_int(&out, "trainable", trainable(t));
    sl_json_put_int(&out, "total", trainable(t) + t->model->config.n_params);
    sl_json_put_int(&out, "examples", t->n_train);
    sl_json_put_int(&out, "eval_examples", t->n_eval);
    sl_json_put_int(&out, "tokens", (int64_t)t->data.n_tokens);
    sl_json_put_int(&out, "labels", (int64_t)t->data.n_labels);
    sl_json_put_int(&out, "truncated", (int64_t)t->data.n_truncated);
    sl_json_put_int(&out, "split", (int64_t)t->data.n_split);
    sl_json_put_int(&out, "longest", t->data.longest);
    sl_json_put_int(&out, "steps", t->total);
    sl_json_put_int(&out, "bytes", (int64_t)sl_trainer_bytes(t));
    put_example(t, &out);
    sl_buffer_putc(&out, '}');
    *json = sl_buffer_take(&out, NULL);
    return *json ? SLLM_OK : sl_fail_memory(error, "the plan", 0);
}

sllm_status sllm_finetune_plan(sllm_model *model, const char *data, size_t length, const sllm_train_params *params, char **json,
                               sllm_error *error) {
    static const char none[65] = "";
    sl_model *m = sl_model_of(model);
    sl_trainer t;
    if (json) *json = NULL;
    if (error) *error = (sllm_error){0};
    sllm_status status = json ? check(m, data, length, params, error) : sl_fail(error, SLLM_ERROR_ARGUMENT, "json is NULL");
    if (status) return status;
    const sllm_train_params p = with_defaults(m, params);
    status = sl_trainer_open(&t, m, none, data, length, "", &p, error);
    if (!status) status = put_plan(&t, json, error);
    sl_trainer_close(&t);
    return status;
}

sllm_status sllm_finetune(sllm_model *model, const char *data, size_t length, const char *out, const sllm_train_params *params,
                          sllm_error *error) {
    sl_model *m = sl_model_of(model);
    sl_trainer t;
    char fingerprint[65];
    if (error) *error = (sllm_error){0};
    sllm_status status = check(m, data, length, params, error);
    if (!status && (!out || !*out)) status = sl_fail(error, SLLM_ERROR_ARGUMENT, "teaching needs a folder for the result");
    if (!status) status = sllm_model_fingerprint(model, fingerprint, error);
    if (status) return status;
    const sllm_train_params p = with_defaults(m, params);
    status = sl_trainer_open(&t, m, fingerprint, data, length, out, &p, error);
    if (!status) status = sl_trainer_check_memory(&t);
    if (!status) status = sl_trainer_begin_folder(&t);
    if (!status) status = sl_trainer_prepare(&t);
    if (!status && p.resume) status = sl_trainer_resume(&t);
    if (!status) status = sl_trainer_run(&t);
    sl_trainer_close(&t);
    return status;
}

/* ---------------------------------------------------------------- what was learned, added */

/* The base that sllm.json names, if there is one. */
static sllm_status check_base(sllm_model *model, const char *path, bool any_base, bool *verified, sllm_error *error) {
    char file[PATH_SIZE], fingerprint[65];
    sl_arena arena = {0};
    sl_buffer text = {0};
    const sl_json *root = NULL;
    *verified = false;
    if (!sl_path_join(file, sizeof file, path, "sllm.json") || !sl_path_is_file(file)) return SLLM_OK;
    sllm_status status = sl_file_read(file, RECORD_LIMIT, &text, error);
    if (!status) status = sl_json_parse(&arena, text.data, text.length, file, &root, error);
    if (!status) status = sllm_model_fingerprint(model, fingerprint, error);
    const char *base = sl_json_string(sl_json_get(root, "base_fingerprint"));
    *verified = !status && base && !strcmp(base, fingerprint);
    if (!status && base && !*verified && !any_base)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: was made on another model (%.60s, fingerprint %.16s; this one's is %.16s)", path,
                         sl_json_string(sl_json_get_path(root, "settings.model")) ? sl_json_string(sl_json_get_path(root, "settings.model")) : "?",
                         base, fingerprint);
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    return status;
}

sllm_status sllm_model_add_adapter(sllm_model *model, const char *path, float weight, bool any_base, bool *verified, sllm_error *error) {
    sl_model *m = sl_model_of(model);
    sl_adapter *adapter = NULL;
    bool known;
    if (error) *error = (sllm_error){0};
    if (!m || !path || !*path) return sl_fail(error, SLLM_ERROR_ARGUMENT, "a model and an adapter's folder are needed");
    sllm_status status = check_base(model, path, any_base, &known, error);
    if (!status) status = sl_adapter_read(m, path, &adapter, error);
    if (!status) status = sl_model_own_adapter(m, adapter, weight, error);
    if (status) sl_adapter_free(adapter);
    if (verified) *verified = !status && known;
    return status;
}
