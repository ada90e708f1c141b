/* Template text of any kind, compiled and rendered with a few variables under tight limits. */
#include "base/json.h"
#include "text/template.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char vars[] =
        "{\"s\":\"H\\u00e9llo, World\",\"n\":7,\"f\":3.5,\"big\":12345678901234567890,\"xs\":[3,1,2],"
        "\"d\":{\"b\":2,\"a\":null},\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    sl_template_limits limits = {.steps = 20000, .output_bytes = 1 << 16, .memory_bytes = 4 << 20, .depth = 50};
    sl_arena arena = {0};
    sl_template *tmpl;
    const sl_json *json;
    sllm_error error;
    sl_buffer out = {0};
    if (sl_template_compile((const char *)data, size, &tmpl, &error) != SLLM_OK) return 0;
    if (sl_json_parse(&arena, vars, sizeof vars - 1, "vars", &json, &error) == SLLM_OK)
        sl_template_render(tmpl, json, "2026-01-15T09:30:00", &limits, &out, &error);
    sl_template_free(tmpl);
    sl_buffer_free(&out);
    sl_arena_free(&arena);
    return 0;
}
