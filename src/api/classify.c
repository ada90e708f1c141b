/* The public function that measures a classifier: prompts made as for teaching, answers, the report. */
#include "sllm_eval.h"

#include "api/handles.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "eval/classification.h"
#include "train/data.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_WRONG = 100, FREE_TOKENS = 48 };

typedef struct question {
    const char *instruction, *input, *expected, *answered; /* of the arena */
    int line;
} question;

typedef struct classifying {
    sl_model *model;
    const sllm_classify_params *params;
    const char *name;
    sl_data_format format;
    question *questions;
    size_t n, capacity;
    const char **labels, **choices; /* [n_labels]; choices as the model writes them */
    size_t n_labels;
    sllm_session *session;
    sl_arena arena;
    double seconds;
    sllm_error *error;
} classifying;

void sllm_classify_params_init(sllm_classify_params *params) {
    if (params) *params = (sllm_classify_params){0};
}

/* ---------------------------------------------------------------- questions */

static const char *copy_of(classifying *c, const char *text) { return sl_arena_copy(&c->arena, text, strlen(text)); }

static sllm_status add_question(classifying *c, const sl_json *root, int line) {
    const char *instruction = sl_json_string(sl_json_get(root, "instruction")), *input = sl_json_string(sl_json_get(root, "input"));
    const char *expected = sl_json_string(sl_json_get(root, "output"));
    if (!instruction) instruction = sl_json_string(sl_json_get(root, "text"));
    if (!expected) expected = sl_json_string(sl_json_get(root, "label"));
    if (!instruction || !expected || !*expected)
        return sl_fail(c->error, SLLM_ERROR_FORMAT, "%s: line %d: has no instruction and output, nor text and label", c->name, line);
    if (c->n == c->capacity) {
        size_t more = c->capacity ? 2 * c->capacity : 256;
        question *list = realloc(c->questions, more * sizeof *list);
        if (!list) return sl_fail_memory(c->error, "the questions", more * sizeof *list);
        c->questions = list;
        c->capacity = more;
    }
    question q = {.instruction = copy_of(c, instruction), .input = input ? copy_of(c, input) : "", .expected = copy_of(c, expected), .line = line};
    if (!q.instruction || !q.input || !q.expected) return sl_fail_memory(c->error, "the questions", 0);
    c->questions[c->n++] = q;
    return SLLM_OK;
}

static sllm_status read_questions(classifying *c, const char *data, size_t length) {
    const char *at = data, *end = data + length;
    sllm_status status = SLLM_OK;
    for (int line = 1; at < end && !status; line++) {
        sl_arena arena = {0};
        const sl_json *root;
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        bool blank = true;
        for (const char *k = at; k < stop; k++) blank = blank && strchr(" \t\r", *k) && *k;
        if (!blank) {
            status = sl_json_parse(&arena, at, (size_t)(stop - at), "the line", &root, c->error);
            if (status) sl_error_prefix(c->error, status, "%s: line %d", c->name, line);
            else status = add_question(c, root, line);
        }
        sl_arena_free(&arena);
        at = stop + 1;
    }
    if (!status && !c->n) status = sl_fail(c->error, SLLM_ERROR_FORMAT, "%s: holds no question", c->name);
    return status;
}

/* ---------------------------------------------------------------- labels */

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool is_label(const classifying *c, const char *text) {
    for (size_t i = 0; i < c->n_labels; i++)
        if (!strcmp(c->labels[i], text)) return true;
    return false;
}

