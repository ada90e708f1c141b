/* The batch engine: many answers computed together. The contract is sllm_batch's in include/sllm.h.
 *
 * One thread owns the engine: it steps, and in its steps all callbacks run. Any thread may add and cancel. A step is
 * one forward over rows of many timelines: of every answer under way its next token, and with the rows that are left
 * pieces of prompts, oldest first. Both have their share of every step, so neither waits for the other to end.
 *
 * A request is let in when the pool has the pages that its prompt and its longest answer will need beside what was
 * promised to others, so none ever has to be thrown out; timelines in the prefix cache make room. Requests are let in
 * in the order they came. One whose prompt begins as that of another that is still being computed waits for it, as
 * sharing the pages is sooner done than computing them twice.
 *
 * What a row gives does not depend on the rows beside it, nor on where its earlier pages came from (model/model.h), so
 * every answer is the same bytes as sllm_generate's. A failure of one request ends that one alone. */
#ifndef SL_INFER_ENGINE_H
#define SL_INFER_ENGINE_H

#include "infer/prefix.h"
#include "infer/speculate.h"

#include <pthread.h>
#include <stdatomic.h>

/* One request, from sl_engine_add to its end. */
typedef struct sl_request {
    struct sl_request *next; /* of those waiting */
    uint64_t id;
    int32_t *ids;            /* [n] the prompt as given */
    size_t n;
    sllm_generate_params params;
    sllm_batch_done done;
    atomic_bool cancelled;
    bool begun, shares;      /* shares: its pages may come from another timeline and go to one */
    sl_turn turn;            /* from here on: begun */
    sllm_generation out;
    sl_speculator speculator; /* by look-up, while it is alone */
    sl_want want;
    sl_kv *kv;
    sllm_status status;      /* of the step at hand */
    sllm_error error;
} sl_request;

/* The public sllm_batch is this struct. */
typedef struct sllm_batch sl_engine;
struct sllm_batch {
    const sl_model *model;
    int n_ctx, n_sequences, n_rows, n_logits;
    bool caches;
    sl_cancel cancel;   /* asked in the middle of a step */
    sl_kv_pool *pool;
    sl_work *work;
    float *logits;      /* [n_logits, n_vocab] */
    sl_part *parts;     /* [n_sequences] of the step at hand */
    int *part_of;       /* [n_sequences] which of those running a part is of */
    int *before;        /* [n_sequences] how long a part's timeline was before the step */
    int n_parts;
    double seconds;     /* that the last forward took */
    sl_request **running; /* [n_sequences], oldest first */
    int n_running;
    int first;          /* who is served first in the next step */
    sl_prefix_cache prefixes;
    sllm_batch_stats stats;
    pthread_mutex_t lock; /* guards what follows, and running against readers in other threads */
    pthread_cond_t changed;
    bool lock_made;
    sl_request *head, *tail; /* waiting */
    int n_waiting;
    uint64_t last_id;
    bool woken;         /* something was added or cancelled since the last step */
};

/* params: n_pages 0 is one full context for each sequence. */
typedef struct sl_engine_params {
    int n_ctx, n_sequences, n_rows, n_pages;
    sllm_kv_type kv_type;
    bool no_prefix_cache;
    sl_cancel cancel;
} sl_engine_params;

/* Checks and sets defaults. *page_bytes: what a page of keys and values takes; *n_pages: those of one context. */
sllm_status sl_engine_check(const sl_model *model, sl_engine_params *params, uint64_t *page_bytes, int *n_pages,
                            sllm_error *error);
/* params as sl_engine_check left them. */
sllm_status sl_engine_new(const sl_model *model, const sl_engine_params *params, sl_engine **engine, sllm_error *error);
void sl_engine_free(sl_engine *engine);

sllm_status sl_engine_add(sl_engine *engine, const int32_t *ids, size_t n, const sllm_generate_params *params,
                          sllm_batch_done done, uint64_t *id, sllm_error *error);
bool sl_engine_cancel(sl_engine *engine, uint64_t id);
/* SLLM_ERROR_CANCELLED: params.cancel said so in its middle; no request has changed but for pieces of prompts. */
sllm_status sl_engine_step(sl_engine *engine, bool *more, sllm_error *error);
void sl_engine_wait(sl_engine *engine, double seconds);
void sl_engine_stats(sl_engine *engine, sllm_batch_stats *stats);

#endif
