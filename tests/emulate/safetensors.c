/* The reading functions of format/safetensors.h that test_types uses, for targets without the JSON library: for the one
 * committed file of reference vectors, whose header is plain JSON without escapes. Nothing is checked. */
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, NAME_BYTES = 64 };

struct sl_safetensors {
    char *bytes;
    size_t count;
    sl_tensor tensors[MOST];
    char names[MOST][NAME_BYTES];
};

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size);
    if (bytes && fread(bytes, 1, (size_t)size, file) != (size_t)size) bytes[0] = 0;
    fclose(file);
    return bytes;
}

/* "NAME":{"dtype":"F32","shape":[..],"data_offsets":[from,to]} at the quote before NAME. */
static void read_entry(sl_safetensors *file, const char *entry, const char *data) {
    sl_tensor *t = &file->tensors[file->count];
    char *name = file->names[file->count++];
    int length = (int)strcspn(entry + 1, "\"");
    snprintf(name, NAME_BYTES, "%.*s", length, entry + 1);
    unsigned long long from, to;
    sscanf(strstr(entry, "\"data_offsets\""), "\"data_offsets\":%*[ []%llu,%llu", &from, &to);
    *t = (sl_tensor){.name = name, .data = data + from, .bytes = to - from, .n_elements = 1};
    const char *p = strstr(entry, "\"shape\"") + 7;
    for (p += strspn(p, ": ["); *p != ']' && *p; p += strspn(p, ", ")) t->n_elements *= strtoull(p, (char **)&p, 10);
}

sllm_status sl_safetensors_open(const char *path, sl_safetensors **out, sllm_error *error) {
    sl_safetensors *file = *out = calloc(1, sizeof *file);
    if (!file || !(file->bytes = read_file(path))) {
        snprintf(error->message, sizeof error->message, "%s: cannot read it", path);
        return SLLM_ERROR_IO;
    }
    uint64_t header;
    memcpy(&header, file->bytes, 8);
    const char *data = file->bytes + 8 + header;
    char *text = strndup(file->bytes + 8, header);
    for (char *at = strstr(text, "\"dtype\""); at && file->count < MOST; at = strstr(at + 1, "\"dtype\"")) {
        char *entry = at;
        while (*entry != '{') entry--;
        for (int quotes = 0; quotes < 2;) quotes += *--entry == '"';
        read_entry(file, entry, data);
    }
    free(text);
    return SLLM_OK;
}

void sl_safetensors_close(sl_safetensors *file) {
    if (!file) return;
    free(file->bytes);
    free(file);
}

size_t sl_safetensors_count(const sl_safetensors *file) { return file->count; }
const sl_tensor *sl_safetensors_at(const sl_safetensors *file, size_t index) { return &file->tensors[index]; }
const sl_tensor *sl_safetensors_get(const sl_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (!strcmp(file->names[i], name)) return &file->tensors[i];
    return NULL;
}
