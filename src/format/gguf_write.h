/* GGUF v3 written tensor by tensor. The file appears under its name when it is complete; until then it grows beside it,
 * and a run that was killed is taken up again after the last tensor that was finished.
 * Format: the GGUF specification in the ggml repository (docs/gguf.md). */
#ifndef SL_FORMAT_GGUF_WRITE_H
#define SL_FORMAT_GGUF_WRITE_H

#include "base/buffer.h"
#include "format/gguf.h"
#include "tensor/tensor.h"

/* Metadata being put together. Zero-initialise; check bytes.failed once at the end; free with sl_gguf_fields_free. A key
 * that is put twice is the caller's mistake (SLLM_ERROR_ARGUMENT from sl_gguf_writer_new). */
typedef struct sl_gguf_fields {
    sl_buffer bytes;
    uint64_t count;
} sl_gguf_fields;

void sl_gguf_put_u16(sl_gguf_fields *fields, const char *key, uint16_t value);
void sl_gguf_put_u32(sl_gguf_fields *fields, const char *key, uint32_t value);
void sl_gguf_put_i32(sl_gguf_fields *fields, const char *key, int32_t value);
void sl_gguf_put_u64(sl_gguf_fields *fields, const char *key, uint64_t value);
void sl_gguf_put_f32(sl_gguf_fields *fields, const char *key, float value);
void sl_gguf_put_bool(sl_gguf_fields *fields, const char *key, bool value);
void sl_gguf_put_string(sl_gguf_fields *fields, const char *key, const char *text, size_t length);
void sl_gguf_put_strings(sl_gguf_fields *fields, const char *key, const char *const *items, const size_t *lengths,
                         size_t count); /* lengths NULL: NUL-terminated */
void sl_gguf_put_i32s(sl_gguf_fields *fields, const char *key, const int32_t *items, size_t count);
void sl_gguf_put_f32s(sl_gguf_fields *fields, const char *key, const float *items, size_t count);
void sl_gguf_put_bools(sl_gguf_fields *fields, const char *key, const bool *items, size_t count);
void sl_gguf_put_value(sl_gguf_fields *fields, const char *key, const sl_gguf_value *value); /* as read from a file */
void sl_gguf_fields_free(sl_gguf_fields *fields);

/* The right to write a file, taken before the work whose result it will hold: no other run may write it meanwhile, and what
 * would keep it from being written is said first. */
typedef struct sl_gguf_claim {
    char *path;     /* as given */
    char *target;   /* the file that it leads to, which is replaced */
    char *journal;  /* TARGET.part.journal, locked: what of TARGET.part is finished */
    int fd;
} sl_gguf_claim;

/* SLLM_ERROR_IO and _NOT_FOUND: a folder or device of that name, a file or folder that may not be written or is not there,
 * another run that writes the file. is_split: `path` is only what the parts' names are made from. */
sllm_status sl_gguf_claim_take(const char *path, bool is_split, sl_gguf_claim *claim, sllm_error *error);
/* After the writer has ended. What was finished for a later run stays. A zero claim is allowed. */
void sl_gguf_claim_drop(sl_gguf_claim *claim);

typedef struct sl_gguf_writer sl_gguf_writer;

typedef struct sl_gguf_writer_params {
    uint64_t split_bytes; /* > 0: parts NAME-00001-of-0000N.gguf of at most so many bytes (header and one tensor at
                             least each), with split.no, split.count and split.tensors.count as llama.cpp reads them */
    const char *recipe;   /* what the contents depend on beyond the header (source hash, options): an unfinished file is
                             taken up only when header and recipe are the same. NULL: never */
    const sl_gguf_claim *claim; /* of the path, outlives the writer; NULL: none is kept, and nothing is ever taken up */
    const sl_gguf *source;      /* read meanwhile, so not to be replaced (SLLM_ERROR_ARGUMENT); may be NULL */
} sl_gguf_writer_params;

/* tensors [count]: name, type and shape count, in the order in which they will be written; data is not read. `path` is
 * the final name ("m.gguf"; with several parts the parts' names are made from it). *n_done: how many tensors an earlier
 * run has finished: writing goes on with tensors[*n_done]. Failures: SLLM_ERROR_IO (path, disk), _ARGUMENT. */
sllm_status sl_gguf_writer_new(const char *path, const sl_gguf_fields *fields, const sl_tensor *tensors, size_t count,
                               const sl_gguf_writer_params *params, sl_gguf_writer **writer, size_t *n_done,
                               sllm_error *error);
/* The next bytes of the tensors, in any portions; alignment is filled in. A finished tensor is on record for a later
 * run. After a failure every later write and _finish fail too. */
sllm_status sl_gguf_writer_write(sl_gguf_writer *writer, const void *data, size_t bytes, sllm_error *error);
/* Makes the file, or all parts, appear; removes the record. Frees the writer. */
sllm_status sl_gguf_writer_finish(sl_gguf_writer *writer, sllm_error *error);
/* Frees. keep: leaves what was finished for a later run (interrupt, full disk); otherwise everything is removed. */
void sl_gguf_writer_abandon(sl_gguf_writer *writer, bool keep);

/* Bytes of all the file's parts, header included. */
uint64_t sl_gguf_writer_bytes(const sl_gguf_writer *writer);

#endif
