/* This machine's measured figures, kept in the cache folder so that `plan` and `choose` answer at once. */
#include "cli/speed.h"

#include "base/file.h"
#include "base/json.h"

#include <string.h>
#include <sys/stat.h>

/* What an entry of the file is for; figures of another program, processor or number of threads say nothing. */
typedef struct speed_key {
    sllm_machine machine;
    int n_threads;
} speed_key;

static const struct { const char *name; size_t offset; } figures[] = {
    {"read_1", offsetof(sllm_machine_speed, read_1)}, {"read_n", offsetof(sllm_machine_speed, read_n)},
    {"int8_1", offsetof(sllm_machine_speed, int8_1)}, {"int8_n", offsetof(sllm_machine_speed, int8_n)},
    {"f32_1", offsetof(sllm_machine_speed, f32_1)},   {"f32_n", offsetof(sllm_machine_speed, f32_n)},
    {"sync_s", offsetof(sllm_machine_speed, sync_s)},
};
enum { N_FIGURES = sizeof figures / sizeof *figures, FILE_LIMIT = 1 << 20, MOST_ENTRIES = 64 };

static double *figure(sllm_machine_speed *speed, int i) { return (double *)(void *)((char *)speed + figures[i].offset); }

static bool has_text(const sl_json *entry, const char *key, const char *wanted) {
    const char *text = sl_json_string(sl_json_get(entry, key));
    return text && !strcmp(text, wanted);
}

static bool is_for(const sl_json *entry, const speed_key *key) {
    int64_t threads = 0;
    return has_text(entry, "version", sllm_version()) && has_text(entry, "cpu", key->machine.cpu) &&
           has_text(entry, "kernels", key->machine.kernels) &&
           sl_json_int64(sl_json_get(entry, "threads"), &threads) && threads == key->n_threads;
}

/* False when a figure is missing or none that a machine can have: the entry is then as good as absent. */
static bool read_entry(const sl_json *entry, int n_threads, sllm_machine_speed *speed) {
    sllm_machine_speed found = {.n_threads = n_threads};
    for (int i = 0; i < N_FIGURES; i++) {
        double value = 0;
        if (!sl_json_double(sl_json_get(entry, figures[i].name), &value) || !(value > 0 && value < 1e18)) return false;
        *figure(&found, i) = value;
    }
    if (found.read_n < found.read_1 || found.int8_n < found.int8_1 || found.f32_n < found.f32_1) return false;
    *speed = found;
    return true;
}

/* The entries of the file; NULL when there is no file or it is damaged, which costs no more than measuring again. */
static const sl_json *read_entries(const char *path, sl_arena *arena) {
    sl_buffer text = {0};
    const sl_json *root = NULL;
    if (sl_file_read(path, FILE_LIMIT, &text, NULL) ||
        sl_json_parse(arena, text.data ? text.data : "", text.length, path, &root, NULL))
        root = NULL;
    sl_buffer_free(&text);
    const sl_json *entries = sl_json_get(root, "machines");
    return entries && entries->type == SL_JSON_ARRAY ? entries : NULL;
}

static void put_entry(sl_buffer *out, const speed_key *key, sllm_machine_speed *speed) {
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "version", sllm_version());
    sl_json_put_string(out, "cpu", key->machine.cpu);
    sl_json_put_string(out, "kernels", key->machine.kernels);
    sl_json_put_int(out, "threads", key->n_threads);
    for (int i = 0; i < N_FIGURES; i++) sl_json_put_double(out, figures[i].name, *figure(speed, i));
    sl_buffer_putc(out, '}');
}

/* The folder and those above it; whether that worked shows when the file is written. */
static void make_folders(const char *folder) {
    char path[4200];
    snprintf(path, sizeof path, "%s", folder);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
    mkdir(path, 0755);
}

/* Rewrites the file with this entry first. A folder that cannot be written to only means measuring again next time. */
static void write_entries(const char *folder, const char *path, const sl_json *old, const speed_key *key,
                          sllm_machine_speed *speed) {
    sl_buffer out = {0};
    int n = 1;
    sl_buffer_puts(&out, "{\"machines\":[");
    put_entry(&out, key, speed);
    for (const sl_json *entry = old ? old->first : NULL; entry && n < MOST_ENTRIES; entry = entry->next) {
        if (entry->type != SL_JSON_OBJECT || is_for(entry, key) || !has_text(entry, "version", sllm_version())) continue;
        sl_json_comma(&out);
        sl_json_write_value(&out, entry);
        n++;
    }
    sl_buffer_puts(&out, "]}\n");
    make_folders(folder);
    if (!out.failed) sl_file_write(path, out.data, out.length, NULL);
    sl_buffer_free(&out);
}

