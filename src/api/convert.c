/* The public function that converts: the source loaded as for running, the writing, the report. */
#include "sllm_quant.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "quant/convert.h"
#include "quant/export.h"

#include <string.h>

void sllm_convert_params_init(sllm_convert_params *params) {
    if (params) *params = (sllm_convert_params){0};
}

static void write_recipe(const sllm_convert_params *p, sl_buffer *out) {
    sl_buffer_puts(out, "convert");
    if (p->type) sl_buffer_printf(out, " --type %s", p->type);
    if (p->pre) sl_buffer_printf(out, " --pre %s", p->pre);
    if (p->allow_nonfinite) sl_buffer_puts(out, " --allow-nonfinite");
    if (p->requantize) sl_buffer_puts(out, " --requantize");
    sl_buffer_printf(out, " (sllm %s)", sllm_version());
}

static void report_warnings(sl_buffer *out, const sl_buffer *warnings) {
    sl_json_key(out, "warnings");
    sl_buffer_putc(out, '[');
    for (const char *at = warnings->data; at && *at;) {
        size_t n = strcspn(at, "\n");
        sl_json_comma(out);
        sl_json_write_string(out, at, n);
        at += n + (at[n] == '\n');
    }
    sl_buffer_putc(out, ']');
}

static sllm_status write_report(const char *in, const char *out_path, const char *recipe, const sl_convert_result *r,
                                char **report, sllm_error *error) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "input", in);
    sl_json_put_string(&out, "output", out_path);
    sl_json_put_string(&out, "recipe", recipe);
    sl_json_put_string(&out, "source_sha256", r->source_sha256);
    sl_json_put_int(&out, "bytes_in", (int64_t)r->bytes_in);
    sl_json_put_int(&out, "bytes_out", (int64_t)r->bytes_out);
    sl_json_put_int(&out, "tensors", (int64_t)r->n_tensors);
    sl_json_put_int(&out, "requantized", (int64_t)r->n_requantised);
    sl_json_put_int(&out, "nonfinite", (int64_t)r->n_nonfinite);
    sl_json_put_int(&out, "resumed", (int64_t)r->n_resumed);
    report_warnings(&out, &r->warnings);
    sl_buffer_putc(&out, '}');
    *report = sl_buffer_take(&out, NULL);
    return *report ? SLLM_OK : sl_fail_memory(error, "the report", 0);
}

static sllm_status read_type(const char *name, sl_type *type, sllm_error *error) {
    *type = SL_TYPE_COUNT;
    if (!name) return SLLM_OK;
    if (sl_type_from_name(name, type) && (*type == SL_F32 || *type == SL_F16 || *type == SL_BF16)) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "--type %s: converting gives f32, f16 or bf16; `sllm quantize` makes smaller "
                   "types of the result", name);
}

/* ---------------------------------------------------------------- the way back */

static sllm_status report_folder(const char *in, const char *out_path, const sl_export_result *r, char **report, sllm_error *error) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "input", in);
    sl_json_put_string(&out, "output", out_path);
    sl_json_put_int(&out, "bytes_in", (int64_t)r->bytes_in);
    sl_json_put_int(&out, "bytes_out", (int64_t)r->bytes_out);
    sl_json_put_int(&out, "tensors", (int64_t)r->n_tensors);
    sl_json_put_int(&out, "requantized", (int64_t)r->n_requantised);
    sl_json_put_int(&out, "nonfinite", (int64_t)r->n_nonfinite);
    report_warnings(&out, &r->warnings);
    sl_buffer_putc(&out, '}');
    *report = sl_buffer_take(&out, NULL);
    return *report ? SLLM_OK : sl_fail_memory(error, "the report", 0);
}

static sllm_status to_folder(const char *in, const char *out, sl_type type, const sllm_convert_params *params, char **report,
                             sllm_error *error) {
    sllm_model_params load = {.n_threads = params->n_threads, .exact = true};
    sl_export_params export = {type, params->requantize, params->allow_nonfinite, params->on_progress, params->user};
    sl_export_result result = {0};
    sl_model *model = NULL;
    if (params->pre || params->split_bytes)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a file becomes a folder, for which --pre and --split have no meaning", in);
    if (sl_has_extension(out, ".gguf"))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a file becomes a folder, and %s is a file's name; `sllm quantize` writes one file as "
                       "another", in, out);
    sllm_status status = sl_model_load(in, &load, &model, error);
    if (!status && !model->gguf) status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: neither a checkpoint folder nor a GGUF file", in);
    if (!status) status = sl_export_folder(model, out, &export, &result, error);
    if (!status && report) status = report_folder(in, out, &result, report, error);
    sl_buffer_free(&result.warnings);
    sl_model_free(model);
    return status;
}

sllm_status sllm_convert(const char *in, const char *out, const sllm_convert_params *params, char **report,
                         sllm_error *error) {
    static const sllm_convert_params defaults;
    sl_convert_result result = {0};
    sl_buffer recipe = {0};
    sl_model *model = NULL;
    sl_type type;
    if (report) *report = NULL;
    if (error) *error = (sllm_error){0};
    if (!in || !*in || !out || !*out) return sl_fail(error, SLLM_ERROR_ARGUMENT, "converting needs a source and a name for the result");
    if (!params) params = &defaults;
    sllm_status status = read_type(params->type, &type, error);
    if (!status && !sl_path_is_directory(in)) return to_folder(in, out, type, params, report, error);
    sllm_model_params load = {.n_threads = params->n_threads, .exact = true};
    if (!status) status = sl_model_load(in, &load, &model, error);
    write_recipe(params, &recipe);
    if (!status && recipe.failed) status = sl_fail_memory(error, "the recipe", 0);
    if (!status) {
        sl_convert_params convert = {type, params->pre, params->allow_nonfinite, params->requantize, params->split_bytes,
                                     params->on_progress, params->user};
        status = sl_convert(model, recipe.data, out, &convert, &result, error);
    }
    if (!status && report) status = write_report(in, out, recipe.data, &result, report, error);
    sl_buffer_free(&result.warnings);
    sl_buffer_free(&recipe);
    sl_model_free(model);
    return status;
}
