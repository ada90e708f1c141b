/* golden/training: LoRA and QLoRA curves that torch and peft computed in f32. For every case: the loss, the hidden gradients and
 * those of every LoRA tensor on one batch; the gradients of the first step; loss and gradient norm of twenty steps of AdamW; the
 * adapter after two and after all of them. Tolerances are those of the data's README. */
#include "golden/golden.h"
#include "golden/reference.h"

#include "base/file.h"
#include "model/packed_int.h"
#include "train/learner.h"
#include "train/optimiser.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 20, MICRO = 2, ROWS = 2, LENGTH = 24 };
static const double LOSS = 1e-4, NORM = 1e-3, GRADIENT = 1e-4, FINAL = 5e-4;

typedef struct one {
    golden *g;
    const char *path, *name;
    sl_model *model;
    sl_adapter *adapter;
    sl_learner *learner;
    sl_adamw *optimiser;
    const sl_json *curve;
    sl_safetensors *batches, *probe, *first, *second, *last;
    const int32_t *ids, *mask, *labels; /* [STEPS, MICRO, ROWS, LENGTH] */
    double worst_hidden, worst_probe, worst_first, worst_loss, worst_norm, worst_second, worst_last;
    sllm_error error;
} one;

/* ---------------------------------------------------------------- comparing */

