/* What the processor and the process may use. */
#ifndef SL_BASE_CPU_H
#define SL_BASE_CPU_H

#include "sllm.h"

typedef struct sl_cpu {
    bool avx2, fma, f16c, avx512f, avx512bw, avx512vl, avx512vnni, avx512bf16, avx_vnni, neon, dotprod;
} sl_cpu;

const sl_cpu *sl_cpu_features(void); /* detected once */
int sl_cpu_count(void);              /* affinity and cgroup quota respected; at least 1 */

#endif
