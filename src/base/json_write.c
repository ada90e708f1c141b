#include "base/json.h"
#include "base/number.h"
#include "base/utf8.h"

#include <math.h>
#include <string.h>

void sl_json_write_string(sl_buffer *out, const char *text, size_t length) {
    sl_buffer_putc(out, '"');
    for (size_t at = 0, n; at < length; at += n) {
        unsigned char c = (unsigned char)text[at];
        uint32_t code_point;
        bool valid;
        n = 1;
        if (c == '"' || c == '\\') sl_buffer_printf(out, "\\%c", c);
        else if (c == '\n') sl_buffer_puts(out, "\\n");
        else if (c == '\t') sl_buffer_puts(out, "\\t");
        else if (c == '\r') sl_buffer_puts(out, "\\r");
        else if (c < 0x20 || c == 0x7f) sl_buffer_printf(out, "\\u%04x", c);
        else if (c < 0x80) sl_buffer_putc(out, (char)c);
        else {
            n = sl_utf8_decode(text + at, length - at, &code_point, &valid);
            if (valid) sl_buffer_append(out, text + at, n);
            else sl_buffer_puts(out, "\xef\xbf\xbd");
        }
    }
    sl_buffer_putc(out, '"');
}

void sl_json_write_double(sl_buffer *out, double value) {
    char text[SL_NUMBER_SIZE];
    if (!isfinite(value)) {
        sl_buffer_puts(out, "null");
        return;
    }
    sl_format_double(text, value);
    sl_buffer_puts(out, text);
}

void sl_json_put_float(sl_buffer *out, const char *key, float value) {
    char text[SL_NUMBER_SIZE] = "null";
    sl_json_key(out, key);
    if (isfinite(value)) sl_format_float(text, value);
    sl_buffer_puts(out, text);
}

void sl_json_write_value(sl_buffer *out, const sl_json *value) {
    const char *brackets = value->type == SL_JSON_ARRAY ? "[]" : "{}";
    switch (value->type) {
    case SL_JSON_NULL: sl_buffer_puts(out, "null"); return;
    case SL_JSON_BOOL: sl_buffer_puts(out, value->boolean ? "true" : "false"); return;
    case SL_JSON_NUMBER: sl_buffer_append(out, value->text, value->length); return;
    case SL_JSON_STRING: sl_json_write_string(out, value->text, value->length); return;
    case SL_JSON_ARRAY:
    case SL_JSON_OBJECT: break;
    }
    sl_buffer_putc(out, brackets[0]);
    for (const sl_json *child = value->first; child; child = child->next) {
        if (child != value->first) sl_buffer_putc(out, ',');
        if (value->type == SL_JSON_OBJECT) {
            sl_json_write_string(out, child->key, child->key_length);
            sl_buffer_putc(out, ':');
        }
        sl_json_write_value(out, child);
    }
    sl_buffer_putc(out, brackets[1]);
}

void sl_json_comma(sl_buffer *out) {
    if (!out->length) return;
    char last = out->data[out->length - 1];
    if (last != '{' && last != '[' && last != ':' && last != '\n') sl_buffer_putc(out, ',');
}

void sl_json_key(sl_buffer *out, const char *key) {
    sl_json_comma(out);
    sl_json_write_string(out, key, strlen(key));
    sl_buffer_putc(out, ':');
}

void sl_json_put_string(sl_buffer *out, const char *key, const char *value) {
    sl_json_key(out, key);
    if (value) sl_json_write_string(out, value, strlen(value));
    else sl_buffer_puts(out, "null");
}

void sl_json_put_int(sl_buffer *out, const char *key, int64_t value) {
    sl_json_key(out, key);
    sl_buffer_printf(out, "%lld", (long long)value);
}

void sl_json_put_double(sl_buffer *out, const char *key, double value) {
    sl_json_key(out, key);
    sl_json_write_double(out, value);
}

void sl_json_put_bool(sl_buffer *out, const char *key, bool value) {
    sl_json_key(out, key);
    sl_buffer_puts(out, value ? "true" : "false");
}