/* |a - b| beyond what 1e-3 relative allows. */
static double beyond(const float *a, const float *b, size_t n, double relative) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]) - relative * fabs((double)b[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    return worst;
}

static double compare_lora(const one *o, const sl_safetensors *file, const char *prefix, bool gradients, double relative) {
    const sl_lora_grad *grads = sl_backward_grads(sl_learner_backward(o->learner));
    double worst = 0;
    for (size_t i = 0; i < o->adapter->n; i++) {
        const sl_lora *l = &o->adapter->list[i];
        char module[SL_NAME_SIZE], name[SL_NAME_SIZE + 64];
        sl_weights_name(o->model->config.family->names, l->slot, l->layer, l->expert, "", module);
        for (int k = 0; k < 2; k++) {
            uint64_t n = (uint64_t)l->rank * (uint64_t)(k ? l->n_out : l->n_in);
            snprintf(name, sizeof name, "%s%s.lora_%c.weight", prefix, module, k ? 'B' : 'A');
            const float *want = reference_floats(file, name, n), *got = gradients ? (k ? grads[i].b : grads[i].a) : k ? l->b : l->a;
            worst = fmax(worst, want ? beyond(got, want, (size_t)n, relative) : INFINITY);
        }
    }
    return worst;
}

/* ---------------------------------------------------------------- batches */

static int examples_of(const one *o, int step, int micro, sl_example examples[ROWS]) {
    for (int r = 0; r < ROWS; r++) {
        size_t at = (((size_t)step * MICRO + (size_t)micro) * ROWS + (size_t)r) * LENGTH;
        int n = 0;
        while (n < LENGTH && o->mask[at + (size_t)n]) n++;
        examples[r] = (sl_example){o->ids + at, o->labels + at, n};
    }
    return ROWS;
}

static int count_labels(const sl_example *examples, int n) {
    int labels = 0;
    for (int i = 0; i < n; i++) labels += sl_example_labels(&examples[i]);
    return labels;
}

/* ---------------------------------------------------------------- the probe */

/* dx holds the examples one behind the other; the reference pads each to LENGTH. */
static void compare_hidden(void *user, int layer, const float *dx, int n) {
    one *o = user;
    int width = o->model->config.n_embd, row = 0;
    char name[48];
    sl_example examples[ROWS];
    (void)n;
    if (layer < 0) snprintf(name, sizeof name, "grad.block0_input");
    else snprintf(name, sizeof name, "grad.block%d_output", layer);
    const float *want = reference_floats(o->probe, name, (uint64_t)ROWS * LENGTH * (uint64_t)width);
    examples_of(o, 0, 0, examples);
    for (int r = 0; r < ROWS; row += examples[r++].n)
        o->worst_hidden = fmax(o->worst_hidden, want ? beyond(dx + (size_t)row * (size_t)width, want + (size_t)r * LENGTH * (size_t)width,
                                                              (size_t)examples[r].n * (size_t)width, 1e-3) : INFINITY);
}

static bool probe(one *o) {
    sl_example examples[ROWS];
    double loss;
    int n = examples_of(o, 0, 0, examples);
    const float *want = reference_floats(o->probe, "loss", 1);
    if (sl_learner_add(o->learner, examples, n, 1.0 / count_labels(examples, n), &loss, compare_hidden, o, &o->error)) return false;
    o->worst_probe = compare_lora(o, o->probe, "grad.", true, 1e-3);
    o->worst_loss = want ? fabs(loss - (double)*want) : INFINITY;
    sl_backward_clear(sl_learner_backward(o->learner));
    return true;
}

/* ---------------------------------------------------------------- twenty steps */

static double number(const sl_json *list, int i) {
    double value = NAN;
    sl_json_double(sl_json_at(list, (size_t)i), &value);
    return value;
}

static bool one_step(one *o, int step) {
    sl_example examples[MICRO][ROWS];
    const sl_json *curve = o->curve;
    double loss = 0, part, limit;
    int labels = 0;
    sl_backward *b = sl_learner_backward(o->learner);
    for (int m = 0; m < MICRO; m++) labels += count_labels(examples[m], examples_of(o, step, m, examples[m]));
    sl_backward_clear(b);
    for (int m = 0; m < MICRO; m++) {
        if (sl_learner_add(o->learner, examples[m], ROWS, 1.0 / labels, &part, NULL, NULL, &o->error)) return false;
        loss += part;
    }
    if (step == 0) o->worst_first = compare_lora(o, o->first, "", true, 1e-3);
    double norm = sl_gradient_norm(o->adapter, sl_backward_grads(b)), want = number(sl_json_get(curve, "grad_norm"), step);
    o->worst_loss = fmax(o->worst_loss, fabs(loss - number(sl_json_get(curve, "loss"), step)));
    o->worst_norm = fmax(o->worst_norm, fabs(norm - want) / want);
    double factor = sl_json_double(sl_json_get(curve, "max_grad_norm"), &limit) && limit / (norm + 1e-6) < 1 ? limit / (norm + 1e-6) : 1;
    double rate = 5e-3 * sl_schedule_factor(SL_SCHEDULE_LINEAR, step, 4, STEPS);
    if (fabs(rate - number(sl_json_get(curve, "lr"), step)) > 1e-9) o->worst_loss = INFINITY;
    sl_adamw_step(o->optimiser, sl_backward_grads(b), (float)factor, rate);
    if (step == 1) o->worst_second = compare_lora(o, o->second, "", false, 0);
    return true;
}

/* ---------------------------------------------------------------- a case */

static bool open_file(one *o, const char *name, sl_safetensors **file) {
    char path[4096];
    return sl_path_join(path, sizeof path, o->path, name) && !sl_safetensors_open(path, file, &o->error);
}

/* Cases of QLoRA come with the base as bitsandbytes stored it: the model computes with that, not with what loading would quantise. */
typedef struct stored {
    sl_packed_reader reader;
    int n;
    bool failed;
} stored;

static bool take_stored(void *user, int layer, sl_tensor *w) {
    stored *s = user;
    char base[SL_NAME_SIZE];
    sl_tensor t;
    size_t length = strlen(w->name) - strlen(".weight");
    (void)layer;
    snprintf(base, sizeof base, "%.*s", (int)length, w->name);
    s->failed = s->failed || sl_packed_bnb4(&s->reader, base, &t) || t.type != w->type || t.bytes != w->bytes;
    if (s->failed) return false;
    w->data = t.data;
    s->n++;
    return true;
}

static bool use_stored(one *o, sl_arena *arena) {
    stored s = {.reader = {.pool = o->model->pool, .arena = arena, .error = &o->error}};
    sl_safetensors *file;
    if (!sl_json_string(sl_json_get(o->curve, "base_quant"))) return true;
    if (!open_file(o, "base_bnb4bit.safetensors", &file)) return false;
    s.reader.file = file;
    sl_weights_each(o->model->weights, &o->model->config, take_stored, &s);
    sl_safetensors_close(file);
    return !s.failed && s.n == 7 * o->model->config.n_layers;
}

static const int32_t *numbers_of(const sl_safetensors *file, const char *name) {
    const sl_tensor *t = sl_safetensors_get(file, name);
    return t && t->type == SL_I32 && t->n_elements == STEPS * MICRO * ROWS * LENGTH ? t->data : NULL;
}

static bool open_case(one *o, sl_arena *arena) {
    char base[4096], init[4096];
    const char *relative = sl_json_string(sl_json_get(o->curve, "base_model")), *quant = sl_json_string(sl_json_get(o->curve, "base_quant"));
    sllm_model_params params = {.exact = true, .load_in_4bit = quant ? SLLM_NF4 : SLLM_AS_STORED, .double_quant = quant && !strcmp(quant, "nf4-dq")};
    double decay = 0;
    sl_json_double(sl_json_get(sl_json_get(o->curve, "optimizer"), "weight_decay"), &decay);
    sl_adamw_params adamw = {0.9f, 0.999f, 1e-8f, (float)decay};
    snprintf(base, sizeof base, "%s/%s", o->path, relative ? relative : "");
    snprintf(init, sizeof init, "%s/adapter_init", o->path);
    if (!open_file(o, "batches.safetensors", &o->batches) || !open_file(o, "probe.safetensors", &o->probe) ||
        !open_file(o, "grads_step1.safetensors", &o->first) || !open_file(o, "adapter_after_step2.safetensors", &o->second) ||
        !open_file(o, "adapter_final/adapter_model.safetensors", &o->last) || sl_model_load(base, &params, &o->model, &o->error) ||
        !use_stored(o, arena) || sl_adapter_read(o->model, init, &o->adapter, &o->error) ||
        sl_learner_new(o->model, o->adapter, ROWS * LENGTH, ROWS, &o->learner, &o->error) ||
        sl_adamw_new(o->adapter, &adamw, &o->optimiser, &o->error))
        return false;
    o->ids = numbers_of(o->batches, "input_ids");
    o->mask = numbers_of(o->batches, "attention_mask");
    o->labels = numbers_of(o->batches, "labels");
    return o->ids && o->mask && o->labels;
}

static void close_case(one *o) {
    sl_adamw_free(o->optimiser);
    sl_learner_free(o->learner);
    sl_adapter_free(o->adapter);
    sl_model_free(o->model);
    sl_safetensors *const files[] = {o->batches, o->probe, o->first, o->second, o->last};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) sl_safetensors_close(files[i]);
}

