/* One timeline with a pool and scratch of its own: what reading a text in chunks needs. */
#ifndef SL_MODEL_TIMELINE_H
#define SL_MODEL_TIMELINE_H

#include "model/model.h"

typedef struct sl_timeline {
    sl_kv_pool *pages;
    sl_kv *kv;
    sl_work *work;
} sl_timeline;

/* Room for n_ctx positions, kept as AUTO keeps them (sl_kv_type_choose). After a failure sl_timeline_close is still due. */
sllm_status sl_timeline_open(sl_timeline *timeline, const sl_model *model, int n_ctx, bool only_f32_weights, sllm_error *error);
void sl_timeline_close(sl_timeline *timeline); /* of a zero timeline: nothing */

#endif
