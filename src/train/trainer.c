#include "train/trainer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/rng.h"
#include "base/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* ---------------------------------------------------------------- which products learn */

/* Is the module's last part in the list "a,b,c"? */
static bool in_list(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        if (n == length && !memcmp(at, name, n)) return true;
        at += n + (at[n] == ',');
    }
    return false;
}

static bool wanted(void *user, const sl_product_place *place) {
    const sl_trainer *t = user;
    char module[SL_NAME_SIZE];
    const char *target = t->params->target;
    if (!target || !strcmp(target, "all-linear")) return place->slot != SL_SLOT_OUTPUT;
    if (!sl_weights_name(t->model->config.family->names, place->slot, place->layer, place->expert, "", module)) return false;
    const char *dot = strrchr(module, '.');
    return in_list(target, dot ? dot + 1 : module);
}

/* ---------------------------------------------------------------- examples */

static void shuffle(int *list, int n, uint64_t seed) {
    sl_rng rng;
    sl_rng_seed(&rng, seed);
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(sl_rng_uniform(&rng) * (i + 1)), other = list[k];
        list[k] = list[i];
        list[i] = other;
    }
}

/* Some examples, chosen by the seed, are measured and never learned. */
static sllm_status divide(sl_trainer *t) {
    int n = (int)t->data.n, measured = (int)floor(t->params->eval_split * n + 0.5);
    if (t->data.n > INT32_MAX / 2) return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "%zu examples are too many", t->data.n);
    if (measured >= n) measured = n - 1;
    int *all = malloc((size_t)n * sizeof *all);
    t->order = malloc((size_t)n * sizeof *t->order);
    t->train = all;
    if (!all || !t->order) return sl_fail_memory(t->error, "the order of examples", 0);
    for (int i = 0; i < n; i++) all[i] = i;
    if (measured) shuffle(all, n, t->params->seed ^ 0x5eed);
    t->n_train = n - measured;
    t->eval = all + t->n_train;
    t->n_eval = measured;
    return SLLM_OK;
}

static void order_for(sl_trainer *t, int64_t epoch) {
    if (t->order_epoch == epoch) return;
    memcpy(t->order, t->train, (size_t)t->n_train * sizeof *t->order);
    shuffle(t->order, t->n_train, t->params->seed + 0x9e3779b97f4a7c15u * (uint64_t)(epoch + 1));
    t->order_epoch = epoch;
}

/* ---------------------------------------------------------------- opening */

static sllm_status fill(sl_trainer *t) {
    static const char *const formats[] = {"template", "alpaca", "plain"}, *const longs[] = {"refuse", "truncate", "split"};
    static const char *const schedules[] = {"linear", "cosine", "constant"};
    const sllm_train_params *p = t->params;
    const struct { const char *given, *fallback, *const *words; int *out; const char *what; } choices[] = {
        {p->format, t->model->chat_template ? "template" : "alpaca", formats, (int *)&t->data_params.format, "format"},
        {p->over_long, "refuse", longs, (int *)&t->data_params.over_long, "treatment of over-long examples"},
        {p->schedule, "cosine", schedules, (int *)&t->schedule, "schedule"},
    };
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *word = choices[i].given ? choices[i].given : choices[i].fallback;
        int k = 0;
        while (k < 3 && strcmp(word, choices[i].words[k])) k++;
        if (k == 3) return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "there is no %s '%s'; there are %s, %s and %s", choices[i].what, word,
                                   choices[i].words[0], choices[i].words[1], choices[i].words[2]);
        *choices[i].out = k;
    }
    t->data_params.prompt_loss = p->prompt_loss;
    t->data_params.no_end = p->no_end;
    t->data_params.max_length = p->max_length;
    return SLLM_OK;
}

