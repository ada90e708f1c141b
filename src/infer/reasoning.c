#include "infer/reasoning.h"

#include "base/error.h"

#include <string.h>

/* As the models' published templates write them: Qwen3, DeepSeek-R1, SmolLM3 and many more; Magistral and Ministral;
 * EXAONE Deep; Seed-OSS; Command A Reasoning. */
static const sl_reasoning_marks known_marks[] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<thought>", "</thought>"},
    {"<seed:think>", "</seed:think>"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
};
enum { N_MARKS = sizeof known_marks / sizeof *known_marks };

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

bool sl_reasoning_is_mark(const char *text) {
    for (int i = 0; i < N_MARKS; i++)
        if (strcmp(text, known_marks[i].open) == 0 || strcmp(text, known_marks[i].close) == 0) return true;
    return false;
}

void sl_reasoning_init(sl_reasoning *reasoning, const char *prompt_end, size_t length) {
    *reasoning = (sl_reasoning){0};
    while (length > 0 && is_blank(prompt_end[length - 1])) length--;
    for (int i = 0; i < N_MARKS; i++) {
        size_t n = strlen(known_marks[i].open);
        if (length < n || memcmp(prompt_end + length - n, known_marks[i].open, n) != 0) continue;
        reasoning->state = SL_REASONING_INSIDE;
        reasoning->marks = &known_marks[i];
        reasoning->after_mark = reasoning->seen = true;
    }
}

void sl_reasoning_free(sl_reasoning *reasoning) { sl_buffer_free(&reasoning->held); }

static void drop_held(sl_reasoning *r, size_t n) {
    if (n == 0) return;
    memmove(r->held.data, r->held.data + n, r->held.length - n);
    r->held.length -= n;
}

/* Moves the first n held bytes to out, without the line breaks that belong to a mark. */
static void emit(sl_reasoning *r, size_t n, sl_buffer *out) {
    size_t skip = 0;
    while (r->after_mark && skip < n && (r->held.data[skip] == '\n' || r->held.data[skip] == '\r')) skip++;
    if (skip < n) {
        r->after_mark = false;
        sl_buffer_append(out, r->held.data + skip, n - skip);
    }
    drop_held(r, n);
}

/* At the start: true when the state has changed and what is held must be looked at again. */
static bool look_for_open(sl_reasoning *r) {
    size_t blanks = 0;
    while (blanks < r->held.length && is_blank(r->held.data[blanks])) blanks++;
    const char *text = r->held.data + blanks;
    size_t length = r->held.length - blanks;
    if (length == 0) return false;
    for (int i = 0; i < N_MARKS; i++) {
        size_t n = strlen(known_marks[i].open);
        if (memcmp(text, known_marks[i].open, length < n ? length : n) != 0) continue;
        if (length < n) return false;
        r->marks = &known_marks[i];
        r->state = SL_REASONING_INSIDE;
        r->after_mark = r->seen = true;
        drop_held(r, blanks + n);
        return true;
    }
    r->state = SL_REASONING_ANSWER;
    return true;
}

/* Inside: hands out what is before the closing mark, or before what may become it. True when the mark was found. */
static bool look_for_close(sl_reasoning *r, sl_buffer *thought) {
    size_t n = strlen(r->marks->close);
    char *at = r->held.length > 0 ? memmem(r->held.data, r->held.length, r->marks->close, n) : NULL;
    if (at) {
        emit(r, (size_t)(at - r->held.data), thought);
        drop_held(r, n);
        r->state = SL_REASONING_ANSWER;
        r->after_mark = true;
        return true;
    }
    size_t keep = r->held.length < n - 1 ? r->held.length : n - 1;
    while (keep > 0 && memcmp(r->held.data + r->held.length - keep, r->marks->close, keep) != 0) keep--;
    emit(r, r->held.length - keep, thought);
    return false;
}

sllm_status sl_reasoning_push(sl_reasoning *r, const char *text, size_t length, sl_buffer *thought, sl_buffer *answer,
                              sllm_error *error) {
    if (length == 0) return SLLM_OK;
    if (!sl_buffer_append(&r->held, text, length))
        return sl_fail_memory(error, "splitting reasoning from the answer", length);
    if (r->state == SL_REASONING_START) look_for_open(r);
    if (r->state == SL_REASONING_INSIDE) look_for_close(r, thought);
    if (r->state == SL_REASONING_ANSWER) emit(r, r->held.length, answer);
    if (thought->failed || answer->failed) return sl_fail_memory(error, "splitting reasoning from the answer", length);
    return SLLM_OK;
}

sllm_status sl_reasoning_finish(sl_reasoning *r, sl_buffer *thought, sl_buffer *answer, sllm_error *error) {
    emit(r, r->held.length, r->state == SL_REASONING_INSIDE ? thought : answer);
    if (thought->failed || answer->failed) return sl_fail_memory(error, "splitting reasoning from the answer", 0);
    return SLLM_OK;
}
