#include "model/timeline.h"

#include "model/kv.h"

sllm_status sl_timeline_open(sl_timeline *t, const sl_model *model, int n_ctx, bool only_f32_weights, sllm_error *error) {
    sl_kv_type type;
    *t = (sl_timeline){0};
    sllm_status status = sl_kv_type_choose(&model->config, SLLM_KV_AUTO, model->exact, only_f32_weights, &type, error);
    if (!status) status = sl_kv_pool_new(model, type, (n_ctx + SL_PAGE - 1) / SL_PAGE, &t->pages, error);
    if (!status) status = sl_kv_new(t->pages, n_ctx, &t->kv, error);
    if (!status) status = sl_work_new(model, &t->work, error);
    return status;
}

void sl_timeline_close(sl_timeline *t) {
    sl_work_free(t->work);
    if (t->kv) sl_kv_free(t->kv);
    if (t->pages) sl_kv_pool_free(t->pages);
    *t = (sl_timeline){0};
}
