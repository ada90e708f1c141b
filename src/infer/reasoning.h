/* Models that think first write it between two marks: "<think>" ... "</think>" and its like. This splits streamed text
 * into reasoning and answer, also where a mark is spread over several tokens.
 *
 * A block is reasoning only where an answer begins (blanks may stand before it), or where the prompt has opened it; the
 * same marks later in an answer are text like any other. Line breaks right after a mark, which templates write and
 * strip with it, belong to neither part. */
#ifndef SL_INFER_REASONING_H
#define SL_INFER_REASONING_H

#include "base/buffer.h"
#include "sllm.h"

typedef struct sl_reasoning_marks {
    const char *open, *close;
} sl_reasoning_marks;

typedef enum sl_reasoning_state {
    SL_REASONING_START,  /* an opening mark may still come */
    SL_REASONING_INSIDE,
    SL_REASONING_ANSWER
} sl_reasoning_state;

typedef struct sl_reasoning {
    sl_reasoning_state state;
    const sl_reasoning_marks *marks; /* of the open block */
    bool after_mark;                 /* line breaks are dropped until other text comes */
    bool seen;                       /* there was a block */
    sl_buffer held;                  /* what may be part of a mark */
} sl_reasoning;

/* prompt_end [length]: the end of the prompt's text, special tokens written out. When a block is open in it (nothing
 * but blanks behind the opening mark) the answer begins inside. Zeroed or made, it may be freed. */
void sl_reasoning_init(sl_reasoning *reasoning, const char *prompt_end, size_t length);
void sl_reasoning_free(sl_reasoning *reasoning);

/* Appends what is certain of text [length] to *thought and *answer. */
sllm_status sl_reasoning_push(sl_reasoning *reasoning, const char *text, size_t length, sl_buffer *thought,
                              sl_buffer *answer, sllm_error *error);
/* The end of the stream: what was held back was no mark. */
sllm_status sl_reasoning_finish(sl_reasoning *reasoning, sl_buffer *thought, sl_buffer *answer, sllm_error *error);

/* True when text is one of the marks: a special token written so counts as text here. */
bool sl_reasoning_is_mark(const char *text);

#endif
