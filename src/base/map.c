#include "base/map.h"

#include "base/checked.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A multiply-and-fold hash over eight bytes at a time; the seed keeps crafted keys from colliding. */
static uint32_t hash_of(const char *key, size_t length, uint64_t seed) {
    uint64_t h = seed ^ (length * 0x9e3779b97f4a7c15u);
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        key += 8;
        length -= 8;
    }
    uint64_t tail = 0;
    memcpy(&tail, key, length);
    h = (h ^ tail) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 29;
    h *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

static sl_map_slot *find(const sl_map *map, const char *key, size_t length, uint32_t hash) {
    for (size_t i = hash & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1)) {
        sl_map_slot *slot = &map->slots[i];
        if (!slot->key) return slot;
        if (slot->hash == hash && slot->length == length && !memcmp(slot->key, key, length)) return slot;
    }
}

bool sl_map_reserve(sl_map *map, size_t count) {
    size_t needed;
    if (!sl_mul_size(count, 2, &needed)) return false;
    size_t capacity = 16;
    while (capacity < needed) capacity *= 2;
    if (capacity <= map->capacity) return true;
    sl_map bigger = {.slots = calloc(capacity, sizeof(sl_map_slot)), .capacity = capacity, .count = map->count,
                     .seed = map->seed};
    if (!bigger.slots) return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].key)
            *find(&bigger, map->slots[i].key, map->slots[i].length, map->slots[i].hash) = map->slots[i];
    free(map->slots);
    *map = bigger;
    return true;
}

bool sl_map_put(sl_map *map, const char *key, size_t length, uint64_t value) {
    if (length > UINT32_MAX || !sl_map_reserve(map, map->count + 1)) return false;
    uint32_t hash = hash_of(key, length, map->seed);
    sl_map_slot *slot = find(map, key, length, hash);
    if (!slot->key) {
        *slot = (sl_map_slot){.key = key, .length = (uint32_t)length, .hash = hash};
        map->count++;
    }
    slot->value = value;
    return true;
}

bool sl_map_get(const sl_map *map, const char *key, size_t length, uint64_t *value) {
    if (!map->count) return false;
    const sl_map_slot *slot = find(map, key, length, hash_of(key, length, map->seed));
    if (!slot->key) return false;
    *value = slot->value;
    return true;
}

void sl_map_free(sl_map *map) {
    free(map->slots);
    *map = (sl_map){.seed = map->seed};
}

uint64_t sl_map_seed_random(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed) { /* early in a boot: the clock must do */
        double now = sl_clock();
        memcpy(&seed, &now, sizeof seed);
    }
    return seed;
}
