/* Tokens to syntax tree: the grammar of Jinja's parser, with the loop controls and "generation" blocks that
 * transformers adds. Which members of a node each kind uses is said where it is made. */
#include "text/jinja_lex.h"

#include <string.h>

typedef struct parser {
    jinja *j;
    const jinja_token *token; /* the one at hand; the last is JINJA_T_END and stays */
    jinja_value names;        /* dict: name -> index */
    jinja_program *program;
    size_t names_capacity, n_blocks, blocks_capacity;
} parser;

enum { MAX_EXPRESSION_DEPTH = 400 };

/* ---------------------------------------------------------------- tokens */

static noreturn void fail_at(parser *p, int line, const char *message) {
    p->j->line = line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "%s", message);
}

static const char *describe(parser *p, const jinja_token *token) {
    switch (token->kind) {
    case JINJA_T_END: return "end of template";
    case JINJA_T_DATA: return "template data";
    case JINJA_T_VARIABLE_BEGIN: return "begin of print statement";
    case JINJA_T_VARIABLE_END: return "end of print statement";
    case JINJA_T_BLOCK_BEGIN: return "begin of statement block";
    case JINJA_T_BLOCK_END: return "end of statement block";
    default: break;
    }
    jinja_text text = {.j = p->j};
    sl_jinja_write_str(&text, token->value);
    sl_jinja_text_putc(&text, 0);
    return text.data;
}

static noreturn void fail_expected(parser *p, const char *what) {
    p->j->line = p->token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "expected token '%s', got '%.100s'", what, describe(p, p->token));
}

static const jinja_token *next(parser *p) {
    const jinja_token *token = p->token;
    if (token->kind != JINJA_T_END) p->token++;
    return token;
}

static bool token_is(const jinja_token *token, jinja_token_kind kind, const char *text) {
    return token->kind == kind && sl_jinja_string_is(token->value, text);
}
static bool is_op(const parser *p, const char *op) { return token_is(p->token, JINJA_T_OPERATOR, op); }
static bool is_word(const parser *p, const char *word) { return token_is(p->token, JINJA_T_NAME, word); }

static bool skip_op(parser *p, const char *op) {
    if (!is_op(p, op)) return false;
    next(p);
    return true;
}
static bool skip_word(parser *p, const char *word) {
    if (!is_word(p, word)) return false;
    next(p);
    return true;
}
static const jinja_token *expect_op(parser *p, const char *op) {
    if (!is_op(p, op)) fail_expected(p, op);
    return next(p);
}
static const jinja_token *expect(parser *p, jinja_token_kind kind, const char *what) {
    if (p->token->kind != kind) fail_expected(p, what);
    return next(p);
}
static const jinja_token *expect_name(parser *p) { return expect(p, JINJA_T_NAME, "name"); }

/* ---------------------------------------------------------------- nodes */

static jinja_node *new_node(parser *p, jinja_kind kind, int line) {
    jinja_node *node = sl_jinja_alloc(p->j, sizeof *node);
    node->kind = (uint8_t)kind;
    node->line = line;
    node->name = -1;
    return node;
}

/* Notes that child lies under node. */
static jinja_node *under(parser *p, jinja_node *node, jinja_node *child) {
    if (child && child->depth >= node->depth) node->depth = (uint16_t)(child->depth + 1);
    if (node->depth > MAX_EXPRESSION_DEPTH) fail_at(p, node->line, "the expression nests too deeply");
    return child;
}

static jinja_node *binary(parser *p, jinja_kind kind, jinja_operator op, int line, jinja_node *a, jinja_node *b) {
    jinja_node *node = new_node(p, kind, line);
    node->op = (uint8_t)op;
    node->a = under(p, node, a);
    node->b = under(p, node, b);
    return node;
}

typedef struct nodes {
    jinja_node **items;
    size_t n, capacity;
} nodes;

static void add(parser *p, nodes *list, jinja_node *node) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        jinja_node **items = sl_jinja_array(p->j, capacity, sizeof *items);
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = node;
}

static int intern(parser *p, jinja_value text) {
    jinja_value *found = sl_jinja_dict_get(p->j, p->names.as.dict, text);
    if (found) return (int)found->as.integer;
    jinja_program *program = p->program;
    if (program->n_names == p->names_capacity) {
        size_t capacity = p->names_capacity ? p->names_capacity * 2 : 64;
        jinja_value *names = sl_jinja_array(p->j, capacity, sizeof *names);
        if (program->n_names) memcpy(names, program->names, program->n_names * sizeof *names);
        program->names = names;
        p->names_capacity = capacity;
    }
    program->names[program->n_names] = text;
    sl_jinja_dict_set(p->j, p->names.as.dict, text, sl_jinja_int((int64_t)program->n_names));
    return (int)program->n_names++;
}

