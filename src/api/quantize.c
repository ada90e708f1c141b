/* The public function that quantises: sources of importance, the plan, the search for types, the writing, the report. */
#include "sllm_quant.h"

#include "api/quantize_folder.h"
#include "base/buffer.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "eval/text_ids.h"
#include "model/model.h"
#include "quant/quantise.h"
#include "quant/sensitivity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 512, CALIBRATION_CTX = 512 };

void sllm_quantize_params_init(sllm_quantize_params *params) {
    if (params) *params = (sllm_quantize_params){0};
}

const char *const *sllm_quantize_types(void) {
    static const char *const names[] = {
        "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q4_0", "Q4_1",
        "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "MXFP4", "F32", "F16", "BF16", NULL,
    };
    return names;
}

/* Everything one call owns. */
typedef struct job {
    const sllm_quantize_params *params;
    const char *in, *out;
    char *converted;      /* a checkpoint folder's GGUF form, beside the result while it is made; NULL: `in` is a file */
    char *convert_report; /* what converting it gave; NULL: nothing */
    sl_gguf_claim claim, importance_claim;
    char importance_hash[65]; /* of the importance file that is read */
    sl_gguf *file;      /* the source, where no model is needed ... */
    sl_model *model;    /* ... or the loaded model, whose file it is */
    const sl_gguf *source;
    sl_pool *own_pool, *pool;
    sl_importance *importance;
    int32_t *ids;       /* calibration text */
    size_t n_ids;
    sl_type_rule *rules;
    char *patterns;
    sl_quantise_params quant;
    sl_quantise_plan plan;
    sl_solve *solve;      /* with a method */
    double expected_loss; /* of the types that a budget chose; negative: none */
    sl_buffer recipe;
    sllm_error *error;
} job;

/* ---------------------------------------------------------------- arguments */

static sllm_status parse_rules(job *j) {
    size_t n = j->params->n_rules, length = 0;
    for (size_t i = 0; i < n; i++) length += strlen(j->params->rules[i]) + 1;
    j->rules = calloc(n ? n : 1, sizeof *j->rules);
    char *at = j->patterns = malloc(length ? length : 1);
    if (!j->rules || !at) return sl_fail_memory(j->error, "the rules for tensors", length);
    for (size_t i = 0; i < n; i++) {
        const char *text = j->params->rules[i], *equals = strrchr(text, '=');
        if (!equals || equals == text || !sl_type_from_name(equals + 1, &j->rules[i].type))
            return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "--tensor %s: not of the form PATTERN=TYPE with a type such as "
                           "Q6_K or F16", text);
        memcpy(at, text, (size_t)(equals - text));
        at[equals - text] = 0;
        j->rules[i].pattern = at;
        at += equals - text + 1;
    }
    j->quant.rules = j->rules;
    j->quant.n_rules = n;
    return SLLM_OK;
}

static sllm_status check_method(job *j) {
    const sllm_quantize_params *p = j->params;
    sllm_status status = sl_quantize_method(p, &j->quant.method, j->error);
    if (!status && (p->group_size || p->double_quant))
        status = sl_fail(j->error, SLLM_ERROR_ARGUMENT, "groups and double quantisation are choices of the folder types: int4, int8, "
                         "nf4, fp4");
    return status;
}

static sllm_status check_arguments(job *j) {
    const sllm_quantize_params *p = j->params;
    if (!j->in || !*j->in || !j->out || !*j->out)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "quantising needs a source and a name for the result");
    if (p->n_threads < 0 || p->n_threads > MAX_THREADS)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "%d threads; need 1..%d, or 0 for all", p->n_threads, MAX_THREADS);
    if (p->budget_bytes && p->bits != 0)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "give a budget in bytes or in bits a weight, not both");
    if (p->bits != 0 && !(p->bits >= 0.5 && p->bits <= 32))
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "%g bits a weight; need 0.5 to 32", p->bits);
    if ((p->budget_bytes || p->bits != 0) && !p->calibration)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "a budget chooses types by measured sensitivity and needs text to "
                       "measure it on: add --calibrate TEXT");
    if (p->importance && p->calibration && p->importance_out)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "importance is read from %s, so there is none to write to %s",
                       p->importance, p->importance_out);
    sllm_status status = check_method(j);
    if (status) return status;
    const char *type = p->type ? p->type : "Q4_K_M";
    j->quant.mix = sl_mix_find(type);
    if (!j->quant.mix)
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "there is no type '%s'; `sllm quantize --list` names them", type);
    return parse_rules(j);
}