static sllm_status check(const sl_trainer *t) {
    const sllm_train_params *p = t->params;
    sllm_error *e = t->error;
    if (p->rank < 1 || p->rank > 1024) return sl_fail(e, SLLM_ERROR_ARGUMENT, "a rank of %d; need 1 to 1024", p->rank);
    if (!(p->alpha > 0) || !isfinite(p->alpha)) return sl_fail(e, SLLM_ERROR_ARGUMENT, "alpha must be above 0");
    if (!(p->dropout >= 0 && p->dropout < 1)) return sl_fail(e, SLLM_ERROR_ARGUMENT, "a dropout of %g; need 0 up to 1", p->dropout);
    if (p->batch < 1 || p->batch > 4096 || p->accumulation < 1 || p->accumulation > 4096)
        return sl_fail(e, SLLM_ERROR_ARGUMENT, "batches of %d, %d to a step: both must be 1 or more", p->batch, p->accumulation);
    if (!(p->epochs > 0) || p->epochs > 1e6) return sl_fail(e, SLLM_ERROR_ARGUMENT, "%g epochs", p->epochs);
    if (!(p->learning_rate > 0) || p->learning_rate > 1) return sl_fail(e, SLLM_ERROR_ARGUMENT, "a learning rate of %g; need above 0, at most 1", p->learning_rate);
    if (!(p->warmup >= 0 && p->warmup <= 1)) return sl_fail(e, SLLM_ERROR_ARGUMENT, "a warmup of %g of the steps", p->warmup);
    if (!(p->weight_decay >= 0)) return sl_fail(e, SLLM_ERROR_ARGUMENT, "a weight decay of %g", p->weight_decay);
    if (!(p->eval_split >= 0 && p->eval_split < 1)) return sl_fail(e, SLLM_ERROR_ARGUMENT, "%g of the examples to be measured; need 0 up to 1", p->eval_split);
    int limit = t->model->config.n_ctx_train;
    if (p->max_length < 8 || (limit > 0 && p->max_length > limit) || p->max_length >= 1 << 24)
        return sl_fail(e, SLLM_ERROR_ARGUMENT, "examples of up to %d tokens; need 8 to %d, the model's context", p->max_length, limit);
    return SLLM_OK;
}

sllm_status sl_trainer_open(sl_trainer *t, sl_model *model, const char *fingerprint, const char *data, size_t length, const char *out,
                            const sllm_train_params *params, sllm_error *error) {
    *t = (sl_trainer){.model = model, .params = params, .out = out, .order_epoch = -1, .best_eval = INFINITY, .best_step = -1, .error = error};
    sllm_status status = fill(t);
    memcpy(t->fingerprint, fingerprint, sizeof t->fingerprint);
    sl_sha256_hex(data, length, t->data_sha256);
    if (!status) status = check(t);
    if (!status) status = sl_dataset_read(model, data, length, params->data_name, &t->data_params, &t->data, error);
    if (!status && (int64_t)params->batch * t->data.longest > INT32_MAX / 4)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "batches of %d examples of up to %d tokens are too large", params->batch, t->data.longest);
    if (!status) status = divide(t);
    if (status) return status;
    int64_t a_step = (int64_t)params->batch * params->accumulation;
    t->steps_an_epoch = (t->n_train + a_step - 1) / a_step;
    t->total = (int64_t)ceil(params->epochs * (double)t->steps_an_epoch);
    float scale = (float)(params->alpha / (params->rslora ? sqrt((double)params->rank) : (double)params->rank));
    status = sl_adapter_new(model, params->rank, scale, params->dora, wanted, t, &t->adapter, error);
    if (!status && !t->adapter->n)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "--target %s names no product of this model", params->target ? params->target : "all-linear");
    t->form = (sl_adapter_form){params->rank, params->alpha, params->dropout, params->rslora, params->dora, params->model_name, NULL};
    return status;
}

static int batch_rows(const sl_trainer *t, int batch) { return batch * t->data.longest; }

static uint64_t bytes_for(const sl_trainer *t, int batch) {
    const sl_config *c = &t->model->config;
    int n = batch_rows(t, batch);
    size_t values = 0;
    for (size_t i = 0; i < t->adapter->n; i++)
        values += (size_t)t->adapter->list[i].rank * (size_t)(t->adapter->list[i].n_in + t->adapter->list[i].n_out);
    sl_kv_type type = t->model->exact || t->model->weights->only_f32 ? SL_KV_F32 : SL_KV_F16;
    return sl_tape_bytes(c, n, !t->model->exact, t->params->dora) + sl_backward_bytes(t->model, t->adapter, n) +
           (uint64_t)n * (uint64_t)c->n_embd * sizeof(float) + 3 * (uint64_t)values * sizeof(float) +
           sl_kv_pool_bytes(c, type, n / SL_PAGE + 2 * batch * t->params->accumulation + 1) +
           sl_work_bytes(c, sl_pool_threads(t->model->pool), t->model->exact);
}