static void add_name(parser *p, jinja_node *node, size_t *capacity, int name) {
    if (node->n_names == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 4;
        int *names = sl_jinja_array(p->j, *capacity, sizeof *names);
        if (node->n_names) memcpy(names, node->names, node->n_names * sizeof *names);
        node->names = names;
    }
    node->names[node->n_names++] = name;
}

/* ---------------------------------------------------------------- expressions */

static jinja_node *parse_expression(parser *p, bool with_condition);
static jinja_node *parse_tuple(parser *p, bool simple, bool with_condition, const char *end_word, bool parentheses,
                               bool with_namespace);
static jinja_node *parse_unary(parser *p, bool with_filter);
static jinja_node *parse_filter(parser *p, jinja_node *node, bool start_inline);

/* CONST: value. */
static jinja_node *constant(parser *p, int line, jinja_value value) {
    jinja_node *node = new_node(p, JINJA_CONST, line);
    node->value = value;
    return node;
}

/* NAME: name; NSREF: name, value (the attribute). */
static jinja_node *parse_name(parser *p, bool with_namespace) {
    const jinja_token *token = next(p);
    jinja_value v = token->value;
    if (sl_jinja_string_is(v, "true") || sl_jinja_string_is(v, "True")) return constant(p, token->line, sl_jinja_true);
    if (sl_jinja_string_is(v, "false") || sl_jinja_string_is(v, "False"))
        return constant(p, token->line, sl_jinja_false);
    if (sl_jinja_string_is(v, "none") || sl_jinja_string_is(v, "None")) return constant(p, token->line, sl_jinja_none);
    jinja_node *node = new_node(p, JINJA_NAME, token->line);
    node->name = intern(p, v);
    node->value = v;
    if (with_namespace && skip_op(p, ".")) {
        node->kind = JINJA_NSREF;
        node->value = expect_name(p)->value;
    }
    return node;
}

static jinja_node *parse_strings(parser *p) {
    int line = p->token->line;
    jinja_value value = next(p)->value;
    if (p->token->kind == JINJA_T_STRING) {
        jinja_text text = {.j = p->j};
        sl_jinja_write_str(&text, value);
        while (p->token->kind == JINJA_T_STRING) sl_jinja_write_str(&text, next(p)->value);
        value = sl_jinja_text_value(&text);
    }
    return constant(p, line, value);
}

/* LIST_EXPR: items. */
static jinja_node *parse_list(parser *p) {
    jinja_node *node = new_node(p, JINJA_LIST_EXPR, expect_op(p, "[")->line);
    nodes items = {0};
    while (!is_op(p, "]")) {
        if (items.n) expect_op(p, ",");
        if (is_op(p, "]")) break;
        add(p, &items, under(p, node, parse_expression(p, true)));
    }
    expect_op(p, "]");
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

/* DICT_EXPR: items (keys), other (values). */
static jinja_node *parse_dict(parser *p) {
    jinja_node *node = new_node(p, JINJA_DICT_EXPR, expect_op(p, "{")->line);
    nodes keys = {0}, values = {0};
    while (!is_op(p, "}")) {
        if (keys.n) expect_op(p, ",");
        if (is_op(p, "}")) break;
        add(p, &keys, under(p, node, parse_expression(p, true)));
        expect_op(p, ":");
        add(p, &values, under(p, node, parse_expression(p, true)));
    }
    expect_op(p, "}");
    node->items = keys.items;
    node->other = values.items;
    node->n_items = node->n_other = keys.n;
    return node;
}

static jinja_node *parse_primary(parser *p, bool with_namespace) {
    const jinja_token *token = p->token;
    switch (token->kind) {
    case JINJA_T_NAME: return parse_name(p, with_namespace);
    case JINJA_T_STRING: return parse_strings(p);
    case JINJA_T_INTEGER:
    case JINJA_T_FLOAT: next(p); return constant(p, token->line, token->value);
    default: break;
    }
    if (skip_op(p, "(")) {
        jinja_node *node = parse_tuple(p, false, true, NULL, true, false);
        expect_op(p, ")");
        return node;
    }
    if (is_op(p, "[")) return parse_list(p);
    if (is_op(p, "{")) return parse_dict(p);
    p->j->line = token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "unexpected '%.100s'", describe(p, token));
}