/* ---------------------------------------------------------------- importance */

static sllm_status calibrate(job *j) {
    const sllm_quantize_params *p = j->params;
    sllm_status status = sl_text_ids(j->model, p->calibration, p->calibration_length, p->calibration_jsonl,
                                            CALIBRATION_CTX, &j->ids, &j->n_ids, j->error);
    if (status) return sl_error_prefix(j->error, status, "%s", p->calibration_name ? p->calibration_name : "text");
    if (j->importance) return SLLM_OK; /* the text is for the search alone */
    status = sl_importance_collect(j->model, j->ids, j->n_ids, CALIBRATION_CTX, p->calibration_name, p->on_progress,
                                   p->user, &j->importance, j->error);
    if (!status && p->importance_out) status = sl_importance_write(j->importance, &j->importance_claim, j->error);
    return status;
}

/* A folder is converted first, exactly, into a file that goes when the result is there. */
static sllm_status convert_folder(job *j) {
    const sllm_quantize_params *p = j->params;
    sllm_convert_params convert = {.allow_nonfinite = p->allow_nonfinite, .requantize = p->requantize, .n_threads = p->n_threads,
                                   .on_progress = p->on_progress, .user = p->user};
    size_t size = strlen(j->claim.target) + sizeof ".part.source";
    if (!sl_path_is_directory(j->in)) return SLLM_OK;
    j->converted = malloc(size);
    if (!j->converted) return sl_fail_memory(j->error, "a name", size);
    snprintf(j->converted, size, "%s.part.source", j->claim.target);
    return sllm_convert(j->in, j->converted, &convert, &j->convert_report, j->error);
}

/* What would be lost, or found out after the work, is looked at first. */
static sllm_status claim_outputs(job *j) {
    const sllm_quantize_params *p = j->params;
    if (sl_path_is_same(j->in, j->out))
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "%s: is the source itself, which would be replaced: give another name", j->out);
    sllm_status status = sl_gguf_claim_take(j->out, p->split_bytes > 0, &j->claim, j->error);
    if (status || !p->importance_out) return status;
    char *target;
    status = sl_path_target(p->importance_out, &target, j->error);
    if (!status && (sl_path_is_same(p->importance_out, j->in) || !strcmp(target, j->claim.target)))
        status = sl_fail(j->error, SLLM_ERROR_ARGUMENT, "%s: the importance file would take the place of the %s", p->importance_out,
                         sl_path_is_same(p->importance_out, j->in) ? "source" : "result");
    free(target);
    return status ? status : sl_gguf_claim_take(p->importance_out, false, &j->importance_claim, j->error);
}

static sllm_status open_source(job *j) {
    const sllm_quantize_params *p = j->params;
    sllm_status status = SLLM_OK;
    if (p->importance) status = sl_importance_read(p->importance, &j->importance, j->error);
    if (!status && p->importance) status = sl_sha256_file(p->importance, j->importance_hash, NULL, NULL, j->error);
    if (!status) status = convert_folder(j);
    const char *path = j->converted ? j->converted : j->in;
    if (status) return status;
    if (!status && p->calibration) {
        sllm_model_params load = {.n_threads = p->n_threads};
        status = sl_model_load(path, &load, &j->model, j->error);
    } else if (!status) {
        status = sl_gguf_open(path, &j->file, j->error);
    }
    if (status) return status;
    j->source = j->model ? j->model->gguf : j->file;
    if (j->model) {
        j->pool = j->model->pool;
        return SLLM_OK;
    }
    int n = p->n_threads ? p->n_threads : sl_cpu_count();
    status = sl_pool_new(n < MAX_THREADS ? n : MAX_THREADS, &j->own_pool, j->error);
    j->pool = j->own_pool;
    return status;
}

/* ---------------------------------------------------------------- the search */

static bool has_budget(const job *j) { return j->params->budget_bytes || j->params->bits != 0; }

