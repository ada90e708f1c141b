/* How well predicted labels are the true ones: scikit-learn's classification_report, confusion matrix and coefficients. */
#ifndef SL_EVAL_CLASSIFICATION_H
#define SL_EVAL_CLASSIFICATION_H

#include "base/buffer.h"

/* Labels of n samples, n >= 1. labels [n_labels]: those that are reported, in this order; NULL: all that occur, sorted.
 * zero_division: what a ratio without a denominator counts as. Appends a JSON object: accuracy, report (each label, "accuracy" or
 * "micro avg", "macro avg", "weighted avg": precision, recall, f1-score, support), confusion_labels, confusion [true][predicted], micro,
 * macro, weighted, balanced_accuracy, matthews, cohen_kappa (null: not defined). False: out of memory. */
bool sl_classification_report(const char *const *truth, const char *const *predicted, size_t n, const char *const *labels, size_t n_labels,
                              double zero_division, sl_buffer *out);

#endif
