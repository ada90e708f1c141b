/* Unicode case and character classes as Python's str has them, over utf8proc. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <string.h>
#include <utf8proc.h>

static utf8proc_category_t category(uint32_t code) { return utf8proc_category((utf8proc_int32_t)code); }

bool sl_jinja_is_space(uint32_t code) {
    if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x1f);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool sl_jinja_is_printable(uint32_t code) {
    if (code < 0x80) return code >= 0x20 && code < 0x7f;
    switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static bool is_alpha(uint32_t code) {
    if (code < 0x80) return (code | 0x20) - 'a' < 26;
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t code) { return code < 0x80 ? code - '0' < 10 : category(code) == UTF8PROC_CATEGORY_ND; }

/* Numeric_Type=Digit: superscripts, circled digits and their kin, which are digits but no decimals. */
static bool is_digit(uint32_t code) {
    static const uint32_t ranges[][2] = {
        {0xb2, 0xb3},     {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},   {0x2070, 0x2070},
        {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247c},   {0x2488, 0x2490},
        {0x24ea, 0x24ea}, {0x24f5, 0x24fd},   {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},
        {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};
    if (is_decimal(code)) return true;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    return false;
}

/* The ideographs that count (Numeric_Type=Numeric with category Lo), besides the categories Nd, Nl and No. */
static bool is_numeric(uint32_t code) {
    static const uint32_t ideographs[] = {
        0x3405, 0x3483, 0x382a, 0x3b4d, 0x4e00, 0x4e03, 0x4e07, 0x4e09, 0x4e5d, 0x4e8c, 0x4e94, 0x4e96, 0x4ebf,
        0x4ec0, 0x4edf, 0x4ee8, 0x4f0d, 0x4f70, 0x5104, 0x5146, 0x5169, 0x516b, 0x516d, 0x5341, 0x5343, 0x5344,
        0x5345, 0x534c, 0x53c1, 0x53c2, 0x53c3, 0x53c4, 0x56db, 0x58f1, 0x58f9, 0x5e7a, 0x5efe, 0x5eff, 0x5f0c,
        0x5f0d, 0x5f0e, 0x5f10, 0x62fe, 0x634c, 0x67d2, 0x6f06, 0x7396, 0x767e, 0x8086, 0x842c, 0x8cae, 0x8cb3,
        0x8d30, 0x9621, 0x9646, 0x964c, 0x9678, 0x96f6, 0xf96b, 0xf973, 0xf978, 0xf9b2, 0xf9d1, 0xf9d3, 0xf9fd};
    if (code < 0x80) return code - '0' < 10;
    utf8proc_category_t c = category(code);
    if (c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO) return true;
    for (size_t i = 0; i < sizeof ideographs / sizeof *ideographs; i++)
        if (code == ideographs[i]) return true;
    return false;
}

static bool is_alnum(uint32_t code) { return is_alpha(code) || is_decimal(code) || is_digit(code) || is_numeric(code); }

bool sl_jinja_is_word(uint32_t code) { return code == '_' || is_alnum(code); }

static bool is_lower(uint32_t code) {
    if (code < 0x80) return code - 'a' < 26;
    return utf8proc_islower((utf8proc_int32_t)code);
}
static bool is_upper(uint32_t code) {
    if (code < 0x80) return code - 'A' < 26;
    return utf8proc_isupper((utf8proc_int32_t)code);
}
static bool is_title(uint32_t code) { return code >= 0x80 && category(code) == UTF8PROC_CATEGORY_LT; }
static bool is_cased(uint32_t code) { return is_lower(code) || is_upper(code) || is_title(code); }

/* Case_Ignorable: marks, modifiers, and the punctuation that stands inside words. */
static bool is_case_ignorable(uint32_t code) {
    if (code < 0x80) return code == '\'' || code == '.' || code == ':' || code == '^' || code == '`';
    switch (category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default:
        return code == 0xb7 || code == 0x387 || code == 0x55f || code == 0x5f4 || code == 0x2018 || code == 0x2019 ||
               code == 0x2024 || code == 0x2027 || code == 0xfe13 || code == 0xfe52 || code == 0xfe55 ||
               code == 0xff07 || code == 0xff0e || code == 0xff1a;
    }
}

/* Characters whose upper or title case is more than one character (SpecialCasing.txt, unconditional mappings). */
typedef struct special {
    uint32_t code, upper[3], title[3];
} special;
static const special specials[] = {{0xdf, {'S', 'S'}, {'S', 's'}},
                                   {0x149, {0x2bc, 'N'}, {0x2bc, 'N'}},
                                   {0x1f0, {'J', 0x30c}, {'J', 0x30c}},
                                   {0x390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
                                   {0x3b0, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
                                   {0x587, {0x535, 0x552}, {0x535, 0x582}},
                                   {0x1e96, {'H', 0x331}, {'H', 0x331}},
                                   {0x1e97, {'T', 0x308}, {'T', 0x308}},
                                   {0x1e98, {'W', 0x30a}, {'W', 0x30a}},
                                   {0x1e99, {'Y', 0x30a}, {'Y', 0x30a}},
                                   {0x1e9a, {'A', 0x2be}, {'A', 0x2be}},
                                   {0x1f50, {0x3a5, 0x313}, {0x3a5, 0x313}},
                                   {0x1f52, {0x3a5, 0x313, 0x300}, {0x3a5, 0x313, 0x300}},
                                   {0x1f54, {0x3a5, 0x313, 0x301}, {0x3a5, 0x313, 0x301}},
                                   {0x1f56, {0x3a5, 0x313, 0x342}, {0x3a5, 0x313, 0x342}},
                                   {0x1fb2, {0x1fba, 0x399}, {0x1fba, 0x345}},
                                   {0x1fb3, {0x391, 0x399}, {0x1fbc}},
                                   {0x1fb4, {0x386, 0x399}, {0x386, 0x345}},
                                   {0x1fb6, {0x391, 0x342}, {0x391, 0x342}},
                                   {0x1fb7, {0x391, 0x342, 0x399}, {0x391, 0x342, 0x345}},
                                   {0x1fbc, {0x391, 0x399}, {0x1fbc}},
                                   {0x1fc2, {0x1fca, 0x399}, {0x1fca, 0x345}},
                                   {0x1fc3, {0x397, 0x399}, {0x1fcc}},
                                   {0x1fc4, {0x389, 0x399}, {0x389, 0x345}},
                                   {0x1fc6, {0x397, 0x342}, {0x397, 0x342}},
                                   {0x1fc7, {0x397, 0x342, 0x399}, {0x397, 0x342, 0x345}},
                                   {0x1fcc, {0x397, 0x399}, {0x1fcc}},
                                   {0x1fd2, {0x399, 0x308, 0x300}, {0x399, 0x308, 0x300}},
                                   {0x1fd3, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
                                   {0x1fd6, {0x399, 0x342}, {0x399, 0x342}},
                                   {0x1fd7, {0x399, 0x308, 0x342}, {0x399, 0x308, 0x342}},
                                   {0x1fe2, {0x3a5, 0x308, 0x300}, {0x3a5, 0x308, 0x300}},
                                   {0x1fe3, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
                                   {0x1fe4, {0x3a1, 0x313}, {0x3a1, 0x313}},
                                   {0x1fe6, {0x3a5, 0x342}, {0x3a5, 0x342}},
                                   {0x1fe7, {0x3a5, 0x308, 0x342}, {0x3a5, 0x308, 0x342}},
                                   {0x1ff2, {0x1ffa, 0x399}, {0x1ffa, 0x345}},
                                   {0x1ff3, {0x3a9, 0x399}, {0x1ffc}},
                                   {0x1ff4, {0x38f, 0x399}, {0x38f, 0x345}},
                                   {0x1ff6, {0x3a9, 0x342}, {0x3a9, 0x342}},
                                   {0x1ff7, {0x3a9, 0x342, 0x399}, {0x3a9, 0x342, 0x345}},
                                   {0x1ffc, {0x3a9, 0x399}, {0x1ffc}},
                                   {0xfb00, {'F', 'F'}, {'F', 'f'}},
                                   {0xfb01, {'F', 'I'}, {'F', 'i'}},
                                   {0xfb02, {'F', 'L'}, {'F', 'l'}},
                                   {0xfb03, {'F', 'F', 'I'}, {'F', 'f', 'i'}},
                                   {0xfb04, {'F', 'F', 'L'}, {'F', 'f', 'l'}},
                                   {0xfb05, {'S', 'T'}, {'S', 't'}},
                                   {0xfb06, {'S', 'T'}, {'S', 't'}},
                                   {0xfb13, {0x544, 0x546}, {0x544, 0x576}},
                                   {0xfb14, {0x544, 0x535}, {0x544, 0x565}},
                                   {0xfb15, {0x544, 0x53b}, {0x544, 0x56b}},
                                   {0xfb16, {0x54e, 0x546}, {0x54e, 0x576}},
                                   {0xfb17, {0x544, 0x53d}, {0x544, 0x56d}}};

/* The Greek letters with a ypogegrammeni, 1F80-1FAF: upper case splits the iota off; title case is the letter with a
 * prosgegrammeni. */
static bool greek_iota(uint32_t code, uint32_t upper[3], uint32_t *title) {
    if (code < 0x1f80 || code > 0x1faf) return false;
    static const uint32_t rows[] = {0x1f08, 0x1f28, 0x1f68};
    upper[0] = rows[(code - 0x1f80) / 16] + (code & 7);
    upper[1] = 0x399;
    upper[2] = 0;
    *title = code | 8;
    return true;
}

static void put_upper(jinja_text *out, uint32_t code, bool title) {
    uint32_t iota[3], iota_title;
    if (code < 0x80) {
        sl_jinja_text_putc(out, (char)(code - 'a' < 26 ? code - 32 : code));
        return;
    }
    if (greek_iota(code, iota, &iota_title)) {
        sl_jinja_text_code(out, title ? iota_title : iota[0]);
        if (!title) sl_jinja_text_code(out, iota[1]);
        return;
    }
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        if (specials[i].code != code) continue;
        const uint32_t *mapped = title ? specials[i].title : specials[i].upper;
        for (int k = 0; k < 3 && mapped[k]; k++) sl_jinja_text_code(out, mapped[k]);
        return;
    }
    sl_jinja_text_code(out, (uint32_t)(title ? utf8proc_totitle : utf8proc_toupper)((utf8proc_int32_t)code));
}

/* Is the sigma at [at, after) the last letter of its word? (SpecialCasing.txt, Final_Sigma) */
static bool is_final_sigma(const jinja_string *s, size_t at, size_t after) {
    bool cased_before = false;
    uint32_t code;
    for (size_t i = at; i > 0;) {
        do i--;
        while (i > 0 && ((unsigned char)s->data[i] & 0xC0) == 0x80);
        sl_utf8_decode(s->data + i, s->length - i, &code, NULL);
        if (is_case_ignorable(code)) continue;
        cased_before = is_cased(code);
        break;
    }
    if (!cased_before) return false;
    while (after < s->length) {
        after += sl_utf8_decode(s->data + after, s->length - after, &code, NULL);
        if (!is_case_ignorable(code)) return !is_cased(code);
    }
    return true;
}

static void put_lower(jinja_text *out, const jinja_string *s, size_t at, size_t after, uint32_t code) {
    if (code < 0x80) {
        sl_jinja_text_putc(out, (char)(code - 'A' < 26 ? code + 32 : code));
    } else if (code == 0x130) {
        sl_jinja_text_putc(out, 'i');
        sl_jinja_text_code(out, 0x307);
    } else if (code == 0x3a3) {
        sl_jinja_text_code(out, is_final_sigma(s, at, after) ? 0x3c2 : 0x3c3);
    } else {
        sl_jinja_text_code(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
    }
}

typedef enum mapping { LOWER, UPPER, TITLE, CAPITALIZE, SWAP } mapping;

static jinja_value map_case(jinja *j, jinja_value v, mapping how) {
    const jinja_string *s = v.as.string;
    jinja_text out = {.j = j};
    bool cased_before = false;
    sl_jinja_charge(j, s->length / 64);
    for (size_t at = 0, after; at < s->length; at = after) {
        uint32_t code;
        after = at + sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool first = how == CAPITALIZE ? at == 0 : !cased_before;
        if (how == UPPER || (how == SWAP && is_lower(code))) put_upper(&out, code, false);
        else if ((how == TITLE || how == CAPITALIZE) && first) put_upper(&out, code, true);
        else if (how == SWAP && !is_upper(code)) sl_jinja_text_append(&out, s->data + at, after - at);
        else put_lower(&out, s, at, after, code);
        cased_before = is_cased(code);
    }
    jinja_value mapped = sl_jinja_text_value(&out);
    mapped.markup = v.markup;
    return mapped;
}

jinja_value sl_jinja_str_lower(jinja *j, jinja_value s) { return map_case(j, s, LOWER); }
jinja_value sl_jinja_str_upper(jinja *j, jinja_value s) { return map_case(j, s, UPPER); }
jinja_value sl_jinja_str_title(jinja *j, jinja_value s) { return map_case(j, s, TITLE); }
jinja_value sl_jinja_str_capitalize(jinja *j, jinja_value s) { return map_case(j, s, CAPITALIZE); }

static jinja_value casefold(jinja *j, jinja_value v) {
    const jinja_string *s = v.as.string;
    jinja_text out = {.j = j};
    for (size_t at = 0; at < s->length;) {
        uint32_t code;
        utf8proc_int32_t folded[8];
        int boundary = 0;
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code, folded, 8, UTF8PROC_CASEFOLD, &boundary);
        for (utf8proc_ssize_t i = 0; i < n && i < 8; i++) sl_jinja_text_code(&out, (uint32_t)folded[i]);
    }
    jinja_value result = sl_jinja_text_value(&out);
    result.markup = v.markup;
    return result;
}

/* ---------------------------------------------------------------- questions about whole strings */

static bool all(jinja_value v, bool (*is)(uint32_t code), bool empty) {
    const jinja_string *s = v.as.string;
    uint32_t code;
    for (size_t at = 0; at < s->length;) {
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        if (!is(code)) return false;
    }
    return s->length ? true : empty;
}

static bool one_case(jinja_value v, bool upper) {
    const jinja_string *s = v.as.string;
    bool any = false;
    uint32_t code;
    for (size_t at = 0; at < s->length;) {
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        if (is_title(code) || (upper ? is_lower(code) : is_upper(code))) return false;
        any = any || is_cased(code);
    }
    return any;
}

bool sl_jinja_str_islower(jinja_value s) { return one_case(s, false); }
bool sl_jinja_str_isupper(jinja_value s) { return one_case(s, true); }

static bool is_title_cased(jinja_value v) {
    const jinja_string *s = v.as.string;
    bool any = false, before = false;
    uint32_t code;
    for (size_t at = 0; at < s->length;) {
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool upper = is_upper(code) || is_title(code), lower = is_lower(code);
        if ((upper && before) || (lower && !before)) return false;
        before = upper || lower;
        any = any || before;
    }
    return any;
}

static bool is_ascii(uint32_t code) { return code < 0x80; }

static bool is_identifier(jinja_value v) {
    const jinja_string *s = v.as.string;
    uint32_t code;
    for (size_t at = 0; at < s->length;) {
        bool first = at == 0;
        at += sl_utf8_decode(s->data + at, s->length - at, &code, NULL);
        bool start = code == '_' || is_alpha(code) || (code >= 0x80 && category(code) == UTF8PROC_CATEGORY_NL);
        bool more = start || is_decimal(code) ||
                    (code >= 0x80 &&
                     (category(code) == UTF8PROC_CATEGORY_MN || category(code) == UTF8PROC_CATEGORY_MC ||
                      category(code) == UTF8PROC_CATEGORY_PC));
        if (first ? !start : !more) return false;
    }
    return s->length > 0;
}

/* ---------------------------------------------------------------- the methods */

#define MAPPER(name, expression) \
    static jinja_value method_##name(jinja *j, jinja_value self, const jinja_args *args) { \
        sl_jinja_bind(j, #name, args, NULL, 0, 0, NULL); \
        return expression; \
    }
MAPPER(lower, map_case(j, self, LOWER))
MAPPER(upper, map_case(j, self, UPPER))
MAPPER(title, map_case(j, self, TITLE))
MAPPER(capitalize, map_case(j, self, CAPITALIZE))
MAPPER(swapcase, map_case(j, self, SWAP))
MAPPER(casefold, casefold(j, self))
MAPPER(isalpha, sl_jinja_bool(all(self, is_alpha, false)))
MAPPER(isdigit, sl_jinja_bool(all(self, is_digit, false)))
MAPPER(isdecimal, sl_jinja_bool(all(self, is_decimal, false)))
MAPPER(isnumeric, sl_jinja_bool(all(self, is_numeric, false)))
MAPPER(isalnum, sl_jinja_bool(all(self, is_alnum, false)))
MAPPER(isspace, sl_jinja_bool(all(self, sl_jinja_is_space, false)))
MAPPER(isprintable, sl_jinja_bool(all(self, sl_jinja_is_printable, true)))
MAPPER(isascii, sl_jinja_bool(all(self, is_ascii, true)))
MAPPER(isidentifier, sl_jinja_bool(is_identifier(self)))
MAPPER(islower, sl_jinja_bool(one_case(self, false)))
MAPPER(isupper, sl_jinja_bool(one_case(self, true)))
MAPPER(istitle, sl_jinja_bool(is_title_cased(self)))

const jinja_method sl_jinja_string_case_methods[] = {{"lower", method_lower},
                                                     {"upper", method_upper},
                                                     {"title", method_title},
                                                     {"capitalize", method_capitalize},
                                                     {"swapcase", method_swapcase},
                                                     {"casefold", method_casefold},
                                                     {"isalpha", method_isalpha},
                                                     {"isdigit", method_isdigit},
                                                     {"isdecimal", method_isdecimal},
                                                     {"isnumeric", method_isnumeric},
                                                     {"isalnum", method_isalnum},
                                                     {"isspace", method_isspace},
                                                     {"isprintable", method_isprintable},
                                                     {"isascii", method_isascii},
                                                     {"isidentifier", method_isidentifier},
                                                     {"islower", method_islower},
                                                     {"isupper", method_isupper},
                                                     {"istitle", method_istitle},
                                                     {NULL, NULL}};
