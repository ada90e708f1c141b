/* Classifies a text without training: which of the labels does the model find most probable after it?
 *
 *     classify MODEL "The film was wonderful." good bad
 *
 * Prints each label with its probability, then the choice. */
#include <sllm.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    sllm_model *model = NULL;
    sllm_session *session = NULL;
    sllm_tokens prompt = {0};
    sllm_generation answer = {0};
    sllm_generate_params params;
    sllm_error error = {0};
    char text[4096];
    if (argc < 5) {
        fprintf(stderr, "usage: %s MODEL TEXT LABEL LABEL...\n", argv[0]);
        return 2;
    }
    int length = snprintf(text, sizeof text, "Text: %s\nThe text is best described as: ", argv[2]);
    if (length < 0 || (size_t)length >= sizeof text) {
        fprintf(stderr, "error: the text is longer than %zu bytes\n", sizeof text);
        return 1;
    }
    sllm_generate_params_init(&params);
    params.sampler.temperature = 0; /* the most probable label */
    params.choices = (const char *const *)&argv[3];
    params.n_choices = (size_t)argc - 3;

    bool failed = sllm_model_load(argv[1], NULL, &model, &error) || sllm_session_new(model, NULL, &session, &error) ||
                  sllm_tokenize(model, text, strlen(text), SLLM_TOKENIZE_ADD, &prompt, &error) ||
                  sllm_generate(session, prompt.ids, prompt.n, &params, &answer, &error);
    if (failed) fprintf(stderr, "error: %s\n", error.message);
    for (size_t i = 0; !failed && i < params.n_choices; i++)
        printf("%s %.4f\n", params.choices[i], answer.choice_probabilities[i]);
    if (!failed) printf("-> %s\n", answer.text);

    sllm_generation_free(&answer);
    sllm_tokens_free(&prompt);
    sllm_session_free(session);
    sllm_model_free(model);
    return failed;
}
