/* From byte strings to ids: open addressing, the keys in the vocabulary's pool. And the seed of all tables. */
#include "base/checked.h"
#include "base/map.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

uint64_t sl_hash_seed(void) { return sl_hash_mix(sl_map_seed_random() ^ 0xA0761D6478BD642Fu, 0x9E3779B97F4A7C15u) | 1; }

bool sl_strings_init(sl_strings *strings, size_t count) {
    size_t capacity = 16, needed;
    if (!sl_mul_size(count, 2, &needed)) return false;
    while (capacity < needed) capacity *= 2;
    strings->slots = malloc(capacity * sizeof *strings->slots);
    if (!strings->slots) return false;
    memset(strings->slots, 0xFF, capacity * sizeof *strings->slots);
    strings->mask = capacity - 1;
    strings->count = 0;
    strings->seed = sl_hash_seed();
    return true;
}

void sl_strings_put(sl_strings *strings, const char *pool, const sl_span *spans, int32_t id) {
    const char *key = pool + spans[id].offset;
    uint32_t length = spans[id].length;
    uint64_t hash = sl_hash_bytes(key, length, strings->seed);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & strings->mask;; i = (i + 1) & strings->mask) {
        int32_t other = strings->slots[i].id;
        if (other < 0) {
            strings->slots[i].tag = tag;
            strings->slots[i].id = id;
            strings->count++;
            return;
        }
        if (strings->slots[i].tag == tag && spans[other].length == length &&
            !memcmp(pool + spans[other].offset, key, length)) {
            strings->slots[i].id = id;
            return;
        }
    }
}

int32_t sl_strings_find(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                        size_t length) {
    if (!strings->slots) return -1;
    return sl_strings_find_hashed(strings, pool, spans, key, length, sl_hash_bytes(key, length, strings->seed));
}

int32_t sl_strings_find_hashed(const sl_strings *strings, const char *pool, const sl_span *spans, const char *key,
                               size_t length, uint64_t hash) {
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & strings->mask;; i = (i + 1) & strings->mask) {
        int32_t id = strings->slots[i].id;
        if (id < 0) return -1;
        if (strings->slots[i].tag == tag && spans[id].length == length && !memcmp(pool + spans[id].offset, key, length))
            return id;
    }
}
