/* object.name, object[key] and slices, with the sandbox's rules: names that begin with an underscore and methods that
 * change lists or dicts give an undefined value that fails when it is used. */
#include "text/jinja_int.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- positions in strings */

size_t sl_jinja_char_offset(const jinja_string *s, size_t index) {
    if (s->chars == s->length) return index < s->length ? index : s->length;
    size_t at = 0;
    for (; at < s->length; at++) {
        if (((unsigned char)s->data[at] & 0xC0) == 0x80) continue;
        if (!index--) break;
    }
    return at;
}

jinja_value sl_jinja_substring(jinja *j, const jinja_string *s, size_t from, size_t to) {
    if (to <= from) return sl_jinja_str(j, "", 0);
    size_t start = sl_jinja_char_offset(s, from);
    jinja_string rest = {s->data + start, s->length - start, s->chars - from};
    return sl_jinja_str(j, rest.data, sl_jinja_char_offset(&rest, to - from));
}

/* ---------------------------------------------------------------- methods of builtin types */

static jinja_value view_of(jinja *j, jinja_value dict, int what) {
    jinja_view *view = sl_jinja_alloc(j, sizeof *view);
    view->dict = dict.as.dict;
    view->what = what;
    return (jinja_value){.type = JINJA_VIEW, .as.view = view};
}

static jinja_value dict_keys(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "keys", args, NULL, 0, 0, NULL);
    return view_of(j, self, JINJA_KEYS);
}

static jinja_value dict_values(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "values", args, NULL, 0, 0, NULL);
    return view_of(j, self, JINJA_VALUES);
}

static jinja_value dict_items(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "items", args, NULL, 0, 0, NULL);
    return view_of(j, self, JINJA_ITEMS);
}

static jinja_value view_isdisjoint(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value other, item;
    sl_jinja_bind(j, "isdisjoint", args, (const char *const[]){"other"}, 1, 1, &other);
    jinja_iterator *it = sl_jinja_iterate(j, other);
    while (sl_jinja_next(j, it, &item))
        if (sl_jinja_contains(j, item, self)) return sl_jinja_false;
    return sl_jinja_true;
}

static jinja_value dict_get(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value given[2];
    if (args->named) sl_jinja_fail(j, "TypeError", "dict.get() takes no keyword arguments");
    sl_jinja_bind(j, "get", args, (const char *const[]){"key", "default"}, 2, 1, given);
    const jinja_value *found = sl_jinja_dict_get(j, self.as.dict, given[0]);
    return found ? *found : given[1].type == JINJA_MISSING ? sl_jinja_none : given[1];
}

static jinja_value dict_copy(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "copy", args, NULL, 0, 0, NULL);
    jinja_value copy = sl_jinja_dict_new(j);
    for (size_t i = 0; i < self.as.dict->length; i++)
        sl_jinja_dict_set(j, copy.as.dict, self.as.dict->keys[i], self.as.dict->values[i]);
    return copy;
}

static jinja_value dict_fromkeys(jinja *j, jinja_value self, const jinja_args *args) {
    (void)self;
    jinja_value given[2], dict = sl_jinja_dict_new(j), key;
    sl_jinja_bind(j, "fromkeys", args, (const char *const[]){"iterable", "value"}, 2, 1, given);
    jinja_iterator *it = sl_jinja_iterate(j, given[0]);
    while (sl_jinja_next(j, it, &key))
        sl_jinja_dict_set(j, dict.as.dict, key, given[1].type == JINJA_MISSING ? sl_jinja_none : given[1]);
    return dict;
}

/* Python's slice.indices() for one bound. */
static int64_t clamp(int64_t index, int64_t length, int64_t low, int64_t high) {
    if (index < 0) index = index < -length ? low : index + length;
    return index < low ? low : index > high ? high : index;
}

static jinja_value list_index(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value given[3];
    sl_jinja_bind(j, "index", args, (const char *const[]){"value", "start", "stop"}, 3, 1, given);
    int64_t length = (int64_t)self.as.list->length;
    int64_t start = given[1].type == JINJA_MISSING ? 0 : clamp(sl_jinja_index(j, given[1]), length, 0, length);
    int64_t stop = given[2].type == JINJA_MISSING ? length : clamp(sl_jinja_index(j, given[2]), length, 0, length);
    sl_jinja_charge(j, self.as.list->length / 4);
    for (int64_t i = start; i < stop; i++)
        if (sl_jinja_equal(j, self.as.list->items[i], given[0])) return sl_jinja_int(i);
    jinja_text text = {.j = j};
    sl_jinja_write_repr(&text, given[0]);
    sl_jinja_text_putc(&text, 0);
    sl_jinja_fail(j, "ValueError", "%s is not in %s", text.data, sl_jinja_type_name(self));
}

