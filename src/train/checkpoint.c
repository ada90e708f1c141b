/* The folder of a run: run.json says what it learns from and how, checkpoint-N what it had learned after N steps, metrics.jsonl each
 * step. Every file and folder appears when it is complete, so that a killed run finds its last checkpoint whole. */
#include "train/trainer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "format/folder_write.h"
#include "format/safetensors.h"
#include "tensor/kernels.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = SL_FOLDER_PATH, RECORD_LIMIT = 1 << 20 };
static const size_t METRICS_LIMIT = (size_t)1 << 30;

static sllm_status path_of(const sl_trainer *t, const char *name, char path[PATH_SIZE]) {
    if (sl_path_join(path, PATH_SIZE, t->out, name)) return SLLM_OK;
    return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "%s: the path is too long", t->out);
}

/* ---------------------------------------------------------------- run.json */

/* All that the result depends on. */
static void put_settings(const sl_trainer *t, sl_buffer *out) {
    const sllm_train_params *p = t->params;
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "model", p->model_name);
    sl_json_put_string(out, "model_fingerprint", t->fingerprint);
    sl_json_put_bool(out, "exact", t->model->exact);
    sl_json_put_string(out, "data", p->data_name);
    sl_json_put_string(out, "data_sha256", t->data_sha256);
    sl_json_put_int(out, "rank", p->rank);
    sl_json_put_double(out, "alpha", p->alpha);
    sl_json_put_double(out, "dropout", p->dropout);
    sl_json_put_bool(out, "rslora", p->rslora);
    sl_json_put_bool(out, "dora", p->dora);
    sl_json_put_string(out, "target", p->target ? p->target : "all-linear");
    sl_json_put_int(out, "batch", p->batch);
    sl_json_put_int(out, "accumulation", p->accumulation);
    sl_json_put_double(out, "epochs", p->epochs);
    sl_json_put_double(out, "learning_rate", p->learning_rate);
    sl_json_put_double(out, "warmup", p->warmup);
    sl_json_put_string(out, "schedule", p->schedule ? p->schedule : "cosine");
    sl_json_put_double(out, "weight_decay", p->weight_decay);
    sl_json_put_double(out, "max_grad_norm", p->max_grad_norm);
    sl_json_put_int(out, "seed", (int64_t)p->seed);
    static const char *const formats[] = {"template", "alpaca", "plain"};
    sl_json_put_string(out, "format", formats[t->data_params.format]);
    sl_json_put_bool(out, "prompt_loss", p->prompt_loss);
    sl_json_put_bool(out, "no_end", p->no_end);
    sl_json_put_int(out, "max_length", p->max_length);
    sl_json_put_string(out, "over_long", p->over_long ? p->over_long : "refuse");
    sl_json_put_double(out, "eval_split", p->eval_split);
    sl_buffer_putc(out, '}');
}

/* sllm.json beside the adapter: what it was made on, and of. */
static sllm_status make_own(sl_trainer *t, const char *settings) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_string(&out, "base_fingerprint", t->fingerprint);
    sl_json_put_string(&out, "base_licence", t->model->config.licence[0] ? t->model->config.licence : NULL);
    sl_json_put_string(&out, "made_by", "sllm " SLLM_VERSION);
    sl_json_key(&out, "settings");
    sl_buffer_puts(&out, settings);
    sl_buffer_puts(&out, "}\n");
    t->own = sl_buffer_take(&out, NULL);
    t->form.own = t->own;
    return t->own ? SLLM_OK : sl_fail_memory(t->error, "the record", 0);
}

/* The settings of a run that is there must be ours. */
static sllm_status compare_run(const sl_trainer *t, const char *path, const char *settings) {
    sl_arena arena = {0};
    sl_buffer text = {0}, theirs = {0};
    const sl_json *root = NULL;
    sllm_status status = sl_file_read(path, RECORD_LIMIT, &text, t->error);
    if (!status) status = sl_json_parse(&arena, text.data, text.length, path, &root, t->error);
    const sl_json *value = sl_json_get(root, "settings");
    if (value) sl_json_write_value(&theirs, value);
    if (!status && (!value || theirs.failed || strcmp(theirs.data, settings)))
        status = sl_fail(t->error, SLLM_ERROR_ARGUMENT, "%s: the run there has other settings, another model or other data; it is gone on with "
                         "as it was begun, or begun anew in another folder", t->out);
    const char *kernels = sl_json_string(sl_json_get(root, "kernels"));
    if (!status && kernels && strcmp(kernels, sl_kernels_name()) && t->params->on_note) {
        char note[200];
        snprintf(note, sizeof note, "the run began with %.40s instructions and goes on with %s: its result will not be the same to the last bit",
                 kernels, sl_kernels_name());
        t->params->on_note(t->params->user, note);
    }
    sl_buffer_free(&theirs);
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    return status;
}

