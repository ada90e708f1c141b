#include "api/quantize_folder.h"

#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "eval/text_ids.h"
#include "quant/folder.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const types[] = {"nf4", "fp4", "int4", "int8", NULL};

const char *const *sllm_quantize_folder_types(void) { return types; }

static int type_of(const char *name) {
    for (int i = 0; name && types[i]; i++)
        if (!strcasecmp(types[i], name)) return i;
    return -1;
}

bool sl_is_folder_type(const char *type) { return type_of(type) >= 0; }

sllm_status sl_quantize_method(const sllm_quantize_params *p, sl_method *method, sllm_error *error) {
    static const char *const names[] = {"round", "gptq", "awq"};
    int i = 0;
    while (p->method && i < 3 && strcmp(names[i], p->method)) i++;
    if (i == 3) return sl_fail(error, SLLM_ERROR_ARGUMENT, "there is no method '%s'; there are round, gptq and awq", p->method);
    *method = (sl_method)i;
    if (p->act_order && i != SL_METHOD_GPTQ)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the order of columns (--act-order) is a choice of --method gptq");
    if (!i) return SLLM_OK;
    if (!p->calibration)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the method %s measures the model's inputs on real text: add --calibrate TEXT",
                       names[i]);
    if (p->allow_nonfinite)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "the method %s computes with the model, which values that are not finite would spoil: "
                       "--allow-nonfinite is for --method round", names[i]);
    return SLLM_OK;
}

void sl_quantize_put_calibration(const sllm_quantize_params *p, size_t n_ids, sl_buffer *recipe) {
    char hash[65];
    if (!p->calibration) return;
    sl_sha256_hex(p->calibration, p->calibration_length, hash);
    sl_buffer_printf(recipe, " --calibrate %s (%zu tokens, SHA-256 %.16s)", p->calibration_name ? p->calibration_name : "text", n_ids, hash);
}

void sl_quantize_put_solved(const sl_solve_counts *counts, sl_buffer *report) {
    if (!counts) return;
    sl_json_put_int(report, "solved", counts->solved);
    sl_json_put_int(report, "rounded_unreached", counts->unreached);
    sl_json_put_int(report, "rounded_singular", counts->singular);
    sl_json_put_int(report, "rounded_plain", counts->plain);
}

/* ---------------------------------------------------------------- arguments */

static sllm_status check_others(const sllm_quantize_params *p, const char *type, sllm_error *error) {
    const struct { bool given; const char *name; } others[] = {
        {p->n_rules > 0, "--tensor"}, {p->keep_output, "--keep-output"}, {p->pure, "--pure"}, {p->budget_bytes || p->bits != 0, "a budget"},
        {p->importance != NULL, "--importance"}, {p->importance_out != NULL, "--importance-out"}, {p->split_bytes > 0, "--split"},
        {p->requantize, "--requantize"}, {p->allow_nonfinite, "--allow-nonfinite"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given)
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s does not apply to %s, which makes a checkpoint folder", others[i].name, type);
    return SLLM_OK;
}

static sllm_status fill(const sllm_quantize_params *p, sl_folder_params *f, sllm_error *error) {
    int type = type_of(p->type);
    bool bnb = type < 2;
    sllm_status status = check_others(p, types[type], error);
    if (!status) status = sl_quantize_method(p, &f->method, error);
    if (status) return status;
    f->format = type == 0 ? SL_FOLDER_NF4 : type == 1 ? SL_FOLDER_FP4 : f->method == SL_METHOD_AWQ ? SL_FOLDER_AWQ : SL_FOLDER_GPTQ;
    f->bits = type == 3 ? 8 : 4;
    f->group = p->group_size ? p->group_size : 128;
    f->double_quant = p->double_quant;
    f->act_order = p->act_order;
    f->on_progress = p->on_progress;
    f->user = p->user;
    if (bnb && f->method != SL_METHOD_ROUND)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s rounds to the nearest by definition: no method applies", types[type]);
    if (bnb && p->group_size) return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s has blocks of 64: no group applies", types[type]);
    if (!bnb && p->double_quant) return sl_fail(error, SLLM_ERROR_ARGUMENT, "double quantisation is for nf4 and fp4");
    if (f->format == SL_FOLDER_AWQ && f->bits != 4) return sl_fail(error, SLLM_ERROR_ARGUMENT, "AWQ's layout has 4 bits: --type int4");
    if (f->group < 32 || f->group % 32 || f->group > 1 << 20)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "groups of %lld columns; need a multiple of 32", (long long)f->group);
    if (f->method == SL_METHOD_ROUND && p->calibration)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s without a method looks at no text: leave --calibrate out, or add --method gptq",
                       types[type]);
    return SLLM_OK;
}

