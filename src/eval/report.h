/* A comparison of two models, written as JSON and as a page. */
#ifndef SL_EVAL_REPORT_H
#define SL_EVAL_REPORT_H

#include "base/buffer.h"
#include "eval/score.h"
#include "eval/tensor_error.h"

/* A tensor of a, and its error in b. */
typedef struct sl_report_tensor {
    const sl_tensor *a, *b; /* b NULL: none of that name and shape */
    bool is_measured;
    sl_tensor_error error;
} sl_report_tensor;

typedef struct sl_report {
    const char *path_a, *path_b, *text_name;
    bool exact;
    int n_ctx;
    uint64_t bytes_a, bytes_b;     /* of the files */
    const sl_comparison *comparison;
    const sl_report_tensor *tensors; /* [n_tensors] */
    size_t n_tensors;
    const char *note;              /* why tensors are not measured; NULL */
} sl_report;

void sl_report_json(const sl_report *report, sl_buffer *out);
void sl_report_html(const sl_report *report, sl_buffer *out);

#endif