/* TUPLE_EXPR: items. A single expression without a comma stays itself. */
static jinja_node *parse_tuple(parser *p, bool simple, bool with_condition, const char *end_word, bool parentheses,
                               bool with_namespace) {
    nodes items = {0};
    bool is_tuple = false;
    int line = p->token->line;
    for (;;) {
        if (items.n) expect_op(p, ",");
        if (p->token->kind == JINJA_T_VARIABLE_END || p->token->kind == JINJA_T_BLOCK_END || is_op(p, ")") ||
            (end_word && is_word(p, end_word)))
            break;
        add(p, &items, simple ? parse_primary(p, with_namespace) : parse_expression(p, with_condition));
        if (!is_op(p, ",")) break;
        is_tuple = true;
        line = p->token->line;
    }
    if (!is_tuple && items.n) return items.items[0];
    if (!is_tuple && !parentheses) {
        p->j->line = p->token->line;
        sl_jinja_fail(p->j, "TemplateSyntaxError", "Expected an expression, got '%.100s'", describe(p, p->token));
    }
    jinja_node *node = new_node(p, JINJA_TUPLE_EXPR, line);
    for (size_t i = 0; i < items.n; i++) under(p, node, items.items[i]);
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

/* SLICE: a start, b stop, c step, each may be NULL. */
static jinja_node *parse_subscript_item(parser *p) {
    int line = p->token->line;
    jinja_node *start = NULL;
    if (!is_op(p, ":")) {
        start = parse_expression(p, true);
        if (!is_op(p, ":")) return start;
    }
    next(p);
    jinja_node *node = new_node(p, JINJA_SLICE, line);
    node->a = under(p, node, start);
    if (!is_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) node->b = under(p, node, parse_expression(p, true));
    if (skip_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) node->c = under(p, node, parse_expression(p, true));
    return node;
}

/* GETATTR: a object, value name. GETITEM: a object, b key or SLICE. */
static jinja_node *parse_subscript(parser *p, jinja_node *object) {
    int line = p->token->line;
    if (skip_op(p, ".")) {
        const jinja_token *token = next(p);
        if (token->kind == JINJA_T_NAME) {
            jinja_node *node = new_node(p, JINJA_GETATTR, line);
            node->a = under(p, node, object);
            node->value = token->value;
            return node;
        }
        if (token->kind != JINJA_T_INTEGER) fail_at(p, token->line, "expected name or number");
        return binary(p, JINJA_GETITEM, 0, line, object, constant(p, token->line, token->value));
    }
    expect_op(p, "[");
    nodes items = {0};
    while (!is_op(p, "]")) {
        if (items.n) expect_op(p, ",");
        add(p, &items, parse_subscript_item(p));
    }
    expect_op(p, "]");
    if (items.n == 1) return binary(p, JINJA_GETITEM, 0, line, object, items.items[0]);
    jinja_node *tuple = new_node(p, JINJA_TUPLE_EXPR, line);
    for (size_t i = 0; i < items.n; i++) {
        if (items.items[i]->kind == JINJA_SLICE) fail_at(p, line, "a subscript takes one slice only");
        under(p, tuple, items.items[i]);
    }
    tuple->items = items.items;
    tuple->n_items = items.n;
    return binary(p, JINJA_GETITEM, 0, line, object, tuple);
}

/* The arguments of a call, filter or test: items, names + other (keywords), b (*args), c (**kwargs). */
static void parse_arguments(parser *p, jinja_node *node) {
    int line = expect_op(p, "(")->line;
    nodes items = {0}, values = {0};
    size_t names_capacity = 0;
    bool comma = false;
    while (!is_op(p, ")")) {
        if (comma) {
            expect_op(p, ",");
            if (is_op(p, ")")) break;
        }
        bool keyword = p->token->kind == JINJA_T_NAME && token_is(p->token + 1, JINJA_T_OPERATOR, "=");
        bool ok = true;
        if (skip_op(p, "*")) {
            ok = !node->b && !node->c;
            node->b = under(p, node, parse_expression(p, true));
        } else if (skip_op(p, "**")) {
            ok = !node->c;
            node->c = under(p, node, parse_expression(p, true));
        } else if (keyword) {
            ok = !node->c;
            int name = intern(p, next(p)->value);
            next(p);
            for (size_t i = 0; i < node->n_names; i++) ok = ok && node->names[i] != name;
            add_name(p, node, &names_capacity, name);
            add(p, &values, under(p, node, parse_expression(p, true)));
        } else {
            ok = !node->b && !node->c && !node->n_names;
            add(p, &items, under(p, node, parse_expression(p, true)));
        }
        if (!ok) fail_at(p, line, "invalid syntax for function call expression");
        comma = true;
    }
    expect_op(p, ")");
    node->items = items.items;
    node->n_items = items.n;
    node->other = values.items;
    node->n_other = values.n;
}

/* CALL: a callee, arguments as above. */
static jinja_node *parse_call(parser *p, jinja_node *callee) {
    jinja_node *node = new_node(p, JINJA_CALL, p->token->line);
    node->a = under(p, node, callee);
    parse_arguments(p, node);
    return node;
}

static jinja_node *parse_postfix(parser *p, jinja_node *node) {
    for (;;) {
        if (is_op(p, ".") || is_op(p, "[")) node = parse_subscript(p, node);
        else if (is_op(p, "(")) node = parse_call(p, node);
        else return node;
    }
}

/* "name.name" of a filter or test. */
static jinja_value parse_dotted_name(parser *p) {
    jinja_value name = expect_name(p)->value;
    while (skip_op(p, ".")) {
        jinja_text text = {.j = p->j};
        sl_jinja_write_str(&text, name);
        sl_jinja_text_putc(&text, '.');
        sl_jinja_write_str(&text, expect_name(p)->value);
        name = sl_jinja_text_value(&text);
    }
    return name;
}

/* FILTER: a value (NULL: the text of a block), value name, entry, arguments. */
static jinja_node *parse_filter(parser *p, jinja_node *node, bool start_inline) {
    while (start_inline || is_op(p, "|")) {
        if (!start_inline) next(p);
        start_inline = false;
        jinja_node *filter = new_node(p, JINJA_FILTER, p->token->line);
        filter->a = under(p, filter, node);
        filter->value = parse_dotted_name(p);
        const jinja_string *name = filter->value.as.string;
        filter->entry = sl_jinja_find_filter(name->data, name->length);
        if (is_op(p, "(")) parse_arguments(p, filter);
        node = filter;
    }
    return node;
}

/* TEST: a value, value name, entry, arguments. "is not" wraps it in NOT. */
static jinja_node *parse_test(parser *p, jinja_node *value) {
    int line = next(p)->line;
    bool negated = skip_word(p, "not");
    jinja_node *node = new_node(p, JINJA_TEST, line);
    node->a = under(p, node, value);
    node->value = parse_dotted_name(p);
    const jinja_string *name = node->value.as.string;
    node->entry = sl_jinja_find_test(name->data, name->length);
    jinja_token_kind kind = p->token->kind;
    if (is_op(p, "(")) {
        parse_arguments(p, node);
    } else if ((kind == JINJA_T_NAME || kind == JINJA_T_STRING || kind == JINJA_T_INTEGER || kind == JINJA_T_FLOAT ||
                is_op(p, "[") || is_op(p, "{")) &&
               !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and")) {
        if (is_word(p, "is")) fail_at(p, p->token->line, "You cannot chain multiple tests with is");
        nodes items = {0};
        add(p, &items, under(p, node, parse_postfix(p, parse_primary(p, false))));
        node->items = items.items;
        node->n_items = 1;
    }
    return negated ? binary(p, JINJA_NOT, 0, line, node, NULL) : node;
}

static jinja_node *parse_filters(parser *p, jinja_node *node) {
    for (;;) {
        if (is_op(p, "|")) node = parse_filter(p, node, false);
        else if (is_word(p, "is")) node = parse_test(p, node);
        else if (is_op(p, "(")) node = parse_call(p, node);
        else return node;
    }
}

static jinja_node *parse_unary(parser *p, bool with_filter) {
    int line = p->token->line;
    jinja_node *node;
    sl_jinja_enter(p->j);
    if (skip_op(p, "-")) node = binary(p, JINJA_NEG, 0, line, parse_unary(p, false), NULL);
    else if (skip_op(p, "+")) node = binary(p, JINJA_POS, 0, line, parse_unary(p, false), NULL);
    else node = parse_primary(p, false);
    sl_jinja_leave(p->j);
    node = parse_postfix(p, node);
    return with_filter ? parse_filters(p, node) : node;
}

static jinja_node *parse_power(parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_unary(p, true);
    while (skip_op(p, "**")) {
        left = binary(p, JINJA_BINARY, JINJA_POW, line, left, parse_unary(p, true));
        line = p->token->line;
    }
    return left;
}

static jinja_node *parse_product(parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_power(p);
    for (;;) {
        jinja_operator op;
        if (skip_op(p, "*")) op = JINJA_MUL;
        else if (skip_op(p, "/")) op = JINJA_DIV;
        else if (skip_op(p, "//")) op = JINJA_FLOORDIV;
        else if (skip_op(p, "%")) op = JINJA_MOD;
        else return left;
        left = binary(p, JINJA_BINARY, op, line, left, parse_power(p));
        line = p->token->line;
    }
}

/* CONCAT: items. */
static jinja_node *parse_concat(parser *p) {
    int line = p->token->line;
    jinja_node *first = parse_product(p);
    if (!is_op(p, "~")) return first;
    jinja_node *node = new_node(p, JINJA_CONCAT, line);
    nodes items = {0};
    add(p, &items, under(p, node, first));
    while (skip_op(p, "~")) add(p, &items, under(p, node, parse_product(p)));
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

static jinja_node *parse_sum(parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_concat(p);
    for (;;) {
        jinja_operator op;
        if (skip_op(p, "+")) op = JINJA_ADD;
        else if (skip_op(p, "-")) op = JINJA_SUB;
        else return left;
        left = binary(p, JINJA_BINARY, op, line, left, parse_concat(p));
        line = p->token->line;
    }
}

static bool parse_comparison_operator(parser *p, jinja_operator *op) {
    static const struct {
        const char *text;
        jinja_operator op;
    } operators[] = {{"==", JINJA_EQ}, {"!=", JINJA_NE}, {"<", JINJA_LT},
                     {"<=", JINJA_LE}, {">", JINJA_GT},  {">=", JINJA_GE}};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!skip_op(p, operators[i].text)) continue;
        *op = operators[i].op;
        return true;
    }
    if (skip_word(p, "in")) {
        *op = JINJA_IN;
        return true;
    }
    if (is_word(p, "not") && token_is(p->token + 1, JINJA_T_NAME, "in")) {
        next(p);
        next(p);
        *op = JINJA_NOT_IN;
        return true;
    }
    return false;
}

