/* A Hugging Face checkpoint folder: its JSON files parsed, its tensors by name. Pickle weights (*.bin, *.pt, *.pth)
 * are refused by name: loading them would run code. */
#ifndef SL_FORMAT_CHECKPOINT_H
#define SL_FORMAT_CHECKPOINT_H

#include "format/safetensors.h"

typedef struct sl_checkpoint {
    char *path;
    const sl_json *config;            /* config.json as it stands; always there */
    const sl_json *generation_config; /* NULL where the file is absent */
    const sl_json *tokenizer_config;
    const sl_json *special_tokens_map;
    char *chat_template;              /* chat_template.jinja, else tokenizer_config's chat_template (a string, or the
                                         one named "default"), else chat_template.json; NULL: none */
    size_t chat_template_length;
    sl_safetensors *weights;          /* NULL with vocab_only */
    sl_arena arena;                   /* owns the JSON trees */
} sl_checkpoint;

/* Opens a folder. With vocab_only no weights are looked for. SLLM_ERROR_NOT_FOUND: no such folder, no config.json, no
 * weights; SLLM_ERROR_UNSUPPORTED: pickle weights only; SLLM_ERROR_FORMAT: damaged, or several candidates for the
 * weights. */
sllm_status sl_checkpoint_open(const char *directory, bool vocab_only, sl_checkpoint **checkpoint, sllm_error *error);
void sl_checkpoint_close(sl_checkpoint *checkpoint); /* NULL is allowed */

#endif
