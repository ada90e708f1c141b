/* Reading safetensors. One file is
 *
 *     u64 N (little-endian)   N bytes of JSON   the tensors' bytes
 *
 * where the JSON maps each name to {"dtype", "shape", "data_offsets": [begin, end)} with offsets from the end of the
 * JSON, and "__metadata__" to strings. The tensors must tile the data without holes or overlaps, as the format demands
 * (README of the safetensors repository). A sharded checkpoint is a NAME.safetensors.index.json whose "weight_map" says
 * which file beside it holds which tensor. */
#include "format/safetensors.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/map.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 100 * 1000 * 1000, /* the format's own limit */
    MAX_INDEX = 100 * 1000 * 1000,
    MAX_TREE = 1 << 30              /* bytes of parsed JSON: a tree is larger than its text */
};

/* One file. */
typedef struct shard {
    const char *path; /* in messages */
    sl_mapping mapping;
    const unsigned char *data;
    size_t size;
    const sl_json *metadata;
    sl_tensor *tensors;
    size_t n_tensors;
    sl_arena arena; /* JSON, tensors */
} shard;

struct sl_safetensors {
    shard *shards;
    size_t n_shards;
    sl_tensor *tensors; /* of all shards */
    size_t n_tensors;
    sl_map names;   /* tensor name -> index in tensors */
    sl_arena arena; /* paths, index, tensors */
};

static void shard_close(shard *s) {
    sl_arena_free(&s->arena);
    sl_mapping_close(&s->mapping);
}

void sl_safetensors_close(sl_safetensors *file) {
    if (!file) return;
    for (size_t i = 0; i < file->n_shards; i++) shard_close(&file->shards[i]);
    free(file->shards);
    sl_map_free(&file->names);
    sl_arena_free(&file->arena);
    free(file);
}

/* ---- one tensor */

static sllm_status parse_shape(const shard *s, const sl_json *shape, sl_tensor *tensor, sllm_error *error) {
    if (!shape || shape->type != SL_JSON_ARRAY)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s': no \"shape\" array", s->path, tensor->name);
    if (shape->length > sizeof tensor->shape / sizeof *tensor->shape)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: tensor '%.200s': %zu dimensions; up to 8 are read", s->path,
                       tensor->name, shape->length);
    tensor->n_dims = (int)shape->length;
    tensor->n_elements = 1;
    bool empty = false; /* [huge, huge, 0] has no elements, but its other products must still not overflow */
    for (size_t i = 0; i < shape->length; i++) {
        int64_t extent;
        if (!sl_json_int64(shape->items[i], &extent) || extent < 0)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s': dimension %zu of \"shape\" is no size",
                           s->path, tensor->name, i);
        tensor->shape[i] = extent;
        if (!extent) empty = true;
        else if (!sl_mul_u64(tensor->n_elements, (uint64_t)extent, &tensor->n_elements) ||
                 tensor->n_elements > INT64_MAX)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s': the product of its dimensions overflows",
                           s->path, tensor->name);
    }
    if (empty) tensor->n_elements = 0;
    return SLLM_OK;
}

static sllm_status parse_tensor(const shard *s, const sl_json *member, uint64_t data_start, sl_tensor *tensor,
                                sllm_error *error) {
    tensor->name = member->key;
    const sl_json *offsets = sl_json_get(member, "data_offsets");
    const char *type = sl_json_string(sl_json_get(member, "dtype"));
    int64_t begin, end;
    if (memchr(member->key, 0, member->key_length) || !member->key_length)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: a tensor's name is empty or holds a NUL: '%.200s'", s->path,
                       member->key);
    if (member->type != SL_JSON_OBJECT || !type)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s': no \"dtype\"", s->path, tensor->name);
    if (!sl_type_from_safetensors(type, &tensor->type))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "%s: tensor '%.200s': element type \"%.40s\" is not one this build reads", s->path, tensor->name,
                       type);
    sllm_status status = parse_shape(s, sl_json_get(member, "shape"), tensor, error);
    if (status) return status;
    if (!sl_json_int64(sl_json_at(offsets, 0), &begin) || !sl_json_int64(sl_json_at(offsets, 1), &end) ||
        offsets->length != 2 || begin < 0 || end < begin)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s': \"data_offsets\" are no [begin, end]", s->path,
                       tensor->name);
    if (!sl_type_bytes(tensor->type, tensor->n_elements, &tensor->bytes) ||
        tensor->bytes != (uint64_t)end - (uint64_t)begin)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: tensor '%.200s': \"data_offsets\" span %" PRId64 " bytes, but its %" PRIu64
                       " elements of type %s do not take that many",
                       s->path, tensor->name, end - begin, tensor->n_elements, type);
    if ((uint64_t)end > s->size - data_start)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: tensor '%.200s': needs %" PRIu64 " bytes at offset %" PRId64
                       " of the data, which begin at %" PRIu64
                       ", but the file ends at %zu: it is damaged or was not downloaded whole",
                       s->path, tensor->name, tensor->bytes, begin, data_start, s->size);
    tensor->data = s->data + data_start + begin;
    return SLLM_OK;
}

