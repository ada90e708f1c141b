/* What choosing a model of the catalogue is made of. */
#ifndef SL_HUB_CHOOSE_H
#define SL_HUB_CHOOSE_H

#include "hub/hub.h"
#include "model/config.h"

/* The configuration of a catalogue entry from its "shape", with what its family assumes where that is silent, as from a
 * config.json. SLLM_ERROR_NOT_FOUND when the entry has no shape. Arrays come from `arena`. */
sllm_status sl_shape_config(const sl_json *entry, sl_arena *arena, sl_config *config, sllm_error *error);

/* A task of the vocabulary, and the benchmarks that tell most about it. */
typedef struct sl_task {
    const char *name;           /* as in the catalogue */
    const char *synonyms[8];    /* NULL-terminated */
    const char *evidence[5];    /* names of benchmarks, without what stands in brackets; NULL-terminated */
    bool general;               /* models that chat can be asked for it, whether or not their makers say so */
} sl_task;

/* NULL: unknown. */
const sl_task *sl_task_find(const char *name);
/* "chat, code, ..." into out. */
void sl_task_list(char *out, size_t size);

/* Is a benchmark's name ("IFEval (strict prompt)") of this family ("IFEval")? */
bool sl_benchmark_is(const char *name, const char *family);
/* How a model stands: of the catalogue's other models that have a figure for one of the task's benchmarks, the share that
 * it is better than, averaged over the benchmarks. -1: it has none of the figures. */
double sl_task_standing(const sl_task *task, const sl_json *models, const sl_json *entry);

#endif
