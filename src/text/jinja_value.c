/* Values: making them, dictionaries, text building, and the ways to fail. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const jinja_value sl_jinja_missing = {.type = JINJA_MISSING};
const jinja_value sl_jinja_none = {.type = JINJA_NONE};
const jinja_value sl_jinja_true = {.type = JINJA_BOOL, .as.boolean = true};
const jinja_value sl_jinja_false = {.type = JINJA_BOOL, .as.boolean = false};

/* ---------------------------------------------------------------- failing */

static noreturn void leave(jinja *j, sllm_status status) {
    j->status = status;
    longjmp(j->on_failure, 1);
}

noreturn void sl_jinja_fail(jinja *j, const char *kind, const char *format, ...) {
    char text[sizeof j->error->message - 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (j->line) sl_fail(j->error, SLLM_ERROR_TEMPLATE, "%s: line %d: %s", kind, j->line, text);
    else sl_fail(j->error, SLLM_ERROR_TEMPLATE, "%s: %s", kind, text);
    if (j->error) j->error->line = j->line;
    leave(j, SLLM_ERROR_TEMPLATE);
}

noreturn void sl_jinja_raise(jinja *j, const jinja_string *message) {
    sllm_error *error = j->error;
    sl_fail(error, SLLM_ERROR_TEMPLATE, "%s", "");
    if (error) {
        size_t length = message->length;
        if (length >= sizeof error->message) {
            length = sizeof error->message - 1;
            length -= sl_utf8_incomplete(message->data, length);
        }
        if (length) memcpy(error->message, message->data, length);
        error->message[length] = 0;
        error->raised = true;
        error->line = j->line;
    }
    leave(j, SLLM_ERROR_TEMPLATE);
}

noreturn void sl_jinja_fail_limit(jinja *j, const char *which, uint64_t limit) {
    sl_jinja_fail(j, "LimitError", "the template passed the limit on %s (%llu)", which, (unsigned long long)limit);
}

noreturn void sl_jinja_fail_memory(jinja *j, size_t bytes) {
    leave(j, sl_fail_memory(j->error, "chat template", bytes));
}

void *sl_jinja_alloc(jinja *j, size_t size) {
    sl_arena *arena = j->arena;
    if (arena->limit && (size > arena->limit || arena->bytes > arena->limit - size))
        sl_jinja_fail_limit(j, "memory, bytes", arena->limit);
    void *memory = sl_arena_alloc(arena, size ? size : 1);
    if (memory) return memory;
    if (arena->limit && arena->limit - arena->bytes < size + 16) sl_jinja_fail_limit(j, "memory, bytes", arena->limit);
    sl_jinja_fail_memory(j, size);
}

void *sl_jinja_array(jinja *j, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) sl_jinja_fail_limit(j, "memory, bytes", j->arena->limit);
    return sl_jinja_alloc(j, bytes);
}

void sl_jinja_charge(jinja *j, uint64_t steps) {
    if (!j->step_limit) return; /* compiling */
    if (steps > j->step_limit - j->steps) sl_jinja_fail_limit(j, "steps", j->step_limit);
    j->steps += steps;
}

void sl_jinja_enter(jinja *j) {
    if (++j->nesting > j->nesting_limit) sl_jinja_fail_limit(j, "nesting", (uint64_t)j->nesting_limit);
}

void sl_jinja_leave(jinja *j) { j->nesting--; }

/* ---------------------------------------------------------------- text building */

static void reserve(jinja_text *text, size_t extra) {
    if (extra <= text->capacity - text->length) return;
    size_t capacity = text->capacity < 32 ? 32 : text->capacity;
    if (extra > SIZE_MAX / 4 || text->length > SIZE_MAX / 4)
        sl_jinja_fail_limit(text->j, "memory, bytes", text->j->arena->limit);
    while (capacity < text->length + extra) capacity *= 2;
    char *data = sl_jinja_alloc(text->j, capacity);
    if (text->length) memcpy(data, text->data, text->length);
    text->data = data;
    text->capacity = capacity;
}

