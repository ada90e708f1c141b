/* The Jinja interpreter's own header: values, syntax tree and the run-time state that its files share.
 *
 * Every failure leaves through sl_jinja_fail, which fills the error record and jumps back to the one place that called
 * setjmp (template.c), so that a hundred small Python semantics need no hundred error checks. This is safe because
 * everything made on the way lives in the arena of the compilation or of the rendering; nothing else owns memory.
 *
 * Semantics follow Python 3.11 and Jinja 3.1 (https://jinja.palletsprojects.com/en/3.1.x/templates/), in the sandboxed,
 * immutable environment that transformers uses for chat templates. */
#ifndef SL_TEXT_JINJA_H
#define SL_TEXT_JINJA_H

#include "base/arena.h"
#include "base/buffer.h"
#include "base/json.h"
#include "text/template.h"

#include <setjmp.h>
#include <stdnoreturn.h>

/* ---------------------------------------------------------------- values */

typedef enum jinja_type {
    JINJA_MISSING, /* no value at all: an absent argument or variable; never seen by a template */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT, /* fits int64 */
    JINJA_BIG, /* does not: always normalised */
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_BYTES, /* of str.encode */
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_VIEW, /* dict.keys(), .values(), .items(); the set that is the difference of two of them */
    JINJA_RANGE,
    JINJA_ITERATOR, /* a generator: consumed once */
    JINJA_NAMESPACE,
    JINJA_FUNCTION, /* a builtin, perhaps bound to a value */
    JINJA_MACRO,
    JINJA_LOOP,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_TEMPLATE /* `self`: its attributes are the template's blocks */
} jinja_type;

typedef struct jinja_string {
    const char *data; /* UTF-8, not necessarily NUL-terminated */
    size_t length;    /* bytes */
    size_t chars;     /* code points; equal to length when all is ASCII */
} jinja_string;

typedef struct jinja_value {
    uint8_t type;
    bool markup; /* a string marked safe: Python's markupsafe.Markup */
    bool group;  /* a tuple made by groupby, with .grouper and .list */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const struct jinja_big *big;
        const jinja_string *string;
        struct jinja_list *list; /* lists and tuples */
        struct jinja_dict *dict; /* also a namespace's */
        const struct jinja_view *view;
        const struct jinja_range *range;
        struct jinja_iterator *iterator;
        const struct jinja_function *function;
        const struct jinja_macro *macro;
        struct jinja_loop *loop;
        struct jinja_cycler *cycler;
        struct jinja_joiner *joiner;
        const struct jinja_undefined *undefined;
    } as;
} jinja_value;

typedef struct jinja_list {
    jinja_value *items;
    size_t length, capacity;
} jinja_list;

typedef struct jinja_dict {
    jinja_value *keys, *values; /* [length], in insertion order */
    uint64_t *hashes;
    uint32_t *index; /* open addressing, entry + 1; NULL while small */
    size_t length, capacity, index_size;
    bool in_repr; /* a namespace may hold itself */
} jinja_dict;

typedef struct jinja_view {
    jinja_dict *dict;
    enum { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS, JINJA_ITEM_SET } what; /* ITEM_SET: the keys of a dict of its own */
} jinja_view;

typedef struct jinja_range {
    int64_t start, stop, step;
    int64_t length;
} jinja_range;

/* What stands behind an undefined value; the message is made only when somebody uses it. */
typedef struct jinja_undefined {
    const char *hint; /* the whole message, or NULL */
    const char *kind; /* "UndefinedError" or "SecurityError" */
    bool of_object;   /* object.name is missing; otherwise the variable `name` is */
    jinja_value object, name;
} jinja_undefined;

typedef struct jinja jinja; /* the run-time state */

typedef struct jinja_args {
    jinja_value *items; /* [length] positional */
    size_t length;
    jinja_value *names; /* [named] keyword names (strings) */
    jinja_value *values;
    size_t named;
} jinja_args;

typedef jinja_value (*jinja_builtin)(jinja *j, jinja_value self, const jinja_args *args);

typedef struct jinja_function {
    const char *name;
    jinja_builtin call;
    jinja_value self;
} jinja_function;

