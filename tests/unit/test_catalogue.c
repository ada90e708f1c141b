/* The catalogue that is built in: its shape, its names, its families; and that mistakes in a catalogue are found. */
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "hub/choose.h"
#include "model/families.h"
#include "model/plan.h"
#include "sllm_hub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static sllm_status open_with(const char *catalogue, sllm_hub **hub, sllm_error *error) {
    sllm_hub_params params = {.cache_dir = P_tmpdir "/sllm-test-catalogue-none", .catalogue_path = catalogue};
    *error = (sllm_error){0};
    return sllm_hub_open(&params, hub, error);
}

static const sl_json *read_all(sl_arena *arena) {
    sllm_hub *hub;
    sllm_error error;
    char *text;
    const sl_json *root;
    if (open_with(NULL, &hub, &error)) fail_msg("%s", error.message);
    assert_int_equal(sllm_hub_catalogue(hub, NULL, &text, &error), SLLM_OK);
    assert_int_equal(sl_json_parse(arena, text, strlen(text), "catalogue", &root, &error), SLLM_OK);
    free(text);
    sllm_hub_close(hub);
    return root;
}

static bool is_family(const char *name) {
    const sl_family *family;
    for (size_t i = 0; (family = sl_family_at(i)); i++)
        if (!strcmp(family->name, name)) return true;
    return false;
}

/* The opening checks every field; here is what only the rest of the library knows. */
static void test_built_in(void **state) {
    (void)state;
    sl_arena arena = {0};
    size_t n = 0;
    for (const sl_json *entry = read_all(&arena)->first; entry; entry = entry->next, n++) {
        const char *family = sl_json_string(sl_json_get(entry, "family"));
        if (!is_family(family)) fail_msg("%s: unknown family %s", sl_json_string(sl_json_get(entry, "name")), family);
    }
    assert_true(n >= 40);
    sl_arena_free(&arena);
}

/* The shapes are right: each gives its model's parameters, to the last one. And every task is one of the vocabulary. */
static void test_shapes_and_tasks(void **state) {
    (void)state;
    sl_arena arena = {0};
    for (const sl_json *entry = read_all(&arena)->first; entry; entry = entry->next) {
        const char *name = sl_json_string(sl_json_get(entry, "name"));
        sl_config config = {0};
        sl_footprint f;
        sllm_error error;
        int64_t parameters = 0;
        bool runnable = false;
        for (const sl_json *task = sl_json_get(entry, "tasks")->first; task; task = task->next) {
            const sl_task *known = sl_task_find(sl_json_string(task));
            if (!known || strcmp(known->name, sl_json_string(task))) fail_msg("%s: task %s", name, sl_json_string(task));
        }
        assert_true(sl_json_bool(sl_json_get(entry, "runnable"), &runnable));
        if (!runnable) continue;
        assert_true(sl_json_int64(sl_json_get(entry, "parameters"), &parameters));
        if (sl_shape_config(entry, &arena, &config, &error)) fail_msg("%s: %s", name, error.message);
        if (sl_plan_weights(&config, "f32", false, &f, &error)) fail_msg("%s: %s", name, error.message);
        if (f.file_bytes != 4 * (uint64_t)parameters)
            fail_msg("%s: the shape gives %llu parameters, the catalogue says %lld", name,
                     (unsigned long long)f.file_bytes / 4, (long long)parameters);
    }
    sl_arena_free(&arena);
}

static void test_task_names(void **state) {
    (void)state;
    assert_string_equal(sl_task_find("classification")->name, "classification");
    assert_string_equal(sl_task_find("Classify")->name, "classification");
    assert_string_equal(sl_task_find("QA")->name, "question answering");
    assert_string_equal(sl_task_find("question-answering")->name, "question answering");
    assert_string_equal(sl_task_find("summarization")->name, "summarisation");
    assert_null(sl_task_find("classif"));
    assert_null(sl_task_find(""));
    assert_true(sl_benchmark_is("IFEval (strict prompt)", "IFEval"));
    assert_false(sl_benchmark_is("MMLU-Pro", "MMLU"));
    assert_false(sl_benchmark_is("LAMBADA (perplexity)", "LAMBADA"));
}

