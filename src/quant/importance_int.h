/* What importance.c measures and importance_file.c reads and writes. */
#ifndef SL_QUANT_IMPORTANCE_INT_H
#define SL_QUANT_IMPORTANCE_INT_H

#include "base/map.h"
#include "quant/importance.h"

typedef struct sl_importance_entry {
    const char *name;    /* of the tensor, "blk.0.ffn_down.weight" */
    int64_t n_columns;
    int n_matrices;      /* experts; 1 otherwise */
    float *sums;         /* [n_matrices, n_columns] of squares */
    float *counts;       /* [n_matrices] inputs seen */
    float *means;        /* [n_matrices, n_columns] */
} sl_importance_entry;

struct sl_importance {
    sl_importance_entry *entries;
    size_t n, capacity;
    sl_map names;
    sl_arena arena;      /* owns all but the list and the map */
    int n_chunks, chunk_size;
    char *dataset;       /* may be NULL */
};

sllm_status sl_importance_new(sl_importance **importance, sllm_error *error);
/* A new entry with room for its numbers, all zero; an entry of the name that is there already is SLLM_ERROR_FORMAT. */
sllm_status sl_importance_add(sl_importance *importance, const char *name, size_t length, int64_t n_columns,
                              int n_matrices, sl_importance_entry **entry, sllm_error *error);
/* Fills means from sums and counts. SLLM_ERROR_FORMAT: a number that is negative or not finite. */
sllm_status sl_importance_finish(sl_importance *importance, sllm_error *error);

#endif
