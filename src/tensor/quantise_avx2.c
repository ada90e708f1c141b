/* The quantisers with AVX2: the same source, the same bits. */
#if defined(__x86_64__)
#define SL_QUANTISE_TABLE sl_quantise_avx2
#include "tensor/quantise_types.h"
#else
typedef int sl_quantise_avx2_is_empty; /* ISO C wants a declaration */
#endif
