/* Adapters: changes to a model's products that are kept beside it and computed with it, never merged unless asked.
 *
 *     LoRA   y = W x + scale B (A x)                             Hu et al. 2021, arXiv 2106.09685; rsLoRA: Kalajdzievski 2023
 *     DoRA   y = gain (W x + scale B (A x)), gain = m / |W + scale B A| of each row      Liu et al. 2024, arXiv 2402.09353
 *
 * and matrices replaced whole (the embedding, the output matrix). Read from PEFT's folders (adapter_read.c) and GGUF adapters. */
#ifndef SL_MODEL_ADAPTER_H
#define SL_MODEL_ADAPTER_H

#include "model/model.h"
#include "model/products.h"

/* Of one product. Rows of b stand in the order of the model's rows. */
typedef struct sl_lora {
    sl_slot slot;
    int layer, expert;
    int rank;
    int64_t n_in, n_out;
    float scale;        /* alpha / rank, or alpha / sqrt(rank) */
    float *a;           /* [rank, n_in] */
    float *b;           /* [n_out, rank] */
    float *magnitude;   /* [n_out] DoRA; NULL: none */
    float *gain;        /* [n_out] magnitude / norm of the changed row; NULL without magnitude */
} sl_lora;

typedef struct sl_adapter {
    char *path;
    sl_lora *list;      /* [n] in the order of sl_products_each */
    size_t n;
    int32_t *places;    /* [n_layers + 1, SL_SLOT_COUNT, max(1, n_experts)] index in list plus 1; 0: none */
    int n_experts;      /* of places: max(1, n_experts) */
    int max_rank;
    sl_tensor embed, output; /* in place of the model's; data NULL: the model's stay */
    sl_arena arena;
} sl_adapter;

/* Reads a PEFT folder (adapter_config.json, adapter_model.safetensors). SLLM_ERROR_FORMAT names a tensor that fits no product of
 * the model, or whose shape does not; SLLM_ERROR_UNSUPPORTED a kind of adapter or a setting that is not known. */
sllm_status sl_adapter_read(const sl_model *model, const char *path, sl_adapter **adapter, sllm_error *error);
void sl_adapter_free(sl_adapter *adapter); /* NULL is allowed */

/* An adapter without any change yet: for each place that `wants` accepts, A and B of this rank, zero. For trainers. */
sllm_status sl_adapter_new(const sl_model *model, int rank, float scale, bool dora,
                           bool (*wants)(void *user, const sl_product_place *place), void *user, sl_adapter **adapter, sllm_error *error);
/* The steps of it, for readers: an adapter with room for n products, and one of them, in the order of sl_products_each. NULL: out
 * of memory. */
sllm_status sl_adapter_begin(const sl_model *model, const char *path, size_t n, sl_adapter **adapter, sllm_error *error);
sl_lora *sl_adapter_add(sl_adapter *adapter, const sl_product_place *place, int rank, float scale, bool dora);
/* Gains after a, b or magnitudes have changed; false: out of memory. */
bool sl_adapter_update_gains(const sl_model *model, sl_adapter *adapter);

/* NULL: the adapter leaves the product as it is. */
static inline const sl_lora *sl_adapter_find(const sl_adapter *a, int layer, sl_slot slot, int expert) {
    int32_t at = a->places[((size_t)layer * SL_SLOT_COUNT + (size_t)slot) * (size_t)a->n_experts + (size_t)expert];
    return at ? &a->list[at - 1] : NULL;
}

/* y [n, n_out], which the product gave (with bias, or NULL), becomes what the adapter makes of it, `weight` times. low [n, rank]:
 * scratch. */
void sl_lora_apply(sl_pool *pool, const sl_lora *lora, float weight, int n, const float *x, size_t x_stride, const float *bias, float *y,
                   size_t y_stride, float *low);

/* What an adapter's A sees while it learns: each value is 0 with probability p, else divided by 1 - p. Which, depends on seed, product,
 * token (its key) and column alone, so that a backward pass, or a run that goes on later, finds the same. */
typedef struct sl_dropout {
    float p;
    uint64_t seed;
} sl_dropout;
/* Rows x [n, width] into out [n, width]; keys [n]. */
void sl_dropout_rows(sl_pool *pool, const sl_dropout *dropout, const sl_lora *lora, const uint64_t *keys, int n, const float *x,
                     size_t x_stride, int64_t width, float *out);

enum { SL_ADAPTERS = 8 };

/* What a timeline is computed with: the sum of several adapters' changes, each times its weight. One with a gain for a product
 * must be alone there, and one matrix can be replaced by one adapter only. */
struct sl_adapters {
    int n;
    const sl_adapter *items[SL_ADAPTERS];
    float weights[SL_ADAPTERS];
    const sl_dropout *dropout; /* while learning: of the inputs of all products but the output matrix; NULL: none */
    float *dropped;            /* [SL_CHUNK, widest input] scratch for it */
};

/* SLLM_ERROR_ARGUMENT: too many, two that exclude each other, a weight other than 1 for an adapter with gains or whole matrices. */
sllm_status sl_adapters_check(const sl_adapters *adapters, sllm_error *error);

/* Adds an adapter, which the model frees from now on, to what its new timelines are computed with. */
sllm_status sl_model_own_adapter(sl_model *model, sl_adapter *adapter, float weight, sllm_error *error);
void sl_model_free_adapters(sl_model *model);

#endif
