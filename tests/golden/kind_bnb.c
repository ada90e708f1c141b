/* golden quant/bnb4bit: bitsandbytes' formats. Readers give its dequantisation (bit for bit); writers its bytes, but for
 * exact ties and FP4's two zeros; NF4 also joined into blocks of our element type and widened. */
#include "format/safetensors.h"
#include "golden/golden.h"
#include "tensor/bnb.h"
#include "tensor/codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 };

typedef struct bnb_case {
    const sl_tensor *input, *packed, *absmax, *codes, *nested, *map, *offset, *expected;
    uint64_t n, size; /* values; of a block */
    sl_bnb4 kind;
} bnb_case;

/* Columns that share an absmax: what n values in `blocks` blocks, the last perhaps short, say. 0: no power of two does. */
static uint64_t block_size(uint64_t n, uint64_t blocks) {
    for (uint64_t size = BLOCK; size <= 4096; size *= 2)
        if ((n + size - 1) / size == blocks) return size;
    return 0;
}

/* Bits that differ, but for the sign of zero: FP4 has two zeros, and the library does not keep them apart everywhere. */
static uint64_t differing(const float *a, const void *b, uint64_t n) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < n; i++) {
        float expected;
        memcpy(&expected, (const char *)b + 4 * i, 4);
        count += memcmp(&a[i], &expected, 4) != 0 && !(a[i] == 0 && expected == 0);
    }
    return count;
}

/* ---------------------------------------------------------------- reading */

/* Blocks of the element type for n values, the last filled with zero codes; NULL: out of memory. */
static uint8_t *join(const bnb_case *c, const float *absmax) {
    uint64_t blocks = (c->n + BLOCK - 1) / BLOCK;
    size_t bytes = sl_type_get(SL_NF4)->bytes;
    uint8_t *out = calloc(blocks, bytes);
    for (uint64_t b = 0; out && b < blocks; b++) {
        uint64_t from = b * BLOCK / 2, left = c->packed->bytes - from;
        memcpy(out + b * bytes, &absmax[b * BLOCK / c->size], 4);
        memcpy(out + b * bytes + 4, (const char *)c->packed->data + from, left < BLOCK / 2 ? left : BLOCK / 2);
    }
    return out;
}

static uint64_t read_as_blocks(const bnb_case *c, const float *absmax) {
    uint64_t whole = (c->n + BLOCK - 1) / BLOCK * BLOCK, count = c->n;
    uint8_t *blocks = join(c, absmax);
    float *out = malloc(whole * sizeof *out);
    if (blocks && out) {
        sl_type_get(SL_NF4)->to_float(blocks, out, whole);
        count = differing(out, c->expected->data, c->n);
    }
    free(blocks);
    free(out);
    return count;
}

static void check_reader(golden *g, const char *name, const bnb_case *c, const float *absmax) {
    float *out = malloc(c->n * sizeof *out);
    if (!out) {
        golden_fail(g, name, "out of memory");
        return;
    }
    sl_bnb4_dequantise(c->kind, c->packed->data, absmax, c->n, c->size, out);
    uint64_t wrong = differing(out, c->expected->data, c->n), joined = c->kind == SL_BNB_NF4 ? read_as_blocks(c, absmax) : 0;
    free(out);
    if (wrong || joined) golden_fail(g, name, "read: %llu of %llu values differ, %llu as blocks", (unsigned long long)wrong,
                                     (unsigned long long)c->n, (unsigned long long)joined);
    else golden_pass(g, name, "read: %llu values bit-exact, %llu columns a block", (unsigned long long)c->n,
                     (unsigned long long)c->size);
}

/* ---------------------------------------------------------------- writing */

