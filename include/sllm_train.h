/* sllm_train: teaching a model with low-rank adapters, on the very file that serves.
 *
 * The model is computed by the kernels that answer (or, loaded `exact`, in f32); the adapter and the optimiser are f32. What is
 * written is PEFT's folder. A run leaves checkpoints and can be gone on with, to the same bytes on the same instruction set.
 */
#ifndef SLLM_TRAIN_H
#define SLLM_TRAIN_H

#include "sllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* After each step of the optimiser. */
typedef struct sllm_train_event {
    int64_t step, total_steps;   /* step: from 1 */
    double epoch;                /* passes over the data so far */
    double loss;                 /* mean over the step's learned tokens, nats */
    double grad_norm;            /* before clipping */
    double learning_rate;        /* of this step */
    double tokens_per_second;    /* all tokens, of this step */
    double eval_loss;            /* after this step; NaN: not measured now */
    double seconds, seconds_left;
    uint64_t memory_bytes;       /* the most that the process has had */
} sllm_train_event;

typedef struct sllm_train_params {
    int rank;                    /* 0: 16 */
    double alpha;                /* 0: twice the rank */
    double dropout;              /* of what the adapter sees; negative: 0.05 */
    bool rslora, dora;
    const char *target;          /* NULL or "all-linear"; else last parts of modules' names, "q_proj,v_proj" */
    int batch, accumulation;     /* examples computed together, and how often before a step; 0: 4 and 4 */
    double epochs;               /* 0: 3 */
    double learning_rate;        /* 0: 2e-4 */
    double warmup;               /* share of the steps; negative: 0.03 */
    const char *schedule;        /* NULL or "cosine", "linear", "constant" */
    double weight_decay;         /* 0 */
    double max_grad_norm;        /* 0: 1; negative: no clipping */
    uint64_t seed;
    const char *format;          /* NULL or "template", "alpaca", "plain" */
    bool prompt_loss;            /* prompts are learned too */
    bool no_end;                 /* outputs outside a template end without the end-of-sequence token */
    int max_length;              /* tokens of an example; 0: 1024 or the model's context if that is shorter */
    const char *over_long;       /* NULL or "refuse", "truncate", "split" */
    double eval_split;           /* share of the examples that is measured and not learned; negative: 0.05 */
    int keep;                    /* checkpoints kept beside the best; 0: 2 */
    bool resume;                 /* go on from the newest checkpoint in the folder */
    const char *model_name, *data_name; /* what to call them in the records; NULL: the path, "data" */
    bool (*on_step)(void *user, const sllm_train_event *event); /* false ends the run after a checkpoint; may be NULL */
    void (*on_note)(void *user, const char *note); /* something to know that is no failure; may be NULL */
    void *user;
} sllm_train_params;

SLLM_API void sllm_train_params_init(sllm_train_params *params);

/* What a run will do, before it does it: a JSON object with trainable, total (parameters), examples, eval_examples, tokens, labels,
 * truncated, split, longest, steps, bytes (of memory beside the model), and example: [{"text", "learned"}], the first example token by
 * token. Errors as sllm_finetune's. The caller frees *json. */
SLLM_API sllm_status sllm_finetune_plan(sllm_model *model, const char *data, size_t length, const sllm_train_params *params, char **json,
                                        sllm_error *error);

/* Learns from JSON lines, data [length], into the folder `out`, which does not exist or is empty unless `resume`. The model must have no
 * session. It gets adapter_model.safetensors, adapter_config.json, sllm.json, metrics.jsonl, run.json and checkpoint-N folders.
 * SLLM_ERROR_ARGUMENT: a setting, over-long examples, a run to be gone on with that is another (model, data, settings).
 * SLLM_ERROR_FORMAT: a line of the data. SLLM_ERROR_CANCELLED: on_step ended it; a checkpoint is there. SLLM_ERROR_UNSUPPORTED: OpenBLAS
 * is missing; the loss is not finite (the last checkpoint is there). SLLM_ERROR_MEMORY: less memory is free than the plan's
 * bytes; the message says which batch would fit, and nothing was written. */
SLLM_API sllm_status sllm_finetune(sllm_model *model, const char *data, size_t length, const char *out, const sllm_train_params *params,
                                   sllm_error *error);

/* Adds an adapter folder (PEFT's form) to what the model computes, times `weight`. Before its first session; several add up.
 * SLLM_ERROR_FORMAT: made for another model. *verified (may be NULL): the adapter names this very model as its base; false: it names
 * none. SLLM_ERROR_ARGUMENT: it names another, and not `any_base`. */
SLLM_API sllm_status sllm_model_add_adapter(sllm_model *model, const char *path, float weight, bool any_base, bool *verified,
                                            sllm_error *error);

typedef struct sllm_merge_params {
    const char *type;            /* of the merged matrices: "F32", "F16", "BF16"; NULL: as they are stored */
    const char *text;            /* [text_length] on which the merged model is compared with the live adapters; NULL: a short one of ours */
    size_t text_length;
    double limit;                /* of the mean KL divergence, in nats; above it nothing is written. 0: 0.05; negative: none */
    int n_threads;               /* 0: all that the process may use */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* may be NULL; false cancels */
    void *user;
} sllm_merge_params;

SLLM_API void sllm_merge_params_init(sllm_merge_params *params);
/* Adapter folders [n_adapters], each times its weight (weights NULL: 1), merged into the GGUF file `in`, as the GGUF file `out`.
 * *report (may be NULL; the caller frees it): a JSON object with mean_kld, max_kld, top1_agreement (of the merged file against the live
 * adapters), limit, refused, merged (matrices), bytes_in, bytes_out. SLLM_ERROR_ARGUMENT: the divergence is above the limit (*report is
 * there all the same, refused true, and no file); another base, unless any_base. */
SLLM_API sllm_status sllm_merge(const char *in, const char *const *adapters, const float *weights, size_t n_adapters, bool any_base,
                                const char *out, const sllm_merge_params *params, char **report, sllm_error *error);

#ifdef __cplusplus
}
#endif

#endif
