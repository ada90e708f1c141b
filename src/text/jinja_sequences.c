/* Filters on sequences. Those that are generators in Jinja are generators here. */
#include "text/jinja.h"

#include <string.h>

#define GIVEN(v) ((v).type != JINJA_MISSING && (v).type != JINJA_NONE)

static void no_arguments(jinja *j, const char *name, const jinja_args *args) {
    sl_jinja_bind(j, name, args, NULL, 0, 0, NULL);
}
static bool flag(jinja *j, jinja_value v) { return v.type != JINJA_MISSING && sl_jinja_truth(j, v); }
static jinja_value ignore_case(jinja *j, jinja_value v, bool sensitive) {
    return jinja_is_str(v) && !sensitive ? sl_jinja_str_lower(j, v) : v;
}

static jinja_value filter_list(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "list", args);
    return sl_jinja_collect(j, v);
}

static jinja_value filter_first(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value item;
    no_arguments(j, "first", args);
    return sl_jinja_next(j, sl_jinja_iterate(j, v), &item)
               ? item
               : sl_jinja_undefined_hint(j, "No first item, sequence was empty.");
}

static jinja_value filter_last(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value item;
    no_arguments(j, "last", args);
    jinja_value reversed = sl_jinja_reversed(j, v);
    return sl_jinja_next(j, reversed.as.iterator, &item)
               ? item
               : sl_jinja_undefined_hint(j, "No last item, sequence was empty.");
}

static jinja_value filter_reverse(jinja *j, jinja_value v, const jinja_args *args) {
    no_arguments(j, "reverse", args);
    if (jinja_is_str(v)) return sl_jinja_get_slice(j, v, sl_jinja_none, sl_jinja_none, sl_jinja_int(-1));
    if (v.type == JINJA_ITERATOR || (v.type == JINJA_VIEW && v.as.view->what == JINJA_ITEM_SET)) { /* a list then */
        jinja_value list = sl_jinja_collect(j, v);
        return sl_jinja_get_slice(j, list, sl_jinja_none, sl_jinja_none, sl_jinja_int(-1));
    }
    return sl_jinja_reversed(j, v);
}

static jinja_value filter_join(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2], item;
    sl_jinja_bind(j, "join", args, (const char *const[]){"d", "attribute"}, 2, 0, a);
    jinja_iterator *it = sl_jinja_iterate(j, v);
    jinja_text out = {.j = j};
    for (size_t i = 0; sl_jinja_next(j, it, &item); i++) {
        if (i && a[0].type != JINJA_MISSING) sl_jinja_write_str(&out, a[0]);
        sl_jinja_write_str(&out, GIVEN(a[1]) ? sl_jinja_dotted(j, item, a[1], sl_jinja_missing) : item);
    }
    return sl_jinja_text_value(&out);
}

/* ---------------------------------------------------------------- order */

/* The keys that sort() orders by: for "a,b" a list of attributes, as Jinja has it. */
static jinja_value sort_key(jinja *j, jinja_value item, jinja_value attribute, bool sensitive) {
    jinja_value key = sl_jinja_list_new(j, 1);
    const char *comma, *at = NULL, *end = NULL;
    if (jinja_is_str(attribute)) {
        at = attribute.as.string->data;
        end = at + attribute.as.string->length;
    }
    if (!at || !memchr(at, ',', (size_t)(end - at))) {
        sl_jinja_list_push(j, key.as.list,
                           ignore_case(j, sl_jinja_dotted(j, item, attribute, sl_jinja_missing), sensitive));
        return key;
    }
    for (;; at = comma + 1) {
        comma = memchr(at, ',', (size_t)(end - at));
        jinja_value path = sl_jinja_str(j, at, (size_t)((comma ? comma : end) - at));
        sl_jinja_list_push(j, key.as.list, ignore_case(j, sl_jinja_dotted(j, item, path, sl_jinja_missing), sensitive));
        if (!comma) return key;
    }
}

static jinja_value filter_sort(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    sl_jinja_bind(j, "sort", args, (const char *const[]){"reverse", "case_sensitive", "attribute"}, 3, 0, a);
    jinja_value list = sl_jinja_collect(j, v);
    size_t n = list.as.list->length;
    jinja_value *keys = sl_jinja_array(j, n, sizeof *keys);
    for (size_t i = 0; i < n; i++) keys[i] = sort_key(j, list.as.list->items[i], a[2], flag(j, a[1]));
    sl_jinja_sort(j, list.as.list->items, keys, n, flag(j, a[0]));
    return list;
}

