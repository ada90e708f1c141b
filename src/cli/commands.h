/* Every command's row, one per file of src/cli. */
#ifndef SLLM_CLI_COMMANDS_H
#define SLLM_CLI_COMMANDS_H

#include "cli/cli.h"

extern const cli_command cli_command_run;        /* run.c */
extern const cli_command cli_command_chat;       /* chat.c */
extern const cli_command cli_command_batch;      /* batch.c */
extern const cli_command cli_command_models;     /* models.c */
extern const cli_command cli_command_pull;       /* pull.c */
extern const cli_command cli_command_list;       /* cache.c */
extern const cli_command cli_command_rm;         /* cache.c */
extern const cli_command cli_command_verify;     /* cache.c */
extern const cli_command cli_command_doctor;     /* doctor.c */
extern const cli_command cli_command_show;       /* show.c */
extern const cli_command cli_command_plan;       /* plan.c */
extern const cli_command cli_command_choose;     /* choose.c */
extern const cli_command cli_command_bench;      /* bench.c */
extern const cli_command cli_command_tokenize;   /* tokenize.c */
extern const cli_command cli_command_detokenize; /* tokenize.c */
extern const cli_command cli_command_template;   /* render.c */
extern const cli_command cli_command_logits;     /* logits.c */
extern const cli_command cli_command_inspect;    /* inspect.c */
extern const cli_command cli_command_compare;    /* compare.c */
extern const cli_command cli_command_convert;    /* convert.c */
extern const cli_command cli_command_quantize;   /* quantize.c */
extern const cli_command cli_command_finetune;   /* finetune.c */
extern const cli_command cli_command_eval;       /* eval.c */
extern const cli_command cli_command_merge;      /* merge.c */
extern const cli_command cli_command_perplexity; /* perplexity.c */
extern const cli_command cli_command_help;       /* help.c */

#endif