static sllm_status list_labels(classifying *c) {
    const sllm_classify_params *p = c->params;
    c->labels = sl_arena_array(&c->arena, c->n + p->n_labels, sizeof *c->labels);
    c->choices = sl_arena_array(&c->arena, c->n + p->n_labels, sizeof *c->choices);
    if (!c->labels || !c->choices) return sl_fail_memory(c->error, "the labels", 0);
    for (size_t i = 0; i < p->n_labels; i++) c->labels[c->n_labels++] = p->labels[i];
    for (size_t i = 0; i < c->n; i++) {
        if (is_label(c, c->questions[i].expected)) continue;
        if (p->n_labels)
            return sl_fail(c->error, SLLM_ERROR_FORMAT, "%s: line %d: '%.80s' is not among the labels", c->name, c->questions[i].line,
                           c->questions[i].expected);
        c->labels[c->n_labels++] = c->questions[i].expected;
    }
    if (!p->n_labels) qsort(c->labels, c->n_labels, sizeof *c->labels, by_text);
    for (size_t i = 0; i < c->n_labels; i++) { /* plain prompts end with a colon, and the answer begins with a space */
        sl_buffer text = {0};
        if (c->format == SL_FORMAT_PLAIN) sl_buffer_putc(&text, ' ');
        sl_buffer_puts(&text, c->labels[i]);
        c->choices[i] = text.failed ? NULL : copy_of(c, text.data);
        sl_buffer_free(&text);
        if (!c->choices[i]) return sl_fail_memory(c->error, "the labels", 0);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- asking */

static sllm_status template_ids(classifying *c, const question *q, sl_ids *ids) {
    sl_buffer turn = {0}, json = {0}, text = {0};
    sl_arena arena = {0};
    const sl_tokenizer *t = c->model->tokenizer;
    const sl_json *messages = NULL;
    sl_data_user_turn(q->instruction, q->input, &turn);
    sl_buffer_puts(&json, "[{\"role\":\"user\",\"content\":");
    sl_json_write_string(&json, turn.data ? turn.data : "", turn.length);
    sl_buffer_puts(&json, "}]");
    sllm_status status = turn.failed || json.failed ? sl_fail_memory(c->error, "a turn", 0)
                                                    : sl_json_parse(&arena, json.data, json.length, "a turn", &messages, c->error);
    sl_chat_request request = {.messages = messages, .add_generation_prompt = true,
                               .bos_token = sl_tokenizer_text(t, sl_tokenizer_special(t, SL_SPECIAL_BOS)),
                               .eos_token = sl_tokenizer_text(t, sl_tokenizer_special(t, SL_SPECIAL_EOS))};
    if (!status) status = sl_chat_render(c->model->chat_template, &request, &text, c->error);
    if (!status) status = sl_tokenizer_encode(t, NULL, text.data ? text.data : "", text.length, SLLM_TOKENIZE_SPECIAL, ids, c->error);
    sl_buffer_free(&turn);
    sl_buffer_free(&json);
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    return status;
}

static sllm_status prompt_ids(classifying *c, const question *q, sl_ids *ids) {
    sl_buffer text = {0};
    if (c->format == SL_FORMAT_TEMPLATE) return template_ids(c, q, ids);
    sllm_status status = sl_data_prompt(c->format, q->instruction, q->input, &text) ? SLLM_OK : sl_fail_memory(c->error, "a prompt", 0);
    if (!status) status = sl_tokenizer_encode(c->model->tokenizer, NULL, text.data, text.length, SLLM_TOKENIZE_ADD, ids, c->error);
    sl_buffer_free(&text);
    return status;
}

/* A free answer as one of the labels, if it is one but for case, blanks and a full stop; otherwise as it is. */
static const char *normalise(classifying *c, const char *text) {
    while (isspace((unsigned char)*text)) text++;
    size_t n = strlen(text);
    while (n && (isspace((unsigned char)text[n - 1]) || text[n - 1] == '.')) n--;
    for (size_t i = 0; i < c->n_labels; i++)
        if (strlen(c->labels[i]) == n && !strncasecmp(c->labels[i], text, n)) return c->labels[i];
    return n ? sl_arena_copy(&c->arena, text, n) : "";
}

static sllm_status ask(classifying *c, question *q) {
    sl_ids ids = {0};
    sllm_generate_params p;
    sllm_generation answer = {0};
    sllm_generate_params_init(&p);
    p.sampler.temperature = 0;
    p.max_new_tokens = FREE_TOKENS;
    if (!c->params->free_answers) p.choices = c->choices, p.n_choices = c->n_labels;
    sllm_status status = prompt_ids(c, q, &ids);
    if (!status) status = sllm_generate(c->session, ids.data, ids.length, &p, &answer, c->error);
    if (status) sl_error_prefix(c->error, status, "%s: line %d", c->name, q->line);
    else q->answered = c->params->free_answers ? normalise(c, answer.text) : c->labels[answer.choice];
    if (!status && !q->answered) status = sl_fail_memory(c->error, "an answer", 0);
    sllm_generation_free(&answer);
    free(ids.data);
    return status;
}

static sllm_status ask_all(classifying *c) {
    const sllm_classify_params *p = c->params;
    sllm_status status = sllm_session_new(sl_model_public(c->model), NULL, &c->session, c->error);
    double began = sl_clock();
    for (size_t i = 0; i < c->n && !status; i++) {
        if (p->on_progress && !p->on_progress(p->user, "asking", i, c->n))
            return sl_fail(c->error, SLLM_ERROR_CANCELLED, "interrupted after %zu of %zu questions", i, c->n);
        status = ask(c, &c->questions[i]);
    }
    c->seconds = sl_clock() - began;
    if (!status && p->on_progress) p->on_progress(p->user, "asking", c->n, c->n);
    return status;
}

/* ---------------------------------------------------------------- the report */

static void put_wrong(const classifying *c, sl_buffer *out) {
    int n = 0;
    sl_json_key(out, "wrong");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < c->n && n < MOST_WRONG; i++) {
        const question *q = &c->questions[i];
        if (!strcmp(q->expected, q->answered)) continue;
        n++;
        sl_json_comma(out);
        sl_buffer_putc(out, '{');
        sl_json_put_int(out, "line", q->line);
        sl_json_put_string(out, "expected", q->expected);
        sl_json_put_string(out, "answered", q->answered);
        sl_buffer_putc(out, '}');
    }
    sl_buffer_putc(out, ']');
}

static sllm_status report(const classifying *c, char **json) {
    sl_buffer out = {0};
    const char **truth = malloc(2 * c->n * sizeof *truth), **answers = truth + c->n;
    for (size_t i = 0; truth && i < c->n; i++) truth[i] = c->questions[i].expected, answers[i] = c->questions[i].answered;
    bool good = truth && sl_classification_report(truth, answers, c->n, c->labels, c->n_labels, 0, &out);
    free(truth);
    if (good) {
        out.data[--out.length] = 0; /* the closing brace: more follows */
        sl_json_put_int(&out, "n", (int64_t)c->n);
        sl_json_put_double(&out, "examples_per_second", c->seconds > 0 ? (double)c->n / c->seconds : 0);
        put_wrong(c, &out);
        sl_buffer_putc(&out, '}');
        *json = sl_buffer_take(&out, NULL);
    }
    sl_buffer_free(&out);
    return *json ? SLLM_OK : sl_fail_memory(c->error, "the report", 0);
}

static sllm_status read_format(classifying *c) {
    static const char *const words[] = {"template", "alpaca", "plain"};
    int k = 0;
    while (c->params->format && k < 3 && strcmp(words[k], c->params->format)) k++;
    if (k == 3) return sl_fail(c->error, SLLM_ERROR_ARGUMENT, "there is no format '%s'; there are template, alpaca and plain", c->params->format);
    c->format = c->params->format ? (sl_data_format)k : SL_FORMAT_TEMPLATE;
    if (c->format == SL_FORMAT_TEMPLATE && !c->model->chat_template)
        return sl_fail(c->error, SLLM_ERROR_NOT_FOUND, "the model has no chat template; choose --format alpaca or plain");
    return c->model->tokenizer ? SLLM_OK : sl_fail(c->error, SLLM_ERROR_NOT_FOUND, "the model has no tokenizer");
}

sllm_status sllm_eval_classify(sllm_model *model, const char *data, size_t length, const sllm_classify_params *params, char **json,
                               sllm_error *error) {
    static const sllm_classify_params defaults;
    classifying c = {.model = sl_model_of(model), .params = params ? params : &defaults, .error = error};
    if (json) *json = NULL;
    if (error) *error = (sllm_error){0};
    if (!model || !json || (!data && length)) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_eval_classify: model, data or json is NULL");
    c.name = c.params->data_name ? c.params->data_name : "data";
    sllm_status status = read_format(&c);
    if (!status) status = read_questions(&c, data, length);
    if (!status) status = list_labels(&c);
    if (!status) status = ask_all(&c);
    if (!status) status = report(&c, json);
    sllm_session_free(c.session);
    free(c.questions);
    sl_arena_free(&c.arena);
    return status;
}