uint64_t sl_trainer_bytes(const sl_trainer *t) { return bytes_for(t, t->params->batch); }

/* The largest batch, at most the one that is asked for, whose memory is within `bytes`; 0: none. */
static int largest_batch(const sl_trainer *t, uint64_t bytes) {
    int fits = 0, above = t->params->batch + 1;
    while (above - fits > 1) {
        int middle = fits + (above - fits) / 2;
        if (bytes_for(t, middle) <= bytes) fits = middle;
        else above = middle;
    }
    return fits;
}

sllm_status sl_trainer_check_memory(const sl_trainer *t) {
    sllm_machine machine;
    char hint[64] = "not even one of them fits: shorten them";
    sl_machine_read(&machine);
    uint64_t needed = sl_trainer_bytes(t);
    if (!machine.memory_free || needed <= machine.memory_free) return SLLM_OK;
    int batch = largest_batch(t, machine.memory_free);
    if (batch) snprintf(hint, sizeof hint, "a batch of %d would fit", batch);
    return sl_fail(t->error, SLLM_ERROR_MEMORY, "learning with batches of %d examples of up to %d tokens needs %.1f GB of memory beside the "
                   "model, and %.1f GB are free; %s", t->params->batch, t->data.longest, (double)needed / 1e9,
                   (double)machine.memory_free / 1e9, hint);
}

sllm_status sl_trainer_prepare(sl_trainer *t) {
    const sllm_train_params *p = t->params;
    const sl_adamw_params how = {0.9f, 0.999f, 1e-8f, (float)p->weight_decay};
    if (!sl_adapter_begin_values(t->model, t->adapter, p->seed)) return sl_fail_memory(t->error, "the adapter", 0);
    sllm_status status = sl_learner_new(t->model, t->adapter, batch_rows(t, p->batch), p->batch * p->accumulation, &t->learner, t->error);
    return status ? status : sl_adamw_new(t->adapter, &how, &t->adamw, t->error);
}

void sl_trainer_close(sl_trainer *t) {
    sl_adamw_free(t->adamw);
    sl_learner_free(t->learner);
    sl_adapter_free(t->adapter);
    sl_dataset_free(&t->data);
    free(t->train);
    free(t->order);
    free(t->own);
}

/* ---------------------------------------------------------------- a step */

/* The examples of a step within its epoch; how many. */
static int gather(sl_trainer *t, int64_t step, sl_example *examples, int64_t *first) {
    int64_t a_step = (int64_t)t->params->batch * t->params->accumulation;
    int n = 0;
    *first = step % t->steps_an_epoch * a_step;
    for (; n < a_step && *first + n < t->n_train; n++) examples[n] = t->data.examples[t->order[*first + n]];
    return n;
}

/* As many examples at once as the memory for a batch holds; what they begin with in common takes room once. */
static sllm_status learn(sl_trainer *t, sl_example *examples, sllm_train_event *event) {
    const sllm_train_params *p = t->params;
    sl_backward *b = sl_learner_backward(t->learner);
    int64_t first, labels = 0, tokens = 0;
    double part;
    order_for(t, t->step / t->steps_an_epoch);
    int all = gather(t, t->step, examples, &first);
    for (int i = 0; i < all; i++) {
        labels += sl_example_labels(&examples[i]);
        tokens += examples[i].n;
    }
    sl_backward_clear(b);
    event->loss = 0;
    for (int i = 0, n; i < all; i += n) {
        uint64_t epoch = (uint64_t)(t->step / t->steps_an_epoch);
        n = sl_learner_fits(t->learner, examples + i, all - i);
        sl_learner_drop(t->learner, (float)p->dropout, p->seed, epoch * (uint64_t)t->n_train + (uint64_t)(first + i));
        sllm_status status = sl_learner_add(t->learner, examples + i, n, 1.0 / (double)labels, &part, NULL, NULL, t->error);
        if (status) return status;
        event->loss += part;
    }
    event->grad_norm = sl_gradient_norm(t->adapter, sl_backward_grads(b));
    t->tokens = (uint64_t)tokens;
    return SLLM_OK;
}