static jinja_value list_count(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value wanted;
    int64_t n = 0;
    sl_jinja_bind(j, "count", args, (const char *const[]){"value"}, 1, 1, &wanted);
    sl_jinja_charge(j, self.as.list->length / 4);
    for (size_t i = 0; i < self.as.list->length; i++) n += sl_jinja_equal(j, self.as.list->items[i], wanted);
    return sl_jinja_int(n);
}

static jinja_value list_copy(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "copy", args, NULL, 0, 0, NULL);
    return sl_jinja_collect(j, self);
}

static jinja_value range_index(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value list = sl_jinja_collect(j, self);
    return list_index(j, list, args);
}

static jinja_value range_count(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value wanted;
    sl_jinja_bind(j, "count", args, (const char *const[]){"value"}, 1, 1, &wanted);
    return sl_jinja_int(sl_jinja_contains(j, wanted, self));
}

static jinja_value float_is_integer(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "is_integer", args, NULL, 0, 0, NULL);
    return sl_jinja_bool(isfinite(self.as.number) && self.as.number == floor(self.as.number));
}

static jinja_value int_bit_length(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "bit_length", args, NULL, 0, 0, NULL);
    jinja_text bits = {.j = j};
    sl_jinja_big_digits(&bits, self, 2);
    return sl_jinja_int(bits.length == 1 && bits.data[0] == '0' ? 0 : (int64_t)bits.length);
}

static jinja_value number_conjugate(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "conjugate", args, NULL, 0, 0, NULL);
    return self.type == JINJA_FLOAT ? self : sl_jinja_negate(j, self, true);
}

static jinja_value number_ratio(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "as_integer_ratio", args, NULL, 0, 0, NULL);
    jinja_value ratio[2] = {self, sl_jinja_int(1)};
    if (self.type == JINJA_FLOAT) {
        int exponent;
        if (!isfinite(self.as.number)) sl_jinja_float_to_int(j, self.as.number);
        double fraction = frexp(self.as.number, &exponent);
        for (; fraction != floor(fraction); exponent--) fraction *= 2;
        ratio[0] = sl_jinja_float_to_int(j, fraction);
        ratio[exponent < 0] = sl_jinja_arithmetic(
            j, JINJA_MUL, exponent < 0 ? sl_jinja_int(1) : ratio[0],
            sl_jinja_arithmetic(j, JINJA_POW, sl_jinja_int(2), sl_jinja_int(exponent < 0 ? -exponent : exponent)));
    } else {
        ratio[0] = sl_jinja_negate(j, self, true);
    }
    return sl_jinja_tuple(j, 2, ratio);
}

static jinja_value bytes_decode(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_value given[2];
    sl_jinja_bind(j, "decode", args, (const char *const[]){"encoding", "errors"}, 2, 0, given);
    return sl_jinja_str(j, self.as.string->data, self.as.string->length);
}

static jinja_value cycler_next(jinja *j, jinja_value self, const jinja_args *args) {
    jinja_cycler *cycler = self.as.cycler;
    sl_jinja_bind(j, "next", args, NULL, 0, 0, NULL);
    jinja_value item = cycler->items->items[cycler->position];
    cycler->position = (cycler->position + 1) % cycler->items->length;
    return item;
}

static jinja_value cycler_reset(jinja *j, jinja_value self, const jinja_args *args) {
    sl_jinja_bind(j, "reset", args, NULL, 0, 0, NULL);
    self.as.cycler->position = 0;
    return sl_jinja_none;
}

/* A NULL function marks a method that exists and is forbidden. */
static const jinja_method dict_methods[] = {{"keys", dict_keys},  {"values", dict_values}, {"items", dict_items},
                                            {"get", dict_get},    {"copy", dict_copy},     {"fromkeys", dict_fromkeys},
                                            {"clear", NULL},      {"pop", NULL},           {"popitem", NULL},
                                            {"setdefault", NULL}, {"update", NULL},        {NULL, NULL}};
