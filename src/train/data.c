#include "train/data.h"

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

typedef struct reading {
    const sl_model *model;
    const sl_data_params *params;
    const char *name;
    sl_dataset *out;
    sl_ids ids, labels;      /* of all examples */
    size_t *starts;          /* [capacity] of each example in ids */
    size_t capacity;
    size_t n_long;
    int line, first_long, longest_long;
    sl_tokenizer_cache *cache;
    sllm_error *error;
} reading;

/* ---------------------------------------------------------------- prompts */

bool sl_data_user_turn(const char *instruction, const char *input, sl_buffer *out) {
    sl_buffer_puts(out, instruction);
    if (input && *input) sl_buffer_puts(out, *instruction ? "\n\n" : ""), sl_buffer_puts(out, input);
    return !out->failed;
}

bool sl_data_prompt(sl_data_format format, const char *instruction, const char *input, sl_buffer *out) {
    bool has_input = input && *input;
    if (format == SL_FORMAT_PLAIN) {
        sl_buffer_puts(out, "Instruction: ");
        sl_buffer_puts(out, instruction);
        if (has_input) sl_buffer_puts(out, "\nInput: "), sl_buffer_puts(out, input);
        sl_buffer_puts(out, "\nResponse:");
        return !out->failed;
    }
    sl_buffer_puts(out, has_input ? "Below is an instruction that describes a task, paired with an input that provides further context. "
                                    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
                                  : "Below is an instruction that describes a task. Write a response that appropriately completes the "
                                    "request.\n\n### Instruction:\n");
    sl_buffer_puts(out, instruction);
    if (has_input) sl_buffer_puts(out, "\n\n### Input:\n"), sl_buffer_puts(out, input);
    sl_buffer_puts(out, "\n\n### Response:\n");
    return !out->failed;
}

/* ---------------------------------------------------------------- tokens of one example */

typedef struct tokens {
    sl_ids ids, labels;
} tokens;

static sllm_status encode(reading *r, const char *text, size_t length, unsigned flags, sl_ids *ids) {
    return sl_tokenizer_encode(r->model->tokenizer, r->cache, text, length, flags, ids, r->error);
}

static bool push(sl_ids *list, int32_t id) {
    if (list->length == list->capacity) {
        size_t more = list->capacity ? 2 * list->capacity : 1024;
        int32_t *data = realloc(list->data, more * sizeof *data);
        if (!data) return false;
        list->data = data;
        list->capacity = more;
    }
    list->data[list->length++] = id;
    return true;
}

static bool is_end(const sl_model *m, int32_t id) {
    for (size_t i = 0; i < m->n_end_ids; i++)
        if (m->end_ids[i] == id) return true;
    return false;
}

/* Text that begins with the first `known` tokens of *t becomes its tokens; the new ones are labelled or not. What the tokenizer joins
 * over the seam belongs to the new part. */
static sllm_status grow(reading *r, tokens *t, const char *text, size_t length, unsigned flags, bool labelled) {
    sl_ids all = {0};
    size_t same = 0;
    sllm_status status = encode(r, text, length, flags, &all);
    while (!status && same < t->ids.length && same < all.length && all.data[same] == t->ids.data[same]) same++;
    t->ids.length = t->labels.length = same;
    bool ended = false;
    for (size_t i = same; i < all.length && !status; i++) {
        if (!push(&t->ids, all.data[i]) || !push(&t->labels, labelled && !ended ? all.data[i] : SL_NO_LABEL))
            status = sl_fail_memory(r->error, "an example", 0);
        ended |= labelled && is_end(r->model, all.data[i]); /* what a template writes behind the end of a turn is not the model's */
    }
    free(all.data);
    return status;
}

static sllm_status add_end(reading *r, tokens *t) {
    int32_t end = sl_tokenizer_special(r->model->tokenizer, SL_SPECIAL_EOS);
    if (end < 0) return sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "the model's tokenizer has no end-of-sequence token to learn");
    if (push(&t->ids, end) && push(&t->labels, end)) return SLLM_OK;
    return sl_fail_memory(r->error, "an example", 0);
}

/* ---------------------------------------------------------------- turns through the template */

static sllm_status render(reading *r, const sl_json *messages, bool prompt, sl_buffer *out) {
    const sl_tokenizer *t = r->model->tokenizer;
    sl_chat_request request = {.messages = messages, .add_generation_prompt = prompt,
                               .bos_token = sl_tokenizer_text(t, sl_tokenizer_special(t, SL_SPECIAL_BOS)),
                               .eos_token = sl_tokenizer_text(t, sl_tokenizer_special(t, SL_SPECIAL_EOS))};
    return sl_chat_render(r->model->chat_template, &request, out, r->error);
}

