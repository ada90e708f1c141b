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

/* What the soft cap on logits leaves of a gradient, times the gradient: d [n] from the capped logits z [n]. */
static void through_softcap(float *d, const float *z, int n, float cap) {
    for (int k = 0; k < n; k++) d[k] *= 1 - (z[k] / cap) * (z[k] / cap);
}

/* Row i of the logits at hand: its loss, and the gradient in its place. The softmax gives 1 / sum(exp(z - top)) where z is
 * greatest, and with it the loss, however small the label's own probability. */
static void one_row(void *user, int64_t i, int thread) {
    rows *r = user;
    const sl_config *c = &r->b->model->config;
    size_t vocab = (size_t)c->n_vocab;
    float *z = r->b->logits + (size_t)i * vocab, *capped = r->b->capped ? r->b->capped + (size_t)thread * vocab : NULL, top = z[0];
    int32_t id = r->labels[i].id;
    int best = 0;
    for (int k = 1; k < c->n_vocab; k++)
        if (z[k] > top) best = k, top = z[k];
    double below = (double)(top - z[id]);
    if (capped) memcpy(capped, z, vocab * sizeof *z);
    sl_softmax(z, c->n_vocab);
    r->losses[i] = (below - log((double)z[best])) * r->scale;
    z[id] -= 1;
    sl_scale(z, (float)r->scale * c->logit_scale, c->n_vocab);
    if (capped) through_softcap(z, capped, c->n_vocab, c->final_softcap);
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
