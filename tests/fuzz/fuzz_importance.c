/* Importance files, GGUF and the older form: whatever is read has finite means from 0 up, for every entry. */
#include "quant/importance_int.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sl_importance *im;
    sllm_error error = {0};
    if (sl_importance_read_memory(data, size, &im, &error)) {
        if (im || !error.message[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < im->n; i++) {
        const sl_importance_entry *e = &im->entries[i];
        for (int m = 0; m < e->n_matrices; m++) {
            const float *means = sl_importance_get(im, e->name, m, e->n_columns);
            for (int64_t c = 0; means && c < e->n_columns; c++)
                if (!(means[c] >= 0) || !isfinite(means[c])) abort();
        }
    }
    sl_importance_free(im);
    return 0;
}