static bool is_assistant(const sl_json *message) {
    const char *role = sl_json_string(sl_json_get(message, "role"));
    return role && !strcmp(role, "assistant");
}

/* The first n messages as an array of their own. NULL: out of memory. */
static const sl_json *first_messages(sl_arena *arena, const sl_json *messages, size_t n) {
    sl_json *head = sl_arena_array(arena, 1, sizeof *head), *copies = sl_arena_array(arena, n ? n : 1, sizeof *copies);
    sl_json **items = sl_arena_array(arena, n ? n : 1, sizeof *items);
    if (!head || !copies || !items) return NULL;
    *head = *messages;
    for (size_t i = 0; i < n; i++) {
        copies[i] = *messages->items[i];
        copies[i].next = i + 1 < n ? &copies[i + 1] : NULL;
        items[i] = &copies[i];
    }
    head->length = n;
    head->items = items;
    head->first = n ? copies : NULL;
    return head;
}

/* The conversation up to an answer of the assistant, message n, and with it: so that the seam is where the model is asked. */
static sllm_status one_turn(reading *r, const sl_json *messages, size_t n, tokens *t) {
    sl_arena arena = {0};
    sl_buffer before = {0}, after = {0};
    const sl_json *prompt = first_messages(&arena, messages, n), *whole = first_messages(&arena, messages, n + 1);
    sllm_status status = prompt && whole ? render(r, prompt, true, &before) : sl_fail_memory(r->error, "the messages", 0);
    if (!status) status = grow(r, t, before.data ? before.data : "", before.length, SLLM_TOKENIZE_SPECIAL, r->params->prompt_loss);
    if (!status) status = render(r, whole, false, &after);
    if (!status && (after.length < before.length || memcmp(before.data, after.data, before.length)))
        status = sl_fail(r->error, SLLM_ERROR_UNSUPPORTED, "the model's template writes the conversation before an answer otherwise with it: what "
                         "is to be learned cannot be told apart; use --format alpaca or plain");
    if (!status) status = grow(r, t, after.data ? after.data : "", after.length, SLLM_TOKENIZE_SPECIAL, true);
    sl_buffer_free(&before);
    sl_buffer_free(&after);
    sl_arena_free(&arena);
    return status;
}

static sllm_status messages_tokens(reading *r, const sl_json *messages, tokens *t) {
    sllm_status status = SLLM_OK;
    size_t answers = 0;
    if (!r->model->chat_template)
        return sl_fail(r->error, SLLM_ERROR_NOT_FOUND, "the model has no chat template; use --format alpaca or plain");
    for (size_t i = 0; i < messages->length && !status; i++) {
        if (!is_assistant(messages->items[i])) continue;
        const char *content = sl_json_string(sl_json_get(messages->items[i], "content"));
        if (!content || !*content) return sl_fail(r->error, SLLM_ERROR_FORMAT, "message %zu: the assistant's content is empty", i + 1);
        status = one_turn(r, messages, i, t);
        answers++;
    }
    if (!status && !answers) return sl_fail(r->error, SLLM_ERROR_FORMAT, "the messages hold no turn of the assistant");
    return status;
}

/* ---------------------------------------------------------------- records */

static const char *field(const sl_json *root, const char *key) { return sl_json_string(sl_json_get(root, key)); }

/* {"messages": [user, assistant]} of an instruction, parsed again: the template wants JSON. */
static sllm_status template_tokens(reading *r, const char *instruction, const char *input, const char *output, tokens *t) {
    sl_buffer turn = {0}, json = {0};
    sl_arena arena = {0};
    const sl_json *messages;
    sl_data_user_turn(instruction, input, &turn);
    sl_buffer_puts(&json, "[{\"role\":\"user\",\"content\":");
    sl_json_write_string(&json, turn.data ? turn.data : "", turn.length);
    sl_buffer_puts(&json, "},{\"role\":\"assistant\",\"content\":");
    sl_json_write_string(&json, output, strlen(output));
    sl_buffer_puts(&json, "}]");
    sllm_status status = turn.failed || json.failed ? sl_fail_memory(r->error, "a turn", 0)
                                                    : sl_json_parse(&arena, json.data, json.length, "a turn", &messages, r->error);
    if (!status) status = messages_tokens(r, messages, t);
    sl_arena_free(&arena);
    sl_buffer_free(&turn);
    sl_buffer_free(&json);
    return status;
}

