/* An adapter as PEFT's folder: adapter_config.json and adapter_model.safetensors, which peft's PeftModel.from_pretrained loads. */
#ifndef SL_TRAIN_ADAPTER_WRITE_H
#define SL_TRAIN_ADAPTER_WRITE_H

#include "model/adapter.h"

typedef struct sl_adapter_form {
    int rank;
    double alpha, dropout;
    bool rslora, dora;
    const char *base;      /* the model's name or path, for people and for peft */
    const char *own;       /* JSON object for sllm.json beside them: the base's fingerprint, licence, recipe, prompt format; NULL: none */
} sl_adapter_form;

/* Writes the files into a folder that is there; each appears when it is complete, the configuration last. The gguf rows of q and k are
 * put back into the checkpoint's order. */
sllm_status sl_adapter_write(const sl_model *model, const sl_adapter *adapter, const sl_adapter_form *form, const char *folder,
                             sllm_error *error);

/* A as PEFT begins it, from the uniform distribution within 1 / sqrt(n_in), by seed; B zero; magnitudes the rows' norms (gains 1). False:
 * out of memory. */
bool sl_adapter_begin_values(const sl_model *model, sl_adapter *adapter, uint64_t seed);

#endif
