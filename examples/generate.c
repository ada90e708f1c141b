/* Loads a model, continues a prompt, and prints the answer as it comes.
 *
 *     generate MODEL "Once upon a time"
 *
 * MODEL is a GGUF file or a checkpoint folder. Build: cc generate.c $(pkg-config --cflags --libs sllm) */
#include <sllm.h>
#include <stdio.h>
#include <string.h>

static bool print_text(void *user, const sllm_event *event) {
    (void)user;
    fwrite(event->text, 1, event->length, stdout);
    return fflush(stdout) == 0; /* nobody reads any more: stop */
}

int main(int argc, char **argv) {
    sllm_model *model = NULL;
    sllm_session *session = NULL;
    sllm_tokens prompt = {0};
    sllm_generation answer = {0};
    sllm_generate_params params;
    sllm_error error = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
        return 2;
    }
    sllm_generate_params_init(&params);
    params.max_new_tokens = 40;
    params.sampler.seed = 1;
    params.on_event = print_text;

    bool failed = sllm_model_load(argv[1], NULL, &model, &error) || sllm_session_new(model, NULL, &session, &error) ||
                  sllm_tokenize(model, argv[2], strlen(argv[2]), SLLM_TOKENIZE_ADD, &prompt, &error) ||
                  sllm_generate(session, prompt.ids, prompt.n, &params, &answer, &error);
    if (failed) fprintf(stderr, "error: %s\n", error.message);
    else printf("\n[%zu tokens, %s, %.1f tokens/s]\n", answer.completion_tokens, sllm_finish_name(answer.finish),
                answer.tokens_per_second);

    sllm_generation_free(&answer);
    sllm_tokens_free(&prompt);
    sllm_session_free(session);
    sllm_model_free(model);
    return failed;
}