/* What the budget leaves for the tensors that are up for choice; *fixed: what else counts against it. */
static uint64_t room_of(const job *j, uint64_t *fixed) {
    uint64_t tensors = 0, weights = 0, kept = 64 * (uint64_t)j->plan.n + 4096, kept_matrices = 0;
    for (size_t i = 0; i < j->plan.n; i++) {
        const sl_quantise_item *item = &j->plan.items[i];
        bool is_matrix = sl_role_is_quantised(item->role, item->source->n_dims);
        tensors += item->source->bytes;
        if (is_matrix) weights += item->source->n_elements;
        if (sl_sensitivity_chooses(item)) continue;
        kept += sl_quantise_item_bytes(item);
        if (is_matrix) kept_matrices += sl_quantise_item_bytes(item);
    }
    uint64_t all = (uint64_t)(j->params->bits / 8 * (double)weights);
    *fixed = kept_matrices;
    if (j->params->bits != 0) return all > kept_matrices ? all - kept_matrices : 0;
    *fixed = kept + (sl_gguf_file_bytes(j->source) > tensors ? sl_gguf_file_bytes(j->source) - tensors : 0);
    return j->params->budget_bytes > *fixed ? j->params->budget_bytes - *fixed : 0;
}

/* Before minutes go into measuring. */
static sllm_status check_budget(const job *j) {
    uint64_t fixed, least = 0, room = room_of(j, &fixed);
    for (size_t i = 0; i < j->plan.n; i++)
        if (sl_sensitivity_chooses(&j->plan.items[i])) least += sl_sensitivity_least_bytes(&j->plan.items[i]);
    if (!has_budget(j) || (least <= room && room > 0)) return SLLM_OK;
    return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "the budget cannot be met: with the smallest types %s takes %" PRIu64
                   " bytes", j->params->bits != 0 ? "all matrices together" : "the file", least + fixed);
}

static sllm_status apply_budget(job *j, const sl_choices *choices, int *chosen) {
    uint64_t fixed, least, room = room_of(j, &fixed);
    if (!sl_choose_types(choices, j->plan.n, room, chosen, &least))
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "the budget cannot be met: the best types for each tensor take %" PRIu64
                       " bytes at least", least + fixed);
    j->expected_loss = 0;
    for (size_t i = 0; i < j->plan.n; i++) {
        if (!choices[i].n) continue;
        sl_quantise_plan_set(&j->plan, i, choices[i].items[chosen[i]].type);
        j->expected_loss += choices[i].items[chosen[i]].loss;
    }
    return SLLM_OK;
}

static sllm_status search(job *j) {
    if (!has_budget(j)) return SLLM_OK;
    sl_choices *choices = calloc(j->plan.n, sizeof *choices);
    int *chosen = calloc(j->plan.n, sizeof *chosen);
    sllm_status status = SLLM_OK;
    if (!choices || !chosen) status = sl_fail_memory(j->error, "the choices of types", 0);
    if (!status)
        status = sl_sensitivity_measure(j->model, &j->plan, &j->quant, j->ids, j->n_ids, choices, j->error);
    if (!status) status = apply_budget(j, choices, chosen);
    free(choices);
    free(chosen);
    return status;
}

/* ---------------------------------------------------------------- solving */

static sllm_status begin_solving(job *j) {
    if (j->quant.method == SL_METHOD_ROUND) return SLLM_OK;
    sl_solve_params p = {.method = j->quant.method, .act_order = true, .ids = j->ids, .n_ids = j->n_ids,
                         .target = sl_quantise_plan_target, .user = &j->plan, .on_progress = j->params->on_progress,
                         .progress_user = j->params->user};
    sllm_status status = sl_solve_new(j->model, &p, &j->solve, j->error);
    j->quant.solve = j->solve;
    return status;
}

/* ---------------------------------------------------------------- recipe and report */

