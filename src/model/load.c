/* Opens a model: file format, configuration, tokenizer, template, weights, threads. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "model/families.h"
#include "model/model.h"
#include "model/adapter.h"
#include "model/packed.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 512, MAX_END_IDS = 64, TOKENIZER_JSON_LIMIT = 1 << 30 };

/* ---------------------------------------------------------------- parts */

/* Nothing there to read is not an error here: a model without a tokenizer still computes. */
static sllm_status tokenizer_or_none(sllm_status status, sllm_error *error) {
    if (status != SLLM_ERROR_NOT_FOUND) return status;
    if (error) *error = (sllm_error){0};
    return SLLM_OK;
}

static sllm_status load_template(sl_model *model, const char *source, size_t length, sllm_error *error) {
    sllm_error why = {0};
    model->chat_template_source = sl_arena_copy(&model->arena, source, length);
    if (!model->chat_template_source) return sl_fail_memory(error, "the chat template", length);
    model->chat_template_length = length;
    sllm_status status = sl_template_compile(source, length, &model->chat_template, &why);
    if (!status) return SLLM_OK;
    if (status == SLLM_ERROR_MEMORY) return sl_fail_memory(error, "the chat template", length);
    model->chat_template_error = sl_arena_copy(&model->arena, why.message, strlen(why.message)); /* told on first use */
    return model->chat_template_error ? SLLM_OK : sl_fail_memory(error, "the chat template", 0);
}

static void add_end_ids(int32_t *ids, size_t *n, const int32_t *more, size_t n_more) {
    for (size_t i = 0; i < n_more && *n < MAX_END_IDS; i++) {
        bool known = false;
        for (size_t j = 0; j < *n; j++) known |= ids[j] == more[i];
        if (!known) ids[(*n)++] = more[i];
    }
}

static sllm_status gather_end_ids(sl_model *model, sllm_error *error) {
    int32_t ids[MAX_END_IDS], some[MAX_END_IDS];
    size_t n = 0, n_some;
    if (model->checkpoint) {
        int n_vocab = model->config.n_vocab;
        n_some = sl_config_end_ids(model->checkpoint->config, n_vocab, some, MAX_END_IDS);
        add_end_ids(ids, &n, some, n_some);
        n_some = sl_config_end_ids(model->checkpoint->generation_config, n_vocab, some, MAX_END_IDS);
        add_end_ids(ids, &n, some, n_some);
    }
    if (model->tokenizer) {
        const int32_t *known = sl_tokenizer_end_ids(model->tokenizer, &n_some);
        add_end_ids(ids, &n, known, n_some);
    }
    model->end_ids = sl_arena_array(&model->arena, n ? n : 1, sizeof *ids);
    if (!model->end_ids) return sl_fail_memory(error, "the end tokens", n * sizeof *ids);
    memcpy(model->end_ids, ids, n * sizeof *ids);
    model->n_end_ids = n;
    return SLLM_OK;
}

/* Tokens that phi3-small's tokenizer holds but its training never showed: the published model masks their logits. */
static bool is_unused(const char *text) {
    static const char *const known[] = {"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endofprompt|>"};
    static const char dummy[] = "<|dummy_id_";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(text, known[i])) return true;
    if (strncmp(text, dummy, sizeof dummy - 1)) return false;
    const char *number = text + sizeof dummy - 1;
    size_t digits = strspn(number, "0123456789");
    return digits > 0 && !strcmp(number + digits, "|>");
}

static sllm_status gather_unused_ids(sl_model *model, sllm_error *error) {
    const sl_config *c = &model->config;
    if (!model->tokenizer || !c->family || !c->family->masks_unused) return SLLM_OK;
    int32_t size = sl_tokenizer_size(model->tokenizer);
    if (size > c->n_vocab) size = c->n_vocab;
    for (int pass = 0; pass < 2; pass++) { /* counts, then writes */
        size_t n = 0;
        for (int32_t id = 0; id < size; id++) {
            const char *text = sl_tokenizer_text(model->tokenizer, id);
            if (!text || !is_unused(text)) continue;
            if (pass) model->unused_ids[n] = id;
            n++;
        }
        if (!n || pass) break;
        model->n_unused_ids = n;
        model->unused_ids = sl_arena_array(&model->arena, n, sizeof *model->unused_ids);
        if (!model->unused_ids) return sl_fail_memory(error, "the unused tokens", n * sizeof *model->unused_ids);
    }
    return SLLM_OK;
}

/* A vocabulary alone may come from a model whose network is not known here, or from a file that has none. */
static sllm_status config_or_none(sl_model *model, bool vocab_only, sllm_status status, sllm_error *error) {
    if (!status || !vocab_only || status == SLLM_ERROR_MEMORY) return status;
    model->config = (sl_config){0};
    if (error) *error = (sllm_error){0};
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the three sources */

static sllm_status load_gguf(sl_model *model, bool vocab_only, sllm_error *error) {
    const char *source;
    size_t length;
    sllm_error why = {0};
    sllm_status status = sl_gguf_open(model->path, &model->gguf, error);
    if (status) return status;
    if (!vocab_only && !sl_gguf_tensor_count(model->gguf))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: holds a vocabulary only, no weights; it can tokenize, not "
                       "generate", model->path);
    status = sl_config_from_gguf(model->gguf, &model->arena, &model->config, error);
    status = config_or_none(model, vocab_only, status, error);
    if (status) return sl_error_prefix(error, status, "%s", model->path);
    status = tokenizer_or_none(sl_tokenizer_from_gguf(model->gguf, &model->tokenizer, error), error);
    if (status) return sl_error_prefix(error, status, "%s", model->path);
    if (sl_gguf_get_string(model->gguf, "tokenizer.chat_template", &source, &length, &why))
        return load_template(model, source, length, error);
    return why.status ? sl_fail(error, why.status, "%s: %s", model->path, why.message) : SLLM_OK;
}

