/* golden quant/bnb4bit: rows that bitsandbytes quantised to NF4, its largest values and codes put together into blocks of
 * our element type, widened and compared with its own dequantisation. */
#include "format/safetensors.h"
#include "golden/golden.h"
#include "tensor/codes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 };

/* Columns that share an absmax: what n values in `blocks` blocks, the last perhaps short, say. 0: no power of two does. */
static uint64_t block_size(uint64_t n, uint64_t blocks) {
    for (uint64_t size = BLOCK; size <= 4096; size *= 2)
        if ((n + size - 1) / size == blocks) return size;
    return 0;
}

/* Blocks of the element type for n values, the last filled with zero codes; NULL: out of memory. */
static uint8_t *join(const sl_tensor *packed, const sl_tensor *absmax, uint64_t size, uint64_t n) {
    uint64_t blocks = (n + BLOCK - 1) / BLOCK;
    size_t bytes = sl_type_get(SL_NF4)->bytes;
    uint8_t *out = calloc(blocks, bytes);
    for (uint64_t b = 0; out && b < blocks; b++) {
        uint64_t from = b * BLOCK / 2, left = packed->bytes - from;
        memcpy(out + b * bytes, (const char *)absmax->data + b * BLOCK / size * 4, 4);
        memcpy(out + b * bytes + 4, (const char *)packed->data + from, left < BLOCK / 2 ? left : BLOCK / 2);
    }
    return out;
}

static void compare(golden *g, const char *name, const sl_tensor *packed, const sl_tensor *absmax,
                    const sl_tensor *expected) {
    uint64_t n = expected->n_elements, size = block_size(n, absmax->n_elements), whole = (n + BLOCK - 1) / BLOCK * BLOCK;
    if (!size || expected->type != SL_F32 || absmax->type != SL_F32 || packed->bytes != (n + 1) / 2) {
        golden_fail(g, name, "the tensors' sizes do not fit together");
        return;
    }
    uint8_t *blocks = join(packed, absmax, size, n);
    float *out = malloc(whole * sizeof *out);
    uint64_t differing = 0;
    if (blocks && out) {
        sl_type_get(SL_NF4)->to_float(blocks, out, whole);
        for (uint64_t i = 0; i < n; i++) differing += memcmp(&out[i], (const char *)expected->data + 4 * i, 4) != 0;
    }
    if (!blocks || !out) golden_fail(g, name, "out of memory");
    else if (differing) golden_fail(g, name, "%llu of %llu values differ", (unsigned long long)differing, (unsigned long long)n);
    else golden_pass(g, name, "%llu values bit-exact, %llu columns a block", (unsigned long long)n, (unsigned long long)size);
    free(blocks);
    free(out);
}

static void check_case(golden *g, const char *path, const char *name) {
    sl_safetensors *file = NULL;
    sllm_error error = {0};
    if (!strcmp(name, "cases.json")) return;
    if (!strstr(name, ".nf4.")) {
        golden_skip(g, path, "this format is not read yet");
        return;
    }
    if (sl_safetensors_open(path, &file, &error) != SLLM_OK) {
        golden_fail(g, name, "%s", error.message);
        return;
    }
    const sl_tensor *packed = sl_safetensors_get(file, "packed"), *expected = sl_safetensors_get(file, "dequant");
    const sl_tensor *absmax = sl_safetensors_get(file, "absmax"); /* double quantisation: already widened */
    if (!absmax) absmax = sl_safetensors_get(file, "absmax_dequant");
    if (packed && absmax && expected) compare(g, name, packed, absmax, expected);
    else golden_fail(g, name, "packed, absmax or dequant is missing");
    sl_safetensors_close(file);
}

void golden_bnb(golden *g, const char *directory) { golden_each(directory, check_case, g); }