typedef struct jinja_cycler {
    jinja_list *items;
    size_t position;
} jinja_cycler;

typedef struct jinja_joiner {
    jinja_value separator;
    bool used;
} jinja_joiner;

typedef struct jinja_macro {
    const struct jinja_node *node; /* JINJA_MACRO_DEF or JINJA_CALL_BLOCK: arguments and body */
    struct jinja_scope *scope;     /* where it was defined: macros are closures */
} jinja_macro;

typedef struct jinja_loop {
    jinja_value source; /* for len() */
    struct jinja_iterator *iterator;
    int64_t index0, length; /* length -1: not known yet */
    int64_t depth0;
    jinja_value after, current, before, changed; /* JINJA_MISSING: none */
    const struct jinja_node *node;               /* the recursive `for`, NULL when not recursive */
    struct jinja_scope *scope;                   /* outside of the loop */
} jinja_loop;

/* ---------------------------------------------------------------- syntax tree */

typedef enum jinja_kind {
    /* expressions */
    JINJA_CONST,
    JINJA_NAME,
    JINJA_TUPLE_EXPR,
    JINJA_LIST_EXPR,
    JINJA_DICT_EXPR,
    JINJA_GETATTR,
    JINJA_GETITEM,
    JINJA_SLICE,
    JINJA_CALL,
    JINJA_FILTER,
    JINJA_TEST,
    JINJA_COND,
    JINJA_AND,
    JINJA_OR,
    JINJA_NOT,
    JINJA_NEG,
    JINJA_POS,
    JINJA_BINARY,
    JINJA_CONCAT,
    JINJA_COMPARE,
    JINJA_NSREF,
    /* statements */
    JINJA_DATA,
    JINJA_OUTPUT,
    JINJA_IF,
    JINJA_FOR,
    JINJA_SET,
    JINJA_SET_BLOCK,
    JINJA_MACRO_DEF,
    JINJA_CALL_BLOCK,
    JINJA_FILTER_BLOCK,
    JINJA_WITH,
    JINJA_BLOCK,
    JINJA_SCOPE,
    JINJA_BREAK,
    JINJA_CONTINUE,
    JINJA_UNSUPPORTED
} jinja_kind;

typedef enum jinja_operator {
    JINJA_ADD,
    JINJA_SUB,
    JINJA_MUL,
    JINJA_DIV,
    JINJA_FLOORDIV,
    JINJA_MOD,
    JINJA_POW,
    JINJA_EQ,
    JINJA_NE,
    JINJA_LT,
    JINJA_LE,
    JINJA_GT,
    JINJA_GE,
    JINJA_IN,
    JINJA_NOT_IN
} jinja_operator;

typedef struct jinja_node jinja_node;

/* One shape for every node: which members are used is said beside each kind in the parser. Lists are arrays. */
struct jinja_node {
    uint8_t kind, op;
    bool flag;                                   /* FOR: recursive; BLOCK: scoped; GETITEM: folded */
    bool constant;                               /* Jinja computes it when it compiles */
    bool uses_caller, uses_varargs, uses_kwargs; /* MACRO_DEF, CALL_BLOCK: the body names them */
    int line;
    uint16_t depth;        /* of the expression tree below */
    int name;              /* NAME, GETATTR, NSREF, MACRO_DEF, ...: index of the interned name, -1 none */
    jinja_value value;     /* CONST, and the text of names where a value is needed */
    const void *entry;     /* FILTER, TEST: row of the table, NULL when unknown */
    jinja_node *a, *b, *c; /* operands */
    jinja_node **items;    /* arguments, elements, ... */
    size_t n_items;
    jinja_node **body;
    size_t n_body;
    jinja_node **other; /* else branch, defaults, keyword values */
    size_t n_other;
    int *names; /* keyword or parameter names */
    size_t n_names;
    uint8_t *ops; /* COMPARE */
};

/* Names are numbers once parsed; `text` of each is a value, ready to be a dict key. */
typedef struct jinja_program {
    jinja_node **body;
    size_t n_body;
    jinja_value *names;
    size_t n_names;
    jinja_node **blocks; /* [n_blocks] BLOCK */
    size_t n_blocks;
} jinja_program;

