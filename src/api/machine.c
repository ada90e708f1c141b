/* The machine, the kernels in use, and the small functions of the public interface. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/machine.h"
#include "sllm.h"
#include "tensor/kernels.h"
#include "tensor/measure.h"

#include <stdio.h>
#include <stdlib.h>

const char *sllm_status_name(sllm_status status) {
    switch (status) {
    case SLLM_OK: return "ok";
    case SLLM_ERROR_ARGUMENT: return "invalid argument";
    case SLLM_ERROR_NOT_FOUND: return "not found";
    case SLLM_ERROR_IO: return "input/output error";
    case SLLM_ERROR_FORMAT: return "damaged or malformed data";
    case SLLM_ERROR_UNSUPPORTED: return "not supported";
    case SLLM_ERROR_MEMORY: return "out of memory";
    case SLLM_ERROR_CONTEXT: return "context exceeded";
    case SLLM_ERROR_TEMPLATE: return "chat template error";
    case SLLM_ERROR_CANCELLED: return "cancelled";
    case SLLM_ERROR_NETWORK: return "network error";
    }
    return "unknown status";
}

const char *sllm_version(void) { return SLLM_VERSION; }

void sllm_free(void *memory) { free(memory); }

sllm_status sllm_kernels_force(const char *name, sllm_error *error) {
    if (!name) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_kernels_force: name is NULL");
    return sl_kernels_choose(name, error);
}

const char *sllm_kernels_known(int index, bool *can_run) {
    bool can = false;
    const char *name = sl_kernels_known(index, &can);
    if (can_run) *can_run = can;
    return name;
}

sllm_status sllm_machine_measure(int n_threads, sllm_machine_speed *speed, sllm_error *error) {
    if (!speed) return sl_fail(error, SLLM_ERROR_ARGUMENT, "sllm_machine_measure: speed is NULL");
    *speed = (sllm_machine_speed){0};
    return sl_measure(n_threads ? n_threads : sl_cpu_count(), speed, error);
}

void sllm_memory_info(sllm_memory *memory) {
    if (memory) sl_memory_read(memory);
}

void sllm_machine_info(sllm_machine *machine) {
    if (!machine) return;
    sl_machine_read(machine);
    snprintf(machine->kernels, sizeof machine->kernels, "%s", sl_kernels_name());
}
