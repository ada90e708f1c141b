#include "train/gradients.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- norms */

void sl_rms_norm_backward(const float *x, const float *weight, const float *dy, int64_t n, float eps, float *dx) {
    double squares = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        dot += (double)(weight ? weight[i] * dy[i] : dy[i]) * (double)x[i];
    }
    double inverse = 1 / sqrt(squares / (double)n + (double)eps);
    float factor = (float)inverse, shrink = (float)(dot * inverse * inverse * inverse / (double)n);
    for (int64_t i = 0; i < n; i++) dx[i] += (weight ? weight[i] * dy[i] : dy[i]) * factor - x[i] * shrink;
}

static void layer_norm_backward(const float *x, const float *weight, const float *dy, int64_t n, float eps, float *dx) {
    double sum = 0, squares = 0, mean_d = 0, mean_dx = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    double inverse = 1 / sqrt(squares / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++) {
        double d = (double)(weight ? weight[i] * dy[i] : dy[i]);
        mean_d += d / (double)n;
        mean_dx += d * ((double)x[i] - mean) * inverse / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        double d = (double)(weight ? weight[i] * dy[i] : dy[i]);
        dx[i] += (float)(inverse * (d - mean_d - ((double)x[i] - mean) * inverse * mean_dx));
    }
}

void sl_norm_backward(const sl_config *c, const float *x, const float *weight, const float *dy, int64_t n, float *dx) {
    if (c->norm == SL_NORM_RMS) sl_rms_norm_backward(x, weight, dy, n, c->norm_eps, dx);
    else layer_norm_backward(x, weight, dy, n, c->norm_eps, dx);
}

/* ---------------------------------------------------------------- activations */

/* a(x) and a'(x). */
typedef struct curve { float value, slope; } curve;

static curve silu(float x) {
    float s = 1 / (1 + expf(-x));
    return (curve){x * s, s * (1 + x * (1 - s))};
}

static curve gelu_tanh(float x) {
    float u = 0.7978845608f * (x + 0.044715f * x * x * x), t = tanhf(u);
    return (curve){0.5f * x * (1 + t), 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x)};
}

static curve gelu_erf(float x) {
    float integral = 0.5f * (1 + erff(x * 0.70710678f));
    return (curve){x * integral, integral + x * 0.39894228f * expf(-0.5f * x * x)};
}

static curve relu(float x) { return x > 0 ? (curve){x, 1} : (curve){0, 0}; }

static curve curve_of(sl_activation activation, float x) {
    switch (activation) {
    case SL_ACT_GELU_TANH: return gelu_tanh(x);
    case SL_ACT_GELU_ERF: return gelu_erf(x);
    case SL_ACT_RELU: return relu(x);
    default: return silu(x);
    }
}

/* Phi-3-small's: pairs of gate and linear part, both bounded; where a bound holds nothing passes. */
static void gegelu_backward(const float *u, const float *dh, int n, float limit, float *h, float *du) {
    for (int j = 0; j < n; j++) {
        float a = u[2 * j], b = u[2 * j + 1], pass_a = 1, pass_b = 1;
        if (limit > 0 && !isinf(a) && a > limit) a = limit, pass_a = 0;
        if (limit > 0 && !isinf(b) && fabsf(b) > limit) b = b > 0 ? limit : -limit, pass_b = 0;
        float s = 1 / (1 + expf(-1.702f * a)), quick = a * s, slope = s + 1.702f * a * s * (1 - s);
        h[j] = quick * (b + 1);
        du[2 * j] = pass_a * dh[j] * slope * (b + 1);
        du[2 * j + 1] = pass_b * dh[j] * quick;
    }
}

void sl_activation_backward(const sl_config *c, const float *hidden, const float *dh, int n_ff, float *h, float *d_hidden) {
    const float *up = hidden + n_ff;
    if (c->activation == SL_ACT_GEGELU) {
        gegelu_backward(hidden, dh, n_ff, c->gegelu_limit, h, d_hidden);
        return;
    }
    for (int j = 0; j < n_ff; j++) {
        curve a = curve_of(c->activation, hidden[j]);
        if (c->family->gated) {
            h[j] = a.value * up[j];
            d_hidden[j] = dh[j] * up[j] * a.slope;
            d_hidden[n_ff + j] = dh[j] * a.value;
        } else {
            h[j] = a.value;
            d_hidden[j] = dh[j] * a.slope;
        }
    }
}

