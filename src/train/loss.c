/* Cross entropy over the vocabulary, some rows at a time: logits become their own gradient in place. */
#include "train/backward_int.h"

#include "base/error.h"
#include "model/forward.h"

#include <math.h>
#include <string.h>

typedef struct rows {
    sl_backward *b;
    const sl_label *labels;
    double scale;
    double losses[1024]; /* of the rows at hand */
    int n;
} rows;

/* Row i of the logits at hand: its loss, and the gradient in its place. */
static void one_row(void *user, int64_t i, int thread) {
    rows *r = user;
    const sl_config *c = &r->b->model->config;
    float *z = r->b->logits + (size_t)i * (size_t)c->n_vocab, top = -INFINITY;
    double sum = 0;
    int32_t id = r->labels[i].id;
    (void)thread;
    for (int k = 0; k < c->n_vocab; k++) top = fmaxf(top, z[k]);
    for (int k = 0; k < c->n_vocab; k++) sum += (double)expf(z[k] - top);
    r->losses[i] = (log(sum) - (double)(z[id] - top)) * r->scale;
    float inverse = (float)(1 / sum), scale = (float)r->scale;
    for (int k = 0; k < c->n_vocab; k++) {
        float d = (expf(z[k] - top) * inverse - (k == id)) * scale;
        if (c->final_softcap > 0) d *= 1 - (z[k] / c->final_softcap) * (z[k] / c->final_softcap);
        z[k] = d * (c->logit_scale != 1 ? c->logit_scale : 1);
    }
    for (size_t k = 0; k < r->b->model->n_unused_ids; k++) z[r->b->model->unused_ids[k]] = 0;
}

/* Labels [first, first + n) with their rows gathered: x [n, n_embd] in b->delta. */
static void some_rows(sl_backward *b, rows *r, const sl_tape *tape, int n, float *dx, double *loss) {
    const sl_config *c = &b->model->config;
    size_t embd = (size_t)c->n_embd;
    for (int i = 0; i < n; i++) sl_tape_read(tape, SL_TAPE_END, 0, r->labels[i].row, 1, b->delta + (size_t)i * embd, embd);
    sl_logits_of(b->model, &b->set, b->delta, n, b->y, b->blocks, b->products.low, b->logits);
    sl_pool_run(b->model->pool, n, one_row, r);
    for (int i = 0; i < n; i++) *loss += r->losses[i];
    if (!dx) return;
    memset(b->dy, 0, (size_t)n * embd * sizeof *b->dy);
    b->layer = c->n_layers;
    sl_backward_product(b, SL_SLOT_OUTPUT, 0, n, b->y, embd, NULL, 0, b->logits, (size_t)c->n_vocab, b->dy, embd);
    memset(b->d_delta, 0, (size_t)n * embd * sizeof *b->d_delta);
    sl_backward_norm_grad(b, b->delta, b->model->weights->final_norm, b->dy, n, b->d_delta);
    for (int i = 0; i < n; i++) sl_add(dx + (size_t)r->labels[i].row * embd, b->d_delta + (size_t)i * embd, c->n_embd);
}

sllm_status sl_backward_loss(sl_backward *b, const sl_tape *tape, const sl_label *labels, int n, double scale, float *dx, double *loss,
                             sllm_error *error) {
    rows r = {.b = b, .scale = scale};
    int step = b->logit_rows < 1024 ? b->logit_rows : 1024;
    *loss = 0;
    if (dx) memset(dx, 0, (size_t)sl_tape_rows(tape) * (size_t)b->model->config.n_embd * sizeof *dx);
    for (int i = 0; i < n; i++)
        if (labels[i].row < 0 || labels[i].row >= sl_tape_rows(tape) || labels[i].id < 0 || labels[i].id >= b->model->config.n_vocab)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "label %d: row %d, token %d", i, labels[i].row, labels[i].id);
    for (int i = 0; i < n; i += step) {
        int count = n - i < step ? n - i : step;
        r.labels = labels + i;
        some_rows(b, &r, tape, count, dx, loss);
    }
    return SLLM_OK;
}