/* COMPARE: a first operand, items and ops the rest. */
static jinja_node *parse_comparison(parser *p) {
    int line = p->token->line;
    jinja_node *first = parse_sum(p), *node = NULL;
    jinja_operator op;
    nodes items = {0};
    jinja_text ops = {.j = p->j};
    while (parse_comparison_operator(p, &op)) {
        if (!node) {
            node = new_node(p, JINJA_COMPARE, line);
            node->a = under(p, node, first);
        }
        sl_jinja_text_putc(&ops, (char)op);
        add(p, &items, under(p, node, parse_sum(p)));
    }
    if (!node) return first;
    node->items = items.items;
    node->n_items = items.n;
    node->ops = (uint8_t *)ops.data;
    return node;
}

static jinja_node *parse_not(parser *p) {
    int line = p->token->line;
    if (!skip_word(p, "not")) return parse_comparison(p);
    sl_jinja_enter(p->j);
    jinja_node *node = binary(p, JINJA_NOT, 0, line, parse_not(p), NULL);
    sl_jinja_leave(p->j);
    return node;
}

static jinja_node *parse_and(parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_not(p);
    while (skip_word(p, "and")) {
        left = binary(p, JINJA_AND, 0, line, left, parse_not(p));
        line = p->token->line;
    }
    return left;
}

