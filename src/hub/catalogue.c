/* The catalogue: a JSON file of known models. It is checked whole when it is opened, so that the code that reads it
 * afterwards may rely on its shape. */
#include "hub/hub.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Where in the file a complaint belongs. */
typedef struct place {
    const char *what, *entry;
    sllm_error *error;
} place;

static sllm_status wrong(const place *at, const char *field, const char *expected) {
    return sl_fail(at->error, SLLM_ERROR_FORMAT, "%s: model %s: \"%s\" must be %s", at->what, at->entry, field,
                   expected);
}

static bool is_text(const sl_json *value) {
    const char *text = sl_json_string(value);
    return text && text[0];
}

/* An array of non-empty strings with at least `least` items. */
static bool is_texts(const sl_json *value, size_t least) {
    if (!value || value->type != SL_JSON_ARRAY || value->length < least) return false;
    for (const sl_json *item = value->first; item; item = item->next)
        if (!is_text(item)) return false;
    return true;
}

static bool is_positive(const sl_json *value) {
    int64_t number;
    return sl_json_int64(value, &number) && number > 0;
}

static bool is_https(const sl_json *value) {
    const char *text = sl_json_string(value);
    return text && !strncmp(text, "https://", 8) && text[8];
}

static bool is_sha256(const char *text) { return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64; }

/* "name==version", each of the letters that package indexes allow: nothing that pip could take for an option. */
static bool is_requirement(const char *text) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+!";
    if (!text || !text[0] || strchr("._-+!=", text[0])) return false;
    const char *equals = strstr(text, "==");
    size_t length = equals ? (size_t)(equals - text) : 0;
    return equals && strspn(text, letters) == length && equals[2] && strlen(text) < 200 &&
           strspn(equals + 2, letters) == strlen(equals + 2);
}

static sllm_status check_licence(const place *at, const sl_json *licence) {
    static const char *const permissions[] = {"commercial_use", "redistribution", "fine_tuning"};
    static const char *const texts[] = {"id", "name"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!is_text(sl_json_get(licence, texts[i]))) return wrong(at, "licence", "an object with \"id\" and \"name\"");
    if (!is_https(sl_json_get(licence, "url"))) return wrong(at, "licence.url", "an https address");
    for (size_t i = 0; i < sizeof permissions / sizeof *permissions; i++) {
        const sl_json *value = sl_json_get(licence, permissions[i]);
        const char *text = sl_json_string(value);
        bool flag, known = sl_json_bool(value, &flag) || (text && !strcmp(text, "conditions"));
        if (!known) return wrong(at, permissions[i], "true, false or \"conditions\"");
        if (text && !is_text(sl_json_get(licence, "note")))
            return wrong(at, "licence.note", "a text that says the conditions");
    }
    return SLLM_OK;
}

static sllm_status check_benchmarks(const place *at, const sl_json *benchmarks) {
    double value;
    if (!benchmarks || benchmarks->type != SL_JSON_ARRAY) return wrong(at, "benchmarks", "an array");
    for (const sl_json *one = benchmarks->first; one; one = one->next) {
        if (!is_text(sl_json_get(one, "name")) || !sl_json_double(sl_json_get(one, "value"), &value))
            return wrong(at, "benchmarks", "objects with \"name\" and a number \"value\"");
        const sl_json *setting = sl_json_get(one, "setting");
        if (setting && !is_text(setting)) return wrong(at, "benchmarks[].setting", "a text");
        if (!is_https(sl_json_get(one, "source"))) return wrong(at, "benchmarks[].source", "an https address");
    }
    return SLLM_OK;
}

