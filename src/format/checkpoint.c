/* Opening a Hugging Face checkpoint folder. */
#include "format/checkpoint.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PATH = 4096,
    MAX_NAME = 256,
    MAX_CONFIG = 64 << 20,  /* tokenizer_config.json with a thousand added tokens stays below 1 MB */
    MAX_TEMPLATE = 4 << 20
};

/* Parses directory/name into *root; absent leaves NULL unless `needed`. */
static sllm_status read_json(sl_checkpoint *checkpoint, const char *name, bool needed, const sl_json **root,
                             sllm_error *error) {
    char path[MAX_PATH];
    sl_buffer text = {0};
    if (!sl_path_join(path, sizeof path, checkpoint->path, name))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.200s...: the path is too long", checkpoint->path);
    if (!sl_path_is_file(path)) {
        if (!needed) return SLLM_OK;
        return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                       "%s: no %s in this folder: it is not a Hugging Face checkpoint, or not all of it was downloaded",
                       checkpoint->path, name);
    }
    sllm_status status = sl_file_read(path, MAX_CONFIG, &text, error);
    if (!status) status = sl_json_parse(&checkpoint->arena, text.data, text.length, path, root, error);
    if (!status && (*root)->type != SL_JSON_OBJECT)
        status = sl_fail(error, SLLM_ERROR_FORMAT, "%s: not a JSON object", path);
    sl_buffer_free(&text);
    return status;
}

/* ---- chat template */

static sllm_status set_template(sl_checkpoint *checkpoint, const char *text, size_t length, sllm_error *error) {
    checkpoint->chat_template = sl_arena_copy(&checkpoint->arena, text, length);
    if (!checkpoint->chat_template) return sl_fail_memory(error, checkpoint->path, length);
    checkpoint->chat_template_length = length;
    return SLLM_OK;
}

/* "chat_template" of a JSON file: a string, or a list of {"name", "template"} of which the one named "default"
 * counts. */
static sllm_status template_from_json(sl_checkpoint *checkpoint, const char *file, const sl_json *root,
                                      sllm_error *error) {
    const sl_json *value = sl_json_get(root, "chat_template");
    if (!value || value->type == SL_JSON_NULL) return SLLM_OK;
    if (value->type == SL_JSON_ARRAY) {
        const sl_json *list = value;
        value = NULL;
        for (const sl_json *item = list->first; item && !value; item = item->next) {
            const char *name = sl_json_string(sl_json_get(item, "name"));
            if (name && !strcmp(name, "default")) value = sl_json_get(item, "template");
        }
        if (!value) return SLLM_OK; /* named templates only: none of them is what a chat gets unasked */
    }
    if (value->type != SL_JSON_STRING)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s/%s: \"chat_template\" is neither a string nor a list of templates",
                       checkpoint->path, file);
    return set_template(checkpoint, value->text, value->length, error);
}

static sllm_status read_template(sl_checkpoint *checkpoint, sllm_error *error) {
    char path[MAX_PATH];
    sl_buffer text = {0};
    const sl_json *root = NULL;
    if (!sl_path_join(path, sizeof path, checkpoint->path, "chat_template.jinja"))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.200s...: the path is too long", checkpoint->path);
    if (sl_path_is_file(path)) {
        sllm_status status = sl_file_read(path, MAX_TEMPLATE, &text, error);
        if (!status) status = set_template(checkpoint, text.data, text.length, error);
        sl_buffer_free(&text);
        return status;
    }
    sllm_status status = template_from_json(checkpoint, "tokenizer_config.json", checkpoint->tokenizer_config, error);
    if (status || checkpoint->chat_template) return status;
    status = read_json(checkpoint, "chat_template.json", false, &root, error);
    return status ? status : template_from_json(checkpoint, "chat_template.json", root, error);
}

/* ---- weights */

static bool is_pickle(const char *name) {
    return sl_has_extension(name, ".bin") || sl_has_extension(name, ".pt") || sl_has_extension(name, ".pth") ||
           sl_has_extension(name, ".pkl") ||
           sl_has_extension(name, ".ckpt") || !strcmp(name, "pytorch_model.bin.index.json");
}

/* Safetensors files that lie beside weights but are not the model's. */
static bool is_other_safetensors(const char *name) {
    return !strcmp(name, "expected.safetensors") || !strcmp(name, "adapter_model.safetensors");
}

/* What a folder holds, by the first name of each kind in alphabetical order. */
typedef struct listing {
    char safetensors[MAX_NAME], second[MAX_NAME]; /* candidates for the weights; `second` when there is more than one */
    char pickle[MAX_NAME], gguf[MAX_NAME], adapter[MAX_NAME];
} listing;

