/* The filter urlize: words that look like web or mail addresses become links, by the rules of Jinja 3.1
 * (jinja2.utils.urlize). What may follow a host is fixed (":", "/", "?", "#" or the end), so that its patterns are read
 * here in one pass each, without backtracking. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>
#include <strings.h>

/* Text that lies between two pointers. */
typedef struct span {
    const char *from, *to;
} span;

typedef struct linker {
    jinja_text out;
    jinja_value limit;       /* characters of a link's text; NONE: all */
    jinja_value rel, target; /* whole attributes, perhaps empty */
    const jinja_list *schemes;
} linker;

static bool is_one_of(char c, const char *set) { return c && strchr(set, c); }

static size_t length_of(span s) { return (size_t)(s.to - s.from); }

static bool starts_with(span s, const char *text) {
    size_t n = strlen(text);
    return length_of(s) >= n && !memcmp(s.from, text, n);
}
static bool ends_with(span s, const char *text) {
    size_t n = strlen(text);
    return length_of(s) >= n && !memcmp(s.to - n, text, n);
}
static bool starts_with_caseless(span s, const char *text) {
    size_t n = strlen(text);
    return length_of(s) >= n && !strncasecmp(s.from, text, n);
}

/* ---------------------------------------------------------------- what an address looks like */

/* The run of \w and the characters of `also` that begins at s.from: how many characters, and where it ends. */
static size_t word_run(span s, const char *also, const char **end) {
    size_t n = 0;
    while (s.from < s.to) {
        uint32_t code;
        size_t bytes = sl_utf8_decode(s.from, length_of(s), &code, NULL);
        if (!sl_jinja_is_word(code) && !(code && code < 0x80 && strchr(also, (int)code))) break;
        s.from += bytes;
        n++;
    }
    *end = s.from;
    return n;
}

