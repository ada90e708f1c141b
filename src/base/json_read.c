/* The tree over yajl. yajl does not check its own allocations, so it allocates from an arena of ours and a failure leaves
 * the parser by longjmp; everything is freed with the arenas. */
#include "base/json.h"

#include "base/error.h"
#include "base/number.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum { MAX_DEPTH = 512 };

typedef struct builder {
    sl_arena *arena;
    jmp_buf out_of_memory;
    sl_json *root;
    struct level {
        sl_json *node, *last;
    } levels[MAX_DEPTH];
    int depth;
    const char *key;
    size_t key_length;
    bool too_deep;
} builder;

/* A free-standing heap for yajl: sizes are kept before each block so that realloc knows what to copy. */
typedef struct heap {
    void **blocks;
    size_t count, capacity;
    builder *builder;
} heap;

static void *heap_realloc(void *context, void *old, size_t size) {
    heap *h = context;
    size_t *block = old ? (size_t *)old - 2 : NULL;
    size_t slot = block ? block[0] : h->count;
    if (size > SIZE_MAX - 2 * sizeof(size_t)) longjmp(h->builder->out_of_memory, 1);
    if (!block && h->count == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 16;
        void **blocks = realloc(h->blocks, capacity * sizeof *blocks);
        if (!blocks) longjmp(h->builder->out_of_memory, 1);
        h->blocks = blocks;
        h->capacity = capacity;
    }
    size_t *moved = realloc(block, size + 2 * sizeof(size_t));
    if (!moved) longjmp(h->builder->out_of_memory, 1);
    moved[0] = slot;
    h->blocks[slot] = moved;
    if (!block) h->count++;
    return moved + 2;
}

static void *heap_malloc(void *context, size_t size) { return heap_realloc(context, NULL, size); }

static void heap_free(void *context, void *memory) {
    heap *h = context;
    if (!memory) return;
    size_t *block = (size_t *)memory - 2;
    size_t slot = block[0];
    free(block);
    h->count--; /* the last block takes the free slot */
    if (slot != h->count) {
        h->blocks[slot] = h->blocks[h->count];
        *(size_t *)h->blocks[slot] = slot;
    }
}

static void heap_clear(heap *h) {
    for (size_t i = 0; i < h->count; i++) free(h->blocks[i]);
    free(h->blocks);
}

static sl_json *add_node(builder *b, sl_json_type type) {
    sl_json *node = sl_arena_alloc(b->arena, sizeof *node);
    if (!node) longjmp(b->out_of_memory, 1);
    node->type = type;
    if (!b->depth) {
        b->root = node;
        return node;
    }
    struct level *level = &b->levels[b->depth - 1];
    if (level->node->type == SL_JSON_OBJECT) {
        node->key = b->key;
        node->key_length = b->key_length;
    }
    if (level->last) level->last->next = node;
    else level->node->first = node;
    level->last = node;
    level->node->length++;
    return node;
}

static const char *copy_text(builder *b, const void *text, size_t length) {
    char *copy = sl_arena_copy(b->arena, text, length);
    if (!copy) longjmp(b->out_of_memory, 1);
    return copy;
}

static int on_null(void *context) {
    add_node(context, SL_JSON_NULL);
    return 1;
}

static int on_bool(void *context, int value) {
    add_node(context, SL_JSON_BOOL)->boolean = value;
    return 1;
}

static int on_text(builder *b, sl_json_type type, const void *text, size_t length) {
    sl_json *node = add_node(b, type);
    node->text = copy_text(b, text, length);
    node->length = length;
    return 1;
}

static int on_number(void *context, const char *text, size_t length) {
    return on_text(context, SL_JSON_NUMBER, text, length);
}

static int on_string(void *context, const unsigned char *text, size_t length) {
    return on_text(context, SL_JSON_STRING, text, length);
}

static int on_key(void *context, const unsigned char *text, size_t length) {
    builder *b = context;
    b->key = copy_text(b, text, length);
    b->key_length = length;
    return 1;
}

static int open_level(builder *b, sl_json_type type) {
    if (b->depth == MAX_DEPTH) {
        b->too_deep = true;
        return 0;
    }
    sl_json *node = add_node(b, type);
    b->levels[b->depth++] = (struct level){node, NULL};
    return 1;
}

static int on_open_object(void *context) { return open_level(context, SL_JSON_OBJECT); }
static int on_open_array(void *context) { return open_level(context, SL_JSON_ARRAY); }

static int on_close(void *context) {
    builder *b = context;
    sl_json *node = b->levels[--b->depth].node;
    node->items = sl_arena_array(b->arena, node->length, sizeof *node->items);
    if (!node->items) longjmp(b->out_of_memory, 1);
    size_t i = 0;
    for (sl_json *child = node->first; child; child = child->next) node->items[i++] = child;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,           .yajl_boolean = on_bool,       .yajl_number = on_number,
    .yajl_string = on_string,       .yajl_start_map = on_open_object, .yajl_map_key = on_key,
    .yajl_end_map = on_close,       .yajl_start_array = on_open_array, .yajl_end_array = on_close,
};