static sllm_status begin_new(sl_trainer *t, const char *path, const char *settings) {
    sl_buffer run = {0};
    if (mkdir(t->out, 0777) && errno != EEXIST) return sl_fail_errno(t->error, "make the folder", t->out);
    DIR *directory = opendir(t->out);
    int n = 0;
    if (!directory) return sl_fail_errno(t->error, "open", t->out);
    while (readdir(directory)) n++;
    closedir(directory);
    if (n > 2) return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "%s: is there already and not empty; --resume goes on with a run", t->out);
    sl_buffer_puts(&run, "{\"settings\":");
    sl_buffer_puts(&run, settings);
    sl_json_put_string(&run, "kernels", sl_kernels_name());
    sl_json_put_string(&run, "version", SLLM_VERSION);
    sl_buffer_puts(&run, "}\n");
    sllm_status status = run.failed ? sl_fail_memory(t->error, "the record", 0) : sl_file_write(path, run.data, run.length, t->error);
    sl_buffer_free(&run);
    return status;
}

sllm_status sl_trainer_begin_folder(sl_trainer *t) {
    char path[PATH_SIZE];
    sl_buffer settings = {0};
    sllm_status status = path_of(t, "run.json", path);
    put_settings(t, &settings);
    if (!status && settings.failed) status = sl_fail_memory(t->error, "the record", 0);
    if (!status) status = t->params->resume ? compare_run(t, path, settings.data) : begin_new(t, path, settings.data);
    if (!status) status = make_own(t, settings.data);
    sl_buffer_free(&settings);
    return status;
}

/* ---------------------------------------------------------------- checkpoints */

static sllm_status write_moments(const sl_trainer *t, const char *path) {
    const sl_adamw *o = t->adamw;
    sl_tensor tensors[2] = {{.name = "first", .type = SL_F32, .n_dims = 1, .shape = {(int64_t)o->n}},
                            {.name = "second", .type = SL_F32, .n_dims = 1, .shape = {(int64_t)o->n}}};
    sl_safetensors_writer *writer = NULL;
    sllm_status status = sl_safetensors_writer_new(path, tensors, 2, &writer, t->error);
    if (!status) status = sl_safetensors_writer_write(writer, o->first, o->n * sizeof *o->first, t->error);
    if (!status) status = sl_safetensors_writer_write(writer, o->second, o->n * sizeof *o->second, t->error);
    if (!status) return sl_safetensors_writer_finish(writer, t->error);
    sl_safetensors_writer_abandon(writer);
    return status;
}

static sllm_status write_state(const sl_trainer *t, const sl_folder_writer *folder) {
    sl_buffer out = {0};
    sl_buffer_putc(&out, '{');
    sl_json_put_int(&out, "step", t->step);
    sl_json_put_int(&out, "optimiser_step", t->adamw->step);
    sl_json_put_double(&out, "best_eval_loss", t->best_eval); /* infinite: null */
    sl_json_put_int(&out, "best_step", t->best_step);
    sl_buffer_puts(&out, "}\n");
    sllm_status status = out.failed ? sl_fail_memory(t->error, "the state", 0)
                                    : sl_folder_writer_file(folder, "state.json", out.data, out.length, t->error);
    sl_buffer_free(&out);
    return status;
}

/* The number of "checkpoint-N"; -1: another name. */
static int64_t number_of(const char *name) {
    static const char prefix[] = "checkpoint-";
    char *end;
    if (strncmp(name, prefix, sizeof prefix - 1) || name[sizeof prefix - 1] < '0' || name[sizeof prefix - 1] > '9') return -1;
    int64_t n = strtoll(name + sizeof prefix - 1, &end, 10);
    return *end ? -1 : n;
}

