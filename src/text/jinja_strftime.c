/* strftime_now(format): the directives of Python's datetime.strftime in the C locale, for a naive local time. */
#include "text/jinja.h"

#include <string.h>
#include <time.h>

static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                     "July",    "August",   "September", "October", "November", "December"};

/* Exactly `digits` digits at *text, a number in [low, high]. */
static bool number(const char **text, int digits, int low, int high, int *out) {
    int value = 0;
    for (int i = 0; i < digits; i++, ++*text) {
        if (**text < '0' || **text > '9') return false;
        value = value * 10 + (**text - '0');
    }
    *out = value;
    return value >= low && value <= high;
}

/* "YYYY-MM-DDTHH:MM:SS". */
static bool parse_now(const char *text, struct tm *when) {
    int year, month, day, hour, minute, second;
    bool ok = number(&text, 4, 1, 9999, &year) && *text++ == '-' && number(&text, 2, 1, 12, &month) && *text++ == '-' &&
              number(&text, 2, 1, 31, &day) && (*text == 'T' || *text == ' ') &&
              number((text++, &text), 2, 0, 23, &hour) && *text++ == ':' && number(&text, 2, 0, 59, &minute) &&
              *text++ == ':' && number(&text, 2, 0, 59, &second) && !*text;
    if (!ok) return false;
    *when = (struct tm){.tm_year = year - 1900,
                        .tm_mon = month - 1,
                        .tm_mday = day,
                        .tm_hour = hour,
                        .tm_min = minute,
                        .tm_sec = second};
    struct tm check = *when;
    timegm(&check); /* fills the day of the week and of the year; a 31 February moves on */
    if (check.tm_mday != when->tm_mday || check.tm_mon != when->tm_mon) return false;
    when->tm_wday = check.tm_wday;
    when->tm_yday = check.tm_yday;
    return true;
}

/* ISO 8601: weeks begin on Monday, week 1 holds the first Thursday. */
static int iso_week(const struct tm *t, int *year) {
    int weekday = (t->tm_wday + 6) % 7, y = t->tm_year + 1900;
    int week = (t->tm_yday - weekday + 10) / 7;
    if (week < 1) {
        y--;
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        week = (t->tm_yday + 365 + leap - weekday + 10) / 7;
    } else if (week == 53) {
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        if (t->tm_yday - weekday + 3 >= 365 + leap) week = 1, y++;
    }
    *year = y;
    return week;
}

static void expand(jinja_text *out, const struct tm *t, const char *format, size_t length);

static bool write_compound(jinja_text *out, const struct tm *t, char directive) {
    static const struct {
        char directive;
        const char *format;
    } compounds[] = {{'c', "%a %b %e %H:%M:%S %Y"},
                     {'x', "%m/%d/%y"},
                     {'X', "%H:%M:%S"},
                     {'D', "%m/%d/%y"},
                     {'F', "%Y-%m-%d"},
                     {'T', "%H:%M:%S"},
                     {'R', "%H:%M"},
                     {'r', "%I:%M:%S %p"}};
    for (size_t i = 0; i < sizeof compounds / sizeof *compounds; i++) {
        if (compounds[i].directive != directive) continue;
        expand(out, t, compounds[i].format, strlen(compounds[i].format));
        return true;
    }
    return false;
}

/* What may stand between '%' and the directive: glibc's extensions, which Python passes on. */
typedef struct style {
    char pad; /* '-' none, '_' blanks, '0' zeros; 0: as the directive has it */
    bool upper, swap;
    int width;     /* at least so many characters */
    char modifier; /* 'E' or 'O' of POSIX; 0 */
} style;

/* A number of at least `width` digits, padded with `pad` unless the style says otherwise. */
static void write_number(jinja_text *out, int value, int width, char pad, style s) {
    if (s.width > width) width = s.width;
    if (s.pad == '-') sl_jinja_text_printf(out, "%*d", s.width, value);
    else if (s.pad == '_' || (pad == ' ' && s.pad != '0')) sl_jinja_text_printf(out, "%*d", width, value);
    else sl_jinja_text_printf(out, "%0*d", width, value);
}

static bool write_numeric(jinja_text *out, const struct tm *t, char directive, style s) {
    int hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12, iso_year, week = iso_week(t, &iso_year);
    switch (directive) {
    case 'Y': write_number(out, t->tm_year + 1900, 1, '0', s); return true;
    case 'C': write_number(out, (t->tm_year + 1900) / 100, 2, '0', s); return true;
    case 'y': write_number(out, t->tm_year % 100, 2, '0', s); return true;
    case 'm': write_number(out, t->tm_mon + 1, 2, '0', s); return true;
    case 'd': write_number(out, t->tm_mday, 2, '0', s); return true;
    case 'e': write_number(out, t->tm_mday, 2, ' ', s); return true;
    case 'H': write_number(out, t->tm_hour, 2, '0', s); return true;
    case 'k': write_number(out, t->tm_hour, 2, ' ', s); return true;
    case 'I': write_number(out, hour12, 2, '0', s); return true;
    case 'l': write_number(out, hour12, 2, ' ', s); return true;
    case 'M': write_number(out, t->tm_min, 2, '0', s); return true;
    case 'S': write_number(out, t->tm_sec, 2, '0', s); return true;
    case 'f': sl_jinja_text_puts(out, "000000"); return true;
    case 'j': write_number(out, t->tm_yday + 1, 3, '0', s); return true;
    case 'U': write_number(out, (t->tm_yday + 7 - t->tm_wday) / 7, 2, '0', s); return true;
    case 'W': write_number(out, (t->tm_yday + 7 - (t->tm_wday + 6) % 7) / 7, 2, '0', s); return true;
    case 'V': write_number(out, week, 2, '0', s); return true;
    case 'G': write_number(out, iso_year, 1, '0', s); return true;
    case 'g': write_number(out, iso_year % 100, 2, '0', s); return true;
    case 'u': write_number(out, t->tm_wday ? t->tm_wday : 7, 1, '0', s); return true;
    case 'w': write_number(out, t->tm_wday, 1, '0', s); return true;
    default: return false;
    }
}

