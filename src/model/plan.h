/* What a model will take, from its configuration alone: walks the same roles and operators as binding and forward
 * do. */
#ifndef SL_MODEL_PLAN_H
#define SL_MODEL_PLAN_H

#include "model/config.h"

/* Names of quantisations that a plan can be made for, NULL-terminated: single types, and llama.cpp's mixes. */
const char *const *sl_plan_types(void);

/* Bytes of all weights with the matrices in `type` (one of sl_plan_types): norms, biases, router and learned positions
 * stay f32; the mixes give some roles a wider type, and a row length that a type's blocks do not divide falls back,
 * both as llama.cpp's quantiser does. SLLM_ERROR_ARGUMENT lists the names when type is none of them. */
sllm_status sl_plan_weights(const sl_config *config, const char *type, uint64_t *bytes, sllm_error *error);

#endif
