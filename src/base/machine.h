/* What the machine has, and what of it this process uses: /proc and the control group. */
#ifndef SL_BASE_MACHINE_H
#define SL_BASE_MACHINE_H

#include "sllm.h"

void sl_machine_read(sllm_machine *machine); /* all but `kernels`, which the tensor room knows: it is "" */
void sl_memory_read(sllm_memory *memory);    /* zeroes where there is no /proc */

#endif
