/* A run of learning: examples in an order, steps, checkpoints, the record. */
#ifndef SL_TRAIN_TRAINER_H
#define SL_TRAIN_TRAINER_H

#include "sllm_train.h"
#include "train/adapter_write.h"
#include "train/data.h"
#include "train/optimiser.h"

typedef struct sl_trainer {
    sl_model *model;
    const sllm_train_params *params; /* with defaults filled in */
    sl_schedule schedule;
    sl_data_params data_params;
    const char *out;
    char data_sha256[65], fingerprint[65];
    sl_dataset data;
    int *train, *eval;        /* [n_train], [n_eval] indices of examples */
    int n_train, n_eval;
    int *order;               /* [n_train] of the epoch at hand */
    int64_t order_epoch;      /* -1: none yet */
    sl_adapter *adapter;
    sl_learner *learner;
    sl_adamw *adamw;
    int64_t steps_an_epoch, total, step;
    double best_eval;         /* infinite: none yet */
    int64_t best_step;
    double began;
    uint64_t tokens;
    sl_adapter_form form;
    char *own;                /* sllm.json */
    sllm_error *error;
} sl_trainer;

/* Reads the data, chooses what is measured and what learned, makes the adapter. fingerprint: of the model. After a failure
 * sl_trainer_close is still due. */
sllm_status sl_trainer_open(sl_trainer *t, sl_model *model, const char *fingerprint, const char *data, size_t length, const char *out,
                            const sllm_train_params *params, sllm_error *error);
void sl_trainer_close(sl_trainer *t);
/* Memory for learning; what sl_trainer_bytes said. */
sllm_status sl_trainer_prepare(sl_trainer *t);
uint64_t sl_trainer_bytes(const sl_trainer *t);
/* SLLM_ERROR_MEMORY: less than that is free; the message says which batch would fit. Before anything is written. */
sllm_status sl_trainer_check_memory(const sl_trainer *t);
sllm_status sl_trainer_run(sl_trainer *t);

/* checkpoint.c: the folder's records. */
sllm_status sl_trainer_begin_folder(sl_trainer *t);                /* run.json, or that it says the same */
sllm_status sl_trainer_checkpoint(sl_trainer *t);
sllm_status sl_trainer_resume(sl_trainer *t);                      /* from the newest checkpoint; none: from the beginning */
sllm_status sl_trainer_note(sl_trainer *t, const sllm_train_event *event); /* a line of metrics.jsonl */
sllm_status sl_trainer_finish_folder(sl_trainer *t);               /* the adapter itself */

#endif
