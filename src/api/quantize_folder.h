/* The part of sllm_quantize that writes checkpoint folders. */
#ifndef SL_API_QUANTIZE_FOLDER_H
#define SL_API_QUANTIZE_FOLDER_H

#include "quant/solve.h"
#include "sllm_quant.h"

bool sl_is_folder_type(const char *type); /* NULL: false */
/* SLLM_ERROR_ARGUMENT: a method that is not known, or without the text it needs. */
sllm_status sl_quantize_method(const sllm_quantize_params *params, sl_method *method, sllm_error *error);
sllm_status sl_quantize_folder(const char *in, const char *out, const sllm_quantize_params *params, char **report, sllm_error *error);

#endif