static const jinja_method view_methods[] = {{"isdisjoint", view_isdisjoint}, {NULL, NULL}};
static const jinja_method list_methods[] = {{"index", list_index}, {"count", list_count}, {"copy", list_copy},
                                            {"append", NULL},      {"clear", NULL},       {"pop", NULL},
                                            {"reverse", NULL},     {"insert", NULL},      {"sort", NULL},
                                            {"extend", NULL},      {"remove", NULL},      {NULL, NULL}};
static const jinja_method tuple_methods[] = {{"index", list_index}, {"count", list_count}, {NULL, NULL}};
static const jinja_method range_methods[] = {{"index", range_index}, {"count", range_count}, {NULL, NULL}};
static const jinja_method float_methods[] = {{"is_integer", float_is_integer},
                                             {"conjugate", number_conjugate},
                                             {"as_integer_ratio", number_ratio},
                                             {NULL, NULL}};
static const jinja_method int_methods[] = {
    {"bit_length", int_bit_length}, {"conjugate", number_conjugate}, {"as_integer_ratio", number_ratio}, {NULL, NULL}};
static const jinja_method bytes_methods[] = {{"decode", bytes_decode}, {NULL, NULL}};
static const jinja_method cycler_methods[] = {{"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};

static const jinja_method *methods_of(jinja_value v) {
    switch ((jinja_type)v.type) {
    case JINJA_DICT: return dict_methods;
    case JINJA_VIEW: return v.as.view->what == JINJA_VALUES ? NULL : view_methods;
    case JINJA_LIST: return list_methods;
    case JINJA_TUPLE: return tuple_methods;
    case JINJA_RANGE: return range_methods;
    case JINJA_STRING: return sl_jinja_string_methods;
    case JINJA_FLOAT: return float_methods;
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_BIG: return int_methods;
    case JINJA_BYTES: return bytes_methods;
    case JINJA_CYCLER: return cycler_methods;
    default: return NULL;
    }
}

static jinja_value find_method(jinja *j, jinja_value object, jinja_value name, const jinja_method *methods) {
    for (; methods && methods->name; methods++) {
        if (!sl_jinja_string_is(name, methods->name)) continue;
        if (!methods->call) return sl_jinja_undefined_unsafe(j, object, methods->name);
        return sl_jinja_bound(j, methods->name, methods->call, object);
    }
    return sl_jinja_missing;
}

/* ---------------------------------------------------------------- data attributes */

static jinja_value number_attribute(jinja *j, jinja_value v, jinja_value name) {
    bool is_float = v.type == JINJA_FLOAT;
    if (sl_jinja_string_is(name, "real")) return is_float ? v : sl_jinja_negate(j, v, true);
    if (sl_jinja_string_is(name, "imag")) return is_float ? sl_jinja_float(0) : sl_jinja_int(0);
    if (!is_float && sl_jinja_string_is(name, "numerator")) return sl_jinja_negate(j, v, true);
    if (!is_float && sl_jinja_string_is(name, "denominator")) return sl_jinja_int(1);
    return sl_jinja_missing;
}

static jinja_value macro_attribute(jinja *j, jinja_value v, jinja_value name) {
    const jinja_node *node = v.as.macro->node;
    if (sl_jinja_string_is(name, "name"))
        return node->name >= 0 ? j->program->names[node->name] : sl_jinja_none;
    if (sl_jinja_string_is(name, "arguments")) {
        jinja_value arguments = sl_jinja_list_new(j, node->n_names);
        for (size_t i = 0; i < node->n_names; i++)
            sl_jinja_list_push(j, arguments.as.list, j->program->names[node->names[i]]);
        arguments.type = JINJA_TUPLE;
        return arguments;
    }
    if (sl_jinja_string_is(name, "caller")) return sl_jinja_bool(node->uses_caller);
    if (sl_jinja_string_is(name, "catch_kwargs")) return sl_jinja_bool(node->uses_kwargs);
    if (sl_jinja_string_is(name, "catch_varargs")) return sl_jinja_bool(node->uses_varargs);
    return sl_jinja_missing;
}

static jinja_value range_attribute(jinja_value v, jinja_value name) {
    if (sl_jinja_string_is(name, "start")) return sl_jinja_int(v.as.range->start);
    if (sl_jinja_string_is(name, "stop")) return sl_jinja_int(v.as.range->stop);
    if (sl_jinja_string_is(name, "step")) return sl_jinja_int(v.as.range->step);
    return sl_jinja_missing;
}

static jinja_value data_attribute(jinja *j, jinja_value v, jinja_value name) {
    switch ((jinja_type)v.type) {
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_BIG:
    case JINJA_FLOAT: return number_attribute(j, v, name);
    case JINJA_NAMESPACE: {
        const jinja_value *found = sl_jinja_dict_get(j, v.as.dict, name);
        return found ? *found : sl_jinja_missing;
    }
    case JINJA_LOOP: return sl_jinja_loop_attribute(j, v, name.as.string);
    case JINJA_MACRO: return macro_attribute(j, v, name);
    case JINJA_RANGE: return range_attribute(v, name);
    case JINJA_TEMPLATE: return sl_jinja_block_reference(j, name);
    case JINJA_CYCLER:
        if (sl_jinja_string_is(name, "current")) return v.as.cycler->items->items[v.as.cycler->position];
        if (sl_jinja_string_is(name, "pos")) return sl_jinja_int((int64_t)v.as.cycler->position);
        return sl_jinja_missing;
    case JINJA_TUPLE:
        if (v.group && sl_jinja_string_is(name, "grouper")) return v.as.list->items[0];
        if (v.group && sl_jinja_string_is(name, "list")) return v.as.list->items[1];
        return sl_jinja_missing;
    default: return sl_jinja_missing;
    }
}

/* The attributes that every Python object has; none may be reached. */
static bool is_object_attribute(jinja_value name) {
    static const char *const names[] = {"__class__",
                                        "__doc__",
                                        "__init__",
                                        "__new__",
                                        "__str__",
                                        "__repr__",
                                        "__eq__",
                                        "__ne__",
                                        "__lt__",
                                        "__le__",
                                        "__gt__",
                                        "__ge__",
                                        "__hash__",
                                        "__getattribute__",
                                        "__setattr__",
                                        "__delattr__",
                                        "__dir__",
                                        "__format__",
                                        "__reduce__",
                                        "__reduce_ex__",
                                        "__sizeof__",
                                        "__subclasshook__",
                                        "__init_subclass__",
                                        "__getstate__"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sl_jinja_string_is(name, names[i])) return true;
    return false;
}

/* The special methods that a type adds to those. */
static bool is_type_attribute(jinja_value v, jinja_value name) {
    static const char *const numbers[] = {
        "__add__",      "__radd__",    "__sub__",    "__rsub__",  "__mul__",   "__rmul__", "__mod__",        "__rmod__",
        "__floordiv__", "__truediv__", "__pow__",    "__neg__",   "__pos__",   "__abs__",  "__bool__",       "__int__",
        "__float__",    "__round__",   "__divmod__", "__trunc__", "__floor__", "__ceil__", "__getnewargs__", NULL};
    static const char *const containers[] = {"__len__", "__iter__", "__contains__", "__getitem__", NULL};
    static const char *const sequences[] = {"__add__", "__mul__", "__rmul__", "__getnewargs__", NULL};
    const char *const *sets[2] = {NULL, NULL};
    if (jinja_is_number(v)) sets[0] = numbers;
    else if (v.type == JINJA_STRING || jinja_is_sequence(v)) sets[0] = containers, sets[1] = sequences;
    else if (sl_jinja_has_length(v)) sets[0] = containers;
    for (int s = 0; s < 2; s++)
        for (const char *const *p = sets[s]; p && *p; p++)
            if (sl_jinja_string_is(name, *p)) return true;
    return false;
}

/* Python's getattr under the sandbox. */
jinja_value sl_jinja_python_attribute(jinja *j, jinja_value object, const jinja_string *text) {
    jinja_value name = {.type = JINJA_STRING, .as.string = text};
    if (object.type == JINJA_UNDEFINED) {
        bool dunder =
            text->length >= 4 && !memcmp(text->data, "__", 2) && !memcmp(text->data + text->length - 2, "__", 2);
        if (!dunder) sl_jinja_fail_undefined(j, object);
        return is_object_attribute(name) || is_type_attribute(sl_jinja_int(0), name)
                   ? sl_jinja_undefined_unsafe(j, object, "__")
                   : sl_jinja_missing;
    }
    jinja_value found = data_attribute(j, object, name);
    if (found.type == JINJA_MISSING) found = find_method(j, object, name, methods_of(object));
    if (found.type == JINJA_MISSING && object.type == JINJA_STRING)
        found = find_method(j, object, name, sl_jinja_string_case_methods);
    if (found.type != JINJA_MISSING || object.type == JINJA_NAMESPACE) return found;
    if (!is_object_attribute(name) && !is_type_attribute(object, name)) return sl_jinja_missing;
    jinja_text copy = {.j = j};
    sl_jinja_text_append(&copy, text->data, text->length);
    sl_jinja_text_putc(&copy, 0);
    return sl_jinja_undefined_unsafe(j, object, copy.data);
}

/* ---------------------------------------------------------------- items */

static jinja_value sequence_item(jinja *j, jinja_value object, jinja_value key) {
    int64_t length = sl_jinja_length(j, object), index = sl_jinja_index(j, key);
    if (index < 0) index += length;
    if (index < 0 || index >= length) return sl_jinja_missing;
    switch ((jinja_type)object.type) {
    case JINJA_STRING: {
        jinja_value item = sl_jinja_substring(j, object.as.string, (size_t)index, (size_t)index + 1);
        item.markup = object.markup;
        return item;
    }
    case JINJA_BYTES: return sl_jinja_int((unsigned char)object.as.string->data[index]);
    case JINJA_RANGE: return sl_jinja_int(object.as.range->start + index * object.as.range->step);
    default: return object.as.list->items[index];
    }
}

/* object[key]; MISSING where Python raises LookupError or TypeError. */
static jinja_value item(jinja *j, jinja_value object, jinja_value key) {
    switch ((jinja_type)object.type) {
    case JINJA_UNDEFINED: sl_jinja_fail_undefined(j, object);
    case JINJA_DICT: {
        if (key.type == JINJA_LIST || key.type == JINJA_DICT) return sl_jinja_missing; /* unhashable */
        const jinja_value *found = sl_jinja_dict_get(j, object.as.dict, key);
        return found ? *found : sl_jinja_missing;
    }
    case JINJA_STRING:
    case JINJA_BYTES:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE: return jinja_is_int(key) ? sequence_item(j, object, key) : sl_jinja_missing;
    default: return sl_jinja_missing;
    }
}

jinja_value sl_jinja_get_item(jinja *j, jinja_value object, jinja_value key) {
    jinja_value found = item(j, object, key);
    if (found.type != JINJA_MISSING) return found;
    if (jinja_is_str(key)) found = sl_jinja_python_attribute(j, object, key.as.string);
    return found.type == JINJA_MISSING ? sl_jinja_undefined_attribute(j, object, key) : found;
}

jinja_value sl_jinja_get_attribute(jinja *j, jinja_value object, jinja_value name) {
    jinja_value found = sl_jinja_python_attribute(j, object, name.as.string);
    if (found.type == JINJA_MISSING) found = item(j, object, name);
    return found.type == JINJA_MISSING ? sl_jinja_undefined_attribute(j, object, name) : found;
}

/* ---------------------------------------------------------------- slices */

typedef struct bounds {
    int64_t start, step, count;
} bounds;

static int64_t bound(jinja *j, jinja_value v, int64_t length, int64_t missing, int64_t low, int64_t high) {
    return v.type == JINJA_NONE ? missing : clamp(sl_jinja_index(j, v), length, low, high);
}

static bounds slice_bounds(jinja *j, int64_t length, jinja_value start, jinja_value stop, jinja_value step) {
    int64_t by = step.type == JINJA_NONE ? 1 : sl_jinja_index(j, step);
    if (!by) sl_jinja_fail(j, "ValueError", "slice step cannot be zero");
    if (by == INT64_MIN) by = -INT64_MAX;
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? length - 1 : length;
    int64_t from = bound(j, start, length, by < 0 ? high : low, low, high);
    int64_t to = bound(j, stop, length, by < 0 ? low : high, low, high);
    bounds b = {from, by, 0};
    if (by > 0 && from < to) b.count = (to - from - 1) / by + 1;
    if (by < 0 && from > to) b.count = (from - to - 1) / -by + 1;
    return b;
}

static jinja_value slice_string(jinja *j, jinja_value v, bounds b) {
    const jinja_string *s = v.as.string;
    if (b.step == 1) return sl_jinja_substring(j, s, (size_t)b.start, (size_t)(b.start + b.count));
    jinja_text text = {.j = j};
    sl_jinja_charge(j, (uint64_t)s->chars / 16);
    size_t *offsets = sl_jinja_array(j, s->chars + 1, sizeof *offsets), n = 0;
    for (size_t at = 0; at < s->length; at++)
        if (((unsigned char)s->data[at] & 0xC0) != 0x80) offsets[n++] = at;
    offsets[n] = s->length;
    for (int64_t i = 0; i < b.count; i++) {
        size_t at = (size_t)(b.start + i * b.step);
        sl_jinja_text_append(&text, s->data + offsets[at], offsets[at + 1] - offsets[at]);
    }
    return sl_jinja_text_value(&text);
}

static bool is_sliceable(jinja_value v) {
    return v.type == JINJA_STRING || v.type == JINJA_RANGE || v.type == JINJA_BYTES || jinja_is_sequence(v);
}

static bool is_slice_index(jinja_value v) { return v.type == JINJA_NONE || jinja_is_int(v); }

bool sl_jinja_can_slice(jinja_value object, jinja_value start, jinja_value stop, jinja_value step) {
    return is_sliceable(object) && is_slice_index(start) && is_slice_index(stop) && is_slice_index(step);
}

jinja_value sl_jinja_get_slice(jinja *j, jinja_value object, jinja_value start, jinja_value stop, jinja_value step) {
    if (object.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, object);
    jinja_value indexes[3] = {start, stop, step};
    if (!is_sliceable(object))
        sl_jinja_fail(j, "TypeError", "'%s' object cannot be sliced", sl_jinja_type_name(object));
    for (int i = 0; i < 3; i++)
        if (!is_slice_index(indexes[i]))
            sl_jinja_fail(j, "TypeError", "slice indices must be integers or None or have an __index__ method");
    bounds b = slice_bounds(j, sl_jinja_length(j, object), start, stop, step);
    if (object.type == JINJA_STRING) {
        jinja_value part = slice_string(j, object, b);
        part.markup = object.markup;
        return part;
    }
    if (object.type == JINJA_BYTES && b.step == 1) {
        jinja_value part = sl_jinja_str(j, object.as.string->data + b.start, (size_t)b.count);
        part.type = JINJA_BYTES;
        return part;
    }
    if (object.type == JINJA_RANGE) {
        jinja_range *range = sl_jinja_alloc(j, sizeof *range);
        const jinja_range *of = object.as.range;
        *range = (jinja_range){of->start + b.start * of->step, of->start + (b.start + b.count * b.step) * of->step,
                               of->step * b.step, b.count};
        return (jinja_value){.type = JINJA_RANGE, .as.range = range};
    }
    if (object.type == JINJA_BYTES) object = sl_jinja_collect(j, object);
    jinja_value part = sl_jinja_list_new(j, (size_t)b.count);
    sl_jinja_charge(j, (uint64_t)b.count / 16);
    for (int64_t i = 0; i < b.count; i++) part.as.list->items[i] = object.as.list->items[b.start + i * b.step];
    part.as.list->length = (size_t)b.count;
    part.type = object.type;
    return part;
}

/* ---------------------------------------------------------------- dotted paths of filters */

static bool all_digits(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return length > 0;
}

jinja_value sl_jinja_dotted(jinja *j, jinja_value object, jinja_value path, jinja_value fallback) {
    if (path.type == JINJA_NONE || path.type == JINJA_MISSING) return object;
    bool has_fallback = fallback.type != JINJA_MISSING && fallback.type != JINJA_NONE;
    if (!jinja_is_str(path)) {
        object = sl_jinja_get_item(j, object, path);
        return has_fallback && object.type == JINJA_UNDEFINED ? fallback : object;
    }
    const char *at = path.as.string->data, *end = at + path.as.string->length;
    for (;;) {
        const char *dot = at < end ? memchr(at, '.', (size_t)(end - at)) : NULL;
        size_t length = (size_t)((dot ? dot : end) - at);
        jinja_value key = all_digits(at, length) ? sl_jinja_parse_int(j, at, length, 10) : sl_jinja_str(j, at, length);
        object = sl_jinja_get_item(j, object, key);
        if (has_fallback && object.type == JINJA_UNDEFINED) object = fallback;
        if (!dot) return object;
        at = dot + 1;
    }
}
