#include "model/packed.h"

#include "base/error.h"
#include "base/text.h"
#include "model/packed_int.h"

#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 512 };

/* ---------------------------------------------------------------- the method */

typedef enum method { NONE, GPTQ, AWQ, BITSANDBYTES } method;

static const char *text_of(const sl_json *object, const char *key, const char *fallback) {
    const char *text = sl_json_string(sl_json_get(object, key));
    return text ? text : fallback;
}

static method method_of(const sl_json *config) {
    const char *name = text_of(config, "quant_method", "");
    return !strcmp(name, "gptq") ? GPTQ : !strcmp(name, "awq") ? AWQ : !strcmp(name, "bitsandbytes") ? BITSANDBYTES : NONE;
}

const sl_json *sl_packed_config(const sl_checkpoint *checkpoint) {
    const sl_json *config = sl_json_get(checkpoint->config, "quantization_config");
    return config && config->type == SL_JSON_OBJECT ? config : NULL;
}

void sl_packed_describe(const sl_json *config, char out[64]) {
    int64_t bits = 4;
    bool eight = false;
    sl_json_int64(sl_json_get(config, "bits"), &bits);
    sl_json_bool(sl_json_get(config, "load_in_8bit"), &eight);
    if (method_of(config) != BITSANDBYTES) snprintf(out, 64, "%s, %d bits", method_of(config) == GPTQ ? "GPTQ" : "AWQ", (int)bits);
    else snprintf(out, 64, "bitsandbytes, %s", eight ? "LLM.int8" : text_of(config, "bnb_4bit_quant_type", "fp4"));
}

sllm_status sl_packed_check(const sl_json *config, sllm_error *error) {
    int64_t bits = 4, group = 128;
    method m = method_of(config);
    if (m == NONE)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "quantization_config: weights quantised by '%.60s' are not read; gptq, "
                       "awq and bitsandbytes are", text_of(config, "quant_method", "?"));
    if (m == BITSANDBYTES) return SLLM_OK;
    sl_json_int64(sl_json_get(config, "bits"), &bits);
    sl_json_int64(sl_json_get(config, "group_size"), &group);
    if (bits != 4 && !(m == GPTQ && bits == 8))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "quantization_config: %lld bits; %s are read", (long long)bits,
                       m == GPTQ ? "4 and 8" : "4");
    if (group < -1 || group == 0 || group > 1 << 20)
        return sl_fail(error, SLLM_ERROR_FORMAT, "quantization_config: groups of %lld", (long long)group);
    const char *format = text_of(config, m == GPTQ ? "checkpoint_format" : "version", m == GPTQ ? "gptq" : "gemm");
    if (strcmp(format, m == GPTQ ? "gptq" : "gemm") && !(m == GPTQ && !strcmp(format, "gptq_v2")))
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "quantization_config: the layout '%.60s' of %s is not read; %s is",
                       format, m == GPTQ ? "GPTQ" : "AWQ", m == GPTQ ? "gptq" : "gemm");
    return SLLM_OK;
}

/* ---------------------------------------------------------------- parts */

const sl_tensor *sl_packed_part(const sl_packed_reader *r, const char *base, const char *suffix) {
    char name[NAME_SIZE];
    int n = snprintf(name, sizeof name, "%s%s", base, suffix);
    return n > 0 && (size_t)n < sizeof name ? sl_safetensors_get(r->file, name) : NULL;
}

sllm_status sl_packed_make(const sl_packed_reader *r, const char *base, sl_type type, int64_t rows, int64_t columns,
                           sl_tensor *out) {
    char name[NAME_SIZE];
    int n = snprintf(name, sizeof name, "%s.weight", base);
    *out = (sl_tensor){.type = type, .n_dims = 2, .shape = {rows, columns}};
    out->n_elements = (uint64_t)rows * (uint64_t)columns;
    out->name = sl_arena_copy(r->arena, name, (size_t)n);
    if (!out->name || !sl_type_bytes(type, out->n_elements, &out->bytes) || out->bytes > SIZE_MAX)
        return sl_fail_memory(r->error, base, 0);
    out->data = sl_arena_alloc(r->arena, (size_t)out->bytes);
    return out->data ? SLLM_OK : sl_fail_memory(r->error, base, (size_t)out->bytes);
}