static sllm_status check_pip(const place *at, const sl_json *source) {
    const sl_json *packages = sl_json_get(source, "packages"), *bytes = sl_json_get(source, "bytes");
    const char *file = sl_json_string(sl_json_get(source, "file"));
    if (!is_texts(packages, 1)) return wrong(at, "sources[].packages", "an array of \"name==version\"");
    for (const sl_json *item = packages->first; item; item = item->next)
        if (!is_requirement(sl_json_string(item)))
            return wrong(at, "sources[].packages", "an array of \"name==version\"");
    if (!is_text(sl_json_get(source, "member")))
        return wrong(at, "sources[].member", "a pattern of a file in the package");
    if (!is_sha256(sl_json_string(sl_json_get(source, "sha256"))))
        return wrong(at, "sources[].sha256", "64 hexadecimal digits");
    if (!is_positive(bytes)) return wrong(at, "sources[].bytes", "a number of bytes");
    if (!file || !sl_name_is_safe_path(file) || strchr(file, '/') || file[0] == '.' || strlen(file) >= SL_HUB_ID ||
        strstr(file, "--") || !strcmp(file, "manifests"))
        return wrong(at, "sources[].file", "a plain file name");
    return SLLM_OK;
}

static sllm_status check_hf(const place *at, const sl_json *source) {
    sl_source parsed;
    const char *repo = sl_json_string(sl_json_get(source, "repo"));
    const sl_json *file = sl_json_get(source, "file"), *revision = sl_json_get(source, "revision");
    if (!repo) return wrong(at, "sources[].repo", "OWNER/REPO");
    if ((file && !is_text(file)) || (revision && !is_text(revision)))
        return wrong(at, "sources[]", "given \"file\" and \"revision\" as texts, or not at all");
    char text[900];
    snprintf(text, sizeof text, "hf:%s%s%s%s%s", repo, file ? "/" : "", file ? sl_json_string(file) : "",
             revision ? "@" : "", revision ? sl_json_string(revision) : "");
    sllm_status status = sl_hf_parse(text, &parsed.hf, at->error);
    if (!status) status = sl_hf_id(&parsed.hf, parsed.id, sizeof parsed.id, at->error);
    return status ? sl_error_prefix(at->error, SLLM_ERROR_FORMAT, "%s: model %s", at->what, at->entry) : SLLM_OK;
}

static sllm_status check_sources(const place *at, const sl_json *sources) {
    if (!sources || sources->type != SL_JSON_ARRAY || !sources->length)
        return wrong(at, "sources", "a non-empty array");
    for (const sl_json *source = sources->first; source; source = source->next) {
        const char *kind = sl_json_string(sl_json_get(source, "kind"));
        sllm_status status;
        if (kind && !strcmp(kind, "pip")) status = check_pip(at, source);
        else if (kind && !strcmp(kind, "hf")) status = check_hf(at, source);
        else status = wrong(at, "sources[].kind", "\"hf\" or \"pip\"");
        if (status) return status;
    }
    return SLLM_OK;
}

/* Sizes of the network: what memory and speed are computed from before anything is downloaded. */
static sllm_status check_shape(const place *at, const sl_json *shape) {
    static const char *const sizes[] = {"layers", "embedding", "heads", "kv_heads", "head_dim", "feed_forward",
                                        "vocabulary"};
    bool tied;
    if (!shape) return SLLM_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!is_positive(sl_json_get(shape, sizes[i]))) return wrong(at, "shape", "an object of numbers above 0");
    return sl_json_bool(sl_json_get(shape, "tied"), &tied) ? SLLM_OK : wrong(at, "shape.tied", "true or false");
}

