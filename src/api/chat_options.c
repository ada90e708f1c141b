#include "api/chat_options.h"

#include "base/error.h"

#include <string.h>

static sllm_status read_option(sl_chat_request *request, const char *function, const sl_json *option,
                               sllm_error *error) {
    const struct {
        const char *name, *wanted;
        sl_json_type type;
        const sl_json **value;
        bool *flag;
        const char **text;
    } known[] = {
        {"tools", "an array", SL_JSON_ARRAY, &request->tools, NULL, NULL},
        {"documents", "an array", SL_JSON_ARRAY, &request->documents, NULL, NULL},
        {"kwargs", "an object", SL_JSON_OBJECT, &request->kwargs, NULL, NULL},
        {"add_generation_prompt", "true or false", SL_JSON_BOOL, NULL, &request->add_generation_prompt, NULL},
        {"continue_final_message", "true or false", SL_JSON_BOOL, NULL, &request->continue_final_message, NULL},
        {"now", "a string", SL_JSON_STRING, NULL, NULL, &request->now}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != option->key_length || memcmp(option->key, known[i].name, option->key_length))
            continue;
        if (option->type == SL_JSON_NULL && !known[i].flag) return SLLM_OK;
        if (option->type != known[i].type)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: option '%s' must be %s", function, known[i].name,
                           known[i].wanted);
        if (known[i].value) *known[i].value = option;
        if (known[i].flag) *known[i].flag = option->boolean;
        if (known[i].text && !(*known[i].text = sl_json_string(option)))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: option '%s' must not hold NUL", function, known[i].name);
        return SLLM_OK;
    }
    return sl_fail(error, SLLM_ERROR_ARGUMENT,
                   "%s: unknown option '%.100s': known are tools, documents, kwargs, add_generation_prompt, "
                   "continue_final_message, now",
                   function, option->key);
}

sllm_status sl_chat_options_read(sl_chat_options *options, const char *function, const char *messages_json,
                                 const char *options_json, sllm_error *error) {
    sl_chat_request *request = &options->request;
    const sl_json *root;
    request->add_generation_prompt = true;
    if (!messages_json) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: messages_json is NULL", function);
    sllm_status status = sl_json_parse(&options->arena, messages_json, strlen(messages_json), "messages", &root, error);
    if (status) return status;
    if (root->type != SL_JSON_ARRAY)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the messages must be a JSON array", function);
    request->messages = root;
    if (!options_json) return SLLM_OK;
    status = sl_json_parse(&options->arena, options_json, strlen(options_json), "options", &root, error);
    if (status) return status;
    if (root->type != SL_JSON_OBJECT)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: the options must be a JSON object", function);
    for (const sl_json *option = root->first; option && !status; option = option->next)
        status = read_option(request, function, option, error);
    return status;
}

void sl_chat_options_free(sl_chat_options *options) { sl_arena_free(&options->arena); }

sllm_status sl_chat_options_render(const sl_chat_options *options, const sl_template *tmpl, char **text, size_t *length,
                                   sllm_error *error) {
    sl_buffer out = {0};
    sllm_status status = sl_chat_render(tmpl, &options->request, &out, error);
    *text = NULL;
    if (status == SLLM_OK && !(*text = sl_buffer_take(&out, length)))
        status = sl_fail_memory(error, "rendered chat", 0);
    sl_buffer_free(&out);
    return status;
}
