/* What packed.c and the readers of the single formats share. */
#ifndef SL_MODEL_PACKED_INT_H
#define SL_MODEL_PACKED_INT_H

#include "model/packed.h"

typedef struct sl_packed_reader {
    const sl_safetensors *file;
    const sl_json *config;  /* quantization_config */
    sl_pool *pool;
    sl_arena *arena;
    sllm_error *error;
} sl_packed_reader;

/* The tensor base + suffix; NULL: absent. */
const sl_tensor *sl_packed_part(const sl_packed_reader *r, const char *base, const char *suffix);
/* Room for a matrix [rows, columns] of `type` named base + ".weight". */
sllm_status sl_packed_make(const sl_packed_reader *r, const char *base, sl_type type, int64_t rows, int64_t columns,
                           sl_tensor *out);

/* Joins the parts of one matrix. */
sllm_status sl_packed_gptq(const sl_packed_reader *r, const char *base, sl_tensor *out);
sllm_status sl_packed_awq(const sl_packed_reader *r, const char *base, sl_tensor *out);
sllm_status sl_packed_bnb4(const sl_packed_reader *r, const char *base, sl_tensor *out);
sllm_status sl_packed_bnb8(const sl_packed_reader *r, const char *base, sl_tensor *out);

#endif
