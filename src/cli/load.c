/* From the MODEL of a command line to a loaded model. */
#include "cli/cli.h"
#include "cli/progress.h"

#include "base/file.h"
#include "base/number.h"
#include "sllm_train.h"

#include <stddef.h>
#include <string.h>

const char *const cli_kv_types[] = {"auto", "f32", "f16", "q8_0", "q4_0", NULL};

static const char *const load_in_words[] = {"off", "nf4", "fp4", NULL};

const cli_option cli_model_options[] = {
    {"ctx", 'c', CLI_INT, "N", "0", 0, 1 << 24, .offset = offsetof(cli_model_values, ctx),
     .help = "Positions of the context; 0: the model's own, at most 4096"},
    {"kv-type", 0, CLI_WORD, .fallback = "auto", .words = cli_kv_types, .offset = offsetof(cli_model_values, kv_type),
     .help = "How keys and values of the context are kept; auto: f16, or f32 with --exact. q8_0 takes half the memory of "
             "f16, q4_0 a quarter, and neither keeps every digit"},
    {"threads", 'j', CLI_INT, "N", NULL, 1, 512, .offset = offsetof(cli_model_values, threads),
     .help = "Threads of one forward pass; without it all that the process may use"},
    {"exact", 0, CLI_FLAG, .offset = offsetof(cli_model_values, exact),
     .help = "Compute with 32-bit activations and sums instead of activations rounded to 8 bits"},
    {"load-in-4bit", 0, CLI_WORD, .fallback = "off", .words = load_in_words, .offset = offsetof(cli_model_values, load_in),
     .help = "Quantise the float matrices of the blocks to NF4 or FP4 while loading, as bitsandbytes does"},
    {"double-quant", 0, CLI_FLAG, .offset = offsetof(cli_model_values, double_quant),
     .help = "With --load-in-4bit: the scales of that pass through eight bits, too"},
    {"adapter", 0, CLI_TEXTS, "FOLDER[=WEIGHT]", .offset = offsetof(cli_model_values, adapters),
     .help = "Compute with an adapter (a PEFT folder, as `sllm finetune` makes them); several add up"},
    {"any-base", 0, CLI_FLAG, .offset = offsetof(cli_model_values, any_base),
     .help = "Take an adapter that was made on another model, where its shapes fit"},
    {"pull", 0, CLI_FLAG, .offset = offsetof(cli_model_values, pull),
     .help = "Download MODEL first when it is a name that is not in the cache"},
    {0},
};

int cli_hub_params(cli_app *app, sllm_hub_params *params) {
    *params = (sllm_hub_params){.cache_dir = app->models_dir, .on_progress = cli_progress};
    cli_progress_begin(app, false);
    if (app->models_dir) return CLI_OK;
    return cli_failure(app, "no place for the model cache: set HOME or XDG_CACHE_HOME to an absolute path");
}

/* ---------------------------------------------------------------- MODEL */

/* A MODEL that is the wrong kind of file is a failure, not a wrong use of the command line, whatever the library says. */
static int model_error(cli_app *app, const sllm_error *error) {
    int status = cli_error(app, error);
    return status == CLI_USAGE ? CLI_FAILURE : status;
}

int cli_resolve(cli_app *app, const char *name, bool pull, char **path) {
    sllm_hub_params params;
    sllm_hub *hub = NULL;
    sllm_error error = {0};
    *path = NULL;
    int status = cli_hub_params(app, &params);
    if (status) return status;
    sllm_status failed = sllm_hub_open(&params, &hub, &error);
    if (!failed) failed = sllm_hub_resolve(hub, name, path, &error);
    if (failed == SLLM_ERROR_NOT_FOUND && hub && pull) failed = sllm_hub_pull(hub, name, path, &error);
    sllm_hub_close(hub);
    return failed ? model_error(app, &error) : CLI_OK;
}

static bool on_load(void *user, double fraction) {
    (void)user, (void)fraction;
    return !cli_interrupted();
}

/* What cannot fit the memory that is free is refused before anything is computed, in numbers. Of a batch one context is
 * counted: when memory is short it makes do with fewer of them (infer/engine.h). */