static bool write_recipe(job *j) {
    const sllm_quantize_params *p = j->params;
    sl_buffer *r = &j->recipe;
    sl_buffer_puts(r, "quantize");
    if (p->budget_bytes) sl_buffer_printf(r, " --budget %" PRIu64, p->budget_bytes);
    else if (p->bits != 0) sl_buffer_printf(r, " --bits %g", p->bits);
    else sl_buffer_printf(r, " --type %s", sl_mix_name(j->quant.mix));
    for (size_t i = 0; i < p->n_rules; i++) sl_buffer_printf(r, " --tensor %s", p->rules[i]);
    if (j->quant.method != SL_METHOD_ROUND) sl_buffer_printf(r, " --method %s", p->method);
    if (p->pure) sl_buffer_puts(r, " --pure");
    if (p->keep_output) sl_buffer_puts(r, " --keep-output");
    if (p->requantize) sl_buffer_puts(r, " --requantize");
    if (p->allow_nonfinite) sl_buffer_puts(r, " --allow-nonfinite");
    if (p->importance) sl_buffer_printf(r, " --importance %s (SHA-256 %.16s)", p->importance, j->importance_hash);
    sl_quantize_put_calibration(p, j->n_ids, r);
    sl_buffer_printf(r, " (sllm %s)", sllm_version());
    sl_utf8_make_line(r);
    return !r->failed;
}

static void report_types(const job *j, sl_buffer *out) {
    size_t counts[SL_TYPE_COUNT] = {0};
    for (size_t i = 0; i < j->plan.n; i++) counts[j->plan.items[i].type]++;
    sl_json_key(out, "types");
    sl_buffer_putc(out, '{');
    for (int t = 0; t < SL_TYPE_COUNT; t++)
        if (counts[t]) sl_json_put_int(out, sl_type_get((sl_type)t)->name, (int64_t)counts[t]);
    sl_buffer_putc(out, '}');
}

static void report_item(const sl_quantise_item *item, bool fallback, sl_buffer *out) {
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "name", item->source->name);
    if (fallback) {
        sl_json_put_string(out, "wanted", sl_type_get(item->wanted)->name);
        sl_json_put_string(out, "type", sl_type_get(item->type)->name);
        sl_json_put_int(out, "columns", item->source->shape[item->source->n_dims - 1]);
    } else {
        sl_json_key(out, "shape");
        sl_buffer_putc(out, '[');
        for (int d = 0; d < item->source->n_dims; d++) {
            sl_json_comma(out);
            sl_buffer_printf(out, "%" PRId64, item->source->shape[d]);
        }
        sl_buffer_putc(out, ']');
        sl_json_put_string(out, "from", sl_type_get(item->source->type)->name);
        sl_json_put_string(out, "to", sl_type_get(item->type)->name);
        sl_json_put_int(out, "bytes", (int64_t)sl_quantise_item_bytes(item));
    }
    sl_buffer_putc(out, '}');
}

/* What converting the folder had to say. */
static void report_warnings(const job *j, sl_buffer *out) {
    sl_arena arena = {0};
    const sl_json *root = NULL, *warnings;
    if (j->convert_report && !sl_json_parse(&arena, j->convert_report, strlen(j->convert_report), "report", &root, NULL) &&
        (warnings = sl_json_get(root, "warnings"))) {
        sl_json_key(out, "warnings");
        sl_json_write_value(out, warnings);
    }
    sl_arena_free(&arena);
}

static uint64_t matrix_bytes(const job *j) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < j->plan.n; i++)
        if (sl_role_is_quantised(j->plan.items[i].role, j->plan.items[i].source->n_dims))
            bytes += sl_quantise_item_bytes(&j->plan.items[i]);
    return bytes;
}