/* ---------------------------------------------------------------- products */

/* Rows of the matrix come as tiles: all threads widen one, then share out the tokens. Blocks of tokens are of one size whatever the
 * number of threads, so that every sum has one order. */
typedef struct product {
    const sl_products_backward *b;
    const sl_product_place *place;
    const float *dy;
    float *dx;
    size_t dy_stride, dx_stride;
    int64_t columns, first, rows; /* of the tile */
    int n;
} product;

static void widen_row(void *user, int64_t r, int thread) {
    const product *p = user;
    (void)thread;
    sl_product_row(p->place, p->first + r, p->b->tile + r * p->columns);
}

static void add_tokens(void *user, int64_t chunk, int thread) {
    const product *p = user;
    int from = (int)chunk * SL_TILE_TOKENS, n = p->n - from < SL_TILE_TOKENS ? p->n - from : SL_TILE_TOKENS;
    (void)thread;
    p->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, n, (int)p->columns, (int)p->rows, 1,
                      p->dy + (size_t)from * p->dy_stride + p->first, (int)p->dy_stride, p->b->tile, (int)p->columns, 1,
                      p->dx + (size_t)from * p->dx_stride, (int)p->dx_stride);
}

static void matrix_backward(product *p) {
    int64_t all = p->place->w.shape[0], step = SL_TILE_FLOATS / p->columns > 0 ? SL_TILE_FLOATS / p->columns : 1;
    for (p->first = 0; p->first < all; p->first += p->rows) {
        p->rows = all - p->first < step ? all - p->first : step;
        sl_pool_run(p->b->pool, p->rows, widen_row, p);
        sl_pool_run(p->b->pool, (p->n + SL_TILE_TOKENS - 1) / SL_TILE_TOKENS, add_tokens, p);
    }
}

/* ---------------------------------------------------------------- adapters */

typedef struct lora_job {
    const sl_products_backward *b;
    const sl_lora *lora;
    const sl_lora_grad *grad;
    const float *x, *dy;
    float *dx, *low, *d_low; /* [n, rank] */
    size_t x_stride, dy_stride, dx_stride;
    int n;
} lora_job;

static bool drops(const lora_job *j) { return j->b->dropout && j->lora->slot != SL_SLOT_OUTPUT; }

enum { STRIP = 256 }; /* of a gradient's columns or rows */

static void low_tokens(void *user, int64_t chunk, int thread) {
    const lora_job *j = user;
    const sl_lora *l = j->lora;
    int from = (int)chunk * SL_TILE_TOKENS, n = j->n - from < SL_TILE_TOKENS ? j->n - from : SL_TILE_TOKENS;
    float *low = j->low + (size_t)from * (size_t)l->rank, *d_low = j->d_low + (size_t)from * (size_t)l->rank;
    (void)thread;
    j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_TURNED, n, l->rank, (int)l->n_in, l->scale, j->x + (size_t)from * j->x_stride,
                      (int)j->x_stride, l->a, (int)l->n_in, 0, low, l->rank);
    j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, n, l->rank, (int)l->n_out, l->scale, j->dy + (size_t)from * j->dy_stride,
                      (int)j->dy_stride, l->b, l->rank, 0, d_low, l->rank);
    if (drops(j)) return;
    j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, n, (int)l->n_in, l->rank, 1, d_low, l->rank, l->a, (int)l->n_in, 1,
                      j->dx + (size_t)from * j->dx_stride, (int)j->dx_stride);
}

/* With dropout: what reaches the inputs, before it is dropped as they were. */
static void back_tokens(void *user, int64_t chunk, int thread) {
    const lora_job *j = user;
    const sl_lora *l = j->lora;
    int from = (int)chunk * SL_TILE_TOKENS, n = j->n - from < SL_TILE_TOKENS ? j->n - from : SL_TILE_TOKENS;
    float *d_low = j->d_low + (size_t)from * (size_t)l->rank, *back = j->b->dropped + (size_t)from * (size_t)l->n_in;
    (void)thread;
    j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_PLAIN, SL_BLAS_PLAIN, n, (int)l->n_in, l->rank, 1, d_low, l->rank, l->a, (int)l->n_in, 0, back,
                      (int)l->n_in);
    sl_dropout_rows(NULL, j->b->dropout, l, j->b->keys + from, n, back, (size_t)l->n_in, l->n_in, back);
    for (int t = 0; t < n; t++) sl_add(j->dx + (size_t)(from + t) * j->dx_stride, back + (size_t)t * (size_t)l->n_in, l->n_in);
}

