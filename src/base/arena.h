/* Memory that is freed all at once. Allocations are 16-byte aligned and zeroed. Not thread-safe. */
#ifndef SL_BASE_ARENA_H
#define SL_BASE_ARENA_H

#include <stddef.h>

typedef struct sl_arena_block sl_arena_block;

/* Zero-initialise: `sl_arena a = {0};` */
typedef struct sl_arena {
    sl_arena_block *head;
    size_t bytes; /* handed out so far */
    size_t limit; /* 0: none; otherwise an allocation that would pass it fails */
} sl_arena;

void *sl_arena_alloc(sl_arena *arena, size_t size);                 /* NULL when memory or the limit runs out */
void *sl_arena_array(sl_arena *arena, size_t count, size_t size);   /* the same, count * size checked */
char *sl_arena_copy(sl_arena *arena, const char *text, size_t length); /* adds a NUL */
void sl_arena_free(sl_arena *arena);                                /* and makes it usable again */

#endif