static void one_case(golden *g, const char *path, const char *name) {
    sl_arena arena = {0};
    one o = {.g = g, .path = path, .name = name};
    o.curve = sl_path_is_directory(path) ? json_file(&arena, path, "curve.json") : NULL;
    if (o.curve) {
        bool good = open_case(&o, &arena) && probe(&o);
        for (int i = 0; i < STEPS && good; i++) good = one_step(&o, i);
        if (good) o.worst_last = compare_lora(&o, o.last, "base_model.model.", false, 0);
        good = good && o.worst_loss <= LOSS && o.worst_norm <= NORM && o.worst_hidden <= GRADIENT && o.worst_probe <= GRADIENT &&
               o.worst_first <= GRADIENT && o.worst_second <= FINAL && o.worst_last <= FINAL;
        (good ? golden_pass : golden_fail)(g, name, "loss %.1e, norm %.1e, gradients %.1e hidden %.1e lora %.1e, adapter %.1e after two steps %.1e "
                                           "%s", o.worst_loss, o.worst_norm, o.worst_first, o.worst_hidden, o.worst_probe, o.worst_last,
                                           o.worst_second, o.error.message);
    }
    close_case(&o);
    sl_arena_free(&arena);
}

void golden_training(golden *g, const char *directory) {
    if (!golden_each(directory, one_case, g)) golden_fail(g, directory, "cannot be read");
}