static sllm_status write_report(const job *j, const sl_quantise_result *r, char **report) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "input", j->in);
    sl_json_put_string(&out, "output", j->out);
    sl_json_put_string(&out, "recipe", j->recipe.data);
    sl_json_put_int(&out, "bytes_in", (int64_t)r->bytes_in);
    sl_json_put_int(&out, "bytes_out", (int64_t)r->bytes_out);
    sl_json_put_double(&out, "bits_per_weight", r->n_weights ? 8.0 * (double)matrix_bytes(j) / (double)r->n_weights : 0);
    if (j->expected_loss >= 0) sl_json_put_double(&out, "expected_kld", j->expected_loss);
    report_types(j, &out);
    sl_json_put_int(&out, "requantized", (int64_t)r->n_requantised);
    sl_json_put_int(&out, "nonfinite", (int64_t)r->n_nonfinite);
    sl_json_put_int(&out, "resumed", (int64_t)r->n_resumed);
    sl_json_key(&out, "fallbacks");
    sl_buffer_putc(&out, '[');
    for (size_t i = 0; i < j->plan.n; i++)
        if (j->plan.items[i].wanted != j->plan.items[i].type) report_item(&j->plan.items[i], true, &out);
    sl_buffer_putc(&out, ']');
    sl_json_key(&out, "tensors");
    sl_buffer_putc(&out, '[');
    for (size_t i = 0; i < j->plan.n; i++) report_item(&j->plan.items[i], false, &out);
    sl_buffer_puts(&out, "]");
    if (r->n_unweighted) {
        sl_json_put_int(&out, "without_importance", (int64_t)r->n_unweighted);
        sl_json_put_string(&out, "first_without_importance", r->unweighted);
    }
    report_warnings(j, &out);
    sl_quantize_put_solved(j->solve ? &r->solved : NULL, &out);
    sl_buffer_putc(&out, '}');
    *report = sl_buffer_take(&out, NULL);
    return *report ? SLLM_OK : sl_fail_memory(j->error, "the report", 0);
}

/* ---------------------------------------------------------------- the whole */

/* Planned before the calibration, which takes minutes, so that whatever is wrong with the request is said first; and
 * after it once more, since mixes look at whether there is importance. */
static sllm_status plan(job *j) {
    j->quant.importance = j->importance;
    sllm_status status = sl_quantise_plan_new(j->source, j->in, &j->quant, &j->plan, j->error);
    if (!status) status = check_budget(j);
    if (status || !j->params->calibration) return status;
    if (!j->params->allow_nonfinite) status = sl_quantise_check_finite(&j->plan, j->pool, j->error);
    if (!status) status = calibrate(j);
    if (status || j->quant.importance) return status;
    sl_quantise_plan_free(&j->plan);
    j->quant.importance = j->importance;
    return sl_quantise_plan_new(j->source, j->in, &j->quant, &j->plan, j->error);
}

static void finish(job *j) {
    sl_solve_free(j->solve);
    sl_quantise_plan_free(&j->plan);
    sl_buffer_free(&j->recipe);
    free(j->rules);
    free(j->patterns);
    free(j->ids);
    sl_importance_free(j->importance);
    sl_pool_free(j->own_pool);
    sl_model_free(j->model);
    sl_gguf_close(j->file);
    if (j->converted) unlink(j->converted); /* its name is of this run's claim */
    free(j->converted);
    free(j->convert_report);
    sl_gguf_claim_drop(&j->claim);
    sl_gguf_claim_drop(&j->importance_claim);
}

sllm_status sllm_quantize(const char *in, const char *out, const sllm_quantize_params *params, char **report,
                          sllm_error *error) {
    static const sllm_quantize_params defaults;
    if (!params) params = &defaults;
    if (report) *report = NULL;
    if (error) *error = (sllm_error){0};
    if (sl_is_folder_type(params->type)) return sl_quantize_folder(in, out, params, report, error);
    job j = {.params = params, .in = in, .out = out, .error = error, .expected_loss = -1, .claim = {.fd = -1},
             .importance_claim = {.fd = -1}};
    sl_quantise_result result;
    sllm_status status = check_arguments(&j);
    if (!status) status = claim_outputs(&j);
    if (!status) status = open_source(&j);
    if (!status) {
        j.quant.keep_output = params->keep_output;
        j.quant.pure = params->pure;
        j.quant.requantise = params->requantize;
        j.quant.allow_nonfinite = params->allow_nonfinite;
        j.quant.split_bytes = params->split_bytes;
        j.quant.claim = &j.claim;
        j.quant.on_progress = params->on_progress;
        j.quant.user = params->user;
        status = plan(&j);
    }
    if (!status) status = search(&j);
    if (!status) status = begin_solving(&j);
    if (!status && !write_recipe(&j)) status = sl_fail_memory(error, "the recipe", 0);
    if (!status) status = sl_quantise_write(&j.plan, &j.quant, j.recipe.data, out, j.pool, &result, error);
    if (!status && report) status = write_report(&j, &result, report);
    finish(&j);
    return status;
}