/* yajl's message is a sentence on its first line; line and column come from where it stopped. */
static sllm_status fail_at(yajl_handle parser, const builder *b, const char *text, size_t length, const char *what,
                           sllm_error *error) {
    size_t at = yajl_get_bytes_consumed(parser), line = 1, column = 1;
    if (at > length) at = length;
    for (size_t i = 0; i < at; i++) {
        column++;
        if (text[i] == '\n') line++, column = 1;
    }
    char reason[160] = "nesting deeper than 512";
    if (!b->too_deep) {
        unsigned char *said = yajl_get_error(parser, 0, (const unsigned char *)text, length);
        snprintf(reason, sizeof reason, "%s", said);
        reason[strcspn(reason, "\n")] = 0;
        yajl_free_error(parser, said);
    }
    sllm_status status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: line %zu, column %zu: %s", what, line, column, reason);
    if (error) error->line = line > INT_MAX ? 0 : (int)line;
    return status;
}

static sllm_status parse(builder *b, heap *h, const char *text, size_t length, const char *what, sllm_error *error) {
    yajl_alloc_funcs functions = {.malloc = heap_malloc, .realloc = heap_realloc, .free = heap_free, .ctx = h};
    if (setjmp(b->out_of_memory)) return sl_fail_memory(error, what, 0);
    yajl_handle parser = yajl_alloc(&callbacks, &functions, b);
    yajl_status parsed = yajl_parse(parser, (const unsigned char *)text, length);
    if (parsed == yajl_status_ok) parsed = yajl_complete_parse(parser);
    if (parsed != yajl_status_ok) return fail_at(parser, b, text, length, what, error);
    if (!b->root) return sl_fail(error, SLLM_ERROR_FORMAT, "%s: no JSON value", what);
    return SLLM_OK;
}

/* The value of the four hex digits of a \uXXXX escape at text, or -1 when there is none. */
static long escape_at(const char *text, const char *end) {
    unsigned value;
    int used = 0;
    if (end - text < 6 || text[0] != '\\' || text[1] != 'u') return -1;
    char digits[5] = {text[2], text[3], text[4], text[5], 0};
    return sscanf(digits, "%4x%n", &value, &used) == 1 && used == 4 ? (long)value : -1;
}

/* yajl turns half a surrogate pair into '?' or into bytes that are not UTF-8. Here it becomes U+FFFD, by rewriting the
 * escape in a copy. *copy stays NULL when nothing has to change; false: out of memory. */
static bool mend_surrogates(const char *text, size_t length, char **copy) {
    const char *end = text + length;
    *copy = NULL;
    for (const char *at = text; at < end && (at = memchr(at, '\\', (size_t)(end - at)));) {
        long unit = escape_at(at, end);
        bool high = unit >= 0xd800 && unit < 0xdc00, low = unit >= 0xdc00 && unit < 0xe000;
        long next = high ? escape_at(at + 6, end) : -1;
        bool paired = high && next >= 0xdc00 && next < 0xe000;
        if (low || (high && !paired)) {
            if (!*copy) {
                if (!(*copy = malloc(length))) return false;
                memcpy(*copy, text, length);
            }
            memcpy(*copy + (at - text) + 2, "fffd", 4);
        }
        at += paired ? 12 : unit >= 0 ? 6 : at + 1 < end ? 2 : 1;
    }
    return true;
}

sllm_status sl_json_parse(sl_arena *arena, const char *text, size_t length, const char *what, const sl_json **root,
                          sllm_error *error) {
    *root = NULL;
    builder *b = calloc(1, sizeof *b);
    if (!b) return sl_fail_memory(error, what, sizeof *b);
    b->arena = arena;
    heap h = {.builder = b};
    char *mended;
    sllm_status status = mend_surrogates(text, length, &mended)
                             ? parse(b, &h, mended ? mended : text, length, what, error)
                             : sl_fail_memory(error, what, length);
    if (!status) *root = b->root;
    heap_clear(&h);
    free(mended);
    free(b);
    return status;
}

const sl_json *sl_json_get(const sl_json *object, const char *key) {
    const sl_json *found = NULL;
    size_t length = strlen(key);
    if (!object || object->type != SL_JSON_OBJECT) return NULL;
    for (const sl_json *member = object->first; member; member = member->next)
        if (member->key_length == length && !memcmp(member->key, key, length)) found = member;
    return found;
}

const sl_json *sl_json_get_path(const sl_json *root, const char *path) {
    while (root && *path) {
        char key[128];
        size_t length = strcspn(path, ".");
        if (length >= sizeof key) return NULL;
        memcpy(key, path, length);
        key[length] = 0;
        root = sl_json_get(root, key);
        path += length + (path[length] == '.');
    }
    return root;
}

const sl_json *sl_json_at(const sl_json *array, size_t index) {
    return array && array->type == SL_JSON_ARRAY && index < array->length ? array->items[index] : NULL;
}

bool sl_json_is_integer(const sl_json *value) {
    return value && value->type == SL_JSON_NUMBER && !strpbrk(value->text, ".eE");
}

bool sl_json_int64(const sl_json *value, int64_t *out) {
    if (!sl_json_is_integer(value)) return false;
    errno = 0;
    long long n = strtoll(value->text, NULL, 10);
    if (errno) return false;
    *out = n;
    return true;
}

bool sl_json_double(const sl_json *value, double *out) {
    if (!value || value->type != SL_JSON_NUMBER) return false;
    *out = sl_strtod(value->text, NULL);
    return true;
}

bool sl_json_bool(const sl_json *value, bool *out) {
    if (!value || value->type != SL_JSON_BOOL) return false;
    *out = value->boolean;
    return true;
}

const char *sl_json_string(const sl_json *value) {
    if (!value || value->type != SL_JSON_STRING || memchr(value->text, 0, value->length)) return NULL;
    return value->text;
}