/* Strips of A's columns, then of B's rows. */
static void grad_strip(void *user, int64_t strip, int thread) {
    const lora_job *j = user;
    const sl_lora *l = j->lora;
    int64_t of_a = (l->n_in + STRIP - 1) / STRIP, from = (strip < of_a ? strip : strip - of_a) * STRIP;
    (void)thread;
    if (strip < of_a) {
        int n = (int)(l->n_in - from < STRIP ? l->n_in - from : STRIP);
        j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_TURNED, SL_BLAS_PLAIN, l->rank, n, j->n, 1, j->d_low, l->rank, j->x + from, (int)j->x_stride, 1,
                          j->grad->a + from, (int)l->n_in);
    } else {
        int n = (int)(l->n_out - from < STRIP ? l->n_out - from : STRIP);
        j->b->blas->sgemm(SL_BLAS_ROWS, SL_BLAS_TURNED, SL_BLAS_PLAIN, n, l->rank, j->n, 1, j->dy + from, (int)j->dy_stride, j->low, l->rank, 1,
                          j->grad->b + from * l->rank, l->rank);
    }
}

static void lora_backward(lora_job *j) {
    const sl_lora *l = j->lora;
    int64_t chunks = (j->n + SL_TILE_TOKENS - 1) / SL_TILE_TOKENS;
    if (drops(j)) {
        sl_dropout_rows(j->b->pool, j->b->dropout, l, j->b->keys, j->n, j->x, j->x_stride, l->n_in, j->b->dropped);
        j->x = j->b->dropped;
        j->x_stride = (size_t)l->n_in;
    }
    sl_pool_run(j->b->pool, chunks, low_tokens, j);
    if (j->grad) sl_pool_run(j->b->pool, (l->n_in + STRIP - 1) / STRIP + (l->n_out + STRIP - 1) / STRIP, grad_strip, j);
    if (drops(j)) sl_pool_run(j->b->pool, chunks, back_tokens, j);
}

/* DoRA: y = gain (W x + s B A x) + bias; the norm in the gain counts as a constant (section 4.3 of the paper). */
static const float *scale_by_gain(const sl_products_backward *b, const sl_product_place *place, const sl_lora *l, const sl_lora_grad *grad,
                                  int n, const float *y, size_t y_stride, const float *dy, size_t dy_stride) {
    for (int t = 0; t < n; t++)
        for (int64_t r = 0; r < l->n_out; r++) {
            float d = dy[(size_t)t * dy_stride + (size_t)r];
            if (grad && l->magnitude[r] != 0)
                grad->magnitude[r] += d * (y[(size_t)t * y_stride + (size_t)r] - (place->bias ? place->bias[r] : 0)) / l->magnitude[r];
            b->scaled[(size_t)t * (size_t)l->n_out + (size_t)r] = d * l->gain[r];
        }
    return b->scaled;
}

void sl_product_backward(const sl_products_backward *b, const sl_product_place *place, const sl_lora *lora, const sl_lora_grad *grad, int n,
                         const float *x, size_t x_stride, const float *y, size_t y_stride, const float *dy, size_t dy_stride, float *dx,
                         size_t dx_stride) {
    if (n < 1) return;
    if (lora && lora->gain) {
        dy = scale_by_gain(b, place, lora, grad, n, y, y_stride, dy, dy_stride);
        dy_stride = (size_t)lora->n_out;
    }
    product p = {.b = b, .place = place, .dy = dy, .dx = dx, .dy_stride = dy_stride, .dx_stride = dx_stride,
                 .columns = place->w.shape[1], .n = n};
    matrix_backward(&p);
    if (!lora) return;
    lora_job j = {b, lora, grad, x, dy, dx, b->low, b->low + (size_t)n * (size_t)lora->rank, x_stride, dy_stride, dx_stride, n};
    lora_backward(&j);
}
