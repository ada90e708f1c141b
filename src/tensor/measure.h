/* What this machine can do at most: the figures that speeds are held against (`sllm bench`) and predicted from (`sllm
 * plan`). Read bandwidth and the peaks of the kernels' inner loops bound a forward from above (the roofline of Williams,
 * Waterman and Patterson 2009, doi 10.1145/1498765.1498785). */
#ifndef SL_TENSOR_MEASURE_H
#define SL_TENSOR_MEASURE_H

#include "sllm.h"

/* Measures with the kernels in use, on 1 thread and on n_threads (1..512, made for it and ended), in about 0.3 s; the best
 * of several short runs of each, so that a neighbour who takes the processor for a moment does not count.
 * SLLM_ERROR_MEMORY when there is no memory to read from or no thread to be had. */
sllm_status sl_measure(int n_threads, sllm_machine_speed *speed, sllm_error *error);

#endif
