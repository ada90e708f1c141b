/* The public function that merges: the file written beside its place, compared with the live adapters, and then put there. */
#include "sllm_train.h"

#include "api/handles.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "eval/score.h"
#include "eval/text_ids.h"
#include "quant/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CTX = 64, MOST_CHUNKS = 16 };
static const double LIMIT = 0.05;

/* Prose, a list, numbers, code and a dialogue: a few of the things that models are asked for. */
static const char own_text[] =
    "The harbour was quiet when the ferry came in. Two women waited with a dog, and behind them a boy counted the steps that "
    "led down to the water: one, two, three, up to forty-one. \"It is late again,\" said the older of the two, and looked at the sky, "
    "which had turned from grey to a dull yellow. Nobody answered. A gull walked along the wall as if it owned the place.\n\n"
    "To make a simple bread you need:\n- 500 g of flour\n- 7 g of dry yeast\n- 10 g of salt\n- 320 ml of warm water\n\nMix everything, let it "
    "rest for an hour, shape it, and bake it at 230 degrees Celsius for thirty-five minutes until the crust is brown.\n\n"
    "def mean(values):\n    if not values:\n        raise ValueError(\"no values\")\n    return sum(values) / len(values)\n\n"
    "Question: What is the capital of Norway, and how many people live there?\nAnswer: Oslo. About 700,000 people live in the city itself, "
    "and somewhat more than a million in the region around it.\n\nIn 1687 Isaac Newton published the Principia, in which he stated the "
    "three laws of motion and the law of universal gravitation. The second law says that the force on a body is the product of its mass "
    "and its acceleration, F = m a; from it the orbit of a planet can be computed when the mass of the sun is known.\n\nDear customer, "
    "thank you for your message of 3 May. We are sorry that your parcel has not arrived. According to the carrier it left the "
    "warehouse on Monday at 14:20 and should be with you within two working days. If it is not, please write to us again.";

void sllm_merge_params_init(sllm_merge_params *params) {
    if (params) *params = (sllm_merge_params){0};
}

typedef struct merge_job {
    const sllm_merge_params *params;
    const char *in, *out;
    char *beside;         /* where the file lies until it was compared */
    sl_gguf_claim claim, beside_claim;
    sl_comparison found;
    double limit;
    size_t n_merged;
    sllm_error *error;
} merge_job;

static sllm_status load(merge_job *j, const char *const *adapters, const float *weights, size_t n, bool any_base, bool exact, sllm_model **model) {
    const sllm_model_params load = {.n_threads = j->params->n_threads, .exact = exact};
    sllm_status status = sllm_model_load(j->in, &load, model, j->error);
    for (size_t i = 0; i < n && !status; i++) status = sllm_model_add_adapter(*model, adapters[i], weights ? weights[i] : 1, any_base, NULL, j->error);
    return status;
}

static sllm_status write_file(merge_job *j, sllm_model *model, const char *const *adapters, size_t n) {
    sl_buffer recipe = {0};
    sl_merge_params p = {.type = SL_TYPE_COUNT, .claim = &j->beside_claim, .on_progress = j->params->on_progress, .user = j->params->user};
    if (j->params->type && (!sl_type_from_name(j->params->type, &p.type) || (p.type != SL_F32 && p.type != SL_F16 && p.type != SL_BF16)))
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "--type %s: merging gives f32, f16 or bf16, or the types that are there; `sllm quantize` makes "
                       "others of the result", j->params->type);
    sl_buffer_puts(&recipe, "merge");
    for (size_t i = 0; i < n; i++) sl_buffer_printf(&recipe, " %s", adapters[i]);
    sl_buffer_printf(&recipe, " (sllm %s)", sllm_version());
    sl_utf8_make_line(&recipe);
    p.recipe = recipe.data;
    sllm_status status = recipe.failed ? sl_fail_memory(j->error, "the recipe", 0)
                                       : sl_merge_write(sl_model_of(model), j->beside, &p, &j->n_merged, j->error);
    sl_buffer_free(&recipe);
    return status;
}

