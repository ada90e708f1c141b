/* The backward pass against differences of the loss: for every kind of block, along random directions of all adapter values at once
 * and of each matrix by itself; DoRA's magnitudes too. And what learning must refuse. */
#include "train/learner.h"
#include "train/optimiser.h"

#include "base/file.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA SLLM_SOURCE_DIR "/tests/golden/data/"
#define SHARED SLLM_SOURCE_DIR "/../shared/golden/"

enum { LENGTH = 90, EXAMPLES = 2 };

static const char *const models[] = {
    DATA "models/llama32", DATA "models/gemma3-text", DATA "models/mixtral", DATA "models/phi3-longrope", DATA "models/phi4-mini",
    DATA "models/gpt2", DATA "models/qwen2-moe", DATA "models/smollm3-untied-relu", DATA "quant/gguf/llama32/llama32-Q8_0.gguf",
    DATA "quant/gguf/qwen2-moe/qwen2-moe-f16.gguf",
    SHARED "models/gemma2", SHARED "models/phi3-small", SHARED "models/starcoder2", SHARED "models/ministral3", SHARED "models/qwen3",
    SHARED "models/smollm3", SHARED "models/mistral-swa", SHARED "models/qwen2-yarn",
};

typedef struct setting {
    sl_model *model;
    sl_adapter *adapter;
    sl_learner *learner;
    int32_t ids[EXAMPLES][LENGTH], labels[EXAMPLES][LENGTH];
    sl_example examples[EXAMPLES];
    sl_rng rng;
    int n_labels;
    bool drops;
} setting;

static float uniform(sl_rng *rng) { return (float)sl_rng_uniform(rng) - 0.5f; }

/* user: DoRA, which the output matrix cannot learn */
static bool wanted(void *user, const sl_product_place *place) { return !user || place->slot != SL_SLOT_OUTPUT; }

static void fill(sl_rng *rng, float *x, int64_t n, float size) {
    for (int64_t i = 0; i < n; i++) x[i] = size * uniform(rng);
}

static void open_setting(setting *s, const char *path, bool dora) {
    const sllm_model_params params = {.exact = true, .n_threads = 2};
    sllm_error error = {0};
    *s = (setting){0};
    sl_rng_seed(&s->rng, 5);
    if (sl_model_load(path, &params, &s->model, &error) || sl_adapter_new(s->model, 3, 0.7f, dora, wanted, dora ? s : NULL, &s->adapter, &error))
        fail_msg("%s", error.message);
    for (size_t i = 0; i < s->adapter->n; i++) {
        sl_lora *l = &s->adapter->list[i];
        fill(&s->rng, l->a, l->rank * l->n_in, 0.5f);
        fill(&s->rng, l->b, l->rank * l->n_out, 0.3f);
        for (int64_t r = 0; dora && r < l->n_out; r++) l->magnitude[r] = 1 + uniform(&s->rng);
    }
    assert_true(sl_adapter_update_gains(s->model, s->adapter));
    for (int e = 0; e < EXAMPLES; e++) {
        int n = LENGTH - 40 * e < s->model->config.n_ctx_train ? LENGTH - 40 * e : s->model->config.n_ctx_train;
        for (int t = 0; t < n; t++) {
            s->ids[e][t] = (int32_t)(sl_rng_uniform(&s->rng) * s->model->config.n_vocab);
            s->labels[e][t] = t % 3 ? s->ids[e][t] : SL_NO_LABEL;
        }
        s->examples[e] = (sl_example){s->ids[e], s->labels[e], n};
        s->n_labels += sl_example_labels(&s->examples[e]);
    }
    if (sl_learner_new(s->model, s->adapter, 2 * LENGTH, EXAMPLES, &s->learner, &error)) fail_msg("%s", error.message);
}

static void close_setting(setting *s) {
    sl_learner_free(s->learner);
    sl_adapter_free(s->adapter);
    sl_model_free(s->model);
}

