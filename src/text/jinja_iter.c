/* Iteration: iterators are pulled, one item at a time, because Python's generators run only as far as somebody reads
 * them, and only once. */
#include "text/jinja.h"

#include <string.h>

bool sl_jinja_is_iterable(jinja_value v) { return sl_jinja_has_length(v) || v.type == JINJA_ITERATOR; }

static jinja_value pair(jinja *j, jinja_value key, jinja_value value) {
    jinja_value items[2] = {key, value};
    return sl_jinja_tuple(j, 2, items);
}

static bool next_list(jinja *j, jinja_iterator *it, jinja_value *item) {
    (void)j;
    const jinja_list *list = it->source.as.list;
    if (it->position >= list->length) return false;
    *item = list->items[it->position++];
    return true;
}

static bool next_char(jinja *j, jinja_iterator *it, jinja_value *item) {
    const jinja_string *s = it->source.as.string;
    if (it->position >= s->length) return false;
    size_t end = it->position + 1;
    while (end < s->length && ((unsigned char)s->data[end] & 0xC0) == 0x80) end++;
    *item = sl_jinja_str(j, s->data + it->position, end - it->position);
    it->position = end;
    return true;
}

static bool next_byte(jinja *j, jinja_iterator *it, jinja_value *item) {
    (void)j;
    const jinja_string *s = it->source.as.string;
    if (it->position >= s->length) return false;
    *item = sl_jinja_int((unsigned char)s->data[it->position++]);
    return true;
}

static bool next_entry(jinja *j, jinja_iterator *it, jinja_value *item) {
    const jinja_dict *dict = it->source.type == JINJA_DICT ? it->source.as.dict : it->source.as.view->dict;
    size_t i = it->position;
    if (i >= dict->length) return false;
    it->position++;
    if (it->source.type == JINJA_DICT || it->source.as.view->what == JINJA_KEYS ||
        it->source.as.view->what == JINJA_ITEM_SET)
        *item = dict->keys[i];
    else if (it->source.as.view->what == JINJA_VALUES) *item = dict->values[i];
    else *item = pair(j, dict->keys[i], dict->values[i]);
    return true;
}

static bool next_number(jinja *j, jinja_iterator *it, jinja_value *item) {
    (void)j;
    const jinja_range *range = it->source.as.range;
    if ((int64_t)it->position >= range->length) return false;
    *item = sl_jinja_int((int64_t)((uint64_t)range->start + it->position++ * (uint64_t)range->step));
    return true;
}

static bool next_nothing(jinja *j, jinja_iterator *it, jinja_value *item) {
    (void)j, (void)it, (void)item;
    return false;
}