static sllm_status load_folder(sl_model *model, bool vocab_only, sllm_error *error) {
    sllm_status status = sl_checkpoint_open(model->path, vocab_only, &model->checkpoint, error);
    if (status) return status;
    status = sl_config_from_json(model->checkpoint->config, &model->arena, &model->config, error);
    status = config_or_none(model, vocab_only, status, error);
    if (status) return sl_error_prefix(error, status, "%s/config.json", model->path);
    status = tokenizer_or_none(sl_tokenizer_from_path(model->path, &model->tokenizer, error), error);
    if (status || !model->checkpoint->chat_template) return status;
    return load_template(model, model->checkpoint->chat_template, model->checkpoint->chat_template_length, error);
}

static sllm_status load_file(sl_model *model, bool vocab_only, sllm_error *error) {
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    const char *path = model->path;
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (sl_ends_with(path, pickles[i]))
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: weights in pickle form are refused, because loading "
                           "them would run code from the file; use safetensors or GGUF", path);
    if (sl_ends_with(path, ".safetensors"))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: give the folder that holds it with its config.json", path);
    if (!sl_ends_with(path, ".json") && !sl_ends_with(path, ".json.gz")) return load_gguf(model, vocab_only, error);
    if (!vocab_only)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a tokenizer.json holds a vocabulary but no network", path);
    return sl_tokenizer_from_path(path, &model->tokenizer, error);
}

/* ---------------------------------------------------------------- the whole */

static sllm_status load_weights(sl_model *model, const sllm_model_params *params, sllm_error *error) {
    sl_tensors tensors;
    int n_threads = params->n_threads ? params->n_threads : sl_cpu_count();
    sl_tensor *list;
    sllm_status status = sl_pool_new(n_threads < MAX_THREADS ? n_threads : MAX_THREADS, &model->pool, error);
    if (!status && model->checkpoint && sl_packed_config(model->checkpoint)) {
        status = sl_packed_tensors(model->checkpoint, model->pool, &model->arena, &list, &model->n_joined, error);
        if (status) return sl_error_prefix(error, status, "%s", model->path);
        model->joined = list;
    }
    tensors = sl_tensors_of(model);
    if (!status) status = sl_weights_bind(&tensors, &model->config, &model->arena, params->on_progress, params->user,
                                         &model->weights, error);
    if (!status && params->load_in_4bit != SLLM_AS_STORED)
        status = sl_weights_to_4bit(model->weights, &model->config, params->load_in_4bit == SLLM_FP4 ? SL_FP4 : SL_NF4, model->pool,
                                    params->double_quant, &model->arena, error);
    if (status) return status == SLLM_ERROR_CANCELLED ? status : sl_error_prefix(error, status, "%s", model->path);
    if (!model->exact) { /* exact arithmetic widens the rows of the file */
        status = sl_packer_new(&model->packer, error);
        if (!status) status = sl_weights_pack(model->weights, &model->config, model->packer, error);
        if (!status && model->joined) sl_weights_note_packed(model->weights, &model->config, list, model->n_joined);
    }
    return status;
}

sllm_status sl_model_load(const char *path, const sllm_model_params *params, sl_model **model, sllm_error *error) {
    static const sllm_model_params defaults;
    if (!params) params = &defaults;
    *model = NULL;
    if (!path || !*path) return sl_fail(error, SLLM_ERROR_ARGUMENT, "no model was named");
    if (params->n_threads < 0 || params->n_threads > MAX_THREADS)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%d threads; need 1..%d, or 0 for all", params->n_threads,
                       MAX_THREADS);
    sl_model *new = calloc(1, sizeof *new);
    if (!new) return sl_fail_memory(error, "the model", sizeof *new);
    new->exact = params->exact;
    new->path = sl_arena_copy(&new->arena, path, strlen(path));
    sllm_status status;
    if (!new->path) status = sl_fail_memory(error, "the model's path", strlen(path));
    else if (sl_path_is_directory(path)) status = load_folder(new, params->vocab_only, error);
    else status = load_file(new, params->vocab_only, error);
    if (!status && !params->vocab_only) status = load_weights(new, params, error);
    if (!status) status = gather_end_ids(new, error);
    if (!status) status = gather_unused_ids(new, error);
    if (status) {
        sl_model_free(new);
        return status;
    }
    *model = new;
    return SLLM_OK;
}

void sl_model_free(sl_model *model) {
    if (!model) return;
    sl_model_free_adapters(model);
    sl_pool_free(model->pool);
    sl_packer_free(model->packer);
    sl_template_free(model->chat_template);
    sl_tokenizer_free(model->tokenizer);
    sl_checkpoint_close(model->checkpoint);
    sl_gguf_close(model->gguf);
    sl_arena_free(&model->arena);
    free(model);
}
