/* HTML character references: the names of HTML 4 with the numeric ones, read as html.unescape reads them
 * (https://html.spec.whatwg.org/multipage/parsing.html#character-reference-state). The two thousand names that HTML 5
 * added are left as they stand: no chat template has a use for them. */
#include "text/jinja.h"

#include <string.h>

/* U+00A0 to U+00FF: these may lack their semicolon. */
static const char *const latin[] = {
    "nbsp",   "iexcl",  "cent",   "pound",  "curren", "yen",    "brvbar", "sect",   "uml",    "copy",   "ordf",
    "laquo",  "not",    "shy",    "reg",    "macr",   "deg",    "plusmn", "sup2",   "sup3",   "acute",  "micro",
    "para",   "middot", "cedil",  "sup1",   "ordm",   "raquo",  "frac14", "frac12", "frac34", "iquest", "Agrave",
    "Aacute", "Acirc",  "Atilde", "Auml",   "Aring",  "AElig",  "Ccedil", "Egrave", "Eacute", "Ecirc",  "Euml",
    "Igrave", "Iacute", "Icirc",  "Iuml",   "ETH",    "Ntilde", "Ograve", "Oacute", "Ocirc",  "Otilde", "Ouml",
    "times",  "Oslash", "Ugrave", "Uacute", "Ucirc",  "Uuml",   "Yacute", "THORN",  "szlig",  "agrave", "aacute",
    "acirc",  "atilde", "auml",   "aring",  "aelig",  "ccedil", "egrave", "eacute", "ecirc",  "euml",   "igrave",
    "iacute", "icirc",  "iuml",   "eth",    "ntilde", "ograve", "oacute", "ocirc",  "otilde", "ouml",   "divide",
    "oslash", "ugrave", "uacute", "ucirc",  "uuml",   "yacute", "thorn",  "yuml"};

typedef struct entity {
    const char *name;
    uint16_t code;
} entity;

/* So may these. */
static const entity basic[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'},   {"quot", '"'},  {"AMP", '&'},
                               {"LT", '<'},  {"GT", '>'}, {"QUOT", '"'}, {"COPY", 0xa9}, {"REG", 0xae}};

static const entity others[] = {
    {"apos", 0x27},     {"OElig", 0x152},   {"oelig", 0x153},    {"Scaron", 0x160},   {"scaron", 0x161},
    {"Yuml", 0x178},    {"fnof", 0x192},    {"circ", 0x2c6},     {"tilde", 0x2dc},    {"Alpha", 0x391},
    {"Beta", 0x392},    {"Gamma", 0x393},   {"Delta", 0x394},    {"Epsilon", 0x395},  {"Zeta", 0x396},
    {"Eta", 0x397},     {"Theta", 0x398},   {"Iota", 0x399},     {"Kappa", 0x39a},    {"Lambda", 0x39b},
    {"Mu", 0x39c},      {"Nu", 0x39d},      {"Xi", 0x39e},       {"Omicron", 0x39f},  {"Pi", 0x3a0},
    {"Rho", 0x3a1},     {"Sigma", 0x3a3},   {"Tau", 0x3a4},      {"Upsilon", 0x3a5},  {"Phi", 0x3a6},
    {"Chi", 0x3a7},     {"Psi", 0x3a8},     {"Omega", 0x3a9},    {"alpha", 0x3b1},    {"beta", 0x3b2},
    {"gamma", 0x3b3},   {"delta", 0x3b4},   {"epsilon", 0x3b5},  {"zeta", 0x3b6},     {"eta", 0x3b7},
    {"theta", 0x3b8},   {"iota", 0x3b9},    {"kappa", 0x3ba},    {"lambda", 0x3bb},   {"mu", 0x3bc},
    {"nu", 0x3bd},      {"xi", 0x3be},      {"omicron", 0x3bf},  {"pi", 0x3c0},       {"rho", 0x3c1},
    {"sigmaf", 0x3c2},  {"sigma", 0x3c3},   {"tau", 0x3c4},      {"upsilon", 0x3c5},  {"phi", 0x3c6},
    {"chi", 0x3c7},     {"psi", 0x3c8},     {"omega", 0x3c9},    {"thetasym", 0x3d1}, {"upsih", 0x3d2},
    {"piv", 0x3d6},     {"ensp", 0x2002},   {"emsp", 0x2003},    {"thinsp", 0x2009},  {"zwnj", 0x200c},
    {"zwj", 0x200d},    {"lrm", 0x200e},    {"rlm", 0x200f},     {"ndash", 0x2013},   {"mdash", 0x2014},
    {"lsquo", 0x2018},  {"rsquo", 0x2019},  {"sbquo", 0x201a},   {"ldquo", 0x201c},   {"rdquo", 0x201d},
    {"bdquo", 0x201e},  {"dagger", 0x2020}, {"Dagger", 0x2021},  {"bull", 0x2022},    {"hellip", 0x2026},
    {"permil", 0x2030}, {"prime", 0x2032},  {"Prime", 0x2033},   {"lsaquo", 0x2039},  {"rsaquo", 0x203a},
    {"oline", 0x203e},  {"frasl", 0x2044},  {"euro", 0x20ac},    {"image", 0x2111},   {"weierp", 0x2118},
    {"real", 0x211c},   {"trade", 0x2122},  {"alefsym", 0x2135}, {"larr", 0x2190},    {"uarr", 0x2191},
    {"rarr", 0x2192},   {"darr", 0x2193},   {"harr", 0x2194},    {"crarr", 0x21b5},   {"lArr", 0x21d0},
    {"uArr", 0x21d1},   {"rArr", 0x21d2},   {"dArr", 0x21d3},    {"hArr", 0x21d4},    {"forall", 0x2200},
    {"part", 0x2202},   {"exist", 0x2203},  {"empty", 0x2205},   {"nabla", 0x2207},   {"isin", 0x2208},
    {"notin", 0x2209},  {"ni", 0x220b},     {"prod", 0x220f},    {"sum", 0x2211},     {"minus", 0x2212},
    {"lowast", 0x2217}, {"radic", 0x221a},  {"prop", 0x221d},    {"infin", 0x221e},   {"ang", 0x2220},
    {"and", 0x2227},    {"or", 0x2228},     {"cap", 0x2229},     {"cup", 0x222a},     {"int", 0x222b},
    {"there4", 0x2234}, {"sim", 0x223c},    {"cong", 0x2245},    {"asymp", 0x2248},   {"ne", 0x2260},
    {"equiv", 0x2261},  {"le", 0x2264},     {"ge", 0x2265},      {"sub", 0x2282},     {"sup", 0x2283},
    {"nsub", 0x2284},   {"sube", 0x2286},   {"supe", 0x2287},    {"oplus", 0x2295},   {"otimes", 0x2297},
    {"perp", 0x22a5},   {"sdot", 0x22c5},   {"lceil", 0x2308},   {"rceil", 0x2309},   {"lfloor", 0x230a},
    {"rfloor", 0x230b}, {"loz", 0x25ca},    {"spades", 0x2660},  {"clubs", 0x2663},   {"hearts", 0x2665},
    {"diams", 0x2666},  {"lang", 0x27e8},   {"rang", 0x27e9}};