void sl_jinja_text_append(jinja_text *text, const char *data, size_t length) {
    reserve(text, length);
    if (length) memcpy(text->data + text->length, data, length);
    text->length += length;
}

void sl_jinja_text_puts(jinja_text *text, const char *data) { sl_jinja_text_append(text, data, strlen(data)); }

void sl_jinja_text_putc(jinja_text *text, char c) {
    reserve(text, 1);
    text->data[text->length++] = c;
}

void sl_jinja_text_code(jinja_text *text, uint32_t code_point) {
    char bytes[4];
    sl_jinja_text_append(text, bytes, sl_utf8_encode(code_point, bytes));
}

void sl_jinja_text_fill(jinja_text *text, const char *data, size_t length, int64_t times) {
    size_t bytes;
    if (times <= 0 || !length) return;
    if (__builtin_mul_overflow((size_t)times, length, &bytes))
        sl_jinja_fail_limit(text->j, "memory, bytes", text->j->arena->limit);
    reserve(text, bytes);
    if (length == 1) {
        memset(text->data + text->length, *data, bytes);
    } else {
        for (size_t i = 0; i < bytes; i += length) memcpy(text->data + text->length + i, data, length);
    }
    text->length += bytes;
}

void sl_jinja_text_printf(jinja_text *text, const char *format, ...) {
    char small[512];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (n < 0) return;
    if ((size_t)n < sizeof small) {
        sl_jinja_text_append(text, small, (size_t)n);
        return;
    }
    reserve(text, (size_t)n + 1);
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)n + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)n;
}

jinja_value sl_jinja_text_value(jinja_text *text) { return sl_jinja_str(text->j, text->data, text->length); }

/* ---------------------------------------------------------------- simple values */

jinja_value sl_jinja_bool(bool value) { return value ? sl_jinja_true : sl_jinja_false; }
jinja_value sl_jinja_int(int64_t value) { return (jinja_value){.type = JINJA_INT, .as.integer = value}; }
jinja_value sl_jinja_float(double value) { return (jinja_value){.type = JINJA_FLOAT, .as.number = value}; }

static size_t count_chars(const char *data, size_t length) {
    size_t n = 0;
    for (size_t i = 0; i < length; i++) n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}

jinja_value sl_jinja_str(jinja *j, const char *data, size_t length) {
    jinja_string *string = sl_jinja_alloc(j, sizeof *string);
    string->data = data ? data : "";
    string->length = length;
    string->chars = count_chars(data, length);
    return (jinja_value){.type = JINJA_STRING, .as.string = string};
}

jinja_value sl_jinja_str_copy(jinja *j, const char *data, size_t length) {
    char *copy = sl_jinja_alloc(j, length);
    if (length) memcpy(copy, data, length);
    return sl_jinja_str(j, copy, length);
}

jinja_value sl_jinja_literal(jinja *j, const char *text) { return sl_jinja_str(j, text, strlen(text)); }

bool sl_jinja_string_is(jinja_value v, const char *text) {
    size_t length = strlen(text);
    return v.type == JINJA_STRING && v.as.string->length == length && !memcmp(v.as.string->data, text, length);
}

jinja_value sl_jinja_list_new(jinja *j, size_t capacity) {
    jinja_list *list = sl_jinja_alloc(j, sizeof *list);
    list->items = capacity ? sl_jinja_array(j, capacity, sizeof *list->items) : NULL;
    list->capacity = capacity;
    return (jinja_value){.type = JINJA_LIST, .as.list = list};
}

