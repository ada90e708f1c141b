/* The public handles over the rooms below.
 *
 * A public sllm_model is an sl_model under its public name: the struct behind `sllm_model` is never defined, and the
 * two functions here are the only way from one pointer to the other. So a model made by a room (sl_model_load) can be
 * handed out and taken back without a wrapper to allocate.
 */
#ifndef SL_API_HANDLES_H
#define SL_API_HANDLES_H

#include "model/model.h"
#include "sllm.h"

/* The room's view of a public handle. NULL stays NULL. The public const is kept by the second form. */
static inline sl_model *sl_model_of(sllm_model *model) { return (sl_model *)(void *)model; }
static inline const sl_model *sl_model_of_const(const sllm_model *model) {
    return (const sl_model *)(const void *)model;
}

/* The public handle of a room's model. */
static inline sllm_model *sl_model_public(sl_model *model) { return (sllm_model *)(void *)model; }

#endif