/* Codes that differ although the value lies no nearer to one of them: none may. */
static uint64_t wrong_codes(const bnb_case *c, const uint8_t *packed, const float *absmax) {
    const float *values = sl_bnb4_values(c->kind), *x = c->input->data;
    const uint8_t *expected = c->packed->data;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < c->n; i++) {
        int shift = i % 2 ? 0 : 4;
        float a = values[packed[i / 2] >> shift & 15], b = values[expected[i / 2] >> shift & 15], top = absmax[i / c->size];
        float y = top > 0 ? x[i] / top : 0;
        bool tie = fabsf(fabsf(y - a) - fabsf(y - b)) < 1e-6f;
        wrong += a != b && !tie;
    }
    return wrong;
}

static void check_writer(golden *g, const char *name, const bnb_case *c, const float *reference_absmax) {
    uint64_t blocks = (c->n + c->size - 1) / c->size, wrong = c->n, nested = 0, tops = 0;
    uint8_t *packed = malloc((c->n + 1) / 2), *codes = malloc(blocks);
    float *absmax = malloc(blocks * sizeof *absmax), *own = malloc(blocks * sizeof *own), offset = 0;
    if (packed && absmax && codes && own) {
        sl_bnb4_quantise(c->kind, c->input->data, c->n, c->size, packed, absmax);
        wrong = wrong_codes(c, packed, absmax);
        if (c->codes) {
            float map[256], tight[64];
            sl_bnb8_map(map);
            nested = blocks > 64 * SL_BNB_NESTED || !sl_bnb_nest(map, absmax, blocks, codes, tight, &offset);
            for (uint64_t i = 0; i < blocks; i++) nested += abs(codes[i] - ((const uint8_t *)c->codes->data)[i]) > 1;
            sl_bnb_unnest(map, codes, tight, offset, blocks, own);
            for (uint64_t i = 0; i < blocks; i++) tops += fabsf(own[i] - reference_absmax[i]) > 1e-6f * (1 + fabsf(own[i])) * 50;
        } else {
            tops = differing(absmax, c->absmax->data, blocks);
        }
    }
    free(packed);
    free(codes);
    free(absmax);
    free(own);
    (wrong || nested || tops ? golden_fail : golden_pass)(g, name, "written: %llu codes and %llu largest values differ beyond ties",
        (unsigned long long)wrong, (unsigned long long)(nested + tops));
}

static void check_four_bits(golden *g, const char *name, const sl_safetensors *file) {
    bnb_case c = {
        .input = sl_safetensors_get(file, "input"), .packed = sl_safetensors_get(file, "packed"),
        .absmax = sl_safetensors_get(file, "absmax"), .codes = sl_safetensors_get(file, "absmax_u8"),
        .nested = sl_safetensors_get(file, "nested_absmax"), .map = sl_safetensors_get(file, "nested_code"),
        .offset = sl_safetensors_get(file, "offset"), .expected = sl_safetensors_get(file, "dequant"),
        .kind = strstr(name, ".nf4.") ? SL_BNB_NF4 : SL_BNB_FP4,
    };
    const sl_tensor *tops = c.codes ? c.codes : c.absmax;
    if (!c.input || !c.packed || !tops || !c.expected || (c.codes && (!c.nested || !c.map || !c.offset))) {
        golden_fail(g, name, "tensors are missing");
        return;
    }
    c.n = c.expected->n_elements;
    c.size = block_size(c.n, tops->n_elements);
    if (!c.size || c.packed->bytes != (c.n + 1) / 2 || c.input->n_elements != c.n) {
        golden_fail(g, name, "the tensors' sizes do not fit together");
        return;
    }
    float *absmax = malloc(tops->n_elements * sizeof *absmax), map[256];
    if (!absmax) {
        golden_fail(g, name, "out of memory");
        return;
    }
    if (c.codes) {
        memcpy(map, c.map->data, sizeof map);
        sl_bnb_unnest(map, c.codes->data, c.nested->data, *(const float *)c.offset->data, tops->n_elements, absmax);
    } else {
        memcpy(absmax, c.absmax->data, c.absmax->bytes);
    }
    check_reader(g, name, &c, absmax);
    check_writer(g, name, &c, absmax);
    free(absmax);
}

/* ---------------------------------------------------------------- eight bits */

