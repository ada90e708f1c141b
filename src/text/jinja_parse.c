/* Tokens to syntax tree: statements, with the loop controls and "generation" blocks that transformers adds. Which
 * members of a node each kind uses is said where it is made. */
#include "text/jinja_parse.h"

#include <string.h>

static void parse_until(jinja_parser *p, const char *const *ends, const char *tag, jinja_node ***body, size_t *n);

/* "%}", the body, and the end tag's name, which is taken when `drop`. */
static void parse_body(jinja_parser *p, const char *const *ends, const char *tag, bool drop, jinja_node ***body,
                       size_t *n) {
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

static jinja_node *parse_target(jinja_parser *p, const char *end_word, bool with_namespace) {
    jinja_node *target = sl_jinja_parse_tuple(p, true, true, end_word, false, with_namespace);
    if (!is_assignable(target)) sl_jinja_fail_at(p, target->line, "can't assign to this expression");
    return target;
}

static int parse_name_target(jinja_parser *p) {
    const jinja_token *token = expect_name(p);
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (sl_jinja_string_is(token->value, constants[i]))
            sl_jinja_fail_at(p, token->line, "can't assign to a constant");
    return sl_jinja_intern(p, token->value);
}

/* SET: a target, b value. SET_BLOCK: a target, b chain of filters or NULL, body. */
static jinja_node *parse_set(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_SET, next(p)->line);
    node->a = parse_target(p, NULL, true);
    if (skip_op(p, "=")) {
        node->b = sl_jinja_parse_tuple(p, false, true, NULL, false, false);
        return node;
    }
    node->kind = JINJA_SET_BLOCK;
    node->b = sl_jinja_parse_filters(p, NULL, false);
    parse_body(p, (const char *[]){"endset", NULL}, "set", true, &node->body, &node->n_body);
    return node;
}

/* FOR: a target, b iterable, c filter or NULL, flag recursive, name of "loop", body, other (else). */
static jinja_node *parse_for(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_FOR, next(p)->line);
    node->a = parse_target(p, "in", false);
    if (!skip_word(p, "in")) sl_jinja_fail_expected(p, "in");
    node->b = sl_jinja_parse_tuple(p, false, false, "recursive", false, false);
    if (skip_word(p, "if")) node->c = sl_jinja_parse_expression(p, true);
    node->flag = skip_word(p, "recursive");
    node->name = sl_jinja_intern(p, sl_jinja_literal(p->j, "loop"));
    parse_body(p, (const char *[]){"endfor", "else", NULL}, "for", false, &node->body, &node->n_body);
    if (sl_jinja_string_is(next(p)->value, "else"))
        parse_body(p, (const char *[]){"endfor", NULL}, "for", true, &node->other, &node->n_other);
    return node;
}

