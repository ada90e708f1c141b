#include "tensor/blas.h"

#include "base/cpu.h"
#include "base/error.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static sl_blas table;
static bool found;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A function's address through its bytes: C has no conversion from dlsym's pointer to data. */
static bool look_up(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

/* OpenBLAS knows processors by their model numbers, and takes one newer than itself for a Prescott of 2004: SSE3, an eighth
 * of the speed. So it is told by what the processor can do, unless the user has told it. NULL: its own guess. */
static const char *core_for(const sl_cpu *cpu) {
    if (cpu->avx512f && cpu->avx512bw && cpu->avx512vl) return "SKYLAKEX";
    return cpu->avx2 && cpu->fma ? "HASWELL" : NULL;
}

static void open_library(void) {
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};
    void (*set_threads)(int) = NULL;
    const char *(*core)(void) = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        found = library && look_up(library, "cblas_sgemm", &table.sgemm) && look_up(library, "spotrf_", &table.spotrf) &&
                look_up(library, "strtri_", &table.strtri) && look_up(library, "openblas_set_num_threads", &set_threads) &&
                look_up(library, "openblas_get_corename", &core);
    }
    if (!found) return;
    set_threads(1);
    table.core = core();
}

/* It reads its environment as it is loaded, and only then. */
static void load(void) {
    static const char variable[] = "OPENBLAS_CORETYPE";
    const char *core = getenv(variable) ? NULL : core_for(sl_cpu_features());
    if (core) setenv(variable, core, 1);
    open_library();
    if (core) unsetenv(variable);
}

sllm_status sl_blas_get(const sl_blas **blas, sllm_error *error) {
    pthread_once(&once, load);
    *blas = &table;
    if (found) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "OpenBLAS is not installed, which learning and solving (--method gptq, awq) need; "
                   "Debian's package is libopenblas0-pthread");
}
