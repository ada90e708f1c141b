/* What folder.c and the writers of the layouts share. */
#ifndef SL_QUANT_FOLDER_INT_H
#define SL_QUANT_FOLDER_INT_H

#include "base/arena.h"
#include "base/buffer.h"
#include "format/safetensors.h"
#include "model/weights.h"
#include "quant/folder.h"

enum { SL_FOLDER_PARTS = 8 };

/* A tensor of the source and what is written for it. */
typedef struct sl_folder_item {
    const sl_tensor *source;
    bool is_quantised;
    int layer;                        /* -1: of no block */
    int vector;                       /* a norm or bias that takes AWQ's scales up: its place in folder.c's list; -1: none */
    sl_tensor parts[SL_FOLDER_PARTS]; /* [n_parts] names, types and shapes; only the source's own where it is copied */
    int n_parts;
} sl_folder_item;

typedef struct sl_folder {
    sl_model *model;
    const sl_folder_params *params;
    sl_folder_item *items;            /* [n], in the order of writing */
    size_t n;
    sl_safetensors_writer *writer;
    sl_solve *solve;                  /* NULL without a method */
    sl_folder_result *result;
    sl_arena arena;
    sllm_error *error;
} sl_folder;

/* One more part of an item: its name (the source's without `cut`, and `suffix`), type and shape [rows, columns], or
 * [rows] where columns is 0. False: out of memory. */
bool sl_folder_part(sl_folder *f, sl_folder_item *item, const char *cut, const char *suffix, sl_type type, int64_t rows, int64_t columns);

/* The parts of a quantised matrix declared, and written; quantization_config's object. */
sllm_status sl_folder_bnb_parts(sl_folder *f, sl_folder_item *item);
sllm_status sl_folder_bnb_write(sl_folder *f, const sl_folder_item *item);
void sl_folder_bnb_config(const sl_folder *f, sl_buffer *out);
sl_target sl_folder_ints_target(const sl_folder *f);
sllm_status sl_folder_ints_parts(sl_folder *f, sl_folder_item *item);
sllm_status sl_folder_ints_write(sl_folder *f, const sl_folder_item *item);
void sl_folder_ints_config(const sl_folder *f, sl_buffer *out);

/* The products of a mixture's blocks that stay as they are (routers), by their names within a block: names
 * [returned]. What reads these folders would otherwise take them for quantised. */
enum { SL_FOLDER_SKIPPED = 2 };
int sl_folder_skipped(const sl_folder *f, char names[SL_FOLDER_SKIPPED][SL_NAME_SIZE]);
/* The same as a JSON list with lm_head; null where there are none, which means lm_head too. */
void sl_folder_put_skipped(const sl_folder *f, sl_buffer *out);

/* "bfloat16", "float16", "float32": what torch calls the source's type. */
const char *sl_folder_dtype(sl_type type);

#endif