static void keep_first(char kept[MAX_NAME], const char *name) {
    if (!*kept || strcmp(name, kept) < 0) snprintf(kept, MAX_NAME, "%s", name);
}

static sllm_status list_folder(const char *path, listing *list, sllm_error *error) {
    DIR *directory = opendir(path);
    if (!directory) return sl_fail_errno(error, "list", path);
    for (struct dirent *entry; (entry = readdir(directory));) {
        const char *name = entry->d_name;
        if (sl_has_extension(name, ".safetensors") && !is_other_safetensors(name)) {
            if (*list->safetensors)
                keep_first(list->second, strcmp(name, list->safetensors) < 0 ? list->safetensors : name);
            keep_first(list->safetensors, name);
        } else if (sl_has_extension(name, ".gguf")) {
            keep_first(list->gguf, name);
        } else if (!strcmp(name, "adapter_model.safetensors")) {
            keep_first(list->adapter, name);
        } else if (is_pickle(name)) {
            keep_first(list->pickle, name);
        }
    }
    closedir(directory);
    return SLLM_OK;
}

static sllm_status no_weights(const char *path, const listing *list, sllm_error *error) {
    if (*list->gguf)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                       "%s: no safetensors weights in this folder; it holds %s: name that file", path, list->gguf);
    if (*list->pickle)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "%s/%s: weights in Python's pickle format are refused, because loading them can run any code "
                       "they hold; use a safetensors copy of the model, or convert this one (transformers: "
                       "save_pretrained(..., safe_serialization=True)) where you trust its origin",
                       path, list->pickle);
    if (*list->adapter)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                       "%s: an adapter (%s) without the weights of its base model; load the base model", path,
                       list->adapter);
    return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                   "%s: no weights in this folder: neither model.safetensors nor model.safetensors.index.json", path);
}

static sllm_status find_weights(const char *path, char *out, size_t size, sllm_error *error) {
    static const char *const usual[] = {"model.safetensors", "model.safetensors.index.json"};
    listing list = {0};
    for (size_t i = 0; i < 2; i++)
        if (sl_path_join(out, size, path, usual[i]) && sl_path_is_file(out)) return SLLM_OK;
    sllm_status status = list_folder(path, &list, error);
    if (status) return status;
    if (!*list.safetensors) return no_weights(path, &list, error);
    if (*list.second)
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "%s: several safetensors files (%s, %s) and no model.safetensors.index.json that says which "
                       "belong to the model",
                       path, list.safetensors, list.second);
    if (!sl_path_join(out, size, path, list.safetensors))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%.200s...: the path is too long", path);
    return SLLM_OK;
}

/* ---- the whole */

static sllm_status read_folder(sl_checkpoint *checkpoint, bool vocab_only, sllm_error *error) {
    char weights[MAX_PATH];
    sllm_status status = read_json(checkpoint, "config.json", true, &checkpoint->config, error);
    if (!status) status = read_json(checkpoint, "generation_config.json", false, &checkpoint->generation_config, error);
    if (!status) status = read_json(checkpoint, "tokenizer_config.json", false, &checkpoint->tokenizer_config, error);
    if (!status)
        status = read_json(checkpoint, "special_tokens_map.json", false, &checkpoint->special_tokens_map, error);
    if (!status) status = read_template(checkpoint, error);
    if (status || vocab_only) return status;
    status = find_weights(checkpoint->path, weights, sizeof weights, error);
    return status ? status : sl_safetensors_open(weights, &checkpoint->weights, error);
}

sllm_status sl_checkpoint_open(const char *directory, bool vocab_only, sl_checkpoint **out, sllm_error *error) {
    *out = NULL;
    if (!sl_path_is_directory(directory))
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: no such folder", directory);
    sl_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint) return sl_fail_memory(error, directory, 0);
    checkpoint->path = sl_arena_copy(&checkpoint->arena, directory, strlen(directory));
    sllm_status status =
        checkpoint->path ? read_folder(checkpoint, vocab_only, error) : sl_fail_memory(error, directory, 0);
    if (status) sl_checkpoint_close(checkpoint);
    else *out = checkpoint;
    return status;
}

void sl_checkpoint_close(sl_checkpoint *checkpoint) {
    if (!checkpoint) return;
    sl_safetensors_close(checkpoint->weights);
    sl_arena_free(&checkpoint->arena);
    free(checkpoint);
}
