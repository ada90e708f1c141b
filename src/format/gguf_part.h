/* One GGUF file as read: what gguf_part.c parses and gguf.c puts together. Private to the reader. */
#ifndef SL_FORMAT_GGUF_PART_H
#define SL_FORMAT_GGUF_PART_H

#include "base/arena.h"
#include "base/file.h"
#include "base/map.h"
#include "format/gguf.h"

typedef struct sl_gguf_entry {
    const char *key;
    sl_gguf_value value;
} sl_gguf_entry;

typedef struct sl_gguf_part {
    const char *path;    /* in messages; the arena's or the caller's */
    sl_mapping mapping;  /* zero where the bytes belong to the caller */
    const unsigned char *data;
    size_t size;
    uint32_t version;
    uint64_t alignment;  /* of tensor data */
    sl_gguf_entry *entries;
    size_t n_entries;
    sl_map keys;         /* key -> index in entries */
    sl_tensor *tensors;
    size_t n_tensors;
    sl_arena arena;      /* owns entries, tensors and their names */
} sl_gguf_part;

/* Parses and validates the bytes `part` already points at (path, data, size). After a failure the
 * part may be closed. */
sllm_status sl_gguf_part_parse(sl_gguf_part *part, sllm_error *error);
void sl_gguf_part_close(sl_gguf_part *part);
const sl_gguf_value *sl_gguf_part_find(const sl_gguf_part *part, const char *key); /* NULL: absent */

const char *sl_gguf_type_name(sl_gguf_type type);

#endif
