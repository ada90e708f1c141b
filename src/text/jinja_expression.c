/* Tokens to syntax tree: expressions, by the grammar of Jinja's parser. Which members of a node each kind uses is said
 * where it is made. */
#include "text/jinja_parse.h"

static jinja_node *parse_unary(jinja_parser *p, bool with_filter);

static jinja_node *binary(jinja_parser *p, jinja_kind kind, jinja_operator op, int line, jinja_node *a, jinja_node *b) {
    jinja_node *node = sl_jinja_node_new(p, kind, line);
    node->op = (uint8_t)op;
    node->a = sl_jinja_node_under(p, node, a);
    node->b = sl_jinja_node_under(p, node, b);
    return node;
}

/* CONST: value. */
static jinja_node *constant(jinja_parser *p, int line, jinja_value value) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_CONST, line);
    node->value = value;
    return node;
}

/* NAME: name; NSREF: name, value (the attribute). */
static jinja_node *parse_name(jinja_parser *p, bool with_namespace) {
    const jinja_token *token = next(p);
    jinja_value v = token->value;
    if (sl_jinja_string_is(v, "true") || sl_jinja_string_is(v, "True")) return constant(p, token->line, sl_jinja_true);
    if (sl_jinja_string_is(v, "false") || sl_jinja_string_is(v, "False"))
        return constant(p, token->line, sl_jinja_false);
    if (sl_jinja_string_is(v, "none") || sl_jinja_string_is(v, "None")) return constant(p, token->line, sl_jinja_none);
    jinja_node *node = sl_jinja_node_new(p, JINJA_NAME, token->line);
    node->name = sl_jinja_intern(p, v);
    node->value = v;
    if (with_namespace && skip_op(p, ".")) {
        node->kind = JINJA_NSREF;
        node->value = expect_name(p)->value;
    }
    return node;
}

static jinja_node *parse_strings(jinja_parser *p) {
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
static jinja_node *parse_list(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_LIST_EXPR, expect_op(p, "[")->line);
    jinja_nodes items = {0};
    while (!is_op(p, "]")) {
        if (items.n) expect_op(p, ",");
        if (is_op(p, "]")) break;
        sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true)));
    }
    expect_op(p, "]");
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

/* DICT_EXPR: items (keys), other (values). */
static jinja_node *parse_dict(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_DICT_EXPR, expect_op(p, "{")->line);
    jinja_nodes keys = {0}, values = {0};
    while (!is_op(p, "}")) {
        if (keys.n) expect_op(p, ",");
        if (is_op(p, "}")) break;
        sl_jinja_nodes_add(p, &keys, sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true)));
        expect_op(p, ":");
        sl_jinja_nodes_add(p, &values, sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true)));
    }
    expect_op(p, "}");
    node->items = keys.items;
    node->other = values.items;
    node->n_items = node->n_other = keys.n;
    return node;
}

static jinja_node *parse_primary(jinja_parser *p, bool with_namespace) {
    const jinja_token *token = p->token;
    switch (token->kind) {
    case JINJA_T_NAME: return parse_name(p, with_namespace);
    case JINJA_T_STRING: return parse_strings(p);
    case JINJA_T_INTEGER:
    case JINJA_T_FLOAT: next(p); return constant(p, token->line, token->value);
    default: break;
    }
    if (skip_op(p, "(")) {
        jinja_node *node = sl_jinja_parse_tuple(p, false, true, NULL, true, false);
        expect_op(p, ")");
        return node;
    }
    if (is_op(p, "[")) return parse_list(p);
    if (is_op(p, "{")) return parse_dict(p);
    p->j->line = token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "unexpected '%.100s'", sl_jinja_describe(p, token));
}

/* TUPLE_EXPR: items. A single expression without a comma stays itself. */
jinja_node *sl_jinja_parse_tuple(jinja_parser *p, bool simple, bool with_condition, const char *end_word,
                                 bool parentheses, bool with_namespace) {
    jinja_nodes items = {0};
    bool is_tuple = false;
    int line = p->token->line;
    for (;;) {
        if (items.n) expect_op(p, ",");
        if (p->token->kind == JINJA_T_VARIABLE_END || p->token->kind == JINJA_T_BLOCK_END || is_op(p, ")") ||
            (end_word && is_word(p, end_word)))
            break;
        sl_jinja_nodes_add(p, &items,
                           simple ? parse_primary(p, with_namespace) : sl_jinja_parse_expression(p, with_condition));
        if (!is_op(p, ",")) break;
        is_tuple = true;
        line = p->token->line;
    }
    if (!is_tuple && items.n) return items.items[0];
    if (!is_tuple && !parentheses) {
        p->j->line = p->token->line;
        sl_jinja_fail(p->j, "TemplateSyntaxError", "Expected an expression, got '%.100s'",
                      sl_jinja_describe(p, p->token));
    }
    jinja_node *node = sl_jinja_node_new(p, JINJA_TUPLE_EXPR, line);
    for (size_t i = 0; i < items.n; i++) sl_jinja_node_under(p, node, items.items[i]);
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

/* SLICE: a start, b stop, c step, each may be NULL. */
static jinja_node *parse_subscript_item(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *start = NULL;
    if (!is_op(p, ":")) {
        start = sl_jinja_parse_expression(p, true);
        if (!is_op(p, ":")) return start;
    }
    next(p);
    jinja_node *node = sl_jinja_node_new(p, JINJA_SLICE, line);
    node->a = sl_jinja_node_under(p, node, start);
    if (!is_op(p, ":") && !is_op(p, "]") && !is_op(p, ","))
        node->b = sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true));
    if (skip_op(p, ":") && !is_op(p, "]") && !is_op(p, ","))
        node->c = sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true));
    return node;
}

