#include "train/optimiser.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

/* The values of one matrix or vector, and their gradients. */
typedef struct values {
    float *value;
    const float *grad;
    size_t n;
} values;

/* The k-th (0: a, 1: b, 2: magnitude) of an item; n 0: there is none. */
static values values_of(const sl_lora *l, const sl_lora_grad *g, int k) {
    if (k == 0) return (values){l->a, g ? g->a : NULL, (size_t)l->rank * (size_t)l->n_in};
    if (k == 1) return (values){l->b, g ? g->b : NULL, (size_t)l->rank * (size_t)l->n_out};
    return (values){l->magnitude, g ? g->magnitude : NULL, l->magnitude ? (size_t)l->n_out : 0};
}

sllm_status sl_adamw_new(sl_adapter *adapter, const sl_adamw_params *params, sl_adamw **adamw, sllm_error *error) {
    sl_adamw *o = calloc(1, sizeof *o);
    *adamw = NULL;
    if (!o) return sl_fail_memory(error, "the optimiser", sizeof *o);
    *o = (sl_adamw){.adapter = adapter, .params = *params};
    for (size_t i = 0; i < adapter->n; i++)
        for (int k = 0; k < 3; k++) o->n += values_of(&adapter->list[i], NULL, k).n;
    o->first = calloc(o->n ? o->n : 1, sizeof *o->first);
    o->second = calloc(o->n ? o->n : 1, sizeof *o->second);
    if (!o->first || !o->second) {
        size_t bytes = 2 * o->n * sizeof(float);
        sl_adamw_free(o);
        return sl_fail_memory(error, "the optimiser", bytes);
    }
    *adamw = o;
    return SLLM_OK;
}

void sl_adamw_free(sl_adamw *o) {
    if (!o) return;
    free(o->first);
    free(o->second);
    free(o);
}

double sl_gradient_norm(const sl_adapter *adapter, const sl_lora_grad *grads) {
    double sum = 0;
    for (size_t i = 0; i < adapter->n; i++)
        for (int k = 0; k < 3; k++) {
            values v = values_of(&adapter->list[i], &grads[i], k);
            for (size_t j = 0; j < v.n; j++) sum += (double)v.grad[j] * (double)v.grad[j];
        }
    return sqrt(sum);
}

static void step_values(const sl_adamw *o, const values *v, float *first, float *second, float factor, double rate) {
    const sl_adamw_params *p = &o->params;
    double correction1 = 1 - pow((double)p->beta1, (double)o->step), correction2 = 1 - pow((double)p->beta2, (double)o->step);
    float decay = (float)(1 - rate * (double)p->weight_decay), size = (float)(rate / correction1), root = (float)sqrt(correction2);
    for (size_t j = 0; j < v->n; j++) {
        float g = v->grad[j] * factor;
        first[j] = p->beta1 * first[j] + (1 - p->beta1) * g;
        second[j] = p->beta2 * second[j] + (1 - p->beta2) * g * g;
        v->value[j] = v->value[j] * decay - size * first[j] / (sqrtf(second[j]) / root + p->eps);
    }
}

void sl_adamw_step(sl_adamw *o, const sl_lora_grad *grads, float factor, double rate) {
    size_t at = 0;
    o->step++;
    for (size_t i = 0; i < o->adapter->n; i++)
        for (int k = 0; k < 3; k++) {
            values v = values_of(&o->adapter->list[i], &grads[i], k);
            step_values(o, &v, o->first + at, o->second + at, factor, rate);
            at += v.n;
        }
}

double sl_schedule_factor(sl_schedule schedule, int64_t step, int64_t warmup, int64_t total) {
    if (step < warmup) return (double)step / (double)warmup;
    if (schedule == SL_SCHEDULE_CONSTANT) return 1;
    if (step >= total) return 0;
    double share = (double)(step - warmup) / (double)(total > warmup ? total - warmup : 1);
    return schedule == SL_SCHEDULE_LINEAR ? 1 - share : 0.5 * (1 + cos(3.14159265358979323846 * share));
}
