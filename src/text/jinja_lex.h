/* Template text to tokens. */
#ifndef SL_TEXT_JINJA_LEX_H
#define SL_TEXT_JINJA_LEX_H

#include "text/jinja.h"

typedef enum jinja_token_kind {
    JINJA_T_END,
    JINJA_T_DATA,
    JINJA_T_VARIABLE_BEGIN,
    JINJA_T_VARIABLE_END,
    JINJA_T_BLOCK_BEGIN,
    JINJA_T_BLOCK_END,
    JINJA_T_NAME,
    JINJA_T_STRING,
    JINJA_T_INTEGER,
    JINJA_T_FLOAT,
    JINJA_T_OPERATOR
} jinja_token_kind;

typedef struct jinja_token {
    jinja_token_kind kind;
    int line;
    jinja_value
        value; /* DATA, NAME, STRING: a string; INTEGER, FLOAT: the number; OPERATOR: its one or two characters */
} jinja_token;

/* The tokens of source [length], ended by JINJA_T_END. Comments, raw marks and blanks are gone, and the white space
 * around tags is already removed (trim_blocks, lstrip_blocks, "-" and "+" marks). */
jinja_token *sl_jinja_tokenize(jinja *j, const char *source, size_t length);

#endif