/* IF: a test, body, other (else; an elif is an IF in there). */
static jinja_node *parse_if(jinja_parser *p) {
    jinja_node *first = NULL, **link = NULL;
    for (;;) {
        jinja_node *node = sl_jinja_node_new(p, JINJA_IF, next(p)->line);
        if (link) *link = node;
        else first = node;
        node->a = sl_jinja_parse_tuple(p, false, false, NULL, false, false);
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
static jinja_node *parse_with(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_WITH, next(p)->line);
    jinja_nodes targets = {0}, values = {0};
    while (p->token->kind != JINJA_T_BLOCK_END) {
        if (targets.n) expect_op(p, ",");
        sl_jinja_nodes_add(p, &targets, parse_target(p, NULL, false));
        expect_op(p, "=");
        sl_jinja_nodes_add(p, &values, sl_jinja_parse_expression(p, true));
    }
    node->items = targets.items;
    node->other = values.items;
    node->n_items = node->n_other = targets.n;
    parse_body(p, (const char *[]){"endwith", NULL}, "with", true, &node->body, &node->n_body);
    return node;
}

/* Parameters of a macro: names, and other: the defaults of the last of them. */
static void parse_signature(jinja_parser *p, jinja_node *node) {
    jinja_nodes defaults = {0};
    size_t capacity = 0;
    expect_op(p, "(");
    while (!is_op(p, ")")) {
        if (node->n_names) expect_op(p, ",");
        int line = p->token->line, name = parse_name_target(p);
        for (size_t i = 0; i < node->n_names; i++)
            if (node->names[i] == name) sl_jinja_fail_at(p, line, "duplicate argument in a macro definition");
        if (skip_op(p, "=")) sl_jinja_nodes_add(p, &defaults, sl_jinja_parse_expression(p, true));
        else if (defaults.n) sl_jinja_fail_at(p, line, "non-default argument follows default argument");
        sl_jinja_node_add_name(p, node, &capacity, name);
    }
    expect_op(p, ")");
    node->other = defaults.items;
    node->n_other = defaults.n;
}

/* MACRO_DEF: name, signature, body. */
static jinja_node *parse_macro(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_MACRO_DEF, next(p)->line);
    node->name = parse_name_target(p);
    parse_signature(p, node);
    parse_body(p, (const char *[]){"endmacro", NULL}, "macro", true, &node->body, &node->n_body);
    return node;
}

/* CALL_BLOCK: a CALL, signature of the caller, body. */
static jinja_node *parse_call_block(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_CALL_BLOCK, next(p)->line);
    if (is_op(p, "(")) parse_signature(p, node);
    node->a = sl_jinja_parse_expression(p, true);
    if (node->a->kind != JINJA_CALL) sl_jinja_fail_at(p, node->line, "expected call");
    parse_body(p, (const char *[]){"endcall", NULL}, "call", true, &node->body, &node->n_body);
    return node;
}

/* FILTER_BLOCK: b chain of filters, body. */
static jinja_node *parse_filter_block(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_FILTER_BLOCK, next(p)->line);
    node->b = sl_jinja_parse_filters(p, NULL, true);
    parse_body(p, (const char *[]){"endfilter", NULL}, "filter", true, &node->body, &node->n_body);
    return node;
}

static void add_block(jinja_parser *p, jinja_node *block) {
    jinja_program *program = p->program;
    for (size_t i = 0; i < program->n_blocks; i++)
        if (program->blocks[i]->name == block->name)
            sl_jinja_fail_at(p, block->line, "a block of this name is defined twice");
    if (program->n_blocks == p->blocks_capacity) {
        size_t capacity = p->blocks_capacity ? p->blocks_capacity * 2 : 4;
        if (capacity > 1024) sl_jinja_fail_at(p, block->line, "too many blocks");
        jinja_node **blocks = sl_jinja_array(p->j, capacity, sizeof *blocks);
        if (program->n_blocks) memcpy(blocks, program->blocks, program->n_blocks * sizeof *blocks);
        program->blocks = blocks;
        p->blocks_capacity = capacity;
    }
    program->blocks[program->n_blocks++] = block;
}

/* BLOCK: name, flag scoped, body; without inheritance it is a scope of its own. */
static jinja_node *parse_block(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_BLOCK, next(p)->line);
    jinja_value name = expect_name(p)->value;
    node->name = sl_jinja_intern(p, name);
    node->flag = skip_word(p, "scoped");
    if (is_word(p, "required"))
        sl_jinja_fail_at(p, node->line, "required blocks need template inheritance, which is not supported");
    if (is_op(p, "-")) sl_jinja_fail_at(p, node->line, "block names may not contain hyphens");
    add_block(p, node);
    parse_body(p, (const char *[]){"endblock", NULL}, "block", true, &node->body, &node->n_body);
    if (p->token->kind == JINJA_T_NAME && sl_jinja_equal(p->j, p->token->value, name)) next(p);
    return node;
}

/* SCOPE: body ("generation": the marks of the assistant's text make no difference to what is written). */
static jinja_node *parse_generation(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_SCOPE, next(p)->line);
    parse_body(p, (const char *[]){"endgeneration", NULL}, "generation", true, &node->body, &node->n_body);
    return node;
}