/* Every family that the design names is there. */
static void test_families_covered(void **state) {
    (void)state;
    static const char *const names[] = {
        "llama3.2:1b",  "llama3.2:3b",   "phi3:mini-4k",     "phi3:mini-128k", "phi3:small-8k",  "phi3:small-128k",
        "phi4:mini",    "gemma2:2b",     "gemma2:9b",        "gemma3:270m",    "gemma3:1b",      "gemma3:4b",
        "gemma3:12b",   "qwen2:0.5b",    "qwen2:1.5b",       "qwen2:7b",       "qwen2.5:0.5b",   "qwen2.5:1.5b",
        "qwen2.5:3b",   "qwen2.5:7b",    "qwen2.5-coder:7b", "qwen3:0.6b",     "qwen3:1.7b",     "qwen3:4b",
        "qwen3:8b",     "mistral:7b",    "ministral:8b",     "ministral3:3b",  "ministral3:8b",  "ministral3:14b",
        "codellama:7b", "codellama:13b", "starcoder2:3b",    "starcoder2:7b",  "starcoder2:15b", "smollm2:135m",
        "smollm2:360m", "smollm2:1.7b",  "smollm3:3b",       "gpt2",           "distilgpt2",     "distilbert",
        "mixtral",      "qwen1.5-moe",   "SmolLM2"};
    sllm_hub *hub;
    sllm_error error;
    assert_int_equal(open_with(NULL, &hub, &error), SLLM_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *text = NULL;
        if (sllm_hub_catalogue(hub, names[i], &text, &error)) fail_msg("%s", error.message);
        free(text);
    }
    char *text = NULL;
    assert_int_equal(sllm_hub_catalogue(hub, "qwen3:0.6", &text, &error), SLLM_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "qwen3:0.6b"));
    assert_null(text);
    sllm_hub_close(hub);
}

/* ---------------------------------------------------------------- mistakes */

static const char valid[] =
    "{\"version\":1,\"endpoint\":\"https://example.invalid\",\"default\":\"a:1b\",\"models\":[{\"name\":\"a:1b\",\"aliases\":[\"a\"],\"title\":\"A\","
    "\"family\":\"llama\",\"parameters\":1000,\"context\":10,\"languages\":[\"en\"],\"tasks\":[\"chat\"],\"runnable\":"
    "true,"
    "\"licence\":{\"id\":\"x\",\"name\":\"X\",\"url\":\"https://example.invalid/x\",\"commercial_use\":true,"
    "\"redistribution\":false,\"fine_tuning\":\"conditions\",\"note\":\"n\"},"
    "\"benchmarks\":[{\"name\":\"MMLU\",\"value\":1.5,\"setting\":\"5-shot\",\"source\":\"https://example.invalid/"
    "s\"}],"
    "\"sources\":[{\"kind\":\"hf\",\"repo\":\"o/r\",\"file\":\"f.gguf\"},{\"kind\":\"pip\",\"packages\":[\"p==1\"],"
    "\"member\":\"*.gguf\",\"sha256\":\"0123456789012345678901234567890123456789012345678901234567890123\",\"bytes\":5,"
    "\"file\":\"f.gguf\"}]}]}";

static void expect_mistake(const char *from, const char *to, const char *words) {
    const char *at = strstr(valid, from);
    char path[] = P_tmpdir "/sllm-test-catalogue-XXXXXX";
    int fd = mkstemp(path);
    sl_buffer text = {0};
    sllm_hub *hub = NULL;
    sllm_error error;
    assert_non_null(at);
    close(fd);
    sl_buffer_append(&text, valid, (size_t)(at - valid));
    sl_buffer_puts(&text, to);
    sl_buffer_puts(&text, at + strlen(from));
    assert_int_equal(sl_file_write(path, text.data, text.length, NULL), SLLM_OK);
    sllm_status status = open_with(path, &hub, &error);
    unlink(path);
    sl_buffer_free(&text);
    sllm_hub_close(hub);
    if (!words && status) fail_msg("%s", error.message);
    if (words && (status != SLLM_ERROR_FORMAT || !strstr(error.message, words)))
        fail_msg("%s -> %s: status %d, %s", from, to, status, error.message);
}