/* How far the file's answers are from those of the live adapters, both as products run. */
static sllm_status compare(merge_job *j, const sllm_model *live) {
    const sllm_model_params load = {.n_threads = j->params->n_threads};
    const sl_model *a = sl_model_of_const(live);
    sl_model *merged = NULL;
    const char *text = j->params->text ? j->params->text : own_text;
    size_t length = j->params->text ? j->params->text_length : sizeof own_text - 1, n = 0;
    int32_t *ids = NULL;
    const sl_score_params score = {.n_ctx = CTX, .n_chunks = MOST_CHUNKS, .on_progress = j->params->on_progress, .user = j->params->user};
    sllm_status status = sl_model_load(j->beside, &load, &merged, j->error);
    if (!status) status = sl_text_ids(a, text, length, false, CTX, &ids, &n, j->error);
    if (!status) status = sl_compare_measure(a, (const sl_model *const[]){merged}, 1, ids, n, &score, &j->found, j->error);
    free(ids);
    sl_model_free(merged);
    return status;
}

static sllm_status write_report(const merge_job *j, bool refused, char **report) {
    sl_buffer out = {0};
    struct stat in, made;
    const char *path = refused ? j->beside : j->claim.target;
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "input", j->in);
    sl_json_put_string(&out, "output", j->out);
    sl_json_put_double(&out, "mean_kld", j->found.mean_kld);
    sl_json_put_double(&out, "max_kld", sl_comparison_quantile(&j->found, 1));
    sl_json_put_double(&out, "top1_agreement", j->found.top1);
    sl_json_put_double(&out, "limit", j->limit);
    sl_json_put_bool(&out, "refused", refused);
    sl_json_put_int(&out, "merged", (int64_t)j->n_merged);
    sl_json_put_int(&out, "bytes_in", stat(j->in, &in) ? 0 : (int64_t)in.st_size);
    sl_json_put_int(&out, "bytes_out", stat(path, &made) ? 0 : (int64_t)made.st_size);
    sl_buffer_putc(&out, '}');
    *report = sl_buffer_take(&out, NULL);
    return *report ? SLLM_OK : sl_fail_memory(j->error, "the report", 0);
}

static sllm_status claim(merge_job *j) {
    if (sl_path_is_same(j->in, j->out))
        return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "%s: is the source itself, which would be replaced: give another name", j->out);
    sllm_status status = sl_gguf_claim_take(j->out, false, &j->claim, j->error);
    if (status) return status;
    size_t size = strlen(j->claim.target) + sizeof ".part.merged";
    j->beside = malloc(size);
    if (!j->beside) return sl_fail_memory(j->error, j->out, size);
    snprintf(j->beside, size, "%s.part.merged", j->claim.target);
    return sl_gguf_claim_take(j->beside, false, &j->beside_claim, j->error);
}

/* The file takes its place, or is refused. */
static sllm_status decide(merge_job *j, char **report) {
    bool refused = j->limit >= 0 && !(j->found.mean_kld <= j->limit);
    if (!refused && rename(j->beside, j->claim.target)) return sl_fail_errno(j->error, "write", j->out);
    sllm_status status = report ? write_report(j, refused, report) : SLLM_OK;
    if (status || !refused) return status;
    return sl_fail(j->error, SLLM_ERROR_ARGUMENT, "the merged file's answers are %.4f nats from the live adapter's, above the limit of %g: its types are "
                   "too coarse for what was learned; keep the adapter beside the model, merge with --type f16, or raise --limit",
                   j->found.mean_kld, j->limit);
}

sllm_status sllm_merge(const char *in, const char *const *adapters, const float *weights, size_t n_adapters, bool any_base, const char *out,
                       const sllm_merge_params *params, char **report, sllm_error *error) {
    static const sllm_merge_params defaults;
    merge_job j = {.params = params ? params : &defaults, .in = in, .out = out, .claim = {.fd = -1}, .beside_claim = {.fd = -1}, .error = error};
    sllm_model *exact = NULL, *live = NULL;
    if (report) *report = NULL;
    if (error) *error = (sllm_error){0};
    if (!in || !*in || !out || !*out || !adapters || !n_adapters)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "merging needs a model, an adapter and a name for the result");
    j.limit = j.params->limit == 0 ? LIMIT : j.params->limit;
    sllm_status status = claim(&j);
    if (!status) status = load(&j, adapters, weights, n_adapters, any_base, true, &exact);
    if (!status) status = write_file(&j, exact, adapters, n_adapters);
    sllm_model_free(exact);
    if (!status) status = load(&j, adapters, weights, n_adapters, any_base, false, &live);
    if (!status) status = compare(&j, live);
    sllm_model_free(live);
    if (!status) status = decide(&j, report);
    if (j.beside) unlink(j.beside); /* not there any more where it was put in place */
    sl_gguf_claim_drop(&j.beside_claim);
    sl_gguf_claim_drop(&j.claim);
    free(j.beside);
    free(j.found.kld);
    return status;
}
