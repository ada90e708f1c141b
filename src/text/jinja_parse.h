/* What the two halves of the parser share: expressions (jinja_expression.c) and statements (jinja_parse.c) read one row
 * of tokens and make nodes of one kind (jinja_tree.c). */
#ifndef SL_TEXT_JINJA_PARSE_H
#define SL_TEXT_JINJA_PARSE_H

#include "text/jinja_lex.h"

typedef struct jinja_parser {
    jinja *j;
    const jinja_token *token; /* the one at hand; the last is JINJA_T_END and stays */
    jinja_value names;        /* dict: name -> index */
    jinja_program *program;
    size_t names_capacity, blocks_capacity;
} jinja_parser;

/* A growing array of nodes. */
typedef struct jinja_nodes {
    jinja_node **items;
    size_t n, capacity;
} jinja_nodes;

/* TemplateSyntaxError with this message; or "expected token 'what', got ..." at the token at hand. */
noreturn void sl_jinja_fail_at(jinja_parser *p, int line, const char *message);
noreturn void sl_jinja_fail_expected(jinja_parser *p, const char *what);
const char *sl_jinja_describe(jinja_parser *p, const jinja_token *token); /* for messages */

jinja_node *sl_jinja_node_new(jinja_parser *p, jinja_kind kind, int line);
/* Notes that child lies under node (expressions nest so deep and no deeper); returns child. */
jinja_node *sl_jinja_node_under(jinja_parser *p, jinja_node *node, jinja_node *child);
void sl_jinja_node_add_name(jinja_parser *p, jinja_node *node, size_t *capacity, int name);
void sl_jinja_nodes_add(jinja_parser *p, jinja_nodes *list, jinja_node *node);
/* The number of a name, the same for the same text. */
int sl_jinja_intern(jinja_parser *p, jinja_value text);

/* One expression; with_condition: "a if b else c" is allowed. */
jinja_node *sl_jinja_parse_expression(jinja_parser *p, bool with_condition);
/* Expressions with commas between them are a TUPLE_EXPR, one without stays itself. simple: names and constants only;
 * end_word: the word that ends it beside the end of the tag, or NULL; parentheses: it may be empty; with_namespace:
 * "name.attribute" is an NSREF. */
jinja_node *sl_jinja_parse_tuple(jinja_parser *p, bool simple, bool with_condition, const char *end_word,
                                 bool parentheses, bool with_namespace);
/* "| name(arguments) | ..." over node, NULL for the text of a block. start_inline: the first has no bar before it. */
jinja_node *sl_jinja_parse_filters(jinja_parser *p, jinja_node *node, bool start_inline);

/* ---------------------------------------------------------------- the token at hand */

/* Takes it. */
static inline const jinja_token *next(jinja_parser *p) {
    const jinja_token *token = p->token;
    if (token->kind != JINJA_T_END) p->token++;
    return token;
}

static inline bool token_is(const jinja_token *token, jinja_token_kind kind, const char *text) {
    return token->kind == kind && sl_jinja_string_is(token->value, text);
}
static inline bool is_op(const jinja_parser *p, const char *op) { return token_is(p->token, JINJA_T_OPERATOR, op); }
static inline bool is_word(const jinja_parser *p, const char *word) { return token_is(p->token, JINJA_T_NAME, word); }

static inline bool skip_op(jinja_parser *p, const char *op) {
    if (!is_op(p, op)) return false;
    next(p);
    return true;
}
static inline bool skip_word(jinja_parser *p, const char *word) {
    if (!is_word(p, word)) return false;
    next(p);
    return true;
}
static inline const jinja_token *expect_op(jinja_parser *p, const char *op) {
    if (!is_op(p, op)) sl_jinja_fail_expected(p, op);
    return next(p);
}
static inline const jinja_token *expect(jinja_parser *p, jinja_token_kind kind, const char *what) {
    if (p->token->kind != kind) sl_jinja_fail_expected(p, what);
    return next(p);
}
static inline const jinja_token *expect_name(jinja_parser *p) { return expect(p, JINJA_T_NAME, "name"); }

#endif
