/* The template interpreter from outside: the jinja cases of the reference, lines of errors, limits, hostile input, two
 * threads on one template, and allocation failures. */
#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "text/template.h"
#include "unit/fail_alloc.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Compiles and renders; out must be zero or freed. */
static sllm_status render(const char *source, const char *vars, const sl_template_limits *limits, sl_buffer *out,
                          sllm_error *error) {
    sl_arena arena = {0};
    const sl_json *json = NULL;
    sl_template *tmpl = NULL;
    *error = (sllm_error){0};
    sllm_status status = vars ? sl_json_parse(&arena, vars, strlen(vars), "vars", &json, error) : SLLM_OK;
    if (!status) status = sl_template_compile(source, strlen(source), &tmpl, error);
    if (!status) status = sl_template_render(tmpl, json, "2026-01-15T09:30:00", limits, out, error);
    sl_template_free(tmpl);
    sl_arena_free(&arena);
    return status;
}

static void expect_text(const char *source, const char *vars, const char *wanted) {
    sl_buffer out = {0};
    sllm_error error;
    sllm_status status = render(source, vars, NULL, &out, &error);
    if (status) fail_msg("%s: %s", source, error.message);
    assert_string_equal(out.data ? out.data : "", wanted);
    sl_buffer_free(&out);
}

static void expect_failure(const char *source, const char *vars, int line, const char *message) {
    sl_buffer out = {0};
    sllm_error error;
    assert_int_equal(render(source, vars, NULL, &out, &error), SLLM_ERROR_TEMPLATE);
    assert_int_equal(error.line, line);
    assert_false(error.raised);
    assert_string_equal(error.message, message);
    sl_buffer_free(&out);
}

static void test_reference_cases(void **state) {
    (void)state;
    sl_buffer text = {0};
    sllm_error error;
    int n = 0;
    assert_int_equal(
        sl_file_read(SLLM_SOURCE_DIR "/tests/golden/data/templates/jinja/cases.jsonl", 1 << 24, &text, &error),
        SLLM_OK);
    for (char *p = text.data, *stop; (stop = strchr(p, '\n')); p = stop + 1, n++) {
        sl_arena arena = {0};
        const sl_json *test;
        sl_buffer out = {0}, vars = {0};
        assert_int_equal(sl_json_parse(&arena, p, (size_t)(stop - p), "case", &test, &error), SLLM_OK);
        const char *source = sl_json_string(sl_json_get(test, "template"));
        const sl_json *wanted = sl_json_get(test, "expected");
        if (sl_json_get(test, "vars")) sl_json_write_value(&vars, sl_json_get(test, "vars"));
        sllm_status status = render(source, vars.data, NULL, &out, &error);
        if (!wanted != !!status) fail_msg("%s: %s", source, status ? error.message : "did not fail");
        if (wanted) {
            assert_int_equal(out.length, wanted->length);
            if (out.length) assert_memory_equal(out.data, wanted->text, out.length);
        }
        sl_buffer_free(&out);
        sl_buffer_free(&vars);
        sl_arena_free(&arena);
    }
    assert_int_equal(n, 508);
    sl_buffer_free(&text);
}

static void test_error_lines(void **state) {
    (void)state;
    expect_failure("a\nb\n{{ x.y }}", NULL, 3, "UndefinedError: line 3: 'x' is undefined");
    expect_failure("{% if a %}\n{{ 1 +\n 'x' }}{% endif %}", "{\"a\":1}", 2,
                   "TypeError: line 2: unsupported operand type(s) for +: 'int' and 'str'");
    expect_failure("\n\n{% for x in %}{% endfor %}", NULL, 3,
                   "TemplateSyntaxError: line 3: Expected an expression, got 'end of statement block'");
    expect_failure("{{ 'a' }}\n{# never", NULL, 2, "TemplateSyntaxError: line 2: Missing end of comment tag");
    expect_failure("{{ [].append(1) }}", NULL, 1,
                   "SecurityError: line 1: access to attribute 'append' of 'list' object is unsafe.");
    expect_failure("x\r\ny\r\n{% include 'a' %}", NULL, 3,
                   "TypeError: line 3: {% include %} needs other templates, and a chat template has none");
}

static void test_raise_exception(void **state) {
    (void)state;
    sl_buffer out = {0};
    sllm_error error;
    assert_int_equal(render("text\n{{ raise_exception('No: ' ~ n ~ '\\n') }}", "{\"n\":7}", NULL, &out, &error),
                     SLLM_ERROR_TEMPLATE);
    assert_true(error.raised);
    assert_string_equal(error.message, "No: 7\n");
    assert_int_equal(out.length, 0); /* nothing half-written */
    sl_buffer_free(&out);
}