static jinja_value filter_dictsort(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    sl_jinja_bind(j, "dictsort", args, (const char *const[]){"case_sensitive", "by", "reverse"}, 3, 0, a);
    bool by_value = sl_jinja_string_is(a[1], "value");
    if (a[1].type != JINJA_MISSING && !by_value && !sl_jinja_string_is(a[1], "key"))
        sl_jinja_fail(j, "FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (v.type != JINJA_DICT)
        sl_jinja_fail(j, "AttributeError", "'%s' object has no attribute 'items'", sl_jinja_type_name(v));
    jinja_dict *dict = v.as.dict;
    jinja_value list = sl_jinja_list_new(j, dict->length), *keys = sl_jinja_array(j, dict->length, sizeof *keys);
    for (size_t i = 0; i < dict->length; i++) {
        jinja_value pair[2] = {dict->keys[i], dict->values[i]};
        sl_jinja_list_push(j, list.as.list, sl_jinja_tuple(j, 2, pair));
        keys[i] = ignore_case(j, pair[by_value], flag(j, a[0]));
    }
    sl_jinja_sort(j, list.as.list->items, keys, dict->length, flag(j, a[2]));
    return list;
}

static jinja_value extreme(jinja *j, jinja_value v, const jinja_args *args, const char *name, bool largest) {
    jinja_value a[2], item, best = sl_jinja_missing, best_key = sl_jinja_missing;
    sl_jinja_bind(j, name, args, (const char *const[]){"case_sensitive", "attribute"}, 2, 0, a);
    jinja_iterator *it = sl_jinja_iterate(j, v);
    while (sl_jinja_next(j, it, &item)) {
        jinja_value key = ignore_case(j, sl_jinja_dotted(j, item, a[1], sl_jinja_missing), flag(j, a[0]));
        if (best.type == JINJA_MISSING || sl_jinja_order(j, key, best_key, largest ? ">" : "<") == (largest ? 1 : -1)) {
            best = item;
            best_key = key;
        }
    }
    return best.type == JINJA_MISSING ? sl_jinja_undefined_hint(j, "No aggregated item, sequence was empty.") : best;
}
static jinja_value filter_min(jinja *j, jinja_value v, const jinja_args *args) {
    return extreme(j, v, args, "min", false);
}
static jinja_value filter_max(jinja *j, jinja_value v, const jinja_args *args) {
    return extreme(j, v, args, "max", true);
}

static jinja_value filter_groupby(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[3];
    sl_jinja_bind(j, "groupby", args, (const char *const[]){"attribute", "default", "case_sensitive"}, 3, 1, a);
    bool sensitive = flag(j, a[2]);
    jinja_value list = sl_jinja_collect(j, v), groups = sl_jinja_list_new(j, 0);
    size_t n = list.as.list->length;
    jinja_value *items = list.as.list->items, *keys = sl_jinja_array(j, n, sizeof *keys);
    for (size_t i = 0; i < n; i++) keys[i] = ignore_case(j, sl_jinja_dotted(j, items[i], a[0], a[1]), sensitive);
    sl_jinja_sort(j, items, keys, n, false);
    for (size_t i = 0; i < n;) {
        jinja_value members = sl_jinja_list_new(j, 0), first = keys[i];
        jinja_value group[2] = {sensitive ? first : sl_jinja_dotted(j, items[i], a[0], a[1]), members};
        for (; i < n && sl_jinja_equal(j, first, keys[i]); i++) sl_jinja_list_push(j, members.as.list, items[i]);
        if (!members.as.list->length) sl_jinja_list_push(j, members.as.list, items[i++]); /* NaN equals nothing */
        jinja_value tuple = sl_jinja_tuple(j, 2, group);
        tuple.group = true;
        sl_jinja_list_push(j, groups.as.list, tuple);
    }
    return groups;
}

static jinja_value filter_sum(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2], item;
    sl_jinja_bind(j, "sum", args, (const char *const[]){"attribute", "start"}, 2, 0, a);
    jinja_value total = a[1].type == JINJA_MISSING ? sl_jinja_int(0) : a[1];
    if (jinja_is_str(total)) sl_jinja_fail(j, "TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
    jinja_iterator *it = sl_jinja_iterate(j, v);
    while (sl_jinja_next(j, it, &item))
        total = sl_jinja_binary(j, JINJA_ADD, total, sl_jinja_dotted(j, item, a[0], sl_jinja_missing));
    return total;
}

/* ---------------------------------------------------------------- generators */

static bool next_unique(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (!it->started) {
        it->started = true;
        it->inner = sl_jinja_iterate(j, it->source);
        it->state = sl_jinja_dict_new(j);
    }
    while (sl_jinja_next(j, it->inner, item)) {
        jinja_value key = ignore_case(j, sl_jinja_dotted(j, *item, it->b, sl_jinja_missing), flag(j, it->a));
        if (sl_jinja_dict_get(j, it->state.as.dict, key)) continue;
        sl_jinja_dict_set(j, it->state.as.dict, key, sl_jinja_none);
        return true;
    }
    return false;
}

static jinja_value filter_unique(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    jinja_iterator *it;
    sl_jinja_bind(j, "unique", args, (const char *const[]){"case_sensitive", "attribute"}, 2, 0, a);
    jinja_value generator = sl_jinja_generator(j, "generator", next_unique, &it);
    it->source = v;
    it->a = a[0];
    it->b = a[1];
    return generator;
}

static bool next_item_pair(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (it->source.type == JINJA_UNDEFINED) return false;
    if (it->source.type != JINJA_DICT) sl_jinja_fail(j, "TypeError", "Can only get item pairs from a mapping.");
    const jinja_dict *dict = it->source.as.dict;
    if (it->position >= dict->length) return false;
    jinja_value pair[2] = {dict->keys[it->position], dict->values[it->position]};
    it->position++;
    *item = sl_jinja_tuple(j, 2, pair);
    return true;
}

static jinja_value filter_items(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_iterator *it;
    no_arguments(j, "items", args);
    jinja_value generator = sl_jinja_generator(j, "generator", next_item_pair, &it);
    it->source = v;
    return generator;
}

static bool next_batch(jinja *j, jinja_iterator *it, jinja_value *item) {
    jinja_value list = sl_jinja_list_new(j, 0), each;
    if (!it->started) {
        it->started = true;
        it->inner = sl_jinja_iterate(j, it->source);
    }
    if (it->state.type == JINJA_LIST) list = it->state; /* what was read too far */
    it->state = sl_jinja_missing;
    while (sl_jinja_next(j, it->inner, &each)) {
        if ((int64_t)list.as.list->length == it->n) {
            it->state = sl_jinja_list_new(j, 1);
            sl_jinja_list_push(j, it->state.as.list, each);
            *item = list;
            return true;
        }
        sl_jinja_list_push(j, list.as.list, each);
    }
    if (!list.as.list->length) return false;
    if (GIVEN(it->a) && (int64_t)list.as.list->length < it->n) {
        if (it->n > (int64_t)(j->arena->limit / sizeof each)) sl_jinja_fail_limit(j, "memory, bytes", j->arena->limit);
        while ((int64_t)list.as.list->length < it->n) sl_jinja_list_push(j, list.as.list, it->a);
    }
    *item = list;
    return true;
}

static jinja_value filter_batch(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    jinja_iterator *it;
    sl_jinja_bind(j, "batch", args, (const char *const[]){"linecount", "fill_with"}, 2, 1, a);
    jinja_value generator = sl_jinja_generator(j, "generator", next_batch, &it);
    it->source = v;
    it->a = a[1];
    it->n = jinja_is_int(a[0]) ? sl_jinja_index(j, a[0]) : -1;
    return generator;
}

static bool next_slice(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (!it->started) {
        it->started = true;
        it->source = sl_jinja_collect(j, it->source);
        it->n = sl_jinja_index(j, it->a);
        if (!it->n) sl_jinja_fail(j, "ZeroDivisionError", "integer division or modulo by zero");
    }
    int64_t number = (int64_t)it->position++, length = (int64_t)it->source.as.list->length;
    if (number >= it->n) return false;
    int64_t each = length / it->n, extra = length % it->n;
    int64_t start = number * each + (number < extra ? number : extra), end = start + each + (number < extra);
    *item = sl_jinja_get_slice(j, it->source, sl_jinja_int(start), sl_jinja_int(end), sl_jinja_none);
    if (GIVEN(it->b) && number >= extra) sl_jinja_list_push(j, item->as.list, it->b);
    return true;
}

static jinja_value filter_slice(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_value a[2];
    jinja_iterator *it;
    sl_jinja_bind(j, "slice", args, (const char *const[]){"slices", "fill_with"}, 2, 1, a);
    jinja_value generator = sl_jinja_generator(j, "generator", next_slice, &it);
    it->source = v;
    it->a = a[0];
    it->b = a[1];
    return generator;
}

/* ---------------------------------------------------------------- map, select, reject */

/* `if value:` stands before the loop in all of these, so that none and undefined give nothing. */
static bool start_over(jinja *j, jinja_iterator *it) {
    if (it->started) return it->inner != NULL;
    it->started = true;
    if (!sl_jinja_truth(j, it->source)) return false;
    it->inner = sl_jinja_iterate(j, it->source);
    return true;
}

static bool keyword(const jinja_args *args, const char *name, jinja_value *out) {
    for (size_t i = 0; i < args->named; i++) {
        if (!sl_jinja_string_is(args->names[i], name)) continue;
        *out = args->values[i];
        return true;
    }
    return false;
}

static noreturn void fail_unknown(jinja *j, const char *what, jinja_value name) {
    if (name.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, name);
    jinja_text text = {.j = j};
    sl_jinja_write_repr(&text, name);
    sl_jinja_text_putc(&text, 0);
    sl_jinja_fail(j, "TemplateRuntimeError", "No %s named %s.", what, text.data);
}

static jinja_args rest_of(const jinja_args *args, size_t from) {
    jinja_args rest = *args;
    if (rest.items) rest.items += from; /* none at all: NULL */
    rest.length -= from;
    return rest;
}

static bool next_mapped(jinja *j, jinja_iterator *it, jinja_value *item) {
    bool first = !it->started;
    if (!start_over(j, it)) return false;
    bool by_attribute = !it->args.length && keyword(&it->args, "attribute", &it->a);
    if (first && by_attribute) {
        for (size_t i = 0; i < it->args.named; i++)
            if (!sl_jinja_string_is(it->args.names[i], "attribute") &&
                !sl_jinja_string_is(it->args.names[i], "default"))
                sl_jinja_fail(j, "FilterArgumentError", "Unexpected keyword argument of map()");
        keyword(&it->args, "default", &it->b);
    }
    if (!by_attribute && !it->args.length) sl_jinja_fail(j, "FilterArgumentError", "map requires a filter argument");
    if (!sl_jinja_next(j, it->inner, item)) return false;
    if (by_attribute) {
        *item = sl_jinja_dotted(j, *item, it->a, it->b);
        return true;
    }
    jinja_value name = it->args.items[0];
    const jinja_filter *filter =
        jinja_is_str(name) ? sl_jinja_find_filter(name.as.string->data, name.as.string->length) : NULL;
    if (!filter) fail_unknown(j, "filter", name);
    jinja_args rest = rest_of(&it->args, 1);
    *item = filter->call(j, *item, &rest);
    return true;
}

static jinja_value filter_map(jinja *j, jinja_value v, const jinja_args *args) {
    jinja_iterator *it;
    jinja_value generator = sl_jinja_generator(j, "generator", next_mapped, &it);
    it->source = v;
    it->args = *args;
    return generator;
}

enum { REJECT = 1, BY_ATTRIBUTE = 2 };

static bool next_selected(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (!start_over(j, it)) return false;
    size_t first = it->n & BY_ATTRIBUTE ? 1 : 0;
    const jinja_test *test = NULL;
    if (it->args.length < first) sl_jinja_fail(j, "FilterArgumentError", "Missing parameter for attribute name");
    jinja_args rest = rest_of(&it->args, it->args.length > first ? first + 1 : it->args.length);
    while (sl_jinja_next(j, it->inner, item)) {
        jinja_value subject = first ? sl_jinja_dotted(j, *item, it->args.items[0], sl_jinja_missing) : *item;
        bool passed;
        if (it->args.length > first) {
            jinja_value name = it->args.items[first];
            if (!test && jinja_is_str(name)) test = sl_jinja_find_test(name.as.string->data, name.as.string->length);
            if (!test) fail_unknown(j, "test", name);
            passed = test->call(j, subject, &rest);
        } else {
            passed = sl_jinja_truth(j, subject);
        }
        if (passed != !!(it->n & REJECT)) return true;
    }
    return false;
}

static jinja_value selector(jinja *j, jinja_value v, const jinja_args *args, int how) {
    jinja_iterator *it;
    jinja_value generator = sl_jinja_generator(j, "generator", next_selected, &it);
    it->source = v;
    it->args = *args;
    it->n = how;
    return generator;
}
static jinja_value filter_select(jinja *j, jinja_value v, const jinja_args *args) { return selector(j, v, args, 0); }
static jinja_value filter_reject(jinja *j, jinja_value v, const jinja_args *args) {
    return selector(j, v, args, REJECT);
}
static jinja_value filter_selectattr(jinja *j, jinja_value v, const jinja_args *args) {
    return selector(j, v, args, BY_ATTRIBUTE);
}
static jinja_value filter_rejectattr(jinja *j, jinja_value v, const jinja_args *args) {
    return selector(j, v, args, BY_ATTRIBUTE | REJECT);
}

const jinja_filter sl_jinja_sequence_filters[] = {{"list", filter_list},
                                                  {"join", filter_join},
                                                  {"first", filter_first},
                                                  {"last", filter_last},
                                                  {"map", filter_map},
                                                  {"select", filter_select},
                                                  {"reject", filter_reject},
                                                  {"selectattr", filter_selectattr},
                                                  {"rejectattr", filter_rejectattr},
                                                  {"items", filter_items},
                                                  {"sort", filter_sort},
                                                  {"reverse", filter_reverse},
                                                  {"dictsort", filter_dictsort},
                                                  {"unique", filter_unique},
                                                  {"min", filter_min},
                                                  {"max", filter_max},
                                                  {"sum", filter_sum},
                                                  {"groupby", filter_groupby},
                                                  {"batch", filter_batch},
                                                  {"slice", filter_slice},
                                                  {NULL, NULL}};