/* ---- one file */

static int by_address(const void *a, const void *b) {
    const sl_tensor *x = *(const sl_tensor *const *)a, *y = *(const sl_tensor *const *)b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1; /* an empty tensor before the one that begins there */
    return x < y ? -1 : x > y;
}

/* The tensors must cover the data exactly: nothing twice, nothing unaccounted for. */
static sllm_status check_tiling(shard *s, uint64_t data_start, sllm_error *error) {
    const sl_tensor **sorted = sl_arena_array(&s->arena, s->n_tensors, sizeof *sorted);
    if (!sorted) return sl_fail_memory(error, s->path, 0);
    for (size_t i = 0; i < s->n_tensors; i++) sorted[i] = &s->tensors[i];
    if (s->n_tensors) qsort(sorted, s->n_tensors, sizeof *sorted, by_address);
    const unsigned char *at = s->data + data_start;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const unsigned char *begin = sorted[i]->data;
        if (begin < at)
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensors '%.200s' and '%.200s' overlap", s->path,
                           sorted[i - 1]->name, sorted[i]->name);
        if (begin > at)
            return sl_fail(error, SLLM_ERROR_FORMAT,
                           "%s: %td bytes before tensor '%.200s' belong to no tensor, which the format forbids",
                           s->path, begin - at, sorted[i]->name);
        at = begin + sorted[i]->bytes;
    }
    if (at != s->data + s->size)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: the last %td bytes belong to no tensor, which the format forbids", s->path,
                       s->data + s->size - at);
    return SLLM_OK;
}

static bool is_metadata(const sl_json *member) {
    static const char key[] = "__metadata__";
    return member->key_length == sizeof key - 1 && !memcmp(member->key, key, sizeof key - 1);
}

static sllm_status parse_tensors(shard *s, const sl_json *root, uint64_t data_start, sllm_error *error) {
    sl_map seen = {.seed = sl_map_seed_random()};
    sllm_status status = SLLM_OK;
    s->tensors = sl_arena_array(&s->arena, root->length, sizeof *s->tensors);
    if (!s->tensors || !sl_map_reserve(&seen, root->length)) status = sl_fail_memory(error, s->path, 0);
    for (const sl_json *member = root->first; member && !status; member = member->next) {
        uint64_t other;
        if (sl_map_get(&seen, member->key, member->key_length, &other))
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s' is there twice", s->path, member->key);
        else if (!sl_map_put(&seen, member->key, member->key_length, 0))
            status = sl_fail_memory(error, s->path, 0);
        else if (!is_metadata(member))
            status = parse_tensor(s, member, data_start, &s->tensors[s->n_tensors++], error);
        else if (member->type == SL_JSON_OBJECT)
            s->metadata = member;
        else
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: \"__metadata__\" is no object", s->path);
    }
    sl_map_free(&seen);
    return status;
}

/* Parses the bytes that s already points at. */
static sllm_status shard_parse(shard *s, sllm_error *error) {
    uint64_t header;
    if (s->size < sizeof header)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: %zu bytes are too few for a safetensors file", s->path, s->size);
    memcpy(&header, s->data, sizeof header);
    if (header > MAX_HEADER)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: not a safetensors file, or damaged: the header claims %" PRIu64
                       " bytes; the format allows %d",
                       s->path, header, MAX_HEADER);
    if (header > s->size - sizeof header)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: the header claims %" PRIu64 " bytes but the file ends at %zu: it is damaged or was not "
                       "downloaded whole",
                       s->path, header, s->size);
    const char *text = (const char *)s->data + sizeof header;
    if (!header || text[0] != '{')
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: not a safetensors file: the header does not begin with '{'",
                       s->path);
    const sl_json *root;
    s->arena.limit = MAX_TREE;
    sllm_status status = sl_json_parse(&s->arena, text, header, s->path, &root, error);
    if (!status && root->type != SL_JSON_OBJECT)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: the header is no JSON object", s->path);
    uint64_t data_start = sizeof header + header;
    if (!status) status = parse_tensors(s, root, data_start, error);
    return status ? status : check_tiling(s, data_start, error);
}

