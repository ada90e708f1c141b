/* One line of `sllm batch`'s input: a JSON object with a prompt and what differs for it. */
#include "cli/batch.h"

#include "base/error.h"
#include "base/json.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- parameters */

typedef enum kind { NUMBER, WHOLE, SEED, FLAG, STOP, CHOICES } kind;

#define SAMPLER(field) offsetof(sllm_generate_params, sampler.field)
static const struct parameter {
    const char *name;
    kind kind;
    size_t offset; /* in sllm_generate_params */
} parameters[] = {
    {"temperature", NUMBER, SAMPLER(temperature)},
    {"top_p", NUMBER, SAMPLER(top_p)},
    {"top_k", WHOLE, SAMPLER(top_k)},
    {"min_p", NUMBER, SAMPLER(min_p)},
    {"typical_p", NUMBER, SAMPLER(typical_p)},
    {"repetition_penalty", NUMBER, SAMPLER(repetition_penalty)},
    {"presence_penalty", NUMBER, SAMPLER(presence_penalty)},
    {"frequency_penalty", NUMBER, SAMPLER(frequency_penalty)},
    {"penalty_last_n", WHOLE, SAMPLER(penalty_last_n)},
    {"dry_multiplier", NUMBER, SAMPLER(dry_multiplier)},
    {"dry_base", NUMBER, SAMPLER(dry_base)},
    {"dry_allowed_length", WHOLE, SAMPLER(dry_allowed_length)},
    {"dry_last_n", WHOLE, SAMPLER(dry_last_n)},
    {"seed", SEED, SAMPLER(seed)},
    {"max_new_tokens", WHOLE, offsetof(sllm_generate_params, max_new_tokens)},
    {"ignore_end", FLAG, offsetof(sllm_generate_params, ignore_end)},
    {"stop", STOP, 0},
    {"choices", CHOICES, 0},
};
enum { N_PARAMETERS = sizeof parameters / sizeof *parameters };
static const char *const others[] = {"id", "prompt", "messages", "system"};
enum { N_OTHERS = sizeof others / sizeof *others };

static bool is_named(const char *name, const char *key, size_t length) {
    return strlen(name) == length && !memcmp(name, key, length);
}

static const struct parameter *find_parameter(const char *key, size_t length) {
    for (size_t i = 0; i < N_PARAMETERS; i++)
        if (is_named(parameters[i].name, key, length)) return &parameters[i];
    return NULL;
}

bool cli_batch_is_parameter(const char *name, size_t length) {
    return is_named("system", name, length) || find_parameter(name, length) != NULL;
}

static sllm_status bad_field(sllm_error *error, const sl_json *member, const char *must) {
    return sl_fail(error, SLLM_ERROR_FORMAT, "/%.*s: must be %s", (int)member->key_length, member->key, must);
}

static sllm_status read_seed(const sl_json *value, uint64_t *seed, sllm_error *error) {
    char *end = NULL;
    errno = 0;
    bool whole = sl_json_is_integer(value) && value->text[0] != '-';
    unsigned long long number = whole ? strtoull(value->text, &end, 10) : 0;
    if (!whole || *end || errno) return bad_field(error, value, "a whole number from 0 to 18446744073709551615");
    *seed = number;
    return SLLM_OK;
}

/* Strings of an array in the arena, their number in *n; a single string counts as an array of it when `single`, and
 * otherwise there must be some. */
static sllm_status read_texts(cli_batch_line *line, const sl_json *value, bool single, const char *const **texts,
                              size_t *n, sllm_error *error) {
    const char *must = single ? "a string or an array of strings, none empty or with a NUL"
                              : "an array of strings, at least one, and none empty or with a NUL";
    bool alone = single && value->type == SL_JSON_STRING;
    size_t count = alone ? 1 : value->length;
    if (!alone && value->type != SL_JSON_ARRAY) return bad_field(error, value, must);
    if (!single && count == 0) return bad_field(error, value, must); /* no choices would be anything at all */
    const char **list = sl_arena_array(&line->arena, count + 1, sizeof *list);
    if (!list) return sl_fail_memory(error, "reading a line", count * sizeof *list);
    for (size_t i = 0; i < count; i++) {
        list[i] = sl_json_string(alone ? value : value->items[i]);
        if (!list[i] || !*list[i]) return bad_field(error, value, must);
    }
    *texts = list;
    *n = count;
    return SLLM_OK;
}