/* GETATTR: a object, value name. GETITEM: a object, b key or SLICE. */
static jinja_node *parse_subscript(jinja_parser *p, jinja_node *object) {
    int line = p->token->line;
    if (skip_op(p, ".")) {
        const jinja_token *token = next(p);
        if (token->kind == JINJA_T_NAME) {
            jinja_node *node = sl_jinja_node_new(p, JINJA_GETATTR, line);
            node->a = sl_jinja_node_under(p, node, object);
            node->value = token->value;
            return node;
        }
        if (token->kind != JINJA_T_INTEGER) sl_jinja_fail_at(p, token->line, "expected name or number");
        return binary(p, JINJA_GETITEM, 0, line, object, constant(p, token->line, token->value));
    }
    expect_op(p, "[");
    jinja_nodes items = {0};
    while (!is_op(p, "]")) {
        if (items.n) expect_op(p, ",");
        sl_jinja_nodes_add(p, &items, parse_subscript_item(p));
    }
    expect_op(p, "]");
    if (items.n == 1) return binary(p, JINJA_GETITEM, 0, line, object, items.items[0]);
    jinja_node *tuple = sl_jinja_node_new(p, JINJA_TUPLE_EXPR, line);
    for (size_t i = 0; i < items.n; i++) {
        if (items.items[i]->kind == JINJA_SLICE) sl_jinja_fail_at(p, line, "a subscript takes one slice only");
        sl_jinja_node_under(p, tuple, items.items[i]);
    }
    tuple->items = items.items;
    tuple->n_items = items.n;
    return binary(p, JINJA_GETITEM, 0, line, object, tuple);
}

/* The arguments of a call, filter or test: items, names + other (keywords), b (*args), c (**kwargs). */
static void parse_arguments(jinja_parser *p, jinja_node *node) {
    int line = expect_op(p, "(")->line;
    jinja_nodes items = {0}, values = {0};
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
            node->b = sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true));
        } else if (skip_op(p, "**")) {
            ok = !node->c;
            node->c = sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true));
        } else if (keyword) {
            ok = !node->c;
            int name = sl_jinja_intern(p, next(p)->value);
            next(p);
            for (size_t i = 0; i < node->n_names; i++) ok = ok && node->names[i] != name;
            sl_jinja_node_add_name(p, node, &names_capacity, name);
            sl_jinja_nodes_add(p, &values, sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true)));
        } else {
            ok = !node->b && !node->c && !node->n_names;
            sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, sl_jinja_parse_expression(p, true)));
        }
        if (!ok) sl_jinja_fail_at(p, line, "invalid syntax for function call expression");
        comma = true;
    }
    expect_op(p, ")");
    node->items = items.items;
    node->n_items = items.n;
    node->other = values.items;
    node->n_other = values.n;
}

/* CALL: a callee, arguments as above. */
static jinja_node *parse_call(jinja_parser *p, jinja_node *callee) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_CALL, p->token->line);
    node->a = sl_jinja_node_under(p, node, callee);
    parse_arguments(p, node);
    return node;
}

static jinja_node *parse_postfix(jinja_parser *p, jinja_node *node) {
    for (;;) {
        if (is_op(p, ".") || is_op(p, "[")) node = parse_subscript(p, node);
        else if (is_op(p, "(")) node = parse_call(p, node);
        else return node;
    }
}

/* "name.name" of a filter or test. */
static jinja_value parse_dotted_name(jinja_parser *p) {
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
jinja_node *sl_jinja_parse_filters(jinja_parser *p, jinja_node *node, bool start_inline) {
    while (start_inline || is_op(p, "|")) {
        if (!start_inline) next(p);
        start_inline = false;
        jinja_node *filter = sl_jinja_node_new(p, JINJA_FILTER, p->token->line);
        filter->a = sl_jinja_node_under(p, filter, node);
        filter->value = parse_dotted_name(p);
        const jinja_string *name = filter->value.as.string;
        filter->entry = sl_jinja_find_filter(name->data, name->length);
        if (is_op(p, "(")) parse_arguments(p, filter);
        node = filter;
    }
    return node;
}

/* TEST: a value, value name, entry, arguments. "is not" wraps it in NOT. */
static jinja_node *parse_test(jinja_parser *p, jinja_node *value) {
    int line = next(p)->line;
    bool negated = skip_word(p, "not");
    jinja_node *node = sl_jinja_node_new(p, JINJA_TEST, line);
    node->a = sl_jinja_node_under(p, node, value);
    node->value = parse_dotted_name(p);
    const jinja_string *name = node->value.as.string;
    node->entry = sl_jinja_find_test(name->data, name->length);
    jinja_token_kind kind = p->token->kind;
    if (is_op(p, "(")) {
        parse_arguments(p, node);
    } else if ((kind == JINJA_T_NAME || kind == JINJA_T_STRING || kind == JINJA_T_INTEGER || kind == JINJA_T_FLOAT ||
                is_op(p, "[") || is_op(p, "{")) &&
               !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and")) {
        if (is_word(p, "is")) sl_jinja_fail_at(p, p->token->line, "You cannot chain multiple tests with is");
        jinja_nodes items = {0};
        sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, parse_postfix(p, parse_primary(p, false))));
        node->items = items.items;
        node->n_items = 1;
    }
    return negated ? binary(p, JINJA_NOT, 0, line, node, NULL) : node;
}