static void expect_limit(const char *source, const char *which) {
    sl_template_limits limits = {.steps = 200000, .output_bytes = 1 << 20, .memory_bytes = 8 << 20};
    sl_buffer out = {0};
    sllm_error error;
    if (render(source, NULL, &limits, &out, &error) != SLLM_ERROR_TEMPLATE) fail_msg("%s: passed", source);
    if (!strstr(error.message, which)) fail_msg("%s: '%s' does not name '%s'", source, error.message, which);
    sl_buffer_free(&out);
}

static void test_limits(void **state) {
    (void)state;
    expect_limit("{{ range(10 ** 12) }}", "Range too big");
    expect_limit("{{ 'a' * 10 ** 12 }}", "memory");
    expect_limit("{{ [1] * 10 ** 12 }}", "memory");
    expect_limit("{{ 10 ** (10 ** 9) }}", "limit");
    expect_limit("{{ 7 ** (10 ** 30) }}", "steps");
    expect_limit("{{ '%999999999d' % 1 }}", "memory");
    expect_limit("{{ '{:999999999}'.format(1) }}", "memory");
    expect_limit("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps");
    expect_limit("{% for a in range(9999) %}{{ 'x' * 1000 }}{% endfor %}", "limit");
    expect_limit("{% for a in range(9999) %}0123456789012345678901234567890123456789012345678901234567890123456789"
                 "0123456789012345678901234567890123456789{% endfor %}",
                 "output");
    expect_limit("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "depth");
    expect_limit(
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "nesting");
    expect_limit("{{ 'a'.center(10 ** 9) }}", "memory");
    expect_limit("{{ [1]|batch(10 ** 15, 0)|list }}", "memory");
}

static void test_deep_syntax(void **state) {
    (void)state;
    static const char *const pieces[] = {"(", "[", "-", "not ", "{% if 1 %}", "a.b[", "1+", "x|", "1 if "};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        sl_buffer source = {0}, out = {0};
        sllm_error error;
        if (pieces[i][0] != '{') sl_buffer_puts(&source, "{{ ");
        for (int k = 0; k < 20000; k++) sl_buffer_puts(&source, pieces[i]);
        assert_int_equal(render(source.data, NULL, NULL, &out, &error), SLLM_ERROR_TEMPLATE);
        sl_buffer_free(&source);
        sl_buffer_free(&out);
    }
}

static void test_python_shows_through(void **state) {
    (void)state;
    expect_text("{{ 2 ** 100 // 7 }} {{ -(2 ** 70) % 1000 }}", NULL, "181092942889747057356671886482 576");
    expect_text("{{ big * big }}", "{\"big\":12345678901234567890}", "152415787532388367501905199875019052100");
    expect_text("{{ {'b': [1.0, none], 'a': ('x',)} }}", NULL, "{'b': [1.0, None], 'a': ('x',)}");
    expect_text("{{ 'Straße ΟΔΟΣ'.upper() }} {{ 'ΟΔΟΣ'.lower() }}", NULL, "STRASSE ΟΔΟΣ οδος");
    expect_text("{{ xs|map('upper')|join }}{{ missing|map('nosuch')|list }}", "{\"xs\":[\"a\"]}", "A[]");
}

/* ---------------------------------------------------------------- chats */

/* As Jinja 3.1.6 writes them. */
static void test_rarer_features(void **state) {
    (void)state;
    expect_text("{% block a %}[{{ 1 }}]{% endblock %}{{ self.a() }}{{ self.b is defined }}", NULL, "[1][1]False");
    expect_text(
        "{% for x in [1, 2] %}{% block a scoped %}{{ x }}{% endblock %}{% block b %}{{ x }}{% endblock %}{% endfor %}",
        NULL, "12");
    expect_text("{% macro m() %}{% generation %}{{ kwargs }}{{ varargs }}{% endgeneration %}{{ kwargs }}{% endmacro "
                "%}{{ m(1, z=2) }}",
                NULL, "{}(){'z': 2}");
    expect_text("{% for x in [1] %}{% continue %}{% else %}none{% endfor %}", NULL, "none");
    expect_text("{{ {'a': 1, 'b': 2}.keys() - ['a'] }}{{ (3)[1:] }}", NULL, "{'b'}");
    expect_text("{{ 'see (www.example.com/a_(b)), me@ex.org.'|urlize(12, true) }}", NULL,
                "see (<a href=\"https://www.example.com/a_(b)\" rel=\"nofollow noopener\">www.example....</a>), <a "
                "href=\"mailto:me@ex.org\">me@ex.org</a>.");
    expect_text("{{ ('word ' * 20)|pprint }}", NULL,
                "('word word word word word word word word word word word word word word word '\n 'word word word word "
                "word ')");
    expect_text("{{ {'b': 'word ' * 18, none: 1, 2: [1]}|pprint }}", NULL,
                "{None: 1,\n 2: [1],\n 'b': 'word word word word word word word word word word word word word word '\n "
                "     'word word word word '}");
    expect_text("{{ '<!-- a > b --><b>x</b> &eacute;&notx; &#x80;&#0;&alpha;'|striptags }}", NULL, "x é¬x; €�α");
    expect_text("{{ strftime_now('%-d|%5d|%^a|%_H|%Od|%Ed') }}", NULL, "15|00015|THU| 9|15|%Ed");
    expect_text("{{ '{:z.1f}'.format(-0.01) }}", NULL, "0.0");
}

