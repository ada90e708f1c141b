/* bitsandbytes' 4-bit matrices: codes two a byte over the flat elements, the largest value of each 64, the code book, and
 * a JSON text that says how. */
#include "base/error.h"
#include "base/json.h"
#include "model/weights.h"
#include "quant/folder_int.h"
#include "tensor/bnb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, ELEMENTS_A_TASK = 1 << 14, NOTE_SIZE = 512 };

static sl_bnb4 kind_of(const sl_folder *f) { return f->params->format == SL_FOLDER_NF4 ? SL_BNB_NF4 : SL_BNB_FP4; }
static const char *name_of(const sl_folder *f) { return f->params->format == SL_FOLDER_NF4 ? "nf4" : "fp4"; }

/* ---------------------------------------------------------------- parts */

/* The note's length must be known before the offset is: its text is padded with spaces, which JSON allows. */
static void put_note(const sl_folder *f, const sl_tensor *t, float offset, char note[NOTE_SIZE]) {
    int n = snprintf(note, NOTE_SIZE, "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"%s\", \"shape\": [%lld, %lld]",
                     name_of(f), BLOCK, sl_folder_dtype(t->type), (long long)t->shape[0], (long long)t->shape[1]);
    if (f->params->double_quant)
        n += snprintf(note + n, NOTE_SIZE - (size_t)n, ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": "
                      "%-24.17g", SL_BNB_NESTED, (double)offset);
    snprintf(note + n, NOTE_SIZE - (size_t)n, "}");
}

sllm_status sl_folder_bnb_parts(sl_folder *f, sl_folder_item *item) {
    const sl_tensor *t = item->source;
    int64_t n = (int64_t)t->n_elements, blocks = (n + BLOCK - 1) / BLOCK;
    bool nested = f->params->double_quant;
    char suffix[64], note[NOTE_SIZE];
    put_note(f, t, 0, note);
    snprintf(suffix, sizeof suffix, ".quant_state.bitsandbytes__%s", name_of(f));
    bool fits = sl_folder_part(f, item, "", "", SL_U8, (n + 1) / 2, 1) &&
                sl_folder_part(f, item, "", ".absmax", nested ? SL_U8 : SL_F32, blocks, 0) &&
                sl_folder_part(f, item, "", ".quant_map", SL_F32, 16, 0);
    if (fits && nested)
        fits = sl_folder_part(f, item, "", ".nested_absmax", SL_F32, (blocks + SL_BNB_NESTED - 1) / SL_BNB_NESTED, 0) &&
               sl_folder_part(f, item, "", ".nested_quant_map", SL_F32, 256, 0);
    fits = fits && sl_folder_part(f, item, "", suffix, SL_U8, (int64_t)strlen(note), 0);
    return fits ? SLLM_OK : sl_fail_memory(f->error, "the list of tensors", 0);
}

/* ---------------------------------------------------------------- values */

typedef struct job {
    const sl_tensor *t;
    sl_bnb4 kind;
    uint8_t *packed;
    float *tops;
} job;

static void task(void *user, int64_t chunk, int thread) {
    const job *j = user;
    float x[ELEMENTS_A_TASK];
    uint64_t from = (uint64_t)chunk * ELEMENTS_A_TASK, left = j->t->n_elements - from;
    size_t n = left < ELEMENTS_A_TASK ? (size_t)left : ELEMENTS_A_TASK;
    (void)thread;
    sl_tensor_read(j->t, from, n, x);
    sl_bnb4_quantise(j->kind, x, n, BLOCK, j->packed + from / 2, j->tops + from / BLOCK);
}

static sllm_status write_tops(sl_folder *f, const sl_tensor *t, const float *tops, size_t n) {
    const float *book = sl_bnb4_values(kind_of(f));
    sllm_status status = sl_safetensors_writer_write(f->writer, tops, n * sizeof *tops, f->error);
    if (!status) status = sl_safetensors_writer_write(f->writer, book, 16 * sizeof *book, f->error);
    char note[NOTE_SIZE];
    put_note(f, t, 0, note);
    return status ? status : sl_safetensors_writer_write(f->writer, note, strlen(note), f->error);
}