static double loss_of(setting *s) {
    sllm_error error = {0};
    double loss;
    if (s->drops) { /* what is dropped depends on seed and key, so the same is dropped every time */
        if (sl_learner_add(s->learner, s->examples, EXAMPLES, 1.0 / s->n_labels, &loss, NULL, NULL, &error)) fail_msg("%s", error.message);
        return loss;
    }
    if (sl_learner_loss(s->learner, s->examples, EXAMPLES, 1.0 / s->n_labels, &loss, &error)) fail_msg("%s", error.message);
    return loss;
}

/* values += step * direction */
static void move(float *values, const float *direction, size_t n, float step) {
    for (size_t i = 0; i < n; i++) values[i] += step * direction[i];
}

/* What the gradient says of a direction beside what the loss does. Directions are along the gradient, so that the slope is large beside
 * the rounding of the loss, with noise, so that a gradient of a wrong length or direction shows. */
static void check_direction(setting *s, const char *path, const char *what, float *values, const float *grad, size_t n) {
    float *direction = malloc(n * sizeof *direction);
    double squares = 0, slope = 0, size = 0;
    assert_non_null(direction);
    for (size_t i = 0; i < n; i++) squares += (double)grad[i] * grad[i];
    double mean = sqrt(squares / (double)n);
    if (mean < 1e-7) { /* nothing reaches it: an expert that no token chose */
        free(direction);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        direction[i] = (float)(grad[i] / mean + uniform(&s->rng));
        slope += (double)direction[i] * grad[i];
        size += (double)direction[i] * direction[i];
    }
    float step = (float)((s->model->config.n_experts ? 0.001 : 0.02) / sqrt(size)); /* small where tokens could change experts */
    float *before = malloc(n * sizeof *before);
    assert_non_null(before);
    memcpy(before, values, n * sizeof *before);
    move(values, direction, n, step);
    double above = loss_of(s);
    memcpy(values, before, n * sizeof *before);
    move(values, direction, n, -step);
    double below = loss_of(s), found = (above - below) / (2 * (double)step);
    memcpy(values, before, n * sizeof *before);
    if (!(fabs(found - slope) <= 0.02 * fabs(slope) + 4e-7 / (double)step))
        fail_msg("%s: %s: the loss changes by %g, the gradient says %g", path, what, found, slope);
    free(before);
    free(direction);
}

static void check_model(const char *path) {
    setting s;
    sllm_error error = {0};
    double loss;
    open_setting(&s, path, false);
    if (sl_learner_add(s.learner, s.examples, EXAMPLES, 1.0 / s.n_labels, &loss, NULL, NULL, &error)) fail_msg("%s", error.message);
    assert_true(fabs(loss - loss_of(&s)) < 1e-9);
    for (size_t i = 0; i < s.adapter->n; i++) {
        sl_lora *l = &s.adapter->list[i];
        const sl_lora_grad *g = &sl_backward_grads(sl_learner_backward(s.learner))[i];
        char what[64];
        snprintf(what, sizeof what, "slot %d of block %d, expert %d", (int)l->slot, l->layer, l->expert);
        check_direction(&s, path, what, l->a, g->a, (size_t)(l->rank * l->n_in));
        check_direction(&s, path, what, l->b, g->b, (size_t)(l->rank * l->n_out));
    }
    close_setting(&s);
}

static void test_families(void **state) {
    int n = 0;
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (!sl_path_is_file(models[i]) && !sl_path_is_directory(models[i])) continue;
        check_model(models[i]);
        n++;
    }
    assert_true(n >= 10);
}