static void test_chat(void **state) {
    (void)state;
    static const char source[] =
        "{% for m in messages %}[{{ m.role }}]{{ m.thinking }}{{ m.content }}{% endfor %}{% if "
        "add_generation_prompt %}[assistant]{% endif %}{{ bos_token }}{{ tools is none }}";
    char *text;
    size_t length;
    sllm_error error;
    assert_int_equal(sllm_template_render_text(source, strlen(source),
                                               "[{\"role\":\"user\",\"content\":\"a\",\"reasoning\":\"r\"}]",
                                               "{\"kwargs\":{\"bos_token\":\"<s>\"}}", &text, &length, &error),
                     SLLM_OK);
    assert_string_equal(text, "[user]ra[assistant]<s>True");
    assert_int_equal(length, strlen(text));
    sllm_free(text);
    assert_int_equal(sllm_template_render_text(
                         source, strlen(source), "[{\"role\":\"assistant\",\"content\":\"yes \"}]",
                         "{\"continue_final_message\":true,\"add_generation_prompt\":false}", &text, NULL, &error),
                     SLLM_OK);
    assert_string_equal(text, "[assistant]yes ");
    sllm_free(text);
    assert_int_equal(sllm_template_render_text("x", 1, "[]", "{\"tool\":[]}", &text, NULL, &error),
                     SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "unknown option 'tool'"));
    assert_null(text);
    assert_int_equal(sllm_template_render_text("x", 1, "{}", NULL, &text, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_template_render_text("x", 1, "[", NULL, &text, NULL, &error), SLLM_ERROR_FORMAT);
}

/* ---------------------------------------------------------------- threads */

static const char work_source[] =
    "{% set ns = namespace(s='') %}{% macro m(x) %}<{{ x }}>{% endmacro %}{% for i in range(50) %}{% set ns.s = ns.s ~ "
    "m(i * k) %}{% endfor %}{{ ns.s|upper }}{{ d|tojson(indent=2) }}{{ d|dictsort }}{{ 'a'|wordwrap(3) }}";
static const char work_vars[] = "{\"k\":3.5,\"d\":{\"b\":[1,2],\"a\":{\"x\":null}}}";

static void *render_often(void *tmpl) {
    sl_arena arena = {0};
    const sl_json *vars;
    bool same = sl_json_parse(&arena, work_vars, strlen(work_vars), "vars", &vars, NULL) == SLLM_OK;
    sl_buffer first = {0};
    for (int i = 0; same && i < 50; i++) {
        sl_buffer out = {0};
        same = sl_template_render(tmpl, vars, NULL, NULL, i ? &out : &first, NULL) == SLLM_OK;
        if (i) same = same && out.length == first.length && !memcmp(out.data, first.data, out.length);
        sl_buffer_free(&out);
    }
    sl_buffer_free(&first);
    sl_arena_free(&arena);
    return same ? tmpl : NULL;
}

static void test_threads(void **state) {
    (void)state;
    sl_template *tmpl;
    pthread_t threads[4];
    assert_int_equal(sl_template_compile(work_source, strlen(work_source), &tmpl, NULL), SLLM_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, render_often, tmpl), 0);
    for (int i = 0; i < 4; i++) {
        void *same;
        pthread_join(threads[i], &same);
        assert_ptr_equal(same, tmpl);
    }
    sl_template_free(tmpl);
}

static void test_allocation_failures(void **state) {
    (void)state;
    bool hit = true;
    for (int sticky = 0; sticky < 2; sticky++, hit = true) {
        for (long n = 1; hit; n++) {
            char *text = NULL;
            sllm_error error = {0};
            fail_alloc_arm(n, sticky);
            sllm_status status = sllm_template_render_text(
                work_source, sizeof work_source - 1, "[{\"role\":\"user\",\"content\":\"x\"}]",
                "{\"kwargs\":{\"k\":2,\"d\":{\"b\":1}}}", &text, NULL, &error);
            hit = fail_alloc_disarm();
            assert_int_equal(status, hit ? SLLM_ERROR_MEMORY : SLLM_OK);
            assert_int_equal(text == NULL, hit);
            sllm_free(text);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_cases), cmocka_unit_test(test_error_lines),
        cmocka_unit_test(test_raise_exception), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deep_syntax),     cmocka_unit_test(test_python_shows_through),
        cmocka_unit_test(test_rarer_features),  cmocka_unit_test(test_chat),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_allocation_failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
