/* kernels_avx512.c over the emulated instructions of x86/immintrin.h: its logic, and the bits that it gives, are tested
 * on every machine with AVX2. */
#include "tensor/simd_avx512.h"

#undef OPAQUE
#define OPAQUE(v) __asm__ volatile("" : "+m"(v)) /* a pair of registers has no constraint of its own */

#include "tensor/kernels_avx512.c"