static void check_rows(golden *g, const char *name, const sl_safetensors *file) {
    const sl_tensor *input = sl_safetensors_get(file, "input_f16"), *q = sl_safetensors_get(file, "q");
    const sl_tensor *absmax = sl_safetensors_get(file, "absmax");
    uint64_t wrong = 0, tops = 0;
    float x[4096];
    int8_t codes[4096];
    if (!input || !q || !absmax || input->n_dims != 2 || input->shape[1] > 4096) {
        golden_fail(g, name, "tensors are missing");
        return;
    }
    for (int64_t r = 0; r < input->shape[0]; r++) {
        size_t n = (size_t)input->shape[1];
        float top;
        sl_type_get(SL_F16)->to_float((const uint8_t *)input->data + 2 * n * (size_t)r, x, n);
        sl_bnb_int8_row(x, n, codes, &top);
        tops += top != ((const float *)absmax->data)[r];
        for (size_t i = 0; i < n; i++) {
            float exact = top > 0 ? x[i] * 127 / top : 0;
            bool tie = fabsf(fabsf(exact - truncf(exact)) - 0.5f) < 1e-4f;
            wrong += codes[i] != ((const int8_t *)q->data)[(size_t)r * n + i] && !tie;
        }
    }
    (wrong || tops ? golden_fail : golden_pass)(g, name, "written: %llu codes and %llu largest values differ beyond ties",
                                                (unsigned long long)wrong, (unsigned long long)tops);
}

static void check_dynamic(golden *g, const char *name, const sl_safetensors *file) {
    const sl_tensor *input = sl_safetensors_get(file, "input"), *q = sl_safetensors_get(file, "q");
    const sl_tensor *absmax = sl_safetensors_get(file, "absmax"), *code = sl_safetensors_get(file, "code");
    const sl_tensor *expected = sl_safetensors_get(file, "dequant");
    float map[256], tops[64], *out = NULL;
    uint8_t *codes = NULL;
    if (!input || !q || !absmax || !code || !expected || code->n_elements != 256 || absmax->n_elements > 64) {
        golden_fail(g, name, "tensors are missing");
        return;
    }
    uint64_t n = input->n_elements, wrong = 0, other = 0, read = n, apart = 0;
    sl_bnb8_map(map);
    for (int i = 0; i < 256; i++) apart += fabsf(map[i] - ((const float *)code->data)[i]) > 1e-7f;
    out = malloc(n * sizeof *out);
    codes = malloc(n);
    if (out && codes) {
        memcpy(map, code->data, sizeof map);
        sl_bnb8_dequantise(map, q->data, absmax->data, n, 256, out);
        read = differing(out, expected->data, n);
        sl_bnb8_quantise(map, input->data, n, 256, codes, tops);
        for (uint64_t i = 0; i < n; i++) {
            float y = ((const float *)input->data)[i] / tops[i / 256], a = map[codes[i]], b = map[((const uint8_t *)q->data)[i]];
            other += a != b; /* the library's own search is not exact: where codes differ ours may not be further */
            wrong += fabsf(y - a) > fabsf(y - b) + 1e-6f;
        }
    }
    free(out);
    free(codes);
    (apart || read || wrong ? golden_fail : golden_pass)(g, name, "read: %llu differ; written: %llu further than the library's, %llu others; "
        "map: %llu", (unsigned long long)read, (unsigned long long)wrong, (unsigned long long)other, (unsigned long long)apart);
}

static void check_case(golden *g, const char *path, const char *name) {
    sl_safetensors *file = NULL;
    sllm_error error = {0};
    if (!strcmp(name, "cases.json")) return;
    if (sl_safetensors_open(path, &file, &error) != SLLM_OK) {
        golden_fail(g, name, "%s", error.message);
        return;
    }
    if (strstr(name, ".nf4.") || strstr(name, ".fp4.")) check_four_bits(g, name, file);
    else if (!strncmp(name, "int8", 4)) check_rows(g, name, file);
    else check_dynamic(g, name, file);
    sl_safetensors_close(file);
}

void golden_bnb(golden *g, const char *directory) { golden_each(directory, check_case, g); }
