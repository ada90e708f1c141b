/* What tells one model from another. */
#include "api/handles.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "model/weights.h"

#include <string.h>

enum { HEAD = 1 << 20, SAMPLE = 4096, N_SAMPLES = 3 };

/* A length before each text, so that no two sequences of texts give the same bytes. */
static void put_bytes(sl_buffer *out, const void *bytes, size_t n) {
    uint64_t length = n;
    sl_buffer_append(out, &length, sizeof length);
    if (n) sl_buffer_append(out, bytes, n);
}

static void put_json(sl_buffer *out, const sl_json *value) {
    sl_buffer text = {0};
    if (value) sl_json_write_value(&text, value);
    put_bytes(out, text.data, text.length);
    if (text.failed) out->failed = true;
    sl_buffer_free(&text);
}

/* A GGUF file's settings stand at its beginning, before the vocabulary. */
static sllm_status put_head(sl_buffer *out, const char *path, sllm_error *error) {
    sl_mapping file;
    sllm_status status = sl_mapping_open(path, &file, error);
    if (status) return status;
    put_bytes(out, file.data, file.size < HEAD ? file.size : HEAD);
    sl_mapping_close(&file);
    return SLLM_OK;
}

/* The beginning, the middle and the end of the data, or all of it when it is short. */
static void put_tensor(sl_buffer *out, const sl_tensor *t) {
    const char *data = t->data;
    put_bytes(out, t->name, strlen(t->name));
    sl_buffer_printf(out, "%d,%d", (int)t->type, t->n_dims);
    put_bytes(out, t->shape, (size_t)t->n_dims * sizeof *t->shape);
    if (t->bytes <= N_SAMPLES * SAMPLE) {
        put_bytes(out, data, (size_t)t->bytes);
        return;
    }
    uint64_t last = t->bytes - SAMPLE;
    for (uint64_t i = 0; i < N_SAMPLES; i++) put_bytes(out, data + last / (N_SAMPLES - 1) * i, SAMPLE);
}

/* The tensors' digests: one after the other keeps the buffer small. */
static void put_tensors(sl_buffer *out, const sl_model *m) {
    sl_tensors tensors = {.gguf = m->gguf, .safetensors = m->checkpoint ? m->checkpoint->weights : NULL}; /* as stored */
    size_t n = tensors.gguf || tensors.safetensors ? sl_tensors_count(&tensors) : 0;
    sl_buffer one = {0};
    char hex[65];
    for (size_t i = 0; i < n && !one.failed; i++) {
        one.length = 0;
        put_tensor(&one, sl_tensors_at(&tensors, i));
        if (one.failed) break;
        sl_sha256_hex(one.data, one.length, hex);
        put_bytes(out, hex, 64);
    }
    if (one.failed) out->failed = true;
    sl_buffer_free(&one);
}

static void put_vocabulary(sl_buffer *out, const sl_tokenizer *tokenizer) {
    int32_t n = tokenizer ? sl_tokenizer_size(tokenizer) : 0;
    for (int32_t id = 0; id < n; id++) {
        const char *text = sl_tokenizer_text(tokenizer, id);
        put_bytes(out, text, text ? strlen(text) : 0);
    }
}

sllm_status sllm_model_fingerprint(const sllm_model *model, char hex[65], sllm_error *error) {
    if (!model || !hex)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_model_fingerprint: %s is NULL", model ? "hex" : "model");
    const sl_model *m = sl_model_of_const(model);
    sl_buffer out = {0};
    char *json = NULL;
    sllm_status status = sllm_model_describe(model, &json, error);
    if (status) return status;
    /* the description but for the path it begins with */
    const char *rest = strstr(json, "\"format\":");
    put_bytes(&out, rest ? rest : json, strlen(rest ? rest : json));
    sllm_free(json);
    if (m->checkpoint) put_json(&out, m->checkpoint->config);
    if (m->gguf) status = put_head(&out, m->path, error);
    put_vocabulary(&out, m->tokenizer);
    put_tensors(&out, m);
    if (!status && out.failed) status = sl_fail_memory(error, "the model's fingerprint", out.length);
    if (!status) sl_sha256_hex(out.data, out.length, hex);
    sl_buffer_free(&out);
    return status;
}