/* ---------------------------------------------------------------- report */

static sllm_status write_report(const char *in, const char *out, const sllm_quantize_params *p, const sl_folder_params *f,
                                const sl_folder_result *r, char **report, sllm_error *error) {
    sl_buffer text = {0}, recipe = {0};
    sl_buffer_printf(&recipe, "quantize --type %s", types[type_of(p->type)]);
    if (f->method != SL_METHOD_ROUND) sl_buffer_printf(&recipe, " --method %s", p->method);
    if (f->act_order) sl_buffer_puts(&recipe, " --act-order");
    if (f->double_quant) sl_buffer_puts(&recipe, " --double-quant");
    if (f->format >= SL_FOLDER_GPTQ) sl_buffer_printf(&recipe, " --group-size %lld", (long long)f->group);
    sl_quantize_put_calibration(p, f->n_ids, &recipe);
    sl_buffer_printf(&recipe, " (sllm %s)", sllm_version());
    sl_utf8_make_line(&recipe);
    sl_buffer_putc(&text, '{');
    sl_json_put_string(&text, "input", in);
    sl_json_put_string(&text, "output", out);
    sl_json_put_string(&text, "recipe", recipe.failed ? NULL : recipe.data);
    sl_json_put_int(&text, "bytes_in", (int64_t)r->bytes_in);
    sl_json_put_int(&text, "bytes_out", (int64_t)r->bytes_out);
    sl_json_put_int(&text, "quantized", (int64_t)r->n_quantised);
    sl_json_put_int(&text, "copied", (int64_t)r->n_copied);
    if (r->n_experts_kept) sl_json_put_int(&text, "experts_kept", (int64_t)r->n_experts_kept);
    sl_quantize_put_solved(f->method == SL_METHOD_ROUND ? NULL : &r->solved, &text);
    sl_buffer_putc(&text, '}');
    sl_buffer_free(&recipe);
    *report = sl_buffer_take(&text, NULL);
    return *report ? SLLM_OK : sl_fail_memory(error, "the report", 0);
}

/* ---------------------------------------------------------------- the whole */

sllm_status sl_quantize_folder(const char *in, const char *out, const sllm_quantize_params *params, char **report, sllm_error *error) {
    sl_folder_params f = {0};
    sl_folder_result result;
    sl_model *model = NULL;
    int32_t *ids = NULL;
    sllm_model_params load = {.n_threads = params->n_threads};
    if (!in || !*in || !out || !*out) return sl_fail(error, SLLM_ERROR_ARGUMENT, "quantising needs a source and a name for the result");
    sllm_status status = fill(params, &f, error);
    if (!status && !sl_path_is_directory(in))
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: no folder: %s is made from a checkpoint folder (`sllm convert m.gguf -o "
                         "FOLDER` makes one of a GGUF file)", in, types[type_of(params->type)]);
    if (!status) status = sl_model_load(in, &load, &model, error);
    if (!status && params->calibration) {
        status = sl_text_ids(model, params->calibration, params->calibration_length, params->calibration_jsonl, SL_SOLVE_CTX, &ids,
                             &f.n_ids, error);
        f.ids = ids;
        if (status) status = sl_error_prefix(error, status, "%s", params->calibration_name ? params->calibration_name : "text");
    }
    if (!status) status = sl_quantise_folder(model, out, &f, &result, error);
    if (!status && report) status = write_report(in, out, params, &f, &result, report, error);
    sl_model_free(model);
    free(ids);
    return status;
}