static sllm_status text_tokens(reading *r, const char *prompt, const char *rest, tokens *t) {
    sl_buffer all = {0};
    sl_buffer_puts(&all, prompt);
    sllm_status status = *prompt ? grow(r, t, prompt, strlen(prompt), SLLM_TOKENIZE_ADD, r->params->prompt_loss) : SLLM_OK;
    sl_buffer_puts(&all, rest);
    if (!status && all.failed) status = sl_fail_memory(r->error, "an example", 0);
    if (!status) status = grow(r, t, all.data, all.length, SLLM_TOKENIZE_ADD, true);
    sl_buffer_free(&all);
    if (!status && t->ids.length && is_end(r->model, t->ids.data[t->ids.length - 1])) return SLLM_OK; /* the vocabulary asks for one */
    return status || r->params->no_end ? status : add_end(r, t);
}

static sllm_status instruction_tokens(reading *r, const char *instruction, const char *input, const char *output, tokens *t) {
    sl_buffer prompt = {0}, answer = {0};
    if (r->params->format == SL_FORMAT_TEMPLATE) return template_tokens(r, instruction, input, output, t);
    sl_data_prompt(r->params->format, instruction, input, &prompt);
    if (r->params->format == SL_FORMAT_PLAIN) sl_buffer_putc(&answer, ' ');
    sl_buffer_puts(&answer, output);
    sllm_status status = prompt.failed || answer.failed ? sl_fail_memory(r->error, "a prompt", 0) : text_tokens(r, prompt.data, answer.data, t);
    sl_buffer_free(&prompt);
    sl_buffer_free(&answer);
    return status;
}

/* A field that nobody reads is a mistake that would go unseen. */
static sllm_status check_fields(const reading *r, const sl_json *root) {
    static const char *const known[] = {"instruction", "input", "output", "response", "prompt", "completion", "messages", "text", "id"};
    if (root->type != SL_JSON_OBJECT) return sl_fail(r->error, SLLM_ERROR_FORMAT, "is no JSON object");
    for (const sl_json *f = root->first; f; f = f->next) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(known[i], f->key)) i++;
        if (i == sizeof known / sizeof *known)
            return sl_fail(r->error, SLLM_ERROR_FORMAT, "the field \"%.60s\" is not known; there are instruction, input, output (or response), "
                           "prompt, completion, messages, text and id", f->key);
    }
    return SLLM_OK;
}

static sllm_status record_tokens(reading *r, const sl_json *root, tokens *t) {
    const sl_json *messages = sl_json_get(root, "messages");
    const char *text = field(root, "text"), *instruction = field(root, "instruction"), *output = field(root, "output");
    sllm_status status = check_fields(r, root);
    if (status) return status;
    if (messages && messages->type == SL_JSON_ARRAY) return messages_tokens(r, messages, t);
    if (text) return *text ? text_tokens(r, "", text, t) : sl_fail(r->error, SLLM_ERROR_FORMAT, "the text is empty");
    if (!instruction) instruction = field(root, "prompt");
    if (!output) output = field(root, "response");
    if (!output) output = field(root, "completion");
    if (!instruction || !output)
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "has no %s, as text", !instruction ? "instruction (or prompt, messages, text)" : "output (or response, completion)");
    if (!output[strspn(output, " \t\r\n")]) return sl_fail(r->error, SLLM_ERROR_FORMAT, "the output is empty: there is nothing to learn");
    return instruction_tokens(r, instruction, field(root, "input"), output, t);
}

/* ---------------------------------------------------------------- the set */

static size_t count_labels(const int32_t *labels, size_t n) {
    size_t count = 0;
    for (size_t i = 1; i < n; i++) count += labels[i] != SL_NO_LABEL;
    return count;
}

static sllm_status keep(reading *r, const int32_t *ids, const int32_t *labels, size_t n) {
    sl_dataset *d = r->out;
    if (d->n == r->capacity) {
        size_t more = r->capacity ? 2 * r->capacity : 256;
        size_t *starts = realloc(r->starts, more * sizeof *starts);
        if (starts) r->starts = starts;
        int *lines = realloc(d->lines, more * sizeof *lines);
        if (lines) d->lines = lines;
        if (!starts || !lines) return sl_fail_memory(r->error, "the examples", more * sizeof *starts);
        r->capacity = more;
    }
    r->starts[d->n] = r->ids.length;
    d->lines[d->n++] = r->line;
    for (size_t i = 0; i < n; i++)
        if (!push(&r->ids, ids[i]) || !push(&r->labels, labels[i])) return sl_fail_memory(r->error, "the examples", 0);
    d->n_labels += count_labels(labels, n);
    if ((int)n > d->longest) d->longest = (int)n;
    return SLLM_OK;
}