static sllm_status check_entry(const place *at, const sl_json *entry) {
    static const char *const texts[] = {"title", "family"};
    static const char *const numbers[] = {"parameters", "context"};
    static const char *const lists[] = {"languages", "tasks"};
    bool runnable;
    for (size_t i = 0; i < 2; i++) {
        if (!is_text(sl_json_get(entry, texts[i]))) return wrong(at, texts[i], "a text");
        if (!is_positive(sl_json_get(entry, numbers[i]))) return wrong(at, numbers[i], "a number above 0");
        if (!is_texts(sl_json_get(entry, lists[i]), 1)) return wrong(at, lists[i], "a non-empty array of texts");
    }
    if (!is_texts(sl_json_get(entry, "aliases"), 0)) return wrong(at, "aliases", "an array of texts");
    if (!sl_json_bool(sl_json_get(entry, "runnable"), &runnable)) return wrong(at, "runnable", "true or false");
    if (!runnable && !is_text(sl_json_get(entry, "note")))
        return wrong(at, "note", "a text that says why it cannot run");
    sllm_status status = check_licence(at, sl_json_get(entry, "licence"));
    if (!status) status = check_shape(at, sl_json_get(entry, "shape"));
    if (!status) status = check_benchmarks(at, sl_json_get(entry, "benchmarks"));
    return status ? status : check_sources(at, sl_json_get(entry, "sources"));
}

/* Names and aliases: the letters of a name that is typed, and each only once in the whole catalogue. */
static sllm_status check_names(const place *at, const sllm_hub *hub, const sl_json *entry) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789.:-_";
    const sl_json *aliases = sl_json_get(entry, "aliases");
    for (const sl_json *item = sl_json_get(entry, "name"), *next; item; item = next) {
        const char *name = sl_json_string(item);
        next = item == sl_json_get(entry, "name") ? aliases->first : item->next;
        if (strspn(name, letters) != strlen(name) || strlen(name) > 64)
            return wrong(at, "name", "at most 64 small letters, digits, '.', ':', '-', '_'");
        if (sl_catalogue_find(hub, name) != entry)
            return sl_fail(at->error, SLLM_ERROR_FORMAT, "%s: the name %s belongs to two models", at->what, name);
    }
    return SLLM_OK;
}

/* What the file says of itself, and that its models are an array. */
static sllm_status check_header(sllm_hub *hub, const char *what, sllm_error *error) {
    int64_t version;
    hub->models = sl_json_get(hub->catalogue, "models");
    if (!hub->models || hub->models->type != SL_JSON_ARRAY)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: not a catalogue: it has no array \"models\"", what);
    if (!sl_json_string(sl_json_get(hub->catalogue, "endpoint")))
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: the catalogue has no text \"endpoint\"", what);
    if (!sl_json_int64(sl_json_get(hub->catalogue, "version"), &version) || version != 1)
        return sl_fail(error, SLLM_ERROR_FORMAT, "%s: \"version\" must be 1, the one that this program reads", what);
    return SLLM_OK;
}

/* The model that the file recommends, where it does, must be one of its own. */
static sllm_status check_default(const sllm_hub *hub, const char *what, sllm_error *error) {
    const sl_json *value = sl_json_get(hub->catalogue, "default");
    const char *name = sl_json_string(value);
    if (!value || (name && sl_catalogue_find(hub, name))) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_FORMAT, "%s: \"default\" must be the name of one of its models", what);
}

sllm_status sl_catalogue_load(sllm_hub *hub, const char *text, size_t length, const char *what, sllm_error *error) {
    sllm_status status = sl_json_parse(&hub->arena, text, length, what, &hub->catalogue, error);
    if (!status) status = check_header(hub, what, error);
    if (status) return status;
    for (const sl_json *entry = hub->models->first; entry; entry = entry->next) {
        place at = {what, sl_json_string(sl_json_get(entry, "name")), error};
        if (!at.entry || !at.entry[0])
            return sl_fail(error, SLLM_ERROR_FORMAT, "%s: a model has no text \"name\"", what);
        if ((status = check_entry(&at, entry))) return status;
    }
    for (const sl_json *entry = hub->models->first; entry; entry = entry->next) {
        place at = {what, sl_json_string(sl_json_get(entry, "name")), error};
        if ((status = check_names(&at, hub, entry))) return status;
    }
    return check_default(hub, what, error);
}

