#include "text/jinja.h"
void jinja_pprint(jinja_text *out, jinja_value v) { jinja_write_repr(out, v); }
