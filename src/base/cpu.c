#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sl_cpu features;

#if defined(__x86_64__)
#include <cpuid.h>

/* The registers that the operating system saves: without it a vector instruction faults. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void detect(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    uint64_t saved = saved_registers();
    bool ymm = (saved & 6) == 6, zmm = ymm && (saved & 0xe0) == 0xe0;
    features.fma = ymm && (c & bit_FMA);
    features.f16c = ymm && (c & bit_F16C);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    features.avx2 = ymm && (b & bit_AVX2);
    features.avx512f = zmm && (b & bit_AVX512F) && (b & bit_AVX512DQ);
    features.avx512bw = zmm && (b & bit_AVX512BW);
    features.avx512vl = zmm && (b & bit_AVX512VL);
    features.avx512vnni = zmm && (c & bit_AVX512VNNI);
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return;
    features.avx_vnni = ymm && (a & 1u << 4);
    features.avx512bf16 = zmm && (a & 1u << 5);
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

static void detect(void) {
    features.neon = true;
    features.dotprod = (getauxval(AT_HWCAP) >> 20) & 1; /* HWCAP_ASIMDDP */
}
#else
static void detect(void) {}
#endif

const sl_cpu *sl_cpu_features(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, detect);
    return &features;
}

/* Processors' worth of time that the cgroup grants, or 0 when it sets no limit (cgroup v2, then v1). */
static int cgroup_quota(void) {
    long long quota = -1, period = 0;
    char text[64];
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file) {
        if (fscanf(file, "%63s %lld", text, &period) == 2 && strcmp(text, "max")) quota = atoll(text);
        fclose(file);
    } else if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"))) {
        if (fscanf(file, "%lld", &quota) != 1) quota = -1;
        fclose(file);
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
        if (file && fscanf(file, "%lld", &period) != 1) period = 0;
        if (file) fclose(file);
    }
    if (quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

int sl_cpu_count(void) {
    cpu_set_t set;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (!sched_getaffinity(0, sizeof set, &set)) n = CPU_COUNT(&set);
    int quota = cgroup_quota();
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : (int)n;
}
