/* A trie over bytes, its edges in one table by (node, byte): adding keys, and the longest one that begins a text. */
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

static bool trie_grow_edges(sl_trie *trie) {
    size_t capacity = trie->edges ? (trie->mask + 1) * 2 : 64;
    void *memory = calloc(capacity, sizeof *trie->edges);
    if (!memory) return false;
    sl_trie old = *trie;
    trie->edges = memory;
    trie->mask = capacity - 1;
    for (size_t k = 0; old.edges && k <= old.mask; k++) {
        if (!old.edges[k].key) continue;
        size_t i = sl_hash_mix(old.edges[k].key, trie->seed) & trie->mask;
        while (trie->edges[i].key) i = (i + 1) & trie->mask;
        trie->edges[i] = old.edges[k];
    }
    free(old.edges);
    return true;
}

static uint32_t trie_new_node(sl_trie *trie) {
    if (trie->n_nodes == trie->capacity) {
        size_t capacity = trie->capacity ? trie->capacity * 2 : 64;
        if (capacity > INT32_MAX) return 0;
        int32_t *values = realloc(trie->values, capacity * sizeof *values);
        if (!values) return 0;
        trie->values = values;
        trie->capacity = capacity;
    }
    trie->values[trie->n_nodes] = -1;
    return (uint32_t)trie->n_nodes++;
}

bool sl_trie_add(sl_trie *trie, const char *key, size_t length, int32_t value) {
    if (!trie->n_nodes) {
        trie->seed = sl_hash_seed();
        trie_new_node(trie); /* the root */
        if (!trie->n_nodes || !trie_grow_edges(trie)) return false;
    }
    uint32_t node = 0;
    for (size_t k = 0; k < length; k++) {
        unsigned char byte = (unsigned char)key[k];
        uint32_t child = sl_trie_step(trie, node, byte);
        if (!child) {
            if ((trie->n_edges + 1) * 2 > trie->mask && !trie_grow_edges(trie)) return false;
            child = trie_new_node(trie);
            if (!child) return false;
            if (node == 0) {
                trie->root[byte] = child;
            } else {
                uint64_t edge = ((uint64_t)node << 8 | byte) + 1;
                size_t i = sl_hash_mix(edge, trie->seed) & trie->mask;
                while (trie->edges[i].key) i = (i + 1) & trie->mask;
                trie->edges[i].key = edge;
                trie->edges[i].child = child;
                trie->n_edges++;
            }
        }
        node = child;
    }
    trie->values[node] = value;
    return true;
}

void sl_trie_free(sl_trie *trie) {
    free(trie->edges);
    free(trie->values);
    memset(trie, 0, sizeof *trie);
}

size_t sl_trie_longest(const sl_trie *trie, const char *text, size_t length, int32_t *value) {
    uint32_t node = 0;
    size_t best = 0;
    for (size_t k = 0; k < length; k++) {
        node = sl_trie_step(trie, node, (unsigned char)text[k]);
        if (!node) break;
        if (trie->values[node] >= 0) {
            best = k + 1;
            *value = trie->values[node];
        }
    }
    return best;
}
