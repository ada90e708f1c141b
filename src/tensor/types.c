/* The table of element types and the conversions of single floats. */
#include "tensor/types.h"

#include "base/checked.h"
#include "tensor/codes.h"

#include <string.h>
#include <strings.h>

/* ---------------------------------------------------------------- single floats */

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

float sl_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    /* Zero and subnormals: mantissa * 2^-24, exact in f32. */
    return from_bits(sign | to_bits((float)mantissa * 0x1p-24f));
}

uint16_t sl_f32_to_f16(float f) {
    uint32_t bits = to_bits(f), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff)); /* NaN, payload kept */
    if (magnitude >= 0x477ff000) return sign | 0x7c00;           /* rounds to 65536 or more: infinity */
    if (magnitude < 0x38800000)                                  /* below 2^-14: adding 0.5 rounds at 2^-24 */
        return (uint16_t)(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

float sl_bf16_to_f32(uint16_t h) { return from_bits((uint32_t)h << 16); }

uint16_t sl_f32_to_bf16(float f) {
    uint32_t bits = to_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* quiet, so that it stays a NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---------------------------------------------------------------- rows of floats */

static void f32_to_float(const void *in, float *out, size_t n) { memcpy(out, in, n * 4); }

static void f16_to_float(const void *in, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = sl_f16_to_f32(sl_load_u16((const uint8_t *)in + 2 * i));
}

static void bf16_to_float(const void *in, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = sl_bf16_to_f32(sl_load_u16((const uint8_t *)in + 2 * i));
}

static void f64_to_float(const void *in, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, (const char *)in + 8 * i, 8);
        out[i] = (float)value;
    }
}

/* ---------------------------------------------------------------- quantised rows */

/* The two roundings of codes.h. A type without minimums must not add 0: that would turn -0 into +0. */
static void widen(sl_type type, const void *in, float *out, size_t n) {
    const sl_type_info *info = sl_type_get(type);
    const sl_codes *form = sl_type_codes(type);
    int8_t codes[SL_MAX_BLOCK];
    float scales[SL_MAX_GROUPS], mins[SL_MAX_GROUPS];
    const uint8_t *block = in;
    for (size_t done = 0; done < n; done += info->block, block += info->bytes) {
        form->unpack(block, codes, scales, mins);
        for (unsigned g = 0; g < (unsigned)info->block / form->group; g++, out += form->group) {
            const int8_t *c = codes + g * form->group;
            if (form->has_min)
                for (unsigned i = 0; i < form->group; i++) out[i] = scales[g] * (float)c[i] + mins[g];
            else
                for (unsigned i = 0; i < form->group; i++) out[i] = scales[g] * (float)c[i];
        }
    }
}

static void widen_book(const float *book, const void *in, float *out, size_t n) {
    const uint8_t *block = in;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *b = block + i / 64 * 36;
        out[i] = book[sl_nf4_index(b, (int)(i % 64))] * sl_load_f32(b);
    }
}

#define TO_FLOAT(TYPE, name, ...) \
    static void name##_to_float(const void *in, float *out, size_t n) { \
        if (sl_float_book(SL_##TYPE)) widen_book(sl_float_book(SL_##TYPE), in, out, n); \
        else widen(SL_##TYPE, in, out, n); \
    }
SL_QUANTISED(TO_FLOAT)

#define CODES_ROW(TYPE, name, id, block, bytes, group, offset, top, has_min) \
    [SL_##TYPE] = {sl_unpack_##name, group, offset, top, has_min},
static const sl_codes code_forms[SL_TYPE_COUNT] = {SL_QUANTISED(CODES_ROW)};

const sl_codes *sl_type_codes(sl_type type) { return code_forms[type].unpack ? &code_forms[type] : NULL; }

/* ---------------------------------------------------------------- the table */

#define INFO_ROW(TYPE, name, id, block, bytes, ...) \
    [SL_##TYPE] = {#TYPE, id, NULL, block, bytes, true, true, name##_to_float},
static const sl_type_info infos[SL_TYPE_COUNT] = {
    [SL_F32] = {"F32", 0, "F32", 1, 4, true, false, f32_to_float},
    [SL_F16] = {"F16", 1, "F16", 1, 2, true, false, f16_to_float},
    [SL_BF16] = {"BF16", 30, "BF16", 1, 2, true, false, bf16_to_float},
    [SL_F64] = {"F64", 28, "F64", 1, 8, true, false, f64_to_float},
    SL_QUANTISED(INFO_ROW)
    [SL_I8] = {"I8", 24, "I8", 1, 1, false, false, NULL},
    [SL_I16] = {"I16", 25, "I16", 1, 2, false, false, NULL},
    [SL_I32] = {"I32", 26, "I32", 1, 4, false, false, NULL},
    [SL_I64] = {"I64", 27, "I64", 1, 8, false, false, NULL},
    [SL_U8] = {"U8", -1, "U8", 1, 1, false, false, NULL},
    [SL_BOOL] = {"BOOL", -1, "BOOL", 1, 1, false, false, NULL},
};

const sl_type_info *sl_type_get(sl_type type) {
    return (unsigned)type < SL_TYPE_COUNT ? &infos[type] : NULL;
}

bool sl_type_from_ggml(int64_t ggml_id, sl_type *type) {
    for (int t = 0; ggml_id >= 0 && t < SL_TYPE_COUNT; t++) {
        if (infos[t].ggml_id != ggml_id) continue;
        *type = (sl_type)t;
        return true;
    }
    return false;
}

bool sl_type_from_name(const char *name, sl_type *type) {
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (strcasecmp(infos[t].name, name)) continue;
        *type = (sl_type)t;
        return true;
    }
    return false;
}

bool sl_type_from_safetensors(const char *name, sl_type *type) {
    for (int t = 0; t < SL_TYPE_COUNT; t++) {
        if (!infos[t].safetensors_name || strcmp(infos[t].safetensors_name, name)) continue;
        *type = (sl_type)t;
        return true;
    }
    return false;
}

bool sl_type_bytes(sl_type type, uint64_t n, uint64_t *bytes) {
    const sl_type_info *info = sl_type_get(type);
    return info && n % info->block == 0 && sl_mul_u64(n / info->block, info->bytes, bytes);
}