void sl_jinja_list_push(jinja *j, jinja_list *list, jinja_value item) {
    if (list->length == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        jinja_value *items = sl_jinja_array(j, capacity, sizeof *items);
        if (list->length) memcpy(items, list->items, list->length * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->length++] = item;
}

jinja_value sl_jinja_tuple(jinja *j, size_t n, const jinja_value *items) {
    jinja_value tuple = sl_jinja_list_new(j, n);
    for (size_t i = 0; i < n; i++) sl_jinja_list_push(j, tuple.as.list, items[i]);
    tuple.type = JINJA_TUPLE;
    return tuple;
}

jinja_value sl_jinja_bound(jinja *j, const char *name, jinja_builtin call, jinja_value self) {
    jinja_function *function = sl_jinja_alloc(j, sizeof *function);
    *function = (jinja_function){name, call, self};
    return (jinja_value){.type = JINJA_FUNCTION, .as.function = function};
}

/* ---------------------------------------------------------------- dictionaries */

enum { INDEX_FROM = 9 }; /* entries from which on a hash index is worth its room */

jinja_value sl_jinja_dict_new(jinja *j) {
    return (jinja_value){.type = JINJA_DICT, .as.dict = sl_jinja_alloc(j, sizeof(jinja_dict))};
}

static size_t find_entry(jinja *j, const jinja_dict *dict, jinja_value key, uint64_t hash) {
    if (!dict->index) {
        for (size_t i = 0; i < dict->length; i++)
            if (dict->hashes[i] == hash && sl_jinja_equal(j, dict->keys[i], key)) return i;
        return SIZE_MAX;
    }
    size_t mask = dict->index_size - 1;
    for (size_t slot = hash & mask; dict->index[slot]; slot = (slot + 1) & mask) {
        size_t i = dict->index[slot] - 1;
        if (dict->hashes[i] == hash && sl_jinja_equal(j, dict->keys[i], key)) return i;
    }
    return SIZE_MAX;
}

static void insert_index(jinja_dict *dict, size_t entry) {
    size_t mask = dict->index_size - 1, slot = dict->hashes[entry] & mask;
    while (dict->index[slot]) slot = (slot + 1) & mask;
    dict->index[slot] = (uint32_t)entry + 1;
}

static void grow(jinja *j, jinja_dict *dict) {
    size_t capacity = dict->capacity ? dict->capacity * 2 : 8;
    if (capacity > UINT32_MAX / 4) sl_jinja_fail_limit(j, "memory, bytes", j->arena->limit);
    jinja_value *keys = sl_jinja_array(j, capacity, sizeof *keys),
                *values = sl_jinja_array(j, capacity, sizeof *values);
    uint64_t *hashes = sl_jinja_array(j, capacity, sizeof *hashes);
    if (dict->length) {
        memcpy(keys, dict->keys, dict->length * sizeof *keys);
        memcpy(values, dict->values, dict->length * sizeof *values);
        memcpy(hashes, dict->hashes, dict->length * sizeof *hashes);
    }
    dict->keys = keys;
    dict->values = values;
    dict->hashes = hashes;
    dict->capacity = capacity;
    if (capacity < INDEX_FROM) return;
    dict->index_size = capacity * 2;
    dict->index = sl_jinja_array(j, dict->index_size, sizeof *dict->index);
    for (size_t i = 0; i < dict->length; i++) insert_index(dict, i);
}

void sl_jinja_dict_set(jinja *j, jinja_dict *dict, jinja_value key, jinja_value value) {
    uint64_t hash = sl_jinja_hash(j, key);
    size_t entry = find_entry(j, dict, key, hash);
    if (entry != SIZE_MAX) {
        dict->values[entry] = value;
        return;
    }
    if (dict->length == dict->capacity) grow(j, dict);
    dict->keys[dict->length] = key;
    dict->values[dict->length] = value;
    dict->hashes[dict->length++] = hash;
    if (dict->index) insert_index(dict, dict->length - 1);
}

jinja_value *sl_jinja_dict_get(jinja *j, const jinja_dict *dict, jinja_value key) {
    uint64_t hash = sl_jinja_hash(j, key);
    size_t entry = find_entry(j, dict, key, hash);
    return entry == SIZE_MAX ? NULL : &dict->values[entry];
}

jinja_value *sl_jinja_dict_get_text(jinja *j, const jinja_dict *dict, const char *key) {
    jinja_string string = {key, strlen(key), count_chars(key, strlen(key))};
    return sl_jinja_dict_get(j, dict, (jinja_value){.type = JINJA_STRING, .as.string = &string});
}

/* ---------------------------------------------------------------- JSON */

jinja_value sl_jinja_from_json(jinja *j, const sl_json *json) {
    switch (json->type) {
    case SL_JSON_NULL: return sl_jinja_none;
    case SL_JSON_BOOL: return sl_jinja_bool(json->boolean);
    case SL_JSON_STRING: return sl_jinja_str(j, json->text, json->length);
    case SL_JSON_NUMBER: {
        double number;
        if (sl_json_is_integer(json)) {
            jinja_value integer = sl_jinja_parse_int(j, json->text, json->length, 10);
            if (integer.type != JINJA_MISSING) return integer;
        }
        if (!sl_jinja_parse_float(j, json->text, json->length, &number))
            sl_jinja_fail(j, "ValueError", "a number in the variables cannot be read");
        return sl_jinja_float(number);
    }
    case SL_JSON_ARRAY:
    case SL_JSON_OBJECT: break;
    }
    sl_jinja_enter(j);
    jinja_value made = json->type == SL_JSON_ARRAY ? sl_jinja_list_new(j, json->length) : sl_jinja_dict_new(j);
    for (const sl_json *child = json->first; child; child = child->next) {
        jinja_value value = sl_jinja_from_json(j, child);
        if (json->type == SL_JSON_ARRAY) sl_jinja_list_push(j, made.as.list, value);
        else sl_jinja_dict_set(j, made.as.dict, sl_jinja_str(j, child->key, child->key_length), value);
    }
    sl_jinja_leave(j);
    return made;
}

/* ---------------------------------------------------------------- undefined */

static jinja_value undefined(jinja *j, jinja_undefined what) {
    jinja_undefined *made = sl_jinja_alloc(j, sizeof *made);
    *made = what;
    if (!made->kind) made->kind = "UndefinedError";
    return (jinja_value){.type = JINJA_UNDEFINED, .as.undefined = made};
}

jinja_value sl_jinja_undefined_name(jinja *j, jinja_value name) {
    return undefined(j, (jinja_undefined){.name = name});
}

jinja_value sl_jinja_undefined_attribute(jinja *j, jinja_value object, jinja_value name) {
    return undefined(j, (jinja_undefined){.of_object = true, .object = object, .name = name});
}

jinja_value sl_jinja_undefined_hint(jinja *j, const char *hint) {
    return undefined(j, (jinja_undefined){.hint = hint});
}

jinja_value sl_jinja_undefined_unsafe(jinja *j, jinja_value object, const char *name) {
    jinja_text text = {.j = j};
    sl_jinja_text_printf(&text, "access to attribute '%.200s' of '%s' object is unsafe.", name,
                         sl_jinja_type_name(object));
    sl_jinja_text_putc(&text, 0);
    return undefined(j, (jinja_undefined){.hint = text.data, .kind = "SecurityError"});
}

noreturn void sl_jinja_fail_undefined(jinja *j, jinja_value value) {
    const jinja_undefined *what = value.as.undefined;
    if (what->hint) sl_jinja_fail(j, what->kind, "%s", what->hint);
    jinja_text text = {.j = j};
    if (!what->of_object) {
        sl_jinja_write_repr(&text, what->name);
        sl_jinja_text_puts(&text, " is undefined");
    } else {
        bool none = what->object.type == JINJA_NONE, named = jinja_is_str(what->name);
        const char *quote = named ? "'" : "";
        sl_jinja_text_printf(&text, none ? "%sNone%s" : "%s%s object%s", quote,
                             none ? quote : sl_jinja_type_name(what->object), quote);
        sl_jinja_text_puts(&text, named ? " has no attribute " : " has no element ");
        sl_jinja_write_repr(&text, what->name);
    }
    sl_jinja_text_putc(&text, 0);
    sl_jinja_fail(j, what->kind, "%s", text.data);
}
