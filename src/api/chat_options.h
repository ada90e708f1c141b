/* The JSON side of rendering a chat: messages and options as text become a request for text/template.h. */
#ifndef SL_API_CHAT_OPTIONS_H
#define SL_API_CHAT_OPTIONS_H

#include "base/arena.h"
#include "text/template.h"

/* Zero-initialise. The request points into the arena and into nothing else but the two JSON texts. */
typedef struct sl_chat_options {
    sl_arena arena;
    sl_chat_request request;
} sl_chat_options;

/* messages_json: an array; options_json: NULL or an object with the members that sllm.h names. `function` is said in
 * errors. An option nobody knows or of the wrong type is SLLM_ERROR_ARGUMENT naming it; damaged JSON is
 * SLLM_ERROR_FORMAT. Free in either case. */
sllm_status sl_chat_options_read(sl_chat_options *options, const char *function, const char *messages_json,
                                 const char *options_json, sllm_error *error);
void sl_chat_options_free(sl_chat_options *options);

/* Renders into a text the caller frees; *text is NULL on failure. length may be NULL. */
sllm_status sl_chat_options_render(const sl_chat_options *options, const sl_template *tmpl, char **text, size_t *length,
                                   sllm_error *error);

#endif