static sllm_status shard_open(shard *s, const char *path, sllm_error *error) {
    s->path = path;
    sllm_status status = sl_mapping_open(path, &s->mapping, error);
    if (status) return status;
    s->data = s->mapping.data;
    s->size = s->mapping.size;
    return shard_parse(s, error);
}

/* ---- an index and its shards */

/* Shard names come from a file: they must name files beside the index and nothing else. */
static bool plain_file_name(const sl_json *name) {
    const char *text = sl_json_string(name); /* NULL when it holds NUL */
    return text && *text && !strchr(text, '/') && !strchr(text, '\\') && strcmp(text, ".") && strcmp(text, "..");
}

static sllm_status check_weight_map(const char *path, const sl_json *weight_map, sl_map *numbers, sllm_error *error) {
    if (!weight_map || weight_map->type != SL_JSON_OBJECT || !weight_map->length)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: no \"weight_map\" object with tensors", path);
    for (const sl_json *member = weight_map->first; member; member = member->next) {
        uint64_t number;
        if (!plain_file_name(member))
            return sl_fail(error, SLLM_ERROR_FORMAT,
                           "%s: \"weight_map\" must name a file beside it for tensor '%.200s', not '%.200s'", path,
                           member->key, member->type == SL_JSON_STRING ? member->text : "(not a string)");
        if (!sl_map_get(numbers, member->text, member->length, &number) &&
            !sl_map_put(numbers, member->text, member->length, numbers->count))
            return sl_fail_memory(error, path, 0);
    }
    return SLLM_OK;
}

static sllm_status open_shards(sl_safetensors *file, const char *index_path, const sl_json *weight_map,
                               sllm_error *error) {
    const char *slash = strrchr(index_path, '/');
    size_t directory = slash ? (size_t)(slash - index_path) + 1 : 0;
    sl_map opened = {.seed = sl_map_seed_random()};
    sllm_status status = SLLM_OK;
    for (const sl_json *member = weight_map->first; member && !status; member = member->next) {
        uint64_t number;
        if (sl_map_get(&opened, member->text, member->length, &number)) continue;
        char *path = sl_arena_alloc(&file->arena, directory + member->length + 1);
        if (!path || !sl_map_put(&opened, member->text, member->length, 0)) {
            status = sl_fail_memory(error, index_path, 0);
            break;
        }
        memcpy(path, index_path, directory);
        memcpy(path + directory, member->text, member->length);
        if (!sl_path_is_file(path))
            status = sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: shard '%s' is missing (%s)", index_path, member->text,
                             path);
        else status = shard_open(&file->shards[file->n_shards++], path, error);
    }
    sl_map_free(&opened);
    return status;
}

/* ---- putting together */

static sllm_status add_tensor(sl_safetensors *file, const shard *s, const sl_tensor *tensor, sllm_error *error) {
    size_t length = strlen(tensor->name);
    uint64_t other;
    if (sl_map_get(&file->names, tensor->name, length, &other))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s' is in another shard too", s->path, tensor->name);
    if (!sl_map_put(&file->names, tensor->name, length, file->n_tensors)) return sl_fail_memory(error, s->path, 0);
    file->tensors[file->n_tensors++] = *tensor;
    return SLLM_OK;
}

/* Gathers the tensors of all shards. `numbers` maps a shard's name to its number and is NULL without an index. Where
 * the index names a shard for a tensor, a copy of it in another shard does not count. */
static sllm_status collect_tensors(sl_safetensors *file, const sl_json *weight_map, const sl_map *numbers,
                                   sllm_error *error) {
    sl_map mapped = {.seed = sl_map_seed_random()}; /* tensor name -> number of its shard */
    sllm_status status = SLLM_OK;
    size_t total = 0;
    for (size_t i = 0; i < file->n_shards; i++) total += file->shards[i].n_tensors;
    file->tensors = sl_arena_array(&file->arena, total, sizeof *file->tensors);
    if (!file->tensors || !sl_map_reserve(&file->names, total)) status = sl_fail_memory(error, "safetensors", 0);
    for (const sl_json *member = weight_map ? weight_map->first : NULL; member && !status; member = member->next) {
        uint64_t number = 0;
        sl_map_get(numbers, member->text, member->length, &number);
        if (!sl_map_put(&mapped, member->key, member->key_length, number))
            status = sl_fail_memory(error, "safetensors", 0);
    }
    for (size_t i = 0; i < file->n_shards && !status; i++) {
        const shard *s = &file->shards[i];
        for (size_t j = 0; j < s->n_tensors && !status; j++) {
            uint64_t number = i;
            sl_map_get(&mapped, s->tensors[j].name, strlen(s->tensors[j].name), &number);
            if (number == i) status = add_tensor(file, s, &s->tensors[j], error);
        }
    }
    sl_map_free(&mapped);
    return status;
}

