/* sllm_eval: what a model knows of a text, and what was lost on the way from one model to another. */
#ifndef SLLM_EVAL_H
#define SLLM_EVAL_H

#include "sllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The text is cut into chunks of n_ctx tokens (a BOS in place of the first where the model adds one); the second half of
 * each chunk is scored, as llama.cpp's perplexity tool does, so that figures can be compared. */
typedef struct sllm_eval_params {
    int n_ctx;    /* tokens a chunk; 0: 512, or the model's context where that is shorter */
    int n_chunks; /* at most; 0: all */
    bool jsonl;   /* the text is lines of JSON with "text" or "messages" (through the chat template) */
    const char *text_name; /* for the report; NULL: "text" */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* tokens; false cancels; or NULL */
    void *user;
} sllm_eval_params;

SLLM_API void sllm_eval_params_init(sllm_eval_params *params);

typedef struct sllm_perplexity_result {
    double perplexity, standard_error; /* of the perplexity, by its derivative */
    double mean_nll;                   /* nats a token */
    int64_t tokens, scored;            /* read, and scored */
    int chunks;
    double seconds, tokens_per_second;
    bool exact;                        /* the arithmetic */
} sllm_perplexity_result;

/* Perplexity of text [length], UTF-8. SLLM_ERROR_ARGUMENT: fewer tokens than a chunk; both counts are named.
 * SLLM_ERROR_FORMAT: the model's answers are not finite numbers; from sllm_compare too. */
SLLM_API sllm_status sllm_perplexity(const sllm_model *model, const char *text, size_t length,
                                     const sllm_eval_params *params, sllm_perplexity_result *result, sllm_error *error);

/* Compares b with a, which is the measure: KL divergence of b's predictions from a's, and the error of each tensor. The
 * vocabularies must be the same (SLLM_ERROR_ARGUMENT); the text is read with a's tokenizer. *json: an object with
 * mean_kld, mean_kld_standard_error, median_kld, p90_kld, p99_kld, p999_kld, max_kld (nats), top1_agreement and its error,
 * perplexity_a and _b with errors, tokens_per_second_a and _b, arithmetic, bytes_a, bytes_b, chunks, scored, and tensors[]:
 * name, shape, type_a, type_b, bytes_a, bytes_b, rmse, relative_error, max_error, cosine (null where the other file has no
 * such tensor or another shape; absent where one of the models was made by AWQ, which tensors_note then says). *html (may be NULL): the same as one page that needs nothing else. The caller frees both
 * with sllm_free. */
SLLM_API sllm_status sllm_compare(const sllm_model *a, const sllm_model *b, const char *text, size_t length,
                                  const sllm_eval_params *params, char **json, char **html, sllm_error *error);

/* ---------------------------------------------------------------- classification */

typedef struct sllm_classify_params {
    const char *const *labels; /* [n_labels] what the answer is one of; n_labels 0: the outputs that occur in the data */
    size_t n_labels;
    bool free_answers;         /* answers are generated freely and compared: case, blanks and a full stop around them do not count */
    const char *format;        /* NULL or "template": the model's; "alpaca", "plain" (sllm_train.h) */
    const char *data_name;     /* in messages; NULL: "data" */
    bool (*on_progress)(void *user, const char *what, uint64_t done, uint64_t total); /* examples; false cancels; may be NULL */
    void *user;
} sllm_classify_params;

SLLM_API void sllm_classify_params_init(sllm_classify_params *params);
/* Asks the model for each line of data [length], {"instruction", "input"?, "output"} or {"text", "label"}, and compares. *json: an
 * object with n, examples_per_second, accuracy, report (precision, recall, f1-score and support of each label, macro and weighted
 * averages, as scikit-learn's classification_report), micro, macro, weighted, confusion_labels, confusion[true][predicted],
 * balanced_accuracy, matthews, cohen_kappa, and wrong[]: line, expected, answered (100 at most). The caller frees it.
 * SLLM_ERROR_FORMAT: a line that is no such record, or whose output is not among the labels (the line is named). */
SLLM_API sllm_status sllm_eval_classify(sllm_model *model, const char *data, size_t length, const sllm_classify_params *params, char **json,
                                        sllm_error *error);

#ifdef __cplusplus
}
#endif

#endif
