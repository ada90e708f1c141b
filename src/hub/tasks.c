#include "hub/choose.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Benchmarks: IFEval follows instructions, MT-Bench chats, MMLU and MMLU-Pro ask for knowledge, GSM8K and MATH reason,
 * HumanEval and MBPP write code, HellaSwag and LAMBADA go on with texts. */
static const sl_task tasks[] = {
    {"chat", {"assistant", "chatbot", "conversation", "instructions"}, {"IFEval", "MT-Bench", "MMLU", "MMLU-Pro"}, false},
    {"question answering", {"qa", "questions", "rag"}, {"MMLU", "MMLU-Pro", "IFEval"}, true},
    {"summarisation", {"summarization", "summarise", "summarize", "summary"}, {"IFEval", "MT-Bench", "MMLU"}, true},
    {"rewriting", {"rewrite", "paraphrase", "editing"}, {"IFEval", "MT-Bench", "MMLU"}, true},
    {"translation", {"translate"}, {"IFEval", "MMLU", "MMLU-Pro"}, true},
    {"classification", {"classify", "categorisation", "categorization", "sentiment", "intent", "labelling"},
     {"IFEval", "MMLU", "MMLU-Pro"}, true},
    {"extraction", {"extract", "ner", "information extraction"}, {"IFEval", "MMLU", "MMLU-Pro"}, true},
    {"reasoning", {"maths", "math", "mathematics", "logic"}, {"GSM8K", "MATH", "MMLU-Pro"}, false},
    {"code", {"coding", "programming", "software"}, {"HumanEval", "MBPP"}, false},
    {"fill in the middle", {"fim", "infill", "code completion"}, {"HumanEval", "MBPP"}, false},
    {"tool calling", {"tools", "function calling", "functions", "agents"}, {"IFEval", "MMLU-Pro", "HumanEval"}, false},
    {"text continuation", {"completion", "continuation"}, {"HellaSwag", "LAMBADA (accuracy)", "MMLU"}, false},
    {"embeddings", {"embedding", "retrieval", "search"}, {NULL}, false},
};

enum { N_TASKS = sizeof tasks / sizeof *tasks };

/* Words may be joined by blanks, '-' or '_'. */
static bool is_same(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        bool gap_a = strchr(" -_", *a) != NULL, gap_b = strchr(" -_", *b) != NULL;
        if (gap_a != gap_b || (!gap_a && strncasecmp(a, b, 1))) return false;
    }
    return !*a && !*b;
}

const sl_task *sl_task_find(const char *name) {
    for (int i = 0; i < N_TASKS; i++) {
        if (is_same(tasks[i].name, name)) return &tasks[i];
        for (const char *const *synonym = tasks[i].synonyms; *synonym; synonym++)
            if (is_same(*synonym, name)) return &tasks[i];
    }
    return NULL;
}

void sl_task_list(char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < N_TASKS && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", tasks[i].name);
}

bool sl_benchmark_is(const char *name, const char *family) {
    size_t n = strlen(family);
    return !strncmp(name, family, n) && (!name[n] || !strncmp(name + n, " (", 2)) && !strstr(name, "perplexity");
}

/* An entry's figure for a benchmark, the first that its makers give. */
static bool figure_of(const sl_json *entry, const char *family, double *value) {
    const sl_json *benchmarks = sl_json_get(entry, "benchmarks");
    for (const sl_json *one = benchmarks ? benchmarks->first : NULL; one; one = one->next)
        if (sl_benchmark_is(sl_json_string(sl_json_get(one, "name")), family))
            return sl_json_double(sl_json_get(one, "value"), value);
    return false;
}

double sl_task_standing(const sl_task *task, const sl_json *models, const sl_json *entry) {
    double sum = 0, ours, theirs;
    int n = 0;
    for (const char *const *family = task->evidence; *family; family++) {
        int better = 0, others = 0;
        if (!figure_of(entry, *family, &ours)) continue;
        for (const sl_json *other = models->first; other; other = other->next) {
            if (other == entry || !figure_of(other, *family, &theirs)) continue;
            others++;
            better += ours > theirs;
        }
        if (!others) continue;
        sum += (double)better / others;
        n++;
    }
    return n ? sum / n : -1;
}
