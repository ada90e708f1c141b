/* Examples to learn from, read from JSON lines: what the model will see, token by token, and which tokens it is to learn. */
#ifndef SL_TRAIN_DATA_H
#define SL_TRAIN_DATA_H

#include "train/learner.h"

typedef enum sl_data_format {
    SL_FORMAT_TEMPLATE, /* the model's chat template: instruction and input are the user's turn, the output the assistant's */
    SL_FORMAT_ALPACA,   /* "Below is an instruction ...", ### Instruction, ### Input, ### Response */
    SL_FORMAT_PLAIN     /* "Instruction: ...\nInput: ...\nResponse:" and the output after a space; no Input line without input */
} sl_data_format;

typedef enum sl_over_long { SL_OVER_LONG_REFUSE, SL_OVER_LONG_TRUNCATE, SL_OVER_LONG_SPLIT } sl_over_long;

typedef struct sl_data_params {
    sl_data_format format;
    bool prompt_loss;    /* the prompt is learned too */
    bool no_end;         /* an output outside a template ends without the end-of-sequence token */
    int max_length;      /* tokens of an example */
    sl_over_long over_long;
} sl_data_params;

/* Examples in file order; `labels` SL_NO_LABEL where nothing is learned. */
typedef struct sl_dataset {
    sl_example *examples; /* [n], into ids and labels */
    int *lines;           /* [n] of the file, from 1 */
    int32_t *ids, *labels;
    size_t n, n_tokens, n_labels;
    size_t n_truncated, n_split; /* examples that were cut, or made into several */
    int longest;
} sl_dataset;

/* Lines of text [length]: {"instruction", "input"?, "output" | "response"}, {"prompt", "completion" | "response"}, {"messages"} or
 * {"text"}. `name` names the file in messages, which give the line. SLLM_ERROR_FORMAT: no JSON, a field that is not known or missing,
 * an empty output, an example without a label. SLLM_ERROR_ARGUMENT: over-long examples where they are refused (how many, the first).
 * SLLM_ERROR_UNSUPPORTED: a template that cannot be split into turns. */
sllm_status sl_dataset_read(const sl_model *model, const char *text, size_t length, const char *name, const sl_data_params *params,
                            sl_dataset *dataset, sllm_error *error);
void sl_dataset_free(sl_dataset *dataset);

/* What a user writes when the model is asked later: the user's turn of an instruction and its input ("" or NULL: none). */
bool sl_data_user_turn(const char *instruction, const char *input, sl_buffer *out);
/* The whole prompt in a format other than the template. */
bool sl_data_prompt(sl_data_format format, const char *instruction, const char *input, sl_buffer *out);

#endif