static sllm_status write_nested(sl_folder *f, const sl_tensor *t, const float *tops, size_t n) {
    size_t n_nested = (n + SL_BNB_NESTED - 1) / SL_BNB_NESTED;
    const float *book = sl_bnb4_values(kind_of(f));
    float map[256], *nested = malloc(n_nested * sizeof *nested), offset;
    uint8_t *codes = malloc(n);
    char note[NOTE_SIZE];
    sl_bnb8_map(map);
    sllm_status status = SLLM_OK;
    if (!nested || !codes || !sl_bnb_nest(map, tops, n, codes, nested, &offset))
        status = sl_fail_memory(f->error, t->name, n);
    if (!status) put_note(f, t, offset, note);
    if (!status) status = sl_safetensors_writer_write(f->writer, codes, n, f->error);
    if (!status) status = sl_safetensors_writer_write(f->writer, book, 16 * sizeof *book, f->error);
    if (!status) status = sl_safetensors_writer_write(f->writer, nested, n_nested * sizeof *nested, f->error);
    if (!status) status = sl_safetensors_writer_write(f->writer, map, sizeof map, f->error);
    if (!status) status = sl_safetensors_writer_write(f->writer, note, strlen(note), f->error);
    free(nested);
    free(codes);
    return status;
}

sllm_status sl_folder_bnb_write(sl_folder *f, const sl_folder_item *item) {
    const sl_tensor *t = item->source;
    size_t n = (size_t)t->n_elements, blocks = (n + BLOCK - 1) / BLOCK;
    job j = {.t = t, .kind = kind_of(f), .packed = malloc((n + 1) / 2), .tops = malloc(blocks * sizeof *j.tops)};
    sllm_status status = j.packed && j.tops ? SLLM_OK : sl_fail_memory(f->error, t->name, n / 2);
    if (!status) sl_pool_run(f->model->pool, (int64_t)((n + ELEMENTS_A_TASK - 1) / ELEMENTS_A_TASK), task, &j);
    if (!status) status = sl_safetensors_writer_write(f->writer, j.packed, (n + 1) / 2, f->error);
    if (!status) status = f->params->double_quant ? write_nested(f, t, j.tops, blocks) : write_tops(f, t, j.tops, blocks);
    free(j.packed);
    free(j.tops);
    return status;
}

void sl_folder_bnb_config(const sl_folder *f, sl_buffer *out) {
    sl_buffer_putc(out, '{');
    sl_json_put_bool(out, "_load_in_4bit", true);
    sl_json_put_bool(out, "_load_in_8bit", false);
    sl_json_put_string(out, "bnb_4bit_compute_dtype", sl_folder_dtype(f->model->weights->blocks[0].attn_out.w.type));
    sl_json_put_string(out, "bnb_4bit_quant_storage", "uint8");
    sl_json_put_string(out, "bnb_4bit_quant_type", name_of(f));
    sl_json_put_bool(out, "bnb_4bit_use_double_quant", f->params->double_quant);
    sl_json_put_bool(out, "llm_int8_enable_fp32_cpu_offload", false);
    sl_json_put_bool(out, "llm_int8_has_fp16_weight", false);
    sl_json_key(out, "llm_int8_skip_modules");
    sl_folder_put_skipped(f, out);
    sl_json_key(out, "llm_int8_threshold");
    sl_buffer_puts(out, "6.0"); /* transformers insists on the point */
    sl_json_put_bool(out, "load_in_4bit", true);
    sl_json_put_bool(out, "load_in_8bit", false);
    sl_json_put_string(out, "quant_method", "bitsandbytes");
    sl_buffer_putc(out, '}');
}