/* The newest checkpoint below `limit`, and how many there are; -1: none. */
static int64_t newest(const sl_trainer *t, int64_t limit, int *count) {
    int64_t best = -1;
    DIR *directory = opendir(t->out);
    *count = 0;
    for (const struct dirent *e; directory && (e = readdir(directory));) {
        int64_t n = number_of(e->d_name);
        if (n < 0 || n >= limit || n == t->best_step) continue;
        ++*count;
        if (n > best) best = n;
    }
    if (directory) closedir(directory);
    return best;
}

static void remove_folder(const char *path) {
    char file[PATH_SIZE];
    DIR *directory = opendir(path);
    for (const struct dirent *e; directory && (e = readdir(directory));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && sl_path_join(file, sizeof file, path, e->d_name)) unlink(file);
    if (directory) closedir(directory);
    rmdir(path);
}

/* All but the newest few and the best. */
static void remove_old(const sl_trainer *t) {
    int64_t limit = INT64_MAX;
    char name[64], path[PATH_SIZE];
    int count;
    for (int kept = 0; (limit = newest(t, limit, &count)) >= 0; kept++) {
        snprintf(name, sizeof name, "checkpoint-%" PRId64, limit);
        if (kept >= t->params->keep && sl_path_join(path, sizeof path, t->out, name)) remove_folder(path);
    }
}

sllm_status sl_trainer_checkpoint(sl_trainer *t) {
    char name[64], path[PATH_SIZE];
    sl_folder_writer folder;
    snprintf(name, sizeof name, "checkpoint-%" PRId64, t->step);
    sllm_status status = path_of(t, name, path);
    if (status || sl_path_is_directory(path)) return status; /* written by the run before, to the same bytes */
    status = sl_folder_writer_begin(&folder, path, t->error);
    if (status) return status;
    status = sl_adapter_write(t->model, t->adapter, &t->form, folder.part, t->error);
    if (!status && !sl_folder_writer_path(&folder, "optimiser.safetensors", path)) status = sl_fail(t->error, SLLM_ERROR_ARGUMENT, "the path is too long");
    if (!status) status = write_moments(t, path);
    if (!status) status = write_state(t, &folder);
    if (status) sl_folder_writer_abandon(&folder);
    else status = sl_folder_writer_finish(&folder, t->error);
    if (!status) remove_old(t);
    return status;
}

/* ---------------------------------------------------------------- going on */

static sllm_status read_moments(sl_trainer *t, const char *folder) {
    char path[PATH_SIZE];
    sl_safetensors *file = NULL;
    sl_adamw *o = t->adamw;
    if (!sl_path_join(path, sizeof path, folder, "optimiser.safetensors")) return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "the path is too long");
    sllm_status status = sl_safetensors_open(path, &file, t->error);
    if (status) return status;
    const sl_tensor *first = sl_safetensors_get(file, "first"), *second = sl_safetensors_get(file, "second");
    if (!first || !second || first->type != SL_F32 || second->type != SL_F32 || first->n_elements != o->n || second->n_elements != o->n)
        status = sl_fail(t->error, SLLM_ERROR_FORMAT, "%s: holds another optimiser's state", path);
    if (!status) memcpy(o->first, first->data, o->n * sizeof *o->first);
    if (!status) memcpy(o->second, second->data, o->n * sizeof *o->second);
    sl_safetensors_close(file);
    return status;
}

static sllm_status read_state(sl_trainer *t, const char *folder) {
    char path[PATH_SIZE];
    sl_arena arena = {0};
    sl_buffer text = {0};
    const sl_json *root = NULL;
    if (!sl_path_join(path, sizeof path, folder, "state.json")) return sl_fail(t->error, SLLM_ERROR_ARGUMENT, "the path is too long");
    sllm_status status = sl_file_read(path, RECORD_LIMIT, &text, t->error);
    if (!status) status = sl_json_parse(&arena, text.data, text.length, path, &root, t->error);
    if (!status && (!sl_json_int64(sl_json_get(root, "step"), &t->step) || !sl_json_int64(sl_json_get(root, "optimiser_step"), &t->adamw->step) ||
                    !sl_json_int64(sl_json_get(root, "best_step"), &t->best_step) || t->step < 0 || t->step > t->total))
        status = sl_fail(t->error, SLLM_ERROR_FORMAT, "%s: is damaged", path);
    if (!status && !sl_json_double(sl_json_get(root, "best_eval_loss"), &t->best_eval)) t->best_eval = INFINITY;
    sl_buffer_free(&text);
    sl_arena_free(&arena);
    return status;
}

