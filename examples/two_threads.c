/* One model, two sessions, two threads: both answer at once, and each answer is the one that it would be alone.
 *
 *     two_threads MODEL */
#include <pthread.h>
#include <sllm.h>
#include <stdio.h>
#include <string.h>

typedef struct job {
    sllm_model *model; /* shared: a model does not change after loading */
    const char *prompt;
    sllm_generation answer;
    sllm_error error;
} job;

/* A session, and all that generation needs, belongs to one thread. */
static void *answer(void *argument) {
    job *j = argument;
    sllm_session *session = NULL;
    sllm_tokens prompt = {0};
    sllm_generate_params params;
    sllm_generate_params_init(&params);
    params.sampler.temperature = 0;
    params.max_new_tokens = 40;
    if (sllm_session_new(j->model, NULL, &session, &j->error) == SLLM_OK &&
        sllm_tokenize(j->model, j->prompt, strlen(j->prompt), SLLM_TOKENIZE_ADD, &prompt, &j->error) == SLLM_OK)
        sllm_generate(session, prompt.ids, prompt.n, &params, &j->answer, &j->error);
    sllm_tokens_free(&prompt);
    sllm_session_free(session);
    return NULL;
}

int main(int argc, char **argv) {
    static const char *const prompts[2] = {"Once upon a time", "The capital of France is"};
    job alone[2], together[2];
    pthread_t threads[2];
    sllm_model *model = NULL;
    sllm_error error = {0};
    int failures = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL\n", argv[0]);
        return 2;
    }
    if (sllm_model_load(argv[1], NULL, &model, &error)) {
        fprintf(stderr, "error: %s\n", error.message);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        alone[i] = together[i] = (job){.model = model, .prompt = prompts[i]};
        answer(&alone[i]);
    }
    int started = 0;
    while (started < 2 && pthread_create(&threads[started], NULL, answer, &together[started]) == 0) started++;
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);

    for (int i = 0; i < 2; i++) {
        const char *text = together[i].answer.text, *expected = alone[i].answer.text;
        bool same = text && expected && strcmp(text, expected) == 0;
        if (!text) fprintf(stderr, "error: %s\n", started < 2 ? "no thread could be started" : together[i].error.message);
        printf("%s%s\n[%s]\n", prompts[i], text ? text : "", same ? "the same as alone" : "NOT the same as alone");
        failures += !same;
        sllm_generation_free(&alone[i].answer);
        sllm_generation_free(&together[i].answer);
    }
    sllm_model_free(model);
    return failures > 0;
}