/* SCOPE with a: the expression that switches escaping on. */
static jinja_node *parse_autoescape(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_SCOPE, next(p)->line);
    node->a = sl_jinja_parse_expression(p, true);
    parse_body(p, (const char *[]){"endautoescape", NULL}, "autoescape", true, &node->body, &node->n_body);
    return node;
}

/* OUTPUT: items. */
static jinja_node *parse_print(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_OUTPUT, next(p)->line);
    jinja_nodes items = {0};
    while (p->token->kind != JINJA_T_BLOCK_END) {
        if (items.n) expect_op(p, ",");
        sl_jinja_nodes_add(p, &items, sl_jinja_parse_expression(p, true));
    }
    node->items = items.items;
    node->n_items = items.n;
    return node;
}

static jinja_node *parse_break(jinja_parser *p) { return sl_jinja_node_new(p, JINJA_BREAK, next(p)->line); }
static jinja_node *parse_continue(jinja_parser *p) { return sl_jinja_node_new(p, JINJA_CONTINUE, next(p)->line); }

/* UNSUPPORTED: value, the tag: there are no other templates to load. It fails when it is reached. */
static jinja_node *parse_other_template(jinja_parser *p) {
    jinja_node *node = sl_jinja_node_new(p, JINJA_UNSUPPORTED, p->token->line);
    node->value = next(p)->value;
    while (p->token->kind != JINJA_T_BLOCK_END && p->token->kind != JINJA_T_END) next(p);
    return node;
}

static jinja_node *parse_statement(jinja_parser *p, const char *tag) {
    static const struct {
        const char *name;
        jinja_node *(*parse)(jinja_parser *p);
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
    if (p->token->kind != JINJA_T_NAME) sl_jinja_fail_at(p, p->token->line, "tag name expected");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (is_word(p, statements[i].name)) return statements[i].parse(p);
    p->j->line = p->token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "Encountered unknown tag '%.100s'.%s%s%s",
                  sl_jinja_describe(p, p->token), tag ? " The innermost block that needs to be closed is '" : "",
                  tag ? tag : "", tag ? "'." : "");
}

/* The body of `tag` up to one of the tags `ends` (NULL: the end of the template), which becomes the token at hand.
 * DATA: value. */
static void parse_until(jinja_parser *p, const char *const *ends, const char *tag, jinja_node ***body, size_t *n) {
    jinja_nodes list = {0};
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
            jinja_node *node = sl_jinja_node_new(p, JINJA_DATA, token->line);
            node->value = token->value;
            sl_jinja_nodes_add(p, &list, node);
            next(p);
        } else if (token->kind == JINJA_T_VARIABLE_BEGIN) {
            next(p);
            jinja_node *node = sl_jinja_node_new(p, JINJA_OUTPUT, token->line);
            jinja_nodes items = {0};
            sl_jinja_nodes_add(p, &items, sl_jinja_parse_tuple(p, false, true, NULL, false, false));
            node->items = items.items;
            node->n_items = 1;
            sl_jinja_nodes_add(p, &list, node);
            expect(p, JINJA_T_VARIABLE_END, "end of print statement");
        } else {
            next(p);
            bool end = false;
            for (size_t i = 0; ends && ends[i]; i++) end = end || is_word(p, ends[i]);
            if (end) break;
            sl_jinja_nodes_add(p, &list, parse_statement(p, tag));
            expect(p, JINJA_T_BLOCK_END, "end of statement block");
        }
    }
    *body = list.items;
    *n = list.n;
}

void sl_jinja_parse(jinja *j, const char *source, size_t length, jinja_program *program) {
    jinja_parser p = {.j = j, .program = program, .names = sl_jinja_dict_new(j)};
    p.token = sl_jinja_tokenize(j, source, length);
    parse_until(&p, NULL, NULL, &program->body, &program->n_body);
}
