/* The public functions that measure models on text. */
#include "sllm_eval.h"

#include "api/handles.h"
#include "base/error.h"
#include "base/file.h"
#include "eval/report.h"
#include "eval/score.h"
#include "eval/text_ids.h"
#include "model/packed.h"
#include "model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CTX = 512 };

void sllm_eval_params_init(sllm_eval_params *params) {
    if (params) *params = (sllm_eval_params){0};
}

/* The text as ids, and what to do with them. */
static sllm_status prepare(const sl_model *model, const char *text, size_t length, const sllm_eval_params *params,
                           sl_score_params *score, int32_t **ids, size_t *n, sllm_error *error) {
    int limit = model->config.n_ctx_train, n_ctx = params->n_ctx;
    *ids = NULL;
    if (!text && length) return sl_fail(error, SLLM_ERROR_ARGUMENT, "text is NULL");
    if (params->n_ctx < 0 || params->n_chunks < 0)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "chunks: %d of %d tokens", params->n_chunks, params->n_ctx);
    if (!n_ctx) n_ctx = limit > 0 && limit < DEFAULT_CTX ? limit : DEFAULT_CTX;
    *score = (sl_score_params){n_ctx, params->n_chunks, params->on_progress, params->user};
    sllm_status status = sl_text_ids(model, text ? text : "", length, params->jsonl, n_ctx, ids, n, error);
    return status ? sl_error_prefix(error, status, "%s", params->text_name ? params->text_name : "text") : SLLM_OK;
}

sllm_status sllm_perplexity(const sllm_model *model, const char *text, size_t length, const sllm_eval_params *params,
                            sllm_perplexity_result *result, sllm_error *error) {
    static const sllm_eval_params defaults;
    sl_score_params score;
    sl_perplexity p;
    int32_t *ids;
    size_t n;
    if (error) *error = (sllm_error){0};
    if (!model || !result) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_perplexity: %s is NULL", model ? "result" : "model");
    const sl_model *m = sl_model_of_const(model);
    sllm_status status = prepare(m, text, length, params ? params : &defaults, &score, &ids, &n, error);
    if (!status) status = sl_perplexity_measure(m, ids, n, &score, &p, error);
    free(ids);
    if (status) return status;
    *result = (sllm_perplexity_result){
        .perplexity = exp(p.mean_nll), .standard_error = exp(p.mean_nll) * p.nll_error, .mean_nll = p.mean_nll,
        .tokens = p.n_read, .scored = p.n_scored, .chunks = p.n_chunks, .seconds = p.seconds,
        .tokens_per_second = p.seconds > 0 ? (double)p.n_read / p.seconds : 0, .exact = m->exact,
    };
    return SLLM_OK;
}

/* ---------------------------------------------------------------- comparing */

static const sl_tensor *tensor_named(const sl_tensors *tensors, const char *name) {
    for (size_t i = 0; tensors->list && i < tensors->n; i++)
        if (!strcmp(tensors->list[i].name, name)) return &tensors->list[i];
    return tensors->gguf ? sl_gguf_tensor(tensors->gguf, name) : sl_safetensors_get(tensors->safetensors, name);
}

/* AWQ divides norms and rows by what it multiplies columns with: the model computes the same, its tensors are others. */
static bool is_scaled(const sl_model *m) {
    const char *text;
    size_t length;
    if (m->checkpoint) {
        const sl_json *config = sl_packed_config(m->checkpoint), *method = config ? sl_json_get(config, "quant_method") : NULL;
        return method && sl_json_string(method) && !strcmp(sl_json_string(method), "awq");
    }
    return m->gguf && sl_gguf_get_string(m->gguf, "sllm.recipe", &text, &length, NULL) && memmem(text, length, "--method awq", 12);
}

static const char *note_of(const sl_model *a, const sl_model *b) {
    if (is_scaled(a) == is_scaled(b)) return NULL;
    return "AWQ has moved scales between matrices and norms: single tensors cannot be compared, only what the models answer";
}

/* Files of one format name their tensors alike; a checkpoint and a GGUF file do not, and order rows differently. */
static sllm_status compare_tensors(const sl_model *a, const sl_model *b, bool measure, sl_report_tensor **list, size_t *n,
                                   sllm_error *error) {
    sl_tensors of_a = sl_tensors_of(a), of_b = sl_tensors_of(b);
    *n = sl_tensors_count(&of_a);
    *list = calloc(*n ? *n : 1, sizeof **list);
    if (!*list) return sl_fail_memory(error, "the errors of tensors", *n * sizeof **list);
    for (size_t i = 0; i < *n; i++) {
        sl_report_tensor *t = &(*list)[i];
        t->a = sl_tensors_at(&of_a, i);
        const sl_tensor *other = tensor_named(&of_b, t->a->name);
        bool fits = other && other->n_dims == t->a->n_dims && other->n_elements > 0 &&
                    !memcmp(other->shape, t->a->shape, (size_t)t->a->n_dims * sizeof *other->shape) &&
                    sl_type_get(other->type)->is_float && sl_type_get(t->a->type)->is_float;
        if (!fits) continue;
        t->b = other;
        t->is_measured = measure;
        if (measure && !sl_tensor_error_of(a->pool, t->a, other, &t->error)) return sl_fail_memory(error, t->a->name, 0);
    }
    return SLLM_OK;
}

static uint64_t file_bytes(const sl_model *m) {
    if (m->gguf) return sl_gguf_file_bytes(m->gguf);
    return m->checkpoint && m->checkpoint->weights ? sl_safetensors_file_bytes(m->checkpoint->weights) : 0;
}

sllm_status sllm_compare(const sllm_model *a, const sllm_model *b, const char *text, size_t length,
                         const sllm_eval_params *params, char **json, char **html, sllm_error *error) {
    static const sllm_eval_params defaults;
    sl_score_params score;
    sl_comparison comparison = {0};
    sl_report_tensor *list = NULL;
    sl_buffer out = {0}, page = {0};
    size_t n = 0, n_tensors = 0;
    int32_t *ids = NULL;
    if (json) *json = NULL;
    if (html) *html = NULL;
    if (error) *error = (sllm_error){0};
    if (!a || !b || !json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_compare: a, b or json is NULL");
    if (!params) params = &defaults;
    const sl_model *ma = sl_model_of_const(a), *mb = sl_model_of_const(b);
    sllm_status status = prepare(ma, text, length, params, &score, &ids, &n, error);
    if (!status) status = sl_compare_measure(ma, &mb, 1, ids, n, &score, &comparison, error);
    if (!status) status = compare_tensors(ma, mb, !note_of(ma, mb), &list, &n_tensors, error);
    if (!status) {
        sl_report report = {ma->path, mb->path, params->text_name ? params->text_name : "text", mb->exact, score.n_ctx,
                            file_bytes(ma), file_bytes(mb), &comparison, list, n_tensors, note_of(ma, mb)};
        sl_report_json(&report, &out);
        if (html) sl_report_html(&report, &page);
        *json = sl_buffer_take(&out, NULL);
        if (html) *html = sl_buffer_take(&page, NULL);
        if (!*json || (html && !*html)) {
            free(*json);
            *json = NULL;
            status = sl_fail_memory(error, "the report", 0);
        }
    }
    sl_buffer_free(&out);
    sl_buffer_free(&page);
    free(comparison.kld);
    free(list);
    free(ids);
    return status;
}
