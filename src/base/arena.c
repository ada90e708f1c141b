#include "base/arena.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK = 4096, LAST_BLOCK = 1 << 20 };

struct sl_arena_block {
    sl_arena_block *next;
    size_t used, size;
    _Alignas(ALIGNMENT) unsigned char data[];
};

static sl_arena_block *add_block(sl_arena *arena, size_t size) {
    size_t room = arena->head ? arena->head->size * 2 : FIRST_BLOCK;
    if (room > LAST_BLOCK) room = LAST_BLOCK;
    if (room < size) room = size;
    size_t bytes;
    if (!sl_add_size(room, sizeof(sl_arena_block), &bytes)) return NULL;
    sl_arena_block *block = calloc(1, bytes);
    if (!block) return NULL;
    block->size = room;
    block->next = arena->head;
    arena->head = block;
    return block;
}

void *sl_arena_alloc(sl_arena *arena, size_t size) {
    size_t rounded;
    if (!sl_add_size(size, ALIGNMENT - 1, &rounded)) return NULL;
    rounded &= ~(size_t)(ALIGNMENT - 1);
    if (arena->limit && (rounded > arena->limit || arena->bytes > arena->limit - rounded)) return NULL;
    sl_arena_block *block = arena->head;
    if (!block || block->size - block->used < rounded) block = add_block(arena, rounded);
    if (!block) return NULL;
    void *memory = block->data + block->used;
    block->used += rounded;
    arena->bytes += rounded;
    return memory;
}

void *sl_arena_array(sl_arena *arena, size_t count, size_t size) {
    size_t bytes;
    return sl_mul_size(count, size, &bytes) ? sl_arena_alloc(arena, bytes) : NULL;
}

char *sl_arena_copy(sl_arena *arena, const char *text, size_t length) {
    size_t bytes;
    char *copy = sl_add_size(length, 1, &bytes) ? sl_arena_alloc(arena, bytes) : NULL;
    if (copy && length) memcpy(copy, text, length);
    return copy;
}

void sl_arena_free(sl_arena *arena) {
    for (sl_arena_block *block = arena->head, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    arena->head = NULL;
    arena->bytes = 0;
}
