/* Text and tokens: argument checks, then one call into text/tokenizer.h. */
#include "api/handles.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

/* Above this many bytes a word cache saves more than making it costs. */
enum { CACHE_FROM_BYTES = 4096 };

static sllm_status get_tokenizer(const sllm_model *model, const char *function, const sl_tokenizer **tokenizer,
                                 sllm_error *error) {
    if (!model) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: model is NULL", function);
    *tokenizer = sl_model_of_const(model)->tokenizer;
    if (*tokenizer) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                   "%s: no tokenizer comes with this model; give it a tokenizer.json beside the weights",
                   sl_model_of_const(model)->path);
}

void sllm_tokens_free(sllm_tokens *tokens) {
    if (!tokens) return;
    free(tokens->ids);
    *tokens = (sllm_tokens){0};
}

sllm_status sllm_tokenize(const sllm_model *model, const char *text, size_t length, unsigned flags, sllm_tokens *tokens,
                          sllm_error *error) {
    const sl_tokenizer *tokenizer;
    if (!tokens) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_tokenize: tokens is NULL");
    *tokens = (sllm_tokens){0};
    sllm_status status = get_tokenizer(model, __func__, &tokenizer, error);
    if (status) return status;
    if (!text && length > 0) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_tokenize: text is NULL");
    if (flags & ~(unsigned)(SLLM_TOKENIZE_SPECIAL | SLLM_TOKENIZE_ADD))
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "sllm_tokenize: flags is %#x: only SPECIAL (1) and ADD (2) are known", flags);
    sl_tokenizer_cache *cache = NULL;
    sl_ids ids = {0};
    if (length >= CACHE_FROM_BYTES) status = sl_tokenizer_cache_new(tokenizer, &cache, error);
    if (!status) status = sl_tokenizer_encode(tokenizer, cache, text ? text : "", length, flags, &ids, error);
    sl_tokenizer_cache_free(cache);
    *tokens = (sllm_tokens){ids.data, ids.length};
    if (status) sllm_tokens_free(tokens);
    return status;
}

static sllm_status check_id(const sl_tokenizer *tokenizer, int32_t id, const char *function, sllm_error *error) {
    if (id >= 0 && id < sl_tokenizer_size(tokenizer)) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: token %d is outside the vocabulary [0, %d)", function, id,
                   sl_tokenizer_size(tokenizer));
}

sllm_status sllm_detokenize(const sllm_model *model, const int32_t *ids, size_t n, bool skip_special, char **text,
                            size_t *length, sllm_error *error) {
    const sl_tokenizer *tokenizer;
    if (text) *text = NULL;
    if (length) *length = 0;
    sllm_status status = get_tokenizer(model, __func__, &tokenizer, error);
    if (status) return status;
    if (!text || (!ids && n > 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_detokenize: %s is NULL", !text ? "text" : "ids");
    for (size_t i = 0; i < n && !status; i++) status = check_id(tokenizer, ids[i], __func__, error);
    sl_buffer out = {0};
    size_t taken = 0;
    if (!status) status = sl_tokenizer_decode(tokenizer, ids, n, skip_special, &out, error);
    if (!status) {
        sl_buffer_append(&out, "", 0); /* an empty text is "" */
        *text = sl_buffer_take(&out, &taken);
        if (!*text) status = sl_fail_memory(error, "decoding tokens", 0);
        if (!status && length) *length = taken;
    }
    sl_buffer_free(&out);
    return status;
}

/* ---------------------------------------------------------------- streaming */

struct sllm_stream {
    const sl_tokenizer *tokenizer;
    sl_decoder *decoder;
    sl_buffer text; /* of the last call */
};

sllm_status sllm_stream_new(const sllm_model *model, bool skip_special, sllm_stream **stream, sllm_error *error) {
    const sl_tokenizer *tokenizer;
    if (!stream) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_stream_new: stream is NULL");
    *stream = NULL;
    sllm_status status = get_tokenizer(model, __func__, &tokenizer, error);
    if (status) return status;
    sllm_stream *s = calloc(1, sizeof *s);
    if (!s) return sl_fail_memory(error, "making a stream", sizeof *s);
    s->tokenizer = tokenizer;
    status = sl_decoder_new(tokenizer, skip_special, &s->decoder, error);
    if (status) {
        sllm_stream_free(s);
        return status;
    }
    *stream = s;
    return SLLM_OK;
}

/* Hands out what the decoder has written. */
static sllm_status show(sllm_stream *stream, sllm_status status, const char **text, size_t *length, sllm_error *error) {
    if (!status && !sl_buffer_append(&stream->text, "", 0)) status = sl_fail_memory(error, "decoding a token", 0);
    if (status) return status;
    *text = stream->text.data;
    if (length) *length = stream->text.length;
    return SLLM_OK;
}

static sllm_status begin_step(sllm_stream *stream, const char **text, size_t *length, const char *function,
                              sllm_error *error) {
    if (text) *text = NULL;
    if (length) *length = 0;
    if (!stream || !text)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %s is NULL", function, !stream ? "stream" : "text");
    stream->text.length = 0;
    return SLLM_OK;
}

sllm_status sllm_stream_push(sllm_stream *stream, int32_t id, const char **text, size_t *length, sllm_error *error) {
    sllm_status status = begin_step(stream, text, length, __func__, error);
    if (!status) status = check_id(stream->tokenizer, id, __func__, error);
    if (status) return status;
    return show(stream, sl_decoder_push(stream->decoder, id, &stream->text, error), text, length, error);
}

sllm_status sllm_stream_finish(sllm_stream *stream, const char **text, size_t *length, sllm_error *error) {
    sllm_status status = begin_step(stream, text, length, __func__, error);
    if (status) return status;
    return show(stream, sl_decoder_finish(stream->decoder, &stream->text, error), text, length, error);
}

void sllm_stream_free(sllm_stream *stream) {
    if (!stream) return;
    sl_decoder_free(stream->decoder);
    sl_buffer_free(&stream->text);
    free(stream);
}

/* ---------------------------------------------------------------- single tokens */

const char *sllm_token_text(const sllm_model *model, int32_t id) {
    const sl_tokenizer *tokenizer = model ? sl_model_of_const(model)->tokenizer : NULL;
    return tokenizer ? sl_tokenizer_text(tokenizer, id) : NULL;
}

int32_t sllm_token_id(const sllm_model *model, const char *text) {
    const sl_tokenizer *tokenizer = model ? sl_model_of_const(model)->tokenizer : NULL;
    return tokenizer && text ? sl_tokenizer_find(tokenizer, text, strlen(text)) : -1;
}

int32_t sllm_token_bos(const sllm_model *model) {
    const sl_tokenizer *tokenizer = model ? sl_model_of_const(model)->tokenizer : NULL;
    return tokenizer ? sl_tokenizer_special(tokenizer, SL_SPECIAL_BOS) : -1;
}

bool sllm_token_ends(const sllm_model *model, int32_t id) {
    const sl_model *m = model ? sl_model_of_const(model) : NULL;
    for (size_t i = 0; m && i < m->n_end_ids; i++)
        if (m->end_ids[i] == id) return true;
    return false;
}