static int check_memory(cli_app *app, const char *name, const cli_model_values *values, const cli_beside *beside,
                        const sllm_model *model) {
    sllm_model_info info;
    sllm_plan plan;
    char needed[32], available[32], other[32];
    sllm_model_get_info(model, &info);
    int ctx = values->ctx < info.n_ctx_train ? values->ctx : info.n_ctx_train; /* a draft's may be shorter */
    sllm_plan_params wanted = {.n_ctx = ctx, .n_batch = beside->n_sequences, .kv_type = (sllm_kv_type)values->kv_type};
    if (sllm_model_plan_loaded(model, &wanted, &plan, NULL) || !plan.memory_free) return CLI_OK;
    uint64_t bytes = plan.total_bytes - plan.kv_bytes + plan.kv_bytes / (uint64_t)plan.n_batch;
    uint64_t left = beside->bytes < plan.memory_free ? plan.memory_free - beside->bytes : 0;
    if (bytes <= left) return CLI_OK;
    cli_format_bytes(bytes, needed);
    cli_format_bytes(plan.memory_free, available);
    cli_format_bytes(beside->bytes, other);
    return cli_failure(app, "%s with a context of %d needs %s of memory%s%s%s and %s are free; `sllm plan` says what a "
                       "smaller --ctx takes", name, plan.n_ctx, needed, beside->bytes ? " beside the " : "",
                       beside->bytes ? other : "", beside->bytes ? " of the model that it drafts for" : "", available);
}

/* "FOLDER" or "FOLDER=WEIGHT"; a folder of that whole name goes first. */
static int add_adapter(cli_app *app, const char *text, bool any_base, sllm_model *model) {
    const char *equals = strrchr(text, '=');
    char folder[4096];
    double weight = 1;
    bool verified;
    sllm_error error = {0};
    size_t length = strlen(text);
    if (equals && !sl_path_is_directory(text)) {
        char *end;
        length = (size_t)(equals - text);
        weight = sl_strtod(equals + 1, &end);
        if (!equals[1] || *end) return cli_usage(app, "--adapter %s: '%s' is no number", text, equals + 1);
    }
    if (length >= sizeof folder) return cli_usage(app, "--adapter: the path is too long");
    memcpy(folder, text, length);
    folder[length] = 0;
    if (sllm_model_add_adapter(model, folder, (float)weight, any_base, &verified, &error)) return model_error(app, &error);
    if (!verified) fprintf(stderr, "sllm: note: %s does not say on which model it was made: unverified\n", folder);
    return CLI_OK;
}

static int load(cli_app *app, const char *name, const cli_model_values *values, const cli_beside *beside,
                bool vocab_only, sllm_model **model) {
    char *path = NULL;
    sllm_error error = {0};
    sllm_model_params params;
    int status = cli_resolve(app, name, values && values->pull, &path);
    *model = NULL;
    if (status) return status;
    sllm_model_params_init(&params);
    params.vocab_only = vocab_only;
    params.on_progress = on_load;
    if (values) {
        params.n_threads = values->threads;
        params.exact = values->exact;
        params.load_in_4bit = (sllm_four_bit)values->load_in;
        params.double_quant = values->double_quant;
    }
    if (sllm_model_load(path, &params, model, &error)) status = model_error(app, &error);
    else if (values && !vocab_only) status = check_memory(app, name, values, beside, *model);
    for (size_t i = 0; values && !vocab_only && !status && i < values->adapters.n; i++)
        status = add_adapter(app, values->adapters.items[i], values->any_base, *model);
    if (status) sllm_model_free(*model), *model = NULL;
    sllm_free(path);
    return status;
}

int cli_load(cli_app *app, const char *name, const cli_model_values *values, bool vocab_only, sllm_model **model) {
    return load(app, name, values, &(cli_beside){0}, vocab_only, model);
}

int cli_load_beside(cli_app *app, const char *name, const cli_model_values *values, const cli_beside *beside,
                    sllm_model **model) {
    return load(app, name, values, beside, false, model);
}

/* ---------------------------------------------------------------- tensor files */

int cli_open_tensors(cli_app *app, const char *name, sllm_tensor_file **file) {
    sllm_error error = {0};
    char *path = NULL;
    *file = NULL;
    if (!sl_path_is_file(name) && !sl_path_is_directory(name)) {
        int status = cli_resolve(app, name, false, &path);
        if (status) return status;
    }
    sllm_status failed = sllm_tensor_file_open(path ? path : name, file, &error);
    sllm_free(path);
    return failed ? cli_error(app, &error) : CLI_OK;
}

void cli_format_shape(const sllm_tensor_info *info, char out[160]) {
    int n = snprintf(out, 160, "[");
    for (int i = 0; i < info->n_dims; i++)
        n += snprintf(out + n, 160 - (size_t)n, i ? ", %lld" : "%lld", (long long)info->shape[i]);
    snprintf(out + n, 160 - (size_t)n, "]");
}

bool cli_is_float_type(const char *type) {
    static const char *const integers[] = {"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        if (!strcmp(type, integers[i])) return false;
    return true;
}