/* for x in loop: the loop's own items, each with the loop beside it. */
static bool next_of_loop(jinja *j, jinja_iterator *it, jinja_value *item) {
    jinja_loop *loop = it->source.as.loop;
    jinja_value next;
    if (loop->after.type != JINJA_MISSING) {
        next = loop->after;
        loop->after = sl_jinja_missing;
    } else if (!sl_jinja_next(j, loop->iterator, &next)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = next;
    *item = pair(j, next, it->source);
    return true;
}

jinja_iterator *sl_jinja_iterate(jinja *j, jinja_value v) {
    static const struct {
        const char *type;
        bool (*next)(jinja *, jinja_iterator *, jinja_value *);
    } kinds[] = {[JINJA_UNDEFINED] = {"generator", next_nothing},  [JINJA_STRING] = {"str_iterator", next_char},
                 [JINJA_BYTES] = {"bytes_iterator", next_byte},    [JINJA_LIST] = {"list_iterator", next_list},
                 [JINJA_TUPLE] = {"tuple_iterator", next_list},    [JINJA_DICT] = {"dict_keyiterator", next_entry},
                 [JINJA_VIEW] = {"dict_itemiterator", next_entry}, [JINJA_RANGE] = {"range_iterator", next_number},
                 [JINJA_LOOP] = {"LoopContext", next_of_loop}};
    if (v.type == JINJA_ITERATOR) return v.as.iterator;
    if (!sl_jinja_is_iterable(v)) sl_jinja_fail(j, "TypeError", "'%s' object is not iterable", sl_jinja_type_name(v));
    jinja_iterator *it = sl_jinja_alloc(j, sizeof *it);
    it->type = kinds[v.type].type;
    it->next = kinds[v.type].next;
    it->source = v;
    return it;
}

bool sl_jinja_next(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (it->done) return false;
    sl_jinja_charge(j, 1);
    sl_jinja_enter(j);
    if (!it->next(j, it, item)) it->done = true;
    sl_jinja_leave(j);
    return !it->done;
}

jinja_value sl_jinja_generator(jinja *j, const char *type, bool (*next)(jinja *, jinja_iterator *, jinja_value *),
                               jinja_iterator **made) {
    jinja_iterator *it = sl_jinja_alloc(j, sizeof *it);
    it->type = type;
    it->next = next;
    *made = it;
    return (jinja_value){.type = JINJA_ITERATOR, .as.iterator = it};
}

jinja_value sl_jinja_collect(jinja *j, jinja_value v) {
    if (jinja_is_sequence(v)) {
        jinja_value copy = sl_jinja_list_new(j, v.as.list->length);
        sl_jinja_charge(j, v.as.list->length / 16);
        if (v.as.list->length)
            memcpy(copy.as.list->items, v.as.list->items, v.as.list->length * sizeof *v.as.list->items);
        copy.as.list->length = v.as.list->length;
        return copy;
    }
    jinja_value list = sl_jinja_list_new(j, 0), item;
    jinja_iterator *it = sl_jinja_iterate(j, v);
    while (sl_jinja_next(j, it, &item)) sl_jinja_list_push(j, list.as.list, item);
    return list;
}

static bool next_reversed(jinja *j, jinja_iterator *it, jinja_value *item) {
    if (!it->started) {
        it->started = true;
        it->source = sl_jinja_collect(j, it->source);
        it->position = it->source.as.list->length;
    }
    if (!it->position) return false;
    *item = it->source.as.list->items[--it->position];
    return true;
}

jinja_value sl_jinja_reversed(jinja *j, jinja_value v) {
    static const char *const types[] = {[JINJA_STRING] = "reversed",
                                        [JINJA_BYTES] = "reversed",
                                        [JINJA_LIST] = "list_reverseiterator",
                                        [JINJA_TUPLE] = "reversed",
                                        [JINJA_DICT] = "dict_reversekeyiterator",
                                        [JINJA_VIEW] = "dict_reverseitemiterator",
                                        [JINJA_RANGE] = "range_iterator"};
    if (v.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, v);
    if (v.type >= sizeof types / sizeof *types || !types[v.type] ||
        (v.type == JINJA_VIEW && v.as.view->what == JINJA_ITEM_SET))
        sl_jinja_fail(j, "TypeError", "'%s' object is not reversible", sl_jinja_type_name(v));
    jinja_iterator *it;
    jinja_value iterator = sl_jinja_generator(j, types[v.type], next_reversed, &it);
    it->source = v;
    return iterator;
}

/* ---------------------------------------------------------------- sorting */

/* Bottom-up merge sort: stable, and every comparison goes through Python's "<" so that mixed types fail. */
void sl_jinja_sort(jinja *j, jinja_value *items, jinja_value *keys, size_t n, bool reverse) {
    jinja_value *items2 = sl_jinja_array(j, n, sizeof *items2), *keys2 = sl_jinja_array(j, n, sizeof *keys2);
    jinja_value *from_items = items, *from_keys = keys, *to_items = items2, *to_keys = keys2;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = start + width < n ? start + width : n, end = middle + width < n ? middle + width : n;
            size_t a = start, b = middle;
            sl_jinja_charge(j, end - start);
            for (size_t at = start; at < end; at++) {
                /* the right one goes first only when it must: that keeps equal ones in order */
                bool right = a >= middle || (b < end && (reverse ? sl_jinja_less(j, from_keys[a], from_keys[b])
                                                                 : sl_jinja_less(j, from_keys[b], from_keys[a])));
                size_t pick = right ? b++ : a++;
                to_items[at] = from_items[pick];
                to_keys[at] = from_keys[pick];
            }
        }
        jinja_value *swap = from_items;
        from_items = to_items;
        to_items = swap;
        swap = from_keys;
        from_keys = to_keys;
        to_keys = swap;
    }
    if (from_items == items || !n) return;
    memcpy(items, from_items, n * sizeof *items);
    memcpy(keys, from_keys, n * sizeof *keys);
}
