#include "infer/stop.h"

#include "base/error.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The state after one more byte: bytes of the string that the stream then ends with. */
static size_t advance(const sl_stop_string *s, size_t matched, char byte) {
    while (matched > 0 && s->text[matched] != byte) matched = s->fallback[matched - 1];
    return s->text[matched] == byte ? matched + 1 : 0;
}

static void fill_fallback(sl_stop_string *s) {
    s->fallback[0] = 0;
    for (size_t i = 1; i < s->length; i++) s->fallback[i] = (uint32_t)advance(s, s->fallback[i - 1], s->text[i]);
}

sllm_status sl_stop_init(sl_stop *stop, const char *const *strings, size_t n, sllm_error *error) {
    *stop = (sl_stop){0};
    if (n == 0) return SLLM_OK;
    if (!strings) return sl_fail(error, SLLM_ERROR_ARGUMENT, "stop: n_stop is %zu but stop is NULL", n);
    if (n > SL_STOP_MAX)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "stop: %zu strings are given, at most %d are allowed", n,
                       SL_STOP_MAX);
    stop->strings = calloc(n, sizeof *stop->strings);
    if (!stop->strings) return sl_fail_memory(error, "preparing stop strings", n * sizeof *stop->strings);
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < n && !status; i++) {
        sl_stop_string *s = &stop->strings[i];
        size_t length = strings[i] ? strlen(strings[i]) : 0;
        if (length == 0 || length > SL_STOP_MAX_BYTES || !sl_utf8_is_valid(strings[i], length)) {
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "stop: string %zu must be valid UTF-8 of 1 to %d bytes", i + 1,
                             SL_STOP_MAX_BYTES);
            break;
        }
        *s = (sl_stop_string){.text = strings[i], .length = length};
        s->fallback = malloc(length * sizeof *s->fallback);
        if (!s->fallback) {
            status = sl_fail_memory(error, "preparing stop strings", length * sizeof *s->fallback);
            break;
        }
        stop->n = i + 1;
        fill_fallback(s);
    }
    if (status) sl_stop_free(stop);
    return status;
}

void sl_stop_free(sl_stop *stop) {
    for (size_t i = 0; i < stop->n; i++) free(stop->strings[i].fallback);
    free(stop->strings);
    sl_buffer_free(&stop->held);
    *stop = (sl_stop){0};
}

/* Hands out all that is held but the last `keep` bytes. */
static void release(sl_stop *stop, size_t keep, sl_buffer *out) {
    size_t n = stop->held.length - keep;
    if (n == 0) return;
    sl_buffer_append(out, stop->held.data, n);
    memmove(stop->held.data, stop->held.data + n, keep);
    stop->held.length = keep;
}

sllm_status sl_stop_push(sl_stop *stop, const char *text, size_t length, sl_buffer *out, ptrdiff_t *found,
                         sllm_error *error) {
    *found = -1;
    if (length == 0) return SLLM_OK;
    size_t keep = 0;
    for (size_t i = 0; i < length && *found < 0; i++) {
        sl_buffer_append(&stop->held, &text[i], 1);
        keep = 0;
        for (size_t j = 0; j < stop->n; j++) {
            sl_stop_string *s = &stop->strings[j];
            s->matched = advance(s, s->matched, text[i]);
            if (s->matched == s->length && (*found < 0 || s->length > stop->strings[*found].length))
                *found = (ptrdiff_t)j;
            if (s->matched > keep) keep = s->matched;
        }
    }
    if (*found >= 0) keep = stop->strings[*found].length;
    if (!stop->held.failed) release(stop, keep, out);
    if (*found >= 0) stop->held.length = 0;
    if (stop->held.failed || out->failed) return sl_fail_memory(error, "holding text back for a stop string", 0);
    return SLLM_OK;
}

sllm_status sl_stop_finish(sl_stop *stop, sl_buffer *out, sllm_error *error) {
    release(stop, 0, out);
    return out->failed ? sl_fail_memory(error, "holding text back for a stop string", 0) : SLLM_OK;
}
