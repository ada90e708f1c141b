#include "tensor/blas.h"

#include "base/error.h"

#include <dlfcn.h>
#include <pthread.h>
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

static void load(void) {
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};
    void (*set_threads)(int) = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        found = library && look_up(library, "cblas_sgemm", &table.sgemm) && look_up(library, "spotrf_", &table.spotrf) &&
                look_up(library, "strtri_", &table.strtri) && look_up(library, "openblas_set_num_threads", &set_threads);
    }
    if (found) set_threads(1);
}

sllm_status sl_blas_get(const sl_blas **blas, sllm_error *error) {
    pthread_once(&once, load);
    *blas = &table;
    if (found) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "OpenBLAS is not installed, which solving (--method gptq, awq) needs; Debian's "
                   "package is libopenblas0-pthread");
}
