/* Safetensors, single or sharded (NAME.safetensors.index.json), mapped read-only.
 * Format: the safetensors README. Overlaps, holes at the end, sizes that do not match shape x type are errors. */
#ifndef SL_FORMAT_SAFETENSORS_H
#define SL_FORMAT_SAFETENSORS_H

#include "base/json.h"
#include "sllm.h"
#include "tensor/tensor.h"

typedef struct sl_safetensors sl_safetensors;

sllm_status sl_safetensors_open(const char *path, sl_safetensors **file, sllm_error *error); /* .safetensors or .index.json */
sllm_status sl_safetensors_open_memory(const void *data, size_t size, sl_safetensors **file, sllm_error *error);
void sl_safetensors_close(sl_safetensors *file);

size_t sl_safetensors_count(const sl_safetensors *file);
const sl_tensor *sl_safetensors_at(const sl_safetensors *file, size_t index);
const sl_tensor *sl_safetensors_get(const sl_safetensors *file, const char *name); /* NULL: absent */
const sl_json *sl_safetensors_metadata(const sl_safetensors *file); /* the __metadata__ object, NULL: none */
uint64_t sl_safetensors_file_bytes(const sl_safetensors *file);

/* Streaming writer of one or more tensors, declared first, written in order; a temporary file until _finish. */
typedef struct sl_safetensors_writer sl_safetensors_writer;
sllm_status sl_safetensors_writer_new(const char *path, const sl_tensor *tensors /* name, type, shape */, size_t count,
                                      sl_safetensors_writer **writer, sllm_error *error);
sllm_status sl_safetensors_writer_write(sl_safetensors_writer *writer, const void *data, size_t bytes, sllm_error *error);
sllm_status sl_safetensors_writer_finish(sl_safetensors_writer *writer, sllm_error *error); /* frees, success or not */
void sl_safetensors_writer_abandon(sl_safetensors_writer *writer);

#endif