static sllm_status update(sl_trainer *t, sllm_train_event *event) {
    const sllm_train_params *p = t->params;
    if (!isfinite(event->loss) || !isfinite(event->grad_norm))
        return sl_fail(t->error, SLLM_ERROR_UNSUPPORTED, "step %lld: the loss is not a finite number: learning has diverged; lower the learning rate "
                       "and go on from the last checkpoint", (long long)t->step + 1);
    double factor = p->max_grad_norm > 0 && event->grad_norm > p->max_grad_norm ? p->max_grad_norm / (event->grad_norm + 1e-6) : 1;
    int64_t warmup = (int64_t)ceil(p->warmup * (double)t->total);
    event->learning_rate = p->learning_rate * sl_schedule_factor(t->schedule, t->step, warmup, t->total);
    sl_adamw_step(t->adamw, sl_backward_grads(sl_learner_backward(t->learner)), (float)factor, event->learning_rate);
    if (p->dora && !sl_adapter_update_gains(t->model, t->adapter)) return sl_fail_memory(t->error, "DoRA's gains", 0);
    t->step++;
    return SLLM_OK;
}

/* The mean loss of the examples that are not learned; examples: room for a step's. */
static sllm_status measure(sl_trainer *t, sl_example *examples, double *loss) {
    int64_t labels = 0, a_step = (int64_t)t->params->batch * t->params->accumulation;
    double sum = 0, part;
    for (int i = 0, n; i < t->n_eval; i += n) {
        int there = 0;
        while (there < a_step && i + there < t->n_eval) examples[there] = t->data.examples[t->eval[i + there]], there++;
        n = sl_learner_fits(t->learner, examples, there);
        for (int k = 0; k < n; k++) labels += sl_example_labels(&examples[k]);
        sllm_status status = sl_learner_loss(t->learner, examples, n, 1, &part, t->error);
        if (status) return status;
        sum += part;
    }
    *loss = labels ? sum / (double)labels : NAN;
    return SLLM_OK;
}

static void time_of(sl_trainer *t, double began, int64_t first, sllm_train_event *event) {
    struct rusage usage;
    double now = sl_clock();
    getrusage(RUSAGE_SELF, &usage);
    event->step = t->step;
    event->total_steps = t->total;
    event->epoch = (double)t->step / (double)t->steps_an_epoch;
    event->tokens_per_second = now > began ? (double)t->tokens / (now - began) : 0;
    event->seconds = now - t->began;
    event->seconds_left = event->seconds / (double)(t->step - first) * (double)(t->total - t->step);
    event->memory_bytes = (uint64_t)usage.ru_maxrss * 1024;
}

static sllm_status one_step(sl_trainer *t, sl_example *examples, int64_t first, bool *goes_on) {
    sllm_train_event event = {.eval_loss = NAN};
    double began = sl_clock();
    sllm_status status = learn(t, examples, &event);
    if (!status) status = update(t, &event);
    if (status) return status;
    bool ends = t->step % t->steps_an_epoch == 0 || t->step == t->total;
    time_of(t, began, first, &event);
    if (ends && t->n_eval) status = measure(t, examples, &event.eval_loss);
    if (!status && ends && event.eval_loss < t->best_eval) t->best_eval = event.eval_loss, t->best_step = t->step;
    if (!status) status = sl_trainer_note(t, &event);
    *goes_on = !t->params->on_step || t->params->on_step(t->params->user, &event) || t->step == t->total;
    if (!status && (ends || !*goes_on)) status = sl_trainer_checkpoint(t);
    return status;
}

sllm_status sl_trainer_run(sl_trainer *t) {
    sl_example *examples = malloc((size_t)t->params->batch * (size_t)t->params->accumulation * sizeof *examples);
    int64_t first = t->step;
    bool goes_on = true;
    sllm_status status = examples ? SLLM_OK : sl_fail_memory(t->error, "a batch", 0);
    t->began = sl_clock();
    while (!status && goes_on && t->step < t->total) status = one_step(t, examples, first, &goes_on);
    free(examples);
    if (!status && !goes_on) return sl_fail(t->error, SLLM_ERROR_CANCELLED, "interrupted after step %lld of %lld; --resume goes on from there",
                                            (long long)t->step, (long long)t->total);
    return status ? status : sl_trainer_finish_folder(t);
}
