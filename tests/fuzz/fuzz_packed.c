/* Checkpoints that others quantised: the first byte chooses the method, the rest is a safetensors file. Whatever is joined
 * is widened. */
#include "base/json.h"
#include "model/packed.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile float sink; /* so that no read is optimised away */

static const char *const configs[] = {
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}}",
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1,\"checkpoint_format\":\"gptq_v2\"}}",
    "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}}",
    "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}}",
};

static void widen(const sl_tensor *t) {
    const sl_type_info *info = sl_type_get(t->type);
    float x[1024];
    uint64_t bytes = 0;
    if (!info->is_float || t->n_elements < info->block || info->block > 1024) return;
    sl_type_bytes(t->type, info->block, &bytes);
    for (uint64_t i = 0; i + bytes <= t->bytes; i += bytes) {
        info->to_float((const uint8_t *)t->data + i, x, info->block);
        sink += x[info->block - 1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sl_arena arena = {0};
    sl_checkpoint checkpoint = {0};
    sl_tensor *list;
    size_t n;
    sllm_error error = {0};
    if (!size) return 0;
    const char *text = configs[data[0] % (sizeof configs / sizeof *configs)];
    if (sl_json_parse(&arena, text, strlen(text), "config.json", &checkpoint.config, &error)) abort();
    if (sl_packed_check(sl_json_get(checkpoint.config, "quantization_config"), &error)) abort();
    if (!sl_safetensors_open_memory(data + 1, size - 1, &checkpoint.weights, &error)) {
        if (!sl_packed_tensors(&checkpoint, NULL, &arena, &list, &n, &error))
            for (size_t i = 0; i < n; i++) widen(&list[i]);
        else if (!error.message[0]) abort();
        sl_safetensors_close(checkpoint.weights);
    }
    sl_arena_free(&arena);
    return 0;
}
