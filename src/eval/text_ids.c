#include "eval/text_ids.h"

#include "base/error.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

static sllm_status encode(const sl_model *model, const char *text, size_t length, unsigned flags, sl_ids *ids,
                          sllm_error *error) {
    if (!sl_utf8_is_valid(text, length)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "the text is not UTF-8");
    return sl_tokenizer_encode(model->tokenizer, NULL, text, length, flags, ids, error);
}

static sllm_status encode_messages(const sl_model *model, const sl_json *messages, sl_ids *ids, sllm_error *error) {
    sl_buffer text = {0};
    sl_chat_request request = {.messages = messages};
    if (!model->chat_template)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "the model has no chat template for messages");
    request.bos_token = sl_tokenizer_text(model->tokenizer, sl_tokenizer_special(model->tokenizer, SL_SPECIAL_BOS));
    request.eos_token = sl_tokenizer_text(model->tokenizer, sl_tokenizer_special(model->tokenizer, SL_SPECIAL_EOS));
    sllm_status status = sl_chat_render(model->chat_template, &request, &text, error);
    if (!status) status = encode(model, text.data ? text.data : "", text.length, SLLM_TOKENIZE_SPECIAL, ids, error);
    sl_buffer_free(&text);
    return status;
}

static sllm_status encode_line(const sl_model *model, const char *line, size_t length, sl_ids *ids, sllm_error *error) {
    sl_arena arena = {0};
    const sl_json *root, *text, *messages;
    sllm_status status = sl_json_parse(&arena, line, length, "the line", &root, error);
    if (!status) {
        text = sl_json_get(root, "text");
        messages = sl_json_get(root, "messages");
        if (text && text->type == SL_JSON_STRING) status = encode(model, text->text, text->length, 0, ids, error);
        else if (messages && messages->type == SL_JSON_ARRAY) status = encode_messages(model, messages, ids, error);
        else status = sl_fail(error, SLLM_ERROR_ARGUMENT, "has neither \"text\" nor \"messages\"");
    }
    sl_arena_free(&arena);
    return status;
}

static sllm_status encode_lines(const sl_model *model, const char *text, size_t length, sl_ids *ids, sllm_error *error) {
    sllm_status status = SLLM_OK;
    const char *at = text, *end = text + length;
    for (size_t number = 1; at < end && !status; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        bool blank = true;
        for (const char *c = at; c < stop; c++) blank = blank && strchr(" \t\r", *c);
        if (!blank) status = encode_line(model, at, (size_t)(stop - at), ids, error);
        if (status) sl_error_prefix(error, status, "line %zu", number);
        at = stop + 1;
    }
    return status;
}

sllm_status sl_text_ids(const sl_model *model, const char *text, size_t length, bool jsonl, int at_least,
                               int32_t **ids, size_t *n, sllm_error *error) {
    sl_ids list = {0};
    *ids = NULL;
    *n = 0;
    if (!model->tokenizer)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "the model has no tokenizer, so text cannot be read");
    sllm_status status = jsonl ? encode_lines(model, text, length, &list, error)
                               : encode(model, text, length, 0, &list, error);
    if (!status && list.length < (size_t)at_least)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%zu tokens are too few: at least %d are needed", list.length, at_least);
    if (status) {
        free(list.data);
        return status;
    }
    *ids = list.data;
    *n = list.length;
    return SLLM_OK;
}
