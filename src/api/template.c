/* Chat templates: argument checks, then one call into text/template.h. */
#include "api/chat_options.h"
#include "api/handles.h"
#include "base/error.h"

sllm_status sllm_template_render_text(const char *source, size_t source_length, const char *messages_json,
                                      const char *options_json, char **text, size_t *length, sllm_error *error) {
    sl_chat_options options = {0};
    sl_template *tmpl = NULL;
    if (text) *text = NULL;
    if (length) *length = 0;
    if (!text || (!source && source_length))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_template_render_text: %s is NULL", text ? "source" : "text");
    sllm_status status = sl_chat_options_read(&options, __func__, messages_json, options_json, error);
    if (!status) status = sl_template_compile(source ? source : "", source_length, &tmpl, error);
    if (!status) status = sl_chat_options_render(&options, tmpl, text, length, error);
    sl_template_free(tmpl);
    sl_chat_options_free(&options);
    return status;
}

sllm_status sllm_template_render(const sllm_model *model, const char *messages_json, const char *options_json,
                                 char **text, size_t *length, sllm_error *error) {
    sl_chat_options options = {0};
    if (text) *text = NULL;
    if (length) *length = 0;
    if (!text || !model)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_template_render: %s is NULL", text ? "model" : "text");
    const sl_model *of = sl_model_of_const(model);
    if (of->chat_template_error)
        return sl_fail(error, SLLM_ERROR_TEMPLATE, "%s: chat template: %s", of->path, of->chat_template_error);
    if (!of->chat_template)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: the model has no chat template; --raw sends the text as it is",
                       of->path);
    sllm_status status = sl_chat_options_read(&options, __func__, messages_json, options_json, error);
    if (!status && of->tokenizer) {
        options.request.bos_token = sl_tokenizer_text(of->tokenizer,
                                                      sl_tokenizer_special(of->tokenizer, SL_SPECIAL_BOS));
        options.request.eos_token = sl_tokenizer_text(of->tokenizer,
                                                      sl_tokenizer_special(of->tokenizer, SL_SPECIAL_EOS));
    }
    if (!status) status = sl_chat_options_render(&options, of->chat_template, text, length, error);
    sl_chat_options_free(&options);
    return status;
}