/* ---------------------------------------------------------------- run time */

typedef struct jinja_scope {
    struct jinja_scope *parent; /* NULL: the global scope, whose values are indexed by name */
    int *names;
    jinja_value *values;
    int length, capacity;
} jinja_scope;

/* Bytes growing in the arena. */
typedef struct jinja_text {
    jinja *j;
    char *data;
    size_t length, capacity;
} jinja_text;

struct jinja {
    sl_arena *arena;
    sllm_error *error;
    jmp_buf on_failure;
    sllm_status status;
    int line; /* of the statement or expression at work */

    /* rendering only */
    const jinja_program *program;
    jinja_scope *globals;
    sl_buffer *out;
    jinja_text *capture; /* NULL: text goes to out */
    size_t output_bytes, output_limit;
    uint64_t steps, step_limit;
    int calls, call_limit;      /* macros and recursive loops under way */
    int nesting, nesting_limit; /* evaluator and value recursion: bounds the C stack */
    const char *now;
    uint64_t hash_seed;
};

/* Fails with "kind: line N: text"; kind is the Python exception that the reference raises. */
noreturn void sl_jinja_fail(jinja *j, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* raise_exception: the message is the template's, exactly. */
noreturn void sl_jinja_raise(jinja *j, const jinja_string *message);
noreturn void sl_jinja_fail_limit(jinja *j, const char *which, uint64_t limit);

noreturn void sl_jinja_fail_memory(jinja *j, size_t bytes);

void *sl_jinja_alloc(jinja *j, size_t size);
void *sl_jinja_array(jinja *j, size_t count, size_t size);
/* Counts work against the step limit. */
void sl_jinja_charge(jinja *j, uint64_t steps);
/* Around every recursion on values or syntax. */
void sl_jinja_enter(jinja *j);
void sl_jinja_leave(jinja *j);

/* ---------------------------------------------------------------- text building (jinja_value.c) */

void sl_jinja_text_append(jinja_text *text, const char *data, size_t length);
void sl_jinja_text_puts(jinja_text *text, const char *data);
void sl_jinja_text_putc(jinja_text *text, char c);
void sl_jinja_text_code(jinja_text *text, uint32_t code_point);
void sl_jinja_text_fill(jinja_text *text, const char *data, size_t length, int64_t times);
void sl_jinja_text_printf(jinja_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
jinja_value sl_jinja_text_value(jinja_text *text);

/* ---------------------------------------------------------------- making values (jinja_value.c) */

extern const jinja_value sl_jinja_none, sl_jinja_true, sl_jinja_false, sl_jinja_missing;
jinja_value sl_jinja_bool(bool value);
jinja_value sl_jinja_int(int64_t value);
jinja_value sl_jinja_float(double value);
jinja_value sl_jinja_str(jinja *j, const char *data, size_t length); /* borrows data */
jinja_value sl_jinja_str_copy(jinja *j, const char *data, size_t length);
jinja_value sl_jinja_literal(jinja *j, const char *text); /* borrows */
jinja_value sl_jinja_list_new(jinja *j, size_t capacity);
void sl_jinja_list_push(jinja *j, jinja_list *list, jinja_value item);
jinja_value sl_jinja_tuple(jinja *j, size_t n, const jinja_value *items);
jinja_value sl_jinja_dict_new(jinja *j);
void sl_jinja_dict_set(jinja *j, jinja_dict *dict, jinja_value key, jinja_value value); /* fails on unhashable keys */
jinja_value *sl_jinja_dict_get(jinja *j, const jinja_dict *dict, jinja_value key);      /* NULL: absent */
jinja_value *sl_jinja_dict_get_text(jinja *j, const jinja_dict *dict, const char *key);
jinja_value sl_jinja_from_json(jinja *j, const sl_json *json);
jinja_value sl_jinja_undefined_name(jinja *j, jinja_value name);
jinja_value sl_jinja_undefined_attribute(jinja *j, jinja_value object, jinja_value name);
jinja_value sl_jinja_undefined_hint(jinja *j, const char *hint);
jinja_value sl_jinja_undefined_unsafe(jinja *j, jinja_value object, const char *name);
jinja_value sl_jinja_bound(jinja *j, const char *name, jinja_builtin call, jinja_value self);
noreturn void sl_jinja_fail_undefined(jinja *j, jinja_value value);

static inline bool jinja_is(jinja_value v, jinja_type type) { return v.type == type; }
static inline bool jinja_is_str(jinja_value v) { return v.type == JINJA_STRING; }
static inline bool jinja_is_int(jinja_value v) {
    return v.type == JINJA_INT || v.type == JINJA_BIG || v.type == JINJA_BOOL;
}
static inline bool jinja_is_number(jinja_value v) { return jinja_is_int(v) || v.type == JINJA_FLOAT; }
static inline bool jinja_is_sequence(jinja_value v) { return v.type == JINJA_LIST || v.type == JINJA_TUPLE; }
static inline const jinja_string *jinja_text_of(jinja_value v) { return v.as.string; }
bool sl_jinja_string_is(jinja_value v, const char *text);

/* ---------------------------------------------------------------- Python operations (jinja_ops.c, jinja_number.c) */

const char *sl_jinja_type_name(jinja_value v); /* type(v).__name__ */
bool sl_jinja_truth(jinja *j, jinja_value v);
bool sl_jinja_equal(jinja *j, jinja_value a, jinja_value b);
/* -1, 0, 1; 2: unordered (NaN). Fails with TypeError for types that have no order, naming `op` ("<"). */
int sl_jinja_order(jinja *j, jinja_value a, jinja_value b, const char *op);
bool sl_jinja_less(jinja *j, jinja_value a, jinja_value b);
bool sl_jinja_contains(jinja *j, jinja_value item, jinja_value container);
bool sl_jinja_compare(jinja *j, jinja_operator op, jinja_value a, jinja_value b);
uint64_t sl_jinja_hash(jinja *j, jinja_value v);
int64_t sl_jinja_length(jinja *j, jinja_value v); /* len(v) */
bool sl_jinja_has_length(jinja_value v);
bool sl_jinja_is_iterable(jinja_value v);
bool sl_jinja_is_callable(jinja_value v);
jinja_value sl_jinja_binary(jinja *j, jinja_operator op, jinja_value a, jinja_value b);
jinja_value sl_jinja_arithmetic(jinja *j, jinja_operator op, jinja_value a, jinja_value b); /* two numbers */
jinja_value sl_jinja_negate(jinja *j, jinja_value v, bool plus);
int sl_jinja_order_numbers(jinja *j, jinja_value a, jinja_value b);                  /* as sl_jinja_order */
jinja_value sl_jinja_parse_int(jinja *j, const char *text, size_t length, int base); /* JINJA_MISSING: not a number */
bool sl_jinja_parse_float(jinja *j, const char *text, size_t length, double *out);
jinja_value sl_jinja_float_to_int(jinja *j, double value); /* truncates; fails for NaN and infinity */
double sl_jinja_to_double(jinja *j, jinja_value number);
void sl_jinja_write_int(jinja_text *out, jinja_value v);
void sl_jinja_write_float(jinja_text *out, double value); /* Python's repr */
jinja_value sl_jinja_round(jinja *j, jinja_value v, jinja_value digits);
/* An index argument: fails unless v is an integer; saturates at the ends of int64. */
int64_t sl_jinja_index(jinja *j, jinja_value v);

void sl_jinja_write_str(jinja_text *out, jinja_value v);  /* str(v) */
void sl_jinja_write_repr(jinja_text *out, jinja_value v); /* repr(v) */
jinja_value sl_jinja_to_str(jinja *j, jinja_value v);
void sl_jinja_write_code_repr(jinja_text *out, const char *data, size_t length); /* a string's repr */
void sl_jinja_pprint(jinja_text *out, jinja_value v);

jinja_value sl_jinja_get_attribute(jinja *j, jinja_value object, jinja_value name);                 /* object.name */
jinja_value sl_jinja_get_item(jinja *j, jinja_value object, jinja_value key);                       /* object[key] */
bool sl_jinja_can_slice(jinja_value object, jinja_value start, jinja_value stop, jinja_value step); /* no TypeError */
jinja_value sl_jinja_get_slice(jinja *j, jinja_value object, jinja_value start, jinja_value stop, jinja_value step);
jinja_value sl_jinja_python_attribute(jinja *j, jinja_value object,
                                      const jinja_string *name); /* getattr; MISSING: none */
jinja_value sl_jinja_dotted(jinja *j, jinja_value object, jinja_value path, jinja_value fallback); /* make_attrgetter */

/* Position of code point `index` in bytes, and the string between two code points. */
size_t sl_jinja_char_offset(const jinja_string *s, size_t index);
jinja_value sl_jinja_substring(jinja *j, const jinja_string *s, size_t from, size_t to);

/* ---------------------------------------------------------------- iteration (jinja_iter.c) */

typedef struct jinja_iterator jinja_iterator;
struct jinja_iterator {
    const char *type; /* Python's name of the type, e.g. "generator" */
    bool (*next)(jinja *j, jinja_iterator *it, jinja_value *item);
    jinja_value source; /* what it walks over */
    jinja_iterator *inner;
    size_t position;
    bool started, done;
    jinja_value a, b; /* arguments of the producer */
    jinja_args args;
    const void *data;
    struct jinja_scope *scope;
    int64_t n, m;
    jinja_value state;
};
jinja_iterator *sl_jinja_iterate(jinja *j, jinja_value v); /* iter(v): TypeError when it cannot */
bool sl_jinja_next(jinja *j, jinja_iterator *it, jinja_value *item);
jinja_value sl_jinja_generator(jinja *j, const char *type, bool (*next)(jinja *, jinja_iterator *, jinja_value *),
                               jinja_iterator **made);
jinja_value sl_jinja_collect(jinja *j, jinja_value v);  /* list(v) */
jinja_value sl_jinja_reversed(jinja *j, jinja_value v); /* reversed(v) */
/* sorted(list, key): keys [n] beside items [n]; stable, in place. */
void sl_jinja_sort(jinja *j, jinja_value *items, jinja_value *keys, size_t n, bool reverse);

/* ---------------------------------------------------------------- calling */

/* Binds arguments to parameters "a b c": out[i] is MISSING where not given. Fails with TypeError on too many or
 * unknown. */
void sl_jinja_bind(jinja *j, const char *function, const jinja_args *args, const char *const *parameters, size_t n,
                   size_t required, jinja_value *out);
jinja_value sl_jinja_call(jinja *j, jinja_value callee, const jinja_args *args);

typedef struct jinja_filter {
    const char *name;
    jinja_value (*call)(jinja *j, jinja_value value, const jinja_args *args);
} jinja_filter;
typedef struct jinja_test {
    const char *name;
    bool (*call)(jinja *j, jinja_value value, const jinja_args *args);
} jinja_test;
const jinja_filter *sl_jinja_find_filter(const char *name, size_t length); /* NULL: none */
const jinja_test *sl_jinja_find_test(const char *name, size_t length);

/* Tables of the methods and attributes of builtin types, each ended by a NULL name. */
typedef struct jinja_method {
    const char *name;
    jinja_builtin call;
} jinja_method;
extern const jinja_method sl_jinja_string_methods[];
extern const jinja_method sl_jinja_string_case_methods[];
extern const jinja_filter sl_jinja_sequence_filters[];
extern const jinja_filter sl_jinja_text_filters[];
extern const jinja_filter sl_jinja_html_filters[];
jinja_value sl_jinja_global(jinja *j, jinja_value name); /* range, dict, namespace, ...; MISSING: none */

/* Pieces of one idea each, in the file of that name. */
jinja_value sl_jinja_percent(jinja *j, jinja_value format, jinja_value arguments); /* jinja_percent.c */
jinja_value sl_jinja_format(jinja *j, jinja_value format, const jinja_args *args); /* jinja_format.c */
/* format(value, spec): [[fill]align][sign][#][0][width][grouping][.precision][type]. */
void sl_jinja_format_value(jinja_text *out, jinja_value value, const char *spec, size_t length);
/* A float as 'e', 'f', 'g' (or upper case) write it; precision < 0: 6. alternate: keep the point and zeros. */
void sl_jinja_write_float_as(jinja_text *out, double value, char type, int64_t precision, bool alternate);
jinja_value sl_jinja_tojson(jinja *j, jinja_value value, const jinja_args *args); /* jinja_tojson.c */
jinja_value sl_jinja_strftime(jinja *j, jinja_value format);                      /* jinja_strftime.c */
jinja_value sl_jinja_escape(jinja *j, jinja_value value);                         /* jinja_html.c */
/* The reference at text (behind its '&'), written out; the bytes it takes, 0 when it is none (jinja_entities.c). */
size_t sl_jinja_read_entity(const char *text, size_t length, jinja_text *out);
jinja_value sl_jinja_str_lower(jinja *j, jinja_value s); /* jinja_case.c */
jinja_value sl_jinja_str_upper(jinja *j, jinja_value s);
jinja_value sl_jinja_str_title(jinja *j, jinja_value s);
jinja_value sl_jinja_str_capitalize(jinja *j, jinja_value s);
bool sl_jinja_is_space(uint32_t code_point); /* str.isspace */
bool sl_jinja_is_printable(uint32_t code_point);
bool sl_jinja_is_word(uint32_t code_point); /* \w of re */
bool sl_jinja_str_islower(jinja_value s);
bool sl_jinja_str_isupper(jinja_value s);

jinja_value sl_jinja_wordwrap(jinja *j, jinja_value value, const jinja_args *args); /* jinja_wrap.c */
jinja_value sl_jinja_urlize(jinja *j, jinja_value value, const jinja_args *args);   /* jinja_urlize.c */

/* strip(chars), replace, split, splitlines: shared by methods and filters (jinja_string.c). */
jinja_value sl_jinja_strip(jinja *j, jinja_value s, jinja_value chars, bool left, bool right);
jinja_value sl_jinja_replace(jinja *j, jinja_value s, jinja_value from, jinja_value to, int64_t count);
jinja_value sl_jinja_splitlines(jinja *j, jinja_value s, bool keep_ends);
jinja_value sl_jinja_align(jinja *j, jinja_value s, int64_t width, const char *fill, size_t fill_length, char how);

/* ---------------------------------------------------------------- stages */

void sl_jinja_parse(jinja *j, const char *source, size_t length, jinja_program *program); /* jinja_parse.c */
void sl_jinja_check(jinja *j, jinja_program *program);                                    /* jinja_check.c */
void sl_jinja_run(jinja *j, const jinja_program *program);                                /* jinja_exec.c */
/* Runs work where it may fail by sl_jinja_fail, with limits and the clock set; `out` is left as it was on failure. */
sllm_status sl_jinja_work(const sl_template *tmpl, const char *now, const sl_template_limits *limits, sl_buffer *out,
                          sllm_error *error, void (*work)(jinja *j, void *user), void *user); /* template.c */
void sl_jinja_render(jinja *j, jinja_value variables);
bool sl_jinja_says_content(const sl_template *tmpl);
jinja_value sl_jinja_eval(jinja *j, jinja_scope *scope, const jinja_node *node); /* jinja_eval.c */
jinja_value sl_jinja_lookup(jinja *j, jinja_scope *scope, int name);             /* MISSING: unknown */
jinja_value sl_jinja_filter_value(jinja *j, jinja_scope *scope, const jinja_node *filter, jinja_value value);
void sl_jinja_eval_args(jinja *j, jinja_scope *scope, const jinja_node *node, jinja_args *args, size_t extra);
jinja_value sl_jinja_call_macro(jinja *j, const jinja_macro *macro, const jinja_args *args);
jinja_value sl_jinja_call_loop(jinja *j, jinja_loop *loop, jinja_value source);
jinja_value sl_jinja_block_reference(jinja *j, jinja_value name); /* self.name, a function; MISSING: no such block */
jinja_value sl_jinja_loop_attribute(jinja *j, jinja_value loop, const jinja_string *name);
void sl_jinja_emit(jinja *j, const char *data, size_t length);
jinja_scope *sl_jinja_scope_new(jinja *j, jinja_scope *parent);
void sl_jinja_scope_set(jinja *j, jinja_scope *scope, int name, jinja_value value);

#endif
