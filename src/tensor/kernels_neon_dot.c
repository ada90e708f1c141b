/* The table for NEON with the dot-product instructions (FEAT_DotProd, in most processors since 2018). The operations are
 * written once, in the headers below, over the vector names of simd_neon.h; this file gives them their instruction set. */
#if defined(__aarch64__)

#include "tensor/simd_neon.h"

#include "tensor/pack_neon.h"
#include "tensor/kernels_panel.h"
#include "tensor/kernels_float.h"
#include "tensor/kernels_peak.h"
#include "tensor/round_neon.h"
#include "tensor/kernels_rows.h"
#include "tensor/kernels_attention.h"

const sl_kernels sl_kernels_neon_dot = {
    .name = "neon_dot", .round_row = round_row, .pack = pack, .matmul_codes = matmul_codes, .matmul_float = matmul_float,
    .rms_norm = rms_norm, .layer_norm = layer_norm, .softmax = softmax, .silu_mul = silu_mul,
    .peak_int8 = peak_int8, .peak_f32 = peak_f32, .read_bytes = read_bytes,
    .gelu_tanh_mul = gelu_tanh_mul, .gelu_erf_mul = gelu_erf_mul, .add = add, .scale = scale, .softcap = softcap,
    .kv_store_f16 = kv_store_f16, .attend_page = attend_page,
};

#endif
