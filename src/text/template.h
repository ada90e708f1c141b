/* Chat templates: an interpreter for the part of Jinja that models ship, with Python's semantics where they show
 * (str of floats, repr of lists, unbounded integers), a sandbox, and limits. Language: the Jinja 3.1 documentation;
 * environment: transformers' render_jinja_template (trim_blocks, lstrip_blocks, loop controls, generation blocks). */
#ifndef SL_TEXT_TEMPLATE_H
#define SL_TEXT_TEMPLATE_H

#include "base/json.h"
#include "sllm.h"

typedef struct sl_template sl_template; /* immutable after compiling; rendering is thread-safe */

typedef struct sl_template_limits {
    uint64_t steps;      /* nodes evaluated; 0: 10,000,000 */
    size_t output_bytes; /* 0: 64 MiB */
    size_t memory_bytes; /* values made while rendering; 0: 256 MiB */
    int depth;           /* macro calls and expression nesting; 0: 200 */
} sl_template_limits;

/* A syntax error gives SLLM_ERROR_TEMPLATE with error->line. source is copied. */
sllm_status sl_template_compile(const char *source, size_t length, sl_template **tmpl, sllm_error *error);
void sl_template_free(sl_template *tmpl);

/* Messages of failures begin with the kind of the error as the reference names it, then the line: "UndefinedError: line
 * 3: 'x' is undefined" (TypeError, ValueError, ZeroDivisionError, SecurityError, TemplateSyntaxError,
 * TemplateAssertionError, ...; LimitError when a limit was passed). Only a text raised by the template itself stands
 * alone: error->raised is then true. */

/* Renders with the members of object `vars` as variables. now: "YYYY-MM-DDTHH:MM:SS" or NULL for the local clock.
 * Failures: SLLM_ERROR_TEMPLATE with error->line; error->raised when the template called raise_exception, whose text
 * is then the whole message. */
sllm_status sl_template_render(const sl_template *tmpl, const sl_json *vars, const char *now,
                               const sl_template_limits *limits, sl_buffer *out, sllm_error *error);

/* A conversation as transformers hands it to the template: `messages` (array), tools and documents (arrays or NULL),
 * kwargs (object or NULL) become variables; messages with reasoning_content / thinking / reasoning get both of the
 * first two; continue_final_message cuts the output after the last message's content. */
typedef struct sl_chat_request {
    const sl_json *messages, *tools, *documents, *kwargs;
    bool add_generation_prompt, continue_final_message;
    const char *now;
    const char *bos_token, *eos_token; /* variables unless kwargs holds them; NULL: undefined */
} sl_chat_request;
sllm_status sl_chat_render(const sl_template *tmpl, const sl_chat_request *request, sl_buffer *out, sllm_error *error);

#endif
