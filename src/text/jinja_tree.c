/* The parser's cursor over the tokens, its nodes and its table of names. */
#include "text/jinja_parse.h"

#include <string.h>

enum { MAX_EXPRESSION_DEPTH = 400 };

/* ---------------------------------------------------------------- tokens */

noreturn void sl_jinja_fail_at(jinja_parser *p, int line, const char *message) {
    p->j->line = line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "%s", message);
}

const char *sl_jinja_describe(jinja_parser *p, const jinja_token *token) {
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

noreturn void sl_jinja_fail_expected(jinja_parser *p, const char *what) {
    p->j->line = p->token->line;
    sl_jinja_fail(p->j, "TemplateSyntaxError", "expected token '%s', got '%.100s'", what,
                  sl_jinja_describe(p, p->token));
}

/* ---------------------------------------------------------------- nodes */

jinja_node *sl_jinja_node_new(jinja_parser *p, jinja_kind kind, int line) {
    jinja_node *node = sl_jinja_alloc(p->j, sizeof *node);
    node->kind = (uint8_t)kind;
    node->line = line;
    node->name = -1;
    return node;
}

/* Notes that child lies under node. */
jinja_node *sl_jinja_node_under(jinja_parser *p, jinja_node *node, jinja_node *child) {
    if (child && child->depth >= node->depth) node->depth = (uint16_t)(child->depth + 1);
    if (node->depth > MAX_EXPRESSION_DEPTH) sl_jinja_fail_at(p, node->line, "the expression nests too deeply");
    return child;
}

void sl_jinja_nodes_add(jinja_parser *p, jinja_nodes *list, jinja_node *node) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        jinja_node **items = sl_jinja_array(p->j, capacity, sizeof *items);
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = node;
}

int sl_jinja_intern(jinja_parser *p, jinja_value text) {
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

void sl_jinja_node_add_name(jinja_parser *p, jinja_node *node, size_t *capacity, int name) {
    if (node->n_names == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 4;
        int *names = sl_jinja_array(p->j, *capacity, sizeof *names);
        if (node->n_names) memcpy(names, node->names, node->n_names * sizeof *names);
        node->names = names;
    }
    node->names[node->n_names++] = name;
}
