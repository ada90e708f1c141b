/* Multiply-adds a processor cycle of the products of many tokens, one thread, counted by the processor itself (Linux
 * perf_event): a shared host changes its clock and lends a core's other half to neighbours, and neither shows here.
 *
 *     build/bench/cycles [--kernels NAME] [--rows N] [--columns N] [--tokens N] [TYPE...]
 *
 * Each product runs between two short loops that measure the int8 peak, and counts only when both reach NEAR of the best
 * peak seen: then nobody else was on the core. "peak" is that loop's own multiply-adds a cycle (kernels_peak.h). Types
 * whose neighbours never let go are told as "disturbed", with the best run there was.
 */
#include "common.h"
#include "tensor/kernels.h"
#include "tensor/kernels_table.h"
#include "tensor/ops.h"
#include "tensor/pack.h"

#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { UNDISTURBED = 8, ATTEMPTS = 2000, PEAK_ROUNDS = 20000 };
static const double NEAR = 0.98;

typedef struct counters {
    int cycles, instructions;
} counters;

typedef struct reading {
    uint64_t cycles, instructions;
} reading;

typedef struct options {
    int64_t rows, columns, tokens;
} options;

static int open_counter(uint64_t event) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_HARDWARE, .size = sizeof attributes, .config = event,
                                         .exclude_kernel = 1, .exclude_hv = 1};
    return (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

static reading now(const counters *c) {
    reading r = {0};
    if (read(c->cycles, &r.cycles, 8) != 8 || read(c->instructions, &r.instructions, 8) != 8) {
        fprintf(stderr, "cycles: a counter cannot be read\n");
        exit(1);
    }
    return r;
}

static double peak(const counters *c) {
    reading before = now(c);
    int64_t done = sl_kernels_get()->peak_int8(PEAK_ROUNDS);
    return (double)done / (double)(now(c).cycles - before.cycles);
}

/* What the loops reach at most, within about a second. */
static double best_peak(const counters *c) {
    double best = 0.0;
    for (int i = 0; i < 500; i++) {
        double found = peak(c);
        if (found > best) best = found;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return best;
}

/* Weights, to be packed where the type is. NULL: no memory. */
static void *weights(const options *o, sl_type type, sl_tensor *w, sl_packer **packer) {
    const sl_type_info *info = sl_type_get(type);
    *w = (sl_tensor){.type = type, .n_dims = 3, .shape = {1, o->rows, o->columns}};
    unsigned char *data = sl_type_bytes(type, (uint64_t)(o->rows * o->columns), &w->bytes) ? malloc(w->bytes) : NULL;
    if (data) bench_fill(type, data, w->bytes);
    w->data = data;
    if (!data || !info->is_quantised) return data;
    if (sl_packer_new(packer, NULL) == SLLM_OK && sl_packer_add(*packer, w, false, NULL) == SLLM_OK
        && sl_packer_reserve(*packer, NULL) == SLLM_OK)
        return data;
    free(data);
    return NULL;
}

typedef struct best {
    reading alone, any; /* the run of fewest cycles: undisturbed, and of all; 0: none */
} best;

static void keep_fewest(reading *fewest, reading found) {
    if (!fewest->cycles || found.cycles < fewest->cycles) *fewest = found;
}

static best run_products(const counters *c, const sl_tensor *w, const sl_act *act, float *y, double top) {
    best found = {0};
    size_t stride = (size_t)w->shape[1];
    sl_matmul(NULL, SL_FAST, w, 0, act, NULL, y, stride); /* packs */
    for (int run = 0, good = 0; good < UNDISTURBED && run < ATTEMPTS; run++) {
        double before = peak(c);
        reading start = now(c);
        sl_matmul(NULL, SL_FAST, w, 0, act, NULL, y, stride);
        reading end = now(c);
        reading spent = {end.cycles - start.cycles, end.instructions - start.instructions};
        keep_fewest(&found.any, spent);
        if (before < NEAR * top || peak(c) < NEAR * top) continue;
        keep_fewest(&found.alone, spent);
        good++;
    }
    return found;
}

static void report(sl_type type, best found, double work, double top) {
    reading r = found.alone.cycles ? found.alone : found.any;
    double each = work / (double)r.cycles;
    printf("%-8s %8.2f multiply-adds/cycle  %4.0f %% of the peak  %5.2f instructions/cycle%s\n", sl_type_get(type)->name, each,
           100.0 * each / top, (double)r.instructions / (double)r.cycles, found.alone.cycles ? "" : "  disturbed");
    fflush(stdout);
}

static int measure(const counters *c, const options *o, sl_type type, double top) {
    const sl_type_info *info = sl_type_get(type);
    sl_tensor w;
    sl_packer *packer = NULL;
    if (!info->is_float || o->columns % info->block) return 0;
    void *data = weights(o, type, &w, &packer);
    float *x = malloc((size_t)(o->tokens * o->columns) * sizeof *x), *y = malloc((size_t)(o->tokens * o->rows) * sizeof *y);
    sl_act act = {.x = x, .stride = (size_t)o->columns, .n_tokens = o->tokens, .n = o->columns,
                  .blocks = malloc(sl_act_bytes(o->tokens, o->columns))};
    bool ready = data && x && y && act.blocks;
    for (int64_t i = 0; ready && i < o->tokens * o->columns; i++) x[i] = (float)(i % 31) - 15.0f;
    if (ready) {
        sl_act_round(NULL, &act);
        report(type, run_products(c, &w, &act, y, top), (double)(o->rows * o->columns * o->tokens), top);
    } else {
        fprintf(stderr, "cycles: no memory for %s\n", info->name);
    }
    sl_packer_free(packer);
    free(data);
    free(x);
    free(y);
    free(act.blocks);
    return !ready;
}

static int64_t number(const char *option, const char *text) {
    return bench_number("cycles", option, text, (1 << 16) - 1);
}

int main(int argc, char **argv) {
    options o = {.rows = 256, .columns = 1024, .tokens = 192};
    counters c = {open_counter(PERF_COUNT_HW_CPU_CYCLES), open_counter(PERF_COUNT_HW_INSTRUCTIONS)};
    sllm_error error = {0};
    int arg = 1, failed = 0;
    for (; arg < argc && !strncmp(argv[arg], "--", 2); arg++) {
        const char *name = argv[arg];
        if (!strcmp(name, "--rows")) o.rows = number(name, argv[++arg]);
        else if (!strcmp(name, "--columns")) o.columns = number(name, argv[++arg]);
        else if (!strcmp(name, "--tokens")) o.tokens = number(name, argv[++arg]);
        else if (strcmp(name, "--kernels") || arg + 1 >= argc || sl_kernels_choose(argv[++arg], &error) != SLLM_OK) {
            fprintf(stderr, "cycles: %s: %s\n", name, error.message[0] ? error.message : "unknown, or without its value");
            return 2;
        }
    }
    if (c.cycles < 0 || c.instructions < 0) {
        fprintf(stderr, "cycles: this machine does not let its cycles be counted (kernel.perf_event_paranoid, or no counters)\n");
        return 1;
    }
    double top = best_peak(&c);
    printf("%s, %lld x %lld, %lld tokens; int8 peak %.2f multiply-adds/cycle\n", sl_kernels_name(), (long long)o.rows,
           (long long)o.columns, (long long)o.tokens, top);
    for (int t = 0; t < SL_TYPE_COUNT && arg == argc; t++) failed |= measure(&c, &o, (sl_type)t, top);
    for (; arg < argc; arg++) {
        sl_type type;
        if (!sl_type_from_name(argv[arg], &type) || !sl_type_get(type)->is_float || o.columns % sl_type_get(type)->block)
            failed = 1, fprintf(stderr, "cycles: %s is no type of weights, or %lld columns are no whole blocks of it\n",
                                argv[arg], (long long)o.columns);
        else failed |= measure(&c, &o, type, top);
    }
    return failed;
}
