/* A processor that says it has AVX-512, beside emulated kernels. One without AVX2 cannot run those: exit status 77. */
#define sl_cpu_features real_cpu_features
#include "base/cpu.c"
#undef sl_cpu_features

const sl_cpu *sl_cpu_features(void);

const sl_cpu *sl_cpu_features(void) {
    static sl_cpu pretended;
    const sl_cpu *real = real_cpu_features();
    if (!real->avx2 || !real->fma || !real->f16c) {
        puts("skipped: AVX-512 is emulated with AVX2, which this processor lacks");
        exit(77);
    }
    pretended = *real;
    pretended.avx512f = pretended.avx512bw = pretended.avx512vl = pretended.avx512vnni = true;
    return &pretended;
}