/* What 0x80 to 0x9f mean in a numeric reference: windows-1252. */
static const uint16_t windows[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021,
                                     0x2c6,  0x2030, 0x160,  0x2039, 0x152,  0x8d,   0x17d,  0x8f,
                                     0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                     0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};

/* The code of a name, 0 when it is none; bare: names that need no semicolon only. */
static uint32_t find_name(const char *name, size_t length, bool bare) {
    for (size_t i = 0; i < sizeof latin / sizeof *latin; i++)
        if (strlen(latin[i]) == length && !memcmp(latin[i], name, length)) return 0xa0 + (uint32_t)i;
    for (size_t i = 0; i < sizeof basic / sizeof *basic; i++)
        if (strlen(basic[i].name) == length && !memcmp(basic[i].name, name, length)) return basic[i].code;
    for (size_t i = 0; !bare && i < sizeof others / sizeof *others; i++)
        if (strlen(others[i].name) == length && !memcmp(others[i].name, name, length)) return others[i].code;
    return 0;
}

static size_t read_name(const char *text, size_t length, jinja_text *out) {
    size_t n = 0;
    while (n < length && n < 32 && !(text[n] && strchr("\t\n\f <&#;", text[n]))) n++;
    uint32_t code = n < length && text[n] == ';' ? find_name(text, n, false) : 0;
    if (code) {
        sl_jinja_text_code(out, code);
        return n + 1;
    }
    for (; n > 1; n--) { /* the longest beginning that is a name by itself */
        code = find_name(text, n, true);
        if (!code) continue;
        sl_jinja_text_code(out, code);
        return n;
    }
    return 0;
}

static int digit_of(char c, bool hex) {
    if (c >= '0' && c <= '9') return c - '0';
    return hex && (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* Codes that stand for no character, and are dropped. */
static bool is_invalid(uint32_t code) {
    return (code < 0x20 && !strchr("\t\n\f\r", (int)code)) || code == 0x7f || (code >= 0xfdd0 && code <= 0xfdef) ||
           (code & 0xfffe) == 0xfffe;
}

static size_t read_number(const char *text, size_t length, jinja_text *out) {
    bool hex = length > 1 && (text[1] | 0x20) == 'x';
    size_t at = hex ? 2 : 1, first = at;
    uint32_t code = 0;
    for (; at < length && digit_of(text[at], hex) >= 0; at++)
        if (code <= 0x10ffff) code = code * (hex ? 16 : 10) + (uint32_t)digit_of(text[at], hex);
    if (at == first) return 0;
    if (!code || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) sl_jinja_text_code(out, 0xfffd);
    else if (code >= 0x80 && code <= 0x9f) sl_jinja_text_code(out, windows[code - 0x80]);
    else if (!is_invalid(code)) sl_jinja_text_code(out, code);
    return at < length && text[at] == ';' ? at + 1 : at;
}

size_t sl_jinja_read_entity(const char *text, size_t length, jinja_text *out) {
    return length && text[0] == '#' ? read_number(text, length, out) : read_name(text, length, out);
}
