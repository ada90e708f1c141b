/* A conversation, as transformers' render_jinja_template hands it to a template. */
#include "base/error.h"
#include "text/jinja.h"

#include <string.h>

static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};
static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";

typedef struct chat {
    const sl_chat_request *request;
    const sl_template *tmpl;
} chat;

/* Reasoning is known under three names; templates read the first two. {"thinking": r, ...message, "reasoning_content":
 * r} */
static jinja_value with_reasoning(jinja *j, jinja_value message) {
    jinja_value *reasoning = NULL;
    for (size_t i = 0; i < 3 && (!reasoning || reasoning->type == JINJA_NONE); i++)
        reasoning = sl_jinja_dict_get_text(j, message.as.dict, reasoning_names[i]);
    if (!reasoning || reasoning->type == JINJA_NONE) return message;
    jinja_value made = sl_jinja_dict_new(j), value = *reasoning;
    sl_jinja_dict_set(j, made.as.dict, sl_jinja_literal(j, "thinking"), value);
    for (size_t i = 0; i < message.as.dict->length; i++)
        sl_jinja_dict_set(j, made.as.dict, message.as.dict->keys[i], message.as.dict->values[i]);
    sl_jinja_dict_set(j, made.as.dict, sl_jinja_literal(j, "reasoning_content"), value);
    return made;
}

static jinja_value read_messages(jinja *j, const sl_json *json) {
    if (!json || json->type != SL_JSON_ARRAY) sl_jinja_fail(j, "TypeError", "the messages must be a JSON array");
    jinja_value messages = sl_jinja_from_json(j, json);
    for (size_t i = 0; i < messages.as.list->length; i++) {
        jinja_value *message = &messages.as.list->items[i];
        if (message->type != JINJA_DICT)
            sl_jinja_fail(j, "TypeError", "message %zu is no object, but %s", i, sl_jinja_type_name(*message));
        *message = with_reasoning(j, *message);
    }
    return messages;
}

/* tools or documents: none, or an array of objects. */
static jinja_value read_objects(jinja *j, const sl_json *json, const char *what) {
    if (!json || json->type == SL_JSON_NULL) return sl_jinja_none;
    if (json->type != SL_JSON_ARRAY) sl_jinja_fail(j, "TypeError", "%s must be a JSON array of objects", what);
    jinja_value list = sl_jinja_from_json(j, json);
    for (size_t i = 0; i < list.as.list->length; i++)
        if (list.as.list->items[i].type != JINJA_DICT)
            sl_jinja_fail(j, "TypeError", "%s must hold objects; number %zu is %s", what, i,
                          sl_jinja_type_name(list.as.list->items[i]));
    return list;
}

/* ---------------------------------------------------------------- continuing the last message */

/* Appends the tag to the text that shall be continued and returns that text. */
static jinja_value tag_text(jinja *j, jinja_value *text) {
    jinja_value before = *text;
    *text = sl_jinja_binary(j, JINJA_ADD, before, sl_jinja_literal(j, tag));
    return before;
}

static jinja_value tag_final_message(jinja *j, const chat *c, jinja_value messages) {
    if (!messages.as.list->length)
        sl_jinja_fail(j, "ValueError", "continue_final_message is set but the conversation is empty");
    jinja_value last = messages.as.list->items[messages.as.list->length - 1];
    jinja_value *content = sl_jinja_dict_get_text(j, last.as.dict, "content");
    if (!content || content->type == JINJA_NONE)
        sl_jinja_fail(j, "ValueError",
                      "continue_final_message is set but the final message has no \"content\" to continue");
    if (!sl_jinja_says_content(c->tmpl))
        sl_jinja_fail(j, "ValueError", "continue_final_message is set but the template does not use \"content\"");
    if (content->type != JINJA_LIST) return tag_text(j, content);
    for (size_t i = content->as.list->length; i-- > 0;) {
        jinja_value block = content->as.list->items[i];
        if (!sl_jinja_contains(j, sl_jinja_literal(j, "text"), block)) continue;
        if (block.type != JINJA_DICT) sl_jinja_fail(j, "TypeError", "a block of the final message is no object");
        return tag_text(j, sl_jinja_dict_get_text(j, block.as.dict, "text"));
    }
    sl_jinja_fail(j, "ValueError", "continue_final_message is set but the final message holds no text to continue");
}

