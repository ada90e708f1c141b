#include "base/error.h"
#include "hub/choose.h"
#include "model/families.h"

#include <string.h>

/* Names in our "shape", and what config.json files call them. */
static const struct { const char *ours, *theirs[4]; } sizes[] = {
    {"layers", {"num_hidden_layers", "n_layer"}},
    {"embedding", {"hidden_size", "n_embd"}},
    {"heads", {"num_attention_heads", "n_head"}},
    {"kv_heads", {"num_key_value_heads"}},
    {"head_dim", {"head_dim"}},
    {"feed_forward", {"intermediate_size", "ff_intermediate_size"}},
    {"vocabulary", {"vocab_size"}},
    {"experts", {"num_experts", "num_local_experts"}},
    {"experts_used", {"num_experts_per_tok"}},
    {"expert_feed_forward", {"moe_intermediate_size"}},
    {"shared_feed_forward", {"shared_expert_intermediate_size"}},
};

static const sl_family *family_named(const char *name) {
    const sl_family *family;
    for (size_t i = 0; (family = sl_family_at(i)); i++)
        if (!strcmp(family->name, name)) return family;
    return NULL;
}

/* The config.json that the maker's would be as far as sizes go. */
static void write_config(sl_buffer *out, const sl_family *family, const sl_json *entry, const sl_json *shape) {
    int64_t value;
    bool tied = false;
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "model_type", family->hf[0]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (const char *const *name = sizes[i].theirs; *name && sl_json_int64(sl_json_get(shape, sizes[i].ours), &value);
             name++)
            sl_json_put_int(out, *name, value);
    if (sl_json_int64(sl_json_get(entry, "context"), &value)) {
        sl_json_put_int(out, "max_position_embeddings", value);
        sl_json_put_int(out, "n_positions", value);
    }
    sl_json_bool(sl_json_get(shape, "tied"), &tied);
    sl_json_put_bool(out, "tie_word_embeddings", tied);
    sl_buffer_putc(out, '}');
}

sllm_status sl_shape_config(const sl_json *entry, sl_arena *arena, sl_config *config, sllm_error *error) {
    const char *name = sl_json_string(sl_json_get(entry, "name"));
    const sl_json *shape = sl_json_get(entry, "shape"), *root = NULL;
    const sl_family *family = family_named(sl_json_string(sl_json_get(entry, "family")));
    sl_buffer out = {0};
    if (!shape) return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: the catalogue does not say its shape", name);
    if (!family || !family->hf[0])
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: its family is unknown here", name);
    write_config(&out, family, entry, shape);
    sllm_status status = out.failed ? sl_fail_memory(error, "a model's shape", 0)
                                    : sl_json_parse(arena, out.data, out.length, name, &root, error);
    if (!status) status = sl_config_from_json(root, arena, config, error);
    sl_buffer_free(&out);
    return status;
}
