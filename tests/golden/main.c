/* golden [--ctest] KIND DIR...: compares what the library computes with reference data. One line a case, last line
 * "N passed, N failed, N skipped"; exit status 1 when anything failed or there was no case at all. With --ctest it is 77
 * when every case was skipped, which ctest reads as skipped. */
#include "golden/golden.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report(const char *verdict, const char *name, const char *format, va_list arguments) {
    printf("%-8s%s  ", verdict, name);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
}

#define REPORT(verdict) \
    do { \
        va_list arguments; \
        va_start(arguments, format); \
        report(verdict, name, format, arguments); \
        va_end(arguments); \
    } while (0)

void golden_pass(golden *g, const char *name, const char *format, ...) { g->passed++; REPORT("ok"); }
void golden_fail(golden *g, const char *name, const char *format, ...) { g->failed++; REPORT("FAIL"); }
void golden_skip(golden *g, const char *name, const char *format, ...) { g->skipped++; REPORT("skipped"); }

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

bool golden_each(const char *directory, void (*visit)(golden *g, const char *path, const char *name), golden *g) {
    struct dirent **entries;
    int n = scandir(directory, &entries, not_hidden, alphasort);
    if (n < 0) return false;
    for (int i = 0; i < n; i++) {
        char path[4096];
        if (snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name) < (int)sizeof path)
            visit(g, path, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return true;
}

static const struct { const char *name; void (*run)(golden *g, const char *directory); } kinds[] = {
    {"models", golden_models}, {"quant", golden_quant}, {"tokenizers", golden_tokenizers},
    {"templates", golden_templates}, {"real", golden_real},
    {"adapters", golden_adapters}, {"training", golden_training}, {"metrics", golden_metrics}, {"schemas", NULL},
};

int main(int argc, char **argv) {
    bool for_ctest = argc > 1 && !strcmp(argv[1], "--ctest");
    argc -= for_ctest;
    argv += for_ctest;
    if (argc < 3) {
        fprintf(stderr, "usage: golden [--ctest] KIND DIR...\nkinds:");
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) fprintf(stderr, " %s", kinds[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    golden g = {0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name)) continue;
        for (int a = 2; a < argc; a++) {
            if (kinds[i].run) kinds[i].run(&g, argv[a]);
            else golden_skip(&g, argv[a], "%s is not built yet", argv[1]);
        }
        printf("%d passed, %d failed, %d skipped\n", g.passed, g.failed, g.skipped);
        if (g.failed || g.passed + g.skipped == 0) return 1;
        return for_ctest && !g.passed ? 77 : 0;
    }
    fprintf(stderr, "golden: unknown kind '%s'\n", argv[1]);
    return 2;
}
