/* learn MODEL [EXAMPLES LENGTH RANK THREADS STEPS]: seconds of a training step, forward, loss and backward together, every position
 * labelled; tokens a second, and the process's peak memory. */
#include "train/learner.h"
#include "train/optimiser.h"

#include "base/clock.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static bool linear(void *user, const sl_product_place *place) {
    (void)user;
    return place->slot != SL_SLOT_OUTPUT;
}

int main(int argc, char **argv) {
    int n = argc > 2 ? atoi(argv[2]) : 4, length = argc > 3 ? atoi(argv[3]) : 256, rank = argc > 4 ? atoi(argv[4]) : 16;
    sllm_model_params params = {.n_threads = argc > 5 ? atoi(argv[5]) : 0};
    int steps = argc > 6 ? atoi(argv[6]) : 3;
    sllm_error error = {0};
    sl_model *model;
    sl_adapter *adapter;
    sl_learner *learner;
    sl_adamw *adamw;
    sl_rng rng;
    const sl_adamw_params how = {0.9f, 0.999f, 1e-8f, 0};
    if (argc < 2 || sl_model_load(argv[1], &params, &model, &error) || sl_adapter_new(model, rank, 2, false, linear, NULL, &adapter, &error) ||
        sl_learner_new(model, adapter, n * length, n, &learner, &error) || sl_adamw_new(adapter, &how, &adamw, &error)) {
        fprintf(stderr, "learn: %s\n", argc < 2 ? "give a model" : error.message);
        return 1;
    }
    sl_rng_seed(&rng, 1);
    int32_t *ids = malloc((size_t)n * (size_t)length * sizeof *ids);
    sl_example *examples = malloc((size_t)n * sizeof *examples);
    if (!ids || !examples) return 1;
    for (int i = 0; i < n * length; i++) ids[i] = (int32_t)(sl_rng_uniform(&rng) * model->config.n_vocab);
    for (int i = 0; i < n; i++) examples[i] = (sl_example){ids + i * length, ids + i * length, length};
    for (size_t i = 0; i < adapter->n; i++)
        for (int64_t k = 0; k < adapter->list[i].rank * adapter->list[i].n_in; k++) adapter->list[i].a[k] = (float)sl_rng_uniform(&rng) * 0.02f - 0.01f;
    for (int s = 0; s < steps; s++) {
        double began = sl_clock(), loss, forward;
        if (sl_learner_loss(learner, examples, n, 1.0 / (n * (length - 1)), &forward, &error)) return 1;
        double middle = sl_clock();
        sl_backward_clear(sl_learner_backward(learner));
        if (sl_learner_add(learner, examples, n, 1.0 / (n * (length - 1)), &loss, NULL, NULL, &error)) return 1;
        sl_adamw_step(adamw, sl_backward_grads(sl_learner_backward(learner)), 1, 1e-4);
        double end = sl_clock();
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        printf("step %.2f s (forward and loss alone %.2f), %.0f tokens/s, loss %.4f, peak %.0f MB\n", end - middle, middle - began,
               n * length / (end - middle), loss, (double)usage.ru_maxrss / 1024);
    }
    return 0;
}