static jinja_node *parse_or(parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_and(p);
    while (skip_word(p, "or")) {
        left = binary(p, JINJA_OR, 0, line, left, parse_and(p));
        line = p->token->line;
    }
    return left;
}

/* COND: a test, b value, c otherwise (NULL: undefined). */
static jinja_node *parse_expression(parser *p, bool with_condition) {
    sl_jinja_enter(p->j);
    int line = p->token->line;
    jinja_node *node = parse_or(p);
    while (with_condition && skip_word(p, "if")) {
        jinja_node *condition = new_node(p, JINJA_COND, line);
        condition->b = under(p, condition, node);
        condition->a = under(p, condition, parse_or(p));
        if (skip_word(p, "else")) condition->c = under(p, condition, parse_expression(p, true));
        node = condition;
        line = p->token->line;
    }
    sl_jinja_leave(p->j);
    return node;
}

/* ---------------------------------------------------------------- statements */

static void parse_until(parser *p, const char *const *ends, const char *tag, jinja_node ***body, size_t *n);

/* "%}", the body, and the end tag's name, which is taken when `drop`. */
static void parse_body(parser *p, const char *const *ends, const char *tag, bool drop, jinja_node ***body, size_t *n) {
    skip_op(p, ":");
    expect(p, JINJA_T_BLOCK_END, "end of statement block");
    sl_jinja_enter(p->j);
    parse_until(p, ends, tag, body, n);
    sl_jinja_leave(p->j);
    if (drop) next(p);
}