static sllm_status open_index(sl_safetensors *file, const char *path, sllm_error *error) {
    sl_buffer text = {0};
    sl_map numbers = {.seed = sl_map_seed_random()};
    const sl_json *root = NULL, *weight_map = NULL;
    sllm_status status = sl_file_read(path, MAX_INDEX, &text, error);
    if (!status) status = sl_json_parse(&file->arena, text.data, text.length, path, &root, error);
    if (!status) {
        weight_map = sl_json_get(root, "weight_map");
        status = check_weight_map(path, weight_map, &numbers, error);
    }
    if (!status) {
        file->shards = calloc(numbers.count, sizeof *file->shards);
        status = file->shards ? open_shards(file, path, weight_map, error) : sl_fail_memory(error, path, 0);
    }
    if (!status) status = collect_tensors(file, weight_map, &numbers, error);
    for (const sl_json *member = weight_map ? weight_map->first : NULL; member && !status; member = member->next)
        if (!sl_safetensors_get(file, member->key))
            status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: tensor '%.200s' is not in '%.200s', where the index has it",
                             path, member->key, member->text);
    sl_map_free(&numbers);
    sl_buffer_free(&text);
    return status;
}

static sl_safetensors *safetensors_new(size_t n_shards) {
    sl_safetensors *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    file->names.seed = sl_map_seed_random();
    file->arena.limit = MAX_TREE;
    if (n_shards && !(file->shards = calloc(n_shards, sizeof *file->shards))) {
        free(file);
        return NULL;
    }
    return file;
}

sllm_status sl_safetensors_open(const char *path, sl_safetensors **out, sllm_error *error) {
    bool is_index = sl_ends_with(path, ".index.json");
    sllm_status status = SLLM_OK;
    *out = NULL;
    sl_safetensors *file = safetensors_new(is_index ? 0 : 1);
    if (!file) return sl_fail_memory(error, path, 0);
    if (is_index) {
        status = open_index(file, path, error);
    } else {
        file->n_shards = 1;
        const char *copy = sl_arena_copy(&file->arena, path, strlen(path));
        status = copy ? shard_open(&file->shards[0], copy, error) : sl_fail_memory(error, path, 0);
        if (!status) status = collect_tensors(file, NULL, NULL, error);
    }
    if (status) sl_safetensors_close(file);
    else *out = file;
    return status;
}

sllm_status sl_safetensors_open_memory(const void *data, size_t size, sl_safetensors **out, sllm_error *error) {
    *out = NULL;
    sl_safetensors *file = safetensors_new(1);
    if (!file) return sl_fail_memory(error, "safetensors", 0);
    file->n_shards = 1;
    file->shards[0].path = "safetensors in memory";
    file->shards[0].data = data;
    file->shards[0].size = size;
    sllm_status status = shard_parse(&file->shards[0], error);
    if (!status) status = collect_tensors(file, NULL, NULL, error);
    if (status) sl_safetensors_close(file);
    else *out = file;
    return status;
}

/* ---- access */

size_t sl_safetensors_count(const sl_safetensors *file) { return file->n_tensors; }
const sl_tensor *sl_safetensors_at(const sl_safetensors *file, size_t index) { return &file->tensors[index]; }

const sl_tensor *sl_safetensors_get(const sl_safetensors *file, const char *name) {
    uint64_t index;
    return sl_map_get(&file->names, name, strlen(name), &index) ? &file->tensors[index] : NULL;
}

const sl_json *sl_safetensors_metadata(const sl_safetensors *file) { return file->shards[0].metadata; }

const char *sl_safetensors_path(const sl_safetensors *file, size_t index) {
    return index < file->n_shards ? file->shards[index].path : NULL;
}

bool sl_safetensors_holds(const sl_safetensors *file, const void *data) {
    const unsigned char *at = data;
    for (size_t i = 0; i < file->n_shards; i++) {
        const sl_mapping *m = &file->shards[i].mapping;
        if (m->data && at >= m->data && at < m->data + m->size) return true;
    }
    return false;
}

void sl_safetensors_let_go(const sl_safetensors *file, const void *data, uint64_t size) {
    if (sl_safetensors_holds(file, data)) sl_mapping_let_go(data, size);
}

uint64_t sl_safetensors_file_bytes(const sl_safetensors *file) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < file->n_shards; i++) bytes += file->shards[i].size;
    return bytes;
}