static const char *find_last(const char *text, size_t length, const char *what, size_t n) {
    for (size_t at = length + 1; at-- > 0;)
        if (length - at >= n && !memcmp(text + at, what, n)) return text + at;
    return NULL;
}

/* Cuts the rendered text where the tag stands; a template that trimmed the message loses its blanks before, too. */
static void emit_continued(jinja *j, const jinja_text *text, jinja_value final) {
    size_t n = sizeof tag - 1;
    const jinja_string *message = sl_jinja_strip(j, final, sl_jinja_missing, true, true).as.string;
    const char *found = text->length ? find_last(text->data, text->length, tag, n - 1) : NULL;
    if (!found || !memmem(text->data, text->length, message->data, message->length))
        sl_jinja_fail(j, "ValueError",
                      "continue_final_message is set but the template changed or left out the final message");
    size_t length = (size_t)(found - text->data);
    bool kept = text->length - length >= n && found[n - 1] == ' ';
    jinja_value head = sl_jinja_str(j, text->data, length);
    if (!kept) head = sl_jinja_strip(j, head, sl_jinja_missing, false, true);
    sl_jinja_emit(j, head.as.string->data, head.as.string->length);
}

/* ---------------------------------------------------------------- rendering */

static void set(jinja *j, jinja_value vars, const char *name, jinja_value value) {
    sl_jinja_dict_set(j, vars.as.dict, sl_jinja_literal(j, name), value);
}

static void add_kwargs(jinja *j, const chat *c, jinja_value vars) {
    const sl_chat_request *request = c->request;
    static const char *const taken[] = {"messages", "tools", "documents", "add_generation_prompt"};
    if (request->bos_token) set(j, vars, "bos_token", sl_jinja_literal(j, request->bos_token));
    if (request->eos_token) set(j, vars, "eos_token", sl_jinja_literal(j, request->eos_token));
    if (!request->kwargs || request->kwargs->type == SL_JSON_NULL) return;
    if (request->kwargs->type != SL_JSON_OBJECT)
        sl_jinja_fail(j, "TypeError", "the template's variables must be a JSON object");
    jinja_value kwargs = sl_jinja_from_json(j, request->kwargs);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (sl_jinja_dict_get_text(j, kwargs.as.dict, taken[i]))
            sl_jinja_fail(j, "TypeError", "'%s' cannot be a template variable of its own", taken[i]);
    for (size_t i = 0; i < kwargs.as.dict->length; i++)
        sl_jinja_dict_set(j, vars.as.dict, kwargs.as.dict->keys[i], kwargs.as.dict->values[i]);
}

static void render_chat(jinja *j, void *user) {
    const chat *c = user;
    jinja_value vars = sl_jinja_dict_new(j), final = sl_jinja_missing;
    jinja_value messages = read_messages(j, c->request->messages);
    set(j, vars, "messages", messages);
    set(j, vars, "tools", read_objects(j, c->request->tools, "tools"));
    set(j, vars, "documents", read_objects(j, c->request->documents, "documents"));
    set(j, vars, "add_generation_prompt", sl_jinja_bool(c->request->add_generation_prompt));
    add_kwargs(j, c, vars);
    if (!c->request->continue_final_message) {
        sl_jinja_render(j, vars);
        return;
    }
    final = tag_final_message(j, c, messages);
    jinja_text text = {.j = j};
    j->capture = &text;
    sl_jinja_render(j, vars);
    j->capture = NULL;
    j->line = 0;
    emit_continued(j, &text, final);
}

sllm_status sl_chat_render(const sl_template *tmpl, const sl_chat_request *request, sl_buffer *out, sllm_error *error) {
    chat c = {request, tmpl};
    return sl_jinja_work(tmpl, request->now, NULL, out, error, render_chat, &c);
}