static bool is_assignable(const jinja_node *node) {
    if (node->kind == JINJA_NAME || node->kind == JINJA_NSREF) return true;
    if (node->kind != JINJA_TUPLE_EXPR) return false;
    for (size_t i = 0; i < node->n_items; i++)
        if (!is_assignable(node->items[i])) return false;
    return true;
}

static jinja_node *parse_target(parser *p, const char *end_word, bool with_namespace) {
    jinja_node *target = parse_tuple(p, true, true, end_word, false, with_namespace);
    if (!is_assignable(target)) fail_at(p, target->line, "can't assign to this expression");
    return target;
}

static int parse_name_target(parser *p) {
    const jinja_token *token = expect_name(p);
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (sl_jinja_string_is(token->value, constants[i])) fail_at(p, token->line, "can't assign to a constant");
    return intern(p, token->value);
}

/* SET: a target, b value. SET_BLOCK: a target, b chain of filters or NULL, body. */
static jinja_node *parse_set(parser *p) {
    jinja_node *node = new_node(p, JINJA_SET, next(p)->line);
    node->a = parse_target(p, NULL, true);
    if (skip_op(p, "=")) {
        node->b = parse_tuple(p, false, true, NULL, false, false);
        return node;
    }
    node->kind = JINJA_SET_BLOCK;
    node->b = parse_filter(p, NULL, false);
    parse_body(p, (const char *[]){"endset", NULL}, "set", true, &node->body, &node->n_body);
    return node;
}

/* FOR: a target, b iterable, c filter or NULL, flag recursive, name of "loop", body, other (else). */
static jinja_node *parse_for(parser *p) {
    jinja_node *node = new_node(p, JINJA_FOR, next(p)->line);
    node->a = parse_target(p, "in", false);
    if (!skip_word(p, "in")) fail_expected(p, "in");
    node->b = parse_tuple(p, false, false, "recursive", false, false);
    if (skip_word(p, "if")) node->c = parse_expression(p, true);
    node->flag = skip_word(p, "recursive");
    node->name = intern(p, sl_jinja_literal(p->j, "loop"));
    parse_body(p, (const char *[]){"endfor", "else", NULL}, "for", false, &node->body, &node->n_body);
    if (sl_jinja_string_is(next(p)->value, "else"))
        parse_body(p, (const char *[]){"endfor", NULL}, "for", true, &node->other, &node->n_other);
    return node;
}

/* IF: a test, body, other (else; an elif is an IF in there). */
static jinja_node *parse_if(parser *p) {
    jinja_node *first = NULL, **link = NULL;
    for (;;) {
        jinja_node *node = new_node(p, JINJA_IF, next(p)->line);
        if (link) *link = node;
        else first = node;
        node->a = parse_tuple(p, false, false, NULL, false, false);
        parse_body(p, (const char *[]){"elif", "else", "endif", NULL}, "if", false, &node->body, &node->n_body);
        if (is_word(p, "elif")) {
            node->other = sl_jinja_array(p->j, 1, sizeof *node->other);
            node->n_other = 1;
            link = node->other;
            continue;
        }
        if (sl_jinja_string_is(next(p)->value, "else"))
            parse_body(p, (const char *[]){"endif", NULL}, "if", true, &node->other, &node->n_other);
        return first;
    }
}

/* WITH: items targets, other values, body. */
static jinja_node *parse_with(parser *p) {
    jinja_node *node = new_node(p, JINJA_WITH, next(p)->line);
    nodes targets = {0}, values = {0};
    while (p->token->kind != JINJA_T_BLOCK_END) {
        if (targets.n) expect_op(p, ",");
        add(p, &targets, parse_target(p, NULL, false));
        expect_op(p, "=");
        add(p, &values, parse_expression(p, true));
    }
    node->items = targets.items;
    node->other = values.items;
    node->n_items = node->n_other = targets.n;
    parse_body(p, (const char *[]){"endwith", NULL}, "with", true, &node->body, &node->n_body);
    return node;
}

