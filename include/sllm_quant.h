/* sllm_quant: models written again: converted, quantised, calibrated.
 *
 * Every function works in bounded memory whatever the model's size and writes files and folders that appear under their names
 * only when they are complete. A GGUF file whose run was interrupted is taken up again when the function is called with the
 * same arguments (NAME.part and NAME.part.journal hold what is finished); a folder (NAME.part-XXXXXX, which only a killed
 * process leaves behind) begins anew. Two runs cannot write one file. Links are followed: what they lead to is replaced.
 */
#ifndef SLLM_QUANT_H
#define SLLM_QUANT_H

#include "sllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called now and then with what is being done and how far it is, in units of `total` (bytes, tensors or tokens); false
 * cancels: SLLM_ERROR_CANCELLED. */
typedef bool (*sllm_quant_progress)(void *user, const char *what, uint64_t done, uint64_t total);

/* ---------------------------------------------------------------- convert */

typedef struct sllm_convert_params {
    const char *type;     /* of matrices: "F32", "F16", "BF16"; NULL: as in the source */
    const char *pre;      /* GGUF's name of the pre-tokeniser; NULL: found by trial */
    bool allow_nonfinite; /* NaN and infinities become 0 in place of being refused */
    bool requantize;      /* widen matrices that are quantised already (to f32 in a GGUF file, without a type) */
    uint64_t split_bytes; /* > 0: parts of at most so many bytes */
    int n_threads;        /* 0: all that the process may use. 1..512 */
    sllm_quant_progress on_progress; /* may be NULL */
    void *user;
} sllm_convert_params;

SLLM_API void sllm_convert_params_init(sllm_convert_params *params);
/* The checkpoint folder `in` to the GGUF file `out`, with tokenizer, chat template, licence, the source's SHA-256 and the
 * recipe in its metadata. *report (may be NULL; the caller frees it): a JSON object with bytes_in, bytes_out, tensors,
 * source_sha256, recipe, requantized, nonfinite, resumed and warnings[]. SLLM_ERROR_UNSUPPORTED: what a GGUF file cannot say.
 * SLLM_ERROR_ARGUMENT: others have quantised the folder in a way that no GGUF type holds exactly, without `requantize`.
 *
 * Where `in` is a GGUF file (of a split: its first part), `out` is a checkpoint folder to be made, with config.json,
 * safetensors, tokenizer and template; pre and split_bytes do not apply, and the report has no resumed
 * and source_sha256. SLLM_ERROR_ARGUMENT: the file is quantised, without `requantize`; `out` is there already.
 * SLLM_ERROR_UNSUPPORTED: what config.json or tokenizer.json cannot say. */
SLLM_API sllm_status sllm_convert(const char *in, const char *out, const sllm_convert_params *params, char **report,
                                  sllm_error *error);

/* ---------------------------------------------------------------- quantise */

typedef struct sllm_quantize_params {
    const char *type;          /* a name of sllm_quantize_types or, for folders, of sllm_quantize_folder_types; NULL with
                                  budget_bytes or bits: "Q4_K_M" */
    const char *const *rules;  /* [n_rules] "PATTERN=TYPE": a shell pattern over tensor names; the first that matches */
    size_t n_rules;
    const char *method;        /* NULL or "round"; "gptq" (second-order) or "awq" (scaled inputs): both need calibration text */
    bool act_order;            /* gptq, folders: columns of large inputs first, which costs readers time; GGUF types, whose
                                  blocks stay in place, are always solved so */
    int group_size;            /* folders of int4 and int8: columns that share a scale; 0: 128 */
    bool double_quant;         /* folders of nf4 and fp4: the blocks' largest values in 8 bits too */
    bool keep_output;          /* the matrix that makes logits stays as it is */
    bool pure;                 /* one type for all matrices */
    bool requantize;           /* allow sources that are quantised already */
    bool allow_nonfinite;      /* NaN and infinities become 0 in place of being refused */
    uint64_t budget_bytes;     /* 0: none. Types are searched so that the file fits */
    double bits;               /* 0: none. The same, as bits per weight of all matrices together (0.5 to 32) */
    const char *importance;    /* importance file to read (llama.cpp's imatrix forms); NULL: none */
    const char *calibration;   /* text to measure importance on, in place of a file; NULL: none */
    size_t calibration_length;
    bool calibration_jsonl;    /* lines {"text"} or {"messages"} */
    const char *calibration_name; /* what to call it in the recipe; NULL: "text" */
    const char *importance_out;   /* file to write the measured importance to; NULL: none */
    uint64_t split_bytes;      /* > 0: parts of at most so many bytes */
    int n_threads;             /* 0: all that the process may use. 1..512 */
    sllm_quant_progress on_progress; /* may be NULL */
    void *user;
} sllm_quantize_params;

SLLM_API void sllm_quantize_params_init(sllm_quantize_params *params);
/* The mixes by name, NULL-terminated: "Q4_K_M", ... */
SLLM_API const char *const *sllm_quantize_types(void);
/* The types of checkpoint folders, NULL-terminated: "nf4", "fp4" (bitsandbytes), "int4", "int8" (GPTQ's layout; int4 with
 * the method awq: AWQ's). With one of them `in` is a checkpoint folder and `out` a folder to be made; rules, pure, budgets,
 * importance, split_bytes and keep_output do not apply (SLLM_ERROR_ARGUMENT), and the report has bytes_in, bytes_out,
 * quantized, copied (tensors), experts_kept (nf4 and fp4: experts' matrices, which bitsandbytes has no form for), recipe and,
 * with a method, solved and the like. */
SLLM_API const char *const *sllm_quantize_folder_types(void);
/* The GGUF file `in` (of a split: its first part; or a checkpoint folder, which is converted to OUT.part.source first, for as
 * long as it is needed) to the GGUF file `out`. *report (may be NULL; the caller frees it with
 * sllm_free): a JSON object with bytes_in, bytes_out, bits_per_weight, types, fallbacks[], requantized, nonfinite,
 * resumed, recipe and tensors[] (name, shape, from, to, bytes); with an importance file without_importance where it lacks some
 * tensors, with a method solved, rounded_unreached, rounded_singular and rounded_plain (matrices), from a folder the warnings[]
 * of converting it. Errors: _ARGUMENT (type, rule, budget that cannot be met,
 * text too short, a source that is quantised already), _FORMAT (damaged file; values that are not finite), _IO. */
SLLM_API sllm_status sllm_quantize(const char *in, const char *out, const sllm_quantize_params *params, char **report,
                                   sllm_error *error);

#ifdef __cplusplus
}
#endif

#endif
