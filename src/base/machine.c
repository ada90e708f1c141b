#include "base/machine.h"

#include "base/cpu.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The value in kB of a line "NAME:  123 kB" of /proc/meminfo or /proc/self/status, in bytes; 0 when there is none. */
static uint64_t meminfo(FILE *file, const char *name) {
    char line[256];
    uint64_t kilobytes;
    size_t length = strlen(name);
    rewind(file);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, length) && sscanf(line + length, ": %" SCNu64, &kilobytes) == 1)
            return kilobytes * 1024;
    return 0;
}

static bool read_number(const char *path, uint64_t *value) {
    FILE *file = fopen(path, "r");
    bool found = file && fscanf(file, "%" SCNu64, value) == 1;
    if (file) fclose(file);
    return found;
}

void sl_memory_read(sllm_memory *memory) {
    *memory = (sllm_memory){0};
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return;
    memory->peak = meminfo(file, "VmHWM");
    memory->resident = meminfo(file, "VmRSS");
    memory->anonymous = meminfo(file, "RssAnon");
    memory->file = meminfo(file, "RssFile");
    fclose(file);
}

/* Page cache that the kernel gives back when asked counts as used by a container; this is how much of it there is. */
static uint64_t reclaimable(const char *stat_path, const char *name) {
    char line[256];
    uint64_t value = 0;
    size_t length = strlen(name);
    FILE *file = fopen(stat_path, "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, name, length) && sscanf(line + length, " %" SCNu64, &value) == 1) break;
    if (file) fclose(file);
    return value;
}

/* A container may have less than the machine: cgroup version 2, then version 1. */
static void limit_by_cgroup(sllm_machine *machine) {
    static const struct { const char *limit, *used, *stat, *cache; } versions[] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
         "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
    };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        uint64_t limit, used;
        if (!read_number(versions[i].limit, &limit) || !read_number(versions[i].used, &used)) continue;
        uint64_t cache = reclaimable(versions[i].stat, versions[i].cache);
        used = cache < used ? used - cache : 0;
        uint64_t left = used < limit ? limit - used : 0;
        if (limit < machine->memory_total) machine->memory_total = limit;
        if (left < machine->memory_free) machine->memory_free = left;
        return;
    }
}

static void read_cpu_name(char *name, size_t size) {
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(name, size, "%s", colon);
        break;
    }
    if (file) fclose(file);
}

static void list_features(char *out, size_t size) {
    const sl_cpu *cpu = sl_cpu_features();
    const struct { const char *name; bool has; } features[] = {
        {"avx2", cpu->avx2},         {"fma", cpu->fma},           {"f16c", cpu->f16c},
        {"avx512f", cpu->avx512f},   {"avx512bw", cpu->avx512bw}, {"avx512vl", cpu->avx512vl},
        {"avx512vnni", cpu->avx512vnni}, {"avx512bf16", cpu->avx512bf16}, {"avx_vnni", cpu->avx_vnni},
        {"neon", cpu->neon},         {"dotprod", cpu->dotprod},
    };
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (features[i].has && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? " " : "", features[i].name);
}

void sl_machine_read(sllm_machine *machine) {
    *machine = (sllm_machine){.n_cpus = sl_cpu_count()};
    FILE *file = fopen("/proc/meminfo", "r");
    if (file) {
        machine->memory_total = meminfo(file, "MemTotal");
        machine->memory_free = meminfo(file, "MemAvailable");
        fclose(file);
    }
    limit_by_cgroup(machine);
    read_cpu_name(machine->cpu, sizeof machine->cpu);
    list_features(machine->features, sizeof machine->features);
}