static const char *last_of(span s, char c) {
    const char *p = s.to;
    while (p > s.from)
        if (*--p == c) return p;
    return NULL;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* (:\d{1,5})?([/?#]\S*)?$ */
static bool ends_host(span s) {
    if (s.from < s.to && *s.from == ':') {
        size_t n = 0;
        for (s.from++; s.from < s.to && is_digit(*s.from); s.from++) n++;
        if (n < 1 || n > 5) return false;
    }
    return s.from == s.to || is_one_of(*s.from, "/?#");
}

/* ([\w%-]{least,most}\.)* over the whole. */
static bool are_labels(span s, size_t least, size_t most) {
    while (s.from < s.to) {
        size_t n = word_run(s, "%-", &s.from);
        if (n < least || n > most || s.from == s.to || *s.from++ != '.') return false;
    }
    return true;
}

/* [a-z]{2,63} | xn--[\w%]{2,59} */
static bool is_top_domain(span s) {
    const char *p = s.from;
    while (p < s.to && ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z')) p++;
    if (p == s.to) return length_of(s) >= 2 && length_of(s) <= 63;
    if (!starts_with_caseless(s, "xn--")) return false;
    size_t n = word_run((span){s.from + 4, s.to}, "%", &p);
    return p == s.to && n >= 2 && n <= 59;
}

/* The domains that need no scheme before them. */
static bool is_basic_top_domain(span s) {
    static const char *const names[] = {"com", "net", "int", "edu", "gov", "org", "info", "mil"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length_of(s) && starts_with_caseless(s, names[i])) return true;
    return false;
}

/* \d{1,3}(\.\d{1,3}){3} */
static bool is_ipv4(span s, const char **end) {
    for (int part = 0; part < 4; part++) {
        size_t n = 0;
        if (part && (s.from == s.to || *s.from++ != '.')) return false;
        for (; s.from < s.to && is_digit(*s.from) && n < 3; s.from++) n++;
        if (!n) return false;
    }
    *end = s.from;
    return true;
}

/* \[([\da-f]{0,4}:){2}([\da-f]{0,4}:?){1,6}] */
static bool is_ipv6(span s, const char **end) {
    if (s.from == s.to || *s.from++ != '[') return false;
    for (int part = 0; part < 8; part++) {
        for (int n = 0; s.from < s.to && n < 4; n++, s.from++)
            if (!is_digit(*s.from) && !((*s.from | 0x20) >= 'a' && (*s.from | 0x20) <= 'f')) break;
        bool colon = s.from < s.to && *s.from == ':';
        if (colon) s.from++;
        else if (part < 2) return false;
    }
    if (s.from == s.to || *s.from != ']') return false;
    *end = s.from + 1;
    return true;
}

static bool is_web_address(span s) {
    const char *end, *dot;
    size_t scheme = starts_with_caseless(s, "https://") ? 8 : starts_with_caseless(s, "http://") ? 7 : 0;
    size_t prefix = scheme ? scheme : starts_with_caseless(s, "www.") ? 4 : 0;
    span host = {s.from + prefix, s.to};
    if (prefix) {
        word_run(host, "%-.", &end);
        dot = last_of((span){host.from, end}, '.');
        span top = {dot ? dot + 1 : host.from, end};
        if (ends_host((span){end, s.to}) && is_top_domain(top) && are_labels((span){host.from, top.from}, 1, SIZE_MAX))
            return true;
    }
    if (scheme && (is_ipv4(host, &end) || is_ipv6(host, &end)) && ends_host((span){end, s.to})) return true;
    word_run(s, "%-.", &end);
    dot = last_of((span){s.from, end}, '.');
    return dot && ends_host((span){end, s.to}) && is_basic_top_domain((span){dot + 1, end}) &&
           are_labels((span){s.from, dot + 1}, 2, 63);
}

/* \S+@\w[\w.-]*\.\w+ */
static bool is_mail_address(span s) {
    const char *end, *at = last_of(s, '@');
    if (!at || at == s.from) return false;
    span domain = {at + 1, s.to};
    if (domain.from == domain.to || is_one_of(*domain.from, ".-")) return false;
    word_run(domain, ".-", &end);
    const char *dot = last_of(domain, '.');
    return end == s.to && dot && word_run((span){dot + 1, s.to}, "", &end) && end == s.to;
}

/* ---------------------------------------------------------------- links */

static void put(linker *l, span s) { sl_jinja_text_append(&l->out, s.from, length_of(s)); }

/* <a href="prefix + address" attributes>text</a> */
static void put_link(linker *l, const char *prefix, span address, bool attributes, jinja_value text) {
    sl_jinja_text_puts(&l->out, "<a href=\"");
    sl_jinja_text_puts(&l->out, prefix);
    put(l, address);
    sl_jinja_text_putc(&l->out, '"');
    if (attributes) sl_jinja_write_str(&l->out, l->rel);
    if (attributes) sl_jinja_write_str(&l->out, l->target);
    sl_jinja_text_putc(&l->out, '>');
    sl_jinja_write_str(&l->out, text);
    sl_jinja_text_puts(&l->out, "</a>");
}

static jinja_value trimmed(linker *l, jinja_value text) {
    jinja *j = l->out.j;
    if (l->limit.type == JINJA_NONE) return text;
    if (sl_jinja_order(j, sl_jinja_int(sl_jinja_length(j, text)), l->limit, ">") != 1) return text;
    return sl_jinja_binary(j, JINJA_ADD, sl_jinja_get_slice(j, text, sl_jinja_none, l->limit, sl_jinja_none),
                           sl_jinja_literal(j, "..."));
}

static void put_middle(linker *l, span s) {
    jinja *j = l->out.j;
    jinja_value text = sl_jinja_str(j, s.from, length_of(s));
    bool has_at = length_of(s) && memchr(s.from, '@', length_of(s));
    bool has_colon = length_of(s) && memchr(s.from, ':', length_of(s));
    if (is_web_address(s)) {
        bool has_scheme = starts_with(s, "https://") || starts_with(s, "http://");
        put_link(l, has_scheme ? "" : "https://", s, true, trimmed(l, text));
        return;
    }
    if (starts_with(s, "mailto:") && is_mail_address((span){s.from + 7, s.to})) {
        put_link(l, "", s, false, sl_jinja_str(j, s.from + 7, length_of(s) - 7));
        return;
    }
    if (has_at && !starts_with(s, "www.") && *s.from != '@' && !has_colon && is_mail_address(s)) {
        put_link(l, "mailto:", s, false, text);
        return;
    }
    for (size_t i = 0; i < l->schemes->length; i++) {
        const jinja_string *scheme = l->schemes->items[i].as.string;
        if (length_of(s) <= scheme->length || memcmp(s.from, scheme->data, scheme->length)) continue;
        put_link(l, "", s, true, text);
        return;
    }
    put(l, s);
}

/* ---------------------------------------------------------------- words */

static size_t count(span s, const char *text) {
    size_t n = 0, length = strlen(text);
    for (const char *p; length_of(s) && (p = memmem(s.from, length_of(s), text, length)); s.from = p + length) n++;
    return n;
}

/* Closing marks behind the address belong to it as far as it holds opening ones. */
static void balance(span *middle, span *tail, const char *open, const char *close) {
    size_t opened = count(*middle, open), closing = count(*tail, close);
    if (opened <= count(*middle, close)) return;
    for (size_t n = opened < closing ? opened : closing; n > 0; n--) {
        const char *p = memmem(tail->from, length_of(*tail), close, strlen(close));
        middle->to = tail->from = p + strlen(close);
    }
}

static void put_word(linker *l, span word) {
    span middle = word;
    while (middle.from < middle.to) {
        if (is_one_of(*middle.from, "(<")) middle.from++;
        else if (starts_with(middle, "&lt;")) middle.from += 4;
        else break;
    }
    while (middle.from < middle.to) {
        if (is_one_of(middle.to[-1], ")>.,\n")) middle.to--;
        else if (ends_with(middle, "&gt;")) middle.to -= 4;
        else break;
    }
    span tail = {middle.to, word.to};
    balance(&middle, &tail, "(", ")");
    balance(&middle, &tail, "<", ">");
    balance(&middle, &tail, "&lt;", "&gt;");
    put(l, (span){word.from, middle.from});
    put_middle(l, middle);
    put(l, tail);
}

static void put_text(linker *l, const jinja_string *s) {
    span rest = {s->data, s->data + s->length};
    const char *word = rest.from;
    while (rest.from < rest.to) {
        uint32_t code;
        size_t n = sl_utf8_decode(rest.from, length_of(rest), &code, NULL);
        if (sl_jinja_is_space(code)) {
            put_word(l, (span){word, rest.from});
            put(l, (span){rest.from, rest.from + n});
            word = rest.from + n;
        }
        rest.from += n;
    }
    put_word(l, (span){word, rest.to});
}

/* ---------------------------------------------------------------- arguments */

/* rel="..." of the words of rel, "noopener" (Jinja's policy) and perhaps "nofollow", each once and in order. */
static jinja_value rel_attribute(jinja *j, jinja_value rel, bool nofollow) {
    jinja_value words = sl_jinja_dict_new(j);
    sl_jinja_dict_set(j, words.as.dict, sl_jinja_literal(j, "noopener"), sl_jinja_none);
    if (nofollow) sl_jinja_dict_set(j, words.as.dict, sl_jinja_literal(j, "nofollow"), sl_jinja_none);
    if (sl_jinja_truth(j, rel)) {
        if (!jinja_is_str(rel))
            sl_jinja_fail(j, "AttributeError", "'%s' object has no attribute 'split'", sl_jinja_type_name(rel));
        jinja_args none = {0};
        jinja_value split = sl_jinja_get_attribute(j, rel, sl_jinja_literal(j, "split"));
        jinja_value parts = sl_jinja_call(j, split, &none);
        for (size_t i = 0; i < parts.as.list->length; i++)
            sl_jinja_dict_set(j, words.as.dict, parts.as.list->items[i], sl_jinja_none);
    }
    jinja_value names = sl_jinja_collect(j, words);
    sl_jinja_sort(j, names.as.list->items, words.as.dict->keys, names.as.list->length, false);
    jinja_text text = {.j = j};
    sl_jinja_text_puts(&text, " rel=\"");
    for (size_t i = 0; i < names.as.list->length; i++) {
        if (i) sl_jinja_text_putc(&text, ' ');
        sl_jinja_write_str(&text, sl_jinja_escape(j, names.as.list->items[i]));
    }
    sl_jinja_text_putc(&text, '"');
    return sl_jinja_text_value(&text);
}

static jinja_value target_attribute(jinja *j, jinja_value target) {
    jinja_text text = {.j = j};
    if (sl_jinja_truth(j, target)) {
        sl_jinja_text_puts(&text, " target=\"");
        sl_jinja_write_str(&text, sl_jinja_escape(j, target));
        sl_jinja_text_putc(&text, '"');
    }
    return sl_jinja_text_value(&text);
}

/* [\w.+-]{2,}:/{0,2} */
static bool is_scheme(const jinja_string *s) {
    span rest = {s->data, s->data + s->length};
    if (word_run(rest, ".+-", &rest.from) < 2 || rest.from == rest.to || *rest.from != ':') return false;
    size_t n = length_of(rest) - 1;
    return n <= 2 && !memcmp(rest.from + 1, "//", n);
}

static const jinja_list *read_schemes(jinja *j, jinja_value schemes) {
    if (schemes.type == JINJA_MISSING || schemes.type == JINJA_NONE) return sl_jinja_list_new(j, 0).as.list;
    bool once = schemes.type == JINJA_ITERATOR; /* used up by this check, as in Jinja */
    const jinja_list *list = sl_jinja_collect(j, schemes).as.list;
    for (size_t i = 0; i < list->length; i++) {
        jinja_value scheme = list->items[i];
        if (!jinja_is_str(scheme)) sl_jinja_fail(j, "TypeError", "expected string or bytes-like object");
        if (!is_scheme(scheme.as.string))
            sl_jinja_fail(j, "FilterArgumentError", "'%.*s' is not a valid URI scheme prefix.",
                          (int)scheme.as.string->length, scheme.as.string->data);
    }
    return once ? sl_jinja_list_new(j, 0).as.list : list;
}

jinja_value sl_jinja_urlize(jinja *j, jinja_value value, const jinja_args *args) {
    jinja_value a[5];
    sl_jinja_bind(j, "urlize", args,
                  (const char *const[]){"trim_url_limit", "nofollow", "target", "rel", "extra_schemes"}, 5, 0, a);
    linker l = {.out = {.j = j}, .limit = a[0].type == JINJA_MISSING ? sl_jinja_none : a[0]};
    l.rel = rel_attribute(j, a[3], sl_jinja_truth(j, a[1]));
    l.target = target_attribute(j, a[2]);
    l.schemes = read_schemes(j, a[4]);
    put_text(&l, sl_jinja_escape(j, value).as.string);
    return sl_jinja_text_value(&l.out);
}