static jinja_node *parse_filters_and_tests(jinja_parser *p, jinja_node *node) {
    for (;;) {
        if (is_op(p, "|")) node = sl_jinja_parse_filters(p, node, false);
        else if (is_word(p, "is")) node = parse_test(p, node);
        else if (is_op(p, "(")) node = parse_call(p, node);
        else return node;
    }
}

static jinja_node *parse_unary(jinja_parser *p, bool with_filter) {
    int line = p->token->line;
    jinja_node *node;
    sl_jinja_enter(p->j);
    if (skip_op(p, "-")) node = binary(p, JINJA_NEG, 0, line, parse_unary(p, false), NULL);
    else if (skip_op(p, "+")) node = binary(p, JINJA_POS, 0, line, parse_unary(p, false), NULL);
    else node = parse_primary(p, false);
    sl_jinja_leave(p->j);
    node = parse_postfix(p, node);
    return with_filter ? parse_filters_and_tests(p, node) : node;
}

static jinja_node *parse_power(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_unary(p, true);
    while (skip_op(p, "**")) {
        left = binary(p, JINJA_BINARY, JINJA_POW, line, left, parse_unary(p, true));
        line = p->token->line;
    }
    return left;
}

static jinja_node *parse_product(jinja_parser *p) {
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
static jinja_node *parse_concat(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *first = parse_product(p);
    if (!is_op(p, "~")) return first;
    jinja_node *node = sl_jinja_node_new(p, JINJA_CONCAT, line);
    jinja_nodes items = {0};
    sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, first));
    while (skip_op(p, "~")) sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, parse_product(p)));
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

static jinja_node *parse_sum(jinja_parser *p) {
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

static bool parse_comparison_operator(jinja_parser *p, jinja_operator *op) {
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
static jinja_node *parse_comparison(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *first = parse_sum(p), *node = NULL;
    jinja_operator op;
    jinja_nodes items = {0};
    jinja_text ops = {.j = p->j};
    while (parse_comparison_operator(p, &op)) {
        if (!node) {
            node = sl_jinja_node_new(p, JINJA_COMPARE, line);
            node->a = sl_jinja_node_under(p, node, first);
        }
        sl_jinja_text_putc(&ops, (char)op);
        sl_jinja_nodes_add(p, &items, sl_jinja_node_under(p, node, parse_sum(p)));
    }
    if (!node) return first;
    node->items = items.items;
    node->n_items = items.n;
    node->ops = (uint8_t *)ops.data;
    return node;
}

static jinja_node *parse_not(jinja_parser *p) {
    int line = p->token->line;
    if (!skip_word(p, "not")) return parse_comparison(p);
    sl_jinja_enter(p->j);
    jinja_node *node = binary(p, JINJA_NOT, 0, line, parse_not(p), NULL);
    sl_jinja_leave(p->j);
    return node;
}

static jinja_node *parse_and(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_not(p);
    while (skip_word(p, "and")) {
        left = binary(p, JINJA_AND, 0, line, left, parse_not(p));
        line = p->token->line;
    }
    return left;
}

static jinja_node *parse_or(jinja_parser *p) {
    int line = p->token->line;
    jinja_node *left = parse_and(p);
    while (skip_word(p, "or")) {
        left = binary(p, JINJA_OR, 0, line, left, parse_and(p));
        line = p->token->line;
    }
    return left;
}

/* COND: a test, b value, c otherwise (NULL: undefined). */
jinja_node *sl_jinja_parse_expression(jinja_parser *p, bool with_condition) {
    sl_jinja_enter(p->j);
    int line = p->token->line;
    jinja_node *node = parse_or(p);
    while (with_condition && skip_word(p, "if")) {
        jinja_node *condition = sl_jinja_node_new(p, JINJA_COND, line);
        condition->b = sl_jinja_node_under(p, condition, node);
        condition->a = sl_jinja_node_under(p, condition, parse_or(p));
        if (skip_word(p, "else")) condition->c = sl_jinja_node_under(p, condition, sl_jinja_parse_expression(p, true));
        node = condition;
        line = p->token->line;
    }
    sl_jinja_leave(p->j);
    return node;
}
