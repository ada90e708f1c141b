/* Which type each tensor takes. */
#include "quant/quantise.h"

#include "base/error.h"
#include "tensor/quantise.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- the model */

/* An integer of the architecture's metadata; an array gives its largest (per-layer head counts). */
static int64_t arch_int(const sl_gguf *gguf, const char *suffix, int64_t fallback) {
    char key[160];
    const char *arch;
    size_t length;
    sl_gguf_value value, item;
    int64_t largest = fallback;
    if (!sl_gguf_get_string(gguf, "general.architecture", &arch, &length, NULL) || length > 64) return fallback;
    snprintf(key, sizeof key, "%.*s.%s", (int)length, arch, suffix);
    if (!sl_gguf_find(gguf, key, &value)) return fallback;
    if (value.type == SL_GGUF_U32 || value.type == SL_GGUF_U64 || value.type == SL_GGUF_U16) return (int64_t)value.u;
    if (value.type == SL_GGUF_I32 || value.type == SL_GGUF_I64) return value.i;
    if (value.type != SL_GGUF_ARRAY) return fallback;
    const unsigned char *at = value.array.data;
    while (sl_gguf_array_next(&value, &at, &item)) {
        int64_t n = item.type == SL_GGUF_U32 ? (int64_t)item.u : item.type == SL_GGUF_I32 ? item.i : 0;
        if (n > largest) largest = n;
    }
    return largest;
}

static sl_mix_model look_at(const sl_gguf *gguf, bool importance) {
    sl_mix_model m = {.importance = importance, .tied = !sl_gguf_tensor(gguf, "output.weight")};
    int64_t heads = arch_int(gguf, "attention.head_count", 1), kv = arch_int(gguf, "attention.head_count_kv", heads);
    int64_t layers = arch_int(gguf, "block_count", 0), experts = arch_int(gguf, "expert_count", 0);
    m.gqa = kv > 0 && heads > 0 && heads / kv < 1024 ? (int)(heads / kv) : 1;
    m.n_layers = layers > 0 && layers < 100000 ? (int)layers : 0;
    m.n_experts = experts > 0 && experts < 100000 ? (int)experts : 0;
    return m;
}

/* ---------------------------------------------------------------- one tensor */

static bool rule_matches(const sl_type_rule *rule, const char *name) {
    static const char suffix[] = ".weight";
    char bare[256];
    size_t length = strlen(name), end = sizeof suffix - 1;
    if (!fnmatch(rule->pattern, name, 0)) return true;
    if (length <= end || length >= sizeof bare || strcmp(name + length - end, suffix)) return false;
    memcpy(bare, name, length - end);
    bare[length - end] = 0;
    return !fnmatch(rule->pattern, bare, 0);
}

static int64_t columns_of(const sl_tensor *t) { return t->n_dims ? t->shape[t->n_dims - 1] : 1; }

static bool is_output(const sl_quantise_plan *plan, sl_role role) {
    return role.weight && (role.slot == SL_SLOT_OUTPUT || (role.slot == SL_SLOT_EMBED && plan->model.tied));
}

static void set_type(sl_quantise_item *item, sl_type wanted) {
    item->wanted = wanted;
    item->type = sl_mix_fallback(wanted, columns_of(item->source));
    item->changes = item->type != item->source->type;
}

static void choose(const sl_quantise_plan *plan, const sl_quantise_params *params, sl_quantise_item *item) {
    const sl_tensor *t = item->source;
    item->wanted = item->type = t->type;
    item->changes = false;
    if (!sl_role_is_quantised(item->role, t->n_dims)) return;
    if (is_output(plan, item->role) && params->keep_output) return;
    set_type(item, params->pure ? sl_mix_base(params->mix)
                                : sl_mix_type(params->mix, &plan->model, item->role, columns_of(t)));
}

/* What the user asked for by name has no fallback: a type that does not fit is an error. */
static sllm_status apply_rules(sl_quantise_plan *plan, const sl_quantise_params *params, sllm_error *error) {
    for (size_t r = params->n_rules; r-- > 0;) { /* backwards, so that the first that matches stands in the end */
        const sl_type_rule *rule = &params->rules[r];
        const sl_type_info *info = sl_type_get(rule->type);
        size_t n = 0;
        if (!sl_type_is_written(rule->type) || info->ggml_id < 0)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "--tensor %s=%s: %s is not written to GGUF files", rule->pattern,
                           info->name, info->name);
        for (size_t i = 0; i < plan->n; i++) {
            sl_quantise_item *item = &plan->items[i];
            if (!rule_matches(rule, item->source->name)) continue;
            n++;
            if (!sl_role_is_quantised(item->role, item->source->n_dims) && strpbrk(rule->pattern, "*?["))
                continue; /* norms, routers: only by their full name */
            if (item->source->n_dims < 2 && rule->type != SL_F32)
                return sl_fail(error, SLLM_ERROR_ARGUMENT, "--tensor %s=%s: %s is a vector, which GGUF files keep as F32", rule->pattern,
                               info->name, item->source->name);
            if (columns_of(item->source) % info->block)
                return sl_fail(error, SLLM_ERROR_ARGUMENT, "--tensor %s=%s: rows of %s have %lld values, which are no "
                               "multiple of its blocks of %d; %s would fit", rule->pattern, info->name,
                               item->source->name, (long long)columns_of(item->source), info->block,
                               sl_type_get(sl_mix_fallback(rule->type, columns_of(item->source)))->name);
            set_type(item, rule->type);
            item->is_fixed = true;
        }
        if (!n) return sl_fail(error, SLLM_ERROR_ARGUMENT, "--tensor %s=%s: no tensor has such a name; `sllm inspect "
                               "FILE` lists them", rule->pattern, info->name);
    }
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the whole */

