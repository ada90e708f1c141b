/* The part of sllm_quantize that writes checkpoint folders. */
#ifndef SL_API_QUANTIZE_FOLDER_H
#define SL_API_QUANTIZE_FOLDER_H

#include "base/buffer.h"
#include "quant/solve.h"
#include "sllm_quant.h"

bool sl_is_folder_type(const char *type); /* NULL: false */
/* SLLM_ERROR_ARGUMENT: a method that is not known, or without the text it needs. */
sllm_status sl_quantize_method(const sllm_quantize_params *params, sl_method *method, sllm_error *error);
/* " --calibrate NAME (N tokens, SHA-256 ...)" where there is text. */
void sl_quantize_put_calibration(const sllm_quantize_params *params, size_t n_ids, sl_buffer *recipe);
/* How many matrices a method solved or only rounded, into the report; NULL: without a method. */
void sl_quantize_put_solved(const sl_solve_counts *counts, sl_buffer *report);
sllm_status sl_quantize_folder(const char *in, const char *out, const sllm_quantize_params *params, char **report, sllm_error *error);

#endif
