/* Safetensors: opens the bytes as a file and, where that works, reads every tensor. */
#include "format/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* so that no read is optimised away */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sl_safetensors *file;
    sllm_error error = {0};
    if (sl_safetensors_open_memory(data, size, &file, &error)) {
        if (file || !error.message[0]) abort();
        return 0;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < sl_safetensors_count(file); i++) {
        const sl_tensor *tensor = sl_safetensors_at(file, i);
        if (sl_safetensors_get(file, tensor->name) != tensor) abort();
        for (uint64_t j = 0; j < tensor->bytes; j++) sink += ((const unsigned char *)tensor->data)[j];
        total += tensor->bytes;
    }
    if (total > size) abort(); /* tensors never share bytes */
    sl_buffer out = {0};
    if (sl_safetensors_metadata(file)) sl_json_write_value(&out, sl_safetensors_metadata(file));
    sl_buffer_free(&out);
    sl_safetensors_close(file);
    return 0;
}
