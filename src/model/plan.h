/* What a model will take, from its configuration alone: walks the same roles and operators as binding and forward
 * do. */
#ifndef SL_MODEL_PLAN_H
#define SL_MODEL_PLAN_H

#include "model/config.h"
#include "model/weights.h"
#include "tensor/ops.h"

/* Names of quantisations that a plan can be made for, NULL-terminated: single types, and llama.cpp's mixes. */
const char *const *sl_plan_types(void);

/* What weights take in memory once all has been used, and what computing asks of them. Quantised matrices are counted
 * in the packed form that `fast` arithmetic multiplies (tensor/pack.h), rows that are only looked up as the few that a
 * text uses. */
typedef struct sl_footprint {
    uint64_t weights_bytes;
    uint64_t file_bytes;       /* of the tensors as a file holds them */
    uint64_t body_bytes;       /* read by a forward whatever the tokens: all blocks but for routed experts */
    uint64_t expert_bytes;     /* all routed experts, of which a token reads experts_used / experts */
    uint64_t head_bytes;       /* read for logits */
    uint64_t body_macs[2];     /* multiply-adds a token: [0] in f32, [1] in int8; routed experts included */
    uint64_t head_macs[2];     /* the same for one row of logits */
    bool overflow;             /* more than can be counted */
} sl_footprint;

/* Of a file's own tensors. */
void sl_plan_tensors(const sl_tensors *tensors, const sl_config *config, bool exact, sl_footprint *footprint);

/* As if the matrices were in `type` (one of sl_plan_types): norms, biases, router and learned positions
 * stay f32; the mixes give some roles a wider type, and a row length that a type's blocks do not divide falls back,
 * both as llama.cpp's quantiser does. SLLM_ERROR_ARGUMENT lists the names when type is none of them. */
sllm_status sl_plan_weights(const sl_config *config, const char *type, bool exact, sl_footprint *footprint,
                            sllm_error *error);

/* Bytes of weights that one forward of n tokens (of any sequences) reads, n_logits of them giving logits; routed experts
 * as many as n independent tokens choose on average. */
uint64_t sl_footprint_bytes(const sl_footprint *footprint, const sl_config *config, int n, int n_logits);
/* Bytes of keys and values that a query at `position` reads, and the f32 multiply-adds it costs. */
uint64_t sl_attention_bytes(const sl_config *config, sl_kv_type type, int position);
uint64_t sl_attention_macs(const sl_config *config, int position);

/* Bytes that the vocabulary takes once loaded (an estimate, see plan.c), and the program itself with its libraries. */
uint64_t sl_plan_vocabulary_bytes(int n_vocab);
uint64_t sl_plan_program_bytes(void);

/* A forward's speed on a machine (an estimate, see plan.c): tokens a second of n_batch sequences that each generate one
 * at `position`, all together; and of a prompt of n tokens. */
double sl_plan_generate_speed(const sl_footprint *footprint, const sl_config *config, sl_kv_type type, int position,
                              int n_batch, const sllm_machine_speed *speed);
double sl_plan_prompt_speed(const sl_footprint *footprint, const sl_config *config, int n,
                            const sllm_machine_speed *speed);

/* What a batch (infer/engine.h) holds beside keys and values: rows of logits beyond one a sequence, and the bytes of a
 * sequence's sampler for each token of the vocabulary. The room above asserts both. */
enum { SL_PLAN_SPARE_ROWS = 8, SL_PLAN_SAMPLER = 36 };

/* What a whole plan is made from: a configuration, and its tensors where there are any (neither: `type` must be given). */
typedef struct sl_plan_subject {
    const sl_config *config;
    sl_tensors tensors;
    bool exact;
    int n_threads;
} sl_plan_subject;

/* All of sllm_plan but what the machine has free. The second reads a file's headers. */
sllm_status sl_plan_make(const sl_plan_subject *subject, const sllm_plan_params *params, sllm_plan *plan,
                         sllm_error *error);
sllm_status sl_plan_file(const char *path, const sllm_plan_params *params, sllm_plan *plan, sllm_error *error);

#endif
