/* Safetensors, single or sharded (NAME.safetensors.index.json), mapped read-only.
 * Format: the safetensors README. Overlaps, holes, sizes that do not match shape x type are errors. */
#ifndef SL_FORMAT_SAFETENSORS_H
#define SL_FORMAT_SAFETENSORS_H

#include "base/json.h"
#include "sllm.h"
#include "tensor/tensor.h"

typedef struct sl_safetensors sl_safetensors;

/* Opens a .safetensors file, or with a .index.json all shards it names (plain names of files beside it). Everything is
 * validated here. SLLM_ERROR_NOT_FOUND: a file or shard is missing; _FORMAT: damaged; _UNSUPPORTED: an element type or
 * a number of dimensions that tensor/types.h or sl_tensor cannot say. */
sllm_status sl_safetensors_open(const char *path, sl_safetensors **file, sllm_error *error);
/* One file, over memory that outlives the handle (tests, fuzzing). */
sllm_status sl_safetensors_open_memory(const void *data, size_t size, sl_safetensors **file, sllm_error *error);
void sl_safetensors_close(sl_safetensors *file); /* NULL is allowed */

/* Tensors of all shards, in one array; index < count. Borrowed from the handle, as are their names and data. */
size_t sl_safetensors_count(const sl_safetensors *file);
const sl_tensor *sl_safetensors_at(const sl_safetensors *file, size_t index);
const sl_tensor *sl_safetensors_get(const sl_safetensors *file, const char *name); /* NULL: absent */
const sl_json *sl_safetensors_metadata(const sl_safetensors *file); /* __metadata__ of the first shard, NULL: none */
uint64_t sl_safetensors_file_bytes(const sl_safetensors *file);     /* all shards */
/* Path of shard `index`, in the order in which they were opened; NULL past the end. Borrowed. */
const char *sl_safetensors_path(const sl_safetensors *file, size_t index);
/* Lets the pages of data go (sl_mapping_let_go) where they are of this file; memory elsewhere is left alone. */
void sl_safetensors_let_go(const sl_safetensors *file, const void *data, uint64_t size);
bool sl_safetensors_holds(const sl_safetensors *file, const void *data); /* does it lie in one of the files? */

/* Streaming writer of one or more tensors, declared first, written in order; a temporary file until _finish. */
typedef struct sl_safetensors_writer sl_safetensors_writer;
/* tensors [count]: name, type and shape count; data is not read. */
sllm_status sl_safetensors_writer_new(const char *path, const sl_tensor *tensors, size_t count,
                                      sl_safetensors_writer **writer, sllm_error *error);
/* The next bytes of the declared tensors, in any portions. After a failure every later write and _finish fail too. */
sllm_status sl_safetensors_writer_write(sl_safetensors_writer *writer, const void *data, size_t bytes,
                                        sllm_error *error);
/* Makes the file appear under its name. SLLM_ERROR_ARGUMENT when declared bytes were not written. Frees the writer and,
 * on failure, removes the temporary file. */
sllm_status sl_safetensors_writer_finish(sl_safetensors_writer *writer, sllm_error *error);
void sl_safetensors_writer_abandon(sl_safetensors_writer *writer); /* frees and removes; NULL is allowed */

#endif
