/* Stop strings over streamed text. Text that could be the beginning of a stop string is held back until it is known not
 * to be, so that no part of one is ever handed out. Matching: Knuth, Morris and Pratt (1977), one automaton a string,
 * so a byte costs the same however long the strings are. */
#ifndef SL_INFER_STOP_H
#define SL_INFER_STOP_H

#include "base/buffer.h"
#include "sllm.h"

/* Bounds that no honest caller meets. */
enum { SL_STOP_MAX = 1024, SL_STOP_MAX_BYTES = 65536 };

typedef struct sl_stop_string {
    const char *text; /* borrowed */
    size_t length;
    uint32_t *fallback; /* [length] longest proper prefix of text[0..i] that is also its suffix */
    size_t matched;     /* bytes of text that the stream ends with */
} sl_stop_string;

typedef struct sl_stop {
    sl_stop_string *strings;
    size_t n;
    sl_buffer held; /* the end of the stream that is not handed out yet */
} sl_stop;

/* strings [n]: non-empty valid UTF-8, borrowed while *stop lives. SLLM_ERROR_ARGUMENT names the one that is not. Zeroed
 * or made, *stop may be freed. */
sllm_status sl_stop_init(sl_stop *stop, const char *const *strings, size_t n, sllm_error *error);
void sl_stop_free(sl_stop *stop);

/* Takes text [length] (whole characters) and appends to *out what is certain. *found: the index of the stop string
 * whose last byte came first (of several ending there the longest), or -1; then nothing from its first byte on is
 * handed out, and the stream is over. */
sllm_status sl_stop_push(sl_stop *stop, const char *text, size_t length, sl_buffer *out, ptrdiff_t *found,
                         sllm_error *error);
/* The end of the stream: appends what was held back. */
sllm_status sl_stop_finish(sl_stop *stop, sl_buffer *out, sllm_error *error);

#endif