/* Parameters of a macro: names, and other: the defaults of the last of them. */
static void parse_signature(parser *p, jinja_node *node) {
    nodes defaults = {0};
    size_t capacity = 0;
    expect_op(p, "(");
    while (!is_op(p, ")")) {
        if (node->n_names) expect_op(p, ",");
        int line = p->token->line, name = parse_name_target(p);
        for (size_t i = 0; i < node->n_names; i++)
            if (node->names[i] == name) fail_at(p, line, "duplicate argument in a macro definition");
        if (skip_op(p, "=")) add(p, &defaults, parse_expression(p, true));
        else if (defaults.n) fail_at(p, line, "non-default argument follows default argument");
        add_name(p, node, &capacity, name);
    }
    expect_op(p, ")");
    node->other = defaults.items;
    node->n_other = defaults.n;
}

/* MACRO_DEF: name, signature, body. */
static jinja_node *parse_macro(parser *p) {
    jinja_node *node = new_node(p, JINJA_MACRO_DEF, next(p)->line);
    node->name = parse_name_target(p);
    parse_signature(p, node);
    parse_body(p, (const char *[]){"endmacro", NULL}, "macro", true, &node->body, &node->n_body);
    return node;
}

/* CALL_BLOCK: a CALL, signature of the caller, body. */
static jinja_node *parse_call_block(parser *p) {
    jinja_node *node = new_node(p, JINJA_CALL_BLOCK, next(p)->line);
    if (is_op(p, "(")) parse_signature(p, node);
    node->a = parse_expression(p, true);
    if (node->a->kind != JINJA_CALL) fail_at(p, node->line, "expected call");
    parse_body(p, (const char *[]){"endcall", NULL}, "call", true, &node->body, &node->n_body);
    return node;
}

/* FILTER_BLOCK: b chain of filters, body. */
static jinja_node *parse_filter_block(parser *p) {
    jinja_node *node = new_node(p, JINJA_FILTER_BLOCK, next(p)->line);
    node->b = parse_filter(p, NULL, true);
    parse_body(p, (const char *[]){"endfilter", NULL}, "filter", true, &node->body, &node->n_body);
    return node;
}

/* BLOCK: name, flag scoped, body; without inheritance it is a scope of its own. */
static jinja_node *parse_block(parser *p) {
    jinja_node *node = new_node(p, JINJA_BLOCK, next(p)->line);
    jinja_value name = expect_name(p)->value;
    node->name = intern(p, name);
    node->flag = skip_word(p, "scoped");
    if (is_word(p, "required"))
        fail_at(p, node->line, "required blocks need template inheritance, which is not supported");
    if (is_op(p, "-")) fail_at(p, node->line, "block names may not contain hyphens");
    for (size_t i = 0; i < p->n_blocks; i++)
        if (p->program->blocks[i].name == node->name) fail_at(p, node->line, "a block of this name is defined twice");
    if (p->n_blocks == p->blocks_capacity) {
        size_t capacity = p->blocks_capacity ? p->blocks_capacity * 2 : 4;
        if (capacity > 1024) fail_at(p, node->line, "too many blocks");
        void *blocks = sl_jinja_array(p->j, capacity, sizeof *p->program->blocks);
        if (p->n_blocks) memcpy(blocks, p->program->blocks, p->n_blocks * sizeof *p->program->blocks);
        p->program->blocks = blocks;
        p->blocks_capacity = capacity;
    }
    p->program->blocks[p->n_blocks].node = node;
    p->program->blocks[p->n_blocks++].name = node->name;
    parse_body(p, (const char *[]){"endblock", NULL}, "block", true, &node->body, &node->n_body);
    if (p->token->kind == JINJA_T_NAME && sl_jinja_equal(p->j, p->token->value, name)) next(p);
    return node;
}

/* SCOPE: body ("generation": the marks of the assistant's text make no difference to what is written). */
static jinja_node *parse_generation(parser *p) {
    jinja_node *node = new_node(p, JINJA_SCOPE, next(p)->line);
    parse_body(p, (const char *[]){"endgeneration", NULL}, "generation", true, &node->body, &node->n_body);
    return node;
}

