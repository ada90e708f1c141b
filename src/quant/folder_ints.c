/* GPTQ's and AWQ's matrices of integers; packed_groups.c, which reads them, describes the layouts. */
#include "base/error.h"
#include "base/json.h"
#include "quant/folder_int.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_A_TASK = 16 };

static bool is_awq(const sl_folder *f) { return f->params->format == SL_FOLDER_AWQ; }

sl_target sl_folder_ints_target(const sl_folder *f) {
    return (sl_target){.type = SL_TYPE_COUNT, .grid = {is_awq(f) ? 4 : f->params->bits, f->params->group, !is_awq(f)}};
}

/* 128, 64 or 32: the largest that divides the rows of all matrices. */
static int group_that_fits(const sl_folder *f) {
    int group = 128;
    for (size_t i = 0; i < f->n; i++)
        while (f->items[i].is_quantised && group > 32 && f->items[i].source->shape[1] % group) group /= 2;
    return group;
}

sllm_status sl_folder_ints_parts(sl_folder *f, sl_folder_item *item) {
    const sl_tensor *t = item->source;
    int bits = sl_folder_ints_target(f).grid.bits, per = 32 / bits;
    int64_t rows = t->shape[0], columns = t->shape[1], group = f->params->group;
    if (rows % per || columns % 32)
        return sl_fail(f->error, SLLM_ERROR_UNSUPPORTED, "tensor %s [%lld, %lld]: the layout holds multiples of %d rows and 32 columns "
                       "only", t->name, (long long)rows, (long long)columns, per);
    if (columns % group)
        return sl_fail(f->error, SLLM_ERROR_ARGUMENT, "tensor %s: rows of %lld are no multiple of groups of %lld; --group-size %d fits "
                       "all", t->name, (long long)columns, (long long)group, group_that_fits(f));
    int64_t groups = columns / group;
    bool fits = sl_folder_part(f, item, ".weight", ".qweight", SL_I32, is_awq(f) ? columns : columns / per,
                               is_awq(f) ? rows / per : rows) &&
                sl_folder_part(f, item, ".weight", ".qzeros", SL_I32, groups, rows / per) &&
                sl_folder_part(f, item, ".weight", ".scales", SL_F16, groups, rows) &&
                (is_awq(f) || sl_folder_part(f, item, ".weight", ".g_idx", SL_I32, columns, 0));
    return fits ? SLLM_OK : sl_fail_memory(f->error, "the list of tensors", 0);
}

/* ---------------------------------------------------------------- rounding */

typedef struct job {
    const sl_tensor *t;
    const sl_solved *out;
    atomic_bool failed;
} job;

static void round_task(void *user, int64_t chunk, int thread) {
    job *j = user;
    int64_t columns = j->t->shape[1], first = chunk * ROWS_A_TASK, left = j->t->shape[0] - first;
    int64_t n = left < ROWS_A_TASK ? left : ROWS_A_TASK;
    float *w = malloc((size_t)(n * columns) * sizeof *w);
    (void)thread;
    if (!w) {
        atomic_store(&j->failed, true);
        return;
    }
    sl_tensor_read(j->t, (uint64_t)(first * columns), (size_t)(n * columns), w);
    sl_solved_round(j->out, w, NULL, first, n);
    free(w);
}

static sllm_status round_matrix(sl_folder *f, const sl_tensor *t, sl_solved *out) {
    if (!sl_solved_new(out, sl_folder_ints_target(f), t->shape[0], t->shape[1])) return sl_fail_memory(f->error, t->name, 0);
    job j = {.t = t, .out = out};
    sl_pool_run(f->model->pool, (t->shape[0] + ROWS_A_TASK - 1) / ROWS_A_TASK, round_task, &j);
    return atomic_load(&j.failed) ? sl_fail_memory(f->error, t->name, 0) : SLLM_OK;
}

/* ---------------------------------------------------------------- packing */

/* Where AWQ keeps output o of its eight. */
static int place_of(const sl_folder *f, int64_t o, int per) {
    static const int places[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return is_awq(f) ? places[o % 8] : (int)(o % per);
}

static void pack_codes(const sl_folder *f, const sl_solved *s, uint32_t *words) {
    int bits = s->target.grid.bits, per = 32 / bits;
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t i = 0; i < s->columns; i++) {
            uint32_t code = s->codes[o * s->columns + i];
            if (is_awq(f)) words[i * (s->rows / per) + o / per] |= code << (bits * place_of(f, o, per));
            else words[i / per * s->rows + o] |= code << (bits * (int)(i % per));
        }
}

/* GPTQ stores a zero less one, AWQ as it is. */
static void pack_zeros(const sl_folder *f, const sl_solved *s, uint32_t *words) {
    int bits = s->target.grid.bits, per = 32 / bits;
    uint32_t mask = (1u << bits) - 1;
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t g = 0; g < s->n_groups; g++) {
            uint32_t zero = ((uint32_t)s->zeros[o * s->n_groups + g] - (is_awq(f) ? 0 : 1)) & mask;
            words[g * (s->rows / per) + o / per] |= zero << (bits * place_of(f, o, per));
        }
}