const sl_json *sl_catalogue_find(const sllm_hub *hub, const char *name) {
    for (const sl_json *entry = hub->models->first; entry; entry = entry->next) {
        if (!strcasecmp(sl_json_string(sl_json_get(entry, "name")), name)) return entry;
        for (const sl_json *alias = sl_json_get(entry, "aliases")->first; alias; alias = alias->next)
            if (!strcasecmp(sl_json_string(alias), name)) return entry;
    }
    return NULL;
}

/* How far a name is from what was typed: edits, or 1 when one begins with the other ("qwen3" for "qwen3:0.6b"). */
static int nearness(const char *typed, const char *name) {
    size_t length = strlen(typed);
    if (length >= 3 && !strncasecmp(typed, name, length)) return 1;
    return sl_name_distance(typed, name);
}

void sl_catalogue_near(const sllm_hub *hub, const char *name, char *out, size_t size) {
    enum { MOST = 5 };
    int limit = (int)(strlen(name) / 3), written = 0;
    size_t length = 0;
    if (limit < 1) limit = 1;
    if (limit > 4) limit = 4;
    out[0] = 0;
    for (int distance = 0; distance <= limit && written < MOST; distance++)
        for (const sl_json *entry = hub->models->first; entry && written < MOST; entry = entry->next) {
            const char *known = sl_json_string(sl_json_get(entry, "name"));
            int nearest = nearness(name, known);
            for (const sl_json *alias = sl_json_get(entry, "aliases")->first; alias; alias = alias->next) {
                int other = nearness(name, sl_json_string(alias));
                if (other < nearest) nearest = other;
            }
            if (nearest != distance || length + strlen(known) + 16 > size) continue;
            length += (size_t)snprintf(out + length, size - length, "%s%s", written++ ? ", " : "; near it: ", known);
        }
}

/* The cache's names for a parsed hf: name. */
static sllm_status name_in_cache(sl_source *source, sllm_error *error) {
    sllm_status status = sl_hf_folder(&source->hf, source->place, sizeof source->place, error);
    return status ? status : sl_hf_id(&source->hf, source->id, sizeof source->id, error);
}

bool sl_source_of_entry(const sl_json *entry, size_t index, sl_source *source) {
    const sl_json *item = sl_json_at(sl_json_get(entry, "sources"), index);
    if (!item) return false;
    *source = (sl_source){.name = sl_json_string(sl_json_get(entry, "name")), .entry = entry};
    if (!strcmp(sl_json_string(sl_json_get(item, "kind")), "pip")) {
        source->pip = item;
        snprintf(source->id, sizeof source->id, "%s", sl_json_string(sl_json_get(item, "file")));
        sl_cache_place(source->id, source->place);
        return true;
    }
    const char *file = sl_json_string(sl_json_get(item, "file"));
    const char *revision = sl_json_string(sl_json_get(item, "revision"));
    char text[900];
    snprintf(text, sizeof text, "hf:%s%s%s%s%s", sl_json_string(sl_json_get(item, "repo")), file ? "/" : "",
             file ? file : "", revision ? "@" : "", revision ? revision : "");
    return !sl_hf_parse(text, &source->hf, NULL) && !name_in_cache(source, NULL);
}

sllm_status sl_source_find(sllm_hub *hub, const char *model, sl_source *source, sllm_error *error) {
    if (sl_name_is_hf(model)) {
        *source = (sl_source){.name = model};
        sllm_status status = sl_hf_parse(model, &source->hf, error);
        return status ? status : name_in_cache(source, error);
    }
    const sl_json *entry = sl_catalogue_find(hub, model);
    if (entry && sl_source_of_entry(entry, 0, source)) return SLLM_OK;
    char near[400];
    sl_catalogue_near(hub, model, near, sizeof near);
    return sl_fail(error, SLLM_ERROR_NOT_FOUND,
                   "%.200s: neither a file, a folder nor a name of the catalogue%s (`sllm models` lists the names)",
                   model, near);
}