static void test_mistakes(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"\"name\":\"a:1b\"", "\"name\":\"../x\"", "name"},
        {"\"name\":\"a:1b\"", "\"name\":3", "name"},
        {"[\"a\"]", "[\"a:1b\"]", NULL}, /* a name that is its own alias harms nobody */
        {"\"aliases\":[\"a\"]", "\"aliases\":[\"A B\"]", "name"},
        {"\"parameters\":1000", "\"parameters\":0", "parameters"},
        {"\"parameters\":1000", "\"parameters\":1e3", "parameters"},
        {"\"context\":10,", "", "context"},
        {"[\"en\"]", "[]", "languages"},
        {"\"runnable\":true", "\"runnable\":false", "note"},
        {"\"commercial_use\":true", "\"commercial_use\":\"maybe\"", "commercial_use"},
        {"\"redistribution\":false,", "", "redistribution"},
        {",\"note\":\"n\"", "", "licence.note"},
        {"https://example.invalid/x", "http://example.invalid/x", "licence.url"},
        {"\"value\":1.5", "\"value\":\"1.5\"", "benchmarks"},
        {"https://example.invalid/s", "a paper", "source"},
        {"\"o/r\"", "\"../r\"", "REPO"},
        {"\"f.gguf\"},", "\"../f.gguf\"},", "file"},
        {"\"kind\":\"hf\"", "\"kind\":\"ftp\"", "kind"},
        {"p==1", "--p==1", "packages"},
        {"p==1", "p", "packages"},
        {"\"sha256\":\"0", "\"sha256\":\"", "sha256"},
        {"\"bytes\":5", "\"bytes\":-5", "bytes"},
        {"\"file\":\"f.gguf\"}]", "\"file\":\"a/f.gguf\"}]", "file"},
        {"\"file\":\"f.gguf\"}]", "\"file\":\"manifests\"}]", "file"},
        {"\"models\":[", "\"model\":[", "models"},
        {"\"endpoint\"", "\"end\"", "endpoint"},
        {"{\"version\"", "[{\"version\"", "line"},
        {"\"version\":1", "\"version\":2", "version"},
        {"\"version\":1,", "", "version"},
        {"\"default\":\"a:1b\"", "\"default\":\"b\"", "default"},
        {"\"default\":\"a:1b\"", "\"default\":1", "default"},
        {"\"default\":\"a:1b\",", "", NULL}, /* a catalogue need not recommend a model */
    };
    expect_mistake("", "", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) expect_mistake(cases[i][0], cases[i][1], cases[i][2]);
}

static void test_names_once(void **state) {
    (void)state;
    const char *entry = strchr(valid, '[') + 1, *end = strrchr(valid, '}') - 1;
    sl_buffer twice = {0};
    char path[] = P_tmpdir "/sllm-test-catalogue-XXXXXX";
    sllm_hub *hub = NULL;
    sllm_error error;
    close(mkstemp(path));
    sl_buffer_append(&twice, valid, (size_t)(end - valid));
    sl_buffer_putc(&twice, ',');
    sl_buffer_puts(&twice, entry);
    assert_int_equal(sl_file_write(path, twice.data, twice.length, NULL), SLLM_OK);
    assert_int_equal(open_with(path, &hub, &error), SLLM_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "two models"));
    unlink(path);
    sl_buffer_free(&twice);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_built_in), cmocka_unit_test(test_shapes_and_tasks),
        cmocka_unit_test(test_task_names), cmocka_unit_test(test_families_covered),
                                       cmocka_unit_test(test_mistakes), cmocka_unit_test(test_names_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