/* The norm in DoRA's gain counts as a constant: gains are not computed anew between the two losses. */
static void test_dora(void **state) {
    setting s;
    sllm_error error = {0};
    double loss;
    (void)state;
    open_setting(&s, DATA "models/llama32", true);
    if (sl_learner_add(s.learner, s.examples, EXAMPLES, 1.0 / s.n_labels, &loss, NULL, NULL, &error)) fail_msg("%s", error.message);
    for (size_t i = 0; i < s.adapter->n; i++) {
        sl_lora *l = &s.adapter->list[i];
        const sl_lora_grad *g = &sl_backward_grads(sl_learner_backward(s.learner))[i];
        check_direction(&s, "dora", "a", l->a, g->a, (size_t)(l->rank * l->n_in));
        check_direction(&s, "dora", "b", l->b, g->b, (size_t)(l->rank * l->n_out));
        /* a magnitude's change scales its row's gain */
        float *norm = malloc((size_t)l->n_out * sizeof *norm), *grad = malloc((size_t)l->n_out * sizeof *grad);
        assert_true(norm && grad);
        for (int64_t r = 0; r < l->n_out; r++) {
            norm[r] = l->magnitude[r] / l->gain[r];
            grad[r] = g->magnitude[r] * norm[r]; /* of the gain */
        }
        check_direction(&s, "dora", "magnitude", l->gain, grad, (size_t)l->n_out);
        free(norm);
        free(grad);
    }
    close_setting(&s);
}

/* With dropout: the gradients are of the loss with the same values left out; in experts too. */
static void test_dropout(void **state) {
    static const char *const paths[] = {DATA "models/llama32", DATA "models/mixtral"};
    (void)state;
    for (size_t m = 0; m < 2; m++) {
        setting s;
        open_setting(&s, paths[m], false);
        double plain = loss_of(&s);
        s.drops = true;
        sl_learner_drop(s.learner, 0.3f, 11, 5);
        double loss = loss_of(&s);
        assert_true(fabs(loss - plain) > 1e-4);
        assert_true(loss_of(&s) == loss);
        sl_backward_clear(sl_learner_backward(s.learner));
        loss_of(&s);
        const sl_lora_grad *g = sl_backward_grads(sl_learner_backward(s.learner));
        for (size_t i = 0; i < s.adapter->n; i += 3) {
            sl_lora *l = &s.adapter->list[i];
            size_t n = (size_t)(l->rank * l->n_in);
            float *a = malloc(n * sizeof *a);
            assert_non_null(a);
            memcpy(a, g[i].a, n * sizeof *a);
            check_direction(&s, paths[m], "dropout", l->a, a, n);
            free(a);
            sl_backward_clear(sl_learner_backward(s.learner));
            loss_of(&s);
        }
        close_setting(&s);
    }
}

/* Examples that begin alike, together: that beginning is computed once, and loss and gradients are those of one after the other. */
static void check_shared(const char *path) {
    enum { SHARED_TOKENS = 70, MANY = 3 };
    setting s;
    sllm_error error = {0};
    sl_example examples[MANY];
    static int32_t ids[MANY][LENGTH], labels[MANY][LENGTH];
    double together, part, apart = 0, worst = 0, size = 0;
    int rows = SHARED_TOKENS, shared = SHARED_TOKENS;
    open_setting(&s, path, false);
    if (s.model->config.n_ctx_train < LENGTH) shared = 30;
    for (int e = 0; e < MANY; e++) {
        int n = shared + 5 + 6 * e;
        for (int t = 0; t < n; t++) {
            ids[e][t] = e && t < shared ? ids[0][t] : (int32_t)(sl_rng_uniform(&s.rng) * s.model->config.n_vocab);
            labels[e][t] = t < shared + 2 ? SL_NO_LABEL : ids[e][t];
        }
        examples[e] = (sl_example){ids[e], labels[e], n};
        rows += n - shared;
    }
    sl_learner_free(s.learner);
    assert_int_equal(sl_learner_new(s.model, s.adapter, rows, MANY, &s.learner, &error), SLLM_OK);
    assert_int_equal(sl_learner_fits(s.learner, examples, MANY), MANY); /* though they have far more tokens */
    sl_backward *b = sl_learner_backward(s.learner);
    const sl_lora_grad *g = sl_backward_grads(b);
    const sl_lora *last = &s.adapter->list[s.adapter->n - 1];
    size_t n = (size_t)(g[s.adapter->n - 1].b + last->rank * last->n_out - g[0].a);
    float *once = malloc(n * sizeof *once);
    assert_non_null(once);
    if (sl_learner_add(s.learner, examples, MANY, 0.1, &together, NULL, NULL, &error)) fail_msg("%s: %s", path, error.message);
    memcpy(once, g[0].a, n * sizeof *once);
    sl_backward_clear(b);
    for (int e = 0; e < MANY; e++) {
        if (sl_learner_add(s.learner, &examples[e], 1, 0.1, &part, NULL, NULL, &error)) fail_msg("%s: %s", path, error.message);
        apart += part;
    }
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)once[i] - (double)g[0].a[i]));
        size = fmax(size, fabs((double)g[0].a[i]));
    }
    if (!(fabs(together - apart) < 1e-5 && worst < 2e-5 * size && size > 0))
        fail_msg("%s: loss %g and %g, gradients up to %g differ by %g", path, together, apart, size, worst);
    free(once);
    close_setting(&s);
}