static void keep_best(sllm_machine_speed *best, sllm_machine_speed *other) {
    for (int i = 0; i < N_FIGURES; i++) {
        double *a = figure(best, i), b = *figure(other, i);
        bool lower_is_better = figures[i].offset == offsetof(sllm_machine_speed, sync_s);
        if (lower_is_better ? b < *a : b > *a) *a = b;
    }
}

int cli_machine_speed(cli_app *app, int threads, cli_speed_use use, sllm_machine_speed *speed) {
    speed_key key;
    sl_arena arena = {0};
    sllm_error error = {0};
    sllm_machine_speed kept;
    char path[4200];
    bool has_place = app->cache_dir && sl_path_join(path, sizeof path, app->cache_dir, "machine.json"), found = false;
    sllm_machine_info(&key.machine);
    key.n_threads = threads ? threads : key.machine.n_cpus;
    const sl_json *entries = has_place ? read_entries(path, &arena) : NULL;
    for (const sl_json *entry = entries ? entries->first : NULL; entry && !found; entry = entry->next)
        found = is_for(entry, &key) && read_entry(entry, key.n_threads, &kept);
    int status = CLI_OK;
    if (found && use == CLI_SPEED_KEPT) {
        *speed = kept;
    } else if (sllm_machine_measure(key.n_threads, speed, &error)) {
        status = cli_error(app, &error);
    } else {
        if (found && use == CLI_SPEED_BEST) keep_best(speed, &kept);
        if (has_place) write_entries(app->cache_dir, path, entries, &key, speed);
    }
    sl_arena_free(&arena);
    return status;
}

void cli_put_machine(sl_buffer *out, const sllm_machine_speed *speed) {
    sllm_machine machine;
    sllm_machine_info(&machine);
    sl_json_key(out, "machine");
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "cpu", machine.cpu);
    sl_json_put_string(out, "features", machine.features);
    sl_json_put_string(out, "kernels", machine.kernels);
    sl_json_put_int(out, "cpus", machine.n_cpus);
    sl_json_put_int(out, "memory_total", (int64_t)machine.memory_total);
    sl_json_put_int(out, "memory_free", (int64_t)machine.memory_free);
    sl_json_put_int(out, "threads", speed->n_threads);
    sl_json_put_double(out, "read_gb_per_second_1", speed->read_1 / 1e9);
    sl_json_put_double(out, "read_gb_per_second", speed->read_n / 1e9);
    sl_json_put_double(out, "int8_g_per_second_1", speed->int8_1 / 1e9);
    sl_json_put_double(out, "int8_g_per_second", speed->int8_n / 1e9);
    sl_json_put_double(out, "f32_g_per_second_1", speed->f32_1 / 1e9);
    sl_json_put_double(out, "f32_g_per_second", speed->f32_n / 1e9);
    sl_json_put_double(out, "sync_us", speed->sync_s * 1e6);
    sl_buffer_putc(out, '}');
}

static void print_figure(cli_app *app, const char *name, double one, double all, const char *unit, int n_threads) {
    if (n_threads == 1) cli_printf(app, "%-20s %8.1f %s\n", name, one, unit);
    else cli_printf(app, "%-20s %8.1f %8.1f %s\n", name, one, all, unit);
}

void cli_print_machine(cli_app *app, const sllm_machine_speed *speed) {
    sllm_machine machine;
    char free_bytes[32], total_bytes[32];
    sllm_machine_info(&machine);
    cli_format_bytes(machine.memory_free, free_bytes);
    cli_format_bytes(machine.memory_total, total_bytes);
    cli_printf(app, "%-20s %s, %d usable\n%-20s %s\n%-20s %s\n%-20s %s of %s free\n", "processor", machine.cpu,
               machine.n_cpus, "features", machine.features, "kernels in use", machine.kernels, "memory", free_bytes,
               total_bytes);
    if (speed->n_threads == 1) cli_printf(app, "%-20s %8s\n", "measured, threads", "1");
    else cli_printf(app, "%-20s %8d %8d\n", "measured, threads", 1, speed->n_threads);
    print_figure(app, "  memory read", speed->read_1 / 1e9, speed->read_n / 1e9, "GB/s", speed->n_threads);
    print_figure(app, "  int8", speed->int8_1 / 1e9, speed->int8_n / 1e9, "G multiply-adds/s", speed->n_threads);
    print_figure(app, "  f32", speed->f32_1 / 1e9, speed->f32_n / 1e9, "G multiply-adds/s", speed->n_threads);
    cli_printf(app, "%-20s %8.2f us with %d thread%s\n", "  synchronisation", speed->sync_s * 1e6, speed->n_threads,
               speed->n_threads == 1 ? "" : "s");
}
