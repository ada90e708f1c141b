/* What each tensor's errors cost: how far the model's answers move when only this tensor is quantised. */
#ifndef SL_QUANT_SENSITIVITY_H
#define SL_QUANT_SENSITIVITY_H

#include "model/model.h"
#include "quant/quantise.h"

enum { SL_MAX_CHOICES = SL_TYPE_COUNT };

/* A type that a tensor can take, and what that is expected to cost. */
typedef struct sl_choice {
    sl_type type;
    uint64_t bytes;
    double loss; /* mean KL divergence against the source, in nats a token */
} sl_choice;

typedef struct sl_choices {
    sl_choice items[SL_MAX_CHOICES]; /* [n], bytes growing and loss falling: no choice is beaten by another */
    int n;                           /* 0: the tensor is not up for choice */
} sl_choices;

/* Fills choices [plan->n]. model: the plan's source, loaded; its matrices must be floats (SLLM_ERROR_ARGUMENT otherwise).
 * ids [n]: real text, at least 64 tokens. The KL divergence is measured with one type of four bits, for every tensor by
 * itself or, where that would take long, for the tensors of one role in neighbouring layers together; other types are
 * scaled from it by their squared errors, weighted by importance: the divergence of small errors grows with their square. */
sllm_status sl_sensitivity_measure(sl_model *model, const sl_quantise_plan *plan, const sl_quantise_params *params,
                                   const int32_t *ids, size_t n, sl_choices *choices, sllm_error *error);

/* Whether the item is up for choice, and the least that any type would make of it. */
bool sl_sensitivity_chooses(const sl_quantise_item *item);
uint64_t sl_sensitivity_least_bytes(const sl_quantise_item *item);

/* The choice for each tensor whose sum of losses is small while the sum of bytes stays within `budget`: the upgrade that
 * saves most for its bytes, again and again. chosen [n_tensors]: an index into its items. False when even the smallest
 * do not fit; *least is then what they take. */
bool sl_choose_types(const sl_choices *choices, size_t n_tensors, uint64_t budget, int *chosen, uint64_t *least);

#endif