/* SCOPE with a: the expression that switches escaping on. */
static jinja_node *parse_autoescape(parser *p) {
    jinja_node *node = new_node(p, JINJA_SCOPE, next(p)->line);
    node->a = parse_expression(p, true);
    parse_body(p, (const char *[]){"endautoescape", NULL}, "autoescape", true, &node->body, &node->n_body);
    return node;
}

/* OUTPUT: items. */
static jinja_node *parse_print(parser *p) {
    jinja_node *node = new_node(p, JINJA_OUTPUT, next(p)->line);
    nodes items = {0};
    while (p->token->kind != JINJA_T_BLOCK_END) {
        if (items.n) expect_op(p, ",");
        add(p, &items, parse_expression(p, true));
    }
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

static jinja_node *parse_break(parser *p) { return new_node(p, JINJA_BREAK, next(p)->line); }
static jinja_node *parse_continue(parser *p) { return new_node(p, JINJA_CONTINUE, next(p)->line); }

/* UNSUPPORTED: value, the tag: there are no other templates to load. It fails when it is reached. */
static jinja_node *parse_other_template(parser *p) {
    jinja_node *node = new_node(p, JINJA_UNSUPPORTED, p->token->line);
    node->value = next(p)->value;
    while (p->token->kind != JINJA_T_BLOCK_END && p->token->kind != JINJA_T_END) next(p);
    return node;
}

static jinja_node *parse_statement(parser *p, const char *tag) {
    static const struct {
        const char *name;
        jinja_node *(*parse)(parser *p);
    } statements[] = {{"for", parse_for},
                      {"if", parse_if},
                      {"set", parse_set},
                      {"macro", parse_macro},
                      {"call", parse_call_block},
                      {"filter", parse_filter_block},
                      {"with", parse_with},
                      {"block", parse_block},
                      {"print", parse_print},
                      {"generation", parse_generation},
                      {"break", parse_break},
                      {"continue", parse_continue},
                      {"autoescape", parse_autoescape},
                      {"include", parse_other_template},
                      {"import", parse_other_template},
                      {"from", parse_other_template},
                      {"extends", parse_other_template}};
    if (p->token->kind != JINJA_T_NAME) fail_at(p, p->token->line, "tag name expected");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (is_word(p, statements[i].name)) return statements[i].parse(p);
    p->j->line = p->token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "Encountered unknown tag '%.100s'.%s%s%s", describe(p, p->token),
                  tag ? " The innermost block that needs to be closed is '" : "", tag ? tag : "", tag ? "'." : "");
}

/* The body of `tag` up to one of the tags `ends` (NULL: the end of the template), which becomes the token at hand.
 * DATA: value. */
static void parse_until(parser *p, const char *const *ends, const char *tag, jinja_node ***body, size_t *n) {
    nodes list = {0};
    for (;;) {
        const jinja_token *token = p->token;
        if (token->kind == JINJA_T_END) {
            if (!ends) break;
            p->j->line = token->line;
            sl_jinja_fail(p->j, "TemplateSyntaxError",
                          "Unexpected end of template. The innermost block that needs to be "
                          "closed is '%s'.",
                          tag);
        } else if (token->kind == JINJA_T_DATA) {
            jinja_node *node = new_node(p, JINJA_DATA, token->line);
            node->value = token->value;
            add(p, &list, node);
            next(p);
        } else if (token->kind == JINJA_T_VARIABLE_BEGIN) {
            next(p);
            jinja_node *node = new_node(p, JINJA_OUTPUT, token->line);
            nodes items = {0};
            add(p, &items, parse_tuple(p, false, true, NULL, false, false));
            node->items = items.items;
            node->n_items = 1;
            add(p, &list, node);
            expect(p, JINJA_T_VARIABLE_END, "end of print statement");
        } else {
            next(p);
            bool end = false;
            for (size_t i = 0; ends && ends[i]; i++) end = end || is_word(p, ends[i]);
            if (end) break;
            add(p, &list, parse_statement(p, tag));
            expect(p, JINJA_T_BLOCK_END, "end of statement block");
        }
    }
    *body = list.items;
    *n = list.n;
}

void sl_jinja_parse(jinja *j, const char *source, size_t length, jinja_program *program) {
    parser p = {.j = j, .program = program, .names = sl_jinja_dict_new(j)};
    p.token = sl_jinja_tokenize(j, source, length);
    parse_until(&p, NULL, NULL, &program->body, &program->n_body);
}
