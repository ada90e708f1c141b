/* Files: read-only mappings, whole reads, and writes that appear only when complete. */
#ifndef SL_BASE_FILE_H
#define SL_BASE_FILE_H

#include "base/buffer.h"
#include "sllm.h"

#include <stdio.h>

typedef struct sl_mapping {
    const unsigned char *data;
    size_t size;
} sl_mapping;

sllm_status sl_mapping_open(const char *path, sl_mapping *mapping, sllm_error *error); /* regular files only */
void sl_mapping_close(sl_mapping *mapping);
/* Pages of a mapping that have been read and are not needed soon: without this a large file fills the process's memory.
 * data must lie in a mapping of sl_mapping_open, from which it is read again where it is looked at again. */
void sl_mapping_let_go(const void *data, uint64_t size);

/* Reads a whole regular file of at most `limit` bytes into *buffer (appended). */
sllm_status sl_file_read(const char *path, size_t limit, sl_buffer *buffer, sllm_error *error);
/* The same, gunzipped when the content starts with the gzip magic (several members: one after another; anything else
 * after them is SLLM_ERROR_FORMAT); `limit` bounds the unpacked size. */
sllm_status sl_file_read_gz(const char *path, size_t limit, sl_buffer *buffer, sllm_error *error);

/* A file being written. It appears when complete: a temporary file beside the target (the file that `path` leads to,
 * where it is a symbolic link), fsync, rename; the mode of an existing file is kept, and one that may not be written is
 * refused. What exists and is not a regular file (a device, a FIFO) is written to directly. */
typedef struct sl_output {
    int descriptor;
    char *path;               /* as given, for messages */
    char *target, *temporary; /* NULL when written directly */
} sl_output;

sllm_status sl_output_open(sl_output *output, const char *path, sllm_error *error); /* a failure leaves nothing */
sllm_status sl_output_write(sl_output *output, const void *data, size_t size, sllm_error *error);
/* Both end the output; a failed _finish, like _abandon, leaves the old file and no temporary one. */
sllm_status sl_output_finish(sl_output *output, sllm_error *error);
void sl_output_abandon(sl_output *output);

/* Writes a whole file as above. A failure (disk full) leaves the old file. */
sllm_status sl_file_write(const char *path, const void *data, size_t size, sllm_error *error);

/* The file that `path` leads to, or `path` itself where nothing is there yet: what takes its place must be renamed to that,
 * so that a link stays a link. The caller frees. SLLM_ERROR_IO: a link to nothing, or a file that may not be written. */
sllm_status sl_path_target(const char *path, char **target, sllm_error *error);
/* Do both lead to one file or folder that is there? */
bool sl_path_is_same(const char *a, const char *b);
bool sl_path_is_directory(const char *path);
bool sl_path_is_file(const char *path);
/* directory + "/" + name into the caller's buffer; false when it does not fit. */
bool sl_path_join(char *out, size_t size, const char *directory, const char *name);

#endif
