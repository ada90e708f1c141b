/* JSON: a tree over yajl that keeps number text, NUL escapes and scalar roots, and a small writer. */
#ifndef SL_BASE_JSON_H
#define SL_BASE_JSON_H

#include "base/arena.h"
#include "base/buffer.h"
#include "sllm.h"

typedef enum sl_json_type {
    SL_JSON_NULL,
    SL_JSON_BOOL,
    SL_JSON_NUMBER,
    SL_JSON_STRING,
    SL_JSON_ARRAY,
    SL_JSON_OBJECT
} sl_json_type;

/* Nodes are immutable and belong to the arena given to the parser. `text` is NUL-terminated beyond `length` but may
 * hold NUL bytes. Children of arrays and objects are linked in file order; a duplicate object key stays in the list and
 * sl_json_get gives the last one, as Python does. */
typedef struct sl_json {
    sl_json_type type;
    bool boolean;
    const char *text; /* string value, or a number as written */
    size_t length;    /* bytes of text; items of an array or object */
    const char *key;  /* in an object: this member's key */
    size_t key_length;
    struct sl_json *first, *next; /* children; next sibling */
    struct sl_json **items;       /* [length] the children again, for access by index */
} sl_json;

/* Parses text [length]; nesting deeper than 512 is an error. `what` names the source in messages, which give line and
 * column. Invalid UTF-8 in strings is an error; half a surrogate
 * pair written as \uXXXX becomes U+FFFD. */
sllm_status sl_json_parse(sl_arena *arena, const char *text, size_t length, const char *what, const sl_json **root,
                          sllm_error *error);

const sl_json *sl_json_get(const sl_json *object, const char *key);          /* NULL: absent, or not an object */
const sl_json *sl_json_get_path(const sl_json *root, const char *path);      /* "a.b.c" */
const sl_json *sl_json_at(const sl_json *array, size_t index);               /* NULL: out of range or not an array */
bool sl_json_is_integer(const sl_json *value);                               /* a number written without . e E */
bool sl_json_int64(const sl_json *value, int64_t *out);                      /* false: not an integer that fits */
bool sl_json_double(const sl_json *value, double *out);                      /* false: not a number */
bool sl_json_bool(const sl_json *value, bool *out);
const char *sl_json_string(const sl_json *value);                            /* NULL: not a string, or holds NUL */

/* Writing: escapes control characters, quotes and backslashes; other UTF-8 stays; invalid UTF-8 becomes U+FFFD. */
void sl_json_write_string(sl_buffer *out, const char *text, size_t length);
void sl_json_write_double(sl_buffer *out, double value); /* shortest text that reads back; null when not finite */
void sl_json_write_value(sl_buffer *out, const sl_json *value);              /* compact */

/* "key": inside an object being written; writes the comma when needed (the last byte is neither '{' nor '[' nor
 * ':'). */
void sl_json_key(sl_buffer *out, const char *key);
void sl_json_comma(sl_buffer *out); /* the same for an array item */
void sl_json_put_string(sl_buffer *out, const char *key, const char *value); /* value NULL writes null */
void sl_json_put_int(sl_buffer *out, const char *key, int64_t value);
void sl_json_put_double(sl_buffer *out, const char *key, double value);
void sl_json_put_float(sl_buffer *out, const char *key, float value); /* shortest text that reads back as this float */
void sl_json_put_bool(sl_buffer *out, const char *key, bool value);

#endif
