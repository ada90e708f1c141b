/* A child process, run without a shell. */
#ifndef SL_HUB_PROCESS_H
#define SL_HUB_PROCESS_H

#include "base/buffer.h"
#include "sllm.h"

typedef struct sl_process {
    const char *const *arguments;   /* NULL-terminated; [0] is looked up in PATH */
    const char *temporary;          /* folder the child uses for its temporary files; NULL: the usual one */
    double time_limit;              /* seconds; 0: none */
    bool (*keep_going)(void *user); /* asked every tenth of a second; false kills the child and its children */
    void *user;
    sl_buffer *output; /* the last 16 KiB of standard output and error together */
    int exit_code;     /* set: exit status, or 128 + signal */
} sl_process;

/* Runs to the end. SLLM_ERROR_NOT_FOUND: no such program; SLLM_ERROR_CANCELLED: keep_going said no;
 * SLLM_ERROR_IO: it could not be started, or took longer than time_limit. SLLM_OK says nothing about exit_code. */
sllm_status sl_process_run(sl_process *process, sllm_error *error);

#endif