static sllm_status set_parameter(cli_batch_line *line, const struct parameter *parameter, const sl_json *value,
                                 sllm_error *error) {
    sllm_generate_params *p = &line->params;
    void *field = (char *)p + parameter->offset;
    double number;
    int64_t whole;
    switch (parameter->kind) {
    case NUMBER:
        if (!sl_json_double(value, &number)) return bad_field(error, value, "a number");
        *(float *)field = (float)number;
        return SLLM_OK;
    case WHOLE:
        if (!sl_json_int64(value, &whole) || whole < INT32_MIN || whole > INT32_MAX)
            return bad_field(error, value, "a whole number");
        *(int *)field = (int)whole;
        return SLLM_OK;
    case SEED: return read_seed(value, field, error);
    case FLAG: return sl_json_bool(value, field) ? SLLM_OK : bad_field(error, value, "true or false");
    case STOP: return read_texts(line, value, true, &p->stop, &p->n_stop, error);
    case CHOICES: return read_texts(line, value, false, &p->choices, &p->n_choices, error);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the prompt */

/* The text that a field puts into a slot. */
static bool slot_text(const sl_json *value, sl_buffer *out) {
    if (value->type == SL_JSON_STRING || value->type == SL_JSON_NUMBER)
        return sl_buffer_append(out, value->text, value->length), true;
    if (value->type != SL_JSON_BOOL) return false;
    return sl_buffer_puts(out, value->boolean ? "true" : "false"), true;
}

static const sl_json *find_member(const sl_json *object, const char *key, size_t length) {
    const sl_json *found = NULL;
    for (const sl_json *m = object->first; m; m = m->next)
        if (m->key_length == length && !memcmp(m->key, key, length)) found = m;
    return found;
}

static sllm_status fill_form(const cli_form *form, const sl_json *root, sl_buffer *out, sllm_error *error) {
    for (size_t i = 0; i < form->n; i++) {
        const cli_piece *piece = &form->pieces[i];
        if (!piece->slot) {
            sl_buffer_append(out, piece->text, piece->length);
            continue;
        }
        const sl_json *value = find_member(root, piece->text, piece->length);
        if (!value)
            return sl_fail(error, SLLM_ERROR_FORMAT, "/%.*s: is missing, and %s has the slot {{%.*s}} in line %d",
                           (int)piece->length, piece->text, form->file, (int)piece->length, piece->text, piece->line);
        if (!slot_text(value, out)) return bad_field(error, value, "a string, a number, true or false to fill a slot");
    }
    return SLLM_OK;
}

static void put_message(sl_buffer *out, const char *role, const char *text, size_t length) {
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "role", role);
    sl_json_key(out, "content");
    sl_json_write_string(out, text, length);
    sl_buffer_putc(out, '}');
}

static bool begins_with_system(const sl_json *messages) {
    const char *role = sl_json_string(sl_json_get(sl_json_at(messages, 0), "role"));
    return role && !strcmp(role, "system");
}

/* The conversation: the line's messages, or one made of the system message, the examples and its prompt. */
static sllm_status put_messages(const cli_batch_defaults *d, const sl_json *root, const sl_json *messages,
                                const sl_buffer *prompt, cli_batch_line *line, sllm_error *error) {
    const sl_json *system = sl_json_get(root, "system");
    sl_buffer *out = &line->prompt;
    if (system && system->type != SL_JSON_STRING) return bad_field(error, system, "a string");
    if (messages && (messages->type != SL_JSON_ARRAY || messages->length == 0))
        return bad_field(error, messages, "an array of messages, at least one");
    if (messages && system && begins_with_system(messages))
        return sl_fail(error, SLLM_ERROR_FORMAT, "/system: /messages begins with a system message already; give one");
    sl_buffer_putc(out, '[');
    if (system) put_message(out, "system", system->text, system->length);
    else if (d->system && !begins_with_system(messages)) put_message(out, "system", d->system, strlen(d->system));
    if (*d->examples && !messages) {
        sl_json_comma(out);
        sl_buffer_puts(out, d->examples);
    }
    for (size_t i = 0; messages && i < messages->length; i++) {
        sl_json_comma(out);
        sl_json_write_value(out, messages->items[i]);
    }
    if (!messages) put_message(out, "user", prompt->data ? prompt->data : "", prompt->length);
    sl_buffer_putc(out, ']');
    return SLLM_OK;
}

static sllm_status read_prompt(const cli_batch_defaults *d, const sl_json *root, cli_batch_line *line,
                               sllm_error *error) {
    const sl_json *prompt = sl_json_get(root, "prompt"), *messages = sl_json_get(root, "messages");
    sllm_status status = SLLM_OK;
    sl_buffer text = {0};
    if (d->form) {
        messages = NULL;
        status = fill_form(d->form, root, &text, error);
    } else if (!prompt == !messages) {
        status = sl_fail(error, SLLM_ERROR_FORMAT, "exactly one of /prompt and /messages must be there");
    } else if (prompt && prompt->type != SL_JSON_STRING) {
        status = bad_field(error, prompt, "a string");
    } else if (messages && d->raw) {
        status = sl_fail(error, SLLM_ERROR_FORMAT, "/messages: has no place with --raw, which uses no chat template");
    } else if (prompt) {
        sl_buffer_append(&text, prompt->text, prompt->length);
    }
    if (!status && !messages && text.length == 0) status = sl_fail(error, SLLM_ERROR_FORMAT, "the prompt is empty");
    if (!status && d->raw && sl_json_get(root, "system"))
        status = sl_fail(error, SLLM_ERROR_FORMAT, "/system: has no place with --raw, which uses no chat template");
    if (!status && d->raw) sl_buffer_append(&line->prompt, text.data, text.length);
    else if (!status) status = put_messages(d, root, messages, &text, line, error);
    if (!status && (text.failed || line->prompt.failed)) status = sl_fail_memory(error, "reading a line", text.length);
    sl_buffer_free(&text);
    return status;
}

/* ---------------------------------------------------------------- the line */

static sllm_status unknown_field(const cli_batch_defaults *d, const sl_json *member, sllm_error *error) {
    char known[512];
    size_t at = 0;
    for (size_t i = 0; i < N_OTHERS; i++) at += (size_t)snprintf(known + at, sizeof known - at, "%s, ", others[i]);
    for (size_t i = 0; i < N_PARAMETERS; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", parameters[i].name);
    return sl_fail(error, SLLM_ERROR_FORMAT, "/%.*s: unknown field; a line may hold %s%s%s",
                   (int)(member->key_length < 64 ? member->key_length : 64), member->key, known,
                   d->form ? ", and the slots of " : "", d->form ? d->form->file : "");
}

static sllm_status read_id(cli_batch_line *line, const sl_json *value, sllm_error *error) {
    sl_buffer text = {0};
    if (value->type == SL_JSON_ARRAY || value->type == SL_JSON_OBJECT)
        return bad_field(error, value, "a string, a number, true, false or null");
    sl_json_write_value(&text, value);
    if (!text.failed && text.data) line->id = sl_arena_copy(&line->arena, text.data, text.length);
    sl_buffer_free(&text);
    return line->id ? SLLM_OK : sl_fail_memory(error, "reading a line", text.length);
}

/* One of the two would be lost without a word. */
static sllm_status check_once(const sl_json *root, const sl_json *member, sllm_error *error) {
    for (const sl_json *m = root->first; m != member; m = m->next)
        if (m->key_length == member->key_length && !memcmp(m->key, member->key, m->key_length))
            return sl_fail(error, SLLM_ERROR_FORMAT, "/%.*s: stands there twice", (int)member->key_length, member->key);
    return SLLM_OK;
}

static sllm_status read_fields(const cli_batch_defaults *d, const sl_json *root, cli_batch_line *line,
                               sllm_error *error) {
    sllm_status status = SLLM_OK;
    for (const sl_json *m = root->first; m && !status; m = m->next) {
        if ((status = check_once(root, m, error))) break; /* quadratic, but of known fields only */
        const struct parameter *parameter = find_parameter(m->key, m->key_length);
        bool is_slot = d->form && cli_form_has_slot(d->form, m->key, m->key_length);
        bool is_prompt = is_named("prompt", m->key, m->key_length) || is_named("messages", m->key, m->key_length);
        if (parameter) status = set_parameter(line, parameter, m, error);
        else if (is_slot || is_named("id", m->key, m->key_length)) continue;
        else if (is_prompt && d->form)
            status = sl_fail(error, SLLM_ERROR_FORMAT, "/%s: the prompt comes from %s, which has no such slot", m->key,
                             d->form->file);
        else if (!is_prompt && !is_named("system", m->key, m->key_length)) status = unknown_field(d, m, error);
    }
    return status;
}

sllm_status cli_batch_line_read(const cli_batch_defaults *d, const char *text, size_t length, cli_batch_line *line,
                                sllm_error *error) {
    *line = (cli_batch_line){.params = d->params};
    const sl_json *root = NULL;
    if (length == 0) return sl_fail(error, SLLM_ERROR_FORMAT, "the line is empty; it must be a JSON object");
    sllm_status status = sl_json_parse(&line->arena, text, length, "not JSON", &root, error);
    if (!status && root->type != SL_JSON_OBJECT)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "must be a JSON object with \"prompt\" or \"messages\"");
    const sl_json *id = status ? NULL : sl_json_get(root, "id");
    if (id) status = read_id(line, id, error);
    if (!status) status = read_fields(d, root, line, error);
    if (!status && line->params.max_new_tokens < 0)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "/max_new_tokens: must be 0 or more");
    if (!status) status = sllm_sampler_params_check(&line->params.sampler, d->n_vocab, error);
    return status ? status : read_prompt(d, root, line, error);
}

void cli_batch_line_free(cli_batch_line *line) {
    sl_buffer_free(&line->prompt);
    sl_arena_free(&line->arena);
    *line = (cli_batch_line){0};
}