/* The values of the adapter that was written, into the one that learns. */
static sllm_status read_values(sl_trainer *t, const char *folder) {
    sl_adapter *there = NULL;
    sllm_status status = sl_adapter_read(t->model, folder, &there, t->error);
    if (!status && there->n != t->adapter->n) status = sl_fail(t->error, SLLM_ERROR_FORMAT, "%s: is another adapter", folder);
    for (size_t i = 0; i < t->adapter->n && !status; i++) {
        const sl_lora *from = &there->list[i];
        sl_lora *to = &t->adapter->list[i];
        if (from->slot != to->slot || from->layer != to->layer || from->expert != to->expert || from->rank != to->rank) {
            status = sl_fail(t->error, SLLM_ERROR_FORMAT, "%s: is another adapter", folder);
            break;
        }
        memcpy(to->a, from->a, (size_t)(to->rank * to->n_in) * sizeof *to->a);
        memcpy(to->b, from->b, (size_t)(to->n_out * to->rank) * sizeof *to->b);
        if (to->magnitude) memcpy(to->magnitude, from->magnitude, (size_t)to->n_out * sizeof *to->magnitude);
        if (to->gain) memcpy(to->gain, from->gain, (size_t)to->n_out * sizeof *to->gain);
    }
    sl_adapter_free(there);
    return status;
}

/* Lines of steps that will be made again are taken out: a run that was killed may have been further than its last checkpoint. */
static sllm_status cut_metrics(const sl_trainer *t) {
    char path[PATH_SIZE];
    sl_buffer text = {0}, kept = {0};
    sllm_status status = path_of(t, "metrics.jsonl", path);
    if (status || !sl_path_is_file(path)) return status;
    status = sl_file_read(path, METRICS_LIMIT, &text, t->error);
    for (const char *at = text.data; !status && at && *at;) {
        const char *end = strchr(at, '\n');
        long long step;
        if (!end || sscanf(at, "{\"step\":%lld,", &step) != 1 || step > t->step) break;
        sl_buffer_append(&kept, at, (size_t)(end + 1 - at));
        at = end + 1;
    }
    if (!status && kept.failed) status = sl_fail_memory(t->error, "metrics.jsonl", 0);
    if (!status && kept.length != text.length) status = sl_file_write(path, kept.data ? kept.data : "", kept.length, t->error);
    sl_buffer_free(&text);
    sl_buffer_free(&kept);
    return status;
}

sllm_status sl_trainer_resume(sl_trainer *t) {
    char name[64], path[PATH_SIZE];
    int count;
    int64_t n = newest(t, INT64_MAX, &count);
    sllm_status status = SLLM_OK;
    if (n >= 0) {
        snprintf(name, sizeof name, "checkpoint-%" PRId64, n);
        status = path_of(t, name, path);
        if (!status) status = read_state(t, path);
        if (!status) status = read_moments(t, path);
        if (!status) status = read_values(t, path);
    }
    return status ? status : cut_metrics(t);
}

/* ---------------------------------------------------------------- the record */

sllm_status sl_trainer_note(sl_trainer *t, const sllm_train_event *e) {
    char path[PATH_SIZE];
    sl_buffer line = {0};
    sllm_status status = path_of(t, "metrics.jsonl", path);
    sl_buffer_putc(&line, '{');
    sl_json_put_int(&line, "step", e->step);
    sl_json_put_double(&line, "epoch", e->epoch);
    sl_json_put_double(&line, "loss", e->loss);
    sl_json_put_double(&line, "grad_norm", e->grad_norm);
    sl_json_put_double(&line, "learning_rate", e->learning_rate);
    sl_json_put_double(&line, "tokens_per_second", e->tokens_per_second);
    sl_json_put_int(&line, "memory_bytes", (int64_t)e->memory_bytes);
    sl_json_put_double(&line, "eval_loss", e->eval_loss); /* NaN: null */
    sl_buffer_puts(&line, "}\n");
    if (!status && line.failed) status = sl_fail_memory(t->error, "a line of metrics.jsonl", 0);
    int fd = status ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (!status && (fd < 0 || write(fd, line.data, line.length) != (ssize_t)line.length)) status = sl_fail_errno(t->error, "write", path);
    if (fd >= 0) close(fd);
    sl_buffer_free(&line);
    return status;
}

sllm_status sl_trainer_finish_folder(sl_trainer *t) { return sl_adapter_write(t->model, t->adapter, &t->form, t->out, t->error); }