static void write_seconds(jinja_text *out, const struct tm *t) {
    struct tm copy = *t;
    copy.tm_isdst = -1;
    sl_jinja_text_printf(out, "%lld", (long long)mktime(&copy));
}

/* What a directive without a number stands for. */
static bool write_words(jinja_text *out, const struct tm *t, char directive) {
    switch (directive) {
    case 'a': sl_jinja_text_append(out, days[t->tm_wday], 3); return true;
    case 'A': sl_jinja_text_puts(out, days[t->tm_wday]); return true;
    case 'b':
    case 'h': sl_jinja_text_append(out, months[t->tm_mon], 3); return true;
    case 'B': sl_jinja_text_puts(out, months[t->tm_mon]); return true;
    case 'p': sl_jinja_text_puts(out, t->tm_hour < 12 ? "AM" : "PM"); return true;
    case 'P': sl_jinja_text_puts(out, t->tm_hour < 12 ? "am" : "pm"); return true;
    case 'n': sl_jinja_text_putc(out, '\n'); return true;
    case 't': sl_jinja_text_putc(out, '\t'); return true;
    case '%': sl_jinja_text_putc(out, '%'); return true;
    case 'z':
    case 'Z': return true; /* a naive time has no zone */
    case 's': write_seconds(out, t); return true;
    default: return write_compound(out, t, directive);
    }
}

static bool write_directive(jinja_text *out, const struct tm *t, char directive, style s) {
    jinja_text words = {.j = out->j};
    bool plain = !s.pad && !s.upper && !s.swap && !s.width && !s.modifier;
    if (s.modifier && strchr(s.modifier == 'E' ? "aAbBdDeFgGhHIjklmMSUVwW" : "aAcDFxXY", directive)) return false;
    if (directive == 'f' && !plain) return false; /* Python's own, and bare */
    if (directive == 'z' || directive == 'Z') s.width = 0;
    if (!write_words(&words, t, directive)) return write_numeric(out, t, directive, s);
    for (size_t i = 0; i < words.length; i++) {
        char *c = &words.data[i];
        if (s.swap && directive == 'p') *c |= 0x20;
        else if (((s.upper && directive != 'P') || (s.swap && strchr("aAbBh", directive))) && *c >= 'a' && *c <= 'z')
            *c &= ~0x20;
    }
    char pad = s.pad == '0' ? '0' : ' ';
    for (size_t n = words.length; n < (size_t)s.width; n++) sl_jinja_text_putc(out, pad);
    sl_jinja_text_append(out, words.data, words.length);
    return true;
}

static size_t read_style(jinja_text *out, const char *p, size_t length, style *s) {
    size_t at = 0;
    for (; at < length && p[at] && strchr("-_0^#", p[at]); at++) {
        if (p[at] == '^') s->upper = true;
        else if (p[at] == '#') s->swap = true;
        else s->pad = p[at];
    }
    for (; at < length && p[at] >= '0' && p[at] <= '9'; at++) {
        s->width = s->width * 10 + (p[at] - '0');
        if (s->width > 1000) sl_jinja_fail(out->j, "ValueError", "a field of the time is wider than 1000 characters");
    }
    if (at < length && (p[at] == 'E' || p[at] == 'O')) s->modifier = p[at++];
    return at;
}

static void expand(jinja_text *out, const struct tm *t, const char *format, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (format[i] != '%' || i + 1 == length) {
            sl_jinja_text_putc(out, format[i]);
            continue;
        }
        style s = {0};
        size_t at = i + 1 + read_style(out, format + i + 1, length - i - 1, &s);
        if (at == length) at--;
        if (!write_directive(out, t, format[at], s)) /* unknown ones stay as they are */
            sl_jinja_text_append(out, format + i, at - i + 1);
        i = at;
    }
}

jinja_value sl_jinja_strftime(jinja *j, jinja_value format) {
    struct tm when = {0};
    if (format.type == JINJA_UNDEFINED) sl_jinja_fail_undefined(j, format);
    if (!jinja_is_str(format))
        sl_jinja_fail(j, "TypeError", "strftime() argument 1 must be str, not %s", sl_jinja_type_name(format));
    if (j->now) {
        if (!parse_now(j->now, &when))
            sl_jinja_fail(j, "ValueError", "the time must be written YYYY-MM-DDTHH:MM:SS, not '%s'", j->now);
    } else {
        time_t now = time(NULL);
        if (!localtime_r(&now, &when)) sl_jinja_fail(j, "OSError", "the local time cannot be read");
    }
    jinja_text out = {.j = j};
    expand(&out, &when, format.as.string->data, format.as.string->length);
    return sl_jinja_text_value(&out);
}
