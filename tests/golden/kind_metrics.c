/* golden/metrics: what scikit-learn and others computed of lists and texts. classification.jsonl so far. */
#include "golden/golden.h"

#include "base/file.h"
#include "base/json.h"
#include "eval/classification.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where two JSON values differ beyond 1e-9 relative, or in form; NULL: nowhere. */
static const char *difference(const sl_json *want, const sl_json *got, const char *where) {
    double a, b;
    if (!want || !got) return want == got ? NULL : where;
    if (sl_json_double(want, &a)) return sl_json_double(got, &b) && fabs(a - b) <= 1e-9 * (1 + fabs(a)) ? NULL : where;
    if (want->type != got->type || want->length != got->length) return where;
    if (want->type == SL_JSON_STRING) return memcmp(want->text, got->text, want->length) ? where : NULL;
    const sl_json *other = got->first;
    for (const sl_json *child = want->first; child; child = child->next, other = other ? other->next : NULL) {
        const char *key = want->type == SL_JSON_OBJECT ? child->key : where;
        const char *found = difference(child, want->type == SL_JSON_OBJECT ? sl_json_get(got, child->key) : other, key);
        if (found) return found;
    }
    return NULL;
}

static const char **texts_of(const sl_json *list, sl_arena *arena) {
    const char **out = sl_arena_array(arena, list ? list->length + 1 : 1, sizeof *out);
    for (size_t i = 0; out && list && i < list->length; i++) out[i] = sl_json_string(list->items[i]);
    return out;
}

/* The key that differs in one case; NULL: none. */
static const char *one_case(const char *line, size_t length, sl_arena *arena) {
    const sl_json *root, *got;
    double zero_division = 0;
    sl_buffer out = {0};
    if (sl_json_parse(arena, line, length, "case", &root, NULL)) return "JSON";
    const sl_json *in = sl_json_get(root, "in"), *labels = sl_json_get(in, "labels"), *truth = sl_json_get(in, "true");
    bool given = labels && labels->type == SL_JSON_ARRAY;
    sl_json_double(sl_json_get(in, "zero_division"), &zero_division);
    const char *wrong = "memory";
    if (sl_classification_report(texts_of(truth, arena), texts_of(sl_json_get(in, "pred"), arena), truth->length,
                                 given ? texts_of(labels, arena) : NULL, given ? labels->length : 0, zero_division, &out))
        wrong = sl_json_parse(arena, out.data, out.length, "report", &got, NULL) ? "report" : difference(sl_json_get(root, "out"), got, "object");
    sl_buffer_free(&out);
    return wrong;
}

static void one_file(golden *g, const char *path, const char *name) {
    sl_buffer text = {0};
    int n = 0, wrong = 0;
    const char *first = NULL;
    char kept[64] = "";
    if (!strstr(name, ".jsonl")) return;
    if (strcmp(name, "classification.jsonl")) {
        golden_skip(g, name, "is not built yet");
        return;
    }
    if (sl_file_read(path, (size_t)1 << 26, &text, NULL)) text.length = 0;
    for (const char *at = text.data; at && *at; n++) {
        sl_arena arena = {0};
        const char *end = strchr(at, '\n');
        size_t length = end ? (size_t)(end - at) : strlen(at);
        first = one_case(at, length, &arena);
        if (first && !wrong++) strncpy(kept, first, sizeof kept - 1);
        at += length + (end != NULL);
        sl_arena_free(&arena);
    }
    (n && !wrong ? golden_pass : golden_fail)(g, name, "%d of %d cases %s", n - wrong, n, kept);
    sl_buffer_free(&text);
}

void golden_metrics(golden *g, const char *directory) {
    if (!golden_each(directory, one_file, g)) golden_fail(g, directory, "cannot be read");
}
