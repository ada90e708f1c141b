/* A model's description from outside, a GGUF file or a config.json: what was read passes its own check, and a plan can
 * be made of it. */
#include "base/json.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/plan.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_config(sllm_status status, const sl_config *config, const sllm_error *said) {
    sllm_error error = {0};
    if (status != SLLM_OK) {
        if (!said->message[0]) abort();
        return;
    }
    if (sl_config_check(config, &error) != SLLM_OK) abort();
    for (const char *const *type = sl_plan_types(); *type; type++) {
        sl_footprint f;
        if (sl_plan_weights(config, *type, false, &f, &error)) continue;
        if (!f.weights_bytes || (!f.body_macs[0] && !f.body_macs[1])) abort();
    }
}

static void try_json(const char *text, size_t length, sl_arena *arena) {
    const sl_json *root;
    sl_config config = {0};
    sllm_error error = {0};
    int32_t ids[8];
    if (sl_json_parse(arena, text, length, "config.json", &root, &error) != SLLM_OK) return;
    try_config(sl_config_from_json(root, arena, &config, &error), &config, &error);
    size_t n = sl_config_end_ids(root, 1000, ids, 8);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= 1000) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sl_arena arena = {.limit = 1 << 28};
    sl_gguf *gguf;
    sl_config config = {0};
    sllm_error error = {0};
    if (size < 4 || memcmp(data, "GGUF", 4)) {
        try_json((const char *)data, size, &arena);
    } else if (sl_gguf_open_memory(data, size, &gguf, &error) == SLLM_OK) {
        try_config(sl_config_from_gguf(gguf, &arena, &config, &error), &config, &error);
        sl_gguf_close(gguf);
    }
    sl_arena_free(&arena);
    return 0;
}