static void test_shared_prefix(void **state) {
    static const char *const paths[] = {DATA "models/llama32", DATA "models/gemma3-text", DATA "models/mixtral", DATA "models/phi3-longrope",
                                        DATA "models/gpt2", DATA "models/qwen2-moe"};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) check_shared(paths[i]);
}

/* The same gradients, bit for bit, for any number of threads, and for examples together or one after the other within rounding. */
static void test_threads(void **state) {
    float *first = NULL;
    size_t n = 0;
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        setting s;
        sllm_error error = {0};
        double loss;
        open_setting(&s, DATA "models/llama32", false);
        sl_pool_free(s.model->pool);
        assert_int_equal(sl_pool_new(threads, &s.model->pool, &error), SLLM_OK);
        sl_learner_free(s.learner);
        assert_int_equal(sl_learner_new(s.model, s.adapter, 2 * LENGTH, EXAMPLES, &s.learner, &error), SLLM_OK);
        assert_int_equal(sl_learner_add(s.learner, s.examples, EXAMPLES, 1.0 / s.n_labels, &loss, NULL, NULL, &error), SLLM_OK);
        const sl_lora_grad *g = sl_backward_grads(sl_learner_backward(s.learner));
        if (!first) {
            const sl_lora *last = &s.adapter->list[s.adapter->n - 1];
            n = (size_t)(g[s.adapter->n - 1].b + last->rank * last->n_out - g[0].a);
            first = malloc(n * sizeof *first);
            assert_non_null(first);
            memcpy(first, g[0].a, n * sizeof *first);
        }
        assert_memory_equal(first, g[0].a, n * sizeof *first);
        close_setting(&s);
    }
    free(first);
}

static void test_refusals(void **state) {
    setting s;
    sllm_error error = {0};
    double loss;
    (void)state;
    open_setting(&s, DATA "models/llama32", false);
    sl_example none = {s.ids[0], s.labels[0], 0}, three[3] = {s.examples[0], s.examples[0], s.examples[0]};
    assert_int_equal(sl_learner_add(s.learner, &none, 1, 1, &loss, NULL, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sl_learner_add(s.learner, three, 3, 1, &loss, NULL, NULL, &error), SLLM_ERROR_ARGUMENT);
    s.labels[0][5] = s.model->config.n_vocab;
    assert_int_equal(sl_learner_add(s.learner, s.examples, 1, 1, &loss, NULL, NULL, &error), SLLM_ERROR_ARGUMENT);
    close_setting(&s);
}

static void test_schedule(void **state) {
    (void)state;
    assert_true(sl_schedule_factor(SL_SCHEDULE_LINEAR, 0, 4, 20) == 0);
    assert_true(sl_schedule_factor(SL_SCHEDULE_LINEAR, 2, 4, 20) == 0.5);
    assert_true(sl_schedule_factor(SL_SCHEDULE_LINEAR, 12, 4, 20) == 0.5);
    assert_true(fabs(sl_schedule_factor(SL_SCHEDULE_COSINE, 12, 4, 20) - 0.5) < 1e-12);
    assert_true(sl_schedule_factor(SL_SCHEDULE_COSINE, 20, 4, 20) == 0);
    assert_true(sl_schedule_factor(SL_SCHEDULE_CONSTANT, 19, 4, 20) == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families), cmocka_unit_test(test_dora), cmocka_unit_test(test_dropout), cmocka_unit_test(test_shared_prefix), cmocka_unit_test(test_threads), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