static sllm_status write_part(sl_folder *f, const sl_folder_item *item, int part, const void *data) {
    return sl_safetensors_writer_write(f->writer, data, (size_t)item->parts[part].bytes, f->error);
}

static sllm_status write_words(sl_folder *f, const sl_folder_item *item, int part, const sl_solved *s,
                               void (*pack)(const sl_folder *, const sl_solved *, uint32_t *)) {
    uint32_t *words = calloc(1, (size_t)item->parts[part].bytes);
    if (!words) return sl_fail_memory(f->error, item->source->name, (size_t)item->parts[part].bytes);
    pack(f, s, words);
    sllm_status status = write_part(f, item, part, words);
    free(words);
    return status;
}

static sllm_status write_scales(sl_folder *f, const sl_folder_item *item, const sl_solved *s) {
    uint16_t *halves = malloc((size_t)item->parts[2].bytes);
    if (!halves) return sl_fail_memory(f->error, item->source->name, 0);
    for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t o = 0; o < s->rows; o++) halves[g * s->rows + o] = sl_f32_to_f16(s->scales[o * s->n_groups + g]);
    sllm_status status = write_part(f, item, 2, halves);
    free(halves);
    return status;
}

static sllm_status write_index(sl_folder *f, const sl_folder_item *item, const sl_solved *s) {
    int32_t *index = malloc((size_t)item->parts[3].bytes);
    if (!index) return sl_fail_memory(f->error, item->source->name, 0);
    for (int64_t i = 0; i < s->columns; i++) index[i] = s->group_of ? s->group_of[i] : (int32_t)(i / s->target.grid.group);
    sllm_status status = write_part(f, item, 3, index);
    free(index);
    return status;
}

sllm_status sl_folder_ints_write(sl_folder *f, const sl_folder_item *item) {
    const sl_solved *solved = f->solve ? sl_solve_matrix_of(f->solve, item->source->data) : NULL;
    sl_solved own = {0};
    sllm_status status = SLLM_OK;
    if (!solved) status = round_matrix(f, item->source, &own);
    const sl_solved *s = solved ? solved : &own;
    if (!status) status = write_words(f, item, 0, s, pack_codes);
    if (!status) status = write_words(f, item, 1, s, pack_zeros);
    if (!status) status = write_scales(f, item, s);
    if (!status && !is_awq(f)) status = write_index(f, item, s);
    sl_solved_free(&own);
    return status;
}

/* GPTQModel's way to leave modules alone: "-:" and a regular expression over their names. */
static void put_dynamic(const sl_folder *f, sl_buffer *out) {
    char names[SL_FOLDER_SKIPPED][SL_NAME_SIZE];
    int n = sl_folder_skipped(f, names);
    if (!n) return;
    sl_json_key(out, "dynamic");
    sl_buffer_putc(out, '{');
    for (int i = 0; i < n; i++) {
        sl_buffer rule = {0};
        sl_buffer_puts(&rule, "-:.*\\.");
        for (const char *at = names[i]; *at; at++) sl_buffer_printf(&rule, *at == '.' ? "\\%c" : "%c", *at);
        sl_buffer_putc(&rule, '$');
        sl_json_key(out, rule.failed ? "" : rule.data);
        sl_buffer_puts(out, "{}");
        out->failed |= rule.failed;
        sl_buffer_free(&rule);
    }
    sl_buffer_putc(out, '}');
}

void sl_folder_ints_config(const sl_folder *f, sl_buffer *out) {
    sl_target target = sl_folder_ints_target(f);
    sl_buffer_putc(out, '{');
    sl_json_put_int(out, "bits", target.grid.bits);
    sl_json_put_int(out, "group_size", f->params->group);
    sl_json_put_string(out, "quant_method", is_awq(f) ? "awq" : "gptq");
    if (is_awq(f)) {
        sl_json_put_string(out, "version", "gemm");
        sl_json_put_bool(out, "zero_point", true);
        sl_json_key(out, "modules_to_not_convert");
        sl_folder_put_skipped(f, out);
    } else {
        sl_json_put_string(out, "checkpoint_format", "gptq");
        sl_json_put_bool(out, "desc_act", f->params->act_order);
        sl_json_put_bool(out, "sym", true);
        sl_json_put_bool(out, "true_sequential", f->params->method == SL_METHOD_GPTQ);
        sl_json_put_bool(out, "static_groups", false);
        sl_json_put_bool(out, "lm_head", false);
        sl_json_put_float(out, "damp_percent", SL_SOLVE_DAMP);
        put_dynamic(f, out);
    }
    sl_buffer_putc(out, '}');
}