bool sl_quantise_was_quantised(const sl_quantise_plan *plan, const sl_quantise_item *item) {
    return sl_type_get(item->source->type)->is_quantised || (plan->was_quantised && item->role.layer >= 0 && item->source->n_dims > 1);
}

/* Measured on another model, importance would be passed over without a word. */
static sllm_status check_importance(const sl_quantise_plan *plan, const sl_importance *importance, sllm_error *error) {
    size_t n = 0, known = 0;
    for (size_t i = 0; importance && i < plan->n; i++) {
        const sl_quantise_item *item = &plan->items[i];
        int64_t columns;
        if (!item->changes || !sl_role_is_quantised(item->role, item->source->n_dims)) continue;
        n++;
        if (!sl_importance_columns(importance, item->source->name, &columns)) continue;
        known++;
        if (columns != columns_of(item->source))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "the importance file is of another model: %s has %lld columns there and %lld here",
                           item->source->name, (long long)columns, (long long)columns_of(item->source));
    }
    if (known || !n) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "the importance file is of another model: it knows none of the %zu tensors", n);
}

static sllm_status check_sources(const sl_quantise_plan *plan, const sl_quantise_params *params, sllm_error *error) {
    const sl_quantise_item *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < plan->n; i++) {
        const sl_quantise_item *item = &plan->items[i];
        const sl_type_info *from = sl_type_get(item->source->type);
        if (item->changes && !from->is_float)
            return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: tensor %s holds %s values, which are no weights",
                           plan->path, item->source->name, from->name);
        if (!item->changes || !sl_quantise_was_quantised(plan, item)) continue;
        if (!first) first = item;
        n++;
    }
    if (!n || params->requantise) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: is quantised already (%zu tensors; the first is %s, %s): quantise the "
                   "f16 or bf16 original, or ask for --requantize and accept the errors of both", plan->path, n,
                   first->source->name, sl_type_get(first->source->type)->name);
}

/* What belongs to no block, then block by block, each in the file's order. */
static bool sort_by_block(sl_quantise_plan *plan) {
    sl_quantise_item *sorted = sl_arena_array(&plan->arena, plan->n, sizeof *sorted);
    size_t n = 0;
    for (int layer = -1; sorted && n < plan->n; layer++)
        for (size_t i = 0; i < plan->n; i++)
            if (plan->items[i].role.layer == layer) sorted[n++] = plan->items[i];
    if (sorted) plan->items = sorted;
    return sorted != NULL;
}

sllm_status sl_quantise_plan_new(const sl_gguf *source, const char *path, const sl_quantise_params *params,
                                 sl_quantise_plan *plan, sllm_error *error) {
    *plan = (sl_quantise_plan){.source = source, .path = path, .n = sl_gguf_tensor_count(source)};
    if (!plan->n) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: holds no tensors", path);
    sl_gguf_value before;
    plan->was_quantised = sl_gguf_find(source, "sllm.source.quantization", &before);
    plan->model = look_at(source, params->importance != NULL);
    plan->items = sl_arena_array(&plan->arena, plan->n, sizeof *plan->items);
    if (!plan->items) return sl_fail_memory(error, "the list of tensors", plan->n * sizeof *plan->items);
    for (size_t i = 0; i < plan->n; i++) {
        plan->items[i].source = sl_gguf_tensor_at(source, i);
        plan->items[i].role = sl_role_of(plan->items[i].source->name);
        choose(plan, params, &plan->items[i]);
    }
    if (params->method != SL_METHOD_ROUND && !sort_by_block(plan)) return sl_fail_memory(error, "the list of tensors", 0);
    sllm_status status = apply_rules(plan, params, error);
    if (!status) status = check_sources(plan, params, error);
    if (!status) status = check_importance(plan, params->importance, error);
    if (status) sl_quantise_plan_free(plan);
    return status;
}

void sl_quantise_plan_free(sl_quantise_plan *plan) {
    sl_arena_free(&plan->arena);
    plan->items = NULL;
    plan->n = 0;
}

void sl_quantise_plan_set(sl_quantise_plan *plan, size_t i, sl_type type) { set_type(&plan->items[i], type); }

bool sl_quantise_plan_target(void *user, const void *data, sl_target *target) {
    const sl_quantise_plan *plan = user;
    for (size_t i = 0; i < plan->n; i++) {
        const sl_tensor *t = plan->items[i].source;
        const uint8_t *from = t->data;
        if ((const uint8_t *)data < from || (const uint8_t *)data >= from + t->bytes) continue; /* or one of its experts */
        *target = (sl_target){.type = plan->items[i].type};
        return plan->items[i].changes && sl_role_is_quantised(plan->items[i].role, t->n_dims);
    }
    return false;
}

uint64_t sl_quantise_item_bytes(const sl_quantise_item *item) {
    uint64_t bytes = 0;
    sl_type_bytes(item->type, item->source->n_elements, &bytes);
    return bytes;
}

uint64_t sl_quantise_plan_bytes(const sl_quantise_plan *plan) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < plan->n; i++) bytes += sl_quantise_item_bytes(&plan->items[i]);
    return bytes;
}
