/* AdamW over an adapter's values, and what comes before a step: the norm of the gradients, and clipping.
 * Source: Loshchilov and Hutter 2019, arXiv 1711.05101, as torch.optim.AdamW computes it. */
#ifndef SL_TRAIN_OPTIMISER_H
#define SL_TRAIN_OPTIMISER_H

#include "train/gradients.h"

typedef struct sl_adamw_params {
    float beta1, beta2, eps, weight_decay;
} sl_adamw_params;

typedef struct sl_adamw {
    sl_adapter *adapter;
    sl_adamw_params params;
    float *first, *second; /* [n] moments of all values, in the order of sl_adapter's list: a, b, magnitude */
    size_t n;
    int64_t step;          /* taken so far */
} sl_adamw;

sllm_status sl_adamw_new(sl_adapter *adapter, const sl_adamw_params *params, sl_adamw **adamw, sllm_error *error);
void sl_adamw_free(sl_adamw *adamw); /* NULL is allowed */

/* Euclidean norm of all gradients. */
double sl_gradient_norm(const sl_adapter *adapter, const sl_lora_grad *grads);
/* One step with gradients times `factor` (clipping). */
void sl_adamw_step(sl_adamw *adamw, const sl_lora_grad *grads, float factor, double learning_rate);

/* The learning rate's course: up over `warmup` steps, then down to 0 at `total`, along a line or half a cosine. */
typedef enum sl_schedule { SL_SCHEDULE_LINEAR, SL_SCHEDULE_COSINE, SL_SCHEDULE_CONSTANT } sl_schedule;
/* A factor of the peak rate for the step-th step, counted from 0. Steps past the end: 0. */
double sl_schedule_factor(sl_schedule schedule, int64_t step, int64_t warmup, int64_t total);

#endif
