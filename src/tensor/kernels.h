/* The table of kernels, one file per instruction set: kernels_scalar.c; kernels_avx2.c and kernels_avx512.c; and
 * kernels_neon.c and kernels_neon_dot.c; each compiled with its own flags. ops.c calls through the table that sl_kernels_get() chooses. */
#ifndef SL_TENSOR_KERNELS_H
#define SL_TENSOR_KERNELS_H

#include "sllm.h"
#include "tensor/ops.h"

typedef struct sl_kernels sl_kernels; /* defined in kernels_table.h for tensor/ only */

/* The best table this processor runs, chosen at the first call; a forced choice comes before that. */
const sl_kernels *sl_kernels_get(void);
const char *sl_kernels_name(void);
sllm_status sl_kernels_choose(const char *name, sllm_error *error);
/* The tables of this build, best first, and whether this processor runs them; NULL: no more. */
const char *sl_kernels_known(int index, bool *can_run);

#endif
