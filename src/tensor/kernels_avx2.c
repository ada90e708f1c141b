/* The table for AVX2 with FMA and F16C. The operations are written once, in the headers below, over the vector names of
 * simd_avx2.h; this file gives them their instruction set. */
#if defined(__x86_64__)

#include "tensor/simd_avx2.h"

#include "tensor/kernels_pack.h"
#include "tensor/kernels_panel.h"
#include "tensor/kernels_float.h"
#include "tensor/round_avx.h"
#include "tensor/kernels_peak.h"
#include "tensor/kernels_rows.h"
#include "tensor/kernels_attention.h"

const sl_kernels sl_kernels_avx2 = {
    .name = "avx2", .round_row = round_row, .pack = pack, .matmul_codes = matmul_codes, .matmul_float = matmul_float,
    .rms_norm = rms_norm, .layer_norm = layer_norm, .softmax = softmax, .silu_mul = silu_mul,
    .peak_int8 = peak_int8, .peak_f32 = peak_f32, .read_bytes = read_bytes,
    .gelu_tanh_mul = gelu_tanh_mul, .gelu_erf_mul = gelu_erf_mul, .add = add, .scale = scale, .softcap = softcap,
    .kv_store_f16 = kv_store_f16, .attend_page = attend_page,
};

#endif
