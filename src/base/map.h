/* A hash map from byte strings to 64-bit values. Keys are borrowed: they must outlive the map. Insertion only. */
#ifndef SL_BASE_MAP_H
#define SL_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sl_map_slot {
    const char *key;
    uint32_t length, hash;
    uint64_t value;
} sl_map_slot;

typedef struct sl_map {
    sl_map_slot *slots;
    size_t capacity, count;
    uint64_t seed; /* set it to a random value where keys come from outside, against crafted collisions */
} sl_map;

/* An unpredictable seed from the operating system. */
uint64_t sl_map_seed_random(void);
bool sl_map_reserve(sl_map *map, size_t count);
/* Sets key to value, replacing an older value. False: out of memory. */
bool sl_map_put(sl_map *map, const char *key, size_t length, uint64_t value);
/* False when absent; then *value is left alone. */
bool sl_map_get(const sl_map *map, const char *key, size_t length, uint64_t *value);
void sl_map_free(sl_map *map);

#endif