/* What a tensor of the file is: a matrix to be joined, one of its parts, or itself. */
typedef enum role { PLAIN, PART, JOINED } role;

/* base: name without its suffix, as long as `length`. */
static bool has_part(const sl_packed_reader *r, const char *name, size_t length, const char *suffix) {
    char base[NAME_SIZE];
    if (length >= sizeof base) return false;
    memcpy(base, name, length);
    base[length] = 0;
    return sl_packed_part(r, base, suffix) != NULL;
}

static role role_of(const sl_packed_reader *r, method m, const sl_tensor *t) {
    static const char *const integers[] = {".qzeros", ".scales", ".g_idx"};
    static const char *const nested[] = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                                         ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"};
    size_t length = strlen(t->name);
    if (m != BITSANDBYTES) {
        if (sl_ends_with(t->name, ".qweight")) return JOINED;
        for (size_t i = 0; i < 3; i++)
            if (sl_ends_with(t->name, integers[i]) && has_part(r, t->name, length - strlen(integers[i]), ".qweight")) return PART;
        return PLAIN;
    }
    if (sl_ends_with(t->name, ".weight"))
        return (t->type == SL_U8 && has_part(r, t->name, length, ".absmax")) ||
               (t->type == SL_I8 && has_part(r, t->name, length - 7, ".SCB")) ? JOINED : PLAIN;
    for (size_t i = 0; i < sizeof nested / sizeof *nested; i++)
        if (sl_ends_with(t->name, nested[i]) && has_part(r, t->name, length - strlen(nested[i]), "")) return PART;
    if (sl_ends_with(t->name, ".SCB") && has_part(r, t->name, length - 4, ".weight")) return PART;
    if (sl_ends_with(t->name, ".weight_format") && has_part(r, t->name, length - 14, ".SCB")) return PART;
    return PLAIN;
}

static sllm_status join(const sl_packed_reader *r, method m, const sl_tensor *t, sl_tensor *out) {
    char base[NAME_SIZE];
    size_t suffix = m == BITSANDBYTES ? strlen(".weight") : strlen(".qweight"), length = strlen(t->name) - suffix;
    if (length >= sizeof base) return sl_fail(r->error, SLLM_ERROR_FORMAT, "the name of tensor %.80s... is too long", t->name);
    memcpy(base, t->name, length);
    base[length] = 0;
    if (m == GPTQ) return sl_packed_gptq(r, base, out);
    if (m == AWQ) return sl_packed_awq(r, base, out);
    return t->type == SL_U8 ? sl_packed_bnb4(r, base, out) : sl_packed_bnb8(r, base, out);
}

sllm_status sl_packed_tensors(const sl_checkpoint *checkpoint, sl_pool *pool, sl_arena *arena, sl_tensor **list, size_t *n,
                              sllm_error *error) {
    sl_packed_reader r = {.file = checkpoint->weights, .pool = pool, .arena = arena, .error = error};
    size_t count = sl_safetensors_count(r.file);
    r.config = sl_packed_config(checkpoint);
    method m = r.config ? method_of(r.config) : NONE;
    *n = 0;
    *list = sl_arena_array(arena, count ? count : 1, sizeof **list);
    if (!*list) return sl_fail_memory(error, "the list of tensors", count * sizeof **list);
    sllm_status status = SLLM_OK;
    for (size_t i = 0; i < count && !status; i++) {
        const sl_tensor *t = sl_safetensors_at(r.file, i);
        role what = m == NONE ? PLAIN : role_of(&r, m, t);
        if (what == PLAIN) (*list)[(*n)++] = *t;
        else if (what == JOINED) status = join(&r, m, t, &(*list)[(*n)++]);
    }
    return status;
}