/* Pieces without a label teach nothing and are left out. */
static sllm_status keep_pieces(reading *r, const tokens *t) {
    size_t most = (size_t)r->params->max_length;
    sllm_status status = SLLM_OK;
    for (size_t at = 0; at < t->ids.length && !status; at += most) {
        size_t n = t->ids.length - at < most ? t->ids.length - at : most;
        if (n > 1 && count_labels(t->labels.data + at, n)) status = keep(r, t->ids.data + at, t->labels.data + at, n);
    }
    r->out->n_split++;
    return status;
}

static sllm_status keep_example(reading *r, tokens *t) {
    size_t most = (size_t)r->params->max_length;
    if (!count_labels(t->labels.data, t->labels.length))
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "no token of the example is to be learned");
    if (t->ids.length <= most) return keep(r, t->ids.data, t->labels.data, t->ids.length);
    if (r->params->over_long == SL_OVER_LONG_SPLIT) return keep_pieces(r, t);
    if (r->params->over_long == SL_OVER_LONG_REFUSE) {
        if (!r->n_long++) r->first_long = r->line;
        if ((int)t->ids.length > r->longest_long) r->longest_long = (int)t->ids.length;
        return SLLM_OK;
    }
    if (!count_labels(t->labels.data, most))
        return sl_fail(r->error, SLLM_ERROR_FORMAT, "cut to %zu tokens nothing is left to learn: its prompt alone is longer", most);
    r->out->n_truncated++;
    return keep(r, t->ids.data, t->labels.data, most);
}

static sllm_status one_line(reading *r, const char *line, size_t length) {
    sl_arena arena = {0};
    tokens t = {0};
    const sl_json *root;
    sllm_status status = sl_utf8_is_valid(line, length) ? SLLM_OK : sl_fail(r->error, SLLM_ERROR_FORMAT, "is not UTF-8");
    if (!status) status = sl_json_parse(&arena, line, length, "the line", &root, r->error);
    if (!status) status = record_tokens(r, root, &t);
    if (!status) status = keep_example(r, &t);
    free(t.ids.data);
    free(t.labels.data);
    sl_arena_free(&arena);
    return status ? sl_error_prefix(r->error, status, "%s: line %d", r->name, r->line) : SLLM_OK;
}

static sllm_status point_at_examples(reading *r) {
    sl_dataset *d = r->out;
    d->ids = r->ids.data;
    d->labels = r->labels.data;
    d->n_tokens = r->ids.length;
    r->ids.data = r->labels.data = NULL;
    d->examples = calloc(d->n ? d->n : 1, sizeof *d->examples);
    if (!d->examples) return sl_fail_memory(r->error, "the examples", d->n * sizeof *d->examples);
    for (size_t i = 0; i < d->n; i++) {
        size_t end = i + 1 < d->n ? r->starts[i + 1] : d->n_tokens;
        d->examples[i] = (sl_example){d->ids + r->starts[i], d->labels + r->starts[i], (int)(end - r->starts[i])};
    }
    return SLLM_OK;
}

sllm_status sl_dataset_read(const sl_model *model, const char *text, size_t length, const char *name, const sl_data_params *params,
                            sl_dataset *dataset, sllm_error *error) {
    reading r = {.model = model, .params = params, .name = name, .out = dataset, .error = error};
    sllm_status status = SLLM_OK;
    *dataset = (sl_dataset){0};
    if (!model->tokenizer) return sl_fail(error, SLLM_ERROR_NOT_FOUND, "the model has no tokenizer, so text cannot be read");
    const char *at = text, *end = text + length;
    for (r.line = 1; at < end && !status; r.line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        bool blank = true;
        for (const char *c = at; c < stop; c++) blank = blank && strchr(" \t\r", *c) && *c;
        if (!blank) status = one_line(&r, at, (size_t)(stop - at));
        at = stop + 1;
    }
    if (!status && r.n_long)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %zu examples are longer than %d tokens (the first in line %d, the longest of %d): raise "
                         "--max-length, or choose --over-long truncate or split", name, r.n_long, params->max_length, r.first_long,
                         r.longest_long);
    if (!status && !dataset->n) status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: holds no example", name);
    if (!status) status = point_at_examples(&r);
    free(r.starts);
    free(r.ids.data);
    free(r.labels.data);
    if (status) sl_dataset_free(dataset);
    return status;
}

void sl_dataset_free(sl_dataset *d) {
    free(d->examples);
    free(d->lines);
    free(d->ids);
    free(d->labels);
    *d = (sl_dataset){0};
}
